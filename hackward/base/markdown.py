"""Text for the tables and fences of a markdown file, which names and messages of others must not break."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from hackward.base.lines import visible

TAG = re.compile(r"<(?=[A-Za-z/!?])")
TICKS = re.compile(r"`{3,}")


def plain_line(text: object) -> str:
    """The text on one line, with what would begin a tag escaped."""
    return TAG.sub(r"\\<", visible(" ".join(str(text).split())))


def cell(text: object) -> str:
    """The text as one cell of a table: a bar in it is a bar, not the cell's end."""
    return plain_line(str(text).replace("\\", "\\\\").replace("|", "\\|"))


def row(cells: Iterable[object]) -> str:
    return f"| {' | '.join(map(cell, cells))} |"


def table(headers: Sequence[str], rows: Iterable[Iterable[object]]) -> str:
    """Two headings may be the same."""
    return "\n".join([row(headers), row(["---"] * len(headers)), *map(row, rows)])


def aligned_table(columns: Mapping[str, str], rows: Iterable[Iterable[object]]) -> str:
    """`columns`: heading -> its alignment, as `--:`."""
    return "\n".join([row(columns), f"|{'|'.join(columns.values())}|", *map(row, rows)])


def fenced(text: str) -> str:
    """The text as it is, between fences that are longer than any in it."""
    longest = max((len(found) for found in TICKS.findall(text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}\n{text}\n{fence}"
