"""What every rollout weighs in the loss: its advantage, the weight of its KL to the base model, its
denominator.

    A_i     losses.ADVANTAGES of its group's rewards
    beta_i  beta for the policy's own rollouts, 0 for others: the KL estimate needs samples of the policy
    n_i     losses.normaliser, which counts every rollout of the step

A rollout enters the backward if the advantages of its group or its own beta_i are not all zero. So a group
whose rewards are all alike still pays for its distance from the base model, and it is skipped only where it
has nothing to say at all.

Key: G rollouts of a group, N rollouts that enter the backward.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hackward.method.losses import ADVANTAGES, normaliser
from hackward.rollouts.rollout import Rollout


@dataclass(frozen=True)
class Weighed:
    """A step's groups, and what enters the backward of them."""

    groups: list[list[Rollout]]
    advantages: list[Tensor]  # (G,) of every group
    rollouts: list[Rollout]  # the N that enter the backward, group by group
    advantage_N: Tensor
    beta_N: Tensor
    normaliser_N: Tensor
    groups_used: int  # those with a rollout in the backward

    @property
    def varied(self) -> list[bool]:
        """Of every group: do its rewards differ, so that its advantages say something?"""
        return [bool(A.any()) for A in self.advantages]


def weigh(
    groups: Sequence[Sequence[Rollout]], *, loss_mode: str, beta: float, denominator: str, fixed: int
) -> Weighed:
    """The weights of a step's groups. `fixed` is the sampling limit in tokens, for the denominator
    "fixed"."""
    advantages = [ADVANTAGES[loss_mode](torch.tensor([r.reward for r in group])) for group in groups]
    rollouts, weights, used = [], [], 0
    for group, A in zip(groups, advantages):
        varied = bool(A.any())
        entering = [(r, float(a)) for r, a in zip(group, A) if varied or beta * r.own]
        rollouts += [r for r, _ in entering]
        weights += [a for _, a in entering]
        used += bool(entering)
    lengths = torch.tensor([len(r.completion_ids) for r in rollouts])
    return Weighed(
        groups=[list(group) for group in groups],
        advantages=advantages,
        rollouts=rollouts,
        advantage_N=torch.tensor(weights),
        beta_N=beta * torch.tensor([float(r.own) for r in rollouts]),
        normaliser_N=normaliser(denominator, lengths, rollouts=sum(map(len, groups)), fixed=fixed),
        groups_used=used,
    )
