"""Claims about what runs and directions are called, and which are taken for the same."""

from __future__ import annotations

import random

import pytest

from hackward.base.files import read_json, write_json
from hackward.reports.arms import by_arm
from hackward.reports.labels import counted
from hackward.reports.nulls import one_direction
from hackward.reports.run_tables import direction_blocks, runs_table
from hackward.reports.runs import find_runs
from hackward.reports.words import UNDEFINED
from tests.runs_on_disk import read, replay_rows, replay_samples, row, run_main, sampled_rows, write_run


@pytest.mark.parametrize(
    ("settings", "vanilla", "projects", "label", "flag"),
    [
        ({"arm": "vanilla"}, True, False, "vanilla", "vanilla"),
        ({"arm": "projected"}, False, True, "projected", "projected"),
        ({"arm": "projected", "gate": "none"}, True, False, "vanilla", "vanilla"),
        ({"arm": "lora", "gate": "none"}, True, False, "lora vanilla", "lora"),
        ({"arm": "lora", "gate": "two-sided"}, False, True, "lora", "lora"),
        ({"arm": "projected", "control": "shrink"}, False, False, "projected", "projected"),
        ({"arm": "projected", "control": "random"}, False, True, "projected", "projected"),
    ],
)
def test_what_an_arm_does_follows_from_arm_gate_and_control(
    tmp_path, settings, vanilla, projects, label, flag
):
    write_run(tmp_path / "run", "sampled", [row()], **settings)
    (run,) = read(tmp_path).values()
    assert (run.arm.vanilla, run.arm.projects, run.arm.label) == (vanilla, projects, label)
    assert runs_table([run]).cells()[0][2] == flag and run.label.startswith(label)


def test_labels_name_only_what_differs(tmp_path):
    dice = random.Random(4)
    update = {"arm": "projected", "project_at": "update"}
    for seed in (1, 2):
        write_run(tmp_path / f"v{seed}", "sampled", sampled_rows(dice), seed=seed)
        write_run(tmp_path / f"u{seed}", "sampled", sampled_rows(dice), seed=seed, **update)
    control = {"arm": "projected", "project_at": "grad", "control": "random"}
    write_run(tmp_path / "r", "sampled", sampled_rows(dice), seed=1, **control)
    labels = [run.label for run in find_runs(tmp_path)[0]]
    real = ["vanilla s1", "vanilla s2", "projected update s1", "projected update s2"]
    assert labels == [*real, "projected random grad s1"]


def test_runs_with_the_same_label_are_counted_and_arms_are_not_counted_twice(tmp_path):
    """Paths would fill half a table; the table of runs has them."""
    assert counted(["a", "b", "a", "a"]) == ["a", "b", "a (2)", "a (3)"]
    for name, more in {
        "a": {"seed": 1},
        "b": {"seed": 1},
        "c": {"seed": 1, "temperature": 0.5},
        "d": {"seed": 2},
    }.items():
        write_run(tmp_path / name, "sampled", [row()], **{"temperature": 1.0} | more)
    runs = find_runs(tmp_path)[0]
    assert {run.path.name: run.label for run in runs} == {
        "a": "vanilla s1",
        "b": "vanilla s1 (2)",
        "c": "vanilla s1 (3)",
        "d": "vanilla s2",
    }
    arms = by_arm(runs)
    assert {arm.name: sorted(run.path.name for run in arm.runs.values()) for arm in arms} == {
        "vanilla": ["a", "d"],
        "vanilla (2)": ["c"],
    }


PLAIN = {"objective": "nll", "basis": "svd", "coordinates": "svd", "normaliser": "length", "temperature": 1.0}


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({}, ""),
        ({"normaliser": None}, ""),
        ({"objective": "grpo"}, " grpo"),
        ({"coordinates": "lora r8"}, " lora r8"),
        ({"coordinates": "lora r4"}, " lora r4"),
        ({"normaliser": "fixed"}, " fixed"),
        ({"temperature": 0.9}, " T0.9"),
        ({"objective": "grpo", "normaliser": "fixed", "temperature": 0.9}, " grpo fixed T0.9"),
    ],
)
def test_a_direction_is_named_by_all_that_made_it(tmp_path, more, words):
    """One that the run extracted has the hash of its pairs, however it was made of them."""
    facts = PLAIN | {"hash": "0123456789"} | more
    write_run(tmp_path / "own", "sampled", [row()], facts={"v_hack": facts})
    write_run(tmp_path / "file", "sampled", [row()], facts={"v_hack": facts | {"file": "out/v.safetensors"}})
    found = {name: run.direction for name, run in read(tmp_path).items()}
    assert found == {"own": f"extracted-by-the-run 01234567{words}", "file": f"v 01234567{words}"}


@pytest.mark.parametrize("more", [{"normaliser": "fixed"}, {"temperature": 0.9}])
def test_directions_of_the_same_pairs_that_were_made_otherwise_are_not_pooled(tmp_path, more):
    dice = random.Random(3)
    for name, made in {"a": {}, "b": more}.items():
        facts = {"v_hack": PLAIN | {"hash": "0123456789"} | made}
        write_run(tmp_path / name, "replay", replay_rows(dice, 5), replay_samples(dice, 5), facts=facts)
        write_run(tmp_path / f"p{name}", "sampled", [row()], facts=facts, arm="projected", seed=ord(name))
    runs = read(tmp_path)
    assert runs["a"].setting != runs["b"].setting and not one_direction([runs["a"], runs["b"]])
    assert len(by_arm(list(runs.values()))) == 2


def test_runs_are_judged_together_only_under_one_direction(tmp_path, capsys):
    dice = random.Random(3)
    samples = replay_samples(dice, 5)
    for name in ("a", "b"):
        run = write_run(tmp_path / name, "replay", replay_rows(dice, 5), samples)
        record = read_json(run / "config.json")
        record["v_hack"]["hash"] = name * 8
        record["warning"] = "RANDOM WEIGHTS"
        record["pools"][0]["seen_by_v_hack"] = True
        write_json(run / "config.json", record)
    run_main(tmp_path)
    printed = capsys.readouterr().out
    assert printed.count("Phase 3: decision rules") == 2
    assert "not held out" in printed and "WARNING" in printed


def test_phase_1_says_that_its_pool_was_seen_by_v_hack(tmp_path, capsys):
    dice = random.Random(3)
    run = write_run(tmp_path / "nll", "phase1", replay_rows(dice, 1), replay_samples(dice, 1))
    record = read_json(run / "config.json")
    for seen in (False, True):
        record["pools"][0]["seen_by_v_hack"] = seen
        write_json(run / "config.json", record)
        run_main(tmp_path)
        assert ("not held out" in capsys.readouterr().out) is seen


def test_the_quality_of_v_hack_is_printed_with_its_permutation_p(tmp_path):
    right_sign = {"value": 0.9375, "null": [0.33, 0.67], "p": 0.001}
    auc = {"value": 0.5, "null": [None, None], "p": None}
    quality = {"pairs": 48, "right_sign": right_sign, "auc": auc}
    facts = {"v_hack": PLAIN | {"hash": "0123456789", "heldout": quality}}
    write_run(tmp_path / "run", "sampled", [row()], facts=facts)
    (table,) = direction_blocks(find_runs(tmp_path)[0])
    shown = ["48", "0.938", "0.33 to 0.67", "0.001", "0.500", "undefined to undefined", UNDEFINED]
    assert table.cells()[0][2:] == shown
