"""Claims about finished runs of different lengths: what stops early, or goes on, misleads no reader."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

import analyze
from hackward.base.faults import InputError
from hackward.base.files import read_json, write_json
from hackward.reports import arm_plots, browser_curves, figures, panel_plots
from hackward.reports.arm_tables import arms_table, more_table, notes, sampled_blocks, window_tables
from hackward.reports.arms import by_arm, doubles, over_shared_steps, unique
from hackward.reports.brief import brief_lines
from hackward.reports.copies import copy_lines
from hackward.reports.h1_tables import control_records, judge_arm
from hackward.reports.monitor_figures import by_watcher
from hackward.reports.prevention_tables import prevention_blocks
from hackward.reports.runs import find_runs
from hackward.reports.tables import Caveat
from hackward.reports.words import DELAY, SUPPORTED
from hackward.runs.rundir import FREE
from tests.runs_on_disk import arms_of, read, refused, row, write_run
from tests.test_prevention import LATE, NEVER, SOON, closed, verdicts
from tests.watched_runs import rollout, write_watched

AFTER = 10  # of --stop-after-breakout
SHARED = "Over the steps that all runs of a seed have"


def write_rates(path: Path, hacked: list[float], **more: Any) -> Path:
    """A run with these hack rates, step by step; |Delta W| is the number of the step."""
    rows = []
    for step, rate in enumerate(hacked):
        rows.append(row(step, hack_rate=rate, gt_rate=0.5, attempt_rate=1.0, delta_w_norm=float(step)))
    return write_run(path, "sampled", rows, **more)


def write_until_breakout(root: Path, arm: str, begins: tuple[int | None, ...], stop: bool, steps: int = 60):
    """Per seed the first step that hacks (rate .5), or None; ``stop``: it ends AFTER steps behind that."""
    for seed, begin in enumerate(begins, start=1):
        rates = [0.5 if begin is not None and step >= begin else 0.0 for step in range(steps)]
        why = None
        if stop and begin is not None and begin + AFTER + 1 < steps:
            rates = rates[: begin + AFTER + 1]
            why = f"hacking broke out at step {begin} (--stop-after-breakout={AFTER})"
        heldout = [closed("on", 0.21 + 0.005 * (-1) ** seed), closed("off", 0.2)]
        settings = {"steps": steps, "stop_after_breakout": AFTER if stop else 0}
        write_rates(
            root / f"{arm}{seed}", rates, arm=arm, seed=seed, heldout=heldout, stopped=why, **settings
        )


def caveats(blocks: Any) -> list[str]:
    return [block for block in blocks if isinstance(block, Caveat)]


# ---------------------------------------------------------------------- which run counts
def test_whatever_a_run_may_change_when_it_goes_on_makes_no_other_arm(tmp_path):
    """As a run does that is gone on with without its --track."""
    for seed in (0, 1):
        write_rates(tmp_path / f"{seed}", [0.0] * 4, seed=seed, **dict.fromkeys(FREE, seed))
    (arm,) = arms_of(tmp_path).values()
    assert list(arm.runs) == [0, 1]


def test_of_two_runs_with_the_same_settings_and_seed_the_longer_one_counts(tmp_path):
    write_rates(tmp_path / "a", [0.0] * 4, steps=4)
    write_rates(tmp_path / "b", [0.0] * 6, steps=9, stop_after_breakout=2)
    write_rates(tmp_path / "c", [0.0] * 5, steps=5)
    runs = find_runs(tmp_path)[0]
    (arm,) = by_arm(runs)
    assert [run.path.name for run in arm.runs.values()] == ["b"]
    assert [run.path.name for run in unique(runs)] == ["b"]
    labels = {run.path.name: run.label for run in runs}
    assert doubles(runs, [arm]) == [labels["a"], labels["c"]]
    a, b, c = (labels[name] for name in "abc")
    (said,) = copy_lines(runs)
    assert f"{a} is a copy of the first 4 steps of {b}, {c} is a copy of the first 5 steps of {b}" in said


def test_a_finished_run_counts_rather_than_a_longer_one_that_was_cut_off(tmp_path):
    write_rates(tmp_path / "a", [0.0] * 8, steps=9, finished=False)
    write_rates(tmp_path / "b", [0.0] * 6, steps=6)
    runs = find_runs(tmp_path, take_unfinished=True)[0]
    assert [run.path.name for run in unique(runs)] == [run.path.name for run in unique(runs[::-1])] == ["b"]


def test_of_two_watched_runs_with_the_same_settings_and_seed_the_longer_one_counts(tmp_path):
    for name, steps in {"a": 3, "b": 5}.items():
        write_watched(tmp_path / name, [[rollout("p0")]] * steps, stop_after_breakout=steps)
    (group,) = by_watcher(find_runs(tmp_path)[0])
    assert [len(run.rows) for run in group.runs.values()] == [5]


# ---------------------------------------------------------------------- rates over the same steps
def write_uneven(root: Path) -> None:
    """Vanilla's seed 1 stopped after step 11, where projected hacks least; in seed 2 the placebo is shortest.

    Hacked in the last 5 steps that all have: vanilla .5 .6, projected .1 .2, random .4 .5.
    """
    held = {"steps": 20}
    write_rates(root / "v1", [0.0] * 7 + [0.5] * 5, seed=1, stopped="hacking broke out", **held)
    write_rates(root / "v2", [0.0] * 10 + [0.6] * 10, seed=2, **held)
    projected = {"arm": "projected", "steps": 20}
    write_rates(root / "p1", [0.0] * 7 + [0.1] * 5 + [0.9] * 8, seed=1, **projected)
    write_rates(root / "p2", [0.0] * 10 + [0.2] * 5 + [0.9] * 5, seed=2, **projected)
    placebo = {"arm": "projected", "control": "random"}
    write_rates(root / "r1", [0.0] * 7 + [0.4] * 5 + [0.0] * 18, seed=1, steps=30, **placebo)
    write_rates(root / "r2", [0.0] * 10 + [0.5] * 5, seed=2, steps=15, **placebo)


def test_arms_are_compared_over_the_steps_that_all_runs_of_a_seed_have(tmp_path):
    """Twelve steps in seed 1, fifteen in seed 2: gaps of the last five -.4 -.4, of all -.4 x 5/12 -.4 x 5/15.

    Over whole runs projected hacks .4 more in seed 1 and .3 more in seed 2.
    """
    write_uneven(tmp_path)
    arms = list(arms_of(tmp_path).values())
    shared = over_shared_steps(arms)
    records = {(record["arm"], record["rate"]): record for record in arms_table(shared).records}
    hacked = records["projected", "hacked"]
    assert hacked["last5_gap"].difference == pytest.approx(-0.4)
    assert hacked["area_gap"].difference == pytest.approx(-0.4 * (5 / 12 + 5 / 15) / 2)
    assert hacked["last5"].mean == pytest.approx(0.15) and hacked["area"].mean == pytest.approx(
        (0.5 / 12 + 1.0 / 15) / 2
    )
    found = {arm.name: arm for arm in shared}
    h1 = judge_arm(found["projected"], shared)
    assert h1.verdict == SUPPORTED and h1.hacked.mean == pytest.approx(-0.4)
    (control,) = control_records(found["projected"], shared)
    assert control["gap"].mean == pytest.approx(-0.3) and control["drop"].mean == pytest.approx(-0.1)


def test_times_to_hack_are_of_whole_runs_and_the_size_of_the_change_after_the_same_step(tmp_path):
    """Projected's seed 1 first has a three-step mean above .1 at step 12, one behind vanilla's last.

    Seed 2 has one at 11.
    """
    write_uneven(tmp_path)
    arms = list(arms_of(tmp_path).values())
    records = {record["arm"]: record for record in more_table(arms, over_shared_steps(arms)).records}
    projected = records["projected"]
    assert projected["time_to_hack"] == "11.5 (11 to 12)" and projected["never"] == 0
    assert (projected["delta_w_low"], projected["delta_w_high"]) == (11, 14)
    assert projected["delta_w_ratio"] == pytest.approx(1)


def test_runs_of_other_settings_take_no_steps_away(tmp_path):
    write_uneven(tmp_path)
    write_rates(tmp_path / "x", [0.0] * 3, seed=1, lr=1.0)
    lengths = {arm.name: [len(run.rows) for run in arm.runs.values()] for arm in shared_of(tmp_path)}
    assert sorted(lengths.values()) == [[3], [12, 15], [12, 15], [12, 15]]


def shared_of(root: Path):
    return over_shared_steps(list(arms_of(root).values()))


def test_a_caveat_says_what_is_over_how_many_steps_by_seed(tmp_path):
    write_uneven(tmp_path)
    blocks = sampled_blocks(find_runs(tmp_path)[0], None)
    (said,) = [caveat for caveat in caveats(blocks) if SHARED in caveat]
    assert said.startswith("Runs differ in length (12 to 30 steps).\n")
    assert f"{SHARED}, 12 (seed 1), 15 (seed 2): arms over seeds, last |Delta W|, solves as much," in said
    assert "H1 and its controls" in said and "overlap" not in said
    assert "an arm that only delays hacking may look like one that prevents it" in said
    (table,) = [block for block in blocks if getattr(block, "name", "") == "arms"]
    assert "area: mean over shared steps" in table.title
    gaps = {(record["arm"], record["rate"]): record["last5_gap"] for record in table.records}
    assert gaps["projected", "hacked"].difference == pytest.approx(-0.4)
    (h1,) = [block for block in blocks if getattr(block, "name", "") == "h1"]
    assert h1.records[0]["hacked"].mean == pytest.approx(-0.4)


def test_nothing_is_said_or_cut_where_runs_of_a_setting_are_as_long_as_one_another(tmp_path):
    """Those of another setting may have another length."""
    for lr, steps in ((1e-3, 12), (1e-2, 20)):
        for seed in (1, 2):
            for arm in ("vanilla", "projected"):
                rates = [0.0] * (steps - 5) + [0.5] * 5
                write_rates(tmp_path / f"{arm}{lr}{seed}", rates, arm=arm, seed=seed, lr=lr)
    arms = list(arms_of(tmp_path).values())
    for arm, cut in zip(arms, over_shared_steps(arms), strict=True):
        assert [run.rows for run in cut.runs.values()] == [run.rows for run in arm.runs.values()]
    blocks = sampled_blocks(find_runs(tmp_path)[0], None)
    said = "\n".join(caveats(blocks))
    assert not any(words in said for words in ("differ in length", SHARED, "topped early", "watched alike"))
    (table,) = [block for block in blocks if getattr(block, "name", "") == "arms"]
    assert "mean over all steps" in table.title


# ---------------------------------------------------------------------- prevention or delay
@pytest.mark.parametrize("later", [LATE, NEVER])
def test_runs_that_stop_after_their_breakout_change_no_time_no_test_and_no_verdict(tmp_path, later):
    found = []
    for stop in (False, True):
        write_until_breakout(tmp_path / str(stop), "vanilla", SOON, stop)
        write_until_breakout(tmp_path / str(stop), "projected", later, stop)
        ends, tests, _ = verdicts(tmp_path / str(stop))
        times = {name: (end["breakouts"], end["restricted_mean"], end["until"]) for name, end in ends.items()}
        found.append((times, tests, ends["projected"]["verdict"]))
    assert found[0] == found[1]
    assert later is NEVER or found[1][2] == DELAY


@pytest.mark.parametrize(
    ("projected", "steps", "until", "mean"),
    [
        ((30, None), 60, 59, (30 + 59) / 2),  # vanilla ends at 16: what came of it is known for good
        ((30, 35), 60, 45, (30 + 35) / 2),  # all broke out: the last end of all
        ((30, None), 40, 39, (30 + 39) / 2),
    ],
)
def test_the_restricted_mean_goes_as_far_as_it_is_known_of_every_run_by_hand(
    tmp_path, projected, steps, until, mean
):
    write_until_breakout(tmp_path, "vanilla", (5, 6), stop=True)
    write_until_breakout(tmp_path, "projected", projected, stop=True, steps=steps)
    ends, _, _ = verdicts(tmp_path)
    assert {end["until"] for end in ends.values()} == {until}
    assert ends["vanilla"]["restricted_mean"] == pytest.approx(5.5)
    assert ends["projected"]["restricted_mean"] == pytest.approx(mean)


def test_a_caveat_names_the_arms_whose_runs_stopped_and_how_many(tmp_path):
    write_until_breakout(tmp_path, "vanilla", SOON, stop=True)
    write_until_breakout(tmp_path, "projected", (20, 30, 48, 55, None), stop=True)
    (said,) = caveats(prevention_blocks(list(arms_of(tmp_path).values())))
    counts = (
        "(vanilla: 5 of 5 runs ended 10 steps after their breakout; projected: 3 of 5 runs ended 10 steps"
    )
    assert "Hacked at the end is over each run's own last steps" in said and counts in said


def test_runs_that_held_out_for_different_lengths_are_said_to_be_watched_for_different_lengths(tmp_path):
    write_until_breakout(tmp_path, "vanilla", SOON, stop=False)
    write_until_breakout(tmp_path, "projected", NEVER, stop=False)
    assert caveats(prevention_blocks(list(arms_of(tmp_path).values()))) == []
    write_rates(tmp_path / "projected5", [0.0] * 40, arm="projected", seed=5)
    (said,) = caveats(prevention_blocks(list(arms_of(tmp_path).values())))
    assert "projected and its vanilla: runs without a breakout end at different steps (39 to 59)" in said


# ---------------------------------------------------------------------- --window
def test_a_run_that_stopped_before_the_window_is_left_out_and_named(tmp_path):
    write_rates(tmp_path / "a", [0.0] * 5 + [0.5] * 5, seed=1, stopped="hacking broke out")
    write_rates(tmp_path / "b", [0.0] * 10 + [0.4] * 5 + [0.6] * 5, seed=2)
    runs = find_runs(tmp_path)[0]
    rates, cosines, said = window_tables(runs, 5, 14)
    assert [record["seed"] for record in rates.records] == [2] and len(cosines.records) == 1
    assert rates.records[0]["hack_rate"] == pytest.approx(0.2)
    assert isinstance(said, Caveat) and said.endswith("not in the means over steps 5 to 14: vanilla s1.")
    assert len(window_tables(runs, 0, 9)) == 2
    with pytest.raises(InputError, match="--window 5 25: .*/a has the steps 0 to 9"):
        window_tables(runs, 5, 25)


def test_a_window_is_refused_where_a_run_that_did_not_stop_early_lacks_steps(tmp_path):
    write_rates(tmp_path / "a", [0.0] * 10, seed=1)
    write_rates(tmp_path / "b", [0.0] * 20, seed=2)
    with pytest.raises(InputError, match="--window 5 14: .*/a has the steps 0 to 9"):
        window_tables(find_runs(tmp_path)[0], 5, 14)


# ---------------------------------------------------------------------- pictures
@pytest.fixture
def drawn(monkeypatch) -> list[Figure]:
    kept: list[Figure] = []
    monkeypatch.setattr(figures, "save", lambda figure, path: kept.append(figure))
    return kept


def ends_of(axes: Any, thick: bool) -> list[int]:
    """The last step of each curve of an axes, thick or thin."""
    lines = [line for line in axes.get_lines() if len(line.get_xdata()) > 2]
    return sorted(int(line.get_xdata()[-1]) for line in lines if (line.get_linewidth() > 1) is thick)


@pytest.fixture
def ragged(tmp_path):
    """Vanilla: seeds of 8, 12 and 20 steps."""
    for seed, steps in enumerate((8, 12, 20), start=1):
        write_rates(tmp_path / f"v{seed}", [0.3 * seed] * steps, seed=seed)
    return list(arms_of(tmp_path).values())


@pytest.mark.parametrize("draw", [arm_plots.curves, arm_plots.hacked, panel_plots.hacked_by_arm])
def test_a_mean_over_seeds_ends_with_its_shortest_run_and_each_seed_at_its_own_end(ragged, drawn, draw):
    draw(Path("x.png"), ragged)
    (picture,) = drawn
    axes = picture.axes[0]
    assert ends_of(axes, thick=True) == [7]
    assert ends_of(axes, thick=False)[-2:] == [11, 19]
    (mean,) = [line for line in axes.get_lines() if line.get_linewidth() > 1]
    assert mean.get_ydata()[-1] == pytest.approx(0.6)


def test_the_curves_of_the_page_do_the_same_and_its_words_are_of_each_run_s_last_step(ragged):
    runs = list(ragged[0].runs.values())
    axes = Figure().subplots()
    browser_curves._curve(axes, 0, runs, "hack_rate")
    assert ends_of(axes, thick=True) == [7] and ends_of(axes, thick=False) == [11, 19]
    (thick,) = [line for line in axes.get_lines() if line.get_linewidth() > 1]
    assert np.nanmax(thick.get_ydata()) == pytest.approx(0.6)
    panels, _ = browser_curves.rate_panels(runs)
    assert "At the last step of each run: vanilla (3 seeds) 0.60" in panels[0].words
    same, _ = browser_curves.rate_panels(runs[:1])
    assert "At the last step: " in same[0].words


def test_no_thin_ends_where_all_seeds_are_as_long(ragged, drawn):
    (arm,) = over_shared_steps(ragged)
    runs = list(arm.runs.values())[:1]
    assert figures.own_ends(runs, "hack_rate") == []
    assert [steps[0] for steps, _ in figures.own_ends(list(arm.runs.values()), "hack_rate")] == [7, 7]


def test_hacked_against_solved_is_drawn_over_the_shared_steps(tmp_path, drawn):
    write_uneven(tmp_path)
    arms = list(arms_of(tmp_path).values())
    arm_plots.frontier(Path("x.png"), arms)
    (picture,) = drawn
    (axes,) = picture.axes
    across = {bars.get_label(): bars.lines[0].get_xdata()[0] for bars in axes.containers}
    assert across["vanilla (2)"] == pytest.approx(0.55) and across["projected (2)"] == pytest.approx(0.15)


# ---------------------------------------------------------------------- what is read and said
def test_why_a_run_stopped_is_read_and_said_below_the_runs_and_in_brief(tmp_path):
    write_until_breakout(tmp_path, "vanilla", (5, None, 7), stop=True)
    runs = read(tmp_path)
    why = "hacking broke out at step 5 (--stop-after-breakout=10)"
    assert runs["vanilla1"].stopped == why and runs["vanilla2"].stopped is None
    arms = list(arms_of(tmp_path).values())
    below = notes(list(runs.values()), arms)
    assert "Stopped early: vanilla s1, vanilla s3: hacking broke out (--stop-after-breakout=10)." in below
    said = brief_lines(arms)
    assert said[0].startswith("vanilla (3 seeds, 16 to 60 steps): ")
    assert any(
        line.startswith("Runs differ in length, and the last 5 steps are each run's own") for line in said
    )
    assert "Stopped early: vanilla: 2 of 3 runs ended 10 steps after their breakout." in said


def test_an_arm_of_which_all_seeds_stopped_is_named_once(tmp_path):
    write_until_breakout(tmp_path, "vanilla", (5, 9, 7), stop=True)
    write_until_breakout(tmp_path, "projected", (None, 6, None), stop=True)
    arms = arms_of(tmp_path)
    below = notes(list(read(tmp_path).values()), list(arms.values()))
    said = "vanilla (all 3 seeds), projected s2: hacking broke out (--stop-after-breakout=10)."
    assert f"Stopped early: {said}" in below


def test_runs_of_one_length_that_did_not_stop_are_told_as_before(tmp_path):
    write_until_breakout(tmp_path, "vanilla", (5, None), stop=False)
    assert len(brief_lines(list(arms_of(tmp_path).values()))) == 2
    assert "Stopped" not in notes(list(read(tmp_path).values()), [])


def test_a_reason_that_is_no_text_is_refused(tmp_path, capsys):
    path = write_rates(tmp_path / "a", [0.0] * 3)
    write_json(path / "summary.json", read_json(path / "summary.json") | {"stopped": None})
    assert read(tmp_path)["a"].stopped is None
    write_json(path / "summary.json", read_json(path / "summary.json") | {"stopped": True})
    refused(tmp_path, capsys, "summary.json", "stopped")


def test_the_whole_report_is_written_of_runs_that_stopped(tmp_path, capsys):
    write_until_breakout(tmp_path, "vanilla", (5, 6), stop=True)
    write_until_breakout(tmp_path, "projected", (20, None), stop=True)
    analyze.main(analyze.AnalyzeFlags(tmp_path, window=(0, 20)))
    report = (tmp_path / "report" / "report.md").read_text()
    for words in (
        SHARED,
        "16 (seed 1), 17 (seed 2)",
        "Stopped early, so not in the means over steps 0 to 20",
    ):
        assert words in report
    page = (tmp_path / "report" / "report.html").read_text()
    assert SHARED in page and "own last steps" in page


def test_every_seed_has_a_dot_when_it_broke_out_and_a_hollow_one_where_it_held_out(tmp_path, drawn):
    write_rates(tmp_path / "v1", [0.0, 0.0, 0.4, 0.5], seed=1)  # 3-step mean above 0.1 at step 2
    write_rates(tmp_path / "v2", [0.0, 0.0, 0.0, 0.0, 0.4], seed=2)  # at step 4
    write_rates(tmp_path / "p1", [0.0] * 9, seed=1, arm="projected")  # not by its last step, 8
    arm_plots.times_to_hack(Path("x.png"), list(arms_of(tmp_path).values()))
    (axes,) = drawn[0].axes
    dots = {}
    for mark in axes.get_lines():
        if mark.get_marker() not in ("None", None, ""):
            place = (float(mark.get_xdata()[0]), round(float(mark.get_ydata()[0]), 2))
            dots[place] = mark.get_markerfacecolor() != "white"
    assert dots == {(2.0, 0.28): True, (4.0, -0.28): True, (8.0, -0.72): False}
    assert [label.get_text() for label in axes.get_yticklabels()] == ["vanilla", "projected"]


def test_names_of_any_length_leave_the_times_to_hack_their_room_and_an_arm_without_one_says_so(
    tmp_path, drawn
):
    write_rates(tmp_path / "v1", [0.4] * 9, seed=1)
    write_rates(tmp_path / "p1", [0.4] * 2, seed=1, arm="projected")
    arms = [replace(arm, name=f"{arm.name} {'v_hack_of_' * 15}") for arm in arms_of(tmp_path).values()]
    arm_plots.times_to_hack(Path("x.png"), arms)
    (axes,) = drawn[0].axes
    drawn[0].draw_without_rendering()
    assert axes.get_position().width > 0.5
    assert all(label.get_window_extent().x0 >= 0 for label in axes.get_yticklabels())
    names = [label.get_text().replace("\n", " ") for label in axes.get_yticklabels()]
    assert [name.endswith("(undefined)") for name in names] == [False, True]
    assert axes.get_ylim() == (-1.5, 0.5)
