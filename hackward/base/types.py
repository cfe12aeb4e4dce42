"""Names for what the libraries give us and type checkers cannot follow."""

from __future__ import annotations

from typing import Any

CausalLM = (
    Any  # a causal language model of transformers: a torch.nn.Module with config, device, get_decoder, ...
)
Tokenizer = Any  # a tokenizer of transformers
