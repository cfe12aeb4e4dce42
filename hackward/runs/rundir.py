"""A run directory: config.json first, rows.jsonl as it goes, summary.json last.

Without a summary the run is incomplete.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from pathlib import Path
from typing import Any

from hackward.base.checksums import Checksums
from hackward.base.faults import InputError
from hackward.base.files import CHECKPOINT, Put, read_json, read_jsonl, whole_lines, write_json, write_jsonl
from hackward.base.lock import only_writer
from hackward.base.provenance import provenance
from hackward.runs.leftovers import FOLDERS, clear, clear_after, is_empty, strangers
from hackward.runs.stored import read_record, settings_in

# What may differ between a run and its continuation.
FREE = (
    "steps",
    "stop_after_breakout",
    "resume",
    "out",
    "save_every",
    "device",
    "micro_tokens",
    "sample_rows",
    "checkpointing",
    "shared_prompts",
    "workers",
    "svd_cache",
    "track",
)

# Settings that name a place -> the part of config.json with the hash of what lay there, by which `check_same`
# goes. The place itself may be another one.
PLACES = {
    "model": "model",
    "problems": "train_problems",
    "eval_problems": "held_out_problems",
    "teacher_dir": "pools",
    "v_hack": "v_hack",
}


def differing(stored: dict, settings: dict) -> list[str]:
    """The settings that a stored run has otherwise and that matter to what it does."""
    return [key for key, value in settings.items() if key not in FREE and stored.get(key) != value]


HASHES = ("hash", "tokenizer", "settings")  # what config.json says of what a path held


def _hashes(name: str, fact: Any) -> dict[str, Any]:
    """Every hash that a part of config.json holds, by its name: {"model.tokenizer": ...}."""
    found: dict[str, Any] = {}
    if isinstance(fact, dict):
        found = {f"{name}.{key}": value for key, value in fact.items() if key in HASHES}
    elif isinstance(fact, list):
        for place, part in enumerate(fact):
            found |= _hashes(f"{name}[{place}]", part)
    return found


def _moved(name: str, record: dict, place: Any) -> bool:
    """Does this setting name a place where something lies that can be compared with what the run began
    with?"""
    part = PLACES.get(name)
    known = part is not None and bool(_hashes(part, record.get(part)))
    return known and place is not None and Path(place).exists()


class RunDir:
    """Owns one run's files.

    A new run needs an empty or missing directory, or one in which the same run died before its first
    checkpoint; --resume needs one with the same settings.
    """

    def __init__(self, config: Any, stack: contextlib.ExitStack, *, kind: str, name: str) -> None:
        """Locks the directory, which `stack` gives free again. InputError where it cannot be this run's."""
        self.path = Path(config.out or f"out/runs/{time.strftime('%Y%m%d-%H%M%S')}-{name}")
        self.checkpoint = self.path / CHECKPOINT
        self.rows: list[dict] = []
        settings = dataclasses.asdict(config)
        if config.resume and config.out is None:
            raise InputError("--resume needs --out, the directory of the run to go on with")
        stack.enter_context(only_writer(self.path, create=not config.resume))
        self.sums, self.resumed = Checksums(self.path), config.resume
        if config.resume:
            self.record = self._reopen(settings, kind)
        else:
            if not is_empty(self.path):
                self._check_anew(settings, kind)
            self.record = {"kind": kind, "config": settings, **provenance()}

    @property
    def put(self) -> Put:
        """How its files get to their places."""
        return self.sums.writing

    def _check_anew(self, settings: dict, kind: str) -> None:
        """InputError unless what lies there is this very run, and died before its first checkpoint."""
        taken = InputError(f"{self.path}: exists and is not empty; take another --out, or --resume")
        if self.finished or strangers(self.path) or not (self.path / "config.json").is_file():
            raise taken
        record = read_json(self.path / "config.json")
        stored = settings_in(record)
        if stored is None or record.get("kind") != kind or differing(stored, settings):
            raise taken
        _say(f"{self.path}: this run died there before its first checkpoint; it is begun anew")

    def _reopen(self, settings: dict, kind: str) -> dict:
        record = read_record(self.path)
        changed = [
            name for name in differing(record["config"], settings) if not _moved(name, record, settings[name])
        ]
        if changed or record.get("kind") != kind:
            other = ", ".join(changed) or kind
            raise InputError(
                f"{self.path / 'config.json'}: --resume with other settings than the run's: {other}"
            )
        if not self.checkpoint.exists():
            raise InputError(
                f"{self.checkpoint}: no checkpoint to resume from; the same command without --resume begins"
                " the run anew"
            )
        resumed = record.get("resumed", [])
        if not isinstance(resumed, list):
            raise InputError(f"{self.path / 'config.json'}: 'resumed' must be a list, found {resumed!r}")
        self._check_files()
        return record | {"config": settings, "resumed": [*resumed, provenance()]}

    def _check_files(self) -> None:
        """On resume: can what is there be gone on from, and be written to? InputError before anything is
        changed."""
        from hackward.base.records import checked_lines  # pydantic: a command's start does without
        from hackward.reports.schema import STEPS, TIMED

        rows = self.path / "rows.jsonl"
        steps = [row["step"] for row in checked_lines(rows, STEPS, cut_off=True)]
        if steps != list(range(len(steps))):
            raise InputError(f"{rows}: the rows of steps 0 to {max(steps)} are not all there, in their order")
        checked_lines(rows, TIMED, cut_off=True)
        if self.evaluations.exists():
            checked_lines(self.evaluations, TIMED)
        for name in FOLDERS:
            folder = self.path / name
            if folder.exists() and not folder.is_dir():
                raise InputError(f"{folder}: not a directory")
        for folder in (self.path, *(self.path / name for name in FOLDERS)):
            if folder.exists() and not os.access(folder, os.W_OK | os.X_OK):
                raise InputError(f"{folder}: cannot be written to")
        for name in ("summary.json", "config.json"):
            if (self.path / name).is_dir():
                raise InputError(f"{self.path / name}: a directory, not a file")
        self.sums.check_all(cut_off=rows)
        if len(whole_lines(rows)) < rows.stat().st_size:
            _say(f"{rows}: half a line at its end; the run goes on from the steps before")

    @property
    def evaluations(self) -> Path:
        return self.path / "eval.jsonl"

    def begin(self, **facts: Any) -> None:
        """Describe the run as one that is not finished: in an empty directory, or on resume after taking its
        summary and what it had made of steps that are made anew."""
        self.check_same(**facts)
        if self.resumed:
            self.sums.forget(self.path / "summary.json")
            clear_after(self.path, len(self.rows), self.sums)
            self._name_gone()
            write_jsonl(self.path / "rows.jsonl", self.rows, put=self.put)
        else:
            clear(self.path)
            self.sums.begin()
        self.describe(**facts)

    def _name_gone(self) -> None:
        gone = self.sums.gone()
        if gone:
            more = f" and {len(gone) - 1} more" if len(gone) > 1 else ""
            _say(f"{self.path}: gone: {gone[0]}{more}; the run goes on without")

    def describe(self, **facts: Any) -> None:
        """Add facts to config.json."""
        self.record |= facts
        write_json(self.path / "config.json", self.record, put=self.put)

    def check_same(self, **facts: Any) -> None:
        """On resume all that a path names must have the hash that the run began with: it may hold something
        else now."""
        for name, fact in facts.items():
            earlier, now = _hashes(name, self.record.get(name)), _hashes(name, fact)
            for part in earlier:
                if part in now and earlier[part] != now[part]:
                    raise InputError(
                        f"{self.path / 'config.json'}: --resume, but the run began with another {name}"
                        f" ({part} was {earlier[part]}, is {now[part]})"
                    )

    @property
    def finished(self) -> bool:
        """Did this run, when it was last worked on, get to its summary?"""
        return (self.path / "summary.json").exists()

    def keep_rows(self, steps: int) -> None:
        """On resume: the rows of the first `steps` steps, as they were, all of them."""
        path = self.path / "rows.jsonl"
        self.rows = read_jsonl(path, ("step",), cut_off=True)[:steps]
        if [row["step"] for row in self.rows] != list(range(steps)):
            raise InputError(
                f"{path}: the rows of steps 0 to {steps - 1}, which the checkpoint follows, are not all there"
            )

    def add_row(self, row: dict) -> None:
        self.rows.append(row)
        write_jsonl(self.path / "rows.jsonl", self.rows, put=self.put)

    def seconds_evaluating(self) -> float:
        """Seconds of all held-out evaluations of the run, those before a resume too.

        All lines that eval.jsonl has of a step carry the seconds of its one evaluation.
        """
        path = self.evaluations
        lines = read_jsonl(path, ("step", "seconds")) if path.is_file() else []
        by_step = {line["step"]: line["seconds"] for line in lines}
        return sum(by_step.values())

    def finish(self, summary: dict) -> None:
        write_json(self.path / "summary.json", {"finished": True, **summary}, put=self.put)


def _say(line: str) -> None:
    from hackward.base.screen import say  # a command's --help need not wait for it

    say(line)
