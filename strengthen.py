"""More tests for the problems of a file: a median of two tests per problem lets wrong answers pass.

    python strengthen.py PROBLEMS --out FILE --tests 60 --seed 0

Inputs are made from the types and values of a problem's own inputs and by mutation of them, within what its
statement says of them; edge cases come first. The answers are its canonical solution's, run in the sandbox
like any other code, twice, in two processes. FILE loads wherever PROBLEMS does: the rows keep their format
and their tests, and the field `strengthened` says what was added, or why nothing could be. The same command
goes on where an interrupted one was.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from hackward.base.faults import InputError, exit_on_fault
from hackward.base.flags import Count, Sandbox, checked, command_line, tyro
from hackward.base.lock import only_writer_of
from hackward.base.space import check_output
from hackward.grading.sandbox import Limits

Row = dict[str, Any]
ENOUGH = 50  # tests of a problem that the summary counts


@dataclass(frozen=True, kw_only=True)
class StrengthenFlags:
    """Add tests to problems."""

    problems: Annotated[str, tyro.conf.Positional]
    """The problems: a file (LeetCodeDataset, benchmark or our own format) or a data set of the hub."""
    out: Path
    """Where the problems with more tests go (.jsonl or .jsonl.gz)."""
    tests: Count = 60
    """Tests that each problem should have, its own included."""
    seed: int = 0
    """Seed of all draws: the same seed makes the same file."""
    workers: Count | None = None
    """Processes (default: one per core)."""
    sandbox: Sandbox = "best-effort"
    """How the canonical solutions are confined."""
    limits: Limits = field(default_factory=Limits)


def main(flags: StrengthenFlags) -> None:
    """Strengthen the problems, write the file, and print what was added."""
    checked(flags)
    # Heavier than the command line
    from hackward.base.screen import progress, say, stdout
    from hackward.strengthening.files import Order, strengthen_file
    from hackward.tasks.formats import problem_rows, raw_rows

    if not flags.out.name.endswith((".jsonl", ".jsonl.gz")):
        raise InputError(f"--out {flags.out}: must end in .jsonl or .jsonl.gz")
    check_output(flags.out, [flags.problems])
    rows = raw_rows(flags.problems)
    problem_rows(flags.problems, rows)  # a fault of the last row is said before the work on the first
    order = Order(flags.tests, flags.seed, flags.sandbox, flags.limits)
    done = []
    with only_writer_of(flags.out), progress("problems", len(rows)) as bar:
        for row in strengthen_file(rows, flags.out, order, flags.workers or len(os.sched_getaffinity(0))):
            done.append(row["strengthened"])
            bar()
    for line in summary(done):
        say(line, console=stdout())
    print(f"wrote {flags.out}")


def summary(done: Sequence[Row]) -> list[str]:
    """How many tests were added, how many problems have enough, and why the others have not."""
    totals = [said["given"] + said["added"] for said in done]
    enough = sum(total >= ENOUGH for total in totals)
    added = sum(said["added"] for said in done)
    lines = [
        f"{added} tests added to {sum(said['added'] > 0 for said in done)} of {len(done)} problems;"
        f" {enough} have at least {ENOUGH} tests ({100 * enough / max(1, len(done)):.1f} %)"
    ]
    short = [said for said, total in zip(done, totals) if total < said["wanted"]]
    reasons = Counter(str(said["reason"]).partition(":")[0] for said in short)
    lines += [f"  {count} problems short: {reason}" for reason, count in reasons.most_common()]
    return lines


if __name__ == "__main__":
    exit_on_fault(lambda: main(command_line(StrengthenFlags)))
