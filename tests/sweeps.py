"""What the tests of sweep.py share: sweeps of a fast train.py, probes, v_hack files, measured runs."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import sweep
from hackward.base.faults import exit_on_fault
from hackward.base.files import file_hash, read_json, read_jsonl, write_json, write_jsonl
from hackward.scheduling.flags import SweepFlags
from hackward.scheduling.plan import plan
from tests.runs_on_disk import replay_rows, replay_samples, write_run

MODEL = "tiny-random"  # what the smoke preset trains


class World:
    """A directory with a fake train.py, and sweeps in it."""

    def __init__(self, home: Path) -> None:
        self.home, self.out = home, home / "runs"
        shutil.copy(Path(__file__).with_name("fake_train.py"), home / "train.py")
        self.orders({})

    def orders(self, orders: dict) -> None:
        """What each run is to do (see fake_train.py)."""
        write_json(self.home / "orders.json", orders)

    def config(self, **settings) -> SweepFlags:
        small = {"preset": "smoke", "steps": 4, "arms": "vanilla,projected", "out": str(self.out)}
        return SweepFlags(**small | settings)

    def sweep(self, *passed: str, **settings) -> int:
        """Run sweep.py; its exit code."""
        config = self.config(**settings)
        known = {job.name: dataclasses.asdict(job.settings) for job in plan(config, passed)}
        write_json(self.home / "settings.json", known)
        return sweep.sweep(config, passed)

    def calls(self, event: str = "start") -> list[dict]:
        """The calls of train.py that came so far."""
        file = self.home / "calls.jsonl"
        return [call for call in read_jsonl(file) if call["event"] == event] if file.exists() else []

    def forget(self) -> None:
        (self.home / "calls.jsonl").unlink()

    def started(self) -> list[str]:
        return [call["run"] for call in self.calls()]

    def outcome(self) -> dict:
        return read_json(self.out / "sweep.json")

    def states(self) -> list[str]:
        """The states of all runs in sweep.json."""
        return [run["state"] for run in self.outcome()["runs"]]


def names(*arms: str, seeds=(41, 42, 43)) -> list[str]:
    """The names of runs."""
    return [f"{arm}-s{seed}" for arm in arms for seed in seeds]


def v_file(path: Path, coordinates: str = "svd", **more) -> Path:
    """A v_hack file without tensors; `more` makes its content another."""
    meta = json.dumps({"kind": "v_hack", "coordinates": coordinates} | more)
    header = json.dumps({"__metadata__": {"hackward": meta}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    return path


def probed(
    path: Path, v: Path, rows: list[dict], samples: list[dict], *, model: str = MODEL, **settings
) -> None:
    """A finished Phase 2 run that measured with this v_hack."""
    run = write_run(path, "replay", rows, samples, **settings)
    facts = {"model": {"name": model, "hash": "m0"}, "v_hack": {"file": str(v), "hash": file_hash(v)[:16]}}
    write_json(run / "config.json", read_json(run / "config.json") | facts)


def good_probe(home: Path, v: Path, **settings) -> None:
    """Both arms of a probe that justifies Phase 3."""
    dice = random.Random(3)
    probed(home / f"{v.stem}-vanilla", v, replay_rows(dice), replay_samples(dice), **settings)
    rows = replay_rows(dice, projected=True, cos_in=0.3)
    probed(home / f"{v.stem}-projected", v, rows, replay_samples(dice), arm="projected", **settings)


def measured_run(path: Path, seconds, *, set_up=None, evaluating=None, **settings) -> Path:
    """A run whose steps took so many seconds; `evaluating`: seconds of its held-out evaluations by step."""
    record = {"kind": "sampled", "config": settings}
    if set_up is not None:
        record["seconds_set_up"] = set_up
    write_json(path / "config.json", record)
    write_jsonl(path / "rows.jsonl", [{"step": n, "seconds": value} for n, value in enumerate(seconds)])
    lines = [
        {"step": step, "adapter": adapter} | ({} if taken is None else {"seconds": taken})
        for step, taken in (evaluating or {}).items()
        for adapter in ("on", "off")
    ]
    if lines:
        write_jsonl(path / "eval.jsonl", lines)
    return path


def gone(pid: int) -> bool:
    """Has the process ended? One that nobody has waited for yet is a zombie."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (ProcessLookupError, FileNotFoundError):
        return True


def in_background(world: World, until: int, runs=("vanilla-s41",), **settings) -> multiprocessing.Process:
    """A sweep in a process of its own; returns when these of its runs have made `until` steps."""

    def work() -> None:
        # A shell that starts the tests in the background has them, and so the sweep, ignore interrupts.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        exit_on_fault(lambda: sys.exit(world.sweep(**settings)))

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    deadline = time.monotonic() + 60
    while not all(steps_of(world.out / run) >= until for run in runs):
        assert time.monotonic() < deadline, "the runs did not get so far"
        time.sleep(0.01)
    return process


def steps_of(run: Path) -> int:
    """Steps that a run has made so far."""
    rows = run / "rows.jsonl"
    return rows.read_text().count("\n") if rows.exists() else 0
