"""What a run that was cut off leaves in its directory, and which of it goes before the run goes on or begins
anew."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from hackward.base.checksums import CHECKSUMS, Checksums
from hackward.base.lock import LOCK, contents, is_begun

FOLDERS = ("rollouts", "nulls", "eval")  # that a run writes into
TRACKED = ("tensorboard", "wandb")  # folders in which a --track keeps what it mirrors
# What a run that has no checkpoint yet may hold; a directory with anything else is never cleared.
RUN_PARTS = re.compile(
    r"config\.json|rows\.jsonl|eval\.jsonl|(v_hack(_\d+)?|removed_\d+|monitor_\d+)\.safetensors"
    rf"|{'|'.join((*FOLDERS, *TRACKED))}|step_\d+\.cos\.jsonl\.gz"
    rf"|\..*\.tmp|{re.escape(LOCK)}|{re.escape(CHECKSUMS)}"
)
NUMBERED = re.compile(
    r"((rollouts/|nulls/)step_|step_|v_hack_|removed_|monitor_)(?P<step>\d+)\.(jsonl\.gz|cos\.jsonl\.gz|safetensors)"
)
EVALUATED = re.compile(r"eval/step_(?P<step>\d+)\.jsonl\.gz")


def strangers(directory: Path) -> list[str]:
    """Names in it that no run without a checkpoint has."""
    return [entry.name for entry in contents(directory) if not RUN_PARTS.fullmatch(entry.name)]


def is_empty(directory: Path) -> bool:
    """Nothing of a run lies there, or only checksums: it was killed before its config.json took its place."""
    return all(entry.name == CHECKSUMS for entry in contents(directory))


def clear(directory: Path) -> None:
    """Take away all that a run without a checkpoint wrote, the lock excepted.

    Its config.json goes last: as long as anything is left, that says whose it is.
    """
    for entry in sorted(directory.iterdir(), key=lambda entry: entry.name == "config.json"):
        if entry.name == LOCK or not RUN_PARTS.fullmatch(entry.name):
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def clear_after(directory: Path, steps: int, sums: Checksums) -> None:
    """Take away what was only begun, and what steps left that a run which goes on after `steps` makes anew.

    An evaluation is named after the steps before it, so that of `steps` itself stays.
    """
    for path in sorted(directory.rglob("*")):
        if path.is_file() and is_begun(path):
            path.unlink()
            continue
        name = path.relative_to(directory).as_posix()
        if _number(NUMBERED, name) >= steps or _number(EVALUATED, name) > steps:
            sums.forget(path)


def _number(named: re.Pattern[str], name: str) -> int:
    """The step in a file's name; -1 where it has none."""
    found = named.fullmatch(name)
    return int(found["step"]) if found else -1
