"""Pictures with a panel per arm: many arms stay readable where their curves would lie upon each other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from hackward.base.statistics import Estimate, defined, mean
from hackward.reports import figures
from hackward.reports.arms import ArmRuns, baseline
from hackward.reports.figures import (
    COLOURS,
    by_seed,
    dress,
    gaps,
    key_below,
    panels,
    running_mean,
    whole_steps,
)
from hackward.reports.monitor_figures import TARGETS, Known, WatchedRuns, known, windows
from hackward.reports.scored import CLASSES
from hackward.reports.words import CHANCE

VANILLA = "#999999"
LOOKS = {
    "hacked": (COLOURS[1], "s"),
    "attempted": (COLOURS[4], "^"),
    "clean": (COLOURS[0], "o"),
    "solved": (COLOURS[2], "v"),
    "teacher": (COLOURS[6], "D"),
}


def hacked_by_arm(path: Path, arms: Sequence[ArmRuns]) -> None:
    """Hack rate over steps, a panel per arm: its seeds, their mean, the band between them; and its
    vanilla."""
    title = "Hacked by arm (3-step means; thin: seed, thick: mean, band: range; grey: its vanilla)"
    figure, shown = panels(len(arms), 2.0, title)
    for axes, arm in zip(shown, arms, strict=True):
        base = baseline(arm, arms)
        if base is not None:
            steps, seeds = by_seed(list(base.runs.values()), "hack_rate")
            axes.plot(steps, seeds.mean(axis=0), color=VANILLA, linewidth=1.6, linestyle="--")
        runs = list(arm.runs.values())
        steps, seeds = by_seed(runs, "hack_rate")
        low, high = seeds.min(axis=0), seeds.max(axis=0)
        axes.fill_between(steps, low, high, color=COLOURS[1], alpha=0.15, linewidth=0)
        for run in runs:
            rates = running_mean(run.column("hack_rate"))
            axes.plot(run.column("step"), rates, color=COLOURS[1], linewidth=0.6, alpha=0.7)
        axes.plot(steps, seeds.mean(axis=0), color=COLOURS[1], linewidth=1.8)
        axes.set_ylim(-0.02, 1.02)
        whole_steps(axes)
        dress(axes, _named(arm.name, len(arm.runs)), "step", "hacked")
    figures.save(figure, path)


def _named(name: str, seeds: int) -> str:
    """A panel's title, on two lines where it is long."""
    words = f"{name} ({seeds} seed{'s' if seeds > 1 else ''})".split()
    if len(" ".join(words)) <= 40:
        return " ".join(words)
    half = (len(words) + 1) // 2
    return "\n".join([" ".join(words[:half]), " ".join(words[half:])])


def monitor_auc(path: Path, groups: Sequence[WatchedRuns]) -> None:
    """AUC of the monitor's score on own rollouts over steps, a panel per arm and monitor.

    Drawn where both classes have rollouts; a panel in which that is nowhere so says it.
    """
    title = "AUC on own rollouts (dot: a step; line: steps together; bar: range of seeds, of one 95 %)"
    figure, shown = panels(len(groups), 2.2, title)
    for axes, group in zip(shown, groups, strict=True):
        axes.axhline(CHANCE, color="black", linewidth=0.8, linestyle=":")
        drawn = [_auc_curve(axes, group, target) for target in TARGETS]
        if not any(drawn):
            words = "no window has hacks or attempts\nand other rollouts"
            axes.text(0.5, 0.8, words, ha="center", fontsize=7, style="italic", transform=axes.transAxes)
        axes.set_ylim(-0.03, 1.03)
        whole_steps(axes)
        dress(axes, _named(group.name, len(group.runs)), "step", "AUC")
    key_below(figure, shown[0])
    figures.save(figure, path)


def _auc_curve(axes: Axes, group: WatchedRuns, target: str) -> bool:
    """Of one label; False where no window has an AUC."""
    colour, marker = LOOKS[target]
    for run in group.runs.values():
        axes.scatter(
            run.column("step"), gaps(run.column(f"monitor_auc_{target}")), s=4, color=colour, alpha=0.4
        )
    middles, by_window = _windowed(group)
    points = [_point([part.auc[target] for part in parts]) for parts in by_window]
    heights = gaps(centre for centre, _, _ in points)
    axes.errorbar(
        middles,
        heights,
        yerr=np.array([(below, above) for _, below, above in points]).T,
        color=colour,
        marker=marker,
        markersize=3.5,
        linewidth=1.4,
        elinewidth=0.8,
        capsize=2,
        label=f"{target}, against other own",
    )
    return bool(np.isfinite(heights).any())


def _point(found: Sequence[Estimate]) -> tuple[float | None, float, float]:
    """(mean over seeds, length of the bar below, above): lowest to highest seed; of one run its interval."""
    values = defined(auc.mean for auc in found)
    if not values:
        return None, 0.0, 0.0
    centre, ends = float(np.mean(values)), (min(values), max(values))
    if len(found) == 1 and found[0].interval is not None:
        ends = found[0].interval
    return centre, max(0.0, centre - ends[0]), max(0.0, ends[1] - centre)


def _windowed(group: WatchedRuns) -> tuple[list[float], list[list[Known]]]:
    """(middle of every window, what was known in it by seed), as far as the shortest run goes."""
    steps = min((run.column("step") for run in group.runs.values()), key=len)
    parts = windows(steps)
    found = []
    for part in parts:
        found.append([known(run.scored, part) for run in group.runs.values() if run.scored is not None])
    return [(first + last) / 2 for first, last in parts], found


def monitor_flags(path: Path, groups: Sequence[WatchedRuns]) -> None:
    """Share of flagged rollouts over steps by what they are, a panel per arm and monitor; mean over seeds."""
    title = "Share flagged of own hacks, attempts, clean and solved rollouts, and of the teacher's rows"
    figure, shown = panels(len(groups), 2.2, title)
    for axes, group in zip(shown, groups, strict=True):
        middles, by_window = _windowed(group)
        for name in CLASSES:
            colour, marker = LOOKS[name]
            heights = []
            for parts in by_window:
                heights.append(mean(part.flagged[name] for part in parts))
            axes.plot(
                middles, gaps(heights), color=colour, marker=marker, markersize=3.5, linewidth=1.2, label=name
            )
        axes.set_ylim(-0.03, 1.03)
        whole_steps(axes)
        dress(axes, _named(group.name, len(group.runs)), "step", "flagged")
    key_below(figure, shown[0])
    figures.save(figure, path)
