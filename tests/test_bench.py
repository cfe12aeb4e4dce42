"""What bench.py measures and what it says of it, on tiny weights."""

import contextlib
import dataclasses
import io
import json
import math

import numpy as np
import pytest
import torch
from rich.console import Console

import bench
from antipasto import SVDAdapter
from hackward.base.faults import InputError
from hackward.base.screen import stdout
from hackward.benchmarks import sampling as sampling_section
from hackward.benchmarks import sections, setup
from hackward.benchmarks.flags import OF_A_MODEL, BenchFlags, resolve
from hackward.benchmarks.imposed import Imposed
from hackward.benchmarks.parts import GROUP, REPEATS, Bench, Sizes, attended, requests
from hackward.benchmarks.probe import gradient, measure_probe, show_probe, variants
from hackward.benchmarks.sampling import decoded, measure_sampling, show_sampling
from hackward.benchmarks.step import TINY_RUN
from hackward.grading.grader import Grader
from hackward.method.pairs import find_pairs
from hackward.rollouts.policy import Plain
from hackward.runs.settings import PRESETS
from hackward.tasks.formats import load_problems
from hackward.tasks.held_out import held_out_split
from hackward.tasks.shipped import TINY, shipped
from tests.conftest import randomise
from train import train

SMALL = BenchFlags(
    device="cpu",
    batches="2,3",
    prompt_tokens=5,
    new_tokens=34,
    eager_tokens=30,
    samples=2,
    tokens=24,
    rounds=1,
    steps=2,
    workers=1,
)


def fewer_pairs(patch: pytest.MonkeyPatch) -> None:
    """Extraction from six of the shipped pairs: all of them take seconds."""
    find = find_pairs

    def six(*parts, **options):
        pairs, source = find(*parts, **options)
        return pairs[:6], source

    patch.setattr(setup, "find_pairs", six)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> tuple[dict, str]:
    """The JSON and the printed text of a small run of all sections."""
    file, text = tmp_path_factory.mktemp("bench") / "found.json", io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(text):
        fewer_pairs(patch)
        bench.main(dataclasses.replace(SMALL, out=str(file)))
    return json.loads(file.read_text()), text.getvalue()


def numbers(found, key: str) -> list[float]:
    """All numbers under keys that begin with `key`, however deep."""
    if isinstance(found, list):
        return [x for part in found for x in numbers(part, key)]
    if not isinstance(found, dict):
        return []
    here: list = []
    for name, value in found.items():
        if name.startswith(key):
            here += value if isinstance(value, list) else [value]
    return [x for x in here if isinstance(x, float)] + numbers(list(found.values()), key)


def test_every_section_measures_positive_times(run):
    found, _ = run
    for section in ("ceilings", *OF_A_MODEL):
        assert "error" not in found[section]
    assert found["ceilings"]["bandwidth"] > 0 and found["ceilings"]["rate"] > 0
    assert [(r["path"], r["batch"]) for r in found["sampling"]["rows"]] == [
        ("slots", 2),
        ("plain", 2),
        ("slots", 3),
        ("plain", 3),
        ("generate", 3),
    ]
    for row in found["sampling"]["rows"]:
        assert row["ms_a_step"] > 0 and row["x_floor"] > 0 and len(row["long_seconds"]) == REPEATS
    assert list(found["probe"]["rows"]) == [
        "(a) floor",
        "(b) ours",
        "(b) no samples",
        "(c) hook",
        "(d) separate",
    ]
    for row in found["probe"]["rows"].values():
        assert row["seconds"] > 0 and len(row["all"]) == SMALL.rounds
    assert len(found["step"]["steps"]) == SMALL.steps
    assert all(found["step"]["medians"][f"seconds{phase}"] > 0 for phase in ("", "_generate", "_backward"))
    assert all(row["seconds"] > 0 for row in found["setup"]["rows"].values())
    assert len(numbers(found["setup"]["gesvd"], "seconds")) == 4
    assert found["versions"]["torch"] == torch.__version__ and found["config"]["batches"] == SMALL.batches


def test_every_table_can_be_made_from_the_json_alone(run):
    found, text = run
    for section in ("ceilings", *OF_A_MODEL):
        shown, caption = sections.MEASURES[section][1](found[section])
        with contextlib.redirect_stdout(io.StringIO()) as again:
            stdout().print(shown)
            stdout().print(caption, highlight=False, markup=False)
        assert again.getvalue() in text, section


def test_the_adapter_comes_from_the_cache_only_when_it_is_warm(run):
    setup = run[0]["setup"]
    assert setup["modules"] == 14 and setup["pairs"] == 6
    assert [row["hits"] for row in setup["rows"].values() if "hits" in row] == [0, 0, 14]
    shapes = setup["gesvd"].values()
    assert setup["gesvd_seconds"] == pytest.approx(sum(g["seconds"] * g["modules"] for g in shapes))
    assert sum(g["modules"] for g in shapes) == 14


def test_a_step_grades_imposed_texts_so_that_no_group_is_skipped(run):
    for step in run[0]["step"]["steps"]:
        assert step["groups_skipped"] == 0 and step["longest"] <= TINY_RUN.max_new_tokens
        known = sum(step[f"seconds_{phase}"] for phase in ("generate", "grade", "backward"))
        assert 0 < known < step["seconds"] < 10 * known
        assert step["seconds_rest"] == pytest.approx(step["seconds"] - known)


def test_the_floors_of_a_known_shape_are_those_counted_by_hand(tiny):
    # 2 layers, hidden 48, 4 heads and 2 key-value heads of 12, feed-forward 96, 259 tokens, tied, fp32.
    model, _ = tiny
    linear = 2 * (48 * 48 + 2 * 24 * 48 + 48 * 48 + 3 * 96 * 48)
    norms = 2 * (48 + 48 + 12 + 12) + 48
    sizes = Sizes.of(model)
    assert sizes == Sizes(
        linear=linear,
        head=259 * 48,
        weight_bytes=4 * (linear + norms + 259 * 48),
        kv_bytes=4 * 2 * 2 * 2 * 12,
    )
    assert sizes.decode_bytes(3, 50) == 3 * sizes.weight_bytes + 50 * sizes.kv_bytes
    # One multiplication and one addition, forward and back.
    assert sizes.operations(10, 4, passes=2) == 4 * linear * 10 + 4 * 259 * 48 * 4
    # An embedding table of its own is looked up, not read.
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.clone())
    assert Sizes.of(model) == sizes


def test_a_group_reads_its_prompt_once_a_step_and_every_row_all_that_it_has_drawn():
    for prompt, completions in ((3, [4]), (1, [1]), (7, [30, 2, 11])):
        read = 0
        for step in range(1, max(completions)):
            rows_that_go_on = sum(step < completion for completion in completions)
            read += prompt + step * rows_that_go_on
        assert attended([(prompt, completion) for completion in completions]) == read


def test_the_printed_floors_are_bytes_over_bandwidth_and_operations_over_rate(run):
    found, _ = run
    sampling, probe, ceilings = found["sampling"], found["probe"], found["ceilings"]
    weights = sampling["weight_bytes"]
    assert sampling["floor_weights_ms"] == pytest.approx(1e3 * weights / ceilings["bandwidth"])
    for row in sampling["rows"]:
        drawn = row["batch"] * (row["short_tokens"] + row["long_tokens"]) / 2
        prompts = math.ceil(row["batch"] / 6) * row["prompt_tokens"]
        read = weights + (drawn + prompts) * sampling["kv_bytes"]
        assert row["floor_ms"] == pytest.approx(1e3 * read / ceilings["bandwidth"])
        assert row["x_floor"] == pytest.approx(row["ms_a_step"] / row["floor_ms"])
    assert probe["operations"] == 4 * (41472 * 2 * 24 + 259 * 48 * 2 * 16)
    assert probe["operations_seconds"] == pytest.approx(probe["operations"] / ceilings["rate"])


def test_rows_that_have_to_wait_for_others_have_no_time_a_step(tiny, monkeypatch):
    model, _ = tiny
    b, asked = Bench(SMALL, model.device, train), requests(5, 4, 250)
    for path, waits in (("slots", True), ("plain", True), ("generate", False)):
        monkeypatch.setitem(PRESETS, "full", dataclasses.replace(PRESETS["full"], sample_rows=2))
        narrow = decoded(b, model, path, asked, 1, 20)
        monkeypatch.setitem(PRESETS, "full", dataclasses.replace(PRESETS["full"], sample_rows=5))
        wide = decoded(b, model, path, asked, 1, 20)
        assert (narrow["ms_a_step"] is None) == waits and wide["ms_a_step"] > 0
        assert narrow["tokens_per_second"] > 0


def test_all_paths_of_the_probe_leave_the_same_gradient(tiny, rows):
    model, _ = tiny
    adapter = SVDAdapter(model)
    randomise(adapter, 1e-2)
    actions = variants(adapter, rows)
    actions.pop("(a) floor")()
    found = {name: gradient(adapter, action) for name, action in actions.items()}
    reference = found.pop("(d) separate")
    assert reference.norm() > 0 and len(found) == 3
    for name, g in found.items():
        assert (g - reference).norm() < 1e-4 * reference.norm(), name
    fewer = gradient(adapter, variants(adapter, rows[:-1])["(b) ours"])
    assert (fewer - reference).norm() > 1e-2 * reference.norm()


def imposed(model, tokenizer, limit: int, grader=None) -> Imposed:
    options = {"stop": (0, 1), "max_new_tokens": limit, "temperature": 1.0, "hint": True, "rows": 8}
    return Imposed(Plain(model), tokenizer, grader, **options)


def test_the_imposed_policy_draws_imposed_lengths_and_earns_different_rewards_within_every_group(tiny):
    model, tokenizer = tiny
    training, _ = held_out_split(load_problems(path := shipped(TINY).problems), path)
    with Grader(workers=2) as grader:
        policy = imposed(model, tokenizer, 64, grader)
        wanted = [(problem, 6) for problem in training[:4]] + [(training[0], 3)]
        groups = policy.rollouts(wanted, seed=1, step=2)
    rows = [row for group in groups for row in group]
    lengths = [len(row.completion_ids) for row in rows]
    assert lengths == [policy.limit((1, 2, row.problem_id, row.src_sample)) for row in rows]
    assert len(set(lengths)) > 5 and len({group[0].prompt_ids for group in groups}) == 5
    earned = [(True, False, 3.5), (False, True, 3.5), (False, False, 0.5)]
    for group in groups:
        assert [(row.gt_pass, row.hacked, row.reward) for row in group[:3]] == earned


def test_imposed_lengths_have_the_quartiles_of_the_real_pool(tiny):
    policy = imposed(*tiny, limit=1024)
    found = np.array([policy.limit((0, 0, "p", i)) for i in range(4000)])
    ended = found[found < 1024]
    assert 1 - len(ended) / len(found) == pytest.approx(0.02, abs=0.007)
    quartiles = np.quantile(ended, [0.25, 0.5, 0.75, 0.99])
    assert quartiles == pytest.approx(np.array([263, 315, 383, 605]), rel=0.04)
    problem = load_problems(shipped(TINY).problems)[0]
    prompts = [len(policy.prompt(problem)[1]) for _ in range(1000)]
    quartiles = np.quantile(prompts, [0.25, 0.5, 0.75])
    assert quartiles == pytest.approx(np.array([329, 390, 471]), rel=0.05)


def test_a_section_without_memory_says_so_and_the_next_one_runs(tmp_path, monkeypatch, capsys):
    def too_much(b):
        raise torch.OutOfMemoryError("tried to allocate 9 TB\nand more")

    monkeypatch.setitem(sections.MEASURES, "sampling", (too_much, show_sampling))
    bench.main(dataclasses.replace(SMALL, sections="sampling, probe", out=str(tmp_path / "found.json")))
    found, text = json.loads((tmp_path / "found.json").read_text()), capsys.readouterr().out
    assert found["sampling"] == {"error": "out of memory: tried to allocate 9 TB"}
    assert "tried to allocate 9 TB" in text and "ceilings of" not in text
    assert found["probe"]["rows"]["(b) ours"]["seconds"] > 0 and "step" not in found


def test_one_path_without_memory_leaves_the_other_paths_their_row(monkeypatch):
    decoded = sampling_section.decoded

    def too_much(b, model, path, *rest):
        if path == "plain":
            raise torch.OutOfMemoryError("tried to allocate 9 TB")
        return decoded(b, model, path, *rest)

    monkeypatch.setattr(sampling_section, "decoded", too_much)
    found = measure_sampling(Bench(SMALL, torch.device("cpu"), train))
    assert [("error" in row) for row in found["rows"]] == [False, True, False, True, False]
    show_sampling(found)


def test_where_norms_can_be_fused_floor_and_ours_are_measured_with_both_kinds(monkeypatch):
    monkeypatch.setattr(Bench, "on_gpu", True)
    found = measure_probe(Bench(SMALL, torch.device("cpu"), train))
    assert list(found["rows"]) == [
        "(a) floor",
        "(a') floor, fused norms",
        "(b) ours",
        "(b') ours, plain norms",
        "(b) no samples",
        "(c) hook",
        "(d) separate",
    ]
    fused = found["rows"]["(a') floor, fused norms"]["seconds"]
    for row in found["rows"].values():
        assert row["x_fused_floor"] == pytest.approx(row["seconds"] / fused)
    table, caption = show_probe(found)
    console = Console(width=120, file=io.StringIO())
    console.print(table)
    text = console.file.getvalue()
    heading = text[: text.index("(a) floor")]
    assert heading.index("(a)") < heading.index("(a')") and "fused" in caption


@pytest.mark.parametrize(
    "wrong",
    [
        {"sections": "probe,speed"},
        {"batches": "8,many"},
        {"batches": "0"},
        {"new_tokens": 1},
        {"steps": 0},
    ],
)
def test_sizes_that_cannot_be_measured_are_refused(wrong):
    with pytest.raises(InputError):
        resolve(dataclasses.replace(BenchFlags(), **wrong))


def test_sizes_that_are_given_are_kept_and_the_others_follow_the_shape():
    assert resolve(BenchFlags(shape="qwen3-4b", new_tokens=100)).new_tokens == 100
    assert resolve(BenchFlags(shape="qwen3-4b")).batches == "8,64,258"
    assert resolve(BenchFlags()).batches == "4,8"
    assert PRESETS["full"].group == GROUP
