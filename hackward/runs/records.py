"""What a run writes down of a step: the line of rows.jsonl, and of a replayed step a line per rollout and its
null."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from hackward.base.statistics import null_range
from hackward.hardware import memory
from hackward.method import gradients
from hackward.method.monitors import Seen, figures
from hackward.method.projection import Editor, cosine, norm, null_cosines, number
from hackward.method.v_hack import VHack
from hackward.method.weights import Weighed
from hackward.rollouts.rollout import Rollout
from hackward.runs.settings import Config

EDITED = ("cos_in", "cos_out", "cos_update", "frac_fired", "grad_norm", "update_norm")  # what Editor measures
RATES: dict[str, Callable[[Rollout], bool | None]] = {
    "hack_rate": lambda rollout: rollout.hacked,
    "attempt_rate": lambda rollout: rollout.attempted,
    "gt_rate": lambda rollout: rollout.gt_pass,
    "fmt_rate": lambda rollout: rollout.fmt_ok,
    "trunc_rate": lambda rollout: rollout.truncated,
}


def share(rollouts: Sequence[Rollout], test: Callable[[Rollout], bool | None]) -> float | None:
    """Share of rollouts with the property, over those where it is known; None where it is known of none."""
    found = [test(rollout) for rollout in rollouts]
    known = [bool(value) for value in found if value is not None]
    return sum(known) / len(known) if known else None


def own_rollouts(group: Sequence[Rollout]) -> list[Rollout]:
    """Those that say something about the model in training: its own where there are any, else (replay)
    all."""
    return [rollout for rollout in group if rollout.own] or list(group)


def mean_spread(groups: Sequence[Sequence[Rollout]]) -> float:
    """Mean over groups of the largest minus the smallest reward."""
    spreads = []
    for group in groups:
        rewards = [rollout.reward for rollout in group]
        spreads.append(max(rewards) - min(rewards))
    return sum(spreads) / len(spreads)


def rollout_rows(groups: Sequence[Sequence[Rollout]], seen: Seen | None, stamp: str) -> list[dict[str, Any]]:
    """The lines of a step's rollouts, with the monitor's score and the flag that was acted on.

    Both are null where nobody looked, the score also where the gradient was 0.
    """
    rows = [rollout.row(stamp) for group in groups for rollout in group]
    for i, row in enumerate(rows):
        row["monitor_score"] = number(seen.score_N[i]) if seen else None
        row["flagged"] = seen.flagged[i] if seen else None
    return rows


def step_row(
    step: int,
    batch: Weighed,
    seen: Seen | None,
    done: gradients.Backward,
    diagnostics: dict[str, Any],
    seconds: dict[str, float],
    config: Config,
) -> dict[str, Any]:
    """The line of rows.jsonl. Rates are over the model's own rollouts, never over a teacher's in the same
    group."""
    own = [rollout for group in batch.groups for rollout in own_rollouts(group)]
    rates = {name: share(own, test) for name, test in RATES.items()}
    nulls = {
        f"{name}_null": None if draws is None else null_range(draws.numpy()[None])
        for name, draws in diagnostics["null"].items()
    }
    return {
        "step": step,
        "arm": config.arm,
        "seed": config.seed,
        "reward_mean": sum(rollout.reward for rollout in own) / len(own),
        "reward_spread": mean_spread(batch.groups),
        **rates,
        **{name: diagnostics[name] for name in EDITED},
        **nulls,
        "groups_used": batch.groups_used,
        "groups_skipped": len(batch.groups) - batch.groups_used,
        "groups_zero_variance": batch.varied.count(False),
        "kl": done.kl,
        "comp_len": sum(len(rollout.completion_ids) for rollout in own) / len(own),
        **seconds,
        "loss": done.loss,
        "cos_update_in": diagnostics["cos_update_in"],
        "delta_w_norm": diagnostics["delta_w_norm"],
        "overlap": diagnostics["overlap"],
        **figures(seen, [rollout for group in batch.groups for rollout in group]),
        "advantages": [float(a) for A in batch.advantages for a in A],
        "lr": diagnostics["lr"],
        "logp_gap": done.logp_gap,
        "peak_memory_gb": memory.peak() / 1e9,
    }


def measured_rollouts(batch: Weighed) -> list[bool]:
    """Of every rollout of the step, group by group: does its group's gradient exist (replay has no KL)?"""
    flags = []
    for group, varied in zip(batch.groups, batch.varied):
        flags += [varied] * len(group)
    return flags


def cosine_rows(
    step: int,
    batch: Weighed,
    done: gradients.Backward,
    v: VHack | None,
    diagnostics: dict[str, Any],
    config: Config,
) -> list[dict[str, Any]]:
    """The lines of step_NNN.cos.jsonl.gz: one per replayed rollout, with its own cosine and no text.

    A rollout's contribution is its row of the per-rollout gradients. Its loss is A_i times an NLL, so the
    cosine before the advantage is the same number with A_i's sign taken off. Rollouts of skipped groups, and
    those exactly at their group's mean, contribute nothing: their cosines are undefined.
    """
    contributions = _contributions(batch, done, v)
    rollouts = [rollout for group in batch.groups for rollout in group]
    advantages = [float(a) for A in batch.advantages for a in A]
    rows = []
    for i, (r, a, (contribution, size)) in enumerate(zip(rollouts, advantages, contributions, strict=True)):
        rows.append(
            {
                "step": step,
                "sample_id": i,
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


def _contributions(batch: Weighed, done: gradients.Backward, v: VHack | None) -> list[tuple[float, float]]:
    """(cosine with v_hack, norm) of every rollout of the step.

    Both are NaN where its group was skipped, the cosine also without a v_hack.
    """
    cosines = torch.full((len(measured_rollouts(batch)),), math.nan)
    sizes = cosines.clone()
    measured = torch.tensor(measured_rollouts(batch))
    if done.samples:
        sizes[measured] = norm(done.samples).float().cpu()
        if v is not None:
            cosines[measured] = cosine(done.samples, v).float().cpu()
    return list(zip(cosines.tolist(), sizes.tolist()))


def null_of_rollouts(batch: Weighed, done: gradients.Backward, editor: Editor) -> Tensor:
    """(rollouts, S) fp16: cos_S_logp of each under the flips of the null; NaN where the cosine is
    undefined."""
    A_N = torch.cat(batch.advantages)
    count = len(next(iter(editor.null.values())))
    draws = torch.full((len(A_N), count), math.nan)
    measured = torch.tensor(measured_rollouts(batch))
    if measured.any():
        assert editor.v is not None and done.samples is not None
        signs = torch.where(A_N[measured] < 0, -1.0, 1.0)
        draws[measured] = null_cosines(done.samples, editor.v, editor.null).float().cpu() * signs[:, None]
    return draws.half()


def last_five(rows: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    """Means over the last five steps; None where a step has no value."""
    found: dict[str, float | None] = {}
    for name in ("hack_rate", "gt_rate", "attempt_rate", "reward_mean"):
        values = [row[name] for row in rows[-5:]]
        found[name] = None if None in values else sum(values) / len(values)
    return found
