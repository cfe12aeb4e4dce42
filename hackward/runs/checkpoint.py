"""Parameters, optimizer state and the next step on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from hackward.base.faults import InputError
from hackward.base.tensors import read_safetensors, write_safetensors
from hackward.method.adapters import Adapter
from hackward.runs.rundir import RunDir

MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # what AdamW keeps of a parameter


@dataclass(frozen=True)
class State:
    """What a run goes on from: parameters and AdamW's moments as they were before a step."""

    step: int
    tensors: dict[str, Tensor]
    """MODULE|PART -> a copy on the CPU."""
    model_hash: str

    @classmethod
    def of(cls, adapter: Adapter, optimizer: torch.optim.Optimizer, step: int) -> State:
        """The state as it is; what happens later does not change it."""
        tensors = {}
        for name, p in adapter.params.items():
            tensors[f"{name}|param"] = _copy(p)
            for key, value in optimizer.state.get(p, {}).items():
                tensors[f"{name}|{key}"] = _copy(torch.as_tensor(value))
        return cls(step, tensors, adapter.model_hash)

    def save(self, path: Path) -> None:
        """One safetensors file."""
        meta = {"kind": "checkpoint", "model_hash": self.model_hash, "step": self.step}
        write_safetensors(path, self.tensors, meta)


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True)


def load_checkpoint(run: RunDir, adapter: Adapter, optimizer: torch.optim.Optimizer) -> int:
    """Restore what `State.save` wrote; returns the first step to run.

    InputError for another model's checkpoint, and for one that no run of this program wrote; nothing is
    changed then.
    """
    stored, step = _checked(run.checkpoint, adapter)
    run.keep_rows(step)
    _put(stored, adapter)
    for name, p in adapter.params.items():
        # AdamW keeps its step on the CPU
        moments = {part: value for part, value in stored[name].items() if part != "param"}
        optimizer.state[p] = {part: x if part == "step" else x.to(p.device) for part, x in moments.items()}
    return step


def load_parameters(path: Path, adapter: Adapter) -> int:
    """Only the parameters of a checkpoint, for a model that is not trained on; returns the steps before it.

    InputError as `load_checkpoint`.
    """
    stored, step = _checked(path, adapter)
    _put(stored, adapter)
    return step


def _put(stored: dict[str, dict[str, Tensor]], adapter: Adapter) -> None:
    with torch.no_grad():
        for name, p in adapter.params.items():
            p.copy_(stored[name]["param"])


def _checked(path: Path, adapter: Adapter) -> tuple[dict[str, dict[str, Tensor]], int]:
    """Module -> part -> tensor of a checkpoint of this model, and the next step."""
    tensors, meta = read_safetensors(path)
    made_for = meta.get("model_hash")
    if meta.get("kind") != "checkpoint":
        raise InputError(f"{path}: not a checkpoint")
    if made_for != adapter.model_hash:
        raise InputError(f"{path}: of another model (its hash {made_for}, this model {adapter.model_hash})")
    step = meta.get("step")
    if type(step) is not int or step < 1:
        raise InputError(f"{path}: its metadata names no step")
    stored = _by_module(path, tensors, adapter)
    _check_moments(path, stored, step)
    return stored, step


def _by_module(path: Path, tensors: dict[str, Tensor], adapter: Adapter) -> dict[str, dict[str, Tensor]]:
    """Module -> part -> tensor; InputError unless the modules are the adapter's and all shapes are right."""
    stored: dict[str, dict[str, Tensor]] = {name: {} for name in adapter.params}
    for key, tensor in tensors.items():
        name, _, part = key.rpartition("|")
        if name not in stored or part not in ("param", *MOMENTS):
            raise InputError(f"{path}: holds {key!r}, which this model's adapter has not")
        shape = () if part == "step" else adapter.params[name].shape
        if tensor.shape != shape or tensor.dtype != torch.float32 or not bool(tensor.isfinite().all()):
            raise InputError(f"{path}: {key!r} is of another shape or type, or not finite")
        stored[name][part] = tensor
    for name, parts in stored.items():
        if "param" not in parts:
            raise InputError(f"{path}: module {name} is missing")
    return stored


def _check_moments(path: Path, stored: dict[str, dict[str, Tensor]], step: int) -> None:
    """Every module has AdamW's state, or none has (nothing was learnt yet); none has more steps than the
    run."""
    learnt = any(len(parts) > 1 for parts in stored.values())
    for name, parts in stored.items():
        missing = [part for part in MOMENTS if learnt and part not in parts]
        if missing:
            raise InputError(f"{path}: module {name} has no {missing[0]}")
        taken = float(parts.get("step", torch.zeros(())))
        if not (taken.is_integer() and 0 <= taken <= step):
            raise InputError(f"{path}: says step {step}, but AdamW has taken {taken:g} steps in {name}")
