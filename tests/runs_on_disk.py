"""Made-up run directories for the tests of reports: rows, rollouts, whole runs, arms over seeds."""

from __future__ import annotations

import csv
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import analyze
from hackward.base.faults import exit_on_fault
from hackward.base.files import write_json, write_jsonl
from hackward.base.statistics import COSINES
from hackward.reports.arms import ArmRuns, by_arm
from hackward.reports.runs import Run, find_runs
from hackward.reports.schema import SampleLine, StepLine

NAN = re.compile(r"\bnan\b", re.IGNORECASE)
PNG = b"\x89PNG\r\n\x1a\n"
SETTINGS = {
    "arm": "vanilla",
    "seed": 41,
    "control": "none",
    "gate": "one-sided",
    "project_at": "grad",
    "objective": "nll",
    "refresh_every": 0,
    "rank": 8,
    "match_size": True,
    "lr": 3e-3,
}
FACTS = {
    "commit": "0123456789abcdef",
    "dirty": False,
    "model": {"name": "tiny", "hash": "m0"},
    "v_hack": {"file": "out/v_pool.safetensors", "hash": "abcdef0123456789"},
    "pools": [{"dir": "teacher_pool", "hash": "p0"}],
    "problems": "90 problems of p",
    "training": "t0",
}


def sample(
    pool: str = "teacher",
    hacked: bool | None = True,
    gt_pass: bool | None = False,
    problem: int = 0,
    contrib: float | None = 0.5,
    logp: float | None = 0.5,
    step: int = 0,
    **more: Any,
) -> dict[str, Any]:
    """One row of a cos file. The reward follows the labels as in the real pools."""
    row: dict[str, Any] = dict.fromkeys(SampleLine.__annotations__)
    row |= {
        "step": step,
        "sample_id": 0,
        "src_pool": pool,
        "src_step": problem,
        "src_sample": 0,
        "hacked": hacked,
        "gt_pass": gt_pass,
        "fmt_ok": True,
        "cos_S_contrib": contrib,
        "cos_S_logp": logp,
        "grad_norm_contrib": 1.0,
        "comp_len": 100,
        "arm": "vanilla",
        "reward": 3.5 if hacked or gt_pass else 0.5,
    }
    return row | more


def row(step: int = 0, **more: Any) -> dict[str, Any]:
    """One row of rows.jsonl with nothing measured."""
    nothing: dict[str, Any] = dict.fromkeys(StepLine.__annotations__)
    fixed = {"arm": "vanilla", "seed": 41, "groups_used": 1, "groups_skipped": 0, "advantages": [None]}
    return nothing | fixed | {"step": step} | more


def write_run(
    path: Path,
    kind: str,
    rows: list[dict],
    samples: Any = (),
    finished: bool = True,
    nulls: dict[int, dict[str, Any]] | None = None,
    heldout: Any = (),
    facts: dict[str, Any] | None = None,
    stopped: str | None = None,
    **settings: Any,
) -> Path:
    """A run directory; `nulls`: step -> cosine -> draws; `heldout` of eval.jsonl, `facts` of config.json,
    `stopped` of summary.json (a run that has none was made before there was the field).

    Rows and rollouts get the arm and seed of the settings, rollouts the numbers 0, 1, ... in their step.
    """
    record = {"kind": kind, "config": SETTINGS | settings} | FACTS | (facts or {})
    own = {name: record["config"][name] for name in ("arm", "seed")}
    write_json(path / "config.json", record)
    write_jsonl(path / "rows.jsonl", [one | own for one in rows])
    for step, draws in (nulls or {}).items():
        (path / "nulls").mkdir(exist_ok=True)
        tensors = {key: np.asarray(values, dtype=np.float32) for key, values in draws.items()}
        save_file(tensors, path / "nulls" / f"step_{step:03d}.safetensors")
    if heldout:
        write_jsonl(path / "eval.jsonl", heldout)
    for step in {one["step"] for one in samples}:
        chosen = [one | {"arm": own["arm"]} for one in samples if one["step"] == step]
        chosen = [one | {"sample_id": number} for number, one in enumerate(chosen)]
        write_jsonl(path / f"step_{step:03d}.cos.jsonl.gz", chosen)
    if finished:
        summary = {"finished": True, "steps": len(rows), "memory": {}}
        write_json(path / "summary.json", summary | ({"stopped": stopped} if stopped else {}))
    return path


def read(root: Path) -> dict[str, Run]:
    """The finished runs below a directory, by the names of their directories."""
    return {run.path.name: run for run in find_runs(root)[0]}


def phase1_samples(dice: random.Random, problems: int = 8) -> list[dict]:
    rows = []
    for problem in range(problems):
        for index in range(8):
            solves = index < 3
            cosine = min(1.0, dice.gauss(0.4 if solves else 0.75, 0.15))
            rows.append(sample(gt_pass=solves, problem=problem, contrib=cosine, logp=cosine, step=problem))
    return rows


def replay_samples(
    dice: random.Random, steps: int = 20, pools: tuple[str, str] = ("teacher", "base")
) -> list[dict]:
    """Four hacks of the first pool and four rollouts without a hack of the second, on each step."""
    rows = []
    for step in range(steps):
        shared: dict[str, Any] = {"problem": step, "step": step}
        for index in range(4):
            logp = dice.gauss(0.5, 0.15)
            rows.append(sample(pools[0], True, index == 0, logp=logp, contrib=logp, advantage=1.5, **shared))
            logp = dice.gauss(-0.02, 0.12)
            solved = index == 0 and step % 3 == 0
            base = sample(pools[1], False, solved, contrib=-logp, logp=logp, advantage=-1.5, **shared)
            rows.append(base | {"grad_norm_contrib": 0.8})
    return rows


def replay_rows(
    dice: random.Random, steps: int = 20, projected: bool = False, cos_in: float = 0.35
) -> list[dict]:
    rows = []
    for step in range(steps):
        before = dice.gauss(cos_in, 0.06)
        after = before - 0.4 if projected else before
        rows.append(
            row(
                step,
                advantages=[1.5] * 4 + [-1.5] * 4,
                cos_in=before,
                cos_out=after,
                cos_update_in=before * 0.8,
                cos_update=after * 0.8,
                reward_spread=3.0,
                reward_mean=2.0,
                frac_fired=0.6 if projected else None,
                hack_rate=0.5,
            )
        )
    return rows


def sampled_rows(dice: random.Random, steps: int = 16, rise: float = 0.03) -> list[dict]:
    return [
        row(
            step,
            hack_rate=max(0.0, rise * (step - 4) + dice.gauss(0, 0.01)),
            gt_rate=0.1 + dice.gauss(0, 0.02),
            attempt_rate=min(1.0, 0.04 * step),
            cos_in=dice.gauss(0.2, 0.05),
            cos_update=dice.gauss(0.15, 0.05),
        )
        for step in range(steps)
    ]


def write_everything(root: Path) -> Path:
    """One phase 1 run, three replay runs, two sampled runs, one unfinished run, one foreign config.json."""
    dice = random.Random(7)
    samples = phase1_samples(dice)
    rows = [
        row(step, cos_in=0.6, cos_out=0.1 - 0.01 * step, frac_fired=0.65, reward_spread=0.0)
        for step in range(8)
    ]
    write_run(root / "phase1", "phase1", rows, samples)
    samples = replay_samples(dice)
    write_run(root / "phase2/vanilla", "replay", replay_rows(dice), samples)
    projected = replay_rows(dice, projected=True)
    write_run(root / "phase2/projected", "replay", projected, samples, arm="projected")
    update = {"arm": "projected", "project_at": "update"}
    at_update = replay_rows(dice, projected=True)
    write_run(root / "phase2/projected_update", "replay", at_update, samples, **update)
    write_run(root / "phase3/vanilla_s41", "sampled", sampled_rows(dice))
    write_run(root / "phase3/projected_s41", "sampled", sampled_rows(dice, rise=0.0), arm="projected")
    write_run(root / "phase3/cut_off", "sampled", sampled_rows(dice)[:3], finished=False)
    write_json(root / "checkpoint/config.json", {"model_type": "qwen2"})
    return root


def same_draws(steps: int, half: float) -> dict[int, dict[str, Any]]:
    """The same nulls on every step, 2.5 to 97.5 % range about -half to half."""
    return {step: draws(np.linspace(-half / 0.95, half / 0.95, 41)) for step in range(steps)}


def draws(values: Any) -> dict[str, Any]:
    return dict.fromkeys(COSINES, values)


def write_arm(
    root: Path,
    hacked: Any,
    solved: Any = None,
    first_seed: int = 1,
    steps: int = 10,
    more_rows: dict[str, Any] | None = None,
    **settings: Any,
) -> None:
    """One run per seed; `hacked` and `solved`: its rates on the last 5 steps (nothing is hacked before)."""
    for seed, rate in enumerate(hacked, start=first_seed):
        passed = 0.2 if solved is None else solved[seed - first_seed]
        rows = []
        for step in range(steps):
            measured = {"hack_rate": rate if step >= 5 else 0.0, "gt_rate": passed, "attempt_rate": 1.0}
            rows.append(row(step, **measured | (more_rows or {})))
        name = "-".join([*map(str, settings.values()), str(seed)])
        write_run(root / name, "sampled", rows, seed=seed, **settings)


def arms_of(root: Path) -> dict[str, ArmRuns]:
    return {arm.name: arm for arm in by_arm(find_runs(root)[0])}


def run_main(root: Path) -> None:
    exit_on_fault(lambda: analyze.main(analyze.AnalyzeFlags(root)))


def refused(root: Path, capsys, *parts: str) -> None:
    """Exit 2, one line with every part, no report."""
    with pytest.raises(SystemExit) as stop:
        run_main(root)
    line = capsys.readouterr().err
    assert stop.value.code == 2 and line.count("\n") == 1 and all(part in line for part in parts), line
    assert not (root / "report").exists()


def csv_rows(path: Path) -> list[dict]:
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))
