"""A claim about the wiring of a run's held-out evaluation: which problems it leaves out."""

import json

from safetensors import safe_open

from hackward.base.files import read_json, read_jsonl, write_jsonl
from hackward.tasks.formats import load_problems
from hackward.tasks.shipped import TINY, shipped
from tests.shop import run_train


def test_problems_that_v_hack_was_made_from_are_not_evaluated_on(shop, tmp_path):
    file = shipped(TINY).problems
    with safe_open(shop / "v.safetensors", "pt") as stored:
        seen = set(json.loads(stored.metadata()["hackward"])["pair_identities"])
    known, fresh = [], []
    for row, problem in zip(read_jsonl(file), load_problems(file)):
        (known if problem.identity in seen else fresh).append(row)
    assert known and fresh
    write_jsonl(tmp_path / "held_out.jsonl", [*known[:2], fresh[0]])
    out = run_train(
        shop,
        "--preset=smoke",
        "--teacher-dir=none",
        f"--eval-problems={tmp_path / 'held_out.jsonl'}",
        "--eval-samples=1",
        "--prompts=1",
        "--group=2",
        "--steps=1",
        "--max-new-tokens=3",
        "--workers=1",
        f"--out={tmp_path / 'run'}",
    )
    assert {line["problems"] for line in read_jsonl(out / "eval.jsonl")} == {1}
    assert read_json(out / "config.json")["held_out"] == "1 problems, 2 left out that v_hack was made from"
