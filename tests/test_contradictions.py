"""Claims about problems whose tests call what their starter code does not have: refused by row and name."""

import os
from pathlib import Path

import pytest

import grade
from hackward.base.faults import InputError
from hackward.base.files import ROOT, read_jsonl
from hackward.base.flags import command_line
from hackward.tasks import formats
from hackward.tasks.formats import load_problems
from hackward.tasks.shipped import DATA as SHIPPED
from tests import lacks
from tests.desk import write_lines
from tests.test_refusals import refused

DATA = Path(os.environ.get("HACKWARD_DATA", ROOT.parent / "shared" / "data"))
PUBLISHED = {"leetcode_v0.2.0_train": 1890, "leetcode_v0.2.0_test": 200, "rl_rewardhacking_test_medhard": 119}
HEAD = "class Solution:\n    def f(self, x: int) -> int:\n"
ROW = {
    "problem_id": "plus-1",
    "statement": "Add 1.",
    "starter_code": HEAD,
    "method": "f",
    "tests": ["candidate(x = 1) == 2"],
}
LEETCODE = {
    "question_id": 1,
    "problem_description": "Add 1.",
    "starter_code": HEAD,
    "task_id": "t",
    "prompt": "",
    "entry_point": "Solution().g",
    "completion": "",
    "test": "def check(candidate):\n    assert candidate(x = 1) == 2\n",
}
OTHER_CLASS = "class Helper:\n    def f(self, x):\n        pass\n\nclass Solution:\n    def g(self, x):\n"


def loaded(tmp_path, **changes):
    return load_problems(write_lines(tmp_path / "p.jsonl", [ROW | changes]))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"method": "g"},
            "its method 'g' is not defined in class Solution of its starter_code, which defines f",
        ),
        ({"method": "Solution().f"}, "its method 'Solution().f' is not defined in class Solution"),
        ({"method": "F"}, "its method 'F' is not defined in class Solution"),
        ({"method": ""}, "its method '' is not defined in class Solution"),
        ({"starter_code": OTHER_CLASS}, "its method 'f' is in class Helper, not in class Solution"),
        ({"starter_code": HEAD.replace("Solution", "Answer")}, "its starter_code has no class Solution"),
        ({"starter_code": "def f(x: int) -> int:\n"}, "its starter_code has no class Solution"),
        ({"starter_code": ""}, "its starter_code has no class Solution"),
        ({"starter_code": "class Solution:\n    def f(self, x:\n"}, "its starter_code does not parse"),
        ({"starter_code": "Write a class.\n"}, "its starter_code does not parse"),
        ({"tests": ["candidate(x = 1, y = 2) == 3"]}, "its method f(x) in the starter_code does not take"),
        ({"tests": ["candidate(1) == 2", "candidate(1, 2) == 3"]}, "what test 2 passes, 2 by position"),
        ({"tests": ["candidate() == 2"]}, "what test 1 passes, 0 by position"),
        ({"tests": ["candidate(1, y = 2) == 2"]}, "what test 1 passes, 1 by position and y"),
        ({"starter_code": "class Solution:\n    @staticmethod\n    def f():\n"}, "its method f() in the"),
        ({"starter_code": HEAD.replace("x: int", "x, *, k")}, "its method f(x, k) in the starter_code"),
    ],
)
def test_a_problem_that_contradicts_its_starter_code_is_refused_by_row_and_name(tmp_path, changes, words):
    with pytest.raises(InputError) as fault:
        loaded(tmp_path, **changes)
    assert str(fault.value).startswith(f"{tmp_path / 'p.jsonl'}: row 1: problem 'plus-1': ")
    assert words in str(fault.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"tests": ["candidate(1) == 2"]},
        {"tests": ["candidate(n = 1) == 2"]},  # the grader passes by position where names differ
        {"starter_code": HEAD.replace("x: int", "x: int, y: int = 0")},
        {"starter_code": HEAD.replace("x: int", "*x")},
        {"starter_code": HEAD.replace("x: int", "**x")},
        {"starter_code": HEAD.replace("x: int", "x, /")},
        {"starter_code": HEAD.replace("self, x: int", "*every")},
        {"starter_code": "class Solution:\n\tdef f(self, x):\n"},
        {"starter_code": "class Solution:\n  def f(self, x):\n"},
        {"starter_code": HEAD.rstrip() + "  # the number\n"},
        {"starter_code": HEAD + '        """Add 1."""\n'},
        {"starter_code": HEAD + "        pass\n\nclass Node:\n    pass\n"},
        {"starter_code": "class Solution:\n    @staticmethod\n    def f(x):\n"},
        {
            "starter_code": "class Solution:\n    @traced\n    def f(self):\n"
        },  # a decorator may add parameters
        {"starter_code": "class Solution(Base):\n    def g(self):\n"},  # Base may have f
        {"starter_code": "class Solution:\n    f = add\n    def g(self):\n"},
        {"starter_code": "class Adder:\n    def f(self, x):\n        pass\n\nSolution = Adder\n"},
    ],
)
def test_what_may_fit_is_taken(tmp_path, changes):
    (problem,) = loaded(tmp_path, **changes)
    assert problem.method == "f"


def test_published_files_stay_whole_and_a_warning_names_the_first(tmp_path):
    benchmark = {"id": 1, "prompt": [{"role": "user", "content": "Add 1."}], "func_name": "g"}
    benchmark |= {"prompt_metadata": {"starter_code": HEAD}, "gt_answer": ["assert Solution().g(x = 1) == 2"]}
    for row in (LEETCODE, benchmark):
        words = (
            r"p\.jsonl: the tests of 2 problem\(s\) call .* the first is problem '1': its method 'g' is not"
        )
        with pytest.warns(UserWarning, match=words):
            assert len(load_problems(write_lines(tmp_path / "p.jsonl", [row, _renamed(row)]))) == 2


def _renamed(row):
    """The same row under another id."""
    return row | ({"id": 2} if "id" in row else {"question_id": 2, "task_id": "b"})


def test_the_command_line_refuses_it_in_one_line(tmp_path, capsys):
    problems = write_lines(tmp_path / "p.jsonl", [ROW, ROW | {"problem_id": "b", "method": "g"}])
    rows = write_lines(tmp_path / "rows.jsonl", [{"problem_id": "b", "completion": "no"}])
    argv = [str(rows), f"--problems={problems}", f"--out={tmp_path / 'labels.jsonl'}"]
    line = refused(capsys, lambda: grade.main(command_line(grade.GradeFlags, argv=argv)))
    assert f"{problems}: row 2: problem 'b': its method 'g'" in line
    assert not (tmp_path / "labels.jsonl").exists()


def test_each_problem_is_asked_once_whether_it_contradicts_itself(tmp_path, monkeypatch):
    """In our own format and in a published one."""
    asked = []
    monkeypatch.setattr(formats, "contradiction", lambda problem: asked.append(problem.problem_id))
    load_problems(write_lines(tmp_path / "p.jsonl", [ROW, LEETCODE]))
    assert asked == ["plus-1", "1"]


# --- files that are there ---


@pytest.mark.parametrize("file", sorted(SHIPPED.rglob("*problems*.jsonl")), ids=str)
def test_every_shipped_problem_loads_with_its_parameters(file):
    problems = load_problems(file)
    assert len(problems) == len(read_jsonl(file)) and all(problem.parameters for problem in problems)


@pytest.mark.skipif(not (DATA / lacks.TRAIN).exists(), reason=lacks.DATA.format(place=DATA))
@pytest.mark.parametrize(("name", "count"), PUBLISHED.items())
def test_every_published_problem_loads_with_its_parameters(name, count):
    problems = load_problems(DATA / f"{name}.jsonl.gz")
    assert len(problems) == count and all(problem.parameters for problem in problems)
