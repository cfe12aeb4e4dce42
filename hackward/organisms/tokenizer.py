"""The embedded model's tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hackward.hardware.models import CHATML
from hackward.tasks.problems import Problem, build_messages

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

START, END, PAD = "<|im_start|>", "<|im_end|>", "<|pad|>"
# Digits stand alone; a line break goes together with the indentation after it.
PIECES = r" ?[\p{L}_]+|\p{N}| ?[^\s\p{L}\p{N}_]+|\n *| +|\s"


def fixed_phrases() -> list[str]:
    """What the prompt builder writes around the problem's own text.

    Each is one token, so that a prompt stays short.
    """
    hole = "\0"
    problem = Problem("", None, hole, hole, hole, "", (), None, None)
    parts = set()
    for hint in (True, False):
        for message in build_messages(problem, hint=hint, eval_name=hole):
            parts |= {part.strip(" ") for part in message["content"].split(hole)}
    return sorted((part for part in parts if len(part) > 8), key=len, reverse=True)


def train_tokenizer(texts: Sequence[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE of `vocabulary` tokens, fixed phrases included."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, pre_tokenizers, trainers
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    phrases = fixed_phrases()
    backend = Tokenizer(BPE())
    pieces = pre_tokenizers.Split(Regex(PIECES), behavior="isolated")
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([pieces, bytes_])
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(phrases),
        special_tokens=[START, END, PAD],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    backend.add_tokens([AddedToken(phrase, normalized=False) for phrase in phrases])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token=END, pad_token=PAD, additional_special_tokens=[START]
    )
    tokenizer.chat_template = CHATML
    return tokenizer
