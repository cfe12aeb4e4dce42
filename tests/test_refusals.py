"""Bad input is refused: exit 2, a line that names the file and the fault, and nothing half-written."""

import gzip
import json
import shutil

import pytest

import extract_vhack
from hackward.base.faults import exit_on_fault
from hackward.base.files import read_jsonl
from hackward.base.flags import command_line
from hackward.hardware.models import tiny_random
from hackward.method import gradients
from hackward.runs.settings import parse
from tests.shop import replay, run_train

# --- refusals ---


def refused(capsys, action):
    """Exit code 2 and exactly one line on stderr, which is returned."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        exit_on_fault(action)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert stop.value.code == 2 and len(lines) == 1
    return lines[0]


def test_a_missing_pool_directory_is_refused(shop, tmp_path, capsys):
    line = refused(
        capsys,
        lambda: run_train(
            shop, "--preset=smoke", "--replay-dirs=/nowhere/pool,/x", f"--out={tmp_path / 'r'}"
        ),
    )
    assert "/nowhere/pool: no such pool directory" in line and not list(tmp_path.iterdir())


def broken_copy(shop, tmp_path, spoil):
    shutil.copytree(shop / "base_pool", tmp_path / "pool")
    spoil(tmp_path / "pool" / "step_001.jsonl.gz")
    return lambda: run_train(
        shop,
        "--preset=smoke",
        f"--replay-dirs={shop / 'teacher_pool'},{tmp_path / 'pool'}",
        f"--out={tmp_path / 'r'}",
    )


def test_a_truncated_gz_is_refused(shop, tmp_path, capsys):
    line = refused(
        capsys, broken_copy(shop, tmp_path, lambda path: path.write_bytes(path.read_bytes()[:-30]))
    )
    assert "step_001.jsonl.gz: corrupt or truncated" in line and not (tmp_path / "r").exists()


def test_a_row_without_a_field_is_refused(shop, tmp_path, capsys):
    def spoil(path):
        rows = read_jsonl(path)
        del rows[1]["gt_pass"]
        with gzip.open(path, "wt") as stream:
            stream.write("\n".join(json.dumps(row) for row in rows))

    line = refused(capsys, broken_copy(shop, tmp_path, spoil))
    assert "step_001.jsonl.gz: row 2: no field 'gt_pass'" in line and not (tmp_path / "r").exists()


def test_a_v_hack_of_another_model_is_refused(shop, tmp_path, capsys):
    other, tokenizer = tiny_random(seed=5)
    other.save_pretrained(tmp_path / "other")
    tokenizer.save_pretrained(tmp_path / "other")
    line = refused(capsys, lambda: replay(shop, tmp_path / "r", f"--model={tmp_path / 'other'}"))
    assert "v.safetensors: v_hack of another model" in line and not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("flags", "fault"),
    [
        (["--model=/nowhere/model"], "/nowhere/model: model cannot be loaded"),
        (["--model=/nowhere/model.gguf"], "/nowhere/model.gguf: no such file"),
        (["--problems=/nowhere.jsonl"], "/nowhere.jsonl: no such file"),
        (["--arm=projected", "--v-hack=none"], "needs a --v-hack"),
        (["--v-hack=/nowhere.safetensors"], "/nowhere.safetensors: no such file"),
        (["--teacher-rows=4"], "leaves no place for samples"),
        (["--temperature=0"], "--temperature 0.0: must be at least 0.01"),
        (["--teacher-share=2"], "--teacher-share 2.0: must be at most 1"),
        (["--clip=-1"], "--clip -1.0: must be above 0"),
        (["--lr=nan"], "--lr nan: must be a finite number"),
        (["--save-every=0"], "--save-every 0: must be at least 1"),
        (["--difficulty=easy,nonsense"], "'nonsense' is none of easy, medium, hard"),
        (["--replay-dirs="], "--replay-dirs is empty: give it a value, or leave it out"),
        (["--replay-dirs=,"], "expected one or more directories"),
        (["--replay-dirs=a,b", "--beta=0.1"], "--beta > 0 with --replay-dirs"),
    ],
)
def test_other_bad_input_is_refused(shop, tmp_path, capsys, flags, fault):
    line = refused(capsys, lambda: run_train(shop, "--preset=smoke", f"--out={tmp_path / 'r'}", *flags))
    assert fault in line and not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("text", "flags", "fault"),
    [
        ("", [], "0 pairs; at least 2 are needed"),
        (
            '{"problem_id": "a", "hack": 3, "clean": "x", "prompt": "p"}',
            [],
            "pair 1: 'hack' must be text, found 3",
        ),
        ('{"problem_id": "a", "hack": "x"}', [], "pair 1: no field 'clean'"),
        ("", ["--k=0"], "--k 0: must be at least 1"),
        ("", ["--noise-floor=1"], "--noise-floor 1.0: must be below 1"),
    ],
)
def test_extraction_refuses_what_it_cannot_use(tmp_path, capsys, text, flags, fault):
    (tmp_path / "p.jsonl").write_text(text + "\n")
    arguments = [
        f"--pairs={tmp_path / 'p.jsonl'}",
        f"--out={tmp_path / 'v.safetensors'}",
        "--svd-cache=None",
        "--device=cpu",
        *flags,
    ]
    line = refused(
        capsys, lambda: extract_vhack.main(command_line(extract_vhack.ExtractFlags, argv=arguments))
    )
    assert fault in line and [p.name for p in tmp_path.iterdir()] == ["p.jsonl"]


def test_a_gradient_that_is_not_finite_ends_the_run_before_its_step(shop, tmp_path, capsys, monkeypatch):
    original = gradients.backward

    def poisoned(adapter, *arguments, **options):
        done = original(adapter, *arguments, **options)
        next(iter(adapter.params.values())).grad.fill_(float("nan"))
        return done

    monkeypatch.setattr(gradients, "backward", poisoned)
    line = refused(capsys, lambda: replay(shop, tmp_path / "r"))
    assert "step 0: the gradient is not finite" in line
    assert (
        not (tmp_path / "r" / "summary.json").exists()
        and not (tmp_path / "r" / "checkpoint.safetensors").exists()
    )


def test_an_unknown_flag_or_value_exits_with_2(capsys):
    for flags, said in (
        (["--arm=lizard"], "invalid choice 'lizard'"),
        (["--nonsense=1"], "Unrecognized options: --nonsense=1"),
    ):
        assert refused(capsys, lambda flags=flags: parse(flags)).startswith(f"error: {said}")
