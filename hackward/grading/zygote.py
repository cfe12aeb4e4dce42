"""The worker process: a small warm interpreter that forks once for every run. Standard library only.

`worker.py` starts this file as `python -P -s -S zygote.py` (inside bubblewrap where there is one) with a
control socket as standard input. Per run the grader passes one end of a fresh socket pair over it. The zygote
forks and keeps no copy: the child reads the completion from that socket and writes its answers to it, so
neither the code nor the answers of one run ever pass through memory that the next run's child inherits.
Expected values are never sent here.

Control messages are a 4-byte length and JSON. In: `start` (settings, once), `load` (set-up code and arguments
of a problem), `run` (one fork, always in the same words; carries the socket and a null device opened for it).
Out: `ready`, and an Ending per run. The answer socket carries, to the child: what to do, and the completion;
from it: one header line, then one JSON line per test. All of it is a claim.

Nothing that a child does changes the zygote, so that no later child can tell what an earlier one did: the
child has its own descriptors and process numbers, and how it ended passes through memory that is wiped. It is
the grader that watches a child's clocks and kills it (clocks.py); the zygote only waits.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import signal
import socket
import sys
import time
import types
from dataclasses import dataclass
from typing import Any, NoReturn

CLONE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
if __name__ == "__main__":  # started by its path: the project is on the import path until forget_project
    sys.path.insert(0, CLONE)

from hackward.grading.calling import restore_names  # noqa: E402
from hackward.grading.child import child, describe  # noqa: E402
from hackward.grading.fences import (  # noqa: E402
    CAP_SYS_ADMIN,
    SET_CHILD_SUBREAPER,
    SET_DUMPABLE,
    FilterProgram,
    die_with_parent,
    filter_program,
    install_filter,
    keep_capabilities,
    landlock,
    landlock_abi,
    libc,
    no_new_privileges,
)
from hackward.grading.framing import (  # noqa: E402
    NO_FORK,
    NO_SETUP,
    Ending,
    receive_message,
    send_message,
)
from hackward.grading.view import cut_off, hide, own_process_numbers, same_process_numbers, see_only  # noqa: E402

SETUPS = 64  # distinct set-up codes that are kept
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


@dataclass
class Fence:
    """What is applied here, and what is left for the child."""

    program: FilterProgram | None = None
    """The filter that takes from this process's rights; None: fork cannot be denied."""
    landlock: int = 0
    """The ABI of Landlock that is used, 0 for none."""
    home: int | None = None
    """A pidfd of this process, if it can give its children process numbers of their own."""
    quiet: bool = False
    """Whether reading leaves no access time on anything that can be read."""

    def said(self) -> dict[str, Any]:
        """What the grader is told."""
        return {"landlock": self.landlock, "process_numbers": self.home is not None, "quiet": self.quiet}


def start(settings: dict[str, Any]) -> Fence:
    """Apply what protects the zygote as well. OSError where the view that is asked for cannot be made."""
    if settings["view"] == "own":
        cut_off()
        see_only(**settings["shown"])
    elif settings["view"] == "bubblewrap":  # which had to let in the files of this process
        hide(os.path.join(CLONE, "hackward"))
    die_with_parent()
    warm(settings["packages"])
    libc.prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    libc.prctl(SET_DUMPABLE, 0, 0, 0, 0)
    fence = restrict(settings) if settings["restrict"] else Fence()
    gc.collect()
    gc.freeze()
    return fence


def restrict(settings: dict[str, Any]) -> Fence:
    """Fence this process in."""
    fence = Fence(quiet=all(map(leaves_no_access_time, settings["readable"])))
    if settings["view"]:  # the capability is over its own namespaces only
        keep_capabilities((CAP_SYS_ADMIN,))
        fence.home = home_of_process_numbers()
    else:
        keep_capabilities()
    no_new_privileges()
    own, for_child = map(bytes.fromhex, settings["filters"])
    if not for_child:
        # Fork stays possible, so this process may need /proc to find survivors: Landlock is for the child.
        fence.landlock = landlock_abi()
        return fence
    fence.landlock = landlock(settings["readable"])
    install_filter(filter_program(own))
    fence.program = filter_program(for_child)
    return fence


def leaves_no_access_time(path: str) -> bool:
    """Whether reading what is at this path cannot change the time of its last access."""
    try:
        return bool(os.statvfs(path).f_flag & (os.ST_RDONLY | os.ST_NOATIME)) or path.startswith("/dev/")
    except FileNotFoundError:
        return True


def home_of_process_numbers() -> int | None:
    """A pidfd of this process if children can have process numbers of their own (Linux 5.8), else None."""
    home = os.pidfd_open(os.getpid())
    try:
        own_process_numbers()
        same_process_numbers(home)
    except OSError:
        os.close(home)
        return None
    return home


def called(*values: Any, **named: Any) -> tuple[tuple, dict[str, Any]]:
    """What a call has been given."""
    return values, named


class Given:
    """What a set-up code gives to the solutions of its problems; children inherit it."""

    def __init__(self, code: str):
        self.namespace: dict[str, Any] = {"__name__": "setup", "__builtins__": __builtins__}
        exec(compile(code, "setup.py", "exec"), self.namespace)
        restore_names(self.namespace)
        self.solution = types.ModuleType("solution")
        """A module with these names, in which a child runs its completion. No other child sees what it does
        there: a fork copies what it changes."""
        vars(self.solution).update(self.namespace, __name__="solution")
        self.of_arguments = dict(self.namespace, _call=called)
        """The names that the arguments of tests are evaluated with."""


def load_problem(message: dict[str, Any], kept: dict[str, Given]) -> dict[str, Any]:
    """Run the set-up code, once per distinct text, and compile the argument lists; children inherit both.

    A fault in the set-up code is returned under "fault".
    """
    setup = message["setup"]
    if setup not in kept:
        if len(kept) >= SETUPS:
            kept.clear()
            gc.unfreeze()
        try:
            kept[setup] = Given(setup)
        except Exception as fault:
            return {"fault": describe(fault)}
        # A child that collects garbage then leaves it alone: whatever it touches is copied.
        gc.collect()
        gc.freeze()
    return {
        "method": message["method"],
        "parameters": message["parameters"],
        "given": kept[setup],
        "arguments": [compile("_call" + text, "arguments.py", "eval") for text in message["arguments"]],
        "nodes": message["nodes"],
    }


def serve_run(
    descriptors: list[int], problem: dict[str, Any], settings: dict[str, Any], fence: Fence, ending: Ending
) -> None:
    """One fork, and how it ended. `descriptors`: answer socket and null device; both are closed here.

    The process number and the status go from the kernel into `pid` and `ending`, and are never objects that
    stay behind when they are freed.
    """
    pid = ctypes.c_int(0)
    try:
        if "fault" in problem:
            ending.how = NO_SETUP
            return
        if fence.home is not None:
            own_process_numbers()
        pid.value = os.fork()
        if pid.value == 0:
            child(descriptors, problem, settings, fence.program)
    except OSError as fault:
        ending.how, ending.status = NO_FORK, fault.errno or 0
        return
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    if fence.home is not None:
        same_process_numbers(fence.home)
    libc.wait4(pid, ctypes.byref(ending, Ending.status.offset), 0, ctypes.byref(ending, Ending.usage.offset))
    fork_denied = fence.program is not None
    if not fork_denied:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid.value, signal.SIGKILL)
        if fence.home is None:  # else they ended with it
            ending.survivors = sweep()
    pid.value = 0


def sweep() -> int:
    """Kill and reap every process that the child left behind; returns how many signals that took.

    Orphans come to the zygote, which is their subreaper. None can exist where seccomp forbids fork, or where
    the child was process 1 of its own number space.
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
    try:
        fence = start(settings)
    except OSError as fault:
        send_message(control, {"fault": str(fault)})
        raise ConnectionError from None
    send_message(control, {"ready": fence.said()})
    kept: dict[str, Given] = {}
    problem: dict[str, Any] = {}
    ending = Ending()
    libc.wait4.restype = libc.send.restype = None  # else each result would be an object in this memory
    while True:
        message, descriptors = receive_message(control)
        if message["op"] == "load":
            problem = load_problem(message, kept)
            continue
        serve_run(descriptors, problem, settings, fence, ending)
        libc.send(control.fileno(), ctypes.byref(ending), ctypes.sizeof(ending), socket.MSG_NOSIGNAL)
        ctypes.memset(ctypes.byref(ending), 0, ctypes.sizeof(ending))
        if "fault" in problem:
            send_message(control, {"fault": problem["fault"]})


if __name__ == "__main__":
    try:
        main()
    except (EOFError, ConnectionError, KeyboardInterrupt):
        os._exit(0)
