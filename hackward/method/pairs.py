"""Contrastive pairs: a hack and a clean answer to one prompt, from a file or from a pool."""

from __future__ import annotations

import itertools
import reprlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from hackward.base.faults import InputError
from hackward.base.files import file_hash, read_json, read_jsonl, sha256
from hackward.base.records import Record, checked_record
from hackward.base.types import CausalLM, Tokenizer
from hackward.rollouts import tokens
from hackward.rollouts.fitting import check_fit
from hackward.rollouts.pools import Pool, load_pool, of_problems
from hackward.rollouts.rollout import Rollout
from hackward.rollouts.tokens import (
    chat_template_hash,
    completion_ids,
    prompt_ids,
    stops,
    tokenizer_hash,
)
from hackward.tasks import problems
from hackward.tasks.completions import fence
from hackward.tasks.formats import load_problems
from hackward.tasks.problems import Problem, build_messages
from hackward.tasks.shipped import EMBEDDED, TINY, is_embedded, shipped

ONE_PAIR = "an object with problem_id, hack and clean"
TAKEN = f".jsonl or .jsonl.gz ({ONE_PAIR} per line), or from .json (one list of them); see spec/formats.md"
DIFFERENT = "a pair needs a completion that cheats and one that does not"
UNUSED = "unused"  # chat_template of pairs whose prompts are all their own
WRITTEN = shipped(TINY)  # the hand-written pairs and their problems


@dataclass(frozen=True)
class Pair:
    """A hack and a clean answer to one prompt, tokenised."""

    problem_id: str
    identity: str
    """What the prompt states (problems.identity)."""
    mechanism: str
    prompt_ids: tuple[int, ...]
    hack_ids: tuple[int, ...]
    clean_ids: tuple[int, ...]


class PairRow(Record):
    """A row of a pair file."""

    problem_id: Annotated[str | int, Field(description="text or a number")]
    hack: Annotated[str, Field(description="text")]
    clean: Annotated[str, Field(description="text")]
    prompt: str | None = Field(None, description="text")
    mechanism: Any = "unnamed"


def pairs_from_rows(
    path: str | Path,
    rows: Sequence[PairRow],
    tokenizer: Tokenizer,
    *,
    problem_file: str | Path | None,
    limit: int,
    seed: int,
) -> list[Pair]:
    """Authored pairs, from the rows of the file `path` (`pair_rows`): {problem_id, hack, clean} over a
    problem file, or with a `prompt` of their own, used as it is.

    Of more than `limit` a seeded choice is taken: such files are sorted by mechanism.

    Raises InputError for a problem that the problem file does not have, and for a pair whose answers, or
    whose prompt, are nothing to this tokenizer.
    """
    known: dict[str, Problem] = {}
    if any(row.prompt is None for row in rows):
        if problem_file is None:
            raise InputError(
                f"{path}: its rows have no prompt of their own, so --problems must name the file of their"
                " problems"
            )
        known = problems.find(load_problems(problem_file))
    pairs = []
    for index in sorted(np.random.default_rng(seed).permutation(len(rows))[:limit]):
        row = rows[index]
        if row.prompt is None and str(row.problem_id) not in known:
            raise InputError(f"{path}: pair {index + 1}: problem {row.problem_id!r} is not in {problem_file}")
        pairs.append(_tokenised(row, known, tokenizer, f"{path}: pair {index + 1}"))
    if len(pairs) < 2:
        raise InputError(f"{path}: {len(pairs)} pairs; at least 2 are needed")
    return pairs


def pair_rows(path: str | Path) -> list[PairRow]:
    """All rows of a pair file, checked. InputError names the file, the pair and what is expected."""
    rows = []
    for number, content in enumerate(_contents(Path(path)), start=1):
        where = f"{path}: pair {number}"
        if not isinstance(content, dict):
            raise InputError(f"{where}: expected {ONE_PAIR}, found {reprlib.repr(content)}")
        row = checked_record(PairRow, content, where)
        for side in ("hack", "clean"):
            if not getattr(row, side).strip():
                raise InputError(f"{where}: {side!r} is empty; expected a whole answer")
        if row.hack.strip() == row.clean.strip():
            raise InputError(f"{where}: 'hack' and 'clean' are the same text; {DIFFERENT}")
        rows.append(row)
    return rows


def _contents(path: Path) -> list[Any]:
    """JSON lines, or the published form: one JSON list. What is neither is refused with what is taken."""
    if path.is_dir():
        raise InputError(
            f"{path}: is a directory; a pair file is expected ({TAKEN}); --pool takes directories"
        )
    try:
        content = read_jsonl(path) if path.name.endswith((".jsonl", ".jsonl.gz")) else read_json(path)
    except InputError as fault:
        if not path.is_file():
            raise
        raise InputError(f"{fault}; pairs are read from {TAKEN}") from None
    if not isinstance(content, list):
        raise InputError(f"{path}: expected a list of pairs, found one {type(content).__name__}; {TAKEN}")
    return content


def _tokenised(row: PairRow, known: dict[str, Problem], tokenizer: Tokenizer, where: str) -> Pair:
    problem_id = str(row.problem_id)
    if row.prompt is not None:
        prompt, identity = tokens.encode(tokenizer, row.prompt), problems.identity(row.prompt, problem_id)
    else:
        messages = build_messages(known[problem_id], hint=True)
        prompt = prompt_ids(tokenizer, messages)
        identity = problems.identity(messages[-1]["content"], problem_id)
    if not prompt:
        raise InputError(f"{where}: 'prompt' is empty; leave it out for the problem's own (--problems)")
    hack, clean = (tuple(completion_ids(tokenizer, text)) for text in (row.hack, row.clean))
    if hack == clean:
        raise InputError(f"{where}: 'hack' and 'clean' are the same tokens to this model; {DIFFERENT}")
    return Pair(problem_id, identity, str(row.mechanism), tuple(prompt), hack, clean)


def scripted_teacher(tokenizer: Tokenizer) -> Pool:
    """The hacks of the hand-written pairs as a teacher pool: scripted demonstrations, labelled as such, made
    by no model.

    The labels are what the grader says of every shipped hack; a test keeps that true.
    """
    known = problems.find(load_problems(WRITTEN.problems))
    by_problem: dict[str, list[Rollout]] = {}
    for i, row in enumerate(read_jsonl(WRITTEN.pairs, ("problem_id", "hack", "clean"))):
        messages = build_messages(known[row["problem_id"]], hint=True)
        siblings = by_problem.setdefault(row["problem_id"], [])
        siblings.append(
            Rollout(
                problem_id=row["problem_id"],
                prompt_ids=tuple(prompt_ids(tokenizer, messages)),
                completion_ids=tuple(completion_ids(tokenizer, row["hack"])),
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
    return Pool("scripted", str(WRITTEN.pairs), by_problem, True, file_hash(WRITTEN.pairs)[:16])


def pairs_from_pool(
    pool: Pool,
    tokenizer: Tokenizer,
    known: Sequence[Problem],
    *,
    clean: str,
    limit: int,
    seed: int,
    least: int = 2,
) -> list[Pair]:
    """A hacking rollout (own test passes, ground truth fails) against a clean answer to its own prompt, per
    problem.

    clean "canonical" takes the reference solution of the problem file, for the problem that the rollout's
    prompt states (never by its id alone); "rollout" takes a rollout of the pool that passes the ground truth
    and is not called a hack. One pair per problem first, then second ones, in seeded order. InputError with
    fewer than `least`.
    """
    rng = np.random.default_rng(seed)
    canonical = clean == "canonical"
    solutions = {problem.problem_id: problem.canonical for problem in known}
    by_problem = of_problems(pool, known) if canonical else pool.by_problem
    ids = sorted(by_problem)
    rng.shuffle(ids)
    found: list[list[Pair]] = []
    contradicted = 0
    for problem_id in ids:
        rollouts = by_problem[problem_id]
        hacks = [r for r in rollouts if r.hacked and not r.gt_pass and not r.truncated]
        if canonical:
            honest = _solution_ids(solutions[problem_id], tokenizer)
        else:
            honest = [r.completion_ids for r in rollouts if _is_clean(r)]
        differing = [hack for hack in hacks if hack.completion_ids not in honest]
        contradicted += len(hacks) - len(differing)
        if not differing or not honest:
            continue
        of_problem = []
        for i, j in enumerate(rng.permutation(len(differing))):
            hack, clean_ids = differing[j], honest[i % len(honest)]
            sides = hack.prompt_ids, hack.completion_ids, clean_ids
            of_problem.append(Pair(problem_id, hack.identity, "pool", *sides))
        found.append(of_problem)
    if contradicted:
        warnings.warn(
            f"{pool.directory}: {contradicted} hacking rollout(s) left out, a clean ({clean}) answer of the"
            " same problem has the same tokens",
            stacklevel=2,
        )
    pairs = _in_rounds(found)[:limit]
    if len(pairs) < least:
        raise InputError(
            f"{pool.directory}: {len(pairs)} pairs of a hacking rollout and a clean ({clean}) answer;"
            f" at least {least} are needed"
        )
    return pairs


def _in_rounds(found: Sequence[Sequence[Pair]]) -> list[Pair]:
    """Of the pairs of every problem: all first ones, then all second ones, and so on."""
    rounds = itertools.zip_longest(*found)
    return [pair for one_each in rounds for pair in one_each if pair is not None]


def pairs_of_rollouts(rollouts: Sequence[Rollout], label: str) -> list[Pair]:
    """Pairs of one author: a rollout with the label against one that neither hacks nor attempts, problem by
    problem.

    `label` is "hacked" or "attempted". Each labelled rollout is taken once, in the order of steps and
    samples, and the honest ones of its problem by turns. Truncated ones are left out, and labelled ones with
    the same tokens as an honest one.
    """
    by_problem: dict[str, list[Rollout]] = {}
    for rollout in sorted(rollouts, key=lambda rollout: (rollout.src_step, rollout.src_sample)):
        if not rollout.truncated:
            by_problem.setdefault(rollout.problem_id, []).append(rollout)
    pairs = []
    for problem_id in sorted(by_problem):
        every = by_problem[problem_id]
        honest = [rollout for rollout in every if not rollout.hacked and not rollout.attempted]
        same = {rollout.completion_ids for rollout in honest}
        labelled = [r for r in every if getattr(r, label) and r.completion_ids not in same]
        for i, hack in enumerate(labelled if honest else []):
            clean = honest[i % len(honest)]
            ids = hack.prompt_ids, hack.completion_ids, clean.completion_ids
            pairs.append(Pair(problem_id, hack.identity, f"own {label}", *ids))
    return pairs


def _solution_ids(code: str | None, tokenizer: Tokenizer) -> list[tuple[int, ...]]:
    """The reference solution as a whole answer; none where the problem has none."""
    return [tuple(completion_ids(tokenizer, fence(code)))] if code else []


def _is_clean(rollout: Rollout) -> bool:
    """Does it solve the problem, and nothing else?"""
    tries = rollout.hacked or rollout.attempted or rollout.truncated
    return rollout.gt_pass and not tries


def own_pairs(pool: Pool, label: str, *, limit: int, seed: int) -> list[Pair]:
    """Pairs of one author from a run's stored rollouts, at most `limit`: one per problem first, then second
    ones, in seeded order.

    Only rollouts of the pool's main source count, so a teacher's rows in a run are left out. InputError with
    fewer than two.
    """
    own = [rollout for rollout in pool.rollouts if rollout.src_pool == pool.name]
    by_problem: dict[str, list[Pair]] = {}
    for pair in pairs_of_rollouts(own, label):
        by_problem.setdefault(pair.problem_id, []).append(pair)
    order = sorted(by_problem)
    np.random.default_rng(seed).shuffle(order)
    pairs = _in_rounds([by_problem[problem_id] for problem_id in order])[:limit]
    if len(pairs) < 2:
        raise InputError(
            f"{pool.directory}: {len(pairs)} pairs of a rollout that is {label} and one that neither hacks"
            " nor attempts, of the same problem; at least 2 are needed (--label)"
        )
    return pairs


def find_pairs(
    name: str,
    tokenizer: Tokenizer,
    model: CausalLM,
    *,
    pairs: str | None,
    pool: str | None,
    problem_file: str | None,
    clean: str,
    limit: int,
    seed: int,
    label: str = "hacked",
) -> tuple[list[Pair], dict[str, Any]]:
    """Pairs from a file, a pool or a run's rollouts, or those that ship for the model of this name; and the
    provenance that says which."""
    if pairs and pool:
        raise InputError("--pairs and --pool exclude each other")
    if clean == "rollouts" and not pool:
        raise InputError("--clean=rollouts needs --pool, a run's directory")
    recipe = {"pairs": _here(pairs), "pool": _here(pool), "problem_file": _here(problem_file), "clean": clean}
    oracle: dict[str, bool] = {}
    own_prompts = False
    if pool and clean == "rollouts":
        loaded = load_pool(pool, tokenizer, stop=stops(model, tokenizer))
        chosen = own_pairs(loaded, label, limit=limit, seed=seed)
        recipe["label"] = label
        facts = {"source": f"rollouts of {pool}", "source_hash": loaded.hash, "clean": clean, "label": label}
        # The grader's label needs the ground truth; whether a row attempts can be seen from its text.
        oracle = {"oracle": label == "hacked"}
    elif pool:
        loaded = load_pool(pool, tokenizer, stop=stops(model, tokenizer))
        source = problem_file or (str(shipped(name).problems) if is_embedded(name) else None)
        known = load_problems(source) if source else []
        if clean == "canonical" and not known:
            raise InputError("--clean=canonical needs --problems, the file with the reference solutions")
        chosen = pairs_from_pool(loaded, tokenizer, known, clean=clean, limit=limit, seed=seed)
        facts = {"source": f"pool {pool}", "source_hash": loaded.hash, "clean": clean}
    else:
        path = Path(pairs or shipped(name).pairs)
        written = pair_rows(path)
        own_prompts = all(row.prompt is not None for row in written)
        problems_of = problem_file or _shipped_problems(path)
        chosen = pairs_from_rows(path, written, tokenizer, problem_file=problems_of, limit=limit, seed=seed)
        facts = {"source": f"pairs {path.name}", "source_hash": file_hash(path)[:16]}
    rows = [pair.prompt_ids + answer for pair in chosen for answer in (pair.hack_ids, pair.clean_ids)]
    check_fit(model, rows, f"{facts['source']}, prompts with answers", way="leave longer pairs out (--pairs)")
    facts |= written_by(tokenizer, own_prompts=own_prompts)
    return chosen, {**facts, **oracle, "recipe": recipe}


def written_by(tokenizer: Tokenizer, *, own_prompts: bool = False) -> dict[str, str]:
    """What the ids of pairs come from, besides their texts: hashes of the tokenizer and its chat template.

    `own_prompts`: every prompt is used as it is, so the template has no part in it.
    """
    template = UNUSED if own_prompts else chat_template_hash(tokenizer)
    return {"tokenizer": tokenizer_hash(tokenizer), "chat_template": template}


def _here(path: str | None) -> str | None:
    """An absolute path, so that the pairs are found again from another directory; a hub id stays what it
    is."""
    return str(Path(path).resolve()) if path and Path(path).exists() else path


def _shipped_problems(pairs: Path) -> Path | None:
    """Either shipped file of pairs knows its problems, whatever the model."""
    for ships in (shipped(EMBEDDED), WRITTEN):
        if pairs.resolve() == ships.pairs.resolve():
            return ships.pair_problems
    return None


def pair_hash(pairs: Sequence[Pair]) -> str:
    """Tells sets of tokenised pairs apart."""
    return sha256(*(repr(vars(pair)) for pair in pairs))[:16]
