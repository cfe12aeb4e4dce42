"""What carries the runs of a sweep. Plan, price, stages and rules know of an engine only what stands here."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TextIO

from hackward.base.faults import InputError
from hackward.scheduling.board import Board
from hackward.scheduling.flags import SweepFlags
from hackward.scheduling.jobs import Job


@dataclass(frozen=True)
class Room:
    """How many runs go at once."""

    at_once: int
    words: str
    """The same for people: "with --jobs=3", "on 4 GPUs, 2 runs on each"."""
    per_gpu: int = 1
    """Runs at once on one GPU."""
    gpus_per_run: int = 1
    one_machine: bool = True
    """Are all of them on one machine?"""


class Engine(Protocol):
    """Between `__enter__` and `__exit__` it carries runs."""

    room: Room
    talk: TextIO
    """Where people are spoken to."""

    def __enter__(self) -> Engine: ...

    def __exit__(self, *fault: object) -> None: ...

    def carry(self, group: Sequence[Job], board: Board, lock: int) -> None:
        """Do what can be done for the runs of a stage, and set their states. `lock` is the descriptor of the
        sweep's lock, which a process that may outlive this one has to hold as well."""


def engine_of(config: SweepFlags, jobs: Sequence[Job]) -> Engine:
    """The engine of --on. InputError for flags that it cannot take, or where it is not installed."""
    if config.gpus_per_run > 1 and (config.per_gpu or 1) > 1:
        raise InputError(
            f"--gpus-per-run {config.gpus_per_run} with --per-gpu {config.per_gpu}: a run has several GPUs of"
            " its own, or a part of one"
        )
    if config.ray_address is not None and config.on != "ray":
        raise InputError(f"--ray-address {config.ray_address}: only with --on=ray")
    if config.mps and config.on != "local":
        raise InputError(f"--mps: only with --on=local, not with --on={config.on}")
    if config.mps and config.gpus_per_run > 1:
        raise InputError(f"--mps with --gpus-per-run {config.gpus_per_run}: such runs do not share a GPU")
    return ENGINES[config.on](config, jobs)


def _local(config: SweepFlags, jobs: Sequence[Job]) -> Engine:
    from hackward.scheduling.local import LocalEngine

    return LocalEngine(config, jobs)


def _ray(config: SweepFlags, jobs: Sequence[Job]) -> Engine:
    if importlib.util.find_spec("ray") is None:
        from hackward.runs.tracking import pinned

        raise InputError(f"--on=ray needs Ray: pip install {pinned('ray')}")
    from hackward.scheduling.cluster import RayEngine

    return RayEngine(config, jobs)


def _print(config: SweepFlags, jobs: Sequence[Job]) -> Engine:
    from hackward.scheduling.printed import PrintEngine

    return PrintEngine(config, jobs)


ENGINES: dict[str, Callable[[SweepFlags, Sequence[Job]], Engine]] = {
    "local": _local,
    "ray": _ray,
    "print": _print,
}
