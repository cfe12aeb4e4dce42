"""One backward over many rollouts: shared by training, the probe and the extraction of v_hack."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hackward.base.faults import InputError
from hackward.hardware import memory
from hackward.method.losses import Batch, by_length, next_batch, policy_loss, token_logps

Row = tuple[Sequence[int], Sequence[int]]  # prompt ids, completion ids


@dataclass(frozen=True)
class Backward:
    """What a backward leaves beside the .grad of the adapter's parameters."""

    loss: float
    kl: float | None  # k3 a completion token, over the rows with beta > 0; None where there are none
    samples: dict[str, Tensor] | None  # module -> (N, R) gradients of the single rows, in their order
    logp_gap: float | None = (
        None  # mean |log p here - log p when it was drawn| a token; None where no row says what it was
    )


def backward(
    adapter,
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

    The loss is a plain sum over rows with weights that are known beforehand, so how the rows are cut into batches does
    not change the gradient. Without `tokens` they are cut to the memory that is free (memory.Budget); a batch that does
    not fit is cut in half, in either case. `beta_N` (N,) adds the KL to the base model for the rows where it is positive;
    the base's log-probabilities come from the same micro-batches with the adapter switched off. `drawn` holds for every row
    the log-probabilities that its tokens were sampled with, or nothing.

    The GPU is not waited for before the end. InputError when a single row does not fit into its memory.
    """
    beta_N = torch.zeros(len(rows)) if beta_N is None else beta_N
    drawn = [()] * len(rows) if drawn is None else drawn
    params, budget = list(adapter.params.values()), memory.budget(adapter.model, tokens, samples)
    sums, order, cut, left = 0.0, [], 0, by_length(rows)
    with adapter.sample_grads() if samples else contextlib.nullcontext({}) as collected:
        while left:
            batch = next_batch(rows, left, tokens=budget.tokens, pad=pad).to(adapter.model.device)
            weights = [
                memory.to(part[batch.index], adapter.model.device)
                for part in (advantage_N, normaliser_N, beta_N)
            ]
            kl, found = bool(beta_N[batch.index].any()), None
            try:
                with budget.measured(batch.ids_BL.numel()):
                    found = _micro_batch(
                        adapter,
                        batch,
                        *weights,
                        kl=kl,
                        drawn=[drawn[i] for i in batch.index],
                        temperature=temperature,
                    )
            except RuntimeError as fault:
                if not memory.ran_out(fault):
                    raise
                # else dealt with below, where the traceback no longer holds the batch's tensors
            if found is None:
                if len(batch.index) == 1:
                    raise InputError(
                        f"a single row of {batch.ids_BL.numel()} tokens does not fit into the GPU's memory (--checkpointing takes less)"
                    )
                budget.halve(batch.ids_BL.numel())
                for parts in collected.values():
                    del parts[cut:]
                torch.cuda.empty_cache()
                continue
            for p, g in zip(params, found[1]):
                p.grad = g if p.grad is None else p.grad.add_(g)
            sums, order, cut, left = sums + found[0], order + batch.index, cut + 1, left[len(batch.index) :]
            on_batch(len(batch.index))
        per_row = _in_order(collected, order) if samples and order else None
    loss, kl, gap = sums.tolist() if order else (0.0, 0.0, 0.0)
    kl_tokens = sum(len(completion) for (_, completion), beta in zip(rows, beta_N.tolist()) if beta > 0)
    gap_tokens = sum(map(len, drawn))
    return Backward(
        loss, kl / kl_tokens if kl_tokens else None, per_row, gap / gap_tokens if gap_tokens else None
    )


def _micro_batch(
    adapter,
    batch: Batch,
    advantage_B: Tensor,
    normaliser_B: Tensor,
    beta_B: Tensor,
    *,
    kl: bool,
    drawn: Sequence[Sequence[float]],
    temperature: float,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """(3,) sums of loss, KL and gap, and the gradients: all or nothing, so that a batch that runs out of memory can be tried again."""
    reference = None
    if kl:
        with torch.no_grad(), adapter.disabled():
            reference, _ = token_logps(adapter.model, batch, temperature=temperature)
    logp, mask = token_logps(adapter.model, batch, temperature=temperature)
    loss, kl_B = policy_loss(logp, mask, advantage_B, normaliser_B, reference, beta_B)
    gradients = torch.autograd.grad(loss, list(adapter.params.values()))
    return torch.stack([loss.detach(), (kl_B * (beta_B > 0)).sum(), _gap(logp.detach(), drawn)]), gradients


def _gap(logp_BT: Tensor, drawn: Sequence[Sequence[float]]) -> Tensor:
    """Sum over tokens of |logp - drawn|, for the rows of which it is known how they were drawn."""
    if not any(map(len, drawn)):
        return logp_BT.new_zeros(())
    drawn_BT, known_BT = torch.zeros(logp_BT.shape), torch.zeros(logp_BT.shape, dtype=torch.bool)
    for row, known, logps in zip(drawn_BT, known_BT, drawn):
        row[: len(logps)], known[: len(logps)] = torch.tensor(logps), True
    return (
        (logp_BT - memory.to(drawn_BT, logp_BT.device))
        .abs()
        .masked_fill(~memory.to(known_BT, logp_BT.device), 0)
        .sum()
    )


def _in_order(collected: dict[str, list[Tensor]], order: Sequence[int]) -> dict[str, Tensor]:
    """The micro-batches' gradients together, in the order of the rows."""
    device = next(iter(collected.values()))[0].device
    back = None if list(order) == sorted(order) else torch.argsort(torch.tensor(order)).to(device)
    joined = {name: parts[0] if len(parts) == 1 else torch.cat(parts) for name, parts in collected.items()}
    return joined if back is None else {name: g[back] for name, g in joined.items()}


def of_samples(
    adapter,
    rows: Sequence[Row],
    weight_N: Tensor,
    normaliser_N: Tensor,
    *,
    pad: int,
    tokens: int | None = None,
    temperature: float = 1.0,
    on_batch: Callable[[int], None] = lambda rows: None,
) -> dict[str, Tensor]:
    """Module -> (N, R): the weighted NLL gradients of the single rows, fp32 on the CPU; leaves no .grad behind."""
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
    return {name: g.cpu() for name, g in done.samples.items()}
