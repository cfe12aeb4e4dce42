"""The worker process: a small warm interpreter that forks once for every run. Standard library only.

`worker.py` starts this file as `python -P -s -S zygote.py` (inside bubblewrap where there is one) with a
control socket as standard input. Per run the grader passes one end of a fresh socket pair over it. The zygote
forks and keeps no copy: the child reads the completion from that socket and writes its answers to it, so
neither the code nor the answers of one run ever pass through memory that the next run's child inherits.
Expected values are never sent here.

Control messages are a 4-byte length and JSON. In: `start` (settings, once), `load` (set-up code and arguments
of a problem), `run` (one fork; carries the socket), `cancel`. Out: `ready`, and `done` with how the child
ended. The answer socket carries, from the child: one header line, then one JSON line per test. All of it is a
claim.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket
import sys
import time
from typing import Any, NoReturn

CLONE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
if __name__ == "__main__":  # started by its path: the project is on the import path until forget_project
    sys.path.insert(0, CLONE)

from hackward.grading.child import child, describe  # noqa: E402
from hackward.grading.fences import (  # noqa: E402
    SET_CHILD_SUBREAPER,
    SET_DUMPABLE,
    FilterProgram,
    drop_capabilities,
    filter_program,
    install_filter,
    landlock,
    landlock_abi,
    libc,
    no_new_privileges,
)
from hackward.grading.framing import receive_message, send_message  # noqa: E402

NAMESPACES = 64  # distinct set-up codes that are kept
BUSY = 0.02  # share of wall time in CPU time below which a child counts as idle
# fmt: off
WARM_MODULES = (
    "abc", "array", "bisect", "cmath", "collections", "contextlib", "copy", "dataclasses", "datetime",
    "decimal", "enum", "fractions", "functools", "hashlib", "heapq", "inspect", "io", "itertools",
    "json", "math", "numbers", "operator", "queue", "random", "re", "statistics", "string", "struct",
    "textwrap", "threading", "time", "traceback", "types", "typing", "unittest", "uuid",
)
# fmt: on


def forget_project() -> None:
    """Leave no way to the rest of the project: foreign code can neither import it nor list its folders."""
    sys.path.remove(CLONE)
    for name in list(sys.modules):
        if name.partition(".")[0] == "hackward":
            del sys.modules[name]
    forget_directory(CLONE)


def forget_directory(directory: str) -> None:
    """Drop what the import system remembers of a directory and of all below it."""
    for place in list(sys.path_importer_cache):
        if place == directory or place.startswith(directory + os.sep):
            del sys.path_importer_cache[place]


def warm(packages: list[list[str]]) -> None:
    """Import what completions usually import, while that is allowed. `packages`: directory and name each."""
    for name in WARM_MODULES:
        __import__(name)
    for directory, name in packages:
        sys.path.insert(0, directory)
        with contextlib.suppress(ImportError):
            __import__(name)
        sys.path.remove(directory)
        forget_directory(directory)


def start(settings: dict[str, Any]) -> tuple[FilterProgram | None, dict[str, Any]]:
    """Apply what protects the zygote as well. Returns the filter left for the child, and what was applied."""
    warm(settings["packages"])
    libc.prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    libc.prctl(SET_DUMPABLE, 0, 0, 0, 0)
    program, abi = None, 0
    if settings["restrict"]:
        program, abi = restrict(settings)
    gc.collect()
    gc.freeze()
    return program, {"landlock": abi, "pid": os.getpid(), "uid": os.getuid()}


def restrict(settings: dict[str, Any]) -> tuple[FilterProgram | None, int]:
    """Fence this process in. Returns the filter that is left for the child, and the ABI of Landlock."""
    drop_capabilities()
    no_new_privileges()
    own, for_child = map(bytes.fromhex, settings["filters"])
    if not for_child:
        # Fork stays possible, so the zygote needs /proc to find survivors. Landlock is for the child alone.
        return None, landlock_abi()
    abi = landlock(settings["readable"])
    install_filter(filter_program(own))
    return filter_program(for_child), abi


def load_problem(message: dict[str, Any], namespaces: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Run the set-up code, once per distinct text, and compile the argument lists; children inherit both.

    A fault in the set-up code is returned under "fault".
    """
    setup = message["setup"]
    if setup not in namespaces:
        if len(namespaces) >= NAMESPACES:
            namespaces.clear()
        namespace = {"__name__": "setup", "__builtins__": __builtins__}
        try:
            exec(compile(setup, "setup.py", "exec"), namespace)
        except Exception as fault:
            return {"fault": describe(fault)}
        namespaces[setup] = namespace
    arguments = [compile("_call" + text, "arguments.py", "eval") for text in message["arguments"]]
    return {"method": message["method"], "namespace": namespaces[setup], "arguments": arguments}


def serve_run(
    message: dict[str, Any],
    passed: int,
    problem: dict[str, Any],
    settings: dict[str, Any],
    program: FilterProgram | None,
    control: socket.socket,
) -> dict[str, Any]:
    """One fork, and how it ended. `passed` is the descriptor of the answer socket; it is closed here."""
    if "fault" in problem:
        os.close(passed)
        return {"done": message["id"], "how": "set-up code", "fault": problem["fault"]}
    try:
        pid = os.fork()
    except OSError as fault:
        os.close(passed)
        return {"done": message["id"], "how": "no fork", "fault": str(fault)}
    if pid == 0:
        child(passed, message, problem, settings, program)
    os.close(passed)
    how = wait_for(pid, control, settings["limits"])
    kill(pid)
    fork_denied = program is not None
    if not fork_denied:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
    _, status, usage = os.wait4(pid, 0)
    return {
        "done": message["id"],
        "how": how,
        "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0,
        "status": os.WEXITSTATUS(status) if os.WIFEXITED(status) else 0,
        "cpu": usage.ru_utime + usage.ru_stime,
        "survivors": 0 if fork_denied else sweep(),
    }


def wait_for(pid: int, control: socket.socket, limits: dict[str, Any]) -> str:
    """Wait until the child has "ended", is "cancelled", or must be killed ("wall"); returns which.

    CPU time decides (RLIMIT_CPU). Wall time only stops a child that is idle: on a loaded machine one that has
    had its share of the processor goes on, up to a ceiling.
    """
    handle = os.pidfd_open(pid)
    started = time.monotonic()
    try:
        watch = select.poll()
        watch.register(handle, select.POLLIN)
        watch.register(control, select.POLLIN)
        while True:
            elapsed = time.monotonic() - started
            if elapsed > limits["wall_ceiling_seconds"]:
                return "wall"
            if elapsed > limits["wall_seconds"] and cpu_seconds(pid) <= BUSY * elapsed:
                return "wall"
            ready = dict(watch.poll(500))
            if handle in ready:
                return "ended"
            if control.fileno() in ready:
                return "cancelled"  # the only message that comes during a run, or the grader is gone
    finally:
        os.close(handle)


def cpu_seconds(pid: int) -> float:
    """CPU time of another process so far, from its clock (no /proc needed)."""
    clock = ((~pid) << 3) | 2  # CPUCLOCK_SCHED of that process, as clock_getcpuclockid(3) makes it
    try:
        return time.clock_gettime(clock)
    except OSError:
        return 0.0


def sweep() -> int:
    """Kill and reap every process that the child left behind; returns how many signals that took.

    Orphans come to the zygote, which is their subreaper. None can exist where seccomp forbids fork.
    """
    found = 0
    for _ in range(1000):
        try:
            if os.waitpid(-1, os.WNOHANG)[0]:
                continue
        except ChildProcessError:
            return found
        with open("/proc/thread-self/children") as stream:
            children = stream.read().split()
        for pid in children:
            found += 1
            kill(int(pid))
        time.sleep(0.001)
    raise RuntimeError("survivors that cannot be killed")


def kill(pid: int) -> None:
    """SIGKILL, where there still is such a process."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def main() -> NoReturn:
    """Serve the grader until it is gone."""
    forget_project()
    control = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    os.close(null)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    settings, _ = receive_message(control)
    program, outcome = start(settings)
    send_message(control, {"ready": outcome})
    namespaces: dict[str, dict[str, Any]] = {}
    problem: dict[str, Any] = {}
    while True:
        message, passed = receive_message(control)
        if message["op"] == "load":
            problem = load_problem(message, namespaces)
        elif message["op"] == "run" and passed is not None:
            send_message(control, serve_run(message, passed, problem, settings, program, control))


if __name__ == "__main__":
    try:
        main()
    except (EOFError, ConnectionError, KeyboardInterrupt):
        os._exit(0)
