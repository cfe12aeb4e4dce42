"""Rows that share a prompt in one forward: the prompt once, and every completion after it.

    prompt 1 | completion 1a | completion 1b | ... | prompt 2 | completion 2a | ...

A group's rows differ in their completions only. Laid out like this, each completion at the positions that
follow its prompt, a prompt goes through the model once, forward and backward, and no layer sees padding.
Attention is where tokens meet: a prompt sees itself, a completion its prompt and itself, both causally. That
is what each row sees when it is alone, so all numbers are the same to rounding. What one row adds to the
gradient can no longer be told apart: where that is read, rows stay single (losses.Batch).

The idea is that of Prefix Grouper (arXiv 2506.05433). Like there, a model is first tried against the plain
path (`why_not`).

For numbers of 16 bits on a GPU, Flash Attention takes rows of any lengths at once (`Pack._unpadded`). For
others the completions of a group are padded to one length inside of attention (`Pack._padded`).

Key: N tokens of a pack, B completions of at most T tokens, L tokens of a prompt, S keys, H heads, D head
size.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.bias import causal_lower_right
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, AttentionMaskInterface

from hackward.base.screen import say
from hackward.base.types import CausalLM
from hackward.hardware import memory
from hackward.hardware.neighbours import ran_out
from hackward.method.losses import Row, Scored, by_length, collate, next_batch
from hackward.rollouts.fitting import rotations_by_length

NAME = "shared_prompts"  # of the attention, among those of transformers
TRIAL = "shared_prompts_trial"  # the same attention; with it layers in windows get a mask
# What a layer may hand to its attention and what changes nothing here
KNOWN = {"position_ids", "cache_position", "use_cache", "is_causal", "output_attentions"}
# More heads of queries than of keys: PyTorch before 2.12 does not ask
FEWER_KEYS: dict[str, Any] = (
    {"enable_gqa": True} if "enable_gqa" in inspect.signature(varlen_attn).parameters else {}
)
# Largest relative difference of hidden states between the two paths that is rounding, by bytes of a number
ROUNDING = {2: 0.05, 4: 0.005}


class Group(NamedTuple):
    """Sizes of a prompt and its completions in a pack."""

    prompt: int
    """Tokens of the prompt."""
    completions: int
    """Tokens of all completions."""
    rows: int
    """Completions."""
    longest: int
    """Tokens of the longest one."""

    @property
    def tokens(self) -> int:
        """All that the pack holds of it."""
        return self.prompt + self.completions

    @property
    def cells(self) -> int:
        """Places of its completions when they are padded."""
        return self.rows * self.longest


@dataclass(frozen=True)
class Pack:
    """Rows, laid out as in the docstring of the module. All positions are worked out on the CPU."""

    ids_BL: Tensor
    """(1, N): the tokens."""
    position_1N: Tensor
    """Their positions, each in its own row."""
    groups: tuple[Group, ...]
    mask_BT: Tensor
    """True at a completion's own tokens."""
    at: Tensor
    """Of every completion token, row by row: its place in the pack."""
    before: Tensor
    """And that of the token before it in its row."""
    cell: Tensor
    """And its cell among those of its group, padded."""
    source: Tensor
    """Of every cell, group by group: which of the group's completion tokens it holds; any, where it is
    padding."""
    held: Tensor
    """False where it is padding."""
    seen: Tensor
    """Places in the pack of all that is attended to: for each prompt itself, then for each of its completions
    the prompt and itself."""
    ends_seen: Tensor
    """Where each of them ends in `seen`, from 0 on, int32."""
    ends: Tensor
    """Where each of them ends in the pack, from 0 on, int32."""
    index: list[int]
    """Positions of the rows in the list that the pack was made from."""

    def to(self, device: torch.device | str) -> Pack:
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        moved: dict[str, Any] = {
            name: memory.to(value, torch.device(device)) for name, value in tensors.items()
        }
        return replace(self, **moved)

    @property
    def target(self) -> Tensor:
        """The completions' tokens, row by row."""
        return self.ids_BL[0, self.at]

    def hidden(self, model: CausalLM) -> Tensor:
        """Hidden states from which the completions' tokens are predicted. Inside of `attention` only."""
        decoder = model.get_decoder()
        out = decoder(input_ids=self.ids_BL, position_ids=self.position_1N, use_cache=False, pack=self)
        return out.last_hidden_state[0][self.before]

    def attend(self, q_NHD: Tensor, k_NHD: Tensor, v_NHD: Tensor, scale: float | None) -> Tensor:
        """(N, H, D): a prompt sees itself, a completion its prompt and itself."""
        flash = q_NHD.is_cuda and q_NHD.dtype != torch.float32
        return (self._unpadded if flash else self._padded)(q_NHD, k_NHD, v_NHD, scale)

    def _unpadded(self, q_NHD: Tensor, k_NHD: Tensor, v_NHD: Tensor, scale: float | None) -> Tensor:
        out = varlen_attn(
            q_NHD,
            _Seen.apply(k_NHD, self.seen),
            _Seen.apply(v_NHD, self.seen),
            self.ends,
            self.ends_seen,
            max(max(group.prompt, group.longest) for group in self.groups),
            max(group.prompt + group.longest for group in self.groups),
            scale=scale,
            window_size=(-1, 0),  # causal, counted from the ends
            **FEWER_KEYS,
        )
        assert isinstance(out, Tensor)  # what else it can return was not asked for
        return out

    def _padded(self, q_NHD: Tensor, k_NHD: Tensor, v_NHD: Tensor, scale: float | None) -> Tensor:
        tokens = [group.tokens for group in self.groups]
        cells = [group.cells for group in self.groups]
        places = zip(
            self.cell.split([group.completions for group in self.groups]),
            self.source.split(cells),
            self.held.split(cells),
        )
        chunks = zip(q_NHD.split(tokens), k_NHD.split(tokens), v_NHD.split(tokens))
        outs: list[Tensor] = []
        for group, chunk, place in zip(self.groups, chunks, places, strict=True):
            outs += _attend(group, chunk, place, scale)
        return torch.cat(outs)


class _Seen(torch.autograd.Function):
    """x[seen]. What is seen often has the sum of its gradients, added up in fp32."""

    @staticmethod
    def forward(ctx, x, seen):
        ctx.save_for_backward(seen)
        ctx.shape = x.shape
        return x.index_select(0, seen)

    @staticmethod
    def backward(ctx, dy):
        (seen,) = ctx.saved_tensors
        dx = torch.zeros(ctx.shape, dtype=torch.float32, device=dy.device)
        return dx.index_add_(0, seen, dy.float()).to(dy.dtype), None


def _attend(
    group: Group, chunk: Sequence[Tensor], places: Sequence[Tensor], scale: float | None
) -> list[Tensor]:
    """What a group's prompt and its completions see, (L, H, D) and (completions, H, D).

    `chunk` are its queries, keys and values, `places` its cell, source and held of Pack.
    """
    sizes = [group.prompt, group.completions]
    (prompt_q, own_q), (prompt_k, own_k), (prompt_v, own_v) = (x_NHD.split(sizes) for x_NHD in chunk)
    cell, source, held = places

    def padded(own_CHD: Tensor) -> Tensor:
        return _Copied.apply(own_CHD, source, cell, None).unflatten(0, (group.rows, group.longest))

    def after(prompt_LHD: Tensor, own_CHD: Tensor) -> Tensor:
        return torch.cat([prompt_LHD.expand(group.rows, -1, -1, -1), padded(own_CHD)], 1)

    out_LHD = causal(prompt_q[None], prompt_k[None], prompt_v[None], scale)[0]
    if not group.completions:
        return [out_LHD]
    out_BTHD = causal(padded(own_q), after(prompt_k, own_k), after(prompt_v, own_v), scale)
    return [out_LHD, _Copied.apply(out_BTHD.flatten(0, 1), cell, source, held)]


class _Copied(torch.autograd.Function):
    """x[there], whose gradient is dy[back], and 0 where it is not `held`.

    That is right where `there` takes everything that matters of x once: padding is taken by nobody, or what
    is made of it has no gradient.
    """

    @staticmethod
    def forward(ctx, x, there, back, held):
        ctx.save_for_backward(back, held)
        return x.index_select(0, there)

    @staticmethod
    def backward(ctx, dy):
        back, held = ctx.saved_tensors
        dx = dy.index_select(0, back)
        if held is not None:
            dx = dx.mul_(held[:, None, None])
        return dx, None, None, None


def causal(q_BTHD: Tensor, k_BSHD: Tensor, v_BSHD: Tensor, scale: float | None) -> Tensor:
    """(B, T, H, D): attention of T tokens, the last ones of S, each to all before it and to itself.

    PyTorch's kernels for fp32 want as many heads of keys as of queries; those for bf16 share them.
    """
    shared = q_BTHD.shape[2] // k_BSHD.shape[2]
    if q_BTHD.dtype == torch.float32:
        k_BSHD, v_BSHD = (x.repeat_interleave(shared, 2) for x in (k_BSHD, v_BSHD))
    out_BHTD = F.scaled_dot_product_attention(
        q_BTHD.transpose(1, 2),
        k_BSHD.transpose(1, 2),
        v_BSHD.transpose(1, 2),
        attn_mask=causal_lower_right(q_BTHD.shape[1], k_BSHD.shape[1]),
        scale=scale,
        enable_gqa=q_BTHD.dtype != torch.float32,
    )
    return out_BHTD.transpose(1, 2)


def pack(rows: Sequence[Row], index: list[int]) -> Pack:
    """Lay out rows of (prompt ids, completion ids), in which those of one prompt stand next to each other."""
    ids: list[int] = []
    position: list[int] = []
    names = ("at", "before", "cell", "source", "held", "seen")
    numbers: dict[str, list[int]] = {name: [] for name in names} | {"ends": [0], "ends_seen": [0]}
    groups = []
    for members in _together(rows):
        prompt = rows[members[0]][0]
        completions = [rows[i][1] for i in members]
        prompt_at = range(len(ids), len(ids) + len(prompt))
        ids += prompt
        numbers["seen"] += prompt_at
        numbers["ends"].append(len(ids))
        numbers["ends_seen"].append(len(numbers["seen"]))
        position += range(len(prompt))
        longest = max(1, *map(len, completions))
        first = 0  # of a completion, among the tokens of all
        for row, completion in enumerate(completions):
            length = len(completion)
            places = range(len(ids), len(ids) + length)
            padding = [0] * (longest - length)
            numbers["at"] += places
            numbers["before"] += [prompt_at[-1], *places][:length]
            numbers["cell"] += range(row * longest, row * longest + length)
            numbers["source"] += [*range(first, first + length), *padding]
            numbers["held"] += [*[1] * length, *padding]
            ids += completion
            position += range(len(prompt), len(prompt) + length)
            numbers["seen"] += [*prompt_at, *places]
            numbers["ends"].append(len(ids))
            numbers["ends_seen"].append(len(numbers["seen"]))
            first += length
        groups.append(Group(len(prompt), first, len(completions), longest))
    tensors = {name: torch.tensor(found, dtype=torch.long) for name, found in numbers.items()}
    kinds = {"held": torch.bool, "ends": torch.int32, "ends_seen": torch.int32}
    tensors |= {name: tensors[name].to(kind) for name, kind in kinds.items()}
    lengths = torch.tensor([len(completion) for _, completion in rows])
    mask_BT = torch.arange(max(1, int(lengths.max()))) < lengths[:, None]
    return Pack(torch.tensor([ids]), torch.tensor([position]), tuple(groups), mask_BT, index=index, **tensors)


def _together(rows: Sequence[Row]) -> list[list[int]]:
    """Positions of the rows, those of one prompt together; prompts in the order in which they come."""
    members: dict[tuple[int, ...], list[int]] = {}
    for i, (prompt, _) in enumerate(rows):
        members.setdefault(tuple(prompt), []).append(i)
    return list(members.values())


def by_prompt(rows: Sequence[Row]) -> list[list[int]]:
    """Positions of the rows, those of one prompt together; what has the most tokens first."""

    def tokens(group: list[int]) -> int:
        return len(rows[group[0]][0]) + sum(len(rows[i][1]) for i in group)

    return sorted(_together(rows), key=tokens, reverse=True)


def next_pack(rows: Sequence[Row], left: Sequence[int], *, tokens: int, pad: int) -> Pack:
    """The first of the rows `left`: as many as make at most `tokens`, at least one. There is no padding."""
    chosen: list[int] = []
    total = 0
    prompts: set[tuple[int, ...]] = set()
    for i in left:
        prompt, completion = rows[i]
        total += len(completion) + (0 if tuple(prompt) in prompts else len(prompt))
        if chosen and total > tokens:
            break
        prompts.add(tuple(prompt))
        chosen.append(i)
    return pack([rows[i] for i in chosen], chosen)


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    pack: Pack,
    scaling: float | None = None,
    dropout: float = 0.0,
    **more: Any,
) -> tuple[Tensor, None]:
    """The pack's attention, called as transformers calls any: (1, H, N, D) in, (1, N, H, D) out.

    NotImplementedError for what would change it: a window, a cap, sinks, a bias, a mask of the model's own,
    dropout.
    """
    if dropout:
        raise NotImplementedError("attention with dropout")
    for name, given in more.items():
        if given is not None and name not in KNOWN:
            raise NotImplementedError(f"attention with {name}")
    if attention_mask is not None:
        raise NotImplementedError("attention with a mask that is more than causal")
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    return pack.attend(q, k, v, scaling)[None], None


def _window(*, q_length: int, kv_length: int, local_size: int | None = None, **_: Any) -> Tensor | None:
    """The mask of a trial: one for a layer with a window or chunks, which short rows do not show; else
    none."""
    return None if local_size is None else torch.ones(1, 1, q_length, kv_length, dtype=torch.bool)


AttentionInterface.register(NAME, _attention)
AttentionInterface.register(TRIAL, _attention)
AttentionMaskInterface.register(TRIAL, _window)


@contextlib.contextmanager
def attention(model: CausalLM, name: str = NAME) -> Iterator[None]:
    """The model attends as packs want it: around their forward, and their backward if that repeats it."""
    config = model.get_decoder().config
    usual = config._attn_implementation
    config._attn_implementation = name
    try:
        yield
    finally:
        config._attn_implementation = usual


@torch.no_grad()
def why_not(model: CausalLM) -> str | None:
    """Why rows of this model cannot share their prompts; None where they can.

    Tried on a few short rows, whose hidden states must be those of the plain path. What only long rows would
    show is asked for: windows (`_window`), and rotations by length.
    """
    rotations = rotations_by_length(model)
    if rotations:
        return f"{'/'.join(sorted(rotations))} rotations, which depend on the longest row"
    ids = [(7 * i + 11) % min(1000, model.get_input_embeddings().weight.shape[0]) for i in range(24)]
    first, second = ids[:5], ids[5:8]
    rows = [(first, ids[8:12]), (first, ids[12:14]), (first, ids[14:17]), (second, ids[17:24])]
    plain = collate(rows, [0, 1, 2, 3], 0).to(model.device).hidden(model)
    try:
        with attention(model, TRIAL):
            shared = pack(rows, [0, 1, 2, 3]).to(model.device).hidden(model)
    # An architecture that does not know of this may fail in any of these
    except (AttributeError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError) as fault:
        if ran_out(fault):
            raise
        return (str(fault).splitlines() or [type(fault).__name__])[0]
    difference = float((shared.float() - plain.float()).norm() / plain.float().norm())
    if difference <= ROUNDING[plain.element_size()]:
        return None
    return f"hidden states differ by {difference:.1%} from those of rows that are alone"


@dataclass(frozen=True)
class Layout:
    """How rows go through the model."""

    units: Callable[[Sequence[Row]], list[list[int]]]
    """Positions of the rows, in the order of their turn; what stands together stays on one rank."""
    next: Callable[..., Scored]
    """The first of the rows that are left, as a micro-batch: losses.next_batch, or like it."""
    attention: Callable[[CausalLM], AbstractContextManager[None]]
    """Around the work on a micro-batch."""


def _one_by_one(rows: Sequence[Row]) -> list[list[int]]:
    return [[i] for i in by_length(rows)]


SINGLE = Layout(_one_by_one, next_batch, lambda model: contextlib.nullcontext())
SHARED = Layout(by_prompt, next_pack, attention)


def layout_for(model: CausalLM, *, shared: bool) -> Layout:
    """SHARED where it is wanted and the model can; where it cannot, a line says why."""
    if not shared:
        return SINGLE
    reason = why_not(model)
    if reason is None:
        return SHARED
    say(f"rows of a group do not share their prompt in the backward, which costs time: {reason}")
    return SINGLE
