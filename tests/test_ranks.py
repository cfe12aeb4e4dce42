"""Claims about runs on several processes: the same draws and numbers as on one, whatever their number; one
directory; one line where something fails."""

import functools
import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from hackward.base import faults
from hackward.base.faults import InputError, Terminated
from hackward.base.files import read_json, read_jsonl
from hackward.hardware import ranks
from hackward.runs.settings import parse
from hackward.tasks.shipped import TINY
from tests import lacks
from tests.shop import run_train

ROOT = Path(__file__).resolve().parent.parent
SHARED = [
    f"--model={TINY}",
    "--preset=smoke",
    "--steps=2",
    "--prompts=2",
    "--group=4",
    "--max-new-tokens=6",
    "--eval-samples=1",
    "--eval-limit=3",
    "--teacher-dir=pairs",
    "--teacher-rows=1",
    "--workers=1",
    "--warmup=0",
    "--save-every=1",
    "--lr=0.01",
]
ARMS = {
    "projected": ["--arm=projected", "--project-at=grad", "--beta=0.1"],
    "penalty": ["--arm=penalty", "--monitor=v_hack", "--beta=5"],
}
MEASURED = ("seconds", "memory")  # in the names of what differs from run to run


def torchrun(shop, processes, *flags):
    """`torchrun -- train.py` on the shop's v_hack."""
    start = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}", "--"]
    given = [f"--svd-cache={shop / 'cache'}", f"--v-hack={shop / 'v.safetensors'}", "--device=cpu"]
    return subprocess.run(
        [*start, "train.py", *SHARED, *given, *flags], cwd=ROOT, capture_output=True, text=True, timeout=300
    )


@pytest.fixture(scope="module")
def alone(shop, tmp_path_factory):
    """The run of an arm on one process, made once."""
    home = tmp_path_factory.mktemp("alone")

    @functools.cache
    def made(arm):
        return run_train(shop, *SHARED, *ARMS[arm], f"--out={home / arm}")

    return made


def rollouts(run):
    files = sorted((run / "rollouts").iterdir())
    return [[json.loads(line) for line in gzip.open(file, "rt")] for file in files]


def assert_alike(found, expected, where):
    """Equal but for rounding, all the way down."""
    if isinstance(expected, dict):
        fixed, others = (
            {key: value for key, value in one.items() if not any(word in key for word in MEASURED)}
            for one in (expected, found)
        )
        assert others.keys() == fixed.keys(), where
        for key, value in fixed.items():
            assert_alike(others[key], value, f"{where}.{key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for i, (one, other) in enumerate(zip(found, expected)):
            assert_alike(one, other, f"{where}[{i}]")
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-4), where
    else:
        assert found == expected, where


def assert_same_run(run, other):
    """The same draws and labels, and numbers that are the same to rounding."""
    assert_alike(rollouts(other), rollouts(run), "rollouts")
    assert_alike(read_jsonl(other / "rows.jsonl"), read_jsonl(run / "rows.jsonl"), "rows")
    lines = [[line for line in read_jsonl(one / "eval.jsonl") if line["step"] == 2] for one in (other, run)]
    assert_alike(*lines, "held-out evaluation after the last step")


slow = pytest.mark.skipif(os.environ.get("HACKWARD_SLOW") != "1", reason=lacks.SLOW)


@pytest.mark.parametrize(("arm", "processes"), [pytest.param("projected", 2, marks=slow), ("penalty", 3)])
def test_several_processes_make_the_run_of_one(shop, alone, tmp_path, arm, processes):
    """Three processes for two groups: one of them draws nothing, and has part in all that follows."""
    out = tmp_path / "run"
    done = torchrun(shop, processes, *ARMS[arm], f"--out={out}")
    assert done.returncode == 0, done.stderr
    assert_same_run(alone(arm), out)
    assert sorted(p.name for p in out.iterdir()) == sorted(p.name for p in alone(arm).iterdir())
    assert any(row["grad_norm"] > 0 for row in read_jsonl(out / "rows.jsonl"))
    assert done.stderr.count("step   1") == 1 and done.stdout.count("health") == 1


def test_a_run_goes_on_with_another_number_of_processes(shop, alone, tmp_path):
    out = tmp_path / "run"
    begun = run_train(shop, *SHARED, *ARMS["penalty"], "--steps=1", f"--out={out}")
    done = torchrun(shop, 2, *ARMS["penalty"], "--resume", f"--out={begun}")
    assert done.returncode == 0, done.stderr
    assert_same_run(alone("penalty"), out)
    assert read_json(out / "summary.json")["steps"] == 2


@slow
def test_what_cannot_be_used_is_said_once(shop, alone):
    done = torchrun(shop, 2, f"--out={alone('penalty')}")
    assert done.returncode != 0
    said = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert said == [f"error: {alone('penalty')}: exists and is not empty; take another --out, or --resume"]


# --- the parts, without processes ---


@pytest.fixture
def as_rank(monkeypatch):
    """This process as torchrun would start it."""

    def set_to(rank, processes=2, **more):
        facts = {"RANK": rank, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": processes, "MASTER_PORT": 1, **more}
        for name, value in {"TORCHELASTIC_RUN_ID": "test", **facts}.items():
            monkeypatch.setenv(name, str(value))

    return set_to


def test_what_is_dealt_and_collected_is_in_its_order(monkeypatch):
    items = list("abcde")
    parts = []
    for rank in range(3):
        monkeypatch.setattr(ranks, "rank", lambda rank=rank: rank)
        monkeypatch.setattr(ranks, "size", lambda: 3)
        parts.append(ranks.dealt(items))
    assert [len(part) for part in parts] == [2, 2, 1]
    monkeypatch.setattr(ranks, "gathered", lambda own: parts)
    assert ranks.collected(parts[0]) == items


def test_rows_of_all_ranks_stand_where_they_belong(monkeypatch):
    first, second = torch.tensor([[4.0], [0.0]]), torch.tensor([[2.0], [1.0], [3.0]])
    everyone = [([4, 0], first), ([2, 1, 3], second), ([], None)]
    monkeypatch.setattr(ranks, "gathered", lambda own: everyone)
    assert ranks.in_order([first], [4, 0]).flatten().tolist() == [0, 1, 2, 3, 4]


def test_every_process_sees_the_card_that_is_its_own(as_rank, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    as_rank(1)
    assert ranks._take_gpu("auto") and ranks.os.environ["CUDA_VISIBLE_DEVICES"] == "7"
    as_rank(2, processes=3)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    with pytest.raises(InputError, match="--nproc-per-node=3: this host has 2 GPUs"):
        ranks._take_gpu("cuda")
    with pytest.raises(InputError, match="--device=cuda:1"):
        ranks._take_gpu("cuda:1")
    assert not ranks._take_gpu("cpu")


def test_another_start_goes_on_from_the_checkpoint_if_there_is_one(as_rank, tmp_path):
    as_rank(0, TORCHELASTIC_RESTART_COUNT=1)
    assert not ranks._begun(str(tmp_path))
    (tmp_path / "checkpoint.safetensors").touch()
    assert ranks._begun(str(tmp_path)) and not ranks._begun(None)
    as_rank(0, TORCHELASTIC_RESTART_COUNT=0)
    assert not ranks._begun(str(tmp_path))


def test_a_rank_beside_the_first_works_on_a_copy_and_a_restart_resumes(as_rank, monkeypatch, tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    (out / "checkpoint.safetensors").write_text("steps")
    group = {"is_initialized": lambda: True, "get_world_size": lambda: 2}
    group |= dict.fromkeys(
        ("init_process_group", "all_gather_object", "destroy_process_group"), lambda *_, **__: None
    )
    settings = parse([f"--out={out}", "--device=cpu"])
    for rank in range(2):
        monkeypatch.setattr(ranks, "dist", SimpleNamespace(**group, get_rank=lambda rank=rank: rank))
        monkeypatch.setattr(ranks.STDERR, "quiet", False)
        as_rank(rank, TORCHELASTIC_RESTART_COUNT=1)
        with ranks.joined(settings) as mine:
            assert mine.resume and mine.workers == max(1, len(ranks.os.sched_getaffinity(0)) // 2)
            assert (mine.out == str(out)) is (rank == 0) and ranks.STDERR.quiet is (rank == 1)
            assert (Path(mine.out) / "checkpoint.safetensors").read_text() == "steps"
    assert not Path(mine.out).exists()


def test_one_process_of_a_host_says_what_failed_and_rank_0_says_what_was_interrupted(
    as_rank, monkeypatch, tmp_path
):
    monkeypatch.setattr(faults.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(faults, "PRECEDENCE", 0.0)
    as_rank(1)
    assert faults._speaks(InputError("x")) and not faults._speaks(Terminated())
    as_rank(0)
    assert not faults._speaks(InputError("x")) and faults._speaks(Terminated())
    as_rank(0, TORCHELASTIC_RESTART_COUNT=1)
    assert faults._speaks(InputError("x"))
