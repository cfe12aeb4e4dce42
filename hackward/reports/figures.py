"""What all pictures share: colours, axes, nulls, error bars."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hackward.base.files import atomic
from hackward.base.statistics import Estimate
from hackward.reports.runs import Run

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
MARKERS = "os^Dv<>P"
KEY_LINE = 0.16  # inches
KEY_LINES = 3  # for which every figure has room
ROLLING = 3  # steps of the running mean, the window of time-to-hack


def gaps(values: Iterable[float | None]) -> np.ndarray:
    """None becomes NaN, which matplotlib leaves out of a line."""
    return np.array([np.nan if value is None else value for value in values], dtype=float)


def style(index: int, size: float = 3.5) -> dict[str, Any]:
    """Colour and marker of a curve: after a round of colours markers have moved on, so no two look alike."""
    return {
        "color": COLOURS[index % len(COLOURS)],
        "marker": MARKERS[(index + index // len(COLOURS)) % len(MARKERS)],
        "markersize": size,
    }


def sheet(rows: int, columns: int, height: float, title: str) -> tuple[Figure, np.ndarray]:
    """A figure and its (rows, columns) axes; ``height`` of a row in inches."""
    figure = Figure(figsize=(4.2 * columns, height * rows + 0.9), layout="constrained")
    figure.suptitle(title, fontsize=10)
    return figure, figure.subplots(rows, columns, squeeze=False)


def panels(count: int, height: float, title: str) -> tuple[Figure, list[Axes]]:
    """A figure with a panel each, at most four in a row, on common axes; what is left over is empty."""
    columns = min(count, 4)
    figure, grid = sheet(-(-count // columns), columns, height, title)
    figure.set_figwidth(max(6.5, 3.2 * columns))
    shown, rest = list(grid.flat)[:count], list(grid.flat)[count:]
    for axes in rest:
        axes.set_axis_off()
    for axes in shown[1:]:
        axes.sharex(shown[0])
        axes.sharey(shown[0])
    return figure, shown


def dress(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title, fontsize=9)
    axes.set_xlabel(x, fontsize=8)
    axes.set_ylabel(y, fontsize=8)
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)


def zero_line(axes: Axes) -> None:
    axes.axhline(0, color="black", linewidth=0.8, linestyle=":")


def whole_steps(axes: Axes) -> None:
    """Ticks at whole numbers of steps only."""
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def over_steps(
    axes: Axes, steps: Sequence[int], values: Sequence[float | None], label: str, index: int
) -> None:
    """One curve; a run without a single defined value is named as such in the key instead of vanishing."""
    heights = gaps(values)
    named = label if np.isfinite(heights).any() else f"{label} (undefined)"
    axes.plot(steps, heights, label=named, linewidth=1.3, **style(index))
    whole_steps(axes)


def shade_null(axes: Axes, run: Run, key: str, index: int, others: int) -> None:
    """A cosine's null on each step, in the run's colour; fainter, the more lie upon each other.

    Nothing for runs that recorded none.
    """
    bands = run.column(f"{key}_null")
    low = gaps(band[0] if band else None for band in bands)
    high = gaps(band[1] if band else None for band in bands)
    if np.isfinite(low).any():
        alpha = min(0.15, 0.6 / others)
        axes.fill_between(
            run.column("step"), low, high, color=style(index)["color"], alpha=alpha, linewidth=0
        )


def key_below(figure: Figure, axes: Axes) -> None:
    """The key under the figure, in as many columns as fit: 0.065 inches per letter, 0.5 per line sample.

    A long key makes the figure higher and takes nothing from its axes.
    """
    handles, labels = axes.get_legend_handles_labels()
    widest = 0.5 + 0.065 * max(map(len, labels), default=1)
    fitting = int(figure.get_figwidth() / widest)
    columns = max(1, min(len(labels), 4, fitting))
    lines = -(-len(labels) // columns)
    figure.set_figheight(figure.get_figheight() + KEY_LINE * max(0, lines - KEY_LINES))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, fontsize=7, frameon=False)


def running_mean(values: Sequence[float | None]) -> np.ndarray:
    """Trailing mean over ROLLING steps; a window that is short or holds a gap stays a gap."""
    heights = gaps(values)
    means = np.full(len(heights), np.nan)
    for end in range(ROLLING, len(heights) + 1):
        means[end - 1] = np.mean(heights[end - ROLLING : end])
    return means


def by_seed(runs: Sequence[Run], key: str) -> tuple[list[int], np.ndarray]:
    """(steps, (seeds, steps) running means), as far as the shortest run goes."""
    shortest = min(len(run.rows) for run in runs)
    means = np.array([running_mean(run.column(key)[:shortest]) for run in runs])
    return runs[0].column("step")[:shortest], means


def own_ends(runs: Sequence[Run], key: str) -> list[tuple[list[int], np.ndarray]]:
    """(steps, running means) of each run that goes on where `by_seed` ends, from there to its own end."""
    shortest = min(len(run.rows) for run in runs)
    ends = []
    for run in runs:
        if len(run.rows) > shortest:
            steps, means = run.column("step"), running_mean(run.column(key))
            ends.append((steps[shortest - 1 :], means[shortest - 1 :]))
    return ends


def thin_ends(axes: Axes, runs: Sequence[Run], key: str, colour: str) -> None:
    """A thin line for each of `own_ends`: a mean beyond that step would be one of the runs that are left."""
    for steps, means in own_ends(runs, key):
        axes.plot(steps, means, color=colour, linewidth=0.6, alpha=0.7)


def bar_of(found: Estimate) -> np.ndarray | None:
    """(2, 1) lengths of a rate's error bar below and above it, within 0 and 1; None without interval."""
    if found.mean is None or found.interval is None:
        return None
    low, high = found.interval
    below, above = found.mean - max(0.0, low), min(1.0, high) - found.mean
    return np.array([[max(0.0, below)], [max(0.0, above)]])


def stacked(name: str) -> str:
    """An arm's name, a word a line: long names under an axis do not run into each other."""
    return name.replace(" ", "\n")


def save(figure: Figure, path: Path) -> None:
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130)
