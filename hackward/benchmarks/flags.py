"""What bench.py measures, and at which sizes. Light: without numpy, scipy and torch."""

from __future__ import annotations

import dataclasses
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from annotated_types import Ge

from hackward.base.faults import InputError
from hackward.base.flags import Count, Dtype, Sandbox, checked

Sizes = TypeVar("Sizes", "Lengths", "PeerSizes")

# The names of all sections, in the order of running; sections.py says what measures each.
SECTIONS = (
    *("ceilings", "sampling", "probe", "monitor", "prompts", "step", "setup"),
    *("grading", "scaling", "sharing", "threads", "batching", "peers"),
)
# Those that are computed with random weights. Their floors need the ceilings.
OF_A_MODEL = ("sampling", "probe", "monitor", "prompts", "step", "setup")
# Those of them that run beside libraries which others use, only if asked for.
BESIDE_OTHERS = ("batching", "peers")


@dataclass(frozen=True)
class BenchFlags:
    """What to measure, and at which sizes. Sizes that are not given depend on the shape."""

    shape: Literal["tiny", "qwen3-0.6b", "qwen3-4b"] = "tiny"
    """Architecture with random weights."""
    sections: str = ",".join(("ceilings", *OF_A_MODEL))
    """Which parts to run, separated by commas; beside these: grading, scaling, sharing,
    threads, batching, peers."""
    dtype: Dtype = "auto"
    """auto: bf16 on a GPU, fp32 on a CPU. tf32: fp32 with matrix products in TF32 (10 bits of mantissa) where
    the GPU has it."""
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
    """sampling: tokens that the slow baselines are timed over, in the middle of the completion (64; tiny:
    24)."""
    samples: Count = 8
    """probe, monitor: rows of the batch."""
    tokens: Annotated[int, Ge(3)] = 768
    """probe, monitor: tokens of a row; the last two thirds are the completion."""
    rounds: Count = 7
    """probe, monitor: timed rounds, after two that are not."""
    steps: Count = 3
    """step: training steps; the first warms up and is not in the table (unless it is the only one)."""
    step_prompts: Count | None = None
    """step, sharing: prompts of a step (43; tiny: 4)."""
    step_group: Annotated[int, Ge(2)] | None = None
    """step, sharing: rollouts per prompt (6)."""
    step_tokens: Annotated[int, Ge(2)] | None = None
    """step, sharing: longest completion; all lengths shrink with it (1024; tiny: 32)."""
    per_gpu: Count = 4
    """sharing: runs at once on the GPU."""
    gpus: str | None = None
    """scaling: numbers of processes, one per GPU, separated by commas (1, 2, 4, ... as many as there are;
    without a GPU 1,2)."""
    problems: str | None = None
    """step: problem file whose tests are run (default: the shipped one). grading: the problems of --rows
    (default: those of the embedded teacher pool)."""
    workers: Count | None = None
    """step, grading: grader processes (default: one a core)."""

    peer_prompts: Count | None = None
    """peers: prompts of a step, six completions each (8; tiny: 2)."""
    peer_tokens: Annotated[int, Ge(2)] | None = None
    """peers: tokens of every completion (256; tiny: 8)."""
    peer_seconds: Count = 300
    """batching, peers: after so many seconds a path or variant is given up. A variant of peers with two
    finished steps keeps them."""

    rows: Path | None = None
    """grading: real rollouts, a file of rows or a pool directory (default: the embedded teacher pool)."""
    canonical: str | None = None
    """grading: problems whose canonical solutions are graded (default: the shipped ones)."""
    graded: Count = 300
    """grading: rollouts taken, evenly spaced over --rows."""
    plain_graded: Count = 60
    """grading: of each kind, how many the plain grader does (it is slow)."""
    repeats: Count = 3
    """grading: rounds; medians are shown, with the lowest and the highest."""
    sandbox: Sandbox = "best-effort"
    """grading: how the graded code is confined."""
    baseline: Path | None = None
    """grading: another checkout of this project, whose grader takes turns with this one on the same
    rollouts."""


@dataclass(frozen=True)
class Lengths:
    """Sizes of the section sampling."""

    batches: str
    prompt_tokens: int
    new_tokens: int
    eager_tokens: int

    @property
    def batch_sizes(self) -> list[int]:
        return sorted(map(int, self.batches.split(",")))


FULL_LENGTHS = Lengths("8,64,258", prompt_tokens=256, new_tokens=512, eager_tokens=64)
TINY_LENGTHS = Lengths("4,8", prompt_tokens=16, new_tokens=32, eager_tokens=24)


@dataclass(frozen=True)
class PeerSizes:
    """Sizes of the section peers."""

    peer_prompts: int
    peer_tokens: int


FULL_PEERS, TINY_PEERS = PeerSizes(peer_prompts=8, peer_tokens=256), PeerSizes(peer_prompts=2, peer_tokens=8)


def lengths_of(config: BenchFlags) -> Lengths:
    """Those that were given, and for the others what suits the shape."""
    return _filled(config, TINY_LENGTHS if config.shape == "tiny" else FULL_LENGTHS)


def peer_sizes_of(config: BenchFlags) -> PeerSizes:
    """Those that were given, and for the others what suits the shape."""
    return _filled(config, TINY_PEERS if config.shape == "tiny" else FULL_PEERS)


def _filled(config: BenchFlags, usual: Sizes) -> Sizes:
    given = {name: getattr(config, name) for name in vars(usual)}
    return dataclasses.replace(usual, **{name: size for name, size in given.items() if size is not None})


def sections_of(config: BenchFlags) -> list[str]:
    """The names of --sections. InputError for a name that is none of SECTIONS."""
    names = [name.strip() for name in config.sections.split(",")]
    if unknown := sorted(set(names) - set(SECTIONS)):
        raise InputError(f"--sections {config.sections}: {unknown[0]!r} is none of {', '.join(SECTIONS)}")
    return names


def counts_of(config: BenchFlags) -> list[int]:
    """The numbers of --gpus, ascending; none where it was not given. InputError for what is no number."""
    parts = config.gpus.split(",") if config.gpus is not None else []
    if not all(part.strip().isdigit() and int(part) for part in parts):
        raise InputError(f"--gpus {config.gpus}: expected positive numbers, separated by commas")
    return sorted({int(part) for part in parts})


def resolve(config: BenchFlags) -> BenchFlags:
    """Fill in the sizes that were not given. InputError for values that cannot be measured."""
    checked(config)
    names, lengths = sections_of(config), lengths_of(config)
    if not all(part.strip().isdigit() and int(part) for part in lengths.batches.split(",")):
        raise InputError(f"--batches {config.batches}: expected positive numbers, separated by commas")
    counts_of(config)
    if "peers" in names and importlib.util.find_spec("trl") is None:
        # Only now: it brings bars and records along.
        from hackward.runs.tracking import pinned

        raise InputError(f"--sections={config.sections}: peers needs TRL: pip install {pinned('peers')}")
    sizes = vars(lengths) | vars(peer_sizes_of(config))
    return dataclasses.replace(config, sections=",".join(names), **sizes)
