"""Problems drawn from the families: which variants train, and inputs that tell right from wrong."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from hackward.tasks.catalogue import FAMILIES, HELD_OUT
from hackward.tasks.families import LEVELS, SETUP, Family, Variant, answers, solution


@dataclass(frozen=True)
class Example:
    """Arguments by name, and what the solution gives for them."""

    drawn: dict[str, Any]
    value: Any

    def call(self, method: str) -> str:
        """Source of the call from within the class."""
        return f"self.{method}({', '.join(map(repr, self.drawn.values()))})"

    def source(self) -> str:
        """Source of the arguments, as the data sets write them."""
        return ", ".join(f"{name} = {value!r}" for name, value in self.drawn.items())


class DrawnProblem(NamedTuple):
    """A problem, what it was drawn from, and its row in the project's own format (tasks/formats.py)."""

    variant: Variant
    examples: list[Example]
    row: dict[str, Any]


def examples(variant: Variant, rng: random.Random, count: int) -> list[Example]:
    """`count` different inputs, or all that are found, and what the solution gives for them.

    A value that half of them have already is avoided as long as half of the tries are left.
    """
    taken: dict[str, Example] = {}
    values: list[str] = []
    for tried in range(40 * count):
        drawn = variant.draw(rng)
        fresh = Example(drawn, variant.answer(drawn))
        too_often = values.count(repr(fresh.value)) >= max(1, count // 2)
        if fresh.source() in taken or (too_often and tried < 20 * count):
            continue
        taken[fresh.source()] = fresh
        values.append(repr(fresh.value))
        if len(taken) == count:
            break
    return list(taken.values())


def by_function(family: Family) -> list[list[Variant]]:
    """The family's variants, those together that answer 100 inputs alike ("more than 1" and "at least 2")."""
    rng = random.Random(f"functions {family.name}")
    variants = list(family.variants())
    inputs = [variants[0].draw(rng) for _ in range(100)]
    alike: dict[str, list[Variant]] = {}
    for variant in variants:
        given = repr([variant.answer(drawn) for drawn in inputs])
        alike.setdefault(given, []).append(variant)
    return list(alike.values())


def split() -> dict[str, list[Variant]]:
    """Variants by split: `train` (corpus and RL), `parameters` (a fifth of those families), `families`.

    Variants that are the same function stay together, so that what is held out is a function not seen, not a
    wording.
    """
    parts: dict[str, list[Variant]] = {"train": [], "parameters": [], "families": []}
    for name, family in FAMILIES.items():
        groups = by_function(family)
        random.Random(f"split {name}").shuffle(groups)
        if name in HELD_OUT:
            unseen, part = len(groups), "families"
        else:
            unseen, part = max(1, len(groups) // 5), "parameters"
        for group in groups[:unseen]:
            parts[part] += group
        for group in groups[unseen:]:
            parts["train"] += group
    return parts


def draw_problems(
    variants: Sequence[Variant], wanted: dict[int, int], key: str, tests: int = 10
) -> Iterator[DrawnProblem]:
    """As many problems of each level as wanted, from the families in turn and from their variants in turn.

    `key` seeds the draws and begins the problems' ids.
    """
    rng = random.Random(key)
    for level, count in wanted.items():
        by_family: dict[str, list[Variant]] = {}
        for variant in rng.sample(list(variants), len(variants)):
            if variant.family.level == level:
                by_family.setdefault(variant.family.name, []).append(variant)
        families = list(by_family.values())
        for number in range(count):
            round_, place = divmod(number, len(families))
            repeat, choice = divmod(round_, len(families[place]))
            variant = families[place][choice]
            drawn = sharpen(variant, examples(variant, rng, tests), rng)
            row = problem_row(f"{key}/{variant.key}/{repeat}", variant, drawn)
            yield DrawnProblem(variant, drawn, row)


def sharpen(variant: Variant, drawn: list[Example], rng: random.Random, tries: int = 300) -> list[Example]:
    """Add tests until every one of the variant's wrong bodies fails one."""
    for body in variant.wrong_bodies:
        if answers(variant.family, body, [example.drawn for example in drawn]) != [e.value for e in drawn]:
            continue
        for _ in range(tries):
            fresh = variant.draw(rng)
            right = variant.answer(fresh)
            if answers(variant.family, body, [fresh]) != [right]:
                drawn = [*drawn, Example(fresh, right)]
                break
    return drawn


def problem_row(problem_id: str, variant: Variant, drawn: Sequence[Example]) -> dict[str, Any]:
    """A row of a problem file; the first two examples stand in the statement."""
    family = variant.family
    return {
        "problem_id": problem_id,
        "difficulty": LEVELS[family.level],
        "statement": statement(variant, drawn[:2]),
        "starter_code": family.starter,
        "method": family.name,
        "setup_code": SETUP,
        "tests": [f"candidate({example.source()}) == {example.value!r}" for example in drawn],
        "canonical": solution(family, variant.body()),
    }


def statement(variant: Variant, shown: Sequence[Example]) -> str:
    """The statement with examples, in the manner of LeetCode."""
    parts = [variant.statement]
    for number, example in enumerate(shown, 1):
        parts.append(f"Example {number}:\nInput: {example.source()}\nOutput: {example.value!r}")
    return "\n\n".join(parts)
