"""Claims about runs that are there twice: the report and the screen say that one is a copy of the other."""

from __future__ import annotations

import html
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

import analyze
from hackward.base.files import read_jsonl, write_jsonl
from hackward.reports import report
from hackward.reports.arm_tables import notes
from hackward.reports.arms import by_arm
from hackward.reports.copies import copy_lines
from hackward.reports.runs import find_runs
from tests.runs_on_disk import PNG, phase1_samples, replay_rows, replay_samples, row, write_run

TIMES = "the same settings and seed, and the same rows, times included"
BUT_TIMES = "the same settings and seed, and the same rows but for times"


def no_curve(directory: Path, runs: Any, arms: Any) -> list[str]:
    """An empty picture: drawing, which has tests of its own, takes seconds."""
    (directory / "hacked.png").write_bytes(PNG)
    return ["hacked.png"]


def rows(steps: int = 6, **more: Any) -> list[dict[str, Any]]:
    rates = {"hack_rate": 0.25, "gt_rate": 0.5, "attempt_rate": 0.5}
    return [row(step, **{"seconds": 1.0, "reward_mean": step / 8} | rates | more) for step in range(steps)]


def lines_of(root: Path, unfinished: bool = False) -> list[str]:
    return copy_lines(find_runs(root, take_unfinished=unfinished)[0])


def test_a_copied_run_is_named_on_the_screen_in_the_report_and_on_the_page(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.setattr(report, "draw_all", no_curve)
    shutil.copytree(write_run(tmp_path / "a", "sampled", rows()), tmp_path / "old" / "b")
    write_run(tmp_path / "c", "sampled", rows(), arm="projected")
    line = f"No further evidence: vanilla (2) is a copy of vanilla ({TIMES})."
    for brief in (False, True):
        analyze.main(analyze.AnalyzeFlags(tmp_path, brief=brief))
        assert line in capsys.readouterr().out
    assert line in (tmp_path / "report" / "report.md").read_text()
    assert line in html.unescape((tmp_path / "report" / "report.html").read_text())


def test_a_copy_is_no_seed_and_changes_no_arm(tmp_path):
    shutil.copytree(write_run(tmp_path / "a", "sampled", rows()), tmp_path / "b")
    (arm,) = by_arm(find_runs(tmp_path)[0])
    assert list(arm.runs) == [41]


def test_the_same_run_made_again_is_told_from_a_copy_by_its_times(tmp_path):
    write_run(tmp_path / "a", "sampled", rows(), workers=2)
    slower = [one | {"seconds": 9.0, "peak_memory_gb": 3.0} for one in rows()]
    write_run(tmp_path / "b", "sampled", slower, workers=8)
    assert lines_of(tmp_path) == [f"No further evidence: vanilla (2) repeats vanilla ({BUT_TIMES})."]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("another figure on one step", {"rows": [*rows()[:-1], rows()[-1] | {"reward_mean": 0.7}]}),
        ("another seed", {"seed": 42}),
        ("another setting", {"lr": 1e-3}),
        ("another arm", {"arm": "projected"}),
    ],
)
def test_runs_that_differ_in_anything_but_times_are_no_copies(tmp_path, name, change):
    write_run(tmp_path / "a", "sampled", rows())
    write_run(tmp_path / "b", "sampled", change.pop("rows", rows()), **change)
    assert lines_of(tmp_path) == []


def test_a_run_that_was_copied_before_its_end_is_the_beginning_of_the_whole_one(tmp_path):
    """Its directory comes first by name: the whole run is the original all the same."""
    whole = write_run(tmp_path / "b", "sampled", rows())
    shutil.copytree(whole, tmp_path / "a")
    (tmp_path / "a" / "summary.json").unlink()
    write_jsonl(tmp_path / "a" / "rows.jsonl", read_jsonl(whole / "rows.jsonl")[:1])
    (line,) = lines_of(tmp_path, unfinished=True)
    assert " (unfinished) is a copy of the first 1 step of vanilla" in line


def test_several_copies_are_all_copies_of_the_first(tmp_path):
    first = write_run(tmp_path / "a", "sampled", rows())
    for name in ("b", "c"):
        shutil.copytree(first, tmp_path / name)
    assert lines_of(tmp_path) == [
        f"No further evidence: vanilla (2) is a copy of vanilla, vanilla (3) is a copy of vanilla ({TIMES})."
    ]


def test_a_second_run_of_a_seed_is_said_to_be_in_no_arm_even_where_each_arm_has_one_seed(tmp_path):
    """On another machine, say: its figures are not quite the same."""
    write_run(tmp_path / "a", "sampled", rows())
    write_run(tmp_path / "b", "sampled", rows(reward_mean=0.1))
    runs = find_runs(tmp_path)[0]
    said = "Same settings and seed as another run, not counted in an arm: vanilla (2)."
    assert said in notes(runs, by_arm(runs)) and lines_of(tmp_path) == []


@pytest.mark.parametrize("kind", ["phase1", "replay"])
def test_a_copied_probe_is_named_too(tmp_path, kind):
    dice = random.Random(1)
    if kind == "phase1":
        measured, samples = [row(step, cos_in=0.6) for step in range(8)], phase1_samples(dice)
    else:
        measured, samples = replay_rows(dice), replay_samples(dice)
    shutil.copytree(write_run(tmp_path / "a", kind, measured, samples), tmp_path / "b")
    (line,) = lines_of(tmp_path)
    assert "(2) is a copy of " in line
