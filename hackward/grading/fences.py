"""What fences a worker and its children in: seccomp, Landlock, capabilities, resource limits.

Standard library only: the worker loads this file without any package.
"""

from __future__ import annotations

import ctypes
import os
import resource
import struct

SET_NO_NEW_PRIVS, SET_SECCOMP, SET_CHILD_SUBREAPER, SET_DUMPABLE, CAPBSET_DROP = 38, 22, 36, 4, 24
LANDLOCK_CREATE_RULESET, LANDLOCK_ADD_RULE, LANDLOCK_RESTRICT_SELF = (
    444,
    445,
    446,
)  # the same on every architecture
LANDLOCK_READ = 1 << 2 | 1 << 3  # read file, read directory
LANDLOCK_RIGHTS = {
    1: 13,
    2: 14,
    3: 15,
    4: 15,
    5: 16,
}  # ABI -> how many file system rights it knows (later ones: 16)
libc = ctypes.CDLL(None, use_errno=True)


class FilterProgram(ctypes.Structure):
    """struct sock_fprog"""

    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


def filter_program(code: bytes) -> FilterProgram:
    return FilterProgram(len(code) // 8, code)


def checked(result: int, what: str) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")
    return result


def install_filter(program: FilterProgram) -> None:
    checked(libc.prctl(SET_SECCOMP, 2, ctypes.byref(program), 0, 0), "seccomp")


def no_new_privileges() -> None:
    checked(libc.prctl(SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")


def landlock_abi() -> int:
    return max(0, libc.syscall(LANDLOCK_CREATE_RULESET, None, 0, 1))


def landlock(readable: list[str]) -> int:
    """Allow reading beneath the given paths and nothing else on the file system (TCP and scopes too where known).

    Returns the ABI that was used, 0 where the kernel has no Landlock.
    """
    abi = landlock_abi()
    if not abi:
        return 0
    rights = (1 << LANDLOCK_RIGHTS.get(abi, 16)) - 1
    attributes = struct.pack("<Q", rights)
    if abi >= 4:
        attributes += struct.pack("<Q", 3)  # TCP bind and connect
    if abi >= 6:
        attributes += struct.pack("<Q", 3)  # abstract unix sockets and signals to processes outside
    ruleset = checked(libc.syscall(LANDLOCK_CREATE_RULESET, attributes, len(attributes), 0), "landlock")
    for path in readable:
        try:
            handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue
        allowed = LANDLOCK_READ if os.path.isdir(path) else LANDLOCK_READ & ~(1 << 3)
        rule = struct.pack("<Qi", allowed & rights, handle)
        checked(libc.syscall(LANDLOCK_ADD_RULE, ruleset, 1, rule, 0), "landlock rule")
        os.close(handle)
    checked(libc.syscall(LANDLOCK_RESTRICT_SELF, ruleset, 0), "landlock")
    os.close(ruleset)
    return abi


def drop_capabilities() -> None:
    """Give up every capability (matters when the grader runs as root; nothing to give up otherwise)."""
    for capability in range(64):
        libc.prctl(CAPBSET_DROP, capability, 0, 0, 0)
    header = struct.pack("<Ii", 0x20080522, 0)
    libc.capset(header, bytes(24))


def set_limits(limits: dict, cpu_seconds: int, fork_denied: bool) -> None:
    """Resource limits of the child. The CPU limit decides verdicts; a child's CPU time starts at zero with its fork."""
    for name, value in (
        ("RLIMIT_CPU", cpu_seconds),
        ("RLIMIT_AS", limits["memory_mb"] << 20),
        ("RLIMIT_FSIZE", 0),
        ("RLIMIT_CORE", 0),
        ("RLIMIT_NOFILE", 64),
        ("RLIMIT_MSGQUEUE", 0),
        ("RLIMIT_MEMLOCK", 0),
    ):
        if hasattr(resource, name):
            resource.setrlimit(getattr(resource, name), (value, value))
    if not fork_denied:  # a backstop only: it counts all processes of the user, and does not bind root
        resource.setrlimit(resource.RLIMIT_NPROC, (limits["process_ceiling"],) * 2)
