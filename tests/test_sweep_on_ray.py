"""Sweeps on a real Ray, whose workers, processes and nodes are killed.

Each is a process of its own: a fork of one that has had Ray in it hangs.
"""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest

from hackward.base.faults import InputError
from hackward.base.files import ROOT, read_jsonl
from hackward.scheduling.flags import SweepFlags
from hackward.scheduling.plan import plan
from tests import lacks
from tests.sweeps import World, gone, names, steps_of

pytestmark = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason=lacks.RAY)
PROGRAM = """
import pathlib, signal, sys
import sweep
from hackward.base.faults import exit_on_fault
from hackward.scheduling import commands, queue

signal.signal(signal.SIGINT, signal.default_int_handler)
commands.TRAIN, queue.POLL, queue.GRACE = pathlib.Path(sys.argv[1]) / "train.py", 0.05, 5
exit_on_fault(lambda: sys.exit(sweep.main(sys.argv[2:])))
"""
# Two nodes on this machine; the second is killed at the first line of input, the rest at the next.
CLUSTER = """
from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
node = cluster.add_node(num_cpus=1)
print(cluster.address, flush=True)
input()
cluster.remove_node(node, allow_graceful=False)
input()
cluster.shutdown()
"""


def on_ray(world: World, *flags: str, **settings) -> subprocess.Popen:
    """A sweep on Ray that was started."""
    world.sweep(dry_run=True, **settings)  # writes what the fake train.py reads
    small = {"preset": "smoke", "steps": 4, "out": str(world.out)} | settings
    given = [f"--{name}={value}" for name, value in small.items()]
    command = [sys.executable, "-c", PROGRAM, str(world.home), *given, "--on=ray", *flags]
    log = open(world.home / "sweep.log", "w")  # noqa: SIM115
    return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)


def wait(condition, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_on_ray_runs_whose_worker_or_process_is_killed_are_finished_by_a_retry(world):
    world.orders({"vanilla-s41": {"kill": 3}, "vanilla-s42": {"fall": 3}, "vanilla-s43": {"die": 3}})
    assert on_ray(world, "--jobs=2", arms="vanilla,projected").wait(90) == 1
    assert world.states() == ["done", "done", "failed"] + ["withheld"] * 3
    tries = Counter(call["run"] for call in world.calls())
    assert tries == {"vanilla-s41": 2, "vanilla-s42": 2, "vanilla-s43": 1}
    last = {call["run"]: call for call in world.calls()}
    assert last["vanilla-s41"]["resume"] and last["vanilla-s42"]["resume"]
    for run in ("vanilla-s41", "vanilla-s42"):
        assert [row["step"] for row in read_jsonl(world.out / run / "rows.jsonl")] == [0, 1, 2, 3]
    assert "killed by SIGKILL" in (world.out / "vanilla-s42.log").read_text()
    assert "exit code 1: error: out of memory" in world.outcome()["runs"][2]["note"]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_the_runs_on_ray_end_with_the_sweep(world, how):
    world.orders({"vanilla-s41": {"hang": 3}})
    process = on_ray(world, arms="vanilla", seeds="41,42", steps=8)
    wait(lambda: steps_of(world.out / "vanilla-s41") >= 3)
    process.send_signal(how)
    code = process.wait(60)
    wait(lambda: all(gone(call["pid"]) for call in world.calls()), 30)
    assert len(world.calls()) == 1 and world.calls("end") == []
    if how != signal.SIGKILL:
        assert len(world.calls("told to end")) == 1  # and so could save its last finished step
        assert code == 130 and world.states() == ["interrupted"] * 2


def test_runs_of_a_node_that_dies_go_on_from_their_checkpoint_on_another(world):
    first = ("vanilla-s41", "vanilla-s42")
    world.orders({run: {"sleep": 0.5} for run in first})
    cluster = subprocess.Popen(
        [sys.executable, "-c", CLUSTER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        address = next(said.strip() for said in cluster.stdout if said.startswith(("1", "l")))
        process = on_ray(world, f"--ray-address={address}", arms="vanilla", steps=12)
        wait(lambda: all(steps_of(world.out / run) >= 3 for run in first))
        cluster.stdin.write("\n")
        cluster.stdin.flush()
        assert process.wait(120) == 0
    finally:
        cluster.communicate("\n", timeout=60)
    again = [call for call in world.calls() if call["resume"]]
    assert len(again) == 1 and again[0]["run"] in first
    for run in names("vanilla"):
        assert [row["step"] for row in read_jsonl(world.out / run / "rows.jsonl")] == list(range(12))


def test_a_ray_address_without_a_cluster_is_refused(world):
    with pytest.raises(InputError, match="--ray-address 127.0.0.1:9: no cluster there"):
        world.sweep(on="ray", ray_address="127.0.0.1:9", dry_run=True)


def test_a_cluster_takes_as_many_runs_as_it_has_gpus_for():
    from hackward.scheduling.cluster import room_of_cluster

    def room(resources: dict[str, float], **flags) -> tuple[int, float]:
        config = SweepFlags(preset="smoke", ray_address="auto", **flags)
        found, share = room_of_cluster(config, plan(config, []), resources)
        return found.at_once, share

    node = {"CPU": 32.0, "GPU": 8.0}
    assert room(node) == (8, 1.0)
    assert room(node, per_gpu=2) == (16, 0.5)
    assert room(node, gpus_per_run=4) == (2, 4.0)
    assert room(node, jobs=3) == (3, 1.0)
    assert room({"CPU": 6.0}) == (6, 0.0)
    with pytest.raises(InputError, match="its nodes have no GPU"):
        room({"CPU": 6.0}, per_gpu=2)
