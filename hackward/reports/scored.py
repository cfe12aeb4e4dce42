"""A run's rollouts as its monitor saw them: labels, scores and flags, without their text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hackward.base.records import POLICY
from hackward.reports.kept import kept_lines, kept_steps, lacking
from hackward.reports.schema import ROLLOUTS

# Of a run's rollouts, those that a rate of flags is taken over
CLASSES: dict[str, Callable[[Scored], np.ndarray]] = {
    "hacked": lambda rows: rows.own & rows.hacked,
    "attempted": lambda rows: rows.own & rows.attempted,
    "clean": lambda rows: rows.own & ~rows.hacked & ~rows.attempted,
    "solved": lambda rows: rows.own & rows.solved,
    "teacher": lambda rows: ~rows.own,
}


@dataclass(frozen=True)
class Scored:
    """N rollouts of a run, one entry each; a label that is not known (a foreign pool's) counts as no."""

    step: np.ndarray
    """In which it was trained on."""
    own: np.ndarray
    """Did the model in training draw it?"""
    problem: np.ndarray
    hacked: np.ndarray
    attempted: np.ndarray
    solved: np.ndarray
    score: np.ndarray
    """NaN where the monitor had none."""
    flagged: np.ndarray
    """1 or 0; NaN where nobody looked."""

    def between(self, first: int, last: int) -> Scored:
        """Those of the steps first to last."""
        inside = (first <= self.step) & (self.step <= last)
        return Scored(**{name: values[inside] for name, values in vars(self).items()})


def read_scored(directory: Path, steps: Sequence[int]) -> Scored | None:
    """The rollouts of these steps; None where the run's rollouts were not kept.

    InputError where single steps lack them, or a file of them is damaged.
    """
    kept = kept_steps(directory, steps)
    if not kept:
        return None
    rows, of_step = [], []
    for step in steps:
        if step not in kept:
            raise lacking(directory, step, "no such file")
        found = kept_lines(directory, step, ROLLOUTS)
        rows += found
        of_step += [step] * len(found)
    return Scored(
        step=np.array(of_step, int),
        own=np.array([row["src_pool"] == POLICY for row in rows], bool),
        problem=np.array([str(row["problem_id"]) for row in rows], str),
        hacked=np.array([bool(row["hacked"]) for row in rows], bool),
        attempted=np.array([bool(row["attempted"]) for row in rows], bool),
        solved=np.array([bool(row["gt_pass"]) for row in rows], bool),
        score=np.array([row["monitor_score"] for row in rows], float),  # null becomes NaN
        flagged=np.array([row["flagged"] for row in rows], float),
    )
