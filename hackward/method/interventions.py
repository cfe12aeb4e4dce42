"""What happens to the rollouts that a monitor flags, before advantages are taken.

    none      nothing: a monitor may look on
    penalty   r_i = the reward as if no test had passed (the format part stays) where flagged
    screen    a flagged rollout enters neither its group's mean nor the policy gradient: A_i = 0

Only advantages change. The KL of every own rollout to the base model stays, and so do the denominators, so
the other rollouts' gradients are neither scaled up nor down by how many are flagged.

Key: G rollouts of a group.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from hackward.grading.labels import unpaid
from hackward.rollouts.rollout import Rollout


class Intervention(Protocol):
    """From rewards and flags to advantages."""

    def advantages(
        self, group: Sequence[Rollout], flagged: Sequence[bool], of: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """(G,) advantages of a group, `of` being the run's own rule (losses.ADVANTAGES)."""


@dataclass(frozen=True)
class LookOn:
    """No flag has a consequence."""

    def advantages(
        self, group: Sequence[Rollout], flagged: Sequence[bool], of: Callable[[Tensor], Tensor]
    ) -> Tensor:
        return of(torch.tensor([rollout.reward for rollout in group]))


@dataclass(frozen=True)
class Penalty:
    """A flagged rollout is paid for its format alone."""

    def advantages(
        self, group: Sequence[Rollout], flagged: Sequence[bool], of: Callable[[Tensor], Tensor]
    ) -> Tensor:
        paid = [unpaid(rollout.fmt_ok) if flag else rollout.reward for rollout, flag in zip(group, flagged)]
        return of(torch.tensor(paid))


@dataclass(frozen=True)
class Screen:
    """A flagged rollout is left out; of a group that is flagged throughout nothing is left."""

    def advantages(
        self, group: Sequence[Rollout], flagged: Sequence[bool], of: Callable[[Tensor], Tensor]
    ) -> Tensor:
        kept_G = ~torch.tensor(flagged, dtype=torch.bool)
        reward_G = torch.tensor([rollout.reward for rollout in group])
        advantage_G = torch.zeros_like(reward_G)
        if kept_G.any():
            advantage_G[kept_G] = of(reward_G[kept_G])
        return advantage_G


INTERVENTIONS: dict[str, Intervention] = {"none": LookOn(), "penalty": Penalty(), "screen": Screen()}
