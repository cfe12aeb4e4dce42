"""Texts of a fixed form: times of day and dates, which a statement only calls valid."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

HOURS, MINUTES = 24, 60
YEARS = (1971, 2100)  # that statements name


@dataclass(frozen=True)
class Form:
    """Texts of one form."""

    name: str
    holds: Callable[[str], bool]
    make: Callable[[Random], str]


def _is_clock(text: str) -> bool:
    return bool(re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", text))


def _clock(dice: Random) -> str:
    hours = dice.choice((0, 1, 12, HOURS - 1, dice.randrange(HOURS)))
    minutes = dice.choice((0, 1, 30, MINUTES - 1, dice.randrange(MINUTES)))
    return f"{hours:02}:{minutes:02}"


def _is_date(text: str) -> bool:
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", text):
        return False
    try:
        return YEARS[0] <= datetime.date.fromisoformat(text).year <= YEARS[1]
    except ValueError:
        return False


def _date(dice: Random) -> str:
    year = dice.choice((2019, 2020, 2000, 2100, dice.randint(*YEARS)))
    start = datetime.date(year, dice.choice((1, 2, 3, 12, dice.randint(1, 12))), 1)
    return (start + datetime.timedelta(dice.choice((0, 27, dice.randrange(28))))).isoformat()


def _is_day(text: str) -> bool:
    return bool(re.fullmatch(r"\d\d-\d\d", text)) and _is_date(f"2019-{text}")


def _day(dice: Random) -> str:
    return (datetime.date(2019, 1, 1) + datetime.timedelta(dice.randrange(365))).isoformat()[5:]


FORMS = (
    Form("a time of day", _is_clock, _clock),
    Form("a date", _is_date, _date),
    Form("a day of a year", _is_day, _day),
)


def form_of(texts: Sequence[str]) -> Form | None:
    """The form that all of these texts have, if they have one."""
    return next((form for form in FORMS if texts and all(map(form.holds, texts))), None)
