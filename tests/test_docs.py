"""Claims about the documents: their figures are the stored tables' figures, and their commands parse."""

import csv
import re
import shlex

import pytest

import audit
import extract_vhack
import probe_distill
from hackward.base.flags import command_line
from hackward.runs.settings import parse
from hackward.scheduling.flags import SweepFlags
from tests.conftest import ROOT

RESULTS = ROOT / "spec" / "results" / "2026-11-22-qwen2.5-coder-0.5b"


def window():
    with open(RESULTS / "on_policy" / "on_policy_window.csv", newline="") as stream:
        return list(csv.DictReader(stream))


def records(path):
    with open(ROOT / "spec" / "results" / path, newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize("label", ["vanilla", "projected grad", "projected update"])
def test_the_figures_of_the_results_page_are_those_of_the_stored_table(label):
    (row,) = [r for r in window() if r["run"].removesuffix(" (unfinished)") == label]
    name = label.replace(" grad", ", gradient").replace(" update", ", update")
    rates = [f"{float(row[key]):.3f}" for key in ("hack_rate", "gt_rate", "attempt_rate")]
    (line,) = [
        line
        for line in (ROOT / "spec/results/README.md").read_text().splitlines()
        if line.startswith((f"| {name}, one-sided |", f"| {name} |"))
        and line.count(" | ") == 6
        and "," not in line.split(" | ")[1]
    ]
    assert line.split(" | ")[1::2] == rates


def test_the_arms_of_the_readme_are_those_of_the_stored_table():
    readme = (ROOT / "README.md").read_text()
    stored = records("2026-11-22-embedded/arms.csv")
    for arm in ("vanilla", "projected", "projected random"):
        cells = [
            f"{float(r['last5_mean']):.2f} [{float(r['last5_low']):.2f}, {float(r['last5_high']):.2f}]"
            for r in stored
            if r["arm"] == arm
        ]
        assert f"| {arm} | {' | '.join(cells)} |" in readme


def test_the_controls_of_the_readme_are_those_of_the_stored_table():
    readme = (ROOT / "README.md").read_text()
    for row in records("2026-11-23-qwen2.5-coder-0.5b-controls/on_policy.csv"):
        cells = [
            f"{float(row[key]):.3f}" for key in ("hack_rate_last5", "hack_rate_area", "gt_rate_last5")
        ] + [row["time_to_hack"]]
        assert f"| {row['run'].partition(' v_pool')[0]} | {' | '.join(cells)} |" in readme


def commands(path, script):
    text = (ROOT / path).read_text().replace("\\\n", " ")
    for line in re.findall(rf"^    (?:python )?{re.escape(script)} ([^#\n]*)", text, flags=re.MULTILINE):
        line = re.sub(r"\[[^]]*\]", "", line.split(";")[0]).strip()
        yield shlex.split(line.replace("--arm ARM", "--arm vanilla"))


@pytest.mark.parametrize("path", ["README.md", "spec/results/README.md"])
def test_the_commands_of_the_readmes_parse(path):
    parsers = {
        "train.py": parse,
        "audit.py": lambda a: command_line(audit.AuditFlags, argv=a),
        "sweep.py": lambda a: command_line(SweepFlags, argv=a[: (a + ["--"]).index("--")]),
        "probe_distill.py": lambda a: command_line(probe_distill.ProbeFlags, argv=a),
        "extract_vhack.py": lambda a: command_line(extract_vhack.ExtractFlags, argv=a),
    }
    found = [parser(arguments) for script, parser in parsers.items() for arguments in commands(path, script)]
    assert len(found) >= 4


def test_every_module_is_in_the_readme_s_table():
    readme = (ROOT / "README.md").read_text()
    assert [p.name for p in sorted(ROOT.glob("*.py")) if f"`{p.name}`" not in readme] == []
