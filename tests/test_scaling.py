"""Claims about the table of a step on several GPUs: its medians, its model of a step, its forecast."""

import dataclasses
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from rich.console import Console

from hackward.base.faults import InputError
from hackward.benchmarks import scaling
from hackward.benchmarks.flags import BenchFlags, resolve
from hackward.benchmarks.parts import Bench
from hackward.benchmarks.scaling import forecast_for, medians, share, show_scaling

GROUPS = 43


def row(scale, **more):
    spent = {"seconds": 10.0, "seconds_generate": 4.0, "seconds_grade": 1.0, "seconds_backward": 3.0}
    return {name: value * scale for name, value in spent.items()} | more


def test_the_first_step_warms_up_and_rest_is_what_the_parts_leave():
    found = medians([row(9), row(1, seconds_waiting=0.5), row(2, seconds_waiting=0.7), row(1)])
    assert found["step"] == 10 and found["sampling"] == 4 and found["rest"] == 2
    assert found["waiting"] == 0.5 and found["exchange"] == 0
    assert medians([row(3)])["step"] == 30


def test_whole_groups_are_dealt_so_43_of_them_on_8_gpus_are_6():
    assert [share(GROUPS, count) for count in (1, 2, 4, 8)] == [1, 22 / 43, 11 / 43, 6 / 43]


def test_the_forecast_is_that_of_the_step_s_own_law():
    """Sampling 2 + 6 s, grades nothing, backward 0 + 14 s, rest 0.5 s: on 8 GPUs 2.5 + 20 x 6 / 43."""
    done = {}
    for count in (1, 2, 4):
        part = share(GROUPS, count)
        parts = {"sampling": 2 + 6 * part, "grades": 0.0, "backward": 14 * part, "rest": 0.5}
        done[count] = parts | {"step": sum(parts.values()), "groups": GROUPS}
    found = forecast_for(8, done)
    assert found["step"] == pytest.approx(2.5 + 20 * 6 / 43)
    assert found["model"]["sampling"] == pytest.approx({"fixed": 2, "shrinking": 6})
    assert found["model"]["backward"] == pytest.approx({"fixed": 0, "shrinking": 14}, abs=1e-9)


def test_no_part_of_a_step_is_forecast_below_0():
    """Seconds that fall faster than the share of the groups have no fixed part, not a negative one."""
    assert scaling.fitted(GROUPS, {1: 8.0, 2: 3.0})[0] == 0


@pytest.fixture
def bench(monkeypatch):
    """A bench whose torchruns end as they are told to: {GPUs: rows or what was said on stderr}."""

    def of(ends, gpus):
        def ended(command):
            count = int(next(flag for flag in command if "nproc" in flag).partition("=")[2])
            out = next(flag for flag in command if flag.startswith("--out=")).partition("=")[2]
            if isinstance(ends[count], str):
                return 2, ends[count]
            with open(out, "w") as file:
                json.dump({"rows": ends[count], "groups": GROUPS}, file)
            return 0, ""

        monkeypatch.setattr(scaling, "ended", ended)
        config = resolve(BenchFlags(sections="scaling", gpus=gpus))
        return Bench(config, torch.device("cpu"), None)

    return of


def test_a_number_of_gpus_that_fails_says_why_and_the_others_stand(bench):
    ends = {
        1: [row(2), row(2)],
        2: [row(1.25), row(1.25)],
        4: "noise\nerror: this host has 2 GPUs\nTraceback",
    }
    found = scaling.measure_scaling(bench(ends, "4,1,2"))
    table, caption = show_scaling(found)
    console = Console(width=120, file=io.StringIO())
    console.print(table)
    text = console.file.getvalue()
    assert "error: this host has 2 GPUs" in text and "1.60" in text
    assert "4 (forecast)" in text and "is no measurement" in caption


# As torchrun does: its process has a session of its own, and ends with it where it is asked to end
TORCHRUN = """
import signal, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
def end(*_):
    child.kill()
    child.wait()
    sys.exit(1)
signal.signal(signal.SIGTERM, end)
open(sys.argv[1], "w").write(str(child.pid))
time.sleep(60)
"""


def test_a_run_that_takes_too_long_leaves_no_process_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(scaling, "LIMIT", 2)
    told = tmp_path / "child"
    with pytest.raises(subprocess.TimeoutExpired):
        scaling.ended([sys.executable, "-c", TORCHRUN, str(told)])
    assert not Path("/proc", told.read_text()).exists()


def test_one_number_alone_forecasts_nothing(bench):
    found = scaling.measure_scaling(bench({1: [row(1)]}, "1"))
    assert found["forecast"] is None and "forecast" not in show_scaling(found)[1]


@pytest.mark.parametrize("gpus", ["0", "two", "1,,2", "-1"])
def test_numbers_of_gpus_are_numbers(gpus):
    with pytest.raises(InputError, match=f"--gpus {gpus}"):
        resolve(BenchFlags(gpus=gpus))


def test_a_process_of_torchrun_measures_the_step_only(tmp_path):
    config = BenchFlags(sections="probe", out=str(tmp_path / "f.json"))
    for asked in (config, dataclasses.replace(config, sections="step", out=None)):
        with pytest.raises(InputError, match="under torchrun"):
            scaling.measure_share(asked, None)
