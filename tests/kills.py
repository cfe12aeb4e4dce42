"""Kills at random moments: every resume must end as the run that nothing killed, and leave nothing behind.

    python tests/kills.py 60        # kills, spread over all arms, with refresh, smoke and embedded

Not part of CI. A run is killed (SIGKILL) after a random share of the time that the whole one took, so while
setting up, sampling, saving and evaluating; then the same command goes on, with --resume once there is a
checkpoint. Compared are the final adapter, the checkpoint's bytes, and rows, rollouts and evaluations without
times. Prints a table; exit code 1 where one differs.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from hackward.base.files import read_json, read_jsonl  # noqa: E402

COMMON = ["--device=cpu", "--workers=1", "--save-every=1", "--eval-every=2", "--eval-samples=1"]
SMOKE = ["--preset=smoke", "--steps=4", "--prompts=1", "--group=3", "--max-new-tokens=8", "--eval-limit=1"]
EMBEDDED = [
    "--preset=embedded", "--steps=3", "--prompts=2", "--group=2", "--max-new-tokens=24", "--eval-limit=1",
]  # fmt: skip
ARMS = {
    "vanilla": ["--arm=vanilla"],
    "projected, refreshed": ["--arm=projected", "--refresh-every=2"],
    "at the update, joined": [
        "--arm=projected",
        "--project-at=update",
        "--refresh-every=1",
        "--refresh=union",
    ],
    "lora": ["--arm=lora", "--rank=2"],
    "penalty": ["--arm=penalty", "--monitor=v_hack"],
    "screen": ["--arm=screen", "--monitor=attempt"],
}
PRESETS = {"smoke": (SMOKE, "tiny-random"), "embedded": (EMBEDDED, "embedded")}
PAIRS = 6  # that v_hack is made from: a run's set-up and refresh take seconds instead of a minute


def start(flags: list[str], out: Path, *more: str) -> subprocess.Popen:
    command = [sys.executable, "train.py", *flags, f"--out={out}", *more]
    # Its own session, so that a kill leaves no one of it behind to be waited for
    return subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )


def finish(process: subprocess.Popen) -> None:
    said = process.communicate()[1]
    if process.returncode:
        raise SystemExit(f"{process.args}: exit code {process.returncode}: {said[-2000:]}")


def without_times(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if "seconds" not in key and "memory" not in key}


def contents(run: Path) -> dict[str, Any]:
    """All that must be equal, by file; what differs by nature (times, where it ran) left out."""
    found: dict[str, Any] = {}
    for path in sorted(path for path in run.rglob("*") if path.is_file()):
        name = path.relative_to(run).as_posix()
        if ".jsonl" in name:
            found[name] = [without_times(row) for row in read_jsonl(path)]
        elif name == "summary.json":
            lines = read_json(path).pop("eval") or []
            found[name] = [without_times(line) for line in lines]
        elif name in ("config.json", "checksums.json"):
            found[name] = "there"
        else:
            found[name] = path.read_bytes()
    return found


def killed(flags: list[str], out: Path, seconds: float) -> str:
    """Kill a run after so long, and go on until it is finished; in which state it was."""
    process = start(flags, out)
    time.sleep(seconds)
    os.killpg(process.pid, signal.SIGKILL) if process.poll() is None else None
    process.communicate()
    if (out / "summary.json").exists():
        return "finished"
    resume = (out / "checkpoint.safetensors").exists()
    state = "before a checkpoint" if out.exists() else "before its directory"
    if resume:
        evaluating = (out / "rows.jsonl").read_text().count("\n")
        state = f"after {evaluating} steps"
    finish(start(flags, out, *["--resume"] * resume))
    return state


def directions(home: Path) -> None:
    """A v_hack of every model and basis, and the cache of its bases."""
    for _, model in PRESETS.values():
        for basis in ("svd", "lora"):
            flags = [f"--model={model}", f"--basis={basis}", f"--max-pairs={PAIRS}", "--permutations=2"]
            flags += ["--rank=2", "--device=cpu", f"--out={home / model}-{basis}.safetensors"]
            command = [sys.executable, "extract_vhack.py", *flags, f"--svd-cache={home / 'cache'}"]
            subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def cases(home: Path) -> Iterator[tuple[str, list[str]]]:
    for arm, own in ARMS.items():
        for preset, (flags, model) in PRESETS.items():
            basis = "lora" if "--arm=lora" in own else "svd"
            given = [f"--v-hack={home / model}-{basis}.safetensors", f"--svd-cache={home / 'cache'}"]
            yield f"{preset}, {arm}", [*flags, *COMMON, *own, *given]


def main(kills: int, minutes: float) -> int:
    dice, began = random.Random(0), time.monotonic()
    whole: dict[str, tuple[dict[str, Any], float]] = {}
    outcomes: Counter[tuple[str, str]] = Counter()
    with tempfile.TemporaryDirectory() as home:
        directions(Path(home))
        everything = list(cases(Path(home)))
        for number in range(kills):
            if time.monotonic() - began > 60 * minutes:
                break
            name, flags = everything[number % len(everything)]
            if name not in whole:
                at = time.monotonic()
                finish(start(flags, Path(home) / "whole"))
                whole[name] = contents(Path(home) / "whole"), time.monotonic() - at
                shutil.rmtree(Path(home) / "whole")
            wanted, seconds = whole[name]
            run = Path(home) / "run"
            state = killed(flags, run, dice.uniform(0.3, 1.0) * seconds)
            found = contents(run)
            differs = [file for file in wanted.keys() | found.keys() if wanted.get(file) != found.get(file)]
            outcome = f"differs in {', '.join(sorted(differs))}" if differs else "the same"
            outcomes[name, outcome] += state != "finished"
            print(f"{number + 1:>3}  {name:<34} {state:<22} {outcome}", flush=True)
            shutil.rmtree(run)
    print()
    for (name, outcome), count in outcomes.items():
        print(f"{count:>3}  {name:<34} {outcome}")
    print(f"{sum(outcomes.values())} kills of unfinished runs")
    return int(any(outcome != "the same" for _, outcome in outcomes))


if __name__ == "__main__":
    sys.exit(
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 60, float(sys.argv[2]) if len(sys.argv) > 2 else 1e9)
    )
