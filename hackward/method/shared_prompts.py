"""Rows that share a prompt in one forward: the prompt once, and every completion after it.

    prompt 1 | prompt 2 | ... | completion 1a | completion 1b | completion 2a | ...

A group's rows differ in their completions only. Laid out like this, each completion at the positions that
follow its prompt, a prompt goes through the model once, forward and backward, and no layer sees padding.
Attention is where tokens meet: a prompt sees itself, a completion its prompt and itself, both causally. That
is what each row sees when it is alone, so all numbers are the same to rounding. What one row adds to the
gradient can no longer be told apart: where that is read, rows stay single (losses.Batch).

The idea is that of Prefix Grouper (arXiv 2506.05433). Like there, a model is first tried against the plain
path (`why_not`).

Key: N tokens of a pack, B completions of at most T tokens, S keys, H heads, D head size.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.bias import causal_lower_right
from transformers import AttentionInterface

from hackward.base.screen import STDERR
from hackward.base.types import CausalLM
from hackward.hardware import memory
from hackward.hardware.neighbours import ran_out
from hackward.method.losses import Row, Scored, by_length, collate, next_batch

NAME = "shared_prompts"  # of the attention, among those of transformers
# What a layer may hand to its attention and what changes nothing here
KNOWN = {"position_ids", "cache_position", "use_cache", "is_causal", "output_attentions"}
# Largest relative difference of hidden states between the two paths that is rounding, by bytes of a number
ROUNDING = {2: 0.05, 4: 0.005}


class Group(NamedTuple):
    """A prompt of a pack and its completions."""

    prompt: slice
    """Its tokens among those of the pack."""
    rows: slice
    """Its completions among those of the pack."""
    longest: int
    """Tokens of the longest completion."""
    tokens: int
    """Tokens of all its completions."""


@dataclass(frozen=True)
class Pack:
    """Rows, laid out as in the docstring of the module. All positions are worked out on the CPU."""

    ids_BL: Tensor
    """(1, N): the tokens."""
    position_1N: Tensor
    """Their positions, each in its own row."""
    groups: tuple[Group, ...]
    place_BT: Tensor
    """Where the completions' tokens stand among the N; anything off the mask."""
    mask_BT: Tensor
    """True at a completion's own tokens."""
    kept: Tensor
    """Of every completion token: its place in its group's (rows x longest), laid flat."""
    before: Tensor
    """Of every completion token: the place of the token before it in its row."""
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
        """The completions' tokens, row by row: the last ones of the pack."""
        return self.ids_BL[0, -len(self.kept) :]

    def hidden(self, model: CausalLM) -> Tensor:
        """Hidden states from which the completions' tokens are predicted. Inside of `attention` only."""
        decoder = model.get_decoder()
        out = decoder(input_ids=self.ids_BL, position_ids=self.position_1N, use_cache=False, pack=self)
        return out.last_hidden_state[0][self.before]

    def attend(self, q_NHD: Tensor, k_NHD: Tensor, v_NHD: Tensor, scale: float | None) -> Tensor:
        """(N, H, D): a prompt sees itself, a completion its prompt and itself."""
        q_BTHD, k_BTHD, v_BTHD = (self._completions(x) for x in (q_NHD, k_NHD, v_NHD))
        prompts, completions = [], []
        places = self.kept.split([group.tokens for group in self.groups])
        for group, kept in zip(self.groups, places):
            q, k, v = (x_NHD[None, group.prompt] for x_NHD in (q_NHD, k_NHD, v_NHD))
            prompts.append(causal(q, k, v, scale)[0])
            own = group.rows, slice(group.longest)
            k, v = _after(k, k_BTHD[own]), _after(v, v_BTHD[own])
            out_BTHD = causal(q_BTHD[own], k, v, scale)
            completions.append(out_BTHD.flatten(0, 1).index_select(0, kept))
        return torch.cat(prompts + completions)

    def _completions(self, x_NHD: Tensor) -> Tensor:
        """(B, T, H, D). What stands off the mask is seen by nobody, and its gradient is 0."""
        return x_NHD.index_select(0, self.place_BT.flatten()).unflatten(0, self.place_BT.shape)


def _after(prompt_1LHD: Tensor, own_BTHD: Tensor) -> Tensor:
    """(B, L + T, H, D): a prompt's keys or values before those of each of its completions."""
    return torch.cat([prompt_1LHD.expand(len(own_BTHD), -1, -1, -1), own_BTHD], 1)


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
    """Lay out rows of (prompt ids, completion ids), those of one prompt next to each other."""
    members: dict[tuple[int, ...], list[Sequence[int]]] = {}
    for prompt, completion in rows:
        members.setdefault(tuple(prompt), []).append(completion)
    ids = [token for prompt in members for token in prompt]
    positions = [place for prompt in members for place in range(len(prompt))]
    longest = max(1, *(len(completion) for _, completion in rows))
    place_BT = torch.zeros(len(rows), longest, dtype=torch.long)
    mask_BT = torch.zeros(len(rows), longest, dtype=torch.bool)
    groups: list[Group] = []
    kept: list[int] = []
    before: list[int] = []
    first = row = 0
    for prompt, completions in members.items():
        width = max(1, *map(len, completions))
        end = first + len(prompt)
        for i, completion in enumerate(completions):
            places = range(len(ids), len(ids) + len(completion))
            place_BT[row + i, : len(completion)] = torch.tensor(places, dtype=torch.long)
            mask_BT[row + i, : len(completion)] = True
            kept += range(i * width, i * width + len(completion))
            before += [end - 1, *places][: len(completion)]
            ids += completion
            positions += range(len(prompt), len(prompt) + len(completion))
        tokens = sum(map(len, completions))
        groups.append(Group(slice(first, end), slice(row, row + len(completions)), width, tokens))
        first, row = end, row + len(completions)
    as_tensor = [torch.tensor(numbers, dtype=torch.long) for numbers in (ids, positions, kept, before)]
    ids_N, position_N, kept_N, before_N = as_tensor
    return Pack(ids_N[None], position_N[None], tuple(groups), place_BT, mask_BT, kept_N, before_N, index)


def by_prompt(rows: Sequence[Row]) -> list[list[int]]:
    """Positions of the rows, those of one prompt together; what has the most tokens first."""
    members: dict[tuple[int, ...], list[int]] = {}
    for i, (prompt, _) in enumerate(rows):
        members.setdefault(tuple(prompt), []).append(i)

    def tokens(group: list[int]) -> int:
        return len(rows[group[0]][0]) + sum(len(rows[i][1]) for i in group)

    return sorted(members.values(), key=tokens, reverse=True)


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

    NotImplementedError for what would change it: a window, a cap, sinks, a bias, dropout.
    """
    if dropout:
        raise NotImplementedError("attention with dropout")
    for name, given in more.items():
        if given is not None and name not in KNOWN:
            raise NotImplementedError(f"attention with {name}")
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    return pack.attend(q, k, v, scaling)[None], None


AttentionInterface.register(NAME, _attention)


@contextlib.contextmanager
def attention(model: CausalLM) -> Iterator[None]:
    """The model attends as packs want it: around their forward, and their backward if that repeats it."""
    config = model.get_decoder().config
    usual = config._attn_implementation
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = usual


@torch.no_grad()
def why_not(model: CausalLM) -> str | None:
    """Why rows of this model cannot share their prompts; None where they can.

    Tried on a few short rows, whose hidden states must be those of the plain path.
    """
    ids = [(7 * i + 11) % min(1000, model.get_input_embeddings().weight.shape[0]) for i in range(24)]
    first, second = ids[:5], ids[5:8]
    rows = [(first, ids[8:12]), (first, ids[12:14]), (first, ids[14:17]), (second, ids[17:24])]
    plain = collate(rows, [0, 1, 2, 3], 0).to(model.device).hidden(model)
    try:
        with attention(model):
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
    STDERR.print(
        f"rows of a group do not share their prompt in the backward, which costs time: {reason}",
        highlight=False,
        soft_wrap=True,
        markup=False,
    )
    return SINGLE
