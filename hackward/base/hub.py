"""Whether a name leads to a model or an adapter: a directory here, or a repository of the hub. No torch."""

from __future__ import annotations

from pathlib import Path

from hackward.base.faults import InputError

SECONDS = 10  # to wait for the hub's answer


def check_there(name: str, what: str, file: str) -> None:
    """InputError unless `name` is a directory with `file` in it, or a repository of the hub that has it.

    `what` is how such a thing is called. What was downloaded earlier is not asked for again; the hub is asked
    once.
    """
    path = Path(name)
    if path.is_dir():
        if not (path / file).is_file():
            raise InputError(f"{name}: {what} cannot be loaded (the directory has no {file})")
        return
    if path.exists():
        raise InputError(f"{name}: {what} cannot be loaded (a file; a directory or a hub id is expected)")
    if not _may_be_id(name):
        raise InputError(f"{name}: {what} cannot be loaded (no such directory)")
    _check_hub(name, what, file)


def _may_be_id(name: str) -> bool:
    """Could a repository of the hub be called so?"""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def _check_hub(name: str, what: str, file: str) -> None:
    import httpx
    from huggingface_hub import HfApi, constants, try_to_load_from_cache
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    if isinstance(try_to_load_from_cache(name, file), str):
        return
    nowhere = f"{name}: {what} cannot be loaded (no such directory, not downloaded earlier, and"
    if constants.HF_HUB_OFFLINE:
        raise InputError(f"{nowhere} HF_HUB_OFFLINE forbids asking the hub)")
    try:
        HfApi().model_info(name, timeout=SECONDS)
    except GatedRepoError:
        raise InputError(
            f"{name}: {what} cannot be loaded (the hub gives it only to those who were granted access: ask"
            " for it on its page, then `hf auth login`)"
        ) from None
    except RepositoryNotFoundError:
        raise InputError(f"{nowhere} the hub has no such repository)") from None
    except (HfHubHTTPError, OfflineModeIsEnabled, httpx.HTTPError, OSError) as fault:
        raise InputError(f"{nowhere} the hub cannot be asked: {type(fault).__name__})") from None
