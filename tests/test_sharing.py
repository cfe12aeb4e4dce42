"""Claims about the table of runs that share a GPU: what is counted, who is in which service, what fails."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
import time

import pytest
import torch
from rich.console import Console

from hackward.base.faults import InputError
from hackward.base.files import ROOT
from hackward.benchmarks import sharing
from hackward.benchmarks.flags import BenchFlags, resolve
from hackward.benchmarks.parts import Bench
from hackward.hardware.cores import THREADS


def steps(*seconds: float) -> dict:
    """What the section step of a run finds."""
    fields = ("seconds", "seconds_generate", "seconds_grade", "seconds_backward")
    return {"step": {"steps": [dict.fromkeys(fields, second) for second in seconds]}}


def shown(ways: dict) -> str:
    console = Console(width=160, file=io.StringIO())
    console.print(sharing.show_sharing({"ways": ways})[0])
    return console.file.getvalue()


@pytest.fixture
def bench(monkeypatch):
    """A bench with a GPU, three runs at once; how runs end, by their number at once; and the calls."""
    calls = []

    def ended(commands, environment):
        calls.append((commands, environment))
        said = []
        for number, words in enumerate(commands):
            found = ends[len(commands)][number]
            out = next(flag for flag in words if flag.startswith("--out=")).partition("=")[2]
            if isinstance(found, dict):
                with open(out, "w") as file:
                    json.dump(found, file)
            said.append(found if isinstance(found, str) else "")
        return said

    ends = {1: [steps(9, 2)], 3: [steps(9, 4, 4), steps(9, 4, 5), steps(9, 3, 4)]}
    monkeypatch.setattr(sharing, "ended", ended)
    monkeypatch.setattr(sharing, "in_turns", lambda: contextlib.nullcontext({"PIPES": "nobody"}))
    monkeypatch.setattr(sharing, "at_the_same_time", lambda: contextlib.nullcontext({"PIPES": "service"}))
    monkeypatch.setattr(sharing, "share_of_cores", lambda runs: 12 // runs)
    monkeypatch.delenv(THREADS, raising=False)
    config = resolve(BenchFlags(sections="sharing", per_gpu=3, step_prompts=8))
    return Bench(config, torch.device("cuda"), None), ends, calls


def test_what_counts_is_what_all_runs_make_together_after_their_first_steps(bench):
    """One run: a step in 2 s, 1,800 per hour. Three at once: the median of 3, 4, 4, 4, 4, 5 is 4 s: 2,700."""
    found = sharing.measure_sharing(bench[0])["ways"]
    assert found["alone"]["steps_per_hour"] == 1800
    assert found["in turns"]["steps_per_hour"] == 2700 and found["in turns"]["step"] == 4
    assert "1.50" in shown(found)


def test_every_way_has_its_environment_and_its_share_of_the_cores(bench):
    sharing.measure_sharing(bench[0])
    (one, alone), (three, turns), (_, together) = bench[2]
    assert alone == {"PIPES": "nobody"} and len(one) == 1
    assert turns == {"PIPES": "nobody", THREADS: "1"}
    assert together == {"PIPES": "service", THREADS: "1"}
    assert one[0][1] == str(ROOT / "bench.py")
    assert "--workers=12" in one[0] and all("--workers=4" in words for words in three)
    assert all("--step-prompts=8" in words and "--sections=step" in words for words in three)


def test_a_run_that_fails_is_the_reason_of_its_way_and_the_others_stand(bench):
    bench[1][3][1] = "noise\nerror: the disk is full\nTraceback"
    found = sharing.measure_sharing(bench[0])["ways"]
    assert "error" not in found["alone"] and found["in turns"]["error"] == "error: the disk is full"
    bench[1][3][1] = {"step": {"error": "out of memory"}}
    assert sharing.measure_sharing(bench[0])["ways"]["in turns"]["error"] == "out of memory"
    assert "out of memory" in shown(found | {"in turns": {"error": "out of memory"}})


def test_where_mps_cannot_be_had_the_other_ways_stand(bench, monkeypatch):
    def nothing():
        raise InputError("no such service")

    monkeypatch.setattr(sharing, "at_the_same_time", nothing)
    found = sharing.measure_sharing(bench[0])["ways"]
    assert found["at the same time"] == {"error": "no such service"} and "error" not in found["in turns"]


def test_without_a_gpu_nothing_is_said_of_mps(bench):
    without = Bench(bench[0].config, torch.device("cpu"), None)
    assert list(sharing.measure_sharing(without)["ways"]) == ["alone", "in turns"]


# --- processes ---

# Says its number, and takes a file away when it is asked to end
RUN = """
import os, pathlib, signal, sys, time
def leave(*_):
    os.remove(sys.argv[1])
    sys.exit()
signal.signal(signal.SIGTERM, leave)
pathlib.Path(sys.argv[1]).write_text(str(os.getpid()))
time.sleep(60)
"""


def running(*files) -> list[list[str]]:
    """Commands of runs that last."""
    return [[sys.executable, "-c", RUN, str(file)] for file in files]


def test_runs_that_take_too_long_are_asked_to_end_and_remove_their_files(tmp_path, monkeypatch):
    monkeypatch.setattr(sharing, "LIMIT", 2)
    with pytest.raises(TimeoutError, match="^took more than 2 s$"):
        sharing.ended(running(tmp_path / "a", tmp_path / "b"), {})
    assert list(tmp_path.iterdir()) == []


def test_runs_work_where_the_benchmark_was_started_and_files_named_from_there_are_found(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (said,) = sharing.ended([[sys.executable, "-c", "import os; print(os.getcwd())"]], {})
    assert said.strip() == str(tmp_path)


def test_a_run_that_does_not_start_leaves_no_other_behind(tmp_path, monkeypatch):
    started = []
    original = subprocess.Popen

    def popen(words, **options):
        if started:
            raise OSError("no process can be had")
        started.append(original(words, **options))
        return started[0]

    monkeypatch.setattr(subprocess, "Popen", popen)
    with pytest.raises(OSError, match="no process"):
        sharing.ended(running(tmp_path / "a", tmp_path / "b"), {})
    assert started[0].poll() is not None


def test_a_run_that_does_not_end_is_killed(monkeypatch):
    monkeypatch.setattr(sharing, "LIMIT", 2)
    monkeypatch.setattr(sharing, "GRACE", 0.5)
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        sharing.ended([[sys.executable, "-c", deaf]], {})
    assert time.monotonic() - began < 20


def test_a_group_of_one_learns_nothing_and_is_refused_at_once():
    with pytest.raises(InputError, match="--step-group 1: must be at least 2"):
        resolve(BenchFlags(step_group=1))
