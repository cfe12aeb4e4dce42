"""Singular bases on disk, one safetensors file per weight, keyed by the content of W and never by a path or a
model name."""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from hackward.base.files import atomic
from hackward.method.svd import thin_svd

Basis = tuple[Tensor, Tensor, Tensor]
"""U (O, R), S (R,) and Vh (R, I) on W's device; S in fp32, the others in W's dtype."""

AT_ONCE = 6  # bases under way at once on a GPU; each holds some 0.5 GB of fp64 at 4B


class SVDCache:
    """Bases from disk where they are there, else computed and kept. Without a directory nothing is kept."""

    def __init__(self, directory: str | Path | None) -> None:
        self.directory = None if directory is None else Path(directory)
        self.hits, self._lock = 0, threading.Lock()
        self._writers = ThreadPoolExecutor(2)
        self._writing: list[Future[None]] = []

    def bases(self, weights: Sequence[tuple[Tensor, str]], *, at_once: int | None = None) -> Iterator[Basis]:
        """`basis` of every (W, hash), in order.

        On a GPU several are under way at once, each on a stream of its own (one eigendecomposition leaves
        most of the GPU idle), and files are written behind the caller's back; the process ends when all is
        written, `flush` waits for it.
        """
        on_gpu = bool(weights) and weights[0][0].is_cuda
        at_once = at_once or (AT_ONCE if on_gpu else 1)
        if at_once == 1:
            for W, weight_hash in weights:
                yield self.basis(W, weight_hash)
            return
        if on_gpu:
            device = weights[0][0].device
            # PyTorch loads its solvers at first use, and only one thread may do that
            torch.linalg.eigh(torch.eye(2, dtype=torch.float64, device=device))
            torch.cuda.synchronize(device)  # the weights are there

        def one(weight: tuple[Tensor, str]) -> Basis:
            W, weight_hash = weight
            with _own_stream(W.device):
                return self.basis(W, weight_hash, write=self._write_later)

        with ThreadPoolExecutor(at_once) as pool:
            yield from pool.map(one, weights)

    def basis(
        self,
        W_OI: Tensor,
        weight_hash: str,
        *,
        write: Callable[[Path, dict[str, Tensor]], None] | None = None,
    ) -> Basis:
        """The basis of W. `write` takes a new one (default: it is written at once)."""
        path = None if self.directory is None else self.directory / f"{weight_hash}.safetensors"
        if path and path.exists():
            try:
                found = _read(path, W_OI.device)
            except (SafetensorError, OSError) as fault:
                warnings.warn(f"{path}: unreadable ({fault}); computed anew", stacklevel=2)
            else:
                with self._lock:
                    self.hits += 1
                return found
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


def _read(path: Path, device: torch.device) -> Basis:
    with safe_open(path, framework="pt", device=str(device)) as stored:
        return stored.get_tensor("U"), stored.get_tensor("S"), stored.get_tensor("Vh")


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
