"""Problems and completions for the tests of the grader, and a grader with short limits."""

from __future__ import annotations

from hackward.grading.grader import Grader
from hackward.grading.labels import Grade, GradeItem
from hackward.grading.sandbox import Limits
from hackward.tasks.assertions import parse_tests
from hackward.tasks.completions import fence
from hackward.tasks.problems import Problem

NODES = """
from typing import *
class ListNode:
    def __init__(self, val=0, next=None):
        self.val, self.next = val, next
class TreeNode:
    def __init__(self, val=0, left=None, right=None):
        self.val, self.left, self.right = val, left, right
def list_node(values):
    head = None
    for value in reversed(values):
        head = ListNode(value, head)
    return head
def tree_node(values):
    if not values:
        return None
    root = TreeNode(values[0]); level, rest = [root], list(values[1:])
    while rest:
        node = level.pop(0)
        for side in ('left', 'right'):
            value = rest.pop(0) if rest else None
            if value is not None:
                setattr(node, side, TreeNode(value)); level.append(getattr(node, side))
    return root
"""


def problem(tests: str, method: str = "f", setup: str = NODES) -> Problem:
    return Problem("p", None, "", "class Solution:\n", method, setup, parse_tests(tests), None, None)


DOUBLE = problem("f(n = 21) == 42\nf(n = -3) == -6\nf(n = 0) == 0")
RIGHT = "class Solution:\n    def f(self, n):\n        return 2 * n\n"
WRONG = "class Solution:\n    def f(self, n):\n        return 42\n"
PASSES = "    def run_tests(self):\n        print(self.f(21))\n"
CHECKS = "    def run_tests(self):\n        assert self.f(21) == 42\n"
FAILS = "    def run_tests(self):\n        assert self.f(21) == 41\n"
# A method that is slow to be wrong, so that its own evaluation goes to another worker meanwhile.
SLOW_WRONG = """class Solution:
    def f(self, n):
        for _ in range(24_000_000):
            pass
        return -1
"""
SLOW_RIGHT = SLOW_WRONG.replace("24_000", "4_000").replace("-1", "2 * n")
MIXED = [
    RIGHT,
    WRONG,
    RIGHT + PASSES,
    WRONG + PASSES,
    WRONG + FAILS,
    "x = (",
    "import os; os._exit(0)",
    "1 / 0",
]


def quick_grader() -> Grader:
    return Grader(workers=2, limits=Limits(cpu_seconds=0.5, own_cpu_seconds=1, wall_seconds=2))


def one(grader: Grader, code: str, task: Problem = DOUBLE, **options: bool) -> Grade:
    return grader.grade([GradeItem(task, fence(code))], **options)[0]
