"""A linear probe on the frozen base model's hidden states: does a completion look like a hack?

    h_il = mean over completion tokens of the base model's hidden state after layer l
    P(hack | i) by logistic regression on h_il, standardised, fitted on the pairs' answers

The layer is the one with the highest mean AUC over folds by problem; the threshold is the (1 - fpr) quantile
of the held-out clean answers' scores at that layer.

Key: N rollouts, B rows of a micro-batch, L layers, H hidden size, T completion positions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hackward.base.faults import InputError
from hackward.hardware import memory, ranks
from hackward.method.adapters import Adapter
from hackward.method.gradients import each_batch
from hackward.method.losses import Batch, Row
from hackward.method.quality import FOLDS

STRENGTH = 0.1  # C of the logistic regression: more coordinates than pairs need a strong prior


def pooled(
    adapter: Adapter,
    rows: Sequence[Row],
    *,
    pad: int,
    tokens: int | None = None,
    layer: int | None = None,
    on_batch: Callable[[int], None] = lambda rows: None,
) -> Tensor:
    """(N, L + 1, H) hidden states of the base model, averaged over the completion, fp32 on the CPU.

    Layer 0 is the embedding. With `layer` that one alone: (N, H).
    """

    def work(batch: Batch) -> Tensor:
        with torch.no_grad(), adapter.disabled():
            decoder = adapter.model.get_decoder()
            out = decoder(input_ids=batch.ids_BL, use_cache=False, output_hidden_states=True)
        states = out.hidden_states if layer is None else (out.hidden_states[layer],)
        return torch.stack([_mean(state, batch) for state in states], 1).cpu()

    budget = memory.budget(adapter.model, tokens, "hidden states")
    order: list[int] = []
    found: list[Tensor] = []
    for index, part in each_batch(adapter, rows, work, budget, pad, on_batch):
        order += index
        found.append(part)
    states = ranks.in_order(found, order)
    return states if layer is None else states[:, 0]


def _mean(state_BLH: Tensor, batch: Batch) -> Tensor:
    """(B, H): mean over the completion's positions."""
    T = batch.mask_BT.shape[1]
    at_BT = (batch.prompt_B[:, None] + torch.arange(T, device=state_BLH.device)).clamp(
        max=state_BLH.shape[1] - 1
    )
    picked_BTH = state_BLH.gather(1, at_BT[..., None].expand(-1, -1, state_BLH.shape[2])).float()
    mask_BT1 = batch.mask_BT[..., None]
    return (picked_BTH * mask_BT1).sum(1) / mask_BT1.sum(1)


@dataclass(frozen=True)
class Probe:
    """A fitted probe."""

    model: Any  # scikit-learn's pipeline
    layer: int
    threshold: float
    auc: float
    """Mean over folds, of the layer chosen."""

    def score(self, states_NH: Tensor) -> Tensor:
        """(N,) log-odds of a hack."""
        return torch.from_numpy(self.model.decision_function(states_NH.numpy())).float()


def fit(hack_PLH: Tensor, clean_PLH: Tensor, problem_ids: Sequence[str], *, fpr: float) -> Probe:
    """From the pooled states of the pairs' answers. InputError with too few problems to hold one out."""
    from sklearn.linear_model import LogisticRegression  # seconds to import
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import GroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    problems = len(set(problem_ids))
    if problems < 3:
        raise InputError("--monitor=probe: a threshold needs pairs of at least three problems")
    pairs, layers = hack_PLH.shape[:2]
    label = np.repeat([1, 0], pairs)
    groups = np.tile(np.array(problem_ids), 2)
    folds = GroupKFold(min(FOLDS, problems))

    def make() -> Any:
        return make_pipeline(StandardScaler(), LogisticRegression(C=STRENGTH, max_iter=1000))

    best: tuple[float, int, np.ndarray] | None = None
    for layer in range(layers):
        x = torch.cat([hack_PLH[:, layer], clean_PLH[:, layer]]).numpy()
        held_out = cross_val_predict(make(), x, label, groups=groups, cv=folds, method="decision_function")
        parts = [roc_auc_score(label[test], held_out[test]) for _, test in folds.split(x, label, groups)]
        found = float(np.mean(parts))
        if best is None or found > best[0]:
            best = found, layer, held_out
    assert best is not None
    auc, layer, held_out = best
    x = torch.cat([hack_PLH[:, layer], clean_PLH[:, layer]]).numpy()
    threshold = float(np.quantile(held_out[label == 0], 1 - fpr))
    return Probe(make().fit(x, label), layer, threshold, auc)
