"""Text to token ids and back: prompts, the end of a turn, where a completion stops, which tokenizer this
is."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from hackward.base.faults import InputError
from hackward.base.files import sha256

if TYPE_CHECKING:
    from torch import nn

PAD = 0  # any valid id will do: lengths and masks decide what is padding, never the id
NO_TEMPLATE = "none"  # in the place of a template's hash


def prompt_ids(tokenizer: Any, messages: list[dict]) -> list[int]:
    """Token ids of a prompt. A chat template holds its special tokens; without one it begins as the tokenizer
    begins a text, with its BOS where it has one."""
    ids = encode(tokenizer, render_prompt(tokenizer, messages))
    return ids if getattr(tokenizer, "chat_template", None) else [*beginning(tokenizer), *ids]


def beginning(tokenizer: Any) -> list[int]:
    """What the tokenizer puts before every text."""
    whole, bare = tokenizer.encode("x"), encode(tokenizer, "x")
    for start in range(len(whole) - len(bare) + 1):
        if whole[start : start + len(bare)] == bare:
            return whole[:start]
    return []


def render_prompt(tokenizer: Any, messages: list[dict]) -> str:
    """The text to generate from: the chat template with thinking off where it knows the switch, else a plain
    form.

    A template that refuses the system's role, or leaves out what it says, gets it at the head of the user's
    turn. InputError where it takes neither.
    """
    template = getattr(tokenizer, "chat_template", None)
    if not template:
        return "\n\n".join(message["content"] for message in messages)
    system = messages[0]["content"].strip() if messages[0]["role"] == "system" else ""
    try:
        text = _templated(tokenizer, messages)
        if system in text:
            return text
    except Exception as fault:  # whatever a template raises
        if not system:
            raise _unusable(tokenizer, fault) from None
    try:
        return _templated(tokenizer, _folded(messages))
    except Exception as fault:
        raise _unusable(tokenizer, fault) from None


def _templated(tokenizer: Any, messages: list[dict], *, opened: bool = True) -> str:
    switch = {"enable_thinking": False} if "enable_thinking" in str(tokenizer.chat_template) else {}
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=opened, **switch)


def _folded(messages: list[dict]) -> list[dict]:
    """The system's message at the head of the user's."""
    system, user, *rest = messages
    return [user | {"content": f"{system['content']}\n\n{user['content']}"}, *rest]


def _unusable(tokenizer: Any, fault: Exception) -> InputError:
    reason = (str(fault).strip().splitlines() or [type(fault).__name__])[0]
    return InputError(
        f"{getattr(tokenizer, 'name_or_path', '')}: its chat template cannot be used ({reason}); mend it, or"
        " take it out for plain prompts"
    )


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


def chat_template_hash(tokenizer: Any) -> str:
    """Tells chat templates apart by their text; NO_TEMPLATE where there is none."""
    template = getattr(tokenizer, "chat_template", None)
    return sha256(str(template))[:16] if template else NO_TEMPLATE


def encode(tokenizer, text: str) -> list[int]:
    """Token ids of a text that already holds its special tokens."""
    return tokenizer.encode(text, add_special_tokens=False)


def turn_end(tokenizer) -> int:
    """The token that ends an assistant's turn in the chat template (in Qwen <|im_end|>, not the end-of-text
    token)."""
    mark = "\u2063answer\u2063"
    if tokenizer.chat_template:
        turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": mark}]
        try:
            text = tokenizer.apply_chat_template(turns, tokenize=False)
        except Exception as fault:  # whatever a template raises
            raise _unusable(tokenizer, fault) from None
        _, marked, rest = text.rpartition(mark)
        after = encode(tokenizer, rest) if marked else []
        special = [i for i in after if i in tokenizer.added_tokens_decoder]
        if special:
            return special[0]
    if tokenizer.eos_token_id is None:
        where = getattr(tokenizer, "name_or_path", "")
        raise InputError(f"{where}: its tokenizer names no eos_token, so no answer could ever end; name one")
    return tokenizer.eos_token_id


def stops(model, tokenizer) -> list[int]:
    """Every token that ends a completion when sampling: the model's own, and the end of a turn that pairs are
    closed with."""
    return sorted({*stop_ids(model, tokenizer), turn_end(tokenizer)})


def completion_ids(tokenizer, text: str) -> list[int]:
    """A whole assistant turn as ids: the text, then the end of the turn."""
    return [*encode(tokenizer, text), turn_end(tokenizer)]
