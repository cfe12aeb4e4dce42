"""What the sections are made of: a clock, the floors, requests and samplers, tables."""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Group
from torch import nn

from hackward.base.screen import stdout
from hackward.base.seeds import seeded
from hackward.base.terminal import drawn
from hackward.base.types import CausalLM, Tokenizer
from hackward.benchmarks.flags import BenchFlags
from hackward.hardware import memory, models
from hackward.hardware.models import fused_norms, plain_norms
from hackward.rollouts import sampling
from hackward.rollouts.decoder import position_bytes
from hackward.rollouts.draws import Request
from hackward.runs.settings import PRESETS
from hackward.tasks.shipped import TINY

GROUP = 6  # rows that share a prompt, as in a full run
REPEATS = 3  # timings of which the median is taken, where no flag says


class Timing(NamedTuple):
    """One call: its seconds, and the highest GPU memory in it (None without a GPU)."""

    seconds: float
    peak_gb: float | None


def timed(action: Callable[[], object], device: torch.device) -> Timing:
    """Run it once, from an idle GPU to an idle GPU."""
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.synchronize()
        # What is called may record phases, and so hide its peaks from PyTorch's own counter.
        memory.peaks.clear()
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    action()
    if on_gpu:
        torch.cuda.synchronize()
    return Timing(time.perf_counter() - start, peak_gb(device))


def peak_gb(device: torch.device) -> float | None:
    """The most memory that was taken since the last call of `timed` began; None on a CPU."""
    return memory.peak() / 1e9 if device.type == "cuda" else None


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
    # Not before: until here the traceback holds the tensors of what failed.
    release()
    return {"error": why}


@dataclass(frozen=True)
class Sizes:
    """What any implementation must read and compute for a model, whatever else it does."""

    linear: int
    """Parameters of the Linears, without the head."""
    head: int
    """Parameters of the head."""
    weight_bytes: int
    """Of all that a token step reads: every parameter, the embedding table only where it is the head."""
    kv_bytes: int
    """Keys and values of one position."""

    @classmethod
    def of(cls, model: CausalLM) -> Sizes:
        """Of a model without an adapter."""
        head = model.get_output_embeddings().weight
        embeddings = model.get_input_embeddings().weight
        linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
        read = [p for p in model.parameters() if p is head or p is not embeddings]
        return cls(
            linear=sum(module.weight.numel() for module in linears if module.weight is not head),
            head=head.numel(),
            weight_bytes=sum(p.nbytes for p in read),
            kv_bytes=position_bytes(model),
        )

    def decode_bytes(self, steps: int, positions: float) -> float:
        """Bytes of so many token steps; `positions` are attended to in them, over all rows and steps."""
        return steps * self.weight_bytes + positions * self.kv_bytes

    def operations(self, tokens: int, scored: int, passes: int) -> int:
        """Multiplications and additions of `passes` through the Linears.

        1 pass is the forward, 2 are with the gradient of the activations, 3 with the reference policy's
        forward. Only `scored` tokens meet the head; attention's own products are left out.
        """
        return 2 * passes * (self.linear * tokens + self.head * scored)


def attended(rows: Sequence[tuple[int, int]]) -> int:
    """Positions that the token steps of a group must read; `rows` are (prompt length, completion length).

    They are each row's own, and the prompt once for all that go on. The first token of a row comes from the
    prefill. ValueError where the prompts differ.
    """
    (prompt,) = {prompt for prompt, _ in rows}
    return (max(c for _, c in rows) - 1) * prompt + sum((c - 1) * c // 2 for _, c in rows)


def requests(batch: int, prompt: int, vocabulary: int) -> list[Request]:
    """Random prompts of one length, each shared by a group."""
    prompts = [
        tuple(seeded("bench", i).integers(vocabulary, size=prompt).tolist())
        for i in range(math.ceil(batch / GROUP))
    ]
    return [Request(prompts[i // GROUP], ("bench", i)) for i in range(batch)]


def sampler(
    model: CausalLM, path: str, asked: Sequence[Request], counted: Counter[str]
) -> Callable[[int], object]:
    """Draws so many tokens for every request; nothing ends early.

    The path is "slots", "plain" or "generate" (transformers' own, eager). The first two count their "token
    steps". All draw from the same distribution, at a full run's temperature.
    """
    full = PRESETS["full"]
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


@dataclass(frozen=True)
class Bench:
    """What every section needs: the sizes, where to run, and the measured ceilings."""

    config: BenchFlags
    device: torch.device
    train: Callable[..., Path]
    """train.py's loop, which is handed in because a room never imports a command."""
    bandwidth: float = 1.0
    """Bytes per second."""
    rate: float = 1.0
    """Operations per second."""

    @property
    def model_name(self) -> str:
        return TINY if self.config.shape == "tiny" else f"random-{self.config.shape}"

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    @property
    def usual_norms(self) -> Callable[[nn.Module], nn.Module]:
        """Puts the norms in place that a run has on this device."""
        return fused_norms if self.on_gpu else plain_norms

    def load(self) -> tuple[CausalLM, Tokenizer]:
        """The model with random weights, and its tokenizer."""
        return models.load(self.model_name, dtype=self.config.dtype, device=self.config.device)

    def timed(self, action: Callable[[], object], repeats: int = 1) -> list[Timing]:
        """Run it so many times."""
        return [timed(action, self.device) for _ in range(repeats)]


def middle(timings: Sequence[Timing]) -> float:
    """The median in seconds."""
    return statistics.median(t.seconds for t in timings)


def every(timings: Sequence[Timing]) -> list[float]:
    """All of them in seconds."""
    return [t.seconds for t in timings]


def number(value: float | None, form: str) -> str:
    """A cell of a table; a dash where nothing was measured."""
    return "-" if value is None else format(value, form)


def cells(rows: dict[str, dict], columns: dict[str, tuple[str, str]]) -> list[tuple[str, ...]]:
    """A line per named row: the name, then its figures. `columns`: heading -> (key of a row, format)."""
    return [(name, *(number(row[key], form) for key, form in columns.values())) for name, row in rows.items()]


def table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Group:
    """For the terminal that stdout is, whatever its width: nothing is cut."""
    return drawn(title, headings, rows, stdout().width)
