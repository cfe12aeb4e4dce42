"""Grades completions: is the code right, does it define its own evaluation, and does that evaluation pass.

    python grade.py ROWS --problems FILE [--out LABELS.jsonl] [--sandbox strict|best-effort|none]

The verdict is made here. A forked child of a worker (grade_worker.py, fenced in by sandbox.py) gets arguments and
answers with data; the expected values never leave this process, so the child has nothing to forge: to be credited it
must know the answer. Whether a child exits well, what it prints and what it patches decides nothing. The completion's
own evaluation, the loophole, runs in a child of its own, and whatever it does there never touches the ground truth.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.table import Table

from hackward.base.faults import exit_on_fault
from hackward.base.files import write_jsonl
from hackward.base.flags import command_line
from hackward.grading.grader import Grader, print_protection
from hackward.grading.labels import LABELS, GradeItem
from hackward.grading.rows import label_row, read_rows
from hackward.grading.sandbox import Limits
from hackward.tasks.formats import load_problems
from hackward.tasks.problems import Resolver


@dataclass
class GradeFlags:
    """Grade completions against the ground truth of their problems."""

    rows: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Files of rows with problem_id and completion (.jsonl or .jsonl.gz), or directories of such files (pools)."""
    problems: str
    """The problems: a file (LeetCodeDataset, benchmark or our own format) or a data set of the hub."""
    out: Path | None = None
    """Where to write one label row an input row, in order."""
    sandbox: Literal["strict", "best-effort", "none"] = "best-effort"
    """strict: refuse to run unless all probes are blocked; best-effort: use what there is; none: limits only."""
    workers: int | None = None
    """Worker processes (default: one a usable core)."""
    vacuous: bool = False
    """Also run each own evaluation on a stub solution."""
    limits: Limits = field(default_factory=Limits)


def print_agreement(labels: list[dict], rows: list[dict], console: Console) -> None:
    """Our ground truth against the rows' own labels, where they carry any."""
    graded = [(row, label) for row, label in zip(rows, labels, strict=True) if label["label"] is not None]
    cells = Counter(
        (bool(row["hacked"]), bool(row["gt_pass"]), label["label"])
        for row, label in graded
        if "hacked" in row and "gt_pass" in row
    )
    if not cells:
        return
    table = Table(title="rows by their own labels (left) and ours (top)", title_justify="left")
    for heading in ("hacked", "gt_pass", *LABELS):
        table.add_column(heading, justify="right")
    for hacked, gt_pass in sorted({cell[:2] for cell in cells}):
        counts = (str(cells[hacked, gt_pass, label] or "") for label in LABELS)
        table.add_row(str(hacked), str(gt_pass), *counts)
    console.print(table)
    agree = sum(
        count for (_, gt_pass, label), count in cells.items() if gt_pass == label.startswith("correct")
    )
    console.print(f"gt_pass agrees on {agree} of {cells.total()} rows", highlight=False)


def main(options: GradeFlags) -> None:
    console = Console()
    rows = read_rows(options.rows)
    resolver = Resolver(load_problems(options.problems))
    found = [resolver.resolve(row) for row in rows]
    known = [position for position, (problem, _) in enumerate(found) if problem is not None]
    items = [GradeItem(found[position][0], rows[position]["completion"]) for position in known]
    with Grader(workers=options.workers, sandbox=options.sandbox, limits=options.limits) as grader:
        print_protection(grader.protection, console)
        started = time.monotonic()
        graded = dict(zip(known, grader.grade(items, vacuous=options.vacuous), strict=True))
        seconds = time.monotonic() - started
    labels = [label_row(row, graded.get(position), found[position][1]) for position, row in enumerate(rows)]
    if options.out is not None:
        write_jsonl(options.out, labels)
    counts = Counter(label["label"] for label in labels if label["label"])
    console.print("  ".join(f"{label} {counts[label]}" for label in LABELS), highlight=False, soft_wrap=True)
    ways = Counter(why for _, why in found)
    console.print(
        f"{len(items)} of {len(rows)} rows graded in {seconds:.1f} s, {len(items) / max(seconds, 1e-9):.0f} a second"
        f" (problem found by: {', '.join(f'{why} {count}' for why, count in sorted(ways.items()))})",
        highlight=False,
        soft_wrap=True,
    )
    print_agreement(labels, rows, console)


if __name__ == "__main__":
    exit_on_fault(lambda: main(command_line(GradeFlags)))
