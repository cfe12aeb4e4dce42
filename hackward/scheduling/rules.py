"""The rules that stop a sweep: the probe's decision, does vanilla hack, does the first arm separate."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hackward.base.faults import InputError
from hackward.base.files import file_hash
from hackward.base.statistics import defined, paired
from hackward.reports.decision import decision_rules, recommend
from hackward.reports.evidence import gather_evidence
from hackward.reports.onset import curve
from hackward.reports.probe_tables import decision_blocks
from hackward.reports.runs import find_runs
from hackward.reports.tables import Block
from hackward.reports.words import plain, with_interval
from hackward.scheduling.plan import BASELINES, Job, SweepFlags, coordinates, named_file
from hackward.tasks.shipped import is_embedded

CEILING_SEEDS = 3  # spec: "when 3 seeds x 1 arm show no separation, stop"
NEVER_HACKED = 0.05  # ours: a last-5 hack rate below it in every vanilla seed leaves nothing to suppress
REFUSALS = (
    "NO-GO",
    "STOP",
    "NOT YET",
    "NO DECISION",
)  # headlines of verdicts.recommend that do not allow a sweep


@dataclass(frozen=True)
class Decision:
    """What a rule says and from which figures; `stop`: it asks to withhold the runs that follow."""

    rule: str
    verdict: str
    stop: bool
    figures: dict = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.rule}: {self.verdict}"


def same_model(one: str, other: str) -> bool:
    return Path(one).resolve() == Path(other).resolve() or is_embedded(one) and is_embedded(other)


def unprobed(v_hack: str, basis: str, probed: Sequence[str]) -> str:
    """Why no run of the probe judges this V, and what would."""
    if not named_file(v_hack):
        return (
            "cannot be compared: each run extracts its own V, with the denominator of its own loss, which a replayed one need not share; "
            "write one with extract_vhack.py --out=FILE, give --v-hack=FILE to the probe and after --"
        )
    needed = (
        [f"--v-hack={v_hack}"]
        if basis == "svd"
        else [f"--v-hack={v_hack} --arm=lora --gate=none", f"--v-hack={v_hack} --arm=lora"]
    )
    return f"not among the probe's ({', '.join(probed)}); judge it first: {' and '.join(f'python probe_distill.py {flags}' for flags in needed)}"


def judge_probe(config: SweepFlags, jobs: Sequence[Job]) -> tuple[list[Block], list[Decision]]:
    """The decision rules on a finished Phase 2 probe, for every V of the sweep, which the probe must have judged on the sweep's model.

    A sweep that measures no V at all (--v-hack=none) goes by every direction of the probe.
    """
    runs, _ = find_runs(Path(config.probe))
    runs = [run for run in runs if run.kind == "replay"]
    groups = [
        [run for run in runs if run.setting == setting] for setting in sorted({run.setting for run in runs})
    ]
    groups = [group for group in groups if any(run.arm.control == "none" for run in group)]
    if not groups:
        raise InputError(f"{config.probe}: no finished Phase 2 run in it")
    model, names = (
        jobs[0].settings.model,
        [str((group[0].record["model"] or {}).get("name")) for group in groups],
    )
    groups = [group for group, name in zip(groups, names, strict=True) if same_model(name, model)]
    if not groups:
        return [], [
            Decision(
                "probe, model",
                f"judged on {', '.join(sorted(set(names)))}, this sweep trains {model} (`-- --model=M` says which)",
                True,
            )
        ]
    used, blocks, decisions = (
        {job.settings.v_hack: coordinates(job) for job in jobs if job.settings.v_hack != "none"},
        [],
        [],
    )
    by_hash = lambda wanted: [
        group for group in groups if (group[0].record["v_hack"] or {}).get("hash") == wanted
    ]  # noqa: E731
    own = {v: by_hash(file_hash(v)[:16]) if named_file(v) else [] for v in used}
    for v in [v for v in used if not own[v]]:
        decisions.append(
            Decision(
                f"probe, v_hack {v}", unprobed(v, used[v], [group[0].direction for group in groups]), True
            )
        )
    for group in [group for found in own.values() for group in found] if used else groups:
        evidence = gather_evidence(group)
        headline, following = recommend(decision_rules(evidence), evidence)
        blocks += decision_blocks(group)
        decisions.append(
            Decision(
                f"probe, v_hack {group[0].direction}",
                headline,
                headline.startswith(REFUSALS),
                {"next": following},
            )
        )
    return blocks, decisions


def judge_vanilla(vanilla: Sequence[Job]) -> Decision:
    """Nothing to suppress: the mean hack rate of the last five steps is below NEVER_HACKED in every seed of the baseline."""
    rule = f"does {vanilla[0].arm} hack?"
    last = {
        job.seed: curve([row["hack_rate"] for row in job.rows()])[1] for job in vanilla if job.state == "done"
    }
    figures = {"last5_hack_rate": last, "threshold": NEVER_HACKED}
    listing = ", ".join(f"s{seed} {plain(value, 3)}" for seed, value in last.items())
    if len(last) < CEILING_SEEDS or None in last.values():
        return Decision(
            rule,
            f"undecided: last 5 steps known for {len(defined(last.values()))} seeds, {CEILING_SEEDS} needed",
            False,
            figures,
        )
    if all(value < NEVER_HACKED for value in last.values()):
        return Decision(
            rule,
            f"nothing to suppress: hack rate of the last 5 steps below {NEVER_HACKED:g} in every seed ({listing})",
            True,
            figures,
        )
    return Decision(rule, f"yes: hack rate of the last 5 steps {listing}", False, figures)


def judge_separation(vanilla: Sequence[Job], other: Sequence[Job]) -> Decision:
    """The ceiling: the area under the hack-rate curve, arm minus baseline paired by seed, must be below 0 beyond chance."""
    area = [
        {
            (job.seed,): curve([row["hack_rate"] for row in job.rows()])[2]
            for job in arm
            if job.state == "done"
        }
        for arm in (other, vanilla)
    ]
    gap = paired(*area)
    rule = f"ceiling: does {other[0].arm} separate from {vanilla[0].arm}?"
    figures = {
        arm[0].arm: {s: value for (s,), value in known.items()}
        for arm, known in zip((other, vanilla), area, strict=True)
    } | vars(gap)
    measured = f"area under the hack-rate curve {with_interval(gap)} over {gap.n_first} seeds"
    if gap.n_first < CEILING_SEEDS:
        return Decision(
            rule,
            f"undecided: {gap.n_first} seeds finished in both arms, {CEILING_SEEDS} needed",
            False,
            figures,
        )
    # Equal differences in all seeds have no interval: then the sign alone decides.
    if gap.high < 0 if gap.high is not None else gap.difference < 0:
        return Decision(rule, f"yes: {measured}", False, figures)
    return Decision(rule, f"no separation: {measured}; stop, save the runs that follow", True, figures)


Stages = dict[
    str, list[Job]
]  # in the order of running: baseline, first (projecting arm), rest; or all, where none waits for another


def arms_of(jobs: Sequence[Job]) -> set[str]:
    return {job.arm for job in jobs if job.control == "none"}


def stages(jobs: Sequence[Job], config: SweepFlags) -> Stages:
    """The baseline of the first projecting arm that has one (and vanilla, where that is another), that arm, the rest."""
    planned = arms_of(jobs)
    pairs = [
        (arm, baseline)
        for arm, known in BASELINES.items()
        for baseline in known
        if {arm, baseline} <= planned
    ]
    first, baseline = pairs[0] if pairs else (None, "vanilla")
    if config.anyway or baseline not in planned:
        return {"all": list(jobs)}
    place = {"vanilla": "baseline", baseline: "baseline", first: "first"}
    groups: Stages = {"baseline": [], "first": [], "rest": []}
    for job in jobs:
        groups["rest" if job.control != "none" else place.get(job.arm, "rest")].append(job)
    return {name: group for name, group in groups.items() if group}


def judge(groups: Stages, name: str) -> Decision | None:
    """The verdict after a stage; None where no rule looks at it, or nothing waits for it."""
    if name not in ("baseline", "first") or len(groups) == 1:
        return None
    baseline = [
        job for job in groups["baseline"] if job.arm == groups["baseline"][-1].arm
    ]  # where vanilla comes before it, vanilla is not the first arm's
    return judge_vanilla(baseline) if name == "baseline" else judge_separation(baseline, groups["first"])
