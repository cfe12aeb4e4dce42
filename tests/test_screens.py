"""What a person sees, at 40, 80 and 200 columns: nothing is cut off, no word is broken, bars stay whole."""

from __future__ import annotations

import ast
import inspect
import io
import os
import pty
import re
import shlex
import subprocess
import sys

import pytest
from rich.console import Console

import audit
import grade
import sweep
import train
from hackward.base import screen
from hackward.base.files import ROOT
from hackward.base.flags import command_line, one_line
from hackward.base.helptexts import texts_below, unbroken
from hackward.base.lines import description, shell_lines
from hackward.base.markdown import aligned_table
from hackward.base.screen import final_screen, progress, say, stdout
from hackward.base.statistics import Estimate
from hackward.base.terminal import GOES_ON, drawn, flowed
from hackward.organisms.behaviour import report_behaviour
from hackward.reports.tables import Heading, Table, markdown, print_blocks, shown
from hackward.reports.words import tight
from hackward.runs.heldout import CONDITIONS, heldout_screen
from hackward.runs.screens import SHOWN_RATES, step_facts
from hackward.scheduling.flags import SweepFlags
from train import Config

WIDTHS = (40, 80, 200)
HOSTILE = "a|b\\|c\n| d |<script>\x1b[2Jx`"
ROW = {
    "step": 7, "reward_mean": 1.75, "reward_spread": 3.5, "hack_rate": 0.5, "gt_rate": 0.125,
    "attempt_rate": None, "cos_in": 0.172, "cos_out": -0.123, "cos_update": None,
    "cos_in_null": [-0.18, 0.18], "cos_out_null": [-0.11, 0.11], "cos_update_null": None,
    "groups_used": 1, "groups_skipped": 0, "seconds": 24.0,
}  # fmt: skip


def terminal(width: int, monkeypatch) -> Console:
    """A terminal of this width in the place of stderr."""
    monkeypatch.delenv("COLUMNS", raising=False)
    console = Console(file=io.StringIO(), force_terminal=True, width=width, height=50, color_system=None)
    monkeypatch.setattr(screen, "STDERR", console)
    return console


def printed(console: Console) -> str:
    return console.file.getvalue()  # type: ignore[attr-defined]


def words(text: str) -> list[str]:
    return text.split()


# ---------------------------------------------------------------------- lines
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", ["sampled", "replay"])
def test_a_step_line_is_broken_between_its_facts_and_keeps_every_word(width, kind, monkeypatch):
    console, facts = terminal(width, monkeypatch), step_facts(ROW, kind)
    say(*facts, head="step   7  ")
    lines = printed(console).splitlines()
    assert max(map(len, lines)) <= width
    assert words(" ".join(lines)) == words("step 7 " + " ".join(facts))
    assert all(any(fact in line for line in lines) for fact in facts if len(fact) < 30)


def test_a_step_of_replayed_rows_never_speaks_as_if_the_model_had_answered():
    replayed, sampled = (" ".join(step_facts(ROW, kind)) for kind in ("replay", "sampled"))
    for words_of in SHOWN_RATES.values():
        assert words_of["sampled"] in sampled and words_of["sampled"] not in replayed
    assert "rows that hack 0.50" in replayed and "rows that attempt -" in replayed


@pytest.mark.parametrize("width", WIDTHS)
def test_the_final_screen_fits_and_a_path_to_be_copied_stays_whole(width, monkeypatch):
    console = terminal(width, monkeypatch)
    path = "/a/very/long/path/" + "run-" * 60
    final_screen(
        {"run": ["commit abc dirty", path], "check": ["identity 0", "cos_in +0.172 [-0.18 +0.18]"]}, console
    )
    lines = printed(console).splitlines()
    assert path in [line.strip() for line in lines]
    assert max(len(line) for line in lines if "run-run" not in line) <= width
    assert all(line.startswith(("run  ", "check  ", " " * 8)) for line in lines if line)


def test_in_a_log_a_line_stays_one_line_and_with_columns_it_is_broken(monkeypatch, capsys):
    say("x " * 100)
    monkeypatch.setenv("COLUMNS", "80")
    say("x " * 100)
    first, *rest = capsys.readouterr().err.splitlines()
    assert len(first) > 190 and len(rest) == 3 and max(map(len, rest)) <= 80


def test_a_pipe_has_the_width_that_it_is_told(monkeypatch, capsys):
    assert stdout().width == 120
    monkeypatch.setenv("COLUMNS", "80")
    assert stdout().width == 80


def test_brackets_and_control_characters_of_others_are_shown_and_not_obeyed(monkeypatch):
    console = terminal(80, monkeypatch)
    say("[bold]x[/] [/nothing] \x1b[2J\r")
    assert printed(console) == "[bold]x[/] [/nothing] \\x1b[2J\\x0d\n"


@pytest.mark.parametrize("width", [20, 40, 80])
def test_a_command_on_several_lines_is_still_the_same_command(width):
    command = "  python train.py --model='a b c d e f g h i j k' --out=\"x y\" --arm=projected --steps=60"
    lines = shell_lines(command, width)
    assert len(lines) > 1 and all(line.endswith(" \\") for line in lines[:-1])
    assert shlex.split("\n".join(lines).replace("\\\n", "")) == shlex.split(command)


# ---------------------------------------------------------------------- bars
class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("done", [0, 100])
def test_after_one_slow_step_the_bar_says_how_long_the_rest_takes(width, done, monkeypatch):
    console, clock = terminal(width, monkeypatch), Clock()
    monkeypatch.setattr(screen, "CLOCK", clock)
    with progress("projected, seed 41", 200, done=done) as bar:
        bar.say("evaluation, trained-name, adapter off: sampling, token 104")
        clock.now += 24
        bar()
        bar._bar.refresh()
        shows = printed(console)
    remaining = {0: "1:19:36", 100: "0:39:36"}[done]
    assert f"{done + 1}/200 0:00:24 {remaining}" in " ".join(shows.split()), shows[-300:]
    assert "…" not in shows
    shows = re.sub(r"\x1b\[\??\d*\w", "", shows)
    assert all(word in words(shows) for word in ("projected,", "41", "trained-name,", "sampling,"))


def test_a_total_that_is_known_late_does_not_lose_the_remaining_time(monkeypatch):
    console, clock = terminal(80, monkeypatch), Clock()
    monkeypatch.setattr(screen, "CLOCK", clock)
    with progress("SVD") as bar:
        bar.total(3)
        clock.now += 24
        bar()
        bar._bar.refresh()
        assert "0:00:48" in printed(console)


LIVE = """
import logging, sys, time, warnings
early = logging.StreamHandler()  # made before the bar, as libraries make theirs
logging.getLogger("library").addHandler(early)
from hackward.base.screen import progress
with progress("work", 3) as bar:
    for step in range(3):
        bar.say("a note")
        time.sleep(0.15)
        logging.getLogger("library").warning("LOGGED %d", step)
        warnings.warn(f"WARNED {step}")
        print("PRINTED", step)
        print("COMPLAINED", step, file=sys.stderr)
        bar.print("reward 1.00", "cos_in +0.100", head=f"STEP {step}  ")
        with progress("inner", 2) as inner:
            inner()
            logging.getLogger("library").warning("INNER %d", step)
        bar()
logging.getLogger("library").warning("LOGGED behind")
"""


def test_nothing_is_printed_into_a_live_bar():
    """Logs, warnings, prints and step lines each begin a line of their own, on a real pseudo-terminal."""
    parent, child = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", LIVE], stdout=child, stderr=child, cwd=ROOT, env=environment
    )
    os.close(child)
    raw = b""
    try:
        while chunk := os.read(parent, 65536):
            raw += chunk
    except OSError:  # how the end of a pseudo-terminal reads
        pass
    os.close(parent)
    assert process.wait() == 0
    text = re.sub(r"\x1b\[[0-9;?]*[mhl]", "", raw.decode())
    for said in ("LOGGED", "UserWarning: WARNED", "PRINTED", "COMPLAINED", "STEP", "INNER"):
        for step in range(3):
            before, found, _ = text.partition(f"{said} {step}")
            assert found, (said, step)
            line = re.split(r"\n|\r|\x1b\[2K|\x1b\[\d*A", before)[-1]
            assert line == "" or said.startswith("UserWarning"), (said, step, line)
            assert "work" not in line and "inner" not in line
    assert "LOGGED behind" in text and "3/3" in text


# ---------------------------------------------------------------------- tables
HEADERS = ["run", *(f"figure {n}" for n in range(9)), "nothing", "P(hack | attempt)"]
LINES = [["projected v_own s41", *(f"-0.{n}23 [-1.0{n}, +0.35]" for n in range(9)), "-", "7.612e-08"]] * 2


@pytest.mark.parametrize("width", WIDTHS)
def test_a_table_that_is_too_wide_goes_on_below_and_says_which_empty_column_is_left_out(width):
    console = Console(file=io.StringIO(), width=width)
    console.print(drawn("title", HEADERS, LINES, width))
    text = printed(console)
    assert max(map(len, text.splitlines())) <= width and "…" not in text
    for cell in [*HEADERS, *LINES[0]]:
        assert all(word in text for word in words(cell)), cell
    folds = GOES_ON.split()[-1] in text
    assert folds == ("left out: nothing" in " ".join(text.split())) == (width < 200)
    whole = Console(file=io.StringIO(), width=400)
    whole.print(drawn("title", HEADERS, LINES, 400))
    assert "left out" not in printed(whole)


def table_of(command: str, console: Console) -> list[str]:
    """Print a table that is none of analyze.py's; every word of its cells."""
    figure = {"mean": 0.25, "low": 0.1, "high": 0.4}
    if command == "evaluate":
        names = ("hacked", "attempted", "solved", "hack_given_attempt")
        size = {"step": 6, "problems": 32, "samples": 2}
        lines = [
            size | {"adapter": adapter, "condition": condition} | dict.fromkeys(names, figure)
            for adapter in ("on", "off")
            for condition in CONDITIONS
        ]
        console.print(heldout_screen(lines, console.width))
        return [*CONDITIONS, "on", "off", "P(hack", "0.25", "[0.10,", "0.40]"]
    if command == "audit":
        cos = {"value": 0.3741, "p": 0.004, "low": -0.3, "high": 0.3}
        facts = {
            "hacks": 128, "others": 32, "differences": 8, "within_problems": True, "seen_by_v_hack": False,
            "ceiling": 0.68, "v_hacks": {"v_hack": {"cos": cos, "caught": cos}},
            "by_fifths": {
                "oracle (labels of other problems)": None, "v_hack": {"cos": 0.224, "caught": 0.654},
            },
        }  # fmt: skip
        audit.report(facts, console)
        return [
            "direction",
            "oracle",
            "(labels",
            "problems)",
            "caught",
            "+0.374",
            "0.0040",
            "+0.224",
            "+0.654",
        ]
    rows = [{"problems": "heldout_parameters", "level": 1, "rollouts": 640, "valid": 0.9871}] * 2
    report_behaviour(rows, console, temperature=0.9)
    return ["heldout_parameters", "640", "0.987"]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("command", ["evaluate", "audit", "make_primed"])
def test_the_table_of_a_command_loses_no_digit_and_breaks_no_word(command, width):
    console = Console(file=io.StringIO(), width=width)
    wanted = table_of(command, console)
    text = printed(console)
    assert "…" not in text
    found = set(words(re.sub(r"[│┃]", " ", text)))
    assert [word for word in wanted if word not in found] == []


def test_only_two_modules_make_consoles_and_tables_so_that_all_screens_follow_their_rules():
    """Those of bench.py's room are its own."""
    makes = re.compile(r"\b(?:rich\.table\.|rich\.console\.)?(?:Table\(title|table\.Table\(|\w*Console\()")
    found = set()
    for path in [*ROOT.glob("*.py"), *(ROOT / "hackward").rglob("*.py")]:
        if "benchmarks" not in path.parts and makes.search(path.read_text()):
            found.add(path.relative_to(ROOT).as_posix())
    assert found == {"hackward/base/screen.py", "hackward/base/terminal.py"}


def test_a_zero_is_left_out_only_where_it_stands_alone_before_the_point():
    assert tight(Estimate(2, 0.25, low=-10.24, high=10.05)) == ".25 [-10.24 10.05]"
    assert tight(Estimate(2, -0.5, low=-100.25, high=0.05), "+") == "-.50 [-100.25 +.05]"


@pytest.mark.parametrize("width", WIDTHS)
def test_a_heading_is_not_cut_off(width, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    heading = "Phase 2: mixed-replay GRPO, v_hack extracted-by-the-run 9c754a92"
    print_blocks(
        [Heading(heading), "See:\n  python analyze.py out/probe_distill --window=0,10 --brief --unfinished"]
    )
    text = capsys.readouterr().out
    assert "…" not in text and max(map(len, text.splitlines())) <= width
    assert all(word in words(text) for word in words(heading))
    assert "python analyze.py out/probe_distill --window=0,10" in " ".join(text.replace("\\\n", " ").split())


# ---------------------------------------------------------------------- markdown
def test_names_of_others_break_no_table_heading_or_fence_of_a_report():
    table = Table(
        "t", HOSTILE, (("run | label", shown("run")), ("figure", shown("x"))), [{"run": HOSTILE, "x": "1"}]
    )
    text = markdown([Heading(HOSTILE), table, f"text\n```\n{HOSTILE}"], [])
    lines = text.splitlines()
    rows = [line for line in lines if line.startswith("|") and "---" not in line][:2]
    escaped = re.compile(r"\\.")
    assert [escaped.sub("", row).count("|") for row in rows] == [3, 3]
    assert "<script>" not in text.partition("````")[0].replace("\\<", "")
    assert "\x1b" not in text.partition("````")[0]
    assert lines.count("````") == 2  # longer than the one in the text
    assert aligned_table({"a|b": "--:"}, [["c|d"]]) == "| a\\|b |\n|--:|\n| c\\|d |"


# ---------------------------------------------------------------------- help and errors
@pytest.mark.parametrize("width", WIDTHS)
def test_no_line_of_a_help_text_is_wider_than_the_terminal(width, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    for path in ROOT.glob("*.py"):
        doc = ast.get_docstring(ast.parse(path.read_text()))
        for line in description(doc or "").splitlines():
            assert len(line) <= width or len(line.rstrip(" \\").split()) == 1, (path.name, line)
            assert not line or line.startswith(" ")  # or tyro joins it to the one before


LISTED = re.compile(r"^(\*|\d+\.) (.{12})", re.MULTILINE)


@pytest.mark.parametrize("width", (80, 110))
def test_every_item_of_a_list_in_a_help_text_begins_a_line_of_its_own(width, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    for command in (sweep, train):
        with pytest.raises(SystemExit):
            command.main(["--help"])
        said = capsys.readouterr().out
        items = LISTED.findall(inspect.getdoc(command))
        assert len(items) >= 3
        for mark, begins in items:
            assert f"\n {mark} {begins}" in said, (command.__name__, mark)
    stages = description("1. one two three\n   four\n2. five").splitlines()
    assert stages == [" 1. one two three four", " 2. five"]
    monkeypatch.setenv("COLUMNS", "12")
    assert description("1. one two three\n2. five").splitlines() == [" 1. one two", "    three", " 2. five"]


@pytest.mark.parametrize("flags", [Config, SweepFlags, audit.AuditFlags, grade.GradeFlags])
def test_the_text_of_a_flag_is_broken_by_the_width_of_the_terminal_alone(flags, monkeypatch, capsys):
    """Not where its source breaks: with room for it, a paragraph is one line."""
    monkeypatch.setenv("COLUMNS", "500")
    with pytest.raises(SystemExit):
        command_line(flags, ["--help"])
    said = [line.strip(" │") for line in capsys.readouterr().out.splitlines()]
    texts = {name: text for one in reversed(flags.__mro__) for name, text in texts_below(one).items()}
    assert len(texts) > 5
    for name, text in texts.items():
        for paragraph in text.split("\n\n"):
            assert any(paragraph in line for line in said), name


def test_a_text_below_a_field_keeps_its_paragraphs_and_a_class_without_source_has_none():
    assert unbroken("one\n    two\n\n    three\n    four\n    ") == "one two\n\nthree four"
    assert texts_below(type("Config", (), {})) == {} == texts_below(object)


def test_an_example_that_is_too_wide_keeps_its_command_whole_and_its_comment_below(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    doc = "What.\n\n    python x.py --mode=a  --dirs=LONG_NAME   what it does"
    assert description(doc).splitlines()[2:] == [
        "     python x.py --mode=a \\",
        "         --dirs=LONG_NAME",
        "         what it does",
    ]


def test_a_fault_in_the_flags_has_no_box_and_no_colours_on_a_terminal(monkeypatch):
    monkeypatch.setattr("tyro._fmtlib._FORCE_ANSI", True)
    with pytest.raises(Exception, match="^Unrecognized options: --foo=3$"):
        command_line(Config, ["--foo=3"])
    assert one_line("\x1b[31mtitle\x1b[0m\n\x1b[31m│\x1b[0m x y \x1b[31m│\x1b[0m") == "x y"


def test_a_sentence_is_broken_between_words_only():
    assert flowed(["one two three"], "", 7) == ["one two", "three"]
    assert flowed(["a" * 30, "b"], " | ", 8) == ["a" * 30, "| b"]
    assert flowed(["one", "two three"], " | ", 9) == ["one |", "two three"]
