"""Claims about the decision rules before Phase 3, and the evidence that they are given."""

from __future__ import annotations

import random

import pytest

from hackward.reports.arms import unique
from hackward.reports.decision import RuleName, decision_rules, recommend
from hackward.reports.evidence import Evidence, Projected, gather_evidence
from hackward.reports.runs import find_runs
from hackward.reports.verification import Metric, judge_run
from hackward.reports.words import ALTERNATES, PASS, SNEAKY
from tests.runs_on_disk import (
    NAN,
    read,
    replay_rows,
    replay_samples,
    row,
    run_main,
    same_draws,
    sample,
    write_run,
)

STRONG, WEAK, ZERO, NEGATIVE = (0.3, 0.25) * 10, (0.1, 0.12) * 10, (0.01, -0.01) * 10, (-0.3, -0.25) * 10
ALTERNATING, NEARLY = (0.3, -0.3) * 10, (0.01,) * 19 + (0.06,)
WORKS = (Projected("projected", (0.02, 0.03) * 10),)


@pytest.mark.parametrize(
    ("evidence", "headline", "following"),
    [
        (
            {"vanilla_cos_in": STRONG, "discriminates": True, "projected": WORKS},
            "GO: Phase 3",
            "--preset=full",
        ),
        (
            {"vanilla_cos_in": STRONG, "discriminates": True},
            "NOT YET: the mechanism is unmeasured",
            "--arm=projected",
        ),
        (
            {"vanilla_cos_in": STRONG, "projected": WORKS, "dead_mechanism": ("x: fail",)},
            "NOT YET",
            "x: fail",
        ),
        (
            {"vanilla_cos_in": ZERO, "discriminates": True, "projected": WORKS},
            "GO, with a smaller",
            "--steps=60",
        ),
        (
            {"vanilla_cos_in": ZERO, "discriminates": False, "base_rewards": (0.5, 0.0)},
            "NO-GO: skip",
            "--base-only",
        ),
        (
            {"vanilla_cos_in": ZERO, "discriminates": False},
            "NO-GO: skip",
            "another V: python extract_vhack.py --pool",
        ),
        ({"vanilla_cos_in": ZERO}, "NO DECISION: undefined", "both pool buckets"),
        ({}, "NO DECISION: undefined", "vanilla replay"),
        (
            {"vanilla_cos_in": WEAK, "discriminates": True, "projected": WORKS},
            "UNDECIDED",
            "--control=random",
        ),
        (
            {"vanilla_cos_in": NEGATIVE, "discriminates": True, "projected": WORKS},
            "NO-GO: cos_in is negative",
            "sign",
        ),
        ({"vanilla_cos_in": STRONG, "dead_signal": ("x",)}, "NO DECISION: no usable advantage", "x"),
        (
            {"vanilla_cos_in": STRONG, "projected": WORKS, "dead_direction": ("v s41: x",)},
            "NOT YET: vanilla cos_in is within its null",
            "v s41: x",
        ),
        (
            {"vanilla_cos_in": STRONG, "projected": WORKS, "vanilla_null": (-0.4, 0.4)},
            "NOT YET: vanilla cos_in is within its null",
            "all vanilla runs",
        ),
        (
            {
                "vanilla_cos_in": STRONG,
                "discriminates": True,
                "projected": WORKS,
                "vanilla_null": (-0.1, 0.1),
            },
            "GO: Phase 3",
            "--preset=full",
        ),
        (
            {"vanilla_cos_in": WEAK, "discriminates": True, "projected": WORKS, "vanilla_null": (-0.2, 0.2)},
            "NOT YET: vanilla cos_in is within its null",
            "extract",
        ),
        (
            {
                "vanilla_cos_in": (0.02, -0.01) * 10,
                "discriminates": True,
                "projected": WORKS,
                "vanilla_null": (-0.2, 0.2),
            },
            "GO, with a smaller",
            "--steps=60",
        ),
        (
            {"vanilla_cos_in": STRONG, "discriminates": True, "projected": (Projected("p", NEGATIVE),)},
            "STOP: over-projection",
            "gate",
        ),
        (
            {"vanilla_cos_in": ALTERNATING, "discriminates": False, "projected": WORKS},
            "NOT YET: vanilla cos_in alternates",
            "--prompts=8",
        ),
        (
            {
                "vanilla_cos_in": ALTERNATING,
                "discriminates": True,
                "projected": WORKS,
                "vanilla_null": (-0.2, 0.2),
            },
            "NOT YET: vanilla cos_in alternates",
            "--prompts=8",
        ),
        (
            {"vanilla_cos_in": NEARLY, "discriminates": False, "projected": WORKS},
            "UNDECIDED: about 0 in the mean though not on all steps",
            "--control=random",
        ),
    ],
)
def test_recommendation(evidence, headline, following):
    evidence = Evidence(**evidence)
    found, lines = recommend(decision_rules(evidence), evidence)
    assert found.startswith(headline) and following in " ".join(lines)


@pytest.mark.parametrize(
    ("model", "on_policy", "sweep"),
    [
        ("embedded", "--preset=embedded --steps", "--preset=embedded --arm"),
        (
            "tiny-random",
            "--preset=smoke --model=tiny-random --steps",
            "--preset=smoke --model=tiny-random --arm",
        ),
        ("org/M 7B", "--preset=fast --model='org/M 7B' --steps", "--preset=full --model='org/M 7B' --arm"),
    ],
)
def test_what_to_run_next_names_the_preset_and_the_model_of_the_probe(model, on_policy, sweep):
    evidence = Evidence(vanilla_cos_in=ZERO, discriminates=True, projected=WORKS, model=model)
    headline, (first, second) = recommend(decision_rules(evidence), evidence)
    assert headline.startswith("GO, with a smaller") and on_policy in first and sweep in second
    evidence = Evidence(vanilla_cos_in=STRONG, model=model)
    headline, (run,) = recommend(decision_rules(evidence), evidence)
    assert "unmeasured" in headline and on_policy.partition(" --steps")[0] in run


def test_the_evidence_names_the_model_that_the_runs_are_of(tmp_path):
    write_run(tmp_path / "replay", "replay", [row()], [sample()])
    runs, _ = find_runs(tmp_path)
    assert gather_evidence(runs).model == runs[0].record["model"]["name"] == "tiny"


def applies(**evidence) -> dict[RuleName, bool | None]:
    return {name: rule.applies for name, rule in decision_rules(Evidence(**evidence)).items()}


def test_each_decision_rule_applies_when_it_should():
    assert applies() == dict.fromkeys(RuleName)
    assert applies(vanilla_cos_in=ZERO, discriminates=False, base_rewards=(0.5, 0.5)) == {
        RuleName.SKIP: True,
        RuleName.ONE_SIDED: True,
        RuleName.LATER: False,
        RuleName.ALTERNATES: False,
        RuleName.STRONG: False,
        RuleName.WORKS: None,
        RuleName.OVER: None,
        RuleName.CEILING: None,
    }
    later = applies(vanilla_cos_in=ZERO, discriminates=True, base_rewards=(3.5, 0.5))
    assert (
        later
        | {
            RuleName.SKIP: False,
            RuleName.ONE_SIDED: False,
            RuleName.LATER: True,
            RuleName.STRONG: False,
        }
        == later
    )
    assert applies(vanilla_cos_in=(0.3,) * 16 + (0.1,) * 4)[RuleName.STRONG] is True
    assert applies(vanilla_cos_in=(0.3,) * 15 + (0.1,) * 5)[RuleName.STRONG] is False
    works = applies(vanilla_cos_in=STRONG, projected=WORKS)
    assert (works[RuleName.WORKS], works[RuleName.OVER]) == (True, False)
    idle = applies(vanilla_cos_in=STRONG, projected=(Projected("p", STRONG),))
    assert (idle[RuleName.WORKS], idle[RuleName.OVER]) == (False, False)
    # a cosine that is negative without any projection is a sign error, not over-projection
    assert applies(vanilla_cos_in=NEGATIVE, projected=(Projected("p", NEGATIVE),))[RuleName.OVER] is False


def test_skipping_the_sweep_takes_every_step_about_0_and_no_discrimination():
    """Steps that cancel have a mean of 0 and are not about 0: no rule that claims so may apply."""
    for cos_in, zero in ((ZERO, True), (ALTERNATING, False), (NEARLY, False)):
        assert applies(vanilla_cos_in=cos_in, discriminates=False)[RuleName.SKIP] is zero
        assert applies(vanilla_cos_in=cos_in, discriminates=True)[RuleName.LATER] is zero
    assert applies(vanilla_cos_in=ALTERNATING)[RuleName.ALTERNATES] is True
    assert applies(vanilla_cos_in=NEARLY)[RuleName.ALTERNATES] is False


def test_pools_with_the_same_share_of_hacks_give_no_separation_and_no_base(tmp_path):
    """Neither pool is the clean one, so none of their rewards counts for it and nothing is compared."""
    dice = random.Random(7)
    rows = [one | {"hacked": place % 2 == 0} for place, one in enumerate(replay_samples(dice))]
    tied = [one | {"hacked": place // 2 % 2 == 0} for place, one in enumerate(rows)]
    write_run(tmp_path / "v", "replay", replay_rows(dice), tied)
    evidence = gather_evidence(find_runs(tmp_path)[0])
    assert evidence.discriminates is None and evidence.base_rewards == ()
    assert "share of hacks (base 0.50, teacher 0.50)" in evidence.separation


def test_the_rule_on_projected_cos_in_says_that_it_reads_it_before_the_edit():
    """Row 3 passes where this rule says no: a sentence says why, where the rule is printed."""
    rule = decision_rules(Evidence(vanilla_cos_in=STRONG, projected=(Projected("p", STRONG),)))[
        RuleName.WORKS
    ]
    assert rule.applies is False and "reads the cosine before the edit, row 3" in rule.measured
    alone = decision_rules(Evidence(vanilla_cos_in=STRONG))[RuleName.WORKS]
    assert alone.measured == "no projected run"


def test_alternating_steps_are_reported_as_such_by_table_and_decision(tmp_path, capsys):
    dice = random.Random(7)
    rows = [one | {"cos_in": (-1) ** step * abs(one["cos_in"])} for step, one in enumerate(replay_rows(dice))]
    write_run(tmp_path / "v", "replay", rows, replay_samples(dice))
    (run,) = read(tmp_path).values()
    assert judge_run(run)[Metric.DIRECTION].verdict == ALTERNATES
    run_main(tmp_path)
    printed = capsys.readouterr().out
    assert "NOT YET: vanilla cos_in alternates between steps" in printed
    assert "projection will not help" not in printed and "NO-GO" not in printed


def test_no_go_is_given_where_the_table_calls_vanilla_a_sneaky_fail(tmp_path):
    """The same probe under two nulls: vanilla's mean cos_in is about .35."""
    for half, verdict, headline in (
        (0.1, PASS, "GO: Phase 3 is justified"),
        (0.6, SNEAKY, "NOT YET: vanilla cos_in is within its null"),
    ):
        dice, root, nulls = random.Random(7), tmp_path / str(half), same_draws(20, half)
        samples = replay_samples(dice)
        write_run(root / "v", "replay", replay_rows(dice), samples, nulls=nulls)
        projected = replay_rows(dice, projected=True)
        write_run(root / "p", "replay", projected, samples, nulls=nulls, arm="projected")
        runs = read(root)
        assert judge_run(runs["v"])[Metric.DIRECTION].verdict == verdict
        evidence = gather_evidence(list(runs.values()))
        assert recommend(decision_rules(evidence), evidence)[0] == headline


def test_the_names_of_the_pools_decide_nothing(tmp_path, capsys):
    """The shipped pool is named "scripted": the same rows under any two names give the same decision."""
    for names in (("teacher", "base"), ("scripted", "base"), ("a", "b")):
        dice, root = random.Random(7), tmp_path / names[0]
        samples = replay_samples(dice, pools=names)
        pools = {"pools": [{"dir": f"out/{name}", "hash": "p0"} for name in names]}
        write_run(root / "v", "replay", replay_rows(dice), samples, facts=pools)
        projected = replay_rows(dice, projected=True)
        write_run(root / "p", "replay", projected, samples, facts=pools, arm="projected")
        row = judge_run(read(root)["v"])[Metric.SPECIFICITY]
        assert row.verdict == PASS, row.why
        assert f"{names[0]} hacked +" in row.measured and "(n 80)" in row.measured
        run_main(root)
        printed = capsys.readouterr().out
        assert "GO: Phase 3 is justified" in printed and f"cos_S_logp {names[0]} - {names[1]}" in printed
        assert ("teacher" in printed) == (names[0] == "teacher")
        assert f"of 80 {names[1]} samples do" in " ".join(printed.split())


def test_a_vanilla_that_was_repeated_counts_once(tmp_path, capsys):
    """Vanilla beside another gate, project_at and objective is the same run; with another seed it is not."""
    dice = random.Random(5)
    samples, rows = replay_samples(dice, 5), replay_rows(dice, 5)
    for name, more in {
        "a": {},
        "b": {"gate": "two-sided"},
        "c": {"project_at": "update", "objective": "grpo"},
        "d": {"preset": "fast"},
    }.items():
        write_run(tmp_path / name, "replay", rows, samples, **more)
    alone = gather_evidence(find_runs(tmp_path)[0][:1])
    evidence = gather_evidence(find_runs(tmp_path)[0])
    assert evidence == alone and len(evidence.vanilla_cos_in) == 5
    run_main(tmp_path)
    printed = capsys.readouterr().out
    assert "Same settings and seed as another run, not counted: " in printed and NAN.search(printed) is None
    begun = [one for one in samples if one["step"] < 3]
    write_run(tmp_path / "e", "replay", rows, samples, seed=42)
    write_run(tmp_path / "f", "replay", rows, samples, lr=1e-2)
    write_run(tmp_path / "g", "replay", rows[:3], begun, finished=False)
    runs = find_runs(tmp_path, take_unfinished=True)[0]
    assert len(gather_evidence(runs).vanilla_cos_in) == 15 and len(runs) == 7
    assert all(run.complete for run in unique(runs[::-1]))  # rather the whole run than its beginning
