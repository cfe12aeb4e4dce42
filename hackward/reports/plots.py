"""Which pictures a set of runs gives rise to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hackward.reports import arm_plots, panel_plots, probe_plots
from hackward.reports.arms import ArmRuns
from hackward.reports.monitor_figures import by_watcher
from hackward.reports.runs import Run

# name -> (how it is drawn, of what: runs of a kind, or arms)
PICTURES: dict[str, tuple[Callable[[Path, Any], None], str]] = {
    "phase1.png": (probe_plots.phase1, "phase1"),
    "cosines.png": (probe_plots.cosines, "replay"),
    "contributions.png": (probe_plots.contributions, "replay"),
    "labels.png": (probe_plots.labels, "replay"),
    "hacked.png": (arm_plots.hacked, "a few arms"),
    "on_policy.png": (arm_plots.on_policy, "sampled"),
    "curves.png": (arm_plots.curves, "several seeds"),
    "times_to_hack.png": (arm_plots.times_to_hack, "several seeds"),
    "hacked_by_arm.png": (panel_plots.hacked_by_arm, "several arms"),
    "frontier.png": (arm_plots.frontier, "several seeds"),
    "cos_update.png": (arm_plots.cos_update, "several seeds"),
    "heldout.png": (arm_plots.heldout, "evaluated"),
    "heldout_frontier.png": (arm_plots.heldout_frontier, "evaluated"),
    "monitor_auc.png": (panel_plots.monitor_auc, "watched"),
    "monitor_flags.png": (panel_plots.monitor_flags, "watched"),
}
FEW_ARMS = 4  # whose curves can be told apart on one pair of axes
NAMES = tuple(PICTURES)


def draw_all(directory: Path, runs: Sequence[Run], arms: Sequence[ArmRuns]) -> list[str]:
    """Draw what the runs give rise to (`arms`: the on-policy ones by arm); returns the names written."""
    shown: dict[str, Sequence[Any]] = {
        kind: [run for run in runs if run.kind == kind] for kind in ("phase1", "replay", "sampled")
    }
    # One seed per arm: on_policy.png shows it all
    shown["several seeds"] = arms if any(len(arm.runs) > 1 for arm in arms) else []
    shown["several arms"] = arms if len(arms) > 1 else []
    shown["a few arms"] = arms if 1 < len(arms) <= FEW_ARMS else []
    shown["watched"] = by_watcher(runs)
    shown["evaluated"] = [arm for arm in arms if any(run.heldout for run in arm.runs.values())]
    drawn = []
    for name, (draw, of_what) in PICTURES.items():
        if shown[of_what]:
            draw(directory / name, shown[of_what])
            drawn.append(name)
    return drawn
