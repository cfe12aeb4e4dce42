"""A damaged run is not gone on with: --resume says what is wrong, and loses nothing."""

from __future__ import annotations

import shutil

import pytest
from safetensors.torch import save_file

from hackward.base.files import read_json, read_jsonl, write_json, write_jsonl
from tests.shop import SHORT, run_train
from tests.test_refusals import refused


@pytest.fixture(scope="module")
def finished(shop, tmp_path_factory):
    """A finished run of a step, sampled and evaluated; tests damage copies of it."""
    out = tmp_path_factory.mktemp("resume") / "run"
    return run_train(shop, *SHORT, "--steps=1", f"--out={out}")


def rows_with(**fields):
    def damage(run):
        (row,) = read_jsonl(run / "rows.jsonl")
        changed = (row | fields).items()
        write_jsonl(run / "rows.jsonl", [{key: value for key, value in changed if value is not ...}])

    return damage


def evaluation_with_text(run):
    lines = [line | {"seconds": "x"} for line in read_jsonl(run / "eval.jsonl")]
    write_jsonl(run / "eval.jsonl", lines)


def config_with(**facts):
    return lambda run: write_json(run / "config.json", read_json(run / "config.json") | facts)


def checkpoint_without_step(run):
    meta = f'{{"kind": "checkpoint", "model_hash": "{read_json(run / "config.json")["model"]["hash"]}"}}'
    save_file({}, run / "checkpoint.safetensors", metadata={"hackward": meta})


def a_file_for_rollouts(run):
    shutil.rmtree(run / "rollouts")
    (run / "rollouts").write_text("")


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (rows_with(logp_gap=...), "rows.jsonl: row 1: no field 'logp_gap'"),
        (rows_with(seconds=...), "rows.jsonl: row 1: no field 'seconds'"),
        (rows_with(seconds=None), "rows.jsonl: row 1: 'seconds' must be a number"),
        (rows_with(groups_skipped="x"), "rows.jsonl: row 1: 'groups_skipped' must be a whole number"),
        (evaluation_with_text, "eval.jsonl: row 1: 'seconds' must be a number"),
        (config_with(resumed=5), "config.json: 'resumed' must be a list, found 5"),
        (checkpoint_without_step, "checkpoint.safetensors: its metadata names no step"),
        (a_file_for_rollouts, "rollouts: not a directory"),
    ],
)
def test_a_damaged_run_is_not_resumed_and_keeps_what_it_has(shop, finished, tmp_path, capsys, damage, fault):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    damage(run)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    again = [*SHORT, "--steps=2", f"--out={run}", "--resume"]
    assert fault in refused(capsys, lambda: run_train(shop, *again))
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
