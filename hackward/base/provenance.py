"""Where a result came from: command line, commit, versions, time."""

from __future__ import annotations

import contextlib
import importlib.metadata
import subprocess
import sys
import time

from hackward.base.files import ROOT


def git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def provenance() -> dict:
    """What a run directory must say about where it came from: argv, commit, dirty flag, versions, device,
    time."""
    versions = {"python": sys.version.split()[0]}
    for package in ("torch", "transformers", "peft", "numpy", "scipy", "datasets"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    status = git("status", "--porcelain", "--untracked-files=no")
    return {
        "argv": sys.argv,
        "commit": git("rev-parse", "HEAD"),
        "dirty": None if status is None else bool(status),
        "versions": versions,
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
