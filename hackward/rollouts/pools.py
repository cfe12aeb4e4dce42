"""Pools of rollouts on disk.

A pool is a directory of `step_NNN.jsonl.gz` (ours) or `prompt_NNNN.jsonl.gz` (the published layout), or one
file of rows, .jsonl or .jsonl.gz; one row per rollout (spec/formats.md). Token ids are used as stored when
they were made by this tokenizer; otherwise the messages are rendered and the completion is tokenised anew. A
row's ids are cut at its `comp_len`: the published files pad with a token that some tokenizers call the end of
sequence, so where a completion ends is never guessed from an id.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, NonNegativeInt, PositiveInt

from hackward.base.checksums import CHECKSUMS, Checksums
from hackward.base.faults import InputError
from hackward.base.files import POOL_FILE, is_jsonl, read_jsonl, sha256, step_file, write_jsonl
from hackward.base.records import POLICY, Record, Unknowable, checked_record
from hackward.rollouts import tokens
from hackward.rollouts.places import check_place
from hackward.rollouts.rollout import Rollout
from hackward.rollouts.tokens import completion_ids, prompt_ids, tokenizer_hash
from hackward.tasks.problems import Problem, Resolver

LABELS = {"reward", "hacked", "gt_pass", "fmt_ok"}  # that a graded row has
TRIED = 8  # rows by which a tokenizer that left no stamp is told


class Message(Record):
    """A chat message."""

    role: str
    content: str


Flag = Annotated[bool, Field(description="true or false")]
TokenIds = Annotated[list[NonNegativeInt], Field(min_length=1, description="a list of token ids")]


class PoolRow(Record):
    """A row of a pool file, as far as it is read. What is None was not there."""

    problem_id: Annotated[str | int, Field(description="text or a number")]
    completion: Annotated[str, Field(description="text")]
    reward: Annotated[float, Field(description="a number")]
    hacked: Flag
    gt_pass: Flag
    fmt_ok: Flag
    attempted: Annotated[bool | None, Unknowable, Field(description="true, false or null")] = None
    truncated: Annotated[bool | None, Unknowable, Field(description="true, false or null")] = None
    prompt_ids: TokenIds | None = Field(None, description="a list of token ids")
    completion_ids: TokenIds | None = Field(None, description="a list of token ids")
    comp_len: PositiveInt | None = Field(None, description="a positive whole number")
    problem_messages: list[Message] | None = Field(
        None, description="a list of messages with role and content"
    )
    tokenizer: str | None = Field(None, description="text")
    src_pool: Any = None
    step: Any = None
    sample_id: Any = None

    @property
    def messages(self) -> list[dict[str, str]]:
        return [message.model_dump() for message in self.problem_messages or ()]

    @property
    def kept_ids(self) -> list[int]:
        """The completion's token ids without what the file was padded with."""
        assert self.completion_ids is not None
        return self.completion_ids[: self.comp_len]

    @property
    def largest_id(self) -> int:
        """The largest token id of prompt and completion; -1 without ids."""
        return max([*(self.prompt_ids or ()), *(self.completion_ids or ())], default=-1)


@dataclass(frozen=True)
class Pool:
    """A pool in memory: rollouts by problem, and what a run's config says of it."""

    name: str
    directory: str
    by_problem: dict[str, list[Rollout]] = field(repr=False)
    retokenised: bool
    hash: str

    @property
    def rollouts(self) -> list[Rollout]:
        return [rollout for rollouts in self.by_problem.values() for rollout in rollouts]

    def describe(self) -> dict[str, Any]:
        """What config.json says of it."""
        rollouts = self.rollouts
        return {
            "dir": self.directory,
            "name": self.name,
            "rows": len(rollouts),
            "problems": len(self.by_problem),
            "hacked": sum(rollout.hacked for rollout in rollouts),
            "gt_pass": sum(rollout.gt_pass for rollout in rollouts),
            "retokenised": self.retokenised,
            "hash": self.hash,
        }


def of_problems(pool: Pool, known: Sequence[Problem]) -> dict[str, list[Rollout]]:
    """The pool's rollouts under the ids of a problem file, joined by what their prompts state
    (problems.Resolver)."""
    resolver = Resolver(known)
    joined: dict[str, list[Rollout]] = {}
    for rollout in pool.rollouts:
        row = {"problem_id": rollout.problem_id, "problem_messages": list(rollout.messages)}
        problem, _ = resolver.resolve(row)
        if problem is not None:
            joined.setdefault(problem.problem_id, []).append(rollout)
    return joined


def pool_files(directory: str | Path) -> list[Path]:
    """The pool's files in order; a run's directory stands for the rollouts in it, a file of rows for itself.

    InputError when the directory is missing or holds none.
    """
    directory = Path(directory)
    check_place(directory)
    if is_jsonl(directory):
        return [directory]
    if (directory / "config.json").is_file() and (directory / "rollouts").is_dir():
        directory = directory / "rollouts"
    files = sorted(path for path in directory.iterdir() if POOL_FILE.fullmatch(path.name))
    if not files:
        raise InputError(
            f"{directory}: holds no step_NNN.jsonl.gz or prompt_NNNN.jsonl.gz (grade.py ROWS --problems FILE"
            " --pool OUT makes a pool of completions)"
        )
    return files


def source_name(row: PoolRow, place: str | Path) -> str:
    """Which pool a row is of: what it says itself, else the name of the directory or file, without "_pool".

    Rows that a run sampled say "policy"; loaded, they are the rollouts of that run and take its directory's
    name.
    """
    if isinstance(row.src_pool, str) and row.src_pool != POLICY:
        return row.src_pool
    home = Path(place).resolve()
    if POOL_FILE.fullmatch(home.name):
        home = home.parent
    elif is_jsonl(home):
        return home.name.removesuffix(".gz").removesuffix(".jsonl").removesuffix("_pool")
    if home.name == "rollouts":
        home = home.parent
    return home.name.removesuffix("_pool")


def load_pool(directory: str | Path, tokenizer: Any, *, stop: Sequence[int]) -> Pool:
    """Read a whole pool, checked before anything is used. `stop` (tokens.stops) tells ended rollouts from
    truncated ones.

    Raises InputError naming the file (and row) for a missing directory, a truncated or corrupt file, a row
    without a required field, a reward that is not a number, or rows that can be neither used nor tokenised
    anew.
    """
    rows: list[tuple[Path, PoolRow]] = []
    files = pool_files(directory)
    for path in files:
        for number, found in enumerate(read_jsonl(path), start=1):
            rows.append((path, _checked(found, f"{path}: row {number}")))
    if not rows:
        raise InputError(f"{directory}: the pool has no rows")
    _check_whole(files[0].parent)
    same = _same_tokenizer([row for _, row in rows], tokenizer)
    names = Counter(source_name(row, directory) for _, row in rows)
    by_problem: dict[str, list[Rollout]] = {}
    for path, row in rows:
        siblings = by_problem.setdefault(str(row.problem_id), [])
        siblings.append(_rollout(row, path, tokenizer, same, sample=len(siblings), stop=stop))
    return Pool(names.most_common(1)[0][0], str(directory), by_problem, not same, pool_hash(directory))


def _checked(row: dict[str, Any], where: str) -> PoolRow:
    """A row of a pool. InputError, which says what makes a pool of completions without labels."""
    try:
        return checked_record(PoolRow, row, where)
    except InputError as fault:
        if LABELS.isdisjoint(row) and "completion" in row:
            raise InputError(
                f"{fault}; grade.py ROWS --problems FILE --pool OUT grades completions"
            ) from None
        raise


def _step_of(row: PoolRow, path: Path) -> int:
    """The number of a pool's file; in a file of rows what the row says, or 0."""
    numbered = POOL_FILE.fullmatch(path.name)
    if numbered:
        return int(numbered["number"])
    return row.step if isinstance(row.step, int) else 0


def _check_whole(directory: Path) -> None:
    """InputError where a file changed since the pool was made, or is gone.

    The rollouts of a run are among the files of the run.
    """
    home = directory.parent if (directory.parent / "config.json").is_file() else directory
    sums = Checksums(home)
    for path in (home / name for name in sorted(sums.known)):
        if path.parent != directory:
            continue
        if not path.is_file():
            raise InputError(f"{path}: gone since the pool was made; delete {CHECKSUMS} to take what is left")
        sums.check(path)


def stored_rollouts(path: str | Path) -> list[Rollout]:
    """The rollouts of one file of a run as it wrote them: ids, labels, numbers, whose they are.

    InputError as in `load_pool`, for a file without any, and for a row without ids: a run's have them.
    """
    found = []
    for number, stored in enumerate(read_jsonl(path), start=1):
        where = f"{path}: row {number}"
        row = checked_record(PoolRow, stored, where)
        if row.prompt_ids is None or row.completion_ids is None:
            raise InputError(
                f"{where}: has no prompt_ids or no completion_ids, and every row of a run has both"
            )
        rollout = _rollout(row, Path(path), None, True, sample=number - 1, stop=())
        owner = row.src_pool if isinstance(row.src_pool, str) else rollout.src_pool
        found.append(replace(rollout, truncated=bool(row.truncated), src_pool=owner))
    if not found:
        raise InputError(f"{path}: holds no rollouts, and every step of a run has some; bring the file back")
    return found


def pool_hash(directory: str | Path) -> str:
    """Hash over names and contents of the pool's files."""
    parts: list[str | bytes] = []
    for path in pool_files(directory):
        parts += [path.name, path.read_bytes()]
    return sha256(*parts)[:16]


def _same_tokenizer(rows: Sequence[PoolRow], tokenizer: Any) -> bool:
    """Were the stored ids made by this tokenizer?

    Known by its stamp; ids beyond the vocabulary are another's whatever the stamp says. Without a stamp the
    first rows are tried: prompt and text must agree.
    """
    if any(not row.prompt_ids or not row.completion_ids for row in rows):
        return False
    if any(row.largest_id >= len(tokenizer) for row in rows):
        return False
    stamps = {row.tokenizer for row in rows}
    if stamps != {None}:
        return stamps == {tokenizer_hash(tokenizer)}
    return all(_agrees(row, tokenizer) for row in rows[:TRIED])


def _agrees(row: PoolRow, tokenizer: Any) -> bool:
    text = tokenizer.decode(row.kept_ids, skip_special_tokens=True)
    if text.strip() != row.completion.strip():
        return False
    if not row.messages:
        return True
    return prompt_ids(tokenizer, row.messages) == row.prompt_ids


def _ids(
    row: PoolRow, path: Path, tokenizer: Any, stop: Sequence[int], same: bool
) -> tuple[list[int], list[int], bool]:
    """(prompt ids, completion ids, truncated): as stored, or tokenised anew."""
    if same:
        assert row.prompt_ids is not None
        return row.prompt_ids, row.kept_ids, row.kept_ids[-1] not in stop
    if not row.messages:
        raise InputError(
            f"{path}: rows of another tokenizer need problem_messages to be rendered anew (grade.py ROWS"
            " --problems FILE --pool OUT writes rows that have them)"
        )
    prompt = prompt_ids(tokenizer, row.messages)
    if not row.truncated:
        return prompt, completion_ids(tokenizer, row.completion), False
    completion = tokens.encode(tokenizer, row.completion)
    if not completion:
        raise InputError(f"{path}: a truncated row with an empty completion has nothing to learn from")
    return prompt, completion, True


def _rollout(
    row: PoolRow, path: Path, tokenizer: Any, same: bool, *, sample: int, stop: Sequence[int]
) -> Rollout:
    prompt, completion, truncated = _ids(row, path, tokenizer, stop, same)
    return Rollout(
        problem_id=str(row.problem_id),
        prompt_ids=tuple(prompt),
        completion_ids=tuple(completion),
        completion=row.completion,
        reward=row.reward,
        hacked=row.hacked,
        gt_pass=row.gt_pass,
        fmt_ok=row.fmt_ok,
        attempted=row.attempted,
        truncated=truncated,
        src_pool=source_name(row, path),
        src_step=_step_of(row, path),
        src_sample=row.sample_id if isinstance(row.sample_id, int) else sample,
        messages=tuple(row.messages),
    )


def save_pool(
    directory: str | Path, groups: Sequence[Sequence[Rollout]], *, name: str, tokenizer: Any | None
) -> list[Path]:
    """Write one `step_NNN.jsonl.gz` per group, with the step and sample numbers that the loader gives back.

    Rollouts of texts alone have no tokenizer: who loads them tokenises them.
    """
    stamp = None if tokenizer is None else tokenizer_hash(tokenizer)
    written, sums = [], Checksums(directory)
    for step, group in enumerate(groups):
        path = Path(directory) / step_file(step)
        named = [replace(r, src_pool=name, src_step=step, src_sample=i) for i, r in enumerate(group)]
        write_jsonl(path, [rollout.row(stamp) for rollout in named], put=sums.writing)
        written.append(path)
    return written
