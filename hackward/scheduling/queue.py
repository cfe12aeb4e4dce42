"""Runs that go at the same time, on whatever machine: started in order, watched, settled, interrupted."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from hackward.scheduling.board import Board
from hackward.scheduling.jobs import Job, finished, made_all

POLL = 0.5  # seconds between looks at the runs
GRACE = 30.0  # seconds for a run to end by itself when interrupted


class Started(Protocol):
    """A run that was started."""

    @property
    def job(self) -> Job: ...

    def begun(self) -> bool:
        """Does it run, and not only wait for its turn?"""

    def code(self) -> int | None:
        """Its exit code; None while it has not ended."""

    def interrupt(self) -> None:
        """Ask it to end, as Ctrl-C would."""

    def end(self, seconds: float) -> None:
        """Wait so long for its end, then kill it. After a KeyboardInterrupt kill it at once."""


def carried(group: Sequence[Job], board: Board, start: Callable[[Job], Started], at_once: int) -> None:
    """Run what is not done, `at_once` at a time, in order. A run that fails does not stop the others."""
    waiting = [job for job in group if job.state != "done"]
    running: list[Started] = []
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                running.append(start(waiting.pop(0)))
                board.changed(running[-1].job)
            time.sleep(POLL)
            for run in running:
                _look(run, board)
            for run in [run for run in running if run.code() is not None]:
                running.remove(run)
                settle(run, board)
    finally:
        _interrupt(running, board)


def _look(run: Started, board: Board) -> None:
    run.job.step = max(run.job.step, len(run.job.rows()))
    if run.job.state == "queued" and run.begun():
        run.job.state = "running"
        board.changed(run.job)


def settle(run: Started, board: Board) -> None:
    """Record how a run ended: done only if its directory says so."""
    job, code = run.job, run.code()
    summary = finished(job.path) if code == 0 else None
    if summary is not None and made_all(job, summary):
        job.state, job.step, job.note = "done", summary["steps"], ""
    else:
        job.state, job.note = "failed", f"exit code {code}: {_last_line(job)}"
    board.changed(job)


def _last_line(job: Job) -> str:
    if not job.log.is_file():
        return "it printed nothing"
    return job.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1].strip()


def _interrupt(running: Sequence[Started], board: Board) -> None:
    """End the runs as Ctrl-C would, and wait for them; checkpoints stay.

    A run that does not end within GRACE is killed; so is every one after a second Ctrl-C.
    """
    for run in running:
        run.interrupt()
    for run in running:
        run.end(GRACE)
        run.job.state = "interrupted"
        board.changed(run.job)
