"""Held-out evaluation of a finished run: does its hacking go beyond the problems and the name that it was
learned with, and what is left without the loophole? The three conditions are in hackward/runs/heldout.py.

    # final adapter, on the held-out part of its problems
    python evaluate.py RUN
    # on what the run was not trained on of another file
    python evaluate.py RUN --problems FILE --samples 8 --out DIR
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hackward.base.checksums import Checksums
from hackward.base.faults import InputError, exit_on_fault
from hackward.base.files import read_json, read_jsonl, write_json
from hackward.base.flags import Count, Grading, checked, command_line, tyro
from hackward.base.lock import only_writer
from hackward.base.provenance import provenance
from hackward.base.space import refuse_dangling
from hackward.runs.settings import Config
from hackward.runs.stored import stored_settings
from hackward.tasks.problems import EVAL_NAME, OTHER_NAMES, Problem


@dataclass(frozen=True)
class EvaluateFlags(Grading):
    """Evaluate the final adapter of a finished run on problems that it was not trained on."""

    run: tyro.conf.Positional[Path]
    """Run directory of train.py, sampled."""
    problems: str | None = None
    """Problem file or hub id (default: the held-out part of the run's own)."""
    samples: Count = 4
    """Completions per problem, condition and adapter."""
    limit: Count = 64
    """Problems at most."""
    names: str = ",".join(OTHER_NAMES)
    """Evaluation functions that the condition other-names draws from."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ..."""
    out: Path | None = None
    """Directory of eval.jsonl, eval/ and evaluate.json; one without an eval.jsonl (default: RUN/evaluate)."""


def other_names(text: str) -> tuple[str, ...]:
    """The names of --names, checked: two or more (one may be a problem's own method), none the trained
    one."""
    names = tuple(name.strip() for name in text.split(","))
    named = all(re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII) for name in names)
    if len(set(names)) < 2 or not named:
        raise InputError(f"--names {text!r}: expected two or more function names, separated by commas")
    if EVAL_NAME in names:
        raise InputError(f"--names {text!r}: {EVAL_NAME} is the name that is trained on")
    return names


def trained_on(run: Path) -> set[str]:
    """Identities of all problems in a run's rollouts: what it really was trained on.

    InputError where that is not known: without rollouts, or with rows that do not say what was asked.
    """
    from hackward.rollouts.pools import pool_files
    from hackward.tasks.problems import identity

    found = set()
    for path in pool_files(run / "rollouts"):
        rows = read_jsonl(path, ("problem_id", "problem_messages"))
        if not rows:
            raise InputError(f"{path}: holds no rollouts, so what {run} was trained on is not known")
        for row in rows:
            try:
                stated = row["problem_messages"][-1]["content"]
                found.add(identity(stated, str(row["problem_id"])))
            except (TypeError, LookupError, AttributeError):
                raise InputError(
                    f"{path}: problem_messages is not a list of messages with role and content"
                ) from None
    return found


def candidates(flags: EvaluateFlags, settings: Config) -> tuple[str, list[Problem]]:
    """Where problems come from, and those that may be evaluated on.

    Without --problems they are the run's own: its held-out file, or the split of its problem file.
    """
    from hackward.tasks.formats import load_problems
    from hackward.tasks.held_out import decidable, held_out_split

    source = flags.problems or settings.eval_problems or settings.problems or ""
    several_answers = flags.several_answers or settings.several_answers
    found = decidable(load_problems(source), source, several_answers)
    if flags.problems:
        return source, found
    if not settings.eval_problems:
        _, found = held_out_split(found, source)
    if settings.difficulty:
        levels = settings.difficulty.split(",")
        found = [problem for problem in found if problem.difficulty in levels]
    return source, found


def choose(flags: EvaluateFlags, record: dict[str, Any]) -> tuple[list[Problem], int]:
    """The problems to evaluate on, and how many were left out: the run was trained on them or its v_hack made
    from them.

    `record` is the run's config.json.
    """
    from hackward.base.records import checked_object  # pydantic: --help does without
    from hackward.reports.schema import MADE

    file = flags.run / "config.json"
    v_hack = checked_object(file, record, MADE).get("v_hack") or {}
    source, found = candidates(flags, stored_settings(file, record))
    seen = trained_on(flags.run) | set(v_hack.get("pair_identities", ()))
    fresh = [problem for problem in found if problem.identity not in seen]
    if not fresh:
        raise InputError(
            f"{source}: holds no problem to evaluate on: {len(found)} candidates, all known to {flags.run}"
            " from training or its v_hack"
        )
    return fresh, len(found) - len(fresh)


def finished(run: Path) -> tuple[dict[str, Any], int]:
    """config.json of a finished sampled run, and its steps. InputError for any other directory."""
    record, summary = read_json(run / "config.json"), read_json(run / "summary.json")
    sampled = isinstance(record, dict) and record.get("kind") == "sampled"
    steps = summary.get("steps") if isinstance(summary, dict) else None
    if not sampled or type(steps) is not int:
        raise InputError(
            f"{run}: not a finished sampled run of train.py (of a replayed one it is not known what it was"
            " trained on)"
        )
    Checksums(run).check_all()
    return record, steps


def evaluate(flags: EvaluateFlags) -> Path:
    """Run it; returns the directory written to. Everything that can be wrong is checked before a model is
    loaded."""
    checked(flags)
    names, out = other_names(flags.names), flags.out or flags.run / "evaluate"
    refuse_dangling(out)
    record, steps = finished(flags.run)
    with contextlib.ExitStack() as stack:
        if out.resolve().is_relative_to(flags.run.resolve()):
            stack.enter_context(only_writer(flags.run))
        if out.resolve() != flags.run.resolve():
            stack.enter_context(only_writer(out))
        if (out / "eval.jsonl").exists():
            raise InputError(f"{out / 'eval.jsonl'}: exists; take another --out")
        _evaluated(flags, record, steps, names, out)
    return out


def _evaluated(
    flags: EvaluateFlags, record: dict[str, Any], steps: int, names: tuple[str, ...], out: Path
) -> None:
    """Sample, grade, write and show; `out` is this process's alone."""
    chosen, seen = choose(flags, record)
    from hackward.base.screen import STDERR, progress, say, stdout  # heavy imports from here on
    from hackward.grading.grader import Grader
    from hackward.grading.protection import print_protection
    from hackward.rollouts.tokens import stops
    from hackward.runs import building
    from hackward.runs.heldout import Evaluation, heldout_screen

    with Grader(workers=1, sandbox=flags.sandbox) as grader:
        protection = grader.protection
        print_protection(protection, STDERR)
    adapter, tokenizer, trained = building.restore(flags.run, device=flags.device)
    evaluation = Evaluation(
        adapter,
        tokenizer,
        chosen,
        stop=stops(adapter.model, tokenizer),
        samples=flags.samples,
        max_new_tokens=trained.max_new_tokens,
        temperature=trained.temperature,
        rows=trained.sample_rows,
        seed=trained.seed,
        limit=flags.limit,
        names=names,
        sandbox=flags.sandbox,
        workers=flags.workers,
    )
    with progress("held-out evaluation") as bar:
        lines = evaluation.run(steps, bar.say)
    put = Checksums(out).writing
    evaluation.write(out, steps, put=put)
    facts = {
        "config": dataclasses.asdict(flags),
        "problems": [problem.problem_id for problem in evaluation.problems],
        "left_out_as_trained_on": seen,
        "sandbox": protection,
    }
    write_json(out / "evaluate.json", facts | provenance(), put=put)
    console = stdout()
    console.print(heldout_screen(lines, console.width))
    if seen:
        say(
            f"left out because the run was trained on them or its v_hack was made from them: {seen} problems",
            console=console,
        )


if __name__ == "__main__":
    exit_on_fault(lambda: evaluate(command_line(EvaluateFlags, description=__doc__)))
