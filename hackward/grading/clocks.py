"""The grader's watch over a run: how much its processes compute, and how long they idle.

Read from outside, off the kernel's own books, so that nothing a run does with signals, timers or naps hides
it:

    computed = CPU time of all its processes, exact to the nanosecond (RLIMIT_CPU counts the scheduler's
               ticks, and a program that naps whenever one is due is never seen to compute)
    delayed  = the longest that a thread of it was ready to compute and had to wait for a processor
    idle     = wall time - computed - delayed

A limit on computing ends what computes, a limit on idling what sleeps. A machine that is busy with other work
only adds to `delayed`, so that a verdict does not depend on it.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

CPU_LIMIT, WALL_LIMIT = "CPU time limit", "wall time limit"  # what a run can reach, in words
SHORTEST_PAUSE, LONGEST_PAUSE = 0.05, 0.5  # seconds between two looks


def children_of(pid: int) -> list[int]:
    """The processes that a process has started, as far as they can be seen."""
    found = []
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            found += Path(f"/proc/{pid}/task/{task}/children").read_text().split()
    return [int(child) for child in found]


def can_watch(pid: int) -> bool:
    """Whether the children of a process can be seen from here, without which no clock of a run is found.

    Not where the kernel keeps no list of them, or /proc is mounted so that it hides others' processes.
    """
    return os.path.exists(f"/proc/{pid}/task/{pid}/children")


def descendants_of(pid: int) -> list[int]:
    """The processes below a process, parents before their children."""
    found = children_of(pid)
    for process in found:  # grows meanwhile
        found += [child for child in children_of(process) if child not in found]
    return found


def computed(pid: int) -> float:
    """Seconds of CPU time of a process so far, 0 where there is none."""
    clock = ((~pid) << 3) | 2  # CPUCLOCK_SCHED of that process, as clock_getcpuclockid(3) makes it
    try:
        return time.clock_gettime(clock)
    except OSError:
        return 0.0


def delayed(pid: int) -> float:
    """Seconds that a thread of a process has waited for a processor, at most; 0 where that is unknown."""
    longest = 0
    with contextlib.suppress(OSError, IndexError):
        for task in os.listdir(f"/proc/{pid}/task"):
            _, waited, _ = Path(f"/proc/{pid}/task/{task}/schedstat").read_text().split()
            longest = max(longest, int(waited))
    return longest / 1e9


class Allowed(NamedTuple):
    """Seconds of CPU time that a run may take."""

    whole: float
    per_answer: float
    """From one answer to the next."""

    @classmethod
    def one_answer(cls, seconds: float) -> Allowed:
        """Of a run that gives one answer."""
        return cls(seconds, seconds)


class Watch:
    """The clocks of one run, which begins now. `zygote` is the process that forks it."""

    def __init__(self, zygote: int, allowed: Allowed, limits: dict[str, Any]):
        self._zygote = zygote
        self._allowed = allowed
        self._limits = limits
        self._started = time.monotonic()
        self._computed: dict[int, float] = {}  # by process; those that have ended count on
        self._answered, self._computed_by_then = False, 0.0
        self.pause = SHORTEST_PAUSE
        """Seconds after which it is worth looking again."""

    @property
    def elapsed(self) -> float:
        """Wall seconds since the beginning."""
        return time.monotonic() - self._started

    @property
    def begun(self) -> bool:
        """Whether a process of the run has been seen."""
        return bool(self._computed)

    def answered(self) -> None:
        """The run has said something, so its time for the next answer begins: at the next look, which gives
        it a pause more at most."""
        self._answered = True

    def reached(self, unread: Callable[[], bool] = lambda: False) -> str | None:
        """The limit that the run has reached, in words, or None.

        `unread` tells whether the run has said something that was not taken yet. It is asked after the clocks
        are read: an answer that came in time counts, however late this process is to read it.
        """
        waited = 0.0
        for pid in descendants_of(self._zygote):
            self._computed[pid] = max(self._computed.get(pid, 0.0), computed(pid))
            waited = max(waited, delayed(pid))
        taken = sum(self._computed.values())
        if self._answered or unread():
            self._answered, self._computed_by_then = False, taken
        whole_left = self._allowed.whole - taken
        answer_left = self._allowed.per_answer - (taken - self._computed_by_then)
        cpu_left = min(whole_left, answer_left)
        idle_left = self._limits["wall_seconds"] - (self.elapsed - taken - waited)
        if cpu_left <= 0:
            return CPU_LIMIT
        if idle_left <= 0 or self.elapsed > self._limits["wall_ceiling_seconds"]:
            return WALL_LIMIT
        self.pause = min(max(min(cpu_left, idle_left), SHORTEST_PAUSE), LONGEST_PAUSE)
        return None
