"""Finished on-policy runs as arms over seeds.

Seeds are the unit. An arm holds finished runs that differ in their seed alone; arms are compared by the differences within
the seeds that both have.
"""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hackward.base.statistics import null_range
from hackward.reports.onset import curve, time_to_hack
from hackward.reports.runs import AGAIN, Run, counted

PER_RUN = [
    "seed",
    "out",
    "resume",
    "preset",
    "workers",
    "device",
    "sandbox",
    "svd_cache",
    "micro_tokens",
    "sample_rows",
    "save_every",
    "v_hack",
    "eval_every",
    "eval_samples",
    "eval_limit",
]  # settings that cannot change what training does, given all the others
EDIT = ["arm", "control", "gate", "project_at", "refresh_every", "objective"]  # these mean nothing to vanilla
PARTS = ("first5", "last5", "area")
RATES = {"hack_rate": "hacked", "gt_rate": "solved", "attempt_rate": "attempted"}


# ---------------------------------------------------------------------------------------------- one run a row
def one_direction(runs: Sequence[Run]) -> bool:
    """Are the cosines of these runs with one v_hack? With several, they have no common mean. (A run without v_hack has no cosines.)"""
    return len({run.direction for run in runs if run.record["v_hack"]}) <= 1


def null_of(
    runs: Sequence[Run], key: str, first: float = 0, last: float = math.inf
) -> tuple[float, float] | None:
    """Null range of a cosine's mean over the steps of all these runs; None unless all recorded as many draws, of one v_hack.

    The flips are drawn from v_hack's pairs with a fixed seed, so draw s is the same flip in every run of one v_hack.
    """
    draws = [run.draws(key, first, last) for run in runs] if one_direction(runs) else []
    if not draws or any(found is None for found in draws) or len({found.shape[1] for found in draws}) > 1:
        return None
    return null_range(np.concatenate(draws))


def onset(run: Run) -> int | str | None:
    return time_to_hack(run.column("step"), run.column("hack_rate"))


# ---------------------------------------------------------------------------------------------- arms
@dataclass(frozen=True)
class ArmRuns:
    """Finished runs that differ in their seed alone (and in settings that cannot change what they do)."""

    name: str
    runs: dict[int, Run]
    basis: str  # what is trained: "svd", or "lora" with its rank (and "unmatched" where --lr is not scaled to it)
    edit: dict  # the settings of EDIT
    direction: str  # of its v_hack; "" where it does not matter or differs from seed to seed
    rest: str  # the settings that arms under comparison must share: all but the seed, the basis and the edit

    @property
    def vanilla(self) -> bool:
        return next(iter(self.runs.values())).vanilla

    @property
    def control(self) -> str:
        return next(iter(self.runs.values())).control

    @property
    def own_vanilla(self) -> str:
        """The flags of vanilla in this arm's basis."""
        name, *rank = self.basis.split()
        return (
            "--arm=vanilla"
            if name == "svd"
            else f"--arm=lora --gate=none --rank={rank[0]}" + " --no-match-size" * ("unmatched" in rank)
        )

    def figures(self, key: str, part: str) -> dict[int, float | None]:
        """A rate's mean over a part of the steps (one of PARTS), by seed."""
        return {seed: curve(run.column(key))[PARTS.index(part)] for seed, run in self.runs.items()}

    def sizes(self) -> dict[int, float | None]:
        """Frobenius norm of Delta W after the last step, by seed; None in runs that did not record it."""
        return {seed: run.rows[-1]["delta_w_norm"] for seed, run in self.runs.items()}

    def controls(self, arm: ArmRuns) -> bool:
        """Is this a control of that arm: the same run but for what is removed? (A random V belongs to no direction.)"""
        same = all(self.edit[key] == arm.edit[key] for key in EDIT if key != "control")
        return (
            self.control != "none"
            and same
            and (self.basis, self.rest) == (arm.basis, arm.rest)
            and self.direction in ("", arm.direction)
        )


def identities(runs: Sequence[Run]) -> list[tuple[str, str, str, str]]:
    """(basis, edit, direction, rest) of each run, fields of Arm: all that a run is, but for its seed."""
    found = []
    for run in runs:
        config = {key: value for key, value in run.config.items() if key not in PER_RUN}
        rank, matched = (
            config.pop(key, None) for key in ("rank", "match_size")
        )  # they mean nothing without a LoRA
        basis = f"lora {rank}" + " unmatched" * (matched is False) if run.arm == "lora" else "svd"
        edit = {key: None if run.vanilla else config.get(key) for key in EDIT}
        rest = {key: value for key, value in config.items() if key not in EDIT}
        same = json.dumps(
            [rest, run.setting[0], run.setting[2], run.record.get("training")], sort_keys=True, default=str
        )
        direction = (
            "" if run.vanilla or run.control == "random" else run.direction
        )  # a random V differs from seed to seed
        found.append((basis, json.dumps(edit, sort_keys=True), direction, same))
    return found


def unique(runs: Sequence[Run]) -> list[Run]:
    """The runs without those that only repeat another: same settings, same seed. What vanilla would have removed is no setting of it."""
    once: dict[tuple, Run] = {}
    for run, identity in sorted(
        zip(runs, identities(runs), strict=True), key=lambda pair: not pair[0].complete
    ):  # rather the whole run than a part
        once.setdefault((identity, run.config["seed"]), run)
    return list(once.values())


def by_arm(runs: Sequence[Run]) -> list[ArmRuns]:
    """The finished on-policy runs by arm. Of two runs with the same settings and seed the first is taken (see `doubles`)."""
    groups: dict[tuple[str, ...], dict[int, Run]] = defaultdict(dict)
    finished = [run for run in runs if run.kind == "sampled" and run.complete]
    for run, identity in zip(finished, identities(finished), strict=True):
        groups[identity].setdefault(run.config["seed"], run)
    names = []
    for found in map(dict.values, groups.values()):
        first, left_out = next(iter(found)), ("seed",) if one_direction(list(found)) else ("seed", "v_hack")
        of_run = {first.traits()[trait] for trait in left_out}
        names.append(
            " ".join(
                word for word in first.label.split() if word not in of_run and not re.fullmatch(AGAIN, word)
            )
        )
    return [
        ArmRuns(name, found, basis, json.loads(edit), direction, same)
        for name, ((basis, edit, direction, same), found) in zip(counted(names), groups.items(), strict=True)
    ]


def doubles(runs: Sequence[Run], arms: Sequence[ArmRuns]) -> list[str]:
    """Finished on-policy runs that no arm counts, because another with the same settings and seed is there."""
    counted = {run.path for arm in arms for run in arm.runs.values()}
    return [run.label for run in runs if run.kind == "sampled" and run.complete and run.path not in counted]


def baseline(arm: ArmRuns, arms: Sequence[ArmRuns]) -> ArmRuns | None:
    """The vanilla that an arm is compared with: of the same settings, and of its own basis where that was run."""
    fit = [
        other
        for other in arms
        if other.vanilla and not arm.vanilla and other.rest == arm.rest and other.basis in (arm.basis, "svd")
    ]
    return min(fit, key=lambda other: other.basis != arm.basis, default=None)
