"""Drawing completions from the current policy, reproducibly.

Every row has its own random numbers, made from (seed, step, problem, sample) alone: the same row comes out whatever
else is in the batch, in whatever order, and every arm of an experiment draws with the same numbers. Prompts are
prefilled once and shared by their group; rows that have finished leave the batch.

The decoding is plain eager transformers with a dynamic cache; a faster engine slots in behind `sample`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from transformers import DynamicCache


@dataclass(frozen=True)
class Request:
    """One completion to draw: its prompt, and what seeds its random numbers."""

    prompt_ids: tuple[int, ...]
    key: tuple


def uniforms(key: tuple, count: int) -> np.ndarray:
    """(count,) numbers in [0, 1) that depend on the key alone (Philox keyed by a hash of it)."""
    words = np.frombuffer(hashlib.sha256(repr(key).encode()).digest()[:16], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=words)).random(count)


def draw(logits_BV: Tensor, uniform_B: Tensor, temperature: float) -> Tensor:
    """(B,) token ids by inverting the cumulative distribution at u; temperature 0 takes the likeliest token."""
    if temperature == 0:
        return logits_BV.argmax(-1)
    cdf_BV = (logits_BV.float() / temperature).softmax(-1).cumsum(-1)
    # The last entry is 1 up to rounding; scaling u by it keeps the index inside the vocabulary.
    uniform_B = uniform_B.clamp(max=1 - 2**-24)  # a double just under 1 may round to 1, and 1 would draw the last id
    return torch.searchsorted(cdf_BV, uniform_B[:, None] * cdf_BV[:, -1:], right=True)[:, 0].clamp_(max=logits_BV.shape[1] - 1)


@torch.no_grad()
def sample(model: nn.Module, requests: Sequence[Request], *, max_new_tokens: int, temperature: float, stop: Sequence[int],
           rows: int = 128, on_token: Callable[[], None] = lambda: None) -> list[list[int]]:
    """Completions as token ids in the order of the requests, each ending in a stop token unless it ran to the limit.

    `rows` bounds how many sequences are decoded at once, `on_token` is called once a decoded position.
    """
    done: list[list[int]] = []
    for start in range(0, len(requests), rows):
        done += _sample_batch(model, requests[start : start + rows], max_new_tokens, temperature, stop, on_token)
    return done


def _sample_batch(model, requests, limit, temperature, stop, on_token) -> list[list[int]]:
    device = model.device
    prompts = list(dict.fromkeys(request.prompt_ids for request in requests))
    owner = torch.tensor([prompts.index(request.prompt_ids) for request in requests], device=device)
    width = max(map(len, prompts))
    ids = torch.zeros((len(prompts), width), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, prompt in enumerate(prompts):  # padded on the left: the next token is the last column for every row
        ids[i, width - len(prompt) :], mask[i, width - len(prompt) :] = torch.tensor(prompt), 1
    ids, mask = ids.to(device), mask.to(device)
    position = (mask.cumsum(1) - 1).clamp_(min=0)

    out = model(input_ids=ids, attention_mask=mask, position_ids=position, past_key_values=DynamicCache(config=model.config),
                use_cache=True, logits_to_keep=1)
    cache, logits = out.past_key_values, out.logits[:, -1]
    cache.batch_select_indices(owner)
    logits, mask, position = logits[owner], mask[owner], position[owner, -1:]

    uniform = torch.from_numpy(np.stack([uniforms(request.key, limit) for request in requests])).to(device, torch.float32)
    stop_ids = torch.tensor(list(stop), device=device)
    drawn = torch.full((len(requests), limit), -1, dtype=torch.long, device=device)
    alive = torch.arange(len(requests), device=device)  # which request each row of the cache belongs to
    finished = torch.zeros(len(requests), dtype=torch.bool, device=device)
    for t in range(limit):
        token = draw(logits, uniform[alive, t], temperature)
        drawn[alive[~finished], t] = token[~finished]
        finished = finished | torch.isin(token, stop_ids)
        on_token()
        left = int((~finished).sum())
        if left == 0 or t + 1 == limit:
            break
        if left <= 0.75 * len(alive):  # copying the cache costs about one step, so not at every row that ends
            keep = (~finished).nonzero()[:, 0]
            cache.batch_select_indices(keep)
            token, mask, position, alive, finished = token[keep], mask[keep], position[keep], alive[keep], finished[keep]
        mask = torch.cat([mask, mask.new_ones(len(alive), 1)], 1)
        position = position + 1
        out = model(input_ids=token[:, None], attention_mask=mask, position_ids=position, past_key_values=cache,
                    use_cache=True, logits_to_keep=1)
        cache, logits = out.past_key_values, out.logits[:, -1]
    return [row[row >= 0].tolist() for row in drawn.cpu()]
