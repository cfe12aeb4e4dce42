"""What every rollout weighs: hand-worked groups of own and foreign rollouts, with and without variance."""

import dataclasses

import pytest
import torch

from hackward.method.losses import k3
from hackward.method.weights import weigh
from hackward.rollouts.rollout import Rollout

ROLLOUT = Rollout(
    "p", (1, 2), (3, 4, 5), "x", 0.0, False, False, True, False, False, "policy", 0, 0, own=True
)


def group(*rewards, own=True):
    return [dataclasses.replace(ROLLOUT, reward=reward, own=own) for reward in rewards]


def weighed(*groups, beta=0.0, loss_mode="grpo", denominator="fixed"):
    return weigh(groups, loss_mode=loss_mode, beta=beta, denominator=denominator, fixed=10)


def test_advantages_are_the_reward_minus_the_group_s_mean_and_every_rollout_counts_in_the_denominator():
    found = weighed(group(3.5, 0.5), group(0.5, 0.5))
    assert found.advantage_N.tolist() == [1.5, -1.5]
    assert found.normaliser_N.tolist() == [
        40.0,
        40.0,
    ]  # four rollouts of at most 10 tokens, though two are skipped
    assert (found.groups_used, found.varied) == (1, [True, False])


def test_a_group_is_skipped_only_where_advantages_and_kl_weights_are_all_zero():
    alike = group(0.5, 0.5)
    assert weighed(alike).rollouts == [] and weighed(alike).groups_used == 0
    with_kl = weighed(alike, beta=0.1)
    assert with_kl.advantage_N.tolist() == [0.0, 0.0]
    assert with_kl.beta_N.tolist() == pytest.approx([0.1, 0.1]) and with_kl.groups_used == 1


def test_the_kl_is_over_the_policy_s_own_rollouts_only():
    mixed = group(0.5, 0.5) + group(0.5, own=False)
    found = weighed(mixed, beta=0.1)
    assert len(found.rollouts) == 2 and all(rollout.own for rollout in found.rollouts)
    varied = group(3.5) + group(0.5, own=False)
    assert weighed(varied, beta=0.1).beta_N.tolist() == pytest.approx([0.1, 0.0])


def test_a_rollout_at_its_group_s_mean_stays_in_the_group():
    found = weighed(group(1.0, 2.0, 3.0))
    assert found.advantage_N.tolist() == [-1.0, 0.0, 1.0]


def test_advantages_of_equal_rewards_are_zero_to_the_bit():
    assert not weighed(group(*[0.1] * 3)).varied[0]  # the rounded mean of three 0.1 is not 0.1


def test_imitation_weighs_every_rollout_1_and_length_divides_by_its_own():
    found = weighed(group(0.5, 0.5), loss_mode="nll", denominator="length")
    assert found.advantage_N.tolist() == [1.0, 1.0] and found.normaliser_N.tolist() == [6.0, 6.0]


def test_k3_is_unbiased_and_its_gradient_is_that_of_the_other_direction():
    """On three outcomes, in closed form: E k3 = KL(policy || base), E grad k3 = grad KL(base || policy)."""
    base = torch.tensor([0.2, 0.5, 0.3], dtype=torch.double).log()
    logits = torch.tensor([0.3, -0.4, 0.9], dtype=torch.double, requires_grad=True)
    logp = logits.log_softmax(0)
    p = logp.exp().detach()
    value = (p * k3(logp, base)).sum()
    assert float(value.detach()) == pytest.approx(float((p * (logp - base)).sum().detach()))
    (ours,) = torch.autograd.grad(value, logits, retain_graph=True)
    (forward,) = torch.autograd.grad((base.exp() * (base - logp)).sum(), logits, retain_graph=True)
    (reverse,) = torch.autograd.grad((logp.exp() * (logp - base)).sum(), logits)
    assert torch.allclose(ours, forward) and not torch.allclose(ours, reverse, atol=1e-3)
