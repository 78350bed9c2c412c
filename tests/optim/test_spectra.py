"""Rows about singular values, against numpy."""

import json
import math

import numpy as np
import pytest
import torch
from scipy.stats import entropy
from torch import nn

from spectrain.optim import Matrix, Muon, spectra
from spectrain.optim._spectra import QUANTILES
from spectrain.optim._variants.variants import VARIANTS


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(7, 6)
        self.qkv = nn.Linear(6, 14, bias=False)
        self.inner = nn.Linear(14, 6)
        self.head = nn.Linear(6, 7)


def moved(make):
    net = Net()
    optimizer = make(net)
    for _ in range(3):
        for p in net.parameters():
            p.grad = torch.randn_like(p)
        optimizer.step()
    return net, optimizer


@pytest.fixture
def muon():
    rules = {"qkv.weight": Matrix(split=(6, 4, 4))}
    return moved(lambda net: Muon(net, lr=0.03, tol=1e-4, rules=rules))


def test_quantiles_and_ranks_are_numpys(muon):
    net, optimizer = muon
    rows = {row["name"]: row for row in spectra(net, optimizer)}
    assert set(rows) == {"qkv.weight", "inner.weight"}
    for name, pieces in (("qkv.weight", [6, 10]), ("inner.weight", [])):
        p = dict(net.named_parameters())[name]
        for kind, tensor in (("weight", p), ("momentum", optimizer.state[p]["momentum_buffer"])):
            cut = np.split(tensor.detach().double().numpy(), pieces)
            values = [np.linalg.svd(piece, compute_uv=False) for piece in cut]
            np.testing.assert_allclose(rows[name][kind], np.quantile(np.concatenate(values), QUANTILES), rtol=1e-10)
            ranks = [(s**2).sum() / s[0] ** 2 for s in values]
            assert math.isclose(rows[name][f"{kind}_stable_rank"], np.mean(ranks), rel_tol=1e-10)
            even = [entropy(s**2, base=len(s)) for s in values]
            assert math.isclose(rows[name][f"{kind}_entropy"], np.mean(even), rel_tol=1e-10)
            others = [np.mean([entropy(s, base=len(s)) for s in values]), np.mean([entropy(s**2) for s in values])]
            assert not any(math.isclose(rows[name][f"{kind}_entropy"], wrong, rel_tol=1e-3) for wrong in others)


def test_entropy_of_equal_values_is_one_and_of_a_single_direction_nothing():
    net = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    with torch.no_grad():
        net[0].weight.copy_(3 * torch.eye(4))
        net[1].weight.copy_(torch.ones(4, 4))
    optimizer = Muon(net, lr=0.0, weight_decay=0.0)
    for p in net.parameters():
        p.grad = torch.randn_like(p)
    optimizer.step()
    same, one = spectra(net, optimizer)
    assert same["weight_entropy"] == pytest.approx(1.0, abs=1e-12)
    assert one["weight_entropy"] == pytest.approx(0.0, abs=1e-12)


def test_update_is_what_the_step_subtracted():
    net = nn.Linear(8, 5, bias=False)
    optimizer = Muon(net, lr=0.07, weight_decay=0.0)
    for _ in range(3):
        before = net.weight.detach().clone()
        net.weight.grad = torch.randn(5, 8)
        optimizer.step()
    (row,) = spectra(net, optimizer)
    values = np.linalg.svd((before - net.weight.detach()).double().numpy(), compute_uv=False)
    np.testing.assert_allclose(row["update"][-1], values[0], rtol=1e-4)
    np.testing.assert_allclose(row["update"][0], values[-1], rtol=1e-4)
    after = net.weight.detach()
    ratio = float((before - after).norm() / after.norm())
    assert math.isclose(row["update_to_weight"], ratio, rel_tol=1e-4)


def test_polar_error_is_within_the_tolerance_asked_for(muon):
    net, optimizer = muon
    assert all(0 <= row["polar_error"] <= 1e-4 for row in spectra(net, optimizer))
    for group in optimizer.param_groups:
        if group["algorithm"] == "muon":
            group.update(tol=None, steps=1)
    assert all(row["polar_error"] > 1e-2 for row in spectra(net, optimizer))


def test_rows_are_plain_and_nothing_changes(muon):
    net, optimizer = muon
    before = [p.detach().clone() for p in net.parameters()]
    state = [value.clone() for entry in optimizer.state.values() for value in entry.values()]
    rows = spectra(net, optimizer)
    assert json.loads(json.dumps(rows)) == rows
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), before, strict=True))
    now = [value for entry in optimizer.state.values() for value in entry.values()]
    assert all(torch.equal(a, b) for a, b in zip(now, state, strict=True))


def test_selection_quantiles_and_after_zero_grad(muon):
    net, optimizer = muon
    optimizer.zero_grad()
    (row,) = spectra(net, optimizer, names=["inner.weight"], quantiles=[0.5])
    assert row["quantiles"] == [0.5]
    assert len(row["update"]) == 1


def test_torchs_adamw_gets_the_same_rows():
    net, optimizer = moved(lambda net: torch.optim.AdamW(net.parameters(), lr=0.01, weight_decay=0.0))
    rows = spectra(net, optimizer)
    assert {row["name"] for row in rows} == {"qkv.weight", "inner.weight"}
    before = net.inner.weight.detach().clone()
    optimizer.step()
    row = next(row for row in spectra(net, optimizer) if row["name"] == "inner.weight")
    values = np.linalg.svd((before - net.inner.weight.detach()).double().numpy(), compute_uv=False)
    np.testing.assert_allclose(row["update"][-1], values[0], rtol=1e-4)
    assert "polar_error" not in row


def test_before_the_first_step_updates_are_zero():
    net = Net()
    rows = spectra(net, Muon(net))
    assert all(row["update"] == [0.0] * 7 and row["polar_error"] == 0.0 for row in rows)
    assert spectra(net, torch.optim.AdamW(net.parameters())) == []


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("variant", [variant.name for variant in VARIANTS])
def test_the_update_is_what_the_last_step_subtracted(variant, nesterov):
    settings = {"lr": 0.03, "weight_decay": 0.0, "compute_dtype": "float32", "rules": {"qkv.weight": {"split": (6, 8)}}}
    net, optimizer = moved(lambda net: Muon(net, variant=variant, nesterov=nesterov, **settings))
    before = {name: p.detach().double() for name, p in net.named_parameters()}
    optimizer.step()
    for row in spectra(net, optimizer):
        moved_by = before[row["name"]] - dict(net.named_parameters())[row["name"]].detach().double()
        pieces = moved_by.split([6, 8] if "qkv" in row["name"] else [6])
        values = [np.linalg.svd(piece, compute_uv=False) for piece in pieces]
        np.testing.assert_allclose(row["update"], np.quantile(np.concatenate(values), QUANTILES), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_weight_that_is_not_finite_is_named(muon, bad):
    net, optimizer = muon
    net.qkv.weight.data[2, 1:3] = bad
    with pytest.raises(FloatingPointError, match=r"^weight qkv\.weight is not finite at 2 of 84 entries$"):
        spectra(net, optimizer)
