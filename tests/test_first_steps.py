"""What a newcomer meets first: no environment yet, a pool and no run yet."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

import analyze
from hackward.base.files import ROOT, write_json, write_jsonl
from hackward.base.terminal import GOES_ON
from hackward.reports.directories import find_pools, has_runs
from hackward.reports.pools import next_commands
from hackward.reports.tables import Table, markdown, rich_table, shown
from tests.runs_on_disk import PNG, row, write_arm, write_run

ADAPTERS = {"antipasto", "lora_adapter"}
COMMANDS = sorted(path.stem for path in ROOT.glob("*.py") if path.stem not in ADAPTERS)


def write_pool(directory: Path, **flags) -> Path:
    """Two problems with four rollouts each: one in four hacks, one in two solves."""
    for problem in range(2):
        rows = [
            {
                "problem_id": f"p{problem}",
                "completion": "x",
                "reward": 3.5 if place < 2 else 0.5,
                "hacked": place == 0,
                "gt_pass": place < 2,
                "attempted": place == 0,
                "fmt_ok": True,
            }
            for place in range(4)
        ]
        write_jsonl(directory / f"step_{problem:03d}.jsonl.gz", rows)
    write_json(directory / "pool.json", {"config": flags})
    return directory


# ---------------------------------------------------------------------- no environment
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_without_the_environment_says_in_one_line_how_to_get_it(command):
    done = subprocess.run(
        [sys.executable, "-S", f"{command}.py", "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"{command}.py: ") and "lacks torch" in line and "activate" in line


# ---------------------------------------------------------------------- pools without runs
def test_analyze_of_a_pool_shows_its_rates_and_what_to_run_next(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_pool(Path("probe/base_pool"), model="embedded")
    analyze.main(analyze.AnalyzeFlags(Path("probe")))
    shown = capsys.readouterr().out
    (line,) = (line for line in shown.splitlines() if "base_pool" in line and "0.25" in line)
    assert line.split()[-7:] == ["8", "2", "0.50", "0.25", "0.25", "1.00", "0.50"]
    assert "python probe_distill.py --loss-mode=grpo --out=probe" in shown
    assert Path("probe/report/report.md").is_file() and Path("probe/report/pools.csv").is_file()


def test_what_to_run_next_after_a_pool_names_its_model_and_the_pool_that_lacks(tmp_path):
    write_pool(tmp_path / "base_pool", model="org/M", problems="P.jsonl")
    teacher, v_hack, nll, grpo, last = next_commands(tmp_path, find_pools(tmp_path))
    assert "--teacher-only --teacher=LORA --model=org/M --problems=P.jsonl" in teacher
    assert v_hack.startswith("python extract_vhack.py")
    assert "--loss-mode=nll" in nll and "--v-hack=" in grpo and last == f"python analyze.py {tmp_path}"
    write_pool(tmp_path / "teacher_pool", model="org/M", problems="P.jsonl")
    assert not any("-only" in command for command in next_commands(tmp_path, find_pools(tmp_path)))


def test_what_to_run_next_after_one_pool_is_meant_for_the_folder_that_it_lies_in(tmp_path):
    pool = write_pool(tmp_path / "base_pool", model="org/M", problems="P.jsonl")
    write_pool(tmp_path / "teacher_pool", model="org/M", problems="P.jsonl")
    commands = next_commands(pool, find_pools(pool))
    assert not any("-only" in command or str(pool) in command for command in commands)
    assert all(f"--out={tmp_path}" in command for command in commands if "--loss-mode" in command)


def test_rollouts_that_a_run_keeps_are_no_pool_and_a_model_is_no_run(tmp_path):
    write_json(tmp_path / "model" / "config.json", {"model_type": "qwen2"})
    pool = write_pool(tmp_path / "base_pool")
    assert list(find_pools(tmp_path)) == [pool] and not has_runs(tmp_path)
    run = write_run(tmp_path / "run", "sampled", [row()])
    write_pool(run / "rollouts")
    assert list(find_pools(tmp_path)) == [pool] and has_runs(tmp_path)


def test_a_damaged_pool_is_one_line_that_names_the_file(tmp_path):
    pool = write_pool(tmp_path / "base_pool")
    (pool / "step_001.jsonl.gz").write_bytes(b"no gzip")
    with pytest.raises(analyze.InputError, match="step_001.jsonl.gz"):
        analyze.main(analyze.AnalyzeFlags(tmp_path))


# ---------------------------------------------------------------------- the end of the demonstration
def brief(root: Path, capsys) -> str:
    analyze.main(analyze.AnalyzeFlags(root, brief=True))
    return capsys.readouterr().out


def test_two_arms_of_one_seed_end_in_a_sentence_each_and_one_picture_without_a_verdict(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    root = Path("demo")
    write_arm(root, [0.4], [0.1])
    write_arm(root, [0.02], [0.3], arm="projected")
    shown = " ".join(brief(root, capsys).split())
    assert "vanilla (1 seed, 10 steps): 0 % of its answers hacked in the first 5 steps, 40 % in" in shown
    assert "10 % solved the problem in the last 5. It went above 10 % (mean of 3 steps) at step 5." in shown
    assert "2 % in the last 5; 30 % solved" in shown and "Hacking never went above 10 %" in shown
    assert "no test of a claim" in shown
    assert "H1" not in shown and "undefined" not in shown.lower()
    assert "picture: demo/report/hacked.png" in shown and "page: demo/report/report.html" in shown
    assert (root / "report/hacked.png").read_bytes().startswith(PNG)


def test_several_seeds_are_told_as_their_mean(tmp_path, capsys):
    write_arm(tmp_path, [0.2, 0.4])
    shown = " ".join(brief(tmp_path, capsys).split())
    assert "vanilla (2 seeds, 10 steps): 0 % of its answers hacked in the first 5 steps, 30 % in" in shown
    assert "no test of a claim" not in shown


def test_the_demonstration_runs_both_arms_with_the_same_flags_and_ends_in_the_brief():
    script = (ROOT / "run.sh").read_text()
    demo = script[script.index("demo() {") : script.index("phases() {")]
    assert "for arm in vanilla projected" in demo and demo.count("train.py") == 1
    assert demo.index("train.py") < demo.index('analyze.py "$out" --brief') < demo.index("report.html")


# ---------------------------------------------------------------------- tables
NARROW = Table(
    "t",
    "A title",
    (
        ("condition", shown("condition")),
        ("P(hack | attempt)", shown("rate")),
        *((f"seconds {n}", shown("size")) for n in range(8)),
    ),
    [{"condition": "vanilla (unfinished) extracted-by-the-run", "rate": "0.25", "size": "7.612e-08"}],
)


def test_at_80_columns_no_figure_and_no_word_of_a_table_is_broken_and_what_does_not_fit_goes_on_below():
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(rich_table(NARROW, 80))
    printed = console.export_text()
    assert max(map(len, printed.splitlines())) <= 80
    assert printed.count("7.612e-08") == 8 and GOES_ON in printed
    for word in ("condition", "P(hack", "attempt)", "seconds", "(unfinished)", "extracted-"):
        assert word in printed


def test_a_bar_in_the_heading_or_cell_of_a_markdown_table_does_not_begin_a_column():
    lines = [line for line in markdown([NARROW], []).splitlines() if line.startswith("|")]
    assert {len(re.split(r"(?<!\\)\|", line)) for line in lines} == {12}
