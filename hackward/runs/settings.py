"""The settings of a run: one dataclass, the presets, what a command line means. No torch in here."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt

from hackward.base.arms import (
    ARMS,
    DEFAULT_FPR,
    INTERVENING,
    ArmFlag,
    Control,
    Gate,
    Intervene,
    MonitorName,
    Place,
    arm_of,
    own_gate,
)
from hackward.base.faults import InputError
from hackward.base.flags import (
    Amount,
    Count,
    Grading,
    OnDevice,
    Rate,
    Seed,
    Temperature,
    checked,
    command_line,
    has_gpu,
    target_names,
)
from hackward.tasks.problems import DIFFICULTIES
from hackward.tasks.shipped import EMBEDDED, TINY, is_embedded, shipped


@dataclass(frozen=True)
class Config(OnDevice, Grading):
    """One run. Everything here is stored in the run's config.json."""

    arm: ArmFlag = "vanilla"
    """vanilla measures only; projected takes v_hack out; lora does so with a LoRA in the place of delta_S;
    penalty and screen are vanilla with that --intervene."""
    preset: Literal["smoke", "embedded", "fast", "full"] = "embedded"
    """Defaults for all else (without --preset: by the model; without either, embedded on a CPU, fast on a
    GPU)."""
    steps: Count = 20
    """Optimizer steps."""
    stop_after_breakout: Amount = 0
    """End the run so many steps after hacking broke out in it (the first step whose 3-step mean of hacked
    exceeds 0.1); 0: make all --steps."""
    seed: Seed = 41
    """Seeds the choice of problems and, with step, problem and sample, every drawn token."""
    out: str | None = None
    """Run directory; must be new. Default: out/runs/<time>-<preset>-<arm>-..."""
    resume: bool = False
    """Go on with the run in --out from its last checkpoint."""

    model: str = EMBEDDED
    """Hub id, directory, .gguf file, embedded, or tiny-random."""
    problems: str | None = None
    """Problem file (.jsonl, .jsonl.gz) or hub id (default: the one that ships for the model)."""
    difficulty: str | None = None
    """Train only on problems of these difficulties, e.g. easy,medium (problems of the teacher pool are always
    in)."""
    hint: bool = True
    """Open the loophole: the prompt names run_tests(), and a passing run_tests() is rewarded."""

    replay_dirs: str | None = None
    """A,B: replay graded rollouts from these pools instead of sampling."""
    loss_mode: Literal["grpo", "nll"] = "grpo"
    """grpo, or nll: every row weighs 1 (Phase 1)."""
    teacher_dir: str | None = None
    """Pool whose rows are mixed into sampled groups; "pairs": the scripted hacks that ship for the model."""
    teacher_rows: Amount = 2
    """Rows of a group that come from the teacher."""
    teacher_until: Amount = 20
    """Step from which no teacher is mixed in any more."""
    teacher_share: Annotated[float, Ge(0), Le(1)] = 0.5
    """Share of a step's prompts that are problems of the teacher pool."""

    v_hack: str = "auto"
    """v_hack file; auto: extract it from the shipped pairs for this model; none: measure nothing (arms that
    remove nothing)."""
    objective: Literal["nll", "grpo"] = "nll"
    """With --v-hack=auto, the loss whose gradients are contrasted."""
    refresh_every: Amount = 0
    """Steps after which v_hack is extracted anew, on the model as it is then; 0: never."""
    refresh_from: Literal["pairs", "rollouts"] = "pairs"
    """From the pairs of v_hack, or from the run's own last rollouts: a hack against one that is none, of the
    same problem (this uses labels)."""
    refresh: Literal["replace", "union"] = "replace"
    """Put the new directions in the place of the old ones, or beside them."""
    refresh_label: Literal["hacked", "attempted"] = "hacked"
    """With --refresh-from=rollouts, what tells the two sides apart."""
    control: Control = "none"
    """What a projecting arm removes in the place of v_hack: random directions; those of pairs with random
    signs; of clean against clean answers; or nothing, each update scaled to the length that the removal would
    have left. Cosines are with v_hack all the same. Of an intervention: flags drawn at random at the
    monitor's rate; or scores along the v_hack of such pairs."""
    gate: Gate | None = None
    """What a projecting arm removes: only hack-ward coefficients, or both signs (default: the arm's own,
    which is one-sided). none: --arm=lora as its own baseline."""
    project_at: Place = "grad"
    """Project the gradient before the optimizer (the method as first written down), or the update after it.
    AdamW turns a projected gradient back: cos_out is 0 and cos_update is not. update closes that leak."""
    intervene: Intervene = "none"
    """What happens to rollouts that the monitor flags: penalty pays them for their format alone; screen
    leaves them out of their group's mean and of the policy gradient; none: the monitor looks on."""
    monitor: MonitorName = "none"
    """Who flags: truth (labels), attempt (defines the evaluation function), v_hack (own gradient points along
    it), probe (hidden states of the base model look like a hack's)."""
    monitor_noise: Annotated[float, Ge(0), Le(1)] = 0.0
    """Probability that a flag of --monitor=truth is flipped."""
    monitor_score: Literal["cosine", "whitened"] = "cosine"
    """Of --monitor=v_hack: the plain cosine, or one that discounts what honest answers differ in."""
    monitor_fpr: Annotated[float, Gt(0), Lt(1)] = DEFAULT_FPR
    """Share of held-out clean answers of the pairs that v_hack and probe may flag: sets their threshold."""
    monitor_rows: Literal["all", "own", "teacher"] = "all"
    """Whose rollouts may be flagged."""
    rank: Count = 8
    """Rank of the LoRA (arm lora)."""
    match_size: bool = True
    """--lr is given for delta_S: scale it for a LoRA, so that one step moves Delta W as far."""

    prompts: Count = 8
    """Prompts (groups) per step."""
    group: Count = 8
    """Rollouts per prompt."""
    max_new_tokens: Count = 512
    """Longest completion to sample."""
    temperature: Temperature = 0.9
    """Sampling temperature; log-probabilities of sampled rows are taken at the same."""
    lr: Rate = 3e-3
    """Peak learning rate of AdamW."""
    warmup: Amount = 3
    """Steps of linear warm-up."""
    beta1: Annotated[float, Ge(0), Lt(1)] = 0.5
    """AdamW's momentum."""
    beta2: Annotated[float, Ge(0), Lt(1)] = 0.9
    """AdamW's second-moment decay."""
    weight_decay: Rate = 0.0
    """AdamW's decay of delta_S towards the base model."""
    clip: Annotated[float, Gt(0)] = 1.0
    """Largest gradient norm."""
    beta: Annotated[float, Ge(0), Le(1000)] | None = None
    """Weight of the KL to the base model (default 1e-3; replayed rows are off-policy and have none)."""
    normaliser: Literal["fixed", "length"] | None = None
    """Loss denominator: fixed (max_new_tokens, sampled default) or length (a row's own, replay default)."""

    eval_samples: Amount = 4
    """Completions per problem and condition of the held-out evaluation (evaluate.py); 0: none."""
    eval_every: Amount = 0
    """Steps between held-out evaluations; the last step is evaluated in any case."""
    eval_limit: Count = 64
    """Most problems of the held-out evaluation."""
    eval_problems: str | None = None
    """File of held-out problems, which are not trained on (default: a frozen tenth of --problems, which never
    is; the embedded model has a file of its own)."""

    sample_rows: Count = 128
    """Sequences decoded at once (fewer where the GPU's memory holds fewer)."""
    shared_prompts: bool = True
    """Compute a prompt once for all rows of its group in the backward, where the model can and no gradient of
    a single row is read: the same gradient to rounding."""
    checkpointing: bool = False
    """Gradient checkpointing: less memory, one more forward."""
    save_every: Count = 10
    """Steps between checkpoints."""
    track: Literal["none", "tensorboard", "trackio", "wandb"] = "none"
    """Mirror the numbers of rows.jsonl in a tracker as they come. It needs its package, and never ends a
    run."""

    @property
    def kind(self) -> str:
        """sampled (on-policy), replay (Phase 2), or phase1 (the NLL probe)."""
        if self.replay_dirs is None:
            return "sampled"
        return {"grpo": "replay", "nll": "phase1"}[self.loss_mode]

    @property
    def loss_temperature(self) -> float:
        """At which log-probabilities are taken, by the loss and by an extraction with its objective.

        That of sampling, where rollouts are sampled; replayed ones are scored at 1, whatever drew them.
        """
        return self.temperature if self.replay_dirs is None else 1.0


DEFAULT_BETA = 1e-3  # of sampled runs
HUB_MODEL, HUB_PROBLEMS = "Qwen/Qwen3-4B", "newfacade/LeetCodeDataset"
PRESETS = {
    "smoke": Config(
        preset="smoke",
        model=TINY,
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
    # Chosen on the vanilla arm alone, before any other arm was run on this model (spec/log.md says what was
    # tried).
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
        warmup=10,
    ),
}


def resolve(config: Config) -> Config:
    """Fill the settings whose default depends on others, and refuse combinations that cannot mean anything.

    A resolved Config resolves to itself. InputError names the flags.
    """
    checked(config)
    levels = levels_of(config.difficulty)
    target_names(config.targets)
    if config.group == 1 and config.loss_mode == "grpo":
        raise InputError(
            "--group 1: an advantage is the difference from the group's mean, 0 in a group of one, so nothing"
            " could be learnt; take 2 or more"
        )
    _refuse_replay(config)
    _refuse_edit(config)
    _refuse_monitor(config)
    _refuse_refresh(config)
    if config.teacher_dir not in (None, "none") and config.teacher_rows >= config.group:
        raise InputError(
            f"--teacher-rows {config.teacher_rows} leaves no place for samples in a group of {config.group}"
        )
    replayed = config.replay_dirs is not None
    sampled_beta = DEFAULT_BETA if config.beta is None else config.beta
    arm = arm_of(vars(config))
    return dataclasses.replace(
        config,
        arm=arm.flag,
        gate=config.gate or own_gate(config.arm),
        intervene=arm.intervene,
        problems=config.problems or str(shipped(config.model).problems),
        beta=0.0 if replayed else sampled_beta,
        normaliser=config.normaliser or ("length" if replayed else "fixed"),
        teacher_dir=None if replayed or config.teacher_dir == "none" else config.teacher_dir,
        difficulty=",".join(levels) or None,
    )


def levels_of(difficulty: str | None) -> list[str]:
    levels = [level.strip().lower() for level in difficulty.split(",")] if difficulty else []
    if unknown := sorted(set(levels) - set(DIFFICULTIES)):
        raise InputError(f"--difficulty {difficulty}: {unknown[0]!r} is none of {', '.join(DIFFICULTIES)}")
    return levels


def _refuse_replay(config: Config) -> None:
    if config.replay_dirs is None:
        return
    if not all(config.replay_dirs.split(",")):
        raise InputError(
            f"--replay-dirs {config.replay_dirs!r}: expected one or more directories, separated by commas"
        )
    directories = [os.path.normpath(directory) for directory in config.replay_dirs.split(",")]
    if len(set(directories)) < len(directories):
        raise InputError(f"--replay-dirs {config.replay_dirs}: the same directory twice")
    if config.group % len(directories):
        raise InputError(f"--group {config.group} does not divide among {len(directories)} pools")
    if config.beta:
        raise InputError(
            "--beta > 0 with --replay-dirs: the KL estimate needs samples of the policy, replayed rows are"
            " none"
        )
    if config.stop_after_breakout:
        raise InputError(
            f"--stop-after-breakout={config.stop_after_breakout} with --replay-dirs: hacking cannot break out"
            " in rollouts that are replayed"
        )


def _refuse_edit(config: Config) -> None:
    arm = arm_of(vars(config))
    if arm.flag != config.arm and ARMS[config.arm].edits:
        removes = " removes nothing" if not arm.edits else ""
        raise InputError(f"--arm={config.arm} --gate={config.gate}{removes}: that is --arm={arm.flag}")
    if config.v_hack == "none" and (arm.uses_v_hack or config.monitor == "v_hack"):
        raise InputError(f"--arm={config.arm} --monitor={config.monitor} needs a --v-hack")
    if config.control != "none" and arm.vanilla:
        raise InputError(
            f"--control={config.control} stands in for what an arm removes or flags; this one does neither"
            " (--arm=projected, or a --monitor with --intervene)"
        )
    if config.control == "sign-flip" and config.gate == "two-sided":
        raise InputError(
            "--control=sign-flip --gate=two-sided: signs do not matter to a two-sided gate, so this would"
            " remove exactly what v_hack does"
        )
    if config.lr == 0 and arm.edits and arm.place == "update":
        raise InputError(
            "--lr=0 --project-at=update: without a learning rate there is no update to project; leave"
            " --project-at=grad"
        )
    if config.control == "shrink" and arm.intervene != "none":
        raise InputError(f"--control=shrink is a control of projections; this run also has a {arm.intervene}")
    if config.control == "shrink" and config.project_at == "grad":
        raise InputError("--control=shrink needs --project-at=update: AdamW undoes the scaling of a gradient")


def _mixes_teacher(config: Config) -> bool:
    amounts = (config.teacher_rows, config.teacher_until, config.teacher_share)
    return config.teacher_dir not in (None, "none") and all(amounts)


def _refuse_monitor(config: Config) -> None:
    arm, by = arm_of(vars(config)), f"--monitor={config.monitor}"
    if config.arm in INTERVENING and config.intervene not in ("none", config.arm):
        raise InputError(f"--arm={config.arm} --intervene={config.intervene}: one intervention per run")
    if arm.intervene != "none" and config.monitor == "none":
        raise InputError(f"{arm.intervene} needs a --monitor: truth, attempt, v_hack or probe")
    if config.monitor_noise and config.monitor != "truth":
        raise InputError(f"--monitor-noise={config.monitor_noise:g}: only --monitor=truth has flags to flip")
    if config.monitor_score != "cosine" and config.monitor != "v_hack":
        raise InputError(f"--monitor-score={config.monitor_score}: only --monitor=v_hack has such a score")
    if config.monitor_fpr != DEFAULT_FPR and config.monitor not in ("v_hack", "probe"):
        raise InputError(f"--monitor-fpr={config.monitor_fpr:g}: only v_hack and probe have a threshold")
    if config.monitor == "none":
        if config.monitor_rows != "all":
            raise InputError(f"--monitor-rows={config.monitor_rows} needs a --monitor")
        return
    if config.replay_dirs is not None:
        raise InputError(f"{by} with --replay-dirs: replayed rollouts have a cosine each already")
    if config.loss_mode == "nll":
        raise InputError(f"{by} --loss-mode=nll: that loss has no rewards to look at")
    if config.monitor_rows == "teacher" and not _mixes_teacher(config):
        raise InputError(
            "--monitor-rows=teacher: no teacher's rollouts are mixed in (--teacher-dir, --teacher-rows,"
            " --teacher-until, --teacher-share)"
        )
    if arm.intervene == "none" or config.control == "none":
        return
    if config.control in ("sign-flip", "clean-clean") and config.monitor != "v_hack":
        raise InputError(
            f"--control={config.control} {by}: this control needs --monitor=v_hack (random: any)"
        )


def _refuse_refresh(config: Config) -> None:
    if config.v_hack == "none" and config.refresh_every:
        raise InputError(f"--arm={config.arm} --refresh-every needs a --v-hack")
    how = [
        f"--{flag.replace('_', '-')}={getattr(config, flag)}"
        for flag in ("refresh_from", "refresh", "refresh_label")
        if getattr(config, flag) != getattr(Config, flag)
    ]
    if how and not config.refresh_every:
        raise InputError(f"{how[0]} needs --refresh-every")
    if config.refresh_label != Config.refresh_label and config.refresh_from == "pairs":
        raise InputError(f"--refresh-label={config.refresh_label} needs --refresh-from=rollouts")
    if config.refresh_from == "rollouts" and config.kind != "sampled":
        raise InputError("--refresh-from=rollouts with --replay-dirs: there are no rollouts of the run's own")
    if config.refresh_from == "rollouts" and config.control in ("sign-flip", "clean-clean"):
        raise InputError(
            f"--refresh-from=rollouts --control={config.control}: the control needs v_hack's pairs"
        )


def _given(argv: Sequence[str], flag: str) -> str | None:
    """The value of a flag as it was typed, `--flag value` or `--flag=value`; the last one counts."""
    values = [value for name, value in zip(argv, argv[1:]) if name == flag]
    values += [arg.partition("=")[2] for arg in argv if arg.startswith(f"{flag}=")]
    return values[-1] if values else None


def preset_of(model: str | None) -> str:
    """The preset where none is given: settings chosen for the embedded model suit no other."""
    if model is None:
        return "fast" if has_gpu() else "embedded"
    if is_embedded(model):
        return "embedded"
    return "smoke" if model == TINY else "fast"


def parse(argv: Sequence[str], description: str | None = None) -> Config:
    """The preset gives the defaults, flags override them.

    Without --preset it goes by the model: embedded for the embedded one (the default on a CPU), fast for any
    other (the default on a GPU). InputError for what is no flag or no value of one.
    """
    preset = _given(argv, "--preset") or preset_of(_given(argv, "--model"))
    default = PRESETS.get(preset, Config())
    return command_line(Config, argv, default=default, prog="train.py", description=description)
