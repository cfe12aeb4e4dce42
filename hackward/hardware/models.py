"""Loading a causal language model and its tokenizer: hub id, directory, .gguf file, or the tiny random model
of the tests."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from hackward.base.faults import InputError
from hackward.base.files import read_json, sha256
from hackward.base.types import CausalLM, Tokenizer
from hackward.hardware.cores import few_threads
from hackward.hardware.neighbours import enter, patiently
from hackward.tasks.shipped import EMBEDDED, EMBEDDED_HOME, SHAPES, TINY, check_model, is_random

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Of a configuration, what does not change what the model computes from its weights
NOT_SETTINGS = ("transformers_version", "dtype", "use_cache")
GENERATION = "generation_config.json"
DTYPES = {"float32": torch.float32, "tf32": torch.float32, "bfloat16": torch.bfloat16}


def pick_device(name: str = "auto") -> torch.device:
    """cuda where there is one, else the CPU; or the device named."""
    if name == "auto":
        place = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if place.type == "cuda":
            enter(place)
        return place
    try:
        if torch.device(name).type == "cuda" and torch.cuda.is_available():
            enter(torch.device(name))
        place = torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as fault:
        raise InputError(f"--device {name}: not available ({str(fault).splitlines()[0]})") from None
    if place.type == "cuda":
        # CUDA graphs, Triton's kernels and memory statistics all go by the current device
        torch.cuda.set_device(place)
    return place


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """The dtype of a --dtype; "tf32" also lets fp32 matrix products of this process run in TF32, any other
    forbids it."""
    torch.set_float32_matmul_precision("high" if name == "tf32" else "highest")
    if name == "auto":
        name = "bfloat16" if device.type == "cuda" else "float32"
    return DTYPES[name]


def load(name: str, *, dtype: str = "auto", device: str = "auto") -> tuple[CausalLM, Tokenizer]:
    """The frozen model in eval mode on its device, and its tokenizer. Arguments and faults as of `read`."""
    model, tokenizer, place = read(name, dtype=dtype, device=device)
    return settle(model, place, name), tokenizer


def read(name: str, *, dtype: str = "auto", device: str = "auto") -> tuple[CausalLM, Tokenizer, torch.device]:
    """The model as it is read, its tokenizer, and the device that it is for.

    dtype "auto" is bf16 on a GPU and fp32 on a CPU; "tf32" is fp32 with products in TF32, from here on in
    this process. Raises InputError when the model cannot be found or read.
    """
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    place = pick_device(device)
    few_threads(place)
    torch_dtype = pick_dtype(dtype, place)
    # cuDNN's attention makes a plan for every shape it has not seen, a quarter of a second for a forward and
    # a backward at 4B, and micro-batches hardly ever have the same shape twice. PyTorch's own has nothing to
    # plan.
    torch.backends.cuda.enable_cudnn_sdp(False)
    model, tokenizer = _make(name, torch_dtype, place)
    return model, tokenizer, place


def settle(model: CausalLM, place: torch.device, name: str) -> CausalLM:
    """The model on its device, frozen and in eval mode. InputError for weights that are no finite numbers."""
    model = patiently(lambda: model.to(place), place, name).eval().requires_grad_(False)
    check_weights(model, name)
    return fused_norms(model) if place.type == "cuda" else model


def _make(name: str, dtype: torch.dtype, device: torch.device) -> tuple[CausalLM, Tokenizer]:
    if name == TINY:
        model, tokenizer = tiny_random()
        return model.to(dtype), tokenizer
    if is_random(name):
        _, tokenizer = _from_pretrained(EMBEDDED, dtype)
        shape = name.removeprefix("random-")
        return patiently(lambda: random_of(shape, dtype, device), device, name), tokenizer
    return _from_pretrained(name, dtype)


@torch.no_grad()
def check_weights(model: CausalLM, name: str) -> None:
    """InputError where a weight is quantised, or is not a finite number."""
    bounds = []
    weights = list(model.named_parameters())
    for where, weight in weights:
        if weight.dtype not in DTYPES.values():
            raise InputError(
                f"{name}: {where} is stored as {weight.dtype}; quantised weights are not supported, take the"
                " model as it was before (a .gguf file is dequantised as it is read)"
            )
        low, high = torch.aminmax(weight)
        bounds.append(torch.stack([low, high]).float())
    broken = ~torch.stack([bound.isfinite().all() for bound in bounds])
    if not bool(broken.any()):
        return
    where, weight = weights[int(broken.nonzero()[0])]
    nan, infinite = int(weight.isnan().sum()), int(weight.isinf().sum())
    raise InputError(
        f"{name}: {int(broken.sum())} of {len(weights)} weights hold numbers that are NaN or infinite, the"
        f" first is {where} with {nan} NaN and {infinite} infinite ones; the file is damaged, or its numbers"
        f" are too large for {weight.dtype}"
    )


def fused_norms(model: CausalLM) -> CausalLM:
    """Have every RMSNorm computed by PyTorch's own kernel: one pass over the activations instead of six, both
    ways.

    In fp32 inside and rounded once, where transformers rounds twice. `plain_norms` takes it back. A norm that
    by its name is one and computes something else is left alone.
    """
    for module in _norms(model):
        x = module.weight.new_ones(module.weight.shape) / 2
        if torch.allclose(type(module).forward(module, x), _rms_norm(module, x), rtol=0.02):
            module.forward = functools.partial(_rms_norm, module)
    return model


def plain_norms(model: CausalLM) -> CausalLM:
    """The norms as transformers computes them."""
    for module in _norms(model):
        module.__dict__.pop("forward", None)
    return model


def _norms(model: CausalLM) -> list[Any]:
    named = [module for module in model.modules() if type(module).__name__.endswith("RMSNorm")]
    return [module for module in named if hasattr(module, "variance_epsilon")]


def _rms_norm(module: Any, x: torch.Tensor) -> torch.Tensor:
    return F.rms_norm(x, module.weight.shape, module.weight, module.variance_epsilon)


def _from_pretrained(name: str, dtype: torch.dtype) -> tuple[CausalLM, Tokenizer]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path, source, where = _found(name)
    check_model(str(path))
    if (path / GENERATION).is_file():
        # transformers passes a damaged one over without a word, and with it tokens that end an answer; a byte
        # order mark is damage to it
        read_json(path / GENERATION, encoding="utf-8")
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **where)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source, dtype=dtype, output_loading_info=True, **where
        )
    except (
        Exception
    ) as fault:  # transformers raises many kinds: OSError, ValueError, KeyError, ImportError, hub's
        reason = str(fault).strip().splitlines() or [type(fault).__name__]
        raise InputError(f"{path}: model cannot be loaded ({reason[0]})") from None
    model, told = loaded
    missing = sorted(told["missing_keys"])
    if missing:
        raise InputError(
            f"{path}: {len(missing)} weights of {type(model).__name__} are not in its files and would be"
            f" random ({missing[0]}{', ...' if len(missing) > 1 else ''})"
        )
    check_ends(model, path)
    return model, tokenizer


def check_ends(model: CausalLM, path: Path) -> None:
    """InputError where what a model says of the tokens that end a text is no token id, and no list of
    them."""
    ends = getattr(model.generation_config, "eos_token_id", None)
    for end in ends if isinstance(ends, list) else [ends]:
        if end is not None and type(end) is not int:
            raise InputError(f"{path}: eos_token_id ({GENERATION}) is {ends!r}, expected token ids")


def _found(name: str) -> tuple[Path, str, dict[str, Any]]:
    """(the name as a path, the name that transformers takes, the arguments that it wants beside it)"""
    path = EMBEDDED_HOME / "model" if name == EMBEDDED else Path(name)
    if path.suffix == ".gguf":
        return path, str(path.parent), {"gguf_file": path.name}
    return path, str(path), {}


def by_shapes(name: str) -> CausalLM:
    """A model on the device "meta". Raises what transformers makes of a name that it does not find here."""
    from transformers import AutoConfig, AutoModelForCausalLM

    _, source, where = _found(name)
    config = AutoConfig.from_pretrained(source, local_files_only=True, **where)
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def random_of(shape: str, dtype: torch.dtype, device: torch.device) -> CausalLM:
    """A Qwen3 model of one of SHAPES with random weights, made where it will run."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    sizes: dict[str, Any] = SHAPES[shape]
    config = Qwen3Config(vocab_size=151936, tie_word_embeddings=True, **sizes)
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device, torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(0)
            return Qwen3ForCausalLM(config)
    finally:
        torch.set_default_dtype(default)


def tiny_random(seed: int = 0) -> tuple[CausalLM, Tokenizer]:
    """A Qwen3-architecture model of 0.1 M random parameters with a byte-level tokenizer, made in memory.

    It cannot write code. It runs every path of the program in seconds; nothing it prints is a finding.
    """
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<|im_start|>", "<|im_end|>", "<|pad|>"]
    vocabulary = {token: i for i, token in enumerate(alphabet + special)}
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="<|im_end|>",
        pad_token="<|pad|>",
        additional_special_tokens=special[:1],
    )
    tokenizer.chat_template = CHATML
    config = Qwen3Config(
        vocab_size=len(alphabet) + len(special),
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=12,
        intermediate_size=96,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        initializer_range=0.15,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3ForCausalLM(config)
    return model, tokenizer


def settings_hash(model: CausalLM) -> str:
    """Of what a model's configuration says beside its weights: scales, rotations, tokens that end a text."""
    said = []
    for config in (model.config, model.generation_config):
        own = config.to_diff_dict()
        said.append({key: value for key, value in own.items() if key not in NOT_SETTINGS and key[0] != "_"})
    return sha256(json.dumps(said, sort_keys=True, default=str))[:16]
