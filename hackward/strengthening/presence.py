"""Values and how often they stand there: "exactly one '@' in the grid", "each twice, except for one".

Learned like the invariants: a value that stands once in every given input stays the only one of its kind, and
one that stands in every input stays there, if the statement speaks of exactly one, or of at least one. Where
all values but a few stand equally often, as often in every input, it stays so if it says "twice" or the like.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

from hackward.strengthening.arguments import Input, Shape
from hackward.strengthening.invariants import Invariant, Learned, is_spoken_of, kind_of
from hackward.strengthening.properties import Mend

OTHER_THINGS = r"(?!.*\b(?:island|path|component|way|answer|solution|cycle|word|edge|route|order)s?\b)"
ONE = re.compile(OTHER_THINGS + r".*\b(?:exactly one|only one|single|exactly 1)\b")
SOME = re.compile(OTHER_THINGS + r".*\bat least (?:one|1|two|2)\b")
TIMES = re.compile(r"\b(?:twice|thrice|three times|once)\b")
FEW_VALUES = 8  # of all given inputs together: where there are more, none of them is a sign for something


def learn_presence(
    sentences: Sequence[str], shapes: Mapping[str, Shape], inputs: Sequence[Input]
) -> list[Learned]:
    """What is to stand in each input, by parameter and value."""
    found: list[Learned] = []
    if len(inputs) < 2:
        return found
    for name, shape in shapes.items():
        if kind_of(shape) not in ("grid", "list", "text"):
            continue
        counts = [Counter(cells_of(values[name])) for values in inputs]
        if len(set().union(*counts)) > FEW_VALUES:
            continue
        for value in sorted(set.intersection(*(set(count) for count in counts)), key=repr):
            once = all(count[value] == 1 for count in counts)
            for words, holds, mend in rules_of(value, once):
                one = Learned((name,), Invariant(f"holds {value!r}", (), words, holds, mend))
                if kind_of(shape) == "text" and not once:
                    continue
                if is_spoken_of(one, sentences, shapes):
                    found.append(one)
    return found


def learn_repeats(
    sentences: Sequence[str], shapes: Mapping[str, Shape], inputs: Sequence[Input]
) -> list[Learned]:
    """How often values stand in lists, by parameter: so often each, but for so many that stand once."""
    found: list[Learned] = []
    for name, shape in shapes.items():
        if kind_of(shape) != "list":
            continue
        told = {repeats_in(values[name]) for values in inputs}
        often = {times for times, _ in told if times != 0}
        if len(often) != 1 or None in often or len({singles for _, singles in told}) != 1:
            continue
        times, singles = often.pop(), told.pop()[1]
        assert times is not None
        holds, mend = repeating(times, singles)
        one = Learned((name,), Invariant(f"{times} times each but {singles}", (), TIMES, holds, mend))
        if is_spoken_of(one, sentences, shapes):
            found.append(one)
    return found


def repeats_in(items: Sequence[Any]) -> tuple[int | None, int]:
    """How often each value stands there that stands there more than once, and how many stand there once.

    The former is 0 where there are none, and None where they differ.
    """
    counts = Counter(items)
    times = {count for count in counts.values() if count > 1}
    singles = sum(count == 1 for count in counts.values())
    if not times:
        return 0, singles
    return (times.pop() if len(times) == 1 else None), singles


def repeating(times: int, singles: int) -> tuple[Callable[[Any], bool], Mend]:
    """Whether a list is so, and what makes it so."""

    def holds(items: Any) -> bool:
        return repeats_in(items) in ((times, singles), (0, singles))

    def mend(dice: Random, items: Any) -> Any:
        values = dice.sample(sorted(set(items)), len(set(items)))
        made = [*values[:singles], *(value for value in values[singles:] for _ in range(times))]
        return sorted(made) if items == sorted(items) else dice.sample(made, len(made))

    return holds, mend


def rules_of(value: Any, once: bool) -> list[tuple[re.Pattern[str], Callable[[Any], bool], Mend]]:
    """The words of each rule, whether it holds, and how it is mended."""

    def stands(holder: Any) -> bool:
        return value in cells_of(holder)

    def stands_once(holder: Any) -> bool:
        return cells_of(holder).count(value) == 1

    def put(dice: Random, holder: Any) -> Any:
        return with_value(dice, holder, value)

    return [(ONE, stands_once, put)] if once else [(SOME, stands, put)]


def cells_of(holder: Any) -> list[Any]:
    """All values, in order."""
    if isinstance(holder, list) and holder and isinstance(holder[0], (list, str)):
        return [cell for row in holder for cell in row]
    return list(holder)


def with_value(dice: Random, holder: Any, value: Any) -> Any:
    """The same with the value at one place only."""
    cells = cells_of(holder)
    others = [cell for cell in cells if cell != value]
    if not cells or (not others and len(cells) > 1):
        return holder
    place = dice.randrange(len(cells))
    changed = [
        dice.choice(others) if cell == value and at != place else cell for at, cell in enumerate(cells)
    ]
    changed[place] = value
    if isinstance(holder, str):
        return "".join(changed)
    if cells == holder:
        return changed
    rest = iter(changed)
    rows = [[next(rest) for _ in row] for row in holder]
    return ["".join(row) for row in rows] if isinstance(holder[0], str) else rows
