"""Claims about report.html: what it holds, which draws it pairs, and that no text in it is markup."""

from __future__ import annotations

import base64
import gzip
import html
import json
import random
import re
from array import array
from pathlib import Path
from typing import Any

import pytest

import analyze
from hackward.base.faults import InputError
from hackward.base.files import read_jsonl, write_jsonl
from hackward.reports import browser, report
from hackward.reports.arms import by_arm
from hackward.reports.brief import arm_sentence
from hackward.reports.browser_curves import INK, rate_panels
from hackward.reports.browser_data import MARKS, PIECE, Pieces, Rollouts, gather_rollouts
from hackward.reports.runs import find_runs
from tests.light import loaded
from tests.rollouts_on_disk import line, small_runs, write_rollouts
from tests.runs_on_disk import PNG, replay_rows, run_main, sample, write_arm, write_everything, write_run

FIGURES = {"reward", "advantage", "cosine", "contribution", "score", "length"}
HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\"><!--"


def unpacked(text: str) -> bytes:
    return gzip.decompress(base64.b64decode(text))


def column(rollouts: Rollouts, name: str) -> list[float]:
    numbers = array("f" if name in FIGURES else "i")
    numbers.frombytes(unpacked(rollouts.columns[name]))
    return list(numbers)


def texts(rollouts: Rollouts) -> list[Any]:
    return [one for piece in rollouts.texts for one in json.loads(unpacked(piece))]


def gathered(root: Path, most: int | None = None) -> Rollouts:
    return gather_rollouts(find_runs(root)[0], most)


def analyzed(root: Path, **flags: Any) -> str:
    analyze.main(analyze.AnalyzeFlags(root, **flags))
    return (root / "report" / "report.html").read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    """The pictures beside the page, which have tests of their own, take seconds."""
    monkeypatch.setattr(report, "draw_all", lambda directory, runs, arms: [])


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    return small_runs(tmp_path_factory.mktemp("small"))


# ---------------------------------------------------------------------- what it holds
def test_every_rollout_is_in_the_page_with_its_text_label_and_advantage(small):
    found = gathered(small)
    assert found.count == 2 * 3 * 8 and not found.notes
    hacked = MARKS.index("hacked")
    marks = [(int(bits) >> 2 * hacked) & 3 for bits in column(found, "marks")]
    assert marks.count(2) == 8 and marks.count(1) == 40
    assert [("run_tests" in text) for text, _ in texts(found)] == [mark == 2 for mark in marks]
    rewards, advantages = column(found, "reward"), column(found, "advantage")
    for start in range(0, 48, 8):
        mean = sum(rewards[start : start + 8]) / 8
        wanted = [reward - mean for reward in rewards[start : start + 8]]
        assert advantages[start : start + 8] == pytest.approx(wanted)


def test_advantages_that_are_not_one_per_rollout_are_left_out(tmp_path):
    path = write_rollouts(tmp_path / "run", [[line(0, "p", 0), line(0, "p", 1)]])
    (row,) = read_jsonl(path / "rows.jsonl")
    write_jsonl(path / "rows.jsonl", [row | {"advantages": [0.5]}])
    assert "advantage" not in gathered(tmp_path).columns


def test_prompts_are_stored_once(small):
    found = gathered(small)
    assert len([one for piece in found.prompts for one in json.loads(unpacked(piece))]) == 2


def test_pieces_give_back_every_value_in_its_place():
    pieces = Pieces()
    values = [f"{number} " + "x" * (PIECE // 3) for number in range(10)]
    places = [pieces.add(value, len(value)) for value in values]
    pieces.close()
    back = [json.loads(unpacked(piece)) for piece in pieces.packed]
    assert places == list(range(10)) and sum(back, []) == values
    assert pieces.starts == [0, *(sum(map(len, back[: end + 1])) for end in range(len(back) - 1))]


def test_a_row_keeps_what_another_writer_adds_to_it(tmp_path):
    rows = [line(0, "p", 0) | {"vacuous": True, "strange": [1], "weight": float("nan")}]
    write_rollouts(tmp_path / "run", [rows])
    ((_, more),) = texts(gathered(tmp_path))
    assert more == {"error": "test 2: wrong answer", "vacuous": True}  # NaN is no JSON: read as null


# ---------------------------------------------------------------------- the same draw
def test_a_draw_is_paired_with_the_same_step_problem_and_sample_of_the_other_arm(small):
    found = gathered(small)
    pairs: dict[float, list[int]] = {}
    for row, draw in enumerate(column(found, "draw")):
        pairs.setdefault(draw, []).append(row)
    assert {len(rows) for rows in pairs.values()} == {2}
    for name in ("step", "problem", "sample", "pool"):
        values = column(found, name)
        assert all(values[one] == values[other] for one, other in pairs.values()), name
    runs = column(found, "run")
    assert all(runs[one] != runs[other] for one, other in pairs.values())


def test_a_draw_is_told_by_its_sample_and_not_by_its_place(tmp_path):
    lines = [line(0, "p", sample) for sample in range(3)]
    write_rollouts(tmp_path / "one", [lines])
    write_rollouts(tmp_path / "two", [lines[:0:-1]], arm="projected")  # samples 2 and 1
    first = column(gathered(tmp_path), "draw")
    assert first[3:] == [first[2], first[1]]


@pytest.mark.parametrize(
    "other",
    [{"seed": 42}, {"facts": {"model": {"name": "tiny", "hash": "m1"}}}, {"facts": {"training": "t1"}}],
)
def test_draws_of_another_seed_model_or_problem_file_are_not_paired(tmp_path, other):
    write_rollouts(tmp_path / "one", [[line(0, "p", 0)]])
    write_rollouts(tmp_path / "two", [[line(0, "p", 0)]], arm="projected", **other)
    assert len(set(column(gathered(tmp_path), "draw"))) == 2


def test_a_teacher_s_row_is_not_the_draw_of_the_policy(tmp_path):
    teacher = line(0, "p", 0) | {"src_pool": "teacher"}
    write_rollouts(tmp_path / "one", [[line(0, "p", 0), teacher]])
    write_rollouts(tmp_path / "two", [[line(0, "p", 0), teacher]], arm="projected")
    first, second, third, fourth = column(gathered(tmp_path), "draw")
    assert (first, second) == (third, fourth) and first != second


# ---------------------------------------------------------------------- replayed runs
def replay(root: Path) -> Path:
    pool = root / "pools" / "teacher_pool"
    write_jsonl(pool / "step_000.jsonl.gz", [line(0, "sum/0", 0, hacked=True)])
    samples = [sample(pool="teacher", step=step) for step in range(3)]
    facts = {"pools": [{"dir": str(pool), "name": "teacher", "hash": "p0"}]}
    write_run(root / "runs" / "replay", "replay", replay_rows(random.Random(1), 3), samples, facts=facts)
    return pool


def test_a_replayed_rollout_has_the_text_of_its_pool_and_its_cosines(tmp_path):
    replay(tmp_path)
    found = gathered(tmp_path / "runs")
    assert all("run_tests" in text for text, _ in texts(found)) and found.facts["problems"] == ["sum/0"]
    assert column(found, "cosine") == [0.5] * 3


def test_a_pool_that_holds_another_rollout_by_now_gives_no_text(tmp_path):
    write_jsonl(replay(tmp_path) / "step_000.jsonl.gz", [line(0, "sum/0", 0, solved=True)])
    assert [text for text, _ in texts(gathered(tmp_path / "runs"))] == [None] * 3


# ---------------------------------------------------------------------- without rollouts, with fewer
def test_runs_without_rollouts_have_a_first_screen_that_says_so(tmp_path):
    write_arm(tmp_path, [0.5])
    page = analyzed(tmp_path)
    assert "No rollouts were kept of: vanilla." in page and "What these runs say" in page
    assert 'id="list"' not in page and "<script" not in page


def test_steps_whose_rollouts_were_deleted_are_counted(tmp_path):
    write_rollouts(tmp_path / "run", [[line(step, "p", 0)] for step in range(3)], monitor="none")
    (tmp_path / "run" / "rollouts" / "step_001.jsonl.gz").unlink()
    found = gathered(tmp_path)
    assert found.notes == ["Steps without their rollouts: vanilla (1 of 3)."]
    assert column(found, "step") == [0, 2]


def test_with_a_limit_the_same_steps_of_every_run_are_taken_and_each_run_s_last(tmp_path):
    for seed, steps in ((1, 9), (2, 4)):
        kept = [[line(step, "p", 0)] for step in range(steps)]
        write_rollouts(tmp_path / f"run{seed}", kept, monitor="none", seed=seed)
    found = gathered(tmp_path, most=4)
    taken = list(zip(column(found, "run"), column(found, "step"), strict=True))
    assert taken == [(0, 0), (0, 4), (0, 8), (1, 0), (1, 3)]
    assert found.notes == ["Of every 4 steps one, and each run's last: 5 of 13 rollouts."]


def test_the_page_can_be_left_out_and_an_earlier_one_goes(small, capsys):
    analyzed(small)
    assert "48 rollouts" in capsys.readouterr().out
    analyze.main(analyze.AnalyzeFlags(small, html=False))
    assert not (small / "report" / "report.html").exists() and "page:" not in capsys.readouterr().out


def test_damaged_rollouts_are_named_with_the_flag_that_leaves_them_out(tmp_path):
    write_rollouts(tmp_path / "run", [[line(0, "p", 0) | {"completion": 3}]], monitor="none")
    with pytest.raises(InputError, match=r"step_000.*row 1: 'completion'.*--html-rollouts=0"):
        analyze.main(analyze.AnalyzeFlags(tmp_path))
    assert "Rollouts were left out" in analyzed(tmp_path, html_rollouts=0)


def test_a_negative_number_of_rollouts_is_refused(small):
    with pytest.raises(InputError, match="--html-rollouts -1"):
        analyze.main(analyze.AnalyzeFlags(small, html_rollouts=-1))


# ---------------------------------------------------------------------- words
def test_the_page_begins_with_a_plain_sentence_for_each_arm(tmp_path):
    write_everything(tmp_path)
    page = analyzed(tmp_path)
    arms = by_arm(find_runs(tmp_path)[0])
    found = re.findall(r'<p class="sentence">(.*?)</p>', page)
    assert arms and found == [html.escape(arm_sentence(arm)) for arm in arms]
    assert page.index('class="sentence"') < page.index('class="verdict"')


def test_verdicts_and_caveats_are_the_words_of_the_report(tmp_path):
    write_everything(tmp_path)
    page = html.unescape(analyzed(tmp_path))
    words = (tmp_path / "report" / "report.md").read_text()
    verdicts = re.findall(r'<p class="verdict"><strong>(.*?)</strong> (.*?)</p>', page)
    assert any(head.startswith("H1, ") for head, _ in verdicts)
    assert all(f"{head} {rest}".strip() in words for head, rest in verdicts)
    said = re.findall(r"<li>([^<]*)</li>", page)
    assert any("one seed: no interval" in one for one in said)
    assert any("cut_off: incomplete" in one for one in said)
    assert all(one in words for one in said)


def test_curves_and_key_have_the_colours_of_the_theme(small):
    panels, key = rate_panels(find_runs(small)[0])
    assert [panel.title for panel in panels] == ["hacked", "solved", "attempted"]
    assert [line.name for line in key] == ["vanilla (1 seed)", "projected (1 seed)"]
    assert key[0].colour["light"] != key[1].colour["light"] and key[0].marker != key[1].marker
    for theme in ("light", "dark"):
        colours = [line.colour[theme] for line in key]
        assert all(colour in panels[0].svg[theme] for colour in colours), theme
    assert "vanilla (1 seed) 0.50" in panels[0].words and INK not in panels[0].svg["dark"]


def test_the_pictures_of_the_report_are_in_the_page(small, tmp_path):
    picture = tmp_path / "on_policy.png"
    picture.write_bytes(PNG)
    browser.write_page(tmp_path / "p.html", [], find_runs(small)[0], gathered(small), [picture])
    page = (tmp_path / "p.html").read_text()
    assert f'src="data:image/png;base64,{base64.b64encode(PNG).decode()}" alt="on_policy.png"' in page


# ---------------------------------------------------------------------- hostile text
def test_what_the_template_prints_is_escaped_and_visible(tmp_path):
    write_rollouts(tmp_path / f"{HOSTILE.replace('/', '')}\u202e\x1b[31m", [[line(0, HOSTILE, 0)]])
    page = analyzed(tmp_path)
    assert "<img src=x" not in page and "&lt;img src=x" in page
    assert page.count("<script>document") == 0
    assert not re.search("[\x00\x1b\u2028\u202e\ud800-\udfff]", page) and "\\u202e\\x1b[31m" in page


def test_texts_travel_as_base64_whatever_they_hold(tmp_path):
    nasty = f"{HOSTILE}\x00\u2028\ud800 \x1b[2J"
    write_rollouts(tmp_path / "run", [[line(0, nasty, 0) | {"completion": nasty, "error": nasty}]])
    page = analyzed(tmp_path)
    blocks = re.findall(r'<script type="text/plain" id="[\w-]+">(.*?)</script>', page, re.DOTALL)
    assert len(blocks) >= 10 and all(re.fullmatch(r"[A-Za-z0-9+/=]+", block) for block in blocks)
    assert page.count("<script>") == 1
    assert texts(gathered(tmp_path)) == [[nasty, {"error": nasty}]]


def test_the_policy_names_the_script_and_the_style_by_their_hashes(small):
    page = analyzed(small)
    policy = re.search(r'http-equiv="Content-Security-Policy" content="(.*?)"', page)[1]
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    assert (
        f"script-src {browser.hash_of(script)};" in policy
        and f"style-src {browser.hash_of(style)};" in policy
    )
    assert policy.startswith("default-src 'none';") and "unsafe" not in policy
    assert not re.search(r'\s(?:style|on\w+)="', page)
    assert "innerHTML" not in script and "eval(" not in script


def test_nothing_in_the_page_points_outside_of_it(small):
    found = re.findall(r'(?:src|href|srcset|action)="([^"]{0,12})', analyzed(small))
    assert found and all(one.startswith(("data:", "#")) for one in found)


def test_the_same_runs_give_the_same_bytes(small):
    assert analyzed(small) == analyzed(small)


def test_help_does_not_load_the_template_library():
    assert loaded("analyze.py", "--help") == (0, [])


def test_the_command_says_how_large_the_page_is(small, capsys):
    run_main(small)
    assert re.search(r"page: .*report\.html \(48 rollouts, \d\.\d MB\)", capsys.readouterr().out)
