"""What fences a worker and its children in: seccomp, Landlock, capabilities, resource limits.

Standard library only: the worker loads this file without any package. What the filters and the readable paths
are is decided in sandbox.py; here they are applied.
"""

from __future__ import annotations

import ctypes
import math
import os
import resource
import signal
import struct
from typing import Any

# prctl(2)
SET_PDEATHSIG = 1
SET_DUMPABLE = 4
SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
CAPBSET_DROP = 24
SET_CHILD_SUBREAPER = 36
SET_NO_NEW_PRIVS = 38
# landlock(7): system calls, the same on every architecture
LANDLOCK_CREATE_RULESET, LANDLOCK_ADD_RULE, LANDLOCK_RESTRICT_SELF = 444, 445, 446
LANDLOCK_VERSION, LANDLOCK_PATH_BENEATH = 1, 1
LANDLOCK_READ_FILE, LANDLOCK_READ_DIR = 1 << 2, 1 << 3
LANDLOCK_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}  # by ABI, how many rights on files it knows (later: 16)
LANDLOCK_TCP = 3  # bind and connect
LANDLOCK_SCOPES = 3  # abstract unix sockets, and signals to processes outside
# capabilities(7), capset(2)
CAPABILITIES = 64
CAP_SYS_ADMIN = 21
CAPABILITY_VERSION_3 = 0x20080522

libc = ctypes.CDLL(None, use_errno=True)


class FilterProgram(ctypes.Structure):
    """struct sock_fprog: a compiled seccomp filter."""

    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


def filter_program(code: bytes) -> FilterProgram:
    """A filter from its instructions, 8 bytes each."""
    return FilterProgram(len(code) // 8, code)


def succeeded(result: int, what: str) -> int:
    """The result of a call into libc. OSError if it says that it failed."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def install_filter(program: FilterProgram) -> None:
    """Apply a seccomp filter to this process and its children; it cannot be taken off again."""
    result = libc.prctl(SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0)
    succeeded(result, "seccomp")


def no_new_privileges() -> None:
    """No program that is started from here gains rights by its file; seccomp and Landlock require it."""
    succeeded(libc.prctl(SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")


def landlock_abi() -> int:
    """The version of Landlock that the kernel has, 0 for none."""
    return max(0, libc.syscall(LANDLOCK_CREATE_RULESET, None, 0, LANDLOCK_VERSION))


def landlock(readable: list[str]) -> int:
    """Allow reading beneath the given paths and nothing else on the file system (TCP and scopes too where
    known).

    Returns the ABI that was used, 0 where the kernel has no Landlock.
    """
    abi = landlock_abi()
    if not abi:
        return 0
    rights = (1 << LANDLOCK_RIGHTS.get(abi, 16)) - 1
    attributes = struct.pack("<Q", rights)
    if abi >= 4:
        attributes += struct.pack("<Q", LANDLOCK_TCP)
    if abi >= 6:
        attributes += struct.pack("<Q", LANDLOCK_SCOPES)
    ruleset = succeeded(libc.syscall(LANDLOCK_CREATE_RULESET, attributes, len(attributes), 0), "landlock")
    for path in readable:
        _allow_reading(path, ruleset)
    succeeded(libc.syscall(LANDLOCK_RESTRICT_SELF, ruleset, 0), "landlock")
    os.close(ruleset)
    return abi


def _allow_reading(path: str, ruleset: int) -> None:
    try:
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    allowed = LANDLOCK_READ_FILE
    if os.path.isdir(path):
        allowed |= LANDLOCK_READ_DIR
    rule = struct.pack("<Qi", allowed, handle)
    result = libc.syscall(LANDLOCK_ADD_RULE, ruleset, LANDLOCK_PATH_BENEATH, rule, 0)
    succeeded(result, "landlock rule")
    os.close(handle)


def keep_capabilities(kept: tuple[int, ...] = ()) -> None:
    """Give up every capability but these, for good."""
    for capability in range(CAPABILITIES):
        libc.prctl(CAPBSET_DROP, capability, 0, 0, 0)
    set_capabilities(kept)


def set_capabilities(kept: tuple[int, ...] = ()) -> None:
    """Hold these capabilities and no others. OSError where one of them is not to be had."""
    bits = sum(1 << capability for capability in kept)
    low, high = bits & 0xFFFFFFFF, bits >> 32
    header = struct.pack("<Ii", CAPABILITY_VERSION_3, 0)
    # Effective, permitted, inheritable: of the capabilities below 32, then of those above
    held = struct.pack("<6I", low, low, 0, high, high, 0)
    succeeded(libc.capset(header, held), "capset")


def die_with_parent() -> None:
    """Be killed when the thread that started this process ends."""
    succeeded(libc.prctl(SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "parent death signal")


def set_limits(limits: dict[str, Any], fork_denied: bool) -> None:
    """Resource limits of the child. The CPU limit decides verdicts; CPU time starts at zero with the fork."""
    bounds = {
        "RLIMIT_CPU": math.ceil(limits["wall_ceiling_seconds"]),
        "RLIMIT_AS": limits["memory_mb"] << 20,
        "RLIMIT_FSIZE": 0,
        "RLIMIT_CORE": 0,
        "RLIMIT_NOFILE": 64,
        "RLIMIT_MSGQUEUE": 0,
        "RLIMIT_MEMLOCK": 0,
    }
    if not fork_denied:  # a backstop only: it counts all processes of the user, and does not bind root
        bounds["RLIMIT_NPROC"] = limits["process_ceiling"]
    for name, bound in bounds.items():
        if hasattr(resource, name):
            resource.setrlimit(getattr(resource, name), (bound, bound))
