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
    rising = (
        sorted(dice.sample(ordered[:-1], dice.randint(1, max(1, len(ordered) - 2))))
        if len(ordered) > 2
        else []
    )
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


# --- texts ---


def is_number_text(text: str) -> bool:
    return text == "0" or not text.startswith("0")


def of_one_length(texts: Sequence[str]) -> bool:
    return len(set(map(len, texts))) <= 1


def cut_to_one_length(dice: Random, texts: list) -> list:
    size = min(map(len, texts), default=0)
    return [text[:size] for text in texts]


def starts_above_zero(value: Any) -> bool:
    """Whether digits have no leading zero, but for zero itself."""
    digits = node_values(value) if not isinstance(value, list) else value
    return len(digits) <= 1 or digits[0] != 0


def ends_above_zero(value: Any) -> bool:
    """The same for digits in reverse order."""
    digits = node_values(value) if not isinstance(value, list) else value
    return len(digits) <= 1 or digits[-1] != 0


def with_first_digit(dice: Random, value: Any) -> Any:
    digits = node_values(value) if not isinstance(value, list) else value
    digits = [dice.randint(1, 9), *digits[1:]]
    return digits if isinstance(value, list) else with_values(value, digits)


def with_last_digit(dice: Random, value: Any) -> Any:
    digits = node_values(value) if not isinstance(value, list) else value
    digits = [*digits[:-1], dice.randint(1, 9)]
    return digits if isinstance(value, list) else with_values(value, digits)


def are_anagrams(texts: Sequence[str]) -> bool:
    return len({"".join(sorted(text)) for text in texts}) <= 1


def made_anagrams(dice: Random, texts: list) -> list:
    return ["".join(dice.sample(texts[0], len(texts[0]))) for _ in texts]


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


def is_not_after(pair: tuple[Any, Any]) -> bool:
    return pair[0] <= pair[1]


def swapped(dice: Random, pair: tuple[Any, Any]) -> tuple[Any, Any]:
    return pair[1], pair[0]


def share_nothing(pair: tuple[Any, Any]) -> bool:
    return not any(item in pair[1] for item in pair[0])


def made_apart(dice: Random, pair: tuple[Any, Any]) -> tuple[Any, Any]:
    return [item for item in pair[0] if item not in pair[1]], pair[1]
