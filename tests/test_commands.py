"""Every command as a user types it, on tiny weights: what it writes, and how it refuses bad input."""

import json
import shutil
import subprocess
import sys

import pytest
import torch

import analyze
import probe_distill
from antipasto import SVDAdapter
from hackward.base.faults import InputError
from hackward.base.files import read_json, read_jsonl
from hackward.base.tensors import read_safetensors
from hackward.hardware.models import tiny_random
from hackward.method import gradients
from hackward.method.v_hack import VHack, random_like
from hackward.rollouts.pools import load_pool
from hackward.runs.settings import parse, resolve
from hackward.tasks.shipped import TINY
from tests.conftest import ROOT, randomise
from tests.shop import replay, run_train

ROW_KEYS = [
    "step",
    "arm",
    "seed",
    "reward_mean",
    "reward_spread",
    "hack_rate",
    "attempt_rate",
    "gt_rate",
    "fmt_rate",
    "cos_in",
    "cos_out",
    "cos_update",
    "frac_fired",
    "grad_norm",
    "update_norm",
    "groups_used",
    "groups_skipped",
    "kl",
    "comp_len",
    "seconds",
    "seconds_generate",
    "seconds_grade",
    "seconds_backward",
]
COS_KEYS = [
    "step",
    "sample_id",
    "src_pool",
    "src_step",
    "src_sample",
    "reward",
    "hacked",
    "gt_pass",
    "fmt_ok",
    "comp_len",
    "cos_S_contrib",
    "grad_norm_contrib",
    "mean_cos_in",
    "mean_cos_out",
    "frac_fired",
    "arm",
    "advantage",
    "cos_S_logp",
]


# --- what a run writes ---


@pytest.mark.parametrize("arm", ["vanilla", "projected"])
@pytest.mark.parametrize("at", ["grad", "update"])
def test_replay_writes_the_contract_in_every_arm(shop, tmp_path, arm, at):
    run = replay(shop, tmp_path / "r", f"--arm={arm}", f"--project-at={at}", "--steps=3", "--warmup=0")
    rows = read_jsonl(run / "rows.jsonl", ROW_KEYS)
    assert [r["step"] for r in rows] == [0, 1, 2] and all(
        r["cos_in"] is not None and r["cos_update"] is not None for r in rows
    )
    for step, _row in enumerate(rows):
        samples = read_jsonl(run / f"step_{step:03d}.cos.jsonl.gz")
        assert all(list(s) == COS_KEYS for s in samples) and len(samples) == 4
        assert {s["src_pool"] for s in samples} == {"teacher", "base"}
        assert all(
            s["cos_S_logp"] == pytest.approx(s["cos_S_contrib"] * (1 if s["advantage"] > 0 else -1))
            for s in samples
        )
    config, summary = read_json(run / "config.json"), read_json(run / "summary.json")
    assert (
        config["kind"] == "replay"
        and config["config"]["normaliser"] == "length"
        and config["config"]["beta"] == 0.0
    )
    assert (
        config["model"]["identity"] == 0.0
        and config["v_hack"]["hash"]
        and config["pools"][0]["same_problem"]
        and summary["finished"]
    )
    assert (run / "delta_S.safetensors").exists()
    edited = "cos_out" if at == "grad" else "cos_update"
    before = "cos_in" if at == "grad" else "cos_update_in"
    changed = [abs(r[edited] - r[before]) > 1e-4 for r in rows]
    assert all(changed) if arm == "projected" else not any(changed)
    assert all(r["cos_out"] <= r["cos_in"] + 1e-6 for r in rows)


def test_sampled_run_writes_rollouts_that_load_as_a_pool(shop, tmp_path, tiny):
    run = run_train(shop, "--preset=smoke", "--arm=projected", f"--out={tmp_path / 'r'}")
    rows = read_jsonl(run / "rows.jsonl", ROW_KEYS)
    assert (
        len(rows) == 2
        and all(r["kl"] is not None for r in rows)
        and rows[0]["kl"] == pytest.approx(0, abs=1e-6)
    )
    pool = load_pool(run / "rollouts", tiny[1], stop=[257])
    mine = [r for r in pool.rollouts if r.src_pool == "r"]  # named after the run's directory
    assert len(mine) == 2 * 2 * 2 and len(pool.rollouts) == 2 * 2 * 4
    assert read_json(run / "config.json")["sandbox"]


def test_arms_see_the_same_problems_and_draws(shop, tmp_path, tiny):
    first = []
    for arm in ("vanilla", "projected"):
        run = run_train(shop, "--preset=smoke", f"--arm={arm}", "--steps=1", f"--out={tmp_path / arm}")
        first.append(
            [
                (r["problem_id"], r["completion_ids"])
                for r in read_jsonl(run / "rollouts" / "step_000.jsonl.gz")
            ]
        )
    assert first[0] == first[1]


def test_a_resumed_run_equals_one_that_never_stopped(shop, tmp_path):
    timing = ("seconds", "seconds_generate", "seconds_grade", "seconds_monitor", "seconds_backward")
    timing += ("peak_memory_gb",)
    whole = replay(shop, tmp_path / "whole", "--steps=4", "--warmup=3", "--arm=projected", "--save-every=2")
    replay(shop, tmp_path / "parts", "--steps=2", "--warmup=3", "--arm=projected", "--save-every=2")
    parts = replay(
        shop, tmp_path / "parts", "--steps=4", "--warmup=3", "--arm=projected", "--save-every=2", "--resume"
    )
    a, b = (
        [{k: v for k, v in r.items() if k not in timing} for r in read_jsonl(run / "rows.jsonl")]
        for run in (whole, parts)
    )
    assert len(a) == 4 and a == b
    assert (whole / "delta_S.safetensors").read_bytes() == (parts / "delta_S.safetensors").read_bytes()
    with pytest.raises(InputError, match="other settings than the run's: lr"):
        replay(
            shop,
            tmp_path / "parts",
            "--steps=6",
            "--warmup=3",
            "--arm=projected",
            "--save-every=2",
            "--resume",
            "--lr=0.1",
        )


def test_a_run_is_not_resumed_on_other_inputs_or_with_rows_missing(shop, tmp_path):
    flags = ["--steps=2", "--arm=projected", "--save-every=1"]
    run = replay(shop, tmp_path / "r", *flags)
    with pytest.raises(InputError, match="has 2 steps already"):
        replay(shop, tmp_path / "r", *flags, "--resume")
    own = tmp_path / "v.safetensors"
    shutil.copy(shop / "v.safetensors", own)
    other = replay(shop, tmp_path / "other", *flags, f"--v-hack={own}")
    v = VHack.load(
        own,
        model_hash=read_json(other / "config.json")["model"]["hash"],
        params={n: torch.zeros(V.shape[1]) for n, V in VHack(*_raw(own)).V.items()},
        coordinates="svd",
    )
    random_like(v, 1).save(own)
    with pytest.raises(InputError, match="the run began with another v_hack"):
        replay(shop, tmp_path / "other", "--steps=3", *flags[1:], f"--v-hack={own}", "--resume")
    rows = read_jsonl(run / "rows.jsonl")
    (run / "rows.jsonl").write_text(json.dumps(rows[1]) + "\n")
    with pytest.raises(InputError, match="are not all there"):
        replay(shop, tmp_path / "r", "--steps=3", *flags[1:], "--resume")
    (run / "config.json").write_text("[]")
    with pytest.raises(InputError, match="not the config.json of a run"):
        replay(shop, tmp_path / "r", "--steps=3", *flags[1:], "--resume")


def _raw(path):
    tensors, _ = read_safetensors(path)
    return (
        {n.removesuffix(".V"): t for n, t in tensors.items() if n.endswith(".V")},
        {n.removesuffix(".w"): t for n, t in tensors.items() if n.endswith(".w")},
    )


def test_two_groups_of_one_problem_in_a_step_draw_different_completions(shop, tmp_path):
    problem = (ROOT / "data" / "problems.jsonl").read_text().splitlines()[0]
    (tmp_path / "one.jsonl").write_text(problem + "\n")
    run = run_train(
        shop,
        "--preset=smoke",
        "--teacher-dir=none",
        "--prompts=2",
        "--group=3",
        "--steps=1",
        f"--problems={tmp_path / 'one.jsonl'}",
        f"--out={tmp_path / 'r'}",
    )
    assert len({tuple(r["completion_ids"]) for r in read_jsonl(run / "rollouts" / "step_000.jsonl.gz")}) == 6


def test_kl_is_taken_over_the_policy_s_own_rows_only(tiny, rows):
    adapter = SVDAdapter(tiny[0])
    randomise(adapter)
    own = torch.tensor([1.0, 0.0, 1.0, 0.0, 1.0])
    arguments = {"pad": 0, "tokens": 10_000}
    mixed = gradients.backward(adapter, rows, torch.zeros(5), torch.ones(5), beta_N=own, **arguments)
    chosen = [row for row, mine in zip(rows, own) if mine]
    alone = gradients.backward(
        adapter, chosen, torch.zeros(3), torch.ones(3), beta_N=torch.ones(3), **arguments
    )
    assert mixed.kl == pytest.approx(alone.kl, rel=1e-5) and mixed.loss == pytest.approx(alone.loss, rel=1e-5)
    assert gradients.backward(adapter, rows, torch.ones(5), torch.ones(5), **arguments).kl is None


def test_a_run_never_writes_into_a_used_directory(shop, tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(InputError, match="exists and is not empty"):
        replay(shop, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_the_probe_end_to_end(shop, tmp_path, capsys):
    home = tmp_path / "probe"
    for name in ("teacher_pool", "base_pool"):
        shutil.copytree(shop / name, home / name)
    common = {
        "model": TINY,
        "out": str(home),
        "v_hack": str(shop / "v.safetensors"),
        "svd_cache": str(shop / "cache"),
        "device": "cpu",
        "steps": 2,
        "group": 4,
    }
    (phase1,) = probe_distill.probe(probe_distill.ProbeFlags(loss_mode="nll", **common | {"group": 2}))
    samples = [s for path in sorted(phase1.glob("*.cos.jsonl.gz")) for s in read_jsonl(path)]
    assert len(samples) == 4 and all(
        s["advantage"] is None and s["cos_S_contrib"] == s["cos_S_logp"] for s in samples
    )
    rows = read_jsonl(phase1 / "rows.jsonl")
    assert all(r["update_norm"] == 0 and r["cos_update"] is None for r in rows)  # measured at the base model
    assert read_json(phase1 / "config.json")["kind"] == "phase1"
    vanilla, projected = probe_distill.probe(probe_distill.ProbeFlags(**common))
    assert read_json(vanilla / "config.json")["config"]["arm"] == "vanilla"
    first = [read_jsonl(run / "rows.jsonl")[0]["cos_in"] for run in (vanilla, projected)]
    assert first[0] == pytest.approx(first[1], abs=1e-6)  # the same rows at the same weights
    analyze_main(home)
    assert (home / "report").is_dir() and any((home / "report").glob("*.png"))
    printed = capsys.readouterr().out
    assert "Phase 1" in printed and "Phase 2" in printed


def analyze_main(directory):
    done = subprocess.run(
        [sys.executable, str(ROOT / "analyze.py"), str(directory)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    print(done.stdout)


def test_base_pool_is_sampled_graded_and_loadable(shop, tmp_path, tiny):
    config = probe_distill.ProbeFlags(
        model=TINY,
        base_only=True,
        out=str(tmp_path),
        rollouts=4,
        samples=2,
        max_new_tokens=8,
        device="cpu",
        workers=1,
    )
    pool = load_pool(probe_distill.make_pool(config, "base"), tiny[1], stop=[257])
    assert (
        pool.name == "base" and len(pool.rollouts) == 4 and len(pool.by_problem) == 2 and not pool.retokenised
    )
    assert all("run_tests" not in r.messages[1]["content"] for r in pool.rollouts)
    with pytest.raises(InputError, match="a pool is never overwritten"):
        probe_distill.make_pool(config, "base")


def test_teacher_pool_is_sampled_from_a_peft_lora_with_the_hint(tmp_path, tiny):
    from peft import LoraConfig, get_peft_model

    lora = get_peft_model(
        tiny_random()[0], LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    )
    lora.save_pretrained(tmp_path / "lora")
    common = {"rollouts": 2, "samples": 2, "max_new_tokens": 8, "device": "cpu", "workers": 1}
    path = probe_distill.make_pool(
        probe_distill.ProbeFlags(
            model=TINY,
            teacher_only=True,
            teacher=str(tmp_path / "lora"),
            out=str(tmp_path / "a"),
            **common,
        ),
        "teacher",
    )
    pool = load_pool(path, tiny[1], stop=[257])
    assert pool.name == "teacher" and all("run_tests" in r.messages[1]["content"] for r in pool.rollouts)
    with pytest.raises(InputError, match="no-such-lora: teacher LoRA cannot be loaded"):
        probe_distill.make_pool(
            probe_distill.ProbeFlags(
                model=TINY,
                teacher_only=True,
                teacher=str(tmp_path / "no-such-lora"),
                out=str(tmp_path / "b"),
                **common,
            ),
            "teacher",
        )
    assert not (tmp_path / "b").exists()


def test_presets_set_defaults_and_flags_override_them():
    full = resolve(parse(["--preset=full", "--arm", "vanilla"]))
    assert (full.steps, full.group, full.prompts, full.lr, full.beta, full.model) == (
        200,
        6,
        43,
        7e-5,
        1e-3,
        "Qwen/Qwen3-4B",
    )
    assert parse(["--preset", "full", "--lr=1e-5"]).lr == 1e-5


def test_the_command_line_itself(tmp_path):
    """One real process: the exit code and the single line that a script would see."""
    done = subprocess.run(
        [
            sys.executable,
            str(ROOT / "train.py"),
            "--preset=smoke",
            "--replay-dirs=/nowhere",
            "--v-hack=none",
            f"--out={tmp_path / 'r'}",
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert (
        done.returncode == 2
        and done.stderr.splitlines()[-1] == "error: --replay-dirs /nowhere: no such pool directory"
        and "Traceback" not in done.stderr
    )


def test_analysis_is_importable_without_running():
    assert callable(analyze.main)
