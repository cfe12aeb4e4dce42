"""What fences in graded code: the limits, the system call filter, the readable paths, bubblewrap.

Built here, in the grader's own process, and handed to the worker as data (fences.py applies it). Layers, each
optional where the machine lacks it:

* seccomp (pyseccomp): an allow list of what computing Python needs. Threads yes; fork, exec, signals,
sockets, ptrace, opening for writing no. Everything else fails with EPERM, so that code that merely tries goes
on. * Landlock: reading beneath the interpreter's library and the system libraries only; no TCP, no signals to
outside. * bubblewrap: once around each worker: own mount, process, network and user namespaces, nothing else
mounted. * rlimits and an empty environment: always, in every mode.
"""

from __future__ import annotations

import errno
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MODES = ("strict", "best-effort", "none")
ROOM = Path(__file__).resolve().parent
ZYGOTE = ROOM / "zygote.py"  # what a worker runs
ZYGOTE_FILES = (  # and all the files of this project that it loads
    ROOM.parent / "__init__.py",
    *(ROOM / name for name in ("__init__.py", "zygote.py", "child.py", "fences.py", "framing.py")),
)
PACKAGES = ("sortedcontainers",)  # what judges of programming contests offer beside the standard library


@dataclass(frozen=True)
class Limits:
    """What one run of one completion may use. CPU time decides verdicts; the others are backstops."""

    cpu_seconds: float = 2.0
    """CPU time for the ground truth, plus the next for each test (rounded up to a second)."""
    cpu_seconds_per_test: float = 0.1
    """The slowest canonical solutions take 0.9 s for 3 tests and 2.6 s for 100."""
    own_cpu_seconds: float = 2.0
    """CPU time for the completion's own evaluation."""
    wall_seconds: float = 15.0
    """A child that is idle (under 2 % CPU) is stopped after this."""
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


# fmt: off
ALLOWED = (
    # files that are open, or opened for reading
    "read", "readv", "pread64", "preadv", "write", "writev", "pwrite64", "lseek", "close", "close_range",
    "fstat", "newfstatat", "stat", "lstat", "statx", "access", "faccessat", "faccessat2", "readlink",
    "readlinkat", "getcwd", "getdents", "getdents64", "fadvise64", "dup", "dup2", "dup3", "umask",
    # memory
    "mmap", "munmap", "mprotect", "mremap", "madvise", "brk", "mincore", "membarrier",
    # signals to oneself
    "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "rt_sigtimedwait", "rt_sigpending", "sigaltstack",
    "pause", "alarm", "setitimer", "getitimer", "restart_syscall",
    # time, and what the process is
    "clock_gettime", "clock_getres", "clock_nanosleep", "nanosleep", "gettimeofday", "time", "times",
    "getrusage", "getcpu", "sysinfo", "uname", "getpid", "gettid", "getppid", "getpgrp", "getpgid",
    "getsid", "getuid", "geteuid", "getgid", "getegid", "getgroups", "getresuid", "getresgid",
    "getrlimit", "getpriority", "getrandom",
    # threads
    "sched_yield", "sched_getaffinity", "sched_getparam", "sched_getscheduler", "futex", "futex_waitv",
    "set_robust_list", "get_robust_list", "rseq", "set_tid_address", "arch_prctl", "exit", "exit_group",
    # event loops, and the socket that it has
    "poll", "ppoll", "select", "pselect6", "epoll_create", "epoll_create1", "epoll_ctl", "epoll_wait",
    "epoll_pwait", "eventfd2", "pipe", "pipe2", "recvfrom", "shutdown", "getsockopt", "setsockopt",
    "getsockname", "getpeername",
)
# What the zygote does beside that: it forks, ends and reaps children, receives sockets. The child may not.
ZYGOTE_ONLY = (
    "fork", "vfork", "kill", "wait4", "waitid", "setsid", "recvmsg", "sendmsg", "pidfd_open",
    "pidfd_send_signal", "setrlimit", "seccomp",
)
# fmt: on
OTHER_ERRORS = {"clone3": errno.ENOSYS, "openat2": errno.ENOSYS}  # the C library then uses the older call
FIONBIO = 0x5421  # the one ioctl that is needed: non-blocking sockets of an event loop
CLONE_THREAD = 0x10000
OPEN_CHANGES = os.O_ACCMODE | os.O_CREAT | os.O_TRUNC | getattr(os, "O_TMPFILE", 0o20000000) & ~os.O_DIRECTORY
# DUPFD GETFD SETFD GETFL SETFL DUPFD_CLOEXEC; not SETOWN, which sends signals
FCNTL_COMMANDS = (0, 1, 2, 3, 4, 1030)
PRCTL_OPTIONS = (15, 16, 0x53564D41)  # names of threads and of mappings
AF_UNIX = 1
SET_SECCOMP = 22


def seccomp_filters() -> tuple[bytes, bytes]:
    """Two compiled filters: an allow list for the zygote, and a short one for the child that takes from it.

    Together they are one allow list for the child. In two because installing costs time by length, and only
    the short one is installed in every run. Raises ImportError, OSError or RuntimeError where they cannot be
    built.
    """
    return _compiled(_zygote_rules()), _compiled(_child_rules())


def _zygote_rules() -> Any:
    """Allow what is listed; everything else fails with EPERM."""
    import pyseccomp

    argument, equal, masked, unequal = pyseccomp.Arg, pyseccomp.EQ, pyseccomp.MASKED_EQ, pyseccomp.NE
    rules = pyseccomp.SyscallFilter(pyseccomp.ERRNO(errno.EPERM))
    for name in filter(_known, ALLOWED + ZYGOTE_ONLY):
        rules.add_rule(pyseccomp.ALLOW, name)
    for name in filter(_known, OTHER_ERRORS):
        rules.add_rule(pyseccomp.ERRNO(OTHER_ERRORS[name]), name)
    for name, *conditions in (
        ("clone",),
        ("open", argument(1, masked, OPEN_CHANGES, 0)),
        ("openat", argument(2, masked, OPEN_CHANGES, 0)),
        ("prlimit64", argument(0, equal, 0)),
        ("ioctl", argument(1, equal, FIONBIO)),
        ("sendto", argument(4, equal, 0)),
        ("socketpair", argument(0, equal, AF_UNIX)),
        *(("fcntl", argument(1, equal, command)) for command in FCNTL_COMMANDS),
        *(("prctl", argument(0, equal, option)) for option in (*PRCTL_OPTIONS, SET_SECCOMP)),
    ):
        if _known(name):
            rules.add_rule(pyseccomp.ALLOW, name, *conditions)
    rules.add_rule(pyseccomp.ERRNO(errno.ENOTTY), "ioctl", argument(1, unequal, FIONBIO))
    return rules


def _child_rules() -> Any:
    """Deny what the child loses; the zygote's rules, which it inherits, decide the rest."""
    import pyseccomp

    argument = pyseccomp.Arg
    denied = pyseccomp.ERRNO(errno.EPERM)
    rules = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    for name in filter(_known, ZYGOTE_ONLY):
        rules.add_rule(denied, name)
    rules.add_rule(denied, "clone", argument(0, pyseccomp.MASKED_EQ, CLONE_THREAD, 0))
    rules.add_rule(denied, "prlimit64", argument(2, pyseccomp.NE, 0))
    rules.add_rule(denied, "prctl", argument(0, pyseccomp.EQ, SET_SECCOMP))
    return rules


def _known(name: str) -> bool:
    """Whether this architecture has a system call by that name."""
    import pyseccomp

    if name == "read":  # number 0 on x86-64
        return True
    return pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name) > 0


def _compiled(rules: Any) -> bytes:
    with tempfile.TemporaryFile() as stream:
        rules.export_bpf(stream)
        stream.seek(0)
        return stream.read()


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


def readable() -> list[str]:
    """Paths that graded code may read: libraries, time zones, a few devices. No home, no data, no /tmp."""
    paths = [
        os.path.join(sys.base_prefix, "lib"),
        os.path.realpath(sysconfig.get_path("stdlib")),
        "/usr/lib",
        "/lib",
        "/lib64",
        "/usr/lib64",
        "/usr/share/zoneinfo",
        "/etc/localtime",
        "/etc/ld.so.cache",
        "/dev/null",
        "/dev/zero",
        "/dev/urandom",
        "/dev/random",
        *(os.path.join(directory, name) for directory, name in packages()),
    ]
    return [path for path in dict.fromkeys(paths) if os.path.exists(path)]


def environment() -> dict[str, str]:
    """The whole environment of a worker. The fixed hash seed is why a label does not change between runs."""
    return {
        "PYTHONHASHSEED": "0",
        "LC_ALL": "C.UTF-8",
        "PATH": "/usr/bin:/bin",
        "HOME": "/nonexistent",
        "TZ": "UTC",
    }


def worker_command(bubblewrap: str | None) -> list[str]:
    """The command line of a worker; it says nothing about problems, files or the grader."""
    plain = [interpreter(), "-P", "-s", "-S", str(ZYGOTE)]
    if bubblewrap is None:
        return plain
    mounts = []
    for path in (interpreter(), *readable(), *map(str, ZYGOTE_FILES)):
        if not path.startswith("/dev/"):
            mounts += ["--ro-bind", path, path]
    return [
        bubblewrap, "--unshare-all", "--die-with-parent", "--proc", "/proc", "--dev", "/dev", *mounts,
        "--chdir", "/", "--cap-drop", "ALL", "--", *plain,
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
