"""The same bits from the same work on a GPU, as far as PyTorch has algorithms for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


class NotRepeatable(Exception):
    """An operation has no algorithm that gives the same bits each time."""


@contextmanager
def repeatable() -> Iterator[None]:
    """Within it, sums are added in an order that does not depend on which thread is first.

    The bits are the same on the same card with the same versions. cuBLAS takes part only if
    CUBLAS_WORKSPACE_CONFIG was set before the process's first product. Raises NotRepeatable, with PyTorch's
    words, where an operation has no such algorithm. (PyTorch, "Reproducibility".)
    """
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    except RuntimeError as fault:
        if "deterministic" not in str(fault):
            raise
        raise NotRepeatable(str(fault)) from fault
    finally:
        torch.use_deterministic_algorithms(before)
