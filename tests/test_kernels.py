"""Claims about the fused operations: on a GPU each equals its formula in fp64, for heads and sizes that are no powers of two as well."""

import pytest
import torch

import kernels

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="the formulas are what runs without a GPU")
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 1e-2}


@pytest.fixture(params=TOLERANCE, ids=str)
def dtype(request):
    return request.param


def random(*shape, dtype):
    return torch.randn(*shape, device="cuda").to(dtype)


def assert_close(ours, exact):
    difference = (ours.double() - exact.double()).norm() / exact.double().norm()
    assert float(difference) < TOLERANCE[ours.dtype], float(difference)


def doubled(*tensors):
    return [t.double() if torch.is_tensor(t) and t.is_floating_point() else t for t in tensors]


@pytest.mark.parametrize("width", [48, 2560])
def test_add_norm(dtype, width):
    residual, x, weight = random(5, width, dtype=dtype), random(5, width, dtype=dtype), random(width, dtype=dtype)
    total = (residual.float() + x.float()).to(dtype)
    exact = kernels.add_norm_plain(*doubled(total.clone()), None, weight.double(), 1e-6)
    ours = kernels.add_norm(residual, x, weight, 1e-6)
    assert torch.equal(residual, total)
    assert_close(ours, exact)
    assert_close(kernels.add_norm(residual, None, weight, 1e-6), exact)


@pytest.mark.parametrize("H, G, D", [(8, 4, 128), (2, 7, 64), (3, 1, 12)])
@pytest.mark.parametrize("normed", [True, False])
def test_heads(dtype, H, G, D, normed):
    B, L = 5, 9
    qkv, cos, sin = random(B, (H * G + 2 * H) * D, dtype=dtype), random(B, D // 2, dtype=dtype).repeat(1, 2), random(B, D // 2, dtype=dtype).repeat(1, 2)
    norms = (random(D, dtype=dtype), random(D, dtype=dtype)) if normed else None
    place = torch.tensor([3, 9, 26, 35, 36], device="cuda")
    stores = [random(B, L, H, D, dtype=dtype) for _ in range(2)]
    exact_stores = doubled(*(store.clone() for store in stores))
    ours = kernels.heads(qkv, norms, cos, sin, 1e-6, place, *stores)
    exact = kernels.heads_plain(qkv.double(), norms and tuple(doubled(*norms)), *doubled(cos, sin), 1e-6, place, *exact_stores)
    assert_close(ours, exact)
    for store, wanted in zip(stores, exact_stores):
        assert_close(store, wanted)


@pytest.mark.parametrize("B", [1, 3, 70])
@pytest.mark.parametrize("H, G, D", [(8, 4, 128), (2, 7, 64), (3, 1, 12)])
def test_attend(dtype, B, H, G, D):
    L = 700
    q, keys, values = random(B, H * G, D, dtype=dtype), random(B, L, H, D, dtype=dtype), random(B, L, H, D, dtype=dtype)
    used = torch.randint(1, L + 1, (B,), device="cuda")
    used[0] = 1
    for b in range(B):  # what lies beyond must not be read
        keys[b, used[b] :], values[b, used[b] :] = torch.nan, torch.nan
    clean = [store.nan_to_num(0) for store in (keys, values)]
    exact = kernels.attend_plain(*doubled(q, *clean), used, D**-0.5)
    assert_close(kernels.attend(q, keys, values, used, D**-0.5), exact)


def test_silu_mul(dtype):
    both = random(5, 2 * 1100, dtype=dtype)
    assert_close(kernels.silu_mul(both), kernels.silu_mul_plain(both.double()))


@pytest.mark.parametrize("T, R", [(1, 8), (33, 100), (768, 2560)])
def test_token_sum(dtype, T, R):
    p, q = random(3, T, R, dtype=dtype), random(3, T, R, dtype=dtype)
    exact = (p.double() * q.double()).sum(1)
    ours = kernels.token_sum(p.clone(), q)
    assert ours.dtype == torch.float32
    assert float((ours - exact).norm() / exact.norm()) < 1e-5
