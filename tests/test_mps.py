"""Runs that share a GPU through NVIDIA's Multi-Process Service: who begins it, who is in it, and its end."""

from __future__ import annotations

import os
import stat

import pytest

from hackward.base.faults import InputError
from hackward.base.files import read_jsonl
from hackward.hardware.mps import CARDS, CONTROL, LOGS, PIPES, at_the_same_time, in_turns
from tests.test_sweep_engines import with_gpus

# Notes what it is told and by which variables; fails where a file "broken" lies beside it.
FAKE = """#!/bin/sh
here=$(dirname "$0")
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
    with pytest.raises(InputError, match=CONTROL):
        world.sweep(arms="vanilla", per_gpu=2, mps=True)
    assert world.calls("start") == []


@pytest.mark.parametrize(("more", "why"), [({}, "take no GPU"), ({"on": "print"}, "only with --on=local")])
def test_mps_without_a_gpu_of_this_machine_is_refused(world, more, why):
    with pytest.raises(InputError, match=f"--mps.*{why}"):
        world.sweep(arms="vanilla", mps=True, **more)
