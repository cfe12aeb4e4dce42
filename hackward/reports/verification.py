"""Phase 2, the verification table: a verdict for each of its four rows, and for a whole run.

Numbers in, verdicts out. A number that does not exist is None with a reason, never NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np

from hackward.base import statistics
from hackward.base.statistics import LEVEL, Range, defined, estimate
from hackward.reports.contrast import Contrast, Pulls, contrast_pools, pulls_by_role, why_no_roles
from hackward.reports.nulls import null_of
from hackward.reports.runs import Run
from hackward.reports.thresholds import (
    ABOUT_ZERO,
    FEW_FIRED,
    LEAST_CHANGE,
    MOST_STEPS,
    SPREAD_GOOD,
    SPREAD_USELESS,
    TINY_ADVANTAGE,
    alternates,
    far_steps,
    lower,
    mean_about_zero,
    on_most,
    steps_about_zero,
    within_null,
)
from hackward.reports.words import (
    ALTERNATES,
    FAIL,
    NOT_JUDGED,
    PASS,
    SNEAKY,
    UNDEFINED,
    beside_null,
    p_value,
    plain,
    signed,
    steps_in_words,
    with_interval,
)


class Metric(StrEnum):
    """A row of the verification table."""

    SIGNAL = "signal"
    DIRECTION = "direction"
    MECHANISM = "mechanism"
    SPECIFICITY = "specificity"


TITLES = {  # in brackets: what success is
    Metric.SIGNAL: f"reward max - min per step (> {SPREAD_GOOD:g})",
    Metric.DIRECTION: "cos_in per step, vanilla (> 0 on most)",
    Metric.MECHANISM: "cos_out < cos_in, projected (16 of 20)",
    Metric.SPECIFICITY: "cos_S_contrib by (src_pool, hacked) (hacks > 0, clean not)",
}


@dataclass(frozen=True)
class Judgement:
    """One row of the verification table for one run."""

    measured: str
    verdict: str
    why: str


def judge_run(run: Run) -> dict[Metric, Judgement]:
    """The four rows for one run; a row that is judged on another arm still shows its figures."""
    before, after = run.edited
    return {
        Metric.SIGNAL: judge_signal(run.column("reward_spread"), run.column("advantages")),
        Metric.DIRECTION: _on_vanilla(
            run,
            judge_direction(run.column("cos_in"), pulls_by_role(run.samples), null_of([run], "cos_in")),
        ),
        Metric.MECHANISM: _on_projecting(
            run,
            judge_mechanism(
                run.column(before), run.column(after), run.column("frac_fired"), null_of([run], after)
            ),
        ),
        Metric.SPECIFICITY: judge_specificity(run.samples),
    }


def _on_vanilla(run: Run, found: Judgement) -> Judgement:
    if run.arm.vanilla:
        return found
    return Judgement(found.measured, NOT_JUDGED, "judged on vanilla")


def _on_projecting(run: Run, found: Judgement) -> Judgement:
    if not run.arm.projects:
        return Judgement(found.measured, NOT_JUDGED, "judged on projecting arms")
    if run.arm.control != "none":
        why = "a control removes something else than the v_hack of these cosines"
        return Judgement(found.measured, NOT_JUDGED, why)
    if run.arm.place == "update":
        note = "cos_update < cos_update_in, since the update is edited, not the gradient"
        return replace(found, why=f"{note}. {found.why}")
    return found


def judge_signal(spreads: Sequence[float | None], advantages: Sequence[Sequence[float | None]]) -> Judgement:
    """Row 1: do rewards vary within a step, and does the advantage keep that? One entry per step."""
    known = defined(spreads)
    if not known:
        return Judgement(UNDEFINED, UNDEFINED, "no step has a reward spread")
    wide, median = sum(value > SPREAD_GOOD for value in known), float(np.median(known))
    measured = f"median {median:.2f}, min {min(known):.2f}, max {max(known):.2f}; "
    measured += f"> {SPREAD_GOOD:g} on {wide} of {len(known)}"
    if median < SPREAD_USELESS:
        why = f"median < {SPREAD_USELESS:g}: no advantage signal, the run is useless"
        return Judgement(measured, FAIL, why)
    peaks = [max(map(abs, defined(step))) for step in advantages if defined(step)]
    if not peaks:
        return Judgement(measured, UNDEFINED, "no advantages recorded: tiny advantages cannot be excluded")
    alive = sum(peak >= TINY_ADVANTAGE for peak in peaks)
    if not on_most(alive, len(peaks)):
        largest = f"largest |A| below {TINY_ADVANTAGE:g} on {len(peaks) - alive} of {len(peaks)} steps"
        if any(0 < peak < TINY_ADVANTAGE for peak in peaks):
            why = f"rewards vary, yet advantages are tiny but not zero: {largest}"
            return Judgement(measured, SNEAKY, why)
        return Judgement(measured, FAIL, f"rewards vary, yet advantages are exactly 0: {largest}")
    if on_most(wide, len(known)):
        why = f"advantages follow: largest |A| per step, median {np.median(peaks):.2f}"
        return Judgement(measured, PASS, why)
    return Judgement(measured, FAIL, f"weak: neither > {SPREAD_GOOD:g} on most steps nor useless")


def judge_direction(cos_in: Sequence[float | None], pulls: Pulls, null: Range | None = None) -> Judgement:
    """Row 2, on vanilla: does the untouched policy gradient point hack-ward? ``null``: of the mean."""
    known = defined(cos_in)
    up = sum(value > 0 for value in known)
    far_up, far_down = far_steps(known)
    far = f"|cos_in| >= {ABOUT_ZERO:g} on {far_up + far_down} of {len(known)}"
    measured = f"{with_interval(estimate(known))}; > 0 on {up} of {len(known)}; {beside_null(null)}"
    if len(known) < 2:
        why = f"cos_in defined on {len(known)} of {len(cos_in)} steps; two are needed"
        return Judgement(measured, UNDEFINED, why)
    if steps_about_zero(known):
        why = f"about 0 (|cos_in| < {ABOUT_ZERO:g} on every step): orthogonal, projection will not help"
        return Judgement(measured, FAIL, why)
    if alternates(known):
        both = f"hack-ward on {steps_in_words(far_up)}, away from it on {far_down}"
        why = f"{both}: they cancel in the mean, which is not orthogonal ({far})"
        return Judgement(measured, ALTERNATES, why)
    if mean_about_zero(known):
        why = f"weak: the mean is about 0, though single steps are not ({far})"
        return Judgement(measured, FAIL, why)
    if np.mean(known) < 0:
        verdict, why = why_negative(pulls)
        return Judgement(measured, verdict, why)
    if not on_most(up, len(known)):
        return Judgement(
            measured, FAIL, f"positive mean, but > 0 on fewer than {MOST_STEPS:.0%} of the steps"
        )
    if within_null(known, null):
        why = "hack-ward, but within its null: pairs with permuted signs give as much"
        return Judgement(measured, SNEAKY, why)
    return Judgement(measured, PASS, f"hack-ward on at least {MOST_STEPS:.0%} of the steps")


def why_negative(pulls: Pulls) -> tuple[str, str]:
    """(verdict, why) for a vanilla gradient that points away from hacking."""
    hacking, clean = pulls.roles
    if pulls.hacking is None or pulls.clean is None:
        return FAIL, "negative, and contributions by pool are undefined: the cause cannot be told"
    halves = f"pull per step: {hacking} {pulls.hacking:+.2e}, {clean} {pulls.clean:+.2e}"
    outweighs = f"the {clean} half outweighs the {hacking} half"
    if pulls.hacking > 0 > pulls.clean and -pulls.clean > pulls.hacking:
        return SNEAKY, f"reversed sign: {outweighs} ({halves})"
    return FAIL, f"negative, and not because {outweighs} ({halves}): check V's sign"


def judge_mechanism(
    before: Sequence[float | None],
    after: Sequence[float | None],
    fired: Sequence[float | None],
    null: Range | None = None,
) -> Judgement:
    """Row 3, on projecting arms: is the cosine smaller after the edit, and did most coefficients take part?

    ``null``: of the mean after it. A change below LEAST_CHANGE, which no table shows, is none.
    """
    pairs = [(b, a) for b, a in zip(before, after, strict=True) if b is not None and a is not None]
    if not pairs:
        return Judgement(UNDEFINED, UNDEFINED, "no step has both cosines")
    falls = sum(lower(a, b) for b, a in pairs)
    rises = sum(lower(b, a) for b, a in pairs)
    active = statistics.mean(fired)
    left = statistics.mean(a for _, a in pairs)
    measured = f"lower on {falls} of {len(pairs)}; frac_fired {plain(active)}; "
    measured += f"after it {signed(left)}, {beside_null(null)}"
    if not on_most(falls, len(pairs)):
        idle = sum(b <= 0 for b, _ in pairs)
        rest = (
            f"unchanged on {len(pairs) - falls - rises} (by less than {LEAST_CHANGE:g}), higher on {rises}; "
        )
        rest += f"not hack-ward before the edit on {idle}"
        return Judgement(measured, FAIL, f"mechanism {'inactive' if falls == 0 else 'rarely active'}: {rest}")
    if active is None:
        why = "frac_fired not recorded: firing on few coefficients cannot be excluded"
        return Judgement(measured, UNDEFINED, why)
    if active < FEW_FIRED:
        return Judgement(measured, SNEAKY, f"fires on few coefficients only (< {FEW_FIRED:g})")
    change = statistics.mean(a - b for b, a in pairs)
    return Judgement(measured, PASS, f"mean change {signed(change)}")


def judge_specificity(samples: Sequence[dict[str, Any]]) -> Judgement:
    """Row 4: do the hacks of the pool that hacks contribute more than the clean rollouts of the other pool?

    The advantage alone can set the sign of a contribution, so the difference must also exist before it
    (cos_S_logp).
    """
    if not samples:
        return Judgement(UNDEFINED, UNDEFINED, "no per-sample cosines")
    found = contrast_pools(samples)
    if found is None:
        pools = ", ".join(sorted({sample["src_pool"] for sample in samples}))
        return Judgement(f"pools: {pools}", SNEAKY, f"nothing to compare: {why_no_roles(samples)}")
    means = [statistics.mean(values) for values in found.problems("cos_S_contrib")]
    sides = []
    for name, mean, bucket in zip(found.names, means, (found.hacks, found.clean), strict=True):
        sides.append(f"{name} {signed(mean)} (n {len(bucket)})")
    measured = f"{', '.join(sides)}; p {p_value(found.test('cos_S_contrib').p)}"
    verdict, why = _specific(found)
    return Judgement(measured, verdict, why)


def _specific(found: Contrast) -> tuple[str, str]:
    """(verdict, why) of row 4."""
    hacking, clean = found.roles
    buckets = zip(found.names, (found.hacks, found.clean), strict=True)
    empty = [name for name, bucket in buckets if not bucket]
    if empty:
        return SNEAKY, f"bucket empty: {', '.join(empty)}; a lone bucket shows nothing"
    test, before = found.test("cos_S_contrib"), found.test("cos_S_logp")
    if test.p is None:
        return UNDEFINED, str(test.why)
    if not test.larger:
        order = f"reversed: {hacking} is smaller" if test.p < LEVEL else "buckets alike"
        return FAIL, f"{order}: v_hack is not specific"
    hacks, rest = found.problems("cos_S_contrib")
    if np.mean(hacks) <= 0 or mean_about_zero(hacks):
        return FAIL, f"{hacking} is larger than {clean} but not positive"
    if np.mean(rest) > 0 and not mean_about_zero(rest):
        return FAIL, f"{clean} is clearly positive too: v_hack is not specific"
    if before.p is None:
        return UNDEFINED, f"before the advantage (cos_S_logp): {before.why}"
    gap = f"cos_S_logp differs by {with_interval(before)}, p {p_value(before.p)}"
    if not before.larger:
        return SNEAKY, f"the advantage alone makes the difference: {gap}"
    return PASS, f"also before the advantage: {gap}"
