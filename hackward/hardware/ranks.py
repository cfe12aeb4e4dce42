"""One run on several processes: `torchrun --nproc-per-node=N -- train.py ...`.

Every process (rank) runs the same loop. Two things are dealt out: the completions to draw, whole groups a
rank, and the rows of every forward and backward. What comes of them is put together again at once, so that
from there on all ranks hold the same and do the same; nothing else in the program knows of them. Draws depend
on seed, step, problem and sample alone, and losses are plain sums over rows, so the number of ranks changes
no draw and no gradient beyond rounding. Without torchrun there is one rank, and all of this does nothing.

Rank 0 speaks and writes. The others keep a run directory of their own, which goes with them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import shutil
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from hackward.base.faults import InputError
from hackward.base.files import CHECKPOINT
from hackward.base.screen import STDERR
from hackward.hardware.cards import visible_cards
from hackward.hardware.cores import share_of_cores

Item = TypeVar("Item")
Settings = TypeVar("Settings", bound=Any)
# That one rank waits for another: graders and held-out evaluations take minutes
PATIENCE = timedelta(hours=1)
_spent: defaultdict[str, float] = defaultdict(float)  # see `seconds`


def started() -> bool:
    """Was this process started by torchrun?"""
    return "TORCHELASTIC_RUN_ID" in os.environ


def size() -> int:
    """How many ranks there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Which one this is, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


@contextlib.contextmanager
def joined(config: Settings) -> Iterator[Settings]:
    """Join the other ranks, if there are any, for what is inside; gives the settings of this rank's part.

    Each rank sees one GPU, its own. InputError where the host has fewer GPUs than processes.
    """
    if not started():
        yield config
        return
    on_gpu = _take_gpu(config.device)
    dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout=PATIENCE)
    here = int(os.environ["LOCAL_WORLD_SIZE"])
    workers = config.workers or share_of_cores(here)
    config = dataclasses.replace(config, workers=workers, resume=config.resume or _begun(config.out))
    with contextlib.ExitStack() as stack:
        if rank():
            config = _apart(config, stack)
        gathered(None)  # all are here: the copies are made before rank 0 changes anything
        yield config
    dist.destroy_process_group()


def _take_gpu(device: str) -> bool:
    """Leave this process one GPU in sight. Must come before CUDA is first asked for anything."""
    if device == "cpu" or (device == "auto" and not torch.cuda.device_count()):
        return False
    if device not in ("auto", "cuda"):
        raise InputError(
            f"--device={device}: under torchrun every process takes a card of its own (auto, cpu)"
        )
    cards = visible_cards()
    local = int(os.environ["LOCAL_RANK"])
    if local >= len(cards):
        raise InputError(
            f"--nproc-per-node={os.environ['LOCAL_WORLD_SIZE']}: this host has {len(cards)} GPUs"
        )
    os.environ["CUDA_VISIBLE_DEVICES"] = cards[local]
    return True


def _begun(out: str | None) -> bool:
    """Is this another start, by `torchrun --max-restarts`, of a run that has a checkpoint?"""
    again = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0
    return again and out is not None and (Path(out) / CHECKPOINT).exists()


def _apart(config: Settings, stack: contextlib.ExitStack) -> Settings:
    """A rank that neither speaks nor writes where the user looks."""
    STDERR.quiet = True
    warnings.simplefilter("ignore")
    stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
    home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hackward-rank-"))) / "run"
    if config.resume and config.out and Path(config.out).is_dir():
        shutil.copytree(config.out, home)
    return dataclasses.replace(config, out=str(home), track="none")


def dealt(items: Sequence[Item]) -> Sequence[Item]:
    """This rank's part: every item whose turn it is, round the ranks."""
    return items[rank() :: size()]


def gathered(own: Item) -> list[Item]:
    """What every rank has here, by rank."""
    everyone = [own] * size()
    if size() > 1:
        with _timed():
            dist.all_gather_object(everyone, own)
    return everyone


@contextlib.contextmanager
def _timed() -> Iterator[None]:
    """Count an exchange's seconds, and apart from them those until all ranks are there.

    What this rank's GPU still has to do is neither.
    """
    _wait_for_gpu()
    came = time.monotonic()
    dist.all_gather_object([None] * size(), None)
    began = time.monotonic()
    yield
    _wait_for_gpu()
    _spent["waiting"] += began - came
    _spent["exchanging"] += time.monotonic() - began


def _wait_for_gpu() -> None:
    """A run on the CPU begins with no GPU, which may be full, only because there is one."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def seconds() -> dict[str, float]:
    """Of this rank since the last call: waiting for others, and exchanging with them. Empty for one rank."""
    if size() == 1:
        return {}
    spent = {f"seconds_{name}": _spent[name] for name in ("waiting", "exchanging")}
    _spent.clear()
    return spent


def collected(part: Sequence[Item]) -> list[Item]:
    """All ranks' parts of what was `dealt`, in the order before it was."""
    parts = gathered(part)
    return [parts[i % size()][i // size()] for i in range(sum(map(len, parts)))]


def add_up(tensors: Sequence[Tensor]) -> None:
    """Replace every tensor by its sum over the ranks: one message a device and dtype, bitwise the same on all
    ranks."""
    if size() == 1:
        return
    kinds: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for tensor in tensors:
        kinds.setdefault((tensor.device, tensor.dtype), []).append(tensor)
    for alike in kinds.values():
        flat = torch.cat([tensor.reshape(-1) for tensor in alike])
        with _timed():
            dist.all_reduce(flat)
        for tensor, total in zip(alike, flat.split([tensor.numel() for tensor in alike])):
            tensor.copy_(total.view_as(tensor))


def in_order(found: Sequence[Tensor], order: Sequence[int]) -> Tensor:
    """(N, ...) from the rows of all ranks: of this one `found`, on the CPU, which stand at `order`."""
    everyone = gathered((list(order), torch.cat(list(found)) if found else None))
    places = [place for part, _ in everyone for place in part]
    rows = torch.cat([rows for _, rows in everyone if rows is not None])
    return rows[torch.argsort(torch.tensor(places))]
