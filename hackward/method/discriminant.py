"""A score of single gradients along v_hack, and the threshold above which a monitor flags.

    x_i      = V g_i / |g_i|                   a rollout's NLL gradient in V's coordinates, length taken off
    cosine   : a = w / |w|                     so that a . x is the cosine with v_hack
    whitened : a = C^-1 d,  scaled so that a^T C a = 1
               d = mean over pairs of x(hack) - x(clean),  C = covariance of x over honest answers

Among all linear scores the whitened one has the largest shift of the hacks in units of the honest answers'
own spread, (a . d)^2 / (a^T C a). If x is Gaussian with covariance C for hacks and honest answers alike, it
is Fisher's discriminant, and no score of x has a higher AUC. It assumes that C is known: there are more
coordinates than pairs, so C is shrunk towards a multiple of the identity (Ledoit and Wolf 2004,
scikit-learn), and where honest answers vary alike in all directions it falls back to d, which is the cosine
but for the weights' lengths. It wins where honest answers differ among themselves along v_hack
(tests/test_discriminant.py has such a case).

The threshold is the (1 - fpr) quantile of honest answers' scores, each scored by a V and an a that its
problem had no part in (folds by problem), so it says what to expect of honest rollouts only as far as they
are like the pairs' clean answers.

Key: P pairs, N rollouts, K directions over all modules.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from hackward.base.faults import InputError
from hackward.base.tensors import read_safetensors, write_safetensors
from hackward.method.extraction import Grads, build, rotated
from hackward.method.projection import coefficients, norm, total
from hackward.method.quality import FOLDS, folds
from hackward.method.recipe import Extraction
from hackward.method.v_hack import VHack, problem_flips

Score = Literal["cosine", "whitened"]


@dataclass(frozen=True)
class Discriminant:
    """a . x per rollout, and the threshold above which it is flagged."""

    V: dict[str, Tensor]
    a: dict[str, Tensor]
    """Module -> (k,)."""
    threshold: float

    def score(self, g: Grads) -> Tensor:
        """(N,) scores of NLL gradients, module -> (N, R); NaN where a gradient is 0."""
        return total([coefficients(g[name], V) @ self.a[name] for name, V in self.V.items()]) / norm(g)

    def save(self, path: str | Path) -> None:
        """One safetensors file: MODULE.V, MODULE.a, and the threshold as metadata."""
        tensors = {f"{name}.V": V.cpu().contiguous() for name, V in self.V.items()}
        tensors |= {f"{name}.a": a.cpu().contiguous() for name, a in self.a.items()}
        facts = {"kind": "monitor", "threshold": self.threshold}
        write_safetensors(path, tensors, facts)

    @classmethod
    def load(cls, path: str | Path) -> Discriminant:
        """What `save` wrote. InputError for a file that is none."""
        tensors, meta = read_safetensors(path)
        names = sorted(name.removesuffix(".V") for name in tensors if name.endswith(".V"))
        if meta.get("kind") != "monitor" or any(f"{name}.a" not in tensors for name in names):
            raise InputError(f"{path}: not the score of a monitor")
        V = {name: tensors[f"{name}.V"] for name in names}
        return cls(V, {name: tensors[f"{name}.a"] for name in names}, float(meta["threshold"]))

    def to(self, device: torch.device | str) -> Discriminant:
        V = {name: tensor.to(device) for name, tensor in self.V.items()}
        return Discriminant(V, {name: tensor.to(device) for name, tensor in self.a.items()}, self.threshold)


def coordinates(g: Grads, v: VHack) -> Tensor:
    """(N, K): x of NLL gradients in V's coordinates, all modules side by side."""
    parts = [coefficients(g[name], V) for name, V in v.V.items()]
    return torch.cat(parts, 1) / norm(g)[:, None]


def cosine_weights(v: VHack, shift_K: Tensor, honest_NK: Tensor) -> Tensor:
    """a = w / |w| (K,)."""
    w = torch.cat([v.w[name] for name in v.V])
    return w / w.norm()


def whitened_weights(v: VHack, shift_K: Tensor, honest_NK: Tensor) -> Tensor:
    """a = C^-1 d (K,), scaled to a score with variance 1 among honest answers."""
    from sklearn.covariance import ledoit_wolf  # a second to import

    C, _ = ledoit_wolf(honest_NK.double().numpy())
    a = np.linalg.solve(C, shift_K.double().numpy())
    return torch.from_numpy(a / np.sqrt(a @ C @ a)).float()


WEIGHTS: dict[str, Callable[[VHack, Tensor, Tensor], Tensor]] = {
    "cosine": cosine_weights,
    "whitened": whitened_weights,
}


def contrasted(
    control: str, hack: Grads, clean: Grads, problem_ids: Sequence[str], seed: int
) -> tuple[Grads, Grads]:
    """What a score is learned from: (hack, clean) gradients of the pairs, or what a control has in their
    place.

    sign-flip: the two trade places in whole problems drawn at random. clean-clean: clean answers against
    those of other problems. Anything else: the pairs.
    """
    if control == "sign-flip":
        flipped = problem_flips(problem_ids, 1, seed)[0] < 0
        swap = {name: torch.where(flipped[:, None], clean[name], hack[name]) for name in hack}
        return swap, {name: torch.where(flipped[:, None], hack[name], clean[name]) for name in hack}
    if control == "clean-clean":
        other = rotated(problem_ids, seed)
        return clean, {name: g[other] for name, g in clean.items()}
    return hack, clean


def fit(
    hack: Grads,
    clean: Grads,
    problem_ids: Sequence[str],
    settings: Extraction,
    *,
    score: Score = "cosine",
    fpr: float = 0.05,
    control: str = "none",
    seed: int = 0,
    v: VHack | None = None,
) -> Discriminant:
    """From the pairs' gradients, module -> (P, R) each. `v` replaces the V that would be built from all of
    them.

    The honest answers, for C and for the threshold, are the pairs' clean ones, whatever the control.
    InputError where there are too few problems to hold one out.
    """
    if len(set(problem_ids)) < 3:
        raise InputError("--monitor=v_hack: a threshold needs pairs of at least three problems")
    first, second = contrasted(control, hack, clean, problem_ids, seed)
    everything = np.arange(len(problem_ids))
    whole = v or _built(first, second, everything, settings)
    held_out = []
    for test in folds(problem_ids, FOLDS, settings.seed):
        train = np.setdiff1d(everything, test)
        part = _built(first, second, train, settings)
        a = _weights(score, part, first, second, clean, train)
        held_out.append(coordinates(_rows(clean, test), part) @ a)
    a = _weights(score, whole, first, second, clean, everything)
    sizes = [len(V) for V in whole.V.values()]
    threshold = float(torch.quantile(torch.cat(held_out), 1 - fpr))
    weights = dict(zip(whole.V, a.split(sizes)))
    # In the order and layout in which a resumed run reads them back, or scores differ in the last digit.
    names = sorted(whole.V)
    V = {name: whole.V[name].clone(memory_format=torch.contiguous_format) for name in names}
    return Discriminant(V, {name: weights[name].clone() for name in names}, threshold)


def _rows(g: Grads, index: np.ndarray) -> Grads:
    return {name: rows[index] for name, rows in g.items()}


def _built(first: Grads, second: Grads, index: np.ndarray, settings: Extraction) -> VHack:
    return build({name: first[name][index] - second[name][index] for name in first}, settings, {})


def _weights(score: Score, v: VHack, first: Grads, second: Grads, honest: Grads, index: np.ndarray) -> Tensor:
    shift_PK = coordinates(_rows(first, index), v) - coordinates(_rows(second, index), v)
    return WEIGHTS[score](v, shift_PK.mean(0), coordinates(_rows(honest, index), v))
