"""Claims about log-probabilities, advantages and the loss: hand-worked numbers, poisoned padding, slow
references."""

import math
from dataclasses import replace

import pytest
import torch

from hackward.method import losses
from hackward.method.losses import (
    _HeadLogps,
    collate,
    dr_grpo_advantages,
    imitation_advantages,
    k3,
    micro_batches,
    normaliser,
    policy_loss,
    token_logps,
)


def test_token_logps_equal_log_softmax_of_the_full_logits(tiny, rows):
    model, _ = tiny
    logp, mask = token_logps(model, collate(rows, list(range(5)), 0), temperature=0.7)
    for i, (prompt, completion) in enumerate(rows):
        logits = model(input_ids=torch.tensor([[*prompt, *completion]])).logits[0] / 0.7
        want = logits.log_softmax(-1)[len(prompt) - 1 : -1].gather(1, torch.tensor(completion)[:, None])[:, 0]
        assert torch.allclose(logp[i, : len(completion)], want, atol=1e-5)
        assert mask[i].sum() == len(completion) and not logp[i, len(completion) :].any()


def test_padding_changes_nothing_whatever_it_is(tiny, rows):
    model, _ = tiny
    plain, _ = token_logps(model, collate(rows, list(range(5)), 0))
    poisoned, _ = token_logps(model, collate(rows, list(range(5)), 257))  # the end-of-turn token as padding
    wider = collate([*rows, (list(range(1, 60)), [1])], list(range(6)), 3)
    assert torch.allclose(plain, poisoned, atol=1e-6)
    assert torch.allclose(plain, token_logps(model, wider)[0][:5], atol=1e-5)
    changed = [(p, [*c[:-1], (c[-1] + 1) % 250]) for p, c in rows]  # control: a real token does matter
    assert not torch.allclose(plain, token_logps(model, collate(changed, list(range(5)), 0))[0], atol=1e-3)


def test_logits_in_blocks_give_the_same_values_and_the_gradient_of_autograd(tiny, rows, monkeypatch):
    """Against plain autograd through log_softmax, at a temperature, with blocks that do not divide the token
    count."""
    model, _ = tiny
    head, generator = model.get_output_embeddings(), torch.Generator().manual_seed(0)
    hidden, target = torch.randn(11, head.weight.shape[1], generator=generator), torch.arange(11) * 7
    weight = torch.randn(11, generator=generator)
    plain = hidden.clone().requires_grad_()
    want = (head(plain) / 0.7).log_softmax(-1).gather(1, target[:, None])[:, 0]
    (want * weight).sum().backward()
    for limit in (1 << 27, 259 * 4):
        monkeypatch.setattr(losses, "LOGITS_AT_ONCE", limit)
        ours = hidden.clone().requires_grad_()
        logp = _HeadLogps.apply(ours, target, head, 0.7)
        (logp * weight).sum().backward()
        assert torch.allclose(logp, want, atol=1e-5) and torch.allclose(ours.grad, plain.grad, atol=1e-5)


def test_logits_of_the_whole_batch_never_exist(tiny, rows, monkeypatch):
    model, _ = tiny
    monkeypatch.setattr(losses, "LOGITS_AT_ONCE", 259 * 4)
    seen = []
    model.get_output_embeddings().register_forward_hook(
        lambda module, inputs, output: seen.append(output.shape[0])
    )
    token_logps(model, collate(rows, list(range(5)), 0))
    assert sum(seen) == sum(len(c) for _, c in rows) and max(seen) <= 4


def test_micro_batches_hold_every_row_once_within_the_budget(rows):
    for tokens in (1, 30, 10_000):
        batches = list(micro_batches(rows, tokens=tokens, pad=0))
        assert sorted(i for b in batches for i in b.index) == list(range(5))
        assert all(b.ids_BL.numel() <= tokens or len(b.index) == 1 for b in batches)
        for b in batches:
            for line, i in enumerate(b.index):
                prompt, completion = rows[i]
                assert b.ids_BL[line, : len(prompt) + len(completion)].tolist() == [*prompt, *completion]


def test_dr_grpo_advantages_are_centred_and_not_scaled():
    assert dr_grpo_advantages(torch.tensor([3.5, 0.5, 0.5, 3.5])).tolist() == [1.5, -1.5, -1.5, 1.5]
    assert not dr_grpo_advantages(torch.tensor([0.1] * 7)).any()  # exactly zero although 7 * 0.1 rounds
    assert imitation_advantages(torch.tensor([0.5, 3.5])).tolist() == [1.0, 1.0]


def test_hand_worked_loss():
    logp = torch.tensor([[-1.0, -2.0, -9.0], [-0.5, -9.0, -9.0]])  # -9 stands where the mask is off
    mask = torch.tensor([[True, True, False], [True, False, False]])
    loss, _ = policy_loss(logp, mask, torch.tensor([2.0, -1.0]), torch.tensor([4.0, 2.0]))
    assert float(loss) == pytest.approx(2 * 3 / 4 - 0.5 / 2)
    ref = torch.tensor([[-1.0, -1.0, 7.0], [-0.5, 7.0, 7.0]])
    loss, kl = policy_loss(logp, mask, torch.zeros(2), torch.tensor([4.0, 2.0]), ref, 0.5)
    assert kl.tolist() == pytest.approx([math.e - 2, 0.0]) and float(loss) == pytest.approx(
        0.5 * (math.e - 2) / 4
    )


def test_k3_is_zero_with_zero_gradient_at_equality_and_positive_elsewhere():
    logp = torch.tensor([-1.0, -2.0], requires_grad=True)
    k3(logp, logp.detach()).sum().backward()
    assert logp.grad.tolist() == [0.0, 0.0]
    assert (k3(torch.tensor([-1.0, -3.0]), torch.tensor([-2.0, -1.0])) > 0).all()


def test_normalisers():
    length = torch.tensor([3, 10])
    assert normaliser("fixed", length, rollouts=4, fixed=100).tolist() == [400.0, 400.0]
    assert normaliser("length", length, rollouts=4, fixed=100).tolist() == [12.0, 40.0]


def test_replay_loss_is_the_one_that_phase_2_defines():
    """-A_i * sum(logp_i * mask_i) / sum(mask_i) / G."""
    logp = -torch.rand(4, 6)
    length = torch.tensor([6, 2, 3, 1])
    mask = torch.arange(6) < length[:, None]
    A = dr_grpo_advantages(torch.tensor([3.5, 0.5, 0.5, 0.0]))
    want = sum(-A[i] * (logp[i] * mask[i]).sum() / mask[i].sum() / 4 for i in range(4))
    loss, _ = policy_loss(logp, mask, A, normaliser("length", length, rollouts=4, fixed=0))
    assert float(loss) == pytest.approx(float(want), rel=1e-5)


def test_a_batch_keeps_its_rows_when_it_moves(rows):
    batch = collate(rows, list(range(5)), 0)
    assert replace(batch).to("cpu").index == batch.index
