"""Read finished run directories, judge them by the rules of the method, write a report.

    python analyze.py out/probe_distill        # prints the tables and writes out/probe_distill/report/

report/report.html is one file to open in a browser or to pass on: verdict, curves, and every rollout, the
same draw side by side across arms. It needs no network.

Where there are pools and no run yet, it shows the pools' rates and what to run next.

Three kinds of run: ``phase1`` (NLL probe on one pool), ``replay`` (Phase 2, mixed-replay GRPO) and
``sampled`` (on-policy). Reading runs, verdicts, tables and pictures live in hackward/reports/. A number that
does not exist is printed as "undefined" with the reason, never as NaN. How to read the output:
spec/reading.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from hackward.base.faults import InputError, exit_on_fault
from hackward.base.flags import command_line, tyro
from hackward.reports.directories import find_directories, find_pools, has_runs

if TYPE_CHECKING:
    from hackward.reports.arms import ArmRuns
    from hackward.reports.browser_data import Rollouts
    from hackward.reports.runs import Run


@dataclass(frozen=True)
class AnalyzeFlags:
    """Print the tables of all finished runs below DIR, with verdicts, and write DIR/report/."""

    directory: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(name="", metavar="DIR")]
    """Folder with run directories at any depth, e.g. out/probe_distill.

    Unfinished runs are named and left out; where none is finished they are shown, marked as such.
    """
    unfinished: bool = False
    """Take runs in that have steps but no summary.json, marked as such: still running, or cut off."""
    window: tuple[int, int] | None = None
    """FIRST LAST: also the means of the on-policy runs over these steps, the same for all."""
    primary: str | None = None
    """Arms whose question was asked beforehand, e.g. projected,penalty-attempt: their p values on prevention
    and delay are corrected for one another, all others are exploratory and uncorrected (default: all arms but
    vanilla and controls).

    Names as in the tables, with a dash for each space.
    """
    brief: bool = False
    """Print a sentence for each on-policy arm instead of the tables, which are in report.md all the same."""
    html: bool = True
    """Write report/report.html."""
    html_rollouts: int | None = None
    """About how many rollouts report.html holds at most; None: all, 0: none.

    Then it has those of every so many steps, the same in all runs, and of each run's last step.
    """


def check_window(window: tuple[int, int] | None) -> None:
    """InputError for a --window that no run can have."""
    if window is None:
        return
    first, last = window
    if not 0 <= first <= last:
        raise InputError(f"--window {first} {last}: expected the numbers of two steps, the first one first")


def packed_rollouts(config: AnalyzeFlags, runs: list[Run]) -> Rollouts | None:
    """The rollouts of the page; None where no page is wanted. InputError where a file of them is damaged."""
    from hackward.base.screen import progress
    from hackward.reports.browser_data import gather_rollouts

    if not config.html:
        return None
    try:
        with progress("packing rollouts", len(runs)) as bar:
            return gather_rollouts(runs, config.html_rollouts, bar)
    except InputError as fault:
        raise InputError(f"{fault} (--html-rollouts=0 leaves rollouts out)") from None


def show_pools(root: Path, pools: Mapping[Path, Sequence[Path]]) -> None:
    """Pools before any run: their rates and what to run next, also as a report."""
    from hackward.reports.pools import pool_blocks
    from hackward.reports.report import write_report
    from hackward.reports.tables import print_blocks

    blocks = pool_blocks(root, pools)
    write_report(root / "report", blocks, [])
    print_blocks(blocks)
    print(f"report: {root / 'report' / 'report.md'}")


def show_brief(home: Path, arms: Sequence[ArmRuns], runs: Sequence[Run]) -> None:
    """A sentence for each arm, which runs are copies, and where the picture of the arms' curves lies."""
    from hackward.base.screen import stdout
    from hackward.reports.brief import brief_lines
    from hackward.reports.copies import copy_lines
    from hackward.reports.tables import print_line

    console = stdout()
    for line in [*brief_lines(arms), *copy_lines(runs)]:
        print_line(line, console)
        console.print()
    drawn = [name for name in ("hacked.png", "on_policy.png") if (home / name).is_file()]
    print(f"picture: {home / drawn[0]}")


def main(config: AnalyzeFlags) -> None:
    check_window(config.window)
    if config.html_rollouts is not None and config.html_rollouts < 0:
        raise InputError(f"--html-rollouts {config.html_rollouts}: expected 0 or more")
    pools = {} if has_runs(config.directory) else find_pools(config.directory)
    if pools:
        show_pools(config.directory, pools)
        return
    records, left_out = find_directories(config.directory, config.unfinished)

    # These bring numpy, scipy, matplotlib and pydantic, which a wrong path need not wait for
    from hackward.base.screen import progress, say, stdout
    from hackward.reports.arms import by_arm
    from hackward.reports.browser import NAME, size_words
    from hackward.reports.prevention_tables import primary_of
    from hackward.reports.report import build_blocks, write_report
    from hackward.reports.runs import read_runs
    from hackward.reports.tables import print_blocks

    with progress("reading runs", len(records)) as bar:
        runs = read_runs(records, bar)
    primary_of(by_arm(runs), config.primary)  # refuses what is no arm here
    blocks = build_blocks(runs, left_out, config.window, config.primary)
    rollouts = packed_rollouts(config, runs)
    home = config.directory / "report"
    write_report(home, blocks, runs, rollouts)
    arms = by_arm(runs) if config.brief else []
    if arms:
        show_brief(home, arms, runs)
    else:
        print_blocks(blocks)
    print(f"report: {home / 'report.md'}")
    if rollouts is not None:
        size = f"({rollouts.count:,} rollouts, {size_words(home / NAME)})"
        say(f"page: {home / NAME} {size}", console=stdout())
        for note in rollouts.notes:
            say(note, console=stdout())


if __name__ == "__main__":
    exit_on_fault(lambda: main(command_line(AnalyzeFlags, prog="analyze.py")))
