"""Properties of lists of lists, and how they are mended: grids, rows with columns, edges, graphs, intervals.

As in properties.py: what has a property is asked of a value, what mends it takes random numbers and a value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from random import Random
from typing import Any

from hackward.strengthening.properties import Mend, ascending, descending, distinct, frozen


def is_rectangular(rows: Sequence[Sequence[Any]]) -> bool:
    return len({len(row) for row in rows}) <= 1


def rectangular(dice: Random, rows: list) -> list:
    width = min(map(len, rows), default=0)
    return [row[:width] for row in rows]


def cells_distinct(rows: Sequence[Sequence[Any]]) -> bool:
    return distinct([cell for row in rows for cell in row])


def columns_descend(rows: Sequence[Sequence[Any]]) -> bool:
    return is_rectangular(rows) and all(map(descending, zip(*rows)))


def columns_sorted_down(dice: Random, rows: list) -> list:
    return [list(row) for row in zip(*(sorted(column, reverse=True) for column in zip(*rows)))]


def cells_ascend(rows: Sequence[Sequence[Any]]) -> bool:
    return ascending([cell for row in rows for cell in row])


def with_sorted_cells(dice: Random, rows: list) -> list:
    cells = iter(sorted(cell for row in rows for cell in row))
    return [[next(cells) for _ in row] for row in rows]


def distinct_column(at: int) -> Callable[[Sequence[Sequence[Any]]], bool]:
    return lambda rows: distinct([row[at] for row in rows])


def without_repeats_in(at: int) -> Mend:
    return lambda dice, rows: list({frozen(row[at]): row for row in rows}.values())


def ascending_column(at: int) -> Callable[[Sequence[Sequence[Any]]], bool]:
    return lambda rows: ascending([row[at] for row in rows])


def sorted_by(at: int) -> Mend:
    return lambda dice, rows: sorted(rows, key=lambda row: row[at])


def with_distinct_cells(dice: Random, rows: list) -> list:
    count = sum(map(len, rows))
    least = min((cell for row in rows for cell in row), default=0)
    cells = iter(dice.sample(range(least, least + count), count))
    return [[next(cells) for _ in row] for row in rows]


def is_square(rows: Sequence[Sequence[Any]]) -> bool:
    return all(len(row) == len(rows) for row in rows)


def square(dice: Random, rows: list) -> list:
    size = min(len(rows), min(map(len, rows), default=0))
    return [row[:size] for row in rows[:size]]


def is_symmetric(rows: Sequence[Sequence[Any]]) -> bool:
    return is_square(rows) and all(rows[i][j] == rows[j][i] for i in range(len(rows)) for j in range(i))


def symmetric(dice: Random, rows: list) -> list:
    rows = square(dice, rows)
    return [[rows[max(i, j)][min(i, j)] for j in range(len(rows))] for i in range(len(rows))]


def columns_ascend(rows: Sequence[Sequence[Any]]) -> bool:
    return is_rectangular(rows) and all(map(ascending, zip(*rows)))


def columns_sorted(dice: Random, rows: list) -> list:
    return [list(row) for row in zip(*map(sorted, zip(*rows)))]


def ends(rows: Sequence[Sequence[Any]]) -> list[frozenset[int]]:
    """The two ends of each edge."""
    return [frozenset(row[:2]) for row in rows]


def has_single_edges(rows: Sequence[Sequence[Any]]) -> bool:
    return len(set(ends(rows))) == len(rows) and all(len(row) >= 2 for row in rows)


def single_edges(dice: Random, rows: list) -> list:
    return list(dict(zip(ends(rows), rows)).values())


def without_loops(rows: Sequence[Sequence[Any]]) -> bool:
    return all(row[0] != row[1] for row in rows)


def no_loops(dice: Random, rows: list) -> list:
    return [row for row in rows if row[0] != row[1]]


def parts_of(rows: Sequence[Sequence[int]]) -> int:
    """How many connected parts the nodes of these edges form."""
    home: dict[int, int] = {}

    def top(node: int) -> int:
        while home.setdefault(node, node) != node:
            node = home[node]
        return node

    for row in rows:
        home[top(row[0])] = top(row[1])
    return sum(top(node) == node for node in list(home))


def is_connected(rows: Sequence[Sequence[int]]) -> bool:
    return parts_of(rows) <= 1


def is_tree(rows: Sequence[Sequence[int]]) -> bool:
    nodes = {node for row in rows for node in row[:2]} or {0}
    return is_connected(rows) and len(nodes) == len(rows) + 1 and without_loops(rows)


def connected(dice: Random, rows: list) -> list:
    """The edges, with their first ones moved so that they form a tree over as many nodes as they name."""
    names = sorted({node for row in rows for node in row[:2]})
    count = min(len(names), len(rows) + 1)
    names = names[:count]
    order = dice.sample(names, count)
    joined = [
        sorted((order[dice.randrange(at)], order[at]), key=lambda _: dice.random()) for at in range(1, count)
    ]
    rest = [row for row in rows[count - 1 :] if row[0] in names and row[1] in names]
    return [[*pair, *row[2:]] for pair, row in zip(joined, rows)] + rest


def tree(dice: Random, rows: list) -> list:
    """A tree over the nodes from the least name on."""
    least = min((node for row in rows for node in row[:2]), default=0)
    names = list(range(least, least + len(rows) + 1))
    order = [names[0], *dice.sample(names[1:], len(names) - 1)]
    return [[order[dice.randrange(at)], order[at], *row[2:]] for at, row in enumerate(rows, start=1)]


def is_acyclic(rows: Sequence[Sequence[int]]) -> bool:
    left = [tuple(row[:2]) for row in rows]
    while left:
        entered = {second for _, second in left}
        kept = [edge for edge in left if edge[0] in entered]
        if len(kept) == len(left):
            return False
        left = kept
    return True


def acyclic(dice: Random, rows: list) -> list:
    return [[*sorted(row[:2]), *row[2:]] for row in rows if row[0] != row[1]]


def names_neighbours(rows: Sequence[Sequence[int]]) -> bool:
    """Whether each list holds the neighbours of its node, in a graph without direction."""
    if not all(0 <= item < len(rows) for row in rows for item in row):
        return False
    return all(at in rows[item] and item != at for at, row in enumerate(rows) for item in row)


def neighbours(dice: Random, rows: list) -> list:
    edges = {
        frozenset((at, item % len(rows)))
        for at, row in enumerate(rows)
        for item in row
        if item % len(rows) != at
    }
    return [sorted(next(iter(edge - {at})) for edge in edges if at in edge) for at in range(len(rows))]


def leads_on(rows: Sequence[Sequence[int]]) -> bool:
    """Whether each list holds the nodes that its node leads to, without a circle."""
    return is_acyclic([(at, item) for at, row in enumerate(rows) for item in row])


def leading_on(dice: Random, rows: list) -> list:
    return [[item for item in row if item > at] for at, row in enumerate(rows)]


def apart(rows: Sequence[list[int]]) -> bool:
    """Whether these intervals do not overlap."""
    ordered = sorted(rows)
    return all(len(row) == 2 for row in rows) and all(one[1] < two[0] for one, two in pairwise(ordered))


def set_apart(dice: Random, rows: list) -> list:
    kept: list = []
    for row in sorted(rows):
        if row[0] <= row[1] and (not kept or kept[-1][1] < row[0]):
            kept.append(row)
    return kept
