"""A teacher: a PEFT LoRA merged into the model that it was made for."""

from __future__ import annotations

import warnings
from typing import Any

import torch

from hackward.base.faults import InputError
from hackward.base.hub import check_there
from hackward.base.screen import say
from hackward.base.types import CausalLM
from hackward.hardware.models import check_weights


def check_teacher(teacher: str | None) -> None:
    """InputError unless there is such a LoRA. Costs no model."""
    if teacher is None:
        raise InputError("--teacher-only needs --teacher, a PEFT LoRA (hub id or directory)")
    check_there(teacher, "teacher LoRA", "adapter_config.json")


def attach_teacher(model: CausalLM, teacher: str | None) -> CausalLM:
    """The base model with a PEFT LoRA merged into it, and a line where it covers some of its layers only.

    InputError when it is missing, unreadable, of another shape, or when none of its tensors fits the model.
    """
    check_teacher(teacher)
    assert teacher is not None
    from peft import PeftModel
    from peft.utils import load_peft_weights
    from peft.utils.save_and_load import get_peft_model_state_dict

    layers = _layers(model)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what PEFT warns of is said or refused below
            stored = load_peft_weights(teacher, device="cpu")
            wrapped: Any = PeftModel.from_pretrained(model, teacher)
    except Exception as fault:  # peft and the hub raise many kinds
        reason = str(fault).strip().splitlines() or [type(fault).__name__]
        raise InputError(f"{teacher}: teacher LoRA cannot be loaded ({reason[0]})") from None
    expected = get_peft_model_state_dict(wrapped, save_embedding_layers=False)
    _check_tensors(teacher, set(stored), set(expected))
    covered = {name.rpartition(".lora_B")[0] for name in expected if name in stored and ".lora_B" in name}
    if covered and len(covered) < layers:
        say(f"{teacher}: the teacher LoRA changes {len(covered)} of the model's {layers} Linear layers")
    merged = wrapped.merge_and_unload().eval().requires_grad_(False)
    check_weights(merged, teacher)
    return merged


def _layers(model: CausalLM) -> int:
    return sum(isinstance(module, torch.nn.Linear) for module in model.get_decoder().modules())


def _check_tensors(teacher: str, stored: set[str], expected: set[str]) -> None:
    """Stored tensors that fit no layer, and layers that got none."""
    fits = stored & expected
    if not fits:
        example = min(stored) if stored else "no tensor"
        raise InputError(
            f"{teacher}: none of the {len(stored)} tensors of the teacher LoRA fits a layer of the model (it"
            f" has {example}, the model expects {min(expected, default='none')}): the LoRA of another"
            " model, or of another version of its code"
        )
    left_out, without = stored - fits, expected - fits
    if left_out or without:
        say(
            f"{teacher}: {len(left_out)} of the {len(stored)} tensors of the teacher LoRA fit no layer of the"
            f" model and are left out; {len(without)} of the {len(expected)} that the model expects are not"
            " there"
        )
