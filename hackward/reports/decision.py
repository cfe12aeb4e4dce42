"""The decision rules before Phase 3: is a sweep justified? Numbers in, verdicts out."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from hackward.base import statistics
from hackward.base.statistics import defined, estimate
from hackward.reports.evidence import Evidence
from hackward.reports.thresholds import (
    ABOUT_ZERO,
    CHEAP_REWARD,
    MOST_STEPS,
    STRONG_COSINE,
    alternates,
    below_zero,
    mean_about_zero,
    on_most,
    steps_about_zero,
    within_null,
)
from hackward.reports.words import beside_null, signed, with_interval
from hackward.tasks.shipped import is_embedded, is_random


class RuleName(StrEnum):
    """A decision rule, in the order of the table."""

    SKIP = "skip"
    ONE_SIDED = "one-sided"
    LATER = "later"
    ALTERNATES = "alternates"
    STRONG = "strong"
    WORKS = "works"
    OVER = "over-projection"
    CEILING = "ceiling"


@dataclass(frozen=True)
class Rule:
    """A decision rule with what was measured for it."""

    rule: str
    measured: str
    applies: bool | None
    """None: undefined."""
    meaning: str


Rules = Mapping[RuleName, Rule]


BEFORE_THE_EDIT = (
    "This rule reads the cosine before the edit, row 3 of the verification compares before with after:"
    " the two may differ"
)


def both(first: bool | None, second: bool | None) -> bool | None:
    """Three-valued and: one False settles it, otherwise anything unknown leaves it unknown."""
    if first is False or second is False:
        return False
    return None if first is None or second is None else True


def negate(value: bool | None) -> bool | None:
    return None if value is None else not value


def decision_rules(evidence: Evidence) -> dict[RuleName, Rule]:
    """Each decision rule of the spec, in its order, with what was measured and whether it applies."""
    return _rules_on_vanilla(evidence) | _rules_on_projected(evidence)


def _rules_on_vanilla(evidence: Evidence) -> dict[RuleName, Rule]:
    cos_in = evidence.vanilla_cos_in
    known, apart = defined(cos_in), evidence.discriminates
    zero = steps_about_zero(known)
    near = sum(abs(value) < ABOUT_ZERO for value in known)
    strong = sum(value > STRONG_COSINE for value in known)
    level = f"vanilla cos_in {with_interval(estimate(known))}, {beside_null(evidence.vanilla_null)}; "
    level += f"|cos_in| < {ABOUT_ZERO:g} on {near} of {len(known)}"
    rich = sum(reward > CHEAP_REWARD for reward in evidence.base_rewards)
    clean = evidence.roles.clean
    return {
        RuleName.SKIP: Rule(
            "cos_in about 0 on all steps and no discrimination between the pools",
            f"{level}. Pools: {evidence.separation}",
            both(zero, negate(apart)),
            "skip Phase 3, cheaper things first",
        ),
        RuleName.ONE_SIDED: Rule(
            f"no {clean} sample earns more than {CHEAP_REWARD:g}",
            f"{rich} of {len(evidence.base_rewards)} {clean} samples do",
            rich == 0 if evidence.base_rewards else None,
            f"the variance is one-sided: look for {clean} samples that solve",
        ),
        RuleName.LATER: Rule(
            "cos_in about 0 on all steps alone",
            level,
            both(zero, apart),
            "may matter later (about step 80): smaller effect",
        ),
        RuleName.ALTERNATES: Rule(
            "cos_in alternates: steps of both signs cancel in the mean",
            level,
            alternates(known),
            "not orthogonal: hack-ward on some steps, away from it on others",
        ),
        RuleName.STRONG: Rule(
            f"cos_in > {STRONG_COSINE:g} consistently",
            f"on {strong} of {len(known)} steps (needs {MOST_STEPS:.0%})",
            on_most(strong, len(known)) if len(known) > 1 else None,
            "Phase 3 is justified",
        ),
    }


def _rules_on_projected(evidence: Evidence) -> dict[RuleName, Rule]:
    vanilla = evidence.vanilla_cos_in
    means = [statistics.mean(run.cos_in) for run in evidence.projected]
    lines = []
    for run, mean in zip(evidence.projected, means, strict=True):
        left = f"after the edit {signed(statistics.mean(run.after))}, {beside_null(run.null_after)}"
        lines.append(f"{run.run} {signed(mean)}, {beside_null(run.null_in)} ({left})")
    listed = "; ".join(lines) or "no projected run"
    before = f"{listed}. {BEFORE_THE_EDIT}" if lines else listed
    known = defined(means)
    works = all(mean < ABOUT_ZERO for mean in known) if known and len(known) == len(means) else None
    driven = [both(below_zero(run.cos_in), negate(below_zero(vanilla))) for run in evidence.projected]
    return {
        RuleName.WORKS: Rule(f"projected cos_in < {ABOUT_ZERO:g}", before, works, "the mechanism works"),
        RuleName.OVER: Rule(
            "projection drives cos_in below 0",
            f"{listed}; vanilla {signed(statistics.mean(vanilla))}",
            _any_of(driven),
            "a bug",
        ),
        RuleName.CEILING: Rule(
            "ceiling: 3 seeds x 1 arm show no separation",
            "needs the sweep",
            None,
            "stop, save the other six runs",
        ),
    }


def _any_of(values: list[bool | None]) -> bool | None:
    """Three-valued or; None for no value at all."""
    if True in values:
        return True
    return None if None in values or not values else False


SWEEP = (
    "python train.py {preset} --arm=ARM --seed=SEED (3 seeds of vanilla and one other arm first: the ceiling)"
)
ON_POLICY = (
    "python train.py {preset} --steps=60, once per --arm and once with --control=random: 20 steps mislead"
)
RE_EXTRACT = (
    "another V: python extract_vhack.py --pool=TEACHER_POOL --problems=P --out=FILE,"
    " then Phase 2 with --v-hack=FILE"
)
MORE_GROUPS = (
    "more groups per step, so that one step is not one problem:"
    " python probe_distill.py --loss-mode=grpo --prompts=8 --replay-dirs=A,B --out=DIR"
)
SOLVING_SAMPLES = "base samples that earn > 0.5: python probe_distill.py --base-only on easier problems"
WHICH_HALF = (
    "signs that still alternate then: see which half outweighs the other, step by step"
    " (step_*.cos.jsonl.gz), before anything is claimed from a mean"
)


def _sweep(evidence: Evidence) -> str:
    return SWEEP.format(preset=_preset(evidence.model, "full"))


def _on_policy(evidence: Evidence) -> str:
    return ON_POLICY.format(preset=_preset(evidence.model, "fast"))


def _preset(model: str | None, usual: str) -> str:
    """The preset that suits the model that was probed, and the model where the preset has another one."""
    if model is None:
        return f"--preset={usual}"
    if is_embedded(model):
        return "--preset=embedded"
    if is_random(model):
        return f"--preset=smoke --model={shlex.quote(model)}"
    return f"--preset={usual} --model={shlex.quote(model)}"


Advice = tuple[str, list[str]]  # headline, what to run next


def recommend(rules: Rules, evidence: Evidence) -> Advice:
    """(headline, what to run next). The first of these that holds decides."""
    return (
        _refusal(rules, evidence)
        or _not_yet(rules, evidence)
        or _go(rules, evidence)
        or _undefined(rules, evidence)
        or _undecided(evidence)
    )


def _refusal(rules: Rules, evidence: Evidence) -> Advice | None:
    if evidence.dead_signal:
        next_steps = [*evidence.dead_signal, "mix pools that differ in reward"]
        return "NO DECISION: no usable advantage signal", next_steps
    if rules[RuleName.OVER].applies:
        check = "check the gate and the orthonormality of V, then Phase 2 again"
        return "STOP: over-projection, a bug", [check]
    if rules[RuleName.SKIP].applies:
        next_steps = [RE_EXTRACT]
        if rules[RuleName.ONE_SIDED].applies:
            next_steps.append(SOLVING_SAMPLES)
        return "NO-GO: skip Phase 3", next_steps
    if below_zero(evidence.vanilla_cos_in):
        explain = "explain the sign (row 2 of the table) before anything is paid for"
        return "NO-GO: cos_in is negative", [explain]
    return None


def _not_yet(rules: Rules, evidence: Evidence) -> Advice | None:
    if rules[RuleName.ALTERNATES].applies:
        return "NOT YET: vanilla cos_in alternates between steps", [MORE_GROUPS, WHICH_HALF]
    chance = _by_chance(rules, evidence)
    if chance:
        again = f"more pairs (its null narrows), or {RE_EXTRACT}"
        return "NOT YET: vanilla cos_in is within its null", [*chance, again]
    if not (rules[RuleName.STRONG].applies or rules[RuleName.LATER].applies):
        return None
    if evidence.dead_mechanism:
        headline = "NOT YET: the gradient is worth projecting, the projection does not work"
        return headline, list(evidence.dead_mechanism)
    if not evidence.projected:
        preset = _preset(evidence.model, "fast")
        run = f"python train.py {preset} --arm=projected --replay-dirs=A,B --steps=20"
        return "NOT YET: the mechanism is unmeasured", [run]
    return None


def _by_chance(rules: Rules, evidence: Evidence) -> tuple[str, ...]:
    """The runs whose cos_in is within its null.

    About 0 is within every null: then it is the pools that decide.
    """
    if evidence.dead_direction or rules[RuleName.LATER].applies:
        return evidence.dead_direction
    together = within_null(evidence.vanilla_cos_in, evidence.vanilla_null)
    return ("all vanilla runs together",) if together else ()


def _go(rules: Rules, evidence: Evidence) -> Advice | None:
    if rules[RuleName.STRONG].applies:
        return "GO: Phase 3 is justified", [_sweep(evidence)]
    if rules[RuleName.LATER].applies:
        return "GO, with a smaller expected effect", [_on_policy(evidence), _sweep(evidence)]
    return None


def _undefined(rules: Rules, evidence: Evidence) -> Advice | None:
    deciding = (RuleName.SKIP, RuleName.LATER, RuleName.STRONG)
    if all(rules[name].applies is not None for name in deciding):
        return None
    few = steps_about_zero(evidence.vanilla_cos_in) is None
    missing = "vanilla replay with cos_in" if few else "both pool buckets"
    return "NO DECISION: undefined", [f"missing: {missing}", "python probe_distill.py --loss-mode=grpo"]


def _undecided(evidence: Evidence) -> Advice:
    weak = mean_about_zero(evidence.vanilla_cos_in)
    found = "about 0 in the mean though not on all steps" if weak else "hack-ward"
    headline = f"UNDECIDED: {found}, but not > {STRONG_COSINE:g} consistently; no rule of the spec covers it"
    return headline, [_on_policy(evidence)]
