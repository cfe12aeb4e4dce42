"""What sampling, the probe, a training step and the set-up cost, each beside its baselines and its floor in the same run.

    ceilings   what this machine copies and multiplies; every floor is computed from these two rates
    sampling   a token step in slots, beside the plain path and transformers' `generate`
    probe      gradients of every sample in one backward, beside the frozen base, a forward hook, and separate backwards
    step       whole steps of a `full` run through train.py itself; lengths and texts are imposed (bench_parts.Imposed)
    setup      the model from disk, the adapter cold and warm, merging, v_hack from the shipped pairs; beside LAPACK's gesvd

Weights are random: what is measured is cost. Tables show medians; --out has every single timing.

    python bench.py                                                   CPU, tiny weights: under a minute
    python bench.py --shape=qwen3-4b --device=cuda --out=FILE.json    one 80 GB GPU: some minutes
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import asdict

import torch
from rich.table import Table

from hackward.base.faults import InputError, exit_on_fault
from hackward.base.files import write_json
from hackward.base.flags import command_line
from hackward.base.provenance import provenance
from hackward.base.screen import stdout
from hackward.benchmarks.flags import BenchFlags, resolve
from hackward.benchmarks.parts import Bench, release, table, unless_out_of_memory
from hackward.benchmarks.probe import measure_probe, show_probe
from hackward.benchmarks.sampling import measure_ceilings, measure_sampling, show_ceilings, show_sampling
from hackward.benchmarks.setup import measure_setup, show_setup
from hackward.benchmarks.step import measure_step, show_step
from hackward.hardware.models import pick_device
from train import train

SECTIONS: dict[str, tuple[Callable[[Bench], dict], Callable[[dict], tuple[Table, str]]]] = {
    "ceilings": (measure_ceilings, show_ceilings),
    "sampling": (measure_sampling, show_sampling),
    "probe": (measure_probe, show_probe),
    "step": (measure_step, show_step),
    "setup": (measure_setup, show_setup),
}


def main(config: BenchFlags) -> None:
    config, console = resolve(config), stdout()
    b = Bench(config, pick_device(config.device), train)
    where = torch.cuda.get_device_name(b.device) if b.on_gpu else f"CPU, {torch.get_num_threads()} threads"
    record = {"config": asdict(config), "device": where, **provenance()}
    console.print(f"{config.shape}, random weights, {where}", highlight=False)
    for name, (measure, show) in SECTIONS.items():
        if name != "ceilings" and name not in config.sections.split(","):
            continue
        found = record[name] = unless_out_of_memory(lambda: measure(b))
        release()
        if name == "ceilings":
            if "error" in found:
                raise InputError(
                    f"{where}: nothing can be measured beside what runs there already ({found['error']})"
                )
            b, record["dtype"] = (
                dataclasses.replace(b, bandwidth=found["bandwidth"], rate=found["rate"]),
                found["dtype"],
            )
        shown, caption = (
            (table(name, ("what", ""), [("failed", found["error"])]), "") if "error" in found else show(found)
        )
        if name in config.sections.split(","):
            console.print(shown)
            console.print(caption, highlight=False, markup=False)
        if config.out:
            write_json(config.out, record)  # after every section, so that what is done is kept


if __name__ == "__main__":
    exit_on_fault(lambda: main(command_line(BenchFlags, description=__doc__)))
