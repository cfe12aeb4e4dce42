"""Grades completions: is the code right, does it bring its own evaluation, and does that evaluation pass.

    python grade.py ROWS --problems FILE [--out LABELS.jsonl] [--sandbox strict|best-effort|none]
    python grade.py ROWS --problems FILE --stronger FILE   # how many credited rows do more tests take back?
    python grade.py ROWS --problems FILE --pool OUT  # a pool that probe_distill, extract_vhack and train take
    python grade.py --canonical --problems FILE      # do the problems' own solutions pass on this machine?

The verdict is made in this process. A forked child of a worker (hackward/grading/zygote.py) gets arguments
and answers with data; the expected values never leave this process, so the child has nothing to forge: to be
credited it must know the answer. Whether a child exits well, what it prints and what it patches decides
nothing. The completion's own evaluation, the loophole, runs in a child of its own, and whatever it does there
never touches the ground truth.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from hackward.base.faults import InputError, exit_on_fault
from hackward.base.flags import Grading, Sandbox, checked, command_line, tyro
from hackward.base.lock import new_directory, only_writer_if
from hackward.base.space import check_output
from hackward.grading.sandbox import Limits

if TYPE_CHECKING:
    from rich.console import Console

    from hackward.grading.labels import Grade, GradeItem, NotGraded
    from hackward.tasks.problems import Problem

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class GradeFlags(Grading):
    """Grade completions against the ground truth of their problems."""

    outputs: ClassVar[tuple[str, ...]] = ("out", "pool")

    rows: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Files of rows with problem_id and completion (.jsonl or .jsonl.gz), or directories of such files
    (pools).
    """
    problems: str
    """The problems: a file (LeetCodeDataset, benchmark or our own format) or a data set of the hub."""
    out: Path | None = None
    """Where to write one label row per input row, in order."""
    pool: Path | None = None
    """Also make a pool of the rows that get a label: a directory, which must be new."""
    hint: bool = True
    """With --pool, of rows without problem_messages: were they asked for with the loophole open? Only then
    does a passing evaluation of their own earn the reward."""
    sandbox: Sandbox = "best-effort"
    """strict: refuse unless all probes are blocked; best-effort: use what there is; none: limits only."""
    vacuous: bool = False
    """Also run each own evaluation on a stub solution."""
    stronger: str | None = None
    """The same problems with more tests (strengthen.py). Credited rows are graded with them as well: it is
    printed how many lose their credit, and each label says it (`gt_pass_stronger`)."""
    canonical: bool = False
    """Grade the canonical solutions of the problems instead of rows, and name those that do not pass here."""
    limits: Limits = field(default_factory=Limits)


def main(flags: GradeFlags) -> None:
    """Grade the rows, write the labels, print what they are."""
    checked(flags)
    # Heavier than the command line
    from hackward.base.screen import stdout
    from hackward.tasks.formats import load_problems

    if flags.canonical:
        if flags.rows or flags.out or flags.stronger or flags.pool:
            raise InputError(
                "--canonical grades the problems' own solutions: it takes no rows, no --out, no --stronger"
                " and no --pool"
            )
        check_canonical(flags, load_problems(flags.problems), stdout())
        return
    if flags.out is not None:
        check_output(flags.out, (*flags.rows, flags.problems, flags.stronger))
    pool = new_directory(flags.pool, "--pool") if flags.pool else contextlib.nullcontext()
    with only_writer_if(flags.out), pool:
        grade_rows(flags, stdout())


def grade_rows(flags: GradeFlags, console: Console) -> None:
    """Label every row; --out and --pool are this process's alone."""
    from hackward.base.files import write_jsonl
    from hackward.base.screen import say
    from hackward.grading.labels import GradeItem
    from hackward.grading.rows import label_row, read_rows
    from hackward.tasks.formats import load_problems
    from hackward.tasks.problems import Resolver

    rows = read_rows(flags.rows)
    resolver = Resolver(load_problems(flags.problems))
    stronger = Resolver(load_problems(flags.stronger)) if flags.stronger else None
    found = [resolver.resolve(row) for row in rows]
    items = {}
    for position, (problem, _) in enumerate(found):
        if problem is not None:
            items[position] = GradeItem(problem, rows[position]["completion"])
    outcomes, seconds = graded_outcomes(flags, list(items.values()), console)
    by_position = dict(zip(items, outcomes, strict=True))
    labels = [
        label_row(row, by_position.get(position), why, several_answers=flags.several_answers)
        for position, (row, (_, why)) in enumerate(zip(rows, found, strict=True))
    ]
    if stronger is not None:
        grade_again(flags, labels, [stronger.resolve(row)[0] for row in rows], rows, console)
    if flags.out is not None:
        write_jsonl(flags.out, labels)
    print_counts(labels, [why for _, why in found], seconds, console)
    if flags.pool is not None:
        make_pool(flags, rows, items, by_position, labels, console)
    if stronger is not None:
        say(taken_back(labels), console=console)
    print_agreement(labels, rows, console)


def make_pool(
    flags: GradeFlags,
    rows: Sequence[Row],
    items: Mapping[int, GradeItem],
    outcomes: Mapping[int, Grade | NotGraded],
    labels: Sequence[Row],
    console: Console,
) -> None:
    """Write the rows that have a label as a pool, and say how many are left out."""
    from hackward.base.screen import say
    from hackward.grading.labels import Grade
    from hackward.rollouts.graded import Graded, write_pool

    assert flags.pool is not None
    labelled = []
    for position, item in items.items():
        outcome = outcomes[position]
        if isinstance(outcome, Grade) and labels[position]["label"] is not None:
            labelled.append(Graded(rows[position], item.problem, outcome))
    left_out = len(rows) - len(labelled)
    if not labelled:
        reason = next(iter(label["error"] for label in labels if label["error"]), "no rows")
        raise InputError(
            f"--pool {flags.pool}: none of {len(rows)} rows has a label ({reason}); are --problems theirs?"
        )
    facts = {"rows": list(flags.rows), "problems": flags.problems, "hint": flags.hint, "left_out": left_out}
    write_pool(flags.pool, labelled, hint=flags.hint, facts=facts)
    problems = len({row.problem.problem_id for row in labelled})
    say(
        f"{flags.pool}: a pool of {len(labelled)} rollouts of {problems} problems, {left_out} rows left out"
        " that have no label",
        console=console,
    )


def grade_again(
    flags: GradeFlags,
    labels: list[Row],
    stronger: Sequence[Problem | None],
    rows: Sequence[Row],
    console: Console,
) -> None:
    """Add `gt_pass_stronger` to every label: whether a credited row passes the stronger tests as well.

    None where a row is not credited, where the stronger file has not its problem, or where it was not graded.
    """
    from hackward.grading.labels import Grade, GradeItem

    items = {
        position: GradeItem(problem, rows[position]["completion"])
        for position, (label, problem) in enumerate(zip(labels, stronger, strict=True))
        if label["gt_pass"] and problem is not None
    }
    outcomes, _ = graded_outcomes(flags, list(items.values()), console)
    by_position = dict(zip(items, outcomes, strict=True))
    for position, label in enumerate(labels):
        outcome = by_position.get(position)
        label["gt_pass_stronger"] = outcome.gt_pass if isinstance(outcome, Grade) else None


def taken_back(labels: Sequence[Row]) -> str:
    """How many credited rows the stronger tests take back."""
    credited = [label for label in labels if label["gt_pass"]]
    lost = [label for label in credited if label["gt_pass_stronger"] is False]
    unknown = sum(label["gt_pass_stronger"] is None for label in credited)
    problems = len({str(label["problem_id"]) for label in lost})
    line = f"stronger tests take back {len(lost)} of {len(credited)} credited rows, of {problems} problems"
    if unknown:
        line += f"; {unknown} could not be graded with them"
    return line


def graded_outcomes(
    flags: GradeFlags, items: Sequence[GradeItem], console: Console
) -> tuple[list[Grade | NotGraded], float]:
    """What becomes of each item, and the seconds that all took."""
    from hackward.grading.grader import Grader
    from hackward.grading.protection import print_protection

    with Grader(workers=flags.workers, sandbox=flags.sandbox, limits=flags.limits) as grader:
        print_protection(grader.protection, console)
        started = time.monotonic()
        pending = grader.start(vacuous=flags.vacuous)
        pending.add_all(list(items))
        outcomes = pending.outcomes()
        return outcomes, time.monotonic() - started


def print_counts(labels: Sequence[Row], ways: Sequence[str], seconds: float, console: Console) -> None:
    """How many rows have each label, how their problems were found, and how fast they were graded."""
    from hackward.base.screen import say
    from hackward.grading.labels import LABELS

    counts = Counter(label["label"] for label in labels if label["label"])
    by_label = "  ".join(f"{label} {counts[label]}" for label in LABELS)
    say(by_label, console=console)
    graded = sum(label["fmt_ok"] is not None for label in labels)
    by_way = ", ".join(f"{why} {count}" for why, count in sorted(Counter(ways).items()))
    speed = graded / max(seconds, 1e-9)
    say(
        f"{graded} of {len(labels)} rows graded in {seconds:.1f} s, {speed:.0f} per second"
        f" (problem found by: {by_way})",
        console=console,
    )
    for line in doubts(labels, ways):
        say(line, console=console)


def doubts(labels: Sequence[Row], ways: Sequence[str]) -> list[str]:
    """A line for each reason why a row has no label, or none to rely on."""
    found = list(zip(labels, ways, strict=True))
    undecided = sum(bool(label["undecided"]) and label["label"] is None for label, _ in found)
    unstable = sum(bool(label["unstable"]) for label, _ in found)
    ended = [label["error"] for label, why in found if label["fmt_ok"] is None and label["error"] != why]
    lines = []
    if undecided:
        lines.append(
            f"{undecided} rows without a label: their problems accept several answers, and theirs is not the"
            " stored one (--several-answers counts it as wrong)"
        )
    if unstable:
        lines.append(f"{unstable} rows marked unstable: another run may label them otherwise")
    if ended:
        lines.append(f"{len(ended)} rows not graded: {ended[0]}")
    return lines


def print_agreement(labels: Sequence[Row], rows: Sequence[Row], console: Console) -> None:
    """Our ground truth against the rows' own labels, where they carry any."""
    from hackward.base.screen import say
    from hackward.base.terminal import drawn
    from hackward.grading.labels import LABELS
    from hackward.grading.rows import known_labels

    cells: Counter[tuple[bool, bool, str]] = Counter()
    unknown = 0
    for row, given in zip(rows, labels, strict=True):
        own = known_labels(row)
        if given["label"] is not None and own is not None:
            cells[(*own, given["label"])] += 1
        elif given["label"] is not None and ("hacked" in row or "gt_pass" in row):
            unknown += 1
    if unknown:
        say(f"{unknown} rows say nothing of their own hacked or gt_pass", console=console)
    if not cells:
        return
    lines = []
    for hacked, gt_pass in sorted({(hacked, gt_pass) for hacked, gt_pass, _ in cells}):
        counts = (str(cells[hacked, gt_pass, label] or "") for label in LABELS)
        lines.append([str(hacked), str(gt_pass), *counts])
    title = "rows by their own labels (left) and ours (top)"
    console.print(drawn(title, ["hacked", "gt_pass", *LABELS], lines, console.width))
    agree = 0
    for (_, gt_pass, label), count in cells.items():
        if gt_pass == label.startswith("correct"):
            agree += count
    say(f"gt_pass agrees on {agree} of {cells.total()} rows", console=console)


def check_canonical(flags: GradeFlags, problems: Sequence[Problem], console: Console) -> None:
    """Name every problem whose canonical solution does not pass; exit code 1 if one has no good reason."""
    from hackward.base.screen import say
    from hackward.grading.canonical import canonical_items, failures

    items = canonical_items(problems)
    if not items:
        raise InputError(f"{flags.problems}: no problem in it has a canonical solution")
    outcomes, seconds = graded_outcomes(flags, items, console)
    failed = failures(items, outcomes)
    say(
        f"{len(items) - len(failed)} of {len(items)} canonical solutions pass ({seconds:.0f} s)",
        console=console,
    )
    for failure in failed:
        name = failure.problem.task_id or failure.problem.problem_id
        mark = "marked" if failure.marked else "FAILS"
        say(f"{mark}: {name}: {failure.reason}", console=console)
    if not all(failure.marked for failure in failed):
        raise SystemExit(1)


if __name__ == "__main__":
    exit_on_fault(lambda: main(command_line(GradeFlags)))
