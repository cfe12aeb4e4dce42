"""Prints the shared libraries that an interpreter and its extension modules load; run as a script.

    python -I -S -W ignore list_libraries.py

It loads them all, and asks the dynamic linker for the names under which it has found them, one a line.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import sys

UNWANTED = ("_test", "_tkinter", "_ctypes_test", "xx")  # extension modules that graded code does without


class Loaded(ctypes.Structure):
    """struct dl_phdr_info, as far as it is read."""

    _fields_ = [("address", ctypes.c_void_p), ("name", ctypes.c_char_p)]


@ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(Loaded), ctypes.c_size_t, ctypes.c_void_p)
def show(library, size, data):
    """Print one; 0 asks for the next."""
    print(os.fsdecode(library.contents.name or b""))
    return 0


def main() -> None:
    for directory in sys.path:
        if directory.endswith("lib-dynload"):
            for file in sorted(os.listdir(directory)):
                name = file.partition(".")[0]
                if not name.startswith(UNWANTED):
                    with contextlib.suppress(ImportError):
                        importlib.import_module(name)
    with contextlib.suppress(OSError):
        ctypes.CDLL("libgcc_s.so.1")  # the C library loads it when a thread ends
    ctypes.CDLL(None).dl_iterate_phdr(show, None)


if __name__ == "__main__":
    main()
