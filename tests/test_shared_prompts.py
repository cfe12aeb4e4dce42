"""Claims about rows that share their prompt: the numbers of single rows, for the tokens of one prompt."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch

import train as command
from antipasto import SVDAdapter
from hackward.base.files import read_jsonl
from hackward.base.flags import ALL_LINEAR
from hackward.hardware import models, ranks
from hackward.method import gradients, shared_prompts
from hackward.method.losses import collate, token_logps
from hackward.method.shared_prompts import SHARED, SINGLE, Pack, by_prompt, layout_for, next_pack, pack
from hackward.runs.rundir import differing
from hackward.runs.settings import parse
from hackward.tasks.shipped import TINY
from lora_adapter import LoRAAdapter
from tests.conftest import randomise
from tests.families import FAMILIES, Family

# Groups of 4, 1 and 3 rows, as they come: not sorted
PROMPTS = {"a": list(range(3, 17)), "b": [5, 4], "c": list(range(60, 67))}
ROWS = [
    (PROMPTS[name], list(range(100 + 3 * i, 100 + 3 * i + length)))
    for i, (name, length) in enumerate(
        [("a", 9), ("c", 1), ("a", 17), ("b", 6), ("c", 12), ("a", 1), ("c", 5), ("a", 4)]
    )
]
WEIGHTS = torch.tensor([1.0, -0.5, 0.3, -2.0, 0.0, 0.7, 0.2, -1.0])
SIZES, BETA = torch.full((8,), 40.0), torch.tensor([0.1, 0.0, 0.1, 0.1, 0.0, 0.1, 0.0, 0.0])


def adapted(kind, model=None):
    adapter = kind(model or models.load(TINY, dtype="float32", device="cpu")[0], targets=ALL_LINEAR)
    randomise(adapter, 0.05)
    return adapter


def run(adapter, layout, tokens=10_000, rows=ROWS):
    for p in adapter.params.values():
        p.grad = None
    drawn = [[-1.0] * len(completion) for _, completion in rows]
    options = {"beta_N": BETA, "drawn": drawn, "temperature": 0.7, "tokens": tokens}
    done = gradients.backward(adapter, rows, WEIGHTS, SIZES, pad=0, layout=layout, **options)
    return done, torch.cat([p.grad.flatten() for p in adapter.params.values()])


def assert_equal(one, other):
    (a, g), (b, h) = one, other
    for name in ("loss", "kl", "logp_gap"):
        assert getattr(a, name) == pytest.approx(getattr(b, name), rel=1e-4, abs=1e-6), name
    assert float((g - h).norm() / h.norm()) < 2e-6


@pytest.mark.parametrize("tokens", [10_000, 40, 1])
@pytest.mark.parametrize("kind", [SVDAdapter, LoRAAdapter])
def test_loss_and_gradient_are_those_of_single_rows_however_packs_are_cut(kind, tokens):
    adapter = adapted(kind)
    assert_equal(run(adapter, SHARED, tokens), run(adapter, SINGLE))


def rows_of_any_length(q, k, v, ends, ends_seen, longest, longest_seen, *, scale, window_size, **more):
    """Attention as varlen_attn defines it, one row after another."""
    assert window_size == (-1, 0) and set(more) <= {"enable_gqa"}
    outs = []
    for (a, b), (c, d) in zip(*(zip(e.tolist(), e.tolist()[1:]) for e in (ends, ends_seen)), strict=True):
        assert b - a <= longest and d - c <= longest_seen
        outs.append(shared_prompts.causal(q[None, a:b], k[None, c:d], v[None, c:d], scale)[0])
    return torch.cat(outs)


@pytest.mark.parametrize("tokens", [10_000, 40])
def test_without_padding_inside_of_attention_all_is_the_same(monkeypatch, tokens):
    monkeypatch.setattr(shared_prompts, "varlen_attn", rows_of_any_length)
    adapter = adapted(SVDAdapter)
    single = run(adapter, SINGLE)
    monkeypatch.setattr(Pack, "attend", Pack._unpadded)
    assert_equal(run(adapter, SHARED, tokens), single)


def test_checkpointing_repeats_the_forward_of_the_pack():
    adapter = adapted(SVDAdapter)
    single = run(adapter, SINGLE)
    adapter.model.gradient_checkpointing_enable({"use_reentrant": False})
    adapter.model.train()
    assert adapter.model.get_decoder().gradient_checkpointing
    assert_equal(run(adapter, SHARED), single)


def test_a_prompt_goes_through_the_model_once_and_no_padding_does():
    adapter, seen = adapted(SVDAdapter), []
    decoder = adapter.model.get_decoder()
    decoder.layers[0].register_forward_pre_hook(lambda module, args: seen.append(args[0].shape[:2].numel()))
    run(adapter, SHARED)
    tokens = sum(map(len, PROMPTS.values())) + sum(len(completion) for _, completion in ROWS)
    assert seen == [tokens] * 2  # the policy's forward, and the reference's for the KL


def test_no_completion_knows_of_another(tiny):
    model, _ = tiny
    changed = list(ROWS)
    changed[2] = (changed[2][0], [7] * 17)

    def logps(rows):
        with shared_prompts.attention(model), torch.no_grad():
            return token_logps(model, pack(rows, list(range(8))))[0]

    order = [i for group in by_prompt(ROWS) for i in group]
    usual, other = (logps([rows[i] for i in order]) for rows in (ROWS, changed))
    same = [bool(torch.allclose(one, two, atol=1e-6)) for one, two in zip(usual, other)]
    assert same == [i != 2 for i in order]
    alone = token_logps(model, collate(ROWS, list(range(8)), 0))[0]
    torch.testing.assert_close(usual, alone[order], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("tokens", [1, 20, 41, 10_000])
def test_packs_hold_every_row_once_and_at_most_the_budget(tokens):
    left = [i for group in by_prompt(ROWS) for i in group]
    found: list[int] = []
    while left:
        one = next_pack(ROWS, left, tokens=tokens, pad=0)
        assert one.ids_BL.numel() <= tokens or len(one.index) == 1
        assert one.target.tolist() == [token for i in one.index for token in ROWS[i][1]]
        found += one.index
        left = left[len(one.index) :]
    assert sorted(found) == list(range(8))


def test_a_group_stays_on_one_rank(monkeypatch):
    monkeypatch.setattr(ranks, "size", lambda: 2)
    parts = []
    for rank in range(2):
        monkeypatch.setattr(ranks, "rank", lambda rank=rank: rank)
        parts.append([{tuple(ROWS[i][0]) for i in group} for group in ranks.dealt(SHARED.units(ROWS))])
    assert [len(part) for part in parts] == [2, 1]
    assert all(len(prompts) == 1 for part in parts for prompts in part)


def test_gradients_of_single_rows_are_not_to_be_had_from_packs():
    adapter = SimpleNamespace(model=None)
    with pytest.raises(ValueError, match="single"):
        gradients.backward(adapter, ROWS, WEIGHTS, SIZES, pad=0, samples=True, layout=SHARED)


@pytest.mark.parametrize("name", FAMILIES)
def test_families_share_prompts_unless_they_attend_in_windows(name):
    model = FAMILIES[name].make().eval()
    reason = shared_prompts.why_not(model)
    if name in ("gemma2", "gemma3", "mistral"):
        assert reason == "attention with sliding_window" and layout_for(model, shared=True) is SINGLE
        return
    assert reason is None and layout_for(model, shared=True) is SHARED
    assert layout_for(model, shared=False) is SINGLE
    adapter = adapted(SVDAdapter, model)
    assert_equal(run(adapter, SHARED), run(adapter, SINGLE))


def test_a_window_longer_than_the_trial_is_found_where_only_the_mask_knows_of_it():
    model = Family("Phimoe", {"num_local_experts": 4, "sliding_window": 1000}).make().eval()
    assert shared_prompts.why_not(model) == "attention with a mask that is more than causal"


def test_a_mask_that_a_model_makes_itself_is_refused():
    parts = [torch.zeros(1, 1, 3, 4)] * 3
    with pytest.raises(NotImplementedError, match="more than causal"):
        shared_prompts._attention(torch.nn.Identity(), *parts, torch.zeros(3, 3), pack=pack(ROWS[:1], [0]))


@pytest.mark.parametrize("kind", ["dynamic", "longrope", "yarn"])
def test_rotations_that_the_longest_row_decides_keep_single_rows(kind):
    parts = {"dynamic": {}, "yarn": {}, "longrope": {"short_factor": [1.0] * 4, "long_factor": [4.0] * 4}}
    rope = {"rope_type": kind, "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 64}
    model = FAMILIES["llama"].make(rope_parameters=rope | parts[kind]).eval()
    reason = shared_prompts.why_not(model)
    assert (reason is None) is (kind == "yarn")
    assert reason is None or reason.startswith(f"{kind} rotations")


@pytest.mark.parametrize("flash", [False, True])
def test_groups_without_a_token_of_completion_add_nothing(monkeypatch, flash):
    monkeypatch.setattr(shared_prompts, "varlen_attn", rows_of_any_length)
    if flash:
        monkeypatch.setattr(Pack, "attend", Pack._unpadded)
    adapter = adapted(SVDAdapter)
    rows = [(prompt, [] if prompt == PROMPTS["c"] else completion) for prompt, completion in ROWS]
    rows[0] = (PROMPTS["a"], [])
    assert_equal(run(adapter, SHARED, rows=rows), run(adapter, SINGLE, rows=rows))


def test_a_model_that_would_let_completions_see_each_other_is_found_out(monkeypatch, tiny, capsys):
    def leak(self, q_NHD, k_NHD, v_NHD, scale):
        return shared_prompts.causal(q_NHD[None], k_NHD[None], v_NHD[None], scale)[0]

    assert shared_prompts.why_not(tiny[0]) is None
    monkeypatch.setattr(Pack, "attend", leak)
    assert "hidden states differ by" in shared_prompts.why_not(tiny[0])
    assert layout_for(tiny[0], shared=True) is SINGLE
    assert "do not share their prompt in the backward" in capsys.readouterr().err


def test_the_model_attends_as_usual_afterwards(tiny):
    model, _ = tiny
    config = model.get_decoder().config
    usual = config._attn_implementation
    with pytest.raises(KeyError), shared_prompts.attention(model):
        assert config._attn_implementation != usual
        raise KeyError
    assert config._attn_implementation == usual


def test_a_run_shares_prompts_and_is_the_same_run(shop, tmp_path, monkeypatch):
    flags = ["--preset=smoke", "--prompts=2", "--group=4", "--max-new-tokens=8", "--eval-samples=0"]
    flags += [f"--svd-cache={shop / 'cache'}", f"--v-hack={shop / 'v.safetensors'}", "--device=cpu"]
    config, packs = parse([*flags, "--arm=projected", "--lr=0.01"]), []
    monkeypatch.setattr(shared_prompts, "why_not", lambda model: None)  # its trial makes a pack, too
    whole = shared_prompts.pack

    def counted(rows, index):
        packs.append(len(index))
        return whole(rows, index)

    monkeypatch.setattr(shared_prompts, "pack", counted)
    found = {}
    for shared in (True, False):
        packs.clear()
        out = str(tmp_path / str(shared))
        command.train(dataclasses.replace(config, shared_prompts=shared, out=out))
        found[shared] = read_jsonl(tmp_path / str(shared) / "rows.jsonl")
        assert (sum(packs) > 0) is shared
    for one, other in zip(found[True], found[False], strict=True):
        for name in ("loss", "kl", "grad_norm", "cos_in", "cos_out", "delta_w_norm", "logp_gap"):
            assert one[name] == pytest.approx(other[name], rel=1e-3, abs=1e-7), name
        assert one["grad_norm"] > 0


@pytest.mark.parametrize("stored", [{"shared_prompts": False}, {}])
def test_a_run_goes_on_with_the_other_layout_and_one_from_before_there_were_two(stored):
    settings = dataclasses.asdict(parse(["--preset=smoke"]))
    assert (
        differing({key: settings[key] for key in settings if key != "shared_prompts"} | stored, settings)
        == []
    )
