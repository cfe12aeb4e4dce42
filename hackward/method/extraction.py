"""v_hack: the direction in delta_S coordinates that tells a hack from an honest answer to the same prompt.

    d_p   = grad NLL(hack_p) - grad NLL(clean_p)      a row per pair, NLL per token, at the adapter's state
    D_m   = P Sigma Q^T,   V_m = first k rows of Q^T  per module m
    sign  : each row of V is flipped so that most pairs have a positive coefficient (majority vote)
    floor : rows whose singular value is in the lowest share of all modules' rows are dropped
    w     = mean over pairs of V d_p, at least 0      how much of the mean difference lies along each row

With --objective=grpo d_p is the gradient of the live loss on the pair as a group of two, the hack rewarded:
advantages +1/2 and -1/2, the run's own denominator and temperature. At ratio 1 that loss is linear in the
log-probabilities, so what changes against NLL is how tokens weigh (all answers by one number instead of each
by its own length), and nothing else.

Whether V means anything is checked on pairs that it has not seen (quality.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hackward.base.faults import InputError
from hackward.base.screen import progress, say
from hackward.base.types import CausalLM, Tokenizer
from hackward.method import gradients
from hackward.method.adapters import Adapter
from hackward.method.losses import dr_grpo_advantages, normaliser
from hackward.method.pairs import UNUSED, Pair, find_pairs, pair_hash, written_by
from hackward.method.quality import held_out
from hackward.method.recipe import Extraction, denominator
from hackward.method.v_hack import VHack, directions, orient
from hackward.rollouts.tokens import NO_TEMPLATE, PAD

Grads = dict[str, Tensor]  # module -> (P, R), fp32 on the CPU

# What the answers of a pair (hack, clean) weigh in its difference.
CONTRAST = {"nll": [1.0, -1.0], "grpo": dr_grpo_advantages(torch.tensor([1.0, 0.0])).tolist()}


def pair_gradients(
    adapter: Adapter,
    pairs: Sequence[Pair],
    settings: Extraction,
    *,
    pad: int,
    tokens: int | None,
    on_batch: Callable[[int], None] = lambda rows: None,
) -> tuple[Grads, Grads]:
    """Gradients of all hacks and of all clean answers, one per answer: module -> (P, R) each.

    Both are gradients of a loss whose descent makes the answer likelier, times the size of its weight in the
    contrast, so that hack - clean is the pair's difference under either objective.
    """
    rows = [(pair.prompt_ids, pair.hack_ids) for pair in pairs]
    rows += [(pair.prompt_ids, pair.clean_ids) for pair in pairs]
    lengths = torch.tensor([len(completion) for _, completion in rows])
    # "fixed" has no sampling limit to refer to here: any number gives the same V, the longest answer keeps
    # the scale.
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
    hack = {name: g[: len(pairs)] for name, g in found.items()}
    clean = {name: g[len(pairs) :] for name, g in found.items()}
    return hack, clean


def build(D: Grads, settings: Extraction, meta: dict[str, Any]) -> VHack:
    """V and w from the paired differences D: module -> (P, R)."""
    V, w, coef = {}, {}, {}
    for name, basis in directions(D, settings.k, settings.noise_floor).items():
        coef_PK = D[name] @ basis.T
        sign_1K, weight_1K = orient(coef_PK, torch.ones(1, len(coef_PK)))
        V[name] = basis * sign_1K[0][:, None]
        w[name] = weight_1K[0]
        coef[name] = coef_PK * sign_1K[0]
    return VHack(V, w, meta, coef)


def extract(
    adapter: Adapter,
    tokenizer: Tokenizer,
    pairs: Sequence[Pair],
    settings: Extraction,
    *,
    source: dict[str, Any],
    tokens: int | None,
) -> VHack:
    """v_hack with its provenance and its held-out quality in `meta`."""
    hack, clean = shown_gradients(adapter, tokenizer, pairs, settings, tokens=tokens)
    return from_gradients(adapter, hack, clean, pairs, settings, source=source)


def shown_gradients(
    adapter: Adapter,
    tokenizer: Tokenizer,
    pairs: Sequence[Pair],
    settings: Extraction,
    *,
    tokens: int | None,
) -> tuple[Grads, Grads]:
    """`pair_gradients`, with a bar."""
    with progress("v_hack: gradients of pairs", 2 * len(pairs)) as bar:
        return pair_gradients(adapter, pairs, settings, pad=PAD, tokens=tokens, on_batch=bar)


def from_gradients(
    adapter: Adapter,
    hack: Grads,
    clean: Grads,
    pairs: Sequence[Pair],
    settings: Extraction,
    *,
    source: dict[str, Any],
) -> VHack:
    """v_hack of pairs whose gradients (module -> (P, R)) are known."""
    ids = [pair.problem_id for pair in pairs]
    quality = held_out(hack, clean, ids, settings)
    right = quality.pop("right_sign_by_pair")
    meta = _origin(adapter) | {
        **source,
        **vars(settings),
        "pairs": len(pairs),
        "pair_hash": pair_hash(pairs),
        "pair_problem_ids": sorted(set(ids)),
        "pair_problems": ids,
        "pair_identities": sorted({pair.identity for pair in pairs}),
        "heldout": quality,
        "right_sign_by_mechanism": _by_mechanism(pairs, right),
    }
    found = build({name: hack[name] - clean[name] for name in hack}, settings, meta)
    meta["modules"], meta["directions"] = len(found.V), found.directions
    return found


def _origin(adapter: Adapter) -> dict[str, Any]:
    """What a file of directions says of the coordinates that they are in."""
    return {
        "kind": "v_hack",
        "basis": adapter.kind,
        "coordinates": adapter.coordinates,
        "model_hash": adapter.model_hash,
    }


def _by_mechanism(pairs: Sequence[Pair], right: Sequence[bool | None]) -> dict[str, list[int]]:
    """Mechanism -> [pairs with the right sign, pairs]."""
    totals = Counter(pair.mechanism for pair in pairs)
    good = Counter(pair.mechanism for pair, sign in zip(pairs, right) if sign)
    return {name: [good[name], totals[name]] for name in sorted(totals)}


def clean_clean(
    adapter: Adapter,
    tokenizer: Tokenizer,
    pairs: Sequence[Pair],
    settings: Extraction,
    *,
    tokens: int | None,
    seed: int,
) -> VHack:
    """The control: V from clean answers against clean answers to other problems, in a seeded order; no hack
    is in it.

    As many pairs, the same k and noise floor. v_hack's differences are within a prompt and these are across
    prompts, since few problems have two clean answers: what differs here is the problem. The rows'
    orientation means nothing.

    Raises InputError where more than half of the pairs are of one problem.
    """
    _, clean = pair_gradients(adapter, pairs, settings, pad=PAD, tokens=tokens)
    problem_ids = [pair.problem_id for pair in pairs]
    other = rotated(problem_ids, seed)
    facts = {"control": "clean-clean", "control_seed": seed, "pair_problems": problem_ids}
    return build({name: g - g[other] for name, g in clean.items()}, settings, _origin(adapter) | facts)


def union(old: VHack, new: VHack, D: Grads) -> VHack:
    """`new` with the directions of `old` that it lacks beside its own, so that no old direction opens again.

    Per module the rows of `old` without their part in `new`'s span, made orthonormal and oriented as they
    were; a row with less than a tenth of its length left is dropped. D: module -> (P, R) are the differences
    of the pairs that `new` was made from: they give all rows their weights, so an old direction in which
    these pairs do not differ is removed and not measured.
    """
    V, w, coef = {}, {}, {}
    for name in sorted(old.V.keys() | new.V.keys()):
        rows = _beside(old.V.get(name), new.V.get(name))
        V[name] = rows
        coef[name] = D[name].to(rows) @ rows.T
        w[name] = torch.relu(coef[name].mean(0))
    return VHack(V, w, new.meta | {"refresh": "union", "directions": sum(map(len, V.values()))}, coef)


def _beside(old: Tensor | None, new: Tensor | None) -> Tensor:
    """(k, R): the rows of `new`, then what `old` has beyond their span."""
    if old is None or new is None:
        found = new if old is None else old
        assert found is not None
        return found
    rest = old.to(new) - old.to(new) @ new.T @ new
    q, r = torch.linalg.qr(rest.T)
    kept = r.diagonal().abs() > 0.1
    return torch.cat([new, (q * r.diagonal().sign()).T[kept]])


def rotated(problem_ids: Sequence[str], seed: int) -> list[int]:
    """For every pair the index of one of another problem, a permutation.

    Pairs are laid out by problem in a seeded order, and each takes the one that lies the largest problem's
    count further on.
    """
    order = sorted(set(problem_ids))
    np.random.default_rng(seed).shuffle(order)
    laid = sorted(range(len(problem_ids)), key=lambda i: order.index(problem_ids[i]))
    step = max(Counter(problem_ids).values())
    if 2 * step > len(problem_ids):
        raise InputError(
            f"--control=clean-clean: {step} of {len(problem_ids)} pairs are of one problem; clean answers of"
            " different problems are needed"
        )
    place = {pair: position for position, pair in enumerate(laid)}
    return [laid[(place[pair] + step) % len(laid)] for pair in range(len(laid))]


def load(path: str | Path, adapter: Adapter) -> VHack:
    """A v_hack file, checked to be of this adapter's model and coordinates; InputError otherwise."""
    return VHack.load(
        path, model_hash=adapter.model_hash, params=adapter.params, coordinates=adapter.coordinates
    )


def note_other_prompts(v: VHack, tokenizer: Tokenizer) -> None:
    """Say so where the prompts of v's pairs are not what this tokenizer makes of the same problems.

    Files without the two hashes say nothing, nor do those whose pairs all bring their prompts.
    """
    fault = _other_prompts(v, tokenizer)
    if fault:
        say(
            f"note: {v.meta.get('file', 'v_hack')} {fault}; the work goes on, and cosines are with that V,"
            " which is of other prompts. extract_vhack.py with this --model makes one of its own prompts"
        )


def _other_prompts(v: VHack, tokenizer: Tokenizer) -> str | None:
    """How the prompts of v's pairs differ from this tokenizer's; None where they do not, or nothing is
    known."""
    made, own = v.meta.get("chat_template"), written_by(tokenizer)
    if made in (None, UNUSED):
        return None
    if made != own["chat_template"]:
        with_it, here = (_template_words(template) for template in (made, own["chat_template"]))
        return f"was made with {with_it}, this model's tokenizer has {here}"
    words = v.meta.get("tokenizer")
    if words not in (None, own["tokenizer"]):
        return f"was made with another tokenizer (its hash {words}, this model's {own['tokenizer']})"
    return None


def _template_words(template: str) -> str:
    return "no chat template" if template == NO_TEMPLATE else f"the chat template {template}"


def recipe_of(v: VHack) -> Extraction:
    """The settings that a v_hack was made with."""
    known = {field.name for field in fields(Extraction)}
    return Extraction(**{key: value for key, value in v.meta.items() if key in known})


def same_pairs(
    v: VHack, name: str, tokenizer: Tokenizer, model: CausalLM
) -> tuple[list[Pair], Extraction, dict[str, Any]]:
    """The pairs that a v_hack was made from, found again where they lay: for a control, or to extract anew
    while training.

    Raises InputError where what lies there now gives other pairs.
    """
    settings = recipe_of(v)
    pairs, source = find_pairs(
        name, tokenizer, model, **v.meta["recipe"], limit=settings.max_pairs, seed=settings.seed
    )
    if pair_hash(pairs) != v.meta["pair_hash"]:
        where, fault = v.meta.get("file", "v_hack"), _other_prompts(v, tokenizer)
        if fault:
            raise InputError(
                f"{where} {fault}, so its pairs are not found again; extract it anew on this model"
            )
        raise InputError(f"{where}: made from other pairs than now lie at {source['source']}")
    return pairs, settings, source
