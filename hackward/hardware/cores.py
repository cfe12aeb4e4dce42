"""The CPU cores of this machine, and how many threads a process computes with.

PyTorch's threads wait for each other by spinning. Where processes together have more threads than there are
cores, those that spin keep the cores from those that they wait for, and small work all but stands still:
`bench.py --sections=threads` shows how much.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

THREADS = "OMP_NUM_THREADS"  # the variable that says it, to PyTorch and to numpy's libraries


def share_of_cores(processes: int) -> int:
    """How many cores each of so many processes may take, at least one."""
    return max(1, len(os.sched_getaffinity(0)) // processes)


def threads_at_once(processes: int, *, on_gpu: bool) -> dict[str, str]:
    """For the environment of each of so many processes: together they have no more threads than there are
    cores. Nothing for one alone, or where OMP_NUM_THREADS says it already."""
    if processes == 1 or THREADS in os.environ:
        return {}
    return {THREADS: "1" if on_gpu else str(share_of_cores(processes))}


def few_threads(place: torch.device) -> None:
    """Let a process that has a GPU compute with one thread on the CPU, unless OMP_NUM_THREADS says otherwise.

    What is left for its CPU is small, and graders and the runs on other GPUs want the cores.
    """
    import torch

    if place.type == "cuda" and THREADS not in os.environ:
        torch.set_num_threads(1)
