"""A table on a terminal of a given width: no figure is cut off, no word is broken.

Columns shrink to their longest word, the widest first. Where even that is too wide the table is folded: its
columns go on in a further table below, which begins with the same first column and says that it goes on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import rich.box
import rich.table
from rich.cells import cell_len
from rich.console import Group
from rich.text import Text

from hackward.base.files import printable

BETWEEN = 2  # columns: padding, and the divider of the box
EDGES = 2  # left and right of the table
COMFORT = 16  # columns in which a cell of few words need not wrap
LONGEST = 24  # a piece beyond this is no figure and no word: a path, which may be broken anywhere
BREAKS = re.compile(r"(?<=/)(?=\w)|(?<=[a-z]-)(?=[a-z])")  # in a word: behind a slash or a hyphen
GOES_ON = "(the same table, further columns)"


def longest_piece(text: str) -> int:
    """The width below which a word of this text would be broken."""
    found = [cell_len(piece) for word in text.split() for piece in BREAKS.split(word)]
    return min(max(found, default=0), LONGEST)


def wrapped(text: str, width: int) -> str:
    """The text in lines of at most this width, where its words allow it."""
    lines = [""]
    for word in text.split():
        for place, piece in enumerate(BREAKS.split(word)):
            glue = " " if place == 0 and lines[-1] else ""
            if lines[-1] and cell_len(lines[-1] + glue + piece) > width:
                lines.append(piece)
            else:
                lines[-1] += glue + piece
    return "\n".join(lines)


def shrunk(natural: Sequence[int], smallest: Sequence[int], room: int) -> list[int]:
    """Widths that fit into `room` together, the widest shrunk first, none below its smallest."""
    widths = list(natural)
    while sum(widths) > room:
        able = [place for place in range(len(widths)) if widths[place] > smallest[place]]
        if not able:
            break
        widest = max(able, key=lambda place: widths[place])
        widths[widest] -= 1
    return widths


def folded(widths: Sequence[int], width: int, keys: int) -> list[list[int]]:
    """The columns of each part of a table; the first `keys` columns begin every part."""
    lead = list(range(keys))
    taken = EDGES + sum(widths[place] + BETWEEN for place in lead)
    parts, used = [list(lead)], taken
    for place in range(keys, len(widths)):
        need = widths[place] + BETWEEN
        if used + need > width and len(parts[-1]) > keys:
            parts.append(list(lead))
            used = taken
        parts[-1].append(place)
        used += need
    return parts


def drawn(
    title: str,
    headers: Sequence[str],
    lines: Sequence[Sequence[str]],
    width: int,
    *,
    sections: bool = False,
    colour: Callable[[str], str] = lambda cell: "",
) -> Group:
    """The table for a terminal of this width; `sections`: a line above each row with a first cell."""
    columns = [[header, *(line[place] for line in lines)] for place, header in enumerate(headers)]
    smallest = [max(map(longest_piece, column)) for column in columns]
    natural = []
    for header, *cells in columns:
        natural.append(max(longest_piece(header), *(cell_len(cell) for cell in cells), 1))
    everything = list(range(len(headers)))
    parts = [everything]
    if sum(smallest) + BETWEEN * len(headers) + EDGES > width:
        comfortable = [max(least, min(most, COMFORT)) for least, most in zip(smallest, natural, strict=True)]
        parts = folded(comfortable, width, 2 if sections else 1)
    tables = []
    for number, part in enumerate(parts):
        room = width - EDGES - BETWEEN * len(part)
        widths = shrunk([natural[place] for place in part], [smallest[place] for place in part], room)
        table = rich.table.Table(
            title=Text(title if number == 0 else GOES_ON),
            title_justify="left",
            title_style="bold" if number == 0 else "",
            box=rich.box.SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
        )
        for place, wide in zip(part, widths, strict=True):
            table.add_column(Text(wrapped(headers[place], wide)), overflow="fold", width=wide)
        for line in lines:
            if sections and line[0]:
                table.add_section()
            row = [(printable(line[place]), wide) for place, wide in zip(part, widths, strict=True)]
            table.add_row(*(Text(wrapped(cell, wide), style=colour(cell)) for cell, wide in row))
        tables.append(table)
    return Group(*tables)
