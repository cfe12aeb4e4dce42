"""Runs as processes on this machine: so many on each of its GPUs; without a GPU --jobs at a time."""

from __future__ import annotations

import math
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from hackward.base.faults import InputError
from hackward.base.flags import has_gpu
from hackward.hardware.cards import visible_cards
from hackward.hardware.cores import share_of_cores, threads_at_once
from hackward.hardware.mps import at_the_same_time, check_installed
from hackward.scheduling.board import Board
from hackward.scheduling.commands import command, going_on
from hackward.scheduling.engines import Room
from hackward.scheduling.flags import SweepFlags
from hackward.scheduling.jobs import Job
from hackward.scheduling.queue import carried

Cards = tuple[str, ...]  # of one run, as CUDA_VISIBLE_DEVICES names them


@dataclass(frozen=True)
class Process:
    """A run as a process."""

    job: Job
    process: subprocess.Popen
    cards: Cards | None

    def begun(self) -> bool:
        """A process runs as soon as it is there."""
        return True

    def code(self) -> int | None:
        return self.process.poll()

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def end(self, seconds: float) -> None:
        try:
            self.process.wait(seconds)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            self.process.kill()
            self.process.wait()


def are_dealt(jobs: Sequence[Job]) -> bool:
    """Are the runs spread over GPUs? A run that names its device, cpu or cuda:1, is left there."""
    return all(job.settings.device in ("auto", "cuda") for job in jobs)


def places_of(config: SweepFlags, jobs: Sequence[Job]) -> list[Cards]:
    """The GPUs of this machine in parts of --gpus-per-run; empty where the runs take none.

    InputError for flags about GPUs where there are none, or too few.
    """
    several = config.gpus_per_run
    cards = visible_cards() if are_dealt(jobs) and has_gpu() else []
    if len(cards) < several and several > 1:
        raise InputError(f"--gpus-per-run {several}: the runs can take {len(cards)} GPUs of this machine")
    if not cards and config.per_gpu is not None:
        raise InputError(
            f"--per-gpu {config.per_gpu}: the runs take no GPU here; --jobs says how many go at once"
        )
    whole = len(cards) - len(cards) % several
    return [tuple(cards[first : first + several]) for first in range(0, whole, several)]


def take_gpus(jobs: Sequence[Job], places: Sequence[Cards]) -> bool:
    """Do runs compute on GPUs of this machine: on those that are dealt out, or on one that --device names?"""
    if are_dealt(jobs):
        return bool(places)
    return has_gpu() and any(job.settings.device != "cpu" for job in jobs)


def room_of(config: SweepFlags, jobs: Sequence[Job], places: Sequence[Cards]) -> Room:
    """How many runs go at once on these GPUs; without any, --jobs of them."""
    if not places:
        at_once = config.jobs or 1
        # Runs that name a card are all on that one.
        return Room(at_once, f"with --jobs={at_once}", per_gpu=at_once)
    from hackward.scheduling.fits import per_card  # loads torch

    several = config.gpus_per_run
    per_gpu = per_card(config, jobs, len(places))
    at_once = min(config.jobs or sys.maxsize, per_gpu * len(places))
    words = f"on {len(places) * several} GPUs, {per_gpu} runs on each"
    if several > 1:
        words = f"on {len(places) * several} GPUs, {several} for each run"
    if at_once < per_gpu * len(places):
        words += f", with --jobs={at_once}"
    return Room(at_once, words, per_gpu, several)


def graders(job: Job, processes: int) -> list[str]:
    """The flag by which so many processes at once share this machine's cores out: each by itself would take a
    grader a core."""
    if processes == 1 or job.settings.workers is not None:
        return []
    return [f"--workers={share_of_cores(processes)}"]


def on_one_node(cpus: float, gpus: float, *, share: float, several: int, most: int) -> int:
    """How many processes of a sweep a node has at once: of `most` runs, each on a CPU and a `share` of a GPU
    (which may be 0), of `several` processes."""
    room = min(cpus, gpus / share) if share else cpus
    return several * max(1, min(most, math.floor(room + 1e-6)))


class LocalEngine:
    """Fills the GPUs of this machine."""

    def __init__(self, config: SweepFlags, jobs: Sequence[Job]) -> None:
        self.places = places_of(config, jobs)
        self.room = room_of(config, jobs, self.places)
        self.at_once = min(self.room.at_once, len(jobs))
        self.talk = sys.stdout
        self.running: list[Process] = []
        if config.mps and not take_gpus(jobs, self.places):
            raise InputError("--mps: the runs take no GPU here")
        if config.mps:
            check_installed()
        self.mps = config.mps
        self.stack = ExitStack()
        self.shared: dict[str, str] = {}

    def __enter__(self) -> LocalEngine:
        """InputError where --mps cannot be had."""
        if self.mps:
            self.shared = self.stack.enter_context(at_the_same_time())
        return self

    def __exit__(self, *fault: object) -> None:
        self.stack.close()

    def carry(self, group: Sequence[Job], board: Board, lock: int) -> None:
        """Run them, and wait for their ends."""
        carried(group, board, lambda job: self._start(job, board, lock), self.room.at_once)

    def _start(self, job: Job, board: Board, lock: int) -> Process:
        """Start the run's process. Its log lies beside its directory, which must be new."""
        self.running = [run for run in self.running if run.code() is None]
        cards = self._emptiest()
        more = going_on(job, board.say)
        whole = [*command(job, self.room.gpus_per_run), *graders(job, self._processes), *more]
        place = {} if cards is None else {"CUDA_VISIBLE_DEVICES": ",".join(cards)}
        threads = threads_at_once(self._processes, on_gpu=bool(self.places))
        own = threads | self.shared | place
        with open(job.log, "a", encoding="utf-8") as log:
            log.write(f"$ {shlex.join(whole)}\n")
            log.flush()
            # Its own session: Ctrl-C reaches this process alone, which then ends the runs. It holds the lock
            # as well, so that no other sweep touches the directory while a run goes on, even when this
            # process was killed.
            process = subprocess.Popen(
                whole,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=(lock,),
                env=os.environ | own,
            )
            run = Process(job, process, cards)
            self.running.append(run)
        job.state, job.note = "running", "resumed" if more else ""
        return run

    @property
    def _processes(self) -> int:
        """Of all runs at once."""
        return self.at_once * self.room.gpus_per_run

    def _emptiest(self) -> Cards | None:
        """The GPUs with the fewest runs, the first of them; None where the runs take none."""
        if not self.places:
            return None
        return min(self.places, key=lambda cards: sum(run.cards == cards for run in self.running))
