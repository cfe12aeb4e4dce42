"""Claims about the v_hack that is kept beside the SVD cache: what a run would extract, or nothing."""

import dataclasses

import pytest
import torch

from antipasto import SVDAdapter
from hackward.hardware import models, ranks
from hackward.method import extraction
from hackward.method.pairs import find_pairs
from hackward.runs import direction, kept_v_hack
from hackward.runs.direction import hack_direction
from hackward.runs.settings import parse, resolve
from hackward.tasks.shipped import TINY


@pytest.fixture(scope="module")
def loaded():
    model, tokenizer = models.load(TINY, device="cpu")
    return SVDAdapter(model), tokenizer


@pytest.fixture
def made(loaded, tmp_path, monkeypatch):
    """A function that makes a run's v_hack from six pairs, and how often gradients were taken for it."""
    adapter, tokenizer = loaded
    taken = []
    gradients = extraction.shown_gradients

    def six(*parts, **options):
        pairs, source = find_pairs(*parts, **options)
        return pairs[:6], source

    def counted(*parts, **options):
        taken.append(1)
        return gradients(*parts, **options)

    monkeypatch.setattr(direction, "find_pairs", six)
    monkeypatch.setattr(extraction, "shown_gradients", counted)
    config = resolve(parse(["--preset=smoke", f"--svd-cache={tmp_path}"]))

    def make(**changes):
        found = hack_direction(dataclasses.replace(config, **changes), adapter, tokenizer)
        return found.v

    return make, taken


def files(tmp_path):
    return sorted((tmp_path / "v_hack").glob("*"))


def test_the_second_run_finds_what_the_first_one_made_bit_for_bit(made, tmp_path):
    make, taken = made
    first, second = make(), make(seed=7)
    assert len(taken) == 1 and len(files(tmp_path)) == 1
    for part in ("V", "w", "coef"):
        one, other = getattr(first, part), getattr(second, part)
        assert list(one) == list(other)
        assert all(torch.equal(one[name], other[name]) for name in one)
    facts = [{name: value for name, value in v.meta.items() if name != "made_by"} for v in (first, second)]
    assert facts[0] == facts[1]


@pytest.mark.parametrize("changes", [{"objective": "grpo"}, {"normaliser": "length"}, {"micro_tokens": 300}])
def test_other_settings_are_another_v_hack(made, tmp_path, changes):
    make, taken = made
    make()
    make(**changes)
    assert len(taken) == 2 and len(files(tmp_path)) == 2


def test_other_code_is_another_v_hack(made, monkeypatch):
    make, taken = made
    make()
    monkeypatch.setattr(kept_v_hack, "CODE", (*kept_v_hack.CODE, "train.py"))
    make()
    assert len(taken) == 2


def test_the_same_weights_with_other_settings_are_another_v_hack(made, loaded, monkeypatch):
    make, taken = made
    make()
    monkeypatch.setattr(loaded[0].model.config, "rms_norm_eps", 1e-3)
    make()
    assert len(taken) == 2


def test_it_is_taken_by_all_ranks_or_by_none(made, monkeypatch):
    """Another run may write it between two ranks' looks; an extraction is work of all."""
    make, taken = made
    make()
    monkeypatch.setattr(ranks, "gathered", lambda own: [own, False])
    make()
    assert len(taken) == 2


def test_a_place_that_may_not_be_looked_at_costs_an_extraction(made, monkeypatch):
    make, taken = made
    make()

    def forbidden(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(kept_v_hack.Path, "exists", forbidden)
    with pytest.warns(UserWarning, match="Permission denied.* made anew"):
        make()
    assert len(taken) == 2


def test_a_changed_byte_makes_it_anew(made, tmp_path):
    make, taken = made
    first = make()
    (file,) = files(tmp_path)
    stored = bytearray(file.read_bytes())
    stored[-5] ^= 1
    file.write_bytes(stored)
    with pytest.warns(UserWarning, match="changed since it was written .* made anew"):
        again = make()
    assert len(taken) == 2 and all(torch.equal(first.V[name], again.V[name]) for name in first.V)
    make()
    assert len(taken) == 2


def test_without_a_cache_nothing_is_kept_and_a_full_disk_is_no_fault(made, tmp_path, monkeypatch):
    make, taken = made
    make(svd_cache=None)
    assert not files(tmp_path)
    monkeypatch.setattr(kept_v_hack.VHack, "save", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.warns(UserWarning, match="not cached"):
        make()
    assert len(taken) == 2


def test_a_file_of_another_denominator_is_taken_with_a_note_that_says_what_to_type(
    loaded, made, tmp_path, capsys
):
    make, _ = made
    make(normaliser="length")
    (file,) = files(tmp_path)
    for normaliser in ("length", "fixed"):
        capsys.readouterr()
        adapter, tokenizer = loaded
        config = resolve(parse(["--preset=smoke", f"--v-hack={file}", f"--normaliser={normaliser}"]))
        hack_direction(config, adapter, tokenizer)
        said = " ".join(capsys.readouterr().err.split())
        assert ("--normaliser=length here takes its denominator" in said) is (normaliser == "fixed")
