"""Batches and workers: order, sharing, items that come one by one, and what dies."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hackward.base.faults import InputError
from hackward.grading import grader as grading
from hackward.grading import worker
from hackward.grading.grader import Grader
from hackward.grading.labels import LABELS, Grade, GradeItem, NotGraded
from hackward.grading.protection import Setup
from hackward.grading.sandbox import Limits
from hackward.grading.worker import Worker, kill_tree
from hackward.tasks.completions import extract_code, fence
from tests.grading_cases import (
    DOUBLE,
    MIXED,
    PASSES,
    RIGHT,
    SLOW_RIGHT,
    SLOW_WRONG,
    WRONG,
    one,
    problem,
    quick_grader,
)


@pytest.fixture(scope="module")
def grader():
    with quick_grader() as shared:
        yield shared


# --- batches, workers, load ---


def test_grades_come_in_order_whatever_the_number_of_workers() -> None:
    triple = problem("f(n = 2) == 6", setup="")
    items = [GradeItem(task, fence(code)) for code in MIXED for task in (DOUBLE, triple)] * 3
    results = []
    for workers in (1, 2, 8):
        with Grader(workers=workers) as grader:
            results.append(grader.grade(items))
    assert results[0] == results[1] == results[2]
    assert results[0][: len(MIXED) * 2] * 3 == results[0]
    assert {grade.label for grade in results[0]} == set(LABELS)


def test_twenty_runs_on_a_loaded_machine_agree() -> None:
    """A solution that takes most of its CPU allowance keeps its label while four others use the processor."""
    busy = RIGHT.replace("return", "for _ in range(1_500_000): pass\n        return")
    limits = Limits(cpu_seconds=1, wall_seconds=0.2)
    load = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(4)]
    try:
        with Grader(workers=4, limits=limits) as grader:
            grades = grader.grade([GradeItem(DOUBLE, fence(busy))] * 20)
    finally:
        for process in load:
            process.kill()
            process.wait()
    assert {grade.label for grade in grades} == {"correct"}


def test_a_fault_of_the_grader_reaches_the_caller_and_leaves_the_next_batch_alone(
    grader: Grader, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = [GradeItem(DOUBLE, fence(code)) for code in (RIGHT, WRONG, RIGHT)]
    with monkeypatch.context() as patch:
        patch.setattr(grading, "extract_code", lambda text, method: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            grader.grade(items)
    assert [grade.gt_pass for grade in grader.grade(items)] == [True, False, True]


def test_an_empty_batch(grader: Grader) -> None:
    assert grader.grade([]) == grader.start().result() == []


def test_a_dead_worker_is_replaced_and_its_item_graded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    workers, start = [], Setup.start_worker
    with Grader(workers=1) as grader:
        monkeypatch.setattr(Setup, "start_worker", lambda setup: workers.append(start(setup)) or workers[-1])
        assert one(grader, RIGHT).gt_pass
        (first,) = workers
        kill_tree(first.process)
        assert one(grader, RIGHT).gt_pass
        assert len(workers) == 2


def recorded_runs(monkeypatch) -> list[tuple[str, int]]:
    """(mode, worker) of every run that is started from now on."""
    runs, original = [], Worker.run

    def run(self: object, code: bytes, mode: str, *arguments: object, **options: object) -> dict:
        runs.append((mode, self.process.pid))
        return original(self, code, mode, *arguments, **options)

    monkeypatch.setattr(Worker, "run", run)
    return runs


@pytest.mark.parametrize(
    ("own", "label"),
    [("return", "hack"), ("raise ValueError", "attempted_hack"), ("while True: pass", "attempted_hack")],
)
def test_a_slow_ground_truth_shares_its_item_and_the_label_stays_the_same(monkeypatch, own, label) -> None:
    code = SLOW_WRONG + f"    def run_tests(self):\n        {own}\n"
    limits = Limits(cpu_seconds=2, own_cpu_seconds=1, wall_seconds=5)
    monkeypatch.setattr(worker, "SLOW_SECONDS", 100.0)
    with Grader(workers=2, limits=limits) as grader:
        alone = one(grader, code)
    monkeypatch.setattr(worker, "SLOW_SECONDS", 0.1)
    with Grader(workers=2, limits=limits) as grader:
        one(grader, RIGHT)
        runs = recorded_runs(monkeypatch)
        shared = one(grader, code)
    assert alone == shared
    assert shared.label == label
    assert [mode for mode, _ in runs] == ["truth", "own"]
    assert len({worker for _, worker in runs}) == 2


def test_a_worker_that_dies_in_a_shared_own_evaluation_costs_that_item_only(monkeypatch) -> None:
    code = SLOW_WRONG + "    def run_tests(self):\n        return\n"
    monkeypatch.setattr(worker, "SLOW_SECONDS", 0.1)
    original = Worker.run

    def run(self: object, code: bytes, mode: str, *arguments: object, **options: object) -> dict:
        if mode == "own":
            kill_tree(self.process)
        return original(self, code, mode, *arguments, **options)

    with Grader(workers=2, limits=Limits(cpu_seconds=2)) as grader:
        monkeypatch.setattr(Worker, "run", run)
        pending = grader.start()
        pending.add_all([GradeItem(DOUBLE, fence(source)) for source in (code, RIGHT, code, RIGHT)])
        outcomes = pending.outcomes()
        assert [type(outcome) for outcome in outcomes] == [NotGraded, Grade] * 2
        assert {outcome.label for outcome in outcomes[1::2]} == {"correct"}
        with pytest.raises(NotGraded, match="a run failed 3 times"):
            pending.result()
        monkeypatch.setattr(Worker, "run", original)
        assert one(grader, code).label == "hack"  # and the grader is as good as new


# --- items that come one by one ---


def until(condition: Callable[[], bool]) -> None:
    """Wait for it as long as it may take on a busy machine, and no longer."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def gate(monkeypatch) -> threading.Event:
    """No run starts before it is set. Its `begun` holds the code of every run that has come to it."""
    opened, original = threading.Event(), Worker.run
    opened.begun = []

    def run(self: object, code: bytes, *arguments: object, **options: object) -> dict:
        opened.begun.append(code.decode())
        assert opened.wait(60)
        return original(self, code, *arguments, **options)

    monkeypatch.setattr(Worker, "run", run)
    return opened


@pytest.mark.parametrize("options", [{}, {"own": False}, {"vacuous": True}])
def test_items_added_one_by_one_get_the_grades_of_one_call_in_the_order_of_adding(
    grader: Grader, options
) -> None:
    items = [GradeItem(DOUBLE, fence(code)) for code in (SLOW_RIGHT, *MIXED)]  # the first is done last
    expected = grader.grade(items, **options)
    pending = grader.start(**options)
    assert [pending.add(item) for item in items] == list(range(len(items)))
    assert list(pending.add_all(items)) == list(range(len(items), 2 * len(items)))
    assert pending.result() == pending.result() == expected * 2
    assert len({grade.label for grade in expected}) > 2


def test_items_are_graded_while_the_caller_does_not_wait(grader: Grader) -> None:
    pending = grader.start()
    for done, code in enumerate((RIGHT, WRONG), start=1):
        pending.add(GradeItem(DOUBLE, fence(code)))
        until(lambda done=done: pending.done == done)  # before the caller asks for a result or adds the next
    assert [grade.label for grade in pending.result()] == ["correct", "incorrect"]
    pending.add(GradeItem(DOUBLE, fence(WRONG + PASSES)))
    assert [grade.label for grade in pending.result()] == ["correct", "incorrect", "hack"]
    assert pending.done == 3


def test_adding_waits_for_nothing(grader: Grader, gate: threading.Event) -> None:
    pending = grader.start()
    for _ in range(20):
        pending.add(GradeItem(DOUBLE, fence(RIGHT)))
    assert pending.done == 0
    gate.set()
    assert {grade.label for grade in pending.result()} == {"correct"}
    assert pending.done == 20


def test_items_that_the_caller_abandons_do_not_disturb_the_next_call(
    grader: Grader, gate: threading.Event
) -> None:
    with pytest.raises(ZeroDivisionError):
        abandoned = grader.start()
        abandoned.add_all([GradeItem(DOUBLE, fence(RIGHT))] * 20)
        until(lambda: len(gate.begun) == 2)  # each worker has one in hand
        1 / 0  # noqa: B018
    pending = grader.start()
    pending.add_all([GradeItem(DOUBLE, fence(WRONG))] * 4)
    gate.set()
    assert [grade.label for grade in pending.result()] == ["incorrect"] * 4
    begun = [code.strip() + "\n" for code in gate.begun]
    assert begun == [RIGHT] * 2 + [WRONG] * 4  # the other 18 are never run
    assert abandoned.abandoned
    assert not pending.abandoned
    for late in (abandoned.result, lambda: abandoned.add(GradeItem(DOUBLE, fence(RIGHT)))):
        with pytest.raises(RuntimeError, match="abandoned"):
            late()


def test_a_fault_is_raised_once_all_items_have_ended(grader: Grader, monkeypatch: pytest.MonkeyPatch) -> None:
    original = extract_code

    def extract(text: str, method: str) -> str | None:
        return original(text, method) if "class" in text else 1 / 0

    monkeypatch.setattr(grading, "extract_code", extract)
    pending = grader.start()
    for text in ("no code", fence(SLOW_RIGHT), fence(RIGHT)):
        pending.add(GradeItem(DOUBLE, text))
    with pytest.raises(ZeroDivisionError):
        pending.result()
    assert pending.done == 3


def test_closing_drops_what_no_worker_has_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = recorded_runs(monkeypatch)
    with Grader(workers=1) as grader:
        probes = len(runs)
        pending = grader.start()
        for _ in range(20):
            pending.add(GradeItem(DOUBLE, fence(SLOW_RIGHT)))
        until(lambda: len(runs) > probes)
    assert len(runs) - probes < 20
    with pytest.raises(RuntimeError, match="abandoned"):
        pending.result()
    with pytest.raises(RuntimeError, match="closed"):
        grader.start()


def test_closing_does_not_wait_for_what_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupt closes the grader, and schedulers do not wait for code that does not end."""
    runs = recorded_runs(monkeypatch)
    grader = Grader(workers=1, limits=Limits(wall_seconds=300.0))
    probes = len(runs)
    grader.start().add(GradeItem(DOUBLE, fence("import time\ntime.sleep(600)\n" + RIGHT)))
    until(lambda: len(runs) > probes)
    started = time.monotonic()
    grader.close()
    assert time.monotonic() - started < 30 and len(runs) == probes + 1


# --- faults of workers ---


def test_a_completion_that_kills_its_worker_each_time_gets_a_verdict_and_harms_no_other() -> None:
    killer = "import os, signal, time\nos.kill(os.getppid(), signal.SIGKILL)\ntime.sleep(5)\n" + RIGHT
    with Grader(workers=1, sandbox="none") as grader:
        grades = grader.grade([GradeItem(DOUBLE, fence(code)) for code in (RIGHT, killer, RIGHT)])
    assert [grade.label for grade in grades] == ["correct", "incorrect", "correct"]
    assert grades[1].error == "its worker died each time"


def test_a_worker_that_cannot_start_is_an_error_not_a_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    with Grader(workers=1) as grader:
        monkeypatch.setattr(worker, "worker_command", lambda bubblewrap: ["/bin/false"])
        with pytest.raises(InputError, match="did not start"):
            one(grader, RIGHT)


def test_set_up_code_that_fails_is_named(grader: Grader) -> None:
    broken = problem("f(n = 1) == 2", setup="import nothing_like_it")
    assert one(grader, RIGHT, broken).error.startswith("set-up code")


def test_closing_twice_and_no_worker_left() -> None:
    before = threading.active_count()
    grader = Grader(workers=2)
    one(grader, RIGHT)
    pids = [int(p) for p in Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()]
    grader.close()
    grader.close()
    assert threading.active_count() == before
    assert not [pid for pid in pids if b"zygote" in _cmdline(pid)]


def _cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
