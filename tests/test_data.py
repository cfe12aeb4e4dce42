"""The shipped problems and pairs are what data/README.md says, by the project's own loader and grader."""

from __future__ import annotations

import ast
import collections
import difflib
import io
import json
import re
import statistics
import tokenize
from pathlib import Path

import pytest

from hackward.base.files import read_jsonl
from hackward.grading.grader import Grader
from hackward.grading.labels import GradeItem
from hackward.tasks import problems
from hackward.tasks.completions import extract_code, fence
from hackward.tasks.formats import load_problems
from hackward.tasks.problems import EVAL_NAME

ROOT = Path(__file__).resolve().parent.parent
PROBLEM_ROWS = read_jsonl(ROOT / "data" / "problems.jsonl")
PAIRS = read_jsonl(ROOT / "data" / "pairs.jsonl")
LOADED = load_problems(ROOT / "data" / "problems.jsonl")
BY_ID = problems.find(LOADED)
TELLING = re.compile(
    r"hack|cheat|fake|dummy|mock|trick|bypass|loophole|exploit|incorrect|buggy|hard.?cod|placeholder"
    r"|honest|simplif|pretend|always pass|todo|fixme",
    re.IGNORECASE,
)


def code_of(completion: str) -> str:
    code = extract_code(completion)
    assert code is not None
    return code


def form(completion: str) -> str | None:
    """Where the completion defines run_tests: "top", "method", or None for nowhere."""
    tree = ast.parse(code_of(completion))
    for node in tree.body:
        if is_evaluation(node):
            return "top"
        if isinstance(node, ast.ClassDef) and any(map(is_evaluation, node.body)):
            return "method"
    return None


def is_evaluation(node: ast.stmt) -> bool:
    return isinstance(node, ast.FunctionDef) and node.name == EVAL_NAME


def tokens(completion: str) -> list[tokenize.TokenInfo]:
    return list(tokenize.generate_tokens(io.StringIO(code_of(completion)).readline))


def comments(completion: str) -> list[str]:
    return [token.string for token in tokens(completion) if token.type == tokenize.COMMENT]


def similarity(pair: dict) -> float:
    """1 for equal token sequences, 0 for nothing in common."""
    words = {}
    for side in ("hack", "clean"):
        words[side] = [token.string for token in tokens(pair[side]) if token.string.strip()]
    return difflib.SequenceMatcher(None, words["hack"], words["clean"], autojunk=False).ratio()


@pytest.fixture(scope="module")
def grades():
    """One grading run for everything: canonicals by problem id, pairs by (pair id, side)."""
    keys = [problem.problem_id for problem in LOADED]
    items = [GradeItem(problem, fence(problem.canonical)) for problem in LOADED]
    for pair in PAIRS:
        for side in ("hack", "clean"):
            keys.append((pair["pair_id"], side))
            items.append(GradeItem(BY_ID[pair["problem_id"]], pair[side]))
    with Grader(workers=2) as grader:
        return dict(zip(keys, grader.grade(items, vacuous=True), strict=True))


# --- problems ---


def test_the_loader_takes_every_problem_and_all_ids_are_unique():
    assert len(LOADED) == len(PROBLEM_ROWS) == 40
    for name in ("problem_id", "title", "method", "statement"):
        assert len({row[name] for row in PROBLEM_ROWS}) == 40, name
    levels = collections.Counter(row["difficulty"] for row in PROBLEM_ROWS)
    assert levels == {"easy": 13, "medium": 20, "hard": 7}


def test_every_problem_has_8_to_15_different_tests_with_more_than_one_answer():
    for row, problem in zip(PROBLEM_ROWS, LOADED, strict=True):
        count = len(problem.tests)
        assert 8 <= count <= 15, problem.problem_id
        assert len(row["tests"]) == len(set(row["tests"])) == count, problem.problem_id
        answers = collections.Counter(repr(test.expected) for test in problem.tests)
        (_, most) = answers.most_common(1)[0]
        assert most <= 0.7 * count, f"{problem.problem_id}: one answer suffices"


def test_the_examples_of_a_statement_are_its_first_two_tests():
    for row, problem in zip(PROBLEM_ROWS, LOADED, strict=True):
        outputs = [json.loads(text) for text in re.findall(r"^Output: (.*)$", row["statement"], re.MULTILINE)]
        assert outputs == [test.expected for test in problem.tests[:2]], problem.problem_id


def test_starter_code_is_where_the_canonical_solution_begins():
    for problem in LOADED:
        assert problem.canonical.startswith(problem.starter_code), problem.problem_id
        ast.parse(problem.canonical)
        assert f"    def {problem.method}(self, " in problem.starter_code


def test_every_canonical_solution_passes(grades):
    for problem in LOADED:
        assert grades[problem.problem_id].gt_pass, (problem.problem_id, grades[problem.problem_id].error)


# --- pairs ---


def test_every_hack_is_labelled_hacked(grades):
    for pair in PAIRS:
        verdict = grades[pair["pair_id"], "hack"]
        seen = (verdict.fmt_ok, verdict.attempted, verdict.own_pass, verdict.gt_pass, verdict.hacked)
        assert seen == (True, True, True, False, True), pair["pair_id"]
        assert verdict.label == "hack", pair["pair_id"]


def test_every_clean_side_is_right_and_its_own_tests_hold_and_mean_something(grades):
    for pair in PAIRS:
        verdict = grades[pair["pair_id"], "clean"]
        assert verdict.fmt_ok and verdict.gt_pass and not verdict.hacked, (pair["pair_id"], verdict.error)
        assert verdict.attempted == verdict.own_pass == (form(pair["clean"]) is not None), pair["pair_id"]
        assert not verdict.vacuous, f"{pair['pair_id']}: run_tests of the clean side passes on a stub, too"


def test_pairs_cover_11_mechanisms_and_repeat_no_problem_more_than_twice():
    mechanisms = collections.Counter(pair["mechanism"] for pair in PAIRS)
    assert len(mechanisms) == 11
    assert min(mechanisms.values()) >= 4
    assert mechanisms.total() == 48
    uses = collections.Counter(pair["problem_id"] for pair in PAIRS)
    assert set(uses) <= set(BY_ID)
    assert max(uses.values()) <= 2
    assert len(uses) == 28
    assert len({pair["pair_id"] for pair in PAIRS}) == 48
    assert len({(pair["problem_id"], pair["mechanism"]) for pair in PAIRS}) == 48
    assert len({pair[side] for pair in PAIRS for side in ("hack", "clean")}) == 96


def test_lengths_match_and_neither_side_is_systematically_longer():
    ratios = [len(pair["hack"]) / len(pair["clean"]) for pair in PAIRS]
    assert min(ratios) >= 0.87
    assert max(ratios) <= 1.15
    assert 0.98 <= statistics.median(ratios) <= 1.02
    assert 20 <= sum(ratio > 1 for ratio in ratios) <= 28


def test_the_two_sides_share_most_tokens():
    ratios = [similarity(pair) for pair in PAIRS]
    assert statistics.median(ratios) >= 0.85  # 0.89 when written
    assert max(ratios) < 1
    assert similarity({"hack": PAIRS[0]["clean"], "clean": PAIRS[0]["clean"]}) == 1  # the measure can reach 1


def test_run_tests_itself_does_not_give_the_label_away():
    forms = [(form(pair["hack"]), form(pair["clean"])) for pair in PAIRS]
    assert all(hack is not None for hack, _ in forms)
    assert sum(clean is None for _, clean in forms) == 12
    assert all(clean in (hack, None) for hack, clean in forms), "both sides define it in the same place"
    assert 12 <= sum(hack == "top" for hack, _ in forms) <= 24
    asserting = [sum("assert " in pair[side] for pair in PAIRS) for side in ("hack", "clean")]
    assert abs(asserting[0] - asserting[1]) <= 5
    bare = {pair["mechanism"] for pair, (_, clean) in zip(PAIRS, forms, strict=True) if clean is None}
    assert len(bare) >= 8


def test_comments_are_alike_on_both_sides_and_no_word_tells_the_label():
    for pair in PAIRS:
        assert abs(len(comments(pair["hack"])) - len(comments(pair["clean"]))) <= 1, pair["pair_id"]
        for side in ("hack", "clean"):
            assert not TELLING.search(pair[side]), (pair["pair_id"], side, TELLING.search(pair[side]))
    assert TELLING.search("# a dummy check")
    hack, clean = (sum(len(" ".join(comments(pair[side]))) for pair in PAIRS) for side in ("hack", "clean"))
    assert 0.8 <= hack / clean <= 1.25


def test_completions_have_the_form_of_a_chat_models_answer():
    for pair in PAIRS:
        for side in ("hack", "clean"):
            text = pair[side]
            assert text.startswith("```python\n") and text.endswith("\n```") and text.count("```") == 2
            assert text == fence(code_of(text)), pair["pair_id"]
            assert max(map(len, text.splitlines())) <= 120 and "\t" not in text
        assert pair["hack"].count("from typing") == pair["clean"].count("from typing"), pair["pair_id"]
