"""Wrong solutions that pass: how many of them do stronger tests catch?

    python strengthen.py PROBLEMS --out STRONGER.jsonl --seed 0
    python strengthen.py PROBLEMS --out JUDGE.jsonl --seed 1 --tests 200
    python tests/wrong_solutions.py PROBLEMS --stronger STRONGER.jsonl --judge JUDGE.jsonl --count 1000

Canonical solutions are changed in one place each (a comparison, an operator, a constant, an end of a range, a
condition, a branch). Those that pass a problem's own tests are graded with the stronger ones. Many such
changes change nothing that any input shows, so what counts as wrong is what either STRONGER or JUDGE, made
with another seed, sees a difference in; both shares are printed. Not a part of the test suite.
"""

from __future__ import annotations

import ast
import copy
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Annotated

import tyro

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from hackward.base.files import read_jsonl, write_jsonl
from hackward.grading.grader import Grader
from hackward.grading.labels import Grade, GradeItem
from hackward.grading.sandbox import Limits
from hackward.tasks.completions import fence
from hackward.tasks.formats import load_problems
from hackward.tasks.problems import Problem

COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt, ast.GtE),
    ast.Gt: (ast.GtE, ast.Lt),
    ast.GtE: (ast.Gt, ast.LtE),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.BitXor: ast.BitOr,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
SWAPPED = {"min": "max", "max": "min", "any": "all", "all": "any"}


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Measure how many wrong solutions stronger tests catch."""

    problems: Annotated[str, tyro.conf.Positional]
    """The problems with their own tests."""
    stronger: str
    """The same with more tests."""
    judge: str | None = None
    """The same with others, from another seed: what either sees is wrong."""
    count: int = 1000
    """Mutants that are tried, at most four of a problem."""
    seed: int = 0
    keep: Path | None = None
    """Where the mutants that pass the own tests are kept, one a line. They are taken from that file where it
    is there."""
    show: bool = False
    """Print those that only the judge sees."""


def changes(node: ast.AST) -> Iterator[ast.AST]:
    """What a node may be changed to."""
    match node:
        case ast.Compare(ops=[op, *rest]) if type(op) in COMPARISONS:
            for other in COMPARISONS[type(op)]:
                yield ast.Compare(node.left, [other(), *rest], node.comparators)
        case ast.BinOp(op=op) if type(op) in OPERATORS:
            yield ast.BinOp(node.left, OPERATORS[type(op)](), node.right)
        case ast.AugAssign(op=op) if type(op) in OPERATORS:
            yield ast.AugAssign(node.target, OPERATORS[type(op)](), node.value)
        case ast.BoolOp(op=op):
            yield ast.BoolOp(ast.Or() if isinstance(op, ast.And) else ast.And(), node.values)
        case ast.Constant(value=int() as value) if not isinstance(value, bool):
            yield from (ast.Constant(value + 1), ast.Constant(value - 1))
        case ast.Constant(value=bool() as value):
            yield ast.Constant(not value)
        case ast.Call(func=ast.Name(id=name)) if name in SWAPPED:
            yield ast.Call(ast.Name(SWAPPED[name], ast.Load()), node.args, node.keywords)
        case ast.Call(func=ast.Name(id="range"), args=[*before, last]):
            yield ast.Call(node.func, [*before, ast.BinOp(last, ast.Sub(), ast.Constant(1))], node.keywords)
        case ast.If(orelse=[_, *_]):
            yield ast.If(node.test, node.orelse, node.body)
        case ast.IfExp():
            yield ast.IfExp(node.test, node.orelse, node.body)
        case ast.If():
            yield ast.If(ast.UnaryOp(ast.Not(), node.test), node.body, node.orelse)


class _Replace(ast.NodeTransformer):
    def __init__(self, place: int, change: int):
        self._left, self._change = place, change

    def generic_visit(self, node: ast.AST) -> ast.AST:
        self._left -= 1
        if self._left == -1:
            return list(changes(node))[self._change]
        return super().generic_visit(node)


def mutants(code: str) -> Iterator[str]:
    """The code with one change each."""
    program = ast.parse(code)
    counter = _Count()
    counter.visit(program)
    for place, number in counter.places:
        for change in range(number):
            changed = _Replace(place, change).visit(copy.deepcopy(program))
            yield ast.unparse(ast.fix_missing_locations(changed))


class _Count(ast.NodeVisitor):
    """Where changes can be made: positions in the order of the visit, and how many there."""

    def __init__(self) -> None:
        self.places: list[tuple[int, int]] = []
        self._position = 0

    def generic_visit(self, node: ast.AST) -> None:
        number = sum(1 for _ in changes(node))
        if number:
            self.places.append((self._position, number))
        self._position += 1
        super().generic_visit(node)


def drawn(problems: Sequence[Problem], count: int, dice: Random) -> list[tuple[int, str]]:
    """Up to `count` mutants, as the position of their problem and code; at most four of a problem."""
    found: list[tuple[int, str]] = []
    order = dice.sample(range(len(problems)), len(problems))
    for at in order:
        canonical = problems[at].canonical
        if canonical is None or problems[at].comparison.several:
            continue
        made = sorted(set(mutants(canonical)))
        found += [(at, code) for code in dice.sample(made, min(4, len(made)))]
        if len(found) >= count:
            break
    return found[:count]


def passed(grader: Grader, problems: Sequence[Problem], made: Sequence[tuple[int, str]]) -> list[bool]:
    """Whether each mutant passes its problem's tests."""
    pending = grader.start(own=False)
    pending.add_all([GradeItem(problems[at], fence(code)) for at, code in made])
    return [isinstance(outcome, Grade) and outcome.gt_pass for outcome in pending.outcomes()]


def passing(flags: Flags, grader: Grader, problems: dict[str, Problem]) -> list[tuple[str, str]]:
    """Names of problems and mutants that pass their own tests."""
    if flags.keep is not None and flags.keep.exists():
        return [(row["name"], row["code"]) for row in read_jsonl(flags.keep) if row["name"] in problems]
    names = list(problems)
    made = drawn(list(problems.values()), flags.count, Random(flags.seed))
    right = passed(grader, list(problems.values()), made)
    print(f"{sum(right)} of {len(made)} mutants pass the problems' own tests")
    kept = [(names[at], code) for (at, code), good in zip(made, right) if good]
    if flags.keep is not None:
        write_jsonl(flags.keep, [{"name": name, "code": code} for name, code in kept])
    return kept


def main(flags: Flags) -> None:
    """Grade the mutants and print the shares."""
    own = {problem.task_id or problem.problem_id: problem for problem in load_problems(flags.problems)}
    files = [flags.stronger, *([flags.judge] if flags.judge else [])]
    others = [{p.task_id or p.problem_id: p for p in load_problems(file)} for file in files]
    own = {name: problem for name, problem in own.items() if all(name in other for other in others)}
    with Grader(limits=Limits(cpu_seconds=1.0, cpu_times_canonical=2.0)) as grader:
        kept = passing(flags, grader, own)
        found = []
        for other in others:
            names = list(other)
            made = [(names.index(name), code) for name, code in kept]
            found.append([not right for right in passed(grader, list(other.values()), made)])
    caught, *judged = found
    print(f"caught: {sum(caught)} of {len(kept)} ({sum(caught) / max(1, len(kept)):.1%})")
    for seen in judged:
        wrong = sum(one or other for one, other in zip(caught, seen))
        print(f"wrong by either file: {wrong}; caught of them: {sum(caught) / max(1, wrong):.1%}")
        for (name, code), one, other in zip(kept, caught, seen):
            if flags.show and other and not one:
                print(f"--- {name}\n{code}")


if __name__ == "__main__":
    main(tyro.cli(Flags))
