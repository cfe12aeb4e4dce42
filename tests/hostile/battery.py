"""The battery in every mode. As a command it runs all cases, 50 times where they are repeated:

    python -m tests.hostile.battery      a line for each user, sandbox and view

It ends with 1 if one of them did not hold. A line takes half a minute to two minutes on two cores. The
ordinary user is "nobody", whom only root can become.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hackward.grading.sandbox import usable_bubblewrap
from tests import lacks

ROOT = Path(__file__).resolve().parents[2]
DRIVER = ROOT / "tests/hostile/driver.py"
NOBODY = 65534
SECONDS_OVER = 5.0  # that a worker may be held for longer than its limits
HEAD = """\
| user | sandbox | view | cases | runs | credited | right failed | left behind | over its limits | seconds |
|---|---|---|--:|--:|--:|--:|--:|--:|--:|"""


class NotHere(Exception):
    """This machine, or this user, cannot run the battery in that mode."""


def _closed_ancestor(path: Path) -> Path | None:
    """The topmost directory on the way to `path` that others may not pass, None if the way is open."""
    for ancestor in [*reversed(path.parents), path]:
        if not ancestor.stat().st_mode & 0o001:
            return ancestor
    return None


def as_nobody(command: Sequence[str]) -> list[str]:
    """`command` as an ordinary user, in a mount namespace where the interpreter is reachable for it."""
    needed = list(dict.fromkeys([Path(sys.base_prefix), Path(sys.prefix), ROOT]))
    closed = {ancestor for path in needed if (ancestor := _closed_ancestor(path))}
    steps = ["set -e", "old=$(mktemp -d)"]
    for ancestor in sorted(closed):
        steps += [
            f"mount --bind {shlex.quote(str(ancestor))} $old",
            f"mount -t tmpfs -o mode=0755 tmpfs {ancestor}",
        ]
        for path in needed:
            if path.is_relative_to(ancestor):
                target, source = shlex.quote(str(path)), f"$old/{path.relative_to(ancestor)}"
                steps += [f"mkdir -p {target}", f"mount --bind {source} {target}"]
        steps.append("umount $old")
    become = f"setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups"
    steps += ["rmdir $old", f"exec {become} {shlex.join(command)}"]
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", "\n".join(steps)]


def battery(sandbox: str, bubblewrap: bool, ordinary: bool, *options: str) -> dict[str, Any]:
    """The driver's report. NotHere where the view or the user is not to be had."""
    if bubblewrap and usable_bubblewrap() is None:
        raise NotHere(lacks.BUBBLEWRAP)
    command = [sys.executable, "-B", str(DRIVER), "--sandbox", sandbox]
    command += ["--bubblewrap", str(int(bubblewrap)), *options]
    if ordinary and os.geteuid() == 0:
        if not (shutil.which("setpriv") and shutil.which("unshare")):
            raise NotHere("setpriv and unshare are needed to become another user: apt-get install util-linux")
        command = as_nobody(command)
    elif not ordinary and os.geteuid() != 0:
        raise NotHere("only root can become another user: run it as root")
    done = subprocess.run(
        command, capture_output=True, text=True, cwd="/", start_new_session=True, timeout=580
    )
    if done.returncode and "unshare" in done.stderr:
        raise NotHere(f"no mount namespace here: {done.stderr.strip()[-100:]}")
    if done.returncode:
        raise RuntimeError(f"the process that graded ended with {done.returncode}: {done.stderr[-500:]}")
    report = json.loads(done.stdout)
    assert (report["uid"] != 0) == ordinary
    return report


def left_behind(report: dict[str, Any]) -> list[str]:
    """What a battery must not leave: processes, files, arrivals at a port, changes of a directory."""
    found = [f"process {pid}" for pid in report["survivors"]] + report["files"] + report["reached"]
    if report["target"] != ["secret.txt"]:
        found.append(f"target holds {report['target']}")
    return found


def faults(report: dict[str, Any]) -> dict[str, Any]:
    """What did not hold in a report; empty if all did."""
    found = {
        "credited": report["wrong_credited"],
        "right failed": report["right_failed"],
        "left behind": left_behind(report),
    }
    over = report["held"]["most_over"]
    if over >= SECONDS_OVER:
        found["held too long"] = over
    return {name: fault for name, fault in found.items() if fault}


def table_row(user: str, sandbox: str, view: str, report: dict[str, Any]) -> str:
    """A report as a line of the table under HEAD."""
    lists = (report["wrong_credited"], report["right_failed"], left_behind(report))
    over = f"{max(0.0, report['held']['most_over']):.1f} s"
    counts = [report["cases"], report["runs"], *map(len, lists), over, round(report["seconds"])]
    return f"| {' | '.join(map(str, [user, sandbox, view, *counts]))} |"


def main() -> int:
    """Print the table; 1 if a mode did not hold."""
    print(HEAD, flush=True)
    held = True
    for user in ("root", "ordinary"):
        for sandbox in ("strict", "best-effort"):
            for view in ("own", "bubblewrap"):
                try:
                    report = battery(sandbox, view == "bubblewrap", user == "ordinary")
                except NotHere as why:
                    print(f"| {user} | {sandbox} | {view} | not run: {why} |", flush=True)
                    continue
                print(table_row(user, sandbox, view, report), flush=True)
                if faults(report):
                    held = False
                    print(json.dumps(faults(report)), file=sys.stderr)
    return int(not held)


if __name__ == "__main__":
    sys.exit(main())
