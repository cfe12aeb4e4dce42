"""What is drawn, whoever decodes: requests, their random numbers, one token from a distribution."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK = 128  # entries of the vocabulary that are summed up together


@dataclass(frozen=True)
class Request:
    """One completion to draw: its prompt, what seeds its random numbers, and a limit of its own where it has
    one."""

    prompt_ids: tuple[int, ...]
    key: tuple
    limit: int | None = None

    def tokens(self, most: int) -> int:
        """The most tokens that this one may get."""
        return most if self.limit is None else min(most, self.limit)


class Drawn(NamedTuple):
    """A completion: its token ids, the last one a stop token unless the limit was reached, and their
    log-probabilities."""

    ids: list[int]
    logps: list[float]


def uniforms(key: tuple, count: int) -> np.ndarray:
    """(count,) numbers in [0, 1) that depend on the key alone (Philox keyed by a hash of it)."""
    words = np.frombuffer(hashlib.sha256(repr(key).encode()).digest()[:16], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=words)).random(count)


def draw(logits_BV: Tensor, uniform_B: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Token ids (B,) by inverting the cumulative distribution at u, and their log-probabilities (B,) in fp32.

    Temperature 0 takes the likeliest token (and scores it at temperature 1). The distribution is summed up in
    two levels, over chunks and inside the chunk that u falls into: one pass over the vocabulary, and rounding
    that does not grow with it.
    """
    B, V = logits_BV.shape
    p_BV = (logits_BV.float() / (temperature or 1.0)).softmax(-1)
    if temperature == 0:
        token_B1 = logits_BV.argmax(-1, keepdim=True)
    else:
        p_BNC = (F.pad(p_BV, (0, -V % CHUNK)) if V % CHUNK else p_BV).view(B, -1, CHUNK)
        chunk_B1, rest_B1 = _invert(p_BNC.sum(-1), uniform_B[:, None])
        inner_BC = p_BNC.gather(1, chunk_B1[:, :, None].expand(B, 1, CHUNK))[:, 0]
        token_B1 = (chunk_B1 * CHUNK + _invert(inner_BC, rest_B1)[0]).clamp_(
            max=V - 1
        )  # of NaN any token is as good
    return token_B1[:, 0], p_BV.gather(1, token_B1)[:, 0].log()


def _invert(mass_BN: Tensor, u_B1: Tensor) -> tuple[Tensor, Tensor]:
    """Where u, in units of the whole mass, falls (B, 1), and where inside that entry, in units of the entry
    (B, 1)."""
    cdf_BN = mass_BN.cumsum(-1)
    # u must stay inside the mass, by more than a sum in parallel may be off: at its end an entry without mass
    # would be found.
    target_B1 = u_B1.clamp(0, 1 - 2**-20) * cdf_BN[:, -1:]
    found_B1 = torch.searchsorted(cdf_BN, target_B1, right=True).clamp_(max=mass_BN.shape[1] - 1)
    mass_B1 = mass_BN.gather(1, found_B1)
    return found_B1, (target_B1 - (cdf_BN.gather(1, found_B1) - mass_B1)) / mass_B1
