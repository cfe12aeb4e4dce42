"""What a run directory says of its run: config.json, and the settings in it. No torch in here."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from hackward.base.arms import FLAGS
from hackward.base.faults import InputError
from hackward.base.files import read_json
from hackward.base.flags import checked
from hackward.runs.settings import Config


def settings_in(record: Any) -> dict[str, Any] | None:
    """What a run's config.json says of its settings; None where it is no such record."""
    stored = record.get("config") if isinstance(record, dict) else None
    return stored if isinstance(stored, dict) else None


def read_record(directory: Path) -> dict[str, Any]:
    """The config.json of a run, with its settings under `config`. InputError where it is none."""
    path = directory / "config.json"
    record = read_json(path)
    if settings_in(record) is None:
        raise no_record(path)
    return record


def no_record(path: Path) -> InputError:
    return InputError(f"{path}: not the config.json of a run")


def stored_settings(path: Path, record: Any) -> Config:
    """The settings of a run, whose config.json (`path`) holds `record`. InputError where they are none."""
    stored = settings_in(record)
    if stored is None or stored.get("arm") not in FLAGS:
        raise no_record(path)
    names = [field.name for field in dataclasses.fields(Config)]
    try:
        return checked(Config(**{name: stored[name] for name in names if name in stored}))
    except InputError as fault:
        raise InputError(f"{path}: {fault}") from None
