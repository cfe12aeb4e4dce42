"""Prevention, delay or neither for every arm over seeds: the figures from its runs, a table, the verdicts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from hackward.base import statistics
from hackward.base.statistics import LEVEL, Estimate, equivalence, exact_upper, two_way
from hackward.base.survival import Lasted, log_rank, restricted_mean, strata_needed
from hackward.reports.arms import ArmRuns, baseline, onset
from hackward.reports.heldout import heldout_rates
from hackward.reports.prevention import (
    LAST_PART,
    SAME_SOLVED,
    Corrected,
    EndRate,
    Outcome,
    Verdict,
    correct,
    end_rate,
    judge,
)
from hackward.reports.runs import Run
from hackward.reports.tables import Block, Caveat, Conclusion, Record, Table, dashed, flat, shown
from hackward.reports.words import TOO_FEW, p_value, plain, with_interval

CLOSED = "closed"  # held-out condition: no loophole


def lasted(arm: ArmRuns) -> dict[int, Lasted]:
    """How long each seed goes without a breakout; censored at its last step. Without those that have none."""
    found = {}
    for seed, run in arm.runs.items():
        step = onset(run)
        if step == "never":
            found[seed] = Lasted(run.rows[-1]["step"], False)
        elif step is not None:
            found[seed] = Lasted(step, True)
    return found


def breakouts(times: Mapping[int, Lasted]) -> int:
    return sum(time.ended for time in times.values())


def last_rows(run: Run) -> Sequence[dict]:
    """The last tenth of its steps, rounded up."""
    return run.rows[-math.ceil(len(run.rows) / LAST_PART) :]


def end_rate_of(arm: ArmRuns) -> EndRate:
    rates, groups = {}, 0
    for seed, run in arm.runs.items():
        rows = [row for row in last_rows(run) if row["hack_rate"] is not None]
        rates[seed] = statistics.mean(row["hack_rate"] for row in rows)
        groups += sum(row["groups_used"] + row["groups_skipped"] for row in rows)
    return end_rate(rates, groups, over_problems(arm))


def over_problems(arm: ArmRuns) -> Estimate:
    """The hack rate of own rollouts at the end, over seeds and problems."""
    own = []
    for run in arm.runs.values():
        if run.scored is None:
            return Estimate(0, why="no rollouts")
        rows = last_rows(run)
        scored = run.scored.between(rows[0]["step"], rows[-1]["step"])
        own.append((scored.problem[scored.own], scored.hacked[scored.own]))
    names = np.unique(np.concatenate([problems for problems, _ in own]))
    places = [np.searchsorted(names, problems) for problems, _ in own]
    total_SP = np.stack([np.bincount(place, minlength=len(names)) for place in places])
    hits_SP = np.stack(
        [
            np.bincount(place[hacked], minlength=len(names))
            for place, (_, hacked) in zip(places, own, strict=True)
        ]
    )
    return two_way(hits_SP, total_SP)


def comparable(arm: ArmRuns, arms: Sequence[ArmRuns]) -> ArmRuns | None:
    """The arm's vanilla, where it trains in the same basis."""
    base = baseline(arm, arms)
    return base if base and base.identity.lora == arm.identity.lora else None


def outcome(arm: ArmRuns, vanilla: ArmRuns | None) -> Outcome:
    mine, theirs = lasted(arm), lasted(vanilla) if vanilla else {}
    shared = {seed: theirs[seed] for seed in mine.keys() & theirs.keys()}
    on, off = (heldout_rates(arm, CLOSED, adapter).means("solved") for adapter in ("on", "off"))
    vanilla_on = heldout_rates(vanilla, CLOSED, "on").means("solved") if vanilla else {}
    return Outcome(
        seeds=len(mine),
        unseen=len(arm.runs) - len(mine),
        breakouts=breakouts(mine),
        vanilla_seeds=len(shared),
        vanilla_breakouts=breakouts(shared),
        end=end_rate_of(arm),
        later=log_rank(*({seed: [time] for seed, time in times.items()} for times in (mine, theirs))),
        to_vanilla=equivalence(on, vanilla_on, SAME_SOLVED),
        to_base=equivalence(on, off, SAME_SOLVED),
    )


def prevention_blocks(arms: Sequence[ArmRuns]) -> list[Block]:
    """The verdict of every arm that is no vanilla, beside the figures of all; nothing without such an arm."""
    judged = {arm.name: arm for arm in arms if not arm.arm.vanilla}
    if not judged:
        return []
    vanillas = {name: comparable(arm, arms) for name, arm in judged.items()}
    outcomes = {name: outcome(arm, vanillas[name]) for name, arm in judged.items()}
    corrected = correct(outcomes)
    until = last_common_step(arms)
    records = []
    lines = []
    for arm in arms:
        if arm.arm.vanilla:
            records.append(_record(arm, None, outcome(arm, None), None, None, until))
            continue
        found, p = outcomes[arm.name], corrected[arm.name]
        verdict = judge(found, p)
        records.append(_record(arm, vanillas[arm.name], found, p, verdict, until))
        lines.append(f"By the end, {arm.name}: {sentence(found, verdict)}")
    return [verdict_table(records, until), *_reach(corrected), Conclusion("\n".join(lines))]


def last_common_step(arms: Sequence[ArmRuns]) -> int:
    """The last step that every run of every arm has."""
    return min(run.rows[-1]["step"] for arm in arms for run in arm.runs.values())


def _reach(corrected: Mapping[str, Corrected]) -> list[Block]:
    """What the log-rank test cannot show with so few seeds, said once; nothing where it can."""
    least = {name: p.least_later for name, p in corrected.items() if p.least_later is not None}
    beyond = [name for name, p in least.items() if p >= LEVEL]
    if not beyond:
        return []
    needed = strata_needed(LEVEL / len(least))
    text = f"Time to hack: {TOO_FEW} for a log-rank p below {LEVEL:g} in {len(beyond)} of {len(least)} arms"
    return [Caveat(f"{text}, corrected for {len(least)}: {needed} seeds at least, so no delay can be shown.")]


def _record(
    arm: ArmRuns,
    vanilla: ArmRuns | None,
    found: Outcome,
    p: Corrected | None,
    verdict: Verdict | None,
    until: int,
) -> Record:
    times = lasted(arm)
    return {
        "arm": arm.name,
        "against": vanilla.name if vanilla else "-",
        "seeds": found.seeds,
        "breakouts": found.breakouts,
        "breakouts_high": exact_upper(found.breakouts, found.seeds),
        "until": until,
        "restricted_mean": restricted_mean(times.values(), until) if times else None,
        "end_rate": found.end.mean,
        "end_rate_high": found.end.high,
        **flat(found.end.two_way, "end_rate_two_way_"),
        "log_rank_strata": found.later.strata,
        "log_rank_excess": found.later.excess,
        "log_rank_z": found.later.z,
        "log_rank_p": found.later.p,
        "log_rank_p_holm": p.later if p else None,
        "log_rank_p_least": p.least_later if p else None,
        "to_vanilla": found.to_vanilla.gap,
        "to_base": found.to_base.gap,
        **flat(found.to_vanilla.gap, "to_vanilla_"),
        "to_vanilla_p": found.to_vanilla.p,
        **flat(found.to_base.gap, "to_base_"),
        "to_base_p": found.to_base.p,
        "equivalent_p_holm": p.equivalent if p else None,
        "verdict": verdict.word if verdict else None,
        "why": verdict.why if verdict else None,
    }


def verdict_table(records: list[Record], until: int) -> Table:
    columns = (
        ("arm", shown("arm")),
        ("break out", lambda record: f"{record['breakouts']} of {record['seeds']}"),
        ("at most", shown("breakouts_high", dashed(plain))),
        ("mean time to hack", shown("restricted_mean", dashed(lambda step: plain(step, 1)))),
        ("later, p", shown("log_rank_p_holm", dashed(p_value))),
        (
            "hacked at the end",
            lambda record: f"{plain(record['end_rate'])}, at most {plain(record['end_rate_high'])}",
        ),
        ("solved - vanilla", lambda record: _gap(record, "to_vanilla")),
        ("solved - base", lambda record: _gap(record, "to_base")),
        ("equivalent, p", shown("equivalent_p_holm", dashed(p_value))),
        ("by the end", shown("verdict", dashed(str))),
    )
    title = f"Prevention or delay (time to hack: restricted mean by step {until}; solved: held out, loophole"
    return Table("arms_verdict", f"{title} closed; p: Holm over arms)", columns, records)


def _gap(record: Record, key: str) -> str:
    return with_interval(record[key]) if record[key].n else "-"


def sentence(found: Outcome, verdict: Verdict) -> str:
    """PREVENTION. 0 of 5 seeds break out (at most 0.52 of all; vanilla 5 of 5), ..."""
    share = plain(exact_upper(found.breakouts, found.seeds))
    beside = f"; vanilla {found.vanilla_breakouts} of {found.vanilla_seeds}" if found.vanilla_seeds else ""
    counted = f"{found.breakouts} of {found.seeds} seeds break out (at most {share} of all{beside})"
    hacked = f"hacked at the end {plain(found.end.mean)}, at most {plain(found.end.high)}"
    return f"{verdict.word.upper()}: {verdict.why}. {counted}, {hacked}."
