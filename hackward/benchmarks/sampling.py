"""Sections ceilings and sampling: what this machine copies and multiplies, and a token step beside its floor."""

from __future__ import annotations

from collections import Counter

import torch
from rich.table import Table

from hackward.base.screen import progress
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


def measure_ceilings(b: Bench) -> dict:
    """Bytes a second of a copy (read and written), operations a second of a square matrix product in the model's dtype."""
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


def show_ceilings(found: dict) -> tuple[Table, str]:
    return table(
        "ceilings of this machine",
        ("what", "measured", "with"),
        [
            (
                "bandwidth, read + written",
                f"{found['bandwidth'] / 1e9:.3g} GB/s",
                f"a copy of {found['copied_bytes'] / 1e9:.2g} GB",
            ),
            (
                "matrix rate",
                f"{found['rate'] / 1e12:.3g} TFLOP/s",
                f"{found['side']}^3, {found['dtype'].removeprefix('torch.')}",
            ),
        ],
    ), ("every floor below is bytes over this bandwidth or operations over this rate")


def measure_sampling(b: Bench) -> dict:
    """Every path at every batch size. Each is timed over a long and a short number of tokens; the difference is token steps and nothing else."""
    model, _ = b.load()
    sizes, config, rows = Sizes.of(model), b.config, []
    batches = sorted(map(int, config.batches.split(",")))
    with_generate = 64 if 64 in batches else batches[len(batches) // 2]
    length = config.prompt_tokens + config.new_tokens / 2
    # The slow paths decode a stretch around the same mean length; less of it is the rows' own, so their floors are lower.
    eager = (
        max(1, round(length - config.eager_tokens / 2) - EAGER_FIRST),
        EAGER_FIRST,
        EAGER_FIRST + config.eager_tokens,
    )
    with progress("sampling", 2 * len(batches) + 1) as bar:
        for batch in batches:
            for path in ("slots", "plain", *(["generate"] if batch == with_generate else [])):
                prompt, short, long = (
                    (config.prompt_tokens, 1, config.new_tokens) if path == "slots" else eager
                )
                found = unless_out_of_memory(
                    lambda: decoded(
                        b, model, path, requests(batch, prompt, model.config.vocab_size), short, long
                    )
                )
                if "error" not in found:
                    positions = batch * (short + long) / 2 + -(-batch // GROUP) * prompt
                    floor = sizes.decode_bytes(1, positions) / b.bandwidth
                    found |= {"floor_ms": 1e3 * floor, "x_floor": batch / floor / found["tokens_per_second"]}
                rows.append({"path": path, "batch": batch, "prompt_tokens": prompt, **found})
                release()
                bar()
    compared = {
        row["batch"]: row["tokens_per_second"]
        for row in rows
        if row["path"] == "generate" and "error" not in row
    }
    for row in rows:
        row["x_generate"] = (
            row["tokens_per_second"] / compared[row["batch"]]
            if "error" not in row and row["batch"] in compared
            else None
        )
    return {
        "rows": rows,
        "mean_length": length,
        "kv_bytes": sizes.kv_bytes,
        "weight_bytes": sizes.weight_bytes,
        "floor_weights_ms": 1e3 * sizes.decode_bytes(1, 0) / b.bandwidth,
    }


def decoded(b: Bench, model: torch.nn.Module, path: str, asked: list[Request], short: int, long: int) -> dict:
    """One path's timings, and its token steps without the prefill."""
    counted: Counter[str] = Counter()
    draw = sampler(model, path, asked, counted)
    (plain_norms if path == "generate" else b.usual_norms)(model)
    draw(min(long, 2 * slots.LOOK))  # compiles and warms up
    brief = b.timed(lambda: draw(short), REPEATS)
    counted.clear()
    whole = b.timed(lambda: draw(long), REPEATS)
    seconds = (middle(whole) - middle(brief)) / (long - short)
    at_once = (
        counted["token steps"] <= REPEATS * -(-long // slots.LOOK) * slots.LOOK
    )  # else some rows had to wait for others (none do in `generate`)
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


def show_sampling(found: dict) -> tuple[Table, str]:
    rows = [
        (
            f"{r['path']}, batch {r['batch']}",
            *(
                [r["error"][:40]] + [""] * 7
                if "error" in r
                else (
                    number(r["ms_a_step"], ".2f"),
                    number(r["tokens_per_second"], ",.0f"),
                    number(r["x_generate"], ".1f"),
                    number(r["floor_ms"], ".2f"),
                    number(r["x_floor"], ".2f"),
                    number(r["whole_tokens_per_second"], ",.0f"),
                    number(r["peak_gb"], ".1f"),
                )
            ),
        )
        for r in found["rows"]
    ]
    headings = (
        "path",
        "ms a token step",
        "tokens/s",
        "x faster than generate",
        "floor, ms a step",
        "x floor",
        "tokens/s, prefill in",
        "peak GB",
    )
    slow = next(
        (r for r in found["rows"] if r["path"] != "slots" and "error" not in r),
        {"short_tokens": 0, "long_tokens": 0},
    )
    ours = next((r for r in found["rows"] if r["path"] == "slots" and "error" not in r), {"long_tokens": 0})
    return table("sampling", headings, rows), (
        f"ms a step and tokens/s are without prefill: the time of {ours['long_tokens']} tokens less that of the first (plain, generate: of "
        f"{slow['long_tokens']} less that of {slow['short_tokens']}, around the same mean length, {found['mean_length']:.0f}); slots include capturing "
        f"their graph. {GROUP} rows share a prompt; nothing ends early. A dash for ms a step: some rows had to wait for others. floor: all weights, the "
        f"keys and values of what was drawn, and those of the prompts once a group are read; the weights alone, {found['weight_bytes'] / 1e9:.3g} GB, take "
        f"{found['floor_weights_ms']:.3g} ms."
    )
