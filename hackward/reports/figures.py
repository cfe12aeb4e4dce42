"""What all pictures share: colours, axes, nulls, error bars."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hackward.base.files import atomic
from hackward.base.statistics import Estimate
from hackward.reports.runs import Run

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
MARKERS = "os^Dv<>P"
ROLLING = 3  # steps of the running mean, the window of time-to-hack


def gaps(values: Sequence[float | None]) -> np.ndarray:
    """None becomes NaN, which matplotlib leaves out of a line."""
    return np.array([np.nan if value is None else value for value in values], dtype=float)


def style(index: int) -> dict:
    """Colour and marker of a curve: after one round of colours the markers have moved on, so that no two look alike."""
    return {
        "color": COLOURS[index % len(COLOURS)],
        "marker": MARKERS[(index + index // len(COLOURS)) % len(MARKERS)],
        "markersize": 3.5,
    }


def sheet(rows: int, columns: int, height: float, title: str) -> tuple[Figure, np.ndarray]:
    figure = Figure(figsize=(4.2 * columns, height * rows + 0.9), layout="constrained")
    figure.suptitle(title, fontsize=10)
    return figure, figure.subplots(rows, columns, squeeze=False)


def dress(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title, fontsize=9)
    axes.set_xlabel(x, fontsize=8)
    axes.set_ylabel(y, fontsize=8)
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)


def zero_line(axes: Axes) -> None:
    axes.axhline(0, color="black", linewidth=0.8, linestyle=":")


def over_steps(
    axes: Axes, steps: Sequence[int], values: Sequence[float | None], label: str, index: int
) -> None:
    """One curve; a run without a single defined value is named as such in the key instead of vanishing."""
    heights = gaps(values)
    named = label if np.isfinite(heights).any() else f"{label} (undefined)"
    axes.plot(steps, heights, label=named, linewidth=1.3, **style(index))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def shade_null(axes: Axes, run: Run, key: str, index: int, others: int) -> None:
    """A cosine's null on each step, in the run's colour; nothing for runs that recorded none. Fainter, the more lie upon each other."""
    bands = run.column(f"{key}_null")
    low, high = (gaps([band and band[end] for band in bands]) for end in (0, 1))
    if np.isfinite(low).any():
        axes.fill_between(
            run.column("step"),
            low,
            high,
            color=style(index)["color"],
            alpha=min(0.15, 0.6 / others),
            linewidth=0,
        )


def key_below(figure: Figure, axes: Axes) -> None:
    """The key under the figure, in as many columns as fit its width: about 0.065 inches a letter, 0.5 a line sample."""
    handles, labels = axes.get_legend_handles_labels()
    fitting = int(figure.get_figwidth() / (0.5 + 0.065 * max(map(len, labels), default=1)))
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=max(1, min(len(labels), 4, fitting)),
        fontsize=7,
        frameon=False,
    )


def running_mean(values: Sequence[float | None]) -> np.ndarray:
    """Trailing mean over ROLLING steps; a window that is short or holds a gap stays a gap."""
    heights = gaps(values)
    windows = [
        heights[end - ROLLING + 1 : end + 1] if end >= ROLLING - 1 else [np.nan]
        for end in range(len(heights))
    ]
    return np.array([np.mean(window) for window in windows])


def bar_of(found: Estimate) -> np.ndarray | None:
    """(2, 1) lengths of a rate's error bar below and above the mean, ending at 0 and 1; None without an interval."""
    if found.low is None or found.high is None:
        return None
    low, high = max(0.0, found.low), min(1.0, found.high)
    return np.array([[max(0.0, found.mean - low)], [max(0.0, high - found.mean)]])


def stacked(name: str) -> str:
    """An arm's name, a word a line: long names under an axis do not run into each other."""
    return name.replace(" ", "\n")


def save(figure: Figure, path: Path) -> None:
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130)
