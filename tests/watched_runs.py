"""Made-up runs with a monitor, for the tests of reports: rollouts with labels, scores and flags."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from hackward.base.files import write_jsonl
from tests.runs_on_disk import row, write_run

MONITOR = {
    "intervene": "none",
    "monitor": "v_hack",
    "monitor_noise": 0.0,
    "monitor_score": "cosine",
    "monitor_fpr": 0.05,
    "monitor_rows": "all",
}


def rollout(
    problem: str = "p0",
    hacked: bool = False,
    attempted: bool | None = False,
    score: float | None = 0.0,
    flagged: bool | None = False,
    own: bool = True,
    solved: bool = False,
) -> dict[str, Any]:
    """A line of rollouts/step_NNN.jsonl.gz, as far as reports read it."""
    return {
        "src_pool": "policy" if own else "teacher",
        "problem_id": problem,
        "hacked": hacked,
        "attempted": attempted,
        "gt_pass": solved,
        "monitor_score": score,
        "flagged": flagged,
    }


def write_watched(path: Path, steps: list[list[dict[str, Any]]], **settings: Any) -> Path:
    """A finished run, given its rollouts by step; its rates follow from them."""
    rows = []
    for step, rollouts in enumerate(steps):
        own = [one for one in rollouts if one["src_pool"] == "policy"]
        rates = {
            "hack_rate": sum(one["hacked"] for one in own) / len(own),
            "attempt_rate": sum(bool(one["attempted"]) for one in own) / len(own),
            "gt_rate": 0.2,
        }
        rows.append(row(step, **rates))
        write_jsonl(path / "rollouts" / f"step_{step:03d}.jsonl.gz", rollouts)
    return write_run(path, "sampled", rows, **MONITOR | settings)


def drawn(
    dice: random.Random, hacks: float, gap: float, problems: int = 8, rollouts: int = 5
) -> list[dict[str, Any]]:
    """A step: a share `hacks` of the own rollouts hack and score `gap` standard deviations higher; one
    teacher row."""
    found = []
    for problem in range(problems):
        for _ in range(rollouts):
            hacked = dice.random() < hacks
            score = dice.gauss(gap if hacked else 0.0, 1.0)
            found.append(rollout(f"p{problem}", hacked, hacked, score, score > 1))
    return [*found, rollout("p0", True, True, 3.0, True, own=False)]
