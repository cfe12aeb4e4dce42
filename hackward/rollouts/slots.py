"""Sampling at the speed of the memory: static shapes, a CUDA graph a token, slots that are refilled.

B slots hold the keys and values of what B sequences have drawn, side by side, each with its own length, so
nothing is padded, concatenated or moved while decoding: a step writes one position a slot and attends to what
the slot holds. A prompt that several requests share is prefilled once (by the model's own forward), and
stored once and read once a step for every M of them: prompts have M seats each, and every slot sits at its
prompt. One step is captured as a CUDA graph and replayed; the host looks only every LOOK steps, hands out the
rows that have ended, and puts waiting requests into their slots.

The step itself is written out below (`Decoder`) for the one architecture that Llama, Qwen2 and Qwen3 share,
on merged weights. `supports` runs it beside the model's own forward before it is used; a model for which the
two disagree is sampled in the plain way. Without a GPU the same steps run uncaptured, which is how the tests
compare them with the plain path.

Key: B slots, T positions of a slot, N prompts, M seats and L positions of a prompt, H key-value heads, D head
size, I hidden size, V vocabulary, P prompts of a prefill.
"""

from __future__ import annotations

import functools
import math
import warnings
import weakref
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from transformers import DynamicCache

from hackward.base.faults import InputError
from hackward.base.types import CausalLM
from hackward.hardware import memory
from hackward.hardware.neighbours import Shortage, ran_out
from hackward.rollouts.decoder import Decoder, Slots, most_seats, position_bytes
from hackward.rollouts.draws import Request, draw, uniforms
from hackward.rollouts.fitting import rotations_by_length

LOOK = 16  # steps between two looks of the host: a row that ends costs up to so many steps of its slot
PREFILL_TOKENS = 8192  # padded prompt tokens of one prefill
MEMORY_SHARE = 0.75  # of the free memory, for keys and values
AGREEMENT = 0.03  # relative difference of logits; bf16 rounding alone makes about a third of it


def room(model: CausalLM) -> float:
    """Positions that keys and values may take; without a GPU there is no telling."""
    weight = model.get_output_embeddings().weight
    return MEMORY_SHARE * memory.free(weight.device) / position_bytes(model) if weight.is_cuda else math.inf


_agreed: weakref.WeakKeyDictionary[nn.Module, bool] = weakref.WeakKeyDictionary()


def supports(model: CausalLM) -> bool:
    """Whether `Decoder` computes what this model does: its parts are there, and on a short text the logits
    agree.

    What a short text cannot show is asked of the configuration: a window that attention slides in, and
    rotations that depend on the length of the whole.
    """
    if model in _agreed:
        return _agreed[model]
    found = math.inf
    if not _beyond_a_short_text(model):
        try:
            found = disagreement(model)
        except (
            Exception
        ) as fault:  # other names, other shapes: another architecture; or Triton finds a kernel too large
            if ran_out(fault):
                raise
    _agreed[model] = found < AGREEMENT
    if not _agreed[model]:
        warnings.warn(
            f"{type(model).__name__}: not decoded in slots (logits differ by {found:.3g});"
            " sampling takes the slow path",
            stacklevel=2,
        )
    return _agreed[model]


def _beyond_a_short_text(model: CausalLM) -> bool:
    """Does the model do something that only longer texts show?"""
    layers = DynamicCache(config=model.config).layers
    windows = any(getattr(layer, "is_sliding", False) for layer in layers)
    return windows or bool(rotations_by_length(model))


@torch.no_grad()
def disagreement(model: CausalLM, length: int = 24) -> float:
    """Relative difference between the logits of the model's forward and those of a prefill and one step in
    two slots."""
    device = model.get_output_embeddings().weight.device
    ids = torch.arange(7, 7 + length, device=device)[None] % model.config.vocab_size
    cache = DynamicCache(config=model.config)
    model.get_decoder()(input_ids=ids[:, :-1], past_key_values=cache, use_cache=True)
    # as many seats as there will ever be, so that the largest kernel is tried
    seats = max(2, most_seats(model.config))
    found = Slots(model, slots=2, positions=1, prompts=1, seats=seats, length=length)
    zero = torch.zeros(1, dtype=torch.long, device=device)
    found.fill(zero, cache, zero, zero + length - 1)
    found.start_B.fill_(length - 1)
    ours = Decoder(model)(ids[0, -1:].repeat(2), found).float()
    theirs = model(input_ids=ids, use_cache=False).logits[:, -1].float()
    return float((ours - theirs).norm(dim=1).max() / theirs.norm())


@dataclass
class Sharers:
    """Requests with one prompt that wait for slots: as many as it has seats, or fewer."""

    read: int
    """Which prompt of the prefill."""
    waiting: deque[int]
    prompt: int | None = None
    """Which of the slots' prompts it has become."""


@dataclass(frozen=True)
class Prefill:
    """Prompts that have been read, and the requests that wait to go on from them."""

    cache: DynamicCache
    logits_PV: Tensor
    """After each prompt."""
    sharers: deque[Sharers]


class Engine:
    """Decodes the requests in slots; `run` calls `on_row(i, ids, logps)` as soon as request i has ended."""

    def __init__(
        self,
        model: CausalLM,
        requests: Sequence[Request],
        *,
        limit: int,
        temperature: float,
        stop: Sequence[int],
        rows: int,
        on_token: Callable[[], None],
        on_row: Callable[[int, list[int], list[float]], None],
    ) -> None:
        self.model, self.requests = model, requests
        self.limits = [request.tokens(limit) for request in requests]
        self.temperature, self.on_token, self.on_row = temperature, on_token, on_row
        self.device = model.get_output_embeddings().weight.device
        self.stop = self._tensor(list(stop))
        self.waiting = deque(range(len(requests)))
        self.prefilled: Prefill | None = None
        self.longest = max(self.limits)
        self.decoder = Decoder(model)
        self.slots = self._allocate(min(rows, len(requests)))
        B, T = len(self.slots.length_B), self.longest + 1  # the last column is where dead rows write
        self.token_B, self.count_B, self.limit_B = (self._zeros(B) for _ in range(3))
        self.running_B = self._zeros(B, dtype=torch.bool)
        self.uniform_BT = self._zeros(B, T, dtype=torch.float32)
        self.drawn_BT = self._zeros(B, T)
        self.logp_BT = self._zeros(B, T, dtype=torch.float32)
        self.request_of: list[int | None] = [None] * B
        self.seated: list[int] = self.slots.seats_NM.flatten().tolist()  # slots in the order of the seats
        # requests that need each prompt, those that wait for a slot included
        self.readers = [0] * len(self.slots.length_N)

    def _zeros(self, *shape: int, dtype: torch.dtype = torch.long) -> Tensor:
        return torch.zeros(shape, dtype=dtype, device=self.device)

    def _tensor(self, numbers: list[int]) -> Tensor:
        return torch.tensor(numbers, dtype=torch.long, device=self.device)

    @property
    def seats(self) -> int:
        """Seats at a prompt."""
        return self.slots.seats_NM.shape[1]

    def _allocate(self, rows: int) -> Slots:
        """As many slots as were asked for or as there is memory for, and prompts for every slot to sit
        alone."""
        sharing = Counter(request.prompt_ids for request in self.requests)
        seats = min(max(sharing.values()), most_seats(self.model.config))
        length = max(map(len, sharing))
        copies = sum(math.ceil(count / seats) for count in sharing.values())
        most = room(self.model)
        while rows > 1 and rows * self.longest + min(copies, rows) * length > most:
            rows -= 1
        return Slots(self.model, rows, self.longest, min(copies, rows), seats, length)

    def run(self) -> None:
        graph = None
        while self._admit():
            for _ in range(LOOK):
                if graph is not None:
                    graph.replay()
                else:
                    self._step()
                    graph = self._capture()
                self.on_token()
            self._collect()

    def _capture(self) -> torch.cuda.CUDAGraph | None:
        if self.device.type != "cuda":
            return None
        graph = torch.cuda.CUDAGraph()
        # thread_local: other threads may still copy bases for the cache
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            self._step()
        return graph

    def _step(self) -> None:
        """One token for every slot. Only tensors that outlive the step are read and written, all in place."""
        logits_BV = self.decoder(self.token_B, self.slots)
        u_B = self.uniform_BT.gather(1, self.count_B[:, None])[:, 0]
        token_B, logp_B = draw(logits_BV, u_B, self.temperature)
        column_B1 = torch.where(self.running_B, self.count_B, self.longest)[:, None]
        self.drawn_BT.scatter_(1, column_B1, token_B[:, None])
        self.logp_BT.scatter_(1, column_B1, logp_B[:, None])
        self.token_B.copy_(token_B)
        self.count_B.add_(self.running_B)
        self.running_B.logical_and_(~self._ended(token_B, self.count_B, self.limit_B))
        self.slots.length_B.add_(1).mul_(self.running_B)

    def _ended(self, token: Tensor, count: Tensor, limit: Tensor) -> Tensor:
        return torch.isin(token, self.stop) | (count >= limit)

    def _admit(self) -> bool:
        """Fill free slots with waiting requests; False when there is nothing left to do."""
        while (self.waiting or self.prefilled) and None in self.request_of:
            self.prefilled = self.prefilled or self._prefill()
            self._begin(self.prefilled)
            if not self.prefilled.sharers:
                self.prefilled = None
            self._collect()  # a first token may be a last one
        return any(request is not None for request in self.request_of)

    def _next_prompts(self) -> dict[tuple[int, ...], list[int]]:
        """The next prompts to read, as many as PREFILL_TOKENS allows, with all waiting requests that have
        them."""
        members: dict[tuple[int, ...], list[int]] = {}
        width = 0
        for i in self.waiting:
            prompt = self.requests[i].prompt_ids
            padded = max(width, len(prompt)) * (len(members) + 1)
            if prompt in members or not members or padded <= PREFILL_TOKENS:
                members.setdefault(prompt, []).append(i)
                width = max(width, len(prompt))
        self.waiting = deque(i for i in self.waiting if self.requests[i].prompt_ids not in members)
        return members

    def _prefill(self) -> Prefill:
        """Read the next prompts, padded on the right."""
        members = self._next_prompts()
        ids = torch.zeros(len(members), max(map(len, members)), dtype=torch.long)
        for row, prompt in zip(ids, members):
            row[: len(prompt)] = torch.tensor(prompt)
        cache = DynamicCache(config=self.model.config)
        read = self.model.get_decoder()(input_ids=ids.to(self.device), past_key_values=cache, use_cache=True)
        last_P = self._tensor([len(prompt) - 1 for prompt in members])
        each_P = torch.arange(len(members), device=self.device)
        logits_PV = self.model.get_output_embeddings()(read.last_hidden_state[each_P, last_P])
        sharers: deque[Sharers] = deque()
        for place, group in enumerate(members.values()):
            for start in range(0, len(group), self.seats):
                sharers.append(Sharers(place, deque(group[start : start + self.seats])))
        return Prefill(cache, logits_PV, sharers)

    def _begin(self, prefilled: Prefill) -> None:
        """Put requests into free slots, their prompts where nobody reads another one any more; draw their
        first tokens."""
        chosen: dict[int, tuple[int, int]] = {}  # slot -> request, which prompt of the prefill
        copied: dict[int, tuple[int, int]] = {}  # prompt -> which of the prefill, length
        free = [slot for slot, request in enumerate(self.request_of) if request is None]
        for slot in free:
            if not prefilled.sharers:
                break
            sharers = prefilled.sharers[0]
            i = sharers.waiting.popleft()
            if sharers.prompt is None:
                # there is a prompt without readers: no more prompts are read than slots taken
                sharers.prompt = self.readers.index(0)
                self.readers[sharers.prompt] = 1 + len(sharers.waiting)
                copied[sharers.prompt] = sharers.read, len(self.requests[i].prompt_ids)
            self._seat(slot, sharers.prompt)
            self.request_of[slot] = i
            chosen[slot] = i, sharers.read
            if not sharers.waiting:
                prefilled.sharers.popleft()
        if copied:
            owner = self._tensor([read for read, _ in copied.values()])
            length = self._tensor([count for _, count in copied.values()])
            self.slots.fill(self._tensor(list(copied)), prefilled.cache, owner, length)
        self.slots.seats_NM.copy_(self._tensor(self.seated).view_as(self.slots.seats_NM))
        self._first_tokens(list(chosen), list(chosen.values()), prefilled.logits_PV)

    def _first_tokens(self, slots: list[int], chosen: list[tuple[int, int]], logits_PV: Tensor) -> None:
        """Draw the first token of these slots' (request, prompt of the prefill), and set the slots going."""
        requests = [self.requests[i] for i, _ in chosen]
        limits = [self.limits[i] for i, _ in chosen]
        padded = []
        for request, most in zip(requests, limits):
            padded.append(np.pad(uniforms(request.key, most), (0, self.longest + 1 - most)))
        uniform_BT = torch.from_numpy(np.stack(padded)).to(self.device, torch.float32)
        read_B = self._tensor([read for _, read in chosen])
        token_B, logp_B = draw(logits_PV[read_B], uniform_BT[:, 0], self.temperature)
        place_B, limit_B = self._tensor(slots), self._tensor(limits)
        one_B = torch.ones_like(limit_B)
        self.uniform_BT[place_B] = uniform_BT
        self.limit_B[place_B] = limit_B
        self.count_B[place_B] = one_B
        self.token_B[place_B] = token_B
        self.drawn_BT[place_B, 0] = token_B
        self.logp_BT[place_B, 0] = logp_B
        self.running_B[place_B] = ~self._ended(token_B, one_B, limit_B)
        self.slots.start_B[place_B] = self._tensor([len(request.prompt_ids) for request in requests])

    def _seat(self, slot: int, prompt: int) -> None:
        """Let a free slot sit at this prompt; whoever is at rest there, or nobody, takes its seat in
        exchange."""
        old = self.seated.index(slot)
        first = prompt * self.seats
        new = next(seat for seat in range(first, first + self.seats) if self._at_rest(self.seated[seat]))
        self.seated[old], self.seated[new] = self.seated[new], slot

    def _at_rest(self, slot: int) -> bool:
        """Is this nobody (the number after the last slot), or a slot without a request?"""
        return slot == len(self.request_of) or self.request_of[slot] is None

    def _collect(self) -> None:
        """Hand out the rows that have ended, and free their slots and the prompts that nobody needs any
        more."""
        running = self.running_B.tolist()
        ended = [(slot, i) for slot, i in enumerate(self.request_of) if i is not None and not running[slot]]
        if not ended:
            return
        rows = self._tensor([slot for slot, _ in ended])
        drawn, logps, counts = (part[rows].tolist() for part in (self.drawn_BT, self.logp_BT, self.count_B))
        for place, (slot, request) in enumerate(ended):
            self.request_of[slot] = None
            self.readers[self.seated.index(slot) // self.seats] -= 1
            count = counts[place]
            self.on_row(request, drawn[place][:count], logps[place][:count])
        unread = [prompt for prompt, readers in enumerate(self.readers) if not readers]
        self.slots.length_N[self._tensor(unread)] = 0


def decode(
    model: CausalLM,
    requests: Sequence[Request],
    *,
    rows: int,
    on_row: Callable[[int, list[int], list[float]], None],
    **options,
) -> None:
    """The engine behind `sampling.sample`, whose arguments it takes.

    Out of memory, it goes on with half the rows and what is left of the requests: a row's draws are its own,
    so beginning it anew changes nothing. One row that does not fit beside other processes is waited for.
    InputError when one row alone does not fit.
    """
    left, asked = dict(enumerate(requests)), rows
    shortage = Shortage(model.device, "sampling")

    def hand_out(numbers: list[int], i: int, ids: list[int], logps: list[float]) -> None:
        shortage.over()
        del left[numbers[i]]
        on_row(numbers[i], ids, logps)

    while left:
        give = functools.partial(hand_out, list(left))
        try:
            Engine(model, list(left.values()), rows=rows, on_row=give, **options).run()
        except RuntimeError as fault:
            if not ran_out(fault):
                raise
        if rows == 1 and left and shortage.wait():
            rows = asked
            continue
        if left:
            rows = _fewer(rows, list(left.values()), options["limit"])
            if model.device.type == "cuda":
                torch.cuda.empty_cache()


def _fewer(rows: int, left: Sequence[Request], limit: int) -> int:
    """Half the rows. InputError where there was one already."""
    if rows == 1:
        size = f"{len(left[0].prompt_ids)} + {left[0].tokens(limit)} tokens"
        raise InputError(f"sampling: a row of {size} does not fit into the GPU's memory")
    return max(1, min(rows, len(left)) // 2)
