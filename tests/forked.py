"""Command lines in forks of a process that has imported the libraries: half a second each instead of five."""

from __future__ import annotations

import os
import runpy
import signal
import sys
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import analyze  # noqa: E402, F401
import evaluate  # noqa: E402, F401
import extract_vhack  # noqa: E402, F401
import train  # noqa: E402, F401
from hackward.runs import building  # noqa: E402, F401

SECONDS = 600  # a command that takes longer hangs, and is killed


def start(argv: list[str], said: Path) -> int:
    """Begin `python ARGV` in a session of its own, its stderr in `said`; its process number."""
    child = os.fork()
    if not child:
        os._exit(_command(argv, said))
    return child


def wait(child: int) -> int:
    """The exit code, negative after a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def run(argv: list[str], said: Path) -> tuple[int, str]:
    """(exit code, what was said on stderr) of `python ARGV`."""
    code = wait(start(argv, said))
    return code, said.read_text(encoding="utf-8", errors="replace")


def _command(argv: list[str], said: Path) -> int:
    """Run it in this process; its exit code."""
    os.setsid()
    signal.alarm(SECONDS)
    with open(said, "w") as stderr, open(os.devnull, "w") as stdout:
        os.dup2(stderr.fileno(), 2)
        os.dup2(stdout.fileno(), 1)
    sys.argv = argv
    code = 0
    try:
        runpy.run_path(str(ROOT / argv[0]), run_name="__main__")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code
