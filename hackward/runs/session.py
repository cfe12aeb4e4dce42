"""A run in progress: its parts, and what happens around its steps."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from hackward.base.faults import InputError, uninterrupted
from hackward.base.files import read_jsonl, step_file, write_jsonl
from hackward.base.screen import say
from hackward.base.tensors import write_safetensors
from hackward.hardware import memory
from hackward.method import gradients
from hackward.method.adapters import Adapter
from hackward.method.interventions import INTERVENTIONS
from hackward.method.monitors import AlongV, Seen, Watch
from hackward.method.projection import Editor, overlap
from hackward.method.shared_prompts import SINGLE, Layout
from hackward.method.weights import Weighed, weigh
from hackward.rollouts.rollout import Rollout
from hackward.rollouts.sources import Replayed, Sampled
from hackward.runs.checkpoint import State
from hackward.runs.direction import Direction
from hackward.runs.ending import is_over, stopped_words
from hackward.runs.heldout import Evaluation
from hackward.runs.records import cosine_rows, last_five, null_of_rollouts, rollout_rows, step_row
from hackward.runs.rundir import RunDir
from hackward.runs.settings import Config
from hackward.runs.tracking import Mirror

LOGP_GAP = (
    0.1  # mean |difference| per token above which a step warns: a tenth more or less likely, on average
)
RECENT = 5  # steps that the final screen's rates are over


@dataclass
class Session:
    """The built parts of a run, and its records."""

    config: Config
    run: RunDir
    adapter: Adapter
    direction: Direction | None
    editor: Editor
    source: Sampled | Replayed
    optimizer: torch.optim.Optimizer
    pad: int
    first: int
    lr_scale: float
    evaluation: Evaluation | None
    mirror: Mirror
    layout: Layout = SINGLE
    """Of the backward where no row's own gradient is read."""
    watch: Watch | None = None
    seconds_looking: float = 0.0
    recent: list[list[list[Rollout]]] = dataclasses.field(default_factory=list)
    last: State | None = None
    """After the last step that this process finished."""
    saved: int = 0
    """Steps in the checkpoint."""

    @property
    def over(self) -> bool:
        """Are the steps so far all that this run makes?"""
        return is_over(self.run.rows, self.config)

    def steps(self) -> Iterator[int]:
        """The steps to make, one by one, until the run is over."""
        step = self.first
        while not self.over:
            yield step
            step += 1

    def refresh(self, step: int) -> dict[str, float | None]:
        """Every --refresh-every steps: v_hack from the same pairs on the model as it is; the share of the old
        one left."""
        every = self.config.refresh_every
        due = every and step and step % every == 0
        if not due or self.direction is None:
            return {"overlap": None}
        last, renewed = self.direction.v, self.direction.renew()
        if renewed is None:
            return {"overlap": None}
        self._aim_monitor()
        self.editor.use(renewed, self.direction.edit())
        self.editor.align(self.optimizer)
        self.direction.save(self.run.path, step)
        return {"overlap": overlap(last, renewed)}

    def _aim_monitor(self) -> None:
        """The monitor that reads gradients goes by the direction as it is."""
        if self.watch is None or self.direction is None or self.direction.discriminant is None:
            return
        assert isinstance(self.watch.monitor, AlongV)
        self.watch.monitor.discriminant = self.direction.discriminant

    def look(self, step: int, groups: Sequence[Sequence[Rollout]]) -> Seen | None:
        """What the monitor says of every rollout; None where nobody looks."""
        started = time.monotonic()
        if self.direction is not None:
            self.direction.observe([rollout for group in groups for rollout in group])
        seen = self.watch.look(step, groups) if self.watch else None
        self.seconds_looking = time.monotonic() - started
        return seen

    def weigh(self, groups: Sequence[Sequence[Rollout]], seen: Seen | None) -> Weighed:
        """Advantage, KL weight and denominator of every rollout, by the run's settings and what was seen."""
        config = self.config
        assert config.beta is not None and config.normaliser is not None  # resolved
        return weigh(
            groups,
            loss_mode=config.loss_mode,
            beta=config.beta,
            denominator=config.normaliser,
            fixed=config.max_new_tokens,
            intervention=INTERVENTIONS[config.intervene],
            flagged=seen.by_group(groups) if seen else None,
        )

    def backward(self, batch: Weighed, seen: Seen | None) -> gradients.Backward:
        """The gradient of the loss of what was weighed, in .grad of the adapter's parameters.

        Where the monitor took the rollouts' own gradients, their weighted sum: no second backward.
        """
        if seen and seen.rows:
            return seen.rows.weighted(self.adapter, torch.cat(batch.advantages))
        return gradients.backward(
            self.adapter,
            [rollout.tokens for rollout in batch.rollouts],
            batch.advantage_N,
            batch.normaliser_N,
            pad=self.pad,
            tokens=self.config.micro_tokens,
            beta_N=batch.beta_N,
            temperature=self.config.loss_temperature,
            drawn=[rollout.logps for rollout in batch.rollouts],
            samples=self.source.kind == "replay",
            layout=self.layout,
        )

    def edit_grads(self, step: int) -> dict[str, Any]:
        """Editor.edit_grads. InputError where the gradient is not finite."""
        diagnostics = self.editor.edit_grads()
        if diagnostics["grad_norm"] is None:
            raise InputError(
                f"{self.run.path}: step {step}: the gradient is not finite; the run ends before it"
            )
        return diagnostics

    def set_learning_rate(self, step: int) -> float:
        """Linear warm-up to --lr over --warmup steps; a function of the step alone, so a resumed run goes on
        with it."""
        warm = min(1.0, (step + 1) / max(1, self.config.warmup))
        lr = self.lr_scale * self.config.lr * warm
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        return lr

    def log(
        self,
        step: int,
        batch: Weighed,
        seen: Seen | None,
        done: gradients.Backward,
        diagnostics: dict[str, Any],
        seconds: dict[str, float],
    ) -> dict[str, Any]:
        """Write the step's row, its rollouts or cosines, its nulls, and now and then a checkpoint; returns
        the row."""
        self.recent = [*self.recent, batch.groups][-RECENT:]
        self._warn_of_gap(step, done.logp_gap)
        diagnostics["delta_w_norm"] = self.adapter.delta_w_norm()
        nulls = {name: draws for name, draws in diagnostics["null"].items() if draws is not None}
        if self.source.kind == "replay":
            rows = cosine_rows(step, batch, done, self.editor.v, diagnostics, self.config)
            write_jsonl(self.run.path / f"step_{step:03d}.cos.jsonl.gz", rows, put=self.run.put)
            if nulls:
                nulls["cos_S_logp"] = null_of_rollouts(batch, done, self.editor)
        else:
            stamp = self.run.record["model"]["tokenizer"]
            rows = rollout_rows(batch.groups, seen, stamp)
            path = self.run.path / "rollouts" / step_file(step)
            write_jsonl(path, rows, put=self.run.put)
        if nulls:
            self._save_nulls(step, nulls)
        row = step_row(step, batch, seen, done, diagnostics, seconds, self.config)
        self.run.add_row(row)
        self.last = State.of(self.adapter, self.optimizer, step + 1)
        if (step + 1) % self.config.save_every == 0 or self.over:
            self._checkpoint(self.last)
        self.mirror.log(row)
        return row

    def _checkpoint(self, state: State) -> None:
        state.save(self.run.checkpoint)
        self.saved = state.step

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Whatever ends the steps inside, the last finished one stays: of the one under way nothing does.

        An interrupt says how to go on.
        """
        try:
            yield
        except BaseException as end:
            with uninterrupted():
                self._keep_last(wanted=isinstance(end, KeyboardInterrupt))
            if isinstance(end, KeyboardInterrupt):
                raise type(end)(self._how_to_go_on()) from None
            raise

    def _keep_last(self, *, wanted: bool) -> None:
        if self.last is None or self.last.step <= self.saved:
            return
        try:
            self._checkpoint(self.last)
        except (OSError, SafetensorError):  # a full disk, perhaps
            if wanted:
                raise

    def _how_to_go_on(self) -> str:
        if not self.saved:
            return f"{self.run.path}: interrupted before a step was finished; the same command begins it anew"
        return (
            f"{self.run.path}: interrupted; the first {self.saved} steps are saved: the same command with"
            f" --resume --out={shlex.quote(str(self.run.path))} goes on"
        )

    def _warn_of_gap(self, step: int, gap: float | None) -> None:
        """Once per run, where what is scored is not what was drawn from. (A gap that is NaN is above any
        limit.)"""
        known = [row["logp_gap"] for row in self.run.rows if row["logp_gap"] is not None]
        warned = any(not earlier <= LOGP_GAP for earlier in known)
        if gap is None or gap <= LOGP_GAP or warned:
            return
        say(
            f"step {step}: log-probabilities of the sampled tokens differ from the training forward's by"
            f" {gap:.3f} on average: what is scored is not what was drawn from (--dtype=float32 would tell"
            " rounding from a fault)"
        )

    def _save_nulls(self, step: int, nulls: dict[str, Tensor]) -> None:
        # Copies: where nothing is edited cos_in and cos_out are one tensor, which safetensors refuses to
        # write twice.
        tensors = {name: draws.clone() for name, draws in nulls.items()}
        path = self.run.path / "nulls" / f"step_{step:03d}.safetensors"
        write_safetensors(path, tensors, {"kind": "null"}, put=self.run.put)

    def evaluate(self, done: int, say: Callable[[str], None]) -> None:
        """The held-out evaluation after `done` steps, where one is due: the last step, and every
        --eval-every, once."""
        every = self.config.eval_every
        due = self.over or (every and done % every == 0)
        if self.evaluation is None or not done or not due:
            return
        stored = self.run.path / "eval.jsonl"
        earlier = read_jsonl(stored, ("step",)) if stored.exists() else []
        self.evaluation.lines = [line for line in earlier if line["step"] == done]
        if self.evaluation.lines:
            return
        started = time.monotonic()
        lines = self.evaluation.run(done, say)
        seconds = time.monotonic() - started
        self.evaluation.lines = [line | {"seconds": seconds} for line in lines]
        self.evaluation.write(self.run.path, done, put=self.run.put)

    def finish(self) -> None:
        """Final adapter and summary."""
        self.adapter.save(self.run.path / self.adapter.file)
        rows, seconds_evaluating = self.run.rows, self.run.seconds_evaluating()
        self.run.finish(
            {
                "steps": len(rows),
                "stopped": stopped_words(rows, self.config),
                "seconds": sum(row["seconds"] for row in rows) + seconds_evaluating,
                "seconds_evaluating": seconds_evaluating,
                "last5": last_five(rows),
                "groups_skipped": sum(row["groups_skipped"] for row in rows),
                "peak_memory_gb": memory.peak() / 1e9,
                "memory": {name: size / 1e9 for name, size in memory.peaks.items()},
                "eval": self.evaluation.lines if self.evaluation else None,
            }
        )
