"""What sampling, the probe, a training step and the set-up cost, each beside its baselines and its floor in the same run.

    ceilings   what this machine copies and multiplies; every floor is computed from these two rates
    sampling   a token step in slots, beside the plain path and transformers' `generate`
    probe      gradients of every sample in one backward, beside the frozen base, a forward hook, and separate backwards
    step       whole steps of a `full` run through train.py itself; lengths and texts are imposed (bench_parts.Imposed)
    setup      the model from disk, the adapter cold and warm, merging, v_hack from the shipped pairs; beside LAPACK's gesvd

Weights are random: what is measured is cost. Tables show medians; --out has every single timing.

    python bench.py                                                   CPU, tiny weights: under a minute
    python bench.py --shape=qwen3-4b --device=cuda --out=FILE.json    one 80 GB GPU: some minutes
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import statistics
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
import tyro
from rich.table import Table

import extract_vhack
import models
import slots
import train
from antipasto import SVDAdapter, target_linears
from bench_parts import (
    GROUP,
    Imposed,
    Sizes,
    Timing,
    attended,
    gradient,
    highest,
    release,
    requests,
    sampler,
    timed,
    unless_out_of_memory,
    variants,
)
from draws import Request
from screen import progress, stdout
from store import InputError, check_numbers, exit_on_fault, provenance, read_json, read_jsonl, write_json


@dataclass(frozen=True)
class Config:
    """What to measure, and at which sizes. Sizes that are not given depend on the shape."""

    shape: Literal["tiny", "qwen3-0.6b", "qwen3-4b"] = "tiny"
    """Architecture with random weights."""
    sections: str = "ceilings,sampling,probe,step,setup"
    """Which parts to run, separated by commas."""
    dtype: models.Dtype = "auto"
    """auto: bf16 on a GPU, fp32 on a CPU. tf32: fp32 with matrix products in TF32 (10 bits of mantissa) where the GPU has it."""
    device: str = "auto"
    """auto, cpu, cuda, ..."""
    out: str | None = None
    """Write every timing as JSON to this file."""

    batches: str | None = None
    """sampling: batch sizes, separated by commas (8,64,258; tiny: 4,8)."""
    prompt_tokens: int | None = None
    """sampling: tokens of a prompt (256; tiny: 16)."""
    new_tokens: int | None = None
    """sampling: tokens of a completion (512; tiny: 32)."""
    eager_tokens: int | None = None
    """sampling: tokens that the slow baselines are timed over, in the middle of the completion (64; tiny: 24)."""
    samples: int = 8
    """probe: rows of the batch."""
    tokens: int = 768
    """probe: tokens of a row; the last two thirds are the completion."""
    rounds: int = 7
    """probe: timed rounds, after two that are not."""
    steps: int = 3
    """step: training steps; the first warms up and is not in the table (unless it is the only one)."""
    problems: str | None = None
    """step: problem file whose tests are run (default: the shipped one)."""
    workers: int | None = None
    """step: grader processes (default: one a core)."""


FULL_SIZES = dict(batches="8,64,258", prompt_tokens=256, new_tokens=512, eager_tokens=64)
TINY_SIZES = dict(batches="4,8", prompt_tokens=16, new_tokens=32, eager_tokens=24)
TINY_STEP = dict(
    prompts=4, group=6, max_new_tokens=32
)  # of the full preset's step, what a CPU does in a second
REPEATS = 3  # timings of which the median is taken, where --rounds does not say
EAGER_FIRST = 8  # tokens of the slow baselines that are timed to be subtracted
RUN_STEPS, RUNS = train.PRESETS["full"].steps, 9  # a full run, and the sweep: 3 arms x 3 seeds


def resolve(config: Config) -> Config:
    """Fill in the sizes that were not given. InputError for values that cannot be measured."""
    check_numbers(
        config,
        at_least={
            "prompt_tokens": 1,
            "new_tokens": 2,
            "eager_tokens": 1,
            "samples": 1,
            "tokens": 3,
            "rounds": 1,
            "steps": 1,
            "workers": 1,
        },
    )
    sections = [name.strip() for name in config.sections.split(",")]
    if unknown := sorted(set(sections) - set(SECTIONS)):
        raise InputError(f"--sections {config.sections}: {unknown[0]!r} is none of {', '.join(SECTIONS)}")
    if config.batches and not all(part.strip().isdigit() and int(part) for part in config.batches.split(",")):
        raise InputError(f"--batches {config.batches}: expected positive numbers, separated by commas")
    sizes = TINY_SIZES if config.shape == "tiny" else FULL_SIZES
    return dataclasses.replace(
        config,
        sections=",".join(sections),
        **{name: size for name, size in sizes.items() if getattr(config, name) is None},
    )


@dataclass(frozen=True)
class Bench:
    """What every section needs: the sizes, where to run, and the measured ceilings."""

    config: Config
    device: torch.device
    bandwidth: float = 1.0  # bytes a second
    rate: float = 1.0  # operations a second

    @property
    def model_name(self) -> str:
        return models.TINY if self.config.shape == "tiny" else f"random-{self.config.shape}"

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    @property
    def usual_norms(self) -> Callable[[torch.nn.Module], torch.nn.Module]:
        """Puts the norms in place that a run has on this device."""
        return models.fused_norms if self.on_gpu else models.plain_norms

    def load(self) -> tuple[torch.nn.Module, object]:
        return models.load(self.model_name, dtype=self.config.dtype, device=self.config.device)

    def timed(self, action: Callable[[], object], repeats: int = 1) -> list[Timing]:
        return [timed(action, self.device) for _ in range(repeats)]


def middle(timings: Sequence[Timing]) -> float:
    return statistics.median(t.seconds for t in timings)


def every(timings: Sequence[Timing]) -> list[float]:
    return [t.seconds for t in timings]


def number(value: float | None, form: str) -> str:
    """A cell of a table; a dash where nothing was measured."""
    return "-" if value is None else format(value, form)


def table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """First column to the left, numbers to the right."""
    made = Table(title=title, title_justify="left")
    for i, heading in enumerate(headings):
        made.add_column(heading, justify="right" if i else "left", no_wrap=not i)
    for row in rows:
        made.add_row(*row)
    return made


# --- ceilings ------------------------------------------------------------------------------------------------------


def measure_ceilings(b: Bench) -> dict:
    """Bytes a second of a copy (read and written), operations a second of a square matrix product in the model's dtype."""
    size, side, times = (2 << 30, 8192, 4) if b.on_gpu else (128 << 20, 1024, 4)
    dtype = models.pick_dtype(b.config.dtype, b.device)
    source = torch.ones(size, dtype=torch.uint8, device=b.device)
    target = torch.empty_like(source)
    left, right = torch.randn(2, side, side, device=b.device).to(dtype)
    product = torch.empty_like(left)
    copies = b.timed(lambda: [target.copy_(source) for _ in range(times)], REPEATS + 1)[1:]
    products = b.timed(lambda: [torch.mm(left, right, out=product) for _ in range(times)], REPEATS + 1)[1:]
    return {
        "copied_bytes": size,
        "side": side,
        "dtype": str(dtype),
        "times": times,
        "copy_seconds": every(copies),
        "product_seconds": every(products),
        "bandwidth": 2 * size * times / middle(copies),
        "rate": 2 * side**3 * times / middle(products),
    }


def show_ceilings(found: dict) -> tuple[Table, str]:
    return table(
        "ceilings of this machine",
        ("what", "measured", "with"),
        [
            (
                "bandwidth, read + written",
                f"{found['bandwidth'] / 1e9:.3g} GB/s",
                f"a copy of {found['copied_bytes'] / 1e9:.2g} GB",
            ),
            (
                "matrix rate",
                f"{found['rate'] / 1e12:.3g} TFLOP/s",
                f"{found['side']}^3, {found['dtype'].removeprefix('torch.')}",
            ),
        ],
    ), ("every floor below is bytes over this bandwidth or operations over this rate")


# --- sampling ------------------------------------------------------------------------------------------------------


def measure_sampling(b: Bench) -> dict:
    """Every path at every batch size. Each is timed over a long and a short number of tokens; the difference is token steps and nothing else."""
    model, _ = b.load()
    sizes, config, rows = Sizes.of(model), b.config, []
    batches = sorted(map(int, config.batches.split(",")))
    with_generate = 64 if 64 in batches else batches[len(batches) // 2]
    length = config.prompt_tokens + config.new_tokens / 2
    # The slow paths decode a stretch around the same mean length; less of it is the rows' own, so their floors are lower.
    eager = (
        max(1, round(length - config.eager_tokens / 2) - EAGER_FIRST),
        EAGER_FIRST,
        EAGER_FIRST + config.eager_tokens,
    )
    with progress("sampling", 2 * len(batches) + 1) as bar:
        for batch in batches:
            for path in ("slots", "plain", *(["generate"] if batch == with_generate else [])):
                prompt, short, long = (
                    (config.prompt_tokens, 1, config.new_tokens) if path == "slots" else eager
                )
                found = unless_out_of_memory(
                    lambda: decoded(
                        b, model, path, requests(batch, prompt, model.config.vocab_size), short, long
                    )
                )
                if "error" not in found:
                    positions = batch * (short + long) / 2 + -(-batch // GROUP) * prompt
                    floor = sizes.decode_bytes(1, positions) / b.bandwidth
                    found |= {"floor_ms": 1e3 * floor, "x_floor": batch / floor / found["tokens_per_second"]}
                rows.append({"path": path, "batch": batch, "prompt_tokens": prompt, **found})
                release()
                bar()
    compared = {
        row["batch"]: row["tokens_per_second"]
        for row in rows
        if row["path"] == "generate" and "error" not in row
    }
    for row in rows:
        row["x_generate"] = (
            row["tokens_per_second"] / compared[row["batch"]]
            if "error" not in row and row["batch"] in compared
            else None
        )
    return {
        "rows": rows,
        "mean_length": length,
        "kv_bytes": sizes.kv_bytes,
        "weight_bytes": sizes.weight_bytes,
        "floor_weights_ms": 1e3 * sizes.decode_bytes(1, 0) / b.bandwidth,
    }


def decoded(b: Bench, model: torch.nn.Module, path: str, asked: list[Request], short: int, long: int) -> dict:
    """One path's timings, and its token steps without the prefill."""
    counted: Counter[str] = Counter()
    draw = sampler(model, path, asked, counted)
    (models.plain_norms if path == "generate" else b.usual_norms)(model)
    draw(min(long, 2 * slots.LOOK))  # compiles and warms up
    brief = b.timed(lambda: draw(short), REPEATS)
    counted.clear()
    whole = b.timed(lambda: draw(long), REPEATS)
    seconds = (middle(whole) - middle(brief)) / (long - short)
    at_once = (
        counted["token steps"] <= REPEATS * -(-long // slots.LOOK) * slots.LOOK
    )  # else some rows had to wait for others (none do in `generate`)
    return {
        "short_tokens": short,
        "long_tokens": long,
        "short_seconds": every(brief),
        "long_seconds": every(whole),
        "at_once": at_once,
        "ms_a_step": 1e3 * seconds if at_once else None,
        "tokens_per_second": len(asked) / seconds,
        "whole_tokens_per_second": len(asked) * long / middle(whole) if path == "slots" else None,
        "peak_gb": highest(whole),
    }


def show_sampling(found: dict) -> tuple[Table, str]:
    rows = [
        (
            f"{r['path']}, batch {r['batch']}",
            *(
                [r["error"][:40]] + [""] * 7
                if "error" in r
                else (
                    number(r["ms_a_step"], ".2f"),
                    number(r["tokens_per_second"], ",.0f"),
                    number(r["x_generate"], ".1f"),
                    number(r["floor_ms"], ".2f"),
                    number(r["x_floor"], ".2f"),
                    number(r["whole_tokens_per_second"], ",.0f"),
                    number(r["peak_gb"], ".1f"),
                )
            ),
        )
        for r in found["rows"]
    ]
    headings = (
        "path",
        "ms a token step",
        "tokens/s",
        "x faster than generate",
        "floor, ms a step",
        "x floor",
        "tokens/s, prefill in",
        "peak GB",
    )
    slow = next(
        (r for r in found["rows"] if r["path"] != "slots" and "error" not in r),
        {"short_tokens": 0, "long_tokens": 0},
    )
    ours = next((r for r in found["rows"] if r["path"] == "slots" and "error" not in r), {"long_tokens": 0})
    return table("sampling", headings, rows), (
        f"ms a step and tokens/s are without prefill: the time of {ours['long_tokens']} tokens less that of the first (plain, generate: of "
        f"{slow['long_tokens']} less that of {slow['short_tokens']}, around the same mean length, {found['mean_length']:.0f}); slots include capturing "
        f"their graph. {GROUP} rows share a prompt; nothing ends early. A dash for ms a step: some rows had to wait for others. floor: all weights, the "
        f"keys and values of what was drawn, and those of the prompts once a group are read; the weights alone, {found['weight_bytes'] / 1e9:.3g} GB, take "
        f"{found['floor_weights_ms']:.3g} ms."
    )


# --- probe ---------------------------------------------------------------------------------------------------------


def measure_probe(b: Bench) -> dict:
    """The candidates by turns on the same rows. On a GPU the floor and ours run with transformers' norms and with the fused ones."""
    model, _ = b.load()
    sizes, config = Sizes.of(model), b.config
    with progress("set-up: SVD of the target modules") as bar:
        adapter = SVDAdapter(model, cache=None, track=bar.track)
    torch.manual_seed(0)
    with torch.no_grad():  # away from zero, so that nothing is skipped
        for p in adapter.params.values():
            p.normal_(std=1e-3)
    prompt = config.tokens // 3
    ids = torch.randint(0, model.config.vocab_size, (config.samples, config.tokens)).tolist()
    actions = variants(adapter, [(row[:prompt], row[prompt:]) for row in ids])
    candidates = {name: (b.usual_norms, action) for name, action in actions.items()}
    if b.on_gpu:  # (a) is the base as transformers runs it
        floor, ours = actions["(a) floor"], candidates.pop("(b) ours")
        candidates = {
            "(a) floor": (models.plain_norms, floor),
            "(a') floor, fused norms": (models.fused_norms, floor),
            "(b) ours": ours,
            "(b') ours, plain norms": (models.plain_norms, ours[1]),
        } | {name: candidate for name, candidate in candidates.items() if name != "(a) floor"}
    timings = {name: [] for name in candidates}
    with progress("rounds", (config.rounds + 2) * len(candidates)) as bar:
        for _ in range(config.rounds + 2):
            for name, (norms, action) in candidates.items():
                norms(model)
                for p in adapter.params.values():
                    p.grad = None
                timings[name] += b.timed(action)
                bar()
    b.usual_norms(model)
    ours, hook = (gradient(adapter, actions[name]) for name in ("(b) ours", "(c) hook"))
    operations = sizes.operations(
        config.samples * config.tokens, config.samples * (config.tokens - prompt), passes=2
    )
    rows = {
        name: {"seconds": middle(t[2:]), "all": every(t[2:]), "peak_gb": highest(t[2:])}
        for name, t in timings.items()
    }
    for row in rows.values():
        row |= {
            "x_floor": row["seconds"] / rows["(a) floor"]["seconds"],
            "x_ours": row["seconds"] / rows["(b) ours"]["seconds"],
            "x_fused_floor": row["seconds"] / rows["(a') floor, fused norms"]["seconds"]
            if b.on_gpu
            else None,
        }
    return {
        "rows": rows,
        "samples": config.samples,
        "tokens": config.tokens,
        "modules": len(adapter.layers),
        "operations": operations,
        "operations_seconds": operations / b.rate,
        "gradient_difference": float((ours - hook).norm() / hook.norm()),
    }


def show_probe(found: dict) -> tuple[Table, str]:
    fused = any(r["x_fused_floor"] for r in found["rows"].values())
    rows = [
        (
            name,
            f"{r['seconds']:.4f}",
            f"{r['x_floor']:.2f}",
            *([f"{r['x_fused_floor']:.2f}"] if fused else []),
            f"{r['x_ours']:.2f}",
            number(r["peak_gb"], ".1f"),
        )
        for name, r in found["rows"].items()
    ]
    title = f"probe step, {found['samples']} x {found['tokens']} tokens, {found['modules']} modules, median of {len(found['rows']['(b) ours']['all'])}"
    norms = "(a) and (b') run with the norms of transformers, all others with fused ones. " if fused else ""
    reach = {
        name: found["operations_seconds"] / found["rows"][name]["seconds"]
        for name in ("(a) floor", "(b) ours")
    }
    return table(
        title, ("", "seconds", "x (a)", *(["x (a')"] if fused else []), "(b) is faster by", "peak GB"), rows
    ), (
        "(a) frozen base, forward and gradient of the activations; (b) gradients of every sample in one backward, and (no samples) of the whole batch "
        f"only; (c) forward hook, no gradients of samples; (d) the hook, one backward a sample. {norms}"
        f"(a) needs {found['operations'] / 1e12:.3g} TFLOP (4 x parameters of Linears x tokens, and the head): {found['operations_seconds']:.4f} s at "
        f"the measured rate, of which (a) reaches {reach['(a) floor']:.0%} and (b), which computes more, {reach['(b) ours']:.0%}. "
        f"gradient of (b) against (c): {found['gradient_difference']:.1e} relative"
    )


# --- step ----------------------------------------------------------------------------------------------------------

PHASES = {
    "whole step": "seconds",
    "sampling": "seconds_generate",
    "waiting for grades": "seconds_grade",
    "backward": "seconds_backward",
    "rest": "seconds_rest",
}


def measure_step(b: Bench) -> dict:
    """Whole steps of the full preset, arm projected, through train.train; all numbers are read from its run directory."""
    model, _ = b.load()
    sizes = Sizes.of(model)
    del model
    release()
    full = dataclasses.replace(train.PRESETS["full"], **(TINY_STEP if b.config.shape == "tiny" else {}))
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
            built = b.timed(lambda: train.train(asked, policy=Imposed))[0]
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


# --- set-up --------------------------------------------------------------------------------------------------------


def measure_setup(b: Bench) -> dict:
    """The model from disk; the adapter without a cache, filling one, and from it; merging; extraction; and what LAPACK's driver would take."""
    with tempfile.TemporaryDirectory() as directory:
        for part in b.load():
            part.save_pretrained(directory)
        del part
        release()
        loaded: list[tuple] = []
        timing = b.timed(
            lambda: loaded.append(models.load(directory, dtype=b.config.dtype, device=b.config.device))
        )[0]
    model, tokenizer = loaded.pop()
    found = {
        "loading the model": {"seconds": timing.seconds, "all": [timing.seconds], "peak_gb": timing.peak_gb}
    }
    sizes, linears = Sizes.of(model), dict(target_linears(model))
    solve = (
        (lambda W: torch.linalg.svd(W, full_matrices=False, driver="gesvd"))
        if b.on_gpu
        else (lambda W: torch.linalg.svd(W, full_matrices=False))
    )
    if b.on_gpu:  # the solver libraries load once, not per model
        torch.linalg.eigh(torch.eye(8, dtype=torch.float64, device=b.device))
        solve(torch.eye(8, device=b.device))
    counts, gesvd = Counter(linear.weight.shape for linear in linears.values()), {}
    for shape, linear in {linear.weight.shape: linear for linear in linears.values()}.items():
        W = linear.weight.detach().float()
        gesvd["x".join(map(str, shape))] = {
            "seconds": b.timed(lambda: solve(W))[0].seconds,
            "modules": counts[shape],
        }

    with tempfile.TemporaryDirectory() as directory:
        for name, cache in (
            ("cold, no cache", None),
            ("cold, filling a cache", directory),
            ("warm, from the cache", directory),
        ):
            adapter = None
            for place, linear in linears.items():  # in place of what the adapter before this one put there
                model.set_submodule(place, linear)
            release()
            with progress(f"set-up: {name}") as bar:
                made: list[SVDAdapter] = []
                timing = b.timed(lambda: made.append(SVDAdapter(model, cache=cache, track=bar.track)))[0]
            adapter = made.pop()
            found[name] = {
                "seconds": timing.seconds,
                "all": [timing.seconds],
                "peak_gb": timing.peak_gb,
                "hits": adapter.cache.hits,
                "seconds_until_written": b.timed(adapter.cache.flush)[0].seconds,
            }  # on a GPU files are written behind its back

    def merge() -> None:
        with torch.no_grad():
            for p in adapter.params.values():
                p.add_(1e-3)  # else there is nothing to do
        with adapter.merged():
            pass

    merges = b.timed(merge, REPEATS + 1)[1:]
    found["merging all modules"] = {
        "seconds": middle(merges),
        "all": every(merges),
        "peak_gb": highest(merges),
    }
    settings, full = extract_vhack.Settings(), train.PRESETS["full"]
    pairs, source = extract_vhack.find_pairs(
        b.model_name,
        tokenizer,
        model,
        pairs=None,
        pool=None,
        problem_file=None,
        clean="canonical",
        settings=settings,
    )
    timing = b.timed(
        lambda: extract_vhack.extract(
            adapter, tokenizer, pairs, settings, source=source, tokens=full.micro_tokens
        )
    )[0]
    answers = sum(len(p.hack_ids) + len(p.clean_ids) for p in pairs)
    tokens = answers + sum(2 * len(p.prompt_ids) for p in pairs)
    found["v_hack from the shipped pairs"] = {
        "seconds": timing.seconds,
        "all": [timing.seconds],
        "peak_gb": timing.peak_gb,
        "floor_seconds": sizes.operations(tokens, answers, passes=2) / b.rate,
    }
    return {
        "rows": found,
        "modules": len(linears),
        "gesvd": gesvd,
        "gesvd_seconds": sum(g["seconds"] * g["modules"] for g in gesvd.values()),
        "pairs": len(pairs),
        "pair_tokens": tokens,
    }


def show_setup(found: dict) -> tuple[Table, str]:
    rows = []
    for name, r in found["rows"].items():
        floor = r.get("floor_seconds")
        rows.append(
            (
                name,
                f"{r['seconds']:.3f}",
                f"{found['gesvd_seconds'] / r['seconds']:.1f}" if "hits" in r else "-",
                number(floor, ".3f"),
                number(floor and r["seconds"] / floor, ".1f"),
                number(r["peak_gb"], ".1f"),
            )
        )
    rows.append(("SVD by gesvd, fp32 (estimate)", f"{found['gesvd_seconds']:.3f}", "1.0", "-", "-", "-"))
    return table(
        f"set-up of {found['modules']} modules",
        ("what", "seconds", "x faster than gesvd", "floor, s", "x floor", "peak GB"),
        rows,
    ), (
        f"gesvd is estimated from {len(found['gesvd'])} modules, one of each shape. The model is loaded and each adapter built once, merging is a median of "
        f"{REPEATS}. The model's files were just written, and those of the cache, from which {found['rows']['warm, from the cache']['hits']} of {found['modules']} came: "
        f"{found['rows']['cold, filling a cache']['seconds_until_written']:.1f} s after the cold adapter was ready. v_hack: "
        f"{found['pairs']} pairs, {found['pair_tokens']} tokens, with its held-out quality and permutations; floor: 4 operations a parameter and token"
    )


# --- all of it -----------------------------------------------------------------------------------------------------

SECTIONS: dict[str, tuple[Callable[[Bench], dict], Callable[[dict], tuple[Table, str]]]] = {
    "ceilings": (measure_ceilings, show_ceilings),
    "sampling": (measure_sampling, show_sampling),
    "probe": (measure_probe, show_probe),
    "step": (measure_step, show_step),
    "setup": (measure_setup, show_setup),
}


def main(config: Config) -> None:
    config, console = resolve(config), stdout()
    b = Bench(config, models.pick_device(config.device))
    where = torch.cuda.get_device_name(b.device) if b.on_gpu else f"CPU, {torch.get_num_threads()} threads"
    record = {"config": asdict(config), "device": where, **provenance()}
    console.print(f"{config.shape}, random weights, {where}", highlight=False)
    for name, (measure, show) in SECTIONS.items():
        if name != "ceilings" and name not in config.sections.split(","):
            continue
        found = record[name] = unless_out_of_memory(lambda: measure(b))
        release()
        if name == "ceilings":
            if "error" in found:
                raise InputError(
                    f"{where}: nothing can be measured beside what runs there already ({found['error']})"
                )
            b, record["dtype"] = (
                dataclasses.replace(b, bandwidth=found["bandwidth"], rate=found["rate"]),
                found["dtype"],
            )
        shown, caption = (
            (table(name, ("what", ""), [("failed", found["error"])]), "") if "error" in found else show(found)
        )
        if name in config.sections.split(","):
            console.print(shown)
            console.print(caption, highlight=False, markup=False)
        if config.out:
            write_json(config.out, record)  # after every section, so that what is done is kept


if __name__ == "__main__":
    exit_on_fault(lambda: main(tyro.cli(Config, description=__doc__)))
