"""What the words "about 0", "most" and "consistently" mean in figures; spec/reading.md explains them."""

from __future__ import annotations

from collections.abc import Iterable

from hackward.base import statistics
from hackward.base.statistics import FLOAT_NOISE, Range, defined, estimate

SPREAD_GOOD = 1.0  # spec: reward max - min per step > 1.0
SPREAD_USELESS = 0.1  # spec: < 0.1, no advantage signal
TINY_ADVANTAGE = (
    0.05  # ours: a centred group of spread s has max |A| >= s / 2, so this is the useless spread again
)
MOST_STEPS = (
    16 / 20
)  # spec: "at least 16 of 20"; also our "most" and "consistently": half would happen by chance
ABOUT_ZERO = 0.05  # spec: "projected cos_in < 0.05"
RARER_SIGN = 0.25  # ours: alternating steps have at least this share of the rarer sign
LEAST_CHANGE = 1e-3  # ours: the last digit of a printed cosine; a smaller change cannot be seen in a table
FEW_FIRED = 0.25  # ours for "frac_fired << 1": half of what coin-flip signs give a one-sided gate
STRONG_COSINE = 0.2  # spec: vanilla cos_in > 0.2 consistently justifies Phase 3
CHEAP_REWARD = 0.5  # spec: check that some base samples earn more than the reward for the format alone


def on_most(hits: int, total: int) -> bool:
    """At least 16 of 20 steps, or that share of another number of steps."""
    return total > 0 and hits >= MOST_STEPS * total - 1e-9


def mean_about_zero(values: Iterable[float | None]) -> bool | None:
    """Is a mean about 0: |mean| < ABOUT_ZERO, or its 95 % t interval includes 0? None below two values."""
    found = estimate(values)
    if found.n < 2 or found.mean is None:
        return None
    if abs(found.mean) < ABOUT_ZERO:
        return True
    if found.interval is None:  # no variance: the mean stands
        return False
    low, high = found.interval
    return low <= 0 <= high


def steps_about_zero(values: Iterable[float | None]) -> bool | None:
    """Is a cosine about 0 on *all* steps: |value| < ABOUT_ZERO on each? Only that is orthogonal.

    None below two values.
    """
    known = defined(values)
    return None if len(known) < 2 else all(abs(value) < ABOUT_ZERO for value in known)


def alternates(values: Iterable[float | None]) -> bool | None:
    """Do steps of both signs cancel in the mean?

    Among the steps that are not about 0 the rarer sign makes up RARER_SIGN or more, and the interval of the
    mean over all steps includes 0. None below two values.
    """
    known = defined(values)
    if len(known) < 2:
        return None
    up, down = far_steps(known)
    if not up or not down or min(up, down) < RARER_SIGN * (up + down):
        return False
    found = estimate(known)
    if found.interval is None:
        return False
    low, high = found.interval
    return low <= 0 <= high


def far_steps(values: Iterable[float | None]) -> tuple[int, int]:
    """How many steps are hack-ward and how many are away from it, of those with |cosine| >= ABOUT_ZERO."""
    far = [value for value in defined(values) if abs(value) >= ABOUT_ZERO]
    up = sum(value > 0 for value in far)
    return up, len(far) - up


def lower(after: float, before: float) -> bool:
    """Did an edit lower a cosine by something that a table can show?"""
    return before - after >= LEAST_CHANGE - FLOAT_NOISE


def below_zero(values: Iterable[float | None]) -> bool | None:
    """Is the mean negative, and not about 0? None below two values."""
    known = defined(values)
    zero, centre = mean_about_zero(known), statistics.mean(known)
    if zero is None or centre is None:
        return None
    return centre < 0 and not zero


def within_null(values: Iterable[float | None], null: Range | None) -> bool | None:
    """Is a hack-ward mean no larger than its null? None where either is undefined."""
    centre = statistics.mean(values)
    return None if centre is None or null is None else 0 < centre <= null[1]
