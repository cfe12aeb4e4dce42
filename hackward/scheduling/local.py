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
from collections.abc import Iterator, Sequence
from pathlib import Path

import rich.table
from rich.console import Console
from rich.live import Live

from hackward.base.faults import InputError
from hackward.base.files import ROOT, read_json
from hackward.reports.words import plain
from hackward.scheduling.plan import Job

TRAIN = ROOT / "train.py"
POLL, GRACE = (
    0.5,
    30.0,
)  # seconds between looks at the runs; seconds for a run to end by itself when interrupted


class Board:
    """One live table on a terminal; elsewhere a line whenever a run changes its state."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.jobs, self.console = jobs, Console(markup=False, emoji=False, highlight=False)
        self.live = (
            Live(console=self.console, get_renderable=self.table, refresh_per_second=2)
            if self.console.is_terminal
            else None
        )

    def table(self) -> rich.table.Table:
        drawn = rich.table.Table(box=rich.box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for name in ("run", "state", "step", "hacked", "solved", "s/step", "left"):
            drawn.add_column(name, no_wrap=True)
        drawn.add_column("", overflow="ellipsis", no_wrap=True)
        for job in self.jobs:
            row = (job.rows() or [{}])[-1] if job.state == "running" else {}
            rates = [plain(row[key]) if key in row else "" for key in ("hack_rate", "gt_rate")]
            left = f"{job.left * row['seconds'] / 60:.0f} min" if row else ""
            drawn.add_row(
                job.name,
                job.state,
                f"{job.step}/{job.steps}",
                *rates,
                f"{row['seconds']:.1f}" if row else "",
                left,
                job.note,
            )
        return drawn

    def say(self, text: str) -> None:
        """A line that stays, above the table."""
        self.console.print(text, soft_wrap=True)

    def changed(self, job: Job) -> None:
        if self.live is None:
            self.say(
                f"{time.strftime('%H:%M:%S')} {job.name}: {job.state}, step {job.step}/{job.steps}{f' ({job.note})' if job.note else ''}"
            )

    def __enter__(self) -> Board:
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *fault) -> None:
        if self.live:
            self.live.stop()


def start(job: Job, board: Board, lock: int) -> None:
    """Start the run's process. Its log lies beside its directory, which must be new."""
    resume = ["--resume"] if job.state == "resume" else []
    if job.state == "start over":
        board.say(f"{job.path}: {job.note}; removed, it starts over")
        shutil.rmtree(job.path)
    command = [sys.executable, str(TRAIN), *job.flags, *resume]
    with open(job.log, "a", encoding="utf-8") as log:
        log.write(f"$ {' '.join(command)}\n")
        log.flush()
        # Its own session: Ctrl-C reaches this process alone, which then ends the runs. It holds the lock as well, so that
        # no other sweep touches the directory while a run goes on, even when this process was killed.
        job.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            pass_fds=(lock,),
        )
    job.state, job.note = "running", "resumed" if resume else ""
    board.changed(job)


def settle(job: Job, board: Board) -> None:
    """Record how a run ended: done only if its directory says so."""
    code, job.state = job.process.returncode, "failed"
    summary = job.path / "summary.json"
    ended = read_json(summary) if code == 0 and summary.is_file() else {}
    if ended.get("finished") is True and ended.get("steps", 0) >= job.steps:
        job.state, job.step, job.note = "done", ended["steps"], ""
    else:
        lines = job.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        job.note = f"exit code {code}: {lines[-1].strip()}"
    board.changed(job)


def interrupt(running: Sequence[Job], board: Board) -> None:
    """End the runs as Ctrl-C would, and wait for them; one that does not end, or a second Ctrl-C, kills. Checkpoints stay."""
    for job in running:
        job.process.send_signal(signal.SIGINT)
    for job in running:
        try:
            job.process.wait(GRACE)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            job.process.kill()
            job.process.wait()
        job.state = "interrupted"
        board.changed(job)


def run_stage(group: Sequence[Job], board: Board, *, at_once: int, lock: int) -> None:
    """Run what is not done, `at_once` at a time, in order. A run that fails does not stop the others."""
    waiting, running = [job for job in group if job.state != "done"], []
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                running.append(waiting.pop(0))
                start(running[-1], board, lock)
            time.sleep(POLL)
            for job in running:
                job.step = max(job.step, len(job.rows()))
            for job in [job for job in running if job.process.poll() is not None]:
                running.remove(job)
                settle(job, board)
    finally:
        interrupt([job for job in running if job.process is not None], board)


@contextlib.contextmanager
def locked(directory: Path, say) -> Iterator[int]:
    """Hold the directory's lock; yields its descriptor. InputError when another sweep, or a run that it left behind, holds it.

    The kernel drops the lock when its last holder ends, so a stale one cannot block: the pid that it still names is only reported.
    """
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "sweep.lock"
    with open(path, "a+", encoding="utf-8") as file:
        file.seek(0)
        pid = file.read().strip()
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"{path}: held by the sweep with pid {pid or 'unknown'}, or by a run that it started; it must end first"
            ) from None
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
