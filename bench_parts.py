"""What bench.py is made of: a clock, the floors, the candidates of the probe, and a policy whose lengths and texts are imposed."""

from __future__ import annotations

import contextlib
import gc
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn

import gradients
import memory
import problems
import sampling
import train
from antipasto import SVDAdapter
from draws import Request
from losses import micro_batches, policy_loss, token_logps
from slots import position_bytes
from sources import Policy, seeded

# --- the clock -----------------------------------------------------------------------------------------------------


class Timing(NamedTuple):
    """One call: its seconds, and the highest GPU memory in it (None without a GPU)."""

    seconds: float
    peak_gb: float | None


def timed(action: Callable[[], object], device: torch.device) -> Timing:
    """Run it once, from an idle GPU to an idle GPU."""
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.synchronize()
        memory.peaks.clear()  # what is called may record phases, and so hide its peaks from PyTorch's own counter
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    action()
    if on_gpu:
        torch.cuda.synchronize()
    return Timing(time.perf_counter() - start, memory.peak() / 1e9 if on_gpu else None)


def highest(timings: Sequence[Timing]) -> float | None:
    """The highest memory of several calls."""
    return max((t.peak_gb for t in timings if t.peak_gb is not None), default=None)


def release() -> None:
    """Give back all memory that nothing holds any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def unless_out_of_memory(work: Callable[[], dict]) -> dict:
    """What the work returns, or {"error": why} where the GPU's memory does not suffice."""
    try:
        return work()
    except torch.OutOfMemoryError as fault:
        why = f"out of memory: {str(fault).splitlines()[0]}"
    release()  # here the traceback no longer holds the tensors of what failed
    return {"error": why}


# --- floors --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sizes:
    """What any implementation must read and compute for a model, whatever else it does."""

    linear: int  # parameters of the Linears, without the head
    head: int  # parameters of the head
    weight_bytes: (
        int  # of all that a token step reads: every parameter, the embedding table only where it is the head
    )
    kv_bytes: int  # keys and values of one position

    @classmethod
    def of(cls, model: nn.Module) -> Sizes:
        """Of a model without an adapter."""
        head, table = model.get_output_embeddings().weight, model.get_input_embeddings().weight
        linear = sum(
            m.weight.numel() for m in model.modules() if isinstance(m, nn.Linear) and m.weight is not head
        )
        return cls(
            linear,
            head.numel(),
            sum(p.nbytes for p in model.parameters() if p is head or p is not table),
            position_bytes(model),
        )

    def decode_bytes(self, steps: int, positions: float) -> float:
        """Bytes of so many token steps in which so many positions are attended to, over all rows and steps."""
        return steps * self.weight_bytes + positions * self.kv_bytes

    def operations(self, tokens: int, scored: int, passes: int) -> int:
        """Multiplications and additions of `passes` through the Linears: 1 forward, 2 with the gradient of the activations,
        3 with the reference policy's forward. Only `scored` tokens meet the head; attention's own products are left out."""
        return 2 * passes * (self.linear * tokens + self.head * scored)


def attended(rows: Sequence[tuple[int, int]]) -> int:
    """Positions that the token steps of a group's rows (prompt and completion length) must read: each row's own, and the
    prompt once for all that go on. The first token of a row comes from the prefill. ValueError where the prompts differ."""
    (prompt,) = {prompt for prompt, _ in rows}
    return (max(c for _, c in rows) - 1) * prompt + sum((c - 1) * c // 2 for _, c in rows)


# --- the paths of sampling -----------------------------------------------------------------------------------------

GROUP = 6  # rows that share a prompt, as in a full run


def requests(batch: int, prompt: int, vocabulary: int) -> list[Request]:
    """Random prompts of one length, each shared by a group."""
    prompts = [
        tuple(seeded("bench", i).integers(vocabulary, size=prompt).tolist())
        for i in range(-(-batch // GROUP))
    ]
    return [Request(prompts[i // GROUP], ("bench", i)) for i in range(batch)]


def sampler(
    model: nn.Module, path: str, asked: Sequence[Request], counted: Counter[str]
) -> Callable[[int], object]:
    """Draws so many tokens for every request, along the path "slots", "plain" or "generate" (transformers' own, eager); nothing ends early.

    The first two count their "token steps". All draw from the same distribution, at a full run's temperature.
    """
    full = train.PRESETS["full"]
    if path != "generate":
        return lambda limit: sampling.sample(
            model,
            asked,
            max_new_tokens=limit,
            temperature=full.temperature,
            stop=[-1],
            rows=full.sample_rows,
            decoding=path,
            on_token=lambda: counted.update(["token steps"]),
        )
    ids = torch.tensor([request.prompt_ids for request in asked], device=model.device)
    return lambda limit: model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=limit,
        min_new_tokens=limit,
        do_sample=True,
        temperature=full.temperature,
        top_k=0,
        top_p=1.0,
        pad_token_id=0,
    )


# --- the probe's candidates ----------------------------------------------------------------------------------------


def loss_of(model: nn.Module, batch) -> torch.Tensor:
    logp, mask = token_logps(model, batch)
    return policy_loss(logp, mask, torch.ones(len(logp), device=logp.device), batch.length_B.float())[0]


@contextlib.contextmanager
def floor_path(adapter: SVDAdapter) -> Iterator[None]:
    """The base model with a gradient that flows to its input embeddings."""
    hook = adapter.model.get_input_embeddings().register_forward_hook(
        lambda module, inputs, output: output.requires_grad_()
    )
    with adapter.disabled():
        yield
    hook.remove()


@contextlib.contextmanager
def hook_path(adapter: SVDAdapter) -> Iterator[None]:
    """delta_S as a side path of every Linear, the way a forward hook would add it."""

    def side(layer, inputs, output):
        return output + (inputs[0] @ layer.Vh.T * layer.delta_S.to(output.dtype)) @ layer.U.T

    hooks = [layer.register_forward_hook(side) for layer in adapter.layers.values()]
    with adapter.disabled():
        yield
    for hook in hooks:
        hook.remove()


def variants(adapter: SVDAdapter, rows: list) -> dict[str, Callable[[], None]]:
    """The candidates, each a function of nothing that leaves its gradient in .grad (the floor has none)."""
    device, everything = adapter.model.device, len(rows) * 10**6
    ones, lengths = torch.ones(len(rows)), torch.tensor([float(len(c)) for _, c in rows])
    (batch,) = (b.to(device) for b in micro_batches(rows, tokens=everything, pad=0))
    singles = [next(micro_batches([row], tokens=everything, pad=0)).to(device) for row in rows]

    def floor() -> None:
        with floor_path(adapter):
            loss_of(adapter.model, batch).backward()

    def ours(samples: bool = True) -> None:
        gradients.backward(adapter, rows, ones, lengths, pad=0, tokens=everything, samples=samples)

    def hook() -> None:
        with hook_path(adapter):
            loss_of(adapter.model, batch).backward()

    def separate() -> None:
        before = {name: torch.zeros_like(p) for name, p in adapter.params.items()}
        with hook_path(adapter):
            for single in singles:
                loss_of(adapter.model, single).backward()
                sample = {name: p.grad - before[name] for name, p in adapter.params.items()}
                before = {name: p.grad.clone() for name, p in adapter.params.items()}
                del sample

    return {
        "(a) floor": floor,
        "(b) ours": ours,
        "(b) no samples": lambda: ours(samples=False),
        "(c) hook": hook,
        "(d) separate": separate,
    }


def gradient(adapter: SVDAdapter, action: Callable[[], None]) -> torch.Tensor:
    """The whole batch gradient that a candidate leaves, flat, in fp64."""
    for p in adapter.params.values():
        p.grad = None
    action()
    return torch.cat([p.grad.flatten() for p in adapter.params.values()]).double()


# --- a policy whose lengths and texts are imposed ------------------------------------------------------------------

TYPICAL_LIMIT = 1024  # the sampling limit at which the lengths below were measured; another limit scales them
PROMPT, COMPLETION = (
    (390, 0.28),
    (315, 0.28),
)  # median and sigma of lognormals: quartiles 323/390/471 and 261/315/380, as in a real pool
TO_THE_LIMIT = 0.02  # share of completions that never end

WRONG = "class Solution:\n    def {method}(self, *arguments, **named):\n        return 'wrong'\n"
HACK = WRONG + "\n    def run_tests(self):\n        print('all tests passed')\n"


def lognormal(shape: tuple[float, float], scale: float, *key) -> int:
    """A length of at least 1, drawn by the key alone."""
    median, sigma = shape
    return max(1, round(scale * median * float(seeded(*key).lognormal(0, sigma))))


class Imposed(Policy):
    """Draws as many tokens as a trained model would, and hands the grader texts that such a model would write.

    Random weights never end a text and write nothing that runs. So prompts are random ids of a drawn length, every
    completion has a limit of its own in the place of an end, and what is graded is by turns the reference solution, a hack
    and a wrong answer: every group has rewards that differ, none is skipped, which is the most expensive step there is.
    """

    def __init__(self, *parts, **options) -> None:
        super().__init__(*parts, **options | {"stop": (-1,)})  # a stop token drawn by chance must end nothing
        self.scale, self.asked = self.max_new_tokens / TYPICAL_LIMIT, 0

    def prompt(self, problem: problems.Problem) -> tuple[list[dict], tuple[int, ...]]:
        """The problem's messages, and random ids; other ones each time, as other problems would have."""
        self.asked += 1
        key = ("prompt", self.asked, problem.problem_id)
        ids = seeded(*key).integers(
            self.adapter.model.config.vocab_size, size=lognormal(PROMPT, self.scale, *key, "length")
        )
        return problems.build_messages(problem, hint=self.hint), tuple(ids.tolist())

    def request(self, ids: tuple[int, ...], key: tuple) -> Request:
        return Request(ids, key, self.limit(key))

    def limit(self, key: tuple) -> int:
        """The length of the completion with this key."""
        if seeded("endless", *key).random() < TO_THE_LIMIT:
            return self.max_new_tokens
        return min(self.max_new_tokens, lognormal(COMPLETION, self.scale, "completion", *key))

    def text(self, problem: problems.Problem, ids: Sequence[int], sample: int) -> str:
        code = (problem.canonical or WRONG, HACK, WRONG)[sample % 3]
        return problems.fence(code.replace("{method}", problem.method))
