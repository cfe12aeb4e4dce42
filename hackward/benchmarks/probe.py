"""Section probe: gradients of every rollout in one backward, beside the frozen base, a forward hook, and separate backwards."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from rich.table import Table
from torch import nn

from hackward.base.screen import progress
from hackward.benchmarks.parts import Bench, Sizes, every, highest, middle, number, table
from hackward.hardware.models import fused_norms, plain_norms
from hackward.method import gradients
from hackward.method.adapters import SVDAdapter
from hackward.method.losses import micro_batches, policy_loss, token_logps


def loss_of(model: nn.Module, batch) -> torch.Tensor:
    logp, mask = token_logps(model, batch)
    return policy_loss(logp, mask, torch.ones(len(logp), device=logp.device), batch.length_B.float())[0]


@contextlib.contextmanager
def floor_path(adapter: SVDAdapter) -> Iterator[None]:
    """The base model with a gradient that flows to its input embeddings."""
    hook = adapter.model.get_input_embeddings().register_forward_hook(
        lambda module, inputs, output: output.requires_grad_()
    )
    with adapter.disabled():
        yield
    hook.remove()


@contextlib.contextmanager
def hook_path(adapter: SVDAdapter) -> Iterator[None]:
    """delta_S as a side path of every Linear, the way a forward hook would add it."""

    def side(layer, inputs, output):
        return output + (inputs[0] @ layer.Vh.T * layer.delta_S.to(output.dtype)) @ layer.U.T

    hooks = [layer.register_forward_hook(side) for layer in adapter.layers.values()]
    with adapter.disabled():
        yield
    for hook in hooks:
        hook.remove()


def variants(adapter: SVDAdapter, rows: list) -> dict[str, Callable[[], None]]:
    """The candidates, each a function of nothing that leaves its gradient in .grad (the floor has none)."""
    device, everything = adapter.model.device, len(rows) * 10**6
    ones, lengths = torch.ones(len(rows)), torch.tensor([float(len(c)) for _, c in rows])
    (batch,) = (b.to(device) for b in micro_batches(rows, tokens=everything, pad=0))
    singles = [next(micro_batches([row], tokens=everything, pad=0)).to(device) for row in rows]

    def floor() -> None:
        with floor_path(adapter):
            loss_of(adapter.model, batch).backward()

    def ours(samples: bool = True) -> None:
        gradients.backward(adapter, rows, ones, lengths, pad=0, tokens=everything, samples=samples)

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

    return {
        "(a) floor": floor,
        "(b) ours": ours,
        "(b) no samples": lambda: ours(samples=False),
        "(c) hook": hook,
        "(d) separate": separate,
    }


def gradient(adapter: SVDAdapter, action: Callable[[], None]) -> torch.Tensor:
    """The whole batch gradient that a candidate leaves, flat, in fp64."""
    for p in adapter.params.values():
        p.grad = None
    action()
    return torch.cat([p.grad.flatten() for p in adapter.params.values()]).double()


def measure_probe(b: Bench) -> dict:
    """The candidates by turns on the same rows. On a GPU the floor and ours run with transformers' norms and with the fused ones."""
    model, _ = b.load()
    sizes, config = Sizes.of(model), b.config
    with progress("set-up: SVD of the target modules") as bar:
        adapter = SVDAdapter(model, cache=None, track=bar.track)
    torch.manual_seed(0)
    with torch.no_grad():  # away from zero, so that nothing is skipped
        for p in adapter.params.values():
            p.normal_(std=1e-3)
    prompt = config.tokens // 3
    ids = torch.randint(0, model.config.vocab_size, (config.samples, config.tokens)).tolist()
    actions = variants(adapter, [(row[:prompt], row[prompt:]) for row in ids])
    candidates = {name: (b.usual_norms, action) for name, action in actions.items()}
    if b.on_gpu:  # (a) is the base as transformers runs it
        floor, ours = actions["(a) floor"], candidates.pop("(b) ours")
        candidates = {
            "(a) floor": (plain_norms, floor),
            "(a') floor, fused norms": (fused_norms, floor),
            "(b) ours": ours,
            "(b') ours, plain norms": (plain_norms, ours[1]),
        } | {name: candidate for name, candidate in candidates.items() if name != "(a) floor"}
    timings = {name: [] for name in candidates}
    with progress("rounds", (config.rounds + 2) * len(candidates)) as bar:
        for _ in range(config.rounds + 2):
            for name, (norms, action) in candidates.items():
                norms(model)
                for p in adapter.params.values():
                    p.grad = None
                timings[name] += b.timed(action)
                bar()
    b.usual_norms(model)
    ours, hook = (gradient(adapter, actions[name]) for name in ("(b) ours", "(c) hook"))
    operations = sizes.operations(
        config.samples * config.tokens, config.samples * (config.tokens - prompt), passes=2
    )
    rows = {
        name: {"seconds": middle(t[2:]), "all": every(t[2:]), "peak_gb": highest(t[2:])}
        for name, t in timings.items()
    }
    for row in rows.values():
        row |= {
            "x_floor": row["seconds"] / rows["(a) floor"]["seconds"],
            "x_ours": row["seconds"] / rows["(b) ours"]["seconds"],
            "x_fused_floor": row["seconds"] / rows["(a') floor, fused norms"]["seconds"]
            if b.on_gpu
            else None,
        }
    return {
        "rows": rows,
        "samples": config.samples,
        "tokens": config.tokens,
        "modules": len(adapter.layers),
        "operations": operations,
        "operations_seconds": operations / b.rate,
        "gradient_difference": float((ours - hook).norm() / hook.norm()),
    }


def show_probe(found: dict) -> tuple[Table, str]:
    fused = any(r["x_fused_floor"] for r in found["rows"].values())
    rows = [
        (
            name,
            f"{r['seconds']:.4f}",
            f"{r['x_floor']:.2f}",
            *([f"{r['x_fused_floor']:.2f}"] if fused else []),
            f"{r['x_ours']:.2f}",
            number(r["peak_gb"], ".1f"),
        )
        for name, r in found["rows"].items()
    ]
    title = f"probe step, {found['samples']} x {found['tokens']} tokens, {found['modules']} modules, median of {len(found['rows']['(b) ours']['all'])}"
    norms = "(a) and (b') run with the norms of transformers, all others with fused ones. " if fused else ""
    reach = {
        name: found["operations_seconds"] / found["rows"][name]["seconds"]
        for name in ("(a) floor", "(b) ours")
    }
    return table(
        title, ("", "seconds", "x (a)", *(["x (a')"] if fused else []), "(b) is faster by", "peak GB"), rows
    ), (
        "(a) frozen base, forward and gradient of the activations; (b) gradients of every sample in one backward, and (no samples) of the whole batch "
        f"only; (c) forward hook, no gradients of samples; (d) the hook, one backward a sample. {norms}"
        f"(a) needs {found['operations'] / 1e12:.3g} TFLOP (4 x parameters of Linears x tokens, and the head): {found['operations_seconds']:.4f} s at "
        f"the measured rate, of which (a) reaches {reach['(a) floor']:.0%} and (b), which computes more, {reach['(b) ours']:.0%}. "
        f"gradient of (b) against (c): {found['gradient_difference']:.1e} relative"
    )
