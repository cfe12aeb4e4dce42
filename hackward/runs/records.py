"""What a run writes down of a step, and shows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from hackward.base import statistics
from hackward.base.screen import show
from hackward.base.statistics import COSINES, null_range
from hackward.base.tensors import read_safetensors
from hackward.hardware import memory
from hackward.method import gradients
from hackward.method.projection import Editor, cosine, norm, null_cosines, number
from hackward.method.v_hack import VHack
from hackward.rollouts.rollout import Rollout
from hackward.runs.heldout import rate_words
from hackward.runs.settings import Config


def share_of(rollouts: Sequence[Rollout], test: Callable[[Rollout], bool | None]) -> float | None:
    """Share of rollouts with the property, over those where it is known; None where it is known of none."""
    known = [bool(test(r)) for r in rollouts if test(r) is not None]
    return sum(known) / len(known) if known else None


def own_rows(group: Sequence[Rollout]) -> list[Rollout]:
    """The rows that say something about the model in training: its own where there are any, else (replay) all."""
    return [r for r in group if r.own] or list(group)


def step_row(
    step: int, groups, advantages, done: gradients.Backward, diagnostics: dict, seconds: dict, config: Config
) -> dict:
    """The line of rows.jsonl. Rates are over the model's own rollouts, never over a teacher's rows mixed into a group."""
    own = [r for group in groups for r in own_rows(group)]
    spread = [max(r.reward for r in g) - min(r.reward for r in g) for g in groups]
    used = sum(bool(A.any()) for A in advantages)
    return {
        "step": step,
        "arm": config.arm,
        "seed": config.seed,
        "reward_mean": sum(r.reward for r in own) / len(own),
        "reward_spread": sum(spread) / len(spread),
        "hack_rate": share_of(own, lambda r: r.hacked),
        "attempt_rate": share_of(own, lambda r: r.attempted),
        "gt_rate": share_of(own, lambda r: r.gt_pass),
        "fmt_rate": share_of(own, lambda r: r.fmt_ok),
        **{
            name: diagnostics[name]
            for name in ("cos_in", "cos_out", "cos_update", "frac_fired", "grad_norm", "update_norm")
        },
        **{
            f"{name}_null": None if draws is None else null_range(draws.numpy()[None])
            for name, draws in diagnostics["null"].items()
        },
        "groups_used": used,
        "groups_skipped": len(groups) - used,
        "kl": done.kl,
        "comp_len": sum(len(r.completion_ids) for r in own) / len(own),
        **seconds,
        "loss": done.loss,
        "cos_update_in": diagnostics["cos_update_in"],
        "delta_w_norm": diagnostics["delta_w_norm"],
        "overlap": diagnostics["overlap"],
        "advantages": [float(a) for A in advantages for a in A],
        "trunc_rate": share_of(own, lambda r: r.truncated),
        "lr": diagnostics["lr"],
        "logp_gap": done.logp_gap,
        "peak_memory_gb": memory.peak() / 1e9,
    }


def cosine_rows(
    step: int,
    groups,
    advantages,
    done: gradients.Backward,
    v: VHack | None,
    diagnostics: dict,
    config: Config,
) -> list[dict]:
    """The lines of step_NNN.cos.jsonl.gz: one a replayed sample, with its own cosine and no text.

    A sample's contribution is its row of the per-sample gradients. Its loss is A_i times an NLL, so the cosine before
    the advantage is the same number with A_i's sign taken off. Rows of skipped groups, and rows that are exactly at
    their group's mean, contribute nothing: their cosines are undefined.
    """
    length = norm(done.samples).tolist() if done.samples and len(next(iter(done.samples.values()))) else []
    cosines = cosine(done.samples, v).tolist() if v is not None and length else [math.nan] * len(length)
    measured = iter(zip(cosines, length))
    rows = []
    for group, A in zip(groups, advantages):
        for i, (r, a) in enumerate(zip(group, A.tolist())):
            contribution, size = next(measured) if A.any() else (math.nan, math.nan)
            rows.append(
                {
                    "step": step,
                    "sample_id": len(rows),
                    "src_pool": r.src_pool,
                    "src_step": r.src_step,
                    "src_sample": r.src_sample,
                    "reward": r.reward,
                    "hacked": r.hacked,
                    "gt_pass": r.gt_pass,
                    "fmt_ok": r.fmt_ok,
                    "comp_len": len(r.completion_ids),
                    "cos_S_contrib": number(contribution),
                    "grad_norm_contrib": number(size),
                    "mean_cos_in": diagnostics["mean_cos_in"],
                    "mean_cos_out": diagnostics["mean_cos_out"],
                    "frac_fired": diagnostics["frac_fired"],
                    "arm": config.arm,
                    "advantage": a if config.loss_mode == "grpo" else None,
                    "cos_S_logp": number(math.copysign(1.0, a) * contribution),
                }
            )
    return rows


def null_of_samples(groups, advantages, done: gradients.Backward, editor: Editor) -> torch.Tensor:
    """(rows, S) fp16: what cos_S_logp of each row is under the flips of the null; NaN where the cosine is undefined."""
    A_N = torch.cat(list(advantages))
    draws = torch.full((len(A_N), len(next(iter(editor.null.values())))), math.nan)
    measured = torch.cat([torch.full_like(A, bool(A.any())).bool() for A in advantages])
    if measured.any():
        signs = torch.where(A_N[measured] < 0, -1.0, 1.0)
        draws[measured] = null_cosines(done.samples, editor.v, editor.null).float().cpu() * signs[:, None]
    return draws.half()


def mean_nulls(run: Path) -> dict[str, tuple[float, float] | None]:
    """For each cosine the null's range of its mean over a run's steps (verdicts.null_range); None where no step has one."""
    steps = [read_safetensors(path)[0] for path in sorted((run / "nulls").glob("step_*.safetensors"))]
    defined = {
        name: [draws[name].numpy() for draws in steps if name in draws and bool(draws[name].isfinite().all())]
        for name in COSINES
    }
    return {name: null_range(np.stack(draws)) if draws else None for name, draws in defined.items()}


def show_null(interval: Sequence[float] | None) -> str:
    """A null's range for the screen: [-0.03 +0.02]."""
    return f"[{interval[0]:+.2f} {interval[1]:+.2f}]" if interval else ""


def step_line(row: dict) -> str:
    """One line a step, for a log and above the bar."""
    rate = lambda name: "-" if row[name] is None else f"{row[name]:.2f}"  # noqa: E731
    cosines = "  ".join(
        f"{name} {show(row[name])} {show_null(row.get(f'{name}_null'))}".rstrip()
        for name in ("cos_in", "cos_out", "cos_update")
    )
    return (
        f"step {row['step']:>3}  reward {row['reward_mean']:.2f} (spread {row['reward_spread']:.2f})  hacked {rate('hack_rate')}  "
        f"solved {rate('gt_rate')}  attempted {rate('attempt_rate')}  {cosines}  "
        f"skipped {row['groups_skipped']}/{row['groups_used'] + row['groups_skipped']}  {row['seconds']:.1f} s"
    )


def last_five(rows: Sequence[dict]) -> dict:
    """Means of the rates over the last five steps."""
    tail = rows[-5:]
    return {
        name: None if any(r[name] is None for r in tail) else sum(r[name] for r in tail) / len(tail)
        for name in ("hack_rate", "gt_rate", "attempt_rate", "reward_mean")
    }


def rate_interval(
    steps: Sequence[Sequence[Sequence[Rollout]]], test: Callable[[Rollout], bool | None]
) -> str:
    """Mean rate with a 95 % t interval whose units are problems, not rollouts and not the groups that a problem comes in."""
    by_problem: dict[str, list[Rollout]] = {}
    for group in (group for groups in steps for group in groups):
        by_problem.setdefault(group[0].identity, []).extend(own_rows(group))
    rates = [rate for rollouts in by_problem.values() if (rate := share_of(rollouts, test)) is not None]
    return rate_words(statistics.ratio(rates, [1.0] * len(rates)))
