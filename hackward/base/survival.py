"""Times until something happens, which may be censored: Kaplan-Meier, restricted mean, stratified log-rank.

A time is censored where the watching ended before the thing happened: all that is known is that it lasted
longer. Kaplan and Meier, J. Am. Stat. Assoc. 53 (1958); the log-rank test as in Klein and Moeschberger,
Survival Analysis, 7.3 and 7.5; as a sum of scores, for its exact distribution, as in Peto and Peto,
J. R. Stat. Soc. A 135 (1972).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

MOST_WAYS = 200_000  # of dealing members to two groups that are gone through one by one
SAME_SUM = 1e-9  # sums of scores closer than this are equal

Groups = Mapping[Any, Sequence["Lasted"]]  # members of a group, by stratum


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
    """One-sided, that the first group lasts longer; by the normal approximation."""
    two_sided: float | None = None
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

    ``until`` is at most the last time unless that one ended: nothing is known beyond a censored one.
    """
    steps, share = kaplan_meier(times)
    before = steps < until
    edges = np.concatenate([[0.0], steps[before], [until]])
    heights = np.concatenate([[1.0], share[before]])
    return float((np.diff(edges) * heights).sum())


def log_rank(first: Groups, second: Groups) -> LogRank:
    """Does the first group last longer, compared within each stratum only?

    Over all end times of all strata: z = sum(observed - expected) / sqrt(sum(variance)), where observed are
    the ends of the first group. Where every stratum ends alike in both groups nothing speaks for a
    difference, and p is 1.
    """
    shared = _shared(first, second)
    if not shared:
        return LogRank(0, why="no seed in both")
    excess, variance = 0.0, 0.0
    for stratum in shared:
        for end in sorted({lasted.time for lasted in (*first[stratum], *second[stratum]) if lasted.ended}):
            more, spread = _at(end, first[stratum], second[stratum])
            excess += more
            variance += spread
    if variance == 0:
        return LogRank(len(shared), excess, p=1.0, two_sided=1.0)
    z = excess / math.sqrt(variance)
    return LogRank(len(shared), excess, z, float(stats.norm.cdf(z)), float(2 * stats.norm.sf(abs(z))))


def _shared(first: Groups, second: Groups) -> list[Any]:
    return sorted(first.keys() & second.keys(), key=str)


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


def exact_later(first: Groups, second: Groups) -> float | None:
    """Exact one-sided p of the excess of `log_rank`: that the first group lasts longer.

    The share of all ways of dealing the members of every stratum to the two groups that give an excess as low
    as the one seen. It holds where censoring comes alike to both groups. None without a stratum that both
    have, or for more than MOST_WAYS ways.
    """
    shared = _shared(first, second)
    ways = math.prod(math.comb(len(first[s]) + len(second[s]), len(first[s])) for s in shared)
    if not shared or ways > MOST_WAYS:
        return None
    seen, sums = 0.0, np.zeros(1)
    for stratum in shared:
        score = _scores([*first[stratum], *second[stratum]])
        mine = len(first[stratum])
        seen += sum(score[:mine])
        dealt = np.array([sum(chosen) for chosen in itertools.combinations(score, mine)])
        sums = np.add.outer(sums, dealt).ravel()
    return float((sums <= seen + SAME_SUM).mean())


def _scores(members: Sequence[Lasted]) -> list[float]:
    """What each member adds to the excess of its group: 1 if it ended, minus the hazard up to its time."""
    hazard, total = {}, 0.0
    for time in sorted({lasted.time for lasted in members}):
        ends = sum(lasted.ended and lasted.time == time for lasted in members)
        total += ends / sum(lasted.time >= time for lasted in members)
        hazard[time] = total
    return [lasted.ended - hazard[lasted.time] for lasted in members]


def pooled(first: Groups, second: Groups) -> tuple[Groups, Groups]:
    """Both groups as one stratum, of what they share: a test of it is not stratified."""
    shared = _shared(first, second)
    one, other = ([lasted for s in shared for lasted in group[s]] for group in (first, second))
    return ({"all": one}, {"all": other}) if shared else ({}, {})


def least_p(strata: int) -> float:
    """Smallest p of `log_rank` with one member of each group per stratum.

    Each stratum then adds 1/2 to the excess and 1/4 to the variance, at most: z = -sqrt(strata). The exact p
    of the same outcome is 1 / 2^strata.
    """
    return float(stats.norm.sf(math.sqrt(strata)))


def least_pooled_p(members: int, ends: int) -> float:
    """Smallest `exact_later` of two groups of so many members in one stratum.

    The first group never ends and the second does so often: all ways that give those ends to the second.
    """
    return math.comb(2 * members - ends, members) / math.comb(2 * members, members)
