"""Section prompts: the backward of a full step with every prompt computed once per group, or once per row.

The rows are those of one step of the full preset, at the lengths of a real pool. Each way is timed by turns.
The gradients are compared, and beside that stands what rounding alone does: single rows, cut into
micro-batches of another size.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from rich.console import Group

from hackward.base.screen import progress
from hackward.base.seeds import seeded
from hackward.benchmarks.imposed import COMPLETION, PROMPT, TYPICAL_LIMIT, lognormal
from hackward.benchmarks.monitor import BETA
from hackward.benchmarks.parts import Bench, Timing, cells, every, highest, middle, table
from hackward.benchmarks.probe import built_adapter, forget, grads
from hackward.benchmarks.step import FULL_RUN, TINY_RUN
from hackward.method import gradients
from hackward.method.losses import Row
from hackward.method.shared_prompts import SHARED, SINGLE, Layout, by_prompt, why_not

ROUNDS = 2  # timed, after one that sizes the micro-batches
SINGLE_ROWS, PACKS, CUT = "single rows", "shared prompts", "single rows, cut otherwise"
CUT_TOKENS = 6144  # of a micro-batch of single rows that is cut otherwise


def rows_of_a_step(b: Bench) -> list[Row]:
    """Prompts and completions of random ids, of as many and as long as in a step."""
    run = TINY_RUN if b.config.shape == "tiny" else FULL_RUN
    scale = run.max_new_tokens / TYPICAL_LIMIT
    rows: list[Row] = []
    for prompt in range(run.prompts):
        shared = ids_of(lognormal(PROMPT, scale, "prompts", prompt), prompt)
        for sample in range(run.group):
            length = min(run.max_new_tokens, lognormal(COMPLETION, scale, "prompts", prompt, sample))
            rows.append((shared, ids_of(length, prompt, sample)))
    return rows


def ids_of(length: int, *key: int) -> list[int]:
    """Token ids that every model has."""
    return seeded("prompts", "ids", *key).integers(200, size=length).tolist()


def measure_prompts(b: Bench) -> dict:
    """Seconds, memory and gradients of the ways. {"error": why} for a model that cannot share prompts."""
    model, _ = b.load()
    reason = why_not(model)
    if reason is not None:
        return {"error": reason}
    adapter, rows = built_adapter(b, model), rows_of_a_step(b)
    count = len(rows)
    advantages = torch.linspace(-1, 1, count)
    lengths = torch.full((count,), float(count * FULL_RUN.max_new_tokens))
    beta_N = torch.full((count,), BETA)

    def way(layout: Layout, tokens: int | None = None) -> Callable[[], object]:
        return lambda: gradients.backward(
            adapter, rows, advantages, lengths, pad=0, beta_N=beta_N, layout=layout, tokens=tokens
        )

    ways = {SINGLE_ROWS: way(SINGLE), PACKS: way(SHARED), CUT: way(SINGLE, CUT_TOKENS)}
    timings: dict[str, list[Timing]] = {name: [] for name in ways}
    found: dict[str, torch.Tensor] = {}
    with progress("rounds", (ROUNDS + 1) * len(ways)) as bar:
        for _ in range(ROUNDS + 1):
            for name, action in ways.items():
                forget(adapter)
                timings[name] += b.timed(action)
                found[name] = torch.cat([g.flatten() for g in grads(adapter).values()]).double()
                bar()
    counted = {name: seconds[1:] for name, seconds in timings.items()}
    groups, completions = by_prompt(rows), sum(len(completion) for _, completion in rows)
    return {
        "rows": {name: row_of(name, counted, found) for name in ways},
        "prompts": len(groups),
        "count": count,
        "tokens_single": completions + sum(len(prompt) for prompt, _ in rows),
        "tokens_shared": completions + sum(len(rows[group[0]][0]) for group in groups),
    }


def row_of(name: str, timings: dict[str, list[Timing]], found: dict[str, torch.Tensor]) -> dict:
    """A way's seconds beside those of single rows, and how far its gradient is from theirs, relative to its
    length."""
    usual = found[SINGLE_ROWS]
    return {
        "seconds": middle(timings[name]),
        "all": every(timings[name]),
        "peak_gb": highest(timings[name]),
        "faster": middle(timings[SINGLE_ROWS]) / middle(timings[name]),
        "difference": float((found[name] - usual).norm() / usual.norm()),
    }


def show_prompts(found: dict) -> tuple[Group, str]:
    """The table and the caption below it."""
    columns = {
        "seconds": ("seconds", ".3f"),
        "x faster": ("faster", ".2f"),
        "peak GB": ("peak_gb", ".1f"),
        "gradient differs by": ("difference", ".1e"),
    }
    rows = cells(found["rows"], columns)
    title = (
        f"backward of {found['count']} rows of {found['prompts']} prompts, with KL, median of"
        f" {len(found['rows'][SINGLE_ROWS]['all'])}"
    )
    caption = (
        f"tokens through the model: {found['tokens_single']} row by row, {found['tokens_shared']} with shared"
        f" prompts. The difference is relative to the gradient of single rows; {CUT!r} (micro-batches of at"
        f" most {CUT_TOKENS} tokens) is what rounding alone does."
    )
    return table(title, ("", *columns), rows), caption
