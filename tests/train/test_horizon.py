"""Learning rates: up, then down to zero; the same before and after a clock has fixed the steps."""

import json
import math
import shutil

import pytest
import torch

from spectrain import train
from spectrain.optim.schedules import Refined
from spectrain.train._run.horizon import (
    CALIBRATION,
    factors,
    known_steps,
    learning_rate_factor,
    steps_by_clock,
)
from spectrain.train.config import TrainConfig

from .test_run import assert_same_run, interrupted, rows


def without(flags, name):
    """The flags but for one."""
    return {key: value for key, value in flags.items() if key != name}


@pytest.mark.parametrize(("warmup", "steps"), [(20, 300), (1, 10), (0, 5), (50, 60), (100, 20), (2, 1), (0, 1)])
def test_up_to_one_and_down_towards_zero(warmup, steps):
    rates = [learning_rate_factor(t, warmup=warmup, steps=steps, clock=False) for t in range(steps)]
    assert all(0 < rate <= 1 for rate in rates)
    assert max(rates) == 1
    peak = rates.index(1)
    assert rates[:peak] == sorted(rates[:peak])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    drops = [a - b for a, b in zip(rates[warmup + 1 :], rates[warmup + 2 :], strict=False)]
    assert max(drops, default=0) - min(drops, default=0) < 1e-12
    assert steps == 1 or rates[-1] <= 1 / (steps - steps // 2)


@pytest.mark.parametrize("warmup", [0, 5, 20, 40])
def test_fixing_the_steps_late_changes_no_rate_that_was_used(warmup):
    for t in range(CALIBRATION):
        unknown = learning_rate_factor(t, warmup=warmup, steps=None, clock=True)
        assert unknown == learning_rate_factor(t, warmup=warmup, steps=500, clock=True)


@pytest.mark.parametrize(("warmup", "steps"), [(40, 25), (300, 100), (20, 21), (0, 21)])
def test_a_clock_that_ends_early_still_ends_near_zero(warmup, steps):
    rates = [learning_rate_factor(t, warmup=warmup, steps=steps, clock=True) for t in range(steps)]
    before = [learning_rate_factor(t, warmup=warmup, steps=None, clock=True) for t in range(CALIBRATION)]
    assert rates[:CALIBRATION] == before
    assert rates[-1] <= max(rates) / (steps - max(CALIBRATION, steps // 2)) + 1e-12
    assert all(a >= b for a, b in zip(rates[steps // 2 + 20 :], rates[steps // 2 + 21 :], strict=False))


def test_a_schedule_that_forgets_the_clock_would_change_them():
    forgets = [learning_rate_factor(t, warmup=5, steps=100, clock=False) for t in range(CALIBRATION)]
    assert forgets != [learning_rate_factor(t, warmup=5, steps=None, clock=True) for t in range(CALIBRATION)]


@pytest.mark.parametrize(
    ("limits", "steps"),
    [
        ({"max_steps": 7}, 7),
        ({"max_tokens": 8192}, 2),
        ({"max_tokens": 10}, 1),
        ({"max_steps": 7, "max_tokens": 8192}, 2),
        ({"max_steps": 7, "max_minutes": 1.0}, 7),
        ({"max_steps": 70, "max_minutes": 1.0}, None),
        ({"max_tokens": 8192, "max_minutes": 1.0}, 2),
        ({"max_minutes": 1.0, "horizon": 33}, 33),
    ],
)
def test_the_steps_that_need_no_clock(limits, steps):
    assert known_steps(TrainConfig(**limits)) == steps


def test_a_clock_gives_steps_that_fit_and_never_fewer_than_were_done():
    one = TrainConfig(max_minutes=1.0)
    steps = steps_by_clock(one, step_seconds=0.1, elapsed=2.0)
    assert steps > CALIBRATION
    assert 2.0 + (steps - CALIBRATION) * 0.1 <= 60
    assert steps_by_clock(one, step_seconds=0.1, elapsed=1000.0) == CALIBRATION + 1
    assert steps_by_clock(TrainConfig(max_minutes=1.0, max_steps=25), step_seconds=0.1, elapsed=2.0) == 25


CLOSED = {
    "linear": lambda x: 1 - x,
    "cosine": lambda x: (1 + math.cos(math.pi * x)) / 2,
    "wsd": lambda x: 1.0 if x < 0.8 else 1 - math.sqrt((x - 0.8) / 0.2),
}


@pytest.mark.parametrize("name", CLOSED)
@pytest.mark.parametrize("final", [0.0, 0.1])
def test_a_schedule_is_its_closed_form_after_warm_up(name, final):
    config = TrainConfig(schedule=name, final_lr=final, warmup=10, max_steps=110, lr=0.01)
    for step in range(10, 110):
        wanted = final + (1 - final) * CLOSED[name]((step - 10) / 100)
        assert factors(config, step, steps=110) == (pytest.approx(wanted, abs=1e-12), 1.0)
        others = [CLOSED[other]((step - 10) / 100) for other in CLOSED if other != name]
        assert step != 95 or all(abs(other - CLOSED[name](0.85)) > 0.01 for other in others)


@pytest.mark.parametrize("name", ["uniform", "uniform-joint"])
@pytest.mark.parametrize("steps", [40, 200])
def test_under_a_uniform_schedule_every_update_after_warm_up_weighs_the_same(name, steps):
    """By multiplying out what decay does to each update, wherever the run ends."""
    config = TrainConfig(schedule=name, lr=0.02, weight_decay=0.5, warmup=8, max_steps=steps)
    rates, decays = zip(*(factors(config, step, steps=steps) for step in range(steps)), strict=True)
    weights = []
    for t in range(steps):
        kept = math.prod(1 - 0.02 * rates[s] * 0.5 * decays[s] for s in range(t + 1, steps))
        weights.append(0.02 * rates[t] * kept)
    assert max(weights[7:]) - min(weights[7:]) < 1e-15
    assert max(weights[:7]) < weights[7]
    assert (set(decays) == {1.0}) == (name == "uniform")


def test_a_decay_that_moves_along_reaches_the_groups_and_comes_back_after_a_resume(tiny, tmp_path):
    flags = {**tiny, "schedule": "uniform-joint", "weight_decay": 0.5, "lr": 0.05}
    whole = train.train(TrainConfig(**flags, out_dir=str(tmp_path / "whole")))
    interrupted(flags, tmp_path / "half", 6)
    half = train.train(TrainConfig(**flags, out_dir=str(tmp_path / "half"), resume="auto"))
    assert_same_run(half, whole)
    state = torch.load(sorted((whole / "checkpoints").iterdir())[-1] / "state.pt", weights_only=False)
    decayed = {group["weight_decay"] for group in state["optimizer"]["param_groups"]}
    fall = factors(TrainConfig(**flags), 11, steps=12).weight_decay
    assert fall < 0.9
    assert 0.5 * fall in decayed


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"max_minutes": 1.0}, "--max-minutes must be left out with --schedule uniform"),
        ({"final_lr": 0.1}, "--final-lr must be left out with --schedule uniform"),
        ({"weight_decay": 0.0}, "--weight-decay must be positive with --schedule uniform"),
        ({"weight_decay": 0.5, "lr": 2.0}, "--lr must be below 1 / --weight-decay = 2 with --schedule uniform"),
        ({"decay": "cautious"}, "--decay must be decoupled with --schedule uniform"),
        ({"decay": "spectral"}, "--decay must be decoupled with --schedule uniform"),
    ],
)
def test_what_a_schedule_without_an_end_cannot_be_given(flags, said):
    with pytest.raises(ValueError, match=said):
        TrainConfig(schedule="uniform", **flags)


def test_a_refined_schedule_follows_the_norms_of_another_run_and_keeps_them(tiny, tmp_path):
    first = train.train(TrainConfig(**tiny, out_dir=str(tmp_path / "first")))
    flags = {**without(tiny, "warmup"), "schedule": "refined", "schedule_from": str(first), "max_steps": 8}
    whole = train.train(TrainConfig(**flags, out_dir=str(tmp_path / "whole")))
    lines = [json.loads(line) for line in (first / "metrics.jsonl").read_text("utf-8").splitlines()]
    norms = [row["grad_norm"] for row in lines if row["kind"] == "step"]
    wanted, _ = Refined(norms=norms, steps=8).values(8, lr=3e-3, weight_decay=0.1)
    assert [row["lr"] for row in rows(whole) if row["kind"] == "step"] == pytest.approx(wanted.tolist(), rel=1e-12)
    interrupted(flags, tmp_path / "half", 6)
    shutil.rmtree(first)
    assert_same_run(train.train(TrainConfig(**flags, out_dir=str(tmp_path / "half"), resume="auto")), whole)


def test_a_refined_schedule_needs_its_run(tiny, tmp_path):
    with pytest.raises(ValueError, match="--schedule-from must be given with --schedule refined"):
        TrainConfig(schedule="refined", max_steps=4)
    with pytest.raises(ValueError, match="--schedule-from must be given with --schedule refined"):
        TrainConfig(schedule_from="x")
    flags = {**without(tiny, "warmup"), "schedule": "refined", "out_dir": str(tmp_path / "run")}
    with pytest.raises(ValueError, match=r"is not a run folder: it has no metrics\.jsonl"):
        train.train(TrainConfig(**flags, schedule_from=str(tmp_path)))
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="--warmup must be left out with --schedule refined"):
        TrainConfig(**flags, schedule_from=str(tmp_path), warmup=3)


def logged(folder, norms):
    """A folder with the metrics of a run whose steps had these gradient norms."""
    folder.mkdir(exist_ok=True)
    rows = [{"kind": "step", "step": i, "grad_norm": norm} for i, norm in enumerate(norms, 1)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(folder)


@pytest.mark.parametrize(
    ("norms", "said"),
    [
        ([1.0, None], "has the gradient norm None at step 2"),
        ([1.0, 2.0, math.inf], "has the gradient norm inf at step 3"),
        ([0.0], "has the gradient norm 0.0 at step 1"),
        (["x"], "has the gradient norm x at step 1"),
        ([True], "has the gradient norm True at step 1"),
        ([], "has not logged any step"),
    ],
)
def test_norms_that_no_rate_can_follow_are_refused_before_anything_is_written(tiny, tmp_path, norms, said):
    flags = {**without(tiny, "warmup"), "schedule": "refined", "schedule_from": logged(tmp_path / "first", norms)}
    with pytest.raises(ValueError, match=f"--schedule-from .*first {said}"):
        train.train(TrainConfig(**flags, out_dir=str(tmp_path / "run")))
    assert not (tmp_path / "run").exists()


def test_norms_are_those_of_today_though_another_run_stood_in_the_same_folders(tiny, tmp_path):
    flags = {**without(tiny, "warmup"), "schedule": "refined", "max_steps": 4, "eval_interval": 4, "sample_tokens": 0}
    for norms in ([1.0, 2.0, 4.0, 8.0], [8.0, 4.0, 2.0, 1.0]):
        source = logged(tmp_path / "first", norms)
        run = train.train(TrainConfig(**flags, schedule_from=source, out_dir=str(tmp_path / "run")))
        sums = [sum(norm**-2 for norm in norms[t:]) for t in range(4)]
        wanted = [norm**-2 * left for norm, left in zip(norms, sums, strict=True)]  # article 11530
        found = [row["lr"] for row in rows(run) if row["kind"] == "step"]
        assert found == pytest.approx([3e-3 * value / max(wanted) for value in wanted], rel=1e-12)
        shutil.rmtree(run)
