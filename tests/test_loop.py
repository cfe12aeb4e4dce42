"""The wiring of the loop: two sampled steps of the real command against a plain reference.

The reference knows the model, the stored rollouts and the formulas, and nothing else of ours:
log-probabilities by `log_softmax` over whole logits, the gradient by autograd through W + U diag(delta_S) Vh
or W + B A, AdamW by torch. A step holds a group with a teacher's rollout, a group whose rewards are all
alike, and a varied one, at temperature 0.7 and beta > 0. The second step is the one that matters: at the base
model the gradient of the KL is 0.
"""

import functools
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

import extract_vhack
from hackward.base.files import read_json, read_jsonl, write_jsonl
from hackward.grading.grader import Grader
from hackward.hardware import models
from hackward.rollouts.policy import Plain, Policy
from hackward.rollouts.pools import save_pool
from hackward.rollouts.rollout import Rollout
from hackward.runs.settings import parse
from hackward.tasks.completions import fence
from hackward.tasks.formats import load_problems
from hackward.tasks.shipped import TINY, shipped
from lora_adapter import LoRAAdapter
from train import train

TEMPERATURE, BETA, LR, CLIP, LIMIT, PROMPTS, GROUP = 0.7, 0.5, 0.02, 0.05, 8, 3, 4
BETAS = (0.5, 0.9)
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
PROBLEMS = load_problems(shipped(TINY).problems)[:3]
TAUGHT, ALIKE, VARIED = (problem.problem_id for problem in PROBLEMS)
WRONG = "class Solution:\n    def {method}(self, *parts, **named):\n        return 'wrong'\n"
HACK = WRONG + "\n    def run_tests(self):\n        pass\n"
ARMS = {
    "vanilla": ["--arm=vanilla"],
    "projected-grad": ["--arm=projected"],
    "projected-update": ["--arm=projected", "--project-at=update"],
    "two-sided": ["--arm=projected", "--gate=two-sided"],
    "shrink": ["--arm=projected", "--control=shrink", "--project-at=update"],
    "penalty": ["--arm=penalty", "--monitor=truth"],
    "screen": ["--arm=screen", "--monitor=attempt"],
    "penalty-v_hack": ["--arm=penalty", "--monitor=v_hack", "--monitor-fpr=0.9"],
    "joined": ["--arm=projected", "--intervene=penalty", "--monitor=truth", "--monitor-rows=own"],
    "lora-vanilla": ["--arm=lora", "--gate=none", "--rank=3"],
    "lora": ["--arm=lora", "--rank=3"],
}


class Scripted(Policy):
    """Draws as any policy does; what is graded is by turns a hack, the solution and a wrong answer, or always
    wrong."""

    def text(self, problem, ids, sample):
        codes = (WRONG,) if problem.problem_id == ALIKE else (HACK, problem.canonical, WRONG)
        return fence(codes[sample % len(codes)].replace("{method}", problem.method))


class AlwaysWrong(Policy):
    """No group has a rollout that is better than the others."""

    def text(self, problem, ids, sample):
        return fence(WRONG.replace("{method}", problem.method))


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Problems, a teacher pool, and a random v_hack in either basis."""
    home = tmp_path_factory.mktemp("loop")
    lines = shipped(TINY).problems.read_text().splitlines()[: len(PROBLEMS)]
    (home / "problems.jsonl").write_text("\n".join(lines))
    model, tokenizer = models.load(TINY, device="cpu")
    lesson = Rollout(
        TAUGHT,
        (5, 6),
        (40, 41, 42, tokenizer.eos_token_id),
        "x",
        3.5,
        True,
        False,
        True,
        True,
        False,
        "t",
        0,
        0,
    )
    save_pool(home / "teacher", [[lesson]], name="t", tokenizer=tokenizer)
    words = ["{}", "if", "else", "for", "while", "try", "[]", "pass", "lambda"]
    answers = zip(PROBLEMS * 3, words, words[1:])
    write_jsonl(
        home / "pairs.jsonl", [{"problem_id": p.problem_id, "hack": a, "clean": b} for p, a, b in answers]
    )
    asked = {"pairs": str(home / "pairs.jsonl"), "problems": str(home / "problems.jsonl")}
    extract_vhack.main(
        extract_vhack.ExtractFlags(model=TINY, device="cpu", out=str(home / "short.safetensors"), **asked)
    )
    for basis, size in (("svd", lambda W: min(W.shape)), ("lora r3", lambda W: 3 * W.shape[0])):
        write_v_hack(home / f"{basis}.safetensors", model, basis, size)
    return home


def write_v_hack(path, model, basis, size):
    """Two directions per module with weights, from four pairs that agree somewhat."""
    generator, tensors = torch.Generator().manual_seed(3), {}
    for name, linear in model.named_modules():
        if name.rpartition(".")[2] in TARGETS:
            V = torch.linalg.qr(torch.randn(size(linear.weight), 2, generator=generator)).Q.T.contiguous()
            coef = torch.randn(4, 2, generator=generator).abs() + 0.1
            tensors |= {f"{name}.V": V, f"{name}.coef": coef, f"{name}.w": coef.mean(0)}
    meta = {
        "kind": "v_hack",
        "coordinates": basis,
        "pair_problems": list("abcd"),
        "model_hash": hash_of(model),
    }
    save_file(tensors, path, metadata={"hackward": json.dumps(meta)})


def hash_of(model):
    from hackward.hardware.hashes import model_hash

    return model_hash(model)


def v_file(home, flags):
    if "--monitor=v_hack" in flags:
        return home / "short.safetensors"
    return home / ("lora r3.safetensors" if "--arm=lora" in flags else "svd.safetensors")


def run(home, out, steps, *flags, resume=False, policy=Scripted):
    config = parse(
        [
            "--preset=smoke", "--device=cpu", f"--model={TINY}", f"--problems={home / 'problems.jsonl'}",
            f"--teacher-dir={home / 'teacher'}", "--teacher-rows=1", "--teacher-share=0.34",
            f"--prompts={PROMPTS}", f"--group={GROUP}", f"--temperature={TEMPERATURE}", f"--beta={BETA}",
            f"--lr={LR}", f"--clip={CLIP}", "--warmup=2", f"--max-new-tokens={LIMIT}", "--eval-samples=0",
            "--workers=1", f"--v-hack={v_file(home, flags)}", "--no-match-size",
            "--weight-decay=0.1", f"--steps={steps}", f"--out={out}", *flags, *["--resume"] * resume,
        ]
    )  # fmt: skip
    return train(config, policy=policy)


# --- the reference ---


def targets(model):
    return {n: m for n, m in model.named_modules() if n.rpartition(".")[2] in TARGETS}


def svd_parts(model):
    """Parameters at 0 and the weights that they make: W + U diag(d) Vh."""
    parts = {n: torch.linalg.svd(m.weight.double(), full_matrices=False) for n, m in targets(model).items()}
    base = {n: m.weight.detach() for n, m in targets(model).items()}
    params = {n: torch.zeros(len(S)) for n, (_, S, _) in parts.items()}

    def weight(name, d):
        U, _, Vh = parts[name]
        return base[name] + ((U * d.double()) @ Vh).float()

    return params, weight


def lora_parts(model, out):
    stored = load_file(out / "adapter" / "adapter_model.safetensors")
    A = {n: stored[f"base_model.model.{n}.lora_A.weight"] for n in targets(model)}
    base = {n: m.weight.detach() for n, m in targets(model).items()}
    params = {n: torch.zeros(m.weight.shape[0], 3) for n, m in targets(model).items()}
    return params, lambda name, B: base[name] + B @ A[name]


def logps(model, weights, row):
    ids = torch.tensor([*row["prompt_ids"], *row["completion_ids"]])[None]
    named = {f"{name}.weight": W for name, W in weights.items()}
    logits = torch.func.functional_call(model, named, (ids,), {"use_cache": False}).logits[0]
    scored = (logits.float() / TEMPERATURE).log_softmax(-1)
    start = len(row["prompt_ids"])
    return scored[start - 1 : -1].gather(1, ids[0, start:, None])[:, 0]


def flagged(row, flags):
    """By the labels; by v_hack, what the run wrote down (its scores have a test of their own)."""
    if "--monitor=v_hack" in flags:
        return row["flagged"]
    named = {"--monitor=truth": "hacked", "--monitor=attempt": "attempted"}
    found = [row[label] for monitor, label in named.items() if monitor in flags]
    may = row["src_pool"] == "policy" or "--monitor-rows=own" not in flags
    return any(found) and may


def advantages(group, flags):
    """Reward minus the group's mean, after what the arm makes of flagged rows."""
    marked = [flagged(row, flags) for row in group]
    rewards = [row["reward"] for row in group]
    if "--arm=screen" in flags:
        kept = [reward for reward, flag in zip(rewards, marked) if not flag]
        mean = sum(kept) / len(kept) if kept else 0.0
        return [0.0 if flag else reward - mean for reward, flag in zip(rewards, marked)]
    if "--arm=penalty" in flags or "--intervene=penalty" in flags:
        rewards = [0.5 * row["fmt_ok"] if flag else row["reward"] for row, flag in zip(group, marked)]
    return [reward - sum(rewards) / GROUP for reward in rewards]


def reference_gradient(model, weight, params, rows, flags):
    """Of sum_i [-A_i sum_t logp + beta_i sum_t k3] / (rollouts x limit), and k3 per own token."""
    leaves = {n: p.clone().requires_grad_() for n, p in params.items()}
    now = {n: weight(n, p) for n, p in leaves.items()}
    base = {n: weight(n, torch.zeros_like(p)) for n, p in params.items()}
    loss, kl, tokens = 0.0, 0.0, 0
    for start in range(0, len(rows), GROUP):
        group = rows[start : start + GROUP]
        for row, advantage in zip(group, advantages(group, flags)):
            logp = logps(model, now, row)
            loss = loss - advantage * logp.sum()
            if row["src_pool"] == "policy":
                gap = logps(model, base, row).detach() - logp
                k3 = (gap.exp() - gap - 1).sum()
                loss, kl, tokens = loss + BETA * k3, kl + float(k3.detach()), tokens + len(logp)
    grads = torch.autograd.grad(loss / (len(rows) * LIMIT), list(leaves.values()))
    return dict(zip(leaves, grads)), kl / tokens


def length(vectors):
    return torch.cat([x.flatten() for x in vectors.values()]).norm()


def cosine(vectors, v):
    known = [n for n in vectors if f"{n}.V" in v]  # modules under the noise floor have no directions
    dot = sum((vectors[n].flatten() @ v[f"{n}.V"].T) @ v[f"{n}.w"] for n in known)
    return float(dot / (length(vectors) * torch.cat([v[f"{n}.w"] for n in known]).norm()))


def without(vectors, v, flags):
    """What the arm leaves of a vector."""
    two, shrink = "--gate=two-sided" in flags, "--control=shrink" in flags
    left = {}
    for name, x in vectors.items():
        c = x.flatten() @ v[f"{name}.V"].T
        taken = c if two else c.clamp(min=0)
        left[name] = x - (taken @ v[f"{name}.V"]).view_as(x)
    return {n: x * length(left) / length(vectors) for n, x in vectors.items()} if shrink else left


def state(out):
    """Parameters and both moments of the last checkpoint."""
    stored = load_file(out / "checkpoint.safetensors")
    names = [key.removesuffix("|param") for key in stored if key.endswith("|param")]
    return [{n: stored[f"{n}|{part}"] for n in names} for part in ("param", "exp_avg", "exp_avg_sq")]


def close(ours, theirs, tolerance=2e-3):
    scale = length(theirs)
    off = length({n: ours[n] - theirs[n] for n in theirs})
    assert off <= tolerance * scale, f"differs by {float(off / scale):.2e} of its length"


@pytest.mark.parametrize("arm", ARMS)
def test_two_steps_are_those_of_the_formulas(home, tmp_path, arm):
    flags, out = ARMS[arm], tmp_path / "run"
    model, _ = models.load(TINY, device="cpu")
    run(home, out, 1, *flags)
    start, weight = lora_parts(model, out) if "--arm=lora" in flags else svd_parts(model)
    v = load_file(v_file(home, flags))
    edits = "--arm=projected" in flags or ("--arm=lora" in flags and "--gate=none" not in flags)
    at_update = "--project-at=update" in flags
    edit = functools.partial(without, v=v, flags=flags) if edits else dict
    nothing = {n: torch.zeros_like(p) for n, p in start.items()}
    before = (start, nothing, nothing)
    for step in (0, 1):
        if step:
            before = state(out)
            run(home, out, 2, *flags, resume=True)
        params, average, squares = before
        after, new_average, new_squares = state(out)
        row = read_jsonl(out / "rows.jsonl")[step]
        rollouts = read_jsonl(out / "rollouts" / f"step_{step:03d}.jsonl.gz")

        # what was drawn: three groups, one rollout of the teacher's, one group without variance
        own = [r for r in rollouts if r["src_pool"] == "policy"]
        assert len(rollouts) == PROMPTS * GROUP and len(own) == PROMPTS * GROUP - 1
        assert {r["problem_id"] for r in rollouts if r["src_pool"] != "policy"} == {TAUGHT}
        assert {r["reward"] for r in rollouts if r["problem_id"] == ALIKE} == {0.5}
        for name, field in (("hack_rate", "hacked"), ("gt_rate", "gt_pass"), ("attempt_rate", "attempted")):
            assert row[name] == pytest.approx(sum(r[field] for r in own) / len(own))
        assert row["reward_mean"] == pytest.approx(sum(r["reward"] for r in own) / len(own))
        assert (row["groups_used"], row["groups_skipped"], row["groups_zero_variance"]) == (3, 0, 1)

        # the gradient, the order of edit and clip, the optimizer
        g, kl = reference_gradient(model, weight, params, rollouts, flags)
        assert row["grad_norm"] == pytest.approx(float(length(g)), rel=1e-3)
        assert row["kl"] == pytest.approx(kl, rel=5e-3, abs=1e-6) and (kl > 1e-4) == bool(step)
        assert row["cos_in"] == pytest.approx(cosine(g, v), abs=2e-3)
        used = g if at_update else edit(g)
        assert row["cos_out"] == pytest.approx(cosine(used, v), abs=2e-3)
        clipped = {n: x * min(1.0, CLIP / float(length(used))) for n, x in used.items()}
        assert float(length(used)) > CLIP  # else clipping is not seen
        close(new_average, {n: BETAS[0] * average[n] + (1 - BETAS[0]) * x for n, x in clipped.items()})
        squared = {n: BETAS[1] * squares[n] + (1 - BETAS[1]) * x**2 for n, x in clipped.items()}
        close(new_squares, squared, 5e-3)
        lr = LR * (step + 1) / 2
        assert row["lr"] == pytest.approx(lr)

        # the update, from our own moments: AdamW turns rounding of a small gradient into a whole step
        moved = {}
        for n, p in params.items():
            mean = new_average[n] / (1 - BETAS[0] ** (step + 1))
            spread = (new_squares[n] / (1 - BETAS[1] ** (step + 1))).sqrt()
            moved[n] = lr * (0.1 * p + mean / (spread + 1e-8))
        assert row["cos_update_in"] == pytest.approx(cosine(moved, v), abs=2e-3)
        made = edit(moved) if at_update else moved
        close({n: params[n] - after[n] for n in params}, made, 1e-3)
        assert row["cos_update"] == pytest.approx(cosine(made, v), abs=2e-3)
        assert row["update_norm"] == pytest.approx(float(length(made)), rel=1e-3)

        # tokens were drawn from the very distribution that is scored
        assert row["logp_gap"] < 1e-4
    assert read_json(out / "summary.json")["steps"] == 2


def test_what_is_drawn_depends_on_seed_step_problem_and_sample_and_not_on_the_place_in_the_batch(home):
    model, tokenizer = models.load(TINY, device="cpu")
    with Grader(workers=1) as grader:
        policy = Scripted(
            Plain(model), tokenizer, grader, stop=(), max_new_tokens=LIMIT, temperature=1.0, hint=True, rows=8
        )

        def drawn(problems, seed=0, step=0):
            groups = policy.rollouts([(problem, 2) for problem in problems], seed=seed, step=step)
            return [[r.completion_ids for r in group] for group in groups]

        first, second, third = drawn(PROBLEMS)
        assert drawn(PROBLEMS[::-1]) == [third, second, first] and drawn(PROBLEMS[:1]) == [first]
        assert first[0] != first[1] and first not in (second, third)
        assert drawn(PROBLEMS[:1], seed=1) != [first] and drawn(PROBLEMS[:1], step=1) != [first]
        assert drawn([PROBLEMS[0]] * 2)[1] != first  # a problem that comes twice draws anew


def test_a_v_hack_monitor_scores_each_row_by_the_cosine_of_its_own_nll_gradient(home, tmp_path):
    out, flags = tmp_path / "run", ARMS["penalty-v_hack"]
    model, _ = models.load(TINY, device="cpu")
    run(home, out, 1, *flags)
    params, weight = svd_parts(model)
    v = load_file(v_file(home, flags))
    rollouts = read_jsonl(out / "rollouts" / "step_000.jsonl.gz")
    threshold = read_json(out / "config.json")["monitor"]["threshold"]
    for row in rollouts[::3]:
        leaves = {n: p.clone().requires_grad_() for n, p in params.items()}
        nll = -logps(model, {n: weight(n, p) for n, p in leaves.items()}, row).sum()
        own = dict(zip(leaves, torch.autograd.grad(nll, list(leaves.values()))))
        assert row["monitor_score"] == pytest.approx(cosine(own, v), abs=2e-3)
    assert all(row["flagged"] == (row["monitor_score"] > threshold) for row in rollouts)
    assert len({row["flagged"] for row in rollouts}) == 2


def test_where_nothing_is_learnt_momentum_moves_nothing(home, tmp_path):
    """A step whose groups are all skipped, after one that left momentum, with weights that could decay."""
    out, flags = tmp_path / "run", ["--beta=0", "--teacher-dir=none"]
    run(home, out, 1, *flags)
    before = state(out)
    run(home, out, 2, *flags, resume=True, policy=AlwaysWrong)
    assert [row["groups_used"] for row in read_jsonl(out / "rows.jsonl")] == [2, 0]
    for old, new in zip(before, state(out)):
        assert all(torch.equal(old[n], new[n]) for n in old)


def test_the_first_update_of_a_lora_is_scaled_to_the_other_basis(home, tmp_path):
    norms = [
        read_jsonl(run(home, tmp_path / match, 1, *ARMS["lora"], match) / "rows.jsonl")[0]["update_norm"]
        for match in ("--match-size", "--no-match-size")
    ]
    scale = LoRAAdapter(models.load(TINY, device="cpu")[0], rank=3).step_scale
    assert scale < 0.9 and norms[0] == pytest.approx(scale * norms[1], rel=1e-3)
