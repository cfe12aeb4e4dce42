"""What the files of a run must hold, as far as reports read it; further keys are allowed and passed over.

    rows.jsonl              StepLine, a line per step
    rollouts/*.jsonl.gz     RolloutLine, a line per rollout (read where a monitor looked); PageLine, the same
                            line with all that the page shows of it
    step_NNN.cos.jsonl.gz   SampleLine, a line per replayed rollout
    eval.jsonl              HeldoutLine, a line per step, adapter and condition
    config.json             RunFacts

Types are strict: true is no number and "1" is none either. NaN and infinities, which are not JSON, read as
None. What cannot have been measured is refused: cosines outside [-1, 1], rates outside [0, 1], negative norms
and seconds. A fault is one line that names the file, the row and the field.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired

from annotated_types import Ge, Le, Lt
from pydantic import BeforeValidator, ConfigDict, Field, Strict, TypeAdapter, with_config
from typing_extensions import TypedDict  # pydantic asks for it before Python 3.12

from hackward.base.arms import FLAGS, Control, Gate, Intervene, MonitorName, Place
from hackward.base.faults import InputError
from hackward.base.records import checked_object


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _finite_range(ends: Any) -> Any:
    if isinstance(ends, list) and any(_finite(end) is None for end in ends):
        return None
    return ends


LARGEST = 3.5e38  # beyond fp32: no number that a run can have measured
ROUNDING = 1e-3  # that a cosine or a rate may lie outside of its range
LAST = 2**31  # no step or count gets there

Finite = Annotated[float, Ge(-LARGEST), Le(LARGEST)]
Share = Annotated[float, Ge(-ROUNDING), Le(1 + ROUNDING)]
Count = Annotated[int, Ge(0), Lt(LAST)]
Number = Annotated[Finite | None, BeforeValidator(_finite)]
Size = Annotated[Annotated[float, Ge(0), Le(LARGEST)] | None, BeforeValidator(_finite)]
Cosine = Annotated[
    Annotated[float, Ge(-1 - ROUNDING), Le(1 + ROUNDING)] | None,
    BeforeValidator(_finite),
]
Ratio = Annotated[Share | None, BeforeValidator(_finite)]
Flag = bool | None
# Strict(False): JSON has no tuples, only lists. The null of a cosine may lie outside of [-1, 1].
NullRange = Annotated[
    Annotated[tuple[Finite, Finite], Strict(False)] | None,
    BeforeValidator(_finite_range),
]
LINE = ConfigDict(strict=True, extra="ignore")
PART = ConfigDict(strict=True, extra="allow")


@with_config(LINE)
class StepLine(TypedDict):
    """A line of rows.jsonl."""

    step: Count
    arm: str
    seed: int
    reward_mean: Number
    reward_spread: Size
    hack_rate: Ratio
    attempt_rate: Ratio
    gt_rate: Ratio
    fmt_rate: Ratio
    cos_in: Cosine
    cos_out: Cosine
    cos_update: Cosine
    cos_in_null: NullRange
    cos_out_null: NullRange
    cos_update_null: NullRange
    cos_update_in: Cosine
    frac_fired: Ratio
    grad_norm: Size
    update_norm: Size
    delta_w_norm: Size
    groups_used: Count
    groups_skipped: Count
    kl: Number
    comp_len: Size
    seconds: Size
    seconds_generate: Size
    seconds_grade: Size
    seconds_backward: Size
    logp_gap: Number
    peak_memory_gb: Size
    advantages: Annotated[list[Number], Field(min_length=1)]
    seconds_waiting: NotRequired[Size]  # of runs on several processes, as the next
    seconds_exchanging: NotRequired[Size]
    seconds_monitor: NotRequired[Size]  # runs from before there were monitors have none of these five
    monitor_auc_hacked: NotRequired[Ratio]
    monitor_auc_attempted: NotRequired[Ratio]
    monitor_rate_hacked: NotRequired[Ratio]
    monitor_rate_clean: NotRequired[Ratio]


@with_config(LINE)
class SampleLine(TypedDict):
    """A line of step_NNN.cos.jsonl.gz."""

    step: Count
    sample_id: Count
    src_pool: str
    src_step: int
    src_sample: int
    reward: Number
    hacked: Flag
    gt_pass: Flag
    fmt_ok: Flag
    comp_len: Size
    cos_S_contrib: Cosine
    cos_S_logp: Cosine
    grad_norm_contrib: Size
    mean_cos_in: Cosine
    mean_cos_out: Cosine
    frac_fired: Ratio
    advantage: Number
    arm: str


@with_config(LINE)
class RolloutLine(TypedDict):
    """A line of rollouts/step_NNN.jsonl.gz, as far as the reports on monitors read it."""

    src_pool: str
    problem_id: str | int
    hacked: Flag
    attempted: Flag
    gt_pass: Flag
    monitor_score: Number
    flagged: Flag


@with_config(LINE)
class Message(TypedDict):
    """A message of a prompt."""

    role: str
    content: str


@with_config(PART)
class PageLine(TypedDict):
    """A line of rollouts/step_NNN.jsonl.gz, or of a pool, as far as the page of rollouts shows it.

    Other fields with a plain value are shown as they are.
    """

    problem_id: str | int
    src_pool: NotRequired[str | None]
    step: NotRequired[Count | None]
    sample_id: NotRequired[str | int | None]
    completion: NotRequired[str]
    problem_messages: NotRequired[list[Message] | None]
    reward: NotRequired[Number]
    hacked: NotRequired[Flag]
    gt_pass: NotRequired[Flag]
    attempted: NotRequired[Flag]
    fmt_ok: NotRequired[Flag]
    truncated: NotRequired[Flag]
    comp_len: NotRequired[Size]
    monitor_score: NotRequired[Number]
    flagged: NotRequired[Flag]


@with_config(LINE)
class Rate(TypedDict):
    """A rate with its interval over problems."""

    mean: Ratio
    low: Ratio
    high: Ratio


@with_config(LINE)
class HeldoutLine(TypedDict):
    """A line of eval.jsonl. A rate is null where it is undefined."""

    step: Count
    adapter: Literal["on", "off"]
    condition: str
    problems: Count
    samples: Count
    hacked: Rate | None
    attempted: Rate | None
    solved: Rate | None
    hack_given_attempt: Rate | None


@with_config(PART)
class AgainstNull(TypedDict):
    """A measurement with the range of its permutation null and its one-sided p."""

    value: Ratio
    null: Annotated[tuple[Ratio, Ratio], Strict(False)]
    p: Ratio


@with_config(PART)
class Quality(TypedDict):
    """What a v_hack is worth on pairs that it was not made from."""

    pairs: int
    right_sign: AgainstNull
    auc: AgainstNull


@with_config(PART)
class VHackFacts(TypedDict):
    """A v_hack.

    One that the run extracted has no file; one that was written by a control has neither loss nor quality.
    """

    hash: str
    file: NotRequired[str]
    objective: NotRequired[str]
    coordinates: NotRequired[str]
    normaliser: NotRequired[str | None]
    temperature: NotRequired[float]
    heldout: NotRequired[Quality]
    pair_identities: NotRequired[list[str]]


@with_config(PART)
class ModelFacts(TypedDict):
    """The model that a run began with."""

    name: str
    dtype: NotRequired[Literal["torch.float32", "torch.bfloat16"]]


@with_config(PART)
class PoolFacts(TypedDict):
    """A pool that rollouts were replayed from, or that teacher rows came from."""

    dir: str
    hash: str


@with_config(PART)
class TrainSettings(TypedDict):
    """The settings of train.py that a report names or compares."""

    arm: str
    seed: int
    control: Control
    gate: Gate
    project_at: Place
    objective: str
    refresh_every: Count
    rank: Count
    match_size: bool
    lr: Annotated[float, Ge(0), Le(LARGEST)]
    intervene: NotRequired[Intervene]
    monitor: NotRequired[MonitorName]
    monitor_noise: NotRequired[float]
    monitor_score: NotRequired[str]
    monitor_fpr: NotRequired[float]
    monitor_rows: NotRequired[str]
    refresh_from: NotRequired[str]
    refresh: NotRequired[str]
    refresh_label: NotRequired[str]
    teacher_dir: NotRequired[str | None]
    teacher_rows: NotRequired[int]
    teacher_until: NotRequired[int]
    stop_after_breakout: NotRequired[Count]


@with_config(PART)
class Made(TypedDict):
    """Of a config.json, what a finished run is evaluated by beside its settings."""

    model: NotRequired[ModelFacts]
    v_hack: NotRequired[VHackFacts | None]


@with_config(PART)
class RunFacts(TypedDict):
    """config.json of a run."""

    kind: str
    config: TrainSettings
    commit: str | None
    dirty: Flag
    model: ModelFacts
    v_hack: VHackFacts | None
    pools: list[PoolFacts]
    problems: str
    training: NotRequired[
        str
    ]  # hash of the problems trained on; a replaying run trains on those of its pools
    warning: NotRequired[str]


@with_config(PART)
class Summary(TypedDict):
    """summary.json of a finished run."""

    steps: Count
    stopped: NotRequired[str | None]  # why it has fewer steps than it was told to make; null: it has them all
    memory: dict[str, Finite]  # GB at the highest point of every phase on a GPU; empty without one


@with_config(LINE)
class TimedLine(TypedDict):
    """A line of rows.jsonl or eval.jsonl that a run goes on from: what was done took a time."""

    step: Count
    seconds: Annotated[float, Ge(0), Le(LARGEST)]


STEPS = TypeAdapter(list[StepLine])
TIMED = TypeAdapter(list[TimedLine])
ROLLOUTS = TypeAdapter(list[RolloutLine])
PAGE_LINES = TypeAdapter(list[PageLine])
SAMPLES = TypeAdapter(list[SampleLine])
HELDOUT_LINES = TypeAdapter(list[HeldoutLine])
RUN_FACTS = TypeAdapter(RunFacts)
MADE = TypeAdapter(Made)
SUMMARY = TypeAdapter(Summary)


# What a run with a monitor must also say. Runs from before there were monitors have none of these settings.
OF_MONITOR = ("intervene", "monitor_noise", "monitor_score", "monitor_fpr", "monitor_rows")


def checked_facts(path: Path, content: Any) -> dict[str, Any]:
    """config.json of a run, checked. InputError that names the file and the field."""
    record = checked_object(path, content, RUN_FACTS)
    if record["config"]["arm"] not in FLAGS:
        raise InputError(f"{path}: 'config.arm' must be one of {', '.join(FLAGS)}")
    if record["config"].get("monitor", "none") != "none":
        for field in OF_MONITOR:
            if field not in record["config"]:
                raise InputError(f"{path}: no field 'config.{field}'")
    if record["kind"] == "sampled" and "training" not in record:
        raise InputError(f"{path}: no field 'training'")
    return record
