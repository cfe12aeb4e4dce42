"""Work in a process of its own: what it leaves in memory, what kills it or hangs stays there."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection


def alone(work: Callable[..., dict], *arguments: object, seconds: float) -> dict:
    """What the work returns, by way of JSON, or {"error": why}: its fault, its death, or the time it took.

    The process is a fresh one, so nothing is warm in it; what it prints goes to standard error.
    """
    fresh = multiprocessing.get_context("spawn")
    here, there = fresh.Pipe(duplex=False)
    process = fresh.Process(target=_answer, args=(there, work, arguments))
    process.start()
    there.close()
    try:
        if not here.poll(seconds):
            return {"error": f"given up after {seconds:g} s"}
        return json.loads(here.recv_bytes())
    except EOFError:
        process.join()
        return {"error": f"its process ended with exit code {process.exitcode}"}
    finally:
        process.kill()
        process.join()


def _answer(there: Connection, work: Callable[..., dict], arguments: tuple) -> None:
    """Of the fresh process: do it, and send what came of it."""
    with contextlib.redirect_stdout(sys.stderr):
        found = unless_it_fails(work, *arguments)
    there.send_bytes(json.dumps(found).encode())


def unless_it_fails(work: Callable[..., dict], *arguments: object) -> dict:
    """What the work returns, or {"error": why} with whatever fault of somebody else's code it ended with."""
    try:
        return work(*arguments)
    except Exception as fault:
        traceback.print_exc()
        said = str(fault).strip().splitlines() or ["without a word"]
        return {"error": f"{type(fault).__name__}: {said[0]}"}
