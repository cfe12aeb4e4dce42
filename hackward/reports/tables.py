"""A table once, shown three ways: on the terminal, as markdown, as csv.

A report is a list of headings, tables and texts.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rich.box
import rich.table
from rich.text import Text

from hackward.base.files import atomic, printable
from hackward.base.screen import stdout
from hackward.base.statistics import Comparison, Estimate, Range
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
    TOO_FEW,
    UNDEFINED,
    UNTESTABLE,
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


SHORT_CELL = 16
BETWEEN = 2  # columns: padding, and the divider of the box
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
    TOO_FEW: "yellow",
}


def colour_of(cell: str) -> str:
    """The colour of a verdict, with or without a reason behind a colon; "" for any other cell."""
    return VERDICT_COLOURS.get(cell.partition(":")[0], "")


def print_blocks(blocks: Sequence[Block]) -> None:
    """To the terminal at its width; piped, at the width of screen.stdout."""
    console = stdout(markup=False, emoji=False, highlight=False)
    for block in blocks:
        if isinstance(block, Heading):
            console.rule(Text(block.text, style="bold"), align="left")
        elif isinstance(block, Table):
            console.print(rich_table(block, console.width))
        else:
            for line in printable(block).split("\n"):
                console.print(line, soft_wrap=line.startswith(INDENT))  # commands and paths stay in one piece
            console.print()


def rich_table(table: Table, width: int) -> rich.table.Table:
    """For a terminal of this width, in columns: numbers and short names stay on one line, sentences wrap.

    Short cells keep to one line, under a stacked header, only where all columns of them fit beside each
    other: figures are never cut off.
    """
    drawn = rich.table.Table(
        title=table.title,
        title_justify="left",
        title_style="bold",
        box=rich.box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    lines = table.cells()
    headers = [header for header, _ in table.columns]
    widths = [max(len(line[place]) for line in lines) for place in range(len(headers))]
    needed = sum(
        min(max(widest, _longest_word(header)), SHORT_CELL) + BETWEEN
        for widest, header in zip(widths, headers, strict=True)
    )
    fits = needed + 2 <= width
    for widest, header in zip(widths, headers, strict=True):
        short = fits and widest <= SHORT_CELL
        stacked = header.replace(" ", "\n") if short and len(header) > widest else header
        drawn.add_column(stacked, overflow="fold", no_wrap=short)
    for line in lines:
        if table.sections and line[0]:
            drawn.add_section()
        drawn.add_row(*(Text(printable(cell), style=colour_of(cell)) for cell in line))
    return drawn


def _longest_word(text: str) -> int:
    return max(map(len, text.split()), default=0)


def markdown(blocks: Sequence[Block], pictures: Sequence[str]) -> str:
    parts = ["# Report"]
    for block in blocks:
        if isinstance(block, Heading):
            parts.append(f"## {block.text}")
        elif isinstance(block, Table):
            parts.append(f"### {block.title}\n\n{_markdown_table(block)}")
        else:
            parts.append(f"```\n{block}\n```")
    parts += ["## Pictures", *(f"![{name}]({name})" for name in pictures)]
    return "\n\n".join(parts) + "\n"


def _markdown_table(table: Table) -> str:
    lines = [[header for header, _ in table.columns], ["---"] * len(table.columns)]
    lines += [[cell.replace("|", "\\|") for cell in line] for line in table.cells()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write_csv(path: Path, records: Sequence[Record]) -> None:
    """Raw figures; an undefined one is an empty cell. Nested values have their own columns already."""
    keys = [key for key, value in records[0].items() if not isinstance(value, (Estimate, Comparison))]
    lone = "backslashreplace"  # surrogates, which UTF-8 cannot carry
    with atomic(path) as temporary, open(temporary, "w", newline="", encoding="utf-8", errors=lone) as stream:
        writer = csv.DictWriter(stream, keys, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(records)
