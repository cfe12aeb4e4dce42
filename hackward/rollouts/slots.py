"""Sampling at the speed of the memory: static shapes, a CUDA graph a token, slots that are refilled.

B slots hold the keys and values of what B sequences have drawn, side by side, each with its own length, so nothing is
padded, concatenated or moved while decoding: a step writes one position a slot and attends to what the slot holds. A prompt
that several requests share is prefilled once (by the model's own forward), and stored once and read once a step for every M
of them: prompts have M seats each, and every slot sits at its prompt. One step is captured as a CUDA graph and replayed; the
host looks only every LOOK steps, hands out the rows that have ended, and puts waiting requests into their slots.

The step itself is written out below (`Decoder`) for the one architecture that Llama, Qwen2 and Qwen3 share, on merged
weights. `supports` runs it beside the model's own forward before it is used; a model for which the two disagree is sampled
in the plain way. Without a GPU the same steps run uncaptured, which is how the tests compare them with the plain path.

Key: B slots, T positions of a slot, N prompts, M seats and L positions of a prompt, H key-value heads, D head size, I hidden
size, V vocabulary, P prompts of a prefill.
"""

from __future__ import annotations

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
from hackward.hardware import memory
from hackward.rollouts.decoder import Decoder, Slots, most_seats, position_bytes
from hackward.rollouts.draws import Request, draw, uniforms

LOOK = 16  # steps between two looks of the host: a row that ends costs up to so many steps of its slot
PREFILL_TOKENS = 8192  # padded prompt tokens of one prefill
MEMORY_SHARE = 0.75  # of the free memory, for keys and values
AGREEMENT = 0.03  # relative difference of logits; bf16 rounding alone makes about a third of it


def room(model: nn.Module) -> float:
    """Positions that keys and values may take; without a GPU there is no telling."""
    weight = model.get_output_embeddings().weight
    return MEMORY_SHARE * memory.free(weight.device) / position_bytes(model) if weight.is_cuda else math.inf


_agreed: weakref.WeakKeyDictionary[nn.Module, bool] = weakref.WeakKeyDictionary()


def supports(model: nn.Module) -> bool:
    """Whether `Decoder` computes what this model does: its parts are there, and on a short text the logits agree.

    What a short text cannot show is asked of the configuration: a window that attention slides in, and rotations that depend
    on the length of the whole.
    """
    if model not in _agreed:
        sliding = any(
            getattr(layer, "is_sliding", False) for layer in DynamicCache(config=model.config).layers
        )
        lengths = (getattr(model.config, "rope_parameters", None) or {}).get("rope_type") in (
            "dynamic",
            "longrope",
        )
        try:
            found = float("inf") if sliding or lengths else disagreement(model)
        except (
            Exception
        ) as fault:  # other names, other shapes: another architecture; or Triton finds a kernel too large
            if memory.ran_out(fault):
                raise
            found = float("inf")
        _agreed[model] = found < AGREEMENT
        if not _agreed[model]:
            warnings.warn(
                f"{type(model).__name__}: not decoded in slots (logits differ by {found:.3g}); sampling takes the slow path",
                stacklevel=2,
            )
    return _agreed[model]


@torch.no_grad()
def disagreement(model: nn.Module, length: int = 24) -> float:
    """Relative difference between the logits of the model's forward and those of a prefill and one step in two slots."""
    device = model.get_output_embeddings().weight.device
    ids = torch.arange(7, 7 + length, device=device)[None] % model.config.vocab_size
    cache = DynamicCache(config=model.config)
    model.get_decoder()(input_ids=ids[:, :-1], past_key_values=cache, use_cache=True)
    found = Slots(
        model, slots=2, positions=1, prompts=1, seats=max(2, most_seats(model.config)), length=length
    )  # the largest kernel there will be
    zero = torch.zeros(1, dtype=torch.long, device=device)
    found.fill(zero, cache, zero, zero + length - 1)
    found.start_B.fill_(length - 1)
    ours, theirs = (
        Decoder(model)(ids[0, -1:].repeat(2), found).float(),
        model(input_ids=ids, use_cache=False).logits[:, -1].float(),
    )
    return float((ours - theirs).norm(dim=1).max() / theirs.norm())


@dataclass
class Sharers:
    """Requests with one prompt that wait for slots: as many as it has seats, or fewer."""

    read: int  # which prompt of the prefill
    waiting: deque[int]
    prompt: int | None = None  # which of the slots' prompts it has become


@dataclass(frozen=True)
class Prefill:
    """Prompts that have been read, and the requests that wait to go on from them."""

    cache: DynamicCache
    logits_PV: Tensor  # after each prompt
    sharers: deque[Sharers]


class Engine:
    """Decodes the requests in slots; `run` calls `on_row(i, ids, logps)` as soon as request i has ended."""

    def __init__(
        self,
        model: nn.Module,
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
        B, new = (
            len(self.slots.length_B),
            lambda *shape, dtype=torch.long: torch.zeros(shape, dtype=dtype, device=self.device),
        )
        self.token_B, self.count_B, self.limit_B, self.running_B = (
            new(B),
            new(B),
            new(B),
            new(B, dtype=torch.bool),
        )
        self.uniform_BT = new(B, self.longest + 1, dtype=torch.float32)
        self.drawn_BT, self.logp_BT = (
            new(B, self.longest + 1),
            new(B, self.longest + 1, dtype=torch.float32),
        )  # last column: for dead rows
        self.request_of: list[int | None] = [None] * B
        self.seated = self.slots.seats_NM.flatten().tolist()  # slots in the order of the seats
        self.readers = [0] * len(
            self.slots.length_N
        )  # requests that need each prompt, those that wait for a slot included

    def _allocate(self, rows: int) -> Slots:
        """As many slots as were asked for, or as many as there is memory for, and prompts enough for every slot to sit alone."""
        sharing = Counter(request.prompt_ids for request in self.requests)
        seats, length = min(max(sharing.values()), most_seats(self.model.config)), max(map(len, sharing))
        copies = sum(-(-count // seats) for count in sharing.values())
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
        with torch.cuda.graph(
            graph, capture_error_mode="thread_local"
        ):  # other threads may still copy bases for the cache
            self._step()
        return graph

    def _step(self) -> None:
        """One token for every slot. Only tensors that outlive the step are read and written, all in place."""
        slots, logits_BV = self.slots, self.decoder(self.token_B, self.slots)
        token_B, logp_B = draw(
            logits_BV, self.uniform_BT.gather(1, self.count_B[:, None])[:, 0], self.temperature
        )
        column = torch.where(self.running_B, self.count_B, self.longest)[:, None]
        self.drawn_BT.scatter_(1, column, token_B[:, None])
        self.logp_BT.scatter_(1, column, logp_B[:, None])
        self.token_B.copy_(token_B)
        self.count_B.add_(self.running_B)
        self.running_B.logical_and_(~self._ended(token_B, self.count_B, self.limit_B))
        slots.length_B.add_(1).mul_(self.running_B)

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

    def _prefill(self) -> Prefill:
        """The next prompts, padded on the right, with all waiting requests that have them."""
        members: dict[tuple[int, ...], list[int]] = {}
        width = 0
        for i in self.waiting:
            prompt = self.requests[i].prompt_ids
            if (
                prompt in members
                or not members
                or max(width, len(prompt)) * (len(members) + 1) <= PREFILL_TOKENS
            ):
                members.setdefault(prompt, []).append(i)
                width = max(width, len(prompt))
        self.waiting = deque(i for i in self.waiting if self.requests[i].prompt_ids not in members)
        ids = torch.zeros(len(members), width, dtype=torch.long)
        for row, prompt in zip(ids, members):
            row[: len(prompt)] = torch.tensor(prompt)
        cache, last = (
            DynamicCache(config=self.model.config),
            self._tensor([len(prompt) - 1 for prompt in members]),
        )
        hidden = self.model.get_decoder()(
            input_ids=ids.to(self.device), past_key_values=cache, use_cache=True
        ).last_hidden_state
        logits_PV = self.model.get_output_embeddings()(
            hidden[torch.arange(len(members), device=self.device), last]
        )
        seats = self.slots.seats_NM.shape[1]
        return Prefill(
            cache,
            logits_PV,
            deque(
                Sharers(read, deque(group[at : at + seats]))
                for read, group in enumerate(members.values())
                for at in range(0, len(group), seats)
            ),
        )

    def _begin(self, prefilled: Prefill) -> None:
        """Put requests into free slots, their prompts where nobody reads another one any more, and draw their first tokens."""
        chosen: dict[int, tuple[int, int]] = {}  # slot -> request, which prompt of the prefill
        copied: dict[int, tuple[int, int]] = {}  # prompt -> which of the prefill, length
        for slot in (slot for slot, request in enumerate(self.request_of) if request is None):
            if not prefilled.sharers:
                break
            sharers = prefilled.sharers[0]
            i = sharers.waiting.popleft()
            if sharers.prompt is None:
                sharers.prompt = self.readers.index(
                    0
                )  # there is one: no more prompts are read than slots taken
                self.readers[sharers.prompt] = 1 + len(sharers.waiting)
                copied[sharers.prompt] = sharers.read, len(self.requests[i].prompt_ids)
            self._seat(slot, sharers.prompt)
            self.request_of[slot], chosen[slot] = i, (i, sharers.read)
            if not sharers.waiting:
                prefilled.sharers.popleft()
        if copied:
            self.slots.fill(
                self._tensor(list(copied)),
                prefilled.cache,
                *(self._tensor(list(part)) for part in zip(*copied.values())),
            )
        self.slots.seats_NM.copy_(self._tensor(self.seated).view_as(self.slots.seats_NM))
        requests, limits = zip(*((self.requests[i], self.limits[i]) for i, _ in chosen.values()))
        rows, limit = self._tensor(list(chosen)), self._tensor(list(limits))
        u_BT = np.stack(
            [np.pad(uniforms(r.key, most), (0, self.longest + 1 - most)) for r, most in zip(requests, limits)]
        )
        uniform_BT = torch.from_numpy(u_BT).to(self.device, torch.float32)
        token, logp = draw(
            prefilled.logits_PV[self._tensor([read for _, read in chosen.values()])],
            uniform_BT[:, 0],
            self.temperature,
        )
        one = torch.ones_like(limit)
        self.uniform_BT[rows], self.limit_B[rows], self.count_B[rows], self.token_B[rows] = (
            uniform_BT,
            limit,
            one,
            token,
        )
        self.drawn_BT[rows, 0], self.logp_BT[rows, 0], self.running_B[rows] = (
            token,
            logp,
            ~self._ended(token, one, limit),
        )
        self.slots.start_B[rows] = self._tensor([len(r.prompt_ids) for r in requests])

    def _seat(self, slot: int, prompt: int) -> None:
        """Let a free slot sit at this prompt; whoever is at rest there, or nobody, takes its seat in exchange."""
        seats, old = self.slots.seats_NM.shape[1], self.seated.index(slot)
        at_rest = lambda other: other == len(self.request_of) or self.request_of[other] is None  # noqa: E731
        new = next(
            seat for seat in range(prompt * seats, prompt * seats + seats) if at_rest(self.seated[seat])
        )
        self.seated[old], self.seated[new] = self.seated[new], slot

    def _tensor(self, numbers: list[int]) -> Tensor:
        return torch.tensor(numbers, dtype=torch.long, device=self.device)

    def _collect(self) -> None:
        """Hand out the rows that have ended, and free their slots and the prompts that nobody needs any more."""
        running = self.running_B.tolist()
        ended = [
            slot for slot, request in enumerate(self.request_of) if request is not None and not running[slot]
        ]
        if not ended:
            return
        rows = self._tensor(ended)
        for slot, ids, logps, count in zip(
            ended, self.drawn_BT[rows].tolist(), self.logp_BT[rows].tolist(), self.count_B[rows].tolist()
        ):
            request, self.request_of[slot] = self.request_of[slot], None
            self.readers[self.seated.index(slot) // self.slots.seats_NM.shape[1]] -= 1
            self.on_row(request, ids[:count], logps[:count])
        self.slots.length_N[self._tensor([n for n, readers in enumerate(self.readers) if not readers])] = 0


def decode(
    model: nn.Module,
    requests: Sequence[Request],
    *,
    rows: int,
    on_row: Callable[[int, list[int], list[float]], None],
    **options,
) -> None:
    """The engine behind `sampling.sample`, whose arguments it takes.

    Out of memory, it goes on with half the rows and what is left of the requests: a row's draws are its own, so beginning
    it anew changes nothing. InputError when one row alone does not fit.
    """
    left = dict(enumerate(requests))
    while left:
        numbers = list(left)

        def hand_out(i: int, ids: list[int], logps: list[float]) -> None:
            del left[numbers[i]]
            on_row(numbers[i], ids, logps)

        try:
            Engine(model, list(left.values()), rows=rows, on_row=hand_out, **options).run()
        except RuntimeError as fault:
            if not memory.ran_out(fault):
                raise
        if left:
            if rows == 1:
                request = next(iter(left.values()))
                raise InputError(
                    f"sampling: a row of {len(request.prompt_ids)} + {request.tokens(options['limit'])} tokens does not fit into the GPU's memory"
                )
            rows = max(1, min(rows, len(left)) // 2)
            if model.device.type == "cuda":
                torch.cuda.empty_cache()
