"""Carrying a sweep out: stage by stage under its directory's lock; sweep.json says what became of it.

`plan` of sweep.json has the runs of the last call as it found them. `runs` has what became of these, and
behind them the runs of earlier calls, of other seeds or arms, into the same directory.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hackward.base.faults import InputError
from hackward.base.files import read_json, write_json
from hackward.base.provenance import provenance
from hackward.scheduling.board import Board
from hackward.scheduling.engines import Engine
from hackward.scheduling.flags import SweepFlags
from hackward.scheduling.jobs import Job, finished, survey
from hackward.scheduling.locks import interruptible, locked
from hackward.scheduling.plan import Stages, stages
from hackward.scheduling.price import Clock, clock
from hackward.scheduling.rules import Decision, judge

NOT_BEGUN = ("new", "printed", "withheld")  # states of runs that need no directory


@dataclass
class Sweep:
    """The runs of a sweep, and what the rules said of them so far."""

    config: SweepFlags
    passed: Sequence[str]
    """Flags for every train.py."""
    jobs: Sequence[Job]
    decisions: list[Decision]
    engine: Engine
    """What carries the runs."""
    stopped: bool = False
    """Did a rule withhold runs?"""
    earlier: list[dict] = field(default_factory=list)
    """Lines of sweep.json for runs of earlier calls."""

    @property
    def directory(self) -> Path:
        return self.jobs[0].path.parent

    def refuse(self, say: Callable[[str], object]) -> None:
        """Nothing runs, because the probe says so; sweep.json says it too."""
        self.stopped = True
        with locked(self.directory, say):
            times, planned = self._survey()
            refusals = [str(decision) for decision in self.decisions if decision.stop]
            withhold([job for job in self.jobs if job.state != "done"], refusals[0])
            self._write(times, planned)

    def run(self) -> None:
        """Run it stage by stage under the lock. sweep.json is written however it ends."""
        groups = stages(self.jobs, self.config)
        with contextlib.ExitStack() as stack:
            # The engine first: Ray sets a handler for SIGTERM of its own
            engine = stack.enter_context(self.engine)
            stack.enter_context(interruptible())
            board = stack.enter_context(Board(self.jobs))
            lock = stack.enter_context(locked(self.directory, board.say))
            times, planned = self._survey()
            try:
                for name, group in groups.items():
                    engine.carry(group, board, lock)
                    if self._withheld_after(name, groups, board.say):
                        break
            finally:
                self._write(times, planned)

    def _survey(self) -> tuple[Clock, list[dict]]:
        """The state of every run once the lock is held: until then another sweep may have held it."""
        for job in self.jobs:
            survey(job)
        self.earlier = earlier_runs(self.directory, {job.name for job in self.jobs})
        times = clock(self.config, self.jobs)
        return times, [outcome(job, times) for job in self.jobs]

    def _withheld_after(self, name: str, groups: Stages, say: Callable[[str], object]) -> bool:
        """Does nothing start after this stage?

        Runs are withheld where it failed and they need it, and where a rule says stop. Where it was only
        printed, they come another time.
        """
        names = list(groups)
        following = names[names.index(name) + 1 :]
        later = [job for after in following for job in groups[after] if job.state != "done"]
        failed = [job.name for job in groups[name] if job.state == "failed"]
        if failed and name in ("baseline", "first"):
            withhold(later, f"{', '.join(failed)} failed")
            return True
        if any(job.state == "printed" for job in groups[name]):
            if later:
                say("once these are finished, the same command prints those that wait for them")
            return True
        decision = judge(groups, name)
        if decision is None:
            return False
        self.decisions.append(decision)
        say(str(decision))
        if not decision.stop or not later:
            return False
        self.stopped = True
        withhold(later, str(decision))
        return True

    def _write(self, times: Clock, planned: Sequence[dict]) -> None:
        found = {
            "config": dataclasses.asdict(self.config),
            "train_flags": self.passed,
            **provenance(),
            "plan": planned,
            "decisions": [dataclasses.asdict(decision) for decision in self.decisions],
            "stopped": self.stopped,
            "runs": [*(outcome(job, times) for job in self.jobs), *self.earlier],
        }
        write_json(self.directory / "sweep.json", found)


def outcome(job: Job, times: Clock) -> dict:
    """A run's line in sweep.json."""
    return {
        "run": job.name,
        "arm": job.arm,
        "control": job.control,
        "seed": job.seed,
        "steps": job.steps,
        "steps_done": job.step,
        "state": job.state,
        "note": job.note or None,
        "hours_to_go": times.hours(job),
        "path": job.path,
        "log": job.log,
        "flags": job.flags,
    }


def earlier_runs(directory: Path, planned: set[str]) -> list[dict]:
    """The lines of sweep.json for runs that are not planned, without those whose directory was taken away;
    one that was finished since, as by a printed command, is done.

    InputError where sweep.json is none: a new one in its place would forget these runs.
    """
    file = directory / "sweep.json"
    record = read_json(file) if file.is_file() else {"runs": []}
    lines = record.get("runs") if isinstance(record, dict) else None
    if not isinstance(lines, list) or not all(map(_names_a_run, lines)):
        raise InputError(f"{file}: no record of a sweep; move it away")
    found = []
    for line in lines:
        path = directory / line["run"]
        taken_away = not path.is_dir() and line.get("state") not in NOT_BEGUN
        if line["run"] in planned or taken_away:
            continue
        summary = finished(path)
        if summary is not None and (summary["steps"] >= line["steps"] or summary.get("stopped")):
            line |= {"state": "done", "steps_done": summary["steps"], "note": None, "hours_to_go": 0.0}
        found.append(line)
    return found


def _names_a_run(line: object) -> bool:
    return isinstance(line, dict) and isinstance(line.get("run"), str) and type(line.get("steps")) is int


def withhold(jobs: Sequence[Job], why: str) -> None:
    """These runs are not started."""
    for job in jobs:
        job.state, job.note = "withheld", why
