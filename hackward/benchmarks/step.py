"""Section step: whole steps of a `full` run through train.py's loop, lengths and texts imposed."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import statistics
import tempfile
from pathlib import Path

from rich.table import Table

from hackward.base.files import read_json, read_jsonl
from hackward.benchmarks.imposed import Imposed
from hackward.benchmarks.parts import Bench, Sizes, attended, number, release, table
from hackward.runs.settings import PRESETS

TINY_STEP = dict(
    prompts=4, group=6, max_new_tokens=32
)  # of the full preset's step, what a CPU does in a second


RUN_STEPS, RUNS = PRESETS["full"].steps, 9  # a full run, and the sweep: 3 arms x 3 seeds


PHASES = {
    "whole step": "seconds",
    "sampling": "seconds_generate",
    "waiting for grades": "seconds_grade",
    "backward": "seconds_backward",
    "rest": "seconds_rest",
}


def measure_step(b: Bench) -> dict:
    """Whole steps of the full preset, arm projected, through train.py's loop; all numbers are read from its run directory."""
    model, _ = b.load()
    sizes = Sizes.of(model)
    del model
    release()
    full = dataclasses.replace(PRESETS["full"], **(TINY_STEP if b.config.shape == "tiny" else {}))
    with tempfile.TemporaryDirectory() as directory:
        asked = dataclasses.replace(
            full,
            model=b.model_name,
            arm="projected",
            steps=b.config.steps,
            problems=b.config.problems,
            workers=b.config.workers,
            dtype=b.config.dtype,
            device=b.config.device,
            out=f"{directory}/run",
            eval_samples=0,
            teacher_dir=None,
            svd_cache=None,
        )
        with contextlib.redirect_stdout(io.StringIO()):  # its final screen
            built = b.timed(lambda: b.train(asked, policy=Imposed))[0]
        path = Path(asked.out)
        run, summary, rows = (
            read_json(path / "config.json")["config"],
            read_json(path / "summary.json"),
            read_jsonl(path / "rows.jsonl"),
        )
        lengths = [
            [
                (r["plen"], r["comp_len"])
                for r in read_jsonl(path / "rollouts" / f"step_{row['step']:03d}.jsonl.gz")
            ]
            for row in rows
        ]
    steps = []
    for row, drawn in zip(rows, lengths):
        prompts, completions = (sum(part) for part in zip(*drawn))
        groups = [drawn[i : i + full.group] for i in range(0, len(drawn), full.group)]
        longest, positions = max(c for _, c in drawn), sum(map(attended, groups))
        operations = sizes.operations(prompts + completions, completions, passes=3 if run["beta"] else 2)
        step = {
            name: row[name]
            for name in (
                "seconds",
                "seconds_generate",
                "seconds_grade",
                "seconds_backward",
                "groups_skipped",
                "logp_gap",
            )
        }
        steps.append(
            step
            | {
                "seconds_rest": step["seconds"]
                - step["seconds_generate"]
                - step["seconds_grade"]
                - step["seconds_backward"],
                "prompt_tokens": prompts,
                "completion_tokens": completions,
                "longest": longest,
                "operations": operations,
                "floor_seconds_generate": sizes.decode_bytes(longest - 1, positions) / b.bandwidth,
                "floor_seconds_backward": operations / b.rate,
            }
        )
    counted = steps[1:] or steps  # the first one warms up
    medians = {name: statistics.median(step[name] for step in counted) for name in counted[0]}
    outside = built.seconds - sum(step["seconds"] for step in steps)
    medians["floor_seconds"] = medians["floor_seconds_generate"] + medians["floor_seconds_backward"]
    return {
        "steps": steps,
        "medians": medians,
        "memory": summary["memory"],
        "peak_gb": built.peak_gb,
        "prompts": full.prompts,
        "group": full.group,
        "max_new_tokens": full.max_new_tokens,
        "passes": 3 if run["beta"] else 2,
        "seconds_outside_steps": outside,
        "hours_a_run": RUN_STEPS * medians["seconds"] / 3600,
        "hours_all_runs": RUNS * RUN_STEPS * medians["seconds"] / 3600,
        "config": run,
    }


def show_step(found: dict) -> tuple[Table, str]:
    m, rows = found["medians"], []
    for name, key in PHASES.items():
        floor = m.get(f"floor_{key}")
        rows.append(
            (
                name,
                f"{m[key]:.3f}",
                f"{m[key] / m['seconds']:.0%}",
                number(floor, ".3f"),
                number(floor and m[key] / floor, ".1f"),
            )
        )
    drawn = found["prompts"] * found["group"]
    over = f"median of {len(found['steps']) - 1} after the first" if len(found["steps"]) > 1 else "the first"
    parts = ", ".join(f"{name} {size:.1f}" for name, size in found["memory"].items())
    return table(
        f"a full step, {found['prompts']} prompts x {found['group']} rollouts of up to {found['max_new_tokens']} tokens, {over}",
        ("phase", "seconds", "share", "floor, s", "x floor"),
        rows,
    ), (
        f"{RUN_STEPS} steps take {found['hours_a_run']:.2f} hours, {RUNS} runs {found['hours_all_runs']:.1f} (without set-up and held-out evaluation). "
        f"Lengths are imposed, as in a real pool: here {m['prompt_tokens'] / drawn:.0f} tokens a prompt, {m['completion_tokens'] / drawn:.0f} a "
        f"completion, the longest {m['longest']:.0f}. Texts are imposed too, and no group is skipped: the most expensive case. Sampling is with prefill; "
        f"grading runs beside it (tests of {found['config']['problems']}), and what is left of it is waited for. Writing a step's files is not in. "
        f"floors: the longest completion's token steps read all weights, each row its own keys and values and a group its prompt's, at the bandwidth "
        f"of a copy; {2 * found['passes']} operations a parameter and token{' (with the pass of the KL)' if found['passes'] == 3 else ''}. "
        f"Log-probabilities when drawn and in the training forward differ by {m['logp_gap']:.1e} a token. "
        f"First step {found['steps'][0]['seconds']:.3f} s; outside of the steps {found['seconds_outside_steps']:.1f} s"
        f"{'; peak GB: ' + parts if parts else ''}"
    )
