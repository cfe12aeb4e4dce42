"""The v_hack of a run, and what its arm takes out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hackward.base.arms import arm_of
from hackward.base.faults import InputError
from hackward.base.files import step_file
from hackward.base.records import POLICY
from hackward.base.screen import say
from hackward.base.types import Tokenizer
from hackward.method import discriminant, extraction
from hackward.method.adapters import Adapter
from hackward.method.discriminant import Discriminant
from hackward.method.extraction import Grads, recipe_of, same_pairs
from hackward.method.pairs import Pair, find_pairs, pair_hash, pairs_of_rollouts, written_by
from hackward.method.projection import Edit
from hackward.method.recipe import Extraction, denominator
from hackward.method.v_hack import VHack, random_like, sign_flipped
from hackward.rollouts.pools import stored_rollouts
from hackward.rollouts.rollout import Rollout
from hackward.runs.kept_v_hack import keep, kept, place_of
from hackward.runs.settings import Config

LEAST_PROBLEMS = 3  # of which a run must have pairs of its own before v_hack is made from them

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
    """The v_hack that a run measures with, what its arm takes out, the score that its monitor flags by, and
    the means to make all of them anew.

    Built on the model as the run begins, before any checkpoint is loaded: a resumed run removes what it
    removed before.
    """

    v: VHack
    config: Config
    adapter: Adapter
    tokenizer: Tokenizer
    pairs: tuple[list[Pair], Extraction, dict[str, Any]] | None = None
    """Pairs, settings and source of v; found again where they lay when they are needed."""
    gradients: tuple[Grads, Grads] | None = None
    """Of the pairs' hacks and clean answers, where v was just extracted."""
    discriminant: Discriminant | None = None
    """The score of --monitor=v_hack."""
    recent: list[Pair] = field(default_factory=list)
    """With --refresh-from=rollouts, the last pairs of the run's own."""

    def __post_init__(self) -> None:
        config = self.config
        if config.refresh_every and config.refresh_from == "pairs":
            self.known_pairs()  # found now, or the run does not start
        if config.monitor == "v_hack":
            pairs, settings, _ = self.known_pairs()
            hack, clean = self.gradients or self._gradients(pairs, settings)
            self.discriminant = self._fitted(hack, clean, pairs, settings, self.v)
        self.gradients = None
        self.removed = self._substitute()

    def known_pairs(self) -> tuple[list[Pair], Extraction, dict[str, Any]]:
        if self.pairs is None:
            self.pairs = same_pairs(self.v, self.config.model, self.tokenizer, self.adapter.model)
        return self.pairs

    def _gradients(self, pairs: Sequence[Pair], settings: Extraction) -> tuple[Grads, Grads]:
        tokens = self.config.micro_tokens
        return extraction.shown_gradients(self.adapter, self.tokenizer, pairs, settings, tokens=tokens)

    def _fitted(
        self, hack: Grads, clean: Grads, pairs: Sequence[Pair], settings: Extraction, v: VHack
    ) -> Discriminant:
        """The score, or that of the control in its place (random flags need none of their own)."""
        config = self.config
        control = config.control if config.control in ("sign-flip", "clean-clean") else "none"
        if config.intervene == "none":
            control = "none"
        fitted = discriminant.fit(
            hack,
            clean,
            [pair.problem_id for pair in pairs],
            settings,
            score=config.monitor_score,
            fpr=config.monitor_fpr,
            control=control,
            seed=config.seed,
            v=None if control != "none" else v.to("cpu"),
        )
        return fitted.to(self.adapter.model.device)

    def _substitute(self) -> VHack:
        edits = arm_of(vars(self.config)).edits
        return SUBSTITUTES[self.config.control if edits else "none"](self)

    def edit(self) -> Edit:
        """What the run's arm does: remove v, or what the control puts in its place."""
        arm = arm_of(vars(self.config))
        removed = self.removed.to(self.adapter.model.device)
        return Edit(removed, arm.gate, shrink=arm.control == "shrink")

    def clean_clean(self) -> VHack:
        pairs, settings, _ = self.known_pairs()
        config = self.config
        return extraction.clean_clean(
            self.adapter, self.tokenizer, pairs, settings, tokens=config.micro_tokens, seed=config.seed
        )

    def observe(self, rollouts: Sequence[Rollout]) -> None:
        """The run's own rollouts of a step, of which a later refresh may make pairs."""
        if self.config.refresh_from == "rollouts":
            own = [rollout for rollout in rollouts if rollout.src_pool == POLICY]
            found = pairs_of_rollouts(own, self.config.refresh_label)
            self.recent = [*self.recent, *found][-Extraction.max_pairs :]

    def _renewal_pairs(self) -> tuple[list[Pair], Extraction, dict[str, Any]] | None:
        """What the next v_hack is made from; None where the run has too few pairs of its own so far."""
        if self.config.refresh_from == "pairs":
            pairs, settings, source = self.known_pairs()
            return pairs, settings, source | {"model": self.config.model}
        if len({pair.problem_id for pair in self.recent}) < LEAST_PROBLEMS:
            return None
        label = self.config.refresh_label
        source = {
            "source": f"the run's own rollouts, by {label}",
            "source_hash": pair_hash(self.recent),
            "oracle": label == "hacked",
            "model": self.config.model,
            **written_by(self.tokenizer),
        }
        return self.recent, recipe_of(self.v), source

    def renew(self) -> VHack | None:
        """Extract on the model as it is, by --refresh-from and --refresh; None where there is nothing to do
        so from.

        Without the permutations of the held-out quality, which take longest.
        """
        found = self._renewal_pairs()
        if found is None:
            return None
        pairs, settings, source = found
        settings = dataclasses.replace(settings, permutations=0)
        hack, clean = self._gradients(pairs, settings)
        renewed = extraction.from_gradients(self.adapter, hack, clean, pairs, settings, source=source)
        if self.config.monitor == "v_hack":
            self.discriminant = self._fitted(hack, clean, pairs, settings, renewed)
        if self.config.refresh == "union":
            D = {name: hack[name] - clean[name] for name in hack}
            renewed = extraction.union(self.v.to("cpu"), renewed, D)
        self.v = renewed.to(self.adapter.model.device)
        self.removed = self._substitute()
        return self.v

    def save(self, directory: Path, step: int) -> None:
        """After a refresh the new v_hack and the monitor's score; for a control with directions of its own,
        those."""
        if step:
            self.v.save(directory / f"v_hack_{step:03d}.safetensors")
        if step and self.discriminant is not None:
            self.discriminant.save(directory / f"monitor_{step:03d}.safetensors")
        if self.removed is not self.v:
            self.removed.save(directory / f"removed_{step:03d}.safetensors")

    def resume(self, directory: Path, step: int) -> None:
        """Go on with what was in use at this step (the step's own refresh, if one is due, comes after)."""
        if self.config.refresh_from == "rollouts":
            for earlier in range(step):
                self.observe(stored_rollouts(directory / "rollouts" / step_file(earlier)))
        steps = [int(path.stem.rpartition("_")[2]) for path in directory.glob("v_hack_*.safetensors")]
        earlier_ones = [made for made in steps if made < step]
        if not earlier_ones:
            return
        last = max(earlier_ones)
        v = extraction.load(directory / f"v_hack_{last:03d}.safetensors", self.adapter)
        self.v = v.to(self.adapter.model.device)
        if self.discriminant is not None:
            stored = Discriminant.load(directory / f"monitor_{last:03d}.safetensors")
            self.discriminant = stored.to(self.adapter.model.device)
        removed = directory / f"removed_{last:03d}.safetensors"
        self.removed = extraction.load(removed, self.adapter) if removed.exists() else self.v


def hack_direction(config: Config, adapter: Adapter, tokenizer: Tokenizer) -> Direction | None:
    """The v_hack that the run measures with: from a file, extracted on the spot, or none."""
    if config.v_hack == "none":
        return None
    if config.v_hack == "auto":
        return _extracted(config, adapter, tokenizer)
    v = _from_file(config, adapter)
    extraction.note_other_prompts(v, tokenizer)
    return Direction(v.to(adapter.model.device), config, adapter, tokenizer)


def _extracted(config: Config, adapter: Adapter, tokenizer: Tokenizer) -> Direction:
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
    origin = source | {"model": config.model}
    place = place_of(config, adapter, pairs, settings, origin)
    v, gradients = kept(place, adapter), None
    if v is None:
        gradients = extraction.shown_gradients(
            adapter, tokenizer, pairs, settings, tokens=config.micro_tokens
        )
        v = extraction.from_gradients(adapter, *gradients, pairs, settings, source=origin)
        keep(v, place)
    v.meta["hash"] = v.meta["pair_hash"]
    return Direction(
        v.to(adapter.model.device),
        config,
        adapter,
        tokenizer,
        pairs=(pairs, settings, source),
        gradients=gradients,
    )


def _from_file(config: Config, adapter: Adapter) -> VHack:
    try:
        v = extraction.load(config.v_hack, adapter)
    except InputError as fault:
        raise InputError(f"--v-hack {fault}") from None
    made = denominator(v.meta)
    if made != config.normaliser:
        say(
            f"note: {config.v_hack} was made with the denominator {made}, this run's loss has"
            f" {config.normaliser}; the run goes on, and cosines are with that V. --normaliser={made} here"
            f" takes its denominator, --normaliser={config.normaliser} of extract_vhack.py this run's"
        )
    return v
