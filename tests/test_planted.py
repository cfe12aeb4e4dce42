"""A planted case with a known truth: a quadratic whose hack direction is known."""

import numpy as np
import torch

from hackward.method import extraction, oracle
from hackward.method.projection import (
    Edit,
    Editor,
    coefficients,
    cosine,
    null_cosines,
)
from hackward.method.recipe import Extraction
from hackward.method.v_hack import VHack, null_weights, random_like
from tests.test_extract import difference, planted

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
