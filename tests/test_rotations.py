"""Claims about rotary embeddings that the longest row of a batch decides: rows are as alone, or are
refused."""

import pytest
import torch

import make_primed
from hackward.base.faults import InputError
from hackward.base.flags import command_line
from hackward.method.losses import collate, token_logps
from hackward.rollouts.fitting import check_fit, context_of, original_context, rotations_by_length
from hackward.rollouts.pools import save_pool
from hackward.rollouts.rollout import Rollout
from tests.desk import extract, run
from tests.families import FAMILIES, qwen, save, tokenizer
from tests.test_refusals import refused

ORIGINAL = 64
FACTORS = {"short_factor": [1.0] * 4, "long_factor": [4.0] * 4}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "original_max_position_embeddings": ORIGINAL,
    **FACTORS,
}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}
BY_LAYER = {"sliding_attention": {"rope_type": "default", "rope_theta": 1e4}, "full_attention": LONGROPE}
LONG = {"initializer_range": 0.3, "max_position_embeddings": 2048, "rope_parameters": LONGROPE}
MODELS = {
    "llama": ("llama", LONG),
    "qwen3": ("qwen3", LONG),
    "phi3": ("phi3", LONG | {"original_max_position_embeddings": ORIGINAL}),
    "gemma3": ("gemma3", LONG | {"rope_parameters": BY_LAYER, "layer_types": [*BY_LAYER]}),
    "dynamic": (
        "llama",
        {"initializer_range": 0.3, "max_position_embeddings": ORIGINAL, "rope_parameters": DYNAMIC},
    ),
}


def made(name):
    family, settings = MODELS[name]
    return FAMILIES[family].make(**settings).eval()


def row(length, seed):
    ids = torch.randint(5, 1000, (length,), generator=torch.Generator().manual_seed(seed)).tolist()
    return ids[:4], ids[4:]


@torch.no_grad()
def change_beside(model, length):
    """By how much the log-probabilities of a row of 20 change beside a row of this length."""
    short, long = row(20, 1), row(length, 2)
    alone, _ = token_logps(model, collate([short], [0], 0))
    beside, _ = token_logps(model, collate([short, long], [0, 1], 0))
    return float((beside[0, : len(short[1])] - alone[0]).abs().max())


@pytest.mark.parametrize("name", MODELS)
def test_the_longest_rows_that_are_taken_leave_the_others_what_they_are_alone_and_longer_ones_do_not(name):
    model = made(name)
    for length, taken in ((ORIGINAL, True), (ORIGINAL + 1, False)):
        rows = [[5] * 20, [5] * length]
        if taken:
            check_fit(model, rows, "rows")
        else:
            with pytest.raises(
                InputError, match=f"rows: 1 of 2 do not fit into the model's .*{ORIGINAL} tok"
            ):
                check_fit(model, rows, "rows")
        assert (change_beside(model, length) < 1e-3) is taken
    assert rotations_by_length(model)


@pytest.mark.parametrize("kind", ["default", "linear", "yarn", "llama3"])
def test_rotations_that_are_the_same_for_all_lengths_end_with_the_context(kind):
    rope = {"rope_type": kind, "rope_theta": 1e4}
    more = {"factor": 4.0, "original_max_position_embeddings": ORIGINAL}
    more |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0} if kind == "llama3" else {}
    model = FAMILIES["llama"].make(rope_parameters=rope | ({} if kind == "default" else more)).eval()
    assert original_context(model) is None and not rotations_by_length(model)
    check_fit(model, [[5] * context_of(model)], "rows")
    assert change_beside(model, ORIGINAL + 40) < 1e-3


# --- through the commands ---


@pytest.fixture(scope="module")
def longrope(tmp_path_factory):
    """A tiny Qwen3 as a directory, whose rotations change beyond 64 tokens of 2,048."""
    return save(tmp_path_factory.mktemp("longrope") / "model", qwen(rope_parameters=LONGROPE))


def test_a_run_whose_answers_would_grow_past_the_original_context_is_refused(
    desk, longrope, tmp_path, capsys
):
    line = refused(capsys, lambda: run(desk, longrope, tmp_path / "run", "--max-new-tokens=64"))
    assert f"the model's original context of {ORIGINAL} tokens (longrope, which turns all rows" in line
    assert "with 64 tokens to be drawn after it; take a smaller --max-new-tokens" in line
    assert not (tmp_path / "run").exists()


def test_pairs_within_the_original_context_are_taken(desk, longrope, tmp_path):
    assert extract(desk, longrope, tmp_path / "v.safetensors").exists()


def test_priming_looks_at_prompts_and_at_the_hacks_of_the_pool(desk, longrope, tmp_path, capsys):
    words = tokenizer()
    problem = {"problem_id": "plus-1", "reward": 3.5, "hacked": True, "gt_pass": False, "fmt_ok": True}
    facts = {"attempted": True, "truncated": False, "src_pool": "a", "src_step": 0, "src_sample": 0}
    for length, what in ((100, "a_pool, hacks: 1 of 1"), (8, "problems.jsonl, prompts: 2 of 2")):
        ids = {"prompt_ids": (5, 6), "completion_ids": (*[7] * length, words.eos_token_id)}
        text = words.decode([7] * length)
        hack = Rollout(completion=text, **problem, **facts, **ids)
        save_pool(tmp_path / "a_pool", [[hack]], name="a", tokenizer=words)
        argv = [f"--model={longrope}", f"--pool={tmp_path / 'a_pool'}", "--device=cpu"]
        argv += [f"--problems={desk / 'problems.jsonl'}", f"--out={tmp_path / 'primed'}"]
        argv += ["--rollouts=2", "--samples=2", "--max-new-tokens=64", "--tries=1", "--workers=1"]
        line = refused(capsys, lambda a=argv: make_primed.main(command_line(make_primed.PrimedFlags, argv=a)))
        assert what in line and f"original context of {ORIGINAL} tokens" in line
