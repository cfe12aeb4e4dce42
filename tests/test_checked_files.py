"""Every file is checked before it is believed: a byte that changed is found, and well-formed nonsense too."""

from __future__ import annotations

import shutil

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from hackward.base.checksums import CHECKSUMS, Checksums
from hackward.base.faults import InputError
from hackward.base.files import read_jsonl, write_jsonl
from hackward.base.tensors import read_safetensors, write_safetensors
from hackward.hardware.hashes import content_hash
from hackward.hardware.models import tiny_random
from hackward.method.svd_cache import SVDCache
from hackward.rollouts.pools import load_pool
from hackward.runs.checkpoint import load_checkpoint
from hackward.runs.rundir import RunDir


def flip(path, place):
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(bytes(data))


def test_every_byte_of_a_tensor_file_counts(tmp_path):
    path = tmp_path / "t.safetensors"
    tensors = {"a": torch.arange(4.0), "b": torch.zeros((), dtype=torch.bfloat16)}
    write_safetensors(path, tensors, {"kind": "x", "step": 5})
    found, meta = read_safetensors(path)
    assert meta == {"kind": "x", "step": 5} and torch.equal(found["a"], tensors["a"])
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole)
        flip(path, place)
        try:
            found, meta = read_safetensors(path)
        except InputError as fault:
            assert str(path) in str(fault)
            continue
        # what is not covered holds nothing: padding, and the name of the checksum's own key
        assert {key: meta[key] for key in ("kind", "step")} == {"kind": "x", "step": 5}
        assert torch.equal(found["a"], tensors["a"]) and torch.equal(found["b"], tensors["b"])


# --- the SVD cache ---


@pytest.fixture
def cached(tmp_path):
    """(cache directory, W, its hash, the file of its basis)"""
    W = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    name = content_hash(W)
    SVDCache(tmp_path).basis(W, name)
    return tmp_path, W, name, tmp_path / f"{name}.safetensors"


def damaged_value(path):
    flip(path, -3)


def of_another_weight(path):
    other = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
    SVDCache(path.parent).basis(other, content_hash(other))
    shutil.copy(path.parent / f"{content_hash(other)}.safetensors", path)


def of_an_earlier_version(path):
    with safe_open(path, "pt") as stored:
        tensors = {name: stored.get_tensor(name) for name in ("U", "S", "Vh")}
    save_file(tensors, path)


@pytest.mark.parametrize("damage", [damaged_value, of_another_weight, of_an_earlier_version])
def test_a_cache_entry_that_does_not_verify_is_made_anew_with_a_line(cached, damage):
    directory, W, name, path = cached
    # Copies: what was read may be a view of the file, which the damage changes in place
    right = [part.clone() for part in SVDCache(directory).basis(W, name)]
    damage(path)
    cache = SVDCache(directory)
    with pytest.warns(UserWarning, match="computed anew"):
        found = cache.basis(W, name)
    assert cache.hits == 0 and all(torch.equal(a, b) for a, b in zip(found, right, strict=True))
    again = SVDCache(directory)
    again.basis(W, name)
    assert again.hits == 1


# --- checkpoints ---


class Adapter:
    """One module of three numbers."""

    model_hash = "m"

    def __init__(self):
        self.params = {"layer": torch.nn.Parameter(torch.zeros(3))}


GOOD = {
    "layer|param": torch.ones(3),
    "layer|step": torch.tensor(5.0),
    "layer|exp_avg": torch.ones(3),
    "layer|exp_avg_sq": torch.ones(3),
}


def loaded(tmp_path, tensors, **meta):
    run = object.__new__(RunDir)
    run.path, run.checkpoint = tmp_path, tmp_path / "checkpoint.safetensors"
    write_jsonl(tmp_path / "rows.jsonl", [{"step": step} for step in range(5)])
    facts = {"kind": "checkpoint", "model_hash": "m", "step": 5} | meta
    write_safetensors(run.checkpoint, tensors, facts)
    adapter = Adapter()
    optimizer = torch.optim.AdamW(adapter.params.values())
    try:
        return load_checkpoint(run, adapter, optimizer), optimizer
    except InputError:
        assert not adapter.params["layer"].any() and not optimizer.state
        raise


def test_a_checkpoint_is_loaded_whole(tmp_path):
    step, optimizer = loaded(tmp_path, GOOD)
    assert step == 5 and len(next(iter(optimizer.state.values()))) == 3
    assert loaded(tmp_path, {"layer|param": torch.ones(3)})[0] == 5  # nothing was learnt yet


@pytest.mark.parametrize(
    ("change", "meta", "fault"),
    [
        ({}, {"step": "5"}, "names no step"),
        ({}, {"step": True}, "names no step"),
        ({}, {"step": 0}, "names no step"),
        ({}, {"step": 3}, "says step 3, but AdamW has taken 5 steps in layer"),
        ({}, {"step": 7}, "the rows of steps 0 to 6"),
        ({}, {"kind": "v_hack"}, "not a checkpoint"),
        ({}, {"model_hash": "x"}, "of another model \\(its hash x, this model m\\)"),
        ({"layer|exp_avg": None}, {}, "module layer has no exp_avg"),
        ({"layer|exp_avg_sq": None}, {}, "module layer has no exp_avg_sq"),
        ({"layer|step": None}, {}, "module layer has no step"),
        ({"layer|exp_avg": torch.ones(4)}, {}, "'layer|exp_avg' is of another shape"),
        ({"layer|step": torch.tensor(2.5)}, {}, "AdamW has taken 2.5 steps"),
        ({"layer|exp_avg_sq": torch.full((3,), torch.nan)}, {}, "not finite"),
        ({"layer|param": torch.ones(3, dtype=torch.int64)}, {}, "'layer|param' is of another shape or type"),
        ({"layer|param": None}, {}, "module layer is missing"),
        ({"other|param": torch.ones(3)}, {}, "holds 'other|param'"),
    ],
)
def test_well_formed_nonsense_in_a_checkpoint_is_refused_and_changes_nothing(tmp_path, change, meta, fault):
    tensors = {key: tensor for key, tensor in (GOOD | change).items() if tensor is not None}
    with pytest.raises(InputError, match=fault):
        loaded(tmp_path, tensors, **meta)


# --- pools, and files of a directory ---


@pytest.fixture
def pool(shop, tmp_path):
    shutil.copytree(shop / "teacher_pool", tmp_path / "pool")
    return tmp_path / "pool"


def load(pool):
    return load_pool(pool, tiny_random()[1], stop=())


def other_reward(pool):
    rows = read_jsonl(pool / "step_001.jsonl.gz")
    write_jsonl(pool / "step_001.jsonl.gz", [row | {"reward": 0.5} for row in rows])


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (other_reward, "step_001.jsonl.gz: changed since it was written"),
        (
            lambda pool: (pool / "step_002.jsonl.gz").unlink(),
            "step_002.jsonl.gz: gone since the pool was made",
        ),
        (lambda pool: (pool / "step_003.jsonl.gz").write_bytes(b""), "step_003.jsonl.gz: corrupt"),
        (lambda pool: (pool / CHECKSUMS).write_text('{"../x": []}'), "not a table of checksums"),
        (lambda pool: (pool / CHECKSUMS).write_text("[1]"), "not a table of checksums"),
    ],
)
def test_a_pool_that_changed_is_refused_by_name(pool, damage, fault):
    load(pool)
    damage(pool)
    with pytest.raises(InputError, match=fault):
        load(pool)


def test_of_a_run_in_progress_only_the_rollouts_are_a_pool_s_matter(pool, tmp_path):
    """Its other files are written anew with every step, so a reader may see them between two."""
    run = tmp_path / "run"
    (run / "rollouts").mkdir(parents=True)
    sums = Checksums(run)
    for path in pool.glob("step_*"):
        rows = read_jsonl(path)
        write_jsonl(run / "rollouts" / path.name, rows, put=sums.writing)
    (run / "config.json").write_text("{}")
    write_jsonl(run / "rows.jsonl", [{"step": 0}], put=sums.writing)
    (run / "rows.jsonl").write_text('{"step": 1}\n')
    assert load(run / "rollouts").rollouts
    other_reward(run / "rollouts")
    with pytest.raises(InputError, match="rollouts/step_001.jsonl.gz: changed since it was written"):
        load(run / "rollouts")


def test_a_file_that_its_writer_replaced_while_it_was_looked_at_has_not_changed(tmp_path):
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, [{"step": 0}], put=Checksums(tmp_path).writing)
    reader = Checksums(tmp_path)
    for step in (1, 2):
        write_jsonl(path, [{"step": step}], put=Checksums(tmp_path).writing)
    reader.check_all()


def test_a_pool_without_checksums_is_read(pool):
    (pool / CHECKSUMS).unlink()
    other_reward(pool)
    assert {rollout.reward for rollout in load(pool).rollouts} >= {0.5}


def test_a_kill_between_a_checksum_and_its_file_leaves_a_file_that_fits(tmp_path, monkeypatch):
    """Announced and not there yet: what is replaced still counts, also when that happens twice."""
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, [{"step": 0}], put=Checksums(tmp_path).writing)
    for step in (1, 2):
        with pytest.raises(KeyboardInterrupt), Checksums(tmp_path).writing(path) as temporary:
            temporary.write_text(f'{{"step": {step}}}\n')
            monkeypatch.setattr("hackward.base.files.os.replace", real_but_killed(path))
        monkeypatch.undo()
        Checksums(tmp_path).check_all()
    path.write_text('{"step": 3}\n')
    with pytest.raises(InputError, match="rows.jsonl: changed since"):
        Checksums(tmp_path).check_all()


def real_but_killed(last):
    from os import rename

    def replace(source, target):
        if target == last:
            raise KeyboardInterrupt
        rename(source, target)

    return replace
