"""Faults planted on purpose: does a test see each of them?

    python tests/mutants.py                 all mutants; a line each, and the table at the end
    python tests/mutants.py kl clip --jobs 2     those whose name holds one of the words

Every mutant is one change of a formula or of the wiring. It is made in a copy of the project, the tests that should
see it are run there, and it counts as killed when they fail. A change whose old text is not found exactly once is a
fault of this file and ends the command. Not a part of the test suite: it takes minutes per dozen.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

ROOT = Path(__file__).resolve().parent.parent
COPIED = ("hackward", "tests", "data", "spec", "pyproject.toml", "README.md", "run.sh")
LOOP, WEIGHTS, CONTROLS = "tests/test_loop.py", "tests/test_weights.py", "tests/test_controls.py"
EXTRACT, GRADIENTS, LOSSES = "tests/test_extract.py", "tests/test_gradients.py", "tests/test_losses.py"
PROJECTION, ADAPTER, LORA = "tests/test_projection.py", "tests/test_antipasto.py", "tests/test_lora.py"
SAMPLING, POOLS, COMMANDS = "tests/test_sampling.py", "tests/test_pools.py", "tests/test_commands.py"
EVALUATE, AUDIT = "tests/test_evaluate.py", "tests/test_audit.py"


@dataclass(frozen=True)
class Mutant:
    """One planted fault."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


def mutant(name: str, file: str, old: str, new: str, *tests: str) -> Mutant:
    return Mutant(name, file, old, new, tests)


METHOD, RUNS, ROLLOUTS = "hackward/method", "hackward/runs", "hackward/rollouts"
MUTANTS = [
    # --- what a rollout weighs
    mutant("advantage divided by the std", f"{METHOD}/losses.py", "return reward_G - reward_G.mean()",
           "return (reward_G - reward_G.mean()) / reward_G.std()", LOOP, WEIGHTS),
    mutant("zero-variance groups lose their KL", f"{METHOD}/weights.py", "if varied or beta * r.own]", "if varied]",
           LOOP, WEIGHTS),
    mutant("skipped groups leave the denominator", f"{METHOD}/weights.py", "rollouts=sum(map(len, groups))",
           "rollouts=len(rollouts)", WEIGHTS),
    mutant("teacher rows pay the KL", f"{METHOD}/weights.py", "beta_N=beta * torch.tensor([float(r.own)",
           "beta_N=beta * torch.tensor([1.0", WEIGHTS, LOOP),
    mutant("denominator by the mean length", f"{METHOD}/losses.py", '"length": length_N}',
           '"length": torch.full_like(length_N, int(length_N.float().mean()))}', LOSSES, WEIGHTS, GRADIENTS),
    mutant("fixed denominator forgets the rollouts", f"{METHOD}/losses.py", "return rollouts * per_row[kind].float()",
           "return per_row[kind].float()", LOOP, WEIGHTS),
    # --- the loss
    mutant("the sign of the policy loss", f"{METHOD}/losses.py", "per_row_B = -advantage_B", "per_row_B = advantage_B",
           LOOP, LOSSES),
    mutant("padding enters the policy loss", f"{METHOD}/losses.py", "(logp_BT * mask_BT).sum(1) + beta_B",
           "logp_BT.sum(1) + beta_B", LOSSES, GRADIENTS),
    mutant("padding enters the KL", f"{METHOD}/losses.py", "(k3(logp_BT, ref_BT) * mask_BT).sum(1)",
           "k3(logp_BT, ref_BT).sum(1)", LOSSES, GRADIENTS),
    mutant("k3 with policy and base exchanged", f"{METHOD}/losses.py", "gap = ref - logp\n", "gap = logp - ref\n",
           LOOP, WEIGHTS, LOSSES),
    mutant("the KL is halved", f"{METHOD}/losses.py", "+ beta_B * kl_B", "+ 0.5 * beta_B * kl_B", LOOP, LOSSES),
    mutant("log-probabilities one token late", f"{METHOD}/losses.py", "hidden_BLD[batch.row_N, batch.position_N - 1]",
           "hidden_BLD[batch.row_N, batch.position_N]", LOOP, LOSSES),
    mutant("the head's gradient forgets the temperature", f"{METHOD}/losses.py",
           "dlogits.mul_(dlogp[:, None] / -ctx.temperature)", "dlogits.mul_(-dlogp[:, None])", LOOP, LOSSES),
    mutant("replay scored at the sampling temperature", f"{RUNS}/settings.py",
           "return self.temperature if self.replay_dirs is None else 1.0", "return self.temperature",
           "tests/test_settings.py"),
    mutant("sampled rollouts scored at temperature 1", f"{RUNS}/settings.py",
           "return self.temperature if self.replay_dirs is None else 1.0", "return 1.0", LOOP),
    # --- one backward
    mutant("the reference is the policy itself", f"{METHOD}/gradients.py", "with torch.no_grad(), adapter.disabled():",
           "with torch.no_grad():", LOOP, GRADIENTS),
    mutant("micro-batches overwrite each other", f"{METHOD}/gradients.py",
           "p.grad = g if p.grad is None else p.grad.add_(g)", "p.grad = g", GRADIENTS, LOOP),
    mutant("per-rollout gradients in the batches' order", f"{METHOD}/gradients.py",
           "return {name: g[back] for name, g in joined.items()}", "return joined", GRADIENTS, EXTRACT),
    mutant("the KL is averaged over all tokens", f"{METHOD}/gradients.py",
           "kl_tokens = sum(length for length, beta in zip(lengths, weights.beta_N.tolist()) if beta > 0)",
           "kl_tokens = sum(lengths)", LOOP, GRADIENTS),
    mutant("the gap to the drawn log-probabilities is signed", f"{METHOD}/gradients.py",
           "gap_BT = (logp_BT - memory.to(drawn_BT, logp_BT.device)).abs()",
           "gap_BT = logp_BT - memory.to(drawn_BT, logp_BT.device)", GRADIENTS),
    # --- projection
    mutant("the one-sided gate removes the honest side", f"{METHOD}/projection.py", '"one-sided": torch.relu,',
           '"one-sided": lambda c: -torch.relu(-c),', PROJECTION, LOOP),
    mutant("projection removes half", f"{METHOD}/projection.py", "return g - gate(coefficients(g, V_KR)) @ V_KR",
           "return g - 0.5 * gate(coefficients(g, V_KR)) @ V_KR", PROJECTION, LOOP),
    mutant("the cosine forgets the weights' length", f"{METHOD}/projection.py", "return dot / (norm(g) * norm(v.w))",
           "return dot / norm(g)", PROJECTION, LOOP),
    mutant("cos_update is of the proposed update", f"{METHOD}/projection.py", "real = self._measure(made)",
           "real = self._measure(descent)", PROJECTION, LOOP),
    mutant("the update points up the gradient", f"{METHOD}/projection.py",
           "made = {name: (self._before[name] - p).flatten() for name, p in self.params.items()}",
           "made = {name: (p - self._before[name]).flatten() for name, p in self.params.items()}", LOOP, PROJECTION),
    mutant("edits at both places", f"{METHOD}/projection.py", 'edits = place == self.at and self.edit.gate != "none"',
           'edits = self.edit.gate != "none"', LOOP, PROJECTION),
    mutant("shrink keeps the length", f"{METHOD}/projection.py", "return {name: x * ratio for name, x in g.items()}",
           "return {name: x * 1 for name, x in g.items()}", LOOP, CONTROLS),
    mutant("a refresh leaves the momentum", f"{METHOD}/projection.py", "moment.copy_(edited.view_as(moment))",
           "moment.copy_(moment)", CONTROLS, PROJECTION),
    mutant("cos_in is measured after the edit", f"{METHOD}/projection.py", "before = self._measure(g)",
           "before = self._measure(edited)", LOOP, PROJECTION),
    # --- v_hack, its controls and nulls
    mutant("rows of V are not oriented", f"{METHOD}/extraction.py", "V[name] = basis * sign_1K[0][:, None]",
           "V[name] = basis", EXTRACT),
    mutant("weights without the pairs' mean", f"{METHOD}/v_hack.py", "torch.relu(sign * total / len(coef_PK))",
           "torch.relu(sign * total)", CONTROLS, EXTRACT),
    mutant("the noise floor per module", f"{METHOD}/v_hack.py", "kept = {name: Vh[sigma >= floor].float()",
           "kept = {name: Vh[sigma >= torch.quantile(sigma, noise_floor)].float()", EXTRACT),
    mutant("pairs are flipped one by one", f"{METHOD}/v_hack.py", "unique = sorted(set(problem_ids))\n    generator",
           "problem_ids = [str(i) for i in range(len(problem_ids))]\n    unique = problem_ids\n    generator", CONTROLS,
           EXTRACT),
    mutant("the null's directions are unit vectors", f"{METHOD}/projection.py",
           "return dot / (norm(g)[..., None] * norm(v.w))",
           "w = total([x.square().sum(-1) for x in weights.values()]).sqrt()\n"
           "    return dot / (norm(g)[..., None] * w)", CONTROLS),
    mutant("hack and clean exchanged", f"{METHOD}/extraction.py",
           "found = build({name: hack[name] - clean[name] for name in hack}, settings, meta)",
           "found = build({name: clean[name] - hack[name] for name in hack}, settings, meta)", EXTRACT, COMMANDS),
    mutant("folds leak problems", f"{METHOD}/quality.py",
           "owner = {problem: i % count for i, problem in enumerate(unique)}\n    found = []\n",
           "found = []\n    spread = np.arange(len(problem_ids)) % count\n"
           "    return [np.flatnonzero(spread == fold) for fold in range(min(count, len(unique)))]\n", EXTRACT),
    mutant("held-out pairs learn from themselves", f"{METHOD}/quality.py",
           "train = np.setdiff1d(np.arange(P), test)", "train = np.arange(P)", EXTRACT),
    mutant("the random control depends on nothing", f"{RUNS}/direction.py",
           "random_like(direction.v, direction.config.seed)", "random_like(direction.v, 0)", CONTROLS),
    mutant("clean-clean contrasts an answer with its own problem", f"{METHOD}/extraction.py",
           "return [laid[(place[pair] + step) % len(laid)] for pair in range(len(laid))]",
           "return [laid[(place[pair] + 1) % len(laid)] for pair in range(len(laid))]", CONTROLS),
    mutant("extraction with another denominator than the loss", f"{RUNS}/direction.py",
           "normaliser=config.normaliser,", "normaliser=None,", COMMANDS, "tests/test_settings.py", CONTROLS),
    # --- the loop
    mutant("clipping before the edit", "train.py",
           "            diagnostics = refreshed | s.edit_grads(step)\n"
           "            clip_grad_norm_(s.adapter.params.values(), config.clip)\n",
           "            clip_grad_norm_(s.adapter.params.values(), config.clip)\n"
           "            diagnostics = refreshed | s.edit_grads(step)\n", LOOP),
    mutant("no clipping", "train.py", "clip_grad_norm_(s.adapter.params.values(), config.clip)",
           "clip_grad_norm_(s.adapter.params.values(), 1e9)", LOOP),
    mutant("gradients pile up over steps", "train.py", "s.optimizer.zero_grad()", "pass", LOOP, COMMANDS),
    mutant("momentum moves the model where nothing was learnt", "train.py", "if batch.rollouts:", "if True:",
           "tests/test_settings.py", COMMANDS),
    mutant("warm-up starts at zero", f"{RUNS}/session.py", "(step + 1) / max(1, self.config.warmup)",
           "step / max(1, self.config.warmup)", LOOP),
    mutant("the LoRA's step is not scaled", f"{RUNS}/building.py",
           "lr_scale=loaded.adapter.step_scale if config.match_size else 1.0", "lr_scale=1.0", CONTROLS, LORA,
           COMMANDS),
    mutant("weight decay is dropped", f"{RUNS}/building.py", "weight_decay=config.weight_decay", "weight_decay=0.0",
           LOOP),
    mutant("rates are over the teacher's rows too", f"{RUNS}/records.py",
           "return [rollout for rollout in group if rollout.own] or list(group)", "return list(group)", LOOP),
    mutant("the teacher never stops", f"{ROLLOUTS}/sources.py", "if step < self.teacher_until else 0",
           "if True else 0", POOLS, COMMANDS),
    mutant("resume forgets the second moment", f"{RUNS}/checkpoint.py",
           "moved = {part: x if part", "moved = {part: x * (part != 'exp_avg_sq') if part", LOOP, COMMANDS),
    # --- draws and sources
    mutant("draws ignore the seed", f"{ROLLOUTS}/policy.py", "key = (seed, step, problem.problem_id,",
           "key = (0, step, problem.problem_id,", COMMANDS, SAMPLING),
    mutant("draws ignore the step", f"{ROLLOUTS}/policy.py", "key = (seed, step, problem.problem_id,",
           "key = (seed, 0, problem.problem_id,", COMMANDS, SAMPLING),
    mutant("a problem's rollouts draw the same", f"{ROLLOUTS}/policy.py",
           "key = (seed, step, problem.problem_id, taken[problem.problem_id])",
           "key = (seed, step, problem.problem_id, 0)", COMMANDS, SAMPLING),
    mutant("draws depend on the place in the batch", f"{ROLLOUTS}/policy.py",
           "asked.append(Wanted(problem, messages, self.request(ids, key)))",
           "asked.append(Wanted(problem, messages, self.request(ids, (*key, len(asked), key[-1]))))", COMMANDS,
           SAMPLING),
    mutant("problems of V stay in the replay", f"{ROLLOUTS}/sources.py", "fresh = [ids - seen for ids in enough]",
           "fresh = list(enough)", POOLS),
    mutant("problems of V stay among the held-out ones", f"{RUNS}/building.py",
           "unseen = [problem for problem in held_out if problem.identity not in seen]", "unseen = list(held_out)",
           CONTROLS),
    mutant("held-out problems are trained on", "hackward/tasks/held_out.py",
           "parts[is_held_out(problem.identity)].append(problem)",
           "parts[1].append(problem) if is_held_out(problem.identity) else None\n        parts[0].append(problem)",
           CONTROLS, "tests/test_problems.py"),
    mutant("the base model is evaluated with the adapter on", f"{RUNS}/heldout.py", "with self.adapter.disabled():",
           "if True:", EVALUATE),
    mutant("closed still pays the loophole", f"{RUNS}/heldout.py", 'hint=condition != "closed"', "hint=True", EVALUATE),
    # --- adapters
    mutant("delta_S forgets one factor of its gradient", "antipasto.py", "kernels.token_sum(x @ layer.Vh.T, q_BTR)",
           "kernels.token_sum(x @ layer.Vh.T, q_BTR.abs())", ADAPTER, LOOP),
    mutant("the merged weight is stale", "antipasto.py", "if self._merged_at == self.delta_S._version:", "if True:",
           ADAPTER, LOOP),
    mutant("A of the LoRA trains", "lora_adapter.py", "layer.lora_A[NAME].weight.requires_grad_(False)",
           "layer.lora_A[NAME].weight.requires_grad_(True)", LORA),
    mutant("dithering without noise", "antipasto.py", "(total.view(torch.int32) + noise)", "total.view(torch.int32)",
           ADAPTER),
    # --- the audit
    mutant("the oracle learns from the fifth it is judged on", f"{METHOD}/oracle.py",
           "v = make({name: d[train] for name, d in D.items()})", "v = make(D)", AUDIT),
    mutant("the audit's null keeps one length", f"{METHOD}/oracle.py",
           'against(float(cosine(mean, v)), dot_S / (length_S * norm(v.w)))',
           'against(float(cosine(mean, v)), dot_S / (length_S[0] * norm(v.w)))', AUDIT),
]  # fmt: skip


def plant(mutant: Mutant, home: Path) -> None:
    """A copy of the project in `home` with this one change. Raises ValueError where the old text is not there once."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, home / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, home / name)
    for script in ROOT.glob("*.py"):
        shutil.copy(script, home / script.name)
    file = home / mutant.file
    text = file.read_text()
    if text.count(mutant.old) != 1:
        raise ValueError(f"{mutant.name}: the old text is {text.count(mutant.old)} times in {mutant.file}")
    file.write_text(text.replace(mutant.old, mutant.new))


def killed(mutant: Mutant) -> tuple[bool, float]:
    """Do its tests fail, and after how many seconds?"""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        plant(mutant, home)
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *mutant.tests]
        done = subprocess.run(command, cwd=home, capture_output=True, text=True)
        if done.returncode not in (0, 1):
            raise ValueError(f"{mutant.name}: pytest ended with {done.returncode}: {done.stdout[-800:]}")
    return done.returncode == 1, time.monotonic() - started


@dataclass
class Flags:
    """Plant each mutant in a copy, run its tests, print killed or survived."""

    words: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Only mutants whose name or file holds one of these."""
    jobs: int = 1
    """Mutants at a time."""


def main(flags: Flags) -> int:
    chosen = [m for m in MUTANTS if not flags.words or any(w in f"{m.name} {m.file}" for w in flags.words)]
    survived = []
    with ThreadPoolExecutor(flags.jobs) as pool:
        for mutant, (dead, seconds) in zip(chosen, pool.map(killed, chosen)):
            print(
                f"{'killed' if dead else 'SURVIVED':<9} {seconds:5.1f} s  {mutant.name}  ({mutant.file})",
                flush=True,
            )
            if not dead:
                survived.append(mutant.name)
    print(
        f"\n{len(chosen) - len(survived)} of {len(chosen)} killed ({1 - len(survived) / max(1, len(chosen)):.0%})"
    )
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Flags, description=__doc__)))
