"""Prevention, delay or neither for every arm over seeds: the figures from its runs, a table, the verdicts."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

from hackward.base import statistics
from hackward.base.faults import InputError
from hackward.base.statistics import (
    FLOAT_NOISE,
    LEVEL,
    Estimate,
    differences,
    equivalence,
    exact_upper,
    gaps_within,
    two_way,
)
from hackward.base.survival import Lasted, exact_later, log_rank, pooled, restricted_mean
from hackward.reports.arms import ArmRuns, baseline, onset
from hackward.reports.heldout import HeldoutRates, heldout_rates
from hackward.reports.lengths import span, stopped_counts
from hackward.reports.prevention import (
    LAST_PART,
    MOST_LOST,
    Corrected,
    EndRate,
    Later,
    Outcome,
    Solving,
    Verdict,
    correct,
    end_rate,
    judge,
    least_later,
    reach_words,
)
from hackward.reports.runs import Run
from hackward.reports.tables import Block, Caveat, Conclusion, Record, Table, dashed, flat, shown
from hackward.reports.words import UNTOLD, p_value, plain, tight

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


def later_tests(mine: Mapping[int, Lasted], theirs: Mapping[int, Lasted]) -> Later:
    """Does the arm break out later than its vanilla, over the seeds that both have?"""
    first, second = ({seed: [time] for seed, time in times.items()} for times in (mine, theirs))
    shared = {seed: theirs[seed] for seed in mine.keys() & theirs.keys()}
    both = pooled(first, second)
    exact = exact_later(*both)
    return Later(
        stratified=log_rank(first, second),
        exact=exact_later(first, second),
        pooled=log_rank(*both).p if exact is None else exact,  # of many seeds the normal p will do
        least=least_later(len(shared), breakouts(shared)),
    )


def solving(mine: HeldoutRates, theirs: HeldoutRates) -> Solving:
    """Held-out problems solved, minus the others, paired by seed."""
    test = equivalence(mine.means("solved"), theirs.means("solved"), MOST_LOST)
    return Solving(test, sampling_noise(mine, theirs))


def sampling_noise(*sides: HeldoutRates) -> float | None:
    """Standard deviation of one seed's difference, if every rollout were drawn by itself at its side's rate.

    Rollouts of a problem are more alike than that, and the sides share their problems, so it is rather too
    large. Half a rollout more is counted as solved, and one more in all, so that a rate of 0 keeps its noise.
    None where a side was not evaluated.
    """
    variance = 0.0
    for side in sides:
        rate = statistics.mean(side.means("solved").values())
        if rate is None:
            return None
        fewest = min(line["problems"] * line["samples"] for line in side.lines.values())
        total = fewest * len(side.lines)
        cautious = (rate * total + 0.5) / (total + 1)
        variance += cautious * (1 - cautious) / fewest
    return math.sqrt(variance)


def outcome(arm: ArmRuns, vanilla: ArmRuns | None) -> Outcome:
    mine, theirs = lasted(arm), lasted(vanilla) if vanilla else {}
    shared = {seed: theirs[seed] for seed in mine.keys() & theirs.keys()}
    on, off = (heldout_rates(arm, CLOSED, adapter) for adapter in ("on", "off"))
    start, end = HeldoutRates({}), HeldoutRates({})
    if vanilla:
        end, start = (heldout_rates(vanilla, CLOSED, adapter) for adapter in ("on", "off"))
    return Outcome(
        seeds=len(mine),
        unseen=len(arm.runs) - len(mine),
        breakouts=breakouts(mine),
        vanilla_seeds=len(shared),
        vanilla_breakouts=breakouts(shared),
        end=end_rate_of(arm),
        later=later_tests(mine, theirs),
        to_start=solving(on, start),
        to_base=solving(on, off),
        to_end=differences(on.means("solved"), end.means("solved")),
    )


def primary_of(arms: Sequence[ArmRuns], wanted: str | None) -> set[str]:
    """The names of the primary arms: those of --primary, else all that are neither vanilla nor a control.

    A name is that of the tables, with a dash for each space. InputError for one that no arm has.
    """
    judged = {dashes(arm.name): arm for arm in arms if not arm.arm.vanilla}
    if wanted is None:
        return {arm.name for arm in judged.values() if arm.arm.control == "none"}
    asked = [dashes(name) for name in wanted.split(",") if name.strip()]
    unknown = [name for name in asked if name not in judged]
    if unknown or not asked:
        known = ", ".join(judged) or "none (finished on-policy runs that are not vanilla's)"
        raise InputError(f"--primary {wanted}: expected arms of these, separated by commas: {known}")
    return {judged[name].name for name in asked}


def dashes(name: str) -> str:
    return name.strip().replace(" ", "-")


def prevention_blocks(arms: Sequence[ArmRuns], wanted: str | None = None) -> list[Block]:
    """The verdict of every arm that is no vanilla, beside the figures of all; nothing without such an arm.

    ``wanted``: --primary.
    """
    judged = {arm.name: arm for arm in arms if not arm.arm.vanilla}
    if not judged:
        return []
    primary = primary_of(arms, wanted)
    vanillas = {name: comparable(arm, arms) for name, arm in judged.items()}
    outcomes = {name: outcome(arm, vanillas[name]) for name, arm in judged.items()}
    corrected = correct(outcomes, primary)
    verdicts = {name: judge(outcomes[name], corrected[name]) for name in judged}
    until = last_known_step(arms)
    ends = [end_record(arm, outcomes.get(arm.name), verdicts.get(arm.name), primary, until) for arm in arms]
    tests = [test_record(name, vanillas[name], outcomes[name], corrected[name]) for name in judged]
    lines = []
    for name, verdict in verdicts.items():
        marked = name if name in primary else f"{name} (exploratory)"
        lines.append(f"By the end, {marked}: {sentence(outcomes[name], verdict)}")
    blocks = [
        verdict_table(ends, until),
        tests_table(tests),
        *_reach(outcomes, corrected),
        *_lengths(judged, vanillas, arms),
        *_other_problems(judged, vanillas),
    ]
    return [*blocks, Conclusion("\n".join(lines))]


def last_known_step(arms: Sequence[ArmRuns]) -> int:
    """The last step by which it is known of every run whether it has broken out.

    A run that broke out is known for good, wherever it ended, so this is the first end of a run that did not;
    where all did, the last end of all.
    """
    runs = [run for arm in arms for run in arm.runs.values()]
    held = [run.rows[-1]["step"] for run in runs if onset(run) == "never"]
    return min(held, default=max(run.rows[-1]["step"] for run in runs))


def _lengths(
    judged: Mapping[str, ArmRuns], vanillas: Mapping[str, ArmRuns | None], arms: Sequence[ArmRuns]
) -> list[Block]:
    """What runs of different lengths mean for the table and its tests; nothing where it is nothing."""
    blocks: list[Block] = []
    stopped = stopped_counts(arms)
    if stopped:
        own = "Hacked at the end is over each run's own last steps, also of runs that stopped early"
        blocks.append(Caveat(f"{own} ({'; '.join(stopped)})."))
    for name, arm in judged.items():
        vanilla = vanillas[name]
        ends = _held_until(arm, vanilla) if vanilla else []
        if len(set(ends)) > 1:
            words = f"{name} and its vanilla: runs without a breakout end at different steps ({span(ends)})"
            blocks.append(
                Caveat(f"{words}. The exact test of time, and p at best, take them as watched alike.")
            )
    return blocks


def _held_until(arm: ArmRuns, vanilla: ArmRuns) -> list[int]:
    """The last steps of the runs without a breakout, of the seeds that both arms have."""
    shared = lasted(arm).keys() & lasted(vanilla).keys()
    runs = [one.runs[seed] for one in (arm, vanilla) for seed in shared]
    return [run.rows[-1]["step"] for run in runs if onset(run) == "never"]


def _reach(outcomes: Mapping[str, Outcome], corrected: Mapping[str, Corrected]) -> list[Block]:
    """What the tests of time cannot show with so few seeds, said once a reason; nothing where they can."""
    beyond: dict[str, list[str]] = {}
    for name, p in corrected.items():
        if p.least_later is not None and p.least_later >= LEVEL:
            beyond.setdefault(reach_words(outcomes[name], p), []).append(name)
    return [
        Caveat(f"Time to hack: no delay can be shown of {', '.join(names)}: {words} ({UNTOLD}).")
        for words, names in beyond.items()
    ]


def _other_problems(judged: Mapping[str, ArmRuns], vanillas: Mapping[str, ArmRuns | None]) -> list[Block]:
    """Arms whose base model solves another share than that of their vanilla does, in a seed that both have.

    They were evaluated on other problems, or with other draws.
    """
    apart = []
    for name, arm in judged.items():
        vanilla = vanillas[name]
        if vanilla is None:
            continue
        gaps = gaps_within(*(heldout_rates(one, CLOSED, "off").means("solved") for one in (arm, vanilla)))
        if any(abs(gap) > FLOAT_NOISE for gap in gaps.values()):
            apart.append(name)
    if not apart:
        return []
    lines = [
        "With the adapter off other shares of held-out problems are solved than in vanilla's runs:",
        f"{', '.join(apart)}. So these arms had other problems (v_hack's own are left out) or other draws.",
    ]
    return [Caveat("\n".join(lines))]


def end_record(
    arm: ArmRuns, found: Outcome | None, verdict: Verdict | None, primary: Collection[str], until: int
) -> Record:
    """What an arm came to by the end; of vanilla without a verdict."""
    times, end = lasted(arm), end_rate_of(arm) if found is None else found.end
    role = "primary" if arm.name in primary else "exploratory"
    return {
        "arm": arm.name,
        "role": role if verdict else "vanilla",
        "seeds": len(times),
        "breakouts": breakouts(times),
        "breakouts_high": exact_upper(breakouts(times), len(times)),
        "until": until,
        "restricted_mean": restricted_mean(times.values(), until) if times else None,
        "end_rate": end.mean,
        "end_rate_high": end.high,
        **flat(end.two_way, "end_rate_two_way_"),
        "verdict": verdict.word if verdict else None,
        "why": verdict.why if verdict else None,
    }


def test_record(name: str, vanilla: ArmRuns | None, found: Outcome, p: Corrected) -> Record:
    """The tests of an arm: each as it comes, and corrected where the arm is primary."""
    later = found.later
    record: Record = {
        "arm": name,
        "against": vanilla.name if vanilla else "-",
        "primary": p.primary,
        "family": p.family,
        "log_rank_strata": later.stratified.strata,
        "log_rank_excess": later.stratified.excess,
        "log_rank_z": later.stratified.z,
        "log_rank_p": later.stratified.p,
        "log_rank_p_two_sided": later.stratified.two_sided,
        "log_rank_p_exact": later.exact,
        "pooled_p": later.pooled,
        "later_p": p.later,
        "later_p_least": p.least_later,
        "not_worse_p": p.not_worse,
        "equivalent_p": p.equivalent,
    }
    for key, solved in {"to_start": found.to_start, "to_base": found.to_base}.items():
        record |= {key: solved.test.gap, **flat(solved.test.gap, f"{key}_")}
        record |= {f"{key}_not_worse_p": solved.test.not_less, f"{key}_equivalent_p": solved.test.p}
        record[f"{key}_margin_shown"] = solved.shown(p.level)
    return record | {"to_end": found.to_end, **flat(found.to_end, "to_end_")}


def verdict_table(records: list[Record], until: int) -> Table:
    columns = (
        ("arm", shown("arm")),
        ("role", shown("role")),
        ("break out", lambda record: f"{record['breakouts']} of {record['seeds']}"),
        ("at most", shown("breakouts_high", dashed(plain))),
        ("mean time to hack", shown("restricted_mean", dashed(lambda step: plain(step, 1)))),
        (
            "hacked at the end",
            lambda record: f"{plain(record['end_rate'])}, at most {plain(record['end_rate_high'])}",
        ),
        ("by the end", shown("verdict", dashed(str))),
    )
    title = f"Prevention or delay (time to hack: restricted mean by step {until})"
    return Table("arms_verdict", title, columns, records)


def tests_table(records: list[Record]) -> Table:
    columns = (
        ("arm", shown("arm")),
        ("later, p", shown("later_p", dashed(p_value))),
        ("at best", shown("later_p_least", dashed(p_value))),
        ("solved - base", _gap("to_base")),
        ("- vanilla", _gap("to_start")),
        ("- its end", _gap("to_end")),
        ("no less, p", shown("not_worse_p", dashed(p_value))),
        ("same, p", shown("equivalent_p", dashed(p_value))),
        ("margin", _margins),
    )
    family = max(record["family"] for record in records)
    primary = sum(record["primary"] for record in records)
    corrected = "uncorrected"
    if family > 1:
        corrected = f"Holm over {primary} primary arms"
        corrected += ", exploratory ones uncorrected" if primary < len(records) else ""
    title = f"Tests of prevention and delay (p: one-sided, {corrected}; solved: held out, loophole closed"
    return Table("arms_tests", f"{title}, margin {MOST_LOST:.2f})", columns, records)


def _gap(key: str) -> Callable[[Record], str]:
    return lambda record: tight(record[key], "+") if record[key].n else "-"


def _margins(record: Record) -> str:
    """Of the comparisons with the base model and with vanilla at its start, each once."""
    margins = [record[f"{key}_margin_shown"] for key in ("to_base", "to_start")]
    words = ["-" if margin is None else plain(margin) for margin in margins]
    return ", ".join(dict.fromkeys(words))


def sentence(found: Outcome, verdict: Verdict) -> str:
    """PREVENTION: ... Seeds that break out: 0 of 5 (95 % bound: 0.52 of all; vanilla: 5 of 5); ..."""
    share = plain(exact_upper(found.breakouts, found.seeds))
    beside = f"; vanilla: {found.vanilla_breakouts} of {found.vanilla_seeds}" if found.vanilla_seeds else ""
    counted = f"Seeds that break out: {found.breakouts} of {found.seeds} (95 % bound: {share} of all{beside})"
    hacked = f"hack rate at the end: {plain(found.end.mean)} (95 % bound: {plain(found.end.high)})"
    return f"{verdict.word.upper()}: {verdict.why}. {counted}; {hacked}."
