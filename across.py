"""On-policy runs, one by one and as arms over seeds: tables, comparison with vanilla and with the controls, H1.

Seeds are the unit. An arm holds finished runs that differ in their seed alone; arms are compared by the differences within
the seeds that both have. What a difference means is decided in verdicts.py.
"""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tables import Block, Heading, Table, cosine_columns, flat, flat_null, shown
from verdicts import (
    EDGE,
    H1_DROP,
    HACK_ONSET,
    ONSET_WINDOW,
    SAME_PASS,
    UNDEFINED,
    Estimate,
    curve,
    defined,
    differences,
    estimate,
    in_both,
    judge_control,
    judge_h1,
    match_pass,
    mean,
    median_onset,
    null_range,
    paired,
    plain,
    signed,
    time_to_hack,
    with_interval,
)

if TYPE_CHECKING:
    from analyze import Run

PER_RUN = (
    "seed out resume preset workers device sandbox svd_cache micro_tokens sample_rows save_every v_hack "
    "eval_every eval_samples eval_limit"
).split()  # settings that cannot change what training does, given all the others
EDIT = "arm control gate project_at refresh_every objective".split()  # these mean nothing to vanilla
PARTS = ("first5", "last5", "area")
RATES = {"hack_rate": "hacked", "gt_rate": "solved", "attempt_rate": "attempted"}
COSINES = ("cos_in", "cos_out", "cos_update")  # those that come with a null
CONTROLS = ("random", "sign-flip", "clean-clean", "shrink")


# ---------------------------------------------------------------------------------------------- one run a row
def one_direction(runs: Sequence[Run]) -> bool:
    """Are the cosines of these runs with one v_hack? With several, they have no common mean. (A run without v_hack has no cosines.)"""
    return len({run.direction for run in runs if run.record["v_hack"]}) <= 1


def null_of(
    runs: Sequence[Run], key: str, first: float = 0, last: float = math.inf
) -> tuple[float, float] | None:
    """Null range of a cosine's mean over the steps of all these runs; None unless all recorded as many draws, of one v_hack.

    The flips are drawn from v_hack's pairs with a fixed seed, so draw s is the same flip in every run of one v_hack.
    """
    draws = [run.draws(key, first, last) for run in runs] if one_direction(runs) else []
    if not draws or any(found is None for found in draws) or len({found.shape[1] for found in draws}) > 1:
        return None
    return null_range(np.concatenate(draws))


def cosine_table(
    groups: dict[str, Sequence[Run]], name: str, title: str, first: float = 0, last: float = math.inf
) -> Table:
    """Mean cosines over steps (and runs) of each group of runs, with the null of each mean; undefined where a group has several v_hacks."""
    records = []
    for label, runs in groups.items():
        record: dict[str, Any] = {"run": label, "runs": len(runs)}
        for key in COSINES:
            values = (row[key] for run in runs for row in run.rows if first <= row["step"] <= last)
            record |= {key: mean(values) if one_direction(runs) else None} | flat_null(
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
            | {key: mean(row[key] for row in rows) for key in keys}
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
        record |= {key: mean(run.column(key)) for key in ("cos_in", "cos_update")}
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


def onset(run: Run) -> int | str | None:
    return time_to_hack(run.column("step"), run.column("hack_rate"))


# ---------------------------------------------------------------------------------------------- arms
@dataclass(frozen=True)
class Arm:
    """Finished runs that differ in their seed alone (and in settings that cannot change what they do)."""

    name: str
    runs: dict[int, Run]
    basis: str  # what is trained: "svd", or "lora" with its rank (and "unmatched" where --lr is not scaled to it)
    edit: dict  # the settings of EDIT
    direction: str  # of its v_hack; "" where it does not matter or differs from seed to seed
    rest: str  # the settings that arms under comparison must share: all but the seed, the basis and the edit

    @property
    def vanilla(self) -> bool:
        return next(iter(self.runs.values())).vanilla

    @property
    def control(self) -> str:
        return next(iter(self.runs.values())).control

    @property
    def own_vanilla(self) -> str:
        """The flags of vanilla in this arm's basis."""
        name, *rank = self.basis.split()
        return (
            "--arm=vanilla"
            if name == "svd"
            else f"--arm=lora --gate=none --rank={rank[0]}" + " --no-match-size" * ("unmatched" in rank)
        )

    def figures(self, key: str, part: str) -> dict[int, float | None]:
        """A rate's mean over a part of the steps (one of PARTS), by seed."""
        return {seed: curve(run.column(key))[PARTS.index(part)] for seed, run in self.runs.items()}

    def sizes(self) -> dict[int, float | None]:
        """Frobenius norm of Delta W after the last step, by seed; None in runs that did not record it."""
        return {seed: run.rows[-1]["delta_w_norm"] for seed, run in self.runs.items()}

    def controls(self, arm: Arm) -> bool:
        """Is this a control of that arm: the same run but for what is removed? (A random V belongs to no direction.)"""
        same = all(self.edit[key] == arm.edit[key] for key in EDIT if key != "control")
        return (
            self.control != "none"
            and same
            and (self.basis, self.rest) == (arm.basis, arm.rest)
            and self.direction in ("", arm.direction)
        )


def default(config: dict, flag: str) -> Any:
    """What a run did that was made before the flag existed: the default of its preset."""
    import train  # brings torch, which takes seconds; only runs of different versions need it

    return getattr(train.PRESETS.get(config.get("preset"), train.Config()), flag, None)


def settings(runs: Sequence[Run]) -> list[dict]:
    """The configs of the runs, all with the same keys."""
    keys = sorted({key for run in runs for key in run.config} - set(PER_RUN))
    return [
        {key: run.config[key] if key in run.config else default(run.config, key) for key in keys}
        for run in runs
    ]


def trained_on(runs: Sequence[Run]) -> list[str]:
    """What tells the training problems of each run: their hash. Runs of versions that recorded none have only their number.

    Such a run counts as trained on the problems of the others with that number, if those agree.
    """
    numbers = [
        found[0] if (found := re.match(r"\d+", str(run.record.get("problems")))) else "" for run in runs
    ]
    hashes: dict[str, set[str]] = defaultdict(set)
    for run, number in zip(runs, numbers, strict=True):
        if run.record.get("training"):
            hashes[number].add(run.record["training"])
    return [
        run.record.get("training") or (next(iter(hashes[number])) if len(hashes[number]) == 1 else number)
        for run, number in zip(runs, numbers, strict=True)
    ]


def identities(runs: Sequence[Run]) -> list[tuple[str, str, str, str]]:
    """(basis, edit, direction, rest) of each run, fields of Arm: all that a run is, but for its seed."""
    found = []
    for run, config, problems in zip(runs, settings(runs), trained_on(runs), strict=True):
        rank, matched = (
            config.pop(key, None) for key in ("rank", "match_size")
        )  # they mean nothing without a LoRA
        basis = f"lora {rank}" + " unmatched" * (matched is False) if run.arm == "lora" else "svd"
        edit = {key: None if run.vanilla else config.get(key) for key in EDIT}
        rest = {key: value for key, value in config.items() if key not in EDIT}
        same = json.dumps([rest, run.setting[0], run.setting[2], problems], sort_keys=True, default=str)
        direction = (
            "" if run.vanilla or run.control == "random" else run.direction
        )  # a random V differs from seed to seed
        found.append((basis, json.dumps(edit, sort_keys=True), direction, same))
    return found


def unique(runs: Sequence[Run]) -> list[Run]:
    """The runs without those that only repeat another: same settings, same seed. What vanilla would have removed is no setting of it."""
    once: dict[tuple, Run] = {}
    for run, identity in sorted(
        zip(runs, identities(runs), strict=True), key=lambda pair: not pair[0].complete
    ):  # rather the whole run than a part
        once.setdefault((identity, run.config["seed"]), run)
    return list(once.values())


COUNT = r"\(\d+\)"


def counted(names: Sequence[str]) -> list[str]:
    """The names with (2), (3) ... behind those that occurred before."""
    return [
        name if (again := names[:place].count(name)) == 0 else f"{name} ({again + 1})"
        for place, name in enumerate(names)
    ]


def by_arm(runs: Sequence[Run]) -> list[Arm]:
    """The finished on-policy runs by arm. Of two runs with the same settings and seed the first is taken (see `doubles`)."""
    groups: dict[tuple[str, ...], dict[int, Run]] = defaultdict(dict)
    finished = [run for run in runs if run.kind == "sampled" and run.complete]
    for run, identity in zip(finished, identities(finished), strict=True):
        groups[identity].setdefault(run.config["seed"], run)
    names = []
    for found in map(dict.values, groups.values()):
        first, left_out = next(iter(found)), ("seed",) if one_direction(list(found)) else ("seed", "v_hack")
        of_run = {first.traits()[trait] for trait in left_out}
        names.append(
            " ".join(
                word for word in first.label.split() if word not in of_run and not re.fullmatch(COUNT, word)
            )
        )
    return [
        Arm(name, found, basis, json.loads(edit), direction, same)
        for name, ((basis, edit, direction, same), found) in zip(counted(names), groups.items(), strict=True)
    ]


def doubles(runs: Sequence[Run], arms: Sequence[Arm]) -> list[str]:
    """Finished on-policy runs that no arm counts, because another with the same settings and seed is there."""
    counted = {run.path for arm in arms for run in arm.runs.values()}
    return [run.label for run in runs if run.kind == "sampled" and run.complete and run.path not in counted]


def baseline(arm: Arm, arms: Sequence[Arm]) -> Arm | None:
    """The vanilla that an arm is compared with: of the same settings, and of its own basis where that was run."""
    fit = [
        other
        for other in arms
        if other.vanilla and not arm.vanilla and other.rest == arm.rest and other.basis in (arm.basis, "svd")
    ]
    return min(fit, key=lambda other: other.basis != arm.basis, default=None)


def tight(found: Estimate, sign: str = "") -> str:
    """A mean and its interval in 13 to 16 characters: .65 [.63 .67]"""
    if found.mean is None:
        return UNDEFINED
    centre, *ends = (
        f"{value:{sign}.2f}".replace("0.", ".", 1)
        for value in (found.mean, found.low, found.high)
        if value is not None
    )
    return f"{centre} [{' '.join(ends)}]" if ends else f"{centre} ({found.why})"


def tight_gap(found: Estimate, seeds: int) -> str:
    if not found.n:
        return "-"
    return tight(found, "+") + (f" (n {found.n})" if found.n != seeds else "")


def arms_table(arms: Sequence[Arm]) -> Table:
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


def more_table(arms: Sequence[Arm]) -> Table:
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
                "delta_w_norm": mean(sizes),
                "delta_w_low": min(sizes, default=None),
                "delta_w_high": max(sizes, default=None),
                "delta_w_ratio": mean(ratios),
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


# ---------------------------------------------------------------------------------------------- held out
HELDOUT = {
    "hacked": "hacked",
    "attempted": "attempted",
    "solved": "solved",
    "hack_given_attempt": "P(hack | attempt)",
}


def as_estimate(rate: dict, n: int) -> Estimate:
    """One run's rate with its interval over problems."""
    return Estimate(
        n,
        rate["mean"],
        low=rate["low"],
        high=rate["high"],
        why=None if rate["low"] is not None else "no interval",
    )


def over_seeds(values: dict[Any, float | None], alone: Estimate) -> Estimate:
    """Over seeds where there are several, else the one run's own figure."""
    return estimate(values.values()) if len(values) > 1 else alone


def heldout_rates(arm: Arm, condition: str, adapter: str) -> tuple[dict[str, dict[int, dict]], int]:
    """Each rate by seed ({mean, low, high}) of an arm's last held-out evaluation, and the number of problems of the smallest."""
    lines = {
        seed: line
        for seed, run in arm.runs.items()
        for line in run.heldout
        if (line["condition"], line["adapter"]) == (condition, adapter)
    }
    return {key: {seed: line[key] for seed, line in lines.items()} for key in HELDOUT}, min(
        (line["problems"] for line in lines.values()), default=0
    )


def conditions(arms: Sequence[Arm]) -> list[str]:
    return list(
        dict.fromkeys(line["condition"] for arm in arms for run in arm.runs.values() for line in run.heldout)
    )


def heldout_figures(arm: Arm, condition: str, adapter: str) -> dict[str, Estimate]:
    """Each rate of an arm: over seeds where there are several, else with the one run's interval over problems."""
    rates, problems = heldout_rates(arm, condition, adapter)
    return {
        key: over_seeds(
            {seed: rate["mean"] for seed, rate in seeds.items()},
            as_estimate(next(iter(seeds.values())), problems),
        )
        for key, seeds in rates.items()
        if seeds
    }


def heldout_table(arms: Sequence[Arm]) -> Table:
    """Held-out problems: rates with the adapter on, and what they are above the base model's (adapter off), paired by seed."""
    records = []
    for arm in arms:
        for condition in conditions([arm]):
            (on, problems), (off, _) = (heldout_rates(arm, condition, adapter) for adapter in ("on", "off"))
            on_minus_off = {
                key: differences(
                    *({seed: rate["mean"] for seed, rate in side[key].items()} for side in (on, off))
                )
                for key in HELDOUT
            }
            for what, found in (("on", heldout_figures(arm, condition, "on")), ("on - off", on_minus_off)):
                if not found:
                    continue
                record: dict[str, Any] = {
                    "arm": arm.name,
                    "condition": condition,
                    "adapter": what,
                    "runs": len(on["hacked"]),
                    "problems": problems,
                }
                for key in HELDOUT:
                    record |= {key: found[key]} | flat(found[key], f"{key}_")
                records.append(record)

    def cell(key: str) -> Callable[[dict], str]:
        return lambda record: tight(record[key], "" if record["adapter"] == "on" else "+")

    columns = (
        ("arm", shown("arm")),
        ("condition", shown("condition")),
        ("adapter", shown("adapter")),
        ("runs (problems)", lambda record: f"{record['runs']} ({record['problems']})"),
        *((name, cell(key)) for key, name in HELDOUT.items()),
    )
    title = "Held-out problems, last evaluation (off: the base model; intervals over seeds, of one run over problems)"
    return Table("heldout", title, columns, records, sections=True)


# ---------------------------------------------------------------------------------------------- H1
def control_records(arm: Arm, arms: Sequence[Arm]) -> list[dict]:
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


def h1_blocks(arms: Sequence[Arm]) -> list[Block]:
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
        vanilla = mean(base.figures("hack_rate", "last5")[seed] for seed in seeds) if base else None
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
