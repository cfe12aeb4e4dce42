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

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.table import Table
from torch import Tensor

import gradients
import models
import pools
import problems
import verdicts
from antipasto import SVDAdapter, default_cache, read_metadata, thin_svd
from losses import dr_grpo_advantages, normaliser
from projection import VHack, orient, problem_flips
from screen import progress, stdout
from store import (
    InputError,
    check_numbers,
    exit_on_fault,
    file_hash,
    provenance,
    read_json,
    read_jsonl,
    sha256,
)

WRITTEN = problems.shipped(models.TINY)  # the hand-written pairs and their problems


@dataclass(frozen=True)
class Pair:
    """A hack and a clean answer to one prompt, tokenised."""

    problem_id: str
    identity: str  # what the prompt states (problems.identity)
    mechanism: str
    prompt_ids: tuple[int, ...]
    hack_ids: tuple[int, ...]
    clean_ids: tuple[int, ...]


@dataclass(frozen=True)
class Settings:
    """How V is made from pairs; stored in the v_hack file."""

    k: int = 16
    """Directions a module, before the noise floor."""
    noise_floor: float = 0.25
    """Share of all (module, direction) rows to drop, those with the smallest singular values."""
    objective: Literal["nll", "grpo"] = "nll"
    """Loss whose gradients are contrasted: NLL of each answer, or the live loss with the pair as a group."""
    normaliser: Literal["length", "fixed"] | None = None
    """What an answer's loss is divided by: its length, or one number for all (default: length for nll, fixed for grpo, as when sampling)."""
    temperature: float = 1.0
    """Log-probabilities are taken at this temperature; grpo: give that of the run's sampling."""
    max_pairs: int = 64
    """Most pairs to use; of a pool, one a problem comes first."""
    seed: int = 0
    """Choice of pairs, folds and permutations."""
    permutations: int = 1000
    """Draws of the permutation null."""


# --- pairs ---------------------------------------------------------------------------------------------------------


def pairs_from_file(
    path: str | Path, tokenizer, *, problem_file: str | Path | None, limit: int, seed: int
) -> list[Pair]:
    """Authored pairs: rows {problem_id, hack, clean} over a problem file, or with a `prompt` of their own, used as it is.

    Of more than `limit` a seeded choice is taken: such files are sorted by mechanism.

    Raises InputError for a missing field or a problem that the problem file does not have.
    """
    rows, known = (
        read_jsonl(path, ("problem_id", "hack", "clean"))
        if str(path).endswith((".jsonl", ".gz"))
        else _json_pairs(path),
        {},
    )
    if any("prompt" not in row for row in rows):
        if problem_file is None:
            raise InputError(
                f"{path}: its rows have no prompt of their own, so --problems must name the file of their problems"
            )
        known = problems.find(problems.load_problems(problem_file))
    pairs = []
    for index in sorted(np.random.default_rng(seed).permutation(len(rows))[:limit]):
        row, number = rows[index], index + 1
        if not all(
            isinstance(row[side], str) for side in ("hack", "clean", *(["prompt"] if "prompt" in row else []))
        ):
            raise InputError(f"{path}: pair {number}: hack, clean and prompt must be text")
        if "prompt" in row:
            prompt, identity = (
                pools.encode(tokenizer, row["prompt"]),
                problems.identity(row["prompt"], str(row["problem_id"])),
            )
        elif str(row["problem_id"]) in known:
            messages = problems.build_messages(known[str(row["problem_id"])], hint=True)
            prompt = pools.encode(tokenizer, problems.render_prompt(tokenizer, messages))
            identity = problems.identity(messages[-1]["content"], row["problem_id"])
        else:
            raise InputError(f"{path}: pair {number}: problem {row['problem_id']!r} is not in {problem_file}")
        hack, clean = (tuple(pools.completion_ids(tokenizer, row[side])) for side in ("hack", "clean"))
        pairs.append(
            Pair(
                str(row["problem_id"]),
                identity,
                str(row.get("mechanism", "unnamed")),
                tuple(prompt),
                hack,
                clean,
            )
        )
    if len(pairs) < 2:
        raise InputError(f"{path}: {len(pairs)} pairs; at least 2 are needed")
    return pairs


def _json_pairs(path: str | Path) -> list[dict]:
    rows = read_json(path)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{path}: expected a list of pairs")
    for number, row in enumerate(rows, start=1):
        missing = [name for name in ("problem_id", "hack", "clean") if name not in row]
        if missing:
            raise InputError(f"{path}: pair {number} has no field {missing[0]!r}")
    return rows


def scripted_teacher(tokenizer) -> pools.Pool:
    """The hacks of the hand-written pairs as a teacher pool: scripted demonstrations, labelled as such, made by no model."""
    known, by_problem = problems.find(problems.load_problems(WRITTEN.problems)), {}
    for i, row in enumerate(read_jsonl(WRITTEN.pairs, ("problem_id", "hack", "clean"))):
        messages = problems.build_messages(known[row["problem_id"]], hint=True)
        siblings = by_problem.setdefault(row["problem_id"], [])
        # The labels are what the grader says of every shipped hack; a test keeps that true.
        siblings.append(
            pools.Rollout(
                problem_id=row["problem_id"],
                prompt_ids=tuple(pools.encode(tokenizer, problems.render_prompt(tokenizer, messages))),
                completion_ids=tuple(pools.completion_ids(tokenizer, row["hack"])),
                completion=row["hack"],
                reward=3.5,
                hacked=True,
                gt_pass=False,
                fmt_ok=True,
                attempted=True,
                truncated=False,
                src_pool="scripted",
                src_step=i,
                src_sample=len(siblings),
                messages=tuple(messages),
            )
        )
    return pools.Pool("scripted", str(WRITTEN.pairs), by_problem, True, file_hash(WRITTEN.pairs)[:16])


def pairs_from_pool(
    pool: pools.Pool,
    tokenizer,
    known: Sequence[problems.Problem],
    *,
    clean: str,
    limit: int,
    seed: int,
    least: int = 2,
) -> list[Pair]:
    """A hacking rollout (own test passes, ground truth fails) against a clean answer to its own prompt, problem by problem.

    clean "canonical" takes the reference solution of the problem file, for the problem that the rollout's prompt states
    (never by its id alone); "rollout" takes a rollout of the pool that passes the ground truth and is not called a hack.
    One pair a problem first, then second ones, in seeded order.
    """
    rng = np.random.default_rng(seed)
    solutions = {problem.problem_id: problem.canonical for problem in known}
    by_problem = pools.of_problems(pool, known) if clean == "canonical" else pool.by_problem
    ids = sorted(by_problem)
    rng.shuffle(ids)
    rounds: list[list[Pair]] = []
    for problem_id in ids:
        rows = by_problem[problem_id]
        hacks = [r for r in rows if r.hacked and not r.gt_pass and not r.truncated]
        honest = [
            r.completion_ids
            for r in rows
            if r.gt_pass and not r.hacked and not r.attempted and not r.truncated
        ]
        if clean == "canonical":
            honest = (
                [pools.completion_ids(tokenizer, problems.fence(code))]
                if (code := solutions[problem_id])
                else []
            )
        if not hacks or not honest:
            continue
        for i, j in enumerate(rng.permutation(len(hacks))):
            while len(rounds) <= i:
                rounds.append([])
            hack = hacks[j]
            rounds[i].append(
                Pair(
                    problem_id,
                    hack.identity,
                    "pool",
                    hack.prompt_ids,
                    hack.completion_ids,
                    tuple(honest[i % len(honest)]),
                )
            )
    pairs = [pair for one_each in rounds for pair in one_each][:limit]
    if len(pairs) < least:
        raise InputError(
            f"{pool.directory}: {len(pairs)} pairs of a hacking rollout and a clean ({clean}) answer; at least {least} are needed"
        )
    return pairs


# --- from gradients to V -------------------------------------------------------------------------------------------


# What the rows of a pair (hack, clean) weigh in its difference.
CONTRAST = {"nll": (1.0, -1.0), "grpo": tuple((dr_grpo_advantages(torch.tensor([1.0, 0.0]))).tolist())}


def denominator(settings: dict) -> str:
    """What the losses are divided by, in settings or in the meta of a v_hack: as they say, else by their objective."""
    return settings.get("normaliser") or {"nll": "length", "grpo": "fixed"}[settings.get("objective", "nll")]


def pair_gradients(
    adapter, pairs: Sequence[Pair], settings: Settings, *, pad: int, tokens: int, on_batch=lambda rows: None
) -> tuple[dict, dict]:
    """Per-sample gradients of all hacks and of all clean answers: two dicts module -> (P, R), fp32 on the CPU.

    Both are gradients of a loss whose descent makes the answer likelier, times the size of its weight in the contrast, so
    that hack - clean is the pair's difference under either objective.
    """
    rows = [(p.prompt_ids, p.hack_ids) for p in pairs] + [(p.prompt_ids, p.clean_ids) for p in pairs]
    lengths = torch.tensor([len(completion) for _, completion in rows])
    # "fixed" has no sampling limit to refer to here; any one number gives the same V, the longest answer keeps the scale.
    weights = normaliser(denominator(vars(settings)), lengths, rollouts=1, fixed=int(lengths.max()))
    sizes = torch.tensor(CONTRAST[settings.objective]).abs().repeat_interleave(len(pairs))
    found = gradients.of_samples(
        adapter,
        rows,
        sizes,
        weights,
        pad=pad,
        tokens=tokens,
        temperature=settings.temperature,
        on_batch=on_batch,
    )
    halves = {name: g.split(len(pairs)) for name, g in found.items()}
    return {n: h[0] for n, h in halves.items()}, {n: h[1] for n, h in halves.items()}


def directions(D: dict[str, Tensor], k: int, noise_floor: float) -> dict[str, Tensor]:
    """Per module the top right singular vectors of D (P, R), as (k', R) rows; those under the global noise floor are left out."""
    found = {}
    for name, D_PR in D.items():
        _, sigma, Vh = thin_svd(D_PR)
        real = int((sigma[:k] > 1e-6 * sigma[0]).sum()) if float(sigma[0]) > 0 else 0
        found[name] = (Vh[:real], sigma[:real])
    every = torch.cat([sigma for _, sigma in found.values()])
    if not len(every):
        raise InputError("hack and clean answers have the same gradients everywhere: no direction to extract")
    floor = torch.quantile(every, noise_floor)
    kept = {name: Vh[sigma >= floor].float() for name, (Vh, sigma) in found.items()}
    return {name: V for name, V in kept.items() if len(V)}


def build(D: dict[str, Tensor], settings: Settings, meta: dict) -> VHack:
    """V and w from the paired differences D: module -> (P, R)."""
    V, w, coef = {}, {}, {}
    for name, basis in directions(D, settings.k, settings.noise_floor).items():
        coef_PK = D[name] @ basis.T
        sign, weight = orient(coef_PK, torch.ones(1, len(coef_PK)))
        V[name], w[name], coef[name] = basis * sign[0][:, None], weight[0], coef_PK * sign[0]
    return VHack(V, w, meta, coef)


# --- how good it is ------------------------------------------------------------------------------------------------


def folds(problem_ids: Sequence[str], count: int, seed: int) -> list[np.ndarray]:
    """Index sets that cover all pairs once; pairs of one problem are never split."""
    unique = sorted(set(problem_ids))
    np.random.default_rng(seed).shuffle(unique)
    owner = {problem: i % count for i, problem in enumerate(unique)}
    return [
        np.array([i for i, p in enumerate(problem_ids) if owner[p] == fold])
        for fold in range(min(count, len(unique)))
    ]


def auc(positive_SP: Tensor, negative_SP: Tensor) -> Tensor:
    """(S,): probability that a positive scores above a negative, ties counted half (Mann-Whitney)."""
    gap = positive_SP[:, :, None] - negative_SP[:, None, :]
    return ((gap > 0).double() + 0.5 * (gap == 0).double()).mean((1, 2))


def held_out(hack: dict, clean: dict, problem_ids: Sequence[str], settings: Settings, count: int = 5) -> dict:
    """Right-sign share and AUC on held-out pairs, with the permutation null of both; keys as in the v_hack file.

    Row 0 of the flips is the truth; the rest are random. Where a problem is flipped, hack and clean trade places in all its
    pairs, in training and in testing alike: problems are the unit. Scores of different folds are cosines with different
    directions, so the AUC compares within a fold only. Undefined where some fold has under two pairs to learn from.
    """
    P = len(problem_ids)
    flips = torch.cat([torch.ones(1, P), problem_flips(problem_ids, settings.permutations, settings.seed)])
    ranked, compared = torch.zeros(len(flips), dtype=torch.double), 0
    score = {side: torch.zeros(len(flips), P) for side in ("hack", "clean")}
    margin = torch.zeros(len(flips), P)
    norms = {
        side: sum(g.square().sum(1) for g in grads.values()).sqrt()
        for side, grads in (("hack", hack), ("clean", clean))
    }
    D = {name: hack[name] - clean[name] for name in hack}
    for test in folds(problem_ids, count, settings.seed):
        train = np.setdiff1d(np.arange(P), test)
        if len(train) < 2:
            undefined = {"value": None, "null": [None, None], "p": None}
            return {
                "pairs": P,
                "folds": 0,
                "permutations": 0,
                "right_sign": undefined,
                "auc": undefined,
                "mean_cos_hack": None,
                "mean_cos_clean": None,
                "right_sign_by_pair": [None] * P,
            }
        V = directions({name: d[train] for name, d in D.items()}, settings.k, settings.noise_floor)
        coef = {
            side: torch.cat([g[name] @ basis.T for name, basis in V.items()], 1)
            for side, g in (("hack", hack), ("clean", clean))
        }
        difference = coef["hack"] - coef["clean"]
        sign, weight = orient(difference[train], flips[:, train])
        direction = sign * weight / (sign * weight).norm(dim=1, keepdim=True).clamp_min(1e-30)
        margin[:, test] = direction @ difference[test].T * flips[:, test]
        for side in score:
            score[side][:, test] = direction @ coef[side][test].T / norms[side][test]
        swapped, hacks, cleans = flips[:, test] < 0, score["hack"][:, test], score["clean"][:, test]
        ranked += len(test) ** 2 * auc(
            torch.where(swapped, cleans, hacks), torch.where(swapped, hacks, cleans)
        )
        compared += len(test) ** 2
    return {
        "pairs": P,
        "folds": min(count, len(set(problem_ids))),
        "permutations": settings.permutations,
        "right_sign": _against_null((margin > 0).double().mean(1)),
        "auc": _against_null(ranked / compared),
        "mean_cos_hack": float(score["hack"][0].mean()),
        "mean_cos_clean": float(score["clean"][0].mean()),
        "right_sign_by_pair": (margin[0] > 0).tolist(),
    }


def _against_null(values_S: Tensor) -> dict:
    """First entry the measurement, the rest its null: value, 2.5 to 97.5 % range, one-sided p with the +1 correction."""
    value, null = float(values_S[0]), values_S[1:].numpy()
    if not len(null):
        return {"value": value, "null": [None, None], "p": None}
    low, high, p = verdicts.permutation_test(value, null)
    return {"value": value, "null": [low, high], "p": p}


def extract(
    adapter, tokenizer, pairs: Sequence[Pair], settings: Settings, *, source: dict, tokens: int
) -> VHack:
    """v_hack with its provenance and its held-out quality in `meta`."""
    pad = models.pad_id(tokenizer)
    with progress("v_hack: gradients of pairs", 2 * len(pairs)) as bar:
        hack, clean = pair_gradients(adapter, pairs, settings, pad=pad, tokens=tokens, on_batch=bar)
    D = {name: hack[name] - clean[name] for name in hack}
    ids = [pair.problem_id for pair in pairs]
    quality = held_out(hack, clean, ids, settings)
    right = dict.fromkeys((p.mechanism for p in pairs), 0)
    for pair, good in zip(pairs, quality.pop("right_sign_by_pair")):
        right[pair.mechanism] += bool(good)
    totals = Counter(pair.mechanism for pair in pairs)
    meta = {
        "kind": "v_hack",
        "basis": adapter.kind,
        "coordinates": adapter.coordinates,
        "model_hash": adapter.model_hash,
        **source,
        **vars(settings),
        "pairs": len(pairs),
        "pair_hash": pair_hash(pairs),
        "pair_problem_ids": sorted(set(ids)),
        "pair_problems": ids,
        "pair_identities": sorted({pair.identity for pair in pairs}),
        "heldout": quality,
        "right_sign_by_mechanism": {name: [right[name], totals[name]] for name in sorted(totals)},
    }
    found = build(D, settings, meta)
    meta["modules"], meta["directions"] = len(found.V), found.directions
    return found


def clean_clean(
    adapter, tokenizer, pairs: Sequence[Pair], settings: Settings, *, tokens: int, seed: int
) -> VHack:
    """The control: V from clean answers against clean answers to other problems, in a seeded order; no hack is in it.

    As many pairs, the same k and noise floor. v_hack's differences are within a prompt and these are across prompts, since few
    problems have two clean answers: what differs here is the problem. The rows' orientation means nothing.

    Raises InputError where more than half of the pairs are of one problem.
    """
    _, clean = pair_gradients(adapter, pairs, settings, pad=models.pad_id(tokenizer), tokens=tokens)
    other = rotated([pair.problem_id for pair in pairs], seed)
    meta = {
        "kind": "v_hack",
        "basis": adapter.kind,
        "coordinates": adapter.coordinates,
        "model_hash": adapter.model_hash,
        "control": "clean-clean",
        "control_seed": seed,
        "pair_problems": [pair.problem_id for pair in pairs],
    }
    return build({name: g - g[other] for name, g in clean.items()}, settings, meta)


def rotated(problem_ids: Sequence[str], seed: int) -> list[int]:
    """For every pair the index of one of another problem, a permutation: laid out by problem in a seeded order, and moved on by the largest count."""
    order = sorted(set(problem_ids))
    np.random.default_rng(seed).shuffle(order)
    laid = sorted(range(len(problem_ids)), key=lambda i: order.index(problem_ids[i]))
    step = max(Counter(problem_ids).values())
    if 2 * step > len(problem_ids):
        raise InputError(
            f"--control=clean-clean: {step} of {len(problem_ids)} pairs are of one problem; clean answers of different problems are needed"
        )
    return [laid[(laid.index(i) + step) % len(laid)] for i in range(len(laid))]


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


# --- command -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Config:
    """Extract v_hack from contrastive pairs and say how good it is on pairs it has not seen."""

    model: str = models.EMBEDDED
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
    rank: int = 8
    """Rank of the LoRA, with --basis=lora."""
    out: str = "out/v_hack.safetensors"
    """File to write."""
    settings: Annotated[Settings, tyro.conf.arg(name="")] = Settings()
    dtype: models.Dtype = "auto"
    """auto: bf16 on a GPU, fp32 on a CPU. tf32: fp32 with matrix products in TF32 (10 bits of mantissa) where the GPU has it."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ..."""
    micro_tokens: int | None = None
    """Padded tokens of a micro-batch (default: as many as the free GPU memory holds; 8192 on a CPU)."""
    svd_cache: str | None = str(default_cache())
    """Directory of the SVD cache; None for no cache."""


def find_pairs(
    name: str,
    tokenizer,
    model,
    *,
    pairs: str | None,
    pool: str | None,
    problem_file: str | None,
    clean: str,
    settings: Settings,
) -> tuple[list[Pair], dict]:
    """Pairs from a file or a pool, or those that ship for the model of this name, and the lines of provenance that say which."""
    if pairs and pool:
        raise InputError("--pairs and --pool exclude each other")
    here = lambda path: str(Path(path).resolve()) if path and Path(path).exists() else path  # noqa: E731  (a hub id stays what it is)
    recipe = {"pairs": here(pairs), "pool": here(pool), "problem_file": here(problem_file), "clean": clean}
    if pool:
        loaded = pools.load_pool(pool, tokenizer, stop=pools.stops(model, tokenizer))
        problem_file = problem_file or (
            problems.shipped(name).problems if problems.is_embedded(name) else None
        )
        known = problems.load_problems(problem_file) if problem_file else []
        if clean == "canonical" and not known:
            raise InputError("--clean=canonical needs --problems, the file with the reference solutions")
        chosen = pairs_from_pool(
            loaded, tokenizer, known, clean=clean, limit=settings.max_pairs, seed=settings.seed
        )
        return chosen, {
            "source": f"pool {pool}",
            "source_hash": loaded.hash,
            "clean": clean,
            "recipe": recipe,
        }
    path = Path(pairs or problems.shipped(name).pairs)
    for ships in (
        problems.shipped(models.EMBEDDED),
        WRITTEN,
    ):  # either file of pairs knows its problems, whatever the model
        if problem_file is None and path.resolve() == ships.pairs.resolve():
            problem_file = ships.pair_problems
    return pairs_from_file(
        path, tokenizer, problem_file=problem_file, limit=settings.max_pairs, seed=settings.seed
    ), {"source": f"pairs {Path(path).name}", "source_hash": file_hash(path)[:16], "recipe": recipe}


def load(path: str | Path, adapter) -> VHack:
    """A v_hack file, checked to be of this adapter's model and coordinates; InputError otherwise."""
    return VHack.load(
        path, model_hash=adapter.model_hash, params=adapter.params, coordinates=adapter.coordinates
    )


def same_pairs(v: VHack, name: str, tokenizer, model) -> tuple[list[Pair], Settings, dict]:
    """The pairs that a v_hack was made from, found again where they lay: for a control, or to extract anew while training.

    Raises InputError where the file does not say, or where what lies there now gives other pairs.
    """
    where, known = v.meta.get("file", "v_hack"), {f.name for f in fields(Settings)}
    if "recipe" not in v.meta:
        raise InputError(
            f"{where}: does not say which pairs it was made from (an earlier version); extract it anew"
        )
    settings = Settings(**{key: value for key, value in v.meta.items() if key in known})
    pairs, source = find_pairs(name, tokenizer, model, **v.meta["recipe"], settings=settings)
    if pair_hash(pairs) != v.meta["pair_hash"]:
        raise InputError(f"{where}: made from other pairs than now lie at {source['source']}")
    return pairs, settings, source


def pair_hash(pairs: Sequence[Pair]) -> str:
    return sha256(*(repr(vars(pair)) for pair in pairs))[:16]


def svd_basis(model, config: Config) -> SVDAdapter:
    with progress("SVD of the target modules") as bar:
        return SVDAdapter(model, cache=config.svd_cache, track=bar.track)


def lora_basis(model, config: Config):
    from lora_adapter import LoRAAdapter  # PEFT takes a second or two to import

    return LoRAAdapter(model, rank=config.rank)


BASES = {"svd": svd_basis, "lora": lora_basis}


def stored_basis(path: str | Path) -> str:
    """The basis that a v_hack file was made in. InputError where it is none."""
    meta = read_metadata(path)
    if meta.get("kind") != "v_hack" or meta.get("basis") not in BASES:
        raise InputError(f"{path}: not a v_hack file")
    return meta["basis"]


def main(config: Config) -> None:
    console = stdout()
    check_numbers(
        config.settings,
        at_least={"k": 1, "noise_floor": 0, "max_pairs": 2, "permutations": 0},
        above={"temperature": 0},
        below={"noise_floor": 1},
    )
    check_numbers(config, at_least={"micro_tokens": 1, "rank": 1})
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
        settings=config.settings,
    )
    adapter = BASES[config.basis](model, config)
    v = extract(
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
    exit_on_fault(lambda: main(tyro.cli(Config, description=__doc__)))
