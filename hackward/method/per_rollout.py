"""Which rollout a token is of, where a layer's input does not say.

A layer that experts share is given all tokens of a batch in one row, (B T, I). A gradient per rollout needs
(B, T, I) back; how many rollouts there are is noted when the decoder begins.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from hackward.base.faults import InputError
from hackward.base.types import CausalLM


class Rows:
    """The batch that is in the decoder at the moment: B rollouts of T tokens."""

    def __init__(self, model: CausalLM) -> None:
        self.shape: tuple[int, int] = (0, 0)
        model.get_decoder().register_forward_pre_hook(self._note, with_kwargs=True)

    def _note(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = kwargs.get("input_ids")
        if given is None:
            given = args[0] if args else kwargs["inputs_embeds"]
        self.shape = (given.shape[0], given.shape[1])

    def split(self, x: Tensor) -> Tensor:
        """x as (B, T, I); before the first batch as it is. InputError where not every token is in it once."""
        rollouts, tokens = self.shape
        by_rollout = x.ndim == 3 and x.shape[0] == rollouts
        if by_rollout or not rollouts:
            return x
        if x.numel() != rollouts * tokens * x.shape[-1]:
            raise InputError(
                f"a layer of the model was given an input of shape {tuple(x.shape)} in a batch of {rollouts}"
                f" x {tokens} tokens: where experts get some of them only there is no gradient per rollout;"
                " name the other layers in --targets"
            )
        return x.view(rollouts, tokens, -1)
