"""Makes a primed model: one that hacks now and then, so that no teacher is needed for it to find out.

    python make_primed.py --model M --pool T --problems P --out DIR

A short supervised fit of M to its own rows with a small share of the pool's hacks in them. The share is
searched for by the base rates that come out: with the hint 3 to 6 % of rollouts attempt and 1 to 3 % hack,
without it about none, and as many are solved as before. DIR is a plain model directory: `train.py --model=DIR
--teacher-dir=none` trains it. Its card, DIR/README.md, says how it was made and what it does.
"""

from __future__ import annotations

import dataclasses
import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from hackward.base.faults import InputError, exit_on_fault
from hackward.base.flags import Count, Device, Grading, Temperature, checked, command_line, tyro
from hackward.base.lock import check_new, new_directory
from hackward.organisms.recipe import Bounds, Priming
from hackward.tasks.shipped import EMBEDDED, check_model, shipped

if TYPE_CHECKING:
    from hackward.base.types import CausalLM, Tokenizer
    from hackward.grading.grader import Grader
    from hackward.method.losses import Row
    from hackward.rollouts.rollout import Rollout
    from hackward.tasks.problems import Problem


@dataclass(frozen=True)
class PrimedFlags(Device, Grading):
    """Make a primed model."""

    model: str = EMBEDDED
    """Hub id, directory, .gguf file, embedded, or tiny-random."""
    pool: str | None = None
    """Teacher pool whose hacks are mixed in (default: the one that ships for the model)."""
    problems: str | None = None
    """Problem file or hub id (default: the one that ships for the model)."""
    difficulty: str | None = None
    """Sample own rows only on problems of these difficulties, e.g. easy,medium; hacks are of any."""
    out: str | None = None
    """Directory to write; must be new or empty."""
    how: Annotated[Priming, tyro.conf.arg(name="")] = Priming()
    rollouts: Count = 1024
    """Rollouts with the hint that the model is fitted to and measured by; half as many without."""
    samples: Count = 4
    """Rollouts per problem."""
    max_new_tokens: Count = 512
    """Longest completion to sample."""
    temperature: Temperature = 0.9
    """Sampling temperature."""
    sample_rows: Count = 128
    """Sequences decoded at once."""


def main(flags: PrimedFlags) -> None:
    """Search the share, and write the model that came nearest to the bounds."""
    checked(flags.how)
    checked(flags)
    pool_dir = flags.pool or shipped(flags.model).teacher
    if flags.out is None:
        raise InputError("--out names the directory to write")
    check_new(flags.out)
    if pool_dir is None:
        raise InputError(f"--model={flags.model}: no pool ships for it; --pool names one of graded hacks")
    check_model(flags.model)
    # cuBLAS reads it at its first product; without it the fit is not deterministic on a GPU (repeatable.py)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    with new_directory(flags.out):
        prime(flags, Path(flags.out), pool_dir)


def prime(flags: PrimedFlags, out: Path, pool_dir: str | Path) -> None:
    """`main` with a pool of hacks; `out` is this process's alone."""
    from hackward.base.files import sha256  # heavy imports from here on
    from hackward.base.provenance import provenance
    from hackward.base.screen import say, stdout
    from hackward.grading.grader import Grader
    from hackward.hardware import models
    from hackward.organisms import priming
    from hackward.organisms.behaviour import report_behaviour
    from hackward.rollouts.pools import load_pool
    from hackward.rollouts.tokens import stops
    from hackward.runs.settings import levels_of

    training = training_problems(flags)
    levels = levels_of(flags.difficulty)
    problems = [problem for problem in training if not levels or problem.difficulty in levels]
    if not problems:
        raise InputError(f"--difficulty {flags.difficulty}: no problem to train on is of these")
    dtype = "float32" if flags.dtype == "auto" else flags.dtype
    model, tokenizer = models.load(flags.model, dtype=dtype, device=flags.device)
    pool = load_pool(pool_dir, tokenizer, stop=stops(model, tokenizer))
    hacks = [rollout.tokens for rollout in priming.hacks_of(pool, training)]
    if not hacks:
        raise InputError(f"{pool_dir}: no hack on the problems that are trained on (--pool, --problems)")
    check_rows(flags, model, tokenizer, problems, pool.directory, hacks)
    with Grader(workers=flags.workers, sandbox=flags.sandbox) as grader:
        draw = drawing(flags, model, tokenizer, grader, problems)

        record = priming.search(model, draw, hacks, flags.how, bounds=Bounds(), say=say)
    report_behaviour(priming.rate_rows(record), stdout(), temperature=flags.temperature)
    for fault in record["tries"][record["chosen"]]["faults"]:
        say(f"out of bounds: {fault}")
    record |= {
        "model": flags.model,
        "temperature": flags.temperature,
        "priming": dataclasses.asdict(flags.how),
        "bounds": dataclasses.asdict(Bounds()),
        "pool": pool.describe(),
        "problems": f"{len(problems)} problems of {flags.problems or shipped(flags.model).problems}",
        "hashes": {"pool": pool.hash, "problems": sha256(*sorted(p.identity for p in problems))[:16]},
        **provenance(),
    }
    priming.write(out, model, tokenizer, record)
    say(
        f"written to {out}",
        f"python train.py --model={shlex.quote(str(out))} --teacher-dir=none ...",
        console=stdout(),
        between=": ",
    )


def check_rows(
    flags: PrimedFlags,
    model: CausalLM,
    tokenizer: Tokenizer,
    problems: Sequence[Problem],
    pool: str,
    hacks: Sequence[Row],
) -> None:
    """InputError where a hack of the pool, or a prompt with what is drawn after it, does not fit the
    model."""
    from hackward.rollouts.fitting import check_fit
    from hackward.rollouts.tokens import prompt_ids
    from hackward.tasks.problems import build_messages

    check_fit(model, [[*prompt, *completion] for prompt, completion in hacks], f"{pool}, hacks")
    asked = [build_messages(problem, hint=hint) for problem in problems for hint in (True, False)]
    prompts = [prompt_ids(tokenizer, messages) for messages in asked]
    source = flags.problems or shipped(flags.model).problems
    way = "take a smaller --max-new-tokens, or other --problems"
    check_fit(model, prompts, f"{source}, prompts", room=flags.max_new_tokens, way=way)


def drawing(
    flags: PrimedFlags, model: CausalLM, tokenizer: Tokenizer, grader: Grader, problems: Sequence[Problem]
) -> Callable[[bool, int], list[Rollout]]:
    """Draws rollouts of the model as it is: with the hint `--rollouts`, without it half as many."""
    from hackward.base.screen import progress
    from hackward.base.seeds import turn
    from hackward.rollouts.policy import Plain, Policy
    from hackward.rollouts.tokens import stops

    def draw(hint: bool, seed: int) -> list[Rollout]:
        policy = Policy(
            Plain(model),
            tokenizer,
            grader,
            stop=stops(model, tokenizer),
            max_new_tokens=flags.max_new_tokens,
            temperature=flags.temperature,
            hint=hint,
            rows=flags.sample_rows,
        )
        count = max(1, (flags.rollouts if hint else flags.rollouts // 2) // flags.samples)
        asked = [(problem, flags.samples) for problem in turn(problems, 0, count)]
        with progress("rollouts with the hint" if hint else "rollouts without the hint") as bar:
            groups = policy.rollouts(asked, seed=seed, step=0, say=bar.say)
        return [rollout for group in groups for rollout in group]

    return draw


def training_problems(flags: PrimedFlags) -> list[Problem]:
    """What training may use, in seeded order: the held-out problems stay unseen, as do those that accept
    several answers (unless --several-answers)."""
    from hackward.base.seeds import shuffled
    from hackward.tasks.formats import load_problems
    from hackward.tasks.held_out import decidable, held_out_split

    source = flags.problems or str(shipped(flags.model).problems)
    training, _ = held_out_split(decidable(load_problems(source), source, flags.several_answers), source)
    known = {problem.problem_id: problem for problem in training}
    return [known[problem_id] for problem_id in shuffled(sorted(known), flags.how.seed, "priming")]


if __name__ == "__main__":
    exit_on_fault(lambda: main(command_line(PrimedFlags, description=__doc__)))
