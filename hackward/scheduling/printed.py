"""Nothing runs here: one resumable command per run, for another scheduler."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from hackward.base.faults import InputError
from hackward.scheduling.board import Board
from hackward.scheduling.commands import line
from hackward.scheduling.engines import Room
from hackward.scheduling.flags import SweepFlags
from hackward.scheduling.jobs import Job


class PrintEngine:
    """Writes the commands of a stage to standard output, and all else to standard error."""

    def __init__(self, config: SweepFlags, jobs: Sequence[Job]) -> None:
        """InputError for --per-gpu: how many runs share a GPU is the other scheduler's affair."""
        if config.per_gpu is not None:
            raise InputError(f"--per-gpu {config.per_gpu} with --on=print: the scheduler decides that")
        at_once = config.jobs or len(jobs)
        words = f"with --jobs={config.jobs}" if config.jobs else "with all runs of a stage at once"
        self.room = Room(at_once, words, 1, config.gpus_per_run, one_machine=False)
        self.out, self.talk = sys.stdout, sys.stderr
        self.lines: list[str] = []

    def __enter__(self) -> PrintEngine:
        return self

    def __exit__(self, *fault: object) -> None:
        """The lines come last, when no live table is drawn any more."""
        for text in self.lines:
            print(text, file=self.out)

    def carry(self, group: Sequence[Job], board: Board, lock: int) -> None:
        """Print what is not done."""
        for job in group:
            if job.state != "done":
                self.lines.append(line(job, self.room.gpus_per_run))
                job.state = "printed"
                board.changed(job)
