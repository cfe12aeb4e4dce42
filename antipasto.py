"""delta_S: one trainable number per singular direction of every target Linear.

    W  = U diag(S) Vh                        frozen
    W' = W + U diag(delta_S) Vh              what the model runs
    dL/d delta_S_i = u_i^T (dL/dW') v_i = sum_t (Vh x_t)_i (U^T dL/dy_t)_i

The last line is why this file exists. Both factors are row-wise, so summing over the tokens of one sample gives that
sample's exact gradient, and one batched backward gives the gradients of all samples. Nothing of rank r is kept from
the forward: only x is saved, and Vh x is formed in the backward. U^T dL/dy_t serves twice: the gradient of x is
((S + delta_S) Vh)^T U^T dL/dy.

The forward runs on the merged W', never on a low-rank side path. At delta_S = 0 that is W itself, so the logits equal
the base model's bit for bit and the reference policy is free. In bf16 a small update would vanish when merged (a change
below half a unit in the last place leaves W as it was); `dithered` rounds stochastically with a noise that is fixed per
module, so that the merged weight is right on average, the same in training and in sampling, and exactly W at zero.

Basis: AntiPaSTO (singular-value coordinates). Shapes: B samples, T tokens, I inputs, O outputs, R = min(I, O).
"""

from __future__ import annotations

import contextlib
import json
import threading
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from hackward.base.faults import InputError
from hackward.base.files import atomic
from hackward.base.tensors import read_safetensors
from hackward.base.types import CausalLM
from hackward.hardware import kernels
from hackward.hardware.hashes import content_hash, model_hash
from hackward.method.svd import thin_svd

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
AT_ONCE = 6  # bases under way at once on a GPU; each holds some 0.5 GB of fp64 at 4 B


class SVDCache:
    """Bases on disk, one safetensors file per weight, keyed by the content of W and never by a path or a model name."""

    def __init__(self, directory: str | Path | None) -> None:
        self.directory = None if directory is None else Path(directory)
        self.hits, self._lock = 0, threading.Lock()
        self._writers, self._writing = ThreadPoolExecutor(2), []

    def bases(
        self, weights: Sequence[tuple[Tensor, str]], *, at_once: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """`basis` of every (W, hash), in order.

        On a GPU several are under way at once, each on a stream of its own (one eigendecomposition leaves most of the GPU
        idle), and files are written behind the caller's back; the process ends when all is written, `flush` waits for it.
        """
        at_once = at_once or (AT_ONCE if weights and weights[0][0].is_cuda else 1)
        if at_once == 1:
            yield from (self.basis(*weight) for weight in weights)
            return
        if weights[0][0].is_cuda:
            torch.linalg.eigh(
                torch.eye(2, dtype=torch.float64, device=weights[0][0].device)
            )  # PyTorch loads its solvers at first use; only one thread may
            torch.cuda.synchronize(weights[0][0].device)  # the weights are there

        def one(weight: tuple[Tensor, str]) -> tuple[Tensor, Tensor, Tensor]:
            with _own_stream(weight[0].device):
                return self.basis(*weight, write=self._write_later)

        with ThreadPoolExecutor(at_once) as pool:
            yield from pool.map(one, weights)

    def basis(
        self,
        W_OI: Tensor,
        weight_hash: str,
        *,
        write: Callable[[Path, dict[str, Tensor]], None] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """U (O, R), S (R,) and Vh (R, I) on W's device; S in fp32, the others in W's dtype. `write` takes a new one (default: it is written at once)."""
        path = self.directory and self.directory / f"{weight_hash}.safetensors"
        if path and path.exists():
            try:
                with safe_open(path, framework="pt", device=str(W_OI.device)) as stored:
                    found = stored.get_tensor("U"), stored.get_tensor("S"), stored.get_tensor("Vh")
                with self._lock:
                    self.hits += 1
                return found
            except (SafetensorError, OSError) as fault:
                warnings.warn(f"{path}: unreadable ({fault}); computed anew", stacklevel=2)
        U, S, Vh = thin_svd(W_OI)
        U, S, Vh = U.to(W_OI.dtype).contiguous(), S.float(), Vh.to(W_OI.dtype).contiguous()
        if path:
            (write or _write)(path, {"U": U, "S": S, "Vh": Vh})
        return U, S, Vh

    def _write_later(self, path: Path, tensors: dict[str, Tensor]) -> None:
        if tensors["S"].is_cuda:
            torch.cuda.current_stream(tensors["S"].device).synchronize()  # the writer has a stream of its own
        self._writing.append(self._writers.submit(_write, path, tensors))

    def flush(self) -> None:
        """Wait until all that was computed is written."""
        while self._writing:
            self._writing.pop().result()


def _write(path: Path, tensors: dict[str, Tensor]) -> None:
    """A full disk costs the next run some seconds, not this run."""
    try:
        with _own_stream(tensors["S"].device):
            tensors = {name: tensor.cpu() for name, tensor in tensors.items()}
        with atomic(path) as temporary:
            save_file(tensors, temporary)
    except (SafetensorError, OSError) as fault:
        warnings.warn(f"{path}: not cached ({fault})", stacklevel=2)


@contextlib.contextmanager
def _own_stream(device: torch.device) -> Iterator[None]:
    """On a GPU a stream for this thread, waited for at the end; nothing elsewhere."""
    if device.type != "cuda":
        yield
        return
    stream = torch.cuda.Stream(device)
    with torch.cuda.stream(stream):
        yield
    stream.synchronize()


def dithered(W_OI: Tensor, change_OI: Tensor, seed: int) -> Tensor:
    """W + change in W's dtype, rounded without bias.

    fp32: the plain sum. bf16: uniform noise of one unit in the last place is added before the low 16 bits are cut, so
    the expectation over the noise is exact; the noise depends on `seed` alone, and W itself (a bf16 number: its low
    bits are 0) comes back unchanged where the change is 0.
    """
    total = W_OI.float() + change_OI
    if W_OI.dtype == torch.float32:
        return total
    generator = torch.Generator(device=W_OI.device).manual_seed(seed)
    noise = torch.randint(
        0, 1 << 16, total.shape, dtype=torch.int32, device=total.device, generator=generator
    )
    return ((total.view(torch.int32) + noise) & -(1 << 16)).view(torch.float32).to(W_OI.dtype)


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
            # W'^T dy = Vh^T ((S + delta_S) * U^T dy). Where W is tall the right-hand side is the cheaper one, since
            # U^T dy is needed anyway; where it is wide both cost the same, and W' itself is the more accurate.
            dx = dy @ ctx.merged if ctx.scaled is None else q_BTR @ ctx.scaled
        g_BR = kernels.token_sum(x @ layer.Vh.T, q_BTR)  # sum_t (Vh x_t) * (U^T dy_t)
        if layer.samples is not None:
            layer.samples.append(g_BR)
        return dx, g_BR.sum(0), None


class SVDLinear(nn.Module):
    """A frozen Linear with trainable singular values: delta_S (R,) in fp32, everything else in the weight's dtype."""

    def __init__(self, linear: nn.Linear, U_OR: Tensor, S_R: Tensor, Vh_RI: Tensor, seed: int) -> None:
        super().__init__()
        self.weight, self.bias, self.seed = linear.weight, linear.bias, seed
        self.weight.requires_grad_(False)
        self.register_buffer("U", U_OR, persistent=False)
        self.register_buffer("S", S_R, persistent=False)
        self.register_buffer("Vh", Vh_RI, persistent=False)
        self.delta_S = nn.Parameter(torch.zeros(U_OR.shape[1], dtype=torch.float32, device=U_OR.device))
        self.merged, self.scaled, self._merged_at = self.weight.detach(), self._scale(), self.delta_S._version
        self.enabled, self.samples = True, None

    def extra_repr(self) -> str:
        return (
            f"out={self.U.shape[0]}, in={self.Vh.shape[1]}, rank={self.U.shape[1]}, dtype={self.weight.dtype}"
        )

    @torch.no_grad()
    def merge(self) -> None:
        """Bring W' up to date with delta_S. Reads the tensor's version counter, so it costs nothing when it is."""
        if self._merged_at == self.delta_S._version:
            return
        change = (self.U * self.delta_S).to(self.U.dtype) @ self.Vh
        self.merged, self._merged_at = dithered(self.weight, change, self.seed), self.delta_S._version
        self.scaled = self._scale()

    def _scale(self) -> Tensor | None:
        """diag(S + delta_S) Vh (R, I) where W is tall: what the gradient of x goes through (see _Apply)."""
        tall = self.U.shape[0] > self.U.shape[1]
        return ((self.S + self.delta_S.detach())[:, None] * self.Vh).to(self.Vh.dtype) if tall else None

    @torch.no_grad()
    def dense(self) -> tuple[Tensor, Tensor | None]:
        """Weight (O, I) and bias that the forward uses now."""
        if self.enabled:
            self.merge()
        return self.merged if self.enabled else self.weight, self.bias

    def forward(self, x: Tensor) -> Tensor:
        if not self.enabled:
            return F.linear(x, self.weight, self.bias)
        self.merge()
        if not torch.is_grad_enabled():
            return F.linear(x, self.merged, self.bias)
        return _Apply.apply(x, self.delta_S, self)


def target_linears(model: nn.Module, targets: Iterable[str] = TARGETS) -> list[tuple[str, nn.Linear]]:
    """The model's target Linears with their names. InputError when it has none."""
    targets = tuple(targets)
    found = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.rsplit(".", 1)[-1] in targets
    ]
    if not found:
        raise InputError(f"{type(model).__name__}: no Linear named any of {', '.join(targets)}")
    return found


class SVDAdapter:
    """All target Linears of a model in singular-value coordinates.

    `params` maps a module's name to its delta_S; nothing else in the model is trainable. The same small interface is
    what any other adapter has to offer: params, disabled(), merged(), sample_grads(), delta_w_norm(), step_scale,
    coordinates, file, save(), load(), model_hash.

    Raises InputError when the model has none of the target modules.
    """

    kind, coordinates, file = "svd", "svd", "delta_S.safetensors"
    step_scale = 1.0  # learning rates are given for delta_S

    def __init__(
        self,
        model: CausalLM,
        *,
        cache: str | Path | None = None,
        targets: Iterable[str] = TARGETS,
        track: Callable[[list], Iterable] = iter,
    ) -> None:
        """`cache` is the directory of the SVD cache (None: no cache); `track` may wrap the module list in a bar."""
        found = target_linears(model, targets)
        model.requires_grad_(False)
        self.model, self.cache = model, SVDCache(cache)
        hashes = {f"{name}.weight": content_hash(module.weight) for name, module in found}
        self.model_hash = model_hash(model, hashes)
        self.layers: dict[str, SVDLinear] = {}
        bases = self.cache.bases(
            [(linear.weight.detach(), hashes[f"{name}.weight"]) for name, linear in found]
        )
        for (name, linear), (U, S, Vh) in zip(track(found), bases, strict=True):
            layer = SVDLinear(linear, U, S, Vh, seed=zlib.crc32(name.encode()))
            model.set_submodule(name, layer)
            self.layers[name] = layer
        self.params = {name: layer.delta_S for name, layer in self.layers.items()}

    def delta_w_norm(self) -> float:
        """Frobenius norm of the whole Delta W: that of delta_S, since U and Vh are orthonormal."""
        return float(sum(delta_S.detach().square().sum() for delta_S in self.params.values()).sqrt())

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
                    layer.merge()
                yield self.model
        finally:
            self.model.train(training)

    @contextlib.contextmanager
    def sample_grads(self) -> Iterator[dict[str, list[Tensor]]]:
        """Collect every backward's per-sample gradients: module name -> list of (B, R), one entry a micro-batch."""
        for layer in self.layers.values():
            layer.samples = []
        try:
            yield {name: layer.samples for name, layer in self.layers.items()}
        finally:
            for layer in self.layers.values():
                layer.samples = None

    def save(self, path: str | Path) -> None:
        """delta_S of every module and the base model's hash, as safetensors."""
        tensors = {name: value.detach().cpu() for name, value in self.params.items()}
        with atomic(path) as temporary:
            save_file(
                tensors,
                temporary,
                metadata={"hackward": json.dumps({"kind": self.kind, "model_hash": self.model_hash})},
            )

    def load(self, path: str | Path) -> None:
        """Restore what `save` wrote. Raises InputError for a broken file or another base model; changes nothing then."""
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
