"""NVIDIA's Multi-Process Service (MPS): processes that share a GPU compute at the same time.

Without it a GPU works for one process at a time, and a kernel too small for it leaves the rest of it idle.
With it the kernels of several processes run side by side. A fault of the GPU in one of them ends the others
too. (NVIDIA, "Multi-Process Service".)
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from hackward.base.faults import InputError, uninterrupted
from hackward.base.screen import say

CONTROL = "nvidia-cuda-mps-control"
PIPES, LOGS, CARDS = "CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY", "CUDA_VISIBLE_DEVICES"
PATIENCE = 30  # seconds that the service has to begin, and to end
# Given with "quit": seconds until it ends whatever still computes
QUIT = "quit -t 10\n"
# Of the sockets in its directory, and of the path of one (unix(7), without the zero at the end)
LONGEST_NAME, PATH_BYTES = "/control_privileged", 107


def check_installed() -> None:
    """InputError where the service is not installed."""
    if shutil.which(CONTROL) is None:
        raise InputError(f"{CONTROL} is not on the PATH: it comes with NVIDIA's driver")


@contextmanager
def at_the_same_time() -> Iterator[dict[str, str]]:
    """The environment of processes that are to share GPUs so; the service begins and ends with the block.

    InputError where it is not installed, or does not begin.
    """
    check_installed()
    with tempfile.TemporaryDirectory(prefix="mps-", ignore_cleanup_errors=True) as directory:
        if len(os.fsencode(directory)) + len(LONGEST_NAME) > PATH_BYTES:
            raise InputError(f"{directory}: too long for the sockets of {CONTROL}; TMPDIR=/tmp is shorter")
        own = {PIPES: directory, LOGS: directory}
        # It serves every card: a process chooses among all of them, by the numbers that it would use anyway
        around = {name: value for name, value in os.environ.items() if name != CARDS} | own
        try:
            _told(["-d"], around, "")
        except BaseException:
            # It may run all the same, as where Ctrl-C came in between
            _ended(around)
            raise
        try:
            yield own
        finally:
            fault = _ended(around)
            if fault is not None:
                # What was computed stands all the same
                say(str(fault))


@contextmanager
def in_turns() -> Iterator[dict[str, str]]:
    """The environment of processes that do not share a GPU so, even where the service runs already."""
    with tempfile.TemporaryDirectory(prefix="no-mps-") as nobody_listens:
        yield {PIPES: nobody_listens}


def _ended(around: dict[str, str]) -> InputError | None:
    """Ask the service to end, whatever interrupts this process meanwhile; why it does not."""
    try:
        with uninterrupted():
            _told([], around, QUIT)
    except InputError as fault:
        return fault
    return None


def _told(flags: list[str], around: dict[str, str], words: str) -> None:
    """Start the service, or speak to it. InputError with what it says where it fails."""
    # A file and not a pipe: the service may keep it open, and the end of a pipe would never come
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        try:
            ended = subprocess.run(
                [CONTROL, *flags],
                input=words,
                env=around,
                stdout=log,
                stderr=log,
                text=True,
                timeout=PATIENCE,
            )
        except subprocess.TimeoutExpired:
            raise InputError(f"{CONTROL}: no answer after {PATIENCE} s") from None
        except OSError as fault:
            raise InputError(f"{CONTROL}: {fault.strerror}") from None
        log.seek(0)
        said = log.read().strip().splitlines()
    if ended.returncode:
        what = " ".join(flags) or words.strip()
        reason = said[-1] if said else f"exit code {ended.returncode}"
        raise InputError(f"{CONTROL} {what}: {reason}")
