"""Kills at random moments: every resume must end as the run that nothing killed, and leave nothing behind.

    python tests/kills.py 60        # kills, spread over all arms, with refresh, smoke and embedded

Not part of CI. Of three runs one is killed (SIGKILL) after a random share of the time that the whole one
took, one while it saves (a file is begun and not in its place) and one while it evaluates; then the same
command goes on, with --resume once there is a checkpoint. Compared are the names of all files, every bit of
all tensors (adapter, checkpoint, directions), and rows, rollouts and evaluations without times. Prints a
table; exit code 1 where one differs.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
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
from hackward.base.tensors import read_safetensors  # noqa: E402
from tests import forked  # noqa: E402

EVAL_EVERY = 2  # steps
COMMON = [f"--eval-every={EVAL_EVERY}", "--device=cpu", "--workers=1", "--save-every=1", "--eval-samples=1"]
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
ENDED = os.WEXITED | os.WNOHANG | os.WNOWAIT  # for waitid: look, and leave the process to be waited for
SAID = Path(tempfile.gettempdir()) / f"kills-{os.getpid()}.txt"  # what the last command said
MOMENTS = ("random", "saving", "evaluating")
PAIRS = 6  # that v_hack is made from: a run's set-up and refresh take seconds instead of a minute


def start(flags: list[str], out: Path, *more: str) -> int:
    """Begin a run, in a session of its own so that a kill leaves no one of it behind; its process number."""
    return forked.start(["train.py", *flags, f"--out={out}", *more], SAID)


def finish(child: int) -> None:
    code = forked.wait(child)
    if code:
        raise SystemExit(f"exit code {code}: {SAID.read_text(errors='replace')[-2000:]}")


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
        elif path.suffix == ".safetensors":  # whose header has its parts in any order
            tensors, facts = read_safetensors(path)
            found[name] = (
                facts,
                {key: (str(x.dtype), x.shape, x.numpy().tobytes()) for key, x in tensors.items()},
            )
        else:
            found[name] = path.read_bytes()
    return found


def kill(flags: list[str], out: Path, moment: str, seconds: float, dice: random.Random) -> str:
    """Start a run and kill it, at the latest after so many seconds if the moment does not come; in which
    state it was."""
    child, began = start(flags, out), time.monotonic()
    saves = dice.randint(1, 12)  # that go by before the one in which it is killed
    last: set[Path] = set()
    while time.monotonic() - began < seconds and not os.waitid(os.P_PID, child, ENDED):
        if moment == "evaluating" and is_evaluating(out):
            time.sleep(dice.uniform(0, 0.2))
            break
        if moment == "saving":
            found = begun(out)
            saves -= bool(found - last)
            last = found
            if not saves:
                break
        time.sleep(0.0002)  # a write takes milliseconds
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    forked.wait(child)
    if (out / "summary.json").exists():
        return "finished"
    if not out.exists():
        return "before its directory"
    if begun(out):
        return "saving"
    if is_evaluating(out):
        return "evaluating"
    rows = out / "rows.jsonl"
    return f"after {steps(out)} steps" if rows.exists() else "setting up"


def begun(out: Path) -> set[Path]:
    """Files whose write has begun."""
    return {path for folder in (out, out / "rollouts", out / "eval") for path in folder.glob(".*.tmp")}


def steps(out: Path) -> int:
    return (out / "rows.jsonl").read_text(encoding="utf-8").count("\n")


def is_evaluating(out: Path) -> bool:
    """After so many steps an evaluation is due, and not there."""
    if not (out / "rows.jsonl").exists():
        return False
    done = steps(out)
    return done > 0 and done % EVAL_EVERY == 0 and not (out / "eval" / f"step_{done:03d}.jsonl.gz").exists()


def go_on(flags: list[str], out: Path) -> None:
    """The same command, until it is finished."""
    resume = ["--resume"] if (out / "checkpoint.safetensors").exists() else []
    finish(start(flags, out, *resume))


def directions(home: Path) -> None:
    """A v_hack of every model and basis, and the cache of its bases."""
    for _, model in PRESETS.values():
        for basis in ("svd", "lora"):
            flags = [f"--model={model}", f"--basis={basis}", f"--max-pairs={PAIRS}", "--permutations=2"]
            flags += ["--rank=2", "--device=cpu", f"--out={home / model}-{basis}.safetensors"]
            finish(forked.start(["extract_vhack.py", *flags, f"--svd-cache={home / 'cache'}"], SAID))


def cases(home: Path) -> Iterator[tuple[str, list[str]]]:
    for arm, own in ARMS.items():
        for preset, (flags, model) in PRESETS.items():
            basis = "lora" if "--arm=lora" in own else "svd"
            given = [f"--v-hack={home / model}-{basis}.safetensors", f"--svd-cache={home / 'cache'}"]
            yield f"{preset}, {arm}", [*flags, *COMMON, *own, *given]


def main(kills: int, minutes: float) -> int:
    dice, began = random.Random(0), time.monotonic()
    whole: dict[str, tuple[dict[str, Any], float]] = {}
    outcomes: Counter[tuple[str, str, str]] = Counter()
    with tempfile.TemporaryDirectory() as home:
        directions(Path(home))
        everything = list(cases(Path(home)))
        number = 0
        while outcomes.total() < kills and time.monotonic() - began < 60 * minutes:
            name, flags = everything[number % len(everything)]
            moment = MOMENTS[number // len(everything) % len(MOMENTS)]
            number += 1
            if name not in whole:
                whole[name] = whole_run(flags, Path(home) / "whole")
            wanted, seconds = whole[name]
            run = Path(home) / "run"
            latest = seconds * (dice.uniform(0.3, 1.0) if moment == "random" else 1)
            state = kill(flags, run, moment, latest, dice)
            if state != "finished":
                go_on(flags, run)
                found = contents(run)
                outcome = difference(wanted, found)
                outcomes[name, state, outcome] += 1
                print(f"{outcomes.total():>3}  {name:<34} {state:<22} {outcome}", flush=True)
            shutil.rmtree(run, ignore_errors=True)
    return show(outcomes)


def whole_run(flags: list[str], out: Path) -> tuple[dict[str, Any], float]:
    """(what a run that nothing kills leaves, seconds that it took)"""
    at = time.monotonic()
    finish(start(flags, out))
    seconds = time.monotonic() - at
    found = contents(out)
    shutil.rmtree(out)
    return found, seconds


def difference(wanted: dict[str, Any], found: dict[str, Any]) -> str:
    differs = [file for file in wanted.keys() | found.keys() if wanted.get(file) != found.get(file)]
    return f"differs in {', '.join(sorted(differs))}" if differs else "the same"


def show(outcomes: Counter[tuple[str, str, str]]) -> int:
    """Print how often each outcome came, by run and by state; the exit code."""
    by_run = Counter[tuple[str, str]]()
    by_state = Counter[tuple[str, str]]()
    for (name, state, outcome), count in outcomes.items():
        by_run[name, outcome] += count
        by_state[state, outcome] += count
    for table in (by_run, by_state):
        print()
        for (what, outcome), count in sorted(table.items()):
            print(f"{count:>3}  {what:<34} {outcome}")
    print(f"\n{outcomes.total()} kills of unfinished runs")
    return int(any(outcome != "the same" for _, _, outcome in outcomes))


if __name__ == "__main__":
    sys.exit(
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 60, float(sys.argv[2]) if len(sys.argv) > 2 else 1e9)
    )
