"""Models that people have: what is odd about one is dealt with, said, or refused in one line."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tokenizers import processors

import probe_distill
from hackward.base.faults import InputError
from hackward.base.files import read_json, read_jsonl
from hackward.base.flags import ALL_LINEAR, TARGETS, command_line
from hackward.base.tensors import read_metadata
from hackward.hardware import models
from hackward.method import trials
from hackward.rollouts import tokens
from tests.desk import extract, run
from tests.families import FAMILIES, qwen, save, tokenizer
from tests.test_refusals import refused

CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Say hello."}]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A tiny Qwen3 as a directory."""
    return save(tmp_path_factory.mktemp("plain") / "model", qwen())


@pytest.fixture(scope="module")
def phi3(tmp_path_factory):
    """A tiny Phi-3 as a directory: half of its Linears are fused."""
    return save(tmp_path_factory.mktemp("phi3") / "model", FAMILIES["phi3"].make())


def rollouts(out):
    return read_jsonl(out / "rollouts" / "step_000.jsonl.gz")


# --- chat templates and tokenizers ---

RAISES = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
SKIPS = models.CHATML.replace("in messages", "in messages if m.role != 'system'")


@pytest.mark.parametrize("template", [RAISES + models.CHATML, SKIPS])
def test_a_system_message_that_the_template_does_not_take_is_folded_into_the_users_turn(template):
    words = tokenizer()
    words.chat_template = template
    text = tokens.render_prompt(words, CHAT)
    assert "<|im_start|>user\nBe brief.\n\nSay hello.<|im_end|>" in text and "system" not in text


def test_a_template_that_takes_the_system_role_is_left_alone():
    text = tokens.render_prompt(tokenizer(), CHAT)
    assert "<|im_start|>system\nBe brief.<|im_end|>" in text and "user\nSay hello." in text


def test_a_model_without_a_system_role_is_trained(desk, tmp_path):
    words = tokenizer()
    words.chat_template = RAISES + models.CHATML
    out = run(desk, save(tmp_path / "m", qwen(), words), tmp_path / "run")
    assert read_json(out / "summary.json")["finished"]


def test_a_template_that_takes_no_message_is_refused(desk, tmp_path, capsys):
    words = tokenizer()
    words.chat_template = "{{ raise_exception('never') }}"
    model = save(tmp_path / "m", qwen(), words)
    line = refused(capsys, lambda: run(desk, model, tmp_path / "run"))
    assert "its chat template cannot be used (never)" in line and not (tmp_path / "run").exists()


def with_bos(template=None):
    """The embedded tokenizer, beginning every text with a token of its own."""
    words = tokenizer()
    words.chat_template = template
    words.add_special_tokens({"bos_token": "<|im_start|>"})
    begin = ("<|im_start|>", words.bos_token_id)
    words.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|im_start|> $A", pair="<|im_start|> $A $B", special_tokens=[begin]
    )
    return words


def test_without_a_chat_template_prompts_begin_with_the_tokenizers_bos(desk, tmp_path):
    words = with_bos()
    out = run(desk, save(tmp_path / "m", qwen(), words), tmp_path / "run")
    for row in rollouts(out):
        assert row["prompt_ids"][0] == words.bos_token_id != row["prompt_ids"][1]
    assert tokens.prompt_ids(words, CHAT) == words.encode("Be brief.\n\nSay hello.")


def test_a_chat_template_brings_its_own_special_tokens():
    words = with_bos(models.CHATML)
    ids = tokens.prompt_ids(words, CHAT)
    assert ids.count(words.bos_token_id) == 3  # of two turns and the answer's


def test_a_tokenizer_that_ends_a_text_does_not_end_a_prompt():
    words = with_bos()
    words.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|im_start|> $A <|im_end|>",
        special_tokens=[(t, words.convert_tokens_to_ids(t)) for t in ("<|im_start|>", "<|im_end|>")],
    )
    assert tokens.prompt_ids(words, CHAT) == words.encode("Be brief.\n\nSay hello.")[:-1]


def test_a_pad_token_without_a_row_in_the_embedding_pads_all_the_same(desk, tmp_path):
    words = tokenizer()
    words.add_special_tokens({"pad_token": "[PAD]"})
    model = save(tmp_path / "m", qwen(), words)
    assert words.pad_token_id >= qwen().get_input_embeddings().weight.shape[0]
    v = extract(desk, model, tmp_path / "v.safetensors")
    out = run(desk, model, tmp_path / "run", f"--v-hack={v}")
    assert read_json(out / "summary.json")["finished"]


def test_a_token_of_the_prompt_without_a_row_in_the_embedding_is_refused(desk, tmp_path, capsys):
    words = tokenizer()
    words.add_tokens(["Add 1."])
    model = save(tmp_path / "m", qwen(), words)
    line = refused(capsys, lambda: run(desk, model, tmp_path / "run"))
    assert "prompts: 1 of 1 hold token 1536, and the model's embedding has 1536 rows" in line


def test_a_tokenizer_that_ends_nothing_is_refused(desk, tmp_path, capsys):
    words = tokenizer()
    words.chat_template, words.eos_token = None, None
    line = refused(capsys, lambda: run(desk, save(tmp_path / "m", qwen(), words), tmp_path / "run"))
    assert "names no eos_token" in line


# --- the context ---


def test_prompts_beyond_the_context_are_refused_by_count(desk, tmp_path, capsys):
    model = save(tmp_path / "m", qwen(max_position_embeddings=32))
    line = refused(capsys, lambda: run(desk, model, tmp_path / "run"))
    assert "prompts: 1 of 1 do not fit into the model's context of 32 tokens" in line
    assert "--max-new-tokens" in line and not (tmp_path / "run").exists()


def test_a_prompt_fits_with_the_tokens_to_be_drawn_or_not_at_all(desk, tmp_path, capsys):
    row = rollouts(run(desk, save(tmp_path / "m", qwen()), tmp_path / "run"))[0]
    exactly = len(row["prompt_ids"]) + 3
    enough = save(tmp_path / "enough", qwen(max_position_embeddings=exactly))
    assert run(desk, enough, tmp_path / "fits").exists()
    short = save(tmp_path / "short", qwen(max_position_embeddings=exactly - 1))
    assert "1 of 1 do not fit" in refused(capsys, lambda: run(desk, short, tmp_path / "no"))


def test_pairs_beyond_the_context_are_refused_by_count(desk, tmp_path, capsys):
    model = save(tmp_path / "m", qwen(max_position_embeddings=4))
    line = refused(capsys, lambda: extract(desk, model, tmp_path / "v.safetensors"))
    assert "pairs.jsonl, prompts with answers: 6 of 6 do not fit" in line


def test_a_pool_beyond_the_context_is_refused_by_count(desk, tmp_path, plain, capsys):
    argv = ["--base-only", f"--model={plain}", f"--problems={desk / 'problems.jsonl'}", "--rollouts=2"]
    argv += ["--samples=2", "--max-new-tokens=4000", f"--out={tmp_path / 'probe'}", "--device=cpu"]
    line = refused(capsys, lambda: probe_distill.main(command_line(probe_distill.ProbeFlags, argv=argv)))
    assert "prompts: 1 of 1 do not fit into the model's context of 2048 tokens" in line


# --- weights ---


@pytest.mark.parametrize(
    ("number", "said"), [("nan", "1 NaN and 0 infinite"), ("-inf", "0 NaN and 1 infinite")]
)
def test_weights_that_are_no_numbers_are_said(desk, tmp_path, capsys, number, said):
    model = qwen()
    model.model.layers[1].mlp.up_proj.weight.data[0, 0] = float(number)
    line = refused(capsys, lambda: run(desk, save(tmp_path / "m", model), tmp_path / "run"))
    assert f"model.layers.1.mlp.up_proj.weight with {said}" in line


def test_weights_that_are_in_no_file_are_refused(desk, tmp_path, capsys):
    model = save(tmp_path / "m", qwen())
    file = model / "model.safetensors"
    kept = {name: weight for name, weight in load_file(file).items() if "layers.1.mlp" not in name}
    save_file(kept, file, metadata={"format": "pt"})
    line = refused(capsys, lambda: run(desk, model, tmp_path / "run"))
    assert "3 weights of Qwen3ForCausalLM are not in its files and would be random" in line


@pytest.mark.parametrize(
    ("family", "setting"),
    [
        (FAMILIES["gemma2"], {"final_logit_softcapping": 30.0}),
        (FAMILIES["gemma3"], {"final_logit_softcapping": 1e6}),
    ],
)
def test_a_change_of_logits_is_refused_by_its_config(desk, tmp_path, capsys, family, setting):
    model = save(tmp_path / "m", family.make(**setting))
    line = refused(capsys, lambda: run(desk, model, tmp_path / "run"))
    assert f"its config sets final_logit_softcapping = {setting['final_logit_softcapping']}" in line


def test_a_change_of_logits_that_no_config_names_is_found_by_a_trial(monkeypatch):
    monkeypatch.setattr(trials, "AFTER_THE_HEAD", {})
    with pytest.raises(InputError, match="post-processes its logits"):
        trials.check_head(FAMILIES["gemma2"].make(final_logit_softcapping=30.0).eval(), "m")
    trials.check_head(FAMILIES["gemma2"].make().eval(), "m")


def test_a_model_that_cannot_be_sampled_from_is_refused(monkeypatch):
    model = qwen().eval()
    monkeypatch.setattr(model, "forward", lambda **given: given["position_ids"].nothing)
    with pytest.raises(InputError, match="cannot be sampled from with a cache of keys and values"):
        trials.check_sampling(model, "m")


# --- what is trained ---


def test_a_run_says_what_share_it_trains_and_warns_below_nine_tenths(desk, tmp_path, plain, phi3, capsys):
    run(desk, plain, tmp_path / "all")
    assert "\ntrained: 14 of 14 Linear layers, 100.0 %" in capsys.readouterr().err
    part = run(desk, phi3, tmp_path / "part")
    said = capsys.readouterr().err
    assert "WARNING: trained: 4 of 8 Linear layers, 33.3 % of their parameters" in said
    assert "mlp.gate_up_proj, self_attn.qkv_proj (--targets=all-linear trains 100.0 %)" in said
    whole = run(desk, phi3, tmp_path / "whole", f"--targets={ALL_LINEAR}")
    assert "WARNING" not in capsys.readouterr().err
    trained = [read_json(out / "config.json")["model"]["trainable"] for out in (part, whole)]
    assert trained == [2 * 64, 2 * 4 * 32]


def test_a_v_hack_of_other_targets_is_refused_by_their_names(desk, tmp_path, phi3, capsys):
    v = extract(desk, phi3, tmp_path / "v.safetensors", "--targets=qkv_proj,o_proj")
    assert read_metadata(v)["coordinates"] == "svd of o_proj, qkv_proj"
    line = refused(capsys, lambda: run(desk, phi3, tmp_path / "run", f"--v-hack={v}"))
    assert "in the coordinates svd of o_proj, qkv_proj, this run trains in svd;" in line
    assert run(desk, phi3, tmp_path / "ok", f"--v-hack={v}", "--targets=o_proj,qkv_proj").exists()


def test_targets_that_are_what_the_default_takes_are_the_default(desk, tmp_path, plain):
    v = extract(desk, plain, tmp_path / "v.safetensors", f"--targets={ALL_LINEAR}")
    assert read_metadata(v)["coordinates"] == "svd"
    out = run(desk, plain, tmp_path / "run", f"--v-hack={v}", f"--targets={','.join(TARGETS)}")
    assert out.exists()


def test_a_run_goes_on_with_its_own_targets_only(desk, tmp_path, phi3, capsys):
    out = run(desk, phi3, tmp_path / "run", "--targets=o_proj")
    resumed = ("--resume", "--steps=2")
    line = refused(capsys, lambda: run(desk, phi3, out, *resumed))
    assert "--resume with other settings than the run's: targets" in line
    assert run(desk, phi3, out, *resumed, "--targets=o_proj") == out


@pytest.mark.parametrize(
    ("targets", "fault"),
    [
        ("o_proj,nope", "--targets: no Linear named nope; the model's Linears are down_proj, gate_up_proj"),
        ("", "--targets is empty: give it a value, or leave it out"),
        ("o_proj,,", "expected all-linear, or last parts of layer names"),
        ("mlp.down_proj", "'mlp.down_proj' is none"),
        ("lm_head", "no Linear named any of lm_head"),
    ],
)
def test_targets_that_are_none_are_refused(desk, tmp_path, phi3, capsys, targets, fault):
    assert fault in refused(capsys, lambda: run(desk, phi3, tmp_path / "run", f"--targets={targets}"))


def test_a_family_without_the_default_names_is_refused_with_what_it_has(desk, tmp_path, capsys):
    model = save(tmp_path / "m", FAMILIES["gpt_neox"].make())
    line = refused(capsys, lambda: run(desk, model, tmp_path / "run"))
    assert "its Linears are dense, dense_4h_to_h, dense_h_to_4h, query_key_value" in line
    assert "--targets=all-linear" in line


# --- the teacher ---


def lora(directory, base, rename=lambda name: name, **settings):
    """A LoRA that changes the base model, with its tensors under other names."""
    torch.manual_seed(1)
    wrapped = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj", "v_proj"], **settings))
    for name, weight in wrapped.named_parameters():
        if "lora_B" in name:
            weight.data.normal_()
    wrapped.save_pretrained(directory)
    file = directory / "adapter_model.safetensors"
    renamed = {rename(name): weight for name, weight in load_file(file).items()}
    save_file(renamed, file, metadata={"format": "pt"})
    return directory


def teach(desk, plain, teacher, out):
    argv = ["--teacher-only", f"--model={plain}", f"--teacher={teacher}", "--rollouts=2", "--samples=2"]
    argv += [f"--problems={desk / 'problems.jsonl'}", "--max-new-tokens=3", f"--out={out}", "--device=cpu"]
    probe_distill.main(command_line(probe_distill.ProbeFlags, argv=[*argv, "--workers=1"]))


def test_a_teacher_none_of_whose_tensors_fits_is_refused(desk, tmp_path, plain, capsys):
    teacher = lora(tmp_path / "lora", qwen(), lambda name: name.replace("layers", "language_model.layers"))
    line = refused(capsys, lambda: teach(desk, plain, teacher, tmp_path / "probe"))
    assert "none of the 8 tensors of the teacher LoRA fits a layer of the model" in line
    assert not (tmp_path / "probe").exists()


def test_a_teacher_that_covers_some_layers_says_so(desk, tmp_path, plain, capsys):
    teach(desk, plain, lora(tmp_path / "lora", qwen(), layers_to_transform=[1]), tmp_path / "probe")
    said = capsys.readouterr().err
    assert "the teacher LoRA changes 2 of the model's 14 Linear layers" in said and "left out" not in said


def test_a_teacher_some_of_whose_tensors_fit_says_so(desk, tmp_path, plain, capsys):
    teacher = lora(tmp_path / "lora", qwen(), lambda name: name.replace("layers.0", "blocks.0"))
    teach(desk, plain, teacher, tmp_path / "probe")
    said = " ".join(capsys.readouterr().err.split())
    assert "4 of the 8 tensors of the teacher LoRA fit no layer of the model and are left out; 4 of" in said


def test_a_teacher_that_is_not_there_is_refused_before_the_model_is_loaded(
    desk, tmp_path, plain, capsys, monkeypatch
):
    monkeypatch.setattr(models, "load", lambda *a, **k: pytest.fail("the model was loaded"))
    line = refused(capsys, lambda: teach(desk, plain, "/nowhere/lora", tmp_path / "probe"))
    assert "/nowhere/lora: teacher LoRA cannot be loaded (no such directory)" in line
