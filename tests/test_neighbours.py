"""A GPU that is shared: a shortage that others cause is waited for, room is left, needs are known before."""

from __future__ import annotations

import contextlib
import dataclasses
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

import sweep
from hackward.base.faults import InputError
from hackward.hardware import memory, models, neighbours
from hackward.method import gradients
from hackward.method.shared_prompts import SINGLE, Layout
from hackward.rollouts import slots
from hackward.runs import building
from hackward.runs.needs import needs, needs_by_name
from hackward.runs.settings import PRESETS, resolve
from hackward.scheduling import fits
from hackward.scheduling.engines import Room
from hackward.scheduling.flags import SweepFlags
from hackward.scheduling.jobs import Job
from hackward.tasks.shipped import TINY, shipped
from tests.families import FAMILIES, qwen, save, write_gguf

CARD = torch.device("cuda")
GB = 10**9


@pytest.fixture
def card(monkeypatch):
    """A GPU of 80 GB, as far as memory goes; `others` hold some of it, and time passes by sleeping."""
    state = SimpleNamespace(others=0, reserved=10 * GB, allocated=6 * GB, now=0.0, on_look=lambda: None)

    def free(device=None):
        return 79 * GB - state.others - state.reserved, 80 * GB

    def sleep(seconds):
        state.now += seconds
        state.on_look()

    monkeypatch.setattr(torch.cuda, "mem_get_info", free)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: state.reserved)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: state.allocated)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(neighbours, "time", SimpleNamespace(monotonic=lambda: state.now, sleep=sleep))
    return state


def short(times, calls):
    def work(*_, **__):
        calls.append(1)
        if len(calls) <= times:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")
        return "made"

    return work


def test_a_shortage_that_others_cause_is_waited_for_and_said_once(card, capsys):
    card.others, calls = 30 * GB, []
    assert neighbours.patiently(short(3, calls), CARD, "loading") == "made"
    said = " ".join(capsys.readouterr().err.split())
    assert len(calls) == 4 and card.now == 3 * neighbours.LOOK
    assert said.count("loading: does not fit while other processes hold 27.8 GB of the GPU's memory") == 1
    assert said.endswith(f"loading: fits after {card.now:.0f} s of waiting")


@pytest.mark.parametrize(
    "words",
    [
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`",
        "CUDA error: out of memory",
    ],
)
def test_a_shortage_that_a_library_of_cuda_meets_is_one_too(card, words):
    def work():
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError(words)
        return "made"

    card.others, calls = 30 * GB, []
    assert neighbours.patiently(work, CARD, "backward") == "made"
    assert not neighbours.ran_out(RuntimeError("CUDA error: CUBLAS_STATUS_NOT_SUPPORTED"))


def test_a_shortage_of_our_own_and_any_other_fault_are_not_waited_for(card):
    with pytest.raises(torch.OutOfMemoryError, match="Tried to allocate 2 GiB"):
        neighbours.patiently(short(1, []), CARD, "loading")
    card.others = 30 * GB
    with pytest.raises(RuntimeError, match="a shape"):
        neighbours.patiently(lambda: (_ for _ in ()).throw(RuntimeError("a shape")), CARD, "loading")
    assert card.now == 0


def test_waiting_has_a_limit(card):
    card.others = 30 * GB
    with pytest.raises(torch.OutOfMemoryError):
        neighbours.patiently(short(10**6, []), CARD, "loading")
    assert neighbours.LIMIT <= card.now <= neighbours.LIMIT + neighbours.LOOK


def test_the_least_of_a_run_is_taken_whole_and_waited_for(card, monkeypatch):
    """Parts of it that processes held while they wait for the rest would keep all of them waiting."""
    asked = []

    def empty(size, **options):
        asked.append(size)
        if card.others > 60 * GB:
            raise torch.OutOfMemoryError("no room")

    def one_ends():
        card.others -= 10 * GB

    monkeypatch.setattr(torch, "empty", empty)
    card.others, card.on_look = 75 * GB, one_ends
    neighbours.make_room(6 * GB, CARD, "this run")
    assert asked == [6 * GB] * 3 and card.now == 2 * neighbours.LOOK


def test_room_that_cannot_be_had_is_not_insisted_on(card, monkeypatch):
    monkeypatch.setattr(torch, "empty", short(10**6, []))
    neighbours.make_room(6 * GB, CARD, "this run")
    assert card.now == 0
    card.others = 30 * GB
    neighbours.make_room(81 * GB, CARD, "this run")  # more than the card has
    assert card.now == 0
    neighbours.make_room(6 * GB, CARD, "this run")
    assert card.now >= neighbours.LIMIT


def test_room_is_made_and_said_before_the_model_goes_to_the_card(card, monkeypatch, capsys, tmp_path):
    def settle(model, place, name):
        raise InputError("the model goes to the card")

    model, tokenizer = models.load(TINY, device="cpu")
    room = []
    monkeypatch.setattr(models, "read", lambda name, **options: (model, tokenizer, CARD))
    monkeypatch.setattr(models, "settle", settle)
    monkeypatch.setattr(building, "make_room", lambda size, *rest: room.append(size))
    with pytest.raises(InputError, match="goes to the card"), contextlib.ExitStack() as stack:
        building.build(settings(problems=str(shipped(TINY).problems), out=str(tmp_path / "run")), stack)
    assert len(room) == 1 and 0 < room[0] < neighbours.OWN
    said = " ".join(capsys.readouterr().err.split())
    assert "this run needs about 2.2 GB of GPU memory at the least" in said and "free: 73.0 GB" in said


def test_room_is_left_where_others_are_on_the_card(card):
    assert memory.free(CARD) == 69 * GB + 4 * GB
    card.others = 30 * GB
    assert memory.free(CARD) == 39 * GB // 2 + 4 * GB


def on_card():
    """What the loops ask of a model that lies on the card."""
    return SimpleNamespace(device=CARD)


def test_a_row_of_the_backward_is_waited_for(card, monkeypatch):
    card.others, tries = 30 * GB, []

    class Batch:
        index, ids_BL = [0], torch.zeros(1, 8)

        def to(self, device):
            return self

    def not_at_first(batch, work, budget):
        tries.append(1)
        return None if len(tries) < 3 else "made"

    layout = Layout(lambda rows: [[0]], lambda *a, **k: Batch(), SINGLE.attention)
    monkeypatch.setattr(gradients, "_unless_out_of_memory", not_at_first)
    adapter, budget = SimpleNamespace(model=on_card()), SimpleNamespace(tokens=8)
    found = list(gradients.each_batch(adapter, [None], None, budget, 0, layout=layout))
    assert found == [([0], "made")] and card.now == 2 * neighbours.LOOK
    card.others, tries[:] = 0, []
    with pytest.raises(InputError, match="a single row of 8 tokens does not fit"):
        list(gradients.each_batch(adapter, [None], None, budget, 0, layout=layout))


def test_a_row_of_sampling_is_waited_for(card, monkeypatch):
    card.others, tries = 30 * GB, []

    class Engine:
        def __init__(self, model, requests, *, rows, on_row, **options):
            self.on_row = on_row

        def run(self):
            tries.append(1)
            if len(tries) < 3:
                raise torch.OutOfMemoryError("no room")
            self.on_row(0, [1], [0.0])

    monkeypatch.setattr(slots, "Engine", Engine)
    request = SimpleNamespace(prompt_ids=(1,), tokens=lambda limit: limit)
    ended = []
    slots.decode(on_card(), [request], rows=1, on_row=lambda *row: ended.append(row), limit=4)
    assert ended == [(0, [1], [0.0])] and card.now == 2 * neighbours.LOOK
    card.others, tries[:] = 0, []
    with pytest.raises(InputError, match="does not fit into the GPU's memory"):
        slots.decode(on_card(), [request], rows=1, on_row=lambda *row: None, limit=4)


# --- what a run needs ---


def settings(**more):
    return resolve(dataclasses.replace(PRESETS["smoke"], **{"problems": "p", **more}))


def test_what_a_run_needs_grows_with_model_adapter_and_rows():
    model = qwen()
    plain = needs(settings(sample_rows=10**6), model, 2)
    parameters = sum(p.numel() for p in model.parameters())
    assert plain.least > 2 * parameters and plain.asked > plain.least
    assert needs(settings(sample_rows=1), model, 2).asked == plain.least
    assert needs(settings(arm="lora"), model, 2).least < plain.least  # W' alone, no bases
    assert needs(settings(max_new_tokens=4096), model, 2).least > plain.least
    assert needs(settings(), model, 4).least > plain.least


def test_a_sweep_refuses_what_cannot_fit_and_says_how_many_can(tmp_path):
    model = save(tmp_path / "model", qwen())
    jobs = []
    for seed in (1, 2, 3):
        own = settings(model=str(model), seed=seed, device="cuda", dtype="bfloat16")
        jobs.append(Job("vanilla", "none", seed, tmp_path / str(seed), (), own))
    known = needs_by_name(jobs[0].settings)
    assert known == needs(jobs[0].settings, qwen(), 2)
    assert fits.check_fits(jobs, 3, total=3 * known.least) == known
    with pytest.raises(InputError, match=r"^3 runs at once on a GPU need .* GB: take --per-gpu 2 or"):
        fits.check_fits(jobs, 3, total=3 * known.least - 1)
    with pytest.raises(InputError, match="a run needs about 2.2 GB of GPU memory at the least"):
        fits.check_fits(jobs, 1, total=known.least - 1)
    with pytest.raises(InputError, match=r"--anyway overrules"):
        fits.check_fits(jobs, 3, total=known.least)
    assert fits.check_fits([dataclasses.replace(job, state="done") for job in jobs], 3, total=1) is None


def test_the_shapes_of_a_gguf_file_and_of_the_embedded_model_are_known(tmp_path):
    model = FAMILIES["qwen2"].make()
    file = write_gguf(tmp_path / "model.gguf", model, "qwen2")
    given = settings(model=str(file), dtype="bfloat16")
    assert needs_by_name(given) == needs(given, model, 2)
    assert needs_by_name(settings(model="embedded"))
    assert needs_by_name(settings(model="nobody/nothing")) is None


def test_a_sweep_that_cannot_fit_ends_with_2_and_anyway_overrules(monkeypatch, capsys):
    def too_many(jobs, at_once):
        raise InputError(f"{at_once} runs do not fit")

    console, room = Console(), Room(at_once=6, words="", per_gpu=3)
    monkeypatch.setattr(fits, "check_fits", too_many)
    with pytest.raises(InputError, match="3 runs do not fit"):
        sweep.say_needs([], room, SweepFlags(), console)
    sweep.say_needs([], room, SweepFlags(anyway=True), console)
    assert "do not fit (going on: --anyway)" in capsys.readouterr().out
