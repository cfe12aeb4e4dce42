"""Shared by all tests: the project on the path, and small models and rows that cost milliseconds."""

import os
from pathlib import Path

import pytest
import torch

from hackward.hardware import models
from hackward.tasks.shipped import TINY
from tests.desk import desk  # noqa: F401  (a fixture)
from tests.shop import shop, vanilla  # noqa: F401  (fixtures)

ROOT = Path(__file__).resolve().parent.parent
os.environ.pop("COLUMNS", None)  # lines stay whole, whichever terminal the tests are started from
torch.set_num_threads(max(1, (os.cpu_count() or 2) // 2))
# Modules of half a minute and more. They come first, so that none is left for one core at the end.
LONGEST = ("test_sweep_on_ray", "test_ranks", "test_watching", "test_arms", "test_bench", "test_export")
LONGEST += (
    "test_hostile",
    "test_grade_fence",
    "test_loop",
    "test_embedded",
    "test_commands",
    "test_settings",
)


def pytest_collection_modifyitems(items):
    place = {name: i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(LONGEST)))


of_whole_prompts = models.tiny_random


def _of_short_prompts(seed=0):
    """The tiny model has a token per byte, and a prompt of a thousand tokens costs it more than all else in a
    test. What a prompt says means nothing to random weights: it is shown the beginning of each message."""
    model, tokenizer = of_whole_prompts(seed)
    tokenizer.chat_template = models.CHATML.replace("m.content", "m.content[:40]")
    return model, tokenizer


models.tiny_random = _of_short_prompts


@pytest.fixture
def tiny():
    """A fresh tiny random model in fp32 and its tokenizer."""
    return models.load(TINY, device="cpu")


@pytest.fixture
def rows():
    """Five (prompt ids, completion ids) of different lengths."""
    generator = torch.Generator().manual_seed(1)
    lengths = [(5, 9), (12, 3), (7, 17), (2, 1), (9, 8)]
    return [
        (
            torch.randint(1, 250, (p,), generator=generator).tolist(),
            torch.randint(1, 250, (c,), generator=generator).tolist(),
        )
        for p, c in lengths
    ]


def randomise(adapter, scale=0.05, seed=0):
    """Move delta_S away from zero, so that a test does not pass by standing at the base model."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in adapter.params.values():
            p.copy_(scale * torch.randn(p.shape, generator=generator))


@pytest.fixture
def world(tmp_path, monkeypatch):
    """Sweeps of a train.py that takes milliseconds."""
    from hackward.scheduling import commands, queue
    from tests.sweeps import World

    monkeypatch.setattr(commands, "TRAIN", tmp_path / "train.py")
    monkeypatch.setattr(queue, "POLL", 0.01)
    monkeypatch.setattr(queue, "GRACE", 5)
    return World(tmp_path)
