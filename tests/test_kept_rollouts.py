"""A run whose rollouts, or rows, are not all there: refused by file, or said on page and screen."""

from __future__ import annotations

import gzip
import shutil

import pytest

import analyze
from hackward.base.faults import InputError
from hackward.base.files import read_jsonl, write_jsonl
from hackward.reports import report
from hackward.rollouts.pools import stored_rollouts
from tests.rollouts_on_disk import line, write_rollouts
from tests.runs_on_disk import read, run_main

UNWATCHED = {"monitor": "none"}


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    """They have tests of their own and take seconds."""
    monkeypatch.setattr(report, "draw_all", lambda directory, runs, arms: [])


def three_steps(root, **settings):
    """The rollouts of a finished run of three steps with two rollouts each, and no checksums."""
    steps = [[line(step, "p", sample) for sample in range(2)] for step in range(3)]
    return write_rollouts(root / "run", steps, **settings) / "rollouts"


def blank(path, text=b""):
    path.write_bytes(gzip.compress(text))


def fault_of(root):
    """What analyze.py refuses this for; it writes nothing then."""
    with pytest.raises(InputError) as fault:
        analyze.main(analyze.AnalyzeFlags(root))
    assert not (root / "report").exists() and "\n" not in str(fault.value)
    return str(fault.value)


@pytest.mark.parametrize("settings", [UNWATCHED, {}], ids=["unwatched", "watched"])
@pytest.mark.parametrize("text", [b"", b"\n \n"], ids=["nothing", "white space"])
@pytest.mark.parametrize("steps", [(0, 1, 2), (1,), (2,)], ids=str)
def test_a_file_of_rollouts_without_any_is_refused_by_name_with_the_ways_out(tmp_path, settings, text, steps):
    kept = three_steps(tmp_path, **settings)
    for step in steps:
        blank(kept / f"step_{step:03d}.jsonl.gz", text)
    file, fault = kept / f"step_{steps[0]:03d}.jsonl.gz", fault_of(tmp_path)
    assert fault.startswith(f"{file}: holds no rollouts, but rows.jsonl has step {steps[0]}; ")
    assert f"bring the file back, or move {kept} away" in fault
    assert ("--html-rollouts=0" in fault) == (settings == UNWATCHED)  # a monitor's figures need them


def test_of_what_the_page_leaves_out_nothing_is_looked_at(tmp_path):
    blank(three_steps(tmp_path, **UNWATCHED) / "step_001.jsonl.gz")
    analyze.main(analyze.AnalyzeFlags(tmp_path, html_rollouts=0))
    analyze.main(analyze.AnalyzeFlags(tmp_path, html=False))


@pytest.mark.parametrize("settings", [UNWATCHED, {}], ids=["unwatched", "watched"])
@pytest.mark.parametrize("folder", [True, False])
def test_rollouts_that_are_all_gone_are_said_on_the_page_and_on_the_screen(
    tmp_path, capsys, settings, folder
):
    kept = three_steps(tmp_path, **settings)
    shutil.rmtree(kept)
    if folder:
        kept.mkdir()
    run_main(tmp_path)
    said = "No rollouts were kept of: vanilla."
    assert said in (tmp_path / "report" / "report.html").read_text()
    assert said in capsys.readouterr().out.splitlines()


def test_single_steps_that_are_gone_are_counted_on_the_screen_too(tmp_path, capsys):
    (three_steps(tmp_path, **UNWATCHED) / "step_001.jsonl.gz").unlink()
    run_main(tmp_path)
    assert "Steps without their rollouts: vanilla (1 of 3)." in capsys.readouterr().out.splitlines()


def test_a_step_with_fewer_rollouts_than_advantages_is_counted(tmp_path, capsys):
    file = three_steps(tmp_path, **UNWATCHED) / "step_001.jsonl.gz"
    write_jsonl(file, read_jsonl(file)[:1])
    run_main(tmp_path)
    said = "another number of rollouts than rows.jsonl has advantages, which are left out: vanilla (1 of 3)."
    assert said in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("settings", [UNWATCHED, {}], ids=["unwatched", "watched"])
def test_a_folder_of_rollouts_that_is_none_is_refused_by_name(tmp_path, settings):
    kept = three_steps(tmp_path, **settings)
    shutil.rmtree(kept)
    kept.write_text("")
    assert fault_of(tmp_path).startswith(f"{kept}: not a directory")


@pytest.mark.parametrize("settings", [UNWATCHED, {}], ids=["unwatched", "watched"])
def test_a_file_of_rollouts_that_is_a_directory_is_refused_by_name(tmp_path, settings):
    file = three_steps(tmp_path, **settings) / "step_001.jsonl.gz"
    file.unlink()
    file.mkdir()
    assert fault_of(tmp_path).startswith(f"{file}: cannot be read")


def test_a_finished_run_without_rows_is_refused_with_its_number_of_steps(tmp_path):
    rows = three_steps(tmp_path).parent / "rows.jsonl"
    rows.write_text("")
    assert fault_of(tmp_path).startswith(
        f"{rows}: 0 rows, but summary.json says 3 steps; bring the file back, or move {rows.parent} away"
    )


@pytest.mark.parametrize("text", ["", "\n", '{"step": 0, "ar'])
def test_an_unfinished_run_without_a_whole_row_is_left_out_and_named(tmp_path, text):
    begun = three_steps(tmp_path).parent
    (begun / "summary.json").unlink()
    (begun / "rows.jsonl").write_text(text)
    assert f"no run with a finished step; left out: {begun}: incomplete" in fault_of(tmp_path)
    three_steps(tmp_path / "other")
    analyze.main(analyze.AnalyzeFlags(tmp_path, unfinished=True))
    assert f"{begun}: incomplete" in (tmp_path / "report" / "report.md").read_text()
    assert len(read(tmp_path)) == 1


def test_rollouts_that_training_or_an_audit_goes_by_are_refused_where_a_file_has_none(tmp_path):
    blank(tmp_path / "step_000.jsonl.gz")
    with pytest.raises(InputError, match=r"step_000.jsonl.gz: holds no rollouts, .* bring the file back"):
        stored_rollouts(tmp_path / "step_000.jsonl.gz")
