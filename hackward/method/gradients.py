"""One backward over many rollouts: shared by training, the probe and the extraction of v_hack."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from hackward.base.faults import InputError
from hackward.hardware import memory, ranks
from hackward.hardware.neighbours import Shortage, ran_out
from hackward.method.adapters import Adapter
from hackward.method.losses import Row, Scored, policy_loss, token_logps
from hackward.method.shared_prompts import SHARED, SINGLE, Layout

Grads = dict[str, Tensor]  # module -> (rows, R)
Made = TypeVar("Made")


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


@dataclass(frozen=True)
class RowGradients:
    """The policy part of the gradient row by row, before advantages, and the KL part as it is.

    At ratio 1 the policy part of the loss is linear in the advantages, so `weighted` can put any on it.
    """

    nll: dict[str, Tensor]
    """Module -> (N, R): gradients of -sum_t logp of the single rows."""
    nll_N: Tensor
    """(N,): -sum_t logp of the rows, on the CPU."""
    kl_part: Backward
    """Loss, k3 and gap without the policy part."""
    kl_grads: dict[str, Tensor]
    """Module -> gradient of the KL part of the loss, in the parameter's shape."""
    normaliser_N: Tensor
    """Denominators of the rows, on the CPU."""

    def weighted(self, adapter: Adapter, advantage_N: Tensor) -> Backward:
        """Put sum_i advantage_i nll_i / denominator_i + the KL part into .grad."""
        weight_N = advantage_N / self.normaliser_N
        for name, p in adapter.params.items():
            weights = memory.to(weight_N, p.device)
            p.grad = (weights @ self.nll[name]).view_as(p) + self.kl_grads[name]
        return replace(self.kl_part, loss=self.kl_part.loss + float(weight_N @ self.nll_N))


@dataclass
class _Weights:
    """What the rows of one backward weigh, on the CPU. Key: N rows."""

    advantage_N: Tensor
    normaliser_N: Tensor
    beta_N: Tensor
    drawn: Sequence[Sequence[float]]


def _weights(
    rows: Sequence[Row],
    advantage_N: Tensor,
    normaliser_N: Tensor,
    beta_N: Tensor | None,
    drawn: Sequence[Sequence[float]] | None,
) -> _Weights:
    return _Weights(
        advantage_N,
        normaliser_N,
        torch.zeros(len(rows)) if beta_N is None else beta_N,
        [()] * len(rows) if drawn is None else drawn,
    )


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
    layout: Layout = SINGLE,
    on_batch: Callable[[int], None] = lambda rows: None,
) -> Backward:
    """Put the gradient of `losses.policy_loss` into .grad, from micro-batches of at most `tokens` tokens.

    Padding counts. The loss is a plain sum over rows with weights that are known beforehand, so how the rows
    are cut into batches does not change the gradient. Without `tokens` they are cut to the memory that is
    free (memory.Budget); a batch that does not fit is cut in half, in either case. `beta_N` (N,) adds the KL
    to the base model for the rows where it is positive; the base's log-probabilities come from the same
    micro-batches with the adapter switched off. `drawn` holds for every row the log-probabilities that its
    tokens were sampled with, or nothing. With the `layout` SHARED a prompt of many rows is computed once;
    there are no `samples` then (ValueError).

    The GPU is not waited for before the end. InputError when a single row does not fit into its memory.
    """
    if samples and layout is SHARED:
        raise ValueError("gradients of single rows need rows that are single")
    weights = _weights(rows, advantage_N, normaliser_N, beta_N, drawn)
    budget = memory.budget(adapter.model, tokens, samples, layout)
    work = functools.partial(_micro_batch, adapter, weights, temperature, samples)
    sums, totals = _zeros(adapter)
    order: list[int] = []
    collected: list[Grads] = []
    for index, (part, grads, per_row) in each_batch(adapter, rows, work, budget, pad, on_batch, layout):
        _accumulate([sums, *totals], [part, *grads])
        order += index
        collected.append(per_row)
    ranks.add_up([sums, *totals])
    if rows:
        _put_on(adapter, totals)
    per_rows = _in_order(adapter, collected, order, len(rows)) if samples and rows else None
    return _summed(sums, rows, weights, per_rows)


def row_gradients(
    adapter: Adapter,
    rows: Sequence[Row],
    normaliser_N: Tensor,
    *,
    pad: int,
    tokens: int | None = None,
    beta_N: Tensor | None = None,
    temperature: float = 1.0,
    drawn: Sequence[Sequence[float]] | None = None,
) -> RowGradients:
    """The gradient of every row before it is weighed, and the KL part, from one forward and two backwards.

    Arguments and errors are those of `backward`; leaves no .grad behind.
    """
    weights = _weights(rows, torch.ones(len(rows)), normaliser_N, beta_N, drawn)
    budget = memory.budget(adapter.model, tokens, True)
    work = functools.partial(_micro_batch_apart, adapter, weights, temperature)
    sums, kl_grads = _zeros(adapter)
    order: list[int] = []
    collected: list[Grads] = []
    nll_N = torch.zeros(len(rows))
    for index, (part, nll_B, grads, per_row) in each_batch(adapter, rows, work, budget, pad):
        _accumulate([sums, *kl_grads], [part, *grads])
        order += index
        nll_N[index] = nll_B.cpu()
        collected.append(per_row)
    ranks.add_up([sums, *kl_grads, nll_N])
    return RowGradients(
        _in_order(adapter, collected, order, len(rows)),
        nll_N,
        _summed(sums, rows, weights, None),
        dict(zip(adapter.params, kl_grads)),
        normaliser_N,
    )


def read_rows(
    adapter: Adapter,
    rows: Sequence[Row],
    read: Callable[[Grads], Tensor],
    *,
    pad: int,
    tokens: int | None = None,
    temperature: float = 1.0,
    on_batch: Callable[[int], None] = lambda rows: None,
) -> Tensor:
    """(N, F): what `read` (module -> (B, R) to (B, F)) makes of the rows' NLL gradients, on the CPU.

    No more than a micro-batch's gradients are held at once; leaves no .grad behind.
    """
    weights = _weights(rows, torch.ones(len(rows)), torch.ones(len(rows)), None, None)
    budget = memory.budget(adapter.model, tokens, True)
    work = functools.partial(_micro_batch, adapter, weights, temperature, True)
    order: list[int] = []
    found: list[Tensor] = []
    for index, (_, _, per_row) in each_batch(adapter, rows, work, budget, pad, on_batch):
        order += index
        found.append(read(per_row).cpu())
    return ranks.in_order(found, order)


def each_batch(
    adapter: Adapter,
    rows: Sequence[Row],
    work: Callable[[Any], Made],
    budget: memory.Budget,
    pad: int,
    on_batch: Callable[[int], None] = lambda rows: None,
    layout: Layout = SINGLE,
) -> Iterator[tuple[list[int], Made]]:
    """(positions of its rows, what `work` made of it) of every micro-batch of this rank's part of the rows;
    what does not fit is halved."""
    left = [i for unit in ranks.dealt(layout.units(rows)) for i in unit]
    shortage = Shortage(adapter.model.device, "backward")
    while left:
        batch = layout.next(rows, left, tokens=budget.tokens, pad=pad).to(adapter.model.device)
        with layout.attention(adapter.model):
            found = _unless_out_of_memory(batch, work, budget)
        if found is None:  # the traceback no longer holds the batch's tensors
            if len(batch.index) > 1 or not shortage.wait():
                _cut_in_half(batch, budget)
            continue
        shortage.over()
        left = left[len(batch.index) :]
        on_batch(len(batch.index) * ranks.size())
        yield batch.index, found


def _unless_out_of_memory(batch: Scored, work: Callable[[Any], Made], budget: memory.Budget) -> Made | None:
    """What `work` makes of the batch, or None where that does not fit into the GPU's memory."""
    try:
        with budget.measured(batch.ids_BL.numel()):
            return work(batch)
    except RuntimeError as fault:
        if not ran_out(fault):
            raise
    return None


def _cut_in_half(batch: Scored, budget: memory.Budget) -> None:
    tokens = batch.ids_BL.numel()
    if len(batch.index) == 1:
        raise InputError(
            f"a single row of {tokens} tokens does not fit into the GPU's memory (--checkpointing takes less)"
        )
    budget.halve(tokens)
    torch.cuda.empty_cache()


def _zeros(adapter: Adapter) -> tuple[Tensor, list[Tensor]]:
    """(3,) sums of loss, KL and gap, and a sum of gradients for each parameter: nothing yet."""
    return torch.zeros(3, device=adapter.model.device), [torch.zeros_like(p) for p in adapter.params.values()]


def _accumulate(sums: Sequence[Tensor], parts: Sequence[Tensor]) -> None:
    for total, part in zip(sums, parts, strict=True):
        total += part


def _put_on(adapter: Adapter, grads: Sequence[Tensor]) -> None:
    for p, g in zip(adapter.params.values(), grads):
        p.grad = g


def _reference(adapter: Adapter, batch: Scored, weights: _Weights, temperature: float) -> Tensor | None:
    """(B, T) log-probabilities of the base model; None where no row of the batch has a KL."""
    if not bool(weights.beta_N[batch.index].any()):
        return None
    with torch.no_grad(), adapter.disabled():
        logp_BT, _ = token_logps(adapter.model, batch, temperature=temperature)
    return logp_BT


def _of_batch(batch: Scored, weights: _Weights, device: torch.device) -> list[Tensor]:
    """Advantages, denominators and betas (B,) of the batch's rows, on the device."""
    parts = weights.advantage_N, weights.normaliser_N, weights.beta_N
    return [memory.to(part[batch.index], device) for part in parts]


def _micro_batch(
    adapter: Adapter, weights: _Weights, temperature: float, samples: bool, batch: Scored
) -> tuple[Tensor, tuple[Tensor, ...], Grads]:
    """(3,) sums of loss, KL and gap; the gradients; those of the single rows (none unless asked for).

    All or nothing, so that a batch that runs out of memory can be tried again.
    """
    advantage_B, normaliser_B, beta_B = _of_batch(batch, weights, adapter.model.device)
    reference = _reference(adapter, batch, weights, temperature)
    with adapter.sample_grads() if samples else contextlib.nullcontext({}) as collected:
        logp, mask = token_logps(adapter.model, batch, temperature=temperature)
        loss, kl_B = policy_loss(logp, mask, advantage_B, normaliser_B, reference, beta_B)
        grads = torch.autograd.grad(loss, list(adapter.params.values()))
        per_row = {name: parts[0] for name, parts in collected.items()}
    kl = (kl_B * (beta_B > 0)).sum()
    gap = _gap(logp.detach(), [weights.drawn[i] for i in batch.index])
    return torch.stack([loss.detach(), kl, gap]), grads, per_row


def _micro_batch_apart(
    adapter: Adapter, weights: _Weights, temperature: float, batch: Scored
) -> tuple[Tensor, Tensor, tuple[Tensor, ...], Grads]:
    """(3,) sums of the KL part's loss, KL and gap; NLL (B,); gradients of the KL part; of the rows' NLL."""
    params = list(adapter.params.values())
    _, normaliser_B, beta_B = _of_batch(batch, weights, adapter.model.device)
    reference = _reference(adapter, batch, weights, temperature)
    has_kl = reference is not None
    with adapter.sample_grads() as collected:
        logp, mask = token_logps(adapter.model, batch, temperature=temperature)
        nll_B = -(logp * mask).sum(1)
        torch.autograd.grad(nll_B.sum(), params, retain_graph=has_kl)
        # Taken now: the backward of the KL part would add to what is collected.
        per_row = {name: parts[0] for name, parts in collected.items()}
    zero_B = torch.zeros_like(normaliser_B)
    loss, kl_B = policy_loss(logp, mask, zero_B, normaliser_B, reference, beta_B)
    if has_kl:
        grads = torch.autograd.grad(loss, params)
    else:
        grads = tuple(torch.zeros_like(p) for p in params)
    kl = (kl_B * (beta_B > 0)).sum()
    gap = _gap(logp.detach(), [weights.drawn[i] for i in batch.index])
    return torch.stack([loss.detach(), kl, gap]), nll_B.detach(), grads, per_row


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


def _in_order(adapter: Adapter, collected: Sequence[Grads], order: Sequence[int], count: int) -> Grads:
    """The micro-batches' gradients together, in the order of all `count` rows."""
    if ranks.size() > 1:
        return _of_all_ranks(adapter, collected, order, count)
    back = torch.argsort(torch.tensor(order))
    joined = {}
    for name, first in collected[0].items():
        parts = [part[name] for part in collected]
        whole = first if len(parts) == 1 else torch.cat(parts)
        joined[name] = whole if list(order) == sorted(order) else whole[back.to(whole.device)]
    return joined


def _of_all_ranks(adapter: Adapter, collected: Sequence[Grads], order: Sequence[int], count: int) -> Grads:
    """Every rank's rows on every rank: each adds its own to zeros in the others' places."""
    joined = {name: p.new_zeros((count, p.numel())) for name, p in adapter.params.items()}
    for name, whole in joined.items():
        if collected:
            whole[order] = torch.cat([part[name] for part in collected])
    ranks.add_up(list(joined.values()))
    return joined


def _summed(
    sums: Tensor, rows: Sequence[Row], weights: _Weights, per_row: dict[str, Tensor] | None
) -> Backward:
    loss, kl, gap = sums.tolist()
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
