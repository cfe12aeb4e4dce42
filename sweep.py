"""The sweep: seeds x arms (x controls), one train.py process a run, with its price before it starts and rules that stop it.

    python sweep.py --preset=full --dry-run --measured=RUN --price-per-hour=4
    python sweep.py --preset=full --probe=out/probe_distill --lora-v-hack=v_lora.safetensors -- --v-hack=v.safetensors
    python sweep.py --preset=full --arms=vanilla,projected -- --v-hack=v.safetensors        # after --: flags for every train.py

What is finished is skipped, what is unfinished goes on from its checkpoint: the same command again continues a sweep.
With --probe nothing starts unless the probe judged the very model and v_hack files that the sweep trains with, and allows it.
The runs come in three stages; what follows a stage waits for all its runs, and with 3 seeds or more for a verdict on them:

1. vanilla; where its hack rate over the last 5 steps is below 0.05 in every seed, there is nothing to suppress: stop;
2. the first projecting arm; where it does not separate from its baseline: stop (the ceiling);
3. the other arms, then the controls (--control-arm with --control=X).

A run that fails in the first two stages withholds the later ones: without a baseline they mean nothing.

Exit codes: 0 all runs are finished, 1 a run failed, 2 bad input, 3 a rule withheld runs, 130 interrupted. --anyway withholds nothing.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence

from rich.console import Console

from hackward.base.faults import exit_on_fault
from hackward.base.files import write_json
from hackward.base.flags import command_line
from hackward.base.provenance import provenance
from hackward.reports.tables import print_blocks
from hackward.scheduling.local import Board, interruptible, locked, run_stage
from hackward.scheduling.plan import Job, SweepFlags, plan, survey
from hackward.scheduling.price import Clock, clock, plan_blocks
from hackward.scheduling.rules import Decision, judge, judge_probe, stages


def outcome(job: Job, times: Clock) -> dict:
    return {
        "run": job.name,
        "arm": job.arm,
        "control": job.control,
        "seed": job.seed,
        "steps": job.steps,
        "steps_done": job.step,
        "state": job.state,
        "note": job.note or None,
        "hours_to_go": times.hours(job),
        "path": job.path,
        "log": job.log,
        "flags": job.flags,
    }


def withhold(jobs: Sequence[Job], why: str) -> None:
    for job in jobs:
        job.state, job.note = "withheld", why


def write_outcome(
    config: SweepFlags,
    passed: Sequence[str],
    jobs: Sequence[Job],
    times: Clock,
    *,
    planned: Sequence[dict],
    decisions: Sequence[Decision],
    stopped: bool,
) -> None:
    write_json(
        jobs[0].path.parent / "sweep.json",
        {
            "config": dataclasses.asdict(config),
            "train_flags": passed,
            **provenance(),
            "plan": planned,
            "decisions": [dataclasses.asdict(decision) for decision in decisions],
            "stopped": stopped,
            "runs": [outcome(job, times) for job in jobs],
        },
    )


def refuse_sweep(
    config: SweepFlags, passed: Sequence[str], jobs: Sequence[Job], decisions: Sequence[Decision], say
) -> None:
    """Nothing runs, because the probe says so; `sweep.json` says it too."""
    with locked(jobs[0].path.parent, say):
        for job in jobs:
            survey(job)
        times = clock(config, jobs)
        planned = [outcome(job, times) for job in jobs]
        withhold(
            [job for job in jobs if job.state != "done"],
            next(str(decision) for decision in decisions if decision.stop),
        )
        write_outcome(config, passed, jobs, times, planned=planned, decisions=decisions, stopped=True)


def run_sweep(
    config: SweepFlags, passed: Sequence[str], jobs: Sequence[Job], decisions: list[Decision]
) -> bool:
    """Run it stage by stage under the lock; True when a rule withheld runs. `sweep.json` is written however it ends."""
    groups, stopped = stages(jobs, config), False
    with interruptible(), Board(jobs) as board, locked(jobs[0].path.parent, board.say) as lock:
        for job in jobs:  # once more: another sweep may have held the lock until now
            survey(job)
        times = clock(config, jobs)
        planned = [outcome(job, times) for job in jobs]
        try:
            for number, (name, group) in enumerate(groups.items()):
                run_stage(group, board, at_once=config.jobs, lock=lock)
                failed = [job.name for job in group if job.state == "failed"]
                later = [
                    job
                    for after in list(groups.values())[number + 1 :]
                    for job in after
                    if job.state != "done"
                ]
                if failed and name in ("baseline", "first"):
                    withhold(later, f"{', '.join(failed)} failed")
                    break
                if decision := judge(groups, name):
                    decisions.append(decision)
                    board.say(str(decision))
                if decision and decision.stop and later:
                    stopped = True
                    withhold(later, str(decision))
                    break
        finally:
            write_outcome(config, passed, jobs, times, planned=planned, decisions=decisions, stopped=stopped)
    return stopped


def sweep(config: SweepFlags, passed: Sequence[str] = ()) -> int:
    """Plan, judge, run; returns the exit code (see the top of the file)."""
    jobs = plan(config, passed)
    for job in jobs:
        survey(job)
    groups = stages(jobs, config)
    print_blocks(plan_blocks(config, jobs, groups, clock(config, jobs)))
    console = Console(markup=False, emoji=False, highlight=False, soft_wrap=True)

    blocks, decisions = judge_probe(config, jobs) if config.probe else ([], [])
    print_blocks(blocks)
    refused = [decision for decision in decisions if decision.stop]
    for decision in decisions:
        console.print(f"{decision}{' (going on: --anyway)' if decision.stop and config.anyway else ''}")
    if refused and not config.anyway:
        console.print("stopped before anything started; --anyway overrules")
        if not config.dry_run:
            refuse_sweep(config, passed, jobs, decisions, console.print)
        return 3
    if config.dry_run:
        for name, group in groups.items():
            if all(job.state == "done" for job in group) and (decision := judge(groups, name)):
                console.print(str(decision))
        return 0

    stopped = run_sweep(config, passed, jobs, decisions)
    failed = [job for job in jobs if job.state == "failed"]
    for job in failed:
        console.print(f"failed: {job.name}: {job.note} (log: {job.log})")
    if withheld := [job for job in jobs if job.state == "withheld"]:
        names = ", ".join(job.name for job in withheld)
        console.print(
            f"withheld: {names}; {'stopped by a rule: ' if stopped else ''}{withheld[0].note}; --anyway overrules"
        )
    if any(job.state == "done" for job in jobs):
        console.print(f"next: python analyze.py {jobs[0].path.parent}")
    return 3 if stopped else 1 if failed else 0


def main(argv: Sequence[str]) -> int:
    cut = argv.index("--") if "--" in argv else len(argv)
    config = command_line(SweepFlags, argv[:cut], prog="sweep.py", description=__doc__)
    return sweep(config, list(argv[cut + 1 :]))


if __name__ == "__main__":
    exit_on_fault(lambda: sys.exit(main(sys.argv[1:])))
