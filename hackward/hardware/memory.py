"""Where GPU memory goes: the highest point of every phase, and how many tokens fit into what is free. All
sizes in bytes."""

from __future__ import annotations

import contextlib
import math
import os
import resource
import sys
import weakref
from collections.abc import Iterator

import torch
from torch import nn

from hackward.base.types import CausalLM
from hackward.hardware.neighbours import ours

# Sampling and training take turns with blocks of different sizes: without this, a tenth of the memory is lost
# in between.
os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
FIRST = 4096  # padded tokens of the first micro-batch on a GPU, by which the next ones are measured
ON_CPU = 8192  # of every micro-batch where there is no GPU
MOST = 16384  # of any: a GPU is busy by then, and others may want some memory too
USE = 0.7  # share of the free memory that a micro-batch may fill: more was no faster
# Share of what was allowed below which a micro-batch says nothing of a token's cost: in the last one, of a
# few rows, what is the same for every size decides, and the next step's would be too small
TELLING = 0.5
peaks: dict[str, int] = {}  # phase -> highest memory in it, over the life of the process


@contextlib.contextmanager
def phase(name: str) -> Iterator[None]:
    """Record the highest memory of what happens inside. Phases follow each other; one inside another would
    hide it. A run on the CPU does not begin with CUDA here because there is a GPU."""
    if not torch.cuda.is_initialized():
        yield
        return
    torch.cuda.reset_peak_memory_stats()
    try:
        yield
    finally:
        peaks[name] = max(peaks.get(name, 0), torch.cuda.max_memory_allocated())


def peak() -> int:
    """The highest point so far: of the GPU where this process uses one, else of this process."""
    if torch.cuda.is_initialized():
        return max([torch.cuda.max_memory_allocated(), *peaks.values()])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def shown() -> str:
    """The phases for a screen: " (sampling 35.1, backward 61.0)", or nothing without a GPU."""
    return f" ({', '.join(f'{name} {size / 1e9:.1f}' for name, size in peaks.items())})" if peaks else ""


def free(device: torch.device) -> int:
    """What can still be allocated on this GPU, counting what PyTorch holds and does not use.

    Of what is free on a card with other processes they may want some too.
    """
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return ours(torch.cuda.mem_get_info(device)[0], device) + unused


def roomy(size: int, device: torch.device) -> bool:
    """Can so many bytes be kept through a step? At most a quarter of what is free on a GPU, 4 GB
    elsewhere."""
    return size <= (free(device) // 4 if device.type == "cuda" else 4 << 30)


def to(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A copy on that device. To a GPU through pinned memory: an ordinary copy waits for all that the GPU
    still has to do."""
    if device.type == "cuda" and not tensor.is_cuda:
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


class Budget:
    """Padded tokens of a micro-batch: as many as were asked for, else as many as there is memory for.

    What a token costs depends on the architecture, checkpointing and what is collected, so it is measured:
    the first micro-batch is small, and the highest cost so far of a full one sizes the next. Running out of
    memory halves what is tried, and every batch that fits raises it again by a twentieth: what was in the way
    may be gone.
    """

    def __init__(self, tokens: int | None, device: torch.device) -> None:
        self.device, self.on_gpu, self.asked = device, device.type == "cuda", tokens
        self.cost, self.cap = 1.0, math.inf
        self.wanted: float = tokens or (FIRST if self.on_gpu else ON_CPU)

    @property
    def tokens(self) -> int:
        return max(1, int(min(self.wanted, self.cap)))

    @contextlib.contextmanager
    def measured(self, tokens: int) -> Iterator[None]:
        """Around a micro-batch of so many tokens. Raises torch.OutOfMemoryError as it comes."""
        telling = self.on_gpu and tokens >= TELLING * self.tokens
        before = torch.cuda.memory_allocated(self.device) if telling else 0
        with phase("backward"):
            yield
            if telling:
                used = torch.cuda.max_memory_allocated(self.device) - before
                self.cost = max(self.cost, used / tokens)
        self.cap *= 1.05
        if telling and self.asked is None:
            self.wanted = min(MOST, USE * free(self.device) / self.cost)

    def halve(self, tokens: int) -> None:
        """So many did not fit, whatever was asked for or measured."""
        self.cap = tokens // 2


_budgets: weakref.WeakKeyDictionary[nn.Module, dict[tuple, Budget]] = weakref.WeakKeyDictionary()


def budget(model: CausalLM, tokens: int | None, *key) -> Budget:
    """The budget of this model for `tokens` asked for and this kind of work, with what was learned about it
    so far."""
    known = _budgets.setdefault(model, {})
    key = (tokens, model.training, *key)
    if key not in known:
        known[key] = Budget(tokens, model.device)
    return known[key]
