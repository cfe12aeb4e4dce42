"""What hostile completions are made of, and the list that they are put on.

Each is wrong and must not be credited, or right and must be. Some are right exactly if the fence held: they
give the right answer after an attack that must have failed. The problem is always FOLD of the driver: the sum
of each number times its position. These words are replaced by the driver:

    TARGET   a writable directory               PORT, UDP   ports that it listens on
    PROJECT  the root of the project            CLONE       the copy of it whose worker runs the case
    MARK     a string that is in the name of that copy, and in no other file or process
"""

from __future__ import annotations

from dataclasses import dataclass

RIGHT = """
class Solution:
    def fold(self, nums):
        return sum(number * place for place, number in enumerate(nums, 1))
"""
WRONG = """
class Solution:
    def fold(self, nums):
        return 0
"""
# The right answer, converted by KIND.
AS = """
class Solution:
    def fold(self, nums):
        return KIND(sum(number * place for place, number in enumerate(nums, 1)))
"""
# Right if and only if HELD was set to True before the first test.
IF_HELD = """
class Solution:
    def fold(self, nums):
        return sum(number * place for place, number in enumerate(nums, 1)) if HELD else -1
"""
# The global names of every module that called this one.
EVERY_FRAME = """
def every_frame():
    import sys
    frame = sys._getframe()
    while frame:
        yield frame.f_globals
        frame = frame.f_back
"""
# Looks for a list of as many numbers as there are tests.
SEARCH = """
def search():
    import gc, sys
    seen, found = set(), []
    frame = sys._getframe()
    roots = list(gc.get_objects())
    while frame:
        roots += [frame.f_locals, frame.f_globals]
        frame = frame.f_back
    for item in roots:
        for value in (item.values() if type(item) is dict else item if type(item) in (list, tuple) else ()):
            if type(value) in (list, tuple) and len(value) == LENGTH and {type(v) for v in value} == {int}:
                return list(value)
    return None
"""


@dataclass(frozen=True)
class Case:
    """A completion and what must become of it."""

    name: str
    category: str
    code: str
    right: bool
    fenced: bool
    """It needs seccomp and the rest: not run with --sandbox none."""


CASES: list[Case] = []


def wrong(category: str, name: str, code: str, fenced: bool = False) -> None:
    """An attack on the verdict: it must not be credited."""
    CASES.append(Case(name, category, code, False, fenced))


def right(category: str, name: str, code: str, fenced: bool = False) -> None:
    """A right answer that looks odd: it must be credited."""
    CASES.append(Case(name, category, code, True, fenced))


def held(category: str, name: str, attack: str, fenced: bool = True) -> None:
    """An attack that must raise; the code is right if it did."""
    body = "".join(f"    {line}\n" for line in attack.strip().splitlines())
    code = f"HELD = False\ntry:\n{body}except BaseException:\n    HELD = True\n" + IF_HELD
    CASES.append(Case(name, category, code, True, fenced))
