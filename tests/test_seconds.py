"""What a run records of its own seconds: the set-up, and the held-out evaluations of all its sessions."""

from __future__ import annotations

import pytest

from hackward.base.checksums import Checksums
from hackward.base.files import read_json, read_jsonl, write_json, write_jsonl
from hackward.runs.settings import parse
from hackward.scheduling.price import speed_of
from train import train


def test_a_run_records_its_set_up_and_the_evaluations_of_all_its_sessions(tmp_path):
    run = tmp_path / "run"
    flags = ["--preset=smoke", "--steps=2", "--prompts=1", "--v-hack=none", "--save-every=1", "--workers=1"]
    flags += ["--eval-samples=1", "--eval-limit=1", "--eval-every=1", f"--out={run}"]
    train(parse(flags))
    record, lines = read_json(run / "config.json"), read_jsonl(run / "eval.jsonl")
    assert record["seconds_set_up"] > 0
    assert all(line["seconds"] > 0 for line in lines) and len({line["seconds"] for line in lines}) == 2

    # As if it had been cut off in its last evaluation, long after a first one of 1000 s.
    put = Checksums(run).writing
    first = [line | {"seconds": 1000.0} for line in lines if line["step"] == 1]
    write_jsonl(run / "eval.jsonl", first, put=put)
    write_json(run / "config.json", record | {"seconds_set_up": 5000.0}, put=put)
    (run / "summary.json").unlink()
    train(parse([*flags, "--resume"]))
    summary, second = read_json(run / "summary.json"), read_jsonl(run / "eval.jsonl")[-1]["seconds"]
    assert 0 < second < 1000
    assert summary["seconds_evaluating"] == pytest.approx(1000 + second)
    steps = sum(row["seconds"] for row in read_jsonl(run / "rows.jsonl"))
    assert summary["seconds"] == pytest.approx(steps + 1000 + second)
    assert 0 < read_json(run / "config.json")["seconds_set_up"] < 5000  # of the process that went on
    speed = speed_of(run)
    assert speed.evaluation == pytest.approx((1000 + second) / 2)
    assert speed.set_up == read_json(run / "config.json")["seconds_set_up"]
