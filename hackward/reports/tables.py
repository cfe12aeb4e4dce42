"""A table once, shown three ways: on the terminal, as markdown, as csv. A report is a list of headings, tables and texts."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import rich.table
from rich.text import Text

from hackward.base.files import atomic
from hackward.base.screen import stdout
from hackward.base.statistics import Comparison, Estimate
from hackward.reports.h1_verdict import INCONCLUSIVE, REFUTED, SUPPORTED, UNTESTABLE
from hackward.reports.words import FAIL, PASS, SNEAKY, UNDEFINED, null_words, signed


@dataclass(frozen=True)
class Table:
    """Records with raw figures (they go to NAME.csv) and, a column, how a record is shown."""

    name: str
    title: str
    columns: tuple[tuple[str, Callable[[dict], str]], ...]
    records: list[dict]
    sections: bool = (
        False  # the first column names a section: it is shown once, with a line below the section
    )

    def cells(self) -> list[list[str]]:
        lines = [[show(record) for _, show in self.columns] for record in self.records]
        repeated = [
            self.sections and index > 0 and line[0] == lines[index - 1][0] for index, line in enumerate(lines)
        ]
        return [["", *line[1:]] if again else line for line, again in zip(lines, repeated, strict=True)]


@dataclass(frozen=True)
class Heading:
    text: str


Block = Table | Heading | str


# ---------------------------------------------------------------------------------------------- cells
def shown(key: str, form: Callable = str) -> Callable[[dict], str]:
    return lambda record: form(record[key])


def flat(found: Estimate | Comparison, prefix: str = "") -> dict:
    """Raw figures of an estimate as csv columns."""
    return {prefix + key: value for key, value in vars(found).items()}


def flat_null(null: tuple[float, float] | None, prefix: str) -> dict:
    """A null range as csv columns."""
    low, high = null or (None, None)
    return {f"{prefix}_null_low": low, f"{prefix}_null_high": high}


def cosine_columns(names: Sequence[str]) -> tuple[tuple[str, Callable[[dict], str]], ...]:
    """For each cosine its value and, beside it, its null (`flat_null`); where the one is undefined there is no other."""

    def null_cell(name: str) -> Callable[[dict], str]:
        ends = lambda record: (record[f"{name}_null_low"], record[f"{name}_null_high"])  # noqa: E731
        return lambda record: (
            "-" if record[name] is None else null_words(None if None in ends(record) else ends(record))
        )

    return tuple(
        column for name in names for column in ((name, shown(name, signed)), ("its null", null_cell(name)))
    )


# ---------------------------------------------------------------------------------------------- terminal, markdown, csv
SHORT_CELL = 16
INDENT = "  "
COLOURS = {
    PASS: "green",
    FAIL: "red",
    SNEAKY: "magenta",
    UNDEFINED: "yellow",
    SUPPORTED: "green",
    REFUTED: "red",
    INCONCLUSIVE: "yellow",
    UNTESTABLE: "yellow",
}


def print_blocks(blocks: Sequence[Block]) -> None:
    """To the terminal at its width; piped, at the width of screen.stdout."""
    console = stdout(markup=False, emoji=False, highlight=False)
    for block in blocks:
        if isinstance(block, Heading):
            console.rule(Text(block.text, style="bold"), align="left")
        elif isinstance(block, str):
            for line in block.split("\n"):
                console.print(line, soft_wrap=line.startswith(INDENT))  # commands and paths stay in one piece
            console.print()
        else:
            console.print(rich_table(block, console.width))


def rich_table(table: Table, width: int) -> rich.table.Table:
    """For a terminal of this width: figures stay on one line if all columns of figures fit beside each other, and are never cut off."""
    drawn = rich.table.Table(
        title=table.title,
        title_justify="left",
        title_style="bold",
        box=rich.box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    lines = table.cells()
    widths = [max(len(line[place]) for line in lines) for place in range(len(table.columns))]
    least = (
        sum(
            min(max(widest, longest_word(header)), SHORT_CELL) + 1
            for widest, (header, _) in zip(widths, table.columns, strict=True)
        )
        + 2
    )
    for widest, (header, _) in zip(widths, table.columns, strict=True):
        short = (
            widest <= SHORT_CELL and least <= width
        )  # numbers and short names stay on one line under a stacked header; sentences wrap
        stacked = header.replace(" ", "\n") if short and len(header) > widest else header
        drawn.add_column(stacked, overflow="fold", no_wrap=short)
    for line in lines:
        if table.sections and line[0]:
            drawn.add_section()
        drawn.add_row(*(Text(cell, style=COLOURS.get(cell, "")) for cell in line))
    return drawn


def longest_word(text: str) -> int:
    return max(map(len, text.split()), default=0)


def markdown(blocks: Sequence[Block], pictures: Sequence[str]) -> str:
    parts = ["# Report"]
    for block in blocks:
        if isinstance(block, Heading):
            parts.append(f"## {block.text}")
        elif isinstance(block, str):
            parts.append("```\n" + block + "\n```")
        else:
            lines = [[header for header, _ in block.columns], ["---"] * len(block.columns)]
            lines += [[cell.replace("|", "\\|") for cell in line] for line in block.cells()]
            parts.append(
                f"### {block.title}\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines)
            )
    parts += ["## Pictures", *(f"![{name}]({name})" for name in pictures)]
    return "\n\n".join(parts) + "\n"


def write_csv(path: Path, records: Sequence[dict]) -> None:
    """Raw figures; an undefined one is an empty cell. Nested values have their own columns already."""
    keys = [key for key, value in records[0].items() if not isinstance(value, (Estimate, Comparison))]
    with atomic(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, keys, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(records)
