"""v_hack, the projection and its diagnostics: pure functions on named vectors, one definition of each for everybody.

    c      = V g                          coefficients, + is hack-ward (descending g makes hacks likelier)
    g'     = g - V^T gate(c)              one-sided gate: max(c, 0); two-sided: c; none: 0
    cos(g) = <g, V^T w> / (|g| |w|)       over all modules together

V is per module an orthonormal (k, r) basis with every row oriented hack-ward; w (k,) are the mean coefficients of the
contrastive pairs, so V^T w is the mean hack-minus-clean gradient as far as V sees it, and the cosine is a plain signed
cosine with that one vector (not the length of a projection, which is positive for any g and grows with k).

The optimizer's change of the parameters points down the gradient, so it enters with its sign flipped: + is hack-ward
for both. Key: K directions of a module, R its rank, "..." any batch of samples.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
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
    """The hack direction: per module V (k, r) with orthonormal rows and w (k,) >= 0. Modules below the noise floor are absent."""

    V: dict[str, Tensor]
    w: dict[str, Tensor]
    meta: dict = field(default_factory=dict)

    @property
    def directions(self) -> int:
        return sum(V.shape[0] for V in self.V.values())

    def to(self, device: torch.device | str) -> VHack:
        return VHack({n: V.to(device) for n, V in self.V.items()}, {n: w.to(device) for n, w in self.w.items()}, self.meta)

    def save(self, path: str | Path) -> None:
        tensors = {f"{name}.V": V.float().cpu().contiguous() for name, V in self.V.items()}
        tensors |= {f"{name}.w": w.float().cpu().contiguous() for name, w in self.w.items()}
        with atomic(path) as temporary:
            save_file(tensors, temporary, metadata={"hackward": json.dumps(self.meta)})

    @classmethod
    def load(cls, path: str | Path, *, model_hash: str, params: Vectors) -> VHack:
        """Read a v_hack file and check that it belongs to this model and these coordinates.

        Raises InputError that names the file: unreadable, another base model, an unknown module, a wrong rank.
        """
        tensors, meta = read_safetensors(path)
        if meta.get("kind") != "v_hack":
            raise InputError(f"{path}: not a v_hack file (kind {meta.get('kind')!r})")
        if meta.get("model_hash") != model_hash:
            raise InputError(f"{path}: v_hack of another model (its hash {meta.get('model_hash')}, this model {model_hash})")
        names = sorted(name.removesuffix(".V") for name in tensors if name.endswith(".V"))
        for name in names:
            V, w = tensors[f"{name}.V"], tensors.get(f"{name}.w")
            if name not in params or V.ndim != 2 or V.shape[1] != params[name].shape[-1]:
                raise InputError(f"{path}: module {name} with V {tuple(V.shape)} does not fit this model")
            if w is None or w.shape != V.shape[:1]:
                raise InputError(f"{path}: module {name} has no matching weights w")
            orthonormal = (V @ V.T - torch.eye(len(V))).abs().max() < 1e-3  # false for NaN too
            if not orthonormal or not (w >= 0).all() or not w.isfinite().all():
                raise InputError(f"{path}: module {name}: V is not orthonormal or w is not finite and >= 0")
        if not names or not any(tensors[f"{name}.w"].any() for name in names):
            raise InputError(f"{path}: holds no direction")
        meta = meta | {"file": str(path), "hash": file_hash(path)[:16]}
        return cls({n: tensors[f"{n}.V"] for n in names}, {n: tensors[f"{n}.w"] for n in names}, meta)


def random_like(v: VHack, seed: int) -> VHack:
    """The control: as many orthonormal rows a module, with the same weights, in random directions."""
    generator = torch.Generator().manual_seed(seed)
    V = {name: torch.linalg.qr(torch.randn(basis.shape[1], basis.shape[0], generator=generator)).Q.T.contiguous()
         for name, basis in v.V.items()}
    return VHack(V, v.w, v.meta | {"control": "random", "control_seed": seed})


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


def module_cosines(g: Vectors, v: VHack) -> Tensor:
    """(M,): the same cosine inside each module that has directions; NaN where the module's g is 0."""
    return torch.stack([coefficients(g[n], V) @ v.w[n] / (g[n].norm() * v.w[n].norm()) for n, V in v.V.items()])


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


class Editor:
    """Measures, and where its gates say so edits, the gradient before the optimizer and the update after it.

    Every arm runs the same code: vanilla has the gate "none" in both places, a projecting arm has its gate at one of
    them. Without a v_hack only norms are known and the rest is None.

    Usage, once a step:  diag = editor.edit_grads();  clip;  opt.step();  diag |= editor.edit_update()
    """

    def __init__(self, params: dict[str, torch.nn.Parameter], v: VHack | None, *, gate: str = "none", at: str = "grad") -> None:
        self.params, self.v = params, v
        self.at, self.gates = at, {place: GATES[gate if place == at else "none"] for place in ("grad", "update")}
        self._before: dict[str, Tensor] = {}

    def _edit(self, g: dict[str, Tensor], place: str) -> tuple[dict[str, Tensor], dict]:
        """Edited vectors, and the diagnostics of both sides."""
        if self.v is None:
            return g, {"norm": number(norm(g)), "in": None, "out": None, "fired": None, "mean_in": None, "mean_out": None}
        edited = {n: remove(value, self.v.V[n], self.gates[place]) if n in self.v.V else value for n, value in g.items()}
        return edited, {
            "norm": number(norm(g)),
            "in": number(cosine(g, self.v)), "out": number(cosine(edited, self.v)), "fired": number(fired(g, self.v)),
            "mean_in": number(module_cosines(g, self.v).nanmean()), "mean_out": number(module_cosines(edited, self.v).nanmean()),
        }

    @torch.no_grad()
    def edit_grads(self) -> dict:
        """Call after backward. Edits .grad in place; remembers the parameters for edit_update."""
        grads = {name: p.grad if p.grad is not None else torch.zeros_like(p) for name, p in self.params.items()}
        edited, seen = self._edit(grads, "grad")
        for name, p in self.params.items():
            p.grad = edited[name]
        self._before = {name: p.detach().clone() for name, p in self.params.items()}
        return {"grad_norm": seen["norm"], "cos_in": seen["in"], "cos_out": seen["out"], "frac_fired": seen["fired"],
                "mean_cos_in": seen["mean_in"], "mean_cos_out": seen["mean_out"]}

    @torch.no_grad()
    def edit_update(self) -> dict:
        """Call after opt.step(). Edits the parameters in place, so that the change really made is what the gate leaves."""
        descent = {name: self._before[name] - p for name, p in self.params.items()}
        edited, seen = self._edit(descent, "update")
        for name, p in self.params.items():
            if edited[name] is not descent[name]:
                p.copy_(self._before[name] - edited[name])
        made = {name: self._before[name] - p for name, p in self.params.items()}
        where_it_fires = {"frac_fired": seen["fired"]} if self.at == "update" else {}
        return where_it_fires | {"cos_update_in": seen["in"], "cos_update": None if self.v is None else number(cosine(made, self.v)),
                "update_norm": number(norm(made))}
