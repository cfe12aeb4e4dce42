"""One sweep at a time in a directory, and signals that end it in good order."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

from hackward.base.faults import InputError, ended_by
from hackward.base.lock import make_directory


@contextlib.contextmanager
def locked(directory: Path, say: Callable[[str], object]) -> Iterator[int]:
    """Hold the directory's lock; yields its descriptor.

    InputError when another sweep, or a run that it left behind, holds it. The kernel drops the lock when its
    last holder ends, so a stale one cannot block: the pid that it still names is only reported.
    """
    make_directory(directory)
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


def interruptible() -> contextlib.AbstractContextManager[None]:
    """SIGTERM and SIGHUP end the sweep as Ctrl-C does, a second one too."""
    return ended_by(signal.default_int_handler)
