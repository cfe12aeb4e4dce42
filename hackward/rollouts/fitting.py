"""Do rows of tokens fit a model: into its context, and into its vocabulary?

Some rotary embeddings turn by the longest row of a forward once that is longer than the original context.
The other rows are then not what they are alone, and a row that grows past that length while it is drawn is
scored with other rotations than it was drawn with. So the original context is where such models end here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hackward.base.faults import InputError
from hackward.base.types import CausalLM

BY_LENGTH = {"dynamic", "longrope"}  # rotations, by transformers' names


def rotations_by_length(model: CausalLM) -> set[str]:
    """The kinds of rotary embeddings in it that a forward's longest row decides; some models have one a kind
    of layer."""
    kinds: list[Any] = []
    for module in model.modules():
        kind = getattr(module, "rope_type", None)
        kinds += kind.values() if isinstance(kind, dict) else [kind]
    return BY_LENGTH & {kind for kind in kinds if isinstance(kind, str)}


def context_of(model: CausalLM) -> int | None:
    """The most positions that the model was made for; None where its config does not say."""
    return getattr(model.config.get_text_config(), "max_position_embeddings", None)


def original_context(model: CausalLM) -> int | None:
    """The length up to which every row is what it is alone; None where that is the whole context.

    Dynamic rotations change beyond max_position_embeddings, which is the context.
    """
    config = model.config.get_text_config()
    settings = getattr(config, "rope_parameters", None) or {}
    every = [settings, *(part for part in settings.values() if isinstance(part, dict))]
    lengths = [
        part["original_max_position_embeddings"] for part in every if part.get("rope_type") == "longrope"
    ]
    return min(lengths, default=None)


def check_fit(
    model: CausalLM, rows: Sequence[Sequence[int]], what: str, *, room: int = 0, way: str = "leave them out"
) -> None:
    """InputError, with a count, where rows of token ids do not fit.

    `what` the rows are of (a file), `room` the tokens to be drawn after each, `way` what can be done.
    """
    longest, largest = max(map(len, rows), default=0), max((max(row, default=0) for row in rows), default=0)
    drawn = f" with {room} tokens to be drawn after it" if room else ""
    for limit, name in _limits(model):
        if longest + room > limit:
            over = sum(len(row) + room > limit for row in rows)
            raise InputError(
                f"{what}: {over} of {len(rows)} do not fit into the model's {name}: the longest has"
                f" {longest}{drawn}; {way}"
            )
    vocabulary = model.get_input_embeddings().weight.shape[0]
    if largest >= vocabulary:
        over = sum(max(row, default=0) >= vocabulary for row in rows)
        raise InputError(
            f"{what}: {over} of {len(rows)} hold token {largest}, and the model's embedding has {vocabulary}"
            " rows: the tokenizer is another model's, or its added tokens were never given a row"
        )


def _limits(model: CausalLM) -> list[tuple[int, str]]:
    """The most tokens of a row, and what sets that limit."""
    context, original = context_of(model), original_context(model)
    limits = [(context, f"context of {context} tokens")] if context else []
    if original and original != context:
        why = "longrope, which turns all rows of a batch by the longest one beyond that"
        limits.append((original, f"original context of {original} tokens ({why})"))
    return limits
