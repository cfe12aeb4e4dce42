"""The sections of bench.py: what measures each, what shows it, and the order in which they run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console, Group

from hackward.base.faults import InputError
from hackward.base.files import write_json
from hackward.base.provenance import provenance
from hackward.base.screen import stdout
from hackward.benchmarks.batching import measure_batching, show_batching
from hackward.benchmarks.flags import BESIDE_OTHERS, OF_A_MODEL, SECTIONS, BenchFlags, sections_of
from hackward.benchmarks.grading import measure_grading, show_grading
from hackward.benchmarks.monitor import measure_monitor, show_monitor
from hackward.benchmarks.parts import Bench, release, table, unless_out_of_memory
from hackward.benchmarks.peers import measure_peers, show_peers
from hackward.benchmarks.probe import measure_probe, show_probe
from hackward.benchmarks.prompts import measure_prompts, show_prompts
from hackward.benchmarks.sampling import measure_ceilings, measure_sampling, show_ceilings, show_sampling
from hackward.benchmarks.scaling import measure_scaling, show_scaling
from hackward.benchmarks.setup import measure_setup, show_setup
from hackward.benchmarks.sharing import measure_sharing, show_sharing
from hackward.benchmarks.step import measure_step, show_step
from hackward.benchmarks.threads import measure_threads, show_threads
from hackward.hardware.models import pick_device

# Name -> what measures it, and what makes its table and the caption below it from what was measured.
MEASURES: dict[str, tuple[Callable[[Bench], dict], Callable[[dict], tuple[Group, str]]]] = {
    "ceilings": (measure_ceilings, show_ceilings),
    "sampling": (measure_sampling, show_sampling),
    "probe": (measure_probe, show_probe),
    "monitor": (measure_monitor, show_monitor),
    "prompts": (measure_prompts, show_prompts),
    "step": (measure_step, show_step),
    "setup": (measure_setup, show_setup),
    "grading": (measure_grading, show_grading),
    "scaling": (measure_scaling, show_scaling),
    "sharing": (measure_sharing, show_sharing),
    "threads": (measure_threads, show_threads),
    "batching": (measure_batching, show_batching),
    "peers": (measure_peers, show_peers),
}
if tuple(MEASURES) != SECTIONS:
    raise ImportError(f"sections with a name are {SECTIONS}, sections with a measure are {tuple(MEASURES)}")


def run_sections(config: BenchFlags, train: Callable[..., Path]) -> None:
    """Measure and show every section of a resolved config; `train` is train.py's loop.

    With --out the JSON is written after every section, so that what is done is kept. InputError where not
    even the ceilings can be measured.
    """
    console, wanted = stdout(), sections_of(config)
    b = Bench(config, pick_device(config.device), train)
    where = torch.cuda.get_device_name(b.device) if b.on_gpu else f"CPU, {torch.get_num_threads()} threads"
    record: dict[str, Any] = {"config": dataclasses.asdict(config), "device": where, **provenance()}
    of_a_model = any(name in (*OF_A_MODEL, *BESIDE_OTHERS) for name in wanted)
    title = f"{config.shape}, random weights, {where}" if of_a_model else where
    console.print(title, highlight=False)
    for name in SECTIONS:
        is_floor = name == "ceilings" and of_a_model
        if name not in wanted and not is_floor:
            continue
        measure, show = MEASURES[name]
        record[name] = found = measured(measure, b)
        if name == "ceilings":
            if "error" in found:
                raise InputError(
                    f"{where}: nothing can be measured beside what runs there ({found['error']})"
                )
            b = dataclasses.replace(b, bandwidth=found["bandwidth"], rate=found["rate"])
            record["dtype"] = found["dtype"]
        if name in wanted:
            show_section(name, found, show, console)
        if config.out:
            write_json(config.out, record)


def measured(measure: Callable[[Bench], dict], b: Bench) -> dict:
    """What a section finds, or {"error": why} where the GPU's memory does not suffice."""
    found = unless_out_of_memory(lambda: measure(b))
    release()
    return found


def show_section(name: str, found: dict, show: Callable[[dict], tuple[Group, str]], console: Console) -> None:
    """A section's table and caption; one line where it failed."""
    if "error" in found:
        shown, caption = table(name, ("what", ""), [("failed", found["error"])]), ""
    else:
        shown, caption = show(found)
    console.print(shown)
    console.print(caption, highlight=False, markup=False)
