"""Clipping reaches AdamW's gradients only."""

import math

import pytest
import torch
from torch import nn

from spectrain.optim import Muon, clip_grad_norm_


def filled(scale=1.0):
    net = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 3))
    generator = torch.Generator().manual_seed(0)
    for p in net.parameters():
        p.data = torch.randn(p.shape, generator=generator)
        p.grad = scale * torch.randn(p.shape, generator=generator)
    return net, Muon(net, lr=0.1)


def parts(net):
    muon = [net[0].weight.grad, net[1].weight.grad]
    adamw = [p.grad for p in net.parameters() if not any(p.grad is g for g in muon)]
    return muon, adamw


def norm(grads):
    return math.sqrt(sum(float(g.double().square().sum()) for g in grads))


def test_norms_and_coefficient():
    net, optimizer = filled(3.0)
    muon, adamw = parts(net)
    before = norm(muon), norm(adamw)
    kept = [g.clone() for g in muon]
    found = clip_grad_norm_(optimizer, max_norm=1.5)
    assert math.isclose(found.muon.item(), before[0], rel_tol=1e-6)
    assert math.isclose(found.adamw.item(), before[1], rel_tol=1e-6)
    assert math.isclose(found.total.item(), math.hypot(*before), rel_tol=1e-6)
    assert math.isclose(found.coefficient.item(), 1.5 / before[1], rel_tol=1e-6)
    assert math.isclose(norm(adamw), 1.5, rel_tol=1e-6)
    assert all(torch.equal(a, b) for a, b in zip(muon, kept, strict=True))


def test_small_gradients_are_left_alone_to_the_last_bit():
    net, optimizer = filled(1e-3)
    before = [p.grad.clone() for p in net.parameters()]
    assert clip_grad_norm_(optimizer, max_norm=1.0).coefficient.item() == 1.0
    assert all(torch.equal(p.grad, g) for p, g in zip(net.parameters(), before, strict=True))


def test_muons_update_is_the_same_with_and_without():
    nets = []
    for clipped in (False, True):
        net, optimizer = filled(100.0)
        if clipped:
            clip_grad_norm_(optimizer, max_norm=0.01)
        optimizer.step()
        nets.append(net)
    assert torch.equal(nets[0][1].weight, nets[1][1].weight)


def test_only_matrices_only_vectors_and_nothing():
    p = nn.Parameter(torch.ones(3, 3))
    optimizer = Muon([p])
    assert clip_grad_norm_(optimizer, max_norm=1.0).total.item() == 0.0
    p.grad = torch.full((3, 3), 2.0)
    found = clip_grad_norm_(optimizer, max_norm=1.0)
    assert (found.total.item(), found.muon.item(), found.coefficient.item()) == (6.0, 6.0, 1.0)
    with pytest.raises(ValueError, match="positive"):
        clip_grad_norm_(optimizer, max_norm=0.0)


def test_norms_are_taken_in_float32_for_16_bit_gradients():
    p = nn.Parameter(torch.ones(70000, dtype=torch.bfloat16))
    p.grad = torch.ones(70000, dtype=torch.bfloat16)
    found = clip_grad_norm_(Muon([{"params": [p], "algorithm": "adamw"}]), max_norm=1e9)
    assert math.isclose(found.adamw.item(), math.sqrt(70000), rel_tol=1e-2)
    assert found.adamw.dtype == torch.float32


def test_nan_is_left_for_the_step_to_name():
    net, optimizer = filled()
    net[2].bias.grad[0] = float("nan")
    found = clip_grad_norm_(optimizer, max_norm=1.0)
    assert found.total.isnan()
    assert found.coefficient.item() == 1.0
    with pytest.raises(ValueError, match=r"gradient of 2\.bias\. "):
        optimizer.step()


def test_an_infinite_limit_is_no_clipping():
    head = torch.nn.Parameter(torch.zeros(4))
    head.grad = torch.full((4,), 3.0)
    norms = clip_grad_norm_(Muon([{"params": [head], "algorithm": "adamw"}]), float("inf"))
    assert norms.coefficient.item() == 1.0
    assert head.grad.tolist() == [3.0] * 4


def test_global_clipping_warns_with_the_factor_and_is_that_of_torch():
    net, optimizer = filled(3.0)
    twin, _ = filled(3.0)
    total = float(nn.utils.clip_grad_norm_(twin.parameters(), 1.5))
    with pytest.warns(UserWarning, match=f"matrices by {1.5 / total:.3g}"):
        found = clip_grad_norm_(optimizer, 1.5, scope="all")
    assert math.isclose(found.coefficient.item(), 1.5 / total, rel_tol=1e-5)
    for p, q in zip(net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-5, atol=0)


def test_global_clipping_that_changes_nothing_says_nothing():
    net, optimizer = filled(1e-3)
    before = [p.grad.clone() for p in net.parameters()]
    clip_grad_norm_(optimizer, 1.0, scope="all")  # a warning would be an error here
    assert all(torch.equal(p.grad, g) for p, g in zip(net.parameters(), before, strict=True))
    with pytest.raises(ValueError, match="'adamw' or 'all'"):
        clip_grad_norm_(optimizer, 1.0, scope="everything")


def test_another_optimizer_is_refused():
    with pytest.raises(TypeError, match=r"needs a spectrain\.optim\.Muon, got AdamW"):
        clip_grad_norm_(torch.optim.AdamW([torch.nn.Parameter(torch.ones(2))]), 1.0)
