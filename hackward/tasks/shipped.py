"""What ships with the project: names of the models that need no download, and the files that go with each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hackward.base.files import ROOT

DATA = ROOT / "data"
EMBEDDED, EMBEDDED_HOME = "embedded", DATA / "embedded"  # the embedded model, and where all of it lies


@dataclass(frozen=True)
class Shipped:
    """What ships for a model: problems to train on, authored pairs and the problems they are of, a scripted teacher pool,
    and problems that are never trained on (None: a part of the first, see held_out_split)."""

    problems: Path
    pairs: Path
    pair_problems: Path
    teacher: Path | None
    heldout: Path | None


def is_embedded(model: str) -> bool:
    """Is this the embedded model, by its name or by its directory?"""
    return model == EMBEDDED or Path(model).resolve() == (EMBEDDED_HOME / "model").resolve()


def shipped(model: str) -> Shipped:
    """The embedded model has files of its own (make_embedded.py); every other one gets the hand-written ones."""
    home = EMBEDDED_HOME
    if is_embedded(model):
        return Shipped(
            home / "train.jsonl",
            home / "pairs.jsonl",
            home / "pair_problems.jsonl",
            home / "teacher_pool",
            home / "heldout_parameters.jsonl",
        )
    return Shipped(DATA / "problems.jsonl", DATA / "pairs.jsonl", DATA / "problems.jsonl", None, None)


TINY = "tiny-random"
SHAPES = {  # random-<shape>: what it costs to train a model of that shape, without the model
    "qwen3-0.6b": dict(
        hidden_size=1024,
        num_hidden_layers=28,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=128,
        intermediate_size=3072,
    ),
    "qwen3-4b": dict(
        hidden_size=2560,
        num_hidden_layers=36,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
        intermediate_size=9728,
    ),
}


def is_random(name: str) -> bool:
    """Whether this names a model with random weights, whose runs say nothing about hacking."""
    return name == TINY or name.startswith("random-") and name.removeprefix("random-") in SHAPES
