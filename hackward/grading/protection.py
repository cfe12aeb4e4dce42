"""What fences graded code in on this machine, and what probes in a child find that to be worth."""

from __future__ import annotations

import contextlib
import os
from typing import Any

from rich.console import Console

from hackward.base.faults import InputError
from hackward.base.screen import say
from hackward.grading.claims import printable
from hackward.grading.clocks import Allowed, can_watch
from hackward.grading.probes import GROUPS, PROBED, Probed, ProbeTargets
from hackward.grading.sandbox import (
    MODES,
    Limits,
    packages,
    readable,
    shown,
    usable_bubblewrap,
    warm_the_page_cache,
)
from hackward.grading.syscalls import seccomp_filters
from hackward.grading.worker import ViewNotMade, Worker, WorkerDied


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
        if restrict:
            warm_the_page_cache()
        self.settings: dict[str, Any] = {
            "restrict": restrict,
            "view": ("bubblewrap" if self.bubblewrap else "own") if restrict else "",
            "shown": shown(),
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

    @property
    def fenced(self) -> bool:
        """Whether graded code is kept from ending processes, its own and others."""
        return bool(self.settings["filters"][0])

    def _filters(self) -> tuple[bytes, bytes]:
        try:
            return seccomp_filters()
        except (ImportError, OSError, RuntimeError, AttributeError) as fault:
            self.missing.append(f"seccomp (pyseccomp: {printable(fault)})")
            return b"", b""

    def start_worker(self, hash_seed: int = 0) -> Worker:
        """A new worker. WorkerNotStarted if it does not come up.

        Sets of texts have another order with another hash seed; labels are given with 0.
        """
        return Worker(self.settings, self.bubblewrap, self.limits.start_seconds, hash_seed)

    def protection(self) -> dict[str, Any]:
        """What protects the machine, as probes in a child like those that will run foreign code find it.

        InputError where the probes cannot be run, or where one succeeds although the mode is strict.
        """
        found, outcome = self._probe()
        if self.settings["restrict"] and not outcome["landlock"]:
            self.missing.append("Landlock (kernel without it)")
        open_doors = [name for name in PROBED if found.get(name, True)]
        if self.sandbox == "strict" and open_doors:
            missing = "; ".join(self.missing) or "nothing that is known"
            raise InputError(
                f"--sandbox strict: graded code could {', '.join(open_doors)} (missing: {missing});"
                " --sandbox best-effort runs with what there is"
            )
        return {
            "sandbox": self.sandbox,
            "seccomp": bool(self.settings["filters"][0]),
            "landlock_abi": outcome["landlock"],
            "bubblewrap": self.bubblewrap is not None,
            "view": self.settings["view"],
            "user": "root" if os.geteuid() == 0 else "unprivileged",
            "probes": {name: "OPEN" if name in open_doors else "blocked" for name in PROBED},
            "missing": self.missing,
        }

    def _probe(self) -> tuple[dict[str, bool], dict[str, Any]]:
        """What the probes found, and what the worker said of itself."""
        probed, allowed = Probed(), Allowed.one_answer(self.limits.cpu_seconds)
        try:
            with ProbeTargets() as targets, contextlib.closing(self._first_worker()) as worker:
                for _ in range(2):
                    worker.run(targets.code.encode(), "probe", probed, allowed)
                watched = can_watch(worker.zygote)
        except WorkerDied as fault:
            raise InputError(f"--sandbox {self.sandbox}: {fault}") from None
        if probed.error:
            raise InputError(f"--sandbox {self.sandbox}: the start-up probes did not finish ({probed.error})")
        if not worker.outcome["quiet"]:  # the kernel writes access times rarely, so an attempt may miss it
            probed.found["leave an access time"] = True
        probed.found["outlast its limits"] = not watched
        if not watched:
            self.missing.append("sight of the worker's processes in /proc")
        return probed.found, worker.outcome

    def _first_worker(self) -> Worker:
        """A worker with a view of its own where that can be had; the later ones are like it."""
        try:
            return self.start_worker()
        except ViewNotMade as fault:
            self.missing.append(f"user namespaces ({fault})")
            self.settings["view"] = ""
            return self.start_worker()


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
    """One line: what graded code cannot do and what it can, and what that rests on."""
    probes = protection["probes"]
    doors = [name for name, state in probes.items() if state == "OPEN"]
    shut = [words for words, names in GROUPS.items() if not set(names) & set(doors)]
    line = f"sandbox {protection['sandbox']} ({protection['user']}): graded code never sees an expected value"
    if shut:
        line += f"; it cannot {', '.join(shut)}"
    if doors:
        line += f"; OPEN: {', '.join(doors)}"
    line += f" ({' + '.join(layers(protection)) or 'limits only'}"
    line += f"; {len(probes) - len(doors)} of {len(probes)} probes blocked)"
    if protection["missing"]:
        line += f"; missing: {', '.join(protection['missing'])}"
    say(line, console=console)


def layers(protection: dict[str, Any]) -> list[str]:
    """The names of what protects."""
    found = []
    if protection["view"]:
        found.append("bubblewrap" if protection["bubblewrap"] else "namespaces")
    if protection["seccomp"]:
        found.append("seccomp")
    if protection["landlock_abi"]:
        found.append(f"Landlock ABI {protection['landlock_abi']}")
    return found
