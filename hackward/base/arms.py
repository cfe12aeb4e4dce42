"""The arms, once: what a run trains, what it takes out, and which arm it is compared with. No torch in here.

Training, the sweep and the reports all read this table. `arm_of` turns the settings of a run into its arm;
nothing else decodes `--arm`, `--gate`, `--project-at` and `--control`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

# The words of the flags; `none` as a control is v_hack itself, as a gate it takes nothing out.
ArmFlag = Literal["vanilla", "projected", "lora"]
Gate = Literal["one-sided", "two-sided", "none"]
Place = Literal["grad", "update"]
Control = Literal["none", "random", "sign-flip", "clean-clean", "shrink"]
CONTROLS = get_args(Control)[1:]
HACKWARD_GATES = ("one-sided", "two-sided")  # those that lower the cosine with v_hack


@dataclass(frozen=True)
class Arm:
    """One arm with the settings that make it what it is. Everything else is the same in all arms."""

    name: str
    """Of ARMS."""
    flag: ArmFlag
    """Its `--arm`."""
    basis: str
    """What is trained: "svd" (delta_S) or "lora" (the B of a LoRA)."""
    gate: Gate
    """Which coefficients along v_hack it takes out: "one-sided", "two-sided", or "none": it measures only."""
    place: Place = "grad"
    """Of what: the gradient before the optimizer ("grad") or the update after it ("update")."""
    control: Control = "none"
    """What is removed in the place of v_hack (one of CONTROLS), or "none": v_hack itself."""
    baselines: tuple[str, ...] = ()
    """Names of the arms that it may be compared with: the first one that was run counts."""

    @property
    def vanilla(self) -> bool:
        """Does it only measure?"""
        return self.gate == "none"

    @property
    def projects(self) -> bool:
        """Does it take hack-ward directions out? A shrinking control edits the length only."""
        return self.gate in HACKWARD_GATES and self.control != "shrink"

    @property
    def flags(self) -> list[str]:
        """The flags of train.py that choose this arm, without its control."""
        return [f"--arm={self.flag}"] + ["--gate=none"] * (self.vanilla and self.flag != "vanilla")

    @property
    def label(self) -> str:
        """Its name for tables."""
        return self.name.replace("-", " ")

    def coordinates(self, rank: int) -> str:
        """What it trains in, in the words of a v_hack file."""
        return f"lora r{rank}" if self.basis == "lora" else self.basis


ARMS = {
    arm.name: arm
    for arm in (
        Arm("vanilla", flag="vanilla", basis="svd", gate="none"),
        Arm("projected", flag="projected", basis="svd", gate="one-sided", baselines=("vanilla",)),
        Arm("lora-vanilla", flag="lora", basis="lora", gate="none"),
        Arm("lora", flag="lora", basis="lora", gate="one-sided", baselines=("lora-vanilla", "vanilla")),
    )
}
FLAGS = get_args(ArmFlag)


def arm_of(settings: Mapping[str, Any]) -> Arm:
    """The arm of a run with these settings (`config` of its config.json, or vars of its Config).

    An arm is told by its basis and gate: `--arm=lora --gate=none` is vanilla in the LoRA basis. A gate that
    no arm of the basis has makes another kind of the basis's first projecting arm. Raises KeyError for an
    `arm` that is none of FLAGS.
    """
    own, gate = ARMS[settings["arm"]], settings["gate"] or own_gate(settings["arm"])
    if own.vanilla:
        return own
    kin = [arm for arm in ARMS.values() if arm.basis == own.basis]
    first = next(arm for arm in kin if not arm.vanilla)
    arm = next((arm for arm in kin if arm.gate == gate), first)
    if arm.vanilla:
        return arm
    return replace(arm, gate=gate, place=settings["project_at"], control=settings["control"])


def own_gate(flag: ArmFlag) -> Gate:
    """The gate of a run that names none; vanilla, which has no use for one, records the usual one."""
    return "one-sided" if ARMS[flag].vanilla else ARMS[flag].gate
