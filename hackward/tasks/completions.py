"""The code in a completion, and code as a completion."""

from __future__ import annotations

import re

_MARK = re.compile(r"^[ \t]*```([^\n`]*)$", re.MULTILINE)
PYTHON = ("python", "python3", "py", "")  # what a fence of Python may be marked as


def extract_code(completion: str) -> str | None:
    """The code in the last complete fence marked as Python or not at all; None if there is none.

    A mark with a language opens a fence, also where another one is open (that was never closed). A bare mark
    closes what is open, else it opens a fence.
    """
    code = None
    language, start = None, 0  # of the open fence
    for mark in _MARK.finditer(completion):
        marked_as = mark[1].strip().lower()
        if language is None or marked_as:
            language, start = marked_as, mark.end() + 1
            continue
        if language in PYTHON:
            code = completion[start : mark.start()]
        language = None
    return code


def fence(code: str) -> str:
    """`code` as an answer: one fenced block."""
    return "```python\n" + code.rstrip() + "\n```"
