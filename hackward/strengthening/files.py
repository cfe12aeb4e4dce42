"""A whole file of problems: over processes, in order, and resumable.

Finished rows are added to `FILE.part` one by one. Its first line says which command made it; the same command
goes on behind its last whole line, and another one is refused. At the end all rows are written to FILE at
once, in the order of the problems, so that the file does not depend on how often the work was interrupted.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any

from hackward.base.faults import InputError
from hackward.base.files import ROOT, read_jsonl, sha256, write_jsonl
from hackward.grading.fences import die_with_parent
from hackward.grading.protection import Setup
from hackward.grading.sandbox import Limits
from hackward.grading.worker import Worker, WorkerDied, WorkerNotStarted
from hackward.strengthening.rows import row_with_tests, second_solution
from hackward.strengthening.strengthening import Strengthened, strengthened
from hackward.tasks.assertions import Unparsable
from hackward.tasks.formats import checked_row, format_of
from hackward.tasks.problems import EVAL_NAME

Row = dict[str, Any]
ATTEMPTS = 3  # with new workers, where one died
HASH_SEEDS = (0, 1)  # of the two workers: an answer that depends on the order of a set is unstable


@dataclass(frozen=True)
class Order:
    """What is asked for."""

    tests: int
    seed: int
    sandbox: str
    limits: Limits


class Bench:
    """The two workers of a process, started when needed and replaced when they died."""

    def __init__(self, order: Order):
        self.order = order
        self._setup = Setup(order.sandbox, order.limits, EVAL_NAME, True)
        self.protection = self._setup.protection()
        self._workers: list[Worker] = []

    def row(self, row: Row) -> Row:
        """A row with more tests."""
        form = format_of(row, "a problem")
        try:
            problem = checked_row(form, row, "a problem").problem()
        except Unparsable as fault:
            found = Strengthened(reason=f"its tests do not parse: {fault}")
            return row_with_tests(row, form, None, found, self.order.tests, self.order.seed)
        order, second = self.order, second_solution(row, problem)
        found = self._tried(lambda workers: strengthened(problem, order.tests, order.seed, workers, second))
        return row_with_tests(row, form, problem, found, self.order.tests, self.order.seed)

    def _tried(self, work: Callable[[Sequence[Worker]], Strengthened]) -> Strengthened:
        died = WorkerDied()
        for _ in range(ATTEMPTS):
            try:
                if not self._workers:
                    self._workers = [self._setup.start_worker(seed) for seed in HASH_SEEDS]
                return work(self._workers)
            except WorkerNotStarted as fault:
                raise InputError(str(fault)) from None
            except WorkerDied as fault:
                died = fault
                self.close()
        return Strengthened(reason=f"the worker of its canonical solution died each time ({died})")

    def close(self) -> None:
        """End the workers."""
        for worker in self._workers:
            worker.close()
        self._workers = []


_bench: Bench | None = None  # of this process


def _open_bench(order: Order) -> None:
    global _bench
    die_with_parent()
    _bench = Bench(order)
    Finalize(None, _bench.close, exitpriority=10)


def _work(position: int, row: Row) -> tuple[int, Row]:
    assert _bench is not None
    return position, _bench.row(row)


def version() -> str:
    """A hash of this room's code: another version may make other tests."""
    files = sorted((ROOT / "hackward" / "strengthening").glob("*.py"))
    return sha256(*(file.read_bytes() for file in files))[:16]


class Part:
    """The file of finished rows beside the output."""

    def __init__(self, out: Path, key: str):
        self.path = out.with_name(f"{out.name}.part")
        self._key = key
        self.rows = self._read()
        """By position."""

    def _read(self) -> dict[int, Row]:
        if not self.path.exists():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._append({"command": self._key})
            return {}
        whole, _, _ = self.path.read_bytes().rpartition(b"\n")
        lines = read_jsonl(self.path, cut_off=True)
        if not lines or lines[0].get("command") != self._key:
            raise InputError(
                f"{self.path}: begun by another command, on other problems or by another version;"
                " remove it, or give another --out"
            )
        for number, line in enumerate(lines[1:], start=2):
            if type(line.get("position")) is not int or not isinstance(line.get("row"), dict):
                raise InputError(f"{self.path}:{number}: not a finished row; remove the file")
        os.truncate(self.path, len(whole) + 1)
        return {line["position"]: line["row"] for line in lines[1:]}

    def add(self, position: int, row: Row) -> None:
        """A finished row."""
        self.rows[position] = row
        self._append({"position": position, "row": row})

    def _append(self, line: Row) -> None:
        with open(self.path, "ab") as stream:
            stream.write(json.dumps(line).encode() + b"\n")


def strengthen_file(rows: Sequence[Row], out: Path, order: Order, processes: int) -> Iterator[Row]:
    """Each row as it is finished, those of an interrupted call first; then the output is there."""
    key = sha256(version(), str(order.tests), str(order.seed), json.dumps(rows))
    part = Part(out, key)
    yield from part.rows.values()
    left = [position for position in range(len(rows)) if position not in part.rows]
    for position, row in _finished(rows, left, order, processes):
        part.add(position, row)
        yield row
    write_jsonl(out, [part.rows[position] for position in range(len(rows))])
    part.path.unlink()


def _finished(
    rows: Sequence[Row], left: Sequence[int], order: Order, processes: int
) -> Iterator[tuple[int, Row]]:
    if not left:
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(processes, len(left)), context, _open_bench, (order,)) as pool:
        waiting: list[Future[tuple[int, Row]]] = [
            pool.submit(_work, position, rows[position]) for position in left
        ]
        try:
            for future in as_completed(waiting):
                yield future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
