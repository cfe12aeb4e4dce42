"""Monitors: what is known or guessed of every rollout of a step, before its reward is used.

    truth     the grader's label; with noise each flag is flipped with probability p
    attempt   does it define the evaluation function?
    v_hack    does its own NLL gradient point along v_hack? (discriminant.py)
    probe     do the base model's hidden states look like a hack's? (hidden.py)

A monitor scores and flags. What a flag does is an intervention's (interventions.py); whose rollouts may be
flagged, and the placebo, which flags as many at random, are `Watch`'s.

Key: N rollouts of a step, group by group.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from hackward.base.seeds import seeded
from hackward.method.adapters import Adapter
from hackward.method.discriminant import Discriminant
from hackward.method.gradients import RowGradients
from hackward.method.hidden import Probe, pooled
from hackward.method.quality import auc
from hackward.rollouts.rollout import Rollout

OWNERS: dict[str, Callable[[Rollout], bool]] = {
    "all": lambda rollout: True,
    "own": lambda rollout: rollout.own,
    "teacher": lambda rollout: not rollout.own,
}


@dataclass(frozen=True)
class Seen:
    """What was seen of a step's rollouts. Scores may be NaN (a gradient of 0)."""

    score_N: Tensor
    flagged: list[bool]
    rows: RowGradients | None = None
    """The rollouts' own gradients, where the monitor had to take them."""

    def by_group(self, groups: Sequence[Sequence[Rollout]]) -> list[list[bool]]:
        """The flags, group by group."""
        flags = iter(self.flagged)
        return [[next(flags) for _ in group] for group in groups]


class Monitor(Protocol):
    """Scores and flags a step's rollouts."""

    def look(self, step: int, rollouts: Sequence[Rollout]) -> Seen:
        """Of all rollouts of the step, own and teacher's."""


@dataclass(frozen=True)
class Truth:
    """The grader's label, with noise from the run's seed."""

    noise: float
    seed: int

    def look(self, step: int, rollouts: Sequence[Rollout]) -> Seen:
        draws = seeded(self.seed, "monitor noise", step).random(len(rollouts))
        flagged = [rollout.hacked != bool(u < self.noise) for rollout, u in zip(rollouts, draws)]
        return Seen(torch.tensor(flagged).float(), flagged)


@dataclass(frozen=True)
class Attempt:
    """Does it define the evaluation function? Where that is not known (a foreign pool), it is not flagged."""

    def look(self, step: int, rollouts: Sequence[Rollout]) -> Seen:
        flagged = [bool(rollout.attempted) for rollout in rollouts]
        return Seen(torch.tensor(flagged).float(), flagged)


@dataclass
class AlongV:
    """The score of each rollout's own NLL gradient.

    `take` gives the gradients of all rollouts where they fit into memory; else it is None and `read` scores
    them without keeping any.
    """

    discriminant: Discriminant
    take: Callable[[Sequence[Rollout]], RowGradients] | None
    read: Callable[[Sequence[Rollout], Callable[[dict[str, Tensor]], Tensor]], Tensor]

    def look(self, step: int, rollouts: Sequence[Rollout]) -> Seen:
        if self.take is None:
            score_N = self.read(rollouts, lambda g: self.discriminant.score(g)[:, None])[:, 0]
            rows = None
        else:
            rows = self.take(rollouts)
            score_N = self.discriminant.score(rows.nll).cpu()
        return Seen(score_N, (score_N > self.discriminant.threshold).tolist(), rows)


@dataclass(frozen=True)
class Hidden:
    """The probe's score of each rollout."""

    probe: Probe
    adapter: Adapter
    pad: int
    tokens: int | None

    def look(self, step: int, rollouts: Sequence[Rollout]) -> Seen:
        rows = [rollout.tokens for rollout in rollouts]
        states = pooled(self.adapter, rows, pad=self.pad, tokens=self.tokens, layer=self.probe.layer)
        score_N = self.probe.score(states)
        return Seen(score_N, (score_N > self.probe.threshold).tolist())


@dataclass
class Watch:
    """A monitor, whose rollouts it may flag, and the placebo in its place."""

    monitor: Monitor
    owners: str
    """Of OWNERS."""
    placebo: bool
    """Flags at random, at the rate of the monitor's flags among those that it may flag."""
    seed: int

    def look(self, step: int, groups: Sequence[Sequence[Rollout]]) -> Seen:
        """Scores are the monitor's own, flags what the intervention acts on."""
        rollouts = [rollout for group in groups for rollout in group]
        seen = self.monitor.look(step, rollouts)
        may = [OWNERS[self.owners](rollout) for rollout in rollouts]
        flagged = [flag and may_be for flag, may_be in zip(seen.flagged, may)]
        if self.placebo:
            rate = sum(flagged) / max(1, sum(may))
            draws = seeded(self.seed, "placebo", step).random(len(rollouts))
            flagged = [may_be and bool(u < rate) for may_be, u in zip(may, draws)]
        return Seen(seen.score_N, flagged, seen.rows)


FIGURES = ("monitor_auc_hacked", "monitor_auc_attempted", "monitor_rate_hacked", "monitor_rate_clean")


def figures(seen: Seen | None, rollouts: Sequence[Rollout]) -> dict[str, float | None]:
    """FIGURES of a step, over the policy's own rollouts.

    AUC: of the score, hacked against all others, attempted against all others. Rates: of the flags among
    hacked rollouts, and among those that neither hack nor attempt. None where a class is empty, or nobody
    looked.
    """
    if seen is None:
        return dict.fromkeys(FIGURES)
    own = [i for i, rollout in enumerate(rollouts) if rollout.own]
    score = {i: float(seen.score_N[i]) for i in own if math.isfinite(float(seen.score_N[i]))}
    hacked = {i for i in own if rollouts[i].hacked}
    attempted = {i for i in own if rollouts[i].attempted}
    clean = set(own) - hacked - attempted
    return {
        "monitor_auc_hacked": _auc(score, hacked),
        "monitor_auc_attempted": _auc(score, attempted),
        "monitor_rate_hacked": _rate(seen.flagged, hacked),
        "monitor_rate_clean": _rate(seen.flagged, clean),
    }


def _auc(score: dict[int, float], positive: set[int]) -> float | None:
    above = [x for i, x in score.items() if i in positive]
    below = [x for i, x in score.items() if i not in positive]
    if not above or not below:
        return None
    return float(auc(torch.tensor([above]), torch.tensor([below]))[0])


def _rate(flagged: Sequence[bool], members: set[int]) -> float | None:
    return sum(flagged[i] for i in members) / len(members) if members else None
