"""Nothing passes silently: bad gradients, bad parameters, bad settings, bad states."""

import copy
import pickle

import pytest
import torch
from torch import nn

from spectrain.optim import Muon
from spectrain.optim.ranks import Machine


def model():
    return nn.ModuleDict({"e": nn.Embedding(9, 4), "a": nn.Linear(4, 4), "b": nn.Linear(4, 6), "head": nn.Linear(6, 9)})


def filled(net):
    for p in net.parameters():
        p.grad = torch.ones_like(p) + torch.arange(p.numel()).view_as(p) % 3
    return net


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["a.weight", "head.bias", "e.weight"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nan_and_inf_are_named_and_nothing_is_changed(value, name, dtype):
    net = filled(model().to(dtype))
    optimizer = Muon(net)
    optimizer.step()
    weights, state = copy.deepcopy(net.state_dict()), copy.deepcopy(optimizer.state_dict()["state"])
    dict(net.named_parameters())[name].grad.view(-1)[-1] = value
    with pytest.raises(ValueError, match=f"NaN or Inf in the gradient of {name}"):
        optimizer.step()
    assert all(torch.equal(value, weights[key]) for key, value in net.state_dict().items())
    now = optimizer.state_dict()["state"]
    assert all(torch.equal(now[i][key], state[i][key]) for i in state for key in state[i])


def test_huge_finite_gradients_are_not_infinite():
    """Nor too large for AdamW while its second moment, their square, fits; see test_squares.py."""
    net = filled(model())
    optimizer = Muon(net)
    rows = {row["name"]: row["algorithm"] for row in optimizer.rows}
    for name, p in net.named_parameters():
        p.grad.fill_(1.8e19 if rows[name] == "adamw" else 3e38)
    optimizer.step()
    assert set(rows.values()) >= {"adamw", "muon"}
    assert all(bool(p.isfinite().all()) for p in net.parameters())
    assert all(value.isfinite().all() for state in optimizer.state.values() for value in state.values())


def test_check_finite_can_be_left_out():
    net = filled(model())
    net["head"].bias.grad[0] = float("nan")
    Muon(net, check_finite=False).step()
    assert net["head"].bias.isnan().any()


def test_zero_gradients_move_nothing_but_by_decay():
    net = filled(model())
    before = copy.deepcopy(net)
    for p in net.parameters():
        p.grad.zero_()
    Muon(net, lr=0.5, weight_decay=0.0).step()
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), before.parameters(), strict=True))


def test_sparse_gradients_are_refused_by_name():
    net = nn.ModuleDict({"e": nn.Embedding(9, 4, sparse=True), "a": nn.Linear(4, 4), "head": nn.Linear(4, 9)})
    optimizer = Muon(net)
    net["e"](torch.tensor([1])).sum().backward()
    with pytest.raises(ValueError, match=r"sparse gradient of e\.weight"):
        optimizer.step()


PARAMETERS = {
    "vector": (torch.zeros(4), "muon", ValueError, "vector has no singular values"),
    "scalar": (torch.zeros(()), "muon", ValueError, "vector has no singular values"),
    "empty": (torch.zeros(0, 4), "muon", ValueError, "without elements"),
    "empty for AdamW": (torch.zeros(0), "adamw", ValueError, "without elements"),
    "complex": (torch.zeros(4, 4, dtype=torch.complex64), "muon", TypeError, "complex64 is not supported"),
    "complex for AdamW": (torch.zeros(4, dtype=torch.complex64), "adamw", TypeError, "complex64"),
    "three dimensions": (torch.zeros(2, 4, 4), "muon", ValueError, "Matrix.batch=1"),
    "rows of a vector": (torch.zeros(4), "rows", ValueError, "2-D"),
}


@pytest.mark.parametrize(("value", "algorithm", "error", "words"), PARAMETERS.values(), ids=PARAMETERS)
def test_parameters_that_cannot_be_moved(value, algorithm, error, words):
    with pytest.raises(error, match=f"wq.*{words}"):
        Muon([{"params": [("wq", nn.Parameter(value))], "algorithm": algorithm}])


def test_complex_parameters_of_a_model_are_refused_by_name():
    net = nn.ModuleDict({"a": nn.Linear(4, 4, dtype=torch.complex64), "head": nn.Linear(4, 2)})
    with pytest.raises(TypeError, match=r"a\.weight.*complex64"):
        Muon(net)


SETTINGS = {
    "negative lr": ({"lr": -1.0}, "lr must be >= 0"),
    "lr that is no number": ({"lr": float("nan")}, "lr must be >= 0"),
    "tensor lr of two": ({"lr": torch.ones(2)}, "one element"),
    "negative decay": ({"weight_decay": -0.1}, "weight_decay"),
    "momentum of 1": ({"momentum": 1.0}, "momentum"),
    "betas": ({"adamw_betas": (0.9, 1.0)}, "betas"),
    "unknown scale": ({"scale": "moonshine"}, "scale must be one of"),
    "another library's spectral": ({"scale": "megatron_spectral"}, "sqrt.max.out, in.*5 x 'match_rms_adamw'"),
    "infinite lr": ({"lr": float("inf")}, "lr must be >= 0 and finite"),
    "negative eps": ({"adamw_eps": -1e-8}, "eps must be >= 0"),
    "no steps": ({"steps": 0}, "steps must be an integer from 1 to 60"),
    "too many steps": ({"steps": 100}, "steps must be an integer from 1 to 60"),
    "negative tol": ({"tol": -1e-2}, "tol is a relative error"),
    "tol and steps": ({"tol": 1e-2, "steps": 4}, "give one of"),
    "decay": ({"decay": "l2"}, "decay must be one of"),
    "dtype": ({"compute_dtype": "fp8"}, "compute_dtype"),
    "rules without model": ({"rules": {"*": "muon"}}, "need the model"),
}


@pytest.mark.parametrize(("settings", "words"), SETTINGS.values(), ids=SETTINGS)
def test_settings_out_of_range(settings, words):
    with pytest.raises(ValueError, match=words):
        Muon([nn.Parameter(torch.zeros(4, 4))], **settings)


GROUPS = {
    "misspelt key": ({"weigth_decay": 0.1}, "did you mean 'weight_decay'"),
    "misspelt algorithm": ({"algorithm": "lion"}, "algorithm must be one of"),
    "momentum for AdamW": ({"algorithm": "adamw", "momentum": 0.9}, "has no momentum"),
    "betas for Muon": ({"betas": (0.9, 0.95)}, "has no betas"),
    "a pair of one": ({"algorithm": "adamw", "betas": (0.9,)}, "betas must be a pair"),
    "one number for a pair": ({"algorithm": "adamw", "betas": 0.9}, "betas must be a pair"),
    "half a step": ({"steps": 2.5}, "steps must be an integer"),
    "two ways": ({"use_muon": True, "algorithm": "muon"}, "one of them"),
    "unknown field of the matrix": ({"matrix": {"head": 4}}, "Matrix has no head"),
}


@pytest.mark.parametrize(("extra", "words"), GROUPS.values(), ids=GROUPS)
def test_groups_that_mean_something_else(extra, words):
    with pytest.raises(ValueError, match=words):
        Muon([{"params": [nn.Parameter(torch.zeros(4, 4))], **extra}])


def test_keys_of_the_caller_are_kept():
    optimizer = Muon([{"params": [nn.Parameter(torch.zeros(4, 4))], "stage": 3, "lr_multiplier": 2.0}])
    assert optimizer.param_groups[0]["stage"] == 3


def test_one_parameter_twice_is_an_error():
    p = nn.Parameter(torch.zeros(4, 4))
    with pytest.raises(ValueError, match="same parameter"):
        Muon([p, p])
    with pytest.raises(ValueError, match="more than one parameter group"):
        Muon([{"params": [p]}, {"params": [p]}])


def test_sets_generators_and_nothing():
    p = nn.Parameter(torch.zeros(4, 4))
    with pytest.raises(TypeError, match="no fixed order"):
        Muon([{"params": {p}}])
    with pytest.raises(ValueError, match="empty"):
        Muon([])
    assert len(Muon(q for q in [p]).rows) == 1


def state_of(net, **settings):
    optimizer = Muon(filled(net), **settings)
    optimizer.step()
    return optimizer.state_dict()


def test_the_state_of_another_model_is_refused_with_the_difference():
    other = nn.ModuleDict(
        {"e": nn.Embedding(9, 4), "x": nn.Linear(4, 4), "b": nn.Linear(4, 6), "head": nn.Linear(6, 9)}
    )
    with pytest.raises(ValueError, match=r"x\.weight.*a\.weight"):
        Muon(model()).load_state_dict(state_of(other))


def test_the_state_of_another_width_is_refused():
    wide = nn.ModuleDict({"e": nn.Embedding(9, 8), "a": nn.Linear(8, 8), "b": nn.Linear(8, 6), "head": nn.Linear(6, 9)})
    with pytest.raises(ValueError, match=r"a\.weight\.momentum_buffer: saved \(8, 8\), here \(4, 4\)"):
        Muon(model()).load_state_dict(state_of(wide))


def test_the_state_of_another_routing_is_refused_with_the_difference():
    with pytest.raises(ValueError, match="another model or routing"):
        Muon(model()).load_state_dict(state_of(model(), rules={"a.weight": "adamw"}))
    with pytest.raises(ValueError, match="heads"):
        Muon(model()).load_state_dict(state_of(model(), rules={"a.weight": {"heads": (2,)}}))


def test_the_state_of_torchs_muon_is_taken_over():
    a, b = nn.Linear(6, 4, bias=False), nn.Linear(6, 4, bias=False)
    b.load_state_dict(a.state_dict())
    theirs = torch.optim.Muon(a.parameters(), lr=0.125, weight_decay=0.0, momentum=0.75, adjust_lr_fn="match_rms_adamw")
    filled(a)
    theirs.step()
    ours = Muon(b)
    ours.load_state_dict(theirs.state_dict())
    (group,) = ours.param_groups
    assert (group["lr"], group["momentum"], group["scale"], group["steps"]) == (0.125, 0.75, "match_rms_adamw", 5)
    buffer = ours.state[b.weight]["momentum_buffer"]
    assert torch.equal(buffer, theirs.state[a.weight]["momentum_buffer"])
    assert buffer is not theirs.state[a.weight]["momentum_buffer"]
    filled(b)
    ours.step()


def test_the_state_of_something_else_is_refused():
    p = nn.Parameter(torch.ones(4, 4))
    p.grad = torch.ones(4, 4)
    sgd = torch.optim.SGD([p], momentum=0.9)
    sgd.step()
    with pytest.raises(ValueError, match="neither of this optimizer"):
        Muon([p]).load_state_dict(sgd.state_dict())


@pytest.mark.parametrize(("saved", "here"), [(3, 2), (2, 3)])
def test_torchs_muon_with_another_number_of_parameters_is_refused_with_the_difference(saved, here):
    params = [nn.Parameter(torch.zeros(3, 3)) for _ in range(3)]
    with pytest.raises(ValueError, match=r"another model or routing:\n  parameter 2: saved .*, here "):
        Muon(params[:here]).load_state_dict(torch.optim.Muon(params[:saved]).state_dict())


@pytest.mark.parametrize("empty", [0, 1])
def test_a_group_without_parameters_is_nothing_to_do(empty):
    p = nn.Parameter(torch.ones(3, 3))
    groups = [{"params": [p]}]
    groups.insert(empty, {"params": [], "use_muon": False})
    optimizer = Muon(groups)
    p.grad = torch.eye(3)
    optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
    assert len(optimizer.rows) == 1
    assert not torch.equal(p, torch.ones(3, 3))


def test_copies_keep_streams_and_machine():
    machine = Machine(flops=1e12)
    optimizer = Muon(model(), streams=2, machine=machine)
    for copied in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        assert (copied.streams, copied.machine) == (2, machine)
