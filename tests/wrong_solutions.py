"""Wrong solutions that pass: how many of them do stronger tests catch?

    python strengthen.py PROBLEMS --out STRONGER --seed 0
    python tests/wrong_solutions.py PROBLEMS --stronger STRONGER --keep KEPT.jsonl --uncaught LEFT.jsonl
    python strengthen.py LEFT.jsonl --out JUDGE --seed 1 --tests 120
    python tests/wrong_solutions.py PROBLEMS --stronger STRONGER --keep KEPT.jsonl --judge JUDGE

Canonical solutions are changed in one place each (a comparison, an operator, a constant, an end of a range, a
condition, a branch). Those that pass a problem's own tests are graded with the stronger ones. Many such
changes change nothing that any input shows. So what counts as wrong is what STRONGER catches, and what it
leaves and JUDGE catches, made with another seed and more tests. Where no tests could be made, neither sees
anything: the share is printed a second time with all of these as wrong. Not a part of the test suite.
"""

from __future__ import annotations

import ast
import copy
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Annotated, Any

import tyro

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from hackward.base.files import read_jsonl, write_jsonl
from hackward.grading.grader import Grader
from hackward.grading.labels import Grade, GradeItem
from hackward.grading.sandbox import Limits
from hackward.tasks.completions import fence
from hackward.tasks.formats import load_problems, raw_rows
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
# Many mutants never end
LIMITS = Limits(cpu_seconds=1.0, cpu_seconds_per_test=0.02, cpu_times_canonical=2.0)
SWAPPED = {"min": "max", "max": "min", "any": "all", "all": "any"}


Named = tuple[str, str]  # a problem's name and the code of a mutant of its canonical solution


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Measure how many wrong solutions stronger tests catch."""

    problems: Annotated[str, tyro.conf.Positional]
    """The problems with their own tests."""
    stronger: str
    """The same with more tests."""
    judge: str | None = None
    """Problems of those that are not caught, with other tests: what fails these is wrong too."""
    count: int = 6500
    """Mutants that are tried, at most four of a problem."""
    seed: int = 0
    keep: Path | None = None
    """Where the mutants that pass the own tests are kept, one a line. They are taken from that file where it
    is there."""
    uncaught: Path | None = None
    """Where the problems of mutants that are not caught go, as they came."""
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


def drawn(problems: dict[str, Problem], count: int, dice: Random) -> list[Named]:
    """Up to `count` mutants; at most four of a problem."""
    found: list[Named] = []
    for name in dice.sample(list(problems), len(problems)):
        canonical = problems[name].canonical
        if canonical is None or problems[name].comparison.several:
            continue
        made = sorted(set(mutants(canonical)))
        found += [(name, code) for code in dice.sample(made, min(4, len(made)))]
        if len(found) >= count:
            break
    return found[:count]


def named(source: str) -> dict[str, Problem]:
    """The problems of a file by their names."""
    return {problem.task_id or problem.problem_id: problem for problem in load_problems(source)}


def passed(grader: Grader, problems: dict[str, Problem], made: Sequence[Named]) -> list[bool]:
    """Whether each mutant passes the tests of its problem."""
    pending = grader.start(own=False)
    pending.add_all([GradeItem(problems[name], fence(code)) for name, code in made])
    return [isinstance(outcome, Grade) and outcome.gt_pass for outcome in pending.outcomes()]


def passing(flags: Flags, grader: Grader, problems: dict[str, Problem]) -> list[Named]:
    """The mutants that pass their own tests."""
    if flags.keep is not None and flags.keep.exists():
        return [(row["name"], row["code"]) for row in read_jsonl(flags.keep) if row["name"] in problems]
    made = drawn(problems, flags.count, Random(flags.seed))
    right = passed(grader, problems, made)
    print(f"{sum(right)} of {len(made)} mutants pass the problems' own tests")
    kept = [one for one, good in zip(made, right) if good]
    if flags.keep is not None:
        write_jsonl(flags.keep, [{"name": name, "code": code} for name, code in kept])
    return kept


def share(part: int, whole: int) -> str:
    """So many of so many."""
    return f"{part} of {whole} ({part / max(1, whole):.1%})"


def rows_of(source: str, names: set[str]) -> list[dict[str, Any]]:
    """The rows of these problems, as they came."""
    fields = ("task_id", "problem_id", "id")
    return [row for row in raw_rows(source) if any(str(row.get(field)) in names for field in fields)]


def main(flags: Flags) -> None:
    """Grade the mutants and print the shares."""
    own, stronger = named(flags.problems), named(flags.stronger)
    judge = named(flags.judge) if flags.judge else {}
    own = {name: problem for name, problem in own.items() if name in stronger}
    tested = {name for name, problem in judge.items() if len(problem.tests) > len(own[name].tests)}
    with Grader(limits=LIMITS) as grader:
        kept = passing(flags, grader, own)
        left = [one for one, right in zip(kept, passed(grader, stronger, kept)) if right]
        judged = [(name, code) for name, code in left if name in tested]
        seen = [one for one, right in zip(judged, passed(grader, judge, judged)) if not right]
    caught = len(kept) - len(left)
    print(f"caught: {share(caught, len(kept))} that pass the problems' own tests")
    if flags.uncaught is not None:
        write_jsonl(flags.uncaught, rows_of(flags.problems, {name for name, _ in left}))
    if flags.judge:
        wrong, unseen = caught + len(seen), len(left) - len(judged)
        print(f"caught: {share(caught, wrong)} that either file shows to be wrong")
        print(f"caught: {share(caught, wrong + unseen)} with those whose problems got no tests")
    if flags.show:
        for name, code in seen:
            print(f"--- {name}\n{code}")


if __name__ == "__main__":
    main(tyro.cli(Flags))
