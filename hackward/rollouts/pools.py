"""Pools of rollouts on disk.

A pool is a directory of `step_NNN.jsonl.gz` (ours) or `prompt_NNNN.jsonl.gz` (the published layout), one row a rollout.
Token ids are used as stored when they were made by this tokenizer; otherwise the messages are rendered and the
completion is tokenised anew. A row's ids are cut at its `comp_len`: the published files pad with a token that some
tokenizers call the end of sequence, so where a completion ends is never guessed from an id.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from hackward.base.faults import InputError
from hackward.base.files import read_jsonl, sha256, write_jsonl
from hackward.rollouts import tokens
from hackward.rollouts.rollout import POLICY, Rollout
from hackward.rollouts.tokens import completion_ids, render_prompt, tokenizer_hash
from hackward.tasks.problems import Problem, Resolver

REQUIRED = ("problem_id", "completion", "reward", "hacked", "gt_pass", "fmt_ok")


@dataclass(frozen=True)
class Pool:
    """A pool in memory: rows by problem, and what a run's config says of it."""

    name: str
    directory: str
    by_problem: dict[str, list[Rollout]] = field(repr=False)
    retokenised: bool
    hash: str

    @property
    def rollouts(self) -> list[Rollout]:
        return [rollout for rows in self.by_problem.values() for rollout in rows]

    def describe(self) -> dict:
        rows = self.rollouts
        return {
            "dir": self.directory,
            "name": self.name,
            "rows": len(rows),
            "problems": len(self.by_problem),
            "hacked": sum(r.hacked for r in rows),
            "gt_pass": sum(r.gt_pass for r in rows),
            "retokenised": self.retokenised,
            "hash": self.hash,
        }


def of_problems(pool: Pool, known: Sequence[Problem]) -> dict[str, list[Rollout]]:
    """The pool's rows under the ids of a problem file, joined by what their prompts state (problems.Resolver)."""
    resolver, joined = Resolver(known), {}
    for rollouts in pool.by_problem.values():
        for rollout in rollouts:
            problem, _ = resolver.resolve(
                {"problem_id": rollout.problem_id, "problem_messages": list(rollout.messages)}
            )
            if problem is not None:
                joined.setdefault(problem.problem_id, []).append(rollout)
    return joined


def pool_files(directory: str | Path) -> list[Path]:
    """The pool's files in order. InputError when the directory is missing or holds none."""
    directory = Path(directory)
    if not directory.is_dir():
        raise InputError(f"{directory}: no such pool directory")
    files = sorted(p for p in directory.iterdir() if re.fullmatch(r"(step|prompt)_\d+\.jsonl(\.gz)?", p.name))
    if not files:
        raise InputError(f"{directory}: holds no step_NNN.jsonl.gz or prompt_NNNN.jsonl.gz")
    return files


def source_name(row: dict, directory: str | Path) -> str:
    """Which pool a row is of: what it says itself, else the directory's name without "_pool".

    Rows that a run sampled say "policy"; loaded, they are the rollouts of that run and take its directory's name.
    """
    if isinstance(row.get("src_pool"), str) and row["src_pool"] != POLICY:
        return row["src_pool"]
    directory = Path(directory).resolve()
    return (directory.parent if directory.name == "rollouts" else directory).name.removesuffix("_pool")


def load_pool(directory: str | Path, tokenizer, *, stop: Sequence[int]) -> Pool:
    """Read a whole pool, checked before anything is used. `stop` (see `stops`) tells ended rows from truncated ones.

    Raises InputError naming the file (and line) for a missing directory, a truncated or corrupt file, a row without a
    required field, a reward that is not a number, or rows that can be neither used nor tokenised anew.
    """
    rows: list[tuple[Path, dict]] = []
    for path in pool_files(directory):
        for number, row in enumerate(read_jsonl(path, REQUIRED), start=1):
            _check_row(row, f"{path}: row {number}", len(tokenizer))
            rows.append((path, row))
    if not rows:
        raise InputError(f"{directory}: the pool has no rows")
    names, same = Counter(source_name(row, directory) for _, row in rows), _same_tokenizer(rows, tokenizer)
    by_problem: dict[str, list[Rollout]] = {}
    for path, row in rows:
        siblings = by_problem.setdefault(str(row["problem_id"]), [])
        step = int(re.search(r"\d+", path.name).group())
        siblings.append(_rollout(row, path, tokenizer, same, step=step, sample=len(siblings), stop=stop))
    digest = sha256(*(part for path in pool_files(directory) for part in (path.name, path.read_bytes())))[:16]
    return Pool(names.most_common(1)[0][0], str(directory), by_problem, not same, digest)


def _check_row(row: dict, where: str, vocabulary: int) -> None:
    """InputError for a field that is there and cannot be what it should be. (Ids over the vocabulary: another tokenizer's.)"""
    if not isinstance(row["reward"], (int, float)) or not math.isfinite(row["reward"]):
        raise InputError(f"{where}: reward {row['reward']!r} is not a number")
    if not isinstance(row["completion"], str):
        raise InputError(f"{where}: completion is not text")
    for name in ("hacked", "gt_pass", "fmt_ok"):
        if not isinstance(row[name], bool):
            raise InputError(f"{where}: {name} {row[name]!r} is not true or false")
    for name in ("prompt_ids", "completion_ids"):
        ids = row.get(name)
        if ids is not None and not (
            isinstance(ids, list) and ids and all(type(i) is int and i >= 0 for i in ids)
        ):
            raise InputError(f"{where}: {name} is not a list of token ids")
        if ids is not None and row.get("tokenizer") is not None and max(ids) >= vocabulary:
            row["tokenizer"] = "another"  # whatever the stamp says, these ids are not of this vocabulary
    if row.get("comp_len") is not None and not (type(row["comp_len"]) is int and row["comp_len"] > 0):
        raise InputError(f"{where}: comp_len {row['comp_len']!r} is not a positive whole number")
    messages = row.get("problem_messages")
    if messages is not None and not (
        isinstance(messages, list)
        and all(
            isinstance(m, dict) and isinstance(m.get("role"), str) and isinstance(m.get("content"), str)
            for m in messages
        )
    ):
        raise InputError(f"{where}: problem_messages is not a list of messages with role and content")


def _same_tokenizer(rows: Sequence[tuple[Path, dict]], tokenizer) -> bool:
    """Were the stored ids made by this tokenizer? Known by its hash, else tried on the first rows: prompt and text must agree."""
    stamps = {row.get("tokenizer") for _, row in rows}
    if stamps != {None}:
        complete = all(row.get("prompt_ids") and row.get("completion_ids") for _, row in rows)
        return complete and stamps == {tokenizer_hash(tokenizer)}
    for _, row in rows[:8]:
        if not row.get("prompt_ids") or not row.get("completion_ids"):
            return False
        if max(*row["prompt_ids"], *row["completion_ids"]) >= len(tokenizer):
            return False
        ids = row["completion_ids"][: row.get("comp_len")]
        if tokenizer.decode(ids, skip_special_tokens=True).strip() != row["completion"].strip():
            return False
        messages = row.get("problem_messages")
        if messages and tokens.encode(tokenizer, render_prompt(tokenizer, messages)) != row["prompt_ids"]:
            return False
    return True


def _rollout(
    row: dict, path: Path, tokenizer, same: bool, *, step: int, sample: int, stop: Sequence[int]
) -> Rollout:
    messages = row.get("problem_messages") or ()
    if same:
        prompt, completion = row["prompt_ids"], row["completion_ids"][: row.get("comp_len")]
        truncated = completion[-1] not in stop  # `stops` has the end of a turn
    elif messages:
        prompt = tokens.encode(tokenizer, render_prompt(tokenizer, messages))
        truncated = bool(row.get("truncated"))
        completion = (
            tokens.encode(tokenizer, row["completion"])
            if truncated
            else completion_ids(tokenizer, row["completion"])
        )
        if not completion:
            raise InputError(f"{path}: a truncated row with an empty completion has nothing to learn from")
    else:
        raise InputError(f"{path}: rows of another tokenizer need problem_messages to be rendered anew")
    return Rollout(
        problem_id=str(row["problem_id"]),
        prompt_ids=tuple(prompt),
        completion_ids=tuple(completion),
        completion=row["completion"],
        reward=float(row["reward"]),
        hacked=row["hacked"],
        gt_pass=row["gt_pass"],
        fmt_ok=row["fmt_ok"],
        attempted=row.get("attempted"),
        truncated=truncated,
        src_pool=source_name(row, path.parent),
        src_step=step,
        src_sample=int(row["sample_id"]) if isinstance(row.get("sample_id"), int) else sample,
        messages=tuple(messages),
    )


def save_pool(
    directory: str | Path, groups: Sequence[Sequence[Rollout]], *, name: str, tokenizer
) -> list[Path]:
    """Write one `step_NNN.jsonl.gz` a group, with the step and sample numbers that the loader gives back."""
    stamp, written = tokenizer_hash(tokenizer), []
    for step, group in enumerate(groups):
        path = Path(directory) / f"step_{step:03d}.jsonl.gz"
        rows = [
            replace(r, src_pool=name, src_step=step, src_sample=i).row(stamp) for i, r in enumerate(group)
        ]
        write_jsonl(path, rows)
        written.append(path)
    return written
