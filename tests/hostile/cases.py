"""All hostile completions."""

from __future__ import annotations

from tests.hostile import (  # noqa: F401  (each adds to the list)
    adaptive_cases,
    call_cases,
    clock_cases,
    forging_cases,
    metadata_cases,
    outside_cases,
    resource_cases,
    trace_cases,
    verdict_cases,
)
from tests.hostile.case import CASES

__all__ = ["CASES"]
