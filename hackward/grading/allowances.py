"""How much CPU time runs of a problem may take: as much as fits what its canonical solution takes here.

    limit = max(floor, times x CPU time of the canonical solution on this machine)

There is one for the whole run, whose floor grows with the tests, and one from each answer to the next, which
ends a loop early.

A label must not depend on the machine, so a slow machine gives more. A run that ends within the floor is not
touched by the rest of the formula: the canonical solution is measured when the first run of its problem
reaches the floor, once, and kept as long as the grader.
"""

from __future__ import annotations

import threading

from hackward.grading.clocks import CPU_LIMIT, Allowed
from hackward.grading.sandbox import Limits
from hackward.grading.worker import Worker
from hackward.tasks.problems import Problem


class Canonical:
    """A check that takes every answer: what counts is how long the run takes."""

    def __init__(self, tests: int):
        self.error: str | None = None
        self.started = False
        self._lines, self._wanted = 0, tests + 2  # header, start

    @property
    def begun(self) -> bool:
        return self._lines > 0

    def line(self, data: bytes) -> bool:
        self._lines += 1
        self.started = self._lines >= 2
        return self._lines < self._wanted

    def end(self) -> None:
        pass


class Allowances:
    """CPU time per problem and kind of run. Used by all threads of a grader."""

    def __init__(self, limits: Limits):
        self._limits = limits
        self._locks: dict[int, threading.Lock] = {}
        self._measured: dict[int, tuple[Problem, float]] = {}  # the reference keeps the id from being reused

    def of(self, problem: Problem, mode: str) -> Allowed:
        """For the answers to all tests (`truth`), or for the completion's own evaluation, which is one
        answer."""
        limits = self._limits
        floors = Allowed.one_answer(limits.own_cpu_seconds)
        if mode == "truth":
            whole = limits.cpu_seconds + limits.cpu_seconds_per_test * len(problem.tests)
            floors = Allowed(whole, limits.cpu_seconds_per_answer)
        _, taken = self._measured.get(id(problem), (problem, 0.0))
        return Allowed(*(max(floor, limits.cpu_times_canonical * taken) for floor in floors))

    def measure(self, worker: Worker, problem: Problem) -> None:
        """Run the canonical solution, if there is one, and if that was not done yet."""
        if problem.canonical is None:
            return
        with self._locks.setdefault(id(problem), threading.Lock()):
            if id(problem) not in self._measured:
                self._measured[id(problem)] = (problem, self._taken(worker, problem, problem.canonical))

    def _taken(self, worker: Worker, problem: Problem, canonical: str) -> float:
        worker.load(problem)
        check, longest = Canonical(len(problem.tests)), self._limits.canonical_cpu_seconds
        data, allowed = canonical.encode("utf-8", "replace"), Allowed.one_answer(longest)
        ending = worker.run(data, "truth", check, allowed)
        return longest if ending["how"] == CPU_LIMIT else ending.get("cpu", 0.0)
