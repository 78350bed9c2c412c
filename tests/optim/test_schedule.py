"""Schedules: pure functions, and what drives an optimizer with them."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from spectrain.optim import Muon, ScheduleLR, WarmupDecay
from spectrain.optim.schedules import UniformMemory


def rates(schedule, steps):
    return schedule.values(steps, lr=1.0, weight_decay=1.0)[0]


def test_linear_to_zero_is_torchs():
    p = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([p], lr=1.0)
    theirs = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1.0, end_factor=1e-12, total_iters=50)
    found = []
    for _ in range(50):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()
    np.testing.assert_allclose(rates(WarmupDecay(steps=50), 50), found, atol=1e-9)


def test_cosine_is_torchs():
    p = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([p], lr=1.0)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 50, eta_min=0.1)
    found = []
    for _ in range(50):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()
    np.testing.assert_allclose(rates(WarmupDecay(steps=50, tail="cosine", final=0.1), 50), found, rtol=1e-9)


def test_warmup_stable_decay():
    """HF #34905: the counts of steps had to be worked out by hand."""
    found = rates(WarmupDecay(steps=100, warmup=10, decay=0.2, tail="1-sqrt"), 105)
    np.testing.assert_allclose(found[:10], np.arange(1, 11) / 10)
    assert (found[10:80] == 1.0).all()
    np.testing.assert_allclose(found[80:100], 1 - np.sqrt(np.arange(20) / 20))
    assert (found[100:] == 0.0).all()


@pytest.mark.parametrize("tail", ["linear", "cosine", "sqrt", "1-sqrt"])
def test_tails_fall_from_one_to_final_and_no_step_is_wasted(tail):
    found = rates(WarmupDecay(steps=40, warmup=4, decay=0.5, tail=tail, final=0.1), 42)
    assert found.max() == 1.0
    assert (np.diff(found[20:41]) < 0).all()
    np.testing.assert_allclose(found[40:], 0.1)
    assert found[39] > 0.1
    assert (rates(WarmupDecay(steps=40, warmup=4, tail=tail), 40) > 0).all()


def test_constant_and_degenerate():
    assert (rates(WarmupDecay(steps=3, decay=0.0), 9) == 1.0).all()
    assert rates(WarmupDecay(steps=1), 1).tolist() == [1.0]
    assert rates(WarmupDecay(steps=4, warmup=4), 5).tolist() == [0.25, 0.5, 0.75, 1.0, 0.0]


BAD = [
    {"steps": 0},
    {"steps": 5, "tail": "exp"},
    {"steps": 5, "warmup": 6},
    {"steps": 5, "decay": 1.5},
    {"steps": 5, "final": -1},
]


@pytest.mark.parametrize("settings", BAD, ids=str)
def test_schedules_that_cannot_be(settings):
    with pytest.raises(ValueError, match="WarmupDecay"):
        WarmupDecay(**settings)
    with pytest.raises(ValueError, match="UniformMemory"):
        UniformMemory(lr=1.0, weight_decay=1.0)


def optimizer():
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 2))
    return Muon(net, lr=0.5, weight_decay=0.2, adamw_lr=0.25)


def settings(of):
    return [(group["lr"], group["weight_decay"]) for group in of.param_groups]


@pytest.mark.parametrize(
    "schedule", [WarmupDecay(steps=9, warmup=2, joint=True), UniformMemory(lr=0.5, weight_decay=0.2)]
)
def test_groups_keep_their_own_rates_and_decays(schedule):
    moved = optimizer()
    start = settings(moved)
    scheduler = ScheduleLR(moved, schedule)
    for step in range(10):
        factors = schedule(step)
        expected = [(lr * factors.lr, wd * factors.weight_decay) for lr, wd in start]
        np.testing.assert_allclose(settings(moved), expected, rtol=1e-14)
        moved.step()
        scheduler.step()


def test_resume_goes_on_with_the_decayed_rate():
    """sd-scripts #1653: the resumed run began at the full learning rate."""
    schedule = WarmupDecay(steps=10, joint=True)
    whole = optimizer()
    one = ScheduleLR(whole, schedule)
    for _ in range(4):
        whole.step()
        one.step()
    resumed = optimizer()
    two = ScheduleLR(resumed, schedule)
    resumed.load_state_dict(copy.deepcopy(whole.state_dict()))
    two.load_state_dict(copy.deepcopy(one.state_dict()))
    assert settings(resumed) == settings(whole)
    for each, scheduler in ((whole, one), (resumed, two)):
        each.step()
        scheduler.step()
    assert settings(resumed) == settings(whole)
    assert "schedule" not in one.state_dict()


def test_a_tensor_rate_is_moved_in_place():
    p = nn.Parameter(torch.ones(2, 2))
    moved = Muon([p], lr=torch.tensor(0.5))
    live = moved.param_groups[0]["lr"]
    scheduler = ScheduleLR(moved, WarmupDecay(steps=2))
    moved.step()
    scheduler.step()
    assert moved.param_groups[0]["lr"] is live
    assert live.item() == 0.25


FLAT = UniformMemory(lr=0.1, weight_decay=0.1)
SHARES = [(WarmupDecay(steps=5), "warmup", 0.1), (WarmupDecay(steps=5), "steps", 5.5), (FLAT, "warmup", 0.1)]


@pytest.mark.parametrize(("schedule", "field", "value"), SHARES, ids=["warmup", "steps", "flat"])
def test_a_warm_up_given_as_a_share_is_refused(schedule, field, value):
    """It would begin at 10 times the learning rate. Set afterwards, since the tests' type checks come before ours."""
    wrong = copy.copy(schedule)
    object.__setattr__(wrong, field, value)
    with pytest.raises(ValueError, match="integer"):
        wrong.__post_init__()
