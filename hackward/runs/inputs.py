"""What a run is given by path or name, looked for before torch is imported. No torch in here."""

from __future__ import annotations

import os
from pathlib import Path

from hackward.base.faults import InputError
from hackward.base.space import check_space
from hackward.grading.descriptors import check_descriptors
from hackward.rollouts.places import check_place
from hackward.runs.settings import Config
from hackward.runs.tracking import check_tracker
from hackward.tasks.shipped import check_model

LEAST_BYTES = 1 << 20  # config.json, rows and rollouts of the shortest run


def check_inputs(config: Config) -> None:
    """InputError for a model, v_hack or pool that is not there, or a machine that cannot run it.

    What is inside of them is found out when they are read.
    """
    check_model(config.model)
    check_tracker(config.track)
    if config.v_hack not in ("auto", "none") and not Path(config.v_hack).is_file():
        raise InputError(
            f"{config.v_hack}: no such file (--v-hack; `auto` extracts one, `none` does without)"
        )
    pools = [("--replay-dirs", pool) for pool in (config.replay_dirs or "").split(",") if pool]
    if config.teacher_dir not in (None, "pairs"):
        pools.append(("--teacher-dir", str(config.teacher_dir)))
    for flag, pool in pools:
        try:
            check_place(pool)
        except InputError as fault:
            raise InputError(f"{flag} {fault}") from None
    if config.kind == "sampled":
        check_descriptors(config.workers or len(os.sched_getaffinity(0)))
    check_space(config.out or "out/runs", LEAST_BYTES, "the shortest run")
