"""Small operations in one pass each: formulas in plain PyTorch, and the same in Triton for a GPU.

A decoding step moves every weight and every key and value once; all else should cost nothing. In eager
PyTorch the rest of a layer is some twenty kernels that each read and write a few kilobytes, together as slow
as the weights. Here they are six.

Each public function takes the Triton kernel where the tensors are on a GPU and the formula (`*_plain`)
elsewhere; the tests compare the two. Sums are in fp32 and rounded once, as `torch.nn.functional.rms_norm` and
its like do.

Key: B rows, H key-value heads, G query heads a key-value head, D head size, N stretches of L positions, M
seats at each; T tokens, R rank.
"""

from __future__ import annotations

import functools
import warnings
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

try:
    import triton

    from hackward.hardware import triton_kernels
except ImportError:  # a CPU build of torch brings no Triton, and needs none
    triton = None


SPAN = 1024  # tokens that one program of token_sum adds up: a row of thousands would leave the GPU idle


def _on_gpu(tensor: Tensor) -> bool:
    return tensor.is_cuda and _triton_works()


@functools.cache
def _triton_works() -> bool:
    """Tried once: Triton compiles its kernels where they run, and needs a C compiler for that."""
    fault = "is not installed"
    if triton is not None:
        try:
            both = torch.ones(1, 8, device="cuda")
            triton_kernels.silu_mul[(1, 1)](
                both, torch.empty(1, 4, device="cuda"), 4, BLOCK=1024, num_warps=4
            )
            return True
        # it raises many kinds: RuntimeError, CompilationError, CalledProcessError, ...
        except Exception as error:
            fault = f"does not work here ({(str(error).splitlines() or [type(error).__name__])[0]})"
    warnings.warn(f"Triton {fault}: the small operations run one by one, which is slower", stacklevel=2)
    return False


def add_norm(residual_BI: Tensor, x_BI: Tensor | None, weight_I: Tensor, eps: float) -> Tensor:
    """RMSNorm of residual + x, (B, I); the sum takes the residual's place. Without x the residual is only
    normed."""
    if not _on_gpu(residual_BI):
        return add_norm_plain(residual_BI, x_BI, weight_I, eps)
    out, width = torch.empty_like(residual_BI), residual_BI.shape[1]
    triton_kernels.add_norm[(len(out),)](
        residual_BI,
        x_BI,
        weight_I,
        out,
        eps,
        width,
        BLOCK=triton.next_power_of_2(width),
        ADD=x_BI is not None,
        num_warps=8,
    )
    return out


def add_norm_plain(residual_BI: Tensor, x_BI: Tensor | None, weight_I: Tensor, eps: float) -> Tensor:
    if x_BI is not None:
        residual_BI += x_BI
    return F.rms_norm(residual_BI, weight_I.shape, weight_I, eps)


def heads(
    qkv_BI: Tensor,
    norms: tuple[Tensor, Tensor] | None,
    cos_BD: Tensor,
    sin_BD: Tensor,
    eps: float,
    place_B: Tensor,
    keys_BLHD: Tensor,
    values_BLHD: Tensor,
) -> Tensor:
    """Queries (B, H G, D), normed and rotated; keys and values go to position `place` of the flat (B L)
    slots.

    `norms` are the weights of the query and key norm of models that have them (Qwen3); the rotation is RoPE
    as in the transformers library: the two halves of a head are the two coordinates that rotate.
    """
    if not _on_gpu(qkv_BI):
        return heads_plain(qkv_BI, norms, cos_BD, sin_BD, eps, place_B, keys_BLHD, values_BLHD)
    B, _, H, D = keys_BLHD.shape
    every = qkv_BI.shape[1] // D
    queries = torch.empty(B, every - 2 * H, D, dtype=qkv_BI.dtype, device=qkv_BI.device)
    q_norm, k_norm = norms or (None, None)
    triton_kernels.heads[(B, every)](
        qkv_BI,
        q_norm,
        k_norm,
        cos_BD,
        sin_BD,
        eps,
        place_B,
        queries,
        keys_BLHD,
        values_BLHD,
        Q=every - 2 * H,
        H=H,
        D=D,
        HALF=triton.next_power_of_2(D // 2),
        NORM=norms is not None,
        num_warps=1,
    )
    return queries


def heads_plain(qkv_BI, norms, cos_BD, sin_BD, eps, place_B, keys_BLHD, values_BLHD) -> Tensor:
    B, _, H, D = keys_BLHD.shape
    q, k, v = qkv_BI.view(B, -1, D).split([qkv_BI.shape[1] // D - 2 * H, H, H], dim=1)
    if norms is not None:
        q, k = F.rms_norm(q, (D,), norms[0], eps), F.rms_norm(k, (D,), norms[1], eps)
    q, k = (
        x * cos_BD[:, None] + torch.cat([-x[..., D // 2 :], x[..., : D // 2]], -1) * sin_BD[:, None]
        for x in (q, k)
    )
    keys_BLHD.flatten(0, 1).index_copy_(0, place_B, k)
    values_BLHD.flatten(0, 1).index_copy_(0, place_B, v)
    return q


class Stretch(NamedTuple):
    """N stretches of positions, and who attends to each. All rows of a batch are seated, every one at one
    stretch."""

    keys: Tensor  # (N, L, H, D)
    values: Tensor  # (N, L, H, D)
    used_N: Tensor  # how many of the L positions are in use; may be 0
    seats_NM: Tensor  # rows that attend to them; B, the number of rows, where nobody sits


def attend(q_BQD: Tensor, shared: Stretch, own: Stretch, scale: float) -> Tensor:
    """(B, H G D): every row's queries against the positions in use of the two stretches where it sits.

    What lies beyond them is never read, and what several rows share (a prompt) is read once for all of them.
    """
    if not _on_gpu(q_BQD):
        return attend_plain(q_BQD, shared, own, scale)
    B, Q, D = q_BQD.shape
    H = own.keys.shape[2]
    stretches = len(shared.used_N) + len(own.used_N)
    splits = max(1, min(16, 512 // (stretches * H)))  # enough programs to fill the GPU, whatever the batch
    out = torch.empty(B, 2 * splits, Q, D, dtype=torch.float32, device=q_BQD.device)
    weight = torch.empty(B, 2 * splits, Q, dtype=torch.float32, device=q_BQD.device)
    M, own_M = (stretch.seats_NM.shape[1] for stretch in (shared, own))
    rows, own_rows = (max(16, triton.next_power_of_2(seats * Q // H)) for seats in (M, own_M))
    wide = triton.next_power_of_2(D)
    triton_kernels.attend[(stretches * H, splits)](
        q_BQD,
        out,
        weight,
        B,
        scale,
        *shared,
        shared.keys.shape[1],
        len(shared.used_N),
        *own,
        own.keys.shape[1],
        H=H,
        G=Q // H,
        D=D,
        M=M,
        ROWS=rows,
        OWN_M=own_M,
        OWN_ROWS=own_rows,
        WIDE=wide,
        BLOCK=32,
        SPLITS=splits,
        num_warps=4,
        num_stages=3,
    )
    joined = torch.empty_like(q_BQD)
    triton_kernels.join[(B * Q,)](
        out,
        weight,
        joined,
        Q,
        D=D,
        WIDE=wide,
        ALL=2 * splits,
        WAYS=triton.next_power_of_2(2 * splits),
        num_warps=1,
    )
    return joined.view(B, -1)


def attend_plain(q_BQD: Tensor, shared: Stretch, own: Stretch, scale: float) -> Tensor:
    B, H = len(q_BQD), own.keys.shape[2]
    keys, values, masks = [], [], []
    for stretch in (shared, own):
        N, M = stretch.seats_NM.shape
        at_NM = torch.arange(N, device=q_BQD.device)[:, None].expand(N, M)
        at_B = at_NM.new_zeros(B + 1).scatter_(0, stretch.seats_NM.flatten(), at_NM.flatten())[:B]
        keys.append(stretch.keys[at_B])
        values.append(stretch.values[at_B])
        masks.append(torch.arange(stretch.keys.shape[1], device=q_BQD.device) < stretch.used_N[at_B, None])
    out_BHGD = F.scaled_dot_product_attention(
        q_BQD.view(B, H, -1, q_BQD.shape[2]),
        torch.cat(keys, 1).transpose(1, 2),
        torch.cat(values, 1).transpose(1, 2),
        attn_mask=torch.cat(masks, 1)[:, None, None],
        scale=scale,
    )
    return out_BHGD.reshape(B, -1)


def silu_mul(both_BF: Tensor) -> Tensor:
    """silu(gate) * up, (B, F), of the two side by side (B, 2 F)."""
    if not _on_gpu(both_BF):
        return silu_mul_plain(both_BF)
    B, width = both_BF.shape[0], both_BF.shape[1] // 2
    out = torch.empty(B, width, dtype=both_BF.dtype, device=both_BF.device)
    triton_kernels.silu_mul[(B, triton.cdiv(width, 1024))](both_BF, out, width, BLOCK=1024, num_warps=4)
    return out


def silu_mul_plain(both_BF: Tensor) -> Tensor:
    gate, up = both_BF.chunk(2, dim=1)
    return F.silu(gate) * up


def token_sum(p_BTR: Tensor, q_BTR: Tensor) -> Tensor:
    """(B, R) in fp32: sum_t p_t * q_t for every sample. May overwrite p."""
    if not (_on_gpu(p_BTR) and p_BTR.is_contiguous() and q_BTR.is_contiguous()):
        return token_sum_plain(p_BTR, q_BTR)
    B, T, R = p_BTR.shape
    spans = triton.cdiv(T, SPAN)
    out = torch.empty(spans, B, R, dtype=torch.float32, device=p_BTR.device)
    grid = (B, triton.cdiv(R, 64), spans)
    triton_kernels.token_sum[grid](p_BTR, q_BTR, out, T, R, SPAN, BLOCK=64, ROWS=32, num_warps=4)
    return out.sum(0)


def token_sum_plain(p_BTR: Tensor, q_BTR: Tensor) -> Tensor:
    return torch.sum(p_BTR.mul_(q_BTR), dim=1, dtype=torch.float32)
