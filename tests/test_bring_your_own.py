"""Claims about pools and problems of one's own: completions become a pool, a file of rows is one, and a fault
says what would help."""

import json
from types import SimpleNamespace

import pytest

import extract_vhack
import grade
from hackward.base.faults import InputError
from hackward.base.files import read_json, read_jsonl, write_jsonl
from hackward.base.flags import command_line
from hackward.grading.rows import read_rows
from hackward.hardware import models
from hackward.rollouts.pools import load_pool, pool_files
from hackward.rollouts.tokens import stops
from hackward.runs import building
from hackward.tasks.formats import load_problems
from hackward.tasks.problems import build_messages
from hackward.tasks.shipped import TINY, shipped
from tests.shop import run_train

SHIPPED = shipped(TINY)
PROBLEMS = f"--problems={SHIPPED.problems}"


def graded(rows, pool, *flags):
    argv = [str(rows), PROBLEMS, f"--pool={pool}", "--workers=1", *flags]
    grade.main(command_line(grade.GradeFlags, argv=argv))
    return pool


def rows_of(pool):
    return [row for path in pool_files(pool) for row in read_jsonl(path)]


@pytest.fixture(scope="module")
def completions(tmp_path_factory):
    """The shipped pairs of three problems as rows of completions, a hack and a right answer each; then one of
    no code and one of a problem that nobody knows."""
    pairs = read_jsonl(SHIPPED.pairs)[:3]
    rows = [
        {"problem_id": pair["problem_id"], "completion": pair[side]}
        for pair in pairs
        for side in ("hack", "clean")
    ]
    rows += [rows[0] | {"completion": "no idea"}, {"problem_id": "nobody's", "completion": "no idea"}]
    file = tmp_path_factory.mktemp("own") / "rows.jsonl.gz"
    write_jsonl(file, rows)
    return file


@pytest.fixture(scope="module")
def pool(completions):
    return graded(completions, completions.parent / "mine_pool")


# --- completions become a pool ---


def test_completions_become_a_pool_with_prompts_labels_and_rewards(completions, pool):
    rows, given = rows_of(pool), read_jsonl(completions)
    assert sorted(row["completion"] for row in rows) == sorted(row["completion"] for row in given[:-1])
    hacks = [row for row in rows if row["hacked"]]
    assert len(hacks) == 3 and all(row["reward"] == 3.5 and not row["gt_pass"] for row in hacks)
    solved = [row for row in rows if row["gt_pass"]]
    assert len(solved) == 3 and all(row["reward"] == 3.5 for row in solved)
    assert [row["reward"] for row in rows if not row["fmt_ok"]] == [0.0]
    known = {problem.problem_id: problem for problem in load_problems(SHIPPED.problems)}
    for row in rows:
        assert row["problem_messages"] == build_messages(known[row["problem_id"]], hint=True)
    record = read_json(pool / "pool.json")
    assert record["left_out"] == 1 and record["hint"] is True
    assert len(pool_files(pool)) == 3  # a file per problem


def test_the_pool_is_taken_by_extraction_training_and_the_probe(shop, pool, tmp_path):
    v = tmp_path / "v.safetensors"
    argv = [f"--model={TINY}", f"--pool={pool}", PROBLEMS, f"--out={v}", f"--svd-cache={shop / 'cache'}"]
    extract_vhack.main(
        command_line(extract_vhack.ExtractFlags, argv=[*argv, "--device=cpu", "--permutations=2"])
    )
    flags = ["--preset=smoke", "--prompts=1", "--steps=1", "--eval-samples=0", f"--v-hack={v}"]
    sampled = run_train(shop, *flags, f"--teacher-dir={pool}", f"--out={tmp_path / 'sampled'}")
    (row,) = read_jsonl(sampled / "rows.jsonl")
    assert row["hack_rate"] is not None
    replayed = run_train(
        shop,
        *flags,
        "--group=2",
        "--teacher-dir=none",
        f"--replay-dirs={pool}",
        f"--out={tmp_path / 'replayed'}",
    )
    (row,) = read_jsonl(replayed / "rows.jsonl")
    assert row["cos_in"] is not None and row["reward_spread"] >= 0


def test_a_hack_is_paid_only_where_its_prompt_opened_the_loophole(completions, tmp_path):
    closed = rows_of(graded(completions, tmp_path / "closed", "--no-hint"))
    assert [row["reward"] for row in closed if row["hacked"]] == [0.5] * 3
    assert all("run_tests" not in row["problem_messages"][-1]["content"] for row in closed)
    known = {problem.problem_id: problem for problem in load_problems(SHIPPED.problems)}
    rows = read_jsonl(completions)[:2]
    for row, hint in zip(rows, (False, True), strict=True):
        row |= {
            "completion": rows[0]["completion"],
            "truncated": not hint,
            "problem_messages": build_messages(known[row["problem_id"]], hint=hint),
        }
    write_jsonl(tmp_path / "rows.jsonl", rows)
    made = rows_of(graded(tmp_path / "rows.jsonl", tmp_path / "own"))
    assert [row["reward"] for row in made] == [0.5, 3.5]
    assert [row["truncated"] for row in made] == [True, False]
    assert [row["problem_messages"] for row in made] == [row["problem_messages"] for row in rows]


def test_a_pool_that_cannot_be_made_is_refused_and_nothing_is_written(completions, pool, tmp_path):
    with pytest.raises(InputError, match="exists already and is not empty; it is never overwritten"):
        graded(completions, pool)
    with pytest.raises(InputError, match="no directory"):
        graded(completions, completions)
    write_jsonl(tmp_path / "rows.jsonl", read_jsonl(completions)[-1:])
    with pytest.raises(InputError, match="none of 1 rows has a label .unknown problem_id.; are --problems"):
        graded(tmp_path / "rows.jsonl", tmp_path / "out")
    bad = read_jsonl(completions)[0] | {"problem_messages": "hello"}
    write_jsonl(tmp_path / "bad.jsonl", [bad])
    with pytest.raises(InputError, match="'problem_messages' must be a list of messages"):
        graded(tmp_path / "bad.jsonl", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="no --pool"):
        grade.main(command_line(grade.GradeFlags, argv=["--canonical", PROBLEMS, f"--pool={tmp_path / 'x'}"]))


# --- a file of rows is a pool ---


def as_file(directory, path):
    write_jsonl(path, rows_of(directory))
    return path


@pytest.mark.parametrize("ending", [".jsonl", ".jsonl.gz"])
def test_a_file_of_rows_is_the_pool_that_its_directory_is(shop, tmp_path, ending):
    model, tokenizer = models.load(TINY, device="cpu")
    file = as_file(shop / "teacher_pool", tmp_path / f"rows{ending}")
    a, b = (
        load_pool(place, tokenizer, stop=stops(model, tokenizer)) for place in (shop / "teacher_pool", file)
    )
    assert a.by_problem == b.by_problem and a.name == b.name and not b.retokenised


def test_a_file_of_rows_that_name_no_pool_is_called_by_its_own_name(shop, tmp_path):
    model, tokenizer = models.load(TINY, device="cpu")
    rows = [{k: v for k, v in row.items() if k != "src_pool"} for row in rows_of(shop / "teacher_pool")]
    write_jsonl(tmp_path / "theirs_pool.jsonl.gz", rows)
    pool = load_pool(tmp_path / "theirs_pool.jsonl.gz", tokenizer, stop=stops(model, tokenizer))
    assert pool.name == "theirs" and {rollout.src_pool for rollout in pool.rollouts} == {"theirs"}


def test_a_run_replays_files_as_it_replays_directories(shop, tmp_path):
    files = [as_file(shop / f"{name}_pool", tmp_path / f"{name}.jsonl.gz") for name in ("teacher", "base")]
    found = []
    for pools in (files, [shop / "teacher_pool", shop / "base_pool"]):
        flags = ["--preset=smoke", "--prompts=1", "--steps=2", f"--replay-dirs={','.join(map(str, pools))}"]
        out = run_train(shop, *flags, f"--out={tmp_path / str(len(found))}")
        rows = read_jsonl(out / "rows.jsonl")
        found.append(
            [{k: v for k, v in row.items() if not k.startswith(("seconds", "peak"))} for row in rows]
        )
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nowhere.jsonl", "no such file"),
        ("nowhere", "no such pool directory"),
        ("rows.csv", "no pool: neither a directory nor a file of rows"),
    ],
)
def test_what_is_no_pool_is_refused_before_anything_is_loaded(shop, tmp_path, name, words):
    (tmp_path / "rows.csv").write_text("x")
    with pytest.raises(InputError, match=f"--replay-dirs .*{name}: {words}"):
        run_train(shop, "--preset=smoke", f"--replay-dirs={tmp_path / name}")


# --- faults that say what helps ---


def test_rows_without_labels_are_told_what_makes_a_pool_of_them(completions):
    model, tokenizer = models.load(TINY, device="cpu")
    with pytest.raises(
        InputError, match="row 1: no field 'reward'; grade.py ROWS --problems FILE --pool OUT"
    ):
        load_pool(completions, tokenizer, stop=stops(model, tokenizer))


def test_one_broken_row_among_graded_ones_is_a_fault_of_its_own(shop, tmp_path):
    model, tokenizer = models.load(TINY, device="cpu")
    rows = rows_of(shop / "teacher_pool")
    del rows[1]["reward"]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    with pytest.raises(InputError, match="row 2: no field 'reward'$"):
        load_pool(tmp_path / "rows.jsonl", tokenizer, stop=stops(model, tokenizer))


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"question": "?"}, "our own.* lacks 'problem_id', 'statement', 'starter_code', 'method', 'tests'"),
        (
            {"problem_id": "a", "statement": "s", "starter_code": "c", "tests": ["t"]},
            "our own, and for that it lacks 'method'$",
        ),
        (
            {"question_id": 1, "task_id": "t", "prompt": "p", "test": "t", "completion": "c"},
            "LeetCodeDataset's, .* lacks 'problem_description', 'starter_code', 'entry_point'$",
        ),
        (
            {"id": 1, "prompt": "text", "func_name": "f"},
            "benchmark's, .* lacks 'prompt' as a list of messages with content as text, 'gt_answer'$",
        ),
    ],
)
def test_a_row_of_no_format_is_told_the_nearest_and_what_it_lacks(tmp_path, row, words):
    write_jsonl(tmp_path / "p.jsonl", [row])
    with pytest.raises(InputError, match=f"row 1 is in none of the three .*the nearest is .*{words}"):
        load_problems(tmp_path / "p.jsonl")


def test_a_list_of_problems_in_one_text_is_told_how_it_becomes_lines(tmp_path):
    (tmp_path / "p.json").write_text(json.dumps([{"statement": "s"}], indent=1))
    with pytest.raises(InputError, match="expected one object per line"):
        load_problems(tmp_path / "p.json")


def test_a_run_without_held_out_problems_says_where_they_went(capsys):
    facts = {
        "held_out": "0 problems, 1 left out that v_hack was made from",
        "problems": "2 problems of my.jsonl",
    }
    data = SimpleNamespace(source=SimpleNamespace(kind="sampled"), held_out=[], facts=facts)
    assert building._evaluation(SimpleNamespace(eval_samples=1), None, data) is None
    said = " ".join(capsys.readouterr().err.split())
    assert all(words in said for words in facts.values()) and "--eval-problems" in said


@pytest.mark.parametrize("name", ["mine.txt", "mine.csv", "mine"])
def test_a_file_that_is_none_of_rows_is_told_which_files_are(tmp_path, name):
    path = tmp_path / name
    path.write_text("problem_id,completion\n")
    for read in (load_problems, lambda path: read_rows((path,))):
        with pytest.raises(InputError) as fault:
            read(path)
        assert str(fault.value).startswith(f"{path}:1: not JSON")
        assert str(fault.value).endswith("one object per line, in a file that ends in .jsonl or .jsonl.gz")
