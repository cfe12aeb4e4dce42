"""Files: everything that touches the disk goes through here.

Three rules hold for every command of the project:

* a fault in the user's input is an ``InputError``: one line that names the file and what is wrong, exit code
  2;
* a file is written under a temporary name and renamed, so a reader never sees half of one;
* nothing is ever unpickled; tensors travel as safetensors.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import math
import os
import re
import shutil
import tempfile
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from hackward.base.containers import GZIP, container_of
from hackward.base.faults import InputError

ROOT = Path(__file__).resolve().parents[2]  # of the clone
CHECKPOINT = "checkpoint.safetensors"  # of a run
POOL_FILE = re.compile(r"(step|prompt)_(?P<number>\d+)\.jsonl(\.gz)?")  # of a pool of rollouts
MAY_BE_MARKED = "utf-8-sig"  # UTF-8, without the byte order mark that Windows' editors put first
MARK = "\ufeff"
PER_LINE = "expected one object per line"
UMASK = os.umask(0)  # it can only be read by setting it, which threads that write files must not do
os.umask(UMASK)


@contextlib.contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it into place on success, remove it on any failure."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~UMASK)  # mkstemp makes 0600; a shared machine expects the umask to decide
        os.replace(temporary, path)
    except OSError as fault:
        if fault.errno is not None and fault.filename in (None, name, temporary):
            fault.filename = str(path)  # a full disk names no file, and the temporary name tells nobody
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_directory(path: str | Path, ours: Collection[str]) -> Iterator[Path]:
    """Yield an empty directory beside ``path``, which takes its place on success; on any failure ``path``
    stays as it was.

    Files of the old directory whose names are not in ``ours`` are the user's and move along.
    """
    path = Path(path).resolve()
    if path.exists() and not path.is_dir():
        raise InputError(f"{path}: not a directory")
    path.parent.mkdir(parents=True, exist_ok=True)
    home = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp"))
    new, old = home / "new", home / "old"
    new.mkdir()
    try:
        yield new
        for file in new.rglob("*"):
            if file.is_file():  # some libraries write files that only their owner may read
                file.chmod(0o666 & ~UMASK)
        if path.exists():
            os.replace(path, old)
        try:
            os.replace(new, path)
        except OSError:
            os.replace(old, path)
            raise
        for entry in old.iterdir() if old.exists() else ():
            if entry.name not in ours:
                os.replace(entry, path / entry.name)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _jsonable(value: Any) -> Any:
    """NaN and infinities become null: JSON has neither, and an undefined number must not read as a number."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return value


def _dumps(value: Any, **options: Any) -> str:
    # ASCII escapes also carry the lone surrogates that model text can hold and UTF-8 cannot.
    return json.dumps(_jsonable(value), allow_nan=False, **options)


Put = Callable[[Path], AbstractContextManager[Path]]
"""How a file gets to its place: `atomic`, or Checksums.writing, which remembers what it holds."""


def write_json(path: str | Path, value: Any, *, put: Put = atomic) -> None:
    with put(Path(path)) as temporary:
        temporary.write_text(_dumps(value, indent=2) + "\n", encoding="utf-8")


def write_jsonl(path: str | Path, rows: Iterable[dict], *, put: Put = atomic) -> None:
    """One JSON object a line; gzip (with a fixed timestamp, so equal rows give equal bytes) when the name
    ends in .gz."""
    with put(Path(path)) as temporary, open(temporary, "wb") as raw:
        stream = (
            gzip.GzipFile(fileobj=raw, mode="wb", filename="", mtime=0) if str(path).endswith(".gz") else raw
        )
        for row in rows:
            stream.write((_dumps(row) + "\n").encode("utf-8"))
        if stream is not raw:
            stream.close()


def is_jsonl(path: str | Path) -> bool:
    """Is this a file of rows, by its name?"""
    return str(path).endswith((".jsonl", ".jsonl.gz")) and Path(path).is_file()


def whole_lines(path: Path) -> bytes:
    """The file without half a line at its end, which a write that was cut off leaves (a copy, say)."""
    data = _bytes_of(path)
    last = data.rpartition(b"\n")[2]
    with contextlib.suppress(ValueError, RecursionError):
        json.loads(last)
        return data  # whole, and without the newline after it
    return data[: len(data) - len(last)]


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as fault:
        raise InputError(f"{path}: cannot be read ({fault.strerror})") from None


def step_file(step: int) -> str:
    """The name of the file that has the rollouts of a step (as POOL_FILE reads it)."""
    return f"step_{step:03d}.jsonl.gz"


def read_text(path: Path, *, cut_off: bool = False, encoding: str = MAY_BE_MARKED) -> str:
    """The text of a file, unpacked where its name ends in .gz. InputError.

    With `cut_off`, without half a line at its end. With the encoding "utf-8" a byte order mark is part of it.
    """
    try:
        data = whole_lines(path) if cut_off else path.read_bytes()
        packed = path.suffix == ".gz"
        _refuse_container(path, data, packed)
        if packed:
            if not data:
                raise EOFError("an empty file is none")
            data = gzip.decompress(data)
            inside = container_of(data)
            if inside is not None:
                raise InputError(f"{path}: {inside} inside of gzip, expected text: unpack it first")
        return data.decode(encoding)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as fault:
        raise InputError(f"{path}: corrupt or truncated gzip file ({fault})") from None
    except UnicodeDecodeError as fault:
        where = f"{fault.reason} at byte {fault.start}"
        raise InputError(f"{path}: not UTF-8 text ({where}); save it as UTF-8") from None
    except OSError as fault:
        raise InputError(f"{path}: cannot be read ({fault.strerror})") from None


def _refuse_container(path: Path, data: bytes, packed: bool) -> None:
    """InputError for bytes that are no text, and where only one of bytes and name (`packed`) says gzip."""
    found = container_of(data)
    if found == GZIP and not packed:
        raise InputError(f"{path}: is gzip, and its name does not say so: let it end in .gz")
    if found not in (None, GZIP):
        raise InputError(f"{path}: is {found}, expected text: unpack or convert it first")
    if packed and data and found is None:
        raise InputError(f"{path}: ends in .gz and is not gzip: take .gz off its name, or compress it")


def _parsed(text: str, where: str, *, line: bool = False) -> Any:
    """The value of a JSON text. InputError, which `where` begins, also for numbers of thousands of digits.

    Of a `line`, `where` says the number.
    """
    if text.startswith(MARK):
        raise InputError(f"{where}: a byte order mark (U+FEFF) begins the text; save it without one")
    try:
        return json.loads(text)
    except json.JSONDecodeError as fault:
        place = f"column {fault.colno}" if line else f"line {fault.lineno}, column {fault.colno}"
        raise InputError(f"{where}: not JSON ({fault.msg}: {place})") from None
    except (ValueError, RecursionError) as fault:
        raise InputError(f"{where}: not JSON ({str(fault).partition(';')[0]})") from None


def read_json(path: str | Path, *, encoding: str = MAY_BE_MARKED) -> Any:
    return _parsed(read_text(Path(path), encoding=encoding), str(path))


def read_jsonl(path: str | Path, required: Iterable[str] = (), *, cut_off: bool = False) -> list[dict]:
    """All rows of a .jsonl or .jsonl.gz file; with `cut_off` half a line at its end is none.

    Raises InputError that names the file, the line and the fault: a missing or truncated file, a line that is
    not a JSON object, or a row without one of the ``required`` fields.
    """
    text = read_text(Path(path), cut_off=cut_off)
    try:
        return _rows_of(text, path, tuple(required))
    except InputError as fault:
        way = _way_to_lines(text)
        if way is None:
            raise
        raise InputError(f"{fault}; {PER_LINE} ({way})") from None


def _way_to_lines(text: str) -> str | None:
    """How a JSON text that goes over several lines, or is a list, becomes rows; None for any other text."""
    text = text.lstrip()
    if text.startswith("["):
        return "jq -c '.[]' OLD > NEW.jsonl"
    whole = ""
    with contextlib.suppress(ValueError, RecursionError):
        whole = text[: json.JSONDecoder().raw_decode(text)[1]]
    cut_off = text.partition("\n")[0].strip() == "{"
    return "jq -c . OLD > NEW.jsonl" if "\n" in whole or cut_off else None


def _rows_of(text: str, path: str | Path, required: Sequence[str]) -> list[dict]:
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        row = _parsed(line, f"{path}:{number}", line=True)
        if not isinstance(row, dict):
            raise InputError(f"{path}:{number}: expected an object, found {type(row).__name__}")
        missing = [name for name in required if name not in row]
        if missing:
            raise InputError(f"{path}:{number}: row has no field {', '.join(repr(name) for name in missing)}")
        rows.append(row)
    return rows


def read_lines(path: str | Path) -> list[dict]:
    """All rows of a file that a person named, which need not be one of rows: the fault then says what is."""
    try:
        return read_jsonl(path)
    except InputError as fault:
        if is_jsonl(path) or not Path(path).is_file():
            raise
        said = str(fault) if PER_LINE in str(fault) else f"{fault}; {PER_LINE}"
        raise InputError(f"{said}, in a file that ends in .jsonl or .jsonl.gz") from None


def sha256(*parts: str | bytes) -> str:
    """Hex digest over the parts, each preceded by its length so that ("ab", "c") and ("a", "bc") differ."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8") if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


def file_hash(path: str | Path) -> str:
    try:
        with open(path, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as fault:
        raise InputError(f"{path}: cannot be read ({fault.strerror})") from None
