"""On-policy runs and arms: tables of rates, cosines and times to hack."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from hackward.base import statistics
from hackward.base.statistics import COSINES, Estimate, defined, differences, estimate, in_both, paired
from hackward.reports.arms import (
    PARTS,
    RATES,
    ArmRuns,
    baseline,
    by_arm,
    doubles,
    null_of,
    one_direction,
    onset,
)
from hackward.reports.h1 import h1_blocks
from hackward.reports.h1_verdict import SAME_PASS, match_pass
from hackward.reports.heldout import heldout_table
from hackward.reports.onset import EDGE, HACK_ONSET, ONSET_WINDOW, curve, median_onset
from hackward.reports.runs import Run
from hackward.reports.tables import Block, Heading, Table, cosine_columns, flat, flat_null, shown
from hackward.reports.words import UNDEFINED, plain, signed, tight, tight_gap


def cosine_table(
    groups: dict[str, Sequence[Run]], name: str, title: str, first: float = 0, last: float = math.inf
) -> Table:
    """Mean cosines over steps (and runs) of each group of runs, with the null of each mean; undefined where a group has several v_hacks."""
    records = []
    for label, runs in groups.items():
        record: dict[str, Any] = {"run": label, "runs": len(runs)}
        for key in COSINES:
            values = (row[key] for run in runs for row in run.rows if first <= row["step"] <= last)
            record |= {key: statistics.mean(values) if one_direction(runs) else None} | flat_null(
                null_of(runs, key, first, last), key
            )
        records.append(record)
    mixed = [label for label, runs in groups.items() if not one_direction(runs)]
    title += f" (undefined for {', '.join(mixed)}: measured with several v_hacks)" if mixed else ""
    if all(record[f"{key}_null_low"] is None for record in records for key in COSINES):
        return Table(
            name,
            f"{title} (no null recorded)",
            (("run", shown("run")), *((key, shown(key, signed)) for key in COSINES)),
            records,
        )
    return Table(
        name, f"{title}, and their nulls", (("run", shown("run")), *cosine_columns(COSINES)), records
    )


def window_tables(runs: Sequence[Run], first: int, last: int) -> list[Table]:
    """Means over the same steps of every run, for runs of different length and for comparison with other reports."""
    keys = ("hack_rate", "gt_rate", "attempt_rate", "cos_in", "cos_out", "cos_update_in", "cos_update")
    records = []
    for run in runs:
        rows = [row for row in run.rows if first <= row["step"] <= last]
        records.append(
            {"run": run.label, "seed": run.config["seed"], "steps": len(rows)}
            | {key: statistics.mean(row[key] for row in rows) for key in keys}
        )
    columns = [(key, shown(key)) for key in ("run", "seed", "steps")]
    columns += [
        (name, shown(key, lambda value: plain(value, 3)))
        for name, key in zip(("hacked", "solved", "attempted"), keys)
    ]
    title = f"eans over steps {first} to {last}"
    return [
        Table("on_policy_window", f"M{title}", tuple(columns), records),
        cosine_table(
            {run.label: [run] for run in runs}, "on_policy_window_cosines", f"Cosines: m{title}", first, last
        ),
    ]


def sampled_table(runs: Sequence[Run]) -> Table:
    records = []
    for run in runs:
        record = {"run": run.label, "seed": run.config["seed"], "steps": len(run.rows)}
        for key in ("hack_rate", "gt_rate", "attempt_rate"):
            names = (f"{key}_first5", f"{key}_last5", f"{key}_area")
            record |= dict(zip(names, curve(run.column(key)), strict=True))
        record["time_to_hack"] = onset(run)
        record |= {key: statistics.mean(run.column(key)) for key in ("cos_in", "cos_update")}
        records.append(record)

    def three(key: str) -> Callable[[dict], str]:
        """Three rates in eleven characters: .08 .52 .30"""
        parts = [f"{key}_{part}" for part in PARTS]
        return lambda record: " ".join(plain(record[part]).removeprefix("0") for part in parts)

    columns = (
        *((key, shown(key)) for key in ("run", "seed", "steps")),
        ("hacked*", three("hack_rate")),
        ("solved*", three("gt_rate")),
        ("attempted*", three("attempt_rate")),
        (
            "time to hack",
            lambda record: UNDEFINED if record["time_to_hack"] is None else str(record["time_to_hack"]),
        ),
    )
    title = "On-policy runs (* first 5, last 5, mean over all steps = area under the curve)"
    return Table("on_policy", title, columns, records)


def arms_table(arms: Sequence[ArmRuns]) -> Table:
    """An arm and rate a row, over seeds: first 5 and last 5 steps, area; and what vanilla with the same seed had, subtracted.

    Vanilla is the arm with the same settings in all but the edit (`baseline`); where there is none, there is no difference.
    """
    records = []
    for arm in arms:
        base = baseline(arm, arms)
        for key, rate in RATES.items():
            record: dict[str, Any] = {
                "arm": arm.name,
                "against": base.name if base else None,
                "rate": rate,
                "seeds": len(arm.runs),
            }
            for part in PARTS:
                found = estimate(arm.figures(key, part).values())
                record |= {part: found} | flat(found, f"{part}_")
                if part != "first5":
                    gap = paired(arm.figures(key, part), base.figures(key, part) if base else {})
                    record |= {f"{part}_gap": gap} | flat(gap, f"{part}_gap_")
            records.append(record)

    def gap_cell(key: str) -> Callable[[dict], str]:
        def cell(record: dict) -> str:
            gap = record[key]
            return tight_gap(
                Estimate(
                    gap.n_first,
                    gap.difference,
                    low=gap.low,
                    high=gap.high,
                    why=(gap.why or "").removeprefix("in both: "),
                ),
                record["seeds"],
            )

        return cell

    columns = (
        ("arm", shown("arm")),
        ("rate", shown("rate")),
        ("seeds", shown("seeds")),
        *((name, shown(part, tight)) for name, part in zip(("first 5", "last 5", "area"), PARTS)),
        ("last 5 - vanilla", gap_cell("last5_gap")),
        ("area - vanilla", gap_cell("area_gap")),
    )
    return Table(
        "arms",
        "Arms over seeds (area: mean over all steps; - vanilla: paired by seed)",
        columns,
        records,
        sections=True,
    )


def onset_words(onsets: Sequence[int | str]) -> str:
    """Median and range over seeds: "12 (10 to never)"; a median that lies somewhere beyond a step says so."""
    middle, beyond = median_onset(onsets)
    if middle is None:
        return UNDEFINED
    steps = sorted(one for one in onsets if one != "never")
    ends = [*map(str, steps), *["never"] * (len(onsets) - len(steps))]
    reach = f" ({ends[0]} to {ends[-1]})" if ends[0] != ends[-1] else ""
    return ("> " if beyond else "") + (middle if middle == "never" else f"{middle:g}") + reach


def more_table(arms: Sequence[ArmRuns]) -> Table:
    """What else tells arms apart: which vanilla each is compared with, when hacking begins, how far the weights moved, whether it solves as much."""
    records = []
    for arm in arms:
        base = baseline(arm, arms)
        onsets = defined(onset(run) for run in arm.runs.values())
        solved = (
            differences(arm.figures("gt_rate", "last5"), base.figures("gt_rate", "last5"))
            if base
            else Estimate(0)
        )
        sizes = defined(arm.sizes().values())
        shared = in_both(arm.sizes(), base.sizes()) if base else []
        ratios = [arm.sizes()[seed] / base.sizes()[seed] for seed in shared if base.sizes()[seed]]
        records.append(
            {
                "arm": arm.name,
                "against": base.name if base else "-",
                "seeds": len(arm.runs),
                "time_to_hack": onset_words(onsets),
                "never": sum(one == "never" for one in onsets),
                "onsets": len(onsets),
                "passes": match_pass(solved) if base else "-",
                **flat(solved, "solved_"),
                "delta_w_norm": statistics.mean(sizes),
                "delta_w_low": min(sizes, default=None),
                "delta_w_high": max(sizes, default=None),
                "delta_w_ratio": statistics.mean(ratios),
            }
        )

    def size_cell(record: dict) -> str:
        if record["delta_w_norm"] is None:
            return "not recorded"
        return f"{record['delta_w_norm']:.2f} ({record['delta_w_low']:.2f} to {record['delta_w_high']:.2f})"

    columns = (
        ("arm", shown("arm")),
        ("compared with", shown("against")),
        ("seeds", shown("seeds")),
        ("time to hack", shown("time_to_hack")),
        ("never hacks", lambda record: f"{record['never']} of {record['onsets']}"),
        ("|Delta W|", size_cell),
        (
            "of vanilla's",
            lambda record: "-" if record["delta_w_ratio"] is None else f"x {record['delta_w_ratio']:.2f}",
        ),
        ("solves as much", shown("passes")),
    )
    return Table(
        "arms_more",
        f"Arms: time to hack (median, range), last |Delta W| (mean, range), solved within {SAME_PASS:.2f}",
        columns,
        records,
    )


# ---------------------------------------------------------------------------------------------- the section
def sampled_blocks(runs: Sequence[Run], window: tuple[int, int] | None) -> list[Block]:
    arms = by_arm(runs)
    most = max((len(arm.runs) for arm in arms), default=1)
    interval = (
        "one seed: no interval, so no claim"
        if most == 1
        else f"up to {most} seeds an arm; intervals are t, over seeds"
    )
    begins = f"Time to hack: first step whose {ONSET_WINDOW}-step mean hack rate exceeds {HACK_ONSET:g}."
    short = [run.label for run in runs if len(run.rows) < 2 * EDGE]
    overlap = f"\nFewer than {2 * EDGE} steps, first and last overlap: {', '.join(short)}." if short else ""
    twice = doubles(runs, arms)
    overlap += (
        f"\nSame settings and seed as another run, not counted in an arm: {', '.join(twice)}."
        if twice and most > 1
        else ""
    )
    blocks: list[Block] = [
        Heading("On-policy GRPO"),
        sampled_table(runs),
        f"{begins} Seeds are the unit: {interval}.{overlap}",
    ]
    blocks += window_tables(runs, *window) if window else []
    blocks.append(
        cosine_table({run.label: [run] for run in runs}, "on_policy_cosines", "Cosines: means over steps")
    )
    if most > 1:
        blocks.append(
            cosine_table(
                {arm.name: list(arm.runs.values()) for arm in arms},
                "arms_cosines",
                "Cosines by arm: means over steps and seeds",
            )
        )
    blocks += [heldout_table(arms)] if any(run.heldout for arm in arms for run in arm.runs.values()) else []
    return blocks + ([arms_table(arms), more_table(arms)] if most > 1 else []) + h1_blocks(arms)
