"""One backward over many rollouts: shared by training, the probe and the extraction of v_hack."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hackward.base.faults import InputError
from hackward.hardware import memory
from hackward.method.adapters import Adapter
from hackward.method.losses import Batch, Row, by_length, next_batch, policy_loss, token_logps


@dataclass(frozen=True)
class Backward:
    """What a backward leaves beside the .grad of the adapter's parameters."""

    loss: float
    kl: float | None
    """k3 per completion token, over the rows with beta > 0; None where there are none."""
    samples: dict[str, Tensor] | None
    """Module -> (N, R) gradients of the single rows, in their order; None where they were not asked for."""
    logp_gap: float | None = None
    """Mean |log p here - log p when it was drawn| per token; None where no row says what it was."""


@dataclass
class _Weights:
    """What the rows of one backward weigh, on the CPU. Key: N rows."""

    advantage_N: Tensor
    normaliser_N: Tensor
    beta_N: Tensor
    drawn: Sequence[Sequence[float]]


def backward(
    adapter: Adapter,
    rows: Sequence[Row],
    advantage_N: Tensor,
    normaliser_N: Tensor,
    *,
    pad: int,
    tokens: int | None = None,
    beta_N: Tensor | None = None,
    temperature: float = 1.0,
    samples: bool = False,
    drawn: Sequence[Sequence[float]] | None = None,
    on_batch: Callable[[int], None] = lambda rows: None,
) -> Backward:
    """Accumulate the gradient of `losses.policy_loss` over micro-batches of at most `tokens` padded tokens.

    The loss is a plain sum over rows with weights that are known beforehand, so how the rows are cut into
    batches does not change the gradient. Without `tokens` they are cut to the memory that is free
    (memory.Budget); a batch that does not fit is cut in half, in either case. `beta_N` (N,) adds the KL to
    the base model for the rows where it is positive; the base's log-probabilities come from the same
    micro-batches with the adapter switched off. `drawn` holds for every row the log-probabilities that its
    tokens were sampled with, or nothing.

    The GPU is not waited for before the end. InputError when a single row does not fit into its memory.
    """
    weights = _Weights(
        advantage_N,
        normaliser_N,
        torch.zeros(len(rows)) if beta_N is None else beta_N,
        [()] * len(rows) if drawn is None else drawn,
    )
    params, budget = list(adapter.params.values()), memory.budget(adapter.model, tokens, samples)
    sums: Tensor | float = 0.0
    order: list[int] = []
    cut, left = 0, by_length(rows)
    with adapter.sample_grads() if samples else contextlib.nullcontext({}) as collected:
        while left:
            batch = next_batch(rows, left, tokens=budget.tokens, pad=pad).to(adapter.model.device)
            found = _unless_out_of_memory(adapter, batch, weights, temperature, budget)
            if found is None:  # the traceback no longer holds the batch's tensors
                _cut_in_half(batch, budget)
                for parts in collected.values():
                    del parts[cut:]
                continue
            for p, g in zip(params, found[1]):
                p.grad = g if p.grad is None else p.grad.add_(g)
            sums, order, cut = sums + found[0], order + batch.index, cut + 1
            left = left[len(batch.index) :]
            on_batch(len(batch.index))
        per_row = _in_order(collected, order) if samples and order else None
    return _summed(sums, rows, weights, per_row)


def _unless_out_of_memory(
    adapter: Adapter, batch: Batch, weights: _Weights, temperature: float, budget: memory.Budget
) -> tuple[Tensor, tuple[Tensor, ...]] | None:
    """`_micro_batch`, or None where the batch does not fit into the GPU's memory."""
    try:
        with budget.measured(batch.ids_BL.numel()):
            return _micro_batch(adapter, batch, weights, temperature)
    except RuntimeError as fault:
        if not memory.ran_out(fault):
            raise
    return None


def _cut_in_half(batch: Batch, budget: memory.Budget) -> None:
    tokens = batch.ids_BL.numel()
    if len(batch.index) == 1:
        raise InputError(
            f"a single row of {tokens} tokens does not fit into the GPU's memory (--checkpointing takes less)"
        )
    budget.halve(tokens)
    torch.cuda.empty_cache()


def _micro_batch(
    adapter: Adapter, batch: Batch, weights: _Weights, temperature: float
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """(3,) sums of loss, KL and gap, and the gradients.

    All or nothing, so that a batch that runs out of memory can be tried again.
    """
    device, model = adapter.model.device, adapter.model
    advantage_B, normaliser_B, beta_B = (
        memory.to(part[batch.index], device)
        for part in (weights.advantage_N, weights.normaliser_N, weights.beta_N)
    )
    reference = None
    if bool(weights.beta_N[batch.index].any()):
        with torch.no_grad(), adapter.disabled():
            reference, _ = token_logps(model, batch, temperature=temperature)
    logp, mask = token_logps(model, batch, temperature=temperature)
    loss, kl_B = policy_loss(logp, mask, advantage_B, normaliser_B, reference, beta_B)
    grads = torch.autograd.grad(loss, list(adapter.params.values()))
    kl = (kl_B * (beta_B > 0)).sum()
    gap = _gap(logp.detach(), [weights.drawn[i] for i in batch.index])
    return torch.stack([loss.detach(), kl, gap]), grads


def _gap(logp_BT: Tensor, drawn: Sequence[Sequence[float]]) -> Tensor:
    """Sum over tokens of |logp - drawn|, for the rows of which it is known how they were drawn."""
    if not any(map(len, drawn)):
        return logp_BT.new_zeros(())
    drawn_BT = torch.zeros(logp_BT.shape)
    known_BT = torch.zeros(logp_BT.shape, dtype=torch.bool)
    for i, logps in enumerate(drawn):
        drawn_BT[i, : len(logps)] = torch.tensor(logps)
        known_BT[i, : len(logps)] = True
    gap_BT = (logp_BT - memory.to(drawn_BT, logp_BT.device)).abs()
    return gap_BT.masked_fill(~memory.to(known_BT, logp_BT.device), 0).sum()


def _in_order(collected: dict[str, list[Tensor]], order: Sequence[int]) -> dict[str, Tensor]:
    """The micro-batches' gradients together, in the order of the rows."""
    joined = {name: parts[0] if len(parts) == 1 else torch.cat(parts) for name, parts in collected.items()}
    if list(order) == sorted(order):
        return joined
    back = torch.argsort(torch.tensor(order)).to(next(iter(joined.values())).device)
    return {name: g[back] for name, g in joined.items()}


def _summed(
    sums: Tensor | float, rows: Sequence[Row], weights: _Weights, per_row: dict[str, Tensor] | None
) -> Backward:
    loss, kl, gap = sums.tolist() if isinstance(sums, Tensor) else (0.0, 0.0, 0.0)
    lengths = [len(completion) for _, completion in rows]
    kl_tokens = sum(length for length, beta in zip(lengths, weights.beta_N.tolist()) if beta > 0)
    gap_tokens = sum(map(len, weights.drawn))
    return Backward(
        loss,
        kl / kl_tokens if kl_tokens else None,
        per_row,
        gap / gap_tokens if gap_tokens else None,
    )


def of_samples(
    adapter: Adapter,
    rows: Sequence[Row],
    weight_N: Tensor,
    normaliser_N: Tensor,
    *,
    pad: int,
    tokens: int | None = None,
    temperature: float = 1.0,
    on_batch: Callable[[int], None] = lambda rows: None,
) -> dict[str, Tensor]:
    """Module -> (N, R): the weighted NLL gradients of the single rows, fp32 on the CPU; leaves no .grad
    behind."""
    done = backward(
        adapter,
        rows,
        weight_N,
        normaliser_N,
        pad=pad,
        tokens=tokens,
        temperature=temperature,
        samples=True,
        on_batch=on_batch,
    )
    for p in adapter.params.values():
        p.grad = None
    assert done.samples is not None
    return {name: g.cpu() for name, g in done.samples.items()}
