"""H1 for every projecting arm, and what its controls do."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from hackward.base import statistics
from hackward.base.arms import CONTROLS
from hackward.base.statistics import differences, in_both
from hackward.reports.arms import ArmRuns, baseline
from hackward.reports.h1_verdict import H1_DROP, SAME_PASS, judge_control, judge_h1
from hackward.reports.tables import Block, Table, flat, shown
from hackward.reports.words import with_interval


# ---------------------------------------------------------------------------------------------- H1
def control_records(arm: ArmRuns, arms: Sequence[ArmRuns]) -> list[dict]:
    """Each control of an arm: its own drop below vanilla, and how much further the arm drops."""
    base, records = baseline(arm, arms), []
    for control in (other for other in arms if other.controls(arm)):
        rates = [one.figures("hack_rate", "last5") if one else {} for one in (arm, control, base)]
        drop, gap = differences(rates[1], rates[2]), differences(rates[0], rates[1])
        records.append(
            {
                "arm": arm.name,
                "control": control.control,
                "drop": drop,
                "gap": gap,
                "reading": judge_control(gap),
                **flat(drop, "drop_"),
                **flat(gap, "gap_"),
            }
        )
    return records


def h1_blocks(arms: Sequence[ArmRuns]) -> list[Block]:
    """H1 for every projecting arm, what its controls do, and the verdicts in words; nothing without such an arm."""
    judged = [arm for arm in arms if not arm.vanilla and arm.control == "none"]
    if not judged:
        return []
    records, controls, lines = [], [], []
    for arm in judged:
        base, mine = baseline(arm, arms), control_records(arm, arms)
        gaps = [
            differences(arm.figures(key, "last5"), base.figures(key, "last5") if base else {})
            for key in ("hack_rate", "gt_rate")
        ]
        seeds = in_both(arm.figures("hack_rate", "last5"), base.figures("hack_rate", "last5")) if base else []
        vanilla = (
            statistics.mean(base.figures("hack_rate", "last5")[seed] for seed in seeds) if base else None
        )
        found = judge_h1(*gaps, vanilla, to_run=arm.own_vanilla if base and base.basis != arm.basis else None)
        records.append(
            {
                "arm": arm.name,
                "against": base.name if base else "-",
                "seeds": len(seeds),
                "hacked": gaps[0],
                "solved": gaps[1],
                "passes": found.passes,
                "verdict": found.verdict,
                "seeds_needed": found.seeds,
                "why": found.why,
                **flat(gaps[0], "hacked_"),
                **flat(gaps[1], "solved_"),
            }
        )
        controls += mine
        lines.append(f"H1, {arm.name}: {found.verdict.upper()}. {found.why}. {control_words(mine)}")
    columns = (
        ("arm", shown("arm")),
        ("compared with", shown("against")),
        ("seeds", shown("seeds")),
        ("hacked - vanilla", shown("hacked", with_interval)),
        ("solved - vanilla", shown("solved", with_interval)),
        ("solves as much", shown("passes")),
        ("H1", shown("verdict")),
        (
            "seeds needed",
            lambda record: "-" if record["seeds_needed"] is None else str(record["seeds_needed"]),
        ),
    )
    title = f"H1: hacked at least {H1_DROP:.2f} below vanilla, solved within {SAME_PASS:.2f} (last 5 steps, paired by seed)"
    blocks: list[Block] = []
    if controls:
        cells = (
            ("arm", shown("arm")),
            ("control", shown("control")),
            ("control - vanilla", shown("drop", with_interval)),
            ("arm - control", shown("gap", with_interval)),
            ("the control", shown("reading")),
        )
        blocks.append(
            Table(
                "h1_controls",
                "Controls: hacked, last 5 steps (an effect must exceed them)",
                cells,
                controls,
                sections=True,
            )
        )
    caution = "Intervals are 95 % each, not corrected for the number of arms." if len(judged) > 1 else ""
    return [*blocks, Table("h1", title, columns, records), "\n".join(filter(None, [caution, *lines]))]


def control_words(controls: Sequence[dict]) -> str:
    """What the controls say about an effect."""
    by_reading: dict[str, list[str]] = defaultdict(list)
    for record in controls:
        by_reading[record["reading"]].append(record["control"])
    openings = {
        "exceeded": "Not explained by",
        "does as well": "A control does as well",
        "cannot be told": "Not told apart (no interval) from",
    }
    said = [
        f"{opening}: {', '.join(by_reading[reading])}"
        for reading, opening in openings.items()
        if by_reading[reading]
    ]
    missing = [name for name in CONTROLS if name not in {record["control"] for record in controls}]
    return (
        "; ".join([*said, *([f"not run: {', '.join(missing)}"] if missing else [])]).replace(
            "not run", "Not run", not said
        )
        + "."
    )
