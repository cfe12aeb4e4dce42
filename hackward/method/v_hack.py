"""v_hack: the hack direction, its file, its controls, and its null under permuted pair signs.

Flipping pairs at random (hack and clean trade places; whole problems together) leaves V's span as it is and destroys what
orientation and weights learned. With the weights w_s of S such flips, <g, V^T w_s> / (|g| |w|) is what a cosine could have
been by chance, uneven scales of the basis included; sqrt(k/r) is not. The length |w| stays the real one: pairs that agree
lose most of their mean when flipped, and their null is narrow; scaling every w_s up to a unit vector would throw that away
(where all pairs agree, it leaves the direction itself with a random sign).

Key: K directions of a module, R its rank, P pairs, S random flips.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from hackward.base.faults import InputError
from hackward.base.files import atomic, file_hash
from hackward.base.tensors import read_safetensors

Vectors = Mapping[str, Tensor]  # module name -> (..., R)


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
