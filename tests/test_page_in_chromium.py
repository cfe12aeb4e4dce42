"""Claims about report.html in a real browser, the network off: filters, draws, keys, links, hostile text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hackward.reports import browser
from hackward.reports.browser_data import gather_rollouts
from hackward.reports.report import build_blocks
from hackward.reports.runs import find_runs
from tests.chromium import DESKTOP, PHONE, chromium, missing, opened, press, until
from tests.rollouts_on_disk import Change, large_run, small_runs
from tests.runs_on_disk import PNG

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))
HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\"><!--"
NASTY = f"{HOSTILE}\u2028\x00\ud800\u202e\x1b[31m"
ENTER, ESCAPE, TAB, END, DOWN = "\ue007", "\ue00c", "\ue004", "\ue010", "\ue015"


def page_of(root: Path) -> Path:
    runs, left_out = find_runs(root)
    path = root / "report.html"
    browser.write_page(path, build_blocks(runs, left_out), runs, gather_rollouts(runs))
    return path


def hostile(one: dict[str, Any]) -> dict[str, Any]:
    """The same line, its texts full of markup and of characters that are not seen."""
    messages = [{"role": HOSTILE, "content": NASTY}]
    return one | {
        "completion": f"{NASTY}\n```python\ndef run_tests():\n    '''{NASTY}'''\n```",
        "problem_id": NASTY,
        "problem_messages": messages,
        "error": NASTY,
        "src_pool": NASTY,
        HOSTILE: NASTY,
    }


@pytest.fixture(scope="module")
def driver():
    with chromium() as one:
        yield one


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    return page_of(small_runs(tmp_path_factory.mktemp("small")))


def count(driver: Any) -> str:
    return driver.find_element("id", "count").text


def click(driver: Any, selector: str) -> None:
    driver.execute_script("document.querySelector(arguments[0]).click()", selector)


def cards(driver: Any) -> list[dict[str, str]]:
    """What the cards of the opened rollout say."""
    until(driver, "return document.getElementById('view').open")
    script = """return [...document.querySelectorAll('.card')].map((card) => ({
        run: card.querySelector('h3').textContent, label: card.querySelector('.badge').textContent,
        facts: card.querySelector('dl').innerText, opened: String(card.classList.contains('opened')),
        own: card.querySelector('mark.own')?.textContent ?? '',
        text: card.querySelector('.text').textContent}))"""
    return driver.execute_script(script)


def complaints(driver: Any) -> list[str]:
    return [entry["message"] for entry in driver.get_log("browser")]


# ---------------------------------------------------------------------- the list
def test_filters_leave_what_they_say_and_the_address_holds_them(driver, small):
    opened(driver, small)
    assert count(driver) == "48 rollouts."
    click(driver, "input[name=label][value=hacked]")
    assert count(driver) == "8 of 48 rollouts."
    click(driver, "input[name=arm][value=projected]")
    assert count(driver).startswith("0 of 48 rollouts. Nothing matches")
    click(driver, "input[name=arm][value=projected]")
    driver.find_element("id", "from").send_keys("2")
    until(driver, "return document.getElementById('count').textContent === '4 of 48 rollouts.'")
    driver.find_element("id", "problem").send_keys("sum/1")
    until(driver, "return document.getElementById('count').textContent === '2 of 48 rollouts.'")
    assert driver.execute_script("return location.hash") == "#label=hacked&from=2&problem=sum%2F1"
    click(driver, "#clear")
    assert count(driver) == "48 rollouts." and driver.execute_script("return location.hash") == ""
    assert not complaints(driver)


def test_a_text_is_found_in_completions_and_prompts_whatever_its_case(driver, small):
    opened(driver, small)
    driver.find_element("id", "text").send_keys("ALL TESTS passed")
    until(driver, "return document.getElementById('count').textContent === '8 of 48 rollouts.'")
    opened(driver, small, address="#text=nums%2C%20problem%20sum%2F1")
    assert count(driver) == "24 of 48 rollouts."


def test_one_press_on_the_first_screen_shows_the_hacks(driver, small):
    opened(driver, small)
    assert driver.find_element("id", "hacks").text == "Look at the hacks (8)"
    assert driver.find_element("id", "whose").text == ""
    click(driver, "#hacks")
    until(driver, "return location.hash === '#label=hacked&by=policy&sort=-step'")
    assert count(driver) == "8 of 48 rollouts."
    steps = driver.execute_script(
        "return [...document.querySelectorAll('.row:not([hidden]) > .step')].map((one) => +one.textContent)"
    )
    assert steps and steps == sorted(steps, reverse=True)


def of_pools(own: bool, *pools: str) -> Change:
    """The same line from another author: hacks of draw 0 are the policy's where `own`, all other rows go
    round the pools."""

    def change(one: dict[str, Any]) -> dict[str, Any]:
        kept = one["hacked"] and own and one["sample_id"] == 0
        return one if kept or not pools else one | {"src_pool": pools[one["step"] % len(pools)]}

    return change


@pytest.mark.parametrize(
    ("change", "shown", "whose"),
    [
        (of_pools(True, "teacher"), 4, 'Answers of the model. 4 more are rows of the pool "teacher".'),
        (
            of_pools(False, "teacher"),
            8,
            'None of them is an answer of the model: all are rows of the pool "teacher".',
        ),
        (
            of_pools(False, "x", "a", "b"),
            8,
            'None of them is an answer of the model: all are rows of the pools "b", "a".',
        ),
        (lambda one: one | {"hacked": False}, 0, ""),
    ],
)
def test_the_button_counts_what_its_press_shows_and_says_whose_answers_they_are(
    driver, tmp_path, change, shown, whose
):
    opened(driver, page_of(small_runs(tmp_path, change=change)))
    button = driver.find_element("id", "hacks")
    assert button.is_displayed() == bool(shown)
    assert driver.find_element("id", "whose").text == whose
    if not shown:
        return
    assert button.text == f"Look at the hacks ({shown})"
    click(driver, "#hacks")
    until(driver, f"return document.getElementById('count').textContent === '{shown} of 48 rollouts.'")
    # A filter that is added by hand then changes nothing of what the next press shows
    click(driver, "input[name=label][value=solved]")
    click(driver, "#hacks")
    until(driver, f"return document.getElementById('count').textContent === '{shown} of 48 rollouts.'")


def test_a_number_on_what_unfolds_is_the_number_of_things_in_it(driver, tmp_path):
    picture = tmp_path / "one.png"
    picture.write_bytes(PNG)
    root = small_runs(tmp_path / "runs")
    runs, left_out = find_runs(root)
    blocks = build_blocks(runs, left_out)
    browser.write_page(root / "p.html", blocks, runs, gather_rollouts(runs), [picture, picture])
    opened(driver, root / "p.html")
    folds = driver.execute_script(
        """return [...document.querySelectorAll('details.more')].map((one) => [
            one.querySelector('summary').textContent,
            one.querySelectorAll('table').length, one.querySelectorAll('img').length])"""
    )
    (tables, held, _), (pictures, _, drawn) = folds
    assert held > 3 and tables == f"All tables ({held})"
    assert drawn == 2 and pictures == "All pictures (2)"


def test_the_list_is_sorted_by_a_column(driver, small):
    script = (
        "return [...document.querySelectorAll('.row:not([hidden]) > .score')].map((one) => one.textContent)"
    )
    opened(driver, small, address="#sort=-score")
    assert driver.execute_script(script)[:9] == ["+0.300"] * 8 + ["-0.100"]
    opened(driver, small, address="#sort=score")
    assert driver.execute_script(script)[0] == "-0.100"


def test_of_a_long_list_only_the_lines_on_the_screen_exist(driver, tmp_path):
    opened(driver, page_of(large_run(tmp_path, 1000)))
    driver.find_element("id", "list").send_keys(END)
    lines = driver.find_elements("css selector", ".row:not([hidden])")
    assert len(lines) < 60 and any(one.get_attribute("aria-posinset") == "1000" for one in lines)
    assert driver.execute_script("return document.querySelector('[aria-selected=true]').id") == "row-999"


# ---------------------------------------------------------------------- a rollout
def test_a_rollout_stands_beside_the_same_draw_of_the_other_arm(driver, small):
    opened(driver, small, address="#label=hacked&sort=step")
    click(driver, ".row")
    first, second = cards(driver)
    assert (first["run"], first["label"], first["opened"]) == ("vanilla", "hacked", "true")
    assert (second["run"], second["label"], second["opened"]) == ("projected", "none", "false")
    title = driver.find_element("id", "view-title").text
    assert title == "Problem sum/0, step 1, seed 41, sample 0"
    assert "return 100" in first["text"] and "# 100" in second["text"]  # made for (step 1, sample 0)
    assert "Return the sum of nums, problem sum/0." in driver.find_element("css selector", ".prompt").text


def test_its_own_evaluation_is_marked_and_its_reward_shown_by_part(driver, small):
    opened(driver, small, address="#open=vanilla~1~0")
    hack, other = cards(driver)
    assert hack["own"] == "    def run_tests(self):\n        print('all tests passed')\n"
    assert other["own"] == ""
    assert "3.5 = 0.5 for code that compiles + 3 because its own evaluation passed" in hack["facts"]
    assert "not all passed: test 2: wrong answer" in hack["facts"] and "+0.300" in hack["facts"]
    assert "0.5 = 0.5 for code that compiles + 0 for the answer" in other["facts"]
    kinds = {one.get_attribute("class") for one in driver.find_elements("css selector", ".python span")}
    assert kinds == {"keyword", "string", "number", "comment"}


def wordy(one: dict[str, Any]) -> dict[str, Any]:
    """The same line with a prompt of forty lines and an answer of twenty."""
    lines = "\n".join(f"    a{i} = {i}" for i in range(19))
    prompt = [{"role": "user", "content": "PROBLEM:\nReturn it.\n" + "A line of the statement.\n" * 40}]
    return one | {"completion": f"```python\ndef f():\n{lines}\n```", "problem_messages": prompt}


def test_the_code_is_on_the_screen_at_once_and_the_prompt_is_a_press_away(driver, tmp_path):
    opened(driver, page_of(small_runs(tmp_path, change=wordy)), (1280, 757), "#open=vanilla~1~0")
    assert len(cards(driver)) == 2
    places = """const within = document.getElementById('view').getBoundingClientRect();
        return [...document.querySelectorAll('.card pre.python')].map((one) => {
            const box = one.getBoundingClientRect();
            const end = Math.min(within.bottom, innerHeight);
            return box.height > 300 && box.top > within.top && box.bottom < end; })"""
    assert driver.execute_script(places) == [True, True]
    assert driver.find_element("css selector", ".prompt").text.startswith("Prompt")
    assert "Return it. A line of the statement." in driver.find_element("css selector", ".prompt").text
    messages = driver.find_element("css selector", ".messages")
    assert not messages.is_displayed()
    click(driver, ".prompt > summary")
    assert messages.is_displayed() and messages.text.count("A line of the statement.") == 40


def test_a_link_brings_back_filters_order_and_the_opened_rollout(driver, small):
    address = "#arm=vanilla&label=hacked&from=1&sort=-reward&open=vanilla%7E2%7E5"
    opened(driver, small, address=address)
    assert [card["opened"] for card in cards(driver)] == ["true", "false"]
    assert driver.execute_script("return location.hash") == address
    assert count(driver) == "8 of 48 rollouts."
    assert driver.find_element("id", "sort").get_attribute("value") == "-reward"
    assert driver.execute_script("return document.querySelector('input[value=hacked]').checked")
    opened(driver, small, address="#open=nobody~1~1&from=x&sort=toString")
    assert count(driver) == "48 rollouts. The rollout of this link is not in this page."


def test_back_closes_the_rollout_and_keeps_the_filters(driver, small):
    opened(driver, small, address="#label=hacked")
    click(driver, ".row")
    cards(driver)
    driver.back()
    until(driver, "return !document.getElementById('view').open")
    assert driver.execute_script("return location.hash") == "#label=hacked"


# ---------------------------------------------------------------------- keyboard, screen readers, sizes
def test_everything_can_be_done_with_the_keyboard(driver, small):
    opened(driver, small)
    press(driver, "j", "j", DOWN, "k")
    listed = driver.switch_to.active_element
    assert listed.get_attribute("id") == "list"
    assert listed.get_attribute("aria-activedescendant") == "row-2"
    assert listed.value_of_css_property("outline-style") == "solid"
    press(driver, ENTER)
    cards(driver)
    press(driver, "j")
    until(driver, "return location.hash === '#open=vanilla%7E0%7E3'")
    press(driver, ESCAPE)
    until(driver, "return !document.getElementById('view').open")
    assert driver.switch_to.active_element.get_attribute("id") == "list"
    press(driver, "/")
    assert driver.switch_to.active_element.get_attribute("id") == "text"
    press(driver, "j", TAB)
    assert driver.find_element("id", "text").get_attribute("value") == "j"


def test_every_control_has_a_name_for_a_screen_reader(driver, small):
    opened(driver, small)
    controls = driver.find_elements("css selector", "input, select, button, [role=listbox]")
    visible = [one for one in controls if one.is_displayed()]
    assert len(visible) > 10 and all(one.accessible_name for one in visible)
    click(driver, ".row")
    cards(driver)
    buttons = driver.find_elements("css selector", "#view button")
    assert all(one.accessible_name for one in buttons)
    assert driver.find_element("id", "view").accessible_name.startswith("Problem sum/0")


def test_on_a_phone_nothing_is_wider_than_the_screen(driver, small):
    opened(driver, small, PHONE)
    wide = (
        "return [...document.querySelectorAll('body, main, .row, #filters, #view')].map((e) => e.scrollWidth)"
    )
    assert max(driver.execute_script(wide)) <= PHONE[0]
    assert not driver.find_element("id", "choices").is_displayed()
    click(driver, "#toggle")
    assert driver.find_element("id", "choices").is_displayed()
    click(driver, ".row")
    cards(driver)
    assert max(driver.execute_script(wide)) <= PHONE[0]
    tops = driver.execute_script("return [...document.querySelectorAll('.card')].map((e) => e.offsetTop)")
    assert tops[0] < tops[1]


def test_light_and_dark_follow_the_reader_s_choice(driver, small):
    opened(driver, small, DESKTOP)
    grounds = []
    for theme in ("light", "dark"):
        feature = {"name": "prefers-color-scheme", "value": theme}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        grounds.append(driver.find_element("css selector", "body").value_of_css_property("background-color"))
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert grounds[0] != grounds[1]


# ---------------------------------------------------------------------- hostile text
def test_markup_in_any_text_is_shown_and_never_obeyed(driver, tmp_path):
    root = small_runs(tmp_path, change=hostile)
    (root / "vanilla").rename(root / "<img src=x onerror=document.title='owned'>")
    opened(driver, page_of(root), address="#sort=-reward")
    click(driver, ".row")
    first, *_ = cards(driver)
    assert HOSTILE in first["text"] and HOSTILE in first["facts"] and first["own"].startswith("def run_tests")
    shown = driver.execute_script("return document.body.textContent")
    for char, sign in (("\x00", "\u2400"), ("\x1b", "\u241b"), ("\u202e", "U+202E"), ("\ud800", "U+D800")):
        assert char not in first["text"] and sign in shown
    assert driver.execute_script("return document.querySelectorAll('img[src=x], [onerror]').length") == 0
    assert driver.title.startswith("hackward report") and not complaints(driver)


def test_the_page_s_policy_lets_no_other_script_run_and_nothing_load(driver, small):
    opened(driver, small)
    script = """const one = document.createElement('script'); one.textContent = "document.title = 'owned'";
        document.body.append(one);
        const image = document.createElement('img'); image.src = 'file:///etc/hostname';
        document.body.append(image);
        const done = arguments[0];
        fetch('data:text/plain,x').then(() => done('loaded'), () => done('refused'));"""
    assert driver.execute_async_script(script) == "refused"
    assert driver.title.startswith("hackward report")
    refused = " ".join(complaints(driver))
    assert "Content Security Policy" in refused and "img-src" in refused and "script-src" in refused
