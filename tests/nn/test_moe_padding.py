"""Padding is in no count and no penalty, and experts can be loaded unevenly on purpose."""

import pytest
import torch

from spectrain import nn
from spectrain.nn.experts import Balance, Loads, Penalty, expert_loads, quantile_bias

RULES = ["sign", "rms", "quantile", "histogram"]
KINDS = ["product", "squared", "entropy"]
TARGET = (0.3, 0.2, 0.15, 0.1, 0.1, 0.05, 0.05, 0.05)


def layer(**arguments):
    shape = {"experts": 8, "top_k": 2, "hidden": 8, "activation": "sigmoid"} | arguments
    return nn.MoE(16, **shape, generator=0).double()


def padded(length=32, whole=128, sequences=4):
    """Sequences of ``length`` tokens, filled up with one and the same token; which are tokens; the tokens alone."""
    x = torch.randn(sequences, whole, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    there = torch.arange(whole).expand(sequences, whole) < length
    x = torch.where(there[..., None], x, x[0, 0])
    return x, there, x[:, :length]


@pytest.mark.parametrize("select", ["top_k", "threshold"])
@pytest.mark.parametrize("rule", RULES)
def test_counts_and_bias_are_those_of_the_tokens_alone(rule, select):
    x, there, tokens = padded()
    biases, loads = [], []
    for call in (lambda m: m(x, counted=there), lambda m: m(tokens), lambda m: m(x)):
        moe = layer(balance=Balance(rule=rule, rate=0.1), select=select)
        call(moe).sum().backward()
        loads.append(moe.update_bias())
        biases.append(moe.bias.clone())
    assert loads[0].tokens == 4 * 32
    assert torch.equal(loads[0].counts, loads[1].counts)
    torch.testing.assert_close(biases[0], biases[1], rtol=0, atol=1e-6)
    assert loads[2].max_violation > loads[0].max_violation + 1  # without the mask: the load of one token, 96 times
    assert not torch.allclose(biases[0], biases[2], atol=1e-3)


@pytest.mark.parametrize("scope", ["batch", "sequence", "global"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_penalty_and_its_gradient_are_those_of_the_tokens_alone(kind, scope):
    x, there, tokens = padded()
    found = []
    for call in (lambda m: m(x, counted=there), lambda m: m(tokens), lambda m: m(x)):
        moe = layer(penalty=Penalty(kind=kind, scope=scope, weight=1.0, z_weight=0.1))
        if scope == "global":
            with torch.no_grad(), expert_loads(moe) as seen:
                call(moe)
            moe.expect(seen[""])
        call(moe)
        loss = nn.experts.auxiliary_loss(moe)
        loss.backward()
        found.append((loss.detach(), moe.router.weight.grad))
    for a, b, c in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)
        assert not torch.allclose(a, c, rtol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_sequences_of_different_length_weigh_alike_and_empty_ones_nothing(kind):
    x = torch.randn(3, 10, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    there = torch.arange(10) < torch.tensor([10, 4, 0])[:, None]
    moe = layer(penalty=Penalty(kind=kind, scope="sequence", weight=1.0))
    moe(x, counted=there)
    whole = nn.experts.auxiliary_loss(moe)
    parts = []
    for i, length in enumerate((10, 4)):
        moe(x[i : i + 1, :length])
        parts.append(nn.experts.auxiliary_loss(moe))
    torch.testing.assert_close(whole, torch.stack(parts).mean(), rtol=1e-12, atol=0)
    moe(x, counted=torch.zeros(3, 10, dtype=torch.bool))
    assert float(nn.experts.auxiliary_loss(moe).detach()) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_nan_in_padding_reaches_neither_counts_nor_penalty(kind):
    x, there, tokens = padded(8, 16, 2)
    moe = layer(penalty=Penalty(kind=kind, z_weight=0.1))
    x = x.requires_grad_()
    out = moe(torch.where(there[..., None], x, torch.nan), counted=there)
    loss = nn.experts.auxiliary_loss(moe)
    moe(tokens)
    torch.testing.assert_close(loss, nn.experts.auxiliary_loss(moe), rtol=1e-12, atol=0)
    assert out[there].isfinite().all()


def test_the_model_hands_the_mask_on():
    draw = torch.Generator().manual_seed(0)
    model = nn.LanguageModel(
        vocabulary=20, width=16, depth=2, heads=2, hidden=16, generator=0,
        feed_forward=lambda i: nn.MoE(16, experts=8, top_k=2, hidden=8, generator=i),
    )  # fmt: skip
    tokens = torch.randint(0, 20, (2, 12), generator=draw)
    there = torch.arange(12).expand(2, 12) < 5
    model(tokens, counted=there).sum().backward()
    assert [block.feed_forward.update_bias().tokens for block in model.blocks] == [10, 10]
    with expert_loads(model) as loads, torch.no_grad():
        model(tokens, counted=there)
    assert [load.tokens for load in loads.values()] == [10, 10]
    plain = nn.LanguageModel(vocabulary=20, width=16, depth=1, heads=2, generator=0)
    assert torch.equal(plain(tokens, counted=there), plain(tokens))  # no experts: nothing to count


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("select", ["top_k", "threshold"])
def test_experts_take_the_shares_of_the_target(rule, select):
    draw = torch.Generator().manual_seed(3)
    wanted = Balance(rule=rule, rate=0.05, target=TARGET)
    moe = layer(balance=wanted, select=select)
    late = torch.zeros(8)
    for step in range(60):
        moe(torch.randn(512, 16, generator=draw, dtype=torch.float64)).sum().backward()
        loads = moe.update_bias(factor=1 - step / 60)
        if step >= 40:
            late += loads.counts
    found = Loads(late.long(), 20 * 512)
    assert found.violation(TARGET) < 0.12
    assert found.max_violation > 1.2  # 8 * 0.3 - 1 = 1.4 where the target is kept
    assert found.experts_a_token == pytest.approx(2, rel=0.03)


def test_one_dynamic_quantile_meets_any_target_exactly():
    s = torch.rand(1000, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    bias = quantile_bias(s, top_k=2, dynamic=True, target=TARGET)
    assert ((s + bias) > 0).sum(0).tolist() == [600, 400, 300, 200, 200, 100, 100, 100]
    even = quantile_bias(s, top_k=2, dynamic=True, target=(1 / 8,) * 8)
    assert torch.equal(even, quantile_bias(s, top_k=2, dynamic=True))


@pytest.mark.parametrize("selection", ["sigmoid", "softmax"])
def test_a_threshold_starts_near_the_target(selection):
    n = 64
    target = torch.linspace(1, 3, n, dtype=torch.float64)
    target = tuple((target / target.sum()).tolist())
    moe = nn.MoE(
        256, experts=n, top_k=8, hidden=8, activation=selection, select="threshold", generator=0,
        balance=Balance(target=target),
    )  # fmt: skip
    chosen = moe.router(torch.randn(8192, 256, generator=torch.Generator().manual_seed(0)), moe.bias).chosen
    shares = chosen.sum(0) / chosen.sum()
    assert (shares / torch.tensor(target) - 1).abs().mean() < 0.15
    assert (shares * n - 1).abs().mean() > 0.2  # and not near uniform


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Balance(target=(0.5, 0.4)), "positive and sum to 1"),
        (lambda: Balance(target=(1.0, 0.0)), "positive and sum to 1"),
        (lambda: layer(balance=Balance(target=(0.5, 0.5))), "a share for each of 8 experts"),
        (lambda: layer(balance=Balance(target=(0.51, *(0.07,) * 7))), "each below 1 / top_k = 0.5"),
        (lambda: Loads(torch.ones(3), 3).violation((0.5, 0.5)), "2 shares for 3 experts"),
    ],
)
def test_targets_that_cannot_be_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()
