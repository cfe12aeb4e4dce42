"""What the files of a run must hold, as far as reports read it; further keys are allowed and passed over.

    rows.jsonl              StepLine, a line per step
    rollouts/*.jsonl.gz     RolloutLine, a line per rollout (read where a monitor looked)
    step_NNN.cos.jsonl.gz   SampleLine, a line per replayed rollout
    eval.jsonl              HeldoutLine, a line per step, adapter and condition
    config.json             RunFacts

Types are strict: true is no number and "1" is none either. NaN and infinities, which are not JSON, read as
None. A fault is one line that names the file, the row and the field.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired

from pydantic import AfterValidator, ConfigDict, Strict, TypeAdapter, with_config
from typing_extensions import TypedDict  # pydantic asks for it before Python 3.12

from hackward.base.arms import FLAGS, Intervene, MonitorName
from hackward.base.faults import InputError
from hackward.base.records import checked_object


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _finite_range(ends: tuple[float, float] | None) -> tuple[float, float] | None:
    return ends if ends is not None and all(map(math.isfinite, ends)) else None


Number = Annotated[float | None, AfterValidator(_finite)]
Flag = bool | None
# Strict(False): JSON has no tuples, only lists
NullRange = Annotated[Annotated[tuple[float, float], Strict(False)] | None, AfterValidator(_finite_range)]
LINE = ConfigDict(strict=True, extra="ignore")
PART = ConfigDict(strict=True, extra="allow")


@with_config(LINE)
class StepLine(TypedDict):
    """A line of rows.jsonl."""

    step: int
    arm: str
    seed: int
    reward_mean: Number
    reward_spread: Number
    hack_rate: Number
    attempt_rate: Number
    gt_rate: Number
    fmt_rate: Number
    cos_in: Number
    cos_out: Number
    cos_update: Number
    cos_in_null: NullRange
    cos_out_null: NullRange
    cos_update_null: NullRange
    cos_update_in: Number
    frac_fired: Number
    grad_norm: Number
    update_norm: Number
    delta_w_norm: Number
    groups_used: int
    groups_skipped: int
    kl: Number
    comp_len: Number
    seconds: Number
    seconds_generate: Number
    seconds_grade: Number
    seconds_backward: Number
    logp_gap: Number
    peak_memory_gb: Number
    advantages: list[Number]
    monitor_auc_hacked: NotRequired[Number]  # runs from before there were monitors have none of the four
    monitor_auc_attempted: NotRequired[Number]
    monitor_rate_hacked: NotRequired[Number]
    monitor_rate_clean: NotRequired[Number]


@with_config(LINE)
class SampleLine(TypedDict):
    """A line of step_NNN.cos.jsonl.gz."""

    step: int
    sample_id: int
    src_pool: str
    src_step: int
    src_sample: int
    reward: Number
    hacked: Flag
    gt_pass: Flag
    fmt_ok: Flag
    comp_len: Number
    cos_S_contrib: Number
    cos_S_logp: Number
    grad_norm_contrib: Number
    mean_cos_in: Number
    mean_cos_out: Number
    frac_fired: Number
    advantage: Number
    arm: str


@with_config(LINE)
class RolloutLine(TypedDict):
    """A line of rollouts/step_NNN.jsonl.gz, as far as the reports on monitors read it."""

    src_pool: str
    problem_id: str | int
    hacked: Flag
    attempted: Flag
    monitor_score: Number
    flagged: Flag


@with_config(LINE)
class Rate(TypedDict):
    """A rate with its interval over problems."""

    mean: Number
    low: Number
    high: Number


@with_config(LINE)
class HeldoutLine(TypedDict):
    """A line of eval.jsonl. A rate is null where it is undefined."""

    step: int
    adapter: Literal["on", "off"]
    condition: str
    problems: int
    samples: int
    hacked: Rate | None
    attempted: Rate | None
    solved: Rate | None
    hack_given_attempt: Rate | None


@with_config(PART)
class AgainstNull(TypedDict):
    """A measurement with the range of its permutation null and its one-sided p."""

    value: Number
    null: Annotated[tuple[Number, Number], Strict(False)]
    p: Number


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


@with_config(PART)
class ModelFacts(TypedDict):
    """The model that a run began with."""

    name: str


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
    control: str
    gate: str
    project_at: str
    objective: str
    refresh_every: int
    rank: int
    match_size: bool
    lr: float
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

    steps: int
    memory: dict[str, float]  # GB at the highest point of every phase on a GPU; empty without one


STEPS = TypeAdapter(list[StepLine])
ROLLOUTS = TypeAdapter(list[RolloutLine])
SAMPLES = TypeAdapter(list[SampleLine])
HELDOUT_LINES = TypeAdapter(list[HeldoutLine])
RUN_FACTS = TypeAdapter(RunFacts)
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
