"""Work in a process of its own: what it leaves in memory, what kills it or hangs stays there."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import sys
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection

from hackward.base.screen import Bar

WHY = 80  # columns of a table's cell that says why there are no figures

_parent: Connection | None = None  # of such a process alone: where it tells what it is at


def tell(at: str, found: dict | None = None) -> None:
    """Of work in a process of its own: what it is at, and what it has found where that would do as an answer.

    In any other process nobody listens.
    """
    if _parent is not None:
        _send(_parent, {"at": at, "found": found})


def _send(there: Connection, said: dict) -> None:
    there.send_bytes(json.dumps(said).encode())


def alone(
    work: Callable[..., dict],
    *arguments: object,
    seconds: float,
    hear: Callable[[str], object] = lambda at: None,
) -> dict:
    """What the work returns, by way of JSON, or {"error": why}: its fault, its death, or the time it took.

    The process is a fresh one, so nothing is warm in it; what it prints goes to standard error. `hear` is
    called with everything that it is at. Where its time is up, the answer is what it had found by then, with
    "cut": why; where that would not do, the error says what it was at.
    """
    fresh = multiprocessing.get_context("spawn")
    here, there = fresh.Pipe(duplex=False)
    process = fresh.Process(target=_answer, args=(there, work, arguments))
    process.start()
    there.close()
    ends = time.monotonic() + seconds
    at, found = "starting its process", None
    try:
        while here.poll(max(0.0, ends - time.monotonic())):
            said = json.loads(here.recv_bytes())
            if "answer" in said:
                return said["answer"]
            at, found = said["at"], said["found"] or found
            hear(at)
        why = f"given up after {seconds:g} s, in: {at}"
        return found | {"cut": why} if found else {"error": why}
    except EOFError:
        process.join()
        return {"error": f"its process ended with exit code {process.exitcode}, in: {at}"}
    finally:
        process.kill()
        process.join()


def noted(bar: Bar, name: str) -> Callable[[str], None]:
    """Notes below the bar the work with this name, and from then on what it is at."""

    def note(at: str) -> None:
        bar.say(f"{name}: {at}")

    bar.say(name)
    return note


def _answer(there: Connection, work: Callable[..., dict], arguments: tuple) -> None:
    """Of the fresh process: do it, and send what came of it."""
    global _parent
    _parent = there
    tell("its work")
    with contextlib.redirect_stdout(sys.stderr):
        found = unless_it_fails(work, *arguments)
    _send(there, {"answer": found})


def unless_it_fails(work: Callable[..., dict], *arguments: object) -> dict:
    """What the work returns, or {"error": why} with whatever fault of somebody else's code it ended with."""
    try:
        return work(*arguments)
    except Exception as fault:
        traceback.print_exc()
        said = str(fault).strip().splitlines() or ["without a word"]
        return {"error": f"{type(fault).__name__}: {said[0]}"}
