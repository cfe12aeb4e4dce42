"""A finished run's model as others load it: a plain transformers model, or a PEFT adapter.

    plain    W' = W + Delta W in the weights themselves; what is not trained is rounded to the nearest
    peft     Delta W as B A beside the base model; delta_S as the nearest LoRA (hackward/method/low_rank.py)

A bf16 file of a run in fp32 holds Delta W rounded without bias (antipasto.dithered): rounding to the nearest
would lose what is smaller than half a unit in the last place. What was written is loaded again as a user
would, and its logits are compared with the run's own before the directory takes its place.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hackward.base.arms import arm_of
from hackward.base.files import CHECKPOINT, file_hash, whole_directory, write_json
from hackward.base.provenance import provenance
from hackward.base.screen import Bar, progress
from hackward.base.space import check_space
from hackward.base.types import CausalLM, Tokenizer
from hackward.hardware import models
from hackward.hardware.hashes import weights_hash
from hackward.method.adapters import Adapter
from hackward.method.low_rank import LowRank, relative_error, save_peft
from hackward.organisms.priming import savable
from hackward.rollouts.tokens import tokenizer_hash
from hackward.runs.building import probe_logits, restore
from hackward.runs.export_card import peft_card, plain_card
from hackward.runs.settings import Config
from hackward.tasks.shipped import EMBEDDED, EMBEDDED_HOME, is_random

RANK = 64  # of the LoRA that stands for a delta_S, where none is asked for
RANKS = (8, 64, 512)  # of which the error is told beside the one that is written


@dataclass
class Trained:
    """A run's model as it was trained, and what is known of it."""

    run: Path
    record: dict[str, Any]
    """config.json."""
    summary: dict[str, Any]
    """summary.json; empty for a run that is not finished."""
    adapter: Adapter
    tokenizer: Tokenizer
    config: Config
    logits: Tensor
    """Of a fixed short input, (1, 24, vocabulary), on the CPU in fp32."""

    def facts(self) -> dict[str, Any]:
        """What the exported record says of the run."""
        model = self.record.get("model") or {}
        return {
            "run": str(self.run),
            "model": self.config.model,
            "arm": arm_of(vars(self.config)).label,
            "basis": self.adapter.kind,
            "seed": self.config.seed,
            "steps": self.summary.get("steps"),
            "finished": bool(self.summary),
            "run_argv": self.record.get("argv"),
            "run_commit": self.record.get("commit"),
            "trained_dtype": model.get("dtype"),
            "delta_w_norm": self.adapter.delta_w_norm(),
            "last5": self.summary.get("last5") if self.config.kind == "sampled" else None,
            "hashes": {
                "base_model": self.adapter.model_hash,
                "tokenizer": tokenizer_hash(self.tokenizer),
                "learnt": self._learnt(),
            },
        }

    def _learnt(self) -> str:
        """Hash of the run's file that the model was read from."""
        if not self.summary:
            return file_hash(self.run / CHECKPOINT)
        path = self.run / self.adapter.file
        return file_hash(path / "adapter_model.safetensors" if path.is_dir() else path)


def trained(run: Path, record: dict[str, Any], summary: dict[str, Any], *, device: str) -> Trained:
    """The run's model with its final adapter, or without a summary with that of its last checkpoint.

    InputError where the base model or its tokenizer is missing or another one than it was trained on.
    """
    adapter, tokenizer, config = restore(run, device=device, unfinished=not summary)
    with adapter.merged() as policy:
        logits = probe_logits(policy).float().cpu()
    return Trained(run, record, summary, adapter, tokenizer, config, logits)


def bytes_of(model: CausalLM, dtype: torch.dtype) -> int:
    """About what the files of a model take."""
    return sum(parameter.numel() for parameter in model.parameters()) * dtype.itemsize


@torch.no_grad()
def merged_model(adapter: Adapter, dtype: torch.dtype) -> CausalLM:
    """The plain model with W' in its weights, all of it in this dtype. The adapter is of no use after it."""
    for name, linear in adapter.unwrap().items():
        linear.weight = nn.Parameter(adapter.weight(name, dtype), requires_grad=False)
    return savable(adapter.model).to(dtype)


def difference(logits: Tensor, own: Tensor) -> dict[str, float]:
    """How far logits are from the run's own, and how large those are."""
    return {
        "largest_difference": float((logits.float().cpu() - own).abs().max()),
        "mean_difference": float((logits.float().cpu() - own).abs().mean()),
        "largest_logit": float(own.abs().max()),
    }


def export_plain(had: Trained, out: Path, dtype: torch.dtype | None) -> dict[str, Any]:
    """Write the plain model directory; returns its record. Without a dtype it is the run's own."""
    adapter = had.adapter
    dtype = dtype or adapter.model.dtype
    check_space(out, bytes_of(adapter.model, dtype), "the model")
    record = had.facts() | {"kind": "model", "dtype": str(dtype).removeprefix("torch."), **provenance()}
    device = str(adapter.model.device)
    with whole_directory(out, ()) as made, progress("export") as bar:
        bar.say("merging")
        model = merged_model(adapter, dtype)
        bar.say("writing")
        model.save_pretrained(made)
        had.tokenizer.save_pretrained(made)
        del adapter, model, had.adapter

        def again() -> Tensor:
            return probe_logits(models.load(str(made), dtype=record["dtype"], device=device)[0])

        _describe(made, record, again, had.logits, plain_card, bar)
    return record


def export_peft(had: Trained, out: Path, rank: int | None) -> dict[str, Any]:
    """Write the PEFT adapter directory; returns its record.

    A LoRA is written as it is. delta_S becomes the nearest LoRA of this rank.
    """
    adapter = had.adapter
    rank = adapter.own_rank or rank or RANK
    names = list(adapter.params)
    factors = {name: adapter.low_rank(name, rank) for name in names}
    check_space(out, 4 * sum(p.A.numel() + p.B.numel() for p in factors.values()), "the adapter")
    base, gguf = base_of(had.config.model)
    record = had.facts() | {"kind": "peft", "rank": rank, "base": base, "gguf": gguf, **provenance()}
    record["base_in_memory"] = is_random(had.config.model)
    record |= errors(adapter, factors)
    device, dtype = str(adapter.model.device), str(adapter.model.dtype).removeprefix("torch.")
    adapter.unwrap()
    with whole_directory(out, ()) as made, progress("export") as bar:
        bar.say("writing")
        save_peft(made, factors, adapter.model, rank=rank, base=base)
        del adapter, factors, had.adapter

        def again() -> Tensor:
            return _peft_logits(had.config.model, made, dtype, device)

        _describe(made, record, again, had.logits, peft_card, bar)
    return record


def _describe(
    made: Path,
    record: dict[str, Any],
    again: Callable[[], Tensor],
    own: Tensor,
    card: Callable[[dict[str, Any]], str],
    bar: Bar,
) -> None:
    """Load what was written, compare its logits with the run's `own`, and put record and card beside it."""
    gc.collect()  # the exported model and the one that is loaded again need not fit into memory together
    record["hashes"]["weights"] = weights_hash(made)
    bar.say("loading it again")
    record["logits"] = difference(again(), own)
    write_json(made / "export.json", record)
    (made / "README.md").write_text(card(record), encoding="utf-8")


def errors(adapter: Adapter, factors: dict[str, LowRank]) -> dict[str, Any]:
    """Relative error of Delta W in Frobenius norm: over all modules, of each, and over all at other ranks."""
    found: dict[str, Any] = {
        "error": relative_error(list(factors.values())),
        "error_by_module": {name: relative_error([part]) for name, part in factors.items()},
    }
    if adapter.own_rank is None:
        found["error_at_rank"] = {
            str(rank): relative_error([adapter.low_rank(name, rank) for name in factors]) for rank in RANKS
        }
    return found


def _peft_logits(name: str, directory: Path, dtype: str, device: str) -> Tensor:
    """Logits of the base model with the adapter of a directory."""
    from peft import PeftModel

    base, _ = models.load(name, dtype=dtype, device=device)
    return probe_logits(PeftModel.from_pretrained(base, str(directory)).eval())


def base_of(model: str) -> tuple[str, str | None]:
    """What PEFT loads the base model from: a hub id or an absolute directory; and the GGUF file in it."""
    if model == EMBEDDED:
        return str(EMBEDDED_HOME / "model"), None
    path = Path(model)
    if path.suffix == ".gguf":
        return str(path.resolve().parent), path.name
    return (str(path.resolve()) if path.is_dir() else model), None
