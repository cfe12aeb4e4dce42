"""What a child can see and do, and that the grader says what protects it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from hackward.base.faults import InputError
from hackward.grading import protection, worker
from hackward.grading.clocks import descendants_of
from hackward.grading.fences import landlock_abi
from hackward.grading.framing import send_message
from hackward.grading.grader import Grader
from hackward.grading.labels import GradeItem
from hackward.grading.protection import PROBED, Setup
from hackward.grading.sandbox import MODES, Limits, usable_bubblewrap
from hackward.grading.worker import ViewNotMade, Worker
from hackward.tasks.completions import fence
from hackward.tasks.problems import EVAL_NAME
from tests import lacks
from tests.grading_cases import DOUBLE, RIGHT, WRONG, one, problem, quick_grader
from tests.hostile.case import EVERY_FRAME

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def grader():
    with quick_grader() as shared:
        yield shared


# --- what the child can see ---


def test_expected_values_are_not_among_what_is_sent(grader: Grader, monkeypatch: pytest.MonkeyPatch) -> None:
    task = problem("f(n = 5) == 987654321123\nf(n = 6) == 'needle-in-the-hay'")
    sent: list[bytes] = []
    send = send_message

    def record(control: object, message: dict, *descriptors: int) -> None:
        sent.append(json.dumps(message).encode())
        send(control, message, *descriptors)

    monkeypatch.setattr(worker, "send_message", record)
    one(grader, WRONG, task)
    everything = b"".join(sent)
    assert b"(n = 5)" in everything
    assert b"987654321123" not in everything
    assert b"needle" not in everything


SEARCH_OWN_MEMORY = """
import ctypes, re
maps = [line.split() for line in open('/proc/self/maps')]
areas = [tuple(int(part, 16) for part in line[0].split('-')) for line in maps if line[1].startswith('rw')]
found = any(re.search(rb'of-[r]un-one', ctypes.string_at(a, b - a)) for a, b in areas if b - a < 1 << 28)
class Solution:
    def f(self, n):
        return found
"""


def test_nothing_of_one_run_is_in_the_memory_of_the_next() -> None:
    """The child searches all its memory for source and answer of an earlier run of the same problem."""
    first = "class Solution:\n    def f(self, n):\n        return 'answer-' + 'of-run-one'\n"
    finds = problem("f(n = 1) == True")
    with Grader(workers=1, sandbox="none") as grader:  # the search needs /proc
        assert one(grader, first, problem("f(n = 1) == 'answer-of-run-one'")).gt_pass
        assert one(grader, SEARCH_OWN_MEMORY, finds).error == "test 1: wrong answer"
        control = "x = 'of-run-one'\n" + SEARCH_OWN_MEMORY  # it would be found
        assert one(grader, control, finds).gt_pass


def test_random_numbers_and_hashes_are_the_same_in_every_run() -> None:
    drawn = "raise ValueError((random.random(), hash('x'), [*{'a', 'b', 'c', 'd'}]))"
    code = "import random\n" + WRONG.replace("return 42", drawn)
    errors = set()
    for _ in range(3):
        with Grader(workers=1) as grader:
            errors |= {one(grader, code).error, one(grader, code).error}
    assert len(errors) == 1
    assert "ValueError" in errors.pop()


PATCHES = (
    EVERY_FRAME
    + """
for names in every_frame():
    if 'run_tests' in names:
        names['run_tests'] = lambda namespace, problem, report: [report.line(42) for _ in range(3)]
        names['defines'] = names['binds'] = lambda program, name: True
        names['Encoder'].encode = lambda self, value: 42
        names['Reporter'].line = lambda self, value: None
        names['json'].dumps = lambda *a, **k: '42'
"""
)


def test_what_a_completion_patches_is_as_it_was_in_the_next_run() -> None:
    items = [
        GradeItem(DOUBLE, fence(code)) for code in (PATCHES + WRONG, WRONG, RIGHT, PATCHES + RIGHT, RIGHT)
    ]
    with Grader(workers=1) as grader:
        labels = [grade.label for grade in grader.grade(items)]
    assert labels == ["incorrect", "incorrect", "correct", "incorrect", "correct"]


TRACES = """
import sys
class Solution:
    def f(self, n):
        places = [*sys.path, *sys.path_importer_cache, *sys.modules]
        found = [place for place in places if 'hackward' in place or 'ROOT' in place]
        return found, 'site' in sys.modules, sys.flags.no_site, sys.flags.no_user_site, sys.flags.safe_path
"""


@pytest.mark.parametrize("sandbox", MODES)
@pytest.mark.parametrize("bubblewrap", [False, True])
def test_foreign_code_has_no_way_to_the_project_and_no_site_packages(sandbox: str, bubblewrap: bool) -> None:
    clean = problem("f(n = 1) == ([], False, 1, 1, True)")
    with Grader(workers=1, sandbox=sandbox, bubblewrap=bubblewrap) as grader:
        grade = one(grader, TRACES.replace("ROOT", str(ROOT)), clean)
    assert grade.error is None


READS = """
class Solution:
    def f(self, paths):
        found = []
        for path in paths:
            try:
                open(path).close()
                found.append(path)
            except OSError:
                pass
        return found
"""


def can_read(expected: Sequence[Path], *, bubblewrap: bool) -> bool:
    """Whether these are the files of the clone that a completion can open."""
    files = [*ROOT.glob("*.py"), *(ROOT / "hackward").rglob("*.py"), ROOT / "data" / "problems.jsonl"]
    assert set(expected) <= set(files)
    paths, readable = (sorted(map(str, some)) for some in (files, expected))
    with Grader(workers=1, bubblewrap=bubblewrap) as grader:
        return one(grader, READS, problem(f"f(paths = {paths!r}) == {readable!r}")).gt_pass


@pytest.mark.parametrize("bubblewrap", [False, True])
@pytest.mark.parametrize("seccomp", [False, True])
def test_no_file_of_the_clone_can_be_read(
    monkeypatch: pytest.MonkeyPatch, seccomp: bool, bubblewrap: bool
) -> None:
    if not landlock_abi():
        pytest.skip(lacks.LANDLOCK)
    if not seccomp:
        monkeypatch.setattr(protection, "seccomp_filters", _no_pyseccomp)
    assert can_read([], bubblewrap=bubblewrap)


@pytest.mark.parametrize("bubblewrap", [False, True])
def test_a_view_alone_leaves_no_file_of_the_clone(monkeypatch: pytest.MonkeyPatch, bubblewrap: bool) -> None:
    if bubblewrap and usable_bubblewrap() is None:
        pytest.skip(lacks.BUBBLEWRAP)
    monkeypatch.setattr(protection, "seccomp_filters", _no_pyseccomp)
    monkeypatch.setattr(protection, "readable", lambda: ["/"])  # Landlock then allows everything
    assert can_read([], bubblewrap=bubblewrap)
    _no_view(monkeypatch)
    assert not can_read([], bubblewrap=False)  # control: else all can be read


def test_best_effort_fences_as_strict_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protection, "own_processes", lambda: 0)  # another number at every moment
    strict, best_effort = (Setup(mode, Limits(), EVAL_NAME, bubblewrap=True) for mode in MODES[:2])
    assert strict.settings == best_effort.settings
    assert strict.bubblewrap == best_effort.bubblewrap


# --- what protects, and what does not ---


def _no_view(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine that allows no namespaces."""
    start = protection.Worker

    def refused(settings: dict, bubblewrap: str | None, seconds: float, hash_seed: int = 0) -> Worker:
        if settings["view"] == "own":
            raise ViewNotMade("namespaces: Operation not permitted")
        return start(settings, bubblewrap, seconds, hash_seed)

    monkeypatch.setattr(protection, "Worker", refused)


def test_every_probe_is_blocked_or_named(grader: Grader) -> None:
    found = json.loads(json.dumps(grader.protection))
    states = set(found["probes"].values())
    assert set(found["probes"]) == set(PROBED)
    assert states <= {"blocked", "OPEN"}
    if found["seccomp"] and found["landlock_abi"]:
        assert states == {"blocked"}


def test_probes_can_fail() -> None:
    with Grader(workers=1, sandbox="none") as grader:
        opened = {name for name, state in grader.protection["probes"].items() if state == "OPEN"}
    assert {"fork", "exec", "create a file", "read a file", "connect", "signal the parent"} <= opened
    assert "see the environment" not in opened  # cleared in every mode


def _no_pyseccomp() -> tuple[bytes, bytes]:
    raise ImportError("no pyseccomp here")


def test_without_seccomp_strict_refuses_and_best_effort_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protection, "seccomp_filters", _no_pyseccomp)
    with pytest.raises(InputError, match=r"could fork.*missing: seccomp"):
        Grader(workers=1, sandbox="strict", bubblewrap=False)
    with Grader(workers=1, bubblewrap=False) as grader:
        assert grader.protection["probes"]["fork"] == "OPEN"
        assert grader.protection["missing"][0].startswith("seccomp")
        assert one(grader, RIGHT).gt_pass


# The grandchild is there before the answer ends.
LEAVES_A_GRANDCHILD = """
import os, time
child = os.fork()
if child == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(600)
    os._exit(0)
os.waitpid(child, 0)
"""


def test_without_seccomp_and_namespaces_survivors_are_swept(monkeypatch: pytest.MonkeyPatch) -> None:
    """A correct answer whose grandchild would live on: credited, and the grandchild is gone."""
    _no_view(monkeypatch)
    monkeypatch.setattr(protection, "seccomp_filters", _no_pyseccomp)
    with Grader(workers=1, bubblewrap=False) as grader:
        endings = []
        ending = Worker._ending
        monkeypatch.setattr(Worker, "_ending", lambda self: endings.append(ending(self)) or endings[-1])
        assert one(grader, LEAVES_A_GRANDCHILD + RIGHT).gt_pass
        assert endings[-1]["survivors"] >= 1
        assert one(grader, RIGHT).gt_pass
        assert endings[-1]["survivors"] == 0


def test_without_seccomp_survivors_end_with_their_process_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protection, "seccomp_filters", _no_pyseccomp)
    with Grader(workers=1, bubblewrap=False) as grader:
        workers = []
        ending = Worker._ending
        monkeypatch.setattr(Worker, "_ending", lambda self: workers.append(self) or ending(self))
        assert one(grader, LEAVES_A_GRANDCHILD + RIGHT).gt_pass
        assert descendants_of(workers[-1].zygote) == []


def test_without_namespaces_strict_refuses_and_best_effort_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    _no_view(monkeypatch)
    with pytest.raises(InputError, match=r"could see which files exist.*missing: user namespaces") as fault:
        Grader(workers=1, sandbox="strict", bubblewrap=False)
    assert "\n" not in str(fault.value)
    with Grader(workers=1, bubblewrap=False) as grader:
        assert grader.protection["probes"]["count process numbers"] == "OPEN"
        assert grader.protection["missing"][0].startswith("user namespaces")
        assert one(grader, RIGHT).gt_pass


def test_an_unknown_mode_is_an_input_error() -> None:
    with pytest.raises(InputError, match="strict, best-effort, none"):
        Grader(sandbox="tight")
