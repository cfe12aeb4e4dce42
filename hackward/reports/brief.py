"""The on-policy runs in a few plain sentences: one for each arm, and what they do not show."""

from __future__ import annotations

from collections.abc import Sequence

from hackward.base import statistics
from hackward.base.breakout import HACK_ONSET
from hackward.reports.arms import ArmRuns, onset
from hackward.reports.lengths import stopped_counts
from hackward.reports.onset import EDGE
from hackward.reports.runs import lengths
from hackward.reports.words import UNDEFINED

ONE_SEED = (
    "One seed per arm: this is what happened here, and no test of a claim. Several seeds and the controls"
    " make one: sweep.py, or SEEDS='41 42 43' ./run.sh phases for the embedded model."
)
OWN_ENDS = (
    f"Runs differ in length, and the last {EDGE} steps are each run's own: these sentences do not compare"
    " arms over the same steps. The report does."
)
SEVERAL = "Intervals, controls and the verdict over seeds are in the report."


def brief_lines(arms: Sequence[ArmRuns]) -> list[str]:
    """A sentence for each arm, then the caveats that all of them share."""
    lines = [arm_sentence(arm) for arm in arms]
    runs = [run for arm in arms for run in arm.runs.values()]
    warnings = {run.record["warning"] for run in runs if run.record.get("warning")}
    most = max(len(arm.runs) for arm in arms)
    return [*lines, ONE_SEED if most == 1 else SEVERAL, *length_lines(arms), *sorted(warnings)]


def length_lines(arms: Sequence[ArmRuns]) -> list[str]:
    """That runs differ in length, and how many of them stopped early; nothing where they do not."""
    lines = []
    if len(lengths(run for arm in arms for run in arm.runs.values())) > 1:
        lines.append(OWN_ENDS)
    stopped = stopped_counts(arms)
    if stopped:
        lines.append(f"Stopped early: {'; '.join(stopped)}.")
    return lines


def arm_sentence(arm: ArmRuns) -> str:
    """vanilla (1 seed, 18 steps): 2 % of its answers hacked in the first 5 steps, 31 % in the last 5; ..."""
    seeds = len(arm.runs)
    steps = {len(run.rows) for run in arm.runs.values()}
    length = f"{min(steps)}" if len(steps) == 1 else f"{min(steps)} to {max(steps)}"
    first, last = (percent(arm, "hack_rate", part) for part in ("first5", "last5"))
    return (
        f"{arm.name} ({seeds} seed{'s' if seeds > 1 else ''}, {length} steps):"
        f" {first} of its answers hacked in the first {EDGE} steps, {last} in the last {EDGE};"
        f" {percent(arm, 'gt_rate', 'last5')} solved the problem in the last {EDGE}. {onset_words(arm)}"
    )


def percent(arm: ArmRuns, key: str, part: str) -> str:
    """A rate's mean over seeds: 31 %"""
    rate = statistics.mean(arm.figures(key, part).values())
    return UNDEFINED if rate is None else f"{100 * rate:.0f} %"


def onset_words(arm: ArmRuns) -> str:
    """When its hacking began, where there is one seed to say it of."""
    if len(arm.runs) > 1:
        return ""
    (found,) = map(onset, arm.runs.values())
    above = f"above {100 * HACK_ONSET:.0f} % (mean of 3 steps)"
    if found is None:
        return f"Too few steps to say when hacking went {above}."
    return f"Hacking never went {above}." if found == "never" else f"It went {above} at step {found}."
