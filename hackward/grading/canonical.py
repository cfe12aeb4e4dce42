"""Do the canonical solutions of a problem file pass here? Where one does not, no label says anything.

python grade.py --canonical --problems FILE
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from hackward.base.syntax import syntax_of
from hackward.grading.labels import Grade, GradeItem, NotGraded
from hackward.grading.sandbox import PACKAGES
from hackward.tasks.completions import fence
from hackward.tasks.problems import Problem


@dataclass(frozen=True)
class Failure:
    """A problem whose canonical solution does not pass."""

    problem: Problem
    reason: str
    marked: bool
    """The reason lies in what graded code has here, not in tests or comparison."""


def canonical_items(problems: Sequence[Problem]) -> list[GradeItem]:
    """The canonical solutions as completions."""
    return [GradeItem(problem, fence(problem.canonical)) for problem in problems if problem.canonical]


def failures(items: Sequence[GradeItem], outcomes: Sequence[Grade | NotGraded]) -> list[Failure]:
    """Those that do not pass, with the reason."""
    found = []
    for item, outcome in zip(items, outcomes, strict=True):
        if isinstance(outcome, Grade) and outcome.gt_pass:
            continue
        missing = missing_imports(item.problem.canonical or "")
        if missing:
            reason = f"imports {', '.join(missing)}, which graded code has not"
            found.append(Failure(item.problem, reason, True))
        elif isinstance(outcome, Grade):
            found.append(Failure(item.problem, str(outcome.error), False))
        else:
            found.append(Failure(item.problem, str(outcome), isinstance(outcome, NotGraded)))
    return found


def missing_imports(code: str) -> list[str]:
    """Packages that a solution imports and graded code has not, sorted."""
    wanted: set[str] = set()
    for node in ast.walk(syntax_of(code)):
        if isinstance(node, ast.Import):
            wanted.update(name.name.partition(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            wanted.add(node.module.partition(".")[0])
    return sorted(wanted - sys.stdlib_module_names - set(PACKAGES))
