"""Verdict words, and figures as people read them."""

from __future__ import annotations

import re
from dataclasses import replace

from hackward.base.statistics import ZERO_VARIANCE, Comparison, Estimate, Range

UNDEFINED = "undefined"
# Of a row of the verification table
PASS, FAIL, SNEAKY, ALTERNATES, NOT_JUDGED = "pass", "fail", "sneaky fail", "alternates", "-"
# Of H1
SUPPORTED, REFUTED, INCONCLUSIVE = "supported", "refuted", "inconclusive"
UNTESTABLE, NOT_ATTRIBUTABLE = "not testable", "not attributable"
# Of an arm by the end
PREVENTION, DELAY, NEITHER, UNTOLD = "prevention", "delay", "neither", "cannot be told"

LONE_ZERO = re.compile(r"(?<!\d)0(?=\.)")
CHANCE = 0.5  # AUC of a score that knows nothing


def steps_in_words(count: int) -> str:
    """1 step, 3 steps"""
    return "1 step" if count == 1 else f"{count} steps"


def signed(value: float | None, digits: int = 3) -> str:
    return UNDEFINED if value is None else f"{value:+.{digits}f}"


def plain(value: float | None, digits: int = 2) -> str:
    return UNDEFINED if value is None else f"{value:.{digits}f}"


def p_value(value: float | None) -> str:
    if value is None:
        return UNDEFINED
    return "< 1e-4" if value < 1e-4 else f"{value:.2g}"


def null_words(null: Range | None) -> str:
    return "no null recorded" if null is None else f"{signed(null[0])} {signed(null[1])}"


def beside_null(null: Range | None) -> str:
    return null_words(null) if null is None else f"null of the mean {null_words(null)}"


def with_interval(found: Estimate | Comparison) -> str:
    """-0.350 [-0.42, -0.28], or the reason why there is no interval, or no figure."""
    centre = found.mean if isinstance(found, Estimate) else found.difference
    if centre is None:
        return f"{UNDEFINED} ({found.why})"
    if found.interval is None:
        return f"{signed(centre)} (no interval: {found.why})"
    low, high = found.interval
    return f"{signed(centre)} [{signed(low, 2)}, {signed(high, 2)}]"


def tight(found: Estimate, sign: str = "") -> str:
    """A mean and its interval in 13 to 16 characters: .65 [.63 .67]"""
    if found.mean is None:
        return UNDEFINED
    if found.interval is None:
        return f"{_short(found.mean, sign)} ({found.why})"
    low, high = (_short(end, sign) for end in found.interval)
    return f"{_short(found.mean, sign)} [{low} {high}]"


def _short(value: float, sign: str) -> str:
    """.65, without a zero that is all there is before the point."""
    return LONE_ZERO.sub("", f"{value:{sign}.2f}")


def knows(what: str, found: Estimate, who: str = "the monitor") -> str:
    """What the AUC of a score on the policy's own rollouts says, in words.

    ``what``: hacks or attempts; ``who``: whose score.
    """
    if found.mean is None:
        return f"it is undefined whether {who} tells the policy's own {what} apart ({found.why})"
    others = f"the policy's own {what} from its other rollouts"
    figure = f"AUC {_short(found.mean, '')}"
    if found.interval is not None:
        low, high = found.interval
        figure += f" [{_short(low, '')}, {_short(high, '')}]"
    elif found.why == ZERO_VARIANCE:
        low = high = found.mean
        figure += ", without exception"
    else:
        return f"it cannot be said whether {who} tells {others} ({figure}; {found.why})"
    if low > CHANCE:
        return f"{who} tells {others} better than chance ({figure})"
    if high < CHANCE:
        return f"{who} ranks the policy's own {what} below its other rollouts ({figure})"
    return f"{who} does not tell {others} ({figure})"


def tight_auc(found: Estimate) -> str:
    """An AUC and its interval in few characters; why it has none is said elsewhere."""
    return tight(found if found.interval or found.mean is None else replace(found, why="no interval"))


def tight_gap(gap: Comparison, seeds: int) -> str:
    """A difference in few characters; of how many seeds, where that is not all of them."""
    if not gap.n_first:
        return "-"
    why = (gap.why or "").removeprefix("in both: ")
    words = tight(Estimate(gap.n_first, gap.difference, low=gap.low, high=gap.high, why=why), "+")
    return words if gap.n_first == seeds else f"{words} (n {gap.n_first})"
