"""Which directories below a folder hold runs that can be shown.

Light: it is asked before anything heavy is imported.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hackward.base.checksums import Checksums
from hackward.base.faults import InputError
from hackward.base.files import POOL_FILE, read_json, whole_lines

RUNS_ROLLOUTS = "rollouts"  # folder of a run in which it keeps them
KINDS = ("phase1", "replay", "sampled")


def find_directories(root: Path, take_unfinished: bool = False) -> tuple[dict[Path, dict], list[str]]:
    """(run directories to show below ``root`` with their config.json, one line for each run left out).

    Those of complete runs, and with ``take_unfinished``, or where no run is complete, of those that have
    steps but no summary. A config.json without a "kind" is something else (a model's, say) and is passed
    over; one that is no object is named. InputError when there is nothing to show, and where a file that
    decides it changed since it was written: a run must not leave a table by damage.
    """
    if not root.is_dir():
        raise InputError(f"{root}: no such directory")
    found = {path.parent: _checked_config(path) for path in sorted(root.rglob("config.json"))}
    records = {
        path: record for path, record in found.items() if isinstance(record, dict) and "kind" in record
    }
    left_out = [
        f"{path}: config.json holds no object"
        for path, record in found.items()
        if not isinstance(record, dict)
    ]
    if not records:
        also = f"; left out: {'; '.join(left_out)}" if left_out else ""
        raise InputError(f"{root}: no run directory in it (a config.json with a 'kind'){also}")
    reasons = {path: why_left_out(path, record["kind"]) for path, record in records.items()}
    if take_unfinished or all(reasons.values()):
        reasons = {path: why_left_out(path, record["kind"], True) for path, record in records.items()}
    shown = {path: records[path] for path, reason in reasons.items() if reason is None}
    left_out += [f"{path}: {reason}" for path, reason in reasons.items() if reason is not None]
    if not shown:
        raise InputError(f"{root}: no run with a finished step; left out: {'; '.join(left_out)}")
    return shown, left_out


def _checked_config(path: Path) -> Any:
    """What a config.json holds, once it and the summary beside it are known to be as they were written."""
    sums = Checksums(path.parent)
    for file in (path, path.with_name("summary.json")):
        if file.is_file():
            sums.check(file)
    return read_json(path)


def why_left_out(directory: Path, kind: Any, take_unfinished: bool = False) -> str | None:
    """Why a run directory is left out, or None when it is to be shown."""
    if kind not in KINDS:
        return f"unknown kind {kind!r}"
    summary = directory / "summary.json"
    if not summary.is_file():
        rows = directory / "rows.jsonl"
        has_steps = rows.is_file() and bool(whole_lines(rows).strip())
        return None if take_unfinished and has_steps else "incomplete: no summary.json"
    content = read_json(summary)
    finished = isinstance(content, dict) and content.get("finished") is True
    return None if finished else "incomplete: not finished"


def find_pools(root: Path) -> dict[Path, list[Path]]:
    """The pools of rollouts at and below ``root``, with their files in order; what a run keeps is none."""
    found: dict[Path, list[Path]] = {}
    for path in sorted(root.rglob("*.jsonl*")):
        home = path.parent
        of_run = home.name == RUNS_ROLLOUTS and (home.parent / "config.json").is_file()
        if POOL_FILE.fullmatch(path.name) and not of_run:
            found.setdefault(home, []).append(path)
    return found


def has_runs(root: Path) -> bool:
    """Is there a run at or below ``root``, or what may be a damaged one? A model's config.json is none."""
    records = (read_json(path) for path in root.rglob("config.json"))
    return any(not isinstance(record, dict) or "kind" in record for record in records)
