"""Settings: what a run does with flags that depend on each other, and what it refuses."""

from typing import get_args, get_type_hints

import pytest

import probe_distill
from hackward.base.arms import ARMS, CONTROLS, FLAGS, arm_of
from hackward.base.faults import InputError
from hackward.base.files import read_json
from hackward.base.flags import command_line
from hackward.runs.settings import Config, parse, resolve
from tests.shop import replay


def choices(field):
    return set(get_args(get_type_hints(Config)[field]))


def test_the_flags_offer_the_arms_and_controls_of_the_table():
    assert choices("arm") == set(FLAGS) and choices("control") == {"none", *CONTROLS}


@pytest.mark.parametrize("name", ARMS)
def test_an_arm_s_flags_make_that_arm(name):
    assert arm_of(vars(parse(ARMS[name].flags))) == ARMS[name]


def test_an_arm_has_the_gate_place_and_control_of_its_settings():
    flags = ["--arm=projected", "--gate=two-sided", "--project-at=update", "--control=random"]
    arm = arm_of(vars(parse(flags)))
    assert (arm.gate, arm.place, arm.control, arm.projects) == ("two-sided", "update", "random", True)
    assert not arm_of(vars(parse(["--arm=projected", "--control=shrink", "--project-at=update"]))).projects


def test_a_resolved_config_resolves_to_itself():
    for flags in ([], ["--preset=full"], ["--replay-dirs=a,b"], ["--difficulty=Easy, hard"]):
        once = resolve(parse(flags))
        assert resolve(once) == once


def test_the_full_preset_replays_pools_without_a_beta_that_nobody_typed():
    assert resolve(parse(["--preset=full", "--replay-dirs=a,b"])).beta == 0.0
    assert resolve(parse(["--preset=full"])).beta == 1e-3
    with pytest.raises(InputError, match="--beta > 0 with --replay-dirs"):
        resolve(parse(["--preset=full", "--replay-dirs=a,b", "--beta=0.001"]))


@pytest.mark.parametrize("flags", [["--loss-mode=nll", "--project-at=update"]])
def test_phase_1_has_no_update_to_project(flags, tmp_path):
    pool = ["--replay-dirs=nowhere", f"--out={tmp_path}"]
    with pytest.raises(InputError, match="--project-at=update: Phase 1 takes no steps"):
        probe_distill.main(command_line(probe_distill.ProbeFlags, [*flags, *pool]))
    with pytest.raises(InputError, match="--lr=0 --project-at=update"):
        resolve(parse(["--arm=projected", "--lr=0", *flags, pool[0]]))


def test_loss_and_extraction_share_one_temperature_sampled_and_replayed(shop, tmp_path):
    assert parse(["--temperature=0.7"]).loss_temperature == 0.7
    run = replay(shop, tmp_path / "r", "--steps=1", "--v-hack=auto", "--objective=grpo", "--temperature=0.7")
    made = read_json(run / "config.json")["v_hack"]
    assert (made["objective"], made["temperature"]) == ("grpo", 1.0)  # that of the replayed loss


@pytest.mark.parametrize("normaliser", ["fixed", "length"])
def test_loss_and_extraction_share_one_denominator(shop, tmp_path, normaliser):
    run = replay(
        shop, tmp_path / "r", "--steps=1", "--v-hack=auto", "--objective=grpo", f"--normaliser={normaliser}"
    )
    assert read_json(run / "config.json")["v_hack"]["normaliser"] == normaliser


def test_replay_says_when_problems_come_again(shop, tmp_path, capsys):
    replay(shop, tmp_path / "r", "--steps=1", "--prompts=1")
    assert "problems come again" not in capsys.readouterr().err
    replay(shop, tmp_path / "s", "--steps=7", "--prompts=3", "--arm=vanilla")
    assert "7 steps of 3 prompts need 21 problems" in " ".join(capsys.readouterr().err.split())
