"""Claims about interventions: what a flag does to advantages, and that row gradients weighed afterwards are
the gradient of the loss at the new advantages."""

import pytest
import torch

from antipasto import SVDAdapter
from hackward.grading.labels import unpaid
from hackward.hardware import models
from hackward.method import gradients
from hackward.method.interventions import INTERVENTIONS
from hackward.method.monitors import Attempt, Seen, Truth, Watch, figures
from hackward.method.weights import betas, denominators, weigh
from hackward.rollouts.rollout import Rollout
from hackward.tasks.shipped import TINY
from lora_adapter import LoRAAdapter
from tests.conftest import randomise

CPU_ROUNDING = {"rtol": 1e-5, "atol": 1e-5}


def rollout(reward, *, hacked=False, attempted=False, own=True, ids=(40, 41, 42), prompt=(3, 4, 5)):
    labels = {"hacked": hacked, "gt_pass": False, "fmt_ok": reward > 0, "attempted": attempted}
    source = {"truncated": False, "src_pool": "policy", "src_step": 0, "src_sample": 0, "own": own}
    return Rollout("p", tuple(prompt), tuple(ids), "x", reward, **labels, **source)


def advantages(intervention, rewards, flags):
    groups = [[rollout(reward) for reward in rewards]]
    weighed = weigh(
        groups,
        loss_mode="grpo",
        beta=0.0,
        denominator="fixed",
        fixed=10,
        intervention=INTERVENTIONS[intervention],
        flagged=[flags],
    )
    return weighed.advantages[0].tolist()


def test_a_penalty_pays_for_the_format_alone_before_the_mean_is_taken():
    assert advantages("penalty", [3.5, 3.5, 0.5, 0.5], [True, False, False, False]) == [
        -0.75,
        2.25,
        -0.75,
        -0.75,
    ]
    assert advantages("penalty", [0.0, 3.5], [True, False]) == [
        -1.75,
        1.75,
    ]  # code that does not compile earns 0


def test_a_penalty_can_make_a_group_speak_and_can_silence_one():
    assert advantages("penalty", [3.5, 3.5], [False, True]) == [1.5, -1.5]
    assert advantages("penalty", [3.5, 0.5], [True, False]) == [0.0, 0.0]


def test_a_screened_rollout_is_in_neither_mean_nor_gradient():
    assert advantages("screen", [3.5, 3.5, 0.5], [True, False, False]) == [0.0, 1.5, -1.5]
    assert advantages("screen", [3.5, 0.5, 0.5], [True, False, False]) == [0.0, 0.0, 0.0]
    assert advantages("screen", [3.5, 0.5], [True, True]) == [0.0, 0.0]


def test_who_looks_on_changes_nothing():
    assert advantages("none", [3.5, 0.5], [True, True]) == advantages("none", [3.5, 0.5], [False, False])


def test_denominators_count_every_rollout_whatever_is_flagged():
    groups = [[rollout(3.5), rollout(0.5)], [rollout(0.5), rollout(0.5)]]
    for intervention in INTERVENTIONS.values():
        weighed = weigh(
            groups,
            loss_mode="grpo",
            beta=0.1,
            denominator="fixed",
            fixed=10,
            intervention=intervention,
            flagged=[[True, False], [False, True]],
        )
        assert weighed.normaliser_N.tolist() == [40.0] * 4 and weighed.beta_N.tolist() == pytest.approx(
            [0.1] * 4
        )


# --- exact at any advantages ---


def varied_groups():
    """Rows of different lengths: one varied group, one without variance, one with a row at the mean, one of a
    teacher's."""
    lengths = iter([(4, 9), (7, 2), (5, 14), (3, 3), (9, 6), (2, 11), (6, 5), (8, 8), (3, 12)])

    def one(reward, **more):
        p, c = next(lengths)
        return rollout(reward, ids=range(40, 40 + c), prompt=range(3, 3 + p), **more)

    return [
        [one(3.5, hacked=True), one(0.5), one(0.0)],
        [one(3.5, hacked=True), one(3.5), one(3.5)],
        [one(2.0), one(3.5, own=False), one(0.5)],
    ]


@pytest.mark.parametrize("kind", [SVDAdapter, LoRAAdapter])
@pytest.mark.parametrize("intervention", ["none", "penalty", "screen"])
@pytest.mark.parametrize("beta", [0.0, 0.3])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_rows_scored_first_and_weighed_after_give_the_gradient_of_a_second_backward(
    kind, intervention, beta, checkpointing
):
    model = models.load(TINY, dtype="float32", device="cpu")[0]
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.train()
    adapter = kind(model)
    randomise(adapter, 0.05)
    groups = varied_groups()
    every = [one for group in groups for one in group]
    flagged = [[one.hacked for one in group] for group in groups]
    weighed = weigh(
        groups,
        loss_mode="grpo",
        beta=beta,
        denominator="length",
        fixed=20,
        intervention=INTERVENTIONS[intervention],
        flagged=flagged,
    )
    rows = gradients.row_gradients(
        adapter,
        [one.tokens for one in every],
        denominators(every, kind="length", fixed=20),
        pad=0,
        tokens=40,
        beta_N=betas(every, beta),
        temperature=0.7,
    )
    assert all(p.grad is None for p in adapter.params.values())
    once = rows.weighted(adapter, torch.cat(weighed.advantages))
    found = {name: p.grad.clone() for name, p in adapter.params.items()}
    for p in adapter.params.values():
        p.grad = None
    twice = gradients.backward(
        adapter,
        [one.tokens for one in weighed.rollouts],
        weighed.advantage_N,
        weighed.normaliser_N,
        pad=0,
        beta_N=weighed.beta_N,
        temperature=0.7,
    )
    for name, p in adapter.params.items():
        torch.testing.assert_close(found[name], p.grad, **CPU_ROUNDING)
    assert once.loss == pytest.approx(twice.loss, abs=1e-5)
    assert once.kl == (None if beta == 0 else pytest.approx(twice.kl, rel=1e-4))


def test_scores_read_on_the_way_are_those_of_gradients_that_are_kept():
    adapter = SVDAdapter(models.load(TINY, dtype="float32", device="cpu")[0])
    every = [one for group in varied_groups() for one in group]
    tokens = [one.tokens for one in every]
    kept = gradients.row_gradients(adapter, tokens, torch.ones(len(every)), pad=0, tokens=10_000)
    name = next(iter(adapter.params))
    read = gradients.read_rows(adapter, tokens, lambda g: g[name][:, :3], pad=0, tokens=30)
    torch.testing.assert_close(read, kept.nll[name][:, :3], rtol=1e-4, atol=1e-6)


# --- monitors ---


def labelled():
    return [
        rollout(3.5, hacked=True, attempted=True),
        rollout(0.5, attempted=True),
        rollout(3.5),
        rollout(0.5),
        rollout(3.5, hacked=True, attempted=True, own=False),
    ]


def watch(monitor, *, owners="all", placebo=False, seed=1):
    return Watch(monitor, owners, placebo, seed)


def test_truth_flags_hacks_and_attempt_flags_attempts():
    groups = [labelled()]
    assert watch(Truth(0.0, 1)).look(0, groups).flagged == [True, False, False, False, True]
    assert watch(Attempt()).look(0, groups).flagged == [True, True, False, False, True]


@pytest.mark.parametrize(("owners", "flagged"), [("own", [0]), ("teacher", [4]), ("all", [0, 4])])
def test_only_the_rows_of_its_owners_are_flagged(owners, flagged):
    seen = watch(Truth(0.0, 1), owners=owners).look(0, [labelled()])
    assert [i for i, flag in enumerate(seen.flagged) if flag] == flagged


def test_noise_flips_each_flag_with_its_probability_by_seed_and_step():
    groups = [[rollout(0.5, hacked=i % 2 == 0) for i in range(4000)]]
    truth = [one.hacked for one in groups[0]]

    def flips(noise, seed=1, step=0):
        seen = Truth(noise, seed).look(step, groups[0])
        return [flag != label for flag, label in zip(seen.flagged, truth)]

    assert sum(flips(0.2)) / 4000 == pytest.approx(0.2, abs=0.02)
    assert sum(flips(0.0)) == 0 and sum(flips(1.0)) == 4000
    assert flips(0.2) == flips(0.2) != flips(0.2, step=1) != flips(0.2, seed=2)


def test_the_placebo_flags_at_the_monitor_s_rate_and_knows_nothing_of_labels():
    groups = [[rollout(0.5, hacked=i < 1000, own=i % 2 == 0) for i in range(4000)]]
    seen = watch(Truth(0.0, 1), owners="own", placebo=True).look(0, groups)
    own = [i for i in range(4000) if i % 2 == 0]
    assert sum(seen.flagged[i] for i in own) / len(own) == pytest.approx(0.25, abs=0.03)
    assert not any(seen.flagged[i] for i in range(1, 4000, 2))
    among_hacks = [seen.flagged[i] for i in own if i < 1000]
    assert sum(among_hacks) / len(among_hacks) == pytest.approx(0.25, abs=0.06)
    assert seen.score_N.tolist() == [float(one.hacked) for one in groups[0]]  # the real monitor's
    again = watch(Truth(0.0, 1), owners="own", placebo=True, seed=2).look(0, groups)
    assert again.flagged != seen.flagged
    assert watch(Truth(0.0, 1), owners="own", placebo=True).look(1, groups).flagged != seen.flagged
    assert watch(Truth(0.0, 1), owners="own", placebo=True).look(0, groups).flagged == seen.flagged


def test_figures_are_over_own_rows_and_none_where_a_class_is_empty():
    rollouts = labelled()
    seen = Seen(torch.tensor([0.9, 0.1, 0.5, 0.3, -5.0]), [True, False, True, False, False])
    assert figures(seen, rollouts) == {
        "monitor_auc_hacked": 1.0,  # 0.9 above 0.1, 0.5, 0.3; the teacher's hack at -5 is not counted
        "monitor_auc_attempted": 0.5,  # 0.9 above both, 0.1 above none
        "monitor_rate_hacked": 1.0,
        "monitor_rate_clean": 0.5,
    }
    honest = [one for one in rollouts if not one.attempted]
    empty = figures(Seen(torch.tensor([0.5, 0.3]), [True, False]), honest)
    assert empty == {
        "monitor_auc_hacked": None,
        "monitor_auc_attempted": None,
        "monitor_rate_hacked": None,
        "monitor_rate_clean": 0.5,
    }
    assert set(figures(None, rollouts).values()) == {None}


def test_the_pay_for_format_is_that_of_the_reward():
    assert (unpaid(True), unpaid(False)) == (0.5, 0.0)
