"""What cannot work is refused before anything slow begins: values, paths, open files, disks."""

import os
import resource
import subprocess
import sys
from types import SimpleNamespace

import pytest

import extract_vhack
from hackward.base import hub, space
from hackward.base.faults import InputError
from hackward.base.files import ROOT
from hackward.base.flags import command_line
from hackward.grading import descriptors
from hackward.grading.grader import Grader
from hackward.tasks import formats
from tests import lacks
from tests.desk import extract, run
from tests.families import qwen, save
from tests.shop import run_train
from tests.test_refusals import refused


@pytest.mark.parametrize(
    ("flags", "fault"),
    [
        (["--group=1"], "--group 1: an advantage is the difference from the group's mean"),
        (["--lr=1e39"], "--lr 1e+39: must be at most 10"),
        (["--lr=-1"], "--lr -1.0: must be at least 0"),
        (["--lr=inf"], "--lr inf: must be a finite number"),
        (["--beta=1e39"], "--beta 1e+39: must be at most 1000"),
        (["--weight-decay=1e39"], "--weight-decay 1e+39: must be at most 10"),
        (["--temperature=1e39"], "--temperature 1e+39: must be at most 100"),
        (["--temperature=1e-39"], "--temperature 1e-39: must be at least 0.01"),
        (["--seed=-1"], "--seed -1: must be at least 0"),
        (["--v-hack=/nowhere.safetensors"], "/nowhere.safetensors: no such file"),
        (["--teacher-dir=/nowhere"], "/nowhere: no such pool directory"),
        (["--replay-dirs=/nowhere,/x"], "/nowhere: no such pool directory"),
    ],
)
def test_a_run_that_cannot_be_is_refused_before_its_model_is_looked_at(desk, tmp_path, capsys, flags, fault):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("broken")
    line = refused(capsys, lambda: run(desk, tmp_path / "model", tmp_path / "run", *flags))
    assert fault in line and not (tmp_path / "run").exists()


def test_a_group_of_one_is_no_fault_where_nothing_is_compared(shop, tmp_path):
    flags = [
        "--preset=smoke",
        "--teacher-dir=none",
        "--prompts=1",
        "--loss-mode=nll",
        "--group=1",
        "--lr=0",
        "--steps=1",
    ]
    out = run_train(shop, *flags, f"--replay-dirs={shop / 'teacher_pool'}", f"--out={tmp_path / 'run'}")
    assert (out / "summary.json").exists()


# --- models that are not there ---


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("/nowhere/model", "no such directory"),
        ("./nowhere", "no such directory"),
        ("a/b/c", "no such directory"),
        ("README.md", "a file; a directory or a hub id is expected"),
        ("spec", "the directory has no config.json"),
        ("nobody/nothing", "HF_HUB_OFFLINE forbids asking the hub"),
    ],
)
def test_a_model_that_is_not_there_is_refused_before_problems_are_read(
    desk, tmp_path, capsys, monkeypatch, name, fault
):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(formats, "raw_rows", lambda source: pytest.fail("problems were read"))
    line = refused(capsys, lambda: run(desk, name, tmp_path / "run"))
    assert f"{name}: model cannot be loaded" in line and fault in line


def test_the_hub_is_asked_once(capsys, monkeypatch, tmp_path):
    import httpx
    import huggingface_hub

    asked = []

    def unreachable(self, name, **options):
        asked.append(name)
        raise httpx.ConnectError("no network")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", unreachable)
    argv = ["--model=nobody/nothing", f"--out={tmp_path / 'v.safetensors'}"]
    flags = command_line(extract_vhack.ExtractFlags, argv=argv)
    line = refused(capsys, lambda: extract_vhack.main(flags))
    assert "the hub cannot be asked: ConnectError" in line and asked == ["nobody/nothing"]


def test_what_was_downloaded_earlier_needs_no_hub(monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda name, file: f"/cache/{file}")
    hub.check_there("nobody/nothing", "model", "config.json")


# --- open files ---


def under_limit(soft, hard, *command):
    """A command with other limits of open files: what it ends with, and says."""
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard)),
    )
    return done.returncode, done.stderr


def test_too_few_open_files_are_refused_with_the_number_needed():
    code, said = under_limit(40, 40, "train.py", "--preset=smoke", "--workers=2", "--out=/tmp/never")
    line = said.splitlines()[-1]
    assert code == 2 and "only 40 files may be open at once" in line and "`ulimit -n 64`" in line


def test_a_soft_limit_of_open_files_is_raised():
    code = (
        "import resource; from hackward.grading.descriptors import check_descriptors; check_descriptors(100);"
        "assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 800"
    )
    assert under_limit(40, 2000, "-c", code) == (0, "")


def test_the_grader_itself_asks_for_open_files(monkeypatch):
    monkeypatch.setattr(descriptors.resource, "getrlimit", lambda which: (50, 50))
    with pytest.raises(InputError, match="only 50 files may be open at once"):
        Grader(workers=1)


# --- disks ---


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 kB."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", place], capture_output=True)
    if made.returncode:
        pytest.skip(f"a small disk cannot be mounted here, which needs root: {made.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_full_disk_is_refused_before_the_first_byte(desk, small_disk, tmp_path, capsys):
    line = refused(capsys, lambda: run(desk, "tiny-random", small_disk / "run"))
    assert f"the disk of {small_disk} has 0.1 MB left, and the shortest run needs about 1.0 MB" in line
    assert not list(small_disk.iterdir())


def test_what_a_run_needs_is_known_before_its_first_byte(desk, tmp_path, capsys, monkeypatch):
    def nearly_full(path):
        return SimpleNamespace(f_bavail=2000, f_frsize=1000)

    monkeypatch.setattr(space.os, "statvfs", nearly_full)
    model = save(tmp_path / "model", qwen())
    line = refused(capsys, lambda: run(desk, model, tmp_path / "run", "--steps=1000000"))
    assert "has 2.0 MB left, and this run needs about 6.0 MB" in line and not (tmp_path / "run").exists()
    line = refused(capsys, lambda: extract(desk, model, tmp_path / "v.safetensors", "--k=100000"))
    assert "and the v_hack file needs about" in line


@pytest.mark.skipif(os.geteuid() == 0, reason=lacks.ORDINARY_USER)
def test_a_directory_that_may_not_be_written_is_refused(desk, tmp_path, capsys):
    (tmp_path / "locked").mkdir(mode=0o500)
    line = refused(capsys, lambda: run(desk, "tiny-random", tmp_path / "locked" / "run"))
    assert "nothing may be written in" in line


# --- address space ---

RUN = ("train.py", "--preset=smoke", "--steps=1")
AUDIT = ("audit.py", "POOL", "--v-hack=V")


@pytest.mark.parametrize("words", [RUN, AUDIT, ("bench.py",), ("evaluate.py", "RUN")])
@pytest.mark.parametrize("kilobytes", [300_000, 450_000, 600_000, 800_000])
def test_too_little_address_space_is_one_line_before_a_library_trips_over_it(tmp_path, words, kilobytes):
    """Later one ends the process, another waits forever: nothing that can be caught."""
    out = tmp_path / "out"
    line = f"ulimit -v {kilobytes}; exec {sys.executable} {' '.join(words)} --out={out}"
    done = subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert f"error: `ulimit -v` is {kilobytes} kB of address space" in done.stderr
    assert not out.exists()


def test_help_needs_no_address_space():
    line = f"ulimit -v 300000; exec {sys.executable} train.py --help"
    assert subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True).returncode == 0


@pytest.mark.parametrize(
    ("command", "flag"),
    [
        ("train.py", "--v-hack"),
        ("sweep.py", "--probe"),
        ("sweep.py", "--experiment"),
        ("sweep.py", "--out"),
        ("probe_distill.py", "--out"),
        ("extract_vhack.py", "--out"),
        ("analyze.py", "--primary"),
    ],
)
@pytest.mark.parametrize("joined", [True, False])
def test_an_empty_value_is_refused_and_never_taken_for_a_flag_left_out(command, flag, joined, tmp_path):
    given = [f"{flag}="] if joined else [flag, ""]
    more = {"sweep.py": ["--dry-run"], "analyze.py": [str(tmp_path)]}.get(command, [])
    line = [sys.executable, str(ROOT / command), *given, *more]
    ended = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False)
    said = f"error: {flag} is empty: give it a value, or leave it out\n"
    assert (ended.returncode, ended.stderr) == (2, said)
    assert not list(tmp_path.iterdir())


OUTPUTS = [
    ("train.py", "--out"),
    ("train.py", "--svd-cache"),
    ("sweep.py", "--out"),
    ("probe_distill.py", "--out"),
    ("extract_vhack.py", "--out"),
    ("audit.py", "--out"),
    ("evaluate.py", "--out"),
    ("export.py", "--out"),
    ("make_primed.py", "--out"),
    ("make_embedded.py", "--out"),
    ("bench.py", "--out"),
    ("strengthen.py", "--out"),
    ("grade.py", "--out"),
    ("grade.py", "--pool"),
]
NEEDED = {
    "sweep.py": ["--dry-run"],
    "extract_vhack.py": ["--pairs=p.jsonl"],
    "audit.py": ["pool", "--v-hack=v"],
    "evaluate.py": ["run"],
    "export.py": ["run"],
    "make_embedded.py": ["problems"],
    "strengthen.py": ["p.jsonl"],
    "grade.py": ["rows.jsonl", "--problems=p.jsonl"],
}


@pytest.mark.parametrize(("command", "flag"), OUTPUTS)
def test_an_output_whose_name_is_no_utf8_is_refused_before_any_work(command, flag, tmp_path):
    line = [sys.executable, str(ROOT / command), *NEEDED.get(command, [])]
    line.append(os.fsencode(f"{flag}={tmp_path}/caf") + b"\xe9")
    ended = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=20)
    said = f"error: {flag} {tmp_path}/caf\\udce9: a name with bytes that are no UTF-8; take another\n"
    assert (ended.returncode, ended.stderr) == (2, said)
    assert not list(tmp_path.iterdir())


def test_an_output_may_have_any_name_that_is_text(tmp_path):
    rows, problems = tmp_path / "rows.jsonl", ROOT / "data" / "problems.jsonl"
    rows.write_text('{"problem_id": "x", "completion": ""}\n')
    out = tmp_path / "caf\u00e9 \u96ea.jsonl"
    line = [sys.executable, str(ROOT / "grade.py"), str(rows), f"--problems={problems}", f"--out={out}"]
    assert subprocess.run(line, capture_output=True).returncode == 0 and out.exists()
