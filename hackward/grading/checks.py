"""Comparing: is an answer, as the child encodes it, the expected value; how long may a right one be.

The expected value is walked, so its depth bounds the work. An encoded value is JSON: plain values stand for
themselves, and all else is an object with one key: f float, t tuple, s set, d dict, L linked list, T tree, x
anything else (child.py).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any

from hackward.tasks.problems import Linked, Tree

LONGEST_NUMBER = 40  # characters of a float's repr


def matches(expected: Any, answer: Any) -> bool:
    """Whether a decoded answer equals the expected value.

    Numbers compare by value as in Python (2 == 2.0, True == 1, NaN equals nothing); all else by exact type.
    """
    match expected:
        case None:
            return answer is None
        case bool() | int() | float():
            return number_of(answer) == expected
        case str():
            return type(answer) is str and answer == expected
        case list():
            return type(answer) is list and same_items(expected, answer)
        case tuple():
            return same_items(expected, items_of(answer, "t"))
        case set():
            return same_set(expected, items_of(answer, "s"))
        case dict():
            return same_dict(expected, items_of(answer, "d"))
        case Linked(values=values):
            return same_items(values, items_of(answer, "L"))
        case Tree(values=values):
            return same_items(values, items_of(answer, "T"))
    return False


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


def same_items(expected: Any, answers: list | None) -> bool:
    """Whether both hold equal values in the same order."""
    if answers is None or len(answers) != len(expected):
        return False
    return all(map(matches, expected, answers))


def same_set(expected: set, answers: list | None) -> bool:
    """Whether every expected element is found once, and nothing else."""
    if answers is None or len(answers) != len(expected):
        return False
    rest = list(answers)
    for item in expected:
        place = place_of(item, rest)
        if place is None:
            return False
        del rest[place]
    return True


def same_dict(expected: dict, pairs: list | None) -> bool:
    """Whether every expected key is found once with its value, and nothing else."""
    if pairs is None or len(pairs) != len(expected):
        return False
    if not all(type(pair) is list and len(pair) == 2 for pair in pairs):
        return False
    rest = list(pairs)
    for key, value in expected.items():
        place = place_of(key, (pair[0] for pair in rest))
        if place is None:
            return False
        _, answer = rest.pop(place)
        if not matches(value, answer):
            return False
    return True


def place_of(expected: Any, answers: Iterable[Any]) -> int | None:
    """Where the first answer stands that equals the expected value."""
    for place, answer in enumerate(answers):
        if matches(expected, answer):
            return place
    return None


def size_of(expected: Any) -> int:
    """An upper bound of the bytes in which a right answer is written."""
    match expected:
        case str():
            return 12 * len(expected) + 2  # a character outside the basic plane is two \\uXXXX
        case dict():
            return 20 + sum(size_of(key) + size_of(value) + 8 for key, value in expected.items())
        case list() | tuple() | set() | Linked(values=_) | Tree(values=_):
            items = expected.values if isinstance(expected, (Linked, Tree)) else expected
            return 20 + sum(size_of(item) + 4 for item in items)
        case int():
            return LONGEST_NUMBER + expected.bit_length() // 3
    return LONGEST_NUMBER
