"""The arms, once: what a run trains, what it takes out, and which arm it is compared with. No torch in here.

Training, the sweep and the reports all read this table. `arm_of` turns the settings of a run into its arm;
nothing else decodes `--arm`, `--gate`, `--project-at` and `--control`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any, Literal, get_args

# The words of the flags. As a control `none` is v_hack itself; as a gate, nothing is taken out; as an
# intervention, a monitor only looks on; as a monitor, nobody looks.
ArmFlag = Literal["vanilla", "projected", "lora", "penalty", "screen"]
Gate = Literal["one-sided", "two-sided", "none"]
Place = Literal["grad", "update"]
Control = Literal["none", "random", "sign-flip", "clean-clean", "shrink"]
Intervene = Literal["none", "penalty", "screen"]
MonitorName = Literal["none", "truth", "attempt", "v_hack", "probe"]
CONTROLS = get_args(Control)[1:]
PLACEBO = ("random",)  # the control of every intervention: as many flags, drawn at random
DEFAULT_FPR = 0.05
HACKWARD_GATES = ("one-sided", "two-sided")  # those that lower the cosine with v_hack


@dataclass(frozen=True)
class Watched:
    """A monitor with the settings that its flags depend on; those that mean nothing to it are left at
    None."""

    monitor: MonitorName
    noise: float | None = None
    """Probability that a flag of `truth` is flipped."""
    score: str | None = None
    """Of v_hack: "cosine" or "whitened"."""
    fpr: float | None = None
    """Of v_hack and probe: share of honest answers that the threshold lets through."""
    rows: str = "all"
    """Whose rollouts may be flagged: "all", "own", "teacher"."""

    @property
    def label(self) -> str:
        """What tells it from others, default settings left out."""
        parts: list[str] = [self.monitor]
        if self.noise:
            parts.append(f"noise {self.noise:g}")
        if self.score not in (None, "cosine"):
            parts.append(str(self.score))
        if self.fpr not in (None, DEFAULT_FPR):
            parts.append(f"fpr {self.fpr:g}")
        if self.rows != "all":
            parts.append(f"{self.rows} rows")
        return " ".join(parts)


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
    """Which coefficients along v_hack it takes out: "one-sided", "two-sided", or "none": none of them."""
    place: Place = "grad"
    """Of what: the gradient before the optimizer ("grad") or the update after it ("update")."""
    intervene: Intervene = "none"
    """What happens to the rollouts that its monitor flags."""
    watched: Watched | None = None
    """The monitor that it intervenes by; None where it does not intervene (one may look on all the same)."""
    control: Control = "none"
    """What stands in the place of v_hack, or of the monitor's flags (one of CONTROLS); "none": they do."""
    baselines: tuple[str, ...] = ()
    """Names of the arms that it may be compared with: the first one that was run counts."""

    @property
    def edits(self) -> bool:
        """Does it change gradients or updates?"""
        return self.gate != "none"

    @property
    def vanilla(self) -> bool:
        """Does it only measure?"""
        return not self.edits and self.intervene == "none"

    @property
    def projects(self) -> bool:
        """Does it take hack-ward directions out? A shrinking control edits the length only."""
        return self.gate in HACKWARD_GATES and self.control != "shrink"

    @property
    def uses_v_hack(self) -> bool:
        """Does what it does depend on v_hack?"""
        return self.edits or (self.watched is not None and self.watched.monitor == "v_hack")

    @property
    def uses_pairs(self) -> bool:
        """Does what it does depend on v_hack, or on the pairs that v_hack is made from?"""
        return self.uses_v_hack or (self.watched is not None and self.watched.monitor == "probe")

    @property
    def controls(self) -> tuple[str, ...]:
        """Of CONTROLS, those that can be run in its place; `random` is the placebo of an intervention."""
        if self.watched is None:
            return CONTROLS
        return PLACEBO if self.watched.monitor != "v_hack" else (*PLACEBO, "sign-flip", "clean-clean")

    @property
    def flags(self) -> list[str]:
        """The flags of train.py that choose this arm, without its control and its monitor."""
        flags = [f"--arm={self.flag}"]
        if self.basis == "lora" and not self.edits:
            flags.append("--gate=none")
        return flags

    @property
    def label(self) -> str:
        """Its name for tables: "penalty truth", "projected + penalty v_hack"."""
        own = self.name.replace("-", " ")
        if self.watched is None:
            return own
        acts = f"{self.intervene} {self.watched.label}"
        if self.edits:
            return f"{own} + {acts}"
        return acts if self.basis == "svd" else f"{self.basis} {acts}"

    def coordinates(self, rank: int) -> str:
        """What it trains in, in the words of a v_hack file."""
        return f"lora r{rank}" if self.basis == "lora" else self.basis


ARMS = {
    arm.name: arm
    for arm in (
        Arm("vanilla", flag="vanilla", basis="svd", gate="none"),
        Arm("projected", flag="projected", basis="svd", gate="one-sided", baselines=("vanilla",)),
        Arm("penalty", "penalty", basis="svd", gate="none", intervene="penalty", baselines=("vanilla",)),
        Arm("screen", "screen", basis="svd", gate="none", intervene="screen", baselines=("vanilla",)),
        Arm("lora-vanilla", flag="lora", basis="lora", gate="none"),
        Arm("lora", flag="lora", basis="lora", gate="one-sided", baselines=("lora-vanilla", "vanilla")),
    )
}
FLAGS = get_args(ArmFlag)
INTERVENING = ("penalty", "screen")  # flags that are short for vanilla with this intervention


def watched_of(settings: Mapping[str, Any]) -> Watched | None:
    """The monitor that looks on, or intervenes, in a run with these settings; None where nobody looks."""
    monitor = settings.get("monitor", "none")  # runs from before there were monitors do not say
    if monitor == "none":
        return None
    return Watched(
        monitor,
        noise=settings["monitor_noise"] if monitor == "truth" else None,
        score=settings["monitor_score"] if monitor == "v_hack" else None,
        fpr=settings["monitor_fpr"] if monitor in ("v_hack", "probe") else None,
        rows=settings["monitor_rows"],
    )


def refresh_label(settings: Mapping[str, Any]) -> str:
    """How v_hack is made anew in a run with these settings, defaults left out; "" where it never is."""
    if not settings["refresh_every"]:
        return ""
    words = f"refreshed every {settings['refresh_every']}"
    if settings.get("refresh_from", "pairs") == "rollouts":
        words += f" by own {settings.get('refresh_label', 'hacked')}"
    return f"{words} union" if settings.get("refresh", "replace") == "union" else words


def teacher_label(settings: Mapping[str, Any]) -> str:
    """Whose rows are mixed into the groups: "teacher pairs", "no teacher"; "" where that is not recorded."""
    if "teacher_dir" not in settings:
        return ""
    directory = settings["teacher_dir"]
    rows, until = (settings.get(name, 1) for name in ("teacher_rows", "teacher_until"))
    if directory in (None, "none") or not rows or not until:
        return "no teacher"
    return f"teacher {PurePath(directory).name}"


def arm_of(settings: Mapping[str, Any]) -> Arm:
    """The arm of a run with these settings (`config` of its config.json, or vars of its Config).

    An arm is told by its basis, gate and intervention: `--arm=lora --gate=none` is vanilla in the LoRA basis,
    `--arm=penalty` is `--arm=vanilla --intervene=penalty`. What no arm of the table has makes another kind of
    the basis's arm with that gate, or of its first editing arm. Raises KeyError for an `arm` that is none of
    FLAGS.
    """
    own, flag = ARMS[settings["arm"]], settings["arm"]
    gate = (settings["gate"] or own_gate(flag)) if own.edits else "none"
    intervene = own.intervene if own.intervene != "none" else settings.get("intervene", "none")
    kin = [arm for arm in ARMS.values() if arm.basis == own.basis]
    editing = [arm for arm in kin if arm.edits]
    exact = [arm for arm in kin if (arm.gate, arm.intervene) == (gate, intervene)]
    arm = [*exact, *(arm for arm in editing if arm.gate == gate), *editing][0]
    if arm.vanilla:
        return arm
    return replace(
        arm,
        gate=gate,
        place=settings["project_at"] if gate != "none" else "grad",
        intervene=intervene,
        watched=watched_of(settings) if intervene != "none" else None,
        control=settings["control"],
    )


def own_gate(flag: ArmFlag) -> Gate:
    """The gate of a run that names none; arms that do not edit, which have no use for one, record the usual
    one."""
    return ARMS[flag].gate if ARMS[flag].edits else "one-sided"
