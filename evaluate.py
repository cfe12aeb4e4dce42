"""Held-out evaluation: does the hacking go beyond the problems and the name that it was learned with, and what remains without the loophole?

Problems that were never trained on, `samples` completions each, with the adapter on and off (the base model), in three conditions:

    trained-name   loophole open, the prompt names the evaluation function of training
    other-names    loophole open, the prompt names another one (one of OTHER_NAMES by a hash of the problem)
    closed         the prompt names none; attempted and hacked still mean the function of training

The random numbers of a completion come from (seed, problem, sample) alone: steps, adapters and conditions differ in nothing else and can be
compared in pairs. Problems are the unit of every interval, never samples.

    python evaluate.py RUN                                            # the final adapter of a finished run, on the held-out part of its problems
    python evaluate.py RUN --problems FILE --samples 8 --out DIR      # on what the run was not trained on of another file
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path

import tyro

from hackward.base.faults import InputError, exit_on_fault
from hackward.base.files import read_json, read_jsonl, write_json
from hackward.base.flags import Count, Grading, checked, command_line
from hackward.base.provenance import provenance
from hackward.base.screen import STDERR, progress, stdout
from hackward.grading.grader import Grader, print_protection
from hackward.rollouts.pools import pool_files
from hackward.rollouts.tokens import stops
from hackward.runs.building import restore
from hackward.runs.heldout import Evaluation, heldout_screen
from hackward.tasks import problems
from hackward.tasks.formats import load_problems
from hackward.tasks.held_out import held_out_split
from hackward.tasks.problems import EVAL_NAME, OTHER_NAMES, Problem


@dataclass(frozen=True)
class EvaluateFlags(Grading):
    """Evaluate the final adapter of a finished run on problems that it was not trained on."""

    run: tyro.conf.Positional[Path]
    """Run directory of train.py, sampled."""
    problems: str | None = None
    """Problem file or hub id (default: the held-out part of the run's own)."""
    samples: Count = 4
    """Completions a problem, condition and adapter."""
    limit: Count = 64
    """Problems at most."""
    names: str = ",".join(OTHER_NAMES)
    """Evaluation functions that the condition other-names draws from."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ..."""
    out: Path | None = None
    """Directory of eval.jsonl, eval/ and evaluate.json; one without an eval.jsonl (default: RUN/evaluate)."""


def other_names(text: str) -> tuple[str, ...]:
    """The names of --names, checked: two or more (one may be a problem's own method), none the trained one."""
    names = tuple(name.strip() for name in text.split(","))
    if len(set(names)) < 2 or not all(re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII) for name in names):
        raise InputError(f"--names {text!r}: expected two or more function names, separated by commas")
    if EVAL_NAME in names:
        raise InputError(f"--names {text!r}: {EVAL_NAME} is the name that is trained on")
    return names


def trained_on(run: Path) -> set[str]:
    """Identities of all problems in a run's rollouts: what it really was trained on."""
    found = set()
    for path in pool_files(run / "rollouts"):
        for row in read_jsonl(path, ("problem_id", "problem_messages")):
            try:
                found.add(problems.identity(row["problem_messages"][-1]["content"], str(row["problem_id"])))
            except (TypeError, LookupError, AttributeError):
                raise InputError(
                    f"{path}: problem_messages is not a list of messages with role and content"
                ) from None
    return found


def choose(config: EvaluateFlags, record: dict) -> tuple[list[Problem], int]:
    """The problems to evaluate on, and how many were left out because the run was trained on them or its v_hack was made from them.

    `record` is the run's config.json. Without --problems they are the run's own: its held-out file, or the split of its problem file.
    """
    settings = record["config"]
    source = config.problems or settings.get("eval_problems") or settings["problems"]
    everything = load_problems(source)
    candidates = (
        everything
        if config.problems or settings.get("eval_problems")
        else held_out_split(everything, source)[1]
    )
    if not config.problems and settings.get("difficulty"):
        candidates = [
            problem for problem in candidates if problem.difficulty in settings["difficulty"].split(",")
        ]
    seen = trained_on(config.run) | set((record.get("v_hack") or {}).get("pair_identities", ()))
    fresh = [problem for problem in candidates if problem.identity not in seen]
    if not fresh:
        raise InputError(
            f"{source}: holds no problem to evaluate on: {len(candidates)} candidates, all known to {config.run} from training or its v_hack"
        )
    return fresh, len(candidates) - len(fresh)


def evaluate(config: EvaluateFlags) -> Path:
    """Run it; returns the directory written to. Everything that can be wrong is checked before a model is loaded."""
    checked(config)
    names, out = other_names(config.names), config.out or config.run / "evaluate"
    record, summary = read_json(config.run / "config.json"), read_json(config.run / "summary.json")
    if (
        not isinstance(record, dict)
        or record.get("kind") != "sampled"
        or not isinstance(summary, dict)
        or type(summary.get("steps")) is not int
    ):
        raise InputError(
            f"{config.run}: not a finished sampled run of train.py (of a replayed one it is not known what it was trained on)"
        )
    if (out / "eval.jsonl").exists():
        raise InputError(f"{out / 'eval.jsonl'}: exists; take another --out")
    chosen, seen = choose(config, record)
    with Grader(workers=1, sandbox=config.sandbox) as grader:
        protection = grader.protection
        print_protection(protection, STDERR)
    adapter, tokenizer, trained = restore(config.run, device=config.device)
    evaluation = Evaluation(
        adapter,
        tokenizer,
        chosen,
        stop=stops(adapter.model, tokenizer),
        samples=config.samples,
        max_new_tokens=trained.max_new_tokens,
        temperature=trained.temperature,
        rows=trained.sample_rows,
        seed=trained.seed,
        limit=config.limit,
        names=names,
        sandbox=config.sandbox,
        workers=config.workers,
    )
    with progress("held-out evaluation") as bar:
        lines = evaluation.run(summary["steps"], bar.say)
    evaluation.write(out, summary["steps"])
    write_json(
        out / "evaluate.json",
        {
            "config": dataclasses.asdict(config),
            "problems": [problem.problem_id for problem in evaluation.problems],
            "left_out_as_trained_on": seen,
            "sandbox": protection,
            **provenance(),
        },
    )
    console = stdout()
    console.print(heldout_screen(lines))
    if seen:
        console.print(
            f"left out because the run was trained on them or its v_hack was made from them: {seen} problems",
            highlight=False,
        )
    return out


if __name__ == "__main__":
    exit_on_fault(lambda: evaluate(command_line(EvaluateFlags, description=__doc__)))
