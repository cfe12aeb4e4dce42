"""Section probe: gradients of every rollout in one backward.

Beside it the frozen base, a forward hook, and separate backwards.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from rich.console import Group
from torch import nn

from hackward.base.screen import progress
from hackward.base.types import CausalLM
from hackward.benchmarks.parts import Bench, Sizes, Timing, cells, every, highest, middle, table
from hackward.hardware.models import fused_norms, plain_norms
from hackward.method import gradients
from hackward.method.adapters import SVDAdapter
from hackward.method.losses import Batch, micro_batches, policy_loss, token_logps

WARM_UP = 2  # rounds that are not counted
Norms = Callable[[nn.Module], nn.Module]  # puts one kind of norms in place


def loss_of(model: nn.Module, batch: Batch) -> torch.Tensor:
    """The loss of a batch with all advantages 1, as in training."""
    logp, mask = token_logps(model, batch)
    return policy_loss(logp, mask, torch.ones(len(logp), device=logp.device), batch.length_B.float())[0]


@contextlib.contextmanager
def floor_path(adapter: SVDAdapter) -> Iterator[None]:
    """The base model with a gradient that flows to its input embeddings."""
    model: CausalLM = adapter.model
    embeddings = model.get_input_embeddings()
    hook = embeddings.register_forward_hook(lambda module, inputs, output: output.requires_grad_())
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
    model: CausalLM = adapter.model
    device, everything = model.device, len(rows) * 10**6
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
                # One sample's gradient, which is what this costs; nothing is done with it.
                sample = {name: grad - before[name] for name, grad in grads(adapter).items()}
                before = {name: grad.clone() for name, grad in grads(adapter).items()}
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
    forget(adapter)
    action()
    return torch.cat([grad.flatten() for grad in grads(adapter).values()]).double()


def forget(adapter: SVDAdapter) -> None:
    """No gradient is left of what ran before."""
    for p in adapter.params.values():
        p.grad = None


def grads(adapter: SVDAdapter) -> dict[str, torch.Tensor]:
    """The gradient of every module."""
    return {name: p.grad for name, p in adapter.params.items() if p.grad is not None}


def built_adapter(b: Bench, model: CausalLM) -> SVDAdapter:
    """The model with delta_S away from zero, so that nothing is skipped."""
    with progress("set-up: SVD of the target modules") as bar:
        adapter = SVDAdapter(model, cache=None, track=bar.track)
    torch.manual_seed(0)
    with torch.no_grad():
        for p in adapter.params.values():
            p.normal_(std=1e-3)
    return adapter


def with_norms(
    b: Bench, actions: dict[str, Callable[[], None]]
) -> dict[str, tuple[Norms, Callable[[], None]]]:
    """Each candidate with the norms that it runs with.

    On a GPU the floor and ours run with both kinds, transformers' own and the fused ones; (a) is the base as
    transformers runs it.
    """
    usual = {name: (b.usual_norms, action) for name, action in actions.items()}
    if not b.on_gpu:
        return usual
    floor, ours = actions["(a) floor"], actions["(b) ours"]
    both = {
        "(a) floor": (plain_norms, floor),
        "(a') floor, fused norms": (fused_norms, floor),
        "(b) ours": (b.usual_norms, ours),
        "(b') ours, plain norms": (plain_norms, ours),
    }
    return both | {name: candidate for name, candidate in usual.items() if name not in both}


def measure_probe(b: Bench) -> dict:
    """The candidates by turns on the same rows."""
    model, _ = b.load()
    sizes, config = Sizes.of(model), b.config
    adapter = built_adapter(b, model)
    prompt = config.tokens // 3
    ids = torch.randint(0, model.config.vocab_size, (config.samples, config.tokens)).tolist()
    actions = variants(adapter, [(row[:prompt], row[prompt:]) for row in ids])
    candidates = with_norms(b, actions)
    timings: dict[str, list[Timing]] = {name: [] for name in candidates}
    with progress("rounds", (config.rounds + WARM_UP) * len(candidates)) as bar:
        for _ in range(config.rounds + WARM_UP):
            for name, (norms, action) in candidates.items():
                norms(model)
                forget(adapter)
                timings[name] += b.timed(action)
                bar()
    b.usual_norms(model)
    ours, hook = (gradient(adapter, actions[name]) for name in ("(b) ours", "(c) hook"))
    scored = config.samples * (config.tokens - prompt)
    operations = sizes.operations(config.samples * config.tokens, scored, passes=2)
    return {
        "rows": compared({name: found[WARM_UP:] for name, found in timings.items()}),
        "samples": config.samples,
        "tokens": config.tokens,
        "modules": len(adapter.layers),
        "operations": operations,
        "operations_seconds": operations / b.rate,
        "gradient_difference": float((ours - hook).norm() / hook.norm()),
    }


def compared(timings: dict[str, list[Timing]]) -> dict[str, dict]:
    """Every candidate beside the floor, the floor with fused norms where there is one, and ours."""
    seconds = {name: middle(found) for name, found in timings.items()}
    fused = seconds.get("(a') floor, fused norms")
    return {
        name: {
            "seconds": seconds[name],
            "all": every(found),
            "peak_gb": highest(found),
            "x_floor": seconds[name] / seconds["(a) floor"],
            "x_ours": seconds[name] / seconds["(b) ours"],
            "x_fused_floor": None if fused is None else seconds[name] / fused,
        }
        for name, found in timings.items()
    }


def show_probe(found: dict) -> tuple[Group, str]:
    """The table and the caption below it."""
    fused = any(row["x_fused_floor"] for row in found["rows"].values())
    columns = {
        "seconds": ("seconds", ".4f"),
        "x (a)": ("x_floor", ".2f"),
        "x (a')": ("x_fused_floor", ".2f"),
        "(b) is faster by": ("x_ours", ".2f"),
        "peak GB": ("peak_gb", ".1f"),
    }
    if not fused:
        del columns["x (a')"]
    rows = cells(found["rows"], columns)
    title = (
        f"probe step, {found['samples']} x {found['tokens']} tokens, {found['modules']} modules,"
        f" median of {len(found['rows']['(b) ours']['all'])}"
    )
    norms = "(a) and (b') run with the norms of transformers, all others with fused ones. " if fused else ""
    seconds = found["operations_seconds"]
    floor, ours = (seconds / found["rows"][name]["seconds"] for name in ("(a) floor", "(b) ours"))
    caption = (
        "(a) frozen base, forward and gradient of the activations; (b) gradients of every sample in one"
        " backward, and (no samples) of the whole batch only; (c) forward hook, no gradients of samples; (d)"
        f" the hook, one backward a sample. {norms}(a) needs {found['operations'] / 1e12:.3g} TFLOP (4 x"
        f" parameters of Linears x tokens, and the head): {seconds:.4f} s at the measured rate, of which (a)"
        f" reaches {floor:.0%} and (b), which computes more, {ours:.0%}. gradient of (b) against (c):"
        f" {found['gradient_difference']:.1e} relative"
    )
    return table(title, ("", *columns), rows), caption
