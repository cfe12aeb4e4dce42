"""Ctrl-C, SIGTERM and a closed terminal save: the step under way leaves no trace, the last finished one
stays, a line says how to go on."""

from __future__ import annotations

import os
import shutil
import signal

import pytest

import analyze
import train
from hackward.base.faults import Terminated, exit_on_fault
from hackward.base.files import read_jsonl
from hackward.method.projection import Editor
from hackward.rollouts.policy import Policy
from hackward.runs.rundir import RunDir
from hackward.runs.session import Session
from hackward.runs.settings import parse

FLAGS = (
    "--preset=smoke",
    "--device=cpu",
    "--teacher-dir=none",
    "--prompts=1",
    "--group=2",
    "--max-new-tokens=4",
    "--eval-samples=0",
    "--warmup=0",
    "--steps=3",
    "--arm=projected",
    "--refresh-every=2",
    "--workers=1",
)


def trained(shop, out, *flags):
    argv = [*FLAGS, f"--svd-cache={shop / 'cache'}", f"--v-hack={shop / 'v.safetensors'}", f"--out={out}"]
    return train.train(parse([*argv, *flags]))


@pytest.fixture(autouse=True)
def heard():
    """As in a terminal. Under nohup, or in a shell's background, signals come to no one."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def whole(shop, tmp_path_factory):
    """The run that nothing interrupts."""
    return trained(shop, tmp_path_factory.mktemp("whole") / "run")


def outcome(run):
    """All that must be equal: the checkpoint's bytes, and the rows without times."""
    rows = [
        {key: value for key, value in row.items() if "seconds" not in key and "memory" not in key}
        for row in read_jsonl(run / "rows.jsonl")
    ]
    return (run / "checkpoint.safetensors").read_bytes(), rows


def interrupted(shop, out, monkeypatch, capsys, owner, name, call, number, *flags):
    """A run to which a signal comes in the `call`th call of a method; its exit code, and the last line."""
    real, calls = getattr(owner, name), []

    def method(*arguments, **options):
        found = real(*arguments, **options)
        calls.append(name)
        if len(calls) == call:
            os.kill(os.getpid(), number)
        return found

    with monkeypatch.context() as patch, pytest.raises(SystemExit) as stop:
        patch.setattr(owner, name, method)
        exit_on_fault(lambda: trained(shop, out, *flags))
    return stop.value.code, capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("owner", "name", "number", "code"),
    [
        (Session, "refresh", signal.SIGINT, 130),
        (Editor, "edit_update", signal.SIGTERM, 143),
        (RunDir, "add_row", signal.SIGHUP, 129),
    ],
)
def test_a_signal_saves_the_last_finished_step_and_the_run_goes_on_as_if_nothing_had_been(
    shop, whole, tmp_path, monkeypatch, capsys, owner, name, number, code
):
    out = tmp_path / "run"
    # the third step, in which v_hack is made anew and momentum turned before anything is drawn
    ended = interrupted(shop, out, monkeypatch, capsys, owner, name, 3, number)
    assert ended[0] == code
    assert f"the first 2 steps are saved: the same command with --resume --out={out} goes on" in ended[1]
    assert not (out / "summary.json").exists() and not list(out.rglob(".*"))
    trained(shop, out, "--resume")
    assert outcome(out) == outcome(whole)


def test_a_signal_in_the_first_step_says_that_the_run_begins_anew(shop, tmp_path, monkeypatch, capsys):
    out = tmp_path / "run"
    code, line = interrupted(shop, out, monkeypatch, capsys, Policy, "rollouts", 1, signal.SIGTERM)
    assert code == 143 and "interrupted before a step was finished" in line


def test_what_fails_in_a_step_loses_no_finished_one(shop, tmp_path, monkeypatch):
    def broken(*arguments):
        raise RuntimeError("a fault of ours")

    real = Editor.edit_update
    calls = []

    def second(self):
        calls.append(1)
        return real(self) if len(calls) < 2 else broken()

    monkeypatch.setattr(Editor, "edit_update", second)
    with pytest.raises(RuntimeError, match="of ours"):
        trained(shop, tmp_path / "run")
    assert (tmp_path / "run" / "checkpoint.safetensors").exists()


def test_a_second_sigterm_does_not_disturb_the_end(capsys):
    def command():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except Terminated:
            os.kill(os.getpid(), signal.SIGTERM)
            print("saved")
            raise

    with pytest.raises(SystemExit) as stop:
        exit_on_fault(command)
    assert stop.value.code == 143 and capsys.readouterr().out == "saved\n"
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_what_nohup_ignores_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        exit_on_fault(lambda: os.kill(os.getpid(), signal.SIGHUP))
    finally:
        signal.signal(signal.SIGHUP, before)


def test_an_unfinished_run_is_shown_and_marked_where_no_run_is_finished(shop, whole, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    (run / "summary.json").unlink()
    analyze.main(analyze.AnalyzeFlags(tmp_path))
    assert "(unfinished)" in capsys.readouterr().out
    shutil.copytree(whole, tmp_path / "finished")
    analyze.main(analyze.AnalyzeFlags(tmp_path))
    out = capsys.readouterr().out
    assert "(unfinished)" not in out and "incomplete: no summary.json" in out
