"""bench.py's section grading: what it measures, what it says, and the comparison with another checkout."""

from __future__ import annotations

import dataclasses
import importlib
import io
import json
from pathlib import Path

import pytest
import torch
from rich.console import Console

import bench
from hackward.base.faults import InputError
from hackward.base.files import ROOT, read_json, write_jsonl
from hackward.benchmarks import flags, sections
from hackward.benchmarks.against_checkout import against_words
from hackward.benchmarks.checkout_grader import LAYOUTS, layout_of
from hackward.benchmarks.flags import SECTIONS, BenchFlags, resolve, sections_of
from hackward.benchmarks.grading import measure_grading, show_grading
from hackward.benchmarks.parts import Bench
from hackward.benchmarks.plain_grading import plain_grade
from hackward.grading.labels import GradeItem
from hackward.tasks.completions import fence
from hackward.tasks.formats import load_problems
from hackward.tasks.shipped import EMBEDDED, TINY, shipped
from tests.light import loaded

SMALL = BenchFlags(
    device="cpu", sections="grading", graded=6, plain_graded=1, repeats=2, workers=1, sandbox="none"
)
# A checkout of the layout before the rooms, whose labels are all "odd".
FLAT = {
    "problems": """
import json
from types import SimpleNamespace
def load_problems(file):
    return [SimpleNamespace(**json.loads(line)) for line in open(file)]
""",
    "grade": """
from types import SimpleNamespace
class GradeItem(SimpleNamespace):
    def __init__(self, problem, completion):
        super().__init__(problem=problem, completion=completion)
class Grader:
    def __init__(self, *, workers, sandbox):
        assert (workers, sandbox) == (1, "none")
    def __enter__(self):
        return self
    def __exit__(self, *fault):
        pass
    def grade(self, items):
        assert all(item.completion and item.problem.statement for item in items)
        return [SimpleNamespace(label="odd") for _ in items]
""",
}


@pytest.fixture(scope="module")
def flat(tmp_path_factory) -> Path:
    repo = tmp_path_factory.mktemp("flat")
    for name, text in FLAT.items():
        (repo / f"{name}.py").write_text(text)
    return repo


@pytest.fixture(scope="module")
def found(tmp_path_factory, flat) -> dict:
    """The JSON of a small run of this section alone, against a checkout of the earlier layout."""
    out = tmp_path_factory.mktemp("bench") / "found.json"
    bench.main(dataclasses.replace(SMALL, out=str(out), baseline=flat))
    return read_json(out)


def test_grading_is_measured_only_when_asked_for_and_needs_no_ceilings(found):
    assert sections_of(BenchFlags()) == list(SECTIONS[: SECTIONS.index("grading")])
    assert "grading" in found and "ceilings" not in found and "error" not in found["grading"]


def test_each_kind_is_graded_by_us_by_fork_alone_and_by_a_plain_grader(found):
    rows = found["grading"]["rows"]
    kinds = ["40 canonical solutions, ground truth", "6 real rollouts, ground truth"]
    assert [row["what"] for row in rows] == [*kinds, "6 real rollouts, full label"]
    for row in rows:
        assert len(row["ours"]) == 2 and min(row["ours"]) > 0 and row["plain"] > 0
        assert (row["floor"] is None) is ("full label" in row["what"])


def test_the_table_is_made_from_the_json_alone(found):
    shown, caption = show_grading(found["grading"])
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(shown)
    text = console.export_text()
    for row in found["grading"]["rows"]:
        assert row["what"] in text and f"{row['ours'][1]:.0f} (" in text
    assert "fork floor" in caption and against_words(found["grading"]["baseline"]) in caption


def test_another_checkout_grades_the_same_rows_with_its_own_code_round_by_round(found, flat):
    other = found["grading"]["baseline"]
    assert other["repo"] == str(flat) and other["count"] == 6
    assert len(other["ours"]) == len(other["other"]) == len(other["ratios"]) == 2
    for ours, theirs, ratio in zip(other["ours"], other["other"], other["ratios"], strict=True):
        assert ratio == pytest.approx(ours / theirs)
    assert other["ratio"] == pytest.approx(sum(other["ratios"]) / 2)
    assert other["same_labels"] == 0  # its labels are its own
    assert f"ratio {other['ratio']:.2f}" in against_words(other)


def test_this_tree_against_itself_gives_the_same_labels():
    b = Bench(dataclasses.replace(SMALL, baseline=ROOT, repeats=1, graded=3), torch.device("cpu"), print)
    assert measure_grading(b)["baseline"]["same_labels"] == 3


def test_both_layouts_are_known_and_the_rooms_come_first(flat, tmp_path):
    assert layout_of(ROOT) == LAYOUTS[0] and layout_of(flat) == LAYOUTS[1] and layout_of(tmp_path) is None


def test_a_grader_that_fails_ends_with_what_it_said(flat, tmp_path):
    for name, text in FLAT.items():
        (tmp_path / f"{name}.py").write_text(text.replace("(1,", "(2,"))
    b = Bench(dataclasses.replace(SMALL, baseline=tmp_path, graded=1), torch.device("cpu"), print)
    with pytest.raises(InputError, match="its grader does not work here: AssertionError"):
        measure_grading(b)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"baseline": Path("/")}, "/: --baseline must be a checkout of this project"),
        ({"rows": Path("absent.jsonl")}, "absent.jsonl: no such file"),
        ({"problems": str(shipped(TINY).problems)}, "no row of it is of a problem in .*--problems"),
        ({"canonical": "bare.jsonl"}, "bare.jsonl: no problem in it has a canonical solution"),
    ],
)
def test_what_leaves_nothing_to_grade_is_refused(tmp_path, monkeypatch, change, fault):
    monkeypatch.chdir(tmp_path)
    bare = [
        json.loads(line) | {"canonical": None} for line in shipped(TINY).problems.read_text().splitlines()
    ]
    write_jsonl("bare.jsonl", bare)
    with pytest.raises(InputError, match=fault):
        measure_grading(Bench(dataclasses.replace(SMALL, **change), torch.device("cpu"), print))


def test_the_plain_grader_passes_right_answers_and_no_wrong_ones():
    problem = load_problems(shipped(EMBEDDED).problems)[0]
    assert plain_grade(GradeItem(problem, fence(problem.canonical)), own=False)
    assert not plain_grade(GradeItem(problem, "no code"), own=True)


def test_a_section_with_a_name_and_without_a_measure_fails_at_import(monkeypatch):
    monkeypatch.setattr(flags, "SECTIONS", (*SECTIONS, "speed"))
    with pytest.raises(ImportError, match="speed"):
        importlib.reload(sections)
    monkeypatch.undo()
    importlib.reload(sections)


@pytest.mark.parametrize(
    ("flag", "code"), [("--help", 0), ("--bogus", 2), ("--sections=probe,speed", 2), ("--steps=0", 2)]
)
def test_a_fault_in_the_flags_is_said_without_loading_what_computes(flag, code):
    assert loaded("bench.py", flag) == (code, [])


def test_the_names_of_sections_may_be_given_with_spaces():
    assert resolve(BenchFlags(sections="probe, grading")).sections == "probe,grading"
