"""Room on a disk, asked for before the first byte is written."""

from __future__ import annotations

import os
from pathlib import Path

from hackward.base.faults import InputError


def check_space(path: str | Path, needed: float, what: str) -> None:
    """InputError where nothing may be written at `path`, or where the disk has fewer than `needed` bytes
    left.

    `what` is what they are needed for. `path` need not exist yet.
    """
    place = Path(path).resolve()
    while not place.exists():
        place = place.parent
    if place.is_dir() and not os.access(place, os.W_OK | os.X_OK):
        raise InputError(f"{path}: nothing may be written in {place}; take another --out")
    disk = os.statvfs(place)
    free = disk.f_bavail * disk.f_frsize
    if free < needed:
        raise InputError(
            f"{path}: the disk of {place} has {megabytes(free)} left, and {what} needs about"
            f" {megabytes(needed)}; make room, or take another --out"
        )


def megabytes(size: float) -> str:
    """Bytes for people, e.g. "12.3 MB"."""
    return f"{size / 1e6:.1f} MB"
