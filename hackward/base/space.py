"""Room on a disk, asked for before the first byte is written, and for what a process loads."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterable
from pathlib import Path

from hackward.base.faults import InputError
from hackward.base.files import POOL_FILE

# Bytes of address space; with less, torch and transformers cannot be loaded
LEAST_ADDRESSES = 1 << 30
LEAST_BYTES = 1 << 12  # of a file that is written: a block of most disks


def check_space(path: str | Path, needed: float, what: str) -> None:
    """InputError where nothing may be written at `path`, where that is a link to nothing, or where the disk
    has fewer than `needed` bytes left.

    `what` is what they are needed for. `path` need not exist yet.
    """
    refuse_dangling(path)
    place = Path(path).resolve()
    if place.is_file():  # it is replaced
        place = place.parent
    while not place.exists():
        place = place.parent
    if not place.is_dir():
        raise InputError(f"{path}: {place} is not a directory; take another --out")
    if not os.access(place, os.W_OK | os.X_OK):
        raise InputError(f"{path}: nothing may be written in {place}; take another --out")
    disk = os.statvfs(place)
    free = disk.f_bavail * disk.f_frsize
    if free < needed:
        raise InputError(
            f"{path}: the disk of {place} has {megabytes(free)} left, and {what} needs about"
            f" {megabytes(needed)}; make room, or take another --out"
        )


def refuse_dangling(path: str | Path) -> None:
    """InputError where the path, or a folder on its way, is a link to nothing or in a circle.

    A file would take the link's place, and not come to lie where it points.
    """
    for place in (Path(path), *Path(path).absolute().parents):
        if place.is_symlink() and not place.exists():
            raise InputError(f"{place}: a link to nothing; remove it, or take another --out")


def check_addresses() -> None:
    """InputError where `ulimit -v` leaves too little for the libraries that compute.

    Nothing can be caught later: short of addresses, one of them ends the process and another waits forever.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY or limit >= LEAST_ADDRESSES:
        return
    raise InputError(
        f"`ulimit -v` is {limit >> 10} kB of address space: the libraries that compute take more than"
        f" {LEAST_ADDRESSES >> 10}; raise it, or take it off (`ulimit -v unlimited`)"
    )


def check_output(
    path: str | Path, inputs: Iterable[str | Path | None] = (), needed: float = LEAST_BYTES
) -> None:
    """InputError where no file can be written at `path` (check_space), or where it would take the place of an
    input.

    An input is a file or a pool; names of the hub and None are passed over.
    """
    check_space(path, needed, "the file")  # first: the names of links in a circle cannot be compared
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: is a directory, expected a file to write (--out)")
    target = path.resolve()
    for given in inputs:
        if given is None:
            continue
        source = Path(given).resolve()
        of_pool = source == target.parent and POOL_FILE.fullmatch(target.name)
        if source == target or of_pool:
            raise InputError(f"{path}: would change {given}, which is read; take another --out")


def megabytes(size: float) -> str:
    """Bytes for people, e.g. "12.3 MB"."""
    return f"{size / 1e6:.1f} MB"
