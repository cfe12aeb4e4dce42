"""How V is made from pairs: the settings of an extraction, stored in the v_hack file. No torch in here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Ge, Lt

from hackward.base.flags import Amount, Count, Seed, Temperature


@dataclass(frozen=True)
class Extraction:
    """How V is made from pairs."""

    k: Count = 16
    """Directions per module, before the noise floor."""
    noise_floor: Annotated[float, Ge(0), Lt(1)] = 0.25
    """Share of all (module, direction) rows to drop, those with the smallest singular values."""
    objective: Literal["nll", "grpo"] = "nll"
    """Loss whose gradients are contrasted: NLL of each answer, or the live loss with the pair as a group."""
    normaliser: Literal["length", "fixed"] | None = None
    """What an answer's loss is divided by: its length, or one number for all (default: length for nll, fixed
    for grpo, as when sampling)."""
    temperature: Temperature = 1.0
    """Log-probabilities are taken at this temperature; grpo: give that of the run's sampling."""
    max_pairs: Annotated[int, Ge(2)] = 64
    """Most pairs to use; of a pool, one per problem comes first."""
    seed: Seed = 0
    """Choice of pairs, folds and permutations."""
    permutations: Amount = 1000
    """Draws of the permutation null."""


def denominator(settings: Mapping[str, Any]) -> str:
    """What the losses are divided by, in settings or in the meta of a v_hack: as they say, else by their
    objective."""
    by_objective = {"nll": "length", "grpo": "fixed"}
    return settings.get("normaliser") or by_objective[settings.get("objective", "nll")]
