"""Tests as data: `call(literals) == literal`, taken from its source without running anything.

A test becomes the *source of its arguments*, which graded code will see, and the *expected value*, which it
never will.
"""

from __future__ import annotations

import ast
from collections import deque
from collections.abc import Sequence
from typing import Any

from hackward.base.syntax import syntax_of
from hackward.tasks.problems import Call, Linked, Test, Tree


class Unparsable(ValueError):
    """A test is not of the form call(literals) == literal."""


def parse_tests(source: str) -> tuple[Test, ...]:
    """All tests of a source: assert lines, bare expressions, or one `def check(candidate)` full of asserts.

    Raises Unparsable if one of them has another form, or if there is none.
    """
    try:
        body = syntax_of(source).body
        if len(body) == 1 and isinstance(body[0], ast.FunctionDef):
            body = body[0].body
        lines = source.encode().split(b"\n")
        tests = tuple(_parse_statement(statement, lines) for statement in body)
    except Unparsable:
        raise
    except (SyntaxError, RecursionError, MemoryError, ValueError, TypeError) as fault:
        raise Unparsable(str(fault)) from None
    if not tests:
        raise Unparsable("no tests")
    return tests


def _parse_statement(statement: ast.stmt, lines: list[bytes]) -> Test:
    match statement:
        case ast.Assert(test=test) | ast.Expr(value=test):
            return _parse_test(test, lines)
    raise Unparsable(f"a {type(statement).__name__} among the tests")


def _parse_test(test: ast.expr, lines: list[bytes]) -> Test:
    """`call == literal`, or `is_same_list(call, literal)`, `is_same_tree(...)` for linked lists and trees."""
    match test:
        case ast.Compare(left=call, ops=[ast.Eq()], comparators=[right]):
            expected = literal(right)
            if _holds_node(expected):
                raise Unparsable("nodes compared with == are never equal")
        case ast.Call(func=ast.Name(id="is_same_list"), args=[call, right], keywords=[]):
            expected = literal(right)
            if expected is not None and not isinstance(expected, Linked):
                raise Unparsable("is_same_list of another kind of value")
        case ast.Call(func=ast.Name(id="is_same_tree"), args=[call, right], keywords=[]):
            expected = literal(right)
            if expected is not None and not isinstance(expected, Tree):
                raise Unparsable("is_same_tree of another kind of value")
        case _:
            raise Unparsable(f"not a comparison: {ast.unparse(test)[:60]!r}")
    return Test(_arguments(call, lines), expected, _passed(call))


def _arguments(call: ast.expr, lines: list[bytes]) -> str:
    """Source of the argument list of the tested call; every argument must itself be a literal.

    `lines` is the source in UTF-8, because the syntax tree counts columns in bytes.
    """
    if not isinstance(call, ast.Call) or _makes_node(call):
        raise Unparsable("no call of the solution")
    for argument in call.args:
        literal(argument)
    for keyword in call.keywords:
        literal(keyword.value)
    first, start = _end(call.func)
    last, end = _end(call)
    if first == last:
        return lines[first][start:end].decode()
    parts = [lines[first][start:], *lines[first + 1 : last], lines[last][:end]]
    return b"\n".join(parts).decode()


def _passed(call: ast.expr) -> Call | None:
    """How the call passes its arguments; None where a `**` leaves the names open."""
    assert isinstance(call, ast.Call)
    names = tuple(keyword.arg for keyword in call.keywords if keyword.arg is not None)
    return (len(call.args), names) if len(names) == len(call.keywords) else None


def _makes_node(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Name) and call.func.id in ("list_node", "tree_node")


def _end(node: ast.expr) -> tuple[int, int]:
    """Where a parsed expression ends: the line, counted from 0, and the column in bytes."""
    assert node.end_lineno is not None
    assert node.end_col_offset is not None
    return node.end_lineno - 1, node.end_col_offset


def literal(node: ast.expr) -> Any:
    """The value of a literal expression, computed by walking it.

    Raises Unparsable for anything that would run code.
    """
    match node:
        case ast.Constant(value=value) if value is None or isinstance(value, (bool, int, float, str)):
            return value
        case ast.List(elts=items):
            return [literal(item) for item in items]
        case ast.Tuple(elts=items):
            return tuple(literal(item) for item in items)
        case ast.Set(elts=items):
            return {literal(item) for item in items}
        case ast.Dict(keys=keys, values=values):
            return _dict(keys, values)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_number(operand)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return +_number(operand)
        case ast.Name(id="inf"):
            return float("inf")
        case ast.Call(func=ast.Name(id=name), args=[], keywords=[]):
            return _made(name)
        case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]):
            return _made(name, literal(argument))
    raise Unparsable(f"not a literal: {ast.unparse(node)[:60]!r}")


def _number(node: ast.expr) -> int | float:
    value = literal(node)
    if not isinstance(value, (int, float)):
        raise Unparsable(f"not a number: {ast.unparse(node)[:60]!r}")
    return value


def _dict(keys: Sequence[ast.expr | None], values: Sequence[ast.expr]) -> dict:
    found = {}
    for key, value in zip(keys, values, strict=True):
        if key is None:
            raise Unparsable("** in a literal")
        found[literal(key)] = literal(value)
    return found


def _made(name: str, *arguments: Any) -> Any:
    """The few calls that the data sets write inside a value: float('inf'), set(...), list_node, tree_node."""
    match name, arguments:
        case "float", (str() | int() | float() as text,):
            return float(text)
        case "set", ():
            return set()
        case "set", (list() | tuple() | set() as items,):
            return set(items)
        case "list_node", (list() as values,):
            return Linked(tuple(values)) if values else None
        case "tree_node", (list() as values,):
            return Tree(level_order(values)) if values else None
    raise Unparsable(f"call of {name!r} in a value")


def level_order(values: list) -> tuple:
    """Canonical level order of the tree that LeetCode writes as `values`.

    There the children of a missing node are absent; here a missing child is None, and the Nones at the end
    are cut off.
    """
    if not values:
        return ()
    root: list = [values[0], None, None]  # value, left, right
    waiting, position = deque([root]), 1
    while waiting:
        node = waiting.popleft()
        for side in (1, 2):
            if position < len(values) and values[position] is not None:
                node[side] = [values[position], None, None]
                waiting.append(node[side])
            position += 1
    order, waiting = [], deque([root])
    while waiting:
        node = waiting.popleft()
        order.append(None if node is None else node[0])
        if node is not None:
            waiting.extend(node[1:])
    while order and order[-1] is None:
        order.pop()
    return tuple(order)


def _holds_node(value: Any) -> bool:
    if isinstance(value, (Linked, Tree)):
        return True
    if isinstance(value, dict):
        return any(map(_holds_node, value.values()))
    if isinstance(value, (list, tuple)):
        return any(map(_holds_node, value))
    return False
