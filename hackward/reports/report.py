"""The report: which sections a set of runs gives rise to, and the files it is written to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from hackward.base.files import whole_directory
from hackward.base.lines import printable
from hackward.base.lock import only_writer
from hackward.reports import browser
from hackward.reports.arm_tables import sampled_blocks
from hackward.reports.arms import by_arm
from hackward.reports.browser_data import Rollouts
from hackward.reports.copies import copies_caveats
from hackward.reports.monitor_tables import monitor_blocks
from hackward.reports.plots import NAMES, draw_all
from hackward.reports.probe_tables import phase1_blocks, replay_blocks
from hackward.reports.run_tables import cost_table, direction_blocks, runs_table
from hackward.reports.runs import Run
from hackward.reports.tables import INDENT, Block, Caveat, Heading, Record, Table, markdown, write_csv
from hackward.reports.thresholds import ABOUT_ZERO, MOST_STEPS

LEGEND = f"""\
Cosines are with v_hack. + is hack-ward: descending such a gradient makes hacks likelier. 0 is orthogonal.
cos_in / cos_out: gradient before / after the edit. cos_update_in / cos_update: the update, proposed / made.
cos_S_logp: one sample, before the advantage. cos_S_contrib: with it, so its sign can be the advantage's.
Success: vanilla cos_in > 0; projected cos_out < cos_in and cos_update <= 0; hacks positive, clean answers \
of the other pool not.
Null: the 2.5 to 97.5 % range of the same mean when the signs of v_hack's pairs are permuted (by problem).
"about 0": |cosine| < {ABOUT_ZERO:g} on every step. Of a mean: its size, or an interval across 0.
"most", "consistently": {MOST_STEPS:.0%} of steps.
Intervals: 95 %, t, over problems where the table says so, else over steps (correlated, so too narrow)."""

TABLE_NAMES = (
    "pools",
    "runs",
    "cost",
    "directions",
    "phase1_buckets",
    "phase1_tests",
    "phase2_verification",
    "phase2_advantages",
    "phase2_pools",
    "phase3_decision",
    "on_policy",
    "on_policy_by_steps",
    "on_policy_cosines",
    "on_policy_window",
    "on_policy_window_cosines",
    "arms",
    "arms_cosines",
    "arms_more",
    "arms_verdict",
    "arms_tests",
    "heldout",
    "monitor",
    "arms_monitor",
    "h1_controls",
    "h1",
)


def build_blocks(
    runs: Sequence[Run],
    left_out: Sequence[str],
    window: tuple[int, int] | None = None,
    primary: str | None = None,
) -> list[Block]:
    """All sections, in order.

    ``window``: (first, last) step of the means over the same steps of every on-policy run. ``primary``: names
    of the primary arms (`prevention_tables.primary_of`).
    """
    of_kind: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        of_kind[run.kind].append(run)
    blocks: list[Block] = [Heading("How to read this"), LEGEND, runs_table(runs), *direction_blocks(runs)]
    blocks += [*warnings(runs), *copies_caveats(runs)]
    if left_out:
        blocks.append(Caveat("\n".join(["Left out:", *(INDENT + line for line in left_out)])))
    if of_kind["phase1"]:
        blocks += phase1_blocks(of_kind["phase1"])
    if of_kind["replay"]:
        blocks += replay_blocks(of_kind["replay"])
    if of_kind["sampled"]:
        blocks += sampled_blocks(of_kind["sampled"], window, primary)
        blocks += monitor_blocks(of_kind["sampled"])
    return [*blocks, Heading("What it cost"), cost_table(runs)]


def warnings(runs: Sequence[Run]) -> list[Caveat]:
    """What the runs themselves warn of, each warning once with the runs that it is about."""
    labels: dict[str, list[str]] = defaultdict(list)
    for run in runs:
        if run.record.get("warning"):
            labels[run.record["warning"]].append(run.label)
    return [Caveat(f"WARNING {', '.join(labels[warning])}: {warning}") for warning in sorted(labels)]


def write_report(
    directory: Path, blocks: Sequence[Block], runs: Sequence[Run], rollouts: Rollouts | None = None
) -> None:
    """Pictures, one csv per table, report.md and, given rollouts, report.html: made beside and moved into
    place whole.

    What an earlier report left under our names goes then; other files in the directory stay.
    """
    ours = {f"{name}.csv" for name in TABLE_NAMES} | set(NAMES) | {"report.md", browser.NAME}
    with only_writer(directory), whole_directory(directory, ours) as made:
        _write_parts(made, blocks, runs, rollouts)


def _write_parts(
    directory: Path, blocks: Sequence[Block], runs: Sequence[Run], rollouts: Rollouts | None
) -> None:
    tables: dict[str, list[Record]] = defaultdict(list)
    for block in blocks:
        if isinstance(block, Table):
            tables[block.name] += block.records
    for name, records in tables.items():
        write_csv(directory / f"{name}.csv", records)
    pictures = draw_all(directory, runs, by_arm(runs))
    (directory / "report.md").write_text(printable(markdown(blocks, pictures)), encoding="utf-8")
    if rollouts is not None:
        drawn = [directory / name for name in pictures]
        browser.write_page(directory / browser.NAME, blocks, runs, rollouts, drawn)
