"""What carries a sweep's runs: this machine's GPUs (faked), lines for another scheduler."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import os
import re
import subprocess
from collections import Counter

import pytest

from hackward.base.faults import InputError
from hackward.base.files import read_jsonl
from hackward.runs.needs import Needs
from hackward.scheduling import fits, local
from hackward.scheduling.commands import line
from hackward.scheduling.plan import plan
from tests.sweeps import names


def with_gpus(monkeypatch, *cards: str) -> None:
    """This machine has these GPUs."""
    monkeypatch.setattr(local, "has_gpu", lambda: True)
    monkeypatch.setattr(local, "visible_cards", lambda: list(cards))


def most_at_once(world) -> Counter:
    """The most runs at one moment, by what CUDA_VISIBLE_DEVICES was."""
    changes = [(call["time"], +1, call["cards"]) for call in world.calls("start")]
    changes += [(call["time"], -1, call["cards"]) for call in world.calls("end")]
    running: Counter = Counter()
    most: Counter = Counter()
    for _, change, cards in sorted(changes):
        running[cards] += change
        most[cards] = max(most[cards], running[cards])
    return most


# --- this machine's GPUs ---


@pytest.mark.parametrize("per_gpu", [1, 2])
def test_every_card_is_filled_and_none_has_more_runs_than_asked(world, monkeypatch, per_gpu):
    with_gpus(monkeypatch, "3", "GPU-5a")
    arms = "vanilla,projected,lora"
    # Unequal lengths, so that cards become free in another order than they were taken
    world.orders({name: {"sleep": 0.1 + 0.1 * n} for n, name in enumerate(names(*arms.split(",")[:2]))})
    assert world.sweep(arms=arms, per_gpu=per_gpu, anyway=True) == 0
    assert most_at_once(world) == {"3": per_gpu, "GPU-5a": per_gpu}


def test_jobs_bounds_the_runs_on_all_cards_together(world, monkeypatch, capsys):
    with_gpus(monkeypatch, "0", "1", "2", "3")
    world.orders({name: {"sleep": 0.1} for name in names("vanilla")})
    assert world.sweep(arms="vanilla", jobs=2) == 0
    assert most_at_once(world).total() <= 3 and set(most_at_once(world)) <= {"0", "1"}
    assert "on 4 GPUs, 1 runs on each, with --jobs=2" in " ".join(capsys.readouterr().out.split())


def test_a_run_on_two_gpus_is_started_by_torchrun_with_cards_of_its_own(world, monkeypatch):
    with_gpus(monkeypatch, "4", "5", "6", "7", "8")
    assert world.sweep(arms="vanilla", seeds="41,42", gpus_per_run=2) == 0
    assert most_at_once(world) == {"4,5": 1, "6,7": 1}
    log = (world.out / "vanilla-s41.log").read_text()
    assert "-m torch.distributed.run --standalone --nproc-per-node=2 -- " in log


@pytest.mark.parametrize(
    ("more", "share"), [({}, 2), ({"gpus_per_run": 2}, 2), ({"per_gpu": 3}, 1), ({"jobs": 1}, None)]
)
def test_runs_at_once_share_the_cores_out(world, monkeypatch, more, share):
    """Eight cores: by itself every run would take eight graders."""
    with_gpus(monkeypatch, "0", "1", "2", "3")
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    assert world.sweep(arms="vanilla", seeds="41,42,43,44,45,46,47,48", **more) == 0
    log = (world.out / "vanilla-s41.log").read_text()
    assert re.findall(r"--workers=(\d+)", log) == ([] if share is None else [str(share)])


@pytest.mark.parametrize(
    ("cards", "more", "threads"),
    [("0123", {}, "1"), ("", {"jobs": 4}, "2"), ("", {"jobs": 1}, None), ("0", {}, None)],
)
def test_runs_at_once_have_no_more_threads_than_there_are_cores(world, monkeypatch, cards, more, threads):
    """Eight cores. A run on a GPU leaves the CPU little; a run by itself may take what it likes."""
    with_gpus(monkeypatch, *cards)
    monkeypatch.setattr(local, "has_gpu", lambda: bool(cards))
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert world.sweep(arms="vanilla", seeds="41,42,43,44", **more) == 0
    assert {call["threads"] for call in world.calls("start")} == {threads}


def test_runs_on_one_node_share_its_cores_out():
    at_once = functools.partial(local.on_one_node, several=1, most=100)
    assert at_once(16, 4, share=1 / 3) == 12
    assert at_once(8, 4, share=1 / 3) == 8  # a CPU each
    assert at_once(16, 0, share=0) == 16
    assert at_once(16, 8, share=3, several=3) == 6
    assert at_once(16, 4, share=1, most=2) == 2
    assert at_once(0.5, 1, share=1) == 1


def test_threads_that_the_user_asks_for_are_taken(world, monkeypatch):
    with_gpus(monkeypatch, "0", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert world.sweep(arms="vanilla", seeds="41,42") == 0
    assert {call["threads"] for call in world.calls("start")} == {"3"}


def test_one_run_alone_has_all_cores(world, monkeypatch):
    with_gpus(monkeypatch, "0", "1", "2", "3")
    assert world.sweep(arms="vanilla", seeds="41") == 0
    assert "--workers=" not in (world.out / "vanilla-s41.log").read_text()


def test_graders_that_were_asked_for_are_taken(world, monkeypatch):
    with_gpus(monkeypatch, "0", "1", "2", "3")
    assert world.sweep("--workers=7", arms="vanilla") == 0
    log = (world.out / "vanilla-s41.log").read_text()
    assert log.count("--workers=") == 1 and "--workers=7" in log


def test_runs_that_name_their_device_are_left_there(world, monkeypatch):
    with_gpus(monkeypatch, "0", "1")
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    assert world.sweep("--device=cpu", arms="vanilla", seeds="41") == 0
    assert [call["cards"] for call in world.calls()] == [seen]


def test_the_runs_on_a_card_are_those_whose_rows_all_fit(world, monkeypatch):
    config = world.config(arms="vanilla")
    jobs = plan(config, [])

    def per_card(needs: Needs | None, places: int = 1, **flags) -> int:
        monkeypatch.setattr(fits, "largest_needs", lambda jobs: needs)
        return fits.per_card(dataclasses.replace(config, **flags), jobs, places, total=100)

    assert per_card(Needs(least=10, asked=50)) == 2
    assert per_card(Needs(least=10, asked=51)) == 1
    assert per_card(Needs(least=10, asked=999)) == 1  # with fewer rows at once
    assert per_card(Needs(least=1, asked=1)) == 3  # there are no more runs
    assert per_card(Needs(least=1, asked=1), places=2) == 2
    assert per_card(None) == 1
    assert per_card(Needs(10, 50), per_gpu=3) == 3
    assert per_card(Needs(1, 1), gpus_per_run=2) == 1
    assert per_card(Needs(10, 50), places=2, jobs=5) == 3


# --- lines for another scheduler ---


def shell(lines: list[str]) -> list[int]:
    """The exit codes of these commands, started elsewhere."""
    return [subprocess.run(["sh", "-c", text], cwd="/", capture_output=True).returncode for text in lines]


def test_printed_lines_run_resume_and_do_nothing_a_third_time(world, capsys):
    flags = {"arms": "vanilla,projected", "seeds": "41,42", "on": "print"}
    assert world.sweep(**flags) == 0
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert len(lines) == 2 and all("vanilla" in text for text in lines)  # the others wait for these
    assert "to go:" in said.err and "the same command prints" in said.err
    assert world.calls() == [] and world.states() == ["printed"] * 2 + ["new"] * 2
    world.orders({"vanilla-s42": {"die": 3}})
    assert shell(lines) == [0, 1]
    world.orders({})
    assert shell(lines) == [0, 0]
    assert [call["resume"] for call in world.calls()] == [False, False, True]
    assert [row["step"] for row in read_jsonl(world.out / "vanilla-s42" / "rows.jsonl")] == [0, 1, 2, 3]
    assert shell(lines) == [0, 0] and len(world.calls()) == 3
    assert world.sweep(**flags) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and all("projected" in text for text in lines)


def test_a_printed_line_of_a_finished_run_makes_the_steps_that_came_on_top(world, capsys):
    few = {"arms": "vanilla", "seeds": "41"}
    assert world.sweep(**few) == 0
    capsys.readouterr()
    assert world.sweep(on="print", steps=6, **few) == 0
    assert shell(capsys.readouterr().out.splitlines()) == [0]
    assert len(read_jsonl(world.out / "vanilla-s41" / "rows.jsonl")) == 6


def test_what_a_rule_stops_is_not_printed(world, capsys):
    world.orders({name: {"hack": 0.0} for name in names("vanilla")})
    assert world.sweep(arms="vanilla") == 0
    capsys.readouterr()
    assert world.sweep(on="print") == 3
    assert capsys.readouterr().out == ""


def test_a_path_with_blanks_stays_one_word_in_a_printed_line(world, tmp_path):
    job = plan(world.config(out=str(tmp_path / "my runs; $(x)"), seeds="41"), [])[0]
    syntax = subprocess.run(
        ["sh", "-c", line(job).replace("{ ", "{ set -x; ")], capture_output=True, text=True
    )
    assert "my runs; $(x)/vanilla-s41/summary.json" in syntax.stderr


# --- refusals ---


@pytest.mark.parametrize(
    ("flags", "fault"),
    [
        ({"ray_address": "auto"}, "--ray-address auto: only with --on=ray"),
        ({"per_gpu": 2}, "--per-gpu 2: the runs take no GPU here"),
        ({"gpus_per_run": 2}, "--gpus-per-run 2: the runs can take 0 GPUs"),
        ({"gpus_per_run": 2, "per_gpu": 2}, "--gpus-per-run 2 with --per-gpu 2"),
        ({"on": "print", "per_gpu": 2}, "--per-gpu 2 with --on=print"),
        ({"jobs": 0}, "--jobs 0: must be at least 1"),
    ],
)
def test_flags_that_an_engine_cannot_take_are_refused_before_anything_starts(
    world, monkeypatch, flags, fault
):
    monkeypatch.setattr(local, "has_gpu", lambda: False)
    with pytest.raises(InputError, match=fault):
        world.sweep(**flags)
    assert not world.out.exists()


def test_without_ray_the_fault_says_how_to_install_it(world, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="--on=ray needs Ray: pip install ray==2.60.0"):
        world.sweep(on="ray", dry_run=True)
