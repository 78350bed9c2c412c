"""What a decay phase would give (torchtitan #3982), against real branches, and exactly where it must be exact."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from spectrain.optim import Muon, ScheduleLR, WarmupDecay, WeightAverage
from spectrain.optim._profile import combination, decayed_profile
from spectrain.optim._schedule import TAILS

STABLE, DECAY = 400, 160
LIVES = [DECAY / 16, DECAY / 8, DECAY / 4, DECAY / 2]


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("shrink", [0.0, 0.02])
def test_the_profile_is_the_branch_where_the_updates_are_the_same(tail, shrink):
    """Scalar weights, random updates that do not depend on the weights: the branch written out, step by step."""
    updates = np.random.default_rng(0).normal(size=60)
    rate, decay = 0.1, 25
    theta = [1.0]
    for u in updates:
        theta.append((1 - shrink) * theta[-1] - rate * u)
    branch = theta[0]
    for t, u in enumerate(updates):
        a = TAILS[tail](min(1.0, max(0.0, (t - (len(updates) - decay)) / decay)))
        branch = (1 - shrink * a) * branch - rate * a * u
    weights = decayed_profile(decay, np.ones(len(theta)), TAILS[tail], shrink=shrink)
    assert abs(weights @ np.array(theta) - branch) < 1e-12
    for other in set(TAILS) - {tail}:
        assert abs(decayed_profile(decay, np.ones(61), TAILS[other], shrink=shrink) @ np.array(theta) - branch) > 1e-4


def test_a_linear_tail_is_the_mean_of_the_last_steps():
    np.testing.assert_allclose(decayed_profile(4, np.ones(9), TAILS["linear"]), [0] * 5 + [0.25] * 4, atol=1e-15)


def test_the_half_lives_that_the_manual_names_reach_the_error_that_it_names():
    for tail, said in (("linear", 0.325), ("cosine", 0.215), ("sqrt", 0.4)):
        target = decayed_profile(DECAY, np.ones(STABLE), TAILS[tail])
        assert combination(LIVES, target, np.ones(STABLE))[1] < said


class Task:
    """A small network on noisy labels: the loss at a constant rate stays above what a decay reaches."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(4096, 8, generator=generator)
        teacher = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))
        for i, p in enumerate(teacher.parameters()):
            p.data = torch.randn(p.shape, generator=torch.Generator().manual_seed(i)) / max(1, p.shape[-1]) ** 0.5
        self.clean = teacher(self.x).detach()
        self.noisy = self.clean + 0.5 * torch.randn(4096, 1, generator=generator)

    def loss(self, model):
        with torch.no_grad():
            return float((model(self.x) - self.clean).square().mean())

    def step(self, model, optimizer, t):
        rows = torch.randint(0, 4096, (32,), generator=torch.Generator().manual_seed(t))
        optimizer.zero_grad()
        (model(self.x[rows]) - self.noisy[rows]).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("kind", ["muon", "adamw"])
def test_the_estimate_is_near_a_real_branch(kind):
    """Same data, same budget: the branch leaves ``DECAY`` steps before the end, the estimate needs no branch."""
    task = Task()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 1))
    make = {
        "muon": lambda m: Muon(m, lr=3e-2, weight_decay=0.1, compute_dtype="float32"),
        "adamw": lambda m: torch.optim.AdamW(m.parameters(), lr=3e-2),
    }[kind]
    optimizer, branch = make(model), None
    average = WeightAverage(model, half_lives=LIVES)
    for t in range(STABLE):
        if t == STABLE - DECAY:
            branch, other = copy.deepcopy((model, optimizer))
        task.step(model, optimizer, t)
        average.update()
    scheduler = ScheduleLR(other, WarmupDecay(steps=DECAY))
    for t in range(STABLE - DECAY, STABLE):
        task.step(branch, other, t)
        scheduler.step()
    weights, error = average.decayed(DECAY, shrink=3e-2 * 0.1)
    assert error < 0.35
    stable, decayed = task.loss(model), task.loss(branch)
    with average.applied(weights=weights):
        estimated = task.loss(model)
    assert decayed < 0.5 * stable  # else there would be nothing to estimate
    assert abs(estimated - decayed) < 0.2 * (stable - decayed), (stable, decayed, estimated)
    assert task.loss(model) == stable


@pytest.mark.parametrize("wrong", [{"decay": 0}, {"decay": 11}, {"decay": 4, "tail": "exp"}, {"decay": 4, "shrink": 1}])
def test_impossible_decays_are_refused(wrong):
    model = nn.Linear(2, 2)
    average = WeightAverage(model, half_lives=[2, 4])
    for _ in range(10):
        average.update()
    with pytest.raises(ValueError, match="the training so far"):
        average.decayed(**wrong)
