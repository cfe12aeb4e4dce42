"""The command of a run: as a process that is started once, or as a line that may be run again and again."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from hackward.base.files import CHECKPOINT, ROOT
from hackward.base.lock import only_writer
from hackward.scheduling.jobs import Job, survey

TRAIN = ROOT / "train.py"


def command(job: Job, gpus: int = 1) -> list[str]:
    """train.py with the run's flags, from its first step; on several GPUs by torchrun."""
    train = [str(TRAIN), *job.flags]
    if gpus == 1:
        return [sys.executable, *train]
    # --standalone: a port of its own for every run of this machine
    several = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={gpus}", "--"]
    return [sys.executable, *several, *train]


def going_on(job: Job, say: Callable[[str], object]) -> list[str]:
    """What the command needs beside that, by what lies in the run's directory. A run that died before its
    first checkpoint is removed: it starts over."""
    survey(job)
    if job.state == "start over":
        say(f"{job.path}: {job.note}; removed, it starts over")
        with only_writer(job.path):
            shutil.rmtree(job.path)
    return ["--resume"] if job.state == "resume" else []


def line(job: Job, gpus: int = 1) -> str:
    """A shell command that begins the run, goes on with it, or does nothing where it is finished: which of
    them, the directory says when the command is run."""
    home = shlex.quote(str(Path.cwd()))
    checkpoint, summary = (shlex.quote(str(job.path / name)) for name in (CHECKPOINT, "summary.json"))
    # Of a finished run that is to make more steps the summary names fewer, or another rule that ended it
    words, after = rf'"steps": {job.steps}\b', job.settings.stop_after_breakout
    if after:
        words += rf'|"stopped": ".*--stop-after-breakout={after}\)'
    finished = f"grep -qsE {shlex.quote(words)} {summary}"
    resume = f"$(test -f {checkpoint} && echo --resume)"
    return f"cd {home} && {{ {finished} || {shlex.join(command(job, gpus))} {resume}; }}"
