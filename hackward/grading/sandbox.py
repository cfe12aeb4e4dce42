"""What fences in graded code: the limits, the system call filter, the readable paths, bubblewrap.

Built here, in the grader's own process, and handed to the worker as data (fences.py and view.py apply it).
Layers, each optional where the machine lacks it:

* seccomp (syscalls.py): an allow list of what computing Python needs.
* Landlock: reading the interpreter's library and the libraries that it loads, nothing else; no TCP, no
  signals to outside.
* a view of its own: a file system that holds these files and a few devices, read-only. bubblewrap makes it
  once around each worker; where there is none, the worker makes it itself (view.py). With it come an own
  network, own names and, for every run, own process numbers.
* rlimits and an empty environment: always, in every mode.
"""

from __future__ import annotations

import contextlib
import functools
import glob
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hackward.base.faults import InputError
from hackward.grading.view import HOST

MODES = ("strict", "best-effort", "none")
ROOM = Path(__file__).resolve().parent
ZYGOTE = ROOM / "zygote.py"  # what a worker runs
WORKER_FILES = (
    "__init__.py",
    "zygote.py",
    "child.py",
    "calling.py",
    "encoding.py",
    "steadiness.py",
    "fences.py",
    "framing.py",
    "view.py",
)
ZYGOTE_FILES = (  # and all the files of this project that it loads
    ROOM.parent / "__init__.py",
    *(ROOM / name for name in WORKER_FILES),
)
DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")
# Folders of the standard library that a view leaves out: what is installed, and what no answer needs
HIDDEN = (
    "site-packages",
    "dist-packages",
    "test",
    "idlelib",
    "tkinter",
    "turtledemo",
    "ensurepip",
    "config-*",
)
PACKAGES = ("sortedcontainers",)  # what judges of programming contests offer beside the standard library


@dataclass(frozen=True)
class Limits:
    """What one run of one completion may use. CPU time decides verdicts; the others are backstops."""

    cpu_seconds: float = 2.0
    """CPU time for the ground truth, plus the next for each test (rounded up to a second)."""
    cpu_seconds_per_test: float = 0.1
    """The slowest canonical solutions take 0.9 s for 3 tests and 2.6 s for 100."""
    cpu_seconds_per_answer: float = 2.0
    """CPU time of the ground truth from one answer to the next: what loops is not given the time of all
    tests."""
    own_cpu_seconds: float = 2.0
    """CPU time for the completion's own evaluation."""
    cpu_times_canonical: float = 5.0
    """Times the CPU time that the problem's canonical solution takes here, where that is more."""
    canonical_cpu_seconds: float = 60.0
    """Most that the canonical solution is given to be measured."""
    wall_seconds: float = 15.0
    """Wall time in which a child may be idle: neither computing nor waiting for a processor that is busy."""
    wall_ceiling_seconds: float = 600.0
    """Any child is stopped after this, however busy the machine."""
    memory_mb: int = 1024
    """Address space."""
    output_bytes: int = 4096
    """Length of an answer, over eight times what the expected value needs."""
    code_bytes: int = 1 << 20
    """Longer completions count as not compiling."""
    processes: int = 64
    """Over those that the user runs already; only where fork cannot be denied, and it never binds root."""
    start_seconds: float = 60.0
    """For a worker to come up."""


def interpreter() -> str:
    """The real interpreter under a virtual environment."""
    return os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)


def packages() -> list[tuple[str, str]]:
    """(directory, name) of the extra packages that are installed."""
    found = []
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin:
            found.append((str(Path(spec.origin).resolve().parent.parent), name))
    return found


@functools.cache
def libraries() -> tuple[str, ...]:
    """The shared libraries outside the standard library that its modules load, by the names they ask for.

    A fresh interpreter loads them all and says which; that takes about 0.1 s, once per process. InputError if
    it cannot.
    """
    command = [interpreter(), "-I", "-S", "-W", "ignore", str(ROOM / "list_libraries.py")]
    try:
        done = subprocess.run(
            command, env=environment(), capture_output=True, text=True, timeout=60, check=True
        )
    except (OSError, subprocess.SubprocessError) as fault:
        raise InputError(f"{interpreter()}: does not say which libraries it loads ({fault})") from None
    names = [os.path.normpath(name) for name in done.stdout.splitlines()]
    inside = tuple(f"{directory}/" for directory in standard_library())
    return tuple(name for name in names if os.path.isabs(name) and not name.startswith(inside))


def standard_library() -> list[str]:
    """The directories of the standard library."""
    paths = [os.path.realpath(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")]
    return list(dict.fromkeys(paths))


def hidden() -> list[str]:
    """Folders of the standard library that graded code does not see in a view of its own."""
    found = []
    for directory in standard_library():
        for pattern in HIDDEN:
            found += sorted(glob.glob(os.path.join(glob.escape(directory), pattern)))
    return found


def readable() -> list[str]:
    """Paths that graded code may read: libraries, time zones, a few devices. No home, no data, no /tmp."""
    paths = [
        *standard_library(),
        *libraries(),
        "/usr/share/zoneinfo",
        "/etc/localtime",
        "/etc/ld.so.cache",
        *DEVICES,
        *(os.path.join(directory, name) for directory, name in packages()),
    ]
    return [path for path in dict.fromkeys(paths) if os.path.exists(path)]


def shown() -> dict[str, list[str]]:
    """What a worker puts together where it makes its view itself: the arguments of view.see_only."""
    return {"paths": readable(), "without": hidden()}


@functools.cache
def warm_the_page_cache() -> None:
    """Have the kernel read every file that graded code may read, so that no run is the first to do so.

    Once per process, since it takes about 30 ms. A file that is in memory before the first run says nothing
    about which run has read it.
    """
    out_of_sight = tuple(hidden())
    for root in readable():
        if root in DEVICES:
            continue
        files = [root] if os.path.isfile(root) else files_below(root, out_of_sight)
        for file in files:
            with contextlib.suppress(OSError):
                handle = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
                os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_WILLNEED)
                os.close(handle)


def files_below(root: str, without: tuple[str, ...]) -> Iterator[str]:
    """All files of a directory and its folders, but for the folders in `without`."""
    for directory, folders, names in os.walk(root):
        folders[:] = [folder for folder in folders if os.path.join(directory, folder) not in without]
        for name in names:
            yield os.path.join(directory, name)


def environment(hash_seed: int = 0) -> dict[str, str]:
    """The whole environment of a worker. The fixed hash seed is why a label does not change between runs."""
    return {
        "PYTHONHASHSEED": str(hash_seed),
        "LC_ALL": "C.UTF-8",
        "PATH": "/usr/bin:/bin",
        "HOME": "/nonexistent",
        "TZ": "UTC",
    }


def worker_command(bubblewrap: str | None) -> list[str]:
    """The command line of a worker; it says nothing about problems, files or the grader.

    In bubblewrap the worker keeps one capability over its own namespaces, and none over the machine: with it,
    it gives each run process numbers of its own. A run has no capability.
    """
    plain = [interpreter(), "-P", "-s", "-S", str(ZYGOTE)]
    if bubblewrap is None:
        return plain
    mounts = []
    for path in standard_library():
        mounts += ["--ro-bind", path, path]
    for path in hidden():
        mounts += ["--tmpfs", path]
    for path in (interpreter(), *readable(), *map(str, ZYGOTE_FILES)):  # a package may be in a hidden folder
        if path not in standard_library():
            mounts += ["--dev-bind" if path in DEVICES else "--ro-bind", path, path]
    for path in hidden():
        mounts += ["--remount-ro", path]
    return [
        bubblewrap, "--unshare-all", "--unshare-user", "--hostname", HOST.decode(), "--die-with-parent",
        *mounts, "--remount-ro", "/", "--chdir", "/", "--cap-drop", "ALL", "--cap-add", "CAP_SYS_ADMIN",
        "--", *plain,
    ]  # fmt: skip


def usable_bubblewrap() -> str | None:
    """Path of bwrap if it can start our interpreter here (user namespaces may be forbidden), else None."""
    path = shutil.which("bwrap")
    if path is None:
        return None
    *command, _ = worker_command(path)
    try:
        done = subprocess.run(command + ["-c", "pass"], env=environment(), capture_output=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return path if done.returncode == 0 else None
