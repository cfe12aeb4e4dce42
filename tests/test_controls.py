"""Claims about the controls and the nulls: each differs from the real thing in exactly what it should; and a
planted case with a known truth."""

import dataclasses
import functools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import linalg

from antipasto import SVDAdapter
from hackward.base.faults import InputError
from hackward.method import extraction
from hackward.method.extraction import pair_gradients, rotated
from hackward.method.losses import collate, dr_grpo_advantages, policy_loss, token_logps
from hackward.method.pairs import Pair
from hackward.method.projection import (
    GATES,
    Edit,
    Editor,
    coefficients,
    cosine,
    norm,
    null_cosines,
    overlap,
    remove,
)
from hackward.method.recipe import Extraction
from hackward.method.v_hack import VHack, null_weights, pair_flips, random_like, sign_flipped
from hackward.runs.direction import SUBSTITUTES
from tests.test_extract import difference, planted


@pytest.fixture
def v():
    D = difference(*planted(pairs=24, strength=0.6)[:2])
    return extraction.build(
        D, Extraction(k=4, noise_floor=0.0), {"pair_problems": [f"p{i // 2}" for i in range(24)]}
    )


@pytest.fixture
def g():
    generator = torch.Generator().manual_seed(9)
    return {
        "m0": torch.randn(20, generator=generator),
        "m1": torch.randn(12, generator=generator),
        "free": torch.randn(7, generator=generator),
    }


# --- controls ---


def test_sign_flip_has_the_span_of_v_hack_and_another_orientation(v, g):
    flipped = sign_flipped(v, seed=3)
    for name, V in v.V.items():
        assert torch.allclose(flipped.V[name].T @ flipped.V[name], V.T @ V, atol=1e-5)  # the same projector
        assert (flipped.w[name] >= 0).all() and torch.allclose(
            flipped.w[name], flipped.coef[name].mean(0).clamp(min=0), atol=1e-5
        )
        assert torch.allclose(
            remove(g[name], flipped.V[name], GATES["two-sided"]),
            remove(g[name], V, GATES["two-sided"]),
            atol=1e-5,
        )
    assert any(
        not torch.allclose(
            remove(g[n], flipped.V[n], GATES["one-sided"]), remove(g[n], V, GATES["one-sided"]), atol=1e-3
        )
        for n, V in v.V.items()
    )
    direction = {name: v.w[name] @ V for name, V in v.V.items()}
    assert (
        float(cosine(direction, v)) == pytest.approx(1.0, abs=1e-5)
        and abs(float(cosine(direction, flipped))) < 0.9
    )
    problems = v.meta["pair_problems"]
    flips = pair_flips(v, 50, 0)
    assert all(
        len({float(flips[s, i]) for i, p in enumerate(problems) if p == problem}) == 1
        for s in range(50)
        for problem in set(problems)
    )


def test_shrink_keeps_the_direction_and_has_the_length_that_removal_leaves(v, g):
    for gate in ("one-sided", "two-sided"):
        left, shrunk = Edit(v, gate)(g), Edit(v, gate, shrink=True)(g)
        assert float(norm(shrunk)) == pytest.approx(float(norm(left)), rel=1e-5) and float(
            norm(shrunk)
        ) < float(norm(g))
        assert float(cosine(shrunk, v)) == pytest.approx(float(cosine(g, v)), abs=1e-6)
        assert abs(float(cosine(left, v)) - float(cosine(g, v))) > 1e-3
    assert all(torch.equal(x, g[n]) for n, x in Edit(v)(g).items())
    zero = {n: torch.zeros_like(x) for n, x in g.items()}
    assert not any(x.any() or x.isnan().any() for x in Edit(v, "two-sided", shrink=True)(zero).values())


def fake_pairs(tokenizer, hack: str) -> list[Pair]:
    ids = lambda text: tuple(tokenizer(text, add_special_tokens=False)["input_ids"])  # noqa: E731
    return [
        Pair(
            f"p{i // 2}",
            f"p{i // 2}",
            "m",
            ids(f"problem {i // 2}"),
            ids(f"{hack} {i}"),
            ids(f"return {i} + {i * i}"),
        )
        for i in range(8)
    ]


def test_clean_clean_has_the_size_of_v_hack_and_has_not_seen_a_hack(tiny):
    model, tokenizer = tiny
    adapter, settings = SVDAdapter(model), Extraction(k=3, noise_floor=0.0, permutations=0)
    made = {
        hack: extraction.clean_clean(
            adapter, tokenizer, fake_pairs(tokenizer, hack), settings, tokens=4000, seed=1
        )
        for hack in ("assert True", "import os")
    }
    one, other = made.values()
    real = {
        hack: extraction.extract(
            adapter, tokenizer, fake_pairs(tokenizer, hack), settings, source={}, tokens=4000
        )
        for hack in made
    }
    a, b = real.values()
    assert all(torch.equal(one.V[n], other.V[n]) for n in one.V)  # other hacks, the same control
    assert any(not torch.allclose(a.V[n], b.V[n], atol=1e-3) for n in a.V if n in b.V)  # and another v_hack
    assert {n: V.shape for n, V in one.V.items()} == {n: V.shape for n, V in a.V.items()}
    assert overlap(one, a) < 0.9


def test_no_clean_answer_meets_one_to_its_own_problem():
    ids = ["a", "a", "b", "c", "c", "c", "d", "e"]
    for seed in range(5):
        other = rotated(ids, seed)
        assert sorted(other) == list(range(8)) and all(ids[i] != ids[j] for i, j in enumerate(other))
    with pytest.raises(InputError, match="3 of 4 pairs are of one problem"):
        rotated(["a", "a", "a", "b"], 0)


# --- nulls ---


def test_the_null_is_what_extraction_from_flipped_pairs_would_have_measured(g):
    """Slow reference: flip the differences themselves, build V anew, take the cosine."""
    D, settings = difference(*planted(pairs=10, strength=0.5)[:2]), Extraction(k=3, noise_floor=0.0)
    v = extraction.build(D, settings, {"pair_problems": [str(i) for i in range(10)]})
    flips = pair_flips(v, 20, seed=0)
    flipped = [extraction.build({n: d * flip[:, None] for n, d in D.items()}, settings, {}) for flip in flips]
    slow = [
        float(cosine(g, f) * norm(f.w) / norm(v.w)) for f in flipped
    ]  # against the real direction's length
    assert torch.allclose(null_cosines(g, v, null_weights(v, 20, seed=0)), torch.tensor(slow), atol=1e-4)
    batch = {name: torch.stack([x, 2 * x]) for name, x in g.items()}
    assert null_cosines(batch, v, null_weights(v, 20)).shape == (2, 20)


def test_random_directions_belong_to_no_pairs_and_have_no_null(v):
    assert null_weights(v) and null_weights(random_like(v, 1)) == {}


@pytest.mark.parametrize("control", ["random", "sign-flip"])
def test_a_control_of_another_seed_is_another_draw_and_of_the_same_seed_the_same(v, control):
    drawn = [
        SUBSTITUTES[control](SimpleNamespace(v=v, config=SimpleNamespace(seed=seed))) for seed in (0, 0, 1)
    ]
    same, other = ([torch.equal(drawn[0].V[n], one.V[n]) for n in v.V] for one in drawn[1:])
    assert all(same) and not any(other)


def test_a_v_hack_file_without_its_pairs_coefficients_is_refused(v, tmp_path):
    params = {name: torch.zeros(V.shape[1]) for name, V in v.V.items()}
    meta = v.meta | {"kind": "v_hack", "model_hash": "m", "coordinates": "svd"}
    whole = VHack(v.V, v.w, meta, v.coef)
    for name, coef in (("whole", v.coef), ("bare", {})):
        dataclasses.replace(whole, coef=coef).save(tmp_path / f"{name}.safetensors")
    read = functools.partial(VHack.load, model_hash="m", params=params, coordinates="svd")
    assert read(tmp_path / "whole.safetensors").coef.keys() == v.V.keys()
    with pytest.raises(InputError, match="bare.safetensors: module .* coefficients do not fit V"):
        read(tmp_path / "bare.safetensors")


# --- objectives and refresh ---


def test_grpo_contrast_is_the_gradient_of_the_live_loss_on_the_pair_as_a_group(tiny):
    """Slow reference: the loss of a group of two, rewards 1 and 0, fixed denominator, temperature, by
    autograd."""
    model, tokenizer = tiny
    adapter, pairs = SVDAdapter(model), fake_pairs(tokenizer, "assert True")[:3]
    settings = Extraction(objective="grpo", temperature=0.7)
    hack, clean = pair_gradients(adapter, pairs, settings, pad=0, tokens=500)
    longest = max(len(ids) for p in pairs for ids in (p.hack_ids, p.clean_ids))
    for i, pair in enumerate(pairs):
        batch = collate([(pair.prompt_ids, pair.hack_ids), (pair.prompt_ids, pair.clean_ids)], [0, 1], pad=0)
        logp, mask = token_logps(adapter.model, batch, temperature=0.7)
        policy_loss(
            logp, mask, dr_grpo_advantages(torch.tensor([1.0, 0.0])), torch.full((2,), float(longest))
        )[0].backward()
        for name, p in adapter.params.items():
            assert torch.allclose(hack[name][i] - clean[name][i], p.grad, atol=1e-6), name
            p.grad = None
    nll = pair_gradients(adapter, pairs, Extraction(), pad=0, tokens=500)
    assert any(not torch.allclose(hack[n] - clean[n], (nll[0][n] - nll[1][n]) / 2, rtol=1e-2) for n in hack)


def test_overlap_is_the_mean_squared_cosine_of_the_principal_angles():
    generator = torch.Generator().manual_seed(0)
    bases = [torch.linalg.qr(torch.randn(9, k, generator=generator)).Q.T for k in (3, 2)]
    a, b = (VHack({"m": V}, {"m": torch.ones(len(V))}) for V in bases)
    angles = linalg.subspace_angles(bases[0].T.numpy(), bases[1].T.numpy())
    assert overlap(a, b) == pytest.approx(float((np.cos(angles) ** 2).mean()), abs=1e-5)
    assert overlap(a, a) == pytest.approx(1.0, abs=1e-5)
    assert overlap(a, VHack({"other": bases[1]}, {"other": torch.ones(2)})) == 0.0


def test_a_refresh_takes_the_new_direction_out_of_the_momentum(v, g):
    params = {name: torch.nn.Parameter(torch.zeros_like(x)) for name, x in g.items()}
    new = random_like(v, 2)
    for at, gate, clears in (
        ("grad", "two-sided", True),
        ("update", "two-sided", False),
        ("grad", "none", False),
    ):
        optimizer = torch.optim.AdamW(params.values(), lr=0.1)
        for name, p in params.items():
            p.grad = g[name].clone()
        optimizer.step()
        editor = Editor(params, v, edit=Edit(v, gate), at=at)
        editor.use(new, Edit(new, gate))
        editor.align(optimizer)
        left = max(
            float(coefficients(optimizer.state[params[n]]["exp_avg"], V).abs().max())
            for n, V in new.V.items()
        )
        assert (left < 1e-6) is clears
