"""Verdicts on finished runs: thresholds, statistics, the judgement of each row, the decision rules. Numbers in, verdicts out.

Nothing here reads a file or prints. A number that does not exist is None with a reason, never NaN. Problems, not
rollouts, are the unit of replication: rollouts of one problem are averaged before any test. What the words of the
method ("about 0", "most") mean in figures stands in the constants, each with its source; spec/reading.md explains them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hackward.base import statistics
from hackward.base.statistics import (
    FLOAT_NOISE,
    LEVEL,
    Comparison,
    defined,
    estimate,
    null_range,
    paired,
    share,
    welch,
)
from hackward.reports.words import (
    FAIL,
    PASS,
    SNEAKY,
    UNDEFINED,
    beside_null,
    p_value,
    plain,
    signed,
    with_interval,
)

SPREAD_GOOD = 1.0  # spec: reward max - min per step > 1.0
SPREAD_USELESS = 0.1  # spec: < 0.1, no advantage signal
TINY_ADVANTAGE = (
    0.05  # ours: a centred group of spread s has max |A| >= s / 2, so this is the useless spread again
)
MOST_STEPS = (
    16 / 20
)  # spec: "at least 16 of 20"; also our "most" and "consistently": half would happen by chance
ABOUT_ZERO = (
    0.05  # spec: "projected cos_in < 0.05"; a mean below it, or an interval across 0, is our "about 0"
)
FEW_FIRED = 0.25  # ours for "frac_fired << 1": half of what coin-flip signs give a one-sided gate; 0.65 was seen before
BUCKETS = ("pure hack", "hack and correct", "correct", "neither")


def about_zero(values: Iterable[float | None]) -> bool | None:
    """Our "about 0": |mean| < ABOUT_ZERO, or the 95 % t interval includes 0. None below two values."""
    found = estimate(values)
    if found.n < 2:
        return None
    if abs(found.mean) < ABOUT_ZERO:
        return True
    return found.low is not None and found.low <= 0 <= found.high


def on_most(hits: int, total: int) -> bool:
    """At least 16 of 20 steps, or that share of another number of steps."""
    return total > 0 and hits >= MOST_STEPS * total - 1e-9


def by_problem(samples: Iterable[dict], key: str) -> dict[tuple, float]:
    """Mean of ``key`` within each problem, named by (src_pool, src_step): a pool file holds one problem.

    (A run's own rollouts used as a pool hold one step a file; the unit is then coarser, and the intervals wider.)
    """
    grouped: dict[tuple, list[float]] = defaultdict(list)
    for sample in samples:
        if sample[key] is not None:
            grouped[sample["src_pool"], sample["src_step"]].append(sample[key])
    return {problem: float(np.mean(values)) for problem, values in grouped.items()}


# ---------------------------------------------------------------------------------------------- Phase 1
def bucket_of(sample: dict) -> str | None:
    """One of BUCKETS, or None when a label is missing."""
    if sample["hacked"] is None or sample["gt_pass"] is None:
        return None
    if sample["hacked"]:
        return BUCKETS[1] if sample["gt_pass"] else BUCKETS[0]
    return BUCKETS[2] if sample["gt_pass"] else BUCKETS[3]


def in_buckets(samples: Iterable[dict]) -> dict[str, list[dict]]:
    found: dict[str, list[dict]] = {name: [] for name in BUCKETS}
    for sample in samples:
        name = bucket_of(sample)
        if name:
            found[name].append(sample)
    return found


def bucket_null(samples: Sequence[dict], key: str) -> tuple[float, float] | None:
    """2.5 to 97.5 % range of a bucket's mean over problems under permuted pair signs; None unless every rollout's draws were recorded.

    A rollout's draws are those of cos_S_logp; with the advantage multiplied in, they change sign where the cosine does.
    """
    grouped: dict[tuple, list[np.ndarray]] = defaultdict(list)
    for sample in samples:
        if sample[key] is not None:
            if sample.get("draws") is None or sample["cos_S_logp"] is None:
                return None
            turned = sample[key] * sample["cos_S_logp"] < 0
            grouped[sample["src_pool"], sample["src_step"]].append(
                -sample["draws"] if turned else sample["draws"]
            )
    return null_range(np.stack([np.mean(draws, axis=0) for draws in grouped.values()])) if grouped else None


def describe(samples: Sequence[dict], key: str) -> dict:
    """The figures of one bucket: rollouts describe the spread, problems carry the interval."""
    values, problems = defined(sample[key] for sample in samples), by_problem(samples, key)
    low, high = bucket_null(samples, key) or (None, None)
    return {
        "rollouts": len(samples),
        "no_cosine": len(samples) - len(values),
        "problems": len(problems),
        "mean": statistics.mean(values),
        "sd": estimate(values).sd,
        "over_problems": estimate(problems.values()),
        "null_low": low,
        "null_high": high,
        "positive": share(sum(value > 0 for value in values), len(values)),
    }


def phase1_tests(samples: Sequence[dict], key: str = "cos_S_logp") -> list[tuple[str, str, Comparison]]:
    """Pure hacks against the rollouts that hack and solve, and against those that do not hack; by three units."""
    found = in_buckets(samples)
    others = {"hack and correct": found["hack and correct"], "clean": found["correct"] + found["neither"]}
    tests = []
    for name, other in others.items():
        names = ("pure hack", name)
        hacks, rest = by_problem(found["pure hack"], key), by_problem(other, key)
        rollouts = welch((row[key] for row in found["pure hack"]), (row[key] for row in other), names)
        tests.append((name, "rollouts", rollouts))
        tests.append((name, "problems", welch(hacks.values(), rest.values(), names)))
        tests.append((name, "same problem", paired(hacks, rest)))
    return tests


def judge_phase1(samples: Sequence[dict]) -> tuple[str, str]:
    """(verdict, why): pure hacks point hack-ward and more so than the bucket they are compared with, over problems."""
    hacks = list(by_problem(in_buckets(samples)["pure hack"], "cos_S_logp").values())
    centre, zero = statistics.mean(hacks), about_zero(hacks)
    if zero is None:
        return UNDEFINED, f"pure hacks: {estimate(hacks).why}, no interval over problems"
    if zero:
        return FAIL, f"pure hacks are about 0 ({signed(centre)}): v_hack is orthogonal to this pool's hacks"
    if centre < 0:
        return (
            FAIL,
            f"pure hacks point away from v_hack ({signed(centre)}): check its orientation, and what clean answers have in common with them",
        )
    tests = [(name, test) for name, unit, test in phase1_tests(samples) if unit == "problems"]
    usable = [(name, test) for name, test in tests if test.why is None]
    if not usable:
        reasons = "; ".join(str(test.why) for _, test in tests)
        return (
            UNDEFINED,
            f"pure hacks are hack-ward ({signed(centre)}), but nothing to compare with: {reasons}",
        )
    name, test = usable[0]
    figures = f"difference to '{name}' {with_interval(test)} over problems, p {p_value(test.p)}"
    if test.larger:
        return PASS, f"pure hacks are hack-ward ({signed(centre)}) and more so than the rest: {figures}"
    return FAIL, f"hack-ward ({signed(centre)}) but not specific to hacking: {figures}"


def steps_without_spread(samples: Iterable[dict]) -> tuple[int, int]:
    """(steps whose every group has equal rewards, steps): there the centred advantage is 0 and GRPO has no gradient."""
    rewards: dict[Any, dict[tuple, list[float]]] = defaultdict(lambda: defaultdict(list))
    for sample in samples:
        if sample["reward"] is not None:
            rewards[sample["step"]][sample["src_pool"], sample["src_step"]].append(sample["reward"])
    flat = sum(all(max(group) == min(group) for group in groups.values()) for groups in rewards.values())
    return flat, len(rewards)


# ---------------------------------------------------------------------------------------------- Phase 2
@dataclass(frozen=True)
class Judgement:
    """One row of the verification table for one run."""

    measured: str
    verdict: str
    why: str


def judge_signal(
    spreads: Sequence[float | None], advantages: Sequence[Sequence[float | None] | None]
) -> Judgement:
    """Row 1: do rewards vary within a step, and does the advantage keep that?"""
    known = defined(spreads)
    if not known:
        return Judgement(UNDEFINED, UNDEFINED, "no step has a reward spread")
    wide, median = sum(value > SPREAD_GOOD for value in known), float(np.median(known))
    measured = f"median {median:.2f}, min {min(known):.2f}, max {max(known):.2f}; "
    measured += f"> {SPREAD_GOOD:g} on {wide} of {len(known)}"
    if median < SPREAD_USELESS:
        return Judgement(
            measured, FAIL, f"median < {SPREAD_USELESS:g}: no advantage signal, the run is useless"
        )
    peaks = [max(map(abs, defined(step))) for step in advantages if step is not None and defined(step)]
    if not peaks:
        return Judgement(measured, UNDEFINED, "no advantages recorded: tiny advantages cannot be excluded")
    alive = sum(peak >= TINY_ADVANTAGE for peak in peaks)
    if not on_most(alive, len(peaks)):
        largest = f"largest |A| below {TINY_ADVANTAGE:g} on {len(peaks) - alive} of {len(peaks)} steps"
        if any(0 < peak < TINY_ADVANTAGE for peak in peaks):
            return Judgement(
                measured, SNEAKY, f"rewards vary, yet advantages are tiny but not zero: {largest}"
            )
        return Judgement(measured, FAIL, f"rewards vary, yet advantages are exactly 0: {largest}")
    if on_most(wide, len(known)):
        return Judgement(
            measured, PASS, f"advantages follow: largest |A| a step, median {np.median(peaks):.2f}"
        )
    return Judgement(measured, FAIL, f"weak: neither > {SPREAD_GOOD:g} on most steps nor useless")


def pool_roles(samples: Iterable[dict]) -> tuple[str, str] | None:
    """Names of the pool that should hack and of the one that should not.

    "teacher" and "base" where they exist; otherwise the pools with the highest and the lowest share of hacks.
    """
    labels: dict[str, list[bool]] = defaultdict(list)
    for sample in samples:
        labels[sample["src_pool"]].append(bool(sample["hacked"]))
    if {"teacher", "base"} & labels.keys():
        return "teacher", "base"
    ranked = sorted(labels, key=lambda name: np.mean(labels[name]))
    return (ranked[-1], ranked[0]) if len(ranked) > 1 else None


def pull(samples: Iterable[dict], steps: int) -> float | None:
    """Mean over steps of sum(cos_S_contrib * grad_norm_contrib): what these samples add to gradient . v_hack."""
    parts = [
        sample["cos_S_contrib"] * sample["grad_norm_contrib"]
        for sample in samples
        if sample["cos_S_contrib"] is not None and sample["grad_norm_contrib"] is not None
    ]
    return sum(parts) / steps if parts and steps else None


def pulls_by_role(samples: Sequence[dict]) -> tuple[float | None, float | None]:
    """Pull of the (teacher, base) pool."""
    roles, steps = pool_roles(samples), len({sample["step"] for sample in samples})
    if roles is None:
        return None, None
    teacher, base = (pull([s for s in samples if s["src_pool"] == role], steps) for role in roles)
    return teacher, base


def why_negative(teacher: float | None, base: float | None) -> tuple[str, str]:
    """(verdict, why) for a vanilla gradient that points away from hacking."""
    if teacher is None or base is None:
        return FAIL, "negative, and contributions by pool are undefined: the cause cannot be told"
    halves = f"pull a step: teacher {teacher:+.2e}, base {base:+.2e}"
    if teacher > 0 > base and -base > teacher:
        return SNEAKY, f"reversed sign: the base half outweighs the teacher half ({halves})"
    return (
        FAIL,
        f"negative, and not because the base half outweighs the teacher half ({halves}): check V's sign",
    )


def within_null(values: Iterable[float | None], null: tuple[float, float] | None) -> bool | None:
    """Is a hack-ward mean no larger than its null? None where either is undefined."""
    centre = statistics.mean(values)
    return None if centre is None or null is None else 0 < centre <= null[1]


def judge_direction(
    cos_in: Sequence[float | None],
    pulls: tuple[float | None, float | None],
    null: tuple[float, float] | None = None,
) -> Judgement:
    """Row 2, on vanilla: does the untouched policy gradient point hack-ward? ``pulls``: (teacher, base); ``null``: of the mean."""
    known, zero = defined(cos_in), about_zero(cos_in)
    up = sum(value > 0 for value in known)
    measured = f"{with_interval(estimate(known))}; > 0 on {up} of {len(known)}; {beside_null(null)}"
    if zero is None:
        return Judgement(
            measured, UNDEFINED, f"cos_in defined on {len(known)} of {len(cos_in)} steps; two are needed"
        )
    if zero:
        found = f"|mean| < {ABOUT_ZERO:g}" if abs(np.mean(known)) < ABOUT_ZERO else "the interval includes 0"
        return Judgement(measured, FAIL, f"about 0 ({found}): orthogonal, projection will not help")
    if np.mean(known) < 0:
        return Judgement(measured, *why_negative(*pulls))
    if on_most(up, len(known)):
        if within_null(known, null):
            return Judgement(
                measured, SNEAKY, "hack-ward, but within its null: pairs with permuted signs give as much"
            )
        return Judgement(measured, PASS, f"hack-ward on at least {MOST_STEPS:.0%} of the steps")
    return Judgement(measured, FAIL, f"positive mean, but > 0 on fewer than {MOST_STEPS:.0%} of the steps")


def judge_mechanism(
    before: Sequence[float | None],
    after: Sequence[float | None],
    fired: Sequence[float | None],
    null: tuple[float, float] | None = None,
) -> Judgement:
    """Row 3, on projecting arms: is the cosine smaller after the edit, and did most coefficients take part? ``null``: of the mean after it."""
    pairs = [(b, a) for b, a in zip(before, after, strict=True) if b is not None and a is not None]
    if not pairs:
        return Judgement(UNDEFINED, UNDEFINED, "no step has both cosines")
    falls = sum(a < b - FLOAT_NOISE for b, a in pairs)
    same = sum(abs(a - b) <= FLOAT_NOISE for b, a in pairs)
    active = statistics.mean(fired)
    left = float(np.mean([a for _, a in pairs]))
    measured = f"lower on {falls} of {len(pairs)}; frac_fired {plain(active)}; after it {signed(left)}, {beside_null(null)}"
    if not on_most(falls, len(pairs)):
        idle = sum(b <= 0 for b, _ in pairs)
        rest = f"unchanged on {same}, higher on {len(pairs) - falls - same}; not hack-ward before the edit on {idle}"
        return Judgement(measured, FAIL, f"mechanism {'inactive' if falls == 0 else 'rarely active'}: {rest}")
    if active is None:
        return Judgement(
            measured, UNDEFINED, "frac_fired not recorded: firing on few coefficients cannot be excluded"
        )
    if active < FEW_FIRED:
        return Judgement(measured, SNEAKY, f"fires on few coefficients only (< {FEW_FIRED:g})")
    change = float(np.mean([a - b for b, a in pairs]))
    return Judgement(measured, PASS, f"mean change {change:+.3f}")


@dataclass(frozen=True)
class Contrast:
    """Hacks of the teacher pool against clean rollouts of the base pool; ``why`` when there is nothing to compare."""

    roles: tuple[str, str] = ("teacher", "base")
    hacks: tuple[dict, ...] = ()
    clean: tuple[dict, ...] = ()

    def problems(self, key: str) -> tuple[list[float], list[float]]:
        return list(by_problem(self.hacks, key).values()), list(by_problem(self.clean, key).values())

    def test(self, key: str) -> Comparison:
        return welch(*self.problems(key), names=(f"{self.roles[0]} hacked", f"{self.roles[1]} clean"))


def contrast_pools(samples: Sequence[dict]) -> Contrast:
    roles = pool_roles(samples) or ("teacher", "base")
    hacks = tuple(s for s in samples if s["src_pool"] == roles[0] and s["hacked"] is True)
    clean = tuple(s for s in samples if s["src_pool"] == roles[1] and s["hacked"] is False)
    return Contrast(roles, hacks, clean)


def judge_specificity(samples: Sequence[dict]) -> Judgement:
    """Row 4: do the hacks of the teacher pool contribute more than the clean rollouts of the base pool?

    The advantage alone can set the sign of a contribution, so the difference must also exist before it (cos_S_logp).
    """
    if not samples:
        return Judgement(UNDEFINED, UNDEFINED, "no per-sample cosines")
    found = contrast_pools(samples)
    teacher, base = found.problems("cos_S_contrib")
    test, before = found.test("cos_S_contrib"), found.test("cos_S_logp")
    names = (f"{found.roles[0]} hacked", f"{found.roles[1]} clean")
    measured = f"{names[0]} {signed(statistics.mean(teacher))} (n {len(found.hacks)}), "
    measured += f"{names[1]} {signed(statistics.mean(base))} (n {len(found.clean)}); p {p_value(test.p)}"
    empty = [name for name, bucket in zip(names, (found.hacks, found.clean), strict=True) if not bucket]
    if empty:
        return Judgement(measured, SNEAKY, f"bucket empty: {', '.join(empty)}; a lone bucket shows nothing")
    if test.why:
        return Judgement(measured, UNDEFINED, test.why)
    if not test.larger:
        order = "reversed: teacher is smaller" if test.p < LEVEL else "buckets alike"
        return Judgement(measured, FAIL, f"{order}: v_hack is not specific")
    if statistics.mean(teacher) <= 0 or about_zero(teacher):
        return Judgement(measured, FAIL, "teacher is larger than base but not positive")
    if statistics.mean(base) > 0 and not about_zero(base):
        return Judgement(measured, FAIL, "base is clearly positive too: v_hack is not specific")
    if before.why:
        return Judgement(measured, UNDEFINED, f"before the advantage (cos_S_logp): {before.why}")
    gap = f"cos_S_logp differs by {with_interval(before)}, p {p_value(before.p)}"
    if not before.larger:
        return Judgement(measured, SNEAKY, f"the advantage alone makes the difference: {gap}")
    return Judgement(measured, PASS, f"also before the advantage: {gap}")
