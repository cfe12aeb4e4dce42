"""The grader: is a completion right, and does it cheat? It believes nothing that the completion says.

    with Grader(workers=8) as grader:
        grades = grader.grade([GradeItem(problem, completion), ...])

Worker processes (zygote.py) fork a fenced child for every run; the children never see an expected value, and
every comparison is made on this side (checks.py). How it works and what protects you: spec/grader.md.
"""

from __future__ import annotations

import dataclasses
import os
import queue
import sys
import threading
from collections.abc import Callable
from typing import TypeVar

from hackward.base.faults import InputError
from hackward.grading.checks import size_of
from hackward.grading.claims import Own, Truth
from hackward.grading.descriptors import check_descriptors
from hackward.grading.labels import Grade, GradeItem, graded, unrunnable
from hackward.grading.pending import Halves, Outcome, Pending, Task
from hackward.grading.protection import Setup
from hackward.grading.sandbox import Limits
from hackward.grading.worker import Worker, WorkerDied, WorkerNotStarted
from hackward.tasks.completions import extract_code
from hackward.tasks.problems import EVAL_NAME, Problem

ATTEMPTS = 3  # a run whose worker died is tried on a new worker this many times in all
PROBLEMS_KEPT = 4096  # whose bounds are remembered

Found = TypeVar("Found")


class Grader:
    """A context manager that owns the worker processes. `protection` says what fences them in.

    `sandbox`: "strict" raises InputError unless every probe is blocked; "best-effort" uses what there is and
    names what is missing; "none" applies limits only. In all three the expected values stay in this process.
    Not thread-safe.
    """

    def __init__(
        self,
        *,
        workers: int | None = None,
        sandbox: str = "best-effort",
        limits: Limits | None = None,
        eval_name: str = EVAL_NAME,
        bubblewrap: bool = True,
    ):
        if sys.platform != "linux":
            raise InputError(
                f"grading runs foreign code and needs Linux (fork, pidfd), this is {sys.platform}"
            )
        self.limits = limits or Limits()
        self.workers = workers or len(os.sched_getaffinity(0))
        check_descriptors(self.workers)
        self.current: Pending | None = None
        """Whose items are graded; those of any other are dropped."""
        self._closed = False
        self._bounds: dict[int, tuple[Problem, list[int]]] = {}
        self._setup = Setup(sandbox, self.limits, eval_name, bubblewrap)
        self.protection = self._setup.protection()
        self._tasks: queue.SimpleQueue[list[Task] | None] = queue.SimpleQueue()
        # A worker belongs to the thread that starts it: bubblewrap dies with that thread, not a caller's.
        self._threads = [threading.Thread(target=self._serve, daemon=True) for _ in range(self.workers)]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Grader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all workers; items that none has begun are dropped. A second call does nothing."""
        if self._closed:
            return
        self._closed, self.current = True, None
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join()

    def start(self, *, own: bool = True, vacuous: bool = False) -> Pending:
        """Begin to grade items that come one by one, with the options of grade(). One Pending at a time."""
        if self._closed:
            raise RuntimeError("the grader is closed")
        self.current = Pending(self, own=own, vacuous=vacuous)
        return self.current

    def grade(self, items: list[GradeItem], *, own: bool = True, vacuous: bool = False) -> list[Grade]:
        """One grade per item, in order.

        `own`: run a completion's own evaluation if there is one; `vacuous`: also on a solution that solves
        nothing.
        """
        pending = self.start(own=own, vacuous=vacuous)
        pending.add_all(items)
        return pending.result()

    def put(self, batch: list[Task]) -> None:
        """Hand tasks to one worker, which takes them in order."""
        self._tasks.put(batch)

    def _serve(self) -> None:
        """The life of one worker's thread."""
        with Seat(self._setup) as seat:
            while (batch := self._tasks.get()) is not None:
                for task in batch:
                    if not task.pending.abandoned:
                        self._settle(seat, task)

    def _settle(self, seat: Seat, task: Task) -> None:
        """Grade one task and hand in what comes of it, unless its other half will do so."""
        outcome: Outcome | None
        if task.halves is None:
            outcome = seat.tried(lambda worker: self._grade_item(worker, task))
        else:
            own = seat.tried(lambda worker: self._run_own(worker, task))
            outcome = task.halves.own_ended(own)
        if outcome is not None:
            task.pending.end(task.position, outcome)

    def _grade_item(self, worker: Worker, task: Task) -> Outcome | None:
        """The grade of one item. None: its other half is still running and will hand it in."""
        problem, code = task.item.problem, extract_code(task.item.completion)
        if code is None:
            return unrunnable("no code fence")
        data = code.encode("utf-8", "replace")
        if len(data) > self.limits.code_bytes:
            return unrunnable("code too long")
        worker.load(problem)
        truth, own = Truth(problem, self._bounds_of(problem)), Own()
        vacuous: bool | None = None
        halves: Halves | None = None

        def share() -> None:
            """The ground truth is slow, perhaps a loop: another worker runs the own evaluation meanwhile."""
            nonlocal halves
            if truth.attempted and task.pending.own:
                halves = Halves()
                self.put([dataclasses.replace(task, halves=halves)])

        limits = self.limits
        cpu_seconds = limits.cpu_seconds + limits.cpu_seconds_per_test * len(problem.tests)
        worker.run(data, "truth", truth, cpu_seconds, on_slow=share)
        if truth.attempted and task.pending.own and halves is None:
            worker.run(data, "own", own, limits.own_cpu_seconds)
        if truth.attempted and task.pending.vacuous:
            stub = Own()
            worker.run(data, "vacuous", stub, limits.own_cpu_seconds)
            vacuous = stub.passed
        if halves is not None:
            return halves.truth_ended(truth, vacuous)
        return graded(truth, own, vacuous)

    def _run_own(self, worker: Worker, task: Task) -> Own:
        """Only the own evaluation of an item; its ground truth runs elsewhere, so there is code."""
        own, code = Own(), extract_code(task.item.completion) or ""
        worker.load(task.item.problem)
        worker.run(code.encode("utf-8", "replace"), "own", own, self.limits.own_cpu_seconds)
        return own

    def _bounds_of(self, problem: Problem) -> list[int]:
        """Bounds of the answers' lengths. They say something of the expected values, so they stay here."""
        if id(problem) not in self._bounds:
            if len(self._bounds) > PROBLEMS_KEPT:
                self._bounds.clear()
            bounds = [8 * size_of(test.expected) + self.limits.output_bytes for test in problem.tests]
            self._bounds[id(problem)] = (problem, bounds)  # the reference keeps the id from being reused
        return self._bounds[id(problem)][1]


class Seat:
    """A thread's worker, started when it is needed and replaced when it has died; ended with the `with`."""

    def __init__(self, setup: Setup):
        self._setup = setup
        self._worker: Worker | None = None

    def __enter__(self) -> Seat:
        return self

    def __exit__(self, *_: object) -> None:
        self._discard()

    def tried(self, run: Callable[[Worker], Found]) -> Found | Outcome:
        """What the run finds, tried on a new worker where one died; or the outcome of an item with no grade.

        A fault of any other kind is an outcome as well: it must reach the caller, not hang the batch.
        """
        outcome: Outcome = unrunnable("its worker died each time")
        for _ in range(ATTEMPTS):
            try:
                if self._worker is None:
                    self._worker = self._setup.start_worker()
                return run(self._worker)
            except WorkerNotStarted as fault:
                outcome = RuntimeError(str(fault))
                self._discard()
            except WorkerDied:
                self._discard()
            except BaseException as fault:
                return fault
        return outcome

    def _discard(self) -> None:
        if self._worker is not None:
            self._worker.close()
        self._worker = None
