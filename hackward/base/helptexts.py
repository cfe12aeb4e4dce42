"""What --help says of a flag: the text below its field, broken by the terminal's width and not by the source.

tyro reads these texts itself, and keeps their line breaks, since all lines but the first are indented. A help
text in a field's metadata goes before; it is put there.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
import typing
from types import MappingProxyType

from hackward.base.syntax import syntax_of


def fill_help(flags: type) -> None:
    """Give the fields of this dataclass, and of dataclasses that it holds, the texts below them as help."""
    texts: dict[str, str] = {}
    for one in reversed(flags.__mro__):
        texts |= texts_below(one)
    kinds = typing.get_type_hints(flags)
    for field in dataclasses.fields(flags):
        if field.name in texts:
            field.metadata = MappingProxyType({**field.metadata, "help": texts[field.name]})
        if dataclasses.is_dataclass(kinds[field.name]):
            fill_help(kinds[field.name])


def texts_below(one: type) -> dict[str, str]:
    """Field -> the text below it in the source of a class, a line per paragraph; nothing without a source."""
    try:
        (tree,) = syntax_of(textwrap.dedent(inspect.getsource(one))).body
    except (OSError, TypeError, ValueError, SyntaxError):
        return {}
    if not isinstance(tree, ast.ClassDef) or tree.name != one.__name__:
        return {}
    found = {}
    for field, below in zip(tree.body, tree.body[1:]):
        text = _text(below)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and text is not None:
            found[field.target.id] = unbroken(text)
    return found


def _text(statement: ast.stmt) -> str | None:
    """The text that a statement is, where it is nothing else."""
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
        value = statement.value.value
        return value if isinstance(value, str) else None
    return None


def unbroken(text: str) -> str:
    """The text with each of its paragraphs on one line."""
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
