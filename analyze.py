"""Read finished run directories, judge them by the rules of the method, write a report.

    python analyze.py out/probe_distill        # prints the tables and writes out/probe_distill/report/

Three kinds of run: ``phase1`` (NLL probe on one pool), ``replay`` (Phase 2, mixed-replay GRPO) and ``sampled``
(on-policy). What the figures mean is decided in verdicts.py; this file reads run directories, lays out the tables and
writes the report. A number that does not exist is None and is printed as "undefined" with the reason, never as NaN.
How to read the output: spec/reading.md.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from hackward.base.faults import exit_on_fault
from hackward.base.files import atomic
from hackward.base.flags import command_line
from hackward.base.statistics import defined
from hackward.reports.arm_tables import sampled_blocks
from hackward.reports.arms import by_arm
from hackward.reports.plots import NAMES, draw_all
from hackward.reports.probe import phase1_blocks, replay_blocks
from hackward.reports.probe_verdicts import ABOUT_ZERO, MOST_STEPS
from hackward.reports.runs import Run, checked, find_runs
from hackward.reports.tables import INDENT, Block, Heading, Table, markdown, print_blocks, shown, write_csv
from hackward.reports.words import p_value, plain

# ---------------------------------------------------------------------------------------------- tables
LEGEND = f"""\
Cosines are with v_hack. + is hack-ward: descending such a gradient makes hacks likelier. 0 is orthogonal, - is away.
cos_in / cos_out: gradient before / after the edit. cos_update_in / cos_update: the optimizer's proposed / real change.
cos_S_logp: one sample, before the advantage. cos_S_contrib: with it, so its sign can be the advantage's alone.
Success: vanilla cos_in > 0; projected cos_out < cos_in and cos_update <= 0; teacher hacks positive, base not.
Null: the 2.5 to 97.5 % range of the same mean when the signs of v_hack's pairs are permuted (by problem).
"about 0": |mean| < {ABOUT_ZERO:g}, or the interval includes 0. "most", "consistently": {MOST_STEPS:.0%} of steps.
Intervals: 95 %, t, over problems where the table says so, else over steps (correlated, so too narrow)."""


def runs_table(runs: Sequence[Run]) -> Table:
    records = [
        {
            "run": run.label,
            "path": str(run.path),
            "kind": run.kind,
            "arm": run.arm,
            "control": run.control,
            "project_at": run.config.get("project_at") or "-",
            "seed": run.config.get("seed", "-"),
            "steps": len(run.rows),
            "model": run.model,
            "v_hack": run.direction,
            "commit": str(run.record.get("commit") or "-")[:8] + ("+" if run.record.get("dirty") else ""),
        }
        for run in runs
    ]
    keys = ("run", "kind", "arm", "control", "seed", "steps", "v_hack", "commit", "path")
    return Table("runs", "Runs", tuple((key, shown(key)) for key in keys), records)


def cost_table(runs: Sequence[Run]) -> Table:
    """Where time and memory went. What the three phases leave of a step is editing, the optimizer, and choosing rows."""
    keys = {
        "step": "seconds",
        "sampling": "seconds_generate",
        "grading": "seconds_grade",
        "backward": "seconds_backward",
        "gap": "logp_gap",
    }
    records = []
    for run in runs:
        found = {name: defined(row.get(key) for row in run.rows) for name, key in keys.items()}
        medians = {name: float(np.median(values)) if values else None for name, values in found.items()}
        peak = max(defined(row.get("peak_memory_gb") for row in run.rows), default=None)
        phases = ", ".join(f"{name} {size:.1f}" for name, size in run.memory.items())
        records.append(
            {"run": run.label, "steps": len(run.rows), **medians, "peak_gb": peak, "phases": phases}
        )
    dash = lambda form: lambda value: "-" if value is None else form(value)  # noqa: E731
    times = ((f"s {name}", shown(name, dash(plain))) for name in ("step", "sampling", "grading", "backward"))
    columns = (
        ("run", shown("run")),
        ("steps", shown("steps")),
        *times,
        ("peak GB", shown("peak_gb", dash(plain))),
        ("by phase", shown("phases", lambda text: text or "-")),
        ("log p gap", shown("gap", dash(lambda gap: f"{gap:.1e}"))),
    )
    title = "Time (medians over steps; grading: what is waited for), memory, and drawn against trained log p"
    return Table("cost", title, columns, records)


def direction_blocks(runs: Sequence[Run]) -> list[Block]:
    """What each v_hack is worth on pairs that it was not made from, beside its permutation null; nothing where no file says so."""
    directions = {run.direction: run.record["v_hack"] for run in runs if run.record["v_hack"]}
    quality = {
        name: (found, found["heldout"])
        for name, found in directions.items()
        if isinstance(found.get("heldout"), dict)
    }
    records = []
    for name, (found, heldout) in quality.items():
        record = {
            "v_hack": name,
            "objective": str(found.get("objective") or "-"),
            "pairs": heldout.get("pairs"),
        }
        for key in ("right_sign", "auc"):
            part = heldout.get(key) if isinstance(heldout.get(key), dict) else {}
            low, high = part.get("null") or (None, None)
            record |= checked(
                {key: part.get("value"), f"{key}_p": part.get("p"), f"{key}_low": low, f"{key}_high": high},
                f"v_hack {name}",
                (key, f"{key}_p", f"{key}_low", f"{key}_high"),
            )
        records.append(record)

    def null_cell(key: str) -> Callable[[dict], str]:
        return lambda record: f"{plain(record[f'{key}_low'])} to {plain(record[f'{key}_high'])}"

    columns = [(key, shown(key)) for key in ("v_hack", "objective", "pairs")]
    for key, title in (("right_sign", "right sign"), ("auc", "AUC")):
        columns += [
            (title, shown(key, lambda value: plain(value, 3))),
            ("its null", null_cell(key)),
            ("p", shown(f"{key}_p", p_value)),
        ]
    return (
        [
            Table(
                "directions",
                "v_hack on pairs it was not made from (null: hack and clean swapped at random)",
                tuple(columns),
                records,
            )
        ]
        if records
        else []
    )


def build_blocks(
    runs: Sequence[Run], left_out: Sequence[str], window: tuple[int, int] | None = None
) -> list[Block]:
    blocks: list[Block] = [Heading("How to read this"), LEGEND, runs_table(runs), *direction_blocks(runs)]
    for warning in sorted({str(run.record["warning"]) for run in runs if run.record.get("warning")}):
        named = ", ".join(run.label for run in runs if run.record.get("warning") == warning)
        blocks.append(f"WARNING {named}: {warning}")
    if left_out:
        blocks.append("Left out:\n" + "\n".join(INDENT + line for line in left_out))
    makers = {
        "phase1": phase1_blocks,
        "replay": replay_blocks,
        "sampled": partial(sampled_blocks, window=window),
    }
    for kind, make in makers.items():
        chosen = [run for run in runs if run.kind == kind]
        blocks += make(chosen) if chosen else []
    return [*blocks, Heading("What it cost"), cost_table(runs)]


# ---------------------------------------------------------------------------------------------- files
def write_report(directory: Path, blocks: Sequence[Block], runs: Sequence[Run]) -> None:
    """Pictures, one csv a table, report.md last; what an earlier report left under our names is removed."""
    tables: dict[str, list[dict]] = defaultdict(list)
    for block in blocks:
        if isinstance(block, Table):
            tables[block.name] += block.records
    for name, records in tables.items():
        write_csv(directory / f"{name}.csv", records)
    pictures = draw_all(directory, runs, by_arm(runs))
    ours = {f"{name}.csv" for name in TABLE_NAMES} | set(NAMES)
    for name in ours - set(pictures) - {f"{name}.csv" for name in tables}:
        (directory / name).unlink(missing_ok=True)
    with atomic(directory / "report.md") as temporary:
        temporary.write_text(markdown(blocks, pictures), encoding="utf-8")


TABLE_NAMES = [
    "runs",
    "cost",
    "directions",
    "phase1_buckets",
    "phase1_tests",
    "phase2_verification",
    "phase2_advantages",
    "phase2_pools",
    "phase3_decision",
    "on_policy",
    "on_policy_cosines",
    "on_policy_window",
    "on_policy_window_cosines",
    "arms",
    "arms_cosines",
    "arms_more",
    "heldout",
    "h1_controls",
    "h1",
]


@dataclass(frozen=True)
class AnalyzeFlags:
    """Print the tables of all finished runs below DIR, with verdicts, and write DIR/report/."""

    directory: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(name="", metavar="DIR")]
    """Folder with run directories at any depth, e.g. out/probe_distill. Unfinished runs are named and left out."""
    unfinished: bool = False
    """Take runs in that have steps but no summary.json, marked as such: a look at what is still running, or was cut off."""
    window: tuple[int, int] | None = None
    """FIRST LAST: also the means of the on-policy runs over these steps, the same for all."""


def main(config: AnalyzeFlags) -> None:
    runs, left_out = find_runs(config.directory, config.unfinished)
    blocks = build_blocks(runs, left_out, config.window)
    write_report(config.directory / "report", blocks, runs)
    print_blocks(blocks)
    print(f"report: {config.directory / 'report' / 'report.md'}")


if __name__ == "__main__":
    exit_on_fault(lambda: main(command_line(AnalyzeFlags, prog="analyze.py")))
