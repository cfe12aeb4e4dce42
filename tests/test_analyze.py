"""Claims about analyze.py: the command line on made-up runs, and what it refuses."""

from __future__ import annotations

import csv
import gzip
import json
import math
import random
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from hackward.base.arms import FLAGS
from hackward.base.files import read_json, read_jsonl, write_json, write_jsonl
from hackward.reports import plots
from hackward.reports.arm_tables import window_tables
from hackward.reports.report import TABLE_NAMES
from hackward.reports.runs import find_runs
from hackward.reports.verification import Metric, judge_run
from hackward.reports.words import NOT_JUDGED, PASS
from tests.light import loaded
from tests.runs_on_disk import (
    NAN,
    PNG,
    csv_rows,
    draws,
    phase1_samples,
    refused,
    replay_rows,
    replay_samples,
    row,
    run_main,
    same_draws,
    sample,
    sampled_rows,
    write_everything,
    write_run,
)

ROOT = Path(__file__).resolve().parent.parent
# What one seed per arm, without controls, held-out evaluation and quality of v_hack, does not give rise to
SEEN = {"monitor_auc.png", "monitor_flags.png"}
ARMS = {
    "curves.png",
    "times_to_hack.png",
    "hacked.png",
    "hacked_by_arm.png",
    "frontier.png",
    "cos_update.png",
}
NEED_MORE = {"heldout.png", "heldout_frontier.png"} | ARMS | SEEN
TABLES_NEED_MORE = {"pools", "arms", "arms_cosines", "arms_more", "arms_verdict", "heldout", "h1_controls"}
TABLES_NEED_MORE |= {"arms_tests", "monitor", "arms_monitor", "directions"}


# ---------------------------------------------------------------------- the command
@pytest.fixture(scope="module")
def everything(tmp_path_factory) -> tuple[Path, str]:
    """The command line as a user types it, once; its output."""
    root = write_everything(tmp_path_factory.mktemp("runs"))
    command = [sys.executable, "analyze.py", str(root), "--window", "1", "2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return root, done.stdout


def test_the_command_prints_every_part(everything):
    _, printed = everything
    for part in (
        "Phase 1", "GRPO cosine: undefined", "on 8 of 8 steps", "cos_out < cos_in on 8 of 8 steps",
        "Verdict: PASS",
        "Phase 2", "Phase 3: decision rules", "GO: Phase 3 is justified",
        "On-policy", "never", "one seed: no interval", "cut_off: incomplete: no summary.json", "report.md",
    ):  # fmt: skip
        assert " ".join(part.split()) in " ".join(printed.split()), part
    assert printed.count("Cosines are with v_hack.") == 1  # the legend, once
    assert max(map(len, printed.splitlines())) <= 120 + len(str(everything[0])) and not NAN.search(printed)


def test_unfinished_runs_are_shown_on_request_and_marked(everything):
    finished, left_out = find_runs(everything[0])
    shown, left = find_runs(everything[0], take_unfinished=True)
    (extra,) = [run for run in shown if run.path not in {run.path for run in finished}]
    assert extra.path.name == "cut_off" and extra.label.endswith("(unfinished)") and len(extra.rows) == 3
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
    assert set(tables) == set(TABLE_NAMES) - TABLES_NEED_MORE
    assert not any(NAN.search(text) for text in tables.values())
    assert not list((root / "report").glob(".*"))  # no temporary file stays


def test_verification_has_four_rows_for_each_run_with_the_right_cosine(everything):
    runs, _ = find_runs(everything[0])
    judged = {run.label: judge_run(run) for run in runs if run.kind == "replay"}
    assert {label: [rows[metric].verdict for metric in Metric] for label, rows in judged.items()} == {
        "vanilla": [PASS, PASS, NOT_JUDGED, PASS],
        "projected grad": [PASS, NOT_JUDGED, PASS, PASS],
        "projected update": [PASS, NOT_JUDGED, PASS, PASS],
    }
    assert "-0.400" in judged["projected grad"][Metric.MECHANISM].why
    assert "-0.320" in judged["projected update"][Metric.MECHANISM].why


def test_help_and_faults_of_the_command_line_import_nothing_heavy(tmp_path):
    assert loaded("analyze.py", "--help") == (0, [])
    for flags in (
        [],
        ["--bogus"],
        [str(tmp_path), "--window=x"],
        [str(tmp_path / "absent")],
        [str(tmp_path)],
    ):
        assert loaded("analyze.py", *flags) == (2, []), flags
    asked = "import sys, analyze; print('pydantic' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", asked], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "False\n"


# ---------------------------------------------------------------------- refusals
def test_no_runs_or_none_with_a_step_is_refused(tmp_path, capsys):
    refused(tmp_path / "absent", capsys, "absent", "no such directory")
    refused(tmp_path, capsys, "no run directory")
    run = write_run(tmp_path / "cut", "sampled", [], finished=False)
    (run / "rows.jsonl").unlink()
    refused(tmp_path, capsys, str(run), "no summary.json")
    write_json(run / "summary.json", {"finished": False})
    refused(tmp_path, capsys, str(run), "not finished")
    write_json(run / "config.json", {"kind": "novel", "config": {}})
    refused(tmp_path, capsys, "unknown kind 'novel'")


def change_rows(path: Path, number: int, **fields) -> None:
    """Other fields in one row (from 1) of a .jsonl file; ... takes a field away."""
    rows = read_jsonl(path)
    kept = (rows[number - 1] | fields).items()
    rows[number - 1] = {key: value for key, value in kept if value is not ...}
    write_jsonl(path, rows)


def damage_config(run: Path) -> None:
    (run / "config.json").write_text('{"kind": ')


def damage_rows_lost(run: Path) -> None:
    write_jsonl(run / "rows.jsonl", read_jsonl(run / "rows.jsonl")[:-1])


def damage_cosines(run: Path) -> None:
    path = run / "step_003.cos.jsonl.gz"
    path.write_bytes(path.read_bytes()[:-20])


def damage_cosines_lost(run: Path) -> None:
    (run / "step_003.cos.jsonl.gz").unlink()


def with_facts(**facts):
    def damage(run: Path) -> None:
        write_json(run / "config.json", read_json(run / "config.json") | facts)

    return damage


def with_settings(**settings):
    def damage(run: Path) -> None:
        record = read_json(run / "config.json")
        write_json(run / "config.json", record | {"config": record["config"] | settings})

    return damage


def in_row(number: int, **fields):
    return lambda run: change_rows(run / "rows.jsonl", number, **fields)


def in_sample(number: int, **fields):
    return lambda run: change_rows(run / "step_003.cos.jsonl.gz", number, **fields)


QUALITY = {"pairs": 48, "right_sign": {"value": "x", "null": [0.3, 0.7], "p": 0.1}}
FULL_RANGE = {"value": 0.5, "null": [0.3, 0.7], "p": 0.1}


@pytest.mark.parametrize(
    ("damage", "parts"),
    [
        (damage_config, ("config.json", "not JSON")),
        (damage_rows_lost, ("rows.jsonl", "4 rows", "5 steps")),
        (damage_cosines, ("step_003.cos.jsonl.gz", "truncated")),
        (damage_cosines_lost, ("disagree on steps 3",)),
        (in_row(4, cos_in=...), ("rows.jsonl: row 4", "no field 'cos_in'")),
        (in_row(4, logp_gap=...), ("rows.jsonl: row 4", "no field 'logp_gap'")),
        (in_row(4, cos_in="0.3"), ("rows.jsonl: row 4: 'cos_in' must be a number or null, found '0.3'",)),
        (in_row(4, cos_in=True), ("rows.jsonl: row 4: 'cos_in' must be a number or null, found True",)),
        (in_row(2, step=0), ("rows.jsonl: row 2: 'step' is 0",)),
        (in_row(2, step=None), ("rows.jsonl: row 2: 'step' must be a whole number, found None",)),
        (in_row(3, advantages=[1.0, "x"]), ("row 3: 'advantages[1]' must be a number or null, found 'x'",)),
        (in_row(3, advantages=None), ("row 3: 'advantages' must be a list, found None",)),
        (in_row(1, cos_in_null=[0.1]), ("row 1: 'cos_in_null' must be two numbers",)),
        (in_row(1, cos_in_null=[0.1, 0.2, 0.3]), ("row 1: 'cos_in_null' must be two numbers",)),
        (in_row(1, cos_in_null=[0.1, "x"]), ("row 1: 'cos_in_null[1]' must be a number",)),
        (in_row(1, delta_w_norm="x"), ("row 1: 'delta_w_norm' must be a number or null",)),
        (in_sample(1, cos_S_logp=...), ("step_003.cos.jsonl.gz: row 1", "no field 'cos_S_logp'")),
        (in_sample(2, hacked=1), ("row 2: 'hacked' must be true, false or null, found 1",)),
        (in_sample(2, src_pool=None), ("row 2: 'src_pool' must be a string, found None",)),
        (with_facts(v_hack="file"), ("config.json: 'v_hack' must be an object, found 'file'",)),
        (with_facts(v_hack={"hash": 7}), ("config.json: 'v_hack.hash' must be a string, found 7",)),
        (with_facts(pools=[{"dir": "p"}]), ("config.json: no field 'pools[0].hash'",)),
        (
            with_facts(v_hack={"hash": "h", "heldout": QUALITY | {"auc": FULL_RANGE}}),
            ("config.json: 'v_hack.heldout.right_sign.value' must be a number or null, found 'x'",),
        ),
        (with_settings(arm="novel"), ("config.json: 'config.arm' must be one of " + ", ".join(FLAGS),)),
        (with_settings(lr=None), ("config.json: 'config.lr' must be a number, found None",)),
        (with_settings(seed=True), ("config.json: 'config.seed' must be a whole number, found True",)),
    ],
)
def test_damaged_files_are_named_and_nothing_is_written(tmp_path, capsys, damage, parts):
    dice = random.Random(1)
    run = write_run(tmp_path / "run", "replay", replay_rows(dice, 5), replay_samples(dice, 5))
    damage(run)
    refused(tmp_path, capsys, str(run), *parts)


def line(adapter: str = "on", **more) -> dict:
    rate = {"mean": 0.5, "low": 0.4, "high": 0.6}
    rates = dict.fromkeys(("hacked", "attempted", "solved", "hack_given_attempt"), rate)
    return (
        {"step": 10, "adapter": adapter, "condition": "closed", "problems": 12, "samples": 4} | rates | more
    )


def write_tensors(run: Path, tensors: dict) -> None:
    arrays = {key: np.asarray(values, dtype=np.float32) for key, values in tensors.items()}
    save_file(arrays, run / "nulls/step_001.safetensors")


@pytest.mark.parametrize(
    ("damage", "parts"),
    [
        (
            lambda run: (run / "nulls/step_001.safetensors").write_bytes(b"no"),
            ("step_001.safetensors", "not a readable"),
        ),
        (lambda run: write_tensors(run, {"cos_in": [0.0, 1.0]}), ("step_001.safetensors", "must hold")),
        (lambda run: write_tensors(run, draws([0.0, 1.0, 2.0])), ("step_001.safetensors", "as many draws")),
        (
            lambda run: write_jsonl(run / "eval.jsonl", [line(adapter="both")]),
            ("eval.jsonl: row 1", "'adapter' must be 'on' or 'off', found 'both'"),
        ),
        (
            lambda run: write_jsonl(run / "eval.jsonl", [line(), line(hacked=0.5)]),
            ("eval.jsonl: row 2", "'hacked' must be"),
        ),
        (lambda run: write_jsonl(run / "eval.jsonl", [{"step": 1}]), ("eval.jsonl: row 1", "'adapter'")),
        (with_facts(training=["h"]), ("config.json: 'training' must be a string, found ['h']",)),
        (
            lambda run: write_json(run / "summary.json", {"finished": True, "steps": 2}),
            ("summary.json: no field 'memory'",),
        ),
    ],
)
def test_damaged_nulls_and_evaluations_are_named_and_nothing_is_written(tmp_path, capsys, damage, parts):
    rows = [row(0, cos_in=0.1), row(1, cos_in=0.1)]
    nulls = {step: draws([0.0, 1.0]) for step in range(2)}
    run = write_run(tmp_path / "run", "sampled", rows, nulls=nulls)
    damage(run)
    refused(tmp_path, capsys, str(run), *parts)


def test_a_sampled_run_says_what_it_was_trained_on(tmp_path, capsys):
    run = write_run(tmp_path / "run", "sampled", [row()])
    record = read_json(run / "config.json")
    del record["training"]
    write_json(run / "config.json", record)
    refused(tmp_path, capsys, "config.json: no field 'training'")


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
    pictures = set(plots.NAMES) - NEED_MORE
    assert all((tmp_path / "report" / name).read_bytes().startswith(PNG) for name in pictures)


def test_numbers_that_are_not_finite_read_as_undefined_and_unknown_keys_as_nothing(tmp_path):
    rows = [row(0, cos_in=0.1, cos_in_null=[-0.1, 0.1], news=1), row(1, cos_in=0.2, kl=1.0)]
    path = write_run(tmp_path / "r", "sampled", rows, facts={"news": {"a": 1}}, news=2) / "rows.jsonl"
    text = path.read_text().replace("0.2", "Infinity").replace("[-0.1, 0.1]", "[-Infinity, 0.1]")
    path.write_text(text.replace('"kl": 1.0', '"kl": 1e999'))
    (run,), _ = find_runs(tmp_path)
    assert run.column("cos_in") == [0.1, None] and run.column("kl") == [None, None]
    assert run.column("cos_in_null") == [None, None] and "news" not in run.rows[0]
    assert run.config["news"] == 2  # a setting that reports do not know still tells runs apart


@pytest.mark.parametrize("shape", [(3, 41), (8, 40), (41,)])
def test_draws_that_do_not_fit_the_rollouts_are_refused(tmp_path, capsys, shape):
    dice = random.Random(1)
    run = with_rollout_draws(tmp_path / "run", "replay", replay_rows(dice, 2), replay_samples(dice, 2))
    tensors = {key: values.astype(np.float32) for key, values in same_draws(1, 0.1)[0].items()}
    tensors["cos_S_logp"] = np.zeros(shape, dtype=np.float16)
    save_file(tensors, run / "nulls/step_001.safetensors")
    refused(tmp_path, capsys, "step_001.safetensors", "a row for every rollout")


# ---------------------------------------------------------------------- what is written
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
        "on_policy_by_steps.csv",
        "on_policy_cosines.csv",
        "runs.csv",
        "cost.csv",
        "report.html",
        "report.md",
        "notes.txt",
    }
    assert "Left out" in capsys.readouterr().out


def test_what_a_run_cost_is_the_median_step_and_its_highest_memory(tmp_path):
    rows = sampled_rows(random.Random(2))[:3]
    for one, seconds in zip(rows, (3.0, 1.0, 8.0), strict=True):
        one |= {"seconds": seconds, "seconds_backward": seconds / 2, "seconds_grade": 0.0}
        one |= {"peak_memory_gb": 10 + seconds, "logp_gap": 0.01}
    path = write_run(tmp_path / "on", "sampled", rows)
    memory = {"sampling": 3.0, "backward": 18.0}
    write_json(path / "summary.json", {"finished": True, "steps": 3, "memory": memory})
    replayed = [one | {"logp_gap": None, "seconds_grade": None} for one in rows]
    write_run(tmp_path / "cpu", "sampled", replayed, seed=42)
    run_main(tmp_path)
    with open(tmp_path / "report/cost.csv", newline="") as stream:
        ours, other = sorted(csv.DictReader(stream), key=lambda record: record["run"])
    costs = [float(ours[key]) for key in ("step", "grading", "backward", "peak_gb", "gap")]
    assert costs == [3.0, 0.0, 1.5, 18.0, 0.01]
    assert ours["phases"] == "sampling 3.0, backward 18.0"
    assert (other["gap"], other["grading"], other["phases"]) == ("", "", "")


def with_rollout_draws(path: Path, kind: str, rows: list[dict], samples: list[dict], **settings) -> Path:
    """A run whose nulls hold 41 draws for every rollout of a step; NaN where the rollout has no cosine."""
    generator, nulls = np.random.default_rng(0), same_draws(len(rows), 0.1)
    for step, tensors in nulls.items():
        mine = [one for one in samples if one["step"] == step]
        scales = [math.nan if one["cos_S_logp"] is None else 0.1 for one in mine]
        tensors["cos_S_logp"] = np.stack([generator.normal(size=41) * scale for scale in scales])
    return write_run(path, kind, rows, samples, nulls=nulls, **settings)


def test_the_draws_of_rollouts_reach_the_tables_and_neither_csv_nor_picture(tmp_path, capsys):
    dice = random.Random(6)
    samples = replay_samples(dice, 4)
    samples[3] |= {"cos_S_logp": None, "cos_S_contrib": None}
    with_rollout_draws(tmp_path / "v", "replay", replay_rows(dice, 4), samples)
    for name, more in {
        "g": {},
        "p": {"project_at": "update"},
        "r": {"project_at": "update", "control": "sign-flip"},
    }.items():
        rows = replay_rows(dice, 4, projected=True)
        with_rollout_draws(tmp_path / name, "replay", rows, samples, arm="projected", **more)
    rows = [row(step, cos_in=0.6, cos_out=0.1) for step in range(8)]
    with_rollout_draws(tmp_path / "one", "phase1", rows, phase1_samples(dice))
    run_main(tmp_path)
    printed = capsys.readouterr().out
    assert "no null recorded" not in printed and not NAN.search(printed) and "None" not in printed
    assert max(map(len, printed.splitlines())) <= 120 + len(str(tmp_path))
    contributions = printed[printed.index("Contributions by") : printed.index("Phase 3: decision")]
    lines = contributions.splitlines()
    labels = [run.label for run in find_runs(tmp_path)[0] if run.kind == "replay"]
    assert len(labels) == 4 and all(any(label in one for one in lines) for label in labels)
    figures = re.compile(r"(contrib|logp) .*\[[+-]\S+, [+-]\S+\] +[+-]\S+ [+-]\S+ ")
    assert sum(bool(figures.search(one)) for one in lines) == 16  # one line a figure
    report = tmp_path / "report"
    (one,) = [r for r in csv_rows(report / "phase1_buckets.csv") if r["bucket"] == "pure hack"]
    assert float(one["null_low"]) < 0 < float(one["null_high"])
    texts = [path.read_text() for path in report.glob("phase*.csv")]
    assert not any("draws" in text or "dtype" in text for text in texts)
    for name in ("phase1.png", "cosines.png", "contributions.png", "labels.png"):
        assert (report / name).read_bytes().startswith(PNG)


def test_a_hundred_thousand_rollouts_read_in_seconds(tmp_path):
    """Checked as strictly as few: what is slow about a run must be the run."""
    rows, per_step = [row(step) for step in range(20)], 5000
    path = write_run(tmp_path / "big", "replay", rows)
    for step in range(20):
        text = "".join(json.dumps(sample(step=step, sample_id=i, problem=i)) + "\n" for i in range(per_step))
        (path / f"step_{step:03d}.cos.jsonl.gz").write_bytes(gzip.compress(text.encode(), compresslevel=1))
    started = time.process_time()
    (run,), _ = find_runs(tmp_path)
    assert len(run.samples) == 20 * per_step and time.process_time() - started < 15
