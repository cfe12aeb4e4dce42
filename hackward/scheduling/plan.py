"""The runs of a sweep, in the order of running, and in which stages they wait for each other."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path

from hackward.base.arms import ARMS, CONTROLS, arm_of
from hackward.base.faults import InputError
from hackward.base.flags import checked
from hackward.base.tensors import read_metadata
from hackward.runs.settings import Config, parse, resolve
from hackward.scheduling.experiment import read_experiment
from hackward.scheduling.flags import SweepFlags
from hackward.scheduling.jobs import Job, arms_of, named_file

# Flags of train.py that the sweep sets itself.
OF_EVERY_RUN = ("--preset", "--seed", "--steps", "--out", "--resume", "--no-resume")
OF_ARMS = ("--arm", "--control")
DEFAULT_ARMS = "vanilla,projected,lora"

# Jobs by stage, in the order of running: baseline, first (projecting arm), rest; or all, where none waits for
# another.
Stages = dict[str, list[Job]]


def listed(text: str, flag: str) -> list[str]:
    """The words of a comma-separated flag. InputError for a word that comes twice."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    if len(set(words)) < len(words):
        raise InputError(f"{flag} {text}: a value comes twice")
    return words


def seeds_of(config: SweepFlags) -> list[int]:
    """The seeds. InputError for what is no whole number, and for a number that comes twice (41 and 041)."""
    try:
        seeds = [int(seed) for seed in listed(config.seeds, "--seeds")]
    except ValueError:
        raise InputError(f"--seeds {config.seeds}: expected whole numbers, separated by commas") from None
    if len(set(seeds)) < len(seeds):
        raise InputError(f"--seeds {config.seeds}: a value comes twice")
    return seeds


def kinds_of(config: SweepFlags) -> list[tuple[str, str]]:
    """(arm, control) of every kind of run, in the order of running: the arms as in ARMS, then the controls.

    InputError for an arm that is none of ARMS and a control that is none of CONTROLS.
    """
    wanted = DEFAULT_ARMS if config.arms is None else config.arms
    chosen, controls = listed(wanted, "--arms"), listed(config.controls, "--controls")
    if unknown := sorted(set(chosen) - set(ARMS)):
        raise InputError(f"--arms {config.arms}: {unknown[0]!r} is none of {', '.join(ARMS)}")
    if "none" in controls:
        raise InputError("--controls none: not a control")
    if unknown := sorted(set(controls) - set(CONTROLS)):
        raise InputError(f"--controls {config.controls}: {unknown[0]!r} is none of {', '.join(CONTROLS)}")
    arms = [(arm, "none") for arm in ARMS if arm in chosen]
    return arms + [(config.control_arm, control) for control in controls]


def settings_of(flags: Sequence[str]) -> Config:
    """The resolved settings of `train.py FLAGS`.

    InputError with what train.py would say of flags that it refuses.
    """
    try:
        return resolve(parse(flags))
    except InputError as fault:
        raise InputError(f"train.py {shlex.join(flags)}: {fault}") from None


def plan(config: SweepFlags, passed: Sequence[str]) -> list[Job]:
    """Every run in the order of running; `passed` are flags for every train.py.

    InputError for settings that train.py refuses, before anything starts.
    """
    checked(config)
    owned = OF_EVERY_RUN if config.experiment else OF_EVERY_RUN + OF_ARMS
    refuse_owned(passed, owned, "after --")
    seeds = seeds_of(config)
    if config.experiment:
        jobs = _experiment(config, passed, seeds)
    else:
        kinds = kinds_of(config)
        jobs = [job for arm, control in kinds for job in _jobs_of(config, passed, arm, control, seeds)]
    if not jobs:
        raise InputError("no run: --seeds and one of --arms and --controls need a value")
    for job in {(job.settings.v_hack, job.coordinates): job for job in jobs}.values():
        check_basis(job)
    return jobs


def refuse_owned(flags: Sequence[str], owned: Sequence[str], where: str) -> None:
    """InputError for a flag that the sweep sets itself."""
    for flag in flags:
        if flag.partition("=")[0].replace("_", "-") in owned:
            raise InputError(f"{flag} {where}: the sweep sets it itself")


def _experiment(config: SweepFlags, passed: Sequence[str], seeds: Sequence[int]) -> list[Job]:
    """The runs of --experiment, arm by arm as the file has them, one per seed."""
    for flag in ("controls", "lora_v_hack"):
        if getattr(config, flag):
            name = f"--{flag.replace('_', '-')}"
            raise InputError(f"{name} with --experiment: the arms of the file have flags of their own")
    path = Path(str(config.experiment))
    arms = read_experiment(path)
    chosen = list(arms) if config.arms is None else listed(config.arms, "--arms")
    if unknown := sorted(set(chosen) - set(arms)):
        raise InputError(f"--arms {config.arms}: {unknown[0]!r} is none of {', '.join(arms)} ({path})")
    jobs: list[Job] = []
    known: dict[str, str] = {}
    for name, own in arms.items():
        refuse_owned(own, OF_EVERY_RUN, f"of the arm {name} in {path}")
        flags = _steps_first(config, [*passed, *own])
        settings = settings_of([f"--preset={config.preset}", *flags])
        first = known.setdefault(repr(settings), name)
        if first != name:
            raise InputError(f"{path}: the arms {first} and {name} are the same")
        if name in chosen:
            jobs += _by_seed(config, name, flags, settings, seeds)
    return jobs


def _steps_first(config: SweepFlags, flags: list[str]) -> list[str]:
    return flags if config.steps is None else [f"--steps={config.steps}", *flags]


def _by_seed(
    config: SweepFlags, name: str, flags: Sequence[str], settings: Config, seeds: Sequence[int]
) -> list[Job]:
    """The runs of one kind, one per seed; their directories have its name."""
    home = Path(config.out or f"out/sweeps/{config.preset}")
    made = arm_of(vars(settings))
    jobs = []
    for seed in seeds:
        path = home / f"{name}-s{seed}"
        whole = (f"--preset={config.preset}", f"--seed={seed}", f"--out={path}", *flags)
        own = checked(dataclasses.replace(settings, seed=seed, out=str(path)))
        jobs.append(Job(made.name, settings.control, seed, path, whole, own))
    return jobs


def _jobs_of(
    config: SweepFlags, passed: Sequence[str], arm: str, control: str, seeds: Sequence[int]
) -> list[Job]:
    """The runs of one arm and control, one per seed."""
    preset = f"--preset={config.preset}"
    # The last one of a flag counts: what makes the arm comes after what the user passed.
    chosen = [*passed, *ARMS[arm].flags]
    if config.lora_v_hack and ARMS[arm].basis == "lora":
        chosen.append(f"--v-hack={config.lora_v_hack}")
    if control == "shrink" and settings_of([preset, *chosen]).project_at == "grad":
        raise InputError(
            f"--controls shrink scales the update, and the {arm} arm projects the gradient:"
            " add `-- --project-at=update`, for all arms"
        )
    if control != "none":
        chosen.append(f"--control={control}")
    chosen = _steps_first(config, chosen)
    settings = settings_of([preset, *chosen])
    made = arm_of(vars(settings))
    if made.vanilla and not ARMS[arm].vanilla:
        raise InputError(
            f"--gate=none after --: the {arm} arm would remove nothing; that is --arms={made.name}"
        )

    name = arm if control == "none" else f"{arm}-{control}"
    return _by_seed(config, name, chosen, settings, seeds)


def check_basis(job: Job) -> None:
    """A v_hack in other coordinates would fail only when its arm's turn comes, which may be days later."""
    if not named_file(job.settings.v_hack):
        return
    made = read_metadata(job.settings.v_hack).get("coordinates", "svd")
    # Which layers (" of ...") depends on the model: the run itself compares them.
    if made.partition(" of ")[0] == job.coordinates:
        return
    if ARMS[job.arm].basis == "lora":
        way = "--lora-v-hack names the lora arms' file, --arms=vanilla,projected does without"
    else:
        way = "--lora-v-hack is for the lora arms"
    needed = f"the {job.arm} arm needs {job.coordinates}"
    raise InputError(f"{job.settings.v_hack}: v_hack in the coordinates {made}, {needed} ({way})")


def stages(jobs: Sequence[Job], config: SweepFlags) -> Stages:
    """The baseline of the first projecting arm that has one, that arm, the rest.

    Vanilla is in the first stage too, where it is not that baseline. With --anyway or --experiment, or
    without a baseline, no run waits for another.
    """
    planned = arms_of(jobs)
    pairs = [
        (arm.name, baseline)
        for arm in ARMS.values()
        for baseline in arm.baselines
        if {arm.name, baseline} <= planned
    ]
    first, baseline = pairs[0] if pairs else (None, "vanilla")
    if config.anyway or config.experiment or baseline not in planned:
        return {"all": list(jobs)}
    stage = {"vanilla": "baseline", baseline: "baseline", first: "first"}
    groups: Stages = {"baseline": [], "first": [], "rest": []}
    for job in jobs:
        name = stage.get(job.arm, "rest") if job.control == "none" else "rest"
        groups[name].append(job)
    return {name: group for name, group in groups.items() if group}
