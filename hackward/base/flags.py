"""Command lines from dataclasses: parsing, ranges, and the flags that several commands share. No torch in
here.

A setting's range is part of its type, `Annotated[int, Ge(1)]`, and is checked by `checked` once all presets
and defaults are filled in. Commands take tyro from here: the first thing that they import is then a module of
ours, which says what is lacking where the environment is (hackward/__init__.py).
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import importlib.metadata
import inspect
import io
import itertools
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro
from annotated_types import Ge, Le, Lt

from hackward.base import lines
from hackward.base.faults import InputError
from hackward.base.files import ROOT
from hackward.base.helptexts import fill_help
from hackward.base.space import check_addresses

Flags = TypeVar("Flags")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")

Dtype = Literal["auto", "float32", "tf32", "bfloat16"]  # what a --dtype may be
Sandbox = Literal["strict", "best-effort", "none"]
Count = Annotated[int, Ge(1)]  # at least one
Amount = Annotated[int, Ge(0)]  # none, or some
# What lies outside of these is beyond fp32, or leaves nothing of a model or of its distribution.
Rate = Annotated[float, Ge(0), Le(10)]  # of learning, or of weight decay
Temperature = Annotated[float, Ge(0.01), Le(100)]
Seed = Annotated[int, Ge(0), Lt(2**63)]
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
ALL_LINEAR = "all-linear"
OUTPUTS = ("out", "svd_cache")  # flags that name what is written; `outputs` of a command's flags goes before


def default_cache() -> Path:
    """Where bases are kept: $HACKWARD_CACHE, or out/cache in the project."""
    return Path(os.environ.get("HACKWARD_CACHE") or ROOT / "out" / "cache") / "svd"


@dataclass(frozen=True, kw_only=True)
class Device:
    """Flags of every command that runs a model."""

    dtype: Dtype = "auto"
    """auto: bf16 on a GPU, fp32 on a CPU. tf32: fp32 with matrix products in TF32 (10 bits of mantissa) where
    the GPU has it."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ..."""


@dataclass(frozen=True, kw_only=True)
class OnDevice(Device):
    """Flags of every command that trains an adapter of the model, or reads its gradients."""

    micro_tokens: Count | None = None
    """Padded tokens of a micro-batch (default: as many as the free GPU memory holds; 8192 on a CPU)."""
    svd_cache: str | None = str(default_cache())
    """Directory of the SVD cache, and of v_hacks that runs made themselves; None for no cache."""
    targets: str | None = None
    """Linear layers to train, by the last part of their names, separated by commas; all-linear: every one but
    the head (default: q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj, those that the model has)."""


@dataclass(frozen=True, kw_only=True)
class Grading:
    """Flags of every command that grades."""

    sandbox: Sandbox = "best-effort"
    """How the graded code is confined."""
    workers: Count | None = None
    """Grader processes (default: one per core)."""
    several_answers: bool = False
    """Also take problems that accept several answers, where only the stored one is credited (default: they
    are left out of training and evaluation, and another answer to one has no label)."""


def command_line(
    flags: type[Flags],
    argv: Sequence[str] | None = None,
    *,
    default: Flags | None = None,
    prog: str | None = None,
    description: str | None = None,
) -> Flags:
    """The flags of a command line. `--help` prints and exits with 0.

    InputError, in one line, for a flag that is unknown or a value that it cannot take, and where there is no
    room for what a model runs on; ranges are checked by `checked`.
    """
    options: dict[str, Any] = {} if default is None else {"default": default}
    options["description"] = lines.description(inspect.cleandoc(description or flags.__doc__ or ""))
    words = sys.argv[1:] if argv is None else argv
    if not {"-h", "--help"}.isdisjoint(words):
        fill_help(flags)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            found = tyro.cli(flags, args=argv, prog=prog, **options)
    except SystemExit as ended:
        if not ended.code:
            raise
        raise InputError(one_line(said.getvalue())) from None
    _refuse_empty(found, words)
    _refuse_bytes(found)
    if hasattr(found, "device"):  # it runs a model
        check_addresses()
    return found


def _refuse_empty(found: Any, argv: Sequence[str]) -> None:
    """InputError for a text or path that is empty, as of `--probe=$PROBE` where PROBE is not set: it would
    count as if the flag had been left out, or as this directory."""
    for field in dataclasses.fields(found):
        value, flag = getattr(found, field.name), f"--{field.name.replace('_', '-')}"
        empty = isinstance(value, str) and not value.strip() and field.default != value
        # An empty path reads as "."
        if empty or (value == Path() and any(given == "" for given in _given(flag, argv))):
            raise InputError(f"{flag} is empty: give it a value, or leave it out")


def _refuse_bytes(found: Any) -> None:
    """InputError for an output whose name has bytes that are no UTF-8: it has no name in a record or on a
    page, and the library of tensor files would refuse it at the first one, when the work is under way."""
    for name in getattr(found, "outputs", OUTPUTS):
        value = getattr(found, name, None)
        try:
            os.fsencode(value or "").decode("utf-8")
        except UnicodeError:
            flag = f"--{name.replace('_', '-')}"
            raise InputError(f"{flag} {value}: a name with bytes that are no UTF-8; take another") from None


def _given(flag: str, argv: Sequence[str]) -> list[str]:
    """The values of a flag on a command line, written as --flag=value or as two words."""
    joined = [word.partition("=")[2] for word in argv if word.startswith(f"{flag}=")]
    return joined + [after for word, after in itertools.pairwise(argv) if word == flag]


def one_line(boxed: str) -> str:
    """What tyro says of a command line that it cannot take, without colours, the box around it and its
    title."""
    rows = [line.strip(" \u2502") for line in COLOUR.sub("", boxed).splitlines()]
    drawn = re.compile(r"[\u2500-\u257f -]*")
    said = [line for line in rows[1:] if not drawn.fullmatch(line)]
    line = " ".join(said)
    for further in ("Argument helptext", "For full helptext"):
        line = line.partition(further)[0]
    line = " ".join(line.split())
    return _plain_number(line) or line


def _plain_number(line: str) -> str | None:
    """What tyro says of a flag that wants a number and got something else, in plain words; None for other
    faults."""
    flag = re.match(r"Error parsing (--[\w-]+):", line)
    number = re.search(r"(invalid literal for int|could not convert string to float).*?: '(.*?)'", line)
    if flag is None or number is None:
        return None
    kind = "a whole number" if "int" in number[1].split() else "a number"
    return f"{flag[1]} {number[2]}: must be {kind}"


def checked(settings: Flags) -> Flags:
    """The settings, if every value is of its type and in its range; no number may be NaN or infinite.

    InputError that names the flag, its value and the bound.
    """
    from pydantic import (  # costs more than the rest of a command's start
        ConfigDict,
        TypeAdapter,
        ValidationError,
    )

    kind: Any = type(settings)
    kind.__pydantic_config__ = ConfigDict(allow_inf_nan=False)
    values = {f.name: getattr(settings, f.name) for f in dataclasses.fields(kind)}
    try:
        TypeAdapter(kind).validate_python(values)
    except ValidationError as faults:
        raise InputError(_range_words(faults.errors()[0])) from None
    return settings


def target_names(targets: str | None) -> tuple[str, ...] | str:
    """The names in a --targets, TARGETS without one, or ALL_LINEAR. InputError for what is no such list."""
    if targets is None:
        return TARGETS
    if targets == ALL_LINEAR:
        return targets
    names = tuple(dict.fromkeys(name.strip() for name in targets.split(",")))
    for name in names:
        if not re.fullmatch(r"\w+", name):
            raise InputError(
                f"--targets {targets!r}: expected {ALL_LINEAR}, or last parts of layer names separated by"
                f" commas, e.g. {','.join(TARGETS[:2])}; {name!r} is none"
            )
    return names


_BOUNDS = {
    "greater_than_equal": ("ge", "at least"),
    "greater_than": ("gt", "above"),
    "less_than_equal": ("le", "at most"),
    "less_than": ("lt", "below"),
}


def _range_words(fault: Any) -> str:
    flag = f"--{str(fault['loc'][0]).replace('_', '-')}"
    if fault["type"] in _BOUNDS:
        name, words = _BOUNDS[fault["type"]]
        return f"{flag} {fault['input']}: must be {words} {fault['ctx'][name]:g}"
    return f"{flag} {fault['input']}: {fault['msg'].replace('Input should', 'must')}"


def has_gpu() -> bool:
    """Will torch find a GPU? Asked of the driver, since importing torch takes seconds and `--help` must not.

    The installed torch must be a build for it. False where CUDA_VISIBLE_DEVICES hides every card.
    """
    try:
        build = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return False
    if "+rocm" in build:
        return Path("/dev/kfd").exists()
    if "+cpu" in build:
        return False
    count = ctypes.c_int(0)
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    found = driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0
    return found and count.value > 0
