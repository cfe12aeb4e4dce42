"""The least that a model can be extracted from and trained with: short pairs, and a problem file of one
problem."""

import json

import pytest

import extract_vhack
import train
from hackward.base.flags import command_line
from hackward.runs.settings import parse

PROMPT = "Write f."


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="session")
def desk(tmp_path_factory):
    """Two short pairs with prompts of their own, and a problem file of one short problem."""
    home = tmp_path_factory.mktemp("desk")
    pairs = [
        {"problem_id": str(i), "prompt": PROMPT + " " * i, "hack": f"run {i}", "clean": f"return {i + 3}"}
        for i in range(3)
    ]
    write_lines(home / "pairs.jsonl", pairs)
    problem = {
        "problem_id": "plus-1",
        "difficulty": "easy",
        "statement": "Add 1.",
        "starter_code": "class Solution:\n    def f(self, x: int) -> int:\n",
        "method": "f",
        "setup_code": "",
        "tests": ["candidate(x = 1) == 2"],
    }
    write_lines(home / "problems.jsonl", [problem])
    return home


def extract(desk, model, out, *flags):
    """extract_vhack.py on the desk's pairs."""
    argv = [f"--model={model}", f"--pairs={desk / 'pairs.jsonl'}", f"--out={out}", "--svd-cache=None"]
    argv += ["--device=cpu", "--permutations=2", *flags]
    extract_vhack.main(command_line(extract_vhack.ExtractFlags, argv=argv))
    return out


def run(desk, model, out, *flags):
    """train.py for one step of one group on the desk's problem."""
    argv = [f"--model={model}", f"--problems={desk / 'problems.jsonl'}", f"--out={out}", "--device=cpu"]
    argv += [
        "--preset=smoke",
        "--teacher-dir=none",
        "--teacher-rows=1",
        "--prompts=1",
        "--group=2",
        "--steps=1",
    ]
    argv += ["--max-new-tokens=3", "--eval-samples=0", "--workers=1", "--svd-cache=None", "--v-hack=none"]
    return train.train(parse([*argv, *flags]))
