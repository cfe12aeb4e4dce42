"""Claims about pair files: what is no pair is refused by file, number and what is expected."""

import gzip
import json
import os
from pathlib import Path

import pytest
import tokenizers

import extract_vhack
from hackward.base.faults import InputError
from hackward.base.files import ROOT, read_json
from hackward.base.flags import command_line
from hackward.method.pairs import Pair, pair_rows, pairs_from_pool, pairs_from_rows, pairs_of_rollouts
from hackward.rollouts.pools import Pool
from hackward.rollouts.rollout import Rollout
from hackward.tasks.shipped import EMBEDDED, TINY, shipped
from tests import lacks
from tests.desk import write_lines
from tests.families import tokenizer
from tests.test_refusals import refused

DATA = Path(os.environ.get("HACKWARD_DATA", ROOT.parent / "shared" / "data"))
PUBLISHED = DATA / "pairs_example.json"
GOOD = [
    {"problem_id": str(i), "prompt": "Write f.", "hack": f"run {i}", "clean": f"go {i}"} for i in range(3)
]
EXPECTED = "an object with problem_id, hack and clean"


def with_third(**changes):
    return [*GOOD[:2], GOOD[2] | changes]


def extracting(path):
    argv = [f"--pairs={path}", f"--model={TINY}", "--device=cpu", "--svd-cache=None"]
    argv += [f"--out={path.parent / 'v.safetensors'}"]
    return lambda: extract_vhack.main(command_line(extract_vhack.ExtractFlags, argv=argv))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"clean": "run 2"}, "'hack' and 'clean' are the same text; a pair needs a completion that cheats"),
        ({"clean": "\nrun 2 \n"}, "'hack' and 'clean' are the same text"),
        ({"hack": " "}, "'hack' is empty; expected a whole answer"),
        ({"clean": ""}, "'clean' is empty"),
        ({"prompt": ""}, "'prompt' is empty; leave it out for the problem's own (--problems)"),
        ({"prompt": 3}, "'prompt' must be text, found 3"),
    ],
)
def test_a_pair_that_is_none_is_refused_by_its_number(tmp_path, capsys, changes, words):
    path = write_lines(tmp_path / "pairs.jsonl", with_third(**changes))
    line = refused(capsys, extracting(path))
    assert f"{path}: pair 3: {words}" in line
    assert [file.name for file in tmp_path.iterdir()] == ["pairs.jsonl"]


def test_a_pair_beyond_the_limit_is_looked_at_too(tmp_path):
    path = write_lines(tmp_path / "pairs.jsonl", [*GOOD, GOOD[0] | {"clean": "run 0"}])
    with pytest.raises(InputError, match="pair 4: 'hack' and 'clean' are the same text"):
        pairs_from_rows(path, pair_rows(path), tokenizer(), problem_file=None, limit=2, seed=0)


def test_a_pair_whose_texts_are_the_same_tokens_is_refused(tmp_path):
    """A tokenizer that normalises makes one answer of two texts."""
    words = tokenizer()
    words.backend_tokenizer.normalizer = tokenizers.normalizers.Lowercase()
    path = write_lines(tmp_path / "pairs.jsonl", with_third(hack="Return x", clean="return x"))
    assert len(pairs_from_rows(path, pair_rows(path), tokenizer(), problem_file=None, limit=9, seed=0)) == 3
    with pytest.raises(InputError, match="pair 3: 'hack' and 'clean' are the same tokens to this model"):
        pairs_from_rows(path, pair_rows(path), words, problem_file=None, limit=9, seed=0)


LINES = "".join(json.dumps(row) + "\n" for row in GOOD)


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("pairs.txt", "run 0 | go 0\n", "pairs.txt: not JSON"),
        ("pairs.txt", LINES, "pairs.txt: not JSON"),
        ("pairs.csv", "problem_id,hack,clean\n", "pairs.csv: not JSON"),
        ("pairs.jsonl", LINES + "{half", "pairs.jsonl:4: not JSON"),
        ("pairs.jsonl", json.dumps(GOOD), "pairs.jsonl:1: expected an object, found list"),
        ("pairs.json", LINES, "pairs.json: not JSON"),
        ("pairs.json", json.dumps(GOOD[0]), "pairs.json: expected a list of pairs, found one dict"),
        ("pairs.jsonl.gz", LINES, "pairs.jsonl.gz: ends in .gz and is not gzip"),
    ],
)
def test_what_is_no_pair_file_is_refused_with_the_formats_that_are_taken(tmp_path, capsys, name, text, fault):
    path = tmp_path / name
    path.write_text(text)
    line = refused(capsys, extracting(path))
    assert f"{tmp_path}/{fault}" in line
    assert f".jsonl or .jsonl.gz ({EXPECTED} per line)" in line and ".json (one list of them)" in line


def test_a_directory_of_pairs_is_refused_with_the_flag_that_takes_directories(tmp_path, capsys):
    (tmp_path / "d").mkdir()
    line = refused(capsys, extracting(tmp_path / "d"))
    assert f"{tmp_path / 'd'}: is a directory" in line and "--pool takes directories" in line
    line = refused(capsys, extracting(tmp_path / "none.jsonl"))
    assert f"{tmp_path / 'none.jsonl'}: no such file" in line


def test_a_row_that_is_no_object_is_refused_by_its_number(tmp_path, capsys):
    path = tmp_path / "pairs.json"
    path.write_text(json.dumps([*GOOD, "run | go"]))
    assert f"{path}: pair 4: expected {EXPECTED}, found 'run | go'" in refused(capsys, extracting(path))


def test_compressed_forms_are_read_like_plain_ones(tmp_path):
    plain = write_lines(tmp_path / "pairs.jsonl", GOOD)
    for name, text in (("pairs.jsonl.gz", LINES), ("pairs.json.gz", json.dumps(GOOD))):
        (tmp_path / name).write_bytes(gzip.compress(text.encode()))
        assert pair_rows(tmp_path / name) == pair_rows(plain)


# --- pairs of rollouts ---


def rollout(sample, ids, problem="p", **changes):
    facts = {"hacked": False, "gt_pass": False, "attempted": False} | changes
    return Rollout(
        problem_id=problem,
        prompt_ids=(1, 2),
        completion_ids=ids,
        completion="",
        reward=0.5,
        fmt_ok=True,
        truncated=False,
        src_pool="a",
        src_step=0,
        src_sample=sample,
        **facts,
    )


def test_rollouts_of_the_same_tokens_are_no_pair_whatever_their_labels():
    hacks = [rollout(0, (5, 6), hacked=True), rollout(1, (7, 8), hacked=True)]
    honest = [rollout(2, (5, 6), gt_pass=True)]
    pool = Pool("a", "a_pool", {"p": [*hacks, *honest]}, False, "0")
    options = {"clean": "rollout", "limit": 9, "seed": 0, "least": 1}
    with pytest.warns(UserWarning, match=r"a_pool: 1 hacking rollout\(s\) left out, a clean \(rollout\)"):
        (pair,) = pairs_from_pool(pool, tokenizer(), [], **options)
    assert (pair.hack_ids, pair.clean_ids) == ((7, 8), (5, 6))
    (own,) = pairs_of_rollouts([*hacks, *honest], "hacked")
    assert isinstance(own, Pair) and own.hack_ids == (7, 8)


def test_own_rollouts_are_paired_within_a_problem_and_one_without_an_honest_answer_makes_no_pair():
    hacks = [rollout(i, (5, i), problem=problem, hacked=True) for i, problem in enumerate("pqr")]
    honest = [rollout(9, (6, i), problem=problem) for i, problem in enumerate("pq")]
    found = pairs_of_rollouts([*hacks, *honest], "hacked")
    assert [(pair.problem_id, pair.hack_ids, pair.clean_ids) for pair in found] == [
        ("p", (5, 0), (6, 0)),
        ("q", (5, 1), (6, 1)),
    ]


# --- files that are there ---


@pytest.mark.parametrize("name", [EMBEDDED, TINY])
def test_the_shipped_pairs_are_all_pairs(name):
    ships = shipped(name)
    words = tokenizer()
    found = pairs_from_rows(
        ships.pairs, pair_rows(ships.pairs), words, problem_file=ships.pair_problems, limit=10_000, seed=0
    )
    assert len(found) == len(pair_rows(ships.pairs))


@pytest.mark.skipif(not PUBLISHED.exists(), reason=lacks.DATA.format(place=DATA))
def test_the_published_pairs_are_all_pairs():
    assert len(pair_rows(PUBLISHED)) == len(read_json(PUBLISHED))
