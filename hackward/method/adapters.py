"""What every adapter offers, and the table of bases that a run can train in."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from antipasto import SVDAdapter, target_linears
from hackward.base.faults import InputError
from hackward.base.screen import progress
from hackward.base.tensors import read_metadata
from hackward.base.types import CausalLM
from hackward.method.losses import collate, token_logps

__all__ = ["BASES", "Adapter", "SVDAdapter", "attach", "check_head", "stored_basis", "target_linears"]


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

    def disabled(self) -> AbstractContextManager[CausalLM]:
        """The base model, exactly: the reference policy."""

    def merged(self) -> AbstractContextManager[CausalLM]:
        """The current policy for sampling: plain Linears, no autograd."""

    def sample_grads(self) -> AbstractContextManager[dict[str, list[Tensor]]]:
        """Collect every backward's per-rollout gradients: module name -> list of (B, R), one entry a
        micro-batch."""

    def delta_w_norm(self) -> float:
        """Frobenius norm of the whole Delta W."""

    def save(self, path: str | Path) -> None:
        """Write what is trained; `load` restores it."""

    def load(self, path: str | Path) -> None:
        """InputError for a broken file, another base model or other shapes; changes nothing then."""


@torch.no_grad()
def check_head(model: CausalLM, name: str) -> None:
    """Soft-capped or scaled logits would make our log-probabilities wrong without a sound: refuse such a
    model."""
    vocabulary = model.get_output_embeddings().weight.shape[0]
    ids = [(7 * i + 11) % min(vocabulary, 1000) for i in range(24)]
    batch = collate([(ids[:4], ids[4:])], [0], 0).to(model.device)
    ours, _ = token_logps(model, batch)
    logits = model(input_ids=batch.ids_BL).logits.float().log_softmax(-1)
    theirs = logits[0, 3:-1].gather(1, batch.ids_BL[0, 4:, None])[:, 0]
    if not torch.allclose(ours[0], theirs, atol=0.05, rtol=0.02):
        raise InputError(f"{name}: this architecture post-processes its logits, which is not supported")


def svd_basis(model: CausalLM, *, rank: int, cache: str | None) -> Adapter:
    with progress("SVD of the target modules") as bar:
        return SVDAdapter(model, cache=cache, track=bar.track)


def lora_basis(model: CausalLM, *, rank: int, cache: str | None) -> Adapter:
    from lora_adapter import LoRAAdapter  # PEFT takes a second or two to import

    return LoRAAdapter(model, rank=rank)


BASES: dict[str, Callable[..., Adapter]] = {"svd": svd_basis, "lora": lora_basis}


def attach(basis: str, model: CausalLM, name: str, *, rank: int = 8, cache: str | None = None) -> Adapter:
    """The model with an adapter in one of BASES; `rank` is a LoRA's, `cache` the directory of the SVD cache.

    InputError when the model has none of the target modules, or when its logits are not simply head(hidden),
    which the chunked log-probabilities rely on.
    """
    check_head(model, name)
    return BASES[basis](model, rank=rank, cache=cache)


def stored_basis(path: str | Path) -> str:
    """The basis that a v_hack file was made in. InputError where it is none."""
    meta = read_metadata(path)
    if meta.get("kind") != "v_hack" or meta.get("basis") not in BASES:
        raise InputError(f"{path}: not a v_hack file")
    return meta["basis"]
