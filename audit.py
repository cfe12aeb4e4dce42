"""The oracle audit: what a v_hack catches of the gradient that really tells hacks from other rollouts, and what any could.

    python audit.py out/probe_distill/teacher_pool out/probe_distill/base_pool --v-hack=A.safetensors,B.safetensors
    python audit.py out/onpolicy/vanilla --v-hack=A.safetensors

Rollouts come with labels, so the direction that a v_hack tries to guess can be looked at: d_p = mean gradient of problem p's
hacks minus that of its other rollouts, and g* their mean over problems. For each V:

    cos      signed cosine of g* with V^T w                      what the diagnostics of training would see
    caught   |V g*| / |g*|                                        what a two-sided removal of V would take out
    null     the same for g* with the signs of the d_p permuted   what uneven scales and chance give; each flipped mean is scaled
                                                                  to its own length, so p is on the safe side
    ceiling  sqrt of the reliability of g*                        no V can have a larger cosine with this estimate of g*
    oracle   V extracted from the d_p of other problems           what labels, instead of guesses, would buy at the same rank

A fold's mean is noisier than g*, so the oracle, judged on the fifth of the problems that it has not seen, is to be compared
with the column "by fifths", in which every V is judged on the same fifths.

Gradients are NLL a token at the base model, those that an NLL extraction contrasts. Problems that have both labels are
compared within themselves. Where fewer than MATCHED have both, hacks are paired with other rollouts at random: problem and
label cannot be told apart then, such differences are not independent, and there is no null, oracle or ceiling. Problems that a V was made from are left out where enough others
are there. P differences, S draws, K directions over all modules.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro
from annotated_types import Ge
from rich.console import Console
from rich.table import Table
from torch import Tensor

from hackward.base.faults import InputError, exit_on_fault
from hackward.base.files import read_json, write_json
from hackward.base.flags import Count, OnDevice, checked, command_line
from hackward.base.provenance import provenance
from hackward.base.screen import progress, show, stdout
from hackward.base.seeds import shuffled
from hackward.base.statistics import permutation_test
from hackward.hardware import models
from hackward.method import extraction, gradients
from hackward.method.adapters import attach, stored_basis
from hackward.method.losses import normaliser
from hackward.method.projection import coefficients, cosine, norm
from hackward.method.quality import folds
from hackward.method.recipe import Extraction
from hackward.method.v_hack import VHack
from hackward.rollouts.pools import load_pool
from hackward.rollouts.rollout import Rollout
from hackward.rollouts.tokens import pad_id, stops
from hackward.tasks.shipped import EMBEDDED

ORACLE = "oracle (labels of other problems)"
MATCHED = 8  # problems with both labels from which on differences are taken within problems only


@dataclass(frozen=True)
class AuditFlags(OnDevice):
    """Compare v_hacks with the gradient difference of labelled rollouts."""

    rollouts: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="DIR...")]
    """Pools, or finished on-policy runs; together they must hold hacks and other rollouts."""
    v_hack: str
    """v_hack files to audit, separated by commas; all in the same basis."""
    model: str | None = None
    """Hub id, directory, .gguf file, embedded, or tiny-random (default: what the run was made with, else embedded)."""
    limit: Annotated[int, Ge(2)] = 128
    """Most rollouts of either label."""
    draws: Annotated[int, Ge(20)] = 1000
    """Permutations, and half splits."""
    seed: int = 0
    """Choice of rollouts, permutations, splits."""
    rank: Count = 8
    """Rank of the LoRA, for v_hacks in its basis."""
    out: str = "out/audit.json"
    """File to write."""


def chosen(rollouts: Sequence[Rollout], limit: int, seed: int) -> list[Rollout]:
    """At most `limit` rollouts of either label, going round the problems; those of problems that have both labels come first.

    InputError where there are no hacks, or nothing else.
    """
    by_problem: dict[str, dict[bool, list[Rollout]]] = defaultdict(lambda: {True: [], False: []})
    for rollout in rollouts:
        by_problem[rollout.identity][rollout.hacked].append(rollout)
    taken = []
    for label in (True, False):
        order = sorted(
            shuffled(sorted(by_problem), seed, "problems"), key=lambda p: not all(by_problem[p].values())
        )
        rows = [shuffled(by_problem[p][label], seed, p, label) for p in order]
        rounds = [held[i] for i in range(max(map(len, rows))) for held in rows if i < len(held)]
        if not rounds:
            raise InputError(
                f"the rollouts hold no {'hacks' if label else 'rollouts that are no hacks'}: nothing to compare"
            )
        taken += rounds[:limit]
    return taken


def difference_weights(rollouts: Sequence[Rollout], seed: int) -> tuple[Tensor, bool]:
    """(P, N): row p times the rollouts' gradients is d_p; and whether the differences are within problems."""
    place: dict[str, dict[bool, list[int]]] = defaultdict(lambda: {True: [], False: []})
    for i, rollout in enumerate(rollouts):
        place[rollout.identity][rollout.hacked].append(i)
    both = [sides for _, sides in sorted(place.items()) if all(sides.values())]
    within = len(both) >= MATCHED
    if not within:
        hacks, others = (
            shuffled([i for i, r in enumerate(rollouts) if r.hacked is label], seed, "pairs", label)
            for label in (True, False)
        )
        both = [{True: [h], False: [o]} for h, o in zip(hacks, others)]
    weights = torch.zeros(len(both), len(rollouts))
    for p, sides in enumerate(both):
        weights[p, sides[True]] = 1 / len(sides[True])
        weights[p, sides[False]] = -1 / len(sides[False])
    return weights, within


def differences(
    adapter, rollouts: Sequence[Rollout], weights_PN: Tensor, *, pad: int, tokens: int
) -> dict[str, Tensor]:
    """{module: (P, R)} of the d_p, from per-sample NLL gradients at the adapter's present state."""
    lengths = torch.tensor([len(r.completion_ids) for r in rollouts])
    with progress("audit: gradients of rollouts", len(rollouts)) as bar:
        found = gradients.of_samples(
            adapter,
            [r.tokens for r in rollouts],
            torch.ones(len(rollouts)),
            normaliser("length", lengths, rollouts=1, fixed=0),
            pad=pad,
            tokens=tokens,
            on_batch=bar,
        )
    return {name: weights_PN @ g for name, g in found.items()}


@dataclass(frozen=True)
class Figure:
    """A measurement beside its null: the 2.5 to 97.5 % range, and the one-sided p with the +1 correction; None where there is no null."""

    value: float
    low: float | None = None
    high: float | None = None
    p: float | None = None


def against(value: float, draws: Tensor) -> Figure:
    return Figure(value, *permutation_test(value, draws.double().numpy()))


def caught(g: dict[str, Tensor], v: VHack) -> Tensor:
    """(...): |V g| / |g| over all modules."""
    return sum(coefficients(g[name], V).square().sum(-1) for name, V in v.V.items()).sqrt() / norm(g)


def catch(D: dict[str, Tensor], v: VHack, flips_SP: Tensor) -> dict[str, Figure]:
    """cos and caught of the mean difference, with the null of flipping the differences."""
    P = flips_SP.shape[1]
    gram = sum(d @ d.T for d in D.values())
    length_S = (flips_SP @ gram * flips_SP).sum(1).sqrt() / P  # |g*| of each flip
    coef = {name: flips_SP @ coefficients(D[name], V) / P for name, V in v.V.items()}
    dot_S = sum(c @ v.w[name] for name, c in coef.items())
    share_S = sum(c.square().sum(1) for c in coef.values()).sqrt() / length_S
    mean = {name: d.mean(0) for name, d in D.items()}
    return {
        "cos": against(float(cosine(mean, v)), dot_S / (length_S * norm(v.w))),
        "caught": against(float(caught(mean, v)), share_S),
    }


def ceiling(D: dict[str, Tensor], splits: int, seed: int) -> float | None:
    """sqrt of g*'s reliability: mean cosine of the means of two random halves, stepped up to the whole (Spearman-Brown).

    No direction that does not know this sample's noise can have a larger expected cosine with g*. None where the halves disagree.
    """
    gram = sum(d @ d.T for d in D.values()).double()
    P, rng = len(gram), np.random.default_rng(seed)
    cosines = []
    for _ in range(splits):
        side = torch.zeros(P, dtype=torch.double)
        side[rng.permutation(P)[: P // 2]] = 1
        a, b = side / side.sum(), (1 - side) / (1 - side).sum()
        cosines.append(float(a @ gram @ b / ((a @ gram @ a) * (b @ gram @ b)).sqrt()))
    r = sum(cosines) / len(cosines)
    return (2 * r / (1 + r)) ** 0.5 if r > 0 else None


def by_fifths(
    D: dict[str, Tensor], make: Callable[[dict[str, Tensor]], VHack], seed: int
) -> dict[str, float] | None:
    """cos and caught of `make`(differences of the other four fifths) on each fifth, averaged; None with too few differences."""
    P, found = len(next(iter(D.values()))), []
    for test in folds([str(p) for p in range(P)], 5, seed):
        train = np.setdiff1d(np.arange(P), test)
        if len(train) < 2:
            return None
        v, mean = (
            make({name: d[train] for name, d in D.items()}),
            {name: d[test].mean(0) for name, d in D.items()},
        )
        found.append((float(cosine(mean, v)), float(caught(mean, v))))
    return dict(zip(("cos", "caught"), (sum(values) / len(found) for values in zip(*found))))


def fresh(rollouts: Sequence[Rollout], directions: Sequence[VHack]) -> tuple[list[Rollout], bool]:
    """The rollouts on problems that no V was made from, and False; or all of them and True, where those leave under MATCHED of a label."""
    seen = {identity for v in directions for identity in v.meta.get("pair_identities", ())}
    unseen = [r for r in rollouts if r.identity not in seen]
    enough = min(sum(r.hacked is label for r in unseen) for label in (True, False)) >= MATCHED
    return (unseen, False) if enough else (list(rollouts), len(unseen) < len(rollouts))


def main(config: AuditFlags) -> None:
    console = stdout()
    checked(config)
    if not config.rollouts:
        raise InputError("no rollouts: name one or more pools or finished runs")
    directories = [
        Path(d) / "rollouts" if (Path(d) / "rollouts").is_dir() else Path(d) for d in config.rollouts
    ]
    made = [
        read_json(Path(d) / "config.json") for d in config.rollouts if (Path(d) / "config.json").is_file()
    ]
    name = config.model or next(
        (record["config"]["model"] for record in made if "config" in record), EMBEDDED
    )
    files = [file for file in config.v_hack.split(",") if file]
    bases = {stored_basis(file) for file in files}
    if len(bases) != 1:
        raise InputError(
            f"--v-hack {config.v_hack}: expected one or more files in the same basis, found {', '.join(sorted(bases)) or 'none'}"
        )
    model, tokenizer = models.load(name, dtype=config.dtype, device=config.device)
    stop = stops(model, tokenizer)
    loaded = [r for d in directories for r in load_pool(d, tokenizer, stop=stop).rollouts]
    adapter = attach(bases.pop(), model, name, rank=config.rank, cache=config.svd_cache)
    stems = [Path(file).stem for file in files]
    directions = {
        stem if stems.count(stem) == 1 else file: extraction.load(file, adapter)
        for stem, file in zip(stems, files)
    }

    usable, seen = fresh(loaded, list(directions.values()))
    rollouts = chosen(usable, config.limit, config.seed)
    weights, within = difference_weights(rollouts, config.seed)
    D = differences(adapter, rollouts, weights, pad=pad_id(tokenizer), tokens=config.micro_tokens)
    flips = (
        torch.randint(
            0, 2, (config.draws, len(weights)), generator=torch.Generator().manual_seed(config.seed)
        )
        * 2.0
        - 1
    )
    found = {name: catch(D, v, flips) for name, v in directions.items()}
    first = next(iter(directions.values())).meta
    settings = Extraction(k=first["k"], noise_floor=first["noise_floor"])
    makers = {ORACLE: lambda d: extraction.build(d, settings, {})} | {
        name: lambda d, v=v: v for name, v in directions.items()
    }
    fifths = {name: by_fifths(D, make, config.seed) if within else None for name, make in makers.items()}
    top = ceiling(D, config.draws, config.seed) if within else None
    if not within:
        found = {
            name: {key: Figure(figure.value) for key, figure in figures.items()}
            for name, figures in found.items()
        }
    facts = {
        "rollouts": list(map(str, directories)),
        "model": name,
        "hacks": sum(r.hacked for r in rollouts),
        "others": sum(not r.hacked for r in rollouts),
        "differences": len(weights),
        "within_problems": within,
        "seen_by_v_hack": seen,
        "ceiling": top,
        "by_fifths": fifths,
        "v_hacks": {
            name: {"hash": directions[name].meta["hash"]} | {k: asdict(f) for k, f in figures.items()}
            for name, figures in found.items()
        },
    }
    report(facts, console)
    write_json(config.out, {"config": asdict(config), **facts, **provenance()})
    console.print(f"written to {config.out}", highlight=False)


def report(facts: dict, console: Console) -> None:
    unit = (
        "problems, hacks against others of the same problem"
        if facts["within_problems"]
        else "random pairs: problem and label cannot be told apart"
    )
    table = Table(
        title=f"Oracle audit: {facts['hacks']} hacks, {facts['others']} others, {facts['differences']} {unit}",
        title_justify="left",
    )
    for heading in (
        "direction",
        "cos with g*",
        "null (95 %)",
        "p",
        "caught",
        "null (95 %)",
        "p",
        "cos by fifths",
        "caught by fifths",
    ):
        table.add_column(heading)
    for name, fifths in facts["by_fifths"].items():
        found = facts["v_hacks"].get(name)
        figures = (found["cos"], found["caught"]) if found else ()
        cells = [
            [
                show(f["value"]),
                *(
                    ["undefined"] * 2
                    if f["p"] is None
                    else [f"{f['low']:+.2f} {f['high']:+.2f}", f"{f['p']:.4f}"]
                ),
            ]
            for f in figures
        ]
        cells = cells or [["-"] * 3] * 2
        table.add_row(
            name, *cells[0], *cells[1], *(show(fifths and fifths[key]) for key in ("cos", "caught"))
        )
    console.print(table)
    console.print(
        f"ceiling of cos (reliability of g*): {show(facts['ceiling'])}"
        + ("; caveat: V was made from some of these problems" if facts["seen_by_v_hack"] else ""),
        highlight=False,
    )
    console.print(
        "g*: mean gradient difference of labelled rollouts. The oracle sees labels that no run has before it hacks: a V far below it can be\n"
        "improved. The ceiling is the cosine to expect of the true direction: near 0, g* itself is noise here.",
        soft_wrap=True,
        highlight=False,
    )


if __name__ == "__main__":
    exit_on_fault(lambda: main(command_line(AuditFlags, description=__doc__)))
