"""Gradients whose squares overflow: refused by name before anything changes, or moved as float64 moves them."""

import pytest
import torch
from torch import nn

from spectrain.optim import Muon, clip_grad_norm_
from spectrain.optim._step import squares
from spectrain.optim._step.settings import Settings

HUGE = {torch.float32: 1e25, torch.bfloat16: 1e25, torch.float16: 300.0, torch.float64: 1e200}


def pair(dtype, algorithm, **settings):
    params = [
        ("small", nn.Parameter(torch.ones(3, 4, dtype=dtype))),
        ("huge", nn.Parameter(torch.ones(4, 3).to(dtype))),
    ]
    group = {"params": params, "algorithm": algorithm}
    optimizer = Muon([group], lr=1e-2, weight_decay=0.0, **settings)
    for k, (_, p) in enumerate(params):
        p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(k)).to(dtype)
    params[1][1].grad[0, 1] = -HUGE[dtype]
    return [p for _, p in params], optimizer


@pytest.mark.parametrize("dtype", HUGE, ids=str)
def test_adamw_refuses_by_name(dtype):
    """The second moment became infinite, and the entry never moved again, without a word."""
    params, optimizer = pair(dtype, "adamw")
    with pytest.raises(ValueError, match=r"gradient of huge \(.*\) is too large for its squares.*Nothing was changed"):
        optimizer.step()
    assert all(torch.equal(p, torch.ones_like(p)) for p in params)
    assert not any(value.any() for state in optimizer.state.values() for value in state.values())
    params[1].grad[0, 1] = 0.9 * torch.finfo(dtype).max ** 0.5
    optimizer.step()
    assert all(value.isfinite().all() for state in optimizer.state.values() for value in state.values())
    assert params[1][0, 1] < 1


def test_msign_of_an_adam_update_refuses_by_name_and_plain_muon_does_not():
    params, optimizer = pair(torch.float32, "muon", variant="adam")
    with pytest.raises(ValueError, match=r"gradient of huge \(1e\+25, at most 1.83e\+19\)"):
        optimizer.step()
    assert all(torch.equal(p, torch.ones_like(p)) for p in params)
    params, optimizer = pair(torch.float32, "muon")
    optimizer.step()
    assert all(p.isfinite().all() and not torch.equal(p, torch.ones_like(p)) for p in params)


def moved(params, step):
    for _ in range(4):
        step()
        for p in params:
            p.grad = p.grad.roll(0, 0)  # the same numbers in another tensor, as a backward pass makes them
    return [p.detach().double() for p in params]


@pytest.mark.parametrize("capturable", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_unchecked_steps_are_those_of_float64(dtype, capturable):
    """Adam does not see the scale of an entry that keeps it: float64 holds the squares, and is the truth.

    The compiled step beside the eager one is in ``compiled.py``.
    """
    settings = {"capturable": capturable, "check_finite": False, "compute_dtype": "float32", "adamw_eps": 1e-5}
    found = []
    for kind in (dtype, torch.float64):
        params, optimizer = pair(dtype, "adamw", **settings)
        if kind == torch.float64:
            params = [nn.Parameter(p.detach().double()) for p in params]
            for p, like in zip(params, pair(dtype, "adamw")[0], strict=True):
                p.grad = like.grad.double()
            optimizer = torch.optim.AdamW(params, lr=1e-2, betas=(0.9, 0.95), eps=1e-5, weight_decay=0.0)
        found.append(moved(params, optimizer.step))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6 if dtype == torch.float32 else 4e-3)
    assert float(found[0][1][0, 1]) == pytest.approx(1.04, abs=4e-3)  # four steps of lr, not none


def test_an_unchecked_adam_update_is_that_of_float64():
    found = []
    for dtype in (torch.float32, torch.float64):
        params, _ = pair(torch.float32, "muon")
        grads = [p.grad.to(dtype) for p in params]
        params = [nn.Parameter(p.detach().to(dtype)) for p in params]
        optimizer = Muon(params, lr=1e-2, weight_decay=0.0, variant="adam", check_finite=False, tol=1e-5)
        for p, g in zip(params, grads, strict=True):
            p.grad = g
        optimizer.step()
        found.append([p.detach().double() for p in params])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


def test_infinite_entries_stay_and_gradients_are_not_written_to():
    settings = Settings(check_finite=False, capturable=True)
    g = torch.tensor([1.0, -1e30, torch.inf, -torch.inf, torch.nan])
    before = g.clone()
    (found,) = squares.limit_squares([g], settings)
    assert torch.equal(g[:4], before[:4])
    assert g[4].isnan()
    assert found[0] == 1
    assert -1.85e19 < found[1] < -1.8e19
    assert found[2:4].tolist() == [torch.inf, -torch.inf]
    assert found[4].isnan()


WRONG = {
    "no end": lambda grads, group: list(grads),
    "an end whose square is infinite": lambda grads, group: [g.clamp(-1e20, 1e20) for g in grads],
    "zero instead": lambda grads, group: [torch.where(g.abs() > 1e19, 0.0, g) for g in grads],
}


@pytest.mark.parametrize("name", WRONG)
def test_the_comparison_rejects_wrong_limits(name, monkeypatch):
    monkeypatch.setattr("spectrain.optim._step.adamw.limit_squares", WRONG[name])
    params, optimizer = pair(torch.float32, "adamw", check_finite=False)
    moved(params, optimizer.step)
    assert abs(float(params[1][0, 1].detach()) - 1.04) > 1e-2


@pytest.mark.parametrize("scope", ["adamw", "all"])
@pytest.mark.filterwarnings("ignore:clip_grad_norm_")
def test_gradients_whose_norm_overflows_are_clipped(scope):
    """Their norm was infinite, and they were left as they were; the next step advises to clip."""
    params = [nn.Parameter(torch.zeros(3, 4)) for _ in range(2)]
    params[0].grad, params[1].grad = torch.full((3, 4), 3e30), torch.full((3, 4), -4e30)
    optimizer = Muon([{"params": [params[0]], "algorithm": "adamw"}, {"params": [params[1]]}])
    norms = clip_grad_norm_(optimizer, 2.0, scope=scope)
    size = 5e30 if scope == "all" else 3e30
    assert float(norms.total) == pytest.approx(5e30 * 12**0.5, rel=1e-6)
    assert float(norms.adamw) == pytest.approx(3e30 * 12**0.5, rel=1e-6)
    assert params[0].grad.flatten().tolist() == pytest.approx([2 * 3e30 / (size * 12**0.5)] * 12, rel=1e-6)
    optimizer.step()
    assert all(p.isfinite().all() for p in params)


def test_an_entry_without_gradient_stays_where_eps_is_zero():
    """0 / 0 wrote NaN into it, as torch.optim.AdamW does."""
    p = nn.Parameter(torch.ones(3))
    p.grad = torch.tensor([0.0, 2.0, 1e-20])
    Muon([{"params": [p], "algorithm": "adamw"}], lr=0.1, weight_decay=0.0, adamw_eps=0.0).step()
    torch.testing.assert_close(p.detach(), torch.tensor([1.0, 0.9, 0.9]), rtol=0, atol=1e-4)
