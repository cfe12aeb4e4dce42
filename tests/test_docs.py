"""Claims about the documents: their figures are the stored tables' figures, and their commands parse."""

import csv
import re
import shlex

import pytest
import tyro

import extract_vhack
import probe_distill
import train
from tests.conftest import ROOT

RESULTS = ROOT / "spec" / "results" / "2026-11-22-qwen2.5-coder-0.5b"


def window():
    with open(RESULTS / "on_policy" / "on_policy_window.csv", newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize("label", ["vanilla", "projected grad", "projected update"])
def test_the_figures_of_the_readmes_are_those_of_the_stored_table(label):
    (row,) = [r for r in window() if r["run"].removesuffix(" (unfinished)") == label]
    name = label.replace(" grad", ", gradient").replace(" update", ", update")
    rates = [f"{float(row[key]):.3f}" for key in ("hack_rate", "gt_rate", "attempt_rate")]
    cosines = [f"{float(row[key]):+.3f}" for key in ("cos_in", "cos_update")]
    assert f"| {name} | {' | '.join(rates + cosines)} |" in (ROOT / "README.md").read_text()
    (line,) = [line for line in (ROOT / "spec/results/README.md").read_text().splitlines() if line.startswith((f"| {name} |", f"| {name}, one-sided |"))]
    assert line.split(" | ")[1::2] == rates


def commands(path, script):
    text = (ROOT / path).read_text().replace("\\\n", " ")
    for line in re.findall(rf"^    (?:python )?{re.escape(script)} ([^#\n]*)", text, flags=re.MULTILINE):
        line = re.sub(r"\[[^]]*\]", "", line.split(";")[0]).strip()
        yield shlex.split(line.replace("--arm ARM", "--arm vanilla"))


@pytest.mark.parametrize("path", ["README.md", "spec/results/README.md"])
def test_the_commands_of_the_readmes_parse(path):
    parsers = {"train.py": train.parse, "probe_distill.py": lambda a: tyro.cli(probe_distill.Config, args=a),
               "extract_vhack.py": lambda a: tyro.cli(extract_vhack.Config, args=a)}
    found = [parser(arguments) for script, parser in parsers.items() for arguments in commands(path, script)]
    assert len(found) >= 4


def test_every_module_is_in_the_readme_s_table():
    readme = (ROOT / "README.md").read_text()
    assert [p.name for p in sorted(ROOT.glob("*.py")) if f"`{p.name}`" not in readme] == []
