"""Lines of plain text at a terminal's width, for what must not wait for rich: errors, help, command lines."""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Sequence

SHELL_WORD = re.compile(r"""(?:[^\s'"]|'[^']*'|"[^"]*")+""")
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")  # every control character but the newline
GAP = re.compile(r"(?<=\S) {2,}")  # before the comment of an example
ITEM = re.compile(r"(?:\*|\d+\.) ")  # how an item of a list begins


def printable(text: str) -> str:
    """The text with what UTF-8 cannot carry, lone surrogates, as escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def visible(text: str) -> str:
    """The text with what would steer a terminal, or cannot be printed at all, as escapes."""
    return printable(CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text))


def filled(text: str, width: int, *, indent: str = "", hang: str = "") -> str:
    """The text broken between words into lines of at most this width; a wider word stays whole, since it may
    be a path to be copied. `hang` begins the lines below the first."""
    return textwrap.fill(
        text,
        max(width, len(hang) + 1),
        initial_indent=indent,
        subsequent_indent=hang,
        break_long_words=False,
        break_on_hyphens=False,
    )


def shell_lines(command: str, width: int) -> list[str]:
    """A command line on lines of at most this width that a shell still reads as one command.

    The further lines are indented below the first; a word that is wider than a line stays whole.
    """
    indent = command[: len(command) - len(command.lstrip())]
    lines: list[str] = []
    for word in SHELL_WORD.findall(command):
        if lines and len(f"{lines[-1]} {word} \\") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append((indent + "    " if lines else indent) + word)
    return [f"{line} \\" for line in lines[:-1]] + lines[-1:]


def description(doc: str) -> str:
    """A docstring for tyro, at the terminal's width: sentences are filled, examples stay lines, and each item
    of a list, marked or numbered, begins a line of its own.

    Every line begins with a space, or tyro would join it to the one before.
    """
    width = shutil.get_terminal_size().columns - 1
    parts = []
    for paragraph in doc.strip().split("\n\n"):
        lines = paragraph.split("\n")
        if lines[0].startswith(" "):
            parts.append([short for line in _items(lines) for short in _example(line, width)])
        elif ITEM.match(lines[0]):
            parts.append([short for item in _items(lines) for short in _list_item(item, width)])
        else:
            parts.append(filled(" ".join(lines), width).split("\n"))
    return "\n\n".join("\n".join(f" {line}" for line in lines) for lines in parts)


def _items(lines: Sequence[str]) -> list[str]:
    """The lines of a list or of examples, each with those below that are indented deeper than the first."""
    edge = len(lines[0]) - len(lines[0].lstrip())
    items: list[str] = []
    for line in lines:
        if items and line.startswith(" " * (edge + 1)):
            items[-1] += f" {line.strip()}"
        else:
            items.append(line)
    return items


def _list_item(item: str, width: int) -> list[str]:
    """An item of a list, its further lines below its words."""
    mark = ITEM.match(item)
    hang = " " * len(mark[0]) if mark else ""
    return filled(item, width, hang=hang).split("\n")


def _example(line: str, width: int) -> list[str]:
    """A line of an example; where it is too wide its comment goes below it."""
    if len(line) <= width:
        return [line]
    command, comment = line, ""
    # The comment is behind the last gap: others align the parts of one command with those of the next
    for gap in GAP.finditer(line):
        command, comment = line[: gap.start()], line[gap.end() :]
    indent = command[: len(command) - len(command.lstrip())]
    lines = shell_lines(command, width)
    if comment:
        lines += filled(comment, width, indent=indent + "    ", hang=indent + "    ").split("\n")
    return lines
