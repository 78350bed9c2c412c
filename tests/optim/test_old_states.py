"""States that an earlier version saved (``fixtures``) load, and the step after is the formula on what was saved."""

import copy
import lzma
import math
import runpy
import tarfile
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

from spectrain.optim import Muon, mup

FOLDER = Path(__file__).with_name("fixtures")
MAKE = runpy.run_path(str(FOLDER / "make.py"))
LOOSE = {"spectral": 1e-4, "tensor": 1e-7}  # power iteration; a rate in float32
KINDS = (*MAKE["KINDS"], "scheduled", "mup")
SCALES = {
    "match_rms_adamw": lambda out, in_: 0.2 * math.sqrt(max(out, in_)),
    "original": lambda out, in_: math.sqrt(max(1, out / in_)),
    "spectral": lambda out, in_: math.sqrt(out / in_),
}


@pytest.fixture(scope="module")
def states():
    with lzma.open(FOLDER / "states.pt.xz") as file:
        return torch.load(file, weights_only=True)


def made(kind, model):
    """An optimizer as the saved one was made, before anything of the saved state is in it."""
    if kind == "scheduled":
        return Muon(model, lr=0.1, decay="independent")
    if kind == "mup":
        return Muon(mup(model, base_width=2).groups("muon", lr=0.1))
    return Muon(model, **MAKE["KINDS"][kind])


def start(kind, saved):
    model = MAKE["net"]()
    optimizer = made(kind, model)
    model.load_state_dict(saved["weights"])
    for i, p in enumerate(model.parameters()):
        p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(i), dtype=p.dtype)
    return model, optimizer


def polar(X):
    U, _, Vh = torch.linalg.svd(X, full_matrices=False)
    return U @ Vh


def adamw(W, G, state, group):
    beta1, beta2 = group["betas"]
    G = -G if group["maximize"] else G
    t, m, v = (
        float(state["step"]) + 1,
        state["exp_avg"].lerp(G, 1 - beta1),
        state["exp_avg_sq"].lerp(G.square(), 1 - beta2),
    )
    u = m / (1 - beta1**t) / ((v / (1 - beta2**t)).sqrt() + group["eps"])
    return W * (1 - group["lr"] * group["weight_decay"]) - group["lr"] * u


def direction(G, state, group):
    """What msign, the sign or the rows are taken of."""
    M = state["momentum_buffer"].lerp(G, 1 - group["momentum"])
    N = M.lerp(G, 1 - group["momentum"]) if group["nesterov"] else M
    if group["variant"] != "adam":
        return N
    V = state["exp_avg_sq"].lerp(G.square(), 1 - group["beta2"])
    return N / ((V / (1 - group["beta2"] ** (float(state["step"]) + 1))).sqrt() + 1e-8)


def muon(W, G, state, group):
    """The step written out: direction, msign of each matrix, lines, factor, decay."""
    N, scale, algorithm = direction(G, state, group), SCALES[group["scale"]], group["algorithm"]
    if algorithm == "sign":
        U = N.sign() * scale(1, 1)
    elif algorithm == "rows":
        U = N / N.norm(dim=1, keepdim=True) * scale(N.shape[1], 1)
    else:
        pieces, sizes = [], [max(piece.shape) for piece in N.split(group["matrix"].get("split", len(N)))]
        moments = state["line_second_moment"].split(sizes) if group["variant"] == "normuon" else [None] * len(sizes)
        for piece, moment in zip(N.split(group["matrix"].get("split", len(N))), moments, strict=True):
            found = polar(piece) * scale(*piece.shape)
            if moment is not None:
                across = 0 if piece.shape[0] < piece.shape[1] else 1
                root = moment.lerp(found.square().mean(across), 1 - group["beta2"]).sqrt().unsqueeze(across)
                found = found / root * (found.norm() / (found / root).norm())
            pieces.append(found)
        U = torch.cat(pieces)
    rate = group["lr"] * group["weight_decay"]
    if group["decay"] == "spectral" and algorithm == "muon":
        L, S, R = torch.linalg.svd(W, full_matrices=False)
        shrunk = torch.outer(L[:, 0] * S[0], R[0])
    elif group["decay"] == "cautious":
        shrunk = torch.where(W * U > 0, W, 0.0)
    elif group["decay"] == "independent":
        shrunk, rate = W, group["weight_decay"] * group["lr"] / group.get("initial_lr", group["lr"])
    else:
        shrunk = W
    return W - rate * shrunk + (group["lr"] if group["maximize"] else -group["lr"]) * U


def expected(saved, grads):
    """The weights after one more step, from plain data alone."""
    found = {}
    for group in saved["optimizer"]["param_groups"]:
        for index, name in zip(group["params"], group["param_names"], strict=True):
            move = adamw if group["algorithm"] == "adamw" else muon
            found[name] = move(saved["weights"][name], grads[name], saved["optimizer"]["state"][index], group)
    return found


def far(model, weights):
    return max(float((p.detach() - weights[name]).abs().max()) for name, p in model.named_parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_the_step_after_loading_is_the_formula(exact_msign, states, kind):
    model, optimizer = start(kind, states[kind])
    optimizer.load_state_dict(copy.deepcopy(states[kind]["optimizer"]))
    grads = {name: p.grad for name, p in model.named_parameters()}
    optimizer.step()
    assert far(model, expected(states[kind], grads)) < LOOSE.get(kind, 1e-12)


NONE = torch.zeros(())
WRONG = {
    "no momentum": ("plain", lambda group, state: state.get("momentum_buffer", NONE).zero_()),
    "no count": ("adamw", lambda group, state: state.get("step", NONE).zero_()),
    "rate of today": ("settings", lambda group, state: group.update(lr=1e-3)),
    "other lines": ("normuon", lambda group, state: state.get("line_second_moment", NONE).fill_(1)),
    "decay of the start": ("scheduled", lambda group, state: group.update(weight_decay=0.1)),
    "start of the rate": ("scheduled", lambda group, state: group.update(initial_lr=0.2)),
    "own rates": ("mup", lambda group, state: group.update(lr=0.1)),
    "eps of the start": ("adamw", lambda group, state: group.update(eps=1e-8)),
}


@pytest.mark.parametrize(("kind", "spoil"), WRONG.values(), ids=WRONG)
def test_the_check_sees_what_was_not_loaded(exact_msign, states, kind, spoil):
    spoiled = copy.deepcopy(states[kind])
    for group in spoiled["optimizer"]["param_groups"]:
        for index in group["params"]:
            spoil(group, spoiled["optimizer"]["state"][index])
    model, optimizer = start(kind, states[kind])
    optimizer.load_state_dict(spoiled["optimizer"])
    grads = {name: p.grad for name, p in model.named_parameters()}
    optimizer.step()
    assert far(model, expected(states[kind], grads)) > 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_settings_come_back_and_a_fresh_optimizer_with_this_state_takes_the_same_step(states, kind):
    """Bit for bit, with msign as it is: by the steps, tolerance, table of costs and schedule that were saved."""
    saved = states[kind]["optimizer"]
    model, optimizer = start(kind, states[kind])
    optimizer.load_state_dict(copy.deepcopy(saved))
    for mine, theirs in zip(optimizer.param_groups, saved["param_groups"], strict=True):
        assert {k: v for k, v in mine.items() if k != "params"} == {k: v for k, v in theirs.items() if k != "params"}
    other, fresh = start(kind, states[kind])
    for mine, theirs in zip(fresh.param_groups, saved["param_groups"], strict=True):
        mine.update({k: v for k, v in theirs.items() if k != "params"})
        for p, index in zip(mine["params"], theirs["params"], strict=True):
            fresh.state[p] = copy.deepcopy(saved["state"][index])
    optimizer.step()
    fresh.step()
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize(
    ("kind", "options"), [("full", {"full_state_dict": True}), ("flat", {"flatten_optimizer_state_dict": True})]
)
def test_state_dicts_of_torch_load(exact_msign, states, kind, options):
    model, optimizer = start("plain", states[kind])
    grads = {name: p.grad for name, p in model.named_parameters()}
    set_optimizer_state_dict(
        model, optimizer, copy.deepcopy(states[kind]["optimizer"]), options=StateDictOptions(**options)
    )
    for p, grad in zip(model.parameters(), grads.values(), strict=True):
        p.grad = grad
    optimizer.step()
    assert far(model, expected(states["plain"], grads)) < 1e-12


def test_a_checkpoint_of_two_ranks_loads_in_one_process(exact_msign, tmp_path):
    with tarfile.open(FOLDER / "two_ranks.tar.xz") as file:
        file.extractall(tmp_path, filter="data")
    model = MAKE["net"]()
    optimizer = Muon(model, variant="normuon")
    saved = {"model": model.state_dict(), "optimizer": get_optimizer_state_dict(model, optimizer)}
    with pytest.warns(UserWarning, match="in a single process"):
        dcp.load(saved, checkpoint_id=tmp_path / "two_ranks", no_dist=True)
    model.load_state_dict(saved["model"])
    set_optimizer_state_dict(model, optimizer, saved["optimizer"])
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    state = copy.deepcopy(optimizer.state_dict())
    assert all(value.any() for entry in state["state"].values() for value in entry.values())
    grads = {name: torch.randn(p.shape, dtype=p.dtype) for name, p in model.named_parameters()}
    for name, p in model.named_parameters():
        p.grad = grads[name]
    optimizer.step()
    assert far(model, expected({"weights": weights, "optimizer": state}, grads)) < 1e-12
