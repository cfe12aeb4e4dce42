"""One process writes a directory at a time: the second one is refused, a dead one blocks nobody."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import evaluate
import probe_distill
from hackward.base import lock
from hackward.base.faults import InputError
from hackward.base.files import ROOT, read_json, write_json
from hackward.base.lock import LOCK, only_writer
from hackward.scheduling import commands
from hackward.tasks.shipped import TINY
from tests.desk import run as train_one
from tests.test_refusals import refused


def held_by_another(directory):
    """A process that holds the directory's lock until it is killed."""
    code = (
        f"from hackward.base.lock import only_writer\nwith only_writer({str(directory)!r}):\n"
        "    print('held', flush=True)\n    input()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "held\n"
    return holder


@pytest.fixture
def holder(tmp_path):
    """(directory, process that writes there)"""
    process = held_by_another(tmp_path / "held")
    yield tmp_path / "held", process
    process.kill()
    process.wait()


def test_what_another_process_writes_is_refused_to_every_command(desk, holder, capsys):
    path, process = holder
    who = f"{path}: process {process.pid} on "
    assert who in refused(capsys, lambda: train_one(desk, TINY, path))
    assert who in refused(capsys, lambda: train_one(desk, TINY, path, "--resume"))
    write_json(path / "config.json", {"kind": "sampled", "config": {}})
    write_json(path / "summary.json", {"steps": 1})
    flags = evaluate.EvaluateFlags(path)
    assert who in refused(capsys, lambda: evaluate.evaluate(flags))
    assert sorted(entry.name for entry in path.iterdir()) == [LOCK, "config.json", "summary.json"]


def test_a_pool_that_another_process_makes_is_refused(tmp_path, capsys):
    holder = held_by_another(tmp_path / "base_pool")
    flags = probe_distill.ProbeFlags(out=str(tmp_path), base_only=True)
    try:
        line = refused(capsys, lambda: probe_distill.main(flags))
    finally:
        holder.kill()
        holder.wait()
    assert f"base_pool: process {holder.pid} on " in line


def test_a_sweep_removes_nothing_that_another_process_writes(holder, monkeypatch):
    path, _ = holder

    class Job:
        state, note, flags = "start over", "", ()

    Job.path = path
    monkeypatch.setattr(commands, "survey", lambda job: None)  # its state is what it says above
    with pytest.raises(InputError, match="is writing there"):
        commands.going_on(Job, print)
    assert path.is_dir()


def test_the_lock_of_a_process_that_was_killed_blocks_nobody_and_goes(holder):
    path, process = holder
    process.kill()
    process.wait()
    assert (path / LOCK).exists()
    with only_writer(path):
        assert (path / LOCK).read_text().startswith(f"process {os.getpid()} on ")
    assert not list(path.iterdir())


def test_a_lock_file_that_its_holder_took_along_is_made_anew(tmp_path, monkeypatch):
    """Opened before the holder ended, locked after: the file has no name any more."""
    real, looks = lock.fcntl.flock, []

    def late(file, how):
        looks.append(how)
        if len(looks) == 1:
            (tmp_path / LOCK).unlink()
        real(file, how)

    monkeypatch.setattr(lock.fcntl, "flock", late)
    with only_writer(tmp_path):
        assert len(looks) == 2 and (tmp_path / LOCK).read_text()


def test_a_refused_run_leaves_no_directory(desk, tmp_path, capsys):
    refused(capsys, lambda: train_one(desk, TINY, tmp_path / "a" / "b", "--difficulty=hard"))
    assert not (tmp_path / "a").exists()


def test_what_only_a_killed_process_left_is_no_run(desk, tmp_path):
    (tmp_path / LOCK).write_text("process 1 on nowhere")
    (tmp_path / ".config.json.abc.tmp").write_text("{")
    train_one(desk, TINY, tmp_path)
    assert read_json(tmp_path / "summary.json")["finished"] and not (tmp_path / LOCK).exists()
