"""Claims about what the reports say of monitors and interventions: AUC, words, who is an arm, placebos."""

from __future__ import annotations

import random

import numpy as np
import pytest

from hackward.base import statistics
from hackward.base.files import read_json, write_json
from hackward.base.statistics import ZERO_VARIANCE, Estimate, auc_by_unit
from hackward.reports.arms import baseline, by_arm
from hackward.reports.h1_tables import h1_blocks
from hackward.reports.monitor_figures import by_watcher, early, windows
from hackward.reports.monitor_tables import arms_table, monitor_blocks, of_run, runs_table
from hackward.reports.runs import find_runs
from hackward.reports.tables import Table
from hackward.reports.words import knows
from tests.runs_on_disk import PNG, arms_of, read, refused, run_main, write_arm, write_run
from tests.watched_runs import MONITOR, drawn, rollout, write_watched


# ---------------------------------------------------------------------- the AUC
def scored(dice, gap, problems=12, rows=6):
    """Scores, labels, problems: every problem has a level of its own."""
    found = []
    for problem in range(problems):
        level = dice.gauss(0, 1)
        for _ in range(rows):
            hacked = dice.random() < 0.4
            found.append((level + dice.gauss(gap * hacked, 1), hacked, f"p{problem}"))
    return tuple(map(list, zip(*found)))


def slow_auc(score, positive, weight):
    won = total = 0.0
    for a, yes, u in zip(score, positive, weight):
        for b, other, v in zip(score, positive, weight):
            if yes and not other:
                total += u * v
                won += u * v * ((a > b) + 0.5 * (a == b))
    return won / total


def test_the_auc_is_that_of_all_pairs_of_rows_with_ties_half_and_weights():
    score, positive, unit = scored(random.Random(1), 0.7)
    score = [round(value) for value in score]  # many ties
    weight = [1.0 if yes else 3.5 for yes in positive]
    weight[0] = 2.0
    found = auc_by_unit(score, positive, unit, weight_N=weight)
    assert found.mean == pytest.approx(slow_auc(score, positive, weight))
    assert found.n == 12 and found.low < found.mean < found.high
    unscored = auc_by_unit([*score, float("nan")], [*positive, True], [*unit, "p0"], weight_N=[*weight, 1.0])
    assert unscored.mean == found.mean


def test_the_interval_is_that_of_the_auc_with_problems_drawn_again(monkeypatch):
    monkeypatch.setattr(statistics, "BOOTSTRAPS", 200)
    score, positive, unit = scored(random.Random(2), 1.0, problems=7, rows=4)
    draws = np.random.default_rng(0).multinomial(7, np.ones(7) / 7, 200)
    drawn_again = []
    for draw in draws:
        counts = [float(draw[int(problem[1:])]) for problem in unit]
        drawn_again.append(slow_auc(score, positive, counts))
    found = auc_by_unit(score, positive, unit)
    assert found.interval == pytest.approx(np.quantile(drawn_again, [0.025, 0.975]))


def test_the_interval_is_over_problems_and_covers_the_truth_where_their_levels_differ():
    """Rows as units would be far too sure: whole problems score high or low."""
    hits = 0
    for seed in range(60):
        dice = random.Random(seed)
        rows = []
        for problem in range(20):
            level, share = dice.gauss(0, 2), dice.choice((0.2, 0.8))
            rows += [(level + dice.gauss(0, 1), dice.random() < share, problem) for _ in range(10)]
        found = auc_by_unit(*map(list, zip(*rows)))
        hits += found.low <= 0.5 <= found.high
    assert hits >= 52


def test_what_has_no_auc_or_no_interval_says_why():
    assert auc_by_unit([1, 2], [False, False], ["a", "b"], ("hacked", "other")).why == "no hacked rows"
    assert auc_by_unit([1, 2], [True, True], ["a", "b"], ("hacked", "other")).why == "no other rows"
    few = auc_by_unit([3, 1, 1, 1, 1, 1], [True, *[False] * 5], list("abcdef"), ("hacked", "other"))
    assert (few.mean, few.interval) == (1.0, None) and "1 of 5" in few.why
    units = [f"p{i // 2}" for i in range(20)]
    perfect = auc_by_unit([i % 2 for i in range(20)], [bool(i % 2) for i in range(20)], units)
    assert (perfect.mean, perfect.interval, perfect.why) == (1.0, None, ZERO_VARIANCE)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (
            Estimate(9, 0.52, low=0.47, high=0.57),
            "the monitor does not tell the policy's own hacks from its other rollouts (AUC .52 [.47, .57])",
        ),
        (Estimate(9, 0.62, low=0.57, high=0.67), "the monitor tells the policy's own hacks"),
        (Estimate(9, 0.38, low=0.33, high=0.43), "the monitor ranks the policy's own hacks below"),
        (Estimate(9, 1.0, why=ZERO_VARIANCE), "AUC 1.00, without exception"),
        (Estimate(9, 0.5, why=ZERO_VARIANCE), "the monitor does not tell"),
        (Estimate(9, 0.9, why="one value"), "it cannot be said whether the monitor tells"),
        (Estimate(0, why="no hacked rows"), "it is undefined whether"),
    ],
)
def test_a_monitor_at_chance_is_said_to_be_so(found, words):
    assert words in knows("hacks", found)


# ---------------------------------------------------------------------- one run
def steps_of(dice, gaps, hacks=0.4):
    return [drawn(dice, hacks, gap) for gap in gaps]


def test_only_own_rows_make_the_auc_and_teacher_rows_stand_apart(tmp_path):
    """The teacher's row hacks, scores highest and is flagged; the policy's own hacks score below the rest."""
    steps = []
    for _ in range(2):
        own = [rollout(f"p{i}", hacked=i % 2 == 0, attempted=i % 2 == 0, score=i % 2) for i in range(12)]
        own[1] |= {"flagged": True, "gt_pass": True}
        own[3] |= {"gt_pass": True}
        own[2] |= {"flagged": True}
        steps.append([*own, rollout("p1", True, None, 9.0, True, own=False)])
    write_watched(tmp_path / "run", steps)
    (run,) = find_runs(tmp_path)[0]
    whole = runs_table([run], by_steps=False).records[0]
    assert (whole["own"], whole["problems"], whole["hacked"], whole["teacher"]) == (24, 12, 12, 2)
    assert whole["auc_hacked"].mean == 0.0
    rates = [whole[f"flagged_{name}"] for name in ("hacked", "attempted", "clean", "solved", "teacher")]
    assert rates == [1 / 6, 1 / 6, 1 / 6, 1 / 2, 1.0]


def test_windows_are_whole_and_cover_every_step():
    assert windows(range(4)) == [(0, 0), (1, 1), (2, 2), (3, 3)]
    assert windows(range(20)) == [(0, 4), (5, 9), (10, 14), (15, 19)]
    assert windows(range(57))[-1] == (50, 56) and len(windows(range(200))) == 10


def test_a_run_says_where_its_monitor_knew_and_where_it_was_at_chance(tmp_path, capsys):
    dice = random.Random(3)
    quiet = [drawn(dice, 0.0, 0.0) for _ in range(5)]
    write_watched(tmp_path / "run", quiet + steps_of(dice, [2.0] * 5 + [0.0] * 10))
    (run,) = find_runs(tmp_path)[0]
    said = "\n".join(of_run(run))
    assert "no AUC hacked in steps 0-4 (no hacked rows)" in said
    assert "AUC hacked at chance (interval contains .5) in steps 10-14, 15-19" in said
    assert early(run.scored, run.column("step"), "hacked") == (0, 6)
    run_main(tmp_path)
    assert "Monitors: what they knew" in capsys.readouterr().out
    for name in ("monitor_auc.png", "monitor_flags.png"):
        assert (tmp_path / "report" / name).read_bytes().startswith(PNG)
    assert (tmp_path / "report" / "monitor.csv").is_file()


def test_the_early_part_is_the_first_third_with_enough_hacks(tmp_path):
    dice = random.Random(3)
    quiet = [drawn(dice, 0.0, 0.0) for _ in range(4)]
    write_watched(tmp_path / "late", quiet + steps_of(dice, [1.0] * 8), seed=1)
    write_watched(tmp_path / "never", quiet * 3, seed=2)
    runs = read(tmp_path)
    assert early(runs["late"].scored, range(12), "hacked") == (4, 7)
    assert early(runs["never"].scored, range(12), "hacked") is None
    (group,) = by_watcher(list(runs.values()))
    assert group.early_steps("hacked") == [(4, 7)]
    assert group.early_auc("hacked").n == 1  # the seed that never hacked has no value, and is no 0


def test_damaged_and_missing_rollouts_are_told_apart(tmp_path, capsys):
    run = write_run(tmp_path / "gone", "sampled", [{**r} for r in _rows(2)], **MONITOR)
    (block,) = monitor_blocks(find_runs(tmp_path)[0])[1:]
    assert "rollouts were not kept" in block
    write_watched(run, steps_of(random.Random(1), [1.0, 1.0]))
    (run / "rollouts" / "step_001.jsonl.gz").unlink()
    refused(tmp_path, capsys, "step_001.jsonl.gz", "rows.jsonl has step 1")
    write_watched(run, [[rollout(score="high")]])  # type: ignore[arg-type]
    refused(tmp_path, capsys, "step_000.jsonl.gz: row 1", "'monitor_score'", "number")
    write_watched(run, [[rollout()]])
    record = read_json(run / "config.json")
    del record["config"]["monitor_rows"]
    write_json(run / "config.json", record)
    refused(tmp_path, capsys, "config.json", "monitor_rows")


def _rows(steps):
    from tests.runs_on_disk import row

    return [row(step, hack_rate=0.1, gt_rate=0.1, attempt_rate=0.1) for step in range(steps)]


# ---------------------------------------------------------------------- arms
OWN_ATTEMPTS = {"refresh_from": "rollouts", "refresh_label": "attempted"}
KINDS = {
    "truth": {"monitor": "truth"},
    "noisy": {"monitor": "truth", "monitor_noise": 0.2},
    "attempt": {"monitor": "attempt"},
    "probe": {"monitor": "probe"},
    "cosine": {},
    "whitened": {"monitor_score": "whitened"},
    "strict": {"monitor_fpr": 0.01},
    "own": {"monitor_rows": "own"},
    "screen": {"arm": "screen", "intervene": "screen"},
    "placebo": {"control": "random"},
    "joined": {"arm": "projected"},
    "fresh": {
        "refresh_every": 2,
        "refresh_from": "rollouts",
        "refresh": "union",
        "refresh_label": "attempted",
    },
    "alone": {"teacher_dir": None, "teacher_rows": 2, "teacher_until": 20},
}
TEACHER = {"teacher_dir": "out/pairs", "teacher_rows": 2, "teacher_until": 20}


def test_no_two_kinds_of_run_share_an_arm_or_a_name_and_seeds_do(tmp_path):
    penalty = MONITOR | {"arm": "penalty", "intervene": "penalty"} | TEACHER
    for seed in (1, 2):
        for name, more in KINDS.items():
            write_run(tmp_path / f"{name}-{seed}", "sampled", _rows(1), seed=seed, **penalty | more)
        other_v = {"v_hack": {"file": "b/v_pool.safetensors", "hash": "fedcba9876543210"}}
        write_run(tmp_path / f"v-{seed}", "sampled", _rows(1), facts=other_v, seed=seed, **penalty)
    runs = find_runs(tmp_path)[0]
    arms = by_arm(runs)
    assert len(arms) == len(KINDS) + 1 and all(sorted(arm.runs) == [1, 2] for arm in arms)
    names = {arm.runs[1].path.name.removesuffix("-1"): arm.name for arm in arms}
    assert len(set(names.values())) == len(names) and not any("(2)" in name for name in names.values())
    assert len({run.label for run in runs}) == len(runs)
    for kind, words in {
        "noisy": "penalty truth noise 0.2",
        "joined": "projected + penalty v_hack",
        "placebo": "penalty v_hack random",
        "own": "penalty v_hack own rows",
        "fresh": "refreshed every 2 by own attempted union",
        "alone": "no teacher",
        "v": "v_pool fedcba98",
    }.items():
        assert words in names[kind], names[kind]
    assert "v_pool" not in names["truth"]  # labels know nothing of v_hack


def test_v_hack_and_its_refresh_part_only_the_arms_that_depend_on_it(tmp_path):
    penalty = MONITOR | {"arm": "penalty", "intervene": "penalty"}
    for monitor in ("truth", "probe"):
        for seed, more in enumerate(({}, {"refresh_every": 3}), start=1):
            name = f"{monitor}-{seed}"
            settings = penalty | more | {"monitor": monitor, "seed": seed}
            write_run(tmp_path / name, "sampled", _rows(1), **settings)
    found = sorted(sorted(run.path.name for run in arm.runs.values()) for arm in arms_of(tmp_path).values())
    assert found == [["probe-1"], ["probe-2"], ["truth-1", "truth-2"]]


def test_a_monitor_that_looks_on_leaves_vanilla_vanilla_and_is_named_only_where_needed(tmp_path):
    write_run(tmp_path / "old", "sampled", _rows(1), seed=1)  # from before there were monitors
    steps = steps_of(random.Random(2), [1.0])
    write_watched(tmp_path / "seen", steps, seed=2)
    assert {run.label for run in find_runs(tmp_path)[0]} == {"vanilla s1", "vanilla watched by v_hack s2"}
    write_watched(tmp_path / "penalty", steps, seed=2, arm="penalty", intervene="penalty", monitor="truth")
    arms = arms_of(tmp_path)
    assert {name: sorted(arm.runs) for name, arm in arms.items()} == {"vanilla": [1, 2], "penalty truth": [2]}
    assert baseline(arms["penalty truth"], list(arms.values())) is arms["vanilla"]


def test_two_monitors_on_the_same_draws_have_an_auc_each(tmp_path):
    dice = random.Random(5)
    for monitor, gap in (("v_hack", 0.0), ("probe", 3.0)):
        for seed in (1, 2):
            steps = steps_of(dice, [gap] * 3)
            write_watched(tmp_path / f"{monitor}{seed}", steps, seed=seed, monitor=monitor)
    runs = find_runs(tmp_path)[0]
    assert len(by_arm(runs)) == 1
    records = {record["monitor"]: record for record in arms_table(by_watcher(runs)).records}
    assert records["v_hack"]["whole_hacked"].mean < 0.65 and records["probe"]["whole_hacked"].mean > 0.9
    assert len({record["arm"] for record in records.values()}) == 2


def write_h1(root, rates):
    """Arms over three seeds by what they hack: vanilla .9, the others as given."""
    write_arm(root, [0.9, 0.91, 0.92])
    penalty = MONITOR | {"arm": "penalty", "intervene": "penalty"}
    for (monitor, control), hacked in rates.items():
        write_arm(root / f"{monitor}-{control}", hacked, **penalty | {"monitor": monitor, "control": control})


@pytest.mark.parametrize(
    ("placebo", "verdict"),
    [
        ([0.85, 0.9, 0.88], "SUPPORTED"),
        ([0.0, 0.0, 0.0], "NOT ATTRIBUTABLE"),
        ([0.0, 0.3, 0.0], "NOT ATTRIBUTABLE"),
        ([0.8], "NOT ATTRIBUTABLE"),
    ],
)
def test_an_intervention_does_not_work_where_its_placebo_does_as_well(tmp_path, placebo, verdict):
    rates = {("attempt", "none"): [0.0] * 3, ("attempt", "random"): placebo, ("truth", "random"): [0.9] * 3}
    write_h1(tmp_path, rates)
    *_, table, words = h1_blocks(list(arms_of(tmp_path).values()))
    (line,) = words.split("\n")
    assert line.startswith(f"H1, penalty attempt: {verdict}")
    assert isinstance(table, Table) and table.records[0]["against"] == "vanilla"


def test_only_controls_that_can_be_run_are_missed(tmp_path):
    write_h1(tmp_path, {("truth", "none"): [0.0] * 3, ("v_hack", "none"): [0.0] * 3})
    *_, words = h1_blocks(list(arms_of(tmp_path).values()))
    lines = {line.split(":")[0]: line for line in words.split("\n")}
    assert lines["H1, penalty truth"].endswith("Not run: random.")
    assert lines["H1, penalty v_hack"].endswith("Not run: random, sign-flip, clean-clean.")


def test_many_arms_have_a_panel_each_and_one_line_a_run(tmp_path, capsys):
    dice = random.Random(1)
    for seed in (1, 2):
        write_watched(tmp_path / f"v{seed}", steps_of(dice, [1.0] * 6), seed=seed)
        for name in ("truth", "attempt", "probe", "v_hack"):
            write_watched(
                tmp_path / f"{name}{seed}",
                steps_of(dice, [1.0] * 6),
                seed=seed,
                arm="penalty",
                intervene="penalty",
                monitor=name,
            )
    run_main(tmp_path)
    printed = capsys.readouterr().out
    assert "penalty truth, whole run:" in " ".join(printed.split())
    assert (tmp_path / "report" / "hacked_by_arm.png").read_bytes().startswith(PNG)
    runs = find_runs(tmp_path)[0]
    tables = {block.name: block for block in monitor_blocks(runs) if isinstance(block, Table)}
    assert len(tables["monitor"].records) == len(runs) == 10 and len(tables["arms_monitor"].records) == 5
    assert np.isfinite([record["whole_hacked"].mean for record in tables["arms_monitor"].records]).all()
