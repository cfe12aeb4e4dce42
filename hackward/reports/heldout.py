"""Held-out problems by arm: rates with the adapter on, and above the base model's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hackward.base.statistics import Estimate, differences, estimate
from hackward.reports.arms import ArmRuns
from hackward.reports.runs import HELDOUT
from hackward.reports.tables import Record, Table, flat, shown
from hackward.reports.words import tight


def conditions(arms: Sequence[ArmRuns]) -> list[str]:
    """Those that any run was evaluated in, in their order."""
    lines = (line for arm in arms for run in arm.runs.values() for line in run.heldout)
    return list(dict.fromkeys(line["condition"] for line in lines))


@dataclass(frozen=True)
class HeldoutRates:
    """The last held-out evaluation of an arm's runs in one condition, with the adapter on or off."""

    lines: dict[int, dict[str, Any]]
    """By seed."""

    @property
    def problems(self) -> int:
        """Of the smallest evaluation."""
        return min((line["problems"] for line in self.lines.values()), default=0)

    def means(self, key: str) -> dict[int, float | None]:
        """A rate's mean by seed."""
        return {seed: line[key]["mean"] if line[key] else None for seed, line in self.lines.items()}

    def figure(self, key: str) -> Estimate:
        """A rate over seeds where there are several, else with the one run's interval over problems."""
        means = self.means(key)
        if len(means) > 1:
            return estimate(means.values())
        (line,) = self.lines.values()
        return _of_one_run(line[key], line["problems"])


def heldout_rates(arm: ArmRuns, condition: str, adapter: str) -> HeldoutRates:
    found = {}
    for seed, run in arm.runs.items():
        for line in run.heldout:
            if (line["condition"], line["adapter"]) == (condition, adapter):
                found[seed] = line
    return HeldoutRates(found)


def heldout_figures(arm: ArmRuns, condition: str, adapter: str) -> dict[str, Estimate]:
    """Each rate of an arm (HELDOUT); empty where it was not evaluated so."""
    rates = heldout_rates(arm, condition, adapter)
    return {key: rates.figure(key) for key in HELDOUT} if rates.lines else {}


def _of_one_run(rate: Mapping[str, Any] | None, problems: int) -> Estimate:
    if rate is None:
        return Estimate(problems, why="no interval")
    why = "no interval" if rate["low"] is None else None
    return Estimate(problems, rate["mean"], low=rate["low"], high=rate["high"], why=why)


def heldout_table(arms: Sequence[ArmRuns]) -> Table:
    """Held-out problems: rates with the adapter on, and minus the base model's (off), paired by seed."""
    records: list[Record] = []
    for arm in arms:
        for condition in conditions([arm]):
            on, off = (heldout_rates(arm, condition, adapter) for adapter in ("on", "off"))
            if on.lines:
                figures = {key: on.figure(key) for key in HELDOUT}
                records.append(_record(arm, condition, "on", on, figures))
            gaps = {key: differences(on.means(key), off.means(key)) for key in HELDOUT}
            records.append(_record(arm, condition, "on - off", on, gaps))
    columns = (
        ("arm", shown("arm")),
        ("condition", shown("condition")),
        ("adapter", shown("adapter")),
        ("runs (problems)", lambda record: f"{record['runs']} ({record['problems']})"),
        *((name, _cell(key)) for key, name in HELDOUT.items()),
    )
    title = "Held-out problems, last evaluation"
    note = "off: the base model; intervals over seeds, of one run over problems"
    return Table("heldout", f"{title} ({note})", columns, records, sections=True)


def _record(
    arm: ArmRuns, condition: str, adapter: str, on: HeldoutRates, figures: dict[str, Estimate]
) -> Record:
    record: Record = {
        "arm": arm.name,
        "condition": condition,
        "adapter": adapter,
        "runs": len(on.lines),
        "problems": on.problems,
    }
    for key, found in figures.items():
        record |= {key: found} | flat(found, f"{key}_")
    return record


def _cell(key: str) -> Callable[[Record], str]:
    return lambda record: tight(record[key], "" if record["adapter"] == "on" else "+")
