"""Section sharing: a step of several runs on one GPU, which takes turns or computes for all at once (MPS).

Each run is a process of its own, `bench.py --sections=step`, with the cores that it would have in a sweep.
What counts is what the GPU makes in all: steps per hour = runs x 3600 / median seconds of a step.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from typing import IO

from rich.console import Group

from hackward.base.faults import InputError
from hackward.base.files import ROOT, read_json
from hackward.base.screen import progress, say
from hackward.benchmarks.parts import Bench, table
from hackward.benchmarks.scaling import LIMIT, PARTS, medians_of, reason_in
from hackward.hardware.cores import share_of_cores, threads_at_once
from hackward.hardware.mps import at_the_same_time, in_turns

# Flags that every run gets as they are
PASSED_ON = ("shape", "dtype", "device", "steps", "problems", "step_prompts", "step_group", "step_tokens")
GRACE = 30  # seconds that runs have to end when they are asked to
Around = Callable[[], AbstractContextManager[dict[str, str]]]  # the environment of runs that share a GPU


def measure_sharing(b: Bench) -> dict:
    """One run alone, then --per-gpu of them in turns, then as many through MPS; what failed has an "error".

    Without a GPU there is no MPS to try.
    """
    ways: dict[str, tuple[int, Around]] = {"alone": (1, in_turns), "in turns": (b.config.per_gpu, in_turns)}
    if b.on_gpu:
        ways["at the same time"] = (b.config.per_gpu, at_the_same_time)
    found = {}
    with progress("ways to share", len(ways)) as bar:
        for way, (count, around) in ways.items():
            found[way] = one = shared(b, count, around)
            # Each way takes minutes, most of them set-up
            say(way, one.get("error") or f"{one['steps_per_hour']:.0f} steps per hour")
            bar()
    return {"ways": found}


def shared(b: Bench, count: int, around: Around) -> dict:
    """So many runs at once: steps per hour of all, and medians over all steps but the first of each run."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        outs = [directory / f"{run}.json" for run in range(count)]
        try:
            environment = stack.enter_context(around())
            threads = threads_at_once(count, on_gpu=b.on_gpu)
            said = ended([command(b, out, count) for out in outs], environment | threads)
        except (InputError, TimeoutError) as fault:
            return {"error": str(fault)}
        runs = [steps_in(out, text) for out, text in zip(outs, said, strict=True)]
    for run in runs:
        if "error" in run:
            return run
    steps = [run["steps"] for run in runs]
    middle = medians_of([step for run in steps for step in run[1:] or run])
    return {"runs": count, "steps_per_hour": count * 3600 / middle["step"], **middle, "steps": steps}


def steps_in(out: Path, said: str) -> dict:
    """What the section step of a run found, or {"error": why}; `said` is what the run said."""
    if not out.exists():
        return {"error": reason_in(said)}
    return read_json(out).get("step", {"error": reason_in(said)})


def command(b: Bench, out: Path, count: int) -> list[str]:
    """Of one of `count` runs, which writes its steps to `out`."""
    flags = {name: getattr(b.config, name) for name in PASSED_ON}
    flags["workers"] = b.config.workers or share_of_cores(count)
    given = [f"--{name.replace('_', '-')}={value}" for name, value in flags.items() if value is not None]
    return [sys.executable, str(ROOT / "bench.py"), "--sections=step", f"--out={out}", *given]


def ended(commands: list[list[str]], environment: dict[str, str]) -> list[str]:
    """Run them all at once; what each said. TimeoutError after LIMIT seconds."""
    with ExitStack() as stack:
        # Files and not pipes: nobody reads while they run, and a full pipe would hold a run up
        logs = [stack.enter_context(tempfile.TemporaryFile("w+", errors="replace")) for _ in commands]
        runs: list[subprocess.Popen] = []
        try:
            for words, log in zip(commands, logs, strict=True):
                surroundings = os.environ | environment
                runs.append(subprocess.Popen(words, env=surroundings, stdout=log, stderr=log))
            ends = time.monotonic() + LIMIT
            for run in runs:
                run.wait(ends - time.monotonic())
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"took more than {LIMIT} s") from None
        finally:
            end(runs)
        return [_whole(log) for log in logs]


def end(runs: list[subprocess.Popen]) -> None:
    """Ask them to end, so that they remove their files, and kill what has not ended after GRACE seconds."""
    for run in runs:
        run.terminate()
    ends = time.monotonic() + GRACE
    try:
        for run in runs:
            with suppress(subprocess.TimeoutExpired):
                run.wait(max(0.0, ends - time.monotonic()))
    finally:
        for run in runs:
            run.kill()
            run.wait()


def _whole(log: IO[str]) -> str:
    log.seek(0)
    return log.read()


def show_sharing(found: dict) -> tuple[Group, str]:
    """The table and the caption below it."""
    ways = found["ways"]
    alone = ways["alone"].get("steps_per_hour")
    rows = []
    for way, one in ways.items():
        if "error" in one:
            rows.append((way, "", one["error"], *[""] * (len(PARTS) + 2)))
            continue
        more = "-" if alone is None else f"{one['steps_per_hour'] / alone:.2f}"
        seconds = (f"{one[name]:.2f}" for name in ("step", *PARTS))
        rows.append((way, str(one["runs"]), f"{one['steps_per_hour']:.0f}", more, *seconds))
    headings = ("runs", "at once", "steps per hour", "x one alone", "step, s", *PARTS)
    caption = (
        "steps per hour of all runs together; seconds are medians over their steps after the first ones."
        " Lengths and texts are imposed, as in the section step. At the same time: through NVIDIA's MPS, as"
        " sweep.py --mps does it; in turns: without it."
    )
    return table("a step of several runs on one GPU", headings, rows), caption
