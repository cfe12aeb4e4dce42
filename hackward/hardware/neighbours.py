"""A GPU that is shared: what other processes hold, and waiting for memory that they are short of with us.

A shortage is theirs where they hold memory when it comes. Then it is said in a line, tried again every few
seconds, and given up after minutes. A shortage of our own is never waited for.

Processes that each hold a part of what they need would wait for each other until all give up. So a run takes
the least that it needs at once, before anything else (`make_room`): whoever waits for that holds nothing, and
those that have it can always go on.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable
from typing import TypeVar

import torch

from hackward.base.faults import InputError
from hackward.base.screen import say

Made = TypeVar("Made")
# What CUDA and its libraries say where they, not PyTorch, find no memory: a handle of cuBLAS is made late
LIBRARIES = re.compile(
    r"CU\w+_STATUS_ALLOC_FAILED|CUDA(?: error|_ERROR)?[:_ ]+out[ _]of[ _]memory", re.IGNORECASE
)
# What they say of many faults, and on a full card of memory: their kernels are loaded at first use
OF_LIBRARIES = re.compile(r"CU\w+_STATUS_\w+")
# Bytes of a shared card that PyTorch's tensors of no process should take: room for what is loaded late
SPARE = 1 << 30
# Bytes of this process that PyTorch does not count, at most: its context, libraries, captured graphs, and
# what the driver keeps. 2.0 GB were measured for a run of 0.5 B on an H200. A neighbour that holds less than
# this is overlooked.
OWN = 3 << 30
# Seconds between two tries; of each process its own, so that they do not all try at the same moment
LOOK = 4.0 + os.getpid() % 100 / 50
LIMIT = 15 * 60.0  # seconds of waiting for one piece of work
ROOM = 0.5  # of what is free, to be taken where others may want some of it too


def ran_out(fault: BaseException | None) -> bool:
    """Whether memory is what an error is about, also where another one covers it (the end of a failed graph
    capture does)."""
    if fault is None:
        return False
    of_memory = isinstance(fault, torch.OutOfMemoryError) or LIBRARIES.search(str(fault))
    if of_memory or (OF_LIBRARIES.search(str(fault)) and _full()):
        return True
    return ran_out(fault.__context__)


def _full() -> bool:
    """Is less free on this process's GPU than a library may want?"""
    try:
        return torch.cuda.mem_get_info()[0] < SPARE // 2
    except RuntimeError:  # after a fault that is none of memory CUDA answers nothing more
        return False


def enter(device: torch.device) -> None:
    """Begin with CUDA on this GPU, which takes some memory of its own.

    On a card that others have filled even that has to be waited for; nobody can say then how much they hold.
    InputError where it does not come.
    """
    shortage = Shortage(device, "the GPU is full")
    while not _entered(device):
        if not shortage.wait_for("no room for CUDA itself"):
            raise InputError(f"{device}: other processes fill this GPU; CUDA_VISIBLE_DEVICES takes another")
    shortage.over("the GPU has room")


def _entered(device: torch.device) -> bool:
    try:
        torch.cuda.mem_get_info(device)
    except RuntimeError as fault:
        if not ran_out(fault):
            raise
        return False
    return True


def held_by_others(device: torch.device) -> int:
    """Bytes of this GPU that other processes hold; 0 without a GPU."""
    if device.type != "cuda":
        return 0
    free, total = torch.cuda.mem_get_info(device)
    return max(0, total - free - torch.cuda.memory_reserved(device) - OWN)


def ours(free: int, device: torch.device) -> int:
    """Of so many bytes that are free, how many may be taken: all, or a part where others may want some."""
    return max(0, int(ROOM * (free - SPARE))) if held_by_others(device) else free


class Shortage:
    """Waiting on behalf of one piece of work, which `what` names."""

    def __init__(self, device: torch.device, what: str) -> None:
        self.device, self.what = device, what
        self.began: float | None = None

    def wait(self) -> bool:
        """After running out of memory: True when it is worth another try, after a while; False where no other
        process is in the way, or the limit is reached."""
        others = held_by_others(self.device)
        if not others:
            return False
        return self.wait_for(
            f"does not fit while other processes hold {others / 1e9:.1f} GB of the GPU's memory"
        )

    def wait_for(self, why: str) -> bool:
        """For what others cause: said once; False where the limit is reached."""
        now = time.monotonic()
        if self.began is None:
            self.began = now
            say(f"{self.what}: {why}; trying again for up to {LIMIT / 60:.0f} minutes")
        if now - self.began >= LIMIT:
            return False
        torch.cuda.empty_cache()  # what is not used here may be what another one waits for
        time.sleep(LOOK)
        return True

    def over(self, said: str = "") -> None:
        """The work fitted: the next shortage is another one."""
        if self.began is not None:
            waited = time.monotonic() - self.began
            say(f"{said or f'{self.what}: fits'} after {waited:.0f} s of waiting")
        self.began = None


def patiently(work: Callable[[], Made], device: torch.device, what: str) -> Made:
    """What `work` makes, tried again while other processes are in the way. It must bear being begun again.

    Raises torch.OutOfMemoryError when it does not fit.
    """
    shortage = Shortage(device, what)
    while True:
        try:
            made = work()
        except RuntimeError as fault:
            if not ran_out(fault):
                raise
            said = str(fault)
        else:
            shortage.over()
            return made
        # Here the traceback, which holds the tensors of what failed, is gone
        if not shortage.wait():
            raise torch.OutOfMemoryError(said)


def make_room(size: int, device: torch.device, what: str) -> None:
    """Have PyTorch hold so many bytes for what this process allocates from here on.

    Waited for as `patiently` waits. What cannot be had then is not insisted on: `size` is an estimate.
    """
    if device.type != "cuda" or size > torch.cuda.mem_get_info(device)[1]:
        return

    def take() -> None:
        if held_by_others(device) and torch.cuda.mem_get_info(device)[0] < size + SPARE:
            raise torch.OutOfMemoryError(f"{what} would fill the GPU that it shares")
        torch.empty(size, dtype=torch.uint8, device=device)

    with contextlib.suppress(torch.OutOfMemoryError):
        patiently(take, device, what)
