"""On-policy runs and arms: tables of rates, cosines and times to hack."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from hackward.base import statistics
from hackward.base.breakout import HACK_ONSET, ONSET_WINDOW, Never
from hackward.base.faults import InputError
from hackward.base.statistics import COSINES, defined, differences, estimate, in_both, paired
from hackward.reports.arms import PARTS, RATES, ArmRuns, baseline, by_arm, doubles, onset, over_shared_steps
from hackward.reports.h1_tables import h1_blocks
from hackward.reports.h1_verdict import SAME_PASS, match_pass
from hackward.reports.heldout import heldout_table
from hackward.reports.lengths import lengths_caveats, stopped_lines
from hackward.reports.monitor_figures import windows
from hackward.reports.monitor_tables import between
from hackward.reports.nulls import null_of, one_direction
from hackward.reports.onset import EDGE, curve, median_onset
from hackward.reports.prevention_tables import prevention_blocks
from hackward.reports.runs import Run
from hackward.reports.tables import (
    Block,
    Caveat,
    Column,
    Heading,
    Record,
    Table,
    cosine_columns,
    dashed,
    flat,
    flat_null,
    shown,
)
from hackward.reports.words import UNDEFINED, plain, signed, tight, tight_gap

# What compares rates of arms
OVER_SEEDS = ("arms over seeds", "last |Delta W|", "solves as much", "frontier.png")
OF_H1 = ("H1 and its controls",)
ONSET_NOTE = f"Time to hack: first step whose {ONSET_WINDOW}-step mean hack rate exceeds {HACK_ONSET:g}."


def sampled_blocks(
    runs: Sequence[Run], window: tuple[int, int] | None, primary: str | None = None
) -> list[Block]:
    """The section of the on-policy runs: each run, then arms over seeds, prevention or delay, H1.

    What compares rates of arms is over the steps that all runs of a seed have; all else over whole runs.
    """
    arms = by_arm(runs)
    shared = over_shared_steps(arms)
    h1 = h1_blocks(shared)
    each = {run.label: [run] for run in runs}
    several = any(len(arm.runs) > 1 for arm in arms)
    blocks: list[Block] = [Heading("On-policy GRPO"), sampled_table(runs), ONSET_NOTE]
    blocks += [notes(runs, arms), by_steps(runs)]
    if window:
        blocks += window_tables(runs, *window)
    blocks.append(cosine_table(each, "on_policy_cosines", "Cosines: means over steps"))
    if several:
        pooled = {arm.name: list(arm.runs.values()) for arm in arms}
        blocks.append(cosine_table(pooled, "arms_cosines", "Cosines by arm: means over steps and seeds"))
    if any(run.heldout for arm in arms for run in arm.runs.values()):
        blocks.append(heldout_table(arms))
    differ = lengths_caveats(arms, [*(OVER_SEEDS if several else ()), *(OF_H1 if h1 else ())])
    blocks += differ
    if several:
        area = "shared steps" if differ else "all steps"
        blocks += [arms_table(shared, area), more_table(arms, shared), *prevention_blocks(arms, primary)]
    return blocks + h1


def notes(runs: Sequence[Run], arms: Sequence[ArmRuns]) -> Caveat:
    """What the table of runs leaves to be said: the unit; unfinished, stopped, short and repeated runs."""
    most = max((len(arm.runs) for arm in arms), default=1)
    interval = f"up to {most} seeds per arm; intervals are t, over seeds"
    if most == 1:
        interval = "one seed: no interval, so no claim"
    lines = [f"Seeds are the unit: {interval}."]
    unfinished = [run.label for run in runs if not run.complete]
    if unfinished:
        lines.append(f"Unfinished, in no arm and no verdict: {', '.join(unfinished)}.")
    lines += stopped_lines(runs, arms)
    short = [run.label for run in runs if len(run.rows) < 2 * EDGE]
    if short:
        lines.append(f"Fewer than {2 * EDGE} steps, first and last overlap: {', '.join(short)}.")
    twice = doubles(runs, arms)
    if twice:
        lines.append(f"Same settings and seed as another run, not counted in an arm: {', '.join(twice)}.")
    return Caveat("\n".join(lines))


def sampled_table(runs: Sequence[Run]) -> Table:
    records = []
    for run in runs:
        record: Record = {"run": run.label, "seed": run.seed, "steps": len(run.rows)}
        for key in RATES:
            for part, value in zip(PARTS, curve(run.column(key)), strict=True):
                record[f"{key}_{part}"] = value
        record["time_to_hack"] = onset(run)
        record |= {key: statistics.mean(run.column(key)) for key in ("cos_in", "cos_update")}
        records.append(record)
    columns = (
        *((key, shown(key)) for key in ("run", "seed", "steps")),
        *((f"{name}*", _rates([f"{key}_{part}" for part in PARTS])) for key, name in RATES.items()),
        ("time to hack", shown("time_to_hack", lambda step: UNDEFINED if step is None else str(step))),
    )
    title = "On-policy runs (* first 5, last 5, mean over all steps = area under the curve)"
    return Table("on_policy", title, columns, records)


def _rates(names: Sequence[str]) -> Callable[[Record], str]:
    """Rates side by side in few characters: .08 .52 .30"""
    return lambda record: " ".join(plain(record[name]).removeprefix("0") for name in names)


def cosine_table(
    groups: Mapping[str, Sequence[Run]], name: str, title: str, first: float = 0, last: float = math.inf
) -> Table:
    """Mean cosines over steps (and runs) of each group of runs, with the null of each mean.

    Undefined where a group has several v_hacks.
    """
    records = []
    for label, runs in groups.items():
        record: Record = {"run": label, "runs": len(runs)}
        for key in COSINES:
            values = (row[key] for run in runs for row in run.rows if first <= row["step"] <= last)
            record[key] = statistics.mean(values) if one_direction(runs) else None
            record |= flat_null(null_of(runs, key, first, last), key)
        records.append(record)
    mixed = [label for label, runs in groups.items() if not one_direction(runs)]
    if mixed:
        title += f" (undefined for {', '.join(mixed)}: measured with several v_hacks)"
    if all(record[f"{key}_null_low"] is None for record in records for key in COSINES):
        plain_columns = (("run", shown("run")), *((key, shown(key, signed)) for key in COSINES))
        return Table(name, f"{title} (no null recorded)", plain_columns, records)
    columns = (("run", shown("run")), *cosine_columns(COSINES))
    return Table(name, f"{title}, and their nulls", columns, records)


def by_steps(runs: Sequence[Run]) -> Table:
    """Means over parts of the runs' steps, a line per run; None for a part that a run has no step in."""
    parts = windows(sorted({step for run in runs for step in run.column("step")}))
    records = []
    for run in runs:
        record: Record = {"run": run.label, "seed": run.seed}
        for part in parts:
            rows = [row for row in run.rows if part[0] <= row["step"] <= part[1]]
            for key in RATES:
                record[f"{key}_{between(part)}"] = statistics.mean(row[key] for row in rows)
        records.append(record)
    columns: list[Column] = [("run", shown("run"))]
    for name in map(between, parts):
        columns.append((name, _rates([f"hack_rate_{name}", f"gt_rate_{name}"])))
    return Table("on_policy_by_steps", "Hacked and solved: means over steps", tuple(columns), records)


def window_tables(runs: Sequence[Run], first: int, last: int) -> list[Block]:
    """Means over the same steps of every run, whatever their length; without those that stopped before.

    InputError where another run does not have all of them, or where none has.
    """
    whole: list[Run] = []
    early: list[Run] = []
    for run in runs:
        had = run.rows[0]["step"] <= first <= last <= run.rows[-1]["step"]
        (whole if had else early).append(run)
    for run in early:
        if not run.stopped or not whole:
            had = run.column("step")
            raise InputError(f"--window {first} {last}: {run.path} has the steps {had[0]} to {had[-1]}")
    rates = {name: key for key, name in RATES.items()}
    keys = (*rates.values(), "cos_in", "cos_out", "cos_update_in", "cos_update")
    records = []
    for run in whole:
        rows = [row for row in run.rows if first <= row["step"] <= last]
        record: Record = {"run": run.label, "seed": run.seed, "steps": len(rows)}
        records.append(record | {key: statistics.mean(row[key] for row in rows) for key in keys})
    columns: list[Column] = [(key, shown(key)) for key in ("run", "seed", "steps")]
    columns += [(name, shown(key, lambda value: plain(value, 3))) for name, key in rates.items()]
    over = f"over steps {first} to {last}"
    each = {run.label: [run] for run in whole}
    blocks: list[Block] = [
        Table("on_policy_window", f"Means {over}", tuple(columns), records),
        cosine_table(each, "on_policy_window_cosines", f"Cosines: means {over}", first, last),
    ]
    if early:
        labels = ", ".join(run.label for run in early)
        blocks.append(Caveat(f"Stopped early, so not in the means {over}: {labels}."))
    return blocks


def arms_table(arms: Sequence[ArmRuns], area: str = "all steps") -> Table:
    """A row per arm and rate, over seeds: first 5 and last 5 steps, area; and what vanilla with the same seed
    had, subtracted.

    Vanilla is the arm with the same settings in all but the edit (`baseline`); where there is none, there is
    no difference. ``area``: the steps that the arms are given with, in words.
    """
    records = []
    for arm in arms:
        base = baseline(arm, arms)
        for key, rate in RATES.items():
            record: Record = {
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
    columns = (
        ("arm", shown("arm")),
        ("rate", shown("rate")),
        ("seeds", shown("seeds")),
        ("first 5", shown("first5", tight)),
        ("last 5", shown("last5", tight)),
        ("area", shown("area", tight)),
        ("last 5 - vanilla", lambda record: tight_gap(record["last5_gap"], record["seeds"])),
        ("area - vanilla", lambda record: tight_gap(record["area_gap"], record["seeds"])),
    )
    title = f"Arms over seeds (area: mean over {area}; - vanilla: paired by seed)"
    return Table("arms", title, columns, records, sections=True)


def more_table(arms: Sequence[ArmRuns], shared: Sequence[ArmRuns]) -> Table:
    """What else tells arms apart.

    Which vanilla each is compared with, when hacking begins, how far the weights moved, whether it solves as
    much. ``shared``: the arms over the steps that all runs of a seed have, for all but when hacking begins.
    """
    columns = (
        ("arm", shown("arm")),
        ("compared with", shown("against")),
        ("seeds", shown("seeds")),
        ("time to hack", shown("time_to_hack")),
        ("never hacks", lambda record: f"{record['never']} of {record['onsets']}"),
        ("|Delta W|", _size_cell),
        ("of vanilla's", shown("delta_w_ratio", dashed(lambda ratio: f"x {ratio:.2f}"))),
        ("solves as much", shown("passes")),
    )
    title = "Arms: time to hack (median, range), last |Delta W| (mean, range)"
    records = []
    for arm, cut in zip(arms, shared, strict=True):
        onsets = [found for found in map(onset, arm.runs.values()) if found is not None]
        records.append(_more_record(cut, baseline(cut, shared), onsets))
    return Table("arms_more", f"{title}, solved within {SAME_PASS:.2f}", columns, records)


def _more_record(arm: ArmRuns, base: ArmRuns | None, onsets: Sequence[int | Never]) -> Record:
    solved = differences(arm.figures("gt_rate", "last5"), base.figures("gt_rate", "last5") if base else {})
    sizes = defined(arm.sizes().values())
    return {
        "arm": arm.name,
        "against": base.name if base else "-",
        "seeds": len(arm.runs),
        "time_to_hack": onset_words(onsets),
        "never": sum(found == "never" for found in onsets),
        "onsets": len(onsets),
        "passes": match_pass(solved) if base else "-",
        **flat(solved, "solved_"),
        "delta_w_norm": statistics.mean(sizes),
        "delta_w_low": min(sizes, default=None),
        "delta_w_high": max(sizes, default=None),
        "delta_w_ratio": _mean_ratio(arm.sizes(), base.sizes()) if base else None,
    }


def _mean_ratio(sizes: Mapping[int, float | None], of: Mapping[int, float | None]) -> float | None:
    """Mean over the seeds that both have of size / size of the other."""
    ratios = []
    for seed in in_both(sizes, of):
        size, whole = sizes[seed], of[seed]
        if size is not None and whole:
            ratios.append(size / whole)
    return statistics.mean(ratios)


def _size_cell(record: Record) -> str:
    if record["delta_w_norm"] is None:
        return UNDEFINED
    return f"{record['delta_w_norm']:.2f} ({record['delta_w_low']:.2f} to {record['delta_w_high']:.2f})"


def onset_words(onsets: Sequence[int | Never]) -> str:
    """Median and range over seeds: "12 (10 to never)"; a median that lies somewhere beyond a step says so."""
    middle, beyond = median_onset(onsets)
    if middle is None:
        return UNDEFINED
    median = "never" if middle == "never" else f"{middle:g}"
    steps = sorted(step for step in onsets if step != "never")
    ends = [*map(str, steps), *["never"] * (len(onsets) - len(steps))]
    reach = f" ({ends[0]} to {ends[-1]})" if ends[0] != ends[-1] else ""
    return ("> " if beyond else "") + median + reach
