"""The code in a completion, and code as a completion.

Blocks of code are found as CommonMark defines them, by markdown-it-py. Models also write what it reads
otherwise than they mean: a fence behind text on its line, a fence in a docstring that stands as far left as
the code's own, a closing fence behind the last line of code, code in a list item that is not indented. Other
readings are tried only where the plain one holds no answer.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache, lru_cache

from markdown_it import MarkdownIt

PYTHON = ("python", "python3", "py", "py3", "")  # what a fence of Python may be marked as
CONTAINERS = ["blockquote", "list", "code"]  # rules that give indentation a meaning
LANGUAGE = re.compile(r"[\s{.]*([\w+#-]*)")  # the first word of an info string, also of {.python}
ITEM = re.compile(r"[\s>*+-]*(?:\d{1,9}[.)])?\s*")  # the beginning of a line in a list or a quotation
SOLUTION = re.compile(r"^[ \t]*(?:class[ \t]+Solution\b|Solution[ \t]*=)", re.MULTILINE)
# What hides marks in Python source: a comment, the beginning of a string over lines, a string on one line.
HIDING = r"#[^\n]*|(?P<long>\"\"\"|''')|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'"
REST_OF_LINE = re.compile(r"[ \t]*$", re.MULTILINE)
PLAIN = re.compile(r"^```(?:python)?\n(.*)^```$", re.DOTALL | re.MULTILINE)  # where there are two marks
BOM = "\ufeff"
JOINED = 8  # most blocks that one broken by a fence in its docstring is joined over


@dataclass(frozen=True)
class Block:
    """A fenced block of Python, or of no language."""

    code: str
    marks: str
    """That open it: ``` or longer, or of tildes."""
    first: int
    """Line of the text at which it opens."""
    last: int
    """Line behind its last one."""
    closed: bool


def extract_code(completion: str, method: str | None = None) -> str | None:
    """The code of the answer: the last complete block of Python that defines Solution.

    Blocks without it, such as a use of it or what it prints, count only where there is no other. `method`: a
    Solution that has it goes before one that has not. None if there is no complete block.
    """
    text = completion.lstrip(BOM).replace("\r\n", "\n").replace("\r", "\n")
    plain = plain_answer(text)
    if plain is not None:
        return plain
    found = []
    for blocks in readings(text):
        complete = [block.code for block in blocks if block.closed]
        answers = [code for code in complete if SOLUTION.search(code)]
        if answers:
            with_method = [code for code in answers if method is None or method in code]
            return (with_method or answers)[-1]
        found += complete[-1:]
    return found[0] if found else None


def plain_answer(text: str) -> str | None:
    """The code of most answers, in a tenth of the time: of one block that every way of reading finds.

    Its marks begin their lines, and there are no others, so neither a list nor a quotation nor a string holds
    them. None where that is not so.
    """
    if text.count("```") != 2 or "~~~" in text or "\0" in text:
        return None
    found = PLAIN.search(text)
    return straightened(found[1]) if found else None


def readings(text: str) -> Iterator[list[Block]]:
    """The blocks of a text in the ways to read it, the plain one first."""
    yield blocks_of(text, containers=True)
    if "```" in text or "~~~" in text:
        yield blocks_of(text, containers=False)
        apart = set_apart(text)
        if apart != text:
            yield blocks_of(apart, containers=True)
            yield blocks_of(apart, containers=False)


@cache
def parser(containers: bool) -> MarkdownIt:
    """Finds blocks and nothing else. Without containers any indentation is none."""
    markdown = MarkdownIt("commonmark")
    markdown.core.ruler.enableOnly(["normalize", "block"])
    markdown.block.ruler.enableOnly(["fence", "paragraph", *(CONTAINERS if containers else [])])
    return markdown


def blocks_of(text: str, *, containers: bool) -> list[Block]:
    """The blocks in order, each tidied, those that a fence in a docstring broke up joined."""
    found, lines = [], text.split("\n")
    for token in parser(containers).parse(text):
        if token.type == "fence" and token.map and language_of(token.info) in PYTHON:
            first, last = token.map
            height = len(token.content.removesuffix("\n").split("\n")) if token.content else 0
            code = token.content if containers else joined_lines(lines[first + 1 : first + 1 + height])
            closed = last - first == height + 2
            found.append(tidied(Block(code, token.markup, first, last, closed)))
    broken = any(scanned(block.code, block.marks).open_string for block in found)
    return list(joined(found, lines)) if broken else found


def joined_lines(lines: list[str]) -> str:
    """Lines of a text as a text."""
    return "".join(f"{line}\n" for line in lines)


def language_of(info: str) -> str:
    """The language that an info string names, whatever attributes stand beside it."""
    match = LANGUAGE.match(info)
    return match[1].lower() if match else ""


def tidied(block: Block) -> Block:
    """Without a byte order mark, an indentation of the whole, and marks that only Python tells from code."""
    seen = scanned(block.code, block.marks)
    code = straightened(block.code[seen.start : seen.end])
    return replace(block, code=code, closed=block.closed or seen.end is not None)


def straightened(code: str) -> str:
    """Code without a byte order mark, without an indentation of the whole, and with a last line break."""
    code = code.lstrip(BOM)
    if code.lstrip("\n")[:1] in (" ", "\t"):
        code = textwrap.dedent(code)
    if code and not code.endswith("\n"):
        code += "\n"
    return code


@dataclass(frozen=True)
class Scanned:
    """What Python's own marks, those of strings and comments, say of a block."""

    start: int
    """Behind the last marks that open a block of Python in this one, which then was never closed."""
    end: int | None
    """Of the first marks that close it, unseen by CommonMark because they stand behind code or far in."""
    open_string: bool
    """A string over lines has no end."""


def scanned(code: str, marks: str) -> Scanned:
    """One pass over the code; marks in strings and comments are none."""
    start = place = 0
    while found := marks_or_hiding(marks).search(code, place):
        place = found.end()
        if found["long"]:
            place = code.find(found["long"], place) + 3
            if place < 3:
                return Scanned(start, None, open_string=True)
        elif found["first"] and language_of(code[place : place + 20]) in PYTHON[:-1]:
            start = place = code.find("\n", place) + 1 or len(code)
        elif found["first"] or (found["later"] and REST_OF_LINE.match(code, place)):
            return Scanned(start, found.start(), open_string=False)
    return Scanned(start, None, open_string=False)


@lru_cache
def marks_or_hiding(marks: str) -> re.Pattern[str]:
    """Marks of at least this length, the first thing on their line or later, or what hides marks."""
    mark = re.escape(marks[0])
    run = f"{mark}{{{len(marks)},}}"
    return re.compile(rf"{HIDING}|(?P<first>^[ \t]*{run})|(?P<later>{run})", re.MULTILINE)


def joined(blocks: list[Block], lines: list[str]) -> Iterator[Block]:
    """The blocks; one whose last string is left open goes on to a later end, or begins earlier."""
    for place, block in enumerate(blocks):
        if not scanned(block.code, block.marks).open_string:
            yield block
            continue
        behind = blocks[place : place + JOINED]
        ends = sorted({line for other in behind for line in (other.first, other.last - 1)} - {block.first})
        starts = [other.first for other in reversed(blocks[max(0, place - JOINED) : place])]
        spans = [(block.first, end) for end in ends] + [(start, block.last - 1) for start in starts]
        whole = (part_of(lines, block, first, end) for first, end in spans)
        yield next((part for part in whole if not scanned(part.code, part.marks).open_string), block)


def part_of(lines: list[str], block: Block, first: int, end: int) -> Block:
    """The lines between two fences as a block."""
    code = joined_lines(lines[first + 1 : end])
    return tidied(replace(block, code=code, first=first, last=end + 1, closed=True))


def set_apart(text: str) -> str:
    """The text with every fence that stands behind something on its line on a line of its own."""
    lines = []
    for line in text.split("\n"):
        head = line.rstrip(" \t\r")
        end = max(head.rfind("`"), head.rfind("~")) + 1
        start = len(head[:end].rstrip(head[end - 1 : end])) if end else 0
        alone = ITEM.fullmatch(line, 0, start) is not None
        if end - start < 3 or alone or line[start : start + 3] in line[:start]:
            lines.append(line)
        else:
            lines += [line[:start], line[start:]]
    return "\n".join(lines)


def fence(code: str) -> str:
    """`code` as an answer: one fenced block, whose marks are longer than any in the code."""
    longest = max(map(len, re.findall("`+", code)), default=0)
    marks = "`" * max(3, longest + 1)
    return f"{marks}python\n{code.rstrip()}\n{marks}"
