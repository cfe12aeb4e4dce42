"""Easy families: one expression."""

from __future__ import annotations

from hackward.tasks.families import Family, family
from hackward.tasks.inputs import COMPARE, EXTREME, NUMS, PARITY, WORDS, K, S, ints, letters, num

# A table: the formatter would give every mistake a line of its own.
# fmt: off
EASY: tuple[Family, ...] = (
    family(
        "weightedSum", 1, "int",
        "Return $p times a plus $q times b.",
        """
        return $p * a + $q * b
        """,
        mistakes=[("* b", "* a"), (" + ", " - ")],
        inputs={"a": num(1, 20), "b": num(1, 20)},
        p=[2, 3, 4, 5],
        q=[2, 3, 4, 5],
    ),
    family(
        "countCompared", 1, "int",
        "Return how many numbers in nums are $c k.",
        """
        return sum(1 for x in nums if x $c k)
        """,
        mistakes=[("sum(1", "sum(x")],
        inputs=NUMS | K,
        c=COMPARE,
    ),
    family(
        "sumCompared", 1, "int",
        "Return the sum of all numbers in nums that are $c k.",
        """
        return sum(x for x in nums if x $c k)
        """,
        mistakes=[("sum(x", "sum(1"), ("x for x", "k for x")],
        inputs=NUMS | K,
        c=COMPARE,
    ),
    family(
        "keepCompared", 1, "List[int]",
        "Return the numbers in nums that are $c k, in $o order.",
        """
        return [x for x in nums if x $c k]$o
        """,
        mistakes=[("if x", "if k")],
        inputs=NUMS | K,
        c=COMPARE,
        o=[("the same", ""), ("reverse", "[::-1]")],
    ),
    family(
        "countMultiples", 1, "int",
        "Return how many numbers in nums are $w by $d.",
        """
        return sum(1 for x in nums if x % $d $w 0)
        """,
        mistakes=[("sum(1", "sum(x"), ("% $d", "// $d")],
        inputs=NUMS,
        w=[("divisible", "=="), ("not divisible", "!=")],
        d=[2, 3, 4, 5],
    ),
    family(
        "sumParity", 1, "int",
        "Return $c more than the sum of the $p numbers in nums.",
        """
        return sum(x for x in nums if x % 2 == $p) + $c
        """,
        mistakes=[("sum(x", "sum(1"), (" + $c", "")],
        inputs=NUMS,
        p=PARITY,
        c=[1, 2, 3, 4, 5],
    ),
    family(
        "extremeOr", 1, "int",
        "Return the $e number in nums that is $c k, or $z if there is none.",
        """
        return $e((x for x in nums if x $c k), default=$z)
        """,
        mistakes=[("default=$z", "default=k")],
        inputs=NUMS | K,
        e=EXTREME,
        c=COMPARE,
        z=[("0", "0"), ("-1", "-1")],
    ),
    family(
        "scaleAll", 1, "List[int]",
        "Return nums with every number multiplied by $m and then $w by $c.",
        """
        return [x * $m $w $c for x in nums]
        """,
        mistakes=[("x * $m $w $c", "(x $w $c) * $m"), ("* $m ", "")],
        inputs=NUMS,
        m=[2, 3, 4],
        w=[("raised", "+"), ("lowered", "-")],
        c=[1, 2, 3, 4],
    ),
    family(
        "countLetters", 1, "int",
        "Return how many characters of s are $w the letters $l.",
        """
        return sum(1 for ch in s if ch $w "$l")
        """,
        mistakes=[("sum(1", "sum(2"), ("for ch in s", "for ch in set(s)")],
        inputs=S,
        w=[("among", "in"), ("not among", "not in")],
        l=["ab", "bc", "ace", "de", "bd"],
    ),
    family(
        "reversePart", 1, "str",
        "Return s with its $w $n characters reversed.",
        """
        n = $n
        return $w
        """,
        mistakes=[("return $w", "return s[::-1]"), ("return $w", "return s[:n] + s[n:]")],
        inputs={"s": letters("abcdefgh", 5, 9)},
        w=[("first", "s[:n][::-1] + s[n:]"), ("last", "s[:-n] + s[-n:][::-1]")],
        n=[2, 3, 4],
    ),
    family(
        "joinWords", 1, "str",
        "Return the words joined by $j, in $o order.",
        """
        return "$j".join(words$o)
        """,
        mistakes=[("words$o", "sorted(words)"), ('"$j"', '""')],
        inputs=WORDS,
        j=[("a comma", ","), ("a dash", "-"), ("a plus", "+"), ("a star", "*")],
        o=[("the same", ""), ("reverse", "[::-1]")],
    ),
    family(
        "wordsByLength", 1, "List[str]",
        "Return the words whose length is $c $n.",
        """
        return [w for w in words if len(w) $c $n]
        """,
        mistakes=[("[w for", "[len(w) for")],
        inputs=WORDS,
        c=COMPARE,
        n=[3, 4],
    ),
    family(
        "clampAll", 1, "List[int]",
        "Return nums with every number below $a replaced by $a and every number above $b replaced by $b.",
        """
        return [min(max(x, $a), $b) for x in nums]
        """,
        mistakes=[("min(max(x, $a), $b)", "max(x, $a)"), ("min(max(x, $a), $b)", "max(min(x, $a), $b)")],
        inputs=NUMS,
        a=[0, 1, 2, 3],
        b=[9, 10, 11, 12],
    ),
    family(
        "sumRemainders", 1, "int",
        "Return the sum of the remainders of nums when divided by $d.",
        """
        return sum(x % $d for x in nums)
        """,
        mistakes=[("x % $d", "x // $d"), ("sum(x % $d for x in nums)", "sum(nums) % $d")],
        inputs={"nums": ints(0, 30)},
        d=[3, 4, 5, 6, 7, 8, 9],
    ),
    family(
        "firstIndex", 1, "int",
        "Return the index of the $w number in nums that is $c k, or -1.",
        """
        return next((i for i in $w if nums[i] $c k), -1)
        """,
        mistakes=[("(i for", "(nums[i] for"), ("-1)", "0)")],
        inputs=NUMS | K,
        w=[("first", "range(len(nums))"), ("last", "reversed(range(len(nums)))")],
        c=COMPARE,
    ),
    family(
        "countWithin", 1, "int",
        "Return how many numbers in nums are between a and b, with $v and $w.",
        """
        return sum(1 for x in nums if a $v x $w b)
        """,
        mistakes=[("sum(1", "sum(x"), ("a $v x $w b", "a $v x")],
        inputs={"nums": ints(0, 12), "a": num(1, 4), "b": num(6, 10)},
        v=[("a included", "<="), ("a excluded", "<")],
        w=[("b included", "<="), ("b excluded", "<")],
    ),
    family(
        "repeatText", 1, "str",
        "Return s repeated $n times with $j between the copies.",
        """
        return "$j".join([s] * $n)
        """,
        mistakes=[('"$j".join([s] * $n)', "s * $n")],
        inputs=S,
        n=[2, 3, 4],
        j=[("a comma", ","), ("a dash", "-"), ("a plus", "+")],
    ),
    family(
        "sortedBy", 1, "List[int]",
        "Return nums sorted by $w, equal ones by value, in $o order.",
        """
        return sorted(nums, key=lambda x: $w)$o
        """,
        mistakes=[("sorted(nums, key=lambda x: $w)", "sorted(nums)"), ("$w", "-x")],
        inputs={"nums": ints(-20, 20)},
        w=[
            ("absolute value", "(abs(x), x)"), ("last digit", "(abs(x) % 10, x)"),
            ("distance to 5", "(abs(x - 5), x)"),
        ],
        o=[("rising", ""), ("falling", "[::-1]")],
    ),
)
# fmt: on
