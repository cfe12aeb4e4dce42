"""Claims about decoding in slots: it draws what the plain path draws, whatever is shared, refilled or
limited, and knows what it cannot do."""

import dataclasses
import math
import warnings

import pytest
import torch
from torch import nn

from antipasto import SVDAdapter
from hackward.base.faults import InputError
from hackward.hardware import models
from hackward.rollouts import decoder, sampling, slots
from hackward.rollouts.draws import Request
from hackward.tasks.shipped import TINY
from lora_adapter import LoRAAdapter
from tests import lacks
from tests.conftest import randomise

PROMPTS = [tuple(range(5, 12)), tuple(range(40, 43)), tuple(range(90, 119)), tuple(range(20, 60))]
DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason=lacks.GPU)),
]


def requests(count=23):
    return [Request(PROMPTS[i % 4], ("s", i), (None, 3, 9, 30, 1)[i % 5]) for i in range(count)]


def both(model, wanted, **options):
    settings = {"max_new_tokens": 40, "temperature": 1.0, "stop": [257]} | options
    return [sampling.sample(model, wanted, decoding=decoding, **settings) for decoding in ("plain", "slots")]


def assert_same(plain, fast, tolerance=1e-4):
    assert [row.ids for row in plain] == [row.ids for row in fast]
    assert all(row.logps == pytest.approx(other.logps, abs=tolerance) for row, other in zip(plain, fast))


@pytest.fixture(params=DEVICES)
def model(request):
    return models.load(TINY, dtype="float32", device=request.param)[0]


@pytest.mark.parametrize("rows", [64, 7, 1])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_slots_draw_what_the_plain_path_draws_token_for_token(model, rows, temperature):
    """With limits of their own, two stop tokens, prompts shared by several, and slots that are refilled (rows
    < requests)."""
    plain, fast = both(model, requests(), rows=rows, temperature=temperature, stop=[257, 97])
    assert_same(plain, fast)
    assert {len(row.ids) for row in fast} > {1, 3}  # some ended at their limit, others earlier or later


@pytest.mark.parametrize("decoding", ["plain", "slots"])
def test_every_row_is_handed_out_once_and_as_soon_as_it_has_ended(model, decoding):
    seen, wanted = [], requests()
    rows = sampling.sample(
        model,
        wanted,
        max_new_tokens=40,
        temperature=1.0,
        stop=[257],
        rows=5,
        decoding=decoding,
        on_row=lambda i, row: seen.append((i, row)),
    )
    assert sorted(i for i, _ in seen) == list(range(len(wanted))) and all(rows[i] is row for i, row in seen)
    assert [i for i, _ in seen] != sorted(
        i for i, _ in seen
    )  # short ones before long ones that were begun earlier


@pytest.mark.parametrize("prefill", [1, 30, 10_000])
def test_how_prompts_are_prefilled_together_changes_nothing(model, monkeypatch, prefill):
    monkeypatch.setattr(slots, "PREFILL_TOKENS", prefill)
    assert_same(*both(model, requests(), rows=6))


@pytest.mark.parametrize("queries, rows", [(1, 64), (4, 5), (32, 64), (32, 4)])
def test_how_many_rows_share_a_prompt_changes_nothing(model, monkeypatch, queries, rows):
    """Groups of 1, 7 and 15, at a prompt of their own each, at several copies of it, or all at one."""
    monkeypatch.setattr(decoder, "SHARED_QUERIES", queries)
    wanted = [
        Request(PROMPTS[0 if i < 15 else 1 if i < 22 else 2], ("m", i), (None, 3, 9)[i % 3])
        for i in range(23)
    ]
    assert_same(*both(model, wanted, rows=rows))


def test_rows_that_go_on_keep_the_prompts_that_others_have_left(model):
    """Ten prompts with three rows each, room for two: one long row outlives its short neighbours."""
    wanted = [Request((9 + i // 3, *PROMPTS[i // 3 % 2]), ("p", i), (40, 2, 1)[i % 3]) for i in range(30)]
    assert_same(*both(model, wanted, rows=2, stop=[]))


@pytest.mark.parametrize(
    "room, rows", [(math.inf, 24), (24 * 40 + 24 * 7, 24), (24 * 40 + 24 * 7 - 1, 23), (100, 2), (1, 1)]
)
def test_rows_are_bounded_by_the_memory_for_their_keys_and_values(model, monkeypatch, room, rows):
    """40 positions a row and 7 a prompt; 30 requests of 24 prompts, at most 24 rows."""

    def engine():
        return slots.Engine(
            model,
            wanted,
            limit=40,
            temperature=1.0,
            stop=[],
            rows=24,
            on_token=lambda: None,
            on_row=lambda *row: None,
        )

    wanted = [Request((min(i, 23), *range(6)), ("b", i)) for i in range(30)]
    monkeypatch.setattr(slots, "room", lambda model: room)
    slots_ = engine().slots
    assert (len(slots_.length_B), len(slots_.length_N)) == (rows, rows)


def test_no_slot_is_idle_because_other_groups_are_larger(model):
    """One prompt with many requests gives all prompts many seats; those with one request each must still fill
    all slots."""
    steps, wanted = [], [Request((9 + max(0, i - 8), 7), ("n", i), 32) for i in range(40)]
    sampling.sample(
        model,
        wanted,
        max_new_tokens=32,
        temperature=1.0,
        stop=[],
        rows=8,
        decoding="slots",
        on_token=lambda: steps.append(1),
    )
    assert len(steps) == 40 // 8 * 32


def test_a_slot_goes_on_without_waiting_for_those_that_share_its_prompt(model):
    """One long row and three short ones in each of four groups, four slots: group after group would be four
    times the longest."""
    steps, wanted = [], [Request(PROMPTS[i // 4], ("w", i), 40 if i % 4 == 0 else 2) for i in range(16)]
    sampling.sample(
        model,
        wanted,
        max_new_tokens=40,
        temperature=1.0,
        stop=[],
        rows=4,
        decoding="slots",
        on_token=lambda: steps.append(1),
    )
    assert len(steps) < 4 * 40


@pytest.mark.parametrize("make", [SVDAdapter, LoRAAdapter])
def test_slots_sample_the_adapted_model(model, make):
    adapter = make(model)
    with adapter.merged() as merged:
        base = sampling.sample(
            merged, requests(), max_new_tokens=20, temperature=0.0, stop=[], decoding="slots"
        )
    randomise(adapter, 0.5)
    with adapter.merged() as merged:
        plain, fast = both(merged, requests(), max_new_tokens=20, temperature=0.0, stop=[])
    with adapter.disabled(), adapter.merged() as merged:
        off = sampling.sample(
            merged, requests(), max_new_tokens=20, temperature=0.0, stop=[], decoding="slots"
        )
    assert_same(plain, fast)
    assert [row.ids for row in off] == [row.ids for row in base] != [row.ids for row in fast]


def architectures():
    from transformers import (
        LlamaConfig,
        LlamaForCausalLM,
        Qwen2Config,
        Qwen2ForCausalLM,
        Qwen3Config,
        Qwen3ForCausalLM,
    )

    size = {
        "vocab_size": 300,
        "hidden_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "intermediate_size": 96,
        "initializer_range": 0.15,
    }
    return {
        "llama": LlamaForCausalLM(LlamaConfig(**size)),
        "llama with biases": LlamaForCausalLM(LlamaConfig(**size, attention_bias=True)),
        "qwen2": Qwen2ForCausalLM(Qwen2Config(**size)),
        "qwen3": Qwen3ForCausalLM(Qwen3Config(**size, head_dim=8)),
        "heads of their own": Qwen3ForCausalLM(Qwen3Config(**size | {"num_key_value_heads": 6}, head_dim=10)),
    }


def test_the_three_architectures_are_supported_biases_included():
    for name, model in architectures().items():
        for p in model.parameters():
            if p.ndim == 1:
                nn.init.normal_(p, 0.5, 0.3)  # norms and biases that matter
        model = model.eval().requires_grad_(False)
        assert slots.disagreement(model) < 1e-5, name
        assert_same(*both(model, requests(8), max_new_tokens=12, stop=[]))


def test_a_model_that_computes_something_else_is_not_decoded_in_slots():
    """Same parts, another formula: only running it tells."""
    ours = architectures()
    other = ours["llama"].eval()
    assert slots.supports(other)

    class Twice(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner, self.weight = inner, inner.weight

        def forward(self, x):
            return 2 * self.inner(x)

    changed = ours["qwen2"].eval()
    changed.model.layers[1].input_layernorm = Twice(changed.model.layers[1].input_layernorm)
    from transformers import GPT2Config, GPT2LMHeadModel

    strange = GPT2LMHeadModel(GPT2Config(vocab_size=300, n_embd=48, n_layer=2, n_head=4)).eval()
    for model in (changed, strange):
        with pytest.warns(UserWarning, match="not decoded in slots"):
            assert not slots.supports(model)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert not slots.supports(model)  # said once


@pytest.mark.parametrize(
    "changed",
    [
        {"sliding_window": 32},
        {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}},
    ],
)
def test_what_a_short_text_cannot_show_is_read_off_the_configuration(changed):
    from transformers import MistralConfig, MistralForCausalLM

    size = {
        "vocab_size": 300,
        "hidden_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "intermediate_size": 96,
    }
    assert slots.supports(MistralForCausalLM(MistralConfig(**size, sliding_window=None)).eval())
    with pytest.warns(UserWarning, match="not decoded in slots"):
        assert not slots.supports(
            MistralForCausalLM(MistralConfig(**size | {"sliding_window": None} | changed)).eval()
        )


def test_lack_of_memory_says_nothing_about_a_model(monkeypatch):
    model, real = architectures()["qwen3"].eval(), slots.disagreement

    def out(model):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(slots, "disagreement", out)
    with pytest.raises(torch.OutOfMemoryError):
        slots.supports(model)
    monkeypatch.setattr(slots, "disagreement", real)
    assert slots.supports(model)


def test_a_request_keeps_its_numbers_whatever_its_limit(model):
    wanted = requests()
    longer = [dataclasses.replace(request, limit=None) for request in wanted]
    short, free = (
        sampling.sample(model, these, max_new_tokens=40, temperature=1.0, stop=[257], decoding="slots")
        for these in (wanted, longer)
    )
    assert all(b.ids[: len(a.ids)] == a.ids for a, b in zip(short, free))


def test_out_of_memory_halves_the_rows_and_loses_nothing(model, monkeypatch):
    """A later prefill runs out, with some rows ended and some under way: what has ended stays, the rest is
    drawn anew, with the same numbers."""
    monkeypatch.setattr(slots, "PREFILL_TOKENS", 30)
    wanted, seen, rows, real = requests(), [], [], slots.Engine._prefill
    plain = sampling.sample(model, wanted, max_new_tokens=20, temperature=1.0, stop=[257], decoding="plain")

    def prefill(engine):
        rows.append(len(engine.request_of))
        if rows[-1] > 4 and rows.count(rows[-1]) == 3:
            raise torch.OutOfMemoryError
        return real(engine)

    monkeypatch.setattr(slots.Engine, "_prefill", prefill)
    fast = sampling.sample(
        model,
        wanted,
        max_new_tokens=20,
        temperature=1.0,
        stop=[257],
        rows=12,
        decoding="slots",
        on_row=lambda i, row: seen.append(i),
    )
    assert_same(plain, fast)
    assert sorted(seen) == list(range(len(wanted)))
    assert rows[0] == 12 > rows[-1]


def test_a_row_that_does_not_fit_alone_is_a_fault_in_one_line(model, monkeypatch):
    def prefill(engine):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(slots.Engine, "_prefill", prefill)
    with pytest.raises(InputError, match="does not fit"):
        sampling.sample(model, requests(), max_new_tokens=20, temperature=1.0, stop=[257], decoding="slots")
