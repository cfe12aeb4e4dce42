"""Runs that share a GPU through NVIDIA's Multi-Process Service: who begins it, who is in it, and its end."""

from __future__ import annotations

import os
import signal
import stat
import tempfile

import pytest

from hackward.base.faults import InputError
from hackward.base.files import read_jsonl
from hackward.hardware import mps
from hackward.hardware.mps import CARDS, CONTROL, LOGS, PIPES, at_the_same_time, in_turns
from tests.test_sweep_engines import with_gpus

# Notes what it is told and by which variables. A file beside it makes it fail ("broken"), leave a process
# that keeps its output ("stays"), never say that it has begun ("slow"), or interrupt who ends it ("rude").
FAKE = """#!/bin/sh
here=$(dirname "$0")
[ -e "$here/stays" ] && [ "$1" ] && { sleep 60 & echo $! > "$here/stays"; }
[ -e "$here/slow" ] && [ "$1" ] && exec sleep 60
[ -e "$here/rude" ] && [ -z "$1" ] && { kill -INT $PPID; sleep 0.5; }
[ -e "$here/broken" ] && { echo "Cannot find MPS control daemon process"; exit 1; }
printf '{"flags": "%s", "words": "%s", "pipes": "%s", "cards": "%s"}\\n' \
    "$*" "$(cat)" "$CUDA_MPS_PIPE_DIRECTORY" "${CUDA_VISIBLE_DEVICES-all}" >> "$here/told.jsonl"
"""


@pytest.fixture
def service(tmp_path_factory, monkeypatch):
    """The directory of a service that is installed and only takes notes."""
    home = tmp_path_factory.mktemp("driver")
    control = home / CONTROL
    control.write_text(FAKE)
    control.chmod(control.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{home}:{os.environ['PATH']}")
    return home


def test_the_service_begins_before_the_block_and_ends_after_it_even_when_the_block_fails(service):
    with pytest.raises(ZeroDivisionError), at_the_same_time() as own:
        (begun,) = read_jsonl(service / "told.jsonl")
        assert begun["flags"] == "-d" and begun["pipes"] == own[PIPES] == own[LOGS]
        assert os.path.isdir(own[PIPES])
        raise ZeroDivisionError
    assert read_jsonl(service / "told.jsonl")[1]["words"].startswith("quit")
    assert not os.path.exists(own[PIPES])


def test_the_service_has_every_card_whatever_this_process_may_see(service, monkeypatch):
    """Else the number that a run gives would count among the service's cards, and mean another one."""
    monkeypatch.setenv(CARDS, "2,3")
    with at_the_same_time() as own:
        assert CARDS not in own
    assert [told["cards"] for told in read_jsonl(service / "told.jsonl")] == ["all", "all"]


def test_a_service_that_does_not_begin_is_one_line_with_its_words(service):
    (service / "broken").touch()
    with pytest.raises(InputError, match="-d: Cannot find MPS control daemon"), at_the_same_time():
        raise AssertionError("nothing may run")


def test_a_service_that_does_not_end_is_told_and_costs_no_result(service, capsys):
    with at_the_same_time():
        (service / "broken").touch()
    assert "quit -t 10: Cannot find MPS control daemon" in " ".join(capsys.readouterr().err.split())


def test_a_service_that_keeps_its_output_open_has_begun_all_the_same(service, monkeypatch):
    """As a daemon may: who waits for the end of a pipe then waits for the end of the service."""
    monkeypatch.setattr(mps, "PATIENCE", 3)
    (service / "stays").touch()
    try:
        with at_the_same_time() as own:
            assert os.path.isdir(own[PIPES])
    finally:
        os.kill(int((service / "stays").read_text()), signal.SIGKILL)


def test_a_service_that_may_have_begun_is_ended(service, monkeypatch):
    monkeypatch.setattr(mps, "PATIENCE", 1)
    (service / "slow").touch()
    with pytest.raises(InputError, match="no answer after 1 s"), at_the_same_time():
        raise AssertionError("nothing may run")
    assert [told["words"] for told in read_jsonl(service / "told.jsonl")] == ["quit -t 10"]


def test_an_interrupt_leaves_no_service_behind(service):
    (service / "rude").touch()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with at_the_same_time():
            pass
    except KeyboardInterrupt:
        pytest.fail("the service was not waited for")
    finally:
        signal.signal(signal.SIGINT, before)
    assert read_jsonl(service / "told.jsonl")[1]["words"].startswith("quit")


def test_a_directory_too_long_for_a_socket_is_refused_with_the_variable_that_helps(
    service, tmp_path, monkeypatch
):
    """The service would say that it has begun, and no run would reach it."""
    long = tmp_path / ("x" * 90)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with pytest.raises(InputError, match="TMPDIR=/tmp"), at_the_same_time():
        raise AssertionError("nothing may run")
    assert not (service / "told.jsonl").exists() and os.listdir(long) == []


def test_a_service_that_cannot_be_run_is_one_line(service):
    (service / CONTROL).write_bytes(b"\x7fELF, and no more")
    with pytest.raises(InputError, match=f"{CONTROL}: Exec format error"), at_the_same_time():
        raise AssertionError("nothing may run")


def test_in_turns_means_so_beside_a_service_that_runs_already(service, monkeypatch):
    monkeypatch.setenv(PIPES, "/somebody/listens")
    with in_turns() as own:
        assert os.listdir(own[PIPES]) == []
    assert not (service / "told.jsonl").exists()


def test_every_run_of_a_sweep_with_mps_is_in_the_service_and_keeps_its_card(world, monkeypatch, service):
    with_gpus(monkeypatch, "3", "5")
    assert world.sweep(arms="vanilla", seeds="41,42,43,44", per_gpu=2, mps=True) == 0
    begun, ended = read_jsonl(service / "told.jsonl")
    calls = world.calls("start")
    assert {call["pipes"] for call in calls} == {begun["pipes"]} and begun["flags"] == "-d"
    assert sorted(call["cards"] for call in calls) == ["3", "3", "5", "5"]
    assert ended["words"].startswith("quit")


def test_a_sweep_without_it_starts_no_service(world, monkeypatch, service):
    with_gpus(monkeypatch, "0")
    assert world.sweep(arms="vanilla", per_gpu=2) == 0
    assert not (service / "told.jsonl").exists()
    assert {call["pipes"] for call in world.calls("start")} == {None}


def test_a_sweep_with_mps_where_it_is_not_installed_starts_no_run(world, monkeypatch):
    with_gpus(monkeypatch, "0")
    monkeypatch.setenv("PATH", str(world.home))
    for dry_run in (True, False):
        with pytest.raises(InputError, match=CONTROL):
            world.sweep(arms="vanilla", per_gpu=2, mps=True, dry_run=dry_run)
    assert world.calls("start") == [] and not world.out.exists()


def test_runs_that_name_a_card_share_it_through_mps_as_well(world, monkeypatch, service):
    with_gpus(monkeypatch, "0", "1")
    assert world.sweep("--device=cuda:1", arms="vanilla", jobs=3, mps=True) == 0
    (pipes,) = {call["pipes"] for call in world.calls("start")}
    assert pipes == read_jsonl(service / "told.jsonl")[0]["pipes"]


def test_runs_on_several_gpus_each_share_none(world, monkeypatch):
    with_gpus(monkeypatch, "0", "1")
    with pytest.raises(InputError, match="--mps with --gpus-per-run 2"):
        world.sweep(arms="vanilla", gpus_per_run=2, mps=True)


def test_mps_for_runs_on_the_processor_is_refused(world, monkeypatch):
    with_gpus(monkeypatch, "0", "1")
    with pytest.raises(InputError, match="--mps.*take no GPU"):
        world.sweep("--device=cpu", arms="vanilla", jobs=3, mps=True)


@pytest.mark.parametrize(("more", "why"), [({}, "take no GPU"), ({"on": "print"}, "only with --on=local")])
def test_mps_without_a_gpu_of_this_machine_is_refused(world, more, why):
    with pytest.raises(InputError, match=f"--mps.*{why}"):
        world.sweep(arms="vanilla", mps=True, **more)
