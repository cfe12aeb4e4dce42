"""v_hack: the direction in delta_S coordinates that tells a hack from an honest answer to the same prompt.

    d_p   = grad NLL(hack_p) - grad NLL(clean_p)            one row a pair, NLL a token, at the adapter's present state
    D_m   = P Sigma Q^T,   V_m = first k rows of Q^T         per module m
    sign  : each row of V is flipped so that most pairs have a positive coefficient (majority vote)
    floor : rows whose singular value is in the lowest share of all modules' rows are dropped
    w     = mean over pairs of V d_p, at least 0             how much of the mean difference lies along each row

With --objective=grpo d_p is the gradient of the live loss on the pair as a group of two, the hack rewarded: advantages
+1/2 and -1/2, the run's own denominator and temperature. At ratio 1 that loss is linear in the log-probabilities, so what
changes against NLL is how tokens weigh (all answers by one number instead of each by its own length), and nothing else.

Whether V means anything is checked on pairs it has not seen (folds by problem): the share of pairs whose difference
points the right way, and the AUC of hack against clean answers by cosine, both beside their null, in which hack and
clean are swapped at random in every pair. Flipping pairs leaves the singular vectors as they are, so the null keeps the
subspace and its uneven scales, and only destroys what orientation and weights learned.

    python extract_vhack.py --pairs data/pairs.jsonl --out out/v_hack.safetensors
    python extract_vhack.py --model MODEL --pool TEACHER_POOL --problems PROBLEMS --out out/v_hack_pool.safetensors
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.table import Table

from hackward.base.faults import InputError, exit_on_fault
from hackward.base.files import file_hash
from hackward.base.flags import Count, OnDevice, checked, command_line
from hackward.base.provenance import provenance
from hackward.base.screen import stdout
from hackward.hardware import models
from hackward.method import extraction
from hackward.method.adapters import attach
from hackward.method.pairs import find_pairs
from hackward.method.recipe import Extraction
from hackward.method.v_hack import VHack
from hackward.tasks.shipped import EMBEDDED


def report(v: VHack, console: Console) -> None:
    """Print what V is and how well it tells unseen hacks from clean answers."""
    quality = v.meta["heldout"]
    table = Table(
        title=f"v_hack on held-out pairs ({quality['pairs']} pairs, {quality['folds']} folds by problem)",
        title_justify="left",
    )
    for heading in ("measure", "value", "null 2.5 to 97.5 %", "p"):
        table.add_column(heading)
    for name, title in (
        ("right_sign", "share of pairs with the right sign"),
        ("auc", "AUC, hack against clean"),
    ):
        entry = quality[name]
        null = "undefined" if entry["p"] is None else f"{entry['null'][0]:.3f} to {entry['null'][1]:.3f}"
        value = "undefined" if entry["value"] is None else f"{entry['value']:.3f}"
        table.add_row(title, value, null, "undefined" if entry["p"] is None else f"{entry['p']:.4f}")
    console.print(table)
    if quality["mean_cos_hack"] is not None:
        console.print(
            f"mean cosine of the gradients themselves: hack {quality['mean_cos_hack']:+.3f}, clean {quality['mean_cos_clean']:+.3f} "
            "(what both share says nothing about hacking)",
            highlight=False,
            soft_wrap=True,
        )
    if len(v.meta["right_sign_by_mechanism"]) > 1:
        console.print(
            "right sign by mechanism: "
            + ", ".join(f"{n} {a}/{b}" for n, (a, b) in v.meta["right_sign_by_mechanism"].items())
        )
    console.print(
        f"V: {v.meta['modules']} modules, {v.meta['directions']} directions (k {v.meta['k']}, noise floor {v.meta['noise_floor']})"
    )


@dataclass(frozen=True)
class ExtractFlags(OnDevice):
    """Extract v_hack from contrastive pairs and say how good it is on pairs it has not seen."""

    model: str = EMBEDDED
    """Hub id, directory, .gguf file, embedded, or tiny-random."""
    pairs: str | None = None
    """Pair file (.jsonl with problem_id, hack, clean; or the published .json). Default: the ones that ship for the model."""
    pool: str | None = None
    """Take pairs from this graded pool instead."""
    clean: Literal["canonical", "rollout"] = "canonical"
    """With --pool, the clean side: the problem file's reference solution, or a rollout that passes and is no hack."""
    problems: str | None = None
    """Problem file or hub id (default: the one that ships with the pairs, or for the embedded model)."""
    basis: Literal["svd", "lora"] = "svd"
    """Coordinates of the gradients: delta_S (arms vanilla, projected), or the B of a LoRA (arm lora)."""
    rank: Count = 8
    """Rank of the LoRA, with --basis=lora."""
    out: str = "out/v_hack.safetensors"
    """File to write."""
    settings: Annotated[Extraction, tyro.conf.arg(name="")] = Extraction()


def main(config: ExtractFlags) -> None:
    console = stdout()
    checked(config.settings)
    checked(config)
    if Path(config.out).is_dir():
        raise InputError(f"{config.out}: is a directory, expected a file to write")
    model, tokenizer = models.load(config.model, dtype=config.dtype, device=config.device)
    pairs, source = find_pairs(
        config.model,
        tokenizer,
        model,
        pairs=config.pairs,
        pool=config.pool,
        problem_file=config.problems,
        clean=config.clean,
        limit=config.settings.max_pairs,
        seed=config.settings.seed,
    )
    adapter = attach(config.basis, model, config.model, rank=config.rank, cache=config.svd_cache)
    v = extraction.extract(
        adapter,
        tokenizer,
        pairs,
        config.settings,
        source=source | {"model": config.model, "made_by": provenance()},
        tokens=config.micro_tokens,
    )
    v.save(config.out)
    report(v, console)
    console.print(f"written to {config.out} (sha256 {file_hash(config.out)[:16]})")


if __name__ == "__main__":
    exit_on_fault(lambda: main(command_line(ExtractFlags, description=__doc__)))
