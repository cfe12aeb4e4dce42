"""Completions graded a second, against a plain grader and against what fork alone costs, all in one run.

    python bench_grade.py --rows POOL --problems LEETCODE.jsonl.gz --canonical BENCHMARK.jsonl.gz

The plain grader is what most code does: a fresh ``python -c`` per completion with the asserts appended, exit status 0
is a pass. It is there for its speed; its verdicts can be forged. The floor is a warm small interpreter that forks for
each completion and runs it on the arguments, unfenced and unheard: what any grader with one process a run must pay.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table

from hackward.base.faults import exit_on_fault
from hackward.base.flags import command_line
from hackward.grading.grader import Grader, print_protection
from hackward.grading.labels import GradeItem
from hackward.grading.rows import read_rows
from hackward.grading.sandbox import environment, interpreter
from hackward.grading.zygote import WARM_MODULES
from hackward.tasks.completions import extract_code, fence
from hackward.tasks.formats import load_problems
from hackward.tasks.problems import EVAL_NAME, Linked, Problem, Resolver, Test, Tree

DATA = Path(os.environ.get("HACKWARD_DATA", Path(__file__).resolve().parents[1] / "shared" / "data"))


@dataclass
class BenchGradeFlags:
    """Measure the grader's throughput."""

    rows: Path = DATA / "rh_teacher_pool"
    """Real rollouts: a file of rows or a pool directory."""
    problems: str = str(DATA / "leetcode_v0.2.0_train.jsonl.gz")
    """The problems of the rollouts."""
    canonical: str = str(DATA / "rl_rewardhacking_test_medhard.jsonl.gz")
    """Problems whose canonical solutions are graded."""
    sample: int = 300
    """Rollouts taken, evenly spaced over the pool."""
    plain_sample: int = 60
    """Of these, how many the plain grader does (it is slow)."""
    workers: int = 2
    sandbox: Literal["strict", "best-effort", "none"] = "best-effort"
    repeats: int = 3
    """Each of our measurements is repeated; the median is shown, with the lowest and the highest."""


def plain_assert(test: Test, method: str) -> str:
    call, expected = f"Solution().{method}{test.arguments}", test.expected
    if isinstance(expected, Linked):
        return f"assert is_same_list({call}, list_node({list(expected.values)!r}))"
    if isinstance(expected, Tree):
        return f"assert is_same_tree({call}, tree_node({list(expected.values)!r}))"
    return f"assert {call} == {expected!r}"


def plain_run(program: str) -> bool:
    """A fresh interpreter; the environment keeps only what makes it comparable (the fixed hash seed)."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", program],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=dict(os.environ, PYTHONHASHSEED="0"),
            timeout=10,
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def plain_grade(item: GradeItem, own: bool) -> bool:
    code, problem = extract_code(item.completion) or "", item.problem
    setup = f"inf = float('inf')\n{problem.setup_code}\n{code}\n"
    passed = plain_run(setup + "\n".join(plain_assert(test, problem.method) for test in problem.tests))
    if own and EVAL_NAME in code:
        plain_run(
            setup
            + f"(Solution() if hasattr(Solution, '{EVAL_NAME}') else __import__('__main__')).{EVAL_NAME}()"
        )
    return passed


def rate(work: Callable[[], object], count: int) -> float:
    started = time.perf_counter()
    work()
    return count / (time.perf_counter() - started)


def plain_rate(items: list[GradeItem], own: bool, workers: int) -> float:
    with ThreadPoolExecutor(workers) as pool:
        return rate(lambda: list(pool.map(lambda item: plain_grade(item, own), items)), len(items))


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


def fork_floor(items: list[GradeItem], workers: int) -> float:
    """Completions a second of a loop that forks, runs the code on the arguments, and asks for nothing: no fence, no
    answers, no verdict, no limits. As many such loops as workers, each with a worker's modules loaded."""
    work = []
    for item in items:
        arguments = [test.arguments for test in item.problem.tests]
        work.append(
            (item.problem.setup_code, extract_code(item.completion) or "", item.problem.method, arguments)
        )
    with tempfile.TemporaryDirectory() as directory:
        running = []
        for share in range(workers):
            file = Path(directory, f"{share}.json")
            file.write_text(json.dumps(work[share::workers]))
            program = FORK_AND_RUN.format(modules=", ".join(WARM_MODULES), file=str(file))
            command = [interpreter(), "-P", "-s", "-S", "-c", program]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
            running.append(subprocess.Popen(command, **pipes, env=environment()))
        for process in running:
            process.stdout.readline()  # it is ready

        def go() -> None:
            for process in running:
                process.stdin.close()
            for process in running:
                process.wait()

        return rate(go, len(items))


def our_rates(grader: Grader, items: list[GradeItem], own: bool, repeats: int) -> list[float]:
    grader.grade(items[:20], own=own)  # workers up, set-up code loaded: a training run pays that once
    return sorted(rate(lambda: grader.grade(items, own=own), len(items)) for _ in range(repeats))


def reach_a_limit(grader: Grader, items: list[GradeItem]) -> list[bool]:
    """Which completions never end by themselves. Each costs its whole CPU allowance, whoever grades it."""
    return ["time limit" in (grade.error or "") for grade in grader.grade(items, own=False)]


def evenly(items: list, count: int) -> list:
    return [items[position * len(items) // count] for position in range(min(count, len(items)))]


def samples(options: BenchGradeFlags) -> tuple[list[GradeItem], list[GradeItem]]:
    canonical = [GradeItem(p, fence(p.canonical)) for p in load_problems(options.canonical) if p.canonical]
    resolver = Resolver(load_problems(options.problems))
    found: list[tuple[Problem | None, dict]] = [
        (resolver.resolve(row)[0], row) for row in read_rows((options.rows,))
    ]
    rollouts = [GradeItem(problem, row["completion"]) for problem, row in found if problem is not None]
    return canonical, evenly(rollouts, options.sample)


def main() -> None:
    options = command_line(BenchGradeFlags)
    console = Console(width=120)
    canonical, rollouts = samples(options)
    table = Table(title=f"completions a second, {options.workers} workers", title_justify="left")
    for heading in ("what", "ours (lowest to highest)", "fork floor", "share of it", "python -c each"):
        table.add_column(heading, justify="left" if heading == "what" else "right")
    with Grader(workers=options.workers, sandbox=options.sandbox) as grader:
        print_protection(grader.protection, console)
        ending = [
            item
            for item, limited in zip(rollouts, reach_a_limit(grader, rollouts), strict=True)
            if not limited
        ]
        endless = len(rollouts) - len(ending)
        measured = (
            (f"{len(canonical)} canonical solutions, ground truth", canonical, False),
            (f"{len(ending)} real rollouts, ground truth", ending, False),
            (f"{len(ending)} real rollouts, full label", ending, True),
            (f"the same and {endless} that loop, full label", rollouts, True),
        )
        for name, items, own in measured:
            ours = our_rates(grader, items, own, options.repeats)
            plain = plain_rate(evenly(items, options.plain_sample), own, options.workers)
            middle = ours[len(ours) // 2]
            shown = f"{middle:.0f} ({ours[0]:.0f} to {ours[-1]:.0f})"
            share = ("", "")
            if not own:
                floors = sorted(fork_floor(items, options.workers) for _ in range(options.repeats))
                share = (f"{floors[len(floors) // 2]:.0f}", f"{middle / floors[len(floors) // 2]:.0%}")
            table.add_row(name, shown, *share, f"{plain:.1f}")
    console.print(table)
    console.print(
        "fork floor: one fork a completion that runs its code on the arguments, without fence, answers, verdict"
    )


if __name__ == "__main__":
    exit_on_fault(main)
