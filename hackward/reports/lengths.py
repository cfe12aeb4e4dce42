"""Runs of different lengths: which stopped early, and what is over fewer steps than the runs have."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

from hackward.reports.arms import ArmRuns, onset, shared_steps
from hackward.reports.onset import EDGE
from hackward.reports.runs import Run, lengths
from hackward.reports.tables import Caveat
from hackward.reports.words import steps_in_words

AT_STEP = re.compile(r" at step \d+")


def _steps(counts: Sequence[int]) -> str:
    """1 step, 10 steps, 8 to 10 steps"""
    return steps_in_words(counts[0]) if len(set(counts)) == 1 else f"{span(counts)} steps"


def span(numbers: Sequence[int]) -> str:
    """18, or 18 to 40"""
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"


def stopped_lines(runs: Sequence[Run], arms: Sequence[ArmRuns]) -> list[str]:
    """Which runs stopped early, and why; nothing where none did. At which step it came the table says.

    An arm of which all seeds did, for one reason, is named once.
    """
    reasons: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        if run.stopped:
            reasons[AT_STEP.sub("", " ".join(run.stopped.split()))].append(run)
    said = [f"{', '.join(_named_once(those, arms))}: {reason}" for reason, those in reasons.items()]
    return [f"Stopped early: {'; '.join(said)}."] if said else []


def _named_once(runs: Sequence[Run], arms: Sequence[ArmRuns]) -> list[str]:
    """vanilla (all 5 seeds), projected s41"""
    paths, names = {run.path for run in runs}, []
    for arm in arms:
        members = {run.path for run in arm.runs.values()}
        if len(members) > 1 and members <= paths:
            names.append(f"{arm.name} (all {len(members)} seeds)")
            paths -= members
    return names + [run.label for run in runs if run.path in paths]


def stopped_counts(arms: Sequence[ArmRuns]) -> list[str]:
    """projected: 5 of 5 runs ended 10 steps after their breakout; of arms without such a run nothing."""
    found = []
    for arm in arms:
        stopped = [run for run in arm.runs.values() if run.stopped]
        if not stopped:
            continue
        times = [(run.rows[-1]["step"], onset(run)) for run in stopped]
        after = [last - step for last, step in times if isinstance(step, int)]
        when = f"{_steps(after)} after their breakout" if after else "early"
        found.append(f"{arm.name}: {len(stopped)} of {len(arm.runs)} runs ended {when}")
    return found


def over_seeds_words(steps: Mapping[int, int]) -> str:
    """Numbers of steps by seed, in words: 24 (seed 1), 31 (seeds 2, 3)"""
    seeds: dict[int, list[int]] = defaultdict(list)
    for seed, count in sorted(steps.items()):
        seeds[count].append(seed)
    said = []
    for count, those in sorted(seeds.items()):
        said.append(f"{count} (seed{'s' if len(those) > 1 else ''} {', '.join(map(str, those))})")
    return ", ".join(said)


def lengths_caveats(arms: Sequence[ArmRuns], compared: Sequence[str]) -> list[Caveat]:
    """What is over the steps that all runs of a seed have, and how many these are.

    Nothing where runs of one setting are as long as one another. ``compared``: what is so, in words.
    """
    settings: dict[str, list[ArmRuns]] = defaultdict(list)
    for arm in arms:
        settings[arm.identity.rest].append(arm)
    caveats = []
    for members in settings.values():
        runs = [run for arm in members for run in arm.runs.values()]
        if not compared or len({tuple(run.column("step")) for run in runs}) == 1:
            continue
        whose = f"{', '.join(arm.name for arm in members)}: runs" if len(settings) > 1 else "Runs"
        head = f"{whose} differ in length ({span([len(run.rows) for run in runs])} steps)."
        caveats.append(Caveat("\n".join([head, *_over(members, compared)])))
    return caveats


def _over(arms: Sequence[ArmRuns], compared: Sequence[str]) -> list[str]:
    steps = {seed: len(found) for (_, seed), found in shared_steps(arms).items()}
    counts, what = over_seeds_words(steps), ", ".join(compared)
    lines = [f"Over the steps that all runs of a seed have, {counts}: {what}."]
    short = [str(seed) for seed, count in sorted(steps.items()) if count < 2 * EDGE]
    if short:
        lines.append(f"Fewer than {2 * EDGE} steps, first and last {EDGE} overlap: seed {', '.join(short)}.")
    lines.append("There an arm that only delays hacking may look like one that prevents it.")
    lines.append("Over whole runs: all else, held-out problems at each run's own end.")
    if any(len(lengths(arm.runs.values())) > 1 for arm in arms):
        lines.append("In pictures a mean over seeds ends where the first of its runs ends.")
    return lines
