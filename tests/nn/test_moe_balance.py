"""The rules of balance against closed forms, brute force and linear programming; losses against their formulas."""

import math
import warnings

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from spectrain import nn
from spectrain.nn._experts import balance
from spectrain.nn._experts.router import Routing


def scores(m, n, seed=0):
    draw = torch.Generator().manual_seed(seed)
    favour = torch.randn(n, generator=draw, dtype=torch.float64)
    return (torch.randn(m, n, generator=draw, dtype=torch.float64) + favour).sigmoid()


def top(s, k):
    return torch.zeros(s.shape, dtype=torch.bool).scatter(1, s.topk(k, dim=1).indices, True)


def violation(counts):
    return (counts.max() * len(counts) / counts.sum() - 1).item()


def test_quantile_balancing_reaches_the_optimum_of_the_linear_program():
    m, n, k = 24, 6, 2
    s = scores(m, n)
    rows = np.kron(np.eye(m), np.ones(n))
    columns = np.kron(np.ones(m), np.eye(n))
    solved = linprog(
        -s.flatten().numpy(),
        A_eq=np.vstack([rows, columns]),
        b_eq=[k] * m + [m * k / n] * n,
        bounds=(0, 1),
    )
    bias = nn.experts.quantile_bias(s, top_k=k, iterations=400)
    chosen = top(s + bias, k)
    dual = (s + bias).topk(k, dim=1).values.sum() - bias.sum() * m * k / n
    assert dual.item() == pytest.approx(-solved.fun, rel=2e-2)
    assert dual.item() >= -solved.fun - 1e-9  # weak duality
    assert violation(chosen.sum(0)) < 0.5 < violation(top(s, k).sum(0))


def test_the_dynamic_quantile_is_exact_in_one_step():
    s = scores(1200, 8)
    bias = nn.experts.quantile_bias(s, top_k=2, dynamic=True)
    assert ((s + bias) > 0).sum(0).tolist() == [300] * 8


@pytest.mark.parametrize("rule", ["quantile", "histogram"])
def test_balances_within_steps(rule):
    rule = nn.experts.Balance(rule=rule, decay=0.0)
    moe = nn.MoE(16, experts=8, top_k=2, hidden=4, activation="sigmoid", balance=rule, generator=0)
    draw, seen = torch.Generator().manual_seed(0), []
    for _ in range(20):
        moe(torch.randn(4096, 16, generator=draw) + 1).sum().backward()
        seen.append(moe.update_bias().counts)
    assert violation(seen[0]) > 0.5
    assert violation(torch.stack(seen[10:]).sum(0)) < 0.04


def of_moving_text(rule, *, factor=lambda step: 1.0, steps=120):
    """MaxVio of the last bias on text of all kinds, after steps on batches of one kind each."""
    moe = nn.MoE(16, experts=8, top_k=2, hidden=4, activation="sigmoid", balance=rule, generator=0)
    draw = torch.Generator().manual_seed(1)
    for step in range(steps):
        kind = torch.randn(16, generator=draw)
        moe(torch.randn(512, 16, generator=draw) + kind).sum().backward()
        moe.update_bias(factor=factor(step))
    kinds = torch.randn(2000, 1, 16, generator=draw)
    with nn.experts.expert_loads(moe) as seen:
        moe(torch.randn(2000, 64, 16, generator=draw) + kinds)
    return seen[""].max_violation


@pytest.mark.parametrize("rule", ["quantile", "histogram", "sign", "rms"])
def test_a_factor_that_falls_makes_the_last_bias_a_mean_over_steps(rule):
    rule = nn.experts.Balance(rule=rule, rate=0.05, decay=0.0)
    noisy, rested = of_moving_text(rule), of_moving_text(rule, factor=lambda step: (1 - step / 120) ** (2 / 3))
    assert rested < 0.8 * noisy


def test_quantiles_averaged_over_steps_balance_text_that_moves():
    averaged, last = (of_moving_text(nn.experts.Balance(rule="quantile", decay=decay)) for decay in (0.9, 0.0))
    assert averaged < 0.6 * last


@pytest.mark.parametrize("rule", ["sign", "rms", "quantile", "histogram"])
def test_the_factor_scales_the_move(rule):
    biases = {}
    for factor in (0.0, 0.25, 1.0):
        moe = nn.MoE(16, experts=8, top_k=2, hidden=4, activation="sigmoid", balance=rule, generator=0)
        moe(torch.randn(64, 16, generator=torch.Generator().manual_seed(0))).sum().backward()
        moe.update_bias(factor=factor)
        biases[factor] = moe.bias.clone()
    assert not biases[0.0].any()
    assert biases[1.0].any()
    torch.testing.assert_close(biases[0.25], biases[1.0] / 4)
    for wrong in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="factor must be from 0 to 1"):
            moe.update_bias(factor=wrong)


def test_histogram_agrees_with_the_exact_quantile():
    s = scores(8192, 16)
    exact, binned = torch.zeros(16).double(), torch.zeros(16).double()
    rank = balance.expected_load(len(s), 4, 16)
    for _ in range(8):
        exact = nn.experts.quantile_bias(s, exact, top_k=4)
        counts = balance.histogram(balance.margins(s, binned, top_k=4))
        binned = binned - balance.histogram_quantile(counts, rank=rank)
    loads = [top(s + bias, 4).sum(0) for bias in (exact, binned)]
    assert abs(violation(loads[0]) - violation(loads[1])) < 0.02
    assert violation(loads[1]) < 0.04


def test_histograms_add_up():
    above = balance.margins(scores(600, 8), torch.zeros(8), top_k=2)
    parts = sum(balance.histogram(part) for part in above.split(170))
    assert torch.equal(parts, balance.histogram(above))
    assert int(parts.sum()) == above.numel()


def test_sign_and_rms_steps_are_those_of_the_articles():
    loads, bias = torch.tensor([7, 1, 2, 2]), torch.zeros(4)
    share = loads.double() / 12
    gap = share - 1 / 4
    sign, rms = torch.sign(gap), gap / gap.square().mean().sqrt()
    for rule, step in (("sign", sign), ("rms", rms)):
        got = balance.loss_free_step(bias, loads, tokens=6, top_k=2, rule=rule, rate=0.1, centred=False)
        torch.testing.assert_close(got.double(), -0.1 * step, rtol=1e-6, atol=1e-7)
        got = balance.loss_free_step(bias, loads, tokens=6, top_k=2, rule=rule, rate=0.1)
        torch.testing.assert_close(got.double(), -0.1 * (step - step.mean()), rtol=1e-6, atol=1e-7)
    over = balance.loss_free_step(bias, loads, tokens=5, top_k=2, rate=0.1, budget_rate=2.0)
    torch.testing.assert_close(over.double(), -0.1 * (sign - sign.mean() + 2), rtol=1e-6, atol=1e-7)
    even = balance.loss_free_step(bias, torch.tensor([3, 3, 3, 3]), tokens=6, top_k=2, rule="rms")
    assert not even.any()


def test_budget_control_holds_the_number_of_experts():
    rule = nn.experts.Balance(rate=0.01)
    moe = nn.MoE(
        16, experts=8, top_k=2, hidden=4, activation="softmax", selection="sigmoid", select="threshold",
        balance=rule, generator=0,
    )  # fmt: skip
    draw = torch.Generator().manual_seed(0)
    for _ in range(150):
        moe(torch.randn(512, 16, generator=draw) + 0.5).sum().backward()
        loads = moe.update_bias()
    assert abs(loads.experts_a_token - 2) < 0.3


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_the_initial_bias_starts_near_the_budget(activation):
    moe = nn.MoE(64, experts=32, top_k=4, hidden=4, activation=activation, select="threshold", generator=0)
    x = torch.randn(4096, 64, generator=torch.Generator().manual_seed(0))
    chosen = moe.router(x, moe.bias).chosen
    assert abs(chosen.sum().item() / 4096 - 4) < 0.6


def routing(s, k, logits=None):
    return Routing(s if logits is None else logits, s, top(s.detach(), k), s)


def test_losses_are_their_formulas_with_the_straight_through_gradient():
    logits = torch.randn(30, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    s = logits.softmax(1)
    F, P = top(s, 2).double().mean(0) / 2, s.mean(0)
    values = {
        "product": (F * P).sum(),
        "squared": (F - 1 / 5).square().sum() / 2,
        "entropy": (F * (5 * F).log()).sum(),
    }
    slopes = {"product": (F * P).sum(), "squared": (F * P).sum(), "entropy": (F.log() * P).sum()}
    for kind, value in values.items():
        loss = nn.experts.Penalty(kind=kind, weight=3.0)(routing(s, 2), sequence=30)
        torch.testing.assert_close(loss, 3 * value)
        got = torch.autograd.grad(loss, logits, retain_graph=True)[0]
        wanted = torch.autograd.grad(3 * slopes[kind], logits, retain_graph=True)[0]
        torch.testing.assert_close(got, wanted)
    z = nn.experts.Penalty(weight=0.0, z_weight=1.0)(routing(s, 2, logits), sequence=30)
    torch.testing.assert_close(z, logits.exp().sum(1).log().square().mean())


def test_any_target_and_the_scope_of_a_sequence():
    s = scores(12, 3)
    target = (0.5, 0.3, 0.2)
    F = top(s, 1).double().mean(0)
    loss = nn.experts.Penalty(weight=1.0, target=target)(routing(s, 1), sequence=4)
    torch.testing.assert_close(loss, (F - torch.tensor(target).double()).square().sum() / 2)
    each = [nn.experts.Penalty(weight=1.0)(routing(part, 1), sequence=4) for part in s.split(4)]
    by_sequence = nn.experts.Penalty(weight=1.0, scope="sequence")(routing(s, 1), sequence=4)
    torch.testing.assert_close(by_sequence, torch.stack(each).mean())
    with pytest.raises(ValueError, match="target holds 3 shares"):
        nn.experts.Penalty(target=target)(routing(scores(4, 4), 1), sequence=4)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [({"kind": "cv"}, "kind must be"), ({"scope": "world"}, "scope must be"), ({"weight": 0.0}, "not both 0"),
     ({"target": (1.0, 0.5)}, "sum to 1")],
)  # fmt: skip
def test_penalty_refuses(wrong, words):
    with pytest.raises(ValueError, match=words):
        nn.experts.Penalty(**wrong)


@pytest.mark.parametrize(
    ("shape", "activation", "renormalise", "published"),
    [((162, 8, 2), "softmax", False, 16.0), ((257, 9, 1), "sigmoid", True, 2.83)],
)
def test_the_factor_of_the_published_models(shape, activation, renormalise, published):
    experts, active, shared = shape
    value, error = nn.experts.scaling_factor(
        experts, active=active, shared=shared, activation=activation, renormalise=renormalise
    )
    assert error <= 1e-3 * value
    assert abs(value - published) < 0.005 * published
    draw = np.random.default_rng(0).standard_normal((20_000, experts - shared))
    p = np.exp(draw) if activation == "softmax" else 1 / (1 + np.exp(-draw))
    p = p / p.sum(1, keepdims=True) if activation == "softmax" else p
    p = np.sort(p, axis=1)[:, shared - active :]
    p = p / p.sum(1, keepdims=True) if renormalise else p
    sampled = math.sqrt(shared) / np.linalg.norm(p, axis=1)
    assert abs(value - sampled.mean()) < 5 * math.hypot(error, sampled.std() / math.sqrt(20_000))


def test_the_factor_with_relu_is_finite_and_wrong_shapes_are_refused():
    value, error = nn.experts.scaling_factor(5, active=2, shared=1, activation="relu")
    assert 0 < error < 0.01 * value
    with pytest.raises(ValueError, match="shared < active"):
        nn.experts.scaling_factor(8, active=2, shared=2)
    with pytest.raises(ValueError, match="rtol"):
        nn.experts.scaling_factor(8, active=3, shared=2, rtol=0.0)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_published_losses_are_the_product_times_the_stated_factors(k):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func
    n, logits = 6, torch.randn(40, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    softmax, sigmoid = logits.softmax(1), logits.sigmoid()
    mixtral = load_balancing_loss_func((logits,), num_experts=n, top_k=k)
    ours = nn.experts.Penalty(kind="product", weight=float(n * k))(routing(softmax, k), sequence=40)
    torch.testing.assert_close(ours, mixtral.double(), rtol=1e-6, atol=0)
    deepseek = []  # arXiv 2412.19437, (17) to (20): f_i = n / (k T) sum_t 1(chosen), s' = s / sum s, a sequence each
    for part in sigmoid.split(10):
        normal, picked = part / part.sum(1, keepdim=True), part.topk(k, dim=1).indices.tolist()
        f = [n / (k * 10) * sum(i in chosen for chosen in picked) for i in range(n)]
        deepseek.append(sum(f[i] * normal[:, i].mean().item() for i in range(n)))
    ours = nn.experts.Penalty(kind="product", weight=float(n), scope="sequence")(routing(sigmoid, k), sequence=10)
    assert ours.item() == pytest.approx(sum(deepseek) / 4, rel=1e-12)
    switch = n * sum((softmax.argmax(1) == i).double().mean() * softmax[:, i].mean() for i in range(n))
    ours = nn.experts.Penalty(kind="product", weight=float(n))(routing(softmax, 1), sequence=40)
    torch.testing.assert_close(ours, switch)
