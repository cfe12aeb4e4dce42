"""One backward over many rollouts: shared by training, the probe and the extraction of v_hack."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from losses import micro_batches, policy_loss, token_logps

Row = tuple[Sequence[int], Sequence[int]]  # prompt ids, completion ids


@dataclass(frozen=True)
class Backward:
    """What a backward leaves beside the .grad of the adapter's parameters."""

    loss: float
    kl: float | None                 # k3 a completion token, over the rows with beta > 0; None where there are none
    samples: dict[str, Tensor] | None  # module -> (N, R) gradients of the single rows, in their order


def backward(adapter, rows: Sequence[Row], advantage_N: Tensor, normaliser_N: Tensor, *, pad: int, tokens: int, beta_N: Tensor | None = None,
             temperature: float = 1.0, samples: bool = False, on_batch: Callable[[int], None] = lambda rows: None) -> Backward:
    """Accumulate the gradient of `losses.policy_loss` over micro-batches of at most `tokens` padded tokens.

    The loss is a plain sum over rows with weights that are known beforehand, so how the rows are cut into batches does
    not change the gradient. `beta_N` (N,) adds the KL to the base model for the rows where it is positive; the base's
    log-probabilities come from the same micro-batches with the adapter switched off.
    """
    beta_N = torch.zeros(len(rows)) if beta_N is None else beta_N
    model, device = adapter.model, adapter.model.device
    total, kl_sum, token_count, order = 0.0, 0.0, 0, []
    with adapter.sample_grads() if samples else contextlib.nullcontext() as collected:
        for cpu_batch in micro_batches(rows, tokens=tokens, pad=pad):
            batch = cpu_batch.to(device)
            reference, beta_B = None, beta_N[batch.index].to(device)
            if beta_B.any():
                with torch.no_grad(), adapter.disabled():
                    reference, _ = token_logps(model, batch, temperature=temperature)
            logp, mask = token_logps(model, batch, temperature=temperature)
            loss, kl = policy_loss(logp, mask, advantage_N[batch.index].to(device), normaliser_N[batch.index].to(device), reference, beta_B)
            loss.backward()
            total, kl_sum = total + float(loss.detach()), kl_sum + float(kl[beta_B > 0].sum())
            token_count, order = token_count + int(mask[beta_B > 0].sum()), order + batch.index
            on_batch(len(batch.index))
        per_row = None
        if samples and order:
            back = torch.argsort(torch.tensor(order))
            per_row = {name: torch.cat(parts)[back.to(parts[0].device)] for name, parts in collected.items()}
    return Backward(total, kl_sum / token_count if token_count else None, per_row)


def of_samples(adapter, rows: Sequence[Row], weight_N: Tensor, normaliser_N: Tensor, *, pad: int, tokens: int, temperature: float = 1.0,
               on_batch: Callable[[int], None] = lambda rows: None) -> dict[str, Tensor]:
    """Module -> (N, R): the weighted NLL gradients of the single rows, fp32 on the CPU; leaves no .grad behind."""
    done = backward(adapter, rows, weight_N, normaliser_N, pad=pad, tokens=tokens, temperature=temperature, samples=True, on_batch=on_batch)
    for p in adapter.params.values():
        p.grad = None
    return {name: g.cpu() for name, g in done.samples.items()}
