"""v_hack: the direction in delta_S coordinates that tells a hack from an honest answer to the same prompt.

    d_p   = grad NLL(hack_p) - grad NLL(clean_p)            one row a pair, NLL a token, at the adapter's present state
    D_m   = P Sigma Q^T,   V_m = first k rows of Q^T         per module m
    sign  : each row of V is flipped so that most pairs have a positive coefficient (majority vote)
    floor : rows whose singular value is in the lowest share of all modules' rows are dropped
    w     = mean over pairs of V d_p, at least 0             how much of the mean difference lies along each row

With --objective=grpo d_p is the gradient of the live loss on the pair as a group of two, the hack rewarded: advantages
+1/2 and -1/2, the run's own denominator and temperature. At ratio 1 that loss is linear in the log-probabilities, so what
changes against NLL is how tokens weigh (all answers by one number instead of each by its own length), and nothing else.

Whether V means anything is checked on pairs it has not seen (folds by problem): the share of pairs whose difference
points the right way, and the AUC of hack against clean answers by cosine, both beside their null, in which hack and
clean are swapped at random in every pair. Flipping pairs leaves the singular vectors as they are, so the null keeps the
subspace and its uneven scales, and only destroys what orientation and weights learned.

    python extract_vhack.py --pairs data/pairs.jsonl --out out/v_hack.safetensors
    python extract_vhack.py --model MODEL --pool TEACHER_POOL --problems PROBLEMS --out out/v_hack_pool.safetensors
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor

from hackward.base.faults import InputError
from hackward.base.flags import Amount, Count
from hackward.base.screen import progress
from hackward.base.statistics import permutation_test
from hackward.method import gradients
from hackward.method.losses import dr_grpo_advantages, normaliser
from hackward.method.pairs import Pair, find_pairs, pair_hash
from hackward.method.svd import thin_svd
from hackward.method.v_hack import VHack, orient, problem_flips
from hackward.rollouts.tokens import pad_id


@dataclass(frozen=True)
class Extraction:
    """How V is made from pairs; stored in the v_hack file."""

    k: Count = 16
    """Directions a module, before the noise floor."""
    noise_floor: Annotated[float, Ge(0), Lt(1)] = 0.25
    """Share of all (module, direction) rows to drop, those with the smallest singular values."""
    objective: Literal["nll", "grpo"] = "nll"
    """Loss whose gradients are contrasted: NLL of each answer, or the live loss with the pair as a group."""
    normaliser: Literal["length", "fixed"] | None = None
    """What an answer's loss is divided by: its length, or one number for all (default: length for nll, fixed for grpo, as when sampling)."""
    temperature: Annotated[float, Gt(0)] = 1.0
    """Log-probabilities are taken at this temperature; grpo: give that of the run's sampling."""
    max_pairs: Annotated[int, Ge(2)] = 64
    """Most pairs to use; of a pool, one a problem comes first."""
    seed: int = 0
    """Choice of pairs, folds and permutations."""
    permutations: Amount = 1000
    """Draws of the permutation null."""


# What the rows of a pair (hack, clean) weigh in its difference.
CONTRAST = {"nll": (1.0, -1.0), "grpo": tuple((dr_grpo_advantages(torch.tensor([1.0, 0.0]))).tolist())}


def denominator(settings: dict) -> str:
    """What the losses are divided by, in settings or in the meta of a v_hack: as they say, else by their objective."""
    return settings.get("normaliser") or {"nll": "length", "grpo": "fixed"}[settings.get("objective", "nll")]


def pair_gradients(
    adapter, pairs: Sequence[Pair], settings: Extraction, *, pad: int, tokens: int, on_batch=lambda rows: None
) -> tuple[dict, dict]:
    """Per-sample gradients of all hacks and of all clean answers: two dicts module -> (P, R), fp32 on the CPU.

    Both are gradients of a loss whose descent makes the answer likelier, times the size of its weight in the contrast, so
    that hack - clean is the pair's difference under either objective.
    """
    rows = [(p.prompt_ids, p.hack_ids) for p in pairs] + [(p.prompt_ids, p.clean_ids) for p in pairs]
    lengths = torch.tensor([len(completion) for _, completion in rows])
    # "fixed" has no sampling limit to refer to here; any one number gives the same V, the longest answer keeps the scale.
    weights = normaliser(denominator(vars(settings)), lengths, rollouts=1, fixed=int(lengths.max()))
    sizes = torch.tensor(CONTRAST[settings.objective]).abs().repeat_interleave(len(pairs))
    found = gradients.of_samples(
        adapter,
        rows,
        sizes,
        weights,
        pad=pad,
        tokens=tokens,
        temperature=settings.temperature,
        on_batch=on_batch,
    )
    halves = {name: g.split(len(pairs)) for name, g in found.items()}
    return {n: h[0] for n, h in halves.items()}, {n: h[1] for n, h in halves.items()}


def directions(D: dict[str, Tensor], k: int, noise_floor: float) -> dict[str, Tensor]:
    """Per module the top right singular vectors of D (P, R), as (k', R) rows; those under the global noise floor are left out."""
    found = {}
    for name, D_PR in D.items():
        _, sigma, Vh = thin_svd(D_PR)
        real = int((sigma[:k] > 1e-6 * sigma[0]).sum()) if float(sigma[0]) > 0 else 0
        found[name] = (Vh[:real], sigma[:real])
    every = torch.cat([sigma for _, sigma in found.values()])
    if not len(every):
        raise InputError("hack and clean answers have the same gradients everywhere: no direction to extract")
    floor = torch.quantile(every, noise_floor)
    kept = {name: Vh[sigma >= floor].float() for name, (Vh, sigma) in found.items()}
    return {name: V for name, V in kept.items() if len(V)}


def build(D: dict[str, Tensor], settings: Extraction, meta: dict) -> VHack:
    """V and w from the paired differences D: module -> (P, R)."""
    V, w, coef = {}, {}, {}
    for name, basis in directions(D, settings.k, settings.noise_floor).items():
        coef_PK = D[name] @ basis.T
        sign, weight = orient(coef_PK, torch.ones(1, len(coef_PK)))
        V[name], w[name], coef[name] = basis * sign[0][:, None], weight[0], coef_PK * sign[0]
    return VHack(V, w, meta, coef)


def folds(problem_ids: Sequence[str], count: int, seed: int) -> list[np.ndarray]:
    """Index sets that cover all pairs once; pairs of one problem are never split."""
    unique = sorted(set(problem_ids))
    np.random.default_rng(seed).shuffle(unique)
    owner = {problem: i % count for i, problem in enumerate(unique)}
    return [
        np.array([i for i, p in enumerate(problem_ids) if owner[p] == fold])
        for fold in range(min(count, len(unique)))
    ]


def auc(positive_SP: Tensor, negative_SP: Tensor) -> Tensor:
    """(S,): probability that a positive scores above a negative, ties counted half (Mann-Whitney)."""
    gap = positive_SP[:, :, None] - negative_SP[:, None, :]
    return ((gap > 0).double() + 0.5 * (gap == 0).double()).mean((1, 2))


def held_out(
    hack: dict, clean: dict, problem_ids: Sequence[str], settings: Extraction, count: int = 5
) -> dict:
    """Right-sign share and AUC on held-out pairs, with the permutation null of both; keys as in the v_hack file.

    Row 0 of the flips is the truth; the rest are random. Where a problem is flipped, hack and clean trade places in all its
    pairs, in training and in testing alike: problems are the unit. Scores of different folds are cosines with different
    directions, so the AUC compares within a fold only. Undefined where some fold has under two pairs to learn from.
    """
    P = len(problem_ids)
    flips = torch.cat([torch.ones(1, P), problem_flips(problem_ids, settings.permutations, settings.seed)])
    ranked, compared = torch.zeros(len(flips), dtype=torch.double), 0
    score = {side: torch.zeros(len(flips), P) for side in ("hack", "clean")}
    margin = torch.zeros(len(flips), P)
    norms = {
        side: sum(g.square().sum(1) for g in grads.values()).sqrt()
        for side, grads in (("hack", hack), ("clean", clean))
    }
    D = {name: hack[name] - clean[name] for name in hack}
    for test in folds(problem_ids, count, settings.seed):
        train = np.setdiff1d(np.arange(P), test)
        if len(train) < 2:
            undefined = {"value": None, "null": [None, None], "p": None}
            return {
                "pairs": P,
                "folds": 0,
                "permutations": 0,
                "right_sign": undefined,
                "auc": undefined,
                "mean_cos_hack": None,
                "mean_cos_clean": None,
                "right_sign_by_pair": [None] * P,
            }
        V = directions({name: d[train] for name, d in D.items()}, settings.k, settings.noise_floor)
        coef = {
            side: torch.cat([g[name] @ basis.T for name, basis in V.items()], 1)
            for side, g in (("hack", hack), ("clean", clean))
        }
        difference = coef["hack"] - coef["clean"]
        sign, weight = orient(difference[train], flips[:, train])
        direction = sign * weight / (sign * weight).norm(dim=1, keepdim=True).clamp_min(1e-30)
        margin[:, test] = direction @ difference[test].T * flips[:, test]
        for side in score:
            score[side][:, test] = direction @ coef[side][test].T / norms[side][test]
        swapped, hacks, cleans = flips[:, test] < 0, score["hack"][:, test], score["clean"][:, test]
        ranked += len(test) ** 2 * auc(
            torch.where(swapped, cleans, hacks), torch.where(swapped, hacks, cleans)
        )
        compared += len(test) ** 2
    return {
        "pairs": P,
        "folds": min(count, len(set(problem_ids))),
        "permutations": settings.permutations,
        "right_sign": _against_null((margin > 0).double().mean(1)),
        "auc": _against_null(ranked / compared),
        "mean_cos_hack": float(score["hack"][0].mean()),
        "mean_cos_clean": float(score["clean"][0].mean()),
        "right_sign_by_pair": (margin[0] > 0).tolist(),
    }


def _against_null(values_S: Tensor) -> dict:
    """First entry the measurement, the rest its null: value, 2.5 to 97.5 % range, one-sided p with the +1 correction."""
    value, null = float(values_S[0]), values_S[1:].numpy()
    if not len(null):
        return {"value": value, "null": [None, None], "p": None}
    low, high, p = permutation_test(value, null)
    return {"value": value, "null": [low, high], "p": p}


def extract(
    adapter, tokenizer, pairs: Sequence[Pair], settings: Extraction, *, source: dict, tokens: int
) -> VHack:
    """v_hack with its provenance and its held-out quality in `meta`."""
    pad = pad_id(tokenizer)
    with progress("v_hack: gradients of pairs", 2 * len(pairs)) as bar:
        hack, clean = pair_gradients(adapter, pairs, settings, pad=pad, tokens=tokens, on_batch=bar)
    D = {name: hack[name] - clean[name] for name in hack}
    ids = [pair.problem_id for pair in pairs]
    quality = held_out(hack, clean, ids, settings)
    right = dict.fromkeys((p.mechanism for p in pairs), 0)
    for pair, good in zip(pairs, quality.pop("right_sign_by_pair")):
        right[pair.mechanism] += bool(good)
    totals = Counter(pair.mechanism for pair in pairs)
    meta = {
        "kind": "v_hack",
        "basis": adapter.kind,
        "coordinates": adapter.coordinates,
        "model_hash": adapter.model_hash,
        **source,
        **vars(settings),
        "pairs": len(pairs),
        "pair_hash": pair_hash(pairs),
        "pair_problem_ids": sorted(set(ids)),
        "pair_problems": ids,
        "pair_identities": sorted({pair.identity for pair in pairs}),
        "heldout": quality,
        "right_sign_by_mechanism": {name: [right[name], totals[name]] for name in sorted(totals)},
    }
    found = build(D, settings, meta)
    meta["modules"], meta["directions"] = len(found.V), found.directions
    return found


def clean_clean(
    adapter, tokenizer, pairs: Sequence[Pair], settings: Extraction, *, tokens: int, seed: int
) -> VHack:
    """The control: V from clean answers against clean answers to other problems, in a seeded order; no hack is in it.

    As many pairs, the same k and noise floor. v_hack's differences are within a prompt and these are across prompts, since few
    problems have two clean answers: what differs here is the problem. The rows' orientation means nothing.

    Raises InputError where more than half of the pairs are of one problem.
    """
    _, clean = pair_gradients(adapter, pairs, settings, pad=pad_id(tokenizer), tokens=tokens)
    other = rotated([pair.problem_id for pair in pairs], seed)
    meta = {
        "kind": "v_hack",
        "basis": adapter.kind,
        "coordinates": adapter.coordinates,
        "model_hash": adapter.model_hash,
        "control": "clean-clean",
        "control_seed": seed,
        "pair_problems": [pair.problem_id for pair in pairs],
    }
    return build({name: g - g[other] for name, g in clean.items()}, settings, meta)


def rotated(problem_ids: Sequence[str], seed: int) -> list[int]:
    """For every pair the index of one of another problem, a permutation: laid out by problem in a seeded order, and moved on by the largest count."""
    order = sorted(set(problem_ids))
    np.random.default_rng(seed).shuffle(order)
    laid = sorted(range(len(problem_ids)), key=lambda i: order.index(problem_ids[i]))
    step = max(Counter(problem_ids).values())
    if 2 * step > len(problem_ids):
        raise InputError(
            f"--control=clean-clean: {step} of {len(problem_ids)} pairs are of one problem; clean answers of different problems are needed"
        )
    return [laid[(laid.index(i) + step) % len(laid)] for i in range(len(laid))]


def load(path: str | Path, adapter) -> VHack:
    """A v_hack file, checked to be of this adapter's model and coordinates; InputError otherwise."""
    return VHack.load(
        path, model_hash=adapter.model_hash, params=adapter.params, coordinates=adapter.coordinates
    )


def same_pairs(v: VHack, name: str, tokenizer, model) -> tuple[list[Pair], Extraction, dict]:
    """The pairs that a v_hack was made from, found again where they lay: for a control, or to extract anew while training.

    Raises InputError where the file does not say, or where what lies there now gives other pairs.
    """
    where, known = v.meta.get("file", "v_hack"), {f.name for f in fields(Extraction)}
    if "recipe" not in v.meta:
        raise InputError(
            f"{where}: does not say which pairs it was made from (an earlier version); extract it anew"
        )
    settings = Extraction(**{key: value for key, value in v.meta.items() if key in known})
    pairs, source = find_pairs(
        name, tokenizer, model, **v.meta["recipe"], limit=settings.max_pairs, seed=settings.seed
    )
    if pair_hash(pairs) != v.meta["pair_hash"]:
        raise InputError(f"{where}: made from other pairs than now lie at {source['source']}")
    return pairs, settings, source
