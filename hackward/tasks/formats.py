"""Reading problems and parsing their tests.

Three formats are recognised by their fields: LeetCodeDataset (``query``/``test``/``meta`` or its flat successor), the
reward-hacking benchmark (``gt_answer``/``func_name``), and our own (``statement``/``tests``). Every test is parsed
once, without running anything, into the *source of its arguments* (which the graded code will see) and the *expected
value* (which it never will). A problem with one test that does not parse is left out and named, because a test that is
silently dropped is a wrong answer credited later.
"""

from __future__ import annotations

import ast
import warnings
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hackward.base.faults import InputError
from hackward.base.files import read_jsonl
from hackward.tasks.problems import DIFFICULTIES, Linked, Problem, Test, Tree


class Unparsable(ValueError):
    """A test is not of the form call(literals) == literal."""


def level_order(values: list) -> tuple:
    """Canonical level order of the tree that LeetCode writes as ``values`` (children of a missing node are absent)."""
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


def _call_value(node: ast.Call) -> Any:
    """The few calls that the data sets write inside a value: float('inf'), set(...), list_node and tree_node."""
    if not isinstance(node.func, ast.Name) or node.keywords or len(node.args) > 1:
        raise Unparsable(f"call of {ast.unparse(node.func)!r} in a value")
    name, arguments = node.func.id, [literal(item) for item in node.args]
    if name == "float" and arguments and isinstance(arguments[0], (str, int, float)):
        return float(arguments[0])
    if name == "set" and not (arguments and not isinstance(arguments[0], (list, tuple, set))):
        return set(*arguments)
    if name == "list_node" and arguments and isinstance(arguments[0], list):
        return Linked(tuple(arguments[0])) if arguments[0] else None
    if name == "tree_node" and arguments and isinstance(arguments[0], list):
        return Tree(level_order(arguments[0])) if arguments[0] else None
    raise Unparsable(f"call of {name!r} in a value")


def literal(node: ast.expr) -> Any:
    """The value of a literal expression, computed by walking it. Raises Unparsable for anything that would run code."""
    match node:
        case ast.Constant(value=value) if value is None or isinstance(value, (bool, int, float, str)):
            return value
        case ast.List(elts=items):
            return [literal(item) for item in items]
        case ast.Tuple(elts=items):
            return tuple(literal(item) for item in items)
        case ast.Set(elts=items):
            return {literal(item) for item in items}
        case ast.Dict(keys=keys, values=values) if None not in keys:
            return {literal(key): literal(value) for key, value in zip(keys, values, strict=True)}
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=operand):
            value = literal(operand)
            if isinstance(value, (int, float)):
                return -value if isinstance(sign, ast.USub) else +value
        case ast.Name(id="inf"):
            return float("inf")
        case ast.Call():
            return _call_value(node)
    raise Unparsable(f"not a literal: {ast.unparse(node)[:60]!r}")


def _has_node(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_has_node, value.values()))
    return (
        isinstance(value, (Linked, Tree)) or isinstance(value, (list, tuple)) and any(map(_has_node, value))
    )


def _arguments(call: ast.expr, lines: list[bytes]) -> str:
    """Source of the argument list of the tested call; every argument must itself be a literal."""
    if (
        not isinstance(call, ast.Call)
        or isinstance(call.func, ast.Name)
        and call.func.id in ("list_node", "tree_node")
    ):
        raise Unparsable("no call of the solution")
    for argument in [*call.args, *(keyword.value for keyword in call.keywords)]:
        literal(argument)
    first, last, start, end = (
        call.func.end_lineno,
        call.end_lineno,
        call.func.end_col_offset,
        call.end_col_offset,
    )
    if first == last:
        return lines[first - 1][start:end].decode()
    return b"\n".join([lines[first - 1][start:], *lines[first : last - 1], lines[last - 1][:end]]).decode()


def _parse_test(test: ast.expr, lines: list[bytes]) -> Test:
    """``call == literal``, or ``is_same_list(call, literal)`` / ``is_same_tree(...)`` for linked lists and trees."""
    match test:
        case ast.Compare(left=call, ops=[ast.Eq()], comparators=[right]):
            expected = literal(right)
            if _has_node(expected):
                raise Unparsable("nodes compared with == are never equal")
            return Test(_arguments(call, lines), expected)
        case ast.Call(
            func=ast.Name(id="is_same_list" | "is_same_tree" as same), args=[call, right], keywords=[]
        ):
            expected = literal(right)
            if expected is not None and not isinstance(expected, Linked if same == "is_same_list" else Tree):
                raise Unparsable(f"{same} of another kind of value")
            return Test(_arguments(call, lines), expected)
    raise Unparsable(f"not a comparison: {ast.unparse(test)[:60]!r}")


def parse_tests(source: str) -> tuple[Test, ...]:
    """All tests of a source: assert lines, bare expressions, or one ``def check(candidate)`` full of asserts."""
    try:
        body, lines = ast.parse(source).body, source.encode().split(b"\n")
        if len(body) == 1 and isinstance(body[0], ast.FunctionDef):
            body = body[0].body
        tests = []
        for statement in body:
            match statement:
                case ast.Assert(test=test) | ast.Expr(value=test):
                    tests.append(_parse_test(test, lines))
                case _:
                    raise Unparsable(f"a {type(statement).__name__} among the tests")
    except (SyntaxError, RecursionError, MemoryError, ValueError, TypeError) as fault:
        raise fault if isinstance(fault, Unparsable) else Unparsable(str(fault)) from None
    if not tests:
        raise Unparsable("no tests")
    return tuple(tests)


def _starter(code: str) -> str:
    """Starter code that ends after the signature's line, whatever white space the data set leaves behind it."""
    return code.rstrip() + "\n"


def _text(row: dict, name: str, default: str | None = None) -> str:
    value = row.get(name, default)
    if not isinstance(value, str):
        raise TypeError(f"field {name!r} must be text, found {type(value).__name__}")
    return value


def _difficulty(value: Any) -> str | None:
    return value.lower() if isinstance(value, str) and value.lower() in DIFFICULTIES else None


def _from_leetcode(row: dict) -> Problem:
    meta = row.get("meta") or {}
    question = meta.get("question_id", row.get("question_id"))
    statement = meta.get("question_title") or row.get("problem_description")
    if question is None or not isinstance(statement, str):
        raise TypeError("no question_id or no statement in 'meta'")
    return Problem(
        problem_id=str(question),
        task_id=_text(row, "task_id"),
        statement=statement.strip(),
        starter_code=_starter(meta.get("lang_code") or _text(row, "starter_code")),
        method=_text(row, "entry_point").rpartition(".")[2],
        setup_code=_text(row, "prompt"),
        tests=parse_tests(_text(row, "test")),
        canonical=_text(row, "completion"),
        difficulty=_difficulty(meta.get("difficulty", row.get("difficulty"))),
    )


def _from_benchmark(row: dict) -> Problem:
    content = row["prompt"][-1]["content"]
    statement = content.removeprefix("PROBLEM:\n").partition("\n\nYour solution to the problem should be")[0]
    starter = (row.get("prompt_metadata") or {}).get("starter_code")
    if starter is None:
        starter = content.rpartition("```python\n")[2].partition("# Add your code here")[0]
    answer = row["gt_answer"]
    return Problem(
        problem_id=str(row["id"]),
        task_id=row.get("task_id"),
        statement=statement,
        starter_code=_starter(starter),
        method=_text(row, "func_name").rpartition(".")[2],
        setup_code=_text(row, "setup_code", ""),
        tests=parse_tests(answer if isinstance(answer, str) else "\n".join(answer)),
        canonical=row.get("canonical_solution"),
        difficulty=_difficulty(row.get("difficulty")),
    )


def from_own(row: dict) -> Problem:
    return Problem(
        problem_id=_text(row, "problem_id"),
        task_id=row.get("task_id"),
        statement=_text(row, "statement").strip(),
        starter_code=_starter(_text(row, "starter_code")),
        method=_text(row, "method"),
        setup_code=_text(row, "setup_code", ""),
        tests=parse_tests("\n".join(row["tests"])),
        canonical=row.get("canonical"),
        difficulty=_difficulty(row.get("difficulty")),
    )


def _reader(row: dict) -> Callable[[dict], Problem] | None:
    if "gt_answer" in row and "func_name" in row:
        return _from_benchmark
    if "entry_point" in row and "test" in row:
        return _from_leetcode
    if "tests" in row and "method" in row:
        return from_own
    return None


def _rows(source: str | Path) -> list[dict]:
    if str(source).endswith((".jsonl", ".jsonl.gz")) or Path(source).exists():
        return read_jsonl(source)
    try:
        import datasets

        return [dict(row) for row in datasets.load_dataset(str(source), split="train")]
    except Exception as fault:  # the hub client raises a wide family of errors; all mean the same to the user
        reason = " ".join(str(fault).split())[:160]
        raise InputError(
            f"{source}: no such file, and no data set that the hub can load ({reason})"
        ) from None


def load_problems(source: str | Path) -> list[Problem]:
    """All problems of a .jsonl(.gz) file or of a hub data set (its train split).

    Problems with a test that does not parse are left out, with one warning that names them. Raises InputError, with
    the row's number, for a row of no known format or with a field missing or of the wrong type.
    """
    problems, unparsable = [], []
    for number, row in enumerate(_rows(source), start=1):
        reader = _reader(row)
        if reader is None:
            raise InputError(f"{source}: row {number} is in none of the three problem formats")
        try:
            problems.append(reader(row))
        except Unparsable:
            unparsable.append(
                str(row.get("task_id") or row.get("id") or row.get("problem_id") or f"row {number}")
            )
        except (KeyError, TypeError, AttributeError, IndexError) as fault:
            raise InputError(f"{source}: row {number}: {type(fault).__name__}: {fault}") from None
    if unparsable:
        warnings.warn(
            f"{source}: {len(unparsable)} problem(s) left out, their tests do not parse: {', '.join(unparsable)}",
            stacklevel=2,
        )
    if not problems:
        raise InputError(f"{source}: holds no usable problem")
    return problems
