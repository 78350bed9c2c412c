"""Kinds of decay, against their definitions by SVD and entry by entry."""

import copy

import pytest
import torch
from torch import nn

from spectrain.optim import Matrix, Muon
from spectrain.optim._step.decay import leading_part

LR, WD = 0.1, 0.5


def pair(decay, shape=(6, 4), matrix=None, steps=1, **settings):
    """Weights before, the update without decay, and the weights after one step with decay."""
    generator = torch.Generator().manual_seed(0)
    W = torch.randn(shape, generator=generator, dtype=torch.float64)
    G = torch.randn(shape, generator=generator, dtype=torch.float64)
    found = []
    for weight_decay in (0.0, WD):
        p = nn.Parameter(W.clone())
        p.grad = G.clone()
        groups = [{"params": [p], "matrix": matrix or {}}]
        Muon(groups, lr=LR, weight_decay=weight_decay, decay=decay, tol=1e-10, **settings).step()
        found.append(p.detach())
    return W, (W - found[0]) / LR, found[1]


def expected(decay, W, U):
    if decay == "decoupled":
        return W - LR * (U + WD * W)
    if decay == "independent":
        return (1 - WD) * W - LR * U
    if decay == "cautious":
        return W - LR * (U + WD * W * (torch.sign(W) == torch.sign(U)))
    Q, S, Vh = torch.linalg.svd(W)
    return W - LR * (U + WD * S[0] * torch.outer(Q[:, 0], Vh[0]))


KINDS = ["decoupled", "independent", "cautious", "spectral"]


@pytest.mark.parametrize("decay", KINDS)
def test_definition(decay):
    W, U, after = pair(decay)
    torch.testing.assert_close(after, expected(decay, W, U), rtol=2e-3, atol=2e-3)
    for other in set(KINDS) - {decay}:
        assert (after - expected(other, W, U)).abs().max() > 5e-3


def test_cautious_follows_the_direction_of_maximize():
    W, ascent, after = pair("cautious", maximize=True)
    U = ascent  # what was subtracted, so the sign is that of the step already
    torch.testing.assert_close(after, expected("cautious", W, U))


def test_spectral_decay_sees_logical_matrices():
    W, U, after = pair("spectral", shape=(8, 4), matrix=Matrix(split=(4, 4)))
    halves = [expected("spectral", W[i : i + 4], U[i : i + 4]) for i in (0, 4)]
    torch.testing.assert_close(after, torch.cat(halves), rtol=5e-3, atol=5e-3)


def test_independent_decay_follows_the_schedule_and_not_the_rate():
    """Twice the learning rate, the same decay; half way down the schedule, half of it."""
    shrunk = []
    for lr in (0.01, 0.02):
        p = nn.Parameter(torch.ones(3, 3))
        p.grad = torch.zeros(3, 3)
        optimizer = Muon([p], lr=lr, weight_decay=0.25, decay="independent")
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: 0.5**t)
        for _ in range(2):
            optimizer.step()
            scheduler.step()
        shrunk.append(p[0, 0].item())
    assert shrunk == [0.75 * 0.875] * 2


@pytest.mark.parametrize("shape", [(5, 5), (9, 4), (4, 9), (1, 3)])
def test_leading_part_is_that_of_the_svd(shape):
    generator = torch.Generator().manual_seed(1)
    U, _, Vh = torch.linalg.svd(torch.randn(shape, generator=generator, dtype=torch.float64), full_matrices=False)
    S = 0.5 ** torch.arange(min(shape), dtype=torch.float64)
    truth = S[0] * torch.outer(U[:, 0], Vh[0])
    torch.testing.assert_close(leading_part((U * S) @ Vh), truth, rtol=1e-4, atol=1e-4)
    assert torch.equal(leading_part(torch.zeros(shape)), torch.zeros(shape))


@pytest.mark.parametrize("decay", KINDS)
def test_resume_and_tensor_rates(decay):
    p = nn.Parameter(torch.eye(3) * 2)
    q = nn.Parameter(torch.eye(3) * 2)
    one = Muon([p], lr=torch.tensor(0.125), decay=decay)
    two = Muon([q], lr=0.125, decay=decay)
    two.load_state_dict(copy.deepcopy(two.state_dict()))
    for optimizer, w in ((one, p), (two, q)):
        w.grad = torch.ones(3, 3) + torch.eye(3)
        optimizer.step()
    torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-7)
    assert two.param_groups[0]["decay"] == decay
