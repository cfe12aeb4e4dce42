"""Extract v_hack, the direction that tells a hack from an honest answer, from contrastive pairs. Method:
hackward/method/extraction.py.

    python extract_vhack.py --pairs data/pairs.jsonl --out out/v_hack.safetensors
    python extract_vhack.py --model MODEL --pool TEACHER_POOL --problems PROBLEMS --out out/v_pool.safetensors
    python extract_vhack.py --model MODEL --pool RUN --clean=rollouts --out out/v_own.safetensors
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from hackward.base.faults import InputError, exit_on_fault
from hackward.base.files import file_hash
from hackward.base.flags import Count, OnDevice, checked, command_line, tyro
from hackward.base.lock import only_writer_of
from hackward.base.provenance import provenance
from hackward.base.space import check_output, check_space
from hackward.method.recipe import Extraction
from hackward.tasks.shipped import EMBEDDED, check_model

if TYPE_CHECKING:
    from rich.console import Console

    from hackward.method.v_hack import VHack

LEAST_BYTES = 1 << 16  # of the smallest file
MEASURES = {"right_sign": "share of pairs with the right sign", "auc": "AUC, hack against clean"}


@dataclass(frozen=True)
class ExtractFlags(OnDevice):
    """Extract v_hack from contrastive pairs and say how good it is on pairs it has not seen."""

    model: str = EMBEDDED
    """Hub id, directory, .gguf file, embedded, or tiny-random."""
    pairs: str | None = None
    """Pair file (.jsonl with problem_id, hack, clean; or the published .json). Default: the ones that ship
    for the model."""
    pool: str | None = None
    """Take pairs from this graded pool instead."""
    clean: Literal["canonical", "rollout", "rollouts"] = "canonical"
    """With --pool, the clean side: the problem file's reference solution, or a rollout that passes and is no
    hack. rollouts: both sides are a run's own rollouts, so that they have one author."""
    label: Literal["hacked", "attempted"] = "hacked"
    """With --clean=rollouts, what tells the two sides apart. hacked is the grader's label (the file then says
    oracle: true); attempted needs no ground truth."""
    problems: str | None = None
    """Problem file or hub id (default: the one that ships with the pairs, or for the embedded model)."""
    basis: Literal["svd", "lora"] = "svd"
    """Coordinates of the gradients: delta_S (arms vanilla, projected), or the B of a LoRA (arm lora)."""
    rank: Count = 8
    """Rank of the LoRA, with --basis=lora."""
    out: str = "out/v_hack.safetensors"
    """File to write."""
    settings: Annotated[Extraction, tyro.conf.arg(name="")] = Extraction()


def main(flags: ExtractFlags) -> None:
    """Look at what is asked for, then make it."""
    checked(flags.settings)
    checked(flags)
    if flags.label != "hacked" and flags.clean != "rollouts":
        raise InputError(f"--label={flags.label} needs --clean=rollouts")
    check_output(flags.out, (flags.pairs, flags.pool, flags.problems, flags.model), LEAST_BYTES)
    check_model(flags.model)
    with only_writer_of(flags.out):
        extracted(flags)


def extracted(flags: ExtractFlags) -> None:
    """Make the v_hack, write it and show it; --out is this process's alone."""
    from hackward.base.screen import say, stdout  # heavy imports from here on
    from hackward.hardware import models
    from hackward.method import extraction
    from hackward.method.adapters import attach
    from hackward.method.pairs import find_pairs

    model, tokenizer = models.load(flags.model, dtype=flags.dtype, device=flags.device)
    pairs, source = find_pairs(
        flags.model,
        tokenizer,
        model,
        pairs=flags.pairs,
        pool=flags.pool,
        problem_file=flags.problems,
        clean=flags.clean,
        limit=flags.settings.max_pairs,
        seed=flags.settings.seed,
        label=flags.label,
    )
    adapter = attach(
        flags.basis,
        model,
        flags.model,
        rank=flags.rank,
        cache=flags.svd_cache,
        targets=flags.targets,
    )
    numbers = sum(p.numel() for p in adapter.params.values())
    check_space(flags.out, 4 * numbers * flags.settings.k, "the v_hack file")
    v = extraction.extract(
        adapter,
        tokenizer,
        pairs,
        flags.settings,
        source=source | {"model": flags.model, "made_by": provenance()},
        tokens=flags.micro_tokens,
    )
    v.save(flags.out)
    console = stdout()
    report(v, console)
    say(f"written to {flags.out} (sha256 {file_hash(flags.out)[:16]})", console=console)


def cells(entry: dict[str, Any]) -> list[str]:
    """A measurement, its null, its p."""
    value = "undefined" if entry["value"] is None else f"{entry['value']:.3f}"
    if entry["p"] is None:
        return [value, "undefined", "undefined"]
    low, high = entry["null"]
    return [value, f"{low:.3f} to {high:.3f}", f"{entry['p']:.4f}"]


def report(v: VHack, console: Console) -> None:
    """Print what V is and how well it tells unseen hacks from clean answers."""
    from hackward.base.screen import say
    from hackward.base.terminal import drawn

    meta, quality = v.meta, v.meta["heldout"]
    size = f"{quality['pairs']} pairs, {quality['folds']} folds by problem"
    title = f"v_hack on held-out pairs ({size})"
    lines = [[words, *cells(quality[name])] for name, words in MEASURES.items()]
    console.print(drawn(title, ["measure", "value", "null 2.5 to 97.5 %", "p"], lines, console.width))
    if quality["mean_cos_hack"] is not None:
        say(
            f"mean cosine of the gradients themselves: hack {quality['mean_cos_hack']:+.3f}, clean"
            f" {quality['mean_cos_clean']:+.3f} (what both share says nothing about hacking)",
            console=console,
        )
    mechanisms = meta["right_sign_by_mechanism"]
    if len(mechanisms) > 1:
        counts = ", ".join(f"{name} {right}/{pairs}" for name, (right, pairs) in mechanisms.items())
        say(f"right sign by mechanism: {counts}", console=console)
    settings = f"k {meta['k']}, noise floor {meta['noise_floor']}"
    say(f"V: {meta['modules']} modules, {meta['directions']} directions ({settings})", console=console)


if __name__ == "__main__":
    exit_on_fault(lambda: main(command_line(ExtractFlags, description=__doc__)))
