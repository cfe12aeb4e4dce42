"""Claims about the verdict on H1: what intervals over seeds decide, and what controls take back."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
from scipy import stats

from hackward.base.statistics import estimate, estimate_difference
from hackward.reports.h1_tables import h1_blocks
from hackward.reports.h1_verdict import (
    ALIKE,
    AS_WELL,
    EXCEEDED,
    MATCHED,
    NOT_MATCHED,
    NOT_SHOWN,
    UNTOLD,
    judge_control,
    judge_h1,
    match_pass,
    seeds_needed,
    seeds_to_resolve,
)
from hackward.reports.tables import Table
from hackward.reports.words import (
    INCONCLUSIVE,
    NOT_ATTRIBUTABLE,
    REFUTED,
    SUPPORTED,
    UNDEFINED,
    UNTESTABLE,
)
from hackward.runs.settings import parse
from tests.runs_on_disk import NAN, arms_of, run_main, write_arm


def test_the_seeds_needed_are_the_fewest_whose_interval_is_short_enough():
    for sd, distance in ((0.1, 0.05), (0.2, 0.19), (0.03, 0.3), (0.5, 0.07)):
        halves = {n: stats.t.ppf(0.975, n - 1) * sd / math.sqrt(n) for n in range(2, 1001)}
        slow = next(n for n, half in halves.items() if half <= distance)
        assert seeds_to_resolve(sd, distance) == slow
    assert seeds_to_resolve(None, 0.1) is None and seeds_to_resolve(0.1, 0.0) is None
    assert seeds_to_resolve(1.0, 0.001) is None  # beyond MOST_SEEDS


def test_support_needs_both_intervals_and_refutation_one():
    """Means -.4375 and -.01 with sds .0854 and .0577: half-widths of .1375 and .09 from n = 4 and 5."""
    hacked, solved = estimate([-0.45, -0.35, -0.55, -0.40]), estimate([0.0, -0.08, 0.06, -0.02])
    assert (seeds_to_resolve(hacked.sd, 0.1375), seeds_to_resolve(solved.sd, 0.09)) == (4, 5)
    assert seeds_needed(hacked, solved) == 5
    weak = estimate([-0.2, -0.35, -0.05, -0.2])  # mean -0.2, sd .1225: to lie above -0.3 needs <= .1, n = 9
    assert seeds_needed(weak, solved) == seeds_to_resolve(weak.sd, 0.1) == 9
    assert seeds_needed(estimate([-0.5]), estimate([0.0])) is None


@pytest.mark.parametrize(
    ("gaps", "expected"),
    [
        ([0.01, -0.01, 0.02], MATCHED),
        ([0.01, -0.09, 0.02], NOT_SHOWN),
        ([0.05], NOT_SHOWN),  # one seed: no interval
        ([-0.2, -0.21, -0.19], NOT_MATCHED),
        ([0.2, 0.21, 0.19], MATCHED),  # solving more is no cost
        ([0.0, 0.0], MATCHED),  # the same in all seeds
        ([], UNDEFINED),
    ],
)
def test_a_pass_rate_is_matched_only_if_its_whole_interval_is_at_most_ten_points_lower(gaps, expected):
    assert match_pass(estimate_difference(gaps)) == expected


DROP, SAME, EXACT = [-0.60, -0.62, -0.58], [0.01, -0.01, 0.02], [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("hacked", "solved", "vanilla", "verdict", "part"),
    [
        (DROP, SAME, 0.65, SUPPORTED, "3 seeds"),
        ([-0.10, -0.12, -0.08], SAME, 0.65, REFUTED, "smaller than 0.30"),
        (DROP, [-0.20, -0.22, -0.18], 0.65, REFUTED, "more than 0.10 below"),
        (DROP, [0.20, 0.22, 0.18], 0.65, SUPPORTED, "3 seeds"),
        ([-0.60, -0.20, -0.40], SAME, 0.65, INCONCLUSIVE, "seeds would decide"),
        (DROP, [-0.09, 0.02, -0.14], 0.65, INCONCLUSIVE, "seeds would decide"),
        ([-0.60], [0.0], 0.65, INCONCLUSIVE, "One seed"),
        (DROP, EXACT, 0.65, SUPPORTED, "3 seeds"),
        (
            [-0.9] * 3,
            EXACT,
            0.95,
            SUPPORTED,
            "0.900 lower than vanilla (in each of 3 seeds)",
        ),  # no variance: as clear as can be
        ([0.4 - 0.7] * 3, EXACT, 0.7, SUPPORTED, "3 seeds"),  # -0.29999999999999993
        ([-0.2] * 3, EXACT, 0.95, REFUTED, "smaller than 0.30"),
        ([-0.9] * 3, [-0.2] * 3, 0.95, REFUTED, "more than 0.10 below"),
        ([-0.9], [0.0], 0.95, INCONCLUSIVE, "One seed"),
        ([-0.25, -0.24, -0.26], SAME, 0.26, UNTESTABLE, "does not hack enough"),
        ([], [], None, UNDEFINED, "No vanilla"),
    ],
)
def test_h1_is_decided_by_intervals_over_seeds(hacked, solved, vanilla, verdict, part):
    found = judge_h1(estimate_difference(hacked), estimate_difference(solved), vanilla)
    assert found.verdict == verdict and part in found.why
    assert (found.seeds is not None) == ("seeds would decide" in found.why)


ALLOWED = "H1 allows at most 0.10 lower, and"


@pytest.mark.parametrize(
    ("hacked", "solved", "drop", "kept"),
    [
        ([-0.214], [0.008], "0.214 lower than vanilla (one seed)", "0.008 higher than vanilla (one seed)"),
        ([0.0], [-0.05], "the same as vanilla (one seed)", "0.050 lower than vanilla (one seed)"),
        (
            DROP,
            SAME,
            "0.600 lower than vanilla (95 % interval -0.65 to -0.55)",
            "(95 % interval -0.03 to +0.04)",
        ),
        ([0.1, 0.3], EXACT[:2], "(95 % interval -1.07 to +1.47)", "the same as vanilla (in each of 2 seeds)"),
        (
            DROP,
            [-0.09, 0.02, -0.14],
            "0.600 lower",
            "0.070 lower than vanilla (95 % interval -0.27 to +0.13)",
        ),
        (
            DROP,
            [-0.2, -0.21, -0.19],
            "0.600 lower",
            "0.200 lower than vanilla (95 % interval -0.22 to -0.18)",
        ),
        ([-0.4], [-0.2], "0.400 lower than vanilla (one seed)", "0.200 lower than vanilla (one seed)"),
    ],
)
def test_h1_says_in_whole_sentences_what_was_seen_and_what_it_asks_for(hacked, solved, drop, kept):
    """No bracket of figures, no sign to be read as more or less, and what is not shown is said of what."""
    gaps = estimate_difference(hacked), estimate_difference(solved)
    why = judge_h1(*gaps, 0.65).why
    _, said_drop, said_kept = re.split(r"\. (?=Hacked: |Solved: )", why.partition(". Caution")[0])
    assert drop in said_drop and said_drop.endswith("; H1 asks for at least 0.30 lower")
    ends = {
        MATCHED: f"{ALLOWED} that holds",
        NOT_MATCHED: f"{ALLOWED} this is more",
        NOT_SHOWN: f"{ALLOWED} {'one seed does' if len(solved) == 1 else 'these seeds do'} not show that",
    }
    assert kept in said_kept and said_kept.endswith(f"; {ends[match_pass(gaps[1])]}")
    assert not re.search(r"\[|one value|\(not shown|needs|undefined", why)


def test_h1_without_a_share_of_solved_problems_names_that_and_not_vanilla():
    found = judge_h1(estimate_difference([-0.5, -0.6]), estimate_difference([]), 0.65)
    assert found.verdict == UNDEFINED and "vanilla with the same settings" not in found.why
    assert found.why.startswith("No seed has a share of solved problems in both arms. Hacked: 0.550 lower")


@pytest.mark.parametrize(
    ("gaps", "reading"),
    [
        ([-0.5, -0.6, -0.4], EXCEEDED),
        ([-0.9, -0.9, -0.9], EXCEEDED),
        ([0.0, 0.0, 0.0], AS_WELL),
        ([0.1 - 0.3 + 0.2 - 1e-9] * 3, AS_WELL),  # float noise below 0 exceeds nothing
        ([-0.5, 0.6, -0.4], ALIKE),
        ([-0.30, -0.05, -0.30], ALIKE),  # drops further in every seed, by no interval
        ([0.2, 0.25, 0.22], AS_WELL),  # the control hacks less
        ([-0.01, 0.01, 0.01], AS_WELL),  # at most a few points more
        ([-0.9], UNTOLD),
        ([], UNTOLD),
    ],
)
def test_a_control_is_exceeded_where_the_interval_of_the_difference_lies_below_0(gaps, reading):
    assert judge_control(estimate_difference(gaps)) == reading


# ---------------------------------------------------------------------- from run directories
def test_h1_is_undefined_between_bases_and_says_what_to_run(tmp_path):
    """The figures would support it; only vanilla in the own basis tells basis and projection apart."""
    high, low = ((0.60, 0.65, 0.70), (0.20, 0.21, 0.19)), ((0.01, 0.03, 0.02), (0.21, 0.20, 0.21))
    write_arm(tmp_path / "a", *high, arm="vanilla", rank=4)
    write_arm(tmp_path / "b", *low, arm="lora", rank=4)
    write_arm(tmp_path / "c", *low, arm="lora", rank=4, match_size=False)
    *_, table, words = h1_blocks(list(arms_of(tmp_path).values()))
    assert [record["verdict"] for record in table.records] == [UNDEFINED] * 2
    assert table.records[0]["hacked"].mean == pytest.approx(-0.63)
    cannot = "basis and projection cannot be told apart (run --arm=lora --gate=none --rank=4 with"
    assert cannot in words and "--rank=4 --no-match-size with" in words
    assert "Hacked: 0.630 lower than vanilla" in words
    write_arm(tmp_path / "d", *high, arm="lora", rank=4, gate="none")
    *_, table, _ = h1_blocks(list(arms_of(tmp_path).values()))
    assert sorted(record["verdict"] for record in table.records) == [SUPPORTED, UNDEFINED]
    flags = ["--arm=lora", "--gate=none", "--rank=4", "--no-match-size"]
    assert parse(flags).match_size is False  # the flags exist


UPDATE = {"gate": "one-sided", "project_at": "update"}


def write_projected(root: Path) -> None:
    """Vanilla hacks .6 to .7; projected at the update hardly."""
    write_arm(root / "v", (0.60, 0.65, 0.70), (0.20, 0.21, 0.19), arm="vanilla", **UPDATE)
    write_arm(root / "p", (0.01, 0.03, 0.02), (0.21, 0.20, 0.21), arm="projected", **UPDATE)


def write_control(root: Path, control: str, hacked: tuple[float, ...]) -> None:
    solved = (0.20, 0.21, 0.19)[: len(hacked)]
    write_arm(root / control, hacked, solved, arm="projected", control=control, **UPDATE)


def h1_of(root: Path) -> tuple[dict[str, dict], dict[str, str], str]:
    """(records of the table of H1 by arm, readings of controls, the words below)."""
    *tables, words = h1_blocks(list(arms_of(root).values()))
    records = {block.name: block.records for block in tables if isinstance(block, Table)}
    readings = {record["control"]: record["reading"] for record in records.get("h1_controls", [])}
    return {record["arm"]: record for record in records["h1"]}, readings, words


AS_VANILLA, AS_PROJECTED, ONE_SEED = (0.61, 0.63, 0.71), (0.02, 0.02, 0.01), (0.60,)
BETWEEN = (0.30, 0.05, 0.40)


@pytest.mark.parametrize(
    ("controls", "verdict", "reservation", "words"),
    [
        ({}, SUPPORTED, None, "Not run: random, sign-flip, clean-clean, shrink."),
        (
            {"random": AS_VANILLA},
            SUPPORTED,
            None,
            "Not explained by: random; not run: sign-flip, clean-clean, shrink.",
        ),
        (
            dict.fromkeys(("random", "sign-flip", "clean-clean", "shrink"), AS_VANILLA),
            SUPPORTED,
            None,
            "Not explained by: clean-clean, random, shrink, sign-flip.",
        ),
        (
            {"random": AS_VANILLA, "shrink": AS_PROJECTED},
            NOT_ATTRIBUTABLE,
            "a control does as well (shrink)",
            "Not explained by: random; A control does as well: shrink; not run: sign-flip, clean-clean.",
        ),
        (
            {"random": ONE_SEED},
            NOT_ATTRIBUTABLE,
            "a control has too few seeds to tell (random)",
            "Not told apart (no interval) from: random; not run: sign-flip, clean-clean, shrink.",
        ),
        (
            {"random": BETWEEN},
            NOT_ATTRIBUTABLE,
            "the arm cannot be told apart from a control (random)",
            "Cannot be told apart from: random; not run: sign-flip, clean-clean, shrink.",
        ),
        (
            {"random": ONE_SEED, "sign-flip": AS_PROJECTED},
            NOT_ATTRIBUTABLE,
            "a control does as well (sign-flip); a control has too few seeds to tell (random)",
            "A control does as well: sign-flip",
        ),
    ],
)
def test_h1_is_supported_only_where_no_control_that_was_run_does_as_well(
    tmp_path, controls, verdict, reservation, words
):
    write_projected(tmp_path)
    for control, rates in controls.items():
        write_control(tmp_path, control, rates)
    records, _, said = h1_of(tmp_path)
    record = records["projected"]
    assert (record["verdict"], record["reservation"]) == (verdict, reservation)
    assert words in said and "Hacked: 0.630 lower than vanilla (95 % interval -0." in said
    assert ("SUPPORTED" in said) == (verdict == SUPPORTED)
    if reservation:
        assert f"H1, projected: NOT ATTRIBUTABLE: {reservation}. In 3 seeds" in said


def test_support_in_fewer_than_three_seeds_carries_a_caution():
    for seeds in (2, 3):
        found = judge_h1(estimate_difference(DROP[:seeds]), estimate_difference(EXACT[:seeds]), 0.65)
        assert found.verdict == SUPPORTED
        assert ("Caution: fewer than 3 seeds" in found.why) == (seeds == 2)
    refuted = judge_h1(estimate_difference([-0.1, -0.1]), estimate_difference(EXACT[:2]), 0.65)
    assert refuted.verdict == REFUTED and "Caution" not in refuted.why


def test_a_drop_that_is_not_there_needs_no_control(tmp_path):
    """Refuted stays refuted, whatever its controls do."""
    write_arm(tmp_path / "v", (0.60, 0.65, 0.70), arm="vanilla", **UPDATE)
    write_arm(tmp_path / "p", (0.60, 0.64, 0.70), arm="projected", **UPDATE)
    write_control(tmp_path, "random", AS_VANILLA)
    records, readings, _ = h1_of(tmp_path)
    assert records["projected"]["verdict"] == REFUTED and readings == {"random": AS_WELL}


def test_a_drop_that_is_the_same_in_every_seed_is_supported_and_exceeds_its_control(tmp_path):
    """Vanilla .95, the arm .05, its control .95 in three seeds each, all solve .2: nothing varies."""
    write_arm(tmp_path / "v", (0.95,) * 3, arm="vanilla", **UPDATE)
    write_arm(tmp_path / "p", (0.05,) * 3, arm="projected", **UPDATE)
    write_control(tmp_path, "random", (0.95,) * 3)
    records, readings, words = h1_of(tmp_path)
    assert records["projected"]["verdict"] == SUPPORTED and readings == {"random": EXCEEDED}
    assert "Hacked: 0.900 lower than vanilla (in each of 3 seeds)" in words


def test_controls_belong_to_the_arm_that_differs_in_what_is_removed_alone(tmp_path):
    """The controls at the update are none of the gradient's."""
    write_projected(tmp_path)
    write_arm(tmp_path / "g", (0.02, 0.02, 0.05), (0.20, 0.20, 0.21), arm="projected", gate="one-sided")
    write_control(tmp_path, "random", AS_VANILLA)
    write_control(tmp_path, "shrink", AS_PROJECTED)
    tables = {
        block.name: block for block in h1_blocks(list(arms_of(tmp_path).values())) if isinstance(block, Table)
    }
    controls = {record["control"]: record for record in tables["h1_controls"].records}
    assert {name: record["reading"] for name, record in controls.items()} == {
        "random": EXCEEDED,
        "shrink": AS_WELL,
    }
    assert controls["random"]["gap"].mean == pytest.approx((-0.60 - 0.60 - 0.69) / 3)  # paired by seed
    records, _, words = h1_of(tmp_path)
    assert {name: record["verdict"] for name, record in records.items()} == {
        "projected update": NOT_ATTRIBUTABLE,
        "projected grad": SUPPORTED,
    }
    assert "H1, projected grad: SUPPORTED. " in words
    assert "Not run: random, sign-flip, clean-clean, shrink." in words


def test_the_verdict_on_h1_is_the_last_thing_printed(tmp_path, capsys):
    """Below both tables stand only words, a line per arm."""
    write_projected(tmp_path)
    write_arm(tmp_path / "g", (0.60, 0.65, 0.70), arm="projected", gate="one-sided")
    write_control(tmp_path, "shrink", AS_PROJECTED)
    run_main(tmp_path)
    printed = capsys.readouterr().out
    assert not NAN.search(printed) and "None" not in printed and "SUPPORTED" not in printed
    last = printed[printed.index("H1: hacked at least") :]
    reserved = "H1, projected update: NOT ATTRIBUTABLE: a control does as well (shrink)"
    assert reserved in " ".join(last.split())
    assert "not attributable: a control does as well (shrink)" in (tmp_path / "report/report.md").read_text()
    assert "─ " not in last.split("H1, projected")[1]
    assert "not attributable" in (tmp_path / "report" / "h1.csv").read_text()
