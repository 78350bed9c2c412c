"""No update that is not finite or larger than any msign reaches a weight; whoever it is of is named."""

import pytest
import torch
from torch import nn

from spectrain.optim import Muon
from spectrain.optim._ranks import over


def pair(**settings):
    params = [("first", nn.Parameter(torch.ones(4, 6))), ("second", nn.Parameter(torch.ones(6, 3)))]
    optimizer = Muon(params, weight_decay=0.0, **settings)
    for _, p in params:
        p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(0))
    return [p for _, p in params], optimizer


VARIANTS = [{}, {"variant": "normuon"}, {"check_finite": False}, {"tol": 1e-3}]  # "adam" refuses the gradient


@pytest.mark.parametrize("settings", VARIANTS, ids=str)
def test_momentum_that_overflows_is_refused_by_name(settings):
    """Two finite gradients whose difference is none; the momentum is a running mean of them."""
    params, optimizer = pair(**settings)
    optimizer.state[params[1]]["momentum_buffer"].fill_(-torch.finfo(torch.float32).max)
    params[1].grad.fill_(torch.finfo(torch.float32).max)
    with pytest.raises(ValueError, match=r"no msign has for second \(6, 3\) \(nan, at most [0-9.]+\)\. These weights"):
        optimizer.step()
    for p in params:
        assert torch.equal(p, torch.ones_like(p))


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf, 10.0])
@pytest.mark.parametrize("variant", ["plain", "normuon", "adam"])
def test_a_faulty_msign_is_refused_by_name(monkeypatch, variant, wrong):
    right = over.msign_all

    def faulty(pieces, settings):
        signs = right(pieces, settings)
        signs[0][0].mul_(wrong)
        return signs

    params, optimizer = pair(variant=variant)
    monkeypatch.setattr(over, "msign_all", faulty)
    with pytest.raises(ValueError, match=r"no msign has for second \(6, 3\)"):
        optimizer.step()
    assert torch.equal(params[1], torch.ones(6, 3))


@pytest.mark.parametrize(
    ("scale", "steps"),
    [
        *((scale, 5) for scale in ("match_rms_adamw", "original", "spectral", "none")),
        *(("none", n) for n in (1, 2, 10)),
    ],
)
@pytest.mark.parametrize("variant", ["plain", "normuon"])
def test_no_right_update_is_refused(scale, steps, variant):
    """The bound is a multiple of the factor, whatever the number of steps: each is varied beside one of the other."""
    for shape in ((1, 1), (1, 9), (9, 1), (5, 5), (3, 40), (40, 3)):
        p = nn.Parameter(torch.zeros(shape))
        optimizer = Muon([p], scale=scale, steps=steps, variant=variant)
        for seed in range(4):
            p.grad = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 10.0 ** (8 * seed - 16)
            optimizer.step()


@pytest.mark.parametrize("key", ["lr", "weight_decay"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_a_rate_that_a_scheduler_spoiled_is_refused(key, value):
    params, optimizer = pair()
    optimizer.param_groups[0][key] = value
    with pytest.raises(ValueError, match=f"{key} must be >= 0 and finite, got {value}. Nothing was changed"):
        optimizer.step()
    assert torch.equal(params[0], torch.ones(4, 6))


def test_a_tolerance_that_cannot_be_proven_names_the_parameter():
    params = {name: nn.Parameter(torch.ones(6, 3, dtype=torch.float64)) for name in ("first", "second")}
    for (name, p), small in zip(params.items(), (1e-2, 1e-13), strict=True):
        g = torch.randn(6, 3, generator=torch.Generator().manual_seed(len(name)), dtype=torch.float64)
        U, _, Vh = torch.linalg.svd(g, full_matrices=False)
        p.grad = (U * torch.tensor([1.0, 1.0, small], dtype=torch.float64)) @ Vh
    optimizer = Muon(params.items(), tol=1e-11)
    with pytest.raises(ValueError, match=r"Muon: second: msign: cannot prove .*\. These weights were not changed; the"):
        optimizer.step()
    assert all(torch.equal(p, torch.ones_like(p)) for p in params.values())
