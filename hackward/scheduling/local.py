"""Running a sweep on this machine: processes, one lock, one live table."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import rich.table
from rich.console import Console
from rich.live import Live

from hackward.base.faults import InputError
from hackward.base.files import ROOT, read_json
from hackward.base.lock import only_writer
from hackward.reports.words import plain
from hackward.scheduling.jobs import Job

TRAIN = ROOT / "train.py"
POLL = 0.5  # seconds between looks at the runs
GRACE = 30.0  # seconds for a run to end by itself when interrupted


class Board:
    """One live table on a terminal; elsewhere a line whenever a run changes its state."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.jobs = jobs
        self.console = Console(markup=False, emoji=False, highlight=False)
        self.live: Live | None = None
        if self.console.is_terminal:
            self.live = Live(console=self.console, get_renderable=self.table, refresh_per_second=2)

    def table(self) -> rich.table.Table:
        """One row per run, with the figures of the last step of those that are running."""
        drawn = rich.table.Table(box=rich.box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for name in ("run", "state", "step", "hacked", "solved", "s/step", "left"):
            drawn.add_column(name, no_wrap=True)
        drawn.add_column("", overflow="ellipsis", no_wrap=True)
        for job in self.jobs:
            rows = job.rows() if job.state == "running" else []
            figures = _figures(job, rows[-1]) if rows else [""] * 4
            drawn.add_row(job.name, job.state, f"{job.step}/{job.steps}", *figures, job.note)
        return drawn

    def say(self, text: str) -> None:
        """A line that stays, above the table."""
        self.console.print(text, soft_wrap=True)

    def changed(self, job: Job) -> None:
        """The job has another state."""
        if self.live is None:
            note = f" ({job.note})" if job.note else ""
            self.say(
                f"{time.strftime('%H:%M:%S')} {job.name}: {job.state}, step {job.step}/{job.steps}{note}"
            )

    def __enter__(self) -> Board:
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *fault: object) -> None:
        if self.live:
            self.live.stop()


def _figures(job: Job, row: dict) -> list[str]:
    """Hacked, solved, seconds of a step and minutes left, by a run's last row."""
    rates = [plain(row[key]) if key in row else "" for key in ("hack_rate", "gt_rate")]
    return [*rates, f"{row['seconds']:.1f}", f"{job.left * row['seconds'] / 60:.0f} min"]


@dataclass(frozen=True)
class Started:
    """A job and the process that runs it."""

    job: Job
    process: subprocess.Popen


def start(job: Job, running: list[Started], board: Board, lock: int) -> None:
    """Start the run's process, and add it to the running ones.

    Its log lies beside its directory, which must be new.
    """
    resume = ["--resume"] if job.state == "resume" else []
    if job.state == "start over":
        board.say(f"{job.path}: {job.note}; removed, it starts over")
        with only_writer(job.path):
            shutil.rmtree(job.path)
    command = [sys.executable, str(TRAIN), *job.flags, *resume]
    with open(job.log, "a", encoding="utf-8") as log:
        log.write(f"$ {' '.join(command)}\n")
        log.flush()
        # Its own session: Ctrl-C reaches this process alone, which then ends the runs. It holds the lock as
        # well, so that no other sweep touches the directory while a run goes on, even when this process was
        # killed.
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            pass_fds=(lock,),
        )
        running.append(Started(job, process))
    job.state, job.note = "running", "resumed" if resume else ""
    board.changed(job)


def settle(run: Started, board: Board) -> None:
    """Record how a run ended: done only if its directory says so."""
    job, code = run.job, run.process.returncode
    summary = job.path / "summary.json"
    ended = read_json(summary) if code == 0 and summary.is_file() else {}
    if ended.get("finished") is True and ended.get("steps", 0) >= job.steps:
        job.state, job.step, job.note = "done", ended["steps"], ""
    else:
        lines = job.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        job.state, job.note = "failed", f"exit code {code}: {lines[-1].strip()}"
    board.changed(job)


def interrupt(running: Sequence[Started], board: Board) -> None:
    """End the runs as Ctrl-C would, and wait for them; checkpoints stay.

    A run that does not end within GRACE is killed; so is every one after a second Ctrl-C.
    """
    for run in running:
        run.process.send_signal(signal.SIGINT)
    for run in running:
        try:
            run.process.wait(GRACE)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            run.process.kill()
            run.process.wait()
        run.job.state = "interrupted"
        board.changed(run.job)


def run_stage(group: Sequence[Job], board: Board, *, at_once: int, lock: int) -> None:
    """Run what is not done, `at_once` at a time, in order. A run that fails does not stop the others."""
    waiting = [job for job in group if job.state != "done"]
    running: list[Started] = []
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                start(waiting.pop(0), running, board, lock)
            time.sleep(POLL)
            for run in running:
                run.job.step = max(run.job.step, len(run.job.rows()))
            for run in [run for run in running if run.process.poll() is not None]:
                running.remove(run)
                settle(run, board)
    finally:
        interrupt(running, board)


@contextlib.contextmanager
def locked(directory: Path, say: Callable[[str], object]) -> Iterator[int]:
    """Hold the directory's lock; yields its descriptor.

    InputError when another sweep, or a run that it left behind, holds it. The kernel drops the lock when its
    last holder ends, so a stale one cannot block: the pid that it still names is only reported.
    """
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "sweep.lock"
    with open(path, "a+", encoding="utf-8") as file:
        file.seek(0)
        pid = file.read().strip()
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = f"the sweep with pid {pid or 'unknown'}, or by a run that it started"
            raise InputError(f"{path}: held by {holder}; it must end first") from None
        if pid:
            say(f"{path}: stale lock of pid {pid}, which is gone; taken over")
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        try:
            yield file.fileno()
        finally:
            file.truncate(0)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM and SIGHUP end the sweep as Ctrl-C does, except where the shell (nohup) had them ignored."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    before = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
