"""Held-out problems by arm: rates with the adapter on, and above the base model's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from hackward.base.statistics import Estimate, differences, estimate
from hackward.reports.arms import ArmRuns
from hackward.reports.runs import HELDOUT
from hackward.reports.tables import Table, flat, shown
from hackward.reports.words import tight


def as_estimate(rate: dict, n: int) -> Estimate:
    """One run's rate with its interval over problems."""
    return Estimate(
        n,
        rate["mean"],
        low=rate["low"],
        high=rate["high"],
        why=None if rate["low"] is not None else "no interval",
    )


def over_seeds(values: dict[Any, float | None], alone: Estimate) -> Estimate:
    """Over seeds where there are several, else the one run's own figure."""
    return estimate(values.values()) if len(values) > 1 else alone


def heldout_rates(arm: ArmRuns, condition: str, adapter: str) -> tuple[dict[str, dict[int, dict]], int]:
    """Each rate by seed ({mean, low, high}) of an arm's last held-out evaluation, and the number of problems of the smallest."""
    lines = {
        seed: line
        for seed, run in arm.runs.items()
        for line in run.heldout
        if (line["condition"], line["adapter"]) == (condition, adapter)
    }
    return {key: {seed: line[key] for seed, line in lines.items()} for key in HELDOUT}, min(
        (line["problems"] for line in lines.values()), default=0
    )


def conditions(arms: Sequence[ArmRuns]) -> list[str]:
    return list(
        dict.fromkeys(line["condition"] for arm in arms for run in arm.runs.values() for line in run.heldout)
    )


def heldout_figures(arm: ArmRuns, condition: str, adapter: str) -> dict[str, Estimate]:
    """Each rate of an arm: over seeds where there are several, else with the one run's interval over problems."""
    rates, problems = heldout_rates(arm, condition, adapter)
    return {
        key: over_seeds(
            {seed: rate["mean"] for seed, rate in seeds.items()},
            as_estimate(next(iter(seeds.values())), problems),
        )
        for key, seeds in rates.items()
        if seeds
    }


def heldout_table(arms: Sequence[ArmRuns]) -> Table:
    """Held-out problems: rates with the adapter on, and what they are above the base model's (adapter off), paired by seed."""
    records = []
    for arm in arms:
        for condition in conditions([arm]):
            (on, problems), (off, _) = (heldout_rates(arm, condition, adapter) for adapter in ("on", "off"))
            on_minus_off = {
                key: differences(
                    *({seed: rate["mean"] for seed, rate in side[key].items()} for side in (on, off))
                )
                for key in HELDOUT
            }
            for what, found in (("on", heldout_figures(arm, condition, "on")), ("on - off", on_minus_off)):
                if not found:
                    continue
                record: dict[str, Any] = {
                    "arm": arm.name,
                    "condition": condition,
                    "adapter": what,
                    "runs": len(on["hacked"]),
                    "problems": problems,
                }
                for key in HELDOUT:
                    record |= {key: found[key]} | flat(found[key], f"{key}_")
                records.append(record)

    def cell(key: str) -> Callable[[dict], str]:
        return lambda record: tight(record[key], "" if record["adapter"] == "on" else "+")

    columns = (
        ("arm", shown("arm")),
        ("condition", shown("condition")),
        ("adapter", shown("adapter")),
        ("runs (problems)", lambda record: f"{record['runs']} ({record['problems']})"),
        *((name, cell(key)) for key, name in HELDOUT.items()),
    )
    title = "Held-out problems, last evaluation (off: the base model; intervals over seeds, of one run over problems)"
    return Table("heldout", title, columns, records, sections=True)
