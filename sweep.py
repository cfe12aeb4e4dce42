"""The sweep: seeds x arms (x controls), one train.py per run, priced beforehand, stopped by rules.

    python sweep.py --preset=full --dry-run --measured=RUN --price-per-hour=4
    python sweep.py --preset=full --probe=PROBE --lora-v-hack=v_lora.safetensors -- --v-hack=v.safetensors
    python sweep.py --preset=full --arms=vanilla,projected -- --v-hack=v.safetensors
    python sweep.py --preset=full --on=ray --ray-address=auto -- --v-hack=v.safetensors
    python sweep.py --preset=full --on=print -- --v-hack=v.safetensors > runs.txt
    python sweep.py --experiment=spec/experiments/2026-11-27-headline.toml --seeds=51,52 -- --model=M

--on=local fills the GPUs of this machine, --on=ray hands the runs to Ray, --on=print writes one command per
run for another scheduler (spec/clusters.md); all else is the same for the three.

What comes after -- are flags for every train.py. What is finished is skipped, what is unfinished goes on
from its checkpoint: the same command again continues a sweep. With --probe nothing starts unless the probe
judged the very model and v_hack files that the sweep trains with, and allows it. The runs come in three
stages; what follows a stage waits for all its runs, and with 3 seeds or more for a verdict on them:

1. vanilla; where its hack rate over the last 5 steps is below 0.05 in every seed, there is nothing to
   suppress: stop;
2. the first projecting arm; where it does not separate from its baseline: stop (the ceiling);
3. the other arms, then the controls (--control-arm with --control=X).

A run that fails in the first two stages withholds the later ones: without a baseline they mean nothing.

--experiment=FILE runs the arms of a file, each with flags of its own, in one stage and without these rules:
what was written down beforehand is not looked at by arm before it is done. --arms then chooses among them.

Exit codes: 0 all runs are finished, 1 a run failed, 2 bad input, 3 a rule withheld runs, 130 interrupted.
--anyway withholds nothing.
"""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hackward.base.faults import InputError, exit_on_fault
from hackward.base.flags import command_line, has_gpu
from hackward.scheduling.flags import SweepFlags
from hackward.scheduling.jobs import Job, survey
from hackward.scheduling.plan import Stages, plan, stages

if TYPE_CHECKING:
    from rich.console import Console

    from hackward.scheduling.engines import Engine, Room
    from hackward.scheduling.runner import Sweep


def sweep(config: SweepFlags, passed: Sequence[str] = ()) -> int:
    """Plan, judge, run; returns the exit code (see the top of the file)."""
    jobs = plan(config, passed)
    for job in jobs:
        survey(job)

    # Heavy: a fault in the flags was said before these are loaded.
    from hackward.scheduling.engines import engine_of

    engine = engine_of(config, jobs)
    with contextlib.redirect_stdout(engine.talk):
        return carry_out(config, passed, jobs, engine)


def carry_out(config: SweepFlags, passed: Sequence[str], jobs: Sequence[Job], engine: Engine) -> int:
    """The plan, the rules, the runs on this engine; returns the exit code."""
    from hackward.base.screen import say, stdout
    from hackward.reports.tables import print_blocks
    from hackward.scheduling.price import clock, plan_blocks
    from hackward.scheduling.rules import judge_probe
    from hackward.scheduling.runner import Sweep

    groups = stages(jobs, config)
    console = stdout()
    print_blocks(plan_blocks(config, jobs, groups, clock(config, jobs), engine.room))
    if has_gpu() and engine.room.one_machine:
        say_needs(jobs, engine.room, config, console)
    blocks, decisions = judge_probe(Path(config.probe), jobs) if config.probe else ([], [])
    print_blocks(blocks)
    for decision in decisions:
        going_on = " (going on: --anyway)" if decision.stop and config.anyway else ""
        say(f"{decision}{going_on}", console=console)

    work = Sweep(config, passed, jobs, decisions, engine)
    if not config.anyway and any(decision.stop for decision in decisions):
        say("stopped before anything started; --anyway overrules", console=console)
        if not config.dry_run:
            work.refuse(lambda line: say(line, console=console))
        return 3
    if config.dry_run:
        say_verdicts(groups, console)
        return 0
    work.run()
    return say_outcome(work, console)


def say_needs(jobs: Sequence[Job], room: Room, config: SweepFlags, console: Console) -> None:
    """What a run needs of the GPU's memory. InputError where the runs cannot fit, unless --anyway."""
    from hackward.base.screen import say
    from hackward.scheduling.fits import check_fits

    try:
        needs = check_fits(jobs, room.per_gpu)
    except InputError as fault:
        if not config.anyway:
            raise
        say(f"{fault} (going on: --anyway)", console=console)
        return
    if needs is not None:
        say(f"a run needs {needs.words()}", console=console)


def say_verdicts(groups: Stages, console: Console) -> None:
    """What the rules say of the stages that are done."""
    from hackward.base.screen import say
    from hackward.scheduling.rules import judge

    for name, group in groups.items():
        verdict = judge(groups, name) if all(job.state == "done" for job in group) else None
        if verdict is not None:
            say(str(verdict), console=console)


def say_outcome(work: Sweep, console: Console) -> int:
    """Which runs failed or were withheld, and what comes next; returns the exit code."""
    from hackward.base.screen import say

    def in_state(state: str) -> list[Job]:
        return [job for job in work.jobs if job.state == state]

    analyze = f"analyze.py {shlex.quote(str(work.directory))}"
    failed, withheld = in_state("failed"), in_state("withheld")
    for job in failed:
        say(f"failed: {job.name}: {job.note} (log: {job.log})", console=console)
    if withheld:
        names = ", ".join(job.name for job in withheld)
        by_rule = "stopped by a rule: " if work.stopped else ""
        say(f"withheld: {names}; {by_rule}{withheld[0].note}; --anyway overrules", console=console)
    if printed := in_state("printed"):
        say(f"printed: {len(printed)} commands; {analyze} once they have run", console=console)
    if in_state("done"):
        say(f"next: python {analyze}", console=console)
    if work.stopped:
        return 3
    return 1 if failed else 0


def main(argv: Sequence[str]) -> int:
    """Returns the exit code."""
    cut = argv.index("--") if "--" in argv else len(argv)
    config = command_line(SweepFlags, argv[:cut], prog="sweep.py", description=__doc__)
    return sweep(config, list(argv[cut + 1 :]))


if __name__ == "__main__":
    exit_on_fault(lambda: sys.exit(main(sys.argv[1:])))
