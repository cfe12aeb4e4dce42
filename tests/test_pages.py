"""Claims about the form of the pages: lines wrap, links lead somewhere, flags exist, words are defined."""

import re
import runpy
import sys
from functools import cache
from typing import get_args

import pytest

from hackward.base.arms import ArmFlag, Control, Gate, Intervene, MonitorName
from hackward.reports.directories import find_directories
from hackward.reports.plots import PICTURES
from hackward.reports.report import TABLE_NAMES
from tests.conftest import ROOT
from tests.runs_on_disk import row, write_run

WIDTH = 110
NOT_COMMANDS = {"antipasto.py", "lora_adapter.py"}
COMMANDS = sorted(path.name for path in ROOT.glob("*.py") if path.name not in NOT_COMMANDS)
# Programs that are not ours, and flags of theirs (torchrun, pip)
FOREIGN_PROGRAM = re.compile(r"\b(pip|srun|sbatch|SBATCH|apt-get)\b|python -m ")
FOREIGN = {"--nproc-per-node", "--nnodes", "--max-restarts", "--index-url"}
# Reports and cards are printed by commands; each is as the program of its day wrote it
PRINTED = re.compile(r"(report|card[^/]*)\.md")
PAGES = sorted(
    str(path.relative_to(ROOT))
    for path in [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "data/README.md",
        *ROOT.glob("spec/**/*.md"),
    ]
    if not PRINTED.fullmatch(path.name)
)
# The log tells of flags as they were
CURRENT = [page for page in PAGES if page != "spec/log.md"]
FENCED = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)


def prose(page):
    """The page without fenced code."""
    return FENCED.sub("", (ROOT / page).read_text())


def anchors(page):
    """The names under which a page's headings can be linked to, by GitHub's rule."""
    headings = re.findall(r"^#+ (.*)$", prose(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def dead_links(page):
    """Relative links of a page to a file or heading that does not exist."""
    text = re.sub(r"`[^`]*`", "", prose(page))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = ((ROOT / page).parent / name).resolve() if name else ROOT / page
        there = file.exists() and (not anchor or anchor in anchors(file.relative_to(ROOT)))
        if not there:
            yield target


@cache
def flags_of(command):
    """All flags in a command's --help, printed in this process: starting one costs ten times as much."""
    told = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [command, "--help"])
        patch.setattr(sys.stdout, "write", told.append)
        with pytest.raises(SystemExit):
            runpy.run_path(str(ROOT / command), run_name="__main__")
    return set(re.findall(r"--[a-z][a-z0-9-]*", "".join(told)))


def code(page):
    """Each piece of code in a page: in backticks, or a command in an indented block with its continuation."""
    text = prose(page)
    blocks = re.findall(r"(?:^    .*\n)+", text, flags=re.MULTILINE)
    for block in blocks:
        yield from re.sub(r"\\\n", " ", block).splitlines()
    yield from re.findall(r"`([^`]+)`", re.sub(r"^    .*$", "", text, flags=re.MULTILINE))


def unknown_flags(piece):
    """Flags of a piece of code that the command it names does not have; without a command, that none has."""
    piece = piece.partition(" # ")[0]
    scripts = re.findall(r"[\w./]+\.(?:py|sh)\b", piece)
    if any(script not in COMMANDS for script in scripts) or FOREIGN_PROGRAM.search(piece):
        return set()
    for_train = set()
    if "sweep.py" in scripts:
        piece, _, after = piece.partition(" -- ")
        for_train = named_flags(after) - flags_of("train.py")
    known = set().union(*map(flags_of, scripts or COMMANDS), FOREIGN)
    return (named_flags(piece) - known) | for_train


def named_flags(piece):
    """--flag, in whatever way it goes on."""
    return set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", piece))


def glossary():
    """The terms that the glossary defines: first column, terms separated by commas."""
    (part,) = re.findall(r"^## Glossary\n(.*?)^## ", prose("spec/method.md"), flags=re.MULTILINE | re.DOTALL)
    cells = re.findall(r"^\| ([^|]+) \|", part, flags=re.MULTILINE)
    return {term.strip(" `*") for cell in cells for term in cell.split(",")}


@pytest.mark.parametrize("page", [*PAGES, "run.sh", "reproduce.sh"])
def test_lines_wrap(page):
    lines = [line for line in prose(page).splitlines() if not line.startswith("|")]
    assert [line for line in lines if len(line) > WIDTH] == []


@pytest.mark.parametrize("page", PAGES)
def test_relative_links_lead_to_a_file_and_a_heading(page):
    assert list(dead_links(page)) == []


def test_every_command_is_in_the_readme_s_table_with_what_it_does():
    rows = re.findall(r"^\| `(?:\./)?([\w.]+)` \| (.+) \|$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert sorted(name for name, _ in rows) == sorted([*COMMANDS, "run.sh", "reproduce.sh"])


def test_the_readme_is_read_in_two_minutes():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


@pytest.mark.parametrize("page", CURRENT)
def test_the_flags_of_the_pages_exist(page):
    unknown = {piece: flags for piece in code(page) if (flags := unknown_flags(piece))}
    assert unknown == {}


@pytest.mark.parametrize("page", PAGES)
def test_rates_are_said_with_per(page):
    units = "tests|seconds|rows|rollouts|tokens|directions|hours|kernels|bytes|completions|launch"
    of = "step|problem|prompt|card|token|run|row|rollout|second|group|GPU|card|node|layer|sample|micro-batch"
    assert re.findall(rf"\b(?:{units}|\d ?s) an? (?:{of})\b", " ".join(prose(page).split())) == []


def test_the_glossary_has_the_names_that_flags_choose_by():
    names = {name for words in (ArmFlag, MonitorName, Control, Gate, Intervene) for name in get_args(words)}
    assert sorted(names - glossary() - {"none"}) == []


@pytest.mark.parametrize("term", ["hacked", "attempted", "solved", "Phase 1", "H1", "organism", "delta_W"])
def test_the_glossary_has_the_words_of_the_reports(term):
    assert term.replace("delta_W", "Delta W") in glossary()


def test_every_picture_of_a_report_is_explained():
    text = (ROOT / "spec/reading.md").read_text()
    assert [name for name in PICTURES if f"`{name}`" not in text] == []


def test_the_page_on_reading_names_every_flag_of_the_command_that_it_explains():
    told = {flag.replace("--no-", "--") for piece in code("spec/reading.md") for flag in named_flags(piece)}
    wanted = {flag.replace("--no-", "--") for flag in flags_of("analyze.py")} - {"--help"}
    assert sorted(wanted - told) == []


def test_the_files_of_a_report_that_its_page_names_are_files_that_it_writes():
    named = {name for piece in code("spec/reading.md") for name in re.findall(r"\b\w+\.(?:csv|png)\b", piece)}
    assert named and sorted(named - {f"{name}.csv" for name in TABLE_NAMES} - set(PICTURES)) == []


def test_the_page_on_reading_says_of_unfinished_runs_what_the_command_does(tmp_path):
    """Left out beside a finished one; shown, and marked, where none is finished or with the flag."""
    write_run(tmp_path / "cut", "sampled", [row()], finished=False)
    for _ in range(2):
        shown, left_out = find_directories(tmp_path)
        done = (tmp_path / "done").exists()
        assert (tmp_path / "cut" in shown) == (not done) and len(left_out) == done
        assert tmp_path / "cut" in find_directories(tmp_path, take_unfinished=True)[0]
        write_run(tmp_path / "done", "sampled", [row()])
    said = " ".join(prose("spec/reading.md").partition("**Width.**")[0].split())
    assert "Other runs are named and left out" in said
    assert (
        "Where no run is finished, or with `--unfinished`, unfinished runs that have a step are shown" in said
    )


RESULTS = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("spec/results/*/README.md"))


@pytest.mark.parametrize("page", RESULTS)
def test_a_result_is_question_command_table_verdict_caveats(page):
    parts = re.findall(r"^#{2,3} (Question|Command|Table|Verdict|Caveats)$", prose(page), flags=re.MULTILINE)
    whole = ["Question", "Command", "Table", "Verdict", "Caveats"]
    assert parts == whole * (len(parts) // 5 or 1)
