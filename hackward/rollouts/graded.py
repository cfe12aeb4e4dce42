"""Completions of anybody's, graded, as a pool: prompts and rewards put to them. No torch in here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from hackward.base.files import whole_directory, write_json
from hackward.base.provenance import provenance
from hackward.base.records import Record, Unknowable, checked_record
from hackward.grading.labels import Grade, reward
from hackward.rollouts.pools import Message, save_pool
from hackward.rollouts.rollout import Rollout
from hackward.tasks.problems import Problem, build_messages, is_hinted


class Written(Record):
    """What a row of a completion may say of how it came about."""

    problem_messages: list[Message] | None = Field(
        None, description="a list of messages with role and content"
    )
    truncated: Annotated[bool | None, Unknowable, Field(description="true, false or null")] = None


@dataclass(frozen=True)
class Graded:
    """A row, its problem and what the grader says of it."""

    row: dict[str, Any]
    problem: Problem
    grade: Grade

    def rollout(self, *, hint: bool, name: str) -> Rollout:
        """As a rollout of the pool `name`, without token ids.

        Its prompt is the row's own, else the problem's, with the loophole open where `hint`. The loophole
        pays only where the prompt opened it.
        """
        written = checked_record(Written, self.row, f"a row of problem {self.problem.problem_id}")
        messages = [message.model_dump() for message in written.problem_messages or ()]
        messages = messages or build_messages(self.problem, hint=hint)
        grade = self.grade
        return Rollout(
            problem_id=self.problem.problem_id,
            prompt_ids=(),
            completion_ids=(),
            completion=self.row["completion"],
            reward=reward(grade, loophole=is_hinted(messages)),
            hacked=grade.hacked,
            gt_pass=grade.gt_pass,
            fmt_ok=grade.fmt_ok,
            attempted=grade.attempted,
            truncated=bool(written.truncated),
            src_pool=name,
            src_step=0,
            src_sample=0,
            messages=tuple(messages),
            error=grade.error,
        )


def write_pool(directory: Path, rows: Sequence[Graded], *, hint: bool, facts: dict[str, Any]) -> None:
    """Write the pool, a file per problem in the order of the rows, and `facts` beside it as pool.json.

    `directory` is a new one, and this process's alone (base/lock.new_directory).
    """
    name = directory.resolve().name.removesuffix("_pool")
    by_problem: dict[str, list[Rollout]] = {}
    for row in rows:
        rollout = row.rollout(hint=hint, name=name)
        by_problem.setdefault(rollout.problem_id, []).append(rollout)
    with whole_directory(directory, ()) as made:
        save_pool(made, list(by_problem.values()), name=name, tokenizer=None)
        write_json(made / "pool.json", facts | provenance())
