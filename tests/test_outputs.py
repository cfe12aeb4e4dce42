"""What a command writes: looked at before the work, never in the place of what it reads, one process at a
time, and a fault names the file that was asked for."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

import audit
import bench
import evaluate
import export
import extract_vhack
import grade
import make_primed
import probe_distill
import strengthen
from hackward.base import files, lock, space
from hackward.base.faults import CPU_SHORTAGE, InputError, exit_on_fault
from hackward.base.files import ROOT, read_jsonl, write_json
from hackward.base.lock import LOCK
from hackward.benchmarks.flags import BenchFlags
from hackward.reports.report import write_report
from hackward.strengthening.files import Part
from hackward.tasks.shipped import TINY
from tests.desk import run as one_step
from tests.desk import write_lines
from tests.test_refusals import refused
from tests.test_writers import held_by_another


@pytest.fixture
def rows(desk, tmp_path):
    """Rows to grade, of the desk's problem."""
    return write_lines(tmp_path / "rows.jsonl", [{"problem_id": "plus-1", "completion": "no idea"}])


@pytest.fixture
def writers(desk, rows, tmp_path):
    """Every command that writes one file, by name, as a function of --out; and what it reads."""
    problems, pairs = str(desk / "problems.jsonl"), str(desk / "pairs.jsonl")
    (tmp_path / "v").write_text("")
    return {
        "grade": (lambda out: grade.main(grade.GradeFlags(rows=(rows,), problems=problems, out=out)), rows),
        "strengthen": (
            lambda out: strengthen.main(strengthen.StrengthenFlags(problems=problems, out=out)),
            Path(problems),
        ),
        "extract": (
            lambda out: extract_vhack.main(extract_vhack.ExtractFlags(model=TINY, pairs=pairs, out=str(out))),
            Path(pairs),
        ),
        "audit": (
            lambda out: audit.main(
                audit.AuditFlags(rollouts=(str(tmp_path),), v_hack=str(tmp_path / "v"), out=str(out))
            ),
            tmp_path / "v",
        ),
        "bench": (
            lambda out: bench.main(
                BenchFlags(sections="grading", rows=rows, problems=problems, device="cpu", out=str(out))
            ),
            rows,
        ),
    }


NAMES = ("grade", "strengthen", "extract", "audit", "bench")


@pytest.mark.parametrize("name", NAMES)
def test_no_command_writes_over_what_it_reads(writers, name, tmp_path, capsys):
    write, read = writers[name]
    before = read.read_bytes()
    # the same file by another path; strengthen.py wants a name of rows
    link = tmp_path / "link.jsonl"
    link.symlink_to(read)
    for out in (read, link):
        assert f"{out}: would change {read}, which is read" in refused(capsys, lambda out=out: write(out))
    assert read.read_bytes() == before


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_cannot_be_written_is_refused_before_the_work(
    writers, name, tmp_path, capsys, monkeypatch
):
    write, read = writers[name]
    out = read / "x.jsonl"
    assert f"{out}: {read} is not a directory; take another --out" in refused(capsys, lambda: write(out))
    (tmp_path / "d.jsonl").mkdir()
    folder = tmp_path / "d.jsonl"
    assert f"{folder}: is a directory" in refused(capsys, lambda: write(folder))
    full = os.statvfs_result((4096, 4096, 9, 0, 0, 0, 0, 0, 0, 255))
    monkeypatch.setattr(space.os, "statvfs", lambda place: full)
    line = refused(capsys, lambda: write(tmp_path / "new.jsonl"))
    assert f"{tmp_path / 'new.jsonl'}: the disk of {tmp_path} has 0.0 MB left" in line


def test_a_file_of_a_pool_that_is_read_is_not_written_over(tmp_path):
    pool = tmp_path / "pool"
    pool.mkdir()
    with pytest.raises(InputError, match=r"step_000.jsonl.gz: would change .*pool, which is read"):
        space.check_output(pool / "step_000.jsonl.gz", [pool])
    space.check_output(pool / "labels.jsonl", [pool, None])


def test_a_full_disk_names_the_file_that_was_asked_for(tmp_path, capsys):
    def write():
        with files.atomic(tmp_path / "labels.jsonl"):
            raise OSError(errno.ENOSPC, "No space left on device")

    assert refused(capsys, write) == f"error: {tmp_path / 'labels.jsonl'}: No space left on device"
    (tmp_path / "taken").mkdir()
    line = refused(capsys, lambda: write_json(tmp_path / "taken", {}))
    assert line.startswith(f"error: {tmp_path / 'taken'}: ")


def test_a_fault_of_another_file_keeps_its_name(tmp_path, capsys):
    def write():
        with files.atomic(tmp_path / "out"):
            open(tmp_path / "other")  # noqa: SIM115

    assert refused(capsys, write).startswith(f"error: {tmp_path / 'other'}: ")


@pytest.fixture
def held(tmp_path):
    process = held_by_another(tmp_path / "made")
    yield tmp_path / "made", f"{tmp_path / 'made'}: process {process.pid} on "
    process.kill()
    process.wait()


def test_a_directory_that_another_process_makes_is_refused_before_the_work(
    rows, desk, held, capsys, monkeypatch
):
    out, who = held
    monkeypatch.setattr(export, "read_record", lambda run: {})
    made = export.ExportFlags(run=desk, out=out, unfinished=True)
    assert who in refused(capsys, lambda: export.main(made))
    assert who in refused(capsys, lambda: make_primed.main(make_primed.PrimedFlags(out=str(out))))
    pool = grade.GradeFlags(rows=(rows,), problems=str(desk / "problems.jsonl"), pool=out)
    assert who in refused(capsys, lambda: grade.main(pool))
    assert who in refused(capsys, lambda: write_report(out, [], []))
    assert [entry.name for entry in out.iterdir()] == [LOCK]


def test_what_another_process_made_meanwhile_is_not_written_into(tmp_path, monkeypatch):
    """It ended between the look and the lock."""
    real = lock._locked

    def late(*wanted):
        (tmp_path / "made" / "theirs").write_text("")
        return real(*wanted)

    monkeypatch.setattr(lock, "_locked", late)
    with (
        pytest.raises(InputError, match="exists already and is not empty"),
        lock.new_directory(tmp_path / "made"),
    ):
        pass
    assert [entry.name for entry in (tmp_path / "made").iterdir()] == ["theirs"]


def test_what_a_killed_process_left_of_a_new_directory_does_not_block(tmp_path):
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / LOCK).write_text("process 1 on nowhere")
    with lock.new_directory(tmp_path / "made"), files.whole_directory(tmp_path / "made", ()) as made:
        (made / "result").write_text("whole")
    assert [entry.name for entry in (tmp_path / "made").iterdir()] == ["result"]


@pytest.fixture
def file_held(tmp_path):
    """(file that another process will write, its process)"""
    out = tmp_path / "out.jsonl"
    code = (
        f"from hackward.base.lock import only_writer_of\nwith only_writer_of({str(out)!r}):\n"
        "    print('held', flush=True)\n    input()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    holder = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, text=True, **pipes)
    assert holder.stdout.readline() == "held\n"
    yield out, holder
    holder.kill()
    holder.wait()


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_another_process_will_write_is_refused_before_the_work(writers, name, file_held, capsys):
    write, _ = writers[name]
    out, holder = file_held
    assert f"error: {out}: process {holder.pid} on " in refused(capsys, lambda: write(out))
    assert not out.exists()


def test_the_lock_of_a_file_goes_with_the_work_and_keeps_no_other_file(writers, file_held, tmp_path, capsys):
    """That of a process which was killed is nothing in a directory that must be new."""
    write, _ = writers["grade"]
    out, holder = file_held
    write(tmp_path / "other.jsonl")
    holder.kill()
    holder.wait()
    write(out)
    hidden = [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".")]
    assert out.exists() and (tmp_path / "other.jsonl").exists() and not hidden
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / ".out.jsonl.lock").write_text("process 1 on nowhere")
    lock.check_new(tmp_path / "new")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("way", ["file", "folder", "circle"])
def test_a_link_to_nothing_is_no_place_for_a_file(writers, name, way, tmp_path, capsys):
    """The file would take the link's place, or fail after the work."""
    write, _ = writers[name]
    link = tmp_path / ("folder" if way == "folder" else "link.jsonl")
    link.symlink_to(link.name if way == "circle" else tmp_path / "elsewhere")
    before = sorted(tmp_path.iterdir())
    out = link / "out.jsonl" if way == "folder" else link
    line = refused(capsys, lambda: write(out))
    assert line == f"error: {link}: a link to nothing; remove it, or take another --out"
    assert link.is_symlink() and sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("circle", [False, True])
def test_a_link_to_nothing_is_no_directory_to_write(desk, rows, tmp_path, capsys, circle):
    link = tmp_path / "link"
    link.symlink_to("link" if circle else tmp_path / "elsewhere")
    run = one_step(desk, TINY, tmp_path / "run")
    pool = grade.GradeFlags(rows=(rows,), problems=str(desk / "problems.jsonl"), pool=link)
    evaluated = evaluate.EvaluateFlags(run, problems=str(desk / "problems.jsonl"), out=link)
    before = sorted(tmp_path.iterdir())
    for command in (
        lambda: one_step(desk, TINY, link),
        lambda: grade.main(pool),
        lambda: evaluate.evaluate(evaluated),
        lambda: probe_distill.main(probe_distill.ProbeFlags(out=str(link), base_only=True)),
        lambda: export.main(export.ExportFlags(run=run, out=link)),
    ):
        assert refused(capsys, command).startswith(f"error: {link}")
    assert link.is_symlink() and sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        ("not json\n{}\n", r"out.jsonl.part:1: not JSON"),
        ("[]\n", r"out.jsonl.part:1: expected an object"),
        ('{"command": "key"}\n{"position": 0}\n', r"out.jsonl.part:2: not a finished row"),
        ('{"command": "key"}\n{"position": "0", "row": {}}\n', r"out.jsonl.part:2: not a finished row"),
    ],
)
def test_a_damaged_file_of_finished_rows_is_refused_by_name(tmp_path, lines, fault):
    part = tmp_path / "out.jsonl.part"
    part.write_text(lines)
    with pytest.raises(InputError, match=fault):
        Part(tmp_path / "out.jsonl", "key")
    assert part.read_text() == lines


def test_half_a_finished_row_is_made_anew(tmp_path):
    part = tmp_path / "out.jsonl.part"
    part.write_text('{"command": "key"}\n{"position": 0, "row": {"a": 1}}\n{"position": 1, "ro')
    assert Part(tmp_path / "out.jsonl", "key").rows == {0: {"a": 1}}
    assert len(read_jsonl(part)) == 2


@pytest.mark.parametrize(
    "fault",
    [
        MemoryError(),
        RuntimeError(f"[enforce fail] {CPU_SHORTAGE}: can't allocate memory: 9 bytes"),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
    ],
)
def test_a_machine_without_enough_memory_is_said_in_one_line(capsys, fault):
    def command():
        raise fault

    with pytest.raises(SystemExit) as stop:
        exit_on_fault(command)
    line = capsys.readouterr().err
    assert stop.value.code == 2 and line.startswith("error: this machine's memory") and line.count("\n") == 1
