"""Faults planted on purpose: does a test see each of them?

    python tests/mutants.py                 all mutants; a line each, and the table at the end
    python tests/mutants.py kl clip --jobs 2     those whose name holds one of the words

Every mutant of mutants.toml is one change of a formula or of the wiring. It is made in a copy of the project,
the tests that should see it are run there, and it counts as killed when they fail. A change whose old text is
not found exactly once is a fault of the list and ends the command. Not a part of the test suite: it takes
minutes per dozen.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

ROOT = Path(__file__).resolve().parent.parent
COPIED = ("hackward", "tests", "data", "spec", "pyproject.toml", "README.md", "run.sh")


@dataclass(frozen=True)
class Mutant:
    """One planted fault."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


def listed() -> list[Mutant]:
    """The mutants of mutants.toml, in its order."""
    with open(ROOT / "tests" / "mutants.toml", "rb") as file:
        found = tomllib.load(file)["mutant"]
    return [Mutant(**{**m, "tests": tuple(f"tests/{test}" for test in m["tests"])}) for m in found]


def plant(mutant: Mutant, home: Path) -> None:
    """A copy of the project in `home` with this one change. Raises ValueError where the old text is not there
    once."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, home / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, home / name)
    for script in ROOT.glob("*.py"):
        shutil.copy(script, home / script.name)
    file = home / mutant.file
    text = file.read_text()
    if text.count(mutant.old) != 1:
        raise ValueError(f"{mutant.name}: the old text is {text.count(mutant.old)} times in {mutant.file}")
    file.write_text(text.replace(mutant.old, mutant.new))


def killed(mutant: Mutant) -> tuple[bool, float]:
    """Do its tests fail, and after how many seconds?"""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        plant(mutant, home)
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *mutant.tests]
        done = subprocess.run(command, cwd=home, capture_output=True, text=True)
        if done.returncode not in (0, 1):
            raise ValueError(f"{mutant.name}: pytest ended with {done.returncode}: {done.stdout[-800:]}")
    return done.returncode == 1, time.monotonic() - started


@dataclass
class Flags:
    """Plant each mutant in a copy, run its tests, print killed or survived."""

    words: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Only mutants whose name or file holds one of these."""
    jobs: int = 1
    """Mutants at a time."""


def main(flags: Flags) -> int:
    chosen = [m for m in listed() if not flags.words or any(w in f"{m.name} {m.file}" for w in flags.words)]
    survived = []
    with ThreadPoolExecutor(flags.jobs) as pool:
        for mutant, (dead, seconds) in zip(chosen, pool.map(killed, chosen)):
            print(
                f"{'killed' if dead else 'SURVIVED':<9} {seconds:5.1f} s  {mutant.name}  ({mutant.file})",
                flush=True,
            )
            if not dead:
                survived.append(mutant.name)
    dead = len(chosen) - len(survived)
    print(f"\n{dead} of {len(chosen)} killed ({dead / max(1, len(chosen)):.0%})")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Flags, description=__doc__)))
