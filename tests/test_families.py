"""Every family of models that people have: extracted from, sampled, trained, its gradients those of one
rollout each."""

import pytest
import torch

from hackward.base.files import ROOT, read_json
from hackward.base.flags import ALL_LINEAR
from hackward.hardware import models
from hackward.method import gradients
from hackward.method.adapters import BASES, attach
from tests.desk import extract, run
from tests.families import FAMILIES, save, table, write_gguf

GGUF = {"llama": {}, "qwen2": {}, "qwen3": {"head_dim": 128}, "phi3": {}}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_is_extracted_from_and_trained(desk, tmp_path, name):
    tied = list(FAMILIES).index(name) % 2 == 0
    model = save(tmp_path / "model", FAMILIES[name].make(tie_word_embeddings=tied))
    v = extract(desk, model, tmp_path / "v.safetensors", f"--targets={ALL_LINEAR}")
    out = run(desk, model, tmp_path / "run", f"--targets={ALL_LINEAR}", "--arm=projected", f"--v-hack={v}")
    facts = read_json(out / "config.json")["model"]
    assert facts["identity"] == 0 and read_json(out / "summary.json")["finished"]
    experts = name == "mixtral" or name.endswith("_moe")
    assert (facts["trained_share"] == 1) != experts


@pytest.mark.parametrize("basis", BASES)
@pytest.mark.parametrize("name", FAMILIES)
def test_a_batch_gives_each_rollout_the_gradient_that_it_has_alone(name, basis, rows):
    adapter = attach(basis, FAMILIES[name].make().eval(), name, rank=2, targets=ALL_LINEAR)
    with torch.no_grad():
        for p in adapter.params.values():
            p.add_(0.01)

    def found(tokens):
        weights = torch.ones(len(rows))
        return gradients.of_samples(adapter, rows, weights, weights, pad=0, tokens=tokens, temperature=1.0)

    alone, together = found(1), found(10_000)
    for module, gradient in alone.items():
        torch.testing.assert_close(together[module], gradient, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("name", GGUF)
def test_a_gguf_file_is_the_model_that_it_was_written_from(tmp_path, name, tied):
    model = FAMILIES[name].make(tie_word_embeddings=tied, **GGUF[name]).eval()
    loaded, _ = models.load(str(write_gguf(tmp_path / "m.gguf", model, name)), device="cpu")
    ids = torch.arange(3, 40)[None]
    torch.testing.assert_close(
        loaded(input_ids=ids).logits, model(input_ids=ids).logits, atol=1e-4, rtol=1e-4
    )


def test_a_gguf_file_is_trained(desk, tmp_path):
    model = write_gguf(tmp_path / "m.gguf", FAMILIES["qwen2"].make(), "qwen2")
    out = run(desk, model, tmp_path / "run")
    assert read_json(out / "summary.json")["finished"]


def test_the_table_of_families_is_what_the_command_prints():
    text = (ROOT / "spec" / "models.md").read_text(encoding="utf-8")
    assert "\n".join(table()) in text
