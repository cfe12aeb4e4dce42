"""The rollouts of runs, one by one, as the page shows them: labels, figures, texts.

A sampled run keeps its rollouts with their texts. A run that replays pools keeps figures only; the texts are
looked up in the pools, where those still lie where the run found them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from hackward.base.faults import InputError
from hackward.base.files import POOL_FILE
from hackward.base.records import POLICY, checked_lines
from hackward.reports.kept import kept_lines, kept_steps
from hackward.reports.runs import Run
from hackward.reports.schema import PAGE_LINES

Row = Mapping[str, Any]
Message = dict[str, str]
# Fields of a rollout's line that have a place of their own on the page, or say nothing to a reader
PLACED = {
    *("problem_id", "src_pool", "step", "sample_id", "completion", "problem_messages", "prompt"),
    *("reward", "hacked", "gt_pass", "attempted", "fmt_ok", "truncated", "comp_len"),
    *("monitor_score", "flagged", "prompt_ids", "completion_ids", "plen", "tokenizer"),
}
MORE_FIELDS = 40  # that are shown of a line, at most
PLAIN = (str, int, float, bool)


@dataclass(frozen=True)
class Shown:
    """A rollout on the page. None: not recorded."""

    run: int
    step: int
    """Of training."""
    place: int
    """Among the rollouts of the step."""
    problem: str
    pool: str
    sample: str
    """Its number among the draws of its problem, in its pool."""
    draw: tuple
    """Equal for rollouts of several runs that are the same draw."""
    figures: dict[str, float | None] = field(default_factory=dict)
    """reward, advantage, cosine, contribution, score, length."""
    marks: dict[str, bool | None] = field(default_factory=dict)
    """hacked, solved, attempted, compiles, cut off, flagged."""
    prompt: tuple[Message, ...] = ()
    completion: str | None = None
    more: dict[str, Any] = field(default_factory=dict)


def source_of_draws(run: Run) -> tuple:
    """What two runs must share for the same step, problem and sample to be the same draw.

    The random numbers of a draw follow from seed, step, problem and sample alone; a replayed step from seed
    and step.
    """
    model = run.record["model"]
    pools = tuple(pool["hash"] for pool in run.record["pools"]) if run.kind != "sampled" else ()
    return run.kind, model.get("hash", model["name"]), run.record.get("training"), pools, run.seed


def count_of(run: Run) -> int:
    """How many rollouts its steps had, whether they were kept or not."""
    return sum(len(row["advantages"]) for row in run.rows)


def steps_taken(runs: Sequence[Run], most: int | None) -> int:
    """Of how many steps one is taken, so that about `most` (1 or more) rollouts are shown; 1 takes all."""
    every = sum(count_of(run) for run in runs)
    return 1 if most is None else max(1, math.ceil(every / most))


def rows_taken(run: Run, every: int) -> list[Row]:
    """The rows of every `every`-th step, the same steps in all runs, and of the run's last one: what it came
    to."""
    return [row for row in run.rows if row["step"] % every == 0 or row is run.rows[-1]]


def rollouts_of(run: Run, number: int, every: int = 1) -> Iterator[tuple[int, list[Shown]]]:
    """(step, its rollouts) for those of `rows_taken` that the run kept; `number` is the run's on the page.

    InputError where a file is damaged.
    """
    steps = rows_taken(run, every)
    if run.kind == "sampled":
        kept = kept_steps(run.path, [row["step"] for row in steps])
        for row in steps:
            if row["step"] in kept:
                yield row["step"], _sampled(run, number, row)
        return
    by_step: dict[int, list[dict[str, Any]]] = {}
    for sample in run.samples:
        by_step.setdefault(sample["step"], []).append(sample)
    texts = PoolTexts.of(run)
    for row in steps:
        found = by_step.get(row["step"], [])
        yield row["step"], [_replayed(run, number, sample, texts) for sample in found]


def _sampled(run: Run, number: int, row: Row) -> list[Shown]:
    """The rollouts of a step, with the advantages of rows.jsonl where those are as many."""
    lines = kept_lines(run.path, row["step"], PAGE_LINES)
    advantages = row["advantages"] if len(row["advantages"]) == len(lines) else [None] * len(lines)
    source, taken, found = source_of_draws(run), Counter[tuple](), []
    for place, (line, advantage) in enumerate(zip(lines, advantages, strict=True)):
        pool = line.get("src_pool") or "unknown"
        problem, sample = str(line["problem_id"]), _words(line.get("sample_id"))
        name = (problem, pool, sample, None if pool == POLICY else line.get("step"))
        taken[name] += 1
        found.append(
            Shown(
                run=number,
                step=row["step"],
                place=place,
                problem=problem,
                pool=pool,
                sample=sample,
                draw=(*source, row["step"], *name, taken[name]),
                figures={
                    "reward": line.get("reward"),
                    "advantage": advantage,
                    "score": line.get("monitor_score"),
                    "length": line.get("comp_len"),
                },
                marks=_marks(line),
                prompt=tuple(line.get("problem_messages") or ()),
                completion=line.get("completion"),
                more=_more(line),
            )
        )
    return found


def _replayed(run: Run, number: int, sample: Row, texts: PoolTexts) -> Shown:
    """A rollout of a pool, with its text where the pool still has it."""
    line = texts.line(sample)
    problem = f"{sample['src_pool']} {sample['src_step']}" if line is None else str(line["problem_id"])
    return Shown(
        run=number,
        step=sample["step"],
        place=sample["sample_id"],
        problem=problem,
        pool=sample["src_pool"],
        sample=str(sample["src_sample"]),
        draw=(*source_of_draws(run), sample["step"], sample["sample_id"]),
        figures={
            "reward": sample["reward"],
            "advantage": sample["advantage"],
            "cosine": sample["cos_S_logp"],
            "contribution": sample["cos_S_contrib"],
            "length": sample["comp_len"],
        },
        marks=_marks(sample) if line is None else _marks({**line, **sample}),
        prompt=tuple(line.get("problem_messages") or ()) if line else (),
        completion=line.get("completion") if line else None,
        more=_more(line) if line else {},
    )


def _marks(line: Row) -> dict[str, bool | None]:
    return {
        "hacked": line.get("hacked"),
        "solved": line.get("gt_pass"),
        "attempted": line.get("attempted"),
        "compiles": line.get("fmt_ok"),
        "cut off": line.get("truncated"),
        "flagged": line.get("flagged"),
    }


def _more(line: Row) -> dict[str, Any]:
    """What else the line says in plain values: the grader's reason, and what other writers add."""
    plain = [key for key, value in line.items() if key not in PLACED and isinstance(value, PLAIN)]
    return {key: line[key] for key in plain[:MORE_FIELDS]}


def _words(value: Any) -> str:
    return "" if value is None else str(value)


class PoolTexts:
    """The lines of the pools that a run replayed, by file and sample."""

    def __init__(self, directories: Mapping[str, Path]) -> None:
        """`directories`: where the pool of this name lies, for pools that are there."""
        self.files: dict[tuple[str, int], Path] = {}
        for name, directory in directories.items():
            home = directory / "rollouts" if (directory / "rollouts").is_dir() else directory
            for path in sorted(home.iterdir()):
                numbered = POOL_FILE.fullmatch(path.name)
                if numbered and path.is_file():
                    self.files.setdefault((name, int(numbered["number"])), path)

    @classmethod
    def of(cls, run: Run) -> PoolTexts:
        """Those of the run's pools that are still there; a relative path is looked up where we are."""
        found = {}
        for pool in run.record["pools"]:
            directory = Path(pool["dir"])
            if directory.is_dir():
                found[pool.get("name", directory.name.removesuffix("_pool"))] = directory
        return cls(found)

    def line(self, sample: Row) -> dict[str, Any] | None:
        """The line of this rollout; None where there is none, or where it is another one by now."""
        path = self.files.get((sample["src_pool"], sample["src_step"]))
        if path is None:
            return None
        for place, line in enumerate(_pool_lines(path)):
            number = line.get("sample_id")
            if (number if isinstance(number, int) else place) == sample["src_sample"]:
                same = all(line.get(key) == sample[key] for key in ("reward", "hacked", "gt_pass"))
                return line if same else None
        return None


@lru_cache(maxsize=256)
def _pool_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a pool's file; none where they cannot be read: the run itself is whole all the same."""
    try:
        return checked_lines(path, PAGE_LINES)
    except InputError:
        return []
