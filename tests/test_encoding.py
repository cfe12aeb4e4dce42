"""Values on their way from graded code to the comparison: no two share a text, and none has two."""

from __future__ import annotations

import itertools
import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hackward.grading.checks import matches, size_of
from hackward.grading.encoding import Encoder, line_of
from hackward.tasks.problems import Comparison, Linked, Tree

FREE = Comparison(order="whole")


def sent(value: Any) -> Any:
    """A value as it arrives on the other side."""
    return json.loads(line_of(Encoder(100_000).encode(value)))


class Cell:
    """A node with whatever attributes are named."""

    def __init__(self, **attributes: Any):
        vars(self).update(attributes)


def chain(*values: Any, **more: Any) -> Any:
    head = None
    for value in reversed(values):
        head = Cell(val=value, next=head, **more)
    return head


def leaf(value: Any, left: Any = None, right: Any = None, **more: Any) -> Cell:
    return Cell(val=value, left=left, right=right, **more)


# --- one text for a value, one value for a text ---

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(st.characters(codec=None)),  # surrogates too
    st.sampled_from(["\ud83d\ude00", "\U0001f600", "\\ud83d", "\x00", "\x7f", "\u2028", '"', "[1]"]),
)
HASHED = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=4)
VALUES = st.recursive(
    st.one_of(SCALARS, st.sets(HASHED, max_size=3), st.dictionaries(HASHED, SCALARS, max_size=3)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(HASHED, inner, max_size=3),
    ),
    max_leaves=12,
)


def same(one: Any, other: Any) -> bool:
    """Equality as Python has it, with types told apart where a value is no number."""
    if isinstance(one, (bool, int, float)) and isinstance(other, (bool, int, float)):
        return one == other
    if type(one) is not type(other):
        return False
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, set):
        return len(one) == len(other) and all(any(same(item, match) for match in other) for item in one)
    if isinstance(one, dict):
        pairs = [(key, value) for key, value in one.items()]
        others = [(key, value) for key, value in other.items()]
        return len(one) == len(other) and all(any(same(pair, match) for match in others) for pair in pairs)
    return one == other


@given(VALUES)
@settings(max_examples=300, deadline=None)
def test_a_value_matches_its_own_encoding_and_fits_its_bound(value: Any) -> None:
    assert matches(value, sent(value))
    assert len(line_of(Encoder(10_000).encode(value))) <= size_of(value) + 2


@given(VALUES, VALUES)
@settings(max_examples=300, deadline=None)
def test_no_value_matches_the_encoding_of_another(one: Any, other: Any) -> None:
    assert matches(one, sent(other)) == same(one, other)


@given(st.lists(st.one_of(st.none(), st.integers(0, 2)), min_size=1, max_size=8))
def test_trees_are_told_apart_by_shape_and_by_values_that_are_none(values: list) -> None:
    """A level order with None for a missing child; a node whose value is None is no missing child."""
    if values[0] is None:
        values = [0, *values]
    root = leaf(values[0])
    waiting, rest = [root], list(values[1:])
    while rest and waiting:
        node = waiting.pop(0)
        for side in ("left", "right"):
            value = rest.pop(0) if rest else None
            if value is not None:
                setattr(node, side, leaf(value))
                waiting.append(getattr(node, side))
    encoded = sent(root)
    order = tuple(None if item is None else item[0] for item in encoded["T"])
    assert matches(Tree(order), encoded)
    for node in waiting:  # each has a free side
        side = "left" if node.left is None else "right"
        setattr(node, side, leaf(None))
        assert not matches(Tree(order), sent(root))
        setattr(node, side, None)


@pytest.mark.parametrize(
    ("expected", "value", "right"),
    [
        (Tree((1, 2)), leaf(1, leaf(2), next=None), True),
        (Tree((1, 2)), leaf(1, leaf(2, next=3, parent=4), next=chain(7)), True),
        (Tree((1,)), leaf(1, leaf(None), leaf(None)), False),
        (Tree((1, None, 2)), leaf(1, leaf(None), leaf(2)), False),
        (Linked((1, 2)), chain(1, 2, left=None, right=None), True),
        (Linked((1, 2)), chain(1, 2, prev=5), True),
        (Linked((1, 2)), chain(1, 2, None), False),
        (Linked((1, 2)), [1, 2], False),
        (Tree((1,)), chain(1), False),
        (Linked((1,)), leaf(1), False),
        ("\U0001f600", "\ud83d\ude00", False),
        ("\ud83d\ude00", "\ud83d\ude00", True),
        ("\ud83d\ude00", "\U0001f600", False),
        ("\ud83d", "\\ud83d", False),
    ],
)
def test_what_a_node_or_a_character_is(expected: object, value: object, right: bool) -> None:
    assert matches(expected, sent(value)) == right


def test_a_node_that_cannot_be_read_in_one_way_is_still_one_in_the_other() -> None:
    ring = leaf(1, leaf(2))
    ring.next = ring
    assert matches(Tree((1, 2)), sent(ring))
    endless = chain(1)
    endless.next = endless
    with pytest.raises(OverflowError):
        sent(endless)


@pytest.mark.parametrize(
    "value", [Cell(), Cell(val=1), Cell(val=1, left=None), frozenset, 1j, b"1", range(3)]
)
def test_what_has_no_encoding_equals_nothing(value: object) -> None:
    assert set(sent(value)) == {"x"}


# --- order and tolerance ---


@given(st.lists(st.lists(st.integers(0, 3), max_size=3), max_size=5), st.randoms())
def test_a_free_order_is_that_of_the_whole_of_the_parts_or_of_both(value: list, dice: Any) -> None:
    outer, inner = list(value), [list(part) for part in value]
    dice.shuffle(outer)
    for part in inner:
        dice.shuffle(part)
    both = [list(part) for part in inner]
    dice.shuffle(both)
    for order, answers in {"whole": [outer], "inside": [inner], "both": [outer, inner, both]}.items():
        assert all(matches(value, sent(answer), Comparison(order=order)) for answer in answers)
    assert matches(value, sent(outer)) == (outer == value)
    assert matches(value, sent(inner), FREE) == (sorted(inner) == sorted(value))
    assert matches(value, sent(outer), Comparison(order="inside")) == (
        list(map(sorted, outer)) == list(map(sorted, value))
    )


@pytest.mark.parametrize(
    ("expected", "answer", "right"),
    [
        ([1, 1, 2], [1, 2, 2], False),
        ([1, 2], [2, 1, 1], False),
        ([1, "1"], ["1", 1], True),
        ([1, "1"], [1, 1], False),
        ([1, 2.0], [2, True], True),
        ([None, [1]], [[1], None], True),
        ([(1, 2), (3, 4)], [(3, 4), (1, 2)], True),
        ([(1, 2), (3, 4)], [(4, 3), (1, 2)], False),
        ([[1], [2]], [(2,), (1,)], False),
        ([{1, 2}, {3}], [{3}, {2, 1}], True),
        ([{"a": 1}, {"b": 2}], [{"b": 2}, {"a": 1}], True),
        ([float("nan")], [float("nan")], False),
    ],
)
def test_an_order_that_does_not_matter_changes_nothing_else(
    expected: list, answer: list, right: bool
) -> None:
    assert matches(expected, sent(answer), FREE) == right


@pytest.mark.parametrize(
    ("expected", "answer", "how", "right"),
    [
        (4.77778, 43 / 9, Comparison(absolute=1e-5), True),
        (4.77778, 43 / 9 + 9e-6, Comparison(absolute=1e-5), True),  # within 1e-5 of what was rounded
        (4.77778, 4.7778, Comparison(absolute=1e-5), False),
        (2.5, 2.50001, Comparison(absolute=1e-5), True),
        (2.5, 2.50003, Comparison(absolute=1e-5), False),
        (2, 2.000001, Comparison(absolute=1e-5), True),
        (2, 3, Comparison(absolute=5.0), False),  # whole numbers are not rounded
        (1e9, 1e9 + 1, Comparison(relative=1e-6), True),
        ([0.1, 0.2], [0.200001, 0.100001], Comparison(order="whole", absolute=1e-5), True),
        ({0.1}, {0.100001}, Comparison(absolute=1e-5), True),
        (0.3, 0.1 + 0.2, Comparison(), True),  # the rounding of its computation
        (0.3, 0.3000001, Comparison(), False),
        (0.33333, 1 / 3, Comparison(), True),  # as LeetCode prints it
        (0.25, 0.250001, Comparison(), False),
        (1e18, 10**18 + 1, Comparison(), False),
        (10**18, float(10**18), Comparison(), True),
        (2.5, 10**400, Comparison(absolute=1e-5), False),
        (float("inf"), 1e308, Comparison(relative=1e-5), False),
        (float("inf"), float("inf"), Comparison(relative=1e-5), True),
        (1.0, float("nan"), Comparison(absolute=1e-5), False),
        (True, 1.000001, Comparison(absolute=1e-5), False),
        ("2.5", 2.5, Comparison(absolute=1e-5), False),
    ],
)
def test_numbers_are_compared_within_what_is_accepted(
    expected: object, answer: object, how: Comparison, right: bool
) -> None:
    assert matches(expected, sent(answer), how) == right


@pytest.mark.parametrize(
    "value",
    [set(range(8_000)), [[number] for number in range(8_000)], {number: number for number in range(8_000)}],
    ids=["set", "list", "dict"],
)
def test_the_time_of_a_comparison_hardly_grows_with_the_disorder(value: Any) -> None:
    answer = sent(value)
    items = answer if isinstance(answer, list) else next(iter(answer.values()))
    items.reverse()
    started = time.process_time()
    assert matches(value, answer, FREE)
    assert time.process_time() - started < 2


def test_an_answer_that_is_nested_deeper_than_any_right_one_costs_nothing() -> None:
    deep: Any = 1
    for _ in range(5_000):
        deep = [deep]
    assert not matches([[1], [2]], [deep, deep], FREE)
    assert not matches({1, 2}, {"s": [deep, deep]})


# --- pairing ---

NEAR = Comparison(order="whole", absolute=1.0)
points = st.lists(
    st.tuples(*[st.integers(0, 4).map(lambda half: half / 2)] * 2).map(list), min_size=1, max_size=4
)


@settings(max_examples=300)
@given(points, points)
def test_values_near_one_another_are_paired_if_they_can_be(wanted: list, answers: list) -> None:
    possible = len(wanted) == len(answers) and any(
        all(matches(item, sent(answer), Comparison(absolute=1.0)) for item, answer in zip(wanted, order))
        for order in itertools.permutations(answers)
    )
    assert matches(wanted, sent(answers), NEAR) == possible


@pytest.mark.parametrize(
    ("wanted", "answers", "how", "right"),
    [
        # The first parts are sorted one way, and agree the other way
        (
            [[1.0, 5.0], [1.000001, 2.0]],
            [[1.000002, 5.0], [1.0, 2.0]],
            Comparison("whole", absolute=1e-5),
            True,
        ),
        (
            [[1.0, 5.0], [1.000001, 2.0]],
            [[1.000002, 5.0], [1.0, 5.0]],
            Comparison("whole", absolute=1e-5),
            False,
        ),
        # Rounding alone
        ([[0.3, 5], [0.1 + 0.2, 2]], [[0.1 + 0.2, 5], [0.3, 2]], FREE, True),
        ({(0.3, "b"), (0.1 + 0.2, "a")}, {(0.1 + 0.2, "b"), (0.3, "a")}, Comparison(), True),
        ({0.3: "b", 1.5: "a"}, {0.1 + 0.2: "b", 1.5: "a"}, Comparison(), True),
        # Nodes have no place among others
        ([Linked((1, 2)), Linked((3,))], [chain(3), chain(1, 2)], FREE, True),
        ([Linked((1, 2)), Linked((3,))], [chain(3), chain(3)], FREE, False),
        ([Tree((1,)), Tree((2,))], [leaf(2), leaf(1)], FREE, True),
    ],
)
def test_what_is_paired(wanted: Any, answers: Any, how: Comparison, right: bool) -> None:
    assert matches(wanted, sent(answers), how) == right


def test_the_search_for_a_pairing_is_bounded() -> None:
    started = time.process_time()
    for length, width in ((60, 1), (30, 2), (2, 60), (2000, 2)):
        wanted = [[1 + (n + m) * 1e-9 for m in range(width)] for n in range(length)]
        assert not matches(wanted, sent([*wanted[1:], [9.0] * width]), Comparison("both", absolute=1e-5))
    assert time.process_time() - started < 2
