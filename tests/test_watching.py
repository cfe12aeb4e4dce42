"""Claims about monitors through the command line: every arm takes every monitor and control, nonsense exits
with 2, what is seen is written down, and a resumed run goes on with it."""

import os
import shutil

import pytest

from hackward.base.arms import ARMS, arm_of
from hackward.base.faults import InputError
from hackward.base.files import read_json, read_jsonl
from hackward.runs.settings import parse, resolve
from tests import lacks
from tests.shop import run_train

ACTING = {
    "vanilla": ["--arm=vanilla"],
    "penalty": ["--arm=penalty"],
    "screen": ["--arm=screen"],
    "projected": ["--arm=projected", "--project-at=update"],
    "projected + penalty": ["--arm=projected", "--intervene=penalty"],
    "lora penalty": ["--arm=lora", "--rank=2", "--gate=none", "--intervene=penalty"],
    "lora + screen": ["--arm=lora", "--rank=2", "--intervene=screen"],
}
MONITORS = ("truth", "attempt", "v_hack", "probe")
FLAGS = {arm: [*flags, f"--monitor={monitor}"] for arm, flags in ACTING.items() for monitor in MONITORS}
SMALL = [
    "--preset=smoke",
    "--prompts=1",
    "--steps=1",
    "--max-new-tokens=8",
    "--eval-samples=0",
    "--workers=1",
]


@pytest.fixture(scope="session")
def lora_v(shop, vanilla):
    """v_hack of the LoRA basis, rank 8."""
    return vanilla[0] / "v_lora.safetensors"


def take(shop, lora_v, out, *flags):
    more = [f"--v-hack={lora_v}", "--rank=8"] if "--arm=lora" in flags else []
    return run_train(shop, *SMALL, *flags, *more, f"--out={out}")


def combined(arm: str, monitor: str):
    """An arm acts on flags, whoever raised them: every arm with the two monitors that differ most, and every
    monitor with two arms; the rest on demand."""
    chosen = monitor in ("truth", "v_hack") or arm in ("vanilla", "penalty")
    skip = not chosen and os.environ.get("HACKWARD_SLOW") != "1"
    return pytest.param(arm, monitor, marks=pytest.mark.skipif(skip, reason=lacks.SLOW))


@pytest.mark.parametrize(("arm", "monitor"), [combined(a, m) for a in ACTING for m in MONITORS])
def test_every_arm_takes_every_monitor_and_writes_what_it_saw(shop, lora_v, tmp_path, arm, monitor):
    placebo = (
        ["--control=random"] if arm not in ("vanilla", "projected") and monitor in ("truth", "probe") else []
    )
    out = take(shop, lora_v, tmp_path / "run", *ACTING[arm], f"--monitor={monitor}", *placebo)
    (row,) = read_jsonl(out / "rows.jsonl")
    rollouts = read_jsonl(out / "rollouts" / "step_000.jsonl.gz")
    assert all(isinstance(r["flagged"], bool) and isinstance(r["monitor_score"], float) for r in rollouts)
    own = [r for r in rollouts if r["src_pool"] == "policy"]
    honest = [r for r in own if not r["hacked"] and not r["attempted"]]
    assert row["monitor_rate_clean"] == pytest.approx(sum(r["flagged"] for r in honest) / len(honest))
    record = read_json(out / "config.json")
    assert record["monitor"]["name"] == monitor
    assert arm_of(record["config"]).label.startswith(arm) or placebo
    if monitor == "truth" and not placebo:
        assert [r["flagged"] for r in rollouts] == [r["hacked"] for r in rollouts]


@pytest.mark.parametrize("score", ["cosine", "whitened"])
@pytest.mark.parametrize("control", ["random", "sign-flip", "clean-clean"])
def test_a_v_hack_monitor_takes_every_control_of_its_kind(shop, lora_v, tmp_path, score, control):
    flags = [f"--monitor-score={score}", f"--control={control}", "--monitor-rows=own", "--monitor-fpr=0.2"]
    out = take(shop, lora_v, tmp_path / "run", "--arm=penalty", "--monitor=v_hack", *flags)
    rollouts = read_jsonl(out / "rollouts" / "step_000.jsonl.gz")
    assert not any(r["flagged"] for r in rollouts if r["src_pool"] != "policy")


def test_a_run_without_a_monitor_says_that_nobody_looked(shop, lora_v, tmp_path):
    out = take(shop, lora_v, tmp_path / "run")
    (row,) = read_jsonl(out / "rows.jsonl")
    assert row["monitor_auc_hacked"] is None and row["monitor_rate_clean"] is None
    assert {r["flagged"] for r in read_jsonl(out / "rollouts" / "step_000.jsonl.gz")} == {None}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--arm=penalty"], "penalty needs a --monitor"),
        (["--intervene=screen"], "screen needs a --monitor"),
        (["--arm=penalty", "--intervene=screen", "--monitor=truth"], "one intervention per run"),
        (
            ["--arm=projected", "--gate=none", "--intervene=penalty", "--monitor=truth"],
            "that is --arm=penalty",
        ),
        (["--monitor=truth", "--control=random"], "this one does neither"),
        (["--arm=penalty", "--monitor=truth", "--control=sign-flip"], "needs --monitor=v_hack"),
        (["--arm=penalty", "--monitor=probe", "--control=clean-clean"], "needs --monitor=v_hack"),
        (
            ["--arm=penalty", "--monitor=attempt", "--control=shrink", "--project-at=update"],
            "control of projections",
        ),
        (["--arm=penalty", "--monitor=v_hack", "--v-hack=none"], "needs a --v-hack"),
        (["--monitor=v_hack", "--v-hack=none"], "needs a --v-hack"),
        (["--monitor-noise=0.2"], "only --monitor=truth has flags to flip"),
        (["--monitor=attempt", "--monitor-noise=0.2"], "only --monitor=truth has flags to flip"),
        (["--monitor=truth", "--monitor-score=whitened"], "only --monitor=v_hack has such a score"),
        (["--monitor=truth", "--monitor-fpr=0.1"], "only v_hack and probe have a threshold"),
        (["--monitor-rows=own"], "needs a --monitor"),
        (["--monitor=truth", "--monitor-rows=teacher", "--teacher-dir=none"], "no teacher's rollouts"),
        (["--monitor=truth", "--monitor-rows=teacher", "--teacher-until=0"], "no teacher's rollouts"),
        (["--monitor=truth", "--monitor-rows=teacher", "--teacher-share=0"], "no teacher's rollouts"),
        (["--intervene=penalty", "--monitor=truth", "--control=shrink"], "control of projections"),
        (["--monitor=truth", "--replay-dirs=a,b"], "have a cosine each already"),
        (["--monitor=truth", "--loss-mode=nll"], "no rewards to look at"),
        (["--refresh-from=rollouts"], "needs --refresh-every"),
        (["--refresh=union"], "needs --refresh-every"),
        (["--refresh-every=2", "--refresh-label=attempted"], "needs --refresh-from=rollouts"),
        (
            ["--refresh-every=2", "--refresh-from=rollouts", "--replay-dirs=a,b"],
            "no rollouts of the run's own",
        ),
    ],
)
def test_nonsense_is_refused_in_one_line(flags, message):
    with pytest.raises(InputError, match=message) as fault:
        resolve(parse(["--model=tiny-random", "--preset=smoke", *flags]))
    assert "\n" not in str(fault.value)


def test_penalty_is_short_for_vanilla_with_a_penalty():
    long, short = (
        resolve(parse([*flags, "--monitor=truth"])) for flags in (["--intervene=penalty"], ["--arm=penalty"])
    )
    assert long == short and arm_of(vars(long)) == arm_of(vars(short)) and long.arm == "penalty"


def test_labels_of_arms_tell_their_monitors_apart():
    def label(*flags):
        return arm_of(vars(resolve(parse(list(flags))))).label

    assert label("--arm=penalty", "--monitor=truth", "--monitor-noise=0.2") == "penalty truth noise 0.2"
    whitened = label("--arm=screen", "--monitor=v_hack", "--monitor-score=whitened", "--monitor-rows=own")
    assert whitened == "screen v_hack whitened own rows"
    assert label("--arm=projected", "--intervene=penalty", "--monitor=probe") == "projected + penalty probe"
    assert (
        label("--arm=lora", "--gate=none", "--intervene=penalty", "--monitor=truth") == "lora penalty truth"
    )
    # a monitor that looks on is no other arm
    assert label("--arm=projected", "--monitor=truth") == "projected"
    assert label("--monitor=truth") == "vanilla" == ARMS["vanilla"].label


@pytest.mark.parametrize(
    "flags",
    [
        ["--arm=penalty", "--monitor=v_hack", "--refresh-every=2"],
        [
            "--arm=projected",
            "--refresh-every=1",
            "--refresh=union",
            "--monitor=v_hack",
            "--project-at=update",
        ],
        ["--arm=penalty", "--monitor=probe", "--control=random"],
    ],
)
def test_a_resumed_run_sees_what_it_would_have_seen(shop, lora_v, tmp_path, flags):
    long = ["--steps=4", "--save-every=1"]
    whole = take(shop, lora_v, tmp_path / "whole", *flags, *long)
    cut = take(shop, lora_v, tmp_path / "cut", *flags, "--steps=3", "--save-every=1")
    config = read_json(cut / "config.json")
    assert config["config"]["steps"] == 3
    take(shop, lora_v, cut, *flags, *long, "--resume")
    for step in range(4):
        name = f"step_{step:03d}.jsonl.gz"
        assert read_jsonl(whole / "rollouts" / name) == read_jsonl(cut / "rollouts" / name)
    shutil.rmtree(cut)
