"""The flags of a sweep. Light: without numpy, scipy and torch, so that a fault in them is said at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge

from hackward.base.arms import ArmFlag
from hackward.base.flags import Count


@dataclass(frozen=True)
class SweepFlags:
    """Seeds x arms (x controls) as separate train.py runs: planned, priced, resumed, and stopped by the
    rules."""

    preset: Literal["smoke", "embedded", "fast", "full"] = "embedded"
    """Preset of every run; full is Phase 3: 3 seeds x 3 arms x 200 steps."""
    seeds: str = "41,42,43"
    """Seeds, separated by commas."""
    arms: str | None = None
    """Arms of vanilla, projected, lora-vanilla (the LoRA basis, nothing removed), lora; run in this order,
    all seeds of one before the next (default: vanilla,projected,lora; with --experiment all arms of the
    file)."""
    controls: str = ""
    """Controls to run after the arms, e.g. random,sign-flip,clean-clean,shrink: --control-arm with
    --control=X."""
    control_arm: ArmFlag = "projected"
    """Arm that the controls are of."""
    experiment: str | None = None
    """TOML file of arms, each with flags of its own, in the place of the sweep's arms and controls.

    No rule looks at such runs, and none waits for another: the experiment has rules of its own.
    """
    steps: Count | None = None
    """Steps of every run (default: the preset's)."""
    on: Literal["local", "ray", "print"] = "local"
    """What carries the runs.

    local: processes on this machine. ray: tasks of a Ray cluster, whose nodes see this directory under the
    same path; a run whose node dies goes on from its checkpoint on another. print: nothing runs; standard
    output is one shell command per run, for any scheduler, safe to be run again.
    """
    per_gpu: Count | None = None
    """Runs at once on each GPU (default: as many as fit with all their rows at once, by the memory estimate;
    1 where nothing is known)."""
    mps: bool = False
    """local: runs on one GPU compute at the same time, by NVIDIA's Multi-Process Service.

    It begins and ends with the sweep. A fault of the GPU in one run ends the others on it too; the same
    command then goes on from their checkpoints.
    """
    gpus_per_run: Count = 1
    """GPUs of each run, which torchrun then starts."""
    ray_address: str | None = None
    """Ray cluster, e.g. auto or ray-head:6379 (default: one that is started on this machine)."""
    jobs: Count | None = None
    """Runs at a time at the most (default: as many as --per-gpu says; without a GPU 1)."""
    out: str | None = None
    """Directory of the runs (default: out/sweeps/<preset>)."""
    lora_v_hack: str | None = None
    """v_hack file of the lora arms, whose basis is another: there it replaces a --v-hack given after --."""

    probe: str | None = None
    """Finished Phase 2 probe, e.g. out/probe_distill: its decision rules are applied before anything
    starts."""
    anyway: bool = False
    """Run although a rule says stop, the runs do not fit into the GPU together or a run failed.

    The runs then do not wait for each other either.
    """
    dry_run: bool = False
    """Print the plan and the verdicts, start nothing, write nothing."""
    price_per_hour: Annotated[float, Ge(0)] | None = None
    """Price of one hour of the machine, in any currency: costs are in the same."""
    measured: str | None = None
    """Seconds per step, or a run directory (finished or not) with these settings, made on this kind of
    machine."""
    set_up_seconds: Annotated[float, Ge(0)] | None = None
    """Seconds before a run's first step (default: the measured run's where they can be known, else 60)."""
