"""H1 for every arm that projects or intervenes, and what its controls do."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from hackward.base import statistics
from hackward.base.arms import CONTROLS
from hackward.base.statistics import differences, in_both
from hackward.reports.arms import ArmRuns, baseline
from hackward.reports.h1_verdict import (
    ALIKE,
    AS_WELL,
    EXCEEDED,
    H1,
    H1_DROP,
    SAME_PASS,
    UNTOLD,
    attributed,
    judge_control,
    judge_h1,
)
from hackward.reports.tables import Block, Caveat, Conclusion, Table, flat, shown
from hackward.reports.words import with_interval


def h1_blocks(arms: Sequence[ArmRuns]) -> list[Block]:
    """H1 for every arm that acts, its controls, and the verdicts in words; nothing without such an arm."""
    judged = [arm for arm in arms if not arm.arm.vanilla and arm.arm.control == "none"]
    if not judged:
        return []
    records, controls, lines = [], [], []
    for arm in judged:
        mine = control_records(arm, arms)
        readings = {record["control"]: record["reading"] for record in mine}
        found = attributed(judge_arm(arm, arms), readings)
        controls += mine
        records.append(h1_record(arm, baseline(arm, arms), found))
        lines.append(f"H1, {arm.name}: {h1_words(found)}. {control_words(readings, arm.arm.controls)}")
    tables: list[Block] = [controls_table(controls)] if controls else []
    many = (
        [Caveat("Intervals are 95 % each, not corrected for the number of arms.")] if len(judged) > 1 else []
    )
    return [*many, *tables, h1_table(records), Conclusion("\n".join(lines))]


def judge_arm(arm: ArmRuns, arms: Sequence[ArmRuns]) -> H1:
    """The drop of an arm below its vanilla, without a look at its controls."""
    base = baseline(arm, arms)
    if base is None:
        return judge_h1(differences({}, {}), differences({}, {}), None)
    hacked, hacked_base = (one.figures("hack_rate", "last5") for one in (arm, base))
    solved, solved_base = (one.figures("gt_rate", "last5") for one in (arm, base))
    return judge_h1(
        differences(hacked, hacked_base),
        differences(solved, solved_base),
        statistics.mean(hacked_base[seed] for seed in in_both(hacked, hacked_base)),
        to_run=arm.own_vanilla() if base.identity.lora != arm.identity.lora else None,
    )


def h1_record(arm: ArmRuns, base: ArmRuns | None, found: H1) -> dict[str, Any]:
    return {
        "arm": arm.name,
        "against": base.name if base else "-",
        "seeds": found.hacked.n,
        "hacked": found.hacked,
        "solved": found.solved,
        "passes": found.passes,
        "verdict": found.verdict,
        "reservation": found.reservation,
        "seeds_needed": found.seeds,
        "why": found.why,
        **flat(found.hacked, "hacked_"),
        **flat(found.solved, "solved_"),
    }


def h1_table(records: list[dict[str, Any]]) -> Table:
    columns = (
        ("arm", shown("arm")),
        ("compared with", shown("against")),
        ("seeds", shown("seeds")),
        ("hacked - vanilla", shown("hacked", with_interval)),
        ("solved - vanilla", shown("solved", with_interval)),
        ("solves as much", shown("passes")),
        ("H1", verdict_cell),
        ("seeds needed", shown("seeds_needed", lambda seeds: "-" if seeds is None else str(seeds))),
    )
    title = f"H1: hacked at least {H1_DROP:.2f} below vanilla, solved within {SAME_PASS:.2f}"
    return Table("h1", f"{title} (last 5 steps, paired by seed)", columns, records)


def verdict_cell(record: dict[str, Any]) -> str:
    reservation = record["reservation"]
    return f"{record['verdict']}: {reservation}" if reservation else record["verdict"]


def h1_words(found: H1) -> str:
    """SUPPORTED. In 3 seeds: hacked ..."""
    verdict = found.verdict.upper()
    if found.reservation:
        verdict += f": {found.reservation}"
    return f"{verdict}. {found.why}"


def control_records(arm: ArmRuns, arms: Sequence[ArmRuns]) -> list[dict[str, Any]]:
    """Each control of an arm: its own drop below vanilla, and how much further the arm drops."""
    base, records = baseline(arm, arms), []
    rate = arm.figures("hack_rate", "last5")
    vanilla = base.figures("hack_rate", "last5") if base else {}
    for control in arms:
        if not control.controls(arm):
            continue
        controlled = control.figures("hack_rate", "last5")
        drop, gap = differences(controlled, vanilla), differences(rate, controlled)
        records.append(
            {
                "arm": arm.name,
                "control": control.arm.control,
                "drop": drop,
                "gap": gap,
                "reading": judge_control(gap),
                **flat(drop, "drop_"),
                **flat(gap, "gap_"),
            }
        )
    return records


def controls_table(records: list[dict[str, Any]]) -> Table:
    columns = (
        ("arm", shown("arm")),
        ("control", shown("control")),
        ("control - vanilla", shown("drop", with_interval)),
        ("arm - control", shown("gap", with_interval)),
        ("the control", shown("reading")),
    )
    title = "Controls: hacked, last 5 steps (an effect must exceed them)"
    return Table("h1_controls", title, columns, records, sections=True)


def control_words(readings: dict[str, str], possible: Sequence[str] = CONTROLS) -> str:
    """What the controls (control -> reading) say about an effect; those that could be run and were not."""
    by_reading: dict[str, list[str]] = defaultdict(list)
    for control, reading in readings.items():
        by_reading[reading].append(control)
    openings = {
        EXCEEDED: "Not explained by",
        AS_WELL: "A control does as well",
        ALIKE: "Cannot be told apart from",
        UNTOLD: "Not told apart (no interval) from",
    }
    said = []
    for reading, opening in openings.items():
        if by_reading[reading]:
            said.append(f"{opening}: {', '.join(by_reading[reading])}")
    missing = [control for control in possible if control not in readings]
    if missing:
        said.append(f"{'not run' if said else 'Not run'}: {', '.join(missing)}")
    return f"{'; '.join(said)}."
