"""Sweeps of an experiment's own arms: what its file may hold, what is planned and run of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from analyze import AnalyzeFlags
from extract_vhack import ExtractFlags
from hackward.base.arms import ARMS
from hackward.base.faults import InputError
from hackward.base.flags import command_line
from hackward.runs.settings import parse, resolve
from hackward.scheduling.experiment import read_experiment
from hackward.scheduling.flags import SweepFlags
from hackward.scheduling.plan import plan, stages
from make_primed import PrimedFlags
from strengthen import StrengthenFlags
from tests.light import loaded
from tests.sweeps import names, v_file

ROOT = Path(__file__).resolve().parent.parent
HEADLINE = ROOT / "spec/experiments/2026-11-27-headline.toml"
TWO = """
[arms.penalty-truth]
flags = ["--arm=penalty", "--monitor=truth"]
[arms.vanilla]
flags = ["--arm=vanilla", "--lr=0.5"]
"""


def written(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_arms_of_a_file_are_planned_in_its_order_with_flags_of_their_own(world, tmp_path):
    config = world.config(arms=None, experiment=written(tmp_path / "e.toml", TWO), seeds="7,5")
    jobs = plan(config, ["--lr=0.1", "--monitor=attempt"])
    assert [job.name for job in jobs] == names("penalty-truth", "vanilla", seeds=(7, 5))
    assert [job.arm for job in jobs] == ["penalty", "penalty", "vanilla", "vanilla"]
    # what the file says of an arm comes after what is said of all
    assert [(job.settings.monitor, job.settings.lr) for job in jobs[1:3]] == [
        ("truth", 0.1),
        ("attempt", 0.5),
    ]
    assert all(job.settings.steps == 4 and f"--seed={job.seed}" in job.flags for job in jobs)
    assert list(stages(jobs, config)) == ["all"]


def test_some_arms_of_a_file_have_the_same_runs_as_all_of_them(world, tmp_path):
    file = written(tmp_path / "e.toml", TWO)
    whole = plan(world.config(arms=None, experiment=file), [])
    some = plan(world.config(arms="vanilla", experiment=file, seeds="42"), [])
    assert [job.flags for job in some] == [job.flags for job in whole if job.name == "vanilla-s42"]


def test_an_experiment_is_run_and_gone_on_with_in_parts(world, tmp_path):
    file = written(tmp_path / "e.toml", TWO)
    assert world.sweep(arms="vanilla", seeds="41", experiment=file) == 0
    world.orders({"vanilla-s42": {"die": 3}})
    assert world.sweep(arms=None, seeds="41,42", experiment=file) == 1  # a failure withholds nothing
    assert world.started() == ["vanilla-s41", *names("penalty-truth", seeds=(41, 42)), "vanilla-s42"]
    world.orders({})
    world.forget()
    assert world.sweep(arms=None, seeds="41,42", experiment=file) == 0
    assert [(call["run"], call["resume"]) for call in world.calls()] == [("vanilla-s42", True)]


@pytest.mark.parametrize(
    ("text", "settings", "what"),
    [
        ("[arms", {}, "no TOML file"),
        ("", {}, "'arms'"),
        ("[arms]", {}, "no arm in it"),
        ("[arms.a]\nflags = '--arm=vanilla'", {}, "'arms.a.flags' must be a list"),
        ("[arms.a]\nflags = [1]", {}, "must be a string"),
        ("[arms.a]\nflags = []\nseeds = [1]", {}, "arms.a.seeds"),
        ("[arms.'../a']\nflags = []", {}, "a name has small letters, digits and single dashes"),
        ("[arms.a]\nflags = ['--seed=1']", {}, "--seed=1 of the arm a in .*: the sweep sets it itself"),
        ("[arms.a]\nflags = ['--bogus=1']", {}, "Unrecognized options: --bogus"),
        ("[arms.a]\nflags = []\n[arms.b]\nflags = ['--arm=vanilla']", {}, "the arms a and b are the same"),
        (TWO, {"arms": "lora"}, "--arms lora: 'lora' is none of penalty-truth, vanilla"),
        (TWO, {"controls": "random"}, "--controls with --experiment"),
        (TWO, {"lora_v_hack": "v"}, "--lora-v-hack with --experiment"),
        (TWO, {"seeds": ""}, "no run"),
    ],
)
def test_an_experiment_that_cannot_be_meant_is_refused(world, tmp_path, text, settings, what):
    file = written(tmp_path / "e.toml", text)
    with pytest.raises(InputError, match=what):
        plan(world.config(**{"arms": None, "experiment": file} | settings), [])


def test_a_file_that_is_not_there_is_refused_without_loading_what_computes(tmp_path):
    assert loaded("sweep.py", f"--experiment={tmp_path / 'none.toml'}") == (2, [])
    with pytest.raises(InputError, match=r"none.toml: no such file"):
        read_experiment(tmp_path / "none.toml")


def test_every_arm_of_the_headline_has_a_placebo_of_its_own(world, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("v_teacher", "v_own"):
        v_file(tmp_path / f"{name}.safetensors", name=name)
    jobs = plan(world.config(arms=None, experiment=str(HEADLINE), seeds="51"), [])
    said = {job.name.removesuffix("-s51"): job.settings for job in jobs}
    assert {job.arm for job in jobs} == {"vanilla", "projected", "penalty"} <= set(ARMS)
    for name, settings in said.items():
        if name == "vanilla" or name.endswith("-random"):
            continue
        placebo = vars(said[f"{name}-random"])
        differs = {key for key, value in vars(settings).items() if placebo[key] != value}
        assert differs == {"control", "out"} and placebo["control"] == "random"


def commands_of(page: Path) -> list[list[str]]:
    """The words of the commands of a page, SHARED written out."""
    text = page.read_text(encoding="utf-8")
    lines = [line.strip() for line in text.splitlines() if line.startswith("    ")]
    joined = "\n".join(lines).replace("\\\n", " ").splitlines()
    shared = " ".join(line for line in joined if line.startswith("--"))
    return [line.replace("SHARED", shared).split() for line in joined if line.startswith("python ")]


def test_the_commands_of_the_headline_page_plan_its_45_runs(world, tmp_path, monkeypatch):
    experiment = HEADLINE.relative_to(ROOT)
    (tmp_path / experiment.parent).mkdir(parents=True)
    (tmp_path / experiment).write_bytes(HEADLINE.read_bytes())
    monkeypatch.chdir(tmp_path)
    for name in ("v_teacher", "v_own"):
        v_file(tmp_path / f"{name}.safetensors", name=name)
    commands = [(words[1], words[2:]) for words in commands_of(HEADLINE.with_suffix(".md"))]
    said = dict(commands)
    for name, flags in {"strengthen.py": StrengthenFlags, "extract_vhack.py": ExtractFlags}.items():
        assert [command_line(flags, words) for command, words in commands if command == name]
    assert command_line(PrimedFlags, said["make_primed.py"]).how.share == 0.07
    first, second = (command_line(AnalyzeFlags, words) for name, words in commands if name == "analyze.py")
    assert (first.window, second.window) == ((180, 199), None)
    designs = []
    for words in (words for name, words in commands if name == "sweep.py"):
        cut = words.index("--")
        designs.append(plan(command_line(SweepFlags, words[:cut]), words[cut + 1 :]))
    jobs, smaller = designs
    assert len(jobs) == 45 and {job.seed for job in jobs} == set(range(51, 56))
    settings = [job.settings for job in jobs]
    assert {(one.steps, one.model, one.eval_samples, one.dtype) for one in settings} == {
        (200, "primed", 8, "tf32")
    }
    # The smaller design: own V and its placebo, and nothing else is other than its page says
    known = {job.name: vars(job.settings) for job in jobs}
    assert len(smaller) == 10
    for job in smaller:
        changed = {key for key, value in vars(job.settings).items() if known[job.name][key] != value}
        assert changed == {"out", "sample_rows", "eval_samples", "stop_after_breakout"}
        assert (job.settings.eval_samples, job.settings.stop_after_breakout) == (4, 10)
    # own V comes from a run like vanilla's, but for its seed
    own = resolve(parse(said["train.py"]))
    differs = {key for key, value in vars(own).items() if vars(settings[0])[key] != value}
    assert differs == {"seed", "steps", "out", "eval_samples", "eval_limit", "eval_problems"}
