"""One writer: a directory, or a file, is locked while a process writes it.

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
def only_writer(
    directory: str | Path, *, create: bool = True, lock: str = LOCK, what: str | Path | None = None
) -> Iterator[None]:
    """Hold the directory's lock; InputError where another process holds it.

    A missing directory is made, with its parents, and what was made and stayed empty goes at the end; without
    `create` it is an InputError. `lock` is the name of the lock file, and `what` is what it locks (default:
    the directory).
    """
    directory = Path(directory).absolute()
    made = make_directory(directory) if create else []
    if not directory.is_dir():
        raise InputError(f"{directory}: no such directory")
    path = directory / lock
    try:
        file = _locked(path, what or directory)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)  # while it is held: who waits for this file finds that it is gone
            file.close()
    finally:
        for folder in reversed(made):
            with contextlib.suppress(OSError):  # not empty: it is in use
                folder.rmdir()


def only_writer_of(file: str | Path) -> contextlib.AbstractContextManager[None]:
    """Hold the lock of one file from before the work until the file is there; as `only_writer`."""
    path = Path(file)
    return only_writer(path.parent, lock=f".{path.name}.lock", what=path)


def only_writer_if(file: str | Path | None) -> contextlib.AbstractContextManager[None]:
    """`only_writer_of` where a file was asked for."""
    return contextlib.nullcontext() if file is None else only_writer_of(file)


@contextlib.contextmanager
def new_directory(directory: str | Path, flag: str = "--out") -> Iterator[None]:
    """Hold the lock of a directory in which nothing lies, from before the work until its result is there:
    of two processes that would make it, the second one is refused. InputError as `check_new`."""
    check_new(directory, flag)
    with only_writer(directory):
        check_new(directory, flag)  # another process may have made it before the lock was got
        yield


def check_new(directory: str | Path, flag: str = "--out") -> None:
    """InputError where anything is, an empty directory excepted; a killed process may have left its lock."""
    path = Path(directory)
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise InputError(f"{path}: exists already and is no directory ({flag} must be new)")
    if path.is_dir() and contents(path):
        raise InputError(
            f"{path}: exists already and is not empty; it is never overwritten ({flag} must be new)"
        )


def make_directory(directory: Path) -> list[Path]:
    """Create a directory and its parents; those that were made, outermost first. InputError where a file or a
    link to nothing is in the way."""
    missing = [folder for folder in (directory, *directory.parents) if not folder.exists()]
    missing.reverse()
    for folder in missing:
        try:
            folder.mkdir(exist_ok=True)
        except NotADirectoryError:
            raise InputError(f"{folder.parent}: not a directory") from None
        except FileExistsError:
            raise InputError(f"{folder}: a link to nothing") from None
    if not directory.is_dir():
        raise InputError(f"{directory}: not a directory")
    return missing


def _locked(path: Path, what: str | Path) -> TextIO:
    """The lock file of `what`, open and locked, with this process as its holder."""
    while True:
        try:
            file = open(path, "a+", encoding="utf-8")  # noqa: SIM115
        except OSError as fault:
            raise InputError(f"{path.parent}: cannot be written to ({fault.strerror})") from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read(200).strip() or "another process"
            file.close()
            raise InputError(f"{what}: {holder} is writing there; wait until it ends") from None
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
    """What lies in a directory, without locks and what a process that was killed had only begun to write."""
    return [entry for entry in sorted(directory.iterdir()) if not is_lock(entry) and not is_begun(entry)]


def is_lock(path: Path) -> bool:
    """Is this the lock of a directory or of a file in it? One that was killed leaves it."""
    return path.name.startswith(".") and path.suffix == ".lock"


def is_begun(path: Path) -> bool:
    """Is this the temporary file of a write (base/files.atomic)?"""
    return path.name.startswith(".") and path.suffix == ".tmp"
