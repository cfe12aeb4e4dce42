"""Reading safetensors files of this project: tensors, and the metadata under the key "hackward"."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from hackward.base.faults import InputError

if TYPE_CHECKING:
    from torch import Tensor


def read_safetensors(path: str | Path) -> tuple[dict[str, Tensor], dict]:
    """Tensors (on the CPU) and the project's metadata of a safetensors file; InputError where there is
    none."""
    with _opened(path) as (stored, metadata):
        return {name: stored.get_tensor(name) for name in stored.keys()}, metadata  # noqa: SIM118


def read_metadata(path: str | Path) -> dict:
    """The project's metadata of a safetensors file, without its tensors; InputError where there is none."""
    with _opened(path) as (_, metadata):
        return metadata


@contextlib.contextmanager
def _opened(path: str | Path) -> Iterator[tuple[Any, dict]]:
    try:
        with safe_open(path, framework="pt") as stored:
            metadata = json.loads((stored.metadata() or {}).get("hackward", "null"))
            if not isinstance(metadata, dict):
                raise InputError(f"{path}: a safetensors file, but not one of this project (no metadata)")
            yield stored, metadata
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (SafetensorError, OSError, ValueError) as fault:
        raise InputError(f"{path}: not a readable safetensors file ({fault})") from None
