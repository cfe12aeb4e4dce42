"""The rollouts that an on-policy run kept, by step: rollouts/step_NNN.jsonl.gz.

They may be deleted, all of them or those of single steps. A file that is there has rollouts, as every step
has.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from hackward.base.faults import InputError
from hackward.base.files import step_file
from hackward.base.records import checked_lines
from hackward.reports.directories import RUNS_ROLLOUTS


def kept_file(directory: Path, step: int) -> Path:
    """Where a run keeps the rollouts of a step."""
    return directory / RUNS_ROLLOUTS / step_file(step)


def kept_steps(directory: Path, steps: Sequence[int]) -> set[int]:
    """Those of these steps whose rollouts a run has kept. InputError where their folder is none."""
    folder = directory / RUNS_ROLLOUTS
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: not a directory")
    return {step for step in steps if kept_file(directory, step).exists()}


def kept_lines(directory: Path, step: int, lines: TypeAdapter) -> list[dict[str, Any]]:
    """The rollouts of a step that a run has kept, one or more. InputError where the file is damaged."""
    found = checked_lines(kept_file(directory, step), lines)
    if not found:
        raise lacking(directory, step, "holds no rollouts")
    return found


def lacking(directory: Path, step: int, how: str) -> InputError:
    """The fault of a step that has a row and no rollouts, and the two ways out."""
    file = kept_file(directory, step)
    return InputError(
        f"{file}: {how}, but rows.jsonl has step {step}; bring the file back, or move {file.parent} away and"
        " the report does without rollouts"
    )
