"""LoRA with a frozen, orthonormal A: the weight-basis arm, behind the same small interface as
antipasto.SVDAdapter.

    W  frozen,   A (r, I) frozen with orthonormal rows,   B (O, r) trainable, zero at the start
    W' = W + B A                         what the model runs (PEFT's LoRA with alpha = r: its scaling is 1)
    dL/dB = sum_t (dL/dy_t) (A x_t)^T    of one sample: the sum over its own tokens

Why A is frozen. In an ordinary LoRA B = 0 at extraction, so A has no gradient there and v_hack no part in A;
what is projected out of B can then come back through A. With A frozen, Delta W = B A is linear in what is
trained, and since A has orthonormal rows, inner products of B are inner products of Delta W: a direction
taken out of B is taken out of Delta W exactly, and |B| = |Delta W| in Frobenius norm, as |delta_S| is in the
other basis. (Freezing A costs LoRA little: LoRA-FA, arXiv 2308.03303; Zhu et al., arXiv 2402.16842.) A is
drawn from the module's name, so it is the same in every run and seed.

The adapter is PEFT's own and is saved as PEFT saves it: it loads wherever PEFT does. Shapes: B samples, T
tokens, I inputs, O outputs, r rank, R = O r coordinates of a module.
"""

from __future__ import annotations

import contextlib
import functools
import math
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import inject_adapter_in_model
from torch import Tensor, nn

from antipasto import dithered
from hackward.base.faults import InputError
from hackward.base.tensors import read_safetensors, write_safetensors
from hackward.base.types import CausalLM
from hackward.hardware.hashes import content_hash, model_hash
from hackward.method.low_rank import PREFIX, LowRank, lora_config
from hackward.method.per_rollout import Rows
from hackward.method.targets import TARGETS, coverage, target_linears, words_of

NAME = "default"  # PEFT's name of an adapter that has none


def orthonormal_rows(rank: int, width: int, seed: int) -> Tensor:
    """(rank, width) fp32 with orthonormal rows, drawn on the CPU: the same wherever it is drawn."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(width, rank, dtype=torch.float64, generator=generator)
    return torch.linalg.qr(drawn).Q.T.float().contiguous()


class LoRAAdapter:
    """All target Linears of a model with a trainable B (O, r) each; `params` maps a module's name to it.

    An adapter by the Protocol of hackward/method/adapters.py. Raises InputError when the model has none of
    the target modules, or one is narrower than the rank.
    """

    kind, file = "lora", "adapter"
    own_rank: int

    def __init__(
        self,
        model: CausalLM,
        *,
        rank: int = 8,
        targets: Sequence[str] | str = TARGETS,
        track: Callable[[list[Any]], Iterable[Any]] = iter,
    ) -> None:
        found = target_linears(model, targets)
        for name, linear in found:
            if linear.in_features < rank:
                raise InputError(f"--rank {rank}: {name} has only {linear.in_features} inputs")
        names = [name for name, _ in found]
        self.model, self.own_rank, self.rows = model, rank, Rows(model)
        self.coordinates = f"lora r{rank}" + words_of(names, model)
        self.coverage = coverage(model, found)
        known = {f"{name}.weight": content_hash(linear.weight) for name, linear in found}
        self.model_hash = model_hash(model, known)
        self.step_scale = _step_scale([linear for _, linear in found], rank)
        self.config = lora_config(rank, names, model)
        model.requires_grad_(False)
        inject_adapter_in_model(self.config, model)
        self.layers: dict[str, Any] = {name: model.get_submodule(name) for name, _ in found}
        self.params: dict[str, nn.Parameter] = {}
        for name, layer in track(list(self.layers.items())):
            A, B = layer.lora_A[NAME].weight, layer.lora_B[NAME].weight
            device = layer.get_base_layer().weight.device
            A.data = orthonormal_rows(rank, A.shape[1], zlib.crc32(name.encode())).to(device)
            B.data = torch.zeros(B.shape, dtype=torch.float32, device=device)
            layer.lora_B[NAME].register_forward_hook(self._collect(name))
            self.params[name] = B
        self.samples: dict[str, list[Tensor]] | None = None
        self.enabled = True
        self._freeze()

    def _freeze(self) -> None:
        """B trains, A does not; PEFT sets both whenever it switches an adapter on."""
        for layer in self.layers.values():
            layer.lora_A[NAME].weight.requires_grad_(False)
            layer.lora_B[NAME].weight.requires_grad_(True)

    def _collect(self, name: str) -> Callable[..., None]:
        """Forward hook of a module's B.

        Its input a = A x (B, T, r), and in the backward dL/dy (B, T, O), give each rollout's gradient.
        """

        def hook(module: nn.Module, args: tuple[Tensor], output: Tensor) -> None:
            samples = self.samples
            if samples is None or not output.requires_grad:
                return
            a_BTr = self.rows.split(args[0].detach()).float()

            def collect(dy: Tensor) -> None:
                dy_BTO = dy.view(*a_BTr.shape[:2], -1).float()
                samples[name].append(torch.einsum("bto,btr->bor", dy_BTO, a_BTr).flatten(1))

            output.register_hook(collect)

        return hook

    def delta_w_norm(self) -> float:
        """Frobenius norm of the whole Delta W: that of B, since the rows of A are orthonormal."""
        squares = [B.detach().square().sum() for B in self.params.values()]
        return float(functools.reduce(torch.add, squares).sqrt())

    def change(self, name: str) -> Tensor:
        """Delta W (O, I) of a module, in fp32."""
        layer = self.layers[name]
        return layer.lora_B[NAME].weight.detach() @ layer.lora_A[NAME].weight

    @torch.no_grad()
    def weight(self, name: str, dtype: torch.dtype) -> Tensor:
        """W' (O, I) of a module in this dtype; in the model's own it is what is sampled with."""
        W = self.layers[name].get_base_layer().weight.data
        return dithered(W.to(dtype), self.change(name), zlib.crc32(name.encode()))

    def low_rank(self, name: str, rank: int) -> LowRank:
        """A and B of a module as they are: nothing is left out."""
        if rank != self.own_rank:
            raise ValueError(f"a LoRA of rank {self.own_rank} is not one of rank {rank}")
        layer = self.layers[name]
        A, B = layer.lora_A[NAME].weight.detach(), layer.lora_B[NAME].weight.detach()
        return LowRank(A, B, left_out=0.0, whole=float(B.double().square().sum()))

    def unwrap(self) -> dict[str, nn.Linear]:
        """Put the base model's Linears back in place, and return them by name.

        The model is a plain one then, and no longer run through this adapter.
        """
        linears = {name: layer.get_base_layer() for name, layer in self.layers.items()}
        for name, linear in linears.items():
            self.model.set_submodule(name, linear)
        return linears

    @contextlib.contextmanager
    def disabled(self) -> Iterator[CausalLM]:
        """The base model, exactly: the reference policy."""
        was, self.enabled = self.enabled, False
        for layer in self.layers.values():
            layer.enable_adapters(False)
        try:
            yield self.model
        finally:
            self.enabled = was
            for layer in self.layers.values():
                layer.enable_adapters(was)
            self._freeze()

    @contextlib.contextmanager
    def merged(self) -> Iterator[CausalLM]:
        """The current policy for sampling: plain Linears on W', no autograd, no adapter work per token.

        W is put back as the tensor that it was, not by subtraction, so that no rounding is left behind. In
        bf16 W' is rounded without bias (antipasto.dithered); the training forward adds the adapter's output
        to W x instead.
        """
        base = {name: layer.get_base_layer().weight for name, layer in self.layers.items()}
        if not self.enabled:
            base = {}
        kept = {name: weight.data for name, weight in base.items()}
        training = self.model.training
        self.model.eval()
        try:
            with torch.no_grad(), self.disabled():
                for name, weight in base.items():
                    weight.data = self.weight(name, weight.dtype)
                yield self.model
        finally:
            for name, weight in base.items():
                weight.data = kept[name]
            self.model.train(training)

    @contextlib.contextmanager
    def sample_grads(self) -> Iterator[dict[str, list[Tensor]]]:
        """Collect every backward's per-rollout gradients: module name -> list of (B, R), one entry per
        micro-batch."""
        self.samples = {name: [] for name in self.layers}
        try:
            yield self.samples
        finally:
            self.samples = None

    def save(self, path: str | Path) -> None:
        """A directory in PEFT's layout: adapter_config.json and adapter_model.safetensors."""
        tensors = {}
        for name, layer in self.layers.items():
            for side, linears in (("A", layer.lora_A), ("B", layer.lora_B)):
                weight = linears[NAME].weight.detach()
                tensors[f"{PREFIX}{name}.lora_{side}.weight"] = weight.cpu().contiguous()
        facts = {"kind": self.kind, "model_hash": self.model_hash, "coordinates": self.coordinates}
        write_safetensors(Path(path) / "adapter_model.safetensors", tensors, facts, format="pt")
        self.config.save_pretrained(str(path))

    def load(self, path: str | Path) -> None:
        """Restore what `save` wrote. Raises InputError for a broken file, another base model or rank; changes
        nothing then."""
        file = Path(path) / "adapter_model.safetensors"
        tensors, metadata = read_safetensors(file)
        if metadata.get("model_hash") != self.model_hash:
            made = metadata.get("model_hash")
            raise InputError(f"{file}: made for another model (hash {made}, this model {self.model_hash})")
        stored = {}
        for name, B in self.params.items():
            found = tensors.get(f"{PREFIX}{name}.lora_B.weight")
            if found is None or found.shape != B.shape or metadata.get("coordinates") != self.coordinates:
                raise InputError(f"{file}: modules, rank or shapes differ from this adapter's")
            stored[name] = found
        with torch.no_grad():
            for name, found in stored.items():
                self.params[name].copy_(found)


def _step_scale(linears: Sequence[nn.Linear], rank: int) -> float:
    """Factor on a learning rate given for delta_S, so that one AdamW step moves Delta W as far.

    A step moves each coordinate by about lr, so Delta W by lr sqrt(coordinates); delta_S has min(O, I) per
    module.
    """
    ours = sum(rank * linear.out_features for linear in linears)
    theirs = sum(min(linear.weight.shape) for linear in linears)
    return math.sqrt(theirs / ours)
