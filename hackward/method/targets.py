"""Which Linear layers are trained, and what share of the model's layers they are.

Every matrix of the decoder counts but the embeddings (the head lies outside): those of Linears, fused ones
too, and those of experts that a model keeps stacked in one parameter. Only Linears can be trained.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from hackward.base.faults import InputError
from hackward.base.flags import ALL_LINEAR, TARGETS
from hackward.base.types import CausalLM

LEAST = 0.9  # share of the layers' parameters below which a run warns
NAMED = 8  # layers that a line names


def target_linears(model: CausalLM, targets: Sequence[str] | str = TARGETS) -> list[tuple[str, nn.Linear]]:
    """The target Linears of the model's decoder with their names; ALL_LINEAR takes each of them.

    InputError when it has none, or when one of `targets` that are not the default fits none.
    """
    linears = decoder_linears(model)
    if targets == ALL_LINEAR:
        return linears
    found = [(name, linear) for name, linear in linears if last(name) in targets]
    has = ", ".join(sorted({last(name) for name, _ in linears})) or "none"
    if not found:
        raise InputError(
            f"{type(model).__name__}: no Linear named any of {', '.join(targets)}; its Linears are {has}"
            f" (--targets={ALL_LINEAR} takes them all)"
        )
    if tuple(targets) != TARGETS:
        missing = set(targets) - {last(name) for name, _ in found}
        if missing:
            raise InputError(f"--targets: no Linear named {min(missing)}; the model's Linears are {has}")
    return found


def decoder_linears(model: CausalLM) -> list[tuple[str, nn.Linear]]:
    """Every Linear of the decoder with its name in the model: no head, no tower for pictures."""
    inside = {id(module) for module in model.get_decoder().modules()}
    head = model.get_output_embeddings()
    found = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and id(module) in inside and module is not head:
            found.append((name, module))
    return found


def last(name: str) -> str:
    """The last part of a module's name."""
    return name.rpartition(".")[2]


def words_of(names: Sequence[str], model: CausalLM) -> str:
    """What is trained, for `coordinates`: nothing where it is what the default takes, else " of NAME, ...".

    Before the adapter is attached: it takes the Linears' places.
    """
    usual = {name for name, _ in decoder_linears(model) if last(name) in TARGETS}
    return "" if usual == set(names) else f" of {', '.join(sorted({last(name) for name in names}))}"


@dataclass(frozen=True)
class Coverage:
    """What of a model's layers is trained."""

    layers: int
    """Linears that are."""
    of: int
    """All of them, stacked experts counted as one layer each."""
    share: float
    """Of the parameters of all of them."""
    most: float
    """The share with ALL_LINEAR."""
    left: tuple[str, ...]
    """What the others are called, without the layers' numbers."""

    def words(self) -> str:
        """One line for people."""
        line = f"trained: {self.layers} of {self.of} Linear layers, {percent(self.share)} of their parameters"
        if self.share >= LEAST:
            return line
        names = ", ".join(self.left[:NAMED]) + (", ..." if len(self.left) > NAMED else "")
        way = f"--targets={ALL_LINEAR} trains {percent(self.most)}"
        if self.most <= self.share:
            way = "stacked in one parameter or no Linear, they cannot be"
        return f"WARNING: {line}; not trained: {names} ({way})"


def coverage(model: CausalLM, found: Sequence[tuple[str, nn.Linear]]) -> Coverage:
    """What of the decoder's layers the Linears `found` are; before the adapter is attached."""
    matrices = _matrices(model)
    trained = {f"{name}.weight" for name, _ in found}
    whole = sum(weight.numel() for weight in matrices.values())
    part = sum(weight.numel() for name, weight in matrices.items() if name in trained)
    most = sum(linear.weight.numel() for _, linear in decoder_linears(model))
    left = {_layer(name) for name in matrices if name not in trained}
    return Coverage(len(trained), len(matrices), part / whole, most / whole, tuple(sorted(left)))


def percent(share: float) -> str:
    """One decimal, rounded down: what is not all never reads as 100 %."""
    return f"{math.floor(share * 1000) / 10:.1f} %"


def _matrices(model: CausalLM) -> dict[str, Tensor]:
    """Name -> weight of every layer of the decoder that multiplies: no embedding, no norm, no bias."""
    inside = {id(parameter) for parameter in model.get_decoder().parameters()}
    inside -= {id(model.get_output_embeddings().weight)}
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            inside -= {id(parameter) for parameter in module.parameters()}
    weights = {}
    for name, parameter in model.named_parameters():
        if id(parameter) in inside and parameter.ndim >= 2 and last(name) != "bias":
            weights[name] = parameter
    return weights


def _layer(name: str) -> str:
    """E.g. "mlp.experts.down_proj" of "model.layers.3.mlp.experts.down_proj"."""
    return re.split(r"\.\d+\.", name)[-1].removesuffix(".weight")
