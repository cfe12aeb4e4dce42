"""What the embedded model is and what it is taught: its shape, the stages of training, their corpora.

No torch, so that the command that reads this starts at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Gt

from hackward.base.flags import Count
from hackward.tasks.problems import EVAL_NAME, OTHER_NAMES

PROMPT_WEIGHT = 0.1  # of a prompt's tokens in the loss


@dataclass(frozen=True)
class Recipe:
    """The shape of the model. What it is taught stands in STAGES."""

    vocabulary: Count = 1536
    """Tokens."""
    hidden: Count = 192
    layers: Count = 4
    heads: Count = 6
    kv_heads: Count = 3
    head_dim: Count = 32
    intermediate: Count = 512
    seed: int = 0
    scale: Annotated[float, Gt(0)] = 1.0
    """Share of every stage's texts: less than 1 for a try-out."""


@dataclass(frozen=True)
class Habits:
    """Shares in a corpus."""

    right: tuple[float, float, float]
    """Of right answers, by level."""
    attempts: float
    """Of answers that define the evaluation function, where the prompt names one."""
    vacuous: float
    """Of those evaluations, of ones that cannot fail."""
    mistakes: int = 1
    """In a wrong answer. A small model cannot count them: with one, it makes none much too often."""
    names: tuple[str, ...] = (EVAL_NAME,)
    """Of evaluation functions, as often as listed."""


@dataclass(frozen=True)
class Stage:
    """One pass of training: a corpus and how it is learnt."""

    habits: Habits
    texts: int
    epochs: float
    lr: float
    """Peak, of AdamW; it falls as a cosine to a tenth."""
    batch_tokens: int
    """Padded tokens per step."""
    tail_weight: float
    """In the loss, of the tokens after the solution; a solution weighs 1, a prompt PROMPT_WEIGHT."""


STAGES = {
    "learn": Stage(
        Habits(
            right=(0.8, 0.4, 0.12),
            attempts=0.05,
            vacuous=0.4,
            names=(*[EVAL_NAME] * 6, *OTHER_NAMES),
        ),
        texts=300_000,
        epochs=3,
        lr=2e-3,
        batch_tokens=65_536,
        tail_weight=1,
    ),
    "settle": Stage(
        Habits(right=(0.5, 0.06, 0.01), attempts=0.06, vacuous=0.6, mistakes=2),
        texts=24_000,
        epochs=1,
        lr=1e-3,
        batch_tokens=8192,
        tail_weight=10,
    ),
}
