"""Tables about runs of every kind: what there is, what each v_hack is worth, what it cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from hackward.base.statistics import defined
from hackward.reports.runs import Run
from hackward.reports.tables import Block, Column, Record, Table, dashed, shown
from hackward.reports.words import p_value, plain


def runs_table(runs: Sequence[Run]) -> Table:
    records = []
    for run in runs:
        commit = run.record["commit"] or "-"
        records.append(
            {
                "run": run.label,
                "path": str(run.path),
                "kind": run.kind,
                "arm": run.arm.flag,
                "control": run.arm.control,
                "project_at": run.config["project_at"],
                "seed": run.seed,
                "steps": len(run.rows),
                "model": run.model,
                "v_hack": run.direction,
                "commit": commit[:8] + ("+" if run.record["dirty"] else ""),
            }
        )
    keys = ("run", "kind", "arm", "control", "seed", "steps", "v_hack", "commit", "path")
    return Table("runs", "Runs", tuple((key, shown(key)) for key in keys), records)


TIMES = {
    "step": "seconds",
    "sampling": "seconds_generate",
    "grading": "seconds_grade",
    "monitor": "seconds_monitor",
    "backward": "seconds_backward",
}


def cost_table(runs: Sequence[Run]) -> Table:
    """Where time and memory went.

    What the phases leave of a step is editing, the optimizer, and choosing rows. A monitor that reads
    gradients does the backward's work: what is left of the backward is a weighted sum.
    """
    records: list[Record] = []
    for run in runs:
        record: Record = {"run": run.label, "steps": len(run.rows)}
        for name, key in [*TIMES.items(), ("gap", "logp_gap")]:
            values = defined(row.get(key) for row in run.rows)
            record[name] = float(np.median(values)) if values else None
        record["peak_gb"] = max(defined(run.column("peak_memory_gb")), default=None)
        record["phases"] = ", ".join(f"{name} {size:.1f}" for name, size in (run.memory or {}).items())
        records.append(record)
    seen = [name for name in TIMES if any(record[name] for record in records)]
    columns = (
        ("run", shown("run")),
        ("steps", shown("steps")),
        *((f"s {name}", shown(name, dashed(plain))) for name in seen),
        ("peak GB", shown("peak_gb", dashed(plain))),
        ("GB by phase", shown("phases", lambda text: text or "-")),
        ("log p gap", shown("gap", dashed(lambda gap: f"{gap:.1e}"))),
    )
    title = "Time (medians over steps; grading: what is waited for), memory, and drawn against trained log p"
    return Table("cost", title, columns, records)


QUALITY = {"right_sign": "right sign", "auc": "AUC"}


def direction_blocks(runs: Sequence[Run]) -> list[Block]:
    """What each v_hack is worth on pairs that it was not made from, beside its permutation null.

    Nothing where no file says so.
    """
    directions = {run.direction: run.record["v_hack"] for run in runs if run.record["v_hack"]}
    records: list[Record] = []
    for name, found in directions.items():
        quality = found.get("heldout")
        if not quality:
            continue
        record: Record = {"v_hack": name, "objective": found["objective"], "pairs": quality["pairs"]}
        for key in QUALITY:
            part = quality[key]
            low, high = part["null"]
            record |= {key: part["value"], f"{key}_p": part["p"], f"{key}_low": low, f"{key}_high": high}
        records.append(record)
    if not records:
        return []
    columns: list[Column] = [(key, shown(key)) for key in ("v_hack", "objective", "pairs")]
    for key, title in QUALITY.items():
        columns.append((title, shown(key, lambda value: plain(value, 3))))
        columns.append(("its null", _range_cell(key)))
        columns.append(("p", shown(f"{key}_p", p_value)))
    title = "v_hack on pairs it was not made from (null: hack and clean swapped at random)"
    return [Table("directions", title, tuple(columns), records)]


def _range_cell(key: str) -> Callable[[Record], str]:
    return lambda record: f"{plain(record[f'{key}_low'])} to {plain(record[f'{key}_high'])}"
