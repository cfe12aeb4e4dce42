"""The code in a completion, and code as a completion."""

from __future__ import annotations

import re

_FENCE = re.compile(r"^[ \t]*```([^\n`]*)$", re.MULTILINE)


def extract_code(completion: str) -> str | None:
    """The code in the last complete fence marked python, py or nothing; None if there is none."""
    opened, code = None, None
    for mark in _FENCE.finditer(completion):
        language = mark.group(1).strip().lower()
        if opened is None:
            opened = (language, mark.end() + 1)
            continue
        if not language:
            if opened[0] in ("python", "python3", "py", ""):
                code = completion[opened[1] : mark.start()]
            opened = None
        else:  # an opening mark inside an open fence: the earlier fence was never closed
            opened = (language, mark.end() + 1)
    return code


def fence(code: str) -> str:
    """``code`` as an answer: one fenced block."""
    return "```python\n" + code.rstrip() + "\n```"
