"""Phases 1 and 2: the NLL probe and the mixed-replay GRPO probe, and the decision that follows from them.

What the figures mean is decided in phase1.py, verification.py and decision.py; this file lays out the tables.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from hackward.base import statistics
from hackward.base.statistics import defined, share
from hackward.reports.arms import unique
from hackward.reports.buckets import bucket_of, describe, in_buckets, pull
from hackward.reports.decision import decision_rules, recommend
from hackward.reports.evidence import gather_evidence
from hackward.reports.phase1 import judge_phase1, phase1_tests, steps_without_spread
from hackward.reports.runs import Run
from hackward.reports.tables import INDENT, Block, Caveat, Conclusion, Heading, Record, Table, flat, shown
from hackward.reports.thresholds import TINY_ADVANTAGE, lower
from hackward.reports.verification import TITLES, judge_run
from hackward.reports.words import UNDEFINED, null_words, p_value, plain, signed, with_interval

EARLIER = """\
To compare with: what the author of the experiment had found with an earlier program (Qwen3-4B, 160 samples; \
reported to us, no file of it is kept): pure hack +0.747, hack and correct +0.398, Welch t 4.46, p < 1e-4; \
cos_out < cos_in on 20 of 20 steps, frac_fired about 0.65."""


def phase1_blocks(runs: Sequence[Run]) -> list[Block]:
    blocks: list[Block] = [Heading("Phase 1: NLL cosine of each sample, one pool"), *pool_caveats(runs)]
    for run in runs:
        verdict, why = judge_phase1(run.samples)
        blocks += [phase1_buckets(run), phase1_comparisons(run), phase1_lines(run)]
        blocks.append(Conclusion(f"Verdict: {verdict.upper()}. {why}"))
    return [*blocks, EARLIER]


def _bucket_null_cell(record: Record) -> str:
    """The null of a bucket's mean; a bucket without a mean has none."""
    if not record["problems"]:
        return UNDEFINED
    low, high = record["null_low"], record["null_high"]
    return null_words(None if low is None else (low, high))


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
        ("null", _bucket_null_cell),
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
        ("t", shown("t", plain)),
        ("df", shown("df", lambda value: plain(value, 1))),
        ("p", shown("p", p_value)),
    )
    title = f"{run.label}: Welch tests (same problem: paired t)"
    return Table("phase1_tests", title, columns, records)


def phase1_lines(run: Run) -> str:
    """The sentences under the two tables: GRPO undefined, mechanism."""
    empty, steps = steps_without_spread(run.samples)
    state = UNDEFINED if empty == steps else "defined on the other steps"
    grpo = f"GRPO cosine: {state}; "
    grpo += f"every group's reward spread (so every advantage) is 0 on {empty} of {steps} steps."
    drop = "cos_out < cos_in: undefined, no cosines"
    before_after = zip(run.column("cos_in"), run.column("cos_out"), strict=True)
    pairs = [(before, after) for before, after in before_after if None not in (before, after)]
    if pairs:
        falls = sum(lower(after, before) for before, after in pairs)
        drop = f"cos_out < cos_in on {falls} of {len(pairs)} steps"
    fired = plain(statistics.mean(run.column("frac_fired")))
    unlabelled = sum(bucket_of(sample) is None for sample in run.samples)
    missing = f" {unlabelled} samples without labels are left out." if unlabelled else ""
    return f"{grpo}\n{drop}; frac_fired mean {fired}.{missing}"


def replay_blocks(runs: Sequence[Run]) -> list[Block]:
    """A section per setting: verification, advantages, pools, and (not for controls alone) the decision."""
    blocks: list[Block] = []
    for setting in sorted({run.setting for run in runs}):
        model, direction, pools = setting
        group = [run for run in runs if run.setting == setting]
        blocks.append(Heading(f"Phase 2: mixed-replay GRPO, v_hack {direction}"))
        blocks.append(f"model {model}; pools {pools}")
        blocks += pool_caveats(group)
        blocks += [verification_table(group), advantage_table(group), pool_table(group)]
        if any(run.arm.control == "none" for run in group):
            blocks += decision_blocks(group)
    return blocks


def pool_caveats(runs: Sequence[Run]) -> list[Caveat]:
    """What the run writer noted about the pools and bears on the verdicts."""
    pools = [pool for run in runs for pool in run.record["pools"]]
    lines = []
    if any(pool.get("seen_by_v_hack") for pool in pools):
        lines.append(
            "Caveat: problems of these pools were used to extract v_hack, so the cosines are not held out."
        )
    elif any("seen_by_v_hack" in pool and pool["seen_by_v_hack"] is None for pool in pools):
        lines.append(
            "Caveat: v_hack does not say which problems it was extracted from;"
            " the cosines may not be held out."
        )
    if any(pool.get("same_problem") is False for pool in pools):
        lines.append("Caveat: the pools share no problems, so pool and problem cannot be told apart.")
    return [Caveat("\n".join(lines))] if lines else []


def verification_table(runs: Sequence[Run]) -> Table:
    judged = [(run, judge_run(run)) for run in runs]
    records = []
    for metric, title in TITLES.items():
        for run, rows in judged:
            named = {"metric": title, "direction": run.direction, "run": run.label, "arm": run.arm.flag}
            records.append(named | vars(rows[metric]))
    columns = tuple((key, shown(key)) for key in ("metric", "run", "measured", "verdict", "why"))
    title = "Verification (in brackets: what success is)"
    return Table("phase2_verification", title, columns, records, sections=True)


LEVELS = (0, 5, 25, 50, 75, 95, 100)  # per cent, of the quantiles of advantages


def advantage_table(runs: Sequence[Run]) -> Table:
    """Row 1's sneaky failure in full: the distribution of all advantages of a run."""
    records = []
    for run in runs:
        values = defined(value for step in run.column("advantages") for value in step)
        cuts = [float(cut) for cut in np.percentile(values, LEVELS)] if values else [None] * len(LEVELS)
        record: Record = {
            "run": run.label,
            "n": len(values),
            "zero": share(sum(value == 0 for value in values), len(values)),
            "tiny": share(sum(0 < abs(value) < TINY_ADVANTAGE for value in values), len(values)),
        }
        records.append(record | {f"q{level}": cut for level, cut in zip(LEVELS, cuts, strict=True)})
    columns = (
        ("run", shown("run")),
        ("n", shown("n")),
        ("share 0", shown("zero", plain)),
        (f"tiny (<{TINY_ADVANTAGE:g})", shown("tiny", plain)),
        *((f"{level} %", shown(f"q{level}", lambda value: signed(value, 2))) for level in LEVELS),
    )
    title = "Advantages: share that is exactly 0, share that is tiny but not 0, quantiles"
    return Table("phase2_advantages", title, columns, records)


YES_NO = {True: "yes", False: "no", None: "no label"}


def pool_table(runs: Sequence[Run]) -> Table:
    """Row 4 in full: both cosines by (src_pool, hacked), and how much each bucket pulls on the gradient."""
    records = []
    for run in runs:
        buckets: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
        for sample in run.samples:
            buckets[sample["src_pool"], YES_NO[sample["hacked"]]].append(sample)
        for (pool, hacked), samples in sorted(buckets.items(), reverse=True):
            for key in ("cos_S_contrib", "cos_S_logp"):
                names = {"run": run.label, "pool": pool, "hacked": hacked, "cosine": key}
                records.append(names | _pool_figures(samples, key, len(run.rows)))
    columns = (
        ("run", shown("run")),
        ("pool", shown("pool")),
        ("hacked", shown("hacked")),
        ("cos_S", shown("cosine", lambda name: name.removeprefix("cos_S_"))),
        ("n", lambda record: f"{record['n']} ({record['problems']})"),
        ("mean [95 %]", shown("over", with_interval)),
        ("null", _bucket_null_cell),
        ("> 0", shown("positive", plain)),
        ("pull per step", _pull_cell),
    )
    title = "Contributions by (src_pool, hacked)"
    note = "n: rollouts (problems), intervals over problems; pull = sum of cosine x norm"
    return Table("phase2_pools", f"{title}; {note}", columns, records, sections=True)


def _pool_figures(samples: Sequence[dict[str, Any]], key: str, steps: int) -> Record:
    found = describe(samples, key)
    over = found["over_problems"]
    return {
        "n": len(samples),
        "problems": found["problems"],
        "over": over,
        **flat(over, "problem_"),
        **{name: found[name] for name in ("null_low", "null_high", "positive")},
        "pull": pull(samples, steps) if key == "cos_S_contrib" else None,
    }


def _pull_cell(record: Record) -> str:
    if record["cosine"] == "cos_S_logp":
        return "-"
    return UNDEFINED if record["pull"] is None else f"{record['pull']:+.1e}"


def decision_blocks(runs: Sequence[Run]) -> list[Block]:
    """The decision rules on the runs of one setting, and what follows."""
    evidence = gather_evidence(runs)
    rules = decision_rules(evidence)
    applies = {True: "yes", False: "no", None: UNDEFINED}
    records = []
    for rule in rules.values():
        records.append({"direction": runs[0].direction, **vars(rule), "applies": applies[rule.applies]})
    columns = tuple((key, shown(key)) for key in ("rule", "measured", "applies", "meaning"))
    headline, following = recommend(rules, evidence)
    lines = [headline, *(f"{INDENT}next: {line}" for line in following)]
    real = [run for run in runs if run.arm.control == "none"]
    kept = {run.path for run in unique(real)}
    again = [run.label for run in real if run.path not in kept]
    if again:
        lines.append(f"Same settings and seed as another run, not counted: {', '.join(again)}.")
    return [
        Table("phase3_decision", "Phase 3: decision rules", columns, records),
        Conclusion("\n".join(lines)),
    ]
