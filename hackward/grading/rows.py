"""Rows of `{problem_id, completion}` in, rows with labels out."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from hackward.base.faults import InputError
from hackward.base.files import read_jsonl
from hackward.base.records import Record, checked_record
from hackward.grading.labels import Grade


class Answer(Record):
    """What a row must have to be graded. Its prompt and its own labels are used where it has them."""

    problem_id: Annotated[int | str, Field(description="text or a number")]
    completion: Annotated[str, Field(description="text")]


def read_rows(paths: tuple[Path, ...]) -> list[dict[str, Any]]:
    """The rows of all files, those of a directory in the order of their names.

    InputError that names file, row and field, or the directory that holds no rows.
    """
    if not paths:
        raise InputError("no rows to grade: name at least one file of rows")
    rows = []
    for path in paths:
        for file in _files(path):
            for number, row in enumerate(read_jsonl(file), start=1):
                checked_record(Answer, row, f"{file}: row {number}")
                rows.append(row)
    return rows


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(path.glob("*.jsonl*"))
    if not files:
        raise InputError(f"{path}: holds no .jsonl or .jsonl.gz file")
    return files


def label_row(row: dict[str, Any], grade: Grade | None, why: str) -> dict[str, Any]:
    """One line of the labels file.

    A row whose problem is not among the given ones has null labels, never a guess, and `why` as its error.
    """
    if grade is None:
        verdict = dict.fromkeys(field.name for field in dataclasses.fields(Grade))
        return {"problem_id": row["problem_id"], **verdict, "error": why}
    return {"problem_id": row["problem_id"], **dataclasses.asdict(grade)}
