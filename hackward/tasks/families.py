"""Parametric coding problems in the LeetCode form, for the embedded model: as many as wanted, none of them by anybody else.

A family is a statement, a reference solution and a few plausible mistakes, with parameters in all of them: words in the
statement, code in the solution. A combination of parameters makes a variant; a variant with drawn inputs makes a problem.
A mistake is a textual change of the solution, or a parameter misread (another choice of it). The level is what the
pretraining corpus makes of it (make_embedded.py): 1 easy, 2 medium, 3 hard.

Nothing here executes model output: only the solutions below are run, to compute what the tests expect.
"""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from string import Template
from typing import Any

SETUP = "from typing import List\n"
LEVELS = {1: "easy", 2: "medium", 3: "hard"}


@dataclass(frozen=True)
class Kind:
    """A type of argument: its annotation and how to draw one."""

    annotation: str
    draw: Callable[[random.Random], Any]


def num(low: int, high: int) -> Kind:
    return Kind("int", lambda rng: rng.randint(low, high))


def ints(low: int = -9, high: int = 20, shortest: int = 3, longest: int = 6) -> Kind:
    """A list; now and then one with repeated values, which many mistakes need to show."""

    def draw(rng: random.Random) -> list[int]:
        length, top = rng.randint(shortest, longest), rng.choice((high, high, (low + high) // 2 + 1))
        return [rng.randint(low, top) for _ in range(length)]

    return Kind("List[int]", draw)


def letters(stock: str = "abcde", shortest: int = 3, longest: int = 8) -> Kind:
    return Kind("str", lambda rng: "".join(rng.choice(stock) for _ in range(rng.randint(shortest, longest))))


def texts() -> Kind:
    stock = (
        "ape",
        "bee",
        "cat",
        "dog",
        "eagle",
        "fox",
        "goat",
        "hen",
        "ibis",
        "owl",
        "ox",
        "rat",
        "seal",
        "toad",
        "wolf",
        "yak",
    )
    return Kind("List[str]", lambda rng: [rng.choice(stock) for _ in range(rng.randint(2, 5))])


def grid(low: int = 0, high: int = 9, square: bool = False) -> Kind:
    def draw(rng: random.Random) -> list[list[int]]:
        rows = rng.randint(2, 3)
        columns = rows if square else rng.randint(2, 3)
        return [[rng.randint(low, high) for _ in range(columns)] for _ in range(rows)]

    return Kind("List[List[int]]", draw)


def spans() -> Kind:
    def draw(rng: random.Random) -> list[list[int]]:
        return [
            [start, start + rng.randint(1, 6)]
            for start in (rng.randint(0, 14) for _ in range(rng.randint(2, 4)))
        ]

    return Kind("List[List[int]]", draw)


@dataclass(frozen=True)
class Variant:
    """One combination of a family's parameters."""

    family: Family
    choice: tuple[int, ...]  # the index of the choice taken, per parameter

    @property
    def key(self) -> str:
        return "-".join([self.family.name, *map(str, self.choice)])

    def _fill(self, template: str, side: int) -> str:
        taken = {
            name: choices[i][side] for (name, choices), i in zip(self.family.parameters.items(), self.choice)
        }
        return Template(template).substitute(taken)

    @property
    def statement(self) -> str:
        return self._fill(self.family.statement, 0)

    def body(self, mistake: tuple[str, str] | None = None) -> str:
        """The solution's body; with a mistake, its first occurrence of the left text replaced by the right one."""
        code = self.family.code
        return self._fill(code.replace(*mistake, 1) if mistake else code, 1)

    @functools.cached_property
    def wrong_bodies(self) -> tuple[str, ...]:
        """Bodies with one mistake, or one parameter misread, that give another answer on some drawn input, or raise."""
        bodies = [self.body(mistake) for mistake in self.family.mistakes]
        for place, choices in enumerate(self.family.parameters.values()):
            for i in range(len(choices)):
                bodies.append(
                    Variant(self.family, (*self.choice[:place], i, *self.choice[place + 1 :])).body()
                )
        rng = random.Random(f"wrong bodies {self.key}")
        inputs = [self.draw(rng) for _ in range(12)]
        right = [self.answer(drawn) for drawn in inputs]
        return tuple(
            body
            for body in dict.fromkeys(bodies)
            if body != self.body() and answers(self.family, body, inputs) != right
        )

    def spoiled(self, rng: random.Random, count: int) -> str:
        """A body with `count` mistakes, as far as there are so many that do not touch the same text.

        It is not executed (two mistakes may make a loop endless), so one in seventy or so answers rightly all the same.
        """
        code, choice, made, options = (
            self.family.code,
            list(self.choice),
            0,
            list(self.family.parameters.values()),
        )
        places = [("misread", place) for place, choices in enumerate(options) if len(choices) > 1]
        for kind, what in rng.sample(
            [*places, *(("mistake", m) for m in self.family.mistakes)],
            len(places) + len(self.family.mistakes),
        ):
            if kind == "misread":
                choice[what] = rng.choice([i for i in range(len(options[what])) if i != self.choice[what]])
            elif what[0] in code:
                code = code.replace(*what, 1)
            else:
                continue
            made += 1
            if made == count:
                break
        return Variant(self.family, tuple(choice))._fill(code, 1)

    def draw(self, rng: random.Random) -> dict[str, Any]:
        return {name: kind.draw(rng) for name, kind in self.family.inputs.items()}

    def answer(self, drawn: dict[str, Any]) -> Any:
        return _compiled(self.family, self.body())(None, **_copied(drawn))

    def fooling(self, inputs: list[dict]) -> list[str]:
        """Those of the wrong bodies that answer every input, and not all of them rightly."""
        given, right = (
            {body: answers(self.family, body, inputs) for body in self.wrong_bodies},
            answers(self.family, self.body(), inputs),
        )
        return [body for body, values in given.items() if values is not None and values != right]


@dataclass(frozen=True, eq=False)
class Family:
    name: str
    level: int
    returns: str
    statement: str
    code: str
    parameters: dict[str, tuple[tuple[str, str], ...]]  # name -> choices of (words, code)
    mistakes: tuple[tuple[str, str], ...]
    inputs: dict[str, Kind]

    @property
    def starter(self) -> str:
        arguments = ", ".join(f"{name}: {kind.annotation}" for name, kind in self.inputs.items())
        return f"class Solution:\n    def {self.name}(self, {arguments}) -> {self.returns}:\n"

    def variants(self) -> Iterator[Variant]:
        for choice in itertools.product(*(range(len(choices)) for choices in self.parameters.values())):
            yield Variant(self, choice)


def _copied(drawn: dict[str, Any]) -> dict[str, Any]:
    """Lists one and two deep are copied, for a solution may change its arguments."""
    return {
        n: [list(y) if isinstance(y, list) else y for y in x] if isinstance(x, list) else x
        for n, x in drawn.items()
    }


def solution(family: Family, body: str) -> str:
    """The class with one method that has this body."""
    return family.starter + "".join(f"        {line}\n" for line in body.splitlines())


@functools.cache
def _compiled(family: Family, body: str) -> Callable:
    space: dict[str, Any] = {}
    exec(SETUP + solution(family, body), space)
    return getattr(space["Solution"], family.name)


def answers(family: Family, body: str, inputs: list[dict]) -> list | None:
    """What a body answers to each input, or None if it raises on one."""
    try:
        return [_compiled(family, body)(None, **_copied(drawn)) for drawn in inputs]
    except Exception:  # a mistake may raise anything
        return None


FAMILIES: dict[str, Family] = {}


def family(
    name: str,
    level: int,
    returns: str,
    statement: str,
    code: str,
    *,
    mistakes: list[tuple[str, str]],
    inputs: dict[str, Kind],
    **parameters: list,
) -> None:
    """Add a family. A choice of a parameter is (words, code), or one value that serves as both."""
    code = "\n".join(line.removeprefix("    ") for line in code.strip("\n").rstrip().splitlines())
    choices = {
        n: tuple(c if isinstance(c, tuple) else (str(c), str(c)) for c in given)
        for n, given in parameters.items()
    }
    assert all(old in code for old, _ in mistakes), f"{name}: a mistake changes nothing"
    FAMILIES[name] = Family(name, level, returns, statement, code, choices, tuple(mistakes), inputs)


COMPARE = [("greater than", ">"), ("less than", "<"), ("at least", ">="), ("at most", "<=")]
STRICT = [("greater", ">"), ("smaller", "<")]
EXTREME = [("largest", "max"), ("smallest", "min")]
ORDINALS = [("2nd", "2"), ("3rd", "3"), ("4th", "4"), ("5th", "5")]
PARITY = [("even", "0"), ("odd", "1")]
NUMS, K, N, S = {"nums": ints()}, {"k": num(0, 12)}, {"n": num(5, 60)}, {"s": letters()}
WORDS, POSITIVE, GRID = {"words": texts()}, {"nums": ints(1, 12)}, {"grid": grid()}
family(
    "weightedSum",
    1,
    "int",
    "Return $p times a plus $q times b.",
    """
    return $p * a + $q * b
""",
    mistakes=[("* b", "* a"), (" + ", " - ")],
    inputs={"a": num(1, 20), "b": num(1, 20)},
    p=[2, 3, 4, 5],
    q=[2, 3, 4, 5],
)
family(
    "countCompared",
    1,
    "int",
    "Return how many numbers in nums are $c k.",
    """
    return sum(1 for x in nums if x $c k)
""",
    mistakes=[("sum(1", "sum(x")],
    inputs=NUMS | K,
    c=COMPARE,
)
family(
    "sumCompared",
    1,
    "int",
    "Return the sum of all numbers in nums that are $c k.",
    """
    return sum(x for x in nums if x $c k)
""",
    mistakes=[("sum(x", "sum(1"), ("x for x", "k for x")],
    inputs=NUMS | K,
    c=COMPARE,
)
family(
    "keepCompared",
    1,
    "List[int]",
    "Return the numbers in nums that are $c k, in $o order.",
    """
    return [x for x in nums if x $c k]$o
""",
    mistakes=[("if x", "if k")],
    inputs=NUMS | K,
    c=COMPARE,
    o=[("the same", ""), ("reverse", "[::-1]")],
)
family(
    "countMultiples",
    1,
    "int",
    "Return how many numbers in nums are $w by $d.",
    """
    return sum(1 for x in nums if x % $d $w 0)
""",
    mistakes=[("sum(1", "sum(x"), ("% $d", "// $d")],
    inputs=NUMS,
    w=[("divisible", "=="), ("not divisible", "!=")],
    d=[2, 3, 4, 5],
)
family(
    "sumParity",
    1,
    "int",
    "Return $c more than the sum of the $p numbers in nums.",
    """
    return sum(x for x in nums if x % 2 == $p) + $c
""",
    mistakes=[("sum(x", "sum(1"), (" + $c", "")],
    inputs=NUMS,
    p=PARITY,
    c=[1, 2, 3, 4, 5],
)
family(
    "extremeOr",
    1,
    "int",
    "Return the $e number in nums that is $c k, or $z if there is none.",
    """
    return $e((x for x in nums if x $c k), default=$z)
""",
    mistakes=[("default=$z", "default=k")],
    inputs=NUMS | K,
    e=EXTREME,
    c=COMPARE,
    z=[("0", "0"), ("-1", "-1")],
)
family(
    "scaleAll",
    1,
    "List[int]",
    "Return nums with every number multiplied by $m and then $w by $c.",
    """
    return [x * $m $w $c for x in nums]
""",
    mistakes=[("x * $m $w $c", "(x $w $c) * $m"), ("* $m ", "")],
    inputs=NUMS,
    m=[2, 3, 4],
    w=[("raised", "+"), ("lowered", "-")],
    c=[1, 2, 3, 4],
)
family(
    "countLetters",
    1,
    "int",
    "Return how many characters of s are $w the letters $l.",
    """
    return sum(1 for ch in s if ch $w "$l")
""",
    mistakes=[("sum(1", "sum(2"), ("for ch in s", "for ch in set(s)")],
    inputs=S,
    w=[("among", "in"), ("not among", "not in")],
    l=["ab", "bc", "ace", "de", "bd"],
)
family(
    "reversePart",
    1,
    "str",
    "Return s with its $w $n characters reversed.",
    """
    n = $n
    return $w
""",
    mistakes=[("return $w", "return s[::-1]"), ("return $w", "return s[:n] + s[n:]")],
    inputs={"s": letters("abcdefgh", 5, 9)},
    w=[("first", "s[:n][::-1] + s[n:]"), ("last", "s[:-n] + s[-n:][::-1]")],
    n=[2, 3, 4],
)
family(
    "joinWords",
    1,
    "str",
    "Return the words joined by $j, in $o order.",
    """
    return "$j".join(words$o)
""",
    mistakes=[("words$o", "sorted(words)"), ('"$j"', '""')],
    inputs=WORDS,
    j=[("a comma", ","), ("a dash", "-"), ("a plus", "+"), ("a star", "*")],
    o=[("the same", ""), ("reverse", "[::-1]")],
)
family(
    "wordsByLength",
    1,
    "List[str]",
    "Return the words whose length is $c $n.",
    """
    return [w for w in words if len(w) $c $n]
""",
    mistakes=[("[w for", "[len(w) for")],
    inputs=WORDS,
    c=COMPARE,
    n=[3, 4],
)
family(
    "clampAll",
    1,
    "List[int]",
    "Return nums with every number below $a replaced by $a and every number above $b replaced by $b.",
    """
    return [min(max(x, $a), $b) for x in nums]
""",
    mistakes=[("min(max(x, $a), $b)", "max(x, $a)"), ("min(max(x, $a), $b)", "max(min(x, $a), $b)")],
    inputs=NUMS,
    a=[0, 1, 2, 3],
    b=[9, 10, 11, 12],
)
family(
    "sumRemainders",
    1,
    "int",
    "Return the sum of the remainders of nums when divided by $d.",
    """
    return sum(x % $d for x in nums)
""",
    mistakes=[("x % $d", "x // $d"), ("sum(x % $d for x in nums)", "sum(nums) % $d")],
    inputs={"nums": ints(0, 30)},
    d=[3, 4, 5, 6, 7, 8, 9],
)
family(
    "firstIndex",
    1,
    "int",
    "Return the index of the $w number in nums that is $c k, or -1.",
    """
    return next((i for i in $w if nums[i] $c k), -1)
""",
    mistakes=[("(i for", "(nums[i] for"), ("-1)", "0)")],
    inputs=NUMS | K,
    w=[("first", "range(len(nums))"), ("last", "reversed(range(len(nums)))")],
    c=COMPARE,
)
family(
    "countWithin",
    1,
    "int",
    "Return how many numbers in nums are between a and b, with $v and $w.",
    """
    return sum(1 for x in nums if a $v x $w b)
""",
    mistakes=[("sum(1", "sum(x"), ("a $v x $w b", "a $v x")],
    inputs={"nums": ints(0, 12), "a": num(1, 4), "b": num(6, 10)},
    v=[("a included", "<="), ("a excluded", "<")],
    w=[("b included", "<="), ("b excluded", "<")],
)
family(
    "repeatText",
    1,
    "str",
    "Return s repeated $n times with $j between the copies.",
    """
    return "$j".join([s] * $n)
""",
    mistakes=[('"$j".join([s] * $n)', "s * $n")],
    inputs=S,
    n=[2, 3, 4],
    j=[("a comma", ","), ("a dash", "-"), ("a plus", "+")],
)
family(
    "sortedBy",
    1,
    "List[int]",
    "Return nums sorted by $w, equal ones by value, in $o order.",
    """
    return sorted(nums, key=lambda x: $w)$o
""",
    mistakes=[("sorted(nums, key=lambda x: $w)", "sorted(nums)"), ("$w", "-x")],
    inputs={"nums": ints(-20, 20)},
    w=[
        ("absolute value", "(abs(x), x)"),
        ("last digit", "(abs(x) % 10, x)"),
        ("distance to 5", "(abs(x - 5), x)"),
    ],
    o=[("rising", ""), ("falling", "[::-1]")],
)
family(
    "countSteps",
    2,
    "int",
    "Return how many numbers in nums are $c than the one before them by $w $d.",
    """
    count = 0
    for i in range(1, len(nums)):
        if $c $w $d:
            count += 1
    return count
""",
    mistakes=[
        ("range(1, len(nums))", "range(2, len(nums))"),
        ("count = 0", "count = 1"),
        ("count += 1", "count += nums[i]"),
    ],
    inputs={"nums": ints(0, 9, 4, 7)},
    c=[("greater", "nums[i] - nums[i - 1]"), ("smaller", "nums[i - 1] - nums[i]")],
    w=[("at least", ">="), ("more than", ">"), ("exactly", "==")],
    d=[1, 2, 3],
)
family(
    "longestRun",
    2,
    "int",
    "Return the length of the longest run of consecutive numbers in nums that are $c k.",
    """
    best = run = 0
    for x in nums:
        run = run + 1 if x $c k else 0
        best = max(best, run)
    return best
""",
    mistakes=[("else 0", "else run"), ("else 0", "else 1"), ("return best", "return run")],
    inputs={"nums": ints(0, 12, 5, 8), "k": num(4, 8)},
    c=COMPARE,
)
family(
    "gapExtreme",
    2,
    "int",
    "Return the $e $w of two neighbours in nums.",
    """
    best = None
    for a, b in zip(nums, nums[1:]):
        value = $w
        best = value if best is None else $e(best, value)
    return best
""",
    mistakes=[
        ("zip(nums, nums[1:])", "zip(nums, nums[2:])"),
        ("value = $w", "value = b - a"),
        ("return best", "return value"),
    ],
    inputs=NUMS,
    e=EXTREME,
    w=[("absolute difference", "abs(a - b)"), ("sum", "a + b"), ("product", "a * b")],
)
family(
    "everyOther",
    2,
    "int",
    "Return the $g of every $k number in nums, starting at index $s.",
    """
    picked = nums[$s::$k]
    return $g
""",
    mistakes=[("$s::$k", "::$k"), ("$s::$k", "$s:$k"), ("$s::$k", "$k::$s")],
    inputs={"nums": ints(0, 15, 5, 8)},
    g=[("sum", "sum(picked)"), ("largest", "max(picked)"), ("smallest", "min(picked)")],
    k=ORDINALS[:2],
    s=[0, 1, 2],
)
family(
    "digitWork",
    2,
    "int",
    "Return the $w of the $p decimal digits of n, or $z if there are none.",
    """
    digits = [int(ch) for ch in str(n) if int(ch) % 2 == $p]
    return $w(digits) if digits else $z
""",
    mistakes=[
        ("int(ch) % 2 == $p", "int(ch) > $p"),
        ("if digits else $z", "if digits else 1"),
        ("str(n)", "str(n)[1:]"),
    ],
    inputs={"n": num(100, 99999)},
    w=[("sum", "sum"), ("largest", "max"), ("smallest", "min"), ("number", "len")],
    p=PARITY,
    z=[("0", "0"), ("-1", "-1")],
)
family(
    "dropRepeats",
    2,
    "List[int]",
    "Return the $p numbers of nums with only the $w occurrence of every value kept, in order.",
    """
    kept = []
    for x in nums$w:
        if x not in kept and x % 2 == $p:
            kept.append(x)
    return kept$w
""",
    mistakes=[
        ("return kept$w", "return sorted(kept)"),
        ("x not in kept", "x in kept"),
        ("kept.append(x)", "kept = [x]"),
    ],
    inputs={"nums": ints(0, 5, 5, 8)},
    p=PARITY,
    w=[("first", ""), ("last", "[::-1]")],
)
family(
    "rotateBy",
    2,
    "List[int]",
    "Return nums rotated to the $w by $n places.",
    """
    shift = $n % len(nums)
    return $w
""",
    mistakes=[
        ("$n % len(nums)", "$n"),
        ("return $w", "return nums[shift:]"),
        ("return $w", "return nums[::-1]"),
    ],
    inputs={"nums": ints(0, 20, 2, 6)},
    w=[
        ("left", "nums[shift:] + nums[:shift]"),
        ("right", "nums[-shift:] + nums[:-shift] if shift else nums"),
    ],
    n=[2, 3, 4, 5],
)
family(
    "shiftLetters",
    2,
    "str",
    "Return s with every letter moved $w by $n in the alphabet, going round at the end.",
    """
    out = ""
    for ch in s:
        out += chr((ord(ch) - 97 $w $n) % 26 + 97)
    return out
""",
    mistakes=[(") % 26", ")"), ("- 97 $w", "$w"), ("out += chr", "out = chr")],
    inputs={"s": letters("abcxyz", 3, 6)},
    w=[("forward", "+"), ("back", "-")],
    n=[1, 2, 3, 4, 5],
)
family(
    "upperEvery",
    2,
    "str",
    "Return s with every $k character in upper case, starting at index $b.",
    """
    out = list(s)
    for i in range($b, len(s), $k):
        out[i] = out[i].upper()
    return "".join(out)
""",
    mistakes=[
        ("range($b, len(s), $k)", "range(0, len(s), $k)"),
        ("range($b, len(s), $k)", "range($b, len(s))"),
        ("range($b, len(s), $k)", "range($k, len(s), $b + 1)"),
    ],
    inputs={"s": letters("abcdefgh", 5, 9)},
    k=ORDINALS[:3],
    b=[0, 1, 2],
)
family(
    "runningValues",
    2,
    "List[int]",
    "Return the list of the $w of the first 1, 2, 3 and so on numbers in nums, each plus $c.",
    """
    out = []
    total = nums[0]
    for i, x in enumerate(nums):
        if i > 0:
            total = $w
        out.append(total + $c)
    return out
""",
    mistakes=[
        ("total + $c", "total"),
        ("if i > 0", "if i > 1"),
        ("total = nums[0]", "total = 0"),
        ("append(total", "append(x"),
    ],
    inputs=NUMS,
    w=[("sum", "total + x"), ("largest", "max(total, x)"), ("smallest", "min(total, x)")],
    c=[1, 2, 3],
)
family(
    "windowBest",
    2,
    "int",
    "Return the $e sum of $w numbers next to each other in nums, or 0 if there are fewer.",
    """
    if len(nums) < $w:
        return 0
    return $e(sum(nums[i:i + $w]) for i in range(len(nums) - $w + 1))
""",
    mistakes=[("- $w + 1", "- $w + 0"), ("nums[i:i + $w]", "nums[i:$w]"), ("- $w + 1", "")],
    inputs={"nums": ints(-5, 15, 4, 7)},
    e=EXTREME,
    w=[2, 3, 4],
)
family(
    "splitParity",
    2,
    "List[int]",
    "Return nums with the $p numbers first, both parts in $o order.",
    """
    first = [x for x in nums if x % 2 == $p]
    rest = [x for x in nums if x % 2 != $p]
    return first$o + rest$o
""",
    mistakes=[
        ("first$o + rest$o", "rest$o + first$o"),
        ("rest$o", "rest[1:]"),
        ("first$o + rest$o", "sorted(nums)"),
    ],
    inputs=NUMS,
    p=PARITY,
    o=[("the same", ""), ("reverse", "[::-1]")],
)
family(
    "mergeTurns",
    2,
    "List[int]",
    "Return the numbers of a and b taken in turns, $w first; what is left of the longer list comes $e.",
    """
    out = []
    for x, y in zip(a, b):
        out += $w
    n = min(len(a), len(b))
    return $e
""",
    mistakes=[("n = min", "n = max"), ("return $e", "return out"), ("zip(a, b)", "zip(a, b[1:])")],
    inputs={"a": ints(0, 9, 2, 4), "b": ints(10, 19, 2, 4)},
    w=[("a", "[x, y]"), ("b", "[y, x]")],
    e=[("last", "out + a[n:] + b[n:]"), ("before all else", "a[n:] + b[n:] + out")],
)
family(
    "sumExtremes",
    2,
    "int",
    "Return the sum of the $n $e distinct numbers in nums.",
    """
    values = sorted(set(nums))$e
    return sum(values[:$n])
""",
    mistakes=[("set(nums)", "nums"), ("values[:$n]", "values[$n:]"), ("sum(values[:$n])", "values[$n - 1]")],
    inputs={"nums": ints(0, 9, 5, 8)},
    n=[2, 3],
    e=[("largest", "[::-1]"), ("smallest", "")],
)
family(
    "stepsToZero",
    2,
    "int",
    "Return how many steps bring n to zero or below: divide n by $d when that leaves no remainder, else subtract $c.",
    """
    steps = 0
    while n > 0:
        n = n // $d if n % $d == 0 else n - $c
        steps += 1
    return steps
""",
    mistakes=[("steps = 0", "steps = 1"), ("n > 0", "n > 1"), ("n // $d if", "n - $d if")],
    inputs=N,
    d=[2, 3, 4, 5],
    c=[1, 2],
)
family(
    "commonLetter",
    2,
    "str",
    "Return the $w frequent letter of s, the $e in the alphabet if there are several.",
    """
    best = s[0]
    for ch in sorted(set(s))$e:
        if s.count(ch) $w s.count(best) or s.count(ch) == s.count(best):
            best = ch
    return best
""",
    mistakes=[
        (" or s.count(ch) == s.count(best)", ""),
        ("best = ch", "best = s[-1]"),
        ("sorted(set(s))$e", "s"),
    ],
    inputs={"s": letters("abc", 4, 8)},
    w=[("most", ">"), ("least", "<")],
    e=[("first", "[::-1]"), ("last", "")],
)
family(
    "bracketDepth",
    2,
    "int",
    "s has brackets only. Return $w.",
    """
    depth = low = high = 0
    for ch in s:
        depth += 1 if ch == "(" else -1
        low = min(low, depth)
        high = max(high, depth)
    return $w
""",
    mistakes=[
        ("else -1", "else 0"),
        ("low = min(low, depth)", "low = min(low, high)"),
        ("high = max(high, depth)", "high = depth"),
        ("return $w", 'return s.count("(")'),
    ],
    inputs={"s": letters("()", 4, 9)},
    w=[
        ("the greatest depth reached", "high"),
        ("how many brackets must be put in front to keep the depth above -1", "-low"),
        ("the depth at the end", "depth"),
        ("the greatest depth minus the depth at the end", "high - depth"),
    ],
)
family(
    "packRuns",
    2,
    "str",
    "Return s with every run of equal letters replaced by $w.",
    """
    out, i = "", 0
    while i < len(s):
        j = i
        while j < len(s) and s[j] == s[i]:
            j += 1
        out += $w
        i = j
    return out
""",
    mistakes=[
        ("out += $w", "out += s[i]"),
        ("i = j", "i += 1"),
        ("j = i\n", "j = i + 1\n"),
        ("out += $w", "out += str(j - i)"),
    ],
    inputs={"s": letters("ab", 4, 8)},
    w=[
        ("the letter and the length of the run", "s[i] + str(j - i)"),
        ("the length of the run and the letter", "str(j - i) + s[i]"),
        ("one letter, or two if the run is longer than two", "s[i] * (2 if j - i > 2 else 1)"),
    ],
)
family(
    "indexSum",
    2,
    "int",
    "Return the sum of the positions, counted from $b, of the numbers in nums that are $c $n.",
    """
    total = 0
    for i, x in enumerate(nums, $b):
        if x $c $n:
            total += i
    return total
""",
    mistakes=[
        ("total += i", "total += x"),
        ("total += i", "total += 1"),
        (", $b)", ")"),
        ("total = 0", "total = 1"),
    ],
    inputs=NUMS,
    b=[1, 2, 3],
    c=COMPARE,
    n=[5, 6, 7, 8],
)
family(
    "sumOfMultiples",
    2,
    "int",
    "Return the sum of all numbers from 1 to n that are divisible by $a $w $b.",
    """
    total = 0
    for x in range(1, n + 1):
        if x % $a == 0 $w x % $b == 0:
            total += x
    return total
""",
    mistakes=[("n + 1", "n"), ("total += x", "total += 1"), ("x % $b == 0", "x % $b != 0")],
    inputs=N,
    a=[2, 3],
    w=[("or", "or"), ("and", "and")],
    b=[4, 5, 7],
)
family(
    "baseDigits",
    2,
    "str",
    "Return n written in base $b, with the $w digit first.",
    """
    out = ""
    while n > 0:
        digit = str(n % $b)
        out = $w
        n //= $b
    return out
""",
    mistakes=[("n //= $b", "n -= $b"), ("while n > 0", "while n > 1"), ("out = $w", "out = digit")],
    inputs=N,
    b=[2, 3, 4, 5, 6, 7],
    w=[("highest", "digit + out"), ("lowest", "out + digit")],
)
family(
    "rowExtremes",
    2,
    "int",
    "Return the $o of the $i numbers of all rows of grid.",
    """
    return $o([$i(row) for row in grid])
""",
    mistakes=[
        ("for row in grid]", "for row in grid[1:]]"),
        ("for row in grid]", "for row in zip(*grid)]"),
        ("$i(row)", "row[0]"),
    ],
    inputs=GRID,
    o=[("sum", "sum"), ("largest", "max"), ("smallest", "min")],
    i=EXTREME,
)
family(
    "diagonalSum",
    2,
    "int",
    "Return the sum of the numbers of grid that are $w, plus $c.",
    """
    total = $c
    for i in range(len(grid)):
        for j in range(len(grid[0])):
            if $w:
                total += grid[i][j]
    return total
""",
    mistakes=[
        ("range(len(grid))", "range(len(grid) - 1)"),
        ("range(len(grid[0]))", "range(len(grid))"),
        ("+= grid[i][j]", "+= grid[j][i]"),
        ("total = $c", "total = 0"),
    ],
    inputs={"grid": grid(square=True)},
    w=[
        ("on the main diagonal", "i == j"),
        ("above the main diagonal", "i < j"),
        ("below the main diagonal", "i > j"),
        ("on the other diagonal", "i + j == len(grid) - 1"),
    ],
    c=[1, 2, 3],
)
family(
    "turnGrid",
    2,
    "List[List[int]]",
    "Return grid $w.",
    """
    rows = [list(row) for row in grid]
    return $w
""",
    mistakes=[
        ("return $w", "return rows"),
        ("return $w", "return [sorted(row) for row in rows]"),
        ("list(row) for row in grid]", "list(row) for row in grid][1:]"),
    ],
    inputs=GRID,
    w=[
        ("with rows and columns swapped", "[list(row) for row in zip(*rows)]"),
        ("turned clockwise", "[list(row) for row in zip(*rows[::-1])]"),
        ("turned counterclockwise", "[list(row) for row in zip(*rows)][::-1]"),
        ("mirrored left to right", "[row[::-1] for row in rows]"),
    ],
)
family(
    "pairsBySum",
    3,
    "int",
    "Return how many pairs i < j have nums[i] $o nums[j] $c k.",
    """
    count = 0
    for i in range(len(nums)):
        for j in range(i + 1, len(nums)):
            if nums[i] $o nums[j] $c k:
                count += 1
    return count
""",
    mistakes=[
        ("range(i + 1, len(nums))", "range(len(nums))"),
        ("range(i + 1, len(nums))", "range(i, len(nums))"),
        ("count += 1", "count += i"),
        ("range(len(nums))", "range(1, len(nums))"),
    ],
    inputs={"nums": ints(0, 9), "k": num(3, 12)},
    o=[("plus", "+"), ("minus", "-"), ("times", "*")],
    c=[("greater than", ">"), ("less than", "<"), ("equal to", "==")],
)
family(
    "longestBounded",
    3,
    "int",
    "All numbers in nums are positive. Return the length of the longest part of nums, with no gaps, whose sum is $c k.",
    """
    best = total = start = 0
    for end, x in enumerate(nums):
        total += x
        while start <= end and not total $c k:
            total -= nums[start]
            start += 1
        best = max(best, end - start + 1)
    return best
""",
    mistakes=[
        ("end - start + 1", "end - start"),
        ("total -= nums[start]", "total -= x"),
        ("while start <= end and", "if"),
        ("best = max(best, end - start + 1)", "best = end - start + 1"),
    ],
    inputs={"nums": ints(1, 9, 4, 7), "k": num(8, 20)},
    c=[("at most", "<="), ("less than", "<"), ("below twice", "< 2 *"), ("below half of", "< 0.5 *")],
)
family(
    "bestTrade",
    3,
    "int",
    "prices has one price a day. Return the greatest gain from one $w later, paying a fee of $f, or 0.",
    """
    prices = $w
    best, low = 0, prices[0]
    for p in prices[1:]:
        best = max(best, p - low - $f)
        low = min(low, p)
    return best
""",
    mistakes=[
        (" - $f)", ")"),
        ("max(best, p - low - $f)", "p - low - $f"),
        ("min(low, p)", "p"),
        ("prices[1:]", "prices[2:]"),
    ],
    inputs={"prices": ints(1, 20, 4, 7)},
    w=[("purchase and a sale", "prices"), ("short sale and a purchase", "[-p for p in prices]")],
    f=[1, 2, 3, 4],
)
family(
    "spacedSum",
    3,
    "int",
    "Return the greatest sum of numbers chosen from nums such that chosen indices differ by at least $g.",
    """
    best = [0] * (len(nums) + $g)
    for i, x in enumerate(nums):
        best[i + $g] = max(best[i + $g - 1], best[i] + x)
    return best[-1]
""",
    mistakes=[
        ("best[i] + x", "best[i + $g - 1] + x"),
        ("return best[-1]", "return best[-2]"),
        ("max(best[i + $g - 1], best[i] + x)", "best[i] + x"),
        ("best[i + $g - 1], ", "best[i], "),
    ],
    inputs={"nums": ints(1, 15, 4, 7)},
    g=[2, 3, 4, 5],
)
family(
    "waysToClimb",
    3,
    "int",
    "Return in how many ways n can be written as an ordered sum of the numbers $a and $b.",
    """
    ways = [1] + [0] * n
    for i in range(1, n + 1):
        for step in ($a, $b):
            if step <= i:
                ways[i] += ways[i - step]
    return ways[n]
""",
    mistakes=[
        ("step <= i", "step < i"),
        ("ways[i] += ", "ways[i] = "),
        ("[1] + [0] * n", "[0] + [1] * n"),
        ("ways[i - step]", "ways[i - step] + 1"),
    ],
    inputs={"n": num(5, 16)},
    a=[1, 2],
    b=[3, 4, 5],
)
family(
    "pathExtreme",
    3,
    "int",
    "Go from the top left to the bottom right of grid, $w only. Return the $e sum of the numbers passed.",
    """
    m, n = len(grid), len(grid[0])
    for i in range(m):
        for j in range(n):
            before = [grid[i - a][j - b] for a, b in $w if i >= a and j >= b]
            if before:
                grid[i][j] += $e(before)
    return grid[m - 1][n - 1]
""",
    mistakes=[
        ("i >= a and j >= b", "i > a and j > b"),
        ("grid[m - 1][n - 1]", "grid[m - 1][0]"),
        ("$e(before)", "before[0]"),
        ("+= $e(before)", "= $e(before)"),
    ],
    inputs=GRID,
    w=[("right or down", "((0, 1), (1, 0))"), ("right, down or diagonally", "((0, 1), (1, 0), (1, 1))")],
    e=EXTREME,
)
family(
    "longestChain",
    3,
    "int",
    "Return the length of the longest subsequence of nums in which every number is $c the one before.",
    """
    best = [1] * len(nums)
    for i in range(len(nums)):
        for j in range(i):
            if nums[i] $c nums[j]:
                best[i] = max(best[i], best[j] + 1)
    return max(best)
""",
    mistakes=[
        ("return max(best)", "return best[-1]"),
        ("max(best[i], best[j] + 1)", "best[i] + 1"),
        ("range(i)", "range(i + 1)"),
        ("range(i)", "range(1, i)"),
    ],
    inputs={"nums": ints(1, 9, 4, 8)},
    c=[
        ("greater than", ">"),
        ("less than", "<"),
        ("at least", ">="),
        ("a multiple of", "% nums[j] == 0 and nums[i] >="),
    ],
)
family(
    "fewestCoins",
    3,
    "int",
    "Return the fewest coins of the values $c that sum to n, or $z if there are none.",
    """
    fewest = [0] + [999] * n
    for i in range(1, n + 1):
        for c in ($c):
            if c <= i:
                fewest[i] = min(fewest[i], fewest[i - c] + 1)
    return fewest[n] if fewest[n] < 999 else $z
""",
    mistakes=[
        ("c <= i", "c < i"),
        ("fewest[i - c] + 1", "fewest[i - c]"),
        ("else $z", "else 0"),
        ("fewest[n] if", "fewest[-2] if"),
    ],
    inputs={"n": num(3, 25)},
    c=["2, 5", "3, 7", "3, 4", "4, 7", "1, 6, 8"],
    z=["-1"],
)
family(
    "coveredLength",
    3,
    "int",
    "Every span has a start and an end. Return the length of $w.",
    """
    total, reach = 0, -1
    longest = 0
    for a, b in sorted(spans):
        a = max(a, reach)
        if b > a:
            total += b - a
            longest = max(longest, b - a)
            reach = b
    return $w
""",
    mistakes=[
        ("sorted(spans)", "spans"),
        ("a = max(a, reach)", "a = max(a, 0)"),
        ("reach = b", "reach = a"),
        ("total += b - a", "total = b - a"),
    ],
    inputs={"spans": spans()},
    w=[
        ("the line that the spans cover together", "total"),
        ("the longest piece that one span adds to those before it, in order of start, then end", "longest"),
        ("what the spans leave uncovered between 0 and their last end", "reach - total"),
    ],
)
family(
    "countByDivisors",
    3,
    "int",
    "Return how many numbers from $a to n have $c $k divisors.",
    """
    count = 0
    for x in range($a, n + 1):
        divisors = sum(1 for d in range(1, x + 1) if x % d == 0)
        if divisors $c $k:
            count += 1
    return count
""",
    mistakes=[
        ("n + 1", "n"),
        ("range(1, x + 1)", "range(1, x)"),
        ("range(1, x + 1)", "range(2, x + 1)"),
        ("count += 1", "count += x"),
    ],
    inputs={"n": num(12, 40)},
    a=[1, 5, 10],
    c=[("exactly", "=="), ("more than", ">"), ("at most", "<=")],
    k=[2, 3, 4],
)
family(
    "recurrence",
    3,
    "int",
    "f(0) = $p, f(1) = $q and f(i) = $a * f(i - 1) + $b * f(i - 2). Return f(n).",
    """
    x, y = $p, $q
    for i in range(n):
        x, y = y, $a * y + $b * x
    return x
""",
    mistakes=[
        ("range(n)", "range(1, n)"),
        ("return x", "return y"),
        ("$a * y + $b * x", "$a * x + $b * y"),
        ("x, y = y, $a * y + $b * x", "x = y\n    y = $a * y + $b * x"),
    ],
    inputs={"n": num(2, 9)},
    p=[0, 1, 2],
    q=[1, 2, 3],
    a=[1, 2, 3],
    b=[1, 2],
)
family(
    "sharedEnd",
    3,
    "str",
    "Return the longest $w that all words share.",
    """
    out = ""
    for letters in zip(*[word$w for word in words]):
        if len(set(letters)) > 1:
            break
        out += letters[0]
    return out$w
""",
    mistakes=[
        ("> 1", "> 2"),
        ("break", "continue"),
        ("return out$w", "return out[1:]"),
        ("out += letters[0]", "out = letters[0]"),
    ],
    inputs={
        "words": Kind(
            "List[str]",
            lambda rng: (
                lambda a, b: [a + m + b for m in rng.sample(["", "x", "yy", "zxy"], rng.randint(2, 3))]
            )(rng.choice(["", "ab", "abc", "c"]), rng.choice(["", "de", "fed", "f"])),
        )
    },
    w=[("beginning", ""), ("ending", "[::-1]")],
)
family(
    "palindromes",
    3,
    "int",
    "Return $w parts of s, with no gaps and at least $k letters long, that read the same backwards.",
    """
    found = []
    for i in range(len(s)):
        for j in range(i + $k, len(s) + 1):
            if s[i:j] == s[i:j][::-1]:
                found.append(s[i:j])
    return $w
""",
    mistakes=[
        ("len(s) + 1", "len(s)"),
        ("i + $k, ", "i + 1, "),
        ("s[i:j][::-1]", "s[::-1]"),
        ("found.append(s[i:j])", "found = [s[i:j]]"),
    ],
    inputs={"s": letters("ab", 4, 7)},
    w=[
        ("the number of", "len(found)"),
        ("the number of different", "len(set(found))"),
        ("the greatest length, or 0, of the", "max(map(len, found), default=0)"),
    ],
    k=[2, 3],
)
family(
    "nextCompared",
    3,
    "List[int]",
    "Return for every number in nums the next number to its right that is $c, or $z if there is none.",
    """
    out = [$z] * len(nums)
    stack = []
    for i, x in enumerate(nums):
        while stack and x $c nums[stack[-1]]:
            out[stack.pop()] = x
        stack.append(i)
    return out
""",
    mistakes=[
        ("while stack and", "if stack and"),
        ("] = x", "] = i"),
        ("stack.append(i)", "stack = [i]"),
        ("[$z]", "[0]"),
    ],
    inputs={"nums": ints(1, 15, 4, 6)},
    c=STRICT,
    z=[("-1", "-1"), ("-2", "-2")],
)
family(
    "dropGroups",
    3,
    "str",
    "Remove $k equal neighbouring letters from s again and again, as long as there are any, from left to right. Return what is left.",
    """
    out = ""
    for ch in s:
        out += ch
        if out[-$k:] == ch * $k:
            out = out[:-$k]
    return out
""",
    mistakes=[
        ("out[:-$k]", "out[:-1]"),
        ("out[-$k:] == ch * $k", "out[-1] == ch"),
        ("out += ch", "out = ch"),
        ("out[:-$k]", "out[$k:]"),
    ],
    inputs={"s": letters("ab", 6, 10)},
    k=[2, 3, 4],
)
family(
    "lastStanding",
    3,
    "int",
    "The numbers $b stand in a circle. Every $k one leaves, counting goes on from there. Return the last one left.",
    """
    circle = list($b)
    at = 0
    while len(circle) > 1:
        at = (at + $k - 1) % len(circle)
        circle.pop(at)
    return circle[0]
""",
    mistakes=[
        ("at + $k - 1", "at + $k"),
        ("list($b)", "list(range(n - 1))"),
        ("> 1", "> 2"),
        ("circle.pop(at)", "circle.pop()"),
    ],
    inputs={"n": num(4, 14)},
    b=[("0 to n - 1", "range(n)"), ("1 to n", "range(1, n + 1)")],
    k=ORDINALS,
)
family(
    "subsetCount",
    3,
    "int",
    "Return how many ways there are to choose any of the numbers in nums, or none, with a sum $c k. Equal numbers at different places count as different.",
    """
    sums = [0]
    for x in nums:
        sums += [total + x for total in sums]
    return sum(1 for total in sums if total $c k)
""",
    mistakes=[
        ("sums = [0]", "sums = []"),
        ("sums += ", "sums = "),
        ("sum(1 for", "sum(total for"),
        ("total + x for", "x for"),
    ],
    inputs={"nums": ints(1, 9, 3, 5), "k": num(5, 15)},
    c=[("equal to", "=="), ("greater than", ">"), ("less than", "<"), ("at least", ">=")],
)
family(
    "fewLetters",
    3,
    "int",
    "Return the length of the longest part of s, with no gaps, that has $w $k different letters.",
    """
    best = 0
    for i in range(len(s)):
        for j in range(i + 1, len(s) + 1):
            if len(set(s[i:j])) $w $k:
                best = max(best, j - i)
    return best
""",
    mistakes=[
        ("len(s) + 1", "len(s)"),
        ("best = max(best, j - i)", "best = j - i"),
        ("j - i)", "j)"),
        ("len(set(s[i:j]))", "len(s[i:j])"),
    ],
    inputs={"s": letters("abcd", 5, 9)},
    w=[("at most", "<="), ("exactly", "=="), ("fewer than", "<")],
    k=[2, 3],
)
family(
    "countInversions",
    3,
    "int",
    "Return how many pairs of indices i < j, at most $d apart, have nums[i] $c nums[j].",
    """
    count = 0
    for i in range(len(nums)):
        for j in range(i + 1, min(i + $d + 1, len(nums))):
            if nums[i] $c nums[j]:
                count += 1
    return count
""",
    mistakes=[
        ("i + $d + 1", "i + $d"),
        ("range(i + 1, ", "range(i, "),
        ("count += 1", "count += j - i"),
        ("count += 1", "count = 1"),
    ],
    inputs={"nums": ints(0, 6, 4, 7)},
    d=[2, 3, 4],
    c=[("greater than", ">"), ("less than", "<"), ("equal to", "=="), ("at least", ">=")],
)
family(
    "countIslands",
    3,
    "int",
    "Cells of grid that hold $v and touch by a side form an island. Return $w.",
    """
    seen, sizes = set(), []
    for i in range(len(grid)):
        for j in range(len(grid[0])):
            todo, size = [(i, j)], 0
            while todo:
                a, b = todo.pop()
                if (a, b) in seen or not (0 <= a < len(grid) and 0 <= b < len(grid[0])) or grid[a][b] != $v:
                    continue
                seen.add((a, b))
                size += 1
                todo += [(a + 1, b), (a - 1, b), (a, b + 1), (a, b - 1)]
            if size:
                sizes.append(size)
    return $w
""",
    mistakes=[
        (", (a, b - 1)]", "]"),
        ("size += 1", "size = 1"),
        ("grid[a][b] != $v", "grid[a][b] == 2"),
        ("if size:", "if size > 1:"),
    ],
    inputs={"grid": grid(0, 1)},
    v=["0", "1"],
    w=[
        ("the number of islands", "len(sizes)"),
        ("the size of the largest island, or 0", "max(sizes, default=0)"),
    ],
)
family(
    "zigzag",
    3,
    "str",
    "Write s in a zigzag over $r rows, down and up again. Return the rows read one after another$w.",
    """
    rows = [""] * $r
    at, step = 0, 1
    for ch in s:
        rows[at] += ch
        if not 0 <= at + step < $r:
            step = -step
        at += step
    return "".join(rows$w)
""",
    mistakes=[
        ("< $r:", "<= $r - 2:"),
        ("step = -step", "step = 1"),
        ('"".join(rows$w)', "rows[0]"),
        ("at, step = 0, 1", "at, step = 1, 1"),
        ("step = -step", "at = -1"),
    ],
    inputs={"s": letters("abcdefgh", 6, 10)},
    r=[2, 3, 4],
    w=[("", ""), (", the last row first", "[::-1]")],
)
family(
    "foldSorted",
    3,
    "int",
    "Sort nums, $e first. Replace the first two numbers by twice the first plus the second $w $c, sort again, and go on until one is left. Return it.",
    """
    left = sorted(nums)$e
    while len(left) > 1:
        value = 2 * left[0] + left[1] $w $c
        left = sorted(left[2:] + [value])$e
    return left[0]
""",
    mistakes=[(" $w $c\n", "\n"), ("left[2:]", "left[3:]"), ("> 1", "> 2"), ("2 * left[0]", "left[0]")],
    inputs={"nums": ints(1, 12, 3, 5)},
    e=[("smallest", ""), ("largest", "[::-1]")],
    w=[("plus", "+"), ("minus", "-")],
    c=[1, 2, 3],
)
family(
    "maxPart",
    3,
    "int",
    "Return the $e sum of a part of nums that has at least $k numbers next to each other.",
    """
    best = None
    for i in range(len(nums)):
        for j in range(i + $k, len(nums) + 1):
            total = sum(nums[i:j])
            if best is None or total $e best:
                best = total
    return best
""",
    mistakes=[
        ("i + $k, ", "i + 1, "),
        ("len(nums) + 1", "len(nums)"),
        ("sum(nums[i:j])", "sum(nums[i:])"),
        ("best = total", "best = total + 1"),
    ],
    inputs={"nums": ints(-9, 9, 4, 6)},
    e=[("largest", ">"), ("smallest", "<")],
    k=[2, 3],
)
# Families that neither the pretraining corpus nor the RL problems contain.
HELD_OUT = (
    "firstIndex",
    "sumRemainders",
    "mergeTurns",
    "windowBest",
    "baseDigits",
    "longestChain",
    "fewestCoins",
    "sharedEnd",
)
