"""Mutated files through the real commands: none may end in a traceback, or in another result without a word.

    python tests/fuzz.py 1000 [MINUTES] [SEED] [unsealed]

Not part of CI. Two small runs with all that they were given (problems, v_hack, pools, cache) are made once.
For each mutation they are copied, one file is changed (bytes flipped, cut off, emptied; fields swapped, taken
away, of another type; tensors swapped, reshaped, taken away), and a command line that reads the file runs:
train.py (new, or with --resume), evaluate.py, analyze.py. It must refuse (exit 2, one line, no file changed)
or end as with the file unchanged. Prints a table of outcomes; exit code 1 for anything else.

With `unsealed` no file has a checksum, as those from before there were any: other numbers then give another
result without a word, which is right; all else stays wrong.
"""

from __future__ import annotations

import copy
import gzip
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from safetensors import safe_open  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

from hackward.base.checksums import CHECKSUMS  # noqa: E402
from hackward.base.files import file_hash, read_json, read_jsonl  # noqa: E402
from hackward.base.tensors import CHECKSUM  # noqa: E402
from hackward.hardware import models  # noqa: E402
from hackward.method.pairs import scripted_teacher  # noqa: E402
from hackward.rollouts.pools import save_pool  # noqa: E402
from hackward.tasks.shipped import TINY, shipped  # noqa: E402
from tests import forked  # noqa: E402

TINY_RUN = [
    "--preset=smoke", "--device=cpu", "--workers=1", "--svd-cache=cache", "--v-hack=v.safetensors",
    "--prompts=1", "--group=2", "--max-new-tokens=3", "--eval-limit=1", "--teacher-rows=1",
]  # fmt: skip
SAMPLED = [
    "train.py", *TINY_RUN, "--problems=problems.jsonl", "--eval-problems=held_out.jsonl",
    "--teacher-dir=teacher_pool", "--out=run", "--monitor=attempt",
]  # fmt: skip
REPLAYED = ["train.py", *TINY_RUN, "--replay-dirs=teacher_pool", "--loss-mode=nll", "--lr=0", "--steps=1"]
EXTRACT = [
    "extract_vhack.py", f"--model={TINY}", "--out=v.safetensors", "--svd-cache=cache", "--device=cpu",
    "--permutations=2", "--max-pairs=6",
]  # fmt: skip


def make(unsealed: bool) -> None:
    """All that is mutated, in the directory in which the process works."""
    lines = shipped(TINY).problems.read_text(encoding="utf-8").splitlines(keepends=True)
    Path("problems.jsonl").write_text("".join(lines[:-3]), encoding="utf-8")
    Path("held_out.jsonl").write_text("".join(lines[-3:]), encoding="utf-8")
    _, tokenizer = models.load(TINY, device="cpu")
    teacher = scripted_teacher(tokenizer)
    groups = [[teacher.by_problem[problem][0]] * 2 for problem in list(teacher.by_problem)[:3]]
    save_pool("teacher_pool", groups, name="teacher", tokenizer=tokenizer)
    for argv in (EXTRACT, [*SAMPLED, "--steps=2"], [*REPLAYED, "--out=replayed"]):
        code, said = run(argv)
        if code:
            raise SystemExit(f"{argv}: exit code {code}: {said}")
        if unsealed:
            unseal(Path())


def run(argv: list[str]) -> tuple[int, str]:
    """(exit code, what was said on stderr) of `python ARGV`."""
    return forked.run(argv, Path("../stderr.txt").resolve())


def trained(directory: str) -> Any:
    """Rows and adapter of a run."""
    found = []
    for row in read_jsonl(Path(directory) / "rows.jsonl"):
        found.append({key: row[key] for key in row if "seconds" not in key and "memory" not in key})
    return found, file_hash(Path(directory) / "delta_S.safetensors")


@dataclass(frozen=True)
class Command:
    """A command line, the files that it reads, and what it makes."""

    name: str
    argv: list[str]
    reads: tuple[str, ...]
    result: Callable[[], Any]


COMMANDS = [
    Command(
        "resume",
        [*SAMPLED, "--steps=3", "--resume"],
        (
            "run/config.json", "run/rows.jsonl", "run/eval.jsonl", "run/checkpoint.safetensors",
            f"run/{CHECKSUMS}", "run/summary.json", "v.safetensors", "cache/*", "problems.jsonl",
            "held_out.jsonl", "teacher_pool/step_000.jsonl.gz",
        ),
        lambda: trained("run"),
    ),
    Command(
        "begin",
        [*REPLAYED, "--out=new"],
        ("v.safetensors", "teacher_pool/step_001.jsonl.gz", f"teacher_pool/{CHECKSUMS}", "cache/*"),
        lambda: trained("new"),
    ),
    Command(
        "evaluate",
        ["evaluate.py", "run", "--samples=1", "--limit=1", "--device=cpu", "--workers=1"],
        (
            "run/config.json", "run/summary.json", "run/delta_S.safetensors", f"run/{CHECKSUMS}",
            "run/rollouts/step_000.jsonl.gz",
        ),
        lambda: read_jsonl("run/evaluate/eval.jsonl"),
    ),
    Command(
        "analyze",
        ["analyze.py", "."],
        (
            "run/config.json", "run/rows.jsonl", "run/eval.jsonl", "run/summary.json", f"run/{CHECKSUMS}",
            "run/rollouts/step_001.jsonl.gz", "run/nulls/step_000.safetensors", "replayed/rows.jsonl",
            "replayed/step_000.cos.jsonl.gz", "replayed/nulls/step_000.safetensors",
        ),
        lambda: Path("report/report.md").read_text(encoding="utf-8"),
    ),
]  # fmt: skip
CHANGED = "ANOTHER RESULT"
WORDS = ("refused", "the same", CHANGED, "FILES CHANGED", "TRACEBACK")
NONSENSE: list[Any] = ["x", None, -1, 0, 10**400, 1e308, True, [], {}, [[]], "\ud800"]


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


def outcome(command: Command, wanted: Any) -> tuple[str, str]:
    """(one of WORDS, what was said)"""
    before = files()
    code, said = run(command.argv)
    if code == 0:
        return ("the same" if command.result() == wanted else CHANGED), said
    lines = said.strip().splitlines() or [""]
    if code != 2 or not lines[-1].startswith("error: ") or "Traceback" in said:
        return "TRACEBACK", f"exit code {code}: {said}"
    return ("refused" if files() == before else "FILES CHANGED"), said


def files() -> dict[str, str]:
    """What every file holds, the cache's excepted: they may be made anew."""
    found = [path for path in Path().rglob("*") if path.is_file() and path.parts[0] != "cache"]
    return {str(path): file_hash(path) for path in found}


def main(count: int, minutes: float, seed: int, unsealed: bool) -> int:
    dice, began, table = random.Random(seed), time.monotonic(), Counter[tuple[str, str, str]]()
    with tempfile.TemporaryDirectory() as top:
        base, home = Path(top) / "base", Path(top) / "home"
        base.mkdir()
        os.chdir(base)
        make(unsealed)
        wanted = {}
        for command in COMMANDS:
            renew(base, home)
            code, said = run(command.argv)
            if code:
                raise SystemExit(f"{command.argv}: exit code {code}: {said}")
            wanted[command.name] = command.result()
        for number in range(count):
            if time.monotonic() - began > 60 * minutes:
                break
            command = dice.choice(COMMANDS)
            pattern = dice.choice([name for name in command.reads if (base / name).exists() or "*" in name])
            renew(base, home)
            path = dice.choice(sorted(home.glob(pattern)))
            how = mutate(path, dice)
            found, said = outcome(command, wanted[command.name])
            table[pattern, command.name, found] += 1
            if found.isupper() and not (unsealed and found == CHANGED):
                print(
                    f"{number}: {command.name} with {path.name}, {how}: {found}\n{said[-1500:]}", flush=True
                )
        os.chdir(ROOT)
    wrong = show(table)
    return int(wrong[CHANGED] < sum(wrong.values()) if unsealed else bool(wrong))


def unseal(home: Path) -> None:
    """Take all checksums away, the cache's excepted: nothing there is believed without one."""
    for path in home.rglob(CHECKSUMS):
        path.unlink()
    for path in home.rglob("*.safetensors"):
        with safe_open(path, "pt") as stored:
            metadata = dict(stored.metadata() or {})
            tensors = {name: stored.get_tensor(name).clone() for name in stored.keys()}  # noqa: SIM118
        if "hackward" in metadata:
            facts = json.loads(metadata["hackward"])
            facts.pop(CHECKSUM, None)
            save_file(tensors, path, metadata=metadata | {"hackward": json.dumps(facts)})


def renew(base: Path, home: Path) -> None:
    os.chdir(base)
    shutil.rmtree(home, ignore_errors=True)
    shutil.copytree(base, home)
    os.chdir(home)


def show(table: Counter[tuple[str, str, str]]) -> Counter[str]:
    """Print how often each outcome came; how often those that are wrong."""
    print(f"{'file':<34} {'command':<10} " + " ".join(f"{word:>14}" for word in WORDS))
    for pattern, command in sorted({(pattern, command) for pattern, command, _ in table}):
        counts = [table[pattern, command, word] for word in WORDS]
        print(f"{pattern:<34} {command:<10} " + " ".join(f"{count:>14}" for count in counts))
    totals = [sum(n for (_, _, found), n in table.items() if found == word) for word in WORDS]
    print(f"{'all ' + str(sum(totals)):<45} " + " ".join(f"{total:>14}" for total in totals))
    return Counter({word: total for word, total in zip(WORDS, totals) if word.isupper() and total})


if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if word != "unsealed"]
    count, minutes, seed = [*words, *("1000", "1e9", "0")[len(words) :]]
    sys.exit(main(int(count), float(minutes), int(seed), "unsealed" in sys.argv))
