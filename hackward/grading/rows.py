"""Rows of `{problem_id, completion}` in, rows with labels out."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from hackward.base.faults import InputError
from hackward.base.files import read_lines
from hackward.base.records import Record, checked_record
from hackward.grading.labels import Grade, NotGraded


class Answer(Record):
    """What a row must have to be graded. Its prompt and its own labels are used where it has them."""

    problem_id: Annotated[int | str, Field(description="text or a number")]
    completion: Annotated[str, Field(description="text")]


def read_rows(paths: tuple[Path, ...]) -> list[dict[str, Any]]:
    """The rows of all files, those of a directory in the order of their names.

    InputError that names file, row and field, or the file or directory that holds no rows.
    """
    if not paths:
        raise InputError("no rows to grade: name at least one file of rows")
    rows: list[dict[str, Any]] = []
    for path in paths:
        before = len(rows)
        for file in _files(path):
            for number, row in enumerate(read_lines(file), start=1):
                checked_record(Answer, row, f"{file}: row {number}")
                rows.append(row)
        if len(rows) == before:
            raise InputError(f"{path}: holds no rows to grade")
    return rows


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(path.glob("*.jsonl*"))
    if not files:
        raise InputError(f"{path}: holds no .jsonl or .jsonl.gz file")
    return files


UNDECIDED = ("gt_pass", "hacked", "label")  # what is not known of a row whose answers may be right


def label_row(
    row: dict[str, Any], grade: Grade | NotGraded | None, why: str, *, several_answers: bool = False
) -> dict[str, Any]:
    """One line of the labels file; null is unknown, never a guess.

    A row whose problem is not among the given ones has null labels and `why` as its error; one whose runs the
    machine ended, null labels and what happened. Where several answers are right and the row gives another
    than the stored one, it is not known whether it is right, unless `several_answers` says otherwise.
    """
    if grade is None or isinstance(grade, NotGraded):
        verdict = dict.fromkeys(field.name for field in dataclasses.fields(Grade))
        return {"problem_id": row["problem_id"], **verdict, "error": str(grade or why)}
    verdict = dataclasses.asdict(grade)
    if grade.undecided and not several_answers:
        verdict |= dict.fromkeys(UNDECIDED)
    return {"problem_id": row["problem_id"], **verdict}


def known_labels(row: dict[str, Any]) -> tuple[bool, bool] | None:
    """A row's own `hacked` and `gt_pass`; None where one is missing, null, NaN or no truth value."""
    hacked, gt_pass = row.get("hacked"), row.get("gt_pass")
    if is_truth_value(hacked) and is_truth_value(gt_pass):
        return bool(hacked), bool(gt_pass)
    return None


def is_truth_value(value: Any) -> bool:
    """Whether a label is true or false, also written as 1 or 0."""
    return isinstance(value, (bool, int, float)) and value in (0, 1)
