"""Which block of a completion is its answer."""

from __future__ import annotations

import time
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hackward.tasks import completions
from hackward.tasks.completions import extract_code, fence, plain_answer

CODE = "class Solution:\n    def inc(self, x):\n        return x + 1\n"
OTHER = CODE.replace("+ 1", "+ 2")
WITH_DOCS = """class Solution:
    def inc(self, x):
        '''
        ```{language}
        inc(3)
        ```
        '''
        return x + 1
"""


def indented(text: str, by: str) -> str:
    return "".join(by + line if line.strip() else line for line in text.splitlines(keepends=True))


def block(code: str, info: str = "python", marks: str = "```") -> str:
    return f"{marks}{info}\n{code}{marks}\n"


@pytest.mark.parametrize(
    "completion",
    [
        block(CODE),
        "\ufeff" + block(CODE),
        block("\ufeff" + CODE),
        block(CODE).replace("\n", "\r\n"),
        block(CODE, marks="````"),
        block(CODE, marks="~~~"),
        block(CODE) + "``",
        block(CODE).rstrip() + "``````",
        *(block(CODE, info) for info in ("", "Python", "py", "python3", " python", 'python title="a.py"')),
        *(
            block(CODE, info)
            for info in ("{.python .numbers}", "python,linenos", "python:sol.py", "{python}")
        ),
        # In lists and quotations
        f"1. So:\n\n{indented(block(CODE), '   ')}",
        f"- So:\n\n{indented(block(CODE), '  ')}\n- and more",
        f"- So:\n\n{indented(block(CODE), '      ')}",
        f"1. So:\n\n   ```python\n{CODE}   ```\n",
        f"So\n\n{indented(block(CODE), '        ')}",
        indented(block(CODE), "> "),
        block(indented(CODE, "    ")),
        # Text on the line of a fence
        "SOLUTION: " + block(CODE),
        "Here it is:" + block(CODE, ""),
        f"<answer>{block(CODE)}</answer>",
        f"<answer>\n{block(CODE)}</answer>",
        f"```python\n{CODE.rstrip()}```",
        f"```python\n{CODE.rstrip()}```\nIt adds one, doesn't it?",
        f"```python\n{CODE.rstrip()}```\nOutput:\n```\n4\n```",
        f"So: ```python\n{CODE.rstrip()}```",
        f"Put it between ``` marks, as in ```x```:\n{block(CODE)}",
        f"```python\n{CODE}    ```\n",
        # Other blocks around it
        block(OTHER) + "Better:\n" + block(CODE),
        block(CODE) + "Output:\n" + block("4\n", ""),
        block(CODE) + "Output:\n" + block("4\n", "text"),
        block(CODE) + "Use:\n" + block("print(Solution().inc(3))\n"),
        block(CODE) + block(">>> Solution().inc(3)\n4\n", ""),
        block(CODE) + block("class Solution {};\n", "cpp"),
        block(CODE) + block("class Solution:\n    def run_tests(self): pass\n"),
        block(CODE) + "```python\nclass Solution:\n    def inc(self",
        "```python\nclass Solution:\n    def inc(\n" + block(CODE),
        block("one = 1\n") + block(CODE),
        f"Write ```code``` like this.\n{block(CODE)}",
    ],
)
def test_the_answer_is_found(completion: str) -> None:
    found = extract_code(completion, "inc")
    assert found is not None
    assert found == CODE


@pytest.mark.parametrize(
    "code",
    [
        *(WITH_DOCS.replace("{language}", language) for language in ("", "python", "text")),
        indented(WITH_DOCS, " ").replace("    ", " ").replace("{language}", ""),
        '"""\nSo:\n```\ninc(3)\n```\n"""\n' + CODE,
        '"""\n```\na\n```\nand\n```\nb\n```\n"""\n' + CODE,
        '"""\nIt\'s closed by\n```\n"""\n' + CODE,
        "'''\n~~~\n'''\n" + CODE,
        'MARKS = "```"\n' + CODE,
        "# ends in ```\n" + CODE,
    ],
)
def test_fences_in_strings_and_comments_of_the_code_end_nothing(code: str) -> None:
    found = extract_code(f"Text.\n\n{block(code)}", "inc")
    assert found is not None
    namespace: dict = {}
    exec(found, namespace)
    assert namespace["Solution"]().inc(3) == 4


@pytest.mark.parametrize(
    ("completion", "code"),
    [
        ("a = 1", None),
        ("`a = 1`", None),
        ("```python\n" + CODE, None),  # cut off: its end may be missing
        ("```text\n" + CODE + "```", None),
        ("    class Solution: pass\n", None),
        ("```python\n```", ""),
        (block("a = 1\n") + block("b = 2\n"), "b = 2\n"),  # none has a Solution
        (block("a = 1\n") + "```python\nb = 2", "a = 1\n"),
    ],
)
def test_where_there_is_no_answer(completion: str, code: str | None) -> None:
    assert extract_code(completion, "inc") == code


@given(st.text(st.sampled_from("a `~\n\t\"'#=1\\"), max_size=60))
def test_code_in_a_fence_of_ours_comes_back(text: str) -> None:
    code = f"class Solution:\n    pass\n{text}".rstrip().replace("\t", "    ")
    assert extract_code(fence(code)) in (f"{code}\n", None if "\\" in code else f"{code}\n")


MARKS = ["```python\n", "```\n", "\n```", "~~~"]
OTHERS = [
    "\n", "\n\n", "    ", " ", "\t", "> ", "- ", "1. ", "# ", "'''", '"""', "`x`", "text", "class Solution:",
    "\0", "\x0b", "\x0c", "\u2028", "\x85", "\ufeff", "\r", "\\", "<div>", "---\n", "    code\n",
    "[a]: b\n", "| a |\n",
]  # fmt: skip
around = st.lists(st.sampled_from([*OTHERS, *MARKS]), max_size=5).map("".join)
inside = st.lists(st.sampled_from(OTHERS), max_size=5).map("".join)
definitions = st.tuples(st.sampled_from(["", "\nclass Solution:\n    pass\n"]), inside).map("".join)
beginnings = st.sampled_from(["\n```python\n", "\n```\n", "```python\n"])


@settings(max_examples=1000)
@given(inside, beginnings, inside, definitions, st.sampled_from(["\n```\n", "```\n", "\n```"]), around)
def test_the_short_way_finds_what_reading_as_markdown_finds(
    before: str, beginning: str, first: str, second: str, end: str, behind: str
) -> None:
    text = f"{before}{beginning}{first}{second}{end}{behind}"
    found = extract_code(text)
    with patch.object(completions, "plain_answer", lambda text: None):
        assert extract_code(text) == found


@pytest.mark.parametrize(
    "completion", [f"~~~text\n{block(CODE)}~~~\n", f"~~~\n{block(CODE)}", block(CODE + "\0\n")]
)
def test_what_holds_the_block_or_changes_it_is_read_as_markdown(completion: str) -> None:
    assert plain_answer(completion) is None


def test_most_answers_are_found_in_the_short_way() -> None:
    assert plain_answer(f"So:\n{block(CODE)}It adds `1`.") == CODE


@pytest.mark.parametrize(
    "text",
    [
        ">" * 20_000,
        "`" * 100_000,
        ("`" * 50_000 + "~\n") * 2,
        block("'" * 50_000 + "\n"),
        block('"""' * 20_001 + "\n"),
        '```python\n"""\n```\n' * 2_000,
        "x ```python\n" * 10_000,
        block("x```\n" * 10_000),
        "- " * 50_000 + "```",
        "1" * 100_000 + "```",
    ],
    ids=range(10),
)
def test_a_hostile_text_takes_no_longer_than_its_length_asks(text: str) -> None:
    started = time.process_time()
    extract_code(text, "inc")
    assert time.process_time() - started < 3
