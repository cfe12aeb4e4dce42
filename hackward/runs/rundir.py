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

from hackward.base.faults import InputError
from hackward.base.files import read_json, read_jsonl, write_json, write_jsonl
from hackward.base.lock import contents, only_writer
from hackward.base.provenance import provenance

# What may differ between a run and its continuation.
FREE = (
    "steps",
    "resume",
    "out",
    "save_every",
    "device",
    "micro_tokens",
    "sample_rows",
    "checkpointing",
    "workers",
    "svd_cache",
)


FOLDERS = ("rollouts", "nulls", "eval")  # that a run writes into


def differing(stored: dict, settings: dict) -> list[str]:
    """The settings that a stored run has otherwise and that matter to what it does."""
    return [key for key, value in settings.items() if key not in FREE and stored.get(key) != value]


def _hashes(fact: Any) -> Any:
    """Every hash that a part of config.json holds."""
    if isinstance(fact, list):
        return [_hashes(item) for item in fact]
    return {k: v for k, v in fact.items() if k in ("hash", "tokenizer")} if isinstance(fact, dict) else None


class RunDir:
    """Owns one run's files.

    A new run needs an empty or missing directory; --resume needs one with the same settings.
    """

    def __init__(self, config: Any, stack: contextlib.ExitStack, *, kind: str, name: str) -> None:
        """Locks the directory, which `stack` gives free again. InputError where it cannot be this run's."""
        self.path = Path(config.out or f"out/runs/{time.strftime('%Y%m%d-%H%M%S')}-{name}")
        self.checkpoint = self.path / "checkpoint.safetensors"
        self.rows: list[dict] = []
        settings = dataclasses.asdict(config)
        if config.resume and config.out is None:
            raise InputError("--resume needs --out, the directory of the run to go on with")
        stack.enter_context(only_writer(self.path, create=not config.resume))
        if config.resume:
            self.record = self._reopen(settings, kind)
        else:
            if contents(self.path):
                raise InputError(f"{self.path}: exists and is not empty; take another --out, or --resume")
            self.record = {"kind": kind, "config": settings, **provenance()}

    def _reopen(self, settings: dict, kind: str) -> dict:
        record = read_json(self.path / "config.json")
        stored = record.get("config") if isinstance(record, dict) else None
        if not isinstance(stored, dict):
            raise InputError(f"{self.path / 'config.json'}: not the config.json of a run")
        changed = differing(stored, settings)
        if changed or record.get("kind") != kind:
            other = ", ".join(changed) or kind
            raise InputError(
                f"{self.path / 'config.json'}: --resume with other settings than the run's: {other}"
            )
        if not self.checkpoint.exists():
            raise InputError(f"{self.checkpoint}: no checkpoint to resume from")
        resumed = record.get("resumed", [])
        if not isinstance(resumed, list):
            raise InputError(f"{self.path / 'config.json'}: 'resumed' must be a list, found {resumed!r}")
        self._check_files()
        return record | {"config": settings, "resumed": [*resumed, provenance()]}

    def _check_files(self) -> None:
        """On resume: can what is there be gone on from, and be written to? InputError before anything is
        changed."""
        from hackward.base.records import checked_lines  # pydantic: a command's start does without
        from hackward.reports.schema import EVALUATED, KEPT_STEPS

        checked_lines(self.path / "rows.jsonl", KEPT_STEPS)
        if self.evaluations.exists():
            checked_lines(self.evaluations, EVALUATED)
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

    @property
    def evaluations(self) -> Path:
        return self.path / "eval.jsonl"

    def begin(self, **facts: Any) -> None:
        """Describe the run as one that is not finished: creates the directory, or on resume takes the summary
        of what it had been."""
        self._check_same(facts)
        (self.path / "summary.json").unlink(missing_ok=True)
        self.describe(**facts)

    def describe(self, **facts: Any) -> None:
        """Add facts to config.json."""
        self.record |= facts
        write_json(self.path / "config.json", self.record)

    def _check_same(self, facts: dict[str, Any]) -> None:
        """On resume the model, v_hack and pools must have the hashes that the run began with: a path may hold
        something else now."""
        for name, fact in facts.items():
            if name in self.record and _hashes(fact) != _hashes(self.record[name]):
                raise InputError(
                    f"{self.path / 'config.json'}: --resume, but the run began with another {name}"
                )

    @property
    def finished(self) -> bool:
        """Did this run, when it was last worked on, get to its summary?"""
        return (self.path / "summary.json").exists()

    def keep_rows(self, steps: int) -> None:
        """On resume: the rows of the first `steps` steps, as they were, all of them."""
        path = self.path / "rows.jsonl"
        self.rows = read_jsonl(path, ("step",))[:steps]
        if [row["step"] for row in self.rows] != list(range(steps)):
            raise InputError(
                f"{path}: the rows of steps 0 to {steps - 1}, which the checkpoint follows, are not all there"
            )

    def add_row(self, row: dict) -> None:
        self.rows.append(row)
        write_jsonl(self.path / "rows.jsonl", self.rows)

    def seconds_evaluating(self) -> float:
        """Seconds of all held-out evaluations of the run, those before a resume too.

        All lines that eval.jsonl has of a step carry the seconds of its one evaluation.
        """
        path = self.evaluations
        lines = read_jsonl(path, ("step", "seconds")) if path.is_file() else []
        by_step = {line["step"]: line["seconds"] for line in lines}
        return sum(by_step.values())

    def finish(self, summary: dict) -> None:
        write_json(self.path / "summary.json", {"finished": True, **summary})
