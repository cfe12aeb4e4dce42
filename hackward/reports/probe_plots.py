"""Pictures of Phases 1 and 2."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from hackward.base.statistics import COSINES
from hackward.reports import figures
from hackward.reports.figures import COLOURS, dress, over_steps, shade_null, sheet, whole_steps, zero_line
from hackward.reports.runs import Run

# (colour, hatch) of a label: hacks are warm, honest answers cool, so that the eye sums them
LABELS = {
    "pure hack": ("#D55E00", ""),
    "hack and correct": ("#E69F00", "//"),
    "correct": ("#0072B2", ""),
    "neither": ("#BBBBBB", ".."),
    "no label": ("#FFFFFF", "xx"),
}
HACKED = {True: "hacked", False: "not hacked", None: "no label"}
SAME_ROLLOUTS = ("step", "src_pool", "src_step", "src_sample")
Sample = dict[str, Any]


def strip(axes: Axes, buckets: dict[str, list[float]], colours: Sequence[str]) -> None:
    """All values of each bucket, its mean as a bar; jitter is fixed so that equal data gives equal files."""
    jitter = np.random.default_rng(0)
    for place, (values, colour) in enumerate(zip(buckets.values(), colours, strict=True)):
        if values:
            across = place + jitter.uniform(-0.22, 0.22, len(values))
            axes.scatter(across, values, s=9, color=colour, alpha=0.45, linewidths=0)
            axes.hlines(np.mean(values), place - 0.32, place + 0.32, color="black", linewidth=2)
        else:
            axes.text(place, 0, "undefined", ha="center", va="bottom", fontsize=7, style="italic")
    axes.set_xticks(range(len(buckets)), [f"{name}\nn {len(values)}" for name, values in buckets.items()])
    axes.set_xlim(-0.6, len(buckets) - 0.4)
    zero_line(axes)


def values_by(
    samples: Sequence[Sample], key: str, name: Callable[[Sample], str], order: Sequence[str]
) -> dict[str, list[float]]:
    """The defined values of a key by the name of their bucket, in this order; others are left out."""
    buckets: dict[str, list[float]] = {bucket: [] for bucket in order}
    for sample in samples:
        if sample[key] is not None and name(sample) in buckets:
            buckets[name(sample)].append(sample[key])
    return buckets


def phase1(path: Path, runs: Sequence[Run]) -> None:
    """Cosine of each sample's NLL gradient by label, and the aggregate before and after projection."""
    figure, grid = sheet(len(runs), 2, 2.9, "Phase 1: cosine of NLL gradients with v_hack (+ is hack-ward)")
    order = [name for name in LABELS if name != "no label"]
    for (left, right), run in zip(grid, runs, strict=True):
        buckets = values_by(run.samples, "cos_S_logp", lambda sample: sample["label"], order)
        strip(left, buckets, [LABELS[name][0] for name in order])
        dress(left, f"{run.label}: one dot a sample, bar: mean", "", "cos_S_logp")
        for index, key in enumerate(("cos_in", "cos_out")):
            over_steps(right, run.column("step"), run.column(key), key, index)
            shade_null(right, run, key, index, 2)
        zero_line(right)
        dress(right, "whole gradient, before and after the edit", "step", "cosine")
        right.legend(fontsize=7, frameon=False)
    figures.save(figure, path)


def cosines(path: Path, runs: Sequence[Run]) -> None:
    """cos_in, cos_out and cos_update over steps: a row per direction, a curve per run."""
    settings = list(dict.fromkeys(run.setting for run in runs))
    title = "Cosine with v_hack by arm (+ is hack-ward; cos_update: the step really made)"
    figure, grid = sheet(len(settings), 3, 2.7, title)
    for row, setting in zip(grid, settings, strict=True):
        group = [run for run in runs if run.setting == setting]
        for axes, key in zip(row, COSINES, strict=True):
            for index, run in enumerate(group):
                over_steps(axes, run.column("step"), run.column(key), run.label, index)
                shade_null(axes, run, key, index, len(runs))
            axes.sharey(row[0])
            zero_line(axes)
            dress(axes, key, "step", f"cosine with {setting[1]}" if axes is row[0] else "")
        row[-1].legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1.02, 0.5))
    figures.save(figure, path)


def pool_and_label(sample: Sample) -> str:
    return f"{sample['src_pool']}\n{HACKED[sample['hacked']]}"


def contributions(path: Path, runs: Sequence[Run]) -> None:
    """Per-sample cosines by (pool, hacked), with and without the advantage: a row per run."""
    title = "Per-sample cosine with v_hack by pool and label (+ is hack-ward; bar: mean)"
    figure, grid = sheet(len(runs), 2, 2.5, title)
    for (left, right), run in zip(grid, runs, strict=True):
        order = sorted({pool_and_label(sample) for sample in run.samples}, reverse=True)
        colours = ["#0072B2" if "not hacked" in name else "#D55E00" for name in order]
        right.sharey(left)  # before anything is drawn, so that both scale to both
        strip(left, values_by(run.samples, "cos_S_contrib", pool_and_label, order), colours)
        strip(right, values_by(run.samples, "cos_S_logp", pool_and_label, order), colours)
        dress(left, run.label, "", "cos_S_contrib\n(with the advantage)")
        dress(right, run.label, "", "cos_S_logp\n(before the advantage)")
    figures.save(figure, path)


def labels(path: Path, runs: Sequence[Run]) -> None:
    """Rewards and label counts of the replayed rollouts; runs that replay the same rollouts share a row."""
    same: dict[tuple, list[Run]] = {}
    for run in runs:
        replayed = tuple(tuple(sample[key] for key in SAME_ROLLOUTS) for sample in run.samples)
        same.setdefault(replayed, []).append(run)
    figure, grid = sheet(len(same), 2, 2.9, "Replayed rollouts: rewards and labels per step")
    for (left, right), group in zip(grid, same.values(), strict=True):
        first, *more = group
        names = f"{first.label} and {len(more)} more with the same rollouts" if more else first.label
        reward_dots(left, first.samples)
        dress(left, names, "step", "reward")
        label_bars(right, first.samples)
        dress(right, "labels", "step", "rollouts")
    figures.save(figure, path)


def reward_dots(axes: Axes, samples: Sequence[Sample]) -> None:
    """Area of a dot: how many rollouts of that pool have that reward in that step.

    Pools stand beside each other.
    """
    pools = sorted({sample["src_pool"] for sample in samples}, reverse=True)
    handles = []
    for index, pool in enumerate(pools):
        rewarded = [s for s in samples if s["src_pool"] == pool and s["reward"] is not None]
        seen = Counter((s["step"], s["reward"]) for s in rewarded)
        aside, colour = (index - (len(pools) - 1) / 2) * 0.3, COLOURS[1 - index % 2]
        across, heights = [step + aside for step, _ in seen], [reward for _, reward in seen]
        sizes = [12 * count for count in seen.values()]
        axes.scatter(across, heights, s=sizes, alpha=0.7, color=colour)
        handles.append(axes.scatter([], [], s=25, alpha=0.7, color=colour, label=pool))
    whole_steps(axes)
    axes.margins(y=0.15)
    _key_under(axes, len(pools), handles)


def label_bars(axes: Axes, samples: Sequence[Sample]) -> None:
    """Rollouts of each label, stacked, per step."""
    counts = Counter((sample["label"], sample["step"]) for sample in samples)
    steps = sorted({sample["step"] for sample in samples})
    floor = np.zeros(len(steps))
    for name, (colour, hatch) in LABELS.items():
        heights = np.array([counts[name, step] for step in steps])
        if heights.any():
            look: dict[str, Any] = {"color": colour, "hatch": hatch, "edgecolor": "white"}
            axes.bar(steps, heights, bottom=floor, label=name, width=0.9, **look)
        floor += heights
    whole_steps(axes)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    handles, _ = axes.get_legend_handles_labels()
    if handles:
        _key_under(axes, 4, handles)


def _key_under(axes: Axes, columns: int, handles: Sequence[Any]) -> None:
    corner = (0.5, -0.2)
    axes.legend(
        handles=handles, fontsize=7, frameon=False, loc="upper center", bbox_to_anchor=corner, ncols=columns
    )
