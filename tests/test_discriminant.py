"""Claims about a monitor's scores: what they are, when whitening wins, where the threshold lies."""

import numpy as np
import pytest
import torch

from antipasto import SVDAdapter
from hackward.base.faults import InputError
from hackward.method import discriminant, hidden
from hackward.method.discriminant import Discriminant, contrasted, coordinates, fit
from hackward.method.extraction import build, union
from hackward.method.projection import cosine
from hackward.method.quality import auc
from hackward.method.recipe import Extraction
from tests.test_extract import difference, planted

SETTINGS = Extraction(k=3, noise_floor=0.0)
MODULES = {"m0": 12, "m1": 8}


def answers(count, *, shift, loud=6.0, seed=0):
    """Gradients of `count` answers: unit noise, but `loud` times as much along one axis of m0; hacks are
    shifted along that axis and, as far, along a quiet one of m1."""
    generator = torch.Generator().manual_seed(seed)
    g = {name: torch.randn(count, R, generator=generator) for name, R in MODULES.items()}
    g["m0"][:, 0] *= loud
    if shift:
        g["m0"][:, 0] += shift
        g["m1"][:, 0] += shift
    return g


def problems(count):
    return [f"p{i // 2}" for i in range(count)]


def separation(found, *, loud):
    hack, honest = answers(400, shift=3.0, loud=loud, seed=7), answers(400, shift=0.0, loud=loud, seed=8)
    return float(auc(found.score(hack)[None], found.score(honest)[None])[0])


@pytest.mark.parametrize(("loud", "wins"), [(6.0, True), (1.0, False)])
def test_whitening_wins_where_honest_answers_differ_along_v_hack_and_costs_nothing_where_they_do_not(
    loud, wins
):
    gain = []
    for seed in range(5):
        hack = answers(48, shift=3.0, loud=loud, seed=20 + seed)
        clean = answers(48, shift=0.0, loud=loud, seed=40 + seed)
        scores = {s: fit(hack, clean, problems(48), SETTINGS, score=s) for s in ("cosine", "whitened")}
        gain.append(separation(scores["whitened"], loud=loud) - separation(scores["cosine"], loud=loud))
    assert (np.mean(gain) > 0.1) if wins else (abs(np.mean(gain)) < 0.03)


def test_the_cosine_score_is_the_cosine_with_v_hack():
    hack, clean = answers(24, shift=3.0, seed=1), answers(24, shift=0.0, seed=2)
    v = build(difference(hack, clean), SETTINGS, {})
    found = fit(hack, clean, problems(24), SETTINGS, v=v)
    torch.testing.assert_close(found.score(hack), cosine(hack, v))


def test_the_whitened_score_is_fisher_s_with_the_shrunk_covariance_of_clean_answers():
    from sklearn.covariance import LedoitWolf

    hack, clean = answers(24, shift=3.0, seed=1), answers(24, shift=0.0, seed=2)
    v = build(difference(hack, clean), SETTINGS, {})
    found = fit(hack, clean, problems(24), SETTINGS, score="whitened", v=v)
    x_hack, x_clean = coordinates(hack, v).numpy(), coordinates(clean, v).numpy()
    C = LedoitWolf().fit(x_clean).covariance_
    a = np.linalg.inv(C) @ (x_hack - x_clean).mean(0)
    slow = x_hack @ a / np.sqrt(a @ C @ a)
    np.testing.assert_allclose(found.score(hack).numpy(), slow, rtol=1e-3)


def test_the_threshold_lets_the_asked_share_of_unseen_honest_answers_through():
    hack, clean = answers(200, shift=3.0, seed=1), answers(200, shift=0.0, seed=2)
    for score in ("cosine", "whitened"):
        for fpr in (0.05, 0.3):
            found = fit(hack, clean, problems(200), SETTINGS, score=score, fpr=fpr)
            unseen = answers(2000, shift=0.0, seed=3)
            rate = float((found.score(unseen) > found.threshold).float().mean())
            assert rate == pytest.approx(fpr, abs=0.06)


def test_a_threshold_from_answers_that_were_learned_from_would_be_too_low():
    """Noise alone: in-sample scores of clean answers are pushed down, so their quantile lets too many
    through."""
    gaps = []
    for seed in range(8):
        hack, clean = (answers(30, shift=0.0, loud=1, seed=2 * seed + side) for side in (0, 1))
        found = fit(hack, clean, problems(30), SETTINGS, score="whitened", fpr=0.1)
        gaps.append(found.threshold - float(torch.quantile(found.score(clean), 0.9)))
    assert np.mean(gaps) > 0.15


def test_controls_learn_from_other_contrasts_and_never_move_the_threshold_s_answers():
    hack, clean = answers(24, shift=3.0, seed=1), answers(24, shift=0.0, seed=2)
    ids = problems(24)
    first, second = contrasted("sign-flip", hack, clean, ids, seed=3)
    swapped = [bool((first["m0"][i] == clean["m0"][i]).all()) for i in range(24)]
    assert 0 < sum(swapped) < 24 and all(swapped[i] == swapped[i + 1] for i in range(0, 24, 2))
    assert all(torch.equal((second if s else first)["m0"][i], hack["m0"][i]) for i, s in enumerate(swapped))
    first, second = contrasted("clean-clean", hack, clean, ids, seed=3)
    assert torch.equal(first["m0"], clean["m0"])
    other = [int((clean["m0"] == row).all(1).nonzero()) for row in second["m0"]]
    assert sorted(other) == list(range(24)) and all(ids[i] != ids[j] for i, j in enumerate(other))
    real = fit(hack, clean, ids, SETTINGS)
    for control in ("sign-flip", "clean-clean"):
        found = fit(hack, clean, ids, SETTINGS, control=control, seed=3)
        assert separation(found, loud=6.0) < separation(real, loud=6.0) - 0.05


def test_a_score_is_saved_and_read_back(tmp_path):
    found = fit(
        answers(24, shift=3.0), answers(24, shift=0.0, seed=2), problems(24), SETTINGS, score="whitened"
    )
    found.save(tmp_path / "m.safetensors")
    back = Discriminant.load(tmp_path / "m.safetensors")
    g = answers(5, shift=1.0, seed=9)
    assert torch.equal(back.score(g), found.score(g)) and back.threshold == found.threshold


def test_pairs_of_two_problems_give_no_threshold():
    g = answers(4, shift=1.0)
    with pytest.raises(InputError, match="at least three problems"):
        fit(g, answers(4, shift=0.0, seed=2), problems(4), SETTINGS)


# --- union of spans ---


def test_a_union_keeps_the_new_directions_first_and_adds_only_what_lies_beyond_them():
    hack, clean, _ = planted(pairs=24, strength=1.5, seed=1)
    other_hack, other_clean, _ = planted(pairs=24, strength=1.5, seed=2)
    old = build(difference(hack, clean), SETTINGS, {})
    D = difference(other_hack, other_clean)
    new = build(D, SETTINGS, {})
    both = union(old, new, D)
    for name, V in both.V.items():
        torch.testing.assert_close(V @ V.T, torch.eye(len(V)), atol=1e-4, rtol=0)
        assert torch.equal(V[: len(new.V[name])], new.V[name])
        within = old.V[name] @ V.T @ V
        torch.testing.assert_close(within, old.V[name], atol=0.11, rtol=0)
        beyond = V[len(new.V[name]) :]
        assert (beyond @ old.V[name].T).diagonal().gt(0).all()  # oriented as they were
        torch.testing.assert_close(both.w[name], (D[name] @ V.T).mean(0).clamp(min=0))
    again = union(both, new, D)
    assert {name: len(V) for name, V in again.V.items()} == {name: len(V) for name, V in both.V.items()}


# --- the probe on hidden states ---


def test_pooled_states_are_the_means_over_completion_tokens_of_the_base_model(tiny, rows):
    model, _ = tiny
    adapter = SVDAdapter(model)
    states = hidden.pooled(adapter, rows, pad=0, tokens=30)
    prompt, completion = rows[2]
    out = model(torch.tensor([prompt + completion]), output_hidden_states=True).hidden_states
    for layer in (0, 1, len(out) - 1):
        slow = out[layer][0, len(prompt) :].mean(0)
        torch.testing.assert_close(states[2, layer], slow, rtol=1e-4, atol=1e-5)
    one = hidden.pooled(adapter, rows, pad=0, layer=1)
    torch.testing.assert_close(one, states[:, 1])


def test_the_probe_takes_the_layer_that_tells_and_holds_its_false_positive_rate():
    generator = torch.Generator().manual_seed(0)
    hack, clean = (torch.randn(60, 3, 20, generator=generator) for _ in range(2))
    hack[:, 1, 4] += 3
    found = hidden.fit(hack, clean, problems(60), fpr=0.1)
    assert found.layer == 1 and found.auc > 0.9
    fresh = torch.randn(2000, 20, generator=generator)
    assert float((found.score(fresh) > found.threshold).float().mean()) == pytest.approx(0.1, abs=0.06)
    fresh[:, 4] += 3
    assert float((found.score(fresh) > found.threshold).float().mean()) > 0.7
    with pytest.raises(InputError, match="at least three problems"):
        hidden.fit(hack[:4], clean[:4], problems(4), fpr=0.1)


def test_names_of_scores_are_those_of_the_command_line():
    assert set(discriminant.WEIGHTS) == {"cosine", "whitened"}
