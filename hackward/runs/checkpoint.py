"""Parameters, optimizer state and the next step on disk."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from hackward.base.faults import InputError
from hackward.base.files import atomic
from hackward.base.tensors import read_safetensors
from hackward.runs.rundir import RunDir


def save_checkpoint(path: Path, adapter, optimizer: torch.optim.Optimizer, step: int) -> None:
    """Parameters, AdamW's moments and the next step, in one safetensors file."""
    tensors = {}
    for name, p in adapter.params.items():
        tensors[f"{name}|param"] = p.detach().cpu()
        for key, value in optimizer.state.get(p, {}).items():
            tensors[f"{name}|{key}"] = torch.as_tensor(value).detach().cpu()
    meta = {"kind": "checkpoint", "model_hash": adapter.model_hash, "step": step}
    with atomic(path) as temporary:
        save_file(tensors, temporary, metadata={"hackward": json.dumps(meta)})


def load_checkpoint(run: RunDir, adapter, optimizer: torch.optim.Optimizer) -> int:
    """Restore what `save_checkpoint` wrote; returns the first step to run. InputError for another model's checkpoint."""
    tensors, meta = read_safetensors(run.checkpoint)
    if meta.get("kind") != "checkpoint" or meta.get("model_hash") != adapter.model_hash:
        raise InputError(f"{run.checkpoint}: not a checkpoint of this model")
    with torch.no_grad():
        for name, p in adapter.params.items():
            if f"{name}|param" not in tensors or tensors[f"{name}|param"].shape != p.shape:
                raise InputError(f"{run.checkpoint}: module {name} is missing or of another shape")
            p.copy_(tensors[f"{name}|param"])
            state = {
                key.rpartition("|")[2]: value
                for key, value in tensors.items()
                if key.rpartition("|")[0] == name
            }
            del state["param"]
            optimizer.state[p] = {
                key: value if key == "step" else value.to(p.device) for key, value in state.items()
            }
    run.keep_rows(meta["step"])
    return meta["step"]
