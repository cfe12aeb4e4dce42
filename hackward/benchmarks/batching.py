"""Section batching: sampling in slots beside transformers' continuous batching, on the same weights."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Group

from hackward.base.screen import progress
from hackward.benchmarks import continuous
from hackward.benchmarks.alone import WHY, alone, noted, tell
from hackward.benchmarks.flags import Lengths, lengths_of
from hackward.benchmarks.parts import Bench, number, requests, table
from hackward.benchmarks.sampling import EAGER_FIRST, measure_path

BASE = "slots"
SMALLEST = 64  # of the batches of section sampling, those from here on count; where none does, all


def measure_batching(b: Bench, run: Callable[..., dict] = alone) -> dict:
    """Slots and continuous batching at every large batch of section sampling, each by `run`: in a process of
    its own, since a fault in continuous batching's thread is waited for without end."""
    lengths, rows = lengths_of(b.config), []
    large = [batch for batch in lengths.batch_sizes if batch >= SMALLEST] or lengths.batch_sizes
    paths = (BASE, *continuous.PATHS) if b.on_gpu else (BASE, "continuous")
    pairs = [(batch, path) for batch in large for path in paths]
    with progress("batching", len(pairs)) as bar:
        for batch, path in pairs:
            hear = noted(bar, f"{path}, batch {batch}")
            found = run(path_of, b, batch, path, seconds=b.config.peer_seconds, hear=hear)
            rows.append({"path": path, "batch": batch, **found})
            bar()
    compare(rows)
    return {"rows": rows, "mean_length": mean_length(lengths)}


def mean_length(lengths: Lengths) -> float:
    """Around which token steps are timed."""
    return lengths.prompt_tokens + lengths.new_tokens / 2


def path_of(b: Bench, batch: int, path: str) -> dict:
    """A path's token steps; of continuous batching over a stretch around the same mean length."""
    tell("loading the model")
    model, _ = b.load()
    tell("drawing")
    lengths, vocabulary = lengths_of(b.config), model.config.vocab_size
    if path == BASE:
        asked = requests(batch, lengths.prompt_tokens, vocabulary)
        return measure_path(b, model, path, asked, 1, lengths.new_tokens)
    limit = EAGER_FIRST + lengths.eager_tokens
    prompt = max(1, round(mean_length(lengths) - limit / 2))
    return continuous.measured(b, model, path, requests(batch, prompt, vocabulary), limit)


def compare(rows: list[dict]) -> None:
    """Add to every row how many times faster slots are at its batch size; None where one is not known."""
    speeds = {row["batch"]: row.get("tokens_per_second") for row in rows if row["path"] == BASE}
    for row in rows:
        ours, theirs = speeds.get(row["batch"]), row.get("tokens_per_second")
        row["x_slower"] = ours / theirs if ours and theirs else None


def show_batching(found: dict) -> tuple[Group, str]:
    """The table and the caption below it."""
    headings = (
        "path",
        "ms per token step",
        "tokens/s",
        "slots are x faster",
        "peak GB",
        "attention",
        "graphs",
    )
    rows = [(f"{row['path']}, batch {row['batch']}", *_cells(row)) for row in found["rows"]]
    caption = (
        "Token steps without prefill, with all rows going on, around the same mean length,"
        f" {found['mean_length']:.0f}. slots: as in section sampling. Continuous batching: from when the last"
        " row has begun until the first one ends, by the times that it puts to its tokens; its pages and"
        " graphs are there before. Same weights and temperature, random prompts shared by six; nothing ends"
        " early. It attends with flash attention where flash-attn is installed, else with sdpa, and then"
        " leaves out graphs unless told to"
    )
    return table("slots beside continuous batching", headings, rows), caption


def _cells(row: dict) -> list[str]:
    if "error" in row:
        return [row["error"][:WHY], "", "", "", "", ""]
    graphs = {True: "yes", False: "no", None: "-"}[row.get("graphs")]
    return [
        number(row["ms_a_step"], ".2f"),
        f"{row['tokens_per_second']:,.0f}",
        number(row["x_slower"], ".2f"),
        number(row["peak_gb"], ".1f"),
        row.get("attention", "-"),
        graphs,
    ]
