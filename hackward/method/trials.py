"""What a model must do for our log-probabilities to be its own, tried on a short text before it is used.

Log-probabilities are taken as head(hidden), a block at a time (losses.token_logps), and tokens are drawn
with a cache of keys and values after a padded prompt (rollouts.sampling). A model that does something else
would be wrong without a sound.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hackward.base.faults import InputError
from hackward.base.types import CausalLM
from hackward.hardware.neighbours import ran_out
from hackward.method.losses import collate, token_logps
from hackward.rollouts import sampling
from hackward.rollouts.draws import Request

# Settings of a config that change logits after the head, and the value with which each changes nothing. A
# trial with small logits does not show them: they stay what they are under a cap.
AFTER_THE_HEAD: dict[str, float | None] = {
    "final_logit_softcapping": None,  # Gemma 2, 3, 3n
    "logits_soft_cap": None,  # RecurrentGemma
    "output_logit_soft_cap": None,  # xLSTM
    "logits_scaling": 1.0,  # Granite
    "logit_scale": 1.0,  # Cohere
    "lm_head_multiplier": 1.0,  # Falcon H1
}
LARGE = 1000.0  # logits that no cap leaves as they are
DRAWN = 4  # tokens of the trial of sampling
NOT_SUPPORTED = "which is not supported"


@torch.no_grad()
def check_head(model: CausalLM, name: str) -> None:
    """InputError unless the model's logits are its head on its decoder's last hidden state, and finite."""
    _check_parts(model, name)
    config = model.config.get_text_config()
    for setting, neutral in AFTER_THE_HEAD.items():
        value = getattr(config, setting, None)
        if value is not None and value != neutral:
            raise InputError(
                f"{name}: its config sets {setting} = {value}, a change of logits, {NOT_SUPPORTED}"
            )
    ids = _text(model, 24)
    batch = collate([(ids[:4], ids[4:])], [0], 0).to(model.device)
    logits = model(input_ids=batch.ids_BL, use_cache=False).logits.float()
    if not bool(logits.isfinite().all()):
        raise InputError(
            f"{name}: its logits of a short text are NaN or infinite in {model.dtype}; --dtype=float32 would"
            " tell rounding from broken weights"
        )
    ours, _ = token_logps(model, batch)
    theirs = logits.log_softmax(-1)[0, 3:-1].gather(1, batch.ids_BL[0, 4:, None])[:, 0]
    same = torch.allclose(ours[0], theirs, atol=0.05, rtol=0.02)
    if not same or not _head_is_last(model, batch.ids_BL):
        raise InputError(f"{name}: this architecture post-processes its logits, {NOT_SUPPORTED}")


def _check_parts(model: CausalLM, name: str) -> None:
    head, decoder = model.get_output_embeddings(), model.get_decoder()
    if head is None or decoder is None or decoder is model:
        raise InputError(f"{name}: {type(model).__name__} has no decoder with a head on it, {NOT_SUPPORTED}")


def _text(model: CausalLM, length: int) -> list[int]:
    """Token ids that every model has."""
    vocabulary = model.get_output_embeddings().weight.shape[0]
    return [(7 * i + 11) % min(vocabulary, 1000) for i in range(length)]


def _head_is_last(model: CausalLM, ids_BL: Tensor) -> bool:
    """Do large outputs of the head come out of the model as they are? True for a head that is not called."""
    sent: list[Tensor] = []

    def enlarge(module: Any, args: Any, output: Tensor) -> Tensor:
        sent.append(output * (LARGE / output.abs().max().clamp(min=1e-6)))
        return sent[-1]

    hook = model.get_output_embeddings().register_forward_hook(enlarge)
    try:
        logits = model(input_ids=ids_BL, use_cache=False).logits
    finally:
        hook.remove()
    if not sent:
        return True
    return logits.shape == sent[-1].shape and torch.equal(logits.float(), sent[-1].float())


@torch.no_grad()
def check_sampling(model: CausalLM, name: str) -> None:
    """InputError unless tokens can be drawn after padded prompts, with the log-probabilities of a whole
    forward."""
    text = _text(model, 12)
    requests = [Request(tuple(text), ("trial", 0)), Request(tuple(text[:5]), ("trial", 1))]
    training = model.training
    model.eval()
    try:
        drawn = sampling.sample(
            model, requests, max_new_tokens=DRAWN, temperature=1.0, stop=(), decoding="plain"
        )
    except (
        AttributeError,
        IndexError,
        KeyError,
        NotImplementedError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as fault:
        if ran_out(fault):
            raise
        reason = (str(fault).splitlines() or [type(fault).__name__])[0]
        raise InputError(
            f"{name}: {type(model).__name__} cannot be sampled from with a cache of keys and values"
            f" ({reason}), {NOT_SUPPORTED}"
        ) from None
    finally:
        model.train(training)
    rows = [(request.prompt_ids, tuple(one.ids)) for request, one in zip(requests, drawn)]
    scored, _ = token_logps(model, collate(rows, [0, 1], 0).to(model.device))
    seen = torch.tensor([one.logps for one in drawn], device=scored.device)
    if not torch.allclose(scored, seen, atol=0.25, rtol=0.05):
        raise InputError(
            f"{name}: {type(model).__name__} draws tokens with other probabilities after padding than it"
            f" scores them with, {NOT_SUPPORTED}"
        )
