"""How many files this process may have open, and how many grading takes."""

from __future__ import annotations

import os
import resource

from hackward.base.faults import InputError

OF_A_CHILD = 64  # RLIMIT_NOFILE of graded code (fences.py), which no limit of ours may be below
OF_A_WORKER = 8  # sockets and handles on this side, at most
SPARE = 32  # for tensor files, rows and libraries


def check_descriptors(workers: int) -> None:
    """Raise this process's soft limit as far as `workers` need it. InputError where the hard one is too
    low."""
    needed = max(OF_A_CHILD, _open_now() + OF_A_WORKER * workers + SPARE)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if _enough(soft, needed):
        return
    if not _enough(hard, needed):
        raise InputError(
            f"only {hard} files may be open at once, and grading with {workers} workers takes {needed}:"
            f" `ulimit -n {needed}` raises the limit, a smaller --workers needs less (at least"
            f" {OF_A_CHILD} in any case)"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def _enough(limit: int, needed: int) -> bool:
    return limit == resource.RLIM_INFINITY or limit >= needed


def _open_now() -> int:
    try:
        return len(os.listdir("/proc/self/fd"))
    except OSError:
        return SPARE
