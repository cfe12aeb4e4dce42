"""What every rollout weighs in the loss: its advantage, the weight of its KL to the base model, its
denominator.

    A_i     losses.ADVANTAGES of its group's rewards, after what an intervention makes of them
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

from hackward.method.interventions import INTERVENTIONS, Intervention
from hackward.method.losses import ADVANTAGES, normaliser
from hackward.rollouts.rollout import Rollout


@dataclass(frozen=True)
class Weighed:
    """A step's groups, and what enters the backward of them."""

    groups: list[list[Rollout]]
    advantages: list[Tensor]  # (G,) of every group
    enters: list[int]  # places of the N rollouts that enter the backward, counted group by group
    advantage_N: Tensor
    beta_N: Tensor
    normaliser_N: Tensor
    groups_used: int  # those with a rollout in the backward

    @property
    def rollouts(self) -> list[Rollout]:
        """The N that enter the backward."""
        every = [rollout for group in self.groups for rollout in group]
        return [every[place] for place in self.enters]

    @property
    def varied(self) -> list[bool]:
        """Of every group: do its advantages differ from 0, so that they say something?"""
        return [bool(A.any()) for A in self.advantages]


def denominators(rollouts: Sequence[Rollout], *, kind: str, fixed: int, out_of: int | None = None) -> Tensor:
    """n_i (N,) of rollouts of a step of `out_of` (default: these); `fixed` is the sampling limit in
    tokens."""
    lengths = torch.tensor([len(rollout.completion_ids) for rollout in rollouts])
    return normaliser(kind, lengths, rollouts=len(rollouts) if out_of is None else out_of, fixed=fixed)


def betas(rollouts: Sequence[Rollout], beta: float) -> Tensor:
    """(N,): beta for the policy's own rollouts, 0 for others."""
    return beta * torch.tensor([float(rollout.own) for rollout in rollouts])


def weigh(
    groups: Sequence[Sequence[Rollout]],
    *,
    loss_mode: str,
    beta: float,
    denominator: str,
    fixed: int,
    intervention: Intervention = INTERVENTIONS["none"],
    flagged: Sequence[Sequence[bool]] | None = None,
) -> Weighed:
    """The weights of a step's groups. `fixed` is the sampling limit in tokens, for the denominator
    "fixed"; `flagged` are a monitor's flags, of which `intervention` says what they do."""
    flags = [[False] * len(group) for group in groups] if flagged is None else flagged
    rule = ADVANTAGES[loss_mode]
    advantages = [intervention.advantages(group, on, rule) for group, on in zip(groups, flags)]
    enters, used, place = [], 0, 0
    for group, A in zip(groups, advantages):
        varied = bool(A.any())
        pays_kl = [rollout.own and beta != 0 for rollout in group]
        entering = [place + i for i, pays in enumerate(pays_kl) if varied or pays]
        enters += entering
        used += bool(entering)
        place += len(group)
    every = [rollout for group in groups for rollout in group]
    rollouts = [every[i] for i in enters]
    return Weighed(
        groups=[list(group) for group in groups],
        advantages=advantages,
        enters=enters,
        advantage_N=torch.cat(advantages)[enters],
        beta_N=betas(rollouts, beta),
        normaliser_N=denominators(rollouts, kind=denominator, fixed=fixed, out_of=len(every)),
        groups_used=used,
    )
