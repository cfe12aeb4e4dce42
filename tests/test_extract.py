"""Claims about v_hack: a planted direction is found, oriented and told from its null."""

import pytest
import torch

from antipasto import SVDAdapter
from hackward.base.faults import InputError
from hackward.method import extraction
from hackward.method.pairs import find_pairs, scripted_teacher
from hackward.method.projection import cosine
from hackward.method.quality import auc, folds, held_out
from hackward.method.recipe import Extraction
from hackward.method.v_hack import directions, orient
from hackward.tasks.shipped import TINY

SHIPPED_PAIRS = {"pairs": None, "pool": None, "problem_file": None, "clean": "canonical"}


def planted(pairs=24, ranks=(20, 12), strength=1.5, seed=0):
    """Noise plus a common hack-minus-clean direction in every module: (hack, clean, the unit directions)."""
    generator = torch.Generator().manual_seed(seed)
    hack, clean, truth = {}, {}, {}
    for i, r in enumerate(ranks):
        truth[f"m{i}"] = torch.nn.functional.normalize(torch.randn(r, generator=generator), dim=0)
        clean[f"m{i}"] = torch.randn(pairs, r, generator=generator)
        size = strength * (1 + torch.rand(pairs, 1, generator=generator))
        hack[f"m{i}"] = (
            clean[f"m{i}"] + size * truth[f"m{i}"] + 0.3 * torch.randn(pairs, r, generator=generator)
        )
    return hack, clean, truth


def difference(hack, clean):
    return {name: hack[name] - clean[name] for name in hack}


def test_the_planted_direction_comes_first_and_points_hackward():
    hack, clean, truth = planted()
    v = extraction.build(difference(hack, clean), Extraction(k=3, noise_floor=0.0), {})
    for name, direction in truth.items():
        assert float(v.V[name][0] @ direction) > 0.95
        assert torch.allclose(v.V[name] @ v.V[name].T, torch.eye(3), atol=1e-5)
        assert float(v.w[name][0]) > 5 * float(v.w[name][1:].max())
    assert float(cosine(truth, v)) > 0.9
    flipped = extraction.build(
        {n: -d for n, d in difference(hack, clean).items()}, Extraction(k=3, noise_floor=0.0), {}
    )
    assert float(cosine(truth, flipped)) < -0.9


def test_orientation_is_a_majority_vote_and_a_tie_goes_to_the_sum():
    coef = torch.tensor([[1.0, -5.0, 2.0], [1.0, 1.0, -1.0], [-9.0, 1.0, 0.0]])
    sign, w = orient(coef, torch.ones(1, 3))
    assert sign.tolist() == [[1.0, 1.0, 1.0]]
    # the votes of the first two columns win against their sums, so their weights are 0; the third is a tie
    assert w.tolist() == [[0.0, 0.0, pytest.approx(1 / 3)]]
    assert orient(-coef, torch.ones(1, 3))[0].tolist() == [[-1.0, -1.0, -1.0]]
    assert orient(coef, -torch.ones(1, 3))[0].tolist() == [[-1.0, -1.0, -1.0]]


def test_noise_floor_drops_the_weakest_rows_over_all_modules():
    D = {
        "strong": torch.diag(torch.tensor([9.0, 8.0, 7.0])),
        "weak": torch.diag(torch.tensor([3.0, 2.0, 1.0])),
    }
    kept = directions(D, k=3, noise_floor=0.5)
    assert list(kept) == ["strong"] and kept["strong"].shape == (3, 3)
    assert {n: len(V) for n, V in directions(D, k=2, noise_floor=0.0).items()} == {"strong": 2, "weak": 2}


def test_identical_answers_have_no_direction():
    with pytest.raises(InputError, match="no direction"):
        directions({"m": torch.zeros(4, 5)}, k=2, noise_floor=0.25)


def test_held_out_quality_rejects_its_null_for_a_planted_direction_only():
    hack, clean, _ = planted(strength=2.0)
    ids, settings = [f"p{i // 2}" for i in range(24)], Extraction(k=4, noise_floor=0.0, permutations=300)
    good = held_out(hack, clean, ids, settings)
    assert (
        good["right_sign"]["value"] == 1.0
        and good["right_sign"]["p"] < 0.01
        and good["auc"]["value"] > 0.8
        and good["auc"]["p"] < 0.01
    )
    low, high = good["right_sign"]["null"]
    assert low < 0.5 < high < 1.0
    noise = [held_out(*planted(strength=0.0, seed=s)[:2], ids, settings)["right_sign"]["p"] for s in range(8)]
    assert sum(p < 0.05 for p in noise) <= 2 and max(noise) > 0.3


def test_what_cannot_be_measured_held_out_is_undefined():
    hack, clean, _ = planted(pairs=4)
    for ids in (["p"] * 4, ["p", "p", "p", "q"]):  # nothing, or one pair, is left to learn from in some fold
        quality = held_out(hack, clean, ids, Extraction(permutations=20))
        assert quality["right_sign"]["value"] is None and quality["auc"]["p"] is None
    assert held_out(hack, clean, list("pqrs"), Extraction(permutations=20))["right_sign"]["value"] is not None


def test_auc_is_not_diluted_by_folds_whose_directions_differ():
    """Hack beats clean inside each fold; a common part that each fold's direction sees differently must not
    hide it.

    Compared across folds, this case gives 0.64.
    """
    generator = torch.Generator().manual_seed(0)
    hack, clean, _ = planted(pairs=20, strength=3.0)
    common = 400 * torch.nn.functional.normalize(torch.randn(20, generator=generator), dim=0)
    shifted = [{n: g + (common if n == "m0" else 0) for n, g in side.items()} for side in (hack, clean)]
    ids = [f"p{i}" for i in range(20)]
    plain, moved = (
        held_out(*sides, ids, Extraction(k=4, permutations=20))["auc"]["value"]
        for sides in ((hack, clean), shifted)
    )
    assert plain > 0.95 and moved > 0.9


def test_pairs_of_one_problem_are_never_split():
    ids = ["a", "b", "a", "c", "d", "e", "b", "f"]
    parts = folds(ids, 3, seed=0)
    assert sorted(i for part in parts for i in part) == list(range(8))
    assert all(len({k for k, part in enumerate(parts) for i in part if ids[i] == p}) == 1 for p in set(ids))


def test_auc_is_mann_whitney():
    assert auc(torch.tensor([[3.0, 1.0]]), torch.tensor([[0.0, 1.0]])).tolist() == [(1 + 1 + 1 + 0.5) / 4]


def test_shipped_pairs_give_a_v_hack_with_provenance(tmp_path, tiny):
    model, tokenizer = tiny
    adapter = SVDAdapter(model)
    settings = Extraction(max_pairs=6, k=4, permutations=50)
    pairs, source = find_pairs(TINY, tokenizer, model, limit=6, seed=settings.seed, **SHIPPED_PAIRS)
    v = extraction.extract(adapter, tokenizer, pairs, settings, source=source, tokens=20_000)
    v.save(tmp_path / "v.safetensors")
    back = type(v).load(
        tmp_path / "v.safetensors", model_hash=adapter.model_hash, params=adapter.params, coordinates="svd"
    )
    assert (
        back.meta["model_hash"] == adapter.model_hash
        and back.meta["pairs"] == 6
        and back.meta["pair_hash"]
        and back.meta["source_hash"]
    )
    assert back.meta["basis"] == "svd" and set(back.meta["pair_problem_ids"]) == {p.problem_id for p in pairs}
    assert all(V.shape[1] == adapter.params[n].shape[0] for n, V in back.V.items())
    assert all(p.grad is None for p in adapter.params.values())


def test_the_step_that_makes_the_hacks_likelier_points_along_v_hack(tiny):
    """v_hack is of descent: the gradient of the hacks' loss minus that of the clean answers."""
    model, tokenizer = tiny
    adapter, settings = SVDAdapter(model), Extraction(max_pairs=6, k=4, permutations=0)
    pairs, source = find_pairs(TINY, tokenizer, model, limit=6, seed=0, **SHIPPED_PAIRS)
    v = extraction.extract(adapter, tokenizer, pairs, settings, source=source, tokens=20_000)
    sides = {}
    for side in ("hack_ids", "clean_ids"):
        loss = 0.0
        for pair in pairs:
            ids = torch.tensor([[*pair.prompt_ids, *getattr(pair, side)]])
            scored = model(ids).logits[0].log_softmax(-1)[len(pair.prompt_ids) - 1 : -1]
            loss = loss - scored.gather(1, ids[0, len(pair.prompt_ids) :, None]).mean()
        grads = torch.autograd.grad(loss, list(adapter.params.values()))
        sides[side] = dict(zip(adapter.params, grads))
    assert float(cosine({n: sides["hack_ids"][n] - sides["clean_ids"][n] for n in adapter.params}, v)) > 0.5


def test_the_scripted_teacher_says_what_it_is(tiny):
    pool = scripted_teacher(tiny[1])
    assert pool.name == "scripted" and all(
        r.hacked and not r.gt_pass and r.src_pool == "scripted" for r in pool.rollouts
    )
