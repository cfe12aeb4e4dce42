"""What a monitor knew: AUC of its score on the policy's own rollouts, and whom it flagged, by steps.

AUC: the probability that the score of a hack (an attempt) is above that of another own rollout of the same
steps, over all of their rollouts at once; intervals over problems.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from hackward.base.arms import Watched
from hackward.base.statistics import FEWEST_UNITS, Estimate, auc_by_unit, estimate, share
from hackward.reports.arms import Identity, counting, finished, identity, names_of
from hackward.reports.runs import Run
from hackward.reports.scored import CLASSES, Scored

TARGETS = {"hacked": "hacks", "attempted": "attempts"}
WIDTHS = (1, 5, 10, 20, 50, 100)
MOST_WINDOWS = 10
ENOUGH_ROWS = 10  # hacks (or attempts), and others, that an AUC of many runs must be over

Steps = tuple[int, int]  # first and last


@dataclass(frozen=True)
class Known:
    """What the monitor of a run knew over some steps."""

    steps: Steps
    own: int
    problems: int
    """Of own rollouts."""
    auc: dict[str, Estimate]
    """By TARGETS; over problems."""
    counts: dict[str, int]
    """Rollouts by CLASSES."""
    flagged: dict[str, float | None]
    """Share of flagged ones by CLASSES; None where a class is empty."""


def known(rows: Scored, steps: Steps) -> Known:
    """Of the rollouts of these steps, ends included."""
    inside = rows.between(*steps)
    members = {name: choose(inside) for name, choose in CLASSES.items()}
    counts = {name: int(chosen.sum()) for name, chosen in members.items()}
    looked = np.isfinite(inside.flagged)
    flagged = {}
    for name, chosen in members.items():
        hits = inside.flagged[chosen & looked]
        flagged[name] = share(int(hits.sum()), len(hits))
    return Known(
        steps,
        own=int(inside.own.sum()),
        problems=len(set(inside.problem[inside.own])),
        auc={target: auc_of(inside, target) for target in TARGETS},
        counts=counts,
        flagged=flagged,
    )


def auc_of(rows: Scored, target: str) -> Estimate:
    """AUC on own rollouts, those with the label against all others."""
    own = rows.own
    label = getattr(rows, target)
    return auc_by_unit(rows.score[own], label[own], rows.problem[own], (target, "other"))


def windows(steps: Sequence[int]) -> list[Steps]:
    """The steps of a run in at most MOST_WINDOWS parts of equal length that begin at round numbers."""
    for width in WIDTHS:
        starts = sorted({step // width * width for step in steps})
        if len(starts) <= MOST_WINDOWS:
            break
    return [(max(start, steps[0]), min(start + width - 1, steps[-1])) for start in starts]


def early(rows: Scored, steps: Sequence[int], target: str) -> Steps | None:
    """The first third of the run with enough rollouts on both sides of the label to say something.

    None where no third has them (`enough`).
    """
    for third in np.array_split(np.array(steps), 3):
        if not len(third):
            continue
        ends = int(third[0]), int(third[-1])
        if enough(rows.between(*ends), target):
            return ends
    return None


def enough(rows: Scored, target: str) -> bool:
    """Own rollouts on both sides of the label: at least ENOUGH_ROWS, in at least FEWEST_UNITS problems."""
    label = getattr(rows, target)
    sides = (rows.own & label, rows.own & ~label)
    return all(s.sum() >= ENOUGH_ROWS and len(set(rows.problem[s])) >= FEWEST_UNITS for s in sides)


def known_early(rows: Scored, steps: Sequence[int], target: str) -> tuple[Steps | None, Estimate]:
    """The steps of `early`, and the AUC in them."""
    ends = early(rows, steps, target)
    if ends is None:
        return None, Estimate(0, why=f"no third has {ENOUGH_ROWS} {target} and {ENOUGH_ROWS} others")
    return ends, auc_of(rows.between(*ends), target)


@dataclass(frozen=True)
class WatchedRuns:
    """Runs that differ in their seed alone and were watched by one monitor, with what it knew in each."""

    name: str
    runs: dict[int, Run]
    whole: dict[int, Known]
    """Over the whole run, by seed."""
    begin: dict[int, dict[str, tuple[Steps | None, Estimate]]]
    """Of `known_early`, by seed and target."""

    def auc(self, target: str) -> Estimate:
        """Of the whole run: over the seeds with enough rollouts, of one run over problems."""
        return over_seeds([self._auc(seed, target) for seed in self.whole])

    def _auc(self, seed: int, target: str) -> Estimate:
        rows = self.runs[seed].scored
        if rows is None or not enough(rows, target):
            return Estimate(0, why=f"fewer than {ENOUGH_ROWS} {target} or {ENOUGH_ROWS} others")
        return self.whole[seed].auc[target]

    def early_auc(self, target: str) -> Estimate:
        return over_seeds([found[target][1] for found in self.begin.values()])

    def early_steps(self, target: str) -> list[Steps]:
        """Those that `early_auc` is over, which may differ from seed to seed."""
        ends = {found[target][0] for found in self.begin.values()}
        return sorted(steps for steps in ends if steps is not None)

    def flagged(self, name: str) -> Estimate:
        """Share of flagged rollouts of one of CLASSES, over seeds."""
        return estimate(found.flagged[name] for found in self.whole.values())


def by_watcher(runs: Sequence[Run]) -> list[WatchedRuns]:
    """The finished runs of every arm and monitor whose rollouts were kept.

    A monitor that looks on makes no arm of its own, but its AUC is its own.
    """
    groups: dict[tuple[Identity, Watched], dict[int, Run]] = {}
    for run in finished(runs):
        if run.watched and run.scored:
            by_seed = groups.setdefault((identity(run), run.watched), {})
            by_seed[run.seed] = counting(by_seed.get(run.seed, run), run)
    names = names_of(list(groups.values()), runs, ("seed",))
    return [_watched(name, by_seed) for name, by_seed in zip(names, groups.values(), strict=True)]


def _watched(name: str, by_seed: dict[int, Run]) -> WatchedRuns:
    whole, begin = {}, {}
    for seed, run in by_seed.items():
        rows, steps = run.scored, run.column("step")
        assert rows is not None  # by_watcher takes no others
        whole[seed] = known(rows, (steps[0], steps[-1]))
        begin[seed] = {target: known_early(rows, steps, target) for target in TARGETS}
    return WatchedRuns(name, by_seed, whole, begin)


def over_seeds(found: Sequence[Estimate]) -> Estimate:
    """One run's own interval over problems; of several runs the mean over those that have a value."""
    if len(found) == 1:
        return found[0]
    mean = estimate(one.mean for one in found)
    if mean.mean is None:
        return found[0]
    if mean.low is None or mean.high is None:
        return mean
    # Student's interval does not know that an AUC lies in [0, 1].
    return replace(mean, low=max(0.0, mean.low), high=min(1.0, mean.high))
