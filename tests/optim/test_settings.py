"""The settings of a group: one reading, one dictionary, and nothing in it that is neither refused nor respected."""

import copy
import inspect
import json
from dataclasses import fields

import numpy as np
import pytest
import torch
from torch import nn

from spectrain.approx import sign_schedule
from spectrain.optim import Matrix, Muon
from spectrain.optim._step.settings import Settings


def pair(**settings):
    params = [nn.Parameter(torch.ones(4, 6)), nn.Parameter(torch.ones(3))]
    groups = [{"params": [("matrix", params[0])]}, {"params": [("vector", params[1])], "algorithm": "adamw"}]
    for i, p in enumerate(params):
        p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(i))
    return params, Muon(groups, **{"lr": 0.1, **settings})


SPOILED = {
    "momentum of one": (0, "momentum", 1.0, r"momentum must be in \[0, 1\), got 1.0"),
    "a text for a number": (0, "lr", "0.1", "lr must be a number, got '0.1'"),
    "no number": (0, "momentum", None, "momentum must be a number"),
    "unknown decay": (0, "decay", "l2", "decay must be one of"),
    "unknown variant": (0, "variant", "x", "variant must be one of plain, adam, normuon"),
    "beta2": (0, "beta2", 1.5, r"beta2 must be in \[0, 1\), got 1.5"),
    "half a step": (0, "steps", 2.5, "steps must be an integer"),
    "two ways": (0, "tol", 1e-2, "give one of tol=, steps= and schedule="),
    "a word for a flag": (0, "nesterov", "no", "nesterov must be True or False, got 'no'"),
    "unknown scale": (0, "scale", "moonshine", "scale must be one of"),
    "unknown field": (0, "matrix", {"head": 2}, "Matrix has no head"),
    "no schedule": (0, "schedule", "{}", "give one of|schedule|Schedule"),
    "one beta": (1, "betas", (0.9,), "betas must be a pair"),
    "beta of one": (1, "betas", (0.9, 1.0), "betas must be in"),
    "negative eps": (1, "eps", -1.0, "eps must be >= 0"),
}


@pytest.mark.parametrize(("number", "key", "value", "words"), SPOILED.values(), ids=SPOILED)
def test_what_somebody_puts_into_a_group_is_refused_before_anything_changes(number, key, value, words):
    """A momentum of 1, as a scheduler that cycles it may set, froze the momentum without a word."""
    params, optimizer = pair(steps=3)
    optimizer.step()
    weights, state = [p.detach().clone() for p in params], copy.deepcopy(optimizer.state_dict()["state"])
    optimizer.param_groups[number][key] = value
    with pytest.raises(ValueError, match=rf"({words})[\s\S]*Nothing was changed"):
        optimizer.step()
    assert all(torch.equal(p, before) for p, before in zip(params, weights, strict=True))
    for p, entry in zip(params, state.values(), strict=True):
        assert all(torch.equal(optimizer.state[p][name], value) for name, value in entry.items())


CHANGED = {
    "lr": 0.5,
    "weight_decay": 0.5,
    "momentum": 0.5,
    "nesterov": False,
    "scale": "spectral",
    "decay": "cautious",
    "maximize": True,
    "steps": 2,
    "compute_dtype": "bfloat16",
    "tol": 1e-5,
    "beta2": 0.5,
}


@pytest.mark.parametrize(("key", "value"), CHANGED.items())
def test_what_somebody_changes_in_a_group_holds_at_the_next_step(key, value):
    """As if the optimizer had been made with it, bit for bit; and otherwise the weights are others."""
    moved = []
    for made, changed in (({}, {key: value}), ({key: value}, {}), ({}, {})):
        params, optimizer = pair(**{"variant": "normuon", "weight_decay": 0.25, **made})
        for p in params:
            optimizer.state[p] = {name: torch.full_like(v, 0.25) for name, v in optimizer.state[p].items()}
        optimizer.param_groups[0].update(changed)
        optimizer.step()
        moved.append(params[0].detach())
    assert torch.equal(moved[0], moved[1])
    assert not torch.equal(moved[0], moved[2])


@pytest.mark.parametrize("kind", [float, np.float64, np.float32, torch.tensor], ids=lambda kind: kind.__name__)
def test_a_rate_may_be_any_kind_of_number(kind):
    params, optimizer = pair()
    optimizer.param_groups[0]["lr"] = kind(0.5)
    optimizer.step()
    expected, other = pair(lr=0.5)
    other.step()
    torch.testing.assert_close(params[0], expected[0], rtol=0, atol=1e-6)


GROUPS = {
    "plain": {},
    "adamw": {"algorithm": "adamw", "betas": (0.5, 0.75), "eps": 0.125},
    "layout": {"matrix": Matrix(split=(4, 2)), "variant": "normuon", "beta2": 0.5, "scale": "moonlight"},
    "tol": {"tol": 1e-3},
    "schedule": {"schedule": sign_schedule(0.1, steps=2)},
    "rows": {"algorithm": "rows", "nesterov": False, "lr": 0.25},
}


@pytest.mark.parametrize("group", GROUPS.values(), ids=GROUPS)
def test_a_group_holds_plain_data_and_its_reading_writes_it_again(group):
    found = Muon([{"params": [nn.Parameter(torch.ones(6, 4))], **group}]).param_groups[0]
    said = {name: value for name, value in found.items() if name != "params"}
    assert json.loads(json.dumps(said)) == json.loads(json.dumps(said, default=str))  # nothing that JSON has not
    settings = Settings.of(found)
    written = settings.as_dict()
    assert all(said[name] == value for name, value in written.items() if name != "costs")  # 103 is written as 103.0
    assert Settings.of(written) == settings
    assert isinstance(settings.matrix, Matrix)
    assert settings.schedule == group.get("schedule")


def test_the_defaults_are_those_of_the_optimizer():
    """Two places say them: the signature that users read, and what a group that says nothing means."""
    signature = inspect.signature(Muon).parameters
    own = {"algorithm", "matrix", "costs", "initial_lr", "check_finite", "betas", "eps"}
    for field in fields(Settings):
        if field.name not in own:
            assert field.default == signature[field.name].default, field.name
    assert Settings().betas == signature["adamw_betas"].default
    assert Settings().eps == signature["adamw_eps"].default


@pytest.mark.parametrize("algorithm", ["sign", "rows"])
def test_normuon_leaves_alone_what_has_no_lines(algorithm):
    """A norm gain by its sign made variant="normuon" fail, and rows kept averages that nothing used."""
    p = nn.Parameter(torch.zeros(4) if algorithm == "sign" else torch.zeros(4, 2))
    settings = {"scale": "none", "weight_decay": 0.0, "lr": 1.0}
    optimizer = Muon([{"params": [p], "algorithm": algorithm}], variant="normuon", **settings)
    assert list(optimizer.state[p]) == ["momentum_buffer"]
    p.grad = torch.tensor([3.0, -4.0, 0.0, 1.0]) if algorithm == "sign" else torch.tensor([[3.0, -4.0]] * 4)
    optimizer.step()
    truth = torch.tensor([-1.0, 1.0, 0.0, -1.0]) if algorithm == "sign" else torch.tensor([[-0.6, 0.8]] * 4)
    torch.testing.assert_close(p.detach(), truth)
