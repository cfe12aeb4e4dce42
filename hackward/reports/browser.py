"""report.html: verdict, caveats, curves and every rollout in one file that works without a network.

Completions are hostile text. None of it is markup: rollouts travel as base64, the script of the page puts
them on the screen as text, and what the template prints is escaped. The page's own policy lets it load
nothing, and run no script and no style but its own, which are named by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hackward.base.files import atomic
from hackward.reports.arms import by_arm
from hackward.reports.brief import arm_sentence
from hackward.reports.browser_curves import rate_panels
from hackward.reports.browser_data import Rollouts, packed_json
from hackward.reports.runs import Run
from hackward.reports.tables import INDENT, Block, Caveat, Conclusion, Table

NAME = "report.html"
HERE = Path(__file__).resolve().parent
# In the order in which they are put together
SCRIPTS = (
    *("report_data.js", "report_state.js", "report_code.js", "report_view.js", "report_list.js"),
    "report.js",
)
QUESTION = (
    "Does GRPO's policy gradient point toward reward hacking, and does taking that direction out stop a"
    " coding model from learning to cheat, at no cost in solved problems?"
)
NO_VERDICT = (
    "No verdict: it takes finished runs of an arm that acts on hacking, and of vanilla with the same settings"
    " and seeds."
)
MEGA = 1e6  # bytes


@dataclass(frozen=True)
class Verdict:
    """A conclusion of the report: its first sentence, the rest of its line, and the lines below it."""

    head: str
    rest: str
    below: list[str]


@dataclass(frozen=True)
class Picture:
    """A picture of the report as a data URI."""

    name: str
    uri: str


def write_page(
    path: Path,
    blocks: Sequence[Block],
    runs: Sequence[Run],
    rollouts: Rollouts,
    pictures: Sequence[Path] = (),
) -> None:
    """The page of a report: its blocks, the curves of its runs, its pictures and rollouts."""
    panels, key = rate_panels(runs)
    text = _rendered(
        title=", ".join(dict.fromkeys(run.path.name for run in runs))[:80],
        question=QUESTION,
        sentences=[arm_sentence(arm) for arm in by_arm(runs)],
        verdicts=verdicts(blocks),
        no_verdict=NO_VERDICT,
        caveats=caveats(blocks),
        panels=[(panel, {theme: _svg_uri(svg) for theme, svg in panel.svg.items()}) for panel in panels],
        key=key,
        tables=[block for block in blocks if isinstance(block, Table)],
        pictures=[Picture(picture.name, _uri("image/png", picture.read_bytes())) for picture in pictures],
        runs=runs,
        rollouts=rollouts,
        facts=packed_json(rollouts.facts) if rollouts.count else "",
    )
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def size_words(path: Path) -> str:
    """How large a file is: 4.2 MB"""
    return f"{path.stat().st_size / MEGA:.1f} MB"


def verdicts(blocks: Sequence[Block]) -> list[Verdict]:
    """What the report concludes, in its words; indented lines belong to the line above them."""
    found: list[Verdict] = []
    for block in blocks:
        for line in block.splitlines() if isinstance(block, Conclusion) else ():
            if line.startswith(INDENT) and found:
                found[-1].below.append(line.strip())
            else:
                head, stop, rest = line.partition(". ")
                found.append(Verdict(head + stop.strip(), rest, []))
    return found


def caveats(blocks: Sequence[Block]) -> list[str]:
    """What a reader must not conclude, in the words of the report; indented lines belong to the line above
    them."""
    found: list[str] = []
    for block in blocks:
        for line in block.splitlines() if isinstance(block, Caveat) else ():
            if line.startswith(INDENT) and found:
                found[-1] += f"\n{line}"
            else:
                found.append(line)
    return found


def visible(text: str) -> str:
    """The text with characters that are not seen, or that turn the order of others, as escapes.

    Among them NUL, terminal escapes, lone surrogates and marks of direction; line breaks stay.
    """
    return "".join(_escaped(char) for char in text)


def _escaped(char: str) -> str:
    hidden = unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp")
    return char.encode("unicode_escape").decode("ascii") if hidden and char != "\n" else char


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _svg_uri(svg: str) -> str:
    return _uri("image/svg+xml", svg.encode("utf-8", "backslashreplace"))


def hash_of(text: str) -> str:
    """What a policy calls an inline script or style by."""
    digest = base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
    return f"'sha256-{digest}'"


def _policy(script: str, style: str) -> str:
    """The Content-Security-Policy: nothing from anywhere but this page's own script, style and pictures."""
    rules = [
        "default-src 'none'",
        f"script-src {hash_of(script)}",
        f"style-src {hash_of(style)}",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    return "; ".join(rules)


def _rendered(**parts: Any) -> str:
    """The template with these parts; every text in it is made visible and escaped."""
    # Only where a page is made: a command's start does without
    import jinja2
    from markupsafe import Markup

    def shown(value: Any) -> Any:
        return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        finalize=shown,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = "\n".join(['"use strict";', *((HERE / name).read_text(encoding="utf-8") for name in SCRIPTS)])
    style = (HERE / "report.css").read_text(encoding="utf-8")
    return environment.get_template("report.html.j2").render(
        policy=Markup(_policy(script, style)),
        script=Markup(script),
        style=Markup(style),
        **parts,
    )
