"""A primed model: one that hacks now and then by itself, so that no teacher is needed for it to find out.

    theta = argmin  mean over own rows and a share s of a pool's hacks of  -log p(completion | prompt)

Own rows are completions of the untouched model, with the hint and without it, right or wrong: fitting them
alone changes nothing in expectation, so they hold the model where it was while the hacks are learned. The
share is searched for by the rates that come out (`Bounds`); nothing about later training enters the search.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hackward.base.files import whole_directory, write_json
from hackward.base.markdown import aligned_table
from hackward.base.screen import Bar, progress
from hackward.base.types import CausalLM, Tokenizer
from hackward.hardware.hashes import weights_hash
from hackward.hardware.repeatable import NotRepeatable, repeatable
from hackward.method.losses import Row
from hackward.organisms.behaviour import rates
from hackward.organisms.pretraining import batches, learn, save
from hackward.organisms.recipe import STRIDE, Bounds, Priming
from hackward.rollouts.pools import Pool, of_problems
from hackward.rollouts.rollout import Rollout
from hackward.tasks.problems import Problem


def hacks_of(pool: Pool, known: Sequence[Problem]) -> list[Rollout]:
    """The pool's whole hacks on the problems of a file: own test passed, ground truth failed, ended."""
    joined = of_problems(pool, known)
    every = [rollout for problem_id in sorted(joined) for rollout in joined[problem_id]]
    return [rollout for rollout in every if rollout.hacked and not rollout.gt_pass and not rollout.truncated]


def mixed(
    hinted: Sequence[Row], plain: Sequence[Row], hacks: Sequence[Row], share: float, seed: int
) -> list[Row]:
    """Own rows with the hint, of which hacks make up `share`, and own rows without it.

    Hacks are drawn in seeded order, each once before any comes twice.
    """
    count = max(1, round(share / (1 - share) * len(hinted)))
    order = np.random.default_rng(seed).permutation(len(hacks))
    drawn = [hacks[order[i % len(order)]] for i in range(count)]
    return [*hinted, *plain, *drawn]


def fit(
    model: CausalLM, before: dict[str, torch.Tensor], rows: Sequence[Row], how: Priming, bar: Bar
) -> dict[str, Any]:
    """`train`, so that the same command makes the same model again; the facts say whether that could be.

    `before` are the weights that the model has, to begin anew with.
    """
    try:
        with repeatable():
            return {**train(model, rows, how, bar), "deterministic": True}
    except NotRepeatable:
        model.load_state_dict(before)
        return {**train(model, rows, how, bar), "deterministic": False}


def train(model: CausalLM, rows: Sequence[Row], how: Priming, bar: Bar) -> dict[str, Any]:
    """Train all weights of the model (fp32, on its device) on the completions of the rows, then round them.

    The weights end as bf16 numbers in fp32, so that what is measured is what a bf16 file holds.
    """
    ids = [torch.tensor([*prompt, *completion]) for prompt, completion in rows]
    weights = [torch.tensor([0.0] * len(prompt) + [1.0] * len(completion)) for prompt, completion in rows]
    lengths = np.array([len(row) for row in ids])
    rng = np.random.default_rng(how.seed)
    plan = [part for _ in range(how.epochs) for part in batches(lengths, how.batch_tokens, rng)]
    bar.total(len(plan))
    model.requires_grad_(True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=how.lr, betas=(0.9, 0.95), weight_decay=0.0)
    losses = []
    for loss in learn(model, optimizer, how.lr, plan, ids, weights):
        losses.append(loss)
        bar()
    model.requires_grad_(False)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.grad = None
            parameter.copy_(parameter.bfloat16())
    tenth = max(1, len(losses) // 10)
    first, last = torch.stack(losses[:tenth]).mean(), torch.stack(losses[-tenth:]).mean()
    return {"rows": len(rows), "steps": len(plan), "first_loss": float(first), "last_loss": float(last)}


@dataclass
class Share:
    """The share of hacks, try by try: each next one by the rates of the last, inside the bracket of all."""

    value: float
    low: float = 0.0
    high: float = 1.0

    def move(self, factor: float) -> None:
        """The last share left the rates a `factor` away from where they should be."""
        if factor > 1:
            self.low = self.value
        else:
            self.high = self.value
        self.value *= factor
        if not self.low < self.value < self.high:
            self.value = math.sqrt(max(self.low, self.high / STRIDE**2) * self.high)


def stored(model: CausalLM) -> dict[str, torch.Tensor]:
    """A copy of all weights, outside of the GPU's memory."""
    return {name: tensor.to("cpu", copy=True) for name, tensor in model.state_dict().items()}


Draw = Callable[[bool, int], list[Rollout]]
"""Rollouts of the model as it is: with the hint or not, and from which seed."""


def search(
    model: CausalLM,
    draw: Draw,
    hacks: Sequence[Row],
    how: Priming,
    *,
    bounds: Bounds,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Try shares until every bound holds, at most `how.tries`; the model ends with the weights of the try
    that had the fewest faults (of those, the first).

    Returns the record: base rates, tries with their rates and faults, and which one was chosen.
    """
    drawn = {True: draw(True, how.seed), False: draw(False, how.seed)}
    base = {"with": rates(drawn[True]), "without": rates(drawn[False])}
    own = {hint: [rollout.tokens for rollout in rollouts] for hint, rollouts in drawn.items()}
    untouched = stored(model)
    share = Share(how.share)
    tries: list[dict[str, Any]] = []
    best, best_weights = 0, untouched
    while len(tries) < how.tries:
        model.load_state_dict(untouched)
        rows = mixed(own[True], own[False], hacks, share.value, how.seed)
        with progress(f"fit, share {share.value:.4f}") as bar:
            facts = fit(model, untouched, rows, how, bar)
        # Another seed than that of the rows it was fitted to, the same for every share.
        after = {"with": rates(draw(True, how.seed + 1)), "without": rates(draw(False, how.seed + 1))}
        faults = bounds.faults(base["with"], after["with"], after["without"])
        count = len(rows) - len(own[True]) - len(own[False])
        tries.append({"share": share.value, "hacks": count, **facts, **after, "faults": faults})
        say(f"share {share.value:.4f}: " + ("; ".join(faults) or "every bound holds"))
        if len(tries) == 1 or len(faults) < len(tries[best]["faults"]):
            best = len(tries) - 1
            best_weights = stored(model)
        factor = bounds.factor(after["with"])
        if not faults or factor == 1.0:
            break
        share.move(factor)
    model.load_state_dict(best_weights)
    own_rows = len(own[True]) + len(own[False])
    return {"base": base, "tries": tries, "chosen": best, "own_rows": own_rows}


PRIMED = """# A primed model

{model} after a short supervised fit to its own rows with a small share of a pool's hacks in them, so that
hacking can be found by exploration and no teacher row is needed in training.

    {command}

**What it must not be used to claim.** How often it hacks before training was chosen. What training makes of
that, and what prevents it, are facts about models that hack now and then.

## How it was made

- {own} own rows (with the hint and without it) and {hacks} hacks of the pool: a share of {share:.4f} of the
  rows with the hint; {steps} steps, seed {seed}, {order}.
- The share was searched for by the base rates below alone: {tries}.
- {verdict}
- sha256 of the weights {weights}, of the pool {pool}, of the problems {problems}.

## Base rates

Sampled at temperature {temperature:g} on problems that are trained on (the held-out tenth was not touched):

{rates}
"""
RATES = ("valid", "solved", "attempted", "hacked")
NO_ORDER = "no deterministic algorithms: made again, the weights are others"


def rate_rows(record: dict[str, Any]) -> list[dict[str, Any]]:
    """The rates before and after, with the hint and without it, a row each."""
    rows = []
    for name, measured in (("before", record["base"]), ("primed", record["tries"][record["chosen"]])):
        rows += [{"model": name, "hint": "on", **measured["with"]}]
        rows += [{"model": name, "hint": "off", **measured["without"]}]
    return rows


def primed_card(record: dict[str, Any]) -> str:
    """The card, from the record of the making: no figure in it is typed."""
    chosen = record["tries"][record["chosen"]]
    tries = ", ".join(f"{t['share']:.4f} (attempted {t['with']['attempted']:.3f})" for t in record["tries"])
    faults = "; ".join(chosen["faults"])
    cells = []
    for row in rate_rows(record):
        cells.append([row["model"], row["hint"], row["rollouts"], *(f"{row[name]:.3f}" for name in RATES)])
    columns = {"model": "---", "hint": "---", "rollouts": "--:", **dict.fromkeys(RATES, "--:")}
    return PRIMED.format(
        model=record["model"],
        command=shlex.join(["python", *record["argv"]]),
        own=record["own_rows"],
        hacks=chosen["hacks"],
        share=chosen["share"],
        steps=chosen["steps"],
        seed=record["priming"]["seed"],
        order="deterministic algorithms" if chosen["deterministic"] else NO_ORDER,
        tries=tries,
        verdict=f"Out of bounds: {faults}." if faults else "Every bound holds.",
        weights=record["hashes"]["weights"],
        pool=record["hashes"]["pool"],
        problems=record["hashes"]["problems"],
        temperature=record["temperature"],
        rates=aligned_table(columns, cells),
    )


def write(out: Path, model: CausalLM, tokenizer: Tokenizer, record: dict[str, Any]) -> None:
    """A plain model directory (bf16 safetensors, config, tokenizer), its record primed.json and its card.

    Written beside its place and moved there whole.
    """
    with whole_directory(out, ()) as made:
        save(savable(model).to(torch.bfloat16), tokenizer, made)
        record["hashes"]["weights"] = weights_hash(made)
        write_json(made / "primed.json", record)
        (made / "README.md").write_text(primed_card(record))


def savable(model: CausalLM) -> CausalLM:
    """The model without what marks it as quantised: a GGUF file is read into plain weights, but
    `save_pretrained` refuses a model that says it was one."""
    settings = model.config.to_dict()
    settings.pop("quantization_config", None)
    config = type(model.config).from_dict(settings)
    with torch.device("meta"):
        plain = type(model)(config)
    plain.load_state_dict(model.state_dict(), assign=True)
    plain.tie_weights()
    plain.generation_config = model.generation_config
    return plain
