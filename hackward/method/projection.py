"""v_hack, the projection and its diagnostics: pure functions on named vectors, one definition of each for everybody.

    c      = V g                          coefficients, + is hack-ward (descending g makes hacks likelier)
    g'     = g - V^T gate(c)              one-sided gate: max(c, 0); two-sided: c; none: 0
    cos(g) = <g, V^T w> / (|g| |w|)       over all modules together

V is per module an orthonormal (k, r) basis with every row oriented hack-ward; w (k,) are the mean coefficients of the
contrastive pairs, so V^T w is the mean hack-minus-clean gradient as far as V sees it, and the cosine is a plain signed
cosine with that one vector (not the length of a projection, which is positive for any g and grows with k).

The optimizer's change of the parameters points down the gradient, so it enters with its sign flipped: + is hack-ward
for both. Key: K directions of a module, R its rank, P pairs, S random flips, "..." any batch of samples.

A cosine's null. Flipping pairs at random (hack and clean trade places; whole problems together) leaves V's span as it is
and destroys what orientation and weights learned. With the weights w_s of S such flips, <g, V^T w_s> / (|g| |w|) is what
this cosine could have been by chance, uneven scales of the basis included; sqrt(k/r) is not. The length |w| stays the real
one: pairs that agree lose most of their mean when flipped, and their null is narrow; scaling every w_s up to a unit vector
would throw that away (where all pairs agree, it leaves the direction itself with a random sign).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hackward.method.v_hack import Vectors, VHack, null_weights

GATES: dict[str, Callable[[Tensor], Tensor]] = {
    "none": torch.zeros_like,
    "one-sided": torch.relu,
    "two-sided": lambda c: c,
}


def coefficients(g: Tensor, V_KR: Tensor) -> Tensor:
    """(..., K): hack-ward coefficients of g (..., R)."""
    return g @ V_KR.T


def remove(g: Tensor, V_KR: Tensor, gate: Callable[[Tensor], Tensor]) -> Tensor:
    """g (..., R) without the coefficients that the gate lets through."""
    return g - gate(coefficients(g, V_KR)) @ V_KR


def norm(g: Vectors) -> Tensor:
    """(...): Euclidean norm over all modules together."""
    return sum(value.square().sum(-1) for value in g.values()).sqrt()


def cosine(g: Vectors, v: VHack) -> Tensor:
    """(...): signed cosine of g with the hack direction V^T w over all modules; NaN where g is 0 (undefined)."""
    dot = sum(coefficients(g[name], V) @ v.w[name] for name, V in v.V.items())
    length = norm(v.w)
    return dot / (norm(g) * length)


def null_cosines(g: Vectors, v: VHack, weights: dict[str, Tensor]) -> Tensor:
    """(..., S): <g, V^T w_s> / (|g| |w|) for the weights w_s of the flips, in the units of `cosine`; NaN where g is 0."""
    dot = sum(coefficients(g[name], V) @ weights[name].T for name, V in v.V.items())
    return dot / (norm(g)[..., None] * norm(v.w))


def module_cosines(g: Vectors, v: VHack) -> Tensor:
    """(M,): the same cosine inside each module that has directions; NaN where the module's g is 0."""
    return torch.stack(
        [coefficients(g[n], V) @ v.w[n] / (g[n].norm() * v.w[n].norm()) for n, V in v.V.items()]
    )


def fired(g: Vectors, v: VHack) -> Tensor:
    """Share of all (module, direction) coefficients with c > 0, those that the one-sided gate takes out; NaN where g is 0."""
    if not float(norm(g)):
        return torch.tensor(math.nan)
    return torch.cat([coefficients(g[n], V) > 0 for n, V in v.V.items()]).float().mean()


def number(value: Tensor | float) -> float | None:
    """A float for the record, None where undefined: a NaN must never look like a measurement."""
    value = float(value)
    return value if math.isfinite(value) else None


@dataclass(frozen=True)
class Edit:
    """What an arm does to a vector g: take out of it the directions of `v` that the gate lets through.

    With `shrink` nothing is turned: g keeps its direction and gets the length that the removal would have left.
    """

    v: VHack
    gate: str = "none"
    shrink: bool = False

    def __call__(self, g: Vectors) -> dict[str, Tensor]:
        """{module: (R,)}: the edited vectors; those that the edit does not touch are the same objects."""
        if self.gate == "none":
            return dict(g)
        left = {n: remove(x, self.v.V[n], GATES[self.gate]) if n in self.v.V else x for n, x in g.items()}
        if not self.shrink:
            return left
        size = norm(g)
        ratio = norm(left) / size if float(size) else torch.ones_like(size)
        return {name: x * ratio for name, x in g.items()}


class Editor:
    """Measures, and where the arm says so edits, the gradient before the optimizer and the update after it.

    Every arm runs the same code: vanilla has the gate "none", a projecting arm has its gate at one of the two places. All
    arms and controls are measured against the same v, whatever it is that their edit removes (`edit`, by default v with the
    gate "none"). Without a v only norms are known and the rest is None.

    Usage, once a step:  diag = editor.edit_grads();  clip;  opt.step();  diag |= editor.edit_update()
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
        self.v, self.edit = v, edit or (v and Edit(v))
        self.null = null_weights(v) if v else {}

    def _edit(self, g: dict[str, Tensor], place: str) -> tuple[dict[str, Tensor], dict]:
        """Edited vectors, and the diagnostics of both sides."""
        if self.v is None:
            return g, {"norm": number(norm(g))} | dict.fromkeys(
                ("in", "out", "fired", "mean_in", "mean_out", "in_null", "out_null")
            )
        edited = self.edit(g) if place == self.at and self.edit.gate != "none" else g
        before = self._measure(g)
        after = before if edited is g else self._measure(edited)
        return edited, {
            "norm": number(norm(g)),
            "fired": number(fired(g, self.edit.v)),
            "in": before[0],
            "out": after[0],
            "mean_in": before[1],
            "mean_out": after[1],
            "in_null": before[2],
            "out_null": after[2],
        }

    def _measure(self, g: dict[str, Tensor]) -> tuple[float | None, float | None, Tensor | None]:
        """Cosine over all modules, mean of the modules' cosines, draws of the null of the first."""
        return number(cosine(g, self.v)), number(module_cosines(g, self.v).nanmean()), self._null(g)

    def _null(self, g: dict[str, Tensor]) -> Tensor | None:
        return null_cosines(g, self.v, self.null).cpu() if self.null else None

    @torch.no_grad()
    def edit_grads(self) -> dict:
        """Call after backward. Edits .grad in place; remembers the parameters for edit_update."""
        grads = {
            name: (p.grad if p.grad is not None else torch.zeros_like(p)).flatten()
            for name, p in self.params.items()
        }
        edited, seen = self._edit(grads, "grad")
        for name, p in self.params.items():
            p.grad = edited[name].view_as(p)
        self._before = {name: p.detach().clone() for name, p in self.params.items()}
        self._nulls = {"cos_in": seen["in_null"], "cos_out": seen["out_null"]}
        return {
            "grad_norm": seen["norm"],
            "cos_in": seen["in"],
            "cos_out": seen["out"],
            "frac_fired": seen["fired"],
            "mean_cos_in": seen["mean_in"],
            "mean_cos_out": seen["mean_out"],
        }

    @torch.no_grad()
    def edit_update(self) -> dict:
        """Call after opt.step(). Edits the parameters in place, so that the change really made is what the edit leaves."""
        descent = {name: (self._before[name] - p).flatten() for name, p in self.params.items()}
        edited, seen = self._edit(descent, "update")
        for name, p in self.params.items():
            if edited[name] is not descent[name]:
                p.copy_(self._before[name] - edited[name].view_as(p))
        made = {name: (self._before[name] - p).flatten() for name, p in self.params.items()}
        where_it_fires = {"frac_fired": seen["fired"]} if self.at == "update" else {}
        return where_it_fires | {
            "cos_update_in": seen["in"],
            "cos_update": None if self.v is None else number(cosine(made, self.v)),
            "update_norm": number(norm(made)),
            "null": self._nulls | {"cos_update": None if self.v is None else self._null(made)},
        }

    @torch.no_grad()
    def align(self, optimizer: torch.optim.Optimizer) -> None:
        """Take what the edit removes out of AdamW's first moment too.

        Needed when v changes under a gradient projection: what the momentum gathered along the new directions while they were
        not yet removed would otherwise keep flowing into the updates. The second moments scale coordinates and stay.
        """
        if self.edit is None or self.at != "grad":
            return
        moments = {
            name: optimizer.state[p]["exp_avg"].flatten()
            for name, p in self.params.items()
            if "exp_avg" in optimizer.state.get(p, {})
        }
        if len(moments) == len(self.params):
            for name, edited in self.edit(moments).items():
                optimizer.state[self.params[name]]["exp_avg"].copy_(edited.view_as(self.params[name]))


def overlap(old: VHack, new: VHack) -> float:
    """Mean squared cosine of the principal angles between two v_hacks, over their modules: 1 the same span, 0 orthogonal.

    Per module ||V_old V_new^T||_F^2 over the smaller number of directions; a module that only one of them has counts as 0.
    """
    shares, names = [], set(old.V) | set(new.V)
    for name in sorted(names & set(old.V) & set(new.V)):
        a, b = old.V[name], new.V[name]
        shares.append(float((a @ b.T).square().sum()) / min(len(a), len(b)))
    return sum(shares) / len(names)
