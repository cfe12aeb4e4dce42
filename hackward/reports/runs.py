"""Reading run directories: a run, its rows, its rollouts, its nulls, its held-out evaluation. Nothing is believed unchecked."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from hackward.base.faults import InputError
from hackward.base.files import read_json, read_jsonl
from hackward.base.statistics import COSINES
from hackward.reports.probe_verdicts import bucket_of

# ---------------------------------------------------------------------------------------------- Run directories
ROW_NUMBERS = [
    "step",
    "seed",
    "reward_mean",
    "reward_spread",
    "hack_rate",
    "attempt_rate",
    "gt_rate",
    "fmt_rate",
    "cos_in",
    "cos_out",
    "cos_update",
    "cos_update_in",
    "frac_fired",
    "grad_norm",
    "update_norm",
    "groups_used",
    "groups_skipped",
    "kl",
    "comp_len",
    "seconds",
    "seconds_generate",
    "seconds_grade",
    "seconds_backward",
]
SAMPLE_NUMBERS = [
    "step",
    "src_step",
    "reward",
    "comp_len",
    "cos_S_contrib",
    "cos_S_logp",
    "grad_norm_contrib",
    "mean_cos_in",
    "mean_cos_out",
    "frac_fired",
    "advantage",
]
SAMPLE_FLAGS = ("hacked", "gt_pass", "fmt_ok")
SAMPLE_OTHER = ("sample_id", "src_pool", "src_sample", "arm")
KINDS = ("phase1", "replay", "sampled")
LATER_NUMBERS = ("delta_w_norm",)  # keys that runs of earlier versions lack: read as null
LATER_RANGES = tuple(f"{key}_null" for key in COSINES)


@dataclass(frozen=True)
class Run:
    """A run: what it was told to do, one row a step, and (phase1, replay) one row a sample."""

    path: Path
    label: str
    kind: str
    config: dict
    record: dict  # the whole config.json
    rows: tuple[dict, ...]
    samples: tuple[dict, ...]
    nulls: dict[int, dict[str, np.ndarray]]  # step -> cosine -> (S,) draws; empty where none were recorded
    heldout: tuple[dict, ...]  # lines of the last held-out evaluation; empty where there was none

    @property
    def complete(self) -> bool:
        return (self.path / "summary.json").is_file()

    @property
    def arm(self) -> str:
        return str(self.config.get("arm") or "-")

    @property
    def control(self) -> str:
        return str(self.config.get("control") or "none")

    def traits(self) -> dict[str, str]:
        """Settings that a label may name; "" where they mean nothing (an arm that edits nothing has no gate)."""
        edits = self.arm != "-" and not self.vanilla
        return {
            "arm": "" if self.kind == "phase1" else self.role,
            "control": "" if self.control == "none" else self.control,
            "gate": str(self.config.get("gate") or "") if edits else "",
            "project_at": str(self.config.get("project_at") or "") if edits else "",
            "objective": str(self.config.get("objective") or "") if edits else "",
            "v_hack": self.direction.split()[0],
            "model": self.model,
            "lr": f"lr{self.config['lr']:g}" if isinstance(self.config.get("lr"), (int, float)) else "",
            "seed": f"s{self.config['seed']}" if self.config.get("seed") is not None else "",
        }

    @property
    def edited(self) -> tuple[str, str]:
        """Row keys of the cosine before and after the edit: the gradient's, or the update's where that is edited."""
        at_update = self.config.get("project_at") == "update"
        return ("cos_update_in", "cos_update") if at_update else ("cos_in", "cos_out")

    @property
    def vanilla(self) -> bool:
        """Does the arm only measure? So do arms whose gate is "none": `--arm=lora --gate=none` is vanilla in the LoRA basis."""
        return self.arm == "vanilla" or self.config.get("gate") == "none"

    @property
    def role(self) -> str:
        return ("lora vanilla" if self.arm == "lora" else "vanilla") if self.vanilla else self.arm

    @property
    def projects(self) -> bool:
        return not self.vanilla and self.control != "shrink"

    @property
    def by_another_yardstick(self) -> bool:
        """Does a control remove another direction than its cosines are with? In the first versions they were with what it removed.

        Later versions are told by their nulls, and all after those say so.
        """
        return self.control != "none" and (self.record["yardstick"] == "v_hack" or bool(self.nulls))

    @property
    def direction(self) -> str:
        """The v_hack that the cosines are with: file and hash. One extracted by the run has its pairs' hash, so its loss and basis are named too."""
        found = self.record["v_hack"]
        if not found:
            return "no v_hack"
        made = (
            ()
            if found.get("file")
            else (
                str(found[key])
                for key in ("objective", "basis")
                if found.get(key) not in (None, "nll", "svd")
            )
        )
        return " ".join(
            filter(
                None,
                [
                    Path(str(found.get("file") or "extracted-by-the-run")).stem,
                    str(found.get("hash") or "")[:8],
                    *made,
                ],
            )
        )

    @property
    def model(self) -> str:
        name = str((self.record["model"] or {}).get("name") or "-")
        return (
            Path(name).name if Path(name).is_absolute() else name
        )  # where it lay on that machine says nothing

    @property
    def setting(self) -> tuple[str, str, str]:
        """Runs that share model, direction and pools are judged together."""
        pools = self.record["pools"] or []
        named = [f"{Path(str(pool.get('dir'))).name} {str(pool.get('hash') or '')[:8]}" for pool in pools]
        return self.model, self.direction, ", ".join(named) or "none"

    @property
    def memory(self) -> dict[str, float]:
        """GB at the highest point of every phase on a GPU; empty without one, and for runs that did not write it."""
        found = read_json(self.path / "summary.json").get("memory") if self.complete else None
        return found if isinstance(found, dict) else {}

    def column(self, key: str) -> list:
        return [row[key] for row in self.rows]

    def draws(self, key: str, first: float = 0, last: float = math.inf) -> np.ndarray | None:
        """(T, S): the null draws of a cosine on the steps where it is defined; None unless all of them were recorded."""
        steps = [row["step"] for row in self.rows if row[key] is not None and first <= row["step"] <= last]
        return (
            np.stack([self.nulls[step][key] for step in steps])
            if steps and key in COSINES and all(step in self.nulls for step in steps)
            else None
        )


def checked(row: dict, where: str, numbers: Iterable[str], flags: Iterable[str] = ()) -> dict:
    """The row with non-finite numbers as None; InputError where a field has the wrong type."""
    row = dict(row)
    for key in numbers:
        value = row[key]
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise InputError(f"{where}: {key!r} must be a number or null, found {value!r}")
        row[key] = value if value is not None and math.isfinite(value) else None
    for key in flags:
        if row[key] is not None and not isinstance(row[key], bool):
            raise InputError(f"{where}: {key!r} must be true, false or null, found {row[key]!r}")
    return row


def read_rows(path: Path) -> tuple[dict, ...]:
    rows = []
    for number, row in enumerate(read_jsonl(path, [*ROW_NUMBERS, "arm", "advantages"]), start=1):
        where = f"{path}: row {number}"
        row = checked(dict.fromkeys(LATER_NUMBERS) | row, where, (*ROW_NUMBERS, *LATER_NUMBERS))
        if row["advantages"] is not None:
            if not isinstance(row["advantages"], list):
                raise InputError(f"{where}: 'advantages' must be a list or null")
            named = {f"advantages[{index}]": value for index, value in enumerate(row["advantages"])}
            row["advantages"] = list(checked(named, where, named).values())
        for key in LATER_RANGES:
            if row.setdefault(key, None) is not None:
                if not isinstance(row[key], list) or len(row[key]) != 2:
                    raise InputError(f"{where}: {key!r} must be two numbers or null")
                ends = checked({"low": row[key][0], "high": row[key][1]}, where, ("low", "high"))
                row[key] = None if None in ends.values() else tuple(ends.values())
        if row["step"] is None or (rows and row["step"] <= rows[-1]["step"]):
            raise InputError(f"{where}: 'step' is {row['step']}; steps must be numbers that increase")
        rows.append(row)
    return tuple(rows)


def read_samples(directory: Path) -> tuple[dict, ...]:
    samples = []
    for path in sorted(directory.glob("step_*.cos.jsonl.gz")):
        rows = read_jsonl(path, [*SAMPLE_NUMBERS, *SAMPLE_FLAGS, *SAMPLE_OTHER])
        for number, row in enumerate(rows, start=1):
            row = checked(row, f"{path}: row {number}", SAMPLE_NUMBERS, SAMPLE_FLAGS)
            if not isinstance(row["src_pool"], str):
                raise InputError(
                    f"{path}: row {number}: 'src_pool' must be a string, found {row['src_pool']!r}"
                )
            samples.append(row | {"label": bucket_of(row) or "no label"})  # pictures colour by it
    return tuple(samples)


def read_nulls(directory: Path, steps: Iterable[int]) -> dict[int, dict[str, np.ndarray]]:
    """The null draws of the steps that have them, cosine -> (S,); all steps have the same S, because draws are averaged over steps."""
    nulls, size = {}, None
    for step in steps:
        path = directory / "nulls" / f"step_{step:03d}.safetensors"
        if not path.is_file():
            continue
        try:
            tensors = load_file(path)
        except (SafetensorError, OSError, ValueError) as fault:
            raise InputError(f"{path}: not a readable safetensors file ({fault})") from None
        size = size or tensors.get(COSINES[0], np.empty(0)).shape
        if any(key not in tensors or tensors[key].ndim != 1 or tensors[key].shape != size for key in COSINES):
            raise InputError(
                f"{path}: must hold {', '.join(COSINES)}, each with as many draws as on the other steps"
            )
        nulls[step] = tensors
    return nulls


def read_heldout(path: Path) -> tuple[dict, ...]:
    """The lines of the last evaluated step of eval.jsonl; none where the run was not evaluated."""
    lines = (
        read_jsonl(path, ("step", "adapter", "condition", "problems", "samples", *HELDOUT))
        if path.is_file()
        else []
    )
    for number, line in enumerate(lines, start=1):
        where = f"{path}: line {number}"
        checked(line, where, ("step", "problems", "samples"))
        if (
            line["step"] is None
            or line["adapter"] not in ("on", "off")
            or not isinstance(line["condition"], str)
        ):
            raise InputError(f"{where}: 'step', 'adapter' (on or off) or 'condition' is not as it must be")
        for key in HELDOUT:
            rate = line[key] if line[key] is not None else dict.fromkeys(("mean", "low", "high"))
            if not isinstance(rate, dict) or not {"mean", "low", "high"} <= rate.keys():
                raise InputError(f"{where}: {key!r} must be an object with mean, low and high, or null")
            line[key] = checked(rate, f"{where}: {key!r}", ("mean", "low", "high"))
    last = max((line["step"] for line in lines), default=None)
    return tuple(line for line in lines if line["step"] == last)


def checked_config(path: Path, record: dict) -> dict:
    """The settings of a run, after a look at every part of config.json that the tables rely on."""
    config, pools = record.get("config"), record.setdefault("pools", None)
    if not isinstance(config, dict):
        raise InputError(f"{path}: no object 'config'")
    for key in ("model", "v_hack"):
        if not isinstance(record.setdefault(key, None), (dict, type(None))):
            raise InputError(f"{path}: {key!r} must be an object or null")
    if pools is not None and not (isinstance(pools, list) and all(isinstance(pool, dict) for pool in pools)):
        raise InputError(f"{path}: 'pools' must be a list of objects or null")
    for key in ("training", "problems", "yardstick"):
        if not isinstance(record.setdefault(key, None), (str, type(None))):
            raise InputError(f"{path}: {key!r} must be a string or null")
    for key, kind in () if record["kind"] == "phase1" else (("arm", str), ("seed", int)):
        if not isinstance(config.get(key), kind):
            raise InputError(f"{path}: 'config' has no {key!r} of type {kind.__name__}")
    return config


def read_run(directory: Path, record: dict) -> Run:
    """Load one run and check that its files agree with each other."""
    config, summary = checked_config(directory / "config.json", record), directory / "summary.json"
    rows, planned = (
        read_rows(directory / "rows.jsonl"),
        read_json(summary).get("steps") if summary.is_file() else None,
    )
    if not rows or (planned is not None and planned != len(rows)):
        raise InputError(
            f"{directory / 'rows.jsonl'}: {len(rows)} rows, but summary.json says {planned} steps"
        )
    samples = read_samples(directory) if record["kind"] != "sampled" else ()
    lacking = {row["step"] for row in rows} ^ {sample["step"] for sample in samples}
    if record["kind"] != "sampled" and lacking:
        named = ", ".join(sorted(map(str, lacking)))
        raise InputError(f"{directory}: rows.jsonl and step_*.cos.jsonl.gz disagree on steps {named}")
    nulls, heldout = (
        read_nulls(directory, (row["step"] for row in rows)),
        read_heldout(directory / "eval.jsonl"),
    )
    return Run(
        directory,
        directory.name,
        record["kind"],
        config,
        record,
        rows,
        with_draws(samples, nulls, directory),
        nulls,
        heldout,
    )


def with_draws(
    samples: Sequence[dict], nulls: dict[int, dict[str, np.ndarray]], directory: Path
) -> tuple[dict, ...]:
    """Every rollout with the null draws (S,) of its cos_S_logp; None where its step recorded none."""
    place: dict[int, int] = defaultdict(int)
    drawn = []
    for sample in samples:
        step, draws = sample["step"], nulls.get(sample["step"], {}).get("cos_S_logp")
        if draws is not None and (
            draws.ndim != 2 or place[step] >= len(draws) or draws.shape[1:] != nulls[step][COSINES[0]].shape
        ):
            where = directory / "nulls" / f"step_{step:03d}.safetensors"
            raise InputError(
                f"{where}: cos_S_logp does not have a row for every rollout of the step, with as many draws as {COSINES[0]}"
            )
        drawn.append(sample | {"draws": None if draws is None else draws[place[step]].astype(np.float32)})
        place[step] += 1
    return tuple(drawn)


def short_labels(runs: Sequence[Run]) -> list[str]:
    """A name for each run from the settings that tell it from its kin: "projected update s42"; runs alike in these are counted, "vanilla (2)".

    Directory names carry every setting and are too long for tables; the table of runs gives the path of each label.
    """
    described = [(run.kind, run.traits()) for run in runs]

    def varies(kind: str, trait: str) -> bool:
        return len({traits[trait] for other, traits in described if other == kind} - {""}) > 1

    labels = []
    for kind, traits in described:
        chosen = [
            value for trait, value in traits.items() if trait in ("arm", "control") or varies(kind, trait)
        ]
        labels.append((kind, " ".join(filter(None, [kind if kind == "phase1" else "", *chosen]))))
    return counted([label for _, label in labels])


def unfinished(directory: Path, kind: Any, take: bool = False) -> str | None:
    """Why a run directory is left out, or None when it is complete (or, with ``take``, has steps at all)."""
    if kind not in KINDS:
        return f"unknown kind {kind!r}"
    if not (directory / "summary.json").is_file():
        return None if take and (directory / "rows.jsonl").is_file() else "incomplete: no summary.json"
    summary = read_json(directory / "summary.json")
    return (
        None if isinstance(summary, dict) and summary.get("finished") is True else "incomplete: not finished"
    )


def find_runs(root: Path, take_unfinished: bool = False) -> tuple[list[Run], list[str]]:
    """(runs to show below ``root``, one line for each run left out). InputError when there is none to show.

    Complete runs, and with ``take_unfinished`` those that have steps but no summary, marked in their label.

    A config.json without a "kind" is something else (a model's, say) and is passed over.
    """
    if not root.is_dir():
        raise InputError(f"{root}: no such directory")
    records = {path.parent: read_json(path) for path in sorted(root.rglob("config.json"))}
    records = {
        path: record for path, record in records.items() if isinstance(record, dict) and "kind" in record
    }
    if not records:
        raise InputError(f"{root}: no run directory in it (a config.json with a 'kind')")
    reasons = {path: unfinished(path, record["kind"], take_unfinished) for path, record in records.items()}
    left_out = [f"{path}: {reason}" for path, reason in reasons.items() if reason]
    complete = [path for path, reason in reasons.items() if not reason]
    if not complete:
        raise InputError(f"{root}: no complete run; left out: {'; '.join(left_out)}")
    runs = [read_run(path, records[path]) for path in complete]
    marks = ["" if run.complete else " (unfinished)" for run in runs]
    runs = [
        replace(run, label=label + mark)
        for run, label, mark in zip(runs, short_labels(runs), marks, strict=True)
    ]
    runs.sort(
        key=lambda run: (
            KINDS.index(run.kind),
            not run.vanilla,
            run.arm == "lora",
            run.control != "none",
            run.label,
        )
    )
    return runs, left_out


AGAIN = r"\(\d+\)"


def counted(names: Sequence[str]) -> list[str]:
    """The names with (2), (3) ... behind those that occurred before."""
    return [
        name if (again := names[:place].count(name)) == 0 else f"{name} ({again + 1})"
        for place, name in enumerate(names)
    ]


# ---------------------------------------------------------------------------------------------- held out
HELDOUT = {
    "hacked": "hacked",
    "attempted": "attempted",
    "solved": "solved",
    "hack_given_attempt": "P(hack | attempt)",
}
