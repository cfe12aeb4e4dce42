"""The GPUs of this machine that this process may use. torch is loaded where it is asked."""

from __future__ import annotations

import os


def visible_cards() -> list[str]:
    """Their names as CUDA_VISIBLE_DEVICES takes them. Initializes no card."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named:
        return named.split(",")
    import torch

    return [str(card) for card in range(torch.cuda.device_count())]


def card_bytes() -> int:
    """Memory of the smallest of them; asked so that this process takes none of it."""
    import torch

    cards = range(torch.cuda.device_count())
    return min(torch.cuda.get_device_properties(card).total_memory for card in cards)
