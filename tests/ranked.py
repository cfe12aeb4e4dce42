"""Runs of train.py as the ranks that torchrun would start, in forks of one process that has imported the
libraries.

HOME/work.json: phases, one after the other. Each maps a number of processes to the commands that these run in
turn; what they say goes to HOME/said-PHASE-NUMBER.txt. HOME/codes.json: their exit codes.

What a completion is worth does not depend on its text, so that the groups of a model with random weights hold
hacks, solutions and wrong answers. The real grader has tests of its own, and starting it takes as long as a
run.
"""

from __future__ import annotations

import functools
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch._dynamo  # the optimizer imports it when it is made
import torch.distributed as dist

import extract_vhack
from hackward.base.faults import exit_on_fault
from hackward.base.files import read_json, write_json
from hackward.base.flags import command_line
from hackward.grading.fences import die_with_parent
from hackward.grading.labels import Grade, label_of
from hackward.hardware import models
from hackward.rollouts.policy import Policy
from hackward.runs import building, screens  # noqa: F401  (train.py imports it when it begins)
from hackward.runs.settings import parse
from hackward.tasks.shipped import TINY
from train import train

KINDS = {"hack": (False, True), "solution": (True, False), "wrong": (False, False)}  # solved, hacked
UNPROTECTED = {"sandbox": "none", "seccomp": False, "landlock_abi": None, "bubblewrap": False}
UNPROTECTED |= {"view": "", "user": "test", "probes": {}, "missing": []}


class Known:
    """Grades by the words of KINDS: a grader, and a batch under way to its grades."""

    protection = UNPROTECTED

    def __init__(self, **options):
        self.grades = []

    def __enter__(self):
        return self

    def __exit__(self, *fault):
        return

    def start(self):
        return Known()

    def add(self, item):
        solved, hacked = KINDS[item.completion]
        label = label_of(solved, hacked, hacked)
        self.grades.append(Grade(True, solved, hacked, hacked, hacked, None, label, None))
        return len(self.grades) - 1

    def result(self):
        return self.grades


class Short(Policy):
    """Draws after the last tokens of a prompt, as many as its statement has letters, and up to one of many
    tokens; its samples are by turns a hack, a solution and wrong."""

    def __init__(self, *given, stop, **named):
        super().__init__(*given, stop=[*stop, *range(0, 250, 5)], **named)

    def prompt(self, problem):
        messages, ids = super().prompt(problem)
        return messages, ids[-len(problem.statement) :]

    def text(self, problem, ids, sample):
        return list(KINDS)[sample % len(KINDS)]


COMMANDS = {
    "train.py": lambda flags: train(parse(flags), policy=Short),
    "extract_vhack.py": lambda flags: extract_vhack.main(
        command_line(extract_vhack.ExtractFlags, argv=flags)
    ),
}


def as_rank(rank: int, size: int, port: int) -> None:
    """What torchrun tells a process. The store is its agent's, here the parent's."""
    facts = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": size}
    facts |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_USE_AGENT_STORE": True}
    facts |= {"TORCHELASTIC_RUN_ID": f"test-{port}", "TORCHELASTIC_RESTART_COUNT": 0}
    os.environ.update({name: str(fact) for name, fact in facts.items()})


def forked(work: Callable[[], object], said: Path) -> int:
    """A process that does this, its output in `said`; its number."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        die_with_parent()
        torch.set_num_threads(1)
        with open(said, "a") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        exit_on_fault(work)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def made(rank: int, size: int, runs: Sequence[Sequence[str]], ports: Sequence[int]) -> None:
    """This rank's part of the runs."""
    for (command, *flags), port in zip(runs, ports, strict=True):
        if size > 1:
            as_rank(rank, size, port)
        COMMANDS[command](flags)


def phase(number: int, work: dict[str, list[list[str]]], home: Path) -> dict[str, list[int]]:
    """All groups of processes at the same time; their exit codes, by the number of processes."""
    stores, groups = [], {}
    for words, runs in work.items():
        own = [dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False) for _ in runs]
        stores += own  # they serve as long as they are held
        ports, size, said = [store.port for store in own], int(words), home / f"said-{number}-{words}.txt"
        parts = [functools.partial(made, rank, size, runs, ports) for rank in range(size)]
        groups[words] = [forked(part, said) for part in parts]
    return {words: [exit_code(child) for child in group] for words, group in groups.items()}


def exit_code(child: int) -> int:
    """When it has ended."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(home: Path) -> None:
    building.Grader = Known
    models.load(TINY, device="cpu")  # transformers imports a family when it is first used
    phases = enumerate(read_json(home / "work.json"))
    write_json(home / "codes.json", [phase(number, work, home) for number, work in phases])
