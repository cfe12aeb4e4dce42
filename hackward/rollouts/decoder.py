"""One decoding step, written out: keys and values in slots of fixed shape, and the layers that read them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import DynamicCache

from hackward.base.types import CausalLM
from hackward.hardware import kernels

# Most queries that a prompt is read for at once: seats times query heads of a group. Twice as many outgrow
# the smaller GPUs in fp32.
SHARED_QUERIES = 32


class Slots:
    """Keys and values of N prompts, and of what B slots have drawn after them.

    Every slot sits at one prompt, which it attends to. One at rest has drawn nothing: it attends to the
    position that it overwrites and to what its neighbours attend to, and costs next to nothing.
    """

    def __init__(
        self, model: CausalLM, slots: int, positions: int, prompts: int, seats: int, length: int
    ) -> None:
        device = model.get_output_embeddings().weight.device
        self.prompts = _stores(model, prompts, length)
        """Keys and values of every layer: (N, L, H, D) each."""
        self.drawn = _stores(model, slots, positions)
        """The same of what was drawn: (B, T, H, D) each."""
        self.length_N = torch.zeros(prompts, dtype=torch.long, device=device)
        self.length_B = torch.zeros(slots, dtype=torch.long, device=device)
        self.start_B = torch.zeros(slots, dtype=torch.long, device=device)
        """Length of every slot's prompt: the position of the first drawn token."""
        order = torch.arange(max(slots, prompts * seats), device=device)
        self.first_B, self.alone_B1 = order[:slots] * positions, order[:slots, None]
        self.seats_NM = order[: prompts * seats].clamp(max=slots).view(prompts, seats)
        """The slot in each seat; B for an empty one."""

    def fill(self, places: Tensor, prefilled: DynamicCache, owner: Tensor, length: Tensor) -> None:
        """Copy prompts `owner` of a prefill to `places` among the N. Beyond a prompt's length nothing is ever
        read."""
        for stores, layer in zip(self.prompts, prefilled.layers):
            parts: Any = layer
            for store, prompt in zip(stores, (parts.keys, parts.values)):
                store[:, : prompt.shape[2]].index_copy_(0, places, prompt.transpose(1, 2)[owner])
        self.length_N[places] = length


def _stores(model: CausalLM, count: int, positions: int) -> list[tuple[Tensor, Tensor]]:
    """Empty keys and values (count, positions, H, D) of every layer."""
    config, weight = model.config, model.get_output_embeddings().weight
    shape = (count, positions, config.num_key_value_heads, head_size(config))
    stores = []
    for _ in range(config.num_hidden_layers):
        keys = torch.zeros(shape, dtype=weight.dtype, device=weight.device)
        stores.append((keys, torch.zeros_like(keys)))
    return stores


def head_size(config: Any) -> int:
    """Width of an attention head."""
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def most_seats(config: Any) -> int:
    """How many rows one reading of a prompt serves at most."""
    return max(1, SHARED_QUERIES // (config.num_attention_heads // config.num_key_value_heads))


def position_bytes(model: CausalLM) -> int:
    """Bytes of the keys and values of one position, over all layers."""
    config = model.config
    numbers = 2 * config.num_hidden_layers * config.num_key_value_heads * head_size(config)
    return numbers * model.get_output_embeddings().weight.element_size()


@dataclass(frozen=True)
class Layer:
    """Weights of one decoder layer, those that meet the same input side by side."""

    qkv: tuple[Tensor, Tensor | None]
    """Weight and bias."""
    out: tuple[Tensor, Tensor | None]
    gate_up: tuple[Tensor, Tensor | None]
    down: tuple[Tensor, Tensor | None]
    attention_norm: Tensor
    mlp_norm: Tensor
    head_norms: tuple[Tensor, Tensor] | None
    """Of queries and keys."""
    scale: float


def dense_of(*linears: Any) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of Linears side by side, as they are now."""
    parts = [_dense(linear) for linear in linears]
    if len(parts) == 1:
        return parts[0]
    biases = [bias for _, bias in parts if bias is not None]
    return torch.cat([weight for weight, _ in parts]), torch.cat(biases) if biases else None


def _dense(linear: Any) -> tuple[Tensor, Tensor | None]:
    """An adapter's Linear says what it has merged; PEFT wraps the Linear whose weight it merges into."""
    if hasattr(linear, "dense"):
        return linear.dense()
    plain = getattr(linear, "base_layer", linear)
    return plain.weight, plain.bias


class Decoder:
    """hidden + attention(norm(hidden)), then hidden + mlp(norm(hidden)), layer by layer, for one token per
    slot."""

    def __init__(self, model: CausalLM) -> None:
        core = model.get_decoder()
        self.embedding, self.rotary = core.embed_tokens, core.rotary_emb
        self.norm, self.head = core.norm, model.get_output_embeddings()
        self.eps = model.config.rms_norm_eps
        self.layers = [self._layer(layer) for layer in core.layers]

    @staticmethod
    def _layer(layer: Any) -> Layer:
        attention, mlp = layer.self_attn, layer.mlp
        normed = hasattr(attention, "q_norm")
        return Layer(
            qkv=dense_of(attention.q_proj, attention.k_proj, attention.v_proj),
            out=dense_of(attention.o_proj),
            gate_up=dense_of(mlp.gate_proj, mlp.up_proj),
            down=dense_of(mlp.down_proj),
            attention_norm=layer.input_layernorm.weight,
            mlp_norm=layer.post_attention_layernorm.weight,
            head_norms=(attention.q_norm.weight, attention.k_norm.weight) if normed else None,
            scale=attention.scaling,
        )

    def __call__(self, token_B: Tensor, slots: Slots) -> Tensor:
        """Logits (B, V) after `token`, whose keys and values are added to what the slots have drawn."""
        hidden_BI, x_BI = self.embedding(token_B), None
        position_B1 = (slots.start_B + slots.length_B)[:, None]
        cos_BD, sin_BD = (part[:, 0] for part in self.rotary(hidden_BI, position_B1))
        place_B, used_B = slots.first_B + slots.length_B, slots.length_B + 1
        for layer, prompts, drawn in zip(self.layers, slots.prompts, slots.drawn):
            shared = kernels.Stretch(*prompts, slots.length_N, slots.seats_NM)
            own = kernels.Stretch(*drawn, used_B, slots.alone_B1)
            qkv_BI = F.linear(kernels.add_norm(hidden_BI, x_BI, layer.attention_norm, self.eps), *layer.qkv)
            q_BQD = kernels.heads(qkv_BI, layer.head_norms, cos_BD, sin_BD, self.eps, place_B, *drawn)
            x_BI = F.linear(kernels.attend(q_BQD, shared, own, layer.scale), *layer.out)
            both_BF = F.linear(kernels.add_norm(hidden_BI, x_BI, layer.mlp_norm, self.eps), *layer.gate_up)
            x_BI = F.linear(kernels.silu_mul(both_BF), *layer.down)
        return self.head(kernels.add_norm(hidden_BI, x_BI, self.norm.weight, self.eps))
