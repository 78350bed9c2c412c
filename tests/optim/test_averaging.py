"""Training is a weighted average of its updates: exactly, in both directions."""

import math

import numpy as np
import pytest
import torch

from spectrain.optim import Muon, WarmupDecay
from spectrain.optim.averaging import averaging_coefficients, schedule_from_coefficients
from spectrain.optim.schedules import UniformMemory

rng = np.random.default_rng(0)

RUNS = {
    "constant": (np.full(200, 1e-2), np.full(200, 0.1)),
    "random": (rng.uniform(0, 0.5, 200), rng.uniform(0, 1.5, 200)),
    "no decay": (np.full(50, 0.3), np.zeros(50)),
    "zero rates": (np.where(np.arange(60) % 3, 0.2, 0.0), np.full(60, 0.5)),
    "everything forgotten": (np.r_[np.full(5, 0.2), 1.0, np.full(5, 0.2)], np.r_[np.ones(5), 1.0, np.ones(5)]),
    "decay beyond one": (np.full(20, 1.5), np.full(20, 1.0)),
    "linear to zero": WarmupDecay(steps=300, warmup=20).values(300, lr=0.05, weight_decay=0.1),
}


def simulated(rates, decays, updates, start):
    theta = start.copy()
    for lr, wd, u in zip(rates, decays, updates, strict=True):
        theta = theta - lr * (u + wd * theta)
    return theta


def gap(found, rates, decays):
    updates = np.random.default_rng(1).standard_normal((len(rates), 4))
    start = np.array([1.0, -2.0, 3.0, 0.5])
    truth = simulated(rates, decays, updates, start)
    return np.abs(found.initial * start - found.coefficients @ updates - truth).max() / np.abs(truth).max()


@pytest.mark.parametrize(("rates", "decays"), RUNS.values(), ids=RUNS)
def test_final_weights_are_the_weighted_sum(rates, decays):
    assert gap(averaging_coefficients(rates, decays), rates, decays) < 1e-12


def approximate(rates, decays):
    """The article's exp(-lr wd) for 1 - lr wd."""
    kappa = np.cumsum(rates * decays)
    return np.exp(kappa - kappa[-1]) * rates


WRONG = {
    "exponential instead of product": approximate,
    "shifted by one step": lambda lr, wd: np.r_[averaging_coefficients(lr, wd).coefficients[1:], lr[-1]],
    "decay of the step itself counted": lambda lr, wd: averaging_coefficients(lr, wd).coefficients * (1 - lr * wd),
    "reversed": lambda lr, wd: averaging_coefficients(lr, wd).coefficients[::-1],
    "learning rates alone": lambda lr, wd: lr,
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_the_check_rejects_wrong_weights(wrong):
    rates, decays = RUNS["random"]
    found = averaging_coefficients(rates, decays)
    spoiled = type(found)(wrong(rates, decays), found.initial)
    assert gap(spoiled, rates, decays) > 1e-3


def test_it_describes_muon_itself():
    """Real steps of Muon and AdamW in float64, schedule and all, from the updates seen in between."""
    generator = torch.Generator().manual_seed(0)
    p = torch.nn.Parameter(torch.randn(4, 3, generator=generator, dtype=torch.float64))
    q = torch.nn.Parameter(torch.randn(5, generator=generator, dtype=torch.float64))
    optimizer = Muon([{"params": [p]}, {"params": [q], "algorithm": "adamw"}], lr=0.1, weight_decay=0.5)
    schedule = WarmupDecay(steps=12, warmup=3, joint=True)
    rates, decays = schedule.values(12, lr=0.1, weight_decay=0.5)
    starts, sums = [w.detach().clone() for w in (p, q)], [0.0, 0.0]
    found = averaging_coefficients(rates, decays, betas=(0.9, 0.95))
    for t in range(12):
        before = [w.detach().clone() for w in (p, q)]
        for group in optimizer.param_groups:
            group["lr"], group["weight_decay"] = rates[t], decays[t]
        p.grad, q.grad = torch.randn(4, 3, generator=generator).double(), torch.randn(5, generator=generator).double()
        optimizer.step()
        for i, w in enumerate((p, q)):
            update = (before[i] - w.detach()) / rates[t] - decays[t] * before[i]
            sums[i] = sums[i] + found.coefficients[t] * update
    for start, total, w in zip(starts, sums, (p, q), strict=True):
        torch.testing.assert_close(found.initial * start - total, w.detach(), rtol=1e-12, atol=1e-12)


def test_gradients_through_the_momentum_of_sgd():
    rates, decays = RUNS["random"]
    beta, gradients = 0.8, np.random.default_rng(2).standard_normal((200, 3))
    m, updates = np.zeros(3), []
    for g in gradients:
        m = beta * m + (1 - beta) * g
        updates.append(m)
    found = averaging_coefficients(rates, decays, betas=beta)
    theta = simulated(rates, decays, np.array(updates), np.ones(3))
    np.testing.assert_allclose(found.initial - found.gradients @ gradients, theta, rtol=1e-11, atol=1e-12)
    assert math.isclose(found.momentum_half_life, math.log(0.5) / math.log(0.8))


def test_static_gradient_weights_are_the_articles():
    """(1-b3)(1-b1)/(b3-b1) (b3^(t-j+1) - b1^(t-j+1)) / wd with b3 = 1 - lr wd."""
    lr, wd, b1, steps = 0.01, 0.5, 0.9, 300
    b3, age = 1 - lr * wd, steps - np.arange(steps)
    truth = (1 - b3) * (1 - b1) / (b3 - b1) * (b3**age - b1**age) / wd
    np.testing.assert_allclose(averaging_coefficients([lr] * steps, wd, betas=b1).gradients, truth, rtol=1e-10)


def test_for_adam_only_the_momentums_own_average_is_reported():
    found = averaging_coefficients([0.1] * 5, 0.1, betas=(0.9, 0.99))
    assert found.gradients is None
    assert math.isclose(found.momentum_half_life, math.log(2) / -math.log(0.9))
    assert averaging_coefficients([0.1] * 5, 0.1).momentum_half_life is None
    assert averaging_coefficients([0.1] * 5, 0.1, betas=0.0).momentum_half_life == 0.0


def test_half_life():
    lr, wd = 1e-3, 0.1
    found = averaging_coefficients([lr] * 200_000, wd)
    assert math.isclose(found.half_life, math.log(2) / (lr * wd), rel_tol=1e-3)
    assert math.isclose(found.half_life_tokens(4096), 4096 * found.half_life)
    assert math.isclose(found.half_life_epochs(1000), found.half_life / 1000)
    assert math.isclose(averaging_coefficients([0.5] * 40, 0.0).half_life, 20.0)
    assert averaging_coefficients([0.0] * 3, 0.0).half_life == math.inf


@pytest.mark.parametrize(
    ("lr", "wd"), [(0.1, 0.1), ([], 0.1), ([0.1, 0.2], [0.1]), ([-0.1], 0.1), ([math.nan], 0.1), ([0.1], -0.1)]
)
def test_bad_sequences(lr, wd):
    with pytest.raises(ValueError, match="averaging_coefficients"):
        averaging_coefficients(lr, wd)


WANTED = {
    "flat": np.ones(300),
    "linear": np.arange(1.0, 301),
    "last fifth": (np.arange(300) >= 240).astype(float),
    "hump": np.sin(np.linspace(0, np.pi, 300)),
    "random": np.random.default_rng(3).uniform(0, 1, 300),
    "one step": np.eye(300)[17],
}


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("wanted", WANTED.values(), ids=WANTED)
def test_the_inverse_is_the_inverse(wanted, joint):
    rates, decays = schedule_from_coefficients(wanted, lr=0.05, weight_decay=0.4, joint=joint)
    found = averaging_coefficients(rates, decays).coefficients
    np.testing.assert_allclose(found / found.sum(), wanted / wanted.sum(), rtol=1e-11, atol=1e-15)
    assert math.isclose(rates.max(), 0.05, rel_tol=1e-12)
    np.testing.assert_allclose(decays, 0.4 * rates / 0.05 if joint else 0.4, rtol=1e-12)


def test_the_inverse_through_momentum():
    rates, decays = schedule_from_coefficients(np.ones(100), lr=0.05, weight_decay=0.4, momentum=0.9)
    gradients = averaging_coefficients(rates, decays, betas=0.9).gradients
    assert np.ptp(gradients) < 1e-12 * gradients.max()
    with pytest.raises(ValueError, match="step 1 has 1"):
        schedule_from_coefficients([1.0, 1.0, 2.0], lr=0.05, weight_decay=0.4, momentum=0.9)


@pytest.mark.parametrize("weights", [[], [0.0, 0.0], [1.0, -1.0], [math.inf], np.ones((2, 2))])
def test_the_inverse_refuses_what_cannot_be(weights):
    with pytest.raises(ValueError, match="finite weights"):
        schedule_from_coefficients(weights, lr=0.1, weight_decay=0.1)
    with pytest.raises(ValueError, match="weight_decay < 1"):
        schedule_from_coefficients([1.0], lr=2.0, weight_decay=1.0)


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("warmup", [0, 1, 30])
def test_uniform_memory_is_uniform_at_every_end(joint, warmup):
    schedule = UniformMemory(lr=0.1, weight_decay=0.5, joint=joint, warmup=warmup)
    for steps in (warmup + 1, warmup + 2, 137, 1500):
        found = averaging_coefficients(*schedule.values(steps, lr=0.1, weight_decay=0.5)).coefficients
        late = found[max(0, warmup - 1) :]
        assert np.ptp(late) < 1e-12 * late.max()
        assert (found[: max(0, warmup - 1)] < late[0]).all()


def test_uniform_memory_is_the_articles_formula():
    lr, wd, s = 0.01, 0.1, np.arange(20000)
    rates, _ = UniformMemory(lr=lr, weight_decay=wd).values(20000, lr=lr, weight_decay=wd)
    np.testing.assert_allclose(rates, lr / (wd * lr * s + 1), rtol=1e-13)
    rates, decays = UniformMemory(lr=lr, weight_decay=wd, joint=True).values(20000, lr=lr, weight_decay=wd)
    np.testing.assert_allclose(rates, lr / np.sqrt(2 * wd * lr * s + 1), rtol=5e-3)
    np.testing.assert_allclose(decays / wd, rates / lr, rtol=1e-13)
    approximate = averaging_coefficients(lr / np.sqrt(2 * wd * lr * s + 1), wd / np.sqrt(2 * wd * lr * s + 1))
    assert np.ptp(approximate.coefficients) > 1e-9 * lr, "the article's continuous form is not exactly uniform"


def test_tensors_and_lists_as_torch_and_json_have_them():
    rates = torch.full((4,), 0.5, dtype=torch.bfloat16, requires_grad=True)
    run = averaging_coefficients(rates, 0.5, [0.9, 0.95])
    assert run.coefficients.tolist() == averaging_coefficients([0.5] * 4, 0.5).coefficients.tolist()
    assert run.gradients is None
