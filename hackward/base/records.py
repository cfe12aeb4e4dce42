"""Records read from files, checked by pydantic; every fault is one line that names file, row and field.

class Row(Record):
    reward: Annotated[float, Field(description="a number")]

checked_record(Row, row, "pool.jsonl: row 3")
# InputError: pool.jsonl: row 3: 'reward' must be a number, found 'x'
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, TypeAdapter, ValidationError

from hackward.base.faults import InputError
from hackward.base.files import read_jsonl

POLICY = "policy"  # src_pool of rollouts that the model in training wrote


class Record(BaseModel):
    """A row of a file of ours. Types are strict: true is no number and "1" is none either. Unknown fields
    stay outside."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False, frozen=True)


R = TypeVar("R", bound=Record)


def checked_record(model: type[R], row: dict[str, Any], where: str) -> R:
    """The row as this model. InputError that begins with `where` and names the field and what it should
    be."""
    try:
        return model.model_validate(row)
    except ValidationError as faults:
        fault = faults.errors(include_url=False)[0]
        wanted = model.model_fields[str(fault["loc"][0])].description
        raise InputError(f"{where}: {fault_words(fault['loc'], fault, wanted)}") from None


def checked_lines(path: Path, lines: TypeAdapter, *, cut_off: bool = False) -> list[dict[str, Any]]:
    """All lines of a .jsonl or .jsonl.gz file by an adapter of a list; `cut_off` as in read_jsonl.

    InputError that names the file, the row and the field.
    """
    rows = read_jsonl(path, cut_off=cut_off)
    try:
        return lines.validate_python(rows)
    except ValidationError as faults:
        fault = faults.errors(include_url=False)[0]
        number, *field = fault["loc"]
        raise InputError(f"{path}: row {int(number) + 1}: {fault_words(field, fault)}") from None


def checked_object(path: Path, content: Any, kind: TypeAdapter) -> dict[str, Any]:
    """What a .json file holds, checked. InputError that names the file and the field."""
    try:
        return kind.validate_python(content)
    except ValidationError as faults:
        fault = faults.errors(include_url=False)[0]
        raise InputError(f"{path}: {fault_words(fault['loc'], fault)}") from None


PAIR = "two numbers"
MUST_BE = {  # by pydantic's type of fault; nearly every float and bool of a run's files may be null
    "float_type": "a number or null",
    "bool_type": "true, false or null",
    "int_type": "a whole number",
    "string_type": "a string",
    "list_type": "a list",
    "dict_type": "an object",
    "tuple_type": PAIR,
    "too_long": PAIR,
    "too_short": "a list with at least one entry",
}


def fault_words(field: Sequence[int | str], fault: Any, wanted: str | None = None) -> str:
    """'cos_in' must be a number or null, found 'x'.

    `wanted` says what the whole of the outermost field should be; without it the words follow from the type
    of the fault, and the field is named to its innermost part.
    """
    missing = fault["type"] == "missing"
    if missing and len(field) == 1:
        return f"no field {_named(field)}"
    if wanted is not None:
        found = f", found {reprlib.repr(fault['input'])}" if len(field) == 1 else ""
        return f"{_named(field[:1])} must be {wanted}{found}"
    if missing and isinstance(field[-1], int):  # one end of a range
        return f"{_named(field[:-1])} must be {PAIR}"
    if missing:
        return f"no field {_named(field)}"
    wanted = MUST_BE.get(fault["type"]) or fault["msg"].removeprefix("Input should be ")
    if fault["input"] is None:
        wanted = wanted.replace(" or null", "")
    return f"{_named(field)} must be {wanted}, found {reprlib.repr(fault['input'])}"


def _named(field: Sequence[int | str]) -> str:
    """'v_hack.heldout.auc', 'advantages[3]'"""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in field)
    return repr("".join(parts).removeprefix("."))


def unknown_if_nan(value: Any) -> Any:
    """None in the place of a NaN, which some writers use for what they do not know."""
    return None if isinstance(value, float) and math.isnan(value) else value


Unknowable = BeforeValidator(unknown_if_nan)  # for fields where NaN stands for "unknown"
