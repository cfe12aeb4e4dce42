"""bench.py's sections batching and peers: what both sides are given, what is said, what a fault costs."""

from __future__ import annotations

import copy
import dataclasses
import importlib.util
import inspect
import io
import os
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

from hackward.base.faults import InputError
from hackward.base.files import ROOT, read_json
from hackward.base.screen import Bar
from hackward.benchmarks import batching, exact, peers, trl_step
from hackward.benchmarks.alone import alone
from hackward.benchmarks.batching import measure_batching, show_batching
from hackward.benchmarks.continuous import check_drawn, steady
from hackward.benchmarks.exact import Exact, earned, prompt_of
from hackward.benchmarks.flags import SECTIONS, BenchFlags, resolve, sections_of
from hackward.benchmarks.parts import GROUP, Bench
from hackward.benchmarks.peers import BASE, OURS, TRL, compare, measure_peers, show_peers, summed
from hackward.benchmarks.trl_step import phases, rank_like, rows_at_once
from hackward.rollouts.policy import Plain
from hackward.runs.tracking import pinned
from hackward.tasks.formats import load_problems
from hackward.tasks.shipped import TINY, shipped
from tests.alone_works import digging, talking
from train import train

needs_trl = pytest.mark.skipif(
    importlib.util.find_spec("trl") is None, reason="TRL is not installed (an extra: peers)"
)
SMALL = BenchFlags(device="cpu", steps=2, peer_prompts=2, peer_tokens=4, batches="3", eager_tokens=4)


def bench_of(flags: BenchFlags = SMALL) -> Bench:
    return Bench(resolve(flags), torch.device("cpu"), train)


def here(work, *arguments, **limits) -> dict:
    """Instead of a process for each variant, which takes half a minute."""
    return work(*arguments)


def shown(made: tuple) -> str:
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(made[0])
    return console.export_text() + made[1]


@pytest.fixture(scope="module")
def found() -> dict:
    """Section peers, small."""
    return measure_peers(bench_of(), run=here)


@needs_trl
def test_both_sides_draw_the_same_number_of_tokens(found):
    assert list(found["rows"]) == [*OURS, *TRL]
    for name, row in found["rows"].items():
        assert [step["completion_tokens"] for step in row["steps"]] == [2 * GROUP * 4] * 2, name


@needs_trl
def test_as_many_numbers_train_in_both_loras(found):
    rows = found["rows"]
    for name in TRL:
        assert rows[name]["trainable"] == pytest.approx(rows[BASE]["trainable"], rel=0.5)
    # (sum of out) x 8 against (sum of in + out) x rank
    assert rows[BASE]["trainable"] == 8 * 2 * (48 + 24 + 24 + 48 + 96 + 96 + 48)


@needs_trl
def test_every_phase_takes_time_and_together_they_are_the_step(found):
    for name, row in found["rows"].items():
        for step in row["steps"]:
            parts = [step[f"seconds_{phase}"] for phase in ("generate", "backward", "rest")]
            assert min(parts) > 0, name
            assert sum(parts) == pytest.approx(step["seconds"])
        assert row["seconds_set_up"] > 0


@needs_trl
def test_continuous_batching_of_trl_attends_to_pages(found):
    assert found["rows"]["TRL, generate"]["attention"] == "sdpa"
    assert found["rows"]["TRL, continuous"]["attention"] == "paged|sdpa and sdpa"


@needs_trl
def test_what_rewards_take_is_in_no_phase(monkeypatch):
    def slow(completion_ids, **rest):
        time.sleep(1.0)
        return [float(i % 2) for i in range(len(completion_ids))]

    monkeypatch.setattr(trl_step, "_paid", slow)
    row = trl_step.trl_steps(bench_of(), False, 8, 12)
    assert all(step["seconds"] < 1.0 for step in row["steps"])


@needs_trl
def test_the_table_of_peers_says_seconds_ratios_and_what_is_not_in(found):
    text = shown(show_peers(found))
    for name in found["rows"]:
        assert name in text
    assert "48 tokens a step" in text and "Not in: loading the model, imports, and rewards" in text


@needs_trl
def test_a_variant_that_fails_says_why_in_its_row_and_the_others_are_measured():
    def broken(work, *arguments, **limits) -> dict:
        fails = work is trl_step.trl_steps and arguments[1]
        return {"error": "RuntimeError: no pages"} if fails else STEPS

    found = measure_peers(bench_of(), run=broken)
    assert found["rows"]["TRL, continuous"]["error"] == "RuntimeError: no pages"
    assert found["rows"]["TRL, continuous"]["x_base"]["seconds"] is None
    assert found["rows"]["TRL, generate"]["x_base"]["seconds"] == 1
    assert "RuntimeError: no pages" in shown(show_peers(found))


def step(seconds: float) -> dict:
    parts = {"seconds_generate": seconds / 2, "seconds_backward": seconds / 4, "seconds_rest": seconds / 4}
    return {"completion_tokens": 48, "seconds": seconds, **parts}


STEPS = {
    "trainable": 576,
    "seconds_set_up": 3.0,
    "peak_gb": None,
    "steps": [step(9.0), step(2.0), step(4.0)],
    "version": "1",
    "rank": 4,
    "rows_at_once": 12,
    "attention": "sdpa",
}


def test_ratios_are_seconds_over_those_of_the_base_by_medians_after_the_first_step():
    twice = STEPS | {"steps": [step(1.0), step(6.0)], "seconds_set_up": 1.5}
    rows = {"base": summed(STEPS), "other": summed(twice), "failed": summed({"error": "why"})}
    compare(rows, "base")
    assert rows["base"]["medians"]["seconds"] == 3.0 and rows["base"]["seconds_first_step"] == 9.0
    assert set(rows["base"]["x_base"].values()) == {1.0}
    expected = {"seconds": 2.0, "seconds_generate": 2.0, "seconds_backward": 2.0, "seconds_set_up": 0.5}
    assert rows["other"]["x_base"] == expected
    compare(rows, "failed")
    assert set(rows["other"]["x_base"].values()) == {None}


def test_a_step_of_trl_is_split_by_the_seconds_inside_of_its_methods():
    spent = {
        "_generate_single_turn": 5.0,
        "_calculate_rewards": 1.0,
        "_prepare_inputs": 7.0,
        "training_step": 9.5,
    }
    assert phases(11.0, spent) == {
        "seconds": 10.0,
        "seconds_generate": 5.0,
        "seconds_backward": 2.5,
        "seconds_rest": 2.5,
    }


def test_a_micro_batch_of_trl_is_the_largest_part_that_fits():
    assert rows_at_once(48, 400, 8192) == 16
    assert rows_at_once(48, 100, 8192) == 48
    assert rows_at_once(48, 9000, 8192) == 1


def test_without_memory_trl_has_half_the_rows_until_it_fits():
    asked = []

    def scarce(work, b, continuous, ours, rows) -> dict:
        asked.append(rows)
        return {"error": "OutOfMemoryError: tried to allocate 9 TB"} if rows > 3 else STEPS

    assert peers.trl_variant(bench_of(), scarce, False) is STEPS
    assert asked == [12, 6, 4, 3]


def test_the_rank_is_at_least_one(tiny):
    assert rank_like(tiny[0], 8) == 4 and rank_like(tiny[0], 1) == 1


def test_our_policy_draws_prompts_by_number_to_the_limit_and_pays_by_turns(tiny):
    model, tokenizer = tiny
    options = {"stop": (0, 1), "max_new_tokens": 5, "temperature": 1.0, "hint": True, "rows": 8}
    policy = Exact(Plain(model), tokenizer, None, **options)
    problems = load_problems(shipped(TINY).problems)
    groups = policy.rollouts([(problem, GROUP) for problem in problems[:2]], seed=1, step=0)
    for number, group in enumerate(groups):
        assert {row.prompt_ids for row in group} == {prompt_of(number, model.config.vocab_size, 5)}
        assert [len(row.completion_ids) for row in group] == [5] * GROUP
        assert [row.gt_pass for row in group] == [earned(i) for i in range(GROUP)]
        assert len({row.reward for row in group}) == 2


def test_sections_beside_others_run_only_when_asked_for():
    assert {"batching", "peers"} < set(SECTIONS)
    assert not {"batching", "peers"} & set(sections_of(BenchFlags()))


def test_without_trl_the_line_that_installs_it_is_said(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=f"peers needs TRL: pip install {pinned('peers')}"):
        resolve(dataclasses.replace(SMALL, sections="peers"))
    assert resolve(dataclasses.replace(SMALL, sections="batching"))


def test_what_happens_in_a_process_of_its_own_stays_there():
    assert alone(dict, 5, seconds=60)["error"].startswith("TypeError: ")
    ended = "its process ended with exit code 3, in: its work"
    assert alone(os._exit, 3, seconds=60) == {"error": ended}
    assert alone(time.sleep, 60, seconds=0.5)["error"].startswith("given up after 0.5 s, in: ")
    assert alone(dict, [["a", 1]], seconds=60) == {"a": 1}


def test_work_that_is_cut_says_what_it_was_at_and_its_parent_hears_of_it_all_along():
    heard: list[str] = []
    found = alone(digging, 0, "hangs", seconds=8, hear=heard.append)
    assert found == {"error": "given up after 8 s, in: the last hole"}
    assert heard == ["its work", "starting to dig", "the last hole"]
    ended = alone(digging, 2, "dies", seconds=60)
    assert ended == {"error": "its process ended with exit code 3, in: the last hole"}


def test_what_was_found_when_time_is_up_is_the_answer_and_says_that_it_was_cut():
    why = "given up after 8 s, in: the last hole"
    assert alone(digging, 2, "hangs", seconds=8) == {"finds": 2, "cut": why}
    assert alone(digging, 2, "ends", seconds=60) == {"finds": "all"}


def test_what_does_not_end_is_given_up_however_often_it_tells():
    began = time.monotonic()
    assert "error" in alone(talking, seconds=6)
    assert time.monotonic() - began < 20


@needs_trl
def test_a_step_of_trl_tells_where_it_is_and_two_finished_ones_do_as_an_answer(monkeypatch):
    told: list[tuple[str, dict | None]] = []
    monkeypatch.setattr(trl_step, "tell", lambda at, found=None: told.append((at, copy.deepcopy(found))))
    whole = trl_step.trl_steps(bench_of(dataclasses.replace(SMALL, steps=3)), False, 8, 12)
    places = [at.split(" (")[0] for at, _ in told]
    setting_up = ["importing TRL", "loading the model", "making the trainer", "preparing to train"]
    steps = [f"step {step} of 3, {doing}" for step in (1, 2, 3) for doing in ("drawing", "training")]
    assert places == setting_up + steps
    (kept,) = [found for _, found in told if found]
    assert kept["steps"] == whole["steps"][:2] and kept.keys() == whole.keys()
    assert told[-2] == (f"step 3 of 3, drawing ({median_of(kept):.3g} s per step)", kept)


@pytest.mark.parametrize("name", OURS)
def test_a_step_of_ours_tells_where_it_is_and_two_finished_ones_do_as_an_answer(monkeypatch, name):
    told: list[tuple[str, dict | None]] = []
    monkeypatch.setattr(exact, "tell", lambda at, found=None: told.append((at, found)))
    whole = peers.our_steps(bench_of(dataclasses.replace(SMALL, steps=3)), OURS[name])
    assert [at for at, _ in told] == ["step 1", "step 2", "step 3"]
    (kept,) = [found for _, found in told if found]
    assert told[-1][1] is kept
    assert kept == whole | {"steps": whole["steps"][:2]}


def test_the_rank_of_trl_is_like_that_of_our_lora_also_where_ours_failed():
    asked = []

    def broken(work, b, *arguments, **limits) -> dict:
        if work is not trl_step.trl_steps:
            return {"error": "RuntimeError: no card"}
        asked.append(arguments[1])
        return STEPS

    measure_peers(bench_of(), run=broken)
    assert asked == [peers.FULL_RUN.rank] * 2 == [8, 8]


def median_of(found: dict) -> float:
    return sum(step["seconds"] for step in found["steps"]) / 2


def test_a_variant_that_was_cut_has_its_medians_in_the_table_which_says_so():
    def cut(work, *arguments, **limits) -> dict:
        late = work is trl_step.trl_steps
        return (
            STEPS | {"steps": STEPS["steps"][:2], "cut": "given up after 9 s, in: step 3 of 3"}
            if late
            else STEPS
        )

    found = measure_peers(bench_of(), run=cut)
    assert found["rows"]["TRL, generate"]["medians"]["seconds"] == 2.0
    text = " ".join(shown(show_peers(found)).split())
    assert "TRL, generate (cut)" in text and f"{BASE} (cut)" not in text
    said = "TRL, generate was cut, so it has 2 steps: given up after 9 s, in: step 3 of 3."
    assert said in text


def test_the_bar_says_of_every_variant_and_path_what_it_is_at(monkeypatch):
    notes: list[str] = []
    monkeypatch.setattr(Bar, "say", lambda bar, text: notes.append(text))

    def talks(work, *arguments, seconds: float, hear) -> dict:
        hear("digging")
        return STEPS if work is not batching.path_of else {"error": "none"}

    measure_peers(bench_of(), run=talks)
    measure_batching(bench_of(), run=talks)
    names = [*OURS, *TRL, "slots, batch 3", "continuous, batch 3"]
    assert notes == [note for name in names for note in (name, f"{name}: digging")]


def test_trl_sees_no_card_but_its_own(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    config = resolve(dataclasses.replace(SMALL, device="cuda:1"))
    seen = trl_step.one_card(Bench(config, torch.device("cuda:1"), train))
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "7"
    assert seen.device == torch.device("cuda:0") and seen.config.device == "cuda"
    assert trl_step.one_card(bench_of()).device == torch.device("cpu")


def test_what_is_measured_beside_slots_has_a_process_of_its_own_and_a_limit():
    assert inspect.signature(measure_batching).parameters["run"].default is alone


def test_batching_measures_slots_and_continuous_batching_beside_each_other():
    found = measure_batching(bench_of(), run=here)
    assert [(row["batch"], row["path"]) for row in found["rows"]] == [(3, "slots"), (3, "continuous")]
    slots, other = found["rows"]
    assert other["attention"] == "paged|sdpa" and other["graphs"] is False
    assert other["x_slower"] == pytest.approx(slots["tokens_per_second"] / other["tokens_per_second"])
    assert slots["x_slower"] == 1
    assert "continuous, batch 3" in shown(show_batching(found))


def test_continuous_batching_that_fails_or_hangs_says_why_in_its_row():
    def broken(work, b, batch, path, *, seconds: float, hear) -> dict:
        assert work is batching.path_of and seconds == b.config.peer_seconds
        return {"error": "given up after 300 s"} if path == "continuous" else work(b, batch, path)

    found = measure_batching(bench_of(), run=broken)
    assert found["rows"][0]["x_slower"] == 1
    assert found["rows"][1]["error"] == "given up after 300 s" and found["rows"][1]["x_slower"] is None
    assert "given up after 300 s" in shown(show_batching(found))


PLANT = """
import sys
from importlib.machinery import PathFinder

NAME = "transformers.generation.continuous_batching.input_outputs"


class Finder:
    def find_spec(name, path, target=None):
        spec = PathFinder.find_spec(name, path) if name == NAME else None
        if spec is not None:
            real = spec.loader.exec_module
            spec.loader.exec_module = lambda module: with_fault(real, module)
        return spec


def with_fault(load, module):
    load(module)
    module.build_attention_mask = broken


def broken(*arguments, **options):
    raise IndexError("the mask is too large")


sys.meta_path.insert(0, Finder)
"""


def test_a_mask_that_the_library_cannot_make_is_words_in_its_row_and_the_bench_goes_on(tmp_path):
    """Without flash attention it makes one of all rows by all pages. Through the command line, as it is
    started: the fault is in a thread of a process of its own."""
    (tmp_path / "sitecustomize.py").write_text(PLANT)
    out = tmp_path / "found.json"
    flags = "--sections=batching --device=cpu --batches=2 --prompt-tokens=4 --new-tokens=8 --eager-tokens=4"
    done = subprocess.run(
        [sys.executable, "bench.py", *flags.split(), "--peer-seconds=100", f"--out={out}"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    slots, other = read_json(out)["batching"]["rows"]
    assert slots["x_slower"] == 1 and other["error"].endswith("the mask is too large")
    assert "the mask is too large" in done.stdout


def test_a_steady_rate_counts_only_tokens_that_came_while_all_rows_went_on():
    # From 2 to 5: three of each row.
    assert steady([[1, 2, 3, 4, 5], [2, 3, 4, 5, 6]]) == 2.0
    with pytest.raises(RuntimeError, match="had ended"):
        steady([[1, 2], [2, 3]])


def test_fewer_tokens_than_asked_for_are_a_fault_with_its_reason():
    drawn = [SimpleNamespace(error=None, generated_tokens=[1, 2])]
    check_drawn(drawn, 1, 2)
    with pytest.raises(RuntimeError, match="2 of 4 tokens"):
        check_drawn(drawn, 2, 2)
    with pytest.raises(RuntimeError, match="no room"):
        check_drawn([SimpleNamespace(error="no room", generated_tokens=[])], 1, 2)
