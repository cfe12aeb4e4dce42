"""Steps of TRL's GRPOTrainer with PEFT's LoRA, timed from outside. The only module that imports trl."""

from __future__ import annotations

import dataclasses
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import torch

from hackward.base.types import CausalLM
from hackward.benchmarks.alone import tell
from hackward.benchmarks.continuous import attending, room
from hackward.benchmarks.exact import ENOUGH, earned, prompt_of
from hackward.benchmarks.flags import BenchFlags, peer_sizes_of
from hackward.benchmarks.parts import GROUP, Bench, peak_gb, timed
from hackward.hardware.cards import visible_cards
from hackward.hardware.models import plain_norms
from hackward.method.targets import target_linears

# What is timed of the trainer, and its name in the table.
GENERATE, REWARD, PREPARE, TRAIN = (
    "_generate_single_turn",
    "_calculate_rewards",
    "_prepare_inputs",
    "training_step",
)
RATE = 1e-6  # of learning: any costs the same


class Watch:
    """Seconds inside of an object's methods, from an idle GPU to an idle GPU."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.monotonic()

    def over(self, owner: Any, name: str) -> None:
        """Time every call of this method from here on."""
        method: Callable = getattr(owner, name)

        def watched(*parts: Any, **options: Any) -> Any:
            started = self.now()
            try:
                return method(*parts, **options)
            finally:
                self.seconds[name] += self.now() - started

        setattr(owner, name, watched)


def rank_like(model: CausalLM, ours: int) -> int:
    """The rank at which a LoRA that trains A and B has about as many numbers as one of rank `ours` that
    trains B alone; at least 1."""
    linears = [linear for _, linear in target_linears(model)]
    a_rank = sum(linear.in_features + linear.out_features for linear in linears)
    numbers = ours * sum(linear.out_features for linear in linears)
    return max(1, round(numbers / a_rank))


def longest_of(config: BenchFlags) -> int:
    """Tokens of the longest row, prompt and completion."""
    sizes = peer_sizes_of(config)
    numbers = range(config.steps * sizes.peer_prompts)
    return sizes.peer_tokens + max(len(prompt_of(i, 2, sizes.peer_tokens)) for i in numbers)


def rows_at_once(count: int, longest: int, tokens: int) -> int:
    """The largest part of `count` rows, without a remainder, that has no more padded tokens than this."""
    fitting = [rows for rows in range(1, count + 1) if not count % rows and rows * longest <= tokens]
    return max(fitting, default=1)


def trl_steps(b: Bench, continuous: bool, ours: int, rows: int) -> dict:
    """Set up the trainer with a LoRA like ours of rank `ours` and train: a step's phases, memory, set-up.

    `rows` are those of a micro-batch; with `continuous` transformers' continuous batching draws. Raises
    whatever TRL raises. A process that has loaded CUDA before may see too many cards: see `one_card`.
    """
    b = one_card(b)
    tell("importing TRL")
    # All that is imported, before the clock runs: trl loads a name's module when it is asked for the name.
    import datasets
    import peft
    import trl
    from huggingface_hub import constants

    _ = (trl.GRPOTrainer, trl.GRPOConfig, peft.LoraConfig, datasets.Dataset)
    constants.HF_HUB_DISABLE_TELEMETRY = True  # the trainer tells its makers of each use
    datasets.disable_progress_bars()
    tell("loading the model")
    model, tokenizer = b.load()
    # As PyTorch ships it, and as transformers computes norms: loading changes both for our own runs.
    torch.backends.cuda.enable_cudnn_sdp(True)
    plain_norms(model)
    sizes = peer_sizes_of(b.config)
    prompts = b.config.steps * sizes.peer_prompts
    ids = [list(prompt_of(i, model.config.vocab_size, sizes.peer_tokens)) for i in range(prompts)]
    watch = Watch(b.device)
    steps: list[dict] = []
    began: list[float] = []
    with tempfile.TemporaryDirectory() as directory:
        made = watch.now()
        tell("making the trainer")
        trainer = _trainer(trl, b, model, tokenizer, ids, directory, continuous, ours, rows)
        for name in (GENERATE, REWARD, PREPARE, TRAIN):
            watch.over(trainer, name)
        with attending(model) as attention:

            def found() -> dict:
                return {
                    "trainable": sum(p.numel() for p in trainer.model.parameters() if p.requires_grad),
                    "rank": trainer.model.peft_config["default"].r,
                    "rows_at_once": rows,
                    "attention": " and ".join(sorted(attention)),
                    "seconds_set_up": began[0] - made,
                    "steps": steps,
                    "peak_gb": peak_gb(b.device),
                    "version": trl.__version__,
                }

            trainer.add_callback(_recorder(watch, steps, began, trainer, found))
            tell("preparing to train")
            timed(trainer.train, b.device)
    return found()


def one_card(b: Bench) -> Bench:
    """The bench in a process that sees its card alone: TRL refuses to train where there are more.

    Must come before CUDA is first asked for anything.
    """
    if not b.on_gpu:
        return b
    os.environ["CUDA_VISIBLE_DEVICES"] = visible_cards()[b.device.index or 0]
    config = dataclasses.replace(b.config, device="cuda")
    return dataclasses.replace(b, config=config, device=torch.device("cuda", 0))


def _trainer(
    trl: Any,
    b: Bench,
    model: CausalLM,
    tokenizer: Any,
    ids: list[list[int]],
    directory: str,
    continuous: bool,
    ours: int,
    rows: int,
) -> Any:
    """The trainer: prompts by number, nothing ends early, rewards at once."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers.trainer_callback import PrinterCallback

    class Trainer(trl.GRPOTrainer):
        def _tokenize_prompts(self, prompts: list[str]) -> tuple[list[list[int]], None, dict]:
            return [ids[int(prompt)] for prompt in prompts], None, {}

    rank = rank_like(model, ours)
    names = [name for name, _ in target_linears(model)]
    trainer = Trainer(
        model=model,
        reward_funcs=_paid,
        args=trl.GRPOConfig(**_settings(b, model, directory, continuous, rows)),
        train_dataset=Dataset.from_dict({"prompt": [str(i) for i in range(len(ids))]}),
        processing_class=tokenizer,
        peft_config=LoraConfig(r=rank, lora_alpha=rank, target_modules=names, task_type="CAUSAL_LM"),
    )
    trainer.eos_token_ids = [-1]  # else it cuts completions at a token that came by chance
    trainer.remove_callback(PrinterCallback)  # it prints what is logged where there is no bar
    return trainer


def _settings(b: Bench, model: CausalLM, directory: str, continuous: bool, rows: int) -> dict[str, Any]:
    """What differs from TRL's own defaults: sizes, our loss, no checkpointing of activations, no logs."""
    sizes = peer_sizes_of(b.config)
    count = sizes.peer_prompts * GROUP
    pages = room(model, count, longest_of(b.config)) if continuous else None
    return {
        "output_dir": directory,
        "max_steps": b.config.steps,
        "num_generations": GROUP,
        "per_device_train_batch_size": rows,
        "gradient_accumulation_steps": count // rows,
        "max_completion_length": sizes.peer_tokens,
        "generation_kwargs": {"eos_token_id": -1},
        "use_transformers_continuous_batching": continuous,
        "transformers_continuous_batching_config": pages,
        "temperature": 1.0,
        "beta": 0.0,
        "loss_type": "dr_grpo",
        "scale_rewards": "none",
        "learning_rate": RATE,
        "shuffle_dataset": False,
        "gradient_checkpointing": False,
        "bf16": model.dtype == torch.bfloat16,
        "use_cpu": not b.on_gpu,
        "report_to": "none",
        "logging_strategy": "no",
        "save_strategy": "no",
        "disable_tqdm": True,
    }


def _paid(completion_ids: list[list[int]], **rest: Any) -> list[float]:
    """Rewards that differ within every group, in no time."""
    return [float(earned(i % GROUP)) for i in range(len(completion_ids))]


def _recorder(
    watch: Watch, steps: list[dict], began: list[float], trainer: Any, found: Callable[[], dict]
) -> Any:
    """A callback that adds a step's phases to `steps`, and when it began to `began`.

    What rewards took is in none of them. It tells which step begins, and what was `found` once there are
    enough of them.
    """
    from transformers import TrainerCallback

    drawn: list[int] = []
    draw = getattr(trainer, GENERATE)

    def counted(*parts: Any, **options: Any) -> Any:
        completions, logps = draw(*parts, **options)
        drawn.append(sum(map(len, completions)))
        tell(_place(steps, trainer.args.max_steps, "training"))
        return completions, logps

    setattr(trainer, GENERATE, counted)

    class Recorder(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            watch.seconds.clear()
            drawn.clear()
            place = _place(steps, args.max_steps, "drawing")
            tell(place, found() if len(steps) >= ENOUGH else None)
            self.began = watch.now()

        def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            spent, whole = watch.seconds, watch.now() - self.began
            began.append(self.began)
            steps.append({"completion_tokens": sum(drawn), **phases(whole, spent)})

    return Recorder()


def _place(steps: list[dict], of: int, doing: str) -> str:
    """What the step after these is doing, and what one of these took."""
    taken = f" ({statistics.median(step['seconds'] for step in steps):.3g} s per step)" if steps else ""
    return f"step {len(steps) + 1} of {of}, {doing}{taken}"


def phases(whole: float, spent: Mapping[str, float]) -> dict[str, float]:
    """A step's seconds by phase, from the seconds inside of the trainer's methods.

    The forward and backward are what training_step does beside preparing its inputs; preparing them is
    drawing, rewards and scoring.
    """
    whole -= spent[REWARD]
    backward = spent[TRAIN] - spent[PREPARE]
    return {
        "seconds": whole,
        "seconds_generate": spent[GENERATE],
        "seconds_backward": backward,
        "seconds_rest": whole - spent[GENERATE] - backward,
    }
