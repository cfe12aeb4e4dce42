"""What stops a sweep: the ceiling, a baseline that never hacks, and the probe's decision."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest

from hackward.base.files import file_hash, write_jsonl
from hackward.scheduling.jobs import Job
from hackward.scheduling.plan import plan
from hackward.scheduling.rules import judge_separation
from tests.runs_on_disk import replay_rows, replay_samples
from tests.sweeps import MODEL, good_probe, names, probed, v_file


@pytest.mark.parametrize("jobs", [1, 4])
def test_the_ceiling_withholds_the_other_arms(world, capsys, jobs):
    world.orders({name: {"hack": 0.5} for name in names("projected")})
    assert world.sweep(arms="vanilla,projected,lora", controls="random", jobs=jobs) == 3
    assert sorted(world.started()) == sorted(names("vanilla", "projected"))
    assert "no separation: area under the hack-rate curve +0.000" in capsys.readouterr().out
    assert world.outcome()["stopped"] and world.states() == ["done"] * 6 + ["withheld"] * 6
    world.forget()
    # Asked again, it says so again.
    assert world.sweep(arms="vanilla,projected,lora", jobs=jobs) == 3 and world.started() == []
    assert world.sweep(arms="vanilla,projected,lora", jobs=jobs, anyway=True) == 0
    assert sorted(world.started()) == names("lora")


def test_lora_is_judged_against_its_own_baseline(world, capsys):
    # Below vanilla, as low as its own baseline.
    world.orders({name: {"hack": 0.2} for name in names("lora-vanilla", "lora")})
    assert world.sweep(arms="vanilla,lora-vanilla,lora", controls="random") == 3
    assert world.started() == names("vanilla", "lora-vanilla", "lora")
    assert "does lora separate from lora-vanilla?: no separation" in capsys.readouterr().out


def test_an_arm_that_separates_lets_the_sweep_go_on(world, capsys):
    assert world.sweep(arms="vanilla,projected,lora") == 0
    assert world.started() == names("vanilla", "projected", "lora")
    assert "separate from vanilla?: yes: area" in capsys.readouterr().out


def test_vanilla_that_never_hacks_stops_before_the_projecting_arm(world, capsys):
    world.orders({name: {"hack": 0.02} for name in names("vanilla")})
    assert world.sweep() == 3
    assert world.started() == names("vanilla") and "nothing to suppress" in capsys.readouterr().out


def test_one_seed_in_which_vanilla_hacks_is_enough_to_go_on(world):
    world.orders({name: {"hack": 0.02} for name in names("vanilla")[1:]})
    assert world.sweep() == 0
    assert names("projected")[0] in world.started()


def test_below_three_seeds_there_is_no_ceiling(world):
    world.orders({name: {"hack": 0.0} for name in names("vanilla", "projected")})
    assert world.sweep(seeds="41,42") == 0
    assert world.started() == names("vanilla", "projected", seeds=(41, 42))


@pytest.mark.parametrize(
    ("gaps", "stop"),
    [
        # Mean -0.2, t interval -0.2 +- 4.303 * 0.1 / sqrt(3) = [-0.448, 0.048].
        ((-0.10, -0.20, -0.30), True),
        ((-0.20, -0.21, -0.22), False),  # [-0.235, -0.185]
        ((0.20, 0.21, 0.22), True),  # separates the wrong way
        ((-0.20, -0.20, -0.20), False),  # no variance: [-0.2, -0.2]
        ((0.0, 0.0, 0.0), True),
    ],
)
def test_separation_on_hand_worked_cases(world, gaps, stop):
    def arm(name: str, areas) -> list[Job]:
        jobs = [job for job in plan(world.config(steps=2), []) if job.arm == name]
        for job, area in zip(jobs, areas):
            rates = (area - 0.1, area + 0.1, 9)  # the third step is beyond this sweep's and must not count
            rows = [{"step": n, "seconds": 1, "hack_rate": rate} for n, rate in enumerate(rates)]
            write_jsonl(job.path / "rows.jsonl", rows)
            job.state = "done"
        return jobs

    vanilla = arm("vanilla", [0.5, 0.6, 0.7])
    projected = arm("projected", [0.5 + gaps[0], 0.6 + gaps[1], 0.7 + gaps[2]])
    found = judge_separation(vanilla, projected)
    assert found.stop is stop
    assert found.figures["vanilla"] == pytest.approx({41: 0.5, 42: 0.6, 43: 0.7})
    assert found.figures["difference"] == pytest.approx(sum(gaps) / 3)
    if gaps == (-0.10, -0.20, -0.30):
        assert found.figures["high"] == pytest.approx(-0.2 + 4.302653 * 0.1 / math.sqrt(3))


# --- the probe ---


def few(probe: Path, **more) -> dict:
    """The flags of one planned run that asks the probe."""
    return {"arms": "vanilla", "seeds": "41", "probe": str(probe), "dry_run": True} | more


def test_a_no_go_of_the_probe_stops_everything_and_anyway_overrules(world, tmp_path, capsys):
    dice = random.Random(3)
    base = [sample for sample in replay_samples(dice) if sample["src_pool"] == "base"]
    same = [sample | {"cos_S_logp": sample["cos_S_contrib"]} for sample in base]
    same += [sample | {"src_pool": "teacher", "hacked": True} for sample in same]  # the pools do not differ
    flat = [row | {"cos_in": dice.gauss(0, 0.02)} for row in replay_rows(dice)]
    v, probe = v_file(tmp_path / "v.safetensors"), str(tmp_path / "probe")
    probed(tmp_path / "probe" / "v", v, flat, same)
    assert world.sweep(f"--v-hack={v}", probe=probe, dry_run=True) == 3 and not world.out.exists()
    assert world.sweep(f"--v-hack={v}", probe=probe) == 3 and world.started() == []
    assert "NO-GO: skip Phase 3" in capsys.readouterr().out
    said = world.outcome()
    assert said["stopped"] and said["decisions"][0]["verdict"].startswith("NO-GO")
    assert set(world.states()) == {"withheld"}
    assert world.sweep(f"--v-hack={v}", probe=probe, anyway=True, arms="vanilla", seeds="41") == 0
    assert world.started() == ["vanilla-s41"]
    decision = world.outcome()["decisions"][0]
    assert decision["stop"] and decision["verdict"].startswith("NO-GO")


def test_a_probe_without_a_signal_clears_no_sweep(world, tmp_path, capsys):
    dice, v = random.Random(3), v_file(tmp_path / "v.safetensors")
    dead = [row | {"advantages": [0.0] * 8, "reward_spread": 0.0} for row in replay_rows(dice)]
    probed(tmp_path / "probe" / "v", v, dead, replay_samples(dice))
    assert world.sweep(f"--v-hack={v}", probe=str(tmp_path / "probe")) == 3 and world.started() == []
    assert "NO DECISION: no usable advantage signal" in capsys.readouterr().out


def test_only_the_probe_of_the_sweeps_own_v_clears_it(world, tmp_path, capsys):
    v, other = v_file(tmp_path / "v.safetensors"), v_file(tmp_path / "w.safetensors", k=9)
    probe = tmp_path / "probe"
    good_probe(probe, v)
    assert world.sweep(f"--v-hack={v}", **few(probe)) == 0
    assert "GO: Phase 3 is justified" in capsys.readouterr().out
    assert world.sweep(f"--v-hack={other}", **few(probe)) == 3
    missing = f"not among the probe's (v {file_hash(v)[:8]}); judge it first: python probe_distill.py"
    assert f"{missing} --v-hack={other}" in capsys.readouterr().out
    assert world.sweep(**few(probe)) == 3
    assert "v_hack auto: cannot be compared" in capsys.readouterr().out
    assert world.sweep(f"--v-hack={other}", **few(probe, anyway=True)) == 0


def test_a_sweep_goes_by_its_own_v_and_one_that_measures_none_by_every_v_of_the_probe(
    world, tmp_path, capsys
):
    v, other = v_file(tmp_path / "v.safetensors"), v_file(tmp_path / "w.safetensors", k=9)
    probe, dice = tmp_path / "probe", random.Random(3)
    good_probe(probe, v)
    against = [row | {"cos_in": -0.3} for row in replay_rows(dice)]
    probed(probe / "w", other, against, replay_samples(dice))
    assert world.sweep(f"--v-hack={v}", **few(probe)) == 0
    assert "NO-GO" not in capsys.readouterr().out  # what the other is worth does not matter
    assert world.sweep(f"--v-hack={other}", **few(probe)) == 3
    assert "NO-GO: cos_in is negative" in capsys.readouterr().out
    assert world.sweep("--v-hack=none", **few(probe)) == 3


def test_the_probe_of_another_model_clears_no_sweep(world, tmp_path, capsys):
    v, probe = v_file(tmp_path / "v.safetensors"), tmp_path / "probe"
    good_probe(probe, v, model="Qwen/Qwen3-4B")
    assert world.sweep(f"--v-hack={v}", **few(probe)) == 3
    assert f"judged on Qwen/Qwen3-4B, this sweep trains {MODEL}" in capsys.readouterr().out
    assert world.sweep(f"--v-hack={v}", "--model=Qwen/Qwen3-4B", **few(probe)) == 0
