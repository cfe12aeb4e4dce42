"""Does what a problem's tests call stand in its starter code? Told from the syntax alone; nothing is run.

The prompt shows the starter code, the grader calls `Solution().method` with the arguments of the tests. Where
the two contradict each other, an answer that does what the prompt says fails every test.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hackward.base.syntax import syntax_of

if TYPE_CHECKING:
    from hackward.tasks.problems import Call, Problem

ENTRY = "Solution"
WANTED = f"starter_code is `class {ENTRY}:` and the first line of its method"
Function = ast.FunctionDef | ast.AsyncFunctionDef
PLAIN = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Pass, ast.Expr)  # what gives a class no further names
_EMPTY = inspect.Parameter.empty


def parsed(starter_code: str) -> ast.Module | None:
    """The starter code, with a body where its last line still waits for one; None where it does not parse."""
    for text in (starter_code, f"{starter_code.rstrip()} pass\n", f"{starter_code}        pass\n"):
        try:
            return syntax_of(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
    return None


def contradiction(problem: Problem) -> str | None:
    """What of the problem contradicts its starter code, and what should stand there; None where nothing does
    for certain."""
    module = parsed(problem.starter_code)
    if module is None:
        return f"its starter_code does not parse; {WANTED}"
    classes = [node for node in ast.walk(module) if isinstance(node, ast.ClassDef)]
    entries = [node for node in classes if node.name == ENTRY]
    if not entries:
        return None if _binds_entry(module) else f"its starter_code has no class {ENTRY}; {WANTED}"
    methods = {node.name: node for node in entries[-1].body if isinstance(node, Function)}
    if problem.method in methods:
        return _misfit(problem, methods[problem.method])
    if _may_have_more(entries[-1]):
        return None
    others = [node.name for node in classes if problem.method in _methods(node)]
    where = f"is in class {others[0]}, not" if others else "is not defined"
    names = ", ".join(methods) or "nothing"
    return (
        f"its method {problem.method!r} {where} in class {ENTRY} of its starter_code, which defines {names};"
        " the two must name the same method"
    )


def _methods(node: ast.ClassDef) -> list[str]:
    return [part.name for part in node.body if isinstance(part, Function)]


def _binds_entry(module: ast.Module) -> bool:
    """Does the name stand for something that is no class statement?"""
    names = [node for node in ast.walk(module) if isinstance(node, ast.Name)]
    return any(name.id == ENTRY and isinstance(name.ctx, ast.Store) for name in names)


def _may_have_more(entry: ast.ClassDef) -> bool:
    """Can the class have methods that its own `def` lines do not name?"""
    if entry.bases or entry.keywords or entry.decorator_list:
        return True
    return not all(isinstance(node, PLAIN) for node in entry.body)


def _misfit(problem: Problem, method: Function) -> str | None:
    """The first test whose arguments the method takes neither by name nor by position."""
    signature = _signature(method)
    if signature is None:
        return None
    for number, test in enumerate(problem.tests, start=1):
        if test.call is not None and not _takes(signature, test.call):
            taken = ", ".join(signature.parameters)
            return (
                f"its method {problem.method}({taken}) in the starter_code does not take what test {number}"
                f" passes, {_words(test.call)}; tests and starter_code must agree"
            )
    return None


def _words(call: Call) -> str:
    by_position, names = call
    if not names:
        return f"{by_position} by position"
    named = ", ".join(names)
    return f"{by_position} by position and {named}" if by_position else named


def _takes(signature: inspect.Signature, call: Call) -> bool:
    """As the grader calls: by name, or else all by position."""
    by_position, names = call
    return _binds(signature, by_position, names) or _binds(signature, by_position + len(names), ())


def _binds(signature: inspect.Signature, by_position: int, names: Sequence[str]) -> bool:
    try:
        signature.bind(*[None] * by_position, **dict.fromkeys(names))
    except TypeError:
        return False
    return True


def _signature(method: Function) -> inspect.Signature | None:
    """What a call on an instance may pass; None where a decorator decides."""
    decorators = [node.id if isinstance(node, ast.Name) else "" for node in method.decorator_list]
    if not set(decorators) <= {"staticmethod", "classmethod"}:
        return None
    parameters = _parameters(method.args)
    bound = "staticmethod" not in decorators
    if bound and (not parameters or parameters[0].kind is inspect.Parameter.KEYWORD_ONLY):
        return None
    if bound and parameters[0].kind is not inspect.Parameter.VAR_POSITIONAL:
        parameters = parameters[1:]
    return inspect.Signature(parameters)


def _parameters(arguments: ast.arguments) -> list[inspect.Parameter]:
    kind = inspect.Parameter
    plain = [*arguments.posonlyargs, *arguments.args]
    needed = len(plain) - len(arguments.defaults)
    found = []
    for place, argument in enumerate(plain):
        only = place < len(arguments.posonlyargs)
        how: Any = kind.POSITIONAL_ONLY if only else kind.POSITIONAL_OR_KEYWORD
        found.append(kind(argument.arg, how, default=_EMPTY if place < needed else None))
    if arguments.vararg:
        found.append(kind(arguments.vararg.arg, kind.VAR_POSITIONAL))
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        found.append(kind(argument.arg, kind.KEYWORD_ONLY, default=_EMPTY if default is None else None))
    if arguments.kwarg:
        found.append(kind(arguments.kwarg.arg, kind.VAR_KEYWORD))
    return found
