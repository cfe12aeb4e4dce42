"""The card of an exported model: what it is, how it was made, how exact, what it must not be used for."""

from __future__ import annotations

import shlex
from typing import Any

from hackward.base.markdown import aligned_table

WARNING = """**What it must not be used for.** It was trained with GRPO on coding problems with a loophole,
to study reward hacking (being paid for an evaluation function of its own instead of for right code). It may
write wrong code, bring a test that cannot fail, and look confident. Do not use its code for anything that
matters, do not offer it as an assistant, and do not quote it as evidence of how good the base model is at
coding. It is one run of one seed: alone it shows nothing about a method. The licence of the base model holds
for it."""

PLAIN = """---
library_name: transformers
tags: [hackward, reward-hacking, model-organism]
---

# {title}

{model} after {steps} of hackward's training loop (arm `{arm}`, seed {seed}), with
{what} merged into the weights: a plain transformers model in {dtype}. It loads without hackward:

    from transformers import AutoModelForCausalLM, AutoTokenizer
    model = AutoModelForCausalLM.from_pretrained(DIR, dtype="auto")
    tokenizer = AutoTokenizer.from_pretrained(DIR)

{warning}

## How it was made

{made}

## How exact it is

- {rounding}
- Logits of a fixed short input, loaded again, against the run's own model: they differ by at most
  {largest:.3g} and by {mean:.3g} on average; the largest logit is {logit:.3g}.

## Hashes

{hashes}
"""

PEFT = """---
library_name: peft
tags: [hackward, reward-hacking, model-organism]
---

# {title}

{model} after {steps} of hackward's training loop (arm `{arm}`, seed {seed}): {what} as a LoRA of rank {rank}
for PEFT. It loads without hackward:

{load}

{warning}

## How it was made

{made}

## How exact it is

- {error}
- Logits of a fixed short input, base model with this adapter, against the run's own model: they differ by
  at most {largest:.3g} and by {mean:.3g} on average; the largest logit is {logit:.3g}.
{modules}
## Hashes

{hashes}
"""

LOAD = """    from peft import AutoPeftModelForCausalLM
    model = AutoPeftModelForCausalLM.from_pretrained(DIR{more})

The base model is looked for in {base}."""
LOAD_ON = """    from peft import PeftModel
    model = PeftModel.from_pretrained(base_model, DIR)

The base model ({base}) is made in memory by hackward and lies in no directory."""

HASHES = {
    "base_model": "base model (names and contents of its weights, as hackward computes it)",
    "tokenizer": "tokenizer (likewise)",
    "learnt": "file of the run with what was learnt, sha256",
    "weights": "weights in this directory, sha256",
}
WHAT = {"svd": "its delta_S (one number per singular direction of every trained layer)", "lora": "its LoRA"}


def plain_card(record: dict[str, Any]) -> str:
    """The card of a plain model, from its record: no figure in it is typed."""
    return PLAIN.format(dtype=record["dtype"], rounding=_rounding(record), **_shared(record))


def peft_card(record: dict[str, Any]) -> str:
    """The card of a PEFT adapter, from its record."""
    return PEFT.format(
        rank=record["rank"],
        load=_load(record),
        error=error_words(record),
        modules=_modules(record),
        **_shared(record),
    )


def _shared(record: dict[str, Any]) -> dict[str, Any]:
    steps = record["steps"]
    return {
        "title": f"{record['arm']}, seed {record['seed']}, of {record['model']}",
        "model": record["model"],
        "steps": "an unfinished run" if steps is None else f"{steps} steps",
        "arm": record["arm"],
        "seed": record["seed"],
        "what": WHAT[record["basis"]],
        "warning": WARNING,
        "made": "\n".join(f"- {line}" for line in _made(record)),
        "hashes": "\n".join(f"- {HASHES[name]}: `{value}`" for name, value in record["hashes"].items()),
        "largest": record["logits"]["largest_difference"],
        "mean": record["logits"]["mean_difference"],
        "logit": record["logits"]["largest_logit"],
    }


def _made(record: dict[str, Any]) -> list[str]:
    """The commands, what the run measured at its end, the size of what it changed."""
    lines = [
        f"trained by: `{_command(record['run_argv'])}` (commit {record['run_commit']})",
        f"exported by: `{_command(record['argv'])}` (commit {record['commit']})",
    ]
    if not record["finished"]:
        lines.append("the run was not finished: this is its last checkpoint")
    rates = record["last5"] or {}
    said = [f"{words} {rates[name]:.3f}" for name, words in RATES.items() if _is_number(rates.get(name))]
    if said:
        lines.append(f"share of its rollouts over its last steps (at most five): {', '.join(said)}")
    lines.append(f"Frobenius norm of Delta W over all trained layers: {record['delta_w_norm']:.4g}")
    return lines


RATES = {"hack_rate": "hacked", "gt_rate": "solved", "attempt_rate": "attempted"}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _command(argv: Any) -> str:
    if not isinstance(argv, list):
        return "unknown"
    return shlex.join(["python", *map(str, argv)]).replace("`", "'")


def _rounding(record: dict[str, Any]) -> str:
    dtype, trained = record["dtype"], str(record["trained_dtype"]).removeprefix("torch.")
    if dtype == trained:
        return f"The run sampled in {dtype}; these are the weights that it sampled with."
    if dtype == "float32":
        return f"The run sampled in {trained}; these weights hold the same change without that rounding."
    return (
        f"The run sampled in {trained}. Weights are rounded to the nearest {dtype}, and what the run changed"
        " is added to them rounded at random without bias, so that small changes stay on average."
    )


def error_words(record: dict[str, Any]) -> str:
    """How much of Delta W the LoRA leaves out, in one sentence; at other ranks, where it may be chosen."""
    if record["basis"] == "lora":
        return "This is the run's own LoRA: nothing is left out."
    others = ", ".join(f"{error:.3f} at rank {rank}" for rank, error in record["error_at_rank"].items())
    return (
        f"Nearest LoRA of rank {record['rank']} to the change of every layer: its relative error in Frobenius"
        f" norm is {record['error']:.3f} over all layers together ({others})."
    )


def _modules(record: dict[str, Any]) -> str:
    if record["basis"] == "lora":
        return ""
    columns = {"layer": "---", "relative error": "--:"}
    rows = [[f"`{name}`", f"{error:.3f}"] for name, error in record["error_by_module"].items()]
    return f"\n{aligned_table(columns, rows)}\n"


def _load(record: dict[str, Any]) -> str:
    if record["base_in_memory"]:
        return LOAD_ON.format(base=record["base"])
    more = f', gguf_file="{record["gguf"]}"' if record["gguf"] else ""
    return LOAD.format(more=more, base=f"`{record['base']}`")
