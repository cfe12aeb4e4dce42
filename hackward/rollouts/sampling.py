"""Drawing completions from the current policy, reproducibly.

Every row has its own random numbers, made from (seed, step, problem, sample) alone: the same row comes out
whatever else is in the batch, in whatever order, and every arm of an experiment draws with the same numbers.
Prompts are prefilled once and shared by their group; rows that have finished leave the batch.

There are two ways of decoding behind `sample`, with the same requests, the same draws and the same
completions up to rounding: the plain one, eager transformers with a dynamic cache, and the one of slots.py
for a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from hackward.base.types import CausalLM
from hackward.hardware.neighbours import patiently
from hackward.rollouts import slots
from hackward.rollouts.draws import Drawn, Request, draw, uniforms

COMPACT = 0.75  # rows are taken out of the cache below this share alive: copying it costs about one step


@torch.no_grad()
def sample(
    model: CausalLM,
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

    `rows` bounds how many sequences are decoded at once, `on_token` is called once per decoded position,
    `on_row` with a request's number and completion as soon as that one has ended. `decoding` is "plain",
    "slots", or "auto": slots on a GPU where the model allows it.
    """
    done: dict[int, Drawn] = {}

    def ended(i: int, ids: list[int], logps: list[float]) -> None:
        done[i] = Drawn(ids, logps)
        on_row(i, done[i])

    if decoding == "auto":
        decoding = "slots" if model.device.type == "cuda" and _in_slots(model) else "plain"
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
    return [done[i] for i in range(len(requests))]


def _in_slots(model: CausalLM) -> bool:
    return patiently(lambda: slots.supports(model), model.device, "sampling")


def _plain(model, requests, *, limit, temperature, stop, rows, on_token, on_row) -> None:
    for start in range(0, len(requests), rows):
        batch = _Plain(model, requests[start : start + rows], limit, temperature, stop)
        for i, ids, logps in batch.decode(on_token):
            on_row(start + i, ids, logps)


class _Plain:
    """One batch, decoded a position at a time. Key: B rows still in the cache, N requests, P distinct
    prompts, V tokens."""

    def __init__(
        self,
        model: CausalLM,
        requests: Sequence[Request],
        limit: int,
        temperature: float,
        stop: Sequence[int],
    ) -> None:
        device, count = model.device, len(requests)
        self.model, self.requests, self.temperature = model, requests, temperature
        random = np.stack([uniforms(request.key, limit) for request in requests])
        self.uniform_NT = torch.from_numpy(random).to(device, torch.float32)
        self.stop = torch.tensor(list(stop), device=device)
        self.most_N = torch.tensor([request.tokens(limit) for request in requests], device=device)
        self.ids_NT = torch.zeros((count, limit), dtype=torch.long, device=device)
        self.logps_NT = torch.zeros((count, limit), device=device)
        self.alive_B = torch.arange(count, device=device)  # which request each row of the cache belongs to
        self.finished_B = torch.zeros(count, dtype=torch.bool, device=device)
        self._prefill()

    def _prefill(self) -> None:
        """Every distinct prompt once, padded on the left: the next token is the last column for every row."""
        prompts = list(dict.fromkeys(request.prompt_ids for request in self.requests))
        width = max(map(len, prompts))
        ids = torch.zeros((len(prompts), width), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for i, prompt in enumerate(prompts):
            ids[i, width - len(prompt) :] = torch.tensor(prompt)
            mask[i, width - len(prompt) :] = 1
        device = self.model.device
        ids_PL, mask_PL = ids.to(device), mask.to(device)
        position_PL = (mask_PL.cumsum(1) - 1).clamp_(min=0)
        self.cache = DynamicCache(config=self.model.config)
        logits_PV = self._forward(ids_PL, mask_PL, position_PL)
        owner_B = torch.tensor([prompts.index(r.prompt_ids) for r in self.requests], device=device)
        self.cache.batch_select_indices(owner_B)
        self.logits_BV, self.mask_BL = logits_PV[owner_B], mask_PL[owner_B]
        self.position_B1 = position_PL[owner_B, -1:]

    def _forward(self, ids: Tensor, mask: Tensor, position: Tensor) -> Tensor:
        """Logits of the last position (rows, vocabulary); the cache grows by these tokens."""
        out = self.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=position,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return out.logits[:, -1]

    def decode(self, on_token: Callable[[], None]):
        """Yields (request, token ids, log-probabilities) as completions end."""
        for t in range(self.ids_NT.shape[1]):
            token_B = self._draw(t)
            ends_B = ~self.finished_B & self._is_last(token_B, t)
            self.finished_B = self.finished_B | ends_B
            on_token()
            for i in self.alive_B[ends_B].tolist():
                yield i, self.ids_NT[i, : t + 1].tolist(), self.logps_NT[i, : t + 1].tolist()
            left = int((~self.finished_B).sum())
            if left == 0:
                return
            if left <= COMPACT * len(self.alive_B):
                token_B = self._compact(token_B)
            self._advance(token_B)

    def _draw(self, t: int) -> Tensor:
        token_B, logp_B = draw(self.logits_BV, self.uniform_NT[self.alive_B, t], self.temperature)
        going = ~self.finished_B
        self.ids_NT[self.alive_B[going], t] = token_B[going]
        self.logps_NT[self.alive_B[going], t] = logp_B[going]
        return token_B

    def _is_last(self, token_B: Tensor, t: int) -> Tensor:
        return torch.isin(token_B, self.stop) | (self.most_N[self.alive_B] == t + 1)

    def _compact(self, token_B: Tensor) -> Tensor:
        """Take the finished rows out of the batch; returns the tokens of those that go on."""
        keep = (~self.finished_B).nonzero()[:, 0]
        self.cache.batch_select_indices(keep)
        self.mask_BL, self.position_B1 = self.mask_BL[keep], self.position_B1[keep]
        self.alive_B, self.finished_B = self.alive_B[keep], self.finished_B[keep]
        return token_B[keep]

    def _advance(self, token_B: Tensor) -> None:
        self.mask_BL = torch.cat([self.mask_BL, self.mask_BL.new_ones(len(token_B), 1)], 1)
        self.position_B1 = self.position_B1 + 1
        self.logits_BV = self._forward(token_B[:, None], self.mask_BL, self.position_B1)
