"""What to measure, and at which sizes. No torch in here."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge

from hackward.base.faults import InputError
from hackward.base.flags import Count, Dtype, checked

SECTIONS = ("ceilings", "sampling", "probe", "step", "setup")  # in the order of running


@dataclass(frozen=True)
class BenchFlags:
    """What to measure, and at which sizes. Sizes that are not given depend on the shape."""

    shape: Literal["tiny", "qwen3-0.6b", "qwen3-4b"] = "tiny"
    """Architecture with random weights."""
    sections: str = "ceilings,sampling,probe,step,setup"
    """Which parts to run, separated by commas."""
    dtype: Dtype = "auto"
    """auto: bf16 on a GPU, fp32 on a CPU. tf32: fp32 with matrix products in TF32 (10 bits of mantissa) where the GPU has it."""
    device: str = "auto"
    """auto, cpu, cuda, ..."""
    out: str | None = None
    """Write every timing as JSON to this file."""

    batches: str | None = None
    """sampling: batch sizes, separated by commas (8,64,258; tiny: 4,8)."""
    prompt_tokens: Count | None = None
    """sampling: tokens of a prompt (256; tiny: 16)."""
    new_tokens: Annotated[int, Ge(2)] | None = None
    """sampling: tokens of a completion (512; tiny: 32)."""
    eager_tokens: Count | None = None
    """sampling: tokens that the slow baselines are timed over, in the middle of the completion (64; tiny: 24)."""
    samples: Count = 8
    """probe: rows of the batch."""
    tokens: Annotated[int, Ge(3)] = 768
    """probe: tokens of a row; the last two thirds are the completion."""
    rounds: Count = 7
    """probe: timed rounds, after two that are not."""
    steps: Count = 3
    """step: training steps; the first warms up and is not in the table (unless it is the only one)."""
    problems: str | None = None
    """step: problem file whose tests are run (default: the shipped one)."""
    workers: Count | None = None
    """step: grader processes (default: one a core)."""


FULL_SIZES = dict(batches="8,64,258", prompt_tokens=256, new_tokens=512, eager_tokens=64)


TINY_SIZES = dict(batches="4,8", prompt_tokens=16, new_tokens=32, eager_tokens=24)


def resolve(config: BenchFlags) -> BenchFlags:
    """Fill in the sizes that were not given. InputError for values that cannot be measured."""
    checked(config)
    sections = [name.strip() for name in config.sections.split(",")]
    if unknown := sorted(set(sections) - set(SECTIONS)):
        raise InputError(f"--sections {config.sections}: {unknown[0]!r} is none of {', '.join(SECTIONS)}")
    if config.batches and not all(part.strip().isdigit() and int(part) for part in config.batches.split(",")):
        raise InputError(f"--batches {config.batches}: expected positive numbers, separated by commas")
    sizes = TINY_SIZES if config.shape == "tiny" else FULL_SIZES
    return dataclasses.replace(
        config,
        sections=",".join(sections),
        **{name: size for name, size in sizes.items() if getattr(config, name) is None},
    )
