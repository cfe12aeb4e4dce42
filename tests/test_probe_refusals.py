"""What probe_distill.py and its likes refuse by the flag that was typed, before anything heavy is made."""

from __future__ import annotations

import shutil

import pytest

import probe_distill
import train
from hackward.base.faults import InputError
from hackward.base.files import read_jsonl, write_jsonl
from hackward.base.flags import command_line
from hackward.runs.settings import parse, resolve
from hackward.scheduling.flags import SweepFlags
from hackward.scheduling.plan import plan
from probe_distill import ProbeFlags, phase1, phase2
from tests.shop import run_train


@pytest.mark.parametrize(
    ("flags", "fault"),
    [
        (["--problems="], "--problems is empty"),
        (["--teacher-dir="], "--teacher-dir is empty"),
        (["--v-hack="], "--v-hack is empty"),
        (["--replay-dirs=a,a/"], "--replay-dirs a,a/: the same directory twice"),
        (["--replay-dirs=a,b", "--group=7"], "--group 7 does not divide among 2 pools"),
    ],
)
def test_settings_are_refused_by_the_name_of_their_flag(flags, fault):
    with pytest.raises(InputError, match=fault):
        resolve(parse(flags))


@pytest.mark.parametrize(
    ("flags", "fault"),
    [
        (["--teacher-dir=/nonexist"], "--teacher-dir /nonexist: no such pool directory"),
        (["--v-hack=/nonexist"], "/nonexist: no such file .--v-hack"),
    ],
)
def test_paths_are_refused_by_the_name_of_their_flag(shop, tmp_path, flags, fault):
    with pytest.raises(InputError, match=fault):
        run_train(shop, "--preset=smoke", f"--out={tmp_path / 'r'}", *flags)


def test_a_refusal_of_flags_comes_without_a_banner(capsys):
    with pytest.raises(InputError):
        train.main(["--preset=smoke", "--teacher-rows=4"])
    assert capsys.readouterr().err == ""


def test_the_sweep_names_its_own_flag_for_a_control():
    with pytest.raises(InputError, match="^--controls foo: 'foo' is none of random"):
        plan(SweepFlags(preset="smoke", controls="foo"), [])


@pytest.mark.parametrize(
    ("command", "flag", "kind"),
    [
        (SweepFlags, "--steps", "a whole number"),
        (SweepFlags, "--jobs", "a whole number"),
        (SweepFlags, "--price-per-hour", "a number"),
        (ProbeFlags, "--lr", "a number"),
    ],
)
def test_what_is_no_number_is_refused_in_plain_words(command, flag, kind):
    with pytest.raises(InputError, match=f"^{flag} x: must be {kind}$"):
        command_line(command, [f"{flag}=x"])


def test_phase_1_names_its_basis_and_refuses_arms_without_an_edit():
    for arm in ("vanilla", "penalty", "screen"):
        with pytest.raises(InputError, match=f"--loss-mode=nll --arm={arm}: Phase 1"):
            phase1(ProbeFlags(loss_mode="nll", arm=arm, replay_dirs="p"))
    with pytest.raises(InputError, match="--loss-mode=nll --gate=none: Phase 1"):
        phase1(ProbeFlags(loss_mode="nll", gate="none", replay_dirs="p"))
    with pytest.raises(InputError, match="^--gate=none: nothing would be removed"):
        phase2(ProbeFlags(gate="none", replay_dirs="p,q"))
    made = [
        phase1(ProbeFlags(loss_mode="nll", replay_dirs="p", **flags)).out
        for flags in ({}, {"arm": "lora"}, {"arm": "lora", "rank": 4})
    ]
    assert len(set(made)) == 3
    assert phase1(ProbeFlags(loss_mode="nll", replay_dirs="p", arm="projected")).out == made[0]


def test_a_changed_pool_under_the_same_path_is_not_mixed_into_one_probe(shop, tmp_path):
    pools = [shutil.copytree(shop / f"{name}_pool", tmp_path / name) for name in ("teacher", "base")]
    flags = ProbeFlags(
        model="tiny-random",
        replay_dirs=",".join(map(str, pools)),
        v_hack=str(shop / "v.safetensors"),
        svd_cache=str(shop / "cache"),
        out=str(tmp_path / "probe"),
        device="cpu",
        steps=1,
        group=4,
    )
    vanilla = phase2(flags)[0]
    probe_distill.train(vanilla)
    assert [config.arm for config in phase2(flags)] == ["projected"]  # it is there
    file = sorted(pools[1].glob("*.gz"))[0]
    write_jsonl(file, [row | {"reward": 3.5} for row in read_jsonl(file)])
    with pytest.raises(InputError, match=f"{vanilla.out}: .*another pool {pools[1]} .hash .*another --out"):
        phase2(flags)
