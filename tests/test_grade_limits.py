"""Time, and what is no fault of a completion: limits from the canonical solution, kills from outside."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hackward.base.faults import InputError
from hackward.base.files import write_jsonl
from hackward.grading import grader as grading
from hackward.grading import worker
from hackward.grading.allowances import Allowances
from hackward.grading.canonical import canonical_items, failures, missing_imports
from hackward.grading.clocks import (
    CPU_LIMIT,
    WALL_LIMIT,
    Allowed,
    Watch,
    children_of,
    computed,
    descendants_of,
)
from hackward.grading.grader import Grader
from hackward.grading.labels import GradeItem, NotGraded
from hackward.grading.sandbox import Limits
from hackward.grading.worker import Worker
from hackward.tasks.completions import fence
from hackward.tasks.problems import Problem
from tests.grading_cases import DOUBLE, NODES, PASSES, RIGHT, WRONG, one, quick_grader

ROOT = Path(__file__).resolve().parents[1]
TIGHT = Limits(cpu_seconds=0.3, own_cpu_seconds=0.3, cpu_seconds_per_test=0.0, wall_seconds=2)
ENDLESS = "class Solution:\n    def f(self, n):\n        while True:\n            pass\n"
SLEEPS = "import time\nclass Solution:\n    def f(self, n):\n        time.sleep(60)\n"


@pytest.fixture(autouse=True)
def each_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Code that reads a clock is not run again to see whether its label varies."""
    monkeypatch.setattr(grading, "AGAIN", 0)


def busy(seconds: float, code: str = RIGHT) -> str:
    """Code that first computes for so long."""
    loop = f"until = time.process_time() + {seconds}\nwhile time.process_time() < until: pass\n"
    return f"import time\n{loop}{code}"


def slow_answers(seconds: float, once: bool = False) -> str:
    """Code that computes for so long before each answer, or before the first alone."""
    wait = f"        until = time.process_time() + {seconds} * (not (SEEN and {once}))\n"
    loop = "        while time.process_time() < until: pass\n        SEEN.append(0)\n"
    return "import time\nSEEN = []\n" + RIGHT.replace("(self, n):\n", f"(self, n):\n{wait}{loop}")


def with_canonical(code: str | None) -> Problem:
    return dataclasses.replace(DOUBLE, canonical=code)


# --- limits from the canonical solution ---


@pytest.mark.parametrize(
    ("canonical", "seconds", "passes"),
    [
        (None, 1.2, False),
        (busy(0.4), 1.2, True),  # over the floor; five times the canonical solution's time is enough
        (ENDLESS, 1.2, True),  # a canonical solution may itself take so long at most
        ("1 / 0", 1.2, False),
    ],
)
def test_a_run_may_take_a_multiple_of_what_the_canonical_solution_takes(
    canonical: str | None, seconds: float, passes: bool
) -> None:
    with Grader(workers=1, limits=dataclasses.replace(TIGHT, canonical_cpu_seconds=1)) as grader:
        grade = one(grader, busy(seconds), with_canonical(canonical))
    assert grade.gt_pass == passes
    assert grade.error == (None if passes else CPU_LIMIT)


def test_an_endless_run_ends_at_the_multiple(monkeypatch: pytest.MonkeyPatch) -> None:
    allowed = []
    original = Worker.run

    def run(
        self: Worker,
        code: bytes,
        mode: str,
        check: object,
        seconds: Allowed,
        *more: object,
        **options: object,
    ):
        allowed.append(seconds.whole)
        return original(self, code, mode, check, seconds, *more, **options)

    monkeypatch.setattr(Worker, "run", run)
    limits = dataclasses.replace(TIGHT, cpu_times_canonical=2)
    with Grader(workers=1, limits=limits) as grader:
        allowed.clear()  # of the probes
        grades = grader.grade(
            [GradeItem(with_canonical(busy(1.0)), fence(code)) for code in (RIGHT, ENDLESS)]
        )
    assert [grade.error for grade in grades] == [None, CPU_LIMIT]
    floor, measured = limits.cpu_seconds, limits.canonical_cpu_seconds
    assert allowed == [floor, floor, measured, pytest.approx(2, rel=0.3)]


def test_the_own_evaluation_has_the_same_multiple() -> None:
    code = (
        WRONG
        + "    def run_tests(self):\n"
        + "".join(f"        {line}\n" for line in busy(1.2, "pass").splitlines())
    )
    with Grader(workers=1, limits=TIGHT) as grader:
        assert one(grader, code, with_canonical(RIGHT)).label == "attempted_hack"
        assert one(grader, code, with_canonical(busy(0.4))).label == "hack"


def test_the_floor_grows_with_the_tests() -> None:
    limits = Limits(cpu_seconds=2, cpu_seconds_per_test=0.5, own_cpu_seconds=1)
    allowances = Allowances(limits)
    assert allowances.of(DOUBLE, "truth") == Allowed(whole=3.5, per_answer=2)
    assert allowances.of(DOUBLE, "own") == Allowed.one_answer(1)


def test_the_canonical_solution_is_measured_once_and_only_where_it_matters(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measured = []
    original = Allowances._taken

    def taken(self: Allowances, *arguments: object) -> float:
        measured.append(arguments)
        return original(self, *arguments)

    monkeypatch.setattr(Allowances, "_taken", taken)
    task = with_canonical(RIGHT)
    with Grader(workers=2, limits=TIGHT) as grader:
        grader.grade([GradeItem(task, fence(RIGHT + PASSES))] * 4)
        assert not measured
        grader.grade([GradeItem(task, fence(ENDLESS))] * 2)
    assert len(measured) == 1


def test_a_run_that_used_the_time_of_all_answers_is_not_run_again_for_more_time_for_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Four seconds for all either way; for one answer it would be three instead of one."""
    runs = []
    original = Worker.run

    def run(self: Worker, code: bytes, *more: object, **options: object):
        runs.append(code)
        return original(self, code, *more, **options)

    monkeypatch.setattr(Worker, "run", run)
    limits = dataclasses.replace(BY_TURNS, cpu_seconds_per_test=0.5, cpu_times_canonical=5)
    task = dataclasses.replace(SIX, canonical=slow_answers(0.1))
    with Grader(workers=1, limits=limits) as grader:
        runs.clear()
        assert one(grader, slow_answers(0.9), task, own=False).error == CPU_LIMIT
    assert len(runs) == 2  # with that of the canonical solution


LOOPS_LATER = """
SEEN = []
class Solution:
    def f(self, n):
        while SEEN: pass
        SEEN.append(0)
        return {answer}
"""
BY_TURNS = Limits(cpu_seconds=1, cpu_seconds_per_test=1, cpu_seconds_per_answer=1, wall_seconds=20)
SIX = dataclasses.replace(DOUBLE, tests=DOUBLE.tests[:1] * 6)


@pytest.mark.parametrize("answer", ["2 * n", "42"])
def test_a_loop_ends_at_the_limit_of_one_answer_and_not_of_all_tests(answer: str) -> None:
    """Six tests may take 7 s, and each 1 s. The loop comes after a right answer, or after a wrong one."""
    with Grader(workers=1, limits=BY_TURNS) as grader:
        one(grader, RIGHT, SIX)
        began = time.monotonic()
        grade = one(grader, LOOPS_LATER.format(answer=answer), SIX)
    assert not grade.gt_pass and time.monotonic() - began < 4


def test_slow_answers_may_take_the_time_of_all_tests_together() -> None:
    with Grader(workers=1, limits=BY_TURNS) as grader:
        assert one(grader, slow_answers(0.6), SIX).gt_pass
        grade = one(grader, slow_answers(1.6), SIX)
        assert (grade.gt_pass, grade.error) == (False, CPU_LIMIT)


def test_answers_in_time_count_even_when_the_grader_is_late_to_read_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As in a process that trains beside it. At the second look it stands still until an answer has come and
    more than the time of one has gone since the first."""
    original = Watch.reached
    late = iter([0.0, 1.5])

    def reached(watch: Watch, *unread: Callable[[], bool]) -> str | None:
        until = next(late, 0.0)
        while sum(map(computed, descendants_of(watch._zygote))) < until:
            time.sleep(0.01)
        return original(watch, *unread)

    monkeypatch.setattr(Watch, "reached", reached)
    with Grader(workers=1, limits=BY_TURNS) as grader:
        assert one(grader, slow_answers(0.9), SIX).gt_pass
    assert not list(late)


def test_one_answer_may_take_a_multiple_of_what_the_canonical_solution_takes() -> None:
    limits = dataclasses.replace(BY_TURNS, cpu_times_canonical=5)
    task = dataclasses.replace(SIX, canonical=slow_answers(0.1))  # 0.6 s for all: 3 s for each
    with Grader(workers=1, limits=limits) as grader:
        assert one(grader, slow_answers(1.6), SIX).error == CPU_LIMIT
        assert one(grader, slow_answers(1.6, once=True), task).gt_pass


@pytest.mark.parametrize(("code", "error"), [(ENDLESS, CPU_LIMIT), (SLEEPS, WALL_LIMIT)])
def test_a_kill_for_time_is_reported_as_that(code: str, error: str) -> None:
    with Grader(workers=1, limits=TIGHT) as grader:
        grade = one(grader, code)
    assert (grade.label, grade.error) == ("incorrect", error)


# --- killed from outside ---


@pytest.fixture
def killer(monkeypatch):
    """`killer(n)`: something outside kills the child of the next n runs."""
    left, original = [0], Worker.run

    def kill_children(zygote: int) -> None:
        until = time.monotonic() + 5
        while time.monotonic() < until:
            for pid in children_of(zygote):
                os.kill(pid, signal.SIGKILL)
                return
            time.sleep(0.005)

    def run(self: Worker, *arguments: object, **options: object):
        if left[0] > 0:
            left[0] -= 1
            threading.Thread(target=kill_children, args=(self.zygote,)).start()
        return original(self, *arguments, **options)

    monkeypatch.setattr(Worker, "run", run)

    def set_left(runs: int) -> None:
        left[0] = runs

    return set_left


@pytest.mark.parametrize("code", [busy(0.4), busy(0.4, WRONG + PASSES)])
def test_a_run_that_is_killed_from_outside_is_tried_again(killer, code: str) -> None:
    with Grader(workers=1) as grader:
        undisturbed = one(grader, code)
        killer(2)
        assert one(grader, code) == undisturbed


def test_a_run_that_is_killed_each_time_is_an_error_that_names_it(killer) -> None:
    slow = GradeItem(DOUBLE, fence(busy(0.4)))
    with Grader(workers=1) as grader:
        killer(3)
        with pytest.raises(InputError, match="killed from outside.*out of memory.*--workers"):
            grader.grade([slow])
        killer(3)
        pending = grader.start()
        pending.add_all([slow, GradeItem(DOUBLE, fence(RIGHT))])
        outcomes = pending.outcomes()
        assert isinstance(outcomes[0], NotGraded)
        assert outcomes[1].label == "correct"
        assert one(grader, busy(0.4)).gt_pass


def test_memory_that_the_limit_denies_is_the_completions_own_fault() -> None:
    with quick_grader() as grader:
        grade = one(grader, "x = bytearray(1 << 34)\n" + RIGHT)
    assert (grade.label, grade.error) == ("incorrect", "MemoryError: ")


# --- workers that cannot start ---


def files(directory: Path, **fields: str) -> tuple[Path, Path]:
    task = {
        "problem_id": "p",
        "statement": "Double n.",
        "starter_code": "class Solution:\n    def f(self, n):\n",
        "method": "f",
        "tests": ["f(n = 2) == 4", "f(n = 5) == 10"],
    }
    write_jsonl(directory / "problems.jsonl", [task | fields])
    write_jsonl(directory / "rows.jsonl", [{"problem_id": "p", "completion": fence(RIGHT)}])
    return directory / "problems.jsonl", directory / "rows.jsonl"


WITHOUT_WORKERS = """
import sys
import grade
from hackward.base.faults import exit_on_fault
from hackward.base.flags import command_line
from hackward.grading import worker
worker.worker_command = lambda bubblewrap: [{program!r}]
sys.argv = ["grade.py", {rows!r}, "--problems", {problems!r}]
exit_on_fault(lambda: grade.main(command_line(grade.GradeFlags)))
"""


@pytest.mark.parametrize("program", ["/bin/false", "/no/such/program"])
def test_workers_that_cannot_start_end_the_command_with_code_2_and_one_line(
    tmp_path: Path, program: str
) -> None:
    problems, rows = files(tmp_path)
    code = WITHOUT_WORKERS.format(program=program, rows=str(rows), problems=str(problems))
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 2, done.stderr
    assert "a grading worker did not start" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_worker_that_stops_starting_ends_the_batch_with_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with Grader(workers=1) as grader:
        monkeypatch.setattr(worker, "worker_command", lambda bubblewrap: ["/no/such/program"])
        with pytest.raises(InputError, match="did not start"):
            one(grader, RIGHT)


# --- canonical solutions ---


def test_a_canonical_solution_that_does_not_pass_is_named_with_the_reason() -> None:
    tasks = [
        with_canonical(code)
        for code in (RIGHT, WRONG, "import numpy.linalg\n" + RIGHT, "import heapq\n1 / 0", None)
    ]
    items = canonical_items(tasks)
    with quick_grader() as grader:
        found = failures(items, grader.grade(items))
    assert [(failure.reason, failure.marked) for failure in found] == [
        ("test 2: wrong answer", False),
        ("imports numpy, which graded code has not", True),
        ("ZeroDivisionError: division by zero", False),
    ]


@pytest.mark.parametrize(
    ("code", "missing"),
    [
        ("import math, os.path\nfrom collections.abc import Sized", []),
        ("from sortedcontainers import SortedList", []),
        ("import numpy as np\nfrom scipy.special import comb", ["numpy", "scipy"]),
        ("def f():\n    import numpy", ["numpy"]),
    ],
)
def test_packages_that_graded_code_has_not(code: str, missing: list[str]) -> None:
    assert missing_imports(code) == missing


@pytest.mark.parametrize(
    ("canonical", "code", "said"),
    [
        (RIGHT, 0, "1 of 1 canonical solutions pass"),
        (WRONG, 1, "FAILS: p: test 1: wrong answer"),
        ("import numpy\n" + RIGHT, 0, "marked: p: imports numpy"),
    ],
)
def test_the_command_grades_the_problems_own_solutions(
    tmp_path: Path, canonical: str, code: int, said: str
) -> None:
    problems, _ = files(tmp_path, canonical=canonical, setup_code=NODES)
    done = subprocess.run(
        [sys.executable, str(ROOT / "grade.py"), "--canonical", "--problems", str(problems)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert said in done.stdout


def test_a_test_that_is_answered_in_time_does_not_excuse_the_next() -> None:
    code = "class Solution:\n    def f(self, n):\n        while n == 0: pass\n        return 2 * n\n"
    with Grader(workers=1, limits=TIGHT) as grader:
        assert one(grader, code).error == CPU_LIMIT
