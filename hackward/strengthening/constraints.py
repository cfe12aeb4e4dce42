"""What a statement says of its inputs, as far as it can be read: bounds, relations, letters, choices.

A line that holds for one of the problem's own inputs not at all was misread, and counts as unread. What is
left unread is named, so that inputs for such a problem are made with more care (invariants.py).
"""

from __future__ import annotations

import ast
import operator
import re
import string
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hackward.strengthening.arguments import Input, Shape
from hackward.strengthening.terms import Scope, Unreadable, joined, names_in, parsed, positions
from hackward.tasks.problems import Linked, Tree

HEADING = re.compile(r"\bconstraints?\s*:", re.IGNORECASE)
FOLLOW_UP = re.compile(r"^(?:follow|note\b|could you|can you|what if|do not|try)", re.IGNORECASE)
LOST_EXPONENT = re.compile(r"(?<![\w.])2([a-zA-Z]\w*)( - 1)?(?![\w\[(])")
BULLET = re.compile(r"^[-*\u2022] ")
ROW = re.compile(r"\b(\w+)(?:\[(\w)\])?\s*={1,2}\s*[\[(]([^\[\]()]+)[\])]")
SIGNS = str.maketrans(
    {
        "\u2264": "<=",
        "\u2265": ">=",
        "\u2260": "!=",
        "\u2212": "-",
        "\u2013": "-",
        "\u00d7": "*",
        "\u2018": "'",
        "\u2019": "'",
        "\u201c": '"',
        "\u201d": '"',
        "\u200b": "",
        "`": "",
    }
)
RELATION = re.compile(r"(<=|>=|==|!=|<|>|=)")
COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "=": operator.eq,
    "!=": operator.ne,
}
FOR_ALL = re.compile(
    r"\s*,?\s*(?:\bfor (?:all|every|each|any|valid|i\b|0|1)|\bwhere\b|\(0-indexed|\bif\b).*$"
)
NODES = re.compile(
    r"number of (?:the )?nodes\b(.*?)\b(?:is|are|will be)(?: in)?(?: the)?(?: range)?(?: of)? (.+)$",
    re.IGNORECASE,
)
IN_RANGE = re.compile(
    r"^(.*?) (?:is|are|will be|must be|is an integer|are integers|will have values)(?: all)? "
    r"(?:in|within|between)(?: the)?(?: inclusive)?(?: range)?(?: of)? ?"
    r"(?:\[(.+?), ?(.+?)\]|(\S+) (?:and|to) (\S+))"
)
CHOICE = re.compile(r"^(.*?) (?:is|are|can be|will be|must be)(?: equal to)?(?: either)?(?: one of)? (.*)$")
VALUE = re.compile(r"'([^']+)'|\"([^\"]+)\"|(?<![\w.'\"])(-?\d+)(?![\w.'\"])")
CONSISTS = re.compile(
    r"^(.*?)(?:,)? (?:will )?(?:only )?"
    r"(?:consists?|contains?|has|have|is made up|made|is composed|are composed|is|are)"
    r"(?: only| up)*(?: of| by| from| in)?(?: only| any)* (.*)$",
    re.IGNORECASE,
)
LETTERS: tuple[tuple[str, str], ...] = (
    (r"lower-?\s?case|'a' to 'z'", string.ascii_lowercase),
    (r"upper-?\s?case", string.ascii_uppercase),
    (r"\bdigits?\b", string.digits),
    (r"\bspaces?\b", " "),
    (r"\bprintable ascii\b|\bany valid ascii\b", string.ascii_letters + string.digits + " .,!?-"),
    (r"\bparenthes[ie]s\b", "()"),
    (r"\bvowels?\b", "aeiou"),
    (r"\bsymbols?\b(?! [\"'])", "!@#$%"),
)
SINGLE_LETTER = re.compile(r"^(?:an? )(?:[\w-]+ )*?(?:letter|digit|character)\b", re.IGNORECASE)
QUOTED = re.compile(r"'([^'])'|\"([^\"])\"")
NOT_LETTERS = re.compile(
    r"\b(?:not|n't|no|exactly|unique|distinct|leading|prime|valid|separated|least|most)\b"
)
ARTICLES = re.compile(r"^(?:(?:the|both|all|each|every|strings?|values?) )+", re.IGNORECASE)
BETWEEN_TERMS = re.compile(r",\s*(?:and\s+)?(?![^(]*\))|\s+(?:and|or)\s+|\s+both$")
SIZE_NAMES = re.compile(r"[a-z]\d?|[nmNM]\d*|rows?|cols?|columns?|[Nn]ode|sz")
MULTIPLE = re.compile(r"^(.*?) (?:is|are) (?:a multiple of (\d+)|a power of (?:2|two))$")
PARITY = re.compile(r"^(.*?) (?:is|are)(?: an?)?(?: positive)? (even|odd)(?: (?:number|integer)s?)?$")


@dataclass(frozen=True)
class Relation:
    """Two terms and the sign between them, which holds at each place."""

    left: ast.expr
    sign: str
    right: ast.expr

    def holds(self, scope: Scope) -> bool:
        """Whether it does. Raises Unreadable."""
        try:
            left, right = scope.evaluate(self.left), scope.evaluate(self.right)
            left, right = positions(left, right), positions(right, left)
            found = joined(left, right, COMPARE[self.sign])
        except TypeError:
            raise Unreadable("values that cannot be compared") from None
        return all(found.values()) if isinstance(found, dict) else bool(found)


@dataclass(frozen=True)
class OneOf:
    """A term whose every value, or every character of its texts, is one of these."""

    term: ast.expr
    values: frozenset[Any]
    inside: bool
    """Whether it speaks of the characters of texts."""

    def holds(self, scope: Scope) -> bool:
        """Whether it does. Raises Unreadable."""
        return all(self._allows(value) for value in innermost(scope.evaluate(self.term)))

    def _allows(self, value: Any) -> bool:
        if self.inside:
            return isinstance(value, str) and self.values.issuperset(value)
        return value in self.values


@dataclass
class Constraints:
    """All that was read of one problem."""

    shapes: Mapping[str, Shape]
    columns: dict[str, tuple[str, int]]
    relations: list[Relation] = field(default_factory=list)
    choices: list[OneOf] = field(default_factory=list)
    sizes: dict[str, ast.expr] = field(default_factory=dict)
    counts: dict[str, ast.expr] = field(default_factory=dict)
    """Parameters that say how many of something there are, and the term that counts them."""
    unread: list[str] = field(default_factory=list)

    def scope(self, values: Input) -> Scope:
        """The names of the statement for an input."""
        return Scope(values, self.columns, self.sizes)

    def allows(self, values: Input) -> bool:
        """Whether an input is within all that was read."""
        scope = self.scope(values)
        rules: list[Relation | OneOf] = [*self.relations, *self.choices]
        return all(holds(rule, scope) for rule in rules)


def holds(rule: Relation | OneOf, scope: Scope) -> bool:
    """Whether a rule holds; what cannot be evaluated does not."""
    try:
        return rule.holds(scope)
    except Unreadable:
        return False


def innermost(value: Any) -> Iterator[Any]:
    """The values inside all lists, nodes and places."""
    match value:
        case dict():
            for item in value.values():
                yield from innermost(item)
        case list():
            for item in value:
                yield from innermost(item)
        case Linked(values=values) | Tree(values=values):
            yield from (item for item in values if item is not None)
        case _:
            yield value


def read_constraints(statement: str, shapes: Mapping[str, Shape], inputs: Sequence[Input]) -> Constraints:
    """What a statement says of its inputs. `inputs` are the problem's own, on which all of it must hold."""
    text = normal(statement)
    found = Constraints(shapes, columns_of(text, shapes))
    lines = constraint_lines(text)
    rules = {line: list(rules_of(line, found)) for line in lines}
    _name_sizes([rule for line in rules.values() for rule in line], found)
    for line, candidates in rules.items():
        kept = [rule for rule in candidates if all(holds(rule, found.scope(values)) for values in inputs)]
        for rule in kept:
            if isinstance(rule, Relation):
                found.relations.append(rule)
            else:
                found.choices.append(rule)
        if not kept or (len(kept) < len(candidates) and not LOST_EXPONENT.search(line)):
            found.unread.append(line)
    _fix_lengths(found, inputs, text)
    for rule in found.relations:
        if rule.sign in ("==", "="):
            for name, term in ((rule.left, rule.right), (rule.right, rule.left)):
                if isinstance(name, ast.Name) and name.id in shapes and "length" in ast.unparse(term):
                    found.counts.setdefault(name.id, term)
    return found


def _fix_lengths(found: Constraints, inputs: Sequence[Input], text: str) -> None:
    """Where nothing is said of a length that is the same in all inputs, it stays that."""
    if len(inputs) < 2:
        return
    counted = {name for term in found.sizes.values() for name in names_in(term)}
    for name, shape in found.shapes.items():
        if shape.kind not in ("list", "str") or name in counted or f"{name}.length" in text:
            continue
        lengths = {len(values[name]) for values in inputs}
        if len(lengths) == 1:
            found.relations.append(Relation(parsed(f"{name}.length"), "==", ast.Constant(lengths.pop())))


def normal(text: str) -> str:
    """The text with signs of one kind written in one way."""
    return unicodedata.normalize("NFKC", text.translate(SIGNS))


def constraint_lines(text: str) -> list[str]:
    """The lines under the last heading of constraints, without follow-up questions."""
    found = list(HEADING.finditer(text))
    if not found:
        return []
    lines = []
    for line in text[found[-1].end() :].splitlines():
        line = BULLET.sub("", " ".join(line.split())).strip(" .;")
        if FOLLOW_UP.match(line):
            break
        if line:
            lines.append(line)
    return lines


def columns_of(text: str, shapes: Mapping[str, Shape]) -> dict[str, tuple[str, int]]:
    """Names of a row's parts: `edges[i] = [ai, bi]` names two."""
    columns: dict[str, tuple[str, int]] = {}
    for holder, index, parts in ROW.findall(text):
        names = [part.strip() for part in parts.split(",")]
        depth = 2 if index else 1
        if holder in shapes and shapes[holder].depth == depth and all(name.isidentifier() for name in names):
            columns |= {name: (holder, at) for at, name in enumerate(names) if name not in shapes}
    return columns


Reader = Callable[[str, Constraints], Iterator[Relation] | Iterator[OneOf] | Iterator[Relation | OneOf]]


def rules_of(line: str, known: Constraints) -> Iterator[Relation | OneOf]:
    """The rules of a line; none where it is not understood."""
    line = FOR_ALL.sub("", line)
    readers: tuple[Reader, ...]
    readers = (_node_counts, _chain, _in_range, _parity, _multiple, _choice, _letters)
    for reader in readers:
        try:
            found: list[Relation | OneOf] = list(reader(line, known))
        except Unreadable:
            continue
        if found:
            yield from found
            return


def _terms(text: str, known: Constraints) -> list[ast.expr]:
    """The terms of a list such as `m, n` or `s and t`.

    Raises Unreadable for a name that stands for nothing.
    """
    parts = BETWEEN_TERMS.split(ARTICLES.sub("", text.strip()))
    nodes = [parsed(part) for part in parts if part]
    for node in nodes:
        for name in names_in(node):
            if name not in known.shapes and name not in known.columns and not SIZE_NAMES.fullmatch(name):
                raise Unreadable(name)
    return nodes


def _chain(line: str, known: Constraints) -> Iterator[Relation]:
    """Relations of a chain such as `1 <= k <= 2n - 1`, which may have been 2^(n - 1): both readings."""
    yield from _relations(line, known)
    raised = LOST_EXPONENT.sub(lambda found: f"2 ** ({found[1]}{found[2] or ''})", line)
    if raised != line:
        yield from _relations(raised, known)


def _relations(line: str, known: Constraints) -> Iterator[Relation]:
    parts = RELATION.split(line)
    if len(parts) < 3:
        return
    terms = [_terms(part, known) for part in parts[::2]]
    for lefts, sign, rights in zip(terms, parts[1::2], terms[1:]):
        for left in lefts:
            for right in rights:
                yield Relation(left, sign, right)


def _node_counts(line: str, known: Constraints) -> Iterator[Relation]:
    found = NODES.search(line)
    if found is None:
        return
    holders = [name for name, shape in known.shapes.items() if shape.innermost.kind in ("tree", "linked")]
    named = [name for name in holders if re.search(rf"\b{name}\b", found[1])]
    range_of = re.fullmatch(r"\[(.+?), ?(.+?)\]", found[2].strip())
    for name in named or holders:
        places = f"{name}[i]" if known.shapes[name].depth else name
        count = parsed(f"{places}.nodes")
        if range_of is not None:
            yield Relation(parsed(range_of[1]), "<=", count)
            yield Relation(count, "<=", parsed(range_of[2]))
        else:
            for term in _terms(found[2], known):
                yield Relation(count, "==", term)


def _in_range(line: str, known: Constraints) -> Iterator[Relation]:
    found = IN_RANGE.search(line)
    if found is None:
        return
    low, high = (found[2], found[3]) if found[2] else (found[4], found[5])
    for term in _terms(found[1], known):
        yield Relation(parsed(low.strip("[],")), "<=", term)
        yield Relation(term, "<=", parsed(high.strip("[],")))


def _multiple(line: str, known: Constraints) -> Iterator[Relation | OneOf]:
    found = MULTIPLE.search(line)
    if found is None:
        return
    for term in _terms(found[1], known):
        if found[2]:
            yield Relation(ast.BinOp(term, ast.Mod(), ast.Constant(int(found[2]))), "==", ast.Constant(0))
        else:
            yield OneOf(term, frozenset(2**power for power in range(20)), False)


def _parity(line: str, known: Constraints) -> Iterator[Relation]:
    found = PARITY.search(line)
    if found is not None:
        for term in _terms(found[1], known):
            rest = ast.BinOp(term, ast.Mod(), ast.Constant(2))
            yield Relation(rest, "==", ast.Constant(int(found[2] == "odd")))


def _choice(line: str, known: Constraints) -> Iterator[OneOf]:
    found = CHOICE.search(line)
    if found is None or not VALUE.search(found[2]):
        return
    words = re.sub(
        r"\b(?:or|either|and|a|an|the|character|integer|value|only|number)\b|[,()]",
        " ",
        VALUE.sub(" ", found[2]),
    )
    if words.split():
        return
    values = [single or double or int(digits) for single, double, digits in VALUE.findall(found[2])]
    for term in _terms(found[1], known):
        yield OneOf(term, frozenset(values), False)


def _letters(line: str, known: Constraints) -> Iterator[OneOf]:
    found = CONSISTS.search(line)
    if found is None or NOT_LETTERS.search(found[2]):
        return
    letters = letters_of(found[2])
    if letters:
        for term in _terms(found[1], known):
            yield OneOf(term, frozenset(letters), not SINGLE_LETTER.search(found[2]))


def letters_of(words: str) -> str:
    """The characters that words such as "lowercase English letters and digits" stand for; "" if unknown."""
    plain, letters = words.lower(), ""
    for pattern, which in LETTERS:
        if re.search(pattern, plain):
            letters += which
    if re.search(r"\bletters?\b", plain) and not re.search(r"lower|upper", plain):
        letters += string.ascii_letters
    for single, double in QUOTED.findall(words):
        letters += single or double
    return letters


def _name_sizes(rules: Sequence[Relation | OneOf], known: Constraints) -> None:
    """Find what names stand for that are no parameters: `n == nums.length` says what n is."""
    changed = True
    while changed:
        changed = False
        for rule in rules:
            if not isinstance(rule, Relation) or rule.sign not in ("==", "="):
                continue
            for name, term in ((rule.left, rule.right), (rule.right, rule.left)):
                if isinstance(name, ast.Name) and _is_free(name.id, known) and _is_known(term, known):
                    known.sizes[name.id] = term
                    changed = True


def _is_free(name: str, known: Constraints) -> bool:
    return name not in known.shapes and name not in known.columns and name not in known.sizes


def _is_known(term: ast.expr, known: Constraints) -> bool:
    names = names_in(term)
    return bool(names) and not any(_is_free(name, known) for name in names)
