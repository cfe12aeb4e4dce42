"""The cheap answer first: pools of graded rollouts, and the two probes that replay them.

    python probe_distill.py --base-only --model M --problems P            base pool: the untouched model
    python probe_distill.py --teacher-only --teacher LORA ...             teacher pool: a LoRA that hacks
    python probe_distill.py --loss-mode=nll  --replay-dirs=TEACHER        Phase 1: NLL cosines of one pool
    python probe_distill.py --loss-mode=grpo --replay-dirs=TEACHER,BASE   Phase 2: both arms, train.py's loop
    python analyze.py out/probe_distill

Phase 1 asks whether a hacking rollout's own gradient points along v_hack at all. Every row of a teacher pool
earns the same, so the GRPO gradient is zero there and its cosine undefined: the loss is the NLL, the learning
rate is 0, and each step measures one group at the base model. Phase 2 mixes two pools so that rewards differ,
and takes real steps.
"""

from __future__ import annotations

import dataclasses
import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hackward.base.arms import ArmFlag, Control, Gate, Place, own_gate
from hackward.base.faults import InputError, exit_on_fault
from hackward.base.files import file_hash, write_json
from hackward.base.flags import Count, Grading, OnDevice, Rate, Seed, Temperature, checked, command_line
from hackward.base.lock import contents, only_writer
from hackward.base.provenance import provenance
from hackward.base.space import check_space
from hackward.base.types import Tokenizer
from hackward.grading.descriptors import check_descriptors
from hackward.runs.rundir import differing
from hackward.runs.settings import Config, resolve
from hackward.runs.stored import read_record
from hackward.tasks.shipped import EMBEDDED, check_model, is_embedded, shipped
from train import train

if TYPE_CHECKING:
    from hackward.rollouts.rollout import Rollout
    from hackward.tasks.problems import Problem

HOME = Path("out/probe_distill")
BYTES_A_TOKEN = 2  # of a rollout on disk, zipped, its ids, log-probabilities and text
BASIS_ARMS: dict[str, ArmFlag] = {"both": "projected", "projected": "projected", "lora": "lora"}  # of Phase 1


@dataclass(frozen=True)
class ProbeFlags(OnDevice, Grading):
    """Make a pool, or run a probe on pools that exist."""

    base_only: bool = False
    """Sample the base pool (no hint) and stop."""
    teacher_only: bool = False
    """Sample the teacher pool (with the hint, model + --teacher) and stop."""
    replay_dirs: str | None = None
    """A,B: teacher pool and base pool (default: the ones under --out; the embedded model's teacher pool
    ships). Phase 1 takes the first."""
    loss_mode: Literal["nll", "grpo"] = "grpo"
    """nll: Phase 1, in the basis of --arm (lora, else delta_S). grpo: Phase 2, both arms unless --arm names
    one."""
    arm: Literal["both", ArmFlag] = "both"
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
    control: Control = "none"
    """What the projecting arm removes in the place of v_hack (train.py says what each is)."""
    gate: Gate | None = None
    """What the projecting arm removes (default: the arm's own)."""
    project_at: Place = "grad"
    """Where the projected arm removes it."""

    rank: Count = 8
    """Rank of the LoRA (arm lora)."""

    rollouts: Count = 160
    """Rollouts of a pool to sample."""
    samples: Count = 4
    """Rollouts per problem in that pool."""
    match: str | None = None
    """Sample the pool on the problems of this pool (default for --base-only: the teacher pool, where there is
    one)."""
    max_new_tokens: Count = 512
    """Longest completion to sample."""
    temperature: Temperature = 0.9
    """Sampling temperature."""

    steps: Count = 20
    """Steps of a probe."""
    seed: Seed = 41
    """Seeds sampling, and the order of problems and rows."""
    group: Count = 8
    """Rows per step and group (Phase 2: half from each pool)."""
    prompts: Count = 1
    """Groups per step."""
    lr: Rate = 3e-3
    """Phase 2's learning rate (Phase 1 measures at the base model and has none)."""

    sample_rows: Count = 128
    """Sequences decoded at once."""

    @property
    def problem_file(self) -> str:
        return self.problems or str(shipped(self.model).problems)


def make_pool(flags: ProbeFlags, name: str) -> Path:
    """Sample and grade a pool: `base` is the untouched model without the hint, `teacher` the LoRA with it."""
    checked(flags)
    if flags.rollouts % flags.samples:
        raise InputError(f"--rollouts {flags.rollouts} is not a multiple of --samples {flags.samples}")
    directory = Path(flags.out) / f"{name}_pool"
    with only_writer(directory):
        if contents(directory):
            raise InputError(f"{directory}: exists and is not empty; a pool is never overwritten")
        sample_pool(flags, name, directory)
    return directory


def sample_pool(flags: ProbeFlags, name: str, directory: Path) -> None:
    """`make_pool` in a directory that is empty and this process's alone."""
    from hackward.base.screen import STDERR, progress  # heavy imports from here on
    from hackward.grading.grader import Grader
    from hackward.grading.protection import print_protection
    from hackward.hardware import models
    from hackward.hardware.teacher import attach_teacher, check_teacher
    from hackward.rollouts.fitting import check_fit
    from hackward.rollouts.policy import Plain, Policy
    from hackward.rollouts.pools import save_pool
    from hackward.rollouts.tokens import stops
    from hackward.tasks.formats import load_problems
    from hackward.tasks.held_out import decidable

    check_model(flags.model)
    if name == "teacher":
        check_teacher(flags.teacher)
    check_descriptors(flags.workers or len(os.sched_getaffinity(0)))
    check_space(directory, flags.rollouts * flags.max_new_tokens * BYTES_A_TOKEN, "the pool")
    everything = decidable(load_problems(flags.problem_file), flags.problem_file, flags.several_answers)
    model, tokenizer = models.load(flags.model, dtype=flags.dtype, device=flags.device)
    stop = stops(model, tokenizer)
    if name == "teacher":
        model = attach_teacher(model, flags.teacher)
    chosen = choose_problems(flags, everything, tokenizer, stop)
    per_batch = max(1, flags.sample_rows // flags.samples)
    groups: list[list[Rollout]] = []
    with (
        Grader(workers=flags.workers, sandbox=flags.sandbox) as grader,
        progress(f"{name} pool", flags.rollouts) as bar,
    ):
        print_protection(grader.protection, STDERR)
        policy = Policy(
            Plain(model),
            tokenizer,
            grader,
            stop=stop,
            max_new_tokens=flags.max_new_tokens,
            temperature=flags.temperature,
            hint=name == "teacher",
            rows=flags.sample_rows,
        )
        asked = [policy.prompt(problem)[1] for problem in chosen]
        way = "take a smaller --max-new-tokens, or other --problems"
        check_fit(model, asked, f"{flags.problem_file}, prompts", room=flags.max_new_tokens, way=way)
        for start in range(0, len(chosen), per_batch):
            batch = [(problem, flags.samples) for problem in chosen[start : start + per_batch]]
            groups += policy.rollouts(batch, seed=flags.seed, step=0, say=bar.say)
            bar(len(batch) * flags.samples)
        save_pool(directory, groups, name=name, tokenizer=tokenizer)
        facts = {"config": dataclasses.asdict(flags), "hint": name == "teacher", "sandbox": grader.protection}
        write_json(directory / "pool.json", facts | provenance())
    report_pool(directory, [rollout for group in groups for rollout in group])


def teacher_pool(flags: ProbeFlags) -> Path:
    """The teacher pool under --out; where there is none, the scripted one that ships for the embedded
    model."""
    made, ships = Path(flags.out) / "teacher_pool", shipped(flags.model).teacher
    return made if made.exists() or ships is None else ships


def choose_problems(
    flags: ProbeFlags, everything: Sequence[Problem], tokenizer: Tokenizer, stop: Sequence[int]
) -> list[Problem]:
    """As many problems as the pool needs, in seeded order; those of the pool to match where one is named or
    lies ready."""
    from hackward.base.seeds import shuffled
    from hackward.rollouts.pools import load_pool, of_problems
    from hackward.tasks import problems

    count, teacher, match = flags.rollouts // flags.samples, teacher_pool(flags), flags.match
    if match is None and flags.base_only and teacher.exists():
        match = str(teacher)
    candidates = [problem.problem_id for problem in everything]
    if match:
        candidates = sorted(of_problems(load_pool(match, tokenizer, stop=stop), everything))
    if len(candidates) < count:
        raise InputError(
            f"{match or flags.problem_file}: {len(candidates)} usable problems, {count} needed for --rollouts"
            f" {flags.rollouts}"
        )
    known = problems.find(everything)
    return [known[problem_id] for problem_id in shuffled(candidates, flags.seed, "pool")[:count]]


def report_pool(directory: Path, rollouts: Sequence[Rollout]) -> None:
    """One line of rates."""
    from hackward.base.screen import say, stdout

    def rate(test: Callable[[Rollout], bool | None]) -> str:
        return f"{sum(bool(test(rollout)) for rollout in rollouts) / len(rollouts):.1%}"

    problems = {rollout.problem_id for rollout in rollouts}
    facts = [
        f"{directory}: {len(rollouts)} rollouts of {len(problems)} problems",
        f"solved {rate(lambda rollout: rollout.gt_pass)}",
        f"hacked {rate(lambda rollout: rollout.hacked)}",
        f"attempted {rate(lambda rollout: rollout.attempted)}",
        f"in format {rate(lambda rollout: rollout.fmt_ok)}",
        f"reward over 0.5: {rate(lambda rollout: rollout.reward > 0.5)}",
        f"truncated {rate(lambda rollout: rollout.truncated)}",
    ]
    say(*facts, console=stdout(), between=" | ")


def shared_settings(flags: ProbeFlags) -> dict[str, Any]:
    """What both phases pass on to train.py."""
    names = [field.name for field in dataclasses.fields(Config) if hasattr(flags, field.name)]
    settings = {name: getattr(flags, name) for name in names}
    preset = "embedded" if is_embedded(flags.model) else "fast"
    return settings | {"preset": preset, "warmup": 0}


def phase1(flags: ProbeFlags) -> Config:
    """The NLL probe: the first pool alone, each step one group at the base model. InputError where nothing
    could be seen."""
    if flags.project_at == "update":
        raise InputError(
            "--loss-mode=nll --project-at=update: Phase 1 takes no steps (its learning rate is 0), so there"
            " is no update to project; leave --project-at=grad"
        )
    if flags.arm not in BASIS_ARMS:
        raise InputError(
            f"--loss-mode=nll --arm={flags.arm}: Phase 1 measures before and after an edit; its arm"
            " names the basis: projected (delta_S) or lora"
        )
    if flags.gate == "none":
        raise InputError(
            "--loss-mode=nll --gate=none: Phase 1 measures before and after an edit, this is none"
        )
    pool = (flags.replay_dirs or str(teacher_pool(flags))).split(",")[0]
    arm = BASIS_ARMS[flags.arm]
    own = {
        "arm": arm,
        "lr": 0.0,
        "replay_dirs": pool,
        "out": f"{flags.out}/phase1/nll-{run_name(flags, arm)}",
    }
    return Config(**shared_settings(flags) | own)


def phase2(flags: ProbeFlags) -> list[Config]:
    """The mixed-replay probe, a run per arm; a vanilla that is there already is not run again."""
    if flags.arm == "both" and flags.gate == "none":
        raise InputError("--gate=none: nothing would be removed; --arm=vanilla alone measures only")
    pools = flags.replay_dirs or f"{teacher_pool(flags)},{flags.out}/base_pool"
    if flags.replay_dirs is None and not Path(flags.out, "base_pool").is_dir():
        raise InputError(f"{flags.out}/base_pool: no such pool directory (make it with --base-only)")
    if len(pools.split(",")) != 2:
        raise InputError(f"--replay-dirs {pools}: Phase 2 needs two pools, teacher and base")
    arms = ("vanilla", "projected") if flags.arm == "both" else (flags.arm,)
    shared = shared_settings(flags) | {"replay_dirs": pools}
    # Vanilla removes nothing, so what the other arm removes, and where, is no setting of its own.
    plain = {"control": "none", "gate": Config.gate, "project_at": Config.project_at}
    configs = []
    for arm in arms:
        own = {"arm": arm, "out": f"{flags.out}/phase2/{run_name(flags, arm)}"}
        configs.append(Config(**shared | own | (plain if arm == "vanilla" else {})))
    for each in configs:
        resolve(each)  # a fault in the second arm is found before the first one runs
    if len(configs) == 2 and is_there(configs[0]):
        from hackward.base.screen import say

        say(f"{configs[0].out}: vanilla is there already and is not run again")
        return configs[1:]
    return configs


def is_there(config: Config) -> bool:
    """Is there a finished run in this directory with the same settings?

    InputError where it was made from another model, pool or v_hack than the same paths hold.
    """
    run = Path(str(config.out))
    if not (run / "summary.json").exists():
        return False
    record, wanted = read_record(run), dataclasses.asdict(resolve(config))
    stored = record["config"]
    if stored.get("steps") != wanted["steps"] or differing(stored, wanted):
        return False
    from hackward.runs.parts import WORDS  # loads torch

    made, found = hashes_of(record), hashes_now(config)
    for what, digest in found.items():
        if what in WORDS.values() and what not in made:  # older runs did not write it down
            continue
        if made.get(what) != digest:
            raise InputError(
                f"{run}: made with another {what} (hash {made.get(what)}, found {digest}): one probe would"
                " mix them; take another --out"
            )
    return True


def hashes_of(record: dict[str, Any]) -> dict[str, Any]:
    """What config.json says that a run was made from: hashes by words."""
    from hackward.runs.parts import WORDS  # loads torch

    pools = record.get("pools") or []
    found = {f"pool {pool.get('dir')}": pool.get("hash") for pool in pools}
    for name in ("model", "v_hack"):
        found[name] = (record.get(name) or {}).get("hash")
    model = record.get("model") or {}
    return found | {what: model[part] for part, what in WORDS.items() if part in model}


def hashes_now(config: Config) -> dict[str, str]:
    """The same hashes of what a run with these settings would be made from; of v_hack only where it is a
    file."""
    from hackward.hardware import models
    from hackward.hardware.hashes import model_hash
    from hackward.rollouts.pools import pool_hash
    from hackward.runs.parts import WORDS, parts_of

    found = {f"pool {pool}": pool_hash(pool) for pool in str(config.replay_dirs).split(",")}
    if Path(config.v_hack).is_file():
        found["v_hack"] = file_hash(config.v_hack)[:16]
    model, tokenizer = models.load(config.model, dtype=config.dtype, device=config.device)
    parts = parts_of(model, tokenizer)
    return found | {"model": model_hash(model)} | {what: parts[part] for part, what in WORDS.items()}


def run_name(flags: ProbeFlags, arm: str) -> str:
    """Run directories side by side: what was projected where, with which V, and the seed."""
    v = "pairs" if flags.v_hack == "auto" else Path(flags.v_hack).stem
    if arm == "vanilla":
        return f"vanilla-{v}-lr{flags.lr:g}-s{flags.seed}"
    control = "" if flags.control == "none" else f"-{flags.control}"
    lr = 0.0 if flags.loss_mode == "nll" else flags.lr
    gate = flags.gate or own_gate("projected" if flags.arm == "both" else flags.arm)
    basis = f"{arm}-r{flags.rank}" if arm == "lora" and flags.rank != ProbeFlags.rank else arm
    return f"{basis}-{gate}-{flags.project_at}-{v}{control}-lr{lr:g}-s{flags.seed}"


def probe(flags: ProbeFlags) -> list[Path]:
    """Phase 1 or Phase 2: nothing but runs of train.py's loop on replayed rollouts."""
    configs = [phase1(flags)] if flags.loss_mode == "nll" else phase2(flags)
    return [train(config) for config in configs]


def say_next(flags: ProbeFlags) -> None:
    from hackward.base.screen import say, stdout

    say(f"next: python analyze.py {shlex.quote(flags.out)}", console=stdout())


def main(flags: ProbeFlags) -> None:
    if flags.base_only and flags.teacher_only:
        raise InputError("--base-only and --teacher-only exclude each other")
    if flags.base_only or flags.teacher_only:
        make_pool(flags, "base" if flags.base_only else "teacher")
        say_next(flags)
        return
    probe(flags)
    say_next(flags)


if __name__ == "__main__":
    exit_on_fault(lambda: main(command_line(ProbeFlags, description=__doc__)))
