"""Learning rates: up, then down to zero; the same before and after a clock has fixed the steps."""

import pytest

from spectrain.train._run.horizon import CALIBRATION, known_steps, learning_rate_factor, steps_by_clock
from spectrain.train.config import TrainConfig


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
