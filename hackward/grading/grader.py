"""The grader: is a completion right, and does it cheat? It believes nothing that the completion says.

    with Grader(workers=8) as grader:
        grades = grader.grade([GradeItem(problem, completion), ...])

Worker processes (zygote.py) fork a fenced child for every run; the children never see an expected value, and
every comparison is made on this side (checks.py). How it works and what protects you: spec/grader.md.
"""

from __future__ import annotations

import dataclasses
import math
import os
import queue
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from hackward.base.faults import InputError
from hackward.grading.allowances import Allowances
from hackward.grading.checks import size_of
from hackward.grading.claims import Own, Truth
from hackward.grading.clocks import CPU_LIMIT
from hackward.grading.descriptors import check_descriptors
from hackward.grading.labels import Grade, GradeItem, NotGraded, graded, unrunnable
from hackward.grading.pending import Halves, Outcome, Pending, Task
from hackward.grading.protection import Setup
from hackward.grading.sandbox import Limits
from hackward.grading.steadiness import PERHAPS
from hackward.grading.worker import (
    LIMITS_REACHED,
    KilledFromOutside,
    Worker,
    WorkerDied,
    WorkerNotStarted,
    kill_tree,
)
from hackward.tasks.completions import extract_code
from hackward.tasks.problems import EVAL_NAME, Problem

ATTEMPTS = 3  # a run whose worker died is tried on a new worker this many times in all
PROBLEMS_KEPT = 4096  # whose bounds are remembered
AGAIN = 12  # more runs of code that may behave otherwise each time
AGAIN_CPU_SECONDS, AGAIN_SECONDS = 0.15, 2.0  # after which there is not another one

Found = TypeVar("Found")
Checked = TypeVar("Checked", Truth, Own)


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
        self._allowances = Allowances(self.limits)
        self._setup = Setup(sandbox, self.limits, eval_name, bubblewrap)
        self.protection = self._setup.protection()
        self._tasks: queue.SimpleQueue[list[Task] | None] = queue.SimpleQueue()
        self._seats = [Seat(self._setup) for _ in range(self.workers)]
        # A worker belongs to the thread that starts it: bubblewrap dies with that thread, not a caller's.
        self._threads = [
            threading.Thread(target=self._serve, args=(seat,), daemon=True) for seat in self._seats
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Grader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all workers, whatever they run, and drop all items. A second call does nothing."""
        if self._closed:
            return
        self._closed, self.current = True, None
        for seat in self._seats:
            seat.end()
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

    def _serve(self, seat: Seat) -> None:
        """The life of one worker's thread."""
        with seat:
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
        problem = task.item.problem
        code = extract_code(task.item.completion, problem.method)
        if code is None:
            return unrunnable("no code fence")
        data = code.encode("utf-8", "replace")
        if len(data) > self.limits.code_bytes:
            return unrunnable("code too long")
        halves: Halves | None = None

        def share(truth: Truth) -> None:
            """The ground truth is slow, perhaps a loop: another worker runs the own evaluation meanwhile."""
            nonlocal halves
            if truth.attempted and task.pending.own and truth.steady != PERHAPS:
                halves = Halves()
                self.put([dataclasses.replace(task, halves=halves)])

        truth = self._truth(worker, problem, data, on_slow=share)
        if halves is not None:
            return halves.truth_ended(truth, self._vacuous(worker, task, data, truth))
        grade = graded(truth, self._own(worker, task, data, truth), self._vacuous(worker, task, data, truth))
        if (
            truth.steady == PERHAPS
            and truth.error not in LIMITS_REACHED
            and self._varies(worker, task, data, grade)
        ):
            return dataclasses.replace(grade, unstable=True)
        return grade

    def _run_own(self, worker: Worker, task: Task) -> Own:
        """Only the own evaluation of an item; its ground truth runs elsewhere, so there is code."""
        problem = task.item.problem
        code = extract_code(task.item.completion, problem.method) or ""
        return self._in_time(worker, problem, code.encode("utf-8", "replace"), "own", Own)

    def _truth(self, worker: Worker, problem: Problem, data: bytes, **options: Any) -> Truth:
        """The answers to the problem's tests, judged."""
        bounds = self._bounds_of(problem)
        return self._in_time(worker, problem, data, "truth", lambda: Truth(problem, bounds), **options)

    def _own(self, worker: Worker, task: Task, data: bytes, truth: Truth, salt: int = 0) -> Own:
        """The completion's own evaluation, if it is to be run."""
        if not (truth.attempted and task.pending.own):
            return Own()
        return self._in_time(worker, task.item.problem, data, "own", Own, salt=salt)

    def _vacuous(self, worker: Worker, task: Task, data: bytes, truth: Truth) -> bool | None:
        """Whether the own evaluation passes on a stub as well, if that is to be tried."""
        if not (truth.attempted and task.pending.vacuous):
            return None
        return self._in_time(worker, task.item.problem, data, "vacuous", Own).passed

    def _varies(self, worker: Worker, task: Task, data: bytes, grade: Grade) -> bool:
        """Whether runs with other addresses, at other times, end with another label."""
        problem, until = task.item.problem, time.monotonic() + AGAIN_SECONDS
        enough = worker.spent + AGAIN_CPU_SECONDS
        for salt in range(1, AGAIN + 1):
            truth = self._truth(worker, problem, data, salt=salt)
            if graded(truth, self._own(worker, task, data, truth, salt), None).label != grade.label:
                return True
            if worker.spent > enough or time.monotonic() > until:
                break
        return False

    def _in_time(
        self,
        worker: Worker,
        problem: Problem,
        data: bytes,
        mode: str,
        new_check: Callable[[], Checked],
        on_slow: Callable[[Checked], None] = lambda check: None,
        salt: int = 0,
    ) -> Checked:
        """A check after a run of this code; after another one with more time, if the problem allows more.

        What a canonical solution takes is measured only where that can make a difference.
        """
        worker.load(problem)
        check, allowed = new_check(), self._allowances.of(problem, mode)
        ending = worker.run(data, mode, check, allowed, lambda: on_slow(check), salt)
        if ending.get("how") != CPU_LIMIT:
            return check
        self._allowances.measure(worker, problem)
        longer = self._allowances.of(problem, mode)
        # In whole seconds, as the worker gives it
        used_all = ending.get("cpu", 0.0) >= math.ceil(allowed.whole)
        if longer == allowed or (used_all and longer.whole == allowed.whole):
            return check
        check = new_check()
        worker.run(data, mode, check, longer, salt=salt)
        return check

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
        self._ended, self._ending = False, threading.Lock()

    def __enter__(self) -> Seat:
        return self

    def __exit__(self, *_: object) -> None:
        self._discard()

    def tried(self, run: Callable[[Worker], Found]) -> Found | Outcome:
        """What the run finds, tried on a new worker where one died; or the outcome of an item with no grade.

        A fault of any other kind is an outcome as well: it must reach the caller, not hang the batch.
        """
        died = WorkerDied()
        for _ in range(ATTEMPTS):
            try:
                if self._worker is None:
                    self._worker = self._setup.start_worker()
                if self._ended:
                    return NotGraded("the grader was closed")
                return run(self._worker)
            except WorkerDied as fault:
                died = fault
                self._discard()
            except BaseException as fault:
                return fault
        if isinstance(died, WorkerNotStarted):
            return InputError(str(died))
        if self._setup.fenced:
            return NotGraded(f"a run failed {ATTEMPTS} times ({died}); fewer --workers take less memory")
        ended = str(died) if isinstance(died, KilledFromOutside) else "its worker died each time"
        return unrunnable(ended)  # without a fence the code can do that itself

    def end(self) -> None:
        """From another thread: what runs is killed, and nothing is begun any more."""
        with self._ending:
            self._ended = True
            if self._worker is not None:
                kill_tree(self._worker.process)

    def _discard(self) -> None:
        with self._ending:
            if self._worker is not None:
                self._worker.close()
            self._worker = None
