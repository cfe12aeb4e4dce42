"""Read finished run directories, judge them by the rules of the method, write a report.

    python analyze.py out/probe_distill        # prints the tables and writes out/probe_distill/report/

Three kinds of run: ``phase1`` (NLL probe on one pool), ``replay`` (Phase 2, mixed-replay GRPO) and ``sampled``
(on-policy). The file reads top down: thresholds, statistics, the verdict on each row, the go / no-go for Phase 3, and
only then the disk: loading, tables, report. Everything above "Run directories" is pure: numbers in, verdicts out.

Two rules hold throughout. A number that does not exist is None and is printed as "undefined" with the reason, never as
NaN. Problems, not rollouts, are the unit of replication: rollouts of one problem are averaged before any test.
How to read the output: spec/reading.md.
"""

from __future__ import annotations

import csv
import math
import shutil
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import rich.box
import rich.table
import tyro
from rich.console import Console
from rich.text import Text
from scipy import stats

import plots
import store
from store import InputError

# ---------------------------------------------------------------------------------------------- thresholds
# "Spec" is the verification table of Phase 2 or the decision rules of Phase 3, spec/reading.md has both. Where the spec
# uses a word ("most", "about", "<<") the figure chosen for it is ours, and the comment gives the reason.

SPREAD_GOOD = 1.0  # spec: reward max - min per step > 1.0
SPREAD_USELESS = 0.1  # spec: < 0.1, no advantage signal
TINY_ADVANTAGE = 0.05  # ours: a centred group of spread s has max |A| >= s / 2, so this is the useless spread again
MOST_STEPS = 16 / 20  # spec: "at least 16 of 20"; also our "most" and "consistently": half would happen by chance
ABOUT_ZERO = 0.05  # spec: "projected cos_in < 0.05"; a mean below it, or an interval across 0, is our "about 0"
STRONG_COSINE = 0.2  # spec: vanilla cos_in > 0.2 consistently justifies Phase 3
FEW_FIRED = 0.25  # ours for "frac_fired << 1": half of what coin-flip signs give a one-sided gate; 0.65 was seen before
CHEAP_REWARD = 0.5  # spec: check that some base samples earn more than the reward for the format alone
LEVEL = 0.05  # two-sided; intervals are 95 %
FLOAT_NOISE = 1e-6  # cosines closer than this are equal: fp32 sums differ in the last digits
HACK_ONSET = 0.1  # time-to-hack: first step whose 3-step mean hack rate exceeds this
ONSET_WINDOW = 3
EDGE = 5  # "first 5" and "last 5" steps

BUCKETS = ("pure hack", "hack and correct", "correct", "neither")
PASS, FAIL, SNEAKY, UNDEFINED, NOT_JUDGED = "pass", "fail", "sneaky fail", "undefined", "-"


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
    """Mean of ``key`` within each problem. A pool file holds one problem, so (src_pool, src_step) names it."""
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


def welch(first: Iterable[float | None], second: Iterable[float | None], names=("first", "second")) -> Comparison:
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


def paired(first: dict[tuple, float], second: dict[tuple, float]) -> Comparison:
    """t test on the differences within problems that have both labels: the problem itself cancels out."""
    shared = sorted(first.keys() & second.keys(), key=str)
    gaps = estimate(first[problem] - second[problem] for problem in shared)
    if gaps.low is None:
        return Comparison(gaps.n, gaps.n, gaps.mean, why=f"problems with both labels: {gaps.why}")
    test = stats.ttest_rel([first[problem] for problem in shared], [second[problem] for problem in shared])
    figures = (gaps.mean, gaps.low, gaps.high, float(test.statistic), float(test.df), float(test.pvalue))
    return Comparison(gaps.n, gaps.n, *figures)


# ---------------------------------------------------------------------------------------------- figures in words
def signed(value: float | None, digits: int = 3) -> str:
    return UNDEFINED if value is None else f"{value:+.{digits}f}"


def plain(value: float | None, digits: int = 2) -> str:
    return UNDEFINED if value is None else f"{value:.{digits}f}"


def p_value(value: float | None) -> str:
    return UNDEFINED if value is None else "< 1e-4" if value < 1e-4 else f"{value:.2g}"


def with_interval(found: Estimate | Comparison) -> str:
    centre = found.mean if isinstance(found, Estimate) else found.difference
    if found.low is None:
        return f"{signed(centre)} ({found.why})" if centre is not None else f"undefined ({found.why})"
    return f"{signed(centre)} [{signed(found.low, 2)}, {signed(found.high, 2)}]"


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


def describe(samples: Sequence[dict], key: str) -> dict:
    """The figures of one bucket: rollouts describe the spread, problems carry the interval."""
    values, problems = defined(sample[key] for sample in samples), by_problem(samples, key)
    return {
        "rollouts": len(samples),
        "no_cosine": len(samples) - len(values),
        "problems": len(problems),
        "mean": mean(values),
        "sd": estimate(values).sd,
        "over_problems": estimate(problems.values()),
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
        return FAIL, f"pure hacks point away from v_hack ({signed(centre)}): check its orientation"
    tests = [(name, test) for name, unit, test in phase1_tests(samples) if unit == "problems"]
    usable = [(name, test) for name, test in tests if test.why is None]
    if not usable:
        reasons = "; ".join(str(test.why) for _, test in tests)
        return UNDEFINED, f"pure hacks are hack-ward ({signed(centre)}), but nothing to compare with: {reasons}"
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


def judge_signal(spreads: Sequence[float | None], advantages: Sequence[Sequence[float | None] | None]) -> Judgement:
    """Row 1: do rewards vary within a step, and does the advantage keep that?"""
    known = defined(spreads)
    if not known:
        return Judgement(UNDEFINED, UNDEFINED, "no step has a reward spread")
    wide, median = sum(value > SPREAD_GOOD for value in known), float(np.median(known))
    measured = f"median {median:.2f}, min {min(known):.2f}, max {max(known):.2f}; "
    measured += f"> {SPREAD_GOOD:g} on {wide} of {len(known)}"
    if median < SPREAD_USELESS:
        return Judgement(measured, FAIL, f"median < {SPREAD_USELESS:g}: no advantage signal, the run is useless")
    peaks = [max(map(abs, defined(step))) for step in advantages if step is not None and defined(step)]
    if not peaks:
        return Judgement(measured, UNDEFINED, "no advantages recorded: tiny advantages cannot be excluded")
    alive = sum(peak >= TINY_ADVANTAGE for peak in peaks)
    if not on_most(alive, len(peaks)):
        largest = f"largest |A| below {TINY_ADVANTAGE:g} on {len(peaks) - alive} of {len(peaks)} steps"
        if any(0 < peak < TINY_ADVANTAGE for peak in peaks):
            return Judgement(measured, SNEAKY, f"rewards vary, yet advantages are tiny but not zero: {largest}")
        return Judgement(measured, FAIL, f"rewards vary, yet advantages are exactly 0: {largest}")
    if on_most(wide, len(known)):
        return Judgement(measured, PASS, f"advantages follow: largest |A| a step, median {np.median(peaks):.2f}")
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
    return FAIL, f"negative, and not because the base half outweighs the teacher half ({halves}): check V's sign"


def judge_direction(cos_in: Sequence[float | None], pulls: tuple[float | None, float | None]) -> Judgement:
    """Row 2, on vanilla: does the untouched policy gradient point hack-ward? ``pulls``: (teacher, base)."""
    known, zero = defined(cos_in), about_zero(cos_in)
    up = sum(value > 0 for value in known)
    measured = f"{with_interval(estimate(known))}; > 0 on {up} of {len(known)}"
    if zero is None:
        return Judgement(measured, UNDEFINED, f"cos_in defined on {len(known)} of {len(cos_in)} steps; two are needed")
    if zero:
        found = f"|mean| < {ABOUT_ZERO:g}" if abs(np.mean(known)) < ABOUT_ZERO else "the interval includes 0"
        return Judgement(measured, FAIL, f"about 0 ({found}): orthogonal, projection will not help")
    if np.mean(known) < 0:
        return Judgement(measured, *why_negative(*pulls))
    if on_most(up, len(known)):
        return Judgement(measured, PASS, f"hack-ward on at least {MOST_STEPS:.0%} of the steps")
    return Judgement(measured, FAIL, f"positive mean, but > 0 on fewer than {MOST_STEPS:.0%} of the steps")


def judge_mechanism(
    before: Sequence[float | None], after: Sequence[float | None], fired: Sequence[float | None]
) -> Judgement:
    """Row 3, on projecting arms: is the cosine smaller after the edit, and did most coefficients take part?"""
    pairs = [(b, a) for b, a in zip(before, after, strict=True) if b is not None and a is not None]
    if not pairs:
        return Judgement(UNDEFINED, UNDEFINED, "no step has both cosines")
    falls = sum(a < b - FLOAT_NOISE for b, a in pairs)
    same = sum(abs(a - b) <= FLOAT_NOISE for b, a in pairs)
    active = mean(fired)
    measured = f"lower on {falls} of {len(pairs)}; frac_fired {plain(active)}"
    if not on_most(falls, len(pairs)):
        idle = sum(b <= 0 for b, _ in pairs)
        rest = f"unchanged on {same}, higher on {len(pairs) - falls - same}; not hack-ward before the edit on {idle}"
        return Judgement(measured, FAIL, f"mechanism {'inactive' if falls == 0 else 'rarely active'}: {rest}")
    if active is None:
        return Judgement(measured, UNDEFINED, "frac_fired not recorded: firing on few coefficients cannot be excluded")
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


@dataclass(frozen=True)
class Evidence:
    """What the decision rules look at, for one direction. None: not measured."""

    vanilla_cos_in: tuple[float | None, ...] = ()
    discriminates: bool | None = None  # teacher hacks above base clean, before the advantage
    separation: str = "not measured"
    base_rewards: tuple[float, ...] = ()
    projected: tuple[Projected, ...] = ()
    dead_signal: tuple[str, ...] = ()  # runs that fail row 1 of the verification table: nothing follows from them
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
    level = f"vanilla cos_in {with_interval(estimate(known))}; |cos_in| < {ABOUT_ZERO:g} on {near} of {len(known)}"
    strong = sum(value > STRONG_COSINE for value in known)
    rich_base = sum(reward > CHEAP_REWARD for reward in evidence.base_rewards)
    means = [mean(run.cos_in) for run in evidence.projected]
    listed = "; ".join(
        f"{run.run} {signed(mean(run.cos_in))} (after the edit {signed(mean(run.after))})" for run in evidence.projected
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
        Rule("cos_in about 0 alone", level, both(zero, apart), "may matter later (about step 80): smaller effect"),
        Rule(
            f"cos_in > {STRONG_COSINE:g} consistently",
            f"on {strong} of {len(known)} steps (needs {MOST_STEPS:.0%})",
            on_most(strong, len(known)) if len(known) > 1 else None,
            "Phase 3 is justified",
        ),
        Rule(f"projected cos_in < {ABOUT_ZERO:g}", listed, works, "the mechanism works"),
        Rule("projection drives cos_in below 0", f"{listed}; vanilla {signed(mean(known))}", over, "a bug"),
        Rule("ceiling: 3 seeds x 1 arm show no separation", "needs the sweep", None, "stop, save the other six runs"),
    ]


SWEEP = "python train.py --preset=full --arm=ARM --seed=SEED (3 seeds of vanilla and one other arm first: the ceiling)"
ON_POLICY = "python train.py --preset=fast --steps=60, once per --arm and once with --control=random: 20 steps mislead"
RE_EXTRACT = "python extract_vhack.py --objective=grpo --pool=DIR --out=FILE, then Phase 2 again with --v-hack=FILE"


def recommend(rules: Sequence[Rule], evidence: Evidence) -> tuple[str, list[str]]:
    """(headline, what to run next). The first line that holds decides."""
    skip, one_sided, later, strong, _, over, _ = (rule.applies for rule in rules)
    if evidence.dead_signal:
        return "NO DECISION: no usable advantage signal", [*evidence.dead_signal, "mix pools that differ in reward"]
    if over:
        return "STOP: over-projection, a bug", ["check the gate and the orthonormality of V, then Phase 2 again"]
    if skip:
        pool = "base samples that earn > 0.5: python probe_distill.py --base-only on easier problems"
        return "NO-GO: skip Phase 3", [RE_EXTRACT, *([pool] if one_sided else [])]
    if below_zero(evidence.vanilla_cos_in):
        return "NO-GO: cos_in is negative", ["explain the sign (row 2 of the table) before anything is paid for"]
    if (strong or later) and evidence.dead_mechanism:
        return "NOT YET: the gradient is worth projecting, the projection does not work", [*evidence.dead_mechanism]
    if (strong or later) and not evidence.projected:
        return "NOT YET: the mechanism is unmeasured", ["python train.py --arm=projected --replay-dirs=A,B --steps=20"]
    if strong:
        return "GO: Phase 3 is justified", [SWEEP]
    if later:
        return "GO, with a smaller expected effect", [ON_POLICY, SWEEP]
    if later is None or skip is None or strong is None:
        missing = "vanilla replay with cos_in" if about_zero(evidence.vanilla_cos_in) is None else "both pool buckets"
        return "NO DECISION: undefined", [f"missing: {missing}", "python probe_distill.py --loss-mode=grpo"]
    return f"UNDECIDED: hack-ward, but not > {STRONG_COSINE:g} consistently; no rule of the spec covers it", [ON_POLICY]


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


# ---------------------------------------------------------------------------------------------- Run directories
ROW_NUMBERS = (
    "step seed reward_mean reward_spread hack_rate attempt_rate gt_rate fmt_rate cos_in cos_out cos_update "
    "cos_update_in frac_fired grad_norm update_norm groups_used groups_skipped kl comp_len seconds seconds_generate "
    "seconds_grade seconds_backward"
).split()
SAMPLE_NUMBERS = (
    "step src_step reward comp_len cos_S_contrib cos_S_logp grad_norm_contrib mean_cos_in mean_cos_out frac_fired "
    "advantage"
).split()
SAMPLE_FLAGS = ("hacked", "gt_pass", "fmt_ok")
SAMPLE_OTHER = ("sample_id", "src_pool", "src_sample", "arm")
KINDS = ("phase1", "replay", "sampled")


@dataclass(frozen=True)
class Run:
    """A finished run: what it was told to do, one row a step, and (phase1, replay) one row a sample."""

    path: Path
    label: str
    kind: str
    config: dict
    record: dict  # the whole config.json
    rows: tuple[dict, ...]
    samples: tuple[dict, ...]

    @property
    def arm(self) -> str:
        return str(self.config.get("arm") or "-")

    @property
    def control(self) -> str:
        return str(self.config.get("control") or "none")

    def traits(self) -> dict[str, str]:
        """Settings that a label may name; "" where they mean nothing (an arm that edits nothing has no gate)."""
        edits = self.arm not in ("vanilla", "-")
        return {
            "arm": "" if self.kind == "phase1" else self.arm,
            "control": "" if self.control == "none" else self.control,
            "gate": str(self.config.get("gate") or "") if edits else "",
            "project_at": str(self.config.get("project_at") or "") if edits else "",
            "v_hack": self.direction.split()[0],
            "model": self.model,
            "lr": f"lr{self.config['lr']:g}" if isinstance(self.config.get("lr"), (int, float)) else "",
            "seed": f"s{self.config['seed']}" if self.config.get("seed") is not None else "",
        }

    @property
    def edited(self) -> tuple[str, str]:
        """Row keys of the cosine before and after the edit: the gradient's, or the update's where that is edited."""
        at_update = self.config.get("project_at") == "update"
        return ("cos_update_in", "cos_update") if at_update else ("cos_in", "cos_out")

    @property
    def projects(self) -> bool:
        return self.arm != "vanilla" and self.control != "shrink"

    @property
    def direction(self) -> str:
        found = self.record["v_hack"] or {}
        name = Path(str(found.get("file") or "extracted-by-the-run")).stem
        return f"{name} {str(found.get('hash') or '')[:8]}".strip() if found else "no v_hack"

    @property
    def model(self) -> str:
        return str((self.record["model"] or {}).get("name") or "-")

    @property
    def setting(self) -> tuple[str, str, str]:
        """Runs that share model, direction and pools are judged together."""
        pools = self.record["pools"] or []
        named = [f"{Path(str(pool.get('dir'))).name} {str(pool.get('hash') or '')[:8]}" for pool in pools]
        return self.model, self.direction, ", ".join(named) or "none"

    def column(self, key: str) -> list:
        return [row[key] for row in self.rows]


def checked(row: dict, where: str, numbers: Iterable[str], flags: Iterable[str] = ()) -> dict:
    """The row with non-finite numbers as None; InputError where a field has the wrong type."""
    row = dict(row)
    for key in numbers:
        value = row[key]
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise InputError(f"{where}: {key!r} must be a number or null, found {value!r}")
        row[key] = value if value is not None and math.isfinite(value) else None
    for key in flags:
        if row[key] is not None and not isinstance(row[key], bool):
            raise InputError(f"{where}: {key!r} must be true, false or null, found {row[key]!r}")
    return row


def read_rows(path: Path) -> tuple[dict, ...]:
    rows = []
    for number, row in enumerate(store.read_jsonl(path, [*ROW_NUMBERS, "arm", "advantages"]), start=1):
        where = f"{path}: row {number}"
        row = checked(row, where, ROW_NUMBERS)
        if row["advantages"] is not None:
            if not isinstance(row["advantages"], list):
                raise InputError(f"{where}: 'advantages' must be a list or null")
            named = {f"advantages[{index}]": value for index, value in enumerate(row["advantages"])}
            row["advantages"] = list(checked(named, where, named).values())
        if row["step"] is None or (rows and row["step"] <= rows[-1]["step"]):
            raise InputError(f"{where}: 'step' is {row['step']}; steps must be numbers that increase")
        rows.append(row)
    return tuple(rows)


def read_samples(directory: Path) -> tuple[dict, ...]:
    samples = []
    for path in sorted(directory.glob("step_*.cos.jsonl.gz")):
        rows = store.read_jsonl(path, [*SAMPLE_NUMBERS, *SAMPLE_FLAGS, *SAMPLE_OTHER])
        for number, row in enumerate(rows, start=1):
            row = checked(row, f"{path}: row {number}", SAMPLE_NUMBERS, SAMPLE_FLAGS)
            if not isinstance(row["src_pool"], str):
                raise InputError(f"{path}: row {number}: 'src_pool' must be a string, found {row['src_pool']!r}")
            samples.append(row | {"label": bucket_of(row) or "no label"})  # pictures colour by it
    return tuple(samples)


def checked_config(path: Path, record: dict) -> dict:
    """The settings of a run, after a look at every part of config.json that the tables rely on."""
    config, pools = record.get("config"), record.setdefault("pools", None)
    if not isinstance(config, dict):
        raise InputError(f"{path}: no object 'config'")
    for key in ("model", "v_hack"):
        if not isinstance(record.setdefault(key, None), (dict, type(None))):
            raise InputError(f"{path}: {key!r} must be an object or null")
    if pools is not None and not (isinstance(pools, list) and all(isinstance(pool, dict) for pool in pools)):
        raise InputError(f"{path}: 'pools' must be a list of objects or null")
    for key, kind in () if record["kind"] == "phase1" else (("arm", str), ("seed", int)):
        if not isinstance(config.get(key), kind):
            raise InputError(f"{path}: 'config' has no {key!r} of type {kind.__name__}")
    return config


def read_run(directory: Path, record: dict) -> Run:
    """Load one complete run and check that its files agree with each other."""
    config = checked_config(directory / "config.json", record)
    rows, planned = read_rows(directory / "rows.jsonl"), store.read_json(directory / "summary.json").get("steps")
    if not rows or (planned is not None and planned != len(rows)):
        raise InputError(f"{directory / 'rows.jsonl'}: {len(rows)} rows, but summary.json says {planned} steps")
    samples = read_samples(directory) if record["kind"] != "sampled" else ()
    lacking = {row["step"] for row in rows} ^ {sample["step"] for sample in samples}
    if record["kind"] != "sampled" and lacking:
        named = ", ".join(sorted(map(str, lacking)))
        raise InputError(f"{directory}: rows.jsonl and step_*.cos.jsonl.gz disagree on steps {named}")
    return Run(directory, directory.name, record["kind"], config, record, rows, samples)


def short_labels(runs: Sequence[Run]) -> list[str]:
    """A name for each run from the settings that tell it from its kin: "projected update s42"; else its path.

    Directory names carry every setting and are too long for tables; the table of runs gives the path of each label.
    """
    described = [(run.kind, run.traits()) for run in runs]

    def varies(kind: str, trait: str) -> bool:
        return len({traits[trait] for other, traits in described if other == kind} - {""}) > 1

    labels = []
    for kind, traits in described:
        chosen = [value for trait, value in traits.items() if trait in ("arm", "control") or varies(kind, trait)]
        labels.append((kind, " ".join(filter(None, [kind if kind == "phase1" else "", *chosen]))))
    return [str(run.path) if labels.count(label) > 1 else label[1] for run, label in zip(runs, labels, strict=True)]


def unfinished(directory: Path, kind: Any) -> str | None:
    """Why a run directory is left out, or None when it is complete."""
    if kind not in KINDS:
        return f"unknown kind {kind!r}"
    if not (directory / "summary.json").is_file():
        return "incomplete: no summary.json"
    summary = store.read_json(directory / "summary.json")
    return None if isinstance(summary, dict) and summary.get("finished") is True else "incomplete: not finished"


def find_runs(root: Path) -> tuple[list[Run], list[str]]:
    """(complete runs below ``root``, one line for each run left out). InputError when no complete run is there.

    A config.json without a "kind" is something else (a model's, say) and is passed over.
    """
    if not root.is_dir():
        raise InputError(f"{root}: no such directory")
    records = {path.parent: store.read_json(path) for path in sorted(root.rglob("config.json"))}
    records = {path: record for path, record in records.items() if isinstance(record, dict) and "kind" in record}
    if not records:
        raise InputError(f"{root}: no run directory in it (a config.json with a 'kind')")
    reasons = {path: unfinished(path, record["kind"]) for path, record in records.items()}
    left_out = [f"{path}: {reason}" for path, reason in reasons.items() if reason]
    complete = [path for path, reason in reasons.items() if not reason]
    if not complete:
        raise InputError(f"{root}: no complete run; left out: {'; '.join(left_out)}")
    runs = [read_run(path, records[path]) for path in complete]
    runs = [replace(run, label=label) for run, label in zip(runs, short_labels(runs), strict=True)]
    runs.sort(key=lambda run: (KINDS.index(run.kind), run.arm != "vanilla", run.control != "none", run.label))
    return runs, left_out


# ---------------------------------------------------------------------------------------------- tables
@dataclass(frozen=True)
class Table:
    """Records with raw figures (they go to NAME.csv) and, a column, how a record is shown."""

    name: str
    title: str
    columns: tuple[tuple[str, Callable[[dict], str]], ...]
    records: list[dict]
    sections: bool = False  # the first column names a section: it is shown once, with a line below the section

    def cells(self) -> list[list[str]]:
        lines = [[show(record) for _, show in self.columns] for record in self.records]
        repeated = [self.sections and index > 0 and line[0] == lines[index - 1][0] for index, line in enumerate(lines)]
        return [["", *line[1:]] if again else line for line, again in zip(lines, repeated, strict=True)]


@dataclass(frozen=True)
class Heading:
    text: str


Block = Table | Heading | str

LEGEND = f"""\
Cosines are with v_hack. + is hack-ward: descending such a gradient makes hacks likelier. 0 is orthogonal, - is away.
cos_in / cos_out: gradient before / after the edit. cos_update_in / cos_update: the optimizer's proposed / real change.
cos_S_logp: one sample, before the advantage. cos_S_contrib: with it, so its sign can be the advantage's alone.
Success: vanilla cos_in > 0; projected cos_out < cos_in and cos_update <= 0; teacher hacks positive, base not.
"about 0": |mean| < {ABOUT_ZERO:g}, or the interval includes 0. "most", "consistently": {MOST_STEPS:.0%} of steps.
Intervals: 95 %, t, over problems where the table says so, else over steps (correlated, so too narrow)."""


def shown(key: str, form: Callable = str) -> Callable[[dict], str]:
    return lambda record: form(record[key])


def flat(found: Estimate | Comparison, prefix: str = "") -> dict:
    """Raw figures of an estimate as csv columns."""
    return {prefix + key: value for key, value in vars(found).items()}


def runs_table(runs: Sequence[Run]) -> Table:
    records = [
        {
            "run": run.label,
            "path": str(run.path),
            "kind": run.kind,
            "arm": run.arm,
            "control": run.control,
            "project_at": run.config.get("project_at") or "-",
            "seed": run.config.get("seed", "-"),
            "steps": len(run.rows),
            "model": run.model,
            "v_hack": run.direction,
            "commit": str(run.record.get("commit") or "-")[:8] + ("+" if run.record.get("dirty") else ""),
        }
        for run in runs
    ]
    keys = ("run", "kind", "arm", "control", "seed", "steps", "v_hack", "commit", "path")
    return Table("runs", "Runs", tuple((key, shown(key)) for key in keys), records)


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
        ("over problems: mean [95 %]", shown("over", with_interval)),
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
    pairs = [(a, b) for a, b in zip(run.column("cos_in"), run.column("cos_out"), strict=True) if None not in (a, b)]
    falls = sum(after < before - FLOAT_NOISE for before, after in pairs)
    drop = f"cos_out < cos_in on {falls} of {len(pairs)} steps" if pairs else "cos_out < cos_in: undefined, no cosines"
    unlabelled = sum(bucket_of(sample) is None for sample in run.samples)
    missing = f" {unlabelled} samples without labels are left out." if unlabelled else ""
    verdict, why = judge_phase1(run.samples)
    fired = plain(mean(run.column("frac_fired")))
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
    direction = judge_direction(run.column("cos_in"), pulls_by_role(run.samples))
    mechanism = judge_mechanism(*map(run.column, run.edited), run.column("frac_fired"))
    if run.arm != "vanilla":
        direction = Judgement(direction.measured, NOT_JUDGED, "judged on vanilla")
    if not run.projects:
        mechanism = Judgement(mechanism.measured, NOT_JUDGED, "judged on projecting arms")
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
    return Table("phase2_verification", "Verification (in brackets: what success is)", columns, records, sections=True)


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
            contrib, logp = (describe(samples, key) for key in ("cos_S_contrib", "cos_S_logp"))
            records.append(
                {
                    "run": run.label,
                    "pool": pool,
                    "hacked": hacked,
                    "n": len(samples),
                    "problems": contrib["problems"],
                    "contrib": contrib["over_problems"],
                    "logp": logp["over_problems"],
                    "contrib_positive": contrib["positive"],
                    "logp_positive": logp["positive"],
                    "pull": pull(samples, len(run.rows)),
                    **flat(contrib["over_problems"], "contrib_"),
                    **flat(logp["over_problems"], "logp_"),
                }
            )
    columns = (
        *((key, shown(key)) for key in ("run", "pool", "hacked")),
        ("n (problems)", lambda record: f"{record['n']} ({record['problems']})"),
        ("cos_S_contrib [95 %]", shown("contrib", with_interval)),
        ("> 0", shown("contrib_positive", plain)),
        ("cos_S_logp [95 %]", shown("logp", with_interval)),
        ("> 0", shown("logp_positive", plain)),
        ("pull a step", shown("pull", lambda value: UNDEFINED if value is None else f"{value:+.1e}")),
    )
    title = "Contributions by (src_pool, hacked), intervals over problems; pull = sum of cosine x norm"
    return Table("phase2_pools", title, columns, records, sections=True)


def gather_evidence(runs: Sequence[Run]) -> Evidence:
    """Pool the vanilla runs of one setting (all seeds); controls never decide."""
    real = [run for run in runs if run.control == "none"]
    vanilla, projected = [run for run in real if run.arm == "vanilla"], [run for run in real if run.projects]
    samples = [sample for run in vanilla for sample in run.samples]
    found = contrast_pools(samples)
    test = found.test("cos_S_logp")
    base = [sample["reward"] for sample in samples if sample["src_pool"] == found.roles[1]]
    judged = [(run, dict(judge_run(run))) for run in real]

    def unfit(metric: str) -> tuple[str, ...]:
        bad = [(run.label, row[metric]) for run, row in judged if row[metric].verdict not in (PASS, NOT_JUDGED)]
        return tuple(f"{label}: {row.verdict}, {row.why}" for label, row in bad)

    return Evidence(
        vanilla_cos_in=tuple(value for run in vanilla for value in run.column("cos_in")),
        discriminates=test.larger,
        separation=f"cos_S_logp teacher - base {with_interval(test)}, p {p_value(test.p)}",
        base_rewards=tuple(defined(base)),
        projected=tuple(
            Projected(run.label, tuple(run.column("cos_in")), tuple(run.column(run.edited[1]))) for run in projected
        ),
        dead_signal=unfit(METRICS[0]),
        dead_mechanism=unfit(METRICS[2]),
    )


def decision_blocks(runs: Sequence[Run]) -> list[Block]:
    evidence = gather_evidence(runs)
    rules = decision_rules(evidence)
    words = {True: "yes", False: "no", None: UNDEFINED}
    records = [{"direction": runs[0].direction, **vars(rule), "applies": words[rule.applies]} for rule in rules]
    columns = tuple((key, shown(key)) for key in ("rule", "measured", "applies", "meaning"))
    headline, following = recommend(rules, evidence)
    lines = "\n".join(f"{INDENT}next: {line}" for line in following)
    return [Table("phase3_decision", "Phase 3: decision rules", columns, records), f"{headline}\n{lines}"]


def pool_caveats(runs: Sequence[Run]) -> str:
    """What the run writer noted about the pools and bears on the verdicts: lines to append."""
    pools = [pool for run in runs for pool in run.record["pools"] or []]
    lines = []
    if any(pool.get("seen_by_v_hack") for pool in pools):
        lines.append("\nCaveat: problems of these pools were used to extract v_hack, so the cosines are not held out.")
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


def sampled_table(runs: Sequence[Run]) -> Table:
    records = []
    for run in runs:
        record = {"run": run.label, "seed": run.config["seed"], "steps": len(run.rows)}
        for key in ("hack_rate", "gt_rate", "attempt_rate"):
            names = (f"{key}_first5", f"{key}_last5", f"{key}_area")
            record |= dict(zip(names, curve(run.column(key)), strict=True))
        record["time_to_hack"] = time_to_hack(run.column("step"), run.column("hack_rate"))
        record |= {key: mean(run.column(key)) for key in ("cos_in", "cos_update")}
        records.append(record)

    def three(key: str) -> Callable[[dict], str]:
        """Three rates in eleven characters: .08 .52 .30"""
        parts = [f"{key}_{part}" for part in ("first5", "last5", "area")]
        return lambda record: " ".join(plain(record[part]).removeprefix("0") for part in parts)

    columns = (
        *((key, shown(key)) for key in ("run", "seed", "steps")),
        ("hacked*", three("hack_rate")),
        ("solved*", three("gt_rate")),
        ("attempted*", three("attempt_rate")),
        ("time to hack", lambda record: UNDEFINED if record["time_to_hack"] is None else str(record["time_to_hack"])),
        ("mean cos_in", shown("cos_in", lambda value: signed(value, 2))),
        ("mean cos_update", shown("cos_update", lambda value: signed(value, 2))),
    )
    title = "On-policy runs (* first 5, last 5, mean over all steps = area under the curve)"
    return Table("on_policy", title, columns, records)


def sampled_blocks(runs: Sequence[Run]) -> list[Block]:
    seeds: dict[tuple, set] = defaultdict(set)
    for run in runs:
        seeds[run.arm, run.control, run.config.get("project_at"), run.setting].add(run.config["seed"])
    most = max(map(len, seeds.values()))
    interval = "one seed: no interval, so no claim" if most == 1 else f"up to {most} seeds: each run is listed alone"
    onset = f"Time to hack: first step whose {ONSET_WINDOW}-step mean hack rate exceeds {HACK_ONSET:g}."
    short = [run.label for run in runs if len(run.rows) < 2 * EDGE]
    overlap = f"\nFewer than {2 * EDGE} steps, first and last overlap: {', '.join(short)}." if short else ""
    return [Heading("On-policy GRPO"), sampled_table(runs), f"{onset} Seeds are the unit: {interval}.{overlap}"]


def build_blocks(runs: Sequence[Run], left_out: Sequence[str]) -> list[Block]:
    blocks: list[Block] = [Heading("How to read this"), LEGEND, runs_table(runs)]
    for warning in sorted({str(run.record["warning"]) for run in runs if run.record.get("warning")}):
        named = ", ".join(run.label for run in runs if run.record.get("warning") == warning)
        blocks.append(f"WARNING {named}: {warning}")
    if left_out:
        blocks.append("Left out:\n" + "\n".join(INDENT + line for line in left_out))
    makers = {"phase1": phase1_blocks, "replay": replay_blocks, "sampled": sampled_blocks}
    for kind, make in makers.items():
        chosen = [run for run in runs if run.kind == kind]
        blocks += make(chosen) if chosen else []
    return blocks


# ---------------------------------------------------------------------------------------------- terminal and files
SHORT_CELL = 16
INDENT = "  "
COLOURS = {PASS: "green", FAIL: "red", SNEAKY: "magenta", UNDEFINED: "yellow"}


def print_blocks(blocks: Sequence[Block]) -> None:
    """To the terminal at its width; piped, at $COLUMNS (120 when unset, at least 100), since rich falls back to 80."""
    width = None if sys.stdout.isatty() else max(100, shutil.get_terminal_size((120, 40)).columns)
    console = Console(markup=False, emoji=False, highlight=False, width=width)
    for block in blocks:
        if isinstance(block, Heading):
            console.rule(Text(block.text, style="bold"), align="left")
        elif isinstance(block, str):
            for line in block.split("\n"):
                console.print(line, soft_wrap=line.startswith(INDENT))  # commands and paths stay in one piece
            console.print()
        else:
            console.print(rich_table(block))


def rich_table(table: Table) -> rich.table.Table:
    drawn = rich.table.Table(
        title=table.title, title_justify="left", title_style="bold", box=rich.box.SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    lines = table.cells()
    for place, (header, _) in enumerate(table.columns):
        widest = max(len(line[place]) for line in lines)
        short = widest <= SHORT_CELL  # numbers and short names stay on one line under a stacked header; sentences wrap
        stacked = header.replace(" ", "\n") if short and len(header) > widest else header
        drawn.add_column(stacked, overflow="fold", no_wrap=short)
    for line in lines:
        if table.sections and line[0]:
            drawn.add_section()
        drawn.add_row(*(Text(cell, style=COLOURS.get(cell, "")) for cell in line))
    return drawn


def markdown(blocks: Sequence[Block], pictures: Sequence[str]) -> str:
    parts = ["# Report"]
    for block in blocks:
        if isinstance(block, Heading):
            parts.append(f"## {block.text}")
        elif isinstance(block, str):
            parts.append("```\n" + block + "\n```")
        else:
            lines = [[header for header, _ in block.columns], ["---"] * len(block.columns)]
            lines += [[cell.replace("|", "\\|") for cell in line] for line in block.cells()]
            parts.append(f"### {block.title}\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines))
    parts += ["## Pictures", *(f"![{name}]({name})" for name in pictures)]
    return "\n\n".join(parts) + "\n"


def write_csv(path: Path, records: Sequence[dict]) -> None:
    """Raw figures; an undefined one is an empty cell. Nested values have their own columns already."""
    keys = [key for key, value in records[0].items() if not isinstance(value, (Estimate, Comparison))]
    with store.atomic(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, keys, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(records)


def write_report(directory: Path, blocks: Sequence[Block], runs: Sequence[Run]) -> None:
    """Pictures, one csv a table, report.md last; what an earlier report left under our names is removed."""
    tables: dict[str, list[dict]] = defaultdict(list)
    for block in blocks:
        if isinstance(block, Table):
            tables[block.name] += block.records
    for name, records in tables.items():
        write_csv(directory / f"{name}.csv", records)
    pictures = plots.draw_all(directory, runs)
    ours = {f"{name}.csv" for name in TABLE_NAMES} | set(plots.NAMES)
    for name in ours - set(pictures) - {f"{name}.csv" for name in tables}:
        (directory / name).unlink(missing_ok=True)
    with store.atomic(directory / "report.md") as temporary:
        temporary.write_text(markdown(blocks, pictures), encoding="utf-8")


TABLE_NAMES = (
    "runs phase1_buckets phase1_tests phase2_verification phase2_advantages phase2_pools phase3_decision on_policy"
).split()


@dataclass(frozen=True)
class Config:
    """Print the tables of all finished runs below DIR, with verdicts, and write DIR/report/."""

    directory: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(name="", metavar="DIR")]
    """Folder with run directories at any depth, e.g. out/probe_distill. Unfinished runs are named and left out."""


def main(config: Config) -> None:
    runs, left_out = find_runs(config.directory)
    blocks = build_blocks(runs, left_out)
    write_report(config.directory / "report", blocks, runs)
    print_blocks(blocks)
    print(f"report: {config.directory / 'report' / 'report.md'}")


if __name__ == "__main__":
    store.exit_on_fault(lambda: main(tyro.cli(Config, prog="analyze.py")))
