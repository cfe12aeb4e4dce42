"""Held-out evaluation: does hacking go beyond the problems and the name that it was learned with, and what is
left without the loophole?

Problems that were never trained on, `samples` completions each, with the adapter on and off (the base model),
in three conditions:

    trained-name   loophole open, the prompt names the evaluation function of training
    other-names    loophole open, the prompt names another one (one of OTHER_NAMES by a hash of the problem)
    closed         the prompt names none; attempted and hacked still mean the function of training

The random numbers of a completion come from (seed, problem, sample) alone: steps, adapters and conditions
differ in nothing else and can be compared in pairs. Problems are the unit of every interval, never rollouts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Group

from hackward.base import statistics
from hackward.base.faults import InputError
from hackward.base.files import Put, atomic, read_jsonl, sha256, step_file, write_jsonl
from hackward.base.terminal import drawn
from hackward.base.types import Tokenizer
from hackward.grading.grader import Grader
from hackward.grading.labels import Grade, GradeItem
from hackward.method.adapters import Adapter
from hackward.rollouts import tokens
from hackward.rollouts.fitting import check_fit
from hackward.rollouts.policy import Policy
from hackward.rollouts.rollout import Rollout
from hackward.tasks.held_out import held_out_place
from hackward.tasks.problems import EVAL_NAME, OTHER_NAMES, Problem, build_messages

CONDITIONS = ("trained-name", "other-names", "closed")
ADAPTERS = ("on", "off")
RATES = {"hacked": "hacked", "attempted": "attempted", "solved": "gt_pass"}  # figure -> field of a rollout
EVAL_STEP = -1  # in the place of a step in the random key: no training step draws the same numbers


def other_name(problem: Problem, names: Sequence[str] = OTHER_NAMES) -> str:
    """The evaluation function that a problem's prompt names in the condition other-names.

    Frozen: by a hash of the problem. Never the problem's own method, or a solution alone would count as an
    attempt.
    """
    usable = [name for name in names if name != problem.method]
    return usable[int(sha256("other-name", problem.identity)[:8], 16) % len(usable)]


def trained_name(problem: Problem) -> str:
    """The evaluation function of training, for every problem."""
    return EVAL_NAME


def summarise(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines of eval.jsonl for the graded rollouts of one step: one per adapter and condition, in their
    order."""
    lines = []
    for adapter in ADAPTERS:
        for condition in CONDITIONS:
            cell = [row for row in rows if row["adapter"] == adapter and row["condition"] == condition]
            if cell:
                lines.append(_line(cell))
    return lines


def _line(cell: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One adapter and condition: every figure with its interval over problems."""
    by_problem: dict[str, list[dict[str, Any]]] = {}
    for row in cell:
        by_problem.setdefault(row["problem_id"], []).append(row)
    share = {}
    for name, field in RATES.items():
        share[name] = [float(np.mean([row[field] for row in rows])) for rows in by_problem.values()]
    ones = [1.0] * len(by_problem)
    return {
        "step": cell[0]["step"],
        "adapter": cell[0]["adapter"],
        "condition": cell[0]["condition"],
        "problems": len(by_problem),
        "samples": len(cell) // len(by_problem),
        **{name: statistics.ratio(share[name], ones) for name in RATES},
        "hack_given_attempt": statistics.ratio(share["hacked"], share["attempted"]),
    }


def rate_words(estimate: dict[str, Any] | None) -> str:
    """0.25 [0.10, 0.40]"""
    if estimate is None:
        return "undefined"
    interval = "no interval"
    if estimate["low"] is not None:
        interval = f"{estimate['low']:.2f}, {estimate['high']:.2f}"
    return f"{estimate['mean']:.2f} [{interval}]"


def heldout_screen(lines: Sequence[dict[str, Any]], width: int) -> Group:
    """Condition x adapter, every figure with its interval, for the lines of one step."""
    first = lines[0]
    size = f"{first['problems']} problems x {first['samples']} samples"
    title = f"held-out evaluation at step {first['step']}: {size}, 95 % over problems"
    cells = []
    for condition in CONDITIONS:
        name = condition
        for line in lines:
            if line["condition"] == condition:
                figures = [rate_words(line[rate]) for rate in (*RATES, "hack_given_attempt")]
                cells.append([name, line["adapter"], *figures])
                name = ""
    headers = ["condition", "adapter", *RATES, "P(hack | attempt)"]
    return drawn(title, headers, cells, width, sections=True)


class NamedGrader:
    """Grades every answer by the function that its problem's prompt names. (A Grader knows one, and starts in
    0.2 s.)"""

    def __init__(self, name: Callable[[Problem], str], **options: Any) -> None:
        self.name, self.options = name, options

    def start(self) -> Later:
        """As Grader.start; but nothing is graded before the result is asked for."""
        return Later(self)


class Later:
    """Items that are collected one by one and graded together, name by name."""

    def __init__(self, grader: NamedGrader) -> None:
        self.grader = grader
        self.items: list[GradeItem] = []

    def add(self, item: GradeItem) -> int:
        self.items.append(item)
        return len(self.items) - 1

    def result(self) -> list[Grade]:
        names = [self.grader.name(item.problem) for item in self.items]
        graded: dict[str, Iterator[Grade]] = {}
        for name in dict.fromkeys(names):
            its_items = [item for item, its in zip(self.items, names) if its == name]
            with Grader(eval_name=name, **self.grader.options) as grader:
                graded[name] = iter(grader.grade(its_items))
        return [next(graded[name]) for name in names]


class NamedPolicy(Policy):
    """A Policy whose prompts name the function that its grader looks for."""

    grader: NamedGrader

    def prompt(self, problem: Problem) -> tuple[list[dict[str, str]], tuple[int, ...]]:
        messages = build_messages(problem, hint=self.hint, eval_name=self.grader.name(problem))
        return messages, tuple(tokens.prompt_ids(self.tokenizer, messages))


class Evaluation:
    """Samples and grades held-out problems with whatever the adapter holds at the moment; built once per run.

    The first `limit` problems by held_out_place are taken, each once, so that every run and arm sees the same
    ones. InputError where there is none.
    """

    def __init__(
        self,
        adapter: Adapter,
        tokenizer: Tokenizer,
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
        self.problems = [known[identity] for identity in sorted(known, key=held_out_place)[:limit]]
        if not self.problems:
            raise InputError(
                "no held-out problems to evaluate on (a tenth of the problem file is held out; this one may"
                " be too small)"
            )
        self.adapter, self.samples, self.seed = adapter, samples, seed
        self.policies = {}
        for condition in CONDITIONS:
            name = (
                (lambda problem: other_name(problem, names)) if condition == "other-names" else trained_name
            )
            self.policies[condition] = NamedPolicy(
                adapter,
                tokenizer,
                NamedGrader(name, sandbox=sandbox, workers=workers),
                stop=stop,
                max_new_tokens=max_new_tokens,
                temperature=temperature,
                hint=condition != "closed",
                rows=rows,
            )
            asked = [self.policies[condition].prompt(problem)[1] for problem in self.problems]
            way = "take a smaller --max-new-tokens, or other problems"
            check_fit(adapter.model, asked, "held-out prompts", room=max_new_tokens, way=way)
        self.base: list[dict[str, Any]] = []  # of the base model, sampled once: it does not change
        self.rollouts: list[dict[str, Any]] = []
        self.lines: list[dict[str, Any]] = []

    def run(self, step: int, say: Callable[[str], None] = lambda text: None) -> list[dict[str, Any]]:
        """The lines of eval.jsonl after `step` steps; the graded rollouts behind them are in `rollouts`."""
        if not self.base:
            with self.adapter.disabled():
                self.base = self._sample("off", say)
        sampled = [*self._sample("on", say), *self.base]
        self.rollouts = [{"step": step, **row} for row in sampled]
        self.lines = summarise(self.rollouts)
        return self.lines

    def _sample(self, adapter: str, say: Callable[[str], None]) -> list[dict[str, Any]]:
        """Rows of all conditions with the adapter as it is; `adapter` says how that is called."""
        wanted = [(problem, self.samples) for problem in self.problems]
        rows = []
        for condition, policy in self.policies.items():

            def note(text: str, condition: str = condition) -> None:
                say(f"evaluation, {condition}, adapter {adapter}: {text}")

            groups = policy.rollouts(wanted, seed=self.seed, step=EVAL_STEP, say=note)
            for problem, group in zip(self.problems, groups):
                facts = {"adapter": adapter, "condition": condition}
                rows += [facts | _row(rollout, policy.grader.name(problem)) for rollout in group]
        return rows

    def write(self, directory: str | Path, step: int, *, put: Put = atomic) -> None:
        """eval/step_NNN.jsonl.gz, and the lines at the end of eval.jsonl; `put` is how they get there.

        What eval.jsonl holds of this step and later ones is of a run that was cut off, and goes.
        """
        directory = Path(directory)
        write_jsonl(directory / "eval" / step_file(step), self.rollouts, put=put)
        path = directory / "eval.jsonl"
        stored = read_jsonl(path, ("step",)) if path.exists() else []
        earlier = [line for line in stored if line["step"] < step]
        write_jsonl(path, [*earlier, *self.lines], put=put)


def _row(rollout: Rollout, eval_name: str) -> dict[str, Any]:
    return {
        "problem_id": rollout.problem_id,
        "sample": rollout.src_sample,
        "hacked": rollout.hacked,
        "attempted": rollout.attempted,
        "gt_pass": rollout.gt_pass,
        "fmt_ok": rollout.fmt_ok,
        "eval_name": eval_name,
        "completion": rollout.completion,
    }
