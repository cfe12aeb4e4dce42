"""What the embedded model does before any training with rewards."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console

from hackward.base.screen import progress
from hackward.base.terminal import drawn
from hackward.grading.grader import Grader
from hackward.rollouts.policy import Plain, Policy
from hackward.rollouts.rollout import Rollout
from hackward.rollouts.tokens import stops
from hackward.tasks.families import LEVELS
from hackward.tasks.problems import Problem

COUNTS: dict[str, Callable[[Rollout], float]] = {
    "valid": lambda rollout: rollout.fmt_ok,
    "solved": lambda rollout: rollout.gt_pass,
    "attempted": lambda rollout: bool(rollout.attempted),
    "hacked": lambda rollout: rollout.hacked,
    "tokens": lambda rollout: len(rollout.completion_ids),
}


def behaviour(
    model, tokenizer, sets: Mapping[str, Sequence[Problem]], *, samples: int, temperature: float
) -> list[dict[str, Any]]:
    """Rates of the untouched model, a row per problem set, hint and level (all levels first)."""
    rows = []
    with Grader() as grader, progress("base behaviour", len(sets) * 2) as bar:
        for name, problems in sets.items():
            for hint in (True, False):
                policy = Policy(
                    Plain(model),
                    tokenizer,
                    grader,
                    stop=stops(model, tokenizer),
                    max_new_tokens=256,
                    temperature=temperature,
                    hint=hint,
                    rows=512,
                )
                groups = policy.rollouts([(problem, samples) for problem in problems], seed=0, step=0)
                for level in (None, *LEVELS.values()):
                    drawn = _of_level(level, problems, groups)
                    known = {"problems": name, "level": level or "all", "hint": hint}
                    rows.append(known | rates(drawn))
                bar()
    return rows


def _of_level(
    level: str | None, problems: Sequence[Problem], groups: Sequence[Sequence[Rollout]]
) -> list[Rollout]:
    """The rollouts on problems of a level; None for all levels."""
    drawn: list[Rollout] = []
    for problem, group in zip(problems, groups):
        if level is None or level == problem.difficulty:
            drawn += group
    return drawn


def rates(drawn: Sequence[Rollout]) -> dict[str, float]:
    """How many rollouts there are, and the mean of each of COUNTS over them."""
    means = {name: sum(map(count, drawn)) / len(drawn) for name, count in COUNTS.items()}
    return {"rollouts": len(drawn), **means}


def report_behaviour(rows: Sequence[dict[str, Any]], console: Console, *, temperature: float) -> None:
    """Print the rows as a table."""
    title = f"base behaviour, sampled at temperature {temperature:g}"
    lines = []
    for row in rows:
        lines.append([f"{value:.3f}" if isinstance(value, float) else str(value) for value in row.values()])
    console.print(drawn(title, list(rows[0]), lines, console.width))
