"""A mirror of rows.jsonl in a tracker, for those who watch runs in one. rows.jsonl stays the record.

Each tracker is an extra of pyproject.toml and is imported only where --track names it. What goes wrong in one
while a run is under way costs a line of warning and the rest of the mirror, never the run.
"""

from __future__ import annotations

import contextlib
import importlib.util
import math
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from hackward.base.faults import InputError
from hackward.base.files import ROOT, sha256
from hackward.base.screen import say
from hackward.runs.rundir import RunDir

PROJECT = "hackward"  # where trackers with projects keep runs


class Tracker(Protocol):
    """Takes the numbers of one step after the other."""

    def log(self, step: int, numbers: dict[str, float]) -> None:
        """The numbers of a step, by their names in rows.jsonl."""

    def close(self) -> None:
        """No more steps will come."""


class TensorBoard:
    """Event files in the run's folder tensorboard/; `tensorboard --logdir` takes it or the folder of many
    runs."""

    def __init__(self, run: RunDir, first: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # A resumed run makes the steps from `first` on anew: those that are there already are taken back.
        self.writer = SummaryWriter(str(run.path / "tensorboard"), purge_step=first or None)

    def log(self, step: int, numbers: dict[str, float]) -> None:
        for name, value in numbers.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


class WithRun:
    """A tracker whose library has an object for the run, `run`."""

    run: Any

    def log(self, step: int, numbers: dict[str, float]) -> None:
        self.run.log(numbers, step=step)

    def close(self) -> None:
        self.run.finish()


class Trackio(WithRun):
    """A local database of trackio's, in its own place: `trackio show --project hackward`."""

    def __init__(self, run: RunDir, first: int) -> None:
        import trackio

        config = run.record["config"]
        self.run = trackio.init(project=PROJECT, name=name_of(run), config=config, resume="allow")


class Wandb(WithRun):
    """Weights & Biases: its own server, or with WANDB_MODE=offline the run's folder wandb/."""

    def __init__(self, run: RunDir, first: int) -> None:
        import wandb

        self.run = wandb.init(
            project=PROJECT,
            name=run.path.name,
            id=name_of(run),
            dir=str(run.path),
            config=run.record["config"],
            resume="allow",
            settings={"console": "off", "quiet": True},  # it would write into the bar
        )


TRACKERS: dict[str, Callable[[RunDir, int], Tracker]] = {
    "tensorboard": TensorBoard,
    "trackio": Trackio,
    "wandb": Wandb,
}


def name_of(run: RunDir) -> str:
    """A name that the run keeps when it is resumed, and that no other run has: directory and start."""
    started = str(run.record.get("started"))
    return f"{run.path.name}-{sha256(str(Path(run.path).resolve()), started)[:8]}"


def check_tracker(name: str) -> None:
    """InputError unless the package behind a --track is installed."""
    if name not in TRACKERS or importlib.util.find_spec(name) is not None:
        return
    raise InputError(f"--track={name}: the package {name} is not installed (pip install {pinned(name)})")


def pinned(extra: str) -> str:
    """What the extra of this name installs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return " ".join(project["optional-dependencies"][extra])


def numbers_of(row: dict[str, Any]) -> dict[str, float]:
    """What can be drawn over steps: rates, cosines, norms, seconds. What is undefined is left out."""
    found = {}
    for name, value in row.items():
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if number and math.isfinite(value) and name not in ("step", "seed"):
            found[name] = value
    return found


class Mirror:
    """The tracker of a run, if it has one, behind a wall: a fault of it ends the mirror and not the run."""

    def __init__(self, name: str, run: RunDir, first: int) -> None:
        self.name, self.tracker = name, None
        if name in TRACKERS:
            self.tracker = self._kept(lambda: TRACKERS[name](run, first))

    def log(self, row: dict[str, Any]) -> None:
        """The numbers of a line of rows.jsonl, at its step."""
        tracker = self.tracker
        if tracker is not None:
            self._kept(lambda: tracker.log(row["step"], numbers_of(row)))

    def close(self) -> None:
        if self.tracker is not None:
            self._kept(self.tracker.close)

    def _kept(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except (Exception, SystemExit) as fault:  # whatever a tracker raises
            self.tracker = None
            reason = " ".join(str(fault).split())[:160] or type(fault).__name__
            say(f"--track={self.name}: {reason}; the mirror ends here, the run goes on (rows.jsonl has all)")
            return None


@contextlib.contextmanager
def mirroring(name: str, run: RunDir, first: int) -> Iterator[Mirror]:
    """The mirror of a run from step `first` on, closed at the end, whatever ends it."""
    mirror = Mirror(name, run, first)
    try:
        yield mirror
    finally:
        mirror.close()
