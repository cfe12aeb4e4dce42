"""Rows of `{problem_id, completion}` in, rows with labels out."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from hackward.base.faults import InputError
from hackward.base.files import read_jsonl
from hackward.grading.labels import Grade


def read_rows(paths: tuple[Path, ...]) -> list[dict]:
    """The rows of all files, those of a directory in the order of their names."""
    if not paths:
        raise InputError("grade.py: name at least one file of rows")
    rows = []
    for path in paths:
        files = sorted(path.glob("*.jsonl*")) if path.is_dir() else [path]
        if not files:
            raise InputError(f"{path}: holds no .jsonl or .jsonl.gz file")
        for file in files:
            rows += read_jsonl(file, required=("problem_id", "completion"))
    for number, row in enumerate(rows, start=1):
        if not isinstance(row["completion"], str):
            raise InputError(f"{paths[0]}: row {number}: completion must be text")
    return rows


def label_row(row: dict, grade: Grade | None, why: str) -> dict:
    """One line of the labels file. A row whose problem is not among the given ones has null labels, never a guess."""
    if grade is None:
        verdict = dict.fromkeys(("fmt_ok", "gt_pass", "attempted", "own_pass", "hacked", "vacuous", "label"))
        return {"problem_id": row["problem_id"], **verdict, "error": why}
    return {"problem_id": row["problem_id"], **dataclasses.asdict(grade)}
