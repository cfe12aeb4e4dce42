"""Claims about delta_S: the basis, the identity at zero, the exactness of per-sample gradients, the bf16
merge."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from antipasto import SVDAdapter, SVDCache, SVDLinear, dithered
from hackward.base.faults import InputError
from hackward.hardware import hashes, models
from hackward.hardware.hashes import content_hash, model_hash
from hackward.hardware.models import tiny_random
from hackward.method import gradients
from hackward.method.losses import collate
from hackward.method.svd import thin_svd
from hackward.tasks.shipped import TINY
from tests.conftest import randomise


def eye(n):
    return torch.eye(n, dtype=torch.float64)


# --- basis ---


@pytest.mark.parametrize("shape", [(30, 12), (12, 30), (16, 16), (7, 1), (1, 7)])
def test_basis_is_orthonormal_and_reconstructs_the_weight(shape):
    W = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    U, S, Vh = thin_svd(W)
    r = min(shape)
    assert U.shape == (shape[0], r) and S.shape == (r,) and Vh.shape == (r, shape[1])
    assert torch.allclose(U.T @ U, eye(r), atol=1e-10) and torch.allclose(Vh @ Vh.T, eye(r), atol=1e-10)
    assert torch.allclose(U * S @ Vh, W.double(), atol=1e-10)
    assert torch.allclose(S, torch.linalg.svdvals(W.double()), atol=1e-10)


@pytest.mark.parametrize("shape", [(20, 12), (12, 20)])
def test_basis_is_orthonormal_where_the_weight_has_no_rank(shape):
    generator = torch.Generator().manual_seed(0)
    W = torch.randn(shape[0], 3, generator=generator) @ torch.randn(3, shape[1], generator=generator)
    U, S, Vh = thin_svd(W)
    assert torch.allclose(U.T @ U, eye(12), atol=1e-8) and torch.allclose(Vh @ Vh.T, eye(12), atol=1e-8)
    assert torch.allclose(U * S @ Vh, W.double(), atol=1e-5) and int((1e-4 * S[0] < S).sum()) == 3


def test_content_hash_sees_every_element_shape_and_type():
    W = torch.randn(40, 9)
    seen = {content_hash(W)}
    assert content_hash(W.clone()) in seen
    for i in (0, 17, 359):
        changed = W.clone()
        changed.view(-1)[i] = torch.nextafter(changed.view(-1)[i], torch.tensor(9.0))
        seen.add(content_hash(changed))
    swapped = W.clone()
    swapped[0], swapped[1] = W[1].clone(), W[0].clone()
    seen |= {content_hash(swapped), content_hash(W.reshape(9, 40)), content_hash(W.to(torch.bfloat16))}
    assert len(seen) == 7


def test_content_hash_is_the_same_however_many_words_are_summed_at_once(monkeypatch):
    W = torch.randn(40, 9, generator=torch.Generator().manual_seed(3))
    whole = content_hash(W)
    monkeypatch.setattr(hashes, "WORDS_ON_CPU", 7)
    assert content_hash(W) == whole
    swapped = W.flatten()
    swapped[[0, 7]] = swapped[[7, 0]]  # the first words of two parts
    assert content_hash(swapped.view(40, 9)) != whole


def test_cache_is_keyed_by_content_and_survives_a_broken_file(tmp_path, tiny):
    model, _ = tiny
    cold = SVDAdapter(model, cache=tmp_path)
    assert cold.cache.hits == 0
    warm = SVDAdapter(models.load(TINY, device="cpu")[0], cache=tmp_path)
    assert warm.cache.hits == len(warm.layers)
    name = next(iter(cold.layers))
    assert torch.equal(cold.layers[name].U, warm.layers[name].U)
    for file in tmp_path.iterdir():
        file.write_bytes(b"not a safetensors file")
    with pytest.warns(UserWarning, match="unreadable"):
        broken = SVDAdapter(models.load(TINY, device="cpu")[0], cache=tmp_path)
    assert torch.equal(cold.layers[name].U, broken.layers[name].U)


# --- identity and merging ---


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_logits_at_zero_equal_the_base_model_bit_for_bit(dtype):
    model, _ = models.load(TINY, dtype=dtype, device="cpu")
    ids = torch.arange(1, 60)[None]
    base = model(input_ids=ids).logits.detach()
    adapter = SVDAdapter(model)
    assert torch.equal(model(input_ids=ids).logits, base)
    randomise(adapter, 0.5)
    assert not torch.equal(model(input_ids=ids).logits, base)
    with adapter.disabled():
        assert torch.equal(model(input_ids=ids).logits, base)
    with torch.no_grad():  # back to zero *through the merge*, not by a special case
        for p in adapter.params.values():
            p.zero_()
    assert torch.equal(model(input_ids=ids).logits, base)


def test_forward_equals_the_adapter_written_out(tiny):
    model, _ = tiny
    adapter = SVDAdapter(model)
    randomise(adapter)
    layer = next(iter(adapter.layers.values()))
    x = torch.randn(3, 7, layer.Vh.shape[1])
    by_hand = x @ layer.weight.T + ((x @ layer.Vh.T) * layer.delta_S) @ layer.U.T
    assert torch.allclose(layer(x), by_hand, atol=1e-5)
    with adapter.merged():
        assert torch.allclose(layer(x), by_hand, atol=1e-5)


def test_optimizer_steps_are_noticed_by_the_merge(tiny):
    model, _ = tiny
    adapter = SVDAdapter(model)
    ids = torch.arange(1, 20)[None]
    before = model(input_ids=ids).logits
    before.square().sum().backward()
    torch.optim.AdamW(adapter.params.values(), lr=0.1).step()
    assert not torch.allclose(model(input_ids=ids).logits, before)


def test_small_updates_survive_a_bf16_merge():
    """The trap: each element moves by less than half a unit in the last place, so plain rounding returns W
    itself."""
    generator = torch.Generator().manual_seed(0)
    W = (0.5 + torch.rand(96, 64, generator=generator)).to(torch.bfloat16)
    U, _, Vh = thin_svd(W)
    U, Vh = U.to(torch.bfloat16), Vh.to(torch.bfloat16)
    delta = 0.004 * torch.ones(64)
    change = (U * delta).to(torch.bfloat16) @ Vh
    assert torch.equal((W.float() + change.float()).to(torch.bfloat16), W)
    merged = dithered(W, change, seed=3)
    realised = ((U.double().T @ (merged.double() - W.double())) * Vh.double()).sum(1)
    # One coordinate carries rounding noise of about ulp/sqrt(6) * |u||v| = 0.002; the mean of 64 is eight
    # times finer.
    assert abs(float(realised.mean()) - 0.004) < 0.001
    over_seeds = torch.stack([dithered(W, change, seed).double() - W.double() for seed in range(400)]).mean(0)
    assert torch.allclose(over_seeds, change.double(), atol=4 * 0.0078 / (2 * 400**0.5))


def test_dither_is_the_same_every_time_and_nothing_at_zero():
    W = torch.randn(50, 20).to(torch.bfloat16)
    change = 1e-3 * torch.randn(50, 20)
    assert torch.equal(dithered(W, change, 7), dithered(W, change, 7))
    assert not torch.equal(dithered(W, change, 7), dithered(W, change, 8))
    assert torch.equal(dithered(W, torch.zeros_like(change), 7), W)


# --- gradients ---


def separate_backwards(adapter, rows, A, n):
    """The slow reference: one row, one backward, through plain autograd on W + U diag(delta) Vh."""
    out = []
    for i, (prompt, completion) in enumerate(rows):
        batch = collate([(prompt, completion)], [0], 0)
        parameters = {
            f"{name}.delta": p.detach().clone().requires_grad_() for name, p in adapter.params.items()
        }

        hooks = []
        for name, layer in adapter.layers.items():

            def forward(module, inputs, output, delta=parameters[f"{name}.delta"]):
                x = inputs[0]
                side = ((x @ module.Vh.T) * delta.to(x.dtype)) @ module.U.T
                return nn.functional.linear(x, module.weight, module.bias) + side

            hooks.append(layer.register_forward_hook(forward))
        logits = adapter.model(input_ids=batch.ids_BL).logits.float().log_softmax(-1)
        start = len(prompt) - 1
        logp = logits[0, start:-1].gather(1, batch.ids_BL[0, start + 1 :, None])[:, 0]
        loss = -A[i] * logp.sum() / n[i]
        grads = torch.autograd.grad(loss, list(parameters.values()))
        for hook in hooks:
            hook.remove()
        out.append(dict(zip(adapter.params, grads)))
    return {name: torch.stack([g[name] for g in out]) for name in adapter.params}


def relative(a, b):
    gap = sum((a[n].double() - b[n].double()).square().sum() for n in a)
    return float((gap / sum(b[n].double().square().sum() for n in b)).sqrt())


@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-4), ("bfloat16", 2e-2)])
def test_per_sample_gradients_of_one_backward_equal_separate_backwards(dtype, bound, rows):
    """bf16 is compared with the fp32 gradients of the same (bf16-valued) weights: the error against the
    truth."""
    model, _ = models.load(TINY, dtype=dtype, device="cpu")
    adapter = SVDAdapter(model)
    A, n = torch.tensor([1.0, -2.0, 0.5, 3.0, -1.0]), torch.tensor([3.0, 1.0, 2.0, 5.0, 1.0])
    if dtype == "float32":
        randomise(adapter)
    done = gradients.backward(adapter, rows, A, n, pad=0, tokens=10_000, samples=True)
    aggregate = {name: p.grad for name, p in adapter.params.items()}
    adapter.model.float()
    for layer in adapter.layers.values():  # the reference runs on the same values, in fp32
        layer.merged = layer.merged.float()
    reference = separate_backwards(adapter, rows, A, n)
    assert relative(done.samples, reference) < bound
    assert relative({n: g.sum(0) for n, g in done.samples.items()}, aggregate) < 1e-6
    assert relative({n: -g for n, g in done.samples.items()}, reference) > 1.9  # the comparison can fail


def test_micro_batches_do_not_change_the_gradient(tiny, rows):
    adapter = SVDAdapter(tiny[0])
    randomise(adapter)
    A, n = torch.tensor([1.0, -2.0, 0.5, 3.0, -1.0]), torch.ones(5)
    results = []
    for tokens in (1, 40, 10_000):
        for p in adapter.params.values():
            p.grad = None
        done = gradients.backward(
            adapter,
            rows,
            A,
            n,
            pad=0,
            tokens=tokens,
            samples=True,
            beta_N=torch.tensor([0.3, 0.3, 0.0, 0.3, 0.3]),
        )
        results.append((done, {name: p.grad.clone() for name, p in adapter.params.items()}))
    for done, grad in results[1:]:
        assert relative(done.samples, results[0][0].samples) < 1e-5 and relative(grad, results[0][1]) < 1e-5
        assert done.loss == pytest.approx(results[0][0].loss, rel=1e-5) and done.kl == pytest.approx(
            results[0][0].kl, rel=1e-4
        )


def test_gradient_checkpointing_gives_the_same_numbers(tiny, rows):
    adapter = SVDAdapter(tiny[0])
    randomise(adapter)
    A, n = torch.ones(5), torch.ones(5)
    plain = gradients.backward(adapter, rows, A, n, pad=0, tokens=60, samples=True)
    adapter.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    adapter.model.train()
    assert adapter.model.is_gradient_checkpointing
    again = gradients.backward(adapter, rows, A, n, pad=0, tokens=60, samples=True)
    assert relative(again.samples, plain.samples) < 1e-6


def test_forward_keeps_no_rank_sized_activation(tiny):
    """What autograd saves for a target Linear is its input alone: no tensor with the rank as last
    dimension."""
    adapter = SVDAdapter(tiny[0])
    layer = next(
        layer for name, layer in adapter.layers.items() if "down_proj" in name
    )  # in 96, out 48, rank 48
    x = torch.randn(2, 11, layer.Vh.shape[1], requires_grad=True)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(tuple(t.shape)) or t, lambda t: t):
        layer(x)
    assert saved == [(2, 11, 96)]


# --- save and load ---


def test_save_and_load_restore_delta_and_refuse_another_model(tmp_path, tiny):
    adapter = SVDAdapter(tiny[0])
    randomise(adapter, seed=1)
    want = {name: p.detach().clone() for name, p in adapter.params.items()}
    adapter.save(tmp_path / "a.safetensors")
    randomise(adapter, seed=2)  # sabotage: a load that does nothing must fail
    adapter.load(tmp_path / "a.safetensors")
    assert all(torch.equal(want[name], p) for name, p in adapter.params.items())

    other, _ = tiny_random(seed=1)
    foreign = SVDAdapter(other)
    with pytest.raises(InputError, match="another model"):
        foreign.load(tmp_path / "a.safetensors")
    assert all(not p.any() for p in foreign.params.values())
    (tmp_path / "b.safetensors").write_bytes(b"\x00" * 40)
    with pytest.raises(InputError, match="b.safetensors"):
        adapter.load(tmp_path / "b.safetensors")


def test_model_hash_sees_weights_that_are_not_targets(tiny):
    model, _ = tiny
    before = model_hash(model)
    with torch.no_grad():
        model.get_input_embeddings().weight[5, 5] += 1e-3
    assert model_hash(model) != before


def test_bases_made_at_once_and_written_behind_are_those_made_one_by_one(tmp_path):
    """What a GPU does with its streams, here with threads: the same bases in the same order, all written, all
    read back."""
    weights = [
        (torch.randn(o, i, generator=torch.Generator().manual_seed(o + i)), f"w{o}-{i}")
        for o, i in [(6, 9), (9, 6), (5, 5), (12, 3), (7, 8)]
    ]
    cold, warm = SVDCache(tmp_path), SVDCache(tmp_path)
    alone = list(SVDCache(None).bases(weights))
    at_once = list(cold.bases(weights, at_once=3))
    cold.flush()
    again = list(warm.bases(weights, at_once=3))
    assert (cold.hits, warm.hits) == (0, 5) and len(list(tmp_path.iterdir())) == 5
    for a, b, c in zip(alone, at_once, again):
        assert all(torch.equal(x, y) and torch.equal(x, z) for x, y, z in zip(a, b, c))


@pytest.mark.parametrize(("outputs", "inputs"), [(12, 8), (8, 12), (8, 8)])
def test_a_token_and_a_merge_cost_the_multiplications_that_the_head_of_the_module_says(outputs, inputs):
    linear, tokens, rank = nn.Linear(inputs, outputs, bias=False), 5, min(outputs, inputs)
    layer = SVDLinear(linear, *(part.float() for part in thin_svd(linear.weight.detach())), seed=0)
    x = torch.randn(2, tokens, inputs, requires_grad=True)
    assert multiplications(lambda: layer(x)) == 2 * tokens * outputs * inputs
    y = layer(x)
    assert multiplications(lambda: y.sum().backward()) == 2 * tokens * rank * (outputs + 2 * inputs)
    with torch.no_grad():
        layer.delta_S.add_(0.1)
    assert multiplications(layer.merge) == outputs * inputs * rank
    assert multiplications(layer.merge) == 0  # until the next update


def multiplications(work) -> int:
    """Of matrix products, as PyTorch counts them: an addition beside each."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops() // 2
