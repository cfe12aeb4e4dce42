"""What a person sees while the program works: bars on a terminal, plain lines in a log, and the final screen
of a run.

On a terminal, and where $COLUMNS says how wide one is, lines are broken between words; in any other log a
line stays one line.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

from hackward.base.faults import Unread, readers_gone
from hackward.base.lines import shell_lines, visible
from hackward.base.terminal import flowed

PLAIN: dict[str, Any] = {"markup": False, "emoji": False, "highlight": False}  # brackets are brackets


class OpenConsole(Console):
    """Tells the command that its reader has gone; rich would end the process."""

    def on_broken_pipe(self) -> None:
        readers_gone()
        raise Unread


STDERR = OpenConsole(stderr=True, **PLAIN)
PIPED = 120  # columns of a table in a log
SPEED_WINDOW = 3600.0  # seconds that the remaining time is guessed from: several steps of minutes
CLOCK = time.monotonic
BAR, SHORTEST_BAR = 24, 6  # columns
FIGURES = 34  # columns of a bar's count and times: 12345/12345 0:00:00 0:00:00, and what lies between
COMMAND = "  python "  # how a line begins that is a command to be copied


def stdout() -> Console:
    """Standard output at the terminal's width; in a pipe at $COLUMNS, or at PIPED."""
    known = sys.stdout.isatty() or _told_width()
    return OpenConsole(width=None if known else PIPED, **PLAIN)


def _told_width() -> bool:
    return os.environ.get("COLUMNS", "").isdigit()


def _room(console: Console) -> int | None:
    """The columns that a line may take; None where a line stays one line."""
    return console.width if console.is_terminal or _told_width() else None


def say(*facts: str, console: Console | None = None, between: str = "  ", head: str = "") -> None:
    """Facts on a line, on as many as the console's width asks for; those below the first are indented by the
    head's width. On stderr, unless another console is named."""
    console = console or STDERR
    width = _room(console)
    shown = [visible(fact) for fact in facts]
    if width is None:
        lines = [between.join(shown)]
    elif len(shown) == 1 and shown[0].startswith(COMMAND):
        lines = shell_lines(shown[0], width)
    else:
        lines = flowed(shown, between, max(1, width - len(head)))
    text = head + ("\n" + " " * len(head)).join(lines)
    console.print(text, soft_wrap=True, **PLAIN)


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
        self(0)  # rich forgets when the work began, which the remaining time is guessed from

    def track(self, items: Sequence) -> Iterator:
        self.total(len(items))
        for item in items:
            yield item
            self()

    def stop(self) -> None:
        """Take the bar away before something that must stand by itself; it does not come back."""
        self._bar.stop()

    def print(self, *facts: str, head: str = "") -> None:
        """A line that stays, above the bar; see `say`."""
        say(*facts, head=head)


class _Lines(Progress):
    """The bar on a line of its own, so that no note, however long, cuts its figures; the note below it."""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        for task in self.tasks:
            if task.fields["note"]:
                yield Text(f"  {visible(task.fields['note'])}")


def _columns(title: str) -> list[ProgressColumn]:
    """On a narrow terminal the bar gives way, then the title goes onto two lines; figures stay whole."""
    whole: dict[str, Any] = {"table_column": Column(no_wrap=True)}
    figures = [MofNCompleteColumn(**whole), TimeElapsedColumn(**whole), TimeRemainingColumn(**whole)]
    room = min(BAR, STDERR.width - cell_len(title) - FIGURES)
    bar = [BarColumn(bar_width=room)] if room >= SHORTEST_BAR else []
    return [TextColumn("{task.description}", markup=False, table_column=Column()), *bar, *figures]


@contextlib.contextmanager
def progress(title: str, total: int | None = None, done: int = 0) -> Iterator[Bar]:
    """A live bar on stderr where that is a terminal; in a log, one line when the work is done.

    `done`: what was finished before, by which the remaining time is not guessed.
    """
    started = CLOCK()
    live = _Lines(
        *_columns(title),
        console=STDERR,
        transient=True,
        disable=not STDERR.is_terminal,
        speed_estimate_period=SPEED_WINDOW,
        get_time=CLOCK,
        redirect_stdout=sys.stdout.isatty(),  # what goes to a file or a pipe is no part of the screen
    )
    screen = sys.stderr
    with live, _logs_moved(screen, sys.stderr):
        task = live.add_task(title, total=total, completed=done, note="")
        live.advance(task, 0)  # from here on the remaining time is guessed
        yield Bar(live, task)
    if not STDERR.is_terminal:
        say(f"{title}: {CLOCK() - started:.1f} s")


@contextlib.contextmanager
def _logs_moved(old: Any, new: Any) -> Iterator[None]:
    """What libraries log to the one stream goes to the other: a handler keeps the stderr that it was made
    with, and would write into the middle of a live bar."""
    moved = []
    for logger in [logging.getLogger(), *logging.root.manager.loggerDict.values()]:
        for handler in getattr(logger, "handlers", ()):
            if isinstance(handler, logging.StreamHandler) and handler.stream is old and old is not new:
                handler.setStream(new)
                moved.append(handler)
    try:
        yield
    finally:
        for handler in moved:
            handler.setStream(old)


def show(value: Any, digits: int = 3) -> str:
    """A number for people; what is undefined says so."""
    if value is None:
        return "undefined"
    return f"{value:+.{digits}f}" if isinstance(value, float) else str(value)


def final_screen(sections: Mapping[str, Sequence[str]], console: Console) -> None:
    """The end of a run on one terminal: a word a section, its facts separated by bars."""
    console.print()
    for name, facts in sections.items():
        say(*(fact for fact in facts if fact), console=console, between=" | ", head=f"{name:<8}")
