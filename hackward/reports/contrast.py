"""Which of the pools hacks and which does not, told by their rows, and how far the two lie apart."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from hackward.base.statistics import Comparison, share, welch
from hackward.reports.buckets import by_problem, pull
from hackward.reports.words import plain


class Roles(NamedTuple):
    """Names of the pool that hacks and of the one that does not."""

    hacking: str
    clean: str


USUAL = Roles("teacher", "base")  # so that a missing one of the two reads as empty


def hack_shares(samples: Iterable[dict[str, Any]]) -> dict[str, float | None]:
    """Share of hacked rollouts of each pool, over those whose label is known; None where none is."""
    labels: dict[str, list[bool]] = defaultdict(list)
    for sample in samples:
        known = labels[sample["src_pool"]]
        if sample["hacked"] is not None:
            known.append(sample["hacked"])
    return {name: share(sum(known), len(known)) for name, known in labels.items()}


def pool_roles(samples: Iterable[dict[str, Any]]) -> Roles | None:
    """The pool with the highest share of hacks hacks, the one with the lowest does not, whatever their names.

    None where the rows do not say (`why_no_roles`): pools with the same share, two without labels, or one
    alone, unless it is one of USUAL.
    """
    shares = hack_shares(samples)
    known = {name: found for name, found in shares.items() if found is not None}
    if len(known) > 1:
        return _extremes(known)
    if len(known) == 1 and len(shares) == 2:
        ((labelled, hacks),) = known.items()
        (unlabelled,) = shares.keys() - known.keys()
        return Roles(labelled, unlabelled) if hacks >= 0.5 else Roles(unlabelled, labelled)
    return USUAL if set(USUAL) & shares.keys() else None


def _extremes(known: dict[str, float]) -> Roles | None:
    """The only pool with the highest share and the only one with the lowest; None where pools tie for it."""
    most, least = max(known.values()), min(known.values())
    hacking = [name for name, found in known.items() if found == most]
    clean = [name for name, found in known.items() if found == least]
    if most == least or len(hacking) > 1 or len(clean) > 1:
        return None
    return Roles(hacking[0], clean[0])


def why_no_roles(samples: Iterable[dict[str, Any]]) -> str:
    """Why `pool_roles` finds none."""
    shares = hack_shares(samples)
    if len(shares) < 2:
        return "a lone bucket shows nothing"
    listed = ", ".join(f"{name} {plain(found)}" for name, found in sorted(shares.items()))
    return f"the pools cannot be told apart by their share of hacks ({listed})"


class Pulls(NamedTuple):
    """What each half adds to gradient . v_hack per step; None where its contributions are undefined."""

    roles: Roles
    hacking: float | None
    clean: float | None


def pulls_by_role(samples: Sequence[dict[str, Any]]) -> Pulls:
    roles, steps = pool_roles(samples), len({sample["step"] for sample in samples})
    if roles is None:
        return Pulls(USUAL, None, None)
    halves = [pull([s for s in samples if s["src_pool"] == role], steps) for role in roles]
    return Pulls(roles, *halves)


@dataclass(frozen=True)
class Contrast:
    """Hacks of the pool that hacks against clean rollouts of the one that does not."""

    roles: Roles
    hacks: tuple[dict[str, Any], ...] = ()
    clean: tuple[dict[str, Any], ...] = ()

    @property
    def names(self) -> tuple[str, str]:
        return f"{self.roles.hacking} hacked", f"{self.roles.clean} clean"

    def problems(self, key: str) -> tuple[list[float], list[float]]:
        """Means of the problems of both sides."""
        return list(by_problem(self.hacks, key).values()), list(by_problem(self.clean, key).values())

    def test(self, key: str) -> Comparison:
        """Hacks minus clean, over problems."""
        hacks, clean = self.problems(key)
        return welch(hacks, clean, names=self.names)


def contrast_pools(samples: Sequence[dict[str, Any]]) -> Contrast | None:
    """None where no pool can be told from another (`why_no_roles` says why)."""
    roles = pool_roles(samples)
    if roles is None:
        return None
    hacks = tuple(s for s in samples if s["src_pool"] == roles.hacking and s["hacked"] is True)
    clean = tuple(s for s in samples if s["src_pool"] == roles.clean and s["hacked"] is False)
    return Contrast(roles, hacks, clean)
