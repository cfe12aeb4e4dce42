"""transformers' continuous batching: paged attention, and CUDA graphs where it takes them."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterator, Sequence
from typing import Any

from hackward.base.types import CausalLM
from hackward.benchmarks.parts import Bench
from hackward.hardware.models import plain_norms
from hackward.rollouts.draws import Request
from hackward.runs.settings import PRESETS

# Path -> the arguments of ContinuousBatchingConfig that are not left to it.
PATHS: dict[str, dict[str, Any]] = {
    "continuous": {},
    "continuous, graphs": {"use_cuda_graph": True},
}
PAGE = 256  # positions of a page of its keys and values
LOGGER = "ContinuousBatchingLogger"


def room(model: CausalLM, rows: int, longest: int) -> dict[str, int]:
    """What must be said of memory. On a GPU nothing; on a CPU it would take most of the machine's."""
    if model.device.type == "cuda":
        return {}
    pages = math.ceil(longest / PAGE) + 1
    return {"num_blocks": rows * pages, "max_batch_tokens": max(PAGE, rows)}


def measured(b: Bench, model: CausalLM, path: str, asked: Sequence[Request], limit: int) -> dict:
    """Token steps in which all rows go on: after the last one has begun, and before the first one ends.

    By the time that it puts to each token: calls wait for each other by up to a second. Its pages and graphs
    stay from one call to the next. RuntimeError, with its reason, where it drew fewer tokens.
    """
    logging.getLogger(LOGGER).setLevel(logging.ERROR)  # it warns of what is asked for here
    plain_norms(model)
    drawn: list[Any] = []
    with kept(model) as attention:
        draw(model, path, asked, limit)  # captures and warms up
        (timing,) = b.timed(lambda: drawn.extend(draw(model, path, asked, limit)))
        settings = model._cached_continuous_batching_manager.continuous_batching_config
    speed = steady([one.timestamps for one in drawn])
    return {
        "tokens": limit,
        "seconds": timing.seconds,
        "tokens_per_second": speed,
        "ms_a_step": 1e3 * len(asked) / speed,
        "peak_gb": timing.peak_gb,
        "attention": ", ".join(sorted(attention)),
        "graphs": any(settings.cuda_graph_booleans),
        "asynchronous": bool(settings.use_async_batching),
        "batch_tokens": settings.max_batch_tokens,
    }


def draw(model: CausalLM, path: str, asked: Sequence[Request], limit: int) -> list[Any]:
    """So many tokens for every request, at a full run's temperature: what it returns of each."""
    from transformers import ContinuousBatchingConfig, GenerationConfig

    prompts = [list(request.prompt_ids) for request in asked]
    longest = max(map(len, prompts)) + limit
    drawn = model.generate_batch(
        prompts,
        generation_config=GenerationConfig(
            max_new_tokens=limit,
            do_sample=True,
            temperature=PRESETS["full"].temperature,
            top_k=0,
            top_p=1.0,
            eos_token_id=-1,
            pad_token_id=0,
        ),
        continuous_batching_config=ContinuousBatchingConfig(
            **(room(model, len(prompts), longest) | PATHS[path])
        ),
        record_timestamps=True,
        persistent_manager=True,
    )
    check_drawn(list(drawn.values()), len(prompts), limit)
    return list(drawn.values())


def check_drawn(drawn: Sequence[Any], count: int, limit: int) -> None:
    """RuntimeError unless so many requests have so many tokens each: it reports its faults, and goes on."""
    for one in drawn:
        if one.error is not None:
            raise RuntimeError(str(one.error))
    lengths = [len(one.generated_tokens) for one in drawn]
    if lengths != [limit] * count:
        raise RuntimeError(f"{sum(lengths)} of {count * limit} tokens were drawn")


def steady(times: Sequence[Sequence[float]]) -> float:
    """Tokens per second, from the seconds at which every row's tokens came, while all rows go on.

    RuntimeError where the first row had ended before the last one began.
    """
    begun, ended = max(row[0] for row in times), min(row[-1] for row in times)
    if ended <= begun:
        raise RuntimeError("the first rows had ended before the last ones began: more --eager-tokens")
    return sum(begun < at <= ended for row in times for at in row) / (ended - begun)


@contextlib.contextmanager
def attending(model: CausalLM) -> Iterator[set[str]]:
    """The set takes the names of what the model's forwards attend with, while this lasts."""
    names: set[str] = set()

    def look(module: Any, inputs: Any) -> None:
        names.add(module.config._attn_implementation)

    seen = model.get_decoder().register_forward_pre_hook(look)
    try:
        yield names
    finally:
        seen.remove()


@contextlib.contextmanager
def kept(model: CausalLM) -> Iterator[set[str]]:
    """Free, at the end, what continuous batching holds of this model; `attending` meanwhile."""
    try:
        with attending(model) as names:
            yield names
    finally:
        model.destroy_cached_continuous_batching_manager()
