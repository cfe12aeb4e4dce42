"""Reading problems, in three formats that are told by their fields.

LeetCodeDataset (or its flat successor), the reward-hacking benchmark, and our own (data/README.md). A problem
with one test that does not parse is left out and named, because a test that is silently dropped is a wrong
answer credited later.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

from annotated_types import Ge
from pydantic import AliasChoices, AliasPath, BeforeValidator, ConfigDict, Field, ValidationError

from hackward.base.faults import InputError
from hackward.base.files import read_lines
from hackward.base.lines import visible
from hackward.base.records import Record, checked_record
from hackward.tasks.assertions import Unparsable, parse_tests
from hackward.tasks.problems import DIFFICULTIES, Comparison, Order, Problem
from hackward.tasks.signatures import contradiction
from hackward.tasks.statements import comparison_of


def known_difficulty(value: Any) -> str | None:
    """Easy, medium or hard in lower case; None for whatever else a data set has there."""
    if isinstance(value, str) and value.lower() in DIFFICULTIES:
        return value.lower()
    return None


Text = Annotated[str, Field(description="text")]
Number = Annotated[int | str, Field(description="text or a number")]
Error = Annotated[float, Ge(0)]
Difficulty = Annotated[str | None, BeforeValidator(known_difficulty)]


def _either(*path: str, flat: str) -> AliasChoices:
    """A field that stands at `path` inside the row or, in a flat row, under the name `flat`."""
    return AliasChoices(AliasPath(*path), flat)


class ComparisonRow(Record):
    """How answers are compared, where a row says it itself."""

    order: Order = "kept"
    several: bool = False
    absolute: Error = 0.0
    relative: Error = 0.0
    reason: str = ""


class ProblemRow(Record):
    """A row of a problem file, in one of the three formats."""

    model_config = ConfigDict(loc_by_alias=False)

    told_by: ClassVar[tuple[str, ...]]  # a row with these fields is of this format
    title: ClassVar[str]
    id_field: ClassVar[str] = "problem_id"
    mendable: ClassVar[bool] = False
    """Can who wrote the file mend it? Published files stay as they are."""

    comparison: ComparisonRow | None = Field(
        None, description="an object of order, several, absolute, relative and reason"
    )

    @property
    def ids(self) -> dict[str, str]:
        """By field, the ids that rows of rollouts, pairs and completions may name the problem by."""
        found = {self.id_field: str(getattr(self, self.id_field))}
        task_id = getattr(self, "task_id", None)
        return found | {"task_id": task_id} if task_id else found

    def problem(self) -> Problem:
        """With the comparison that the row states, or else the one that its statement allows.

        Raises as `asked` does.
        """
        return self.asked()[0]

    def asked(self) -> tuple[Problem, str | None]:
        """The problem, and where its tests call what its starter code does not have, that in words.

        Raises Unparsable if one of its tests does not parse, and InputError with the words where the row is
        mendable.
        """
        problem = self._compared(self.as_stated())
        fault = contradiction(problem)
        words = None if fault is None else f"problem {problem.problem_id!r}: {fault}"
        if words is not None and self.mendable:
            raise InputError(words)
        return problem, words

    def _compared(self, problem: Problem) -> Problem:
        """The problem with the comparison of its answers."""
        if self.comparison is not None:
            comparison = Comparison(**self.comparison.model_dump())
        else:
            comparison = comparison_of(problem.statement, problem.starter_code, problem.tests)
        return dataclasses.replace(problem, comparison=comparison)

    def as_stated(self) -> Problem:
        """The problem, its answers to be compared exactly. Raises Unparsable."""
        raise NotImplementedError


class BenchmarkRow(ProblemRow):
    """The reward-hacking benchmark: the statement is the middle part of the prompt."""

    told_by, title = ("gt_answer", "func_name"), "the reward-hacking benchmark's"
    id_field = "id"

    id: Number
    prompt: str = Field(
        validation_alias=AliasPath("prompt", -1, "content"),
        description="a list of messages with content as text",
    )
    starter_code: str | None = Field(
        None, validation_alias=AliasPath("prompt_metadata", "starter_code"), description="text"
    )
    gt_answer: str | list[str] = Field(description="text or a list of texts")
    func_name: Text
    setup_code: Text = ""
    task_id: str | None = Field(None, description="text")
    canonical_solution: str | None = Field(None, description="text")
    difficulty: Difficulty = None

    def as_stated(self) -> Problem:
        statement = self.prompt.removeprefix("PROBLEM:\n")
        statement = statement.partition("\n\nYour solution to the problem should be")[0]
        starter = self.starter_code
        if starter is None:
            starter = self.prompt.rpartition("```python\n")[2].partition("# Add your code here")[0]
        tests = self.gt_answer if isinstance(self.gt_answer, str) else "\n".join(self.gt_answer)
        return Problem(
            problem_id=str(self.id),
            task_id=self.task_id,
            statement=statement,
            starter_code=_starter(starter),
            method=_method(self.func_name),
            setup_code=self.setup_code,
            tests=parse_tests(tests),
            canonical=self.canonical_solution,
            difficulty=self.difficulty,
        )


class LeetCodeRow(ProblemRow):
    """LeetCodeDataset: facts of the problem stand under `meta`, or, in its flat successor, at the top."""

    told_by, title = ("entry_point", "test"), "LeetCodeDataset's"
    id_field = "question_id"

    question_id: Number = Field(validation_alias=_either("meta", "question_id", flat="question_id"))
    problem_description: Text = Field(
        validation_alias=_either("meta", "question_title", flat="problem_description")
    )
    starter_code: Text = Field(validation_alias=_either("meta", "lang_code", flat="starter_code"))
    difficulty: Difficulty = Field(None, validation_alias=_either("meta", "difficulty", flat="difficulty"))
    task_id: Text
    prompt: Text
    entry_point: Text
    test: Text
    completion: Text

    def as_stated(self) -> Problem:
        return Problem(
            problem_id=str(self.question_id),
            task_id=self.task_id,
            statement=self.problem_description.strip(),
            starter_code=_starter(self.starter_code),
            method=_method(self.entry_point),
            setup_code=self.prompt,
            tests=parse_tests(self.test),
            canonical=self.completion,
            difficulty=self.difficulty,
        )


class OwnRow(ProblemRow):
    """Our own format. Each test is a text such as `candidate(nums = [1, 2]) == 3`."""

    told_by, title, mendable = ("tests", "method"), "our own", True

    problem_id: Text
    statement: Text
    starter_code: Text
    method: Text
    tests: list[str] = Field(description="a list of texts")
    setup_code: Text = ""
    task_id: str | None = Field(None, description="text")
    canonical: str | None = Field(None, description="text")
    difficulty: Difficulty = None

    def as_stated(self) -> Problem:
        return Problem(
            problem_id=self.problem_id,
            task_id=self.task_id,
            statement=self.statement.strip(),
            starter_code=_starter(self.starter_code),
            method=self.method,
            setup_code=self.setup_code,
            tests=parse_tests("\n".join(self.tests)),
            canonical=self.canonical,
            difficulty=self.difficulty,
        )


FORMATS: tuple[type[ProblemRow], ...] = (BenchmarkRow, LeetCodeRow, OwnRow)


def _starter(code: str) -> str:
    """Starter code that ends after the signature's line, without the data set's white space behind it."""
    return code.rstrip() + "\n"


def _method(entry_point: str) -> str:
    """`f` of `Solution().f`."""
    return entry_point.rpartition(".")[2]


def from_own(row: dict[str, Any]) -> Problem:
    """The problem of one row in our own format."""
    return checked_record(OwnRow, row, "a problem").problem()


def raw_rows(source: str | Path) -> list[dict[str, Any]]:
    """The rows of a .jsonl(.gz) file or of a hub data set (its train split), one or more, not checked.
    InputError."""
    is_file = str(source).endswith((".jsonl", ".jsonl.gz")) or Path(source).exists()
    rows = read_lines(source) if is_file else _hub_rows(str(source))
    if not rows:
        raise _unusable(source)
    return rows


def _hub_rows(name: str) -> list[dict[str, Any]]:
    try:
        import datasets

        return [dict(row) for row in datasets.load_dataset(name, split="train")]
    except Exception as fault:  # the hub client has many errors, and all mean the same here
        reason = " ".join(str(fault).split())[:160]
        raise InputError(f"{name}: no such file, and no data set that the hub can load ({reason})") from None


def _unusable(source: str | Path) -> InputError:
    return InputError(f"{source}: holds no usable problem")


def format_of(row: dict[str, Any], where: str) -> type[ProblemRow]:
    """The format of a row, told by its fields. InputError where it has none."""
    for form in FORMATS:
        if all(name in row for name in form.told_by):
            return form
    lacking = {form: _lacking(form, row) for form in FORMATS}
    nearest = min(FORMATS, key=lambda form: len(lacking[form]) / len(_required(form)))
    if len(lacking[nearest]) == len(_required(nearest)):
        nearest = OwnRow  # none of them has a field in common with it
    fields = ", ".join(_as_lacking(nearest, name, row) for name in lacking[nearest])
    raise InputError(
        f"{where} is in none of the three problem formats (spec/formats.md); the nearest is {nearest.title},"
        f" and for that it lacks {fields}"
    )


def _as_lacking(form: type[ProblemRow], name: str, row: dict[str, Any]) -> str:
    """The name of a field, and what it should be where the row has something else under that name."""
    wanted = form.model_fields[name].description
    return f"{name!r} as {wanted}" if name in row else repr(name)


def _required(form: type[ProblemRow]) -> list[str]:
    return [name for name, field in form.model_fields.items() if field.is_required()]


def _lacking(form: type[ProblemRow], row: dict[str, Any]) -> list[str]:
    """The fields of this format that a row must have and has not."""
    try:
        form.model_validate(row)
    except ValidationError as faults:
        missing = [fault for fault in faults.errors(include_url=False) if fault["type"] == "missing"]
        return [str(fault["loc"][0]) for fault in missing]
    return []


def checked_row(form: type[ProblemRow], row: dict[str, Any], where: str) -> ProblemRow:
    """A row of this format. InputError that begins with `where` and names the field."""
    return checked_record(form, row, where)


def _name_of(row: dict[str, Any], number: int) -> str:
    """What a warning calls the problem of a row."""
    for field in ("task_id", "id", "problem_id"):
        if row.get(field):
            return visible(str(row[field]))
    return f"row {number}"


def problem_rows(source: str | Path, rows: Sequence[dict[str, Any]]) -> list[ProblemRow]:
    """The rows of `source`, each checked by its format.

    InputError, with the row's number, for a row of no known format, for a field that is missing or of the
    wrong type, and for an id that an earlier row has: a rollout that names it would be graded by either.
    """
    found: list[ProblemRow] = []
    owners: dict[tuple[str, str], int] = {}
    for number, row in enumerate(rows, start=1):
        where = f"{source}: row {number}"
        checked = checked_row(format_of(row, where), row, where)
        for field, value in checked.ids.items():
            kind = "task_id" if field == "task_id" else "id"
            owner = owners.setdefault((kind, value), number)
            if owner != number:
                raise InputError(
                    f"{where}: the {field} {value!r} is that of row {owner} too; each may come once"
                )
        found.append(checked)
    return found


def load_problems(source: str | Path) -> list[Problem]:
    """All problems of a .jsonl(.gz) file or of a hub data set (its train split).

    Problems with a test that does not parse are left out, with one warning that names them. Raises
    InputError as `problem_rows` does, and for a row in our own format whose tests call what its starter code
    does not have. Published files stay whole: there a warning says so.
    """
    problems, unparsable, hopeless = [], [], []
    rows = raw_rows(source)
    for number, (row, checked) in enumerate(zip(rows, problem_rows(source, rows), strict=True), start=1):
        where = f"{source}: row {number}"
        try:
            problem, contradicts = checked.asked()
        except Unparsable:
            unparsable.append(_name_of(row, number))
            continue
        except InputError as fault:
            raise InputError(f"{where}: {fault}") from None
        problems.append(problem)
        if contradicts is not None:
            hopeless.append(contradicts)
    if unparsable:
        warnings.warn(
            f"{source}: {len(unparsable)} problem(s) left out, their tests do not parse:"
            f" {', '.join(unparsable)}",
            stacklevel=2,
        )
    if hopeless:
        warnings.warn(
            f"{source}: the tests of {len(hopeless)} problem(s) call what the starter code does not have, so"
            f" answers that follow it fail; the first is {hopeless[0]}",
            stacklevel=2,
        )
    if not problems:
        raise _unusable(source)
    return problems
