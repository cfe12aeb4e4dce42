"""Read finished run directories, judge them by the rules of the method, write a report.

    python analyze.py out/probe_distill        # prints the tables and writes out/probe_distill/report/

Three kinds of run: ``phase1`` (NLL probe on one pool), ``replay`` (Phase 2, mixed-replay GRPO) and ``sampled``
(on-policy). What the figures mean is decided in verdicts.py; this file reads run directories, lays out the tables and
writes the report. A number that does not exist is None and is printed as "undefined" with the reason, never as NaN.
How to read the output: spec/reading.md.
"""

from __future__ import annotations

import csv
import json
import math
import shutil
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import rich.box
import rich.table
import tyro
from rich.console import Console
from rich.text import Text

import plots
import store
from plots import RATES
from store import InputError
from verdicts import (
    ABOUT_ZERO, EDGE, FAIL, FLOAT_NOISE, HACK_ONSET, MOST_STEPS, NOT_JUDGED, ONSET_WINDOW, PASS, SNEAKY, SPREAD_GOOD,
    TINY_ADVANTAGE, UNDEFINED, Comparison, Estimate, Evidence, Judgement, Projected, bucket_of, contrast_pools,
    curve, decision_rules, defined, describe, estimate, in_buckets, judge_direction, judge_mechanism, judge_phase1,
    judge_signal, judge_specificity, mean, p_value, paired, phase1_tests, plain, pull, pulls_by_role, recommend,
    share, signed, steps_without_spread, time_to_hack, with_interval,
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
        edits = self.arm not in ("vanilla", "-")
        return {
            "arm": "" if self.kind == "phase1" else self.arm,
            "control": "" if self.control == "none" else self.control,
            "gate": str(self.config.get("gate") or "") if edits else "",
            "project_at": str(self.config.get("project_at") or "") if edits else "",
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
    def projects(self) -> bool:
        return self.arm != "vanilla" and self.control != "shrink"

    @property
    def direction(self) -> str:
        found = self.record["v_hack"] or {}
        name = Path(str(found.get("file") or "extracted-by-the-run")).stem
        return f"{name} {str(found.get('hash') or '')[:8]}".strip() if found else "no v_hack"

    @property
    def model(self) -> str:
        name = str((self.record["model"] or {}).get("name") or "-")
        return Path(name).name if Path(name).is_absolute() else name  # where it lay on that machine says nothing

    @property
    def setting(self) -> tuple[str, str, str]:
        """Runs that share model, direction and pools are judged together."""
        pools = self.record["pools"] or []
        named = [f"{Path(str(pool.get('dir'))).name} {str(pool.get('hash') or '')[:8]}" for pool in pools]
        return self.model, self.direction, ", ".join(named) or "none"

    def column(self, key: str) -> list:
        return [row[key] for row in self.rows]


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
        row = checked(row, where, ROW_NUMBERS)
        if row["advantages"] is not None:
            if not isinstance(row["advantages"], list):
                raise InputError(f"{where}: 'advantages' must be a list or null")
            named = {f"advantages[{index}]": value for index, value in enumerate(row["advantages"])}
            row["advantages"] = list(checked(named, where, named).values())
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
                raise InputError(f"{path}: row {number}: 'src_pool' must be a string, found {row['src_pool']!r}")
            samples.append(row | {"label": bucket_of(row) or "no label"})  # pictures colour by it
    return tuple(samples)


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
    for key, kind in () if record["kind"] == "phase1" else (("arm", str), ("seed", int)):
        if not isinstance(config.get(key), kind):
            raise InputError(f"{path}: 'config' has no {key!r} of type {kind.__name__}")
    return config


def read_run(directory: Path, record: dict) -> Run:
    """Load one run and check that its files agree with each other."""
    config, summary = checked_config(directory / "config.json", record), directory / "summary.json"
    rows, planned = read_rows(directory / "rows.jsonl"), store.read_json(summary).get("steps") if summary.is_file() else None
    if not rows or (planned is not None and planned != len(rows)):
        raise InputError(f"{directory / 'rows.jsonl'}: {len(rows)} rows, but summary.json says {planned} steps")
    samples = read_samples(directory) if record["kind"] != "sampled" else ()
    lacking = {row["step"] for row in rows} ^ {sample["step"] for sample in samples}
    if record["kind"] != "sampled" and lacking:
        named = ", ".join(sorted(map(str, lacking)))
        raise InputError(f"{directory}: rows.jsonl and step_*.cos.jsonl.gz disagree on steps {named}")
    return Run(directory, directory.name, record["kind"], config, record, rows, samples)


def short_labels(runs: Sequence[Run]) -> list[str]:
    """A name for each run from the settings that tell it from its kin: "projected update s42"; else its path.

    Directory names carry every setting and are too long for tables; the table of runs gives the path of each label.
    """
    described = [(run.kind, run.traits()) for run in runs]

    def varies(kind: str, trait: str) -> bool:
        return len({traits[trait] for other, traits in described if other == kind} - {""}) > 1

    labels = []
    for kind, traits in described:
        chosen = [value for trait, value in traits.items() if trait in ("arm", "control") or varies(kind, trait)]
        labels.append((kind, " ".join(filter(None, [kind if kind == "phase1" else "", *chosen]))))
    return [str(run.path) if labels.count(label) > 1 else label[1] for run, label in zip(runs, labels, strict=True)]


def unfinished(directory: Path, kind: Any, take: bool = False) -> str | None:
    """Why a run directory is left out, or None when it is complete (or, with ``take``, has steps at all)."""
    if kind not in KINDS:
        return f"unknown kind {kind!r}"
    if not (directory / "summary.json").is_file():
        return None if take and (directory / "rows.jsonl").is_file() else "incomplete: no summary.json"
    summary = store.read_json(directory / "summary.json")
    return None if isinstance(summary, dict) and summary.get("finished") is True else "incomplete: not finished"


def find_runs(root: Path, take_unfinished: bool = False) -> tuple[list[Run], list[str]]:
    """(runs to show below ``root``, one line for each run left out). InputError when there is none to show.

    Complete runs, and with ``take_unfinished`` those that have steps but no summary, marked in their label.

    A config.json without a "kind" is something else (a model's, say) and is passed over.
    """
    if not root.is_dir():
        raise InputError(f"{root}: no such directory")
    records = {path.parent: store.read_json(path) for path in sorted(root.rglob("config.json"))}
    records = {path: record for path, record in records.items() if isinstance(record, dict) and "kind" in record}
    if not records:
        raise InputError(f"{root}: no run directory in it (a config.json with a 'kind')")
    reasons = {path: unfinished(path, record["kind"], take_unfinished) for path, record in records.items()}
    left_out = [f"{path}: {reason}" for path, reason in reasons.items() if reason]
    complete = [path for path, reason in reasons.items() if not reason]
    if not complete:
        raise InputError(f"{root}: no complete run; left out: {'; '.join(left_out)}")
    runs = [read_run(path, records[path]) for path in complete]
    marks = ["" if run.complete else " (unfinished)" for run in runs]
    runs = [replace(run, label=label + mark) for run, label, mark in zip(runs, short_labels(runs), marks, strict=True)]
    runs.sort(key=lambda run: (KINDS.index(run.kind), run.arm != "vanilla", run.control != "none", run.label))
    return runs, left_out


# ---------------------------------------------------------------------------------------------- tables
@dataclass(frozen=True)
class Table:
    """Records with raw figures (they go to NAME.csv) and, a column, how a record is shown."""

    name: str
    title: str
    columns: tuple[tuple[str, Callable[[dict], str]], ...]
    records: list[dict]
    sections: bool = False  # the first column names a section: it is shown once, with a line below the section

    def cells(self) -> list[list[str]]:
        lines = [[show(record) for _, show in self.columns] for record in self.records]
        repeated = [self.sections and index > 0 and line[0] == lines[index - 1][0] for index, line in enumerate(lines)]
        return [["", *line[1:]] if again else line for line, again in zip(lines, repeated, strict=True)]


@dataclass(frozen=True)
class Heading:
    text: str


Block = Table | Heading | str

LEGEND = f"""\
Cosines are with v_hack. + is hack-ward: descending such a gradient makes hacks likelier. 0 is orthogonal, - is away.
cos_in / cos_out: gradient before / after the edit. cos_update_in / cos_update: the optimizer's proposed / real change.
cos_S_logp: one sample, before the advantage. cos_S_contrib: with it, so its sign can be the advantage's alone.
Success: vanilla cos_in > 0; projected cos_out < cos_in and cos_update <= 0; teacher hacks positive, base not.
"about 0": |mean| < {ABOUT_ZERO:g}, or the interval includes 0. "most", "consistently": {MOST_STEPS:.0%} of steps.
Intervals: 95 %, t, over problems where the table says so, else over steps (correlated, so too narrow)."""


def shown(key: str, form: Callable = str) -> Callable[[dict], str]:
    return lambda record: form(record[key])


def flat(found: Estimate | Comparison, prefix: str = "") -> dict:
    """Raw figures of an estimate as csv columns."""
    return {prefix + key: value for key, value in vars(found).items()}


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
        ("over problems: mean [95 %]", shown("over", with_interval)),
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
    pairs = [(a, b) for a, b in zip(run.column("cos_in"), run.column("cos_out"), strict=True) if None not in (a, b)]
    falls = sum(after < before - FLOAT_NOISE for before, after in pairs)
    drop = f"cos_out < cos_in on {falls} of {len(pairs)} steps" if pairs else "cos_out < cos_in: undefined, no cosines"
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
    direction = judge_direction(run.column("cos_in"), pulls_by_role(run.samples))
    mechanism = judge_mechanism(*map(run.column, run.edited), run.column("frac_fired"))
    if run.arm != "vanilla":
        direction = Judgement(direction.measured, NOT_JUDGED, "judged on vanilla")
    if not run.projects:
        mechanism = Judgement(mechanism.measured, NOT_JUDGED, "judged on projecting arms")
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
    return Table("phase2_verification", "Verification (in brackets: what success is)", columns, records, sections=True)


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
            contrib, logp = (describe(samples, key) for key in ("cos_S_contrib", "cos_S_logp"))
            records.append(
                {
                    "run": run.label,
                    "pool": pool,
                    "hacked": hacked,
                    "n": len(samples),
                    "problems": contrib["problems"],
                    "contrib": contrib["over_problems"],
                    "logp": logp["over_problems"],
                    "contrib_positive": contrib["positive"],
                    "logp_positive": logp["positive"],
                    "pull": pull(samples, len(run.rows)),
                    **flat(contrib["over_problems"], "contrib_"),
                    **flat(logp["over_problems"], "logp_"),
                }
            )
    columns = (
        *((key, shown(key)) for key in ("run", "pool", "hacked")),
        ("n (problems)", lambda record: f"{record['n']} ({record['problems']})"),
        ("cos_S_contrib [95 %]", shown("contrib", with_interval)),
        ("> 0", shown("contrib_positive", plain)),
        ("cos_S_logp [95 %]", shown("logp", with_interval)),
        ("> 0", shown("logp_positive", plain)),
        ("pull a step", shown("pull", lambda value: UNDEFINED if value is None else f"{value:+.1e}")),
    )
    title = "Contributions by (src_pool, hacked), intervals over problems; pull = sum of cosine x norm"
    return Table("phase2_pools", title, columns, records, sections=True)


def gather_evidence(runs: Sequence[Run]) -> Evidence:
    """Pool the vanilla runs of one setting (all seeds); controls never decide."""
    real = [run for run in runs if run.control == "none"]
    vanilla, projected = [run for run in real if run.arm == "vanilla"], [run for run in real if run.projects]
    samples = [sample for run in vanilla for sample in run.samples]
    found = contrast_pools(samples)
    test = found.test("cos_S_logp")
    base = [sample["reward"] for sample in samples if sample["src_pool"] == found.roles[1]]
    judged = [(run, dict(judge_run(run))) for run in real]

    def unfit(metric: str) -> tuple[str, ...]:
        bad = [(run.label, row[metric]) for run, row in judged if row[metric].verdict not in (PASS, NOT_JUDGED)]
        return tuple(f"{label}: {row.verdict}, {row.why}" for label, row in bad)

    return Evidence(
        vanilla_cos_in=tuple(value for run in vanilla for value in run.column("cos_in")),
        discriminates=test.larger,
        separation=f"cos_S_logp teacher - base {with_interval(test)}, p {p_value(test.p)}",
        base_rewards=tuple(defined(base)),
        projected=tuple(
            Projected(run.label, tuple(run.column("cos_in")), tuple(run.column(run.edited[1]))) for run in projected
        ),
        dead_signal=unfit(METRICS[0]),
        dead_mechanism=unfit(METRICS[2]),
    )


def decision_blocks(runs: Sequence[Run]) -> list[Block]:
    evidence = gather_evidence(runs)
    rules = decision_rules(evidence)
    words = {True: "yes", False: "no", None: UNDEFINED}
    records = [{"direction": runs[0].direction, **vars(rule), "applies": words[rule.applies]} for rule in rules]
    columns = tuple((key, shown(key)) for key in ("rule", "measured", "applies", "meaning"))
    headline, following = recommend(rules, evidence)
    lines = "\n".join(f"{INDENT}next: {line}" for line in following)
    return [Table("phase3_decision", "Phase 3: decision rules", columns, records), f"{headline}\n{lines}"]


def pool_caveats(runs: Sequence[Run]) -> str:
    """What the run writer noted about the pools and bears on the verdicts: lines to append."""
    pools = [pool for run in runs for pool in run.record["pools"] or []]
    lines = []
    if any(pool.get("seen_by_v_hack") for pool in pools):
        lines.append("\nCaveat: problems of these pools were used to extract v_hack, so the cosines are not held out.")
    elif any("seen_by_v_hack" in pool and pool["seen_by_v_hack"] is None for pool in pools):
        lines.append("\nCaveat: v_hack does not say which problems it was extracted from; the cosines may not be held out.")
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


def window_table(runs: Sequence[Run], first: int, last: int) -> Table:
    """Means over the same steps of every run, for runs of different length and for comparison with other reports."""
    keys = ("hack_rate", "gt_rate", "attempt_rate", "cos_in", "cos_out", "cos_update_in", "cos_update")
    records = []
    for run in runs:
        rows = [row for row in run.rows if first <= row["step"] <= last]
        records.append({"run": run.label, "seed": run.config["seed"], "steps": len(rows)} | {key: mean(row[key] for row in rows) for key in keys})
    columns = [(key, shown(key)) for key in ("run", "seed", "steps")]
    columns += [(name, shown(key, lambda value: plain(value, 3))) for name, key in zip(("hacked", "solved", "attempted"), keys)]
    columns += [(key, shown(key, signed)) for key in keys[3:]]
    return Table("on_policy_window", f"Means over steps {first} to {last}", tuple(columns), records)


def sampled_table(runs: Sequence[Run]) -> Table:
    records = []
    for run in runs:
        record = {"run": run.label, "seed": run.config["seed"], "steps": len(run.rows)}
        for key in ("hack_rate", "gt_rate", "attempt_rate"):
            names = (f"{key}_first5", f"{key}_last5", f"{key}_area")
            record |= dict(zip(names, curve(run.column(key)), strict=True))
        record["time_to_hack"] = time_to_hack(run.column("step"), run.column("hack_rate"))
        record |= {key: mean(run.column(key)) for key in ("cos_in", "cos_update")}
        records.append(record)

    def three(key: str) -> Callable[[dict], str]:
        """Three rates in eleven characters: .08 .52 .30"""
        parts = [f"{key}_{part}" for part in ("first5", "last5", "area")]
        return lambda record: " ".join(plain(record[part]).removeprefix("0") for part in parts)

    columns = (
        *((key, shown(key)) for key in ("run", "seed", "steps")),
        ("hacked*", three("hack_rate")),
        ("solved*", three("gt_rate")),
        ("attempted*", three("attempt_rate")),
        ("time to hack", lambda record: UNDEFINED if record["time_to_hack"] is None else str(record["time_to_hack"])),
        ("mean cos_in", shown("cos_in", lambda value: signed(value, 2))),
        ("mean cos_update", shown("cos_update", lambda value: signed(value, 2))),
    )
    title = "On-policy runs (* first 5, last 5, mean over all steps = area under the curve)"
    return Table("on_policy", title, columns, records)


PER_RUN = "seed out resume workers device sandbox svd_cache micro_tokens sample_rows save_every v_hack".split()
EDIT = "arm control gate project_at".split()


@dataclass(frozen=True)
class Arm:
    """Finished runs that differ in their seed alone (and in settings that cannot change what they do)."""

    name: str
    runs: dict[int, Run]
    rest: str  # the settings that arms under comparison must share: all but the seed and the edit

    @property
    def vanilla(self) -> bool:
        return next(iter(self.runs.values())).arm == "vanilla"


def by_arm(runs: Sequence[Run]) -> list[Arm]:
    """The finished on-policy runs by arm. Of two runs with the same settings and seed the first is taken (see `doubles`)."""
    groups: dict[tuple[str, str, str], dict[int, Run]] = defaultdict(dict)
    for run in runs:
        if run.kind != "sampled" or not run.complete:
            continue
        edit = {key: run.config.get(key) for key in EDIT} if run.arm != "vanilla" else {"arm": "vanilla"}
        rest = {key: value for key, value in run.config.items() if key not in (*PER_RUN, *EDIT)}
        same = json.dumps([rest, run.setting[0], run.setting[2]], sort_keys=True, default=str)
        direction = "" if run.arm == "vanilla" or run.control == "random" else run.direction  # a random V differs from seed to seed
        groups[json.dumps(edit, sort_keys=True), direction, same].setdefault(run.config["seed"], run)
    names = []
    for found in groups.values():
        run = next(iter(found.values()))
        name = " ".join(word for word in run.label.split() if word != run.traits()["seed"])
        names.append(name if name not in names else f"{name} ({names.count(name) + 1})")
    return [Arm(name, found, same) for name, ((_, _, same), found) in zip(names, groups.items(), strict=True)]


def doubles(runs: Sequence[Run], arms: Sequence[Arm]) -> list[str]:
    """Finished on-policy runs that no arm counts, because another with the same settings and seed is there."""
    counted = {run.path for arm in arms for run in arm.runs.values()}
    return [run.label for run in runs if run.kind == "sampled" and run.complete and run.path not in counted]


def arms_table(arms: Sequence[Arm]) -> Table:
    """An arm and rate a row, over seeds: first 5 and last 5 steps, area; and what vanilla with the same seed had, subtracted.

    Vanilla is the arm with the same settings in all but the edit; where there is none, there is no difference.
    """
    parts = ("first5", "last5", "area")
    figures = {arm.name: {seed: {key: dict(zip(parts, curve(run.column(key)), strict=True)) for key in RATES} for seed, run in arm.runs.items()}
               for arm in arms}
    baseline = {arm.name: next((other.name for other in arms if other.vanilla and other.rest == arm.rest and not arm.vanilla), None) for arm in arms}
    records = []
    for name, seeds in figures.items():
        for key, rate in RATES.items():
            record: dict[str, Any] = {"arm": name, "rate": rate, "seeds": len(seeds)}
            for part in parts:
                found = estimate(seeds[seed][key][part] for seed in seeds)
                record |= {part: found} | flat(found, f"{part}_")
                if part != "first5":
                    base = figures.get(baseline[name], {})
                    gap = paired({(s,): seeds[s][key][part] for s in seeds}, {(s,): base[s][key][part] for s in base})
                    record |= {f"{part}_gap": gap} | flat(gap, f"{part}_gap_")
            records.append(record)

    def rate_cell(key: str) -> Callable[[dict], str]:
        return lambda record: with_interval(record[key]).replace("+", "") if record[key].n else UNDEFINED

    def gap_cell(key: str) -> Callable[[dict], str]:
        def cell(record: dict) -> str:
            if not record[key].n_first:
                return "-"
            return with_interval(record[key]) + (f" (n {record[key].n_first})" if record[key].n_first != record["seeds"] else "")

        return cell

    columns = (("arm", shown("arm")), ("rate", shown("rate")), ("seeds", shown("seeds")), ("first 5", rate_cell("first5")), ("last 5", rate_cell("last5")),
               ("area", rate_cell("area")), ("last 5 - vanilla", gap_cell("last5_gap")), ("area - vanilla", gap_cell("area_gap")))
    return Table("arms", "Arms over seeds (area: mean over all steps; - vanilla: paired by seed)", columns, records, sections=True)


def sampled_blocks(runs: Sequence[Run], window: tuple[int, int] | None) -> list[Block]:
    arms = by_arm(runs)
    most = max((len(arm.runs) for arm in arms), default=1)
    interval = "one seed: no interval, so no claim" if most == 1 else f"up to {most} seeds an arm; intervals are t, over seeds"
    onset = f"Time to hack: first step whose {ONSET_WINDOW}-step mean hack rate exceeds {HACK_ONSET:g}."
    short = [run.label for run in runs if len(run.rows) < 2 * EDGE]
    overlap = f"\nFewer than {2 * EDGE} steps, first and last overlap: {', '.join(short)}." if short else ""
    more: list[Block] = [window_table(runs, *window)] if window else []
    more += [arms_table(arms)] if most > 1 else []
    twice = doubles(runs, arms)
    overlap += f"\nSame settings and seed as another run, not counted in an arm: {', '.join(twice)}." if twice and most > 1 else ""
    return [Heading("On-policy GRPO"), sampled_table(runs), *more, f"{onset} Seeds are the unit: {interval}.{overlap}"]


def build_blocks(runs: Sequence[Run], left_out: Sequence[str], window: tuple[int, int] | None = None) -> list[Block]:
    blocks: list[Block] = [Heading("How to read this"), LEGEND, runs_table(runs)]
    for warning in sorted({str(run.record["warning"]) for run in runs if run.record.get("warning")}):
        named = ", ".join(run.label for run in runs if run.record.get("warning") == warning)
        blocks.append(f"WARNING {named}: {warning}")
    if left_out:
        blocks.append("Left out:\n" + "\n".join(INDENT + line for line in left_out))
    makers = {"phase1": phase1_blocks, "replay": replay_blocks, "sampled": partial(sampled_blocks, window=window)}
    for kind, make in makers.items():
        chosen = [run for run in runs if run.kind == kind]
        blocks += make(chosen) if chosen else []
    return blocks


# ---------------------------------------------------------------------------------------------- terminal and files
SHORT_CELL = 16
INDENT = "  "
COLOURS = {PASS: "green", FAIL: "red", SNEAKY: "magenta", UNDEFINED: "yellow"}


def print_blocks(blocks: Sequence[Block]) -> None:
    """To the terminal at its width; piped, at $COLUMNS (120 when unset, at least 100), since rich falls back to 80."""
    width = None if sys.stdout.isatty() else max(100, shutil.get_terminal_size((120, 40)).columns)
    console = Console(markup=False, emoji=False, highlight=False, width=width)
    for block in blocks:
        if isinstance(block, Heading):
            console.rule(Text(block.text, style="bold"), align="left")
        elif isinstance(block, str):
            for line in block.split("\n"):
                console.print(line, soft_wrap=line.startswith(INDENT))  # commands and paths stay in one piece
            console.print()
        else:
            console.print(rich_table(block))


def rich_table(table: Table) -> rich.table.Table:
    drawn = rich.table.Table(
        title=table.title, title_justify="left", title_style="bold", box=rich.box.SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    lines = table.cells()
    for place, (header, _) in enumerate(table.columns):
        widest = max(len(line[place]) for line in lines)
        short = widest <= SHORT_CELL  # numbers and short names stay on one line under a stacked header; sentences wrap
        stacked = header.replace(" ", "\n") if short and len(header) > widest else header
        drawn.add_column(stacked, overflow="fold", no_wrap=short)
    for line in lines:
        if table.sections and line[0]:
            drawn.add_section()
        drawn.add_row(*(Text(cell, style=COLOURS.get(cell, "")) for cell in line))
    return drawn


def markdown(blocks: Sequence[Block], pictures: Sequence[str]) -> str:
    parts = ["# Report"]
    for block in blocks:
        if isinstance(block, Heading):
            parts.append(f"## {block.text}")
        elif isinstance(block, str):
            parts.append("```\n" + block + "\n```")
        else:
            lines = [[header for header, _ in block.columns], ["---"] * len(block.columns)]
            lines += [[cell.replace("|", "\\|") for cell in line] for line in block.cells()]
            parts.append(f"### {block.title}\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines))
    parts += ["## Pictures", *(f"![{name}]({name})" for name in pictures)]
    return "\n\n".join(parts) + "\n"


def write_csv(path: Path, records: Sequence[dict]) -> None:
    """Raw figures; an undefined one is an empty cell. Nested values have their own columns already."""
    keys = [key for key, value in records[0].items() if not isinstance(value, (Estimate, Comparison))]
    with store.atomic(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, keys, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(records)


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
    "runs phase1_buckets phase1_tests phase2_verification phase2_advantages phase2_pools phase3_decision on_policy on_policy_window arms"
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
