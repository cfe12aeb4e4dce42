"""train.py in forks of one process that has imported the libraries: runs of a sweep begin in no time.

    python -m tests.served SOCKET

`STUB` stands in the place of train.py: it hands its flags over and waits for the exit code. A run whose stub
was killed is killed. While SOCKET.hold exists, every run waits after its second step, its process number in
RUN.pid beside its directory.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
import traceback
from pathlib import Path

STUB = """
import json, socket, sys

with socket.socket(socket.AF_UNIX) as server:
    server.connect({path!r})
    socket.send_fds(server, [json.dumps(sys.argv[1:]).encode()], [1, 2])
    sys.exit(int(server.recv(10) or 1))
"""


def die_with(stub: socket.socket) -> None:
    stub.recv(1)
    os._exit(1)


def hold(path: str) -> None:
    """Have runs wait while SOCKET.hold exists."""
    from hackward.runs.session import Session

    log, file = Session.log, Path(f"{path}.hold")

    def logged(session, step, *parts):
        row = log(session, step, *parts)
        if step == 1:
            session.run.path.with_suffix(".pid").write_text(str(os.getpid()))
            while file.exists():
                time.sleep(0.02)
        return row

    Session.log = logged  # type: ignore[method-assign]


def served(stub: socket.socket) -> None:
    """The run of a stub, in this process."""
    from hackward.base.faults import exit_on_fault
    from train import main

    said, outputs, _, _ = socket.recv_fds(stub, 1 << 16, 2)
    for number, output in enumerate(outputs, start=1):
        os.dup2(output, number)
    threading.Thread(target=die_with, args=(stub,), daemon=True).start()
    code = 0
    try:
        exit_on_fault(lambda: main(json.loads(said)))
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    stub.sendall(str(code).encode())


def serve(path: str) -> None:
    import torch
    import torch._dynamo  # the optimizer imports it when it is made

    from hackward.runs import building, screens  # noqa: F401
    from tests.conftest import models

    hold(path)
    torch.set_num_threads(1)
    models.tiny_random()  # transformers imports a family when it is first used
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        while True:
            stub, _ = server.accept()
            if not os.fork():
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                server.close()
                served(stub)
                sys.stdout.flush()
                os._exit(0)
            stub.close()


if __name__ == "__main__":
    serve(sys.argv[1])
