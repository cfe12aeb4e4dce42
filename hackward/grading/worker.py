"""The grader's end of a worker process: loading problems, running a check in a fresh child, ending it."""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from hackward.grading.child import SETUP_FAILED
from hackward.grading.claims import Check, printable
from hackward.grading.framing import framed, receive_message, send_message
from hackward.grading.sandbox import environment, worker_command
from hackward.tasks.problems import Problem

SLOW_SECONDS = 0.25  # a ground truth silent for so long is worth another worker for the own evaluation
OVERDUE_SECONDS = 30  # a worker that has not ended a child so long after the wall ceiling is dead
ENDING_BYTES = 1 << 16  # most that a worker's message about an ending may have


class WorkerDied(Exception):
    """The worker is gone or does not answer; the run can be tried again on another."""


class WorkerNotStarted(WorkerDied):
    """No worker can be had: a fault of the machine, never of the completion."""


def children_of(pid: int) -> list[int]:
    """The processes that a process has started, as far as they can be seen."""
    found = []
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            found += Path(f"/proc/{pid}/task/{task}/children").read_text().split()
    return [int(child) for child in found]


def kill_tree(process: subprocess.Popen) -> None:
    """SIGKILL to a worker and its descendants, parents stopped first; waits for their end."""
    waiting, tree = [process.pid], []
    while waiting:
        pid = waiting.pop()
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGSTOP)
        tree.append(pid)
        waiting += [child for child in children_of(pid) if child not in tree]
    handles = []
    for pid in tree:
        with contextlib.suppress(OSError):
            handles.append(os.pidfd_open(pid))
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    process.wait()
    for handle in handles:
        select.select([handle], [], [], 5.0)  # readable once the process has ended
        os.close(handle)


class Worker:
    """One zygote process and the control socket to it. Used by one thread only."""

    def __init__(self, settings: dict[str, Any], bubblewrap: str | None, start_seconds: float):
        self.loaded: Problem | None = None
        self.runs = 0
        self.cpu_seconds = 0  # of the run that is under way
        self.limits = settings["limits"]
        self.control, theirs = socket.socketpair()
        with tempfile.TemporaryFile() as errors:
            # Popen without preexec_fn uses vfork: a trainer with gigabytes mapped pays nothing for it.
            self.process = subprocess.Popen(
                worker_command(bubblewrap),
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env=environment(),
                cwd="/",
                start_new_session=True,
            )
            theirs.close()
            self.outcome = self._start(settings, start_seconds, errors)

    def _start(self, settings: dict[str, Any], start_seconds: float, errors: IO[bytes]) -> dict[str, Any]:
        """Hand over the settings; what the worker says of itself when it is ready."""
        try:
            self.control.settimeout(start_seconds)
            send_message(self.control, settings)
            return receive_message(self.control)[0]["ready"]
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
        message = {
            "op": "load",
            "setup": problem.setup_code,
            "method": problem.method,
            "arguments": [test.arguments for test in problem.tests],
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
        cpu_seconds: float,
        on_slow: Callable[[], None] = lambda: None,
    ) -> None:
        """One fork: send the code, feed the answers to `check`, stop the child when it wants no more.

        `mode` is truth, own, vacuous or probe. `on_slow` is called once if the child is silent for
        SLOW_SECONDS.
        """
        self.runs += 1
        self.cpu_seconds = math.ceil(cpu_seconds)
        ours, theirs = socket.socketpair()
        with ours:
            message = {"op": "run", "id": self.runs, "mode": mode, "cpu": self.cpu_seconds}
            try:
                send_message(self.control, message, theirs.fileno())
            except OSError as broken:
                raise WorkerDied(repr(broken)) from None
            finally:
                theirs.close()
            ours.settimeout(self.limits["wall_seconds"])
            with contextlib.suppress(OSError):  # a child that died before it read says so through its ending
                ours.sendall(framed(code))
            ours.setblocking(False)
            wants, ending = self._follow(ours, check, on_slow)
        self._judge_ending(ending, check, wants)

    def _follow(
        self, ours: socket.socket, check: Check, on_slow: Callable[[], None]
    ) -> tuple[bool, dict[str, Any]]:
        """Feed the check until the child has ended; whether it still wanted a line then, and the ending."""
        deadline = time.monotonic() + self.limits["wall_ceiling_seconds"] + OVERDUE_SECONDS
        patience = SLOW_SECONDS
        watch = [ours, self.control]
        buffer = bytearray()
        wants = True
        while True:
            remaining = max(0.0, deadline - time.monotonic())
            ready, _, _ = select.select(watch, [], [], min(patience, remaining))
            if not ready:
                if patience == math.inf:
                    raise WorkerDied("no answer from the worker")
                patience = math.inf
                on_slow()
                continue
            if ours in ready and not self._drain(ours, buffer):
                watch.remove(ours)
            ending = None
            if self.control in ready:
                ending = self._ending()
                self._drain(ours, buffer)  # what the child wrote before it ended
            if wants:
                wants = self._feed(buffer, check)
                if not wants:
                    self._cancel()
            if not wants:
                buffer.clear()
            if ending is not None:
                return wants, ending

    def _judge_ending(self, ending: dict[str, Any], check: Check, wanted_more: bool) -> None:
        """What an ending means: nothing, an error of the check, or that the run must be tried again."""
        if ending.get("how") == "no fork":
            time.sleep(0.2)
            raise WorkerDied(f"fork failed: {printable(ending.get('fault'))}")
        # After the header the exit status is anyone's claim.
        if ending.get("status") == SETUP_FAILED and not check.begun:
            raise WorkerNotStarted("a child could not be fenced in")
        if wanted_more and check.error is None:
            check.error = self._describe(ending)

    @staticmethod
    def _drain(ours: socket.socket, buffer: bytearray) -> bool:
        """Append what has arrived, at most 1 MiB at a time; False at the end of the stream."""
        for _ in range(16):
            try:
                data = ours.recv(1 << 16)
            except BlockingIOError:
                return True
            except OSError:
                return False
            if not data:
                return False
            buffer += data
        return True

    @staticmethod
    def _feed(buffer: bytearray, check: Check) -> bool:
        """Hand complete lines to the check; False when it wants no more or a line is too long."""
        start, wants = 0, True
        while wants:
            cap = check.cap()
            end = buffer.find(b"\n", start, start + cap + 1)
            if end < 0:
                if len(buffer) - start > cap:
                    check.error = "answer longer than any right one"
                    wants = False
                break
            wants = check.line(bytes(buffer[start:end]))
            start = end + 1
        del buffer[:start]
        return wants

    def _cancel(self) -> None:
        try:
            send_message(self.control, {"op": "cancel"})
        except OSError as broken:
            raise WorkerDied(repr(broken)) from None

    def _ending(self) -> dict[str, Any]:
        """How the worker says that the child of this run ended."""
        try:
            ending = receive_message(self.control, limit=ENDING_BYTES)[0]
        except (OSError, EOFError, ValueError, RecursionError) as broken:
            raise WorkerDied(repr(broken)) from None
        if type(ending) is not dict or ending.get("done") != self.runs:
            raise WorkerDied("the worker answers out of turn")
        return ending

    def _describe(self, ending: dict[str, Any]) -> str:
        """Why a child sent less than was asked for."""
        if ending.get("how") == "set-up code":
            return f"set-up code: {printable(ending.get('fault'))}"
        if ending.get("how") == "wall":
            return "wall time limit"
        if ending.get("signal") == signal.SIGKILL and ending.get("cpu", 0) > self.cpu_seconds - 0.5:
            return "CPU time limit"
        if ending.get("signal"):
            return f"died of signal {ending['signal']}"
        return "ended before its last answer"
