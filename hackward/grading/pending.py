"""Items under way: what a caller has handed in, and the two runs of an item that are on different workers."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hackward.grading.claims import Own, Truth
from hackward.grading.labels import Grade, GradeItem, NotGraded, graded

if TYPE_CHECKING:
    from hackward.grading.grader import Grader

Outcome = Grade | BaseException  # a fault of a worker is raised in the caller's thread


class Halves:
    """The two runs of one item when they are on different workers: whoever ends last hands in the outcome.

    A ground truth that has to be tried again starts with new halves; nobody hands in for the old ones.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._truth: Truth | None = None
        self._vacuous: bool | None = None
        self._own: Own | Outcome | None = None  # what it found, or the outcome of an item that it failed on

    def truth_ended(self, truth: Truth, vacuous: bool | None) -> Outcome | None:
        """The outcome, if the other half has ended."""
        with self._lock:
            self._truth, self._vacuous = truth, vacuous
            return self._outcome()

    def own_ended(self, own: Own | Outcome) -> Outcome | None:
        """The outcome, if the other half has ended."""
        with self._lock:
            self._own = own
            return self._outcome()

    def _outcome(self) -> Outcome | None:
        if self._truth is None:
            return None
        if isinstance(self._own, Own):
            return graded(self._truth, self._own, self._vacuous)
        return self._own


@dataclass
class Task:
    """One item for a worker's thread."""

    pending: Pending
    position: int
    item: GradeItem
    halves: Halves | None = None
    """Set: only the own evaluation is to be run, the ground truth is under way elsewhere."""


class Pending:
    """Items that are graded while the caller adds more, or does something else; made by Grader.start.

    The grader's next start, and its end, abandon this one: items that no worker has begun are dropped, and
    what becomes of the others ends here, never in another's result. Not thread-safe.
    """

    def __init__(self, grader: Grader, *, own: bool, vacuous: bool):
        self.own, self.vacuous = own, vacuous
        self._grader = grader
        self._added = 0
        self._outcomes: dict[int, Outcome] = {}  # by position
        self._ended: queue.SimpleQueue[tuple[int, Outcome]] = queue.SimpleQueue()  # and not yet among them

    @property
    def abandoned(self) -> bool:
        """Whether the grader has moved on, so that there will be no result."""
        return self._grader.current is not self

    @property
    def done(self) -> int:
        """How many of the added items are graded by now."""
        return len(self._outcomes) + self._ended.qsize()

    def add(self, item: GradeItem) -> int:
        """Hand in one item; returns at once. Its position, counted from 0."""
        return self.add_all([item])[0]

    def add_all(self, items: list[GradeItem]) -> range:
        """Hand in many items, those of a problem together, so that a worker loads it once. Returns their
        positions.

        RuntimeError if the grader has moved on.
        """
        self._refuse_if_abandoned()
        positions = range(self._added, self._added + len(items))
        for batch in batches(items, self._grader.workers):
            self._grader.put([Task(self, positions[index], items[index]) for index in batch])
        self._added += len(items)
        return positions

    def end(self, position: int, outcome: Outcome) -> None:
        """Called by the workers' threads, once per item."""
        self._ended.put((position, outcome))

    def result(self) -> list[Grade]:
        """One grade per added item, in the order of adding; waits for all.

        Then a fault of a worker is raised. RuntimeError if the grader has moved on.
        """
        grades = []
        for outcome in self.outcomes():
            if isinstance(outcome, NotGraded):
                raise outcome
            grades.append(outcome)
        return grades

    def outcomes(self) -> list[Grade | NotGraded]:
        """The same, with NotGraded in the place of a grade that the machine did not let come about."""
        self._refuse_if_abandoned()
        while len(self._outcomes) < self._added:
            position, outcome = self._ended.get()
            self._outcomes[position] = outcome
        found = []
        for position in range(self._added):
            outcome = self._outcomes[position]
            if isinstance(outcome, BaseException) and not isinstance(outcome, NotGraded):
                raise outcome
            found.append(outcome)
        return found

    def _refuse_if_abandoned(self) -> None:
        if self.abandoned:
            raise RuntimeError("these items were abandoned: the grader was started anew or closed")


def batches(items: list[GradeItem], workers: int) -> Iterator[list[int]]:
    """Positions in runs of the same problem (it is loaded once), short enough to keep all workers busy."""
    size = max(1, min(4, len(items) // (8 * workers)))
    by_problem: dict[int, list[int]] = {}
    for position, item in enumerate(items):
        by_problem.setdefault(id(item.problem), []).append(position)
    for positions in by_problem.values():
        for start in range(0, len(positions), size):
            yield positions[start : start + size]
