"""Labels that could differ from run to run: they do not, or the row says so."""

from __future__ import annotations

import dis

import pytest

from hackward.grading.grader import Grader
from hackward.grading.labels import GradeItem
from hackward.grading.steadiness import PERHAPS, STEADY, UNSTEADY, may_vary, steadiness
from hackward.tasks.completions import fence
from tests.grading_cases import DOUBLE, PASSES, RIGHT, one, problem, quick_grader

RUNS = 20


@pytest.fixture(scope="module")
def grader():
    with quick_grader() as shared:
        yield shared


def right_if(condition: str, before: str = "") -> str:
    """A solution that is right when a condition holds."""
    return f"{before}\nclass Solution:\n    def f(self, n):\n        return 2 * n if {condition} else None\n"


FIRST_OF_SET = "class A: pass\nA1, A2 = A(), A()\nfirst = next(iter({A1, A2}))"
VARYING = [
    right_if("first is A1", FIRST_OF_SET),
    right_if("next(iter({TreeNode(1), TreeNode(2)})).val == 1"),
    right_if("list({ListNode(i): 0 for i in range(9)} | {ListNode(i) for i in range(9)}) == 1"),
    right_if("id(object()) >> 4 & 1"),
    right_if("hash(object()) & 1"),
    right_if("hash(self) & 1"),
    right_if("self.__hash__() & 1"),
    right_if("str(self)[-4] in '02468ace'"),
    right_if("f'{self}'[-4] in '02468ace'"),
    right_if("repr([self])[-4] in '02468ace'"),
    right_if("builtins.id(bytearray(9)) >> 4 & 1", "import builtins"),
    right_if("name(bytearray(9)) >> 4 & 1", "from builtins import id as name"),
    right_if("secrets.randbelow(2)", "import secrets"),
    right_if("draw(2)", "from secrets import randbelow as draw"),
    right_if("os.urandom(1)[0] & 1", "import os"),
    right_if("random.SystemRandom().random() < 0.5", "import random"),
    right_if("uuid.uuid4().int & 1", "import uuid"),
    right_if("os.getpid() & 1", "import os"),
    right_if("threading.get_native_id() & 1", "import os, threading"),
    right_if("open('/dev/urandom', 'rb').read(1)[0] & 1"),
    right_if("getattr(__import__('os'), 'urandom')(1)[0] & 1"),
    right_if("eval('id(bytearray(9)) >> 4 & 1')"),
    right_if("tick & 1", "import time\ntick = time.perf_counter_ns() >> 6"),
]


@pytest.mark.parametrize("code", VARYING)
def test_the_label_is_the_same_in_twenty_runs_or_most_rows_are_marked(grader: Grader, code: str) -> None:
    """Most: two runs of a child can by chance have the same addresses, and then nothing is seen to vary."""
    grades = grader.grade([GradeItem(DOUBLE, fence(code))] * RUNS)
    unmarked = [grade.label for grade in grades if not grade.unstable]
    assert len(unmarked) <= RUNS // 2 or len({grade.label for grade in grades}) == 1


@pytest.mark.parametrize("size", [64, 96])
def test_addresses_differ_between_the_runs_that_are_compared(grader: Grader, size: int) -> None:
    """Also where the machine gives every process the same ones. A bytes object has a head of 33 bytes."""
    assert one(grader, right_if(f"id(bytes({size - 33})) // {size} & 1")).unstable


@pytest.mark.parametrize(
    "draw", ["__import__('secrets').randbelow(2)", "os.getpid() & 1", "os.urandom(1)[0] & 1"]
)
def test_an_own_evaluation_that_draws_is_marked_too(grader: Grader, draw: str) -> None:
    code = (
        f"import os\nclass Solution:\n    def f(self, n): return 1\n    def run_tests(self): assert {draw}\n"
    )
    assert one(grader, code).unstable


@pytest.mark.parametrize(
    "code",
    [
        RIGHT,
        RIGHT + "    def run_tests(self): print(f'{self.f(21)}')\n",
        right_if("len({1, 2, 3, n}) and str(n) and hash((n, 'a')) is not None"),
        right_if("random.Random(3).random() and random.random()", "import random"),
        "class Node:\n    pass\n" + RIGHT,
        right_if("len({id(n), id(None)}) > 0"),
        right_if("{TreeNode(1), TreeNode(2)}"),
    ],
)
def test_code_that_is_steady_is_not_marked(grader: Grader, code: str) -> None:
    grade = one(grader, code)
    assert (grade.label[:7], grade.unstable) == ("correct", False)


def test_numbers_drawn_from_the_seed_are_the_same_in_all_runs(grader: Grader) -> None:
    code = right_if("random.random() < 0.5 and random.randrange(2)", "import random")
    grades = grader.grade([GradeItem(DOUBLE, fence(code))] * RUNS)
    assert len(set(grades)) == 1


def test_nodes_in_the_arguments_are_hashed_by_their_addresses(grader: Grader) -> None:
    body = "class Solution:\n    def f(self, head):\n        return len({head, head.next})\n"
    assert one(grader, body, problem("f(head = list_node([1, 2])) == 2")).label == "correct"
    assert steadiness(compile(body, "", "exec"), with_nodes=True) == PERHAPS
    assert steadiness(compile(body, "", "exec"), with_nodes=False) == STEADY


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("x = sorted([3, 1])", STEADY),
        ("def f(self):\n    return self.x + self.f()", STEADY),
        ("def f(self):\n    return print(self)", PERHAPS),
        ("x = {1, 2} | set([3])", STEADY),
        ("class A: pass\nclass B: pass\nx = {1}", PERHAPS),
        ("def hash(x): return 3", STEADY),
        ("def f(self):\n    self.hash = 3\n    return self.hash", STEADY),
        ("x = hash('a')", PERHAPS),
        ("import time\nx = time.time()", PERHAPS),
        ("from os import getpid", UNSTEADY),
        ("def f():\n    def g():\n        return secrets.token_hex()", UNSTEADY),
        ("x = eval('secrets.randbelow(2)')", UNSTEADY),
        ("x = 'secrets of the trade'", STEADY),
    ],
)
def test_what_the_code_shows(code: str, found: str) -> None:
    assert steadiness(compile(code, "", "exec"), with_nodes=False) == found
    assert found == STEADY or may_vary(code.encode(), with_nodes=False)


@pytest.mark.parametrize(
    ("method", "call", "found"),
    [
        # What instruction a call begins with is known of Python 3.11; elsewhere the code is run again
        ("def f(self): return 1", "Solution.f(self)", STEADY if "LOAD_METHOD" in dis.opmap else PERHAPS),
        ("def f(self, x): return 1", "Solution.f(1, self)", PERHAPS),
        ("def f(self, x): return 1", "Solution.f(self, self)", PERHAPS),
        ("def f(self): return str(self)", "Solution.f(self)", PERHAPS),
        ("def f(x): return str(x)", "Solution.f(self)", PERHAPS),
        ("def g(self): return 1", "Solution.f(self)", PERHAPS),
        ("def f(self): return 1", "other.f(self)", PERHAPS),
        ("def f(self): return 1", "f(self)", PERHAPS),
    ],
)
def test_self_may_go_to_a_method_that_calls_it_so(method: str, call: str, found: str) -> None:
    code = f"class Solution:\n    {method}\n    def run_tests(self):\n        return {call}\n"
    assert steadiness(compile(code, "", "exec"), with_nodes=False) == found


@pytest.mark.parametrize("code", VARYING)
def test_what_varies_is_seen_in_the_text(code: str) -> None:
    assert may_vary(code.encode(), with_nodes=False)


def test_plain_code_is_not_looked_at() -> None:
    assert not may_vary((RIGHT + PASSES).encode(), with_nodes=False)
    assert may_vary(RIGHT.encode(), with_nodes=True)
    assert may_vary("import \uff53ecrets".encode(), with_nodes=False)  # a wide letter: Python reads secrets
    assert may_vary(("# def f(self\n" + RIGHT + "        print(self)").encode(), with_nodes=False)
