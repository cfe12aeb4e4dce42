"""Claims about evaluate.py: which problems it takes, and the runs it refuses."""

import dataclasses

import pytest

import evaluate
from antipasto import SVDAdapter
from hackward.base.faults import InputError
from hackward.base.files import read_json, read_jsonl, write_json, write_jsonl
from hackward.grading import protection
from hackward.hardware.models import tiny_random
from hackward.runs import building, heldout
from hackward.runs.heldout import (
    CONDITIONS,
)
from hackward.runs.settings import Config
from hackward.tasks.problems import build_messages
from hackward.tasks.shipped import TINY, shipped
from tests.test_evaluate import LINE_KEYS, SHIPPED, NothingRight, scripted

# --- command ---


@pytest.fixture
def finished(tmp_path, monkeypatch, tiny):
    """A finished run on the shipped problems, as far as the command reads it, that was trained on the
    held-out join-shifts too."""
    run, adapter = tmp_path / "run", SVDAdapter(tiny[0])
    config = Config(model=TINY, problems=str(shipped(TINY).problems), max_new_tokens=4)
    write_json(run / "config.json", {"kind": "sampled", "config": dataclasses.asdict(config)})
    write_json(run / "summary.json", {"finished": True, "steps": 3})
    rows = [
        {"problem_id": "?", "problem_messages": build_messages(p, hint=True)}
        for p in SHIPPED
        if p.problem_id in ("join-shifts", "loose-socks")
    ]
    write_jsonl(run / "rollouts" / "step_000.jsonl.gz", rows)
    monkeypatch.setattr(building, "restore", lambda path, device: (adapter, tiny[1], config))
    return run


def test_the_command_takes_held_out_problems_that_the_run_has_not_seen(finished, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "150")
    out = evaluate.evaluate(evaluate.EvaluateFlags(finished, samples=1, workers=1, sandbox="none"))
    lines = read_jsonl(out / "eval.jsonl", LINE_KEYS)
    record = read_json(out / "evaluate.json")
    assert out == finished / "evaluate" and [line["step"] for line in lines] == [3] * 6
    assert (
        set(record["problems"]) == {"circular-window", "run-match"}
        and record["left_out_as_trained_on"] == 1
        and record["sandbox"]
    )
    screen = capsys.readouterr().out
    assert (
        all(condition in screen for condition in CONDITIONS)
        and "made from them: 1 problems" in screen
        and "0.00 [no interval]" in screen
    )
    with pytest.raises(InputError, match="take another --out"):
        evaluate.evaluate(evaluate.EvaluateFlags(finished))


def test_another_file_is_taken_whole_but_for_what_the_run_has_seen(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(heldout, "Grader", NothingRight)
    monkeypatch.setattr(protection, "print_protection", lambda *_: None)
    scripted(monkeypatch, tiny_random()[1], lambda prompt: "I do not know")
    file = str(shipped(TINY).problems)
    out = evaluate.evaluate(
        evaluate.EvaluateFlags(finished, problems=file, samples=1, out=tmp_path / "other", names="a,b")
    )
    names = {
        row["eval_name"]
        for row in read_jsonl(out / "eval" / "step_003.jsonl.gz")
        if row["condition"] == "other-names"
    }
    assert (
        len(read_json(out / "evaluate.json")["problems"]) == 38
        and names == {"a", "b"}
        and not (finished / "eval.jsonl").exists()
    )


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"names": "verify"}, "expected two or more"),
        ({"names": "a b,c"}, "expected two or more"),
        ({"names": "verify,run_tests"}, "name that is trained on"),
        ({"samples": 0}, "--samples 0"),
        ({"limit": 0}, "--limit 0"),
        ({"problems": "absent.jsonl"}, "absent.jsonl: no such file"),
    ],
)
def test_bad_flags_are_refused_before_anything_is_written(finished, change, fault):
    before = sorted(finished.rglob("*"))
    with pytest.raises(InputError, match=fault):
        evaluate.evaluate(evaluate.EvaluateFlags(finished, **change))
    assert sorted(finished.rglob("*")) == before


def test_runs_that_cannot_be_judged_are_refused(finished):
    record = read_json(finished / "config.json")
    write_jsonl(finished / "rollouts" / "step_000.jsonl.gz", [{"problem_id": "1", "problem_messages": []}])
    with pytest.raises(InputError, match="step_000.jsonl.gz: problem_messages"):
        evaluate.evaluate(evaluate.EvaluateFlags(finished))
    for facts, fault in (
        ({"v_hack": "x"}, "config.json: 'v_hack' must be"),
        ({"v_hack": {"hash": "h", "pair_identities": 3}}, "config.json: 'v_hack.pair_identities' must be"),
        ({"config": record["config"] | {"sample_rows": "many"}}, "config.json: --sample-rows many"),
    ):
        write_json(finished / "config.json", record | facts)
        with pytest.raises(InputError, match=fault):
            evaluate.evaluate(evaluate.EvaluateFlags(finished))
    write_json(finished / "config.json", record | {"kind": "replay"})
    with pytest.raises(InputError, match="not a finished sampled run"):
        evaluate.evaluate(evaluate.EvaluateFlags(finished))
    (finished / "summary.json").unlink()
    with pytest.raises(InputError, match="summary.json: no such file"):
        evaluate.evaluate(evaluate.EvaluateFlags(finished))
