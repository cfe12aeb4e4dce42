"""Claims about sampling: the distribution, the seeds, and that batching is invisible."""

import numpy as np
import pytest
import torch
from scipy import stats

from antipasto import SVDAdapter
from hackward.rollouts import sampling
from hackward.rollouts.draws import Request, draw, uniforms
from tests.conftest import randomise

PROMPTS = [tuple(range(5, 12)), tuple(range(40, 43)), tuple(range(90, 119))]


def requests(keys):
    return [Request(PROMPTS[p], ("s", p, i)) for p, i in keys]


def run(model, wanted, **options):
    drawn = sampling.sample(
        model, wanted, **({"max_new_tokens": 12, "temperature": 1.0, "stop": [257]} | options)
    )
    return [completion.ids for completion in drawn]


def test_draw_follows_the_distribution():
    logits = torch.tensor([0.0, 1.0, -1.0, 2.0])
    u = torch.from_numpy(uniforms(("a",), 20_000)).float()
    counts = np.bincount(draw(logits.expand(20_000, 4), u, 0.7)[0].numpy(), minlength=4)
    expected = (logits / 0.7).softmax(0).double().numpy()
    assert stats.chisquare(counts, expected / expected.sum() * 20_000).pvalue > 1e-4
    assert stats.chisquare(counts, np.full(4, 5000)).pvalue < 1e-4  # the test can fail
    assert draw(logits[None], torch.tensor([0.999999]), 0)[0].tolist() == [3]


def test_draw_stays_inside_the_vocabulary():
    logits = torch.full((3, 5), -50.0)
    logits[:, 2] = 50.0
    assert draw(logits, torch.tensor([0.1, 0.5, 1.0]), 1.0)[0].tolist() == [
        2,
        2,
        2,
    ]  # 1.0: a double just under 1, rounded


@pytest.mark.parametrize("V", [5, 128, 1000])
def test_draw_never_takes_what_has_no_mass_and_survives_what_is_no_distribution(V):
    u = torch.tensor([0.0, 1e-8, 0.5, 1 - 2**-24, 1.0])
    logits = torch.full((5, V), -torch.inf)
    logits[:, V // 2], logits[:, V // 3] = 0.0, -1.0
    token, logp = draw(logits, u, 1.0)
    assert set(token.tolist()) <= {V // 2, V // 3} and bool(logp.isfinite().all())
    token, _ = draw(
        torch.full((5, V), torch.nan), u, 1.0
    )  # the step that follows reports it; a draw must not kill the GPU
    assert bool(((token >= 0) & (token < V)).all())


def test_uniforms_depend_on_every_part_of_the_key():
    seen = {
        tuple(uniforms(key, 4))
        for key in [(1, 2, "p", 3), (1, 2, "p", 4), (1, 3, "p", 3), (2, 2, "p", 3), (1, 2, "q", 3)]
    }
    assert len(seen) == 5 and tuple(uniforms((1, 2, "p", 3), 4)) in seen


def test_a_row_is_the_same_alone_and_in_any_batch(tiny):
    """Left padding, shared prefill, compaction and chunking are invisible."""
    model, _ = tiny
    keys = [(0, 0), (1, 0), (0, 1), (2, 0), (2, 1), (1, 1)]
    together = run(model, requests(keys))
    alone = [run(model, [request])[0] for request in requests(keys)]
    assert together == alone == run(model, requests(keys), rows=4)
    assert run(model, requests(keys[::-1])) == together[::-1]
    assert len({tuple(t) for t in together}) == 6  # different keys do give different rows


def test_greedy_equals_the_model_read_out_step_by_step(tiny):
    model, _ = tiny
    (ours,) = run(model, requests([(1, 0)]), temperature=0.0, stop=[])
    ids = list(PROMPTS[1])
    with torch.no_grad():
        for _ in range(12):
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    assert ours == ids[3:]


def test_rows_end_at_a_stop_token_and_only_there(tiny):
    model, _ = tiny
    free = run(model, requests([(0, i) for i in range(8)]), stop=[], max_new_tokens=20)
    stop = free[0][6]
    ended = run(model, requests([(0, i) for i in range(8)]), stop=[stop], max_new_tokens=20)
    for a, b in zip(free, ended):
        cut = a.index(stop) + 1 if stop in a else len(a)
        assert b == a[:cut]


def test_sampling_uses_the_current_delta(tiny):
    adapter = SVDAdapter(tiny[0])
    with adapter.merged() as model:
        base = run(model, requests([(0, 0)]), temperature=0.0, stop=[])
    randomise(adapter, 0.5)
    with adapter.merged() as model:
        moved = run(model, requests([(0, 0)]), temperature=0.0, stop=[])
    assert base != moved


@pytest.mark.parametrize("limit", [1, 2])
def test_the_limit_is_kept(tiny, limit):
    assert [len(row) for row in run(tiny[0], requests([(0, 0), (1, 0)]), stop=[], max_new_tokens=limit)] == [
        limit,
        limit,
    ]
