"""Runs the hostile battery in a process of its own and prints a JSON report: credited, left behind.

    python tests/hostile/driver.py --sandbox strict --bubblewrap 1 --slow 1

In a process of its own because some attacks aim at the grader, and so that it can be started as another user.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import shutil
import socket
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from hackward.grading import grader, sandbox  # noqa: E402
from hackward.grading.grader import Grader  # noqa: E402
from hackward.grading.labels import Grade, GradeItem  # noqa: E402
from hackward.grading.worker import Worker  # noqa: E402
from hackward.tasks.completions import fence  # noqa: E402
from hackward.tasks.problems import Problem, Test  # noqa: E402
from tests.hostile.case import IN_A_ROW, Case  # noqa: E402
from tests.hostile.cases import CASES  # noqa: E402

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
YES = (1, 1, 0, 1, 0, 0, 0, 1, 1, 0)  # what the learners have to find out


def yes_or_no(answers: Sequence[int]) -> Problem:
    """A problem whose tests are answered with these booleans, which nothing in them tells."""
    tests = tuple(Test(f"(nums = [{place}])", bool(answer)) for place, answer in enumerate(answers))
    return dataclasses.replace(FOLD, problem_id=f"learn {len(answers)}", tests=tests)


WIDE, NARROW = yes_or_no(YES), yes_or_no(YES[1:4])
LINES = 3  # workers for cases that are graded several times in a row, each with cases of its own
LIMITS = sandbox.Limits(cpu_seconds=0.6, wall_seconds=2, wall_ceiling_seconds=30, memory_mb=256)


class Targets:
    """What the attacks reach for: a writable directory, ports, and the copy of the project that runs them.

    The workers run a copy under a name of our own, so that theirs can be told from other graders' processes.
    All of the package is copied, so that a worker that let a case import or read more than it may would be
    found out.
    """

    def __init__(self, directory: Path, mark: str):
        self.home = directory / "target"
        self.home.mkdir(mode=0o777)
        self.home.joinpath("secret.txt").write_text("secret")
        self.clone = directory / mark
        shutil.copytree(
            ROOT / "hackward", self.clone / "hackward", ignore=shutil.ignore_patterns("__pycache__")
        )
        self.tcp = socket.create_server(("127.0.0.1", 0))
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(("127.0.0.1", 0))
        for listener in (self.tcp, self.udp):
            listener.setblocking(False)
        self.words = {
            "TARGET": str(self.home),
            "CLONE": str(self.clone),
            "PROJECT": str(ROOT),
            "PORT": str(self.tcp.getsockname()[1]),
            "UDP": str(self.udp.getsockname()[1]),
            "MARK": mark,
        }

    def item(self, case: Case) -> GradeItem:
        """The case with its words replaced."""
        code = case.code
        for word, value in self.words.items():
            code = code.replace(word, value)
        problem = FOLD
        if case.category == "adaptive":
            problem = NARROW if case.narrow else WIDE
        return GradeItem(problem, fence(code))

    def use_copy_of_the_worker(self) -> None:
        """Let the grader start the copy's worker."""
        sandbox.ZYGOTE_FILES = tuple(self.clone / path.relative_to(ROOT) for path in sandbox.ZYGOTE_FILES)
        sandbox.ZYGOTE = self.clone / sandbox.ZYGOTE.relative_to(ROOT)

    def reached(self) -> list[str]:
        """The ports at which something arrived."""
        found = []
        try:
            self.tcp.accept()
            found.append("tcp")
        except OSError:
            pass
        try:
            self.udp.recv(10)
            found.append("udp")
        except OSError:
            pass
        return found


def processes_with(mark: str) -> list[int]:
    """Processes whose command line holds `mark`: every worker and every fork of one."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            if mark.encode() in Path(f"/proc/{entry}/cmdline").read_bytes():
                found.append(int(entry))
        except OSError:
            continue
    return found


def files_with(mark: str) -> list[str]:
    """Files by that name where a process may usually write."""
    found = []
    for place in ("/tmp", "/var/tmp", "/dev/shm", os.path.expanduser("~"), str(ROOT)):
        try:
            found += [os.path.join(place, name) for name in os.listdir(place) if mark in name]
        except OSError:
            continue
    return found


class Stopwatch:
    """How long each run held its worker, in seconds over what its limits allow."""

    def __init__(self) -> None:
        self.longest = 0.0
        self.most_over = -math.inf
        self._run = Worker.run

    def __enter__(self) -> Stopwatch:
        def timed(worker: Worker, *arguments: Any, **named: Any) -> dict[str, Any]:
            started = time.monotonic()
            try:
                return self._run(worker, *arguments, **named)
            finally:
                seconds = time.monotonic() - started
                allowed = worker.cpu_seconds + worker.limits["wall_seconds"]
                self.longest = max(self.longest, seconds)
                self.most_over = max(self.most_over, seconds - allowed)

        Worker.run = timed  # type: ignore[method-assign]
        return self

    def __exit__(self, *_: object) -> None:
        Worker.run = self._run  # type: ignore[method-assign]


def report(graded: list[tuple[Case, Grade]], targets: Targets, mark: str) -> dict[str, Any]:
    """What was credited wrongly or failed wrongly, and what is left behind."""
    return {
        "cases": len({(case.category, case.name) for case, _ in graded}),
        "runs": len(graded),
        "wrong_credited": [case.name for case, grade in graded if not case.right and grade.gt_pass],
        "right_failed": [
            f"{case.name}: {grade.error}" for case, grade in graded if case.right and not grade.gt_pass
        ],
        "survivors": processes_with(mark),
        "files": files_with(mark),
        "target": sorted(os.listdir(targets.home)),
        "reached": targets.reached(),
        "uid": os.geteuid(),
    }


def graded_by(
    cases: list[Case], targets: Targets, options: argparse.Namespace, workers: int
) -> tuple[list[tuple[Case, Grade]], dict[str, Any]]:
    """Each case with its grades, those in a row by one worker; and what protects."""
    cases = [case for case in cases for _ in range(min(case.times, options.in_a_row))]
    with Grader(
        limits=LIMITS, workers=workers, sandbox=options.sandbox, bubblewrap=bool(options.bubblewrap)
    ) as own:
        grades = own.grade([targets.item(case) for case in cases])
        return list(zip(cases, grades, strict=True)), own.protection


def chosen_cases(options: argparse.Namespace) -> list[Case]:
    """Those that this battery runs."""
    found = []
    for case in CASES:
        unfenced = options.sandbox == "none" and case.fenced
        kind = not options.kinds or case.category in options.kinds.split(",")
        if kind and not unfenced and (options.slow or not case.slow):
            found.append(case)
    return found


def main() -> None:
    """Grade all cases, and report."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sandbox", default="strict")
    parser.add_argument("--bubblewrap", type=int, default=1)
    parser.add_argument("--slow", type=int, default=1)
    parser.add_argument("--in-a-row", type=int, default=IN_A_ROW, help="most times that a case is repeated")
    parser.add_argument(
        "--again", type=int, default=grader.AGAIN, help="more runs of code whose label may vary"
    )
    parser.add_argument("--kinds", default="", help="categories with commas between; none: all")
    parser.add_argument("--workers", type=int, default=3)
    options = parser.parse_args()
    grader.AGAIN = options.again
    mark = f"hackward-{uuid.uuid4().hex}"
    os.environ["HACKWARD_SECRET"] = mark
    cases = chosen_cases(options)
    in_a_row = [case for case in cases if case.times > 1]
    with tempfile.TemporaryDirectory() as directory, Stopwatch() as watch:
        targets = Targets(Path(directory), mark)
        targets.use_copy_of_the_worker()
        started = time.monotonic()
        once = [case for case in cases if case.times == 1]
        with ThreadPoolExecutor() as pool:
            parts = [pool.submit(graded_by, once, targets, options, options.workers)]
            for share in range(LINES):
                parts.append(pool.submit(graded_by, in_a_row[share::LINES], targets, options, 1))
        graded = [pair for part in parts for pair in part.result()[0]]
        protection = parts[0].result()[1]
        seconds = round(time.monotonic() - started, 1)
        found = report(graded, targets, mark)
    held = {"longest": round(watch.longest, 2), "most_over": round(watch.most_over, 2)}
    print(json.dumps({"protection": protection, "seconds": seconds, "held": held, **found}))


if __name__ == "__main__":
    main()
