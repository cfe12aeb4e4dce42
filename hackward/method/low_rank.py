"""A change of weights as a LoRA, and the files that PEFT reads it from.

    Delta W = U diag(delta_S) Vh,   U and Vh orthonormal
    nearest of rank r:  B A with B = U_K diag(delta_S_K), A = Vh_K,   K the r largest |delta_S|
    |Delta W - B A|^2 = sum of delta_S^2 outside of K

That is the truncated SVD of Delta W (Eckart and Young): the singular values of Delta W are |delta_S|. Shapes:
I inputs, O outputs, R = min(I, O), r the rank of the LoRA.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from hackward.base.files import atomic
from hackward.base.types import CausalLM
from hackward.method.targets import last

if TYPE_CHECKING:
    from peft import LoraConfig

PREFIX = "base_model.model."  # what PEFT's files put before a module's name


@dataclass(frozen=True)
class LowRank:
    """B A (O, I) in the place of a module's Delta W."""

    A: Tensor
    """(r, I)"""
    B: Tensor
    """(O, r)"""
    left_out: float
    """|Delta W - B A|^2 in Frobenius norm."""
    whole: float
    """|Delta W|^2."""


def nearest_lora(U_OR: Tensor, delta_R: Tensor, Vh_RI: Tensor, rank: int) -> LowRank:
    """The LoRA of this rank that is nearest to U diag(delta) Vh; rows beyond R are zero."""
    delta = delta_R.detach().float()
    kept = delta.abs().argsort(descending=True, stable=True)[:rank]
    A = torch.zeros(rank, Vh_RI.shape[1], device=delta.device)
    B = torch.zeros(U_OR.shape[0], rank, device=delta.device)
    A[: len(kept)] = Vh_RI[kept].float()
    B[:, : len(kept)] = U_OR[:, kept].float() * delta[kept]
    squares = delta.double().square()
    left = squares.clone()
    left[kept] = 0.0
    return LowRank(A, B, float(left.sum()), float(squares.sum()))


def relative_error(parts: Sequence[LowRank]) -> float:
    """|Delta W - B A| / |Delta W| over these modules together; 0 where nothing was changed."""
    whole = sum(part.whole for part in parts)
    return math.sqrt(sum(part.left_out for part in parts) / whole) if whole else 0.0


def names_for_peft(names: Sequence[str], model: CausalLM) -> list[str]:
    """The last parts of the modules' names, which PEFT matches anywhere in a model; in full where that would
    find more."""
    ends = {last(name) for name in names}
    matched = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    matched = [name for name in matched if last(name) in ends]
    return sorted(ends) if sorted(matched) == sorted(names) else sorted(names)


def lora_config(rank: int, names: Sequence[str], model: CausalLM, **more: Any) -> LoraConfig:
    """Of a LoRA on these modules whose Delta W is B A: alpha is the rank, so PEFT scales it by 1."""
    from peft import LoraConfig

    return LoraConfig(
        r=rank,
        lora_alpha=rank,
        lora_dropout=0.0,
        bias="none",
        target_modules=names_for_peft(names, model),
        **more,
    )


def save_peft(
    directory: Path,
    factors: Mapping[str, LowRank],
    model: CausalLM,
    *,
    rank: int,
    base: str,
) -> None:
    """adapter_config.json and adapter_model.safetensors of a LoRA on `model`, whose Linears are plain.

    `base` is the hub id or directory that PEFT loads the base model from.
    """
    facts = {"task_type": "CAUSAL_LM", "base_model_name_or_path": base, "inference_mode": True}
    config = lora_config(rank, list(factors), model, **facts)
    tensors: dict[str, Any] = {}
    for name, part in factors.items():
        tensors[f"{PREFIX}{name}.lora_A.weight"] = part.A.float().cpu().contiguous()
        tensors[f"{PREFIX}{name}.lora_B.weight"] = part.B.float().cpu().contiguous()
    with atomic(directory / "adapter_model.safetensors") as temporary:
        save_file(tensors, temporary, metadata={"format": "pt"})
    config.save_pretrained(str(directory))
