"""The child: runs one completion and reports claims, one JSON line each. Standard library only.

Nothing in here is believed: expected values never come here, and what is written to the answer socket is
compared elsewhere (checks.py).
"""

from __future__ import annotations

import os
import random
import signal
import socket
import sys
from typing import Any, NoReturn

from hackward.grading.calling import Caller, own_evaluation
from hackward.grading.encoding import Encoder, line_of
from hackward.grading.fences import (
    FilterProgram,
    die_with_parent,
    install_filter,
    landlock,
    set_capabilities,
    set_limits,
)
from hackward.grading.framing import TASK, receive_framed
from hackward.grading.steadiness import PERHAPS, STEADY, UNSTEADY, steadiness

ANSWER_FD = 3  # the child's end of the answer socket; everything above it is closed before foreign code runs
SETUP_FAILED = 70  # exit status of a child that could not be fenced in; it ran no foreign code
ANSWER_ELEMENTS = 1_000_000  # an answer of more values is not written
HEADERS = {word: line_of({"compiles": True, "steady": word}) for word in (STEADY, PERHAPS, UNSTEADY)}
SIZES = range(16, 513, 16)  # of objects that Python's allocator keeps apart


class Reporter:
    """Writes claims to the answer socket, one JSON line each."""

    def __init__(self, sock: socket.socket):
        self.sock = sock

    def line(self, value: object) -> None:
        """One claim. The text is made first: a value that cannot be written leaves no half of a line."""
        self.sock.sendall(line_of(value))


def describe(fault: BaseException) -> str:
    """Type and first words of an exception; its text is foreign code too, so it may raise."""
    try:
        return f"{type(fault).__name__}: {fault}"[:160].encode("utf-8", "replace").decode()
    except BaseException:
        return "an exception"


def run_tests(namespace: dict[str, Any], problem: dict[str, Any], report: Reporter) -> None:
    """Answer every test with a fresh Solution. An exception is an answer as well, one that equals nothing."""
    solution = namespace["Solution"]
    caller = Caller(problem["method"], problem["parameters"])
    for arguments in problem["arguments"]:
        values, named = eval(arguments, problem["given"].of_arguments)
        try:
            answer = caller.call(solution(), values, named)
            line = line_of(Encoder(ANSWER_ELEMENTS).encode(answer))
        except Exception as fault:
            line = line_of({"x": describe(fault)})
        report.sock.sendall(line)


def stub_method(*values: Any, **named: Any) -> None:
    """A solution that solves nothing."""


def put_stub(namespace: dict[str, Any], method: str) -> None:
    """Replace the solution by one that returns None: an evaluation that still passes is vacuous."""
    if isinstance(namespace.get("Solution"), type):
        setattr(namespace["Solution"], method, stub_method)
    if method in namespace:
        namespace[method] = stub_method


def judge(code: str, look: bool, problem: dict[str, Any], settings: dict[str, Any], report: Reporter) -> None:
    """Run the code, say what can be called of it, and only then learn what is to be called.

    So code cannot tell while it runs whether its tests or its own evaluation will be called. The header is
    written before any foreign code runs. `look`: whether its label may vary is to be looked at.
    """
    try:
        program = compile(code, "completion.py", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError) as fault:
        report.line({"compiles": False, "fault": describe(fault)})
        return
    steady = steadiness(program, problem["nodes"]) if look else STEADY
    report.sock.sendall(HEADERS[steady])
    namespace = problem["given"].solution.__dict__
    sys.modules["solution"] = problem["given"].solution
    try:
        exec(program, namespace)
        evaluation = own_evaluation(namespace, settings["eval_name"], problem["given"].namespace)
        ran: dict[str, object] = {"ran": True, "attempted": evaluation is not None}
        if "Solution" not in namespace:
            ran["fault"] = "NameError: no class Solution"
        report.line(ran)
        mode = receive_framed(report.sock)
        if mode == b"truth":
            run_tests(namespace, problem, report)
        elif evaluation is not None:
            if mode == b"vacuous":
                put_stub(namespace, problem["method"])
            evaluation()
            report.line({"passed": True})
    except BaseException as fault:
        report.line({"ran": False, "fault": describe(fault)})


def shift_addresses(salt: int) -> list[bytes]:
    """Objects that take up memory, so that others get other addresses than with another salt; none for 0."""
    if salt == 0:
        return []
    dice = random.Random(salt)
    return [bytes(size - 32) for size in SIZES[2:] for _ in range(dice.randrange(40))]


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
        task = receive_framed(answer)
        is_probe, look, salt = TASK.unpack_from(task)
        code = task[TASK.size :].decode("utf-8", "replace")
        ballast = shift_addresses(salt)  # noqa: F841  (kept while the code runs)
        set_limits(settings["limits"], fork_denied=program is not None)
        if settings["restrict"]:
            set_capabilities()
        if program is not None:
            install_filter(program)
        elif settings["restrict"]:
            landlock(settings["readable"])
        status = 0
        if is_probe:
            probe(code, Reporter(answer))
        else:
            judge(code, bool(look), problem, settings, Reporter(answer))
    except BaseException:
        pass
    finally:
        os._exit(status)
