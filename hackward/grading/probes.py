"""What is tried at start, in children like those that will run foreign code, to see what fences them in.

Two children of one worker make the same attempts, one after the other; the second also looks for what the
first has left. An attempt that succeeds in either is an open door.
"""

from __future__ import annotations

import os
import socket
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hackward.grading.claims import decode

PROBE = """
import ctypes, os, socket, threading, time
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
def reaches(pid):
    if pid:  # 0: the parent is out of sight
        os.kill(pid, 0)
    return pid != 0
def signal_parent():
    return reaches(os.getppid())
def signal_grader():
    return reaches(facts["pid"])
def trace_parent():
    return os.getppid() and libc.ptrace(0x4206, os.getppid(), 0, 0) == 0  # SEIZE, which does not stop it
def memory_of_parent():
    return len(open("/proc/%d/environ" % os.getppid(), "rb").read(1)) == 1
def list_directory():
    return len(os.listdir(os.path.dirname(facts["file"]))) > 0
def see_environment():
    return facts["variable"] in os.environ
def see_files():
    return os.stat(facts["file"]) is not None
def clock_of_parent():
    return os.getppid() and time.clock_gettime(((~os.getppid()) << 3) | 2) > 0
def load_of_machine():
    return libc.sysinfo(ctypes.create_string_buffer(512)) == 0
def access_time():
    before = os.stat(facts["library"]).st_atime_ns
    open(facts["library"]).read()
    return os.stat(facts["library"]).st_atime_ns != before
def page_cache():
    file = os.open(facts["library"], os.O_RDONLY)
    found = []
    mapped = libc.mmap(None, 4096, 1, 2, file, 0)
    for call in (
        lambda: libc.mincore(ctypes.c_void_p(mapped), 4096, ctypes.create_string_buffer(8)) == 0,
        lambda: libc.madvise(ctypes.c_void_p(mapped), 4096, 21) == 0,
        lambda: libc.posix_fadvise(file, 0, 0, 4) == 0,
        lambda: libc.syscall(451, file, (ctypes.c_uint64 * 2)(), (ctypes.c_uint64 * 5)(), 0) == 0,
        lambda: libc.preadv2(file, (ctypes.c_void_p * 2)(), 0, ctypes.c_long(0), 8) >= 0,
    ):
        try:
            found.append(call())
        except AttributeError:
            pass
    return any(found)
def lock():
    import fcntl
    file = os.open(facts["library"], os.O_RDONLY)
    for take in (lambda: fcntl.flock(file, fcntl.LOCK_SH), lambda: fcntl.fcntl(file, 1024, 0),
                 lambda: fcntl.lockf(file, fcntl.LOCK_SH)):
        try:
            take()
            return True
        except OSError:
            pass
def descriptors():
    import fcntl
    found = any(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK for fd in (0, 1, 2))
    for fd in (0, 1, 2):
        fcntl.fcntl(fd, fcntl.F_SETFL, os.O_NONBLOCK)
    return found
def process_numbers():
    for _ in range(3):
        thread = threading.Thread(target=int)
        thread.start()
        thread.join()
    return os.getpid() != 1
libc.mmap.restype = ctypes.c_void_p
for name, action in (
    ("fork", fork), ("exec", execute), ("write a file", write), ("create a file", create),
    ("read a file", read), ("list a directory", list_directory), ("connect", connect),
    ("signal the parent", signal_parent), ("signal the grader", signal_grader),
    ("trace the parent", trace_parent), ("memory of the parent", memory_of_parent),
    ("see the environment", see_environment), ("see which files exist", see_files),
    ("leave an access time", access_time), ("see or clear the page cache", page_cache), ("lock a file", lock),
    ("leave flags on a descriptor", descriptors), ("count process numbers", process_numbers),
    ("read the clock of the parent", clock_of_parent), ("read the load of the machine", load_of_machine),
):
    attempt(name, action)
"""
# What graded code cannot do where all probes of a group are blocked, in words that follow "cannot"
GROUPS = {
    "start programs": ("fork", "exec"),
    "change files": ("write a file", "create a file"),
    "read files outside Python's library": ("read a file", "list a directory"),
    "see which files exist": ("see which files exist",),
    "reach the network": ("connect",),
    "reach other processes": (
        "signal the parent",
        "signal the grader",
        "trace the parent",
        "memory of the parent",
    ),
    "see the environment": ("see the environment",),
    "hold a worker past its limits": ("outlast its limits",),
    "leave word for a later run": (
        "leave an access time",
        "see or clear the page cache",
        "lock a file",
        "leave flags on a descriptor",
        "count process numbers",
        "read the clock of the parent",
        "read the load of the machine",
    ),
}
FROM_OUTSIDE = ("outlast its limits",)  # not tried by a child
PROBED = tuple(name for names in GROUPS.values() for name in names)
VARIABLE = "HACKWARD_PROBE"


class ProbeTargets:
    """A file, a port and an environment variable for the probes to reach for, during a `with`."""

    def __enter__(self) -> ProbeTargets:
        self._directory = tempfile.TemporaryDirectory(prefix="hackward-probe-")
        target = Path(self._directory.name, "canary")
        target.write_text("canary")
        self._listener = socket.create_server(("127.0.0.1", 0))
        os.environ[VARIABLE] = "canary"
        facts = {
            "file": str(target),
            "port": self._listener.getsockname()[1],
            "pid": os.getpid(),
            "variable": VARIABLE,
            "library": os.path.realpath(os.__file__),
        }
        self.code = PROBE.format(facts=facts)
        return self

    def __exit__(self, *_: object) -> None:
        os.environ.pop(VARIABLE, None)
        self._listener.close()
        self._directory.cleanup()


@dataclass
class Probed:
    """Collects what the probes found: name -> True where an attempt succeeded in one of the children."""

    found: dict[str, bool] = field(default_factory=dict)
    lines: int = 0
    error: str | None = None
    started: bool = False

    @property
    def begun(self) -> bool:
        return self.lines > 0

    def line(self, data: bytes) -> bool:
        self.lines += 1
        answer: Any = decode(data)
        for name, succeeded in answer.items():
            self.found[name] = self.found.get(name, False) or succeeded
        return self.lines < len(PROBED) - len(FROM_OUTSIDE)

    def end(self) -> None:
        self.lines = 0
