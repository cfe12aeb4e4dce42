"""Claims about runs over seeds: arms, the vanilla that they are compared with, nulls, held-out evaluation."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
from rich.console import Console

import analyze
from hackward.base.breakout import time_to_hack
from hackward.base.statistics import COSINES
from hackward.reports.arm_tables import arms_table, by_steps, cosine_table, more_table, onset_words
from hackward.reports.arms import Lora, baseline, by_arm, doubles
from hackward.reports.heldout import heldout_table
from hackward.reports.nulls import null_of, one_direction
from hackward.reports.onset import curve, median_onset
from hackward.reports.runs import find_runs
from hackward.reports.tables import Table, rich_table, shown
from hackward.reports.words import UNDEFINED
from tests.runs_on_disk import NAN, PNG, arms_of, draws, read, row, run_main, write_arm, write_run


# ---------------------------------------------------------------------- curves
def test_curve_and_time_to_hack_by_hand():
    rates = [0.0, 0.0, 0.1, 0.1, 0.1, 0.2, 0.4]
    assert curve(rates) == pytest.approx((0.06, 0.18, 0.9 / 7))
    steps = [10, 11, 12, 13, 14, 15, 16]
    assert time_to_hack(steps, rates) == 15  # (0.1 + 0.1 + 0.2) / 3; the window before is exactly 0.1
    assert time_to_hack(steps, [0.1] * 7) == "never"
    assert time_to_hack(steps, [0.5, 0.5, None, 0.5, 0.5, None, 0.5]) is None
    assert time_to_hack([0, 1], [0.9, 0.9]) is None
    assert curve([None, None]) == (None, None, None)


@pytest.mark.parametrize(
    ("onsets", "expected", "words"),
    [
        ([12, 10, 14, 11], (11.5, False), "11.5 (10 to 14)"),
        (["never"] * 3, ("never", False), "never"),
        ([10, "never", 12], (12, False), "12 (10 to never)"),
        ([10, "never"], (10, True), "> 10 (10 to never)"),  # half way to "never": beyond 10, no more is known
        (["never", 9, "never"], ("never", False), "never (9 to never)"),
        ([], (None, False), UNDEFINED),
    ],
)
def test_never_counts_in_the_median_time_to_hack_and_is_never_averaged(onsets, expected, words):
    assert median_onset(onsets) == expected and onset_words(onsets) == words


def test_rates_by_steps_are_means_over_equal_parts_and_undefined_where_a_run_has_no_step(tmp_path):
    """Twenty steps go into parts of five (at most ten parts); the shorter run ends in the second one."""
    for seed, steps in enumerate((20, 7)):
        rows = [row(step, hack_rate=step / 100, gt_rate=0.5, attempt_rate=0.0) for step in range(steps)]
        write_run(tmp_path / f"v{seed}", "sampled", rows, seed=seed)
    (arm,) = arms_of(tmp_path).values()
    table = by_steps(list(arm.runs.values()))
    long, short = table.records
    assert [name for name, _ in table.columns] == ["run", "0-4", "5-9", "10-14", "15-19"]
    assert [long[f"hack_rate_{part}"] for part in ("0-4", "15-19")] == pytest.approx([0.02, 0.17])
    assert short["hack_rate_5-9"] == pytest.approx(0.055) and short["hack_rate_10-14"] is None
    assert [cell(short) for _, cell in table.columns[1:]] == [".02 .50", ".06 .50"] + [
        f"{UNDEFINED} {UNDEFINED}"
    ] * 2


# ---------------------------------------------------------------------- arms
def test_arms_are_compared_over_seeds_and_with_vanilla_of_the_same_seed(tmp_path, capsys):
    """Hacked, last 5 steps: vanilla .1 .3 .8, projected .05 .2 .6.

    Paired differences -.05 -.1 -.2: mean -.1167, sd .0764, t(2) = 4.303.
    """
    for arm, rates in {"vanilla": (0.1, 0.3, 0.8), "projected": (0.05, 0.2, 0.6)}.items():
        for seed, rate in enumerate(rates):
            measured = [{"hack_rate": rate if step >= 5 else 0.0, "gt_rate": 0.5} for step in range(10)]
            rows = [row(step, attempt_rate=1.0, **measured[step]) for step in range(10)]
            write_run(tmp_path / f"{arm}{seed}", "sampled", rows, arm=arm, seed=seed)
    analyze.main(analyze.AnalyzeFlags(tmp_path))
    assert "up to 3 seeds" in " ".join(capsys.readouterr().out.split())
    assert (tmp_path / "report" / "curves.png").read_bytes().startswith(PNG)
    arms = by_arm(find_runs(tmp_path)[0])
    assert {arm.name: sorted(arm.runs) for arm in arms} == {"vanilla": [0, 1, 2], "projected": [0, 1, 2]}
    table = {(r["arm"], r["rate"]): r for r in arms_table(arms).records}
    vanilla, projected = table["vanilla", "hacked"], table["projected", "hacked"]
    assert vanilla["last5"].mean == pytest.approx(0.4)
    assert vanilla["first5"].mean == 0 and vanilla["area"].mean == pytest.approx(0.2)
    gap = projected["last5_gap"]
    assert gap.difference == pytest.approx(-0.35 / 3) and gap.n_first == 3
    assert gap.high - gap.difference == pytest.approx(4.3027 * 0.076376 / 3**0.5, rel=1e-3)
    solved = table["projected", "solved"]  # the same in all seeds: the interval is the point
    assert (solved["last5_gap"].difference, solved["last5_gap"].low, solved["last5_gap"].high) == (0, 0, 0)
    assert solved["last5"].low is None  # a rate alone has none


def test_an_arm_holds_runs_that_differ_in_their_seed_alone(tmp_path):
    """Another temperature, an unfinished run, a second run of a seed do not join the arm.

    How long a run was to be is no part of it.
    """
    rows = [row(step, hack_rate=0.1, gt_rate=0.5, attempt_rate=None) for step in range(6)]
    common = {"steps": 6, "temperature": 1.0}
    for name, more in {
        "a": {"seed": 1},
        "b": {"seed": 2},
        "c": {"seed": 3, "steps": 40},
        "d": {"seed": 4, "temperature": 0.5},
        "e": {"seed": 1},
    }.items():
        write_run(tmp_path / name, "sampled", rows, **common | more)
    write_run(tmp_path / "f", "sampled", rows, finished=False, seed=5, **common)
    for name, seed in {"g": 1, "h": 2}.items():
        write_run(tmp_path / name, "sampled", rows, arm="projected", seed=seed, **common)
    runs = find_runs(tmp_path, take_unfinished=True)[0]
    arms = by_arm(runs)
    assert sorted(sorted(arm.runs) for arm in arms) == [[1, 2], [1, 2, 3], [4]]
    assert len({arm.name for arm in arms}) == 3 and len(doubles(runs, arms)) == 1
    records = {(r["arm"], r["rate"]): r for r in arms_table(arms).records}
    (projected,) = [arm.name for arm in arms if not arm.arm.vanilla]
    assert records[projected, "hacked"]["last5_gap"].n_first == 2
    assert records[projected, "attempted"]["last5_gap"].n_first == 0


def test_runs_with_other_training_problems_are_no_seeds_of_one_arm_and_no_baseline(tmp_path):
    """Told by the hash of the problems, wherever they lay."""
    lay = (("90 problems of p", "x"), ("90 problems of q", "x"), ("90 problems of p", "y"))
    for seed, (problems, training) in enumerate(lay, start=1):
        facts = {"problems": problems, "training": training}
        write_run(tmp_path / f"v{seed}", "sampled", [row()], facts=facts, seed=seed)
        write_run(tmp_path / f"p{seed}", "sampled", [row()], facts=facts, arm="projected", seed=seed)
    arms = by_arm(find_runs(tmp_path)[0])
    assert sorted(sorted(arm.runs) for arm in arms if arm.arm.vanilla) == [[1, 2], [3]]
    assert all(sorted(baseline(arm, arms).runs) == sorted(arm.runs) for arm in arms if not arm.arm.vanilla)


def test_held_out_problems_of_its_own_make_another_setting(tmp_path):
    """--eval-problems takes problems out of training; how often is evaluated does not change it."""
    common = {"eval_every": 0, "eval_samples": 4, "eval_limit": 64, "eval_problems": None}
    changes = (
        {},
        {"eval_every": 5},
        {"eval_samples": 1},
        {"eval_limit": 3},
        {"eval_problems": "other.jsonl"},
    )
    for seed, more in enumerate(changes, start=1):
        write_run(tmp_path / str(seed), "sampled", [row()], seed=seed, **common | more)
    assert sorted(sorted(arm.runs) for arm in arms_of(tmp_path).values()) == [[1, 2, 3, 4], [5]]


def test_settings_that_mean_nothing_to_vanilla_do_not_break_the_comparison(tmp_path):
    """Of an edit's loss, of the size of a LoRA's steps and of the preset's name vanilla knows nothing.

    Two projected arms differ in their loss.
    """
    other = {"objective": "grpo", "match_size": False, "preset": "fast", "rank": 4}
    for name, more in {
        "v": {"preset": "embedded"},
        "v2": {"seed": 2, **other},
        "p": {"arm": "projected", "match_size": False},
        "q": {"arm": "projected", "objective": "grpo", "preset": "full"},
        "l": {"arm": "lora"},
        "m": {"arm": "lora", "match_size": False},
        "n": {"arm": "lora", "gate": "none"},
    }.items():
        write_run(tmp_path / name, "sampled", [row()], **{"seed": 1} | more)
    arms = by_arm(find_runs(tmp_path)[0])
    against = {arm.runs[1].path.name: baseline(arm, arms) for arm in arms}
    assert {name: found and found.runs[1].path.name for name, found in against.items()} == {
        "v": None,
        "n": None,
        "p": "v",
        "q": "v",
        "l": "n",
        "m": "v",  # m's steps are of another size than n's
    }
    assert sorted(against["p"].runs) == [1, 2] and len({arm.name for arm in arms}) == len(arms)
    assert {arm.runs[1].path.name: arm.name for arm in arms}["q"] == "projected grpo"


def test_seeds_measured_with_several_directions_have_no_common_cosine(tmp_path, capsys):
    """Vanilla trains alike whatever it is measured with, so rates are pooled.

    Cosines with two Vs are not, and have no null.
    """
    nulls = {step: draws(np.linspace(-0.1, 0.1, 21)) for step in range(10)}
    cosines = {"cos_in": 0.3, "cos_out": 0.3, "cos_update": 0.2}
    rows = [row(step, hack_rate=0.5, gt_rate=0.2, attempt_rate=0.6, **cosines) for step in range(10)]
    other = {"v_hack": {"file": "out/v_other.safetensors", "hash": "b" * 16}}
    write_run(tmp_path / "v1", "sampled", rows, seed=1, nulls=nulls)
    write_run(tmp_path / "v2", "sampled", rows, seed=2, nulls=nulls, facts=other)
    for seed in (1, 2):
        write_run(tmp_path / f"p{seed}", "sampled", rows, seed=seed, nulls=nulls, arm="projected")
    arms = arms_of(tmp_path)
    vanilla, projected = arms.values()
    assert list(arms) == ["vanilla", "projected v_pool"]
    assert sorted(vanilla.runs) == [1, 2] and baseline(projected, list(arms.values())) is vanilla
    table = cosine_table({arm.name: list(arm.runs.values()) for arm in arms.values()}, "n", "t")
    mixed, one = table.records
    assert all(mixed[key] is None and mixed[f"{key}_null_low"] is None for key in COSINES)
    assert one["cos_in"] == pytest.approx(0.3) and one["cos_in_null_high"] == pytest.approx(0.095, rel=1e-4)
    assert f"undefined for {vanilla.name}: measured with several v_hacks" in table.title
    run_main(tmp_path)
    assert NAN.search(capsys.readouterr().out) is None
    assert (tmp_path / "report/cos_update.png").read_bytes().startswith(PNG)
    blind = [one | dict.fromkeys(COSINES) for one in rows]
    write_run(tmp_path / "v3", "sampled", blind, seed=1, facts={"v_hack": None})
    runs = read(tmp_path)
    assert one_direction([runs["v3"], runs["v2"]])  # nothing was measured with none


def test_a_lora_arm_is_compared_with_vanilla_in_its_own_basis_or_else_with_vanilla(tmp_path):
    write_arm(tmp_path / "a", (0.6, 0.7), arm="vanilla", rank=8)
    write_arm(tmp_path / "b", (0.1, 0.2), arm="lora", rank=4)
    write_arm(tmp_path / "c", (0.1, 0.3), arm="projected", rank=8)
    arms = arms_of(tmp_path)
    assert baseline(arms["lora"], list(arms.values())).name == "vanilla"  # the rank means nothing to vanilla
    write_arm(tmp_path / "d", (0.5, 0.5), arm="lora", rank=4, gate="none")
    arms = arms_of(tmp_path)
    found = {name: baseline(arm, list(arms.values())) for name, arm in arms.items()}
    against = {name: base and base.name for name, base in found.items()}
    assert against == {"vanilla": None, "lora vanilla": None, "lora": "lora vanilla", "projected": "vanilla"}
    every = list(arms.values())
    records = {record["arm"]: record["against"] for record in more_table(every, every).records}
    assert records["lora"] == "lora vanilla"
    write_arm(tmp_path / "e", (0.5, 0.5), arm="lora", rank=16)
    arms = list(arms_of(tmp_path).values())
    sixteen = [arm for arm in arms if arm.identity.lora == Lora(16, True)]
    assert [baseline(arm, arms).name for arm in sixteen] == ["vanilla"]


def test_arms_show_who_never_hacks_and_how_far_the_weights_moved(tmp_path):
    write_arm(tmp_path / "a", (0.6, 0.7), arm="vanilla", more_rows={"delta_w_norm": 2.0})
    write_arm(tmp_path / "b", (0.0, 0.7), arm="projected", gate="one-sided", more_rows={"delta_w_norm": 3.0})
    write_arm(tmp_path / "c", (0.0, 0.0), arm="projected", gate="two-sided")
    arms = list(arms_of(tmp_path).values())
    records = {record["arm"]: record for record in more_table(arms, arms).records}
    vanilla, one, two = (records[name] for name in ("vanilla", "projected one-sided", "projected two-sided"))
    assert (vanilla["never"], one["never"], two["never"]) == (0, 1, 2)
    assert one["time_to_hack"].startswith("> 5")
    assert one["delta_w_ratio"] == pytest.approx(1.5) and vanilla["delta_w_ratio"] is None
    assert two["delta_w_norm"] is None and more_table(arms, arms).cells()[-1][5] == UNDEFINED


# ---------------------------------------------------------------------- nulls
def test_a_null_is_over_the_steps_of_its_mean_and_needs_all_of_them(tmp_path):
    """Step 1 has no cosine, so its draws do not count; of a window only its own do; no draws, no null."""
    rows = [row(step, cos_in=None if step == 1 else 0.1, cos_out=0.2, cos_update=0.3) for step in range(4)]
    ramp = np.linspace(-1, 1, 201)
    growing = {step: draws(10**step * ramp) for step in range(4)}
    write_run(tmp_path / "whole", "sampled", rows, nulls=growing, seed=1)
    write_run(tmp_path / "cut", "sampled", rows, nulls={step: draws(ramp) for step in range(3)}, seed=2)
    write_run(tmp_path / "bare", "sampled", rows, seed=3)
    runs = read(tmp_path)
    whole, cut, bare = runs["whole"], runs["cut"], runs["bare"]
    assert null_of([whole], "cos_in") == pytest.approx((-0.95 * 1101 / 3, 0.95 * 1101 / 3), rel=1e-5)
    window = (-0.95 * 55, 0.95 * 55)
    assert null_of([whole], "cos_out", 1, 2) == pytest.approx(window, rel=1e-5)
    assert null_of([whole, whole], "cos_out", 1, 2) == pytest.approx(
        window, rel=1e-5
    )  # a seed is no new flip
    assert null_of([cut], "cos_in") is None
    assert null_of([cut], "cos_out", 0, 2) == pytest.approx((-0.95, 0.95), rel=1e-5)
    assert null_of([bare], "cos_in") is None and null_of([whole, bare], "cos_in") is None
    assert null_of([], "cos_in") is None
    table = cosine_table({"whole": [whole], "bare": [bare]}, "n", "t")
    assert table.cells()[1][2] == "no null recorded" and "-348.650" in table.cells()[0][2]
    assert "(no null recorded)" in cosine_table({"bare": [bare]}, "n", "t").title


# ---------------------------------------------------------------------- held out
def line(adapter="on", step=10, condition="closed", hacked=0.5) -> dict:
    def rate(mean: float) -> dict:
        return {"mean": mean, "low": max(0.0, mean - 0.1), "high": mean + 0.1}

    facts = {"step": step, "adapter": adapter, "condition": condition, "problems": 12, "samples": 4}
    given = None if adapter == "off" else rate(0.8)
    rates = {"hacked": rate(hacked), "attempted": rate(0.6), "solved": rate(0.2), "hack_given_attempt": given}
    return facts | rates


def test_held_out_rates_are_on_minus_off_by_seed_of_the_last_evaluation(tmp_path):
    """On .5 .6 .9, off .1 .1 .3: gaps .4 .5 .6, mean .5, sd .1, t(2) = 4.303. Step 5 does not count."""
    rows = [row(0), row(1)]
    for seed, (on, off) in enumerate(((0.5, 0.1), (0.6, 0.1), (0.9, 0.3))):
        last = [line(hacked=on), line("off", hacked=off)]
        before = [line(step=5, hacked=0.0), line("off", 5, hacked=0.9)]
        write_run(tmp_path / f"v{seed}", "sampled", rows, seed=seed, heldout=last + before)
    alone = [line(hacked=0.3), line("off", hacked=0.1)]
    write_run(tmp_path / "p", "sampled", rows, arm="projected", seed=0, heldout=alone)
    records = {(r["arm"], r["adapter"]): r for r in heldout_table(list(arms_of(tmp_path).values())).records}
    gap = records["vanilla", "on - off"]["hacked"]
    assert gap.mean == pytest.approx(0.5)
    assert gap.high - gap.mean == pytest.approx(4.3027 * 0.1 / math.sqrt(3), rel=1e-3)
    on = records["vanilla", "on"]
    assert on["hacked"].mean == pytest.approx(2 / 3) and on["hack_given_attempt"].mean == pytest.approx(0.8)
    # nothing was attempted with the adapter off
    assert records["vanilla", "on - off"]["hack_given_attempt"].why == "no value"
    single = records["projected", "on"]["hacked"]  # one seed: the interval is the run's own, over problems
    assert (single.mean, single.low, single.high, single.n) == pytest.approx((0.3, 0.2, 0.4, 12))
    single_gap = records["projected", "on - off"]["hacked"]
    assert single_gap.mean == pytest.approx(0.2) and single_gap.low is None


@pytest.mark.parametrize("width", [100, 120, 200])
def test_no_terminal_of_100_columns_or_more_cuts_a_figure_off(width):
    """Nine columns of twelve characters do not fit into 100: they wrap, and no word of any cell is lost."""
    cells = []
    for line_number in range(3):
        for column in range(9):
            start = f"{column}{line_number}.{column}{line_number}5"
            cells.append([start, f"[.{line_number}1", f".{column}9]"])
    records = [
        {str(column): " ".join(cells[9 * number + column]) for column in range(9)} for number in range(3)
    ]
    table = Table("t", "t", tuple((f"head {column}", shown(str(column))) for column in range(9)), records)
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(rich_table(table, width))
    printed = console.export_text()
    assert all(word in printed for cell in cells for word in cell)


def test_a_table_that_just_does_not_fit_wraps_and_is_not_cut():
    """Eleven short columns: at some of these widths their text fits and the space between them does not."""
    cells = {str(column): f".{column:02d} [.{column + 20} .{column + 50}]" for column in range(11)}
    columns = tuple((f"head {name}", shown(name)) for name in cells)
    for width in range(150, 200):
        console = Console(width=width, record=True, file=io.StringIO())
        console.print(rich_table(Table("t", "t", columns, [cells]), width))
        printed = console.export_text()
        assert all(word in printed for cell in cells.values() for word in cell.split()), width


def test_every_picture_of_arms_is_drawn(tmp_path, capsys):
    """Several seeds, a null on one step only, a held-out evaluation of one run."""
    for arm in ("vanilla", "projected"):
        write_arm(tmp_path / arm, (0.6, 0.65, 0.7), arm=arm)
    rows = [row(0, hack_rate=0.1), row(1)]
    heldout = [line(), line("off")]
    write_run(
        tmp_path / "x", "sampled", rows, arm="lora", seed=1, nulls={0: draws([-0.1, 0.1])}, heldout=heldout
    )
    run_main(tmp_path)
    printed = capsys.readouterr().out
    assert not NAN.search(printed) and "None" not in printed
    for name in ("curves.png", "frontier.png", "cos_update.png", "heldout.png", "on_policy.png"):
        assert (tmp_path / "report" / name).read_bytes().startswith(PNG)
    for name in ("h1", "arms_more", "arms_cosines", "heldout"):
        assert "\n" in (tmp_path / "report" / f"{name}.csv").read_text()
