"""Building a run from its settings: everything is loaded and checked before the run directory appears."""

from __future__ import annotations

import contextlib
import shlex
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hackward.base.arms import arm_of
from hackward.base.faults import InputError
from hackward.base.files import CHECKPOINT, read_json, sha256
from hackward.base.records import checked_object
from hackward.base.screen import STDERR, say
from hackward.base.space import check_space
from hackward.base.types import CausalLM
from hackward.grading.grader import Grader
from hackward.grading.protection import print_protection
from hackward.hardware import memory, models
from hackward.hardware.neighbours import make_room
from hackward.method.adapters import Adapter, attach
from hackward.method.pairs import scripted_teacher
from hackward.method.projection import Editor
from hackward.method.recipe import Extraction
from hackward.method.shared_prompts import layout_for
from hackward.method.v_hack import VHack
from hackward.reports.schema import MADE
from hackward.rollouts.fitting import check_fit
from hackward.rollouts.policy import Policy
from hackward.rollouts.pools import Pool, load_pool, of_problems
from hackward.rollouts.sources import Replayed, Sampled
from hackward.rollouts.tokens import PAD, prompt_ids, stops
from hackward.runs.checkpoint import load_checkpoint, load_parameters
from hackward.runs.direction import Direction, hack_direction
from hackward.runs.ending import is_over, stopped_words
from hackward.runs.heldout import Evaluation
from hackward.runs.needs import needs
from hackward.runs.parts import check_parts, parts_of
from hackward.runs.rundir import RunDir
from hackward.runs.session import Session
from hackward.runs.settings import Config
from hackward.runs.stored import stored_settings
from hackward.runs.tracking import mirroring
from hackward.runs.watching import build_watch
from hackward.tasks.formats import load_problems
from hackward.tasks.held_out import decidable, held_out_split
from hackward.tasks.problems import Problem, build_messages
from hackward.tasks.shipped import is_embedded, is_random, shipped

TESTS_ENOUGH = 10  # per problem in the median; below it a run warns
RANDOM = "RANDOM WEIGHTS: this run shows that the machinery works and nothing about hacking"
DIRECTIONS = Extraction.k  # of a module, at most
TOY = "MODEL ORGANISM: a toy that was made to be able to cheat; no evidence about language models"


@dataclass
class Loaded:
    """The model with its adapter and tokenizer."""

    adapter: Adapter
    tokenizer: Any
    stop: list[int]
    identity: float
    """Largest change of a logit by wrapping the model; 0 is expected."""

    def facts(self, config: Config) -> dict[str, Any]:
        """What config.json says of the model."""
        model = self.adapter.model
        return {
            "name": config.model,
            "hash": self.adapter.model_hash,
            "parameters": sum(p.numel() for p in model.parameters()),
            "trainable": sum(p.numel() for p in self.adapter.params.values()),
            "trained_share": self.adapter.coverage.share,
            "device": str(model.device),
            "dtype": str(model.dtype),
            **parts_of(model, self.tokenizer),
            "identity": self.identity,
        }


@dataclass
class Data:
    """Where rollouts come from, the problems of the held-out evaluation, and what config.json says of
    both."""

    source: Sampled | Replayed
    held_out: list[Problem]
    facts: dict[str, Any]


def build(config: Config, stack: contextlib.ExitStack, policy: type[Policy] = Policy) -> Session:
    """Load, check and wire everything; cheap faults come first.

    `stack` closes the grader and unlocks the directory. `policy` draws and grades. InputError for whatever
    cannot be used; nothing is written then.
    """
    memory.peaks.clear()
    run = RunDir(config, stack, kind=config.kind, name=_run_name(config))
    problems = split_problems(config) if config.kind == "sampled" else ([], [])
    given = _given(problems)
    run.check_same(**given)
    loaded, pools = _load(config, problems[0])
    run.check_same(model=loaded.facts(config))
    check_space(run.path, _bytes_of(config, loaded.adapter), "this run")
    direction = hack_direction(config, loaded.adapter, loaded.tokenizer)
    v = direction.v if direction else None
    run.check_same(v_hack=_facts_of(v))
    if config.kind == "sampled":
        data = _sampled(config, problems, loaded, v, stack, policy)
    else:
        data = _replayed(config, pools, v)

    optimizer = torch.optim.AdamW(
        loaded.adapter.params.values(),
        lr=config.lr,
        betas=(config.beta1, config.beta2),
        weight_decay=config.weight_decay,
    )
    first = _first_step(config, run, loaded.adapter, optimizer)
    if config.resume and direction and config.refresh_every:
        direction.resume(run.path, first)
    watch, monitor_facts = build_watch(config, loaded.adapter, loaded.tokenizer, direction)
    data.facts |= monitor_facts | given
    _describe(config, run, loaded, direction, v, data)
    return Session(
        config=config,
        run=run,
        adapter=loaded.adapter,
        direction=direction,
        editor=_editor(config, loaded.adapter, direction),
        source=data.source,
        optimizer=optimizer,
        pad=PAD,
        first=first,
        saved=first,
        lr_scale=loaded.adapter.step_scale if config.match_size else 1.0,
        evaluation=_evaluation(config, loaded, data),
        mirror=stack.enter_context(mirroring(config.track, run, first)),
        layout=layout_for(loaded.adapter.model, shared=config.shared_prompts and config.kind == "sampled"),
        watch=watch,
    )


def _bytes_of(config: Config, adapter: Adapter) -> int:
    """About what a run writes: checkpoints (the last and the next, with AdamW's two moments), the adapter,
    its directions, its rollouts."""
    numbers = sum(p.numel() for p in adapter.params.values())
    refreshed = config.steps // config.refresh_every if config.refresh_every else 0
    directions = 0 if config.v_hack == "none" else DIRECTIONS * (1 + refreshed)
    tokens = config.steps * config.prompts * config.group * config.max_new_tokens
    return 4 * numbers * (2 * 3 + 1 + directions) + tokens * (config.kind == "sampled")


def _run_name(config: Config) -> str:
    edit = config.project_at if config.control == "none" else config.control
    return f"{config.preset}-{config.arm}-{edit}-s{config.seed}-lr{config.lr:g}"


def split_problems(config: Config) -> tuple[list[Problem], list[Problem]]:
    """Problems to train on and problems for the held-out evaluation; none is in both."""
    assert config.problems is not None  # resolved
    training, held_out = held_out_split(_problems_of(config.problems, config), config.problems)
    if config.eval_problems:
        held_out = _problems_of(config.eval_problems, config)
        unseen = {problem.identity for problem in held_out}
        training = [problem for problem in training if problem.identity not in unseen]
    if config.difficulty:
        levels = config.difficulty.split(",")
        held_out = [problem for problem in held_out if problem.difficulty in levels]
    if not training:
        raise InputError(f"{config.problems}: every problem in it is held out; nothing is left to train on")
    doubt = few_tests(training, config.problems)
    if doubt:
        say(doubt)
    return training, held_out


def few_tests(problems: Sequence[Problem], source: str) -> str | None:
    """The warning for problems that wrong answers pass too easily; None where there are tests enough."""
    median = statistics.median(len(problem.tests) for problem in problems)
    if median >= TESTS_ENOUGH:
        return None
    return (
        f"{source}: {median:g} tests per problem in the median, which wrong answers may pass;"
        f" python strengthen.py {shlex.quote(source)} --out stronger.jsonl, then --problems stronger.jsonl"
    )


def _problems_of(source: str, config: Config) -> list[Problem]:
    return decidable(load_problems(source), source, config.several_answers)


def _load(config: Config, problems: Sequence[Problem]) -> tuple[Loaded, list[Pool]]:
    """The model in the arm's basis, and the pools to replay, which fail sooner than the adapter is made.

    So do prompts of `problems` that do not fit the model.
    """
    model, tokenizer, place = models.read(config.model, dtype=config.dtype, device=config.device)
    stop = stops(model, tokenizer)
    directories = config.replay_dirs.split(",") if config.replay_dirs else []
    pools = [load_pool(directory, tokenizer, stop=stop) for directory in directories]
    for pool in pools:
        _check_pool(model, pool)
    _check_prompts(config, model, tokenizer, _training(config, problems, None))
    _make_room(config, model, place)
    model = models.settle(model, place, config.model)
    if config.checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        # transformers checkpoints in training mode only; these architectures have no dropout by default
        model.train()
    before = probe_logits(model)
    adapter = attach_basis(config, model)
    identity = float((probe_logits(model) - before).abs().max())
    return Loaded(adapter, tokenizer, stop, identity), pools


def _make_room(config: Config, model: CausalLM, place: torch.device) -> None:
    """Say what memory the run needs on a GPU, and take the least of it before the model goes there."""
    if place.type != "cuda":
        return
    needed = needs(config, model, model.get_output_embeddings().weight.element_size())
    say(f"this run needs {needed.words()}; free: {memory.free(place) / 1e9:.1f} GB")
    make_room(needed.allocated, place, "this run")


def _check_pool(model: CausalLM, pool: Pool) -> None:
    """Does every rollout fit into the model's context?"""
    rows = [rollout.prompt_ids + rollout.completion_ids for rollout in pool.rollouts]
    check_fit(model, rows, f"{pool.directory}, rollouts")


def attach_basis(config: Config, model: CausalLM) -> Adapter:
    """The model in the coordinates that the run's arm trains in."""
    basis = arm_of(vars(config)).basis
    return attach(
        basis, model, config.model, rank=config.rank, cache=config.svd_cache, targets=config.targets
    )


@torch.no_grad()
def probe_logits(model: CausalLM) -> Tensor:
    """Logits (1, 24, vocabulary) of a fixed short input, to show that wrapping the model changed nothing."""
    vocabulary = model.get_output_embeddings().weight.shape[0]
    ids = torch.arange(1, 25, device=model.device)[None] % vocabulary
    return model(input_ids=ids, use_cache=False).logits


def _replayed(config: Config, pools: Sequence[Pool], v: VHack | None) -> Data:
    source = Replayed(
        pools,
        seed=config.seed,
        prompts=config.prompts,
        group=config.group,
        steps=config.steps,
        seen=v.meta.get("pair_identities") if v else (),
    )
    return Data(source, [], {"problems": "problems of the pools"})


def _sampled(
    config: Config,
    problems: tuple[list[Problem], list[Problem]],
    loaded: Loaded,
    v: VHack | None,
    stack: contextlib.ExitStack,
    policy: type[Policy],
) -> Data:
    """Problems, teacher and grader for on-policy training. Problems that v_hack was made from are not held
    out."""
    everything, held_out = problems
    grader = stack.enter_context(Grader(workers=config.workers, sandbox=config.sandbox))
    print_protection(grader.protection, STDERR)
    teacher = _teacher(config, loaded)
    training = _training(config, everything, teacher)
    if teacher:
        _check_pool(loaded.adapter.model, teacher)
    if teacher and config.difficulty:  # its problems have come in beside those of the wanted difficulties
        _check_prompts(config, loaded.adapter.model, loaded.tokenizer, training)
    drawing = policy(
        loaded.adapter,
        loaded.tokenizer,
        grader,
        stop=loaded.stop,
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
    seen = set(v.meta.get("pair_identities", ())) if v else set()
    unseen = [problem for problem in held_out if problem.identity not in seen]
    left_out = len(held_out) - len(unseen)
    facts = {
        "problems": f"{len(training)} problems of {config.problems}",
        "training": sha256(*sorted(problem.identity for problem in training))[:16],
        "sandbox": grader.protection,
        "held_out": f"{len(unseen)} problems, {left_out} left out that v_hack was made from",
    }
    return Data(source, unseen, facts)


def _check_prompts(config: Config, model: CausalLM, tokenizer: Any, training: Sequence[Problem]) -> None:
    """Does every prompt fit into the model's context, with what is drawn after it?"""
    asked = [build_messages(problem, hint=config.hint) for problem in training]
    prompts = [prompt_ids(tokenizer, messages) for messages in asked]
    way = "take a smaller --max-new-tokens, or other --problems"
    check_fit(model, prompts, f"{config.problems}, prompts", room=config.max_new_tokens, way=way)


def _teacher(config: Config, loaded: Loaded) -> Pool | None:
    """The pool of --teacher-dir; "pairs" names the scripted hacks that ship for the model."""
    if config.teacher_dir is None:
        return None
    if config.teacher_dir != "pairs":
        return load_pool(config.teacher_dir, loaded.tokenizer, stop=loaded.stop)
    ships = shipped(config.model).teacher
    if ships is None:
        return scripted_teacher(loaded.tokenizer)
    return load_pool(ships, loaded.tokenizer, stop=loaded.stop)


def _training(config: Config, everything: Sequence[Problem], teacher: Pool | None) -> list[Problem]:
    """Problems of the wanted difficulties, and all that the teacher has rows of."""
    if not config.difficulty:
        return list(everything)
    levels = set(config.difficulty.split(","))
    taught = of_problems(teacher, everything) if teacher else {}
    return [p for p in everything if p.difficulty in levels or p.problem_id in taught]


def _first_step(config: Config, run: RunDir, adapter: Adapter, optimizer: torch.optim.Optimizer) -> int:
    first = load_checkpoint(run, adapter, optimizer) if config.resume else 0
    complete = run.finished and is_over(run.rows, config)
    if first > config.steps or complete:
        early = stopped_words(run.rows, config)
        why = f"--steps {config.steps}" if early is None else f"{early}, which"
        raise InputError(f"{run.path}: has {first} steps already; {why} leaves nothing to do")
    return first


def _editor(config: Config, adapter: Adapter, direction: Direction | None) -> Editor:
    v, edit = (direction.v, direction.edit()) if direction else (None, None)
    return Editor(adapter.params, v, edit=edit, at=config.project_at)


def _describe(
    config: Config,
    run: RunDir,
    loaded: Loaded,
    direction: Direction | None,
    v: VHack | None,
    data: Data,
) -> None:
    """config.json, which makes the directory, and the directions that no file of the user's holds.

    `v` is the v_hack that the run began with: a resumed run may go on with a later one.
    """
    warning = {}
    if is_random(config.model):
        warning = {"warning": RANDOM}
    elif is_embedded(config.model):
        warning = {"warning": TOY}
    run.begin(
        model=loaded.facts(config), v_hack=_facts_of(v), pools=data.source.pools(), **data.facts, **warning
    )
    if v is not None and config.v_hack == "auto":
        v.save(run.path / "v_hack.safetensors")
    if direction and not config.resume:
        direction.save(run.path, 0)


def _facts_of(v: VHack | None) -> dict[str, Any] | None:
    """What config.json says of a v_hack."""
    return None if v is None else {name: value for name, value in v.meta.items() if name != "made_by"}


def _given(problems: tuple[list[Problem], list[Problem]]) -> dict[str, Any]:
    """What the problem files hold, all of it: statements, tests, solutions, order."""
    if not any(problems):
        return {}
    named = zip(("train_problems", "held_out_problems"), problems, strict=True)
    return {name: {"hash": sha256(*map(repr, found))[:16]} for name, found in named}


def _evaluation(config: Config, loaded: Loaded, data: Data) -> Evaluation | None:
    if data.source.kind != "sampled" or not config.eval_samples:
        return None
    if not data.held_out:
        say(
            f"no held-out evaluation, for want of problems: {data.facts['held_out']}; trained on"
            f" {data.facts['problems']} (--eval-problems names a file of others)"
        )
        return None
    return Evaluation(
        loaded.adapter,
        loaded.tokenizer,
        data.held_out,
        stop=loaded.stop,
        samples=config.eval_samples,
        max_new_tokens=config.max_new_tokens,
        temperature=config.temperature,
        rows=config.sample_rows,
        seed=config.seed,
        limit=config.eval_limit,
        sandbox=config.sandbox,
        workers=config.workers,
    )


def restore(
    path: str | Path, *, device: str = "auto", unfinished: bool = False
) -> tuple[Adapter, Any, Config]:
    """A finished run's model with its final adapter, the tokenizer, and the run's settings.

    With `unfinished` the adapter is that of the last checkpoint. InputError where there is no such run, and
    where the base model, its tokenizer or its configuration is another one than the run's.
    """
    file = Path(path) / "config.json"
    record = read_json(file)
    config = stored_settings(file, record)
    facts = checked_object(file, record, MADE).get("model", {})
    dtype = facts.get("dtype", config.dtype).removeprefix("torch.")
    model, tokenizer = models.load(config.model, dtype=dtype, device=device)
    adapter = attach_basis(config, model)
    if unfinished:
        load_parameters(Path(path) / CHECKPOINT, adapter)
    else:
        adapter.load(Path(path) / adapter.file)
    check_parts(config.model, record.get("model", {}), parts_of(model, tokenizer))
    return adapter, tokenizer, config
