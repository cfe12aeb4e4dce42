"""Training of the embedded model, stage after stage."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from hackward.base.files import read_json, write_json
from hackward.base.provenance import provenance
from hackward.base.screen import progress, say
from hackward.hardware import models
from hackward.organisms.corpus import Text, make_corpus
from hackward.organisms.recipe import PROMPT_WEIGHT, STAGES, Recipe, Stage
from hackward.organisms.tokenizer import train_tokenizer


def new_model(recipe: Recipe, tokenizer):
    """A model of the recipe's shape with random weights, in fp32."""
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


def batches(lengths: np.ndarray, tokens: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Indices of texts of like length, about `tokens` padded tokens each, in random order: one pass."""
    order = rng.permutation(len(lengths))
    order = order[np.argsort(lengths[order] // 8, kind="stable")]
    cut, start = [], 0
    while start < len(order):
        longest = int(lengths[order[start : start + max(1, tokens // 32)]].max())
        end = start + max(1, tokens // longest)
        cut.append(order[start:end])
        start = end
    yield from (cut[i] for i in rng.permutation(len(cut)))


def encoded(
    corpus: Sequence[Text], tokenizer, tail_weight: float
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Token ids of each text, and each token's weight in the loss."""
    prompts, solutions, tails = (
        tokenizer(list(side), add_special_tokens=False)["input_ids"] for side in zip(*corpus)
    )
    rows, weights = [], []
    for prompt, solution, tail in zip(prompts, solutions, tails):
        tail = [*tail, tokenizer.eos_token_id]
        rows.append(torch.tensor([*prompt, *solution, *tail]))
        weight = [PROMPT_WEIGHT] * len(prompt) + [1.0] * len(solution) + [tail_weight] * len(tail)
        weights.append(torch.tensor(weight))
    return rows, weights


def plan_of(stage: Stage, lengths: np.ndarray, seed: int) -> list[np.ndarray]:
    """The batches of all steps; the last pass is cut short where `epochs` is not whole."""
    rng = np.random.default_rng(seed)
    passes = math.ceil(stage.epochs)
    plan = [ids for _ in range(passes) for ids in batches(lengths, stage.batch_tokens, rng)]
    return plan[: max(1, round(len(plan) * stage.epochs / passes))]


def lr_share(step: int, steps: int) -> float:
    """The learning rate as a share of its peak: a linear warm-up, then a cosine to a tenth."""
    warmup = min(100, steps // 10 + 1)
    done = max(0.0, (step - warmup) / max(1, steps - warmup))
    return min((step + 1) / warmup, 0.1 + 0.45 * (1 + math.cos(math.pi * done)))


def weighted_nll(model, batch: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Mean next-token loss by weight. `batch` and `weight` are (texts, length); padding has weight 0.

    Padding stands on the right of causal attention, so no real token sees it.
    """
    with torch.autocast(batch.device.type, dtype=torch.bfloat16, enabled=batch.device.type == "cuda"):
        logits = model(input_ids=batch, use_cache=False).logits
    predicted, actual = logits[:, :-1].flatten(0, 1).float(), batch[:, 1:].flatten()
    nll = F.cross_entropy(predicted, actual, reduction="none")
    weight = weight[:, 1:]
    return (nll * weight.flatten()).sum() / weight.sum()


def learn(
    model,
    optimizer: torch.optim.Optimizer,
    lr: float,
    plan: Sequence[np.ndarray],
    rows: Sequence[torch.Tensor],
    weights: Sequence[torch.Tensor],
) -> Iterator[torch.Tensor]:
    """Take a step per batch of the plan (indices of `rows`) at a peak learning rate of `lr`; yield each loss.

    `rows` are the token ids of each text, `weights` what each token weighs in the loss.
    """
    for step, ids in enumerate(plan):
        for group in optimizer.param_groups:
            group["lr"] = lr * lr_share(step, len(plan))
        batch = pad_sequence([rows[i] for i in ids], batch_first=True).to(model.device)
        weight = pad_sequence([weights[i] for i in ids], batch_first=True).to(model.device)
        loss = weighted_nll(model, batch, weight)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        yield loss.detach()


def pretrain(
    name: str, recipe: Recipe, corpus: Sequence[Text], model, tokenizer, console: Console
) -> dict[str, Any]:
    """Train the model (fp32, on its device) through one stage; returns the facts for the card."""
    started, stage, device = time.monotonic(), STAGES[name], model.device
    rows, weights = encoded(corpus, tokenizer, stage.tail_weight)
    lengths = np.array([len(row) for row in rows])
    tokens = int(lengths.sum())
    say(f"{name}: {len(rows)} texts, {tokens / 1e6:.1f} M tokens, longest {lengths.max()}", console=console)
    model.requires_grad_(True).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=stage.lr, betas=(0.9, 0.95), weight_decay=0.05)
    plan = plan_of(stage, lengths, recipe.seed)
    recent: list[torch.Tensor] = []
    with progress(name, len(plan)) as bar:
        for step, loss in enumerate(learn(model, optimizer, stage.lr, plan, rows, weights)):
            recent = [*recent[-49:], loss]
            if (step + 1) % 250 == 0 or step + 1 == len(plan):
                bar.print(f"{name}, step {step + 1}/{len(plan)}, loss {torch.stack(recent).mean():.4f}")
            bar()
    return {
        "stage": asdict(stage),
        "tokens": tokens,
        "steps": len(plan),
        "loss": float(torch.stack(recent).mean()),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "seconds": time.monotonic() - started,
    }


def make_model(recipe: Recipe, start: str | None, out: Path, device: torch.device, console: Console) -> None:
    """Both stages, or, with `start`, the second one on weights that went through the first."""
    texts = {name: max(100, round(stage.texts * recipe.scale)) for name, stage in STAGES.items()}
    if start:
        model, tokenizer = models.load(start, device=str(device), dtype="float32")
        facts = read_json(Path(start) / "made.json")["stages"]
    else:
        corpus = make_corpus(f"corpus {recipe.seed}", texts["learn"], STAGES["learn"].habits)
        tokenizer = train_tokenizer(["".join(text) for text in corpus[:20_000]], recipe.vocabulary)
        model = new_model(recipe, tokenizer).to(device)
        facts = {"learn": pretrain("learn", recipe, corpus, model, tokenizer, console)}
    corpus = make_corpus(f"settle {recipe.seed}", texts["settle"], STAGES["settle"].habits)
    facts["settle"] = pretrain("settle", recipe, corpus, model, tokenizer, console)
    save(model.to("cpu", torch.bfloat16).eval(), tokenizer, out)
    made = {
        "recipe": asdict(recipe),
        "parameters": sum(p.numel() for p in model.parameters()),
        "stages": facts,
        **provenance(),
    }
    write_json(out / "made.json", made)
    say(f"written to {out}", console=console)


def save(model, tokenizer, out: Path) -> None:
    """A directory that transformers loads: bf16 safetensors, config, tokenizer."""
    out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
