"""The pictures of a report: run records in, PNG files out.

Colours are Okabe and Ito's set, told apart by colour-blind readers; curves also differ by marker. In every picture of a
cosine + is hack-ward and the zero line is drawn. What is undefined leaves a gap.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

import store

if TYPE_CHECKING:
    from analyze import Arm, Run

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "os^Dv<>"
# (colour, hatch) of a label: hacks are warm, honest answers cool, so that the eye sums them
LABELS = {
    "pure hack": ("#D55E00", ""),
    "hack and correct": ("#E69F00", "//"),
    "correct": ("#0072B2", ""),
    "neither": ("#BBBBBB", ".."),
    "no label": ("#FFFFFF", "xx"),
}
NAMES = ("phase1.png", "cosines.png", "contributions.png", "labels.png", "on_policy.png", "arms.png")
RATES = {"hack_rate": "hacked", "gt_rate": "solved", "attempt_rate": "attempted"}
ROLLING = 3  # steps of the running mean, the window of time-to-hack


def gaps(values: Sequence[float | None]) -> np.ndarray:
    """None becomes NaN, which matplotlib leaves out of a line."""
    return np.array([np.nan if value is None else value for value in values], dtype=float)


def style(index: int) -> dict:
    return {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)], "markersize": 3.5}


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


def over_steps(axes: Axes, steps: Sequence[int], values: Sequence[float | None], label: str, index: int) -> None:
    """One curve; a run without a single defined value is named as such in the key instead of vanishing."""
    heights = gaps(values)
    named = label if np.isfinite(heights).any() else f"{label} (undefined)"
    axes.plot(steps, heights, label=named, linewidth=1.3, **style(index))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def key_below(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 4), fontsize=7, frameon=False)


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


def values_by(samples: Sequence[dict], key: str, name: Callable[[dict], str], order: Sequence[str]) -> dict:
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
        zero_line(right)
        dress(right, "whole gradient, before and after the edit", "step", "cosine")
        right.legend(fontsize=7, frameon=False)
    save(figure, path)


def cosines(path: Path, runs: Sequence[Run]) -> None:
    """cos_in, cos_out and cos_update over steps: a row a direction, a curve a run."""
    settings = list(dict.fromkeys(run.setting for run in runs))
    title = "Cosine with v_hack by arm (+ is hack-ward; cos_update: the step really made)"
    figure, grid = sheet(len(settings), 3, 2.7, title)
    for row, setting in zip(grid, settings, strict=True):
        for axes, key in zip(row, ("cos_in", "cos_out", "cos_update"), strict=True):
            for index, run in enumerate(run for run in runs if run.setting == setting):
                over_steps(axes, run.column("step"), run.column(key), run.label, index)
            axes.sharey(row[0])
            zero_line(axes)
            dress(axes, key, "step", f"cosine with {setting[1]}" if axes is row[0] else "")
        row[-1].legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1.02, 0.5))
    save(figure, path)


def contributions(path: Path, runs: Sequence[Run]) -> None:
    """Per-sample cosines by (pool, hacked), with and without the advantage: a row a run."""
    title = "Per-sample cosine with v_hack by pool and label (+ is hack-ward; bar: mean)"
    figure, grid = sheet(len(runs), 2, 2.5, title)

    def bucket(sample: dict) -> str:
        return f"{sample['src_pool']}\n{ {True: 'hacked', False: 'not hacked', None: 'no label'}[sample['hacked']] }"

    for (left, right), run in zip(grid, runs, strict=True):
        order = sorted({bucket(sample) for sample in run.samples}, reverse=True)
        colours = ["#0072B2" if "not hacked" in name else "#D55E00" for name in order]
        strip(left, values_by(run.samples, "cos_S_contrib", bucket, order), colours)
        strip(right, values_by(run.samples, "cos_S_logp", bucket, order), colours)
        right.sharey(left)
        dress(left, run.label, "", "cos_S_contrib\n(with the advantage)")
        dress(right, run.label, "", "cos_S_logp\n(before the advantage)")
    save(figure, path)


def labels(path: Path, runs: Sequence[Run]) -> None:
    """Rewards and label counts of the replayed rollouts; runs that replay the same rollouts share a row."""
    same: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        source = ("step", "src_pool", "src_step", "src_sample")
        replayed = tuple(str([sample[key] for key in source]) for sample in run.samples)
        same.setdefault(replayed, []).append(run)
    figure, grid = sheet(len(same), 2, 2.9, "Replayed rollouts: rewards and labels a step")
    for (left, right), group in zip(grid, same.values(), strict=True):
        names = group[0].label + (f" and {len(group) - 1} more with the same rollouts" if len(group) > 1 else "")
        reward_dots(left, group[0].samples)
        dress(left, names, "step", "reward")
        label_bars(right, group[0].samples)
        dress(right, "labels", "step", "rollouts")
    save(figure, path)


def reward_dots(axes: Axes, samples: Sequence[dict]) -> None:
    """Area of a dot: how many rollouts of that pool have that reward in that step. Pools stand beside each other."""
    pools = sorted({sample["src_pool"] for sample in samples}, reverse=True)
    for index, pool in enumerate(pools):
        seen = [(s["step"], s["reward"]) for s in samples if s["src_pool"] == pool and s["reward"] is not None]
        places = sorted(set(seen))
        sizes = [12 * seen.count(place) for place in places]
        across = [step + (index - (len(pools) - 1) / 2) * 0.3 for step, _ in places]
        heights, colour = [reward for _, reward in places], COLOURS[1 - index % 2]
        axes.scatter(across, heights, s=sizes, alpha=0.7, label=pool, color=colour)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.margins(y=0.15)
    legend = axes.legend(fontsize=7, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=len(pools))
    for handle in legend.legend_handles:
        handle.set_sizes([25])


def label_bars(axes: Axes, samples: Sequence[dict]) -> None:
    steps = sorted({sample["step"] for sample in samples})
    floor = np.zeros(len(steps))
    for name, (colour, hatch) in LABELS.items():
        counts = np.array([sum(s["step"] == step and s["label"] == name for s in samples) for step in steps])
        if counts.any():
            axes.bar(steps, counts, bottom=floor, color=colour, hatch=hatch, edgecolor="white", label=name, width=0.9)
        floor += counts
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=7, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=4)


def running_mean(values: Sequence[float | None]) -> np.ndarray:
    """Trailing mean over ROLLING steps; a window that is short or holds a gap stays a gap."""
    heights = gaps(values)
    windows = [heights[end - ROLLING + 1 : end + 1] if end >= ROLLING - 1 else [np.nan] for end in range(len(heights))]
    return np.array([np.mean(window) for window in windows])


def on_policy(path: Path, runs: Sequence[Run]) -> None:
    """Rates over steps (thin: each step, thick: 3-step mean) and the cosine of the updates made: a curve a run."""
    figure, grid = sheet(2, 2, 2.6, "On-policy runs (thin: each step, thick: 3-step mean; one curve is one seed)")
    names = RATES | {"cos_update": "cos_update"}
    for axes, (key, name) in zip(grid.flat, names.items(), strict=True):
        for index, run in enumerate(runs):
            look = style(index)
            steps, values = run.column("step"), run.column(key)
            axes.plot(steps, gaps(values), color=look["color"], linewidth=0.6, alpha=0.5)
            axes.plot(steps, running_mean(values), label=run.label, linewidth=1.6, **look)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if key == "cos_update":
            zero_line(axes)
        else:
            axes.set_ylim(bottom=-0.02)
        dress(axes, name, "step", "cosine (+ is hack-ward)" if key == "cos_update" else "share of rollouts")
    key_below(figure, grid[0, 0])
    save(figure, path)


def over_seeds(path: Path, arms: Sequence[Arm]) -> None:
    """Rates over steps by arm: thin, the 3-step mean of each seed; thick, their mean."""
    figure, grid = sheet(1, 3, 3.0, "Arms over seeds (thin: 3-step mean of one seed, thick: mean over seeds)")
    for axes, (key, name) in zip(grid.flat, RATES.items(), strict=True):
        for index, arm in enumerate(arms):
            look = style(index)
            curves = [running_mean(run.column(key)) for run in arm.runs.values()]
            for heights in curves:
                axes.plot(range(len(heights)), heights, color=look["color"], linewidth=0.5, alpha=0.5)
            shortest = min(map(len, curves))
            axes.plot(range(shortest), np.mean([heights[:shortest] for heights in curves], axis=0), label=f"{arm.name} ({len(arm.runs)} seeds)", linewidth=1.8, **look)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylim(bottom=-0.02)
        dress(axes, name, "step", "share of rollouts")
    key_below(figure, grid[0, 0])
    save(figure, path)


def save(figure: Figure, path: Path) -> None:
    with store.atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130)


def draw_all(directory: Path, runs: Sequence[Run], arms: Sequence[Arm]) -> list[str]:
    """Every picture that the runs give rise to (`arms`: the on-policy ones by arm); returns the names written."""
    of_kind = {kind: [run for run in runs if run.kind == kind] for kind in ("phase1", "replay", "sampled")}
    wanted = {
        "phase1.png": (phase1, of_kind["phase1"]),
        "cosines.png": (cosines, of_kind["replay"]),
        "contributions.png": (contributions, of_kind["replay"]),
        "labels.png": (labels, of_kind["replay"]),
        "on_policy.png": (on_policy, of_kind["sampled"]),
        "arms.png": (over_seeds, arms if any(len(arm.runs) > 1 for arm in arms) else []),
    }
    drawn = {name: chosen for name, (_, chosen) in wanted.items() if chosen}
    for name, chosen in drawn.items():
        wanted[name][0](directory / name, chosen)
    return list(drawn)
