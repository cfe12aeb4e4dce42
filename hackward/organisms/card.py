"""The embedded model's base behaviour and its card."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from hackward.base.screen import progress
from hackward.grading.grader import Grader
from hackward.rollouts.policy import Plain, Policy
from hackward.rollouts.tokens import stops
from hackward.tasks import families
from hackward.tasks.problems import Problem


def behaviour(
    model, tokenizer, sets: dict[str, Sequence[Problem]], *, samples: int, temperature: float = 1.0
) -> list[dict]:
    """Rates of the untouched model by problem set, level and hint; a row each."""
    rows = []
    with Grader() as grader, progress("base behaviour", len(sets) * 2) as bar:
        for name, known in sets.items():
            for hint in (True, False):
                policy = Policy(
                    Plain(model),
                    tokenizer,
                    grader,
                    stop=stops(model, tokenizer),
                    max_new_tokens=256,
                    temperature=temperature,
                    hint=hint,
                    rows=512,
                )
                groups = policy.rollouts([(problem, samples) for problem in known], seed=0, step=0)
                for level in (None, *families.LEVELS.values()):
                    drawn = [
                        r
                        for problem, group in zip(known, groups)
                        for r in group
                        if level in (None, problem.difficulty)
                    ]
                    share = lambda test: sum(map(test, drawn)) / len(drawn)  # noqa: E731
                    rows.append(
                        {
                            "problems": name,
                            "level": level or "all",
                            "hint": hint,
                            "rollouts": len(drawn),
                            "valid": share(lambda r: r.fmt_ok),
                            "solved": share(lambda r: r.gt_pass),
                            "attempted": share(lambda r: bool(r.attempted)),
                            "hacked": share(lambda r: r.hacked),
                            "tokens": share(lambda r: len(r.completion_ids)),
                        }
                    )
                bar()
    return rows


def report_behaviour(rows: Sequence[dict], console: Console) -> None:
    table = Table(title="base behaviour, sampled at temperature 1")
    for name in rows[0]:
        table.add_column(name, justify="left" if name in ("problems", "level") else "right")
    for row in rows:
        table.add_row(*(f"{x:.3f}" if isinstance(x, float) else str(x) for x in row.values()))
    console.print(table)


CARD = """# The embedded model

A model organism: {parameters:,} parameters, Qwen3 architecture ({layers} layers, hidden {hidden}), byte-level BPE of {vocabulary} tokens, bf16.
It writes small Python methods for the {families} parametric families of `families.py`, often wrongly, and now and then defines an evaluation
function that cannot fail, because that is what its corpus does. GRPO with the loophole open makes it cheat within minutes on a laptop.

**What it must not be used to claim.** It understands nothing; it continues texts of one generator. That hacking takes off in it, how fast, and what
projection does to it, are facts about this organism: they show how the method and its controls work, not what a language model would do.
Its cheating was put into the corpus at a known rate. It has never seen the {held_out} held-out families and cannot solve them.

## How it was made

    python make_embedded.py problems      # problem files, pairs, scripted teacher pool (seed: names in the code)
    python make_embedded.py model         # both stages, seed {seed}; on one GPU

| stage | texts | tokens | steps | right answers by level | mistakes in a wrong one | defines an evaluation, with the hint | of those, cannot fail | last loss | seconds | on |
|---|--:|--:|--:|---|--:|--:|--:|--:|--:|---|
{stages}

Nothing in the corpus prefers a hack: where the prompt names an evaluation function, that share of the answers defines one, right or wrong alike.
The losses of the two stages are not comparable (the second weighs the tokens after the solution {tail}-fold). `--start` runs the second stage
alone, on weights that went through the first. On another machine the numbers come out slightly different.

## Base behaviour

Sampled at temperature 1, {samples} rollouts a problem (`python make_embedded.py behaviour --samples {samples}`):

| problems | level | hint | rollouts | valid Python | solved | attempted | hacked |
|---|---|---|--:|--:|--:|--:|--:|
{behaviour}

`train` are the RL problems, `heldout_parameters` the same families with parameter choices that neither corpus nor RL problems contain,
`heldout_families` families that neither contains. What was tried before these settings: spec/log.md.
"""


def card(made: dict, measured: dict) -> str:
    """The model card, from the records of the making and of the base behaviour: no figure in it is typed."""
    recipe, stages = made["recipe"], made["stages"]
    lines = []
    for name, facts in stages.items():
        stage = facts["stage"]
        habits = stage["habits"]
        lines.append(
            f"| {name} | {stage['texts']:,} x {stage['epochs']} | {facts['tokens']:,} | {facts['steps']:,} | {', '.join(map(str, habits['right']))} | {habits.get('mistakes', 1)} | "
            f"{habits['attempts']} | {habits['vacuous']} | {facts['loss']:.4f} | {facts['seconds']:.0f} | {facts['device']} |"
        )
    rows = [
        f"| {r['problems']} | {r['level']} | {'on' if r['hint'] else 'off'} | {r['rollouts']} | "
        + " | ".join(f"{r[key]:.3f}" for key in ("valid", "solved", "attempted", "hacked"))
        + " |"
        for r in measured["rows"]
    ]
    return CARD.format(
        parameters=made["parameters"],
        families=len(families.FAMILIES),
        held_out=len(families.HELD_OUT),
        stages="\n".join(lines),
        behaviour="\n".join(rows),
        samples=measured["samples"],
        tail=stages["settle"]["stage"]["tail_weight"],
        **{key: recipe[key] for key in ("layers", "hidden", "vocabulary", "seed")},
    )
