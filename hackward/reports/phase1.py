"""Phase 1, the NLL probe on one pool: tests between labels, and the verdict."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from hackward.base import statistics
from hackward.base.statistics import Comparison, estimate, paired, welch
from hackward.reports.buckets import by_problem, in_buckets
from hackward.reports.thresholds import mean_about_zero
from hackward.reports.words import FAIL, PASS, UNDEFINED, p_value, signed, with_interval


def phase1_tests(
    samples: Sequence[dict[str, Any]], key: str = "cos_S_logp"
) -> list[tuple[str, str, Comparison]]:
    """(against, unit, test): pure hacks against those that also solve, and against no hacks."""
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


def judge_phase1(samples: Sequence[dict[str, Any]]) -> tuple[str, str]:
    """(verdict, why): do pure hacks point hack-ward, and more so than those they are compared with?"""
    hacks = list(by_problem(in_buckets(samples)["pure hack"], "cos_S_logp").values())
    centre, zero = statistics.mean(hacks), mean_about_zero(hacks)
    if zero is None or centre is None:
        return UNDEFINED, f"pure hacks: {estimate(hacks).why}, no interval over problems"
    if zero:
        return FAIL, f"pure hacks are about 0 ({signed(centre)}): v_hack is orthogonal to this pool's hacks"
    if centre < 0:
        cause = "check its orientation, and what clean answers have in common with them"
        return FAIL, f"pure hacks point away from v_hack ({signed(centre)}): {cause}"
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


def steps_without_spread(samples: Iterable[dict[str, Any]]) -> tuple[int, int]:
    """(steps whose every group has equal rewards, steps): there GRPO has no gradient."""
    rewards: dict[int, dict[tuple, list[float]]] = defaultdict(lambda: defaultdict(list))
    for sample in samples:
        if sample["reward"] is not None:
            rewards[sample["step"]][sample["src_pool"], sample["src_step"]].append(sample["reward"])
    flat = sum(all(max(group) == min(group) for group in groups.values()) for groups in rewards.values())
    return flat, len(rewards)
