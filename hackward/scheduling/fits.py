"""Do the runs that go at once fit into a GPU together? Asked before any of them starts."""

from __future__ import annotations

import math
from collections.abc import Sequence

from hackward.base.faults import InputError
from hackward.hardware.cards import card_bytes
from hackward.runs.needs import Needs, needs_by_name
from hackward.scheduling.flags import SweepFlags
from hackward.scheduling.jobs import Job


def largest_needs(jobs: Sequence[Job]) -> Needs | None:
    """What the run that needs most needs, of those that are not done; None where nothing is known."""
    waiting = {(job.settings.model, job.coordinates): job for job in jobs if job.left and _on_gpu(job)}
    found = [needs for needs in (needs_by_name(job.settings) for job in waiting.values()) if needs]
    return max(found, key=lambda needs: needs.least, default=None)


def per_card(config: SweepFlags, jobs: Sequence[Job], places: int, total: int | None = None) -> int:
    """Runs at once on each of `places` GPUs with `total` bytes (default: those of the smallest GPU): what the
    flags say, else as many as fit with all their rows at once, one at the least."""
    if config.per_gpu is not None:
        return config.per_gpu
    if config.gpus_per_run > 1:
        return 1
    if config.jobs is not None:
        return math.ceil(config.jobs / places)
    largest = largest_needs(jobs)
    if largest is None:
        return 1
    total = card_bytes() if total is None else total
    waiting = math.ceil(sum(job.left > 0 for job in jobs) / places)
    return max(1, min(total // largest.asked, waiting))


def check_fits(jobs: Sequence[Job], at_once: int, total: int | None = None) -> Needs | None:
    """InputError where `at_once` of the runs need more than `total` bytes (default: those of the smallest
    GPU) at the least; else what the largest of them needs. None where nothing is known."""
    largest = largest_needs(jobs)
    if largest is None:
        return None
    total = card_bytes() if total is None else total
    fit = total // largest.least
    if fit == 0:
        raise InputError(
            f"a run needs {largest.words()}, and the GPU has {total / 1e9:.1f} GB: take a smaller model or"
            " --max-new-tokens (--anyway overrules)"
        )
    together = min(at_once, sum(job.left > 0 for job in jobs))
    if together > fit:
        raise InputError(
            f"{together} runs at once on a GPU need {together * largest.least / 1e9:.1f} GB of its memory at"
            f" the least, and it has {total / 1e9:.1f} GB: take --per-gpu {fit} or --jobs {fit}"
            " (--anyway overrules)"
        )
    return largest


def _on_gpu(job: Job) -> bool:
    return job.settings.device != "cpu"
