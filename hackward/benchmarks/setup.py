"""Section setup: the model from disk, the adapter cold and warm, merging, v_hack; beside LAPACK's gesvd."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable
from functools import partial

import torch
from rich.console import Group
from torch import nn

from hackward.base.screen import progress
from hackward.base.types import CausalLM, Tokenizer
from hackward.benchmarks.parts import (
    REPEATS,
    Bench,
    Sizes,
    Timing,
    every,
    highest,
    middle,
    number,
    release,
    table,
)
from hackward.hardware import models
from hackward.method import extraction
from hackward.method.adapters import SVDAdapter
from hackward.method.pairs import find_pairs
from hackward.method.recipe import Extraction
from hackward.method.targets import target_linears
from hackward.runs.settings import PRESETS


def measure_setup(b: Bench) -> dict:
    """The model from disk; the adapter without a cache, filling one, and from it; merging; extraction.

    Beside the adapter's SVD stands what LAPACK's driver would take.
    """
    model, tokenizer, rows = loaded_model(b)
    sizes, linears = Sizes.of(model), dict(target_linears(model))
    gesvd = measure_gesvd(b, linears)
    adapter, built = built_adapters(b, model, linears)
    rows |= built
    rows["merging all modules"] = measure_merging(b, adapter)
    rows["v_hack from the shipped pairs"], pairs, tokens = measure_extraction(b, adapter, tokenizer, sizes)
    return {
        "rows": rows,
        "modules": len(linears),
        "gesvd": gesvd,
        "gesvd_seconds": sum(found["seconds"] * found["modules"] for found in gesvd.values()),
        "pairs": pairs,
        "pair_tokens": tokens,
    }


def once(timing: Timing) -> dict:
    """The record of what is done once."""
    return {"seconds": timing.seconds, "all": [timing.seconds], "peak_gb": timing.peak_gb}


def loaded_model(b: Bench) -> tuple[CausalLM, Tokenizer, dict[str, dict]]:
    """The model and its tokenizer, loaded from files that were just written, and how long that took."""
    loaded: list[tuple] = []
    with tempfile.TemporaryDirectory() as directory:
        for part in b.load():
            part.save_pretrained(directory)
        del part
        release()

        def load() -> None:
            loaded.append(models.load(directory, dtype=b.config.dtype, device=b.config.device))

        (timing,) = b.timed(load)
    model, tokenizer = loaded[0]
    return model, tokenizer, {"loading the model": once(timing)}


def measure_gesvd(b: Bench, linears: dict[str, nn.Linear]) -> dict[str, dict]:
    """By shape of a target module: seconds of LAPACK's gesvd on one of them, and how many there are."""
    solve = gesvd_of(b.on_gpu)
    if b.on_gpu:
        # The solver libraries load once, not per model.
        torch.linalg.eigh(torch.eye(8, dtype=torch.float64, device=b.device))
        solve(torch.eye(8, device=b.device))
    counts = Counter(linear.weight.shape for linear in linears.values())
    one_of_each = {linear.weight.shape: linear.weight for linear in linears.values()}
    found = {}
    for shape, weight in one_of_each.items():
        (timing,) = b.timed(partial(solve, weight.detach().float()))
        found["x".join(map(str, shape))] = {"seconds": timing.seconds, "modules": counts[shape]}
    return found


def gesvd_of(on_gpu: bool) -> Callable[[torch.Tensor], object]:
    """The full SVD by LAPACK's gesvd: a driver that can be named on a GPU only."""
    driver = {"driver": "gesvd"} if on_gpu else {}
    return lambda W: torch.linalg.svd(W, full_matrices=False, **driver)


def built_adapters(
    b: Bench, model: nn.Module, linears: dict[str, nn.Linear]
) -> tuple[SVDAdapter, dict[str, dict]]:
    """The adapter without a cache, filling one, and from it: the last one, and what each took."""
    found = {}
    with tempfile.TemporaryDirectory() as directory:
        for name, cache in (("cold, no cache", None), ("cold, filling a cache", directory)):
            found[name] = built_adapter(b, model, linears, name, cache)[1]
        name = "warm, from the cache"
        adapter, found[name] = built_adapter(b, model, linears, name, directory)
    return adapter, found


def built_adapter(
    b: Bench, model: nn.Module, linears: dict[str, nn.Linear], name: str, cache: str | None
) -> tuple[SVDAdapter, dict]:
    """An adapter on the model's own modules, in place of what an earlier one put there, and what it took."""
    for place, linear in linears.items():
        model.set_submodule(place, linear)
    release()
    made: list[SVDAdapter] = []
    with progress(f"set-up: {name}") as bar:
        (timing,) = b.timed(lambda: made.append(SVDAdapter(model, cache=cache, track=bar.track)))
    # On a GPU files are written behind its back.
    (written,) = b.timed(made[0].cache.flush)
    return made[0], once(timing) | {"hits": made[0].cache.hits, "seconds_until_written": written.seconds}


def measure_merging(b: Bench, adapter: SVDAdapter) -> dict:
    """Merging after a change of every parameter: else there is nothing to do."""

    def merge() -> None:
        with torch.no_grad():
            for p in adapter.params.values():
                p.add_(1e-3)
        with adapter.merged():
            pass

    merges = b.timed(merge, REPEATS + 1)[1:]
    return {"seconds": middle(merges), "all": every(merges), "peak_gb": highest(merges)}


def measure_extraction(
    b: Bench, adapter: SVDAdapter, tokenizer: Tokenizer, sizes: Sizes
) -> tuple[dict, int, int]:
    """v_hack from the shipped pairs: what it took, how many pairs they are, and their tokens."""
    settings, micro_tokens = Extraction(), PRESETS["full"].micro_tokens
    pairs, source = find_pairs(
        b.model_name,
        tokenizer,
        adapter.model,
        pairs=None,
        pool=None,
        problem_file=None,
        clean="canonical",
        limit=settings.max_pairs,
        seed=settings.seed,
    )

    def extract() -> None:
        extraction.extract(adapter, tokenizer, pairs, settings, source=source, tokens=micro_tokens)

    (timing,) = b.timed(extract)
    answers = sum(len(p.hack_ids) + len(p.clean_ids) for p in pairs)
    tokens = answers + sum(2 * len(p.prompt_ids) for p in pairs)
    floor = sizes.operations(tokens, answers, passes=2) / b.rate
    return once(timing) | {"floor_seconds": floor}, len(pairs), tokens


def show_setup(found: dict) -> tuple[Group, str]:
    """The table and the caption below it."""
    rows = []
    for name, row in found["rows"].items():
        floor, seconds = row.get("floor_seconds"), row["seconds"]
        faster = found["gesvd_seconds"] / seconds if "hits" in row else None
        rows.append(
            (
                name,
                f"{seconds:.3f}",
                number(faster, ".1f"),
                number(floor, ".3f"),
                number(floor and seconds / floor, ".1f"),
                number(row["peak_gb"], ".1f"),
            )
        )
    rows.append(("SVD by gesvd, fp32 (estimate)", f"{found['gesvd_seconds']:.3f}", "1.0", "-", "-", "-"))
    headings = ("what", "seconds", "x faster than gesvd", "floor, s", "x floor", "peak GB")
    hits = found["rows"]["warm, from the cache"]["hits"]
    written = found["rows"]["cold, filling a cache"]["seconds_until_written"]
    caption = (
        f"gesvd is estimated from {len(found['gesvd'])} modules, one of each shape. The model is loaded and"
        f" each adapter built once, merging is a median of {REPEATS}. The model's files were just written,"
        f" and those of the cache, from which {hits} of {found['modules']} came: {written:.1f} s after the"
        f" cold adapter was ready. v_hack: {found['pairs']} pairs, {found['pair_tokens']} tokens, with its"
        " held-out quality and permutations; floor: 4 operations a parameter and token"
    )
    return table(f"set-up of {found['modules']} modules", headings, rows), caption
