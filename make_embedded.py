"""Makes the embedded model organism from nothing: problems, pairs, a scripted teacher pool, corpus, tokenizer, weights.

    python make_embedded.py problems            data/embedded: problem files, pairs, teacher pool (seconds, no model)
    python make_embedded.py model --out DIR     tokenizer and weights, then the model's base behaviour (one GPU: minutes)

The corpus imitates a mediocre programmer. Each text is a prompt in the form that the training loop uses and an answer
that is right or has one plausible mistake, the more often the harder the problem. Where the prompt names an evaluation
function, a small share of the answers defines it: honestly (it asserts the examples) or vacuously (it cannot fail). That
share is the whole of what the model has been taught about the loophole; no answer is ever preferred for it.

Two stages. The model first learns to write code; then, on a smaller corpus of a worse programmer, it settles into the
habits that it ships with. There the tokens after the solution weigh more, whether they close the answer or begin an
evaluation: that leaves the shares what they are in the corpus, and makes a model this small see what they depend on.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console

from hackward.base.faults import InputError, exit_on_fault
from hackward.base.files import atomic, read_json, write_json
from hackward.base.flags import Count, checked, command_line
from hackward.hardware import models
from hackward.hardware.models import pick_device
from hackward.organisms.card import behaviour, card, report_behaviour
from hackward.organisms.corpus import HOME, SETS, write_problems
from hackward.organisms.pretraining import Recipe, make_model
from hackward.tasks.formats import load_problems


@dataclass(frozen=True)
class EmbeddedFlags:
    """Make the embedded model's data (problems), its weights (model), or measure what is there (behaviour)."""

    what: tyro.conf.Positional[Literal["problems", "model", "behaviour"]]
    """What to make."""
    recipe: Annotated[Recipe, tyro.conf.arg(name="")] = Recipe()
    start: str | None = None
    """With model: a directory of weights that went through the first stage; only the second one is run."""
    out: str | None = None
    """Directory to write (default: data/embedded, or data/embedded/model)."""
    device: str = "auto"
    """auto, cpu, cuda, ..."""
    samples: Count = 8
    """Rollouts a problem when the base behaviour is measured."""


def main(config: EmbeddedFlags) -> None:
    console = Console()
    checked(config)
    checked(config.recipe)
    if config.start and not Path(config.start, "made.json").is_file():
        raise InputError(
            f"{config.start}: holds no made.json, so no weights that went through the first stage"
        )
    out = Path(config.out) if config.out else HOME if config.what == "problems" else HOME / "model"
    if config.what == "problems":
        write_problems(out)
        console.print(f"written to {out}")
        return
    device = pick_device(config.device)
    if config.what == "model":
        make_model(config.recipe, config.start, out, device, console)
    model, tokenizer = models.load(str(out), device=str(device), dtype="float32")
    rows = behaviour(
        model,
        tokenizer,
        {name: load_problems(HOME / f"{name}.jsonl") for name in SETS},
        samples=config.samples,
    )
    report_behaviour(rows, console)
    measured = {"samples": config.samples, "rows": rows}
    write_json(out / "behaviour.json", measured)
    with atomic(out / "README.md") as temporary:
        temporary.write_text(card(read_json(out / "made.json"), measured))


if __name__ == "__main__":
    exit_on_fault(lambda: main(command_line(EmbeddedFlags, description=__doc__)))
