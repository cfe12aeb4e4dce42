"""New inputs for a problem: proposed, mended, and checked against all that is known of its inputs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from hackward.strengthening.arguments import Input, Shape, arguments_of, fits, input_of, shapes_of
from hackward.strengthening.constraints import Constraints, innermost, read_constraints
from hackward.strengthening.forms import Form, form_of
from hackward.strengthening.invariants import Learned, is_word_of, learn, safely, sentences_of
from hackward.strengthening.mutations import Mutator
from hackward.strengthening.presence import learn_presence, learn_repeats
from hackward.strengthening.proposals import Maker
from hackward.strengthening.terms import Unreadable
from hackward.tasks.assertions import Unparsable
from hackward.tasks.problems import Problem

TRIES = 40  # proposals for each input that is wanted
MENDS = 2  # rounds of mending, since one may break what another has made
# Lines that bind no input: about the answer's size, or what may also be
HARMLESS = re.compile(
    r"\banswer (?:is|will be)(?: guaranteed to be)? (?:in the range|less than|at most)"
    r"|\bless than or equal to 10\d|output (?:doesn't|does not) exceed"
    r"|\bfits?\b|\bmay\b|accepted|\bmight\b|does not exceed|^note|https?:|modul|in-place|o\(",
    re.IGNORECASE,
)
PROMISES = re.compile(
    r"(?:exactly|only) one (?:valid |possible )?(?:solution|answer)\b|only one (?:valid|possible|optimal) \w+"
    r"|\banswer (?:is|will be) unique\b|\bguaranteed to be unique\b"
    r"|\bguaranteed (?:that )?(?:the|an) (?:answer|solution) (?:is unique|exists)"
    r"|\bunique (?:solution|answer)\b",
    re.IGNORECASE,
)
# Sentences of the prose that promise something
PROSE = re.compile(r"\b(?:guaranteed|(?:may|can) assume|generated (?:such|so))\b", re.IGNORECASE)
CLOCK = re.compile(r"\b(?:HH|MM|hh|mm)\b")
# Lines that ask something of an input which is not looked for here
UNCHECKED = re.compile(
    r"\bguaranteed\b|\balways (?:be )?(?:possible|move|exist|a)\b|generated (?:such|so|in)"
    r"|\bit is possible\b|\bexists?\b"
    r"|\bcan be (?:performed|converted|made)\b|\bconsistent\b|\bfollow the rules\b|earlier than|later than"
    r"|\bthere (?:is|are|will be|must be) (?:exactly|at least|always)\b(?!.*\b(?:word|token)s?\b)",
    re.IGNORECASE,
)
# What follows from the rules of the problem asks nothing of the input
THEOREM = re.compile(r"\bprove[nd]?\b|\bshown\b|under the given", re.IGNORECASE)
GRAMMAR = re.compile(
    r"\bvalid (?!binary search|tree|binary tree|graph)[\w ]*"
    r"(?:expression|number|time|date|path|numeral|string|input|encod|format|email|code|url)"
    r"|is (?:always |guaranteed to be )?valid\b|\bformat(?:ted)?\b|\bin the form\b|\bgrammar\b|legal",
    re.IGNORECASE,
)


class NoInputs(Exception):
    """Why no inputs can be made for a problem."""


@dataclass
class Known:
    """All that is known of a problem's inputs."""

    shapes: dict[str, Shape]
    given: list[dict[str, Any]]
    constraints: Constraints
    invariants: list[Learned]
    forms: dict[str, Form]
    """Parameters whose texts all have a form, such as a time of day."""
    unread: list[str]
    """Lines of the statement that nothing here accounts for."""
    strange: list[str]
    """Those of them that ask for what nothing here looks for, such as a grammar."""

    def allows(self, values: Input) -> bool:
        """Whether an input is of the right types and within all that is known."""
        if not all(fits(values[name], shape) for name, shape in self.shapes.items()):
            return False
        for name, form in self.forms.items():
            if not all(map(form.holds, innermost(values[name]))):
                return False
        return self.constraints.allows(values) and all(safely(one, values) for one in self.invariants)

    def mended(self, dice: Random, values: dict[str, Any]) -> dict[str, Any]:
        """An input that is nearer to what is known."""
        for _ in range(MENDS):
            for one in self.invariants:
                values = one.mended(dice, values)
            values = self._with_sizes(values)
        return values

    def _with_sizes(self, values: dict[str, Any]) -> dict[str, Any]:
        """Numbers that say how long a list is, such as n, set to that."""
        for name, term in self.constraints.counts.items():
            try:
                found = self.constraints.scope(values).size_of(term)
            except Unreadable:
                continue
            if isinstance(found, int) and isinstance(values[name], int):
                values = values | {name: found}
        return values


def known_of(problem: Problem) -> Known:
    """What can be known of the inputs of a problem. NoInputs where that is not enough to make others."""
    shapes = shapes_of(problem)
    if not shapes:
        raise NoInputs("the types of its parameters cannot be read")
    try:
        given = [input_of(test.arguments, list(shapes)) for test in problem.tests]
    except Unparsable as fault:
        raise NoInputs(f"its tests cannot be read ({fault})") from None
    if not all(fits(values[name], shape) for values in given for name, shape in shapes.items()):
        raise NoInputs("the arguments of its tests are not of the types that its starter code states")
    for sentence in sentences_of(problem.statement):
        promise = PROMISES.search(sentence)
        if promise is not None and not THEOREM.search(sentence):
            raise NoInputs(f"its statement promises what cannot be checked: {promise[0]!r}")
    constraints = read_constraints(problem.statement, shapes, given)
    sentences = sentences_of(problem.statement)
    present = [*learn_presence(sentences, shapes, given), *learn_repeats(sentences, shapes, given)]
    invariants = [*learn(problem.statement, shapes, given, careful=False), *present]
    promised = [sentence for sentence in sentences if PROSE.search(sentence)]
    unread = [line for line in [*constraints.unread, *promised] if not HARMLESS.search(PROSE.sub("", line))]
    unread = [line for line in unread if not any(is_word_of(one, line) for one in invariants)]
    forms = _forms_of(shapes, given)
    if forms:
        unread = [line for line in unread if not GRAMMAR.search(line) and not CLOCK.search(line)]
    lines = [line for line in unread if line in constraints.unread]
    strange = [line for line in lines if GRAMMAR.search(line) or UNCHECKED.search(line)]
    if unread:
        invariants = [*learn(problem.statement, shapes, given, careful=True), *present]
    return Known(shapes, given, constraints, invariants, forms, unread, strange)


def _forms_of(shapes: dict[str, Shape], given: Sequence[Input]) -> dict[str, Form]:
    found = {}
    for name, shape in shapes.items():
        if shape.innermost.kind == "str":
            form = form_of([text for values in given for text in innermost(values[name])])
            if form is not None:
                found[name] = form
    return found


def new_inputs(known: Known, count: int, dice: Random) -> list[dict[str, Any]]:
    """Up to `count` inputs that differ from the given ones and from each other, edge cases first."""
    taken = {arguments_of(values) for values in known.given}
    found: list[dict[str, Any]] = []
    for number, proposal in enumerate(_proposals(known, found, dice)):
        if len(found) >= count or number >= TRIES * count:
            break
        values = known.mended(dice, proposal)
        text = arguments_of(values)
        if text not in taken and known.allows(values):
            taken.add(text)
            found.append(values)
    return found


def _proposals(known: Known, found: Sequence[dict[str, Any]], dice: Random) -> Iterator[dict[str, Any]]:
    """Edge cases, then by type and by mutation in turn. `found` grows meanwhile."""
    maker = Maker(known.constraints, known.given, dice)
    together = [one.names for one in known.invariants if one.invariant.name == "same length"]
    mutator = Mutator(known.shapes, together, dice)
    yield from maker.edge_cases()
    while True:
        yield from maker.proposals()
        yield mutator.mutated(dice.choice(known.given))
        yield mutator.mutated(dice.choice([*known.given, *found]))
