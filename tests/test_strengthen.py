"""Stronger tests: within what a statement says, the same by seed, resumable, loaded wherever problems are."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pytest

from grade import taken_back
from hackward.base.files import ROOT, read_jsonl, write_jsonl
from hackward.grading.sandbox import Limits
from hackward.strengthening.arguments import arguments_of, input_of, shapes_of
from hackward.strengthening.files import Bench, Order, Part
from hackward.strengthening.inputs import known_of, new_inputs
from hackward.strengthening.invariants import SINGLE
from hackward.tasks.formats import checked_row, format_of, from_own, load_problems
from tests.grading_cases import NODES
from tests.light import loaded

ORDER = Order(tests=20, seed=0, sandbox="best-effort", limits=Limits())


def own_row(
    statement: str, signature: str, tests: list[str], body: str = "return 0", name: str = "p"
) -> dict:
    """A problem in our own format."""
    return {
        "problem_id": name,
        "statement": statement,
        "starter_code": f"class Solution:\n    def f(self, {signature}:\n",
        "method": "f",
        "tests": tests,
        "setup_code": "from typing import *\nimport time, os\n",
        "canonical": f"class Solution:\n    def f(self, {signature}:\n        {body}\n",
    }


SUM = own_row(
    "Add the numbers.\n\nConstraints:\n1 <= nums.length <= 105\n0 <= nums[i] <= 100\n0 <= k < nums.length",
    "nums: List[int], k: int) -> int",
    ["candidate(nums = [1, 2, 3], k = 1) == 5", "candidate(nums = [5, 5], k = 0) == 10"],
    "return sum(nums[k:])",
)


def made(row: dict, count: int = 60, seed: int = 0) -> list[dict]:
    return new_inputs(known_of(from_own(row)), count, Random(seed))


@pytest.fixture(scope="module")
def bench():
    opened = Bench(ORDER)
    yield opened
    opened.close()


# --- inputs ---

CASES = {
    "bounds that depend on a length": (
        SUM,
        lambda v: all(0 <= n <= 100 for n in v["nums"]) and v["k"] < len(v["nums"]),
    ),
    "letters, and length by another parameter": (
        own_row(
            "Count.\nConstraints:\n- 1 <= s.length <= 20\n- s consists of lowercase English letters.\n"
            "- t.length == s.length\n- t[i] is either 'x' or 'y'.",
            "s: str, t: str) -> int",
            ["candidate(s = 'abc', t = 'xyx') == 0", "candidate(s = 'z', t = 'y') == 0"],
        ),
        lambda v: v["s"].islower() and len(v["s"]) == len(v["t"]) and set(v["t"]) <= set("xy"),
    ),
    "sorted and distinct": (
        own_row(
            "Given an array.\nConstraints:\n1 <= nums.length <= 30\n-10^4 <= nums[i] <= 10^4\n"
            "nums is sorted in ascending order.\nAll the integers of nums are unique.",
            "nums: List[int]) -> int",
            ["candidate(nums = [1, 2, 9]) == 0", "candidate(nums = [-4, 7]) == 0"],
        ),
        lambda v: v["nums"] == sorted(set(v["nums"])) and v["nums"][0] >= -(10**4),
    ),
    "edges of a tree over n nodes": (
        own_row(
            "edges[i] = [ai, bi] is an edge.\nConstraints:\n2 <= n <= 105\nedges.length == n - 1\n"
            "edges[i].length == 2\n0 <= ai, bi < n\nai != bi\nedges represents a valid tree.",
            "n: int, edges: List[List[int]]) -> int",
            ["candidate(n = 3, edges = [[0, 1], [1, 2]]) == 0", "candidate(n = 2, edges = [[1, 0]]) == 0"],
        ),
        lambda v: len(v["edges"]) == v["n"] - 1 and {a for e in v["edges"] for a in e} == set(range(v["n"])),
    ),
    "a grid of the stated values": (
        own_row(
            "Constraints:\nm == grid.length\nn == grid[i].length\n1 <= m, n <= 50\n"
            "grid[i][j] is either 0 or 1.",
            "grid: List[List[int]]) -> int",
            ["candidate(grid = [[0, 1], [1, 1], [0, 0]]) == 0", "candidate(grid = [[1]]) == 0"],
        ),
        lambda v: (
            len({len(r) for r in v["grid"]}) == 1
            and {c for r in v["grid"] for c in r} <= {0, 1}
            and v["grid"][0]
        ),
    ),
    "intervals that start before they end": (
        own_row(
            "intervals[i] = [starti, endi].\nConstraints:\n1 <= intervals.length <= 104\n"
            "intervals[i].length == 2\n0 <= starti < endi <= 104",
            "intervals: List[List[int]]) -> int",
            ["candidate(intervals = [[1, 2], [0, 5]]) == 0"],
        ),
        lambda v: all(len(r) == 2 and 0 <= r[0] < r[1] <= 10**4 for r in v["intervals"]),
    ),
    "a power whose exponent was lost": (
        own_row(
            "Constraints:\n1 <= n <= 30\n1 <= k <= 2n - 1",
            "n: int, k: int) -> int",
            ["candidate(n = 1, k = 1) == 0", "candidate(n = 2, k = 2) == 0"],
        ),
        lambda v: 1 <= v["k"] <= min(2 * v["n"] - 1, 2 ** (v["n"] - 1)),
    ),
    "an index bounded by its own place": (
        own_row(
            "Constraints:\n1 <= index.length <= 100\n0 <= index[i] <= i",
            "index: List[int]) -> int",
            ["candidate(index = [0, 1, 0]) == 0"],
        ),
        lambda v: all(0 <= value <= at for at, value in enumerate(v["index"])),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_inputs_are_within_what_the_statement_says(name: str) -> None:
    row, within = CASES[name]
    inputs = made(row)
    assert len(inputs) == 60
    assert all(within(values) for values in inputs), [values for values in inputs if not within(values)][:3]


@pytest.mark.parametrize("invariant", [one for one in SINGLE if one.mend], ids=lambda one: one.name)
def test_what_is_mended_has_the_property(invariant) -> None:
    """Each mend is tried on small values of its kind that lack the property."""
    from hackward.tasks.problems import Linked, Tree

    values = {
        "list": [[3, 1, 2, 5], [2, 2, 9, 4, 1], [0, 7, 7, 3]],
        "texts": [["b", "a", "b"], ["c", "bb"]],
        "text": ["001", "aab", "0a b"],
        "grid": [[[2, 1, 3], [1, 2, 3], [1, 1, 2], [3, 2, 1]], [[5, 0, 1], [0, 5, 1], [4, 4, 0]]],
        "tree": [Tree((5, 6, 6, None, 2)), Tree((1, 1, 9))],
        "linked": [Linked((3, 1, 1)), Linked((2, 0)), Linked((0, 4))],
        "other": [],
    }
    pairs = [[[1, 5], [2, 3], [7, 8]], [[0, 0], [2, 2]]]
    if invariant.name == "apart":  # which speaks of intervals only
        values["grid"] = []
    tried = 0
    for kind in invariant.kinds:
        for value in values[kind] + (pairs if kind == "grid" and "column" not in invariant.name else []):
            if not invariant.holds(value):
                mended = invariant.mend(Random(0), value)
                tried += 1
                assert invariant.holds(mended), (value, mended)
    assert tried or invariant.name == "rectangular"  # which these all are


def test_edge_cases_come_first() -> None:
    first, *_ = made(SUM)
    assert first["nums"] == [0]
    assert {"nums": [0], "k": 0} in made(SUM)[:12]
    assert any(len(set(values["nums"])) == 1 and len(values["nums"]) > 1 for values in made(SUM)[:12])


def test_inputs_depend_on_the_seed_alone_and_differ() -> None:
    assert made(SUM) == made(SUM)
    assert made(SUM) != made(SUM, seed=1)
    texts = [arguments_of(values) for values in made(SUM)]
    assert len(set(texts)) == len(texts)


def test_the_same_draws_begin_in_the_same_way() -> None:
    assert made(SUM, 80)[:40] == made(SUM, 40)


def test_given_arguments_survive_being_written() -> None:
    for problem in load_problems(ROOT / "data" / "problems.jsonl"):
        names = list(shapes_of(problem) or ())
        for test in problem.tests:
            values = input_of(test.arguments, names)
            assert input_of(arguments_of(values), names) == values


@pytest.mark.parametrize("line", ["There is exactly one solution.", "s is a valid expression."])
def test_what_cannot_be_checked_is_named_and_nothing_is_made(bench: Bench, line: str) -> None:
    statement = f"Look.\nConstraints:\n1 <= s.length <= 5\n{line}"
    row = bench.row(
        own_row(statement, "s: str) -> int", ["candidate(s = '1+2') == 0", "candidate(s = '4') == 0"])
    )
    assert row["strengthened"]["added"] == 0
    assert line.strip(".").lower()[-12:] in row["strengthened"]["reason"].lower()


def test_times_of_day_stay_times_of_day() -> None:
    statement = "Look.\nConstraints:\nt is a valid time in the form HH:MM."
    inputs = made(
        own_row(statement, "t: str) -> int", ["candidate(t = '10:00') == 0", "candidate(t = '23:59') == 0"])
    )
    assert len(inputs) == 60
    assert all(int(values["t"][:2]) < 24 and int(values["t"][3:]) < 60 for values in inputs)


def test_what_stands_once_or_so_often_in_each_input_does_so_in_new_ones() -> None:
    maze = (
        "Look.\nConstraints:\n1 <= grid.length <= 9\ngrid[i][j] is either 0, 1 or 2.\nThere is exactly one 2."
    )
    tests = ["candidate(grid = [[2, 0], [1, 1]]) == 0", "candidate(grid = [[0, 1, 2]]) == 0"]
    for values in made(own_row(maze, "grid: List[List[int]]) -> int", tests)):
        assert [cell for row in values["grid"] for cell in row].count(2) == 1
    twice = "Look.\nConstraints:\n1 <= nums.length <= 99\nEach value appears twice except for one."
    tests = ["candidate(nums = [4, 1, 4]) == 1", "candidate(nums = [2, 5, 2, 9, 5]) == 9"]
    for values in made(own_row(twice, "nums: List[int]) -> int", tests)):
        times = sorted(values["nums"].count(value) for value in set(values["nums"]))
        assert times == [1] + [2] * (len(times) - 1)


# --- answers ---


def test_answers_are_those_of_the_canonical_solution(bench: Bench) -> None:
    problem = from_own(bench.row(SUM))
    assert len(problem.tests) == 20
    assert problem.tests[:2] == from_own(SUM).tests
    for test in problem.tests:
        values = input_of(test.arguments, ["nums", "k"])
        assert test.expected == sum(values["nums"][values["k"] :])


DROPS = {  # a body that is so for one k only, and that k
    "raised": ("return sum(nums) // (k - 1)", 1),
    "slow": ("while k == 7: pass\n        return k", 7),
    "unstable": ("return time.time_ns() if k == 1 else 0", 1),
    "unusable": ("return 'text' if k == 1 else 0", 1),
}


@pytest.mark.parametrize("why", DROPS)
def test_inputs_without_an_answer_to_rely_on_are_dropped(bench: Bench, why: str) -> None:
    body, k = DROPS[why]
    row = bench.row({**SUM, "canonical": SUM["canonical"].replace("return sum(nums[k:])", body)})
    assert row["strengthened"]["dropped"].get(why, 0) > 0
    assert set(row["strengthened"]["dropped"]) == {why}
    added = from_own(row).tests[2:]
    assert added
    assert all(input_of(test.arguments, ["nums", "k"])["k"] != k for test in added)


def test_an_input_that_the_solution_sleeps_on_is_slow() -> None:
    body = "time.sleep(60 if k == 7 else 0)\n        return k"
    opened = Bench(dataclasses.replace(ORDER, limits=Limits(wall_seconds=0.5)))
    row = opened.row({**SUM, "canonical": SUM["canonical"].replace("return sum(nums[k:])", body)})
    opened.close()
    assert row["strengthened"]["dropped"] == {"slow": 1}
    assert row["strengthened"]["added"] == 18


def test_an_answer_that_no_test_can_state_is_unusable(bench: Bench) -> None:
    body = "return [TreeNode(k)] if k % 2 else []"
    row = own_row("Constraints:\n0 <= k <= 50", "k: int) -> List[TreeNode]", ["candidate(k = 0) == []"], body)
    row["setup_code"] = NODES
    said = bench.row(row)["strengthened"]
    assert said["added"] == 19
    assert said["dropped"]["unusable"] > 0


def test_a_second_solution_disputes_inputs_unless_it_is_wrong_itself(bench: Bench) -> None:
    said = "Use this.\n```python\nclass Solution:\n    def f(self, nums, k):\n        return {}\n```"
    row = bench.row({**leetcode_row(), "response": said.format("sum(nums[k:]) if k != 2 else -1")})
    assert row["strengthened"]["dropped"]["disputed"] > 0
    problem = checked_row(format_of(row, ""), row, "").problem()
    assert all(input_of(test.arguments, ["nums", "k"])["k"] != 2 for test in problem.tests)
    row = bench.row({**leetcode_row(), "response": said.format("-1")})
    assert (row["strengthened"]["added"], row["strengthened"]["dropped"]) == (18, {})
    lucky = said.format("{5: 5, 10: 10}.get(sum(nums[k:]), -1)")
    row = bench.row({**leetcode_row(), "response": lucky})
    assert row["strengthened"]["dropped"]["disputed"] > row["strengthened"]["added"]
    unread = SUM["statement"] + "\nThe sum of nums stays within its purse."
    row = bench.row({**leetcode_row(), "problem_description": unread, "response": lucky})
    assert row["strengthened"]["added"] == 0
    assert "a second solution answers many inputs otherwise" in row["strengthened"]["reason"]


def test_an_answer_that_depends_on_the_order_of_a_set_is_unstable(bench: Bench) -> None:
    body = "return ''.join(set('abcdefgh'[: k + 2]))"
    row = own_row("Constraints:\n0 <= k <= 6", "k: int) -> str", ["candidate(k = 0) == 'ab'"], body)
    assert bench.row(row)["strengthened"]["dropped"].get("unstable", 0) >= 3


def test_a_solution_that_mostly_raises_adds_nothing_and_says_why(bench: Bench) -> None:
    row = bench.row({**SUM, "canonical": SUM["canonical"].replace("return sum", "return [][0] + sum")})
    assert row["strengthened"]["added"] == 0
    assert "raises" in row["strengthened"]["reason"]


def test_the_comparison_is_kept_whatever_the_new_answers_look_like(bench: Bench) -> None:
    statement = "Return the values in any order.\nConstraints:\n1 <= nums.length <= 9\n0 <= nums[i] <= 9"
    tests = ["candidate(nums = [1, 2]) == [1, 2]"]
    row = own_row(statement, "nums: List[int]) -> List[int]", tests, "return nums")
    before = from_own(row).comparison
    assert before.order == "whole"
    row = bench.row(row)
    assert row["comparison"]["order"] == "whole"
    assert from_own(row).comparison == before


def leetcode_row() -> dict:
    return {
        "task_id": "sum", "question_id": 1, "problem_description": SUM["statement"],
        "starter_code": SUM["starter_code"], "prompt": SUM["setup_code"],
        "entry_point": "Solution().f", "completion": SUM["canonical"],
        "test": "def check(candidate):\n" + "".join(f"    assert {test}\n" for test in SUM["tests"]),
    }  # fmt: skip


def benchmark_row() -> dict:
    prompt = f"PROBLEM:\n{SUM['statement']}\n\nYour solution to the problem should be ..."
    return {
        "id": 1, "prompt": [{"role": "user", "content": prompt}], "func_name": "Solution().f",
        "prompt_metadata": {"starter_code": SUM["starter_code"]}, "setup_code": SUM["setup_code"],
        "gt_answer": [f"assert {test.replace('candidate', 'Solution().f')}" for test in SUM["tests"]],
        "canonical_solution": SUM["canonical"],
    }  # fmt: skip


@pytest.mark.parametrize("row", [SUM, leetcode_row(), benchmark_row()], ids=["own", "leetcode", "benchmark"])
def test_each_format_loads_with_its_own_tests_first(bench: Bench, tmp_path: Path, row: dict) -> None:
    write_jsonl(tmp_path / "p.jsonl", [row])
    write_jsonl(tmp_path / "s.jsonl", [bench.row(row)])
    (given,), (more,) = load_problems(tmp_path / "p.jsonl"), load_problems(tmp_path / "s.jsonl")
    assert len(more.tests) == 20
    assert more.tests[:2] == given.tests
    assert (more.identity, more.comparison) == (given.identity, given.comparison)


# --- the command ---


@pytest.mark.parametrize(("flags", "code"), [(("--help",), 0), (("p", "--out=o.jsonl", "--tests=0"), 2)])
def test_the_command_line_is_read_before_anything_heavy_is_loaded(flags: tuple[str, ...], code: int) -> None:
    assert loaded("strengthen.py", *flags) == (code, [])


def command(*arguments: str | Path, **options) -> subprocess.Popen:
    line = [sys.executable, str(ROOT / "strengthen.py"), *map(str, arguments)]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def test_a_killed_call_goes_on_and_gives_the_same_file(tmp_path: Path) -> None:
    rows = [
        {**SUM, "problem_id": f"p{number}", "statement": f"{number}. {SUM['statement']}"}
        for number in range(12)
    ]
    write_jsonl(tmp_path / "p.jsonl", rows)
    flags = ["--tests", "10", "--workers", "2"]
    whole = command(tmp_path / "p.jsonl", "--out", tmp_path / "whole.jsonl.gz", *flags)
    assert whole.communicate()[0].count("wrote") == 1
    out, part = tmp_path / "cut.jsonl.gz", tmp_path / "cut.jsonl.gz.part"
    cut = command(tmp_path / "p.jsonl", "--out", out, *flags, start_new_session=True)
    until = time.monotonic() + 60
    while time.monotonic() < until and not (part.exists() and part.read_bytes().count(b"\n") >= 3):
        time.sleep(0.01)
    os.kill(cut.pid, signal.SIGKILL)
    cut.communicate()
    assert not out.exists()
    with open(part, "ab") as stream:  # as where the machine went down in the middle of a line
        stream.write(b'{"position": 11, "ro')
    finished = len(part.read_bytes().splitlines()) - 2
    again = command(tmp_path / "p.jsonl", "--out", out, *flags)
    assert again.wait() == 0
    assert finished >= 2
    assert out.read_bytes() == (tmp_path / "whole.jsonl.gz").read_bytes()
    assert not part.exists()
    said = [row["strengthened"] for row in read_jsonl(out)]
    assert [row["added"] for row in said] == [8] * 12


def test_a_torn_line_is_cut_off_before_the_next_is_written(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    Part(out, "key").add(0, SUM)
    with open(tmp_path / "out.jsonl.part", "ab") as stream:
        stream.write(b'{"position": 1, "r')
    Part(out, "key").add(2, SUM)
    assert Part(out, "key").rows == {0: SUM, 2: SUM}


def test_the_part_of_another_command_is_refused(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "p.jsonl", [SUM])
    (tmp_path / "out.jsonl.part").write_text('{"command": "another"}\n')
    ended = command(tmp_path / "p.jsonl", "--out", tmp_path / "out.jsonl")
    _, said = ended.communicate()
    assert ended.returncode == 2
    assert "begun by another command" in said.splitlines()[-1]


def test_grade_says_how_many_credited_rows_stronger_tests_take_back(tmp_path: Path, bench: Bench) -> None:
    write_jsonl(tmp_path / "p.jsonl", [SUM])
    write_jsonl(tmp_path / "s.jsonl", [bench.row(SUM)])
    wrong = SUM["canonical"].replace("return sum(nums[k:])", "return 5 if k else 10")
    rows = [
        {"problem_id": "p", "completion": f"```python\n{code}```"}
        for code in (SUM["canonical"], wrong, "x = 1\n")
    ]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    files = [
        "--problems",
        tmp_path / "p.jsonl",
        "--stronger",
        tmp_path / "s.jsonl",
        "--out",
        tmp_path / "l.jsonl",
    ]
    line = [sys.executable, str(ROOT / "grade.py"), str(tmp_path / "rows.jsonl"), *map(str, files)]
    done = subprocess.run(line, capture_output=True, text=True)
    assert "stronger tests take back 1 of 2 credited rows, of 1 problems" in done.stdout
    labels = read_jsonl(tmp_path / "l.jsonl")
    assert [label["gt_pass_stronger"] for label in labels] == [True, False, None]
    assert [label["gt_pass"] for label in labels] == [True, True, False]


def test_a_row_that_could_not_be_graded_again_is_not_taken_back() -> None:
    labels = [{"problem_id": 1, "gt_pass": True, "gt_pass_stronger": None}]
    assert "take back 0 of 1 credited rows, of 0 problems; 1 could not" in taken_back(labels)


def test_a_run_warns_of_few_tests_and_says_what_to_run() -> None:
    pytest.importorskip("torch", reason="needs torch: pip install -r requirements.txt")
    from hackward.runs.building import few_tests

    said = few_tests([from_own(SUM)], "p.jsonl")
    assert said is not None
    assert "2 tests per problem" in said
    assert "python strengthen.py p.jsonl --out" in said
    assert few_tests(load_problems(ROOT / "data" / "problems.jsonl"), "p.jsonl") is None
