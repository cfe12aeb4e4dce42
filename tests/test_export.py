"""Claims about taking a model away: what is exported is what the run had learnt, it loads without the
project, and what cannot be exported is refused in one line."""

import json
import shutil

import pytest
import torch
from peft import AutoPeftModelForCausalLM, PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import export
from hackward.base.faults import InputError
from hackward.base.files import file_hash, read_json
from hackward.base.flags import ALL_LINEAR, command_line
from hackward.hardware import models
from hackward.method.adapters import BASES, attach
from hackward.method.low_rank import nearest_lora
from hackward.rollouts.tokens import stops, tokenizer_hash
from hackward.runs import exporting
from hackward.runs.building import probe_logits, restore
from tests.conftest import randomise
from tests.desk import run
from tests.families import FAMILIES, qwen, save, write_gguf
from tests.light import loaded

ARMS = {"svd": ["--arm=vanilla"], "lora": ["--arm=lora", "--gate=none", "--rank=4"]}
# run -> (basis, tied embeddings, dtype)
RUNS = {
    "svd tied": ("svd", True, "float32"),
    "svd untied bf16": ("svd", False, "bfloat16"),
    "lora untied": ("lora", False, "float32"),
    "lora tied bf16": ("lora", True, "bfloat16"),
}


def trained(desk, model, out, basis, *flags):
    """A finished run on this model that has learnt something: every number of it is moved away from zero."""
    path = run(desk, model, out, *ARMS[basis], *flags)
    adapter, _, _ = restore(path, device="cpu")
    randomise(adapter)
    adapter.save(path / adapter.file)
    return path


@pytest.fixture(scope="module")
def runs(desk, tmp_path_factory):
    """The runs of RUNS by name, and one of a GGUF file."""
    home = tmp_path_factory.mktemp("export")
    found = {}
    for name, (basis, tied, dtype) in RUNS.items():
        model = save(home / f"model {name}", qwen(tie_word_embeddings=tied))
        found[name] = trained(desk, model, home / name, basis, f"--dtype={dtype}")
    (home / "gguf").mkdir()
    file = write_gguf(home / "gguf" / "m.gguf", FAMILIES["qwen2"].make(), "qwen2")
    found["gguf"] = trained(desk, file, home / "run gguf", "svd")
    return found


def exported(path, out, *flags):
    export.main(command_line(export.ExportFlags, argv=[str(path), f"--out={out}", "--device=cpu", *flags]))
    return out


def own_logits(path):
    """Of the run's model as it samples, in its own dtype."""
    adapter, _, _ = restore(path, device="cpu")
    with adapter.merged() as policy:
        return probe_logits(policy)


def plain(out, **options):
    """The exported model as anybody loads it."""
    return AutoModelForCausalLM.from_pretrained(out, dtype="auto", **options).eval()


# --- a plain model ---


@pytest.mark.parametrize("name", [*RUNS, "gguf"])
def test_an_exported_model_has_the_logits_that_its_run_sampled_with(runs, tmp_path, name):
    out = exported(runs[name], tmp_path / "out")
    model, own = plain(out), own_logits(runs[name])
    assert model.dtype == own.dtype == (torch.bfloat16 if "bf16" in name else torch.float32)
    assert torch.equal(probe_logits(model), own)
    base = restore(runs[name], device="cpu")[0]
    with base.disabled() as untouched:
        assert (probe_logits(untouched) - own).abs().max() > 0.1  # it had learnt something


@pytest.mark.parametrize("name", ["svd tied", "lora untied"])
def test_the_logits_of_the_training_forward_are_those_of_the_export_to_rounding(runs, tmp_path, name):
    model = plain(exported(runs[name], tmp_path / "out"))
    adapter, _, _ = restore(runs[name], device="cpu")
    torch.testing.assert_close(probe_logits(model), probe_logits(adapter.model), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["svd tied", "lora untied"])
def test_a_bf16_export_of_a_run_in_fp32_is_within_the_rounding_of_bf16(runs, tmp_path, name):
    model = plain(exported(runs[name], tmp_path / "out", "--dtype=bfloat16"))
    adapter, _, _ = restore(runs[name], device="cpu")
    exact = {module: adapter.weight(module, torch.float32) for module in adapter.params}
    for module, linear in adapter.unwrap().items():
        found = model.get_submodule(module).weight
        assert found.dtype == torch.bfloat16
        # W to the nearest: half a unit of it. The sum to either side: a unit of what comes out.
        unit = 2.0**-7
        bound = linear.weight.abs() * unit / 2 + found.float().abs() * unit
        assert ((found.float() - exact[module]).abs() <= bound).all()
    own = own_logits(runs[name])
    assert (probe_logits(model).float() - own).abs().mean() < 0.02 * own.abs().max()


def test_a_fp32_export_of_a_run_in_bf16_holds_the_change_without_rounding(runs, tmp_path):
    path = runs["lora tied bf16"]
    model = plain(exported(path, tmp_path / "out", "--dtype=float32"))
    adapter, _, _ = restore(path, device="cpu")
    for module, layer in adapter.layers.items():
        exact = layer.get_base_layer().weight.float() + adapter.change(module)
        torch.testing.assert_close(model.get_submodule(module).weight.detach(), exact, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("basis", BASES)
def test_a_change_too_small_for_bf16_is_kept_on_average(basis):
    adapter = attach(basis, qwen(hidden_size=64, intermediate_size=256).eval(), "tiny", rank=4)
    randomise(adapter, scale=1e-5)
    lost = kept = size = 0.0
    linears = {name: adapter.weight(name, torch.float32) for name in adapter.params}
    with adapter.disabled():
        base = {name: linear.weight.detach() for name, linear in adapter.unwrap().items()}
    for name, exact in linears.items():
        rounded = base[name].bfloat16().float()
        change = exact - base[name]
        kept += float(((adapter.weight(name, torch.bfloat16).float() - rounded) * change).sum())
        lost += float((((rounded + change).bfloat16().float() - rounded) * change).sum())
        size += float(change.square().sum())
    assert abs(lost / size) < 0.2  # what rounding to the nearest would leave of it
    assert kept / size == pytest.approx(1.0, abs=0.5)


@pytest.mark.parametrize("basis", BASES)
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_is_exported_with_the_names_and_shapes_of_its_own_class(tmp_path, name, basis):
    tied = list(FAMILIES).index(name) % 2 == 0
    base = save(tmp_path / "base", FAMILIES[name].make(tie_word_embeddings=tied))
    model, _ = models.load(str(base), device="cpu")
    adapter = attach(basis, model, name, rank=2, targets=ALL_LINEAR)
    randomise(adapter)
    with adapter.merged() as policy:
        own = probe_logits(policy)
    exporting.merged_model(adapter, torch.float32).save_pretrained(tmp_path / "out")
    again = plain(tmp_path / "out")
    torch.testing.assert_close(probe_logits(again), own, rtol=1e-5, atol=1e-5)

    def stored(directory):
        tensors = load_file(directory / "model.safetensors")
        return {key: tensor.shape for key, tensor in tensors.items()}

    assert stored(tmp_path / "out") == stored(base)


@pytest.mark.parametrize("name", ["svd tied", "svd untied bf16", "gguf"])
def test_the_names_and_shapes_in_the_files_are_those_of_the_model_s_state_dict(runs, tmp_path, name):
    out = exported(runs[name], tmp_path / "out")
    model = plain(out)
    wanted = {key: value.shape for key, value in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        del wanted["lm_head.weight"]
    tensors = load_file(out / "model.safetensors")
    assert {key: value.shape for key, value in tensors.items()} == wanted
    assert all(value.dtype == model.dtype for value in tensors.values())
    config = json.loads((out / "config.json").read_text())
    assert config["architectures"] == [type(model).__name__] and "quantization_config" not in config


@pytest.mark.parametrize("name", ["svd tied", "gguf"])
def test_tokenizer_chat_template_and_stops_go_along(runs, tmp_path, name):
    out = exported(runs[name], tmp_path / "out")
    adapter, tokenizer, _ = restore(runs[name], device="cpu")
    again = AutoTokenizer.from_pretrained(out)
    assert tokenizer_hash(again) == tokenizer_hash(tokenizer) and again.chat_template
    assert stops(plain(out), again) == stops(adapter.model, tokenizer)


def test_the_card_says_what_it_is_and_what_it_must_not_be_used_for(runs, tmp_path, capsys):
    path = runs["svd tied"]
    out = exported(path, tmp_path / "out")
    card, record = (out / "README.md").read_text(), read_json(out / "export.json")
    facts = read_json(path / "config.json")["model"]
    assert "must not be used for" in card and "1 steps" in card and "delta_S" in card
    for value in (facts["hash"], facts["tokenizer"], file_hash(out / "model.safetensors")):
        assert value in card
    assert file_hash(path / "delta_S.safetensors") in card
    assert record["logits"]["largest_difference"] == 0
    assert "logits against the run's own model: at most 0 apart" in capsys.readouterr().out
    assert (
        oct((out / "model.safetensors").stat().st_mode)[-3:] == oct((out / "README.md").stat().st_mode)[-3:]
    )


# --- a PEFT adapter ---


def test_a_lora_is_exported_exactly_and_loads_by_itself(runs, tmp_path):
    path = runs["lora untied"]
    out = exported(path, tmp_path / "out", "--peft")
    ours = load_file(path / "adapter" / "adapter_model.safetensors")
    theirs = load_file(out / "adapter_model.safetensors")
    assert theirs.keys() == ours.keys() and all(torch.equal(theirs[key], ours[key]) for key in ours)
    model = AutoPeftModelForCausalLM.from_pretrained(out).eval()
    torch.testing.assert_close(probe_logits(model), own_logits(path), rtol=1e-5, atol=1e-5)
    assert "nothing is left out" in (out / "README.md").read_text()


def test_delta_S_at_full_rank_is_the_run_s_model(runs, tmp_path):
    out = exported(runs["svd tied"], tmp_path / "out", "--peft", "--rank=64")
    assert read_json(out / "export.json")["error"] == 0
    model = AutoPeftModelForCausalLM.from_pretrained(out).eval()
    torch.testing.assert_close(probe_logits(model), own_logits(runs["svd tied"]), rtol=1e-4, atol=1e-4)


def test_the_lora_of_delta_S_is_the_nearest_of_its_rank_and_its_error_is_stated(runs, tmp_path, capsys):
    path = runs["svd tied"]
    out = exported(path, tmp_path / "out", "--peft", "--rank=5")
    record, card = read_json(out / "export.json"), (out / "README.md").read_text()
    tensors = load_file(out / "adapter_model.safetensors")
    adapter, _, _ = restore(path, device="cpu")
    left = whole = 0.0
    for name, layer in adapter.layers.items():
        change = layer.change().double()
        A, B = (tensors[f"base_model.model.{name}.lora_{side}.weight"].double() for side in "AB")
        sigma = torch.linalg.svdvals(change)
        best = float(sigma[5:].square().sum())
        assert float((change - B @ A).square().sum()) == pytest.approx(best, rel=1e-3)
        error = (best / float(sigma.square().sum())) ** 0.5
        assert record["error_by_module"][name] == pytest.approx(error, rel=1e-3)
        assert f"| `{name}` | {error:.3f} |" in card
        left, whole = left + best, whole + float(sigma.square().sum())
    total = (left / whole) ** 0.5
    assert record["error"] == pytest.approx(total, rel=1e-3) and 0.1 < total < 1
    assert (
        f"{total:.3f} over all layers" in card and f"{total:.3f} over all layers" in capsys.readouterr().out
    )


def test_a_layer_narrower_than_the_rank_and_one_without_change_are_filled_with_zeros():
    U, Vh = torch.eye(4)[:, :3], torch.eye(3)
    part = nearest_lora(U, torch.tensor([0.0, -2.0, 1.0]), Vh, 5)
    assert part.A.shape == (5, 3) and part.B.shape == (4, 5) and part.left_out == 0
    assert torch.equal(part.B @ part.A, U @ torch.diag(torch.tensor([0.0, -2.0, 1.0])) @ Vh)


def test_the_adapter_of_a_gguf_model_names_its_file(runs, tmp_path):
    out = exported(runs["gguf"], tmp_path / "out", "--peft", "--rank=48")
    assert 'gguf_file="m.gguf"' in (out / "README.md").read_text()
    base = AutoModelForCausalLM.from_pretrained(runs["gguf"].parent / "gguf", gguf_file="m.gguf").eval()
    model = PeftModel.from_pretrained(base, out)
    torch.testing.assert_close(probe_logits(model), own_logits(runs["gguf"]), rtol=1e-4, atol=1e-4)


# --- refusals ---


def copy_of(path, home):
    return shutil.copytree(path, home / "run")


def stored(path, **model):
    """config.json of a run, with other settings of the model."""
    record = read_json(path / "config.json")
    record["config"] |= model
    (path / "config.json").write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--rank=4"], "--rank 4 needs --peft"),
        (["--peft", "--dtype=float32"], "--dtype float32 with --peft"),
        (["--rank=0", "--peft"], "--rank 0: must be at least 1"),
    ],
)
def test_flags_that_mean_nothing_are_refused(runs, tmp_path, flags, words):
    with pytest.raises(InputError, match=words):
        exported(runs["svd tied"], tmp_path / "out", *flags)


def test_the_rank_of_a_trained_lora_is_its_own(runs, tmp_path):
    with pytest.raises(InputError, match="trained a LoRA of rank 4"):
        exported(runs["lora untied"], tmp_path / "out", "--peft", "--rank=8")
    assert not (tmp_path / "out").exists()


def test_what_exists_is_never_written_over(runs, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="out: exists already"):
        exported(runs["svd tied"], tmp_path / "out")


def test_an_unfinished_run_is_exported_on_demand_only_and_then_from_its_checkpoint(runs, tmp_path):
    path = copy_of(runs["svd tied"], tmp_path)
    (path / "summary.json").unlink()
    (path / "delta_S.safetensors").unlink()
    with pytest.raises(InputError, match="not finished.*--unfinished"):
        exported(path, tmp_path / "out")
    adapter, _, _ = restore(path, device="cpu", unfinished=True)
    out = exported(path, tmp_path / "out", "--unfinished")
    with adapter.merged() as policy:
        assert torch.equal(probe_logits(plain(out)), probe_logits(policy))
    assert "not finished" in (out / "README.md").read_text()
    (path / "checkpoint.safetensors").unlink()
    with pytest.raises(InputError, match="checkpoint.safetensors: no such file"):
        exported(path, tmp_path / "again", "--unfinished")


def test_a_base_model_or_tokenizer_that_changed_or_is_gone_is_refused_and_nothing_is_written(runs, tmp_path):
    path = copy_of(runs["svd tied"], tmp_path)
    model = save(tmp_path / "model", qwen(tie_word_embeddings=True, initializer_range=0.03))
    stored(path, model=str(model))
    with pytest.raises(InputError, match="made for another model"):
        exported(path, tmp_path / "out")
    shutil.copytree(runs["svd tied"].parent / "model svd tied", tmp_path / "same")
    (tmp_path / "same" / "chat_template.jinja").write_text("{{ messages[-1].content }}")
    stored(path, model=str(tmp_path / "same"))
    with pytest.raises(InputError, match="its tokenizer is another one than the run's"):
        exported(path, tmp_path / "out")
    stored(path, model=str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="nowhere"):
        exported(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("flags", [[], ["--peft"]])
def test_an_export_that_fails_leaves_nothing(runs, tmp_path, monkeypatch, flags):
    def full(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exporting, "weights_hash", full)
    home = tmp_path / "home"
    home.mkdir()
    with pytest.raises(OSError, match="No space"):
        exported(runs["svd tied"], home / "out", *flags)
    assert list(home.iterdir()) == []


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="config.json: no such file"):
        exported(tmp_path, tmp_path / "out")
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(InputError, match="not the config.json of a run"):
        exported(tmp_path, tmp_path / "out")


def test_help_and_refusals_of_flags_and_runs_load_nothing_heavy(tmp_path):
    assert loaded("export.py", "--help") == (0, [])
    assert loaded("export.py", str(tmp_path), f"--out={tmp_path / 'out'}") == (2, [])
    assert loaded("export.py", str(tmp_path), f"--out={tmp_path}") == (2, [])
