"""Claims about the controls and the nulls: each differs from the real thing in exactly what it should; and a
planted case with a known truth."""

import dataclasses
import functools
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import linalg

import extract_vhack
import probe_distill
from antipasto import SVDAdapter
from hackward.base.arms import ARMS
from hackward.base.faults import InputError
from hackward.base.files import read_json, read_jsonl, write_jsonl
from hackward.base.tensors import read_safetensors
from hackward.hardware import models
from hackward.method import extraction, oracle
from hackward.method.extraction import pair_gradients, rotated
from hackward.method.losses import collate, dr_grpo_advantages, policy_loss, token_logps
from hackward.method.pairs import WRITTEN, Pair, find_pairs
from hackward.method.projection import (
    GATES,
    Edit,
    Editor,
    coefficients,
    cosine,
    norm,
    null_cosines,
    overlap,
    remove,
)
from hackward.method.recipe import Extraction
from hackward.method.v_hack import VHack, null_weights, pair_flips, random_like, sign_flipped
from hackward.runs.building import restore, split_problems
from hackward.runs.settings import Config
from hackward.tasks.shipped import TINY, shipped
from tests.test_commands import run_train, shop  # noqa: F401  (a fixture)
from tests.test_extract import difference, planted


@pytest.fixture
def v():
    D = difference(*planted(pairs=24, strength=0.6)[:2])
    return extraction.build(
        D, Extraction(k=4, noise_floor=0.0), {"pair_problems": [f"p{i // 2}" for i in range(24)]}
    )


@pytest.fixture
def g():
    generator = torch.Generator().manual_seed(9)
    return {
        "m0": torch.randn(20, generator=generator),
        "m1": torch.randn(12, generator=generator),
        "free": torch.randn(7, generator=generator),
    }


# --- controls ---


def test_sign_flip_has_the_span_of_v_hack_and_another_orientation(v, g):
    flipped = sign_flipped(v, seed=3)
    for name, V in v.V.items():
        assert torch.allclose(flipped.V[name].T @ flipped.V[name], V.T @ V, atol=1e-5)  # the same projector
        assert (flipped.w[name] >= 0).all() and torch.allclose(
            flipped.w[name], flipped.coef[name].mean(0).clamp(min=0), atol=1e-5
        )
        assert torch.allclose(
            remove(g[name], flipped.V[name], GATES["two-sided"]),
            remove(g[name], V, GATES["two-sided"]),
            atol=1e-5,
        )
    assert any(
        not torch.allclose(
            remove(g[n], flipped.V[n], GATES["one-sided"]), remove(g[n], V, GATES["one-sided"]), atol=1e-3
        )
        for n, V in v.V.items()
    )
    direction = {name: v.w[name] @ V for name, V in v.V.items()}
    assert (
        float(cosine(direction, v)) == pytest.approx(1.0, abs=1e-5)
        and abs(float(cosine(direction, flipped))) < 0.9
    )
    problems = v.meta["pair_problems"]
    flips = pair_flips(v, 50, 0)
    assert all(
        len({float(flips[s, i]) for i, p in enumerate(problems) if p == problem}) == 1
        for s in range(50)
        for problem in set(problems)
    )


def test_shrink_keeps_the_direction_and_has_the_length_that_removal_leaves(v, g):
    for gate in ("one-sided", "two-sided"):
        left, shrunk = Edit(v, gate)(g), Edit(v, gate, shrink=True)(g)
        assert float(norm(shrunk)) == pytest.approx(float(norm(left)), rel=1e-5) and float(
            norm(shrunk)
        ) < float(norm(g))
        assert float(cosine(shrunk, v)) == pytest.approx(float(cosine(g, v)), abs=1e-6)
        assert abs(float(cosine(left, v)) - float(cosine(g, v))) > 1e-3
    assert all(torch.equal(x, g[n]) for n, x in Edit(v)(g).items())
    zero = {n: torch.zeros_like(x) for n, x in g.items()}
    assert not any(x.any() or x.isnan().any() for x in Edit(v, "two-sided", shrink=True)(zero).values())


def fake_pairs(tokenizer, hack: str) -> list[Pair]:
    ids = lambda text: tuple(tokenizer(text, add_special_tokens=False)["input_ids"])  # noqa: E731
    return [
        Pair(
            f"p{i // 2}",
            f"p{i // 2}",
            "m",
            ids(f"problem {i // 2}"),
            ids(f"{hack} {i}"),
            ids(f"return {i} + {i * i}"),
        )
        for i in range(8)
    ]


def test_clean_clean_has_the_size_of_v_hack_and_has_not_seen_a_hack(tiny):
    model, tokenizer = tiny
    adapter, settings = SVDAdapter(model), Extraction(k=3, noise_floor=0.0, permutations=0)
    made = {
        hack: extraction.clean_clean(
            adapter, tokenizer, fake_pairs(tokenizer, hack), settings, tokens=4000, seed=1
        )
        for hack in ("assert True", "import os")
    }
    one, other = made.values()
    real = {
        hack: extraction.extract(
            adapter, tokenizer, fake_pairs(tokenizer, hack), settings, source={}, tokens=4000
        )
        for hack in made
    }
    a, b = real.values()
    assert all(torch.equal(one.V[n], other.V[n]) for n in one.V)  # other hacks, the same control
    assert any(not torch.allclose(a.V[n], b.V[n], atol=1e-3) for n in a.V if n in b.V)  # and another v_hack
    assert {n: V.shape for n, V in one.V.items()} == {n: V.shape for n, V in a.V.items()}
    assert overlap(one, a) < 0.9


def test_no_clean_answer_meets_one_to_its_own_problem():
    ids = ["a", "a", "b", "c", "c", "c", "d", "e"]
    for seed in range(5):
        other = rotated(ids, seed)
        assert sorted(other) == list(range(8)) and all(ids[i] != ids[j] for i, j in enumerate(other))
    with pytest.raises(InputError, match="3 of 4 pairs are of one problem"):
        rotated(["a", "a", "a", "b"], 0)


COMBINATIONS = [
    ("projected", c, at) for c in ("none", "random", "sign-flip", "clean-clean") for at in ("grad", "update")
] + [("projected", "shrink", "update")]
COMBINATIONS += [("lora", c, "update") for c in ("none", "random", "sign-flip", "clean-clean", "shrink")]


@pytest.fixture(scope="module")
def vanilla(shop, tmp_path_factory):  # noqa: F811
    """The first row of a replayed vanilla run in either basis, and the flags that the other runs share with
    it."""
    home = tmp_path_factory.mktemp("controls")
    pools_ = f"--replay-dirs={shop / 'teacher_pool'},{shop / 'base_pool'}"
    v = {"svd": shop / "v.safetensors", "lora": home / "v_lora.safetensors"}
    extract_vhack.main(
        extract_vhack.ExtractFlags(
            model=TINY,
            basis="lora",
            device="cpu",
            out=str(v["lora"]),
            settings=Extraction(max_pairs=8, k=4, permutations=20),
        )
    )
    flags = {
        basis: [
            "--preset=smoke",
            "--prompts=1",
            "--steps=2",
            "--warmup=0",
            "--eval-samples=0",
            pools_,
            f"--v-hack={v[basis]}",
        ]
        for basis in v
    }
    runs = {
        basis: run_train(shop, *flags[basis], *arm, f"--out={home / basis}")
        for basis, arm in (("svd", ["--arm=vanilla"]), ("lora", ["--arm=lora", "--gate=none"]))
    }
    return home, flags, {basis: read_jsonl(run / "rows.jsonl")[0] for basis, run in runs.items()}


def removed_by(run: Path) -> dict[str, torch.Tensor]:
    """What a control took out, per module the projector's basis."""
    return {
        name: V
        for name, V in read_safetensors(run / "removed_000.safetensors")[0].items()
        if name.endswith(".V")
    }


@pytest.mark.parametrize(("arm", "control", "at"), COMBINATIONS)
def test_every_arm_and_control_runs_and_is_measured_with_v_hack_itself(shop, vanilla, arm, control, at):  # noqa: F811
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
        (["--arm=vanilla", "--control=random"], "this one removes nothing"),
        (["--arm=lora", "--gate=none", "--control=shrink"], "this one removes nothing"),
        (
            ["--arm=projected", "--control=sign-flip", "--gate=two-sided"],
            "would remove exactly what v_hack does",
        ),
        (["--arm=projected", "--control=shrink"], "needs --project-at=update"),
    ],
)
def test_controls_that_would_control_nothing_are_refused(shop, tmp_path, flags, message):  # noqa: F811
    with pytest.raises(InputError, match=message):
        run_train(shop, "--preset=smoke", *flags, f"--out={tmp_path / 'r'}")
    assert not (tmp_path / "r").exists()


# --- nulls ---


def test_the_null_is_what_extraction_from_flipped_pairs_would_have_measured(g):
    """Slow reference: flip the differences themselves, build V anew, take the cosine."""
    D, settings = difference(*planted(pairs=10, strength=0.5)[:2]), Extraction(k=3, noise_floor=0.0)
    v = extraction.build(D, settings, {"pair_problems": [str(i) for i in range(10)]})
    flips = pair_flips(v, 20, seed=0)
    flipped = [extraction.build({n: d * flip[:, None] for n, d in D.items()}, settings, {}) for flip in flips]
    slow = [
        float(cosine(g, f) * norm(f.w) / norm(v.w)) for f in flipped
    ]  # against the real direction's length
    assert torch.allclose(null_cosines(g, v, null_weights(v, 20, seed=0)), torch.tensor(slow), atol=1e-4)
    batch = {name: torch.stack([x, 2 * x]) for name, x in g.items()}
    assert null_cosines(batch, v, null_weights(v, 20)).shape == (2, 20)


def test_random_directions_belong_to_no_pairs_and_have_no_null(v):
    assert null_weights(v) and null_weights(random_like(v, 1)) == {}


def test_a_v_hack_file_without_its_pairs_coefficients_is_refused(v, tmp_path):
    params = {name: torch.zeros(V.shape[1]) for name, V in v.V.items()}
    meta = v.meta | {"kind": "v_hack", "model_hash": "m", "coordinates": "svd"}
    whole = VHack(v.V, v.w, meta, v.coef)
    for name, coef in (("whole", v.coef), ("bare", {})):
        dataclasses.replace(whole, coef=coef).save(tmp_path / f"{name}.safetensors")
    read = functools.partial(VHack.load, model_hash="m", params=params, coordinates="svd")
    assert read(tmp_path / "whole.safetensors").coef.keys() == v.V.keys()
    with pytest.raises(InputError, match="bare.safetensors: module .* coefficients do not fit V"):
        read(tmp_path / "bare.safetensors")


# --- the planted case: a quadratic whose hack direction is known ---


def world(seed: int, strength: float = 3.0):
    """(v_hack from pairs, the planted unit direction, the target that descent goes to): the target has a hack
    part along the direction."""
    generator = torch.Generator().manual_seed(seed)
    hack, clean, truth = planted(pairs=32, ranks=(30, 20), strength=strength, seed=seed)
    v = extraction.build(
        difference(hack, clean),
        Extraction(k=3, noise_floor=0.0),
        {"pair_problems": [str(i) for i in range(32)]},
    )
    target = {n: 2.0 * t + 0.5 * torch.randn(t.shape, generator=generator) for n, t in truth.items()}
    return v, truth, target


def descend(
    edit: Edit, v: VHack, target: dict, at: str, steps: int = 60, seed: int = 0
) -> dict[str, torch.Tensor]:
    """Noisy descent of |theta - target|^2 / 2 by AdamW from 0 under an edit; the final theta. A hack-ward
    gradient is -target's direction."""
    generator = torch.Generator().manual_seed(seed)
    params = {name: torch.nn.Parameter(torch.zeros_like(t)) for name, t in target.items()}
    editor, optimizer = (
        Editor(params, v, edit=edit, at=at),
        torch.optim.AdamW(params.values(), lr=0.05, weight_decay=0),
    )
    for _ in range(steps):
        for name, p in params.items():
            p.grad = p.detach() - target[name] + 0.3 * torch.randn(p.shape, generator=generator)
        editor.edit_grads()
        optimizer.step()
        editor.edit_update()
    return {name: p.detach() for name, p in params.items()}


def along(theta: dict[str, torch.Tensor], truth: dict[str, torch.Tensor]) -> float:
    return sum(float(theta[n] @ truth[n]) for n in truth) / len(truth)


def test_only_update_projection_keeps_the_planted_component_out_of_what_was_learnt():
    v, truth, target = world(seed=1)
    spanned = {
        n: torch.nn.functional.normalize(coefficients(t, v.V[n]) @ v.V[n], dim=0) for n, t in truth.items()
    }  # the planted direction as far as V sees it
    learnt = {
        name: along(descend(edit, v, target, at), spanned)
        for name, edit, at in (
            ("vanilla", Edit(v), "grad"),
            ("update", Edit(v, "two-sided"), "update"),
            ("grad", Edit(v, "two-sided"), "grad"),
            ("random", Edit(random_like(v, 5), "two-sided"), "update"),
        )
    }
    assert learnt["vanilla"] > 1.0
    assert abs(learnt["update"]) < 1e-5  # numerical zero
    assert abs(learnt["grad"]) > 1e-2  # AdamW turns a projected gradient back
    assert (
        learnt["random"] > 0.7 * learnt["vanilla"]
    )  # it takes out its share, 3 of 30 and of 20 directions, and no more


def test_the_permutation_null_rejects_for_a_planted_direction_and_not_for_a_random_one(capsys):
    """p of the live gradient's cosine with V under flipped pairs, 20 worlds each; shown with pytest -s."""
    found = {"planted": [], "random": []}
    for seed in range(20):
        v, truth, target = world(seed)
        noise = world(seed + 100, strength=0.0)[0]  # pairs without anything in common
        hackward = {
            n: t + 0.1 * torch.randn(t.shape, generator=torch.Generator().manual_seed(seed))
            for n, t in target.items()
        }
        for name, direction in (("planted", v), ("random", noise)):
            found[name].append(
                oracle.against(
                    float(cosine(hackward, direction)),
                    null_cosines(hackward, direction, null_weights(direction, 400)),
                ).p
            )
    with capsys.disabled():
        for name, p in found.items():
            print(f"\n{name}: p over 20 seeds " + " ".join(f"{x:.3f}" for x in sorted(p)), end="")
    assert max(found["planted"]) < 0.01
    assert sum(p < 0.05 for p in found["random"]) <= 4 and 0.25 < float(np.mean(found["random"])) < 0.75


# --- objectives and refresh ---


def test_grpo_contrast_is_the_gradient_of_the_live_loss_on_the_pair_as_a_group(tiny):
    """Slow reference: the loss of a group of two, rewards 1 and 0, fixed denominator, temperature, by
    autograd."""
    model, tokenizer = tiny
    adapter, pairs = SVDAdapter(model), fake_pairs(tokenizer, "assert True")[:3]
    settings = Extraction(objective="grpo", temperature=0.7)
    hack, clean = pair_gradients(adapter, pairs, settings, pad=0, tokens=500)
    longest = max(len(ids) for p in pairs for ids in (p.hack_ids, p.clean_ids))
    for i, pair in enumerate(pairs):
        batch = collate([(pair.prompt_ids, pair.hack_ids), (pair.prompt_ids, pair.clean_ids)], [0, 1], pad=0)
        logp, mask = token_logps(adapter.model, batch, temperature=0.7)
        policy_loss(
            logp, mask, dr_grpo_advantages(torch.tensor([1.0, 0.0])), torch.full((2,), float(longest))
        )[0].backward()
        for name, p in adapter.params.items():
            assert torch.allclose(hack[name][i] - clean[name][i], p.grad, atol=1e-6), name
            p.grad = None
    nll = pair_gradients(adapter, pairs, Extraction(), pad=0, tokens=500)
    assert any(not torch.allclose(hack[n] - clean[n], (nll[0][n] - nll[1][n]) / 2, rtol=1e-2) for n in hack)


def test_overlap_is_the_mean_squared_cosine_of_the_principal_angles():
    generator = torch.Generator().manual_seed(0)
    bases = [torch.linalg.qr(torch.randn(9, k, generator=generator)).Q.T for k in (3, 2)]
    a, b = (VHack({"m": V}, {"m": torch.ones(len(V))}) for V in bases)
    angles = linalg.subspace_angles(bases[0].T.numpy(), bases[1].T.numpy())
    assert overlap(a, b) == pytest.approx(float((np.cos(angles) ** 2).mean()), abs=1e-5)
    assert overlap(a, a) == pytest.approx(1.0, abs=1e-5)
    assert overlap(a, VHack({"other": bases[1]}, {"other": torch.ones(2)})) == 0.0


def test_a_refresh_takes_the_new_direction_out_of_the_momentum(v, g):
    params = {name: torch.nn.Parameter(torch.zeros_like(x)) for name, x in g.items()}
    new = random_like(v, 2)
    for at, gate, clears in (
        ("grad", "two-sided", True),
        ("update", "two-sided", False),
        ("grad", "none", False),
    ):
        optimizer = torch.optim.AdamW(params.values(), lr=0.1)
        for name, p in params.items():
            p.grad = g[name].clone()
        optimizer.step()
        editor = Editor(params, v, edit=Edit(v, gate), at=at)
        editor.use(new, Edit(new, gate))
        editor.align(optimizer)
        left = max(
            float(coefficients(optimizer.state[params[n]]["exp_avg"], V).abs().max())
            for n, V in new.V.items()
        )
        assert (left < 1e-6) is clears


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
def test_a_resumed_run_removes_what_it_removed_before(shop, tmp_path, control, refresh, cut):  # noqa: F811
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


def test_a_refresh_whose_pairs_are_gone_is_refused_before_the_run_starts(shop, tmp_path):  # noqa: F811
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


def test_no_problem_is_both_trained_on_and_held_out_nor_known_to_v_hack(shop, tmp_path):  # noqa: F811
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


def test_a_finished_run_is_evaluated_once_and_restored_with_its_adapter(shop, tmp_path):  # noqa: F811
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


def test_the_probe_runs_in_the_lora_basis_and_does_not_repeat_its_vanilla(shop, vanilla, tmp_path):  # noqa: F811
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
