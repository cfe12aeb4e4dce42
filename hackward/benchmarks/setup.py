"""Section setup: the model from disk, the adapter cold and warm, merging, v_hack; beside LAPACK's gesvd."""

from __future__ import annotations

import tempfile
from collections import Counter

import torch
from rich.table import Table

from hackward.base.screen import progress
from hackward.benchmarks.parts import REPEATS, Bench, Sizes, every, highest, middle, number, release, table
from hackward.hardware import models
from hackward.method import extraction
from hackward.method.adapters import SVDAdapter, target_linears
from hackward.method.pairs import find_pairs
from hackward.method.recipe import Extraction
from hackward.runs.settings import PRESETS


def measure_setup(b: Bench) -> dict:
    """The model from disk; the adapter without a cache, filling one, and from it; merging; extraction; and what LAPACK's driver would take."""
    with tempfile.TemporaryDirectory() as directory:
        for part in b.load():
            part.save_pretrained(directory)
        del part
        release()
        loaded: list[tuple] = []
        timing = b.timed(
            lambda: loaded.append(models.load(directory, dtype=b.config.dtype, device=b.config.device))
        )[0]
    model, tokenizer = loaded.pop()
    found = {
        "loading the model": {"seconds": timing.seconds, "all": [timing.seconds], "peak_gb": timing.peak_gb}
    }
    sizes, linears = Sizes.of(model), dict(target_linears(model))
    solve = (
        (lambda W: torch.linalg.svd(W, full_matrices=False, driver="gesvd"))
        if b.on_gpu
        else (lambda W: torch.linalg.svd(W, full_matrices=False))
    )
    if b.on_gpu:  # the solver libraries load once, not per model
        torch.linalg.eigh(torch.eye(8, dtype=torch.float64, device=b.device))
        solve(torch.eye(8, device=b.device))
    counts, gesvd = Counter(linear.weight.shape for linear in linears.values()), {}
    for shape, linear in {linear.weight.shape: linear for linear in linears.values()}.items():
        W = linear.weight.detach().float()
        gesvd["x".join(map(str, shape))] = {
            "seconds": b.timed(lambda: solve(W))[0].seconds,
            "modules": counts[shape],
        }

    with tempfile.TemporaryDirectory() as directory:
        for name, cache in (
            ("cold, no cache", None),
            ("cold, filling a cache", directory),
            ("warm, from the cache", directory),
        ):
            adapter = None
            for place, linear in linears.items():  # in place of what the adapter before this one put there
                model.set_submodule(place, linear)
            release()
            with progress(f"set-up: {name}") as bar:
                made: list[SVDAdapter] = []
                timing = b.timed(lambda: made.append(SVDAdapter(model, cache=cache, track=bar.track)))[0]
            adapter = made.pop()
            found[name] = {
                "seconds": timing.seconds,
                "all": [timing.seconds],
                "peak_gb": timing.peak_gb,
                "hits": adapter.cache.hits,
                "seconds_until_written": b.timed(adapter.cache.flush)[0].seconds,
            }  # on a GPU files are written behind its back

    def merge() -> None:
        with torch.no_grad():
            for p in adapter.params.values():
                p.add_(1e-3)  # else there is nothing to do
        with adapter.merged():
            pass

    merges = b.timed(merge, REPEATS + 1)[1:]
    found["merging all modules"] = {
        "seconds": middle(merges),
        "all": every(merges),
        "peak_gb": highest(merges),
    }
    settings, full = Extraction(), PRESETS["full"]
    pairs, source = find_pairs(
        b.model_name,
        tokenizer,
        model,
        pairs=None,
        pool=None,
        problem_file=None,
        clean="canonical",
        limit=settings.max_pairs,
        seed=settings.seed,
    )
    timing = b.timed(
        lambda: extraction.extract(
            adapter, tokenizer, pairs, settings, source=source, tokens=full.micro_tokens
        )
    )[0]
    answers = sum(len(p.hack_ids) + len(p.clean_ids) for p in pairs)
    tokens = answers + sum(2 * len(p.prompt_ids) for p in pairs)
    found["v_hack from the shipped pairs"] = {
        "seconds": timing.seconds,
        "all": [timing.seconds],
        "peak_gb": timing.peak_gb,
        "floor_seconds": sizes.operations(tokens, answers, passes=2) / b.rate,
    }
    return {
        "rows": found,
        "modules": len(linears),
        "gesvd": gesvd,
        "gesvd_seconds": sum(g["seconds"] * g["modules"] for g in gesvd.values()),
        "pairs": len(pairs),
        "pair_tokens": tokens,
    }


def show_setup(found: dict) -> tuple[Table, str]:
    rows = []
    for name, r in found["rows"].items():
        floor = r.get("floor_seconds")
        rows.append(
            (
                name,
                f"{r['seconds']:.3f}",
                f"{found['gesvd_seconds'] / r['seconds']:.1f}" if "hits" in r else "-",
                number(floor, ".3f"),
                number(floor and r["seconds"] / floor, ".1f"),
                number(r["peak_gb"], ".1f"),
            )
        )
    rows.append(("SVD by gesvd, fp32 (estimate)", f"{found['gesvd_seconds']:.3f}", "1.0", "-", "-", "-"))
    return table(
        f"set-up of {found['modules']} modules",
        ("what", "seconds", "x faster than gesvd", "floor, s", "x floor", "peak GB"),
        rows,
    ), (
        f"gesvd is estimated from {len(found['gesvd'])} modules, one of each shape. The model is loaded and each adapter built once, merging is a median of "
        f"{REPEATS}. The model's files were just written, and those of the cache, from which {found['rows']['warm, from the cache']['hits']} of {found['modules']} came: "
        f"{found['rows']['cold, filling a cache']['seconds_until_written']:.1f} s after the cold adapter was ready. v_hack: "
        f"{found['pairs']} pairs, {found['pair_tokens']} tokens, with its held-out quality and permutations; floor: 4 operations a parameter and token"
    )
