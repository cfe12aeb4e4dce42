"""Claims about the LoRA arm: exact gradients, nothing left behind, and nothing that comes back through A."""

import peft
import pytest
import torch

from antipasto import SVDAdapter
from hackward.base.faults import InputError
from hackward.hardware import models
from hackward.method import extraction, gradients
from hackward.method.losses import collate, micro_batches, policy_loss, token_logps
from hackward.method.projection import Edit, Editor, coefficients
from hackward.method.recipe import Extraction
from hackward.method.v_hack import VHack
from hackward.tasks.shipped import TINY
from lora_adapter import NAME, LoRAAdapter, orthonormal_rows
from tests.conftest import randomise

ROWS = [
    (list(range(1, 9)), list(range(20, 32))),
    (list(range(3, 7)), list(range(40, 61))),
    (list(range(9, 20)), list(range(5, 12))),
]


@pytest.fixture
def adapter():
    return LoRAAdapter(models.load(TINY, dtype="float32", device="cpu")[0], rank=4)


def test_a_has_orthonormal_rows_that_depend_on_the_seed_alone():
    A = orthonormal_rows(5, 30, seed=3)
    assert torch.allclose(A @ A.T, torch.eye(5), atol=1e-6) and torch.equal(
        A, orthonormal_rows(5, 30, seed=3)
    )
    assert not torch.allclose(A, orthonormal_rows(5, 30, seed=4), atol=0.1)


def test_at_zero_and_with_the_adapter_off_the_logits_are_the_base_models_bit_for_bit():
    for dtype in ("float32", "bfloat16"):
        model, _ = models.load(TINY, dtype=dtype, device="cpu")
        ids = torch.arange(1, 40)[None]
        base = model(input_ids=ids).logits.detach()
        adapter = LoRAAdapter(model, rank=4)
        assert torch.equal(model(input_ids=ids).logits, base)
        randomise(adapter)
        assert not torch.equal(model(input_ids=ids).logits, base)
        with adapter.disabled():
            assert torch.equal(model(input_ids=ids).logits, base)
            with adapter.merged() as plain:
                assert torch.equal(plain(input_ids=ids).logits, base)
        assert not torch.equal(model(input_ids=ids).logits, base)
        assert not any(layer.lora_A[NAME].weight.requires_grad for layer in adapter.layers.values())


def test_merging_samples_from_the_policy_and_leaves_no_rounding_behind(adapter):
    ids = torch.arange(1, 40)[None]
    before = {name: layer.get_base_layer().weight.clone() for name, layer in adapter.layers.items()}
    randomise(adapter)
    policy = adapter.model(input_ids=ids).logits.detach()
    with adapter.merged() as model:
        assert torch.allclose(model(input_ids=ids).logits, policy, atol=1e-4)
    assert all(
        torch.equal(layer.get_base_layer().weight, before[name]) for name, layer in adapter.layers.items()
    )
    assert torch.equal(adapter.model(input_ids=ids).logits, policy)


def test_per_sample_gradients_are_those_of_separate_backwards(adapter):
    randomise(adapter)
    weights, lengths = torch.tensor([1.0, -0.5, 2.0]), torch.tensor([float(len(c)) for _, c in ROWS])
    done = gradients.backward(adapter, ROWS, weights, lengths, pad=0, tokens=60, samples=True)
    total = {name: p.grad.clone() for name, p in adapter.params.items()}
    for i, row in enumerate(ROWS):
        for p in adapter.params.values():
            p.grad = None
        batch = collate([row], [0], pad=0)
        policy_loss(*token_logps(adapter.model, batch), weights[i : i + 1], lengths[i : i + 1])[0].backward()
        for name, p in adapter.params.items():
            assert torch.allclose(done.samples[name][i], p.grad.flatten(), atol=1e-6), name
    assert all(torch.allclose(done.samples[name].sum(0), g.flatten(), atol=1e-5) for name, g in total.items())


def test_the_norm_of_b_is_the_norm_of_delta_w(adapter):
    randomise(adapter)
    slow = sum(float(adapter.change(name).detach().square().sum()) for name in adapter.layers) ** 0.5
    assert adapter.delta_w_norm() == pytest.approx(slow, rel=1e-5)
    svd = SVDAdapter(models.load(TINY, dtype="float32", device="cpu")[0])
    randomise(svd)
    slow = (
        sum(
            float(((layer.U * layer.delta_S) @ layer.Vh).detach().square().sum())
            for layer in svd.layers.values()
        )
        ** 0.5
    )
    assert svd.delta_w_norm() == pytest.approx(slow, rel=1e-4)


def test_a_matched_step_moves_delta_w_as_far_in_either_basis():
    moved = {}
    for build_adapter in (SVDAdapter, LoRAAdapter):
        adapter = build_adapter(models.load(TINY, dtype="float32", device="cpu")[0])
        optimizer = torch.optim.AdamW(adapter.params.values(), lr=1e-2 * adapter.step_scale, weight_decay=0)
        gradients.backward(adapter, ROWS, torch.ones(3), torch.ones(3), pad=0, tokens=200)
        optimizer.step()
        moved[adapter.kind] = adapter.delta_w_norm()
    assert moved["lora"] == pytest.approx(moved["svd"], rel=0.02)


def trained(freeze: bool, steps: int = 6) -> tuple[LoRAAdapter, dict[str, torch.Tensor], VHack]:
    """A tiny model trained with a two-sided projection of B's updates; with `freeze` off, A trains too, as in
    an ordinary LoRA."""
    adapter = LoRAAdapter(models.load(TINY, dtype="float32", device="cpu")[0], rank=4)
    generator = torch.Generator().manual_seed(0)
    D = {name: torch.randn(6, p.numel(), generator=generator) for name, p in adapter.params.items()}
    v = extraction.build(D, Extraction(k=3, noise_floor=0.0), {"pair_problems": [str(i) for i in range(6)]})
    A0 = {name: layer.lora_A[NAME].weight.detach().clone() for name, layer in adapter.layers.items()}
    A = [layer.lora_A[NAME].weight.requires_grad_(not freeze) for layer in adapter.layers.values()]
    optimizer = torch.optim.AdamW([*adapter.params.values(), *([] if freeze else A)], lr=1e-2, weight_decay=0)
    editor = Editor(adapter.params, v, edit=Edit(v, "two-sided"), at="update")
    for _ in range(steps):
        optimizer.zero_grad()  # not by gradients.backward, which gives A no gradient
        (batch,) = micro_batches(ROWS, tokens=10_000, pad=0)
        logp, mask = token_logps(adapter.model, batch)
        policy_loss(logp, mask, torch.ones(3), torch.ones(3))[0].backward()
        editor.edit_grads()
        optimizer.step()
        editor.edit_update()
    return adapter, A0, v


def test_what_is_projected_out_cannot_come_back_through_a():
    """Component of the realised Delta W = B A along the removed directions V A_0, over |Delta W|."""
    share = {}
    for freeze in (True, False):
        adapter, A0, v = trained(freeze)
        along = [
            coefficients((adapter.change(name).detach() @ A0[name].T).flatten(), v.V[name]) for name in v.V
        ]
        share[freeze] = (
            float(torch.cat(along).norm())
            / sum(float(adapter.change(name).detach().square().sum()) for name in v.V) ** 0.5
        )
        assert (
            all(torch.equal(layer.lora_A[NAME].weight, A0[name]) for name, layer in adapter.layers.items())
            is freeze
        )
    assert share[True] < 1e-5 < 1e-3 < share[False]


def test_a_saved_adapter_loads_in_peft_and_gives_the_same_logits(tmp_path, adapter):
    randomise(adapter)
    adapter.save(tmp_path / "adapter")
    ids = torch.arange(1, 40)[None]
    expected = adapter.model(input_ids=ids).logits.detach()
    model, _ = models.load(TINY, dtype="float32", device="cpu")
    loaded = peft.PeftModel.from_pretrained(model, str(tmp_path / "adapter"))
    assert torch.allclose(loaded(input_ids=ids).logits, expected, atol=1e-5)
    again = LoRAAdapter(models.load(TINY, dtype="float32", device="cpu")[0], rank=4)
    again.load(tmp_path / "adapter")
    assert torch.equal(again.model(input_ids=ids).logits, expected)
    with pytest.raises(InputError, match="rank or shapes differ"):
        LoRAAdapter(models.load(TINY, dtype="float32", device="cpu")[0], rank=2).load(tmp_path / "adapter")


def test_a_v_hack_of_the_other_basis_is_refused(tmp_path, adapter):
    svd = SVDAdapter(models.load(TINY, dtype="float32", device="cpu")[0])
    assert svd.model_hash == adapter.model_hash
    for made, other in ((svd, adapter), (adapter, svd)):
        name, p = next(iter(made.params.items()))
        V = torch.zeros(1, p.numel())
        V[0, 0] = 1
        meta = {
            "kind": "v_hack",
            "model_hash": made.model_hash,
            "coordinates": made.coordinates,
            "control": "random",
        }
        VHack({name: V}, {name: torch.ones(1)}, meta).save(tmp_path / "v.safetensors")
        VHack.load(
            tmp_path / "v.safetensors",
            model_hash=made.model_hash,
            params=made.params,
            coordinates=made.coordinates,
        )
        with pytest.raises(InputError, match="v.safetensors: v_hack in the coordinates"):
            VHack.load(
                tmp_path / "v.safetensors",
                model_hash=other.model_hash,
                params=other.params,
                coordinates=other.coordinates,
            )


def test_a_rank_that_does_not_fit_is_refused():
    with pytest.raises(InputError, match="--rank 1000"):
        LoRAAdapter(models.load(TINY, dtype="float32", device="cpu")[0], rank=1000)
