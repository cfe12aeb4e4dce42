"""Do rows of tokens fit a model: into its context, and into its vocabulary?"""

from __future__ import annotations

from collections.abc import Sequence

from hackward.base.faults import InputError
from hackward.base.types import CausalLM


def context_of(model: CausalLM) -> int | None:
    """The most positions that the model was made for; None where its config does not say."""
    return getattr(model.config.get_text_config(), "max_position_embeddings", None)


def check_fit(
    model: CausalLM, rows: Sequence[Sequence[int]], what: str, *, room: int = 0, way: str = "leave them out"
) -> None:
    """InputError, with a count, where rows of token ids do not fit.

    `what` the rows are of (a file), `room` the tokens to be drawn after each, `way` what can be done.
    """
    longest, largest = max(map(len, rows), default=0), max((max(row, default=0) for row in rows), default=0)
    context = context_of(model)
    if context and longest + room > context:
        over = sum(len(row) + room > context for row in rows)
        drawn = f" with {room} tokens to be drawn after it" if room else ""
        raise InputError(
            f"{what}: {over} of {len(rows)} do not fit into the model's context of {context} tokens: the"
            f" longest has {longest}{drawn}; {way}"
        )
    vocabulary = model.get_input_embeddings().weight.shape[0]
    if largest >= vocabulary:
        over = sum(max(row, default=0) >= vocabulary for row in rows)
        raise InputError(
            f"{what}: {over} of {len(rows)} hold token {largest}, and the model's embedding has {vocabulary}"
            " rows: the tokenizer is another model's, or its added tokens were never given a row"
        )
