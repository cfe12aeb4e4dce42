"""Section step: whole steps of a `full` run through train.py's loop, lengths and texts imposed."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Group

from hackward.base.files import read_json, read_jsonl, step_file
from hackward.benchmarks.imposed import Imposed
from hackward.benchmarks.parts import Bench, Sizes, attended, number, release, table
from hackward.runs.settings import PRESETS, Config

FULL_RUN = PRESETS["full"]
RUNS = 9  # of the sweep: 3 arms x 3 seeds
# Of the full preset's step, what a CPU does in a second.
TINY_RUN = dataclasses.replace(FULL_RUN, prompts=4, group=6, max_new_tokens=32)
PHASES = {
    "whole step": "seconds",
    "sampling": "seconds_generate",
    "waiting for grades": "seconds_grade",
    "backward": "seconds_backward",
    "rest": "seconds_rest",
}
COPIED = ("seconds", "seconds_generate", "seconds_grade", "seconds_backward", "groups_skipped", "logp_gap")


def seconds_rest(row: dict) -> float:
    """Of a row of rows.jsonl: what its phases leave of the step."""
    return row["seconds"] - row["seconds_generate"] - row["seconds_grade"] - row["seconds_backward"]


@dataclass(frozen=True)
class Finished:
    """What a run's directory says."""

    config: dict
    summary: dict
    rows: list[dict]
    lengths: list[list[tuple[int, int]]]
    """Of every rollout of every step: (prompt length, completion length)."""

    @classmethod
    def read(cls, path: Path) -> Finished:
        """From the files of a sampled run."""
        rows, lengths = rows_and_lengths(path)
        config, summary = read_json(path / "config.json")["config"], read_json(path / "summary.json")
        return cls(config, summary, rows, lengths)

    @property
    def passes(self) -> int:
        """Passes of a step through the Linears; one is the reference policy's, for the KL."""
        return 3 if self.config["beta"] else 2


def rows_and_lengths(path: Path) -> tuple[list[dict], list[list[tuple[int, int]]]]:
    """The steps that a sampled run has finished, and the lengths of their rollouts, as in Finished."""
    rows = read_jsonl(path / "rows.jsonl")
    files = [path / "rollouts" / step_file(row["step"]) for row in rows]
    return rows, [[(r["plen"], r["comp_len"]) for r in read_jsonl(file)] for file in files]


def settings_of(b: Bench, out: Path) -> Config:
    """The run: the full preset's step, or one of the sizes asked for, on random weights; nothing is kept."""
    usual = TINY_RUN if b.config.shape == "tiny" else FULL_RUN
    return dataclasses.replace(
        usual,
        prompts=b.config.step_prompts or usual.prompts,
        group=b.config.step_group or usual.group,
        max_new_tokens=b.config.step_tokens or usual.max_new_tokens,
        model=b.model_name,
        arm="projected",
        steps=b.config.steps,
        problems=b.config.problems,
        workers=b.config.workers,
        dtype=b.config.dtype,
        device=b.config.device,
        out=str(out),
        eval_samples=0,
        teacher_dir=None,
        svd_cache=None,
    )


def measure_step(b: Bench) -> dict:
    """Whole steps of the full preset, arm projected, through train.py's loop; all numbers are read from its
    run directory."""
    model, _ = b.load()
    sizes = Sizes.of(model)
    del model
    release()
    with tempfile.TemporaryDirectory() as directory:
        asked = settings_of(b, Path(directory, "run"))
        with contextlib.redirect_stdout(io.StringIO()):  # its final screen
            (built,) = b.timed(lambda: b.train(asked, policy=Imposed))
        run = Finished.read(Path(directory, "run"))
    steps = [
        step_of(b, sizes, run, row, drawn, group=asked.group)
        for row, drawn in zip(run.rows, run.lengths, strict=True)
    ]
    counted = steps[1:] or steps  # the first one warms up
    medians = {name: statistics.median(step[name] for step in counted) for name in counted[0]}
    medians["floor_seconds"] = medians["floor_seconds_generate"] + medians["floor_seconds_backward"]
    hours = FULL_RUN.steps * medians["seconds"] / 3600
    return {
        "steps": steps,
        "medians": medians,
        "memory": run.summary["memory"],
        "peak_gb": built.peak_gb,
        "prompts": asked.prompts,
        "group": asked.group,
        "max_new_tokens": asked.max_new_tokens,
        "passes": run.passes,
        "seconds_outside_steps": built.seconds - sum(step["seconds"] for step in steps),
        "hours_a_run": hours,
        "hours_all_runs": RUNS * hours,
        "config": run.config,
    }


def step_of(
    b: Bench, sizes: Sizes, run: Finished, row: dict, drawn: Sequence[tuple[int, int]], *, group: int
) -> dict:
    """A step's seconds by phase, its tokens, and its floors; `row` is its line of rows.jsonl."""
    prompts, completions = (sum(lengths) for lengths in zip(*drawn, strict=True))
    groups = [drawn[start : start + group] for start in range(0, len(drawn), group)]
    longest, positions = max(length for _, length in drawn), sum(map(attended, groups))
    operations = sizes.operations(prompts + completions, completions, passes=run.passes)
    return {name: row[name] for name in COPIED} | {
        "seconds_rest": seconds_rest(row),
        "prompt_tokens": prompts,
        "completion_tokens": completions,
        "longest": longest,
        "operations": operations,
        "floor_seconds_generate": sizes.decode_bytes(longest - 1, positions) / b.bandwidth,
        "floor_seconds_backward": operations / b.rate,
    }


def show_step(found: dict) -> tuple[Group, str]:
    """The table and the caption below it."""
    m, rows = found["medians"], []
    for name, key in PHASES.items():
        floor = m.get(f"floor_{key}")
        share, times = f"{m[key] / m['seconds']:.0%}", floor and m[key] / floor
        rows.append((name, f"{m[key]:.3f}", share, number(floor, ".3f"), number(times, ".1f")))
    count = len(found["steps"])
    over = f"median of {count - 1} after the first" if count > 1 else "the first"
    title = (
        f"a full step, {found['prompts']} prompts x {found['group']} rollouts of up to"
        f" {found['max_new_tokens']} tokens, {over}"
    )
    return table(title, ("phase", "seconds", "share", "floor, s", "x floor"), rows), step_caption(found)


def step_caption(found: dict) -> str:
    """What a whole run would take, what was imposed, and what the floors are."""
    m, drawn = found["medians"], found["prompts"] * found["group"]
    kl = " (with the pass of the KL)" if found["passes"] == 3 else ""
    parts = ", ".join(f"{name} {size:.1f}" for name, size in found["memory"].items())
    memory = f"; peak GB: {parts}" if parts else ""
    return (
        f"{FULL_RUN.steps} steps take {found['hours_a_run']:.2f} hours, {RUNS} runs"
        f" {found['hours_all_runs']:.1f} (without set-up and held-out evaluation). Lengths are imposed, as in"
        f" a real pool: here {m['prompt_tokens'] / drawn:.0f} tokens per prompt,"
        f" {m['completion_tokens'] / drawn:.0f} per completion, the longest {m['longest']:.0f}. Texts are"
        " imposed too, and no group is skipped: the most expensive case. Sampling is with prefill; grading"
        f" runs beside it (tests of {found['config']['problems']}), and what is left of it is waited for."
        " No text here runs into a time limit, as some of a model's do. Writing a step's files is not in."
        " floors: the longest completion's token steps read all weights,"
        " each row its own keys and values and a group its prompt's, at the bandwidth of a copy;"
        f" {2 * found['passes']} operations a parameter and token{kl}. Log-probabilities when drawn and in"
        f" the training forward differ by {m['logp_gap']:.1e} a token. First step"
        f" {found['steps'][0]['seconds']:.3f} s; outside of the steps {found['seconds_outside_steps']:.1f}"
        f" s{memory}"
    )
