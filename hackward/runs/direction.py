"""The v_hack of a run, and what its arm takes out."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hackward.base.arms import arm_of
from hackward.base.screen import STDERR
from hackward.method import extraction
from hackward.method.adapters import Adapter
from hackward.method.extraction import Extraction, denominator, same_pairs
from hackward.method.pairs import find_pairs
from hackward.method.projection import Edit
from hackward.method.v_hack import VHack, random_like, sign_flipped
from hackward.runs.settings import Config

# What is removed in the place of v_hack. Each takes the run's direction and gives another one of the same shape.
SUBSTITUTES: dict[str, Callable[[Direction], VHack]] = {
    "none": lambda direction: direction.v,
    "shrink": lambda direction: direction.v,
    "random": lambda direction: random_like(direction.v, direction.config.seed),
    "sign-flip": lambda direction: sign_flipped(direction.v, direction.config.seed),
    "clean-clean": lambda direction: direction.clean_clean(),
}


@dataclass
class Direction:
    """The v_hack that a run measures with, what its arm takes out, and the means to make both anew from the same pairs.

    Built on the model as the run begins, before any checkpoint is loaded: a resumed run removes what it removed before.
    """

    v: VHack
    config: Config
    adapter: Adapter
    tokenizer: object

    def __post_init__(self) -> None:
        if self.config.refresh_every:
            _ = self._pairs  # found now, or the run does not start
        self.removed = SUBSTITUTES[self.config.control](self)

    @functools.cached_property
    def _pairs(self) -> tuple:
        return same_pairs(self.v, self.config.model, self.tokenizer, self.adapter.model)

    def edit(self) -> Edit:
        """What the run's arm does: remove v, or what the control puts in its place."""
        return Edit(
            self.removed.to(self.adapter.model.device),
            arm_of(vars(self.config)).gate,
            shrink=self.config.control == "shrink",
        )

    def clean_clean(self) -> VHack:
        pairs, settings, _ = self._pairs
        return extraction.clean_clean(
            self.adapter,
            self.tokenizer,
            pairs,
            settings,
            tokens=self.config.micro_tokens,
            seed=self.config.seed,
        )

    def renew(self) -> VHack:
        """Extract from the same pairs on the model as it is now; without the permutations of the held-out quality, which take longest."""
        pairs, settings, source = self._pairs
        settings = dataclasses.replace(settings, permutations=0)
        renewed = extraction.extract(
            self.adapter,
            self.tokenizer,
            pairs,
            settings,
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
        if last := max((s for s in steps if s < step), default=0):
            removed = directory / f"removed_{last:03d}.safetensors"
            self.v = extraction.load(directory / f"v_hack_{last:03d}.safetensors", self.adapter).to(
                self.adapter.model.device
            )
            self.removed = extraction.load(removed, self.adapter) if removed.exists() else self.v


def hack_direction(config: Config, adapter, tokenizer) -> Direction | None:
    """The v_hack that the run measures with: from a file, extracted on the spot, or none."""
    if config.v_hack == "none":
        return None
    if config.v_hack == "auto":  # one denominator for extraction and training
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
        v = extraction.extract(
            adapter,
            tokenizer,
            pairs,
            settings,
            source=source | {"model": config.model},
            tokens=config.micro_tokens,
        )
        v.meta["hash"] = v.meta["pair_hash"]
    else:
        v = extraction.load(config.v_hack, adapter)
        made = denominator(v.meta)
        if made != config.normaliser:
            STDERR.print(
                f"{config.v_hack}: extracted with the denominator {made}, this run's loss has {config.normaliser}",
                highlight=False,
            )
    return Direction(v.to(adapter.model.device), config, adapter, tokenizer)
