"""The encoder of texts: padding does nothing, order matters, texts do not see each other."""

import pytest
import torch

from spectrain.nn import TextEncoder


def encoder(depth=2, **changes):
    made = TextEncoder(
        **{"vocabulary": 30, "width": 16, "depth": depth, "heads": 2, "generator": 0, **changes}
    ).double()
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in made.parameters():
            p.add_(torch.randn(p.shape, generator=draw, dtype=p.dtype), alpha=0.2)
    return made


TEXTS = [[4, 8, 15, 16], [23], [4, 2, 4, 2, 4, 2]]


def padded(texts, length):
    return torch.tensor([text + [-1] * (length - len(text)) for text in texts])


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_padding_and_company_do_nothing(depth):
    net = encoder(depth)
    alone = torch.cat([net(torch.tensor([text])) for text in TEXTS])
    for length in (6, 11):
        torch.testing.assert_close(net(padded(TEXTS, length)), alone, rtol=1e-12, atol=1e-12)


def test_order_matters_except_to_a_bag():
    turned = torch.tensor([[16, 15, 8, 4]])
    assert (encoder()(turned) - encoder()(torch.tensor([TEXTS[0]]))).abs().max() > 1e-3
    torch.testing.assert_close(encoder(0)(turned), encoder(0)(torch.tensor([TEXTS[0]])))


def test_every_parameter_has_a_finite_gradient():
    net = encoder()
    net(padded(TEXTS, 7)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="width divisible by twice the heads"):
        encoder(width=12, heads=4)
    with pytest.raises(ValueError, match="text 1 has no token"):
        encoder()(torch.tensor([[1, 2], [-1, -1]]))
