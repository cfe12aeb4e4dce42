"""The pictures of a report: run records in, PNG files out.

Colours are Okabe and Ito's set, told apart by colour-blind readers; curves also differ by marker. In every picture of a
cosine + is hack-ward and the zero line is drawn; shaded is its null, the 2.5 to 97.5 % range under permuted pair signs, where
one was recorded. What is undefined leaves a gap.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

import store
from across import RATES, conditions, heldout_figures, null_of, one_direction
from verdicts import Estimate, estimate, mean

if TYPE_CHECKING:
    from across import Arm
    from analyze import Run

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
MARKERS = "os^Dv<>P"
# (colour, hatch) of a label: hacks are warm, honest answers cool, so that the eye sums them
LABELS = {
    "pure hack": ("#D55E00", ""),
    "hack and correct": ("#E69F00", "//"),
    "correct": ("#0072B2", ""),
    "neither": ("#BBBBBB", ".."),
    "no label": ("#FFFFFF", "xx"),
}
NAMES = (
    "phase1.png",
    "cosines.png",
    "contributions.png",
    "labels.png",
    "on_policy.png",
    "curves.png",
    "frontier.png",
    "cos_update.png",
    "heldout.png",
)
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
            shade_null(right, run, key, index, 2)
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
                shade_null(axes, run, key, index, len(runs))
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
        right.sharey(left)  # before anything is drawn, so that both scale to both
        strip(left, values_by(run.samples, "cos_S_contrib", bucket, order), colours)
        strip(right, values_by(run.samples, "cos_S_logp", bucket, order), colours)
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
        names = group[0].label + (
            f" and {len(group) - 1} more with the same rollouts" if len(group) > 1 else ""
        )
        reward_dots(left, group[0].samples)
        dress(left, names, "step", "reward")
        label_bars(right, group[0].samples)
        dress(right, "labels", "step", "rollouts")
    save(figure, path)


def reward_dots(axes: Axes, samples: Sequence[dict]) -> None:
    """Area of a dot: how many rollouts of that pool have that reward in that step. Pools stand beside each other."""
    pools = sorted({sample["src_pool"] for sample in samples}, reverse=True)
    for index, pool in enumerate(pools):
        seen = [
            (s["step"], s["reward"]) for s in samples if s["src_pool"] == pool and s["reward"] is not None
        ]
        places = sorted(set(seen))
        sizes = [12 * seen.count(place) for place in places]
        across = [step + (index - (len(pools) - 1) / 2) * 0.3 for step, _ in places]
        heights, colour = [reward for _, reward in places], COLOURS[1 - index % 2]
        axes.scatter(across, heights, s=sizes, alpha=0.7, label=pool, color=colour)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.margins(y=0.15)
    legend = axes.legend(
        fontsize=7, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=len(pools)
    )
    for handle in legend.legend_handles:
        handle.set_sizes([25])


def label_bars(axes: Axes, samples: Sequence[dict]) -> None:
    steps = sorted({sample["step"] for sample in samples})
    floor = np.zeros(len(steps))
    for name, (colour, hatch) in LABELS.items():
        counts = np.array([sum(s["step"] == step and s["label"] == name for s in samples) for step in steps])
        if counts.any():
            axes.bar(
                steps,
                counts,
                bottom=floor,
                color=colour,
                hatch=hatch,
                edgecolor="white",
                label=name,
                width=0.9,
            )
        floor += counts
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=7, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=4)


def running_mean(values: Sequence[float | None]) -> np.ndarray:
    """Trailing mean over ROLLING steps; a window that is short or holds a gap stays a gap."""
    heights = gaps(values)
    windows = [
        heights[end - ROLLING + 1 : end + 1] if end >= ROLLING - 1 else [np.nan]
        for end in range(len(heights))
    ]
    return np.array([np.mean(window) for window in windows])


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
    save(figure, path)


def curves(path: Path, arms: Sequence[Arm]) -> None:
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
    save(figure, path)


def bar_of(found: Estimate) -> np.ndarray | None:
    """(2, 1) lengths of a rate's error bar below and above the mean, ending at 0 and 1; None without an interval."""
    if found.low is None or found.high is None:
        return None
    low, high = max(0.0, found.low), min(1.0, found.high)
    return np.array([[max(0.0, found.mean - low)], [max(0.0, high - found.mean)]])


def frontier(path: Path, arms: Sequence[Arm]) -> None:
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
    save(figure, path)


def cos_update(path: Path, arms: Sequence[Arm]) -> None:
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
        means = [mean(run.column("cos_update")) for run in runs]
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
    save(figure, path)


def stacked(name: str) -> str:
    """An arm's name, a word a line: long names under an axis do not run into each other."""
    return name.replace(" ", "\n")


def heldout(path: Path, arms: Sequence[Arm]) -> None:
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
    save(figure, path)


def save(figure: Figure, path: Path) -> None:
    with store.atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130)


def draw_all(directory: Path, runs: Sequence[Run], arms: Sequence[Arm]) -> list[str]:
    """Every picture that the runs give rise to (`arms`: the on-policy ones by arm); returns the names written."""
    of_kind = {kind: [run for run in runs if run.kind == kind] for kind in ("phase1", "replay", "sampled")}
    several = (
        arms if any(len(arm.runs) > 1 for arm in arms) else []
    )  # one seed an arm: on_policy.png shows it all
    wanted = {
        "phase1.png": (phase1, of_kind["phase1"]),
        "cosines.png": (cosines, of_kind["replay"]),
        "contributions.png": (contributions, of_kind["replay"]),
        "labels.png": (labels, of_kind["replay"]),
        "on_policy.png": (on_policy, of_kind["sampled"]),
        "curves.png": (curves, several),
        "frontier.png": (frontier, several),
        "cos_update.png": (cos_update, several),
        "heldout.png": (heldout, [arm for arm in arms if any(run.heldout for run in arm.runs.values())]),
    }
    drawn = {name: chosen for name, (_, chosen) in wanted.items() if chosen}
    for name, chosen in drawn.items():
        wanted[name][0](directory / name, chosen)
    return list(drawn)
