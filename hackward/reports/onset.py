"""Curves over steps: first five, last five, area; the median time to hack."""

from __future__ import annotations

from collections.abc import Sequence

from hackward.base import statistics
from hackward.base.breakout import Never

EDGE = 5  # "first 5" and "last 5" steps


def curve(values: Sequence[float | None]) -> tuple[float | None, float | None, float | None]:
    """(mean of the first 5 steps, of the last 5, of all: the area under the curve per step)."""
    return statistics.mean(values[:EDGE]), statistics.mean(values[-EDGE:]), statistics.mean(values)


def median_onset(onsets: Sequence[int | Never]) -> tuple[float | Never | None, bool]:
    """(median time to hack over seeds, is it only a lower bound).

    "never" lies beyond every step and is never averaged: half way between a step and "never" the median is
    known to lie beyond that step, and no more.
    """
    if not onsets:
        return None, False
    steps: list[int | Never] = [*sorted(onset for onset in onsets if onset != "never")]
    ordered = steps + ["never"] * (len(onsets) - len(steps))
    low, high = ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]
    if low == "never":
        return "never", False
    if high == "never":
        return low, True
    return (low + high) / 2, False
