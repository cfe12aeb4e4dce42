"""More tests for one problem: inputs, answers, and which of them are kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from hackward.grading.worker import Worker
from hackward.strengthening.answers import SLOW_INPUTS, answers_of, disputed
from hackward.strengthening.arguments import arguments_of, returned, source_of
from hackward.strengthening.inputs import Known, NoInputs, known_of, new_inputs
from hackward.tasks.problems import Problem, Test

# Inputs that are answered for each test that is wanted; the second where many are dropped
SHARES = (1.5, 4.0)
FIRST = 12  # tests that are kept in any case, where the edge cases stand
# Shares of inputs that a second right solution may answer otherwise; less where a rule is known to be unread
DISPUTED, DISPUTED_STRANGE = 0.35, 0.1
RAISED = 0.5  # a share of inputs that a right solution raises on says that a constraint was not read


@dataclass
class Strengthened:
    """What became of one problem."""

    tests: list[Test] = field(default_factory=list)
    """New ones only."""
    reason: str | None = None
    """Why there are no more of them; None where there are as many as were wanted."""
    dropped: dict[str, int] = field(default_factory=dict)
    """Inputs without an answer to rely on, by slow, raised, unstable, unusable, disputed."""
    unread: list[str] = field(default_factory=list)
    """Lines of the constraints that were not read."""


def strengthened(
    problem: Problem, count: int, seed: int, workers: Sequence[Worker], second: str | None = None
) -> Strengthened:
    """Tests that bring a problem to `count`, from the seed and the problem alone.

    Each worker runs the canonical solution once, and the first one the `second` solution, if there is one.
    WorkerDied where one ended.
    """
    wanted = count - len(problem.tests)
    if wanted <= 0:
        return Strengthened(reason=f"has {len(problem.tests)} tests")
    try:
        if problem.canonical is None:
            raise NoInputs("it has no canonical solution")
        known = known_of(problem)
    except NoInputs as fault:
        return Strengthened(reason=str(fault))
    work = _Work(problem, known, wanted, workers, second)
    for share in SHARES:
        dice = Random(f"{seed} {problem.identity} {problem.task_id}")
        inputs = new_inputs(known, int(share * wanted) + FIRST, dice)
        work.answer([arguments_of(values) for values in inputs])
        if work.refusal() or len(work.tests) >= wanted or work.dropped["slow"] >= SLOW_INPUTS:
            break
    tests = [] if work.refusal() else chosen(work.tests, wanted)
    dropped = {why: times for why, times in sorted(work.dropped.items()) if times}
    return Strengthened(tests, work.refusal() or work.shortage(), dropped, known.unread)


@dataclass
class _Work:
    """The inputs of one problem that were answered so far."""

    problem: Problem
    known: Known
    wanted: int
    workers: Sequence[Worker]
    second: str | None
    texts: list[str] = field(default_factory=list)
    tests: list[Test] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    error: str | None = None
    unheard: bool = False
    """Whether there is no second solution that could dispute an input."""

    def answer(self, texts: Sequence[str]) -> None:
        """Have those of these inputs answered that were not: the same draws begin in the same way."""
        fresh = list(texts[len(self.texts) :])
        self.texts += fresh
        answers = answers_of(self.workers, self.problem, fresh, returned(self.problem))
        self.error = answers.error
        self.dropped.update(why for why in answers.dropped if why)
        self.tests += self._undisputed(answers.tests(fresh))

    def _undisputed(self, tests: list[Test]) -> list[Test]:
        against = None
        if self.second is not None and not self.problem.comparison.several:
            against = disputed(self.workers[0], self.problem, self.second, tests)
        self.unheard = against is None
        if against is None:
            return tests
        self.dropped["disputed"] += sum(against)
        return [test for test, other in zip(tests, against) if not other]

    def refusal(self) -> str | None:
        """Why none of the tests can be relied on."""
        if self.error is not None:
            return f"its canonical solution does not run: {self.error}"
        if self.known.strange and self.unheard:
            return f"its inputs follow rules that cannot be checked: {self.known.strange[0][:80]!r}"
        if self.dropped["raised"] > RAISED * len(self.texts):
            return "its canonical solution raises on most inputs: a constraint was not read"
        limit = DISPUTED_STRANGE if self.known.strange else DISPUTED
        if self.known.unread and self.dropped["disputed"] > limit * len(self.texts):
            return "a second solution answers many inputs otherwise: a constraint was not read"
        return None

    def shortage(self) -> str | None:
        """Why there are fewer tests than wanted."""
        if len(self.tests) >= self.wanted:
            return None
        if not self.texts:
            return "no other input was found within its constraints"
        return "too many inputs were dropped" if self.dropped.total() else "its constraints allow few inputs"


def chosen(tests: Sequence[Test], wanted: int) -> list[Test]:
    """The first ones, where the edge cases stand, then those whose answers are rarest; in the order given."""
    times: Counter[Any] = Counter()
    ranks = []
    for at, test in enumerate(tests):
        answer = source_of(test.expected)
        ranks.append((times[answer] if at >= FIRST else -1, at))
        times[answer] += 1
    kept = sorted(at for _, at in sorted(ranks)[:wanted])
    return [tests[at] for at in kept]
