"""Section monitor: what reading every rollout's gradient before its reward is used adds to a backward.

vanilla: the backward of the loss with its KL. one pass: the rollouts' gradients and the KL part's, then their
weighted sum (where they fit into memory). two passes: the scores alone, then vanilla's backward at the
advantages that the flags leave.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from rich.console import Group

from hackward.base.screen import progress
from hackward.benchmarks.parts import Bench, Timing, cells, every, highest, middle, table
from hackward.benchmarks.probe import WARM_UP, built_adapter, forget
from hackward.method import gradients
from hackward.method.adapters import SVDAdapter
from hackward.method.projection import norm

BETA = 1e-3


def ways(adapter: SVDAdapter, rows: list) -> dict[str, Callable[[], None]]:
    """Each way to the same gradient, a function of nothing that leaves it in .grad."""
    count, everything = len(rows), len(rows) * 10**6
    advantages = torch.linspace(-1, 1, count)
    lengths = torch.tensor([float(len(completion)) for _, completion in rows])
    beta_N = torch.full((count,), BETA)

    def vanilla() -> None:
        gradients.backward(adapter, rows, advantages, lengths, pad=0, tokens=everything, beta_N=beta_N)

    def one_pass() -> None:
        seen = gradients.row_gradients(adapter, rows, lengths, pad=0, tokens=everything, beta_N=beta_N)
        seen.weighted(adapter, advantages)

    def two_passes() -> None:
        gradients.read_rows(adapter, rows, lambda g: norm(g)[:, None], pad=0, tokens=everything)
        vanilla()

    return {"vanilla": vanilla, "one pass": one_pass, "two passes": two_passes}


def measure_monitor(b: Bench) -> dict:
    """The ways by turns on the same rows."""
    model, _ = b.load()
    config, adapter = b.config, built_adapter(b, model)
    prompt = config.tokens // 3
    ids = torch.randint(0, model.config.vocab_size, (config.samples, config.tokens)).tolist()
    candidates = ways(adapter, [(row[:prompt], row[prompt:]) for row in ids])
    timings: dict[str, list[Timing]] = {name: [] for name in candidates}
    with progress("rounds", (config.rounds + WARM_UP) * len(candidates)) as bar:
        for _ in range(config.rounds + WARM_UP):
            for name, action in candidates.items():
                forget(adapter)
                timings[name] += b.timed(action)
                bar()
    counted = {name: found[WARM_UP:] for name, found in timings.items()}
    usual = middle(counted["vanilla"])
    rows = {
        name: {
            "seconds": middle(found),
            "all": every(found),
            "peak_gb": highest(found),
            "x_vanilla": middle(found) / usual,
        }
        for name, found in counted.items()
    }
    return {"rows": rows, "samples": config.samples, "tokens": config.tokens}


def show_monitor(found: dict) -> tuple[Group, str]:
    """The table and the caption below it."""
    columns = {
        "seconds": ("seconds", ".4f"),
        "x vanilla": ("x_vanilla", ".2f"),
        "peak GB": ("peak_gb", ".1f"),
    }
    rows = cells(found["rows"], columns)
    rounds = len(found["rows"]["vanilla"]["all"])
    title = f"backward with a monitor, {found['samples']} x {found['tokens']} tokens, median of {rounds}"
    caption = (
        "vanilla: loss and KL; one pass: rollouts' gradients, weighed afterwards; two: scores, then vanilla"
    )
    return table(title, ("", *columns), rows), caption
