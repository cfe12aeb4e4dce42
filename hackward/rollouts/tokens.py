"""Text to token ids and back: prompts, the end of a turn, where a completion stops, which tokenizer this
is."""

from __future__ import annotations

import json
from typing import Any

from torch import nn

from hackward.base.files import sha256


def render_prompt(tokenizer: Any, messages: list[dict]) -> str:
    """The text to generate from: the chat template with thinking off where it knows the switch, else a plain
    form."""
    template = getattr(tokenizer, "chat_template", None)
    if not template:
        return "\n\n".join(message["content"] for message in messages)
    switch = {"enable_thinking": False} if "enable_thinking" in str(template) else {}
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **switch)


def pad_id(tokenizer) -> int:
    """Any valid id will do: lengths and masks decide what is padding, never the id."""
    return tokenizer.pad_token_id if tokenizer.pad_token_id is not None else (tokenizer.eos_token_id or 0)


def stop_ids(model: nn.Module, tokenizer) -> list[int]:
    """Tokens that end a completion: the tokenizer's end of sequence and all that the generation config
    names."""
    configured = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    configured = configured if isinstance(configured, list) else [configured]
    return sorted({i for i in [tokenizer.eos_token_id, *configured] if i is not None})


def tokenizer_hash(tokenizer) -> str:
    """Tells tokenizers apart: vocabulary, chat template and how they cut a probe text."""
    probe = "def run_tests(self):\n        assert self.f([1, -2.5]) == {'a': 10}  # caf\u00e9\n"
    vocabulary = json.dumps(sorted(tokenizer.get_vocab().items()))
    return sha256(vocabulary, str(tokenizer.chat_template), str(tokenizer.encode(probe)))[:16]


def encode(tokenizer, text: str) -> list[int]:
    """Token ids of a text that already holds its special tokens."""
    return tokenizer.encode(text, add_special_tokens=False)


def turn_end(tokenizer) -> int:
    """The token that ends an assistant's turn in the chat template (in Qwen <|im_end|>, not the end-of-text
    token)."""
    mark = "\u2063answer\u2063"
    if tokenizer.chat_template:
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": "q"}, {"role": "assistant", "content": mark}], tokenize=False
        )
        after = encode(tokenizer, text.rpartition(mark)[2])
        special = [i for i in after if i in tokenizer.added_tokens_decoder]
        if special:
            return special[0]
    return tokenizer.eos_token_id


def stops(model, tokenizer) -> list[int]:
    """Every token that ends a completion when sampling: the model's own, and the end of a turn that pairs are
    closed with."""
    return sorted({*stop_ids(model, tokenizer), turn_end(tokenizer)})


def completion_ids(tokenizer, text: str) -> list[int]:
    """A whole assistant turn as ids: the text, then the end of the turn."""
    return [*encode(tokenizer, text), turn_end(tokenizer)]
