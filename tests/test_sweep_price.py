"""What a sweep will take and cost, from what measured runs recorded."""

from __future__ import annotations

import dataclasses

import pytest

from hackward.base.faults import InputError
from hackward.base.files import write_json
from hackward.scheduling.plan import plan, stages
from hackward.scheduling.price import Clock, Speed, speed_of, wall_hours
from tests.sweeps import measured_run


def test_speed_is_the_median_without_the_first_step_and_the_rest_is_what_the_run_recorded(tmp_path):
    run = measured_run(tmp_path / "r", [100, 10, 12, 11, 50], set_up=77.0, evaluating={2: 30.0, 5: 10.0})
    assert speed_of(run) == Speed(11.5, 20.0, 77.0, str(run))
    assert speed_of(measured_run(tmp_path / "s", [100])) is None


def test_what_a_run_did_not_record_is_unknown_and_no_file_time_stands_in(tmp_path):
    assert speed_of(measured_run(tmp_path / "r", [100, 3])) == Speed(3, None, None, str(tmp_path / "r"))
    # One evaluation of two has no time.
    run = measured_run(tmp_path / "s", [100, 3], set_up=1.0, evaluating={1: 9.0, 2: None})
    write_json(run / "summary.json", {"finished": True, "steps": 2, "seconds": 200})
    assert speed_of(run).evaluation is None


def test_measured_must_be_a_run(tmp_path):
    write_json(tmp_path / "config.json", ["no run"])
    with pytest.raises(InputError, match="config.json: not the config.json of a run"):
        speed_of(tmp_path)


def test_the_hours_left_are_those_worked_out_by_hand(world):
    config = world.config(steps=100, arms="vanilla,projected,lora")
    jobs = plan(config, ["--eval-samples=1", "--eval-every=40"])
    jobs[0].state, jobs[1].state, jobs[1].step = "done", "resume", 64
    times = Clock({"": Speed(90.0, 360.0, None, "x")}, set_up=0.0)
    # 36 * 90 s, evaluated after 80 and 100; then 100 * 90 s, evaluated after 40, 80 and 100.
    hours = [times.hours(job) for job in jobs]
    assert hours == pytest.approx([0, 0.9 + 0.2] + [2.5 + 0.3] * 7)
    groups = stages(jobs, world.config())
    assert [len(group) for group in groups.values()] == [3, 3, 3]
    assert wall_hours(groups, times, 1) == pytest.approx(sum(hours))
    # Lanes [0 + 2.8 | 1.1], then twice [2.8 + 2.8 | 2.8].
    assert wall_hours(groups, times, 2) == pytest.approx((1 + 2 + 2) * 2.8)
    assert wall_hours({"all": jobs}, Clock({}, 60.0), 2) is None


def test_the_plan_shows_hours_and_cost_and_writes_nothing(world, capsys):
    flags = {"arms": "vanilla", "steps": 40, "measured": "90", "set_up_seconds": 0, "price_per_hour": 4}
    assert world.sweep(**flags, dry_run=True, jobs=3) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "to go: 3.00 hours of GPU, 1.00 wall hours with --jobs=3" in out
    assert "cost 4.00 for one machine, in the currency of --price-per-hour" in out
    assert not world.out.exists()


def test_a_recorded_set_up_is_in_the_hours(world, tmp_path, capsys):
    run = measured_run(tmp_path / "r", [90, 90], set_up=3600.0)
    assert world.sweep(arms="vanilla", steps=40, measured=str(run), dry_run=True) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "to go: 6.00 hours of GPU" in out and "set-up 3600 s a run" in out


def test_a_measurement_with_other_settings_warns(world, tmp_path, capsys):
    settings = dataclasses.asdict(plan(world.config(), [])[0].settings)
    run = measured_run(tmp_path / "r", [9, 9, 9], **settings | {"group": 32, "max_new_tokens": 99})
    assert world.sweep(arms="vanilla", seeds="41", measured=str(run), dry_run=True) == 0
    out = " ".join(capsys.readouterr().out.split())
    warning = out.partition("WARNING")[2]
    assert "9.00 s a step" in out and "prompts" not in warning
    assert "group 32 there, 4 here" in warning and "max_new_tokens 99 there, 16 here" in warning


def test_finished_runs_are_the_better_source(world, capsys):
    assert world.sweep(arms="vanilla", seeds="41") == 0
    capsys.readouterr()
    assert world.sweep(arms="vanilla", seeds="41,42", measured="9", dry_run=True) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "2.00 s a step (finished runs of this sweep: 1)" in out and "set-up 7 s a run" in out
    assert world.sweep(arms="vanilla", seeds="44", dry_run=True) == 0
    how = "hours are unknown; measure: python train.py --preset=smoke --steps=3 --out=DIR"
    assert how in capsys.readouterr().out
