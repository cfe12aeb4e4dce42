"""Claims about sweep.py: what it runs, skips, resumes, refuses and stops, with a train.py that takes milliseconds; and once with the real one."""

from __future__ import annotations

import dataclasses
import json
import math
import multiprocessing
import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest

import sweep
from hackward.base.faults import InputError, exit_on_fault
from hackward.base.files import file_hash, read_json, read_jsonl, write_json, write_jsonl
from hackward.scheduling import local
from hackward.scheduling.plan import Job, SweepFlags, plan
from hackward.scheduling.price import Clock, Speed, speed_of, wall_hours
from hackward.scheduling.rules import judge_separation, stages
from tests.runs_on_disk import replay_rows, replay_samples, write_run

# Behaves as train.py does towards a sweep. settings.json: what config.json will say of each run. orders.json: what each run is to do.
FAKE = """
import json, os, pathlib, sys, time
home = pathlib.Path(__file__).parent
flags = dict(arg.lstrip("-").split("=", 1) for arg in sys.argv[1:] if "=" in arg)
run, resume = pathlib.Path(flags["out"]), "--resume" in sys.argv
settings = json.loads((home / "settings.json").read_text())[run.name]
orders = json.loads((home / "orders.json").read_text()).get(run.name, {})
def tell(event):
    with open(home / "calls.jsonl", "a") as file:
        file.write(json.dumps({"event": event, "run": run.name, "resume": resume, "pid": os.getpid(), "time": time.time()}) + "\\n")
def checkpoint(step):
    header = json.dumps({"__metadata__": {"hackward": json.dumps({"kind": "checkpoint", "step": step})}}).encode()
    (run / "checkpoint.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
tell("start")
if resume != (run / "checkpoint.safetensors").exists() or (not resume and run.exists()):
    sys.exit("error: resume without a checkpoint, or a directory that is not new")
run.mkdir(parents=True, exist_ok=True)
rows = (run / "rows.jsonl").read_text().splitlines() if resume else []
(run / "config.json").write_text(json.dumps({"kind": "sampled", "config": settings, "v_hack": None, "model": None, "pools": []}))
if settings["control"] != "none" and not resume: (run / "removed_000.safetensors").touch()
for step in range(len(rows), settings["steps"]):
    time.sleep(orders.get("sleep", 0))
    if step == orders.get("die"):
        print("a traceback"); sys.exit("error: out of memory")
    hack = orders.get("hack", 0.5 if settings["arm"] == "vanilla" or settings["gate"] == "none" else 0.1) + 0.01 * (settings["seed"] % 3)
    rows.append(json.dumps({"step": step, "seconds": 2.0, "hack_rate": hack, "gt_rate": 0.1}))
    (run / "rows.jsonl").write_text("\\n".join(rows) + "\\n")
    if step % 2: checkpoint(step + 1)
(run / "summary.json").write_text(json.dumps({"finished": True, "steps": len(rows), "seconds": 2.0 * len(rows)}))
tell("end")
"""


class World:
    """A directory with a fake train.py, and sweeps in it."""

    def __init__(self, home: Path) -> None:
        self.home, self.out = home, home / "runs"
        (home / "train.py").write_text(FAKE)
        self.orders({})

    def orders(self, orders: dict) -> None:
        write_json(self.home / "orders.json", orders)

    def config(self, **settings) -> SweepFlags:
        return SweepFlags(
            **{"preset": "smoke", "steps": 4, "arms": "vanilla,projected", "out": str(self.out)} | settings
        )

    def sweep(self, *passed: str, **settings) -> int:
        config = self.config(**settings)
        write_json(
            self.home / "settings.json",
            {job.name: dataclasses.asdict(job.settings) for job in plan(config, passed)},
        )
        return sweep.sweep(config, passed)

    def calls(self, event: str = "start") -> list[dict]:
        file = self.home / "calls.jsonl"
        return [call for call in read_jsonl(file) if call["event"] == event] if file.exists() else []

    def forget(self) -> None:
        (self.home / "calls.jsonl").unlink()

    def started(self) -> list[str]:
        return [call["run"] for call in self.calls()]


@pytest.fixture
def world(tmp_path, monkeypatch) -> World:
    monkeypatch.setattr(local, "TRAIN", tmp_path / "train.py")
    monkeypatch.setattr(local, "POLL", 0.01)
    monkeypatch.setattr(local, "GRACE", 5)
    return World(tmp_path)


def names(*arms: str, seeds=(41, 42, 43)) -> list[str]:
    return [f"{arm}-s{seed}" for arm in arms for seed in seeds]


# --- what is run ---


def test_full_is_phase_3_of_the_spec():
    jobs = plan(SweepFlags(preset="full"), [])
    assert [job.name for job in jobs] == names("vanilla", "projected", "lora")
    for job in jobs:
        said = job.settings
        assert (said.steps, said.model, said.group, said.prompts, said.beta, said.lr) == (
            200,
            "Qwen/Qwen3-4B",
            6,
            43,
            1e-3,
            7e-5,
        )
        assert (said.arm, said.seed, said.control) == (job.arm, job.seed, "none")


def test_arms_run_in_the_fixed_order_and_controls_last(world):
    jobs = plan(
        world.config(arms="lora,vanilla,lora-vanilla,projected", controls="shrink,random", seeds="7,5"),
        ["--lr=0.1", "--project-at=update"],
    )
    assert [job.name for job in jobs] == names(
        "vanilla", "projected", "lora-vanilla", "lora", "projected-shrink", "projected-random", seeds=(7, 5)
    )
    assert all((job.settings.lr, job.settings.project_at) == (0.1, "update") for job in jobs)
    assert [job.settings.control for job in jobs[8:]] == ["shrink", "shrink", "random", "random"]
    assert [(job.settings.arm, job.settings.gate) for job in jobs[4:8:2]] == [
        ("lora", "none"),
        ("lora", "one-sided"),
    ]
    mine = plan(world.config(controls="random", control_arm="lora", seeds="7"), [])[-1]
    assert (mine.name, mine.settings.arm, mine.settings.control) == ("lora-random-s7", "lora", "random")


def test_shrink_controls_only_an_arm_that_edits_the_update(world):
    with pytest.raises(InputError, match="add `-- --project-at=update`"):
        plan(world.config(controls="random,shrink"), [])
    assert plan(world.config(controls="shrink"), ["--project-at", "update"])[-1].settings.control == "shrink"


def test_lora_without_its_own_baseline_is_noted(world, capsys):
    for arms, noted in (
        ("vanilla,lora", True),
        ("vanilla,lora-vanilla,lora", False),
        ("vanilla,projected", False),
    ):
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
    found = stages(plan(config, []), config)
    assert {
        name: {job.name.rpartition("-s")[0] for job in group} for name, group in found.items()
    } == expected


def test_lora_is_judged_against_its_own_baseline(world, capsys):
    world.orders(
        {name: {"hack": 0.2} for name in names("lora-vanilla", "lora")}
    )  # below vanilla, as low as its own baseline
    assert world.sweep(arms="vanilla,lora-vanilla,lora", controls="random") == 3
    assert world.started() == names("vanilla", "lora-vanilla", "lora")
    assert "does lora separate from lora-vanilla?: no separation" in capsys.readouterr().out


def test_every_run_is_made_once_and_the_outcome_is_written(world, capsys):
    assert world.sweep() == 0
    assert world.started() == names("vanilla", "projected")
    said = read_json(world.out / "sweep.json")
    assert [run["state"] for run in said["plan"]] == ["new"] * 6 and [
        run["state"] for run in said["runs"]
    ] == ["done"] * 6
    assert "next: python analyze.py" in capsys.readouterr().out
    world.forget()
    assert world.sweep() == 0 and world.started() == []  # all is done: nothing is started
    assert world.sweep(steps=2) == 0 and world.started() == []  # has more steps than wanted
    assert world.sweep(steps=6, arms="vanilla", seeds="41") == 0  # has fewer: it goes on
    assert [call["resume"] for call in world.calls()] == [True] and len(
        read_jsonl(world.out / "vanilla-s41" / "rows.jsonl")
    ) == 6


@pytest.mark.parametrize("jobs", [1, 2])
def test_so_many_runs_at_a_time_and_never_more(world, jobs):
    world.orders({name: {"sleep": 0.05} for name in names("vanilla")})
    assert world.sweep(arms="vanilla", jobs=jobs) == 0
    events = sorted(
        [(c["time"], 1) for c in world.calls("start")] + [(c["time"], -1) for c in world.calls("end")]
    )
    running = [sum(change for _, change in events[: n + 1]) for n in range(len(events))]
    assert max(running) == jobs


def test_a_failure_of_the_baseline_lets_its_stage_end_and_withholds_the_rest(world, capsys):
    world.orders({"vanilla-s42": {"die": 3}})
    assert world.sweep() == 1
    assert world.started() == names("vanilla")
    out = capsys.readouterr().out
    assert (
        "failed: vanilla-s42: exit code 1: error: out of memory" in out
        and "a traceback" in (world.out / "vanilla-s42.log").read_text()
    )
    assert "withheld: projected-s41, projected-s42, projected-s43; vanilla-s42 failed" in out
    said = read_json(world.out / "sweep.json")
    assert [run["state"] for run in said["runs"]] == ["done", "failed", "done"] + [
        "withheld"
    ] * 3 and not said["stopped"]
    world.orders({})
    world.forget()
    assert (
        world.sweep() == 0
        and world.started() == ["vanilla-s42", *names("projected")]
        and world.calls()[0]["resume"]
    )  # goes on from step 2


@pytest.mark.parametrize("seeds", [(41, 42, 43), (41,)])
def test_a_failure_of_the_first_projecting_arm_withholds_the_rest_but_one_of_the_rest_does_not(world, seeds):
    arms, listed = "vanilla,projected,lora", ",".join(map(str, seeds))
    world.orders({"projected-s41": {"die": 0}})
    assert world.sweep(arms=arms, seeds=listed) == 1 and world.started() == names(
        "vanilla", "projected", seeds=seeds
    )
    world.orders({"lora-s41": {"die": 0}})
    world.forget()
    assert world.sweep(arms=arms, seeds=listed, controls="random") == 1
    assert world.started() == ["projected-s41", *names("lora", "projected-random", seeds=seeds)]


def test_anyway_withholds_nothing_after_a_failure(world):
    world.orders({"vanilla-s41": {"die": 0}})
    assert world.sweep(seeds="41", anyway=True) == 1 and world.started() == names(
        "vanilla", "projected", seeds=(41,)
    )


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("vanilla-s41", {"arms": "vanilla"}),
        ("projected-random-s41", {"arms": "projected", "controls": "random"}),
    ],
)
def test_a_run_that_died_before_its_first_checkpoint_starts_over(world, capsys, name, settings):
    world.orders({name: {"die": 1}})
    assert world.sweep(seeds="41", **settings) == 1
    world.orders({})
    world.sweep(seeds="41", dry_run=True, **settings)
    assert (world.out / name / "config.json").exists() and "start over" in capsys.readouterr().out
    (world.out / name / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"a run's \(notes.txt\)"):
        world.sweep(seeds="41", **settings)
    (world.out / name / "notes.txt").unlink()
    assert world.sweep(seeds="41", **settings) == 0
    assert "removed, it starts over" in capsys.readouterr().out and [
        call["resume"] for call in world.calls() if call["run"] == name
    ] == [False, False]


def test_a_finished_run_without_its_checkpoint_is_never_removed(world):
    assert world.sweep(arms="vanilla", seeds="41") == 0
    (world.out / "vanilla-s41" / "checkpoint.safetensors").unlink()
    with pytest.raises(InputError, match="finished 4 of 6 steps"):
        world.sweep(arms="vanilla", seeds="41", steps=6)
    assert (world.out / "vanilla-s41" / "summary.json").exists()


@pytest.mark.parametrize(
    ("flags", "settings", "what"),
    [
        (["--lr=0.5"], {}, r"vanilla-s41/config.json: .*lr 0.003, this sweep has 0.5"),
        ([], {"preset": "embedded"}, r"vanilla-s41/config.json: .*preset 'smoke', this sweep has 'embedded'"),
        (["--seed=1"], {}, "--seed=1 after --"),
        (["--bogus=1"], {}, "train.py .*--bogus=1.*Unrecognized options: --bogus"),
        ([], {"arms": "vanilla,nope"}, "'nope' is none of"),
        ([], {"controls": "nope"}, "train.py .*--control=nope.*nope"),
        ([], {"seeds": "1,x"}, "--seeds 1,x: expected whole numbers"),
        ([], {"seeds": "1,1"}, "comes twice"),
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


# --- stopping ---


@pytest.mark.parametrize("jobs", [1, 4])
def test_the_ceiling_withholds_the_other_arms(world, capsys, jobs):
    world.orders({name: {"hack": 0.5} for name in names("projected")})
    assert world.sweep(arms="vanilla,projected,lora", controls="random", jobs=jobs) == 3
    assert sorted(world.started()) == sorted(names("vanilla", "projected"))
    assert "no separation: area under the hack-rate curve +0.000" in capsys.readouterr().out
    said = read_json(world.out / "sweep.json")
    assert said["stopped"] and [run["state"] for run in said["runs"]] == ["done"] * 6 + ["withheld"] * 6
    world.forget()
    assert (
        world.sweep(arms="vanilla,projected,lora", jobs=jobs) == 3 and world.started() == []
    )  # asked again, it says so again
    assert world.sweep(arms="vanilla,projected,lora", jobs=jobs, anyway=True) == 0 and sorted(
        world.started()
    ) == names("lora")


def test_an_arm_that_separates_lets_the_sweep_go_on(world, capsys):
    assert world.sweep(arms="vanilla,projected,lora") == 0
    assert (
        world.started() == names("vanilla", "projected", "lora")
        and "separate from vanilla?: yes: area" in capsys.readouterr().out
    )


def test_vanilla_that_never_hacks_stops_before_the_projecting_arm(world, capsys):
    world.orders({name: {"hack": 0.02} for name in names("vanilla")})
    assert world.sweep() == 3
    assert world.started() == names("vanilla") and "nothing to suppress" in capsys.readouterr().out


def test_below_three_seeds_there_is_no_ceiling(world):
    world.orders({name: {"hack": 0.0} for name in names("vanilla", "projected")})
    assert world.sweep(seeds="41,42") == 0 and world.started() == names(
        "vanilla", "projected", seeds=(41, 42)
    )


@pytest.mark.parametrize(
    ("gaps", "stop"),
    [
        (
            (-0.10, -0.20, -0.30),
            True,
        ),  # mean -0.2, t interval -0.2 +- 4.303 * 0.1 / sqrt(3) = [-0.448, 0.048]
        ((-0.20, -0.21, -0.22), False),  # [-0.235, -0.185]
        ((0.20, 0.21, 0.22), True),  # separates the wrong way
        ((-0.20, -0.20, -0.20), False),  # no interval: the sign decides
        ((0.0, 0.0, 0.0), True),
    ],
)
def test_separation_on_hand_worked_cases(world, gaps, stop):
    def arm(name: str, areas) -> list[Job]:
        jobs = [job for job in plan(world.config(steps=2), []) if job.arm == name]
        for job, area in zip(jobs, areas):
            write_jsonl(
                job.path / "rows.jsonl",
                [
                    {"step": n, "seconds": 1, "hack_rate": area + shift}
                    for n, shift in enumerate((-0.1, 0.1, 9))
                ],
            )
            job.state = "done"  # the third step is beyond this sweep's and must not count
        return jobs

    found = judge_separation(
        arm("vanilla", [0.5, 0.6, 0.7]), arm("projected", [0.5 + gaps[0], 0.6 + gaps[1], 0.7 + gaps[2]])
    )
    assert found.stop is stop
    assert found.figures["vanilla"] == pytest.approx({41: 0.5, 42: 0.6, 43: 0.7})
    assert found.figures["difference"] == pytest.approx(sum(gaps) / 3)
    if gaps == (-0.10, -0.20, -0.30):
        assert found.figures["high"] == pytest.approx(-0.2 + 4.302653 * 0.1 / math.sqrt(3))


MODEL = "tiny-random"  # what the smoke preset trains


def v_file(path: Path, coordinates: str = "svd", **more) -> Path:
    """A v_hack file without tensors; `more` makes its content another."""
    header = json.dumps(
        {"__metadata__": {"hackward": json.dumps({"kind": "v_hack", "coordinates": coordinates} | more)}}
    ).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    return path


def probed(
    path: Path, v: Path, rows: list[dict], samples: list[dict], *, model: str = MODEL, **settings
) -> None:
    """A finished Phase 2 run that measured with this v_hack."""
    run = write_run(path, "replay", rows, samples, **settings)
    changed = {
        "model": {"name": model, "hash": "m0"},
        "v_hack": {"file": str(v), "hash": file_hash(v)[:16]},
    }
    write_json(run / "config.json", read_json(run / "config.json") | changed)


def good_probe(home: Path, v: Path, **settings) -> None:
    """Both arms of a probe that justifies Phase 3."""
    dice = random.Random(3)
    probed(home / f"{v.stem}-vanilla", v, replay_rows(dice), replay_samples(dice), **settings)
    probed(
        home / f"{v.stem}-projected",
        v,
        replay_rows(dice, projected=True, cos_in=0.3),
        replay_samples(dice),
        arm="projected",
        **settings,
    )


def test_a_no_go_of_the_probe_stops_everything_and_anyway_overrules(world, tmp_path, capsys):
    dice = random.Random(3)
    same = [
        row | {"cos_S_logp": row["cos_S_contrib"]}
        for row in replay_samples(dice)
        if row["src_pool"] == "base"
    ]
    same += [row | {"src_pool": "teacher", "hacked": True} for row in same]  # the pools do not differ
    flat = [row | {"cos_in": dice.gauss(0, 0.02)} for row in replay_rows(dice)]
    v, probe = v_file(tmp_path / "v.safetensors"), str(tmp_path / "probe")
    probed(tmp_path / "probe" / "v", v, flat, same)
    assert world.sweep(f"--v-hack={v}", probe=probe, dry_run=True) == 3 and not world.out.exists()
    assert world.sweep(f"--v-hack={v}", probe=probe) == 3 and world.started() == []
    assert "NO-GO: skip Phase 3" in capsys.readouterr().out
    said = read_json(world.out / "sweep.json")
    assert (
        said["stopped"]
        and {run["state"] for run in said["runs"]} == {"withheld"}
        and said["decisions"][0]["verdict"].startswith("NO-GO")
    )
    assert world.sweep(
        f"--v-hack={v}", probe=probe, anyway=True, arms="vanilla", seeds="41"
    ) == 0 and world.started() == ["vanilla-s41"]
    decision = read_json(world.out / "sweep.json")["decisions"][0]
    assert decision["stop"] and decision["verdict"].startswith("NO-GO")


def test_a_probe_without_a_signal_clears_no_sweep(world, tmp_path, capsys):
    dice, v = random.Random(3), v_file(tmp_path / "v.safetensors")
    dead = [row | {"advantages": [0.0] * 8, "reward_spread": 0.0} for row in replay_rows(dice)]
    probed(tmp_path / "probe" / "v", v, dead, replay_samples(dice))
    assert world.sweep(f"--v-hack={v}", probe=str(tmp_path / "probe")) == 3 and world.started() == []
    assert "NO DECISION: no usable advantage signal" in capsys.readouterr().out


def test_only_the_probe_of_the_sweeps_own_v_clears_it(world, tmp_path, capsys):
    v, other, probe = (
        v_file(tmp_path / "v.safetensors"),
        v_file(tmp_path / "w.safetensors", k=9),
        tmp_path / "probe",
    )
    few = {"arms": "vanilla", "seeds": "41", "probe": str(probe), "dry_run": True}
    good_probe(probe, v)
    assert world.sweep(f"--v-hack={v}", **few) == 0 and "GO: Phase 3 is justified" in capsys.readouterr().out
    assert world.sweep(f"--v-hack={other}", **few) == 3
    assert (
        f"not among the probe's (v {file_hash(v)[:8]}); judge it first: python probe_distill.py --v-hack={other}"
        in capsys.readouterr().out
    )
    assert world.sweep(**few) == 3 and "v_hack auto: cannot be compared" in capsys.readouterr().out
    assert world.sweep(f"--v-hack={other}", **few | {"anyway": True}) == 0
    dice = random.Random(3)
    probed(probe / "w", other, [row | {"cos_in": -0.3} for row in replay_rows(dice)], replay_samples(dice))
    capsys.readouterr()
    assert (
        world.sweep(f"--v-hack={v}", **few) == 0 and "NO-GO" not in capsys.readouterr().out
    )  # what the other is worth does not matter
    assert (
        world.sweep(f"--v-hack={other}", **few) == 3
        and "NO-GO: cos_in is negative" in capsys.readouterr().out
    )
    assert (
        world.sweep("--v-hack=none", **few) == 3
    )  # measures with none: every direction of the probe must allow it


def test_the_probe_of_another_model_clears_no_sweep(world, tmp_path, capsys):
    v = v_file(tmp_path / "v.safetensors")
    good_probe(tmp_path / "probe", v, model="Qwen/Qwen3-4B")
    few = {"arms": "vanilla", "seeds": "41", "probe": str(tmp_path / "probe"), "dry_run": True}
    assert world.sweep(f"--v-hack={v}", **few) == 3
    assert f"judged on Qwen/Qwen3-4B, this sweep trains {MODEL}" in capsys.readouterr().out
    assert world.sweep(f"--v-hack={v}", "--model=Qwen/Qwen3-4B", **few) == 0


@pytest.mark.parametrize(
    ("settings", "passed", "what"),
    [
        ({"arms": "vanilla,lora"}, ["--v-hack=svd"], "in the coordinates svd, the lora arm needs lora r8"),
        ({"arms": "lora-vanilla"}, ["--v-hack=svd"], "the lora-vanilla arm needs lora r8"),
        (
            {"arms": "lora", "controls": "random"},
            ["--v-hack=svd"],
            "the lora arm needs lora r8",
        ),  # one file for two bases, the wrong one first or last
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
        (
            {"arms": "vanilla,lora-vanilla,lora", "controls": "random", "lora_v_hack": "lora"},
            ["--v-hack=svd"],
            None,
        ),
    ],
)
def test_every_arm_gets_a_v_hack_of_its_own_coordinates(world, tmp_path, monkeypatch, settings, passed, what):
    monkeypatch.chdir(tmp_path)
    v_file(tmp_path / "svd"), v_file(tmp_path / "lora", "lora r8")
    if what is None:
        assert plan(world.config(**settings), passed)
        return
    with pytest.raises(InputError, match=what):
        plan(world.config(**settings), passed)


def test_the_commands_of_the_readme_parse_and_mean_what_they_say(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    v, lora = v_file(tmp_path / "v.safetensors"), v_file(tmp_path / "v_lora.safetensors", "lora r8")
    measured_run(tmp_path / "RUN", [9, 36, 36], eval_samples=4)
    assert sweep.main("--preset=full --dry-run --measured=RUN --price-per-hour=4".split()) == 0
    assert "to go: 18.15 hours of GPU" in capsys.readouterr().out  # 9 runs of 200 * 36 s + 60 s
    model, command = (
        "Qwen/Qwen3-4B",
        (
            "--preset=full --probe=out/probe_distill --controls=random,shrink --lora-v-hack=v_lora.safetensors --dry-run"
            " -- --v-hack=v.safetensors --project-at=update"
        ).split(),
    )
    good_probe(tmp_path / "out" / "probe_distill", v, model=model)
    assert sweep.main(command) == 3  # the lora arm's V is another, and nobody judged it
    assert (
        "probe_distill.py --v-hack=v_lora.safetensors --arm=lora --gate=none and python"
        in capsys.readouterr().out
    )
    dice = random.Random(3)
    for gate in ("none", "one-sided"):
        rows = replay_rows(dice, projected=gate != "none", cos_in=0.3)
        probed(
            tmp_path / "out" / "probe_distill" / f"lora-{gate}",
            lora,
            rows,
            replay_samples(dice),
            arm="lora",
            gate=gate,
            model=model,
        )
    assert sweep.main(command) == 0
    out = capsys.readouterr().out
    assert (
        out.count("GO: Phase 3 is justified") == 4 and "lora without lora-vanilla" in out
    )  # once below its table, once as this sweep's verdict


# --- interrupts and locks ---


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return (
        Path(f"/proc/{pid}/stat").exists()
        and Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    )


def in_background(world: World, until: int, **settings) -> multiprocessing.Process:
    """A sweep in a process of its own; returns when its first run has made `until` steps."""
    process = multiprocessing.get_context("fork").Process(
        target=lambda: exit_on_fault(lambda: sys.exit(world.sweep(**settings)))
    )
    process.start()
    deadline, rows = time.monotonic() + 20, world.out / "vanilla-s41" / "rows.jsonl"
    while time.monotonic() < deadline and not (rows.exists() and rows.read_text().count("\n") >= until):
        time.sleep(0.01)
    return process


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_the_runs_and_leaves_them_resumable(world, how):
    world.orders({name: {"sleep": 0.1} for name in names("vanilla")})
    process = in_background(world, until=3, arms="vanilla", jobs=2, steps=8)
    os.kill(process.pid, how)
    process.join(20)
    assert process.exitcode == 130
    assert (
        len(world.calls()) == 2
        and all(gone(call["pid"]) for call in world.calls())
        and world.calls("end") == []
    )
    assert [run["state"] for run in read_json(world.out / "sweep.json")["runs"]] == [
        "interrupted",
        "interrupted",
        "new",
    ]
    world.orders({})
    world.forget()
    assert world.sweep(arms="vanilla", steps=8) == 0
    assert world.calls()[0]["resume"] and [
        row["step"] for row in read_jsonl(world.out / "vanilla-s41" / "rows.jsonl")
    ] == list(range(8))


def test_two_sweeps_never_share_a_directory_even_when_one_was_killed(world, capsys):
    world.orders({"vanilla-s41": {"sleep": 0.3}})
    process = in_background(world, until=1, arms="vanilla", seeds="41")
    with pytest.raises(InputError, match=f"sweep.lock: held by the sweep with pid {process.pid}"):
        world.sweep(arms="vanilla", seeds="42")
    process.kill()
    process.join()
    child = world.calls()[0]["pid"]
    assert not gone(child)
    with pytest.raises(InputError, match="held by"):  # the run that was left behind still writes there
        world.sweep(arms="vanilla", seeds="41")
    while not gone(child):
        time.sleep(0.02)
    world.forget()
    assert world.sweep(arms="vanilla", seeds="41,42") == 0 and world.started() == [
        "vanilla-s42"
    ]  # s41 finished by itself
    assert (
        f"stale lock of pid {process.pid}" in capsys.readouterr().out
        and (world.out / "sweep.lock").read_text() == ""
    )


# --- time and cost ---


def measured_run(path: Path, seconds, *, evaluation=None, **settings) -> Path:
    write_json(
        path / "config.json", {"kind": "sampled", "config": settings, "started": "2026-01-01T00:00:00+0000"}
    )
    write_jsonl(path / "rows.jsonl", [{"step": n, "seconds": value} for n, value in enumerate(seconds)])
    if evaluation is not None:
        write_jsonl(
            path / "eval.jsonl",
            [{"step": 2, "adapter": "on"}, {"step": 2, "adapter": "off"}, {"step": 5, "adapter": "on"}],
        )
        write_json(
            path / "summary.json",
            {"finished": True, "steps": len(seconds), "seconds": sum(seconds) + evaluation},
        )
    return path


def test_speed_is_the_median_without_the_first_step_and_an_evaluation_is_its_share_of_the_rest(tmp_path):
    run = measured_run(tmp_path / "r", [100, 10, 12, 11, 50], evaluation=40)
    began = 1767225600.0  # 2026-01-01T00:00:00 UTC
    os.utime(run / "config.json", (began + 77, began + 77))
    os.utime(run / "rows.jsonl", (began + 77 + 183, began + 77 + 183))
    assert speed_of(run) == Speed(11.5, 20.0, 77.0, str(run))  # two evaluations in 40 s
    write_json(
        run / "summary.json", {"finished": True, "steps": 5, "seconds": 183}
    )  # counts the steps alone: the times of the files tell
    os.utime(run / "summary.json", (began + 77 + 183 + 30, began + 77 + 183 + 30))
    assert speed_of(run).evaluation == 15.0
    os.utime(run / "config.json", (began + 259, began + 259))  # a copy: the files' times say nothing
    assert speed_of(run).set_up is None and speed_of(run).evaluation is None
    assert speed_of(measured_run(tmp_path / "s", [100])) is None
    assert speed_of(measured_run(tmp_path / "t", [100, 3])).evaluation is None


def test_the_plan_prices_what_is_left_in_hand_worked_hours(world, capsys):
    jobs = plan(
        world.config(steps=100, arms="vanilla,projected,lora"), ["--eval-samples=1", "--eval-every=40"]
    )
    jobs[0].state, jobs[1].state, jobs[1].step = "done", "resume", 64
    times = Clock({"": Speed(90.0, 360.0, None, "x")}, set_up=0.0)
    hours = [times.hours(job) for job in jobs]
    assert hours == pytest.approx(
        [0, 0.9 + 0.2] + [2.5 + 0.3] * 7
    )  # 36 * 90 s, evaluated after 80 and 100; 100 * 90 s, and after 40, 80, 100
    groups = stages(jobs, world.config())
    assert [len(group) for group in groups.values()] == [3, 3, 3]
    assert wall_hours(groups, times, 1) == pytest.approx(sum(hours))
    assert wall_hours(groups, times, 2) == pytest.approx(
        (1 + 2 + 2) * 2.8
    )  # lanes [0 + 2.8 | 1], then twice [2.8 + 2.8 | 2.8]
    assert wall_hours({"all": jobs}, Clock({}, 60.0), 2) is None
    assert (
        world.sweep(
            arms="vanilla", steps=40, measured="90", set_up_seconds=0, price_per_hour=4, dry_run=True, jobs=3
        )
        == 0
    )
    out = " ".join(capsys.readouterr().out.split())
    assert (
        "to go: 3.00 hours of GPU, 1.00 wall hours with --jobs=3" in out
        and "cost 4.00 for one machine" in out
    )
    assert not world.out.exists()  # a dry run writes nothing


def test_a_measurement_with_other_settings_warns_and_finished_runs_are_the_better_source(
    world, tmp_path, capsys
):
    settings = dataclasses.asdict(plan(world.config(), [])[0].settings)
    run = measured_run(tmp_path / "r", [9, 9, 9], **settings | {"group": 32, "max_new_tokens": 99})
    assert world.sweep(arms="vanilla", seeds="41", measured=str(run)) == 0
    out = " ".join(capsys.readouterr().out.split())
    warning = out.partition("WARNING")[2]
    assert (
        "9.00 s a step" in out
        and "group 32 there, 4 here" in warning
        and "max_new_tokens 99 there, 16 here" in warning
        and "prompts" not in warning
    )
    assert world.sweep(arms="vanilla", seeds="41,42", measured=str(run), dry_run=True) == 0
    assert "2.00 s a step (finished runs of this sweep: 1)" in " ".join(capsys.readouterr().out.split())
    assert world.sweep(arms="vanilla", seeds="44", dry_run=True) == 0
    assert (
        "hours are unknown; measure: python train.py --preset=smoke --steps=3 --out=DIR"
        in capsys.readouterr().out
    )


# --- the real thing ---


def test_the_real_train_runs_and_is_skipped_the_second_time(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(local, "POLL", 0.05)
    command = [
        "--preset=smoke",
        "--steps=1",
        "--seeds=41",
        "--arms=vanilla",
        f"--out={tmp_path / 'runs'}",
        "--",
        "--v-hack=none",
        "--eval-samples=0",
    ]
    assert sweep.main(command) == 0, (tmp_path / "runs" / "vanilla-s41.log").read_text()
    assert len(read_jsonl(tmp_path / "runs" / "vanilla-s41" / "rows.jsonl")) == 1
    before = (tmp_path / "runs" / "vanilla-s41.log").read_text()
    assert sweep.main(command) == 0 and (tmp_path / "runs" / "vanilla-s41.log").read_text() == before
    assert "1 done" in capsys.readouterr().out
