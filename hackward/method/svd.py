"""The singular value decomposition by which delta_S is defined, exact to fp64 rounding."""

from __future__ import annotations

import torch
from torch import Tensor

# Below this share of the largest singular value, a left vector computed as W v / s is mostly rounding error.
RANK_TOLERANCE = 1e-6


def thin_svd(W_OI: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """U (O, R), S (R,) descending, Vh (R, I) of W in fp64, on W's device.

    By eigendecomposition of the smaller Gram matrix, which costs a tenth of LAPACK's gesvd on a GPU. The
    price is a loss of accuracy for singular values below 1e-6 of the largest; their left vectors are replaced
    by an orthonormal completion, so U and Vh have orthonormal columns and rows whatever the rank of W.
    """
    wide = W_OI.shape[0] < W_OI.shape[1]
    A_NR = (W_OI.T if wide else W_OI).to(torch.float64)
    eigenvalues, V_RR = torch.linalg.eigh(A_NR.T @ A_NR)
    V_RR = V_RR.flip(1)
    left_NR = A_NR @ V_RR
    S_R = left_NR.norm(dim=0)
    good = RANK_TOLERANCE * S_R.max() < S_R
    U_NR = left_NR / S_R.where(good, torch.ones_like(S_R))
    if not bool(good.all()):
        U_NR[:, ~good] = _complete(U_NR[:, good], int((~good).sum()))
    return (V_RR, S_R, U_NR.T) if wide else (U_NR, S_R, V_RR.T)


def _complete(Q_NK: Tensor, count: int) -> Tensor:
    """`count` orthonormal columns orthogonal to those of Q (seeded: the same on every run)."""
    generator = torch.Generator().manual_seed(0)
    extra = torch.randn(Q_NK.shape[0], count, dtype=torch.float64, generator=generator).to(Q_NK.device)
    for _ in range(2):  # twice is enough: Kahan's rule for Gram-Schmidt
        extra = torch.linalg.qr(extra - Q_NK @ (Q_NK.T @ extra)).Q
    return extra
