"""Runs that only show another run once more: a copied directory, or the same run made again.

They are told by what their files hold, never by their paths: the same settings and seed, and the same figures
on every step. A copy has the times of its original too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hackward.reports.arms import identity
from hackward.reports.runs import Run
from hackward.reports.tables import Caveat
from hackward.reports.words import steps_in_words

# What a run without any other difference may have of its own: when and where it was made
OF_ITS_MACHINE = ("seconds", "peak_memory_gb")
ALIKE = "the same settings and seed, and the same rows"


def copies_caveats(runs: Sequence[Run]) -> list[Caveat]:
    """The runs that are copies of others, or have the same figures; nothing without one."""
    lines = copy_lines(runs)
    return [Caveat("\n".join(lines))] if lines else []


def copy_lines(runs: Sequence[Run]) -> list[str]:
    """No further evidence: vanilla (2) is a copy of vanilla (the same settings and seed, ...)."""
    copies, again = [], []
    for run, original in repeated(runs):
        count = len(run.rows)
        part = "" if count == len(original.rows) else f"the first {steps_in_words(count)} of "
        if run.rows == original.rows[:count]:
            copies.append(f"{run.label} is a copy of {part}{original.label}")
        else:
            again.append(f"{run.label} repeats {part}{original.label}")
    lines = []
    if copies:
        lines.append(f"No further evidence: {', '.join(copies)} ({ALIKE}, times included).")
    if again:
        lines.append(f"No further evidence: {', '.join(again)} ({ALIKE} but for times).")
    return lines


def repeated(runs: Sequence[Run]) -> list[tuple[Run, Run]]:
    """(run, the run that it repeats), in the order of the runs; of several alike the first is repeated.

    A run that ended sooner, was cut off, or copied before its end, may be the beginning of another one.
    """
    originals: list[Run] = []
    found = {}
    # Rather the whole run is the original than a part of it
    for run in sorted(runs, key=lambda run: (-len(run.rows), not run.complete)):
        original = next((one for one in originals if repeats(run, one)), None)
        if original is None:
            originals.append(run)
        else:
            found[run.path] = original
    return [(run, found[run.path]) for run in runs if run.path in found]


def repeats(run: Run, original: Run) -> bool:
    """Has the run the settings, the seed and, on all its steps, the figures of this one, which has as many or
    more?"""
    if (run.kind, run.seed) != (original.kind, original.seed) or identity(run) != identity(original):
        return False
    return figures(run.rows) == figures(original.rows[: len(run.rows)])


def figures(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows without the times and the memory that they took."""
    return [{key: value for key, value in row.items() if not key.startswith(OF_ITS_MACHINE)} for row in rows]
