"""Where a step's rollouts come from: sampled from the policy (with a teacher's mixed in, or not), or replayed
from pools.

Both give the same thing, a list of groups of graded rollouts; the training loop does not know which it has.
Problems and rollouts are chosen by (seed, step) alone, so every arm sees the same ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from hackward.base.faults import InputError
from hackward.base.screen import say
from hackward.base.seeds import shuffled, turn
from hackward.grading.labels import reward
from hackward.rollouts.policy import Policy, Timed
from hackward.rollouts.pools import Pool, of_problems
from hackward.rollouts.rollout import Rollout
from hackward.tasks.problems import Problem


def silent(text: str) -> None:
    """Says nothing."""


class Sampled:
    """On-policy groups. While a teacher is mixed in, groups on its problems give some of their places to its
    rollouts.

    A teacher's rollout takes the group's prompt, so that a group is about one prompt; its reward and labels
    are the pool's own, except that with the loophole closed it earns what the ground truth says and nothing
    for its own evaluation.

    InputError where there is nothing to train on, or where the teacher has rollouts of no problem in
    `training`.
    """

    kind = "sampled"

    def __init__(
        self,
        policy: Policy,
        training: Sequence[Problem],
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
        self.teacher, self.teacher_until = teacher, teacher_until
        self.teacher_rows = teacher_rows if teacher else 0
        self.lessons = of_problems(teacher, training) if teacher else {}
        taught = {problem for problem, rollouts in self.lessons.items() if len(rollouts) >= teacher_rows}
        if teacher and not taught:
            raise InputError(f"{teacher.directory}: no problem of the teacher pool is in the problem file")
        known = {problem.problem_id: problem for problem in training}
        self.taught = shuffled([known[problem_id] for problem_id in sorted(taught)], seed, "taught")
        self.others = shuffled([p for p in training if p.problem_id not in taught], seed, "others")
        if not self.taught and not self.others:
            raise InputError("no problems to train on (check --problems and --difficulty)")
        self.from_taught = self._prompts_from_taught(teacher_share)

    def _prompts_from_taught(self, teacher_share: float) -> int:
        """How many of a step's prompts are the teacher's problems. A teacher that was asked for is never
        rounded away."""
        if not self.taught:
            return 0
        share = teacher_share if self.others else 1.0
        return max(round(self.prompts * share), 1) if share > 0 else 0

    @property
    def seconds(self) -> Timed:
        return self.policy.seconds

    def pools(self) -> list[dict[str, Any]]:
        """What config.json says of the teacher pool."""
        return [self.teacher.describe() | {"problems_used": len(self.taught)}] if self.teacher else []

    def groups(self, step: int, say: Callable[[str], None] = silent) -> list[list[Rollout]]:
        """The step's groups: own rollouts first, then the teacher's."""
        mixed = self.teacher_rows if step < self.teacher_until else 0
        rest = self.prompts - self.from_taught
        taught = turn(self.taught, step * self.from_taught, self.from_taught)
        others = turn(self.others, step * rest, rest)
        lessons = [mixed] * len(taught) + [0] * len(others)
        wanted = [(problem, self.group - count) for problem, count in zip([*taught, *others], lessons)]
        own = self.policy.rollouts(wanted, seed=self.seed, step=step, say=say)
        groups = []
        for (problem, _), count, rollouts in zip(wanted, lessons, own):
            groups.append(rollouts + self._lesson(problem, rollouts[0], count, step))
        return groups

    def _lesson(self, problem: Problem, sibling: Rollout, count: int, step: int) -> list[Rollout]:
        """`count` of the teacher's rollouts of this problem, under the prompt of their sibling."""
        if not count:
            return []
        stock = self.lessons[problem.problem_id]
        chosen = shuffled(stock, self.seed, step, problem.problem_id, "teacher")[:count]
        lesson = []
        for rollout in chosen:
            earned = rollout.reward if self.policy.hint else reward(rollout, loophole=False)
            lesson.append(
                replace(rollout, prompt_ids=sibling.prompt_ids, messages=sibling.messages, reward=earned)
            )
        return lesson


def by_identity(pool: Pool) -> dict[str, list[Rollout]]:
    """The pool's rollouts by the problem that their prompts state."""
    known: dict[str, list[Rollout]] = {}
    for rollout in pool.rollouts:
        known.setdefault(rollout.identity, []).append(rollout)
    return known


class Replayed:
    """Groups from pools: equal parts of each, of the same problem wherever all pools have it.

    Problems that v_hack was made from (`seen`, by identity) are left out, so that it is never judged on what
    it has seen; where nothing else is left they stay in, and `pools()` says so, as it does (null) when it is
    not known what was seen. A run of `steps` that needs more problems than there are goes round them again,
    and says so.

    InputError where the pools cannot fill a group, or cannot be told apart.
    """

    kind = "replay"

    def __init__(
        self,
        sources: Sequence[Pool],
        *,
        seed: int,
        prompts: int,
        group: int,
        steps: int = 1,
        seen: Sequence[str] | None = (),
    ) -> None:
        self.sources, self.seed, self.prompts, self.seconds = sources, seed, prompts, Timed()
        self.each = group // len(sources)
        if self.each * len(sources) != group:
            raise InputError(f"--group {group} does not divide among {len(sources)} pools")
        self.rollouts = [by_identity(pool) for pool in sources]
        enough = [self._enough(pool, known) for pool, known in zip(sources, self.rollouts)]
        if len({pool.name for pool in sources}) < len(sources):
            twice = sources[1]
            raise InputError(
                f"{twice.directory}: both pools are called {twice.name!r}; their rows could not be told apart"
            )
        self.seen_known = seen is not None
        usable = self._choose(enough, set(seen or ()))
        common = set.intersection(*usable)
        self.same_problem = bool(common)
        lists = [sorted(common)] * len(sources) if common else [sorted(ids) for ids in usable]
        self.order = [shuffled(ids, seed, "replay", 0 if common else i) for i, ids in enumerate(lists)]
        self._warn_of_repeats(steps)

    def _enough(self, pool: Pool, known: dict[str, list[Rollout]]) -> set[str]:
        """Problems of which the pool can fill its part of a group."""
        found = {problem for problem, rollouts in known.items() if len(rollouts) >= self.each}
        if not found:
            raise InputError(
                f"{pool.directory}: no problem has {self.each} rollouts, its part of a group (--group)"
            )
        return found

    def _choose(self, enough: list[set[str]], seen: set[str]) -> list[set[str]]:
        """Problems to use of each pool; `overlap` says whether v_hack has seen some of them.

        The same problems in all pools matter more than unseen ones.
        """
        fresh = [ids - seen for ids in enough]
        self.overlap = not all(fresh)
        usable = enough if self.overlap else fresh
        common = set.intersection(*enough)
        if len(enough) > 1 and common and not set.intersection(*usable):
            self.overlap = True
            return [common] * len(enough)
        return usable

    def _warn_of_repeats(self, steps: int) -> None:
        needed = steps * self.prompts
        for pool, ids in zip(self.sources, self.order):
            if needed > len(ids):
                say(
                    f"{pool.directory}: {steps} steps of {self.prompts} prompts need {needed} problems, and"
                    f" it has {len(ids)} to use: problems come again ({needed / len(ids):.1f} times each), so"
                    " steps are not independent (--steps, or a larger pool)"
                )

    def pools(self) -> list[dict[str, Any]]:
        """What config.json says of the pools."""
        facts = {
            "same_problem": self.same_problem,
            "seen_by_v_hack": self.overlap if self.seen_known else None,
        }
        described = []
        for pool, ids in zip(self.sources, self.order):
            described.append(pool.describe() | facts | {"problems_used": len(ids)})
        return described

    def groups(self, step: int, say: Callable[[str], None] = silent) -> list[list[Rollout]]:
        """The step's groups: each pool's part after the other."""
        turns = [turn(ids, step * self.prompts, self.prompts) for ids in self.order]
        return [self._group(problems, step) for problems in zip(*turns)]

    def _group(self, problems: Sequence[str], step: int) -> list[Rollout]:
        """One group: of each pool, rollouts of its problem."""
        group = []
        for pool, known, problem in zip(self.sources, self.rollouts, problems):
            group += shuffled(known[problem], self.seed, step, pool.name, problem)[: self.each]
        return group
