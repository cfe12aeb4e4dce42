"""Runs as tasks of a Ray cluster, each with its share of a GPU, retried on another node when theirs dies.

The nodes see the sweep's directory, this program and its Python under the same paths. A task starts train.py
on its node and waits for it. What lies in the run's directory decides whether it begins or goes on, so a
retry goes on from the checkpoint. Which node a run goes to, and which runs wait, is Ray's affair.
"""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import ray.exceptions

from hackward.base.faults import InputError
from hackward.grading.fences import die_with_parent
from hackward.scheduling.board import Board
from hackward.scheduling.commands import command, going_on
from hackward.scheduling.engines import Room
from hackward.scheduling.flags import SweepFlags
from hackward.scheduling.jobs import Job
from hackward.scheduling.local import are_dealt, graders, on_one_node, places_of, room_of
from hackward.scheduling.queue import GRACE, carried

RETRIES = 3  # of a run whose node, worker or process was killed
PASSED = ("HACKWARD_", "HF_")  # what the variables of the environment begin with that go along to the nodes
# Bytes of Ray's object store, of which a sweep needs next to nothing; the least that Ray takes
STORE = 80 << 20


class Killed(Exception):
    """The process of a run was ended by a signal that did not come from here."""


def on_node(
    job: Job,
    whole: Sequence[str],
    home: str,
    passed: dict[str, str],
    room: Room,
    share: float,
) -> int:
    """What a task does on its node: begin the run or go on with it, and wait; returns its exit code.

    The sweep's runs share out the cores of a node by its `room` and each one's `share` of a GPU. Killed where
    a signal ended it. The process dies with this one, so that a retry never meets it.
    """
    os.chdir(home)
    with open(job.log, "a", encoding="utf-8") as log:

        def say(text: str) -> None:
            print(text, file=log, flush=True)

        more = going_on(job, say)
        if job.state == "done":
            return 0
        processes = on_one_node(*here(), share=share, several=room.gpus_per_run, most=room.at_once)
        every = [*whole, *graders(job, processes), *more]
        say(f"$ {shlex.join(every)}")
        process = subprocess.Popen(
            every,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env=os.environ | passed,
            preexec_fn=_as_child,
        )
        code = _waited(process)
        if code < 0:
            say(f"killed by {signal.Signals(-code).name}")
            raise Killed(job.name)
    return code


def here() -> tuple[float, float]:
    """CPUs and GPUs of this node, as Ray counts them."""
    name = ray.get_runtime_context().get_node_id()
    has = next(node["Resources"] for node in ray.nodes() if node["NodeID"] == name)
    return has.get("CPU", 1.0), has.get("GPU", 0.0)


def _as_child() -> None:
    """Die with this process, and hear Ctrl-C, which Ray blocks for all that it starts."""
    die_with_parent()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _waited(process: subprocess.Popen) -> int:
    """Its exit code. Ray cancels a task with a KeyboardInterrupt: the process is told to end,
    and saves the last finished step."""
    try:
        while True:
            try:
                # In short turns: Ray's KeyboardInterrupt comes between them
                return process.wait(0.2)
            except subprocess.TimeoutExpired:
                continue
    except KeyboardInterrupt:
        process.terminate()
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        raise


@dataclass(frozen=True)
class Task:
    """A run as a task."""

    job: Job
    task: Any
    logged: int
    """Bytes of the run's log before it."""

    def begun(self) -> bool:
        """A task that waits for its turn writes no log."""
        return logged(self.job) > self.logged

    def code(self) -> int | None:
        """As of a process; 1 where all retries were in vain, which the log then says."""
        if not self._over(0):
            return None
        try:
            return ray.get(self.task)
        except ray.exceptions.RayError as fault:
            reason = str(fault).strip().splitlines()[-1]
            with open(self.job.log, "a", encoding="utf-8") as log:
                log.write(f"given up after {RETRIES} retries: {reason}\n")
            return 1

    def interrupt(self) -> None:
        ray.cancel(self.task, force=False)

    def end(self, seconds: float) -> None:
        try:
            over = self._over(seconds)
        except KeyboardInterrupt:
            over = False
        if not over:
            ray.cancel(self.task, force=True)
            self._over(seconds)

    def _over(self, seconds: float) -> bool:
        return bool(ray.wait([self.task], timeout=seconds)[0])


def logged(job: Job) -> int:
    """Bytes of the run's log."""
    return job.log.stat().st_size if job.log.is_file() else 0


class RayEngine:
    """Hands every run of a stage to Ray at once; Ray places them."""

    def __init__(self, config: SweepFlags, jobs: Sequence[Job]) -> None:
        """InputError where no cluster answers at --ray-address."""
        self.talk = sys.stdout
        self.address = config.ray_address
        self.limit = config.jobs
        if self.address is None:
            places = places_of(config, jobs)
            self.gpus = sum(map(len, places))
            self.room = room_of(config, jobs, places)
            self.share = self.room.gpus_per_run / self.room.per_gpu if places else 0.0
        else:
            connect(address=self.address)
            self.room, self.share = room_of_cluster(config, jobs, ray.cluster_resources())

    def __enter__(self) -> RayEngine:
        if self.address is None:
            connect(
                address="local",
                num_cpus=self.room.at_once,
                num_gpus=self.gpus,
                object_store_memory=STORE,
                include_dashboard=False,
            )
        return self

    def __exit__(self, *fault: object) -> None:
        ray.shutdown()

    def carry(self, group: Sequence[Job], board: Board, lock: int) -> None:
        """Run them, and wait for their ends."""
        carried(group, board, self._start, self.limit or len(group))

    def _start(self, job: Job) -> Task:
        task = ray.remote(on_node).options(
            name=job.name,
            num_cpus=1,
            num_gpus=self.share,
            max_retries=RETRIES,
            retry_exceptions=[Killed],
        )
        passed = {name: value for name, value in os.environ.items() if name.startswith(PASSED)}
        before = logged(job)
        whole = command(job, self.room.gpus_per_run)
        told = job, whole, str(Path.cwd()), passed, self.room, self.share
        started = Task(job, task.remote(*told), before)
        job.note = "resumed" if job.state == "resume" else ""
        job.state = "queued"
        return started


def connect(**options: Any) -> None:
    """Join a cluster, or start one. InputError where none answers."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # The cards of a CPU task stay in sight, as they are without Ray
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    chosen: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", **options}
    address = options["address"]
    try:
        _reach(address)
        ray.init(**chosen)
    except (OSError, ValueError, RuntimeError) as fault:
        reason = str(fault).strip().splitlines()[0]
        raise InputError(f"--ray-address {address}: no cluster there ({reason})") from None


def _reach(address: str) -> None:
    """OSError where nothing listens at host:port; Ray itself tries for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon:
        socket.create_connection((host, int(port)), timeout=10).close()


def room_of_cluster(
    config: SweepFlags, jobs: Sequence[Job], resources: dict[str, float]
) -> tuple[Room, float]:
    """How many runs go at once on a cluster with these resources, and a run's share of a GPU.

    How much memory its GPUs have is not known here: without --per-gpu one run takes one. InputError where no
    node has what a run asks for.
    """
    gpus, cpus = int(resources.get("GPU", 0)), int(resources.get("CPU", 0))
    several, per_gpu = config.gpus_per_run, config.per_gpu or 1
    takes_gpu = gpus > 0 and are_dealt(jobs)
    if not takes_gpu and (several > 1 or config.per_gpu is not None):
        raise InputError(f"--ray-address {config.ray_address}: its nodes have no GPU for the runs")
    places = min(cpus, gpus // several * per_gpu) if takes_gpu else cpus
    at_once = min(config.jobs or sys.maxsize, max(1, places))
    what = f"{gpus} GPUs" if takes_gpu else f"{cpus} CPUs"
    words = f"on a cluster of {what}, {at_once} runs at once"
    share = several / per_gpu if takes_gpu else 0.0
    return Room(at_once, words, per_gpu, several, one_machine=False), share
