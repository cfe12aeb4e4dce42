"""What grading is compared with: a plain grader, and what one fork per completion costs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hackward.grading.labels import GradeItem
from hackward.grading.sandbox import environment, interpreter
from hackward.grading.zygote import WARM_MODULES
from hackward.tasks.completions import extract_code
from hackward.tasks.problems import EVAL_NAME, Linked, Test, Tree

PLAIN_SECONDS = 10  # after which the plain grader gives a completion up
FORK_AND_RUN = """
import gc, json, os, sys, {modules}
work, spaces = json.load(open({file!r})), {{}}
for setup, *_ in work:
    if setup not in spaces:
        exec(setup, spaces.setdefault(setup, {{}}))
gc.freeze()
print(flush=True)
sys.stdin.readline()
for setup, code, method, arguments in work:
    pid = os.fork()
    if pid == 0:
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            space = dict(spaces[setup], _call=lambda *values, **named: (values, named))
            exec(compile(code, 'x', 'exec'), space)
            for text in arguments:
                values, named = eval('_call' + text, space)
                getattr(space['Solution'](), method)(*values, **named)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
"""


def rate(work: Callable[[], object], count: int) -> float:
    """Completions per second, if the work is so many of them."""
    started = time.perf_counter()
    work()
    return count / (time.perf_counter() - started)


def plain_assert(test: Test, method: str) -> str:
    """A test as the line of Python that a plain grader appends."""
    call, expected = f"Solution().{method}{test.arguments}", test.expected
    if isinstance(expected, Linked):
        return f"assert is_same_list({call}, list_node({list(expected.values)!r}))"
    if isinstance(expected, Tree):
        return f"assert is_same_tree({call}, tree_node({list(expected.values)!r}))"
    return f"assert {call} == {expected!r}"


def plain_run(program: str) -> bool:
    """A fresh interpreter, with what makes it comparable: the fixed hash seed, and asserts whatever this one
    does with its own."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", program],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=dict(os.environ, PYTHONHASHSEED="0", PYTHONOPTIMIZE=""),
            timeout=PLAIN_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def plain_grade(item: GradeItem, own: bool) -> bool:
    """Does the completion pass by exit status? With `own` its own evaluation runs as well."""
    code, problem = extract_code(item.completion) or "", item.problem
    setup = f"inf = float('inf')\n{problem.setup_code}\n{code}\n"
    asserts = "\n".join(plain_assert(test, problem.method) for test in problem.tests)
    passed = plain_run(setup + asserts)
    if own and EVAL_NAME in code:
        holder = f"(Solution() if hasattr(Solution, '{EVAL_NAME}') else __import__('__main__'))"
        plain_run(f"{setup}{holder}.{EVAL_NAME}()")
    return passed


def plain_rate(items: Sequence[GradeItem], own: bool, workers: int) -> float:
    """Completions per second of the plain grader."""
    with ThreadPoolExecutor(workers) as pool:
        return rate(lambda: list(pool.map(lambda item: plain_grade(item, own), items)), len(items))


def fork_floor(items: Sequence[GradeItem], workers: int) -> float:
    """Completions per second of a loop that forks, runs the code on the arguments, and asks for nothing.

    No fence, no answers, no verdict, no limits. There are as many such loops as workers, each with a worker's
    modules loaded.
    """
    work = []
    for item in items:
        problem, code = item.problem, extract_code(item.completion) or ""
        arguments = [test.arguments for test in problem.tests]
        work.append((problem.setup_code, code, problem.method, arguments))
    with tempfile.TemporaryDirectory() as directory:
        running = []
        for share in range(workers):
            file = Path(directory, f"{share}.json")
            file.write_text(json.dumps(work[share::workers]))
            program = FORK_AND_RUN.format(modules=", ".join(WARM_MODULES), file=str(file))
            running.append(
                subprocess.Popen(
                    [interpreter(), "-P", "-s", "-S", "-c", program],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    env=environment(),
                )
            )
        for process in running:
            assert process.stdout is not None
            process.stdout.readline()  # it is ready

        def go() -> None:
            for process in running:
                assert process.stdin is not None
                process.stdin.close()
            for process in running:
                process.wait()

        return rate(go, len(items))
