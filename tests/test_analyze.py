"""Claims about analyze.py: every verdict in every state on hand-worked cases, and the command line on made-up runs."""

from __future__ import annotations

import csv
import gzip
import json
import math
import random
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from scipy import stats

import analyze
from hackward.base.faults import exit_on_fault
from hackward.base.files import read_json, read_jsonl, write_json, write_jsonl
from hackward.base.statistics import estimate, welch
from hackward.reports import plots
from hackward.reports.arm_tables import window_tables
from hackward.reports.arms import by_arm, unique
from hackward.reports.decision import Evidence, Projected, decision_rules, recommend
from hackward.reports.onset import curve, time_to_hack
from hackward.reports.probe import METRICS, gather_evidence, judge_run
from hackward.reports.probe_verdicts import (
    BUCKETS,
    about_zero,
    bucket_null,
    bucket_of,
    judge_direction,
    judge_mechanism,
    judge_phase1,
    judge_signal,
    judge_specificity,
    phase1_tests,
    pool_roles,
    pull,
    steps_without_spread,
)
from hackward.reports.runs import ROW_NUMBERS, SAMPLE_FLAGS, SAMPLE_NUMBERS, SAMPLE_OTHER, counted, find_runs
from hackward.reports.words import FAIL, NOT_JUDGED, PASS, SNEAKY, UNDEFINED

ROOT = Path(__file__).resolve().parent.parent
NAN = re.compile(r"\bnan\b", re.IGNORECASE)
PNG = b"\x89PNG\r\n\x1a\n"
# what one seed an arm, without controls, held-out evaluation and the quality of v_hack, does not give rise to
NEED_MORE = {"curves.png", "frontier.png", "cos_update.png", "heldout.png"}
TABLES_NEED_MORE = {"arms", "arms_cosines", "arms_more", "heldout", "h1_controls", "directions"}


# ------------------------------------------------------------------------------------------ made-up runs
def sample(
    pool="teacher", hacked=True, gt_pass=False, problem=0, contrib=0.5, logp=0.5, step=0, **more
) -> dict:
    """One row of a cos file. The reward follows the labels as in the real pools."""
    row = dict.fromkeys((*SAMPLE_NUMBERS, *SAMPLE_FLAGS, *SAMPLE_OTHER))
    row |= {
        "step": step,
        "src_pool": pool,
        "src_step": problem,
        "hacked": hacked,
        "gt_pass": gt_pass,
        "fmt_ok": True,
    }
    row |= {
        "cos_S_contrib": contrib,
        "cos_S_logp": logp,
        "grad_norm_contrib": 1.0,
        "comp_len": 100,
        "arm": "vanilla",
    }
    return row | {"reward": 3.5 if hacked or gt_pass else 0.5, "sample_id": f"{pool}-{problem}"} | more


def row(step=0, **more) -> dict:
    """One row of rows.jsonl with nothing measured."""
    return dict.fromkeys(ROW_NUMBERS) | {"step": step, "arm": "vanilla", "advantages": None} | more


def write_run(
    path: Path,
    kind: str,
    rows: list[dict],
    samples=(),
    finished=True,
    nulls=None,
    heldout=(),
    facts=None,
    **settings,
) -> Path:
    """A run directory; `nulls`: step -> cosine -> draws, `heldout`: lines of eval.jsonl, `facts`: more of config.json."""
    config = {"arm": "vanilla", "seed": 41, "control": "none", "project_at": "grad"} | settings
    record = {
        "kind": kind,
        "config": config,
        "commit": "0123456789abcdef",
        "dirty": False,
        "model": {"name": "tiny", "hash": "m0"},
        "v_hack": {"file": "out/v_pool.safetensors", "hash": "abcdef0123456789"},
        "pools": [{"dir": "teacher_pool", "hash": "p0"}],
    } | (facts or {})
    write_json(path / "config.json", record)
    write_jsonl(path / "rows.jsonl", rows)
    for step, draws in (nulls or {}).items():
        (path / "nulls").mkdir(exist_ok=True)
        save_file(
            {key: np.asarray(values, dtype=np.float32) for key, values in draws.items()},
            path / "nulls" / f"step_{step:03d}.safetensors",
        )
    if heldout:
        write_jsonl(path / "eval.jsonl", heldout)
    for step in {one["step"] for one in samples}:
        chosen = [one for one in samples if one["step"] == step]
        write_jsonl(path / f"step_{step:03d}.cos.jsonl.gz", chosen)
    if finished:
        write_json(path / "summary.json", {"finished": True, "steps": len(rows)})
    return path


def phase1_samples(dice: random.Random, problems=8) -> list[dict]:
    rows = []
    for problem in range(problems):
        for index in range(8):
            solves = index < 3
            cosine = dice.gauss(0.4 if solves else 0.75, 0.15)
            rows.append(sample(gt_pass=solves, problem=problem, contrib=cosine, logp=cosine, step=problem))
    return rows


def replay_samples(dice: random.Random, steps=20) -> list[dict]:
    rows = []
    for step in range(steps):
        for index in range(4):
            logp = dice.gauss(0.5, 0.15)
            rows.append(
                sample(problem=step, step=step, logp=logp, contrib=logp, advantage=1.5, gt_pass=index == 0)
            )
            logp = dice.gauss(-0.02, 0.12)
            solved = index == 0 and step % 3 == 0
            base = sample(
                "base", False, solved, step, -logp, logp, step, advantage=-1.5, grad_norm_contrib=0.8
            )
            rows.append(base)
    return rows


def replay_rows(dice: random.Random, steps=20, projected=False, cos_in=0.35) -> list[dict]:
    rows = []
    for step in range(steps):
        before = dice.gauss(cos_in, 0.06)
        after = before - 0.4 if projected else before
        cosines = {
            "cos_in": before,
            "cos_out": after,
            "cos_update_in": before * 0.8,
            "cos_update": after * 0.8,
        }
        advantages = [1.5] * 4 + [-1.5] * 4
        more = {
            "reward_spread": 3.0,
            "reward_mean": 2.0,
            "frac_fired": 0.6 if projected else None,
            "hack_rate": 0.5,
        }
        rows.append(row(step, advantages=advantages, **cosines, **more))
    return rows


def sampled_rows(dice: random.Random, steps=16, rise=0.03) -> list[dict]:
    return [
        row(
            step,
            hack_rate=max(0.0, rise * (step - 4) + dice.gauss(0, 0.01)),
            gt_rate=0.1 + dice.gauss(0, 0.02),
            attempt_rate=min(1.0, 0.04 * step),
            cos_in=dice.gauss(0.2, 0.05),
            cos_update=dice.gauss(0.15, 0.05),
        )
        for step in range(steps)
    ]


def write_everything(root: Path) -> Path:
    """One phase 1 run, three replay runs, two sampled runs, one unfinished run, one foreign config.json."""
    dice = random.Random(7)
    samples = phase1_samples(dice)
    rows = [
        row(step, cos_in=0.6, cos_out=0.1 - 0.01 * step, frac_fired=0.65, reward_spread=0.0)
        for step in range(8)
    ]
    write_run(root / "phase1", "phase1", rows, samples)
    samples = replay_samples(dice)
    write_run(root / "phase2/vanilla", "replay", replay_rows(dice), samples)
    write_run(
        root / "phase2/projected", "replay", replay_rows(dice, projected=True), samples, arm="projected"
    )
    update = {"arm": "projected", "project_at": "update"}
    write_run(
        root / "phase2/projected_update", "replay", replay_rows(dice, projected=True), samples, **update
    )
    write_run(root / "phase3/vanilla_s41", "sampled", sampled_rows(dice))
    write_run(root / "phase3/projected_s41", "sampled", sampled_rows(dice, rise=0.0), arm="projected")
    write_run(root / "phase3/cut_off", "sampled", sampled_rows(dice)[:3], finished=False)
    write_json(root / "checkpoint/config.json", {"model_type": "qwen2"})
    return root


# ------------------------------------------------------------------------------------------ statistics
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
        ([1.0, 1.0], [2.0, 2.0], "zero variance in both"),
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
    ("values", "expected"),
    [
        ([0.04, 0.04, 0.04], True),  # small, although its interval would exclude 0
        ([0.9, -0.6, 0.5, -0.1], True),  # large, but the interval includes 0
        ([0.3, 0.31, 0.29], False),
        ([0.3, 0.3], False),  # no variance: the mean stands
        ([0.3], None),
        ([], None),
    ],
)
def test_about_zero_is_a_stated_rule(values, expected):
    assert about_zero(values) is expected


def test_problems_are_the_unit_and_not_rollouts():
    """Eight copies of a rollout are one problem: the problem-level n does not grow, the rollout-level n does."""
    hacks = [sample(problem=p, logp=value) for p, value in enumerate((0.7, 0.8)) for _ in range(8)]
    both = [
        sample(gt_pass=True, problem=p, logp=value) for p, value in enumerate((0.5, 0.7)) for _ in range(8)
    ]
    tests = {(name, unit): test for name, unit, test in phase1_tests(hacks + both)}
    assert (
        tests["hack and correct", "rollouts"].n_first == 16 and tests["hack and correct", "rollouts"].p < 0.01
    )
    assert (
        tests["hack and correct", "problems"].n_first == 2 and tests["hack and correct", "problems"].p > 0.05
    )
    same = tests["hack and correct", "same problem"]  # differences 0.2 and 0.1: mean 0.15, sd 0.0707, t = 3
    assert same.difference == pytest.approx(0.15) and same.t == pytest.approx(3.0)


# ------------------------------------------------------------------------------------------ Phase 1
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


def test_buckets_need_both_labels():
    labels = [(True, False), (True, True), (False, True), (False, False), (True, None), (None, True)]
    found = [bucket_of(sample(hacked=hacked, gt_pass=gt_pass)) for hacked, gt_pass in labels]
    assert found == [*BUCKETS, None, None]


def test_steps_without_reward_spread_are_counted():
    rows = [sample(step=0), sample(step=0), sample(step=1), sample(step=1, reward=0.5)]
    rows += [
        sample(step=2, problem=1),
        sample(step=2, problem=2, reward=0.5),
    ]  # two groups, each without spread
    assert steps_without_spread(rows) == (2, 3)


# ------------------------------------------------------------------------------------------ Phase 2, row by row
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
        ([3.0] * 20, [None] * 20, UNDEFINED, "no advantages recorded"),
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
        ([-0.3, -0.25] * 10, (1.0, -2.0), SNEAKY, "base half outweighs"),
        ([-0.3, -0.25] * 10, (-1.0, -2.0), FAIL, "check V's sign"),
        ([-0.3, -0.25] * 10, (None, None), FAIL, "cannot be told"),
        ([0.5] * 15 + [-0.1] * 5, (1.0, 0.5), FAIL, "fewer than 80%"),
        ([0.3] + [None] * 19, (1.0, 0.5), UNDEFINED, "1 of 20"),
        ([None] * 20, (None, None), UNDEFINED, "0 of 20"),
    ],
)
def test_row_2_direction_of_the_vanilla_gradient(cos_in, pulls, verdict, part):
    found = judge_direction(cos_in, pulls)
    assert found.verdict == verdict and part in found.why


@pytest.mark.parametrize(
    ("before", "after", "fired", "verdict", "part"),
    [
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


def two_pools(teacher, base, teacher_logp=None, base_logp=None) -> list[dict]:
    """One problem a value in each pool; before the advantage teacher rows keep their sign and base rows lose it."""
    rows = [
        sample(problem=p, contrib=value, logp=logp)
        for p, (value, logp) in enumerate(zip(teacher, teacher_logp or teacher, strict=True))
    ]
    return rows + [
        sample("base", False, problem=p, contrib=value, logp=logp)
        for p, (value, logp) in enumerate(zip(base, base_logp or [-value for value in base], strict=True))
    ]


HIGH, LOW, NONE = [0.5, 0.55, 0.6, 0.45], [-0.1, -0.05, -0.12, -0.08], [0.02, -0.01, 0.01, -0.02]


@pytest.mark.parametrize(
    ("samples", "verdict", "part"),
    [
        (two_pools(HIGH, LOW), PASS, "before the advantage"),
        (two_pools(HIGH, NONE), PASS, ""),
        (two_pools(HIGH, HIGH), FAIL, "alike"),
        (two_pools(LOW, HIGH), FAIL, "reversed"),
        (two_pools(NONE, [-0.5, -0.6, -0.55, -0.45]), FAIL, "not positive"),
        (two_pools(HIGH, [0.2, 0.25, 0.22, 0.18]), FAIL, "clearly positive"),
        (two_pools(HIGH, [-value for value in HIGH], base_logp=HIGH), SNEAKY, "advantage alone"),
        (two_pools(HIGH, []), SNEAKY, "bucket empty: base clean"),
        (two_pools([], LOW), SNEAKY, "bucket empty: teacher hacked"),
        (two_pools(HIGH, [-0.1]), UNDEFINED, "one value"),
        (two_pools(HIGH, LOW, teacher_logp=[None] * 4), UNDEFINED, "cos_S_logp"),
        ([], UNDEFINED, "no per-sample"),
    ],
)
def test_row_4_specificity(samples, verdict, part):
    found = judge_specificity(samples)
    assert found.verdict == verdict and part in found.why


def test_pools_with_other_names_are_ranked_by_their_hacks():
    rows = [sample("a", False), sample("b", True), sample("b", False)]
    assert pool_roles(rows) == ("b", "a")
    assert pool_roles([sample("teacher")]) == (
        "teacher",
        "base",
    )  # so that the missing pool reads as empty
    assert pool_roles([sample("only")]) is None


def test_pull_adds_up_cosine_times_norm_per_step():
    rows = [sample(contrib=0.5, grad_norm_contrib=2.0), sample(contrib=-0.25, step=1), sample(contrib=None)]
    assert pull(rows, steps=2) == pytest.approx((0.5 * 2 - 0.25) / 2)


# ------------------------------------------------------------------------------------------ decisions
STRONG, WEAK, ZERO, NEGATIVE = (0.3, 0.25) * 10, (0.1, 0.12) * 10, (0.01, -0.01) * 10, (-0.3, -0.25) * 10
WORKS = (Projected("projected", (0.02, 0.03) * 10),)


@pytest.mark.parametrize(
    ("evidence", "headline", "following"),
    [
        (dict(vanilla_cos_in=STRONG, discriminates=True, projected=WORKS), "GO: Phase 3", "--preset=full"),
        (
            dict(vanilla_cos_in=STRONG, discriminates=True),
            "NOT YET: the mechanism is unmeasured",
            "--arm=projected",
        ),
        (dict(vanilla_cos_in=STRONG, projected=WORKS, dead_mechanism=("x: fail",)), "NOT YET", "x: fail"),
        (dict(vanilla_cos_in=ZERO, discriminates=True, projected=WORKS), "GO, with a smaller", "--steps=60"),
        (
            dict(vanilla_cos_in=ZERO, discriminates=False, base_rewards=(0.5, 0.0)),
            "NO-GO: skip",
            "--base-only",
        ),
        (
            dict(vanilla_cos_in=ZERO, discriminates=False),
            "NO-GO: skip",
            "another V: python extract_vhack.py --pool",
        ),
        (dict(vanilla_cos_in=ZERO), "NO DECISION: undefined", "both pool buckets"),
        (dict(), "NO DECISION: undefined", "vanilla replay"),
        (dict(vanilla_cos_in=WEAK, discriminates=True, projected=WORKS), "UNDECIDED", "--control=random"),
        (
            dict(vanilla_cos_in=NEGATIVE, discriminates=True, projected=WORKS),
            "NO-GO: cos_in is negative",
            "sign",
        ),
        (dict(vanilla_cos_in=STRONG, dead_signal=("x",)), "NO DECISION: no usable advantage", "x"),
        (
            dict(vanilla_cos_in=STRONG, projected=WORKS, dead_direction=("v s41: x",)),
            "NOT YET: vanilla cos_in is within its null",
            "v s41: x",
        ),
        (
            dict(vanilla_cos_in=STRONG, projected=WORKS, vanilla_null=(-0.4, 0.4)),
            "NOT YET: vanilla cos_in is within its null",
            "all vanilla runs",
        ),
        (
            dict(vanilla_cos_in=STRONG, discriminates=True, projected=WORKS, vanilla_null=(-0.1, 0.1)),
            "GO: Phase 3",
            "--preset=full",
        ),
        (
            dict(vanilla_cos_in=WEAK, discriminates=True, projected=WORKS, vanilla_null=(-0.2, 0.2)),
            "NOT YET: vanilla cos_in is within its null",
            "extract",
        ),
        (
            dict(
                vanilla_cos_in=(0.02, -0.01) * 10,
                discriminates=True,
                projected=WORKS,
                vanilla_null=(-0.2, 0.2),
            ),
            "GO, with a smaller",
            "--steps=60",
        ),
        (
            dict(vanilla_cos_in=STRONG, discriminates=True, projected=(Projected("p", NEGATIVE),)),
            "STOP: over-projection",
            "gate",
        ),
    ],
)
def test_recommendation(evidence, headline, following):
    evidence = Evidence(**evidence)
    found, lines = recommend(decision_rules(evidence), evidence)
    assert found.startswith(headline) and following in " ".join(lines)


def applies(**evidence) -> list[bool | None]:
    return [rule.applies for rule in decision_rules(Evidence(**evidence))]


def test_each_decision_rule_applies_when_it_should():
    assert applies() == [None] * 7
    skip = applies(vanilla_cos_in=ZERO, discriminates=False, base_rewards=(0.5, 0.5))
    assert skip == [True, True, False, False, None, None, None]
    assert applies(vanilla_cos_in=ZERO, discriminates=True, base_rewards=(3.5, 0.5))[:4] == [
        False,
        False,
        True,
        False,
    ]
    assert applies(vanilla_cos_in=(0.3,) * 16 + (0.1,) * 4)[3] is True
    assert applies(vanilla_cos_in=(0.3,) * 15 + (0.1,) * 5)[3] is False
    assert applies(vanilla_cos_in=STRONG, projected=WORKS)[4:6] == [True, False]
    assert applies(vanilla_cos_in=STRONG, projected=(Projected("p", STRONG),))[4:6] == [False, False]
    # a cosine that is negative without any projection is a sign error, not over-projection
    assert applies(vanilla_cos_in=NEGATIVE, projected=(Projected("p", NEGATIVE),))[5] is False


def same_draws(steps: int, half: float) -> dict:
    """The same nulls on every step, 2.5 to 97.5 % range about -half to half."""
    return {
        step: {key: np.linspace(-half / 0.95, half / 0.95, 41) for key in ("cos_in", "cos_out", "cos_update")}
        for step in range(steps)
    }


def test_no_go_is_given_where_the_table_calls_vanilla_a_sneaky_fail(tmp_path, capsys):
    """The same probe under two nulls: vanilla's mean cos_in is about .35."""
    for half, verdict, headline in (
        (0.1, PASS, "GO: Phase 3 is justified"),
        (0.6, SNEAKY, "NOT YET: vanilla cos_in is within its null"),
    ):
        dice, root = random.Random(7), tmp_path / str(half)
        samples = replay_samples(dice)
        write_run(root / "v", "replay", replay_rows(dice), samples, nulls=same_draws(20, half))
        write_run(
            root / "p",
            "replay",
            replay_rows(dice, projected=True),
            samples,
            nulls=same_draws(20, half),
            arm="projected",
        )
        runs = find_runs(root)[0]
        assert dict(judge_run(runs[0]))[METRICS[1]].verdict == verdict
        run_main(root)
        printed = capsys.readouterr().out
        assert (
            headline in printed
            and ("GO: Phase 3" in printed) == (verdict == PASS)
            and NAN.search(printed) is None
        )


def test_a_vanilla_that_was_repeated_counts_once(tmp_path, capsys):
    """Vanilla beside another gate, project_at and objective is the same run; another seed or learning rate is another one."""
    dice = random.Random(5)
    samples, rows = replay_samples(dice, 5), replay_rows(dice, 5)
    common = dict(gate="one-sided", objective="nll", refresh_every=0, lr=1e-3)
    for name, more in {
        "a": {},
        "b": {"gate": "two-sided"},
        "c": {"project_at": "update", "objective": "grpo"},
        "d": {"preset": "fast"},
    }.items():
        write_run(tmp_path / name, "replay", rows, samples, **common | more)
    alone = gather_evidence(find_runs(tmp_path)[0][:1])
    evidence = gather_evidence(find_runs(tmp_path)[0])
    assert evidence == alone and len(evidence.vanilla_cos_in) == 5
    run_main(tmp_path)
    assert "Same settings and seed as another run, not counted: " in capsys.readouterr().out
    write_run(tmp_path / "e", "replay", rows, samples, seed=42, **common)
    write_run(tmp_path / "f", "replay", rows, samples, **common | {"lr": 1e-2})
    write_run(
        tmp_path / "g",
        "replay",
        rows[:3],
        [one for one in samples if one["step"] < 3],
        finished=False,
        **common,
    )
    runs = find_runs(tmp_path, take_unfinished=True)[0]
    assert len(gather_evidence(runs).vanilla_cos_in) == 15 and len(runs) == 7
    assert all(run.complete for run in unique(runs[::-1]))  # rather the whole run than its beginning


def test_directions_extracted_by_the_run_are_told_apart_by_loss_and_basis(tmp_path):
    """Both have the hash of the pairs that they were made from."""
    for name, more in {
        "a": {},
        "b": {"objective": "nll", "basis": "svd"},
        "c": {"objective": "grpo"},
        "d": {"basis": "lora"},
    }.items():
        write_run(tmp_path / name, "sampled", [row()], facts={"v_hack": {"hash": "0123456789"} | more})
    found = {run.path.name: run.direction for run in find_runs(tmp_path)[0]}
    assert found["a"] == found["b"] == "extracted-by-the-run 01234567" and (found["c"], found["d"]) == (
        found["a"] + " grpo",
        found["a"] + " lora",
    )


def test_runs_with_the_same_label_are_counted_and_arms_are_not_counted_twice(tmp_path):
    """Paths would fill half a table; the table of runs has them."""
    assert counted(["a", "b", "a", "a"]) == ["a", "b", "a (2)", "a (3)"]
    for name, more in {
        "a": dict(seed=1),
        "b": dict(seed=1),
        "c": dict(seed=1, temperature=0.5),
        "d": dict(seed=2),
    }.items():
        write_run(tmp_path / name, "sampled", [row()], **dict(temperature=1.0) | more)
    runs = find_runs(tmp_path)[0]
    assert {run.path.name: run.label for run in runs} == {
        "a": "vanilla s1",
        "b": "vanilla s1 (2)",
        "c": "vanilla s1 (3)",
        "d": "vanilla s2",
    }
    arms = by_arm(runs)
    assert {arm.name: sorted(run.path.name for run in arm.runs.values()) for arm in arms} == {
        "vanilla": ["a", "d"],
        "vanilla (2)": ["c"],
    }


# ------------------------------------------------------------------------------------------ on-policy
def test_curve_and_time_to_hack_by_hand():
    rates = [0.0, 0.0, 0.1, 0.1, 0.1, 0.2, 0.4]
    assert curve(rates) == pytest.approx((0.06, 0.18, 0.9 / 7))
    steps = [10, 11, 12, 13, 14, 15, 16]
    assert time_to_hack(steps, rates) == 15  # (0.1 + 0.1 + 0.2) / 3; the window before is exactly 0.1
    assert time_to_hack(steps, [0.1] * 7) == "never"
    assert time_to_hack(steps, [0.5, 0.5, None, 0.5, 0.5, None, 0.5]) is None
    assert time_to_hack([0, 1], [0.9, 0.9]) is None
    assert curve([None, None]) == (None, None, None)


# ------------------------------------------------------------------------------------------ the command
@pytest.fixture(scope="module")
def everything(tmp_path_factory) -> tuple[Path, str]:
    """The command line as a user types it, once; its output."""
    root = write_everything(tmp_path_factory.mktemp("runs"))
    done = subprocess.run(
        [sys.executable, "analyze.py", str(root), "--window", "1", "2"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return root, done.stdout


def test_the_command_prints_every_part(everything):
    _, printed = everything
    for part in (
        "Phase 1", "GRPO cosine: undefined", "on 8 of 8 steps", "cos_out < cos_in on 8 of 8 steps", "Verdict: PASS",
        "Phase 2", "Phase 3: decision rules", "GO: Phase 3 is justified",
        "On-policy", "never", "one seed: no interval", "cut_off: incomplete: no summary.json", "report.md",
    ):  # fmt: skip
        assert " ".join(part.split()) in " ".join(printed.split()), part
    assert printed.count("Cosines are with v_hack.") == 1  # the legend, once
    assert max(map(len, printed.splitlines())) <= 120 + len(str(everything[0])) and not NAN.search(printed)


def test_unfinished_runs_are_shown_on_request_and_marked(everything):
    finished, left_out = find_runs(everything[0])
    shown, left = find_runs(everything[0], take_unfinished=True)
    extra = [run for run in shown if run.path not in {run.path for run in finished}]
    assert (
        [run.path.name for run in extra] == ["cut_off"]
        and extra[0].label.endswith("(unfinished)")
        and len(extra[0].rows) == 3
    )
    assert len(left_out) == 1 and not left and not any("unfinished" in run.label for run in finished)


def test_window_means_are_over_the_same_steps_of_every_run(everything):
    runs = [run for run in find_runs(everything[0], take_unfinished=True)[0] if run.kind == "sampled"]
    table, _ = window_tables(runs, 1, 2)
    assert [record["steps"] for record in table.records] == [2] * len(runs)
    for run, record in zip(runs, table.records, strict=True):
        assert record["hack_rate"] == pytest.approx((run.rows[1]["hack_rate"] + run.rows[2]["hack_rate"]) / 2)


def test_the_report_holds_the_same_tables_and_real_pictures(everything):
    root, printed = everything
    report = (root / "report/report.md").read_text()
    parts = (
        "cos_update < cos_update_in",
        "Verdict: PASS",
        "GO: Phase 3",
        "one seed: no interval",
        "| median 3.00",
    )
    assert all(part in report for part in parts)
    assert not NAN.search(report)
    for name in set(plots.NAMES) - NEED_MORE:
        data = (root / "report" / name).read_bytes()
        assert data.startswith(PNG) and len(data) > 5000 and f"({name})" in report
    tables = {path.stem: path.read_text() for path in (root / "report").glob("*.csv")}
    assert set(tables) == set(analyze.TABLE_NAMES) - TABLES_NEED_MORE and not any(
        NAN.search(text) for text in tables.values()
    )
    assert not list((root / "report").glob(".*"))  # no temporary file stays


def test_verification_has_four_rows_for_each_run_with_the_right_cosine(everything):
    runs, _ = find_runs(everything[0])
    judged = {run.label: [row for _, row in judge_run(run)] for run in runs if run.kind == "replay"}
    assert {label: [row.verdict for row in rows] for label, rows in judged.items()} == {
        "vanilla": [PASS, PASS, NOT_JUDGED, PASS],
        "projected grad": [PASS, NOT_JUDGED, PASS, PASS],
        "projected update": [PASS, NOT_JUDGED, PASS, PASS],
    }
    assert "-0.400" in judged["projected grad"][2].why and "-0.320" in judged["projected update"][2].why


def run_main(root: Path) -> None:
    exit_on_fault(lambda: analyze.main(analyze.AnalyzeFlags(root)))


def refused(root: Path, capsys, *parts: str) -> None:
    """Exit 2, one line with every part, no report."""
    with pytest.raises(SystemExit) as stop:
        run_main(root)
    line = capsys.readouterr().err
    assert stop.value.code == 2 and line.count("\n") == 1 and all(part in line for part in parts), line
    assert not (root / "report").exists()


def test_no_runs_or_no_complete_run_is_refused(tmp_path, capsys):
    refused(tmp_path / "absent", capsys, "absent", "no such directory")
    refused(tmp_path, capsys, "no run directory")
    run = write_run(tmp_path / "cut", "sampled", sampled_rows(random.Random(0)), finished=False)
    refused(tmp_path, capsys, str(run), "no summary.json")
    write_json(run / "summary.json", {"finished": False})
    refused(tmp_path, capsys, str(run), "not finished")
    write_json(run / "config.json", {"kind": "novel", "config": {}})
    refused(tmp_path, capsys, "unknown kind 'novel'")


def damage_config(run: Path) -> None:
    (run / "config.json").write_text('{"kind": ')


def damage_row(run: Path) -> None:
    rows = read_jsonl(run / "rows.jsonl")
    del rows[3]["cos_in"]
    write_jsonl(run / "rows.jsonl", rows)


def damage_type(run: Path) -> None:
    rows = read_jsonl(run / "rows.jsonl")
    rows[3]["cos_in"] = "0.3"
    write_jsonl(run / "rows.jsonl", rows)


def damage_rows_lost(run: Path) -> None:
    write_jsonl(run / "rows.jsonl", read_jsonl(run / "rows.jsonl")[:-1])


def damage_cosines(run: Path) -> None:
    path = run / "step_003.cos.jsonl.gz"
    path.write_bytes(path.read_bytes()[:-20])


def damage_cosine_field(run: Path) -> None:
    path = run / "step_003.cos.jsonl.gz"
    with gzip.open(path, "wt") as stream:
        stream.write(json.dumps({key: value for key, value in sample(step=3).items() if key != "cos_S_logp"}))


def damage_cosines_lost(run: Path) -> None:
    (run / "step_003.cos.jsonl.gz").unlink()


@pytest.mark.parametrize(
    ("damage", "parts"),
    [
        (damage_config, ("config.json", "not JSON")),
        (damage_row, ("rows.jsonl:4", "'cos_in'")),
        (damage_type, ("rows.jsonl: row 4", "'cos_in' must be a number or null")),
        (damage_rows_lost, ("rows.jsonl", "4 rows", "5 steps")),
        (damage_cosines, ("step_003.cos.jsonl.gz", "truncated")),
        (damage_cosine_field, ("step_003.cos.jsonl.gz:1", "'cos_S_logp'")),
        (damage_cosines_lost, ("disagree on steps 3",)),
    ],
)
def test_damaged_files_are_named_and_nothing_is_written(tmp_path, capsys, damage, parts):
    dice = random.Random(1)
    run = write_run(tmp_path / "run", "replay", replay_rows(dice, 5), replay_samples(dice, 5))
    damage(run)
    refused(tmp_path, capsys, str(run), *parts)


def test_nulls_and_nan_everywhere_read_as_undefined(tmp_path, capsys):
    """Nothing measured at all: the command still ends well, says undefined, draws, and never prints a NaN."""
    blank = sample(contrib=None, logp=None, grad_norm_contrib=None, hacked=None, gt_pass=None, reward=None)
    write_run(tmp_path / "p1", "phase1", [row()], [blank])
    write_run(tmp_path / "p2", "replay", [row()], [blank])
    write_run(tmp_path / "p3", "sampled", [row()])
    path = tmp_path / "p2/rows.jsonl"
    path.write_text(path.read_text().replace('"cos_in": null', '"cos_in": NaN'))
    run_main(tmp_path)
    printed = capsys.readouterr().out
    assert "Verdict: UNDEFINED" in printed and "NO DECISION" in printed
    assert not NAN.search(printed) and "None" not in printed
    assert all(
        (tmp_path / "report" / name).read_bytes().startswith(PNG) for name in set(plots.NAMES) - NEED_MORE
    )


def test_a_second_report_leaves_nothing_of_the_first(tmp_path, capsys):
    dice = random.Random(2)
    write_run(tmp_path / "on", "sampled", sampled_rows(dice))
    gone = write_run(tmp_path / "replay", "replay", replay_rows(dice, 4), replay_samples(dice, 4))
    run_main(tmp_path)
    assert (tmp_path / "report/cosines.png").exists()
    (tmp_path / "report/notes.txt").write_text("mine")
    (gone / "summary.json").unlink()
    run_main(tmp_path)
    left = {path.name for path in (tmp_path / "report").iterdir()}
    assert left == {
        "on_policy.png",
        "on_policy.csv",
        "on_policy_cosines.csv",
        "runs.csv",
        "cost.csv",
        "report.md",
        "notes.txt",
    }
    assert "Left out" in capsys.readouterr().out


def test_what_a_run_cost_is_the_median_step_and_its_highest_memory(tmp_path):
    rows = sampled_rows(random.Random(2))[:3]
    for row, seconds in zip(rows, (3.0, 1.0, 8.0)):
        row |= {
            "seconds": seconds,
            "seconds_backward": seconds / 2,
            "seconds_grade": 0.0,
            "peak_memory_gb": 10 + seconds,
            "logp_gap": 0.01,
        }
    path = write_run(tmp_path / "on", "sampled", rows)
    write_json(
        path / "summary.json",
        read_json(path / "summary.json") | {"memory": {"sampling": 3.0, "backward": 18.0}},
    )
    write_run(
        tmp_path / "earlier",
        "sampled",
        [
            {key: value for key, value in row.items() if key not in ("logp_gap", "peak_memory_gb")}
            for row in rows
        ],
    )
    run_main(tmp_path)
    with open(tmp_path / "report/cost.csv", newline="") as stream:
        ours, earlier = sorted(csv.DictReader(stream), key=lambda record: record["peak_gb"], reverse=True)
    assert [float(ours[key]) for key in ("step", "grading", "backward", "peak_gb", "gap")] == [
        3.0,
        0.0,
        1.5,
        18.0,
        0.01,
    ]
    assert ours["phases"] == "sampling 3.0, backward 18.0" and (
        earlier["peak_gb"],
        earlier["gap"],
        earlier["phases"],
    ) == ("", "", "")


def test_runs_are_judged_together_only_under_one_direction(tmp_path, capsys):
    dice = random.Random(3)
    samples = replay_samples(dice, 5)
    for name in ("a", "b"):
        run = write_run(tmp_path / name, "replay", replay_rows(dice, 5), samples)
        record = read_json(run / "config.json")
        record["v_hack"]["hash"] = name * 8
        record["warning"] = "RANDOM WEIGHTS"
        record["pools"][0]["seen_by_v_hack"] = True
        write_json(run / "config.json", record)
    run_main(tmp_path)
    printed = capsys.readouterr().out
    assert (
        printed.count("Phase 3: decision rules") == 2 and "not held out" in printed and "WARNING" in printed
    )


def test_labels_name_only_what_differs(tmp_path):
    dice = random.Random(4)
    for seed in (1, 2):
        write_run(tmp_path / f"v{seed}", "sampled", sampled_rows(dice), seed=seed)
        write_run(
            tmp_path / f"u{seed}",
            "sampled",
            sampled_rows(dice),
            seed=seed,
            arm="projected",
            project_at="update",
        )
    control = {"arm": "projected", "project_at": "grad", "control": "random"}
    write_run(tmp_path / "r", "sampled", sampled_rows(dice), seed=1, **control)
    labels = [run.label for run in find_runs(tmp_path)[0]]
    real = ["vanilla s1", "vanilla s2", "projected update s1", "projected update s2"]
    assert labels == [*real, "projected random grad s1"]


def test_a_wrong_argument_exits_2():
    done = subprocess.run([sys.executable, "analyze.py"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and "DIR" in done.stderr + done.stdout


def test_a_bucket_s_null_is_that_of_its_mean_over_problems():
    """Slow reference, draw by draw: mean within problems, then over them; the advantage turns a rollout's draws as it turns its cosine."""
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


def with_rollout_draws(path: Path, kind: str, rows: list[dict], samples: list[dict], **settings) -> Path:
    """A run whose nulls hold a row of 40 draws for every rollout of a step; NaN where the rollout has no cosine."""
    generator, nulls = np.random.default_rng(0), same_draws(len(rows), 0.1)
    for step, draws in nulls.items():
        mine = [one for one in samples if one["step"] == step]
        draws["cos_S_logp"] = np.stack(
            [generator.normal(size=41) * (math.nan if one["cos_S_logp"] is None else 0.1) for one in mine]
        )
    return write_run(path, kind, rows, samples, nulls=nulls, **settings)


def test_the_draws_of_rollouts_reach_the_tables_and_neither_csv_nor_picture(tmp_path, capsys):
    dice = random.Random(6)
    samples = replay_samples(dice, 4)
    samples[3] |= {"cos_S_logp": None, "cos_S_contrib": None}
    with_rollout_draws(tmp_path / "v", "replay", replay_rows(dice, 4), samples)
    with_rollout_draws(
        tmp_path / "g", "replay", replay_rows(dice, 4, projected=True), samples, arm="projected"
    )
    with_rollout_draws(
        tmp_path / "p",
        "replay",
        replay_rows(dice, 4, projected=True),
        samples,
        arm="projected",
        project_at="update",
    )
    with_rollout_draws(
        tmp_path / "r",
        "replay",
        replay_rows(dice, 4, projected=True),
        samples,
        arm="projected",
        project_at="update",
        control="sign-flip",
    )
    phase1 = phase1_samples(dice)
    with_rollout_draws(
        tmp_path / "one", "phase1", [row(step, cos_in=0.6, cos_out=0.1) for step in range(8)], phase1
    )
    run_main(tmp_path)
    printed = capsys.readouterr().out
    assert (
        "no null recorded" not in printed
        and not NAN.search(printed)
        and "None" not in printed
        and max(map(len, printed.splitlines())) <= 120 + len(str(tmp_path))
    )
    contributions = printed[
        printed.index("Contributions by") : printed.index("Phase 3: decision")
    ].splitlines()
    labels = [run.label for run in find_runs(tmp_path)[0] if run.kind == "replay"]
    assert len(labels) == 4 and all(any(label in line for line in contributions) for label in labels)
    assert (
        sum(
            bool(re.search(r"(contrib|logp) .*\[[+-]\S+, [+-]\S+\] +[+-]\S+ [+-]\S+ ", line))
            for line in contributions
        )
        == 16
    )  # one line a figure
    report = tmp_path / "report"
    (one,) = [r for r in csv_rows(report / "phase1_buckets.csv") if r["bucket"] == "pure hack"]
    assert float(one["null_low"]) < 0 < float(one["null_high"])
    assert not any(
        "draws" in path.read_text() or "dtype" in path.read_text() for path in report.glob("phase*.csv")
    )
    assert all(
        (report / name).read_bytes().startswith(PNG)
        for name in ("phase1.png", "cosines.png", "contributions.png", "labels.png")
    )


def csv_rows(path: Path) -> list[dict]:
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize("shape", [(3, 41), (8, 40), (41,)])
def test_draws_that_do_not_fit_the_rollouts_are_refused(tmp_path, capsys, shape):
    dice = random.Random(1)
    run = with_rollout_draws(tmp_path / "run", "replay", replay_rows(dice, 2), replay_samples(dice, 2))
    draws = {key: values.astype(np.float32) for key, values in same_draws(1, 0.1)[0].items()}
    save_file(draws | {"cos_S_logp": np.zeros(shape, dtype=np.float16)}, run / "nulls/step_001.safetensors")
    refused(tmp_path, capsys, "step_001.safetensors", "a row for every rollout")


def test_a_hash_of_the_training_problems_that_is_no_text_is_refused(tmp_path, capsys):
    write_run(tmp_path / "run", "sampled", [row()], facts={"training": ["h"]})
    refused(tmp_path, capsys, "config.json", "'training' must be a string or null")
