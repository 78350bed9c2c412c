"""States on their way: full state dicts, frozen parameters, replaced ones, copies, and states that are damaged."""

import copy
import itertools
import pickle
import warnings

import pytest
import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

from spectrain.approx import sign_schedule
from spectrain.optim import Muon, ScheduleLR, WarmupDecay


def net(frozen=True):
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 4), nn.Linear(4, 3))
    for p in model.parameters():
        p.data = torch.randn(p.shape, generator=generator)
    model[0].weight.requires_grad_(not frozen)
    return model


def go(model, optimizer, steps):
    for step in steps:
        optimizer.zero_grad()
        model(torch.randn(7, 6, generator=torch.Generator().manual_seed(step))).square().mean().backward()
        optimizer.step()


def same(a, b):
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


@pytest.mark.parametrize(
    ("full", "flat", "frozen"), [case for case in itertools.product((0, 1), repeat=3) if case[:2] != (1, 1)]
)
def test_every_kind_of_state_dict_of_torch_goes_on_bit_for_bit(full, flat, frozen):
    """With full and flat together torch fails by itself, AdamW too."""
    options = StateDictOptions(full_state_dict=bool(full), flatten_optimizer_state_dict=bool(flat))
    a, b = net(bool(frozen)), net(bool(frozen))
    one, two = Muon(a, lr=0.01), Muon(b, lr=0.5)
    go(a, one, range(2))
    b.load_state_dict(a.state_dict())
    set_optimizer_state_dict(b, two, get_optimizer_state_dict(a, one, options=options), options=options)
    go(a, one, range(2, 4))
    go(b, two, range(2, 4))
    assert same(a, b)


def test_what_is_frozen_has_no_state_until_its_first_gradient():
    model, never = net(), net(frozen=False)
    optimizer, other = Muon(model, lr=0.01), Muon(never, lr=0.01)
    frozen = model[0].weight
    assert frozen not in optimizer.state
    assert set(optimizer.state) == set(model.parameters()) - {frozen}
    go(model, optimizer, range(1))
    assert frozen not in optimizer.state
    resumed = Muon(net(), lr=0.01)
    resumed.load_state_dict(optimizer.state_dict())
    assert len(resumed.state) == len(optimizer.state) == 5
    frozen.requires_grad_(True)
    go(model, optimizer, range(1, 2))
    assert optimizer.state[frozen]["momentum_buffer"].any()
    resumed.load_state_dict(other.state_dict())  # one of before, with zeros for what is frozen
    assert len(resumed.state) == 5


def test_parameters_that_others_replace_take_their_state_along():
    """As accelerate does with fully_shard after the optimizer is made."""
    model = net(frozen=False)
    optimizer = Muon(model, lr=0.01)
    swapped = {p: nn.Parameter(p.detach().clone()) for p in model.parameters()}
    for module in model:
        for name, p in list(module._parameters.items()):
            module._parameters[name] = swapped[p]
    for group in optimizer.param_groups:
        group["params"] = [swapped[p] for p in group["params"]]
    assert len(optimizer.state_dict()["state"]) == 6
    assert set(optimizer.state) == set(model.parameters())
    usual = net(frozen=False)
    go(model, optimizer, range(2))
    go(usual, Muon(usual, lr=0.01), range(2))
    assert same(model, usual)
    optimizer.param_groups[0]["params"] = [nn.Parameter(p.detach()) for p in optimizer.param_groups[0]["params"]]
    with pytest.warns(UserWarning, match="momentum of the old ones is lost"):
        optimizer.state_dict()


def test_copies_keep_the_process_group_and_pickles_say_that_they_cannot():
    optimizer = Muon(net())
    optimizer.process_group = group = object()
    assert copy.deepcopy(optimizer).process_group is group
    text = pickle.dumps(optimizer)
    with pytest.warns(UserWarning, match="holds no process group"):
        pickle.loads(text)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pickle.loads(pickle.dumps(Muon(net())))


def test_a_group_that_comes_late_follows_the_schedule():
    optimizer = Muon([nn.Parameter(torch.ones(2, 2))], lr=0.5, weight_decay=0.25)
    scheduler = ScheduleLR(optimizer, WarmupDecay(steps=4, joint=True))
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(3, 3))], "lr": 1.0, "weight_decay": 0.5})
    optimizer.step()
    scheduler.step()
    assert [(g["lr"], g["weight_decay"]) for g in optimizer.param_groups] == [(0.375, 0.1875), (0.75, 0.375)]


EVERY = {
    "lr": 0.25,
    "weight_decay": 0.5,
    "momentum": 0.5,
    "nesterov": False,
    "scale": "spectral",
    "steps": 3,
    "compute_dtype": "float32",
    "adamw_betas": (0.5, 0.75),
    "adamw_eps": 0.125,
    "decay": "cautious",
    "variant": "normuon",
    "beta2": 0.5,
    "maximize": True,
    "capturable": True,
}


def test_every_setting_comes_back():
    here = Muon(net(), **EVERY)
    other = Muon(net(), variant="normuon")
    other.load_state_dict(here.state_dict())
    for mine, theirs in zip(here.param_groups, other.param_groups, strict=True):
        assert {k: v for k, v in mine.items() if k != "params"} == {k: v for k, v in theirs.items() if k != "params"}
    for settings in ({"tol": 1e-2}, {"schedule": sign_schedule(0.1, steps=2)}):
        here, other = Muon(net(), **settings), Muon(net())
        other.load_state_dict(here.state_dict())
        assert all(other.param_groups[0][key] == here.param_groups[0][key] for key in ("tol", "steps", "schedule"))


def deep():
    found = []
    for _ in range(100_000):
        found = [found]
    return found


DAMAGED = {
    "NaN": ("lr", float("nan")),
    "negative": ("lr", -1.0),
    "text": ("lr", "0.1"),
    "nothing": ("weight_decay", None),
    "a flag": ("lr", True),
    "momentum": ("momentum", float("nan")),
    "list": ("momentum", [0.5, 0.5]),
    "dtype": ("compute_dtype", "torch.load"),
    "dtype of torch": ("compute_dtype", torch.float16),
    "scale": ("scale", "moonshine"),
    "number for a name": ("scale", 3),
    "decay": ("decay", "l2"),
    "huge": ("lr", 10**400),
    "flag": ("nesterov", "no"),
    "steps": ("steps", 2.5),
    "tol": ("tol", "1e-2"),
    "schedule": ("schedule", "{}"),
    "deep schedule": ("schedule", "[" * 100_000),
    "layout": ("matrix", {"split": [[1], [2]]}),
    "beta2": ("beta2", "x"),
}


@pytest.mark.parametrize(("key", "value"), DAMAGED.values(), ids=DAMAGED)
def test_bad_values_in_a_loaded_state_are_refused_by_name(key, value):
    state = Muon(net()).state_dict()
    state["param_groups"][0][key] = value
    optimizer = Muon(net())
    with pytest.raises(ValueError, match=r"Muon: (the saved state is damaged in group 0|this state belongs)"):
        optimizer.load_state_dict(state)
    assert optimizer.param_groups[0]["lr"] == 1e-3


def test_a_setting_that_is_missing_is_named():
    state = Muon(net()).state_dict()
    del state["param_groups"][0]["momentum"]
    with pytest.raises(ValueError, match="group 0: it has no momentum"):
        Muon(net()).load_state_dict(state)


def test_values_nested_too_deeply_are_refused():
    state = Muon(net()).state_dict()
    state["param_groups"][0]["mine"] = deep()
    with pytest.raises(ValueError, match="nested too deeply"):
        Muon(net()).load_state_dict(state)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("momentum_buffer", torch.full((4, 5), float("nan")), r"1\.weight\.momentum_buffer is not finite"),
        ("momentum_buffer", [0.0], r"1\.weight has no tensor momentum_buffer"),
        ("exp_avg_sq", torch.full((4, 5), -1.0), r"1\.weight\.exp_avg_sq is not finite, or negative"),
        ("step", torch.tensor(-3.0), r"1\.weight\.step is not finite, or negative"),
    ],
)
def test_damaged_tensors_are_refused_by_name(key, value, words):
    optimizer = Muon(net(frozen=False), variant="adam")
    state = copy.deepcopy(optimizer.state_dict())
    state["state"][1][key] = value
    with pytest.raises(ValueError, match=words):
        Muon(net(frozen=False), variant="adam").load_state_dict(state)
