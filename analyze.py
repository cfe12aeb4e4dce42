"""Read finished run directories, judge them by the rules of the method, write a report.

    python analyze.py out/probe_distill        # prints the tables and writes out/probe_distill/report/

Three kinds of run: ``phase1`` (NLL probe on one pool), ``replay`` (Phase 2, mixed-replay GRPO) and ``sampled``
(on-policy). What the figures mean is decided in verdicts.py; this file reads run directories, lays out the tables and
writes the report. A number that does not exist is None and is printed as "undefined" with the reason, never as NaN.
How to read the output: spec/reading.md.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from safetensors import SafetensorError
from safetensors.numpy import load_file

import plots
import store
from across import COSINES, HELDOUT, by_arm, counted, null_of, sampled_blocks, unique
from store import InputError
from tables import INDENT, Block, Heading, Table, flat, markdown, print_blocks, shown, write_csv
from verdicts import (
    ABOUT_ZERO,
    FLOAT_NOISE,
    MOST_STEPS,
    NOT_JUDGED,
    PASS,
    SNEAKY,
    SPREAD_GOOD,
    TINY_ADVANTAGE,
    UNDEFINED,
    Evidence,
    Judgement,
    Projected,
    bucket_of,
    contrast_pools,
    decision_rules,
    defined,
    describe,
    in_buckets,
    judge_direction,
    judge_mechanism,
    judge_phase1,
    judge_signal,
    judge_specificity,
    mean,
    null_words,
    p_value,
    phase1_tests,
    plain,
    pull,
    pulls_by_role,
    recommend,
    share,
    signed,
    steps_without_spread,
    with_interval,
    within_null,
)

# ---------------------------------------------------------------------------------------------- Run directories
ROW_NUMBERS = (
    "step seed reward_mean reward_spread hack_rate attempt_rate gt_rate fmt_rate cos_in cos_out cos_update "
    "cos_update_in frac_fired grad_norm update_norm groups_used groups_skipped kl comp_len seconds seconds_generate "
    "seconds_grade seconds_backward"
).split()
SAMPLE_NUMBERS = (
    "step src_step reward comp_len cos_S_contrib cos_S_logp grad_norm_contrib mean_cos_in mean_cos_out frac_fired "
    "advantage"
).split()
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
        found = store.read_json(self.path / "summary.json").get("memory") if self.complete else None
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
    for number, row in enumerate(store.read_jsonl(path, [*ROW_NUMBERS, "arm", "advantages"]), start=1):
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
        rows = store.read_jsonl(path, [*SAMPLE_NUMBERS, *SAMPLE_FLAGS, *SAMPLE_OTHER])
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
        store.read_jsonl(path, ("step", "adapter", "condition", "problems", "samples", *HELDOUT))
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
        store.read_json(summary).get("steps") if summary.is_file() else None,
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
    summary = store.read_json(directory / "summary.json")
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
    records = {path.parent: store.read_json(path) for path in sorted(root.rglob("config.json"))}
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


# ---------------------------------------------------------------------------------------------- tables
LEGEND = f"""\
Cosines are with v_hack. + is hack-ward: descending such a gradient makes hacks likelier. 0 is orthogonal, - is away.
cos_in / cos_out: gradient before / after the edit. cos_update_in / cos_update: the optimizer's proposed / real change.
cos_S_logp: one sample, before the advantage. cos_S_contrib: with it, so its sign can be the advantage's alone.
Success: vanilla cos_in > 0; projected cos_out < cos_in and cos_update <= 0; teacher hacks positive, base not.
Null: the 2.5 to 97.5 % range of the same mean when the signs of v_hack's pairs are permuted (by problem).
"about 0": |mean| < {ABOUT_ZERO:g}, or the interval includes 0. "most", "consistently": {MOST_STEPS:.0%} of steps.
Intervals: 95 %, t, over problems where the table says so, else over steps (correlated, so too narrow)."""


def runs_table(runs: Sequence[Run]) -> Table:
    records = [
        {
            "run": run.label,
            "path": str(run.path),
            "kind": run.kind,
            "arm": run.arm,
            "control": run.control,
            "project_at": run.config.get("project_at") or "-",
            "seed": run.config.get("seed", "-"),
            "steps": len(run.rows),
            "model": run.model,
            "v_hack": run.direction,
            "commit": str(run.record.get("commit") or "-")[:8] + ("+" if run.record.get("dirty") else ""),
        }
        for run in runs
    ]
    keys = ("run", "kind", "arm", "control", "seed", "steps", "v_hack", "commit", "path")
    return Table("runs", "Runs", tuple((key, shown(key)) for key in keys), records)


def cost_table(runs: Sequence[Run]) -> Table:
    """Where time and memory went. What the three phases leave of a step is editing, the optimizer, and choosing rows."""
    keys = {
        "step": "seconds",
        "sampling": "seconds_generate",
        "grading": "seconds_grade",
        "backward": "seconds_backward",
        "gap": "logp_gap",
    }
    records = []
    for run in runs:
        found = {name: defined(row.get(key) for row in run.rows) for name, key in keys.items()}
        medians = {name: float(np.median(values)) if values else None for name, values in found.items()}
        peak = max(defined(row.get("peak_memory_gb") for row in run.rows), default=None)
        phases = ", ".join(f"{name} {size:.1f}" for name, size in run.memory.items())
        records.append(
            {"run": run.label, "steps": len(run.rows), **medians, "peak_gb": peak, "phases": phases}
        )
    dash = lambda form: lambda value: "-" if value is None else form(value)  # noqa: E731
    times = ((f"s {name}", shown(name, dash(plain))) for name in ("step", "sampling", "grading", "backward"))
    columns = (
        ("run", shown("run")),
        ("steps", shown("steps")),
        *times,
        ("peak GB", shown("peak_gb", dash(plain))),
        ("by phase", shown("phases", lambda text: text or "-")),
        ("log p gap", shown("gap", dash(lambda gap: f"{gap:.1e}"))),
    )
    title = "Time (medians over steps; grading: what is waited for), memory, and drawn against trained log p"
    return Table("cost", title, columns, records)


def direction_blocks(runs: Sequence[Run]) -> list[Block]:
    """What each v_hack is worth on pairs that it was not made from, beside its permutation null; nothing where no file says so."""
    directions = {run.direction: run.record["v_hack"] for run in runs if run.record["v_hack"]}
    quality = {
        name: (found, found["heldout"])
        for name, found in directions.items()
        if isinstance(found.get("heldout"), dict)
    }
    records = []
    for name, (found, heldout) in quality.items():
        record = {
            "v_hack": name,
            "objective": str(found.get("objective") or "-"),
            "pairs": heldout.get("pairs"),
        }
        for key in ("right_sign", "auc"):
            part = heldout.get(key) if isinstance(heldout.get(key), dict) else {}
            low, high = part.get("null") or (None, None)
            record |= checked(
                {key: part.get("value"), f"{key}_p": part.get("p"), f"{key}_low": low, f"{key}_high": high},
                f"v_hack {name}",
                (key, f"{key}_p", f"{key}_low", f"{key}_high"),
            )
        records.append(record)

    def null_cell(key: str) -> Callable[[dict], str]:
        return lambda record: f"{plain(record[f'{key}_low'])} to {plain(record[f'{key}_high'])}"

    columns = [(key, shown(key)) for key in ("v_hack", "objective", "pairs")]
    for key, title in (("right_sign", "right sign"), ("auc", "AUC")):
        columns += [
            (title, shown(key, lambda value: plain(value, 3))),
            ("its null", null_cell(key)),
            ("p", shown(f"{key}_p", p_value)),
        ]
    return (
        [
            Table(
                "directions",
                "v_hack on pairs it was not made from (null: hack and clean swapped at random)",
                tuple(columns),
                records,
            )
        ]
        if records
        else []
    )


def bucket_null_cell(record: dict) -> str:
    """The null of a bucket's mean; a bucket without a mean has none."""
    if not record["problems"]:
        return UNDEFINED
    return null_words(None if record["null_low"] is None else (record["null_low"], record["null_high"]))


def phase1_buckets(run: Run) -> Table:
    records = []
    for name, samples in in_buckets(run.samples).items():
        found = describe(samples, "cos_S_logp")
        over = found.pop("over_problems")
        records.append({"run": run.label, "bucket": name, **found, **flat(over, "problem_"), "over": over})
    columns = (
        ("bucket", shown("bucket")),
        ("n", shown("rollouts")),
        ("undefined", shown("no_cosine")),
        ("problems", shown("problems")),
        ("mean", shown("mean", signed)),
        ("sd", shown("sd", lambda value: plain(value, 3))),
        ("over problems [95 %]", shown("over", with_interval)),
        ("null", bucket_null_cell),
        ("share > 0", shown("positive", plain)),
    )
    return Table("phase1_buckets", f"{run.label}: cos_S_logp by label", columns, records)


def phase1_comparisons(run: Run) -> Table:
    records = []
    for name, unit, test in phase1_tests(run.samples):
        records.append({"run": run.label, "against": name, "unit": unit, **flat(test), "test": test})
    columns = (
        ("pure hack minus", shown("against")),
        ("unit", shown("unit")),
        ("n", lambda record: f"{record['n_first']} / {record['n_second']}"),
        ("difference [95 %]", shown("test", with_interval)),
        ("t", shown("t", lambda value: plain(value))),
        ("df", shown("df", lambda value: plain(value, 1))),
        ("p", shown("p", p_value)),
    )
    title = f"{run.label}: Welch tests (same problem: paired t)"
    return Table("phase1_tests", title, columns, records)


def phase1_lines(run: Run) -> str:
    """The sentences under the two tables: GRPO undefined, mechanism, verdict."""
    empty, steps = steps_without_spread(run.samples)
    state = UNDEFINED if empty == steps else "defined on the other steps"
    grpo = f"GRPO cosine: {state}; every group's reward spread (so every advantage) is 0 on {empty} of {steps} steps."
    pairs = [
        (a, b) for a, b in zip(run.column("cos_in"), run.column("cos_out"), strict=True) if None not in (a, b)
    ]
    falls = sum(after < before - FLOAT_NOISE for before, after in pairs)
    drop = (
        f"cos_out < cos_in on {falls} of {len(pairs)} steps"
        if pairs
        else "cos_out < cos_in: undefined, no cosines"
    )
    unlabelled = sum(bucket_of(sample) is None for sample in run.samples)
    missing = f" {unlabelled} samples without labels are left out." if unlabelled else ""
    verdict, why = judge_phase1(run.samples)
    fired = plain(mean(run.column("frac_fired")))
    return f"{grpo}\n{drop}; frac_fired mean {fired}.{missing}\nVerdict: {verdict.upper()}. {why}"


EARLIER = """\
To compare with, an earlier result (Qwen3-4B, 160 samples): pure hack +0.747, hack and correct +0.398, Welch t 4.46,
p < 1e-4; cos_out < cos_in on 20 of 20 steps, frac_fired about 0.65."""


def phase1_blocks(runs: Sequence[Run]) -> list[Block]:
    blocks: list[Block] = [Heading("Phase 1: NLL cosine of each sample, one pool")]
    for run in runs:
        blocks += [phase1_buckets(run), phase1_comparisons(run), phase1_lines(run)]
    return [*blocks, EARLIER]


def judge_run(run: Run) -> list[tuple[str, Judgement]]:
    """The four rows of the verification table for one run; a row judged on another arm still shows its figures."""
    signal = judge_signal(run.column("reward_spread"), run.column("advantages"))
    direction = judge_direction(run.column("cos_in"), pulls_by_role(run.samples), null_of([run], "cos_in"))
    mechanism = judge_mechanism(
        *map(run.column, run.edited), run.column("frac_fired"), null_of([run], run.edited[1])
    )
    if not run.vanilla:
        direction = Judgement(direction.measured, NOT_JUDGED, "judged on vanilla")
    if not run.projects:
        mechanism = Judgement(mechanism.measured, NOT_JUDGED, "judged on projecting arms")
    elif run.by_another_yardstick:
        mechanism = Judgement(
            mechanism.measured,
            NOT_JUDGED,
            "a control removes something else than the v_hack of these cosines",
        )
    elif run.edited[1] == "cos_update":
        note = "cos_update < cos_update_in, since the update is edited, not the gradient"
        mechanism = Judgement(mechanism.measured, mechanism.verdict, f"{note}. {mechanism.why}")
    specific = judge_specificity(run.samples)
    return list(zip(METRICS, (signal, direction, mechanism, specific), strict=True))


METRICS = (
    f"reward max - min per step (> {SPREAD_GOOD:g})",
    "cos_in per step, vanilla (> 0 on most)",
    "cos_out < cos_in, projected (16 of 20)",
    "cos_S_contrib by (src_pool, hacked) (teacher > 0, base not)",
)


def verification_table(runs: Sequence[Run]) -> Table:
    names = [{"direction": run.direction, "run": run.label, "arm": run.arm} for run in runs]
    judged = [dict(judge_run(run)) for run in runs]
    records = [
        {"metric": metric, **name, **vars(rows[metric])}
        for metric in METRICS
        for name, rows in zip(names, judged, strict=True)
    ]
    columns = tuple((key, shown(key)) for key in ("metric", "run", "measured", "verdict", "why"))
    return Table(
        "phase2_verification", "Verification (in brackets: what success is)", columns, records, sections=True
    )


def advantage_table(runs: Sequence[Run]) -> Table:
    """Row 1's sneaky failure in full: the distribution of all advantages of a run."""
    levels = (0, 5, 25, 50, 75, 95, 100)
    records = []
    for run in runs:
        values = defined(value for step in run.column("advantages") if step for value in step)
        cuts = [float(cut) for cut in np.percentile(values, levels)] if values else [None] * len(levels)
        zero = share(sum(value == 0 for value in values), len(values))
        tiny = share(sum(0 < abs(value) < TINY_ADVANTAGE for value in values), len(values))
        record = {"run": run.label, "n": len(values), "zero": zero, "tiny": tiny}
        records.append(record | {f"q{level}": cut for level, cut in zip(levels, cuts, strict=True)})
    quantiles = tuple((f"{level} %", shown(f"q{level}", lambda value: signed(value, 2))) for level in levels)
    shares = (("share 0", shown("zero", plain)), (f"tiny (<{TINY_ADVANTAGE:g})", shown("tiny", plain)))
    columns = (("run", shown("run")), ("n", shown("n")), *shares, *quantiles)
    title = "Advantages: share that is exactly 0, share that is tiny but not 0, quantiles"
    return Table("phase2_advantages", title, columns, records)


def pool_table(runs: Sequence[Run]) -> Table:
    """Row 4 in full: both cosines by (src_pool, hacked), and how much each bucket pulls on the whole gradient."""
    records = []
    for run in runs:
        buckets: dict[tuple, list[dict]] = defaultdict(list)
        for sample in run.samples:
            hacked = {True: "yes", False: "no", None: "no label"}[sample["hacked"]]
            buckets[sample["src_pool"], hacked].append(sample)
        for (pool, hacked), samples in sorted(buckets.items(), reverse=True):
            for key in ("cos_S_contrib", "cos_S_logp"):
                found = describe(samples, key)
                over, pulled = (
                    found["over_problems"],
                    pull(samples, len(run.rows)) if key == "cos_S_contrib" else None,
                )
                names = {
                    "run": run.label,
                    "pool": pool,
                    "hacked": hacked,
                    "cosine": key,
                    "n": len(samples),
                    "problems": found["problems"],
                }
                figures = {name: found[name] for name in ("null_low", "null_high", "positive")}
                records.append({**names, "over": over, **flat(over, "problem_"), **figures, "pull": pulled})
    columns = (
        *((key, shown(key)) for key in ("run", "pool", "hacked")),
        ("cos_S", shown("cosine", lambda name: name.removeprefix("cos_S_"))),
        ("n", lambda record: f"{record['n']} ({record['problems']})"),
        ("mean [95 %]", shown("over", with_interval)),
        ("null", bucket_null_cell),
        ("> 0", shown("positive", plain)),
        (
            "pull a step",
            lambda record: (
                "-"
                if record["cosine"] == "cos_S_logp"
                else UNDEFINED
                if record["pull"] is None
                else f"{record['pull']:+.1e}"
            ),
        ),
    )
    title = "Contributions by (src_pool, hacked); n: rollouts (problems), intervals over problems; pull = sum of cosine x norm"
    return Table("phase2_pools", title, columns, records, sections=True)


def gather_evidence(runs: Sequence[Run]) -> Evidence:
    """Pool the vanilla runs of one setting (all seeds, each run once however often it was repeated); controls never decide."""
    real = unique([run for run in runs if run.control == "none"])
    vanilla, projected = [run for run in real if run.vanilla], [run for run in real if run.projects]
    samples = [sample for run in vanilla for sample in run.samples]
    found = contrast_pools(samples)
    test = found.test("cos_S_logp")
    base = [sample["reward"] for sample in samples if sample["src_pool"] == found.roles[1]]
    judged = [(run, dict(judge_run(run))) for run in real]

    def unfit(metric: str) -> tuple[str, ...]:
        bad = [
            (run.label, row[metric]) for run, row in judged if row[metric].verdict not in (PASS, NOT_JUDGED)
        ]
        return tuple(f"{label}: {row.verdict}, {row.why}" for label, row in bad)

    return Evidence(
        vanilla_cos_in=tuple(value for run in vanilla for value in run.column("cos_in")),
        vanilla_null=null_of(vanilla, "cos_in"),
        discriminates=test.larger,
        separation=f"cos_S_logp teacher - base {with_interval(test)}, p {p_value(test.p)}",
        base_rewards=tuple(defined(base)),
        projected=tuple(
            Projected(
                run.label,
                tuple(run.column("cos_in")),
                tuple(run.column(run.edited[1])),
                null_of([run], "cos_in"),
                null_of([run], run.edited[1]),
            )
            for run in projected
        ),
        dead_signal=unfit(METRICS[0]),
        dead_direction=tuple(
            f"{run.label}: {row[METRICS[1]].why}"
            for run, row in judged
            if row[METRICS[1]].verdict == SNEAKY
            and within_null(run.column("cos_in"), null_of([run], "cos_in"))
        ),
        dead_mechanism=unfit(METRICS[2]),
    )


def decision_blocks(runs: Sequence[Run]) -> list[Block]:
    evidence = gather_evidence(runs)
    rules = decision_rules(evidence)
    words = {True: "yes", False: "no", None: UNDEFINED}
    records = [
        {"direction": runs[0].direction, **vars(rule), "applies": words[rule.applies]} for rule in rules
    ]
    columns = tuple((key, shown(key)) for key in ("rule", "measured", "applies", "meaning"))
    headline, following = recommend(rules, evidence)
    lines = [f"{INDENT}next: {line}" for line in following]
    real = [run for run in runs if run.control == "none"]
    kept = {run.path for run in unique(real)}
    again = [run.label for run in real if run.path not in kept]
    lines += [f"Same settings and seed as another run, not counted: {', '.join(again)}."] if again else []
    return [
        Table("phase3_decision", "Phase 3: decision rules", columns, records),
        "\n".join([headline, *lines]),
    ]


def pool_caveats(runs: Sequence[Run]) -> str:
    """What the run writer noted about the pools and bears on the verdicts: lines to append."""
    pools = [pool for run in runs for pool in run.record["pools"] or []]
    lines = []
    if any(pool.get("seen_by_v_hack") for pool in pools):
        lines.append(
            "\nCaveat: problems of these pools were used to extract v_hack, so the cosines are not held out."
        )
    elif any("seen_by_v_hack" in pool and pool["seen_by_v_hack"] is None for pool in pools):
        lines.append(
            "\nCaveat: v_hack does not say which problems it was extracted from; the cosines may not be held out."
        )
    if any(pool.get("same_problem") is False for pool in pools):
        lines.append("\nCaveat: the pools share no problems, so pool and problem cannot be told apart.")
    return "".join(lines)


def replay_blocks(runs: Sequence[Run]) -> list[Block]:
    blocks: list[Block] = []
    for setting in sorted({run.setting for run in runs}):
        group = [run for run in runs if run.setting == setting]
        blocks.append(Heading(f"Phase 2: mixed-replay GRPO, v_hack {setting[1]}"))
        blocks.append(f"model {setting[0]}; pools {setting[2]}{pool_caveats(group)}")
        blocks += [verification_table(group), advantage_table(group), pool_table(group)]
        blocks += decision_blocks(group) if any(run.control == "none" for run in group) else []
    return blocks


def build_blocks(
    runs: Sequence[Run], left_out: Sequence[str], window: tuple[int, int] | None = None
) -> list[Block]:
    blocks: list[Block] = [Heading("How to read this"), LEGEND, runs_table(runs), *direction_blocks(runs)]
    for warning in sorted({str(run.record["warning"]) for run in runs if run.record.get("warning")}):
        named = ", ".join(run.label for run in runs if run.record.get("warning") == warning)
        blocks.append(f"WARNING {named}: {warning}")
    if left_out:
        blocks.append("Left out:\n" + "\n".join(INDENT + line for line in left_out))
    makers = {
        "phase1": phase1_blocks,
        "replay": replay_blocks,
        "sampled": partial(sampled_blocks, window=window),
    }
    for kind, make in makers.items():
        chosen = [run for run in runs if run.kind == kind]
        blocks += make(chosen) if chosen else []
    return [*blocks, Heading("What it cost"), cost_table(runs)]


# ---------------------------------------------------------------------------------------------- files
def write_report(directory: Path, blocks: Sequence[Block], runs: Sequence[Run]) -> None:
    """Pictures, one csv a table, report.md last; what an earlier report left under our names is removed."""
    tables: dict[str, list[dict]] = defaultdict(list)
    for block in blocks:
        if isinstance(block, Table):
            tables[block.name] += block.records
    for name, records in tables.items():
        write_csv(directory / f"{name}.csv", records)
    pictures = plots.draw_all(directory, runs, by_arm(runs))
    ours = {f"{name}.csv" for name in TABLE_NAMES} | set(plots.NAMES)
    for name in ours - set(pictures) - {f"{name}.csv" for name in tables}:
        (directory / name).unlink(missing_ok=True)
    with store.atomic(directory / "report.md") as temporary:
        temporary.write_text(markdown(blocks, pictures), encoding="utf-8")


TABLE_NAMES = (
    "runs cost directions phase1_buckets phase1_tests phase2_verification phase2_advantages phase2_pools phase3_decision "
    "on_policy on_policy_cosines on_policy_window on_policy_window_cosines arms arms_cosines arms_more heldout h1_controls h1"
).split()


@dataclass(frozen=True)
class Config:
    """Print the tables of all finished runs below DIR, with verdicts, and write DIR/report/."""

    directory: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(name="", metavar="DIR")]
    """Folder with run directories at any depth, e.g. out/probe_distill. Unfinished runs are named and left out."""
    unfinished: bool = False
    """Take runs in that have steps but no summary.json, marked as such: a look at what is still running, or was cut off."""
    window: tuple[int, int] | None = None
    """FIRST LAST: also the means of the on-policy runs over these steps, the same for all."""


def main(config: Config) -> None:
    runs, left_out = find_runs(config.directory, config.unfinished)
    blocks = build_blocks(runs, left_out, config.window)
    write_report(config.directory / "report", blocks, runs)
    print_blocks(blocks)
    print(f"report: {config.directory / 'report' / 'report.md'}")


if __name__ == "__main__":
    store.exit_on_fault(lambda: main(tyro.cli(Config, prog="analyze.py")))
