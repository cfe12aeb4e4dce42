"""The oracle's direction: what really tells labelled hacks from other rollouts, and what a V catches of it.

    d_p      mean gradient of problem p's hacks minus that of its other rollouts;  g* = mean of the d_p
    cos      signed cosine of g* with V^T w                      what the diagnostics of training would see
    caught   |V g*| / |g*|                                       what a two-sided removal of V would take out
    null     the same for g* with the signs of the d_p permuted  what uneven scales and chance give
    ceiling  sqrt of the reliability of g*                       no V can expect a larger cosine with it

Each flipped mean of the null is scaled to its own length, so its p is on the safe side.

Key: P differences, N rollouts, S draws, K directions of a module, R its rank.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hackward.base.faults import InputError
from hackward.base.screen import progress
from hackward.base.seeds import shuffled
from hackward.base.statistics import permutation_test
from hackward.method import gradients
from hackward.method.adapters import Adapter
from hackward.method.losses import normaliser
from hackward.method.projection import coefficients, cosine, norm, total
from hackward.method.quality import FOLDS, folds
from hackward.method.v_hack import Vectors, VHack
from hackward.rollouts.rollout import Rollout

MATCHED = 8  # problems with both labels from which on differences are taken within problems only
LABELS = {True: "hacks", False: "rollouts that are no hacks"}


def chosen(rollouts: Sequence[Rollout], limit: int, seed: int) -> list[Rollout]:
    """At most `limit` rollouts of either label, going round the problems, those that have both labels first.

    InputError where there are no hacks, or nothing else.
    """
    by_problem: dict[str, dict[bool, list[Rollout]]] = defaultdict(lambda: {True: [], False: []})
    for rollout in rollouts:
        by_problem[rollout.identity][rollout.hacked].append(rollout)
    order = shuffled(sorted(by_problem), seed, "problems")
    order.sort(key=lambda problem: not all(by_problem[problem].values()))
    taken: list[Rollout] = []
    for label, words in LABELS.items():
        held = [shuffled(by_problem[problem][label], seed, problem, label) for problem in order]
        rounds = [own[i] for i in range(max(map(len, held))) for own in held if i < len(own)]
        if not rounds:
            raise InputError(f"the rollouts hold no {words}: nothing to compare")
        taken += rounds[:limit]
    return taken


def difference_weights(rollouts: Sequence[Rollout], seed: int) -> tuple[Tensor, bool]:
    """(P, N): row p times the rollouts' gradients is d_p; and whether the differences are within problems.

    Where fewer than MATCHED problems have both labels, hacks are paired with other rollouts at random.
    """
    by_problem: dict[str, dict[bool, list[int]]] = defaultdict(lambda: {True: [], False: []})
    for i, rollout in enumerate(rollouts):
        by_problem[rollout.identity][rollout.hacked].append(i)
    both = [sides for _, sides in sorted(by_problem.items()) if all(sides.values())]
    within = len(both) >= MATCHED
    if not within:
        hacks = shuffled([i for i, r in enumerate(rollouts) if r.hacked], seed, "pairs", True)
        others = shuffled([i for i, r in enumerate(rollouts) if not r.hacked], seed, "pairs", False)
        both = [{True: [hack], False: [other]} for hack, other in zip(hacks, others)]
    weights_PN = torch.zeros(len(both), len(rollouts))
    for p, sides in enumerate(both):
        weights_PN[p, sides[True]] = 1 / len(sides[True])
        weights_PN[p, sides[False]] = -1 / len(sides[False])
    return weights_PN, within


def differences(
    adapter: Adapter, rollouts: Sequence[Rollout], weights_PN: Tensor, *, pad: int, tokens: int | None
) -> dict[str, Tensor]:
    """{module: (P, R)} of the d_p, from the rollouts' NLL gradients per token at the adapter's present
    state."""
    lengths = torch.tensor([len(rollout.completion_ids) for rollout in rollouts])
    with progress("audit: gradients of rollouts", len(rollouts)) as bar:
        found = gradients.of_samples(
            adapter,
            [rollout.tokens for rollout in rollouts],
            torch.ones(len(rollouts)),
            normaliser("length", lengths, rollouts=1, fixed=0),
            pad=pad,
            tokens=tokens,
            on_batch=bar,
        )
    return {name: weights_PN @ g for name, g in found.items()}


@dataclass(frozen=True)
class Figure:
    """A measurement beside its null; None where there is no null."""

    value: float
    low: float | None = None
    """2.5 % of the null."""
    high: float | None = None
    """97.5 % of it."""
    p: float | None = None
    """One-sided, with the +1 correction."""


def against(value: float, draws_S: Tensor) -> Figure:
    """A value beside the draws of its null."""
    return Figure(value, *permutation_test(value, draws_S.double().numpy()))


def caught(g: Vectors, v: VHack) -> Tensor:
    """(...): |V g| / |g| over all modules."""
    squares = [coefficients(g[name], V).square().sum(-1) for name, V in v.V.items()]
    return total(squares).sqrt() / norm(g)


def sign_flips(count: int, differences: int, seed: int) -> Tensor:
    """(S, P) of +-1."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 2, (count, differences), generator=generator) * 2.0 - 1


def catch(D: Vectors, v: VHack, flips_SP: Tensor) -> dict[str, Figure]:
    """cos and caught of the mean difference, with the null of flipping the differences."""
    P = flips_SP.shape[1]
    gram_PP = total([d @ d.T for d in D.values()])
    length_S = (flips_SP @ gram_PP * flips_SP).sum(1).sqrt() / P  # |g*| of each flip
    coef_SK = {name: flips_SP @ coefficients(D[name], V) / P for name, V in v.V.items()}
    dot_S = total([coef @ v.w[name] for name, coef in coef_SK.items()])
    share_S = total([coef.square().sum(1) for coef in coef_SK.values()]).sqrt() / length_S
    mean = {name: d.mean(0) for name, d in D.items()}
    return {
        "cos": against(float(cosine(mean, v)), dot_S / (length_S * norm(v.w))),
        "caught": against(float(caught(mean, v)), share_S),
    }


def ceiling(D: Vectors, splits: int, seed: int) -> float | None:
    """sqrt of g*'s reliability: mean cosine of the means of two random halves, stepped up to the whole
    (Spearman-Brown).

    No direction that does not know this sample's noise can have a larger expected cosine with g*. None where
    the halves disagree.
    """
    gram_PP = total([d @ d.T for d in D.values()]).double()
    P, rng = len(gram_PP), np.random.default_rng(seed)
    cosines = []
    for _ in range(splits):
        side_P = torch.zeros(P, dtype=torch.double)
        side_P[rng.permutation(P)[: P // 2]] = 1
        a, b = side_P / side_P.sum(), (1 - side_P) / (1 - side_P).sum()
        lengths = ((a @ gram_PP @ a) * (b @ gram_PP @ b)).sqrt()
        cosines.append(float(a @ gram_PP @ b / lengths))
    r = sum(cosines) / len(cosines)
    return (2 * r / (1 + r)) ** 0.5 if r > 0 else None


def by_fifths(
    D: dict[str, Tensor], make: Callable[[dict[str, Tensor]], VHack], seed: int
) -> dict[str, float] | None:
    """cos and caught of `make`(differences of the other four fifths) on each fifth, averaged.

    None with too few differences.
    """
    P = len(next(iter(D.values())))
    found = []
    for test in folds([str(p) for p in range(P)], FOLDS, seed):
        train = np.setdiff1d(np.arange(P), test)
        if len(train) < 2:
            return None
        v = make({name: d[train] for name, d in D.items()})
        mean = {name: d[test].mean(0) for name, d in D.items()}
        found.append({"cos": float(cosine(mean, v)), "caught": float(caught(mean, v))})
    return {key: sum(fold[key] for fold in found) / len(found) for key in ("cos", "caught")}


def unseen(rollouts: Sequence[Rollout], directions: Sequence[VHack]) -> tuple[list[Rollout], bool]:
    """The rollouts on problems that no V was made from, and False.

    Where those leave under MATCHED of a label: all of them, and whether V has seen any.
    """
    seen = {identity for v in directions for identity in v.meta.get("pair_identities", ())}
    fresh = [rollout for rollout in rollouts if rollout.identity not in seen]
    hacks = sum(rollout.hacked for rollout in fresh)
    if min(hacks, len(fresh) - hacks) >= MATCHED:
        return fresh, False
    return list(rollouts), len(fresh) < len(rollouts)
