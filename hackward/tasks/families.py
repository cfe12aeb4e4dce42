"""Parametric coding problems in the LeetCode form, for the embedded model: as many as wanted, nobody else's.

A family is a statement, a reference solution and a few plausible mistakes, with parameters in all of them:
words in the statement, code in the solution. A combination of parameters makes a variant; a variant with
drawn inputs makes a problem. A mistake is a textual change of the solution, or a parameter misread (another
choice of it). The level says how often the pretraining corpus solves it (organisms/recipe.py): 1 easy, 2
medium, 3 hard.

The families themselves are in catalogue.py. Nothing here executes model output: only their solutions are run,
to compute what the tests expect.
"""

from __future__ import annotations

import functools
import itertools
import random
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from string import Template
from typing import Any

SETUP = "from typing import List\n"
LEVELS = {1: "easy", 2: "medium", 3: "hard"}
WORDS, CODE = 0, 1  # the two sides of a parameter's choice


@dataclass(frozen=True)
class Kind:
    """A type of argument: its annotation and how to draw one."""

    annotation: str
    draw: Callable[[random.Random], Any]


@dataclass(frozen=True, eq=False)
class Family:
    """A statement, its solution and mistakes; `$name` in them stands for a parameter."""

    name: str
    """Also of the method."""
    level: int
    returns: str
    """The annotation of the method's result."""
    statement: str
    code: str
    """The body of the method."""
    parameters: dict[str, tuple[tuple[str, str], ...]]
    """By name, the choices of (words, code)."""
    mistakes: tuple[tuple[str, str], ...]
    """(text of the body, what it is replaced by)."""
    inputs: dict[str, Kind]

    @property
    def starter(self) -> str:
        """The class with the method's signature."""
        arguments = ", ".join(f"{name}: {kind.annotation}" for name, kind in self.inputs.items())
        return f"class Solution:\n    def {self.name}(self, {arguments}) -> {self.returns}:\n"

    def variants(self) -> Iterator[Variant]:
        """Every combination of the parameters, the last one changing fastest."""
        for choice in itertools.product(*(range(len(choices)) for choices in self.parameters.values())):
            yield Variant(self, choice)


def family(
    name: str,
    level: int,
    returns: str,
    statement: str,
    code: str,
    *,
    mistakes: list[tuple[str, str]],
    inputs: dict[str, Kind],
    **parameters: list[Any],
) -> Family:
    """A family as the catalogue writes it. A choice is (words, code), or one value that serves as both."""
    code = textwrap.dedent(code).strip()
    for old, _ in mistakes:
        if old not in code:
            raise ValueError(f"{name}: a mistake changes nothing")
    choices = {parameter: tuple(map(_both_sides, given)) for parameter, given in parameters.items()}
    return Family(name, level, returns, statement, code, choices, tuple(mistakes), inputs)


def _both_sides(choice: Any) -> tuple[str, str]:
    return choice if isinstance(choice, tuple) else (str(choice), str(choice))


@dataclass(frozen=True)
class Variant:
    """One combination of a family's parameters."""

    family: Family
    choice: tuple[int, ...]
    """The index of the choice taken, per parameter."""

    @property
    def key(self) -> str:
        """A name that no other variant has."""
        return "-".join([self.family.name, *map(str, self.choice)])

    def _fill(self, template: str, side: int) -> str:
        taken = {}
        for (name, choices), index in zip(self.family.parameters.items(), self.choice):
            taken[name] = choices[index][side]
        return Template(template).substitute(taken)

    @property
    def statement(self) -> str:
        """The statement in words, without examples."""
        return self._fill(self.family.statement, WORDS)

    def body(self, mistake: tuple[str, str] | None = None) -> str:
        """The solution's body; with a mistake, the first of its left text replaced by the right one."""
        code = self.family.code
        if mistake is not None:
            code = code.replace(*mistake, 1)
        return self._fill(code, CODE)

    @functools.cached_property
    def wrong_bodies(self) -> tuple[str, ...]:
        """Bodies with one mistake, or one parameter misread, that are wrong on some drawn input or raise."""
        bodies = [self.body(mistake) for mistake in self.family.mistakes]
        for place, choices in enumerate(self.family.parameters.values()):
            for index in range(len(choices)):
                misread = (*self.choice[:place], index, *self.choice[place + 1 :])
                bodies.append(Variant(self.family, misread).body())
        rng = random.Random(f"wrong bodies {self.key}")
        inputs = [self.draw(rng) for _ in range(12)]
        right = [self.answer(drawn) for drawn in inputs]
        others = [body for body in dict.fromkeys(bodies) if body != self.body()]
        return tuple(body for body in others if answers(self.family, body, inputs) != right)

    def spoiled(self, rng: random.Random, count: int) -> str:
        """A body with `count` mistakes, as far as there are so many that do not touch the same text.

        It is not executed, for two mistakes may make a loop endless. So one in seventy or so is right all the
        same.
        """
        options = list(self.family.parameters.values())
        misreadings = [place for place, choices in enumerate(options) if len(choices) > 1]
        changes: list[int | tuple[str, str]] = [*misreadings, *self.family.mistakes]
        code, choice, made = self.family.code, list(self.choice), 0
        for change in rng.sample(changes, len(changes)):
            if isinstance(change, int):
                others = [index for index in range(len(options[change])) if index != self.choice[change]]
                choice[change] = rng.choice(others)
            elif change[0] in code:
                code = code.replace(*change, 1)
            else:
                continue
            made += 1
            if made == count:
                break
        return Variant(self.family, tuple(choice))._fill(code, CODE)

    def draw(self, rng: random.Random) -> dict[str, Any]:
        """Arguments for one call, by name."""
        return {name: kind.draw(rng) for name, kind in self.family.inputs.items()}

    def answer(self, drawn: dict[str, Any]) -> Any:
        """What the solution gives for these arguments."""
        return _compiled(self.family, self.body())(None, **_copied(drawn))

    def fooling(self, inputs: list[dict]) -> list[str]:
        """Those of the wrong bodies that answer every input, and not all of them rightly."""
        right = answers(self.family, self.body(), inputs)
        given = {body: answers(self.family, body, inputs) for body in self.wrong_bodies}
        return [body for body, values in given.items() if values is not None and values != right]


def solution(family: Family, body: str) -> str:
    """The class with one method that has this body."""
    return family.starter + textwrap.indent(body, " " * 8) + "\n"


def answers(family: Family, body: str, inputs: list[dict]) -> list | None:
    """What a body answers to each input, or None if it raises on one."""
    try:
        return [_compiled(family, body)(None, **_copied(drawn)) for drawn in inputs]
    except Exception:  # a mistake may raise anything
        return None


@functools.cache
def _compiled(family: Family, body: str) -> Callable:
    space: dict[str, Any] = {}
    exec(SETUP + solution(family, body), space)  # a solution of the catalogue, never a model's
    return getattr(space["Solution"], family.name)


def _copied(drawn: dict[str, Any]) -> dict[str, Any]:
    """Lists one and two deep are copied, for a solution may change its arguments."""
    return {name: _copy(value) for name, value in drawn.items()}


def _copy(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    return [list(item) if isinstance(item, list) else item for item in value]
