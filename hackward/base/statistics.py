"""Estimates, tests and nulls. What is undefined is None with a reason, never NaN.

Problems and seeds are the units of replication, never rollouts; who calls these averages first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

LEVEL = 0.05  # two-sided; intervals are 95 %
FLOAT_NOISE = 1e-6  # cosines closer than this are equal: fp32 sums differ in the last digits
COSINES = ("cos_in", "cos_out", "cos_update")  # those that come with a null


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % t interval. What is undefined is None, and ``why`` says why."""

    n: int
    mean: float | None = None
    sd: float | None = None
    low: float | None = None
    high: float | None = None
    why: str | None = None


@dataclass(frozen=True)
class Comparison:
    """A difference of two means, first minus second, with its t test. What is undefined is None with a
    ``why``."""

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
    def larger(self) -> bool | None:
        """Is the first mean larger, beyond chance? None when the test is undefined."""
        return None if self.p is None else self.difference > 0 and self.p < LEVEL


def defined(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def mean(values: Iterable[float | None]) -> float | None:
    """Mean of what is defined; None when nothing is."""
    kept = defined(values)
    return float(np.mean(kept)) if kept else None


def estimate(values: Iterable[float | None]) -> Estimate:
    kept = np.array(defined(values), dtype=float)
    if kept.size == 0:
        return Estimate(0, why="no value")
    if kept.size == 1:
        return Estimate(1, float(kept[0]), why="one value")
    centre, sd = float(kept.mean()), float(kept.std(ddof=1))
    if np.ptp(kept) <= FLOAT_NOISE:
        return Estimate(kept.size, centre, 0.0, why="zero variance")
    low, high = stats.t.interval(1 - LEVEL, kept.size - 1, loc=centre, scale=stats.sem(kept))
    return Estimate(kept.size, centre, sd, float(low), float(high))


def share(hits: int, total: int) -> float | None:
    return hits / total if total else None


def why_untestable(first: Sequence[float], second: Sequence[float], names: tuple[str, str]) -> str | None:
    for values, name in zip((first, second), names, strict=True):
        if len(values) < 2:
            return f"{name}: {'no value' if not len(values) else 'one value'}"
    if np.ptp(first) <= FLOAT_NOISE and np.ptp(second) <= FLOAT_NOISE:
        return "zero variance in both"
    return None


def welch(
    first: Iterable[float | None], second: Iterable[float | None], names=("first", "second")
) -> Comparison:
    """Welch's t test (unequal variances), two-sided."""
    first, second = defined(first), defined(second)
    why = why_untestable(first, second, names)
    if why:
        return Comparison(len(first), len(second), why=why)
    test = stats.ttest_ind(first, second, equal_var=False)
    low, high = test.confidence_interval(1 - LEVEL)
    gap = float(np.mean(first) - np.mean(second))
    figures = (gap, float(low), float(high), float(test.statistic), float(test.df), float(test.pvalue))
    return Comparison(len(first), len(second), *figures)


def in_both(first: dict, second: dict) -> list:
    """The units (problems, seeds) that have a value on both sides."""
    return sorted(
        (
            unit
            for unit in first.keys() & second.keys()
            if first[unit] is not None and second[unit] is not None
        ),
        key=str,
    )


def differences(first: dict, second: dict) -> Estimate:
    """Mean of first minus second over the units that both have, with the interval of the paired t test."""
    return estimate(first[unit] - second[unit] for unit in in_both(first, second))


def paired(first: dict, second: dict) -> Comparison:
    """t test on the differences within the units (problems, seeds) that both have: the unit itself cancels
    out."""
    shared, gaps = in_both(first, second), differences(first, second)
    if gaps.low is None:
        return Comparison(gaps.n, gaps.n, gaps.mean, why=f"in both: {gaps.why}")
    test = stats.ttest_rel([first[unit] for unit in shared], [second[unit] for unit in shared])
    figures = (gaps.mean, gaps.low, gaps.high, float(test.statistic), float(test.df), float(test.pvalue))
    return Comparison(gaps.n, gaps.n, *figures)


def null_range(draws_TS: np.ndarray) -> tuple[float, float] | None:
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
    """(low, high, p) of a measurement under its null: the 2.5 to 97.5 % range, and the one-sided p with the
    +1 correction."""
    low, high = np.quantile(draws_S, [LEVEL / 2, 1 - LEVEL / 2])
    return float(low), float(high), float((1 + (draws_S >= value - 1e-12).sum()) / (1 + len(draws_S)))


def ratio(part_P: Sequence[float], whole_P: Sequence[float]) -> dict | None:
    """sum(part) / sum(whole) over problems P, with a 95 % interval clipped to [0, 1]; None where the whole is
    0.

    The t interval of the linearised values R + (part - R whole) / mean(whole) over the problems with
    something in the whole (Cochran, Sampling Techniques, 6.3). Their mean is R; with a whole of ones they are
    the parts, and this is the plain t interval. low and high are None where it is undefined: one problem, or
    no variance.
    """
    part, whole = np.array(part_P, float), np.array(whole_P, float)
    part, whole = part[whole > 0], whole[whole > 0]
    if not whole.size:
        return None
    R = part.sum() / whole.sum()
    found = estimate(R + (part - R * whole) / whole.mean())
    clipped = {
        name: None if bound is None else min(1.0, max(0.0, bound))
        for name, bound in (("low", found.low), ("high", found.high))
    }
    return {"mean": float(R), **clipped}
