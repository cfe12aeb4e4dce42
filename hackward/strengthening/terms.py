"""Terms of constraints: `nums.length`, `edges[i][0]`, `2 * n - 1`, `10^5`, read and evaluated.

Data sets lose the superscripts of a statement, so that 10^5 stands there as 105 and 2^31 as 231; such numbers
are read as powers. A term's value is a number or text, or, where it holds an index letter, one per place: a
dict from positions to values.
"""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

from hackward.base.syntax import syntax_of
from hackward.tasks.problems import Linked, Tree

Places = dict[tuple[int, ...], Any]
"""A value per place."""

FACTORIAL = re.compile(r"\b(\w+)!(?!=)")
TIMES = re.compile(r"(?<=\d)\s*x\s*(?=10)")
LOST_SQUARE = re.compile(r"[a-z]2")
LOST_POWER = re.compile(r"(10)([3-9]|1[0-8])|(2)(3[012]|6[34])")


def power(base: float, exponent: float) -> float:
    """A power, infinite where it would be huge."""
    return base**exponent if abs(exponent) < 100 else math.inf


def factorial(number: int) -> float:
    """A factorial, infinite where it would be huge."""
    return math.factorial(number) if number < 100 else math.inf


OPERATIONS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: power,
}
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "sum": sum,
    "min": min,
    "max": max,
    "abs": abs,
    "len": len,
    "floor": math.floor,
    "factorial": factorial,
}
INDEX = re.compile(r"[a-z]")


class Position:
    """An index letter that stands by itself, as in `0 <= index[i] <= i`."""


POSITIONS = {"i": Position(), "j": Position()}


class Unreadable(ValueError):
    """A term that is not understood, or that has no value for an input."""


def parsed(text: str) -> ast.expr:
    """The syntax of a term. Raises Unreadable."""
    text = re.sub(r"\|([^|]+)\|", r"abs(\1)", text.strip())
    text = re.sub(r"\b(\d+)\s*(?=[a-zA-Z(])", r"\1 * ", text)
    text = FACTORIAL.sub(r"factorial(\1)", text)
    text = TIMES.sub("*", text).replace("^", "**")
    try:
        return syntax_of(text, "eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise Unreadable(text) from None


def number(value: int) -> int:
    """A number of a statement, with its exponent raised again."""
    lost = LOST_POWER.fullmatch(str(value))
    if lost is None:
        return value
    if lost[1]:
        return 10 ** int(lost[2])
    return 2 ** int(lost[4])


def names_in(node: ast.expr) -> set[str]:
    """The names that a term mentions, index letters and functions left out."""
    found: set[str] = set()
    match node:
        case ast.Name(id=name):
            found.add(name)
        case ast.Subscript(value=value):
            found |= names_in(value)
        case ast.Attribute(value=value):
            found |= names_in(value)
        case ast.Call(args=arguments):
            for argument in arguments:
                found |= names_in(argument)
        case ast.BinOp(left=left, right=right):
            found |= names_in(left) | names_in(right)
        case ast.UnaryOp(operand=operand):
            found |= names_in(operand)
        case ast.Constant():
            pass
        case _:
            raise Unreadable(ast.unparse(node))
    return found


class Scope:
    """What the names of a statement stand for, given an input (perhaps a part of one)."""

    def __init__(
        self,
        values: Mapping[str, Any],
        columns: Mapping[str, tuple[str, int]] | None = None,
        sizes: Mapping[str, ast.expr] | None = None,
    ):
        self.values = values
        self.columns = columns or {}
        """What `[ai, bi]` name: parameter and position in its rows."""
        self.sizes = sizes or {}
        """Names that are no parameters, such as n in `n == nums.length`, and what they stand for."""
        self.row: Mapping[str, Any] = {}
        """Columns of the row that is being made."""

    def evaluate(self, node: ast.expr) -> Any:
        """The value of a term: plain, or a value per place. Raises Unreadable where it has none."""
        try:
            return self._evaluate(node)
        except (KeyError, IndexError, TypeError, ZeroDivisionError, OverflowError, RecursionError):
            raise Unreadable("a term without a value") from None

    def _evaluate(self, node: ast.expr) -> Any:
        match node:
            case ast.Constant(value=int() as value) if not isinstance(value, bool):
                return number(value)
            case ast.Constant(value=value):
                return value
            case ast.Name(id=name):
                return self._name(name)
            case ast.Subscript(value=ast.Subscript(slice=ast.Name(id=outer)), slice=ast.Name(id=inner)) if (
                outer == inner
            ):
                assert isinstance(node, ast.Subscript)
                cells = spread(self._evaluate(node.value))
                return {place: cell for place, cell in cells.items() if place[0] == place[1]}
            case ast.Subscript(value=holder, slice=index):
                return self._subscript(self._evaluate(holder), index)
            case ast.Attribute(value=ast.Name(id="Node" | "node"), attr="val"):
                return self._node_values()
            case ast.Attribute(value=holder, attr=attribute):
                return each(self._evaluate(holder), ATTRIBUTES[attribute])
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return each(self._evaluate(operand), operator.neg)
            case ast.BinOp(left=left, op=op, right=right):
                return joined(self._evaluate(left), self._evaluate(right), OPERATIONS[type(op)])
            case ast.Call(func=ast.Name(id=name), args=arguments):
                return self._call(name, [self._evaluate(argument) for argument in arguments])
        raise Unreadable(ast.unparse(node))

    def _name(self, name: str) -> Any:
        if name in self.row:
            return self.row[name]
        if name in self.values:
            return self.values[name]
        if name in self.columns:
            holder, position = self.columns[name]
            if self.values[holder] and not isinstance(self.values[holder][0], list):
                return self.values[holder][position]
            return {(at,): row[position] for at, row in enumerate(self.values[holder])}
        if name in self.sizes:
            return self.size(name)
        if name in POSITIONS:
            return POSITIONS[name]
        if LOST_SQUARE.fullmatch(name):
            return self._name(name[0]) ** 2
        raise KeyError(name)

    def size(self, name: str) -> Any:
        """What a name like n stands for."""
        return self.size_of(self.sizes[name])

    def size_of(self, term: ast.expr) -> Any:
        """The value of a term; of several equal ones, the first."""
        found = self.evaluate(term)
        if isinstance(found, dict):
            return next(iter(found.values()), 0)
        return found

    def _subscript(self, holder: Any, index: ast.expr) -> Any:
        if all(name in self.values or name in self.sizes for name in names_in(index)):
            return each(holder, operator.itemgetter(int(self._evaluate(index))))
        match index:
            case ast.Name(id=name) if INDEX.fullmatch(name):
                return spread(holder)
            case ast.BinOp(left=ast.Name(id=name), op=op, right=ast.Constant(value=int() as step)) if (
                INDEX.fullmatch(name)
            ):
                step = step if isinstance(op, ast.Add) else -step
                return {(*place[:-1], place[-1] - step): item for place, item in spread(holder).items()}
        raise Unreadable(ast.unparse(index))

    def _node_values(self) -> Places:
        found: Places = {}
        for at, value in enumerate(self.values.values()):
            if isinstance(value, (Linked, Tree)):
                found |= {(at, place): item for place, item in enumerate(value.values) if item is not None}
        return found

    @staticmethod
    def _call(name: str, arguments: list[Any]) -> Any:
        arguments = [list(value.values()) if isinstance(value, dict) else value for value in arguments]
        if name == "abs" and isinstance(arguments[0], list):
            return {(at,): abs(value) for at, value in enumerate(arguments[0])}
        if name not in FUNCTIONS:
            raise Unreadable(name)
        return FUNCTIONS[name](*arguments)


def nodes_in(value: Any) -> int:
    """How many nodes a list or tree has."""
    return 0 if value is None else sum(item is not None for item in value.values)


ATTRIBUTES: dict[str, Callable[[Any], Any]] = {
    "length": len,
    "size": len,
    "val": lambda value: value.values[0],
    "nodes": nodes_in,
}


def positions(value: Any, other: Any) -> Any:
    """The value; for an index letter, the positions of the other value's places."""
    if not isinstance(value, Position):
        return value
    if not isinstance(other, dict):
        raise TypeError(other)
    return {place: place[0] for place in other}


def each(value: Any, function: Callable[[Any], Any]) -> Any:
    """The function of a value, or of the value at each place."""
    if isinstance(value, dict):
        return {place: function(item) for place, item in value.items()}
    return function(value)


def spread(value: Any) -> Places:
    """The items of a list, or of the list at each place."""
    if isinstance(value, dict):
        return {(*place, at): item for place, items in value.items() for at, item in enumerate(items)}
    if isinstance(value, (list, str)):
        return {(at,): item for at, item in enumerate(value)}
    raise TypeError(value)


def joined(left: Any, right: Any, function: Callable[[Any, Any], Any]) -> Any:
    """The function of two values; at each place that both have, where they are given per place."""
    if isinstance(left, dict) and isinstance(right, dict):
        longer, shorter = (
            (left, right) if len(next(iter(left), ())) >= len(next(iter(right), ())) else (right, left)
        )
        width = len(next(iter(shorter), ()))
        places = [place for place in longer if place[:width] in shorter]
        if longer is left:
            return {place: function(left[place], right[place[:width]]) for place in places}
        return {place: function(left[place[:width]], right[place]) for place in places}
    if isinstance(left, dict):
        return {place: function(item, right) for place, item in left.items()}
    if isinstance(right, dict):
        return {place: function(left, item) for place, item in right.items()}
    return function(left, right)
