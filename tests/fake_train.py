"""Behaves as train.py does towards a sweep, in milliseconds. Tests copy it beside the files that it reads.

settings.json: what config.json will say of each run. orders.json: what each run is to do: {run: {"die": step,
"hang": step, "sleep": seconds per step, "hack": hack rate, "kill": step before which it once kills the
process that started it, "fall": step before which it once kills itself}}.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

HOME = Path(__file__).parent
FLAGS = dict(arg.lstrip("-").split("=", 1) for arg in sys.argv[1:] if "=" in arg)
RUN, RESUME = Path(FLAGS["out"]), "--resume" in sys.argv


def read(name: str) -> dict:
    return json.loads((HOME / name).read_text())


def tell(event: str) -> None:
    call = {"event": event, "run": RUN.name, "resume": RESUME, "pid": os.getpid(), "time": time.time()}
    call["cards"] = os.environ.get("CUDA_VISIBLE_DEVICES")
    call["threads"] = os.environ.get("OMP_NUM_THREADS")
    call["pipes"] = os.environ.get("CUDA_MPS_PIPE_DIRECTORY")
    with open(HOME / "calls.jsonl", "a") as file:
        file.write(json.dumps(call) + "\n")


def checkpoint(step: int) -> None:
    """A safetensors file without tensors."""
    meta = json.dumps({"kind": "checkpoint", "step": step})
    header = json.dumps({"__metadata__": {"hackward": meta}}).encode()
    (RUN / "checkpoint.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)


def told_to_end(number: int, frame: object) -> None:
    tell("told to end")
    sys.exit(128 + number)


def kill_once(pid: int) -> None:
    marker = HOME / f"killed-{RUN.name}"
    if not marker.exists():
        marker.touch()
        os.kill(pid, signal.SIGKILL)
        time.sleep(300)


def hack_rate(settings: dict, orders: dict) -> float:
    usual = 0.5 if settings["arm"] == "vanilla" or settings["gate"] == "none" else 0.1
    return orders.get("hack", usual) + 0.01 * (settings["seed"] % 3)


def ends_after(settings: dict, orders: dict) -> int | None:
    """The last step with --stop-after-breakout: a constant rate above 0.1 breaks out at step 2."""
    after = settings["stop_after_breakout"]
    return 2 + after if after and hack_rate(settings, orders) > 0.1 else None


def main() -> None:
    if os.environ.get("RANK", "0") != "0":
        return  # under torchrun the first process writes
    settings, orders = read("settings.json")[RUN.name], read("orders.json").get(RUN.name, {})
    signal.signal(signal.SIGTERM, told_to_end)
    tell("start")
    if RESUME and not (RUN / "checkpoint.safetensors").exists():
        sys.exit("error: resume without a checkpoint")
    if RUN.exists() and not RESUME:
        sys.exit("error: a directory that is not new")
    RUN.mkdir(parents=True, exist_ok=True)
    rows = (RUN / "rows.jsonl").read_text().splitlines() if RESUME else []
    record = {"kind": "sampled", "config": settings, "v_hack": None, "model": None, "pools": []}
    (RUN / "config.json").write_text(json.dumps(record | {"seconds_set_up": 7.0}))
    if settings["control"] != "none" and not RESUME:
        (RUN / "removed_000.safetensors").touch()
    stopped = None
    for step in range(len(rows), settings["steps"]):
        time.sleep(orders.get("sleep", 0))
        if step == orders.get("hang"):
            time.sleep(300)
        if step == orders.get("kill"):
            kill_once(os.getppid())
        if step == orders.get("fall"):
            kill_once(os.getpid())
        if step == orders.get("die"):
            print("a traceback")
            sys.exit("error: out of memory")
        row = {"step": step, "seconds": 2.0, "hack_rate": hack_rate(settings, orders), "gt_rate": 0.1}
        rows.append(json.dumps(row))
        (RUN / "rows.jsonl").write_text("\n".join(rows) + "\n")
        if step % 2:
            checkpoint(step + 1)
        if ends_after(settings, orders) == step:
            checkpoint(step + 1)
            stopped = f"hacking broke out at step 2 (--stop-after-breakout={settings['stop_after_breakout']})"
            break
    summary = {"finished": True, "steps": len(rows), "seconds": 2.0 * len(rows), "stopped": stopped}
    (RUN / "summary.json").write_text(json.dumps(summary))
    tell("end")


if __name__ == "__main__":
    main()
