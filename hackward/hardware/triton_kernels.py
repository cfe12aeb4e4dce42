"""The Triton kernels behind hardware.kernels, which holds the same as formulas.

Importing this needs Triton.
"""

from __future__ import annotations

import triton
import triton.language as tl

# Long lists of arguments stand as paragraphs.
# fmt: off


@triton.jit
def add_norm(residual, x, weight, out, eps, width, BLOCK: tl.constexpr, ADD: tl.constexpr):
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
def heads(
    qkv, q_norm, k_norm, cos, sin, eps, place, queries, keys, values, Q: tl.constexpr, H: tl.constexpr,
    D: tl.constexpr, HALF: tl.constexpr, NORM: tl.constexpr,
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
            a = (a * scale * w.to(tl.float32)).to(first.dtype).to(tl.float32)
            c = (c * scale * u.to(tl.float32)).to(first.dtype).to(tl.float32)
        turn = tl.load(cos + b * D + at, inside, 0.0).to(tl.float32)
        side = tl.load(sin + b * D + at, inside, 0.0).to(tl.float32)
        first, second = (a * turn - c * side).to(first.dtype), (c * turn + a * side).to(first.dtype)
    tl.store(target + at, first, inside)
    tl.store(target + half + at, second, inside)


@triton.jit
def attend(
    q, out, weight, B, scale, shared_keys, shared_values, shared_used, shared_seats, shared_L, shared_N,
    keys, values, used, seats, L, H: tl.constexpr, G: tl.constexpr, D: tl.constexpr, M: tl.constexpr,
    ROWS: tl.constexpr, OWN_M: tl.constexpr, OWN_ROWS: tl.constexpr, WIDE: tl.constexpr,
    BLOCK: tl.constexpr, SPLITS: tl.constexpr,
):
    n, h, part = tl.program_id(0) // H, tl.program_id(0) % H, tl.program_id(1)
    if n < shared_N:
        stretch(
            n, h, part, 0, q, out, weight, B, scale, shared_keys, shared_values, shared_used, shared_seats,
            shared_L, H, G, D, M, ROWS, WIDE, BLOCK, SPLITS,
        )
    else:
        stretch(
            n - shared_N, h, part, SPLITS, q, out, weight, B, scale, keys, values, used, seats, L, H, G, D,
            OWN_M, OWN_ROWS, WIDE, BLOCK, SPLITS,
        )


@triton.jit
def stretch(
    n, h, part, first, q, out, weight, B, scale, keys, values, used, seats, L, H: tl.constexpr,
    G: tl.constexpr, D: tl.constexpr, M: tl.constexpr, ROWS: tl.constexpr, WIDE: tl.constexpr,
    BLOCK: tl.constexpr, SPLITS: tl.constexpr,
):
    count = tl.load(used + n)
    share = tl.cdiv(tl.cdiv(count, SPLITS), BLOCK) * BLOCK
    begin, end = part * share, tl.minimum(count, part * share + share)
    r, d, t = tl.arange(0, ROWS), tl.arange(0, WIDE), tl.arange(0, BLOCK)
    # M rows share these positions, and the G queries of a group their head
    row = tl.load(seats + n * M + r // G, r < M * G, B)
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
def join(out, weight, joined, Q, D: tl.constexpr, WIDE: tl.constexpr, ALL: tl.constexpr, WAYS: tl.constexpr):
    b, q = tl.program_id(0) // Q, tl.program_id(0) % Q  # a softmax over parts of a softmax
    s, d = tl.arange(0, WAYS), tl.arange(0, WIDE)
    cell, real = (b * ALL + s) * Q + q, (s < ALL)[:, None] & (d < D)[None]
    logs = tl.load(weight + cell, s < ALL, float("-inf"))
    share = tl.exp(logs - tl.max(logs))
    parts = tl.load(out + cell[:, None] * D + d[None], real, 0.0)
    mixed = tl.sum(parts * (share / tl.sum(share))[:, None], 0)
    tl.store(joined + tl.program_id(0) * D + d, mixed, d < D)


@triton.jit
def silu_mul(both, out, width, BLOCK: tl.constexpr):
    row, at = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = at < width
    gate = tl.load(both + row * 2 * width + at, inside, 0.0).to(tl.float32)
    up = tl.load(both + row * 2 * width + width + at, inside, 0.0)
    tl.store(out + row * width + at, (gate * tl.sigmoid(gate)).to(up.dtype) * up, inside)


@triton.jit
def token_sum(p, q, out, T, R, SPAN, BLOCK: tl.constexpr, ROWS: tl.constexpr):
    b, span = tl.program_id(0).to(tl.int64), tl.program_id(2)  # a span of a row's tokens
    at, row = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK), tl.arange(0, ROWS)
    total = tl.zeros((ROWS, BLOCK), tl.float32)
    for start in range(span * SPAN, tl.minimum((span + 1) * SPAN, T), ROWS):
        inside = ((start + row) < T)[:, None] & (at < R)[None]
        cell = (b * T + start + row)[:, None] * R + at[None]
        left = tl.load(p + cell, inside, 0.0).to(tl.float32)
        total += left * tl.load(q + cell, inside, 0.0).to(tl.float32)
    tl.store(out + (span * tl.num_programs(0) + b) * R + at, tl.sum(total, 0), at < R)
