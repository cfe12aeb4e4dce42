"""Checksums of tensors and models, computed where they live."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from hackward.base.files import file_hash, sha256

# Words summed at once: on a CPU the int64 copies stay in its caches, elsewhere they are at most 128 MB each.
WORDS_ON_CPU, WORDS_ELSEWHERE = 1 << 15, 1 << 24


def content_hash(tensor: Tensor) -> str:
    """128-bit checksum of shape, dtype and every bit of a tensor, computed where the tensor lives.

    Two wrapping 64-bit sums of the raw words times position-dependent odd multipliers: exact integer
    arithmetic, so CPU and GPU agree. It tells weights apart; it is no defence against someone who crafts a
    collision.
    """
    integers = {2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
    words = tensor.detach().contiguous().view(integers).flatten()
    sums, count = [0, 0], WORDS_ON_CPU if tensor.device.type == "cpu" else WORDS_ELSEWHERE
    for start in range(0, words.numel(), count):
        chunk = words[start : start + count].to(torch.int64)
        position = torch.arange(start + 1, start + 1 + chunk.numel(), device=chunk.device)
        for i, constant in enumerate((-7046029254386353131, -4417276706812531889)):
            multiplier = position * constant
            multiplier = (multiplier ^ (multiplier >> 29)) * constant
            sums[i] += int((chunk * (multiplier | 1)).sum())
    digest = [f"{value & 0xFFFFFFFFFFFFFFFF:016x}" for value in sums]
    return sha256(str(tuple(tensor.shape)), str(tensor.dtype), *digest)[:32]


def model_hash(model: nn.Module, known: dict[str, str] | None = None) -> str:
    """Hash over names and contents of all parameters; `known` holds content hashes that are already at
    hand."""
    known = known or {}
    parts = []
    for name, value in sorted(model.named_parameters()):
        parts.append(f"{name}={known.get(name) or content_hash(value)}")
    return sha256(*parts)[:32]


def weights_hash(directory: Path) -> str:
    """sha256 of the weights' file in a directory; of several, over their hashes."""
    found = [file_hash(path) for path in sorted(directory.glob("*.safetensors"))]
    return found[0] if len(found) == 1 else sha256(*found)
