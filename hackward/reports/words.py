"""Verdict words, and figures as people read them."""

from __future__ import annotations

from hackward.base.statistics import Comparison, Estimate

PASS, FAIL, SNEAKY, UNDEFINED, NOT_JUDGED = "pass", "fail", "sneaky fail", "undefined", "-"


# ---------------------------------------------------------------------------------------------- figures in words
def signed(value: float | None, digits: int = 3) -> str:
    return UNDEFINED if value is None else f"{value:+.{digits}f}"


def plain(value: float | None, digits: int = 2) -> str:
    return UNDEFINED if value is None else f"{value:.{digits}f}"


def p_value(value: float | None) -> str:
    return UNDEFINED if value is None else "< 1e-4" if value < 1e-4 else f"{value:.2g}"


def null_words(null: tuple[float, float] | None) -> str:
    return "no null recorded" if null is None else f"{signed(null[0])} {signed(null[1])}"


def with_interval(found: Estimate | Comparison) -> str:
    centre = found.mean if isinstance(found, Estimate) else found.difference
    if found.low is None:
        return f"{signed(centre)} ({found.why})" if centre is not None else f"undefined ({found.why})"
    return f"{signed(centre)} [{signed(found.low, 2)}, {signed(found.high, 2)}]"


def beside_null(null: tuple[float, float] | None) -> str:
    return null_words(null) if null is None else f"null of the mean {null_words(null)}"


def tight(found: Estimate, sign: str = "") -> str:
    """A mean and its interval in 13 to 16 characters: .65 [.63 .67]"""
    if found.mean is None:
        return UNDEFINED
    centre, *ends = (
        f"{value:{sign}.2f}".replace("0.", ".", 1)
        for value in (found.mean, found.low, found.high)
        if value is not None
    )
    return f"{centre} [{' '.join(ends)}]" if ends else f"{centre} ({found.why})"


def tight_gap(found: Estimate, seeds: int) -> str:
    if not found.n:
        return "-"
    return tight(found, "+") + (f" (n {found.n})" if found.n != seeds else "")
