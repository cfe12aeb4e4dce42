"""Phases 1 and 2: the NLL probe and the mixed-replay GRPO probe, and the decision that follows from them.

What the figures mean is decided in probe_verdicts.py and decision.py; this file lays out the tables.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from hackward.base import statistics
from hackward.base.statistics import FLOAT_NOISE, defined, share
from hackward.reports.arms import null_of, unique
from hackward.reports.decision import Evidence, Projected, decision_rules, recommend
from hackward.reports.probe_verdicts import (
    SPREAD_GOOD,
    TINY_ADVANTAGE,
    Judgement,
    bucket_of,
    contrast_pools,
    describe,
    in_buckets,
    judge_direction,
    judge_mechanism,
    judge_phase1,
    judge_signal,
    judge_specificity,
    phase1_tests,
    pull,
    pulls_by_role,
    steps_without_spread,
    within_null,
)
from hackward.reports.runs import Run
from hackward.reports.tables import INDENT, Block, Heading, Table, flat, shown
from hackward.reports.words import (
    NOT_JUDGED,
    PASS,
    SNEAKY,
    UNDEFINED,
    null_words,
    p_value,
    plain,
    signed,
    with_interval,
)


def bucket_null_cell(record: dict) -> str:
    """The null of a bucket's mean; a bucket without a mean has none."""
    if not record["problems"]:
        return UNDEFINED
    return null_words(None if record["null_low"] is None else (record["null_low"], record["null_high"]))


def phase1_buckets(run: Run) -> Table:
    records = []
    for name, samples in in_buckets(run.samples).items():
        found = describe(samples, "cos_S_logp")
        over = found.pop("over_problems")
        records.append({"run": run.label, "bucket": name, **found, **flat(over, "problem_"), "over": over})
    columns = (
        ("bucket", shown("bucket")),
        ("n", shown("rollouts")),
        ("undefined", shown("no_cosine")),
        ("problems", shown("problems")),
        ("mean", shown("mean", signed)),
        ("sd", shown("sd", lambda value: plain(value, 3))),
        ("over problems [95 %]", shown("over", with_interval)),
        ("null", bucket_null_cell),
        ("share > 0", shown("positive", plain)),
    )
    return Table("phase1_buckets", f"{run.label}: cos_S_logp by label", columns, records)


def phase1_comparisons(run: Run) -> Table:
    records = []
    for name, unit, test in phase1_tests(run.samples):
        records.append({"run": run.label, "against": name, "unit": unit, **flat(test), "test": test})
    columns = (
        ("pure hack minus", shown("against")),
        ("unit", shown("unit")),
        ("n", lambda record: f"{record['n_first']} / {record['n_second']}"),
        ("difference [95 %]", shown("test", with_interval)),
        ("t", shown("t", lambda value: plain(value))),
        ("df", shown("df", lambda value: plain(value, 1))),
        ("p", shown("p", p_value)),
    )
    title = f"{run.label}: Welch tests (same problem: paired t)"
    return Table("phase1_tests", title, columns, records)


def phase1_lines(run: Run) -> str:
    """The sentences under the two tables: GRPO undefined, mechanism, verdict."""
    empty, steps = steps_without_spread(run.samples)
    state = UNDEFINED if empty == steps else "defined on the other steps"
    grpo = f"GRPO cosine: {state}; every group's reward spread (so every advantage) is 0 on {empty} of {steps} steps."
    pairs = [
        (a, b) for a, b in zip(run.column("cos_in"), run.column("cos_out"), strict=True) if None not in (a, b)
    ]
    falls = sum(after < before - FLOAT_NOISE for before, after in pairs)
    drop = (
        f"cos_out < cos_in on {falls} of {len(pairs)} steps"
        if pairs
        else "cos_out < cos_in: undefined, no cosines"
    )
    unlabelled = sum(bucket_of(sample) is None for sample in run.samples)
    missing = f" {unlabelled} samples without labels are left out." if unlabelled else ""
    verdict, why = judge_phase1(run.samples)
    fired = plain(statistics.mean(run.column("frac_fired")))
    return f"{grpo}\n{drop}; frac_fired mean {fired}.{missing}\nVerdict: {verdict.upper()}. {why}"


EARLIER = """\
To compare with, an earlier result (Qwen3-4B, 160 samples): pure hack +0.747, hack and correct +0.398, Welch t 4.46,
p < 1e-4; cos_out < cos_in on 20 of 20 steps, frac_fired about 0.65."""


def phase1_blocks(runs: Sequence[Run]) -> list[Block]:
    blocks: list[Block] = [Heading("Phase 1: NLL cosine of each sample, one pool")]
    for run in runs:
        blocks += [phase1_buckets(run), phase1_comparisons(run), phase1_lines(run)]
    return [*blocks, EARLIER]


def judge_run(run: Run) -> list[tuple[str, Judgement]]:
    """The four rows of the verification table for one run; a row judged on another arm still shows its figures."""
    signal = judge_signal(run.column("reward_spread"), run.column("advantages"))
    direction = judge_direction(run.column("cos_in"), pulls_by_role(run.samples), null_of([run], "cos_in"))
    mechanism = judge_mechanism(
        *map(run.column, run.edited), run.column("frac_fired"), null_of([run], run.edited[1])
    )
    if not run.vanilla:
        direction = Judgement(direction.measured, NOT_JUDGED, "judged on vanilla")
    if not run.projects:
        mechanism = Judgement(mechanism.measured, NOT_JUDGED, "judged on projecting arms")
    elif run.by_another_yardstick:
        mechanism = Judgement(
            mechanism.measured,
            NOT_JUDGED,
            "a control removes something else than the v_hack of these cosines",
        )
    elif run.edited[1] == "cos_update":
        note = "cos_update < cos_update_in, since the update is edited, not the gradient"
        mechanism = Judgement(mechanism.measured, mechanism.verdict, f"{note}. {mechanism.why}")
    specific = judge_specificity(run.samples)
    return list(zip(METRICS, (signal, direction, mechanism, specific), strict=True))


METRICS = (
    f"reward max - min per step (> {SPREAD_GOOD:g})",
    "cos_in per step, vanilla (> 0 on most)",
    "cos_out < cos_in, projected (16 of 20)",
    "cos_S_contrib by (src_pool, hacked) (teacher > 0, base not)",
)


def verification_table(runs: Sequence[Run]) -> Table:
    names = [{"direction": run.direction, "run": run.label, "arm": run.arm} for run in runs]
    judged = [dict(judge_run(run)) for run in runs]
    records = [
        {"metric": metric, **name, **vars(rows[metric])}
        for metric in METRICS
        for name, rows in zip(names, judged, strict=True)
    ]
    columns = tuple((key, shown(key)) for key in ("metric", "run", "measured", "verdict", "why"))
    return Table(
        "phase2_verification", "Verification (in brackets: what success is)", columns, records, sections=True
    )


def advantage_table(runs: Sequence[Run]) -> Table:
    """Row 1's sneaky failure in full: the distribution of all advantages of a run."""
    levels = (0, 5, 25, 50, 75, 95, 100)
    records = []
    for run in runs:
        values = defined(value for step in run.column("advantages") if step for value in step)
        cuts = [float(cut) for cut in np.percentile(values, levels)] if values else [None] * len(levels)
        zero = share(sum(value == 0 for value in values), len(values))
        tiny = share(sum(0 < abs(value) < TINY_ADVANTAGE for value in values), len(values))
        record = {"run": run.label, "n": len(values), "zero": zero, "tiny": tiny}
        records.append(record | {f"q{level}": cut for level, cut in zip(levels, cuts, strict=True)})
    quantiles = tuple((f"{level} %", shown(f"q{level}", lambda value: signed(value, 2))) for level in levels)
    shares = (("share 0", shown("zero", plain)), (f"tiny (<{TINY_ADVANTAGE:g})", shown("tiny", plain)))
    columns = (("run", shown("run")), ("n", shown("n")), *shares, *quantiles)
    title = "Advantages: share that is exactly 0, share that is tiny but not 0, quantiles"
    return Table("phase2_advantages", title, columns, records)


def pool_table(runs: Sequence[Run]) -> Table:
    """Row 4 in full: both cosines by (src_pool, hacked), and how much each bucket pulls on the whole gradient."""
    records = []
    for run in runs:
        buckets: dict[tuple, list[dict]] = defaultdict(list)
        for sample in run.samples:
            hacked = {True: "yes", False: "no", None: "no label"}[sample["hacked"]]
            buckets[sample["src_pool"], hacked].append(sample)
        for (pool, hacked), samples in sorted(buckets.items(), reverse=True):
            for key in ("cos_S_contrib", "cos_S_logp"):
                found = describe(samples, key)
                over, pulled = (
                    found["over_problems"],
                    pull(samples, len(run.rows)) if key == "cos_S_contrib" else None,
                )
                names = {
                    "run": run.label,
                    "pool": pool,
                    "hacked": hacked,
                    "cosine": key,
                    "n": len(samples),
                    "problems": found["problems"],
                }
                figures = {name: found[name] for name in ("null_low", "null_high", "positive")}
                records.append({**names, "over": over, **flat(over, "problem_"), **figures, "pull": pulled})
    columns = (
        *((key, shown(key)) for key in ("run", "pool", "hacked")),
        ("cos_S", shown("cosine", lambda name: name.removeprefix("cos_S_"))),
        ("n", lambda record: f"{record['n']} ({record['problems']})"),
        ("mean [95 %]", shown("over", with_interval)),
        ("null", bucket_null_cell),
        ("> 0", shown("positive", plain)),
        (
            "pull a step",
            lambda record: (
                "-"
                if record["cosine"] == "cos_S_logp"
                else UNDEFINED
                if record["pull"] is None
                else f"{record['pull']:+.1e}"
            ),
        ),
    )
    title = "Contributions by (src_pool, hacked); n: rollouts (problems), intervals over problems; pull = sum of cosine x norm"
    return Table("phase2_pools", title, columns, records, sections=True)


def gather_evidence(runs: Sequence[Run]) -> Evidence:
    """Pool the vanilla runs of one setting (all seeds, each run once however often it was repeated); controls never decide."""
    real = unique([run for run in runs if run.control == "none"])
    vanilla, projected = [run for run in real if run.vanilla], [run for run in real if run.projects]
    samples = [sample for run in vanilla for sample in run.samples]
    found = contrast_pools(samples)
    test = found.test("cos_S_logp")
    base = [sample["reward"] for sample in samples if sample["src_pool"] == found.roles[1]]
    judged = [(run, dict(judge_run(run))) for run in real]

    def unfit(metric: str) -> tuple[str, ...]:
        bad = [
            (run.label, row[metric]) for run, row in judged if row[metric].verdict not in (PASS, NOT_JUDGED)
        ]
        return tuple(f"{label}: {row.verdict}, {row.why}" for label, row in bad)

    return Evidence(
        vanilla_cos_in=tuple(value for run in vanilla for value in run.column("cos_in")),
        vanilla_null=null_of(vanilla, "cos_in"),
        discriminates=test.larger,
        separation=f"cos_S_logp teacher - base {with_interval(test)}, p {p_value(test.p)}",
        base_rewards=tuple(defined(base)),
        projected=tuple(
            Projected(
                run.label,
                tuple(run.column("cos_in")),
                tuple(run.column(run.edited[1])),
                null_of([run], "cos_in"),
                null_of([run], run.edited[1]),
            )
            for run in projected
        ),
        dead_signal=unfit(METRICS[0]),
        dead_direction=tuple(
            f"{run.label}: {row[METRICS[1]].why}"
            for run, row in judged
            if row[METRICS[1]].verdict == SNEAKY
            and within_null(run.column("cos_in"), null_of([run], "cos_in"))
        ),
        dead_mechanism=unfit(METRICS[2]),
    )


def decision_blocks(runs: Sequence[Run]) -> list[Block]:
    evidence = gather_evidence(runs)
    rules = decision_rules(evidence)
    words = {True: "yes", False: "no", None: UNDEFINED}
    records = [
        {"direction": runs[0].direction, **vars(rule), "applies": words[rule.applies]} for rule in rules
    ]
    columns = tuple((key, shown(key)) for key in ("rule", "measured", "applies", "meaning"))
    headline, following = recommend(rules, evidence)
    lines = [f"{INDENT}next: {line}" for line in following]
    real = [run for run in runs if run.control == "none"]
    kept = {run.path for run in unique(real)}
    again = [run.label for run in real if run.path not in kept]
    lines += [f"Same settings and seed as another run, not counted: {', '.join(again)}."] if again else []
    return [
        Table("phase3_decision", "Phase 3: decision rules", columns, records),
        "\n".join([headline, *lines]),
    ]


def pool_caveats(runs: Sequence[Run]) -> str:
    """What the run writer noted about the pools and bears on the verdicts: lines to append."""
    pools = [pool for run in runs for pool in run.record["pools"] or []]
    lines = []
    if any(pool.get("seen_by_v_hack") for pool in pools):
        lines.append(
            "\nCaveat: problems of these pools were used to extract v_hack, so the cosines are not held out."
        )
    elif any("seen_by_v_hack" in pool and pool["seen_by_v_hack"] is None for pool in pools):
        lines.append(
            "\nCaveat: v_hack does not say which problems it was extracted from; the cosines may not be held out."
        )
    if any(pool.get("same_problem") is False for pool in pools):
        lines.append("\nCaveat: the pools share no problems, so pool and problem cannot be told apart.")
    return "".join(lines)


def replay_blocks(runs: Sequence[Run]) -> list[Block]:
    blocks: list[Block] = []
    for setting in sorted({run.setting for run in runs}):
        group = [run for run in runs if run.setting == setting]
        blocks.append(Heading(f"Phase 2: mixed-replay GRPO, v_hack {setting[1]}"))
        blocks.append(f"model {setting[0]}; pools {setting[2]}{pool_caveats(group)}")
        blocks += [verification_table(group), advantage_table(group), pool_table(group)]
        blocks += decision_blocks(group) if any(run.control == "none" for run in group) else []
    return blocks
