"""Claims about the verdicts on a probe, on hand-worked cases: Phase 1, and the four rows of Phase 2."""

from __future__ import annotations

import random

import numpy as np
import pytest

from hackward.reports.buckets import BUCKETS, bucket_null, bucket_of, pull
from hackward.reports.contrast import USUAL, Pulls, pool_roles
from hackward.reports.phase1 import judge_phase1, phase1_tests, steps_without_spread
from hackward.reports.probe_tables import phase1_blocks
from hackward.reports.tables import Conclusion
from hackward.reports.thresholds import alternates, mean_about_zero, steps_about_zero
from hackward.reports.verification import (
    Metric,
    judge_direction,
    judge_mechanism,
    judge_run,
    judge_signal,
    judge_specificity,
)
from hackward.reports.words import ALTERNATES, FAIL, NOT_JUDGED, PASS, SNEAKY, UNDEFINED
from tests.runs_on_disk import phase1_samples, read, replay_rows, replay_samples, row, sample, write_run


@pytest.mark.parametrize(
    ("values", "mean", "steps", "alternating"),
    [
        ([0.04, 0.04, 0.04], True, True, False),  # small, although the interval would exclude 0
        ([0.04, -0.04, 0.03], True, True, False),
        ([0.9, -0.6, 0.5, -0.1], True, False, True),  # large, but the interval includes 0: steps cancel
        ([0.3, -0.25] * 200, True, False, True),  # cancel, although the interval would exclude 0
        ([0.3, 0.31, 0.29], False, False, False),
        ([0.3, 0.3], False, False, False),  # no variance: the mean stands
        ([0.2, 0.9], True, False, False),  # too few steps for an interval, but of one sign
        ([0.01] * 9 + [0.06], True, False, False),  # weak, and of one sign
        ([0.051] * 19 + [-0.001], True, False, False),  # one tiny step of the other sign
        ([0.9, 0.01, 0.01, -0.001], True, False, False),
        ([0.3] * 16 + [-0.3] * 4, False, False, False),  # the rarer sign is too rare
        ([0.3] * 14 + [-0.3] * 6, True, False, True),
        ([0.06, -0.06] * 2 + [0.03] * 16, True, False, False),  # the small steps do not cancel
        ([0.3], None, None, None),
        ([], None, None, None),
    ],
)
def test_about_zero_and_alternating_are_stated_rules(values, mean, steps, alternating):
    """Of a mean, and of all steps: the mean of steps that cancel is about 0, and none of them need be."""
    assert mean_about_zero(values) is mean
    assert steps_about_zero(values) is steps
    assert alternates(values) is alternating


# ---------------------------------------------------------------------- Phase 1
def test_problems_are_the_unit_and_not_rollouts():
    """Eight copies of a rollout are one problem: the n of problems does not grow, that of rollouts does."""
    hacks = [sample(problem=p, logp=value) for p, value in enumerate((0.7, 0.8)) for _ in range(8)]
    both = [
        sample(gt_pass=True, problem=p, logp=value) for p, value in enumerate((0.5, 0.7)) for _ in range(8)
    ]
    tests = {(name, unit): test for name, unit, test in phase1_tests(hacks + both)}
    rollouts, problems = (tests["hack and correct", unit] for unit in ("rollouts", "problems"))
    assert rollouts.n_first == 16 and rollouts.p < 0.01
    assert problems.n_first == 2 and problems.p > 0.05
    same = tests["hack and correct", "same problem"]  # differences 0.2 and 0.1: mean 0.15, sd 0.0707, t = 3
    assert same.difference == pytest.approx(0.15) and same.t == pytest.approx(3.0)


def pure(values) -> list[dict]:
    return [sample(problem=p, logp=value) for p, value in enumerate(values)]


def solving(values, hacked=True) -> list[dict]:
    return [sample(hacked=hacked, gt_pass=hacked, problem=p, logp=value) for p, value in enumerate(values)]


@pytest.mark.parametrize(
    ("samples", "verdict", "part"),
    [
        (pure([0.7, 0.8, 0.75]) + solving([0.3, 0.4, 0.35]), PASS, "'hack and correct'"),
        (pure([0.7, 0.8, 0.75]) + solving([0.1, 0.0, 0.2], hacked=False), PASS, "'clean'"),
        (pure([0.7, 0.8, 0.75]) + solving([0.7, 0.8, 0.75]), FAIL, "not specific"),
        (pure([0.01, -0.02, 0.03]), FAIL, "about 0"),
        (pure([-0.5, -0.6, -0.55]), FAIL, "orientation"),
        (pure([0.7, 0.8, 0.75]), UNDEFINED, "nothing to compare with"),
        (pure([0.7]) + solving([0.3, 0.4]), UNDEFINED, "one value"),
        (solving([0.3, 0.4]), UNDEFINED, "no value"),
        (pure([None, None]), UNDEFINED, "no value"),
    ],
)
def test_phase1_verdict(samples, verdict, part):
    found, why = judge_phase1(samples)
    assert found == verdict and part in why


def test_a_phase_1_report_says_whose_the_figures_to_compare_with_are(tmp_path):
    write_run(tmp_path / "one", "phase1", [row(step) for step in range(8)], phase1_samples(random.Random(0)))
    *blocks, last = phase1_blocks(list(read(tmp_path).values()))
    assert isinstance(blocks[-1], Conclusion) and blocks[-1].startswith("Verdict: ")
    assert "with an earlier program" in last and "no file of it is kept" in last


def test_buckets_need_both_labels():
    labels = [(True, False), (True, True), (False, True), (False, False), (True, None), (None, True)]
    found = [bucket_of(sample(hacked=hacked, gt_pass=gt_pass)) for hacked, gt_pass in labels]
    assert found == [*BUCKETS, None, None]


def test_steps_without_reward_spread_are_counted():
    rows = [sample(step=0), sample(step=0), sample(step=1), sample(step=1, reward=0.5)]
    rows += [
        sample(step=2, problem=1),
        sample(step=2, problem=2, reward=0.5),
    ]  # two groups, no spread in either
    assert steps_without_spread(rows) == (2, 3)


def test_a_bucket_s_null_is_that_of_its_mean_over_problems():
    """Slow reference, draw by draw: mean within problems, then over them; the advantage turns draws too."""
    generator, S = np.random.default_rng(0), 300
    samples = [
        {
            "src_pool": "teacher",
            "src_step": i // 3,
            "cos_S_logp": 0.1,
            "cos_S_contrib": 0.1 if i % 2 else -0.1,
            "draws": generator.normal(size=S),
        }
        for i in range(9)
    ]
    for key in ("cos_S_logp", "cos_S_contrib"):
        slow = []
        for s in range(S):
            turned = [one["draws"][s] * (1 if one[key] > 0 else -1) for one in samples]
            slow.append(np.mean([np.mean(turned[p * 3 : p * 3 + 3]) for p in range(3)]))
        assert bucket_null(samples, key) == pytest.approx(np.quantile(slow, [0.025, 0.975]))
    assert bucket_null([*samples, samples[0] | {"draws": None}], "cos_S_logp") is None
    assert bucket_null([samples[0] | {"cos_S_logp": None}], "cos_S_contrib") is None
    assert bucket_null([samples[0] | {"cos_S_logp": None}], "cos_S_logp") is None


# ---------------------------------------------------------------------- Phase 2, row by row
@pytest.mark.parametrize(
    ("spreads", "advantages", "verdict", "part"),
    [
        ([3.0] * 20, [[1.5, -1.5]] * 20, PASS, "1.50"),
        ([3.0] * 16 + [0.0] * 4, [[1.5, -1.5]] * 16 + [[0.0, 0.0]] * 4, PASS, ""),
        ([3.0] * 15 + [0.0] * 5, [[1.5, -1.5]] * 20, FAIL, "weak"),
        ([0.05] * 20, [[0.02, -0.02]] * 20, FAIL, "useless"),
        ([0.5] * 20, [[0.25, -0.25]] * 20, FAIL, "weak"),
        ([3.0] * 20, [[0.01, -0.01]] * 20, SNEAKY, "tiny but not zero"),
        ([3.0] * 20, [[0.0, 0.0]] * 20, FAIL, "exactly 0"),
        ([3.0] * 20, [[]] * 20, UNDEFINED, "no advantages recorded"),
        ([None] * 20, [[1.5]] * 20, UNDEFINED, "no step"),
    ],
)
def test_row_1_advantage_signal(spreads, advantages, verdict, part):
    found = judge_signal(spreads, advantages)
    assert found.verdict == verdict and part in found.why


@pytest.mark.parametrize(
    ("cos_in", "pulls", "verdict", "part"),
    [
        ([0.3, 0.25] * 10, (1.0, 0.5), PASS, ""),
        ([0.01, -0.01] * 10, (1.0, -1.0), FAIL, "about 0"),
        ([0.01, -0.01] * 10, (1.0, -1.0), FAIL, "orthogonal, projection will not help"),
        ([-0.3, -0.25] * 10, (1.0, -2.0), SNEAKY, "base half outweighs"),
        ([-0.3, -0.25] * 10, (-1.0, -2.0), FAIL, "check V's sign"),
        ([-0.3, -0.25] * 10, (None, None), FAIL, "cannot be told"),
        ([0.5] * 15 + [-0.1] * 5, (1.0, 0.5), FAIL, "fewer than 80%"),
        ([0.3] + [None] * 19, (1.0, 0.5), UNDEFINED, "1 of 20"),
        ([None] * 20, (None, None), UNDEFINED, "0 of 20"),
    ],
)
def test_row_2_direction_of_the_vanilla_gradient(cos_in, pulls, verdict, part):
    found = judge_direction(cos_in, Pulls(USUAL, *pulls))
    assert found.verdict == verdict and part in found.why


def test_steps_that_cancel_are_no_orthogonal_gradient():
    """+0.3 and -0.3 in turn: the mean is 0 and no step is. One step that is not 0 is enough."""
    found = judge_direction([0.3, -0.3] * 10, Pulls(USUAL, 1.0, -1.0))
    assert found.verdict == ALTERNATES and "hack-ward on 10 steps, away from it on 10" in found.why
    assert "not orthogonal" in found.why and "projection will not help" not in found.why
    one = judge_direction([0.3, -0.3], Pulls(USUAL, None, None))
    assert "hack-ward on 1 step, away from it on 1:" in one.why
    steady = judge_direction([0.051] * 19 + [-0.001], Pulls(USUAL, None, None))
    assert steady.measured.startswith("+0.048 [+0.04, +0.05]")
    assert steady.verdict == FAIL and "cancel" not in steady.why and "on 19 of 20" in steady.why
    weak = judge_direction([0.01] * 19 + [0.06], Pulls(USUAL, 1.0, -1.0))
    assert weak.verdict == FAIL and "orthogonal" not in weak.why and ">= 0.05 on 1" in weak.why


def test_a_cosine_within_its_null_is_a_sneaky_fail_of_row_2():
    cosines, pulls = [0.3, 0.25] * 10, Pulls(USUAL, 1.0, 0.5)
    none, narrow, wide = (judge_direction(cosines, pulls, null) for null in (None, (-0.1, 0.1), (-0.4, 0.4)))
    assert [none.verdict, narrow.verdict, wide.verdict] == [PASS, PASS, SNEAKY]
    assert "no null recorded" in none.measured and "null of the mean -0.100 +0.100" in narrow.measured


@pytest.mark.parametrize(
    ("before", "after", "fired", "verdict", "part"),
    [
        ([0.3] * 20, [0.3 - 2e-6] * 20, [0.6] * 20, FAIL, "inactive: unchanged on 20 (by less than 0.001)"),
        ([0.3] * 20, [0.3 - 9e-4] * 20, [0.6] * 20, FAIL, "inactive"),
        ([0.3] * 20, [0.299] * 20, [0.6] * 20, PASS, "mean change -0.001"),
        ([0.3] * 20, [-0.1] * 16 + [0.3] * 4, [0.6] * 20, PASS, "-0.32"),
        ([0.3] * 20, [-0.1] * 15 + [0.4] * 5, [0.6] * 20, FAIL, "higher on 5"),
        ([0.3] * 20, [0.3] * 20, [0.0] * 20, FAIL, "mechanism inactive: unchanged on 20"),
        ([0.3] * 20, [0.3 - 1e-8] * 20, [0.6] * 20, FAIL, "inactive"),  # float noise is not a fall
        ([0.3] * 20, [0.2] * 20, [0.02] * 20, SNEAKY, "few coefficients"),
        ([0.3] * 20, [0.2] * 20, [None] * 20, UNDEFINED, "frac_fired not recorded"),
        ([None] * 20, [0.2] * 20, [0.5] * 20, UNDEFINED, "both cosines"),
    ],
)
def test_row_3_mechanism(before, after, fired, verdict, part):
    found = judge_mechanism(before, after, fired)
    assert found.verdict == verdict and part in found.why


def two_pools(teacher, base, teacher_logp=None, base_logp=None, pools=("teacher", "base")) -> list[dict]:
    """One problem per value in each pool; before the advantage hacks keep their sign, base rows do not."""
    sides = (
        (pools[0], True, teacher, teacher_logp or teacher),
        (pools[1], False, base, base_logp or [-value for value in base]),
    )
    rows = []
    for pool, hacked, contributions, before in sides:
        for problem, (contrib, logp) in enumerate(zip(contributions, before, strict=True)):
            rows.append(sample(pool, hacked, problem=problem, contrib=contrib, logp=logp))
    return rows


HIGH, LOW, NONE = [0.5, 0.55, 0.6, 0.45], [-0.1, -0.05, -0.12, -0.08], [0.02, -0.01, 0.01, -0.02]


@pytest.mark.parametrize(
    ("samples", "verdict", "part"),
    [
        (two_pools(HIGH, LOW), PASS, "before the advantage"),
        (two_pools(HIGH, NONE), PASS, ""),
        (two_pools(HIGH, HIGH), FAIL, "alike"),
        (two_pools(LOW, HIGH), FAIL, "reversed: teacher is smaller"),
        (two_pools(NONE, [-0.5, -0.6, -0.55, -0.45]), FAIL, "not positive"),
        (two_pools(HIGH, [0.2, 0.25, 0.22, 0.18]), FAIL, "clearly positive"),
        (two_pools(HIGH, [-value for value in HIGH], base_logp=HIGH), SNEAKY, "advantage alone"),
        (two_pools(HIGH, []), SNEAKY, "bucket empty: base clean"),
        (two_pools([], LOW), SNEAKY, "bucket empty: teacher hacked"),
        (two_pools(HIGH, [], pools=("only", "other")), SNEAKY, "a lone bucket shows nothing"),
        (two_pools(HIGH, [-0.1]), UNDEFINED, "one value"),
        (two_pools(HIGH, LOW, teacher_logp=[None] * 4), UNDEFINED, "cos_S_logp"),
        (two_pools([0.5] * 4, [-0.1] * 4), PASS, "before the advantage"),  # no variance: as clear as can be
        ([], UNDEFINED, "no per-sample"),
    ],
)
def test_row_4_specificity(samples, verdict, part):
    found = judge_specificity(samples)
    assert found.verdict == verdict and part in found.why


def test_pools_are_told_by_their_hacks_and_not_by_their_names():
    rows = [sample("a", False), sample("b", True), sample("b", False)]
    assert pool_roles(rows) == ("b", "a")
    assert pool_roles([sample("scripted"), sample("base", False)]) == ("scripted", "base")
    assert pool_roles([sample("teacher", False), sample("base")]) == ("base", "teacher")


@pytest.mark.parametrize("pools", [("teacher", "base"), ("a", "b"), ("b", "a")])
def test_pools_with_the_same_share_of_hacks_have_no_roles(pools):
    """The alphabet decides nothing: neither of two, nor which of two extremes among three."""
    tied = [sample(pools[0], hacked) for hacked in (True, False)]
    tied += [sample(pools[1], hacked) for hacked in (True, False)]
    assert pool_roles(tied) is pool_roles(tied[::-1]) is None
    assert pool_roles([*tied, sample("c")]) is None and pool_roles([*tied, sample("c", False)]) is None
    found = judge_specificity(tied)
    shares = ", ".join(f"{name} 0.50" for name in sorted(pools))
    assert found.verdict == SNEAKY and f"cannot be told apart by their share of hacks ({shares})" in found.why


def test_a_label_that_is_not_known_counts_for_neither_role():
    """Half of b's known labels are hacks, all of a's are; with null counted as clean, a would have fewer."""
    rows = [sample("a"), *[sample("a", None)] * 3, sample("b"), sample("b", False)]
    assert pool_roles(rows) == ("a", "b")
    assert pool_roles([sample("scripted"), sample("base", None)]) == ("scripted", "base")
    assert pool_roles([sample("x", None), sample("y", False)]) == ("x", "y")
    assert pool_roles([sample("x", None), sample("y", None)]) is None


def test_one_pool_has_no_other_to_be_compared_with():
    assert pool_roles([sample("teacher")]) == USUAL  # so that the missing pool reads as empty
    assert pool_roles([sample("only")]) is None


def test_row_4_names_the_pools_by_their_own_names():
    found = judge_specificity(two_pools(HIGH, LOW, pools=("scripted", "untouched")))
    assert found.verdict == PASS and "scripted hacked +0.525 (n 4), untouched clean -0.088" in found.measured
    outweighed = judge_direction(
        [-0.3, -0.25] * 10, Pulls(pool_roles([sample("s"), sample("u", False)]), 1.0, -2.0)
    )
    assert "the u half outweighs the s half" in outweighed.why


def test_pull_adds_up_cosine_times_norm_per_step():
    rows = [sample(contrib=0.5, grad_norm_contrib=2.0), sample(contrib=-0.25, step=1), sample(contrib=None)]
    assert pull(rows, steps=2) == pytest.approx((0.5 * 2 - 0.25) / 2)


# ---------------------------------------------------------------------- whole runs
def test_rows_2_and_3_show_the_null_of_what_they_judge_and_controls_are_not_judged_on_the_mechanism(tmp_path):
    dice = random.Random(1)
    samples, rows = replay_samples(dice, 5), replay_rows(dice, 5, projected=True)
    null = {"cos_in": [-0.1, 0.1], "cos_out": [-0.2, 0.2], "cos_update": [-0.3, 0.3]}
    nulls = dict.fromkeys(range(5), null)
    for name, more in {
        "p": {},
        "u": {"project_at": "update"},
        "c": {"control": "random"},
        "s": {"control": "shrink", "project_at": "update"},
    }.items():
        write_run(tmp_path / name, "replay", rows, samples, nulls=nulls, **{"arm": "projected"} | more)
    write_run(tmp_path / "bare", "replay", rows, samples, arm="projected", control="random", seed=10)
    judged = {name: judge_run(run) for name, run in read(tmp_path).items()}
    assert "+0.095" in judged["p"][Metric.DIRECTION].measured  # 97.5 % of two draws at +-0.1
    assert "+0.190" in judged["p"][Metric.MECHANISM].measured
    assert "+0.285" in judged["u"][Metric.MECHANISM].measured
    assert {name: rows[Metric.MECHANISM].verdict for name, rows in judged.items()} == {
        "p": PASS,
        "u": PASS,
        "c": NOT_JUDGED,
        "s": NOT_JUDGED,
        "bare": NOT_JUDGED,
    }


def test_a_run_with_nothing_measured_is_undefined_and_not_a_pass(tmp_path):
    blank = sample(contrib=None, logp=None, grad_norm_contrib=None, hacked=None, gt_pass=None, reward=None)
    write_run(tmp_path / "v", "replay", [row()], [blank])
    (run,) = read(tmp_path).values()
    assert {row.verdict for row in judge_run(run).values()} <= {UNDEFINED, SNEAKY, NOT_JUDGED}
