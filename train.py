"""GRPO on problems with a loophole, and what taking the hack direction out of its gradient does.

How this differs from textbook GRPO:

* the advantage is r - mean(r), without the division by the standard deviation (Dr. GRPO, arXiv 2503.20783);
* one inner step per batch, so the importance ratio is 1 and there is no clipping of it;
* the trainable parameters are delta_S, one number per singular direction of every Linear (antipasto.py), or
  the B of a LoRA (lora_adapter.py), so the reference policy of the KL is the same model with them switched
  off;
* the rollouts are sampled, or replayed from pools (`--replay-dirs`): Phase 2 is this loop, there is no second
  trainer;
* every arm measures how far gradient and update point along v_hack (hackward/method/projection.py); a
  projecting arm removes it.

Arms: vanilla (measures only), projected (removes), lora (removes, in the LoRA basis; with --gate=none it
measures only), penalty and screen (act on the rollouts that a --monitor flags). Controls (--control) put
something else in the place of v_hack, or of the monitor's flags. All draw the same problems with the same
random numbers. Words: the glossary of spec/method.md.

    python train.py --arm=projected --steps=20
    python train.py --arm=vanilla --model=DIR --problems=FILE --replay-dirs=TEACHER,BASE --v-hack=FILE
    torchrun --nproc-per-node=4 -- train.py --arm=projected --preset=full   # the same run on four GPUs
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hackward.base.faults import exit_on_fault
from hackward.runs.inputs import check_inputs
from hackward.runs.settings import Config, parse, resolve
from hackward.tasks.shipped import is_embedded, is_random

if TYPE_CHECKING:
    from hackward.rollouts.policy import Policy


def train(config: Config, *, policy: type[Policy] | None = None) -> Path:
    """Run it; returns the run directory. All inputs are checked before anything is written.

    `policy` draws and grades (default: rollouts.policy.Policy). InputError for whatever cannot be used.
    """
    entered = time.monotonic()
    config = resolve(config)
    check_inputs(config)
    # Seconds of imports, so they come after the settings were found to be good.
    from torch.nn.utils import clip_grad_norm_

    from hackward.base.screen import progress
    from hackward.hardware import ranks
    from hackward.rollouts.policy import Policy
    from hackward.runs.building import build
    from hackward.runs.screens import print_end, step_facts

    with contextlib.ExitStack() as stack:
        config = stack.enter_context(ranks.joined(config))
        s = build(config, stack, policy or Policy)
        s.run.describe(seconds_set_up=time.monotonic() - entered)
        stack.enter_context(s.kept())
        bar = stack.enter_context(progress(f"{config.arm}, seed {config.seed}", config.steps, done=s.first))
        s.evaluate(s.first, bar.say)  # due, if the run was cut off in it
        for step in s.steps():
            started = time.monotonic()
            refreshed = s.refresh(step)

            groups = s.source.groups(step, bar.say)  # sampled or replayed, and graded
            seen = s.look(step, groups)  # a monitor's scores and flags, where there is one
            batch = s.weigh(groups, seen)  # advantages after interventions, KL weights, denominators

            bar.say("backward")
            before_backward = time.monotonic()
            s.optimizer.zero_grad()
            done = s.backward(batch, seen)
            seconds_backward = time.monotonic() - before_backward

            diagnostics = refreshed | s.edit_grads(step)
            clip_grad_norm_(s.adapter.params.values(), config.clip)
            diagnostics["lr"] = s.set_learning_rate(step)
            if batch.rollouts:  # with nothing to learn from, momentum must not move the model
                s.optimizer.step()
            diagnostics |= s.editor.edit_update()

            seconds = {
                "seconds": time.monotonic() - started,
                "seconds_generate": s.source.seconds.generate,
                "seconds_grade": s.source.seconds.grade,
                "seconds_monitor": s.seconds_looking,
                "seconds_backward": seconds_backward,
            }
            seconds |= ranks.seconds()
            row = s.log(step, batch, seen, done, diagnostics, seconds)
            bar.print(*step_facts(row, s.source.kind), head=f"step {step:>3}  ")
            s.evaluate(step + 1, bar.say)
            bar()
        s.finish()
        bar.stop()
        print_end(s)
        return s.run.path


TOY = (
    "the embedded model: 1.9 M parameters, pretrained to write small functions and, rarely, to cheat."
    " It shows the phenomenon; it is no evidence about language models"
)
NOISE = "a model with RANDOM weights: it shows the machinery, not a finding"
REAL = "--preset=fast --model=DIR, FILE.gguf or a hub id, and --problems=FILE"


def main(argv: Sequence[str]) -> None:
    config = resolve(parse(argv, description=__doc__))
    toy = is_random(config.model) or is_embedded(config.model)
    if toy and os.environ.get("RANK", "0") == "0":  # under torchrun the first process speaks
        from hackward.base.screen import say

        what = NOISE if is_random(config.model) else TOY
        say(f"This run uses {what}. For a real model: {REAL}.")
    train(config)


if __name__ == "__main__":
    exit_on_fault(lambda: main(sys.argv[1:]))
