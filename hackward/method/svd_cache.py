"""Singular bases on disk, one safetensors file per weight, keyed by the content of W and never by a path or a
model name.

An entry names its weight and carries a checksum, taken where the tensors live (on a GPU at its speed). One
that does not verify is computed anew.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from hackward.base.files import atomic, sha256
from hackward.hardware.hashes import content_hash
from hackward.hardware.neighbours import patiently
from hackward.method.svd import thin_svd

Basis = tuple[Tensor, Tensor, Tensor]
"""U (O, R), S (R,) and Vh (R, I) on W's device; S in fp32, the others in W's dtype."""

Write = Callable[[Path, dict[str, Tensor]], None]
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
        write: Write | None = None,
    ) -> Basis:
        """The basis of W. `write` takes a new one (default: it is written at once)."""
        found = functools.partial(self._basis, W_OI, weight_hash, write or _write)
        return patiently(found, W_OI.device, "SVD")

    def _basis(self, W_OI: Tensor, weight_hash: str, write: Write) -> Basis:
        path = None if self.directory is None else self.directory / f"{weight_hash}.safetensors"
        if path and path.exists():
            try:
                found = _read(path, W_OI, weight_hash)
            except (SafetensorError, OSError, ValueError) as fault:
                warnings.warn(f"{path}: unreadable ({fault}); computed anew", stacklevel=2)
            except _Unmarked:  # one text for all of them, so that it is said once
                warnings.warn(
                    f"{self.directory}: entries without a checksum (of an earlier version) are computed anew",
                    stacklevel=2,
                )
            else:
                with self._lock:
                    self.hits += 1
                return found
        U, S, Vh = thin_svd(W_OI)
        U, S, Vh = U.to(W_OI.dtype).contiguous(), S.float(), Vh.to(W_OI.dtype).contiguous()
        if path:
            write(path, {"U": U, "S": S, "Vh": Vh})
        return U, S, Vh

    def _write_later(self, path: Path, tensors: dict[str, Tensor]) -> None:
        if tensors["S"].is_cuda:
            torch.cuda.current_stream(tensors["S"].device).synchronize()  # the writer has a stream of its own
        self._writing.append(self._writers.submit(_write, path, tensors))

    def flush(self) -> None:
        """Wait until all that was computed is written."""
        while self._writing:
            self._writing.pop().result()


class _Unmarked(Exception):
    """An entry that cannot be verified."""


def _read(path: Path, W_OI: Tensor, weight_hash: str) -> Basis:
    """The entry of a weight. ValueError where it is another's, or does not hold what was written."""
    with safe_open(path, framework="pt", device=str(W_OI.device)) as stored:
        metadata = stored.metadata() or {}
        U, S, Vh = stored.get_tensor("U"), stored.get_tensor("S"), stored.get_tensor("Vh")
    if "checksum" not in metadata:
        raise _Unmarked
    if metadata["checksum"] != _checksum({"U": U, "S": S, "Vh": Vh}, weight_hash):
        raise ValueError("its checksum does not fit")
    return U, S, Vh


def _checksum(tensors: dict[str, Tensor], weight_hash: str) -> str:
    """Of a basis and the weight that it belongs to, which the file's name names."""
    return sha256(weight_hash, *(content_hash(tensors[name]) for name in ("U", "S", "Vh")))[:32]


def _write(path: Path, tensors: dict[str, Tensor]) -> None:
    """A full disk costs the next run some seconds, not this run."""
    try:
        with _own_stream(tensors["S"].device):
            checksum = _checksum(tensors, path.stem)
            tensors = {name: tensor.cpu() for name, tensor in tensors.items()}
        with atomic(path) as temporary:
            save_file(tensors, temporary, metadata={"checksum": checksum})
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
