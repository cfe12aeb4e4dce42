"""The battery of hostile completions, as root and as an unprivileged user, with and without bubblewrap."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hackward.grading.grader import Grader
from hackward.grading.labels import GradeItem
from hackward.grading.sandbox import usable_bubblewrap
from hackward.tasks.completions import fence
from tests.hostile.cases import CASES
from tests.hostile.driver import FOLD

ROOT = Path(__file__).resolve().parents[1]
NOBODY = 65534
CATEGORIES = {
    "verdict", "equality", "patching", "imports", "introspection", "memory", "cpu", "recursion", "output",
    "processes", "signals", "files", "network", "environment", "crash", "parser", "leaves",
}  # fmt: skip


def _closed_ancestor(path: Path) -> Path | None:
    """The topmost directory on the way to `path` that others may not pass, None if the way is open."""
    for ancestor in [*reversed(path.parents), path]:
        if not ancestor.stat().st_mode & 0o001:
            return ancestor
    return None


def _as_nobody(command: list[str]) -> list[str]:
    """`command` as an unprivileged user, in a mount namespace where the interpreter is reachable for it."""
    needed = list(dict.fromkeys([Path(sys.base_prefix), Path(sys.prefix), ROOT]))
    closed = {_closed_ancestor(path) for path in needed} - {None}
    steps = ["set -e", "old=$(mktemp -d)"]
    for ancestor in sorted(closed):
        steps += [
            f"mount --bind {shlex.quote(str(ancestor))} $old",
            f"mount -t tmpfs -o mode=0755 tmpfs {ancestor}",
        ]
        for path in needed:
            if path.is_relative_to(ancestor):
                target, source = shlex.quote(str(path)), f"$old/{path.relative_to(ancestor)}"
                steps += [f"mkdir -p {target}", f"mount --bind {source} {target}"]
        steps.append("umount $old")
    become = f"setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups"
    steps += ["rmdir $old", f"exec {become} {shlex.join(command)}"]
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", "\n".join(steps)]


def _battery(sandbox: str, bubblewrap: bool, unprivileged: bool) -> dict:
    if bubblewrap and usable_bubblewrap() is None:
        pytest.skip("no bubblewrap that can make a namespace here")
    command = [sys.executable, "-B", str(ROOT / "tests/hostile/driver.py"), "--sandbox", sandbox]
    command += ["--bubblewrap", str(int(bubblewrap))]
    if unprivileged and os.geteuid() == 0:
        if not (shutil.which("setpriv") and shutil.which("unshare")):
            pytest.skip("setpriv and unshare are needed to become another user")
        command = _as_nobody(command)
    elif not unprivileged and os.geteuid() != 0:
        pytest.skip("these tests do not run as root")
    done = subprocess.run(
        command, capture_output=True, text=True, cwd="/", start_new_session=True, timeout=300
    )
    if done.returncode and "unshare" in done.stderr:
        pytest.skip(f"no mount namespace here: {done.stderr.strip()[-100:]}")
    assert done.returncode == 0, f"the process that graded ended with {done.returncode}: {done.stderr[-500:]}"
    return json.loads(done.stdout)


def _assert_held(report: dict) -> None:
    assert report["wrong_credited"] == []
    assert report["right_failed"] == []
    assert report["survivors"] == []
    assert report["files"] == []
    assert report["target"] == ["secret.txt"]
    assert report["reached"] == []


def test_the_battery_is_as_large_and_as_broad_as_promised() -> None:
    assert {case.category for case in CASES} == CATEGORIES
    assert len({(case.category, case.name) for case in CASES}) == len(CASES) >= 60


@pytest.mark.parametrize(
    ("unprivileged", "bubblewrap"),
    [(False, False), (False, True), (True, False), (True, True)],
    ids=["root", "root-bubblewrap", "unprivileged", "unprivileged-bubblewrap"],
)
def test_no_wrong_answer_is_credited_no_right_failed_and_nothing_left(
    unprivileged: bool, bubblewrap: bool
) -> None:
    report = _battery("strict", bubblewrap, unprivileged)
    assert (report["uid"] != 0) == unprivileged
    assert report["protection"]["bubblewrap"] == bubblewrap
    assert report["cases"] == len(CASES)
    _assert_held(report)


def test_without_a_sandbox_the_verdict_still_cannot_be_forged() -> None:
    report = _battery("none", False, unprivileged=os.geteuid() != 0)
    assert report["cases"] == sum(not case.fenced for case in CASES)
    assert report["wrong_credited"] == []
    assert report["right_failed"] == []


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
    }
    chosen = [case for case in CASES if case.name in names]
    words = {"TARGET": str(tmp_path), "CLONE": str(ROOT), "PROJECT": str(ROOT)}
    items = []
    for case in chosen:
        code = case.code
        for word, value in words.items():
            code = code.replace(word, value)
        items.append(GradeItem(FOLD, fence(code)))
    with Grader(workers=1, sandbox="none") as grader:
        grades = grader.grade(items)
    held = {case.name for case, grade in zip(chosen, grades, strict=True) if grade.gt_pass}
    assert len(chosen) == len(names)
    assert held == set()
    assert (tmp_path / "MARK").exists()
