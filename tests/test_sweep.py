"""What sweep.py runs, skips, resumes and withholds, with a fast train.py; and once with the real one."""

from __future__ import annotations

import itertools
import os
import shlex
import shutil
import signal
import time

import pytest

import sweep
from hackward.base.faults import InputError
from hackward.base.files import read_json, read_jsonl, write_json
from hackward.scheduling import queue
from tests.sweeps import gone, in_background, names
from tests.test_refusals import refused

# --- what is run ---


def test_every_run_is_made_once_and_the_outcome_is_written(world, capsys):
    assert world.sweep() == 0
    assert world.started() == names("vanilla", "projected")
    assert [run["state"] for run in world.outcome()["plan"]] == ["new"] * 6
    assert world.states() == ["done"] * 6
    assert "next: python analyze.py" in capsys.readouterr().out


def test_what_a_sweep_says_to_type_can_be_typed_whatever_its_directory_is_called(world, capsys):
    out = world.home / "it's here"
    assert world.sweep(out=str(out), arms="vanilla", seeds="41") == 0
    said = capsys.readouterr().out.partition("next: ")[2]
    assert shlex.split(said) == ["python", "analyze.py", str(out)]
    log = (out / "vanilla-s41.log").read_text().splitlines()[0]
    assert f"--out={out / 'vanilla-s41'}" in shlex.split(log)
    world.sweep(out=str(out), arms="vanilla", seeds="42", on="print")
    assert f"analyze.py {shlex.quote(str(out))} once" in capsys.readouterr().err


@pytest.mark.parametrize("below", ["", "/below"])
def test_a_file_where_a_sweep_is_to_go_is_refused_by_name(world, below, capsys):
    file = world.home / "file"
    file.touch()
    line = refused(capsys, lambda: world.sweep(out=f"{file}{below}"))
    assert line == f"error: {file}: not a directory" and world.started() == []


def test_the_record_of_a_sweep_names_the_runs_of_earlier_calls_too(world):
    """One in two parts, by seeds or by arms, whose runs lie in one directory."""
    world.orders({"vanilla-s42": {"die": 2}})
    assert world.sweep(arms="vanilla", seeds="41,42") == 1
    first = world.outcome()["runs"]
    assert world.sweep(arms="projected", seeds="43") == 0
    record = world.outcome()
    assert [run["run"] for run in record["plan"]] == ["projected-s43"]
    assert record["runs"][1:] == first and world.states() == ["done", "done", "failed"]
    world.orders({})
    assert world.sweep(arms="vanilla", seeds="42") == 0
    runs = {run["run"]: run["state"] for run in world.outcome()["runs"]}
    assert runs == {"vanilla-s42": "done", "projected-s43": "done", "vanilla-s41": "done"}
    shutil.rmtree(world.out / "vanilla-s41")
    assert world.sweep(arms="projected", seeds="43") == 0
    assert [run["run"] for run in world.outcome()["runs"]] == ["projected-s43", "vanilla-s42"]


def test_a_run_of_an_earlier_call_that_was_finished_elsewhere_is_done(world):
    few = {"arms": "vanilla", "on": "print"}
    assert world.sweep(seeds="41", **few) == 0 and world.sweep(seeds="42", **few) == 0
    assert world.states() == ["printed"] * 2
    made = world.out / "vanilla-s41"
    write_json(made / "summary.json", {"finished": True, "steps": 4})
    assert world.sweep(seeds="42", **few) == 0
    (line,) = (run for run in world.outcome()["runs"] if run["run"] == made.name)
    assert (line["state"], line["steps_done"], line["hours_to_go"]) == ("done", 4, 0.0)


@pytest.mark.parametrize("text", ["{half", "[]", '{"runs": [{}]}', '{"runs": [{"run": 1, "steps": 4}]}'])
def test_a_damaged_record_of_a_sweep_is_not_written_over(world, text, capsys):
    world.out.mkdir()
    file = world.out / "sweep.json"
    file.write_text(text)
    line = refused(capsys, lambda: world.sweep(arms="vanilla", seeds="41"))
    assert line.startswith(f"error: {file}: no") and world.started() == [] and file.read_text() == text


def test_what_is_done_is_skipped_and_more_steps_go_on(world):
    few = {"arms": "vanilla", "seeds": "41"}
    assert world.sweep(**few) == 0
    world.forget()
    assert world.sweep(**few) == 0 and world.started() == []
    assert world.sweep(steps=2, **few) == 0 and world.started() == []  # has more steps than wanted
    assert world.sweep(steps=6, **few) == 0  # has fewer: it goes on
    assert [call["resume"] for call in world.calls()] == [True]
    assert len(read_jsonl(world.out / "vanilla-s41" / "rows.jsonl")) == 6


@pytest.mark.parametrize("jobs", [1, 2])
def test_so_many_runs_at_a_time_and_never_more(world, jobs):
    world.orders({name: {"sleep": 0.05} for name in names("vanilla")})
    assert world.sweep(arms="vanilla", jobs=jobs) == 0
    changes = [(call["time"], +1) for call in world.calls("start")]
    changes += [(call["time"], -1) for call in world.calls("end")]
    running = list(itertools.accumulate(change for _, change in sorted(changes)))
    assert max(running) == jobs


# --- failures ---


def test_a_failure_of_the_baseline_lets_its_stage_end_and_withholds_the_rest(world, capsys):
    world.orders({"vanilla-s42": {"die": 3}})
    assert world.sweep() == 1
    assert world.started() == names("vanilla")
    out = capsys.readouterr().out
    assert "failed: vanilla-s42: exit code 1: error: out of memory" in out
    assert "a traceback" in (world.out / "vanilla-s42.log").read_text()
    assert "withheld: projected-s41, projected-s42, projected-s43; vanilla-s42 failed" in out
    assert world.states() == ["done", "failed", "done"] + ["withheld"] * 3
    assert not world.outcome()["stopped"]
    world.orders({})
    world.forget()
    assert world.sweep() == 0
    assert world.started() == ["vanilla-s42", *names("projected")]
    assert world.calls()[0]["resume"]  # goes on from step 2


@pytest.mark.parametrize("seeds", [(41, 42, 43), (41,)])
def test_a_failure_of_the_first_projecting_arm_withholds_the_rest_but_one_of_the_rest_does_not(world, seeds):
    arms, listed = "vanilla,projected,lora", ",".join(map(str, seeds))
    world.orders({"projected-s41": {"die": 0}})
    assert world.sweep(arms=arms, seeds=listed) == 1
    assert world.started() == names("vanilla", "projected", seeds=seeds)
    world.orders({"lora-s41": {"die": 0}})
    world.forget()
    assert world.sweep(arms=arms, seeds=listed, controls="random") == 1
    assert world.started() == ["projected-s41", *names("lora", "projected-random", seeds=seeds)]


def test_anyway_withholds_nothing_after_a_failure(world):
    world.orders({"vanilla-s41": {"die": 0}})
    assert world.sweep(seeds="41", anyway=True) == 1
    assert world.started() == names("vanilla", "projected", seeds=(41,))


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("vanilla-s41", {"arms": "vanilla"}),
        ("projected-random-s41", {"arms": "projected", "controls": "random"}),
    ],
)
def test_a_run_that_died_before_its_first_checkpoint_starts_over(world, capsys, name, settings):
    world.orders({name: {"die": 1}})
    assert world.sweep(seeds="41", **settings) == 1
    world.orders({})
    world.sweep(seeds="41", dry_run=True, **settings)
    assert (world.out / name / "config.json").exists() and "start over" in capsys.readouterr().out
    (world.out / name / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"a run's \(notes.txt\)"):
        world.sweep(seeds="41", **settings)
    (world.out / name / "notes.txt").unlink()
    assert world.sweep(seeds="41", **settings) == 0
    assert "removed, it starts over" in capsys.readouterr().out
    assert [call["resume"] for call in world.calls() if call["run"] == name] == [False, False]


def test_a_finished_run_without_its_checkpoint_is_never_removed(world):
    assert world.sweep(arms="vanilla", seeds="41") == 0
    (world.out / "vanilla-s41" / "checkpoint.safetensors").unlink()
    with pytest.raises(InputError, match="finished 4 of 6 steps"):
        world.sweep(arms="vanilla", seeds="41", steps=6)
    assert (world.out / "vanilla-s41" / "summary.json").exists()


# --- interrupts and locks ---


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_the_runs_and_leaves_them_resumable(world, how):
    world.orders({name: {"hang": 3} for name in names("vanilla")})  # so none ends before the signal comes
    started = ("vanilla-s41", "vanilla-s42")
    process = in_background(world, until=3, runs=started, arms="vanilla", jobs=2, steps=8)
    os.kill(process.pid, how)
    process.join(60)
    assert process.exitcode == 130
    assert len(world.calls()) == 2 and world.calls("end") == []
    assert all(gone(call["pid"]) for call in world.calls())
    assert world.states() == ["interrupted", "interrupted", "new"]
    world.orders({})
    world.forget()
    assert world.sweep(arms="vanilla", steps=8) == 0
    assert world.calls()[0]["resume"]
    rows = read_jsonl(world.out / "vanilla-s41" / "rows.jsonl")
    assert [row["step"] for row in rows] == list(range(8))


def test_two_sweeps_never_share_a_directory_even_when_one_was_killed(world, capsys):
    world.orders({"vanilla-s41": {"sleep": 0.3}})
    process = in_background(world, until=1, arms="vanilla", seeds="41")
    with pytest.raises(InputError, match=f"sweep.lock: held by the sweep with pid {process.pid}"):
        world.sweep(arms="vanilla", seeds="42")
    process.kill()
    process.join()
    child = world.calls()[0]["pid"]
    assert not gone(child)
    with pytest.raises(InputError, match="held by"):  # the run that was left behind still writes there
        world.sweep(arms="vanilla", seeds="41")
    while not gone(child):
        time.sleep(0.02)
    world.forget()
    assert world.sweep(arms="vanilla", seeds="41,42") == 0
    assert world.started() == ["vanilla-s42"]  # s41 finished by itself
    assert f"stale lock of pid {process.pid}" in capsys.readouterr().out
    assert (world.out / "sweep.lock").read_text() == ""


# --- the real thing ---


def test_the_real_train_runs_and_is_skipped_the_second_time(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(queue, "POLL", 0.05)
    out = tmp_path / "runs"
    flags = ["--preset=smoke", "--steps=1", "--seeds=41", "--arms=vanilla", f"--out={out}"]
    command = [*flags, "--", "--v-hack=none", "--teacher-dir=none", "--eval-samples=0", "--sandbox=none"]
    log = out / "vanilla-s41.log"
    assert sweep.main(command) == 0, log.read_text()
    assert len(read_jsonl(out / "vanilla-s41" / "rows.jsonl")) == 1
    before = log.read_text()
    assert sweep.main(command) == 0 and log.read_text() == before
    assert "1 done" in capsys.readouterr().out
    assert read_json(out / "vanilla-s41" / "config.json")["seconds_set_up"] > 0
