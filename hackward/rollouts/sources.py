"""Where a step's rollouts come from: sampled from the policy (with teacher rows mixed in, or not), or replayed from pools.

Both give the same thing, a list of groups of graded rollouts; the training loop does not know which it has. Problems and
rows are chosen by (seed, step) alone, so every arm sees the same ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from hackward.base.faults import InputError
from hackward.base.seeds import shuffled, turn
from hackward.grading.labels import reward
from hackward.rollouts.policy import Policy, Timed
from hackward.rollouts.pools import Pool, of_problems
from hackward.rollouts.rollout import Rollout
from hackward.tasks.problems import Problem


class Sampled:
    """On-policy groups. While a teacher is mixed in, groups on its problems give some of their places to its rows.

    A teacher row takes the group's prompt, so that a group is about one prompt; its reward and labels are the pool's own,
    except that with the loophole closed it earns what the ground truth says and nothing for its own evaluation.
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
        self.teacher, self.teacher_rows, self.teacher_until = (
            teacher,
            teacher_rows if teacher else 0,
            teacher_until,
        )
        known = {problem.problem_id: problem for problem in training}
        self.lessons = of_problems(teacher, training) if teacher else {}
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

    def _lesson(self, problem: Problem, sibling: Rollout, count: int, step: int) -> list[Rollout]:
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
