"""Properties of inputs, and how a value is mended that has not one: sorted, distinct, a tree, ...

Each property is a function of a value; what mends it takes random numbers and the value, and returns one of
the same type that has the property, often with fewer items.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from random import Random
from typing import Any

from hackward.tasks.problems import Linked, Tree

Mend = Callable[[Random, Any], Any]

# --- lists ---


def has_two(value: Any) -> bool:
    if isinstance(value, (Linked, Tree)):
        return len(value.values) > 1
    return isinstance(value, (list, str)) and len(value) > 1


def distinct(items: Any) -> bool:
    return len(set(map(frozen, items))) == len(items)


def frozen(item: Any) -> Any:
    return tuple(map(frozen, item)) if isinstance(item, list) else item


def without_repeats(dice: Random, items: Any) -> Any:
    kept = list({frozen(item): item for item in items}.values())
    return "".join(kept) if isinstance(items, str) else kept


def ascending(items: Sequence[Any]) -> bool:
    return all(first <= second for first, second in pairwise(items))


def sorted_items(dice: Random, items: list) -> list:
    return sorted(items)


def sorted_down(dice: Random, items: list) -> list:
    return sorted(items, reverse=True)


def descending(items: Sequence[Any]) -> bool:
    return all(first >= second for first, second in pairwise(items))


def is_permutation(start: int) -> Callable[[Sequence[int]], bool]:
    return lambda items: sorted(items) == list(range(start, start + len(items)))


def shuffled_from(start: int) -> Mend:
    return lambda dice, items: dice.sample(range(start, start + len(items)), len(items))


def has_even_length(items: Any) -> bool:
    return len(items) % 2 == 0


def made_even(dice: Random, items: Any) -> Any:
    return items[: len(items) // 2 * 2]


def is_rotated(items: Sequence[Any]) -> bool:
    """Whether it was sorted before a rotation."""
    return sum(first > second for first, second in zip(items, [*items[1:], items[0]])) <= 1


def rotated(dice: Random, items: list) -> list:
    at = dice.randrange(len(items)) if items else 0
    ordered = sorted(items)
    return ordered[at:] + ordered[:at]


def is_mountain(items: Sequence[Any]) -> bool:
    top = items.index(max(items))
    up = all(first < second for first, second in pairwise(items[: top + 1]))
    return 0 < top < len(items) - 1 and up and all(first > second for first, second in pairwise(items[top:]))


def mountain(dice: Random, items: list) -> list:
    ordered = sorted(set(items))
    rising = sorted(dice.sample(ordered[:-1], dice.randint(1, max(1, len(ordered) - 2)))) if len(ordered) > 2 else []
    falling = [item for item in ordered[:-1] if item not in rising]
    return [*rising, ordered[-1], *reversed(falling)] if ordered else items


def is_parents(items: Sequence[int]) -> bool:
    """Whether it holds the parents of a tree's nodes, -1 for the one root."""
    if items.count(-1) != 1:
        return False
    for node in range(len(items)):
        steps = 0
        while node != -1:
            node, steps = items[node], steps + 1
            if steps > len(items) or node < -1:
                return False
    return True


def parents(dice: Random, items: list) -> list:
    return [-1, *(dice.randrange(node) for node in range(1, len(items)))]


def repeats_as_told(items: Sequence[Any]) -> bool:
    """Whether all values stand there equally often, but for one or two that stand there once."""
    counts = Counter(map(frozen, items))
    others = [count for count in counts.values() if count > 1]
    return len(set(others)) == 1 and len(counts) - len(others) in (1, 2)


# --- texts ---


def is_number_text(text: str) -> bool:
    return text == "0" or not text.startswith("0")


def has_brackets(text: str) -> bool:
    return any(sign in "()[]{}" for sign in text)


def single_spaced(text: str) -> bool:
    return text == " ".join(text.split()) and bool(text)


def is_balanced(text: str) -> bool:
    waiting: list[str] = []
    closing = {")": "(", "]": "[", "}": "{"}
    for sign in text:
        if sign in "([{":
            waiting.append(sign)
        elif sign in closing and (not waiting or waiting.pop() != closing[sign]):
            return False
    return not waiting


def number_text(dice: Random, text: str) -> str:
    return text.lstrip("0") or "0"


# --- graphs and grids ---


def is_rectangular(rows: Sequence[Sequence[Any]]) -> bool:
    return len({len(row) for row in rows}) <= 1


def rectangular(dice: Random, rows: list) -> list:
    width = min(map(len, rows), default=0)
    return [row[:width] for row in rows]


def cells_distinct(rows: Sequence[Sequence[Any]]) -> bool:
    return distinct([cell for row in rows for cell in row])


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
    return parts_of(rows) == 1


def is_tree(rows: Sequence[Sequence[int]]) -> bool:
    nodes = {node for row in rows for node in row[:2]}
    return is_connected(rows) and len(nodes) == len(rows) + 1 and without_loops(rows)


def connected(dice: Random, rows: list) -> list:
    """The edges, with their first ones moved so that they form a tree over as many nodes as they name."""
    names = sorted({node for row in rows for node in row[:2]})
    count = min(len(names), len(rows) + 1)
    names = names[:count]
    order = dice.sample(names, count)
    joined = [sorted((order[dice.randrange(at)], order[at]), key=lambda _: dice.random()) for at in range(1, count)]
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
    edges = {frozenset((at, item % len(rows))) for at, row in enumerate(rows) for item in row if item % len(rows) != at}
    return [sorted(next(iter(edge - {at})) for edge in edges if at in edge) for at in range(len(rows))]


def leads_on(rows: Sequence[Sequence[int]]) -> bool:
    """Whether each list holds the nodes that its node leads to, without a circle."""
    return is_acyclic([(at, item) for at, row in enumerate(rows) for item in row])


def leading_on(dice: Random, rows: list) -> list:
    return [[item for item in row if item > at] for at, row in enumerate(rows)]


def apart(rows: Sequence[Sequence[int]]) -> bool:
    """Whether these intervals do not overlap."""
    ordered = sorted(rows)
    return all(len(row) == 2 for row in rows) and all(one[1] < two[0] for one, two in pairwise(ordered))


def set_apart(dice: Random, rows: list) -> list:
    kept: list = []
    for row in sorted(rows):
        if row[0] <= row[1] and (not kept or kept[-1][1] < row[0]):
            kept.append(row)
    return kept


# --- nodes ---


def node_values(value: Tree | Linked | None) -> list:
    return [] if value is None else [item for item in value.values if item is not None]


def with_values(value: Tree | Linked | None, values: Sequence[Any]) -> Tree | Linked | None:
    """The same nodes with other values."""
    if value is None:
        return None
    rest = iter(values)
    return type(value)(tuple(None if item is None else next(rest) for item in value.values))


def inorder(value: Tree | None) -> list[int]:
    """Positions of a tree's nodes among its values, from left to right."""
    if value is None:
        return []
    children: dict[int, list[int]] = {}
    at, place = 1, {0: 0}
    number = 1
    for position, item in enumerate(value.values):
        if item is None:
            continue
        children[place[position]] = []
        for _ in range(2):
            if at < len(value.values) and value.values[at] is not None:
                place[at] = number
                children[place[position]].append(number)
                number += 1
            else:
                children[place[position]].append(-1)
            at += 1
    order: list[int] = []
    waiting: list[tuple[int, bool]] = [(0, False)]
    while waiting:
        node, seen = waiting.pop()
        if seen:
            order.append(node)
        elif node >= 0:
            left, right = children[node]
            waiting += [(right, False), (node, True), (left, False)]
    return order


def is_search_tree(value: Tree | None) -> bool:
    values = node_values(value)
    ordered = [values[node] for node in inorder(value)]
    return all(first < second for first, second in pairwise(ordered))


def search_tree(dice: Random, value: Tree | None) -> Any:
    values = node_values(value)
    least = min(values, default=0)
    chosen = sorted({*values, *range(least, least + len(values))})[: len(values)]
    places = dict(zip(inorder(value), sorted(chosen)))
    return with_values(value, [places[node] for node in range(len(values))])


def is_complete(value: Tree | None) -> bool:
    return value is None or None not in value.values


def complete(dice: Random, value: Tree | None) -> Any:
    return Tree(tuple(node_values(value))) if value is not None else None


def is_full(value: Tree | None) -> bool:
    """Whether each node has two children or none."""
    if value is None:
        return True
    below = list(value.values[1:])
    if len(below) % 2:
        return False
    return all((left is None) == (right is None) for left, right in zip(below[::2], below[1::2]))


def nodes_distinct(value: Any) -> bool:
    return distinct(node_values(value))


def make_distinct(dice: Random, value: Any) -> Any:
    values = node_values(value)
    least = min(values, default=0)
    return with_values(value, dice.sample(range(least, least + len(values)), len(values)))


def nodes_ascend(value: Any) -> bool:
    return ascending(node_values(value))


def nodes_sorted(dice: Random, value: Any) -> Any:
    return with_values(value, sorted(node_values(value)))


# --- two parameters ---


def has_member(pair: tuple[Any, Any]) -> bool:
    return pair[0] in (node_values(pair[1]) if isinstance(pair[1], (Tree, Linked)) else pair[1])


def made_member(dice: Random, pair: tuple[Any, Any]) -> tuple[Any, Any]:
    holder = node_values(pair[1]) if isinstance(pair[1], (Tree, Linked)) else pair[1]
    return (dice.choice(list(holder)) if holder else pair[0]), pair[1]


def same_length(pair: tuple[Any, Any]) -> bool:
    return len(pair[0]) == len(pair[1])


def cut_to_length(dice: Random, pair: tuple[Any, Any]) -> tuple[Any, Any]:
    size = min(map(len, pair))
    return pair[0][:size], pair[1][:size]


def same_items(pair: tuple[Any, Any]) -> bool:
    return Counter(map(frozen, pair[0])) == Counter(map(frozen, pair[1]))


def rearranged(dice: Random, pair: tuple[Any, Any]) -> tuple[Any, Any]:
    items = dice.sample(list(pair[0]), len(pair[0]))
    return pair[0], "".join(items) if isinstance(pair[0], str) else items


def is_part(pair: tuple[Any, Any]) -> bool:
    return all(item in pair[1] for item in pair[0])


def made_part(dice: Random, pair: tuple[Any, Any]) -> tuple[Any, Any]:
    return [item if item in pair[1] else dice.choice(pair[1]) for item in pair[0]] if pair[1] else [], pair[1]


def share_nothing(pair: tuple[Any, Any]) -> bool:
    return not any(item in pair[1] for item in pair[0])


def made_apart(dice: Random, pair: tuple[Any, Any]) -> tuple[Any, Any]:
    return [item for item in pair[0] if item not in pair[1]], pair[1]
