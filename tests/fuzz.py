"""Mutated files through the real commands: none may end in a traceback, or in another result without a word.

    python tests/fuzz.py 1000 [MINUTES]

Not part of CI. A small run with all that it was given (v_hack, pools, cache) is made once. For every mutation
it is copied, one file is changed (bytes flipped, cut off, emptied; fields swapped, taken away, of another
type; tensors swapped, reshaped, taken away), and a command that reads the file runs: train.py (new, or with
--resume), evaluate.py, analyze.py. It must refuse (exit 2, one line) or end as with the file unchanged.
Prints a table of outcomes; exit code 1 for a traceback or another result.
"""

from __future__ import annotations

import contextlib
import copy
import gzip
import io
import json
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from safetensors import safe_open  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

import analyze  # noqa: E402
import evaluate  # noqa: E402
import extract_vhack  # noqa: E402
import train  # noqa: E402
from hackward.base.checksums import CHECKSUMS  # noqa: E402
from hackward.base.faults import exit_on_fault  # noqa: E402
from hackward.base.files import read_json, read_jsonl  # noqa: E402
from hackward.base.flags import command_line  # noqa: E402
from hackward.rollouts.pools import save_pool  # noqa: E402
from hackward.runs.settings import parse  # noqa: E402
from hackward.tasks.shipped import TINY  # noqa: E402

TINY_RUN = [
    "--preset=smoke", "--device=cpu", "--workers=1", "--svd-cache=cache", "--v-hack=v.safetensors",
    "--prompts=1", "--group=2", "--max-new-tokens=3", "--eval-limit=1", "--teacher-rows=1",
]  # fmt: skip
SAMPLED = [*TINY_RUN, "--teacher-dir=teacher_pool", "--out=run", "--monitor=attempt"]
REPLAYED = [*TINY_RUN, "--replay-dirs=teacher_pool", "--loss-mode=nll", "--lr=0", "--steps=1"]


def make(home: Path) -> None:
    """All that is mutated, under `home`, in which the process works."""
    from hackward.hardware import models
    from hackward.method.pairs import scripted_teacher

    _, tokenizer = models.load(TINY, device="cpu")
    teacher = scripted_teacher(tokenizer)
    groups = [[teacher.by_problem[problem][0]] * 2 for problem in list(teacher.by_problem)[:3]]
    save_pool("teacher_pool", groups, name="teacher", tokenizer=tokenizer)
    argv = [
        f"--model={TINY}",
        "--out=v.safetensors",
        "--svd-cache=cache",
        "--device=cpu",
        "--permutations=2",
        "--max-pairs=6",
    ]
    extract_vhack.main(command_line(extract_vhack.ExtractFlags, argv=argv))
    train.train(parse([*SAMPLED, "--steps=2"]))
    train.train(parse([*REPLAYED, "--out=replayed"]))


def rows(run: str) -> list[Any]:
    found = []
    for row in read_jsonl(Path(run) / "rows.jsonl"):
        found.append({key: row[key] for key in row if "seconds" not in key and "memory" not in key})
    return found


def resumed() -> Any:
    train.train(parse([*SAMPLED, "--steps=3", "--resume"]))
    return rows("run"), Path("run/delta_S.safetensors").read_bytes()


def begun() -> Any:
    train.train(parse([*REPLAYED, "--out=new"]))
    return rows("new"), Path("new/delta_S.safetensors").read_bytes()


def evaluated() -> Any:
    evaluate.evaluate(evaluate.EvaluateFlags(Path("run"), samples=1, limit=1, device="cpu", workers=1))
    return read_jsonl("run/evaluate/eval.jsonl")


def analyzed() -> Any:
    analyze.main(analyze.AnalyzeFlags(Path()))
    return Path("report/report.md").read_text()


# Which files a command reads
READ_BY: dict[Callable[[], Any], tuple[str, ...]] = {
    resumed: (
        "run/config.json", "run/rows.jsonl", "run/eval.jsonl", "run/checkpoint.safetensors",
        f"run/{CHECKSUMS}", "run/summary.json", "v.safetensors", "teacher_pool/step_000.jsonl.gz", "cache/*",
    ),
    begun: ("v.safetensors", "teacher_pool/step_001.jsonl.gz", f"teacher_pool/{CHECKSUMS}", "cache/*"),
    evaluated: (
        "run/config.json", "run/summary.json", "run/delta_S.safetensors", f"run/{CHECKSUMS}",
        "run/rollouts/step_000.jsonl.gz",
    ),
    analyzed: (
        "run/config.json", "run/rows.jsonl", "run/eval.jsonl", "run/summary.json", f"run/{CHECKSUMS}",
        "run/rollouts/step_001.jsonl.gz", "run/nulls/step_000.safetensors", "replayed/rows.jsonl",
        "replayed/step_000.cos.jsonl.gz", "replayed/nulls/step_000.safetensors",
    ),
}  # fmt: skip
NONSENSE = ["x", None, -1, 0, 10**400, 1e308, True, [], {}, [[]], "\ud800"]


def flipped(data: bytes, dice: random.Random) -> bytes:
    place = dice.randrange(len(data))
    return data[:place] + bytes([data[place] ^ (1 << dice.randrange(8))]) + data[place + 1 :]


def cut(data: bytes, dice: random.Random) -> bytes:
    return data[: dice.randrange(len(data))]


def emptied(data: bytes, dice: random.Random) -> bytes:
    return b""


def nonsense(value: Any, dice: random.Random) -> None:
    """Change one field, at any depth: of another type, taken away, or in another's place."""
    while True:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = dice.choice(keys)
        deeper = value[key]
        if not (isinstance(deeper, (dict, list)) and deeper and dice.random() < 0.7):
            break
        value = deeper
    way, other = dice.randrange(3), dice.choice(keys)
    if way == 0:
        value[key] = copy.deepcopy(dice.choice(NONSENSE))
    elif way == 1:
        del value[key]
    else:
        value[key], value[other] = value[other], value[key]


def well_formed(path: Path, dice: random.Random) -> None:
    """Nonsense in a file that can be read."""
    if path.suffix == ".safetensors":
        return _tensors(path, dice)
    if path.suffix == ".json":
        content = read_json(path)
        nonsense(content, dice)
        path.write_text(json.dumps(content))
        return None
    lines = read_jsonl(path)
    nonsense(lines, dice)
    text = "".join(json.dumps(line) + "\n" for line in lines).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return None


def _tensors(path: Path, dice: random.Random) -> None:
    with safe_open(path, "pt") as stored:
        metadata = dict(stored.metadata() or {})
        tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    one, other = dice.choice(list(tensors)), dice.choice(list(tensors))
    way = dice.randrange(4)
    if way == 0:
        del tensors[one]
    elif way == 1:
        tensors[one], tensors[other] = tensors[other], tensors[one]
    elif way == 2:
        tensors[one] = tensors[one].reshape(-1)[1:].clone()
    else:
        facts = json.loads(metadata.get("hackward", "{}")) or {"x": 1}
        nonsense(facts, dice)
        metadata["hackward"] = json.dumps(facts)
    save_file(tensors, path, metadata=metadata)


def mutate(path: Path, dice: random.Random) -> str:
    """Change the file; how."""
    if dice.random() < 0.5:
        well_formed(path, dice)
        return "well-formed"
    change = dice.choices([flipped, cut, emptied], [6, 3, 1])[0]
    path.write_bytes(change(path.read_bytes(), dice))
    return change.__name__


def outcome(command: Callable[[], Any], wanted: Any) -> tuple[str, str]:
    """(one word, what was said or raised)"""
    said, found = io.StringIO(), []
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            exit_on_fault(lambda: found.append(command()))
    except SystemExit as end:
        line = said.getvalue().strip().splitlines()[-1:]
        good = end.code == 2 and bool(line) and line[0].startswith("error: ")
        return ("refused" if good else "TRACEBACK"), said.getvalue()[-500:]
    except Exception:
        return "TRACEBACK", traceback.format_exc()[-1500:]
    return ("the same" if found == [wanted] else "ANOTHER RESULT"), said.getvalue()[-500:]


def main(count: int, minutes: float) -> int:
    warnings.simplefilter("ignore")
    dice, began, table = random.Random(0), time.monotonic(), Counter[tuple[str, str, str]]()
    with tempfile.TemporaryDirectory() as top:
        base, home = Path(top) / "base", Path(top) / "home"
        base.mkdir()
        os.chdir(base)
        make(base)
        wanted = {}
        for command in READ_BY:
            wanted[command] = fresh(base, home, command)
        for number in range(count):
            if time.monotonic() - began > 60 * minutes:
                break
            command = dice.choice(list(READ_BY))
            pattern = dice.choice(READ_BY[command])
            renew(base, home)
            path = dice.choice(sorted(home.glob(pattern)))
            how = mutate(path, dice)
            found, said = outcome(command, wanted[command])
            table[pattern, command.__name__, found] += 1
            if found.isupper():
                print(f"{number}: {command.__name__} with {path.name}, {how}: {found}\n{said}", flush=True)
        os.chdir(ROOT)
    return show(table)


def renew(base: Path, home: Path) -> None:
    os.chdir(base)
    shutil.rmtree(home, ignore_errors=True)
    shutil.copytree(base, home)
    os.chdir(home)


def fresh(base: Path, home: Path, command: Callable[[], Any]) -> Any:
    """What a command gives with nothing changed."""
    renew(base, home)
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        return command()


def show(table: Counter[tuple[str, str, str]]) -> int:
    """Print how often each outcome came; the exit code."""
    words = ("refused", "the same", "ANOTHER RESULT", "TRACEBACK")
    print(f"{'file':<34} {'command':<10} " + " ".join(f"{word:>14}" for word in words))
    for pattern, command in sorted({(pattern, command) for pattern, command, _ in table}):
        counts = [table[pattern, command, word] for word in words]
        print(f"{pattern:<34} {command:<10} " + " ".join(f"{count:>14}" for count in counts))
    totals = [sum(n for (_, _, found), n in table.items() if found == word) for word in words]
    print(f"{'all ' + str(sum(totals)):<45} " + " ".join(f"{total:>14}" for total in totals))
    return int(any(totals[2:]))


if __name__ == "__main__":
    wanted_count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    sys.exit(main(wanted_count, float(sys.argv[2]) if len(sys.argv) > 2 else 1e9))
