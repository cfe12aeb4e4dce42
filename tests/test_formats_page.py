"""Claims about spec/formats.md: every example loads through the real readers; tables name the fields read."""

import json
import re

import pytest
import torch

import grade
from hackward.base.files import ROOT, read_json, read_jsonl, write_jsonl
from hackward.base.flags import command_line
from hackward.base.records import checked_lines
from hackward.grading.rows import Answer
from hackward.hardware import models
from hackward.method.adapters import attach, stored_basis
from hackward.method.pairs import PairRow, pair_rows, pairs_from_rows
from hackward.method.v_hack import VHack
from hackward.reports.runs import read_heldout, read_run
from hackward.reports.schema import SAMPLES
from hackward.rollouts.pools import PoolRow, load_pool
from hackward.rollouts.tokens import stops
from hackward.tasks.formats import BenchmarkRow, LeetCodeRow, OwnRow, format_of, load_problems
from hackward.tasks.shipped import TINY
from tests.shop import run_train

PAGE = (ROOT / "spec" / "formats.md").read_text(encoding="utf-8")
BLOCKS: dict[str, str] = dict(re.findall(r"^```\w+ (\S+)\n(.*?)^```$", PAGE, re.M | re.S))
PROBLEM_FORMS = {"own_problems": OwnRow, "leetcode": LeetCodeRow, "benchmark": BenchmarkRow}
PAIRS = ("pairs.jsonl", "pairs_with_prompts.jsonl")
RUN = ("config.json", "rows.jsonl", "summary.json", "step_000.cos.jsonl", "eval.jsonl")
USED = {f"{form}.jsonl" for form in PROBLEM_FORMS} | {*PAIRS, *RUN}
USED |= {"completions.jsonl", "my_pool.jsonl", "v_hack.py"}


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    """The page's examples, each under its name."""
    home = tmp_path_factory.mktemp("page")
    for name, text in BLOCKS.items():
        (home / name).write_text(text, encoding="utf-8")
    return home


@pytest.fixture(scope="module")
def model():
    return models.load(TINY, device="cpu")


def test_every_example_of_the_page_is_loaded_by_a_test():
    assert set(BLOCKS) == USED
    assert PAGE.count("\n```") == 2 * len(BLOCKS)  # no block without a name
    for name, text in BLOCKS.items():
        if name.endswith(".jsonl"):
            assert len(text.splitlines()) == 3, name


@pytest.mark.parametrize(("name", "form"), PROBLEM_FORMS.items())
def test_the_problems_are_in_the_format_that_they_are_shown_for(examples, name, form):
    rows = read_jsonl(examples / f"{name}.jsonl")
    assert all(format_of(row, name) is form for row in rows)
    problems, ours = load_problems(examples / f"{name}.jsonl"), load_problems(examples / "own_problems.jsonl")
    assert [p.method for p in problems] == [p.method for p in ours]
    assert [p.tests for p in problems] == [p.tests for p in ours]
    assert [p.statement for p in problems] == [p.statement for p in ours]
    assert all(p.canonical and p.difficulty == "easy" for p in problems)


def test_the_canonical_solutions_and_the_completions_are_graded_as_the_page_says(examples, tmp_path):
    flags = [f"--problems={examples / 'own_problems.jsonl'}", "--workers=1"]
    grade.main(command_line(grade.GradeFlags, argv=["--canonical", *flags]))
    out, pool = tmp_path / "labels.jsonl", tmp_path / "mine_pool"
    rows = str(examples / "completions.jsonl")
    grade.main(command_line(grade.GradeFlags, argv=[rows, f"--out={out}", f"--pool={pool}", *flags]))
    assert [row["label"] for row in read_jsonl(out)] == ["hack", "correct_attempted", "incorrect"]
    made = [row for path in sorted(pool.glob("*.gz")) for row in read_jsonl(path)]
    shown = read_jsonl(examples / "my_pool.jsonl")
    labels = ("problem_id", "completion", "reward", "hacked", "gt_pass", "fmt_ok", "attempted", "truncated")
    assert [{k: row[k] for k in labels} for row in made] == [{k: row[k] for k in labels} for row in shown]
    user = [row["problem_messages"][-1] for row in made]
    assert user == [row["problem_messages"][-1] for row in shown]


@pytest.mark.parametrize("name", PAIRS)
def test_the_pairs_load(examples, model, name, tmp_path):
    problems = examples / "own_problems.jsonl" if name == "pairs.jsonl" else None
    found = pairs_from_rows(
        examples / name, pair_rows(examples / name), model[1], problem_file=problems, limit=9, seed=0
    )
    assert len(found) == 3 and all(pair.hack_ids != pair.clean_ids for pair in found)
    whole = tmp_path / "pairs.json"
    whole.write_text(json.dumps(read_jsonl(examples / name)))
    assert pairs_from_rows(whole, pair_rows(whole), model[1], problem_file=problems, limit=9, seed=0) == found


def test_the_pool_loads_as_a_file_and_as_a_directory(examples, model, tmp_path):
    stop = stops(*model)
    pool = load_pool(examples / "my_pool.jsonl", model[1], stop=stop)
    assert pool.name == "my" and len(pool.rollouts) == 3
    write_jsonl(tmp_path / "other_pool" / "step_000.jsonl.gz", read_jsonl(examples / "my_pool.jsonl"))
    other = load_pool(tmp_path / "other_pool", model[1], stop=stop)
    assert [r.tokens for r in other.rollouts] == [r.tokens for r in pool.rollouts]


def test_the_v_hack_of_the_page_is_one_that_a_run_takes(shop, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    adapter = attach("svd", models.load(TINY, device="cpu")[0], TINY, cache=str(shop / "cache"))
    layer = next(iter(adapter.params))
    names = {"LAYER": layer, "RANK": adapter.params[layer].numel(), "MODEL_HASH": adapter.model_hash}
    exec(BLOCKS["v_hack.py"], names)
    file = tmp_path / "v_hack.safetensors"
    v = VHack.load(file, model_hash=adapter.model_hash, params=adapter.params, coordinates="svd")
    assert stored_basis(file) == "svd" and v.V[layer].shape == (1, names["RANK"])
    assert v.w[layer] == torch.tensor([0.5]) and v.directions == 1
    flags = ["--preset=smoke", "--prompts=1", "--steps=1", "--eval-samples=0", "--arm=projected"]
    out = run_train(shop, *flags, f"--v-hack={file}", f"--out={tmp_path / 'run'}")
    (row,) = read_jsonl(out / "rows.jsonl")
    assert row["cos_in"] is not None and row["cos_in_null"] is not None


def test_the_run_directory_of_the_page_is_one_that_reports_show(examples):
    run = read_run(examples, read_json(examples / "config.json"))
    assert run.complete and len(run.rows) == 3 and run.heldout == read_heldout(examples / "eval.jsonl")
    assert len(run.heldout) == 3
    assert len(checked_lines(examples / "step_000.cos.jsonl", SAMPLES)) == 3


# --- tables ---


def table(heading):
    """Field -> is it needed, of the table under a heading."""
    section = re.split(r"^#+ ", PAGE, flags=re.M)
    (text,) = [part for part in section if part.startswith(f"{heading}\n")]
    return dict(re.findall(r"^\| `(\w+)` \| [^|]+ \| (yes|no) \|", text, re.M))


@pytest.mark.parametrize(
    ("heading", "record"),
    [
        ("Our own", OwnRow),
        ("LeetCodeDataset", LeetCodeRow),
        ("The reward-hacking benchmark", BenchmarkRow),
        ("Pairs", PairRow),
        ("Completions", Answer),
        ("Pools and rollouts", PoolRow),
    ],
)
def test_the_fields_of_a_table_are_those_that_are_read(heading, record):
    wanted = {name: "yes" if field.is_required() else "no" for name, field in record.model_fields.items()}
    assert table(heading) == wanted
