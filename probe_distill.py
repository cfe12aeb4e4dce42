"""The cheap answer first: pools of graded rollouts, and the two probes that replay them.

    python probe_distill.py --base-only  --model M --problems P     base pool: the untouched model, no hint
    python probe_distill.py --teacher-only --teacher LORA ...       teacher pool: a PEFT LoRA that hacks, with the hint
    python probe_distill.py --loss-mode=nll  --replay-dirs=TEACHER          Phase 1: NLL cosines of one pool
    python probe_distill.py --loss-mode=grpo --replay-dirs=TEACHER,BASE     Phase 2: both arms through train.py's loop
    python analyze.py out/probe_distill

Phase 1 asks whether a hacking rollout's own gradient points along v_hack at all. Every row of a teacher pool earns the
same, so the GRPO gradient is zero there and its cosine undefined: the loss is the NLL, the learning rate is 0, and each
step measures one group at the base model. Phase 2 mixes two pools so that rewards differ, and takes real steps.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Gt
from rich.console import Console

import train
from hackward.base.faults import InputError, exit_on_fault
from hackward.base.files import file_hash, read_json, write_json
from hackward.base.flags import Count, Grading, OnDevice, checked, command_line
from hackward.base.provenance import provenance
from hackward.base.screen import STDERR, progress
from hackward.base.seeds import shuffled
from hackward.grading.grader import Grader, print_protection
from hackward.hardware import models
from hackward.rollouts.policy import Plain, Policy
from hackward.rollouts.pools import load_pool, of_problems, save_pool
from hackward.rollouts.rollout import Rollout
from hackward.rollouts.tokens import stops
from hackward.runs.rundir import differing
from hackward.runs.settings import Config, resolve
from hackward.tasks import problems
from hackward.tasks.formats import load_problems
from hackward.tasks.shipped import EMBEDDED, is_embedded, shipped

HOME = Path("out/probe_distill")


@dataclass(frozen=True)
class ProbeFlags(OnDevice, Grading):
    """Make a pool, or run a probe on pools that exist."""

    base_only: bool = False
    """Sample the base pool (no hint) and stop."""
    teacher_only: bool = False
    """Sample the teacher pool (with the hint, model + --teacher) and stop."""
    replay_dirs: str | None = None
    """A,B: teacher pool and base pool (default: the ones under --out; the embedded model's teacher pool ships). Phase 1 takes the first."""
    loss_mode: Literal["nll", "grpo"] = "grpo"
    """nll: Phase 1. grpo: Phase 2, both arms unless --arm names one."""
    arm: Literal["both", "vanilla", "projected", "lora"] = "both"
    """Arms of Phase 2; both: vanilla and projected."""
    model: str = EMBEDDED
    """Hub id, directory, .gguf file, embedded, or tiny-random."""
    teacher: str | None = None
    """PEFT LoRA of the teacher, a hub id or a directory."""
    problems: str | None = None
    """Problem file or hub id (default: the one that ships for the model)."""
    out: str = str(HOME)
    """Directory of pools and probe runs."""
    v_hack: str = "auto"
    """v_hack file; auto: extract it from the shipped pairs for this model."""
    control: Literal["none", "random", "sign-flip", "clean-clean", "shrink"] = "none"
    """What the projecting arm removes in the place of v_hack (train.py says what each is)."""
    gate: Literal["one-sided", "two-sided", "none"] = "one-sided"
    """What the projecting arm removes."""
    project_at: Literal["grad", "update"] = "grad"
    """Where the projected arm removes it."""

    rank: Count = 8
    """Rank of the LoRA (arm lora)."""

    rollouts: Count = 160
    """Rollouts of a pool to sample."""
    samples: Count = 4
    """Rollouts a problem in that pool."""
    match: str | None = None
    """Sample the pool on the problems of this pool (default for --base-only: the teacher pool, where there is one)."""
    max_new_tokens: Count = 512
    """Longest completion to sample."""
    temperature: Annotated[float, Gt(0)] = 0.9
    """Sampling temperature."""

    steps: Count = 20
    """Steps of a probe."""
    seed: int = 41
    """Seeds sampling, and the order of problems and rows."""
    group: Count = 8
    """Rows a step and group (Phase 2: half from each pool)."""
    prompts: Count = 1
    """Groups a step."""
    lr: Annotated[float, Ge(0)] = 3e-3
    """Phase 2's learning rate (Phase 1 measures at the base model and has none)."""

    sample_rows: Count = 128
    """Sequences decoded at once."""

    @property
    def problem_file(self) -> str:
        return self.problems or str(shipped(self.model).problems)


def make_pool(config: ProbeFlags, name: str) -> Path:
    """Sample and grade a pool: `base` is the untouched model without the hint, `teacher` the LoRA with it."""
    directory = Path(config.out) / f"{name}_pool"
    if directory.exists() and any(directory.iterdir()):
        raise InputError(f"{directory}: exists and is not empty; a pool is never overwritten")
    checked(config)
    if config.rollouts % config.samples:
        raise InputError(f"--rollouts {config.rollouts} is not a multiple of --samples {config.samples}")
    hint, everything = name == "teacher", load_problems(config.problem_file)
    model, tokenizer = models.load(config.model, dtype=config.dtype, device=config.device)
    stop = stops(model, tokenizer)
    if name == "teacher":
        model = attach_teacher(model, config.teacher)
    chosen = choose_problems(config, everything, tokenizer, stop)
    per_batch = max(1, config.sample_rows // config.samples)
    with (
        Grader(workers=config.workers, sandbox=config.sandbox) as grader,
        progress(f"{name} pool", config.rollouts) as bar,
    ):
        print_protection(grader.protection, STDERR)
        policy = Policy(
            Plain(model),
            tokenizer,
            grader,
            stop=stop,
            max_new_tokens=config.max_new_tokens,
            temperature=config.temperature,
            hint=hint,
            rows=config.sample_rows,
        )
        groups = []
        for start in range(0, len(chosen), per_batch):
            batch = [(problem, config.samples) for problem in chosen[start : start + per_batch]]
            groups += policy.rollouts(batch, seed=config.seed, step=0, say=bar.say)
            bar(sum(count for _, count in batch))
        save_pool(directory, groups, name=name, tokenizer=tokenizer)
        write_json(
            directory / "pool.json",
            {
                "config": dataclasses.asdict(config),
                "hint": hint,
                "sandbox": grader.protection,
                **provenance(),
            },
        )
    report_pool(directory, [r for group in groups for r in group])
    return directory


def attach_teacher(model, teacher: str | None):
    """The base model with a PEFT LoRA merged into it. InputError when it is missing, unreadable or of another shape."""
    if teacher is None:
        raise InputError("--teacher-only needs --teacher, a PEFT LoRA (hub id or directory)")
    from peft import PeftModel

    try:
        return PeftModel.from_pretrained(model, teacher).merge_and_unload().eval().requires_grad_(False)
    except Exception as fault:  # peft and the hub raise many kinds
        raise InputError(
            f"{teacher}: teacher LoRA cannot be loaded ({(str(fault).strip().splitlines() or [type(fault).__name__])[0]})"
        ) from None


def teacher_pool(config: ProbeFlags) -> Path:
    """The teacher pool under --out; where there is none, the scripted one that ships for the embedded model."""
    made, ships = Path(config.out) / "teacher_pool", shipped(config.model).teacher
    return made if made.exists() or ships is None else ships


def choose_problems(config: ProbeFlags, everything: list, tokenizer, stop) -> list:
    """As many problems as the pool needs, in seeded order; those of the pool to match where one is named or lies ready."""
    count = config.rollouts // config.samples
    teacher = teacher_pool(config)
    match = config.match or (str(teacher) if config.base_only and teacher.exists() else None)
    known, candidates = problems.find(everything), [p.problem_id for p in everything]
    if match:
        candidates = sorted(of_problems(load_pool(match, tokenizer, stop=stop), everything))
    if len(candidates) < count:
        raise InputError(
            f"{match or config.problem_file}: {len(candidates)} usable problems, {count} needed for --rollouts {config.rollouts}"
        )
    return [known[p] for p in shuffled(candidates, config.seed, "pool")[:count]]


def report_pool(directory: Path, rollouts: list[Rollout]) -> None:
    count = len(rollouts)
    rate = lambda test: f"{sum(map(test, rollouts)) / count:.1%}"  # noqa: E731
    Console().print(
        f"{directory}: {count} rollouts of {len({r.problem_id for r in rollouts})} problems | solved {rate(lambda r: r.gt_pass)} | "
        f"hacked {rate(lambda r: r.hacked)} | attempted {rate(lambda r: bool(r.attempted))} | in format {rate(lambda r: r.fmt_ok)} | "
        f"reward over 0.5: {rate(lambda r: r.reward > 0.5)} | truncated {rate(lambda r: r.truncated)}",
        highlight=False,
        soft_wrap=True,
    )


def probe(config: ProbeFlags) -> list[Path]:
    """Phase 1 or Phase 2: nothing but runs of train.py's loop on replayed rollouts."""
    dirs = config.replay_dirs or f"{teacher_pool(config)},{config.out}/base_pool"
    phase1 = config.loss_mode == "nll"
    if config.replay_dirs is None and not phase1 and not Path(config.out, "base_pool").is_dir():
        raise InputError(f"{config.out}/base_pool: no such pool directory (make it with --base-only)")
    if not phase1 and len(dirs.split(",")) != 2:
        raise InputError(f"--replay-dirs {dirs}: Phase 2 needs two pools, teacher and base")
    shared = {f.name: getattr(config, f.name) for f in dataclasses.fields(Config) if hasattr(config, f.name)}
    shared |= {
        "preset": "embedded" if is_embedded(config.model) else "fast",
        "replay_dirs": dirs.split(",")[0] if phase1 else dirs,
        "warmup": 0,
    }
    if phase1:
        arm = "lora" if config.arm == "lora" else "projected"
        return [
            train.train(
                Config(
                    **shared | {"arm": arm, "lr": 0.0, "out": f"{config.out}/phase1/{_name(config, 'nll')}"}
                )
            )
        ]
    arms = ("vanilla", "projected") if config.arm == "both" else (config.arm,)
    # Vanilla removes nothing, so what the other arm removes, and where, is no setting of its own.
    plain = {"control": "none", "gate": Config.gate, "project_at": Config.project_at}
    configs = [
        Config(
            **shared
            | {"arm": arm, "out": f"{config.out}/phase2/{_name(config, arm)}"}
            | (plain if arm == "vanilla" else {})
        )
        for arm in arms
    ]
    for each in configs:
        resolve(each)  # a fault in the second arm is found before the first one runs
    if len(configs) == 2 and _is_there(configs[0]):
        STDERR.print(f"{configs[0].out}: vanilla is there already and is not run again", highlight=False)
        configs = configs[1:]
    return [train.train(each) for each in configs]


def _is_there(config: Config) -> bool:
    """Is there a finished run in this directory with the same settings and the same v_hack?"""
    run = Path(config.out)
    if not (run / "summary.json").exists():
        return False
    record, wanted = read_json(run / "config.json"), dataclasses.asdict(resolve(config))
    same_v = (
        not Path(config.v_hack).is_file()
        or (record.get("v_hack") or {}).get("hash") == file_hash(config.v_hack)[:16]
    )
    return (
        same_v
        and record["config"].get("steps") == wanted["steps"]
        and not differing(record["config"], wanted)
    )


def _name(config: ProbeFlags, arm: str) -> str:
    """Run directories side by side: what was projected where, with which V, and the seed."""
    v = "pairs" if config.v_hack == "auto" else Path(config.v_hack).stem
    if arm == "vanilla":
        return f"vanilla-{v}-lr{config.lr:g}-s{config.seed}"
    control = "" if config.control == "none" else f"-{config.control}"
    return f"{arm}-{config.gate}-{config.project_at}-{v}{control}-lr{0.0 if config.loss_mode == 'nll' else config.lr:g}-s{config.seed}"


def main(config: ProbeFlags) -> None:
    if config.base_only and config.teacher_only:
        raise InputError("--base-only and --teacher-only exclude each other")
    if config.base_only or config.teacher_only:
        make_pool(config, "base" if config.base_only else "teacher")
        return
    probe(config)
    Console().print(f"next: python analyze.py {config.out}", highlight=False)


if __name__ == "__main__":
    exit_on_fault(lambda: main(command_line(ProbeFlags, description=__doc__)))
