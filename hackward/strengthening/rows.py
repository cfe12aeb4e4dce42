"""Rows of a problem file with more tests, in the format that they came in."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from hackward.base.syntax import syntax_of
from hackward.strengthening.arguments import line_of
from hackward.strengthening.strengthening import Strengthened
from hackward.tasks.completions import extract_code
from hackward.tasks.formats import BenchmarkRow, LeetCodeRow, OwnRow, ProblemRow
from hackward.tasks.problems import Problem, Test

Row = dict[str, Any]
FIELD = "strengthened"


def second_solution(row: Row, problem: Problem) -> str | None:
    """The code of another answer to the problem that a row of LeetCodeDataset brings along."""
    response = row.get("response")
    return extract_code(response, problem.method) if isinstance(response, str) else None


def _benchmark(row: Row, problem: Problem, tests: Sequence[Test]) -> Row:
    lines = [f"assert {line_of(test, f'Solution().{problem.method}')}" for test in tests]
    given = row["gt_answer"]
    return {"gt_answer": "\n".join([given, *lines]) if isinstance(given, str) else [*given, *lines]}


def _leetcode(row: Row, problem: Problem, tests: Sequence[Test]) -> Row:
    first = syntax_of(row["test"]).body[0]
    margin = " " * first.body[0].col_offset if isinstance(first, ast.FunctionDef) else ""
    lines = [f"{margin}assert {line_of(test, 'candidate')}" for test in tests]
    return {"test": "\n".join([row["test"].rstrip(), *lines, ""])}


def _own(row: Row, problem: Problem, tests: Sequence[Test]) -> Row:
    return {"tests": [*row["tests"], *(line_of(test, "candidate") for test in tests)]}


WRITERS: dict[type[ProblemRow], Callable[[Row, Problem, Sequence[Test]], Row]] = {
    BenchmarkRow: _benchmark,
    LeetCodeRow: _leetcode,
    OwnRow: _own,
}


def row_with_tests(
    row: Row, form: type[ProblemRow], problem: Problem | None, found: Strengthened, count: int, seed: int
) -> Row:
    """The row with its own tests, the new ones behind them, its comparison, and what was done.

    The comparison is stored as it was read with the given tests. `problem` is None where those do not parse.
    """
    added = WRITERS[form](row, problem, found.tests) if problem is not None and found.tests else {}
    said = {
        "given": len(problem.tests) if problem is not None else 0,
        "added": len(found.tests),
        "wanted": count,
        "seed": seed,
        "reason": found.reason,
        "dropped": found.dropped,
        "unread": found.unread,
    }
    comparison = {"comparison": dataclasses.asdict(problem.comparison)} if problem is not None else {}
    return {**row, **added, **comparison, FIELD: said}
