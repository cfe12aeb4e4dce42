"""Hard families, the first half: pairs, windows, tables of sub-problems."""

from __future__ import annotations

from hackward.tasks.families import Family, family
from hackward.tasks.inputs import EXTREME, GRID, affixed, ints, num, spans

# A table: the formatter would give every mistake a line of its own.
# fmt: off
HARD_1: tuple[Family, ...] = (
    family(
        "pairsBySum", 3, "int",
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
            ("range(i + 1, len(nums))", "range(i, len(nums))"), ("count += 1", "count += i"),
            ("range(len(nums))", "range(1, len(nums))"),
        ],
        inputs={"nums": ints(0, 9), "k": num(3, 12)},
        o=[("plus", "+"), ("minus", "-"), ("times", "*")],
        c=[("greater than", ">"), ("less than", "<"), ("equal to", "==")],
    ),
    family(
        "longestBounded", 3, "int",
        "All numbers in nums are positive. Return the length of the longest part of nums, with no gaps, "
        "whose sum is $c k.",
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
            ("end - start + 1", "end - start"), ("total -= nums[start]", "total -= x"),
            ("while start <= end and", "if"), ("best = max(best, end - start + 1)", "best = end - start + 1"),
        ],
        inputs={"nums": ints(1, 9, 4, 7), "k": num(8, 20)},
        c=[("at most", "<="), ("less than", "<"), ("below twice", "< 2 *"), ("below half of", "< 0.5 *")],
    ),
    family(
        "bestTrade", 3, "int",
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
            (" - $f)", ")"), ("max(best, p - low - $f)", "p - low - $f"), ("min(low, p)", "p"),
            ("prices[1:]", "prices[2:]"),
        ],
        inputs={"prices": ints(1, 20, 4, 7)},
        w=[("purchase and a sale", "prices"), ("short sale and a purchase", "[-p for p in prices]")],
        f=[1, 2, 3, 4],
    ),
    family(
        "spacedSum", 3, "int",
        "Return the greatest sum of numbers chosen from nums such that chosen indices differ by at least $g.",
        """
        best = [0] * (len(nums) + $g)
        for i, x in enumerate(nums):
            best[i + $g] = max(best[i + $g - 1], best[i] + x)
        return best[-1]
        """,
        mistakes=[
            ("best[i] + x", "best[i + $g - 1] + x"), ("return best[-1]", "return best[-2]"),
            ("max(best[i + $g - 1], best[i] + x)", "best[i] + x"), ("best[i + $g - 1], ", "best[i], "),
        ],
        inputs={"nums": ints(1, 15, 4, 7)},
        g=[2, 3, 4, 5],
    ),
    family(
        "waysToClimb", 3, "int",
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
            ("step <= i", "step < i"), ("ways[i] += ", "ways[i] = "), ("[1] + [0] * n", "[0] + [1] * n"),
            ("ways[i - step]", "ways[i - step] + 1"),
        ],
        inputs={"n": num(5, 16)},
        a=[1, 2],
        b=[3, 4, 5],
    ),
    family(
        "pathExtreme", 3, "int",
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
            ("i >= a and j >= b", "i > a and j > b"), ("grid[m - 1][n - 1]", "grid[m - 1][0]"),
            ("$e(before)", "before[0]"), ("+= $e(before)", "= $e(before)"),
        ],
        inputs=GRID,
        w=[("right or down", "((0, 1), (1, 0))"), ("right, down or diagonally", "((0, 1), (1, 0), (1, 1))")],
        e=EXTREME,
    ),
    family(
        "longestChain", 3, "int",
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
            ("return max(best)", "return best[-1]"), ("max(best[i], best[j] + 1)", "best[i] + 1"),
            ("range(i)", "range(i + 1)"), ("range(i)", "range(1, i)"),
        ],
        inputs={"nums": ints(1, 9, 4, 8)},
        c=[
            ("greater than", ">"), ("less than", "<"), ("at least", ">="),
            ("a multiple of", "% nums[j] == 0 and nums[i] >="),
        ],
    ),
    family(
        "fewestCoins", 3, "int",
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
            ("c <= i", "c < i"), ("fewest[i - c] + 1", "fewest[i - c]"), ("else $z", "else 0"),
            ("fewest[n] if", "fewest[-2] if"),
        ],
        inputs={"n": num(3, 25)},
        c=["2, 5", "3, 7", "3, 4", "4, 7", "1, 6, 8"],
        z=["-1"],
    ),
    family(
        "coveredLength", 3, "int",
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
            ("sorted(spans)", "spans"), ("a = max(a, reach)", "a = max(a, 0)"), ("reach = b", "reach = a"),
            ("total += b - a", "total = b - a"),
        ],
        inputs={"spans": spans()},
        w=[
            ("the line that the spans cover together", "total"),
            (
                "the longest piece that one span adds to those before it, in order of start, then end",
                "longest",
            ),
            ("what the spans leave uncovered between 0 and their last end", "reach - total"),
        ],
    ),
    family(
        "countByDivisors", 3, "int",
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
            ("n + 1", "n"), ("range(1, x + 1)", "range(1, x)"), ("range(1, x + 1)", "range(2, x + 1)"),
            ("count += 1", "count += x"),
        ],
        inputs={"n": num(12, 40)},
        a=[1, 5, 10],
        c=[("exactly", "=="), ("more than", ">"), ("at most", "<=")],
        k=[2, 3, 4],
    ),
    family(
        "recurrence", 3, "int",
        "f(0) = $p, f(1) = $q and f(i) = $a * f(i - 1) + $b * f(i - 2). Return f(n).",
        """
        x, y = $p, $q
        for i in range(n):
            x, y = y, $a * y + $b * x
        return x
        """,
        mistakes=[
            ("range(n)", "range(1, n)"), ("return x", "return y"), ("$a * y + $b * x", "$a * x + $b * y"),
            ("x, y = y, $a * y + $b * x", "x = y\n    y = $a * y + $b * x"),
        ],
        inputs={"n": num(2, 9)},
        p=[0, 1, 2],
        q=[1, 2, 3],
        a=[1, 2, 3],
        b=[1, 2],
    ),
    family(
        "sharedEnd", 3, "str",
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
            ("> 1", "> 2"), ("break", "continue"), ("return out$w", "return out[1:]"),
            ("out += letters[0]", "out = letters[0]"),
        ],
        inputs={"words": affixed()},
        w=[("beginning", ""), ("ending", "[::-1]")],
    ),
)
# fmt: on
