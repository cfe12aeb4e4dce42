"""Claims about the documents: their figures are the stored tables' figures, and their commands parse."""

import csv
import re
import shlex
import statistics

import pytest

import audit
import extract_vhack
import probe_distill
from hackward.base import breakout
from hackward.base.breakout import time_to_hack
from hackward.base.flags import command_line
from hackward.base.survival import Lasted
from hackward.reports.prevention_tables import later_tests
from hackward.runs.settings import parse
from hackward.scheduling.flags import SweepFlags
from tests.conftest import ROOT

RESULTS = ROOT / "spec" / "results"
# How many commands of the five below each page has at the least
RESULT_PAGES = [
    ("spec/results/2026-11-22-embedded/README.md", 2),
    ("spec/results/2026-11-22-qwen2.5-coder-0.5b/README.md", 6),
    ("spec/results/2026-11-23-qwen2.5-coder-0.5b-controls/README.md", 4),
    ("spec/results/2026-11-23-speed/README.md", 1),
    ("spec/results/2026-11-27-what-prevents/README.md", 7),
]
# Arms of the README and of the headline's page -> of its tables
IN_THE_README = {
    "vanilla": "vanilla v_teacher",
    "projected, v_hack from its own labelled hacks": "projected v_own",
    "random directions": "projected random v_own",
    "penalty (attempts are paid as failed)": "penalty attempt",
    "random flags": "penalty attempt random",
}
ON_THE_PAGE = {
    "vanilla | baseline": "vanilla v_teacher",
    "projected, own V | primary": "projected v_own",
    "its placebo: random directions | placebo": "projected random v_own",
    "penalty by *attempt* | primary": "penalty attempt",
    "its placebo: random flags | placebo": "penalty attempt random",
}
HEADLINE = "2026-11-28-headline"


def records(path):
    with open(RESULTS / path, newline="") as stream:
        return list(csv.DictReader(stream))


def page(name):
    return (RESULTS / name / "README.md").read_text()


def interval(row, part):
    mean, low, high = (float(row[f"{part}_{which}"]) for which in ("mean", "low", "high"))
    return f"{mean:.2f} [{low:.2f}, {high:.2f}]"


@pytest.mark.parametrize("label", ["vanilla", "projected grad", "projected update"])
def test_the_figures_of_the_on_policy_page_are_those_of_the_stored_table(label):
    name = "2026-11-22-qwen2.5-coder-0.5b"
    stored = records(f"{name}/on_policy/on_policy_window.csv")
    (row,) = [r for r in stored if r["run"].removesuffix(" (unfinished)") == label]
    arm = label.replace(" grad", ", gradient, one-sided").replace(" update", ", update, one-sided")
    rates = [f"{float(row[key]):.3f}" for key in ("hack_rate", "gt_rate", "attempt_rate")]
    (cells,) = [
        line.split(" | ")[1::2] for line in page(name).splitlines() if re.match(rf"\| {arm} \| \d", line)
    ]
    assert cells == rates


def test_the_embedded_model_s_rates_are_those_of_the_stored_table():
    name = "2026-11-22-embedded"
    readme, text = (ROOT / "README.md").read_text(), page(name)
    for arm in ("vanilla", "projected", "projected random"):
        stored = [row for row in records(f"{name}/arms.csv") if row["arm"] == arm]
        assert f"| {arm} | {' | '.join(interval(row, 'last5') for row in stored)} |" in readme
        for row in stored:
            cells = " | ".join(interval(row, part) for part in ("first5", "last5", "area"))
            assert f"| {arm} | {row['rate']} | {cells} |" in text


def test_the_rates_of_the_controls_are_those_of_the_stored_table():
    name = "2026-11-23-qwen2.5-coder-0.5b-controls"
    for row in records(f"{name}/on_policy.csv"):
        rates = [
            ", ".join(f"{float(row[f'{rate}_{part}']):.3f}" for part in ("first5", "last5", "area"))
            for rate in ("hack_rate", "gt_rate", "attempt_rate")
        ]
        cosines = [f"{float(row[key]):+.3f}" for key in ("cos_in", "cos_update")]
        cells = [row["run"].partition(" v_pool")[0], *rates, row["time_to_hack"], *cosines]
        assert f"| {' | '.join(cells)} |" in page(name)


def breakouts(arm):
    """The arm's line of arms_verdict.csv, its seeds' times to hack in words, and the p that it is later."""
    (verdict,) = [row for row in records(f"{HEADLINE}/arms_verdict.csv") if row["arm"] == arm]
    runs = [row for row in records(f"{HEADLINE}/on_policy.csv") if row["run"].rpartition(" ")[0] == arm]
    times = " ".join(row["time_to_hack"] for row in sorted(runs, key=lambda row: int(row["seed"])))
    p = [float(row["later_p"]) for row in records(f"{HEADLINE}/arms_tests.csv") if row["arm"] == arm]
    return verdict, times.replace("never never never never never", "never in 180 steps"), p


@pytest.mark.parametrize("shown", IN_THE_README)
def test_the_breakouts_in_the_readme_are_those_of_the_stored_tables(shown):
    verdict, times, p = breakouts(IN_THE_README[shown])
    of_five = f"{verdict['breakouts']} of {verdict['seeds']}"
    words = verdict["verdict"]
    if words in ("delay", "neither"):
        pairs = zip(times.split(), breakouts("vanilla v_teacher")[1].split(), strict=True)
        words += f": later in {sum(int(mine) > int(its) for mine, its in pairs)} (p {p[0]:.2g})"
    assert f"| {shown} | {of_five} | {times} | {words}".rstrip() in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("shown", ON_THE_PAGE)
def test_the_table_of_the_headline_is_made_of_the_stored_tables(shown):
    arm = ON_THE_PAGE[shown]
    verdict, times, _ = breakouts(arm)
    (solved,) = [
        row
        for row in records(f"{HEADLINE}/heldout.csv")
        if (row["arm"], row["condition"], row["adapter"]) == (arm, "closed", "on - off")
    ]
    (line,) = [row for row in page(HEADLINE).splitlines() if row.startswith(f"| {shown} |")]
    of_five, steps, end, gap = (cell.strip() for cell in line.split("|")[3:7])
    assert of_five == f"{verdict['breakouts']} of {verdict['seeds']}"
    assert steps == times.replace("in 180 steps", "in 180").replace("never in", "never, in")
    found = [float(verdict[key]) for key in ("end_rate", "end_rate_high")]
    assert [float(cell) for cell in end.split(", ")] == pytest.approx(found, abs=0.005 + 1e-9)
    wanted = [float(solved[f"solved_{part}"]) for part in ("mean", "low", "high")]
    assert [float(cell) for cell in re.findall(r"[+-]?\.\d+", gap)] == pytest.approx(wanted, abs=0.005 + 1e-9)


def headline_rates():
    """run -> the hack rates of its steps"""
    found = {}
    for row in records(f"{HEADLINE}/rates.csv"):
        rates = found.setdefault(row["run"], [])
        assert int(row["step"]) == len(rates)
        rates.append(float(row["hacked"]))
    return found


def test_the_rates_of_every_step_of_the_headline_give_the_stored_times_to_hack():
    stored = {row["run"]: row for row in records(f"{HEADLINE}/on_policy.csv")}
    short = {"vanilla": "vanilla v_teacher", "penalty-attempt": "penalty attempt"}
    short |= {"penalty-attempt-random": "penalty attempt random", "projected-own": "projected v_own"}
    short |= {"projected-own-random": "projected random v_own"}
    rates = headline_rates()
    assert len(rates) == len(stored) == 25
    for run, hacked in rates.items():
        arm, _, seed = run.rpartition("-")
        found = time_to_hack(range(len(hacked)), hacked)
        assert str(found) == stored[f"{short[arm]} {seed}"]["time_to_hack"]


@pytest.mark.parametrize(
    ("threshold", "p"),
    [
        (0.05, 0.090),
        (0.075, 0.090),
        (0.1, 0.028),
        (0.125, 0.090),
        (0.15, 0.090),
        (0.2, 0.028),
        (0.25, 0.028),
        (0.3, 0.013),
    ],
)
def test_the_delay_of_the_headline_hangs_on_the_threshold_as_its_page_says(monkeypatch, threshold, p):
    monkeypatch.setattr(breakout, "HACK_ONSET", threshold)
    times = {"vanilla": {}, "projected-own": {}}
    for run, rates in headline_rates().items():
        arm, _, seed = run.rpartition("-")
        if arm in times:
            step = time_to_hack(range(len(rates)), rates)
            times[arm][seed] = Lasted(step, True)
    later = later_tests(times["projected-own"], times["vanilla"])
    assert later.p == pytest.approx(p, abs=0.0005)


NAMES_OF_ARMS = {
    "vanilla": "vanilla v_teacher",
    "projected, teacher V": "projected v_teacher",
    "projected, own V": "projected v_own",
    "projected, own V, live": "projected refreshed every 2 by own hacked v_own",
    "penalty, truth": "penalty truth",
    "penalty, truth with noise": "penalty truth noise 0.2",
    "screen, truth": "screen truth",
    "penalty, attempt": "penalty attempt",
    "penalty, probe": "penalty probe v_teacher",
    "penalty, v_hack, whitened": "penalty v_hack whitened v_teacher",
    "penalty, v_hack, cosine": "penalty v_hack v_teacher",
    "penalty, own V": "penalty v_hack v_own",
    "placebo of v_hack, cosine": "penalty v_hack random v_teacher",
}


@pytest.mark.parametrize("shown", NAMES_OF_ARMS)
def test_the_rates_of_what_prevents_are_those_of_the_stored_table_rounded_once(shown):
    stored = records("2026-11-27-what-prevents/what-prevents/on_policy_window.csv")
    seeds = [row for row in stored if row["run"].rpartition(" ")[0] == NAMES_OF_ARMS[shown]]
    first_two = page("2026-11-27-what-prevents").partition("## Experiment 3")[0]
    (line,) = re.findall(rf"^\| {shown} \| ([. 0-9]+\|[. 0-9]+\|[. 0-9]+)\|", first_two, re.M)
    hacked = [float(row["hack_rate"]) for row in seeds]
    exact = [*hacked, statistics.mean(hacked), statistics.mean(float(row["gt_rate"]) for row in seeds)]
    assert [float(cell) for cell in re.findall(r"\.\d\d", line)] == pytest.approx(exact, abs=0.005 + 1e-9)


def test_the_demonstration_s_rates_are_those_of_the_stored_table():
    for row in records("2026-11-27-demo/on_policy.csv"):
        rates = [
            " ".join(f"{float(row[f'{rate}_{part}']):.2f}"[1:] for part in ("first5", "last5", "area"))
            for rate in ("hack_rate", "gt_rate")
        ]
        assert f"| {row['run']} | {' | '.join(rates)} | {row['time_to_hack']} |" in page("2026-11-27-demo")


def commands(path, script):
    text = (ROOT / path).read_text().replace("\\\n", " ")
    for line in re.findall(rf"^    (?:python )?{re.escape(script)} ([^#\n]*)", text, flags=re.MULTILINE):
        while (shorter := re.sub(r"\[[^][]*\]", "", line)) != line:
            line = shorter
        line = re.sub(r" FLAGS\b", "", line).replace("=SEED", "=41").replace("--arm ARM", "--arm vanilla")
        yield shlex.split(line)


@pytest.mark.parametrize(("path", "least"), [("README.md", 5), ("spec/your_model.md", 6), *RESULT_PAGES])
def test_the_commands_of_the_pages_parse(path, least):
    parsers = {
        "train.py": parse,
        "audit.py": lambda a: command_line(audit.AuditFlags, argv=a),
        "sweep.py": lambda a: command_line(SweepFlags, argv=a[: (a + ["--"]).index("--")]),
        "probe_distill.py": lambda a: command_line(probe_distill.ProbeFlags, argv=a),
        "extract_vhack.py": lambda a: command_line(extract_vhack.ExtractFlags, argv=a),
    }
    found = [parser(arguments) for script, parser in parsers.items() for arguments in commands(path, script)]
    assert len(found) >= least


NAMES_OF_PLACEBOS = {
    "vanilla": "vanilla",
    "placebo of attempt": "attempt-random",
    "placebo of probe": "probe-random",
    "placebo of v_hack, whitened": "whitened-random",
}
ROLLOUTS, LAST_TEN = 64, slice(50, 60)  # of a step; of a run


def placebo_counts(arm, seed, key):
    stored = records("2026-11-27-what-prevents/placebos/rates_by_step.csv")
    return [int(row[key]) for row in stored if (row["arm"], row["seed"]) == (arm, seed)]


@pytest.mark.parametrize("shown", NAMES_OF_PLACEBOS)
def test_the_rates_of_the_placebos_are_those_of_the_stored_counts_rounded_once(shown):
    experiment = page("2026-11-27-what-prevents").partition("## Experiment 3")[2]
    (line,) = re.findall(rf"^\| {shown} \| (.+) \|$", experiment, re.M)
    hacked, mean, solved, onsets, flagged, by_own_flags = line.split(" | ")
    seeds, arm = ("41", "42", "43"), NAMES_OF_PLACEBOS[shown]
    rates = [[n / ROLLOUTS for n in placebo_counts(arm, seed, "hacked")] for seed in seeds]
    right = [[n / ROLLOUTS for n in placebo_counts(arm, seed, "solved")] for seed in seeds]
    ends = [statistics.mean(part[LAST_TEN]) for part in rates]
    solving = statistics.mean(statistics.mean(part[LAST_TEN]) for part in right)
    shown_rates = [float(cell) for cell in f"{hacked} {mean} {solved}".split()]
    assert shown_rates == pytest.approx([*ends, statistics.mean(ends), solving], abs=0.005 + 1e-9)
    assert onsets == ", ".join(str(time_to_hack(range(60), part)) for part in rates)
    if arm != "vanilla":
        assert flagged.split() == [placebo_flags(arm, seed) for seed in seeds]
        assert by_own_flags.split() == monitored_rates(shown.removeprefix("placebo of "))


def placebo_flags(arm, seed):
    stored = records("2026-11-27-what-prevents/placebos/flags_by_ten_steps.csv")
    parts = [row for row in stored if (row["arm"], row["seed"]) == (arm, seed)]
    share = sum(int(row["flagged"]) for row in parts) / sum(int(row["rollouts"]) for row in parts)
    return f"{share:.2f}"[1:]


def monitored_rates(monitor):
    """Hacked by seed in the arm whose placebo it is, as experiment 2 stored it."""
    stored = records("2026-11-27-what-prevents/what-prevents/on_policy_window.csv")
    arm = NAMES_OF_ARMS[f"penalty, {monitor}"]
    rates = [float(row["hack_rate"]) for row in stored if row["run"].rpartition(" ")[0] == arm]
    return [f"{rate:.2f}"[1:] for rate in rates]
