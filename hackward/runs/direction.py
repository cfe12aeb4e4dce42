"""The v_hack of a run, and what its arm takes out."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hackward.base.arms import arm_of
from hackward.base.screen import STDERR
from hackward.base.types import Tokenizer
from hackward.method import extraction
from hackward.method.adapters import Adapter
from hackward.method.extraction import same_pairs
from hackward.method.pairs import Pair, find_pairs
from hackward.method.projection import Edit
from hackward.method.recipe import Extraction, denominator
from hackward.method.v_hack import VHack, random_like, sign_flipped
from hackward.runs.settings import Config

# What is removed in the place of v_hack. Each takes the run's direction and gives another one of the same
# shape.
SUBSTITUTES: dict[str, Callable[[Direction], VHack]] = {
    "none": lambda direction: direction.v,
    "shrink": lambda direction: direction.v,
    "random": lambda direction: random_like(direction.v, direction.config.seed),
    "sign-flip": lambda direction: sign_flipped(direction.v, direction.config.seed),
    "clean-clean": lambda direction: direction.clean_clean(),
}


@dataclass
class Direction:
    """The v_hack that a run measures with, what its arm takes out, and the means to make both anew from the
    same pairs.

    Built on the model as the run begins, before any checkpoint is loaded: a resumed run removes what it
    removed before.
    """

    v: VHack
    config: Config
    adapter: Adapter
    tokenizer: Tokenizer

    def __post_init__(self) -> None:
        if self.config.refresh_every:
            _ = self._pairs  # found now, or the run does not start
        self.removed = SUBSTITUTES[self.config.control](self)

    @functools.cached_property
    def _pairs(self) -> tuple[list[Pair], Extraction, dict[str, Any]]:
        return same_pairs(self.v, self.config.model, self.tokenizer, self.adapter.model)

    def edit(self) -> Edit:
        """What the run's arm does: remove v, or what the control puts in its place."""
        arm = arm_of(vars(self.config))
        removed = self.removed.to(self.adapter.model.device)
        return Edit(removed, arm.gate, shrink=arm.control == "shrink")

    def clean_clean(self) -> VHack:
        pairs, settings, _ = self._pairs
        config = self.config
        return extraction.clean_clean(
            self.adapter, self.tokenizer, pairs, settings, tokens=config.micro_tokens, seed=config.seed
        )

    def renew(self) -> VHack:
        """Extract from the same pairs on the model as it is.

        Without the permutations of the held-out quality, which take longest.
        """
        pairs, settings, source = self._pairs
        renewed = extraction.extract(
            self.adapter,
            self.tokenizer,
            pairs,
            dataclasses.replace(settings, permutations=0),
            source=source | {"model": self.config.model},
            tokens=self.config.micro_tokens,
        )
        self.v = renewed.to(self.adapter.model.device)
        self.removed = SUBSTITUTES[self.config.control](self)
        return self.v

    def save(self, directory: Path, step: int) -> None:
        """After a refresh the new v_hack; for a control with directions of its own, those."""
        if step:
            self.v.save(directory / f"v_hack_{step:03d}.safetensors")
        if self.removed is not self.v:
            self.removed.save(directory / f"removed_{step:03d}.safetensors")

    def resume(self, directory: Path, step: int) -> None:
        """Go on with what was in use at this step (the step's own refresh, if one is due, comes after)."""
        steps = [int(path.stem.rpartition("_")[2]) for path in directory.glob("v_hack_*.safetensors")]
        earlier = [made for made in steps if made < step]
        if not earlier:
            return
        last = max(earlier)
        v = extraction.load(directory / f"v_hack_{last:03d}.safetensors", self.adapter)
        self.v = v.to(self.adapter.model.device)
        removed = directory / f"removed_{last:03d}.safetensors"
        self.removed = extraction.load(removed, self.adapter) if removed.exists() else self.v


def hack_direction(config: Config, adapter: Adapter, tokenizer: Tokenizer) -> Direction | None:
    """The v_hack that the run measures with: from a file, extracted on the spot, or none."""
    if config.v_hack == "none":
        return None
    v = _extracted(config, adapter, tokenizer) if config.v_hack == "auto" else _from_file(config, adapter)
    return Direction(v.to(adapter.model.device), config, adapter, tokenizer)


def _extracted(config: Config, adapter: Adapter, tokenizer: Tokenizer) -> VHack:
    """v_hack from the pairs that ship for the model, with the denominator and temperature of the run's own
    loss."""
    settings = Extraction(
        objective=config.objective,
        normaliser=config.normaliser,
        temperature=config.loss_temperature if config.objective == "grpo" else 1.0,
    )
    pairs, source = find_pairs(
        config.model,
        tokenizer,
        adapter.model,
        pairs=None,
        pool=None,
        problem_file=None,
        clean="canonical",
        limit=settings.max_pairs,
        seed=settings.seed,
    )
    provenance = source | {"model": config.model}
    v = extraction.extract(adapter, tokenizer, pairs, settings, source=provenance, tokens=config.micro_tokens)
    v.meta["hash"] = v.meta["pair_hash"]
    return v


def _from_file(config: Config, adapter: Adapter) -> VHack:
    v = extraction.load(config.v_hack, adapter)
    made = denominator(v.meta)
    if made != config.normaliser:
        STDERR.print(
            f"{config.v_hack}: extracted with the denominator {made}, this run's loss has {config.normaliser}"
            " (--normaliser, here or of extract_vhack.py)",
            highlight=False,
        )
    return v
