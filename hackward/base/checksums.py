"""checksums.json of a directory: what its files hash to, so that a byte that changed is found.

A file's hash is announced before the file takes its place, beside that of the file which it replaces:
wherever the process is killed, what lies there is one of the two. Directories from before there were
checksums have none, and nothing to compare.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hackward.base.faults import InputError
from hackward.base.files import atomic, file_hash, read_json, whole_lines, write_json

CHECKSUMS = "checksums.json"


class Checksums:
    """Those of one directory, as they lie there, and as its one writer goes on with them."""

    def __init__(self, directory: str | Path) -> None:
        """InputError for a checksums.json that is none."""
        self.directory = Path(directory)
        self.known = self._read()

    def _read(self) -> dict[str, list[str]]:
        path = self.directory / CHECKSUMS
        return _checked(path, read_json(path)) if path.is_file() else {}

    def begin(self) -> None:
        """Of a directory that is begun anew: nothing is known."""
        self.known = {}
        write_json(self.directory / CHECKSUMS, self.known)

    @contextlib.contextmanager
    def writing(self, path: Path) -> Iterator[Path]:
        """As files.atomic, and the checksum is announced before the file takes its place."""
        with atomic(path) as temporary:
            yield temporary
            replaced = [file_hash(path)] if path.is_file() else []
            self.known[self._name(path)] = [file_hash(temporary), *replaced]
            write_json(self.directory / CHECKSUMS, self.known)

    def forget(self, path: Path) -> None:
        """Delete a file."""
        path.unlink(missing_ok=True)
        if self.known.pop(self._name(path), None) is not None:
            write_json(self.directory / CHECKSUMS, self.known)

    def _name(self, path: Path) -> str:
        return path.relative_to(self.directory).as_posix()

    def check(self, path: Path, *, cut_off: bool = False) -> None:
        """InputError where the file changed since it was written.

        With `cut_off`, half a line at its end is not looked at: the lines before it are what is used.
        """
        name = self._name(path)
        if name not in self.known or _hash(path, cut_off) in self.known[name]:
            return
        self.known = self._read()  # a process that writes there may have replaced both in the meantime
        found, written = _hash(path, cut_off), self.known.get(name, ["none"])
        if found not in written:
            raise InputError(
                f"{path}: changed since it was written (checksum {found[:16]}, written with"
                f" {written[0][:16]}, says {CHECKSUMS})"
            )

    def check_all(self, *, cut_off: Path | None = None) -> None:
        """InputError for the first file that changed; those that are gone are passed over."""
        for name in sorted(self.known):
            path = self.directory / name
            if path.is_file():
                self.check(path, cut_off=path == cut_off)

    def gone(self) -> list[str]:
        """Names of files that were written and are not there."""
        return [name for name in sorted(self.known) if not (self.directory / name).is_file()]


def _hash(path: Path, cut_off: bool) -> str:
    return hashlib.sha256(whole_lines(path)).hexdigest() if cut_off else file_hash(path)


def _checked(path: Path, content: Any) -> dict[str, list[str]]:
    fault = InputError(f"{path}: not a table of checksums")
    if not isinstance(content, dict):
        raise fault
    for name, hashes in content.items():
        inside = not Path(name).is_absolute() and ".." not in Path(name).parts
        listed = isinstance(hashes, list) and all(isinstance(one, str) for one in hashes)
        if not inside or not listed or not hashes:
            raise fault
    return content
