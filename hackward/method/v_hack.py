"""v_hack: the hack direction, its file, its controls, and its null under permuted pair signs.

Flipping pairs at random (hack and clean trade places; whole problems together) leaves V's span as it is and
destroys what orientation and weights learned. With the weights w_s of S such flips, <g, V^T w_s> / (|g| |w|)
is what a cosine could have been by chance, uneven scales of the basis included; sqrt(k/r) is not. The length
|w| stays the real one: pairs that agree lose most of their mean when flipped, and their null is narrow;
scaling every w_s up to a unit vector would throw that away (where all pairs agree, it leaves the direction
itself with a random sign).

Key: K directions of a module, R its rank, P pairs, S random flips.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hackward.base.faults import InputError
from hackward.base.files import file_hash
from hackward.base.tensors import read_safetensors, write_safetensors
from hackward.method.svd import RANK_TOLERANCE, thin_svd

Vectors = Mapping[str, Tensor]  # module name -> (..., R)


@dataclass(frozen=True)
class VHack:
    """The hack direction: per module V (k, r) with orthonormal rows and w (k,) >= 0. Modules below the noise
    floor are absent.

    `coef` (P, k) are the coefficients of the contrastive pairs themselves, of which w is the mean: the null
    is made from them. Random directions (`random_like`) belong to no pairs and have none.
    """

    V: dict[str, Tensor]
    w: dict[str, Tensor]
    meta: dict[str, Any] = field(default_factory=dict)
    coef: dict[str, Tensor] = field(default_factory=dict)

    @property
    def directions(self) -> int:
        """Over all modules."""
        return sum(len(V) for V in self.V.values())

    def to(self, device: torch.device | str) -> VHack:
        return VHack(_moved(self.V, device), _moved(self.w, device), self.meta, _moved(self.coef, device))

    def save(self, path: str | Path) -> None:
        """One safetensors file: MODULE.V, MODULE.w, MODULE.coef, and `meta` as its metadata."""
        tensors = {}
        for part, held in (("V", self.V), ("w", self.w), ("coef", self.coef)):
            for name, tensor in held.items():
                tensors[f"{name}.{part}"] = tensor.float().cpu().contiguous()
        write_safetensors(path, tensors, self.meta)

    @classmethod
    def load(cls, path: str | Path, *, model_hash: str, params: Vectors, coordinates: str) -> VHack:
        """Read a v_hack file and check that it belongs to this model and these coordinates.

        Raises InputError that names the file: unreadable, another base model, other coordinates, an unknown
        module, a wrong rank, rows that are not orthonormal, coefficients that do not fit.
        """
        tensors, meta = read_safetensors(path)
        _check_origin(path, meta, model_hash, coordinates)
        names = sorted(name.removesuffix(".V") for name in tensors if name.endswith(".V"))
        for name in names:
            _check_module(path, name, tensors, params)
        if not any(bool(tensors[f"{name}.w"].any()) for name in names):
            raise InputError(f"{path}: holds no direction")
        return cls(
            {name: tensors[f"{name}.V"] for name in names},
            {name: tensors[f"{name}.w"] for name in names},
            meta | {"file": str(path), "hash": file_hash(path)[:16]},
            _checked_coefficients(path, names, tensors, meta),
        )


def _moved(held: Vectors, device: torch.device | str) -> dict[str, Tensor]:
    return {name: tensor.to(device) for name, tensor in held.items()}


def _check_origin(path: str | Path, meta: dict[str, Any], model_hash: str, coordinates: str) -> None:
    if meta.get("kind") != "v_hack":
        raise InputError(f"{path}: not a v_hack file (kind {meta.get('kind')!r})")
    if meta.get("model_hash") != model_hash:
        made = meta.get("model_hash")
        raise InputError(f"{path}: v_hack of another model (its hash {made}, this model {model_hash})")
    if meta.get("coordinates") != coordinates:
        raise InputError(
            f"{path}: v_hack in the coordinates {meta.get('coordinates')}, this run trains in {coordinates};"
            " see --basis, --rank and --targets of extract_vhack.py"
        )


def _check_module(path: str | Path, name: str, tensors: Vectors, params: Vectors) -> None:
    V, w = tensors[f"{name}.V"], tensors.get(f"{name}.w")
    if name not in params or V.ndim != 2 or V.shape[1] != params[name].numel():
        raise InputError(f"{path}: module {name} with V {tuple(V.shape)} does not fit this model")
    if w is None or w.shape != V.shape[:1]:
        raise InputError(f"{path}: module {name} has no matching weights w")
    off = (V @ V.T - torch.eye(len(V))).abs().max()
    if not off < 1e-3:  # so for NaN too
        raise InputError(f"{path}: module {name}: the rows of V are not orthonormal")
    if not bool((w.isfinite() & (w >= 0)).all()):
        raise InputError(f"{path}: module {name}: w is not finite and >= 0")


def _checked_coefficients(
    path: str | Path, names: Sequence[str], tensors: Vectors, meta: dict[str, Any]
) -> dict[str, Tensor]:
    """The pairs' coefficients; none where the directions are random."""
    if meta.get("control") == "random":
        return {}
    pairs = len(meta.get("pair_problems", ()))
    found = {}
    for name in names:
        coef = tensors.get(f"{name}.coef")
        shape = (pairs, len(tensors[f"{name}.V"]))
        if coef is None or coef.shape != shape or not bool(coef.isfinite().all()):
            raise InputError(f"{path}: module {name}: the pairs' coefficients do not fit V; extract it anew")
        found[name] = coef
    return found


def random_like(v: VHack, seed: int) -> VHack:
    """As many orthonormal rows per module, with the same weights, in random directions."""
    generator = torch.Generator().manual_seed(seed)
    V = {}
    for name, basis in v.V.items():
        directions, width = basis.shape
        drawn = torch.randn(width, directions, generator=generator)
        V[name] = torch.linalg.qr(drawn).Q.T.contiguous()
    return VHack(V, v.w, v.meta | {"control": "random", "control_seed": seed})


def sign_flipped(v: VHack, seed: int) -> VHack:
    """V from the same pairs with random signs: the same span, oriented and weighted by nothing.

    The span does not depend on the signs (the singular vectors of D do not), so under a two-sided gate this
    removes exactly what v_hack does and controls for nothing; the command line refuses that.
    """
    flips_1P = pair_flips(v, 1, seed)
    V, w, coef = {}, {}, {}
    for name, coef_PK in v.coef.items():
        device = coef_PK.device
        sign_1K, weight_1K = orient(coef_PK.cpu(), flips_1P)
        V[name] = v.V[name] * sign_1K[0][:, None].to(device)
        w[name] = weight_1K[0].to(device)
        coef[name] = coef_PK * (flips_1P[0][:, None] * sign_1K[0]).to(device)
    return VHack(V, w, v.meta | {"control": "sign-flip", "control_seed": seed}, coef)


def directions(D: Vectors, k: int, noise_floor: float) -> dict[str, Tensor]:
    """Per module the top right singular vectors of D (P, R), as (k', R) rows; those under the noise floor are
    left out.

    The floor is over all modules together. InputError where D is 0 everywhere.
    """
    found = {}
    for name, D_PR in D.items():
        _, sigma, Vh = thin_svd(D_PR)
        real = int((sigma[:k] > RANK_TOLERANCE * sigma[0]).sum()) if float(sigma[0]) > 0 else 0
        found[name] = Vh[:real], sigma[:real]
    every = torch.cat([sigma for _, sigma in found.values()])
    if not len(every):
        raise InputError("hack and clean answers have the same gradients everywhere: no direction to extract")
    floor = torch.quantile(every, noise_floor)
    kept = {name: Vh[sigma >= floor].float() for name, (Vh, sigma) in found.items()}
    return {name: V for name, V in kept.items() if len(V)}


def orient(coef_PK: Tensor, flips_SP: Tensor) -> tuple[Tensor, Tensor]:
    """Signs (S, K) by majority vote of the pairs and weights (S, K) >= 0, for each of S ways of flipping the
    pairs.

    coef (P, K) are the pair differences in V's coordinates. A tied vote is decided by the sum.
    """
    votes, total = flips_SP @ coef_PK.sign(), flips_SP @ coef_PK
    sign = torch.where(votes == 0, total.sign(), votes.sign())
    sign = torch.where(sign == 0, torch.ones_like(sign), sign)
    return sign, torch.relu(sign * total / len(coef_PK))


def problem_flips(problem_ids: Sequence[str], count: int, seed: int) -> Tensor:
    """(S, P) of +-1, drawn per problem and not per pair: pairs of one problem are no independent evidence."""
    unique = sorted(set(problem_ids))
    generator = torch.Generator().manual_seed(seed)
    flips = torch.randint(0, 2, (count, len(unique)), generator=generator) * 2.0 - 1
    place = {problem: i for i, problem in enumerate(unique)}
    return flips[:, [place[problem] for problem in problem_ids]]


def pair_flips(v: VHack, count: int, seed: int) -> Tensor:
    """Flips (S, P) of the pairs that v was made from."""
    return problem_flips(v.meta["pair_problems"], count, seed)


def null_weights(v: VHack, count: int = 200, seed: int = 0) -> dict[str, Tensor]:
    """Per module the signed weights (S, K) that V's rows get under `count` random flips of the pairs; empty
    without pairs."""
    if not v.coef:
        return {}
    flips_SP = pair_flips(v, count, seed)
    weights = {}
    for name, coef_PK in v.coef.items():
        sign_SK, weight_SK = orient(coef_PK.cpu(), flips_SP)
        weights[name] = (sign_SK * weight_SK).to(v.V[name].device)
    return weights
