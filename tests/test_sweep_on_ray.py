"""Sweeps on a real Ray, whose workers, processes and nodes are killed.

Each is a process of its own: a fork of one that has had Ray in it hangs.
"""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from hackward.base.faults import InputError
from hackward.base.files import ROOT, read_jsonl
from hackward.scheduling.flags import SweepFlags
from hackward.scheduling.plan import plan
from tests import lacks
from tests.served import STUB
from tests.sweeps import World, gone, names, steps_of

pytestmark = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason=lacks.RAY)
MEASURED = re.compile("seconds|memory")  # in the names of what differs from run to run
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
    share = max(1, len(os.sched_getaffinity(0)) // 2)
    assert f" --workers={share}\n" in (world.out / "vanilla-s41.log").read_text()
    last = {call["run"]: call for call in world.calls()}
    assert last["vanilla-s41"]["resume"] and last["vanilla-s42"]["resume"]
    for run in ("vanilla-s41", "vanilla-s42"):
        assert [row["step"] for row in read_jsonl(world.out / run / "rows.jsonl")] == [0, 1, 2, 3]
    assert "killed by SIGKILL" in (world.out / "vanilla-s42.log").read_text()
    assert "exit code 1: error: out of memory" in world.outcome()["runs"][2]["note"]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_the_runs_on_ray_end_with_the_sweep(world, how):
    both = ("vanilla-s41", "vanilla-s42")
    world.orders({run: {"hang": 3} for run in both})  # Ray may begin with either
    process = on_ray(world, arms="vanilla", seeds="41,42", steps=8)
    wait(lambda: any(steps_of(world.out / run) >= 3 for run in both))
    process.send_signal(how)
    code = process.wait(60)
    wait(lambda: all(gone(call["pid"]) for call in world.calls()), 30)
    assert len(world.calls()) == 1 and world.calls("end") == []
    if how != signal.SIGKILL:
        assert len(world.calls("told to end")) == 1  # and so could save its last finished step
        assert code == 130 and world.states() == ["interrupted"] * 2


@pytest.fixture
def nodes():
    """A cluster of two nodes on this machine."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    cluster = subprocess.Popen([sys.executable, "-c", CLUSTER], **pipes)
    cluster.address = next(said.strip() for said in cluster.stdout if said.startswith(("1", "l")))
    yield cluster
    cluster.communicate("\n", timeout=60)


@pytest.fixture
def quick(tmp_path, monkeypatch):
    """train.py, whose processes are forks of one."""
    path = str(tmp_path / "socket")
    server = subprocess.Popen([sys.executable, "-m", "tests.served", path], cwd=ROOT)
    (tmp_path / "train.py").write_text(STUB.format(path=path))
    wait(lambda: (tmp_path / "socket").exists())
    yield tmp_path
    server.kill()
    server.wait()


def sweep_of_six(quick, shop, name, *flags) -> subprocess.Popen:
    """vanilla and projected over three seeds; a teacher's hack in every group, so that there is something to
    learn."""
    given = ["--preset=smoke", "--steps=4", "--arms=vanilla,projected", f"--out={quick / name}", "--anyway"]
    passed = [f"--v-hack={shop / 'v.safetensors'}", f"--teacher-dir={shop / 'teacher_pool'}", "--device=cpu"]
    passed += ["--teacher-rows=1", "--teacher-share=1", "--prompts=1", "--group=2", "--max-new-tokens=4"]
    passed += ["--eval-samples=0", "--sandbox=none", "--workers=1", "--save-every=1", "--svd-cache=None"]
    command = [sys.executable, "-c", PROGRAM, str(quick), *given, *flags, "--", *passed]
    log = open(quick / f"{name}.log", "w")  # noqa: SIM115
    return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)


def what_it_made(run: Path) -> list:
    """The drawn rollouts and the trained weights byte by byte, and the rows but for what they took."""
    rows = read_jsonl(run / "rows.jsonl")
    kept = [{key: value for key, value in row.items() if not MEASURED.search(key)} for row in rows]
    files = [*sorted((run / "rollouts").iterdir()), run / "delta_S.safetensors"]
    return [kept, *[(file.name, file.read_bytes()) for file in files]]


def test_a_sweep_of_which_a_node_is_killed_makes_what_the_same_sweep_makes_here(quick, shop, nodes):
    """Six runs of train.py on two nodes: the run of the node that is killed goes on from its checkpoint on
    the other, all six finish, and each is bit for bit the run of --on=local."""
    on_ray, here, hold = quick / "on-ray", quick / "here", quick / "socket.hold"
    hold.touch()
    process = sweep_of_six(quick, shop, "on-ray", "--on=ray", f"--ray-address={nodes.address}")
    wait(lambda: len(list(on_ray.glob("*.pid"))) == 2, 120)  # one on each node
    pids = {file.stem: int(file.read_text()) for file in on_ray.glob("*.pid")}
    nodes.stdin.write("\n")
    nodes.stdin.flush()
    wait(lambda: any(map(gone, pids.values())))
    killed = [run for run, pid in pids.items() if gone(pid)]
    hold.unlink()
    assert process.wait(120) == 0, (quick / "on-ray.log").read_text()
    assert sweep_of_six(quick, shop, "here", "--on=local", "--jobs=2").wait(120) == 0
    for run in names("vanilla", "projected"):
        made = what_it_made(here / run)
        assert what_it_made(on_ray / run) == made
        assert len(made[0]) == 4 and made[0][-1]["delta_w_norm"] > 0
        assert ("--resume" in (on_ray / f"{run}.log").read_text()) is ([run] == killed)


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
