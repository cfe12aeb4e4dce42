"""Where a pool may lie. Light: it is asked before anything heavy is imported."""

from __future__ import annotations

from pathlib import Path

from hackward.base.faults import InputError
from hackward.base.files import is_jsonl


def check_place(place: str | Path) -> None:
    """InputError unless there is a directory or a file of rows. What is in it is found out by reading."""
    path = Path(place)
    if path.is_dir() or is_jsonl(path):
        return
    if path.exists():
        raise InputError(f"{place}: no pool: neither a directory nor a file of rows (.jsonl, .jsonl.gz)")
    kind = "file" if path.suffix in (".jsonl", ".gz") else "pool directory"
    raise InputError(f"{place}: no such {kind}")
