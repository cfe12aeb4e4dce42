"""Hours and price of a sweep, from what measured runs recorded of their seconds."""

from __future__ import annotations

import contextlib
import heapq
import math
import shlex
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hackward.base.arms import ARMS
from hackward.base.faults import InputError
from hackward.base.files import read_jsonl
from hackward.reports.tables import INDENT, Block, Table, shown
from hackward.runs.settings import PRESETS
from hackward.runs.stored import read_record
from hackward.scheduling.engines import Room
from hackward.scheduling.flags import SweepFlags
from hackward.scheduling.jobs import Job, arms_of, state_words
from hackward.scheduling.plan import Stages

# Settings that bear on the speed of a step, and on the time of the held-out evaluations.
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
CURRENCY = ", in the currency of --price-per-hour"
SET_UP_SECONDS = 60.0  # loading, SVD, v_hack, where no run says


@dataclass(frozen=True)
class Speed:
    """What a run takes, in seconds."""

    step: float
    """Of a step: the median without the first, which warms up."""
    evaluation: float | None
    """Of one held-out evaluation; None: unknown."""
    set_up: float | None
    """Before the first step; None: unknown."""
    source: str


def speed_of(directory: Path) -> Speed | None:
    """What a finished or unfinished run says about its speed; None with fewer than two rows."""
    record = read_record(directory)
    rows = read_jsonl(directory / "rows.jsonl", ("seconds",))
    seconds = [row["seconds"] for row in rows]
    if not all(isinstance(value, (int, float)) and math.isfinite(value) for value in seconds):
        raise InputError(f"{directory / 'rows.jsonl'}: 'seconds' must be a number in every row")
    if len(seconds) < 2:
        return None
    set_up = record.get("seconds_set_up")
    return Speed(statistics.median(seconds[1:]), evaluation_seconds(directory), set_up, str(directory))


def evaluation_seconds(directory: Path) -> float | None:
    """Mean seconds of a held-out evaluation of a run; None where it has none, or one without its time."""
    path = directory / "eval.jsonl"
    lines = read_jsonl(path, ("step",)) if path.is_file() else []
    # All lines of a step carry the seconds of its one evaluation.
    by_step = {line["step"]: line.get("seconds") for line in lines}
    known = [seconds for seconds in by_step.values() if seconds is not None]
    return statistics.fmean(known) if known and len(known) == len(by_step) else None


def evaluations(job: Job) -> int:
    """Held-out evaluations that are to come: after the last step, and every --eval-every steps."""
    every, last = job.settings.eval_every, job.steps
    if not job.settings.eval_samples:
        return 0
    coming = range(job.step + 1, last + 1)
    return sum(step == last or (every > 0 and step % every == 0) for step in coming)


@dataclass(frozen=True)
class Clock:
    """Hours of each run, from the finished runs of this sweep where there are any, else from --measured."""

    speeds: dict[str, Speed]
    """By arm; "" for arms without a finished run."""
    set_up: float
    """Seconds before a run's first step."""

    def hours(self, job: Job) -> float | None:
        """Hours to go; None where nothing was measured."""
        if job.state == "done":
            return 0.0
        speed = self.speeds.get(job.arm) or self.speeds.get("")
        if speed is None:
            return None
        evaluating = evaluations(job) * (speed.evaluation or 0.0)
        return (self.set_up + job.left * speed.step + evaluating) / 3600


def median_of_known(values: Iterable[float | None]) -> float | None:
    """The median of what is known; None where nothing is."""
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def average(speeds: Sequence[Speed], source: str) -> Speed:
    """The medians of several runs."""
    return Speed(
        statistics.median(speed.step for speed in speeds),
        median_of_known(speed.evaluation for speed in speeds),
        median_of_known(speed.set_up for speed in speeds),
        source,
    )


def measured_speed(measured: str) -> Speed:
    """What --measured says. InputError where it is neither a number of seconds nor a run with two steps."""
    speed: Speed | None = None
    with contextlib.suppress(ValueError):
        speed = Speed(float(measured), None, None, "--measured")
    if speed is None:
        speed = speed_of(Path(measured))
    if speed is None or not 0 < speed.step < math.inf:
        raise InputError(
            f"{measured}: --measured needs a number above 0, or a run of two steps or more (the first only"
            " warms up)"
        )
    return speed


def clock(config: SweepFlags, jobs: Sequence[Job]) -> Clock:
    """What the runs will take. InputError for a --measured that says nothing."""
    speeds: dict[str, Speed] = {}
    if config.measured is not None:
        speeds[""] = measured_speed(config.measured)
    finished = [(job.arm, speed_of(job.path)) for job in jobs if job.state == "done"]
    known = [(arm, speed) for arm, speed in finished if speed is not None]
    for arm in dict(known):
        own = [speed for made, speed in known if made == arm]
        speeds[arm] = average(own, f"finished {arm} runs of this sweep: {len(own)}")
    if known:
        speeds[""] = average([speed for _, speed in known], f"finished runs of this sweep: {len(known)}")
    if config.set_up_seconds is not None:
        return Clock(speeds, config.set_up_seconds)
    said = speeds[""].set_up if speeds else None
    return Clock(speeds, SET_UP_SECONDS if said is None else said)


def wall_hours(groups: Stages, times: Clock, jobs: int) -> float | None:
    """Hours until the last run ends, `jobs` at a time and stage after stage.

    It holds if runs do not slow each other down. None where nothing was measured.
    """
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
    stored, wanted = read_record(Path(config.measured))["config"], vars(job.settings)
    return [
        f"{key} {stored.get(key)!r} there, {wanted[key]!r} here"
        for key in (*SPEED_SETTINGS, *EVAL_SETTINGS)
        if stored.get(key) != wanted[key]
    ]


def amount(value: float | None, digits: int = 2) -> str:
    """A number for people; None is unknown."""
    return "unknown" if value is None else f"{value:.{digits}f}"


def product(hours: float | None, price: float | None) -> float | None:
    """Hours times the price per hour; None where either is unknown."""
    return None if hours is None or price is None else hours * price


def plan_blocks(
    config: SweepFlags, jobs: Sequence[Job], groups: Stages, times: Clock, room: Room
) -> list[Block]:
    """The plan as analyze.py prints tables: one row per run, the totals, and what they leave out."""
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
    columns.append(("hours", shown("hours", amount)))
    if config.price_per_hour is not None:
        columns.append(("cost", shown("cost", amount)))
    lines = [
        _what_runs(jobs),
        _totals(config, jobs, groups, times, room),
        _sources(config, jobs, times),
        *_remarks(config, jobs, times),
    ]
    return [Table("sweep", "The sweep", tuple(columns), records), "\n".join(lines)]


def _what_runs(jobs: Sequence[Job]) -> str:
    first, done = jobs[0].settings, sum(job.state == "done" for job in jobs)
    step = f"{first.prompts} prompts x {first.group} rollouts a step, {first.max_new_tokens} new tokens"
    runs = f"runs in {jobs[0].path.parent}: {len(jobs)}, {done} done"
    return f"{runs}; {first.model}, {step}, lr {first.lr:g}"


def _totals(config: SweepFlags, jobs: Sequence[Job], groups: Stages, times: Clock, room: Room) -> str:
    hours = [times.hours(job) for job in jobs]
    known = [value for value in hours if value is not None]
    total = sum(known) * room.gpus_per_run if len(known) == len(hours) else None
    wall = wall_hours(groups, times, room.at_once)
    said = f"to go: {amount(total)} hours of GPU, {amount(wall)} wall hours {room.words}"
    price = config.price_per_hour
    if price is not None and room.one_machine:
        said += f", cost {amount(product(wall, price))} for one machine{CURRENCY}"
    elif price is not None:
        said += f", cost {amount(product(total, price))} if that is the price of a GPU{CURRENCY}"
    if room.at_once > 1:
        said += f" (if {room.at_once} runs at a time do not slow each other down)"
    return said


def _other_model(config: SweepFlags, job: Job) -> str:
    """The flag that names the sweep's model, where it is not the preset's."""
    model = job.settings.model
    return "" if model == PRESETS[config.preset].model else f" --model={shlex.quote(model)}"


def _sources(config: SweepFlags, jobs: Sequence[Job], times: Clock) -> str:
    """Where the hours come from, or how to measure them."""
    if not times.speeds:
        model = _other_model(config, jobs[0])
        measure = f"python train.py --preset={config.preset}{model} --steps=3 --out=DIR"
        return f"{INDENT}hours are unknown; measure: {measure}, then --measured=DIR"
    parts = []
    for arm, speed in sorted(times.speeds.items()):
        of = f" of {arm}" if arm else ""
        parts.append(f"{speed.step:.2f} s a step{of} ({speed.source})")
    return f"from: {'; '.join(parts)}; set-up {times.set_up:.0f} s a run"


def _remarks(config: SweepFlags, jobs: Sequence[Job], times: Clock) -> list[str]:
    """What the hours leave out, and what makes them doubtful."""
    lines, arms = [], arms_of(jobs)
    if jobs[0].settings.eval_samples:
        seconds = times.speeds[""].evaluation if times.speeds else None
        if seconds:
            lines.append(f"held-out evaluation: {seconds:.1f} s each, included")
        else:
            lines.append("held-out evaluation comes on top: no time is known for it")
    for arm in ARMS.values():
        # Of several baselines the first has the arm's own basis, the others differ in that too.
        if arm.name in arms and len(arm.baselines) > 1 and arm.baselines[0] not in arms:
            lines.append(
                f"NOTE: {arm.name} without {arm.baselines[0]} (--arms): what the basis does and what"
                " projection does cannot be told apart"
            )
    if others := "; ".join(other_settings(config, jobs[0])):
        lines.append(
            f"WARNING: {config.measured} was made with other settings, hours may be far off: {others}"
        )
    return lines
