"""What both sides of section peers are given: the same prompts, lengths and rewards. Our policy of them."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence

from hackward.base.seeds import seeded
from hackward.benchmarks.alone import tell
from hackward.benchmarks.imposed import PROMPT, TYPICAL_LIMIT, Imposed, lognormal
from hackward.grading.labels import Grade, GradeItem, label_of, unrunnable
from hackward.rollouts.rollout import Rollout
from hackward.tasks.problems import Problem, build_messages

ENOUGH = 2  # finished steps that say something: the first warms up
EARNED = (True, False, False)  # by turns: does a rollout pass? No group earns the same throughout.


def prompt_of(number: int, vocabulary: int, limit: int) -> tuple[int, ...]:
    """Random ids of the prompt with this number, of a real prompt's length for this limit."""
    length = lognormal(PROMPT, limit / TYPICAL_LIMIT, "peers", number, "length")
    return tuple(seeded("peers", number).integers(vocabulary, size=length).tolist())


def earned(sample: int) -> bool:
    """Whether a group's rollout with this number passes."""
    return EARNED[sample % len(EARNED)]


class Paid:
    """In the place of the grader: a text that is "True" passes. It takes no time."""

    def start(self) -> Paid:
        self.grades: list[Grade] = []
        return self

    def add(self, item: GradeItem) -> int:
        passes = item.completion == str(True)
        label = label_of(passes, attempted=False, own_pass=False)
        grade = dataclasses.replace(unrunnable(""), fmt_ok=True, gt_pass=passes, label=label)
        self.grades.append(grade)
        return len(self.grades) - 1

    def result(self) -> list[Grade]:
        return self.grades


class Exact(Imposed):
    """Draws prompts by their number, every completion to the limit, and pays without grading."""

    first: float | None = None
    """When the first step of the process began, on the clock of time.monotonic."""
    found: Callable[[], dict] | None = None
    """What the finished steps say; it is told once there are enough of them."""

    def __init__(self, *parts, **options) -> None:
        super().__init__(*parts, **options)
        self.grader = Paid()

    def prompt(self, problem: Problem) -> tuple[list[dict], tuple[int, ...]]:
        ids = prompt_of(self.asked, self.adapter.model.config.vocab_size, self.max_new_tokens)
        self.asked += 1
        return build_messages(problem, hint=self.hint), ids

    def limit(self, key: tuple) -> int:
        return self.max_new_tokens

    def text(self, problem: Problem, ids: Sequence[int], sample: int) -> str:
        return str(earned(sample))

    def rollouts(self, *wanted, **options) -> list[list[Rollout]]:
        if Exact.first is None:
            Exact.first = time.monotonic()
        done, found = options["step"], Exact.found
        tell(f"step {done + 1}", found() if found is not None and done >= ENOUGH else None)
        return super().rollouts(*wanted, **options)
