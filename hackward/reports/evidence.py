"""What the decision rules look at, gathered from the replay runs of one setting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hackward.base.statistics import Range, defined
from hackward.reports.arms import unique
from hackward.reports.contrast import USUAL, Contrast, Roles, contrast_pools, why_no_roles
from hackward.reports.nulls import null_of
from hackward.reports.runs import Run
from hackward.reports.thresholds import within_null
from hackward.reports.verification import Judgement, Metric, judge_run
from hackward.reports.words import NOT_JUDGED, PASS, SNEAKY, p_value, with_interval


@dataclass(frozen=True)
class Projected:
    """One projecting run: cosines before the edit, and of what the edit left (cos_out or cos_update)."""

    run: str
    cos_in: tuple[float | None, ...]
    after: tuple[float | None, ...] = ()
    null_in: Range | None = None
    """Of the mean, as is `null_after`."""
    null_after: Range | None = None


@dataclass(frozen=True)
class Evidence:
    """What the decision rules look at, for one direction. None: not measured."""

    vanilla_cos_in: tuple[float | None, ...] = ()
    vanilla_null: Range | None = None
    """Of the mean."""
    roles: Roles = USUAL
    """Which pool hacks, and which does not."""
    discriminates: bool | None = None
    """Are hacks above clean rollouts of the other pool, before the advantage?"""
    separation: str = "not measured"
    base_rewards: tuple[float, ...] = ()
    """Of the pool that does not hack."""
    projected: tuple[Projected, ...] = ()
    dead_signal: tuple[str, ...] = ()
    """Runs that fail row 1 of the verification table: nothing follows from them."""
    dead_direction: tuple[str, ...] = ()
    """Vanilla runs whose cos_in is hack-ward within its null (row 2): V may be any direction."""
    dead_mechanism: tuple[str, ...] = ()
    """Runs that fail row 3: no reason to pay for a projected arm yet."""
    model: str | None = None
    """The model that was probed."""


def gather_evidence(runs: Sequence[Run]) -> Evidence:
    """Pool the vanilla runs of one setting (all seeds, a run counts once however often it was repeated).

    Controls never decide.
    """
    real = unique([run for run in runs if run.arm.control == "none"])
    vanilla = [run for run in real if run.arm.vanilla]
    samples = [sample for run in vanilla for sample in run.samples]
    judged = [(run, judge_run(run)) for run in real]
    found = contrast_pools(samples)
    clean_rows = [sample for sample in samples if found and sample["src_pool"] == found.roles.clean]
    return Evidence(
        vanilla_cos_in=tuple(value for run in vanilla for value in run.column("cos_in")),
        vanilla_null=null_of(vanilla, "cos_in"),
        roles=found.roles if found else USUAL,
        discriminates=found.test("cos_S_logp").larger if found else None,
        separation=_gap(found) if found else why_no_roles(samples),
        base_rewards=tuple(defined(sample["reward"] for sample in clean_rows)),
        projected=tuple(_projected(run) for run in real if run.arm.projects),
        dead_signal=_unfit(judged, Metric.SIGNAL),
        dead_direction=_by_chance(judged),
        dead_mechanism=_unfit(judged, Metric.MECHANISM),
        model=(runs[0].record["model"] or {}).get("name"),
    )


def _gap(found: Contrast) -> str:
    """The difference between the pools before the advantage, in words."""
    roles, test = found.roles, found.test("cos_S_logp")
    return f"cos_S_logp {roles.hacking} - {roles.clean} {with_interval(test)}, p {p_value(test.p)}"


def _projected(run: Run) -> Projected:
    after = run.edited[1]
    return Projected(
        run.label,
        tuple(run.column("cos_in")),
        tuple(run.column(after)),
        null_of([run], "cos_in"),
        null_of([run], after),
    )


Judged = Sequence[tuple[Run, dict[Metric, Judgement]]]


def _unfit(judged: Judged, metric: Metric) -> tuple[str, ...]:
    """The runs that a row of the table neither passes nor leaves out, and why."""
    found = [(run.label, rows[metric]) for run, rows in judged]
    return tuple(
        f"{label}: {row.verdict}, {row.why}" for label, row in found if row.verdict not in (PASS, NOT_JUDGED)
    )


def _by_chance(judged: Judged) -> tuple[str, ...]:
    """The vanilla runs that row 2 finds within their null, and why."""
    found = []
    for run, rows in judged:
        row = rows[Metric.DIRECTION]
        if row.verdict == SNEAKY and within_null(run.column("cos_in"), null_of([run], "cos_in")):
            found.append(f"{run.label}: {row.why}")
    return tuple(found)
