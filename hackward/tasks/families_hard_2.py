"""Hard families, the second half: texts, stacks, circles, grids, orders."""

from __future__ import annotations

from hackward.tasks.families import Family, family
from hackward.tasks.inputs import ORDINALS, STRICT, grid, ints, letters, num

# A table: the formatter would give every mistake a line of its own.
# fmt: off
HARD_2: tuple[Family, ...] = (
    family(
        "palindromes", 3, "int",
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
            ("len(s) + 1", "len(s)"), ("i + $k, ", "i + 1, "), ("s[i:j][::-1]", "s[::-1]"),
            ("found.append(s[i:j])", "found = [s[i:j]]"),
        ],
        inputs={"s": letters("ab", 4, 7)},
        w=[
            ("the number of", "len(found)"), ("the number of different", "len(set(found))"),
            ("the greatest length, or 0, of the", "max(map(len, found), default=0)"),
        ],
        k=[2, 3],
    ),
    family(
        "nextCompared", 3, "List[int]",
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
            ("while stack and", "if stack and"), ("] = x", "] = i"), ("stack.append(i)", "stack = [i]"),
            ("[$z]", "[0]"),
        ],
        inputs={"nums": ints(1, 15, 4, 6)},
        c=STRICT,
        z=[("-1", "-1"), ("-2", "-2")],
    ),
    family(
        "dropGroups", 3, "str",
        "Remove $k equal neighbouring letters from s again and again, as long as there are any, from left "
        "to right. Return what is left.",
        """
        out = ""
        for ch in s:
            out += ch
            if out[-$k:] == ch * $k:
                out = out[:-$k]
        return out
        """,
        mistakes=[
            ("out[:-$k]", "out[:-1]"), ("out[-$k:] == ch * $k", "out[-1] == ch"), ("out += ch", "out = ch"),
            ("out[:-$k]", "out[$k:]"),
        ],
        inputs={"s": letters("ab", 6, 10)},
        k=[2, 3, 4],
    ),
    family(
        "lastStanding", 3, "int",
        "The numbers $b stand in a circle. Every $k one leaves, counting goes on from there. Return the "
        "last one left.",
        """
        circle = list($b)
        at = 0
        while len(circle) > 1:
            at = (at + $k - 1) % len(circle)
            circle.pop(at)
        return circle[0]
        """,
        mistakes=[
            ("at + $k - 1", "at + $k"), ("list($b)", "list(range(n - 1))"), ("> 1", "> 2"),
            ("circle.pop(at)", "circle.pop()"),
        ],
        inputs={"n": num(4, 14)},
        b=[("0 to n - 1", "range(n)"), ("1 to n", "range(1, n + 1)")],
        k=ORDINALS,
    ),
    family(
        "subsetCount", 3, "int",
        "Return how many ways there are to choose any of the numbers in nums, or none, with a sum $c k. "
        "Equal numbers at different places count as different.",
        """
        sums = [0]
        for x in nums:
            sums += [total + x for total in sums]
        return sum(1 for total in sums if total $c k)
        """,
        mistakes=[
            ("sums = [0]", "sums = []"), ("sums += ", "sums = "), ("sum(1 for", "sum(total for"),
            ("total + x for", "x for"),
        ],
        inputs={"nums": ints(1, 9, 3, 5), "k": num(5, 15)},
        c=[("equal to", "=="), ("greater than", ">"), ("less than", "<"), ("at least", ">=")],
    ),
    family(
        "fewLetters", 3, "int",
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
            ("len(s) + 1", "len(s)"), ("best = max(best, j - i)", "best = j - i"), ("j - i)", "j)"),
            ("len(set(s[i:j]))", "len(s[i:j])"),
        ],
        inputs={"s": letters("abcd", 5, 9)},
        w=[("at most", "<="), ("exactly", "=="), ("fewer than", "<")],
        k=[2, 3],
    ),
    family(
        "countInversions", 3, "int",
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
            ("i + $d + 1", "i + $d"), ("range(i + 1, ", "range(i, "), ("count += 1", "count += j - i"),
            ("count += 1", "count = 1"),
        ],
        inputs={"nums": ints(0, 6, 4, 7)},
        d=[2, 3, 4],
        c=[("greater than", ">"), ("less than", "<"), ("equal to", "=="), ("at least", ">=")],
    ),
    family(
        "countIslands", 3, "int",
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
            (", (a, b - 1)]", "]"), ("size += 1", "size = 1"), ("grid[a][b] != $v", "grid[a][b] == 2"),
            ("if size:", "if size > 1:"),
        ],
        inputs={"grid": grid(0, 1)},
        v=["0", "1"],
        w=[
            ("the number of islands", "len(sizes)"),
            ("the size of the largest island, or 0", "max(sizes, default=0)"),
        ],
    ),
    family(
        "zigzag", 3, "str",
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
            ("< $r:", "<= $r - 2:"), ("step = -step", "step = 1"), ('"".join(rows$w)', "rows[0]"),
            ("at, step = 0, 1", "at, step = 1, 1"), ("step = -step", "at = -1"),
        ],
        inputs={"s": letters("abcdefgh", 6, 10)},
        r=[2, 3, 4],
        w=[("", ""), (", the last row first", "[::-1]")],
    ),
    family(
        "foldSorted", 3, "int",
        "Sort nums, $e first. Replace the first two numbers by twice the first plus the second $w $c, sort "
        "again, and go on until one is left. Return it.",
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
    ),
    family(
        "maxPart", 3, "int",
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
            ("i + $k, ", "i + 1, "), ("len(nums) + 1", "len(nums)"), ("sum(nums[i:j])", "sum(nums[i:])"),
            ("best = total", "best = total + 1"),
        ],
        inputs={"nums": ints(-9, 9, 4, 6)},
        e=[("largest", ">"), ("smallest", "<")],
        k=[2, 3],
    ),
)
# fmt: on
