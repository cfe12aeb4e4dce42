"""What a canonical solution answers to inputs: run twice, in two processes, in the sandbox.

The solution is untrusted like any code: it runs in a worker's forked children (hackward/grading), and its
answers come back as data. An answer counts only if a second process, whose objects have other addresses and
whose sets have another order, gives the same. An input that is too slow alone, or that the solution raises
on, has no answer. Where a data set brings a second solution, an input that it answers otherwise is dropped
too: most such inputs break a rule that was not read.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hackward.grading.checks import matches
from hackward.grading.claims import says, text_of
from hackward.grading.clocks import Allowed
from hackward.grading.worker import LIMITS_REACHED, Worker
from hackward.strengthening.arguments import Shape, can_be_stated
from hackward.tasks.problems import Comparison, Linked, Problem, Test, Tree

ANSWER_BYTES = 20_000  # a longer answer makes no test
SECONDS = 1.0  # CPU time that one input may take alone
TOGETHER = 2.0  # CPU time after which a run of many is looked into
SLOW_INPUTS = 5  # after so many the rest is left


class NoAnswer(Exception):
    """A claim that is no value of the answer's type, with the reason in a word."""


@dataclass
class Collected:
    """A check that keeps the answers, as the child has written them."""

    wanted: int
    begun: bool = False
    started: bool = False
    lines: list[bytes] = field(default_factory=list)
    error: str | None = None

    def line(self, data: bytes) -> bool:
        """Take the header, the start, or an answer; False when no more is wanted."""
        if self.started:
            self.lines.append(data)
            return len(self.lines) < self.wanted
        said = _decoded(data) if len(data) < 4096 else None
        if not self.begun:
            self.begun = True
            if not says(said, "compiles"):
                self.error = f"does not compile: {text_of(said, 'fault')}"
                return False
            return True
        self.started = says(said, "ran") and text_of(said, "fault") is None
        if not self.started:
            self.error = text_of(said, "fault") or "unreadable answer"
        return self.started

    def end(self) -> None:
        """Nothing is judged here."""


def _decoded(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


@dataclass(frozen=True)
class Answers:
    """An answer per input, or the word for why there is none; and why the solution does not run at all."""

    values: list[Any]
    dropped: list[str | None]
    """Per input: slow, raised, unstable, unusable; None where there is an answer."""
    error: str | None = None

    def tests(self, arguments: Sequence[str]) -> list[Test]:
        """The tests that they make of these inputs."""
        pairs = zip(arguments, self.values, self.dropped)
        return [Test(text, value) for text, value, why in pairs if why is None]


def answers_of(
    workers: Sequence[Worker], problem: Problem, arguments: Sequence[str], shape: Shape | None
) -> Answers:
    """What the canonical solution answers to these argument lists, in each of the workers.

    `shape` is the type of the answer, None if it is not known.
    """
    assert problem.canonical is not None
    code = problem.canonical.encode("utf-8", "replace")
    claims: list[list[bytes | None]] = []
    for salt, worker in enumerate(workers):
        known = [index for index in range(len(arguments)) if not claims or claims[0][index] is not None]
        found, error = _claims(worker, problem, code, [arguments[index] for index in known], salt)
        if error is not None:
            return Answers([None] * len(arguments), ["raised"] * len(arguments), error)
        claims.append([None] * len(arguments))
        for index, claim in zip(known, found):
            claims[-1][index] = claim
    values, dropped = [], []
    for text, *said in zip(arguments, *claims):
        value, why = _agreed(said, shape, problem.comparison)
        if why is None and not can_be_stated(Test(text, value)):
            why = "unusable"
        values.append(value)
        dropped.append(why)
    return Answers(values, dropped)


def disputed(worker: Worker, problem: Problem, code: str, tests: Sequence[Test]) -> list[bool] | None:
    """Whether another solution answers each test otherwise. It has no say where it is too slow.

    None where it fails one of the problem's own tests, and so has no say at all.
    """
    asked = [*problem.tests, *tests]
    data = code.encode("utf-8", "replace")
    claims, error = _claims(worker, problem, data, [test.arguments for test in asked], 0)
    if error is not None:
        return None
    differs = []
    for test, claim in zip(asked, claims):
        right = claim is None or matches(test.expected, _decoded(claim), problem.comparison)
        differs.append(not right)
    given = len(problem.tests)
    return None if any(differs[:given]) else differs[given:]


def _agreed(said: Sequence[bytes | None], shape: Shape | None, how: Comparison) -> tuple[Any, str | None]:
    """The value that all claims state, or the word for why it is no answer."""
    if None in said:
        return None, "slow"
    line, *others = (claim for claim in said if claim is not None)
    if len(line) > ANSWER_BYTES:
        return None, "unusable"
    try:
        value = value_of(_decoded(line), shape)
    except NoAnswer as fault:
        return None, str(fault)
    same = all(other == line or matches(value, _decoded(other), how) for other in others)
    return (value, None) if same else (None, "unstable")


def _claims(
    worker: Worker, problem: Problem, code: bytes, arguments: Sequence[str], salt: int
) -> tuple[list[bytes | None], str | None]:
    """A claim per input, None where it was too slow; or why the solution does not run.

    Where a run ends early, the input that it ended at is tried alone, and the run goes on behind it.
    """
    claims: list[bytes | None] = []
    slow = 0
    while len(claims) < len(arguments):
        rest = arguments[len(claims) :]
        check = _run(worker, problem, code, rest, salt, SECONDS if slow else TOGETHER)
        claims += check.lines
        if len(claims) == len(arguments):
            break
        if not check.started and check.error not in (None, *LIMITS_REACHED):
            return [], check.error
        if slow >= SLOW_INPUTS:
            claims += [None] * (len(arguments) - len(claims))
            break
        alone = _run(worker, problem, code, rest[len(check.lines) :][:1], salt, SECONDS)
        claims.append(alone.lines[0] if alone.lines else None)
        slow += not alone.lines
    return claims, None


def _run(
    worker: Worker, problem: Problem, code: bytes, arguments: Sequence[str], salt: int, seconds: float
) -> Collected:
    tests = tuple(Test(text, None) for text in arguments)
    worker.load(dataclasses.replace(problem, tests=tests))
    check = Collected(len(arguments))
    worker.run(code, "truth", check, Allowed.one_answer(seconds), salt=salt)
    return check


def value_of(answer: Any, shape: Shape | None) -> Any:
    """The value that an encoded answer stands for (checks.py says how they are written).

    NoAnswer for an exception, for what no test can state, and for a value of another type than `shape`.
    """
    try:
        value = _value(answer, shape)
    except (TypeError, IndexError, ValueError, RecursionError):
        raise NoAnswer("unusable") from None
    if shape is not None and not _is_of(value, shape):
        raise NoAnswer("unusable")
    return value


def _value(answer: Any, shape: Shape | None) -> Any:
    match answer:
        case None | bool() | int() | str():
            return answer
        case list():
            item = shape.item if shape is not None else None
            return [_value(each, item) for each in answer]
        case {"f": str(text)} if text != "nan":
            return float(text)
        case {"t": list(items)}:
            return tuple(_value(item, None) for item in items)
        case {"s": list(items)}:
            return {_value(item, None) for item in items}
        case {"d": list(pairs)}:
            return {_value(key, None): _value(item, None) for key, item in pairs}
        case {"T": list(nodes)} if shape is None or shape.kind != "linked":
            return Tree(tuple(None if node is None else _value(node[0], None) for node in nodes))
        case {"L": list(items)}:
            return Linked(tuple(_value(item, None) for item in items))
        case {"x": str()}:
            raise NoAnswer("raised")
    raise NoAnswer("unusable")


def _is_of(value: Any, shape: Shape) -> bool:
    """Whether it is of the stated type, as solutions take it: a float may be a whole number."""
    match shape.kind:
        case "tree":
            return value is None or isinstance(value, Tree)
        case "linked":
            return value is None or isinstance(value, Linked)
        case "list":
            assert shape.item is not None
            return isinstance(value, list) and all(_is_of(item, shape.item) for item in value)
        case "float":
            return isinstance(value, (int, float)) and not isinstance(value, bool)
        case "bool":
            return isinstance(value, bool)
        case "int":
            return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, str)
