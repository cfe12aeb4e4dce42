"""What families are filled with: kinds of inputs, and inputs and parameters that several families share."""

from __future__ import annotations

import random

from hackward.tasks.families import Kind

# fmt: off
ANIMALS = (
    "ape", "bee", "cat", "dog", "eagle", "fox", "goat", "hen",
    "ibis", "owl", "ox", "rat", "seal", "toad", "wolf", "yak",
)
# fmt: on


def num(low: int, high: int) -> Kind:
    """A whole number, both bounds included."""
    return Kind("int", lambda rng: rng.randint(low, high))


def ints(low: int = -9, high: int = 20, shortest: int = 3, longest: int = 6) -> Kind:
    """A list; in one of three, the numbers come from the lower half, so that some repeat.

    Many mistakes show only where values repeat.
    """

    def draw(rng: random.Random) -> list[int]:
        length = rng.randint(shortest, longest)
        top = rng.choice((high, high, (low + high) // 2 + 1))
        return [rng.randint(low, top) for _ in range(length)]

    return Kind("List[int]", draw)


def letters(stock: str = "abcde", shortest: int = 3, longest: int = 8) -> Kind:
    """A text of these letters."""

    def draw(rng: random.Random) -> str:
        length = rng.randint(shortest, longest)
        return "".join(rng.choice(stock) for _ in range(length))

    return Kind("str", draw)


def texts() -> Kind:
    """Two to five animals."""
    return Kind("List[str]", lambda rng: [rng.choice(ANIMALS) for _ in range(rng.randint(2, 5))])


def affixed() -> Kind:
    """Two or three words that share a beginning and an ending, both of which may be empty."""

    def draw(rng: random.Random) -> list[str]:
        beginning = rng.choice(["", "ab", "abc", "c"])
        ending = rng.choice(["", "de", "fed", "f"])
        middles = rng.sample(["", "x", "yy", "zxy"], rng.randint(2, 3))
        return [beginning + middle + ending for middle in middles]

    return Kind("List[str]", draw)


def grid(low: int = 0, high: int = 9, square: bool = False) -> Kind:
    """Two or three rows of two or three numbers."""

    def draw(rng: random.Random) -> list[list[int]]:
        rows = rng.randint(2, 3)
        columns = rows if square else rng.randint(2, 3)
        return [[rng.randint(low, high) for _ in range(columns)] for _ in range(rows)]

    return Kind("List[List[int]]", draw)


def spans() -> Kind:
    """Two to four pairs of a start and a later end."""

    def draw(rng: random.Random) -> list[list[int]]:
        drawn = []
        for _ in range(rng.randint(2, 4)):
            start = rng.randint(0, 14)
            drawn.append([start, start + rng.randint(1, 6)])
        return drawn

    return Kind("List[List[int]]", draw)


NUMS = {"nums": ints()}
K = {"k": num(0, 12)}
N = {"n": num(5, 60)}
S = {"s": letters()}
WORDS = {"words": texts()}
GRID = {"grid": grid()}

# Choices of a parameter: (words of the statement, code of the solution).
COMPARE = [("greater than", ">"), ("less than", "<"), ("at least", ">="), ("at most", "<=")]
STRICT = [("greater", ">"), ("smaller", "<")]
EXTREME = [("largest", "max"), ("smallest", "min")]
ORDINALS = [("2nd", "2"), ("3rd", "3"), ("4th", "4"), ("5th", "5")]
PARITY = [("even", "0"), ("odd", "1")]
