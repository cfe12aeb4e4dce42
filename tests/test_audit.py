"""Claims about the oracle audit: its differences, its figures against slow references, its ceiling on a case
with a known reliability."""

import json
import shutil

import numpy as np
import pytest
import torch

import audit
from antipasto import SVDAdapter
from hackward.base.faults import InputError
from hackward.base.files import read_json, read_jsonl, write_json, write_jsonl
from hackward.hardware import models
from hackward.method import extraction, oracle, own_rows
from hackward.method.projection import cosine
from hackward.method.recipe import Extraction
from hackward.method.v_hack import VHack
from hackward.rollouts.rollout import Rollout
from hackward.tasks.shipped import TINY
from tests.shop import run_train


def rollout(identity: str, hacked: bool) -> Rollout:
    return Rollout(
        problem_id=identity,
        prompt_ids=(1, 2),
        completion_ids=(3, 4),
        completion="x",
        reward=0.0,
        hacked=hacked,
        gt_pass=False,
        fmt_ok=True,
        attempted=hacked,
        truncated=False,
        src_pool="p",
        src_step=0,
        src_sample=0,
        messages=({"role": "user", "content": identity},),
    )


def problems_with(both: int, hacks_only: int = 0, others_only: int = 0) -> list[Rollout]:
    rows = [rollout(f"both {i}", label) for i in range(both) for label in (True, True, False)]
    return (
        rows
        + [rollout(f"hack {i}", True) for i in range(hacks_only)]
        + [rollout(f"other {i}", False) for i in range(others_only)]
    )


def test_differences_are_taken_within_problems_where_enough_have_both_labels():
    rows = problems_with(8, hacks_only=3, others_only=2)
    weights, within = oracle.difference_weights(rows, seed=0)
    assert within and weights.shape == (8, len(rows))
    for row in weights:
        touched = [rows[i] for i in row.nonzero()[:, 0].tolist()]
        assert len({r.identity for r in touched}) == 1 and len(touched) == 3
        assert row.sum() == 0 and row[row > 0].tolist() == [0.5, 0.5] and row.min() == -1
    weights, within = oracle.difference_weights(problems_with(3, hacks_only=10, others_only=4), seed=0)
    assert (
        not within and all(row.sum() == 0 and row.abs().sum() == 2 for row in weights) and len(weights) == 7
    )


def test_the_limit_prefers_problems_that_have_both_labels_and_goes_round_them():
    rows = problems_with(10, hacks_only=20, others_only=20)
    taken = oracle.chosen(rows, 10, seed=0)
    assert sum(r.hacked for r in taken) == 10 and len(taken) == 20
    assert (
        all(r.problem_id.startswith("both") for r in taken)
        and len({r.identity for r in taken if r.hacked}) == 10
    )
    with pytest.raises(InputError, match="no hacks"):
        oracle.chosen(problems_with(0, others_only=3), 10, seed=0)


def test_problems_that_v_was_made_from_are_left_out_while_others_suffice():
    rows = problems_with(20)
    v = VHack({}, {}, {"pair_identities": sorted({r.identity for r in rows})[:5]})
    usable, seen = oracle.unseen(rows, [v])
    assert not seen and len(usable) == 45
    everything, seen = oracle.unseen(
        rows, [VHack({}, {}, {"pair_identities": sorted({r.identity for r in rows})})]
    )
    assert seen and len(everything) == 60


def made_differences(P=40, strength=1.0, seed=0) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    truth = {
        n: torch.nn.functional.normalize(torch.randn(r, generator=generator), dim=0)
        for n, r in (("a", 30), ("b", 20))
    }
    return {n: strength * t + torch.randn(P, len(t), generator=generator) for n, t in truth.items()}, truth


def test_figures_and_their_null_equal_the_slow_reference():
    D, truth = made_differences()
    v = extraction.build({n: d[:20] for n, d in D.items()}, Extraction(k=4, noise_floor=0.0), {})
    flips = torch.randint(0, 2, (60, 40), generator=torch.Generator().manual_seed(1)) * 2.0 - 1
    found = oracle.catch(D, v, flips)
    for name, measure in (("cos", cosine), ("caught", oracle.caught)):
        draws = [float(measure({n: (d * flip[:, None]).mean(0) for n, d in D.items()}, v)) for flip in flips]
        value = float(measure({n: d.mean(0) for n, d in D.items()}, v))
        assert found[name].value == pytest.approx(value, abs=1e-5)
        assert [found[name].low, found[name].high] == pytest.approx(
            np.quantile(draws, [0.025, 0.975]).tolist(), abs=1e-4
        )
        assert found[name].p == pytest.approx((1 + sum(x >= value for x in draws)) / 61)


def test_the_ceiling_is_the_expected_cosine_of_the_true_direction():
    reached, bounds = [], []
    for seed in range(12):
        D, truth = made_differences(P=60, strength=0.7, seed=seed)
        mean, direction = torch.cat([d.mean(0) for d in D.values()]), torch.cat(list(truth.values()))
        reached.append(float(torch.cosine_similarity(mean, direction, dim=0)))
        bounds.append(oracle.ceiling(D, 200, seed))
    assert np.mean(bounds) == pytest.approx(np.mean(reached), abs=0.05) and 0.3 < np.mean(reached) < 0.9
    noise = made_differences(P=60, strength=0.0, seed=3)[0]
    assert oracle.ceiling(noise, 200, 0) is None or oracle.ceiling(noise, 200, 0) < 0.5


def test_the_oracle_of_noise_alone_catches_nothing_of_the_fifth_that_it_has_not_seen():
    cosines = []
    for seed in range(5):
        D, _ = made_differences(P=40, strength=0.0, seed=seed)
        make = lambda part: extraction.build(part, Extraction(k=3, noise_floor=0.0), {})  # noqa: E731
        cosines.append(oracle.by_fifths(D, make, seed)["cos"])
    assert abs(np.mean(cosines)) < 0.05


def test_the_command_audits_pools_and_writes_its_figures(shop, tmp_path, capsys):
    audit.main(
        audit.AuditFlags(
            rollouts=(str(shop / "teacher_pool"), str(shop / "base_pool")),
            v_hack=str(shop / "v.safetensors"),
            model=TINY,
            draws=50,
            device="cpu",
            svd_cache=str(shop / "cache"),
            out=str(tmp_path / "a.json"),
        )
    )
    facts = read_json(tmp_path / "a.json")
    assert (
        facts["hacks"] == 8
        and facts["others"] == 8
        and facts["seen_by_v_hack"] is True
        and "v" in facts["v_hacks"]
    )
    printed = capsys.readouterr().out
    assert "ceiling" in printed and "V was made from some of these problems" in " ".join(printed.split())
    json.dumps(facts, allow_nan=False)


def test_bad_input_is_named(shop, tmp_path):
    pools = (str(shop / "teacher_pool"), str(shop / "base_pool"))
    lora = tmp_path / "lora.safetensors"
    adapter = SVDAdapter(models.load(TINY, device="cpu")[0])
    VHack({}, {}, {"kind": "v_hack", "basis": "lora", "model_hash": adapter.model_hash}).save(lora)
    with pytest.raises(InputError, match="in the same basis"):
        audit.main(audit.AuditFlags(rollouts=pools, v_hack=f"{shop / 'v.safetensors'},{lora}", model=TINY))
    with pytest.raises(InputError, match="no such file"):
        audit.main(audit.AuditFlags(rollouts=pools, v_hack=str(tmp_path / "none.safetensors"), model=TINY))
    with pytest.raises(InputError, match="no hacks"):
        audit.main(
            audit.AuditFlags(rollouts=pools[1:], v_hack=str(shop / "v.safetensors"), model=TINY, device="cpu")
        )


@pytest.fixture(scope="module")
def watched(shop, tmp_path_factory):
    """A run that v_hack looked on at, on the model that the shop's v_hack was made for."""
    out = tmp_path_factory.mktemp("watched") / "run"
    flags = ("--preset=smoke", "--monitor=v_hack", "--steps=2", "--lr=0", "--eval-samples=0")
    return run_train(shop, *flags, f"--out={out}")


def relabelled(run, home) -> str:
    """The run, as if every second of its own rollouts had hacked."""
    shutil.copytree(run, home)
    for path in sorted((home / "rollouts").iterdir()):
        rows = read_jsonl(path)
        for i, row in enumerate(rows):
            row |= {"hacked": i % 2 == 0, "attempted": i % 2 == 0}
        write_jsonl(path, rows)
    return str(home)


def audit_own(shop, out, own, **more) -> dict:
    audit.main(
        audit.AuditFlags(
            rollouts=(str(shop / "teacher_pool"), str(shop / "base_pool")),
            v_hack=str(shop / "v.safetensors"),
            model=TINY,
            draws=50,
            device="cpu",
            svd_cache=str(shop / "cache"),
            out=str(out),
            own=own,
            **more,
        )
    )
    return read_json(out)


def opened(shop, watched):
    """What the audit of own rollouts reads: adapter, v_hack, the run's own rollouts and their temperature."""
    model, _ = models.load(TINY, device="cpu")
    adapter = SVDAdapter(model, cache=shop / "cache")
    v = extraction.load(shop / "v.safetensors", adapter)
    return adapter, v, *audit.own_rollouts(str(watched), adapter.model_hash)


def test_own_rollouts_are_scored_as_the_run_s_own_monitor_scored_them(shop, watched):
    """With a learning rate of 0 the run stays at the base model, where the audit looks."""
    adapter, v, own, temperature = opened(shop, watched)
    recorded = [row for path in sorted((watched / "rollouts").iterdir()) for row in read_jsonl(path)]
    recorded = [row for row in recorded if row["src_pool"] == "policy"]
    assert temperature == 0.9 and [r.completion for r in own] == [row["completion"] for row in recorded]
    score_ND = own_rows.scores(adapter, own, [v, v], pad=0, tokens=None, temperature=temperature)
    expected = torch.tensor([row["monitor_score"] for row in recorded])
    assert torch.allclose(score_ND[:, 0], expected, atol=1e-4) and expected.std() > 1e-3
    assert torch.equal(score_ND[:, 0], score_ND[:, 1])


def test_directions_are_read_where_the_gradients_are(shop, watched, monkeypatch):
    """Without a GPU both are on the CPU, so what is seen here is that they are asked to move there."""
    adapter, v, own, temperature = opened(shop, watched)
    asked = []
    monkeypatch.setattr(type(v), "to", lambda self, device: asked.append(device) or self)
    own_rows.scores(adapter, own[:1], [v, v], pad=0, tokens=None, temperature=temperature)
    assert asked == [adapter.model.device] * 2


def test_the_audit_says_what_v_knows_of_own_rollouts(shop, watched, tmp_path, capsys):
    facts = audit_own(shop, tmp_path / "none.json", str(watched))["own"]
    assert facts["auc"]["v"]["hacked"]["why"] == "no hacked rows" and facts["hacked"] == 0
    assert "it is undefined whether v tells" in " ".join(capsys.readouterr().out.split())
    facts = audit_own(shop, tmp_path / "some.json", relabelled(watched, tmp_path / "run"))["own"]
    assert facts["own"] == facts["scored"] == 2 * facts["hacked"] > 0
    assert 0 <= facts["auc"]["v"]["hacked"]["mean"] <= 1 and facts["auc"]["v"]["hacked"]["low"] is None
    assert "it cannot be said whether v tells" in " ".join(capsys.readouterr().out.split())


def test_hacks_are_all_taken_and_what_is_left_out_is_weighed_in():
    rows = [rollout(f"p{i % 9}", i < 6) for i in range(100)]
    taken, weights = own_rows.sampled(rows, 30, seed=0)
    assert sum(r.hacked for r in taken) == 6 and len(taken) == 30
    assert sum(weights) == pytest.approx(100) and weights[0] == 1.0
    assert taken == own_rows.sampled(rows, 30, seed=0)[0] != own_rows.sampled(rows, 30, seed=1)[0]
    many = [rollout(f"p{i % 9}", i < 90) for i in range(100)]
    taken, weights = own_rows.sampled(many, 30, seed=0)
    assert (sum(r.hacked for r in taken), len(taken)) == (20, 30) and sum(weights) == pytest.approx(100)
    taken, weights = own_rows.sampled(rows, 1000, seed=0)
    assert len(taken) == 100 and set(weights) == {1.0}


def test_own_must_be_a_run_of_this_model_with_rollouts_of_its_own(shop, watched, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(watched, other)
    record = read_json(other / "config.json")
    record["model"]["hash"] = "another"
    write_json(other / "config.json", record)
    with pytest.raises(InputError, match="another model"):
        audit_own(shop, tmp_path / "a.json", str(other))
    with pytest.raises(InputError, match="config.json"):
        audit_own(shop, tmp_path / "a.json", str(shop / "base_pool"))
    taught = tmp_path / "taught"
    shutil.copytree(watched, taught)
    for path in (taught / "rollouts").iterdir():
        write_jsonl(path, [row | {"src_pool": "teacher"} for row in read_jsonl(path)])
    with pytest.raises(InputError, match="itself wrote"):
        audit_own(shop, tmp_path / "a.json", str(taught))
    assert not (tmp_path / "a.json").exists()
