"""All hostile completions."""

from __future__ import annotations

from tests.hostile import outside_cases, resource_cases, verdict_cases  # noqa: F401  (each adds to the list)
from tests.hostile.case import CASES

__all__ = ["CASES"]
