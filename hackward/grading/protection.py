"""What fences graded code in on this machine, and what probes in a child find that to be worth."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from hackward.base.faults import InputError
from hackward.grading.claims import HEADER_BYTES, decode, printable
from hackward.grading.sandbox import (
    MODES,
    Limits,
    packages,
    readable,
    seccomp_filters,
    usable_bubblewrap,
)
from hackward.grading.worker import Worker, WorkerDied

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
for name, action in (
    ("fork", fork), ("exec", execute), ("write a file", write), ("create a file", create),
    ("read a file", read), ("list a directory", list_directory), ("connect", connect),
    ("signal the parent", signal_parent), ("signal the grader", signal_grader),
    ("trace the parent", trace_parent), ("memory of the parent", memory_of_parent),
    ("see the environment", see_environment),
):
    attempt(name, action)
"""
PROBED = (
    "fork",
    "exec",
    "write a file",
    "create a file",
    "read a file",
    "list a directory",
    "connect",
    "signal the parent",
    "signal the grader",
    "trace the parent",
    "memory of the parent",
    "see the environment",
)
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
        }
        self.code = PROBE.format(facts=facts)
        return self

    def __exit__(self, *_: object) -> None:
        os.environ.pop(VARIABLE, None)
        self._listener.close()
        self._directory.cleanup()


@dataclass
class Probed:
    """Collects what the probes found: name -> True where the attempt succeeded."""

    found: dict[str, bool] = field(default_factory=dict)
    error: str | None = None

    @property
    def begun(self) -> bool:
        return bool(self.found)

    def cap(self) -> int:
        return HEADER_BYTES

    def line(self, data: bytes) -> bool:
        self.found.update(decode(data))
        return len(self.found) < len(PROBED)


class Setup:
    """How workers are started here, and what of a sandbox this machine lacks (`missing`).

    `settings` is what a worker is told at its start. InputError for an unknown mode.
    """

    def __init__(self, sandbox: str, limits: Limits, eval_name: str, bubblewrap: bool):
        if sandbox not in MODES:
            raise InputError(f"sandbox must be one of {', '.join(MODES)}, not {sandbox!r}")
        restrict = sandbox != "none"
        self.sandbox = sandbox
        self.limits = limits
        self.missing: list[str] = []
        self.bubblewrap = usable_bubblewrap() if bubblewrap and restrict else None
        filters = self._filters() if restrict else (b"", b"")
        if restrict and self.bubblewrap is None:
            self.missing.append("bubblewrap (not needed where all probes are blocked)")
        self.settings: dict[str, Any] = {
            "restrict": restrict,
            "filters": [program.hex() for program in filters],
            "readable": readable(),
            "packages": packages(),
            "eval_name": eval_name,
            "limits": {
                "wall_seconds": limits.wall_seconds,
                "wall_ceiling_seconds": limits.wall_ceiling_seconds,
                "memory_mb": limits.memory_mb,
                "process_ceiling": limits.processes + own_processes(),
            },
        }

    def _filters(self) -> tuple[bytes, bytes]:
        try:
            return seccomp_filters()
        except (ImportError, OSError, RuntimeError, AttributeError) as fault:
            self.missing.append(f"seccomp (pyseccomp: {printable(fault)})")
            return b"", b""

    def start_worker(self) -> Worker:
        """A new worker. WorkerNotStarted if it does not come up."""
        return Worker(self.settings, self.bubblewrap, self.limits.start_seconds)

    def protection(self) -> dict[str, Any]:
        """What protects the machine, as probes in a child like those that will run foreign code find it.

        InputError where the probes cannot be run, or where one succeeds although the mode is strict.
        """
        probed, landlock_abi = self._probe()
        if self.settings["restrict"] and not landlock_abi:
            self.missing.append("Landlock (kernel without it)")
        open_doors = [name for name in PROBED if probed.found.get(name, True)]
        if self.sandbox == "strict" and open_doors:
            missing = "; ".join(self.missing) or "nothing that is known"
            raise InputError(
                f"--sandbox strict: graded code could {', '.join(open_doors)} (missing: {missing})"
            )
        return {
            "sandbox": self.sandbox,
            "seccomp": bool(self.settings["filters"][0]),
            "landlock_abi": landlock_abi,
            "bubblewrap": self.bubblewrap is not None,
            "user": "root" if os.geteuid() == 0 else "unprivileged",
            "probes": {name: "OPEN" if name in open_doors else "blocked" for name in PROBED},
            "missing": self.missing,
        }

    def _probe(self) -> tuple[Probed, int]:
        """What the probes found, and the ABI of Landlock that the worker used."""
        probed = Probed()
        try:
            with ProbeTargets() as targets, contextlib.closing(self.start_worker()) as worker:
                worker.run(targets.code.encode(), "probe", probed, self.limits.cpu_seconds)
        except WorkerDied as fault:
            raise InputError(f"--sandbox {self.sandbox}: {fault}") from None
        if probed.error:
            raise InputError(f"--sandbox {self.sandbox}: the start-up probes did not finish ({probed.error})")
        return probed, worker.outcome["landlock"]


def own_processes() -> int:
    """Processes and threads that this user runs at the moment."""
    count = 0
    try:
        for entry in os.scandir("/proc"):
            if entry.name.isdigit() and entry.stat().st_uid == os.getuid():
                count += len(os.listdir(f"/proc/{entry.name}/task"))
    except OSError:
        return 4096
    return count


def print_protection(protection: dict[str, Any], console: Console) -> None:
    """One line: what protects, and what does not."""
    layers = [name for name in ("bubblewrap", "seccomp") if protection[name]]
    if protection["landlock_abi"]:
        layers.append(f"Landlock ABI {protection['landlock_abi']}")
    probes = protection["probes"]
    doors = [name for name, state in probes.items() if state == "OPEN"]
    line = f"sandbox {protection['sandbox']} ({protection['user']}): {' + '.join(layers) or 'limits only'}"
    line += f"; {len(probes) - len(doors)} of {len(probes)} probes blocked"
    if doors:
        line += f"; OPEN: {', '.join(doors)}"
    if protection["missing"]:
        line += f"; missing: {', '.join(protection['missing'])}"
    console.print(line, highlight=False, soft_wrap=True)
