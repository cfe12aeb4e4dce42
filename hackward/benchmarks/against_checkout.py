"""This tree's grader against another checkout's, on the same rows in the same run, by turns."""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from hackward.base.faults import InputError
from hackward.base.files import ROOT
from hackward.base.provenance import git
from hackward.benchmarks.checkout_grader import layout_of
from hackward.grading.labels import GradeItem

SCRIPT = Path(__file__).with_name("checkout_grader.py")


class CheckoutGrader:
    """The grader of a checkout, in a process with the checkout's own code."""

    def __init__(self, repo: Path, arguments: Sequence[str]) -> None:
        self.repo = repo
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(SCRIPT), str(repo), *arguments],
            cwd=repo,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> CheckoutGrader:
        self._answer()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.communicate()  # no more lines: it ends by itself

    def round(self) -> dict[str, Any]:
        """Grade all rows once: {"seconds", "labels"}."""
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        """The next line. InputError with the last thing that it said, where it ended instead."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if line:
            return json.loads(line)
        said = self.process.communicate()[1].strip().splitlines() or ["it ended without a word"]
        raise InputError(f"{self.repo}: its grader does not work here: {said[-1]}")


@contextlib.contextmanager
def both(repo: Path, arguments: Sequence[str]) -> Iterator[tuple[CheckoutGrader, CheckoutGrader]]:
    """The grader of this tree and that of the other, each in a process of its own."""
    with CheckoutGrader(ROOT, arguments) as ours, CheckoutGrader(repo, arguments) as other:
        yield ours, other


def refuse_other_projects(repo: Path) -> None:
    """InputError where the directory holds no grader of this project."""
    if layout_of(repo) is None:
        raise InputError(f"{repo}: --baseline must be a checkout of this project; no grader is there")


def place(problems: str) -> str:
    """A file by its whole path, which holds in any directory; a hub id as it is."""
    return str(Path(problems).resolve()) if Path(problems).exists() else problems


def against(
    repo: Path, items: Sequence[GradeItem], problems: str, *, workers: int, sandbox: str, repeats: int
) -> dict:
    """Completions per second (full label) of both, round by round, and the ratio, ours to the other's.

    Who goes first changes from round to round. InputError where the other's grader fails.
    """
    repo = repo.resolve()
    seconds: dict[str, list[float]] = {"ours": [], "other": []}
    labels: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory() as directory:
        rows = Path(directory, "rows.json")
        rows.write_text(json.dumps([(item.problem.problem_id, item.completion) for item in items]))
        arguments = [place(problems), str(rows), str(workers), sandbox]
        with both(repo, arguments) as (ours, other):
            turns = [("ours", ours), ("other", other)]
            for _ in range(repeats):
                for name, grader in turns:
                    answer = grader.round()
                    seconds[name].append(answer["seconds"])
                    labels[name] = answer["labels"]
                turns.reverse()
    ratios = [theirs / mine for mine, theirs in zip(seconds["ours"], seconds["other"], strict=True)]
    same = sum(mine == theirs for mine, theirs in zip(labels["ours"], labels["other"], strict=True))
    return {
        "repo": str(repo),
        "commit": git("-C", str(repo), "rev-parse", "HEAD"),
        "count": len(items),
        "ours": [len(items) / taken for taken in seconds["ours"]],
        "other": [len(items) / taken for taken in seconds["other"]],
        "ratios": ratios,
        "ratio": statistics.median(ratios),
        "same_labels": same,
    }


def against_words(found: dict) -> str:
    """One sentence."""
    commit = f" (commit {found['commit'][:10]})" if found["commit"] else ""
    ours, other = (statistics.median(found[name]) for name in ("ours", "other"))
    return (
        f"against {found['repo']}{commit}, {found['count']} real rollouts, full label, {len(found['ratios'])}"
        f" rounds by turns: {ours:.0f} completions a second, there {other:.0f}; ratio {found['ratio']:.2f}"
        f" ({min(found['ratios']):.2f} to {max(found['ratios']):.2f}); {found['same_labels']} labels are the"
        " same"
    )
