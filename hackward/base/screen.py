"""What a person sees while the program works: bars on a terminal, plain lines in a log, and the final screen
of a run."""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

STDERR = Console(stderr=True)
SPEED_WINDOW = 3600.0  # seconds that the remaining time is guessed from: several steps of minutes


def stdout(**options: Any) -> Console:
    """Standard output at the terminal's width; piped, at $COLUMNS (120 when unset, at least 100), since rich
    falls back to 80 and tables need more."""
    width = None if sys.stdout.isatty() else max(100, shutil.get_terminal_size((120, 40)).columns)
    return Console(width=width, **options)


class Bar:
    """A progress bar that can be called with a count, told a text, or wrapped around a list."""

    def __init__(self, bar: Progress, task: Any) -> None:
        self._bar, self._task = bar, task

    def __call__(self, count: int = 1) -> None:
        self._bar.advance(self._task, count)

    def say(self, text: str) -> None:
        self._bar.update(self._task, note=text)

    def total(self, count: int) -> None:
        """How many there will be, where that is only known once the work has begun."""
        self._bar.update(self._task, total=count)

    def track(self, items: Sequence) -> Iterator:
        self._bar.update(self._task, total=len(items))
        for item in items:
            yield item
            self()

    def stop(self) -> None:
        """Take the bar away before something that must stand by itself; it does not come back."""
        self._bar.stop()

    def print(self, text: str) -> None:
        """A line that stays, above the bar."""
        self._bar.console.print(text, highlight=False, soft_wrap=True)


@contextlib.contextmanager
def progress(title: str, total: int | None = None) -> Iterator[Bar]:
    """A live bar on stderr where that is a terminal; in a log, one line when the work is done."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    started = time.monotonic()
    live = Progress(
        *columns,
        console=STDERR,
        transient=True,
        disable=not STDERR.is_terminal,
        speed_estimate_period=SPEED_WINDOW,
        redirect_stdout=sys.stdout.isatty(),  # what goes to a file or a pipe is no part of the screen
    )
    with live as bar:
        yield Bar(bar, bar.add_task(title, total=total, note=""))
    if not STDERR.is_terminal:
        STDERR.print(f"{title}: {time.monotonic() - started:.1f} s", highlight=False)


def show(value: Any, digits: int = 3) -> str:
    """A number for people; what is undefined says so."""
    if value is None:
        return "undefined"
    return f"{value:+.{digits}f}" if isinstance(value, float) else str(value)


def final_screen(sections: Mapping[str, Sequence[str]], console: Console) -> None:
    """The end of a run on one terminal: a word a section, its facts separated by bars."""
    console.print()
    for name, facts in sections.items():
        console.print(
            f"{name:<8}" + " | ".join(fact for fact in facts if fact),
            highlight=False,
            soft_wrap=True,
            markup=False,
        )
