"""Claims about across.py and the verdicts over seeds: arms, the vanilla that they are compared with, nulls, H1, held-out evaluation."""

from __future__ import annotations

import io
import math
import random
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import save_file
from scipy import stats

import analyze
from hackward.base.files import read_json, read_jsonl, write_json, write_jsonl
from hackward.base.statistics import COSINES, estimate, null_range
from hackward.reports.arm_tables import arms_table, cosine_table, more_table, onset_words
from hackward.reports.arms import ArmRuns, baseline, by_arm, doubles, null_of, one_direction
from hackward.reports.h1 import h1_blocks
from hackward.reports.h1_verdict import (
    INCONCLUSIVE,
    MATCHED,
    NOT_MATCHED,
    NOT_SHOWN,
    REFUTED,
    SUPPORTED,
    UNTESTABLE,
    judge_h1,
    match_pass,
    seeds_needed,
    seeds_to_resolve,
)
from hackward.reports.heldout import heldout_table
from hackward.reports.onset import median_onset
from hackward.reports.probe import METRICS, judge_run
from hackward.reports.probe_verdicts import judge_direction
from hackward.reports.runs import find_runs
from hackward.reports.tables import Table, rich_table, shown
from hackward.reports.words import NOT_JUDGED, PASS, SNEAKY, UNDEFINED
from hackward.runs.settings import parse
from tests.test_analyze import NAN, PNG, replay_rows, replay_samples, row, run_main, write_run


def write_arm(root: Path, hacked, solved=None, first_seed=1, steps=10, more_rows=None, **settings) -> None:
    """One run a seed; `hacked` and `solved` are its rates on the last 5 steps (before, nothing is hacked)."""
    for seed, rate in enumerate(hacked, start=first_seed):
        passed = 0.2 if solved is None else solved[seed - first_seed]
        rows = [
            row(step, hack_rate=rate if step >= 5 else 0.0, gt_rate=passed, attempt_rate=1.0)
            | (more_rows or {})
            for step in range(steps)
        ]
        write_run(
            root / f"{'-'.join(str(value) for value in settings.values())}-{seed}",
            "sampled",
            rows,
            seed=seed,
            **settings,
        )


def arms_of(root: Path) -> dict[str, ArmRuns]:
    return {arm.name: arm for arm in by_arm(find_runs(root)[0])}


# ------------------------------------------------------------------------------------------ arms
def test_arms_are_compared_over_seeds_and_with_vanilla_of_the_same_seed(tmp_path, capsys):
    """Hacked, last 5 steps: vanilla .1 .3 .8, projected .05 .2 .6. Paired differences -.05 -.1 -.2: mean -.1167, sd .0764, t(2) = 4.303."""
    for arm, rates in {"vanilla": (0.1, 0.3, 0.8), "projected": (0.05, 0.2, 0.6)}.items():
        for seed, rate in enumerate(rates):
            rows = [
                row(step, hack_rate=rate if step >= 5 else 0.0, gt_rate=0.5, attempt_rate=1.0)
                for step in range(10)
            ]
            write_run(tmp_path / f"{arm}{seed}", "sampled", rows, arm=arm, seed=seed)
    analyze.main(analyze.AnalyzeFlags(tmp_path))
    assert "up to 3 seeds" in " ".join(capsys.readouterr().out.split()) and (
        tmp_path / "report" / "curves.png"
    ).read_bytes().startswith(PNG)
    runs = find_runs(tmp_path)[0]
    arms = by_arm(runs)
    assert {arm.name: sorted(arm.runs) for arm in arms} == {"vanilla": [0, 1, 2], "projected": [0, 1, 2]}
    table = {(r["arm"], r["rate"]): r for r in arms_table(arms).records}
    vanilla = table["vanilla", "hacked"]
    projected = table["projected", "hacked"]
    assert (
        vanilla["last5"].mean == pytest.approx(0.4)
        and vanilla["first5"].mean == 0
        and vanilla["area"].mean == pytest.approx(0.2)
    )
    gap = projected["last5_gap"]
    assert gap.difference == pytest.approx(-0.35 / 3) and gap.n_first == 3
    assert gap.high - gap.difference == pytest.approx(4.3027 * 0.076376 / 3**0.5, rel=1e-3)
    solved = table["projected", "solved"]
    assert solved["last5_gap"].difference == 0 and solved["last5_gap"].low is None  # no variance, no interval


def test_an_arm_holds_runs_that_differ_in_their_seed_alone(tmp_path):
    """Another length, another temperature, an unfinished run, a second run of a seed: none of them joins the arm."""
    rows = [row(step, hack_rate=0.1, gt_rate=0.5, attempt_rate=None) for step in range(6)]
    for name, more in {
        "a": dict(seed=1),
        "b": dict(seed=2),
        "c": dict(seed=3, steps=40),
        "d": dict(seed=4, temperature=0.5),
        "e": dict(seed=1),
    }.items():
        write_run(tmp_path / name, "sampled", rows, **{"steps": 6, "temperature": 1.0} | more)
    write_run(tmp_path / "f", "sampled", rows, finished=False, seed=5, steps=6, temperature=1.0)
    for name, seed in {"g": 1, "h": 2}.items():
        write_run(tmp_path / name, "sampled", rows, arm="projected", seed=seed, steps=6, temperature=1.0)
    runs = find_runs(tmp_path, take_unfinished=True)[0]
    arms = by_arm(runs)
    assert (
        sorted(sorted(arm.runs) for arm in arms) == [[1, 2], [1, 2], [3], [4]]
        and len({arm.name for arm in arms}) == 4
    )
    assert [run for run in doubles(runs, arms)] and len(doubles(runs, arms)) == 1
    records = {(r["arm"], r["rate"]): r for r in arms_table(arms).records}
    (projected,) = [arm.name for arm in arms if not arm.vanilla]
    assert (
        records[projected, "hacked"]["last5_gap"].n_first == 2
        and records[projected, "attempted"]["last5_gap"].n_first == 0
    )


def trained(problems: str | None = None, training: str | None = None) -> dict:
    return {
        key: value for key, value in {"problems": problems, "training": training}.items() if value is not None
    }


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (
            [
                trained("90 problems of p", "x"),
                trained("90 problems of q", "x"),
                trained("90 problems of p", "y"),
            ],
            [[1, 2], [3]],
        ),
        ([{}, {}, trained("problems of the pools")], [[1, 2, 3]]),
    ],
)
def test_runs_with_other_training_problems_are_no_seeds_of_one_arm_and_no_baseline(tmp_path, facts, expected):
    for seed, more in enumerate(facts, start=1):
        write_run(tmp_path / f"v{seed}", "sampled", [row()], facts=more, seed=seed)
        write_run(tmp_path / f"p{seed}", "sampled", [row()], facts=more, arm="projected", seed=seed)
    arms = by_arm(find_runs(tmp_path)[0])
    assert sorted(sorted(arm.runs) for arm in arms if arm.vanilla) == expected
    assert all(sorted(baseline(arm, arms).runs) == sorted(arm.runs) for arm in arms if not arm.vanilla)


def test_held_out_problems_of_its_own_make_another_setting(tmp_path):
    """--eval-problems takes problems out of training; how often is evaluated does not change it."""
    for seed, more in enumerate(
        ({}, {"eval_every": 5}, {"eval_samples": 1}, {"eval_limit": 3}, {"eval_problems": "other.jsonl"}),
        start=1,
    ):
        write_run(
            tmp_path / str(seed),
            "sampled",
            [row()],
            **dict(seed=seed, eval_every=0, eval_samples=4, eval_limit=64, eval_problems=None) | more,
        )
    assert sorted(sorted(arm.runs) for arm in arms_of(tmp_path).values()) == [[1, 2, 3, 4], [5]]


def test_settings_that_mean_nothing_to_vanilla_do_not_break_the_comparison(tmp_path):
    """Of an edit's loss, of the size of a LoRA's steps and of the preset's name vanilla knows nothing; two projected arms differ in their loss."""
    common = dict(
        objective="nll", match_size=True, preset="embedded", rank=8, gate="one-sided", refresh_every=0
    )
    write_run(tmp_path / "v", "sampled", [row()], seed=1, **common)
    write_run(
        tmp_path / "v2",
        "sampled",
        [row()],
        seed=2,
        **common | dict(objective="grpo", match_size=False, preset="fast", rank=4),
    )
    write_run(tmp_path / "p", "sampled", [row()], arm="projected", seed=1, **common | {"match_size": False})
    write_run(
        tmp_path / "q",
        "sampled",
        [row()],
        arm="projected",
        seed=1,
        **common | {"objective": "grpo", "preset": "full"},
    )
    write_run(tmp_path / "l", "sampled", [row()], arm="lora", seed=1, **common)
    write_run(tmp_path / "m", "sampled", [row()], arm="lora", seed=1, **common | {"match_size": False})
    write_run(tmp_path / "n", "sampled", [row()], arm="lora", seed=1, **common | {"gate": "none"})
    arms = by_arm(find_runs(tmp_path)[0])
    against = {arm.runs[1].path.name: baseline(arm, arms) for arm in arms}
    assert {name: found and found.runs[1].path.name for name, found in against.items()} == {
        "v": None,
        "n": None,
        "p": "v",
        "q": "v",
        "l": "n",
        "m": "v",
    }  # m's steps are of another size than n's
    assert sorted(against["p"].runs) == [1, 2] and len({arm.name for arm in arms}) == len(arms)
    assert {arm.runs[1].path.name: arm.name for arm in arms}["q"] == "projected grpo"


def test_h1_is_undefined_between_bases_and_says_what_to_run(tmp_path, capsys):
    """The figures would support it: -.5 in both seeds. Basis and projection cannot be told apart; with vanilla in the own basis they can."""
    common = dict(rank=4, gate="one-sided", match_size=True)
    write_arm(tmp_path / "a", (0.60, 0.65, 0.70), (0.20, 0.21, 0.19), arm="vanilla", **common)
    write_arm(tmp_path / "b", (0.01, 0.03, 0.02), (0.21, 0.20, 0.21), arm="lora", **common)
    write_arm(
        tmp_path / "c", (0.01, 0.03, 0.02), (0.21, 0.20, 0.21), arm="lora", **common | {"match_size": False}
    )
    (table, words) = h1_blocks(list(arms_of(tmp_path).values()))
    assert [record["verdict"] for record in table.records] == [UNDEFINED] * 2 and table.records[0][
        "hacked"
    ].mean == pytest.approx(-0.63)
    assert (
        "basis and projection cannot be told apart (run --arm=lora --gate=none --rank=4 with" in words
        and "--rank=4 --no-match-size with" in words
    )
    assert "hacked -0.630" in words
    write_arm(tmp_path / "d", (0.60, 0.65, 0.70), (0.20, 0.21, 0.19), arm="lora", **common | {"gate": "none"})
    (table, _) = h1_blocks(list(arms_of(tmp_path).values()))
    assert sorted(record["verdict"] for record in table.records) == [SUPPORTED, UNDEFINED]
    assert (
        parse(["--arm=lora", "--gate=none", "--rank=4", "--no-match-size"]).match_size is False
    )  # the flags exist


def test_seeds_measured_with_several_directions_have_no_common_cosine(tmp_path, capsys):
    """Vanilla trains alike whatever it is measured with, so rates are pooled; cosines with two Vs are not, and have no null."""
    nulls = {step: draws(np.linspace(-0.1, 0.1, 21)) for step in range(10)}
    rows = [
        row(step, hack_rate=0.5, gt_rate=0.2, attempt_rate=0.6, cos_in=0.3, cos_out=0.3, cos_update=0.2)
        for step in range(10)
    ]
    other = {"v_hack": {"file": "out/v_other.safetensors", "hash": "b" * 16}}
    write_run(tmp_path / "v1", "sampled", rows, seed=1, nulls=nulls)
    write_run(tmp_path / "v2", "sampled", rows, seed=2, nulls=nulls, facts=other)
    for seed in (1, 2):
        write_run(tmp_path / f"p{seed}", "sampled", rows, seed=seed, nulls=nulls, arm="projected")
    arms = arms_of(tmp_path)
    vanilla, projected = arms.values()
    assert list(arms) == ["vanilla", "projected v_pool"]
    assert sorted(vanilla.runs) == [1, 2] and baseline(projected, list(arms.values())) is vanilla
    groups = {arm.name: list(arm.runs.values()) for arm in arms.values()}
    table = cosine_table(groups, "n", "t")
    mixed, one = table.records
    assert all(mixed[key] is None and mixed[f"{key}_null_low"] is None for key in COSINES) and one[
        "cos_in"
    ] == pytest.approx(0.3)
    assert (
        one["cos_in_null_high"] == pytest.approx(0.095, rel=1e-4)
        and f"undefined for {vanilla.name}: measured with several v_hacks" in table.title
    )
    run_main(tmp_path)
    assert NAN.search(capsys.readouterr().out) is None and (
        tmp_path / "report/cos_update.png"
    ).read_bytes().startswith(PNG)
    blind = write_run(
        tmp_path / "v3",
        "sampled",
        [one | dict.fromkeys(COSINES) for one in rows],
        seed=1,
        facts={"v_hack": None},
    )
    runs = find_runs(tmp_path)[0]
    assert one_direction(
        [run for run in runs if run.path in (blind, tmp_path / "v2")]
    )  # nothing was measured with none


def test_a_lora_arm_is_compared_with_vanilla_in_its_own_basis_or_else_with_vanilla(tmp_path):
    write_arm(tmp_path / "a", (0.6, 0.7), arm="vanilla", rank=8, gate="one-sided")
    write_arm(tmp_path / "b", (0.1, 0.2), arm="lora", rank=4, gate="one-sided")
    write_arm(tmp_path / "c", (0.1, 0.3), arm="projected", rank=8, gate="one-sided")
    arms = arms_of(tmp_path)
    assert baseline(arms["lora"], list(arms.values())).name == "vanilla"  # the rank means nothing to vanilla
    write_arm(tmp_path / "d", (0.5, 0.5), arm="lora", rank=4, gate="none")
    arms = arms_of(tmp_path)
    against = {
        name: found.name if (found := baseline(arm, list(arms.values()))) else None
        for name, arm in arms.items()
    }
    assert against == {"vanilla": None, "lora vanilla": None, "lora": "lora vanilla", "projected": "vanilla"}
    assert {record["arm"]: record["against"] for record in more_table(list(arms.values())).records}[
        "lora"
    ] == "lora vanilla"
    write_arm(tmp_path / "e", (0.5, 0.5), arm="lora", rank=16, gate="one-sided")
    arms = arms_of(tmp_path)
    assert [baseline(arm, list(arms.values())).name for arm in arms.values() if arm.basis == "lora 16"] == [
        "vanilla"
    ]


@pytest.mark.parametrize(
    ("settings", "vanilla", "projects", "role"),
    [
        (dict(arm="vanilla"), True, False, "vanilla"),
        (dict(arm="projected"), False, True, "projected"),
        (dict(arm="projected", gate="none"), True, False, "vanilla"),
        (dict(arm="lora", gate="none"), True, False, "lora vanilla"),
        (dict(arm="lora", gate="two-sided"), False, True, "lora"),
        (dict(arm="projected", control="shrink"), False, False, "projected"),
        (dict(arm="projected", control="random"), False, True, "projected"),
    ],
)
def test_what_an_arm_does_follows_from_arm_gate_and_control(tmp_path, settings, vanilla, projects, role):
    write_run(tmp_path / "run", "sampled", [row()], **settings)
    (run,), _ = find_runs(tmp_path)
    assert (run.vanilla, run.projects, run.role) == (vanilla, projects, role)


@pytest.mark.parametrize(
    ("onsets", "expected", "words"),
    [
        ([12, 10, 14, 11], (11.5, False), "11.5 (10 to 14)"),
        (["never"] * 3, ("never", False), "never"),
        ([10, "never", 12], (12, False), "12 (10 to never)"),
        (
            [10, "never"],
            (10, True),
            "> 10 (10 to never)",
        ),  # half way to "never": beyond 10, and not more is known
        (["never", 9, "never"], ("never", False), "never (9 to never)"),
        ([], (None, False), UNDEFINED),
    ],
)
def test_never_counts_in_the_median_time_to_hack_and_is_never_averaged(onsets, expected, words):
    assert median_onset(onsets) == expected and onset_words(onsets) == words


def test_arms_show_who_never_hacks_and_how_far_the_weights_moved(tmp_path):
    write_arm(tmp_path / "a", (0.6, 0.7), arm="vanilla", more_rows={"delta_w_norm": 2.0})
    write_arm(tmp_path / "b", (0.0, 0.7), arm="projected", gate="one-sided", more_rows={"delta_w_norm": 3.0})
    write_arm(
        tmp_path / "c", (0.0, 0.0), arm="projected", gate="two-sided"
    )  # made before the size was recorded
    arms = list(arms_of(tmp_path).values())
    records = {record["arm"]: record for record in more_table(arms).records}
    vanilla, one, two = (records[name] for name in ("vanilla", "projected one-sided", "projected two-sided"))
    assert (vanilla["never"], one["never"], two["never"]) == (0, 1, 2) and one["time_to_hack"].startswith(
        "> 5"
    )
    assert (
        one["delta_w_ratio"] == pytest.approx(1.5)
        and vanilla["delta_w_ratio"] is None
        and two["delta_w_norm"] is None
    )
    assert "not recorded" in str(more_table(arms).cells())


# ------------------------------------------------------------------------------------------ nulls
def draws(values) -> dict:
    return dict.fromkeys(COSINES, values)


def test_the_null_of_a_mean_is_the_range_of_the_draws_own_means(tmp_path):
    """Draws that agree between steps do not average out; independent ones do. The mean of the steps' ranges would be alike."""
    dice = np.random.default_rng(0)
    same, apart = dice.normal(size=2000), dice.normal(size=(100, 2000))
    together, alone = null_range(np.tile(same, (100, 1))), null_range(apart)
    assert together == pytest.approx(np.quantile(same, [0.025, 0.975])) and together[1] == pytest.approx(
        1.96, abs=0.15
    )
    assert alone[1] == pytest.approx(1.96 / math.sqrt(100), abs=0.03)
    assert null_range(np.array([[1.0, math.nan]])) is None and null_range(np.empty((0, 5))) is None


def test_a_null_is_over_the_steps_of_its_mean_and_needs_all_of_them(tmp_path):
    """Step 1 has no cosine, so its draws do not count; with a window, only the window's do; a step without draws, no null."""
    rows = [row(step, cos_in=None if step == 1 else 0.1, cos_out=0.2, cos_update=0.3) for step in range(4)]
    ramp = np.linspace(-1, 1, 201)
    write_run(
        tmp_path / "a", "sampled", rows, nulls={step: draws(10**step * ramp) for step in range(4)}, seed=1
    )
    write_run(tmp_path / "b", "sampled", rows, nulls={step: draws(ramp) for step in range(3)}, seed=2)
    write_run(tmp_path / "c", "sampled", rows, seed=3)
    whole, cut, old = find_runs(tmp_path)[0]
    assert null_of([whole], "cos_in") == pytest.approx((-0.95 * 1101 / 3, 0.95 * 1101 / 3), rel=1e-5)
    assert null_of([whole], "cos_out", 1, 2) == pytest.approx((-0.95 * 55, 0.95 * 55), rel=1e-5)
    assert null_of([cut], "cos_in") is None and null_of([cut], "cos_out", 0, 2) == pytest.approx(
        (-0.95, 0.95), rel=1e-5
    )
    assert (
        null_of([old], "cos_in") is None
        and null_of([whole, old], "cos_in") is None
        and null_of([], "cos_in") is None
    )
    assert null_of([whole, whole], "cos_out", 1, 2) == pytest.approx(
        (-0.95 * 55, 0.95 * 55), rel=1e-5
    )  # a seed more is no new flip
    shown = dict(zip(("whole", "old"), cosine_table({"whole": [whole], "old": [old]}, "n", "t").cells()))
    assert shown["old"][2] == "no null recorded" and "-348.650" in shown["whole"][2]
    assert "(no null recorded)" in cosine_table({"old": [old]}, "n", "t").title


def test_a_cosine_within_its_null_is_a_sneaky_fail_of_row_2():
    cosines = [0.3, 0.25] * 10
    found = {null: judge_direction(cosines, (1.0, 0.5), null) for null in (None, (-0.1, 0.1), (-0.4, 0.4))}
    assert [one.verdict for one in found.values()] == [PASS, PASS, SNEAKY]
    assert (
        "no null recorded" in found[None].measured
        and "null of the mean -0.100 +0.100" in found[-0.1, 0.1].measured
    )


def test_rows_2_and_3_show_the_null_of_what_they_judge_and_controls_are_not_judged_on_the_mechanism(tmp_path):
    dice = random.Random(1)
    samples, rows = replay_samples(dice, 5), replay_rows(dice, 5, projected=True)
    nulls = {
        step: {"cos_in": [-0.1, 0.1], "cos_out": [-0.2, 0.2], "cos_update": [-0.3, 0.3]} for step in range(5)
    }
    for name, more in {"p": {}, "u": dict(project_at="update"), "c": dict(control="random")}.items():
        write_run(tmp_path / name, "replay", rows, samples, nulls=nulls, **{"arm": "projected"} | more)
    write_run(tmp_path / "old", "replay", rows, samples, arm="projected", control="random", seed=9)
    write_run(
        tmp_path / "new",
        "replay",
        rows,
        samples,
        arm="projected",
        control="random",
        seed=10,
        facts={"yardstick": "v_hack"},
    )  # a V without a null
    judged = {run.path.name: dict(judge_run(run)) for run in find_runs(tmp_path)[0]}
    assert "+0.095" in judged["p"][METRICS[1]].measured  # 97.5 % of two draws at +-0.1
    assert "+0.190" in judged["p"][METRICS[2]].measured and "+0.285" in judged["u"][METRICS[2]].measured
    assert (
        judged["c"][METRICS[2]].verdict == judged["new"][METRICS[2]].verdict == NOT_JUDGED
        and judged["old"][METRICS[2]].verdict == PASS
    )


@pytest.mark.parametrize(
    ("damage", "parts"),
    [
        (
            lambda run: (run / "nulls/step_001.safetensors").write_bytes(b"no"),
            ("step_001.safetensors", "not a readable"),
        ),
        (lambda run: write_draws(run, {"cos_in": [0.0, 1.0]}), ("step_001.safetensors", "must hold")),
        (lambda run: write_draws(run, draws([0.0, 1.0, 2.0])), ("step_001.safetensors", "as many draws")),
        (
            lambda run: damage_row(run, cos_in_null=[0.1]),
            ("rows.jsonl: row 1", "'cos_in_null' must be two numbers"),
        ),
        (lambda run: damage_row(run, cos_in_null=[0.1, "x"]), ("rows.jsonl: row 1", "must be a number")),
        (lambda run: damage_row(run, delta_w_norm="x"), ("rows.jsonl: row 1", "'delta_w_norm'")),
        (
            lambda run: write_jsonl(run / "eval.jsonl", [line() | {"adapter": "both"}]),
            ("eval.jsonl: line 1", "'adapter'"),
        ),
        (
            lambda run: write_jsonl(run / "eval.jsonl", [line() | {"hacked": 0.5}]),
            ("eval.jsonl: line 1", "'hacked'"),
        ),
        (lambda run: write_jsonl(run / "eval.jsonl", [{"step": 1}]), ("eval.jsonl:1", "'adapter'")),
    ],
)
def test_damaged_nulls_and_evaluations_are_named_and_nothing_is_written(tmp_path, capsys, damage, parts):
    run = write_run(
        tmp_path / "run",
        "sampled",
        [row(0, cos_in=0.1), row(1, cos_in=0.1)],
        nulls={step: draws([0.0, 1.0]) for step in range(2)},
    )
    damage(run)
    with pytest.raises(SystemExit) as stop:
        run_main(tmp_path)
    printed = capsys.readouterr().err
    assert stop.value.code == 2 and printed.count("\n") == 1 and all(part in printed for part in parts), (
        printed
    )
    assert not (tmp_path / "report").exists()


def write_draws(run: Path, tensors: dict) -> None:
    save_file(
        {key: np.asarray(values, dtype=np.float32) for key, values in tensors.items()},
        run / "nulls/step_001.safetensors",
    )


def damage_row(run: Path, **fields) -> None:
    rows = read_jsonl(run / "rows.jsonl")
    write_jsonl(run / "rows.jsonl", [rows[0] | fields, *rows[1:]])


# ------------------------------------------------------------------------------------------ H1
def test_the_seeds_needed_are_the_fewest_whose_interval_is_short_enough():
    for sd, distance in ((0.1, 0.05), (0.2, 0.19), (0.03, 0.3), (0.5, 0.07)):
        half = lambda n: stats.t.ppf(0.975, n - 1) * sd / math.sqrt(n)  # noqa: E731, B023
        slow = next(n for n in range(2, 1001) if half(n) <= distance)
        assert seeds_to_resolve(sd, distance) == slow
    assert seeds_to_resolve(None, 0.1) is None and seeds_to_resolve(0.1, 0.0) is None
    assert seeds_to_resolve(1.0, 0.001) is None  # beyond MOST_SEEDS


def test_support_needs_both_intervals_and_refutation_one():
    spread = [
        -0.45,
        -0.35,
        -0.55,
        -0.40,
    ]  # mean -0.4375, sd .0854: t(n - 1) * .0854 / sqrt(n) <= .1375 from n = 4
    wide = [0.0, -0.08, 0.06, -0.02]  # mean -.01, sd .0577: <= .09 from n = 5
    hacked, solved = estimate(spread), estimate(wide)
    assert (seeds_to_resolve(hacked.sd, 0.1375), seeds_to_resolve(solved.sd, 0.09)) == (
        4,
        5,
    )
    assert seeds_needed(hacked, solved) == 5
    weak = estimate([-0.2, -0.35, -0.05, -0.2])  # mean -0.2, sd .1225: to lie above -0.3 needs <= .1, n = 9
    assert seeds_needed(weak, solved) == seeds_to_resolve(weak.sd, 0.1) == 9
    assert seeds_needed(estimate([-0.5]), estimate([0.0])) is None


@pytest.mark.parametrize(
    ("gaps", "expected"),
    [
        ([0.01, -0.01, 0.02], MATCHED),
        ([0.01, -0.09, 0.02], NOT_SHOWN),
        ([0.05], NOT_SHOWN),  # one seed: no interval
        ([-0.2, -0.21, -0.19], NOT_MATCHED),
        ([0.2, 0.21, 0.19], MATCHED),  # solving more is no cost
        ([], UNDEFINED),
    ],
)
def test_a_pass_rate_is_matched_only_if_its_whole_interval_is_at_most_ten_points_lower(gaps, expected):
    assert match_pass(estimate(gaps)) == expected


DROP, SAME = [-0.60, -0.62, -0.58], [0.01, -0.01, 0.02]


@pytest.mark.parametrize(
    ("hacked", "solved", "vanilla", "verdict", "part"),
    [
        (DROP, SAME, 0.65, SUPPORTED, "3 seeds"),
        ([-0.10, -0.12, -0.08], SAME, 0.65, REFUTED, "smaller than 0.30"),
        (DROP, [-0.20, -0.22, -0.18], 0.65, REFUTED, "more than 0.10 below"),
        (DROP, [0.20, 0.22, 0.18], 0.65, SUPPORTED, "3 seeds"),
        ([-0.60, -0.20, -0.40], SAME, 0.65, INCONCLUSIVE, "seeds would decide"),
        (DROP, [-0.09, 0.02, -0.14], 0.65, INCONCLUSIVE, "seeds would decide"),
        ([-0.60], [0.0], 0.65, INCONCLUSIVE, "One seed"),
        (DROP, [0.0, 0.0, 0.0], 0.65, INCONCLUSIVE, "interval is undefined"),
        ([-0.25, -0.24, -0.26], SAME, 0.26, UNTESTABLE, "does not hack enough"),
        ([], [], None, UNDEFINED, "No vanilla"),
    ],
)
def test_h1_is_decided_by_intervals_over_seeds(hacked, solved, vanilla, verdict, part):
    found = judge_h1(estimate(hacked), estimate(solved), vanilla)
    assert found.verdict == verdict and part in found.why
    assert (found.seeds is not None) == ("seeds would decide" in found.why)


def write_sweep(root: Path) -> None:
    """Vanilla hacks .6 to .7. Projected at the update hardly; its random control does as vanilla, its shrink control as the arm."""
    base = dict(gate="one-sided", project_at="update")
    solved = (0.20, 0.21, 0.19)
    write_arm(root / "v", (0.60, 0.65, 0.70), solved, arm="vanilla", **base)
    write_arm(root / "p", (0.01, 0.03, 0.02), (0.21, 0.20, 0.21), arm="projected", **base)
    write_arm(root / "r", (0.61, 0.63, 0.71), solved, arm="projected", control="random", **base)
    write_arm(root / "s", (0.02, 0.02, 0.01), solved, arm="projected", control="shrink", **base)
    write_arm(
        root / "g",
        (0.02, 0.02, 0.05),
        (0.20, 0.20, 0.21),
        arm="projected",
        gate="one-sided",
        project_at="grad",
    )


def test_a_verdict_names_the_controls_that_it_exceeds_and_those_that_do_as_well(tmp_path):
    write_sweep(tmp_path)
    table_of = {
        block.name: block for block in h1_blocks(list(arms_of(tmp_path).values())) if isinstance(block, Table)
    }
    reading = {
        record["control"]: (record["reading"], record["gap"]) for record in table_of["h1_controls"].records
    }
    assert {name: said for name, (said, _) in reading.items()} == {
        "random": "exceeded",
        "shrink": "does as well",
    }
    assert reading["random"][1].mean == pytest.approx((-0.60 - 0.60 - 0.69) / 3)  # paired by seed
    judged = {record["arm"]: record for record in table_of["h1"].records}
    assert {name: record["verdict"] for name, record in judged.items()} == {
        "projected update": SUPPORTED,
        "projected grad": SUPPORTED,
    }
    words = h1_blocks(list(arms_of(tmp_path).values()))[-1]
    assert (
        "Not explained by: random; A control does as well: shrink; not run: sign-flip, clean-clean." in words
    )
    assert (
        "Not run: random, sign-flip, clean-clean, shrink." in words
    )  # the controls at the update are none of the gradient's


def test_the_verdict_on_h1_is_the_last_thing_printed_and_every_picture_is_drawn(tmp_path, capsys):
    write_sweep(tmp_path)
    write_run(
        tmp_path / "x",
        "sampled",
        [row(0, hack_rate=0.1), row(1)],
        arm="lora",
        seed=1,
        nulls={0: draws([-0.1, 0.1])},
        heldout=[line(), line("off")],
    )
    run_main(tmp_path)
    printed = capsys.readouterr().out
    assert not NAN.search(printed) and "None" not in printed
    last = printed[printed.index("H1: hacked at least") :]
    assert (
        "H1, projected update: SUPPORTED" in " ".join(last.split())
        and "─ " not in last.split("H1, projected")[1]
    )
    for name in ("curves.png", "frontier.png", "cos_update.png", "heldout.png", "on_policy.png"):
        assert (tmp_path / "report" / name).read_bytes().startswith(PNG)
    for name in ("h1", "h1_controls", "arms_more", "arms_cosines", "heldout"):
        assert "\n" in (tmp_path / "report" / f"{name}.csv").read_text()


# ------------------------------------------------------------------------------------------ held out
def line(adapter="on", step=10, condition="closed", hacked=0.5, **more) -> dict:
    rate = lambda mean: {"mean": mean, "low": max(0.0, mean - 0.1), "high": mean + 0.1}  # noqa: E731
    rates = {
        "hacked": rate(hacked),
        "attempted": rate(0.6),
        "solved": rate(0.2),
        "hack_given_attempt": None if adapter == "off" else rate(0.8),
    }
    return (
        {"step": step, "adapter": adapter, "condition": condition, "problems": 12, "samples": 4}
        | rates
        | more
    )


def test_held_out_rates_are_on_minus_off_by_seed_of_the_last_evaluation(tmp_path):
    """On .5 .6 .9, off .1 .1 .3: differences .4 .5 .6, mean .5, sd .1, t(2) = 4.303. Lines of step 5 do not count."""
    for seed, (on, off) in enumerate(((0.5, 0.1), (0.6, 0.1), (0.9, 0.3))):
        lines = [
            line(hacked=on),
            line("off", hacked=off),
            line(step=5, hacked=0.0),
            line("off", 5, hacked=0.9),
        ]
        write_run(tmp_path / f"v{seed}", "sampled", [row(0), row(1)], seed=seed, heldout=lines)
    write_run(
        tmp_path / "p",
        "sampled",
        [row(0), row(1)],
        arm="projected",
        seed=0,
        heldout=[line(hacked=0.3), line("off", hacked=0.1)],
    )
    records = {(r["arm"], r["adapter"]): r for r in heldout_table(list(arms_of(tmp_path).values())).records}
    gap = records["vanilla", "on - off"]["hacked"]
    assert gap.mean == pytest.approx(0.5) and gap.high - gap.mean == pytest.approx(
        4.3027 * 0.1 / math.sqrt(3), rel=1e-3
    )
    assert records["vanilla", "on"]["hacked"].mean == pytest.approx(2 / 3) and records["vanilla", "on"][
        "hack_given_attempt"
    ].mean == pytest.approx(0.8)
    assert (
        records["vanilla", "on - off"]["hack_given_attempt"].why == "no value"
    )  # nothing was attempted with the adapter off
    alone = records["projected", "on"]["hacked"]  # one seed: the interval is the run's own, over problems
    assert (alone.mean, alone.low, alone.high, alone.n) == pytest.approx((0.3, 0.2, 0.4, 12))
    assert (
        records["projected", "on - off"]["hacked"].mean == pytest.approx(0.2)
        and records["projected", "on - off"]["hacked"].low is None
    )


@pytest.mark.parametrize("width", [100, 120, 200])
def test_no_terminal_of_100_columns_or_more_cuts_a_figure_off(width):
    """Nine columns of twelve characters do not fit into 100: they wrap, and every word of every cell is still there."""
    words = [
        [f"{column}{line}.{column}{line}5", f"[.{line}1", f".{column}9]"]
        for line in range(3)
        for column in range(9)
    ]
    records = [{str(column): " ".join(words[9 * line + column]) for column in range(9)} for line in range(3)]
    table = Table("t", "t", tuple((f"head {column}", shown(str(column))) for column in range(9)), records)
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(rich_table(table, width))
    printed = console.export_text()
    assert all(word in printed for cell in words for word in cell)


def test_the_quality_of_v_hack_is_printed_with_its_permutation_p(tmp_path):
    run = write_run(tmp_path / "run", "sampled", [row()])
    record = read_json(run / "config.json")
    right_sign, auc = (
        {"value": 0.9375, "null": [0.33, 0.67], "p": 0.001},
        {"value": 0.5, "null": [None, None], "p": None},
    )
    record["v_hack"]["heldout"] = {"pairs": 48, "right_sign": right_sign, "auc": auc}
    write_json(run / "config.json", record)
    (table,) = analyze.direction_blocks(find_runs(tmp_path)[0])
    assert table.cells()[0][2:] == [
        "48",
        "0.938",
        "0.33 to 0.67",
        "0.001",
        "0.500",
        "undefined to undefined",
        UNDEFINED,
    ]
