"""GRPO on problems with a loophole, and what taking the hack direction out of its gradient does.

How this differs from textbook GRPO:

* the advantage is r - mean(r), without the division by the standard deviation (Dr. GRPO, arXiv 2503.20783);
* one inner step a batch, so the importance ratio is 1 and there is no clipping;
* the trainable parameters are delta_S, one number a singular direction of every Linear (antipasto.py), or the B of a LoRA
  (lora_adapter.py), so the reference policy of the KL is the same model with them switched off;
* the rollouts are sampled, or replayed from pools (`--replay-dirs`): Phase 2 is this loop, there is no second trainer;
* every arm measures how far gradient and update point along v_hack (projection.py); a projecting arm removes it.

Arms: vanilla (measures only), projected (removes), lora (removes, in the weight basis; with --gate=none it measures only).
Controls (--control) put something else in the place of what a projecting arm removes. All draw the same problems with the
same random numbers.

    python train.py --arm=projected --steps=20
    python train.py --arm=vanilla --steps=20 --model=DIR --problems=FILE --replay-dirs=TEACHER,BASE --v-hack=FILE
"""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path

import torch

from hackward.base.faults import InputError, exit_on_fault
from hackward.base.screen import progress
from hackward.method import gradients
from hackward.method.losses import ADVANTAGES, normaliser
from hackward.rollouts.policy import Policy
from hackward.runs import session
from hackward.runs.records import step_line
from hackward.runs.session import set_learning_rate
from hackward.runs.settings import Config, parse, resolve
from hackward.tasks.shipped import is_embedded, is_random


def train(config: Config, *, policy: type[Policy] = Policy) -> Path:
    """Run it; returns the run directory. All inputs are checked before anything is written. `policy` draws and grades."""
    config = resolve(config)
    with contextlib.ExitStack() as stack:
        s = session.build(config, stack, policy)
        bar = stack.enter_context(progress(f"{config.arm}, seed {config.seed}", config.steps))
        bar(s.first)
        s.evaluate(s.first, bar.say)  # due, if the run was cut off in it
        for step in range(s.first, config.steps):
            started = time.monotonic()
            refreshed = s.refresh(step)
            groups = s.source.groups(step, bar.say)

            advantages = [
                ADVANTAGES[config.loss_mode](torch.tensor([r.reward for r in group])) for group in groups
            ]
            used = [(r, a) for group, A in zip(groups, advantages) if A.any() for r, a in zip(group, A)]
            rollouts, A_N = [r for r, _ in used], torch.tensor([float(a) for _, a in used])
            n_N = normaliser(
                config.normaliser,
                torch.tensor([len(r.completion_ids) for r in rollouts]),
                rollouts=sum(map(len, groups)),
                fixed=config.max_new_tokens,
            )

            bar.say("backward")
            before_backward = time.monotonic()
            s.optimizer.zero_grad()
            done = gradients.backward(
                s.adapter,
                [r.tokens for r in rollouts],
                A_N,
                n_N,
                pad=s.pad,
                tokens=config.micro_tokens,
                beta_N=config.beta * torch.tensor([float(r.own) for r in rollouts]),
                temperature=s.temperature,
                drawn=[r.logps for r in rollouts],
                samples=s.source.kind == "replay",
            )
            seconds_backward = time.monotonic() - before_backward

            diagnostics = refreshed | s.editor.edit_grads()
            if diagnostics["grad_norm"] is None:
                raise InputError(
                    f"{s.run.path}: step {step}: the gradient is not finite; the run ends before this step"
                )
            torch.nn.utils.clip_grad_norm_(s.adapter.params.values(), config.clip)
            diagnostics["lr"] = set_learning_rate(s.optimizer, config, step, s.lr_scale)
            if (
                rollouts
            ):  # with every group skipped there is nothing to learn, and momentum must not move the model
                s.optimizer.step()
            diagnostics |= s.editor.edit_update()

            seconds = {
                "seconds": time.monotonic() - started,
                "seconds_generate": s.source.seconds.generate,
                "seconds_grade": s.source.seconds.grade,
                "seconds_backward": seconds_backward,
            }
            s.log(step, groups, advantages, done, diagnostics, seconds)
            bar.print(step_line(s.run.rows[-1]))
            s.evaluate(step + 1, bar.say)
            bar()
        return s.finish()


def main() -> None:
    config = parse(sys.argv[1:])
    if is_random(config.model) or is_embedded(config.model):
        what = (
            "the embedded model: 1.9 M parameters, pretrained to write small functions and, rarely, to cheat. It shows the phenomenon; it is"
            " no evidence\nabout language models"
            if not is_random(config.model)
            else "a model with RANDOM weights: it shows the machinery, not a finding"
        )
        print(
            f"This run uses {what}. For a real model: --preset=fast --model=DIR, FILE.gguf or a hub id, and --problems=FILE.",
            file=sys.stderr,
        )
    train(config)


if __name__ == "__main__":
    exit_on_fault(main)
