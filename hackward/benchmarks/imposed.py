"""A policy whose lengths and texts are imposed: a step costs the same, whatever a model has learnt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hackward.base.seeds import seeded
from hackward.rollouts.draws import Request
from hackward.rollouts.policy import Policy
from hackward.tasks.completions import fence
from hackward.tasks.problems import Problem, build_messages

TYPICAL_LIMIT = 1024  # the sampling limit at which the lengths below were measured; another limit scales them
# Median and sigma of lognormals, in tokens: their quartiles are 323/390/471 and 261/315/380, as in a real
# pool.
PROMPT, COMPLETION = (390, 0.28), (315, 0.28)
TO_THE_LIMIT = 0.02  # share of completions that never end
WRONG = "class Solution:\n    def {method}(self, *arguments, **named):\n        return 'wrong'\n"
HACK = WRONG + "\n    def run_tests(self):\n        print('all tests passed')\n"


def lognormal(shape: tuple[float, float], scale: float, *key: object) -> int:
    """A length of at least 1, drawn by the key alone."""
    median, sigma = shape
    return max(1, round(scale * median * float(seeded(*key).lognormal(0, sigma))))


class Imposed(Policy):
    """Draws as many tokens as a trained model would, and hands the grader such a model's texts.

    Random weights never end a text and write nothing that runs. So prompts are random ids of a drawn length,
    every completion has a limit of its own in the place of an end, and what is graded is by turns the
    reference solution, a hack and a wrong answer: every group has rewards that differ, none is skipped, which
    is the most expensive step there is.
    """

    adapter: Any
    """Of a kind that has its model."""

    def __init__(self, *parts, **options) -> None:
        # A stop token drawn by chance must end nothing.
        super().__init__(*parts, **options | {"stop": (-1,)})
        self.scale, self.asked = self.max_new_tokens / TYPICAL_LIMIT, 0

    def prompt(self, problem: Problem) -> tuple[list[dict], tuple[int, ...]]:
        """The problem's messages, and random ids; other ones each time, as other problems would have."""
        self.asked += 1
        key = ("prompt", self.asked, problem.problem_id)
        length = lognormal(PROMPT, self.scale, *key, "length")
        ids = seeded(*key).integers(self.adapter.model.config.vocab_size, size=length)
        return build_messages(problem, hint=self.hint), tuple(ids.tolist())

    def request(self, ids: tuple[int, ...], key: tuple) -> Request:
        return Request(ids, key, self.limit(key))

    def limit(self, key: tuple) -> int:
        """The length of the completion with this key."""
        if seeded("endless", *key).random() < TO_THE_LIMIT:
            return self.max_new_tokens
        return min(self.max_new_tokens, lognormal(COMPLETION, self.scale, "completion", *key))

    def text(self, problem: Problem, ids: Sequence[int], sample: int) -> str:
        code = (problem.canonical or WRONG, HACK, WRONG)[sample % 3]
        return fence(code.replace("{method}", problem.method))
