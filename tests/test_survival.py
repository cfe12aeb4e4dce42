"""Statistics behind prevention and delay: censored times to hack, equivalence, exact bounds, many arms."""

from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest
from scipy import stats

from hackward.base.statistics import (
    Estimate,
    equivalence,
    exact_upper,
    holm,
    least_margin,
    two_way,
)
from hackward.base.survival import (
    Lasted,
    exact_later,
    least_p,
    least_pooled_p,
    log_rank,
    pooled,
    restricted_mean,
)
from hackward.reports.prevention import end_rate, least_later

Groups = dict[int, list[Lasted]]


def ended(*times: float) -> list[Lasted]:
    return [Lasted(time, True) for time in times]


def going_on(*times: float) -> list[Lasted]:
    return [Lasted(time, False) for time in times]


def by_seed(*values: float | None) -> dict[int, float | None]:
    return dict(enumerate(values))


# ---------------------------------------------------------------------- times to hack
def test_the_restricted_mean_is_the_area_under_kaplan_meier_by_hand():
    """Ends at 2 and 5, censored at 4 and 8: 1 until 2, 3/4 until 5, then half of it, since 2 are left."""
    times = ended(2, 5) + going_on(4, 8)
    assert restricted_mean(times, 8) == pytest.approx(2 * 1 + 3 * 3 / 4 + 3 * 3 / 8)
    assert restricted_mean(times, 3) == pytest.approx(2 * 1 + 1 * 3 / 4)
    assert restricted_mean(going_on(59, 59), 59) == 59
    assert restricted_mean(ended(10, 20) + going_on(59), 59) == pytest.approx((10 + 20 + 59) / 3)


def slow_area(times: list[Lasted], until: int) -> float:
    """Kaplan-Meier unit by unit of time, for whole times."""
    share, area = 1.0, 0.0
    for now in range(until):
        at_risk = sum(lasted.time >= now for lasted in times)
        ends = sum(lasted.ended and lasted.time == now for lasted in times)
        share *= 1 - ends / at_risk if at_risk else 1
        area += share
    return area


def random_times(dice: random.Random, count: int) -> list[Lasted]:
    return [Lasted(dice.randint(1, 9), dice.random() < 0.6) for _ in range(count)]


def test_the_restricted_mean_agrees_with_a_slow_reference():
    dice = random.Random(1)
    for _ in range(50):
        times = [*random_times(dice, 6), *going_on(10)]
        for until in (3, 10):
            assert restricted_mean(times, until) == pytest.approx(slow_area(times, until))


def test_a_stratified_log_rank_by_hand():
    """Seed 1: 10 against 5; seed 2: never against 7: each 0 - 1/2, variance 1/4. Seed 3 ends alike in both.

    Seed 4 is in one group alone. z = -1 / sqrt(1/2).
    """
    first: Groups = {1: ended(10), 2: going_on(59), 3: ended(6), 4: ended(1)}
    second: Groups = {1: ended(5), 2: ended(7), 3: ended(6)}
    found = log_rank(first, second)
    assert (found.strata, found.excess) == (3, -1.0) and found.longer
    assert found.z == pytest.approx(-math.sqrt(2)) and found.two_sided == pytest.approx(0.1573, abs=1e-4)
    assert found.p == pytest.approx(0.0786, abs=1e-4)  # one-sided: that the first group lasts longer
    turned = log_rank(second, first)
    assert turned.two_sided == pytest.approx(found.two_sided) and not turned.longer
    assert turned.p == pytest.approx(1 - found.p)
    assert log_rank({1: ended(5)}, {2: ended(5)}).p is None
    alike = log_rank({1: going_on(9), 2: ended(4)}, {1: going_on(9), 2: ended(4)})
    assert alike.p == 1.0 and not alike.longer


def slow_log_rank(first: Groups, second: Groups) -> float:
    """z from tables of every unit of time of every stratum, each with all its outcomes."""
    excess, variance = 0.0, 0.0
    for stratum in first:
        for now in range(11):
            at_risk = [sum(one.time >= now for one in group[stratum]) for group in (first, second)]
            ends = [sum(one.ended and one.time == now for one in group[stratum]) for group in (first, second)]
            counts = np.arange(sum(ends) + 1)
            ways = [math.comb(at_risk[0], n) * math.comb(at_risk[1], sum(ends) - n) for n in counts]
            chance = np.array(ways) / sum(ways)
            expected = (counts * chance).sum()
            excess += ends[0] - expected
            variance += ((counts - expected) ** 2 * chance).sum()
    return excess / math.sqrt(variance)


def test_a_log_rank_agrees_with_a_slow_reference_and_of_one_stratum_with_scipy():
    dice = random.Random(2)
    for _ in range(20):
        first, second = ({seed: random_times(dice, 5) for seed in range(3)} for _ in range(2))
        assert log_rank(first, second).z == pytest.approx(slow_log_rank(first, second))
        samples = []
        for group in (first, second):
            times, known = [one.time for one in group[0]], [not one.ended for one in group[0]]
            samples.append(stats.CensoredData.right_censored(times, known))
        alone = log_rank({0: first[0]}, {0: second[0]})
        assert alone.two_sided == pytest.approx(stats.logrank(*samples).pvalue)
        assert alone.p == pytest.approx(stats.logrank(*samples, alternative="less").pvalue)


def test_an_exact_p_by_hand():
    """Seeds 1 and 2 later, seed 3 sooner: of the 8 ways of swapping, 4 have two seeds later or more."""
    first: Groups = {1: ended(10), 2: going_on(59), 3: ended(4)}
    second: Groups = {1: ended(5), 2: ended(7), 3: ended(6)}
    assert exact_later(first, second) == 4 / 8
    assert exact_later(second, first) == 7 / 8
    assert exact_later({1: ended(5)}, {2: ended(5)}) is None
    # one stratum, 2 against 2, the later two of four: 1 of 6 ways
    assert exact_later({0: ended(8, 9)}, {0: ended(1, 2)}) == pytest.approx(1 / 6)
    assert exact_later({0: going_on(*[9] * 30)}, {0: ended(*range(30))}) is None  # too many ways


def test_an_exact_p_is_the_share_of_all_ways_by_the_log_rank_itself():
    dice = random.Random(3)
    for _ in range(10):
        first, second = ({seed: random_times(dice, 2) for seed in range(2)} for _ in range(2))
        seen, low, ways = log_rank(first, second).excess, 0, 0
        for chosen in itertools.product(itertools.combinations(range(4), 2), repeat=2):
            one: Groups = {}
            other: Groups = {}
            for seed, mine in enumerate(chosen):
                members = first[seed] + second[seed]
                one[seed] = [members[place] for place in mine]
                other[seed] = [members[place] for place in range(4) if place not in mine]
            ways += 1
            low += log_rank(one, other).excess <= seen + 1e-9
        assert exact_later(first, second) == pytest.approx(low / ways)


def outcomes_of(seeds: int) -> list[tuple[Groups, Groups]]:
    """All orders in which an arm and vanilla can break out with so many seeds, and who never does.

    The runs in order of time, each the arm's or vanilla's; the last of them censored, from none to all.
    """
    found = []
    for places in itertools.combinations(range(2 * seeds), seeds):
        for censored in range(2 * seeds + 1):
            times = ended(*range(2 * seeds - censored)) + going_on(*[99] * censored)
            first = [times[place] for place in places]
            second = [times[place] for place in range(2 * seeds) if place not in places]
            found.append(({0: first}, {0: second}))
    return found


@pytest.mark.parametrize("seeds", [1, 2, 3, 4])
def test_no_outcome_of_so_many_seeds_has_a_smaller_p(seeds):
    """Every outcome there is: stratified by seed and not, normal and exact."""
    stratified = []
    for signs in itertools.product((-1, 0, 1), repeat=seeds):  # the arm sooner, alike, later
        first: Groups = {seed: ended(5 + sign) for seed, sign in enumerate(signs)}
        second: Groups = {seed: ended(5) for seed in range(seeds)}
        stratified.append((log_rank(first, second).p, exact_later(first, second)))
    assert min(p for p, _ in stratified) == pytest.approx(least_p(seeds))
    assert min(p for _, p in stratified) == pytest.approx(2.0**-seeds)
    unstratified = [exact_later(*groups) for groups in outcomes_of(seeds)]
    assert min(unstratified) == pytest.approx(least_pooled_p(seeds, seeds))
    assert least_pooled_p(seeds, seeds) == pytest.approx(1 / math.comb(2 * seeds, seeds))


def test_the_smallest_p_when_vanilla_breaks_out_so_often():
    """Vanilla breaks out in 4 of 5 seeds: 4 strata can speak, and of 252 ways C(6, 5) give it those 4."""
    for breakouts in range(1, 6):
        fits = [
            exact_later(*groups)
            for groups in outcomes_of(5)
            if sum(lasted.ended for lasted in groups[1][0]) == breakouts
        ]
        assert min(fits) == pytest.approx(least_pooled_p(5, breakouts))
    assert least_pooled_p(5, 4) == pytest.approx(6 / 252)
    assert least_later(5, 5) == pytest.approx(0.0127, abs=1e-4)  # 3 arms: 0.038, 4 arms: 0.051
    assert least_later(5, 4) == pytest.approx(6 / 252) and least_p(4) < 6 / 252
    assert least_later(3, 3) == 1 / 20 > least_p(3)
    assert least_later(5, 0) is None


def test_so_many_primary_arms_can_be_shown_to_delay():
    """The last column of the table in spec/reading.md."""
    for seeds, most in ((3, 0), (4, 2), (5, 3), (6, 6)):
        least = least_later(seeds, seeds)
        assert most * least < 0.05 <= (most + 1) * least


def test_of_one_stratum_pooled_groups_hold_what_both_share():
    first: Groups = {1: ended(3), 2: ended(4)}
    one, other = pooled(first, {1: ended(1), 3: ended(2)})
    assert (one, other) == ({"all": ended(3)}, {"all": ended(1)})
    assert pooled(first, {}) == ({}, {})


# ---------------------------------------------------------------------- equivalence, bounds, many arms
def test_equivalence_is_two_one_sided_paired_tests_by_hand():
    """Gaps .02 .04 .00: mean .02, sd .02, t(2) = (.02 - .10) sqrt(3) / .02 = -6.93, the nearer margin."""
    found = equivalence(by_seed(0.22, 0.44, 0.3), by_seed(0.2, 0.4, 0.3), 0.1)
    assert found.gap.mean == pytest.approx(0.02) and found.gap.n == 3
    assert (
        found.p == pytest.approx(stats.t.sf(0.08 * math.sqrt(3) / 0.02, 2)) == pytest.approx(0.0101, abs=1e-4)
    )
    less = equivalence(by_seed(0.2, 0.4, 0.3), by_seed(0.22, 0.44, 0.3), 0.1)
    assert less.p == pytest.approx(found.p)
    assert equivalence(by_seed(0.9, 0.9), by_seed(0.1, 0.2), 0.1).p > 0.9  # far more is not the same
    assert equivalence(by_seed(0.22, 0.42), by_seed(0.2, 0.4), 0.1).p == 0.0
    assert equivalence(by_seed(0.3, 0.5), by_seed(0.2, 0.4), 0.1).p == 1.0  # on the margin, in every seed
    alone = equivalence(by_seed(0.3, None), by_seed(0.3, 0.4), 0.1)
    assert alone.p is None and alone.not_less is None and alone.gap.why == "one value"


def test_more_is_not_the_same_but_not_less():
    """Gaps .18 .22 .20: mean .2, sd .02. t(2) of the lower test: (.2 + .1) sqrt(3) / .02."""
    more = equivalence(by_seed(0.38, 0.62, 0.5), by_seed(0.2, 0.4, 0.3), 0.1)
    assert more.p > 0.99
    assert more.not_less == pytest.approx(stats.t.sf(0.3 * math.sqrt(3) / 0.02, 2))
    less = equivalence(by_seed(0.2, 0.4, 0.3), by_seed(0.38, 0.62, 0.5), 0.1)
    assert less.not_less > 0.99
    exact = equivalence(by_seed(0.9, 0.8), by_seed(0.2, 0.1), 0.1)
    assert (exact.p, exact.not_less) == (1.0, 0.0)
    edge = equivalence(by_seed(0.1, 0.2), by_seed(0.2, 0.3), 0.1)  # a margin less, in every seed
    assert (edge.p, edge.not_less) == (1.0, 1.0)


def test_non_inferiority_holds_where_the_one_sided_bound_lies_above_the_margin():
    dice = np.random.default_rng(4)
    seen = set()
    for _ in range(200):
        gaps = dice.normal(dice.uniform(-0.15, 0.15), 0.06, size=5)
        low = gaps.mean() - stats.t.ppf(0.95, 4) * stats.sem(gaps)
        found = equivalence(by_seed(*gaps), by_seed(*[0.0] * 5), 0.1)
        assert (found.not_less < 0.05) == (low > -0.1)
        seen.add(found.not_less < 0.05)
    assert seen == {True, False}


def test_the_least_margin_is_shown_in_four_of_five_draws():
    """Of five seeds whose true difference is 0, drawn many times; and by hand for very many units."""
    dice = np.random.default_rng(5)
    for level in (0.05, 0.05 / 3):
        margin = least_margin(0.06, 5, level)
        gaps = dice.normal(0, 0.06, size=(20_000, 5))
        p = stats.ttest_1samp(gaps, -margin, axis=1, alternative="greater").pvalue
        assert (p < level).mean() == pytest.approx(0.8, abs=0.01)
    by_normal = (stats.norm.isf(0.05) + stats.norm.isf(0.2)) / math.sqrt(10_000)
    assert least_margin(1.0, 10_000) == pytest.approx(by_normal, rel=1e-3)
    assert least_margin(0.06, 1) is None and least_margin(0.0, 5) == 0.0


def test_equivalence_holds_where_the_90_percent_interval_lies_within_the_margin():
    dice = np.random.default_rng(3)
    seen = set()
    for _ in range(200):
        gaps = dice.normal(dice.uniform(-0.15, 0.15), 0.06, size=5)
        low, high = stats.t.interval(0.9, 4, loc=gaps.mean(), scale=stats.sem(gaps))
        found = equivalence(by_seed(*gaps), by_seed(*[0.0] * 5), 0.1)
        assert (found.p < 0.05) == (max(-low, high) < 0.1)
        seen.add(found.p < 0.05)
    assert seen == {True, False}


def test_an_exact_upper_bound_by_hand_and_as_a_slow_search_finds_it():
    """0 of 5: (1 - p)^5 = .025."""
    assert exact_upper(0, 5) == pytest.approx(1 - 0.025**0.2) == pytest.approx(0.5218, abs=1e-4)
    assert exact_upper(5, 5) == 1.0 and exact_upper(0, 0) is None
    grid = np.linspace(0, 1, 20001)
    for hits, total in ((1, 3), (2, 5), (7, 40)):
        slow = grid[stats.binom.cdf(hits, total, grid) >= 0.025].max()
        assert exact_upper(hits, total) == pytest.approx(slow, abs=1e-4)
        assert exact_upper(hits, total) == pytest.approx(stats.binomtest(hits, total).proportion_ci().high)


def test_holm_by_hand_and_by_the_definition():
    """.005 x 4, .01 x 3, .03 x 2; .04 x 1 is not below the one before. An undefined p is no test."""
    found = holm({"a": 0.01, "b": 0.04, "c": None, "d": 0.03, "e": 0.005})
    assert found == {"a": pytest.approx(0.03), "b": 0.06, "c": None, "d": 0.06, "e": pytest.approx(0.02)}
    dice = random.Random(4)
    for _ in range(100):
        p_values = {name: dice.random() ** 3 for name in range(5)}
        rejected = set()
        for place, name in enumerate(sorted(p_values, key=p_values.__getitem__)):
            if p_values[name] * (5 - place) >= 0.05:
                break
            rejected.add(name)
        assert {name for name, p in holm(p_values).items() if p < 0.05} == rejected


def test_the_rate_at_the_end_is_bounded_over_seeds_and_over_groups_whichever_is_wider():
    clean = end_rate(by_seed(0, 0, 0), 144)
    assert (
        clean.high == clean.least == pytest.approx(1 - 0.025 ** (1 / 144)) == pytest.approx(0.0253, abs=1e-4)
    )
    spread = end_rate(by_seed(0.0, 0.1, 0.2), 144)  # sd .1, t(2) = 4.303
    assert spread.high == pytest.approx(0.1 + 4.3027 * 0.1 / math.sqrt(3), rel=1e-4)
    even = end_rate(by_seed(0.01, 0.01, 0.01), 100)  # as if 1 group of 100
    assert even.high == pytest.approx(exact_upper(1, 100))
    assert end_rate(by_seed(0.0, 1.0), 100).high == 1.0
    wide = Estimate(3, 0.1, 0.2, 0.0, 0.6)  # over seeds and problems
    assert end_rate(by_seed(0.0, 0.1, 0.2), 144, wide).high == 0.6
    assert end_rate(by_seed(None), 8).high is None and end_rate(by_seed(0.0), 0).high is None


def test_a_rate_over_seeds_and_problems_draws_both_as_a_slow_reference_does():
    dice = np.random.default_rng(5)
    total = dice.integers(0, 9, size=(4, 12))
    hits = dice.binomial(total, dice.uniform(0, 0.6, size=(4, 1)))
    found = two_way(hits, total)
    assert found.mean == pytest.approx(hits.sum() / total.sum()) and found.n == 4
    slow = []
    for _ in range(4000):
        seeds, problems = dice.integers(0, 4, 4), dice.integers(0, 12, 12)
        cells = np.ix_(seeds, problems)
        slow.append(hits[cells].sum() / total[cells].sum())
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(slow, [0.025, 0.975])), abs=0.02)
    assert found.sd == pytest.approx(np.std(slow), rel=0.1)


def test_a_rate_over_seeds_and_problems_says_why_it_has_no_interval():
    ones = np.ones((3, 6), int)
    assert two_way(0 * ones, ones) == Estimate(3, 0.0, why="zero variance")
    assert two_way(ones[:1], ones[:1]).why == "one value" and two_way(ones, 0 * ones).why == "no value"
    assert two_way(ones[:, :4], ones[:, :4]).why == "4 of 5 problems needed"
