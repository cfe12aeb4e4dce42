"""Messages between the grader and a worker: a 4-byte length and JSON, with at most one descriptor.

Standard library only: the worker loads this file without any package.
"""

from __future__ import annotations

import array
import json
import socket
import struct


def send_message(control: socket.socket, message: dict) -> None:
    body = json.dumps(message).encode()
    control.sendall(struct.pack("<I", len(body)) + body)


def receive_exactly(sock: socket.socket, size: int) -> bytes:
    """``size`` bytes, or EOFError when the other side is gone."""
    parts = []
    while size:
        part = sock.recv(min(size, 1 << 20))
        if not part:
            raise EOFError
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def receive_message(control: socket.socket, limit: int = 1 << 30) -> tuple[dict, int | None]:
    """The next control message and the descriptor that came with it, if one did. EOFError if it is over ``limit``."""
    head, ancillary, _, _ = control.recvmsg(4, socket.CMSG_SPACE(4))
    if not head:
        raise EOFError
    passed = None
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            passed = array.array("i", data[:4])[0]
    head += receive_exactly(control, 4 - len(head)) if len(head) < 4 else b""
    size = struct.unpack("<I", head)[0]
    if size > limit:
        raise EOFError(f"a message of {size} bytes")
    return json.loads(receive_exactly(control, size)), passed
