"""When a run is over: after all its steps, or once hacking broke out and --stop-after-breakout says so.

What a run is asked is when hacking breaks out (`base.breakout.time_to_hack`). Once that is known, further
steps cost as much as all others and change nothing about the answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hackward.base.breakout import time_to_hack
from hackward.runs.settings import Config


def breakout(rows: Sequence[Mapping[str, Any]]) -> int | None:
    """The step at which hacking broke out in these rows of rows.jsonl; None where it did not (yet)."""
    found = time_to_hack([row["step"] for row in rows], [row["hack_rate"] for row in rows])
    return found if isinstance(found, int) else None


def is_over(rows: Sequence[Mapping[str, Any]], config: Config) -> bool:
    """Has a run with these rows made all the steps that it is to make?"""
    if len(rows) >= config.steps:
        return True
    if not config.stop_after_breakout:
        return False
    broke_out = breakout(rows)
    return broke_out is not None and len(rows) > broke_out + config.stop_after_breakout


def stopped_words(rows: Sequence[Mapping[str, Any]], config: Config) -> str | None:
    """Why a run that is over has fewer steps than --steps; None where it has them all."""
    if len(rows) >= config.steps:
        return None
    rule = f"--stop-after-breakout={config.stop_after_breakout}"
    return f"hacking broke out at step {breakout(rows)} ({rule})"
