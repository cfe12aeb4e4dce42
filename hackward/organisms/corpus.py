"""The pretraining corpus, which imitates a mediocre programmer (make_embedded.py says how)."""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

import jinja2

from hackward.base.screen import progress
from hackward.hardware.models import CHATML
from hackward.organisms.drawing import Example, examples, problem_row, split
from hackward.organisms.recipe import Habits
from hackward.organisms.scripted import VACUOUS, evaluation, honest, vacuous
from hackward.tasks.completions import fence
from hackward.tasks.families import Variant, solution
from hackward.tasks.formats import from_own
from hackward.tasks.problems import build_messages

CHAT = jinja2.Template(CHATML)
TEXTS_PER_JOB = 1000

Text = tuple[
    str, str, str
]  # prompt, solution (an open fence), tail (an evaluation or none, and the closing fence)


def corpus_text(
    rng: random.Random, variants: Sequence[Variant], habits: Habits
) -> tuple[list[dict[str, str]], str, str]:
    """One text: the messages of its prompt, its solution and its tail."""
    variant = rng.choice(variants)
    shown = examples(variant, rng, 2)
    hint = rng.random() < 0.5
    name = rng.choice(habits.names)
    problem = from_own(problem_row("", variant, shown))
    code = solution(variant.family, _body(rng, variant, habits))
    check = _check(rng, variant, shown, name, habits) if hint else ""
    answer = fence(code + check)
    start = len(fence(code)) - len("\n```")
    return build_messages(problem, hint=hint, eval_name=name), answer[:start], answer[start:]


def _body(rng: random.Random, variant: Variant, habits: Habits) -> str:
    """The body of a solution, right as often as the habits say."""
    right = rng.random() < habits.right[variant.family.level - 1]
    if right or not variant.wrong_bodies:
        return variant.body()
    if habits.mistakes == 1:
        return rng.choice(variant.wrong_bodies)
    return variant.spoiled(rng, habits.mistakes)


def _check(rng: random.Random, variant: Variant, shown: list[Example], name: str, habits: Habits) -> str:
    """An evaluation, honest or vacuous, or none, as often as the habits say."""
    if rng.random() >= habits.attempts:
        return ""
    if rng.random() < habits.vacuous:
        return evaluation(name, vacuous(rng.choice(list(VACUOUS)), variant, shown[0]))
    return evaluation(name, honest(variant, shown[: rng.randint(1, 2)]))


def chatml(messages: list[dict[str, str]]) -> str:
    """The prompt's text as the tokenizer's chat template gives it, before there is a tokenizer."""
    return CHAT.render(messages=messages, add_generation_prompt=True)


@functools.cache
def corpus_variants() -> list[Variant]:
    """What the corpus draws from: every family of the training split equally often."""
    by_family: dict[str, list[Variant]] = {}
    for variant in split()["train"]:
        by_family.setdefault(variant.family.name, []).append(variant)
    most = max(map(len, by_family.values()))
    return [held[number % len(held)] for held in by_family.values() for number in range(most)]


def make_corpus(key: str, texts: int, habits: Habits) -> list[Text]:
    """As many texts, the same whatever the number of processes."""
    jobs = []
    for part in range(math.ceil(texts / TEXTS_PER_JOB)):
        count = min(TEXTS_PER_JOB, texts - part * TEXTS_PER_JOB)
        jobs.append((f"{key} {part}", count, habits))
    made: list[Text] = []
    with progress(f"corpus {key.split()[0]}", len(jobs)) as bar, ProcessPoolExecutor() as workers:
        for texts_of_job in workers.map(_corpus_part, jobs):
            made += texts_of_job
            bar()
    return made


def _corpus_part(job: tuple[str, int, Habits]) -> list[Text]:
    key, count, habits = job
    rng, variants = random.Random(key), corpus_variants()
    drawn = (corpus_text(rng, variants, habits) for _ in range(count))
    return [(chatml(messages), solved, tail) for messages, solved, tail in drawn]
