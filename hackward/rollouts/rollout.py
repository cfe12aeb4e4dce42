"""A rollout: one completion of one prompt, from the draw to the record.

The sampler draws its tokens, the grader labels it, training weighs it, and a run's or a pool's file keeps it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hackward.tasks import problems

OF_IDS = ("plen", "comp_len", "prompt_ids", "completion_ids", "tokenizer")  # fields that a tokenizer fills


@dataclass(frozen=True)
class Rollout:
    """One graded completion. `attempted` is None where a foreign pool does not say; src_* tell where it came
    from."""

    problem_id: str
    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    completion: str
    reward: float
    hacked: bool
    gt_pass: bool
    fmt_ok: bool
    attempted: bool | None
    truncated: bool
    src_pool: str
    src_step: int
    src_sample: int
    messages: tuple[dict[str, str], ...] = ()
    error: str | None = None
    own: bool = False
    """Drawn by the model in training, in this step; never set on rollouts that were loaded."""
    logps: tuple[float, ...] = ()
    """With which its tokens were drawn; known of own rollouts only, and not stored."""

    @property
    def identity(self) -> str:
        """The problem that the prompt states. Ids cannot be compared across pools: LeetCode has two
        numberings."""
        return problems.identity(self.messages[-1]["content"] if self.messages else "", self.problem_id)

    @property
    def tokens(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """(prompt ids, completion ids): what a backward takes."""
        return self.prompt_ids, self.completion_ids

    def row(self, tokenizer_hash: str | None) -> dict[str, Any]:
        """The record that `pools.load_pool` reads back; without a tokenizer no ids are in it."""
        record = {
            "step": self.src_step,
            "sample_id": self.src_sample,
            "src_pool": self.src_pool,
            "problem_id": self.problem_id,
            "reward": self.reward,
            "hacked": self.hacked,
            "gt_pass": self.gt_pass,
            "fmt_ok": self.fmt_ok,
            "attempted": self.attempted,
            "truncated": self.truncated,
            "error": self.error,
            "plen": len(self.prompt_ids),
            "comp_len": len(self.completion_ids),
            "problem_messages": list(self.messages),
            "prompt_ids": list(self.prompt_ids),
            "completion_ids": list(self.completion_ids),
            "completion": self.completion,
            "tokenizer": tokenizer_hash,
        }
        if tokenizer_hash is None:
            return {name: value for name, value in record.items() if name not in OF_IDS}
        return record
