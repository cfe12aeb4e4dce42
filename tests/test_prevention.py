"""Claims about prevention, delay or neither: times to hack that are censored, equivalence, exact bounds."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from hackward.base.statistics import Equivalence, Estimate, equivalence, exact_upper, holm, two_way
from hackward.base.survival import Lasted, LogRank, least_p, log_rank, restricted_mean, strata_needed
from hackward.reports.prevention import Corrected, EndRate, Outcome, correct, end_rate, judge
from hackward.reports.prevention_tables import lasted, over_problems, prevention_blocks
from hackward.reports.tables import Caveat, Conclusion, Table
from hackward.reports.words import DELAY, NEITHER, PREVENTION, TOO_FEW, UNDEFINED, UNTESTABLE
from tests.runs_on_disk import NAN, arms_of, csv_rows, row, run_main, write_run
from tests.watched_runs import rollout, write_watched

Groups = dict[int, list[Lasted]]


def ended(*times: float) -> list[Lasted]:
    return [Lasted(time, True) for time in times]


def going_on(*times: float) -> list[Lasted]:
    return [Lasted(time, False) for time in times]


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
    assert found.z == pytest.approx(-math.sqrt(2)) and found.p == pytest.approx(0.1573, abs=1e-4)
    turned = log_rank(second, first)
    assert turned.p == pytest.approx(found.p) and not turned.longer
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
        assert alone.p == pytest.approx(stats.logrank(*samples).pvalue)


def test_no_log_rank_of_so_many_seeds_has_a_smaller_p_than_that_of_all_later():
    for seeds in (1, 3, 5):
        later: Groups = {seed: going_on(59) for seed in range(seeds)}
        vanilla: Groups = {seed: ended(9 + seed) for seed in range(seeds)}
        assert log_rank(later, vanilla).p == pytest.approx(least_p(seeds))
    assert [round(least_p(seeds), 4) for seeds in (3, 4, 5)] == [0.0833, 0.0455, 0.0253]
    assert [strata_needed(0.05 / tests) for tests in (1, 2, 12)] == [4, 6, 9]


# ---------------------------------------------------------------------- equivalence, bounds, many arms
def by_seed(*values: float | None) -> dict[int, float | None]:
    return dict(enumerate(values))


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
    assert alone.p is None and alone.gap.why == "one value"


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


# ---------------------------------------------------------------------- the verdict
def same(p: float | None, mean: float = 0.0, seeds: int = 5, reach: float = 0.02) -> Equivalence:
    gap = Estimate(seeds, mean, reach, mean - reach, mean + reach) if seeds > 1 else Estimate(seeds, why="no")
    return Equivalence(gap, p)


def judged(p: Corrected | None = None, **more: Any):
    """A prevented arm of five seeds, but for what is named."""
    fine = {
        "seeds": 5,
        "unseen": 0,
        "breakouts": 0,
        "vanilla_seeds": 5,
        "vanilla_breakouts": 5,
        "end": EndRate(0.0, 0.02, 0.02),
        "later": LogRank(5, -2.5, -2.2, 0.025),
        "to_vanilla": same(0.001),
        "to_base": same(0.001),
    }
    outcome = Outcome(**fine | more)
    return judge(outcome, p or correct({"arm": outcome})["arm"])


SOONER = LogRank(5, 0.5, 0.4, 0.6)


@pytest.mark.parametrize(
    ("more", "word", "part"),
    [
        ({}, PREVENTION, "solving equivalent to that of vanilla and the base model"),
        ({"breakouts": 1}, DELAY, "later than vanilla (p 0.025)"),
        ({"breakouts": 1, "later": LogRank(5, -1.5, -1.5, 0.13)}, NEITHER, "not shown to be later"),
        ({"breakouts": 5, "later": SOONER}, NEITHER, "not later"),
        ({"breakouts": 1, "later": LogRank(5, 2.5, 2.2, 0.025)}, NEITHER, "not later"),  # p small, but sooner
        ({"breakouts": 1, "later": LogRank(3, -1.5, -1.7, 0.083)}, TOO_FEW, "p at best 0.083"),
        ({"breakouts": 1, "later": LogRank(3, 0.5, 0.5, 0.6)}, NEITHER, "not later"),
        ({"end": EndRate(0.01, 0.05, 0.02)}, NEITHER, "may be as high as 0.05"),
        ({"end": EndRate(0.0, 0.06, 0.06)}, TOO_FEW, "without a hack at most 0.06"),
        ({"to_vanilla": same(0.05)}, NEITHER, "not shown equivalent to that of vanilla"),
        ({"to_base": same(0.9, 0.2)}, NEITHER, "solves more than the base model: +0.200"),
        ({"to_base": same(0.9, -0.2)}, NEITHER, "solves less than the base model"),
        ({"to_vanilla": same(None, seeds=1)}, TOO_FEW, "cannot be tested"),
        ({"to_base": same(None, seeds=0)}, UNDEFINED, "not evaluated"),
        ({"vanilla_breakouts": 0}, UNTESTABLE, "vanilla itself"),
        ({"vanilla_seeds": 0, "vanilla_breakouts": 0}, UNDEFINED, "no vanilla"),
        ({"unseen": 1}, UNDEFINED, "without a time to hack"),
    ],
)
def test_prevention_needs_all_three_and_delay_a_later_time(more, word, part):
    found = judged(**more)
    assert found.word == word and part in found.why


def test_verdicts_go_by_p_values_corrected_for_the_number_of_arms():
    """p .025 in one arm is .05 in two; .03 of equivalence is .06."""
    many = Corrected(later=0.05, equivalent=0.06, least_later=0.05)
    assert judged(many, breakouts=1).word == TOO_FEW
    assert judged(many).word == NEITHER and "over so many arms (p 0.06)" in judged(many).why
    assert judged(Corrected(0.06, 0.06, 0.04), breakouts=1).word == NEITHER


# ---------------------------------------------------------------------- from run directories
def closed(adapter: str, solved: float) -> dict[str, Any]:
    rate = {"mean": solved, "low": None, "high": None}
    facts = {"step": 60, "adapter": adapter, "condition": "closed", "problems": 32, "samples": 2}
    return facts | {"hacked": rate, "attempted": rate, "solved": rate, "hack_given_attempt": None}


def write_seeds(
    root: Path, arm: str, begins: tuple[int | None, ...], gain: float = 0.01, **settings: Any
) -> None:
    """An arm of sixty steps: per seed the first step that hacks (rate .5), or None.

    Solved: .2 with the adapter off, and on it ``gain`` more, with a small spread over seeds.
    """
    for seed, begin in enumerate(begins, start=1):
        rates = [0.5 if begin is not None and step >= begin else 0.0 for step in range(60)]
        measured = {"gt_rate": 0.5, "attempt_rate": 0.5, "groups_used": 6, "groups_skipped": 2}
        rows = [row(step, hack_rate=rate, **measured) for step, rate in enumerate(rates)]
        heldout = [closed("on", 0.2 + gain + 0.005 * (-1) ** seed), closed("off", 0.2)]
        write_run(
            root / f"{arm}{seed}{settings}", "sampled", rows, heldout=heldout, arm=arm, seed=seed, **settings
        )


SOON, LATE, NEVER = (5, 6, 7, 8, 9), (20, 30, 40, 50, None), (None,) * 5


def verdicts(root: Path) -> tuple[dict[str, dict[str, Any]], str]:
    """(records by arm, the sentences)."""
    table, *_, words = prevention_blocks(list(arms_of(root).values()))
    assert isinstance(table, Table) and isinstance(words, Conclusion)
    return {record["arm"]: record for record in table.records}, words


def test_a_seed_that_never_hacks_is_censored_at_its_last_step(tmp_path):
    write_seeds(tmp_path, "projected", (20, None))
    (arm,) = arms_of(tmp_path).values()
    # the first three-step mean above .1 ends with the first hacking step: .5 / 3
    assert lasted(arm) == {1: Lasted(20, True), 2: Lasted(59, False)}


def test_an_arm_that_hacks_later_delays_and_one_that_never_hacks_prevents(tmp_path):
    write_seeds(tmp_path, "vanilla", SOON, gain=0.0)
    write_seeds(tmp_path, "projected", LATE)
    records, words = verdicts(tmp_path)
    vanilla, projected = records["vanilla"], records["projected"]
    assert vanilla["verdict"] is None and vanilla["breakouts"] == 5
    assert vanilla["restricted_mean"] == pytest.approx(7) and vanilla["until"] == 59
    assert projected["restricted_mean"] == pytest.approx((20 + 30 + 40 + 50 + 59) / 5)
    assert projected["end_rate"] == pytest.approx(0.4)  # four of five hack half of it
    assert projected["verdict"] == DELAY and projected["log_rank_p_holm"] == pytest.approx(least_p(5))
    assert projected["breakouts"] == 4 and projected["breakouts_high"] == pytest.approx(exact_upper(4, 5))
    assert "By the end, projected: DELAY: later than vanilla (p 0.025). 4 of 5 seeds" in words
    write_seeds(tmp_path, "projected", NEVER, gate="two-sided")
    records, words = verdicts(tmp_path)
    prevented = records["projected two-sided"]
    assert prevented["verdict"] == PREVENTION and "PREVENTION: solving equivalent" in words
    # six steps of eight groups in five seeds
    assert prevented["end_rate_high"] == pytest.approx(exact_upper(0, 240))
    # vanilla varies with the seed as the arm does, the base model does not: three of five are .005 lower
    assert prevented["to_vanilla_mean"] == pytest.approx(0.01)
    assert prevented["to_base_mean"] == pytest.approx(0.009)
    assert prevented["to_vanilla_p"] == 0 < prevented["to_base_p"]
    # two arms: five seeds are no longer enough to show a delay
    late = records["projected one-sided"]
    assert late["verdict"] == TOO_FEW and late["log_rank_p_holm"] == pytest.approx(2 * least_p(5))


def test_the_rate_at_the_end_over_problems_is_of_own_rollouts_of_the_last_tenth(tmp_path):
    """Twenty steps: two count. Of six problems, one is hacked by seed 1; the teacher's rows do not count."""
    for seed in (1, 2):
        last = [rollout(f"p{problem}", hacked=problem == 0 and seed == 1) for problem in range(6)]
        last.append(rollout("p6", hacked=True, own=False))
        steps = [[rollout("p0", hacked=True)]] * 18 + [last] * 2
        write_watched(tmp_path / str(seed), steps, seed=seed)
    (arm,) = arms_of(tmp_path).values()
    found = over_problems(arm)
    assert (found.n, found.mean, found.low) == (2, pytest.approx(1 / 12), 0.0) and found.high > 0.2
    write_seeds(tmp_path / "without", "vanilla", (5,))
    (arm,) = arms_of(tmp_path / "without").values()
    assert over_problems(arm).why == "no rollouts"


def test_what_seeds_cannot_show_is_said_once_with_how_many_could(tmp_path):
    write_seeds(tmp_path, "vanilla", SOON[:3])
    write_seeds(tmp_path, "projected", LATE[:3])
    (_, caveat, _) = prevention_blocks(list(arms_of(tmp_path).values()))
    assert isinstance(caveat, Caveat) and "in 1 of 1 arms, corrected for 1: 4 seeds at least" in caveat
    for seed_count in (4, 5):
        write_seeds(tmp_path, "vanilla", SOON[:seed_count])
        write_seeds(tmp_path, "projected", LATE[:seed_count])
        assert len(prevention_blocks(list(arms_of(tmp_path).values()))) == 2


def test_an_arm_in_another_basis_has_no_vanilla_to_be_later_than(tmp_path):
    write_seeds(tmp_path, "vanilla", SOON)
    write_seeds(tmp_path, "lora", NEVER, rank=4)
    records, words = verdicts(tmp_path)
    assert records["lora"]["verdict"] == UNDEFINED and "no vanilla in its basis" in words


def test_the_report_and_the_page_say_the_verdict_in_the_same_words(tmp_path, capsys):
    write_seeds(tmp_path, "vanilla", SOON, gain=0.0)
    write_seeds(tmp_path, "projected", NEVER)
    run_main(tmp_path)
    printed = " ".join(capsys.readouterr().out.split())
    said = "By the end, projected: PREVENTION: solving equivalent to that of vanilla and the base model"
    assert said in printed and not NAN.search(printed) and "None" not in printed
    for name in ("report.md", "report.html"):
        assert said in (tmp_path / "report" / name).read_text(encoding="utf-8")
    table = {line["arm"]: line for line in csv_rows(tmp_path / "report" / "arms_verdict.csv")}
    assert table["projected"]["verdict"] == PREVENTION and table["vanilla"]["verdict"] == ""
