"""Figures of groups of rollouts. Problems are the unit.

Rollouts of one problem are averaged before any interval. A problem is (src_pool, src_step), since a pool file
holds one problem. (A run's own rollouts used as a pool hold one step per file; the unit is then coarser, and
the intervals wider.)
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from hackward.base import statistics
from hackward.base.statistics import Range, defined, estimate, null_range, share

BUCKETS = ("pure hack", "hack and correct", "correct", "neither")
ProblemKey = tuple[str, int]


def bucket_of(sample: dict[str, Any]) -> str | None:
    """One of BUCKETS, or None when a label is missing."""
    if sample["hacked"] is None or sample["gt_pass"] is None:
        return None
    if sample["hacked"]:
        return "hack and correct" if sample["gt_pass"] else "pure hack"
    return "correct" if sample["gt_pass"] else "neither"


def in_buckets(samples: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in BUCKETS}
    for sample in samples:
        name = bucket_of(sample)
        if name:
            found[name].append(sample)
    return found


def by_problem(samples: Iterable[dict[str, Any]], key: str) -> dict[ProblemKey, float]:
    """Mean of ``key`` within each problem."""
    grouped: dict[ProblemKey, list[float]] = defaultdict(list)
    for sample in samples:
        if sample[key] is not None:
            grouped[sample["src_pool"], sample["src_step"]].append(sample[key])
    return {problem: float(np.mean(values)) for problem, values in grouped.items()}


def bucket_null(samples: Sequence[dict[str, Any]], key: str) -> Range | None:
    """2.5 to 97.5 % range of a bucket's mean over problems under permuted pair signs.

    None unless every rollout's draws were recorded. They are those of cos_S_logp; with the advantage
    multiplied in, they change sign where the cosine does.
    """
    grouped: dict[ProblemKey, list[np.ndarray]] = defaultdict(list)
    for sample in samples:
        if sample[key] is None:
            continue
        if sample["draws"] is None or sample["cos_S_logp"] is None:
            return None
        turned = sample[key] * sample["cos_S_logp"] < 0
        draws = -sample["draws"] if turned else sample["draws"]
        grouped[sample["src_pool"], sample["src_step"]].append(draws)
    if not grouped:
        return None
    return null_range(np.stack([np.mean(draws, axis=0) for draws in grouped.values()]))


def describe(samples: Sequence[dict[str, Any]], key: str) -> dict[str, Any]:
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


def pull(samples: Iterable[dict[str, Any]], steps: int) -> float | None:
    """What these samples add to gradient . v_hack: sum(cos_S_contrib * grad_norm_contrib) per step."""
    parts = []
    for sample in samples:
        cosine, size = sample["cos_S_contrib"], sample["grad_norm_contrib"]
        if cosine is not None and size is not None:
            parts.append(cosine * size)
    return sum(parts) / steps if parts and steps else None
