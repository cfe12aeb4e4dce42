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

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from antipasto import read_safetensors
from store import InputError, atomic, file_hash

Vectors = Mapping[str, Tensor]  # module name -> (..., R)

GATES: dict[str, Callable[[Tensor], Tensor]] = {
    "none": torch.zeros_like,
    "one-sided": torch.relu,
    "two-sided": lambda c: c,
}


@dataclass(frozen=True)
class VHack:
    """The hack direction: per module V (k, r) with orthonormal rows and w (k,) >= 0. Modules below the noise floor are absent.

    `coef` (P, k) are the coefficients of the contrastive pairs themselves, of which w is the mean: the null is made from
    them. Files of earlier versions have none, and then there is no null.
    """

    V: dict[str, Tensor]
    w: dict[str, Tensor]
    meta: dict = field(default_factory=dict)
    coef: dict[str, Tensor] = field(default_factory=dict)

    @property
    def directions(self) -> int:
        return sum(V.shape[0] for V in self.V.values())

    def to(self, device: torch.device | str) -> VHack:
        V, w, coef = (
            {name: tensor.to(device) for name, tensor in part.items()} for part in (self.V, self.w, self.coef)
        )
        return VHack(V, w, self.meta, coef)

    def save(self, path: str | Path) -> None:
        parts = {"V": self.V, "w": self.w, "coef": self.coef}
        tensors = {
            f"{name}.{part}": tensor.float().cpu().contiguous()
            for part, held in parts.items()
            for name, tensor in held.items()
        }
        with atomic(path) as temporary:
            save_file(tensors, temporary, metadata={"hackward": json.dumps(self.meta)})

    @classmethod
    def load(cls, path: str | Path, *, model_hash: str, params: Vectors, coordinates: str = "svd") -> VHack:
        """Read a v_hack file and check that it belongs to this model and these coordinates.

        Raises InputError that names the file: unreadable, another base model, other coordinates, an unknown module, a wrong rank.
        """
        tensors, meta = read_safetensors(path)
        if meta.get("kind") != "v_hack":
            raise InputError(f"{path}: not a v_hack file (kind {meta.get('kind')!r})")
        if meta.get("model_hash") != model_hash:
            raise InputError(
                f"{path}: v_hack of another model (its hash {meta.get('model_hash')}, this model {model_hash})"
            )
        if (made := meta.get("coordinates", "svd")) != coordinates:
            raise InputError(
                f"{path}: v_hack in the coordinates {made}, this run trains in {coordinates}; see --basis and --rank of extract_vhack.py"
            )
        names = sorted(name.removesuffix(".V") for name in tensors if name.endswith(".V"))
        for name in names:
            V, w = tensors[f"{name}.V"], tensors.get(f"{name}.w")
            if name not in params or V.ndim != 2 or V.shape[1] != params[name].numel():
                raise InputError(f"{path}: module {name} with V {tuple(V.shape)} does not fit this model")
            if w is None or w.shape != V.shape[:1]:
                raise InputError(f"{path}: module {name} has no matching weights w")
            orthonormal = (V @ V.T - torch.eye(len(V))).abs().max() < 1e-3  # false for NaN too
            if not orthonormal or not (w >= 0).all() or not w.isfinite().all():
                raise InputError(f"{path}: module {name}: V is not orthonormal or w is not finite and >= 0")
        if not names or not any(tensors[f"{name}.w"].any() for name in names):
            raise InputError(f"{path}: holds no direction")
        coef, pairs = (
            {n: tensors[f"{n}.coef"] for n in names if f"{n}.coef" in tensors},
            len(meta.get("pair_problems", ())),
        )
        if coef and any(
            n not in coef or coef[n].shape != (pairs, len(tensors[f"{n}.V"])) or not coef[n].isfinite().all()
            for n in names
        ):
            raise InputError(f"{path}: the pairs' coefficients do not fit V")
        meta = meta | {"file": str(path), "hash": file_hash(path)[:16]}
        return cls({n: tensors[f"{n}.V"] for n in names}, {n: tensors[f"{n}.w"] for n in names}, meta, coef)


# --- controls: what a projecting arm could remove instead ------------------------------------------------------------


def random_like(v: VHack, seed: int) -> VHack:
    """As many orthonormal rows a module, with the same weights, in random directions."""
    generator = torch.Generator().manual_seed(seed)
    V = {
        name: torch.linalg.qr(
            torch.randn(basis.shape[1], basis.shape[0], generator=generator)
        ).Q.T.contiguous()
        for name, basis in v.V.items()
    }
    return VHack(V, v.w, v.meta | {"control": "random", "control_seed": seed})


def sign_flipped(v: VHack, seed: int) -> VHack:
    """V from the same pairs with random signs: the same span, oriented and weighted by nothing.

    The span does not depend on the signs (the singular vectors of D do not), so under a two-sided gate this removes exactly
    what v_hack does and controls for nothing; the command line refuses that.
    """
    flips = pair_flips(v, 1, seed)
    turned = {name: orient(coef.cpu(), flips) for name, coef in v.coef.items()}
    V = {name: v.V[name] * sign[0][:, None].to(v.V[name].device) for name, (sign, _) in turned.items()}
    coef = {
        name: v.coef[name] * (flips[0][:, None] * sign[0]).to(v.coef[name].device)
        for name, (sign, _) in turned.items()
    }
    w = {name: weight[0].to(v.w[name].device) for name, (_, weight) in turned.items()}
    return VHack(V, w, v.meta | {"control": "sign-flip", "control_seed": seed}, coef)


# --- orientation and its null ----------------------------------------------------------------------------------------


def orient(coef_PK: Tensor, flips_SP: Tensor) -> tuple[Tensor, Tensor]:
    """Signs (S, K) by majority vote of the pairs and weights (S, K) >= 0, for each of S ways of flipping the pairs.

    coef (P, K) are the pair differences in V's coordinates. A tied vote is decided by the sum.
    """
    votes, total = flips_SP @ coef_PK.sign(), flips_SP @ coef_PK
    sign = torch.where(votes == 0, total.sign(), votes.sign())
    sign = torch.where(sign == 0, torch.ones_like(sign), sign)
    return sign, torch.relu(sign * total / len(coef_PK))


def problem_flips(problem_ids: Sequence[str], count: int, seed: int) -> Tensor:
    """(S, P) of +-1, drawn a problem and not a pair: pairs of one problem are no independent evidence."""
    unique = sorted(set(problem_ids))
    generator = torch.Generator().manual_seed(seed)
    flips = torch.randint(0, 2, (count, len(unique)), generator=generator) * 2.0 - 1
    place = {problem: i for i, problem in enumerate(unique)}
    return flips[:, [place[problem] for problem in problem_ids]]


def pair_flips(v: VHack, count: int, seed: int) -> Tensor:
    """Flips (S, P) of the pairs that v was made from. InputError where the file does not say what they were."""
    if not v.coef:
        raise InputError(
            f"{v.meta.get('file', 'v_hack')}: made by an earlier version, without its pairs' coefficients; extract it anew"
        )
    return problem_flips(v.meta["pair_problems"], count, seed)


def null_weights(v: VHack, count: int = 200, seed: int = 0) -> dict[str, Tensor]:
    """Per module the signed weights (S, K) that V's rows get under `count` random flips of the pairs; empty without pairs."""
    if not v.coef:
        return {}
    flips = pair_flips(v, count, seed)
    turned = {name: orient(coef.cpu(), flips) for name, coef in v.coef.items()}
    return {name: (sign * weight).to(v.V[name].device) for name, (sign, weight) in turned.items()}


# --- formulas ------------------------------------------------------------------------------------------------------


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


# --- the arms differ here and nowhere else -------------------------------------------------------------------------


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
