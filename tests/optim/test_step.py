"""One step is the formula: momentum, Nesterov, msign, factor, decoupled decay."""

import math

import pytest
import torch

from spectrain.optim import Muon

LR, DECAY, BETA = 0.02, 0.3, 0.9


def polar(X):
    U, _, Vh = torch.linalg.svd(X, full_matrices=False)
    return U @ Vh


def formula(W, grads, *, factor, nesterov=True, decay=DECAY, beta=BETA, sign=-1.0):
    """Liu et al., arXiv 2502.16982, with the average normalised, in float64 by SVD."""
    W, M = W.clone(), torch.zeros_like(W)
    for G in grads:
        M = beta * M + (1 - beta) * G
        N = beta * M + (1 - beta) * G if nesterov else M
        W = (1 - LR * decay) * W + sign * LR * factor * polar(N)
    return W


def drawn(shape, count, generator):
    W, *grads = torch.randn((count + 1, *shape), generator=generator, dtype=torch.float64)
    return W, grads


def trained(W, grads, **settings):
    p = torch.nn.Parameter(W.clone())
    optimizer = Muon([p], lr=LR, weight_decay=DECAY, momentum=BETA, tol=1e-10, **settings)
    for G in grads:
        p.grad = G.clone()
        optimizer.step()
    return p.detach()


def distance(a, b):
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("shape", [(12, 5), (5, 12), (8, 8), (1, 6)])
@pytest.mark.parametrize("nesterov", [True, False])
def test_step_is_the_formula(shape, nesterov, generator):
    W, grads = drawn(shape, 4, generator)
    truth = formula(W, grads, factor=0.2 * math.sqrt(max(shape)), nesterov=nesterov)
    assert distance(trained(W, grads, nesterov=nesterov), truth) < 1e-9


@pytest.mark.parametrize(
    ("scale", "factor"),
    [
        ("match_rms_adamw", 0.2 * math.sqrt(12)),
        ("original", math.sqrt(12 / 5)),
        ("spectral", math.sqrt(12 / 5)),
        ("none", 1.0),
    ],
)
def test_every_scale_is_its_formula(scale, factor, generator):
    W, grads = drawn((12, 5), 3, generator)
    assert distance(trained(W, grads, scale=scale), formula(W, grads, factor=factor)) < 1e-9


def test_maximize_goes_the_other_way(generator):
    W, grads = drawn((6, 4), 3, generator)
    truth = formula(W, grads, factor=1.0, sign=1.0)
    assert distance(trained(W, grads, scale="none", maximize=True), truth) < 1e-9


FACTOR = 0.2 * math.sqrt(12)
WRONG = {
    "no Nesterov": lambda W, g: formula(W, g, factor=FACTOR, nesterov=False),
    "no decay": lambda W, g: formula(W, g, factor=FACTOR, decay=0.0),
    "no factor": lambda W, g: formula(W, g, factor=1.0),
    "factor of the short side": lambda W, g: formula(W, g, factor=0.2 * math.sqrt(5)),
    "missing 0.2": lambda W, g: formula(W, g, factor=math.sqrt(12)),
    "no momentum": lambda W, g: formula(W, g, factor=FACTOR, beta=0.0),
    "ascent": lambda W, g: formula(W, g, factor=FACTOR, sign=1.0),
    "decay of the moved weights": lambda W, g: formula(W, g, factor=FACTOR * (1 - LR * DECAY)),
    "normalised gradient, no msign": lambda W, g: W - LR * sum(G / G.norm() for G in g),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_the_check_rejects_wrong_steps(wrong, generator):
    W, grads = drawn((12, 5), 4, generator)
    assert distance(trained(W, grads), wrong(W, grads)) > 1e-6


def test_update_has_the_rms_of_adamw(generator):
    """0.2: what makes AdamW's learning rate valid (article 10739)."""
    for shape in [(64, 32), (32, 64), (64, 64)]:
        W, grads = drawn(shape, 1, generator)
        p = torch.nn.Parameter(torch.zeros_like(W))
        p.grad = grads[0]
        Muon([p], lr=1.0, weight_decay=0.0, tol=1e-10).step()
        rms = p.detach().square().mean().sqrt().item()
        assert abs(rms - 0.2) < 1e-9


def test_momentum_convention_does_not_matter(generator):
    """M <- beta M + G (Moonlight) and the average kept here give the same msign."""
    W, grads = drawn((7, 5), 6, generator)
    M, truth = torch.zeros_like(W), W.clone()
    for G in grads:
        M = BETA * M + G
        truth = (1 - LR * DECAY) * truth - LR * polar(BETA * M + G)
    assert distance(trained(W, grads, scale="none"), truth) < 1e-9


@pytest.mark.parametrize("power", [-100, -30, 30, 100])
def test_scale_of_the_loss_changes_nothing(power, generator):
    """Multiplying the loss by a power of two leaves the trajectory alone, to the last bit (article 10592)."""
    W, grads = drawn((9, 6), 3, generator)
    assert torch.equal(trained(W, [G * 2.0**power for G in grads]), trained(W, grads))


def test_sign_and_rows_are_msign_of_diagonals_and_of_rows(generator):
    """Article 11416: a norm gain as a diagonal matrix, an embedding as one matrix a row."""
    gain, table = torch.zeros(5, dtype=torch.float64), torch.zeros(4, 6, dtype=torch.float64)
    a, b = torch.nn.Parameter(gain), torch.nn.Parameter(table)
    a.grad, b.grad = torch.randn(5, generator=generator).double(), torch.randn(4, 6, generator=generator).double()
    a.grad[2], b.grad[3] = 0.0, 0.0
    groups = [{"params": [a], "algorithm": "sign"}, {"params": [b], "algorithm": "rows"}]
    Muon(groups, lr=1.0, weight_decay=0.0, scale="none").step()
    torch.testing.assert_close(a.detach(), -polar(torch.diag(a.grad) + 0.0).diagonal() * (a.grad != 0))
    rows = torch.cat([polar(row.unsqueeze(0)) for row in b.grad[:3]])
    torch.testing.assert_close(b.detach(), -torch.cat([rows, torch.zeros(1, 6).double()]))
