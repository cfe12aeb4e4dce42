"""The arguments of a test as values, their types, and values and tests as source text again.

An input is a dict from a parameter's name to its value: plain values, Linked or Tree. An empty linked list
and an empty tree are None.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hackward.base.syntax import syntax_of
from hackward.tasks.assertions import Unparsable, literal, parse_tests
from hackward.tasks.problems import Linked, Problem, Test, Tree

Input = Mapping[str, Any]
PLAIN = {"int": "int", "float": "float", "str": "str", "bool": "bool"}
NODES = {"TreeNode": "tree", "ListNode": "linked"}
LISTS = ("List", "list", "Sequence", "Iterable")


@dataclass(frozen=True)
class Shape:
    """The type of a value."""

    kind: str
    """int, float, str, bool, list, tree or linked."""
    item: Shape | None = None
    """Of a list: the type of its items."""

    @property
    def depth(self) -> int:
        """How many lists stand around the innermost value."""
        return 1 + self.item.depth if self.item is not None else 0

    @property
    def innermost(self) -> Shape:
        """The type inside all lists."""
        return self.item.innermost if self.item is not None else self


def shapes_of(problem: Problem) -> dict[str, Shape] | None:
    """The type of each parameter, in order; None where one cannot be told."""
    if problem.definition is None:
        return None
    shapes = {argument.arg: _shape(argument.annotation) for argument in problem.arguments}
    return None if None in shapes.values() else shapes  # type: ignore[return-value]


def returned(problem: Problem) -> Shape | None:
    """The type of the answer, where the starter code says one."""
    definition = problem.definition
    return None if definition is None else _shape(definition.returns)


def _shape(annotation: ast.expr | None) -> Shape | None:
    match annotation:
        case ast.Name(id=name) if name in PLAIN:
            return Shape(PLAIN[name])
        case ast.Name(id=name) if name in NODES:
            return Shape(NODES[name])
        case ast.Constant(value=str() as text):
            return _shape(syntax_of(text, "eval").body)
        case ast.Subscript(value=ast.Name(id="Optional"), slice=inner):
            return _shape(inner)
        case ast.Subscript(value=ast.Name(id=name), slice=inner) if name in LISTS:
            item = _shape(inner)
            return None if item is None else Shape("list", item)
    return None


def input_of(arguments: str, names: Sequence[str]) -> dict[str, Any]:
    """The input that a test's argument list states, by the names of the parameters.

    Values under other names are taken in their order. Raises Unparsable if there is not one for each.
    """
    call = syntax_of(f"call{arguments}", "eval").body
    assert isinstance(call, ast.Call)
    values = list(map(literal, call.args))
    named = {keyword.arg: literal(keyword.value) for keyword in call.keywords}
    if len(values) + len(named) != len(names):
        raise Unparsable(f"{len(values) + len(named)} arguments for parameters {', '.join(names)}")
    left = names[len(values) :]
    known = set(named) == set(left)
    return dict(zip(names, [*values, *([named[name] for name in left] if known else named.values())]))


def fits(value: Any, shape: Shape) -> bool:
    """Whether a value is of this type."""
    match shape.kind:
        case "int":
            return type(value) is int
        case "float":
            return type(value) in (int, float)
        case "str":
            return type(value) is str
        case "bool":
            return type(value) is bool
        case "tree":
            return value is None or isinstance(value, Tree)
        case "linked":
            return value is None or isinstance(value, Linked)
    assert shape.item is not None
    return isinstance(value, list) and all(fits(item, shape.item) for item in value)


def source_of(value: Any) -> str:
    """A value as the source text that `literal` reads."""
    match value:
        case Linked(values=values):
            return f"list_node({list(values)!r})"
        case Tree(values=values):
            return f"tree_node({list(values)!r})"
        case list():
            return f"[{', '.join(map(source_of, value))}]"
    return repr(value)


def arguments_of(values: Input) -> str:
    """The argument list of a test with this input."""
    return f"({', '.join(f'{name} = {source_of(value)}' for name, value in values.items())})"


def line_of(test: Test, call: str) -> str:
    """A test as a comparison. `call` is what its argument list is put behind."""
    called = f"{call}{test.arguments}"
    match test.expected:
        case Linked():
            return f"is_same_list({called}, {source_of(test.expected)})"
        case Tree():
            return f"is_same_tree({called}, {source_of(test.expected)})"
    return f"{called} == {source_of(test.expected)}"


def can_be_stated(test: Test) -> bool:
    """Whether a test reads as what it is once it is written."""
    try:
        return parse_tests(line_of(test, "candidate")) == (test,)
    except Unparsable:
        return False
