"""Claims about a v_hack of other prompts: the same weights with another chat template, or with none."""

import shutil

import pytest

import audit
import extract_vhack
from hackward.base.faults import InputError
from hackward.base.flags import command_line
from hackward.base.tensors import read_safetensors, write_safetensors
from hackward.hardware import models
from tests.desk import extract, run, write_lines
from tests.families import qwen, save, tokenizer
from tests.test_refusals import refused

OTHER = models.CHATML.replace("<|im_start|>assistant", "<|im_start|>answer")
TEMPLATES = {"one": models.CHATML, "other": OTHER, "plain": None}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """The same weights in three directories: with a chat template, with another one, with none."""
    home = tmp_path_factory.mktemp("weights")
    for name, template in TEMPLATES.items():
        words = tokenizer()
        words.chat_template = template
        save(home / name, qwen(), words)
    return home


@pytest.fixture(scope="module")
def made(desk, weights, tmp_path_factory):
    """A v_hack of each directory, from the same pairs over the desk's problem."""
    home = tmp_path_factory.mktemp("made")
    answers = [{"problem_id": "plus-1", "hack": f"run {i}", "clean": f"return {i + 3}"} for i in range(3)]
    pairs = write_lines(home / "pairs.jsonl", answers)
    for name in TEMPLATES:
        argv = [f"--model={weights / name}", f"--pairs={pairs}", f"--problems={desk / 'problems.jsonl'}"]
        argv += [f"--out={home / name}.safetensors", "--svd-cache=None", "--device=cpu", "--permutations=2"]
        extract_vhack.main(command_line(extract_vhack.ExtractFlags, argv=argv))
    return home


def said_in_a_run(desk, capsys, model, v, out):
    capsys.readouterr()
    run(desk, model, out, f"--v-hack={v}", "--normaliser=length")
    return " ".join(capsys.readouterr().err.split())


def hash_of(v):
    return read_safetensors(v)[1]["chat_template"]


def shown(made, name):
    template = hash_of(made / f"{name}.safetensors")
    return "no chat template" if name == "plain" else f"the chat template {template}"


@pytest.mark.parametrize("own", TEMPLATES)
@pytest.mark.parametrize("name", TEMPLATES)
def test_a_v_hack_of_another_chat_template_is_taken_with_a_note_that_names_both(
    desk, weights, made, tmp_path, capsys, name, own
):
    v = made / f"{name}.safetensors"
    said = said_in_a_run(desk, capsys, weights / own, v, tmp_path / "run")
    assert ("which is of other prompts" in said) is (name != own)
    if name != own:
        assert (
            f"{v} was made with {shown(made, name)}, this model's tokenizer has {shown(made, own)};" in said
        )


def test_another_tokenizer_with_the_same_template_is_named_too(desk, weights, made, tmp_path, capsys):
    words = tokenizer()
    words.chat_template = models.CHATML
    words.add_tokens(["zebra"])
    shutil.copytree(weights / "one", tmp_path / "model")
    words.save_pretrained(tmp_path / "model")
    said = said_in_a_run(desk, capsys, tmp_path / "model", made / "one.safetensors", tmp_path / "run")
    assert "one.safetensors was made with another tokenizer (its hash" in said


def test_a_file_from_before_the_fields_says_nothing(desk, weights, made, tmp_path, capsys):
    tensors, meta = read_safetensors(made / "one.safetensors")
    meta = {key: value for key, value in meta.items() if key not in ("tokenizer", "chat_template", "sha256")}
    write_safetensors(tmp_path / "old.safetensors", tensors, meta)
    said = said_in_a_run(desk, capsys, weights / "plain", tmp_path / "old.safetensors", tmp_path / "run")
    assert "other prompts" not in said


def test_pairs_that_bring_their_prompts_are_the_same_whatever_the_template(desk, weights, tmp_path, capsys):
    v = extract(desk, weights / "one", tmp_path / "v.safetensors")
    assert hash_of(v) == "unused"
    said = said_in_a_run(desk, capsys, weights / "plain", v, tmp_path / "run")
    assert "other prompts" not in said


def test_a_refresh_from_pairs_that_the_template_would_make_other_ones_of_is_refused(
    desk, weights, made, tmp_path, capsys
):
    v = made / "one.safetensors"
    flags = (f"--v-hack={v}", "--normaliser=length", "--arm=projected", "--refresh-every=1")
    line = refused(capsys, lambda: run(desk, weights / "plain", tmp_path / "run", *flags))
    assert f"{v} was made with the chat template" in line and "has no chat template" in line
    assert not (tmp_path / "run").exists()


def test_an_audit_with_a_v_hack_of_another_template_says_so(desk, weights, made, tmp_path, capsys):
    out = run(desk, weights / "plain", tmp_path / "run")
    flags = [str(out), f"--v-hack={made / 'one.safetensors'}", f"--out={tmp_path / 'a.json'}"]
    capsys.readouterr()
    argv = [*flags, "--device=cpu", "--svd-cache=None", f"--model={weights / 'plain'}"]
    with pytest.raises(InputError):  # a step of two failing rollouts has nothing to audit
        audit.main(command_line(audit.AuditFlags, argv=argv))
    assert "this model's tokenizer has no chat template" in " ".join(capsys.readouterr().err.split())
