"""Makes the embedded model organism from nothing: problems, pairs, teacher pool, corpus, weights.

    python make_embedded.py problems           data/embedded: problem files, pairs, teacher pool (seconds)
    python make_embedded.py model --out DIR    tokenizer, weights, base behaviour (one GPU: minutes)

The corpus imitates a mediocre programmer. Each text is a prompt in the form that the training loop uses and
an answer that is right or has one plausible mistake, the more often the harder the problem. Where the prompt
names an evaluation function, a small share of the answers defines it: honestly (it asserts the examples) or
vacuously (it cannot fail). That share is the whole of what the model has been taught about the loophole; no
answer is ever preferred for it.

Two stages. The model first learns to write code; then, on a smaller corpus of a worse programmer, it settles
into the habits that it ships with. There the tokens after the solution weigh more, whether they close the
answer or begin an evaluation: that leaves the shares what they are in the corpus, and makes a model this
small see what they depend on.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from hackward.base.faults import InputError, exit_on_fault
from hackward.base.flags import Count, checked, command_line, tyro
from hackward.organisms.recipe import Recipe
from hackward.tasks.shipped import EMBEDDED_HOME

MEASURED = ("train", "heldout_parameters", "heldout_families")  # problem files that the base behaviour is of
TEMPERATURE = 1.0  # at which the base behaviour is sampled


@dataclass(frozen=True)
class EmbeddedFlags:
    """Make the embedded model's data (problems), its weights (model), or measure them (behaviour)."""

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
    """Rollouts per problem when the base behaviour is measured."""


def main(flags: EmbeddedFlags) -> None:
    """Make what is asked for."""
    checked(flags)
    checked(flags.recipe)
    if flags.start and not Path(flags.start, "made.json").is_file():
        raise InputError(
            f"{flags.start}: holds no made.json, so no weights that went through the first stage (--start)"
        )
    if flags.what == "problems":
        make_problems(Path(flags.out or EMBEDDED_HOME))
    else:
        make_weights(flags, Path(flags.out or EMBEDDED_HOME / "model"))


def make_problems(out: Path) -> None:
    """Problem files, pairs and the scripted teacher pool."""
    from hackward.organisms.scripted import write_problems

    write_problems(out)
    print(f"written to {out}")


def make_weights(flags: EmbeddedFlags, out: Path) -> None:
    """The model, unless only its behaviour is asked for; its base behaviour; its card."""
    # torch takes seconds to load
    from hackward.base.files import atomic, read_json, write_json
    from hackward.base.screen import stdout
    from hackward.hardware import models
    from hackward.organisms.behaviour import behaviour, report_behaviour
    from hackward.organisms.card import card
    from hackward.organisms.pretraining import make_model
    from hackward.tasks.formats import load_problems

    console = stdout()
    device = models.pick_device(flags.device)
    if flags.what == "model":
        make_model(flags.recipe, flags.start, out, device, console)
    model, tokenizer = models.load(str(out), device=str(device), dtype="float32")
    problems = {name: load_problems(EMBEDDED_HOME / f"{name}.jsonl") for name in MEASURED}
    rows = behaviour(model, tokenizer, problems, samples=flags.samples, temperature=TEMPERATURE)
    report_behaviour(rows, console, temperature=TEMPERATURE)
    measured = {"samples": flags.samples, "rows": rows}
    write_json(out / "behaviour.json", measured)
    with atomic(out / "README.md") as temporary:
        temporary.write_text(card(read_json(out / "made.json"), measured))


if __name__ == "__main__":
    exit_on_fault(lambda: main(command_line(EmbeddedFlags, description=__doc__)))
