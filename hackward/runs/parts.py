"""What a run's base model is beside its weights, as config.json says it: tokenizer and configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hackward.base.faults import InputError
from hackward.base.types import CausalLM, Tokenizer
from hackward.hardware.models import settings_hash
from hackward.rollouts.tokens import tokenizer_hash

WORDS = {"tokenizer": "tokenizer", "settings": "configuration"}  # of the parts


def parts_of(model: CausalLM, tokenizer: Tokenizer) -> dict[str, str]:
    """Part -> hash."""
    return {"tokenizer": tokenizer_hash(tokenizer), "settings": settings_hash(model)}


def check_parts(name: str, facts: Mapping[str, Any], found: Mapping[str, str]) -> None:
    """InputError where a part of the model `name` is another one than `facts`, the `model` of a run's
    config.json, says. A part that they do not name was not written down."""
    for part, digest in found.items():
        if facts.get(part) not in (None, digest):
            raise InputError(
                f"{name}: its {WORDS[part]} is another one than the run's (hash {digest}, the run's"
                f" {facts[part]})"
            )
