"""The runs of a sweep: which they are, and how far each has come."""

from __future__ import annotations

import dataclasses
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge

from hackward.base.faults import InputError
from hackward.base.files import file_hash, read_json, read_jsonl
from hackward.base.flags import Count, checked
from hackward.base.tensors import read_metadata
from hackward.runs.rundir import differing
from hackward.runs.settings import Config, parse, resolve

# The arms in the order of running, and the flags that make them.
ARM_FLAGS = {
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
# What a run that has no checkpoint yet may hold; a directory with anything else is never removed.
RUN_PARTS = re.compile(
    r"config\.json|rows\.jsonl|eval\.jsonl|(v_hack(_\d+)?|removed_\d+)\.safetensors|rollouts|nulls|eval|step_\d+\.cos\.jsonl\.gz|\..*\.tmp"
)


@dataclass(frozen=True)
class SweepFlags:
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
    steps: Count | None = None
    """Steps of every run (default: the preset's)."""
    jobs: Count = 1
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
    price_per_hour: Annotated[float, Ge(0)] | None = None
    """Price of one hour of the machine."""
    measured: str | None = None
    """Seconds a step, or a run directory (finished or not) with these settings, made on this kind of machine."""
    set_up_seconds: Annotated[float, Ge(0)] | None = None
    """Seconds before a run's first step (default: the measured run's where they can be known, else 60)."""


@dataclass
class Job:
    """One run of the sweep: what it is, and how far it has come."""

    arm: str  # of ARMS
    control: str
    seed: int
    path: Path
    flags: tuple[str, ...]
    settings: Config  # resolved, as config.json will store them
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


def settings_of(flags: Sequence[str]) -> Config:
    """The resolved settings of `train.py FLAGS`. InputError with what train.py would say of flags that it does not take."""
    try:
        return resolve(parse(flags))
    except InputError as fault:
        raise InputError(f"train.py {' '.join(flags)}: {fault}") from None


def plan(config: SweepFlags, passed: Sequence[str]) -> list[Job]:
    """Every run in the order of running. InputError for settings that train.py refuses, before anything starts."""
    checked(config)
    if taken := [flag for flag in passed if flag.partition("=")[0].replace("_", "-") in OWNED]:
        raise InputError(f"{taken[0]} after --: the sweep sets it itself")
    chosen, controls = listed(config.arms, "--arms"), listed(config.controls, "--controls")
    try:
        seeds = [int(seed) for seed in listed(config.seeds, "--seeds")]
    except ValueError:
        raise InputError(f"--seeds {config.seeds}: expected whole numbers, separated by commas") from None
    if unknown := sorted(set(chosen) - set(ARM_FLAGS)):
        raise InputError(f"--arms {config.arms}: {unknown[0]!r} is none of {', '.join(ARM_FLAGS)}")
    if "none" in controls or not seeds or not chosen + controls:
        raise InputError(
            "no run: --seeds and one of --arms and --controls need a value"
            if "none" not in controls
            else "--controls none: not a control"
        )
    kinds = [(arm, "none") for arm in ARM_FLAGS if arm in chosen] + [
        (config.control_arm, control) for control in controls
    ]
    steps = [] if config.steps is None else [f"--steps={config.steps}"]
    home, jobs = Path(config.out or f"out/sweeps/{config.preset}"), []
    for arm, control in kinds:
        extra = (
            [f"--v-hack={config.lora_v_hack}"]
            if config.lora_v_hack and "--arm=lora" in ARM_FLAGS[arm]
            else []
        )
        if (
            control == "shrink"
            and settings_of([f"--preset={config.preset}", *passed, *ARM_FLAGS[arm], *extra]).project_at
            == "grad"
        ):
            raise InputError(
                f"--controls shrink scales the update, and the {arm} arm projects the gradient: add `-- --project-at=update`, for all arms"
            )
        extra += [f"--control={control}"] if control != "none" else []
        more = [*steps, *passed, *ARM_FLAGS[arm], *extra]  # the last one of a flag counts
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
        strangers = [part.name for part in path.iterdir() if not RUN_PARTS.fullmatch(part.name)]
        if strangers or path.is_symlink():
            raise InputError(
                f"{path}: {job.note}, but is not only a run's ({', '.join(strangers) or 'a link'}): move it away"
            )


def state_words(job: Job) -> str:
    words = {"resume": f"resume from step {job.step}", "start over": f"start over: {job.note}"}
    return words.get(job.state, job.state)
