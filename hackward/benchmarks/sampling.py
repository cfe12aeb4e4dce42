"""Sections ceilings and sampling: what the machine copies and multiplies, a token step beside its floor."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence

import torch
from rich.console import Group

from hackward.base.screen import progress
from hackward.base.types import CausalLM
from hackward.benchmarks.flags import Lengths, lengths_of
from hackward.benchmarks.parts import (
    GROUP,
    REPEATS,
    Bench,
    Sizes,
    every,
    highest,
    middle,
    number,
    release,
    requests,
    sampler,
    table,
    unless_out_of_memory,
)
from hackward.hardware.models import pick_dtype, plain_norms
from hackward.rollouts import slots
from hackward.rollouts.draws import Request

EAGER_FIRST = 8  # tokens of the slow baselines that are timed to be subtracted
WITH_GENERATE = (
    64  # the batch size that `generate` is measured at; the middle one where this is not asked for
)


def measure_ceilings(b: Bench) -> dict:
    """Bytes per second of a copy (read and written), operations per second of a square matrix product.

    The product is in the model's dtype.
    """
    size, side, times = (2 << 30, 8192, 4) if b.on_gpu else (128 << 20, 1024, 4)
    dtype = pick_dtype(b.config.dtype, b.device)
    source = torch.ones(size, dtype=torch.uint8, device=b.device)
    target = torch.empty_like(source)
    left, right = torch.randn(2, side, side, device=b.device).to(dtype)
    product = torch.empty_like(left)
    copies = b.timed(lambda: [target.copy_(source) for _ in range(times)], REPEATS + 1)[1:]
    products = b.timed(lambda: [torch.mm(left, right, out=product) for _ in range(times)], REPEATS + 1)[1:]
    return {
        "copied_bytes": size,
        "side": side,
        "dtype": str(dtype),
        "times": times,
        "copy_seconds": every(copies),
        "product_seconds": every(products),
        "bandwidth": 2 * size * times / middle(copies),
        "rate": 2 * side**3 * times / middle(products),
    }


def show_ceilings(found: dict) -> tuple[Group, str]:
    """The table and the caption below it."""
    copied = f"a copy of {found['copied_bytes'] / 1e9:.2g} GB"
    multiplied = f"{found['side']}^3, {found['dtype'].removeprefix('torch.')}"
    rows = [
        ("bandwidth, read + written", f"{found['bandwidth'] / 1e9:.3g} GB/s", copied),
        ("matrix rate", f"{found['rate'] / 1e12:.3g} TFLOP/s", multiplied),
    ]
    shown = table("ceilings of this machine", ("what", "measured", "with"), rows)
    return shown, "every floor below is bytes over this bandwidth or operations over this rate"


def candidates(lengths: Lengths) -> Iterator[tuple[int, str]]:
    """(batch size, path) of everything that is measured."""
    batches = lengths.batch_sizes
    with_generate = WITH_GENERATE if WITH_GENERATE in batches else batches[len(batches) // 2]
    for batch in batches:
        yield batch, "slots"
        yield batch, "plain"
        if batch == with_generate:
            yield batch, "generate"


def measure_sampling(b: Bench) -> dict:
    """Every path at every batch size.

    Each is timed over a long and a short number of tokens; the difference is token steps and nothing else.
    """
    model, _ = b.load()
    sizes, lengths = Sizes.of(model), lengths_of(b.config)
    mean_length = lengths.prompt_tokens + lengths.new_tokens / 2
    # The slow paths decode a stretch around the same mean length; less of it is the rows' own, so their
    # floors are lower.
    eager_prompt = max(1, round(mean_length - lengths.eager_tokens / 2) - EAGER_FIRST)
    eager = (eager_prompt, EAGER_FIRST, EAGER_FIRST + lengths.eager_tokens)
    rows: list[dict] = []
    pairs = list(candidates(lengths))
    with progress("sampling", len(pairs)) as bar:
        for batch, path in pairs:
            prompt, short, long = (lengths.prompt_tokens, 1, lengths.new_tokens) if path == "slots" else eager
            asked = requests(batch, prompt, model.config.vocab_size)
            found = measure_path(b, model, path, asked, short, long)
            if "error" not in found:
                positions = batch * (short + long) / 2 + math.ceil(batch / GROUP) * prompt
                floor = sizes.decode_bytes(1, positions) / b.bandwidth
                found |= {"floor_ms": 1e3 * floor, "x_floor": batch / floor / found["tokens_per_second"]}
            rows.append({"path": path, "batch": batch, "prompt_tokens": prompt, **found})
            release()
            bar()
    compare_with_generate(rows)
    return {
        "rows": rows,
        "mean_length": mean_length,
        "kv_bytes": sizes.kv_bytes,
        "weight_bytes": sizes.weight_bytes,
        "floor_weights_ms": 1e3 * sizes.decode_bytes(1, 0) / b.bandwidth,
    }


def measure_path(
    b: Bench, model: CausalLM, path: str, asked: Sequence[Request], short: int, long: int
) -> dict:
    """What `decoded` finds, or the error where the GPU's memory does not suffice."""
    return unless_out_of_memory(lambda: decoded(b, model, path, asked, short, long))


def compare_with_generate(rows: list[dict]) -> None:
    """Add to every row how much faster it is than `generate` at its batch size, None where unknown."""
    speeds = {
        row["batch"]: row["tokens_per_second"]
        for row in rows
        if row["path"] == "generate" and "error" not in row
    }
    for row in rows:
        comparable = "error" not in row and row["batch"] in speeds
        row["x_generate"] = row["tokens_per_second"] / speeds[row["batch"]] if comparable else None


def decoded(b: Bench, model: CausalLM, path: str, asked: Sequence[Request], short: int, long: int) -> dict:
    """One path's timings, and its token steps without the prefill."""
    counted: Counter[str] = Counter()
    draw = sampler(model, path, asked, counted)
    (plain_norms if path == "generate" else b.usual_norms)(model)
    draw(min(long, 2 * slots.LOOK))  # compiles and warms up
    brief = b.timed(lambda: draw(short), REPEATS)
    counted.clear()
    whole = b.timed(lambda: draw(long), REPEATS)
    seconds = (middle(whole) - middle(brief)) / (long - short)
    # More steps than these mean that some rows had to wait for others (none do in `generate`).
    steps_at_once = REPEATS * math.ceil(long / slots.LOOK) * slots.LOOK
    at_once = counted["token steps"] <= steps_at_once
    return {
        "short_tokens": short,
        "long_tokens": long,
        "short_seconds": every(brief),
        "long_seconds": every(whole),
        "at_once": at_once,
        "ms_a_step": 1e3 * seconds if at_once else None,
        "tokens_per_second": len(asked) / seconds,
        "whole_tokens_per_second": len(asked) * long / middle(whole) if path == "slots" else None,
        "peak_gb": highest(whole),
    }


HEADINGS = {
    "ms per token step": ("ms_a_step", ".2f"),
    "tokens/s": ("tokens_per_second", ",.0f"),
    "x faster than generate": ("x_generate", ".1f"),
    "floor, ms per step": ("floor_ms", ".2f"),
    "x floor": ("x_floor", ".2f"),
    "tokens/s, prefill in": ("whole_tokens_per_second", ",.0f"),
    "peak GB": ("peak_gb", ".1f"),
}


def show_sampling(found: dict) -> tuple[Group, str]:
    """The table and the caption below it."""
    rows = []
    for row in found["rows"]:
        if "error" in row:
            figures = [row["error"][:40], *[""] * (len(HEADINGS) - 1)]
        else:
            figures = [number(row[key], form) for key, form in HEADINGS.values()]
        rows.append((f"{row['path']}, batch {row['batch']}", *figures))
    measured = [row for row in found["rows"] if "error" not in row]
    nothing = {"short_tokens": 0, "long_tokens": 0}
    ours = next((row for row in measured if row["path"] == "slots"), nothing)
    slow = next((row for row in measured if row["path"] != "slots"), nothing)
    caption = (
        f"ms per step and tokens/s are without prefill: the time of {ours['long_tokens']} tokens less that of"
        f" the first (plain, generate: of {slow['long_tokens']} less that of {slow['short_tokens']}, around"
        f" the same mean length, {found['mean_length']:.0f}); slots include capturing their graph. {GROUP}"
        " rows share a prompt; nothing ends early. A dash for ms per step: some rows had to wait for others."
        " floor: all weights, the keys and values of what was drawn, and those of the prompts once a group"
        f" are read; the weights alone, {found['weight_bytes'] / 1e9:.3g} GB, take"
        f" {found['floor_weights_ms']:.3g} ms."
    )
    return table("sampling", ("path", *HEADINGS), rows), caption
