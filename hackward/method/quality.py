"""How good a V is on pairs that it was not made from, beside its permutation null.

Folds by problem: V is made from the pairs of four fifths, and judged on those of the other. Right sign: the
share of pairs whose difference points the right way. AUC: hack against clean answers, by the cosine of their
gradients with V^T w. Both beside their null, in which hack and clean trade places at random, problem by
problem, in learning and in judging alike.

Key: P pairs, S ways of flipping them (the first is the truth), K directions over all modules.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hackward.base.statistics import permutation_test
from hackward.method.projection import norm
from hackward.method.recipe import Extraction
from hackward.method.v_hack import directions, orient, problem_flips

FOLDS = 5
UNDEFINED = {"value": None, "null": [None, None], "p": None}


def folds(problem_ids: Sequence[str], count: int, seed: int) -> list[np.ndarray]:
    """Index sets that cover all pairs once; pairs of one problem are never split."""
    unique = sorted(set(problem_ids))
    np.random.default_rng(seed).shuffle(unique)
    owner = {problem: i % count for i, problem in enumerate(unique)}
    found = []
    for fold in range(min(count, len(unique))):
        found.append(np.array([i for i, problem in enumerate(problem_ids) if owner[problem] == fold]))
    return found


def auc(positive_SP: Tensor, negative_SP: Tensor) -> Tensor:
    """(S,): probability that a positive scores above a negative, ties counted half (Mann-Whitney)."""
    gap_SPP = positive_SP[:, :, None] - negative_SP[:, None, :]
    return ((gap_SPP > 0).double() + 0.5 * (gap_SPP == 0).double()).mean((1, 2))


class _Tally:
    """Scores of the pairs of all folds, under every flip."""

    def __init__(self, flips_SP: Tensor) -> None:
        S, P = flips_SP.shape
        self.flips_SP = flips_SP
        self.ranked_S = torch.zeros(S, dtype=torch.double)
        self.compared = 0
        self.hack_SP, self.clean_SP, self.margin_SP = (torch.zeros(S, P) for _ in range(3))

    def add(
        self, test: np.ndarray, direction_SK: Tensor, hack_TK: Tensor, clean_TK: Tensor, sizes: Tensor
    ) -> None:
        """A fold: its pairs' coefficients, and the norms (2, T) of the hacks' and the clean answers'
        gradients.

        Scores of different folds are cosines with different directions, so the AUC compares within a fold
        only.
        """
        flips_ST = self.flips_SP[:, test]
        hacks, cleans = direction_SK @ hack_TK.T / sizes[0], direction_SK @ clean_TK.T / sizes[1]
        self.hack_SP[:, test], self.clean_SP[:, test] = hacks, cleans
        self.margin_SP[:, test] = direction_SK @ (hack_TK - clean_TK).T * flips_ST
        swapped = flips_ST < 0
        positive, negative = torch.where(swapped, cleans, hacks), torch.where(swapped, hacks, cleans)
        self.ranked_S += len(test) ** 2 * auc(positive, negative)
        self.compared += len(test) ** 2


def held_out(
    hack: dict[str, Tensor], clean: dict[str, Tensor], problem_ids: Sequence[str], settings: Extraction
) -> dict[str, Any]:
    """Right-sign share and AUC on held-out pairs with their nulls, from gradients (P, R) per module.

    Keys as in the v_hack file. Undefined where some fold has under two pairs to learn from.
    """
    P = len(problem_ids)
    drawn_SP = problem_flips(problem_ids, settings.permutations, settings.seed)
    tally = _Tally(torch.cat([torch.ones(1, P), drawn_SP]))
    sizes_2P = torch.stack([norm(hack), norm(clean)])
    D = {name: hack[name] - clean[name] for name in hack}
    for test in folds(problem_ids, FOLDS, settings.seed):
        train = np.setdiff1d(np.arange(P), test)
        if len(train) < 2:
            return _undefined(P)
        V = directions({name: d[train] for name, d in D.items()}, settings.k, settings.noise_floor)
        hack_PK = torch.cat([hack[name] @ basis.T for name, basis in V.items()], 1)
        clean_PK = torch.cat([clean[name] @ basis.T for name, basis in V.items()], 1)
        sign_SK, weight_SK = orient((hack_PK - clean_PK)[train], tally.flips_SP[:, train])
        signed_SK = sign_SK * weight_SK
        direction_SK = signed_SK / signed_SK.norm(dim=1, keepdim=True).clamp_min(1e-30)
        tally.add(test, direction_SK, hack_PK[test], clean_PK[test], sizes_2P[:, test])
    return {
        "pairs": P,
        "folds": min(FOLDS, len(set(problem_ids))),
        "permutations": settings.permutations,
        "right_sign": _against_null((tally.margin_SP > 0).double().mean(1)),
        "auc": _against_null(tally.ranked_S / tally.compared),
        "mean_cos_hack": float(tally.hack_SP[0].mean()),
        "mean_cos_clean": float(tally.clean_SP[0].mean()),
        "right_sign_by_pair": (tally.margin_SP[0] > 0).tolist(),
    }


def _undefined(pairs: int) -> dict[str, Any]:
    return {
        "pairs": pairs,
        "folds": 0,
        "permutations": 0,
        "right_sign": UNDEFINED,
        "auc": UNDEFINED,
        "mean_cos_hack": None,
        "mean_cos_clean": None,
        "right_sign_by_pair": [None] * pairs,
    }


def _against_null(values_S: Tensor) -> dict[str, Any]:
    """First entry the measurement, the rest its null: value, 2.5 to 97.5 % range, one-sided p with the +1
    correction."""
    value, null = float(values_S[0]), values_S[1:].numpy()
    if not len(null):
        return UNDEFINED | {"value": value}
    low, high, p = permutation_test(value, null)
    return {"value": value, "null": [low, high], "p": p}
