"""Small operations in one pass each: formulas in plain PyTorch, and the same in Triton for a GPU.

A decoding step moves every weight and every key and value once; all else should cost nothing. In eager PyTorch the rest of
a layer is some twenty kernels that each read and write a few kilobytes, together as slow as the weights. Here they are four.

Each public function takes the Triton kernel where the tensors are on a GPU and the formula (`*_plain`) elsewhere; the tests
compare the two. Sums are in fp32 and rounded once, as `torch.nn.functional.rms_norm` and its like do.

Key: B rows, H key-value heads, G query heads a key-value head, D head size, L positions of a slot; T tokens, R rank.
"""

from __future__ import annotations

import functools
import warnings

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
        except Exception as error:  # it raises many kinds: RuntimeError, CompilationError, CalledProcessError, ...
            fault = f"does not work here ({(str(error).splitlines() or [type(error).__name__])[0]})"
    warnings.warn(f"Triton {fault}: the small operations run one by one, which is slower", stacklevel=2)
    return False


# --- residual and norm ---------------------------------------------------------------------------------------------


def add_norm(residual_BI: Tensor, x_BI: Tensor | None, weight_I: Tensor, eps: float) -> Tensor:
    """RMSNorm of residual + x, (B, I); the sum takes the residual's place. Without x the residual is only normed."""
    if not _on_gpu(residual_BI):
        return add_norm_plain(residual_BI, x_BI, weight_I, eps)
    out, width = torch.empty_like(residual_BI), residual_BI.shape[1]
    _add_norm[(len(out),)](residual_BI, x_BI, weight_I, out, eps, width, BLOCK=triton.next_power_of_2(width), ADD=x_BI is not None, num_warps=8)
    return out


def add_norm_plain(residual_BI: Tensor, x_BI: Tensor | None, weight_I: Tensor, eps: float) -> Tensor:
    if x_BI is not None:
        residual_BI += x_BI
    return F.rms_norm(residual_BI, weight_I.shape, weight_I, eps)


# --- heads: norm, rotation, storing --------------------------------------------------------------------------------


def heads(qkv_BI: Tensor, norms: tuple[Tensor, Tensor] | None, cos_BD: Tensor, sin_BD: Tensor, eps: float, place_B: Tensor,
          keys_BLHD: Tensor, values_BLHD: Tensor) -> Tensor:
    """Queries (B, H G, D), normed and rotated; keys and values go to position `place` of the flat (B L) slots.

    `norms` are the weights of the query and key norm of models that have them (Qwen3); the rotation is RoPE as in the
    transformers library: the two halves of a head are the two coordinates that rotate.
    """
    if not _on_gpu(qkv_BI):
        return heads_plain(qkv_BI, norms, cos_BD, sin_BD, eps, place_B, keys_BLHD, values_BLHD)
    B, _, H, D = keys_BLHD.shape
    every = qkv_BI.shape[1] // D
    queries = torch.empty(B, every - 2 * H, D, dtype=qkv_BI.dtype, device=qkv_BI.device)
    q_norm, k_norm = norms or (None, None)
    _heads[(B, every)](qkv_BI, q_norm, k_norm, cos_BD, sin_BD, eps, place_B, queries, keys_BLHD, values_BLHD,
                       Q=every - 2 * H, H=H, D=D, HALF=triton.next_power_of_2(D // 2), NORM=norms is not None, num_warps=1)
    return queries


def heads_plain(qkv_BI, norms, cos_BD, sin_BD, eps, place_B, keys_BLHD, values_BLHD) -> Tensor:
    B, _, H, D = keys_BLHD.shape
    q, k, v = qkv_BI.view(B, -1, D).split([qkv_BI.shape[1] // D - 2 * H, H, H], dim=1)
    if norms is not None:
        q, k = F.rms_norm(q, (D,), norms[0], eps), F.rms_norm(k, (D,), norms[1], eps)
    q, k = (x * cos_BD[:, None] + torch.cat([-x[..., D // 2 :], x[..., : D // 2]], -1) * sin_BD[:, None] for x in (q, k))
    keys_BLHD.flatten(0, 1).index_copy_(0, place_B, k)
    values_BLHD.flatten(0, 1).index_copy_(0, place_B, v)
    return q


# --- attention -----------------------------------------------------------------------------------------------------


def attend(q_BQD: Tensor, keys_BLHD: Tensor, values_BLHD: Tensor, used_B: Tensor, scale: float) -> Tensor:
    """(B, H G D): every row's queries against the first `used` positions of its slot. Nothing beyond them is read."""
    if not _on_gpu(q_BQD):
        return attend_plain(q_BQD, keys_BLHD, values_BLHD, used_B, scale)
    B, L, H, D = keys_BLHD.shape
    G = q_BQD.shape[1] // H
    splits = max(1, min(16, 512 // (B * H)))  # enough programs to fill the GPU, whatever the batch
    out = torch.empty(B, splits, H * G, D, dtype=torch.float32 if splits > 1 else q_BQD.dtype, device=q_BQD.device)
    weight = torch.empty(B, splits, H * G, dtype=torch.float32, device=q_BQD.device)
    _attend[(B * H, splits)](q_BQD, keys_BLHD, values_BLHD, used_B, out, weight, scale, L, H=H, G=G, D=D, ROWS=max(16, triton.next_power_of_2(G)),
                             WIDE=triton.next_power_of_2(D), BLOCK=32, SPLITS=splits, num_warps=4, num_stages=3)
    if splits > 1:  # a softmax over parts of a softmax
        out = (out * weight.softmax(1)[..., None]).sum(1).to(q_BQD.dtype)
    return out.view(B, -1)


def attend_plain(q_BQD, keys_BLHD, values_BLHD, used_B, scale) -> Tensor:
    B, L, H, D = keys_BLHD.shape
    mask_BL = torch.arange(L, device=used_B.device) < used_B[:, None]
    out_BHGD = F.scaled_dot_product_attention(q_BQD.view(B, H, -1, D), keys_BLHD.transpose(1, 2), values_BLHD.transpose(1, 2),
                                              attn_mask=mask_BL[:, None, None], scale=scale)
    return out_BHGD.reshape(B, -1)


# --- feed forward --------------------------------------------------------------------------------------------------


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


# --- per-sample gradients ------------------------------------------------------------------------------------------


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


# --- the same in Triton --------------------------------------------------------------------------------------------

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
    def _heads(qkv, q_norm, k_norm, cos, sin, eps, place, queries, keys, values,
               Q: tl.constexpr, H: tl.constexpr, D: tl.constexpr, HALF: tl.constexpr, NORM: tl.constexpr):
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
                a, c = (a * scale * w.to(tl.float32)).to(first.dtype).to(tl.float32), (c * scale * u.to(tl.float32)).to(first.dtype).to(tl.float32)
            turn = tl.load(cos + b * D + at, inside, 0.0).to(tl.float32)
            side = tl.load(sin + b * D + at, inside, 0.0).to(tl.float32)
            first, second = (a * turn - c * side).to(first.dtype), (c * turn + a * side).to(first.dtype)
        tl.store(target + at, first, inside)
        tl.store(target + half + at, second, inside)

    @triton.jit
    def _attend(q, keys, values, used, out, weight, scale, L, H: tl.constexpr, G: tl.constexpr, D: tl.constexpr, ROWS: tl.constexpr,
                WIDE: tl.constexpr, BLOCK: tl.constexpr, SPLITS: tl.constexpr):
        b, h, part = tl.program_id(0) // H, tl.program_id(0) % H, tl.program_id(1)
        count = tl.load(used + b)
        share = tl.cdiv(tl.cdiv(count, SPLITS), BLOCK) * BLOCK
        begin, end = part * share, tl.minimum(count, part * share + share)
        g, d, t = tl.arange(0, ROWS), tl.arange(0, WIDE), tl.arange(0, BLOCK)
        real, place = (g < G)[:, None] & (d < D)[None], ((b * H + h) * G + g)[:, None] * D + d[None]
        query = tl.load(q + place, real, 0.0)
        base = (b.to(tl.int64) * L * H + h) * D
        most, total = tl.full((ROWS,), float("-inf"), tl.float32), tl.zeros((ROWS,), tl.float32)
        sums = tl.zeros((ROWS, WIDE), tl.float32)
        for start in range(begin, end, BLOCK):
            inside = ((start + t) < end)[:, None] & (d < D)[None]
            cell = base + (start + t)[:, None] * (H * D) + d[None]
            score = tl.dot(query, tl.trans(tl.load(keys + cell, inside, 0.0)), input_precision="ieee") * scale
            score = tl.where(((start + t) < end)[None], score, float("-inf"))
            peak = tl.maximum(most, tl.max(score, 1))
            p, fade = tl.exp(score - peak[:, None]), tl.exp(most - peak)
            value = tl.load(values + cell, inside, 0.0)
            sums = sums * fade[:, None] + tl.dot(p.to(value.dtype), value, input_precision="ieee")
            total, most = total * fade + tl.sum(p, 1), peak
        row = (b * SPLITS + part) * H * G + h * G + g
        tl.store(out + row[:, None] * D + d[None], sums / tl.maximum(total, 1e-30)[:, None], real)
        tl.store(weight + row, most + tl.log(total), g < G)  # -inf for a part without positions

    @triton.jit
    def _silu_mul(both, out, width, BLOCK: tl.constexpr):
        row, at = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
        inside = at < width
        gate, up = tl.load(both + row * 2 * width + at, inside, 0.0), tl.load(both + row * 2 * width + width + at, inside, 0.0)
        gate = gate.to(tl.float32)
        tl.store(out + row * width + at, (gate * tl.sigmoid(gate)).to(up.dtype) * up, inside)

    @triton.jit
    def _token_sum(p, q, out, T, R, BLOCK: tl.constexpr, ROWS: tl.constexpr):
        b, at, row = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK), tl.arange(0, ROWS)
        total = tl.zeros((ROWS, BLOCK), tl.float32)
        for start in range(0, T, ROWS):
            inside = ((start + row) < T)[:, None] & (at < R)[None]
            cell = (b * T + start + row)[:, None] * R + at[None]
            total += tl.load(p + cell, inside, 0.0).to(tl.float32) * tl.load(q + cell, inside, 0.0).to(tl.float32)
        tl.store(out + b * R + at, tl.sum(total, 0), at < R)
