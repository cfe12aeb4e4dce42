"""Messages between the grader and a worker: a 4-byte length and JSON, with a few descriptors.

Standard library only: the worker loads this file without any package.
"""

from __future__ import annotations

import ctypes
import json
import socket
import struct
from typing import Any

LENGTH = struct.Struct("<I")
DESCRIPTORS = 2  # most that come with a message
TASK = struct.Struct("<BBI")  # in front of the code: is it a probe; look whether its label may vary; salt


def framed(body: bytes) -> bytes:
    """`body` with its length in front."""
    return LENGTH.pack(len(body)) + body


def send_message(control: socket.socket, message: dict[str, Any], *descriptors: int) -> None:
    """Send a message, and descriptors with it. OSError when the other side is gone."""
    data = framed(json.dumps(message).encode())
    if not descriptors:
        control.sendall(data)
    else:
        sent = socket.send_fds(control, [data], descriptors)
        control.sendall(data[sent:])


def receive_exactly(sock: socket.socket, size: int) -> bytes:
    """`size` bytes, or EOFError when the other side is gone."""
    parts = []
    while size:
        part = sock.recv(min(size, 1 << 20))
        if not part:
            raise EOFError
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def receive_framed(sock: socket.socket) -> bytes:
    """What stands behind a length."""
    (size,) = LENGTH.unpack(receive_exactly(sock, LENGTH.size))
    return receive_exactly(sock, size)


def receive_message(control: socket.socket, limit: int = 1 << 30) -> tuple[Any, list[int]]:
    """The next message, and the descriptors that came with it. EOFError if it has more than `limit` bytes."""
    head, descriptors, _, _ = socket.recv_fds(control, LENGTH.size, DESCRIPTORS)
    if not head:
        raise EOFError
    head += receive_exactly(control, LENGTH.size - len(head))
    (size,) = LENGTH.unpack(head)
    if size > limit:
        raise EOFError(f"a message of {size} bytes")
    return json.loads(receive_exactly(control, size)), descriptors


class Ending(ctypes.Structure):
    """How a run ended: the one message whose content a run has a hand in.

    It has a fixed size, and the system calls that fill it and send it work on it in place, so that the worker
    can wipe it: nothing that one run does stays in the memory that the next one inherits.
    """

    _fields_ = [
        ("how", ctypes.c_int),
        ("status", ctypes.c_int),  # as wait4(2) gives it; an error number where there was no fork
        ("survivors", ctypes.c_int),
        ("usage", ctypes.c_long * 18),  # struct rusage: seconds and microseconds of user, then of system time
    ]

    @property
    def cpu_seconds(self) -> float:
        """User and system time."""
        return self.usage[0] + self.usage[2] + (self.usage[1] + self.usage[3]) / 1e6


ENDED, NO_FORK, NO_SETUP = range(3)  # Ending.how: by itself or killed; fork failed; the set-up code failed
