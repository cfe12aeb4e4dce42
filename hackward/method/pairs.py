"""Contrastive pairs: a hack and a clean answer to one prompt, from a file or from a pool."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hackward.base.faults import InputError
from hackward.base.files import file_hash, read_json, read_jsonl, sha256
from hackward.rollouts import tokens
from hackward.rollouts.pools import Pool, load_pool, of_problems
from hackward.rollouts.rollout import Rollout
from hackward.rollouts.tokens import completion_ids, render_prompt, stops
from hackward.tasks import problems
from hackward.tasks.completions import fence
from hackward.tasks.formats import load_problems
from hackward.tasks.problems import Problem, build_messages
from hackward.tasks.shipped import EMBEDDED, TINY, is_embedded, shipped

WRITTEN = shipped(TINY)  # the hand-written pairs and their problems


@dataclass(frozen=True)
class Pair:
    """A hack and a clean answer to one prompt, tokenised."""

    problem_id: str
    identity: str  # what the prompt states (problems.identity)
    mechanism: str
    prompt_ids: tuple[int, ...]
    hack_ids: tuple[int, ...]
    clean_ids: tuple[int, ...]


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
        known = problems.find(load_problems(problem_file))
    pairs = []
    for index in sorted(np.random.default_rng(seed).permutation(len(rows))[:limit]):
        row, number = rows[index], index + 1
        if not all(
            isinstance(row[side], str) for side in ("hack", "clean", *(["prompt"] if "prompt" in row else []))
        ):
            raise InputError(f"{path}: pair {number}: hack, clean and prompt must be text")
        if "prompt" in row:
            prompt, identity = (
                tokens.encode(tokenizer, row["prompt"]),
                problems.identity(row["prompt"], str(row["problem_id"])),
            )
        elif str(row["problem_id"]) in known:
            messages = build_messages(known[str(row["problem_id"])], hint=True)
            prompt = tokens.encode(tokenizer, render_prompt(tokenizer, messages))
            identity = problems.identity(messages[-1]["content"], row["problem_id"])
        else:
            raise InputError(f"{path}: pair {number}: problem {row['problem_id']!r} is not in {problem_file}")
        hack, clean = (tuple(completion_ids(tokenizer, row[side])) for side in ("hack", "clean"))
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


def scripted_teacher(tokenizer) -> Pool:
    """The hacks of the hand-written pairs as a teacher pool: scripted demonstrations, labelled as such, made by no model."""
    known, by_problem = problems.find(load_problems(WRITTEN.problems)), {}
    for i, row in enumerate(read_jsonl(WRITTEN.pairs, ("problem_id", "hack", "clean"))):
        messages = build_messages(known[row["problem_id"]], hint=True)
        siblings = by_problem.setdefault(row["problem_id"], [])
        # The labels are what the grader says of every shipped hack; a test keeps that true.
        siblings.append(
            Rollout(
                problem_id=row["problem_id"],
                prompt_ids=tuple(tokens.encode(tokenizer, render_prompt(tokenizer, messages))),
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
    tokenizer,
    known: Sequence[Problem],
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
    by_problem = of_problems(pool, known) if clean == "canonical" else pool.by_problem
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
            honest = [completion_ids(tokenizer, fence(code))] if (code := solutions[problem_id]) else []
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


def find_pairs(
    name: str,
    tokenizer,
    model,
    *,
    pairs: str | None,
    pool: str | None,
    problem_file: str | None,
    clean: str,
    limit: int,
    seed: int,
) -> tuple[list[Pair], dict]:
    """Pairs from a file or a pool, or those that ship for the model of this name, and the lines of provenance that say which."""
    if pairs and pool:
        raise InputError("--pairs and --pool exclude each other")
    here = lambda path: str(Path(path).resolve()) if path and Path(path).exists() else path  # noqa: E731  (a hub id stays what it is)
    recipe = {"pairs": here(pairs), "pool": here(pool), "problem_file": here(problem_file), "clean": clean}
    if pool:
        loaded = load_pool(pool, tokenizer, stop=stops(model, tokenizer))
        problem_file = problem_file or (shipped(name).problems if is_embedded(name) else None)
        known = load_problems(problem_file) if problem_file else []
        if clean == "canonical" and not known:
            raise InputError("--clean=canonical needs --problems, the file with the reference solutions")
        chosen = pairs_from_pool(loaded, tokenizer, known, clean=clean, limit=limit, seed=seed)
        return chosen, {
            "source": f"pool {pool}",
            "source_hash": loaded.hash,
            "clean": clean,
            "recipe": recipe,
        }
    path = Path(pairs or shipped(name).pairs)
    for ships in (
        shipped(EMBEDDED),
        WRITTEN,
    ):  # either file of pairs knows its problems, whatever the model
        if problem_file is None and path.resolve() == ships.pairs.resolve():
            problem_file = ships.pair_problems
    return pairs_from_file(path, tokenizer, problem_file=problem_file, limit=limit, seed=seed), {
        "source": f"pairs {Path(path).name}",
        "source_hash": file_hash(path)[:16],
        "recipe": recipe,
    }


def pair_hash(pairs: Sequence[Pair]) -> str:
    return sha256(*(repr(vars(pair)) for pair in pairs))[:16]
