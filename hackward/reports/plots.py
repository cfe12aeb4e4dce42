"""Which pictures a set of runs gives rise to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hackward.reports import arm_plots, probe_plots
from hackward.reports.arm_plots import cos_update, curves, frontier, on_policy
from hackward.reports.arms import ArmRuns
from hackward.reports.probe_plots import contributions, cosines
from hackward.reports.runs import Run

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


def draw_all(directory: Path, runs: Sequence[Run], arms: Sequence[ArmRuns]) -> list[str]:
    """Every picture that the runs give rise to (`arms`: the on-policy ones by arm); returns the names written."""
    of_kind = {kind: [run for run in runs if run.kind == kind] for kind in ("phase1", "replay", "sampled")}
    several = (
        arms if any(len(arm.runs) > 1 for arm in arms) else []
    )  # one seed an arm: on_policy.png shows it all
    wanted = {
        "phase1.png": (probe_plots.phase1, of_kind["phase1"]),
        "cosines.png": (cosines, of_kind["replay"]),
        "contributions.png": (contributions, of_kind["replay"]),
        "labels.png": (probe_plots.labels, of_kind["replay"]),
        "on_policy.png": (on_policy, of_kind["sampled"]),
        "curves.png": (curves, several),
        "frontier.png": (frontier, several),
        "cos_update.png": (cos_update, several),
        "heldout.png": (
            arm_plots.heldout,
            [arm for arm in arms if any(run.heldout for run in arm.runs.values())],
        ),
    }
    drawn = {name: chosen for name, (_, chosen) in wanted.items() if chosen}
    for name, chosen in drawn.items():
        wanted[name][0](directory / name, chosen)
    return list(drawn)
