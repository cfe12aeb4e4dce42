"""Where a step's rollouts come from: sampled from the policy (with teacher rows mixed in, or not), or replayed from pools.

Both give the same thing, a list of groups of graded rollouts; the training loop does not know which it has. Problems and
rows are chosen by (seed, step) alone, so every arm sees the same ones.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

import memory
import pools
import problems
import sampling
from draws import Drawn, Request
from grade import Grade, GradeItem, Grader, reward
from pools import POLICY, Pool, Rollout
from store import InputError, sha256


def seeded(*key) -> np.random.Generator:
    """A generator that depends on the key alone."""
    return np.random.default_rng(int(sha256(*map(str, key))[:16], 16))


def shuffled(items: Sequence, *key) -> list:
    return [items[i] for i in seeded(*key).permutation(len(items))]


def turn(items: Sequence, start: int, count: int) -> list:
    """`count` items from `start` on, going round."""
    return [items[(start + i) % len(items)] for i in range(count)]


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

    def prompt(self, problem: problems.Problem) -> tuple[list[dict], tuple[int, ...]]:
        messages = problems.build_messages(problem, hint=self.hint)
        return messages, tuple(pools.encode(self.tokenizer, problems.render_prompt(self.tokenizer, messages)))

    def request(self, ids: tuple[int, ...], key: tuple) -> Request:
        """What is asked of the sampler for one completion."""
        return Request(ids, key)

    def text(self, problem: problems.Problem, ids: Sequence[int], sample: int) -> str:
        """What is graded."""
        return self.tokenizer.decode(ids, skip_special_tokens=True)

    def rollouts(
        self,
        wanted: Sequence[tuple[problems.Problem, int]],
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


class Sampled:
    """On-policy groups. While a teacher is mixed in, groups on its problems give some of their places to its rows.

    A teacher row takes the group's prompt, so that a group is about one prompt; its reward and labels are the pool's own,
    except that with the loophole closed it earns what the ground truth says and nothing for its own evaluation.
    """

    kind = "sampled"

    def __init__(
        self,
        policy: Policy,
        training: Sequence[problems.Problem],
        *,
        seed: int,
        prompts: int,
        group: int,
        teacher: Pool | None = None,
        teacher_rows: int = 0,
        teacher_until: int = 0,
        teacher_share: float = 0.5,
    ) -> None:
        self.policy, self.seed, self.prompts, self.group = policy, seed, prompts, group
        self.teacher, self.teacher_rows, self.teacher_until = (
            teacher,
            teacher_rows if teacher else 0,
            teacher_until,
        )
        known = {problem.problem_id: problem for problem in training}
        self.lessons = pools.of_problems(teacher, training) if teacher else {}
        taught = sorted(p for p, rows in self.lessons.items() if len(rows) >= teacher_rows)
        if teacher and not taught:
            raise InputError(f"{teacher.directory}: no problem of the teacher pool is in the problem file")
        self.taught = shuffled([known[p] for p in taught], seed, "taught")
        self.others = shuffled([p for p in training if p.problem_id not in set(taught)], seed, "others")
        if not self.taught and not self.others:
            raise InputError("no problems to train on (check --problems and --difficulty)")
        share = teacher_share if self.taught and self.others else float(bool(self.taught))
        self.from_taught = max(
            round(prompts * share), int(share > 0)
        )  # a teacher that was asked for is never rounded away

    @property
    def seconds(self) -> Timed:
        return self.policy.seconds

    def pools(self) -> list[dict]:
        return [self.teacher.describe() | {"problems_used": len(self.taught)}] if self.teacher else []

    def groups(self, step: int, say: Callable[[str], None] = lambda text: None) -> list[list[Rollout]]:
        mixed = self.teacher_rows if step < self.teacher_until else 0
        chosen = [(p, mixed) for p in turn(self.taught, step * self.from_taught, self.from_taught)]
        rest = self.prompts - self.from_taught
        chosen += [(p, 0) for p in turn(self.others, step * rest, rest)]
        own = self.policy.rollouts(
            [(p, self.group - taught) for p, taught in chosen], seed=self.seed, step=step, say=say
        )
        return [
            rows + self._lesson(problem, rows[0], taught, step)
            for (problem, taught), rows in zip(chosen, own)
        ]

    def _lesson(self, problem: problems.Problem, sibling: Rollout, count: int, step: int) -> list[Rollout]:
        if not count:
            return []
        rows = shuffled(self.lessons[problem.problem_id], self.seed, step, problem.problem_id, "teacher")[
            :count
        ]
        rewards = [row.reward if self.policy.hint else reward(row, loophole=False) for row in rows]
        return [
            replace(row, prompt_ids=sibling.prompt_ids, messages=sibling.messages, reward=earned)
            for row, earned in zip(rows, rewards)
        ]


def by_identity(pool: Pool) -> dict[str, list[Rollout]]:
    """The pool's rows by the problem that their prompts state."""
    known: dict[str, list[Rollout]] = {}
    for rollout in pool.rollouts:
        known.setdefault(rollout.identity, []).append(rollout)
    return known


class Replayed:
    """Groups from pools: equal parts of each, of the same problem wherever all pools have it.

    Problems that v_hack was made from (`seen`, by identity) are left out, so that it is never judged on what it has seen;
    where nothing else is left they stay in, and `pools()` says so, as it does (null) when it is not known what was seen.
    """

    kind = "replay"

    def __init__(
        self, sources: Sequence[Pool], *, seed: int, prompts: int, group: int, seen: Sequence[str] | None = ()
    ) -> None:
        self.sources, self.seed, self.prompts, self.seconds = sources, seed, prompts, Timed()
        self.each = group // len(sources)
        if self.each * len(sources) != group:
            raise InputError(f"--group {group} does not divide among {len(sources)} pools")
        self.rows = [by_identity(pool) for pool in sources]
        enough = [{p for p, rows in known.items() if len(rows) >= self.each} for known in self.rows]
        for pool, ids in zip(sources, enough):
            if not ids:
                raise InputError(
                    f"{pool.directory}: no problem has {self.each} rollouts, this pool's part of --group {group}"
                )
        if len({pool.name for pool in sources}) < len(sources):
            raise InputError(
                f"{sources[1].directory}: both pools are called {sources[1].name!r}; their rows could not be told apart"
            )
        fresh = [ids - set(seen or ()) for ids in enough]
        self.overlap = not all(fresh)
        usable = enough if self.overlap else fresh
        common = set.intersection(*usable)
        if not common and len(sources) > 1 and not self.overlap and set.intersection(*enough):
            common, self.overlap = set.intersection(*enough), True
        self.same_problem = bool(common)
        self.seen_known = seen is not None
        lists = [sorted(common)] * len(sources) if common else [sorted(ids) for ids in usable]
        self.order = [shuffled(ids, seed, "replay", 0 if common else i) for i, ids in enumerate(lists)]

    def pools(self) -> list[dict]:
        facts = {
            "same_problem": self.same_problem,
            "seen_by_v_hack": self.overlap if self.seen_known else None,
        }
        return [
            pool.describe() | facts | {"problems_used": len(ids)}
            for pool, ids in zip(self.sources, self.order)
        ]

    def groups(self, step: int, say: Callable[[str], None] = lambda text: None) -> list[list[Rollout]]:
        turns = [turn(ids, step * self.prompts, self.prompts) for ids in self.order]
        return [
            [
                row
                for pool, known, problem in zip(self.sources, self.rows, ids)
                for row in shuffled(known[problem], self.seed, step, pool.name, problem)[: self.each]
            ]
            for ids in zip(*turns)
        ]
