"""Takes a run's model away: a plain transformers model, or a PEFT adapter, that loads without this project.

    python export.py RUN --out DIR                          W + Delta W, in the run's own dtype
    python export.py RUN --out DIR --dtype bfloat16         the same, rounded without bias
    python export.py RUN --out DIR --peft                   of --arm=lora: its LoRA as it is
    python export.py RUN --out DIR --peft --rank 64         of delta_S: the nearest LoRA, with its error

DIR/README.md is a card: what the model is, how it was made, how exact it is, what it must not be used for.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from hackward.base.faults import InputError, exit_on_fault
from hackward.base.files import read_json
from hackward.base.flags import Count, checked, command_line, tyro
from hackward.base.lock import check_new, new_directory
from hackward.runs.stored import no_record, read_record

ExportDtype = Literal["auto", "float32", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class ExportFlags:
    """Export the model of a run of train.py."""

    run: Annotated[Path, tyro.conf.Positional]
    """Directory of a finished run."""
    out: Path
    """Directory to write; must be new or empty."""
    dtype: ExportDtype = "auto"
    """dtype of the weights (auto: the run's own). A bf16 file of a run in fp32 holds its change rounded
    without bias."""
    peft: bool = False
    """Write a PEFT adapter beside the base model in the place of a whole model. Its tensors are fp32."""
    rank: Count | None = None
    """With --peft, of a run that trained delta_S: rank of the LoRA that stands for it (default: 64). How much
    of the change it leaves out is printed and stands in the card."""
    unfinished: bool = False
    """Take the last checkpoint of a run that is not finished."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ..."""


def check(flags: ExportFlags) -> tuple[dict[str, Any], dict[str, Any]]:
    """The run's config.json and summary.json (empty where it is not finished). InputError for what cannot be
    exported."""
    if flags.peft and flags.dtype != "auto":
        raise InputError(
            f"--dtype {flags.dtype} with --peft: the tensors of an adapter are fp32; leave it out"
        )
    if flags.rank is not None and not flags.peft:
        raise InputError(f"--rank {flags.rank} needs --peft: a plain model holds the whole change")
    check_new(flags.out)
    record = read_record(flags.run)
    if not isinstance(record.get("model", {}), dict):
        raise no_record(flags.run / "config.json")
    summary = flags.run / "summary.json"
    if not summary.exists():
        if flags.unfinished:
            return record, {}
        raise InputError(
            f"{flags.run}: not finished, it has no summary.json (--unfinished takes its last checkpoint;"
            " train.py --resume goes on with it)"
        )
    found = read_json(summary)
    if not isinstance(found, dict):
        raise InputError(f"{summary}: not the summary of a run")
    return record, {"finished": True, **found}


def main(flags: ExportFlags) -> None:
    """Write the model, and say what it is and how exact."""
    checked(flags)
    record, summary = check(flags)
    with new_directory(flags.out):
        export(flags, record, summary)


def export(flags: ExportFlags, record: dict[str, Any], summary: dict[str, Any]) -> None:
    """`main` of a run with this config.json and summary.json; --out is this process's alone."""
    import torch  # heavy imports from here on

    from hackward.runs.exporting import export_peft, export_plain, trained

    had = trained(flags.run, record, summary, device=flags.device)
    own_rank = had.adapter.own_rank
    if flags.rank is not None and own_rank not in (None, flags.rank):
        raise InputError(
            f"--rank {flags.rank}: {flags.run} trained a LoRA of rank {own_rank}, which is exported as it is;"
            " leave --rank out"
        )
    if flags.peft:
        made = export_peft(had, flags.out, flags.rank)
    else:
        made = export_plain(had, flags.out, None if flags.dtype == "auto" else getattr(torch, flags.dtype))
    report(flags.out, made)


def report(out: Path, made: dict[str, Any]) -> None:
    """A few lines: the error where there is one, how far logits are from the run's own, what was written."""
    from hackward.base.screen import say, stdout
    from hackward.runs.export_card import error_words

    lines = []
    if made["kind"] == "peft":
        lines.append(error_words(made))
    logits = made["logits"]
    lines.append(
        f"logits against the run's own model: at most {logits['largest_difference']:.3g} apart, the largest"
        f" is {logits['largest_logit']:.3g}"
    )
    lines.append(f"written to {out}; {out / 'README.md'} says what it is and what it must not be used for")
    for line in lines:
        say(line, console=stdout())


if __name__ == "__main__":
    exit_on_fault(lambda: main(command_line(ExportFlags, description=__doc__)))
