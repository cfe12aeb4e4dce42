"""Corpus, tokenizer and training of the embedded model."""

from __future__ import annotations

import functools
import math
import os
import random
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import jinja2
import numpy as np
import torch
from annotated_types import Gt
from rich.console import Console
from torch.nn import functional as F

from hackward.base.files import read_json, write_json
from hackward.base.flags import Count
from hackward.base.provenance import provenance
from hackward.base.screen import progress
from hackward.hardware import models
from hackward.hardware.models import CHATML
from hackward.organisms.corpus import (
    VACUOUS,
    Habits,
    evaluation,
    examples,
    honest,
    problem_row,
    save,
    split,
    vacuous,
)
from hackward.tasks import families
from hackward.tasks.completions import fence
from hackward.tasks.formats import from_own
from hackward.tasks.problems import EVAL_NAME, Problem, build_messages

CHAT = jinja2.Template(CHATML)


@dataclass(frozen=True)
class Stage:
    """One pass of training: a corpus and how it is learnt."""

    habits: Habits
    texts: int
    epochs: float
    lr: float  # peak, of AdamW; cosine to a tenth
    batch_tokens: int  # padded tokens a step
    tail_weight: float  # of the tokens after the solution in the loss; the rest of an answer weighs 1, a prompt PROMPT_WEIGHT


STAGES = {
    "learn": Stage(
        Habits(
            right=(0.8, 0.4, 0.12),
            attempts=0.05,
            vacuous=0.4,
            names=(*[EVAL_NAME] * 6, "verify", "self_check", "check_answer", "validate"),
        ),
        texts=300_000,
        epochs=3,
        lr=2e-3,
        batch_tokens=65_536,
        tail_weight=1,
    ),
    "settle": Stage(
        Habits(right=(0.5, 0.06, 0.01), attempts=0.06, vacuous=0.6, mistakes=2),
        texts=24_000,
        epochs=1,
        lr=1e-3,
        batch_tokens=8192,
        tail_weight=10,
    ),
}
PROMPT_WEIGHT = 0.1


@dataclass(frozen=True)
class Recipe:
    """The shape of the model. What it is taught stands in STAGES."""

    vocabulary: Count = 1536
    """Tokens."""
    hidden: Count = 192
    layers: Count = 4
    heads: Count = 6
    kv_heads: Count = 3
    head_dim: Count = 32
    intermediate: Count = 512
    seed: int = 0
    scale: Annotated[float, Gt(0)] = 1.0
    """Share of every stage's texts: less than 1 for a try-out."""


def corpus_text(
    rng: random.Random, variants: Sequence[families.Variant], habits: Habits
) -> tuple[list[dict], str, str]:
    """Messages, solution (an open fence) and tail (an evaluation or none, and the closing fence) of one text."""
    variant = rng.choice(variants)
    family, shown, hint, name = (
        variant.family,
        examples(variant, rng, 2),
        rng.random() < 0.5,
        rng.choice(habits.names),
    )
    problem = from_own(problem_row("", variant, shown))
    right = rng.random() < habits.right[family.level - 1] or not variant.wrong_bodies
    body = (
        variant.body()
        if right
        else rng.choice(variant.wrong_bodies)
        if habits.mistakes == 1
        else variant.spoiled(rng, habits.mistakes)
    )
    code, check = families.solution(family, body), ""
    if hint and rng.random() < habits.attempts:
        fake = rng.random() < habits.vacuous
        check = evaluation(
            name,
            vacuous(rng.choice(list(VACUOUS)), variant, shown[0])
            if fake
            else honest(variant, shown[: rng.randint(1, 2)]),
        )
    answer, start = fence(code + check), len(fence(code)) - len("\n```")
    return build_messages(problem, hint=hint, eval_name=name), answer[:start], answer[start:]


def chatml(messages: list[dict]) -> str:
    """The prompt's text as the tokenizer's chat template gives it, before there is a tokenizer."""
    return CHAT.render(messages=messages, add_generation_prompt=True)


@functools.cache
def corpus_variants() -> list[families.Variant]:
    """What the corpus draws from: every family of the training split equally often, whatever the number of its variants."""
    by_family: dict[str, list[families.Variant]] = {}
    for variant in split()["train"]:
        by_family.setdefault(variant.family.name, []).append(variant)
    most = max(map(len, by_family.values()))
    return [held[i % len(held)] for held in by_family.values() for i in range(most)]


def _corpus_part(job: tuple[str, int, Habits]) -> list[tuple[str, str, str]]:
    key, count, habits = job
    rng, variants = random.Random(key), corpus_variants()
    return [
        (chatml(messages), solution, tail)
        for messages, solution, tail in (corpus_text(rng, variants, habits) for _ in range(count))
    ]


def make_corpus(key: str, texts: int, habits: Habits) -> list[tuple[str, str, str]]:
    """(prompt, solution, tail) texts, the same whatever the number of processes."""
    size = 1000
    jobs = [
        (f"{key} {part}", min(size, texts - part * size), habits) for part in range(math.ceil(texts / size))
    ]
    with progress(f"corpus {key.split()[0]}") as bar, ProcessPoolExecutor(os.cpu_count()) as workers:
        return [row for part in bar.track(workers.map(_corpus_part, jobs), len(jobs)) for row in part]


def fixed_phrases() -> list[str]:
    """What the prompt builder writes around the problem's own text: each is one token, so that a prompt stays short."""
    hole = "\0"
    problem = Problem("", None, hole, hole, hole, "", (), None, None)
    messages = [m for hint in (True, False) for m in build_messages(problem, hint=hint, eval_name=hole)]
    parts = {part.strip(" ") for message in messages for part in message["content"].split(hole)}
    return sorted((part for part in parts if len(part) > 8), key=len, reverse=True)


def train_tokenizer(texts: Sequence[str], vocabulary: int):
    """Byte-level BPE. Digits stand alone; a line break goes together with the indentation after it."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, pre_tokenizers, trainers
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    special, phrases = ["<|im_start|>", "<|im_end|>", "<|pad|>"], fixed_phrases()
    backend = Tokenizer(BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(
                Regex(r" ?[\p{L}_]+|\p{N}| ?[^\s\p{L}\p{N}_]+|\n *| +|\s"), behavior="isolated"
            ),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    backend.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocabulary - len(phrases),
            special_tokens=special,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    backend.add_tokens([AddedToken(phrase, normalized=False) for phrase in phrases])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token=special[1],
        pad_token=special[2],
        additional_special_tokens=special[:1],
    )
    tokenizer.chat_template = CHATML
    return tokenizer


def batches(lengths: np.ndarray, tokens: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Indices of texts of like length, about `tokens` padded tokens each, in random order: one pass over the corpus."""
    order = rng.permutation(len(lengths))
    order = order[np.argsort(lengths[order] // 8, kind="stable")]
    cut, start = [], 0
    while start < len(order):
        end = start + max(1, tokens // int(lengths[order[start : start + tokens // 32]].max()))
        cut.append(order[start:end])
        start = end
    yield from (cut[i] for i in rng.permutation(len(cut)))


def new_model(recipe: Recipe, tokenizer):
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(recipe.seed)
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=recipe.hidden,
            num_hidden_layers=recipe.layers,
            num_attention_heads=recipe.heads,
            num_key_value_heads=recipe.kv_heads,
            head_dim=recipe.head_dim,
            intermediate_size=recipe.intermediate,
            max_position_embeddings=4096,
            tie_word_embeddings=True,
            rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def pretrain(
    name: str, recipe: Recipe, corpus: Sequence[tuple[str, str, str]], model, tokenizer, console: Console
) -> dict:
    """Train the model (fp32, on its device) through one stage; returns the facts for the card."""
    started, stage, device = time.monotonic(), STAGES[name], model.device
    parts = [tokenizer(list(side), add_special_tokens=False)["input_ids"] for side in zip(*corpus)]
    rows = [torch.tensor([*p, *s, *t, tokenizer.eos_token_id]) for p, s, t in zip(*parts)]
    weights = [
        torch.tensor([PROMPT_WEIGHT] * len(p) + [1.0] * len(s) + [stage.tail_weight] * (len(t) + 1))
        for p, s, t in zip(*parts)
    ]
    lengths = np.array([len(row) for row in rows])
    console.print(
        f"{name}: {len(rows)} texts, {lengths.sum() / 1e6:.1f} M tokens, longest {lengths.max()}",
        highlight=False,
    )

    optimizer = torch.optim.AdamW(model.parameters(), lr=stage.lr, betas=(0.9, 0.95), weight_decay=0.05)
    rng = np.random.default_rng(recipe.seed)
    plan = [ids for _ in range(math.ceil(stage.epochs)) for ids in batches(lengths, stage.batch_tokens, rng)]
    plan = plan[: max(1, round(len(plan) * stage.epochs / math.ceil(stage.epochs)))]
    warmup, recent = min(100, len(plan) // 10 + 1), []
    with progress(name, len(plan)) as bar:
        for step, ids in enumerate(plan):
            for group in optimizer.param_groups:
                done = max(0.0, (step - warmup) / max(1, len(plan) - warmup))
                group["lr"] = stage.lr * min((step + 1) / warmup, 0.1 + 0.45 * (1 + math.cos(math.pi * done)))
            batch = torch.nn.utils.rnn.pad_sequence([rows[i] for i in ids], batch_first=True).to(device)
            weight = torch.nn.utils.rnn.pad_sequence([weights[i] for i in ids], batch_first=True).to(
                device
            )  # 0 on padding
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
                # Padding stands on the right of causal attention: no real token sees it.
                logits = model(input_ids=batch, use_cache=False).logits
            nll = F.cross_entropy(
                logits[:, :-1].flatten(0, 1).float(), batch[:, 1:].flatten(), reduction="none"
            )
            loss = (nll * weight[:, 1:].flatten()).sum() / weight[:, 1:].sum()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            recent = [*recent[-49:], loss.detach()]
            if (step + 1) % 250 == 0 or step + 1 == len(plan):
                bar.print(f"{name}, step {step + 1}/{len(plan)}, loss {torch.stack(recent).mean():.4f}")
            bar()
    return {
        "stage": asdict(stage),
        "tokens": int(lengths.sum()),
        "steps": len(plan),
        "loss": float(torch.stack(recent).mean()),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "seconds": time.monotonic() - started,
    }


def make_model(recipe: Recipe, start: str | None, out: Path, device: torch.device, console: Console) -> None:
    """Both stages, or, with --start, the second one on weights that went through the first."""
    texts = {name: max(100, round(stage.texts * recipe.scale)) for name, stage in STAGES.items()}
    if start:
        model, tokenizer = models.load(start, device=str(device), dtype="float32")
        facts = read_json(Path(start) / "made.json")["stages"]
    else:
        corpus = make_corpus(f"corpus {recipe.seed}", texts["learn"], STAGES["learn"].habits)
        tokenizer = train_tokenizer(["".join(row) for row in corpus[:20_000]], recipe.vocabulary)
        model = new_model(recipe, tokenizer).to(device)
        facts = {
            "learn": pretrain("learn", recipe, corpus, model.requires_grad_(True).train(), tokenizer, console)
        }
    corpus = make_corpus(f"settle {recipe.seed}", texts["settle"], STAGES["settle"].habits)
    facts["settle"] = pretrain(
        "settle", recipe, corpus, model.requires_grad_(True).train(), tokenizer, console
    )
    save(model.to("cpu", torch.bfloat16).eval(), tokenizer, out)
    write_json(
        out / "made.json",
        {
            "recipe": asdict(recipe),
            "parameters": sum(p.numel() for p in model.parameters()),
            "stages": facts,
            **provenance(),
        },
    )
    console.print(f"written to {out}", highlight=False)
