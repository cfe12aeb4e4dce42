"""About how much GPU memory a run needs, from its model's shapes and its settings. All sizes in bytes.

    weights       all parameters
    adapter       svd: W', U and Vh of every target, and diag(S) Vh of the tall ones; lora: W' of every target
    rows          keys and values of so many rows of a prompt and a completion, or of one row at the least
    backward      one row: what every layer keeps for it, and its logits

The least is what a run cannot do without: rows and micro-batches are cut to what is free.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from hackward.base.arms import arm_of
from hackward.base.flags import target_names
from hackward.base.types import CausalLM
from hackward.method.targets import target_linears
from hackward.rollouts.decoder import head_size
from hackward.runs.settings import Config

PROMPT = 1024  # tokens of a long prompt
KEPT = 16  # numbers of a layer's width that a token's backward keeps, beside the MLP's
KEPT_MLP = 4  # of the MLP's width
LOGITS = 4 + 4 + 2  # bytes of a token and word: log-probabilities and their gradient in fp32, logits
OVERHEAD = 2 << 30  # context, libraries and captured graphs; 2.0 GB were measured (neighbours.OWN)


@dataclass(frozen=True)
class Needs:
    """Bytes on a GPU."""

    least: int
    """One row at a time."""
    asked: int
    """With as many rows at once as the settings say."""

    @property
    def allocated(self) -> int:
        """Of the least, what PyTorch allocates."""
        return self.least - OVERHEAD

    def words(self) -> str:
        return (
            f"about {self.least / 1e9:.1f} GB of GPU memory at the least, {self.asked / 1e9:.1f} GB with all"
            " rows at once"
        )


def needs(settings: Config, model: CausalLM, size: int) -> Needs:
    """Of a run with this model, before its adapter is attached, and `size` bytes a number.

    The model may be on the device "meta".
    """
    config: Any = model.config
    basis = arm_of(vars(settings)).basis
    weights = size * sum(p.numel() for p in model.parameters())
    targets = target_linears(model, target_names(settings.targets))
    adapter = size * sum(_of_basis(linear, basis) for _, linear in targets)
    tokens = PROMPT + settings.max_new_tokens
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    per_position = 2 * config.num_hidden_layers * heads * head_size(config) * size
    wide = KEPT * config.hidden_size + KEPT_MLP * config.intermediate_size
    backward = tokens * (config.num_hidden_layers * wide * size + config.vocab_size * LOGITS)
    fixed = OVERHEAD + weights + adapter
    # Sampling and backward take turns
    least = fixed + max(backward, tokens * per_position)
    return Needs(least, max(least, fixed + settings.sample_rows * tokens * per_position))


def needs_by_name(settings: Config) -> Needs | None:
    """Of a run whose model is not loaded: by its shapes alone. None where these are not at hand without it (a
    hub's model that was not downloaded)."""
    from hackward.hardware.models import by_shapes, pick_dtype

    try:
        model = by_shapes(settings.model)
    except Exception:  # whatever a library makes of a name that it cannot read: the run itself says it
        return None
    dtype = pick_dtype(settings.dtype, torch.device("cuda"))
    return needs(settings, model, dtype.itemsize)


def _of_basis(linear: nn.Linear, basis: str) -> int:
    """Numbers that an adapter keeps beside a weight (O, I)."""
    outputs, inputs = linear.weight.shape
    rank = min(outputs, inputs)
    if basis == "lora":
        return outputs * inputs
    tall = rank * inputs if outputs > rank else 0
    return outputs * inputs + (outputs + inputs) * rank + tall
