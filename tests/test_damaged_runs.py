"""Records that are impossible or disagree are refused by analyze.py, by file and fault; a report is whole or
not there."""

from __future__ import annotations

import random

import pytest

import analyze
from hackward.base.checksums import Checksums
from hackward.base.faults import InputError
from hackward.base.files import read_json, read_jsonl, write_json, write_jsonl
from hackward.reports import report
from tests.runs_on_disk import read, refused, replay_rows, replay_samples, run_main, sampled_rows, write_run


def row_with(**fields):
    def damage(run):
        rows = read_jsonl(run / "rows.jsonl")
        rows[2] |= fields
        write_jsonl(run / "rows.jsonl", rows)

    return damage


def setting(**settings):
    def damage(run):
        record = read_json(run / "config.json")
        write_json(run / "config.json", record | {"config": record["config"] | settings})

    return damage


def same_sample_twice(run):
    rows = read_jsonl(run / "step_003.cos.jsonl.gz")
    rows[1]["sample_id"] = rows[0]["sample_id"]
    write_jsonl(run / "step_003.cos.jsonl.gz", rows)


def directory(name):
    return lambda run: (run / name).mkdir(parents=True)


def thousands_of_digits(run):
    text = (run / "config.json").read_text()
    (run / "config.json").write_text(text.replace('"seed": 41', '"seed": ' + "9" * 5000))


@pytest.mark.parametrize(
    ("damage", "parts"),
    [
        (
            row_with(arm="projected"),
            ("rows.jsonl: row 3: 'arm' is 'projected', but config.json says 'vanilla'",),
        ),
        (row_with(seed=7), ("rows.jsonl: row 3: 'seed' is 7, but config.json says 41",)),
        (row_with(cos_in=1e308), ("row 3: 'cos_in' must be less than or equal to 1.001",)),
        (row_with(cos_out=-1.2), ("row 3: 'cos_out' must be greater than or equal to -1.001",)),
        (row_with(hack_rate=1.5), ("row 3: 'hack_rate' must be less than",)),
        (row_with(gt_rate=-0.5), ("row 3: 'gt_rate' must be greater than",)),
        (row_with(reward_mean=1e300), ("row 3: 'reward_mean' must be less than",)),
        (row_with(advantages=[]), ("row 3: 'advantages' must be a list with at least one entry",)),
        (setting(gate="maybe"), ("config.json: 'config.gate' must be",)),
        (setting(control="novel"), ("config.json: 'config.control' must be",)),
        (setting(project_at="nowhere"), ("config.json: 'config.project_at' must be",)),
        (same_sample_twice, ("step_003.cos.jsonl.gz: row 2: 'sample_id' 0 comes twice in step 3",)),
        (directory("nulls/step_001.safetensors"), ("step_001.safetensors", "not a readable")),
        (directory("eval.jsonl"), ("eval.jsonl: cannot be read",)),
        (thousands_of_digits, ("config.json: not JSON (Exceeds the limit",)),
        (lambda run: (run / "config.json").write_text("[1]"), ("config.json holds no object",)),
        (lambda run: (run / "config.json").write_text("null"), ("config.json holds no object",)),
    ],
)
def test_impossible_and_disagreeing_records_are_refused(tmp_path, capsys, damage, parts):
    dice = random.Random(1)
    run = write_run(tmp_path / "run", "replay", replay_rows(dice, 5), replay_samples(dice, 5))
    damage(run)
    refused(tmp_path, capsys, str(run), *parts)


def test_a_cosine_may_be_rounded_beyond_one(tmp_path):
    dice = random.Random(1)
    write_run(tmp_path / "run", "replay", replay_rows(dice, 5), replay_samples(dice, 5))
    row_with(cos_in=1.0005)(tmp_path / "run")
    assert read(tmp_path)["run"].rows[2]["cos_in"] == 1.0005


@pytest.mark.parametrize("window", [(5, 2), (-5, 3), (0, 100_000), (20, 30)])
def test_a_window_outside_of_a_run_s_steps_is_refused(tmp_path, window):
    write_run(tmp_path / "run", "sampled", sampled_rows(random.Random(0)))
    with pytest.raises(InputError, match=f"--window {window[0]} {window[1]}: "):
        analyze.main(analyze.AnalyzeFlags(tmp_path, window=window))
    assert not (tmp_path / "report").exists()


def test_an_old_report_stays_until_the_new_one_is_whole(tmp_path, monkeypatch):
    write_run(tmp_path / "run", "sampled", sampled_rows(random.Random(0)))
    home = tmp_path / "report"
    home.mkdir()
    for name in ("report.md", "phase1_tests.csv", "notes.txt"):
        (home / name).write_text("old")

    def broken(*arguments):
        raise RuntimeError("no picture")

    with monkeypatch.context() as patch:
        patch.setattr(report, "draw_all", broken)
        with pytest.raises(RuntimeError, match="no picture"):
            run_main(tmp_path)
    assert {path.name: path.read_text() for path in home.iterdir()} == dict.fromkeys(
        ("report.md", "phase1_tests.csv", "notes.txt"), "old"
    )
    run_main(tmp_path)
    assert (home / "notes.txt").read_text() == "old" and not (home / "phase1_tests.csv").exists()
    assert (home / "report.md").read_text().startswith("# Report")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report", "run"]


def test_text_that_utf_8_cannot_carry_is_escaped(tmp_path, capsys):
    run = write_run(
        tmp_path / "run\udcff",
        "replay",
        replay_rows(random.Random(1), 2),
        replay_samples(random.Random(1), 2),
    )
    write_run(tmp_path / "left\udcff", "sampled", sampled_rows(random.Random(0)), finished=False)
    run_main(tmp_path)
    assert "left\\udcff: incomplete" in (tmp_path / "report" / "report.md").read_text()
    facts = {"warning": "w\ud800", "model": {"name": "m\ud800"}}
    write_json(run / "config.json", read_json(run / "config.json") | facts)
    write_run(
        tmp_path / "other", "replay", replay_rows(random.Random(2), 2), replay_samples(random.Random(1), 2)
    )
    run_main(tmp_path)
    assert "w\\ud800" in (tmp_path / "report" / "report.md").read_text()
    assert "m\\ud800" in (tmp_path / "report" / "runs.csv").read_text()
    assert "m\\ud800" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("summary.json", {"finished": None}),
        ("config.json", {"kind": "other"}),
        ("config.json", {"kind": None}),
    ],
)
def test_no_run_leaves_a_table_because_a_file_of_it_was_damaged(tmp_path, name, fields):
    for run in ("a", "b"):
        write_run(tmp_path / run, "sampled", sampled_rows(random.Random(run)))
    sums, damaged = Checksums(tmp_path / "a"), tmp_path / "a" / name
    content = read_json(damaged)
    with sums.writing(damaged) as file:
        write_json(file, content)
    assert len(read(tmp_path)) == 2
    left = {key: value for key, value in (content | fields).items() if value is not None}
    write_json(damaged, left)
    with pytest.raises(InputError, match=f"{damaged}: changed since it was written"):
        read(tmp_path)
