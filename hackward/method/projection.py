"""The projection and its diagnostics: pure functions on named vectors, one definition of each for everybody.

    c      = V g                          coefficients, + is hack-ward (descending g makes hacks likelier)
    g'     = g - V^T gate(c)              one-sided gate: max(c, 0); two-sided: c; none: 0
    cos(g) = <g, V^T w> / (|g| |w|)       over all modules together

V is per module an orthonormal (k, r) basis with every row oriented hack-ward; w (k,) are the mean
coefficients of the contrastive pairs, so V^T w is the mean hack-minus-clean gradient as far as V sees it, and
the cosine is a plain signed cosine with that one vector (not the length of a projection, which is positive
for any g and grows with k).

The optimizer's change of the parameters points down the gradient, so it enters with its sign flipped: + is
hack-ward for both. What a cosine could be by chance: method/v_hack.py.

Key: K directions of a module, R its rank, M modules, S random flips, "..." any batch of rollouts.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hackward.method.v_hack import Vectors, VHack, null_weights

GATES: dict[str, Callable[[Tensor], Tensor]] = {
    "none": torch.zeros_like,
    "one-sided": torch.relu,
    "two-sided": torch.Tensor.clone,
}


def coefficients(g: Tensor, V_KR: Tensor) -> Tensor:
    """(..., K): hack-ward coefficients of g (..., R)."""
    return g @ V_KR.T


def remove(g: Tensor, V_KR: Tensor, gate: Callable[[Tensor], Tensor]) -> Tensor:
    """g (..., R) without the coefficients that the gate lets through."""
    return g - gate(coefficients(g, V_KR)) @ V_KR


def norm(g: Vectors) -> Tensor:
    """(...): Euclidean norm over all modules together."""
    squares = [value.square().sum(-1) for value in g.values()]
    return total(squares).sqrt()


def total(parts: Sequence[Tensor]) -> Tensor:
    """Their sum, in order; there must be one at least."""
    return functools.reduce(torch.add, parts)


def cosine(g: Vectors, v: VHack) -> Tensor:
    """(...): signed cosine of g with the hack direction V^T w over all modules; NaN where g is 0
    (undefined)."""
    dot = total([coefficients(g[name], V) @ v.w[name] for name, V in v.V.items()])
    return dot / (norm(g) * norm(v.w))


def null_cosines(g: Vectors, v: VHack, weights: Vectors) -> Tensor:
    """(..., S): <g, V^T w_s> / (|g| |w|) for the weights w_s (S, K) of the flips, in the units of `cosine`.

    NaN where g is 0.
    """
    dot = total([coefficients(g[name], V) @ weights[name].T for name, V in v.V.items()])
    return dot / (norm(g)[..., None] * norm(v.w))


def module_cosines(g: Vectors, v: VHack) -> Tensor:
    """(M,): the same cosine inside each module that has directions; NaN where the module's g is 0."""
    found = []
    for name, V in v.V.items():
        dot = coefficients(g[name], V) @ v.w[name]
        found.append(dot / (g[name].norm() * v.w[name].norm()))
    return torch.stack(found)


def fired(g: Vectors, v: VHack) -> Tensor:
    """Share of all (module, direction) coefficients with c > 0, which the one-sided gate takes out; NaN where
    g is 0."""
    if not float(norm(g)):
        return torch.tensor(math.nan)
    positive = [coefficients(g[name], V) > 0 for name, V in v.V.items()]
    return torch.cat(positive).float().mean()


def number(value: Tensor | float) -> float | None:
    """A float for the record, None where undefined: a NaN must never look like a measurement."""
    value = float(value)
    return value if math.isfinite(value) else None


@dataclass(frozen=True)
class Edit:
    """What an arm does to a vector g: take out of it the directions of `v` that the gate lets through.

    With `shrink` nothing is turned: g keeps its direction and gets the length that the removal would have
    left.
    """

    v: VHack
    gate: str = "none"
    shrink: bool = False

    def __call__(self, g: Vectors) -> dict[str, Tensor]:
        """{module: (R,)}: the edited vectors; those that the edit does not touch stay as they are."""
        if self.gate == "none":
            return dict(g)
        left = dict(g)
        for name, V in self.v.V.items():
            left[name] = remove(g[name], V, GATES[self.gate])
        if not self.shrink:
            return left
        size = norm(g)
        ratio = norm(left) / size if float(size) else torch.ones_like(size)
        return {name: x * ratio for name, x in g.items()}


@dataclass(frozen=True)
class Cosines:
    """A vector's cosines with v_hack; None is undefined."""

    whole: float | None = None
    """Over all modules."""
    mean: float | None = None
    """Mean of the modules' own."""
    null: Tensor | None = None
    """(S,): draws of the null of `whole`."""


@dataclass(frozen=True)
class Seen:
    """A vector before and after its edit."""

    norm: float | None
    fired: float | None
    before: Cosines
    after: Cosines


class Editor:
    """Measures, and where the arm says so edits, the gradient before the optimizer and the update after it.

    Every arm runs the same code: vanilla has the gate "none", a projecting arm has its gate at one of the two
    places. All arms and controls are measured against the same v, whatever it is that their edit removes
    (`edit`, by default v with the gate "none"). Without a v only norms are known and the rest is None.

    Usage, once per step:  diag = editor.edit_grads();  clip;  opt.step();  diag |= editor.edit_update()
    (the latter holds under "null" the draws (S,) of all three cosines' nulls, or None).
    """

    def __init__(
        self,
        params: dict[str, torch.nn.Parameter],
        v: VHack | None,
        *,
        edit: Edit | None = None,
        at: str = "grad",
    ) -> None:
        self.params, self.at = params, at
        self._before: dict[str, Tensor] = {}
        self._nulls: dict[str, Tensor | None] = {}
        self.use(v, edit)

    def use(self, v: VHack | None, edit: Edit | None = None) -> None:
        """Measure against this v from now on, and edit with this edit."""
        self.v = v
        self.edit = Edit(v) if v is not None and edit is None else edit
        self.null = null_weights(v) if v else {}

    def _edit(self, g: dict[str, Tensor], place: str) -> tuple[dict[str, Tensor], Seen]:
        """Edited vectors, and what was seen on both sides."""
        size = number(norm(g))
        if self.v is None or self.edit is None:
            return g, Seen(size, None, Cosines(), Cosines())
        edits = place == self.at and self.edit.gate != "none"
        edited = self.edit(g) if edits else g
        before = self._measure(g)
        after = self._measure(edited) if edits else before
        return edited, Seen(size, number(fired(g, self.edit.v)), before, after)

    def _measure(self, g: dict[str, Tensor]) -> Cosines:
        if self.v is None:
            return Cosines()
        null = null_cosines(g, self.v, self.null).cpu() if self.null else None
        return Cosines(number(cosine(g, self.v)), number(module_cosines(g, self.v).nanmean()), null)

    @torch.no_grad()
    def edit_grads(self) -> dict[str, Any]:
        """Call after backward. Edits .grad in place; remembers the parameters for edit_update."""
        grads = {name: _grad(p).flatten() for name, p in self.params.items()}
        edited, seen = self._edit(grads, "grad")
        for name, p in self.params.items():
            p.grad = edited[name].view_as(p)
        self._before = {name: p.detach().clone() for name, p in self.params.items()}
        self._nulls = {"cos_in": seen.before.null, "cos_out": seen.after.null}
        return {
            "grad_norm": seen.norm,
            "cos_in": seen.before.whole,
            "cos_out": seen.after.whole,
            "frac_fired": seen.fired,
            "mean_cos_in": seen.before.mean,
            "mean_cos_out": seen.after.mean,
        }

    @torch.no_grad()
    def edit_update(self) -> dict[str, Any]:
        """Call after opt.step(). Edits the parameters in place, so that the change really made is what the
        edit leaves."""
        descent = {name: (self._before[name] - p).flatten() for name, p in self.params.items()}
        edited, seen = self._edit(descent, "update")
        for name in self._changed(edited):
            p = self.params[name]
            p.copy_(self._before[name] - edited[name].view_as(p))
        # measured on the parameters, which may round what was asked of them
        made = {name: (self._before[name] - p).flatten() for name, p in self.params.items()}
        real = self._measure(made)
        where_it_fires = {"frac_fired": seen.fired} if self.at == "update" else {}
        return where_it_fires | {
            "cos_update_in": seen.before.whole,
            "cos_update": real.whole,
            "update_norm": number(norm(made)),
            "null": self._nulls | {"cos_update": real.null},
        }

    def _changed(self, names: Iterable[str]) -> list[str]:
        """The modules whose update the edit changes; the others keep every bit of theirs."""
        if self.v is None or self.edit is None or self.at != "update" or self.edit.gate == "none":
            return []
        return [name for name in names if self.edit.shrink or name in self.edit.v.V]

    @torch.no_grad()
    def align(self, optimizer: torch.optim.Optimizer) -> None:
        """Take what the edit removes out of AdamW's first moment too.

        Needed when v changes under a gradient projection: what the momentum gathered along the new directions
        while they were not yet removed would otherwise keep flowing into the updates. The second moments
        scale coordinates and stay.
        """
        if self.edit is None or self.at != "grad":
            return
        states = {name: optimizer.state.get(p, {}) for name, p in self.params.items()}
        if not all("exp_avg" in state for state in states.values()):
            return  # before the first step there is no momentum
        moments = {name: state["exp_avg"].flatten() for name, state in states.items()}
        for name, edited in self.edit(moments).items():
            moment = states[name]["exp_avg"]
            moment.copy_(edited.view_as(moment))


def _grad(p: torch.nn.Parameter) -> Tensor:
    """Its gradient; 0 where no rollout entered the backward."""
    return torch.zeros_like(p) if p.grad is None else p.grad


def overlap(old: VHack, new: VHack) -> float:
    """Mean squared cosine of the principal angles between two v_hacks, over their modules: 1 the same span, 0
    orthogonal.

    Per module ||V_old V_new^T||_F^2 over the smaller number of directions; a module that only one of them has
    counts as 0.
    """
    shared = sorted(old.V.keys() & new.V.keys())
    shares = []
    for name in shared:
        a, b = old.V[name], new.V[name]
        shares.append(float((a @ b.T).square().sum()) / min(len(a), len(b)))
    return sum(shares) / len(old.V.keys() | new.V.keys())
