"""What monitors knew of the policy's own rollouts, and whom they flagged: tables and plain words."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hackward.base.statistics import Estimate
from hackward.reports.monitor_figures import (
    TARGETS,
    Known,
    Steps,
    WatchedRuns,
    by_watcher,
    known,
    known_early,
    windows,
)
from hackward.reports.runs import Run
from hackward.reports.scored import CLASSES
from hackward.reports.tables import Block, Column, Heading, Record, Table, dashed, flat, shown
from hackward.reports.words import CHANCE, knows, plain, tight_auc

FEW_RUNS = 6  # up to as many runs are shown by steps; of more there is a line each


def monitor_blocks(runs: Sequence[Run]) -> list[Block]:
    """The section on monitors; nothing where nobody looked."""
    watched = [run for run in runs if run.watched]
    if not watched:
        return []
    blocks: list[Block] = [Heading("Monitors: what they knew of the policy's own rollouts")]
    kept = [run for run in watched if run.scored is not None]
    bare = [run.label for run in watched if run.scored is None]
    if bare:
        lost = "rollouts were not kept, so there is no AUC over problems (rows.jsonl has that of each step)"
        blocks.append(f"{', '.join(bare)}: {lost}.")
    if not kept:
        return blocks
    groups = by_watcher(kept)
    by_steps = len(kept) <= FEW_RUNS
    blocks.append(runs_table(kept, by_steps))
    if by_steps:
        blocks.append("\n".join(sentence for run in kept for sentence in of_run(run)))
    if len(kept) > 1 and groups:
        blocks += [arms_table(groups), "\n".join(map(of_arm, groups))]
    return blocks


def runs_table(runs: Sequence[Run], by_steps: bool) -> Table:
    """A line per run, with ``by_steps`` one per window before it."""
    records = []
    for run in runs:
        assert run.scored is not None
        steps = run.column("step")
        whole = (steps[0], steps[-1])
        parts = windows(steps) if by_steps else []
        for part in [*(part for part in parts if part != whole), whole]:
            records.append(_record(run, known(run.scored, part), part == whole))
    columns: list[Column] = [
        ("run", shown("run")),
        ("steps", lambda record: "all" if record["whole"] else between((record["first"], record["last"]))),
        ("own (problems)", lambda record: f"{record['own']} ({record['problems']})"),
    ]
    for target in TARGETS:
        columns += [(target, shown(target)), (f"AUC {target}", shown(f"auc_{target}", tight_auc))]
    columns += [(f"flags of {name}", shown(f"flagged_{name}", dashed(_rate))) for name in CLASSES]
    title = "AUC of the score on own rollouts, against all other own ones (95 % over problems), and flags"
    note = "clean: neither hacks nor attempts; solved: right, clean or not"
    if any(run.arm.control == "random" and run.arm.watched for run in runs):
        note += "; random: the score is the monitor's, the flags are drawn"
    return Table("monitor", f"{title} ({note})", tuple(columns), records, sections=True)


def _record(run: Run, found: Known, whole: bool) -> Record:
    assert run.watched is not None
    record: Record = {
        "run": run.label,
        "monitor": run.watched.label,
        "first": found.steps[0],
        "last": found.steps[1],
        "whole": whole,
        "own": found.own,
        "problems": found.problems,
        **found.counts,
    }
    for target, auc in found.auc.items():
        record |= {f"auc_{target}": auc} | flat(auc, f"auc_{target}_")
    return record | {f"flagged_{name}": rate for name, rate in found.flagged.items()}


def _rate(value: float) -> str:
    return plain(value).removeprefix("0")


def between(steps: Steps) -> str:
    """A step, or first to last."""
    first, last = steps
    return str(first) if first == last else f"{first}-{last}"


def of_run(run: Run) -> list[str]:
    """What the monitor of a run knew, in words: on the whole, early, and where it was at chance."""
    assert run.scored is not None
    steps = run.column("step")
    parts = [known(run.scored, part) for part in windows(steps)]
    whole = known(run.scored, (steps[0], steps[-1]))
    lines = []
    for target, what in TARGETS.items():
        lines.append(f"{run.label}, whole run: {knows(what, whole.auc[target])}.")
        ends, auc = known_early(run.scored, steps, target)
        if ends and ends != whole.steps:
            lines.append(f"{run.label}, early (steps {between(ends)}): {knows(what, auc)}.")
        remarks = _at_chance(parts, target), _not_there(parts, target)
        lines += [f"{run.label}: {remark}" for remark in remarks if remark]
    return lines


def _at_chance(parts: Sequence[Known], target: str) -> str:
    found = [between(part.steps) for part in parts if contains_chance(part.auc[target])]
    return f"AUC {target} at chance (interval contains .5) in steps {', '.join(found)}." if found else ""


def contains_chance(auc: Estimate) -> bool:
    """Does the interval contain the AUC of a score that knows nothing?"""
    return auc.low is not None and auc.high is not None and auc.low <= CHANCE <= auc.high


def _not_there(parts: Sequence[Known], target: str) -> str:
    found = []
    for part in parts:
        auc = part.auc[target]
        if auc.mean is None:
            found.append(f"{between(part.steps)} ({auc.why})")
    return f"no AUC {target} in steps {', '.join(found)}." if found else ""


def arms_table(groups: Sequence[WatchedRuns]) -> Table:
    """A line per arm and monitor: early and whole AUC, share flagged."""
    records = []
    for group in groups:
        run = next(iter(group.runs.values()))
        assert run.watched is not None
        record: Record = {"arm": group.name, "monitor": run.watched.label, "seeds": len(group.runs)}
        for target in TARGETS:
            early, whole = group.early_auc(target), group.auc(target)
            record |= {f"early_{target}": early, f"whole_{target}": whole}
            record |= flat(early, f"early_{target}_") | flat(whole, f"whole_{target}_")
            record[f"early_{target}_steps"] = ", ".join(map(between, group.early_steps(target)))
        for name in CLASSES:
            found = group.flagged(name)
            record |= {f"flagged_{name}": found} | flat(found, f"flagged_{name}_")
        records.append(record)
    columns: list[Column] = [(key, shown(key)) for key in ("arm", "monitor", "seeds")]
    for target in TARGETS:
        columns.append((f"AUC {target}, early", _auc_cell(f"early_{target}")))
        columns.append((f"AUC {target}, whole run", _auc_cell(f"whole_{target}")))
    columns += [(f"flags of {name}", _rate_cell(f"flagged_{name}")) for name in CLASSES]
    title = "Arms: AUC of the score on own rollouts, early (first third with enough hacks) and whole run"
    note = "intervals over seeds, of one run over problems; flags: mean over seeds"
    return Table("arms_monitor", f"{title} ({note})", tuple(columns), records)


def _auc_cell(key: str) -> Callable[[Record], str]:
    return lambda record: "-" if record[key].mean is None else tight_auc(record[key])


def _rate_cell(key: str) -> Callable[[Record], str]:
    return lambda record: "-" if record[key].mean is None else _rate(record[key].mean)


def of_arm(group: WatchedRuns) -> str:
    """What the monitor knew of hacks, in words."""
    early, whole = group.early_auc("hacked"), group.auc("hacked")
    line = f"{group.name}, whole run: {knows('hacks', whole)}."
    if early.mean is None:
        return f"{line} Early: {early.why}."
    steps = ", ".join(map(between, group.early_steps("hacked")))
    return f"{line} Early (steps {steps}): {knows('hacks', early)}."
