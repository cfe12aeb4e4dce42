"""The policy: draws completions with whatever the adapter holds, and has them graded while others are drawn."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from hackward.grading.grader import Grader
from hackward.grading.labels import Grade, GradeItem, reward
from hackward.hardware import memory
from hackward.rollouts import sampling, tokens
from hackward.rollouts.draws import Drawn, Request
from hackward.rollouts.rollout import POLICY, Rollout
from hackward.rollouts.tokens import render_prompt
from hackward.tasks.problems import Problem, build_messages


@dataclass
class Timed:
    """Seconds of the last step's phases. Grading overlaps with sampling: what counts is how long it is waited for afterwards."""

    generate: float = 0.0
    grade: float = 0.0


class Plain:
    """A model without an adapter, behind the one method of an adapter that sampling needs."""

    def __init__(self, model) -> None:
        self.model = model

    @contextlib.contextmanager
    def merged(self):
        with torch.no_grad():
            yield self.model


class Policy:
    """Draws and grades completions with whatever the adapter holds at the moment."""

    def __init__(
        self,
        adapter,
        tokenizer,
        grader: Grader,
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

    def prompt(self, problem: Problem) -> tuple[list[dict], tuple[int, ...]]:
        messages = build_messages(problem, hint=self.hint)
        return messages, tuple(tokens.encode(self.tokenizer, render_prompt(self.tokenizer, messages)))

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
        """For every (problem, count) a list of that many graded rollouts. A completion is graded while others are still being drawn."""
        started, positions, taken = time.monotonic(), 0, Counter()
        prompts, owners, requests = [self.prompt(problem) for problem, _ in wanted], [], []
        for (problem, count), (messages, ids) in zip(wanted, prompts):
            first = taken[
                problem.problem_id
            ]  # a problem that comes twice in a step goes on counting, and draws anew
            requests += [self.request(ids, (seed, step, problem.problem_id, first + i)) for i in range(count)]
            owners += [(problem, messages, ids)] * count
            taken[problem.problem_id] += count

        def on_token() -> None:
            nonlocal positions
            positions += 1
            if positions % 8 == 0:
                say(f"sampling, token {positions}")

        texts, grading, place = [""] * len(requests), self.grader.start(), {}

        def on_row(i: int, drawn: Drawn) -> None:
            texts[i] = self.text(owners[i][0], drawn.ids, requests[i].key[-1])
            place[i] = grading.add(GradeItem(owners[i][0], texts[i]))

        with self.adapter.merged() as model, memory.phase("sampling"):
            completions = sampling.sample(
                model,
                requests,
                max_new_tokens=self.max_new_tokens,
                temperature=self.temperature,
                stop=self.stop,
                rows=self.rows,
                on_token=on_token,
                on_row=on_row,
            )
        self.seconds.generate, started = time.monotonic() - started, time.monotonic()
        say("grading")
        grades = grading.result()
        self.seconds.grade = time.monotonic() - started
        flat = iter(
            [
                self._rollout(*owner, request, drawn, text, grades[place[i]], step)
                for i, (owner, request, drawn, text) in enumerate(zip(owners, requests, completions, texts))
            ]
        )
        return [[next(flat) for _ in range(count)] for _, count in wanted]

    def _rollout(
        self,
        problem,
        messages,
        prompt_ids,
        request: Request,
        drawn: Drawn,
        text: str,
        grade: Grade,
        step: int,
    ) -> Rollout:
        return Rollout(
            problem_id=problem.problem_id,
            prompt_ids=prompt_ids,
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
            src_sample=request.key[-1],
            messages=tuple(messages),
            error=grade.error,
            own=True,
            logps=tuple(drawn.logps),
        )
