"""Which of the libraries that take long to load a command has loaded when it ends."""

from __future__ import annotations

import subprocess
import sys

from hackward.base.files import ROOT

HEAVY = ("numpy", "scipy", "torch", "transformers", "pandas", "matplotlib", "jinja2", "rich.live")
PROGRAM = f"""
import runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as end:
    print(end.code or 0, *sorted(set({HEAVY}) & set(sys.modules)))
"""


def loaded(command: str, *flags: str) -> tuple[int, list[str]]:
    """(exit code, those of HEAVY) of `python COMMAND FLAGS`."""
    program = [sys.executable, "-c", PROGRAM, command, *flags]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True)
    code, *found = done.stdout.splitlines()[-1].split()
    return int(code), found
