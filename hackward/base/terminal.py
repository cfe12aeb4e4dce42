"""Text and tables on a terminal of a given width: no figure is cut off, no word is broken.

Columns of a table shrink to their longest word, the widest first. Where even that is too wide the table is
folded: its columns go on in a further table below, which begins with the same first column and says that it
goes on; a column that holds nothing in any line is left out then, which a note says.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import rich.box
import rich.table
from rich.cells import cell_len
from rich.console import Group
from rich.text import Text

from hackward.base.lines import filled, visible

BETWEEN = 2  # columns: padding, and the divider of the box
EDGES = 2  # left and right of the table
COMFORT = 16  # columns in which a cell of few words need not wrap
LONGEST = 24  # a piece beyond this is no figure and no word: a path, which may be broken anywhere
BREAKS = re.compile(r"(?<=/)(?=\w)|(?<=[a-z]-)(?=[a-z])")  # in a word: behind a slash or a hyphen
GOES_ON = "(the same table, further columns)"
LEFT_OUT = "(left out: {names}; every line says -)"
NOTHING = "-"


def longest_word(text: str) -> int:
    """The width below which a word of this text would be broken."""
    return min(max(map(cell_len, text.split()), default=0), LONGEST)


def longest_piece(text: str) -> int:
    """As `longest_word`, where words may be broken behind a slash or a hyphen."""
    found = [cell_len(piece) for word in text.split() for piece in BREAKS.split(word)]
    return min(max(found, default=0), LONGEST)


def wrapped(text: str, width: int) -> str:
    """The text in lines of at most this width, where its words allow it; behind a slash or a hyphen only
    words that are wider than a line are broken."""
    lines = [""]
    for word in text.split():
        pieces = [word] if cell_len(word) <= width else BREAKS.split(word)
        for place, piece in enumerate(pieces):
            glue = " " if place == 0 and lines[-1] else ""
            if lines[-1] and cell_len(lines[-1] + glue + piece) > width:
                lines.append(piece)
            else:
                lines[-1] += glue + piece
    return "\n".join(lines)


def flowed(facts: Sequence[str], between: str, width: int) -> list[str]:
    """The facts on lines of at most this width: broken between facts, and within one only where it is wider
    than a line. A word that is wider stays whole: it may be a path to be copied."""
    mark = between.rstrip()
    glue = between.removeprefix(mark)
    lines: list[str] = []
    for place, fact in enumerate(facts):
        text = fact + mark if place < len(facts) - 1 else fact
        if lines and cell_len(lines[-1] + glue + text) <= width:
            lines[-1] += glue + text
        elif cell_len(text) <= width:
            lines.append(text)
        else:
            lines += filled(text, width).split("\n")
    return lines


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


def folded(widths: Sequence[int], width: int, keys: int, shown: Sequence[int]) -> list[list[int]]:
    """The columns of each part of a table, of those that are `shown`; the first `keys` begin every part."""
    lead = list(range(keys))
    taken = EDGES + sum(widths[place] + BETWEEN for place in lead)
    parts, used = [list(lead)], taken
    for place in shown:
        if place < keys:
            continue
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
    lines = [[visible(cell) for cell in line] for line in lines]
    columns = [[header, *(line[place] for line in lines)] for place, header in enumerate(headers)]
    whole = [max(map(longest_word, column)) for column in columns]
    pieces = [max(map(longest_piece, column)) for column in columns]
    natural = []
    for header, *cells in columns:
        natural.append(max(longest_word(header), *(cell_len(cell) for cell in cells), 1))
    parts, empty, smallest = [list(range(len(headers)))], [], whole
    between = BETWEEN * len(headers) + EDGES
    if sum(whole) + between > width >= sum(pieces) + between:
        smallest = pieces
    elif sum(whole) + between > width:
        comfortable = [max(least, min(most, COMFORT)) for least, most in zip(smallest, natural, strict=True)]
        keys = 2 if sections else 1
        empty = [place for place in range(keys, len(columns)) if set(columns[place][1:]) == {NOTHING}]
        parts = folded(comfortable, width, keys, [p for p in range(len(headers)) if p not in empty])
    tables = []
    for number, part in enumerate(parts):
        room = width - EDGES - BETWEEN * len(part)
        widths = shrunk([natural[place] for place in part], [smallest[place] for place in part], room)
        above = title if number == 0 else GOES_ON
        tables.append(_part([headers[place] for place in part], above, widths, bold=number == 0))
        for line in lines:
            if sections and line[0]:
                tables[-1].add_section()
            row = [(line[place], wide) for place, wide in zip(part, widths, strict=True)]
            tables[-1].add_row(*(Text(wrapped(cell, wide), style=colour(cell)) for cell, wide in row))
    notes = []
    if empty:
        note = LEFT_OUT.format(names=", ".join(headers[place] for place in empty))
        notes.append(Text("\n".join(flowed([note], "", width)) + "\n"))
    return Group(*tables, *notes)


def _part(headers: Sequence[str], title: str, widths: Sequence[int], *, bold: bool) -> rich.table.Table:
    table = rich.table.Table(
        title=Text(title),
        title_justify="left",
        title_style="bold" if bold else "",
        box=rich.box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for header, wide in zip(headers, widths, strict=True):
        table.add_column(Text(wrapped(header, wide)), overflow="fold", width=wide)
    return table
