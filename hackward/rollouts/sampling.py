"""Drawing completions from the current policy, reproducibly.

Every row has its own random numbers, made from (seed, step, problem, sample) alone: the same row comes out whatever
else is in the batch, in whatever order, and every arm of an experiment draws with the same numbers. Prompts are
prefilled once and shared by their group; rows that have finished leave the batch.

There are two ways of decoding behind `sample`, with the same requests, the same draws and the same completions up to
rounding: the plain one, eager transformers with a dynamic cache, and the one of slots.py for a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn
from transformers import DynamicCache

from hackward.rollouts import slots
from hackward.rollouts.draws import Drawn, Request, draw, uniforms


@torch.no_grad()
def sample(
    model: nn.Module,
    requests: Sequence[Request],
    *,
    max_new_tokens: int,
    temperature: float,
    stop: Sequence[int],
    rows: int = 128,
    decoding: str = "auto",
    on_token: Callable[[], None] = lambda: None,
    on_row: Callable[[int, Drawn], None] = lambda i, drawn: None,
) -> list[Drawn]:
    """Completions in the order of the requests.

    `rows` bounds how many sequences are decoded at once, `on_token` is called once a decoded position, `on_row` with a
    request's number and completion as soon as that one has ended. `decoding` is "plain", "slots", or "auto": slots on a GPU
    where the model allows it.
    """
    done: list[Drawn | None] = [None] * len(requests)

    def ended(i: int, ids: list[int], logps: list[float]) -> None:
        done[i] = Drawn(ids, logps)
        on_row(i, done[i])

    if decoding == "auto":
        decoding = "slots" if model.device.type == "cuda" and slots.supports(model) else "plain"
    decode = {"plain": _plain, "slots": slots.decode}[decoding]
    decode(
        model,
        requests,
        limit=max_new_tokens,
        temperature=temperature,
        stop=stop,
        rows=rows,
        on_token=on_token,
        on_row=ended,
    )
    return done


def _plain(model, requests, *, limit, temperature, stop, rows, on_token, on_row) -> None:
    for start in range(0, len(requests), rows):
        _plain_batch(
            model,
            requests[start : start + rows],
            limit,
            temperature,
            stop,
            on_token,
            lambda i, *drawn, start=start: on_row(start + i, *drawn),
        )


def _plain_batch(model, requests, limit, temperature, stop, on_token, on_row) -> None:
    device = model.device
    prompts = list(dict.fromkeys(request.prompt_ids for request in requests))
    owner = torch.tensor([prompts.index(request.prompt_ids) for request in requests], device=device)
    width = max(map(len, prompts))
    ids = torch.zeros((len(prompts), width), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, prompt in enumerate(
        prompts
    ):  # padded on the left: the next token is the last column for every row
        ids[i, width - len(prompt) :], mask[i, width - len(prompt) :] = torch.tensor(prompt), 1
    ids, mask = ids.to(device), mask.to(device)
    position = (mask.cumsum(1) - 1).clamp_(min=0)

    out = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=position,
        past_key_values=DynamicCache(config=model.config),
        use_cache=True,
        logits_to_keep=1,
    )
    cache, logits = out.past_key_values, out.logits[:, -1]
    cache.batch_select_indices(owner)
    logits, mask, position = logits[owner], mask[owner], position[owner, -1:]

    uniform = torch.from_numpy(np.stack([uniforms(request.key, limit) for request in requests])).to(
        device, torch.float32
    )
    stop_ids = torch.tensor(list(stop), device=device)
    most = torch.tensor([request.tokens(limit) for request in requests], device=device)
    drawn = torch.zeros((len(requests), limit), dtype=torch.long, device=device)
    logps = torch.zeros((len(requests), limit), device=device)
    alive = torch.arange(len(requests), device=device)  # which request each row of the cache belongs to
    finished = torch.zeros(len(requests), dtype=torch.bool, device=device)
    for t in range(limit):
        token, logp = draw(logits, uniform[alive, t], temperature)
        drawn[alive[~finished], t], logps[alive[~finished], t] = token[~finished], logp[~finished]
        ends = ~finished & (torch.isin(token, stop_ids) | (most[alive] == t + 1))
        finished = finished | ends
        on_token()
        for i in alive[ends].tolist():
            on_row(i, drawn[i, : t + 1].tolist(), logps[i, : t + 1].tolist())
        left = int((~finished).sum())
        if left == 0:
            break
        if left <= 0.75 * len(alive):  # copying the cache costs about one step, so not at every row that ends
            keep = (~finished).nonzero()[:, 0]
            cache.batch_select_indices(keep)
            token, mask, position, alive, finished = (
                token[keep],
                mask[keep],
                position[keep],
                alive[keep],
                finished[keep],
            )
        mask = torch.cat([mask, mask.new_ones(len(alive), 1)], 1)
        position = position + 1
        out = model(
            input_ids=token[:, None],
            attention_mask=mask,
            position_ids=position,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        cache, logits = out.past_key_values, out.logits[:, -1]
