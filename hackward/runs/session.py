"""The parts that a run is built from, and what happens around its steps."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from hackward.base.arms import FLAGS, arm_of
from hackward.base.faults import InputError
from hackward.base.files import atomic, read_json, read_jsonl, sha256, write_jsonl
from hackward.base.screen import STDERR, final_screen, show, stdout
from hackward.grading.grader import Grader, print_protection
from hackward.hardware import memory, models
from hackward.method import gradients
from hackward.method.adapters import Adapter, attach
from hackward.method.pairs import scripted_teacher
from hackward.method.projection import Editor, number, overlap
from hackward.rollouts.policy import Policy
from hackward.rollouts.pools import load_pool, of_problems
from hackward.rollouts.rollout import Rollout
from hackward.rollouts.sources import Replayed, Sampled
from hackward.rollouts.tokens import pad_id, stops, tokenizer_hash
from hackward.runs.checkpoint import load_checkpoint, save_checkpoint
from hackward.runs.direction import Direction, hack_direction
from hackward.runs.heldout import Evaluation, heldout_screen
from hackward.runs.records import (
    cosine_rows,
    last_five,
    mean_nulls,
    null_of_samples,
    rate_interval,
    show_null,
    step_row,
)
from hackward.runs.rundir import RunDir
from hackward.runs.settings import Config
from hackward.tasks.formats import load_problems
from hackward.tasks.held_out import held_out_split
from hackward.tasks.problems import Problem
from hackward.tasks.shipped import is_embedded, is_random, shipped

LOGP_GAP = 0.1  # mean |difference| a token above which a step warns: a tenth more or less likely, on average


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
            console.print(heldout_screen(self.evaluation.lines))
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
    stop = stops(model, tokenizer)
    replayed = (
        [load_pool(d, tokenizer, stop=stop) for d in config.replay_dirs.split(",")]
        if config.replay_dirs
        else []
    )
    if config.checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.train()  # transformers checkpoints in training mode only; these architectures have no dropout by default
    reference = probe_logits(model)
    adapter = attach(
        arm_of(vars(config)).basis, model, config.model, rank=config.rank, cache=config.svd_cache
    )
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
    if is_random(config.model):
        facts["warning"] = "RANDOM WEIGHTS: this run shows that the machinery works and nothing about hacking"
    elif is_embedded(config.model):
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
            "tokenizer": tokenizer_hash(tokenizer),
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
        pad_id(tokenizer),
        config.temperature if source.kind == "sampled" else 1.0,
        first,
        adapter.step_scale if config.match_size else 1.0,
        evaluation,
    )


def split_problems(config: Config) -> tuple[list[Problem], list[Problem]]:
    """Problems to train on and problems for the held-out evaluation; none is in both."""
    training, held_out = held_out_split(load_problems(config.problems), config.problems)
    if config.eval_problems:
        held_out = load_problems(config.eval_problems)
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
    if not isinstance(stored, dict) or stored.get("arm") not in FLAGS:
        raise InputError(f"{Path(path) / 'config.json'}: not the config.json of a run")
    config = Config(**{f.name: stored[f.name] for f in dataclasses.fields(Config) if f.name in stored})
    stored = record.get("model") or {}
    model, tokenizer = models.load(
        config.model, dtype=str(stored.get("dtype", config.dtype)).removeprefix("torch."), device=device
    )
    adapter = attach(
        arm_of(vars(config)).basis, model, config.model, rank=config.rank, cache=config.svd_cache
    )
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


def sampled_source(
    config: Config,
    everything: Sequence[Problem],
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
    scripted = shipped(config.model).teacher if config.teacher_dir == "pairs" else None
    if config.teacher_dir == "pairs" and scripted is None:
        teacher = scripted_teacher(tokenizer)
    elif config.teacher_dir:
        teacher = load_pool(scripted or config.teacher_dir, tokenizer, stop=stop)
    levels = set(config.difficulty.split(",")) if config.difficulty else None
    taught = of_problems(teacher, everything) if teacher else {}
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
