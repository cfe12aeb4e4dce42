"""The battery of hostile completions, as root and as an ordinary user, with and without bubblewrap."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from hackward.grading.grader import Grader
from hackward.grading.labels import GradeItem
from hackward.tasks.completions import fence
from tests.hostile.battery import SECONDS_OVER, NotHere, battery, faults
from tests.hostile.cases import CASES
from tests.hostile.driver import FOLD

ROOT = Path(__file__).resolve().parents[1]
CATEGORIES = {
    "verdict", "equality", "patching", "imports", "introspection", "memory", "cpu", "recursion", "output",
    "processes", "signals", "files", "network", "environment", "crash", "parser", "leaves", "hooks", "lines",
    "poses", "library", "calls", "metadata", "traces", "clocks", "adaptive",
}  # fmt: skip
ALL = os.environ.get("HACKWARD_SLOW") == "1"  # every case in every battery, 50 times where it is repeated


def _battery(sandbox: str, bubblewrap: bool, ordinary: bool, *options: str) -> dict[str, Any]:
    """The report on a battery, skipped where it cannot be run."""
    try:
        return battery(sandbox, bubblewrap, ordinary, *options)
    except NotHere as why:
        pytest.skip(str(why))


def test_the_battery_is_as_large_and_as_broad_as_promised() -> None:
    assert {case.category for case in CASES} == CATEGORIES
    assert len({(case.category, case.name) for case in CASES}) == len(CASES) >= 300
    assert sum(case.times >= 50 for case in CASES) >= 3


ONCE = ("--again", "0")  # what may vary is run again in test_steadiness.py
SHORT = () if ALL else ("--slow", "0", "--in-a-row", "4", *ONCE)


@pytest.mark.parametrize("sandbox", ["strict", "best-effort"] if ALL else ["strict"])
@pytest.mark.parametrize(
    ("ordinary", "bubblewrap"),
    [(False, False), (False, True), (True, False), (True, True)],
    ids=["root", "root-bubblewrap", "ordinary", "ordinary-bubblewrap"],
)
def test_no_wrong_answer_is_credited_no_right_failed_and_nothing_left(
    sandbox: str, ordinary: bool, bubblewrap: bool
) -> None:
    report = _battery(sandbox, bubblewrap, ordinary, *SHORT)
    assert report["protection"]["bubblewrap"] == bubblewrap
    assert report["cases"] == sum(ALL or not case.slow for case in CASES)
    assert faults(report) == {}


def test_no_worker_is_held_for_longer_than_its_limits() -> None:
    """Code that computes between the ticks of the scheduler, or sleeps in any way that it can find."""
    report = _battery("strict", False, os.geteuid() != 0, "--kinds", "clocks,cpu", "--workers", "9", *ONCE)
    assert report["cases"] == sum(case.category in ("clocks", "cpu") for case in CASES)
    assert faults(report) == {}


def test_fifty_identical_completions_learn_nothing_from_one_another() -> None:
    report = _battery("strict", False, os.geteuid() != 0, "--kinds", "adaptive", *ONCE)
    assert report["runs"] == 50 * sum(case.category == "adaptive" for case in CASES)
    assert faults(report) == {}


def test_without_a_sandbox_the_verdict_still_cannot_be_forged() -> None:
    report = _battery("none", False, os.geteuid() != 0, *SHORT)
    unfenced = [case for case in CASES if not case.fenced]
    assert report["cases"] == sum(ALL or not case.slow for case in unfenced)
    assert report["wrong_credited"] == []
    assert report["right_failed"] == []
    assert report["held"]["most_over"] < SECONDS_OVER


TIMES = 4  # another grader on the machine may read a file anew that a run had the kernel drop


def test_control_the_attacks_work_where_nothing_stops_them(tmp_path: Path) -> None:
    """Otherwise a battery of attacks that are broken in themselves would prove nothing."""
    names = {
        "fork",
        "write_target",
        "read_passwd",
        "proc_list",
        "proc_parent_cmdline",
        "netlink",
        "listen",
        "owner_of_a_pipe",
        "read_problems",
        "list_the_clone",
        "read_the_grader",
        "project_put_on_the_path",
        "flock",
        "sysinfo",
        "stat_etc_passwd",
        "stat_proc_self",
        "process_number",
        "clock_of_the_parent",
        "residency_by_mincore",
    }
    chosen = [case for case in CASES if case.name in names]
    words = {"TARGET": str(tmp_path), "CLONE": str(ROOT), "PROJECT": str(ROOT)}
    items = []
    for case in chosen:
        code = case.code
        for word, value in words.items():
            code = code.replace(word, value)
        items.append(GradeItem(FOLD, fence(code)))
    chosen, items = chosen * TIMES, items * TIMES  # some find what an earlier run has left
    with Grader(workers=1, sandbox="none") as grader:
        grades = grader.grade(items)
    failed = {case.name for case, grade in zip(chosen, grades, strict=True) if not grade.gt_pass}
    assert len(chosen) == TIMES * len(names)
    assert failed == names
    assert (tmp_path / "MARK").exists()
