"""More tests for one problem: inputs, answers, and which of them are kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from hackward.grading.worker import Worker
from hackward.strengthening.answers import answers_of, disputed
from hackward.strengthening.arguments import arguments_of, returned, source_of
from hackward.strengthening.inputs import NoInputs, known_of, new_inputs
from hackward.tasks.problems import Problem, Test

SHARES = (
    1.5,
    4.0,
)  # inputs that are answered for each test that is wanted; the second where many are dropped
FIRST = 12  # tests that are kept in any case, where the edge cases stand
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
    found = Strengthened(unread=known.unread)
    texts: list[str] = []
    dropped: Counter[str] = Counter()
    for share in SHARES:
        dice = Random(f"{seed} {problem.identity} {problem.task_id}")
        made = [arguments_of(values) for values in new_inputs(known, int(share * wanted) + FIRST, dice)]
        fresh = made[len(texts) :]  # the same draws begin in the same way
        texts += fresh
        answers = answers_of(workers, problem, fresh, returned(problem))
        if answers.error is not None:
            found.reason = f"its canonical solution does not run: {answers.error}"
            return found
        new = answers.tests(fresh)
        if second is not None and not problem.comparison.several:
            against = disputed(workers[0], problem, second, new)
            new = [test for test, other in zip(new, against) if not other]
            dropped["disputed"] += sum(against)
        found.tests += new
        dropped.update(why for why in answers.dropped if why)
        if len(found.tests) >= wanted or dropped["raised"] > RAISED * len(texts):
            break
    found.dropped = {why: times for why, times in sorted(dropped.items()) if times}
    found.reason = _reason(found, wanted, len(texts))
    found.tests = chosen(found.tests, wanted) if dropped["raised"] <= RAISED * len(texts) else []
    return found


def _reason(found: Strengthened, wanted: int, tried: int) -> str | None:
    """Why there are fewer tests than wanted."""
    if found.dropped.get("raised", 0) > RAISED * tried:
        return "its canonical solution raises on most inputs: a constraint was not read"
    if len(found.tests) >= wanted:
        return None
    if not tried:
        return "no other input was found within its constraints"
    return "too many inputs were dropped" if found.dropped else "its constraints allow few inputs"


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
