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
    import triton.language as tl
except ImportError:  # a CPU build of torch brings no Triton, and needs none
    triton = None


def _on_gpu(tensor: Tensor) -> bool:
    return tensor.is_cuda and _triton_works()


@functools.cache
def _triton_works() -> bool:
    """Tried once: Triton compiles its kernels where they run, and needs a C compiler for that."""
    fault = "is not installed"
    if triton is not None:
        try:
            both = torch.ones(1, 8, device="cuda")
            _silu_mul[(1, 1)](both, torch.empty(1, 4, device="cuda"), 4, BLOCK=1024, num_warps=4)
            return True
        except (
            Exception
        ) as error:  # it raises many kinds: RuntimeError, CompilationError, CalledProcessError, ...
            fault = f"does not work here ({(str(error).splitlines() or [type(error).__name__])[0]})"
    warnings.warn(f"Triton {fault}: the small operations run one by one, which is slower", stacklevel=2)
    return False


def add_norm(residual_BI: Tensor, x_BI: Tensor | None, weight_I: Tensor, eps: float) -> Tensor:
    """RMSNorm of residual + x, (B, I); the sum takes the residual's place. Without x the residual is only
    normed."""
    if not _on_gpu(residual_BI):
        return add_norm_plain(residual_BI, x_BI, weight_I, eps)
    out, width = torch.empty_like(residual_BI), residual_BI.shape[1]
    _add_norm[(len(out),)](
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
    _heads[(B, every)](
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
    _attend[(stretches * H, splits)](
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
    _join[(B * Q,)](
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
    _silu_mul[(B, triton.cdiv(width, 1024))](both_BF, out, width, BLOCK=1024, num_warps=4)
    return out


def silu_mul_plain(both_BF: Tensor) -> Tensor:
    gate, up = both_BF.chunk(2, dim=1)
    return F.silu(gate) * up


def token_sum(p_BTR: Tensor, q_BTR: Tensor) -> Tensor:
    """(B, R) in fp32: sum_t p_t * q_t for every sample. May overwrite p."""
    if not (_on_gpu(p_BTR) and p_BTR.is_contiguous() and q_BTR.is_contiguous()):
        return token_sum_plain(p_BTR, q_BTR)
    B, T, R = p_BTR.shape
    out = torch.empty(B, R, dtype=torch.float32, device=p_BTR.device)
    _token_sum[(B, triton.cdiv(R, 64))](p_BTR, q_BTR, out, T, R, BLOCK=64, ROWS=32, num_warps=4)
    return out


def token_sum_plain(p_BTR: Tensor, q_BTR: Tensor) -> Tensor:
    return torch.sum(p_BTR.mul_(q_BTR), dim=1, dtype=torch.float32)


if triton is not None:

    @triton.jit
    def _add_norm(residual, x, weight, out, eps, width, BLOCK: tl.constexpr, ADD: tl.constexpr):
        at = tl.arange(0, BLOCK)
        inside, row = at < width, tl.program_id(0).to(tl.int64) * width
        total = tl.load(residual + row + at, inside, 0.0)
        if ADD:
            total = (total.to(tl.float32) + tl.load(x + row + at, inside, 0.0).to(tl.float32)).to(total.dtype)
            tl.store(residual + row + at, total, inside)
        total = total.to(tl.float32)
        scale = tl.rsqrt(tl.sum(total * total) / width + eps)
        tl.store(out + row + at, total * scale * tl.load(weight + at, inside, 0.0).to(tl.float32), inside)

    @triton.jit
    def _heads(
        qkv,
        q_norm,
        k_norm,
        cos,
        sin,
        eps,
        place,
        queries,
        keys,
        values,
        Q: tl.constexpr,
        H: tl.constexpr,
        D: tl.constexpr,
        HALF: tl.constexpr,
        NORM: tl.constexpr,
    ):
        b, head = tl.program_id(0), tl.program_id(1)  # Q query heads, then H key heads, then H value heads
        at = tl.arange(0, HALF)
        inside, half = at < D // 2, D // 2
        source = qkv + (b * (Q + 2 * H) + head) * D
        first, second = tl.load(source + at, inside, 0.0), tl.load(source + half + at, inside, 0.0)
        if head >= Q + H:
            target = values + (tl.load(place + b) * H + head - Q - H) * D
        else:
            if head >= Q:
                target = keys + (tl.load(place + b) * H + head - Q) * D
            else:
                target = queries + (b.to(tl.int64) * Q + head) * D
            a, c = first.to(tl.float32), second.to(tl.float32)
            if NORM:
                scale = tl.rsqrt((tl.sum(a * a) + tl.sum(c * c)) / D + eps)
                if head >= Q:
                    w, u = tl.load(k_norm + at, inside, 0.0), tl.load(k_norm + half + at, inside, 0.0)
                else:
                    w, u = tl.load(q_norm + at, inside, 0.0), tl.load(q_norm + half + at, inside, 0.0)
                a, c = (
                    (a * scale * w.to(tl.float32)).to(first.dtype).to(tl.float32),
                    (c * scale * u.to(tl.float32)).to(first.dtype).to(tl.float32),
                )
            turn = tl.load(cos + b * D + at, inside, 0.0).to(tl.float32)
            side = tl.load(sin + b * D + at, inside, 0.0).to(tl.float32)
            first, second = (a * turn - c * side).to(first.dtype), (c * turn + a * side).to(first.dtype)
        tl.store(target + at, first, inside)
        tl.store(target + half + at, second, inside)

    @triton.jit
    def _attend(
        q,
        out,
        weight,
        B,
        scale,
        shared_keys,
        shared_values,
        shared_used,
        shared_seats,
        shared_L,
        shared_N,
        keys,
        values,
        used,
        seats,
        L,
        H: tl.constexpr,
        G: tl.constexpr,
        D: tl.constexpr,
        M: tl.constexpr,
        ROWS: tl.constexpr,
        OWN_M: tl.constexpr,
        OWN_ROWS: tl.constexpr,
        WIDE: tl.constexpr,
        BLOCK: tl.constexpr,
        SPLITS: tl.constexpr,
    ):
        n, h, part = tl.program_id(0) // H, tl.program_id(0) % H, tl.program_id(1)
        if n < shared_N:
            _stretch(
                n,
                h,
                part,
                0,
                q,
                out,
                weight,
                B,
                scale,
                shared_keys,
                shared_values,
                shared_used,
                shared_seats,
                shared_L,
                H,
                G,
                D,
                M,
                ROWS,
                WIDE,
                BLOCK,
                SPLITS,
            )
        else:
            _stretch(
                n - shared_N,
                h,
                part,
                SPLITS,
                q,
                out,
                weight,
                B,
                scale,
                keys,
                values,
                used,
                seats,
                L,
                H,
                G,
                D,
                OWN_M,
                OWN_ROWS,
                WIDE,
                BLOCK,
                SPLITS,
            )

    @triton.jit
    def _stretch(
        n,
        h,
        part,
        first,
        q,
        out,
        weight,
        B,
        scale,
        keys,
        values,
        used,
        seats,
        L,
        H: tl.constexpr,
        G: tl.constexpr,
        D: tl.constexpr,
        M: tl.constexpr,
        ROWS: tl.constexpr,
        WIDE: tl.constexpr,
        BLOCK: tl.constexpr,
        SPLITS: tl.constexpr,
    ):
        count = tl.load(used + n)
        share = tl.cdiv(tl.cdiv(count, SPLITS), BLOCK) * BLOCK
        begin, end = part * share, tl.minimum(count, part * share + share)
        r, d, t = tl.arange(0, ROWS), tl.arange(0, WIDE), tl.arange(0, BLOCK)
        row = tl.load(
            seats + n * M + r // G, r < M * G, B
        )  # M rows share these positions, and the G queries of a group their head
        head, seated = h * G + r % G, row < B
        real = seated[:, None] & (d < D)[None]
        query = tl.load(q + (row * H * G + head)[:, None] * D + d[None], real, 0.0)
        base = (n.to(tl.int64) * L * H + h) * D
        most, total = tl.full((ROWS,), float("-inf"), tl.float32), tl.zeros((ROWS,), tl.float32)
        sums = tl.zeros((ROWS, WIDE), tl.float32)
        for start in range(begin, end, BLOCK):
            at = start + t
            inside = (at < end)[:, None] & (d < D)[None]
            cell = base + at[:, None] * H * D + d[None]
            key = tl.load(keys + cell, inside, 0.0)
            score = tl.dot(query, tl.trans(key), input_precision="ieee") * scale
            score = tl.where((at < end)[None], score, float("-inf"))
            peak = tl.maximum(most, tl.max(score, 1))
            p, fade = tl.exp(score - peak[:, None]), tl.exp(most - peak)
            value = tl.load(values + cell, inside, 0.0)
            sums = sums * fade[:, None] + tl.dot(p.to(value.dtype), value, input_precision="ieee")
            total, most = total * fade + tl.sum(p, 1), peak
        cell = (row * 2 * SPLITS + first + part) * H * G + head
        tl.store(out + cell[:, None] * D + d[None], sums / tl.maximum(total, 1e-30)[:, None], real)
        tl.store(weight + cell, most + tl.log(total), seated)  # -inf for a part without positions

    @triton.jit
    def _join(
        out, weight, joined, Q, D: tl.constexpr, WIDE: tl.constexpr, ALL: tl.constexpr, WAYS: tl.constexpr
    ):
        b, q = tl.program_id(0) // Q, tl.program_id(0) % Q  # a softmax over parts of a softmax
        s, d = tl.arange(0, WAYS), tl.arange(0, WIDE)
        cell, real = (b * ALL + s) * Q + q, (s < ALL)[:, None] & (d < D)[None]
        logs = tl.load(weight + cell, s < ALL, float("-inf"))
        share = tl.exp(logs - tl.max(logs))
        mixed = tl.sum(
            tl.load(out + cell[:, None] * D + d[None], real, 0.0) * (share / tl.sum(share))[:, None], 0
        )
        tl.store(joined + tl.program_id(0) * D + d, mixed, d < D)

    @triton.jit
    def _silu_mul(both, out, width, BLOCK: tl.constexpr):
        row, at = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
        inside = at < width
        gate, up = (
            tl.load(both + row * 2 * width + at, inside, 0.0),
            tl.load(both + row * 2 * width + width + at, inside, 0.0),
        )
        gate = gate.to(tl.float32)
        tl.store(out + row * width + at, (gate * tl.sigmoid(gate)).to(up.dtype) * up, inside)

    @triton.jit
    def _token_sum(p, q, out, T, R, BLOCK: tl.constexpr, ROWS: tl.constexpr):
        b, at, row = (
            tl.program_id(0).to(tl.int64),
            tl.program_id(1) * BLOCK + tl.arange(0, BLOCK),
            tl.arange(0, ROWS),
        )
        total = tl.zeros((ROWS, BLOCK), tl.float32)
        for start in range(0, T, ROWS):
            inside = ((start + row) < T)[:, None] & (at < R)[None]
            cell = (b * T + start + row)[:, None] * R + at[None]
            total += tl.load(p + cell, inside, 0.0).to(tl.float32) * tl.load(q + cell, inside, 0.0).to(
                tl.float32
            )
        tl.store(out + b * R + at, tl.sum(total, 0), at < R)
