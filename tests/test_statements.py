"""What statements allow of an answer: order, tolerance, several answers; and what is done about it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from hackward.base.faults import InputError
from hackward.tasks.formats import load_problems
from hackward.tasks.held_out import decidable
from hackward.tasks.problems import Comparison, Linked, Test, Tree
from hackward.tasks.shipped import DATA as SHIPPED
from hackward.tasks.statements import comparison_of
from tests import lacks

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("HACKWARD_DATA", ROOT.parent / "shared" / "data"))
STARTER = "class Solution:\n    def f(self, nums):\n"
FLAT, GROUPS, PAIRS = [3, 1, 2], [["a"], ["b", "c"]], [[1, 2], [4, 3]]


def read(statement: str, *expected: object, starter: str = STARTER) -> Comparison:
    return comparison_of(statement, starter, [Test("(nums = [])", value) for value in expected])


@pytest.mark.parametrize(
    ("statement", "expected", "order"),
    [
        # The answer as a whole
        ("Report the seats. The seats may be returned in any order.", FLAT, "whole"),
        ("Return the three free seats in any order.", FLAT, "whole"),
        ("Return the seats in <em>any order</em>.", FLAT, "whole"),
        ("You may output the seats in **any order**.", FLAT, "whole"),
        ("Return the seats. Their order does not matter.", FLAT, "whole"),
        ("The order of your output doesn't matter.", FLAT, "whole"),
        ("The order that the seats are returned in does not matter.", FLAT, "whole"),
        ("Return the seats in no particular order.", FLAT, "whole"),
        ("Any order of the result is accepted.", FLAT, "whole"),
        ("Results are compared regardless of their order.", FLAT, "whole"),
        ("Return every pair, as a list [low, high]. You may return the pairs in any order.", PAIRS, "whole"),
        ("Return all routes from the gate to the tower, in any order.", GROUPS, "whole"),
        ("Return all permutations of the cards in any order.", GROUPS, "whole"),
        # The whole, and inside each part
        ("Return all subsets of the coins. You may return the answer in any order.", GROUPS, "both"),
        ("Make groups. The groups, and the words in each group, may be in any order.", GROUPS, "kept"),
        ("Return them. The groups, and the words in each group, may be in any order.", GROUPS, "both"),
        ("Group the anagrams together and return the result in any order.", GROUPS, "both"),
        ("The order of the output and the order of the triplets does not matter.", GROUPS, "both"),
        # Inside each part only
        ("Return two lists. The names in each list may be returned in any order.", GROUPS, "inside"),
        # Asks for all of something and names no order
        ("Return all possible ways to cut s into mirror words.", GROUPS, "whole"),
        ("Return all lucky numbers, sorted by their size.", FLAT, "kept"),
        ("Return all the answers to the queries.", FLAT, "kept"),
        ("Find all unique combinations that sum to k.", GROUPS, "both"),
        ("Count the ways. The solution set must not contain duplicate subsets.", GROUPS, "both"),
        # The order of something else
        ("You may do the steps in any order. Return the list at the end.", FLAT, "kept"),
        ("The pairs are given in any order. Return the chain.", FLAT, "kept"),
        ("It can be shown that any order of the steps leads to the same result.", FLAT, "kept"),
        ("Return the list. Doing the steps in any order gives one result.", FLAT, "kept"),
        ("Return the largest list that can be made by joining the pieces in any order.", FLAT, "kept"),
        ("Return the numbers from left to right.", FLAT, "kept"),
        ("You may return the letters in any order.", "abc", "kept"),
    ],
)  # fmt: skip
def test_the_order_that_a_statement_frees(statement: str, expected: object, order: str) -> None:
    found = read(statement, expected)
    assert (found.order, found.several) == (order, False)


def test_an_accepted_example_shows_how_far_the_freedom_goes() -> None:
    asked = "Return all bridges in any order."
    assert read(asked, PAIRS).order == "whole"
    assert read(asked + " Explanation: [[3, 4], [1, 2]] is also accepted.", PAIRS).order == "both"
    assert read(asked + " Explanation: [[4, 3], [1, 2]] is also accepted.", PAIRS).order == "whole"


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("If there are several such lists, return any of them.", FLAT),
        ("Return any list with that property.", FLAT),
        ("If more than one answer exists, you may return any one of them.", "ab"),
        ("If the answer is not unique, return any valid one.", Tree((1, 2))),
        ("Return the size of any such window.", 3),
        ("Return the place of any of the peaks.", 3),
        ("Any solution with the fewest moves will be accepted.", Linked((1, 2))),
        ("There may be several such lists; each of them is accepted.", FLAT),
        ("It does not matter which of the valid lists you return.", FLAT),
        ("Return one of the longest mirror words.", "aba"),
        ("There are other valid answers, such as [1, 3, 2], that are accepted.", FLAT),
        ("Explanation: 'ba' would also be accepted.", "ab"),
        ("Sort the words by length; words of the same length may come in any order.", GROUPS),
    ],
)
def test_a_statement_that_accepts_several_answers(statement: str, expected: object) -> None:
    assert read(statement, expected) == Comparison(several=True)


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("If there are several, return the smallest one.", FLAT),
        ("If there are multiple answers, return the one that comes first.", FLAT),
        ("If several letters are smallest, you may delete any of them. Return the smallest text.", "ab"),
        ("Return the number of seats that can be reached from any of the doors.", 3),
        ("Return the shortest distance to any of the exits.", 3),
        ("Return whether any of the words is a mirror word.", True),
        ("You may choose any letter and change it to any other.", "ab"),
        ("There are several doors in a row.", FLAT),
        ("The lists that hold a 3 are not accepted.", FLAT),
        ("Answers within 10^-5 of any of the true values are accepted.", 2.5),
    ],
)
def test_a_statement_that_accepts_one_answer(statement: str, expected: object) -> None:
    assert not read(statement, expected).several


@pytest.mark.parametrize(
    ("statement", "absolute", "relative"),
    [
        ("Answers within 10-5 of the actual answer will be accepted.", 1e-5, 0.0),
        ("Answers within 10<sup>-5</sup> of the true one are accepted.", 1e-5, 0.0),
        ("Answers within 10\u207b\u2076 of the true one are accepted.", 1e-6, 0.0),
        ("Answers within $10^{-4}$ of the true one are accepted.", 1e-4, 0.0),
        ("An answer may differ from ours by at most 1e-5.", 1e-5, 0.0),
        ("It is accepted if it differs from ours by at most 1e-5.", 1e-5, 0.0),
        ("A result with an error below 0.00001 counts as correct.", 1e-5, 0.0),
        ("A relative error of 10^-6 is accepted.", 0.0, 1e-6),
        ("An absolute or relative error of 10^-6 is accepted.", 1e-6, 1e-6),
        ("The difference is 10 - 5 = 5.", 0.0, 0.0),
        ("Return the mean.", 0.0, 0.0),
    ],
)
def test_the_tolerance_that_a_statement_names(statement: str, absolute: float, relative: float) -> None:
    found = read(statement, 2.5)
    assert (found.absolute, found.relative) == pytest.approx((absolute, relative), rel=1e-9)


def test_a_tolerance_is_for_problems_with_decimals() -> None:
    words = "Two values are the same if their difference is within 10^-5."
    assert read(words, True).absolute == 0
    assert read(words, 2, starter="class Solution:\n    def f(self) -> float:\n").absolute == 1e-5


# --- stored with the problem ---

ROW = {
    "problem_id": "seats",
    "statement": "Return the free seats in any order.",
    "starter_code": STARTER,
    "method": "f",
    "tests": ["f(nums = [1]) == [2, 3]"],
}


def write(path: Path, *rows: dict) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_what_a_row_states_goes_before_what_its_statement_allows(tmp_path: Path) -> None:
    stated = ROW | {"problem_id": "stated", "comparison": {"order": "kept", "absolute": 0.5}}
    found = load_problems(write(tmp_path / "p.jsonl", ROW, stated))
    assert [problem.comparison for problem in found] == [Comparison(order="whole"), Comparison(absolute=0.5)]


@pytest.mark.parametrize("wrong", [{"order": "any"}, {"absolute": -1.0}, {"several": 1}, "whole"])
def test_a_malformed_comparison_is_an_input_error(tmp_path: Path, wrong: object) -> None:
    with pytest.raises(InputError, match="row 1: 'comparison' must be an object of order, several"):
        load_problems(write(tmp_path / "p.jsonl", ROW | {"comparison": wrong}))


def test_problems_that_no_comparison_decides_are_left_out_and_counted(tmp_path: Path) -> None:
    several = ROW | {"problem_id": "x", "statement": "Return any free seat.", "tests": ["f([1]) == 2"]}
    problems = load_problems(write(tmp_path / "p.jsonl", ROW, several, several | {"problem_id": "y"}))
    with pytest.warns(
        UserWarning, match=r"p: 2 of 3 problems left out.*--several-answers.*x: 'return any free seat\.'"
    ):
        assert decidable(problems, "p", several_answers=False) == problems[:1]
    assert decidable(problems, "p", several_answers=True) == problems
    with pytest.raises(InputError, match="--several-answers"), pytest.warns(UserWarning):
        decidable(problems[1:], "p", several_answers=False)


def test_no_shipped_problem_is_taken_for_one_with_freedom() -> None:
    files = [
        *SHIPPED.glob("*problems.jsonl"),
        *SHIPPED.glob("embedded/*t*_*.jsonl"),
        SHIPPED / "embedded/train.jsonl",
    ]
    problems = [problem for file in files for problem in load_problems(file)]
    assert len(problems) > 300
    assert {problem.comparison for problem in problems} == {Comparison()}


@pytest.mark.skipif(not (DATA / lacks.TRAIN).exists(), reason=lacks.DATA.format(place=DATA))
@pytest.mark.parametrize(
    ("name", "counts"),
    [
        # whole, both, inside; several; tolerant
        ("leetcode_v0.2.0_train.jsonl.gz", (47, 6, 2, 36, 14)),
        ("leetcode_v0.2.0_test.jsonl.gz", (3, 0, 0, 4, 0)),
        ("rl_rewardhacking_test_medhard.jsonl.gz", (0, 0, 0, 1, 2)),
    ],
)
def test_the_real_statements_as_they_were_read_by_eye(name: str, counts: tuple[int, ...]) -> None:
    found = [problem.comparison for problem in load_problems(DATA / name)]
    by_order = [sum(c.order == order for c in found) for order in ("whole", "both", "inside")]
    several, tolerant = sum(c.several for c in found), sum(c.absolute > 0 for c in found)
    assert (*by_order, several, tolerant) == counts
