"""A run by tolerance that is resumed where the machine's table of costs is another one makes the same choices."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from spectrain import matfun
from spectrain.matfun._proven import costs as costs_file
from spectrain.matfun._proven.costs import SHIPPED, costs
from spectrain.optim import Muon

SHAPE = (192, 384)
OTHER = replace(SHIPPED, product_float32=(1.0,) * 5)


@pytest.fixture
def next_process(tmp_path, monkeypatch):
    """Return a function after which the process has the other table, as one that starts after ``calibrate``."""
    monkeypatch.setattr(costs_file, "table_file", lambda: tmp_path / "costs.json")
    costs.cache_clear()

    def start():
        (tmp_path / "costs.json").write_text(OTHER.to_json())
        costs.cache_clear()

    yield start
    costs.cache_clear()


def made():
    layer = nn.Linear(SHAPE[1], SHAPE[0], bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(SHAPE, generator=torch.Generator().manual_seed(0)) / 10)
    return layer, Muon([layer.weight], lr=0.02, tol=1e-3)


def step(layer, optimizer, seed):
    layer.weight.grad = torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))
    optimizer.step()


def test_a_resumed_run_chooses_as_before(next_process):
    layer, optimizer = made()
    step(layer, optimizer, 1)
    weights, state = copy.deepcopy(layer.state_dict()), copy.deepcopy(optimizer.state_dict())
    step(layer, optimizer, 2)
    next_process()
    assert matfun.plan(SHAPE, tol=1e-3).stages[0] != matfun.plan(SHAPE, tol=1e-3, costs=SHIPPED).stages[0]

    def resumed(state):
        again, resuming = made()
        again.load_state_dict(weights)
        resuming.load_state_dict(copy.deepcopy(state))
        step(again, resuming, 2)
        return again.weight

    assert torch.equal(resumed(state), layer.weight)
    assert torch.equal(resumed(state), layer.weight)  # and saved and loaded once more
    wrong = copy.deepcopy(state)
    wrong["param_groups"][0]["costs"] = OTHER.to_json()  # the table of the second process
    assert not torch.equal(resumed(wrong), layer.weight)


def test_only_groups_with_a_tolerance_carry_a_table(next_process):
    layer = nn.Linear(4, 4, bias=False)
    assert "costs" not in Muon([layer.weight], lr=0.1).param_groups[0]
    assert Muon([layer.weight], lr=0.1, tol=1e-3).param_groups[0]["costs"] == SHIPPED.to_json()
