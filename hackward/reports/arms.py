"""Finished on-policy runs as arms over seeds.

Seeds are the unit. An arm holds finished runs that differ in their seed alone; arms are compared by the
differences within the seeds that both have.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from hackward.base.arms import ARMS, Arm, refresh_label
from hackward.base.breakout import Never, time_to_hack
from hackward.reports.labels import counted, short_labels
from hackward.reports.nulls import one_direction
from hackward.reports.onset import curve
from hackward.reports.runs import Run, described

# Settings that cannot change what training does in the steps that a run has, given all the others. How long a
# run is to be is among them: the learning rate of a step goes by the step alone.
PER_RUN = (
    *("seed", "out", "resume", "preset", "workers", "device", "sandbox", "svd_cache", "micro_tokens"),
    *("sample_rows", "save_every", "v_hack", "eval_every", "eval_samples", "eval_limit"),
    *("checkpointing", "shared_prompts", "track"),
    *("steps", "stop_after_breakout"),
)
# Settings that make an arm what it is. Those of the edit mean nothing to vanilla, those of a LoRA to delta_S,
# those of a monitor that looks on to any arm: the draws are the same.
OF_ARM = (
    *("arm", "control", "gate", "project_at", "objective", "rank", "match_size"),
    *("refresh_every", "refresh_from", "refresh", "refresh_label"),
    *("intervene", "monitor", "monitor_noise", "monitor_score", "monitor_fpr", "monitor_rows"),
)
PARTS = ("first5", "last5", "area")
RATES = {"hack_rate": "hacked", "gt_rate": "solved", "attempt_rate": "attempted"}


def onset(run: Run) -> int | Never | None:
    return time_to_hack(run.column("step"), run.column("hack_rate"))


@dataclass(frozen=True)
class Lora:
    """The settings of a LoRA, of which delta_S knows nothing."""

    rank: int
    match_size: bool
    """Is --lr scaled to it?"""


@dataclass(frozen=True)
class Identity:
    """All that a run is, but for its seed."""

    arm: Arm
    lora: Lora | None
    """None: it trains delta_S."""
    refresh: str
    """In words; "" where v_hack stays, or does not matter (vanilla, a penalty by labels)."""
    objective: str
    direction: str
    """Of its v_hack; "" where that does not matter. Random directions have the shape of one."""
    rest: str
    """What arms under comparison must share: model, pools, problems, all other settings."""


def identity(run: Run) -> Identity:
    config, arm = run.config, run.arm
    settings = {key: value for key, value in config.items() if key not in (*PER_RUN, *OF_ARM)}
    model, _, pools = run.setting
    rest = [settings, model, pools, run.record.get("training")]
    return Identity(
        arm=arm,
        lora=Lora(config["rank"], config["match_size"]) if arm.basis == "lora" else None,
        refresh=refresh_label(config) if arm.uses_pairs else "",
        objective=config["objective"] if arm.uses_pairs else "",
        direction=run.direction if arm.uses_pairs else "",
        rest=json.dumps(rest, sort_keys=True, default=str),
    )


def counting(first: Run, second: Run) -> Run:
    """Of two runs with the same settings and seed the one that counts: finished, longer, or first."""
    return max(first, second, key=lambda run: (run.complete, len(run.rows)))


def unique(runs: Sequence[Run]) -> list[Run]:
    """The runs without those that only repeat another (same settings, same seed; see `counting`).

    What vanilla would have removed is no setting of it.
    """
    once: dict[tuple[Identity, int], Run] = {}
    for run in sorted(runs, key=lambda run: not run.complete):
        name = identity(run), run.seed
        once[name] = counting(once.get(name, run), run)
    return list(once.values())


@dataclass(frozen=True)
class ArmRuns:
    """Finished runs that differ in their seed alone (and in settings that cannot change what they do)."""

    name: str
    runs: dict[int, Run]
    identity: Identity

    @property
    def arm(self) -> Arm:
        return self.identity.arm

    def own_vanilla(self) -> str:
        """The flags of vanilla in this arm's basis."""
        flags, lora = list(ARMS[self.arm.baselines[0]].flags), self.identity.lora
        if lora:
            flags.append(f"--rank={lora.rank}")
        if lora and not lora.match_size:
            flags.append("--no-match-size")
        return " ".join(flags)

    def figures(self, key: str, part: str) -> dict[int, float | None]:
        """A rate's mean over a part of the steps (one of PARTS), by seed."""
        return {seed: curve(run.column(key))[PARTS.index(part)] for seed, run in self.runs.items()}

    def sizes(self) -> dict[int, float | None]:
        """Frobenius norm of Delta W after the last step, by seed; None without a step."""
        return {seed: run.rows[-1]["delta_w_norm"] if run.rows else None for seed, run in self.runs.items()}

    def controls(self, arm: ArmRuns) -> bool:
        """Is this a control of that arm: the same but for what is removed or flagged?"""
        mine = self.identity
        if mine.arm.control == "none" or mine.direction not in ("", arm.identity.direction):
            return False
        same = replace(
            mine,
            arm=replace(mine.arm, control=arm.arm.control),
            direction=arm.identity.direction,
        )
        return same == arm.identity


def by_arm(runs: Sequence[Run]) -> list[ArmRuns]:
    """The finished on-policy runs by arm.

    Of two runs with the same settings and seed the longer one is taken, of two alike the first (see
    `doubles`).
    """
    groups: dict[Identity, dict[int, Run]] = {}
    for run in finished(runs):
        by_seed = groups.setdefault(identity(run), {})
        by_seed[run.seed] = counting(by_seed.get(run.seed, run), run)
    names = names_of(list(groups.values()), runs, ("seed", "watched"))
    named = zip(names, groups.items(), strict=True)
    return [ArmRuns(name, found, what) for name, (what, found) in named]


def names_of(arms: Sequence[dict[int, Run]], runs: Sequence[Run], without: tuple[str, ...]) -> list[str]:
    """What tells each group of runs (by seed) from the others, without some traits.

    Nor by v_hack where its seeds have several.
    """
    paths, every = [run.path for run in runs], described(runs)
    with_v = dict(zip(paths, short_labels(every, without), strict=True))
    without_v = dict(zip(paths, short_labels(every, (*without, "v_hack")), strict=True))
    names = []
    for by_seed in arms:
        found = list(by_seed.values())
        labels = with_v if one_direction(found) else without_v
        names.append(labels[found[0].path])
    return counted(names)


def finished(runs: Sequence[Run]) -> list[Run]:
    """The finished on-policy runs."""
    return [run for run in runs if run.kind == "sampled" and run.complete]


def doubles(runs: Sequence[Run], arms: Sequence[ArmRuns]) -> list[str]:
    """Finished on-policy runs that no arm counts: another with the same settings and seed is there."""
    counted_paths = {run.path for arm in arms for run in arm.runs.values()}
    return [run.label for run in finished(runs) if run.path not in counted_paths]


def baseline(arm: ArmRuns, arms: Sequence[ArmRuns]) -> ArmRuns | None:
    """The vanilla to compare an arm with: of the same settings, the first of `Arm.baselines` that was run."""
    for name in arm.arm.baselines:
        for other in arms:
            if other.arm.name == name and _differ_in_edit(arm, other):
                return other
    return None


def shared_steps(arms: Sequence[ArmRuns]) -> dict[tuple[str, int], set[int]]:
    """(`Identity.rest`, seed) -> the steps that the runs of that seed have in all arms that have it.

    Arms of other settings are under no comparison, so they do not count.
    """
    shared: dict[tuple[str, int], set[int]] = {}
    for arm in arms:
        for seed, run in arm.runs.items():
            steps = set(run.column("step"))
            name = arm.identity.rest, seed
            shared[name] = shared.get(name, steps) & steps
    return shared


def over_shared_steps(arms: Sequence[ArmRuns]) -> list[ArmRuns]:
    """The arms with the rows of `shared_steps` alone, over which a rate can be compared with another arm's.

    Runs that are as long as the others stay as they are.
    """
    shared = shared_steps(arms)
    cut = []
    for arm in arms:
        runs = {}
        for seed, run in arm.runs.items():
            steps = shared[arm.identity.rest, seed]
            runs[seed] = replace(run, rows=tuple(row for row in run.rows if row["step"] in steps))
        cut.append(replace(arm, runs=runs))
    return cut


def _differ_in_edit(arm: ArmRuns, vanilla: ArmRuns) -> bool:
    """In nothing else, but for the basis where vanilla trains delta_S."""
    mine, other = arm.identity, vanilla.identity
    return other.rest == mine.rest and other.lora in (None, mine.lora)
