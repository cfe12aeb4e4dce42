"""Which runs a sweep plans, in which order and stages, and what it refuses before anything starts."""

from __future__ import annotations

import dataclasses
import random

import pytest

import sweep
from hackward.base.arms import ARMS
from hackward.base.faults import InputError
from hackward.base.files import file_hash, read_json, write_json
from hackward.scheduling.flags import SweepFlags
from hackward.scheduling.plan import plan, stages
from tests.light import loaded
from tests.runs_on_disk import replay_rows, replay_samples
from tests.sweeps import good_probe, measured_run, names, probed, v_file
from tests.test_refusals import refused


def test_full_is_phase_3_of_the_spec():
    jobs = plan(SweepFlags(preset="full"), [])
    assert [job.name for job in jobs] == names("vanilla", "projected", "lora")
    for job in jobs:
        said = job.settings
        assert (said.steps, said.model, said.group, said.prompts) == (200, "Qwen/Qwen3-4B", 6, 43)
        assert (said.beta, said.lr) == (1e-3, 7e-5)
        assert (said.arm, said.seed, said.control) == (job.arm, job.seed, "none")


def test_arms_run_in_the_fixed_order_and_controls_last(world):
    config = world.config(arms="lora,vanilla,lora-vanilla,projected", controls="shrink,random", seeds="7,5")
    jobs = plan(config, ["--lr=0.1", "--project-at=update"])
    order = ("vanilla", "projected", "lora-vanilla", "lora", "projected-shrink", "projected-random")
    assert [job.name for job in jobs] == names(*order, seeds=(7, 5))
    assert all((job.settings.lr, job.settings.project_at) == (0.1, "update") for job in jobs)
    assert [job.settings.control for job in jobs[8:]] == ["shrink", "shrink", "random", "random"]
    loras = [(job.settings.arm, job.settings.gate) for job in jobs[4:8:2]]
    assert loras == [("lora", "none"), ("lora", "one-sided")]
    mine = plan(world.config(controls="random", control_arm="lora", seeds="7"), [])[-1]
    assert (mine.name, mine.settings.arm, mine.settings.control) == ("lora-random-s7", "lora", "random")


def test_every_arm_of_the_table_can_be_planned_and_has_its_own_coordinates(world):
    jobs = plan(world.config(arms=",".join(reversed(ARMS)), seeds="41"), ["--rank=3", "--monitor=attempt"])
    assert [job.arm for job in jobs] == list(ARMS)
    assert [job.coordinates for job in jobs] == [ARMS[job.arm].coordinates(3) for job in jobs]


def test_shrink_controls_only_an_arm_that_edits_the_update(world):
    with pytest.raises(InputError, match="add `-- --project-at=update`"):
        plan(world.config(controls="random,shrink"), [])
    job = plan(world.config(controls="shrink"), ["--project-at", "update"])[-1]
    assert job.settings.control == "shrink"


@pytest.mark.parametrize(
    ("arms", "noted"),
    [("vanilla,lora", True), ("vanilla,lora-vanilla,lora", False), ("vanilla,projected", False)],
)
def test_lora_without_its_own_baseline_is_noted(world, capsys, arms, noted):
    assert world.sweep(arms=arms, dry_run=True) == 0
    assert ("lora without lora-vanilla" in capsys.readouterr().out) is noted


@pytest.mark.parametrize(
    ("arms", "expected"),
    [
        (
            "vanilla,projected,lora-vanilla,lora",
            {
                "baseline": {"vanilla"},
                "first": {"projected"},
                "rest": {"lora-vanilla", "lora", "projected-random"},
            },
        ),
        (
            "vanilla,lora-vanilla,lora",
            {"baseline": {"vanilla", "lora-vanilla"}, "first": {"lora"}, "rest": {"projected-random"}},
        ),
        (
            "projected,lora-vanilla,lora",
            {"baseline": {"lora-vanilla"}, "first": {"lora"}, "rest": {"projected", "projected-random"}},
        ),
        ("vanilla,lora", {"baseline": {"vanilla"}, "first": {"lora"}, "rest": {"projected-random"}}),
        ("vanilla,lora-vanilla", {"baseline": {"vanilla"}, "rest": {"lora-vanilla", "projected-random"}}),
        ("projected", {"all": {"projected", "projected-random"}}),
    ],
)
def test_the_first_projecting_arm_waits_for_its_own_baseline(world, arms, expected):
    config = world.config(arms=arms, controls="random")
    groups = stages(plan(config, []), config)
    found = {name: {job.name.rpartition("-s")[0] for job in group} for name, group in groups.items()}
    assert found == expected


@pytest.mark.parametrize(
    ("flags", "settings", "what"),
    [
        (["--lr=0.5"], {}, r"vanilla-s41/config.json: .*lr 0.003, this sweep has 0.5"),
        ([], {"preset": "embedded"}, r"vanilla-s41/config.json: .*preset 'smoke', this sweep has 'embedded'"),
        (["--seed=1"], {}, "--seed=1 after --"),
        (["--bogus=1"], {}, "train.py .*--bogus=1.*Unrecognized options: --bogus"),
        ([], {"arms": "vanilla,nope"}, "'nope' is none of"),
        ([], {"controls": "nope"}, "--controls nope: 'nope' is none of random"),
        ([], {"controls": "none"}, "--controls none: not a control"),
        ([], {"seeds": "1,x"}, "--seeds 1,x: expected whole numbers"),
        ([], {"seeds": "1,1"}, "comes twice"),
        ([], {"seeds": "1,01"}, "comes twice"),
        ([], {"seeds": "-1"}, "--seed -1: must be at least 0"),
        ([], {"seeds": f"1,{2**63}"}, f"--seed {2**63}: must be below"),
        ([], {"seeds": ""}, "no run: --seeds and one of --arms and --controls need a value"),
        ([], {"arms": ""}, "no run: --seeds and one of --arms and --controls need a value"),
        ([], {"jobs": 0}, "--jobs 0: must be at least 1"),
        ([], {"measured": "no-such-dir"}, "no-such-dir.*no such file"),
        ([], {"measured": "nan"}, "nan: --measured needs a number"),
        (["--v-hack=missing.safetensors"], {}, "missing.safetensors: no such file"),
        (["--gate=none"], {"arms": "vanilla,lora"}, "that is --arms=lora-vanilla"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_starts(world, flags, settings, what):
    job = plan(world.config(arms="vanilla", seeds="41"), [])[0]
    write_json(job.path / "config.json", {"kind": "sampled", "config": dataclasses.asdict(job.settings)})
    write_json(job.path / "summary.json", {"finished": True, "steps": 4})
    with pytest.raises(InputError, match=what):
        sweep.sweep(world.config(**{"arms": "vanilla"} | settings), flags)
    assert world.started() == [] and not (world.out / "sweep.json").exists()


@pytest.mark.parametrize(
    ("settings", "passed", "what"),
    [
        ({"arms": "vanilla,lora"}, ["--v-hack=svd"], "in the coordinates svd, the lora arm needs lora r8"),
        ({"arms": "lora-vanilla"}, ["--v-hack=svd"], "the lora-vanilla arm needs lora r8"),
        # One file for two bases, the wrong one first or last.
        ({"arms": "lora", "controls": "random"}, ["--v-hack=svd"], "the lora arm needs lora r8"),
        (
            {"arms": "lora", "controls": "random"},
            ["--v-hack=lora"],
            "in the coordinates lora r8, the projected arm needs svd",
        ),
        (
            {"arms": "projected", "controls": "random", "control_arm": "lora"},
            ["--v-hack=svd"],
            "the lora arm needs lora r8",
        ),
        (
            {"arms": "vanilla,lora", "lora_v_hack": "lora"},
            ["--v-hack=svd", "--rank=4"],
            "in the coordinates lora r8, the lora arm needs lora r4",
        ),
    ],
)
def test_a_v_hack_in_other_coordinates_than_its_arms_is_refused(
    world, tmp_path, monkeypatch, settings, passed, what
):
    monkeypatch.chdir(tmp_path)
    v_file(tmp_path / "svd"), v_file(tmp_path / "lora", "lora r8")
    with pytest.raises(InputError, match=what):
        plan(world.config(**settings), passed)


def test_the_lora_arms_get_the_v_hack_of_their_own(world, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    v_file(tmp_path / "svd"), v_file(tmp_path / "lora", "lora r8")
    config = world.config(arms="vanilla,lora-vanilla,lora", controls="random", lora_v_hack="lora", seeds="41")
    found = {job.name: job.settings.v_hack for job in plan(config, ["--v-hack=svd"])}
    svd, lora = names("vanilla", "projected-random", seeds=[41]), names("lora-vanilla", "lora", seeds=[41])
    assert found == dict.fromkeys(svd, "svd") | dict.fromkeys(lora, "lora")


@pytest.mark.parametrize(
    ("flags", "code"),
    [("--help", 0), ("--arms=nonsense", 2), ("--controls=nope", 2), ("--jobs=0", 2), ("-- --lr=x", 2)],
)
def test_a_fault_in_the_flags_is_said_without_loading_what_computes(flags, code):
    assert loaded("sweep.py", *flags.split()) == (code, [])


def test_the_commands_of_the_readme_parse_and_mean_what_they_say(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    v, lora = v_file(tmp_path / "v.safetensors"), v_file(tmp_path / "v_lora.safetensors", "lora r8")
    measured_run(tmp_path / "RUN", [9, 36, 36], eval_samples=4)
    flags = ["--preset=full", "--dry-run"]
    assert sweep.main([*flags, "--measured=RUN", "--price-per-hour=4"]) == 0
    assert "to go: 18.15 hours of GPU" in capsys.readouterr().out  # 9 runs of 200 * 36 s + 60 s
    flags += ["--probe=out/probe_distill", "--controls=random,shrink", "--lora-v-hack=v_lora.safetensors"]
    command = [*flags, "--", "--v-hack=v.safetensors", "--project-at=update"]
    probe, model = tmp_path / "out" / "probe_distill", "Qwen/Qwen3-4B"
    good_probe(probe, v, model=model)
    assert sweep.main(command) == 3  # the lora arm's V is another, and nobody judged it
    way = "probe_distill.py --v-hack=v_lora.safetensors --arm=lora"
    assert f"{way} --gate=none and python {way}" in capsys.readouterr().out
    dice = random.Random(3)
    for gate in ("none", "one-sided"):
        rows, samples = replay_rows(dice, projected=gate != "none", cos_in=0.3), replay_samples(dice)
        probed(probe / f"lora-{gate}", lora, rows, samples, arm="lora", gate=gate, model=model)
    assert sweep.main(command) == 0
    out = capsys.readouterr().out
    assert out.count("GO: Phase 3 is justified") == 4  # once below its table, once as this sweep's verdict
    assert "lora without lora-vanilla" in out


def test_a_v_hack_that_was_moved_is_the_same_and_one_of_another_content_is_not(world, capsys):
    v, moved, other = (
        v_file(world.home / "v"),
        world.home / "moved",
        v_file(world.home / "other", made="anew"),
    )
    assert world.sweep(f"--v-hack={v}", seeds="41") == 0
    for run in world.out.glob("*-s41/config.json"):  # as the real train.py says it
        write_json(run, read_json(run) | {"v_hack": {"hash": file_hash(v)[:16]}})
    v.rename(moved)
    world.forget()
    assert world.sweep(f"--v-hack={moved}", seeds="41") == 0
    assert not world.calls()
    line = refused(capsys, lambda: world.sweep(f"--v-hack={other}", seeds="41"))
    assert f"vanilla-s41/config.json: a run with other settings: another content of {other}" in line
