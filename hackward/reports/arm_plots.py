"""Pictures of on-policy runs and arms."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from hackward.base import statistics
from hackward.base.statistics import estimate
from hackward.reports import figures
from hackward.reports.arms import RATES, ArmRuns, null_of, one_direction
from hackward.reports.figures import (
    COLOURS,
    bar_of,
    dress,
    gaps,
    key_below,
    running_mean,
    shade_null,
    sheet,
    stacked,
    style,
    zero_line,
)
from hackward.reports.heldout import conditions, heldout_figures
from hackward.reports.runs import Run


def on_policy(path: Path, runs: Sequence[Run]) -> None:
    """Rates over steps (thin: each step, thick: 3-step mean) and the cosine of the updates made: a curve a run."""
    figure, grid = sheet(
        2, 2, 2.6, "On-policy runs (thin: each step, thick: 3-step mean; one curve is one seed)"
    )
    names = RATES | {"cos_update": "cos_update"}
    for axes, (key, name) in zip(grid.flat, names.items(), strict=True):
        for index, run in enumerate(runs):
            look = style(index)
            steps, values = run.column("step"), run.column(key)
            axes.plot(steps, gaps(values), color=look["color"], linewidth=0.6, alpha=0.5)
            axes.plot(steps, running_mean(values), label=run.label, linewidth=1.6, **look)
            if key == "cos_update":
                shade_null(axes, run, key, index, len(runs))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if key == "cos_update":
            zero_line(axes)
        else:
            axes.set_ylim(bottom=-0.02)
        dress(axes, name, "step", "cosine (+ is hack-ward)" if key == "cos_update" else "share of rollouts")
    key_below(figure, grid[0, 0])
    figures.save(figure, path)


def curves(path: Path, arms: Sequence[ArmRuns]) -> None:
    """Rates over steps by arm: the 3-step mean averaged over seeds, and the band from the lowest to the highest seed."""
    figure, grid = sheet(
        1, 3, 3.2, "Arms over seeds (line: mean over seeds of the 3-step mean; band: lowest to highest seed)"
    )
    for axes, (key, name) in zip(grid.flat, RATES.items(), strict=True):
        for index, arm in enumerate(arms):
            runs = list(arm.runs.values())
            shortest = min(len(run.rows) for run in runs)
            seeds = np.array([running_mean(run.column(key)[:shortest]) for run in runs])
            steps, every = runs[0].column("step")[:shortest], max(1, shortest // 12)
            if len(runs) > 1:
                axes.fill_between(
                    steps,
                    seeds.min(axis=0),
                    seeds.max(axis=0),
                    color=style(index)["color"],
                    alpha=0.18,
                    linewidth=0,
                )
            axes.plot(
                steps,
                seeds.mean(axis=0),
                label=f"{arm.name} ({len(runs)} seed{'s' * (len(runs) > 1)})",
                linewidth=1.8,
                markevery=(index % every, every),
                **style(index) | {"markersize": 5},
            )  # markers of close curves alternate
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylim(bottom=-0.02)
        dress(axes, name, "step", "share of rollouts")
    key_below(figure, grid[0, 0])
    figures.save(figure, path)


def frontier(path: Path, arms: Sequence[ArmRuns]) -> None:
    """Hacked against solved, last 5 steps: a small dot a seed, a large one the arm with its intervals over seeds. Best: top left."""
    figure, ((axes,),) = sheet(1, 1, 4.0, "Last 5 steps by arm")
    figure.set_figwidth(6.5)
    for index, arm in enumerate(arms):
        hacked, solved = arm.figures("hack_rate", "last5"), arm.figures("gt_rate", "last5")
        across, up, look = estimate(hacked.values()), estimate(solved.values()), style(index)
        axes.scatter(
            gaps(hacked.values()),
            gaps(solved.values()),
            s=14,
            color=look["color"],
            marker=look["marker"],
            alpha=0.5,
            linewidths=0,
        )
        if across.mean is not None and up.mean is not None:
            axes.errorbar(
                across.mean,
                up.mean,
                xerr=bar_of(across),
                yerr=bar_of(up),
                label=f"{arm.name} ({across.n})",
                capsize=3,
                linewidth=1.2,
                linestyle="none",
                markeredgecolor="black",
                markeredgewidth=0.8,
                **look | {"markersize": 8},
            )
    axes.set_xlim(-0.03, max(0.5, axes.get_xlim()[1]))
    axes.set_ylim(0, axes.get_ylim()[1] * 1.1)
    dress(
        axes,
        "small: one seed; large: mean, bars 95 % over seeds (in brackets: seeds)",
        "hacked (less is better)",
        "solved (more is better)",
    )
    key_below(figure, axes)
    figures.save(figure, path)


def cos_update(path: Path, arms: Sequence[ArmRuns]) -> None:
    """Where the updates really pointed: over steps, and on the whole run, by arm, each with its null."""
    figure, (left_right,) = sheet(
        1,
        2,
        3.4,
        "cos_update by arm (+ is hack-ward; shaded or boxed: null, 2.5 to 97.5 % under permuted pair signs)",
    )
    figure.set_figwidth(10.5)
    left, right = left_right
    for index, arm in enumerate(arms):
        runs, colour = list(arm.runs.values()), style(index)["color"]
        note = partial(
            right.text,
            index,
            0.01,
            ha="center",
            va="bottom",
            fontsize=6,
            style="italic",
            transform=right.get_xaxis_transform(),
        )
        if not one_direction(runs):
            note("undefined:\nseveral\nv_hacks")
            continue
        shortest = min(len(run.rows) for run in runs)
        steps, every = runs[0].column("step")[:shortest], max(1, shortest // 12)
        mean_curve = np.mean([running_mean(run.column("cos_update")[:shortest]) for run in runs], axis=0)
        left.plot(
            steps,
            mean_curve,
            linewidth=1.6,
            markevery=(index % every, every),
            **style(index) | {"markersize": 5},
        )
        shade_null(left, runs[0], "cos_update", index, len(arms))
        means = [statistics.mean(run.column("cos_update")) for run in runs]
        null = null_of(runs, "cos_update")
        if null is not None:
            right.add_patch(
                Rectangle(
                    (index - 0.32, null[0]),
                    0.64,
                    null[1] - null[0],
                    facecolor=colour,
                    edgecolor=colour,
                    alpha=0.25,
                )
            )
        else:
            note("no null\nrecorded")
        right.scatter(
            index + np.linspace(-0.2, 0.2, len(means)) * (len(means) > 1),
            gaps(means),
            s=16,
            color=colour,
            marker=style(index)["marker"],
            alpha=0.8,
        )
        found = estimate(means)
        if found.mean is not None:
            right.hlines(found.mean, index - 0.3, index + 0.3, color="black", linewidth=1.8)
    right.set_xticks(range(len(arms)), [stacked(arm.name) for arm in arms])
    right.set_xlim(-0.6, len(arms) - 0.4)
    for axes in (left, right):
        zero_line(axes)
        axes.margins(y=0.12)
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    dress(
        left, "3-step mean, over seeds; shaded: null of each step, first seed", "step", "cosine with v_hack"
    )
    dress(right, "mean over all steps (dot: a seed, bar: mean over seeds)", "", "")
    figures.save(figure, path)


def heldout(path: Path, arms: Sequence[ArmRuns]) -> None:
    """Held-out rates by arm, a panel a condition: filled with the adapter, hollow without (the base model)."""
    found = conditions(arms)
    figure, grid = sheet(
        len(found),
        1,
        2.2,
        "Held-out problems, last evaluation (filled: trained, hollow: base model; bars: 95 %)",
    )
    figure.set_figwidth(max(6.5, 1.5 + 0.9 * len(arms)))
    looks = {"hacked": (COLOURS[1], "s"), "attempted": (COLOURS[4], "^"), "solved": (COLOURS[0], "o")}
    for axes, condition in zip(grid.flat, found, strict=True):
        for (key, (colour, marker)), shift in zip(looks.items(), (-0.22, 0.0, 0.22), strict=True):
            for adapter, face in (("off", "white"), ("on", colour)):
                for place, arm in enumerate(arms):
                    rate = heldout_figures(arm, condition, adapter).get(key)
                    if rate is not None and rate.mean is not None:
                        axes.errorbar(
                            place + shift + (-0.05 if adapter == "off" else 0.05),
                            rate.mean,
                            yerr=bar_of(rate),
                            fmt=marker,
                            color=colour,
                            markerfacecolor=face,
                            markersize=5,
                            capsize=2,
                            linewidth=1,
                            label=key if adapter == "on" and place == 0 else None,
                        )
        axes.set_xticks(range(len(arms)), [stacked(arm.name) for arm in arms])
        axes.set_xlim(-0.5, len(arms) - 0.5)
        axes.set_ylim(-0.06, 1.02)
        dress(axes, condition, "", "share of rollouts")
    key_below(figure, grid[0, 0])
    figures.save(figure, path)
