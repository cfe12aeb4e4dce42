"""Claims about commands under `python -O`, which drops asserts, and `-OO`, which drops docstrings too."""

from __future__ import annotations

import ast
import os
import subprocess
import sys

import pytest

from hackward.base.files import ROOT, read_jsonl
from hackward.benchmarks.plain_grading import plain_run
from tests.desk import write_lines

COMMANDS = sorted(path.name for path in ROOT.glob("*.py") if "exit_on_fault(" in path.read_text("utf-8"))
RIGHT = "class Solution:\n    def f(self, x):\n        return x + 1\n"
CHECKS = "    def run_tests(self):\n        assert self.f(1) == {}\n"
PROBLEM = {
    "problem_id": "a",
    "statement": "Return x plus one.",
    "starter_code": "class Solution:\n    def f(self, x: int) -> int:\n",
    "method": "f",
    "tests": ["candidate(x = 1) == 2"],
}


def python(*words, **environment):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    line = [sys.executable, *map(str, words)]
    return subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True)


def test_no_command_shows_a_help_without_its_words():
    assert "train.py" in COMMANDS and len(COMMANDS) > 9
    for command in COMMANDS:
        done = python("-OO", command, "--help")
        assert done.returncode == 2 and done.stdout == ""
        assert done.stderr.startswith(f"{command}: -OO (PYTHONOPTIMIZE=2) ") and done.stderr.count("\n") == 1
    assert python("train.py", "--help", PYTHONOPTIMIZE="2").returncode == 2


def test_without_asserts_the_help_is_the_same():
    plain, optimised = python("train.py", "--help"), python("-O", "train.py", "--help")
    assert plain.returncode == optimised.returncode == 0 and plain.stdout == optimised.stdout != ""


@pytest.mark.parametrize(("words", "level"), [(("-O",), ""), ((), "1")], ids=["-O", "PYTHONOPTIMIZE"])
def test_what_graded_code_asserts_is_looked_at_all_the_same(tmp_path, words, level):
    problems = write_lines(tmp_path / "p.jsonl", [PROBLEM])
    answers = [f"```python\n{RIGHT}\n{CHECKS.format(value)}```" for value in (2, 3)]
    rows = write_lines(tmp_path / "rows.jsonl", [{"problem_id": "a", "completion": text} for text in answers])
    out = tmp_path / "labels.jsonl"
    done = python(
        *words,
        "grade.py",
        rows,
        f"--problems={problems}",
        f"--out={out}",
        "--workers=1",
        PYTHONOPTIMIZE=level,
    )
    assert done.returncode == 0, done.stderr
    assert [row["own_pass"] for row in read_jsonl(out)] == [True, False]


def test_the_plain_grader_of_the_bench_keeps_its_asserts(monkeypatch):
    monkeypatch.setenv("PYTHONOPTIMIZE", "1")
    assert plain_run("assert True") and not plain_run("assert False")


def narrows(test: ast.expr) -> bool:
    """Does it only tell the type checker what is known: `x is not None`, isinstance, or some of these?"""
    if isinstance(test, ast.BoolOp):
        return isinstance(test.op, ast.And) and all(map(narrows, test.values))
    if isinstance(test, ast.Call):
        return isinstance(test.func, ast.Name) and test.func.id == "isinstance"
    if not isinstance(test, ast.Compare) or not isinstance(test.ops[0], ast.IsNot):
        return False
    return not any(isinstance(node, ast.Call) for node in ast.walk(test))


def test_no_check_of_the_project_is_an_assert():
    for path in [*ROOT.glob("*.py"), *(ROOT / "hackward").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Assert):
                assert narrows(node.test), f"{path}:{node.lineno}: {ast.unparse(node)}"
