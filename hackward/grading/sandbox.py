"""What fences in graded code: the limits, the system call filter, the readable paths, bubblewrap, and the probes.

Built here, in the grader's own process, and handed to the worker as data (grade_worker.py applies it). Layers, each
optional where the machine lacks it:

* seccomp (pyseccomp): an allow list of what computing Python needs. Threads yes; fork, exec, signals, sockets, ptrace,
  opening for writing no. Everything else fails with EPERM, so that code that merely tries goes on.
* Landlock: reading beneath the interpreter's library and the system libraries only; no TCP, no signals to outside.
* bubblewrap: once around each worker: own mount, process, network and user namespaces, nothing else mounted.
* rlimits and an empty environment: always, in every mode.
"""

from __future__ import annotations

import errno
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MODES = ("strict", "best-effort", "none")
ROOM = Path(__file__).resolve().parent
ZYGOTE = ROOM / "zygote.py"  # what a worker runs, and all the files that it loads
ZYGOTE_FILES = (
    ROOM.parent / "__init__.py",
    *(ROOM / name for name in ("__init__.py", "zygote.py", "child.py", "fences.py", "framing.py")),
)
PACKAGES = ("sortedcontainers",)  # what judges of programming contests offer beside the standard library


@dataclass(frozen=True)
class Limits:
    """What one run of one completion may use. CPU time decides verdicts; the others are backstops."""

    cpu_seconds: float = (
        2.0  # CPU time for the ground truth, plus the next for each test (rounded up to a second)
    )
    cpu_seconds_per_test: float = 0.1  # slowest canonical solutions: 0.9 s of 3 tests, 2.6 s of 100
    own_cpu_seconds: float = 2.0  # CPU time for the completion's own evaluation
    wall_seconds: float = 15.0  # a child that is idle (under 2 % CPU) is stopped after this
    wall_ceiling_seconds: float = 600.0  # and any child after this, however busy the machine
    memory_mb: int = 1024  # address space
    output_bytes: int = 4096  # length of an answer, over eight times what the expected value needs
    code_bytes: int = 1 << 20  # longer completions count as not compiling
    processes: int = (
        64  # over those the user runs already; only where fork cannot be denied, and never binds root
    )
    start_seconds: float = 60.0  # for a worker to come up


ALLOWED = [
    "read",
    "readv",
    "pread64",
    "preadv",
    "write",
    "writev",
    "pwrite64",
    "lseek",
    "close",
    "close_range",
    "fstat",
    "newfstatat",
    "stat",
    "lstat",
    "statx",
    "access",
    "faccessat",
    "faccessat2",
    "readlink",
    "readlinkat",
    "getcwd",
    "getdents",
    "getdents64",
    "fadvise64",
    "mmap",
    "munmap",
    "mprotect",
    "mremap",
    "madvise",
    "brk",
    "mincore",
    "membarrier",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "rt_sigtimedwait",
    "rt_sigpending",
    "sigaltstack",
    "pause",
    "alarm",
    "setitimer",
    "getitimer",
    "restart_syscall",
    "clock_gettime",
    "clock_getres",
    "clock_nanosleep",
    "nanosleep",
    "gettimeofday",
    "time",
    "times",
    "getrusage",
    "getcpu",
    "sysinfo",
    "uname",
    "getpid",
    "gettid",
    "getppid",
    "getpgrp",
    "getpgid",
    "getsid",
    "getuid",
    "geteuid",
    "getgid",
    "getegid",
    "getgroups",
    "getresuid",
    "getresgid",
    "getrlimit",
    "getpriority",
    "sched_yield",
    "sched_getaffinity",
    "sched_getparam",
    "sched_getscheduler",
    "futex",
    "futex_waitv",
    "set_robust_list",
    "get_robust_list",
    "rseq",
    "set_tid_address",
    "arch_prctl",
    "getrandom",
    "exit",
    "exit_group",
    "poll",
    "ppoll",
    "select",
    "pselect6",
    "epoll_create",
    "epoll_create1",
    "epoll_ctl",
    "epoll_wait",
    "epoll_pwait",
    "eventfd2",
    "pipe",
    "pipe2",
    "dup",
    "dup2",
    "dup3",
    "recvfrom",
    "shutdown",
    "getsockopt",
    "setsockopt",
    "getsockname",
    "getpeername",
    "umask",
]
OTHER_ERRORS = {"clone3": errno.ENOSYS, "openat2": errno.ENOSYS}
FIONBIO = 0x5421  # the one ioctl that is needed: non-blocking sockets of an event loop
CLONE_THREAD = 0x10000
OPEN_CHANGES = os.O_ACCMODE | os.O_CREAT | os.O_TRUNC | getattr(os, "O_TMPFILE", 0o20000000) & ~os.O_DIRECTORY
FCNTL_COMMANDS = (
    0,
    1,
    2,
    3,
    4,
    1030,
)  # DUPFD GETFD SETFD GETFL SETFL DUPFD_CLOEXEC; not SETOWN, which sends signals
PRCTL_OPTIONS = (15, 16, 0x53564D41)  # names of threads and of mappings
AF_UNIX = 1
# What the zygote does beside that: it forks, ends and reaps children, and receives sockets. The child loses all of it.
ZYGOTE_ONLY = [
    "fork",
    "vfork",
    "kill",
    "wait4",
    "waitid",
    "setsid",
    "recvmsg",
    "sendmsg",
    "pidfd_open",
    "pidfd_send_signal",
    "setrlimit",
    "seccomp",
]
SET_SECCOMP = 22


def seccomp_filters() -> tuple[bytes, bytes]:
    """Two compiled filters: an allow list for the zygote, and a short one for the child that takes from it.

    Together they are one allow list for the child. In two because installing costs time by length, and only the short
    one is installed in every run. Raises ImportError, OSError or RuntimeError where they cannot be built.
    """
    import pyseccomp

    argument, equal, masked, unequal = pyseccomp.Arg, pyseccomp.EQ, pyseccomp.MASKED_EQ, pyseccomp.NE
    denied = pyseccomp.ERRNO(errno.EPERM)

    def known(name: str) -> bool:
        return (
            name == "read" or pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name) > 0
        )  # read is 0 on x86-64

    first = pyseccomp.SyscallFilter(denied)
    for name in filter(known, ALLOWED + ZYGOTE_ONLY):
        first.add_rule(pyseccomp.ALLOW, name)
    for name, number in filter(lambda pair: known(pair[0]), OTHER_ERRORS.items()):
        first.add_rule(pyseccomp.ERRNO(number), name)
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
        if known(name):
            first.add_rule(pyseccomp.ALLOW, name, *conditions)

    first.add_rule(pyseccomp.ERRNO(errno.ENOTTY), "ioctl", argument(1, unequal, FIONBIO))

    second = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    for name in filter(known, ZYGOTE_ONLY):
        second.add_rule(denied, name)
    second.add_rule(denied, "clone", argument(0, masked, CLONE_THREAD, 0))
    second.add_rule(denied, "prlimit64", argument(2, unequal, 0))
    second.add_rule(denied, "prctl", argument(0, equal, SET_SECCOMP))
    return _compiled(first), _compiled(second)


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
    """Paths that graded code may read: libraries, time zones, a few devices. No home, no data, no temporary files."""
    library = sysconfig.get_path("stdlib")
    paths = [
        os.path.join(sys.base_prefix, "lib"),
        os.path.realpath(library),
        *(
            "/usr/lib",
            "/lib",
            "/lib64",
            "/usr/lib64",
            "/usr/share/zoneinfo",
            "/etc/localtime",
            "/etc/ld.so.cache",
        ),
        *("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random"),
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
    paths = [interpreter(), *readable(), *map(str, ZYGOTE_FILES)]
    mounts = [part for path in paths if not path.startswith("/dev/") for part in ("--ro-bind", path, path)]
    return [
        bubblewrap, "--unshare-all", "--die-with-parent", "--proc", "/proc", "--dev", "/dev", *mounts,
        "--chdir", "/", "--cap-drop", "ALL", "--", *plain,
    ]  # fmt: skip


def usable_bubblewrap() -> str | None:
    """Path of bwrap if it can start our interpreter here (user namespaces may be forbidden), else None."""
    path = shutil.which("bwrap")
    if path is None:
        return None
    command = worker_command(path)[:-1]  # without the worker file: the interpreter reads a program from stdin
    try:
        done = subprocess.run(command + ["-c", "pass"], env=environment(), capture_output=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return path if done.returncode == 0 else None


PROBE = """
import ctypes, os, socket
facts = {facts!r}
libc = ctypes.CDLL(None, use_errno=True)
def attempt(name, action):
    try:
        report({{name: bool(action())}})
    except BaseException:
        report({{name: False}})
def fork():
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return True
def write():
    os.close(os.open(facts["file"], os.O_WRONLY))
    return True
def create():
    os.close(os.open(facts["file"] + ".new", os.O_WRONLY | os.O_CREAT))
    return True
def read():
    return open(facts["file"]).read() == "canary"
def execute():
    return os.spawnv(os.P_WAIT, "/bin/true", ["true"]) == 0
def connect():
    with socket.create_connection(("127.0.0.1", facts["port"]), 2):
        return True
def signal_parent():
    os.kill(os.getppid(), 0)
    return True
def signal_grader():
    os.kill(facts["pid"], 0)
    return True
def trace_parent():
    return libc.ptrace(0x4206, os.getppid(), 0, 0) == 0  # SEIZE, which unlike ATTACH does not stop it
def memory_of_parent():
    return len(open("/proc/%d/environ" % os.getppid(), "rb").read(1)) == 1
def list_directory():
    return len(os.listdir(os.path.dirname(facts["file"]))) > 0
def see_environment():
    return facts["variable"] in os.environ
for name, action in (("fork", fork), ("exec", execute), ("write a file", write), ("create a file", create),
        ("read a file", read), ("list a directory", list_directory), ("connect", connect),
        ("signal the parent", signal_parent), ("signal the grader", signal_grader), ("trace the parent", trace_parent),
        ("memory of the parent", memory_of_parent), ("see the environment", see_environment)):
    attempt(name, action)
"""
PROBED = (
    "fork", "exec", "write a file", "create a file", "read a file", "list a directory", "connect", "signal the parent",
    "signal the grader", "trace the parent", "memory of the parent", "see the environment",
)  # fmt: skip


class ProbeTargets:
    """A file, a listening port and an environment variable for the probes to reach for; gone after the ``with``."""

    def __enter__(self) -> ProbeTargets:
        self._directory = tempfile.TemporaryDirectory(prefix="hackward-probe-")
        target = Path(self._directory.name, "canary")
        target.write_text("canary")
        self._listener = socket.create_server(("127.0.0.1", 0))
        os.environ["HACKWARD_PROBE"] = "canary"
        facts = {
            "file": str(target),
            "port": self._listener.getsockname()[1],
            "pid": os.getpid(),
            "variable": "HACKWARD_PROBE",
        }
        self.code = PROBE.format(facts=facts)
        return self

    def __exit__(self, *_: object) -> None:
        os.environ.pop("HACKWARD_PROBE", None)
        self._listener.close()
        self._directory.cleanup()
