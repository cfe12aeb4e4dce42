"""What sampling, the probe, a training step and the set-up cost, beside baselines and floors of the same run.

    ceilings   what this machine copies and multiplies; every floor is computed from these two rates
    sampling   a token step in slots, beside the plain path and transformers' `generate`
    probe      gradients of every sample in one backward, beside the frozen base, a forward hook, and separate
               backwards
    prompts    the backward of a full step with prompts computed once per group, beside once per row
    step       whole steps of a `full` run through train.py itself; lengths and texts are imposed
    setup      the model from disk, the adapter cold and warm, merging, v_hack from the shipped pairs; beside
               LAPACK's gesvd
    grading    completions graded, beside a plain grader, a bare fork and another checkout; only if asked for
    scaling    the step on 1, 2, 4, ... GPUs of this host, by phase, with a forecast; only if asked for
    sharing    the step of several runs on one GPU, in turns and through NVIDIA's MPS; only if asked for
    batching   a token step in slots, beside transformers' continuous batching; only if asked for
    peers      whole steps and set-up, beside TRL's GRPOTrainer with a LoRA of like size; only if asked for

Weights are random: what is measured is cost. Tables show medians; --out has every single timing.

    python bench.py                                                   CPU, tiny weights: under a minute
    python bench.py --shape=qwen3-4b --device=cuda --out=FILE.json    one 80 GB GPU: some minutes
    python bench.py --shape=qwen3-4b --sections=scaling               all GPUs of this host
    python bench.py --shape=qwen3-4b --device=cuda --sections=batching,peers
    python bench.py --sections=grading --rows=POOL --problems=FILE --canonical=FILE --baseline=REPO
"""

from __future__ import annotations

from hackward.base.faults import exit_on_fault
from hackward.base.flags import command_line
from hackward.base.lock import only_writer_if
from hackward.base.space import check_output
from hackward.benchmarks.flags import BenchFlags, resolve


def main(config: BenchFlags) -> None:
    """Run the sections. InputError for sizes that cannot be measured, and for an --out that cannot be
    written."""
    config = resolve(config)
    if config.out is not None:
        check_output(config.out, (config.rows, config.problems, config.canonical))

    # Heavy: a fault in the flags was said before these are loaded.
    from hackward.benchmarks.scaling import measure_share
    from hackward.benchmarks.sections import run_sections
    from hackward.hardware.ranks import started
    from train import train

    if started():
        measure_share(config, train)
        return
    with only_writer_if(config.out):
        run_sections(config, train)


if __name__ == "__main__":
    exit_on_fault(lambda: main(command_line(BenchFlags, description=__doc__)))
