"""Which problems are for what: those that can be graded, a frozen tenth of which is never trained on."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

from hackward.base.faults import InputError
from hackward.base.files import sha256
from hackward.tasks.formats import load_problems
from hackward.tasks.problems import Problem
from hackward.tasks.shipped import EMBEDDED, shipped

HELD_OUT_SHARE = 0.1
SHOWN = 100  # characters of a statement in a message


def held_out_place(identity: str) -> float:
    """Where a problem stands in [0, 1): a hash of what it states, so the same in every file, order and run.

    Frozen: another hash would train on what earlier runs were evaluated on.
    """
    return int(sha256("held out", identity)[:8], 16) / 2**32


def is_held_out(identity: str) -> bool:
    """Is the problem in the last tenth, which is never trained on?"""
    return held_out_place(identity) >= 1 - HELD_OUT_SHARE


def decidable(problems: Sequence[Problem], source: str | Path, several_answers: bool) -> list[Problem]:
    """The problems of `source` of which comparing tells a right answer; all of them with `several_answers`.

    One warning counts those that are left out. InputError if none is left.
    """
    if several_answers:
        return list(problems)
    kept = [problem for problem in problems if not problem.comparison.several]
    if len(kept) < len(problems):
        first = next(problem for problem in problems if problem.comparison.several)
        warnings.warn(
            f"{source}: {len(problems) - len(kept)} of {len(problems)} problems left out, they accept several"
            " answers and no comparison tells which; --several-answers takes them in (the first is"
            f" {first.task_id or first.problem_id}: {first.comparison.reason[:SHOWN]!r})",
            stacklevel=2,
        )
    if not kept:
        raise InputError(f"{source}: every problem in it accepts several answers (--several-answers)")
    return kept


def held_out_split(everything: Sequence[Problem], source: str | Path) -> tuple[list[Problem], list[Problem]]:
    """(to train on, held out) of the problems that `source` holds.

    The embedded model's training file goes with a held-out file of its own, so all of it is trained on. Any
    other file is split by is_held_out; either part may be empty where there are few problems.
    """
    ships = shipped(EMBEDDED)
    if ships.heldout is not None and Path(source).resolve() == ships.problems.resolve():
        return list(everything), load_problems(ships.heldout)
    training: list[Problem] = []
    held_out: list[Problem] = []
    for problem in everything:
        side = held_out if is_held_out(problem.identity) else training
        side.append(problem)
    return training, held_out
