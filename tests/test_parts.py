"""What a model is beside its weights is looked at wherever a run's model is taken up again, and what it says
of its ends is believed only where it can be read."""

from __future__ import annotations

import shutil

import pytest

import evaluate
import probe_distill
import train
from hackward.base.faults import InputError
from hackward.base.files import read_json, write_json
from hackward.runs.settings import parse
from hackward.tasks.shipped import EMBEDDED_HOME
from tests.shop import SHORT, run_train
from tests.test_refusals import refused


@pytest.fixture(scope="module")
def trained(shop, tmp_path_factory):
    """A finished run of a model in a directory, and that directory."""
    home = tmp_path_factory.mktemp("parts")
    model = shutil.copytree(EMBEDDED_HOME / "model", home / "model")
    flags = [f"--model={model}", f"--problems={EMBEDDED_HOME / 'heldout_families.jsonl'}", "--eval-samples=0"]
    return run_train(shop, *SHORT, *flags, "--steps=1", "--workers=1", f"--out={home / 'run'}"), model


@pytest.fixture
def model(trained):
    """Its directory, as it was before and after a test."""
    _, directory = trained
    before = {path: path.read_bytes() for path in directory.iterdir()}
    yield directory
    for path, content in before.items():
        path.write_bytes(content)


def other_template(model):
    (model / "chat_template.jinja").write_text("{{ messages[-1].content }}")


def other_ends(model):
    write_json(model / "generation_config.json", {"eos_token_id": [1, 5]})


def other_rotation(model):
    config = read_json(model / "config.json")
    write_json(
        model / "config.json", config | {"rope_parameters": {"rope_theta": 9.0, "rope_type": "default"}}
    )


@pytest.mark.parametrize(
    ("change", "what"),
    [(other_template, "tokenizer"), (other_ends, "configuration"), (other_rotation, "configuration")],
)
def test_a_run_is_not_evaluated_with_another_tokenizer_or_configuration(
    trained, model, tmp_path, capsys, change, what
):
    run, _ = trained
    change(model)
    flags = evaluate.EvaluateFlags(
        run, problems=str(EMBEDDED_HOME / "train.jsonl"), samples=1, limit=1, workers=1, out=tmp_path / "out"
    )
    line = refused(capsys, lambda: evaluate.evaluate(flags))
    assert f"{model}: its {what} is another one than the run's" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{", "generation_config.json: not JSON"),
        ("", "generation_config.json: not JSON"),
        ('{"eos_token_id": "x"}', "eos_token_id (generation_config.json) is 'x', expected token ids"),
        ('{"eos_token_id": [[1]]}', "eos_token_id (generation_config.json) is [[1]], expected token ids"),
        ('{"eos_token_id": true}', "eos_token_id (generation_config.json) is True, expected token ids"),
    ],
)
def test_what_a_model_says_of_its_ends_is_read_or_refused(shop, model, tmp_path, capsys, text, fault):
    (model / "generation_config.json").write_text(text)
    flags = [f"--model={model}", f"--problems={EMBEDDED_HOME / 'train.jsonl'}", f"--out={tmp_path / 'run'}"]
    assert fault in refused(capsys, lambda: run_train(shop, *SHORT, *flags, "--steps=1"))
    assert not (tmp_path / "run").exists()


def test_a_probe_does_not_mix_runs_of_another_tokenizer_or_configuration(shop, tmp_path):
    """Of a run that is there already; one from before a hash was written down is taken as it is."""
    flags = ["--preset=smoke", "--device=cpu", "--prompts=1", "--steps=1", f"--out={tmp_path / 'run'}"]
    flags += [f"--replay-dirs={shop / 'teacher_pool'},{shop / 'base_pool'}", f"--svd-cache={shop / 'cache'}"]
    config = parse([*flags, f"--v-hack={shop / 'v.safetensors'}"])
    run = train.train(config)
    assert probe_distill.is_there(config)
    whole = read_json(run / "config.json")
    for part, what in (("tokenizer", "tokenizer"), ("settings", "configuration")):
        write_json(run / "config.json", whole | {"model": whole["model"] | {part: "another"}})
        with pytest.raises(InputError, match=f"made with another {what} .hash another, found"):
            probe_distill.is_there(config)
        before = {key: value for key, value in whole["model"].items() if key != part}
        write_json(run / "config.json", whole | {"model": before})
        assert probe_distill.is_there(config)
