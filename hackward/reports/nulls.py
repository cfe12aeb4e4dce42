"""Nulls of cosines that are averaged over steps and runs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from hackward.base.statistics import Range, null_range
from hackward.reports.runs import Run


def one_direction(runs: Sequence[Run]) -> bool:
    """Are the cosines of these runs with one v_hack? With several they have no common mean.

    (A run without v_hack has no cosines.)
    """
    return len({run.direction for run in runs if run.record["v_hack"]}) <= 1


def null_of(runs: Sequence[Run], key: str, first: float = 0, last: float = math.inf) -> Range | None:
    """Null range of a cosine's mean over the steps of all these runs.

    None unless all recorded as many draws, of one v_hack. The flips are drawn from v_hack's pairs with a
    fixed seed, so draw s is the same flip in every run of one v_hack.
    """
    if not runs or not one_direction(runs):
        return None
    found = []
    for run in runs:
        draws = run.draws(key, first, last)
        if draws is None:
            return None
        found.append(draws)
    if len({draws.shape[1] for draws in found}) > 1:
        return None
    return null_range(np.concatenate(found))
