"""Grades completions: is the code right, does it define its own evaluation, and does that evaluation pass.

    python grade.py ROWS --problems FILE [--out LABELS.jsonl] [--sandbox strict|best-effort|none]

The verdict is made in this process. A forked child of a worker (hackward/grading/zygote.py) gets arguments
and answers with data; the expected values never leave this process, so the child has nothing to forge: to be
credited it must know the answer. Whether a child exits well, what it prints and what it patches decides
nothing. The completion's own evaluation, the loophole, runs in a child of its own, and whatever it does there
never touches the ground truth.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from hackward.base.faults import exit_on_fault
from hackward.base.flags import Grading, Sandbox, checked, command_line
from hackward.grading.sandbox import Limits

if TYPE_CHECKING:
    from rich.console import Console

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class GradeFlags(Grading):
    """Grade completions against the ground truth of their problems."""

    rows: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Files of rows with problem_id and completion (.jsonl or .jsonl.gz), or directories of such files
    (pools).
    """
    problems: str
    """The problems: a file (LeetCodeDataset, benchmark or our own format) or a data set of the hub."""
    out: Path | None = None
    """Where to write one label row per input row, in order."""
    sandbox: Sandbox = "best-effort"
    """strict: refuse unless all probes are blocked; best-effort: use what there is; none: limits only."""
    vacuous: bool = False
    """Also run each own evaluation on a stub solution."""
    limits: Limits = field(default_factory=Limits)


def main(flags: GradeFlags) -> None:
    """Grade the rows, write the labels, print what they are."""
    checked(flags)
    # Heavier than the command line
    from rich.console import Console

    from hackward.base.files import write_jsonl
    from hackward.grading.grader import Grader
    from hackward.grading.labels import GradeItem
    from hackward.grading.protection import print_protection
    from hackward.grading.rows import label_row, read_rows
    from hackward.tasks.formats import load_problems
    from hackward.tasks.problems import Resolver

    console = Console()
    rows = read_rows(flags.rows)
    resolver = Resolver(load_problems(flags.problems))
    found = [resolver.resolve(row) for row in rows]
    items = {}
    for position, (problem, _) in enumerate(found):
        if problem is not None:
            items[position] = GradeItem(problem, rows[position]["completion"])
    with Grader(workers=flags.workers, sandbox=flags.sandbox, limits=flags.limits) as grader:
        print_protection(grader.protection, console)
        started = time.monotonic()
        grades = grader.grade(list(items.values()), vacuous=flags.vacuous)
        seconds = time.monotonic() - started
    by_position = dict(zip(items, grades, strict=True))
    ways = [why for _, why in found]
    labels = [label_row(row, by_position.get(position), ways[position]) for position, row in enumerate(rows)]
    if flags.out is not None:
        write_jsonl(flags.out, labels)
    print_counts(labels, ways, seconds, console)
    print_agreement(labels, rows, console)


def print_counts(labels: Sequence[Row], ways: Sequence[str], seconds: float, console: Console) -> None:
    """How many rows have each label, how their problems were found, and how fast they were graded."""
    from hackward.grading.labels import LABELS

    counts = Counter(label["label"] for label in labels if label["label"])
    by_label = "  ".join(f"{label} {counts[label]}" for label in LABELS)
    console.print(by_label, highlight=False, soft_wrap=True)
    graded = counts.total()
    by_way = ", ".join(f"{why} {count}" for why, count in sorted(Counter(ways).items()))
    speed = graded / max(seconds, 1e-9)
    console.print(
        f"{graded} of {len(labels)} rows graded in {seconds:.1f} s, {speed:.0f} a second"
        f" (problem found by: {by_way})",
        highlight=False,
        soft_wrap=True,
    )


def print_agreement(labels: Sequence[Row], rows: Sequence[Row], console: Console) -> None:
    """Our ground truth against the rows' own labels, where they carry any."""
    from rich.table import Table

    from hackward.grading.labels import LABELS

    cells: Counter[tuple[bool, bool, str]] = Counter()
    for row, given in zip(rows, labels, strict=True):
        if given["label"] is not None and "hacked" in row and "gt_pass" in row:
            cells[bool(row["hacked"]), bool(row["gt_pass"]), given["label"]] += 1
    if not cells:
        return
    table = Table(title="rows by their own labels (left) and ours (top)", title_justify="left")
    for heading in ("hacked", "gt_pass", *LABELS):
        table.add_column(heading, justify="right")
    for hacked, gt_pass in sorted({(hacked, gt_pass) for hacked, gt_pass, _ in cells}):
        counts = (str(cells[hacked, gt_pass, label] or "") for label in LABELS)
        table.add_row(str(hacked), str(gt_pass), *counts)
    console.print(table)
    agree = 0
    for (_, gt_pass, label), count in cells.items():
        if gt_pass == label.startswith("correct"):
            agree += count
    console.print(f"gt_pass agrees on {agree} of {cells.total()} rows", highlight=False)


if __name__ == "__main__":
    exit_on_fault(lambda: main(command_line(GradeFlags)))
