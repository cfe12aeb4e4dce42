"""The live table of a sweep."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Group
from rich.live import Live

from hackward.base.screen import say, stdout
from hackward.base.terminal import drawn
from hackward.reports.words import plain
from hackward.scheduling.jobs import Job

HEADERS = ("run", "state", "step", "hacked", "solved", "s/step", "left", "note")


class Board:
    """One live table on a terminal; elsewhere a line whenever a run changes its state."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.jobs = jobs
        self.console = stdout()
        self.live: Live | None = None
        if self.console.is_terminal:
            self.live = Live(console=self.console, get_renderable=self.table, refresh_per_second=2)

    def table(self) -> Group:
        """One row per run, with the figures of the last step of those that are running."""
        lines = []
        for job in self.jobs:
            rows = job.rows() if job.state == "running" else []
            figures = _figures(job, rows[-1]) if rows else ["-"] * 4
            lines.append([job.name, job.state, f"{job.step}/{job.steps}", *figures, job.note or "-"])
        return drawn("runs", HEADERS, lines, self.console.width)

    def say(self, text: str) -> None:
        """A line that stays, above the table."""
        say(text, console=self.console)

    def changed(self, job: Job) -> None:
        """The job has another state."""
        if self.live is None:
            note = f" ({job.note})" if job.note else ""
            self.say(
                f"{time.strftime('%H:%M:%S')} {job.name}: {job.state}, step {job.step}/{job.steps}{note}"
            )

    def __enter__(self) -> Board:
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *fault: object) -> None:
        if self.live:
            self.live.stop()


def _figures(job: Job, row: dict) -> list[str]:
    """Hacked, solved, seconds of a step and minutes left, by a run's last row."""
    rates = [plain(row[key]) if key in row else "" for key in ("hack_rate", "gt_rate")]
    return [*rates, f"{row['seconds']:.1f}", f"{job.left * row['seconds'] / 60:.0f} min"]
