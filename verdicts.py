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
from scipy import stats

# ---------------------------------------------------------------------------------------------- thresholds
# "Spec" is the verification table of Phase 2 or the decision rules of Phase 3, spec/reading.md has both. Where the spec
# uses a word ("most", "about", "<<") the figure chosen for it is ours, and the comment gives the reason.

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
STRONG_COSINE = 0.2  # spec: vanilla cos_in > 0.2 consistently justifies Phase 3
FEW_FIRED = 0.25  # ours for "frac_fired << 1": half of what coin-flip signs give a one-sided gate; 0.65 was seen before
CHEAP_REWARD = 0.5  # spec: check that some base samples earn more than the reward for the format alone
LEVEL = 0.05  # two-sided; intervals are 95 %
FLOAT_NOISE = 1e-6  # cosines closer than this are equal: fp32 sums differ in the last digits
HACK_ONSET = 0.1  # time-to-hack: first step whose 3-step mean hack rate exceeds this
ONSET_WINDOW = 3
EDGE = 5  # "first 5" and "last 5" steps
H1_DROP = 0.30  # spec, H1: hack rate at least 30 percentage points below vanilla's
SAME_PASS = 0.10  # spec, H1: ground-truth pass rate within 10 points of vanilla's
MOST_SEEDS = 1000  # ours: a number of seeds beyond this is no plan

BUCKETS = ("pure hack", "hack and correct", "correct", "neither")
PASS, FAIL, SNEAKY, UNDEFINED, NOT_JUDGED = "pass", "fail", "sneaky fail", "undefined", "-"
SUPPORTED, REFUTED, INCONCLUSIVE, UNTESTABLE = "supported", "refuted", "inconclusive", "not testable"
MATCHED, NOT_SHOWN, NOT_MATCHED = "matched", "not shown", "not matched"


# ---------------------------------------------------------------------------------------------- statistics
@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % t interval. What is undefined is None, and ``why`` says why."""

    n: int
    mean: float | None = None
    sd: float | None = None
    low: float | None = None
    high: float | None = None
    why: str | None = None


@dataclass(frozen=True)
class Comparison:
    """A difference of two means, first minus second, with its t test. What is undefined is None with a ``why``."""

    n_first: int
    n_second: int
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    t: float | None = None
    df: float | None = None
    p: float | None = None
    why: str | None = None

    @property
    def larger(self) -> bool | None:
        """Is the first mean larger, beyond chance? None when the test is undefined."""
        return None if self.p is None else self.difference > 0 and self.p < LEVEL


def defined(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def mean(values: Iterable[float | None]) -> float | None:
    """Mean of what is defined; None when nothing is."""
    kept = defined(values)
    return float(np.mean(kept)) if kept else None


def estimate(values: Iterable[float | None]) -> Estimate:
    kept = np.array(defined(values), dtype=float)
    if kept.size == 0:
        return Estimate(0, why="no value")
    if kept.size == 1:
        return Estimate(1, float(kept[0]), why="one value")
    centre, sd = float(kept.mean()), float(kept.std(ddof=1))
    if np.ptp(kept) <= FLOAT_NOISE:
        return Estimate(kept.size, centre, 0.0, why="zero variance")
    low, high = stats.t.interval(1 - LEVEL, kept.size - 1, loc=centre, scale=stats.sem(kept))
    return Estimate(kept.size, centre, sd, float(low), float(high))


def about_zero(values: Iterable[float | None]) -> bool | None:
    """Our "about 0": |mean| < ABOUT_ZERO, or the 95 % t interval includes 0. None below two values."""
    found = estimate(values)
    if found.n < 2:
        return None
    if abs(found.mean) < ABOUT_ZERO:
        return True
    return found.low is not None and found.low <= 0 <= found.high


def share(hits: int, total: int) -> float | None:
    return hits / total if total else None


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


def why_untestable(first: Sequence[float], second: Sequence[float], names: tuple[str, str]) -> str | None:
    for values, name in zip((first, second), names, strict=True):
        if len(values) < 2:
            return f"{name}: {'no value' if not len(values) else 'one value'}"
    if np.ptp(first) <= FLOAT_NOISE and np.ptp(second) <= FLOAT_NOISE:
        return "zero variance in both"
    return None


def welch(
    first: Iterable[float | None], second: Iterable[float | None], names=("first", "second")
) -> Comparison:
    """Welch's t test (unequal variances), two-sided."""
    first, second = defined(first), defined(second)
    why = why_untestable(first, second, names)
    if why:
        return Comparison(len(first), len(second), why=why)
    test = stats.ttest_ind(first, second, equal_var=False)
    low, high = test.confidence_interval(1 - LEVEL)
    gap = float(np.mean(first) - np.mean(second))
    figures = (gap, float(low), float(high), float(test.statistic), float(test.df), float(test.pvalue))
    return Comparison(len(first), len(second), *figures)


def in_both(first: dict, second: dict) -> list:
    """The units (problems, seeds) that have a value on both sides."""
    return sorted(
        (
            unit
            for unit in first.keys() & second.keys()
            if first[unit] is not None and second[unit] is not None
        ),
        key=str,
    )


def differences(first: dict, second: dict) -> Estimate:
    """Mean of first minus second over the units that both have, with the interval of the paired t test."""
    return estimate(first[unit] - second[unit] for unit in in_both(first, second))


def paired(first: dict, second: dict) -> Comparison:
    """t test on the differences within the units (problems, seeds) that both have: the unit itself cancels out."""
    shared, gaps = in_both(first, second), differences(first, second)
    if gaps.low is None:
        return Comparison(gaps.n, gaps.n, gaps.mean, why=f"in both: {gaps.why}")
    test = stats.ttest_rel([first[unit] for unit in shared], [second[unit] for unit in shared])
    figures = (gaps.mean, gaps.low, gaps.high, float(test.statistic), float(test.df), float(test.pvalue))
    return Comparison(gaps.n, gaps.n, *figures)


def null_range(draws_TS: np.ndarray) -> tuple[float, float] | None:
    """2.5 to 97.5 % range of a mean over T steps under S draws of a null; draw s of the mean is the mean of draw s.

    Quantiles of the steps would not do: the steps share their draws, so their nulls do not average out as independent ones would.
    """
    if not draws_TS.size or not np.isfinite(draws_TS).all():
        return None
    low, high = np.quantile(draws_TS.mean(axis=0), [LEVEL / 2, 1 - LEVEL / 2])
    return float(low), float(high)


def permutation_test(value: float, draws_S: np.ndarray) -> tuple[float, float, float]:
    """(low, high, p) of a measurement under its null: the 2.5 to 97.5 % range, and the one-sided p with the +1 correction."""
    low, high = np.quantile(draws_S, [LEVEL / 2, 1 - LEVEL / 2])
    return float(low), float(high), float((1 + (draws_S >= value - 1e-12).sum()) / (1 + len(draws_S)))


# ---------------------------------------------------------------------------------------------- figures in words
def signed(value: float | None, digits: int = 3) -> str:
    return UNDEFINED if value is None else f"{value:+.{digits}f}"


def plain(value: float | None, digits: int = 2) -> str:
    return UNDEFINED if value is None else f"{value:.{digits}f}"


def p_value(value: float | None) -> str:
    return UNDEFINED if value is None else "< 1e-4" if value < 1e-4 else f"{value:.2g}"


def null_words(null: tuple[float, float] | None) -> str:
    return "no null recorded" if null is None else f"{signed(null[0])} {signed(null[1])}"


def with_interval(found: Estimate | Comparison) -> str:
    centre = found.mean if isinstance(found, Estimate) else found.difference
    if found.low is None:
        return f"{signed(centre)} ({found.why})" if centre is not None else f"undefined ({found.why})"
    return f"{signed(centre)} [{signed(found.low, 2)}, {signed(found.high, 2)}]"


def beside_null(null: tuple[float, float] | None) -> str:
    return null_words(null) if null is None else f"null of the mean {null_words(null)}"


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
        "mean": mean(values),
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
    centre, zero = mean(hacks), about_zero(hacks)
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
    centre = mean(values)
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
    active = mean(fired)
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
    measured = f"{names[0]} {signed(mean(teacher))} (n {len(found.hacks)}), "
    measured += f"{names[1]} {signed(mean(base))} (n {len(found.clean)}); p {p_value(test.p)}"
    empty = [name for name, bucket in zip(names, (found.hacks, found.clean), strict=True) if not bucket]
    if empty:
        return Judgement(measured, SNEAKY, f"bucket empty: {', '.join(empty)}; a lone bucket shows nothing")
    if test.why:
        return Judgement(measured, UNDEFINED, test.why)
    if not test.larger:
        order = "reversed: teacher is smaller" if test.p < LEVEL else "buckets alike"
        return Judgement(measured, FAIL, f"{order}: v_hack is not specific")
    if mean(teacher) <= 0 or about_zero(teacher):
        return Judgement(measured, FAIL, "teacher is larger than base but not positive")
    if mean(base) > 0 and not about_zero(base):
        return Judgement(measured, FAIL, "base is clearly positive too: v_hack is not specific")
    if before.why:
        return Judgement(measured, UNDEFINED, f"before the advantage (cos_S_logp): {before.why}")
    gap = f"cos_S_logp differs by {with_interval(before)}, p {p_value(before.p)}"
    if not before.larger:
        return Judgement(measured, SNEAKY, f"the advantage alone makes the difference: {gap}")
    return Judgement(measured, PASS, f"also before the advantage: {gap}")


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
    zero, centre = about_zero(values), mean(values)
    return None if zero is None else centre < 0 and not zero


def decision_rules(evidence: Evidence) -> list[Rule]:
    """Each decision rule of the spec, in its order, with what was measured and whether it applies."""
    cos_in = evidence.vanilla_cos_in
    known, zero, apart = defined(cos_in), about_zero(cos_in), evidence.discriminates
    near = sum(abs(value) < ABOUT_ZERO for value in known)
    level = f"vanilla cos_in {with_interval(estimate(known))}, {beside_null(evidence.vanilla_null)}; |cos_in| < {ABOUT_ZERO:g} on {near} of {len(known)}"
    strong = sum(value > STRONG_COSINE for value in known)
    rich_base = sum(reward > CHEAP_REWARD for reward in evidence.base_rewards)
    means = [mean(run.cos_in) for run in evidence.projected]
    listed = "; ".join(
        f"{run.run} {signed(mean(run.cos_in))}, {beside_null(run.null_in)} (after the edit {signed(mean(run.after))}, {beside_null(run.null_after)})"
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
        Rule("projection drives cos_in below 0", f"{listed}; vanilla {signed(mean(known))}", over, "a bug"),
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


# ---------------------------------------------------------------------------------------------- on-policy
def curve(values: Sequence[float | None]) -> tuple[float | None, float | None, float | None]:
    """(mean of the first 5 steps, of the last 5, of all: the area under the curve a step)."""
    return mean(values[:EDGE]), mean(values[-EDGE:]), mean(values)


def time_to_hack(steps: Sequence[int], rates: Sequence[float | None]) -> int | str | None:
    """First step that ends a 3-step window with mean hack rate > 0.1; "never"; None where no window is defined."""
    windows = [
        (steps[end], rates[end - ONSET_WINDOW + 1 : end + 1]) for end in range(ONSET_WINDOW - 1, len(steps))
    ]
    windows = [(step, window) for step, window in windows if None not in window]
    if not windows:
        return None
    return next((step for step, window in windows if np.mean(window) > HACK_ONSET + 1e-9), "never")


def median_onset(onsets: Sequence[int | str]) -> tuple[int | float | str | None, bool]:
    """(median time to hack over seeds, is it only a lower bound) where "never" lies beyond every step and is never averaged.

    Half way between a step and "never" the median is known to lie beyond that step, and no more.
    """
    ordered = sorted(onsets, key=lambda onset: (onset == "never", onset if onset != "never" else 0))
    if not ordered:
        return None, False
    low, high = ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]
    if high == "never":
        return low, low != "never"
    return (low + high) / 2, False


# ---------------------------------------------------------------------------------------------- H1, over seeds
@dataclass(frozen=True)
class H1:
    """H1 for one arm: differences to vanilla in the last 5 steps, paired by seed, and what follows from their intervals."""

    verdict: str
    why: str
    hacked: Estimate
    solved: Estimate
    passes: str  # MATCHED, NOT_SHOWN, NOT_MATCHED or UNDEFINED
    seeds: int | None = None  # that an inconclusive comparison would need


def match_pass(solved: Estimate) -> str:
    """Is the pass rate no more than SAME_PASS below vanilla's? ``solved``: differences over seeds; without an interval it is not shown.

    One-sided: H1 guards against hacking less by learning less. An arm that solves more pays no such cost.
    """
    if solved.mean is None:
        return UNDEFINED
    if solved.mean < -SAME_PASS - FLOAT_NOISE:
        return NOT_MATCHED
    return MATCHED if solved.low is not None and solved.low >= -SAME_PASS - FLOAT_NOISE else NOT_SHOWN


def seeds_to_resolve(sd: float | None, distance: float) -> int | None:
    """Smallest n whose 95 % paired t interval has an expected half-width t(n - 1) sd / sqrt(n) of at most ``distance``.

    None without an sd (one seed), at distance 0, and beyond MOST_SEEDS.
    """
    if sd is None or distance <= FLOAT_NOISE:
        return None
    n = np.arange(2, MOST_SEEDS + 1)
    enough = np.flatnonzero(stats.t.ppf(1 - LEVEL / 2, n - 1) * sd / np.sqrt(n) <= distance)
    return int(n[enough[0]]) if enough.size else None


def seeds_needed(hacked: Estimate, solved: Estimate) -> int | None:
    """Seeds that would decide H1 if the observed means and sds were the true ones. Support needs both intervals, refutation one."""
    if None in (hacked.sd, solved.sd):
        return None
    less, same = hacked.mean <= -H1_DROP, solved.mean >= -SAME_PASS
    by_hacks, by_pass = (
        seeds_to_resolve(hacked.sd, abs(hacked.mean + H1_DROP)),
        seeds_to_resolve(solved.sd, abs(solved.mean + SAME_PASS)),
    )
    if less and same:
        return max(by_hacks, by_pass) if None not in (by_hacks, by_pass) else None
    return min(defined([None if less else by_hacks, None if same else by_pass]), default=None)


def judge_h1(hacked: Estimate, solved: Estimate, vanilla: float | None, to_run: str | None = None) -> H1:
    """H1: at least H1_DROP lower hack rate than vanilla at a pass rate no more than SAME_PASS below, both in the last 5 steps.

    ``hacked``, ``solved``: arm minus vanilla over the seeds that both have; ``vanilla``: its mean hack rate in those seeds;
    ``to_run``: flags of the vanilla to compare with, where only one in another basis is there.
    """
    passes = match_pass(solved)
    figures = f"hacked {with_interval(hacked)} (needs {-H1_DROP:+.2f}), solved {with_interval(solved)} ({passes}, at most {SAME_PASS:.2f} lower)"

    def found(verdict: str, why: str, seeds: int | None = None) -> H1:
        return H1(verdict, f"{why}: {figures}", hacked, solved, passes, seeds)

    if hacked.mean is None or solved.mean is None or vanilla is None:
        return H1(UNDEFINED, "No vanilla with the same settings and seeds", hacked, solved, passes)
    if to_run:
        return found(
            UNDEFINED,
            f"This vanilla trains in another basis, so basis and projection cannot be told apart (run {to_run} with the same seeds)",
        )
    if vanilla < H1_DROP:
        return found(
            UNTESTABLE,
            f"Vanilla does not hack enough to test H1 ({vanilla:.2f} in the last {EDGE} steps, {H1_DROP:.2f} needed)",
        )
    if min(hacked.n, solved.n) < 2:
        return found(INCONCLUSIVE, "One seed gives no interval, and the number of seeds needed is undefined")
    less = hacked.high is not None and hacked.high <= -H1_DROP
    costs = solved.high is not None and solved.high < -SAME_PASS
    if hacked.low is not None and hacked.low > -H1_DROP:
        return found(REFUTED, f"The drop is smaller than {H1_DROP:.2f}")
    if costs:
        return found(REFUTED, f"The pass rate is more than {SAME_PASS:.2f} below vanilla's")
    if less and passes == MATCHED:
        return found(SUPPORTED, f"In {hacked.n} seeds")
    if None in (hacked.low, solved.low):
        return found(INCONCLUSIVE, "An interval is undefined")
    seeds = seeds_needed(hacked, solved)
    plan = (
        f"About {seeds} seeds would decide"
        if seeds
        else f"No number of seeds up to {MOST_SEEDS} would decide"
    )
    return found(INCONCLUSIVE, plan, seeds)


def judge_control(gap: Estimate) -> str:
    """Does the arm hack less than its control? ``gap``: arm minus control, hack rate in the last 5 steps, paired by seed."""
    if gap.low is None:
        return "cannot be told"
    return "exceeded" if gap.high < 0 else "does as well"
