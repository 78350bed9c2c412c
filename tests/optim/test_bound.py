"""Bounds on singular values: the nearest matrix within them, by SVD in float64; and what a step without them does."""

import copy
import math

import pytest
import torch
from torch import nn

from spectrain import optim
from spectrain.optim import Matrix, Muon

BY = ("post-clip", "pre-decay")
PLAIN = {"lr": 0.1, "weight_decay": 0.0, "compute_dtype": "float32", "tol": 1e-5}


def matrix(m, n, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return nn.Parameter(torch.randn(m, n, generator=draw) / math.sqrt(n)), torch.randn(m, n, generator=draw)


def stepped(p, g, **settings):
    """The weight after one step."""
    q = nn.Parameter(p.detach().clone())
    group = {"params": [q], **({"matrix": settings.pop("matrix")} if "matrix" in settings else {})}
    optimizer = Muon([group], **{**PLAIN, **settings})
    q.grad = g.clone()
    optimizer.step()
    return q.detach()


def cut(W, t):
    """U min(S, t) V^T by LAPACK in float64: the nearest matrix of spectral norm t."""
    U, S, Vh = torch.linalg.svd(W.double(), full_matrices=False)
    return (U * S.clamp(max=t)) @ Vh


def norm(W):
    return float(torch.linalg.matrix_norm(W.double(), 2))


SHAPES = [(12, 12), (8, 20), (20, 8)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("scale", ["match_rms_adamw", "spectral"])
def test_post_clip_is_the_nearest_matrix_within_the_bound(shape, scale):
    p, g = matrix(*shape)
    free = stepped(p, g, scale=scale)
    S = torch.linalg.svdvals(free.double())
    t = float(S[2] + S[3]) / 2  # three above
    found = stepped(p, g, scale=scale, bound=t / math.sqrt(shape[0] / shape[1]))
    torch.testing.assert_close(found.double(), cut(free, t), rtol=0, atol=2e-6)
    assert norm(found) <= t * (1 + 1e-6)
    loose = stepped(p, g, scale=scale, bound=2 * float(S[0]) / math.sqrt(shape[0] / shape[1]))
    assert torch.equal(loose, free)  # nothing above: not a bit changes


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("scale", ["match_rms_adamw", "spectral"])
def test_pre_decay_is_its_formula(shape, scale):
    p, g = matrix(*shape)
    update = p.detach().double() - stepped(p, g, scale=scale).double()  # lr s msign
    bound = 1.3
    t = bound * math.sqrt(shape[0] / shape[1])
    share = norm(update) / t
    found = stepped(p, g, scale=scale, bound=bound, bound_by="pre-decay")
    expected = cut(p.detach(), (1 - share) * norm(p.detach())) - update
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=2e-5)


WRONG = {
    "no bound": lambda free, t: free.double(),
    "the first singular value only": lambda free, t: _first(free, t),
    "the whole matrix scaled": lambda free, t: free.double() * t / norm(free),
    "square matrices only": lambda free, t: cut(free, t * math.sqrt(20 / 8)),
    "by the Frobenius norm": lambda free, t: free.double() * t / float(free.double().norm()),
}


def _first(W, t):
    U, S, Vh = torch.linalg.svd(W.double(), full_matrices=False)
    S[0] = t
    return (U * S) @ Vh


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_the_comparison_rejects_other_bounds(wrong):
    p, g = matrix(8, 20)
    free = stepped(p, g)
    S = torch.linalg.svdvals(free.double())
    t = float(S[2] + S[3]) / 2
    assert (wrong(free, t) - cut(free, t)).abs().max() > 1e-3


@pytest.mark.parametrize("by", BY)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_bound_holds_over_steps_that_all_push_one_way_and_without_it_does_not(by, shape):
    limit = 2.0 * math.sqrt(shape[0] / shape[1])
    tops = {}
    for bound in (2.0, None):
        p, g = matrix(*shape)
        with torch.no_grad():
            p.mul_(0.5 * limit / norm(p.detach()))
        optimizer = Muon([p], **PLAIN, scale="spectral", bound=bound, bound_by=by)
        top = 0.0
        for _ in range(25):
            p.grad = g.clone()
            optimizer.step()
            top = max(top, norm(p.detach()))
        tops[bound] = top
    assert tops[2.0] <= limit * (1 + 1e-4) < 1.5 * limit < tops[None]


def test_each_head_and_each_fused_piece_has_its_own_bound():
    p, g = matrix(24, 10)
    layout = Matrix(split=(16, 8), heads=(2, 1))
    free = stepped(p, g, matrix=layout, scale="spectral")
    found = stepped(p, g, matrix=layout, scale="spectral", bound=0.8)
    for piece, other in zip(layout.views(found), layout.views(free), strict=True):
        t = 0.8 * math.sqrt(8 / 10)
        torch.testing.assert_close(piece.double(), cut(other, t), rtol=0, atol=2e-6)
    assert norm(found) > 0.8 * math.sqrt(8 / 10) * 1.05  # of all together there is none


def test_convolutions_and_sixteen_bits():
    conv = nn.Conv2d(4, 8, 3).to(memory_format=torch.channels_last)
    optimizer = Muon(conv, **PLAIN, scale="spectral", bound=0.3)
    for _ in range(3):
        conv.zero_grad()
        conv(torch.randn(2, 4, 6, 6)).square().sum().backward()
        optimizer.step()
    weight = conv.weight.detach().flatten(1)
    assert norm(weight) <= 0.3 * math.sqrt(8 / 36) * (1 + 1e-5)
    p = nn.Parameter(matrix(12, 12)[0].detach().bfloat16())
    optimizer = Muon([p], lr=0.1, weight_decay=0.0, scale="spectral", bound=1.0)
    p.grad = matrix(12, 12)[1].bfloat16()
    optimizer.step()
    assert norm(p.detach()) <= 1.0 + 2.0**-8 * float(p.detach().float().norm())


def test_only_what_msign_moves_is_bounded_and_the_state_keeps_it():
    model = nn.Sequential(nn.Embedding(9, 8), nn.Linear(8, 8, bias=False), nn.Linear(8, 9, bias=False))
    with torch.no_grad():
        [p.mul_(10) for p in model.parameters()]
    optimizer = Muon(model, lr=1e-3, bound=1.0, compute_dtype="float32")
    model(torch.arange(9)).square().mean().backward()
    optimizer.step()
    sizes = [norm(p.detach()) for p in model.parameters()]
    assert sizes[1] <= 1 + 1e-6
    assert min(sizes[0], sizes[2]) > 5
    saved = optimizer.state_dict()
    again = Muon(copy.deepcopy(model), lr=1e-3, bound=3.0, bound_by="pre-decay")
    again.load_state_dict(copy.deepcopy(saved))
    muon = [group for group in again.param_groups if group["algorithm"] == "muon"]
    assert [(group["bound"], group["bound_by"]) for group in muon] == [(1.0, "post-clip")]
    for group in saved["param_groups"]:  # of an earlier version, which knew no bound
        group.pop("bound", None)
        group.pop("bound_by", None)
    old = Muon(copy.deepcopy(model), lr=1e-3, bound=3.0, bound_by="pre-decay")
    old.load_state_dict(saved)
    muon = [group for group in old.param_groups if group["algorithm"] == "muon"]
    assert [(group["bound"], group["bound_by"]) for group in muon] == [(3.0, "pre-decay")]


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"bound": 0.0}, ValueError, "positive and finite"),
        ({"bound": math.inf}, ValueError, "positive and finite"),
        ({"bound": True}, TypeError, "must be a number"),
        ({"bound": 1.0, "bound_by": "normalise"}, ValueError, "one of post-clip, pre-decay"),
        ({"bound": 1.0, "capturable": True}, ValueError, "leave capturable=True out"),
    ],
)
def test_what_cannot_be_meant_is_refused(settings, error, said):
    with pytest.raises(error, match=said):
        Muon([matrix(4, 4)[0]], **settings)


def test_a_matrix_that_lies_in_parts_is_refused_before_anything_moves(monkeypatch):
    p, g = matrix(8, 8)
    optimizer = Muon([p], bound=1.0)
    p.grad, before = g, p.detach().clone()
    from spectrain.optim._step import guards

    monkeypatch.setattr(guards, "local", lambda tensor: tensor[:4])
    with pytest.raises(ValueError, match="lies in parts on several ranks"):
        optimizer.step()
    assert torch.equal(p.detach(), before)


def test_the_default_has_no_bound():
    assert {group.get("bound") for group in optim.Muon([matrix(4, 4)[0]]).param_groups} == {None}
