"""The worker process of the grader: a small warm interpreter that forks once for every run. Standard library only.

``worker.py`` starts this file as ``python -P -s -S zygote.py`` (inside bubblewrap where there is one) with a
control socket as standard input. Per run the grader passes one end of a fresh socket pair over it. The zygote forks and
keeps no copy: the child reads the completion from that socket and writes its answers to it, so neither the code nor the
answers of one run ever pass through memory that the next run's child inherits. Expected values are never sent here.

Control messages are a 4-byte length and JSON. In: ``start`` (settings, once), ``load`` (set-up code and arguments of a
problem), ``run`` (one fork; carries the socket), ``cancel``. Out: ``ready``, and ``done`` with how the child ended.
The answer socket carries, from the child: one header line, then one JSON line a test. All of it is a claim.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import sys
import time

# Started by its path and without any package, so the clone is put on the path for these imports and taken off again.
CLONE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
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

sys.path.remove(CLONE)

WARM_MODULES = [
    "abc",
    "array",
    "bisect",
    "cmath",
    "collections",
    "contextlib",
    "copy",
    "dataclasses",
    "datetime",
    "decimal",
    "enum",
    "fractions",
    "functools",
    "hashlib",
    "heapq",
    "inspect",
    "io",
    "itertools",
    "json",
    "math",
    "numbers",
    "operator",
    "queue",
    "random",
    "re",
    "statistics",
    "string",
    "struct",
    "textwrap",
    "threading",
    "time",
    "traceback",
    "types",
    "typing",
    "unittest",
    "uuid",
]


def load_problem(message: dict, namespaces: dict) -> dict:
    """Execute the set-up code once per distinct text and compile the argument lists; children inherit both for free."""
    setup = message["setup"]
    if setup not in namespaces:
        if len(namespaces) >= 64:
            namespaces.clear()
        namespace = {"__name__": "setup", "__builtins__": __builtins__}
        try:
            exec(compile(setup, "setup.py", "exec"), namespace)
        except Exception as fault:
            return {"fault": describe(fault)}
        namespaces[setup] = namespace
    arguments = [compile("_call" + text, "arguments.py", "eval") for text in message["arguments"]]
    return {"method": message["method"], "namespace": namespaces[setup], "arguments": arguments}


def cpu_seconds(pid: int) -> float:
    """CPU time of another process so far, from its clock (no /proc needed)."""
    try:
        return time.clock_gettime(((~pid) << 3) | 2)
    except OSError:
        return 0.0


def wait_for(pid: int, control: socket.socket, limits: dict) -> str:
    """Wait until the child ends, is cancelled, or must be killed; returns which. Kills from outside.

    CPU time decides (RLIMIT_CPU). Wall time only stops a child that is idle: on a loaded machine one that has had its
    share of the processor goes on, up to a ceiling.
    """
    handle = os.pidfd_open(pid)
    started = time.monotonic()
    try:
        watch = select.poll()
        watch.register(handle, select.POLLIN)
        watch.register(control, select.POLLIN)
        while True:
            elapsed = time.monotonic() - started
            if elapsed > limits["wall_seconds"]:
                busy = cpu_seconds(pid) > 0.02 * elapsed
                if not busy or elapsed > limits["wall_ceiling_seconds"]:
                    return "wall"
            ready = dict(watch.poll(500))
            if handle in ready:
                return "ended"
            if control.fileno() in ready:
                return "cancelled"  # the only message that comes during a run, or the grader is gone
    finally:
        os.close(handle)


def sweep() -> int:
    """Kill and reap every process that the child left behind (none can exist where seccomp forbids fork)."""
    found = 0
    for _ in range(1000):
        try:
            if os.waitpid(-1, os.WNOHANG)[0]:
                continue
        except ChildProcessError:
            return found
        with open(
            "/proc/thread-self/children"
        ) as stream:  # orphans come to us: the zygote is their subreaper
            children = stream.read().split()
        for pid in children:
            found += 1
            kill(int(pid))
        time.sleep(0.001)
    raise RuntimeError("survivors that cannot be killed")


def kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def serve_run(
    message: dict, passed: int, problem: dict, settings: dict, program, control: socket.socket
) -> dict:
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
    if program is None:
        try:
            os.killpg(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass
    _, status, usage = os.wait4(pid, 0)
    survivors = 0 if program is not None else sweep()
    return {
        "done": message["id"],
        "how": how,
        "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0,
        "status": os.WEXITSTATUS(status) if os.WIFEXITED(status) else 0,
        "cpu": usage.ru_utime + usage.ru_stime,
        "survivors": survivors,
    }


def warm(packages: list[str]) -> None:
    """Import what completions usually import, before anything is restricted. ``packages``: directory and name each."""
    for name in WARM_MODULES:
        __import__(name)
    for directory, name in packages:
        sys.path.insert(0, directory)
        try:
            __import__(name)
        except ImportError:
            pass
        finally:
            sys.path.remove(directory)


def start(settings: dict) -> tuple[FilterProgram | None, dict]:
    """Apply what protects the zygote as well, and say what was applied."""
    warm(settings["packages"])
    libc.prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    libc.prctl(SET_DUMPABLE, 0, 0, 0, 0)
    program, abi = None, 0
    if settings["restrict"]:
        drop_capabilities()
        no_new_privileges()
        first, second = map(bytes.fromhex, settings["filters"])
        program = filter_program(second) if second else None
        if settings[
            "landlock"
        ]:  # where fork stays possible the zygote needs /proc to find survivors: child only
            abi = landlock(settings["readable"]) if program is not None else landlock_abi()
        if first:
            install_filter(filter_program(first))
    gc.collect()
    gc.freeze()
    return program, {"landlock": abi, "pid": os.getpid(), "uid": os.getuid()}


def main() -> None:
    control = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    os.close(null)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    settings, _ = receive_message(control)
    program, outcome = start(settings)
    send_message(control, {"ready": outcome})
    namespaces: dict = {}
    problem: dict = {}
    while True:
        message, passed = receive_message(control)
        if message["op"] == "load":
            problem = load_problem(message, namespaces)
        elif message["op"] == "run":
            send_message(control, serve_run(message, passed, problem, settings, program, control))


if __name__ == "__main__":
    try:
        main()
    except (EOFError, ConnectionError, KeyboardInterrupt):
        os._exit(0)
