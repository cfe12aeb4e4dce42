"""Reading run directories: a run, its rows, its rollouts, its nulls, its held-out evaluation.

Nothing is believed unchecked.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from hackward.base.arms import Arm, Watched, arm_of, refresh_label, teacher_label, watched_of
from hackward.base.checksums import Checksums
from hackward.base.faults import InputError
from hackward.base.files import read_json
from hackward.base.lines import printable
from hackward.base.records import checked_lines, checked_object
from hackward.base.statistics import COSINES
from hackward.reports.buckets import bucket_of
from hackward.reports.directories import KINDS, find_directories
from hackward.reports.labels import Described, counted, short_labels
from hackward.reports.schema import HELDOUT_LINES, SAMPLES, STEPS, SUMMARY, checked_facts
from hackward.reports.scored import Scored, read_scored

Nulls = dict[int, dict[str, np.ndarray]]  # step -> cosine -> (S,) draws
HELDOUT = {
    "hacked": "hacked",
    "attempted": "attempted",
    "solved": "solved",
    "hack_given_attempt": "P(hack | attempt)",
}
# What a v_hack is made with where its label says nothing
V_HACK_DEFAULTS = {"objective": "nll", "coordinates": "svd", "normaliser": "length", "temperature": 1.0}


@dataclass(frozen=True)
class Run:
    """A run: what it was told to do, one row per step, and (phase1, replay) one row per rollout."""

    path: Path
    label: str
    kind: str
    arm: Arm
    record: dict[str, Any]
    """The whole config.json."""
    rows: tuple[dict[str, Any], ...]
    samples: tuple[dict[str, Any], ...]
    nulls: Nulls
    """Empty where none were recorded."""
    heldout: tuple[dict[str, Any], ...]
    """Lines of the last held-out evaluation; empty where there was none."""
    scored: Scored | None
    """Its rollouts as its monitor saw them; None without a monitor, or where the rollouts were not kept."""
    memory: dict[str, float] | None
    """GB at the highest point of every phase on a GPU (empty without one); None while it is unfinished."""
    stopped: str | None = None
    """Why it ended before it had made all its steps; None where it made them all, or is unfinished."""

    @property
    def config(self) -> dict[str, Any]:
        return self.record["config"]

    @property
    def seed(self) -> int:
        return self.config["seed"]

    @property
    def complete(self) -> bool:
        return self.memory is not None

    def traits(self) -> dict[str, str]:
        """Settings that a label may name; "" where they mean nothing (vanilla has no gate)."""
        arm, sampled = self.arm, self.kind == "sampled"
        uses_v = arm.vanilla or arm.uses_pairs  # cosines of vanilla are with v_hack all the same
        looks_on = self.watched if arm.watched is None else None
        return {
            "arm": "" if self.kind == "phase1" else arm.label,
            "control": "" if arm.control == "none" else arm.control,
            "gate": arm.gate if arm.edits else "",
            "project_at": arm.place if arm.edits else "",
            "objective": self.config["objective"] if arm.uses_pairs else "",
            "refresh": refresh_label(self.config) if arm.uses_pairs else "",
            "v_hack": self.direction.split()[0] if uses_v else "",
            "teacher": teacher_label(self.config) if sampled else "",
            "model": self.model,
            "lr": f"lr{self.config['lr']:g}",
            "watched": f"watched by {looks_on.label}" if looks_on else "",
            "seed": f"s{self.seed}",
        }

    @property
    def watched(self) -> Watched | None:
        """The monitor that intervenes or looks on."""
        return watched_of(self.config)

    @property
    def edited(self) -> tuple[str, str]:
        """Row keys of the cosine before and after the edit: the gradient's or the update's, as edited."""
        return ("cos_update_in", "cos_update") if self.arm.place == "update" else ("cos_in", "cos_out")

    @property
    def direction(self) -> str:
        """The v_hack that the cosines are with: file, hash, and what of V_HACK_DEFAULTS does not hold of it.

        One that the run extracted has the hash of its pairs, so its loss, coordinates, denominator and
        temperature are what tells it from another one of the same pairs.
        """
        found = self.record["v_hack"]
        if not found:
            return "no v_hack"
        words = [Path(found.get("file", "extracted-by-the-run")).stem, found["hash"][:8]]
        for key, default in V_HACK_DEFAULTS.items():
            value = found.get(key)
            if value not in (None, default):
                words.append(f"T{value:g}" if key == "temperature" else str(value))
        return " ".join(words)

    @property
    def model(self) -> str:
        """Its name; of a path the last part, since where it lay on that machine says nothing."""
        name = self.record["model"]["name"]
        return Path(name).name if Path(name).is_absolute() else name

    @property
    def setting(self) -> tuple[str, str, str]:
        """Runs that share model, direction and pools are judged together."""
        pools = [f"{Path(pool['dir']).name} {pool['hash'][:8]}" for pool in self.record["pools"]]
        return self.model, self.direction, ", ".join(pools) or "none"

    def column(self, key: str) -> list[Any]:
        return [row[key] for row in self.rows]

    def draws(self, key: str, first: float = 0, last: float = math.inf) -> np.ndarray | None:
        """(T, S) null draws of a cosine on the steps where it is defined; None unless all were recorded."""
        rows = [row for row in self.rows if first <= row["step"] <= last]
        steps = [row["step"] for row in rows if row[key] is not None]
        if not steps or key not in COSINES or not self.nulls.keys() >= set(steps):
            return None
        return np.stack([self.nulls[step][key] for step in steps])


def lengths(runs: Iterable[Run]) -> set[int]:
    """How many steps they have: one number where all are as long."""
    return {len(run.rows) for run in runs}


def find_runs(root: Path, take_unfinished: bool = False) -> tuple[list[Run], list[str]]:
    """(runs to show below ``root``, one line for each run left out), as `find_directories` finds them.

    Unfinished runs are marked in their label. Raises InputError for damaged files too.
    """
    records, left_out = find_directories(root, take_unfinished)
    return read_runs(records), left_out


def read_runs(records: dict[Path, dict], on_run: Callable[[int], None] = lambda runs: None) -> list[Run]:
    """The runs in these directories (path -> config.json), labelled, in the order of the tables."""
    runs = []
    for path, record in records.items():
        runs.append(read_run(path, record))
        on_run(1)
    labels = counted(short_labels(described(runs)))
    named = []
    for run, label in zip(runs, labels, strict=True):
        named.append(replace(run, label=label if run.complete else f"{label} (unfinished)"))
    return sorted(named, key=_place)


def described(runs: Sequence[Run]) -> list[Described]:
    """What labels are made from. Different v_hacks in files of the same name are told by their hash."""
    hashes: dict[str, set[str]] = defaultdict(set)
    for run in runs:
        if run.record["v_hack"]:
            stem, digest = run.direction.split()[:2]
            hashes[stem].add(digest)
    found: list[Described] = []
    for run in runs:
        traits = {name: printable(value) for name, value in run.traits().items()}
        if len(hashes[traits["v_hack"]]) > 1:
            traits["v_hack"] = " ".join(run.direction.split()[:2])
        found.append((run.kind, traits))
    return found


def _place(run: Run) -> tuple:
    """By kind; vanilla first, LoRA after delta_S, controls last."""
    arm = run.arm
    return KINDS.index(run.kind), not arm.vanilla, arm.basis == "lora", arm.control != "none", run.label


def read_run(directory: Path, record: dict) -> Run:
    """Load one run and check that its files agree with each other."""
    record = checked_facts(directory / "config.json", record)
    unfinished = not (directory / "summary.json").is_file()
    rows = read_rows(directory / "rows.jsonl", record["config"], cut_off=unfinished)
    steps, kind = [row["step"] for row in rows], record["kind"]
    summary = check_summary(directory, len(rows))
    nulls = read_nulls(directory, steps)
    samples = () if kind == "sampled" else read_samples(directory, record["config"], steps, nulls, unfinished)
    heldout = read_heldout(directory / "eval.jsonl")
    scored = read_scored(directory, steps) if watched_of(record["config"]) else None
    # Last: what is no such file at all is better named as what it is
    Checksums(directory).check_all(cut_off=directory / "rows.jsonl" if unfinished else None)
    return Run(
        path=directory,
        label=directory.name,
        kind=kind,
        arm=arm_of(record["config"]),
        record=record,
        rows=rows,
        samples=samples,
        nulls=nulls,
        heldout=heldout,
        scored=scored,
        memory=summary["memory"] if summary else None,
        stopped=summary.get("stopped") if summary else None,
    )


def check_summary(directory: Path, rows: int) -> dict[str, Any] | None:
    """What summary.json states, after a look whether it counts as many steps as there are rows.

    None without the file: the run is unfinished.
    """
    path = directory / "summary.json"
    summary = checked_object(path, read_json(path), SUMMARY) if path.is_file() else None
    made = summary["steps"] if summary else None
    if made not in (None, rows):
        raise InputError(
            f"{directory / 'rows.jsonl'}: {rows} rows, but summary.json says {made} steps; bring the file"
            f" back, or move {directory} away"
        )
    if rows == 0:
        raise InputError(f"{directory / 'rows.jsonl'}: no rows; move {directory} away")
    return summary


def read_rows(
    path: Path, settings: Mapping[str, Any], *, cut_off: bool = False
) -> tuple[dict[str, Any], ...]:
    """The rows, of increasing steps, which must be of the arm and seed that config.json names.

    With `cut_off` half a line at the end is none.
    """
    rows = checked_lines(path, STEPS, cut_off=cut_off)
    for number, row in enumerate(rows, start=1):
        check_same(row, settings, ("arm", "seed"), f"{path}: row {number}")
    for number, (before, row) in enumerate(zip(rows, rows[1:]), start=2):
        if row["step"] <= before["step"]:
            raise InputError(f"{path}: row {number}: 'step' is {row['step']}; steps must increase")
    return tuple(rows)


def check_same(
    row: Mapping[str, Any], settings: Mapping[str, Any], fields: Sequence[str], where: str
) -> None:
    """InputError where a row says other than the run's settings."""
    for field in fields:
        if row[field] != settings[field]:
            raise InputError(
                f"{where}: {field!r} is {row[field]!r}, but config.json says {settings[field]!r}"
            )


def read_samples(
    directory: Path, settings: Mapping[str, Any], steps: Sequence[int], nulls: Nulls, unfinished: bool
) -> tuple[dict[str, Any], ...]:
    """Every rollout with its label and the null draws (S,) of its cos_S_logp (None without any).

    An unfinished run may have files of steps that it has no row of yet.
    """
    by_step: dict[int, list[dict[str, Any]]] = {}
    known: set[tuple[int, int]] = set()
    for path in sorted(directory.glob("step_*.cos.jsonl.gz")):
        for number, row in enumerate(checked_lines(path, SAMPLES), start=1):
            check_same(row, settings, ("arm",), f"{path}: row {number}")
            name = row["step"], row["sample_id"]
            if name in known:
                raise InputError(f"{path}: row {number}: 'sample_id' {name[1]} comes twice in step {name[0]}")
            known.add(name)
            by_step.setdefault(row["step"], []).append(row)
    if unfinished:
        by_step = {step: rows for step, rows in by_step.items() if step <= max(steps)}
    lacking = set(steps) ^ by_step.keys()
    if lacking:
        named = ", ".join(map(str, sorted(lacking)))
        raise InputError(f"{directory}: rows.jsonl and step_*.cos.jsonl.gz disagree on steps {named}")
    samples = []
    for step, rows in by_step.items():
        draws = rollout_draws(directory, step, len(rows), nulls)
        for place, row in enumerate(rows):
            label = bucket_of(row) or "no label"  # pictures colour by it
            samples.append(row | {"label": label, "draws": None if draws is None else draws[place]})
    return tuple(samples)


def rollout_draws(directory: Path, step: int, rollouts: int, nulls: Nulls) -> np.ndarray | None:
    """(rollouts, S) null draws of cos_S_logp on a step; None where it recorded none."""
    draws = nulls.get(step, {}).get("cos_S_logp")
    if draws is None:
        return None
    count = len(nulls[step][COSINES[0]])
    if draws.shape != (rollouts, count):
        raise InputError(
            f"{null_file(directory, step)}: cos_S_logp does not have a row for every rollout of the step,"
            f" with as many draws as {COSINES[0]}"
        )
    return draws.astype(np.float32)


def null_file(directory: Path, step: int) -> Path:
    return directory / "nulls" / f"step_{step:03d}.safetensors"


def read_nulls(directory: Path, steps: Iterable[int]) -> Nulls:
    """The null draws of the steps that have them; the same S on all, since draws are averaged over steps."""
    nulls: Nulls = {}
    size: tuple[int, ...] | None = None
    for step in steps:
        path = null_file(directory, step)
        if not path.exists():
            continue
        try:
            tensors = load_file(path)
        except (SafetensorError, OSError, ValueError) as fault:
            raise InputError(f"{path}: not a readable safetensors file ({fault})") from None
        shapes = [tensors[key].shape if key in tensors else () for key in COSINES]
        size = size or shapes[0]
        if len(size) != 1 or any(shape != size for shape in shapes):
            named = ", ".join(COSINES)
            raise InputError(f"{path}: must hold {named}, each with as many draws as on the other steps")
        nulls[step] = tensors
    return nulls


def read_heldout(path: Path) -> tuple[dict[str, Any], ...]:
    """The lines of the last evaluated step of eval.jsonl; none where the run was not evaluated."""
    lines = checked_lines(path, HELDOUT_LINES) if path.exists() else []
    last = max((line["step"] for line in lines), default=None)
    return tuple(line for line in lines if line["step"] == last)
