"""What the user gave cannot be used: one line that names the file and the fault, exit code 2, never a
traceback."""

from __future__ import annotations

import contextlib
import io
import os
import select
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from safetensors import SafetensorError

from hackward.base.lines import filled, visible

START = ("TORCHELASTIC_RUN_ID", "MASTER_PORT", "TORCHELASTIC_RESTART_COUNT")  # name one start by torchrun
PRECEDENCE = 2.0  # seconds by which rank 0 comes first, where all ranks fail alike

CPU_SHORTAGE = "DefaultCPUAllocator"  # torch's; it raises a plain RuntimeError
NO_MEMORY = (
    "this machine's memory (or `ulimit -v`) does not hold what is asked for: a smaller --sample-rows or"
    " --micro-tokens takes less"
)


CIRCLE = "Symlink loop"  # pathlib's, of links that lead to one another; up to Python 3.12 a RuntimeError
NO_ROOM = "failed to map segment"  # the loader's, of a library that an import needs; it covers other errors
LIBRARIES = (
    "this machine's memory (or `ulimit -v`) does not hold the libraries that compute: raise `ulimit -v`, or"
    " take it off (`ulimit -v unlimited`)"
)


class InputError(Exception):
    """What the user gave cannot be used. The message is one line: the file, then the fault."""


class Terminated(KeyboardInterrupt):
    """SIGTERM, as schedulers send it: another interrupt, with an exit code of its own."""

    code = 128 + signal.SIGTERM


class HungUp(KeyboardInterrupt):
    """SIGHUP: the terminal was closed."""

    code = 128 + signal.SIGHUP


class Unread(BrokenPipeError):
    """The reader of what is printed has gone, as of `| head`."""

    code = 128 + signal.SIGPIPE


ENDS = {signal.SIGTERM: Terminated, signal.SIGHUP: HungUp}


def _end(number: int, frame: FrameType | None) -> None:
    for each in ENDS:
        signal.signal(each, signal.SIG_IGN)  # one is enough: the end that it asks for is under way
    raise ENDS[signal.Signals(number)]


@contextlib.contextmanager
def _handled(numbers: Iterable[int], handler: Any) -> Iterator[None]:
    """These signals are handled so inside, and as before behind it. In the main thread, the only one that may
    say so; elsewhere nothing is changed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in numbers}
    for number in before:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def ended_by(handler: Any) -> contextlib.AbstractContextManager[None]:
    """SIGTERM and SIGHUP are handled so inside. Not where they are ignored (nohup)."""
    heard = [number for number in ENDS if signal.getsignal(number) is not signal.SIG_IGN]
    return _handled(heard, handler)


def uninterrupted() -> contextlib.AbstractContextManager[None]:
    """Ctrl-C, SIGTERM and SIGHUP do nothing meanwhile: for the moment in which the last state is written."""
    return _handled((signal.SIGINT, *ENDS), signal.SIG_IGN)


def _speaks(fault: BaseException) -> bool:
    """Whether this process says what ends it. Under torchrun one does, so that a host says one line and not
    one a rank: of an interrupt rank 0, of anything else the first that fails, rank 0 before others."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return True
    first = os.environ.get("RANK") == "0"
    if isinstance(fault, KeyboardInterrupt):
        return first
    if not first:
        time.sleep(PRECEDENCE)
    start = [os.environ.get(name, "0") for name in START]
    try:
        Path(tempfile.gettempdir(), "-".join(["hackward-fault", *start])).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _say(line: str, fault: BaseException) -> None:
    """One line; on a terminal as many as its width asks for. It may quote what others wrote."""
    if not _speaks(fault):
        return
    line = visible(line)
    if sys.stderr.isatty():
        line = filled(line, shutil.get_terminal_size().columns)
    print(line, file=sys.stderr)


def _open_streams() -> None:
    """Standard output and error take all that is printed: a closed one (`>&-`) loses it, and what the
    encoding of the terminal lacks becomes an escape."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is None:
            # The number too: a file that is opened later must not get it
            _to_nowhere(number)
            setattr(sys, name, os.fdopen(number, "w", encoding="utf-8", errors="backslashreplace"))
        elif isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def _to_nowhere(number: int) -> None:
    """What is written to this file descriptor is lost."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    if nowhere != number:
        os.dup2(nowhere, number)
        os.close(nowhere)


def readers_gone() -> bool:
    """Has the reader of standard output or error gone (`| head`)? What is written there from here on is
    lost."""
    gone = []
    for number in (1, 2):
        poll = select.poll()
        poll.register(number, 0)
        if any(events & select.POLLERR for _, events in poll.poll(0)):
            gone.append(number)
    for number in gone:
        _to_nowhere(number)
    return bool(gone)


def _flushed(command: Callable[[], Any]) -> None:
    """Run it, and write out what it printed: at the end of the process a fault would have no words."""
    try:
        command()
    finally:
        sys.stdout.flush()


def exit_on_fault(command: Callable[[], Any]) -> None:
    """Run a command's main function: bad input, a full disk or an interrupt end it with one line, never a
    traceback. Where nobody reads its output any more it ends without a word, as other commands do."""
    _open_streams()
    try:
        # As Ctrl-C does: files are closed, processes ended, locks given free
        with ended_by(_end):
            _flushed(command)
    except InputError as fault:
        _say(f"error: {' '.join(str(fault).split())}", fault)
        raise SystemExit(2) from None
    except (MemoryError, RuntimeError, ImportError) as fault:
        if isinstance(fault, MemoryError) or CPU_SHORTAGE in str(fault):
            what = NO_MEMORY
        elif isinstance(fault, ImportError) and NO_ROOM in str(fault):
            what = LIBRARIES
        elif str(fault).startswith(CIRCLE):
            what = str(fault)
        elif type(fault).__name__ == "OutOfMemoryError":  # torch's; this file does without torch
            said = " ".join(str(fault).split(".")[0].split())
            what = f"{said}: a smaller --micro-tokens or --sample-rows takes less"
        else:
            raise
        _say(f"error: {what}", fault)
        raise SystemExit(2) from None
    except SafetensorError as fault:  # what that library makes of a full disk
        _say(f"error: a tensor file could not be written or read ({fault})", fault)
        raise SystemExit(2) from None
    except Unread:
        raise SystemExit(Unread.code) from None
    except OSError as fault:
        if isinstance(fault, BrokenPipeError) and readers_gone():
            raise SystemExit(Unread.code) from None
        if fault.filename is None and fault.errno is None:
            raise
        where = f"{fault.filename}: " if fault.filename else ""
        _say(f"error: {where}{fault.strerror or fault}", fault)
        raise SystemExit(2) from None
    except KeyboardInterrupt as stop:
        _say(str(stop) or "interrupted; what was finished is on disk", stop)
        raise SystemExit(getattr(stop, "code", 128 + signal.SIGINT)) from None
