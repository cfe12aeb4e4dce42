"""Safetensors files of this project: tensors, and the metadata under the key "hackward".

Written with a checksum of both; a file that has one is read only if it still holds. Files from before there
were checksums have none.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from hackward.base.faults import InputError
from hackward.base.files import Put, atomic, sha256

if TYPE_CHECKING:
    from torch import Tensor


CHECKSUM = "checksum"


def write_safetensors(
    path: str | Path,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, Any],
    *,
    put: Put = atomic,
    **other: str,
) -> None:
    """Tensors and metadata with their checksum; `other` is metadata that other programs read.

    `put` is how the file gets to its place.
    """
    from safetensors.torch import save_file

    held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    facts = json.loads(json.dumps(dict(metadata)))
    facts[CHECKSUM] = _checksum(held, facts)
    with put(Path(path)) as temporary:
        save_file(held, temporary, metadata={**other, "hackward": json.dumps(facts)})


def _checksum(tensors: Mapping[str, Tensor], metadata: dict[str, Any]) -> str:
    """Of names, types, shapes and bytes of the tensors, and of the metadata."""
    from safetensors.torch import save

    return sha256(json.dumps(metadata, sort_keys=True), save(dict(tensors)))[:32]


def read_safetensors(path: str | Path) -> tuple[dict[str, Tensor], dict]:
    """Tensors (on the CPU) and the project's metadata of a safetensors file.

    InputError where there is none, or where it changed since it was written.
    """
    with _opened(path) as (stored, metadata):
        tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    written = metadata.pop(CHECKSUM, None)
    if written is None:
        return tensors, metadata
    found = _checksum(tensors, metadata)
    if found != written:
        raise InputError(f"{path}: changed since it was written (checksum {found}, written with {written})")
    return tensors, metadata


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
