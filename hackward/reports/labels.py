"""Short names for runs, from the settings that tell them apart."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

Described = tuple[str, Mapping[str, str]]  # (kind of run, its traits: setting -> how a label names it)
ALWAYS = ("arm", "control")


def short_labels(runs: Sequence[Described], without: Collection[str] = ()) -> list[str]:
    """A name for each run from the traits that tell it from its kin, "projected update s42"; not yet counted.

    Directory names carry every setting and are too long for tables; the table of runs gives the path of each
    label.
    """
    seen: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for kind, traits in runs:
        for trait, value in traits.items():
            seen[_arm(kind, traits), trait].add(value)
            if value:
                seen[kind, trait].add(value)
    labels = []
    for kind, traits in runs:
        words = [kind] if kind == "phase1" else []
        for trait, value in traits.items():
            varies = len(seen[kind, trait]) > 1 or len(seen[_arm(kind, traits), trait]) > 1
            if value and trait not in without and (trait in ALWAYS or varies):
                words.append(value)
        labels.append(" ".join(words))
    return labels


def _arm(kind: str, traits: Mapping[str, str]) -> str:
    """Runs of one arm: among them a trait that only some have (a refresh, say) tells them apart."""
    return " ".join([kind, *(traits[trait] for trait in ALWAYS)])


def counted(names: Sequence[str]) -> list[str]:
    """The names with (2), (3) ... behind those that occurred before."""
    before: dict[str, int] = {}
    found = []
    for name in names:
        before[name] = before.get(name, 0) + 1
        found.append(name if before[name] == 1 else f"{name} ({before[name]})")
    return found
