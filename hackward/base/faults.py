"""What the user gave cannot be used: one line that names the file and the fault, exit code 2, never a
traceback."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from safetensors import SafetensorError


class InputError(Exception):
    """What the user gave cannot be used. The message is one line: the file, then the fault."""


class Terminated(KeyboardInterrupt):
    """SIGTERM, as schedulers send it: another interrupt, with an exit code of its own."""

    code = 128 + signal.SIGTERM


class HungUp(KeyboardInterrupt):
    """SIGHUP: the terminal was closed."""

    code = 128 + signal.SIGHUP


ENDS = {signal.SIGTERM: Terminated, signal.SIGHUP: HungUp}


def _end(number: int, frame: FrameType | None) -> None:
    for each in ENDS:
        signal.signal(each, signal.SIG_IGN)  # one is enough: the end that it asks for is under way
    raise ENDS[signal.Signals(number)]


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM and SIGHUP end what is inside as Ctrl-C does: files are closed, processes ended, locks given
    free. Not where they are ignored (nohup)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in ENDS}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, _end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C, SIGTERM and SIGHUP do nothing meanwhile: for the moment in which the last state is written."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, *ENDS)}
    for number in before:
        signal.signal(number, signal.SIG_IGN)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def exit_on_fault(command: Callable[[], Any]) -> None:
    """Run a command's main function: bad input, a full disk or an interrupt end it with one line, never a
    traceback."""
    try:
        with _terminable():
            command()
    except InputError as fault:
        print(f"error: {' '.join(str(fault).split())}", file=sys.stderr)
        raise SystemExit(2) from None
    except RuntimeError as fault:
        if type(fault).__name__ != "OutOfMemoryError":  # torch's; this file does without torch
            raise
        what = " ".join(str(fault).split(".")[0].split())
        print(f"error: {what}: a smaller --micro-tokens or --sample-rows takes less", file=sys.stderr)
        raise SystemExit(2) from None
    except SafetensorError as fault:  # what that library makes of a full disk
        print(f"error: a tensor file could not be written or read ({fault})", file=sys.stderr)
        raise SystemExit(2) from None
    except OSError as fault:
        if fault.filename is None and fault.errno is None:
            raise
        where = f"{fault.filename}: " if fault.filename else ""
        print(f"error: {where}{fault.strerror or fault}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt as stop:
        print(str(stop) or "interrupted; what was finished is on disk", file=sys.stderr)
        raise SystemExit(getattr(stop, "code", 128 + signal.SIGINT)) from None
