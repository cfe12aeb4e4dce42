"""The oracle audit: what a v_hack catches of the gradient that really tells hacks from other rollouts, and
what any could.

    python audit.py TEACHER_POOL BASE_POOL --v-hack=A.safetensors,B.safetensors
    python audit.py out/onpolicy/vanilla --v-hack=A.safetensors
    python audit.py teacher_pool base_pool --v-hack=A.safetensors --own=out/onpolicy/vanilla

Rollouts come with labels, so the direction that a v_hack tries to guess can be looked at. For each V: its
cosine with that direction (g*) and how much of g* it catches, both beside their null; the ceiling of the
cosine; and an oracle, which is V extracted from the labels of other problems: what labels, instead of
guesses, would buy at the same rank. The formulas are in hackward/method/oracle.py.

A fold's mean is noisier than g*, so the oracle, judged on the fifth of the problems that it has not seen, is
to be compared with the column "by fifths", in which every V is judged on the same fifths.

Gradients are NLL per token at the base model, those that an NLL extraction contrasts. Problems that have both
labels are compared within themselves. Where too few have both, hacks are paired with other rollouts at
random: problem and label cannot be told apart then, such differences are not independent, and there is no
null, oracle or ceiling. Problems that a V was made from are left out where enough others are there.

With --own it also says what a monitor would know by each V: the AUC of the cosine with V on rollouts that the
model itself wrote in a run, its hacks (its attempts) against all its other rollouts (method/own_rows.py). A V
whose pairs have two authors may reach .99 on pairs and .5 there. Gradients are at the base model, which is
where a run begins; its later rollouts are read as the base model reads them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from hackward.base.faults import InputError, exit_on_fault
from hackward.base.files import read_json, write_json
from hackward.base.flags import Count, Ge, OnDevice, checked, command_line, tyro
from hackward.base.lock import only_writer_of
from hackward.base.provenance import provenance
from hackward.base.space import check_output
from hackward.tasks.shipped import EMBEDDED, check_model

if TYPE_CHECKING:
    from rich.console import Console
    from torch import Tensor

    from hackward.method.v_hack import VHack
    from hackward.rollouts.rollout import Rollout

ORACLE = "oracle (labels of other problems)"
WITHIN = "problems, hacks against others of the same problem"
ACROSS = "random pairs: problem and label cannot be told apart"
HEADINGS = (
    "direction",
    "cos with g*",
    "null (95 %)",
    "p",
    "caught",
    "null (95 %)",
    "p",
    "cos by fifths",
    "caught by fifths",
)
LEGEND = (
    "g*: mean gradient difference of labelled rollouts. The oracle sees labels that no run has before it"
    " hacks: a V far below it can be improved. The ceiling is the cosine to expect of the true direction:"
    " near 0, g* itself is noise here."
)


@dataclass(frozen=True)
class AuditFlags(OnDevice):
    """Compare v_hacks with the gradient difference of labelled rollouts."""

    rollouts: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="DIR...")]
    """Pools, or finished on-policy runs; together they must hold hacks and other rollouts."""
    v_hack: str
    """v_hack files to audit, separated by commas; all in the same basis."""
    model: str | None = None
    """Hub id, directory, .gguf file, embedded, or tiny-random (default: what the run was made with, else
    embedded)."""
    limit: Annotated[int, Ge(2)] = 128
    """Most rollouts of either label."""
    own: str | None = None
    """A run of this model: also the AUC of each V on the rollouts that the model wrote itself in it."""
    own_limit: Annotated[int, Ge(20)] = 1024
    """Most rollouts of --own: all hacks, up to half of it, and others drawn by --seed."""
    draws: Annotated[int, Ge(20)] = 1000
    """Permutations, and half splits."""
    seed: int = 0
    """Choice of rollouts, permutations, splits."""
    rank: Count = 8
    """Rank of the LoRA, for v_hacks in its basis."""
    out: str = "out/audit.json"
    """File to write."""


def pool_of(directory: str) -> Path:
    """A run's rollouts lie in a folder of it; a pool is one."""
    inside = Path(directory) / "rollouts"
    return inside if inside.is_dir() else Path(directory)


def model_of(flags: AuditFlags) -> str:
    """--model, else what the first of the runs was made with."""
    if flags.model:
        return flags.model
    for directory in (*flags.rollouts, *filter(None, [flags.own])):
        file = Path(directory) / "config.json"
        record = read_json(file) if file.is_file() else {}
        if isinstance(record, dict) and "config" in record:
            return record["config"]["model"]
    return EMBEDDED


def files_of(flags: AuditFlags) -> list[str]:
    """The v_hack files, in the same basis."""
    from hackward.method.adapters import stored_basis

    files = [file for file in flags.v_hack.split(",") if file]
    bases = {stored_basis(file) for file in files}
    if len(bases) != 1:
        found = ", ".join(sorted(bases)) or "none"
        raise InputError(
            f"--v-hack {flags.v_hack}: expected one or more files in the same basis, found {found}"
        )
    return files


def main(flags: AuditFlags) -> None:
    checked(flags)
    if not flags.rollouts:
        raise InputError("no rollouts: name one or more pools or finished runs")
    check_output(
        flags.out, (*filter(None, flags.v_hack.split(",")), *map(pool_of, flags.rollouts), flags.model)
    )
    with only_writer_of(flags.out):
        audited(flags)


def audited(flags: AuditFlags) -> None:
    """Measure, write and show; --out is this process's alone."""
    from hackward.base.screen import say, stdout  # heavy imports from here on
    from hackward.hardware import models
    from hackward.method import extraction
    from hackward.method.adapters import attach, stored_basis
    from hackward.rollouts.fitting import check_fit
    from hackward.rollouts.pools import load_pool
    from hackward.rollouts.tokens import PAD, stops

    name, files = model_of(flags), files_of(flags)
    check_model(name)
    model, tokenizer = models.load(name, dtype=flags.dtype, device=flags.device)
    pools = [
        load_pool(pool_of(directory), tokenizer, stop=stops(model, tokenizer)) for directory in flags.rollouts
    ]
    for pool in pools:
        rows = [rollout.prompt_ids + rollout.completion_ids for rollout in pool.rollouts]
        check_fit(model, rows, f"{pool.directory}, rollouts")
    adapter = attach(
        stored_basis(files[0]),
        model,
        name,
        rank=flags.rank,
        cache=flags.svd_cache,
        targets=flags.targets,
    )
    stems = [Path(file).stem for file in files]
    directions = {}
    for stem, file in zip(stems, files):
        v = extraction.load(file, adapter)
        extraction.note_other_prompts(v, tokenizer)
        directions[stem if stems.count(stem) == 1 else file] = v
    written = own_rollouts(flags.own, adapter.model_hash) if flags.own else None
    rollouts = [rollout for pool in pools for rollout in pool.rollouts]
    found = measure(flags, adapter, rollouts, directions, pad=PAD)
    facts = {"rollouts": [pool.directory for pool in pools], "model": name, **found}
    if written:
        facts["own"] = measure_own(flags, adapter, written, directions, pad=PAD)
    console = stdout()
    report(facts, console)
    write_json(flags.out, {"config": asdict(flags), **facts, **provenance()})
    say(f"written to {flags.out}", console=console)


def measure(
    flags: AuditFlags, adapter: Any, loaded: Sequence[Rollout], directions: dict[str, VHack], *, pad: int
) -> dict[str, Any]:
    """All figures, as they stand in the file."""
    from hackward.method import extraction, oracle
    from hackward.method.recipe import Extraction

    usable, seen = oracle.unseen(loaded, list(directions.values()))
    rollouts = oracle.chosen(usable, flags.limit, flags.seed)
    weights_PN, within = oracle.difference_weights(rollouts, flags.seed)
    D = oracle.differences(adapter, rollouts, weights_PN, pad=pad, tokens=flags.micro_tokens)
    flips_SP = oracle.sign_flips(flags.draws, len(weights_PN), flags.seed)
    v_hacks: dict[str, dict[str, Any]] = {}
    for name, v in directions.items():
        figures = oracle.catch(D, v, flips_SP)
        if not within:  # differences of random pairs are not independent: no null
            figures = {key: oracle.Figure(figure.value) for key, figure in figures.items()}
        v_hacks[name] = {"hash": v.meta["hash"]} | {key: asdict(figure) for key, figure in figures.items()}
    first = next(iter(directions.values())).meta
    settings = Extraction(k=first["k"], noise_floor=first["noise_floor"])
    makers: dict[str, Callable[[dict[str, Tensor]], VHack]] = {
        ORACLE: lambda d: extraction.build(d, settings, {}),
    }
    for name, v in directions.items():
        makers[name] = functools.partial(_given, v)
    fifths: dict[str, dict[str, float] | None] = dict.fromkeys(makers)
    if within:
        fifths = {name: oracle.by_fifths(D, make, flags.seed) for name, make in makers.items()}
    hacks = sum(rollout.hacked for rollout in rollouts)
    return {
        "hacks": hacks,
        "others": len(rollouts) - hacks,
        "differences": len(weights_PN),
        "within_problems": within,
        "seen_by_v_hack": seen,
        "ceiling": oracle.ceiling(D, flags.draws, flags.seed) if within else None,
        "by_fifths": fifths,
        "v_hacks": v_hacks,
    }


def own_rollouts(run: str, model_hash: str) -> tuple[list[Rollout], float]:
    """(what the model itself wrote in a run, the temperature that it was drawn at).

    InputError for a run of another model, or one without such rollouts.
    """
    from hackward.base.records import POLICY
    from hackward.reports.schema import checked_facts
    from hackward.rollouts.pools import pool_files, stored_rollouts

    file = Path(run) / "config.json"
    record = checked_facts(file, read_json(file))
    if record["model"].get("hash") != model_hash:
        raise InputError(f"{file}: a run of another model than that of the v_hack (--own)")
    stored = [rollout for path in pool_files(pool_of(run)) for rollout in stored_rollouts(path)]
    own = [rollout for rollout in stored if rollout.src_pool == POLICY]
    if not own:
        raise InputError(f"{run}: holds no rollouts that the model itself wrote (--own)")
    return own, record["config"].get("temperature", 1.0)


def measure_own(
    flags: AuditFlags,
    adapter: Any,
    written: tuple[Sequence[Rollout], float],
    directions: dict[str, VHack],
    *,
    pad: int,
) -> dict[str, Any]:
    """AUC of every V on a run's own rollouts, as it stands in the file; `written`: of own_rollouts."""
    from hackward.method import oracle, own_rows

    own, temperature = written
    usable, seen = oracle.unseen(own, list(directions.values()))
    rollouts, weights = own_rows.sampled(usable, flags.own_limit, flags.seed)
    vs, tokens = list(directions.values()), flags.micro_tokens
    score_ND = own_rows.scores(adapter, rollouts, vs, pad=pad, tokens=tokens, temperature=temperature)
    auc = {}
    for name, score_N in zip(directions, score_ND.T):
        found = own_rows.aucs(rollouts, score_N, weights)
        auc[name] = {target: asdict(estimate) for target, estimate in found.items()}
    return {
        "run": flags.own,
        "own": len(own),
        "scored": len(rollouts),
        "hacked": sum(rollout.hacked for rollout in rollouts),
        "attempted": sum(bool(rollout.attempted) for rollout in rollouts),
        "problems": len({rollout.identity for rollout in rollouts}),
        "seen_by_v_hack": seen,
        "auc": auc,
    }


def _given(v: VHack, differences: dict[str, Tensor]) -> VHack:
    """A V that is there already, whatever the differences are."""
    return v


def cells(figure: dict[str, Any] | None) -> list[str]:
    """A figure, its null, its p."""
    from hackward.base.screen import show

    if figure is None:
        return ["-"] * 3
    if figure["p"] is None:
        return [show(figure["value"]), "undefined", "undefined"]
    return [show(figure["value"]), f"{figure['low']:+.2f} {figure['high']:+.2f}", f"{figure['p']:.4f}"]


def report(facts: dict[str, Any], console: Console) -> None:
    """Print the table and what it means."""
    from hackward.base.screen import say, show
    from hackward.base.terminal import drawn

    unit = WITHIN if facts["within_problems"] else ACROSS
    sizes = f"{facts['hacks']} hacks, {facts['others']} others, {facts['differences']} {unit}"
    lines = []
    for name, fifths in facts["by_fifths"].items():
        found = facts["v_hacks"].get(name, {})
        folds = [show(fifths[key] if fifths else None) for key in ("cos", "caught")]
        lines.append([name, *cells(found.get("cos")), *cells(found.get("caught")), *folds])
    console.print(drawn(f"Oracle audit: {sizes}", HEADINGS, lines, console.width))
    caveat = "; caveat: V was made from some of these problems" if facts["seen_by_v_hack"] else ""
    say(f"ceiling of cos (reliability of g*): {show(facts['ceiling'])}{caveat}", console=console)
    say(LEGEND, console=console)
    if "own" in facts:
        report_own(facts["own"], console)


def report_own(facts: dict[str, Any], console: Console) -> None:
    """Print what each V knows of the model's own rollouts, and say it in words."""
    from hackward.base.screen import say
    from hackward.base.statistics import Estimate
    from hackward.base.terminal import drawn
    from hackward.reports.words import knows, tight_auc

    sizes = f"{facts['hacked']} hacked, {facts['attempted']} attempted of {facts['scored']} scored"
    title = f"Own rollouts of {facts['run']}: {sizes} ({facts['own']} in all), {facts['problems']} problems"
    headings = ("direction", "AUC hacked against other", "AUC attempted against other")
    lines, sentences = [], []
    for name, by_target in facts["auc"].items():
        hacked, attempted = (Estimate(**by_target[target]) for target in ("hacked", "attempted"))
        lines.append([name, tight_auc(hacked), tight_auc(attempted)])
        sentences += [knows("hacks", hacked, who=name), knows("attempts", attempted, who=name)]
    console.print(drawn(title, headings, lines, console.width))
    for sentence in sentences:
        say(f"{sentence}.", console=console)
    if facts["seen_by_v_hack"]:
        say("caveat: V was made from some of these problems", console=console)


if __name__ == "__main__":
    exit_on_fault(lambda: main(command_line(AuditFlags, description=__doc__)))
