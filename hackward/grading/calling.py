"""What a run calls: the method under test, and the evaluation that a completion brings along.

Standard library only: the worker loads this file without any package. Foreign code may have changed any name
that it can reach by the time these functions run, so they keep the built-in functions that they need.
"""

from __future__ import annotations

import builtins
import inspect
import sys
import types
from collections.abc import Callable, Sequence
from typing import Any

_callable, _getattr, _type = callable, getattr, type
_INHERITED = ("__init__", "__new__", "__getattribute__")  # that every class has; `__getattr__` none


class ModuleAndFunction(types.ModuleType):
    """A module that can be called like its function of the same name, such as bisect."""

    def __init__(self, module: types.ModuleType, function: Any):
        super().__init__(module.__name__, module.__doc__)
        self.__dict__.update(vars(module))
        self.__dict__["_function"] = function

    def __call__(self, *values: Any, **named: Any) -> Any:
        """The function's result."""
        return self.__dict__["_function"](*values, **named)


def restore_names(namespace: dict[str, Any]) -> None:
    """Undo what the imports of a set-up code have covered, as the judge's own preamble does.

    `from operator import *` and `from math import *` put pow and abs over the built-in functions;
    `from bisect import *` puts a function into the place of the module of its name. What the set-up code
    defines itself stays.
    """
    for name, value in list(namespace.items()):
        if name.startswith("_"):
            continue
        if was_imported(name, value) and hasattr(builtins, name):
            namespace[name] = getattr(builtins, name)
        module = sys.modules.get(name)
        if module is not None and inspect.isroutine(value) and getattr(module, name, None) is value:
            namespace[name] = ModuleAndFunction(module, value)


def was_imported(name: str, value: Any) -> bool:
    """Whether a name stands for what a module has under the same name."""
    home = sys.modules.get(getattr(value, "__module__", None) or "")
    return home is not None and getattr(home, name, None) is value


class Caller:
    """Calls the method under test with a test's arguments, by name where the method has those names."""

    def __init__(self, method: str, parameters: Sequence[str]):
        self.method = method
        self.parameters = parameters
        """The names of the starter code, in its order."""
        self._by_name: dict[tuple[str, ...], bool] = {}

    def call(self, solution: Any, values: tuple, named: dict[str, Any]) -> Any:
        """The answer. By position where the names are the completion's own."""
        method = _getattr(solution, self.method)
        if self._takes(method, values, named):
            return method(*values, **named)
        return method(*values, *self._in_order(named))

    def _takes(self, method: Any, values: tuple, named: dict[str, Any]) -> bool:
        """Whether the method takes these names, or does not take their values by position either."""
        names = tuple(named)
        if names not in self._by_name:
            by_name = True
            if not values and plainly_named(method) == names:
                return True
            try:
                signature = inspect.signature(method)
                in_order = (*values, *named.values())
                by_name = fits(signature, values, named) or not fits(signature, in_order, {})
            except (TypeError, ValueError):
                pass
            self._by_name[names] = by_name
        return self._by_name[names]

    def _in_order(self, named: dict[str, Any]) -> list[Any]:
        """The values in the order of the starter code; in that of the test where it has names of its own."""
        if all(name in self.parameters for name in named):
            return [named[name] for name in self.parameters if name in named]
        return list(named.values())


def plainly_named(method: Any) -> tuple[str, ...] | None:
    """The parameters of a method that has plain ones only; tells in little time what most methods take."""
    if _type(method) is not types.MethodType or _type(method.__func__) is not types.FunctionType:
        return None
    code = method.__func__.__code__
    if code.co_posonlyargcount or code.co_kwonlyargcount or code.co_flags & inspect.CO_VARARGS:
        return None
    return code.co_varnames[1 : code.co_argcount]


def fits(signature: inspect.Signature, values: tuple, named: dict[str, Any]) -> bool:
    """Whether a call with these arguments would be taken."""
    try:
        signature.bind(*values, **named)
    except TypeError:
        return False
    return True


def own_evaluation(namespace: dict[str, Any], name: str, given: dict[str, Any]) -> Callable[[], Any] | None:
    """What a caller of `name` would call once the code has run, or None where that is nothing.

    `Solution().name` if that can be called, else `name` at top level. `given` is the namespace of the set-up
    code: what stands there already is not the completion's.
    """
    solution = namespace.get("Solution")
    if solution is not None:
        found = of_solution(solution, name)
        if found is not None:
            return found
    found = namespace.get(name, _getattr(builtins, name, None))
    if found is None or found is given.get(name) or not _callable(found):
        return None
    return found


def of_solution(solution: Any, name: str) -> Callable[[], Any] | None:
    """The evaluation that an instance of Solution has, from its class or from its own beginning."""
    try:
        of_class = _getattr(solution, name, None)
        if _callable(of_class):
            return lambda: _getattr(solution(), name)()
        if of_class is not None or makes_names(solution):  # a property is an object that cannot be called
            found = _getattr(solution(), name, None)
            if _callable(found):
                return found
    except BaseException:  # foreign code, all of it
        return None
    return None


def makes_names(solution: Any) -> bool:
    """Whether an instance can have what its class has not."""
    if _type(solution) is not _type:
        return True
    if _getattr(solution, "__getattr__", None) is not None:
        return True
    return any(_getattr(solution, special) is not _getattr(object, special) for special in _INHERITED)
