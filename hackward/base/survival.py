"""Times until something happens, which may be censored: Kaplan-Meier, restricted mean, stratified log-rank.

A time is censored where the watching ended before the thing happened: all that is known is that it lasted
longer. Kaplan and Meier, J. Am. Stat. Assoc. 53 (1958); the log-rank test as in Klein and Moeschberger,
Survival Analysis, 7.3 and 7.5.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Lasted:
    """How long something lasted."""

    time: float
    ended: bool
    """Did it happen at that time? False: censored, it had not happened by then."""


@dataclass(frozen=True)
class LogRank:
    """A stratified log-rank test of a first group against a second."""

    strata: int
    """That have members of both groups."""
    excess: float | None = None
    """Ends of the first group, observed minus expected; below 0 where the first group lasts longer."""
    z: float | None = None
    p: float | None = None
    """Two-sided, by the normal approximation."""
    why: str | None = None

    @property
    def longer(self) -> bool:
        """Does the first group last longer, by chance or not?"""
        return self.excess is not None and self.excess < 0


def kaplan_meier(times: Iterable[Lasted]) -> tuple[np.ndarray, np.ndarray]:
    """(times in increasing order, share that lasts longer than each)."""
    every = list(times)
    censored = [not lasted.ended for lasted in every]
    sample = stats.CensoredData.right_censored([lasted.time for lasted in every], censored)
    beyond = stats.ecdf(sample).sf
    return beyond.quantiles, beyond.probabilities


def restricted_mean(times: Iterable[Lasted], until: float) -> float:
    """Mean of min(time, until): the area under the Kaplan-Meier curve from 0 to ``until``.

    ``until`` is at most the last time, since nothing is known beyond it.
    """
    steps, share = kaplan_meier(times)
    before = steps < until
    edges = np.concatenate([[0.0], steps[before], [until]])
    heights = np.concatenate([[1.0], share[before]])
    return float((np.diff(edges) * heights).sum())


def log_rank(first: Mapping[Any, Sequence[Lasted]], second: Mapping[Any, Sequence[Lasted]]) -> LogRank:
    """Do both groups last equally long, compared within each stratum only? ``first``, ``second``: by stratum.

    Over all end times of all strata: z = sum(observed - expected) / sqrt(sum(variance)), where observed are
    the ends of the first group. Where every stratum ends alike in both groups nothing speaks for a
    difference, and p is 1.
    """
    shared = sorted(first.keys() & second.keys(), key=str)
    if not shared:
        return LogRank(0, why="no seed in both")
    excess, variance = 0.0, 0.0
    for stratum in shared:
        for end in sorted({lasted.time for lasted in (*first[stratum], *second[stratum]) if lasted.ended}):
            more, spread = _at(end, first[stratum], second[stratum])
            excess += more
            variance += spread
    if variance == 0:
        return LogRank(len(shared), excess, p=1.0)
    z = excess / math.sqrt(variance)
    return LogRank(len(shared), excess, z, two_sided(z))


def _at(end: float, first: Sequence[Lasted], second: Sequence[Lasted]) -> tuple[float, float]:
    """(observed minus expected ends of the first group, hypergeometric variance) at one time."""
    mine = sum(lasted.time >= end for lasted in first)
    all_at_risk = mine + sum(lasted.time >= end for lasted in second)
    observed = sum(lasted.ended and lasted.time == end for lasted in first)
    ends = observed + sum(lasted.ended and lasted.time == end for lasted in second)
    fraction = mine / all_at_risk
    if all_at_risk == 1:
        return observed - ends * fraction, 0.0
    variance = ends * fraction * (1 - fraction) * (all_at_risk - ends) / (all_at_risk - 1)
    return observed - ends * fraction, variance


def least_p(strata: int) -> float:
    """Smallest p of `log_rank` with one member of each group per stratum.

    Each stratum then adds 1/2 to the excess and 1/4 to the variance, at most: z = sqrt(strata).
    """
    return two_sided(math.sqrt(strata))


def strata_needed(level: float) -> int:
    """Fewest strata whose `least_p` lies below ``level``."""
    strata = 1
    while least_p(strata) >= level:
        strata += 1
    return strata


def two_sided(z: float) -> float:
    return float(2 * stats.norm.sf(abs(z)))
