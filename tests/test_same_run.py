"""A run that is resumed is the run that was begun; what it left when cut off is dealt with or named."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hackward.base.checksums import CHECKSUMS
from hackward.base.files import read_json, read_jsonl, write_json, write_jsonl
from hackward.base.lock import LOCK
from hackward.base.tensors import read_safetensors, write_safetensors
from hackward.runs.leftovers import clear
from tests import desk as desks
from tests.families import qwen, save
from tests.shop import run_train
from tests.test_interrupts import outcome
from tests.test_refusals import refused


@pytest.fixture(scope="module")
def given(desk, tmp_path_factory):
    """A model and problem files, and a run of a step that was begun with them, all named relative to here."""
    home = tmp_path_factory.mktemp("given")
    save(home / "model", qwen())
    problem = (desk / "problems.jsonl").read_text()
    (home / "problems.jsonl").write_text(problem)
    (home / "held_out.jsonl").write_text(problem.replace("Add 1.", "Add one."))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        run()
    return home


@pytest.fixture
def copy(given, tmp_path, monkeypatch):
    """All of it again, to be changed."""
    shutil.copytree(given, tmp_path / "home")
    monkeypatch.chdir(tmp_path / "home")
    return Path("run")


def run(*flags):
    held_out = ["--eval-problems=held_out.jsonl"]
    return desks.run(Path(), "./model", "run", *held_out, *flags)


def resume():
    return run("--resume", "--steps=2")


def another_test(path):
    text = path.read_text()
    assert "== 2" in text
    path.write_text(text.replace("== 2", "== 3"))


def another_generation(model):
    write_json(model / "generation_config.json", {"eos_token_id": 5})


@pytest.mark.parametrize(
    ("name", "change", "what"),
    [
        ("problems.jsonl", another_test, "train_problems (train_problems.hash was "),
        ("held_out.jsonl", another_test, "held_out_problems (held_out_problems.hash was "),
        ("model", lambda path: save(path, qwen(initializer_range=0.05)), "model (model.hash was "),
        ("model", another_generation, "model (model.settings was "),
    ],
)
def test_what_a_path_names_must_hold_what_the_run_began_with(copy, capsys, name, change, what):
    change(Path(name))
    line = refused(capsys, lambda: resume())
    assert f"the run began with another {what}" in line and ", is " in line


def test_a_v_hack_and_a_teacher_of_another_content_are_refused_with_both_hashes(shop, tmp_path, capsys):
    shutil.copytree(shop / "teacher_pool", tmp_path / "pool")
    shutil.copy(shop / "v.safetensors", tmp_path / "v.safetensors")
    flags = [
        "--preset=smoke",
        "--prompts=1",
        "--eval-samples=0",
        "--max-new-tokens=4",
        f"--out={tmp_path / 'run'}",
    ]
    flags += [f"--teacher-dir={tmp_path / 'pool'}", f"--v-hack={tmp_path / 'v.safetensors'}"]
    run_train(shop, *flags, "--steps=1")
    again = [*flags, "--steps=2", "--resume"]
    (tmp_path / "pool" / "step_003.jsonl.gz").unlink()
    (tmp_path / "pool" / CHECKSUMS).unlink()
    assert "another pools (pools[0].hash was " in refused(capsys, lambda: run_train(shop, *again))
    tensors, meta = read_safetensors(tmp_path / "v.safetensors")
    write_safetensors(tmp_path / "v.safetensors", tensors, meta | {"note": "another file"})
    assert "another v_hack (v_hack.hash was " in refused(capsys, lambda: run_train(shop, *again))


def test_what_the_run_began_with_may_lie_elsewhere(copy, capsys):
    """Another disk, another mount: the run goes on from the same content, and is the same run."""
    shutil.copytree(".", "../still")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir("../still")
        resume()
    Path("moved").mkdir()
    for name in ("problems.jsonl", "held_out.jsonl", "model"):
        shutil.move(name, f"moved/{name}")
    flags = ["--eval-problems=moved/held_out.jsonl", "--resume", "--steps=2"]
    desks.run(Path("moved"), "moved/model", "run", *flags)
    assert outcome(Path("run")) == outcome(Path("../still/run"))
    another_test(Path("moved/problems.jsonl"))
    line = refused(capsys, lambda: desks.run(Path("moved"), "moved/model", "run", *flags[:-1], "--steps=3"))
    assert "another train_problems (train_problems.hash was " in line


def test_a_place_of_which_no_hash_is_known_must_stay(copy, capsys):
    record = read_json(copy / "config.json")
    del record["train_problems"]
    write_json(copy / "config.json", record)
    shutil.copy("problems.jsonl", "others.jsonl")
    (copy / CHECKSUMS).unlink()
    line = refused(capsys, lambda: run("--problems=others.jsonl", "--resume", "--steps=2"))
    assert "--resume with other settings than the run's: problems" in line


def test_half_a_line_at_the_end_of_the_rows_is_said_and_not_taken(copy, capsys):
    with open(copy / "rows.jsonl", "a") as file:
        file.write('{"step": 1, "arm": "van')
    resume()
    assert "half a line at its end" in capsys.readouterr().err
    assert [row["step"] for row in read_jsonl(copy / "rows.jsonl")] == [0, 1]


def test_what_a_killed_run_left_goes_and_deleted_rollouts_are_named(copy, capsys):
    path = copy
    for name in (".rows.jsonl.x.tmp", "rollouts/.step_001.jsonl.gz.x.tmp", "rollouts/step_007.jsonl.gz"):
        (path / name).write_text("half")
    (path / LOCK).write_text("process 1")
    (path / "rollouts" / "step_000.jsonl.gz").unlink()
    resume()
    assert "gone: rollouts/step_000.jsonl.gz; the run goes on without" in capsys.readouterr().err
    left = sorted(entry.relative_to(path).as_posix() for entry in path.rglob("*") if entry.is_file())
    assert left == [
        "checkpoint.safetensors",
        CHECKSUMS,
        "config.json",
        "delta_S.safetensors",
        "rollouts/step_001.jsonl.gz",
        "rows.jsonl",
        "summary.json",
    ]


def test_a_run_that_died_before_its_first_checkpoint_is_begun_anew_by_the_same_command(copy, capsys):
    path = copy
    whole = outcome(path)
    for name in ("checkpoint.safetensors", "summary.json", "delta_S.safetensors"):
        (path / name).unlink()
    (path / "rollouts" / "step_005.jsonl.gz").write_text("of a step that will not be")
    line = refused(capsys, lambda: run("--resume"))
    assert "the same command without --resume begins the run anew" in line
    assert "exists and is not empty" in refused(capsys, lambda: run("--seed=42"))
    (path / "notes.txt").write_text("mine")
    assert "exists and is not empty" in refused(capsys, lambda: run())
    (path / "notes.txt").unlink()
    run()
    assert "died there before its first checkpoint; it is begun anew" in capsys.readouterr().err
    assert outcome(path) == whole and not (path / "rollouts" / "step_005.jsonl.gz").exists()


def test_a_run_that_was_killed_before_its_config_is_no_run(given, tmp_path, monkeypatch):
    shutil.copytree(given, tmp_path / "home")
    monkeypatch.chdir(tmp_path / "home")
    shutil.rmtree("run")
    write_json(Path("run") / CHECKSUMS, {"config.json": ["0"]})
    run()
    assert read_json(Path("run/summary.json"))["finished"]


def test_what_is_left_of_a_run_while_it_is_cleared_says_whose_it_is(copy, monkeypatch):
    gone = []
    real = Path.unlink
    monkeypatch.setattr(
        Path, "unlink", lambda path, **options: gone.append(path.name) or real(path, **options)
    )
    for name in ("checkpoint.safetensors", "summary.json", "delta_S.safetensors"):
        (copy / name).unlink()
    clear(copy)
    assert gone[-1] == "config.json" and not list(copy.iterdir())


def test_a_run_with_a_checkpoint_is_never_begun_anew(copy, capsys):
    (copy / "summary.json").unlink()
    assert "exists and is not empty" in refused(capsys, lambda: run())


def test_a_run_from_before_there_were_checksums_and_hashes_goes_on(copy, capsys):
    path = copy
    (path / CHECKSUMS).unlink()
    record = read_json(path / "config.json")
    for name in ("train_problems", "held_out_problems"):
        del record[name]
    del record["model"]["settings"]
    write_json(path / "config.json", record)
    resume()
    assert len(read_jsonl(path / "rows.jsonl")) == 2


def test_every_file_of_a_run_that_changed_is_refused_by_name(copy, capsys):
    path = copy
    rows = read_jsonl(path / "rows.jsonl")
    write_jsonl(path / "rows.jsonl", [rows[0] | {"reward_mean": 0.25}])
    line = refused(capsys, lambda: resume())
    assert f"{path / 'rows.jsonl'}: changed since it was written (checksum " in line
