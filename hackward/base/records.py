"""Records read from files: pydantic models whose fields say in words what they hold, and one-line faults.

class Row(Record):
    reward: Annotated[float, Field(description="a number")]

checked_record(Row, row, "pool.jsonl: row 3")    # InputError: pool.jsonl: row 3: reward 'x' is not a number
"""

from __future__ import annotations

import math
from typing import Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from hackward.base.faults import InputError


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
        raise InputError(f"{where}: {fault_words(model, faults)}") from None


def fault_words(model: type[BaseModel], faults: ValidationError) -> str:
    """The first fault in words: the field, its value where that is short, and the field's description."""
    fault = faults.errors()[0]
    name = str(fault["loc"][0])
    if fault["type"] == "missing" and len(fault["loc"]) == 1:
        return f"no field {name!r}"
    field = model.model_fields[name]
    value, wanted = fault["input"], field.description or fault["msg"]
    short = len(fault["loc"]) == 1 and isinstance(value, (str, int, float, bool)) and len(repr(value)) <= 40
    return f"{name} {value!r} is not {wanted}" if short else f"{name} is not {wanted}"


def unknown_if_nan(value: Any) -> Any:
    """None in the place of a NaN, which some writers use for what they do not know."""
    return None if isinstance(value, float) and math.isnan(value) else value


Unknowable = BeforeValidator(unknown_if_nan)  # for fields where NaN stands for "unknown"
