"""The decision rules before Phase 3: is a sweep justified? Numbers in, verdicts out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hackward.base import statistics
from hackward.base.statistics import defined, estimate
from hackward.reports.probe_verdicts import ABOUT_ZERO, MOST_STEPS, about_zero, on_most, within_null
from hackward.reports.words import beside_null, signed, with_interval

STRONG_COSINE = 0.2  # spec: vanilla cos_in > 0.2 consistently justifies Phase 3
CHEAP_REWARD = 0.5  # spec: check that some base samples earn more than the reward for the format alone


# ---------------------------------------------------------------------------------------------- Phase 3, go or not
@dataclass(frozen=True)
class Projected:
    """One projecting run: cosines before the edit, and of what the edit left (cos_out or cos_update)."""

    run: str
    cos_in: tuple[float | None, ...]
    after: tuple[float | None, ...] = ()
    null_in: tuple[float, float] | None = None  # of the means
    null_after: tuple[float, float] | None = None


@dataclass(frozen=True)
class Evidence:
    """What the decision rules look at, for one direction. None: not measured."""

    vanilla_cos_in: tuple[float | None, ...] = ()
    vanilla_null: tuple[float, float] | None = None  # of the mean
    discriminates: bool | None = None  # teacher hacks above base clean, before the advantage
    separation: str = "not measured"
    base_rewards: tuple[float, ...] = ()
    projected: tuple[Projected, ...] = ()
    dead_signal: tuple[
        str, ...
    ] = ()  # runs that fail row 1 of the verification table: nothing follows from them
    dead_direction: tuple[
        str, ...
    ] = ()  # vanilla runs whose cos_in is hack-ward within its null (row 2): V may be any direction
    dead_mechanism: tuple[str, ...] = ()  # runs that fail row 3: no reason to pay for a projected arm yet


@dataclass(frozen=True)
class Rule:
    rule: str
    measured: str
    applies: bool | None  # None: undefined
    meaning: str


def both(first: bool | None, second: bool | None) -> bool | None:
    """Three-valued and: one False settles it, otherwise anything unknown leaves it unknown."""
    if first is False or second is False:
        return False
    return None if first is None or second is None else True


def negate(value: bool | None) -> bool | None:
    return None if value is None else not value


def below_zero(values: Iterable[float | None]) -> bool | None:
    zero, centre = about_zero(values), statistics.mean(values)
    return None if zero is None else centre < 0 and not zero


def decision_rules(evidence: Evidence) -> list[Rule]:
    """Each decision rule of the spec, in its order, with what was measured and whether it applies."""
    cos_in = evidence.vanilla_cos_in
    known, zero, apart = defined(cos_in), about_zero(cos_in), evidence.discriminates
    near = sum(abs(value) < ABOUT_ZERO for value in known)
    level = f"vanilla cos_in {with_interval(estimate(known))}, {beside_null(evidence.vanilla_null)}; |cos_in| < {ABOUT_ZERO:g} on {near} of {len(known)}"
    strong = sum(value > STRONG_COSINE for value in known)
    rich_base = sum(reward > CHEAP_REWARD for reward in evidence.base_rewards)
    means = [statistics.mean(run.cos_in) for run in evidence.projected]
    listed = "; ".join(
        f"{run.run} {signed(statistics.mean(run.cos_in))}, {beside_null(run.null_in)} (after the edit {signed(statistics.mean(run.after))}, {beside_null(run.null_after)})"
        for run in evidence.projected
    )
    listed = listed or "no projected run"
    works = all(value < ABOUT_ZERO for value in means) if means and None not in means else None
    driven = [both(below_zero(run.cos_in), negate(below_zero(cos_in))) for run in evidence.projected]
    over = True if True in driven else None if None in driven or not driven else False
    return [
        Rule(
            "cos_in about 0 and no discrimination between the pools",
            f"{level}. Pools: {evidence.separation}",
            both(zero, negate(apart)),
            "skip Phase 3, cheaper things first",
        ),
        Rule(
            f"no base sample earns more than {CHEAP_REWARD:g}",
            f"{rich_base} of {len(evidence.base_rewards)} base samples do",
            rich_base == 0 if evidence.base_rewards else None,
            "the variance is one-sided: look for base samples that solve",
        ),
        Rule(
            "cos_in about 0 alone",
            level,
            both(zero, apart),
            "may matter later (about step 80): smaller effect",
        ),
        Rule(
            f"cos_in > {STRONG_COSINE:g} consistently",
            f"on {strong} of {len(known)} steps (needs {MOST_STEPS:.0%})",
            on_most(strong, len(known)) if len(known) > 1 else None,
            "Phase 3 is justified",
        ),
        Rule(f"projected cos_in < {ABOUT_ZERO:g}", listed, works, "the mechanism works"),
        Rule(
            "projection drives cos_in below 0",
            f"{listed}; vanilla {signed(statistics.mean(known))}",
            over,
            "a bug",
        ),
        Rule(
            "ceiling: 3 seeds x 1 arm show no separation",
            "needs the sweep",
            None,
            "stop, save the other six runs",
        ),
    ]


SWEEP = "python train.py --preset=full --arm=ARM --seed=SEED (3 seeds of vanilla and one other arm first: the ceiling)"
ON_POLICY = "python train.py --preset=fast --steps=60, once per --arm and once with --control=random: 20 steps mislead"
RE_EXTRACT = "another V: python extract_vhack.py --pool=TEACHER_POOL --problems=P --out=FILE, then Phase 2 with --v-hack=FILE"


def recommend(rules: Sequence[Rule], evidence: Evidence) -> tuple[str, list[str]]:
    """(headline, what to run next). The first line that holds decides."""
    skip, one_sided, later, strong, _, over, _ = (rule.applies for rule in rules)
    chance = evidence.dead_direction
    if (
        not chance and not later and within_null(evidence.vanilla_cos_in, evidence.vanilla_null)
    ):  # about 0 is within every null: `later` rests on the pools
        chance = ("all vanilla runs together",)
    if evidence.dead_signal:
        return "NO DECISION: no usable advantage signal", [
            *evidence.dead_signal,
            "mix pools that differ in reward",
        ]
    if over:
        return "STOP: over-projection, a bug", [
            "check the gate and the orthonormality of V, then Phase 2 again"
        ]
    if skip:
        pool = "base samples that earn > 0.5: python probe_distill.py --base-only on easier problems"
        return "NO-GO: skip Phase 3", [RE_EXTRACT, *([pool] if one_sided else [])]
    if below_zero(evidence.vanilla_cos_in):
        return "NO-GO: cos_in is negative", [
            "explain the sign (row 2 of the table) before anything is paid for"
        ]
    if chance:
        return "NOT YET: vanilla cos_in is within its null", [
            *chance,
            f"more pairs (its null narrows), or {RE_EXTRACT}",
        ]
    if (strong or later) and evidence.dead_mechanism:
        return "NOT YET: the gradient is worth projecting, the projection does not work", [
            *evidence.dead_mechanism
        ]
    if (strong or later) and not evidence.projected:
        return "NOT YET: the mechanism is unmeasured", [
            "python train.py --arm=projected --replay-dirs=A,B --steps=20"
        ]
    if strong:
        return "GO: Phase 3 is justified", [SWEEP]
    if later:
        return "GO, with a smaller expected effect", [ON_POLICY, SWEEP]
    if later is None or skip is None or strong is None:
        missing = (
            "vanilla replay with cos_in"
            if about_zero(evidence.vanilla_cos_in) is None
            else "both pool buckets"
        )
        return "NO DECISION: undefined", [f"missing: {missing}", "python probe_distill.py --loss-mode=grpo"]
    return f"UNDECIDED: hack-ward, but not > {STRONG_COSINE:g} consistently; no rule of the spec covers it", [
        ON_POLICY
    ]
