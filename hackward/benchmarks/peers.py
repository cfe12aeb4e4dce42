"""Section peers: whole steps and set-up of ours beside TRL's GRPOTrainer, on one card in one run."""

from __future__ import annotations

import contextlib
import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from rich.console import Group

from hackward.base.files import read_json
from hackward.base.screen import progress
from hackward.benchmarks.alone import WHY, alone, noted, tell
from hackward.benchmarks.exact import Exact
from hackward.benchmarks.flags import peer_sizes_of
from hackward.benchmarks.parts import GROUP, Bench, number, peak_gb, table
from hackward.benchmarks.step import FULL_RUN, rows_and_lengths, seconds_rest
from hackward.benchmarks.trl_step import longest_of, rows_at_once, trl_steps
from hackward.hardware import models
from hackward.runs.settings import Config

# Heading in the table -> what it shows of a variant, beside how many times that of the base it is.
COMPARED = {
    "step": "seconds",
    "sampling": "seconds_generate",
    "backward": "seconds_backward",
    "set-up": "seconds_set_up",
}
ALONE = ("rest", "first step", "trained", "peak GB")
MICRO_TOKENS = 8192  # padded tokens of a micro-batch, on both sides
BASE = "ours, LoRA"
OURS: dict[str, dict[str, Any]] = {"ours, delta_S": {"arm": "vanilla"}, BASE: {"arm": "lora", "gate": "none"}}
TRL = {"TRL, generate": False, "TRL, continuous": True}


def measure_peers(b: Bench, run: Callable[..., dict] = alone) -> dict:
    """Every variant in a process of its own, which nothing of another is warm in; a failed one has an error.

    `run` is called as `alone` is.
    """
    limit, rows = float(b.config.peer_seconds), {}
    with progress("peers", len(OURS) + len(TRL)) as bar:
        for name, arm in OURS.items():
            rows[name] = summed(run(our_steps, b, arm, seconds=limit, hear=noted(bar, name)))
            bar()
        for name, continuous in TRL.items():
            bounded = partial(run, seconds=limit, hear=noted(bar, name))
            rows[name] = summed(trl_variant(b, bounded, continuous))
            bar()
    compare(rows, BASE)
    sizes = peer_sizes_of(b.config)
    return {
        "rows": rows,
        "base": BASE,
        "micro_tokens": MICRO_TOKENS,
        "prompts": sizes.peer_prompts,
        "group": GROUP,
        "tokens": sizes.peer_tokens,
    }


def trl_variant(b: Bench, run: Callable[..., dict], continuous: bool) -> dict:
    """TRL with a LoRA like ours.

    Its micro-batch is as large as ours; where the memory does not suffice, half of it, and so on.
    """
    count = peer_sizes_of(b.config).peer_prompts * GROUP
    ours = settings_of(b, OURS[BASE], Path()).rank
    rows = rows_at_once(count, longest_of(b.config), MICRO_TOKENS)
    while True:
        found = run(trl_steps, b, continuous, ours, rows)
        if rows == 1 or "OutOfMemory" not in found.get("error", ""):
            return found
        rows = max(part for part in range(1, rows) if not count % part)


def settings_of(b: Bench, arm: dict[str, Any], out: Path) -> Config:
    """Our run: the full preset's step, cut to the sizes of this section, nothing measured beside it."""
    sizes = peer_sizes_of(b.config)
    return dataclasses.replace(
        FULL_RUN,
        model=b.model_name,
        v_hack="none",
        steps=b.config.steps,
        prompts=sizes.peer_prompts,
        group=GROUP,
        max_new_tokens=sizes.peer_tokens,
        temperature=1.0,
        beta=0.0,
        micro_tokens=MICRO_TOKENS,
        workers=1,
        sandbox="none",
        dtype=b.config.dtype,
        device=b.config.device,
        out=str(out),
        problems=None,
        eval_samples=0,
        teacher_dir=None,
        svd_cache=None,
        **arm,
    )


def our_steps(b: Bench, arm: dict[str, Any]) -> dict:
    """Steps through train.py's loop: phases, memory, and the set-up from the model in memory on."""
    import peft  # noqa: F401  before the clock runs, as on the other side

    Exact.first, Exact.found = None, None
    tell("loading the model")
    with tempfile.TemporaryDirectory() as directory, loading() as loaded:
        out = Path(directory, "run")

        def found() -> dict:
            assert Exact.first is not None  # a step has begun
            steps = [_step(row, drawn) for row, drawn in zip(*rows_and_lengths(out), strict=True)]
            return {
                "trainable": read_json(out / "config.json")["model"]["trainable"],
                "seconds_set_up": Exact.first - loaded[-1],
                "steps": steps,
                "peak_gb": peak_gb(b.device),
            }

        Exact.found = found
        b.timed(lambda: b.train(settings_of(b, arm, out), policy=Exact))
        Exact.found = None
        return found()


@contextlib.contextmanager
def loading() -> Iterator[list[float]]:
    """When models came to be in memory on their device, while this lasts."""
    settle, times = models.settle, []

    def settled(*parts: Any) -> Any:
        model = settle(*parts)
        times.append(time.monotonic())
        tell("making the adapter")
        return model

    with patch.object(models, "settle", settled):
        yield times


def _step(row: dict, drawn: list[tuple[int, int]]) -> dict:
    """A step's seconds by phase, without what was waited for grades."""
    return {
        "completion_tokens": sum(length for _, length in drawn),
        "seconds": row["seconds"] - row["seconds_grade"],
        "seconds_generate": row["seconds_generate"],
        "seconds_backward": row["seconds_backward"],
        "seconds_rest": seconds_rest(row),
    }


def summed(found: dict) -> dict:
    """A variant with the medians of its steps after the first, which warms up (unless it is the only one)."""
    if "error" in found:
        return found
    counted = found["steps"][1:] or found["steps"]
    medians = {name: statistics.median(step[name] for step in counted) for name in counted[0]}
    return found | {"medians": medians, "seconds_first_step": found["steps"][0]["seconds"]}


def compare(rows: dict[str, dict], base: str) -> None:
    """Add to every row how many times the seconds of the row `base` it takes, phase by phase; None where one
    of the two is not known."""
    ours = _compared(rows[base])
    for row in rows.values():
        taken = _compared(row)
        row["x_base"] = {name: _ratio(taken.get(name), ours.get(name)) for name in COMPARED.values()}


def _compared(row: dict) -> dict[str, float]:
    return {} if "error" in row else row["medians"] | {"seconds_set_up": row["seconds_set_up"]}


def _ratio(taken: float | None, base: float | None) -> float | None:
    return taken / base if taken is not None and base else None


def show_peers(found: dict) -> tuple[Group, str]:
    """The table and the caption below it."""
    rows = [(_shown(name, row), *_cells(row)) for name, row in found["rows"].items()]
    title = f"a step of {found['prompts']} prompts x {found['group']} completions of {found['tokens']} tokens"
    return table(title, ("seconds", *COMPARED, *ALONE), rows), peers_caption(found)


def _shown(name: str, row: dict) -> str:
    return f"{name} (cut)" if "cut" in row else name


def _cells(row: dict) -> list[str]:
    """Seconds, and in brackets how many times those of the base; or the reason why there are none."""
    if "error" in row:
        return [row["error"][:WHY], *[""] * (len(COMPARED) + len(ALONE) - 1)]
    taken, ratios = _compared(row), row["x_base"]
    return [
        *(f"{taken[key]:.3g} ({number(ratios[key], '.3g')})" for key in COMPARED.values()),
        f"{row['medians']['seconds_rest']:.2g}",
        f"{row['seconds_first_step']:.3g}",
        f"{row['trainable']:,}",
        number(row["peak_gb"], ".1f"),
    ]


def peers_caption(found: dict) -> str:
    """What is in the seconds and what is not, and how TRL was set."""
    rows = {name: row for name, row in found["rows"].items() if "error" not in row}
    settings = [
        f"{name}: version {row['version']}, rank {row['rank']}, {row['rows_at_once']} rows a micro-batch,"
        f" attention {row['attention']}"
        for name, row in rows.items()
        if name in TRL
    ]
    cut = [
        f" {name} was cut, so it has {len(row['steps'])} steps: {row['cut']}."
        for name, row in rows.items()
        if "cut" in row
    ]
    steps = max((len(row["steps"]) for row in rows.values()), default=0)
    drawn = sorted({row["medians"]["completion_tokens"] for row in rows.values()})
    return (
        f"Medians of {max(steps - 1, 1)} of {steps} steps; the first, which warms up, stands alone. In"
        f" brackets: how many times the seconds of {found['base']}. Not in: loading the model, imports, and"
        " rewards, which are made up on both sides; nothing is graded, nothing measured along v_hack. Both"
        " have the same random weights, dtype, prompts (ids), temperature 1, no KL, no checkpointing of"
        f" activations, and draw every completion to the limit: {', '.join(f'{n:,.0f}' for n in drawn)}"
        f" tokens a step. Micro-batches: at most {found['micro_tokens']} padded tokens; TRL's have one size,"
        " smaller where the memory does not suffice. Each variant has a process of its own; set-up is cold,"
        " from the model in memory to the first step. trained: numbers that train, in our LoRA B alone, in"
        f" TRL's A and B, at a rank that makes them about as many.{''.join(cut)} {'; '.join(settings)}"
    )
