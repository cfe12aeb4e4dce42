"""Tiny random models of the families that people have, as directories and GGUF files.

`python -m tests.families` prints the table of spec/models.md.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers

from hackward.base.flags import TARGETS
from hackward.hardware import models
from hackward.method.targets import coverage, decoder_linears, last, percent
from hackward.tasks.shipped import EMBEDDED_HOME

SIZE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 2048,
}


@dataclass(frozen=True)
class Family:
    """A class of transformers and the sizes of a tiny model of it."""

    name: str
    """Its classes are called so, with Config and ForCausalLM behind it."""
    sizes: dict[str, Any] = field(default_factory=dict)
    config: str = ""
    """The config's class, where it is called otherwise."""

    def make(self, **more: Any) -> Any:
        """A model of this family for the embedded model's tokenizer."""
        kind = getattr(transformers, self.config or f"{self.name}Config")
        vocabulary = {"vocab_size": len(tokenizer()), "bos_token_id": None}
        ends = {"eos_token_id": tokenizer().eos_token_id, "pad_token_id": None}
        torch.manual_seed(0)
        return getattr(transformers, f"{self.name}ForCausalLM")(
            kind(**(vocabulary | ends | SIZE | self.sizes | more))
        )


EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
FAMILIES = {
    "llama": Family("Llama"),
    "qwen2": Family("Qwen2"),
    "qwen3": Family("Qwen3", {"head_dim": 8}),
    "gemma2": Family("Gemma2", {"head_dim": 8, "final_logit_softcapping": None}),
    "gemma3": Family("Gemma3", {"head_dim": 8, "sliding_window": 64}, "Gemma3TextConfig"),
    "mistral": Family("Mistral", {"sliding_window": 64}),
    "phi3": Family("Phi3"),
    "gpt_neox": Family("GPTNeoX"),
    "mixtral": Family("Mixtral", {"num_local_experts": 4}),
    "qwen2_moe": Family("Qwen2Moe", EXPERTS | {"shared_expert_intermediate_size": 24}),
    "qwen3_moe": Family("Qwen3Moe", EXPERTS | {"head_dim": 8}),
}


def tokenizer() -> Any:
    """The embedded model's: 1,536 tokens, with a chat template that knows the system's role."""
    return transformers.AutoTokenizer.from_pretrained(EMBEDDED_HOME / "model")


def save(directory: Path, model: Any, words: Any = None) -> Path:
    """Model and tokenizer (default: the embedded one) as a directory."""
    model.save_pretrained(directory)
    (words or tokenizer()).save_pretrained(directory)
    return directory


def qwen(**more: Any) -> Any:
    """A tiny Qwen3."""
    return FAMILIES["qwen3"].make(**more)


# --- GGUF ---

FIELDS = {
    "context_length": "max_position_embeddings",
    "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size",
    "embedding_length": "hidden_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "vocab_size": "vocab_size",
}


def write_gguf(path: Path, model: Any, architecture: str) -> Path:
    """A model as an unquantised GGUF file, by the gguf package's own table of names."""
    import gguf

    kinds = {name: kind for kind, name in gguf.MODEL_ARCH_NAMES.items()}
    names = gguf.get_tensor_name_map(kinds[architecture], model.config.num_hidden_layers)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name("tiny")
    for name, setting in FIELDS.items():
        writer.add_uint32(f"{architecture}.{name}", getattr(model.config, setting))
    writer.add_float32(f"{architecture}.attention.layer_norm_rms_epsilon", model.config.rms_norm_eps)
    writer.add_float32(f"{architecture}.rope.freq_base", model.config.rope_parameters["rope_theta"])
    _add_tokenizer(writer, architecture)
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight" and model.config.tie_word_embeddings:
            continue
        stem, _, ending = name.rpartition(".")
        writer.add_tensor(f"{names.get_name(stem)}.{ending}", gguf_layout(model, name, weight).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def gguf_layout(model: Any, name: str, weight: torch.Tensor) -> torch.Tensor:
    """llama.cpp keeps Llama's queries and keys with the two halves of a rotation side by side."""
    config = model.config
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    found = [count for part, count in heads.items() if part in name]
    if config.model_type != "llama" or not found:
        return weight
    rows, columns = weight.shape
    return weight.view(found[0], 2, rows // found[0] // 2, columns).transpose(1, 2).reshape(rows, columns)


def _add_tokenizer(writer: Any, architecture: str) -> None:
    backend = tokenizer()
    vocabulary = sorted(backend.get_vocab().items(), key=lambda item: item[1])
    merges = json.loads(backend.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([token for token, _ in vocabulary])
    writer.add_token_merges([" ".join(pair) if isinstance(pair, list) else pair for pair in merges])
    writer.add_eos_token_id(backend.eos_token_id)
    if architecture in ("llama", "phi3"):
        for add in (writer.add_bos_token_id, writer.add_pad_token_id, writer.add_unk_token_id):
            add(backend.eos_token_id)
    writer.add_chat_template(models.CHATML)


def table() -> list[str]:
    """The families, and what share of each is trained, as the lines of spec/models.md."""
    lines = ["| family | trained by default | with `--targets=all-linear` |", "|---|--:|--:|"]
    for name, family in FAMILIES.items():
        model = family.make()
        linears = decoder_linears(model)
        usual = [(layer, linear) for layer, linear in linears if last(layer) in TARGETS]
        shares = [percent(coverage(model, found).share) for found in (usual, linears)]
        lines.append(f"| {name} | {' | '.join(shares)} |")
    return lines


if __name__ == "__main__":
    print("\n".join(table()))
