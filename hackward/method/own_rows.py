"""How well a V tells the rollouts of the model itself apart, its hacks and its attempts.

    score    cosine of a rollout's own NLL gradient with V^T w, at the adapter's present state
    AUC      probability that a hack's score is above that of another own rollout; intervals over problems

A V from pairs by two authors may know the authors and nothing of hacks: it then tells pairs apart, and not
these.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hackward.base.screen import progress
from hackward.base.seeds import shuffled
from hackward.base.statistics import Estimate, auc_by_unit
from hackward.method import gradients
from hackward.method.adapters import Adapter
from hackward.method.extraction import Grads
from hackward.method.projection import cosine
from hackward.method.v_hack import VHack
from hackward.rollouts.rollout import Rollout

TARGETS = ("hacked", "attempted")


def sampled(rollouts: Sequence[Rollout], limit: int, seed: int) -> tuple[list[Rollout], list[float]]:
    """At most `limit` rollouts, and how many of the given ones each stands for.

    All hacks, up to half of the limit (more where there are few others); the rest are drawn by seed.
    """
    hacks = [rollout for rollout in rollouts if rollout.hacked]
    others = [rollout for rollout in rollouts if not rollout.hacked]
    room = max(limit // 2, limit - len(others))
    taken: list[Rollout] = []
    weights: list[float] = []
    for side, words in ((hacks, "own hacks"), (others, "other own rollouts")):
        chosen = shuffled(side, seed, words)[:room]
        taken += chosen
        weights += [len(side) / max(1, len(chosen))] * len(chosen)
        room = limit - len(chosen)
    return taken, weights


def scores(
    adapter: Adapter,
    rollouts: Sequence[Rollout],
    directions: Sequence[VHack],
    *,
    pad: int,
    tokens: int | None,
    temperature: float,
) -> Tensor:
    """(N, D): cosine of each rollout's NLL gradient with each of the directions; NaN where it is 0."""

    placed = [v.to(adapter.model.device) for v in directions]

    def read(grads: Grads) -> Tensor:
        return torch.stack([cosine(grads, v) for v in placed], dim=1)

    rows = [rollout.tokens for rollout in rollouts]
    with progress("own rollouts: gradients", len(rows)) as bar:
        return gradients.read_rows(
            adapter, rows, read, pad=pad, tokens=tokens, temperature=temperature, on_batch=bar
        )


def aucs(rollouts: Sequence[Rollout], score_N: Tensor, weights: Sequence[float]) -> dict[str, Estimate]:
    """By TARGETS: rollouts with the label against all others; each counts as many as it stands for."""
    problems = [rollout.identity for rollout in rollouts]
    found = {}
    for target in TARGETS:
        label = [bool(getattr(rollout, target)) for rollout in rollouts]
        found[target] = auc_by_unit(score_N.tolist(), label, problems, (target, "other"), weights)
    return found
