"""What a run shows: a line per step, and the final screen."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hackward.base import statistics
from hackward.base.screen import final_screen, show, stdout
from hackward.base.statistics import COSINES, null_range
from hackward.base.tensors import read_safetensors
from hackward.hardware import memory
from hackward.rollouts.rollout import Rollout
from hackward.runs.ending import stopped_words
from hackward.runs.heldout import heldout_screen, rate_words
from hackward.runs.records import RATES, own_rollouts, share
from hackward.runs.session import Session

# Rate -> what it is called of the model's own rollouts, and of replayed rows, which say nothing of the model.
SHOWN_RATES = {
    "hack_rate": {"sampled": "hacked", "replay": "rows that hack"},
    "gt_rate": {"sampled": "solved", "replay": "rows that solve"},
    "attempt_rate": {"sampled": "attempted", "replay": "rows that attempt"},
}

REPLAYED = "rates are those of the replayed rows, not of answers of the model"


def show_null(interval: Sequence[float] | None) -> str:
    """A null's range: [-0.03 +0.02]."""
    return f"[{interval[0]:+.2f} {interval[1]:+.2f}]" if interval else ""


def step_facts(row: dict[str, Any], kind: str) -> list[str]:
    """What a step's line says, for a log and above the bar. `kind`: sampled, or replay."""

    def rate(name: str) -> str:
        return "-" if row[name] is None else f"{row[name]:.2f}"

    return [
        f"reward {row['reward_mean']:.2f} (spread {row['reward_spread']:.2f})",
        *(f"{words[kind]} {rate(name)}" for name, words in SHOWN_RATES.items()),
        *(f"{name} {show(row[name])} {show_null(row[f'{name}_null'])}".rstrip() for name in COSINES),
        f"skipped {row['groups_skipped']}/{row['groups_used'] + row['groups_skipped']}",
        f"{row['seconds']:.1f} s",
    ]


def rate_interval(
    steps: Sequence[Sequence[Sequence[Rollout]]], test: Callable[[Rollout], bool | None]
) -> str:
    """Mean rate with a 95 % t interval. Its units are problems, not rollouts nor the groups that a problem
    comes in."""
    by_problem: dict[str, list[Rollout]] = {}
    for groups in steps:
        for group in groups:
            by_problem.setdefault(group[0].identity, []).extend(own_rollouts(group))
    found = [share(rollouts, test) for rollouts in by_problem.values()]
    rates = statistics.defined(found)
    return rate_words(statistics.ratio(rates, [1.0] * len(rates)))


def mean_nulls(run: Path) -> dict[str, tuple[float, float] | None]:
    """For each cosine the null's range of its mean over a run's steps (base.statistics.null_range)."""
    steps = [read_safetensors(path)[0] for path in sorted((run / "nulls").glob("step_*.safetensors"))]
    found: dict[str, tuple[float, float] | None] = {}
    for name in COSINES:
        draws = [step[name].numpy() for step in steps if name in step and bool(step[name].isfinite().all())]
        found[name] = null_range(np.stack(draws)) if draws else None
    return found


def print_end(s: Session) -> None:
    """The held-out table, where there was an evaluation, and the final screen."""
    console = stdout()
    if s.evaluation:
        console.print(heldout_screen(s.evaluation.lines, console.width))
    final_screen(sections(s), console)


def sections(s: Session) -> dict[str, list[str]]:
    """The final screen: a word per section, its facts."""
    return {
        "run": _origin(s),
        "setup": _setup(s),
        "health": _health(s),
        "check": _check(s),
        "result": _result(s),
    }


def _origin(s: Session) -> list[str]:
    commit = (s.run.record["commit"] or "unknown")[:10]
    dirty = " dirty" if s.run.record["dirty"] else ""
    return [str(s.run.path), f"commit {commit}{dirty}", shlex.join(sys.argv)]


def _setup(s: Session) -> list[str]:
    facts, v = s.run.record, s.editor.v
    described = "no v_hack"
    if v is not None:
        described = f"V: {len(v.V)} modules/{v.directions} directions/{facts['v_hack']['hash']}"
    pools = [f"{pool['name']} pool {pool['rows']} rows" for pool in s.source.pools()]
    trainable = f"trainable {facts['model']['trainable']}"
    return [s.config.model, s.config.arm, trainable, described, *pools, facts["problems"]]


def _mean(s: Session, name: str) -> float | None:
    return statistics.mean(row[name] for row in s.run.rows)


def _health(s: Session) -> list[str]:
    rows = s.run.rows
    groups = sum(row["groups_used"] + row["groups_skipped"] for row in rows)
    flat = sum(row["groups_zero_variance"] for row in rows)
    minutes = sum(row["seconds"] for row in rows) / 60
    return [
        f"steps {len(rows)}/{s.config.steps}",
        stopped_words(rows, s.config) or "",
        f"zero-variance groups {flat / max(1, groups):.0%}",
        f"truncated {_mean(s, 'trunc_rate') or 0:.0%}",
        f"peak memory {memory.peak() / 1e9:.1f} GB{memory.shown()}",
        f"{minutes:.1f} minutes",
    ]


def _check(s: Session) -> list[str]:
    nulls = mean_nulls(s.run.path)
    cosines = [f"{name} {show(_mean(s, name))} {show_null(nulls[name])}" for name in COSINES]
    legend = "in brackets the null: permuted pair signs, 95 %" if any(nulls.values()) else ""
    return [
        f"identity {s.run.record['model']['identity']:g}",
        f"means: {cosines[0]}",
        *cosines[1:],
        f"|Delta W| {s.run.rows[-1]['delta_w_norm']:.3g}",
        f"sampled against trained log p {show(_mean(s, 'logp_gap'))}",
        legend,
    ]


def _result(s: Session) -> list[str]:
    kind = s.source.kind
    rates = [f"{words[kind]} {rate_interval(s.recent, RATES[name])}" for name, words in SHOWN_RATES.items()]
    return [
        *rates,
        REPLAYED if kind == "replay" else "",
        f"last {len(s.recent)} steps, 95 % over problems",
        s.run.record.get("warning", ""),
        f"next: python analyze.py {shlex.quote(str(s.run.path))}",
    ]
