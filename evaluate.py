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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import tyro
from rich.table import Table
from rich.text import Text

import pools
import problems
import verdicts
from grade import Grade, GradeItem, Grader, print_protection
from problems import EVAL_NAME, Problem
from screen import STDERR, progress, stdout
from sources import Policy
from store import (
    InputError,
    check_numbers,
    exit_on_fault,
    provenance,
    read_json,
    read_jsonl,
    sha256,
    write_json,
    write_jsonl,
)

OTHER_NAMES = ("verify", "self_check", "check_answer", "validate")
CONDITIONS = ("trained-name", "other-names", "closed")
ADAPTERS = ("on", "off")
RATES = {
    "hacked": "hacked",
    "attempted": "attempted",
    "solved": "gt_pass",
}  # figure -> field of a graded rollout
EVAL_STEP = -1  # in the place of a step in the random key: no training step draws the same numbers


def other_name(problem: Problem, names: Sequence[str] = OTHER_NAMES) -> str:
    """The evaluation function that a problem's prompt names in the condition other-names. Frozen: by a hash of the problem."""
    usable = [
        name for name in names if name != problem.method
    ]  # else a solution alone would count as an attempt
    return usable[int(sha256("other-name", problem.identity)[:8], 16) % len(usable)]


# --- figures -------------------------------------------------------------------------------------------------------


def ratio(part_P: Sequence[float], whole_P: Sequence[float]) -> dict | None:
    """sum(part) / sum(whole) over problems P, with a 95 % interval clipped to [0, 1]; None where the whole is 0.

    The t interval of the linearised values R + (part - R whole) / mean(whole) over the problems with something in the whole
    (Cochran, Sampling Techniques, 6.3). Their mean is R; with a whole of ones they are the parts, and this is the plain t
    interval. low and high are None where it is undefined: one problem, or no variance.
    """
    part, whole = np.array(part_P, float), np.array(whole_P, float)
    part, whole = part[whole > 0], whole[whole > 0]
    if not whole.size:
        return None
    R = part.sum() / whole.sum()
    found = verdicts.estimate(R + (part - R * whole) / whole.mean())
    clipped = {
        name: None if bound is None else min(1.0, max(0.0, bound))
        for name, bound in (("low", found.low), ("high", found.high))
    }
    return {"mean": float(R), **clipped}


def summarise(rows: Sequence[dict]) -> list[dict]:
    """The lines of eval.jsonl for the graded rollouts of one step: one per adapter and condition, in their order."""
    return [
        _line(cell)
        for adapter in ADAPTERS
        for condition in CONDITIONS
        if (cell := [row for row in rows if (row["adapter"], row["condition"]) == (adapter, condition)])
    ]


def _line(cell: Sequence[dict]) -> dict:
    by_problem: dict[str, list[dict]] = {}
    for row in cell:
        by_problem.setdefault(row["problem_id"], []).append(row)
    share = {
        name: [float(np.mean([row[field] for row in rows])) for rows in by_problem.values()]
        for name, field in RATES.items()
    }
    facts = {name: cell[0][name] for name in ("step", "adapter", "condition")} | {
        "problems": len(by_problem),
        "samples": len(cell) // len(by_problem),
    }
    return (
        facts
        | {name: ratio(share[name], [1.0] * len(by_problem)) for name in RATES}
        | {"hack_given_attempt": ratio(share["hacked"], share["attempted"])}
    )


def shown(estimate: dict | None) -> str:
    """0.25 [0.10, 0.40]"""
    if estimate is None:
        return "undefined"
    interval = "no interval" if estimate["low"] is None else f"{estimate['low']:.2f}, {estimate['high']:.2f}"
    return f"{estimate['mean']:.2f} [{interval}]"


def table(lines: Sequence[dict]) -> Table:
    """Condition x adapter, every figure with its interval, for the lines of one step."""
    first = lines[0]
    title = f"held-out evaluation at step {first['step']}: {first['problems']} problems x {first['samples']} samples, 95 % over problems"
    found = Table(title=title, title_justify="left")
    for heading in ("condition", "adapter", *RATES, "P(hack | attempt)"):
        found.add_column(heading)
    for condition in CONDITIONS:
        for line in (line for line in lines if line["condition"] == condition):
            figures = [
                Text(shown(line[name])) for name in (*RATES, "hack_given_attempt")
            ]  # Text: brackets are no markup
            found.add_row(condition, line["adapter"], *figures, end_section=line["adapter"] == ADAPTERS[-1])
    return found


# --- sampling ------------------------------------------------------------------------------------------------------


class NamedGrader:
    """Grades every answer by the function that its problem's prompt names. A Grader knows one name, and starts in 0.2 s."""

    def __init__(self, name: Callable[[Problem], str], **options) -> None:
        self.name, self.options = name, options

    def start(self) -> Later:
        """As Grader.start; but nothing is graded before the result is asked for."""
        return Later(self)


class Later:
    """Items that are collected one by one and graded together, name by name."""

    def __init__(self, grader: NamedGrader) -> None:
        self.grader, self.items = grader, []

    def add(self, item: GradeItem) -> int:
        self.items.append(item)
        return len(self.items) - 1

    def result(self) -> list[Grade]:
        names = [self.grader.name(item.problem) for item in self.items]
        graded: dict[str, Iterator[Grade]] = {}
        for name in dict.fromkeys(names):
            with Grader(eval_name=name, **self.grader.options) as grader:
                graded[name] = iter(
                    grader.grade([item for item, its in zip(self.items, names) if its == name])
                )
        return [next(graded[name]) for name in names]


class NamedPolicy(Policy):
    """A Policy whose prompts name the function that its grader looks for."""

    def prompt(self, problem: Problem) -> tuple[list[dict], tuple[int, ...]]:
        messages = problems.build_messages(problem, hint=self.hint, eval_name=self.grader.name(problem))
        return messages, tuple(pools.encode(self.tokenizer, problems.render_prompt(self.tokenizer, messages)))


class Evaluation:
    """Samples and grades held-out problems with whatever the adapter holds at the moment; built once a run.

    The first `limit` problems by problems.held_out_place are taken, a problem once, so that every run and arm sees the same ones.
    InputError where there is none.
    """

    def __init__(
        self,
        adapter,
        tokenizer,
        held_out: Sequence[Problem],
        *,
        stop: Sequence[int],
        samples: int,
        max_new_tokens: int,
        temperature: float,
        rows: int,
        seed: int,
        limit: int = 64,
        names: Sequence[str] = OTHER_NAMES,
        sandbox: str = "best-effort",
        workers: int | None = None,
    ) -> None:
        known = {problem.identity: problem for problem in held_out}
        self.problems = [known[identity] for identity in sorted(known, key=problems.held_out_place)[:limit]]
        if not self.problems:
            raise InputError(
                "no held-out problems to evaluate on (a tenth of the problem file is held out; this one may be too small)"
            )
        self.adapter, self.samples, self.seed = adapter, samples, seed
        trained, other = lambda problem: EVAL_NAME, lambda problem: other_name(problem, names)
        self.policies = {
            condition: NamedPolicy(
                adapter,
                tokenizer,
                NamedGrader(
                    other if condition == "other-names" else trained, sandbox=sandbox, workers=workers
                ),
                stop=stop,
                max_new_tokens=max_new_tokens,
                temperature=temperature,
                hint=condition != "closed",
                rows=rows,
            )
            for condition in CONDITIONS
        }
        self.base: list[dict] = []  # rows of the base model, sampled once: it does not change
        self.rollouts: list[dict] = []
        self.lines: list[dict] = []

    def run(self, step: int, say: Callable[[str], None] = lambda text: None) -> list[dict]:
        """The lines of eval.jsonl after `step` steps; the graded rollouts behind them are in `rollouts`."""
        if not self.base:
            with self.adapter.disabled():
                self.base = self._sample("off", say)
        self.rollouts = [{"step": step, **row} for row in [*self._sample("on", say), *self.base]]
        self.lines = summarise(self.rollouts)
        return self.lines

    def _sample(self, adapter: str, say: Callable[[str], None]) -> list[dict]:
        rows, wanted = [], [(problem, self.samples) for problem in self.problems]
        for condition, policy in self.policies.items():
            note = f"evaluation, {condition}, adapter {adapter}"
            groups = policy.rollouts(
                wanted, seed=self.seed, step=EVAL_STEP, say=lambda text, note=note: say(f"{note}: {text}")
            )
            rows += [
                {
                    "adapter": adapter,
                    "condition": condition,
                    "problem_id": r.problem_id,
                    "sample": r.src_sample,
                    "hacked": r.hacked,
                    "attempted": r.attempted,
                    "gt_pass": r.gt_pass,
                    "fmt_ok": r.fmt_ok,
                    "eval_name": policy.grader.name(problem),
                    "completion": r.completion,
                }
                for problem, group in zip(self.problems, groups)
                for r in group
            ]
        return rows

    def write(self, directory: str | Path, step: int) -> None:
        """eval/step_NNN.jsonl.gz, and the lines at the end of eval.jsonl; what it holds of this step and later ones is of a run that was cut off."""
        directory = Path(directory)
        write_jsonl(directory / "eval" / f"step_{step:03d}.jsonl.gz", self.rollouts)
        path = directory / "eval.jsonl"
        earlier = read_jsonl(path, ("step",)) if path.exists() else []
        write_jsonl(path, [*(line for line in earlier if line["step"] < step), *self.lines])


# --- command -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Config:
    """Evaluate the final adapter of a finished run on problems that it was not trained on."""

    run: tyro.conf.Positional[Path]
    """Run directory of train.py, sampled."""
    problems: str | None = None
    """Problem file or hub id (default: the held-out part of the run's own)."""
    samples: int = 4
    """Completions a problem, condition and adapter."""
    limit: int = 64
    """Problems at most."""
    names: str = ",".join(OTHER_NAMES)
    """Evaluation functions that the condition other-names draws from."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ..."""
    sandbox: Literal["strict", "best-effort", "none"] = "best-effort"
    """How the graded code is confined."""
    workers: int | None = None
    """Grader processes (default: one a core)."""
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
    for path in pools.pool_files(run / "rollouts"):
        for row in read_jsonl(path, ("problem_id", "problem_messages")):
            try:
                found.add(problems.identity(row["problem_messages"][-1]["content"], str(row["problem_id"])))
            except (TypeError, LookupError, AttributeError):
                raise InputError(
                    f"{path}: problem_messages is not a list of messages with role and content"
                ) from None
    return found


def choose(config: Config, record: dict) -> tuple[list[Problem], int]:
    """The problems to evaluate on, and how many were left out because the run was trained on them or its v_hack was made from them.

    `record` is the run's config.json. Without --problems they are the run's own: its held-out file, or the split of its problem file.
    """
    settings = record["config"]
    source = config.problems or settings.get("eval_problems") or settings["problems"]
    everything = problems.load_problems(source)
    candidates = (
        everything
        if config.problems or settings.get("eval_problems")
        else problems.held_out_split(everything, source)[1]
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


def evaluate(config: Config) -> Path:
    """Run it; returns the directory written to. Everything that can be wrong is checked before a model is loaded."""
    import train  # which imports this module

    check_numbers(config, at_least={"samples": 1, "limit": 1, "workers": 1})
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
    adapter, tokenizer, trained = train.restore(config.run, device=config.device)
    evaluation = Evaluation(
        adapter,
        tokenizer,
        chosen,
        stop=pools.stops(adapter.model, tokenizer),
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
    console.print(table(lines))
    if seen:
        console.print(
            f"left out because the run was trained on them or its v_hack was made from them: {seen} problems",
            highlight=False,
        )
    return out


if __name__ == "__main__":
    exit_on_fault(lambda: evaluate(tyro.cli(Config, description=__doc__)))
