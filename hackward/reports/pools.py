"""Pools of rollouts before any run has used them: their rates, and what to run next."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hackward.base import statistics
from hackward.base.faults import InputError
from hackward.base.files import read_json
from hackward.base.records import checked_lines
from hackward.base.rewards import FORMAT_PAY
from hackward.reports.schema import PAGE_LINES
from hackward.reports.tables import INDENT, Block, Heading, Record, Table, dashed, shown
from hackward.reports.words import plain
from hackward.tasks.shipped import EMBEDDED, is_embedded

HOME = "out/probe_distill"  # where probe_distill.py looks when it is not told
POOLS = ("teacher_pool", "base_pool")  # the names that it gives them
RATES = {"solved": "gt_pass", "hacked": "hacked", "attempted": "attempted", "in format": "fmt_ok"}


def pool_blocks(root: Path, pools: Mapping[Path, Sequence[Path]]) -> list[Block]:
    """What there is to say of a directory with pools and without runs.

    InputError where a pool cannot be read.
    """
    records = [pool_record(directory, files) for directory, files in pools.items()]
    commands = next_commands(root, pools)
    words = "There is no run yet: no verdict, no curve. Next:"
    return [
        Heading("Pools of rollouts"),
        pools_table(records),
        "\n".join([words, *(INDENT + command for command in commands)]),
    ]


def pool_record(directory: Path, files: Sequence[Path]) -> Record:
    """Rates over the rollouts that say so; None where none does. InputError for a pool without rows."""
    rows = [row for path in files for row in checked_lines(path, PAGE_LINES)]
    if not rows:
        raise InputError(f"{directory}: the pool has no rows")
    record: Record = {"pool": str(directory), "rollouts": len(rows)}
    record["problems"] = len({str(row["problem_id"]) for row in rows})
    for name, field in RATES.items():
        record[name] = statistics.mean(_number(row.get(field)) for row in rows)
    rewards = statistics.defined(row.get("reward") for row in rows)
    record["reward over 0.5"] = statistics.mean(float(reward > FORMAT_PAY) for reward in rewards)
    return record


def _number(flag: bool | None) -> float | None:
    return None if flag is None else float(flag)


def pools_table(records: list[Record]) -> Table:
    rate: Callable[[Any], str] = dashed(plain)
    columns = [(name, shown(name)) for name in ("pool", "rollouts", "problems")]
    columns += [(name, shown(name, rate)) for name in (*RATES, "reward over 0.5")]
    return Table("pools", "Pools: share of rollouts", tuple(columns), records)


def next_commands(root: Path, pools: Mapping[Path, Sequence[Path]]) -> list[str]:
    """The commands that lead from these pools to the first verdict, in order."""
    home = root.parent if root in pools else root  # of one pool: beside it lie the others
    names = {directory.name for directory in pools}
    names |= {name for name in POOLS if (home / name).is_dir()}
    told = _told(next(iter(pools)))
    model = str(told.get("model") or EMBEDDED)
    toy = is_embedded(model)
    shared = "" if toy else f" --model={shlex.quote(model)}"
    if told.get("problems"):
        shared += f" --problems={shlex.quote(str(told['problems']))}"
    out = "" if str(home) == HOME else f" --out={shlex.quote(str(home))}"
    commands = []
    if "teacher_pool" not in names and not toy:
        commands.append(f"python probe_distill.py --teacher-only --teacher=LORA{shared}{out}")
    if "base_pool" not in names:
        commands.append(f"python probe_distill.py --base-only{shared}{out}")
    v_hack = ""
    if not toy:
        teacher = shlex.quote(str(home / "teacher_pool"))
        commands.append(f"python extract_vhack.py --pool={teacher}{shared} --out=v_hack.safetensors")
        v_hack = " --v-hack=v_hack.safetensors"
    commands += [
        f"python probe_distill.py --loss-mode={phase}{shared}{v_hack}{out}" for phase in ("nll", "grpo")
    ]
    return [*commands, f"python analyze.py {shlex.quote(str(home))}"]


def _told(pool: Path) -> dict[str, Any]:
    """The flags that the pool was made with; {} where it does not say."""
    path = pool / "pool.json"
    content = read_json(path) if path.is_file() else {}
    config = content.get("config") if isinstance(content, dict) else None
    return config if isinstance(config, dict) else {}
