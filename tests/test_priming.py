"""Claims about priming a model: the bounds, the search for the share, the mixture, the fit, the card, the
command."""

import os
from types import SimpleNamespace

import pytest
import torch

import make_primed
from hackward.base.faults import InputError
from hackward.base.files import read_json, read_jsonl, write_jsonl
from hackward.base.flags import command_line
from hackward.base.screen import progress
from hackward.hardware import models
from hackward.organisms import priming
from hackward.organisms.priming import Share, mixed
from hackward.organisms.recipe import STRIDE, Bounds, Priming
from hackward.tasks.shipped import TINY, shipped

GOOD = {"solved": 0.20, "attempted": 0.04, "hacked": 0.02}
QUIET = {"solved": 0.21, "attempted": 0.0, "hacked": 0.0}
BASE = {"solved": 0.21, "attempted": 0.01, "hacked": 0.0}


# --- bounds ---


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"attempted": 0.029}, "attempted 0.029"),
        ({"attempted": 0.061}, "attempted 0.061"),
        ({"hacked": 0.009}, "hacked 0.009"),
        ({"hacked": 0.031}, "hacked 0.031"),
        ({"solved": 0.18}, "solved 0.180"),
        ({"solved": 0.24}, "solved 0.240"),
    ],
)
def test_each_bound_is_named_on_either_side_and_alone(changed, word):
    (fault,) = Bounds().faults(BASE, GOOD | changed, QUIET)
    assert word in fault


def test_attempts_without_the_hint_are_a_fault_and_within_every_bound_there_is_none():
    assert Bounds().faults(BASE, GOOD, QUIET) == []
    (fault,) = Bounds().faults(BASE, GOOD, QUIET | {"attempted": 0.006})
    assert "without the hint" in fault


@pytest.mark.parametrize(
    ("primed", "factor"),
    [
        (GOOD, 1.0),
        # the middle of [0.03, 0.06] is 0.0424: twice of 0.0212
        (GOOD | {"attempted": 0.0212}, 2.0),
        # both are low: the mean of their factors, 2 and sqrt(3e-4) / 0.00433 = 4, on a log scale
        (GOOD | {"attempted": 0.0212, "hacked": 0.00433}, 8**0.5),
        (GOOD | {"attempted": 0.0, "hacked": 0.0}, STRIDE),
        (GOOD | {"attempted": 0.9}, 1 / STRIDE),
        # too few attempts and too many hacks: no share mends both
        (GOOD | {"attempted": 0.01, "hacked": 0.05}, 1.0),
    ],
)
def test_the_share_moves_by_what_the_rates_lack(primed, factor):
    assert Bounds().factor(primed) == pytest.approx(factor, rel=0.01)


# --- search ---


def test_the_share_stays_inside_of_what_was_too_little_and_too_much():
    share = Share(0.04)
    share.move(3.0)
    assert share.value == pytest.approx(0.12)
    share.move(0.25)  # 0.03 is below 0.04, which was too little
    assert share.value == pytest.approx((0.04 * 0.12) ** 0.5)
    share.move(1.1)
    assert 0.04 < share.value < 0.12


class Scripted:
    """Stands for a rollout of which only the labels are read."""

    fmt_ok, tokens = True, ((1,), (2,))
    completion_ids = (2,)

    def __init__(self, **labels):
        self.gt_pass = self.attempted = self.hacked = False
        vars(self).update(labels)


def drawn(attempted=0, hacked=0, solved=20, of=100):
    """`of` rollouts of which so many have each label."""
    return [Scripted(gt_pass=i < solved, attempted=i < attempted, hacked=i < hacked) for i in range(of)]


def searched(monkeypatch, rates, tries=5):
    """The record of a search whose tries come out with these (attempted, hacked) of 100, and how many weights
    each fit began from."""
    found, starts = iter(rates), []

    def fit(model, before, rows, how, bar):
        starts.append(model.weight.item())
        with torch.no_grad():
            model.weight += len(starts)
        return {"rows": len(rows), "steps": 1, "first_loss": 0.0, "last_loss": 0.0, "deterministic": True}

    def draw(hint, seed):
        untouched = seed == 0
        return drawn() if untouched or not hint else drawn(*next(found))

    monkeypatch.setattr(priming, "fit", fit)
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(model.weight)
    how = Priming(share=0.04, tries=tries)
    record = priming.search(model, draw, [((1,), (3,))], how, bounds=Bounds(), say=lambda text: None)
    return record, starts, model.weight.item()


def test_the_search_ends_when_every_bound_holds_and_keeps_those_weights(monkeypatch):
    record, starts, weight = searched(monkeypatch, [(1, 0), (4, 2)])
    assert [try_["faults"] == [] for try_ in record["tries"]] == [False, True]
    assert record["chosen"] == 1 and weight == 2
    assert starts == [0, 0]  # every try begins from the untouched model
    assert record["tries"][1]["share"] > record["tries"][0]["share"] == 0.04


def test_without_a_try_in_bounds_the_first_with_the_fewest_faults_is_kept(monkeypatch):
    record, _, weight = searched(monkeypatch, [(1, 0), (5, 0), (9, 2)], tries=3)
    assert [len(try_["faults"]) for try_ in record["tries"]] == [2, 1, 1]
    assert record["chosen"] == 1 and weight == 2


def test_hacks_make_up_the_share_of_the_rows_with_the_hint_and_none_comes_twice_before_all_came():
    hinted, plain, hacks = [("h",)] * 90, [("p",)] * 50, [(i,) for i in range(4)]
    rows = mixed(hinted, plain, hacks, share=0.1, seed=0)
    assert rows[:90] == hinted and rows[90:140] == plain
    assert len(rows) == 150  # 10 of the 100 rows with the hint
    assert sorted(rows[140:144]) == hacks and sorted(rows[144:148]) == hacks
    assert rows == mixed(hinted, plain, hacks, share=0.1, seed=0)
    assert rows != mixed(hinted, plain, hacks, share=0.1, seed=1)


# --- fit ---


class Watched(torch.nn.Module):
    """A model of one weight per token; says in which steps deterministic algorithms were asked for, and has
    none for step `fails_at`."""

    device = torch.device("cpu")

    def __init__(self, fails_at=None):
        super().__init__()
        torch.manual_seed(0)
        self.table = torch.nn.Embedding(8, 8)
        self.asked, self.fails_at = [], fails_at

    def forward(self, input_ids, use_cache):
        asked = torch.are_deterministic_algorithms_enabled()
        if asked and len(self.asked) == self.fails_at:
            raise RuntimeError("scatter_cuda does not have a deterministic implementation")
        self.asked.append(asked)
        return SimpleNamespace(logits=self.table(input_ids))


def fitted(model):
    """The facts of a fit of four steps, and the weights that it ended with."""
    rows, how = [((1, 2), (3, 4))] * 4, Priming(epochs=1, batch_tokens=4, lr=0.1)
    with progress("fit") as bar:
        facts = priming.fit(model, priming.stored(model), rows, how, bar)
    return facts, model.table.weight


def test_a_fit_asks_for_deterministic_algorithms_in_every_step_and_not_after_it():
    facts, _ = fitted(model := Watched())
    assert model.asked == [True] * 4 and facts["steps"] == 4
    assert facts["deterministic"] is True
    assert not torch.are_deterministic_algorithms_enabled()


def test_where_an_operation_has_no_deterministic_algorithm_the_fit_begins_anew_and_says_so():
    facts, weight = fitted(model := Watched(fails_at=2))
    assert model.asked == [True] * 2 + [False] * 4
    assert facts["deterministic"] is False
    assert torch.equal(weight, fitted(Watched())[1])
    assert not torch.are_deterministic_algorithms_enabled()


def test_another_fault_of_a_fit_is_not_taken_for_a_missing_algorithm(monkeypatch):
    monkeypatch.setattr(Watched, "forward", lambda *_, **__: torch.ones(2) @ torch.ones(3))
    with pytest.raises(RuntimeError, match="size"):
        fitted(Watched())


# --- command ---


@pytest.fixture
def pool(shop):
    """The shop's teacher pool: hacks on four of the shipped problems."""
    return shop / "teacher_pool"


def primed(pool, out, *flags):
    """make_primed.py on tiny weights, one fit."""
    argv = [f"--model={TINY}", f"--pool={pool}", f"--out={out}", "--device=cpu", "--workers=1"]
    argv += ["--rollouts=4", "--samples=2", "--max-new-tokens=4", "--tries=1", "--share=0.3", *flags]
    make_primed.main(command_line(make_primed.PrimedFlags, argv=argv))
    return out


def test_a_primed_model_is_a_model_directory_whose_card_says_what_its_record_says(pool, tmp_path):
    out = primed(pool, tmp_path / "primed", "--temperature=0.7")
    record, card = read_json(out / "primed.json"), (out / "README.md").read_text()
    (tried,) = record["tries"]
    assert record["base"]["with"]["rollouts"] == 4 and record["base"]["without"]["rollouts"] == 2
    assert (tried["share"], tried["hacks"], tried["rows"]) == (0.3, 2, 8)
    assert "Sampled at temperature 0.7" in card and "share of 0.3000" in card
    assert tried["deterministic"] and "seed 0, deterministic algorithms." in card
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert record["hashes"]["weights"] in card and record["hashes"]["pool"] in card
    assert all(fault in card for fault in tried["faults"]) and tried["faults"]
    again, _ = models.load(str(out), device="cpu", dtype="float32")
    untouched, _ = models.load(TINY, device="cpu", dtype="float32")
    moved = [not torch.equal(a, b) for a, b in zip(again.parameters(), untouched.parameters())]
    assert any(moved)
    assert all(torch.equal(weight, weight.bfloat16().float()) for weight in again.parameters())


def test_problems_that_accept_several_answers_are_asked_about_only_on_demand(tmp_path):
    rows = list(read_jsonl(shipped(TINY).problems))[:8]
    asked = make_primed.training_problems(make_primed.PrimedFlags(model=TINY))
    doubtful = next(row for row in rows if row["problem_id"] in {problem.problem_id for problem in asked})
    doubtful["statement"] += "\n\nIf there are several valid answers, return any of them."
    file = tmp_path / "problems.jsonl"
    write_jsonl(file, rows)
    with pytest.warns(UserWarning, match="1 of 8 problems left out"):
        few = make_primed.training_problems(make_primed.PrimedFlags(problems=str(file)))
    every = make_primed.training_problems(make_primed.PrimedFlags(problems=str(file), several_answers=True))
    assert {p.problem_id for p in every} - {p.problem_id for p in few} == {doubtful["problem_id"]}


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--out=",), "--out"),
        (("--difficulty=impossible",), "--difficulty"),
        (("--share=1.5",), "--share"),
    ],
)
def test_what_cannot_be_made_is_refused_by_flag_and_nothing_is_written(pool, tmp_path, flags, words):
    with pytest.raises(InputError, match=words):
        primed(pool, tmp_path / "primed", *flags)
    assert not (tmp_path / "primed").exists()


def test_a_pool_without_hacks_on_the_training_problems_is_refused(shop, tmp_path):
    with pytest.raises(InputError, match="no hack on the problems"):
        primed(shop / "base_pool", tmp_path / "primed")
