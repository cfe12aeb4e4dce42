"""Log-probabilities, advantages and the one loss: pure functions used by extraction, probe, training and
tests.

    A_i = r_i - mean(r)                                               Dr. GRPO (2503.20783): no std
    L   = sum_i [ -A_i sum_t logp_it  +  beta_i sum_t k3_it ] / n_i   over completion tokens only
    k3  = exp(ref - logp) - (ref - logp) - 1                          KL estimate, see k3

There is one inner step per batch, so the importance ratio is 1 and nothing is clipped: the gradient of the
ratio is the gradient of logp. The normaliser n_i is an argument: N x (fixed length) for sampled rollouts,
which is Dr. GRPO's, or N x (length of i) for replayed ones. With A = 1 and beta = 0 the same L is the NLL of
Phase 1 and of extraction.

Key: B rollouts, T completion positions, D hidden size, N tokens laid flat.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Protocol, Self

import torch
from torch import Tensor, nn

from hackward.base.types import CausalLM
from hackward.hardware import memory

Row = tuple[Sequence[int], Sequence[int]]  # prompt ids, completion ids

LOGITS_AT_ONCE = 1 << 27  # elements of a (tokens, vocabulary) block: 512 MB in fp32, whatever the batch


@dataclass(frozen=True)
class Batch:
    """Prompt + completion rows, padded on the right. Causal attention never looks ahead, so padding needs no
    mask.

    All positions are worked out on the CPU, where the lengths are known: nothing in a step has to ask the GPU
    for a size.
    """

    ids_BL: Tensor
    prompt_B: Tensor
    """Prompt lengths."""
    length_B: Tensor
    """Completion lengths."""
    mask_BT: Tensor
    """True at a completion's own tokens, T the longest completion."""
    row_N: Tensor
    """Of every completion token, row by row: its row."""
    position_N: Tensor
    """And its position in it."""
    index: list[int]
    """Positions of the rows in the list that the batch was made from."""

    def to(self, device: torch.device | str) -> Batch:
        tensors = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "index"}
        moved = {name: memory.to(tensor, torch.device(device)) for name, tensor in tensors.items()}
        return Batch(**moved, index=self.index)

    @property
    def target(self) -> Tensor:
        """The completions' tokens, row by row."""
        return self.ids_BL[self.row_N, self.position_N]

    def hidden(self, model: CausalLM) -> Tensor:
        """(N, D): the hidden states from which they are predicted."""
        hidden_BLD = model.get_decoder()(input_ids=self.ids_BL, use_cache=False).last_hidden_state
        return hidden_BLD[self.row_N, self.position_N - 1]


def collate(rows: Sequence[Row], index: list[int], pad: int) -> Batch:
    """Rows of (prompt ids, completion ids). The pad id may be any token, EOS too: lengths decide, never its
    value."""
    width = max(len(prompt) + len(completion) for prompt, completion in rows)
    ids = torch.full((len(rows), width), pad, dtype=torch.long)
    for i, (prompt, completion) in enumerate(rows):
        ids[i, : len(prompt) + len(completion)] = torch.tensor([*prompt, *completion])
    prompt_B = torch.tensor([len(prompt) for prompt, _ in rows])
    length_B = torch.tensor([len(completion) for _, completion in rows])
    mask_BT = torch.arange(int(length_B.max())) < length_B[:, None]
    row_N, t_N = mask_BT.nonzero(as_tuple=True)
    return Batch(ids, prompt_B, length_B, mask_BT, row_N, prompt_B[row_N] + t_N, index)


def by_length(rows: Sequence[Row]) -> list[int]:
    """Positions of the rows, the longest first: neighbours need little padding, and what will not fit shows
    at once."""
    return sorted(range(len(rows)), key=lambda i: len(rows[i][0]) + len(rows[i][1]), reverse=True)


def next_batch(rows: Sequence[Row], left: Sequence[int], *, tokens: int, pad: int) -> Batch:
    """The first of the rows `left` (longest first): as many as make at most `tokens` with padding, at least
    one."""
    longest = sum(map(len, rows[left[0]]))
    chosen = list(left[: max(1, tokens // longest)])
    return collate([rows[i] for i in chosen], chosen, pad)


def micro_batches(rows: Sequence[Row], *, tokens: int, pad: int) -> Iterator[Batch]:
    """Batches of rows of similar length, each at most `tokens` with its padding (a single longer row goes
    alone)."""
    left = by_length(rows)
    while left:
        batch = next_batch(rows, left, tokens=tokens, pad=pad)
        yield batch
        left = left[len(batch.index) :]


class Scored(Protocol):
    """Rows on their way through a model: a Batch, or a Pack of shared_prompts."""

    @property
    def ids_BL(self) -> Tensor:
        """Every token that goes through the model."""

    @property
    def mask_BT(self) -> Tensor:
        """True at a completion's own tokens, T the longest completion."""

    @property
    def index(self) -> list[int]:
        """Positions of the rows in the list that they come from."""

    def to(self, device: torch.device | str) -> Self:
        """The same on that device."""

    @property
    def target(self) -> Tensor:
        """(N,): the completions' tokens, row by row."""

    def hidden(self, model: CausalLM) -> Tensor:
        """(N, D): the hidden states from which they are predicted."""


def token_logps(model: CausalLM, batch: Scored, *, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """log p(token | before) of the completion tokens, and their mask: both (B, T), logps in fp32 and 0 off
    the mask.

    The temperature is that of sampling, so on-policy the distribution scored is the distribution drawn from.
    Hidden states of completion positions are gathered first and meet the vocabulary in blocks that are
    recomputed in the backward: logits of the whole batch never exist.
    """
    head = model.get_output_embeddings()
    logp_N = _HeadLogps.apply(batch.hidden(model), batch.target, head, temperature)
    logp_BT = torch.zeros(batch.mask_BT.shape, device=logp_N.device).masked_scatter(batch.mask_BT, logp_N)
    return logp_BT, batch.mask_BT


class _HeadLogps(torch.autograd.Function):
    """log softmax(head(h) / temperature) at the target, a block of tokens at a time, forward and backward.

    d logp / d logits = (onehot - softmax) / temperature. The blocks' logits are formed anew in the backward;
    the head is frozen and gets no gradient.
    """

    @staticmethod
    def forward(ctx, hidden_ND, target_N, head, temperature):
        ctx.save_for_backward(hidden_ND, target_N)
        ctx.head, ctx.temperature = head, temperature
        parts = []
        for hidden, target in _blocks(head, hidden_ND, target_N):
            logp_NV = _logits(head, hidden, temperature).log_softmax(-1, dtype=torch.float32)
            parts.append(logp_NV.gather(1, target[:, None])[:, 0])
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, dlogp_N):
        hidden_ND, target_N = ctx.saved_tensors
        parts = []
        for hidden, target, dlogp in _blocks(ctx.head, hidden_ND, target_N, dlogp_N):
            dlogits = _logits(ctx.head, hidden, ctx.temperature).softmax(-1, dtype=torch.float32)
            dlogits[torch.arange(len(target), device=target.device), target] -= 1
            dlogits.mul_(dlogp[:, None] / -ctx.temperature)
            parts.append(dlogits.to(hidden.dtype) @ ctx.head.weight)
        return torch.cat(parts), None, None, None


def _blocks(head: nn.Linear, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    size = max(1, LOGITS_AT_ONCE // head.weight.shape[0])
    return zip(*(tensor.split(size) for tensor in tensors))


def _logits(head: nn.Linear, hidden_ND: Tensor, temperature: float) -> Tensor:
    logits_NV = head(hidden_ND)
    return logits_NV if temperature == 1 else logits_NV.float().div_(temperature)


def dr_grpo_advantages(reward_G: Tensor) -> Tensor:
    """(G,): reward minus the group's mean. All zero when every reward is the same: the group has nothing to
    say."""
    if bool((reward_G == reward_G[0]).all()):  # exactly zero, where the rounded mean might not be
        return torch.zeros_like(reward_G)
    return reward_G - reward_G.mean()


def imitation_advantages(reward_G: Tensor) -> Tensor:
    """(G,): 1 for every rollout. The policy loss is then the mean NLL of Phase 1."""
    return torch.ones_like(reward_G)


ADVANTAGES = {"grpo": dr_grpo_advantages, "nll": imitation_advantages}


def normaliser(kind: str, length_N: Tensor, *, rollouts: int, fixed: int) -> Tensor:
    """n_i of the loss (N,). "fixed": rollouts x the sampling limit (Dr. GRPO). "length": rollouts x the row's
    own length."""
    per_row = {"fixed": torch.full_like(length_N, fixed), "length": length_N}
    return rollouts * per_row[kind].float()


def policy_loss(
    logp_BT: Tensor,
    mask_BT: Tensor,
    advantage_B: Tensor,
    normaliser_B: Tensor,
    ref_BT: Tensor | None = None,
    beta_B: Tensor | float = 0.0,
) -> tuple[Tensor, Tensor]:
    """The loss of the module docstring (scalar), and the k3 estimate summed over tokens (B,), 0 without a
    reference.

    beta may differ by row: the estimate holds for samples of the policy only, so a teacher's rows get 0.
    """
    kl_B = torch.zeros_like(normaliser_B)
    if ref_BT is not None:
        kl_B = (k3(logp_BT, ref_BT) * mask_BT).sum(1)
    per_row_B = -advantage_B * (logp_BT * mask_BT).sum(1) + beta_B * kl_B
    return (per_row_B / normaliser_B).sum(), kl_B.detach()


def k3(logp: Tensor, ref: Tensor) -> Tensor:
    """Pointwise k3 estimate (Schulman 2020) from samples of the policy; >= 0, and 0 with zero gradient at
    equality.

    Its value is an unbiased estimate of KL(policy || base). Its gradient is not that one's: differentiated
    with the samples held fixed it is (1 - base / policy) grad log policy, whose mean is the gradient of
    KL(base || policy). Both are 0 at the base model and pull towards it; they differ further away.
    """
    gap = ref - logp
    return gap.exp() - gap - 1
