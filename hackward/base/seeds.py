"""Random choices that depend on a key alone, so that every arm, process and machine makes the same ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hackward.base.files import sha256


def seeded(*key) -> np.random.Generator:
    """A generator that depends on the key alone."""
    return np.random.default_rng(int(sha256(*map(str, key))[:16], 16))


def shuffled(items: Sequence, *key) -> list:
    return [items[i] for i in seeded(*key).permutation(len(items))]


def turn(items: Sequence, start: int, count: int) -> list:
    """`count` items from `start` on, going round."""
    return [items[(start + i) % len(items)] for i in range(count)]
