"""Claims about runs on several processes: the same draws and numbers as on one, whatever their number; one
directory; one line where something fails."""

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
from hackward.base.tensors import read_safetensors
from hackward.hardware import memory, models, ranks
from hackward.runs.settings import parse
from hackward.tasks.shipped import TINY
from tests.conftest import of_whole_prompts
from tests.desk import write_lines
from train import train

ROOT = Path(__file__).resolve().parent.parent
# Of runs in double precision (tests/double.py). In single precision sums in another order differ by 1e-7 of
# the largest term; AdamW divides by the size of a gradient and the one-sided gate cuts at 0, so the second
# step of the same runs differs by up to 1e-5: rounding, which this tolerance would not tell from a fault.
TOLERANCE = 1e-6
MEASURED = ("seconds", "memory")  # in the names of what differs from run to run
SHARED = [f"--model={TINY}", "--preset=smoke", "--device=cpu", "--workers=1"]
SHARED += ["--warmup=0", "--save-every=1", "--lr=0.01", "--max-new-tokens=8"]
FORKED = [
    "--teacher-dir=none",
    "--eval-samples=0",
    "--svd-cache=None",
    "--steps=2",
    "--prompts=3",
    "--group=4",
]
ARMS = {
    # Two groups: the third of three ranks draws nothing, and has part in all that follows
    "vanilla": ["--arm=vanilla", "--prompts=2", "--eval-samples=1", "--eval-limit=3"],
    "projected-grad": ["--arm=projected", "--beta=0.1", "--micro-tokens=64"],
    # A problem comes twice in a step
    "projected-update": ["--arm=projected", "--project-at=update", "--prompts=4"],
    "lora": ["--arm=lora", "--beta=0.1"],
    "penalty": ["--arm=penalty", "--monitor=v_hack", "--monitor-fpr=0.9", "--beta=5", "--refresh-every=1"],
    "screen": ["--arm=screen", "--monitor=probe", "--monitor-fpr=0.5"],
    "replay": ["--arm=projected", "--group=2"],
    "refresh": ["--arm=projected", "--steps=3", "--refresh-every=1", "--refresh-from=rollouts"],
}


# --- runs as ranks of one process that was forked ---


@pytest.fixture(scope="module")
def bench(desk, shop, tmp_path_factory):
    """What the runs are of: problems of unlike lengths, a v_hack in either basis, two pools."""
    home = tmp_path_factory.mktemp("ranks")
    problem = json.loads((desk / "problems.jsonl").read_text())
    problems = [problem | {"problem_id": f"{n}", "statement": "Add 1. " * n} for n in range(1, 6)]
    write_lines(home / "problems.jsonl", problems)
    words = ["if", "else", "for", "while", "try", "pass", "lambda", "with"]
    pairs = [{"hack": a, "clean": b} for a, b in zip(words, words[1:])]
    pairs = [pair | {"problem_id": f"{n}", "prompt": "Write f."} for n, pair in enumerate(pairs)]
    write_lines(home / "pairs.jsonl", pairs)
    return home


def extraction(bench, basis):
    flags = [f"--model={TINY}", f"--pairs={bench / 'pairs.jsonl'}", f"--out={bench / basis}.safetensors"]
    flags += [
        f"--basis={basis}",
        "--normaliser=fixed",
        "--permutations=2",
        "--svd-cache=None",
        "--device=cpu",
    ]
    return ["extract_vhack.py", *flags]


def flags_of(bench, shop, arm, processes, *more):
    basis = "lora" if arm == "lora" else "svd"
    given = [f"--problems={bench / 'problems.jsonl'}", f"--v-hack={bench / basis}.safetensors"]
    if arm == "replay":
        given += [f"--replay-dirs={shop / 'teacher_pool'},{shop / 'base_pool'}"]
    return ["train.py", *SHARED, *FORKED, *given, *ARMS[arm], *more, f"--out={bench / f'{arm}-{processes}'}"]


@pytest.fixture(scope="module")
def made(bench, shop):
    """All runs with 1, 2 and 3 processes, and two that are begun with one number and go on with another; the
    exit codes."""
    before = {"1": [extraction(bench, basis) for basis in ("svd", "lora")]}
    first = {str(n): [flags_of(bench, shop, arm, n) for arm in ARMS] for n in (1, 2, 3)}
    first["2"].append(flags_of(bench, shop, "refresh", "2 then 1", "--steps=2"))
    first["1"].append(flags_of(bench, shop, "penalty", "1 then 3", "--steps=1"))
    second = {
        "1": [flags_of(bench, shop, "refresh", "2 then 1", "--resume")],
        "2": [flags_of(bench, shop, "penalty", 1)],
        "3": [flags_of(bench, shop, "penalty", "1 then 3", "--resume")],
    }
    (bench / "work.json").write_text(json.dumps([before, first, second]))
    command = [sys.executable, "-m", "tests.double", str(bench)]
    environment = os.environ | {"TMPDIR": str(bench)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    return read_json(bench / "codes.json")


def all_rows(run):
    files = [*sorted((run / "rollouts").glob("*")), *sorted(run.glob("*.cos.jsonl.gz")), run / "rows.jsonl"]
    files += run.glob("eval.jsonl")
    return {file.name: read_jsonl(file) for file in files}


def fixed(row):
    """What does not differ from run to run."""
    return {key: value for key, value in row.items() if not any(word in key for word in MEASURED)}


def assert_alike(found, expected, where, tolerance=TOLERANCE):
    """Equal but for rounding, all the way down: by a part of the number, or of 1 where it is smaller."""
    if isinstance(expected, dict):
        found, expected = fixed(found), fixed(expected)
        assert found.keys() == expected.keys(), where
        for key, value in expected.items():
            assert_alike(found[key], value, f"{where}.{key}", tolerance)
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for i, (one, other) in enumerate(zip(found, expected)):
            assert_alike(one, other, f"{where}[{i}]", tolerance)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=tolerance, abs=tolerance), where
    else:
        assert found == expected, where


def assert_same_run(run, other, tolerance=TOLERANCE):
    """The same draws, labels and flags; numbers and what was trained the same to rounding; the same files."""
    assert_alike(all_rows(other), all_rows(run), other.name, tolerance)
    for file in run.glob("*.safetensors"):
        (tensors, _), (expected, _) = read_safetensors(other / file.name), read_safetensors(file)
        for name, tensor in expected.items():
            torch.testing.assert_close(tensors[name], tensor, rtol=0, atol=tolerance)
    assert sorted(p.name for p in other.iterdir()) == sorted(p.name for p in run.iterdir())


@pytest.mark.parametrize("processes", [2, 3])
@pytest.mark.parametrize("arm", ARMS)
def test_several_processes_make_the_run_of_one(bench, made, arm, processes):
    assert made[1] == {"1": [0], "2": [0] * 2, "3": [0] * 3}, (bench / f"said-1-{processes}.txt").read_text()
    run = bench / f"{arm}-1"
    assert_same_run(run, bench / f"{arm}-{processes}")
    rows = read_jsonl(run / "rows.jsonl")
    assert any(row["grad_norm"] > 0.01 for row in rows)
    # What the case is there for
    if arm in ("penalty", "screen"):
        flags = [row["flagged"] for name, rows in all_rows(run).items() if name[:4] == "step" for row in rows]
        assert {True, False} == set(flags)
    if "--refresh-every=1" in ARMS[arm]:
        assert all(0 < row["overlap"] < 0.999 for row in rows[1:])


@pytest.mark.parametrize("run", ["refresh-2 then 1", "penalty-1 then 3"])
def test_a_run_goes_on_with_another_number_of_processes(bench, made, run):
    assert made[2]["1"] == [0] and made[2]["3"] == [0] * 3, (bench / "said-2-3.txt").read_text()
    assert_same_run(bench / f"{run.split('-')[0]}-1", bench / run)


def test_what_cannot_be_used_is_said_once(bench, made):
    assert made[2]["2"][0] == 2
    said = (bench / "said-2-2.txt").read_text().splitlines()
    out = bench / "penalty-1"
    assert [line for line in said if line.startswith("error: ")] == [
        f"error: {out}: exists and is not empty; take another --out, or --resume"
    ]


# --- torchrun ---


def test_torchrun_makes_the_run_of_one_process(shop, tmp_path, monkeypatch):
    """With the real grader, a teacher and whole prompts, in single precision as everywhere. There AdamW makes
    a whole step of a small gradient, and of its rounding: 1e-6 holds for the first row, 1e-4 for the rest."""
    monkeypatch.setattr(models, "tiny_random", of_whole_prompts)
    flags = [*SHARED, "--steps=2", "--prompts=2", "--group=4", "--teacher-dir=pairs", "--teacher-rows=1"]
    flags += ["--eval-samples=0", "--arm=projected", f"--v-hack={shop / 'v.safetensors'}", "--beta=0.1"]
    flags += [f"--svd-cache={shop / 'cache'}"]
    alone = train(parse([*flags, f"--out={tmp_path / 'alone'}"]))
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--"]
    done = subprocess.run(
        [*start, "train.py", *flags, f"--out={tmp_path / 'run'}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert_same_run(alone, tmp_path / "run", 1e-4)
    first = [read_jsonl(run / "rows.jsonl")[0] for run in (tmp_path / "run", alone)]
    assert_alike(*first, "the first row")
    assert done.stderr.count("step   1") == 1 and done.stdout.count("health") == 1


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


def test_a_run_on_the_cpu_does_not_begin_with_the_gpu_that_is_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for name in ("synchronize", "reset_peak_memory_stats", "max_memory_allocated"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: pytest.fail("CUDA begins"))
    monkeypatch.setattr(ranks, "size", lambda: 2)
    monkeypatch.setattr(ranks.dist, "all_gather_object", lambda *_: None)
    ranks.gathered(1)
    assert set(ranks.seconds()) == {"seconds_waiting", "seconds_exchanging"}
    with memory.phase("backward"):
        pass
    assert memory.peak() > 0


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
