"""The AdamW half is torch.optim.AdamW."""

import pytest
import torch

from spectrain.optim import Muon


def shapes():
    return [(7,), (5, 3), (4, 2, 3, 3), ()]


def run(make, steps, dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    params = [
        torch.nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)) for shape in shapes()
    ]
    optimizer = make(params)
    for _ in range(steps):
        for p in params:
            p.grad = torch.randn(p.shape, generator=generator, dtype=torch.float64).to(dtype)
        optimizer.step()
    return params, optimizer


def ours(**settings):
    return lambda params: Muon([{"params": params, "algorithm": "adamw", **settings}])


def theirs(**settings):
    return lambda params: torch.optim.AdamW(params, **settings)


SETTINGS = {"lr": 3e-3, "weight_decay": 0.2, "betas": (0.8, 0.97), "eps": 1e-6}


@pytest.mark.parametrize("maximize", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_bit_for_bit_with_torchs_fused_adamw(dtype, maximize):
    ours_p, a = run(ours(**SETTINGS, maximize=maximize), 25, dtype)
    theirs_p, b = run(theirs(**SETTINGS, maximize=maximize, fused=True), 25, dtype)
    for p, q in zip(ours_p, theirs_p, strict=True):
        assert torch.equal(p, q)
        for key in ("exp_avg", "exp_avg_sq", "step"):
            assert torch.equal(a.state[p][key], b.state[q][key])


def test_within_rounding_of_torchs_default_adamw():
    ours_p, _ = run(ours(**SETTINGS), 25)
    theirs_p, _ = run(theirs(**SETTINGS), 25)
    for p, q in zip(ours_p, theirs_p, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-7)


WRONG = {
    "Adam with L2": lambda params: torch.optim.Adam(params, **SETTINGS),
    "other betas": theirs(**{**SETTINGS, "betas": (0.8, 0.98)}),
    "other decay": theirs(**{**SETTINGS, "weight_decay": 0.1}),
    "other eps": theirs(**{**SETTINGS, "eps": 1e-2}),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_the_check_rejects_other_optimizers(wrong):
    ours_p, _ = run(ours(**SETTINGS), 25)
    wrong_p, _ = run(wrong, 25)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(ours_p, wrong_p, rtol=1e-6, atol=1e-7)


def test_own_settings_of_the_adamw_half():
    p = torch.nn.Parameter(torch.zeros(3))
    settings = {"adamw_lr": 0.5, "adamw_weight_decay": 0.25, "adamw_betas": (0.1, 0.2), "adamw_eps": 1e-3}
    optimizer = Muon([{"params": [p], "use_muon": False}], lr=1.0, **settings)
    (group,) = optimizer.param_groups
    assert (group["lr"], group["weight_decay"]) == (0.5, 0.25)
    assert (group["betas"], group["eps"]) == ((0.1, 0.2), 1e-3)
    assert "momentum" not in group


def channels_last(p):
    return torch.nn.Parameter(p.detach().clone(memory_format=torch.channels_last))


@pytest.mark.parametrize("late", ["weights", "gradients", "state"])
def test_layouts_in_memory_change_nothing(late):
    """The fused kernel walks over memory and does not look at strides: torch's own goes wrong here."""
    generator = torch.Generator().manual_seed(2)
    p = torch.nn.Parameter(torch.randn(4, 3, 2, 2, generator=generator))
    q = torch.nn.Parameter(p.detach().clone()) if late == "weights" else channels_last(p)
    first, second = ours(lr=0.1)([p]), ours(lr=0.1)([q])
    for i in range(3):
        p.grad = torch.randn(4, 3, 2, 2, generator=generator)
        q.grad = p.grad.clone() if late == "gradients" else p.grad.to(memory_format=torch.channels_last)
        first.step()
        second.step()
        if i == 0 and late == "weights":
            q.data = q.data.to(memory_format=torch.channels_last)
        if i == 0 and late == "state":
            second.load_state_dict(first.state_dict())
    torch.testing.assert_close(p, q.contiguous(), rtol=1e-5, atol=1e-6)
