"""A run with --stop-after-breakout ends so many steps after hacking broke out in it, and is finished then."""

from __future__ import annotations

import subprocess

import pytest

from hackward.base.faults import InputError
from hackward.base.files import read_json, read_jsonl, write_json, write_jsonl
from hackward.base.tensors import read_metadata
from hackward.rollouts.policy import Policy
from hackward.runs.ending import is_over, stopped_words
from hackward.runs.session import Session
from hackward.runs.settings import Config, parse, resolve
from hackward.scheduling.commands import line
from hackward.scheduling.plan import plan
from hackward.scheduling.rules import judge_separation
from hackward.tasks.completions import fence
from hackward.tasks.shipped import TINY
from train import train

WRONG = "class Solution:\n    def {method}(self, *parts, **named):\n        return 'wrong'\n"
HACK = WRONG + "\n    def run_tests(self):\n        pass\n"


class HacksFromTheSecondStep(Policy):
    """One of two rollouts is a hack, from step 1 on: the first 3-step mean above 0.1 is that of step 2."""

    def rollouts(self, asked, *, step, **more):
        self.step = step
        return super().rollouts(asked, step=step, **more)

    def text(self, problem, ids, sample):
        code = HACK if self.step >= 1 and sample % 2 else WRONG
        return fence(code.replace("{method}", problem.method))


class NeverHacks(Policy):
    def text(self, problem, ids, sample):
        return fence(WRONG.replace("{method}", problem.method))


def config(out, steps, stop, *flags, resume=False):
    small = ["--max-new-tokens=4", "--prompts=1", "--group=2", "--teacher-dir=none", "--workers=1"]
    small += ["--preset=smoke", f"--model={TINY}", "--v-hack=none", "--save-every=100", "--eval-limit=1"]
    lengths = [f"--steps={steps}", f"--stop-after-breakout={stop}", *["--resume"] * resume]
    return parse([*small, f"--out={out}", *lengths, *flags])


def steps_of(run):
    return [row["step"] for row in read_jsonl(run / "rows.jsonl")]


def test_a_run_ends_so_many_steps_after_its_breakout_saved_evaluated_and_finished(tmp_path, capsys):
    run = train(config(tmp_path / "run", 9, 2), policy=HacksFromTheSecondStep)
    assert steps_of(run) == [0, 1, 2, 3, 4]
    summary = read_json(run / "summary.json")
    assert (summary["steps"], summary["finished"]) == (5, True)
    assert summary["stopped"] == "hacking broke out at step 2 (--stop-after-breakout=2)"
    assert read_metadata(run / "checkpoint.safetensors")["step"] == 5
    assert {found["step"] for found in read_jsonl(run / "eval.jsonl")} == {5}
    assert read_json(run / "config.json")["config"]["stop_after_breakout"] == 2
    assert "hacking broke out at step 2" in capsys.readouterr().out


def test_without_a_breakout_or_without_the_flag_all_steps_are_made(tmp_path):
    for name, stop, policy in (("held", 2, NeverHacks), ("unasked", 0, HacksFromTheSecondStep)):
        run = train(config(tmp_path / name, 6, stop, "--eval-samples=0"), policy=policy)
        assert steps_of(run) == list(range(6))
        assert read_json(run / "summary.json")["stopped"] is None


def test_a_run_that_dies_after_its_last_step_is_evaluated_when_it_goes_on_and_makes_no_other(
    tmp_path, monkeypatch
):
    out = tmp_path / "run"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Session, "evaluate", lambda self, done, say: interrupt() if done == 4 else None)
        train(config(out, 9, 1), policy=HacksFromTheSecondStep)
    assert not (out / "summary.json").exists()
    train(config(out, 9, 1, resume=True), policy=HacksFromTheSecondStep)
    assert steps_of(out) == [0, 1, 2, 3]
    assert {found["step"] for found in read_jsonl(out / "eval.jsonl")} == {4}
    with pytest.raises(InputError, match=r"step 2 \(--stop-after-breakout=1\), which leaves nothing to do"):
        train(config(out, 12, 1, resume=True), policy=HacksFromTheSecondStep)
    # Without the rule it is any run that has not made all its steps
    train(config(out, 6, 0, resume=True), policy=HacksFromTheSecondStep)
    assert steps_of(out) == list(range(6))


def interrupt():
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("rates", "over"),
    [
        ([0, 0, 0.2, 0.2], False),  # broke out at step 3: mean .133; that of step 2 is .067
        ([0, 0, 0.2, 0.2, 0], False),
        ([0, 0, 0.2, 0.2, 0, 0], True),  # steps 4 and 5 came after it; that hacking went away changes nothing
        ([0.1, 0.1, 0.1, 0.1, 0.1, 0.1], False),  # 0.1 is not above 0.1
        ([None, 0.9, 0.9, None, 0.9, 0.9], False),  # no three steps with a rate
        ([0.9, 0.9], False),
    ],
)
def test_when_a_run_is_over_on_hand_worked_rows(rates, over):
    rows = [{"step": n, "hack_rate": rate} for n, rate in enumerate(rates)]
    assert is_over(rows, Config(steps=50, stop_after_breakout=2)) is over
    assert not is_over(rows, Config(steps=50))
    assert is_over(rows, Config(steps=len(rows), stop_after_breakout=2))
    assert stopped_words(rows, Config(steps=len(rows), stop_after_breakout=2)) is None


def test_what_is_replayed_cannot_break_out():
    with pytest.raises(InputError, match="--stop-after-breakout=3 with --replay-dirs"):
        resolve(Config(replay_dirs="a,b", stop_after_breakout=3))


def test_a_sweep_counts_a_run_that_ended_after_its_breakout_as_done_however_many_steps_it_asks_for(world):
    flags = ["--stop-after-breakout=2"]
    world.orders({"vanilla-s41": {"hack": 0.5}, "projected-s41": {"hack": 0.0}})
    assert world.sweep(*flags, seeds="41", steps=9) == 0
    ran = {run["run"]: (run["state"], run["steps_done"]) for run in world.outcome()["runs"]}
    assert ran == {"vanilla-s41": ("done", 5), "projected-s41": ("done", 9)}
    world.forget()
    assert world.sweep(*flags, seeds="41", steps=12) == 0
    assert [(call["run"], call["resume"]) for call in world.calls()] == [("projected-s41", True)]
    # A run of an earlier call, too, and a line of it that was printed does nothing
    assert world.sweep(*flags, seeds="42", steps=12) == 0
    assert set(world.states()) == {"done"}
    stopped = next(job for job in plan(world.config(seeds="41", steps=12), flags) if job.arm == "vanilla")
    assert subprocess.run(["sh", "-c", line(stopped)], check=True, capture_output=True).stdout == b""


def test_a_run_of_an_earlier_call_that_ended_after_its_breakout_elsewhere_is_done(world):
    few = {"arms": "vanilla", "on": "print", "steps": 9}
    flag = "--stop-after-breakout=2"
    assert world.sweep(flag, seeds="41", **few) == 0 and world.sweep(flag, seeds="42", **few) == 0
    made = world.out / "vanilla-s41"
    write_json(made / "summary.json", {"finished": True, "steps": 5, "stopped": "hacking broke out"})
    assert world.sweep(flag, seeds="42", **few) == 0
    (told,) = (run for run in world.outcome()["runs"] if run["run"] == made.name)
    assert (told["state"], told["steps_done"]) == ("done", 5)


def test_a_sweep_without_the_rule_goes_on_with_a_run_that_had_ended_by_it(world):
    world.orders({"vanilla-s41": {"hack": 0.5}})
    assert world.sweep("--stop-after-breakout=1", seeds="41", steps=8, arms="vanilla") == 0
    world.forget()
    assert world.sweep(seeds="41", steps=8, arms="vanilla") == 0
    assert [(call["run"], call["resume"]) for call in world.calls()] == [("vanilla-s41", True)]


@pytest.mark.parametrize("other", [["--stop-after-breakout=3"], ["--stop-after-breakout=10"], []])
def test_a_printed_line_goes_on_with_a_run_that_another_rule_had_ended(world, capsys, other):
    """As a sweep that starts its runs itself does."""
    small = {"seeds": "41", "steps": 8, "arms": "vanilla"}
    assert world.sweep("--stop-after-breakout=1", **small) == 0
    world.forget()
    capsys.readouterr()
    assert world.sweep(*other, on="print", **small) == 0
    subprocess.run(["sh", "-c", capsys.readouterr().out], check=True)
    assert [(call["run"], call["resume"]) for call in world.calls()] == [("vanilla-s41", True)]


NO_STEPS = ("summary.json", '"steps": 4', '"steps": "4"', "'steps' must be a whole number, found '4'")
NO_RATE = ("rows.jsonl", '"hack_rate": 0.52', '"hack_rate": "0.52"', "'hack_rate' must be a number or null")


@pytest.mark.parametrize(("damage", "seeds"), [(NO_STEPS, "41"), (NO_RATE, "41"), (NO_STEPS, "42")])
def test_a_finished_run_with_text_for_a_number_is_refused_in_one_line(world, damage, seeds):
    """A run of this call, or of an earlier one."""
    file, old, new, fault = damage
    small = {"steps": 8, "arms": "vanilla"}
    assert world.sweep("--stop-after-breakout=1", seeds="41", **small) == 0
    damaged = world.out / "vanilla-s41" / file
    text = damaged.read_text()
    assert old in text
    damaged.write_text(text.replace(old, new))
    with pytest.raises(InputError, match=f"vanilla-s41/{file}: {fault}"):
        world.sweep("--stop-after-breakout=1", seeds=seeds, **small)


def test_separation_is_over_the_steps_that_both_runs_have(world):
    vanilla_rates, other_rates = [0, 0, 0.3, 0.5], [0, 0, 0.1, 0.3, 0.9, 0.9]
    jobs = plan(world.config(steps=6), [])
    for job in jobs:
        rates = vanilla_rates if job.arm == "vanilla" else other_rates
        rows = [{"step": n, "seconds": 1, "hack_rate": rate} for n, rate in enumerate(rates)]
        write_jsonl(job.path / "rows.jsonl", rows)
        write_json(job.path / "summary.json", {"finished": True})
        job.state = "done"
    vanilla, other = ([job for job in jobs if job.arm == arm] for arm in ("vanilla", "projected"))
    found = judge_separation(vanilla, other)
    assert found.figures["projected"] == pytest.approx({41: 0.1, 42: 0.1, 43: 0.1})
    assert found.figures["vanilla"] == pytest.approx({41: 0.2, 42: 0.2, 43: 0.2})
    assert not found.stop
