"""The curves of the page: a small picture per rate, in a light and a dark version."""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hackward.reports import figures
from hackward.reports.arms import RATES, by_arm
from hackward.reports.runs import Run, lengths

INK = "#1f2328"
# What cannot be seen on a dark ground, and what stands in its place there
ON_DARK = {INK: "#e6e8eb", "#000000": "#ffffff", "#0072b2": "#4aa3df"}
WORDS = {"o": "●", "s": "■", "^": "▲", "D": "◆", "v": "▼", "<": "◀", ">": "▶", "P": "✚"}


@dataclass(frozen=True)
class Panel:
    """A picture: what it shows, in words too, and its SVG by theme."""

    title: str
    words: str
    svg: dict[str, str]


@dataclass(frozen=True)
class Key:
    """A line of the key: colour by theme, marker, name."""

    colour: dict[str, str]
    marker: str
    name: str


def rate_panels(runs: Sequence[Run]) -> tuple[list[Panel], list[Key]]:
    """Rates by step of on-policy runs, a panel each, and their key; nothing without such runs."""
    groups = curve_groups(runs)
    if not groups:
        return [], []
    panels = []
    for key, name in RATES.items():
        light = _svg(groups.values(), key)
        svg = {"light": light, "dark": on_dark(light)}
        panels.append(Panel(name, _in_words(name, groups, key), svg))
    return panels, [_key(index, label) for index, label in enumerate(groups)]


def curve_groups(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Name of a curve -> its runs: an arm with its seeds; each run where some are unfinished."""
    sampled = [run for run in runs if run.kind == "sampled"]
    if not all(run.complete for run in sampled):
        return {run.label: [run] for run in sampled}
    groups = {}
    for arm in by_arm(sampled):
        count = len(arm.runs)
        groups[f"{arm.name} ({count} seed{'s' if count > 1 else ''})"] = list(arm.runs.values())
    return groups


def on_dark(colours: str) -> str:
    """A text with colours, those of ON_DARK replaced."""
    for light, dark in ON_DARK.items():
        colours = colours.replace(light, dark)
    return colours


def _key(index: int, label: str) -> Key:
    look = figures.style(index)
    colour = look["color"].lower()
    return Key({"light": colour, "dark": on_dark(colour)}, WORDS[look["marker"]], label)


def _in_words(name: str, groups: Mapping[str, Sequence[Run]], key: str) -> str:
    """The last value of every curve, for those who do not see it."""
    ends = []
    for label, runs in groups.items():
        last = figures.gaps(run.rows[-1][key] for run in runs)
        known = last[np.isfinite(last)]
        ends.append(f"{label} {known.mean():.2f}" if known.size else f"{label} undefined")
    alike = len(lengths(run for runs in groups.values() for run in runs)) == 1
    whose = "the last step" if alike else "the last step of each run"
    return f"Share of rollouts {name} by step. At {whose}: {', '.join(ends)}."


def _curve(axes: Axes, index: int, runs: Sequence[Run], key: str) -> None:
    """The mean over seeds, in the band from lowest to highest, as far as all go; then those that go on."""
    steps, seeds = figures.by_seed(runs, key)
    look = figures.style(index, size=4)
    marked = max(1, len(steps) // 8)
    start = index % marked
    if len(seeds) > 1:
        low, high = seeds.min(axis=0), seeds.max(axis=0)
        axes.fill_between(steps, low, high, color=look["color"], alpha=0.2, linewidth=0)
    axes.plot(steps, seeds.mean(axis=0), linewidth=1.8, markevery=(start, marked), **look)
    figures.thin_ends(axes, runs, key, look["color"])


def _svg(groups: Collection[Sequence[Run]], key: str) -> str:
    """A small SVG on no ground, with its text as text: a curve per group of runs."""
    settings: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": "hackward",
        "font.family": "sans-serif",
        "text.color": INK,
        "axes.edgecolor": INK,
        "axes.labelcolor": INK,
        "xtick.color": INK,
        "ytick.color": INK,
    }
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(3.8, 2.3), layout="constrained")
        axes = figure.subplots()
        for index, runs in enumerate(groups):
            _curve(axes, index, runs, key)
        figures.whole_steps(axes)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=4))
        axes.set_ylim(-0.02, max(0.2, axes.get_ylim()[1]))
        figures.dress(axes, "", "step", "")
        axes.patch.set_alpha(0)
        stream = io.BytesIO()
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    return stream.getvalue().decode("utf-8")
