"""How many threads a process computes with on the CPU, and how the cores are shared out."""

import io
import os
import queue
import threading

import pytest
import torch
from rich.console import Console

from hackward.benchmarks import threads
from hackward.hardware import models
from hackward.hardware.cores import few_threads, share_of_cores
from hackward.rollouts.policy import Timed
from hackward.tasks.shipped import TINY


@pytest.fixture
def asked(monkeypatch):
    """The numbers of threads that PyTorch is told to take."""
    told = []
    monkeypatch.setattr(torch, "set_num_threads", told.append)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return told


def test_cores_are_shared_out_and_nobody_goes_without(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    assert [share_of_cores(processes) for processes in (1, 3, 8, 12)] == [8, 2, 1, 1]


def test_a_process_with_a_gpu_takes_one_thread_and_one_without_as_many_as_there_are(asked):
    few_threads(torch.device("cpu"))
    assert asked == []
    few_threads(torch.device("cuda:1"))
    assert asked == [1]


def test_threads_that_the_user_asks_for_are_left(asked, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "6")
    few_threads(torch.device("cuda"))
    assert asked == []


def test_every_model_that_is_read_settles_its_threads_by_its_device(monkeypatch):
    places = []
    monkeypatch.setattr(models, "few_threads", places.append)
    models.load(TINY, device="cpu")
    assert places == [torch.device("cpu")]


def test_a_phase_lasts_until_the_last_rank_has_ended_it(monkeypatch):
    """Drawn after 4, 6 and 1 s, graded after 9, 6.5 and 2 s: all have drawn at 6, all is graded at 9."""
    ends = [(4.0, 9.0), (6.0, 6.5), (1.0, 2.0)]
    monkeypatch.setattr("hackward.hardware.ranks.gathered", lambda own: [own, *ends[1:]])
    assert Timed(4.0, 5.0).of_all_ranks() == Timed(6.0, 3.0)


def test_the_work_of_the_section_threads_is_timed_when_all_are_there(asked):
    taken = queue.Queue()
    threads._work(3, threading.Barrier(1), taken)
    assert asked == [3] and taken.get_nowait() > 0


def test_the_table_of_threads_says_the_ratio():
    row = {"processes": 4, "many": 2.5, "one": 0.25, "x_slower": 10.0}
    file = io.StringIO()
    shown, caption = threads.show_threads({"cores": 2, "rows": [row]})
    Console(file=file, width=100).print(shown)
    assert "10.0" in file.getvalue() and "on 2 cores" in caption
