"""Hours and price of a sweep, from runs that were measured."""

from __future__ import annotations

import contextlib
import datetime
import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hackward.base.faults import InputError
from hackward.base.files import read_json, read_jsonl
from hackward.base.statistics import defined
from hackward.reports.tables import INDENT, Block, Table, shown
from hackward.scheduling.plan import Job, SweepFlags, state_words
from hackward.scheduling.rules import Stages, arms_of

SPEED_SETTINGS = (
    "model",
    "problems",
    "dtype",
    "prompts",
    "group",
    "max_new_tokens",
    "checkpointing",
    "micro_tokens",
    "sample_rows",
)
EVAL_SETTINGS = ("eval_every", "eval_samples", "eval_limit", "eval_problems")
SET_UP_SECONDS = 60.0  # loading, SVD, v_hack, where no run says


@dataclass(frozen=True)
class Speed:
    """Seconds of a step (median without the first, which warms up), of one held-out evaluation, and of set-up; None: unknown."""

    step: float
    evaluation: float | None
    set_up: float | None
    source: str


def speed_of(directory: Path) -> Speed | None:
    """What a finished or unfinished run says about its speed; None with fewer than two rows."""
    record, rows, summary = (
        read_json(directory / "config.json"),
        read_jsonl(directory / "rows.jsonl", ("seconds",)),
        directory / "summary.json",
    )
    seconds = [row["seconds"] for row in rows]
    if not all(isinstance(value, (int, float)) and math.isfinite(value) for value in seconds):
        raise InputError(f"{directory / 'rows.jsonl'}: 'seconds' must be a number in every row")
    if len(seconds) < 2:
        return None
    set_up, evaluation = set_up_of(directory, record, sum(seconds)), None
    if summary.is_file() and (directory / "eval.jsonl").is_file():
        rest = (read_json(summary).get("seconds") or 0) - sum(seconds)
        if (
            rest < 1e-3 and set_up is not None
        ):  # the summary counts the steps alone: by the times of the files
            rest = summary.stat().st_mtime - (directory / "config.json").stat().st_mtime - sum(seconds)
        count = len({line["step"] for line in read_jsonl(directory / "eval.jsonl", ("step",))})
        evaluation = rest / count if rest >= 1e-3 and count else None
    return Speed(float(np.median(seconds[1:])), evaluation, set_up, str(directory))


def set_up_of(directory: Path, record: dict, seconds: float) -> float | None:
    """Seconds from the start of a run to its config.json, which is written when all is loaded; None where the times of the files cannot
    tell: resumed runs write it again, and copies carry the time of copying."""
    written, last = ((directory / name).stat().st_mtime for name in ("config.json", "rows.jsonl"))
    if "resumed" in record or last - written < 0.5 * seconds or not record.get("started"):
        return None
    set_up = written - datetime.datetime.fromisoformat(record["started"]).timestamp()
    return set_up if 0 <= set_up <= 24 * 3600 else None


def evaluations(job: Job) -> int:
    """Held-out evaluations that are to come: after the last step, and every --eval-every steps."""
    settings = job.settings
    if not settings.eval_samples:
        return 0
    return sum(
        step == job.steps or bool(settings.eval_every) and step % settings.eval_every == 0
        for step in range(job.step + 1, job.steps + 1)
    )


@dataclass(frozen=True)
class Clock:
    """Hours of each run, from the finished runs of this sweep where there are any, else from --measured; None without either."""

    speeds: dict[str, Speed]  # by arm; "" for arms without a finished run
    set_up: float

    def hours(self, job: Job) -> float | None:
        speed = self.speeds.get(job.arm) or self.speeds.get("")
        if job.state == "done":
            return 0.0
        return (
            None
            if speed is None
            else (self.set_up + job.left * speed.step + evaluations(job) * (speed.evaluation or 0.0)) / 3600
        )


def average(speeds: Sequence[Speed], source: str) -> Speed:
    def middle(part: str) -> float | None:
        known = defined(getattr(speed, part) for speed in speeds)
        return float(np.median(known)) if known else None

    return Speed(middle("step"), middle("evaluation"), middle("set_up"), source)


def clock(config: SweepFlags, jobs: Sequence[Job]) -> Clock:
    """InputError for a --measured that is neither a number of seconds nor a run with two steps."""
    speeds: dict[str, Speed] = {}
    if config.measured is not None:
        with contextlib.suppress(ValueError):
            speeds[""] = Speed(float(config.measured), None, None, "--measured")
        speed = speeds.get("") or speed_of(Path(config.measured))
        if speed is None or not 0 < speed.step < math.inf:
            raise InputError(
                f"{config.measured}: --measured needs a number above 0, or a run of two steps or more (the first only warms up)"
            )
        speeds[""] = speed
    finished = [(job, speed) for job in jobs if job.state == "done" and (speed := speed_of(job.path))]
    for arm in {job.arm for job, _ in finished}:
        own = [speed for job, speed in finished if job.arm == arm]
        speeds[arm] = average(own, f"finished {arm} runs of this sweep: {len(own)}")
    if finished:
        speeds[""] = average(
            [speed for _, speed in finished], f"finished runs of this sweep: {len(finished)}"
        )
    said = speeds[""].set_up if speeds else None
    return Clock(
        speeds, next(value for value in (config.set_up_seconds, said, SET_UP_SECONDS) if value is not None)
    )


def wall_hours(groups: Stages, times: Clock, jobs: int) -> float | None:
    """Hours until the last run ends, `jobs` at a time and stage after stage, if runs do not slow each other down."""
    now = 0.0
    for group in groups.values():
        lanes = [now] * jobs
        for hours in map(times.hours, group):
            if hours is None:
                return None
            heapq.heappush(lanes, heapq.heappop(lanes) + hours)
        now = max(lanes)
    return now


def other_settings(config: SweepFlags, job: Job) -> list[str]:
    """Settings that bear on the speed and that the measured run has otherwise than this sweep."""
    if config.measured is None or not Path(config.measured).is_dir():
        return []
    stored = read_json(Path(config.measured) / "config.json").get("config", {})
    return [
        f"{key} {stored.get(key)!r} there, {getattr(job.settings, key)!r} here"
        for key in (*SPEED_SETTINGS, *EVAL_SETTINGS)
        if hasattr(job.settings, key) and stored.get(key) != getattr(job.settings, key)
    ]


def amount(value: float | None, digits: int = 2) -> str:
    return "unknown" if value is None else f"{value:.{digits}f}"


def product(hours: float | None, price: float | None) -> float | None:
    return None if hours is None or price is None else hours * price


def plan_blocks(config: SweepFlags, jobs: Sequence[Job], groups: Stages, times: Clock) -> list[Block]:
    """The plan as analyze.py prints tables: a row a run, the totals, and what they leave out."""
    records = [
        {
            "run": job.name,
            "arm": job.arm,
            "control": job.control,
            "seed": job.seed,
            "steps": job.steps,
            "state": state_words(job),
            "hours": times.hours(job),
            "cost": product(times.hours(job), config.price_per_hour),
        }
        for job in jobs
    ]
    columns = [(key, shown(key)) for key in ("run", "arm", "control", "seed", "steps", "state")]
    columns += [
        (key, shown(key, amount)) for key in ("hours", "cost")[: 1 if config.price_per_hour is None else 2]
    ]
    hours = [record["hours"] for record in records]
    wall, total = wall_hours(groups, times, config.jobs), None if None in hours else sum(hours)
    first = jobs[0].settings
    lines = [
        f"runs in {jobs[0].path.parent}: {len(jobs)}, {sum(job.state == 'done' for job in jobs)} done; {first.model}, "
        f"{first.prompts} prompts x {first.group} rollouts a step, {first.max_new_tokens} new tokens, lr {first.lr:g}",
        f"to go: {amount(total)} hours of GPU, {amount(wall)} wall hours with --jobs={config.jobs}"
        + (
            ""
            if config.price_per_hour is None
            else f", cost {amount(product(wall, config.price_per_hour))} for one machine"
        )
        + (f" (if {config.jobs} runs at a time do not slow each other down)" if config.jobs > 1 else ""),
    ]
    if times.speeds:
        parts = [
            f"{speed.step:.2f} s a step{f' of {arm}' if arm else ''} ({speed.source})"
            for arm, speed in sorted(times.speeds.items())
        ]
        lines.append(f"from: {'; '.join(parts)}; set-up {times.set_up:.0f} s a run")
    else:
        measure = f"python train.py --preset={config.preset} --steps=3 --out=DIR"
        lines.append(f"{INDENT}hours are unknown; measure: {measure}, then --measured=DIR")
    if first.eval_samples:
        known = times.speeds and times.speeds[""].evaluation
        lines.append(
            f"held-out evaluation: {known:.1f} s each, included"
            if known
            else "held-out evaluation comes on top: no time is known for it"
        )
    if "lora" in (arms := arms_of(jobs)) and "lora-vanilla" not in arms:
        lines.append(
            "NOTE: lora without lora-vanilla (--arms): what the basis does and what projection does cannot be told apart"
        )
    if others := other_settings(config, jobs[0]):
        lines.append(
            f"WARNING: {config.measured} was made with other settings, hours may be far off: {'; '.join(others)}"
        )
    return [Table("sweep", "The sweep", tuple(columns), records), "\n".join(lines)]
