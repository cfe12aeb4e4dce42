"""Building a run's monitor from its settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from hackward.base.arms import Watched, arm_of, watched_of
from hackward.base.screen import progress
from hackward.base.types import Tokenizer
from hackward.hardware import memory
from hackward.method import gradients, hidden
from hackward.method.adapters import Adapter
from hackward.method.extraction import Grads
from hackward.method.monitors import AlongV, Attempt, Hidden, Monitor, Truth, Watch
from hackward.method.pairs import Pair, find_pairs
from hackward.method.recipe import Extraction
from hackward.method.weights import betas, denominators
from hackward.rollouts.rollout import Rollout
from hackward.rollouts.tokens import PAD
from hackward.runs.direction import Direction
from hackward.runs.settings import Config


def build_watch(
    config: Config, adapter: Adapter, tokenizer: Tokenizer, direction: Direction | None
) -> tuple[Watch | None, dict[str, Any]]:
    """The monitor of a run, and what config.json says of it; None and nothing where nobody looks.

    InputError where the pairs that it is fitted on cannot be used.
    """
    wanted = watched_of(vars(config))
    if wanted is None:
        return None, {}
    monitor, facts = MONITORS[wanted.monitor](wanted, config, adapter, tokenizer, direction)
    arm = arm_of(vars(config))
    placebo = arm.intervene != "none" and config.control == "random"
    watch = Watch(monitor, wanted.rows, placebo, config.seed)
    return watch, {"monitor": {"name": wanted.monitor, "label": wanted.label, **facts}}


Built = tuple[Monitor, dict[str, Any]]


def _truth(
    wanted: Watched, config: Config, adapter: Adapter, tokenizer: Tokenizer, direction: Direction | None
) -> Built:
    return Truth(wanted.noise or 0.0, config.seed), {"noise": wanted.noise}


def _attempt(
    wanted: Watched, config: Config, adapter: Adapter, tokenizer: Tokenizer, direction: Direction | None
) -> Built:
    return Attempt(), {}


def _along_v(
    wanted: Watched, config: Config, adapter: Adapter, tokenizer: Tokenizer, direction: Direction | None
) -> Built:
    assert direction is not None and direction.discriminant is not None  # the settings were checked
    pad, temperature = PAD, config.loss_temperature
    assert config.beta is not None and config.normaliser is not None  # resolved
    beta, normaliser = config.beta, config.normaliser

    def take(rollouts: Sequence[Rollout]) -> gradients.RowGradients:
        return gradients.row_gradients(
            adapter,
            [rollout.tokens for rollout in rollouts],
            denominators(rollouts, kind=normaliser, fixed=config.max_new_tokens),
            pad=pad,
            tokens=config.micro_tokens,
            beta_N=betas(rollouts, beta),
            temperature=temperature,
            drawn=[rollout.logps for rollout in rollouts],
        )

    def read(rollouts: Sequence[Rollout], score: Callable[[Grads], Tensor]) -> Tensor:
        rows = [rollout.tokens for rollout in rollouts]
        return gradients.read_rows(
            adapter, rows, score, pad=pad, tokens=config.micro_tokens, temperature=temperature
        )

    numbers = sum(p.numel() for p in adapter.params.values())
    kept = memory.roomy(4 * numbers * config.prompts * config.group, adapter.model.device)
    facts = {"score": wanted.score, "fpr": wanted.fpr, "threshold": direction.discriminant.threshold}
    return AlongV(direction.discriminant, take if kept else None, read), facts


def _probe(
    wanted: Watched, config: Config, adapter: Adapter, tokenizer: Tokenizer, direction: Direction | None
) -> Built:
    pairs = _pairs(config, adapter, tokenizer, direction)
    pad = PAD
    rows = [(pair.prompt_ids, pair.hack_ids) for pair in pairs]
    rows += [(pair.prompt_ids, pair.clean_ids) for pair in pairs]
    with progress("probe: hidden states of pairs", len(rows)) as bar:
        states = hidden.pooled(adapter, rows, pad=pad, tokens=config.micro_tokens, on_batch=bar)
    assert wanted.fpr is not None
    problem_ids = [pair.problem_id for pair in pairs]
    probe = hidden.fit(states[: len(pairs)], states[len(pairs) :], problem_ids, fpr=wanted.fpr)
    facts = {"fpr": wanted.fpr, "threshold": probe.threshold, "layer": probe.layer, "auc": probe.auc}
    return Hidden(probe, adapter, pad, config.micro_tokens), facts


def _pairs(config: Config, adapter: Adapter, tokenizer: Tokenizer, direction: Direction | None) -> list[Pair]:
    """Those of v_hack; with --v-hack=none those that ship for the model."""
    if direction is not None:
        return direction.known_pairs()[0]
    pairs, _ = find_pairs(
        config.model,
        tokenizer,
        adapter.model,
        pairs=None,
        pool=None,
        problem_file=None,
        clean="canonical",
        limit=Extraction.max_pairs,
        seed=Extraction.seed,
    )
    return pairs


MONITORS: dict[str, Callable[..., Built]] = {
    "truth": _truth,
    "attempt": _attempt,
    "v_hack": _along_v,
    "probe": _probe,
}
