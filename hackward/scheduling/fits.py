"""Do the runs that go at once fit into the GPU together? Asked before any of them starts."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from hackward.base.faults import InputError
from hackward.runs.needs import Needs, needs_by_name
from hackward.scheduling.jobs import Job


def check_fits(jobs: Sequence[Job], at_once: int, total: int | None = None) -> Needs | None:
    """InputError where `at_once` of the runs need more than `total` bytes (default: those of the GPU) at the
    least; else what the largest of them needs. None where nothing is known."""
    waiting = {(job.settings.model, job.coordinates): job for job in jobs if job.left and _on_gpu(job)}
    found = [needs for needs in (needs_by_name(job.settings) for job in waiting.values()) if needs]
    if not found:
        return None
    largest = max(found, key=lambda needs: needs.least)
    # Asked so that this process, which stays, takes no memory of the card
    total = torch.cuda.get_device_properties(0).total_memory if total is None else total
    fit = total // largest.least
    if fit == 0:
        raise InputError(
            f"a run needs {largest.words()}, and the GPU has {total / 1e9:.1f} GB: take a smaller model or"
            " --max-new-tokens (--anyway overrules)"
        )
    together = min(at_once, sum(job.left > 0 for job in jobs))
    if together > fit:
        raise InputError(
            f"--jobs {at_once}: {together} runs at once need {together * largest.least / 1e9:.1f} GB of GPU"
            f" memory at the least, and the GPU has {total / 1e9:.1f} GB: take --jobs {fit}"
            " (--anyway overrules)"
        )
    return largest


def _on_gpu(job: Job) -> bool:
    return job.settings.device != "cpu"
