"""Claims about the projection and its diagnostics, on hand-worked cases and against the formulas written out
slowly."""

import math
from typing import get_args

import pytest
import torch

from antipasto import SVDAdapter
from hackward.base.arms import Gate
from hackward.base.faults import InputError
from hackward.method.projection import (
    GATES,
    Edit,
    Editor,
    coefficients,
    cosine,
    fired,
    module_cosines,
    norm,
    number,
    remove,
)
from hackward.method.v_hack import VHack, random_like

ONE, TWO = GATES["one-sided"], GATES["two-sided"]


def orthonormal(k, r, seed=0):
    return torch.linalg.qr(torch.randn(r, k, generator=torch.Generator().manual_seed(seed))).Q.T.contiguous()


@pytest.fixture
def v():
    """Two modules of rank 6 and 5 with 2 and 1 directions; a third module of the model has none."""
    return VHack(
        {"a": orthonormal(2, 6), "b": orthonormal(1, 5)},
        {"a": torch.tensor([3.0, 1.0]), "b": torch.tensor([2.0])},
    )


@pytest.fixture
def g():
    generator = torch.Generator().manual_seed(5)
    return {
        "a": torch.randn(6, generator=generator),
        "b": torch.randn(5, generator=generator),
        "c": torch.randn(4, generator=generator),
    }


def test_hand_worked_removal():
    V, x = torch.tensor([[1.0, 0, 0], [0, 1.0, 0]]), torch.tensor([2.0, -3.0, 5.0])
    assert remove(x, V, ONE).tolist() == [0.0, -3.0, 5.0]
    assert remove(x, V, TWO).tolist() == [0.0, 0.0, 5.0]
    assert remove(x, V, GATES["none"]).tolist() == [2.0, -3.0, 5.0]


@pytest.mark.parametrize("gate", [ONE, TWO])
def test_projection_is_idempotent_and_never_lengthens(gate):
    V, x = orthonormal(3, 8), torch.randn(20, 8, generator=torch.Generator().manual_seed(5))
    once = remove(x, V, gate)
    assert torch.allclose(remove(once, V, gate), once, atol=1e-6)
    assert (once.norm(dim=1) <= x.norm(dim=1) + 1e-6).all()
    assert (coefficients(once, V) < 1e-6).all()
    if gate is TWO:
        assert coefficients(once, V).abs().max() < 1e-6
    else:
        assert torch.allclose(coefficients(once, V), coefficients(x, V).clamp(max=0), atol=1e-6)


def test_cosine_is_the_plain_cosine_with_the_weighted_direction(g, v):
    direction = torch.cat([v.w["a"] @ v.V["a"], v.w["b"] @ v.V["b"], torch.zeros(4)])
    flat = torch.cat([g["a"], g["b"], g["c"]])
    assert float(cosine(g, v)) == pytest.approx(
        float(torch.cosine_similarity(flat, direction, dim=0)), abs=1e-6
    )
    assert float(cosine({n: -x for n, x in g.items()}, v)) == pytest.approx(-float(cosine(g, v)), abs=1e-6)
    hackward = {"a": v.w["a"] @ v.V["a"], "b": v.w["b"] @ v.V["b"], "c": torch.zeros(4)}
    assert float(cosine(hackward, v)) == pytest.approx(1.0, abs=1e-6)


def test_cosine_of_a_batch_is_the_cosine_of_each_row(g, v):
    batch = {name: torch.stack([x, 2 * x, -x, x.flip(0)]) for name, x in g.items()}
    want = [float(cosine({name: rows[i] for name, rows in batch.items()}, v)) for i in range(4)]
    assert cosine(batch, v).tolist() == pytest.approx(want, abs=1e-6)


def test_nothing_is_undefined_and_says_so(v):
    zero = {"a": torch.zeros(6), "b": torch.zeros(5)}
    assert math.isnan(float(cosine(zero, v))) and number(cosine(zero, v)) is None
    assert number(1.5) == 1.5 and number(float("inf")) is None


def test_fired_counts_hackward_coefficients(v):
    g = {"a": v.V["a"][0] - v.V["a"][1], "b": v.V["b"][0]}
    assert float(fired(g, v)) == pytest.approx(2 / 3)
    assert math.isnan(float(fired({n: 0 * x for n, x in g.items()}, v)))  # no gradient, no share
    assert module_cosines(g, v).shape == (2,)


def params_with_grads(g):
    params = {name: torch.nn.Parameter(torch.zeros_like(x)) for name, x in g.items()}
    for name, p in params.items():
        p.grad = g[name].clone()
    return params


def test_vanilla_measures_and_changes_nothing(g, v):
    params = params_with_grads(g)
    editor, opt = Editor(params, v), torch.optim.SGD(params.values(), lr=0.1)
    seen = editor.edit_grads()
    assert all(torch.equal(params[n].grad, g[n]) for n in g) and seen["cos_in"] == seen[
        "cos_out"
    ] == pytest.approx(float(cosine(g, v)))
    opt.step()
    seen = editor.edit_update()
    assert all(torch.allclose(params[n], -0.1 * g[n]) for n in g)
    assert seen["cos_update"] == pytest.approx(float(cosine(g, v)), abs=1e-5) and seen[
        "update_norm"
    ] == pytest.approx(0.1 * float(norm(g)), rel=1e-5)


def test_gradient_projection_leaves_no_hackward_gradient_but_adam_brings_it_back(g, v):
    """The claim behind --project-at=update: after AdamW a projected gradient's update is hack-ward again."""
    rotated = {}
    for at in ("grad", "update"):
        params = params_with_grads(g)
        editor, opt = (
            Editor(params, v, edit=Edit(v, "two-sided"), at=at),
            torch.optim.AdamW(params.values(), lr=0.1, weight_decay=0),
        )
        cos = []
        for _ in range(3):
            for name, p in params.items():
                p.grad = g[name] + 0.2 * torch.randn(
                    g[name].shape, generator=torch.Generator().manual_seed(len(cos))
                )
            seen = editor.edit_grads()
            opt.step()
            seen |= editor.edit_update()
            cos.append(seen)
        rotated[at] = cos
    assert all(abs(s["cos_out"]) < 1e-6 for s in rotated["grad"])
    assert max(abs(s["cos_update"]) for s in rotated["grad"]) > 0.05
    assert all(abs(s["cos_update"]) < 1e-5 and abs(s["cos_update_in"]) > 0.01 for s in rotated["update"])
    assert all(s["cos_out"] == pytest.approx(s["cos_in"]) for s in rotated["update"])


def test_update_projection_removes_the_hackward_part_of_the_change_really_made(g, v):
    params = params_with_grads(g)
    editor, opt = (
        Editor(params, v, edit=Edit(v, "one-sided"), at="update"),
        torch.optim.SGD(params.values(), lr=1.0),
    )
    editor.edit_grads()
    opt.step()
    editor.edit_update()
    for name, V in v.V.items():
        assert torch.allclose(
            coefficients(-params[name].detach(), V), coefficients(g[name], V).clamp(max=0), atol=1e-5
        )
    assert torch.allclose(params["c"], -g["c"])


def test_random_control_keeps_rank_weights_and_seed_and_loses_the_direction(v):
    a, b = random_like(v, 1), random_like(v, 1)
    assert all(
        torch.equal(a.V[n], b.V[n]) and a.V[n].shape == v.V[n].shape and torch.equal(a.w[n], v.w[n])
        for n in v.V
    )
    assert all(torch.allclose(V @ V.T, torch.eye(len(V)), atol=1e-6) for V in a.V.values())
    assert not torch.allclose(random_like(v, 2).V["a"], a.V["a"], atol=0.1)


def test_a_v_hack_of_another_model_is_refused(tmp_path, tiny):
    adapter = SVDAdapter(tiny[0])
    name, p = next(iter(adapter.params.items()))
    good = VHack(
        {name: orthonormal(2, p.shape[0])},
        {name: torch.ones(2)},
        {"kind": "v_hack", "model_hash": adapter.model_hash, "coordinates": "svd", "control": "random"},
    )
    good.save(tmp_path / "good.safetensors")
    loaded = VHack.load(
        tmp_path / "good.safetensors", model_hash=adapter.model_hash, params=adapter.params, coordinates="svd"
    )
    assert torch.equal(loaded.V[name], good.V[name]) and loaded.meta["hash"]
    with pytest.raises(InputError, match="good.safetensors: v_hack of another model"):
        VHack.load(
            tmp_path / "good.safetensors", model_hash="0" * 32, params=adapter.params, coordinates="svd"
        )
    wrong = VHack({name: orthonormal(2, p.shape[0] + 1)}, {name: torch.ones(2)}, good.meta)
    wrong.save(tmp_path / "wrong.safetensors")
    with pytest.raises(InputError, match="does not fit"):
        VHack.load(
            tmp_path / "wrong.safetensors",
            model_hash=adapter.model_hash,
            params=adapter.params,
            coordinates="svd",
        )
    adapter.save(tmp_path / "adapter.safetensors")
    with pytest.raises(InputError, match="not a v_hack file"):
        VHack.load(
            tmp_path / "adapter.safetensors",
            model_hash=adapter.model_hash,
            params=adapter.params,
            coordinates="svd",
        )


@pytest.mark.parametrize("spoil", ["scaled", "nan", "negative", "empty"])
def test_a_v_hack_that_is_no_direction_is_refused(tmp_path, tiny, spoil):
    adapter = SVDAdapter(tiny[0])
    name, p = next(iter(adapter.params.items()))
    V, w = orthonormal(2, p.shape[0]), torch.ones(2)
    V = {"scaled": 3 * V, "nan": V * math.nan}.get(spoil, V)
    file = VHack(
        {} if spoil == "empty" else {name: V},
        {} if spoil == "empty" else {name: -w if spoil == "negative" else w},
        {"kind": "v_hack", "model_hash": adapter.model_hash, "coordinates": "svd", "control": "random"},
    )
    file.save(tmp_path / "v.safetensors")
    with pytest.raises(
        InputError, match="v.safetensors: .*(not orthonormal|not finite and >= 0|holds no direction)"
    ):
        VHack.load(
            tmp_path / "v.safetensors",
            model_hash=adapter.model_hash,
            params=adapter.params,
            coordinates="svd",
        )


def test_gates_are_named_as_the_command_line_names_them():
    assert set(GATES) == set(get_args(Gate))
