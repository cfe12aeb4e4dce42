"""Comparing: is an answer, as the child encodes it, the expected value; how long may a right one be.

The expected value is walked, so its depth bounds the work, and an order that does not matter is settled by
sorting. Where an error is accepted, values next to one another may be sorted into other pairs than those that
agree; then small containers are searched for a pairing in which all do.

An encoded value is JSON (encoding.py): plain values stand for themselves, and all else is an object with a
key that says what it is: f float, t tuple, s set, d dict, L linked list, T tree (a node can be read as both),
x anything else.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from hackward.tasks.problems import EXACT, Comparison, Linked, Tree

LONGEST_NUMBER = 40  # characters of a float's repr
# A float that nothing is said of may differ by the rounding of its computation.
ROUNDING, SMALLEST_ERROR = 1e-9, 1e-12
LEETCODE_DECIMALS = 5  # with so many digits after the point LeetCode prints a float: it was rounded to them
PAIRED = 4096  # most comparisons, of parts with whole answers, in search of a pairing
DEEP = 2  # no list with so many around it may have another order
Key = tuple[int, Any]  # a kind, and what values of that kind are sorted by
NOTHING_ELSE: Key = (9, 0)  # of what equals nothing
KINDS = {"t": 4, "s": 5, "d": 6}  # of containers that are written under a tag; a list is 3


def matches(expected: Any, answer: Any, how: Comparison = EXACT, depth: int = 0) -> bool:
    """Whether a decoded answer equals the expected value, as far as `how` asks for it.

    Numbers compare by value as in Python (2 == 2.0, True == 1, NaN equals nothing), floats within their
    tolerance; all else by exact type. `depth` counts the lists around the value.
    """
    match expected:
        case None:
            return answer is None
        case bool() | int() | float():
            return same_number(expected, number_of(answer), how)
        case str():
            return type(answer) is str and answer == expected
        case list():
            return same_list(expected, answer if type(answer) is list else None, how, depth)
        case tuple():
            return same_list(expected, items_of(answer, "t"), how, depth)
        case set():
            return same_unordered(expected, items_of(answer, "s"), how, DEEP)
        case dict():
            return same_dict(expected, items_of(answer, "d"), how)
        case Linked(values=values):
            return same_items(values, view_of(answer, "L"), how, DEEP)
        case Tree(values=values):
            return same_nodes(values, view_of(answer, "T"), how)
    return False


def alike(expected: Any, answer: Any) -> bool:
    """Whether an answer is of the kind of the expected value, so that it may be another right one."""
    match expected:
        case bool():
            return type(answer) is bool
        case int() | float():
            return number_of(answer) is not None
        case str() | list():
            return type(answer) is type(expected)
        case Linked():
            return view_of(answer, "L") is not None
        case Tree():
            return view_of(answer, "T") is not None
    return container(answer)[1] is not None


def same_number(expected: float, answer: float | None, how: Comparison) -> bool:
    """Whether two numbers are equal, or within what the statement accepts.

    Where it accepts nothing, only a float may differ from a float, by the rounding of its computation.
    """
    if answer is None or isinstance(answer, bool) or isinstance(expected, bool) or answer == expected:
        return answer == expected
    if isinstance(answer, int) and isinstance(expected, int):
        return False
    stated = how.absolute > 0 or how.relative > 0
    if not stated and (isinstance(answer, int) or isinstance(expected, int)):
        return False
    try:
        error = abs(answer - expected)
    except OverflowError:  # an integer that no float can hold
        return False
    relative = max(how.relative, ROUNDING) * abs(expected)
    accepted = how.absolute + rounded_away(expected) + relative + SMALLEST_ERROR
    return math.isfinite(expected) and error <= accepted


def rounded_away(expected: float) -> float:
    """What rounding took from a stored value at most: half a unit of its last digit, if it looks rounded."""
    _, point, decimals = repr(expected).partition(".")
    if point and decimals.isdigit() and len(decimals) == LEETCODE_DECIMALS:
        return 0.5 * 10.0**-LEETCODE_DECIMALS
    return 0.0


def number_of(answer: Any) -> bool | int | float | None:
    """The number that an answer stands for, or None, which equals no number."""
    if type(answer) in (bool, int):
        return answer
    text = tagged(answer, "f")
    if type(text) is str and len(text) < LONGEST_NUMBER:
        with contextlib.suppress(ValueError):
            return float(text)
    return None


def tagged(answer: Any, tag: str) -> Any:
    """What stands under `tag` if that is the answer's only key, else None."""
    if type(answer) is dict and len(answer) == 1:
        return answer.get(tag)
    return None


def items_of(answer: Any, tag: str) -> list | None:
    """The list under `tag` if the answer is of that kind."""
    items = tagged(answer, tag)
    return items if type(items) is list else None


def view_of(answer: Any, tag: str) -> list | None:
    """A node read as a linked list (L) or as a tree (T). A node that has what both need has both views."""
    if type(answer) is not dict or not answer.keys() <= {"L", "T"}:
        return None
    items = answer.get(tag)
    return items if type(items) is list else None


def same_list(expected: list | tuple, answers: list | None, how: Comparison, depth: int) -> bool:
    """Whether both hold equal values, in the same order unless it is free at this depth."""
    if is_free(how, depth):
        return same_unordered(expected, answers, how, depth)
    return same_items(expected, answers, how, depth)


def is_free(how: Comparison, depth: int) -> bool:
    """Whether lists with so many lists around them may have any order."""
    if depth == 0:
        return how.order in ("whole", "both")
    return depth == 1 and how.order in ("inside", "both")


def same_items(expected: Sequence, answers: list | None, how: Comparison, depth: int) -> bool:
    """Whether both hold equal values in the same order."""
    if answers is None or len(answers) != len(expected):
        return False
    return all(matches(item, answer, how, depth + 1) for item, answer in zip(expected, answers))


def same_unordered(expected: Collection, answers: list | None, how: Comparison, depth: int) -> bool:
    """Whether both hold equal values, each as often, in whatever order.

    Takes the time of sorting, and at most PAIRED comparisons more.
    """
    if answers is None or len(answers) != len(expected):
        return False
    wanted = sorted(expected, key=lambda item: key_of_expected(item, how, depth + 1))
    levels = max(map(levels_of, wanted), default=0)
    found = sorted(answers, key=lambda answer: key_of_answer(answer, how, depth + 1, levels))
    if same_items(wanted, found, how, depth):
        return True
    parts = list(parts_of(wanted))
    if len(wanted) * len(parts) > PAIRED or not any(is_inexact(part, how) for part in parts):
        return False
    return can_be_paired(wanted, found, how, depth + 1)


def parts_of(value: Any) -> Iterator[Any]:
    """What is no container in an expected value."""
    match value:
        case dict():
            yield from parts_of([*value.keys(), *value.values()])
        case list() | tuple() | set():
            for item in value:
                yield from parts_of(item)
        case _:
            yield value


def is_inexact(part: Any, how: Comparison) -> bool:
    """Whether equal values need not be sorted to the same place: an error is accepted, or it has no place."""
    stated = how.absolute > 0 or how.relative > 0
    return isinstance(part, (float, Linked, Tree)) or (stated and type(part) is int)


def can_be_paired(wanted: Sequence, answers: list, how: Comparison, depth: int) -> bool:
    """Whether each expected value has an answer of its own that it equals, found by augmenting paths.

    `depth` counts the lists around each of them.
    """
    fitting = []
    for item in wanted:
        fitting.append([place for place, answer in enumerate(answers) if matches(item, answer, how, depth)])
        if not fitting[-1]:
            return False
    taken: dict[int, int] = {}  # an answer's place -> number of the expected value that has it

    def finds_place(number: int, tried: set[int]) -> bool:
        """Whether this one can have an answer, others moving on to another one that they equal."""
        for place in fitting[number]:
            if place in tried:
                continue
            tried.add(place)
            if place not in taken or finds_place(taken[place], tried):
                taken[place] = number
                return True
        return False

    return all(finds_place(number, set()) for number in range(len(wanted)))


def same_dict(expected: dict, pairs: list | None, how: Comparison) -> bool:
    """Whether every expected key is found once with its value, and nothing else."""
    if pairs is None:
        return False
    return same_unordered(expected.items(), [{"t": pair} for pair in pairs], how, DEEP)


def same_nodes(expected: tuple, answers: list | None, how: Comparison) -> bool:
    """Whether a tree's level order is the expected one. A node is written as [its value], a gap as null."""
    if answers is None or len(answers) != len(expected):
        return False
    return all(same_node(value, answer, how) for value, answer in zip(expected, answers))


def same_node(expected: Any, answer: Any, how: Comparison) -> bool:
    """Whether both are a gap, or nodes of the same value."""
    if expected is None or answer is None:
        return expected is answer
    return type(answer) is list and len(answer) == 1 and matches(expected, answer[0], how, DEEP)


def key_of_expected(value: Any, how: Comparison, depth: int) -> Key:
    """What an expected value is sorted by among others: equal values have equal keys."""
    items: Collection
    match value:
        case None:
            return 0, 0
        case bool() | int() | float():
            return key_of_number(value)
        case str():
            return 2, value
        case list():
            kind, items = 3, value
        case tuple():
            kind, items = KINDS["t"], value
        case set():
            kind, items = KINDS["s"], value
        case dict():
            kind, items = KINDS["d"], value.items()
        case _:
            return NOTHING_ELSE
    return kind, arranged((key_of_expected(item, how, depth + 1) for item in items), kind, how, depth)


def key_of_answer(answer: Any, how: Comparison, depth: int, levels: int) -> Key:
    """What an encoded answer is sorted by: the key of the expected value that it equals.

    Below `levels` levels of containers an answer equals nothing that is expected, and is not looked into.
    """
    if answer is None:
        return 0, 0
    number = number_of(answer)
    if number is not None:
        return key_of_number(number)
    if type(answer) is str:
        return 2, answer
    kind, items = container(answer)
    if items is None or levels == 0:
        return NOTHING_ELSE
    keys = (key_of_answer(item, how, depth + 1, levels - 1) for item in items)
    return kind, arranged(keys, kind, how, depth)


def key_of_number(number: float) -> Key:
    """Numbers of all types are sorted together; NaN equals nothing."""
    return (1, number) if number == number else NOTHING_ELSE


def container(answer: Any) -> tuple[int, list | None]:
    """Which kind of container an answer is, and what it holds; None if it is none."""
    if type(answer) is list:
        return 3, answer
    for tag, kind in KINDS.items():
        items = items_of(answer, tag)
        if items is not None and tag == "d":
            return kind, [{"t": pair} for pair in items]
        if items is not None:
            return kind, items
    return 0, None


def arranged(keys: Iterable[Key], kind: int, how: Comparison, depth: int) -> tuple[Key, ...]:
    """The keys of a container's items, sorted where their order does not matter."""
    in_order = kind in (3, KINDS["t"]) and not is_free(how, depth)
    return tuple(keys) if in_order else tuple(sorted(keys))


def levels_of(value: Any) -> int:
    """How many containers stand around the innermost item of an expected value."""
    match value:
        case dict():
            return 2 + max(map(levels_of, [*value.keys(), *value.values()]), default=0)
        case list() | tuple() | set():
            return 1 + max(map(levels_of, value), default=0)
    return 0


def size_of(expected: Any) -> int:
    """An upper bound of the bytes in which a right answer is written."""
    match expected:
        case str():
            return 6 * len(expected) + 2  # a control character is written as \u0000, any other as UTF-8
        case dict():
            return 20 + sum(size_of(key) + size_of(value) + 8 for key, value in expected.items())
        case list() | tuple() | set() | Linked(values=_) | Tree(values=_):
            items = expected.values if isinstance(expected, (Linked, Tree)) else expected
            return 20 + sum(size_of(item) + 4 for item in items)
        case int():
            return LONGEST_NUMBER + expected.bit_length() // 3
    return LONGEST_NUMBER
