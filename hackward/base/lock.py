"""One writer: a directory is locked while a process writes it.

The lock is the kernel's (flock on a file in the directory), so that of a process that died is free at once,
whatever the file says. The file names its holder, for the message, and goes with the lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from hackward.base.faults import InputError

LOCK = ".writer.lock"


@contextlib.contextmanager
def only_writer(directory: str | Path, *, create: bool = True) -> Iterator[None]:
    """Hold the directory's lock; InputError where another process holds it.

    A missing directory is made, with its parents, and what was made and stayed empty goes at the end; without
    `create` it is an InputError.
    """
    directory = Path(directory).absolute()
    made = _make(directory) if create else []
    if not directory.is_dir():
        raise InputError(f"{directory}: no such directory")
    path = directory / LOCK
    try:
        file = _locked(path)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)  # while it is held: who waits for this file finds that it is gone
            file.close()
    finally:
        for folder in reversed(made):
            with contextlib.suppress(OSError):  # not empty: it is in use
                folder.rmdir()


def _make(directory: Path) -> list[Path]:
    """Create a directory and its parents; those that were made, outermost first."""
    missing = [folder for folder in (directory, *directory.parents) if not folder.exists()]
    missing.reverse()
    for folder in missing:
        try:
            folder.mkdir(exist_ok=True)
        except NotADirectoryError:
            raise InputError(f"{folder.parent}: not a directory") from None
    if not directory.is_dir():
        raise InputError(f"{directory}: not a directory")
    return missing


def _locked(path: Path) -> TextIO:
    """The lock file, open and locked, with this process as its holder."""
    while True:
        try:
            file = open(path, "a+", encoding="utf-8")  # noqa: SIM115
        except PermissionError:
            raise InputError(f"{path.parent}: cannot be written to") from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read(200).strip() or "another process"
            file.close()
            raise InputError(f"{path.parent}: {holder} is writing there; wait until it ends") from None
        except OSError:  # a file system without locks: better a run without one than no run
            return file
        if _is_at(file, path):
            break
        file.close()  # its holder ended, and took the file along, after it was opened here
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}")
    file.flush()
    return file


def _is_at(file: TextIO, path: Path) -> bool:
    """Is this open file still the one of that name?"""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def contents(directory: Path) -> list[Path]:
    """What lies in a directory, without its lock and what a process that was killed had only begun to
    write."""
    return [entry for entry in sorted(directory.iterdir()) if entry.name != LOCK and not is_begun(entry)]


def is_begun(path: Path) -> bool:
    """Is this the temporary file of a write (base/files.atomic)?"""
    return path.name.startswith(".") and path.suffix == ".tmp"
