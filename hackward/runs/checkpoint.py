"""Parameters, optimizer state and the next step on disk."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from hackward.base.faults import InputError
from hackward.base.files import atomic
from hackward.base.tensors import read_safetensors
from hackward.method.adapters import Adapter
from hackward.runs.rundir import RunDir


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
        with atomic(path) as temporary:
            save_file(self.tensors, temporary, metadata={"hackward": json.dumps(meta)})


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True)


def load_checkpoint(run: RunDir, adapter: Adapter, optimizer: torch.optim.Optimizer) -> int:
    """Restore what `State.save` wrote; returns the first step to run. InputError for another model's
    checkpoint."""
    tensors, meta = read_safetensors(run.checkpoint)
    if meta.get("kind") != "checkpoint" or meta.get("model_hash") != adapter.model_hash:
        raise InputError(f"{run.checkpoint}: not a checkpoint of this model")
    step = meta.get("step")
    if type(step) is not int or step < 0:
        raise InputError(f"{run.checkpoint}: its metadata names no step")
    state: dict[str, dict[str, torch.Tensor]] = {name: {} for name in adapter.params}
    for key, value in tensors.items():
        name, _, part = key.rpartition("|")
        if name in state:
            state[name][part] = value
    with torch.no_grad():
        for name, p in adapter.params.items():
            stored = state[name].pop("param", None)
            if stored is None or stored.shape != p.shape:
                raise InputError(f"{run.checkpoint}: module {name} is missing or of another shape")
            p.copy_(stored)
            # AdamW keeps its step on the CPU
            moved = {part: x if part == "step" else x.to(p.device) for part, x in state[name].items()}
            optimizer.state[p] = moved
    run.keep_rows(step)
    return step
