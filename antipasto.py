"""delta_S: one trainable number per singular direction of every target Linear.

    W  = U diag(S) Vh                        frozen
    W' = W + U diag(delta_S) Vh              what the model runs
    dL/d delta_S_i = u_i^T (dL/dW') v_i = sum_t (Vh x_t)_i (U^T dL/dy_t)_i

The last line is why this file exists. Both factors are row-wise, so summing over the tokens of one sample
gives that sample's exact gradient, and one batched backward gives the gradients of all samples. Nothing of
rank r is kept from the forward: only x is saved, and Vh x is formed in the backward. U^T dL/dy_t serves
twice: the gradient of x is ((S + delta_S) Vh)^T U^T dL/dy.

The forward runs on the merged W', never on a low-rank side path. At delta_S = 0 that is W itself, so the
logits equal the base model's bit for bit and the reference policy is free. In bf16 a small update would
vanish when merged (a change below half a unit in the last place leaves W as it was); `dithered` rounds
stochastically with a noise that is fixed per module, so that the merged weight is right on average, the same
in training and in sampling, and exactly W at zero.

What it costs, in multiplications per Linear: O I per token in the forward, R (O + 2 I) in the backward, and
O I R once per update, when W' is merged: as much as the forward of R tokens.

Basis: AntiPaSTO (singular-value coordinates). Shapes: B samples, T tokens, I inputs, O outputs, R = min(I,
O).
"""

from __future__ import annotations

import contextlib
import functools
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hackward.base.faults import InputError
from hackward.base.tensors import read_safetensors, write_safetensors
from hackward.base.types import CausalLM
from hackward.hardware import kernels
from hackward.hardware.hashes import content_hash, model_hash
from hackward.hardware.neighbours import patiently
from hackward.method.low_rank import LowRank, nearest_lora
from hackward.method.per_rollout import Rows
from hackward.method.svd_cache import SVDCache
from hackward.method.targets import TARGETS, coverage, target_linears, words_of


def dithered(W_OI: Tensor, change_OI: Tensor, seed: int) -> Tensor:
    """W + change in W's dtype, rounded without bias.

    fp32: the plain sum. bf16: uniform noise of one unit in the last place is added before the low 16 bits are
    cut, so the expectation over the noise is exact; the noise depends on `seed` alone, and W itself (a bf16
    number: its low bits are 0) comes back unchanged where the change is 0.
    """
    total = W_OI.float() + change_OI
    if W_OI.dtype == torch.float32:
        return total
    generator = torch.Generator(device=W_OI.device).manual_seed(seed)
    noise = torch.randint(
        0, 1 << 16, total.shape, dtype=torch.int32, device=total.device, generator=generator
    )
    cut = (total.view(torch.int32) + noise) & -(1 << 16)
    return cut.view(torch.float32).to(W_OI.dtype)


class _Apply(torch.autograd.Function):
    """y = x W'^T + b, and in the backward the per-sample gradient of delta_S beside that of x."""

    @staticmethod
    def forward(ctx, x, delta_S, layer):
        ctx.save_for_backward(x)
        ctx.layer, ctx.merged, ctx.scaled = layer, layer.merged, layer.scaled
        return F.linear(x, layer.merged, layer.bias)

    @staticmethod
    def backward(ctx, dy):
        (x,) = ctx.saved_tensors
        layer = ctx.layer
        q_BTR = dy @ layer.U
        dx = None
        if ctx.needs_input_grad[0]:
            # W'^T dy = Vh^T ((S + delta_S) * U^T dy). Where W is tall the right-hand side is the cheaper one,
            # since U^T dy is needed anyway; where it is wide both cost the same, and W' itself is the more
            # accurate.
            dx = dy @ ctx.merged if ctx.scaled is None else q_BTR @ ctx.scaled
        g_BR = kernels.token_sum(x @ layer.Vh.T, q_BTR)  # sum_t (Vh x_t) * (U^T dy_t)
        if layer.samples is not None:
            layer.samples.append(g_BR)
        return dx, g_BR.sum(0), None


class SVDLinear(nn.Module):
    """A frozen Linear with trainable singular values: delta_S (R,) in fp32, everything else in the weight's
    dtype."""

    weight: Tensor
    U: Tensor
    S: Tensor
    Vh: Tensor

    def __init__(self, linear: nn.Linear, U_OR: Tensor, S_R: Tensor, Vh_RI: Tensor, seed: int) -> None:
        super().__init__()
        self.weight, self.bias, self.seed = linear.weight, linear.bias, seed
        self.weight.requires_grad_(False)
        self.register_buffer("U", U_OR, persistent=False)
        self.register_buffer("S", S_R, persistent=False)
        self.register_buffer("Vh", Vh_RI, persistent=False)
        self.delta_S = nn.Parameter(torch.zeros(U_OR.shape[1], dtype=torch.float32, device=U_OR.device))
        self.merged: Tensor = self.weight.detach()
        self.scaled, self._merged_at = self._scale(), self.delta_S._version
        self.enabled = True
        self.samples: list[Tensor] | None = None
        self.rows: Rows | None = None
        """How many rollouts of how many tokens come in; None: the input itself says."""

    def extra_repr(self) -> str:
        (outputs, rank), inputs = self.U.shape, self.Vh.shape[1]
        return f"out={outputs}, in={inputs}, rank={rank}, dtype={self.weight.dtype}"

    @torch.no_grad()
    def merge(self) -> None:
        """Bring W' up to date with delta_S. Reads the tensor's version counter, so it costs nothing when it
        is."""
        if self._merged_at == self.delta_S._version:
            return
        self.merged = dithered(self.weight, self.change(), self.seed)
        self.scaled, self._merged_at = self._scale(), self.delta_S._version

    @torch.no_grad()
    def change(self) -> Tensor:
        """Delta W (O, I) = U diag(delta_S) Vh, in the weight's dtype."""
        return (self.U * self.delta_S).to(self.U.dtype) @ self.Vh

    def _scale(self) -> Tensor | None:
        """diag(S + delta_S) Vh (R, I) where W is tall: what the gradient of x goes through (see _Apply)."""
        outputs, rank = self.U.shape
        if outputs == rank:
            return None
        return ((self.S + self.delta_S.detach())[:, None] * self.Vh).to(self.Vh.dtype)

    @torch.no_grad()
    def dense(self) -> tuple[Tensor, Tensor | None]:
        """Weight (O, I) and bias that the forward uses now."""
        if not self.enabled:
            return self.weight, self.bias
        self.merge()
        return self.merged, self.bias

    def forward(self, x: Tensor) -> Tensor:
        if not self.enabled:
            return F.linear(x, self.weight, self.bias)
        self.merge()
        if not torch.is_grad_enabled():
            return F.linear(x, self.merged, self.bias)
        x_BTI = self.rows.split(x) if self.rows else x
        return _Apply.apply(x_BTI, self.delta_S, self).view(*x.shape[:-1], -1)


class SVDAdapter:
    """All target Linears of a model in singular-value coordinates.

    `params` maps a module's name to its delta_S; nothing else in the model is trainable. An adapter by the
    Protocol of hackward/method/adapters.py.

    Raises InputError when the model has none of the target modules.
    """

    kind, file = "svd", "delta_S.safetensors"
    step_scale = 1.0  # learning rates are given for delta_S
    own_rank = None  # Delta W has full rank

    def __init__(
        self,
        model: CausalLM,
        *,
        cache: str | Path | None = None,
        targets: Sequence[str] | str = TARGETS,
        track: Callable[[list[Any]], Iterable[Any]] = iter,
    ) -> None:
        """`cache` is the directory of the SVD cache (None: no cache); `track` may wrap the module list in a
        bar."""
        found = target_linears(model, targets)
        self.coordinates = "svd" + words_of([name for name, _ in found], model)
        self.coverage = coverage(model, found)
        model.requires_grad_(False)
        self.model, self.cache = model, SVDCache(cache)
        hashes = {f"{name}.weight": content_hash(module.weight) for name, module in found}
        self.model_hash = model_hash(model, hashes)
        self.layers: dict[str, SVDLinear] = {}
        rows = Rows(model)
        bases = self.cache.bases(
            [(linear.weight.detach(), hashes[f"{name}.weight"]) for name, linear in found]
        )
        for (name, linear), (U, S, Vh) in zip(track(found), bases, strict=True):
            layer = SVDLinear(linear, U, S, Vh, seed=zlib.crc32(name.encode()))
            layer.rows = rows
            model.set_submodule(name, layer)
            self.layers[name] = layer
        self.params = {name: layer.delta_S for name, layer in self.layers.items()}

    def delta_w_norm(self) -> float:
        """Frobenius norm of the whole Delta W: that of delta_S, since U and Vh are orthonormal."""
        squares = [delta_S.detach().square().sum() for delta_S in self.params.values()]
        return float(functools.reduce(torch.add, squares).sqrt())

    def weight(self, name: str, dtype: torch.dtype) -> Tensor:
        """W' (O, I) of a module in this dtype; in the model's own it is what the forward runs on."""
        layer = self.layers[name]
        return dithered(layer.weight.to(dtype), layer.change(), layer.seed)

    def low_rank(self, name: str, rank: int) -> LowRank:
        """The nearest LoRA to a module's Delta W: the `rank` largest |delta_S| (nearest_lora)."""
        layer = self.layers[name]
        return nearest_lora(layer.U, layer.delta_S, layer.Vh, rank)

    def unwrap(self) -> dict[str, nn.Linear]:
        """Put plain Linears with the base model's weights back in place, and return them by name.

        The model is a plain one then, and no longer run through this adapter.
        """
        linears = {}
        for name, layer in self.layers.items():
            outputs, inputs = layer.weight.shape
            linear = nn.Linear(inputs, outputs, bias=layer.bias is not None, device="meta")
            linear.weight, linear.bias = nn.Parameter(layer.weight, requires_grad=False), layer.bias
            self.model.set_submodule(name, linear)
            linears[name] = linear
        return linears

    @contextlib.contextmanager
    def disabled(self) -> Iterator[CausalLM]:
        """The base model, exactly: the reference policy."""
        previous = [layer.enabled for layer in self.layers.values()]
        for layer in self.layers.values():
            layer.enabled = False
        try:
            yield self.model
        finally:
            for layer, enabled in zip(self.layers.values(), previous):
                layer.enabled = enabled

    @contextlib.contextmanager
    def merged(self) -> Iterator[CausalLM]:
        """The current policy for sampling: plain Linears on W', no autograd, no adapter work per token."""
        training = self.model.training
        self.model.eval()
        try:
            with torch.no_grad():
                for layer in self.layers.values():
                    patiently(layer.merge, self.model.device, "sampling")
                yield self.model
        finally:
            self.model.train(training)

    @contextlib.contextmanager
    def sample_grads(self) -> Iterator[dict[str, list[Tensor]]]:
        """Collect every backward's per-rollout gradients: module name -> list of (B, R), one entry per
        micro-batch."""
        collected: dict[str, list[Tensor]] = {name: [] for name in self.layers}
        for name, layer in self.layers.items():
            layer.samples = collected[name]
        try:
            yield collected
        finally:
            for layer in self.layers.values():
                layer.samples = None

    def save(self, path: str | Path) -> None:
        """delta_S of every module and the base model's hash, as safetensors."""
        tensors = {name: value.detach().cpu() for name, value in self.params.items()}
        facts = {"kind": self.kind, "model_hash": self.model_hash}
        write_safetensors(path, tensors, facts)

    def load(self, path: str | Path) -> None:
        """Restore what `save` wrote. Raises InputError for a broken file or another base model; changes
        nothing then."""
        tensors, metadata = read_safetensors(path)
        if metadata.get("model_hash") != self.model_hash:
            raise InputError(
                f"{path}: made for another model (hash {metadata.get('model_hash')}, "
                f"this model {self.model_hash})"
            )
        if {n: t.shape for n, t in tensors.items()} != {n: p.shape for n, p in self.params.items()}:
            raise InputError(f"{path}: modules or shapes differ from this adapter's")
        with torch.no_grad():
            for name, value in self.params.items():
                value.copy_(tensors[name])
