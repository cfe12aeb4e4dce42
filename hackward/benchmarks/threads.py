"""Section threads: the same small work in several processes at once, with a thread a core each, and with one.

The work is what a run on a GPU leaves to its CPU: V of pairs' gradients, many small decompositions.
"""

from __future__ import annotations

import multiprocessing
import time
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier

import torch
from rich.console import Group

from hackward.base.screen import progress
from hackward.benchmarks.parts import Bench, table
from hackward.hardware.cores import share_of_cores
from hackward.method.recipe import Extraction
from hackward.method.v_hack import directions

PROCESSES = (1, 2, 4)  # at once
PAIRS, RANK, MODULES = 64, 896, 84  # half of the modules of a model of 0.5 B


def measure_threads(b: Bench) -> dict:
    """Seconds until the last of the processes is done, at every number of them."""
    cores = share_of_cores(1)
    rows = []
    with progress("processes at once", len(PROCESSES)) as bar:
        for processes in PROCESSES:
            many, one = slowest(processes, cores), slowest(processes, 1)
            rows.append({"processes": processes, "many": many, "one": one, "x_slower": many / one})
            bar()
    return {"cores": cores, "rows": rows}


def slowest(processes: int, threads: int) -> float:
    """Seconds of the slowest of so many that begin together."""
    fresh = multiprocessing.get_context("spawn")
    begin, taken = fresh.Barrier(processes), fresh.Queue()
    workers = [fresh.Process(target=_work, args=(threads, begin, taken)) for _ in range(processes)]
    for worker in workers:
        worker.start()
    seconds = [taken.get() for _ in workers]
    for worker in workers:
        worker.join()
    return max(seconds)


def _work(threads: int, begin: Barrier, taken: Queue[float]) -> None:
    """One process: its seconds, after a first time that does not count."""
    torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(0)
    gradients = {f"{i}": torch.randn(PAIRS, RANK, generator=generator) for i in range(MODULES)}
    settings = Extraction()
    directions(gradients, settings.k, settings.noise_floor)
    begin.wait()
    started = time.perf_counter()
    directions(gradients, settings.k, settings.noise_floor)
    taken.put(time.perf_counter() - started)


def show_threads(found: dict) -> tuple[Group, str]:
    """The table and the caption below it."""
    rows = [
        (str(row["processes"]), f"{row['many']:.2f}", f"{row['one']:.2f}", f"{row['x_slower']:.1f}")
        for row in found["rows"]
    ]
    headings = ("processes at once", f"{found['cores']} threads each, s", "one each, s", "x slower")
    caption = (
        f"Until the last process is done: V of {PAIRS} pairs in {MODULES} modules of rank {RANK}, on"
        f" {found['cores']} cores. A run on a GPU takes one thread, and runs of a sweep share the cores out,"
        " unless OMP_NUM_THREADS is set."
    )
    return table("threads on the CPU", headings, rows), caption
