"""Claims about the one backward: how rows are cut into micro-batches, by plan or by lack of memory, changes
nothing; and what it says of sampling."""

import math

import pytest
import torch

from antipasto import SVDAdapter
from hackward.base.faults import InputError
from hackward.hardware import memory, models
from hackward.method import gradients
from hackward.method.losses import collate, token_logps
from hackward.rollouts import sampling
from hackward.rollouts.draws import Request
from hackward.tasks.shipped import TINY
from lora_adapter import LoRAAdapter
from tests.conftest import randomise

ROWS = [
    (list(range(3, 3 + p)), list(range(40, 40 + c)))
    for p, c in [(4, 9), (7, 2), (5, 14), (3, 3), (9, 6), (2, 11)]
]
WEIGHTS, SIZES, BETA = (
    torch.tensor([1.0, -0.5, 0.3, -2.0, 0.0, 0.7]),
    torch.full((6,), 40.0),
    torch.tensor([0.1, 0.1, 0.0, 0.1, 0.0, 0.1]),
)


@pytest.fixture(params=[SVDAdapter, LoRAAdapter])
def adapter(request):
    adapter = request.param(models.load(TINY, dtype="float32", device="cpu")[0])
    randomise(adapter, 0.05)
    return adapter


def run(adapter, **options):
    for p in adapter.params.values():
        p.grad = None
    done = gradients.backward(adapter, ROWS, WEIGHTS, SIZES, pad=0, beta_N=BETA, samples=True, **options)
    return done, {name: p.grad.clone() for name, p in adapter.params.items()}


def assert_equal(one, other):
    (a, g), (b, h) = one, other
    assert a.loss == pytest.approx(b.loss, rel=1e-5) and a.kl == pytest.approx(b.kl, rel=1e-4)
    for name in g:
        torch.testing.assert_close(g[name], h[name], rtol=1e-4, atol=1e-7)
        torch.testing.assert_close(a.samples[name], b.samples[name], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("tokens", [1, 20, 45])
def test_how_rows_are_cut_changes_nothing(adapter, tokens):
    assert_equal(run(adapter, tokens=10_000), run(adapter, tokens=tokens))


def test_every_sample_s_gradient_is_the_one_it_has_alone_in_the_order_of_the_rows(adapter):
    together, _ = run(adapter, tokens=20)
    for i, row in enumerate(ROWS):
        alone = gradients.backward(
            adapter, [row], WEIGHTS[i : i + 1], SIZES[:1], pad=0, beta_N=BETA[i : i + 1], samples=True
        )
        for name in adapter.params:
            torch.testing.assert_close(
                together.samples[name][i], alone.samples[name][0], rtol=1e-4, atol=1e-7
            )


class OutOfMemory:
    """A backward that runs out of memory half way through any batch of more than `tokens`, as a GPU would:
    the last layers are through by then."""

    def __init__(self, model, tokens):
        self.model, self.tokens, self.failed = model, tokens, 0

    def __enter__(self):
        def forward(module, args, kwargs, output):
            hidden = output.last_hidden_state if hasattr(output, "last_hidden_state") else output
            size = hidden.shape[0] * hidden.shape[1]
            if hidden.requires_grad and size > self.tokens:
                hidden.register_hook(self._fail)

        self.handle = self.model.get_decoder().layers[0].register_forward_hook(forward, with_kwargs=True)
        return self

    def _fail(self, gradient):
        self.failed += 1
        raise torch.OutOfMemoryError("planted")

    def __exit__(self, *_):
        self.handle.remove()


@pytest.mark.parametrize("tokens", [10_000, None])
def test_running_out_of_memory_halves_the_batch_and_counts_nothing_twice(adapter, tokens):
    whole = run(adapter, tokens=9_999)
    with OutOfMemory(adapter.model, 50) as planted:
        assert_equal(whole, run(adapter, tokens=tokens))
        assert planted.failed >= 1
        failures = planted.failed
        assert_equal(whole, run(adapter, tokens=tokens))
        assert planted.failed - failures < failures  # it has learned, and tries a little more each time


def test_a_single_row_that_does_not_fit_is_a_fault_in_one_line(adapter):
    with (
        OutOfMemory(adapter.model, 5),
        pytest.raises(InputError, match="single row of .* tokens does not fit"),
    ):
        run(adapter, tokens=None)


def test_the_budget_follows_what_a_token_was_measured_to_cost(monkeypatch):
    """A GPU by hand: 1,000 bytes per token and 10 MB free give 7,000 tokens; a dearer batch makes it less, a
    cheaper one not more, and one of a few rows says nothing, whatever it costs."""
    budget, used = (
        memory.Budget(None, torch.device("cuda")),
        iter([0, 4096 * 1000, 0, 6000 * 2000, 0, 3000 * 500]),
    )
    monkeypatch.setattr(memory, "free", lambda device: 10_000_000)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: next(used))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda *_: next(used))
    monkeypatch.setattr(memory, "phase", lambda name: memory.contextlib.nullcontext())
    seen = []
    for tokens in (budget.tokens, 100, 6000, 3000):
        with budget.measured(tokens):
            pass
        seen.append(budget.tokens)
    assert seen == [7000, 7000, 3500, 3500]
    budget.halve(4000)
    assert budget.tokens == 2000
    used = iter([0, 100 * 500])
    with budget.measured(100):
        pass
    assert budget.tokens == 2100  # what was in the way may be gone


def test_more_than_16384_tokens_are_never_taken_unasked(monkeypatch):
    monkeypatch.setattr(memory, "free", lambda device: 10**12)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 0)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda *_: 1000)
    monkeypatch.setattr(memory, "phase", lambda name: memory.contextlib.nullcontext())
    for asked, tokens in ((None, 16384), (100_000, 100_000)):
        budget = memory.Budget(asked, torch.device("cuda"))
        with budget.measured(budget.tokens):
            pass
        assert budget.tokens == tokens


def test_the_gap_is_zero_for_what_was_just_drawn_and_grows_with_what_has_changed(adapter):
    with adapter.merged() as model:
        drawn = sampling.sample(
            model,
            [Request(tuple(range(5, 12)), ("g", i)) for i in range(4)],
            max_new_tokens=12,
            temperature=0.8,
            stop=[257],
        )
    rows, logps = [(list(range(5, 12)), row.ids) for row in drawn], [row.logps for row in drawn]

    def gap(**options):
        return gradients.backward(
            adapter, rows, torch.ones(4), torch.ones(4), pad=0, temperature=0.8, **options
        ).logp_gap

    assert gap(drawn=logps) < 1e-4
    assert gap(drawn=[[x + 0.25 for x in row] for row in logps]) == pytest.approx(0.25, abs=1e-4)
    assert gap(drawn=[logps[0], (), (), logps[3]]) < 1e-4 and gap(drawn=[()] * 4) is None and gap() is None
    randomise(adapter, 0.5)
    assert gap(drawn=logps) > 0.05
    assert math.isnan(
        gap(drawn=[[math.nan] * len(row) for row in logps])
    )  # a model that is broken does not look sound


def test_log_probabilities_of_the_samples_are_those_of_the_temperature(adapter):
    """Drawn at 0.8 and scored at 0.8 they agree; scored at 1 they do not."""
    with adapter.merged() as model, torch.no_grad():
        (row,) = sampling.sample(
            model, [Request((5, 6, 7), ("t",))], max_new_tokens=10, temperature=0.8, stop=[257]
        )
        batch = collate([([5, 6, 7], row.ids)], [0], 0)
        same, other = (token_logps(model, batch, temperature=t)[0][0].tolist() for t in (0.8, 1.0))
    assert same == pytest.approx(row.logps, abs=1e-4) and not math.isclose(
        sum(other), sum(row.logps), abs_tol=1e-2
    )
