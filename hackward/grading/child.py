"""The child: runs one completion and reports claims, one JSON line each. Standard library only.

Nothing in here is believed: expected values never come here, and what is written to the answer socket is
compared elsewhere (checks.py).
"""

from __future__ import annotations

import dis
import json
import os
import random
import signal
import socket
import sys
import types
from typing import Any, NoReturn

from hackward.grading.fences import (
    FilterProgram,
    die_with_parent,
    install_filter,
    landlock,
    set_capabilities,
    set_limits,
)
from hackward.grading.framing import receive_framed

ANSWER_FD = 3  # the child's end of the answer socket; everything above it is closed before foreign code runs
SETUP_FAILED = 70  # exit status of a child that could not be fenced in; it ran no foreign code
ANSWER_ELEMENTS = 1_000_000  # an answer of more values is not written
STORE_NAME, EXTENDED_ARG = dis.opmap["STORE_NAME"], dis.opmap["EXTENDED_ARG"]
PLAIN = (bool, int, str, type(None))
MAPPINGS = ("dict", "defaultdict", "Counter", "OrderedDict")


class Encoder:
    """Values as JSON data with exact types; what has none becomes {"x": type name}, equal to nothing.

    `left` is the number of values still allowed: endless or cyclic ones stop there, with OverflowError.
    """

    def __init__(self, left: int):
        self.left = left

    def encode(self, value: Any) -> object:
        """One value, and what it holds."""
        kind = type(value)
        self.left -= 1
        if self.left < 0:
            raise OverflowError("the returned value is too large")
        if kind in PLAIN:
            return value
        if kind is float:
            return {"f": repr(value)}
        if kind is list:
            return [self.encode(item) for item in value]
        if kind is tuple:
            return {"t": [self.encode(item) for item in value]}
        if kind in (set, frozenset):
            return {"s": [self.encode(item) for item in value]}
        if isinstance(value, dict) and kind.__name__ in MAPPINGS:
            return {"d": [[self.encode(key), self.encode(item)] for key, item in dict.items(value)]}
        if hasattr(value, "val") and hasattr(value, "next"):
            return {"L": self._linked(value)}
        if hasattr(value, "val") and hasattr(value, "left") and hasattr(value, "right"):
            return {"T": self._tree(value)}
        return {"x": kind.__name__[:40]}

    def _linked(self, node: Any) -> list[object]:
        values = []
        while node is not None:
            values.append(self.encode(node.val))
            node = node.next
        return values

    def _tree(self, root: Any) -> list[object]:
        """In level order: None for a missing child, and no None at the end."""
        order: list[object] = []
        level = [root]
        while level:
            below: list[Any] = []
            for node in level:
                order.append(None if node is None else self.encode(node.val))
                if node is not None:
                    below += (node.left, node.right)
            level = below
        while order and order[-1] is None:
            order.pop()
        return order


def binds(program: types.CodeType, name: str) -> bool:
    """Whether a compiled body assigns `name` at its own level (def, =, import ..., branches included).

    Read off the bytecode, because compiling straight to it costs a third of building a syntax tree first.
    """
    if name not in program.co_names:
        return False
    argument = 0
    for operation, low in zip(program.co_code[::2], program.co_code[1::2]):
        argument = argument << 8 | low
        if operation == STORE_NAME and program.co_names[argument] == name:
            return True
        if operation != EXTENDED_ARG:
            argument = 0
    return False


def defines(program: types.CodeType, name: str) -> bool:
    """Whether a module defines `name` at its top level or in the body of a class Solution."""
    if binds(program, name):
        return True
    bodies = [item for item in program.co_consts if isinstance(item, types.CodeType)]
    return any(body.co_name == "Solution" and binds(body, name) for body in bodies)


class Reporter:
    """Writes claims to the answer socket, one JSON line each."""

    def __init__(self, sock: socket.socket):
        self.sock = sock

    def line(self, value: object) -> None:
        """One claim. The text is made first: a value that cannot be written leaves no half of a line."""
        text = json.dumps(value, separators=(",", ":"))
        self.sock.sendall(text.encode() + b"\n")


def describe(fault: BaseException) -> str:
    """Type and first words of an exception; its text is foreign code too, so it may raise."""
    try:
        return f"{type(fault).__name__}: {fault}"[:160]
    except BaseException:
        return "an exception"


def run_tests(namespace: dict[str, Any], problem: dict[str, Any], report: Reporter) -> None:
    """Answer every test with a fresh Solution. An exception is an answer as well, one that equals nothing."""
    solution = namespace["Solution"]
    arguments_namespace = dict(problem["namespace"], _call=lambda *values, **named: (values, named))
    for arguments in problem["arguments"]:
        values, named = eval(arguments, arguments_namespace)
        try:
            answer = getattr(solution(), problem["method"])(*values, **named)
            line = json.dumps(Encoder(ANSWER_ELEMENTS).encode(answer))
        except Exception as fault:
            line = json.dumps({"x": describe(fault)})
        report.sock.sendall(line.encode() + b"\n")


def stub_method(*values: Any, **named: Any) -> None:
    """A solution that solves nothing."""


def run_own(namespace: dict[str, Any], problem: dict[str, Any], eval_name: str, stub: bool) -> None:
    """Call the own evaluation: the method of Solution if it has one, else the function at top level.

    With `stub` the solution is first replaced by one that returns None: an evaluation that still passes is
    vacuous.
    """
    method = problem["method"]
    if stub and isinstance(namespace.get("Solution"), type):
        setattr(namespace["Solution"], method, stub_method)
    if stub and method in namespace:
        namespace[method] = stub_method
    solution = namespace.get("Solution")
    if solution is not None and hasattr(solution, eval_name):
        getattr(solution(), eval_name)()
    else:
        namespace[eval_name]()


def judge(code: str, mode: str, problem: dict[str, Any], settings: dict[str, Any], report: Reporter) -> None:
    """Header first, before any foreign code runs: does it compile, does it define the evaluation function."""
    try:
        program = compile(code, "completion.py", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError) as fault:
        report.line({"compiles": False, "fault": describe(fault)})
        return
    report.line({"compiles": True, "attempted": defines(program, settings["eval_name"])})
    module = types.ModuleType("solution")
    module.__dict__.update(problem["namespace"], __name__="solution")
    sys.modules["solution"] = module
    try:
        exec(program, module.__dict__)
        if mode == "truth":
            if "Solution" not in module.__dict__:
                raise NameError("no class Solution")
            report.line({"ran": True})
            run_tests(module.__dict__, problem, report)
        else:
            run_own(module.__dict__, problem, settings["eval_name"], stub=mode == "vacuous")
            report.line({"ran": True})
    except BaseException as fault:
        report.line({"ran": False, "fault": describe(fault)})


def probe(code: str, report: Reporter) -> None:
    """Run the grader's own probes of the fence (protection.py)."""
    exec(compile(code, "probe.py", "exec"), {"report": report.line, "__name__": "probe"})


def child(
    descriptors: list[int],
    problem: dict[str, Any],
    settings: dict[str, Any],
    program: FilterProgram | None,
) -> NoReturn:
    """Everything between the fork and the end of the child.

    `descriptors` are those of the answer socket and of a null device, opened for this run alone: it becomes
    standard input and output. `program` is the filter that takes from the zygote's rights; where there is
    none, Landlock is applied here.
    """
    status = SETUP_FAILED
    try:
        os.setsid()
        passed, null = descriptors
        for number in (0, 1, 2):
            os.dup2(null, number)
        os.dup2(passed, ANSWER_FD)
        os.closerange(ANSWER_FD + 1, 1 << 16)
        die_with_parent()
        for number in (signal.SIGINT, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        random.seed(0)  # the module seeds itself anew after a fork
        answer = socket.socket(fileno=ANSWER_FD)
        task = json.loads(receive_framed(answer))
        code = receive_framed(answer).decode("utf-8", "replace")
        set_limits(settings["limits"], task["cpu"], fork_denied=program is not None)
        if settings["restrict"]:
            set_capabilities()
        if program is not None:
            install_filter(program)
        elif settings["restrict"]:
            landlock(settings["readable"])
        status = 0
        if task["mode"] == "probe":
            probe(code, Reporter(answer))
        else:
            judge(code, task["mode"], problem, settings, Reporter(answer))
    except BaseException:
        pass
    finally:
        os._exit(status)
