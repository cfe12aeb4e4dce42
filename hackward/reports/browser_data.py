"""Rollouts as the page holds them: columns of numbers, and texts in pieces, all gzip in base64.

    columns   a little-endian array each; NaN and -1 stand for what is not there
    prompts   every prompt once
    texts     [completion, what else is known of it] of every rollout, in the order of the columns

A piece is a JSON list of about PIECE characters, which the page unpacks when one of its texts is asked for.
JSON is ASCII with escapes, so that it carries the lone surrogates of model text.
"""

from __future__ import annotations

import base64
import gzip
import json
import math
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hackward.base.arms import teacher_label
from hackward.base.lines import printable
from hackward.base.records import POLICY
from hackward.base.rewards import ANSWER_PAY, FORMAT_PAY
from hackward.reports.browser_rows import Shown, count_of, rollouts_of, rows_taken, steps_taken
from hackward.reports.labels import short_labels
from hackward.reports.runs import Run, described
from hackward.tasks.problems import EVAL_NAME

PIECE = 400_000  # characters
FIGURES = ("reward", "advantage", "cosine", "contribution", "score", "length")
NUMBERS = ("run", "step", "place", "problem", "prompt", "pool", "sample", "draw", "marks")
BITS = {None: 0, False: 1, True: 2}
# In the order of their two bits in the column `marks`
MARKS = ("hacked", "solved", "attempted", "compiles", "cut off", "flagged")
# What a page says of runs whose rollouts are not all there
WITHOUT = "No rollouts were kept of"
LACKING = "Steps without their rollouts"
OTHER = "Steps with another number of rollouts than rows.jsonl has advantages, which are left out"


def packed(data: bytes) -> str:
    """gzip in base64, the same for the same data."""
    return base64.b64encode(gzip.compress(data, 6, mtime=0)).decode("ascii")


def packed_json(value: Any) -> str:
    return packed(json.dumps(value, allow_nan=False, separators=(",", ":")).encode("ascii"))


class Pieces:
    """Values in packed JSON lists; `starts` are the places of the first of each list."""

    def __init__(self) -> None:
        self.packed: list[str] = []
        self.starts: list[int] = []
        self.count = 0
        self._open: list[Any] = []
        self._size = 0

    def add(self, value: Any, size: int) -> int:
        """The place of the value, which is about `size` characters long."""
        if not self._open:
            self.starts.append(self.count)
        self._open.append(value)
        self._size += size
        self.count += 1
        if self._size >= PIECE:
            self.close()
        return self.count - 1

    def close(self) -> None:
        """Pack what is left."""
        if self._open:
            self.packed.append(packed_json(self._open))
        self._open, self._size = [], 0


class Names:
    """Each text once, and its number."""

    def __init__(self) -> None:
        self.numbers: dict[Any, int] = {}

    def number(self, name: Any) -> int:
        return self.numbers.setdefault(name, len(self.numbers))


@dataclass
class Rollouts:
    """All that the page knows of rollouts, packed."""

    facts: dict[str, Any]
    """Small: runs, names, the words of columns."""
    columns: dict[str, str]
    prompts: list[str]
    texts: list[str]
    notes: list[str] = field(default_factory=list)
    """What the reader must know about them, in sentences."""

    @property
    def count(self) -> int:
        return self.facts["count"]


class _Table:
    """The columns while they are filled."""

    def __init__(self) -> None:
        self.numbers = {name: array("i") for name in NUMBERS}
        self.figures = {name: array("f") for name in FIGURES}
        self.prompts, self.texts = Pieces(), Pieces()
        self.prompt_places: dict[str, int] = {}
        self.problems, self.pools, self.samples, self.draws = Names(), Names(), Names(), Names()

    def add(self, rollout: Shown) -> None:
        numbers = {
            "run": rollout.run,
            "step": rollout.step,
            "place": rollout.place,
            "problem": self.problems.number(printable(rollout.problem)),
            "prompt": self._prompt(rollout),
            "pool": self.pools.number(printable(rollout.pool)),
            "sample": self.samples.number(printable(rollout.sample)),
            "draw": self.draws.number(rollout.draw),
            "marks": marks_of(rollout),
        }
        for name, value in numbers.items():
            self.numbers[name].append(value)
        for name in FIGURES:
            figure = rollout.figures.get(name)
            self.figures[name].append(math.nan if figure is None else figure)
        size = len(rollout.completion or "") + 20 * len(rollout.more)
        more = {key: json_value(value) for key, value in rollout.more.items()}
        self.texts.add([rollout.completion, more], size + sum(len(str(value)) for value in more.values()))

    def _prompt(self, rollout: Shown) -> int:
        """The place of its prompt; -1 without one."""
        if not rollout.prompt:
            return -1
        messages = [[message["role"], message["content"]] for message in rollout.prompt]
        key = json.dumps(messages)
        if key not in self.prompt_places:
            self.prompt_places[key] = self.prompts.add(messages, len(key))
        return self.prompt_places[key]

    def packed_columns(self) -> dict[str, str]:
        """Columns in which every value is the same unknown are left out."""
        found = {name: packed(_bytes(column)) for name, column in self.numbers.items()}
        for name, column in self.figures.items():
            if not all(map(math.isnan, column)):
                found[name] = packed(_bytes(column))
        return found


def _bytes(column: array) -> bytes:
    """Little-endian, four bytes a number."""
    turned = array(column.typecode, column)
    if turned.itemsize != 4:
        raise AssertionError("columns are four bytes wide")
    if array("H", [1]).tobytes()[0] == 0:
        turned.byteswap()
    return turned.tobytes()


def json_value(value: Any) -> Any:
    """NaN and infinities, which JSON has not, as words."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def marks_of(rollout: Shown) -> int:
    """Two bits for each of MARKS."""
    found = 0
    for place, name in enumerate(MARKS):
        bits = BITS[rollout.marks.get(name)]
        found |= bits << (2 * place)
    return found


def gather_rollouts(
    runs: Sequence[Run], most: int | None = None, on_run: Callable[[int], None] = lambda runs: None
) -> Rollouts:
    """The rollouts of all runs, at most about `most`: then those of every so many steps, the same in all
    runs, and of each run's last step; 0 for none.

    `on_run` hears of every run that was read. InputError where a file of rollouts is damaged.
    """
    table = _Table()
    gaps: dict[str, list[str]] = {WITHOUT: [], LACKING: [], OTHER: []}
    if most == 0:
        return Rollouts(_facts(runs, table, 0), {}, [], [], ["Rollouts were left out of this page."])
    every = steps_taken(runs, most)
    for number, run in enumerate(runs):
        known = {row["step"]: len(row["advantages"]) for row in rows_taken(run, every)}
        seen, other = 0, 0
        for step, rollouts in rollouts_of(run, number, every):
            seen += 1
            other += len(rollouts) != known[step]
            for rollout in rollouts:
                table.add(rollout)
        if not seen:
            gaps[WITHOUT].append(run.label)
        elif seen < len(known):
            gaps[LACKING].append(f"{run.label} ({len(known) - seen} of {len(known)})")
        if other and run.kind == "sampled":
            gaps[OTHER].append(f"{run.label} ({other} of {len(known)})")
        on_run(1)
    table.prompts.close()
    table.texts.close()
    count = table.texts.count
    return Rollouts(
        facts=_facts(runs, table, count),
        columns=table.packed_columns() if count else {},
        prompts=table.prompts.packed,
        texts=table.texts.packed,
        notes=_notes(gaps, every, count, sum(map(count_of, runs))),
    )


def _facts(runs: Sequence[Run], table: _Table, count: int) -> dict[str, Any]:
    arms = short_labels(described(runs), without=("seed", "watched"))
    return {
        "count": count,
        "runs": [_run_facts(run, arm) for run, arm in zip(runs, arms, strict=True)],
        "problems": list(table.problems.numbers),
        "pools": list(table.pools.numbers),
        "samples": list(table.samples.numbers),
        "marks": MARKS,
        "promptStarts": table.prompts.starts,
        "textStarts": table.texts.starts,
        "own": POLICY,
        "evalNames": [EVAL_NAME],
        "pay": {"format": FORMAT_PAY, "answer": ANSWER_PAY},
    }


def _run_facts(run: Run, arm: str) -> dict[str, Any]:
    watched = run.watched
    return {
        "label": run.label,
        "arm": arm,
        "seed": run.seed,
        "name": run.path.name,
        "kind": run.kind,
        "intervene": run.arm.intervene,
        "monitor": watched.label if watched else "",
        "teacher": teacher_label(run.config) if run.kind == "sampled" else "",
    }


def _notes(gaps: Mapping[str, list[str]], every: int, count: int, known: int) -> list[str]:
    notes = [f"{words}: {', '.join(named)}." for words, named in gaps.items() if named]
    if every > 1:
        notes.append(f"Of every {every} steps one, and each run's last: {count} of {known} rollouts.")
    return notes
