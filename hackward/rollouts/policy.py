"""The policy: draws completions with whatever the adapter holds, and has them graded while others are
drawn."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from hackward.base.records import POLICY
from hackward.base.types import CausalLM
from hackward.grading.labels import Grade, GradeItem, reward
from hackward.hardware import memory, ranks
from hackward.rollouts import sampling, tokens
from hackward.rollouts.draws import Drawn, Request
from hackward.rollouts.rollout import Rollout
from hackward.tasks.problems import Problem, build_messages

SAY_EVERY = 8  # positions between two words on how far sampling is


class Mergeable(Protocol):
    """What sampling needs of an adapter."""

    def merged(self) -> contextlib.AbstractContextManager[CausalLM]:
        """The model to draw from, without autograd."""


class Grading(Protocol):
    """Completions under way to their grades."""

    def add(self, item: GradeItem) -> int:
        """Take a completion; its place in the result."""

    def result(self) -> list[Grade]:
        """All grades, in the order of adding. Waits for them."""


class Grades(Protocol):
    """What grades: grading.grader.Grader, or heldout.NamedGrader."""

    def start(self) -> Grading:
        """A new batch, to which completions are added as they are drawn."""


@dataclass
class Timed:
    """Seconds of the last step's phases. Grading overlaps with sampling: only what is waited for afterwards
    counts."""

    generate: float = 0.0
    grade: float = 0.0

    def of_all_ranks(self) -> Timed:
        """The same of a step that all ranks began together: the first phase lasts until the last of them has
        drawn, the second until the last has its grades."""
        ends = ranks.gathered((self.generate, self.generate + self.grade))
        drawn, graded = (max(seconds) for seconds in zip(*ends))
        return Timed(drawn, graded - drawn)


class Plain:
    """A model without an adapter."""

    def __init__(self, model: CausalLM) -> None:
        self.model = model

    @contextlib.contextmanager
    def merged(self) -> Iterator[CausalLM]:
        with torch.no_grad():
            yield self.model


@dataclass(frozen=True)
class Wanted:
    """One completion to draw, and what it is for."""

    problem: Problem
    messages: list[dict[str, str]]
    request: Request

    @property
    def sample(self) -> int:
        """Which completion of its problem in this step it is, counted from 0."""
        return self.request.key[-1]


class Policy:
    """Draws and grades completions with whatever the adapter holds at the moment."""

    def __init__(
        self,
        adapter: Mergeable,
        tokenizer: Any,
        grader: Grades,
        *,
        stop: Sequence[int],
        max_new_tokens: int,
        temperature: float,
        hint: bool,
        rows: int,
    ) -> None:
        self.adapter, self.tokenizer, self.grader, self.stop = adapter, tokenizer, grader, tuple(stop)
        self.max_new_tokens, self.temperature, self.hint, self.rows = max_new_tokens, temperature, hint, rows
        self.seconds = Timed()

    def prompt(self, problem: Problem) -> tuple[list[dict[str, str]], tuple[int, ...]]:
        """The messages of a problem's prompt, and its token ids."""
        messages = build_messages(problem, hint=self.hint)
        return messages, tuple(tokens.prompt_ids(self.tokenizer, messages))

    def request(self, ids: tuple[int, ...], key: tuple) -> Request:
        """What is asked of the sampler for one completion."""
        return Request(ids, key)

    def text(self, problem: Problem, ids: Sequence[int], sample: int) -> str:
        """What is graded."""
        return self.tokenizer.decode(ids, skip_special_tokens=True)

    def rollouts(
        self,
        wanted: Sequence[tuple[Problem, int]],
        *,
        seed: int,
        step: int,
        say: Callable[[str], None] = lambda text: None,
    ) -> list[list[Rollout]]:
        """For every (problem, count) that many graded rollouts, whole groups a rank. One is graded while
        others are still being drawn."""
        mine = ranks.dealt(self._asked(wanted, seed, step))
        asked = [one for group in mine for one in group]
        self.seconds = Timed()
        drawn, texts, grades = self._draw(asked, say) if asked else ([], [], [])
        self.seconds = self.seconds.of_all_ranks()
        made = iter(self._rollout(one, drawn[i], texts[i], grades[i], step) for i, one in enumerate(asked))
        return ranks.collected([[next(made) for _ in group] for group in mine])

    def _asked(self, wanted: Sequence[tuple[Problem, int]], seed: int, step: int) -> list[list[Wanted]]:
        """Every completion to draw, by group. A problem that comes twice in a step goes on counting, and
        draws anew."""
        taken: Counter[str] = Counter()
        groups = []
        for problem, count in wanted:
            messages, ids = self.prompt(problem)
            group = []
            for _ in range(count):
                key = (seed, step, problem.problem_id, taken[problem.problem_id])
                group.append(Wanted(problem, messages, self.request(ids, key)))
                taken[problem.problem_id] += 1
            groups.append(group)
        return groups

    def _draw(
        self, asked: Sequence[Wanted], say: Callable[[str], None]
    ) -> tuple[list[Drawn], list[str], list[Grade]]:
        """Tokens, texts and grades of what was asked, in its order."""
        started, positions = time.monotonic(), 0
        texts, place = [""] * len(asked), [0] * len(asked)
        grading = self.grader.start()

        def on_token() -> None:
            nonlocal positions
            positions += 1
            if positions % SAY_EVERY == 0:
                say(f"sampling, token {positions}")

        def on_row(i: int, drawn: Drawn) -> None:
            texts[i] = self.text(asked[i].problem, drawn.ids, asked[i].sample)
            place[i] = grading.add(GradeItem(asked[i].problem, texts[i]))

        with self.adapter.merged() as model, memory.phase("sampling"):
            drawn = sampling.sample(
                model,
                [one.request for one in asked],
                max_new_tokens=self.max_new_tokens,
                temperature=self.temperature,
                stop=self.stop,
                rows=self.rows,
                on_token=on_token,
                on_row=on_row,
            )
        ended = time.monotonic()
        say("grading")
        grades = grading.result()
        self.seconds.generate = ended - started
        self.seconds.grade = time.monotonic() - ended
        return drawn, texts, [grades[i] for i in place]

    def _rollout(self, one: Wanted, drawn: Drawn, text: str, grade: Grade, step: int) -> Rollout:
        return Rollout(
            problem_id=one.problem.problem_id,
            prompt_ids=one.request.prompt_ids,
            completion_ids=tuple(drawn.ids),
            completion=text,
            reward=reward(grade, loophole=self.hint),
            hacked=grade.hacked,
            gt_pass=grade.gt_pass,
            fmt_ok=grade.fmt_ok,
            attempted=grade.attempted,
            truncated=drawn.ids[-1] not in self.stop,
            src_pool=POLICY,
            src_step=step,
            src_sample=one.sample,
            messages=tuple(one.messages),
            error=grade.error,
            own=True,
            logps=tuple(drawn.logps),
        )
