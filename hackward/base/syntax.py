"""The syntax of a text that others wrote, without a word on the terminal."""

from __future__ import annotations

import ast
import warnings
from typing import Any


def syntax_of(text: str, mode: str = "exec") -> Any:
    """The syntax tree, as ast.parse; raises what that raises.

    Python warns of a backslash before a sign that it does not escape, and quotes the sign, whatever it is: a
    model's text would write to the terminal.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(text, mode=mode)
