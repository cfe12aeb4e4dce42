"""Estimates, tests and nulls. What is undefined is None with a reason, never NaN.

Problems and seeds are the units of replication, never rollouts; who calls these averages first.

One convention where values do not vary (FLOAT_NOISE): the interval of a *difference* between two sides is the
point itself, since the same difference in every unit is the clearest result that there is. A *mean* or a
*rate* alone has no interval then: that all units agree does not say how far the next one may lie.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import optimize, stats

LEVEL = 0.05  # two-sided; intervals are 95 %
FLOAT_NOISE = 1e-6  # values closer than this are equal: fp32 sums differ in the last digits
COSINES = ("cos_in", "cos_out", "cos_update")  # those that come with a null
ZERO_VARIANCE = "zero variance"
BOOTSTRAPS = 2000
POWER = 0.8  # probability with which a test is expected to show what is so
FEWEST_UNITS = 5  # of a class: drawn with replacement, fewer say little of the next one

Range = tuple[float, float]  # (low, high)


def _interval(low: float | None, high: float | None) -> Range | None:
    return None if low is None or high is None else (low, high)


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % t interval. What is undefined is None, and ``why`` says why."""

    n: int
    mean: float | None = None
    sd: float | None = None
    low: float | None = None
    high: float | None = None
    why: str | None = None

    @property
    def interval(self) -> Range | None:
        return _interval(self.low, self.high)


@dataclass(frozen=True)
class Comparison:
    """A difference of two means, first minus second, with its t test.

    What is undefined is None with a ``why``. Where no value varies the difference is exact: its interval is
    the point, p is 0 or 1, and t and df do not exist.
    """

    n_first: int
    n_second: int
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    t: float | None = None
    df: float | None = None
    p: float | None = None
    why: str | None = None

    @property
    def interval(self) -> Range | None:
        return _interval(self.low, self.high)

    @property
    def larger(self) -> bool | None:
        """Is the first mean larger, beyond chance? None when the test is undefined."""
        if self.p is None or self.difference is None:
            return None
        return self.difference > 0 and self.p < LEVEL


def defined(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def mean(values: Iterable[float | None]) -> float | None:
    """Mean of what is defined; None when nothing is."""
    kept = defined(values)
    return float(np.mean(kept)) if kept else None


def share(hits: int, total: int) -> float | None:
    return hits / total if total else None


def estimate(values: Iterable[float | None]) -> Estimate:
    """Mean over units with its t interval; without one for a single value, or where values do not vary."""
    kept = np.array(defined(values), dtype=float)
    if kept.size == 0:
        return Estimate(0, why="no value")
    if kept.size == 1:
        return Estimate(1, float(kept[0]), why="one value")
    centre = float(kept.mean())
    if np.ptp(kept) <= FLOAT_NOISE:
        return Estimate(kept.size, centre, 0.0, why=ZERO_VARIANCE)
    low, high = stats.t.interval(1 - LEVEL, kept.size - 1, loc=centre, scale=stats.sem(kept))
    return Estimate(kept.size, centre, float(kept.std(ddof=1)), float(low), float(high))


def estimate_difference(values: Iterable[float | None]) -> Estimate:
    """`estimate` of differences within units: where all (two or more) are the same, that is the interval."""
    found = estimate(values)
    if found.why != ZERO_VARIANCE:
        return found
    exact = _exact(found.mean)
    return Estimate(found.n, exact, 0.0, exact, exact)


def _exact(difference: float | None) -> float:
    """A difference that does not vary, with float noise around 0 taken off."""
    return 0.0 if difference is None or abs(difference) <= FLOAT_NOISE else difference


def _exact_p(difference: float) -> float:
    return 1.0 if difference == 0 else 0.0


def welch(
    first: Iterable[float | None],
    second: Iterable[float | None],
    names: tuple[str, str] = ("first", "second"),
) -> Comparison:
    """Welch's t test (unequal variances), two-sided; undefined where a side has fewer than two values."""
    sides = defined(first), defined(second)
    sizes = len(sides[0]), len(sides[1])
    for size, name in zip(sizes, names, strict=True):
        if size < 2:
            return Comparison(*sizes, why=f"{name}: {'one value' if size else 'no value'}")
    gap = float(np.mean(sides[0]) - np.mean(sides[1]))
    if all(np.ptp(side) <= FLOAT_NOISE for side in sides):
        exact = _exact(gap)
        return Comparison(*sizes, exact, exact, exact, p=_exact_p(exact))
    test = stats.ttest_ind(*sides, equal_var=False)
    low, high = test.confidence_interval(1 - LEVEL)
    return Comparison(
        *sizes, gap, float(low), float(high), float(test.statistic), float(test.df), float(test.pvalue)
    )


def in_both(first: Mapping[Any, float | None], second: Mapping[Any, float | None]) -> list[Any]:
    """The units (problems, seeds) that have a value on both sides."""
    shared = first.keys() & second.keys()
    return sorted((unit for unit in shared if None not in (first[unit], second[unit])), key=str)


def gaps_within(first: Mapping[Any, float | None], second: Mapping[Any, float | None]) -> dict[Any, float]:
    """First minus second in every unit that both have."""
    found = {}
    for unit in in_both(first, second):
        a, b = first[unit], second[unit]
        if a is not None and b is not None:
            found[unit] = a - b
    return found


def differences(first: Mapping[Any, float | None], second: Mapping[Any, float | None]) -> Estimate:
    """Mean of first minus second over the units that both have, with the interval of the paired t test."""
    return estimate_difference(gaps_within(first, second).values())


def paired(first: Mapping[Any, float | None], second: Mapping[Any, float | None]) -> Comparison:
    """t test on the differences within the units (problems, seeds) that both have: the unit cancels out."""
    gaps = list(gaps_within(first, second).values())
    found = estimate_difference(gaps)
    if found.interval is None or found.mean is None:
        return Comparison(found.n, found.n, found.mean, why=f"in both: {found.why}")
    outcome = Comparison(found.n, found.n, found.mean, *found.interval, p=_exact_p(found.mean))
    if found.sd == 0:
        return outcome
    test = stats.ttest_1samp(gaps, 0.0)
    return replace(outcome, t=float(test.statistic), df=float(test.df), p=float(test.pvalue))


@dataclass(frozen=True)
class Equivalence:
    """Is a mean difference within a margin of 0, or at least not that far below? One-sided paired t tests."""

    gap: Estimate
    """With its two-sided 95 % interval, as everywhere."""
    p: float | None
    """Of both tests the larger: below LEVEL where the 90 % interval lies within the margin. None:
    ``gap.why``."""
    not_less: float | None
    """Of the lower test alone (non-inferiority): below LEVEL where the one-sided 95 % bound lies above
    -margin."""


def equivalence(
    first: Mapping[Any, float | None], second: Mapping[Any, float | None], margin: float
) -> Equivalence:
    """Do first and second differ by less than ``margin``, over the units that both have?

    Schuirmann, J. Pharmacokinet. Biopharm. 15 (1987). Where all gaps are the same (two or more), p is 0 or 1.
    """
    gaps = list(gaps_within(first, second).values())
    found = estimate_difference(gaps)
    if found.interval is None or found.mean is None:
        return Equivalence(found, None, None)
    if found.sd == 0:
        inside = margin - FLOAT_NOISE
        above, below = float(found.mean <= -inside), float(found.mean >= inside)
    else:
        above = float(stats.ttest_1samp(gaps, -margin, alternative="greater").pvalue)
        below = float(stats.ttest_1samp(gaps, margin, alternative="less").pvalue)
    return Equivalence(found, max(above, below), above)


def least_margin(sd: float, units: int, level: float = LEVEL) -> float | None:
    """Smallest margin of non-inferiority that differences within so many units can be expected to show.

    Expected: with probability POWER, where the true difference is 0 and differences vary by ``sd``. The test
    statistic is then a noncentral t. None for fewer than two units.
    """
    if units < 2:
        return None
    critical = stats.t.isf(level, units - 1)

    def lacking(shift: float) -> float:
        return POWER - stats.nct.sf(critical, units - 1, shift)

    shift = optimize.brentq(lacking, 0.0, 10 * critical)
    return float(shift * sd / math.sqrt(units))


def exact_upper(hits: float, total: float) -> float | None:
    """Upper end of the two-sided 95 % interval of a share (Clopper and Pearson, Biometrika 26, 1934).

    None without trials. ``hits`` may be a fraction of a trial: the bound of a mean of values in [0, 1].
    """
    if total <= 0:
        return None
    if hits >= total:
        return 1.0
    return float(stats.beta.ppf(1 - LEVEL / 2, hits + 1, total - hits))


def two_way(hits_SP: np.ndarray, total_SP: np.ndarray) -> Estimate:
    """sum(hits) / sum(total) over seeds S and problems P, with a 95 % interval over both.

    Percentile bootstrap: seeds and problems are drawn with replacement, independently, each with all that it
    has (Owen, Ann. Appl. Stat. 1, 2007: rather too wide than too narrow, given enough of both). ``n`` of the
    result is the number of seeds. No interval from one seed, from fewer than FEWEST_UNITS problems, or where
    all draws are the same (no hit, say).
    """
    S, P = total_SP.shape
    if not total_SP.sum():
        return Estimate(S, why="no value")
    rate = float(hits_SP.sum() / total_SP.sum())
    if S < 2:
        return Estimate(S, rate, why="one value")
    if P < FEWEST_UNITS:
        return Estimate(S, rate, why=f"{P} of {FEWEST_UNITS} problems needed")
    dice = np.random.default_rng(0)
    seeds_BS = dice.multinomial(S, np.ones(S) / S, BOOTSTRAPS)
    problems_BP = dice.multinomial(P, np.ones(P) / P, BOOTSTRAPS)
    total_B = (seeds_BS @ total_SP * problems_BP).sum(1)
    hits_B = (seeds_BS @ hits_SP * problems_BP).sum(1)
    rate_B = hits_B[total_B > 0] / total_B[total_B > 0]
    if np.ptp(rate_B) <= FLOAT_NOISE:
        return Estimate(S, rate, why=ZERO_VARIANCE)
    low, high = np.quantile(rate_B, [LEVEL / 2, 1 - LEVEL / 2])
    return Estimate(S, rate, float(rate_B.std(ddof=1)), float(low), float(high))


def holm(p_values: Mapping[Any, float | None]) -> dict[Any, float | None]:
    """p values corrected for their number (Holm, Scand. J. Stat., 1979). An undefined one does not count."""
    known = {name: p for name, p in p_values.items() if p is not None}
    corrected: dict[Any, float | None] = dict.fromkeys(p_values)
    largest = 0.0
    for rank, name in enumerate(sorted(known, key=lambda name: known[name])):
        largest = max(largest, min(1.0, (len(known) - rank) * known[name]))
        corrected[name] = largest
    return corrected


def auc_by_unit(
    score_N: Sequence[float],
    positive_N: Sequence[bool],
    unit_N: Sequence[Any],
    names: tuple[str, str] = ("positive", "other"),
    weight_N: Sequence[float] | None = None,
) -> Estimate:
    """Probability that a positive row scores above another row, ties counted half; 95 % interval over units.

    Over all rows at once, not unit by unit. Percentile bootstrap: units (problems) are drawn with
    replacement, each with all its rows; draws without both classes are left out. Rows without a score (NaN)
    do not count. ``weight_N``: how many rows of the whole each stands for, where they are a sample. ``n`` of
    the result is the number of units. No AUC where a class is empty; no interval where a class has rows in
    fewer than FEWEST_UNITS units, or where the AUC is the same in all draws.
    """
    known = np.isfinite(np.array(score_N, float))
    score, above = np.array(score_N, float)[known], np.array(positive_N, bool)[known]
    weight = np.ones(len(score)) if weight_N is None else np.array(weight_N, float)[known]
    units, unit = np.unique(np.array(unit_N, str)[known], return_inverse=True)
    below, P = ~above, len(units)
    for rows, name in zip((above, below), names, strict=True):
        if not rows.any():
            return Estimate(P, why=f"no {name} rows")
    wins_PP = _wins(score, weight, unit, above, P)
    above_P = np.bincount(unit[above], weight[above], P)
    below_P = np.bincount(unit[below], weight[below], P)
    auc = float(wins_PP.sum() / (above_P.sum() * below_P.sum()))
    for weights_P, name in zip((above_P, below_P), names, strict=True):
        held = int((weights_P > 0).sum())
        if held < FEWEST_UNITS:
            return Estimate(P, auc, why=f"{name} rows in {held} of {FEWEST_UNITS} problems needed")
    draws_SP = np.random.default_rng(0).multinomial(P, np.ones(P) / P, BOOTSTRAPS)
    pairs_S = (draws_SP @ above_P) * (draws_SP @ below_P)
    both = pairs_S > 0
    auc_S = ((draws_SP @ wins_PP) * draws_SP).sum(1)[both] / pairs_S[both]
    if np.ptp(auc_S) <= FLOAT_NOISE:
        return Estimate(P, auc, why=ZERO_VARIANCE)
    low, high = np.quantile(auc_S, [LEVEL / 2, 1 - LEVEL / 2])
    return Estimate(P, auc, float(auc_S.std(ddof=1)), float(low), float(high))


def _wins(
    score: np.ndarray, weight: np.ndarray, unit: np.ndarray, above: np.ndarray, units: int
) -> np.ndarray:
    """(units, units): weight of the pairs (a positive of unit p, another row of unit q) that the positive
    wins, ties half."""
    wins_PP = np.zeros((units, units))
    for q in range(units):
        members = np.flatnonzero(~above & (unit == q))
        members = members[np.argsort(score[members])]
        summed = np.concatenate([[0.0], np.cumsum(weight[members])])
        lower = summed[np.searchsorted(score[members], score[above], "left")]
        not_higher = summed[np.searchsorted(score[members], score[above], "right")]
        won = weight[above] * (lower + not_higher) / 2
        wins_PP[:, q] = np.bincount(unit[above], won, units)
    return wins_PP


def null_range(draws_TS: np.ndarray) -> Range | None:
    """2.5 to 97.5 % range of a mean over T steps under S draws of a null; draw s of the mean is the mean of
    draw s.

    Quantiles of the steps would not do: the steps share their draws, so their nulls do not average out as
    independent ones would.
    """
    if not draws_TS.size or not np.isfinite(draws_TS).all():
        return None
    low, high = np.quantile(draws_TS.mean(axis=0), [LEVEL / 2, 1 - LEVEL / 2])
    return float(low), float(high)


def permutation_test(value: float, draws_S: np.ndarray) -> tuple[float, float, float]:
    """(low, high, p) of a measurement under its null.

    low to high is the 2.5 to 97.5 % range; p is one-sided, with the +1 correction.
    """
    low, high = np.quantile(draws_S, [LEVEL / 2, 1 - LEVEL / 2])
    as_large = int((draws_S >= value - 1e-12).sum())
    return float(low), float(high), (1 + as_large) / (1 + len(draws_S))


def ratio(part_P: Sequence[float], whole_P: Sequence[float]) -> dict[str, float | None] | None:
    """sum(part) / sum(whole) over problems P, with a 95 % interval in [0, 1]; None where the whole is 0.

    The t interval of the linearised values R + (part - R whole) / mean(whole) over the problems with
    something in the whole (Cochran, Sampling Techniques, 6.3). Their mean is R; with a whole of ones they are
    the parts, and this is the plain t interval. low and high are None where it is undefined: one problem, or
    no variance. A rate that is the same in all problems (0 of 12, say) has an unknown width, not none: an
    interval of width 0 would claim that no problem differs.
    """
    part, whole = np.array(part_P, float), np.array(whole_P, float)
    part, whole = part[whole > 0], whole[whole > 0]
    if not whole.size:
        return None
    R = part.sum() / whole.sum()
    found = estimate(R + (part - R * whole) / whole.mean())
    return {"mean": float(R), "low": _clipped(found.low), "high": _clipped(found.high)}


def _clipped(bound: float | None) -> float | None:
    return None if bound is None else min(1.0, max(0.0, bound))
