"""What every adapter offers, and the table of bases that a run can train in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from antipasto import SVDAdapter
from hackward.base.faults import InputError
from hackward.base.flags import target_names
from hackward.base.screen import progress, say
from hackward.base.tensors import read_metadata
from hackward.base.types import CausalLM
from hackward.method.low_rank import LowRank
from hackward.method.targets import Coverage
from hackward.method.trials import check_head, check_sampling

__all__ = ["BASES", "Adapter", "SVDAdapter", "attach", "stored_basis"]


class Adapter(Protocol):
    """A frozen model with something trainable in it. antipasto.SVDAdapter and lora_adapter.LoRAAdapter are
    its two kinds."""

    kind: str
    """"svd" or "lora": the key of BASES."""
    coordinates: str
    """What is trained, in the words of a v_hack file, e.g. "svd" or "lora r8"."""
    file: str
    """Name of what `save` writes in a run directory."""
    step_scale: float
    """Factor on a learning rate given for delta_S, so that one step moves Delta W as far."""
    model: CausalLM
    model_hash: str
    """Of the frozen base model."""
    params: dict[str, nn.Parameter]
    """Module name -> what trains, R numbers each; nothing else in the model does."""
    coverage: Coverage
    """What of the model's layers is trained."""

    @property
    def own_rank(self) -> int | None:
        """Rank of each Delta W by construction; None where it is full."""

    def disabled(self) -> AbstractContextManager[CausalLM]:
        """The base model, exactly: the reference policy."""

    def merged(self) -> AbstractContextManager[CausalLM]:
        """The current policy for sampling: plain Linears, no autograd."""

    def sample_grads(self) -> AbstractContextManager[dict[str, list[Tensor]]]:
        """Collect every backward's per-rollout gradients: module name -> list of (B, R), one entry a
        micro-batch."""

    def delta_w_norm(self) -> float:
        """Frobenius norm of the whole Delta W."""

    def weight(self, name: str, dtype: torch.dtype) -> Tensor:
        """W' (O, I) of a module in this dtype; in the model's own it is what is sampled with."""

    def low_rank(self, name: str, rank: int) -> LowRank:
        """The LoRA of this rank that is nearest to a module's Delta W; with an `own_rank` only of that
        one."""

    def unwrap(self) -> dict[str, nn.Linear]:
        """Put plain Linears with the base model's weights back in place; the adapter runs no more."""

    def save(self, path: str | Path) -> None:
        """Write what is trained; `load` restores it."""

    def load(self, path: str | Path) -> None:
        """InputError for a broken file, another base model or other shapes; changes nothing then."""


def svd_basis(model: CausalLM, *, rank: int, cache: str | None, targets: Sequence[str] | str) -> Adapter:
    with progress("SVD of the target modules") as bar:
        return SVDAdapter(model, cache=cache, targets=targets, track=bar.track)


def lora_basis(model: CausalLM, *, rank: int, cache: str | None, targets: Sequence[str] | str) -> Adapter:
    from lora_adapter import LoRAAdapter  # PEFT takes a second or two to import

    return LoRAAdapter(model, rank=rank, targets=targets)


BASES: dict[str, Callable[..., Adapter]] = {"svd": svd_basis, "lora": lora_basis}


def attach(
    basis: str,
    model: CausalLM,
    name: str,
    *,
    rank: int = 8,
    cache: str | None = None,
    targets: str | None = None,
) -> Adapter:
    """The model with an adapter in one of BASES, and a line that says what share of its layers that trains.

    `rank` is a LoRA's, `cache` the directory of the SVD cache, `targets` a --targets. InputError when the
    model has none of the target modules, or fails a trial (trials.py).
    """
    check_head(model, name)
    check_sampling(model, name)
    adapter = BASES[basis](model, rank=rank, cache=cache, targets=target_names(targets))
    say(adapter.coverage.words())
    return adapter


def stored_basis(path: str | Path) -> str:
    """The basis that a v_hack file was made in. InputError where it is none."""
    meta = read_metadata(path)
    if meta.get("kind") != "v_hack" or meta.get("basis") not in BASES:
        raise InputError(f"{path}: not a v_hack file")
    return meta["basis"]
