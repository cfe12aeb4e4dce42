"""What the user gave cannot be used: one line that names the file and the fault, exit code 2, never a
traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from safetensors import SafetensorError


class InputError(Exception):
    """What the user gave cannot be used. The message is one line: the file, then the fault."""


def exit_on_fault(command: Callable[[], Any]) -> None:
    """Run a command's main function: bad input, a full disk or an interrupt end it with one line, never a
    traceback."""
    try:
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
    except KeyboardInterrupt:
        print("interrupted; what was finished is on disk", file=sys.stderr)
        raise SystemExit(130) from None
