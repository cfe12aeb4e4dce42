"""Runs the hostile battery in a process of its own and prints one JSON report: what was credited, what was left behind.

    python tests/hostile/driver.py --sandbox strict --bubblewrap 1

In a process of its own because some attacks aim at the grader, and so that it can be started as another user.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import sys
import tempfile
import time
import uuid
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

from cases import CASES  # noqa: E402

from hackward.grading import sandbox  # noqa: E402
from hackward.grading.grader import Grader  # noqa: E402
from hackward.grading.labels import GradeItem  # noqa: E402
from hackward.tasks.completions import fence  # noqa: E402
from hackward.tasks.problems import Problem, Test  # noqa: E402

INPUTS = ([91_003, 52_007, 8], [7_000_001, 3], [5, 4, 3, 2, 999_983], [2_000_003])
FOLD = Problem(
    problem_id="fold",
    task_id=None,
    statement="The sum of each number times its position, counted from 1.",
    starter_code="class Solution:\n    def fold(self, nums: List[int]) -> int:\n",
    method="fold",
    setup_code="from typing import *",
    tests=tuple(
        Test(f"(nums = {nums})", sum(number * place for place, number in enumerate(nums, 1)))
        for nums in INPUTS
    ),
    canonical=None,
    difficulty=None,
)
LIMITS = sandbox.Limits(cpu_seconds=0.6, wall_seconds=2, wall_ceiling_seconds=30, memory_mb=256)


def processes_with(mark: str) -> list[int]:
    """Processes whose command line holds ``mark``: every worker and every fork of one."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                if mark.encode() in Path(f"/proc/{entry}/cmdline").read_bytes():
                    found.append(int(entry))
            except OSError:
                continue
    return [pid for pid in found if pid != os.getpid()]


def files_with(mark: str) -> list[str]:
    """Files by that name where a process may usually write."""
    found = []
    for place in ("/tmp", "/var/tmp", "/dev/shm", os.path.expanduser("~"), str(ROOT)):
        try:
            found += [os.path.join(place, name) for name in os.listdir(place) if mark in name]
        except OSError:
            continue
    return found


def use_copy_of_the_worker(directory: Path) -> None:
    package = sandbox.ROOM.parent.parent
    copies = [directory / path.relative_to(package) for path in sandbox.ZYGOTE_FILES]
    for path, copy in zip(sandbox.ZYGOTE_FILES, copies, strict=True):
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    sandbox.ZYGOTE, sandbox.ZYGOTE_FILES = directory / sandbox.ZYGOTE.relative_to(package), tuple(copies)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sandbox", default="strict")
    parser.add_argument("--bubblewrap", type=int, default=1)
    parser.add_argument("--workers", type=int, default=3)
    options = parser.parse_args()
    mark = f"hackward-{uuid.uuid4().hex}"
    os.environ["HACKWARD_SECRET"] = mark
    chosen = [case for case in CASES if options.sandbox != "none" or not case.fenced]
    with tempfile.TemporaryDirectory() as directory:
        # The workers run a copy under a name of our own, so that theirs can be told from other graders' processes.
        home = Path(directory, "target")
        home.mkdir(mode=0o777)
        home.joinpath("secret.txt").write_text("secret")
        use_copy_of_the_worker(Path(directory, mark))
        tcp = socket.create_server(("127.0.0.1", 0))
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind(("127.0.0.1", 0))
        tcp.setblocking(False)
        udp.setblocking(False)
        values = {
            "TARGET": str(home),
            "UDP": str(udp.getsockname()[1]),
            "PORT": str(tcp.getsockname()[1]),
            "MARK": mark,
            "PROJECT": str(ROOT),
        }
        items = []
        for case in chosen:
            code = case.code
            for name, value in values.items():
                code = code.replace(name, value)
            items.append(GradeItem(FOLD, fence(code)))
        started = time.monotonic()
        choices = {
            "workers": options.workers,
            "sandbox": options.sandbox,
            "bubblewrap": bool(options.bubblewrap),
        }
        with Grader(limits=LIMITS, **choices) as grader:
            grades = grader.grade(items)
            protection = grader.protection
        seconds = time.monotonic() - started
        reached = []
        for name, listener in (("tcp", tcp), ("udp", udp)):
            try:
                listener.accept() if name == "tcp" else listener.recv(10)
                reached.append(name)
            except OSError:
                pass
        report = {
            "protection": protection,
            "cases": len(chosen),
            "seconds": round(seconds, 1),
            "wrong_credited": [
                c.name for c, g in zip(chosen, grades, strict=True) if not c.right and g.gt_pass
            ],
            "right_failed": [
                f"{c.name}: {g.error}"
                for c, g in zip(chosen, grades, strict=True)
                if c.right and not g.gt_pass
            ],
            "survivors": processes_with(mark),
            "files": files_with(mark),
            "target": sorted(os.listdir(home)),
            "reached": reached,
            "uid": os.geteuid(),
        }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
