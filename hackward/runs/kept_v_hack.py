"""The v_hack of shipped pairs, kept beside the SVD cache: the runs of a sweep need the same one.

A file is found by all that its directions follow from: the model, the coordinates, the pairs, the settings,
where and in what pieces gradients were taken, and the code that took them. So it is what the run would
extract, bit for bit; one that does not verify is made anew.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError

from hackward.base.faults import InputError
from hackward.base.files import ROOT, sha256
from hackward.hardware import models, ranks
from hackward.method import extraction
from hackward.method.adapters import Adapter
from hackward.method.pairs import Pair, pair_hash
from hackward.method.recipe import Extraction
from hackward.method.v_hack import VHack
from hackward.runs.settings import Config

CODE = ("antipasto.py", "lora_adapter.py", "hackward/method/*.py", "hackward/hardware/*.py")


def place_of(
    config: Config, adapter: Adapter, pairs: Sequence[Pair], settings: Extraction, origin: dict[str, Any]
) -> Path | None:
    """The file that holds it, if it was made before; None where nothing is to be kept."""
    if config.svd_cache is None:
        return None
    facts = {
        "model": adapter.model_hash,
        "model_settings": models.settings_hash(adapter.model),
        "coordinates": adapter.coordinates,
        "pairs": pair_hash(pairs),
        "settings": vars(settings),
        "origin": origin,
        "tokens": config.micro_tokens,
        "ranks": ranks.size(),
        "device": _name_of(adapter.model.device),
        "dtype": str(adapter.model.dtype),
        "tf32": torch.backends.cuda.matmul.allow_tf32,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    code = [path.read_bytes() for pattern in CODE for path in sorted(ROOT.glob(pattern))]
    key = sha256(json.dumps(facts, sort_keys=True, default=str), *code)[:32]
    return Path(config.svd_cache) / "v_hack" / f"{key}.safetensors"


def _name_of(device: torch.device) -> str:
    """A GPU's model: another one may round otherwise."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def kept(place: Path | None, adapter: Adapter) -> VHack | None:
    """What lies there, its modules in the adapter's order as after an extraction; None where there is
    nothing, or not what was written.

    All ranks have it or none has: an extraction is work of all, and another run may write the file between
    two ranks' looks.
    """
    if place is None:
        return None
    v = _read(place, adapter)
    return v if all(ranks.gathered(v is not None)) else None


def _read(place: Path, adapter: Adapter) -> VHack | None:
    try:
        if not place.exists():
            return None
        v = extraction.load(place, adapter)
    except (InputError, OSError) as fault:
        warnings.warn(f"{fault}; it is made anew", stacklevel=2)
        return None
    names = [name for name in adapter.params if name in v.V]
    V, w, coef = ({name: held[name] for name in names} for held in (v.V, v.w, v.coef))
    del v.meta["file"]
    return VHack(V, w, v.meta, coef)


def keep(v: VHack, place: Path | None) -> None:
    """A full disk costs the next run its extraction, not this run."""
    if place is None:
        return
    try:
        v.save(place)
    except (SafetensorError, OSError) as fault:
        warnings.warn(f"{place}: not cached ({fault})", stacklevel=2)
