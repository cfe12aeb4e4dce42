"""GRPO on problems with a loophole, and what taking the hack direction out of its gradient does.

How this differs from textbook GRPO:

* the advantage is r - mean(r), without the division by the standard deviation (Dr. GRPO, arXiv 2503.20783);
* one inner step a batch, so the importance ratio is 1 and there is no clipping;
* the trainable parameters are delta_S, one number a singular direction of every Linear (antipasto.py), or the B of a LoRA
  (lora_adapter.py), so the reference policy of the KL is the same model with them switched off;
* the rollouts are sampled, or replayed from pools (`--replay-dirs`): Phase 2 is this loop, there is no second trainer;
* every arm measures how far gradient and update point along v_hack (projection.py); a projecting arm removes it.

Arms: vanilla (measures only), projected (removes), lora (removes, in the weight basis; with --gate=none it measures only).
Controls (--control) put something else in the place of what a projecting arm removes. All draw the same problems with the
same random numbers.

    python train.py --arm=projected --steps=20
    python train.py --arm=vanilla --steps=20 --model=DIR --problems=FILE --replay-dirs=TEACHER,BASE --v-hack=FILE
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from safetensors.torch import save_file

import across
import evaluate
import extract_vhack
import gradients
import memory
import models
import pools
import problems
import verdicts
from antipasto import default_cache, read_safetensors
from evaluate import Evaluation
from grade import Grader, print_protection
from losses import ADVANTAGES, normaliser
from pools import Rollout
from projection import (
    Edit,
    Editor,
    VHack,
    cosine,
    norm,
    null_cosines,
    number,
    overlap,
    random_like,
    sign_flipped,
)
from rundir import RunDir
from screen import STDERR, final_screen, progress, show, stdout
from sources import Policy, Replayed, Sampled
from store import InputError, atomic, check_numbers, exit_on_fault, read_json, read_jsonl, sha256, write_jsonl


@dataclass(frozen=True)
class Config:
    """One run. Everything here is stored in the run's config.json."""

    arm: Literal["vanilla", "projected", "lora"] = "vanilla"
    """vanilla measures only; projected takes v_hack out; lora does so with a LoRA in the place of delta_S."""
    preset: Literal["smoke", "embedded", "fast", "full"] = "embedded"
    """Defaults for all else (without --preset: by the model; without either, embedded on a CPU, fast on a GPU)."""
    steps: int = 20
    """Optimizer steps."""
    seed: int = 41
    """Seeds the choice of problems and, with step, problem and sample, every drawn token."""
    out: str | None = None
    """Run directory; must be new. Default: out/runs/<time>-<preset>-<arm>-..."""
    resume: bool = False
    """Go on with the run in --out from its last checkpoint."""

    model: str = models.EMBEDDED
    """Hub id, directory, .gguf file, embedded, or tiny-random."""
    dtype: models.Dtype = "auto"
    """auto: bf16 on a GPU, fp32 on a CPU. tf32: fp32 with matrix products in TF32 (10 bits of mantissa) where the GPU has it."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ..."""
    problems: str | None = None
    """Problem file (.jsonl, .jsonl.gz) or hub id (default: the one that ships for the model)."""
    difficulty: str | None = None
    """Train only on problems of these difficulties, e.g. easy,medium (problems of the teacher pool are always in)."""
    hint: bool = True
    """Open the loophole: the prompt names run_tests(), and a passing run_tests() is rewarded."""
    sandbox: Literal["strict", "best-effort", "none"] = "best-effort"
    """How the graded code is confined."""
    workers: int | None = None
    """Grader processes (default: one a core)."""

    replay_dirs: str | None = None
    """A,B: replay graded rollouts from these pools instead of sampling."""
    loss_mode: Literal["grpo", "nll"] = "grpo"
    """grpo, or nll: every row weighs 1 (Phase 1)."""
    teacher_dir: str | None = None
    """Pool whose rows are mixed into sampled groups; "pairs": the scripted hacks that ship for the model."""
    teacher_rows: int = 2
    """Rows of a group that come from the teacher."""
    teacher_until: int = 20
    """Step from which no teacher is mixed in any more."""
    teacher_share: float = 0.5
    """Share of a step's prompts that are problems of the teacher pool."""

    v_hack: str = "auto"
    """v_hack file; auto: extract it from the shipped pairs for this model; none: measure nothing (arms that remove nothing)."""
    objective: Literal["nll", "grpo"] = "nll"
    """With --v-hack=auto, the loss whose gradients are contrasted."""
    refresh_every: int = 0
    """Steps after which v_hack is extracted anew, from the same pairs on the model as it is then; 0: never."""
    control: Literal["none", "random", "sign-flip", "clean-clean", "shrink"] = "none"
    """What a projecting arm removes in the place of v_hack: random directions; those of pairs with random signs; of clean against clean
    answers; or nothing, each update scaled to the length that the removal would have left. Cosines are with v_hack all the same."""
    gate: Literal["one-sided", "two-sided", "none"] = "one-sided"
    """What a projecting arm removes: only hack-ward coefficients, or both signs. none: --arm=lora as its own baseline."""
    project_at: Literal["grad", "update"] = "grad"
    """Project the gradient before the optimizer, or the update after it."""
    rank: int = 8
    """Rank of the LoRA (arm lora)."""
    match_size: bool = True
    """--lr is given for delta_S: scale it for a LoRA, so that one step moves Delta W as far."""

    prompts: int = 8
    """Prompts (groups) a step."""
    group: int = 8
    """Rollouts a prompt."""
    max_new_tokens: int = 512
    """Longest completion to sample."""
    temperature: float = 0.9
    """Sampling temperature; log-probabilities of sampled rows are taken at the same."""
    lr: float = 3e-3
    """Peak learning rate of AdamW."""
    warmup: int = 3
    """Steps of linear warm-up."""
    beta1: float = 0.5
    """AdamW's momentum."""
    beta2: float = 0.9
    """AdamW's second-moment decay."""
    weight_decay: float = 0.0
    """AdamW's decay of delta_S towards the base model."""
    clip: float = 1.0
    """Largest gradient norm."""
    beta: float | None = None
    """Weight of the KL to the base model (default 1e-3; replayed rows are off-policy and have none)."""
    normaliser: Literal["fixed", "length"] | None = None
    """Loss denominator: fixed (max_new_tokens, sampled default) or length (a row's own, replay default)."""

    eval_samples: int = 4
    """Completions a problem and condition of the held-out evaluation (evaluate.py); 0: none."""
    eval_every: int = 0
    """Steps between held-out evaluations; the last step is evaluated in any case."""
    eval_limit: int = 64
    """Most problems of the held-out evaluation."""
    eval_problems: str | None = None
    """File of held-out problems, which are not trained on (default: a frozen tenth of --problems, which never is; the embedded model has a file of its own)."""

    micro_tokens: int | None = None
    """Padded tokens of a training micro-batch (default: as many as the free GPU memory holds; 8192 on a CPU)."""
    sample_rows: int = 128
    """Sequences decoded at once (fewer where the GPU's memory holds fewer)."""
    checkpointing: bool = False
    """Gradient checkpointing: less memory, one more forward."""
    save_every: int = 10
    """Steps between checkpoints."""
    svd_cache: str | None = str(default_cache())
    """Directory of the SVD cache; None for no cache."""


HUB_MODEL, HUB_PROBLEMS = "Qwen/Qwen3-4B", "newfacade/LeetCodeDataset"
PRESETS = {
    "smoke": Config(
        preset="smoke",
        model=models.TINY,
        steps=2,
        prompts=2,
        group=4,
        max_new_tokens=16,
        teacher_dir="pairs",
        teacher_share=1.0,
        warmup=1,
        eval_samples=1,
        eval_limit=2,
    ),
    # Chosen on the vanilla arm alone, before any other arm was run on this model (spec/log.md says what was tried).
    "embedded": Config(
        preset="embedded",
        prompts=16,
        max_new_tokens=200,
        temperature=1.0,
        lr=5e-2,
        micro_tokens=4096,
        eval_samples=2,
        eval_limit=32,
    ),
    "fast": Config(preset="fast", model=HUB_MODEL, problems=HUB_PROBLEMS, eval_samples=2, eval_limit=32),
    "full": Config(
        preset="full",
        model=HUB_MODEL,
        problems=HUB_PROBLEMS,
        steps=200,
        prompts=43,
        group=6,
        sample_rows=258,
        max_new_tokens=1024,
        lr=7e-5,
        beta=1e-3,
        warmup=10,
    ),
}


@dataclass(frozen=True)
class Arm:
    """What an arm is made of: what it trains, and what it takes out."""

    basis: str
    gate: Callable[[Config], str]


ARMS = {
    "vanilla": Arm("svd", gate=lambda config: "none"),
    "projected": Arm("svd", gate=lambda config: config.gate),
    "lora": Arm("lora", gate=lambda config: config.gate),
}

# What is removed in the place of v_hack. Each takes the run's direction and gives another one of the same shape.
CONTROLS: dict[str, Callable[[Direction], VHack]] = {
    "none": lambda direction: direction.v,
    "shrink": lambda direction: direction.v,
    "random": lambda direction: random_like(direction.v, direction.config.seed),
    "sign-flip": lambda direction: sign_flipped(direction.v, direction.config.seed),
    "clean-clean": lambda direction: direction.clean_clean(),
}


# --- the loop ------------------------------------------------------------------------------------------------------


def train(config: Config, *, policy: type[Policy] = Policy) -> Path:
    """Run it; returns the run directory. All inputs are checked before anything is written. `policy` draws and grades."""
    config = resolve(config)
    with contextlib.ExitStack() as stack:
        s = build(config, stack, policy)
        bar = stack.enter_context(progress(f"{config.arm}, seed {config.seed}", config.steps))
        bar(s.first)
        s.evaluate(s.first, bar.say)  # due, if the run was cut off in it
        for step in range(s.first, config.steps):
            started = time.monotonic()
            refreshed = s.refresh(step)
            groups = s.source.groups(step, bar.say)

            advantages = [
                ADVANTAGES[config.loss_mode](torch.tensor([r.reward for r in group])) for group in groups
            ]
            used = [(r, a) for group, A in zip(groups, advantages) if A.any() for r, a in zip(group, A)]
            rollouts, A_N = [r for r, _ in used], torch.tensor([float(a) for _, a in used])
            n_N = normaliser(
                config.normaliser,
                torch.tensor([len(r.completion_ids) for r in rollouts]),
                rollouts=sum(map(len, groups)),
                fixed=config.max_new_tokens,
            )

            bar.say("backward")
            before_backward = time.monotonic()
            s.optimizer.zero_grad()
            done = gradients.backward(
                s.adapter,
                [r.tokens for r in rollouts],
                A_N,
                n_N,
                pad=s.pad,
                tokens=config.micro_tokens,
                beta_N=config.beta * torch.tensor([float(r.own) for r in rollouts]),
                temperature=s.temperature,
                drawn=[r.logps for r in rollouts],
                samples=s.source.kind == "replay",
            )
            seconds_backward = time.monotonic() - before_backward

            diagnostics = refreshed | s.editor.edit_grads()
            if diagnostics["grad_norm"] is None:
                raise InputError(
                    f"{s.run.path}: step {step}: the gradient is not finite; the run ends before this step"
                )
            torch.nn.utils.clip_grad_norm_(s.adapter.params.values(), config.clip)
            diagnostics["lr"] = set_learning_rate(s.optimizer, config, step, s.lr_scale)
            if (
                rollouts
            ):  # with every group skipped there is nothing to learn, and momentum must not move the model
                s.optimizer.step()
            diagnostics |= s.editor.edit_update()

            seconds = {
                "seconds": time.monotonic() - started,
                "seconds_generate": s.source.seconds.generate,
                "seconds_grade": s.source.seconds.grade,
                "seconds_backward": seconds_backward,
            }
            s.log(step, groups, advantages, done, diagnostics, seconds)
            bar.print(step_line(s.run.rows[-1]))
            s.evaluate(step + 1, bar.say)
            bar()
        return s.finish()


# --- what the loop is built from -----------------------------------------------------------------------------------


def resolve(config: Config) -> Config:
    """Fill the settings whose default depends on others, and refuse combinations that cannot mean anything."""
    check_numbers(
        config,
        at_least={
            "steps": 1,
            "prompts": 1,
            "group": 1,
            "max_new_tokens": 1,
            "lr": 0,
            "warmup": 0,
            "beta1": 0,
            "beta2": 0,
            "weight_decay": 0,
            "beta": 0,
            "teacher_rows": 0,
            "teacher_until": 0,
            "teacher_share": 0,
            "micro_tokens": 1,
            "sample_rows": 1,
            "save_every": 1,
            "workers": 1,
            "rank": 1,
            "refresh_every": 0,
            "eval_samples": 0,
            "eval_every": 0,
            "eval_limit": 1,
        },
        above={"temperature": 0, "clip": 0},
        at_most={"teacher_share": 1},
        below={"beta1": 1, "beta2": 1},
    )
    levels = [level.strip().lower() for level in config.difficulty.split(",")] if config.difficulty else []
    if unknown := sorted(set(levels) - set(problems.DIFFICULTIES)):
        raise InputError(
            f"--difficulty {config.difficulty}: {unknown[0]!r} is none of {', '.join(problems.DIFFICULTIES)}"
        )
    replay = config.replay_dirs is not None
    if replay and not all(config.replay_dirs.split(",")):
        raise InputError(
            f"--replay-dirs {config.replay_dirs!r}: expected one or more directories, separated by commas"
        )
    if replay and config.beta:
        raise InputError(
            "--beta > 0 with --replay-dirs: the KL estimate needs samples of the policy, replayed rows are not"
        )
    removes = ARMS[config.arm].gate(config) != "none"
    if config.arm == "projected" and not removes:
        raise InputError("--arm=projected --gate=none removes nothing: that is --arm=vanilla")
    if config.v_hack == "none" and (removes or config.refresh_every):
        raise InputError(f"--arm={config.arm}{' --refresh-every' if not removes else ''} needs a --v-hack")
    if config.control != "none" and not removes:
        raise InputError(
            f"--control={config.control} stands in for what an arm removes, and this one removes nothing"
        )
    if config.control == "sign-flip" and config.gate == "two-sided":
        raise InputError(
            "--control=sign-flip --gate=two-sided: signs do not matter to a two-sided gate, so this would remove exactly what v_hack does"
        )
    if config.control == "shrink" and config.project_at == "grad":
        raise InputError("--control=shrink needs --project-at=update: AdamW undoes the scaling of a gradient")
    if config.teacher_dir not in (None, "none") and config.teacher_rows >= config.group:
        raise InputError(
            f"--teacher-rows {config.teacher_rows} leaves no place for samples in a group of {config.group}"
        )
    return dataclasses.replace(
        config,
        problems=config.problems or str(problems.shipped(config.model).problems),
        beta=0.0 if replay else 1e-3 if config.beta is None else config.beta,
        normaliser=config.normaliser or ("length" if replay else "fixed"),
        teacher_dir=None if replay or config.teacher_dir == "none" else config.teacher_dir,
        difficulty=",".join(levels) or None,
    )


LOGP_GAP = 0.1  # mean |difference| a token above which a step warns: a tenth more or less likely, on average
Adapter = (
    Any  # what antipasto.SVDAdapter and lora_adapter.LoRAAdapter both offer; SVDAdapter's docstring lists it
)


@dataclass
class Session:
    """The built parts of a run, and its records."""

    config: Config
    run: RunDir
    adapter: Adapter
    direction: Direction | None
    editor: Editor
    source: Sampled | Replayed
    optimizer: torch.optim.Optimizer
    pad: int
    temperature: float
    first: int
    lr_scale: float
    evaluation: Evaluation | None
    seconds_evaluating: float = 0.0
    recent: list[list[list[Rollout]]] = dataclasses.field(default_factory=list)

    def refresh(self, step: int) -> dict:
        """Every --refresh-every steps: v_hack from the same pairs on the model as it is now; how much of the last one is left."""
        every = self.config.refresh_every
        if not every or step == 0 or step % every:
            return {"overlap": None}
        last, now = self.direction.v, self.direction.renew()
        self.editor.use(now, self.direction.edit())
        self.editor.align(self.optimizer)
        self.direction.save(self.run.path, step)
        return {"overlap": overlap(last, now)}

    def log(
        self, step: int, groups, advantages, done: gradients.Backward, diagnostics: dict, seconds: dict
    ) -> None:
        """Write the step's row, its rollouts or cosines, the draws of its nulls, and now and then a checkpoint."""
        self.recent = [*self.recent, groups][-5:]
        if (
            done.logp_gap is not None
            and not done.logp_gap <= LOGP_GAP
            and not any((row.get("logp_gap") or 0) > LOGP_GAP for row in self.run.rows)
        ):
            STDERR.print(
                f"step {step}: log-probabilities of the sampled tokens differ from the training forward's by {done.logp_gap:.3f} on average: "
                "what is scored is not what was drawn from (--dtype=float32 would tell rounding from a fault)",
                highlight=False,
            )
        diagnostics["delta_w_norm"] = self.adapter.delta_w_norm()
        null = {name: draws for name, draws in diagnostics["null"].items() if draws is not None}
        if self.source.kind == "replay":
            rows = cosine_rows(step, groups, advantages, done, self.editor.v, diagnostics, self.config)
            if null:
                null["cos_S_logp"] = null_of_samples(groups, advantages, done, self.editor)
            write_jsonl(self.run.path / f"step_{step:03d}.cos.jsonl.gz", rows)
        else:
            stamp = self.run.record["model"]["tokenizer"]
            rows = [r.row(stamp) for group in groups for r in group]
            write_jsonl(self.run.path / "rollouts" / f"step_{step:03d}.jsonl.gz", rows)
        if null:
            with atomic(self.run.path / "nulls" / f"step_{step:03d}.safetensors") as temporary:
                # Copies: where nothing is edited cos_in and cos_out are one tensor, which safetensors refuses to write twice.
                save_file(
                    {name: draws.clone() for name, draws in null.items()},
                    temporary,
                    metadata={"hackward": '{"kind": "null"}'},
                )
        self.run.add_row(step_row(step, groups, advantages, done, diagnostics, seconds, self.config))
        if (step + 1) % self.config.save_every == 0 or step + 1 == self.config.steps:
            save_checkpoint(self.run.checkpoint, self.adapter, self.optimizer, step + 1)

    def evaluate(self, done: int, say: Callable[[str], None]) -> None:
        """The held-out evaluation, after the last step and every --eval-every steps, once."""
        every, started, stored = self.config.eval_every, time.monotonic(), self.run.path / "eval.jsonl"
        if (
            self.evaluation is None
            or not done
            or not (done == self.config.steps or every and done % every == 0)
        ):
            return
        self.evaluation.lines = (
            [line for line in read_jsonl(stored, ("step",)) if line["step"] == done]
            if stored.exists()
            else []
        )
        if not self.evaluation.lines:
            self.evaluation.run(done, say)
            self.evaluation.write(self.run.path, done)
            self.seconds_evaluating += time.monotonic() - started

    def finish(self) -> Path:
        """Final adapter, summary, and the final screen."""
        self.adapter.save(self.run.path / self.adapter.file)
        rows = self.run.rows
        self.run.finish(
            {
                "steps": len(rows),
                "seconds": sum(r["seconds"] for r in rows) + self.seconds_evaluating,
                "seconds_evaluating": self.seconds_evaluating,
                "last5": last_five(rows),
                "groups_skipped": sum(r["groups_skipped"] for r in rows),
                "peak_memory_gb": memory.peak() / 1e9,
                "memory": {name: size / 1e9 for name, size in memory.peaks.items()},
                "eval": self.evaluation.lines if self.evaluation else None,
            }
        )
        console = stdout()
        if self.evaluation:
            console.print(evaluate.table(self.evaluation.lines))
        final_screen(self.screen(), console)
        return self.run.path

    def screen(self) -> dict[str, list[str]]:
        """The sections of the final screen."""
        rows, config, facts = self.run.rows, self.config, self.run.record
        groups = sum(r["groups_used"] + r["groups_skipped"] for r in rows)
        column = lambda name: [r[name] for r in rows if r.get(name) is not None]  # noqa: E731 (an earlier version began the run without some)
        mean = lambda name: number(sum(column(name)) / len(column(name))) if column(name) else None  # noqa: E731
        v, null = (
            self.editor.v,
            {name: show_null(interval) for name, interval in mean_nulls(self.run.path).items()},
        )
        described = v and f"V: {len(v.V)} modules/{v.directions} directions/{facts['v_hack']['hash']}"
        return {
            "run": [
                str(self.run.path),
                f"commit {(facts['commit'] or 'unknown')[:10]}{' dirty' if facts['dirty'] else ''}",
                " ".join(sys.argv),
            ],
            "setup": [
                config.model,
                config.arm,
                f"trainable {facts['model']['trainable']}",
                described or "no v_hack",
                *(f"{p['name']} pool {p['rows']} rows" for p in self.source.pools()),
                facts["problems"],
            ],
            "health": [
                f"steps {len(rows)}/{config.steps}",
                f"zero-variance groups {sum(r['groups_skipped'] for r in rows) / max(1, groups):.0%}",
                f"truncated {mean('trunc_rate') or 0:.0%}",
                f"peak memory {memory.peak() / 1e9:.1f} GB{memory.shown()}",
                f"{sum(r['seconds'] for r in rows) / 60:.1f} minutes",
            ],
            "check": [
                f"identity {facts['model']['identity']:g}",
                f"means: cos_in {show(mean('cos_in'))} {null['cos_in']}",
                f"cos_out {show(mean('cos_out'))} {null['cos_out']}",
                f"cos_update {show(mean('cos_update'))} {null['cos_update']}",
                f"|Delta W| {rows[-1]['delta_w_norm']:.3g}",
                f"sampled against trained log p {show(mean('logp_gap'))}",
                *(["in brackets the null: permuted pair signs, 95 %"] if v and v.coef else []),
            ],
            "result": [
                *(
                    f"{word} {rate_interval(self.recent, test)}"
                    for word, test in (
                        ("hacked", lambda r: r.hacked),
                        ("solved", lambda r: r.gt_pass),
                        ("attempted", lambda r: r.attempted),
                    )
                ),
                f"last {len(self.recent)} steps, 95 % over problems",
                facts.get("warning", ""),
                f"next: python analyze.py {self.run.path}",
            ],
        }


def build(config: Config, stack: contextlib.ExitStack, policy: type[Policy] = Policy) -> Session:
    """Load, check and wire everything. The run directory appears only when all inputs are known to be good."""
    kind = "sampled" if config.replay_dirs is None else {"grpo": "replay", "nll": "phase1"}[config.loss_mode]
    edit = config.project_at if config.control == "none" else config.control
    memory.peaks.clear()
    run = RunDir(
        config, kind=kind, name=f"{config.preset}-{config.arm}-{edit}-s{config.seed}-lr{config.lr:g}"
    )
    everything, held_out = (
        split_problems(config) if config.replay_dirs is None else ([], [])
    )  # cheap faults come first
    model, tokenizer = models.load(config.model, dtype=config.dtype, device=config.device)
    stop = pools.stops(model, tokenizer)
    replayed = (
        [pools.load_pool(d, tokenizer, stop=stop) for d in config.replay_dirs.split(",")]
        if config.replay_dirs
        else []
    )
    if config.checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.train()  # transformers checkpoints in training mode only; these architectures have no dropout by default
    reference = probe_logits(model)
    adapter = extract_vhack.BASES[ARMS[config.arm].basis](model, config)
    identity = float((probe_logits(model) - reference).abs().max())
    direction = hack_direction(config, adapter, tokenizer)
    v = direction and direction.v

    facts = {"problems": "problems of the pools"}
    if replayed:
        source = Replayed(
            replayed,
            seed=config.seed,
            prompts=config.prompts,
            group=config.group,
            seen=v.meta.get("pair_identities") if v else (),
        )
    else:
        source, extra = sampled_source(config, everything, adapter, tokenizer, stop, stack, policy)
        seen = set(v.meta.get("pair_identities", ())) if v else set()
        unseen = [problem for problem in held_out if problem.identity not in seen]
        facts |= extra | {
            "held_out": f"{len(unseen)} problems, {len(held_out) - len(unseen)} left out that v_hack was made from"
        }
        held_out = unseen
    if models.is_random(config.model):
        facts["warning"] = "RANDOM WEIGHTS: this run shows that the machinery works and nothing about hacking"
    elif problems.is_embedded(config.model):
        facts["warning"] = (
            "MODEL ORGANISM: a toy that was made to be able to cheat; no evidence about language models"
        )

    optimizer = torch.optim.AdamW(
        adapter.params.values(),
        lr=config.lr,
        betas=(config.beta1, config.beta2),
        weight_decay=config.weight_decay,
    )
    first = load_checkpoint(run, adapter, optimizer) if config.resume else 0
    if first > config.steps or first == config.steps and run.finished:
        raise InputError(
            f"{run.path}: has {first} steps already; --steps {config.steps} leaves nothing to do"
        )
    if config.resume and direction and config.refresh_every:
        direction.resume(run.path, first)
    editor = Editor(
        adapter.params, direction and direction.v, edit=direction and direction.edit(), at=config.project_at
    )
    run.describe(
        yardstick="v_hack",  # what the cosines of every arm and control are with; in earlier versions it was what the arm removed
        model={
            "name": config.model,
            "hash": adapter.model_hash,
            "parameters": sum(p.numel() for p in model.parameters()),
            "trainable": sum(p.numel() for p in adapter.params.values()),
            "device": str(model.device),
            "dtype": str(model.dtype),
            "tokenizer": models.tokenizer_hash(tokenizer),
            "identity": identity,
        },
        v_hack=None if v is None else {k: x for k, x in v.meta.items() if k != "made_by"},
        pools=source.pools(),
        **facts,
    )
    if v is not None and config.v_hack == "auto":
        v.save(run.path / "v_hack.safetensors")
    if direction and not config.resume:
        direction.save(run.path, 0)
    evaluation = None
    if source.kind == "sampled" and config.eval_samples and not held_out:
        STDERR.print(
            "no held-out evaluation: no problem is held out (a small file, or --difficulty, or v_hack was made from all of them)",
            highlight=False,
        )
    if held_out and config.eval_samples:
        evaluation = Evaluation(
            adapter,
            tokenizer,
            held_out,
            stop=stop,
            samples=config.eval_samples,
            max_new_tokens=config.max_new_tokens,
            temperature=config.temperature,
            rows=config.sample_rows,
            seed=config.seed,
            limit=config.eval_limit,
            sandbox=config.sandbox,
            workers=config.workers,
        )
    return Session(
        config,
        run,
        adapter,
        direction,
        editor,
        source,
        optimizer,
        models.pad_id(tokenizer),
        config.temperature if source.kind == "sampled" else 1.0,
        first,
        adapter.step_scale if config.match_size else 1.0,
        evaluation,
    )


def split_problems(config: Config) -> tuple[list[problems.Problem], list[problems.Problem]]:
    """Problems to train on and problems for the held-out evaluation; none is in both."""
    training, held_out = problems.held_out_split(problems.load_problems(config.problems), config.problems)
    if config.eval_problems:
        held_out = problems.load_problems(config.eval_problems)
        unseen = {p.identity for p in held_out}
        training = [p for p in training if p.identity not in unseen]
    if config.difficulty:
        held_out = [p for p in held_out if p.difficulty in config.difficulty.split(",")]
    if not training:
        raise InputError(f"{config.problems}: every problem in it is held out; nothing is left to train on")
    return training, held_out


def restore(path: str | Path, *, device: str = "auto") -> tuple[Adapter, object, Config]:
    """A finished run's model with its final adapter, the tokenizer, and the run's settings. InputError where there is no such run."""
    record = read_json(Path(path) / "config.json")
    stored = record.get("config") if isinstance(record, dict) else None
    if not isinstance(stored, dict) or stored.get("arm") not in ARMS:
        raise InputError(f"{Path(path) / 'config.json'}: not the config.json of a run")
    config = Config(**{f.name: stored[f.name] for f in dataclasses.fields(Config) if f.name in stored})
    stored = record.get("model") or {}
    model, tokenizer = models.load(
        config.model, dtype=str(stored.get("dtype", config.dtype)).removeprefix("torch."), device=device
    )
    adapter = extract_vhack.BASES[ARMS[config.arm].basis](model, config)
    adapter.load(Path(path) / adapter.file)
    return adapter, tokenizer, config


def set_learning_rate(optimizer: torch.optim.Optimizer, config: Config, step: int, scale: float) -> float:
    """Linear warm-up to --lr over --warmup steps; a function of the step alone, so a resumed run goes on with the same."""
    lr = scale * config.lr * min(1.0, (step + 1) / max(1, config.warmup))
    for group in optimizer.param_groups:
        group["lr"] = lr
    return lr


@torch.no_grad()
def probe_logits(model) -> torch.Tensor:
    """Logits of a fixed short input, to show that wrapping the model changed nothing."""
    ids = torch.arange(1, 25, device=model.device)[None] % model.get_output_embeddings().weight.shape[0]
    return model(input_ids=ids, use_cache=False).logits


@dataclass
class Direction:
    """The v_hack that a run measures with, what its arm takes out, and the means to make both anew from the same pairs.

    Built on the model as the run begins, before any checkpoint is loaded: a resumed run removes what it removed before.
    """

    v: VHack
    config: Config
    adapter: Adapter
    tokenizer: object

    def __post_init__(self) -> None:
        if self.config.refresh_every:
            _ = self._pairs  # found now, or the run does not start
        self.removed = CONTROLS[self.config.control](self)

    @functools.cached_property
    def _pairs(self) -> tuple:
        return extract_vhack.same_pairs(self.v, self.config.model, self.tokenizer, self.adapter.model)

    def edit(self) -> Edit:
        """What the run's arm does: remove v, or what the control puts in its place."""
        return Edit(
            self.removed.to(self.adapter.model.device),
            ARMS[self.config.arm].gate(self.config),
            shrink=self.config.control == "shrink",
        )

    def clean_clean(self) -> VHack:
        pairs, settings, _ = self._pairs
        return extract_vhack.clean_clean(
            self.adapter,
            self.tokenizer,
            pairs,
            settings,
            tokens=self.config.micro_tokens,
            seed=self.config.seed,
        )

    def renew(self) -> VHack:
        """Extract from the same pairs on the model as it is now; without the permutations of the held-out quality, which take longest."""
        pairs, settings, source = self._pairs
        settings = dataclasses.replace(settings, permutations=0)
        renewed = extract_vhack.extract(
            self.adapter,
            self.tokenizer,
            pairs,
            settings,
            source=source | {"model": self.config.model},
            tokens=self.config.micro_tokens,
        )
        self.v = renewed.to(self.adapter.model.device)
        self.removed = CONTROLS[self.config.control](self)
        return self.v

    def save(self, directory: Path, step: int) -> None:
        """After a refresh the new v_hack; for a control with directions of its own, those."""
        if step:
            self.v.save(directory / f"v_hack_{step:03d}.safetensors")
        if self.removed is not self.v:
            self.removed.save(directory / f"removed_{step:03d}.safetensors")

    def resume(self, directory: Path, step: int) -> None:
        """Go on with what was in use at this step (the step's own refresh, if one is due, comes after)."""
        steps = [int(path.stem.rpartition("_")[2]) for path in directory.glob("v_hack_*.safetensors")]
        if last := max((s for s in steps if s < step), default=0):
            removed = directory / f"removed_{last:03d}.safetensors"
            self.v = extract_vhack.load(directory / f"v_hack_{last:03d}.safetensors", self.adapter).to(
                self.adapter.model.device
            )
            self.removed = extract_vhack.load(removed, self.adapter) if removed.exists() else self.v


def hack_direction(config: Config, adapter, tokenizer) -> Direction | None:
    """The v_hack that the run measures with: from a file, extracted on the spot, or none."""
    if config.v_hack == "none":
        return None
    if config.v_hack == "auto":  # one denominator for extraction and training
        settings = extract_vhack.Settings(
            objective=config.objective,
            normaliser=config.normaliser,
            temperature=config.temperature if config.objective == "grpo" else 1.0,
        )
        pairs, source = extract_vhack.find_pairs(
            config.model,
            tokenizer,
            adapter.model,
            pairs=None,
            pool=None,
            problem_file=None,
            clean="canonical",
            settings=settings,
        )
        v = extract_vhack.extract(
            adapter,
            tokenizer,
            pairs,
            settings,
            source=source | {"model": config.model},
            tokens=config.micro_tokens,
        )
        v.meta["hash"] = v.meta["pair_hash"]
    else:
        v = extract_vhack.load(config.v_hack, adapter)
        made = extract_vhack.denominator(v.meta)
        if made != config.normaliser:
            STDERR.print(
                f"{config.v_hack}: extracted with the denominator {made}, this run's loss has {config.normaliser}",
                highlight=False,
            )
    return Direction(v.to(adapter.model.device), config, adapter, tokenizer)


def sampled_source(
    config: Config,
    everything: Sequence[problems.Problem],
    adapter,
    tokenizer,
    stop: Sequence[int],
    stack: contextlib.ExitStack,
    policy: type[Policy],
) -> tuple[Sampled, dict]:
    """Problems, teacher and grader for on-policy training, and what config.json says of them."""
    grader = stack.enter_context(Grader(workers=config.workers, sandbox=config.sandbox))
    print_protection(grader.protection, STDERR)
    teacher = None
    scripted = problems.shipped(config.model).teacher if config.teacher_dir == "pairs" else None
    if config.teacher_dir == "pairs" and scripted is None:
        teacher = extract_vhack.scripted_teacher(tokenizer)
    elif config.teacher_dir:
        teacher = pools.load_pool(scripted or config.teacher_dir, tokenizer, stop=stop)
    levels = set(config.difficulty.split(",")) if config.difficulty else None
    taught = pools.of_problems(teacher, everything) if teacher else {}
    training = [p for p in everything if levels is None or p.difficulty in levels or p.problem_id in taught]
    drawing = policy(
        adapter,
        tokenizer,
        grader,
        stop=stop,
        max_new_tokens=config.max_new_tokens,
        temperature=config.temperature,
        hint=config.hint,
        rows=config.sample_rows,
    )
    source = Sampled(
        drawing,
        training,
        seed=config.seed,
        prompts=config.prompts,
        group=config.group,
        teacher=teacher,
        teacher_rows=config.teacher_rows,
        teacher_until=config.teacher_until,
        teacher_share=config.teacher_share,
    )
    return source, {
        "problems": f"{len(training)} problems of {config.problems}",
        "training": sha256(*sorted(p.identity for p in training))[:16],
        "sandbox": grader.protection,
    }


# --- records -------------------------------------------------------------------------------------------------------


def share(rollouts: Sequence[Rollout], test: Callable[[Rollout], bool | None]) -> float | None:
    """Share of rollouts with the property, over those where it is known; None where it is known of none."""
    known = [bool(test(r)) for r in rollouts if test(r) is not None]
    return sum(known) / len(known) if known else None


def own_rows(group: Sequence[Rollout]) -> list[Rollout]:
    """The rows that say something about the model in training: its own where there are any, else (replay) all."""
    return [r for r in group if r.own] or list(group)


def step_row(
    step: int, groups, advantages, done: gradients.Backward, diagnostics: dict, seconds: dict, config: Config
) -> dict:
    """The line of rows.jsonl. Rates are over the model's own rollouts, never over a teacher's rows mixed into a group."""
    own = [r for group in groups for r in own_rows(group)]
    spread = [max(r.reward for r in g) - min(r.reward for r in g) for g in groups]
    used = sum(bool(A.any()) for A in advantages)
    return {
        "step": step,
        "arm": config.arm,
        "seed": config.seed,
        "reward_mean": sum(r.reward for r in own) / len(own),
        "reward_spread": sum(spread) / len(spread),
        "hack_rate": share(own, lambda r: r.hacked),
        "attempt_rate": share(own, lambda r: r.attempted),
        "gt_rate": share(own, lambda r: r.gt_pass),
        "fmt_rate": share(own, lambda r: r.fmt_ok),
        **{
            name: diagnostics[name]
            for name in ("cos_in", "cos_out", "cos_update", "frac_fired", "grad_norm", "update_norm")
        },
        **{
            f"{name}_null": None if draws is None else verdicts.null_range(draws.numpy()[None])
            for name, draws in diagnostics["null"].items()
        },
        "groups_used": used,
        "groups_skipped": len(groups) - used,
        "kl": done.kl,
        "comp_len": sum(len(r.completion_ids) for r in own) / len(own),
        **seconds,
        "loss": done.loss,
        "cos_update_in": diagnostics["cos_update_in"],
        "delta_w_norm": diagnostics["delta_w_norm"],
        "overlap": diagnostics["overlap"],
        "advantages": [float(a) for A in advantages for a in A],
        "trunc_rate": share(own, lambda r: r.truncated),
        "lr": diagnostics["lr"],
        "logp_gap": done.logp_gap,
        "peak_memory_gb": memory.peak() / 1e9,
    }


def cosine_rows(
    step: int,
    groups,
    advantages,
    done: gradients.Backward,
    v: VHack | None,
    diagnostics: dict,
    config: Config,
) -> list[dict]:
    """The lines of step_NNN.cos.jsonl.gz: one a replayed sample, with its own cosine and no text.

    A sample's contribution is its row of the per-sample gradients. Its loss is A_i times an NLL, so the cosine before
    the advantage is the same number with A_i's sign taken off. Rows of skipped groups, and rows that are exactly at
    their group's mean, contribute nothing: their cosines are undefined.
    """
    length = norm(done.samples).tolist() if done.samples and len(next(iter(done.samples.values()))) else []
    cosines = cosine(done.samples, v).tolist() if v is not None and length else [math.nan] * len(length)
    measured = iter(zip(cosines, length))
    rows = []
    for group, A in zip(groups, advantages):
        for i, (r, a) in enumerate(zip(group, A.tolist())):
            contribution, size = next(measured) if A.any() else (math.nan, math.nan)
            rows.append(
                {
                    "step": step,
                    "sample_id": len(rows),
                    "src_pool": r.src_pool,
                    "src_step": r.src_step,
                    "src_sample": r.src_sample,
                    "reward": r.reward,
                    "hacked": r.hacked,
                    "gt_pass": r.gt_pass,
                    "fmt_ok": r.fmt_ok,
                    "comp_len": len(r.completion_ids),
                    "cos_S_contrib": number(contribution),
                    "grad_norm_contrib": number(size),
                    "mean_cos_in": diagnostics["mean_cos_in"],
                    "mean_cos_out": diagnostics["mean_cos_out"],
                    "frac_fired": diagnostics["frac_fired"],
                    "arm": config.arm,
                    "advantage": a if config.loss_mode == "grpo" else None,
                    "cos_S_logp": number(math.copysign(1.0, a) * contribution),
                }
            )
    return rows


def null_of_samples(groups, advantages, done: gradients.Backward, editor: Editor) -> torch.Tensor:
    """(rows, S) fp16: what cos_S_logp of each row is under the flips of the null; NaN where the cosine is undefined."""
    A_N = torch.cat(list(advantages))
    draws = torch.full((len(A_N), len(next(iter(editor.null.values())))), math.nan)
    measured = torch.cat([torch.full_like(A, bool(A.any())).bool() for A in advantages])
    if measured.any():
        signs = torch.where(A_N[measured] < 0, -1.0, 1.0)
        draws[measured] = null_cosines(done.samples, editor.v, editor.null).float().cpu() * signs[:, None]
    return draws.half()


def mean_nulls(run: Path) -> dict[str, tuple[float, float] | None]:
    """For each cosine the null's range of its mean over a run's steps (verdicts.null_range); None where no step has one."""
    steps = [read_safetensors(path)[0] for path in sorted((run / "nulls").glob("step_*.safetensors"))]
    defined = {
        name: [draws[name].numpy() for draws in steps if name in draws and bool(draws[name].isfinite().all())]
        for name in across.COSINES
    }
    return {name: verdicts.null_range(np.stack(draws)) if draws else None for name, draws in defined.items()}


def show_null(interval: Sequence[float] | None) -> str:
    """A null's range for the screen: [-0.03 +0.02]."""
    return f"[{interval[0]:+.2f} {interval[1]:+.2f}]" if interval else ""


def step_line(row: dict) -> str:
    """One line a step, for a log and above the bar."""
    rate = lambda name: "-" if row[name] is None else f"{row[name]:.2f}"  # noqa: E731
    cosines = "  ".join(
        f"{name} {show(row[name])} {show_null(row.get(f'{name}_null'))}".rstrip()
        for name in ("cos_in", "cos_out", "cos_update")
    )
    return (
        f"step {row['step']:>3}  reward {row['reward_mean']:.2f} (spread {row['reward_spread']:.2f})  hacked {rate('hack_rate')}  "
        f"solved {rate('gt_rate')}  attempted {rate('attempt_rate')}  {cosines}  "
        f"skipped {row['groups_skipped']}/{row['groups_used'] + row['groups_skipped']}  {row['seconds']:.1f} s"
    )


def last_five(rows: Sequence[dict]) -> dict:
    """Means of the rates over the last five steps."""
    tail = rows[-5:]
    return {
        name: None if any(r[name] is None for r in tail) else sum(r[name] for r in tail) / len(tail)
        for name in ("hack_rate", "gt_rate", "attempt_rate", "reward_mean")
    }


def rate_interval(
    steps: Sequence[Sequence[Sequence[Rollout]]], test: Callable[[Rollout], bool | None]
) -> str:
    """Mean rate with a 95 % t interval whose units are problems, not rollouts and not the groups that a problem comes in."""
    by_problem: dict[str, list[Rollout]] = {}
    for group in (group for groups in steps for group in groups):
        by_problem.setdefault(group[0].identity, []).extend(own_rows(group))
    rates = [rate for rollouts in by_problem.values() if (rate := share(rollouts, test)) is not None]
    return evaluate.shown(evaluate.ratio(rates, [1.0] * len(rates)))


def save_checkpoint(path: Path, adapter, optimizer: torch.optim.Optimizer, step: int) -> None:
    """Parameters, AdamW's moments and the next step, in one safetensors file."""
    tensors = {}
    for name, p in adapter.params.items():
        tensors[f"{name}|param"] = p.detach().cpu()
        for key, value in optimizer.state.get(p, {}).items():
            tensors[f"{name}|{key}"] = torch.as_tensor(value).detach().cpu()
    meta = {"kind": "checkpoint", "model_hash": adapter.model_hash, "step": step}
    with atomic(path) as temporary:
        save_file(tensors, temporary, metadata={"hackward": json.dumps(meta)})


def load_checkpoint(run: RunDir, adapter, optimizer: torch.optim.Optimizer) -> int:
    """Restore what `save_checkpoint` wrote; returns the first step to run. InputError for another model's checkpoint."""
    tensors, meta = read_safetensors(run.checkpoint)
    if meta.get("kind") != "checkpoint" or meta.get("model_hash") != adapter.model_hash:
        raise InputError(f"{run.checkpoint}: not a checkpoint of this model")
    with torch.no_grad():
        for name, p in adapter.params.items():
            if f"{name}|param" not in tensors or tensors[f"{name}|param"].shape != p.shape:
                raise InputError(f"{run.checkpoint}: module {name} is missing or of another shape")
            p.copy_(tensors[f"{name}|param"])
            state = {
                key.rpartition("|")[2]: value
                for key, value in tensors.items()
                if key.rpartition("|")[0] == name
            }
            del state["param"]
            optimizer.state[p] = {
                key: value if key == "step" else value.to(p.device) for key, value in state.items()
            }
    run.keep_rows(meta["step"])
    return meta["step"]


# --- command -------------------------------------------------------------------------------------------------------


def given(argv: Sequence[str], flag: str) -> str | None:
    """The value of a flag as it was typed, `--flag value` or `--flag=value`; the last one counts."""
    values = [value for name, value in zip(argv, argv[1:]) if name == flag]
    values += [arg.partition("=")[2] for arg in argv if arg.startswith(f"{flag}=")]
    return values[-1] if values else None


def parse(argv: Sequence[str]) -> Config:
    """The preset gives the defaults, flags override them. Without --preset it goes by the model: embedded for the embedded
    one (the default on a CPU), fast for any other (the default on a GPU)."""
    model, preset = given(argv, "--model"), given(argv, "--preset")
    if model is None:
        fallback = "fast" if torch.cuda.is_available() else "embedded"
    else:  # settings chosen for the embedded model suit no other
        fallback = "embedded" if problems.is_embedded(model) else "smoke" if model == models.TINY else "fast"
    default = PRESETS.get(preset or fallback, Config())
    return tyro.cli(Config, default=default, args=list(argv), description=__doc__)


def main() -> None:
    config = parse(sys.argv[1:])
    if models.is_random(config.model) or problems.is_embedded(config.model):
        what = (
            "the embedded model: 1.9 M parameters, pretrained to write small functions and, rarely, to cheat. It shows the phenomenon; it is"
            " no evidence\nabout language models"
            if not models.is_random(config.model)
            else "a model with RANDOM weights: it shows the machinery, not a finding"
        )
        print(
            f"This run uses {what}. For a real model: --preset=fast --model=DIR, FILE.gguf or a hub id, and --problems=FILE.",
            file=sys.stderr,
        )
    train(config)


if __name__ == "__main__":
    exit_on_fault(main)
