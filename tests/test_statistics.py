"""Claims about hackward/base/statistics.py: estimates, tests, and what is undefined."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from hackward.base.statistics import (
    Estimate,
    differences,
    estimate,
    estimate_difference,
    null_range,
    paired,
    ratio,
    welch,
)


def test_welch_agrees_with_scipy_and_with_the_formula_by_hand():
    """(1, 2, 3, 4) against (5, 7): var 5/3 and 2, se^2 = 5/12 + 1 = 17/12, t = (2.5 - 6) / sqrt(17/12)."""
    first, second = [1.0, 2.0, 3.0, 4.0], [5.0, 7.0]
    found = welch(first, second)
    square = 17 / 12
    df = square**2 / ((5 / 12) ** 2 / 3 + 1**2 / 1)
    assert found.t == pytest.approx(-3.5 / math.sqrt(square)) and found.df == pytest.approx(df)
    assert found.p == pytest.approx(stats.ttest_ind(first, second, equal_var=False).pvalue)
    assert found.p == pytest.approx(2 * stats.t.sf(3.5 / math.sqrt(square), df))
    half = stats.t.ppf(0.975, df) * math.sqrt(square)
    assert (found.low, found.high) == pytest.approx((-3.5 - half, -3.5 + half))


@pytest.mark.parametrize(
    ("first", "second", "why"),
    [
        ([], [1.0, 2.0], "a: no value"),
        ([1.0, 2.0], [3.0], "b: one value"),
        ([None, 1.0], [1.0, 2.0], "a: one value"),
    ],
)
def test_welch_says_why_it_is_undefined(first, second, why):
    found = welch(first, second, ("a", "b"))
    assert found.why == why and found.p is None and found.larger is None


def test_an_estimate_is_undefined_with_a_reason():
    assert estimate([]).why == "no value" and estimate([None, 1.0]).why == "one value"
    flat = estimate([0.3, 0.3, 0.3])
    assert flat.why == "zero variance" and flat.mean == pytest.approx(0.3) and flat.low is None
    found = estimate([1.0, 2.0, 3.0])  # sd 1, half width 4.303 / sqrt(3)
    assert (found.low, found.high) == pytest.approx((2 - 2.4841, 2 + 2.4841), abs=1e-3)


@pytest.mark.parametrize(
    ("first", "second", "point", "p"),
    [
        ((0.1, 0.1, 0.1), (1.0, 1.0, 1.0), -0.9, 0.0),
        ((0.1, 0.3, 0.05), (1.0, 1.2, 0.95), -0.9, 0.0),  # equal within float noise, though no side is
        ((0.3, 0.2), (0.3, 0.2), 0.0, 1.0),
    ],
)
def test_a_difference_that_does_not_vary_is_its_own_interval(first, second, point, p):
    """The same in every unit is the clearest result that there is, not a missing one."""
    sides = [dict(enumerate(values)) for values in (first, second)]
    found, test = differences(*sides), paired(*sides)
    assert (found.mean, found.low, found.high) == pytest.approx((point, point, point)) and found.sd == 0
    assert (test.low, test.high, test.p) == pytest.approx((point, point, p)) and test.why is None
    assert test.t is None and test.df is None and test.larger is False


def test_float_noise_around_no_difference_has_no_sign():
    found = estimate_difference([0.1 + 0.2 - 0.3, 0.0, 0.0])
    assert (found.mean, found.low, found.high) == (0.0, 0.0, 0.0)


def test_two_sides_without_variance_differ_exactly_or_not_at_all():
    apart, alike = welch([1.0, 1.0], [2.0, 2.0]), welch([1.0, 1.0], [1.0, 1.0])
    assert (apart.difference, apart.low, apart.high, apart.p) == (-1.0, -1.0, -1.0, 0.0)
    assert (alike.difference, alike.p, alike.larger) == (0.0, 1.0, False)
    assert welch([2.0, 2.0], [1.0, 1.0]).larger is True


def test_one_unit_has_no_interval_of_its_difference():
    assert differences({1: 0.1}, {1: 1.0}) == Estimate(1, -0.9, why="one value")
    assert paired({1: 0.1}, {1: 1.0}).why == "in both: one value" and paired({1: 0.1}, {}).n_first == 0


def test_a_rate_that_all_problems_share_has_no_interval():
    """0 of 12 problems is not known to be 0 exactly: width 0 would claim that."""
    assert ratio([0.0] * 12, [1.0] * 12) == {"mean": 0.0, "low": None, "high": None}
    found = ratio([1.0, 0.0, 0.0, 0.0], [1.0] * 4)
    assert found["mean"] == 0.25 and found["low"] == 0.0 and found["high"] == pytest.approx(1.0, abs=0.06)
    assert ratio([0.0], [0.0]) is None


def test_the_null_of_a_mean_is_the_range_of_the_draws_own_means():
    """Draws that agree between steps do not average out, independent ones do; each step's range is alike."""
    dice = np.random.default_rng(0)
    same, apart = dice.normal(size=2000), dice.normal(size=(100, 2000))
    together, alone = null_range(np.tile(same, (100, 1))), null_range(apart)
    assert together == pytest.approx(np.quantile(same, [0.025, 0.975]))
    assert together[1] == pytest.approx(1.96, abs=0.15)
    assert alone[1] == pytest.approx(1.96 / math.sqrt(100), abs=0.03)
    assert null_range(np.array([[1.0, math.nan]])) is None and null_range(np.empty((0, 5))) is None
