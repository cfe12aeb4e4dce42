"""The rules that stop a sweep: the probe's decision, does vanilla hack, does the first arm separate."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hackward.base.arms import ARMS
from hackward.base.faults import InputError
from hackward.base.files import file_hash
from hackward.base.statistics import defined, paired
from hackward.reports.decision import decision_rules, recommend
from hackward.reports.evidence import gather_evidence
from hackward.reports.onset import curve
from hackward.reports.probe_tables import decision_blocks
from hackward.reports.runs import Run, find_runs
from hackward.reports.tables import Block
from hackward.reports.words import plain, with_interval
from hackward.scheduling.jobs import Job, named_file
from hackward.scheduling.plan import Stages
from hackward.tasks.shipped import is_embedded

CEILING_SEEDS = 3  # spec: "when 3 seeds x 1 arm show no separation, stop"
NEVER_HACKED = 0.05  # ours: a last-5 hack rate below it in every vanilla seed leaves nothing to suppress
# What the headlines of `reports.decision.recommend` begin with that do not allow a sweep.
REFUSALS = ("NO-GO", "STOP", "NOT YET", "NO DECISION")


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
    """Are these two names of one model?"""
    if is_embedded(one) and is_embedded(other):
        return True
    return Path(one).resolve() == Path(other).resolve()


def unprobed(v_hack: str, coordinates: str, probed: Sequence[str]) -> str:
    """Why no run of the probe judges this V, and what would."""
    if not named_file(v_hack):
        return (
            "cannot be compared: each run extracts its own V, with the denominator of its own loss, which a"
            " replayed one need not share; write one with extract_vhack.py --out=FILE, give --v-hack=FILE to"
            " the probe and after --"
        )
    # The probe runs both arms of the svd basis by itself; those of a LoRA are asked for one by one.
    lora = [arm.flags for arm in ARMS.values() if arm.basis == "lora"]
    ways = [[]] if coordinates == "svd" else lora
    commands = [shlex.join(["python", "probe_distill.py", f"--v-hack={v_hack}", *flags]) for flags in ways]
    return f"not among the probe's ({', '.join(probed)}); judge it first: {' and '.join(commands)}"


def judge_probe(probe: Path, jobs: Sequence[Job]) -> tuple[list[Block], list[Decision]]:
    """The decision rules on a finished Phase 2 probe: its tables, and one decision per direction.

    Every V of the sweep must have been judged by the probe, on the sweep's model. A sweep that measures no V
    at all (--v-hack=none) goes by every direction of the probe. InputError where there is no such probe.
    """
    groups = _settings_of_probe(probe)
    model = jobs[0].settings.model
    names = {_model_of(group) for group in groups}
    groups = [group for group in groups if same_model(_model_of(group), model)]
    if not groups:
        judged = f"judged on {', '.join(sorted(names))}"
        verdict = f"{judged}, this sweep trains {model} (`-- --model=M` says which)"
        return [], [Decision("probe, model", verdict, True)]
    used = {job.settings.v_hack: job.coordinates for job in jobs if job.settings.v_hack != "none"}
    blocks: list[Block] = []
    unjudged, decisions = [], []
    judging = [] if used else groups
    for v_hack, coordinates in used.items():
        own = _with_v_hack(groups, v_hack)
        judging += own
        if not own:
            why = unprobed(v_hack, coordinates, [group[0].direction for group in groups])
            unjudged.append(Decision(f"probe, v_hack {v_hack}", why, True))
    for group in judging:
        evidence = gather_evidence(group)
        headline, following = recommend(decision_rules(evidence), evidence)
        blocks += decision_blocks(group)
        rule, stop = f"probe, v_hack {group[0].direction}", headline.startswith(REFUSALS)
        decisions.append(Decision(rule, headline, stop, {"next": following}))
    return blocks, unjudged + decisions


def _settings_of_probe(directory: Path) -> list[list[Run]]:
    """The replayed runs of a probe by their settings; those with a run that is no control."""
    runs = [run for run in find_runs(directory)[0] if run.kind == "replay"]
    groups = [
        [run for run in runs if run.setting == setting] for setting in sorted({r.setting for r in runs})
    ]
    groups = [group for group in groups if any(run.arm.control == "none" for run in group)]
    if not groups:
        raise InputError(f"{directory}: no finished Phase 2 run in it")
    return groups


def _model_of(group: Sequence[Run]) -> str:
    return str((group[0].record["model"] or {}).get("name"))


def _with_v_hack(groups: Sequence[list[Run]], v_hack: str) -> list[list[Run]]:
    """The groups that measured with this very file; none for a V that each run extracts."""
    if not named_file(v_hack):
        return []
    wanted = file_hash(v_hack)[:16]
    return [group for group in groups if (group[0].record["v_hack"] or {}).get("hash") == wanted]


def _rates(jobs: Sequence[Job]) -> dict[int, list[float | None]]:
    """The hack rates of the steps by seed, of the runs that are done."""
    return {job.seed: [row["hack_rate"] for row in job.rows()] for job in jobs if job.state == "done"}


Rates = Mapping[int, Sequence[float | None]]


def _areas(rates: Rates, others: Rates) -> dict[int, float | None]:
    """The areas under the curves of an arm by seed; of a seed that the other has too, over the steps that
    both have."""
    return {seed: curve(own[: len(others.get(seed, own))])[2] for seed, own in rates.items()}


def judge_vanilla(vanilla: Sequence[Job]) -> Decision:
    """Is there anything to suppress?

    Not where the mean hack rate of the last 5 steps is below NEVER_HACKED in every seed.
    """
    rule = f"does {vanilla[0].arm} hack?"
    last = {seed: curve(rates)[1] for seed, rates in _rates(vanilla).items()}
    figures = {"last5_hack_rate": last, "threshold": NEVER_HACKED}
    known = defined(last.values())
    if len(known) < CEILING_SEEDS or len(known) < len(last):
        verdict = f"undecided: last 5 steps known for {len(known)} seeds, {CEILING_SEEDS} needed"
        return Decision(rule, verdict, False, figures)
    listing = ", ".join(f"s{seed} {plain(value, 3)}" for seed, value in last.items())
    if max(known) < NEVER_HACKED:
        verdict = f"hack rate of the last 5 steps below {NEVER_HACKED:g} in every seed ({listing})"
        return Decision(rule, f"nothing to suppress: {verdict}", True, figures)
    return Decision(rule, f"yes: hack rate of the last 5 steps {listing}", False, figures)


def judge_separation(vanilla: Sequence[Job], other: Sequence[Job]) -> Decision:
    """The ceiling: does the arm hack less than its baseline, beyond chance?

    Compared are the areas under the hack-rate curve, arm minus baseline, paired by seed: the interval of
    their mean must lie below 0. That of differences which are equal in all seeds is [mean, mean]. Where one
    of the two runs ended sooner, the area is that of the steps that both have.
    """
    rule = f"ceiling: does {other[0].arm} separate from {vanilla[0].arm}?"
    rates, baseline_rates = _rates(other), _rates(vanilla)
    areas, baseline_areas = _areas(rates, baseline_rates), _areas(baseline_rates, rates)
    gap = paired(areas, baseline_areas)
    figures = {other[0].arm: areas, vanilla[0].arm: baseline_areas} | vars(gap)
    if gap.n_first < CEILING_SEEDS:
        verdict = f"undecided: {gap.n_first} seeds finished in both arms, {CEILING_SEEDS} needed"
        return Decision(rule, verdict, False, figures)
    measured = f"area under the hack-rate curve {with_interval(gap)} over {gap.n_first} seeds"
    if gap.high is not None and gap.high < 0:
        return Decision(rule, f"yes: {measured}", False, figures)
    return Decision(rule, f"no separation: {measured}; stop, save the runs that follow", True, figures)


def judge(groups: Stages, name: str) -> Decision | None:
    """The verdict after a stage; None where no rule looks at it, or nothing waits for it."""
    if name not in ("baseline", "first") or len(groups) == 1:
        return None
    # Where vanilla comes before it, vanilla is not the first arm's baseline.
    last = groups["baseline"][-1].arm
    baseline = [job for job in groups["baseline"] if job.arm == last]
    return judge_vanilla(baseline) if name == "baseline" else judge_separation(baseline, groups["first"])
