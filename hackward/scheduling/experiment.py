"""The arms of an experiment that was written down: a TOML file, each arm with flags of its own.

    [arms.penalty-attempt]
    flags = ["--arm=penalty", "--monitor=attempt"]

An arm's name is that of its run directories, NAME-sSEED. What a line of flags leaves open is said after `--`
on the command line of the sweep.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from pydantic import ConfigDict, TypeAdapter, with_config
from typing_extensions import TypedDict

from hackward.base.faults import InputError
from hackward.base.files import read_text
from hackward.base.records import checked_object

NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


@with_config(ConfigDict(extra="forbid"))
class ArmLines(TypedDict):
    """An arm of the file."""

    flags: list[str]
    """Of train.py: what makes the arm."""


@with_config(ConfigDict(extra="forbid"))
class Experiment(TypedDict):
    """The file."""

    arms: dict[str, ArmLines]
    """By name, in the order of running."""


def read_experiment(path: Path) -> dict[str, list[str]]:
    """The flags of every arm by its name, in the order of the file. InputError for a file that is none."""
    try:
        content = tomllib.loads(read_text(path))
    except InputError as fault:
        raise InputError(f"--experiment {fault}") from None
    except tomllib.TOMLDecodeError as fault:
        raise InputError(f"--experiment {path}: no TOML file ({fault})") from None
    arms = checked_object(path, content, TypeAdapter(Experiment))["arms"]
    for name in arms:
        if not NAME.fullmatch(name):
            raise InputError(f"{path}: arm {name!r}: a name has small letters, digits and single dashes")
    if not arms:
        raise InputError(f"{path}: no arm in it")
    return {name: arm["flags"] for name, arm in arms.items()}
