"""Claims about --track: a tracker sees the numbers of rows.jsonl at their steps, goes on after a resume, and
is never why a run fails."""

import contextlib
import sys
import tomllib
import types
from importlib.machinery import ModuleSpec
from typing import get_args, get_type_hints

import pytest

from hackward.base.faults import InputError
from hackward.base.files import ROOT, read_json, read_jsonl
from hackward.hardware import ranks
from hackward.runs import tracking
from hackward.runs.settings import Config
from tests import lacks
from tests.shop import SHORT, run_train

FLAGS = (*SHORT, "--eval-samples=0")
SOME = ("reward_mean", "hack_rate", "grad_norm", "seconds", "seconds_generate", "lr")


class Fake(types.ModuleType):
    """Stands for the packages wandb and trackio: remembers what it is told."""

    def __init__(self, name):
        super().__init__(name)
        self.__spec__ = ModuleSpec(name, None)
        self.opened, self.logged, self.finished, self.faults = [], [], 0, {}

    def _fail(self, where):
        if where in self.faults:
            raise self.faults[where]

    def init(self, **options):
        self.opened.append(options)
        self._fail("init")
        return self

    def log(self, numbers, step):
        self.logged.append((step, numbers))
        self._fail("log")

    def finish(self):
        self.finished += 1
        self._fail("finish")


@pytest.fixture(params=["wandb", "trackio"])
def fake(request, monkeypatch):
    module = Fake(request.param)
    monkeypatch.setitem(sys.modules, request.param, module)
    return module


def tracked(shop, out, name, *flags):
    return run_train(shop, *FLAGS, f"--track={name}", f"--out={out}", *flags)


def test_a_tracker_sees_the_numbers_of_every_row_at_its_step_and_after_a_resume_too(shop, tmp_path, fake):
    out = tracked(shop, tmp_path / "run", fake.__name__, "--steps=2")
    tracked(shop, out, fake.__name__, "--steps=3", "--resume")
    rows = read_jsonl(out / "rows.jsonl")
    assert [step for step, _ in fake.logged] == [0, 1, 2] == [row["step"] for row in rows]
    for row, (_, numbers) in zip(rows, fake.logged, strict=True):
        assert numbers == tracking.numbers_of(row)
        assert all(numbers[name] == row[name] for name in SOME)
        assert all(isinstance(value, (int, float)) for value in numbers.values())
    first, second = fake.opened
    same = "id" if fake.__name__ == "wandb" else "name"
    assert first[same] == second[same] and second["resume"] == "allow" and first["project"] == "hackward"
    assert first["config"]["arm"] == "vanilla" and fake.finished == 2


def test_two_runs_of_one_name_are_two_runs_to_a_tracker(shop, tmp_path, fake):
    for home in ("a", "b"):
        tracked(shop, tmp_path / home / "run", fake.__name__, "--steps=1")
    same = "id" if fake.__name__ == "wandb" else "name"
    assert fake.opened[0][same] != fake.opened[1][same]


@pytest.mark.parametrize(
    ("where", "fault", "calls"),
    [
        ("init", RuntimeError("no key"), 0),
        ("init", SystemExit(3), 0),
        ("log", OSError(28, "No space left on device"), 1),
        ("finish", ValueError("server\ngone"), 2),
    ],
)
def test_a_tracker_that_fails_costs_a_line_and_not_the_run(shop, tmp_path, fake, capsys, where, fault, calls):
    fake.faults[where] = fault
    out = tracked(shop, tmp_path / "run", fake.__name__, "--steps=2")
    assert read_json(out / "summary.json")["finished"] and len(read_jsonl(out / "rows.jsonl")) == 2
    assert len(fake.logged) == calls
    lines = [line for line in capsys.readouterr().err.splitlines() if "--track" in line]
    (line,) = lines
    assert line.startswith(f"--track={fake.__name__}: ") and "the run goes on" in line


def test_an_interrupt_inside_of_a_tracker_is_an_interrupt(shop, tmp_path, fake):
    fake.faults["log"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        tracked(shop, tmp_path / "run", fake.__name__, "--steps=2")


@pytest.mark.parametrize("name", tracking.TRACKERS)
def test_a_missing_package_is_told_before_the_run_with_what_installs_it(shop, tmp_path, monkeypatch, name):
    monkeypatch.setattr(tracking.importlib.util, "find_spec", lambda package: None)
    with pytest.raises(InputError, match=rf"--track={name}: .*pip install {name}==\d"):
        tracked(shop, tmp_path / "run", name, "--steps=1")
    assert not (tmp_path / "run").exists()


def test_what_is_undefined_or_no_number_is_not_drawn():
    row = {"step": 3, "seed": 1, "arm": "lora", "cos_in": None, "kl": float("nan"), "x": [1.0], "done": True}
    assert tracking.numbers_of(row | {"loss": 0.5, "groups_used": 2}) == {"loss": 0.5, "groups_used": 2}


def test_tensorboard_has_the_rows_and_after_a_resume_each_step_once(shop, tmp_path):
    pytest.importorskip("tensorboard", reason=lacks.TENSORBOARD)
    out = tracked(shop, tmp_path / "run", "tensorboard", "--steps=2")
    tracked(shop, out, "tensorboard", "--steps=3", "--resume")
    rows = read_jsonl(out / "rows.jsonl")
    for name in SOME:
        assert scalars(out)[name] == pytest.approx({row["step"]: row[name] for row in rows}, rel=1e-6)


def test_tensorboard_forgets_steps_that_are_made_anew(tmp_path):
    pytest.importorskip("tensorboard", reason=lacks.TENSORBOARD)
    run = types.SimpleNamespace(path=tmp_path)
    for first, value in ((0, 1.0), (2, 5.0)):
        board = tracking.TensorBoard(run, first)
        for step in range(first, first + 3 - first // 2):
            board.log(step, {"loss": value})
        board.close()
    assert scalars(tmp_path)["loss"] == {0: 1.0, 1: 1.0, 2: 5.0, 3: 5.0}


def scalars(run):
    """Name -> step -> value of a run's event files; a step that is there twice is a fault."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard")).Reload()
    found = {}
    for name in events.Tags()["scalars"]:
        steps = [event.step for event in events.Scalars(name)]
        assert len(set(steps)) == len(steps)
        found[name] = {event.step: event.value for event in events.Scalars(name)}
    return found


def test_a_tracked_run_that_died_before_its_checkpoint_begins_anew_by_the_same_command(
    shop, tmp_path, monkeypatch
):
    pytest.importorskip("tensorboard", reason=lacks.TENSORBOARD)
    out = tracked(shop, tmp_path / "run", "tensorboard", "--steps=2")
    for name in ("summary.json", "checkpoint.safetensors", "delta_S.safetensors"):
        (out / name).unlink()
    assert tracked(shop, out, "tensorboard", "--steps=2") == out
    assert sorted(scalars(out)["reward_mean"]) == [0, 1]


def test_of_several_processes_only_the_first_tracks(tmp_path, monkeypatch):
    monkeypatch.setattr(ranks.warnings, "simplefilter", lambda how: None)
    monkeypatch.setattr(ranks, "STDERR", types.SimpleNamespace())
    with contextlib.ExitStack() as stack:
        assert ranks._apart(Config(track="wandb"), stack).track == "none"


def test_without_the_flag_no_tracker_is_looked_at(shop, tmp_path, fake):
    run_train(shop, *FLAGS, "--steps=1", f"--out={tmp_path / 'run'}")
    assert not fake.opened and not (tmp_path / "run" / "tensorboard").exists()


def test_every_tracker_is_a_word_of_the_flag_and_a_pinned_extra():
    words = get_args(get_type_hints(Config)["track"])
    assert set(words) == {"none", *tracking.TRACKERS}
    for name in tracking.TRACKERS:
        assert tracking.pinned(name).startswith(f"{name}==")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    lines = (ROOT / "requirements-dev.txt").read_text().splitlines()
    assert extras["dev"] == [line.split()[0] for line in lines if not line.startswith("#")]
    assert tracking.pinned("tensorboard") in extras["dev"]
