"""What holds for all of a problem's own inputs and its statement speaks of: sorted, distinct, a tree, ...

A statement says such things in more ways than can be read. So each is looked for in the given inputs, and
kept if it holds in all of them and a word of it stands in the statement (or if the statement has a line that
was not read). An invariant that can be mended is: a list is sorted, say.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from random import Random
from typing import Any

from hackward.strengthening import grids
from hackward.strengthening import properties as has
from hackward.strengthening.arguments import Input, Shape
from hackward.strengthening.constraints import normal
from hackward.strengthening.properties import Mend


@dataclass(frozen=True)
class Invariant:
    """What may hold for the values of a parameter."""

    name: str
    kinds: tuple[str, ...]
    """Of which types (see `kind_of`)."""
    words: re.Pattern[str]
    """One of them stands in a statement that says so; an empty pattern is always kept."""
    holds: Callable[[Any], bool]
    mend: Mend | None = None
    shown: Callable[[Any], bool] = has.has_two
    """Whether a value shows more than the trivial case of it."""


@dataclass(frozen=True)
class Learned:
    """An invariant of one parameter (`inside`: of each list in it), or of two together."""

    names: tuple[str, ...]
    invariant: Invariant
    inside: bool = False

    def holds(self, values: Input) -> bool:
        """Whether an input has it."""
        if len(self.names) == 2:
            return self.invariant.holds((values[self.names[0]], values[self.names[1]]))
        value = values[self.names[0]]
        return all(map(self.invariant.holds, value)) if self.inside else self.invariant.holds(value)

    def mended(self, dice: Random, values: dict[str, Any]) -> dict[str, Any]:
        """The input, changed so that it may have it."""
        if self.invariant.mend is None or safely(self, values):
            return values
        try:
            return self._mended(dice, values, self.invariant.mend)
        except (TypeError, IndexError, ValueError, AttributeError, KeyError):
            return values

    def _mended(self, dice: Random, values: dict[str, Any], mend: Mend) -> dict[str, Any]:
        if len(self.names) == 2:
            changed = mend(dice, (values[self.names[0]], values[self.names[1]]))
            return values | dict(zip(self.names, changed))
        value = values[self.names[0]]
        if self.inside:
            return values | {self.names[0]: [mend(dice, item) for item in value]}
        return values | {self.names[0]: mend(dice, value)}


def kind_of(shape: Shape) -> str:
    """scalar, text, list, texts, grid, tree, linked, or other."""
    match shape.depth, shape.innermost.kind:
        case 0, "tree" | "linked" as kind:
            return kind
        case 0, "str":
            return "text"
        case 0, _:
            return "scalar"
        case 1, "str":
            return "texts"
        case 1, "int" | "float" | "bool":
            return "list"
        case 2, "int" | "float" | "str":
            return "grid"
    return "other"


def learn(
    statement: str, shapes: Mapping[str, Shape], inputs: Sequence[Input], *, careful: bool
) -> list[Learned]:
    """The invariants of a problem. `careful`: also those that its statement has no word of."""
    sentences = sentences_of(statement)
    found = []
    for invariant in SINGLE:
        for name, shape in shapes.items():
            if invariant.name in GRAPH and NO_GRAPH.search(name):
                continue
            if kind_of(shape) in invariant.kinds:
                found.append(Learned((name,), invariant))
            if shape.item is not None and kind_of(shape.item) in invariant.kinds:
                found.append(Learned((name,), invariant, inside=True))
    for invariant in DOUBLE:
        for first, second in permutations(shapes, 2):
            if f"{kind_of(shapes[first])}_{kind_of(shapes[second])}" in invariant.kinds:
                found.append(Learned((first, second), invariant))
    kept = [one for one in found if careful or is_spoken_of(one, sentences, shapes)]
    return [one for one in kept if all(safely(one, values) for values in inputs) and _is_shown(one, inputs)]


EXAMPLES = re.compile(r"\bexample\s*\d*\s*:.*?(?=\bconstraints?\s*:|\Z)", re.IGNORECASE | re.DOTALL)
FOLLOW_UP = re.compile(r"\bfollow[ -]?up\b.*", re.IGNORECASE | re.DOTALL)
OF_THE_ANSWER = re.compile(r"^(?:please )?(?:return|find|print|output|your task|determine)\b")


def sentences_of(statement: str) -> list[str]:
    """The sentences and lines that speak of the input, in lower case."""
    text = FOLLOW_UP.sub("", EXAMPLES.sub("", normal(statement))).lower()
    sentences = [" ".join(sentence.split()) for sentence in re.split(r"(?<=[.!?])\s+|\n+", text)]
    return [sentence for sentence in sentences if sentence and not OF_THE_ANSWER.match(sentence)]


def is_spoken_of(one: Learned, sentences: Sequence[str], shapes: Mapping[str, Shape]) -> bool:
    """Whether a sentence has a word of it, and names this parameter or none."""
    words = one.invariant.words
    if not words.pattern:
        return True
    for sentence in sentences:
        if words.search(sentence):
            named = {name for name in shapes if re.search(rf"\b{re.escape(name.lower())}\b", sentence)}
            if not named or named & set(one.names):
                return True
    return False


def is_word_of(one: Learned, line: str) -> bool:
    """Whether a line of the constraints may be what says an invariant."""
    words = one.invariant.words
    return bool(words.pattern and words.search(line.lower()))


def safely(one: Learned, values: Input) -> bool:
    """Whether it holds; a value that it cannot be asked of has it not."""
    try:
        return one.holds(values)
    except (TypeError, IndexError, ValueError, AttributeError, KeyError):
        return False


def _is_shown(one: Learned, inputs: Sequence[Input]) -> bool:
    """Whether an input shows more than the trivial case of it."""
    if len(one.names) == 2:
        return True
    values = [values[one.names[0]] for values in inputs]
    items = [item for value in values for item in value] if one.inside else values
    return any(map(one.invariant.shown, items))


def _single(
    name: str,
    kinds: str,
    words: str,
    holds: Callable[[Any], bool],
    mend: Mend | None = None,
    shown: Callable[[Any], bool] = has.has_two,
) -> Invariant:
    return Invariant(name, tuple(kinds.split()), re.compile(words), holds, mend, shown)


UNIQUE = r"unique|distinct|duplicate|different|repeated|pairwise|more than once|no two|same position"
PERMUTED = UNIQUE + r"|permutation|labeled|numbered|\brange\b|\bonce\b"
SORTED = r"sorted|ascending|increasing|non-decreasing|chronological|in order\b"
SINGLE = (
    _single("single-spaced", "text texts", r"spaces?\b|sentence", has.single_spaced),
    _single("a number", "text", r"leading zero|leading 0|integer", has.is_number_text, has.number_text),
    _single(
        "balanced",
        "text",
        r"balanced|well-?formed|parenthes|bracket",
        has.is_balanced,
        shown=has.has_brackets,
    ),
    _single("distinct", "text list texts grid", UNIQUE, has.distinct, has.without_repeats),
    _single(
        "texts of one length",
        "texts",
        r"same length|lengths? are equal|equal lengths?|same number of characters|\.length are equal",
        has.of_one_length,
        has.cut_to_one_length,
    ),
    _single("anagrams", "texts", r"anagrams of each other", has.are_anagrams, has.made_anagrams),
    _single("ascending", "list texts", SORTED, has.ascending, has.sorted_items),
    _single(
        "descending", "list", r"descending|decreasing|non-increasing|sorted", has.descending, has.sorted_down
    ),
    _single("permutation from 0", "list", PERMUTED, has.is_permutation(0), has.shuffled_from(0)),
    _single("permutation from 1", "list", PERMUTED, has.is_permutation(1), has.shuffled_from(1)),
    _single(
        "even length",
        "list text",
        r"\beven\b|2 ?\* ?n|\b2n\b|\bpairs?\b|\bhalf\b|halves",
        has.has_even_length,
        has.made_even,
    ),
    _single("rotated", "list", r"rotat", has.is_rotated, has.rotated),
    _single("mountain", "list", r"mountain|bitonic", has.is_mountain, has.mountain),
    _single("parents", "list", r"\btree\b|parent", has.is_parents, has.parents),
    _single("rectangular", "grid", r"", grids.is_rectangular, grids.rectangular),
    _single("square", "grid", r"n x n|n \* n|square", grids.is_square, grids.square),
    _single("symmetric", "grid", r"\]\[i\]|symmetric|undirected", grids.is_symmetric, grids.symmetric),
    _single(
        "descending columns",
        "grid",
        r"descending|decreasing|non-increasing",
        grids.columns_descend,
        grids.columns_sorted_down,
    ),
    _single("ascending columns", "grid", SORTED, grids.columns_ascend, grids.columns_sorted),
    _single("ascending rows", "grid", SORTED, has.ascending, has.sorted_items),
    _single(
        "ascending throughout",
        "grid",
        SORTED + r"|last integer of the previous",
        grids.cells_ascend,
        grids.with_sorted_cells,
    ),
    *(
        _single(
            f"distinct column {at}", "grid", UNIQUE, grids.distinct_column(at), grids.without_repeats_in(at)
        )
        for at in range(3)
    ),
    *(
        _single(f"ascending column {at}", "grid", SORTED, grids.ascending_column(at), grids.sorted_by(at))
        for at in range(3)
    ),
    _single("all cells distinct", "grid", UNIQUE, grids.cells_distinct, grids.with_distinct_cells),
    _single("no loops", "grid", r"\bself\b|\bloops?\b", grids.without_loops, grids.no_loops),
    _single(
        "single edges",
        "grid",
        UNIQUE + r"|multiple edges|parallel|at most one (?:edge|road)",
        grids.has_single_edges,
        grids.single_edges,
    ),
    _single(
        "tree",
        "grid",
        r"\btree\b|acyclic|star|exactly one path|n - 1 (?:edges|roads)",
        grids.is_tree,
        grids.tree,
    ),
    _single("connected", "grid", r"connected|reach", grids.is_connected, grids.connected),
    _single(
        "acyclic",
        "grid",
        r"acyclic|\bdag\b|cycl|circular|prerequisite|ancestor|stronger",
        grids.is_acyclic,
        grids.acyclic,
    ),
    _single("neighbours", "grid other", r"undirected|graph", grids.names_neighbours, grids.neighbours),
    _single("leads on", "grid other", r"acyclic|\bdag\b", grids.leads_on, grids.leading_on),
    _single("apart", "grid", r"overlap|disjoint|non-intersecting", grids.apart, grids.set_apart),
    _single("search tree", "tree", r"search tree|\bbst\b", has.is_search_tree, has.search_tree),
    _single("complete", "tree", r"complete", has.is_complete, has.complete),
    _single(
        "full",
        "tree",
        r"\bfull\b|(?:two|2) or (?:zero|0|no)|(?:zero|0|no) or (?:two|2)|exactly (?:two|2)",
        has.is_full,
    ),
    _single("distinct values", "tree linked", UNIQUE, has.nodes_distinct, has.make_distinct),
    _single(
        "a leading digit",
        "linked list",
        r"leading (?:zero|0)",
        has.starts_above_zero,
        has.with_first_digit,
    ),
    _single("a last digit", "linked", r"leading (?:zero|0)", has.ends_above_zero, has.with_last_digit),
    _single("values in order", "linked", SORTED, has.nodes_ascend, has.nodes_sorted),
)
NO_GRAPH = re.compile(r"grid|mat|board|image|img|maze|land|rooms|score|board|connected", re.IGNORECASE)
GRAPH = ("no loops", "single edges", "tree", "connected", "acyclic")
DOUBLE = (
    _single("not after", "text_text", r"earlier than|later than|before or", has.is_not_after, has.swapped),
    _single(
        "same length",
        "list_list list_texts texts_list texts_texts list_grid grid_list texts_grid grid_texts",
        r"",
        has.same_length,
        has.cut_to_length,
    ),
    _single(
        "same items",
        "list_list text_text",
        r"permutation|anagram|rearrang|same (?:letters|characters)",
        has.same_items,
        has.rearranged,
    ),
    _single(
        "member",
        "scalar_list text_texts scalar_tree text_text scalar_linked",
        r"exist|guarantee|\bin the\b|occurs?|appears?|belongs?|\bfrom the (?:array|list)|node|\bin \w+\b",
        has.has_member,
        has.made_member,
    ),
    _single(
        "part",
        "list_list texts_texts",
        r"subset|exist|guarantee|appears?|\bin \w+\b|from the",
        has.is_part,
        has.made_part,
    ),
    _single(
        "nothing shared",
        "list_list texts_texts",
        r"disjoint|not (?:be )?in\b|no common|distinct|unique",
        has.share_nothing,
        has.made_apart,
    ),
)
