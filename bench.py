"""What per-sample gradients cost, beside their baselines in the same run.

    (a) floor      frozen base: forward and gradient of the activations, the least that any training step does
    (b) ours       merged weights, gradients of every sample in one backward (antipasto.py)
    (c) hook       y + U (delta * (Vh x)) as a forward hook, one backward, no per-sample gradients
    (d) separate   the same hook, one backward a sample

All four run the same rows through the same loss. Medians over rounds in which the four take turns, so that a GPU that
warms up or slows down does so for all of them.

    python bench.py                                    CPU, tiny weights: seconds
    python bench.py --shape=qwen3-4b --device=cuda     random weights of Qwen3-4B's shape
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Literal

import torch
import tyro
from rich.console import Console
from rich.table import Table
from torch import nn

import gradients
import models
from antipasto import SVDAdapter
from losses import micro_batches, policy_loss, token_logps
from screen import progress
from store import exit_on_fault, provenance, write_json


@dataclass(frozen=True)
class Config:
    """Sizes of the benchmark."""

    shape: Literal["tiny", "qwen3-0.6b", "qwen3-4b"] = "tiny"
    """Architecture with random weights."""
    samples: int = 8
    """Rows of the batch."""
    tokens: int = 768
    """Tokens a row; the last two thirds are the completion."""
    rounds: int = 7
    """Timed rounds, after two that are not."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto: bf16 on a GPU, fp32 on a CPU."""
    device: str = "auto"
    """auto, cpu, cuda, ..."""
    out: str | None = None
    """Write the table as JSON to this file."""


SHAPES = {
    "qwen3-0.6b": dict(hidden_size=1024, num_hidden_layers=28, num_attention_heads=16, num_key_value_heads=8, head_dim=128, intermediate_size=3072),
    "qwen3-4b": dict(hidden_size=2560, num_hidden_layers=36, num_attention_heads=32, num_key_value_heads=8, head_dim=128, intermediate_size=9728),
}


def random_model(shape: str, dtype: torch.dtype, device: torch.device) -> nn.Module:
    """A model of that shape with random weights, made where it will run."""
    if shape == "tiny":
        return models.tiny_random()[0].to(device, dtype)
    from transformers import Qwen3Config, Qwen3ForCausalLM

    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            return Qwen3ForCausalLM(Qwen3Config(vocab_size=151936, tie_word_embeddings=True, **SHAPES[shape]))
    finally:
        torch.set_default_dtype(default)


def loss_of(model: nn.Module, batch) -> torch.Tensor:
    logp, mask = token_logps(model, batch)
    return policy_loss(logp, mask, torch.ones(len(logp), device=logp.device), batch.length_B.float())[0]


@contextlib.contextmanager
def floor_path(adapter: SVDAdapter):
    """The base model with a gradient that flows to its input embeddings."""
    hook = adapter.model.get_input_embeddings().register_forward_hook(lambda module, inputs, output: output.requires_grad_())
    with adapter.disabled():
        yield
    hook.remove()


@contextlib.contextmanager
def hook_path(adapter: SVDAdapter):
    """delta_S as a side path of every Linear, the way a forward hook would add it."""
    def side(layer, inputs, output):
        return output + (inputs[0] @ layer.Vh.T * layer.delta_S.to(output.dtype)) @ layer.U.T

    hooks = [layer.register_forward_hook(side) for layer in adapter.layers.values()]
    with adapter.disabled():
        yield
    for hook in hooks:
        hook.remove()


def variants(adapter: SVDAdapter, rows: list) -> dict[str, Callable[[], None]]:
    """The four candidates, each a function of nothing."""
    device, everything = adapter.model.device, len(rows) * 10**6
    ones, lengths = torch.ones(len(rows)), torch.tensor([float(len(c)) for _, c in rows])
    (batch,) = (b.to(device) for b in micro_batches(rows, tokens=everything, pad=0))
    singles = [next(micro_batches([row], tokens=everything, pad=0)).to(device) for row in rows]

    def floor() -> None:
        with floor_path(adapter):
            loss_of(adapter.model, batch).backward()

    def ours() -> None:
        gradients.backward(adapter, rows, ones, lengths, pad=0, tokens=everything, samples=True)

    def hook() -> None:
        with hook_path(adapter):
            loss_of(adapter.model, batch).backward()

    def separate() -> None:
        before = {name: torch.zeros_like(p) for name, p in adapter.params.items()}
        with hook_path(adapter):
            for single in singles:
                loss_of(adapter.model, single).backward()
                sample = {name: p.grad - before[name] for name, p in adapter.params.items()}
                before = {name: p.grad.clone() for name, p in adapter.params.items()}
                del sample

    return {"(a) floor": floor, "(b) ours": ours, "(c) hook": hook, "(d) separate": separate}


def timed(action: Callable[[], None], adapter: SVDAdapter, cuda: bool) -> tuple[float, float]:
    """Seconds and peak GB of one call, from cleared gradients."""
    for p in adapter.params.values():
        p.grad = None
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    action()
    if cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start, torch.cuda.max_memory_allocated() / 1e9 if cuda else float("nan")


def disagreement(adapter: SVDAdapter, candidates: dict[str, Callable[[], None]]) -> float:
    """Relative difference of the batch gradients of (b) and (c): the speed is worth nothing if they disagree."""
    found = []
    for name in ("(b) ours", "(c) hook"):
        timed(candidates[name], adapter, adapter.model.device.type == "cuda")
        found.append(torch.cat([p.grad.flatten() for p in adapter.params.values()]).double())
    return float((found[0] - found[1]).norm() / found[1].norm())


def main(config: Config) -> None:
    device = models.pick_device(config.device)
    dtype = models.DTYPES[("bfloat16" if device.type == "cuda" else "float32") if config.dtype == "auto" else config.dtype]
    torch.manual_seed(0)
    model = random_model(config.shape, dtype, device).eval()
    if device.type == "cuda":
        torch.linalg.eigh(torch.eye(8, dtype=torch.float64, device=device))  # the solver library loads once, not per model
        torch.cuda.synchronize()
    start = time.perf_counter()
    with progress("set-up: SVD of the target modules") as bar:
        adapter = SVDAdapter(model, cache=None, track=bar.track)
    if device.type == "cuda":
        torch.cuda.synchronize()
    setup = time.perf_counter() - start
    with torch.no_grad():  # away from zero, so that nothing is skipped
        for p in adapter.params.values():
            p.normal_(std=1e-3)
    start = time.perf_counter()
    with adapter.merged():
        if device.type == "cuda":
            torch.cuda.synchronize()
    merge = time.perf_counter() - start

    vocabulary, prompt = model.config.vocab_size, config.tokens // 3
    ids = torch.randint(0, vocabulary, (config.samples, config.tokens)).tolist()
    candidates = variants(adapter, [(row[:prompt], row[prompt:]) for row in ids])
    results = {name: [] for name in candidates}
    with progress("rounds", (config.rounds + 2) * len(candidates)) as bar:
        for number in range(config.rounds + 2):
            for name, action in candidates.items():
                seconds = timed(action, adapter, device.type == "cuda")
                if number >= 2:
                    results[name].append(seconds)
                bar()

    difference = disagreement(adapter, candidates)
    where = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    median = {name: statistics.median(s for s, _ in values) for name, values in results.items()}
    table = Table(title=f"{config.shape}, {config.samples} x {config.tokens} tokens, {dtype}, {where}, median of {config.rounds}", title_justify="left")
    for heading in ("", "seconds", "x floor", "ours is faster by", "peak GB"):
        table.add_column(heading, justify="left" if not heading else "right")
    for name, values in results.items():
        table.add_row(name, f"{median[name]:.4f}", f"{median[name] / median['(a) floor']:.2f}",
                      f"{median[name] / median['(b) ours']:.2f}", f"{max(m for _, m in values):.1f}" if device.type == "cuda" else "-")
    console = Console()
    console.print(table)
    console.print(f"set-up of {len(adapter.layers)} modules, cold: {setup:.1f} s | merging all once: {merge:.3f} s | "
                  f"gradient of (b) against (c): {difference:.1e} relative", highlight=False)
    if config.out:
        write_json(config.out, {"config": asdict(config), "device": where, "dtype": str(dtype), "modules": len(adapter.layers),
                                "setup_seconds": setup, "merge_seconds": merge, "gradient_difference": difference, **provenance(),
                                "results": {name: {"seconds": median[name], "all": [s for s, _ in v], "peak_gb": max(m for _, m in v)}
                                            for name, v in results.items()}})


if __name__ == "__main__":
    exit_on_fault(lambda: main(tyro.cli(Config, description=__doc__)))
