"""A table once, shown three ways: on the terminal, as markdown, as csv.

A report is a list of headings, tables and texts.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.cells import cell_len
from rich.console import Console, Group
from rich.text import Text

from hackward.base.files import atomic
from hackward.base.lines import shell_lines
from hackward.base.markdown import fenced, plain_line
from hackward.base.markdown import table as markdown_table
from hackward.base.screen import COMMAND, stdout
from hackward.base.statistics import Comparison, Estimate, Range
from hackward.base.terminal import drawn, flowed, visible
from hackward.reports.words import (
    ALTERNATES,
    DELAY,
    FAIL,
    INCONCLUSIVE,
    NEITHER,
    NOT_ATTRIBUTABLE,
    PASS,
    PREVENTION,
    REFUTED,
    SNEAKY,
    SUPPORTED,
    UNDEFINED,
    UNTESTABLE,
    UNTOLD,
    null_words,
    signed,
)

Record = dict[str, Any]  # of a table: raw figures by name
Column = tuple[str, Callable[[Record], str]]  # header, how a record is shown


@dataclass(frozen=True)
class Table:
    """Records with raw figures (they go to NAME.csv) and, for each column, how a record is shown."""

    name: str
    title: str
    columns: tuple[Column, ...]
    records: list[Record]
    sections: bool = False
    """The first column names a section: it is shown once, with a line below the section."""

    def cells(self) -> list[list[str]]:
        lines: list[list[str]] = []
        section = None
        for record in self.records:
            first, *rest = (show(record) for _, show in self.columns)
            lines.append(["" if self.sections and first == section else first, *rest])
            section = first
        return lines


@dataclass(frozen=True)
class Heading:
    """Begins a section of a report."""

    text: str


class Conclusion(str):
    """A text that says what its section comes to; the page of the report begins with it."""


class Caveat(str):
    """A text that says what a reader must not conclude; the page of the report shows it beside."""


Block = Table | Heading | str


def shown(key: str, form: Callable[[Any], str] = str) -> Callable[[Record], str]:
    return lambda record: form(record[key])


def dashed(form: Callable[[Any], str]) -> Callable[[Any], str]:
    """The form, with a dash for what is not there."""
    return lambda value: "-" if value is None else form(value)


def flat(found: Estimate | Comparison, prefix: str = "") -> Record:
    """Raw figures of an estimate as csv columns."""
    return {prefix + key: value for key, value in vars(found).items()}


def flat_null(null: Range | None, prefix: str) -> Record:
    """A null range as csv columns."""
    low, high = null or (None, None)
    return {f"{prefix}_null_low": low, f"{prefix}_null_high": high}


def cosine_columns(names: Sequence[str]) -> tuple[Column, ...]:
    """For each cosine its value and its null (`flat_null`); where the one is undefined there is no other."""
    columns: list[Column] = []
    for name in names:
        columns += [(name, shown(name, signed)), ("its null", _null_cell(name))]
    return tuple(columns)


def _null_cell(name: str) -> Callable[[Record], str]:
    def cell(record: Record) -> str:
        low, high = record[f"{name}_null_low"], record[f"{name}_null_high"]
        if record[name] is None:
            return "-"
        return null_words(None if low is None or high is None else (low, high))

    return cell


INDENT = "  "
VERDICT_COLOURS = {
    PASS: "green",
    FAIL: "red",
    SNEAKY: "magenta",
    ALTERNATES: "magenta",
    UNDEFINED: "yellow",
    SUPPORTED: "green",
    REFUTED: "red",
    INCONCLUSIVE: "yellow",
    UNTESTABLE: "yellow",
    NOT_ATTRIBUTABLE: "red",
    PREVENTION: "green",
    DELAY: "yellow",
    NEITHER: "red",
    UNTOLD: "yellow",
}


def colour_of(cell: str) -> str:
    """The colour of a verdict, with or without a reason behind a colon; "" for any other cell."""
    return VERDICT_COLOURS.get(cell.partition(":")[0], "")


def print_blocks(blocks: Sequence[Block]) -> None:
    """To the terminal at its width; piped, at the width of screen.stdout."""
    console = stdout()
    for block in blocks:
        if isinstance(block, Heading):
            print_heading(visible(block.text), console)
        elif isinstance(block, Table):
            console.print(rich_table(block, console.width))
        else:
            for line in block.split("\n"):
                print_line(line, console)
            console.print()


def print_heading(text: str, console: Console) -> None:
    """With a rule behind it where there is room for one."""
    if cell_len(text) + 2 < console.width:
        console.rule(Text(text, style="bold"), align="left")
    else:
        console.print(Text("\n".join(flowed([text], "", console.width)), style="bold"))


def print_line(line: str, console: Console) -> None:
    """A line of a text, filled; a command on as many lines as a shell still reads as one."""
    shown = visible(line)
    if shown.startswith(COMMAND):
        lines = shell_lines(shown, console.width)
    else:
        indent = INDENT if shown.startswith(INDENT) else ""
        lines = [f"{indent}{part}" for part in flowed([shown.strip()], "", console.width - len(indent))]
    console.print("\n".join(lines), soft_wrap=True)


def rich_table(table: Table, width: int) -> Group:
    """For a terminal of this width (reports/terminal.py): no figure cut off, no word broken."""
    headers = [header for header, _ in table.columns]
    return drawn(table.title, headers, table.cells(), width, sections=table.sections, colour=colour_of)


def markdown(blocks: Sequence[Block], pictures: Sequence[str]) -> str:
    parts = ["# Report"]
    for block in blocks:
        if isinstance(block, Heading):
            parts.append(f"## {plain_line(block.text)}")
        elif isinstance(block, Table):
            title, headers = plain_line(block.title), [header for header, _ in block.columns]
            parts.append(f"### {title}\n\n{markdown_table(headers, block.cells())}")
        else:
            parts.append(fenced(block))
    parts += ["## Pictures", *(f"![{name}]({name})" for name in pictures)]
    return "\n\n".join(parts) + "\n"


def write_csv(path: Path, records: Sequence[Record]) -> None:
    """Raw figures; an undefined one is an empty cell. Nested values have their own columns already."""
    keys = [key for key, value in records[0].items() if not isinstance(value, (Estimate, Comparison))]
    lone = "backslashreplace"  # surrogates, which UTF-8 cannot carry
    with atomic(path) as temporary, open(temporary, "w", newline="", encoding="utf-8", errors=lone) as stream:
        writer = csv.DictWriter(stream, keys, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(records)
