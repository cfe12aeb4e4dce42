"""Section scaling: one step of a full run, shared among 1, 2, 4, ... GPUs of this host.

Each number of GPUs is a run of its own, `torchrun --nproc-per-node=N -- bench.py --sections=step`, which
lands in `measure_share`: the step of the section step, as rank 0 saw it. What a part of the step takes on N
GPUs is modelled as

    fixed + shrinking x ceil(groups / N) / groups

fitted with both parts at least 0: whole groups are dealt out, so the GPU with the most of them decides. From
that comes the forecast for twice as many GPUs as were measured.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from rich.console import Group

from hackward.base.faults import InputError
from hackward.base.files import ROOT, read_json, read_jsonl, write_json
from hackward.base.screen import progress
from hackward.benchmarks.flags import BenchFlags, counts_of
from hackward.benchmarks.imposed import Imposed
from hackward.benchmarks.parts import Bench, table
from hackward.benchmarks.step import seconds_rest, settings_of

# Column -> its field in rows.jsonl. They are a step's parts; `rest` is what they leave of it.
PARTS = {
    "sampling": "seconds_generate",
    "grades": "seconds_grade",
    "backward": "seconds_backward",
}
# Of the same step, inside of its parts
INSIDE = {"waiting": "seconds_waiting", "exchange": "seconds_exchanging"}
PASSED_ON = ("shape", "dtype", "device", "steps", "problems", "workers")  # flags of the runs
LIMIT = 1800  # seconds of one run
GRACE = 60  # seconds that torchrun has to end its processes; it gives them 30 itself


def measure_share(config: BenchFlags, train: Callable[..., Path]) -> None:
    """The step as one of torchrun's processes: all take part, rank 0 writes its rows to --out.

    InputError for another section, or without --out. Nothing here may touch a GPU before train does, which
    takes the one that is this rank's.
    """
    if config.sections != "step" or not config.out:
        raise InputError("under torchrun bench.py measures --sections=step only, and needs --out=FILE")
    bench = Bench(config, torch.device("cpu"), train)
    with tempfile.TemporaryDirectory() as directory:
        asked = settings_of(bench, Path(directory, "run"))
        with contextlib.redirect_stdout(io.StringIO()):  # its final screen
            train(asked, policy=Imposed)
        if os.environ["RANK"] != "0":
            return
        rows = read_jsonl(Path(directory, "run", "rows.jsonl"))
    write_json(config.out, {"rows": rows, "groups": asked.prompts})


def measure_scaling(b: Bench) -> dict:
    """Every number of GPUs, one after another; what failed has an "error" in the place of its seconds."""
    counts = counts_of(b.config) or doubling(torch.cuda.device_count() if b.on_gpu else 2)
    measured: dict[int, dict] = {}
    with progress("numbers of GPUs", len(counts)) as bar:
        for count in counts:
            measured[count] = step_on(b, count)
            bar()
    done = {count: found for count, found in measured.items() if "error" not in found}
    forecast = None
    if len(done) > 1:
        forecast = forecast_for(2 * max(done), done)
    return {"measured": measured, "forecast": forecast}


def doubling(most: int) -> list[int]:
    """1, 2, 4, ... up to `most`."""
    return [1 << power for power in range(max(1, most).bit_length())]


def step_on(b: Bench, count: int) -> dict:
    """The medians of a step's parts on so many GPUs, after the first step."""
    flags = {name: getattr(b.config, name) for name in PASSED_ON}
    given = [f"--{name}={value}" for name, value in flags.items() if value is not None]
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory, "share.json")
        torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}", "--"]
        bench = str(ROOT / "bench.py")
        command = [sys.executable, *torchrun, bench, "--sections=step", f"--out={out}", *given]
        try:
            status, said = ended(command)
        except subprocess.TimeoutExpired:
            return {"error": f"took more than {LIMIT} s"}
        if status or not out.exists():
            return {"error": reason_in(said)}
        found = read_json(out)
    return medians(found["rows"]) | {"groups": found["groups"], "rows": found["rows"]}


def ended(command: Sequence[str]) -> tuple[int, str]:
    """How a torchrun ended, and what it said on stderr. subprocess.TimeoutExpired after LIMIT seconds.

    It is asked to end before it is killed: its processes have sessions of their own, and one that is killed
    leaves them behind, on the GPUs that the next number of them is timed on.
    """
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        said = process.communicate(timeout=LIMIT)[1]
    except BaseException:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
        process.kill()
        process.wait()
        raise
    return process.returncode, said


def reason_in(said: str) -> str:
    """The one line in which a command says its fault, else the last line of what it said."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    faults = [line for line in lines if line.startswith("error: ")]
    return (faults or lines[-1:] or ["no word"])[0]


def medians(rows: Sequence[dict]) -> dict[str, float]:
    """A step's seconds, those of its parts, and those inside of them; the first step warms up."""
    return medians_of(rows[1:] or rows)


def medians_of(counted: Sequence[dict]) -> dict[str, float]:
    """The same of steps that all count."""
    fields = {"step": "seconds", **PARTS, **INSIDE}
    found = {name: statistics.median(row.get(key, 0.0) for row in counted) for name, key in fields.items()}
    return found | {"rest": statistics.median(map(seconds_rest, counted))}


def share(groups: int, count: int) -> float:
    """Of all groups, the part that the GPU with the most has."""
    return math.ceil(groups / count) / groups


def fitted(groups: int, seconds: dict[int, float]) -> tuple[float, float]:
    """(fixed, shrinking) seconds of a part by its seconds on each number of GPUs, neither below 0."""
    from scipy.optimize import nnls

    design = np.array([[1.0, share(groups, count)] for count in seconds])
    (fixed, shrinking), _ = nnls(design, np.array(list(seconds.values())))
    return float(fixed), float(shrinking)


def forecast_for(count: int, done: dict[int, dict]) -> dict:
    """What every part would take on `count` GPUs, and the model that says so."""
    groups = next(iter(done.values()))["groups"]
    models = {}
    for part in (*PARTS, "rest"):
        fixed, shrinking = fitted(groups, {number: found[part] for number, found in done.items()})
        models[part] = {"fixed": fixed, "shrinking": shrinking}
    largest = share(groups, count)
    parts = {part: model["fixed"] + model["shrinking"] * largest for part, model in models.items()}
    return {"gpus": count, "step": sum(parts.values()), **parts, "model": models}


def show_scaling(found: dict) -> tuple[Group, str]:
    """The table and the caption below it."""
    measured, forecast = found["measured"], found["forecast"]
    columns = ("step", *PARTS, "rest", *INSIDE)
    alone = measured.get(1, {}).get("step")
    rows = []
    for count, one in measured.items():
        if "error" in one:
            rows.append((str(count), one["error"], *[""] * len(columns)))
            continue
        rows.append((str(count), times(alone, one["step"]), *(f"{one[name]:.2f}" for name in columns)))
    if forecast is not None:
        cells = [f"{forecast[name]:.2f}" if name in forecast else "-" for name in columns]
        rows.append((f"{forecast['gpus']} (forecast)", times(alone, forecast["step"]), *cells))
    caption = (
        "seconds per step: medians after the first. waiting (for the slowest process) and exchange (of"
        " rollouts and gradients) lie inside of the parts. Lengths and texts are imposed, as in the section"
        " step."
    )
    if forecast is not None:
        parts = ", ".join(
            f"{part} {model['fixed']:.2f} + {model['shrinking']:.2f} s"
            for part, model in forecast["model"].items()
        )
        caption += (
            f" The forecast is no measurement: fixed + shrinking x largest share of the groups; {parts}"
        )
    return table("a full step on several GPUs", ("GPUs", "x faster", *columns), rows), caption


def times(alone: float | None, seconds: float) -> str:
    """How much faster than on one GPU; a dash where that was not measured."""
    return "-" if alone is None else f"{alone / seconds:.2f}"
