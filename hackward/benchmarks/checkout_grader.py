"""Grades rows with the grader of a checkout of this project, and says how long it takes; run as a script.

    python -P checkout_grader.py REPO PROBLEMS ROWS WORKERS SANDBOX

ROWS is a JSON file of [problem_id, completion]. It writes a line of JSON when it is ready, and then one for
every line that it reads: the seconds that grading all rows took, and their labels. It imports nothing of ours
but from REPO, which may be of an earlier layout.
"""

from __future__ import annotations

import json
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

# Where a checkout keeps the three things that are needed, by its layout.
LAYOUTS: tuple[dict[str, str], ...] = (
    {
        "Grader": "hackward.grading.grader",
        "GradeItem": "hackward.grading.labels",
        "load_problems": "hackward.tasks.formats",
    },
    {"Grader": "grade", "GradeItem": "grade", "load_problems": "problems"},
)


def layout_of(repo: Path) -> dict[str, str] | None:
    """The layout whose modules the checkout has."""
    for layout in LAYOUTS:
        files = [repo.joinpath(*module.split(".")).with_suffix(".py") for module in layout.values()]
        if all(file.is_file() for file in files):
            return layout
    return None


def parts_of(repo: Path) -> dict[str, Any]:
    """Grader, GradeItem and load_problems of the checkout."""
    layout = layout_of(repo)
    if layout is None:
        sys.exit(f"{repo}: holds no grader of a known layout")
    sys.path.insert(0, str(repo))
    return {name: getattr(import_module(module), name) for name, module in layout.items()}


def main(repo: str, problems: str, rows: str, workers: str, sandbox: str) -> None:
    parts = parts_of(Path(repo))
    known = {problem.problem_id: problem for problem in parts["load_problems"](problems)}
    items = [parts["GradeItem"](known[name], text) for name, text in json.loads(Path(rows).read_text())]
    with parts["Grader"](workers=int(workers), sandbox=sandbox) as grader:
        grader.grade(items[:20])  # workers up, set-up code loaded: a training run pays that once
        print(json.dumps({"ready": True}), flush=True)
        for _ in sys.stdin:
            started = time.perf_counter()
            grades = grader.grade(items)
            seconds = time.perf_counter() - started
            print(json.dumps({"seconds": seconds, "labels": [grade.label for grade in grades]}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
