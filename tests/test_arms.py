"""Claims about runs: every arm and control at either place is measured with v_hack itself, and resumes."""

import shutil
from pathlib import Path

import pytest
import torch

import probe_distill
from antipasto import SVDAdapter
from hackward.base.arms import ARMS
from hackward.base.faults import InputError
from hackward.base.files import read_json, read_jsonl, write_jsonl
from hackward.base.tensors import read_safetensors
from hackward.hardware import models
from hackward.method import extraction
from hackward.method.pairs import WRITTEN, find_pairs
from hackward.method.recipe import Extraction
from hackward.runs.building import restore, split_problems
from hackward.runs.settings import Config
from hackward.tasks.shipped import TINY, shipped
from tests.shop import run_train

COMBINATIONS = [
    ("projected", c, at) for c in ("none", "random", "sign-flip", "clean-clean") for at in ("grad", "update")
] + [("projected", "shrink", "update")]
COMBINATIONS += [("lora", c, "update") for c in ("none", "random", "sign-flip", "clean-clean", "shrink")]


def removed_by(run: Path) -> dict[str, torch.Tensor]:
    """What a control took out, per module the projector's basis."""
    return {
        name: V
        for name, V in read_safetensors(run / "removed_000.safetensors")[0].items()
        if name.endswith(".V")
    }


@pytest.mark.parametrize(("arm", "control", "at"), COMBINATIONS)
def test_every_arm_and_control_runs_and_is_measured_with_v_hack_itself(shop, vanilla, arm, control, at):
    home, flags, base = vanilla
    basis = ARMS[arm].basis
    run = run_train(
        shop,
        *flags[basis],
        f"--arm={arm}",
        f"--control={control}",
        f"--project-at={at}",
        f"--out={home / f'{arm}-{control}-{at}'}",
    )
    rows = read_jsonl(run / "rows.jsonl")
    assert rows[0]["cos_in"] == pytest.approx(
        base[basis]["cos_in"], abs=1e-6
    )  # the same rows at the same weights, the same yardstick
    assert rows[0]["grad_norm"] == pytest.approx(base[basis]["grad_norm"], rel=1e-5)
    low, high = rows[0]["cos_in_null"]
    assert low < high and rows[1]["delta_w_norm"] > 0 and rows[0]["overlap"] is None
    assert sorted(p.name for p in (run / "nulls").iterdir()) == [
        "step_000.safetensors",
        "step_001.safetensors",
    ]
    before, after = ("cos_in", "cos_out") if at == "grad" else ("cos_update_in", "cos_update")
    if control == "none":
        assert rows[0][after] < rows[0][before] - 1e-4 and rows[0][after] < 1e-6
    if control == "shrink":
        assert (
            rows[0]["cos_update"] == pytest.approx(rows[0]["cos_update_in"], abs=1e-4)
            and rows[0]["update_norm"] < base[basis]["update_norm"]
        )
    assert (run / "removed_000.safetensors").exists() is (control in ("random", "sign-flip", "clean-clean"))
    if control in ("random", "sign-flip", "clean-clean"):
        real = {
            name: V
            for name, V in read_safetensors(flags[basis][-1].removeprefix("--v-hack="))[0].items()
            if name.endswith(".V")
        }
        same_span = [
            torch.allclose(V.T @ V, real[name].T @ real[name], atol=1e-4)
            for name, V in removed_by(run).items()
            if name in real
        ]
        assert all(same_span) if control == "sign-flip" else not any(same_span)
        if control == "sign-flip":  # the span, and not the orientation
            assert not all(torch.allclose(V, real[name], atol=1e-4) for name, V in removed_by(run).items())
        assert rows[0][after] != pytest.approx(rows[0][before], abs=1e-7)
    assert read_json(run / "config.json")["config"]["control"] == control


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--arm=projected", "--gate=none"], "that is --arm=vanilla"),
        (["--arm=vanilla", "--control=random"], "this one does neither"),
        (["--arm=lora", "--gate=none", "--control=shrink"], "this one does neither"),
        (
            ["--arm=projected", "--control=sign-flip", "--gate=two-sided"],
            "would remove exactly what v_hack does",
        ),
        (["--arm=projected", "--control=shrink"], "needs --project-at=update"),
    ],
)
def test_controls_that_would_control_nothing_are_refused(shop, tmp_path, flags, message):
    with pytest.raises(InputError, match=message):
        run_train(shop, "--preset=smoke", *flags, f"--out={tmp_path / 'r'}")
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("control", "refresh", "cut"),
    [
        ("none", 2, 3),
        ("none", 2, 2),
        ("clean-clean", 0, 2),
        ("clean-clean", 2, 3),
        ("random", 2, 3),
        ("sign-flip", 0, 1),
    ],
)
def test_a_resumed_run_removes_what_it_removed_before(shop, tmp_path, control, refresh, cut):
    """In one go against in two parts, cut between, at and after a refresh: the same rows and the same
    weights."""
    flags = [
        "--preset=smoke",
        "--prompts=1",
        "--arm=projected",
        f"--control={control}",
        f"--refresh-every={refresh}",
        "--save-every=1",
        "--warmup=0",
        "--lr=0.1",
        "--eval-samples=0",
        f"--replay-dirs={shop / 'teacher_pool'},{shop / 'base_pool'}",
    ]
    whole = run_train(shop, *flags, "--steps=4", f"--out={tmp_path / 'whole'}")
    rows = read_jsonl(whole / "rows.jsonl")
    assert [r["overlap"] is not None for r in rows] == [False, False, refresh == 2, False]
    run_train(shop, *flags, f"--steps={cut}", f"--out={tmp_path / 'parts'}")
    parts = run_train(shop, *flags, "--steps=4", f"--out={tmp_path / 'parts'}", "--resume")
    for a, b in zip(rows, read_jsonl(parts / "rows.jsonl")):
        for key in (
            "cos_in",
            "cos_out",
            "cos_update",
            "update_norm",
            "overlap",
        ):  # sums over modules: a stored v_hack lists them in another order
            assert a[key] == b[key] or a[key] == pytest.approx(b[key], abs=1e-6)
    final = [read_safetensors(run / "delta_S.safetensors")[0] for run in (whole, parts)]
    assert all(torch.allclose(final[0][name], final[1][name], atol=1e-7, rtol=1e-5) for name in final[0])


def test_a_refresh_whose_pairs_are_gone_is_refused_before_the_run_starts(shop, tmp_path):
    model, tokenizer = models.load(TINY, device="cpu")
    pairs, settings = tmp_path / "pairs.jsonl", Extraction(max_pairs=4, k=2, permutations=0)
    shutil.copy(WRITTEN.pairs, pairs)
    found, source = find_pairs(
        TINY,
        tokenizer,
        model,
        pairs=str(pairs),
        pool=None,
        problem_file=str(WRITTEN.pair_problems),
        clean="canonical",
        limit=settings.max_pairs,
        seed=settings.seed,
    )
    extraction.extract(SVDAdapter(model), tokenizer, found, settings, source=source, tokens=20_000).save(
        tmp_path / "v.safetensors"
    )
    pairs.unlink()
    with pytest.raises(InputError, match="pairs.jsonl: no such file"):
        run_train(
            shop,
            "--preset=smoke",
            "--arm=projected",
            "--refresh-every=1",
            f"--v-hack={tmp_path / 'v.safetensors'}",
            f"--out={tmp_path / 'r'}",
        )
    assert not (tmp_path / "r").exists()


# --- held-out problems and finished runs ---


def test_no_problem_is_both_trained_on_and_held_out_nor_known_to_v_hack(shop, tmp_path):
    own = tmp_path / "own.jsonl"
    rows = read_jsonl(shipped(TINY).problems)
    write_jsonl(own, rows[:5])
    everything, held_out = split_problems(Config(model=TINY, problems=str(shipped(TINY).problems)))
    assert (
        held_out
        and not {p.identity for p in everything} & {p.identity for p in held_out}
        and len(everything) + len(held_out) == len(rows)
    )
    training, chosen = split_problems(
        Config(model=TINY, problems=str(shipped(TINY).problems), eval_problems=str(own))
    )
    assert len(chosen) == 5 and not {p.identity for p in training} & {p.identity for p in chosen}
    assert not {p.identity for p in training} & {
        p.identity for p in held_out
    }  # the frozen tenth is never trained on
    with pytest.raises(InputError, match="nothing is left to train on"):
        split_problems(Config(problems=str(own), eval_problems=str(own)))


def test_a_finished_run_is_evaluated_once_and_restored_with_its_adapter(shop, tmp_path):
    flags = [
        "--preset=smoke",
        "--v-hack=none",
        "--prompts=1",
        "--eval-samples=1",
        "--eval-limit=1",
        "--eval-every=1",
        "--save-every=1",
    ]
    for arm in (["--arm=vanilla"], ["--arm=lora", "--gate=none"]):
        run = run_train(shop, *flags, *arm, "--steps=2", "--warmup=0", f"--out={tmp_path / arm[0]}")
        lines = read_jsonl(run / "eval.jsonl")
        assert [line["step"] for line in lines] == [1] * 6 + [2] * 6 and read_json(run / "summary.json")[
            "eval"
        ] == lines[6:]
        before = (run / "eval" / "step_002.jsonl.gz").read_bytes()
        (run / "summary.json").unlink()  # as if it had been cut off
        again = run_train(shop, *flags, *arm, "--steps=2", "--warmup=0", f"--out={run}", "--resume")
        assert (
            read_json(again / "summary.json")["eval"] == lines[6:]
            and (run / "eval" / "step_002.jsonl.gz").read_bytes() == before
        )
        adapter, _, config = restore(run, device="cpu")
        assert config.arm == arm[0].removeprefix("--arm=") and adapter.delta_w_norm() == pytest.approx(
            read_jsonl(run / "rows.jsonl")[-1]["delta_w_norm"], rel=1e-5
        )
        assert adapter.delta_w_norm() > 0
        with pytest.raises(InputError, match="nothing to do"):
            run_train(shop, *flags, *arm, "--steps=2", "--warmup=0", f"--out={run}", "--resume")


def test_the_probe_runs_in_the_lora_basis_and_does_not_repeat_its_vanilla(shop, vanilla, tmp_path):
    home, flags, _ = vanilla
    v = {basis: flags[basis][-1].removeprefix("--v-hack=") for basis in flags}
    common = {
        "model": TINY,
        "out": str(tmp_path),
        "svd_cache": str(shop / "cache"),
        "device": "cpu",
        "steps": 1,
        "group": 4,
        "replay_dirs": f"{shop / 'teacher_pool'},{shop / 'base_pool'}",
    }
    (phase1,) = probe_distill.probe(
        probe_distill.ProbeFlags(loss_mode="nll", arm="lora", v_hack=v["lora"], **common | {"group": 2})
    )
    assert (
        read_json(phase1 / "config.json")["config"]["arm"] == "lora"
        and read_jsonl(phase1 / "rows.jsonl")[0]["cos_in"] is not None
    )
    both = probe_distill.probe(probe_distill.ProbeFlags(v_hack=v["svd"], **common))
    control = probe_distill.probe(
        probe_distill.ProbeFlags(v_hack=v["svd"], control="random", project_at="update", **common)
    )
    assert len(both) == 2 and len(control) == 1
    with pytest.raises(InputError, match="needs --project-at=update"):
        probe_distill.probe(probe_distill.ProbeFlags(v_hack=v["svd"], control="shrink", seed=7, **common))
    assert not list((tmp_path / "phase2").glob("*s7"))
