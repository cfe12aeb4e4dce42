"""One run of a sweep: what it is, and how far it has come by what lies in its directory."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType

from hackward.base.arms import ARMS
from hackward.base.faults import InputError
from hackward.base.files import CHECKPOINT, file_hash, read_json, read_jsonl
from hackward.base.tensors import read_metadata
from hackward.runs.ending import is_over
from hackward.runs.leftovers import is_empty, strangers
from hackward.runs.rundir import differing
from hackward.runs.settings import Config
from hackward.runs.stored import no_record, read_record


@dataclass
class Job:
    """One run of the sweep: what it is, and how far it has come."""

    arm: str
    """Of ARMS."""
    control: str
    seed: int
    path: Path
    flags: tuple[str, ...]
    settings: Config
    """Resolved, as config.json will store them."""
    state: str = "new"
    """new, resume, start over, queued, running, done, failed, interrupted, printed, withheld"""
    step: int = 0
    """Steps that are safe: in the checkpoint, or while running in rows.jsonl."""
    note: str = ""

    @property
    def name(self) -> str:
        """Of its directory."""
        return self.path.name

    @property
    def log(self) -> Path:
        """What train.py prints; it lies beside the directory, which must be new when a run starts."""
        return self.path.with_name(f"{self.name}.log")

    @property
    def steps(self) -> int:
        return self.settings.steps

    @property
    def left(self) -> int:
        """Steps to go."""
        return 0 if self.state == "done" else max(0, self.steps - self.step)

    @property
    def coordinates(self) -> str:
        """What the run trains in, in the words of a v_hack file."""
        return ARMS[self.arm].coordinates(self.settings.rank)

    def rows(self) -> list[dict]:
        """The rows so far, none beyond the wanted steps. InputError for a hack rate that is no number."""
        file = self.path / "rows.jsonl"
        rows = read_jsonl(file, ("step", "seconds", "hack_rate")) if file.is_file() else []
        for row in rows:
            if not isinstance(row["hack_rate"], (int, float, NoneType)):
                raise InputError(f"{file}: 'hack_rate' must be a number or null in every row")
        return rows[: self.steps]


def named_file(v_hack: str) -> bool:
    """Does this --v-hack name a file?"""
    return v_hack not in ("auto", "none")


def arms_of(jobs: Sequence[Job]) -> set[str]:
    """The arms that are planned without a control."""
    return {job.arm for job in jobs if job.control == "none"}


def survey(job: Job) -> None:
    """Set the job's state and step from what lies in its directory.

    InputError where that is not this very run.
    """
    job.state, job.step, job.note = "new", 0, ""
    if not job.path.exists() or (job.path.is_dir() and is_empty(job.path)):
        return
    _refuse_other_run(job)
    summary = finished(job.path)
    checkpoint = job.path / CHECKPOINT
    if summary is not None and made_all(job, summary):
        job.state, job.step = "done", summary["steps"]
    elif checkpoint.is_file():
        job.state, job.step = "resume", read_metadata(checkpoint).get("step", 0)
        if job.step > job.steps:
            raise InputError(
                f"{job.path}: unfinished, with {job.step} steps already; this sweep has {job.steps}"
            )
    elif summary is not None:
        raise InputError(
            f"{job.path}: finished {summary['steps']} of {job.steps} steps, and there is no"
            " checkpoint.safetensors to go on from"
        )
    else:
        job.state, job.note = "start over", "died before its first checkpoint"
        _refuse_strangers(job)


def finished(path: Path) -> dict | None:
    """summary.json of a finished run in this directory; None where it is unfinished. InputError for `steps`
    that are no number."""
    summary = path / "summary.json"
    ended = read_json(summary) if summary.is_file() else None
    if not isinstance(ended, dict) or ended.get("finished") is not True or ended.get("steps") is None:
        return None
    if type(ended["steps"]) is not int:
        said = f"'steps' must be a whole number, found {ended['steps']!r}"
        raise InputError(f"{summary}: {said}; move {path} away")
    return ended


def made_all(job: Job, summary: dict) -> bool:
    """Has its run, finished with this summary, made all steps that it is to make?"""
    return summary["steps"] >= job.steps or is_over(job.rows(), job.settings)


def _refuse_other_run(job: Job) -> None:
    file = job.path / "config.json"
    if not file.is_file():
        raise InputError(f"{job.path}: exists and is no run directory (no config.json)")
    record = read_record(job.path)
    if "kind" not in record:
        raise no_record(file)
    wanted, stored = dataclasses.asdict(job.settings), record["config"]
    changed = differing(stored, wanted)
    v_hack, used = job.settings.v_hack, (record.get("v_hack") or {}).get("hash")
    by_content = named_file(v_hack) and used is not None
    if by_content:
        # As train.py --resume: it may lie elsewhere now. What else a path names is compared there too; here
        # that would take the model.
        changed = [key for key in changed if key != "v_hack"]
    differs = [f"{key} {stored.get(key)!r}, this sweep has {wanted[key]!r}" for key in changed]
    if by_content and used != file_hash(v_hack)[:16]:
        differs.append(f"another content of {v_hack}")
    if differs:
        raise InputError(f"{file}: a run with other settings: {'; '.join(differs)}")


def _refuse_strangers(job: Job) -> None:
    """The directory of a run that starts over is removed: it may hold nothing but the parts of a run."""
    found = strangers(job.path)
    if job.path.is_symlink():
        found.append("a link")
    if found:
        raise InputError(
            f"{job.path}: {job.note}, but is not only a run's ({', '.join(found)}): move it away"
        )


def state_words(job: Job) -> str:
    """The state as the plan shows it."""
    words = {"resume": f"resume from step {job.step}", "start over": f"start over: {job.note}"}
    return words.get(job.state, job.state)
