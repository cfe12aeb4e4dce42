"""What ships with the project: names of the models that need no download, and the files that go with each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hackward.base.faults import InputError
from hackward.base.files import ROOT
from hackward.base.hub import check_there

DATA = ROOT / "data"
EMBEDDED = "embedded"  # the embedded model
EMBEDDED_HOME = DATA / "embedded"  # where all of it lies


@dataclass(frozen=True)
class Shipped:
    """The files that ship for a model."""

    problems: Path
    """To train on."""
    pairs: Path
    """Authored pairs."""
    pair_problems: Path
    """The problems that the pairs are of."""
    teacher: Path | None
    """A scripted teacher pool."""
    heldout: Path | None
    """Problems that are never trained on. None: they are a part of `problems`, see held_out_split."""


def is_embedded(model: str) -> bool:
    """Is this the embedded model, by its name or by its directory?"""
    if model == EMBEDDED:
        return True
    try:
        return Path(model).resolve() == (EMBEDDED_HOME / "model").resolve()
    except (OSError, ValueError):  # a name that no path can have: lone surrogates, NUL, a loop of links
        return False


def shipped(model: str) -> Shipped:
    """The embedded model has files of its own (make_embedded.py); any other gets the hand-written ones."""
    if is_embedded(model):
        return Shipped(
            problems=EMBEDDED_HOME / "train.jsonl",
            pairs=EMBEDDED_HOME / "pairs.jsonl",
            pair_problems=EMBEDDED_HOME / "pair_problems.jsonl",
            teacher=EMBEDDED_HOME / "teacher_pool",
            heldout=EMBEDDED_HOME / "heldout_parameters.jsonl",
        )
    return Shipped(
        problems=DATA / "problems.jsonl",
        pairs=DATA / "pairs.jsonl",
        pair_problems=DATA / "problems.jsonl",
        teacher=None,
        heldout=None,
    )


TINY = "tiny-random"
# random-<shape>: what it costs to train a model of that shape, without the model
SHAPES = {
    "qwen3-0.6b": {
        "hidden_size": 1024,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "intermediate_size": 3072,
    },
    "qwen3-4b": {
        "hidden_size": 2560,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "intermediate_size": 9728,
    },
}


def is_random(name: str) -> bool:
    """Whether this names a model with random weights, whose runs say nothing about hacking."""
    if name == TINY:
        return True
    return name.startswith("random-") and name.removeprefix("random-") in SHAPES


def check_model(name: str) -> None:
    """InputError unless this names a model: one that ships, a .gguf file, a directory, a hub id."""
    if name in (TINY, EMBEDDED) or is_random(name):
        return
    if Path(name).suffix == ".gguf":
        if not Path(name).is_file():
            raise InputError(f"{name}: no such file")
        return
    check_there(name, "model", "config.json")
