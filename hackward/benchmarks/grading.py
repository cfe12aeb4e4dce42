"""Section grading: completions graded per second.

Beside ours stand a plain grader and what fork alone costs, and with --baseline another checkout's grader. The
plain grader is what most code does: a fresh ``python -c`` per completion with the asserts appended, exit
status 0 is a pass. It is there for its speed; its verdicts can be forged. The floor is a warm small
interpreter that forks for each completion and runs it on the arguments, unfenced and unheard: what any grader
with one process per run must pay.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeVar

from rich.console import Group

from hackward.base.faults import InputError
from hackward.base.screen import stdout
from hackward.benchmarks.against_checkout import against, against_words, refuse_other_projects
from hackward.benchmarks.flags import BenchFlags
from hackward.benchmarks.parts import Bench, table
from hackward.benchmarks.plain_grading import fork_floor, plain_rate, rate
from hackward.grading.grader import Grader
from hackward.grading.labels import GradeItem
from hackward.grading.protection import print_protection
from hackward.grading.rows import read_rows
from hackward.tasks.completions import fence
from hackward.tasks.formats import load_problems
from hackward.tasks.problems import Resolver
from hackward.tasks.shipped import EMBEDDED, TINY, shipped

WARM = 20  # completions that are graded before the clock runs
Item = TypeVar("Item")


def measure_grading(b: Bench) -> dict:
    """Every kind of completions, ground truth alone and with the full label.

    InputError for rows or problems that leave nothing to grade, or a --baseline without a working grader.
    """
    config = b.config
    if config.baseline is not None:
        refuse_other_projects(config.baseline)
    problems = config.problems or str(shipped(EMBEDDED).problems)
    canonical, rollouts = canonical_solutions(config), real_rollouts(config, problems)
    workers = config.workers or len(os.sched_getaffinity(0))
    with Grader(workers=workers, sandbox=config.sandbox) as grader:
        print_protection(grader.protection, stdout())
        endless = reach_a_limit(grader, rollouts)
        ending = [item for item, limited in zip(rollouts, endless, strict=True) if not limited]
        looping = len(rollouts) - len(ending)
        kinds = [
            (f"{len(canonical)} canonical solutions, ground truth", canonical, False),
            (f"{len(ending)} real rollouts, ground truth", ending, False),
            (f"{len(ending)} real rollouts, full label", ending, True),
        ]
        if looping:
            kinds.append((f"the same and {looping} that loop, full label", rollouts, True))
        rows = [
            {"what": name} | compared(grader, items, own, workers, config)
            for name, items, own in kinds
            if items
        ]
    found = {"rows": rows, "workers": workers, "protection": grader.protection, "baseline": None}
    if config.baseline is not None:
        found["baseline"] = against(
            config.baseline,
            ending or rollouts,
            problems,
            workers=workers,
            sandbox=config.sandbox,
            repeats=config.repeats,
        )
    return found


def canonical_solutions(config: BenchFlags) -> list[GradeItem]:
    """The canonical solutions as completions."""
    source = config.canonical or str(shipped(TINY).problems)
    items = [GradeItem(p, fence(p.canonical)) for p in load_problems(source) if p.canonical]
    if not items:
        raise InputError(f"{source}: no problem in it has a canonical solution (--canonical)")
    return items


def real_rollouts(config: BenchFlags, problems: str) -> list[GradeItem]:
    """Rollouts whose problem is known, evenly spaced over the pool."""
    source = config.rows or shipped(EMBEDDED).teacher
    assert source is not None
    resolver, items = Resolver(load_problems(problems)), []
    for row in read_rows((source,)):
        problem, _ = resolver.resolve(row)
        if problem is not None:
            items.append(GradeItem(problem, row["completion"]))
    if not items:
        raise InputError(f"{source}: no row of it is of a problem in {problems} (--problems)")
    return evenly(items, config.graded)


def evenly(items: Sequence[Item], count: int) -> list[Item]:
    """So many of them, evenly spaced."""
    return [items[position * len(items) // count] for position in range(min(count, len(items)))]


def reach_a_limit(grader: Grader, items: list[GradeItem]) -> list[bool]:
    """Which completions never end by themselves. Each costs its whole CPU allowance, whoever grades it."""
    return ["time limit" in (grade.error or "") for grade in grader.grade(items, own=False)]


def compared(grader: Grader, items: list[GradeItem], own: bool, workers: int, config: BenchFlags) -> dict:
    """Completions per second: ours and the fork floor in every round, the plain grader's once.

    The floor knows no full label: it is measured for the ground truth alone.
    """
    ours = our_rates(grader, items, own, config.repeats)
    floor = None if own else sorted(fork_floor(items, workers) for _ in range(config.repeats))
    plain = plain_rate(evenly(items, config.plain_graded), own, workers)
    return {"count": len(items), "ours": ours, "floor": floor, "plain": plain}


def our_rates(grader: Grader, items: list[GradeItem], own: bool, repeats: int) -> list[float]:
    """Completions per second of each round, from the slowest to the fastest."""
    grader.grade(items[:WARM], own=own)  # workers up, set-up code loaded: a training run pays that once
    return sorted(rate(lambda: grader.grade(items, own=own), len(items)) for _ in range(repeats))


def show_grading(found: dict) -> tuple[Group, str]:
    """The table and the caption below it."""
    rows = []
    for row in found["rows"]:
        ours, floor = row["ours"], row["floor"]
        middle = ours[len(ours) // 2]
        shown = f"{middle:.0f} ({ours[0]:.0f} to {ours[-1]:.0f})"
        share = ("", "")
        if floor:
            lowest = floor[len(floor) // 2]
            share = (f"{lowest:.0f}", f"{middle / lowest:.0%}")
        rows.append((row["what"], shown, *share, f"{row['plain']:.1f}"))
    headings = ("what", "ours (lowest to highest)", "fork floor", "share of it", "python -c each")
    caption = (
        "fork floor: one fork a completion that runs its code on the arguments, without fence, answers,"
        " verdict"
    )
    if found["baseline"] is not None:
        caption += f"\n{against_words(found['baseline'])}"
    return table(f"completions a second, {found['workers']} workers", headings, rows), caption
