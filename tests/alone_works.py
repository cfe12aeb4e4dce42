"""Works for a process of its own that starts at once: without torch."""

from __future__ import annotations

import os
import time

from hackward.benchmarks.alone import tell


def digging(finds: int, then: str) -> dict:
    """Work that tells of so many finds, and then ends by itself, dies or hangs."""
    tell("starting to dig")
    for find in range(1, finds + 1):
        tell(f"hole {find}", {"finds": find})
    tell("the last hole")
    if then == "dies":
        os._exit(3)
    if then == "hangs":
        time.sleep(60)
    return {"finds": "all"}


def talking() -> dict:
    """Work that tells and tells, for half a minute."""
    for _ in range(300):
        tell("on and on")
        time.sleep(0.1)
    return {}
