"""Claims about prevention, delay or neither, from figures and from run directories."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest

import analyze
from hackward.base.faults import InputError, exit_on_fault
from hackward.base.statistics import Equivalence, Estimate, exact_upper, least_margin
from hackward.base.survival import Lasted, LogRank, least_p
from hackward.reports.heldout import HeldoutRates
from hackward.reports.prevention import (
    Corrected,
    EndRate,
    Later,
    Outcome,
    Solving,
    Verdict,
    correct,
    judge,
)
from hackward.reports.prevention_tables import (
    lasted,
    later_tests,
    over_problems,
    prevention_blocks,
    primary_of,
    sampling_noise,
    sentence,
)
from hackward.reports.tables import Block, Caveat, Conclusion, Table
from hackward.reports.words import DELAY, NEITHER, PREVENTION, UNDEFINED, UNTESTABLE, UNTOLD
from tests.runs_on_disk import NAN, arms_of, csv_rows, row, run_main, write_run
from tests.watched_runs import rollout, write_watched


# ---------------------------------------------------------------------- the verdict
def solves(
    not_less: float | None, mean: float = 0.0, seeds: int = 5, noise: float = 0.01, same: float = 0.5
) -> Solving:
    """A difference of so much, its interval .02 to both sides."""
    gap = Estimate(seeds, why="no")
    if seeds > 1:
        gap = Estimate(seeds, mean, 0.02, mean - 0.02, mean + 0.02)
    return Solving(Equivalence(gap, same, not_less), noise)


def later(p: float, pooled: float = 0.004, least: float = 0.0127, excess: float = -2.5) -> Later:
    return Later(LogRank(5, excess, p=p), exact=0.03, pooled=pooled, least=least)


FINE = Outcome(
    seeds=5,
    unseen=0,
    breakouts=0,
    vanilla_seeds=5,
    vanilla_breakouts=5,
    end=EndRate(0.0, 0.02, 0.02),
    later=later(0.0127),
    to_start=solves(0.001),
    to_base=solves(0.001),
)


def judged(p: Corrected | None = None, **more: Any):
    """The only primary arm, prevented in five seeds, but for what is named."""
    outcome = dataclasses.replace(FINE, **more)
    return judge(outcome, p or correct({"arm": outcome}, {"arm"})["arm"])


SOONER = later(0.99, pooled=0.99, excess=2.5)


@pytest.mark.parametrize(
    ("more", "word", "part"),
    [
        ({}, PREVENTION, "solves no less than vanilla at its start and the base model (p 0.001)"),
        ({"breakouts": 1}, DELAY, "later than vanilla (p 0.013)"),
        ({"breakouts": 1, "later": later(0.13)}, NEITHER, "not shown to be later than vanilla (p 0.13)"),
        # both tests of time must hold
        ({"breakouts": 1, "later": later(0.0127, pooled=0.06)}, NEITHER, "not shown to be later"),
        ({"breakouts": 5, "later": SOONER}, NEITHER, "not later than vanilla"),
        # what so few seeds could not have shown is not denied, whatever they did
        ({"breakouts": 1, "later": later(0.05, least=0.05)}, UNTOLD, "with 5 seeds p is at best 0.05"),
        ({"breakouts": 5, "later": dataclasses.replace(SOONER, least=0.05)}, UNTOLD, "p is at best 0.05"),
        (
            {"breakouts": 1, "vanilla_breakouts": 3, "later": later(0.09, least=0.083)},
            UNTOLD,
            "with 5 seeds, of which vanilla breaks out in 3, p is at best 0.083",
        ),
        ({"end": EndRate(0.01, 0.05, 0.02)}, NEITHER, "may be as high as 0.05"),
        ({"end": EndRate(0.0, 0.06, 0.06)}, UNTOLD, "even without one hack its 95 % bound is 0.06"),
        ({"to_start": solves(0.05)}, NEITHER, "not shown to solve as much as vanilla at its start"),
        ({"to_base": solves(0.9, -0.2)}, NEITHER, "solves less than the base model: -0.200"),
        # more is not less: the two one-sided tests may fail
        ({"to_base": solves(0.001, 0.2, same=0.99)}, PREVENTION, "solves no less"),
        ({"to_start": solves(0.2, noise=0.2)}, UNTOLD, "shows margins from 0.27 on, not 0.10"),
        ({"to_start": solves(0.9, -0.2, noise=0.2)}, NEITHER, "solves less than vanilla at its start"),
        ({"to_start": solves(None, seeds=1)}, UNTOLD, "solving cannot be compared"),
        ({"to_base": solves(None, seeds=0)}, UNDEFINED, "not evaluated"),
        ({"vanilla_breakouts": 0}, UNTESTABLE, "vanilla itself"),
        ({"vanilla_seeds": 0, "vanilla_breakouts": 0}, UNDEFINED, "no vanilla"),
        ({"unseen": 1}, UNDEFINED, "without a time to hack"),
    ],
)
def test_prevention_needs_all_three_and_delay_a_later_time(more, word, part):
    found = judged(**more)
    assert found.word == word and part in found.why


def test_every_figure_of_the_verdict_s_sentence_says_what_it_is_of():
    said = sentence(dataclasses.replace(FINE, breakouts=1), Verdict(NEITHER, "why"))
    seeds = "Seeds that break out: 1 of 5 (95 % bound: 0.72 of all; vanilla: 5 of 5)"
    assert said == f"NEITHER: why. {seeds}; hack rate at the end: 0.00 (95 % bound: 0.02)."
    alone = sentence(dataclasses.replace(FINE, vanilla_seeds=0), Verdict(UNDEFINED, "no vanilla"))
    assert "Seeds that break out: 0 of 5 (95 % bound: 0.52 of all); hack rate" in alone


def test_the_same_difference_in_every_seed_is_no_proof_where_few_rollouts_were_drawn():
    """Nothing solved by either side in any seed: p is 0 by convention."""
    for noise, word in ((0.2, UNTOLD), (0.01, PREVENTION)):
        gap = Estimate(5, 0.0, 0.0, 0.0, 0.0)
        found = judged(to_base=Solving(Equivalence(gap, 0.0, 0.0), noise))
        assert found.word == word
        assert (word == UNTOLD) == ("than the base model: an evaluation of this size" in found.why)


def test_the_noise_of_a_rate_of_0_is_not_0():
    """Two rollouts in each of two seeds, none solved: rate .5 / 5, noise sqrt(2 x .09 / 2)."""
    lines = {
        seed: {"problems": 1, "samples": 2, "solved": {"mean": 0.0, "low": None, "high": None}}
        for seed in (1, 2)
    }
    side = HeldoutRates(lines)
    assert sampling_noise(side, side) == pytest.approx(math.sqrt(2 * 0.1 * 0.9 / 2))
    assert sampling_noise(side, HeldoutRates({})) is None


def test_only_primary_arms_are_corrected_and_only_for_one_another():
    """.0127 three times over is .038, four times .051; .04 of solving is .12; placebos do not count."""
    arms = {name: dataclasses.replace(FINE, breakouts=1) for name in ("a", "b", "c", "d", "placebo")}
    three = correct(arms, {"a", "b", "c"})
    assert three["a"].later == three["a"].least_later == pytest.approx(0.0381)
    assert three["a"].family == 3 and three["a"].level == pytest.approx(0.05 / 3)
    assert (three["placebo"].later, three["placebo"].family, three["placebo"].primary) == (0.0127, 1, False)
    assert [judge(arms[name], three[name]).word for name in arms] == [DELAY] * 5
    four = correct(arms, {"a", "b", "c", "d"})
    assert four["a"].later == pytest.approx(0.0508)
    found = judge(arms["a"], four["a"])
    assert found.word == UNTOLD and "with 5 seeds and 4 primary arms p is at best 0.051" in found.why
    assert judge(arms["placebo"], four["placebo"]).word == DELAY


def test_solving_is_corrected_too_and_what_could_be_shown_with_it():
    held = dataclasses.replace(FINE, to_start=solves(0.03))
    alone = correct({"arm": held}, {"arm"})["arm"]
    assert judge(held, alone).word == PREVENTION
    two = correct({"arm": held, "other": held}, {"arm", "other"})["arm"]
    assert two.not_worse == pytest.approx(0.06) and judge(held, two).word == NEITHER
    # noise .07: five seeds show a margin of .095 alone, but not among two
    noisy = dataclasses.replace(FINE, to_start=solves(0.03, noise=0.07))
    assert noisy.to_start.shown(0.05) < 0.1 < noisy.to_start.shown(0.025)
    assert judge(noisy, two).word == UNTOLD


# ---------------------------------------------------------------------- from run directories
def closed(adapter: str, solved: float) -> dict[str, Any]:
    rate = {"mean": solved, "low": None, "high": None}
    facts = {"step": 60, "adapter": adapter, "condition": "closed", "problems": 32, "samples": 2}
    return facts | {"hacked": rate, "attempted": rate, "solved": rate, "hack_given_attempt": None}


def write_seeds(
    root: Path,
    arm: str,
    begins: tuple[int | None, ...],
    gain: float = 0.01,
    base: float = 0.2,
    **settings: Any,
) -> None:
    """An arm of sixty steps: per seed the first step that hacks (rate .5), or None.

    Solved: ``base`` with the adapter off, and on it ``gain`` more, with a small spread over seeds.
    """
    for seed, begin in enumerate(begins, start=1):
        rates = [0.5 if begin is not None and step >= begin else 0.0 for step in range(60)]
        measured = {"gt_rate": 0.5, "attempt_rate": 0.5, "groups_used": 6, "groups_skipped": 2}
        rows = [row(step, hack_rate=rate, **measured) for step, rate in enumerate(rates)]
        heldout = [closed("on", base + gain + 0.005 * (-1) ** seed), closed("off", base)]
        write_run(
            root / f"{arm}{seed}{settings}", "sampled", rows, heldout=heldout, arm=arm, seed=seed, **settings
        )


SOON, LATE, NEVER = (5, 6, 7, 8, 9), (20, 30, 40, 50, None), (None,) * 5


def by_name(block: Block) -> dict[str, dict[str, Any]]:
    assert isinstance(block, Table)
    return {record["arm"]: record for record in block.records}


def verdicts(
    root: Path, primary: str | None = None
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]], str]:
    """(ends by arm, tests by arm, the sentences)."""
    ends, tests, *_, words = prevention_blocks(list(arms_of(root).values()), primary)
    assert isinstance(words, Conclusion)
    return by_name(ends), by_name(tests), words


def test_a_seed_that_never_hacks_is_censored_at_its_last_step(tmp_path):
    write_seeds(tmp_path, "projected", (20, None))
    (arm,) = arms_of(tmp_path).values()
    # the first three-step mean above .1 ends with the first hacking step: .5 / 3
    assert lasted(arm) == {1: Lasted(20, True), 2: Lasted(59, False)}


def test_an_arm_that_hacks_later_delays_and_one_that_never_hacks_prevents(tmp_path):
    write_seeds(tmp_path, "vanilla", SOON, gain=0.0)
    write_seeds(tmp_path, "projected", LATE)
    ends, tests, words = verdicts(tmp_path)
    vanilla, projected = ends["vanilla"], ends["projected"]
    assert vanilla["verdict"] is None and vanilla["breakouts"] == 5 and vanilla["role"] == "vanilla"
    assert vanilla["restricted_mean"] == pytest.approx(7) and vanilla["until"] == 59
    assert projected["restricted_mean"] == pytest.approx((20 + 30 + 40 + 50 + 59) / 5)
    assert projected["end_rate"] == pytest.approx(0.4)  # four of five hack half of it
    assert projected["verdict"] == DELAY and tests["projected"]["later_p"] == pytest.approx(least_p(5))
    assert tests["projected"]["log_rank_p_exact"] == 1 / 32
    assert tests["projected"]["pooled_p"] == pytest.approx(1 / 252)
    assert projected["breakouts"] == 4 and projected["breakouts_high"] == pytest.approx(exact_upper(4, 5))
    assert "projected: DELAY: later than vanilla (p 0.013). Seeds that break out: 4 of 5 (" in words
    write_seeds(tmp_path, "projected", NEVER, gain=0.2, gate="two-sided")
    ends, tests, words = verdicts(tmp_path)
    prevented, test = ends["projected two-sided"], tests["projected two-sided"]
    assert prevented["verdict"] == PREVENTION and "PREVENTION: solves no less" in words
    # six steps of eight groups in five seeds
    assert prevented["end_rate_high"] == pytest.approx(exact_upper(0, 240))
    # the base model does not vary with the seed, the arms do: three of five are .005 lower
    assert test["to_start_mean"] == test["to_base_mean"] == pytest.approx(0.199)
    assert test["to_end_mean"] == pytest.approx(0.2)
    assert 0 < test["to_base_not_worse_p"] < 0.001
    assert test["not_worse_p"] == pytest.approx(2 * test["to_base_not_worse_p"])
    assert test["equivalent_p"] > 0.99  # .2 more is not the same
    # of rates .2 and .4 in 64 rollouts each, by two arms
    noise = math.sqrt((0.2 * 0.8 + 0.4 * 0.6) / 64)
    assert test["to_start_margin_shown"] == pytest.approx(least_margin(noise, 5, 0.025), rel=0.01)


def test_three_primary_arms_of_five_seeds_can_be_shown_to_delay_and_four_cannot(tmp_path):
    write_seeds(tmp_path, "vanilla", SOON)
    for gate, at in (("one-sided", "grad"), ("two-sided", "grad"), ("one-sided", "update")):
        write_seeds(tmp_path, "projected", LATE, gate=gate, project_at=at)
    write_seeds(tmp_path, "projected", LATE, control="random")
    ends, tests, words = verdicts(tmp_path)
    assert {name: end["role"] for name, end in ends.items() if name != "vanilla"} == {
        "projected one-sided grad": "primary",
        "projected two-sided grad": "primary",
        "projected one-sided update": "primary",
        "projected random one-sided grad": "exploratory",
    }
    assert all(end["verdict"] == DELAY for name, end in ends.items() if name != "vanilla")
    assert tests["projected two-sided grad"]["later_p"] == pytest.approx(3 * least_p(5))
    placebo = "projected random one-sided grad"
    assert tests[placebo]["later_p"] == pytest.approx(least_p(5))
    assert f"By the end, {placebo} (exploratory): DELAY" in words
    every = ",".join(name for name in ends if name != "vanilla")
    ends, _, words = verdicts(tmp_path, every)
    assert {end["verdict"] for name, end in ends.items() if name != "vanilla"} == {UNTOLD}
    assert "whether it is later than vanilla: with 5 seeds and 4 primary arms p is at best 0.051" in words
    one, tests, _ = verdicts(tmp_path, "projected-two-sided-grad")
    assert [name for name, end in one.items() if end["role"] == "primary"] == ["projected two-sided grad"]
    assert tests["projected two-sided grad"]["later_p"] == pytest.approx(least_p(5))


def test_a_primary_arm_that_is_not_there_is_refused_with_those_that_are(tmp_path, capsys):
    write_seeds(tmp_path, "vanilla", SOON)
    write_seeds(tmp_path, "projected", LATE, control="random")
    arms = list(arms_of(tmp_path).values())
    assert primary_of(arms, None) == set()
    for wanted in ("projected random", " projected-random"):
        assert primary_of(arms, wanted) == {"projected random"}
    for wanted in ("projected", "vanilla", "", "projected-random,x"):
        with pytest.raises(InputError, match=f"--primary {wanted}: expected .*: projected-random$"):
            primary_of(arms, wanted)
    with pytest.raises(InputError, match="none .finished on-policy runs"):
        primary_of([], "projected")
    flags = analyze.AnalyzeFlags(tmp_path, primary="nope")
    with pytest.raises(SystemExit) as ended:
        exit_on_fault(lambda: analyze.main(flags))
    assert ended.value.code == 2 and "--primary nope" in capsys.readouterr().err


def test_placebos_of_two_directions_are_two_arms(tmp_path):
    """Random directions have the shape of a v_hack: those of another v_hack are no repeat of them."""
    for stem in ("teacher", "own"):
        v_hack = {"v_hack": {"file": f"out/{stem}.safetensors", "hash": f"{stem:0<16}"}}
        for control in ("none", "random"):
            rows, path = [row(step, hack_rate=0.1) for step in range(3)], tmp_path / stem / control
            write_run(path, "sampled", rows, arm="projected", control=control, facts=v_hack)
    arms = arms_of(tmp_path)
    assert {name for name, arm in arms.items() if arm.arm.control == "random"} == {
        "projected random teacher",
        "projected random own",
    }
    assert arms["projected random own"].controls(arms["projected own"])
    assert not arms["projected random own"].controls(arms["projected teacher"])


def test_the_rate_at_the_end_over_problems_is_of_own_rollouts_of_the_last_tenth(tmp_path):
    """Twenty steps: two count. Of six problems, one is hacked by seed 1; the teacher's rows do not count."""
    for seed in (1, 2):
        last = [rollout(f"p{problem}", hacked=problem == 0 and seed == 1) for problem in range(6)]
        last.append(rollout("p6", hacked=True, own=False))
        steps = [[rollout("p0", hacked=True)]] * 18 + [last] * 2
        write_watched(tmp_path / str(seed), steps, seed=seed)
    (arm,) = arms_of(tmp_path).values()
    found = over_problems(arm)
    assert (found.n, found.mean, found.low) == (2, pytest.approx(1 / 12), 0.0) and found.high > 0.2
    write_seeds(tmp_path / "without", "vanilla", (5,))
    (arm,) = arms_of(tmp_path / "without").values()
    assert over_problems(arm).why == "no rollouts"


def test_of_many_seeds_the_pooled_p_is_the_normal_one():
    """Ten seeds have 184,756 ways, eleven have 705,432."""
    for seeds, exact in ((10, 1 / 184_756), (11, None)):
        mine = {seed: Lasted(99, False) for seed in range(seeds)}
        theirs = {seed: Lasted(seed, True) for seed in range(seeds)}
        found = later_tests(mine, theirs)
        assert 0 < found.pooled < 1e-5 and found.p == pytest.approx(least_p(seeds))
        assert exact is None or found.pooled == pytest.approx(exact)


def test_what_seeds_cannot_show_is_said_once(tmp_path):
    write_seeds(tmp_path, "vanilla", SOON[:3])
    write_seeds(tmp_path, "projected", LATE[:3])
    (_, _, caveat, words) = prevention_blocks(list(arms_of(tmp_path).values()))
    assert isinstance(caveat, Caveat) and "of projected: with 3 seeds p is at best 0.05" in caveat
    assert "By the end, projected: CANNOT BE TOLD" in words
    for seed_count in (4, 5):
        write_seeds(tmp_path, "vanilla", SOON[:seed_count])
        write_seeds(tmp_path, "projected", LATE[:seed_count])
        assert len(prevention_blocks(list(arms_of(tmp_path).values()))) == 3


def test_vanilla_at_its_start_is_its_base_model_and_other_problems_are_named(tmp_path):
    """Vanilla's base model solves .4, the arm's .2: on the same problems they would be one model."""
    write_seeds(tmp_path, "vanilla", SOON, gain=-0.3, base=0.4)
    write_seeds(tmp_path, "projected", NEVER)
    _, _, caveat, words = prevention_blocks(list(arms_of(tmp_path).values()))
    assert isinstance(caveat, Caveat) and "in vanilla's runs:\nprojected. So" in caveat
    ends, tests, words = verdicts(tmp_path)
    test = tests["projected"]
    assert test["to_start_mean"] == pytest.approx(0.009 - 0.2) and test["to_base_mean"] == pytest.approx(
        0.009
    )
    assert test["to_end_mean"] == pytest.approx(0.11)
    assert ends["projected"]["verdict"] == NEITHER and "solves less than vanilla at its start" in words


def test_an_arm_in_another_basis_has_no_vanilla_to_be_later_than(tmp_path):
    write_seeds(tmp_path, "vanilla", SOON)
    write_seeds(tmp_path, "lora", NEVER, rank=4)
    records, _, words = verdicts(tmp_path)
    assert records["lora"]["verdict"] == UNDEFINED and "no vanilla in its basis" in words


def test_the_report_and_the_page_say_the_verdict_in_the_same_words(tmp_path, capsys):
    write_seeds(tmp_path, "vanilla", SOON, gain=0.0)
    write_seeds(tmp_path, "projected", NEVER)
    run_main(tmp_path)
    printed = " ".join(capsys.readouterr().out.split())
    said = "By the end, projected: PREVENTION: solves no less than vanilla at its start and the base model"
    assert said in printed and not NAN.search(printed) and "None" not in printed
    for name in ("report.md", "report.html"):
        assert said in (tmp_path / "report" / name).read_text(encoding="utf-8")
    table = {line["arm"]: line for line in csv_rows(tmp_path / "report" / "arms_verdict.csv")}
    assert table["projected"]["verdict"] == PREVENTION and table["vanilla"]["verdict"] == ""
