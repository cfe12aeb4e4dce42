"""The sweep: seeds x arms (x controls), one train.py process a run, with its price before it starts and rules that stop it.

    python sweep.py --preset=full --dry-run --measured=RUN --price-per-hour=4
    python sweep.py --preset=full --probe=out/probe_distill --lora-v-hack=v_lora.safetensors -- --v-hack=v.safetensors
    python sweep.py --preset=full --arms=vanilla,projected -- --v-hack=v.safetensors        # after --: flags for every train.py

What is finished is skipped, what is unfinished goes on from its checkpoint: the same command again continues a sweep.
With --probe nothing starts unless the probe judged the very model and v_hack files that the sweep trains with, and allows it.
The runs come in three stages; what follows a stage waits for all its runs, and with 3 seeds or more for a verdict on them:

1. vanilla; where its hack rate over the last 5 steps is below 0.05 in every seed, there is nothing to suppress: stop;
2. the first projecting arm; where it does not separate from its baseline: stop (the ceiling);
3. the other arms, then the controls (--control-arm with --control=X).

A run that fails in the first two stages withholds the later ones: without a baseline they mean nothing.

Exit codes: 0 all runs are finished, 1 a run failed, 2 bad input, 3 a rule withheld runs, 130 interrupted. --anyway withholds nothing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import fcntl
import heapq
import io
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import rich.box
import rich.table
import tyro
from rich.console import Console
from rich.live import Live

import analyze
import problems
import train
import verdicts
from antipasto import read_metadata
from rundir import differing
from store import (
    ROOT,
    InputError,
    check_numbers,
    exit_on_fault,
    file_hash,
    provenance,
    read_json,
    read_jsonl,
    write_json,
)
from tables import INDENT, Block, Table, print_blocks, shown

TRAIN = ROOT / "train.py"
# The arms in the order of running, and the flags that make them.
ARMS = {
    "vanilla": ["--arm=vanilla"],
    "projected": ["--arm=projected"],
    "lora-vanilla": ["--arm=lora", "--gate=none"],
    "lora": ["--arm=lora"],
}
BASELINES = {
    "projected": ("vanilla",),
    "lora": ("lora-vanilla", "vanilla"),
}  # what an arm is compared with: the first that is planned
OWNED = (
    "--preset",
    "--arm",
    "--control",
    "--seed",
    "--steps",
    "--out",
    "--resume",
    "--no-resume",
)  # flags that this command sets itself
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
CEILING_SEEDS = 3  # spec: "when 3 seeds x 1 arm show no separation, stop"
NEVER_HACKED = 0.05  # ours: a last-5 hack rate below it in every vanilla seed leaves nothing to suppress
REFUSALS = (
    "NO-GO",
    "STOP",
    "NOT YET",
    "NO DECISION",
)  # headlines of verdicts.recommend that do not allow a sweep
# What a run that has no checkpoint yet may hold; a directory with anything else is never removed.
PARTS = re.compile(
    r"config\.json|rows\.jsonl|eval\.jsonl|(v_hack(_\d+)?|removed_\d+)\.safetensors|rollouts|nulls|eval|step_\d+\.cos\.jsonl\.gz|\..*\.tmp"
)
POLL, GRACE = (
    0.5,
    30.0,
)  # seconds between looks at the runs; seconds for a run to end by itself when interrupted


@dataclass(frozen=True)
class Config:
    """Seeds x arms (x controls) as separate train.py runs: planned, priced, resumed, and stopped by the rules."""

    preset: Literal["smoke", "embedded", "fast", "full"] = "embedded"
    """Preset of every run; full is Phase 3: 3 seeds x 3 arms x 200 steps."""
    seeds: str = "41,42,43"
    """Seeds, separated by commas."""
    arms: str = "vanilla,projected,lora"
    """Arms of vanilla, projected, lora-vanilla (the LoRA basis, nothing removed), lora; run in this order, all seeds of one before the next."""
    controls: str = ""
    """Controls to run after the arms, e.g. random,sign-flip,clean-clean,shrink: --control-arm with --control=X."""
    control_arm: Literal["projected", "lora"] = "projected"
    """Arm that the controls are of."""
    steps: int | None = None
    """Steps of every run (default: the preset's)."""
    jobs: int = 1
    """Runs at a time, all on this machine."""
    out: str | None = None
    """Directory of the runs (default: out/sweeps/<preset>)."""
    lora_v_hack: str | None = None
    """v_hack file of the lora arms, whose basis is another: there it replaces a --v-hack given after --."""

    probe: str | None = None
    """Finished Phase 2 probe, e.g. out/probe_distill: its decision rules are applied before anything starts."""
    anyway: bool = False
    """Run although a rule says stop or a run failed; the runs then do not wait for each other either."""
    dry_run: bool = False
    """Print the plan and the verdicts, start nothing, write nothing."""
    price_per_hour: float | None = None
    """Price of one hour of the machine."""
    measured: str | None = None
    """Seconds a step, or a run directory (finished or not) with these settings, made on this kind of machine."""
    set_up_seconds: float | None = None
    """Seconds before a run's first step (default: the measured run's where they can be known, else 60)."""


# --- the runs ------------------------------------------------------------------------------------------------------


@dataclass
class Job:
    """One run of the sweep: what it is, and how far it has come."""

    arm: str  # of ARMS
    control: str
    seed: int
    path: Path
    flags: tuple[str, ...]
    settings: train.Config  # resolved, as config.json will store them
    state: str = "new"  # new, resume, start over, running, done, failed, interrupted, withheld
    step: int = 0  # steps that are safe: in the checkpoint, or while running in rows.jsonl
    note: str = ""
    process: subprocess.Popen | None = None

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def log(self) -> Path:
        return self.path.with_name(f"{self.name}.log")

    @property
    def steps(self) -> int:
        return self.settings.steps

    @property
    def left(self) -> int:
        return 0 if self.state == "done" else max(0, self.steps - self.step)

    def rows(self) -> list[dict]:
        """The rows so far, none beyond the wanted steps."""
        file = self.path / "rows.jsonl"
        return read_jsonl(file, ("step", "seconds", "hack_rate"))[: self.steps] if file.is_file() else []


def listed(text: str, flag: str) -> list[str]:
    """The words of a comma-separated flag. InputError for a word that comes twice."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    if len(set(words)) < len(words):
        raise InputError(f"{flag} {text}: a value comes twice")
    return words


def settings_of(flags: Sequence[str]) -> train.Config:
    """The resolved settings of `train.py FLAGS`. InputError with what train.py would say of flags that it does not take."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return train.resolve(train.parse(flags))
    except SystemExit:
        words = re.sub(
            r"[\u2500-\u257f]+|-{4,}|For full helptext.*", " ", said.getvalue()
        )  # without the box that tyro draws
        raise InputError(f"train.py {' '.join(flags)}: {' '.join(words.split())}") from None


def plan(config: Config, passed: Sequence[str]) -> list[Job]:
    """Every run in the order of running. InputError for settings that train.py refuses, before anything starts."""
    check_numbers(config, at_least={"steps": 1, "jobs": 1, "price_per_hour": 0, "set_up_seconds": 0})
    if taken := [flag for flag in passed if flag.partition("=")[0].replace("_", "-") in OWNED]:
        raise InputError(f"{taken[0]} after --: the sweep sets it itself")
    chosen, controls = listed(config.arms, "--arms"), listed(config.controls, "--controls")
    try:
        seeds = [int(seed) for seed in listed(config.seeds, "--seeds")]
    except ValueError:
        raise InputError(f"--seeds {config.seeds}: expected whole numbers, separated by commas") from None
    if unknown := sorted(set(chosen) - set(ARMS)):
        raise InputError(f"--arms {config.arms}: {unknown[0]!r} is none of {', '.join(ARMS)}")
    if "none" in controls or not seeds or not chosen + controls:
        raise InputError(
            "no run: --seeds and one of --arms and --controls need a value"
            if "none" not in controls
            else "--controls none: not a control"
        )
    kinds = [(arm, "none") for arm in ARMS if arm in chosen] + [
        (config.control_arm, control) for control in controls
    ]
    steps = [] if config.steps is None else [f"--steps={config.steps}"]
    home, jobs = Path(config.out or f"out/sweeps/{config.preset}"), []
    for arm, control in kinds:
        extra = [f"--v-hack={config.lora_v_hack}"] if config.lora_v_hack and "--arm=lora" in ARMS[arm] else []
        if (
            control == "shrink"
            and settings_of([f"--preset={config.preset}", *passed, *ARMS[arm], *extra]).project_at == "grad"
        ):
            raise InputError(
                f"--controls shrink scales the update, and the {arm} arm projects the gradient: add `-- --project-at=update`, for all arms"
            )
        extra += [f"--control={control}"] if control != "none" else []
        more = [*steps, *passed, *ARMS[arm], *extra]  # the last one of a flag counts
        settings = settings_of([f"--preset={config.preset}", *more])
        if arm == "lora" and settings.gate == "none":
            raise InputError(
                "--gate=none after --: the lora arm would remove nothing; that is --arms=lora-vanilla"
            )
        for seed in seeds:
            path = home / f"{arm}{'' if control == 'none' else f'-{control}'}-s{seed}"
            flags = (f"--preset={config.preset}", f"--seed={seed}", f"--out={path}", *more)
            jobs.append(
                Job(arm, control, seed, path, flags, dataclasses.replace(settings, seed=seed, out=str(path)))
            )
    for job in {(job.settings.v_hack, coordinates(job)): job for job in jobs}.values():
        check_basis(job)
    return jobs


def named_file(v_hack: str) -> bool:
    return v_hack not in ("auto", "none")


def coordinates(job: Job) -> str:
    """What the run trains in, in the words of a v_hack file."""
    return f"lora r{job.settings.rank}" if job.settings.arm == "lora" else "svd"


def check_basis(job: Job) -> None:
    """A v_hack in other coordinates would fail only when its arm's turn comes, which may be days later."""
    if not named_file(job.settings.v_hack):
        return
    made, wanted = read_metadata(job.settings.v_hack).get("coordinates", "svd"), coordinates(job)
    if made != wanted:
        way = (
            "--lora-v-hack names the lora arms' file, --arms=vanilla,projected does without"
            if wanted != "svd"
            else "--lora-v-hack is for the lora arms"
        )
        raise InputError(
            f"{job.settings.v_hack}: v_hack in the coordinates {made}, the {job.arm} arm needs {wanted} ({way})"
        )


def survey(job: Job) -> None:
    """Set the job's state and step from what lies in its directory. InputError where that is not this very run."""
    path, file, summary = job.path, job.path / "config.json", job.path / "summary.json"
    job.state, job.step, job.note = "new", 0, ""
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if not file.is_file():
        raise InputError(f"{path}: exists and is no run directory (no config.json)")
    record = read_json(file)
    if not isinstance(record, dict) or "kind" not in record or not isinstance(record.get("config"), dict):
        raise InputError(f"{file}: not the config.json of a run")
    wanted, stored = dataclasses.asdict(job.settings), record["config"]
    differs = [
        f"{key} {stored.get(key)!r}, this sweep has {wanted[key]!r}" for key in differing(stored, wanted)
    ]
    if named_file(job.settings.v_hack) and (record.get("v_hack") or {}).get("hash") not in (
        None,
        file_hash(job.settings.v_hack)[:16],
    ):
        differs.append(f"another content of {job.settings.v_hack}")
    if differs:
        raise InputError(f"{file}: a run with other settings: {'; '.join(differs)}")

    ended = read_json(summary) if summary.is_file() else {}
    steps = ended.get("steps") if isinstance(ended, dict) and ended.get("finished") is True else None
    if steps is not None and steps >= job.steps:
        job.state, job.step = "done", steps
    elif (path / "checkpoint.safetensors").is_file():
        job.state, job.step = "resume", read_metadata(path / "checkpoint.safetensors").get("step", 0)
        if job.step > job.steps:
            raise InputError(f"{path}: unfinished, with {job.step} steps already; this sweep has {job.steps}")
    elif steps is not None:
        raise InputError(
            f"{path}: finished {steps} of {job.steps} steps, and there is no checkpoint.safetensors to go on from"
        )
    else:
        job.state, job.note = "start over", "died before its first checkpoint"
        strangers = [part.name for part in path.iterdir() if not PARTS.fullmatch(part.name)]
        if strangers or path.is_symlink():
            raise InputError(
                f"{path}: {job.note}, but is not only a run's ({', '.join(strangers) or 'a link'}): move it away"
            )


def state_words(job: Job) -> str:
    words = {"resume": f"resume from step {job.step}", "start over": f"start over: {job.note}"}
    return words.get(job.state, job.state)


# --- time and cost -------------------------------------------------------------------------------------------------


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
        known = verdicts.defined(getattr(speed, part) for speed in speeds)
        return float(np.median(known)) if known else None

    return Speed(middle("step"), middle("evaluation"), middle("set_up"), source)


def clock(config: Config, jobs: Sequence[Job]) -> Clock:
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


def differences(config: Config, job: Job) -> list[str]:
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


def plan_blocks(config: Config, jobs: Sequence[Job], groups: Stages, times: Clock) -> list[Block]:
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
    if others := differences(config, jobs[0]):
        lines.append(
            f"WARNING: {config.measured} was made with other settings, hours may be far off: {'; '.join(others)}"
        )
    return [Table("sweep", "The sweep", tuple(columns), records), "\n".join(lines)]


# --- rules ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Decision:
    """What a rule says and from which figures; `stop`: it asks to withhold the runs that follow."""

    rule: str
    verdict: str
    stop: bool
    figures: dict = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.rule}: {self.verdict}"


def same_model(one: str, other: str) -> bool:
    return (
        Path(one).resolve() == Path(other).resolve()
        or problems.is_embedded(one)
        and problems.is_embedded(other)
    )


def unprobed(v_hack: str, basis: str, probed: Sequence[str]) -> str:
    """Why no run of the probe judges this V, and what would."""
    if not named_file(v_hack):
        return (
            "cannot be compared: each run extracts its own V, with the denominator of its own loss, which a replayed one need not share; "
            "write one with extract_vhack.py --out=FILE, give --v-hack=FILE to the probe and after --"
        )
    needed = (
        [f"--v-hack={v_hack}"]
        if basis == "svd"
        else [f"--v-hack={v_hack} --arm=lora --gate=none", f"--v-hack={v_hack} --arm=lora"]
    )
    return f"not among the probe's ({', '.join(probed)}); judge it first: {' and '.join(f'python probe_distill.py {flags}' for flags in needed)}"


def judge_probe(config: Config, jobs: Sequence[Job]) -> tuple[list[Block], list[Decision]]:
    """The decision rules on a finished Phase 2 probe, for every V of the sweep, which the probe must have judged on the sweep's model.

    A sweep that measures no V at all (--v-hack=none) goes by every direction of the probe.
    """
    runs, _ = analyze.find_runs(Path(config.probe))
    runs = [run for run in runs if run.kind == "replay"]
    groups = [
        [run for run in runs if run.setting == setting] for setting in sorted({run.setting for run in runs})
    ]
    groups = [group for group in groups if any(run.control == "none" for run in group)]
    if not groups:
        raise InputError(f"{config.probe}: no finished Phase 2 run in it")
    model, names = (
        jobs[0].settings.model,
        [str((group[0].record["model"] or {}).get("name")) for group in groups],
    )
    groups = [group for group, name in zip(groups, names, strict=True) if same_model(name, model)]
    if not groups:
        return [], [
            Decision(
                "probe, model",
                f"judged on {', '.join(sorted(set(names)))}, this sweep trains {model} (`-- --model=M` says which)",
                True,
            )
        ]
    used, blocks, decisions = (
        {job.settings.v_hack: coordinates(job) for job in jobs if job.settings.v_hack != "none"},
        [],
        [],
    )
    by_hash = lambda wanted: [
        group for group in groups if (group[0].record["v_hack"] or {}).get("hash") == wanted
    ]  # noqa: E731
    own = {v: by_hash(file_hash(v)[:16]) if named_file(v) else [] for v in used}
    for v in [v for v in used if not own[v]]:
        decisions.append(
            Decision(
                f"probe, v_hack {v}", unprobed(v, used[v], [group[0].direction for group in groups]), True
            )
        )
    for group in [group for found in own.values() for group in found] if used else groups:
        evidence = analyze.gather_evidence(group)
        headline, following = verdicts.recommend(verdicts.decision_rules(evidence), evidence)
        blocks += analyze.decision_blocks(group)
        decisions.append(
            Decision(
                f"probe, v_hack {group[0].direction}",
                headline,
                headline.startswith(REFUSALS),
                {"next": following},
            )
        )
    return blocks, decisions


def judge_vanilla(vanilla: Sequence[Job]) -> Decision:
    """Nothing to suppress: the mean hack rate of the last five steps is below NEVER_HACKED in every seed of the baseline."""
    rule = f"does {vanilla[0].arm} hack?"
    last = {
        job.seed: verdicts.curve([row["hack_rate"] for row in job.rows()])[1]
        for job in vanilla
        if job.state == "done"
    }
    figures = {"last5_hack_rate": last, "threshold": NEVER_HACKED}
    listing = ", ".join(f"s{seed} {verdicts.plain(value, 3)}" for seed, value in last.items())
    if len(last) < CEILING_SEEDS or None in last.values():
        return Decision(
            rule,
            f"undecided: last 5 steps known for {len(verdicts.defined(last.values()))} seeds, {CEILING_SEEDS} needed",
            False,
            figures,
        )
    if all(value < NEVER_HACKED for value in last.values()):
        return Decision(
            rule,
            f"nothing to suppress: hack rate of the last 5 steps below {NEVER_HACKED:g} in every seed ({listing})",
            True,
            figures,
        )
    return Decision(rule, f"yes: hack rate of the last 5 steps {listing}", False, figures)


def judge_separation(vanilla: Sequence[Job], other: Sequence[Job]) -> Decision:
    """The ceiling: the area under the hack-rate curve, arm minus baseline paired by seed, must be below 0 beyond chance."""
    area = [
        {
            (job.seed,): verdicts.curve([row["hack_rate"] for row in job.rows()])[2]
            for job in arm
            if job.state == "done"
        }
        for arm in (other, vanilla)
    ]
    gap = verdicts.paired(*area)
    rule = f"ceiling: does {other[0].arm} separate from {vanilla[0].arm}?"
    figures = {
        arm[0].arm: {s: value for (s,), value in known.items()}
        for arm, known in zip((other, vanilla), area, strict=True)
    } | vars(gap)
    measured = f"area under the hack-rate curve {verdicts.with_interval(gap)} over {gap.n_first} seeds"
    if gap.n_first < CEILING_SEEDS:
        return Decision(
            rule,
            f"undecided: {gap.n_first} seeds finished in both arms, {CEILING_SEEDS} needed",
            False,
            figures,
        )
    # Equal differences in all seeds have no interval: then the sign alone decides.
    if gap.high < 0 if gap.high is not None else gap.difference < 0:
        return Decision(rule, f"yes: {measured}", False, figures)
    return Decision(rule, f"no separation: {measured}; stop, save the runs that follow", True, figures)


Stages = dict[
    str, list[Job]
]  # in the order of running: baseline, first (projecting arm), rest; or all, where none waits for another


def arms_of(jobs: Sequence[Job]) -> set[str]:
    return {job.arm for job in jobs if job.control == "none"}


def stages(jobs: Sequence[Job], config: Config) -> Stages:
    """The baseline of the first projecting arm that has one (and vanilla, where that is another), that arm, the rest."""
    planned = arms_of(jobs)
    pairs = [
        (arm, baseline)
        for arm, known in BASELINES.items()
        for baseline in known
        if {arm, baseline} <= planned
    ]
    first, baseline = pairs[0] if pairs else (None, "vanilla")
    if config.anyway or baseline not in planned:
        return {"all": list(jobs)}
    place = {"vanilla": "baseline", baseline: "baseline", first: "first"}
    groups: Stages = {"baseline": [], "first": [], "rest": []}
    for job in jobs:
        groups["rest" if job.control != "none" else place.get(job.arm, "rest")].append(job)
    return {name: group for name, group in groups.items() if group}


def judge(groups: Stages, name: str) -> Decision | None:
    """The verdict after a stage; None where no rule looks at it, or nothing waits for it."""
    if name not in ("baseline", "first") or len(groups) == 1:
        return None
    baseline = [
        job for job in groups["baseline"] if job.arm == groups["baseline"][-1].arm
    ]  # where vanilla comes before it, vanilla is not the first arm's
    return judge_vanilla(baseline) if name == "baseline" else judge_separation(baseline, groups["first"])


# --- running -------------------------------------------------------------------------------------------------------


class Board:
    """One live table on a terminal; elsewhere a line whenever a run changes its state."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.jobs, self.console = jobs, Console(markup=False, emoji=False, highlight=False)
        self.live = (
            Live(console=self.console, get_renderable=self.table, refresh_per_second=2)
            if self.console.is_terminal
            else None
        )

    def table(self) -> rich.table.Table:
        drawn = rich.table.Table(box=rich.box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for name in ("run", "state", "step", "hacked", "solved", "s/step", "left"):
            drawn.add_column(name, no_wrap=True)
        drawn.add_column("", overflow="ellipsis", no_wrap=True)
        for job in self.jobs:
            row = (job.rows() or [{}])[-1] if job.state == "running" else {}
            rates = [verdicts.plain(row[key]) if key in row else "" for key in ("hack_rate", "gt_rate")]
            left = f"{job.left * row['seconds'] / 60:.0f} min" if row else ""
            drawn.add_row(
                job.name,
                job.state,
                f"{job.step}/{job.steps}",
                *rates,
                f"{row['seconds']:.1f}" if row else "",
                left,
                job.note,
            )
        return drawn

    def say(self, text: str) -> None:
        """A line that stays, above the table."""
        self.console.print(text, soft_wrap=True)

    def changed(self, job: Job) -> None:
        if self.live is None:
            self.say(
                f"{time.strftime('%H:%M:%S')} {job.name}: {job.state}, step {job.step}/{job.steps}{f' ({job.note})' if job.note else ''}"
            )

    def __enter__(self) -> Board:
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *fault) -> None:
        if self.live:
            self.live.stop()


def start(job: Job, board: Board, lock: int) -> None:
    """Start the run's process. Its log lies beside its directory, which must be new."""
    resume = ["--resume"] if job.state == "resume" else []
    if job.state == "start over":
        board.say(f"{job.path}: {job.note}; removed, it starts over")
        shutil.rmtree(job.path)
    command = [sys.executable, str(TRAIN), *job.flags, *resume]
    with open(job.log, "a", encoding="utf-8") as log:
        log.write(f"$ {' '.join(command)}\n")
        log.flush()
        # Its own session: Ctrl-C reaches this process alone, which then ends the runs. It holds the lock as well, so that
        # no other sweep touches the directory while a run goes on, even when this process was killed.
        job.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            pass_fds=(lock,),
        )
    job.state, job.note = "running", "resumed" if resume else ""
    board.changed(job)


def settle(job: Job, board: Board) -> None:
    """Record how a run ended: done only if its directory says so."""
    code, job.state = job.process.returncode, "failed"
    summary = job.path / "summary.json"
    ended = read_json(summary) if code == 0 and summary.is_file() else {}
    if ended.get("finished") is True and ended.get("steps", 0) >= job.steps:
        job.state, job.step, job.note = "done", ended["steps"], ""
    else:
        lines = job.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        job.note = f"exit code {code}: {lines[-1].strip()}"
    board.changed(job)


def interrupt(running: Sequence[Job], board: Board) -> None:
    """End the runs as Ctrl-C would, and wait for them; one that does not end, or a second Ctrl-C, kills. Checkpoints stay."""
    for job in running:
        job.process.send_signal(signal.SIGINT)
    for job in running:
        try:
            job.process.wait(GRACE)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            job.process.kill()
            job.process.wait()
        job.state = "interrupted"
        board.changed(job)


def run_stage(group: Sequence[Job], board: Board, *, at_once: int, lock: int) -> None:
    """Run what is not done, `at_once` at a time, in order. A run that fails does not stop the others."""
    waiting, running = [job for job in group if job.state != "done"], []
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                running.append(waiting.pop(0))
                start(running[-1], board, lock)
            time.sleep(POLL)
            for job in running:
                job.step = max(job.step, len(job.rows()))
            for job in [job for job in running if job.process.poll() is not None]:
                running.remove(job)
                settle(job, board)
    finally:
        interrupt([job for job in running if job.process is not None], board)


@contextlib.contextmanager
def locked(directory: Path, say) -> Iterator[int]:
    """Hold the directory's lock; yields its descriptor. InputError when another sweep, or a run that it left behind, holds it.

    The kernel drops the lock when its last holder ends, so a stale one cannot block: the pid that it still names is only reported.
    """
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "sweep.lock"
    with open(path, "a+", encoding="utf-8") as file:
        file.seek(0)
        pid = file.read().strip()
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"{path}: held by the sweep with pid {pid or 'unknown'}, or by a run that it started; it must end first"
            ) from None
        if pid:
            say(f"{path}: stale lock of pid {pid}, which is gone; taken over")
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        try:
            yield file.fileno()
        finally:
            file.truncate(0)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM and SIGHUP end the sweep as Ctrl-C does, except where the shell (nohup) had them ignored."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    before = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def outcome(job: Job, times: Clock) -> dict:
    return {
        "run": job.name,
        "arm": job.arm,
        "control": job.control,
        "seed": job.seed,
        "steps": job.steps,
        "steps_done": job.step,
        "state": job.state,
        "note": job.note or None,
        "hours_to_go": times.hours(job),
        "path": job.path,
        "log": job.log,
        "flags": job.flags,
    }


def withhold(jobs: Sequence[Job], why: str) -> None:
    for job in jobs:
        job.state, job.note = "withheld", why


def write_outcome(
    config: Config,
    passed: Sequence[str],
    jobs: Sequence[Job],
    times: Clock,
    *,
    planned: Sequence[dict],
    decisions: Sequence[Decision],
    stopped: bool,
) -> None:
    write_json(
        jobs[0].path.parent / "sweep.json",
        {
            "config": dataclasses.asdict(config),
            "train_flags": passed,
            **provenance(),
            "plan": planned,
            "decisions": [dataclasses.asdict(decision) for decision in decisions],
            "stopped": stopped,
            "runs": [outcome(job, times) for job in jobs],
        },
    )


def refuse_sweep(
    config: Config, passed: Sequence[str], jobs: Sequence[Job], decisions: Sequence[Decision], say
) -> None:
    """Nothing runs, because the probe says so; `sweep.json` says it too."""
    with locked(jobs[0].path.parent, say):
        for job in jobs:
            survey(job)
        times = clock(config, jobs)
        planned = [outcome(job, times) for job in jobs]
        withhold(
            [job for job in jobs if job.state != "done"],
            next(str(decision) for decision in decisions if decision.stop),
        )
        write_outcome(config, passed, jobs, times, planned=planned, decisions=decisions, stopped=True)


def run_sweep(config: Config, passed: Sequence[str], jobs: Sequence[Job], decisions: list[Decision]) -> bool:
    """Run it stage by stage under the lock; True when a rule withheld runs. `sweep.json` is written however it ends."""
    groups, stopped = stages(jobs, config), False
    with interruptible(), Board(jobs) as board, locked(jobs[0].path.parent, board.say) as lock:
        for job in jobs:  # once more: another sweep may have held the lock until now
            survey(job)
        times = clock(config, jobs)
        planned = [outcome(job, times) for job in jobs]
        try:
            for number, (name, group) in enumerate(groups.items()):
                run_stage(group, board, at_once=config.jobs, lock=lock)
                failed = [job.name for job in group if job.state == "failed"]
                later = [
                    job
                    for after in list(groups.values())[number + 1 :]
                    for job in after
                    if job.state != "done"
                ]
                if failed and name in ("baseline", "first"):
                    withhold(later, f"{', '.join(failed)} failed")
                    break
                if decision := judge(groups, name):
                    decisions.append(decision)
                    board.say(str(decision))
                if decision and decision.stop and later:
                    stopped = True
                    withhold(later, str(decision))
                    break
        finally:
            write_outcome(config, passed, jobs, times, planned=planned, decisions=decisions, stopped=stopped)
    return stopped


# --- command -------------------------------------------------------------------------------------------------------


def sweep(config: Config, passed: Sequence[str] = ()) -> int:
    """Plan, judge, run; returns the exit code (see the top of the file)."""
    jobs = plan(config, passed)
    for job in jobs:
        survey(job)
    groups = stages(jobs, config)
    print_blocks(plan_blocks(config, jobs, groups, clock(config, jobs)))
    console = Console(markup=False, emoji=False, highlight=False, soft_wrap=True)

    blocks, decisions = judge_probe(config, jobs) if config.probe else ([], [])
    print_blocks(blocks)
    refused = [decision for decision in decisions if decision.stop]
    for decision in decisions:
        console.print(f"{decision}{' (going on: --anyway)' if decision.stop and config.anyway else ''}")
    if refused and not config.anyway:
        console.print("stopped before anything started; --anyway overrules")
        if not config.dry_run:
            refuse_sweep(config, passed, jobs, decisions, console.print)
        return 3
    if config.dry_run:
        for name, group in groups.items():
            if all(job.state == "done" for job in group) and (decision := judge(groups, name)):
                console.print(str(decision))
        return 0

    stopped = run_sweep(config, passed, jobs, decisions)
    failed = [job for job in jobs if job.state == "failed"]
    for job in failed:
        console.print(f"failed: {job.name}: {job.note} (log: {job.log})")
    if withheld := [job for job in jobs if job.state == "withheld"]:
        names = ", ".join(job.name for job in withheld)
        console.print(
            f"withheld: {names}; {'stopped by a rule: ' if stopped else ''}{withheld[0].note}; --anyway overrules"
        )
    if any(job.state == "done" for job in jobs):
        console.print(f"next: python analyze.py {jobs[0].path.parent}")
    return 3 if stopped else 1 if failed else 0


def main(argv: Sequence[str]) -> int:
    cut = argv.index("--") if "--" in argv else len(argv)
    config = tyro.cli(Config, prog="sweep.py", description=__doc__, args=list(argv[:cut]))
    return sweep(config, list(argv[cut + 1 :]))


if __name__ == "__main__":
    exit_on_fault(lambda: sys.exit(main(sys.argv[1:])))
