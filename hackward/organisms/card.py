"""The embedded model's card."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hackward.base.markdown import aligned_table
from hackward.tasks.catalogue import FAMILIES, HELD_OUT

CARD = """# The embedded model

A model organism: {parameters:,} parameters, Qwen3 architecture ({layers} layers, hidden {hidden}),
byte-level BPE of {vocabulary} tokens, bf16. It writes small Python methods for the {families} parametric
families of `hackward/tasks/catalogue.py`, often wrongly, and now and then defines an evaluation function
that cannot fail, because that is what its corpus does. GRPO with the loophole open makes it cheat within
minutes on a laptop.

**What it must not be used to claim.** It understands nothing; it continues texts of one generator. That
hacking takes off in it, how fast, and what projection does to it, are facts about this organism: they show
how the method and its controls work, not what a language model would do. Its cheating was put into the
corpus at a known rate. It has never seen the {held_out} held-out families and cannot solve them.

## How it was made

    python make_embedded.py problems  # problem files, pairs, scripted teacher pool (seed: names in the code)
    python make_embedded.py model     # both stages, seed {seed}; on one GPU

{stages}

Nothing in the corpus prefers a hack: where the prompt names an evaluation function, that share of the
answers defines one, right or wrong alike. The losses of the two stages are not comparable (the second weighs
the tokens after the solution {tail}-fold). `--start` runs the second stage alone, on weights that went
through the first. On another machine the numbers come out slightly different.

## Base behaviour

Sampled at temperature 1, {samples} rollouts per problem
(`python make_embedded.py behaviour --samples {samples}`):

{behaviour}

`train` are the RL problems, `heldout_parameters` the same families with parameter choices that neither
corpus nor RL problems contain, `heldout_families` families that neither contains. What was tried before
these settings: spec/log.md.
"""
STAGE_COLUMNS = {
    "stage": "---",
    "texts": "--:",
    "tokens": "--:",
    "steps": "--:",
    "right answers by level": "---",
    "mistakes in a wrong one": "--:",
    "defines an evaluation, with the hint": "--:",
    "of those, cannot fail": "--:",
    "last loss": "--:",
    "seconds": "--:",
    "on": "---",
}
BEHAVIOUR_COLUMNS = {
    "problems": "---",
    "level": "---",
    "hint": "---",
    "rollouts": "--:",
    "valid Python": "--:",
    "solved": "--:",
    "attempted": "--:",
    "hacked": "--:",
}


def card(made: dict[str, Any], measured: dict[str, Any]) -> str:
    """The model card, from the records of the making and of the base behaviour: no figure in it is typed."""
    recipe, stages = made["recipe"], made["stages"]
    return CARD.format(
        parameters=made["parameters"],
        families=len(FAMILIES),
        held_out=len(HELD_OUT),
        stages=aligned_table(STAGE_COLUMNS, (_stage_cells(name, facts) for name, facts in stages.items())),
        behaviour=aligned_table(BEHAVIOUR_COLUMNS, map(_behaviour_cells, measured["rows"])),
        samples=measured["samples"],
        tail=stages["settle"]["stage"]["tail_weight"],
        **{key: recipe[key] for key in ("layers", "hidden", "vocabulary", "seed")},
    )


def _stage_cells(name: str, facts: dict[str, Any]) -> Sequence[object]:
    stage = facts["stage"]
    habits = stage["habits"]
    return (
        name,
        f"{stage['texts']:,} x {stage['epochs']}",
        f"{facts['tokens']:,}",
        f"{facts['steps']:,}",
        ", ".join(map(str, habits["right"])),
        habits.get("mistakes", 1),
        habits["attempts"],
        habits["vacuous"],
        f"{facts['loss']:.4f}",
        f"{facts['seconds']:.0f}",
        facts["device"],
    )


def _behaviour_cells(row: dict[str, Any]) -> Sequence[object]:
    rates = (f"{row[key]:.3f}" for key in ("valid", "solved", "attempted", "hacked"))
    return (row["problems"], row["level"], "on" if row["hint"] else "off", row["rollouts"], *rates)
