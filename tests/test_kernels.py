"""Claims about the fused operations: on a GPU each equals its formula in fp64, for heads and sizes that are
no powers of two as well."""

import pytest
import torch

from hackward.hardware import kernels
from tests import lacks

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason=lacks.GPU)
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
    residual, x, weight = (
        random(5, width, dtype=dtype),
        random(5, width, dtype=dtype),
        random(width, dtype=dtype),
    )
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
    qkv, cos, sin = (
        random(B, (H * G + 2 * H) * D, dtype=dtype),
        random(B, D // 2, dtype=dtype).repeat(1, 2),
        random(B, D // 2, dtype=dtype).repeat(1, 2),
    )
    norms = (random(D, dtype=dtype), random(D, dtype=dtype)) if normed else None
    place = torch.tensor([3, 9, 26, 35, 36], device="cuda")
    stores = [random(B, L, H, D, dtype=dtype) for _ in range(2)]
    exact_stores = doubled(*(store.clone() for store in stores))
    ours = kernels.heads(qkv, norms, cos, sin, 1e-6, place, *stores)
    exact = kernels.heads_plain(
        qkv.double(), norms and tuple(doubled(*norms)), *doubled(cos, sin), 1e-6, place, *exact_stores
    )
    assert_close(ours, exact)
    for store, wanted in zip(stores, exact_stores):
        assert_close(store, wanted)


@pytest.mark.parametrize("N", [1, 3, 70])
@pytest.mark.parametrize("H, G, D", [(8, 4, 128), (2, 7, 64), (3, 1, 12)])
@pytest.mark.parametrize("M", [1, 6])
def test_attend(dtype, N, H, G, D, M):
    """Positions of every row's own, after some that up to M rows share, wherever they sit."""
    B = max(1, N * M - 2)
    q, stretches, exact = random(B, H * G, D, dtype=dtype), [], []
    for seats, longest in (
        (torch.randperm(N * M).view(N, M).clamp(max=B), 300),
        (torch.randperm(B)[:, None], 700),
    ):
        keys, values = (random(len(seats), longest, H, D, dtype=dtype) for _ in range(2))
        used = torch.randint(1, longest + 1, (len(seats),), device="cuda")
        used[-1] = used[-1] if len(seats) == 1 else longest == 700  # nothing to share, and a single position
        exact.append(kernels.Stretch(keys.double(), values.double(), used, seats.cuda()))
        for n in range(len(seats)):  # what lies beyond must not be read
            keys[n, used[n] :], values[n, used[n] :] = torch.nan, torch.nan
        stretches.append(kernels.Stretch(keys, values, used, seats.cuda()))
    assert_close(kernels.attend(q, *stretches, D**-0.5), kernels.attend_plain(q.double(), *exact, D**-0.5))


def test_silu_mul(dtype):
    both = random(5, 2 * 1100, dtype=dtype)
    assert_close(kernels.silu_mul(both), kernels.silu_mul_plain(both.double()))


@pytest.mark.parametrize("T, R", [(1, 8), (33, 100), (768, 2560), (2 * kernels.SPAN + 33, 100)])
def test_token_sum(dtype, T, R):
    p, q = random(3, T, R, dtype=dtype), random(3, T, R, dtype=dtype)
    exact = (p.double() * q.double()).sum(1)
    ours = kernels.token_sum(p.clone(), q)
    assert ours.dtype == torch.float32
    assert float((ours - exact).norm() / exact.norm()) < 1e-5
