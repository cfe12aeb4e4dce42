"""The grader's end of a worker process: loading problems, running a check in a fresh child, ending it."""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import select
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import IO, Any

from hackward.grading.child import SETUP_FAILED
from hackward.grading.claims import Check, printable
from hackward.grading.clocks import CPU_LIMIT, WALL_LIMIT, Allowed, Watch, children_of, descendants_of
from hackward.grading.fences import libc
from hackward.grading.framing import (
    NO_FORK,
    NO_SETUP,
    TASK,
    Ending,
    framed,
    receive_exactly,
    receive_message,
    send_message,
)
from hackward.grading.sandbox import environment, worker_command
from hackward.grading.steadiness import may_vary
from hackward.tasks.problems import Problem

SLOW_SECONDS = 0.25  # a ground truth silent for so long is worth another worker for the own evaluation
FIRST_LOOK_SECONDS = 0.25  # after which the clocks of a run are read for the first time
EXIT_SECONDS = 0.05  # that a child has for its own exit after its last line
ENDING_SECONDS = 3.0  # a worker that has not said so long after a kill that its child ended is replaced
LIMITS_REACHED = (CPU_LIMIT, WALL_LIMIT)
FAULT_BYTES = 1 << 16  # most that a worker's message about set-up code may have
# personality(2)
PERSONALITY_ONLY_READ, ADDR_NO_RANDOMIZE = 0xFFFFFFFF, 0x0040000
RUN = {"op": "run"}  # always the same: what a run is comes over its own socket
ROOM = 64 << 20  # bytes that a run's lines may have in all, whatever is expected of it


class WorkerDied(Exception):
    """The worker is gone or does not answer; the run can be tried again on another."""


class KilledFromOutside(WorkerDied):
    """Neither the code nor a limit ended the run: it can be tried again."""


class WorkerNotStarted(WorkerDied):
    """No worker can be had: a fault of the machine, never of the completion."""


class ViewNotMade(WorkerNotStarted):
    """The machine does not allow a worker its own view."""


@contextlib.contextmanager
def fixed_addresses() -> Iterator[None]:
    """What this thread starts meanwhile has its program at the same addresses every time, where that is
    allowed.

    The order of a set that holds None, or types, depends on them.
    """
    before = libc.personality(PERSONALITY_ONLY_READ)
    if before >= 0:
        libc.personality(before | ADDR_NO_RANDOMIZE)
    try:
        yield
    finally:
        if before >= 0:
            libc.personality(before)


def kill_tree(process: subprocess.Popen) -> None:
    """SIGKILL to a worker and its descendants, parents stopped first; waits for their end. A second call does
    nothing."""
    if process.returncode is not None:  # its number may be another's by now
        return
    waiting, tree = [process.pid], []
    while waiting:
        pid = waiting.pop()
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGSTOP)
        tree.append(pid)
        waiting += [child for child in children_of(pid) if child not in tree]
    kill(tree)
    process.wait()


def kill(pids: list[int]) -> None:
    """SIGKILL to processes, and wait for their end."""
    handles = []
    for pid in pids:
        with contextlib.suppress(OSError):
            handles.append(os.pidfd_open(pid))
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    for handle in handles:
        select.select([handle], [], [], 5.0)  # readable once the process has ended
        os.close(handle)


def readable(sock: socket.socket) -> bool:
    """Whether something has arrived that was not read yet, be it the end."""
    return bool(select.select([sock], [], [], 0)[0])


class Lines:
    """What a child has written so far, and has not been handed on."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0  # bytes of it that hold no end of a line
        self._room = ROOM

    def add(self, data: bytes) -> None:
        """Append what has arrived; what is over the room is dropped."""
        self._room -= len(data)
        if self._room >= 0:
            self._buffer += data

    def hand_to(self, check: Check) -> bool:
        """Hand complete lines to the check; False when it wants no more, or there was no room for all."""
        start, wants = 0, True
        while wants:
            end = self._buffer.find(b"\n", max(start, self._searched))
            if end < 0:
                break
            wants = check.line(bytes(self._buffer[start:end]))
            start = end + 1
        del self._buffer[:start]
        self._searched = len(self._buffer)
        if self._room < 0:
            check.error = "answers longer than any right ones"
            wants = False
        return wants


class Worker:
    """One zygote process and the control socket to it. Used by one thread only."""

    def __init__(
        self, settings: dict[str, Any], bubblewrap: str | None, start_seconds: float, hash_seed: int = 0
    ):
        self.loaded: Problem | None = None
        self.spent = 0.0  # CPU seconds of all runs that have ended by themselves
        self._nodes = False  # among the arguments of that problem
        self.cpu_seconds = 0.0  # of the run that is under way
        self.limits = settings["limits"]
        self.control, theirs = socket.socketpair()
        with tempfile.TemporaryFile() as errors:
            with theirs:
                self.process = self._process(bubblewrap, hash_seed, theirs, errors)
            self.outcome = self._start(settings, start_seconds, errors)
        self.zygote = (descendants_of(self.process.pid) or [self.process.pid])[-1]

    def _process(
        self, bubblewrap: str | None, hash_seed: int, theirs: socket.socket, errors: IO[bytes]
    ) -> subprocess.Popen:
        """The process, with its end of the control socket as standard input."""
        try:
            # Popen without preexec_fn uses vfork: a trainer with gigabytes mapped pays nothing for it.
            with fixed_addresses():
                return subprocess.Popen(
                    worker_command(bubblewrap),
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=errors,
                    env=environment(hash_seed),
                    cwd="/",
                    start_new_session=True,
                )
        except OSError as fault:
            self.control.close()
            raise WorkerNotStarted(f"a grading worker did not start: {fault}") from None

    def _start(self, settings: dict[str, Any], start_seconds: float, errors: IO[bytes]) -> dict[str, Any]:
        """Hand over the settings; what the worker says of itself when it is ready."""
        try:
            self.control.settimeout(start_seconds)
            send_message(self.control, settings)
            said, _ = receive_message(self.control)
            if "fault" in said:
                self.close()
                raise ViewNotMade(f"a grading worker has no view of its own: {printable(said['fault'])}")
            return said["ready"]
        except (OSError, EOFError) as fault:
            self.close()
            errors.seek(0)
            said = errors.read()[-300:].decode("utf-8", "replace")
            last_line = printable(said.strip().rpartition("\n")[2])
            raise WorkerNotStarted(f"a grading worker did not start: {last_line or fault!r}") from None

    def close(self) -> None:
        """End the process and whatever it has started."""
        self.control.close()
        kill_tree(self.process)

    def load(self, problem: Problem) -> None:
        """Send a problem's set-up code and arguments unless it has them; a fault shows in the next run."""
        if self.loaded is problem:
            return
        arguments = [test.arguments for test in problem.tests]
        self._nodes = any("_node(" in text for text in arguments)
        message = {
            "op": "load",
            "setup": problem.setup_code,
            "method": problem.method,
            "parameters": problem.parameters,
            "arguments": arguments,
            "nodes": self._nodes,
        }
        try:
            send_message(self.control, message)
        except OSError as broken:
            raise WorkerDied(f"while loading a problem: {broken!r}") from None
        self.loaded = problem

    def run(
        self,
        code: bytes,
        mode: str,
        check: Check,
        allowed: Allowed,
        on_slow: Callable[[], None] = lambda: None,
        salt: int = 0,
    ) -> dict[str, Any]:
        """One fork: send the code, feed the answers to `check`, stop the child when it wants no more.

        `mode` is truth, own, vacuous or probe; the child learns it when its code has run. `on_slow` is called
        once if the child is silent for SLOW_SECONDS. With another `salt` objects have other addresses.
        Returns how it ended: "how" is a limit, if it reached one; "cpu" is the time that it took.
        """
        limits = Allowed(*map(math.ceil, allowed))
        self.cpu_seconds = limits.whole
        look = may_vary(code, self._nodes)
        task = TASK.pack(mode == "probe", look, salt)
        ours, theirs = socket.socketpair()
        null = os.open(os.devnull, os.O_RDWR)
        with ours:
            try:
                send_message(self.control, RUN, theirs.fileno(), null)
            except OSError as broken:
                raise WorkerDied(repr(broken)) from None
            finally:
                theirs.close()
                os.close(null)
            watch = Watch(self.zygote, limits, self.limits)
            ours.settimeout(self.limits["wall_seconds"])
            with contextlib.suppress(OSError):  # a child that died before it read says so through its ending
                ours.sendall(framed(task + code))
            ours.setblocking(False)
            wants, ending = self._follow(ours, check, watch, on_slow, mode.encode())
        self.spent += ending.get("cpu", 0.0)
        check.end()
        self._judge_ending(ending, check, wants)
        return ending

    def _follow(
        self, ours: socket.socket, check: Check, watch: Watch, on_slow: Callable[[], None], mode: bytes
    ) -> tuple[bool, dict[str, Any]]:
        """Collect lines until the child has ended; whether more were wanted then, and the ending.

        While the child lives, nothing that happens here depends on whether its answers are right.
        """
        sources = [ours, self.control]
        lines = Lines()
        wants, slow, told = True, False, False
        look = FIRST_LOOK_SECONDS
        while True:
            patience = look if slow else min(look, SLOW_SECONDS)
            ready, _, _ = select.select(sources, [], [], max(0.0, patience - watch.elapsed))
            if ours in ready:
                watch.answered()
                if not self._drain(ours, lines):
                    sources.remove(ours)
            ended = self.control in ready
            ending = self._ending() if ended else {}
            if ended:
                self._drain(ours, lines)  # what the child wrote before it ended
            if wants:
                wants = lines.hand_to(check)
            if ended:
                return wants, ending
            if check.started and not told:
                told = True
                with contextlib.suppress(OSError):
                    ours.sendall(framed(mode))
            if not wants:
                return wants, self._wait_for_exit()
            if not ready and not slow and watch.elapsed >= SLOW_SECONDS:
                slow = True
                on_slow()
            if watch.elapsed >= look:
                limit = watch.reached(lambda: ours in sources and readable(ours))
                if limit is not None:
                    return wants, self._stop(limit, watch.begun or check.begun)
                look = watch.elapsed + watch.pause

    def _wait_for_exit(self) -> dict[str, Any]:
        """The ending of a child that has said all it was asked for, and has a moment to go by itself."""
        ready, _, _ = select.select([self.control], [], [], EXIT_SECONDS)
        return self._ending() if ready else self._stop("enough", begun=True)

    def _stop(self, why: str, begun: bool) -> dict[str, Any]:
        """Kill the child that is under way; its ending, with the reason.

        A worker that does not report it in time is ended itself, and the next run finds it dead. WorkerDied
        if the run has not even `begun`.
        """
        kill(children_of(self.zygote))
        ready, _, _ = select.select([self.control], [], [], ENDING_SECONDS)
        if ready:
            return {**self._ending(), "how": why}
        self.close()
        if not begun:
            raise WorkerDied("no run was begun")
        return {"how": why}

    def _judge_ending(self, ending: dict[str, Any], check: Check, wanted_more: bool) -> None:
        """What an ending means: nothing, an error of the check, or that the run must be tried again."""
        if ending.get("how") == "no fork":
            time.sleep(0.2)
            raise WorkerDied(f"fork failed: {ending['fault']}")
        # After the header the exit status is anyone's claim.
        if ending.get("status") == SETUP_FAILED and not check.begun:
            raise WorkerNotStarted("a child could not be fenced in")
        killed = ending.get("how") == "ended" and ending.get("signal") == signal.SIGKILL
        if killed and wanted_more and ending["cpu"] < self.limits["wall_ceiling_seconds"] / 2:
            raise KilledFromOutside("killed from outside: signal 9, as when the machine is out of memory")
        if wanted_more and check.error is None:
            check.error = self._describe(ending)

    @staticmethod
    def _drain(ours: socket.socket, lines: Lines) -> bool:
        """Take what has arrived, at most 1 MiB at a time; False at the end of the stream."""
        for _ in range(16):
            try:
                data = ours.recv(1 << 16)
            except BlockingIOError:
                return True
            except OSError:
                return False
            if not data:
                return False
            lines.add(data)
        return True

    def _ending(self) -> dict[str, Any]:
        """How the worker says that the child of this run ended."""
        try:
            ending = Ending.from_buffer_copy(receive_exactly(self.control, ctypes.sizeof(Ending)))
            if ending.how == NO_FORK:
                return {"how": "no fork", "fault": os.strerror(ending.status)}
            if ending.how == NO_SETUP:
                fault = receive_message(self.control, limit=FAULT_BYTES)[0]["fault"]
                return {"how": "set-up code", "fault": fault}
        except (OSError, EOFError, ValueError, RecursionError, TypeError, KeyError) as broken:
            raise WorkerDied(repr(broken)) from None
        status = ending.status
        return {
            "how": "ended",
            "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0,
            "status": os.WEXITSTATUS(status) if os.WIFEXITED(status) else 0,
            "cpu": ending.cpu_seconds,
            "survivors": ending.survivors,
        }

    def _describe(self, ending: dict[str, Any]) -> str:
        """Why a child sent less than was asked for."""
        if ending.get("how") == "set-up code":
            return f"set-up code: {printable(ending.get('fault'))}"
        if ending.get("how") in LIMITS_REACHED:
            return ending["how"]
        if ending.get("signal") == signal.SIGKILL:  # the backstop
            return CPU_LIMIT
        if ending.get("signal"):
            return f"died of signal {ending['signal']}"
        return "ended before its last answer"
