"""Messages between the grader and a worker: a 4-byte length and JSON, with at most one descriptor.

Standard library only: the worker loads this file without any package.
"""

from __future__ import annotations

import array
import json
import socket
import struct
from typing import Any

LENGTH = struct.Struct("<I")


def framed(body: bytes) -> bytes:
    """`body` with its length in front."""
    return LENGTH.pack(len(body)) + body


def send_message(control: socket.socket, message: dict[str, Any], descriptor: int | None = None) -> None:
    """Send a message, and a descriptor with it. OSError when the other side is gone."""
    data = framed(json.dumps(message).encode())
    if descriptor is None:
        control.sendall(data)
    else:
        sent = socket.send_fds(control, [data], [descriptor])
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


def receive_message(control: socket.socket, limit: int = 1 << 30) -> tuple[Any, int | None]:
    """The next message, and the descriptor that came with it. EOFError if it has more than `limit` bytes."""
    head, ancillary, _, _ = control.recvmsg(LENGTH.size, socket.CMSG_SPACE(4))
    if not head:
        raise EOFError
    passed = None
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            passed = array.array("i", data[:4])[0]
    head += receive_exactly(control, LENGTH.size - len(head))
    (size,) = LENGTH.unpack(head)
    if size > limit:
        raise EOFError(f"a message of {size} bytes")
    return json.loads(receive_exactly(control, size)), passed
