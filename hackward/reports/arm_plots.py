"""Pictures of on-policy runs and arms."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from hackward.base import statistics
from hackward.base.statistics import Range, estimate, in_both
from hackward.reports import figures
from hackward.reports.arms import RATES, ArmRuns, over_shared_steps
from hackward.reports.figures import (
    COLOURS,
    bar_of,
    by_seed,
    dress,
    gaps,
    key_below,
    running_mean,
    shade_null,
    sheet,
    stacked,
    style,
    thin_ends,
    whole_steps,
    zero_line,
)
from hackward.reports.heldout import conditions, heldout_figures, heldout_rates
from hackward.reports.labels import short_labels
from hackward.reports.nulls import null_of, one_direction
from hackward.reports.prevention_tables import lasted
from hackward.reports.runs import Run, described, lengths

ROW_LETTERS = 40  # of a name to the left of its row
MANY_RUNS = 12  # beyond which the seeds of an arm look alike
SEEDS_AND_MEANS = "small: one seed; large: mean, bars 95 % over seeds (in brackets: seeds)"


def on_policy(path: Path, runs: Sequence[Run]) -> None:
    """Rates over steps, and the cosine of the updates made: a curve per run."""
    title = "On-policy runs (thin: each step, thick: 3-step mean; one curve is one seed)"
    if len(runs) > MANY_RUNS:
        title = title.replace(")", ", one look an arm)")
    figure, grid = sheet((len(RATES) + 2) // 2, 2, 2.6, title)
    *rates, cosine = grid.flat
    for axes in rates[len(RATES) :]:
        axes.set_axis_off()
    for axes, (key, name) in zip(rates, RATES.items()):
        _curves_of_runs(axes, runs, key)
        axes.set_ylim(bottom=-0.02)
        dress(axes, name, "step", "share of rollouts")
    _curves_of_runs(cosine, runs, "cos_update")
    for index, _, run in _looks(runs):
        shade_null(cosine, run, "cos_update", index, len(runs))
    zero_line(cosine)
    dress(cosine, "cos_update", "step", "cosine (+ is hack-ward)")
    key_below(figure, grid[0, 0])
    figures.save(figure, path)


def hacked(path: Path, arms: Sequence[ArmRuns]) -> None:
    """Hack rate over steps, all arms on one pair of axes: thin each step of each seed, thick the mean."""
    title = "Answers that hack (thin: each step of a seed; thick: 3-step mean over seeds)"
    figure, ((axes,),) = sheet(1, 1, 3.2, title)
    figure.set_figwidth(7.0)
    for index, arm in enumerate(arms):
        look, runs = style(index, size=5), list(arm.runs.values())
        for run in runs:
            rates = gaps(run.column("hack_rate"))
            axes.plot(run.column("step"), rates, color=look["color"], linewidth=0.6, alpha=0.5)
        steps, seeds = by_seed(runs, "hack_rate")
        label = f"{arm.name} ({len(runs)} seed{'s' if len(runs) > 1 else ''})"
        axes.plot(steps, seeds.mean(axis=0), label=label, linewidth=1.8, **look)
    whole_steps(axes)
    axes.set_ylim(bottom=-0.02)
    dress(axes, "", "step", "share of answers that hack")
    key_below(figure, axes)
    figures.save(figure, path)


def _curves_of_runs(axes: Axes, runs: Sequence[Run], key: str) -> None:
    named: set[str] = set()
    for index, name, run in _looks(runs):
        look = style(index)
        steps, values = run.column("step"), run.column(key)
        axes.plot(steps, gaps(values), color=look["color"], linewidth=0.6, alpha=0.5)
        marked = _markers(index, steps)
        label = None if name in named else name
        axes.plot(steps, running_mean(values), label=label, linewidth=1.6, markevery=marked, **look)
        named.add(name)
    whole_steps(axes)


def _looks(runs: Sequence[Run]) -> list[tuple[int, str, Run]]:
    """(colour, name in the key) of each run: its own, or where there are many runs that of its arm."""
    names = [run.label for run in runs]
    if len(runs) > MANY_RUNS:
        names = short_labels(described(runs), without=("seed", "watched"))
    places = {name: place for place, name in enumerate(dict.fromkeys(names))}
    return [(places[name], name, run) for name, run in zip(names, runs, strict=True)]


def _markers(index: int, steps: Sequence[int]) -> tuple[int, int]:
    """Which points of a curve are marked: about twelve, and those of close curves alternate."""
    every = max(1, len(steps) // 12)
    return index % every, every


def curves(path: Path, arms: Sequence[ArmRuns]) -> None:
    """Rates over steps by arm: the 3-step mean over seeds, in the band from lowest to highest seed."""
    title = "Arms over seeds (line: mean over seeds of the 3-step mean; band: lowest to highest seed)"
    if any(len(lengths(arm.runs.values())) > 1 for arm in arms):
        title = title.replace("seed)", "seed;\nthin: seeds that go on where another one ended)")
    figure, grid = sheet(1, len(RATES), 3.2, title)
    for axes, (key, name) in zip(grid.flat, RATES.items(), strict=True):
        for index, arm in enumerate(arms):
            runs = list(arm.runs.values())
            steps, seeds = by_seed(runs, key)
            look, count = style(index, size=5), len(runs)
            thin_ends(axes, runs, key, look["color"])
            if count > 1:
                low, high = seeds.min(axis=0), seeds.max(axis=0)
                axes.fill_between(steps, low, high, color=look["color"], alpha=0.18, linewidth=0)
            label = f"{arm.name} ({count} seed{'s' if count > 1 else ''})"
            marked = _markers(index, steps)
            axes.plot(steps, seeds.mean(axis=0), label=label, linewidth=1.8, markevery=marked, **look)
        whole_steps(axes)
        axes.set_ylim(bottom=-0.02)
        dress(axes, name, "step", "share of rollouts")
    key_below(figure, grid[0, 0])
    figures.save(figure, path)


def times_to_hack(path: Path, arms: Sequence[ArmRuns]) -> None:
    """When each seed breaks out, a row per arm, first arm on top; a seed has the same height in every row.

    Hollow, with an arrow: it had not by its last step.
    """
    title = (
        "Time to hack by arm (dot: a seed, the same seed at the same height; hollow: not by its last step)"
    )
    seeds = sorted({seed for arm in arms for seed in arm.runs})
    reach = 0.28 if len(seeds) > 1 else 0.0
    heights = dict(zip(seeds, np.linspace(reach, -reach, len(seeds)), strict=True))
    figure, ((axes,),) = sheet(1, 1, 0.6 + 0.5 * len(arms), title)
    figure.set_figwidth(8.0)
    for index, arm in enumerate(arms):
        colour = style(index)["color"]
        for seed, mine in lasted(arm).items():
            height = heights[seed] - index
            axes.plot([0, mine.time], [height, height], color=colour, linewidth=0.6, alpha=0.4)
            face, marker = (colour, "o") if mine.ended else ("white", ">")
            axes.plot(mine.time, height, marker, color=colour, markerfacecolor=face, markersize=5)
    axes.set_yticks([-index for index in range(len(arms))], [_row_name(arm) for arm in arms])
    axes.set_ylim(0.5 - len(arms), 0.5)
    axes.set_xlim(left=0)
    whole_steps(axes)
    dress(axes, "", "step", "")
    figures.save(figure, path)


def _row_name(arm: ArmRuns) -> str:
    """On as many lines as leave the axes their room; an arm without a 3-step mean says so."""
    name = arm.name if lasted(arm) else f"{arm.name} (undefined)"
    return textwrap.fill(name, ROW_LETTERS, break_on_hyphens=False)


def frontier(path: Path, arms: Sequence[ArmRuns]) -> None:
    """Hacked against solved, last 5 steps: a small dot per seed, a large one for the arm with its intervals
    over seeds.

    Best: top left.
    """
    title = "Last 5 steps by arm"
    if len(lengths(run for arm in arms for run in arm.runs.values())) > 1:
        title += ", of those that all runs of a seed have"
    figure, ((axes,),) = sheet(1, 1, 4.0, title)
    figure.set_figwidth(6.5)
    for index, arm in enumerate(over_shared_steps(arms)):
        hacked = arm.figures("hack_rate", "last5")
        solved = arm.figures("gt_rate", "last5")
        _hacked_and_solved(axes, index, arm.name, hacked, solved)
    axes.set_xlim(-0.03, max(0.5, axes.get_xlim()[1]))
    axes.set_ylim(0, axes.get_ylim()[1] * 1.1)
    dress(axes, SEEDS_AND_MEANS, "hacked (less is better)", "solved (more is better)")
    key_below(figure, axes)
    figures.save(figure, path)


def _hacked_and_solved(
    axes: Axes,
    index: int,
    name: str,
    hacked: Mapping[int, float | None],
    solved: Mapping[int, float | None],
) -> None:
    """One arm: a dot per seed that has both, and their mean with its intervals over seeds."""
    seeds = in_both(hacked, solved)
    x, y = [hacked[seed] for seed in seeds], [solved[seed] for seed in seeds]
    colour, marker = style(index)["color"], style(index)["marker"]
    axes.scatter(gaps(x), gaps(y), s=14, color=colour, marker=marker, alpha=0.5, linewidths=0)
    across, up = estimate(x), estimate(y)
    if across.mean is None or up.mean is None:
        return
    axes.errorbar(
        across.mean,
        up.mean,
        xerr=bar_of(across),
        yerr=bar_of(up),
        label=f"{name} ({across.n})",
        capsize=3,
        linewidth=1.2,
        linestyle="none",
        markeredgecolor="black",
        markeredgewidth=0.8,
        **style(index, size=8),
    )


def heldout_frontier(path: Path, arms: Sequence[ArmRuns]) -> None:
    """On held-out problems: hacked as the prompt of training asks for it, against solved with the loophole
    closed.

    The base model is one point per arm and seed, all of one look: they lie upon each other.
    """
    figure, ((axes,),) = sheet(1, 1, 4.0, "Held-out problems by arm, last evaluation")
    figure.set_figwidth(6.5)
    base_hacked: list[float | None] = []
    base_solved: list[float | None] = []
    for index, arm in enumerate(arms):
        _hacked_and_solved(axes, index, arm.name, *_heldout_means(arm, "on"))
        hacked, solved = _heldout_means(arm, "off")
        for seed in in_both(hacked, solved):
            base_hacked.append(hacked[seed])
            base_solved.append(solved[seed])
    axes.scatter(gaps(base_hacked), gaps(base_solved), s=60, marker="*", color="black", label="base model")
    axes.set_xlim(-0.03, max(0.5, axes.get_xlim()[1]))
    axes.set_ylim(0, axes.get_ylim()[1] * 1.1)
    dress(axes, SEEDS_AND_MEANS, "hacked, trained name (less is better)", "solved, loophole closed")
    key_below(figure, axes)
    figures.save(figure, path)


def cos_update(path: Path, arms: Sequence[ArmRuns]) -> None:
    """Where the updates really pointed: over steps, and on the whole run, by arm, each with its null."""
    title = (
        "cos_update by arm (+ is hack-ward; shaded or boxed: null, 2.5 to 97.5 % under permuted pair signs)"
    )
    figure, ((left, right),) = sheet(1, 2, 3.4, title)
    figure.set_figwidth(10.5)
    for index, arm in enumerate(arms):
        runs = list(arm.runs.values())
        if not one_direction(runs):
            _note(right, index, "undefined:\nseveral\nv_hacks")
            continue
        steps, seeds = by_seed(list(arm.runs.values()), "cos_update")
        marked = _markers(index, steps)
        left.plot(steps, seeds.mean(axis=0), linewidth=1.6, markevery=marked, **style(index, size=5))
        shade_null(left, runs[0], "cos_update", index, len(arms))
        means = [statistics.mean(run.column("cos_update")) for run in runs]
        _mean_with_null(right, index, means, null_of(runs, "cos_update"))
    right.set_xticks(range(len(arms)), [stacked(arm.name) for arm in arms])
    right.set_xlim(-0.6, len(arms) - 0.4)
    for axes in (left, right):
        zero_line(axes)
        axes.margins(y=0.12)
    whole_steps(left)
    shaded = "3-step mean, over seeds; shaded: null of each step, first seed"
    dress(left, shaded, "step", "cosine with v_hack")
    dress(right, "mean over all steps (dot: a seed, bar: mean over seeds)", "", "")
    figures.save(figure, path)


def _heldout_means(arm: ArmRuns, adapter: str) -> tuple[dict[int, float | None], dict[int, float | None]]:
    """(hacked under the trained name, solved with the loophole closed) on held-out problems, by seed."""
    hacked = heldout_rates(arm, "trained-name", adapter).means("hacked")
    return hacked, heldout_rates(arm, "closed", adapter).means("solved")


def _note(axes: Axes, place: int, words: str) -> None:
    """Small words at the foot of a column."""
    foot = axes.get_xaxis_transform()
    axes.text(place, 0.01, words, ha="center", va="bottom", fontsize=6, style="italic", transform=foot)


def _mean_with_null(axes: Axes, place: int, means: Sequence[float | None], null: Range | None) -> None:
    """One arm's column: a dot per seed, a bar at their mean, the null as a box."""
    look = style(place)
    colour = look["color"]
    if null is None:
        _note(axes, place, "no null\nrecorded")
    else:
        corner, height = (place - 0.32, null[0]), null[1] - null[0]
        axes.add_patch(Rectangle(corner, 0.64, height, facecolor=colour, edgecolor=colour, alpha=0.25))
    aside = np.linspace(-0.2, 0.2, len(means)) if len(means) > 1 else np.zeros(1)
    axes.scatter(place + aside, gaps(means), s=16, color=colour, marker=look["marker"], alpha=0.8)
    found = statistics.mean(means)
    if found is not None:
        axes.hlines(found, place - 0.3, place + 0.3, color="black", linewidth=1.8)


# Of a held-out rate: colour, marker, place beside the arm's tick
RATE_LOOKS = {
    "hacked": (COLOURS[1], "s", -0.22),
    "attempted": (COLOURS[4], "^", 0.0),
    "solved": (COLOURS[0], "o", 0.22),
}


def heldout(path: Path, arms: Sequence[ArmRuns]) -> None:
    """Held-out rates by arm, a panel per condition: filled with the adapter, hollow without it."""
    found = conditions(arms)
    title = "Held-out problems, last evaluation (filled: trained, hollow: base model; bars: 95 %)"
    figure, grid = sheet(len(found), 1, 2.2, title)
    figure.set_figwidth(max(6.5, 1.5 + 0.9 * len(arms)))
    for axes, condition in zip(grid.flat, found, strict=True):
        for place, arm in enumerate(arms):
            _heldout_marks(axes, place, arm, condition)
        axes.set_xticks(range(len(arms)), [stacked(arm.name) for arm in arms])
        axes.set_xlim(-0.5, len(arms) - 0.5)
        axes.set_ylim(-0.06, 1.02)
        dress(axes, condition, "", "share of rollouts")
    key_below(figure, grid[0, 0])
    figures.save(figure, path)


def _heldout_marks(axes: Axes, place: int, arm: ArmRuns, condition: str) -> None:
    for adapter, aside in (("off", -0.05), ("on", 0.05)):
        rates = heldout_figures(arm, condition, adapter)
        for key, (colour, marker, shift) in RATE_LOOKS.items():
            rate = rates.get(key)
            if rate is None or rate.mean is None:
                continue
            axes.errorbar(
                place + shift + aside,
                rate.mean,
                yerr=bar_of(rate),
                fmt=marker,
                color=colour,
                markerfacecolor=colour if adapter == "on" else "white",
                markersize=5,
                capsize=2,
                linewidth=1,
                label=key if adapter == "on" and place == 0 else None,
            )
