"""What a problem's statement allows of an answer: another order, a tolerance, or any of several answers.

Read from the statement and from the structure of the expected values, once, when the problem is read; never
from an answer. Where the statement accepts any of several answers, no comparison with the one that is stored
can decide.
"""

from __future__ import annotations

import ast
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from hackward.base.syntax import syntax_of
from hackward.tasks.problems import Comparison, Linked, Order, Test, Tree

TAG = re.compile(r"</?[a-z][^<>]*>", re.IGNORECASE)
SENTENCE_END = re.compile(r"(?<=[.!?:])\s+|\n+")
EXAMPLES = re.compile(r"\bexample\s*\d*\s*:", re.IGNORECASE)

ANY_ORDER = re.compile(
    r"\b(?:any|whatever|arbitrary|no particular|no specific)(?: arbitrary| particular)? order\b"
    r"|\border\b(?: \w+){0,12} (?:does not|doesn't|do not|don't) matter\b"
    r"|\border\b(?: \w+){0,8} is (?:not important|unimportant|irrelevant|arbitrary)\b"
    r"|\b(?:regardless|irrespective) of (?:the |their |its )?order\b(?! of (?!the (?:answer|result|output)))"
)
RETURNED = re.compile(
    r"\b(?:return(?:s|ed|ing)?|outputs?|answers?|results?|solutions?|list(?:ed|s)?|printed|report(?:ed)?)\b"
)
RETURNED_SO = re.compile(
    r"^(?:[\w-]+ ){0,6}(?:returned|returning|listed|output|printed)\b"
    r"|^(?:of|for) the (?:answer|result|output)"
)
# Said of what the sentence before asks for.
THEIR_ORDER = re.compile(
    r"^(?:the|their|its) order\b"
    r"|\b(?:may|can|could) (?:be |stand |come |appear |listed |given |placed )+"
    r"in (?:any|whatever|arbitrary|no)\b"
)
ASKS = re.compile(r"\breturn\b")
# Between "return" and "in any order" these say that something else than the answer has any order.
ACTION = re.compile(
    r"\b(?:by|after|using|perform\w*|appl(?:y|ied|ying)|operations?|concatenat\w+|rearrang\w+|reorder\w*"
    r"|swap\w*|select\w*|choos\w+|process\w*|complet\w+|merg(?:e|ed|ing)|delet\w+|visit\w*|formed|obtained"
    r"|lead|leads|input|inputs|inserting|inserted|taking|cutting|same)\b"
)
PERMUTED = re.compile(r"\b(?:any permutation|permutations) of\b.*\baccepted\b")
PARTS = (
    r"(?:integers?|numbers?|elements?|values?|indices|indexes|strings?|words?|items?|characters?|letters?"
    r"|nodes?|vertices|members?|entries|names?)"
)
WHOLES = (
    r"(?:lists?|arrays?|groups?|sublists?|subarrays?|rows?|edges?|pairs?|triplets?|tuples?|combinations?"
    r"|subsets?|sets?|teams?|components?|answer|result)"
)
INSIDE = re.compile(rf"\b{PARTS} (?:\w+ ){{0,3}}(?:in|within|inside|of) (?:\w+ ){{0,3}}?{WHOLES}\b")
EACH = re.compile(
    rf"\b(?:each|every|both) (?:\w+ )?{WHOLES}\b|\bin the (?:lists|arrays|groups|pairs|sublists)\b"
)
SAYS_BOTH = re.compile(
    rf"\b{WHOLES},? and\b|\border of the (?:output|answer|result)\b|\bnor\b|\bas well as\b"
)
# Things whose own members have no order.
MEMBERS = (
    r"(?:combinations|triplets|quadruplets|subsets|groups|anagrams|connections|teams|clusters|components)"
)
UNORDERED = re.compile(
    rf"\b(?:return|find|group|output|list|set must)\b.*\b{MEMBERS}\b|\b{MEMBERS} (?:\w+ ){{0,3}}returned\b"
)
ORDERED = re.compile(
    r"\b(?:permutations?|paths?|sequences?|arrangements?|boards?|partition\w*|intervals?|segments?|points?"
    r"|coordinates?|cells?)\b"
)
SOLUTION_SET = re.compile(r"\b(?:solution|answer|result) set\b.*\bduplicate")
EVERY_ONE = re.compile(
    r"\b(?:return|find|generate|list|output)\b(?: (?:a|an|the))?(?: (?:list|array|collection|set) of)?"
    r" all (?!of (?:them|these|those)\b)"
)
SAYS_AN_ORDER = re.compile(
    r"\border|\bsort|ascending|descending|increasing|decreasing|lexicograph|alphabet|left to right|from left"
    r"|top to bottom|clockwise|spiral|diagonal|respective|correspond|they appear|appearance|answers? to"
    r"|quer(?:y|ies)|\[i\]"
    r"|occurrence|updates?\b|rank|traversal|smallest|largest|\bfirst\b|\blast\b|\bi-?th\b"
)

ANSWERS = r"(?:answers?|solutions?|outputs?|results?|arrangements?|assignments?|choices?|arrays?|trees?)"
RETURN_ANY = re.compile(r"\b(?:return|output|print)(?: just| back)? any(?: one)?\b(?! order)")
ANY_OF_THEM = re.compile(
    rf"\b(?:choose|pick|select|accept|submit) any(?: one)?(?: of)?(?: them| the| these)?(?: {ANSWERS})\b"
)
SUCH_A = re.compile(
    r"\b(?:return|output) (?:the|an?|one|its)\b.*\bany (?:such|(?:one )?of (?:the|them|these|those))\b"
)
ACCEPTED_ANY = re.compile(rf"\bany\b(?: \w+){{0,3}} {ANSWERS}\b.*\baccept(?:ed|able)\b")
ONE_OF_MANY = re.compile(
    r"\b(?:multiple|several|(?<!how )many|more than one|not unique|isn't unique|two or more)\b.*"
    r"\b(?:any|either|whichever|arbitrary|one of (?:them|these|those)"
    r"|(?:each|all) of them (?:is|are) accepted)\b"
)
WHICHEVER = re.compile(r"\b(?:not|n't) matter which\b.*\breturn|\breturn\b.*\bwhichever\b")
SOME_FREE = re.compile(
    r"\b(?:(?:of|with|have|has) (?:the )?(?:same|equal)|are equal|ties?|tied)\b"
    r".*(?:\bany order\b|\b(?:any|either) of them (?:may|can) (?:come|go|be)\b)"
)
EITHER = re.compile(
    r"\b(?:return|output) (?:either|one) of (?:them|these|those|the)\b|\breturn an arbitrary\b"
)
ANOTHER = re.compile(r"\b(?:another|other) (?:valid |correct |possible |accepted )+" + ANSWERS)
ALSO_ACCEPTED = re.compile(r"\b(?:also|is|are|be|been) (?:\w+ )?accepted\b")
FREES_ALL = re.compile(r"\b(?:return|output|list) (?:all|them|the answer|your)\b.* order\b")
VERDICT = re.compile(r"\b(?:return|output|print|report|accept(?:ed|able)?|answers?|enough|suffices|fine)\b")
TIE_BREAK = re.compile(
    r"\b(?:smallest|largest|first|last|lexicographic\w*|minimum|maximum|earliest|latest|lowest|highest|least"
    r"|greatest|shortest|longest|smaller|larger)\b"
)
A_FIGURE = re.compile(
    r"\b(?:true|number|count|sum|total|minimum|maximum|smallest|largest|shortest|longest|distance|cost|score)\b"
)

TOLERANT = re.compile(
    r"\b(?:accept\w*|correct|within|error|differs?|differences?|tolerance|precision|close)\b"
)
POWER = re.compile(r"(?<![\w.])10\s*\^?\s*[({]?\s*-\s*(\d{1,2})\b(?!\s*=)|\b1(?:\.0*)?e-(\d{1,2})\b")
SMALL = re.compile(r"(?<![\d.])0\.(0*)1\b")


def comparison_of(statement: str, starter_code: str, tests: Sequence[Test]) -> Comparison:
    """How answers to this problem are compared with the expected values."""
    sentences = list(_sentences(statement))
    values = [test.expected for test in tests]
    absolute, relative = _tolerance(sentences) if _has_decimals(starter_code, values) else (0.0, 0.0)
    order: Order = "kept"
    reason = ""
    if not all(isinstance(value, bool) for value in values):
        order = _order(statement, sentences, values)
        reason = _several(sentences, order)
    if reason:
        return Comparison("kept", True, absolute, relative, reason)
    return Comparison(order, False, absolute, relative)


def _sentences(statement: str) -> Iterator[str]:
    """The sentences in lower case, without markup, signs of one kind written in one way."""
    text = unicodedata.normalize("NFKC", TAG.sub("", statement))
    text = text.translate(str.maketrans("\u2212\u2013\u2019", "--'", "*`_"))
    for sentence in SENTENCE_END.split(text.lower()):
        if sentence.strip():
            yield " ".join(sentence.split())


# --- order ---


def _order(statement: str, sentences: list[str], values: list[Any]) -> Order:
    """What may stand in another order: nothing, the whole, what is inside the parts of it, or both."""
    if not all(isinstance(value, (list, tuple)) for value in values):
        return "kept"
    nested = any(isinstance(item, (list, tuple)) for value in values for item in value)
    whole = inside = False
    for before, sentence in zip(["", *sentences], sentences):
        if _frees_the_answer(sentence, before):
            says_inside = nested and bool(INSIDE.search(sentence) or EACH.search(sentence))
            whole = whole or not says_inside or _says_both(sentence) or _are_records(values)
            inside = inside or says_inside
    body = EXAMPLES.split(statement, maxsplit=1)[0]
    whole = whole or _asks_for_a_set(list(_sentences(body)))
    if whole and nested:
        inside = inside or _unordered_inside(sentences) or _shown(sentences, values, _sorted_throughout)
    match whole, inside:
        case True, True:
            return "both"
        case True, False:
            return "whole"
        case False, True:
            return "inside"
    return "kept"


def _frees_the_answer(sentence: str, before: str) -> bool:
    """Whether it says that the answer, and not something else, may have any order.

    `before` is the sentence in front of it.
    """
    if PERMUTED.search(sentence):
        return True
    found = ANY_ORDER.search(sentence)
    if found is None:
        return False
    if ASKS.search(before) and THEIR_ORDER.search(sentence):
        return True
    if "matter" in found[0] or " is " in found[0]:  # "the order of the output does not matter"
        return bool(RETURNED.search(found[0]))
    said = list(RETURNED.finditer(sentence, 0, found.start()))
    if said:
        return not ACTION.search(sentence, said[-1].end(), found.start())
    return bool(RETURNED_SO.search(sentence[found.end() :].strip()))


def _says_both(sentence: str) -> bool:
    return bool(SAYS_BOTH.search(sentence))


def _are_records(values: list[Any]) -> bool:
    """Whether all inner lists have one length: then they are pairs and the like, and their list is free."""
    lengths = {len(item) for value in values for item in value if isinstance(item, (list, tuple))}
    return len(lengths) == 1


def _unordered_inside(sentences: list[str]) -> bool:
    """Whether what is returned is a list of things whose members have no order of their own."""
    return any(UNORDERED.search(sentence) and not ORDERED.search(sentence) for sentence in sentences)


def _asks_for_a_set(sentences: list[str]) -> bool:
    """Whether it asks for all of something and names no order anywhere."""
    if any(SOLUTION_SET.search(sentence) for sentence in sentences):
        return True
    asked = [sentence for sentence in sentences if RETURNED.search(sentence) or EVERY_ONE.search(sentence)]
    if any(SAYS_AN_ORDER.search(sentence) for sentence in asked):
        return False
    return any(EVERY_ONE.search(sentence) for sentence in asked)


# --- several answers ---


def _several(sentences: list[str], order: Order) -> str:
    """The sentence by which several answers are right that differ in more than their order, or nothing."""
    for sentence in sentences:
        if _accepts_several(sentence) or (order == "kept" and _shows_another(sentence)):
            return sentence
    return ""


def _accepts_several(sentence: str) -> bool:
    """Whether it calls any of several answers right."""
    if TOLERANT.search(sentence) and (POWER.search(sentence) or SMALL.search(sentence)):
        return False
    if SOME_FREE.search(sentence) and not FREES_ALL.search(sentence):
        return True
    sentence = PERMUTED.sub("", ANY_ORDER.sub("", sentence))
    if RETURN_ANY.search(sentence) or ANY_OF_THEM.search(sentence) or EITHER.search(sentence):
        return True
    if ACCEPTED_ANY.search(sentence) or WHICHEVER.search(sentence):
        return True
    if SUCH_A.search(sentence):
        return not A_FIGURE.search(sentence)
    return bool(ONE_OF_MANY.search(sentence) and VERDICT.search(sentence) and not TIE_BREAK.search(sentence))


def _shows_another(sentence: str) -> bool:
    """Whether it calls another answer right."""
    if "not accepted" in sentence:
        return False
    if ANOTHER.search(sentence) and VERDICT.search(sentence):
        return True
    return "also" in sentence and bool(ALSO_ACCEPTED.search(sentence))


def _shown(sentences: list[str], values: list[Any], form: Callable[[Any], Any]) -> bool:
    """Whether an answer that it calls accepted equals an expected one in this form, in no stricter one."""
    for sentence in sentences:
        if "accepted" not in sentence or "not accepted" in sentence:
            continue
        for shown in _literals(sentence):
            for value in values:
                if form(shown) == form(value) and sorted(shown, key=repr) != sorted(value, key=repr):
                    return True
    return False


def _sorted_throughout(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return sorted(map(_sorted_throughout, value), key=repr)
    return value


def _literals(sentence: str) -> Iterator[list]:
    """The lists that are written in a sentence."""
    start, depth = 0, 0
    for position, sign in enumerate(sentence):
        if sign == "[":
            start, depth = (position, 1) if depth == 0 else (start, depth + 1)
        elif sign == "]" and depth:
            depth -= 1
            if depth == 0:
                written = sentence[start : position + 1].replace("null", "None")
                try:
                    yield ast.literal_eval(syntax_of(written, "eval"))
                except (ValueError, SyntaxError):
                    continue


# --- tolerance ---


def _has_decimals(starter_code: str, values: list[Any]) -> bool:
    returned = starter_code.rpartition("->")[2]
    return "float" in returned or any(map(_holds_decimal, values))


def _holds_decimal(value: Any) -> bool:
    if isinstance(value, float):
        return value - value == 0  # neither infinite nor NaN
    if isinstance(value, (Linked, Tree)):
        return any(map(_holds_decimal, value.values))
    if isinstance(value, dict):
        return any(map(_holds_decimal, value.values()))
    return isinstance(value, (list, tuple, set)) and any(map(_holds_decimal, value))


def _tolerance(sentences: list[str]) -> tuple[float, float]:
    """The absolute and the relative error that a statement accepts, 0 where it names none."""
    for sentence in sentences:
        if not TOLERANT.search(sentence):
            continue
        power, small = POWER.search(sentence), SMALL.search(sentence)
        if power is None and small is None:
            continue
        if power is not None:
            error = 10.0 ** -int(power[1] or power[2])
        else:
            assert small is not None
            error = 10.0 ** -(len(small[1]) + 1)
        if "relative" not in sentence:
            return error, 0.0
        return (error if "absolute" in sentence else 0.0), error
    return 0.0, 0.0
