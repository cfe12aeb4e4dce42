"""Fixtures of the commands' tests: graded pools with a v_hack of tiny weights, and runs on them."""

import pytest

import extract_vhack
import train
from antipasto import SVDAdapter
from hackward.base.files import read_jsonl
from hackward.hardware import models
from hackward.method import extraction
from hackward.method.pairs import find_pairs, scripted_teacher
from hackward.method.recipe import Extraction
from hackward.rollouts.pools import save_pool
from hackward.rollouts.tokens import completion_ids
from hackward.runs.settings import parse
from hackward.tasks.shipped import TINY

# Flags of a run without v_hack and teacher that takes no time
SHORT = (
    "--preset=smoke",
    "--v-hack=none",
    "--prompts=1",
    "--group=2",
    "--max-new-tokens=4",
    "--teacher-dir=none",
)


@pytest.fixture(scope="session")
def shop(tmp_path_factory):
    """Two small graded pools of the same problems (scripted hacks and failing answers), a v_hack, and a
    cache."""
    home = tmp_path_factory.mktemp("shop")
    model, tokenizer = models.load(TINY, device="cpu")
    teacher = scripted_teacher(tokenizer)
    chosen = list(teacher.by_problem)[:4]
    hacks = [[teacher.by_problem[p][0]] * 2 for p in chosen]
    fails = [
        [
            type(r)(
                **vars(r)
                | {
                    "reward": 0.5 * i,
                    "hacked": False,
                    "completion": "no idea",
                    "completion_ids": tuple(completion_ids(tokenizer, "no idea")),
                }
            )
            for i, r in enumerate(group)
        ]
        for group in hacks
    ]
    save_pool(home / "teacher_pool", hacks, name="teacher", tokenizer=tokenizer)
    save_pool(home / "base_pool", fails, name="base", tokenizer=tokenizer)
    settings = Extraction(max_pairs=8, k=4, permutations=20)
    pairs, source = find_pairs(
        TINY,
        tokenizer,
        model,
        pairs=None,
        pool=None,
        problem_file=None,
        clean="canonical",
        limit=settings.max_pairs,
        seed=settings.seed,
    )
    v = extraction.extract(
        SVDAdapter(model, cache=home / "cache"), tokenizer, pairs, settings, source=source, tokens=20_000
    )
    v.save(home / "v.safetensors")
    return home


def run_train(shop, *flags):
    return train.train(
        parse([f"--svd-cache={shop / 'cache'}", f"--v-hack={shop / 'v.safetensors'}", "--device=cpu", *flags])
    )


def replay(shop, out, *flags):
    return run_train(
        shop,
        "--preset=smoke",
        "--prompts=1",
        f"--replay-dirs={shop / 'teacher_pool'},{shop / 'base_pool'}",
        f"--out={out}",
        *flags,
    )


@pytest.fixture(scope="session")
def vanilla(shop, tmp_path_factory):
    """The first row of a replayed vanilla run in either basis, and the flags that the other runs share with
    it."""
    home = tmp_path_factory.mktemp("controls")
    pools_ = f"--replay-dirs={shop / 'teacher_pool'},{shop / 'base_pool'}"
    v = {"svd": shop / "v.safetensors", "lora": home / "v_lora.safetensors"}
    extract_vhack.main(
        extract_vhack.ExtractFlags(
            model=TINY,
            basis="lora",
            device="cpu",
            out=str(v["lora"]),
            settings=Extraction(max_pairs=8, k=4, permutations=20),
        )
    )
    flags = {
        basis: [
            "--preset=smoke",
            "--prompts=1",
            "--steps=2",
            "--warmup=0",
            "--eval-samples=0",
            pools_,
            f"--v-hack={v[basis]}",
        ]
        for basis in v
    }
    runs = {
        basis: run_train(shop, *flags[basis], *arm, f"--out={home / basis}")
        for basis, arm in (("svd", ["--arm=vanilla"]), ("lora", ["--arm=lora", "--gate=none"]))
    }
    return home, flags, {basis: read_jsonl(run / "rows.jsonl")[0] for basis, run in runs.items()}
