"""The rooms that the commands at the top are made of.

A command that is started without the environment ends here, in one line that says how to get it, and not in
a traceback about the first library that it happens to import. So does one that is started without docstrings:
the help of flags is made of them. Nothing but the standard library in here.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

CLONE = Path(__file__).resolve().parents[1]
NEEDED = ("torch", "transformers", "tyro", "pydantic", "rich", "safetensors", "numpy", "scipy", "matplotlib")


def lacking(names: tuple[str, ...] = NEEDED) -> list[str]:
    """Those of these libraries that this interpreter does not find; none of them is imported."""
    return [name for name in names if importlib.util.find_spec(name) is None]


def require_environment() -> None:
    """End a command of this clone, with exit code 2, where docstrings or a library that all of it rests on is
    lacking."""
    program = getattr(sys.modules["__main__"], "__file__", None)
    if program is None or Path(program).resolve().parent != CLONE:
        return
    if sys.flags.optimize > 1:
        fault = "-OO (PYTHONOPTIMIZE=2) takes the help of all flags away: leave it out; -O is taken"
        print(f"{Path(program).name}: {fault}", file=sys.stderr)
        raise SystemExit(2)
    missing = lacking()
    if not missing:
        return
    way = "run `source .venv/bin/activate` first"
    if not (CLONE / ".venv" / "ready").is_file():
        way = "`./run.sh setup` makes .venv with all that is needed, then `source .venv/bin/activate`"
    named = ", ".join(missing[:3]) + (" and more" if len(missing) > 3 else "")
    print(f"{Path(program).name}: {sys.executable} lacks {named}: {way}", file=sys.stderr)
    raise SystemExit(2)


require_environment()
