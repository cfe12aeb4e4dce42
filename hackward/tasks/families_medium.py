"""Medium families: one loop, or two steps."""

from __future__ import annotations

from hackward.tasks.families import Family, family
from hackward.tasks.inputs import COMPARE, EXTREME, GRID, NUMS, ORDINALS, PARITY, N, grid, ints, letters, num

# A table: the formatter would give every mistake a line of its own.
# fmt: off
MEDIUM: tuple[Family, ...] = (
    family(
        "countSteps", 2, "int",
        "Return how many numbers in nums are $c than the one before them by $w $d.",
        """
        count = 0
        for i in range(1, len(nums)):
            if $c $w $d:
                count += 1
        return count
        """,
        mistakes=[
            ("range(1, len(nums))", "range(2, len(nums))"), ("count = 0", "count = 1"),
            ("count += 1", "count += nums[i]"),
        ],
        inputs={"nums": ints(0, 9, 4, 7)},
        c=[("greater", "nums[i] - nums[i - 1]"), ("smaller", "nums[i - 1] - nums[i]")],
        w=[("at least", ">="), ("more than", ">"), ("exactly", "==")],
        d=[1, 2, 3],
    ),
    family(
        "longestRun", 2, "int",
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
    ),
    family(
        "gapExtreme", 2, "int",
        "Return the $e $w of two neighbours in nums.",
        """
        best = None
        for a, b in zip(nums, nums[1:]):
            value = $w
            best = value if best is None else $e(best, value)
        return best
        """,
        mistakes=[
            ("zip(nums, nums[1:])", "zip(nums, nums[2:])"), ("value = $w", "value = b - a"),
            ("return best", "return value"),
        ],
        inputs=NUMS,
        e=EXTREME,
        w=[("absolute difference", "abs(a - b)"), ("sum", "a + b"), ("product", "a * b")],
    ),
    family(
        "everyOther", 2, "int",
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
    ),
    family(
        "digitWork", 2, "int",
        "Return the $w of the $p decimal digits of n, or $z if there are none.",
        """
        digits = [int(ch) for ch in str(n) if int(ch) % 2 == $p]
        return $w(digits) if digits else $z
        """,
        mistakes=[
            ("int(ch) % 2 == $p", "int(ch) > $p"), ("if digits else $z", "if digits else 1"),
            ("str(n)", "str(n)[1:]"),
        ],
        inputs={"n": num(100, 99999)},
        w=[("sum", "sum"), ("largest", "max"), ("smallest", "min"), ("number", "len")],
        p=PARITY,
        z=[("0", "0"), ("-1", "-1")],
    ),
    family(
        "dropRepeats", 2, "List[int]",
        "Return the $p numbers of nums with only the $w occurrence of every value kept, in order.",
        """
        kept = []
        for x in nums$w:
            if x not in kept and x % 2 == $p:
                kept.append(x)
        return kept$w
        """,
        mistakes=[
            ("return kept$w", "return sorted(kept)"), ("x not in kept", "x in kept"),
            ("kept.append(x)", "kept = [x]"),
        ],
        inputs={"nums": ints(0, 5, 5, 8)},
        p=PARITY,
        w=[("first", ""), ("last", "[::-1]")],
    ),
    family(
        "rotateBy", 2, "List[int]",
        "Return nums rotated to the $w by $n places.",
        """
        shift = $n % len(nums)
        return $w
        """,
        mistakes=[
            ("$n % len(nums)", "$n"), ("return $w", "return nums[shift:]"),
            ("return $w", "return nums[::-1]"),
        ],
        inputs={"nums": ints(0, 20, 2, 6)},
        w=[
            ("left", "nums[shift:] + nums[:shift]"),
            ("right", "nums[-shift:] + nums[:-shift] if shift else nums"),
        ],
        n=[2, 3, 4, 5],
    ),
    family(
        "shiftLetters", 2, "str",
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
    ),
    family(
        "upperEvery", 2, "str",
        "Return s with every $k character in upper case, starting at index $b.",
        """
        out = list(s)
        for i in range($b, len(s), $k):
            out[i] = out[i].upper()
        return "".join(out)
        """,
        mistakes=[
            ("range($b, len(s), $k)", "range(0, len(s), $k)"), ("range($b, len(s), $k)", "range($b, len(s))"),
            ("range($b, len(s), $k)", "range($k, len(s), $b + 1)"),
        ],
        inputs={"s": letters("abcdefgh", 5, 9)},
        k=ORDINALS[:3],
        b=[0, 1, 2],
    ),
    family(
        "runningValues", 2, "List[int]",
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
            ("total + $c", "total"), ("if i > 0", "if i > 1"), ("total = nums[0]", "total = 0"),
            ("append(total", "append(x"),
        ],
        inputs=NUMS,
        w=[("sum", "total + x"), ("largest", "max(total, x)"), ("smallest", "min(total, x)")],
        c=[1, 2, 3],
    ),
    family(
        "windowBest", 2, "int",
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
    ),
    family(
        "splitParity", 2, "List[int]",
        "Return nums with the $p numbers first, both parts in $o order.",
        """
        first = [x for x in nums if x % 2 == $p]
        rest = [x for x in nums if x % 2 != $p]
        return first$o + rest$o
        """,
        mistakes=[
            ("first$o + rest$o", "rest$o + first$o"), ("rest$o", "rest[1:]"),
            ("first$o + rest$o", "sorted(nums)"),
        ],
        inputs=NUMS,
        p=PARITY,
        o=[("the same", ""), ("reverse", "[::-1]")],
    ),
    family(
        "mergeTurns", 2, "List[int]",
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
    ),
    family(
        "sumExtremes", 2, "int",
        "Return the sum of the $n $e distinct numbers in nums.",
        """
        values = sorted(set(nums))$e
        return sum(values[:$n])
        """,
        mistakes=[
            ("set(nums)", "nums"), ("values[:$n]", "values[$n:]"), ("sum(values[:$n])", "values[$n - 1]"),
        ],
        inputs={"nums": ints(0, 9, 5, 8)},
        n=[2, 3],
        e=[("largest", "[::-1]"), ("smallest", "")],
    ),
    family(
        "stepsToZero", 2, "int",
        "Return how many steps bring n to zero or below: divide n by $d when that leaves no remainder, else "
        "subtract $c.",
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
    ),
    family(
        "commonLetter", 2, "str",
        "Return the $w frequent letter of s, the $e in the alphabet if there are several.",
        """
        best = s[0]
        for ch in sorted(set(s))$e:
            if s.count(ch) $w s.count(best) or s.count(ch) == s.count(best):
                best = ch
        return best
        """,
        mistakes=[
            (" or s.count(ch) == s.count(best)", ""), ("best = ch", "best = s[-1]"),
            ("sorted(set(s))$e", "s"),
        ],
        inputs={"s": letters("abc", 4, 8)},
        w=[("most", ">"), ("least", "<")],
        e=[("first", "[::-1]"), ("last", "")],
    ),
    family(
        "bracketDepth", 2, "int",
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
            ("else -1", "else 0"), ("low = min(low, depth)", "low = min(low, high)"),
            ("high = max(high, depth)", "high = depth"), ("return $w", 'return s.count("(")'),
        ],
        inputs={"s": letters("()", 4, 9)},
        w=[
            ("the greatest depth reached", "high"),
            ("how many brackets must be put in front to keep the depth above -1", "-low"),
            ("the depth at the end", "depth"),
            ("the greatest depth minus the depth at the end", "high - depth"),
        ],
    ),
    family(
        "packRuns", 2, "str",
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
            ("out += $w", "out += s[i]"), ("i = j", "i += 1"), ("j = i\n", "j = i + 1\n"),
            ("out += $w", "out += str(j - i)"),
        ],
        inputs={"s": letters("ab", 4, 8)},
        w=[
            ("the letter and the length of the run", "s[i] + str(j - i)"),
            ("the length of the run and the letter", "str(j - i) + s[i]"),
            ("one letter, or two if the run is longer than two", "s[i] * (2 if j - i > 2 else 1)"),
        ],
    ),
    family(
        "indexSum", 2, "int",
        "Return the sum of the positions, counted from $b, of the numbers in nums that are $c $n.",
        """
        total = 0
        for i, x in enumerate(nums, $b):
            if x $c $n:
                total += i
        return total
        """,
        mistakes=[
            ("total += i", "total += x"), ("total += i", "total += 1"), (", $b)", ")"),
            ("total = 0", "total = 1"),
        ],
        inputs=NUMS,
        b=[1, 2, 3],
        c=COMPARE,
        n=[5, 6, 7, 8],
    ),
    family(
        "sumOfMultiples", 2, "int",
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
    ),
    family(
        "baseDigits", 2, "str",
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
    ),
    family(
        "rowExtremes", 2, "int",
        "Return the $o of the $i numbers of all rows of grid.",
        """
        return $o([$i(row) for row in grid])
        """,
        mistakes=[
            ("for row in grid]", "for row in grid[1:]]"), ("for row in grid]", "for row in zip(*grid)]"),
            ("$i(row)", "row[0]"),
        ],
        inputs=GRID,
        o=[("sum", "sum"), ("largest", "max"), ("smallest", "min")],
        i=EXTREME,
    ),
    family(
        "diagonalSum", 2, "int",
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
            ("range(len(grid))", "range(len(grid) - 1)"), ("range(len(grid[0]))", "range(len(grid))"),
            ("+= grid[i][j]", "+= grid[j][i]"), ("total = $c", "total = 0"),
        ],
        inputs={"grid": grid(square=True)},
        w=[
            ("on the main diagonal", "i == j"), ("above the main diagonal", "i < j"),
            ("below the main diagonal", "i > j"), ("on the other diagonal", "i + j == len(grid) - 1"),
        ],
        c=[1, 2, 3],
    ),
    family(
        "turnGrid", 2, "List[List[int]]",
        "Return grid $w.",
        """
        rows = [list(row) for row in grid]
        return $w
        """,
        mistakes=[
            ("return $w", "return rows"), ("return $w", "return [sorted(row) for row in rows]"),
            ("list(row) for row in grid]", "list(row) for row in grid][1:]"),
        ],
        inputs=GRID,
        w=[
            ("with rows and columns swapped", "[list(row) for row in zip(*rows)]"),
            ("turned clockwise", "[list(row) for row in zip(*rows[::-1])]"),
            ("turned counterclockwise", "[list(row) for row in zip(*rows)][::-1]"),
            ("mirrored left to right", "[row[::-1] for row in rows]"),
        ],
    ),
)
# fmt: on
