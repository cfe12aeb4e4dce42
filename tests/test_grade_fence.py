"""No run learns or leaves anything, none outlasts its limits, and the table of what holds is true."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from hackward.base.faults import InputError
from hackward.grading import claims, clocks, probes, protection, worker
from hackward.grading.claims import Truth
from hackward.grading.clocks import Allowed, Watch
from hackward.grading.grader import Grader
from hackward.grading.protection import print_protection
from hackward.grading.sandbox import MODES, Limits, usable_bubblewrap
from hackward.grading.worker import Lines, Worker
from tests import lacks
from tests.grading_cases import RIGHT, WRONG, one, problem
from tests.hostile.battery import as_nobody

ROOT = Path(__file__).resolve().parents[1]
LIMITS = Limits(cpu_seconds=0.5, own_cpu_seconds=1, wall_seconds=2, wall_ceiling_seconds=20)


@pytest.fixture(scope="module")
def grader():
    with Grader(workers=1, limits=LIMITS) as shared:
        yield shared


# --- nothing is learned ---


def test_no_answer_is_compared_before_its_run_has_ended(
    grader: Grader, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    matches, ending = claims.matches, Worker._ending

    def compared(*values: object) -> bool:
        events.append("compared")
        return matches(*values)

    def ended(self: Worker) -> dict:
        events.append("ended")
        return ending(self)

    monkeypatch.setattr(claims, "matches", compared)
    monkeypatch.setattr(Worker, "_ending", ended)
    assert one(grader, RIGHT).gt_pass
    assert events == ["ended", "compared", "compared", "compared"]


# Tells apart, by its own clock, a run that is let go on after its first answer from one that is not.
LASTS = """
import time
SEEN = []
class Solution:
    def f(self, n):
        SEEN.append(n)
        if len(SEEN) == 3:
            raise ValueError("asked for all three")
        time.sleep(0.1)
        return ANSWER
"""


@pytest.mark.parametrize("answer", ["2 * n", "None", "'x' * 20000"], ids=["right", "wrong", "too long"])
def test_a_run_is_asked_for_every_answer_whatever_the_first_is(
    grader: Grader, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    answers: list[int] = []
    monkeypatch.setattr(Truth, "end", lambda self: answers.append(len(self.answers)))
    one(grader, LASTS.replace("ANSWER", answer))
    assert set(answers) == {3}  # code with a clock is run several times


def test_what_a_run_may_write_does_not_depend_on_what_is_expected() -> None:
    check = SimpleNamespace(line=lambda data: True, error=None)
    lines = Lines()
    lines.add(b"1" * worker.ROOM)
    assert lines.hand_to(check)
    lines.add(b"1")
    assert not lines.hand_to(check)
    assert check.error == "answers longer than any right ones"


def test_lines_are_handed_on_whole_and_once() -> None:
    seen: list[bytes] = []
    check = SimpleNamespace(line=lambda data: seen.append(data) or True, error=None)
    lines = Lines()
    for part in (b"on", b"e\ntwo\n\nthr", b"ee", b"\n"):
        lines.add(part)
        assert lines.hand_to(check)
    assert seen == [b"one", b"two", b"", b"three"]


# --- nothing is left ---


def test_the_words_of_a_run_are_the_same_for_every_run(
    grader: Grader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What goes to the worker itself, whose memory every run inherits, tells nothing of the runs before."""
    one(grader, RIGHT)
    sent: list[str] = []
    send = worker.send_message

    def record(control: object, message: dict, *descriptors: int) -> None:
        sent.append(json.dumps(message))
        send(control, message, *descriptors)

    monkeypatch.setattr(worker, "send_message", record)
    for code in (RIGHT, WRONG, WRONG + "    def run_tests(self):\n        pass\n", "while True: pass"):
        one(grader, code)
    assert set(sent) == {'{"op": "run"}'}


# How often memory holds an ending with exit status `status`. It is read through a pipe, which refuses what is
# not there. The pattern is made in pieces, so that it is not found where it is made.
SEARCH = """
import ctypes, gc, os, re
class Solution:
    def f(self, status):
        libc = ctypes.CDLL(None)
        libc.sbrk.restype = ctypes.c_void_p
        libc.write.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t)
        source, sink = os.pipe()
        zeros = "[" + chr(0) + "]"
        pattern = re.compile((zeros * 5 + "[" + chr(status) + "]" + zeros * 6).encode("latin-1"))
        top = libc.sbrk(0)
        starts = {(id(item) >> 20) << 20 for item in gc.get_objects()}
        starts |= {top - (n << 20) for n in range(1, 17)}
        found = 0
        for start in starts:
            for address in range(start & ~4095, start + (1 << 20), 4096):
                if libc.write(sink, address, 4096) == 4096:
                    found += len(pattern.findall(os.read(source, 4096)))
        return found
LEAVE
"""
STATUS = "leave = os._exit\nos._exit = lambda status: leave(0xA7)"


def test_the_exit_status_of_a_run_is_not_in_the_memory_of_the_next() -> None:
    """As many words like it are found after a run with that status as before."""
    task = problem("f(status = 0xA7) == -1")
    counts = []
    with Grader(workers=1, limits=LIMITS, bubblewrap=False) as grader:
        for leave in ("", "", "", STATUS, ""):
            counts.append(_answer(grader, SEARCH.replace("LEAVE", leave), task))
    assert counts[4] == counts[2]


def _answer(grader: Grader, code: str, task: object) -> int:
    """What a completion answers to the only test of a problem."""
    answers: list[bytes] = []
    end = Truth.end

    def kept(self: Truth) -> None:
        answers.extend(self.answers)
        end(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Truth, "end", kept)
        one(grader, code, task)
    return int(answers[0])


def test_set_up_code_may_start_threads_between_two_runs() -> None:
    threads = "import threading\nt = threading.Thread(target=int)\nt.start()\nt.join()\n"
    with Grader(workers=1, limits=LIMITS, bubblewrap=False) as grader:
        for number in range(2):
            task = problem(f"f(n = {number}) == {2 * number}", setup=threads + f"N = {number}")
            assert one(grader, RIGHT, task).gt_pass


# --- no worker is held ---


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch):
    """A run of two processes whose clocks a test sets: {pid: [computed, delayed]}."""
    books: dict[int, list[float]] = {7: [0.0, 0.0], 8: [0.0, 0.0]}
    now = [100.0]
    monkeypatch.setattr(clocks, "descendants_of", lambda pid: list(books))
    monkeypatch.setattr(clocks, "computed", lambda pid: books[pid][0])
    monkeypatch.setattr(clocks, "delayed", lambda pid: books[pid][1])
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return books, now


BOUNDS = {"wall_seconds": 10, "wall_ceiling_seconds": 100}


def test_the_cpu_time_of_all_processes_counts_also_of_those_that_have_ended(processes) -> None:
    books, now = processes
    watch = Watch(1, Allowed.one_answer(2.0), BOUNDS)
    now[0] += 1
    books[7][0] = books[8][0] = 0.9
    assert watch.reached() is None
    del books[8]
    books[9] = [0.3, 0.0]
    assert watch.reached() == "CPU time limit"


def test_an_answer_may_take_its_own_limit_and_all_of_them_the_whole_one(processes) -> None:
    books, now = processes
    watch = Watch(1, Allowed(whole=5.0, per_answer=2.0), BOUNDS)
    for taken in (1.9, 3.8):
        books[7][0] = taken
        assert watch.reached() is None
        watch.answered()
        assert watch.reached() is None
    books[7][0] = 4.9
    assert watch.reached() is None
    watch.answered()
    books[7][0] = 5.0
    assert watch.reached() == "CPU time limit"


def test_what_goes_on_without_an_answer_ends_at_the_limit_of_one(processes) -> None:
    books, now = processes
    watch = Watch(1, Allowed(whole=8.0, per_answer=2.0), BOUNDS)
    books[7][0] = 1.0
    watch.answered()
    assert watch.reached() is None
    books[7][0] = 2.9
    assert watch.reached() is None and watch.pause <= 0.1 + 1e-9
    books[7][0] = 3.0
    assert watch.reached() == "CPU time limit"


def test_an_answer_that_was_not_read_yet_counts_and_gives_no_more_than_the_whole_limit(processes) -> None:
    books, now = processes
    watch = Watch(1, Allowed(whole=5.0, per_answer=2.0), BOUNDS)
    books[7][0] = 3.0
    assert watch.reached(lambda: True) is None
    books[7][0] = 4.9
    assert watch.reached() is None
    books[7][0] = 5.0
    assert watch.reached(lambda: True) == "CPU time limit"


def test_idling_counts_and_waiting_for_a_processor_does_not(processes) -> None:
    books, now = processes
    watch = Watch(1, Allowed.one_answer(50.0), BOUNDS)
    now[0] += 40
    books[7] = [3.0, 30.0]
    assert watch.reached() is None  # idle for 7 seconds
    now[0] += 4
    assert watch.reached() == "wall time limit"
    books[8] = [1.5, 0.0]
    assert watch.reached() is None


def test_the_ceiling_holds_however_busy_the_machine(processes) -> None:
    books, now = processes
    watch = Watch(1, Allowed.one_answer(50.0), BOUNDS)
    now[0] += 101
    books[7] = [3.0, 98.0]
    assert watch.reached() == "wall time limit"


def test_the_books_of_the_kernel_are_read() -> None:
    busy = "import time\nwhile time.process_time() < 0.3: pass\nprint(flush=True)\ninput()"
    with subprocess.Popen(
        [sys.executable, "-c", busy], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        child.stdout.readline()
        assert child.pid in clocks.descendants_of(os.getpid())
        assert 0.3 <= clocks.computed(child.pid) < 1
        assert clocks.delayed(child.pid) > 0
        child.communicate(b"\n")
    assert clocks.computed(child.pid) == 0
    assert clocks.delayed(child.pid) == 0


def test_strict_refuses_where_the_clocks_of_a_run_cannot_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where /proc hides the worker from who has started it."""
    assert clocks.can_watch(os.getpid())
    assert not clocks.can_watch(1 << 22)  # the kernel gives no number so high
    asked: list[int] = []
    monkeypatch.setattr(protection, "can_watch", asked.append)
    with pytest.raises(InputError, match="graded code could outlast its limits"):
        Grader(workers=1, sandbox="strict", bubblewrap=False)
    assert asked[0] in range(2, 1 << 22)
    assert asked[0] != os.getpid()


def test_where_no_process_is_seen_a_run_still_ends_and_is_a_verdict(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module, name in ((worker, "children_of"), (worker, "descendants_of"), (clocks, "children_of")):
        monkeypatch.setattr(module, name, lambda pid: [])
    with Grader(workers=1, limits=LIMITS, bubblewrap=False) as grader:
        assert one(grader, "import time\ntime.sleep(1000)").error == "wall time limit"
        busy = one(grader, "while True: pass").error
        assert busy in ("CPU time limit", "wall time limit")  # on a busy machine the second comes first
        assert one(grader, RIGHT).gt_pass


# Stops the process that would end it, where nothing prevents that.
STOPS_THE_WORKER = "import os, signal, time\nos.kill(os.getppid(), signal.SIGSTOP)\ntime.sleep(1000)\n"


def test_a_worker_that_was_stopped_is_replaced() -> None:
    with Grader(workers=1, sandbox="none", limits=LIMITS) as grader:
        started = time.monotonic()
        grade = one(grader, STOPS_THE_WORKER)
        assert time.monotonic() - started < LIMITS.cpu_seconds + LIMITS.wall_seconds + 5
        assert grade.error == "wall time limit"
        assert one(grader, RIGHT).gt_pass


GRADES_A_SLEEPER = """
import sys
sys.path.insert(0, ROOT)
from tests.grading_cases import *
with Grader(workers=1, sandbox=sys.argv[1], bubblewrap=sys.argv[2] == "1") as grader:
    print("ready", flush=True)
    one(grader, "import time; time.sleep(1000)")
"""


@pytest.mark.parametrize(("sandbox", "bubblewrap"), [("strict", "0"), ("strict", "1"), ("none", "0")])
def test_a_run_ends_with_the_grader_that_is_killed(sandbox: str, bubblewrap: str) -> None:
    if bubblewrap == "1" and usable_bubblewrap() is None:
        pytest.skip(lacks.BUBBLEWRAP)
    program = GRADES_A_SLEEPER.replace("ROOT", repr(str(ROOT)))
    command = [sys.executable, "-c", program, sandbox, bubblewrap]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as grader:
        grader.stdout.readline()
        time.sleep(1)
        family = clocks.descendants_of(grader.pid)
        grader.kill()
    assert len(family) >= 2  # a worker and the run
    until = time.monotonic() + 10
    while any(clocks.computed(pid) for pid in family):
        assert time.monotonic() < until
        time.sleep(0.05)


# --- what holds in which mode: the table of spec/grader.md ---


def _table() -> list[tuple[str, str, str, str, str]]:
    """Rows of (sandbox, user, seccomp, view, probes that succeed), as the specification says."""
    rows = []
    for line in (ROOT / "spec/grader.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 5 and cells[1] in ("any", "root", "ordinary"):
            rows.append(tuple(cells))
    return rows


TABLE = _table()
FACTS = """
import json, sys
sys.path.insert(0, ROOT)
from hackward.grading import protection
from hackward.grading.grader import Grader
from hackward.grading.worker import ViewNotMade
sandbox, seccomp, view = sys.argv[1:]
def no_seccomp():
    raise ImportError("no pyseccomp here")
if seccomp == "no":
    protection.seccomp_filters = no_seccomp
real = protection.Worker
def worker(settings, bubblewrap, seconds, hash_seed=0):
    if settings["view"] == "own" and view == "no":
        raise ViewNotMade("none here")
    return real(settings, bubblewrap, seconds, hash_seed)
protection.Worker = worker
with Grader(workers=1, sandbox=sandbox, bubblewrap=view == "bubblewrap") as grader:
    print(json.dumps(grader.protection))
"""


def _opened(sandbox: str, user: str, seccomp: str, view: str) -> set[str]:
    """The probes that succeed in a process of its own."""
    program = FACTS.replace("ROOT", repr(str(ROOT)))
    command = [sys.executable, "-B", "-c", program, sandbox, seccomp, view]
    if user == "ordinary" and os.geteuid() == 0:
        command = as_nobody(command)
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", timeout=120)
    assert done.returncode == 0, done.stderr[-400:]
    return {name for name, state in json.loads(done.stdout)["probes"].items() if state == "OPEN"}


@pytest.mark.parametrize("row", TABLE, ids=["; ".join(row[:4]) for row in TABLE])
def test_the_table_of_the_specification_says_what_holds(row: tuple[str, str, str, str, str]) -> None:
    sandboxes, users, seccomp, views, said = row
    expected = set() if said == "none" else set(said.split(", "))
    checked = 0
    for sandbox in sandboxes.split(", "):
        for user in ("root", "ordinary") if users == "any" else (users,):
            for view in views.split(", "):
                no_bubblewrap = view == "bubblewrap" and usable_bubblewrap() is None
                if not no_bubblewrap and (user == "ordinary" or os.geteuid() == 0):
                    assert _opened(sandbox, user, seccomp, view) == expected, (sandbox, user, view)
                    checked += 1
    if not checked:
        pytest.skip(f"for this row of the table run it as root, or: {lacks.BUBBLEWRAP}")


def test_the_table_names_every_mode_and_only_probes_that_there_are() -> None:
    assert {sandbox for row in TABLE for sandbox in row[0].split(", ")} == set(MODES)
    assert {view for row in TABLE for view in row[3].split(", ")} == {"bubblewrap", "own", "no"}
    assert {name for row in TABLE for name in row[4].split(", ")} <= {*probes.PROBED, "none"}


def test_the_line_on_protection_says_in_words_what_holds(grader: Grader, capsys) -> None:
    from rich.console import Console

    found = dict(grader.protection)
    found["probes"] = dict.fromkeys(probes.PROBED, "blocked") | {"connect": "OPEN"}
    print_protection(found, Console())
    line = capsys.readouterr().out
    assert line.count("\n") == 1
    cannot, can = re.search(r"it cannot (.*?); OPEN: (.*?) \(", line).groups()
    assert "leave word for a later run" in cannot
    assert "reach the network" not in cannot
    assert can == "connect"
