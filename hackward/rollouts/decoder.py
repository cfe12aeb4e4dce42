"""One decoding step, written out: keys and values in slots of fixed shape, and the layers that read them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import DynamicCache

from hackward.hardware import kernels

SHARED_QUERIES = 32  # most queries that a prompt is read for at once, seats times query heads of a group; twice as many outgrow the smaller GPUs in fp32


class Slots:
    """Keys and values of N prompts, and of what B slots have drawn after them.

    Every slot sits at one prompt, which it attends to. One at rest has drawn nothing: it attends to the position that it
    overwrites and to what its neighbours attend to, and costs next to nothing.
    """

    def __init__(
        self, model: nn.Module, slots: int, positions: int, prompts: int, seats: int, length: int
    ) -> None:
        config, weight = model.config, model.get_output_embeddings().weight
        new = lambda *shape: torch.zeros(shape, dtype=weight.dtype, device=weight.device)  # noqa: E731
        heads = config.num_key_value_heads, head_size(config)
        self.prompts, self.drawn = (
            [(new(*shape, *heads), new(*shape, *heads)) for _ in range(config.num_hidden_layers)]
            for shape in ((prompts, length), (slots, positions))
        )  # keys, values (N, L, H, D) and (B, T, H, D)
        number = lambda count: torch.zeros(count, dtype=torch.long, device=weight.device)  # noqa: E731
        self.length_N, self.length_B = number(prompts), number(slots)  # positions in use
        self.start_B = number(slots)  # length of every slot's prompt: the position of the first drawn token
        order = torch.arange(max(slots, prompts * seats), device=weight.device)
        self.first_B, self.alone_B1 = order[:slots] * positions, order[:slots, None]
        self.seats_NM = (
            order[: prompts * seats].clamp(max=slots).view(prompts, seats)
        )  # the slot in each seat; B for an empty one

    def fill(self, places: Tensor, prefilled: DynamicCache, owner: Tensor, length: Tensor) -> None:
        """Copy prompts `owner` of a prefill to `places` among the N. What lies beyond a prompt's length is never read."""
        for stores, layer in zip(self.prompts, prefilled.layers):
            for store, prompt in zip(stores, (layer.keys, layer.values)):
                store[:, : prompt.shape[2]].index_copy_(0, places, prompt.transpose(1, 2)[owner])
        self.length_N[places] = length


def head_size(config) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def most_seats(config) -> int:
    """How many rows one reading of a prompt serves at most."""
    return max(1, SHARED_QUERIES // (config.num_attention_heads // config.num_key_value_heads))


def position_bytes(model: nn.Module) -> int:
    """Bytes of the keys and values of one position, over all layers."""
    config = model.config
    return (
        2
        * config.num_hidden_layers
        * config.num_key_value_heads
        * head_size(config)
        * model.get_output_embeddings().weight.element_size()
    )


@dataclass(frozen=True)
class Layer:
    """Weights of one decoder layer, those that meet the same input side by side."""

    qkv: tuple[Tensor, Tensor | None]  # weight and bias
    out: tuple[Tensor, Tensor | None]
    gate_up: tuple[Tensor, Tensor | None]
    down: tuple[Tensor, Tensor | None]
    attention_norm: Tensor
    mlp_norm: Tensor
    head_norms: tuple[Tensor, Tensor] | None  # of queries and keys
    scale: float


def dense_of(*linears: nn.Module) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of Linears side by side, as they are now: an adapter's Linear says what it has merged."""
    weights, biases = zip(
        *(
            getattr(linear, "dense", lambda: (plain_linear(linear).weight, plain_linear(linear).bias))()
            for linear in linears
        )
    )
    if len(linears) == 1:
        return weights[0], biases[0]
    return torch.cat(weights), None if biases[0] is None else torch.cat(biases)


def plain_linear(linear: nn.Module) -> nn.Module:
    """PEFT wraps the Linear whose weight it merges into."""
    return getattr(linear, "base_layer", linear)


class Decoder:
    """hidden + attention(norm(hidden)), then hidden + mlp(norm(hidden)), layer by layer, for one token a slot."""

    def __init__(self, model: nn.Module) -> None:
        core = model.get_decoder()
        self.embedding, self.rotary, self.norm, self.head = (
            core.embed_tokens,
            core.rotary_emb,
            core.norm,
            model.get_output_embeddings(),
        )
        self.eps = model.config.rms_norm_eps
        self.layers = [self._layer(layer) for layer in core.layers]

    @staticmethod
    def _layer(layer: nn.Module) -> Layer:
        a, mlp = layer.self_attn, layer.mlp
        return Layer(
            dense_of(a.q_proj, a.k_proj, a.v_proj),
            dense_of(a.o_proj),
            dense_of(mlp.gate_proj, mlp.up_proj),
            dense_of(mlp.down_proj),
            layer.input_layernorm.weight,
            layer.post_attention_layernorm.weight,
            (a.q_norm.weight, a.k_norm.weight) if hasattr(a, "q_norm") else None,
            a.scaling,
        )

    def __call__(self, token_B: Tensor, slots: Slots) -> Tensor:
        """Logits (B, V) after `token`, whose keys and values are added to what the slots have drawn."""
        hidden_BI, x_BI = self.embedding(token_B), None
        cos_BD, sin_BD = (
            part[:, 0] for part in self.rotary(hidden_BI, (slots.start_B + slots.length_B)[:, None])
        )
        place_B, used_B = slots.first_B + slots.length_B, slots.length_B + 1
        for layer, prompts, drawn in zip(self.layers, slots.prompts, slots.drawn):
            shared, own = (
                kernels.Stretch(*prompts, slots.length_N, slots.seats_NM),
                kernels.Stretch(*drawn, used_B, slots.alone_B1),
            )
            qkv_BI = F.linear(kernels.add_norm(hidden_BI, x_BI, layer.attention_norm, self.eps), *layer.qkv)
            q_BQD = kernels.heads(qkv_BI, layer.head_norms, cos_BD, sin_BD, self.eps, place_B, *drawn)
            x_BI = F.linear(kernels.attend(q_BQD, shared, own, layer.scale), *layer.out)
            both_BF = F.linear(kernels.add_norm(hidden_BI, x_BI, layer.mlp_norm, self.eps), *layer.gate_up)
            x_BI = F.linear(kernels.silu_mul(both_BF), *layer.down)
        return self.head(kernels.add_norm(hidden_BI, x_BI, self.norm.weight, self.eps))
